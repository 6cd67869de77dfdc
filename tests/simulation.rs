//! By the seed: the log over a disk that forgets, a partition that moves between data directories of it, a compacted topic; a whole
//! broker over that disk, a faulty network and a faulty coordination store; several brokers over one such store, with plain clients,
//! transactions, and groups of all kinds. `benches/simulate` runs as many as one likes.
//!
//! Found this way, and kept as named seeds below: what each of them was is in its name.
//!
//! That the broker's simulation can fail was tried by breaking the broker: acknowledging or showing records before they
//! are synced, storing a batch that is sent again, forgetting the batches before the last one, taking commits of any
//! generation, acknowledging commits that are not stored. Each is found within some tens of seeds. Of several brokers it was
//! tried with leases that never end, which every fifth seed finds. Taking away the fences of stored changes (the versions of a
//! slot and of the controller's epoch) while leases are kept is not found in 200 seeds: there leases are enough.
//!
//! Of moves it was tried without the syncs of the old directory's name, of copied bytes, of the topic's id and of a new
//! directory, without the row that is held, and with deletions that forget a failed rename: found within 400 to 2,000
//! seeds. A mark that goes before its copy has a durable name took 1,200. Not found in 400 seeds: an undo that is not synced,
//! a copy that is dropped though its undo failed, names that are not synced at an unclean start.
//!
//! Of a compacted topic it was tried without the bound of the last stable offset, which nine of ten seeds find. Without the bound of
//! what is synced nothing is found in 200 seeds: a segment is synced when it is sealed, before a cleaner looks.
//!
//! Of groups it was tried with partitions given away that others have, states of share partitions that are not read at a start, and
//! acknowledgements answered before they are stored: found within four seeds; and with commits of anybody taken: within eighteen.

#[path = "simulation/admin.rs"]
mod admin;
#[path = "simulation/chance.rs"]
mod chance;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/compacted.rs"]
mod compacted;
#[path = "simulation/consumer.rs"]
mod consumer;
#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/ensemble.rs"]
mod ensemble;
#[path = "simulation/history.rs"]
mod history;
#[path = "simulation/house.rs"]
mod house;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/member.rs"]
mod member;
#[path = "simulation/moves.rs"]
mod moves;
#[path = "simulation/names.rs"]
mod names;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/operator.rs"]
mod operator;
#[path = "simulation/owner.rs"]
mod owner;
#[path = "simulation/process.rs"]
mod process;
#[path = "simulation/producer.rs"]
mod producer;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/receiver.rs"]
mod receiver;
#[path = "simulation/router.rs"]
mod router;
#[path = "simulation/seeds.rs"]
mod seeds;
#[path = "simulation/sharer.rs"]
mod sharer;
#[path = "simulation/store.rs"]
mod store;
#[path = "simulation/transactions.rs"]
mod transactions;
#[path = "simulation/transactor.rs"]
mod transactor;
#[path = "simulation/work.rs"]
mod work;
#[path = "simulation/world.rs"]
mod world;

use log::Faults;
use world::What;

/// Seeds of a usual run, and steps of each of the log's.
const SEEDS: u64 = 200;
const STEPS: usize = 120;
/// Steps of each seed of moves.
const MOVE_STEPS: usize = 30;
/// Steps of each seed of a compacted topic.
const COMPACTED_STEPS: usize = 60;

/// Seeds of several brokers in a usual run: each takes as long as several of the others.
const CLUSTER_SEEDS: u64 = 60;

/// Seeds of transactions in a usual run.
const TRANSACTION_SEEDS: u64 = 60;
const REPLICA_SEEDS: u64 = 60;
const REPLICATED_TRANSACTION_SEEDS: u64 = 40;
/// Seeds of groups in a usual run.
const GROUP_SEEDS: u64 = 30;

/// What makes a child of this binary run the seed that it is told.
const CHILD: &[&str] = &["one_seed_of_the_broker", "--exact"];

fn assert_clean(seeds: std::ops::Range<u64>, one: impl Fn(u64) -> Result<(), String> + Sync) {
    let (failed, shown) = seeds::run(seeds, 1, one);
    assert!(failed == 0, "{failed} seeds; {}", shown.join("\n"));
}

#[test]
fn a_log_keeps_what_it_acknowledged_over_a_disk_that_forgets() {
    assert_clean(0..SEEDS, |seed| log::run(seed, STEPS, Faults::Calls));
}

#[test]
fn a_log_keeps_what_it_acknowledged_while_syncs_take_time_and_writebacks_fail() {
    assert_clean(0..SEEDS, |seed| log::run(seed, STEPS, Faults::Syncs));
}

#[test]
fn a_log_keeps_what_it_acknowledged_while_a_leader_has_it_cut_off() {
    assert_clean(0..SEEDS, |seed| log::run(seed, STEPS, Faults::Rewrites));
}

#[test]
fn what_tells_of_aborted_transactions_is_synced_before_a_later_recovery_point_counts_on_it() {
    for seed in [246, 814] {
        log::run(seed, STEPS, Faults::Calls).unwrap();
    }
    log::run(5090, STEPS, Faults::Syncs).unwrap();
}

#[test]
fn what_was_cut_off_an_index_of_aborted_transactions_does_not_come_back_with_the_power() {
    for seed in [1577, 1587] {
        log::run(seed, STEPS, Faults::Calls).unwrap();
    }
}

#[test]
fn an_index_of_aborted_transactions_whose_sync_failed_is_written_again_at_the_next_start() {
    for seed in [1241, 1364] {
        log::run(seed, STEPS, Faults::Syncs).unwrap();
    }
}

#[test]
fn an_index_of_aborted_transactions_tells_of_none_that_the_power_took_with_all_records() {
    for seed in [2026, 2550, 2925] {
        compacted::run(seed, COMPACTED_STEPS).unwrap();
    }
}

#[test]
fn a_log_of_which_nothing_is_left_after_its_start_knows_of_no_open_transaction() {
    for seed in [674, 888] {
        log::run(seed, STEPS, Faults::Calls).unwrap();
    }
    log::run(561, STEPS, Faults::Rewrites).unwrap();
}

#[test]
fn a_partition_that_moves_is_there_once_with_all_that_was_acknowledged() {
    assert_clean(0..SEEDS, |seed| moves::run(seed, MOVE_STEPS));
}

#[test]
fn a_compacted_topic_shows_the_last_value_of_every_key_whatever_happens() {
    assert_clean(0..SEEDS, |seed| compacted::run(seed, COMPACTED_STEPS));
    let passes = compacted::PASSES.load(std::sync::atomic::Ordering::Relaxed);
    assert!(passes > SEEDS, "{passes} passes");
}

#[test]
fn what_the_power_took_between_two_segments_of_a_compacted_log_is_no_gap_of_compaction() {
    for seed in [36, 186] {
        compacted::run(seed, COMPACTED_STEPS).unwrap();
    }
}

#[test]
fn an_index_whose_last_entry_lost_its_position_with_the_power_is_no_damage() {
    compacted::run(520_386, COMPACTED_STEPS).unwrap();
}

#[test]
fn a_sync_that_fails_while_a_log_is_recovered_takes_nothing_of_it_at_the_start_after_that() {
    for seed in [549, 5594] {
        moves::run(seed, MOVE_STEPS).unwrap();
    }
}

#[test]
fn a_log_whose_sync_failed_when_it_was_to_move_is_not_opened_again_as_if_it_was_closed() {
    moves::run(5882, MOVE_STEPS).unwrap();
}

#[test]
fn a_copy_that_an_earlier_move_could_not_remove_does_not_become_the_partition() {
    moves::run(6724, MOVE_STEPS).unwrap();
}

#[test]
fn a_seed_of_moves_that_is_run_again_does_the_same_again() {
    for seed in 0..20 {
        let told = || chance::seeded(seed, || moves::told(seed, MOVE_STEPS)).unwrap();
        let (once, again) = (told(), told());
        // Their directories have other names.
        assert_eq!(once.0.is_none(), again.0.is_none());
        assert_eq!(once.1.len(), again.1.len(), "seed {seed}");
    }
}

#[test]
fn a_sync_after_a_failed_one_and_a_restart_writes_what_the_device_refused() {
    for seed in [8, 982, 1358, 1862, 2539, 2902] {
        log::run(seed, STEPS, Faults::Syncs).unwrap();
    }
    process::run(What::Broker, 4816, CHILD).unwrap();
}

#[test]
fn a_broker_keeps_what_it_promised_whatever_fails_around_it() {
    assert_clean(0..SEEDS, |seed| process::run(What::Broker, seed, CHILD));
}

/// The others run it, once a seed.
#[test]
fn one_seed_of_the_broker() {
    if !process::serve() {
        process::run(What::Broker, 0, CHILD).unwrap();
    }
}

#[test]
fn connections_write_in_every_fourth_seed() {
    let wrote = |seed| {
        let told = process::told(What::Broker, seed, CHILD).unwrap();
        let (_, rounds) = told.split_once("connections wrote ").unwrap();
        rounds.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert!((0..4).all(|n| wrote(n * 4) > 10));
    assert_eq!(wrote(1), 0);
}

#[test]
fn a_seed_that_is_run_again_does_the_same_again() {
    for (what, seeds) in [(What::Broker, 0..10), (What::Cluster, 0..6)] {
        for seed in seeds {
            let told = || process::told(what, seed, CHILD).unwrap();
            let (once, again) = (told(), told());
            let differs = once.lines().zip(again.lines()).find(|(a, b)| a != b);
            assert_eq!(differs, None, "{what:?}, seed {seed}");
            assert_eq!(once.len(), again.len(), "{what:?}, seed {seed}");
        }
    }
}

#[test]
fn several_brokers_keep_what_they_promised_whatever_fails_around_them() {
    assert_clean(0..CLUSTER_SEEDS, |seed| {
        process::run(What::Cluster, seed, CHILD)
    });
}

#[test]
fn in_the_seeds_of_several_brokers_sessions_expire_the_group_moves_and_topics_come_and_go() {
    let mut sums = [0; 4];
    for seed in 0..8 {
        let told = process::told(What::Cluster, seed, CHILD).unwrap();
        let (_, counts) = told.split_once("in the store: ").unwrap();
        let words = counts.split([' ', '\n', ',']);
        let counts = words.filter_map(|word| word.parse::<u64>().ok());
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    let [expired, moved, elected, made] = sums;
    assert!(
        expired >= 8 && moved >= 8 && elected >= 8 && made >= 24,
        "{sums:?}"
    );
}

#[test]
fn a_topic_that_was_deleted_while_a_broker_was_away_does_not_come_back_with_it() {
    for seed in [185, 347, 497] {
        process::run(What::Cluster, seed, CHILD).unwrap();
    }
}

#[test]
fn a_topic_that_was_deleted_does_not_come_back_with_what_a_failing_disk_left_of_it() {
    process::run(What::Cluster, 2013, CHILD).unwrap();
}

#[test]
fn a_broker_that_does_not_reach_the_controller_does_not_say_that_there_is_no_such_topic() {
    process::run(What::Cluster, 2356, CHILD).unwrap();
}

#[test]
fn what_a_torn_header_leaves_in_the_journal_does_not_keep_a_partition_closed() {
    process::run(What::Cluster, 437, CHILD).unwrap();
}

#[test]
fn a_batch_that_is_sent_again_after_a_restart_is_known_although_others_followed_it() {
    for seed in [30, 49, 85] {
        process::run(What::Broker, seed, CHILD).unwrap();
    }
}

#[test]
fn what_a_crash_left_unsynced_is_not_shown_and_then_lost_with_the_power() {
    for seed in [99, 178, 225] {
        process::run(What::Broker, seed, CHILD).unwrap();
    }
}

#[test]
fn what_the_journal_holds_does_not_count_before_the_names_of_the_segments_do() {
    for seed in [250, 649] {
        process::run(What::Broker, seed, CHILD).unwrap();
    }
}

#[test]
fn a_journals_file_is_not_used_before_its_name_is_durable_whoever_made_it() {
    process::run(What::Broker, 6180, CHILD).unwrap();
}

#[test]
fn an_index_that_a_power_failure_left_behind_is_not_the_next_segments() {
    for seed in [56, 180, 203] {
        log::run(seed, STEPS, Faults::Calls).unwrap();
    }
}

#[test]
fn a_segment_whose_name_was_not_synced_before_a_crash_is_synced_after_it() {
    for seed in [52, 219, 1091, 3958] {
        log::run(seed, STEPS, Faults::Calls).unwrap();
    }
}

#[test]
fn a_hole_that_was_deleted_before_it_was_lost_does_not_keep_a_log_closed() {
    for seed in [82, 166] {
        log::run(seed, STEPS, Faults::Calls).unwrap();
    }
}

#[test]
fn retention_leaves_nothing_that_a_power_failure_could_take_whole() {
    for seed in [4189, 5549, 5562] {
        log::run(seed, STEPS, Faults::Calls).unwrap();
    }
    for seed in [6826, 7128] {
        log::run(seed, STEPS, Faults::Syncs).unwrap();
    }
}

#[test]
fn a_deleted_segment_that_a_power_failure_brings_back_takes_nothing_with_it() {
    for seed in [8322, 9852] {
        log::run(seed, STEPS, Faults::Calls).unwrap();
    }
}

#[test]
fn transactions_are_whole_and_seen_once_whatever_fails_around_them() {
    assert_clean(0..TRANSACTION_SEEDS, |seed| {
        process::run(What::Transactions, seed, CHILD)
    });
}

#[test]
fn replicas_keep_what_is_acknowledged_and_are_equal_in_the_end_whatever_fails_around_them() {
    assert_clean(0..REPLICA_SEEDS, |seed| {
        process::run(What::Replicas, seed, CHILD)
    });
}

#[test]
fn transactions_on_replicas_are_whole_and_seen_once_whatever_fails_around_them() {
    assert_clean(0..REPLICATED_TRANSACTION_SEEDS, |seed| {
        process::run(What::ReplicatedTransactions, seed, CHILD)
    });
}

/// The names of a log's first segments were lost, and a later one's was not: others took it that they were deleted.
#[test]
fn a_replica_that_lost_its_beginning_does_not_have_it_deleted_on_others() {
    process::run(What::Replicas, 8421, CHILD).unwrap();
}

/// A topic was deleted by a write whose outcome its controller did not learn, and a change of its partitions made a node without content.
#[test]
fn a_topic_that_was_deleted_does_not_come_back_by_a_change_of_its_partitions() {
    process::run(What::Replicas, 42985, CHILD).unwrap();
}

/// A disk was full or failed when a start was to put the journal aside, and no log could be cut off until the next one.
#[test]
fn logs_are_cut_off_once_a_journal_can_be_put_aside_after_all() {
    for seed in [50456, 55554, 56687] {
        process::run(What::Replicas, seed, CHILD).unwrap();
    }
}

/// What a journal held of a replica that was removed came back when the broker was given the partition again.
#[test]
fn a_replica_that_was_removed_begins_anew_when_it_comes_back() {
    process::run(What::ReplicatedTransactions, 1955, CHILD).unwrap();
}

#[test]
fn groups_of_each_kind_give_out_what_there_is_and_lose_nothing_whatever_fails_around_them() {
    assert_clean(0..GROUP_SEEDS, |seed| {
        process::run(What::Groups, seed, CHILD)
    });
}

/// The journal had given up, and nothing could note any more that a log was cut off.
#[test]
fn a_follower_whose_journal_has_failed_is_cut_off_and_goes_on() {
    process::run(What::Replicas, 10, CHILD).unwrap();
}

#[test]
fn who_copies_hears_at_once_that_the_replica_was_taken_away_whose_sync_it_waits_for() {
    process::run(What::Replicas, 29, CHILD).unwrap();
}
