//! What becomes of leaders and in-sync replicas, case by case and by chance.

mod strict;

use proptest::prelude::*;

use super::*;
use crate::meta::records::LossRecord;
use crate::partition::Identity;

fn brokers(ids: &[i32]) -> BTreeMap<i32, Broker> {
    let broker = |id: &i32| {
        let broker = Broker {
            id: *id,
            endpoints: Vec::new(),
            rack: None,
            accept_publish: true,
            follows_only: false,
            shutting_down: false,
            lost: LossRecord::default(),
            epoch: 1,
        };
        (*id, broker)
    };
    ids.iter().map(broker).collect()
}

fn partition(replicas: &[i32]) -> PartitionInfo {
    let identity = Identity {
        broker_id: replicas[0],
        number: 0,
    };
    PartitionInfo::new(identity, replicas.to_vec(), 0)
}

fn rules(brokers: &BTreeMap<i32, Broker>, min_isr: usize) -> Rules<'_> {
    Rules {
        brokers,
        drained: &NONE_LOST,
        min_isr,
        unclean: false,
        strict: false,
    }
}

/// What becomes of it while these brokers are there; it as it is, where that is nothing.
fn with(before: &PartitionInfo, live: &[i32], min_isr: usize) -> PartitionInfo {
    let brokers = brokers(live);
    let after = settled(before, rules(&brokers, min_isr), &Returned::default());
    after.unwrap_or_else(|| before.clone())
}

fn returned(renewed: &[i32], lost: &[i32]) -> Returned {
    Returned {
        renewed: renewed.iter().copied().collect(),
        lost: lost.iter().copied().collect(),
    }
}

/// Leader, in sync, eligible.
fn state(info: &PartitionInfo) -> (i32, Vec<i32>, Vec<i32>) {
    (info.leader, info.isr.clone(), info.elr.clone())
}

fn epochs(info: &PartitionInfo) -> (i32, i32) {
    (info.leader_epoch, info.partition_epoch)
}

#[test]
fn who_is_away_when_its_replica_is_taken_away_is_remembered_until_it_keeps_one_again() {
    let brokers = brokers(&[1, 3]);
    let with_replicas = |before: &PartitionInfo, replicas: &[i32]| {
        let mut change = Change::of(before, rules(&brokers, 1));
        change.replicas = replicas.to_vec();
        change.made().unwrap()
    };
    let led = partition(&[1, 2, 3]);
    let smaller = with_replicas(&led, &[1]);
    assert_eq!(smaller.left_on, [2]);
    let other = with_replicas(&smaller, &[1, 4]);
    let without = with_replicas(&other, &[1, 3]);
    assert_eq!(without.left_on, [2, 4]);
    assert_eq!(with_replicas(&without, &[1, 2]).left_on, [4]);
}

#[test]
fn the_first_live_one_in_sync_leads_and_who_is_gone_leaves() {
    let led = partition(&[1, 2, 3]);
    let second = with(&led, &[2, 3], 1);
    assert_eq!(
        (state(&second), epochs(&second)),
        ((2, vec![2, 3], vec![]), (1, 1))
    );
    let followed = with(&led, &[1, 3], 1);
    assert_eq!(
        (state(&followed), epochs(&followed)),
        ((1, vec![1, 3], vec![]), (0, 1))
    );
    assert_eq!(with(&led, &[1, 2, 3], 1), led);
    // Who comes back follows first.
    assert_eq!(with(&second, &[1, 2, 3], 1), second);
}

#[test]
fn the_last_in_sync_is_waited_for_and_leads_when_it_is_back() {
    let led = partition(&[1, 2, 3]);
    let last = with(&with(&led, &[2, 3], 1), &[3], 1);
    assert_eq!(
        (state(&last), epochs(&last)),
        ((3, vec![3], vec![]), (2, 2))
    );
    let none = with(&last, &[], 1);
    assert_eq!(
        (state(&none), epochs(&none)),
        ((-1, vec![3], vec![]), (3, 3))
    );
    // The others have less.
    assert_eq!(with(&none, &[1, 2], 1), none);
    let back = with(&none, &[1, 3], 1);
    assert_eq!(
        (state(&back), epochs(&back)),
        ((3, vec![3], vec![]), (4, 4))
    );
    // All at once: each of them has all, and the first to come back leads.
    let none = with(&led, &[], 1);
    assert_eq!(state(&none), (-1, vec![1, 2, 3], vec![]));
    assert_eq!(state(&with(&none, &[2], 1)), (2, vec![2], vec![]));
}

#[test]
fn who_left_while_nothing_was_committed_is_eligible() {
    let led = partition(&[1, 2, 3]);
    let one = with(&with(&led, &[2, 3], 2), &[3], 2);
    assert_eq!(state(&one), (3, vec![3], vec![2]));
    // The last one dies and an eligible one is back: it has all that was committed.
    let eligible = with(&one, &[2], 2);
    assert_eq!(state(&eligible), (2, vec![2], vec![3]));
    // Broker 1 left while two were in sync, and more was committed.
    assert_eq!(state(&with(&one, &[1], 2)), (-1, vec![3], vec![2]));
}

#[test]
fn where_the_topic_lets_it_any_replica_leads_rather_than_none() {
    let led = partition(&[1, 2, 3]);
    let none = with(&with(&led, &[3], 1), &[], 1);
    let brokers = brokers(&[2]);
    let unclean = Rules {
        unclean: true,
        ..rules(&brokers, 2)
    };
    let after = settled(&none, unclean, &Returned::default()).unwrap();
    assert_eq!(state(&after), (2, vec![2], vec![]));
}

#[test]
fn a_registration_that_is_replaced_is_a_death() {
    let led = partition(&[1, 2]);
    let live = brokers(&[1, 2]);
    let after = |info: &PartitionInfo, returned: &Returned| {
        let after = settled(info, rules(&live, 1), returned);
        after.unwrap_or_else(|| info.clone())
    };
    let moved = after(&led, &returned(&[1], &[]));
    assert_eq!(
        (state(&moved), epochs(&moved)),
        ((2, vec![2], vec![]), (1, 1))
    );
    // Alone in sync, it leads on, in a new epoch.
    let alone = after(&moved, &returned(&[2], &[]));
    assert_eq!(
        (state(&alone), epochs(&alone)),
        ((2, vec![2], vec![]), (2, 2))
    );
    let both = after(&led, &returned(&[1, 2], &[]));
    assert_eq!(
        (state(&both), epochs(&both)),
        ((1, vec![1, 2], vec![]), (1, 1))
    );
}

#[test]
fn who_came_back_with_less_is_counted_on_last() {
    let one = with(&with(&partition(&[1, 2, 3]), &[2, 3], 2), &[3], 2);
    assert_eq!(state(&one), (3, vec![3], vec![2]));
    let none = with(&one, &[], 2);
    assert_eq!(none.last_known_leader, 3);
    let after = |info: &PartitionInfo, live: &[i32], lost: &[i32]| {
        let live = brokers(live);
        let after = settled(info, rules(&live, 2), &returned(lost, lost));
        after.unwrap_or_else(|| info.clone())
    };
    let back = after(&none, &[3], &[]);
    assert_eq!(state(&back), (3, vec![3], vec![2]));
    assert_eq!(back.last_known_leader, NO_LEADER);
    // Not the one that has less, but the one that has all, when it is back.
    let waiting = after(&none, &[3], &[3]);
    assert_eq!(state(&waiting), (-1, vec![2], vec![]));
    assert_eq!(state(&after(&none, &[2, 3], &[3])), (2, vec![2], vec![]));
    // That one has less too: then the last that led, whoever comes first.
    assert_eq!(state(&after(&waiting, &[2], &[2])), (-1, vec![3], vec![]));
    assert_eq!(state(&after(&waiting, &[2, 3], &[2])), (3, vec![3], vec![]));
    // Where no other one has all, it is better than none.
    let alone = with(&with(&partition(&[1, 2]), &[1], 1), &[], 1);
    let live = brokers(&[1, 2]);
    let back = settled(&alone, rules(&live, 1), &returned(&[1], &[1]));
    assert_eq!(state(&back.unwrap()), (1, vec![1], vec![]));
}

#[test]
fn where_all_lost_their_power_at_once_the_leader_leads_alone() {
    let led = partition(&[1, 2, 3]);
    let all = brokers(&[1, 2, 3]);
    let back = settled(&led, rules(&all, 2), &returned(&[1, 2, 3], &[1, 2, 3]));
    let back = back.unwrap();
    assert_eq!(
        (state(&back), epochs(&back)),
        ((1, vec![1], vec![]), (1, 1))
    );
    // Who follows has to copy what it has before it is in sync; and who had less is not eligible.
    let one = settled(&led, rules(&all, 2), &returned(&[2], &[2])).unwrap();
    assert_eq!(state(&one), (1, vec![1, 3], vec![]));
    let two = settled(&one, rules(&all, 2), &returned(&[3], &[3])).unwrap();
    assert_eq!(state(&two), (1, vec![1], vec![]));
}

#[test]
fn a_partition_of_one_replica_begins_an_epoch_where_that_one_lost_something() {
    let led = partition(&[1]);
    let live = brokers(&[1, 2]);
    let after =
        |renewed: &[i32], lost: &[i32]| settled(&led, rules(&live, 1), &returned(renewed, lost));
    assert_eq!(after(&[1], &[]), None);
    assert_eq!(after(&[1, 2], &[2]), None);
    let begun = after(&[1], &[1]).unwrap();
    assert_eq!(
        (state(&begun), epochs(&begun)),
        ((1, vec![1], vec![]), (1, 1))
    );
    assert!(begun.is_alone());
}

#[test]
fn a_broker_that_takes_no_messages_leads_only_where_no_other_can() {
    let mut live = brokers(&[1, 2]);
    live.get_mut(&1).unwrap().accept_publish = false;
    let led = partition(&[1, 2]);
    let after = settled(&led, rules(&live, 1), &Returned::default()).unwrap();
    assert_eq!(state(&after), (2, vec![1, 2], vec![]));
    live.remove(&2);
    let after = settled(&after, rules(&live, 1), &Returned::default()).unwrap();
    assert_eq!(state(&after), (1, vec![1], vec![]));
}

#[test]
fn a_broker_that_is_drained_is_followed_by_another_one_and_gets_nothing_back_until_it_is_not() {
    let live = brokers(&[1, 2]);
    let drained = BTreeSet::from([1]);
    let drained = Rules {
        drained: &drained,
        ..rules(&live, 1)
    };
    let led = partition(&[1, 2]);
    let moved = settled(&led, drained, &Returned::default()).unwrap();
    assert_eq!(
        (state(&moved), epochs(&moved)),
        ((2, vec![1, 2], vec![]), (1, 1))
    );
    let preferred = |rules| {
        let mut change = Change::of(&moved, rules);
        change.preference = Preference::FirstReplica;
        change.made()
    };
    assert_eq!(preferred(drained), None);
    assert_eq!(preferred(rules(&live, 1)).unwrap().leader, 1);
    // Where no other one is in sync, it leads.
    let alone = brokers(&[1]);
    let alone = Rules {
        brokers: &alone,
        ..drained
    };
    assert_eq!(
        settled(&moved, alone, &Returned::default()).unwrap().leader,
        1
    );
}

#[test]
fn a_broker_that_only_follows_never_leads_and_the_others_are_waited_for() {
    let with_slave = |ids: &[i32]| {
        let mut live = brokers(ids);
        if let Some(slave) = live.get_mut(&2) {
            slave.follows_only = true;
        }
        live
    };
    let after = |info: &PartitionInfo, ids: &[i32], unclean| {
        let live = with_slave(ids);
        let rules = Rules {
            unclean,
            ..rules(&live, 1)
        };
        let after = settled(info, rules, &Returned::default());
        after.unwrap_or_else(|| info.clone())
    };
    let led = partition(&[1, 2]);
    assert_eq!(after(&led, &[1, 2], false), led);
    // The master is away, and comes back: what only it has counts.
    for unclean in [false, true] {
        let none = after(&led, &[2], unclean);
        assert_eq!(state(&none), (-1, vec![1], vec![]));
        assert_eq!(state(&after(&none, &[1, 2], unclean)), (1, vec![1], vec![]));
    }
    // Both, and the slave is back first.
    let none = after(&led, &[], false);
    assert_eq!(state(&none), (-1, vec![1, 2], vec![]));
    let none = after(&none, &[2], false);
    assert_eq!(state(&none), (-1, vec![1], vec![]));
    // The slave is gone: nothing else changes.
    assert_eq!(state(&after(&led, &[1], false)), (1, vec![1], vec![]));
    // Made to be led by it alone, it is led by none.
    let two = partition(&[2, 3]);
    assert_eq!(state(&after(&two, &[2, 3], false)), (3, vec![2, 3], vec![]));
}

#[test]
fn a_partition_of_one_replica_is_led_by_that_one_for_ever() {
    let only = partition(&[1]);
    for (live, returned) in [(&[][..], returned(&[], &[])), (&[1], returned(&[1], &[]))] {
        let live = brokers(live);
        assert_eq!(settled(&only, rules(&live, 1), &returned), None);
    }
}

#[test]
fn a_reassignment_ends_when_all_that_it_adds_is_in_sync() {
    let live = brokers(&[1, 2, 3, 4]);
    let mut moving = partition(&[3, 4, 1, 2]);
    (moving.isr, moving.leader) = (vec![1, 2], 1);
    (moving.adding, moving.removing) = (vec![3, 4], vec![1, 2]);
    let propose = |isr: &[i32]| {
        let mut change = Change::of(&moving, rules(&live, 1));
        change.isr = isr.to_vec();
        change.made().unwrap()
    };
    let on_the_way = propose(&[1, 2, 3]);
    assert_eq!(state(&on_the_way), (1, vec![3, 1, 2], vec![]));
    assert_eq!((on_the_way.adding.len(), epochs(&on_the_way)), (2, (0, 1)));
    let done = propose(&[1, 2, 3, 4]);
    assert_eq!(
        (state(&done), epochs(&done)),
        ((3, vec![3, 4], vec![]), (1, 1))
    );
    assert_eq!(done.replicas, [3, 4]);
    assert!(done.adding.is_empty() && done.removing.is_empty());
}

#[derive(Debug, Clone)]
enum Happens {
    Live(Vec<i32>),
    Back(Vec<i32>, Vec<i32>),
    Proposed(Vec<i32>),
    Preferred,
    FailsOver,
    Moved(Vec<i32>),
}

fn some() -> impl Strategy<Value = Vec<i32>> {
    proptest::sample::subsequence(vec![1, 2, 3, 4], 0..=4).prop_shuffle()
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => some().prop_map(Happens::Live),
        1 => (some(), some()).prop_map(|(renewed, lost)| Happens::Back(renewed, lost)),
        3 => some().prop_map(Happens::Proposed),
        1 => Just(Happens::Preferred),
        1 => Just(Happens::FailsOver),
        1 => some().prop_filter("none", |all| !all.is_empty()).prop_map(Happens::Moved),
    ]
}

fn after(
    before: &PartitionInfo,
    what: &Happens,
    live: &mut BTreeMap<i32, Broker>,
    (min_isr, unclean, strict): (usize, bool, bool),
) -> Option<PartitionInfo> {
    if let Happens::Live(ids) = what {
        *live = brokers(ids);
    }
    let rules = Rules {
        unclean,
        strict,
        ..rules(live, min_isr)
    };
    let mut change = Change::of(before, rules);
    match what {
        Happens::Live(_) => return settled(before, rules, &Returned::default()),
        Happens::Back(renewed, lost) => {
            return settled(before, rules, &returned(renewed, lost));
        }
        // As what a leader may propose.
        Happens::Proposed(isr) => {
            change.isr = isr.clone();
            change
                .isr
                .retain(|id| rules.is_active(*id) && before.replicas.contains(id));
            if !rules.is_active(before.leader) || !change.isr.contains(&before.leader) {
                return None;
            }
        }
        Happens::Preferred => change.preference = Preference::FirstReplica,
        Happens::FailsOver => change.preference = Preference::AnyInSync,
        Happens::Moved(target) => {
            let removing = in_order(&before.replicas, |id| !target.contains(&id));
            change.adding = in_order(target, |id| !before.replicas.contains(&id));
            change.replicas = target.iter().chain(&removing).copied().collect();
            change.removing = removing;
        }
    }
    change.made()
}

/// What is true of every change, whatever happens.
fn check(before: &PartitionInfo, after: &PartitionInfo) {
    assert_eq!(after.partition_epoch, before.partition_epoch + 1);
    let begun = after.leader_epoch - before.leader_epoch;
    assert!(begun == 0 || begun == 1);
    assert!(after.leader == before.leader || begun == 1);
    assert!(!after.isr.is_empty());
    let is_replica = |id: &i32| after.replicas.contains(id);
    assert!(after.isr.iter().all(is_replica) && after.elr.iter().all(is_replica));
    assert!(after.elr.iter().all(|id| !after.isr.contains(id)));
    assert!(after.leader == NO_LEADER || after.isr.contains(&after.leader));
    assert!(after.leader == NO_LEADER || after.last_known_leader == NO_LEADER);
}

/// Where the order is strict, nobody leads but the first replica, or who led before.
fn check_home(before: &PartitionInfo, after: &PartitionInfo) {
    let led = [before.leader, before.last_known_leader];
    let may_lead = after.replicas.first() == Some(&after.leader) || led.contains(&after.leader);
    assert!(after.leader == NO_LEADER || may_lead);
}

/// Who has all that is committed. What is committed is what all in sync have, when they are enough.
struct Whole(BTreeSet<i32>);

impl Whole {
    fn loses(&mut self, what: &Happens) {
        match what {
            Happens::Back(_, lost) => self.0.retain(|id| !lost.contains(id)),
            // A leader proposes whom it has seen to have all.
            Happens::Proposed(isr) => self.0.extend(isr),
            _ => {}
        }
    }

    fn follows(&mut self, before: &PartitionInfo, after: &PartitionInfo, rules: Rules<'_>) {
        if after.leader == NO_LEADER {
            return;
        }
        let begins = after.leader_epoch > before.leader_epoch;
        if begins && !self.0.contains(&after.leader) {
            let counted = before.isr.iter().chain(&before.elr);
            let better: Vec<&i32> = counted.filter(|id| self.0.contains(id)).collect();
            assert!(
                rules.unclean && !rules.strict || better.is_empty(),
                "{} leads, {better:?} have all: {before:?}",
                after.leader
            );
            // What it has counts from now on, and who follows cuts off the rest.
            self.0 = BTreeSet::from([after.leader]);
        }
        if after.isr.len() >= rules.min_isr {
            self.0 = after.isr.iter().copied().collect();
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_leader_lacks_what_is_committed_and_no_epoch_goes_back(
        all in proptest::collection::vec(happens(), 1..30),
        min_isr in 1..=3_usize,
        unclean in proptest::bool::weighted(0.2),
        strict in proptest::bool::weighted(0.4),
    ) {
        let mut live = brokers(&[1, 2, 3, 4]);
        let mut info = partition(&[1, 2, 3]);
        let mut whole = Whole(BTreeSet::from([1, 2, 3]));
        for mut what in all {
            if let Happens::Back(renewed, lost) = &mut what {
                // Who is found to have lost something is there, in another registration.
                lost.retain(|id| live.contains_key(id));
                renewed.extend(&*lost);
            }
            let next = after(&info, &what, &mut live, (min_isr, unclean, strict));
            let rules = Rules { unclean, strict, ..rules(&live, min_isr) };
            match (&what, &next) {
                (Happens::Proposed(_), None) => {}
                _ => whole.loses(&what),
            }
            if let Some(next) = next {
                check(&info, &next);
                if strict && !matches!(what, Happens::FailsOver) {
                    check_home(&info, &next);
                }
                whole.follows(&info, &next, rules);
                info = next;
            }
            // What was done is done.
            if let Some(next) = settled(&info, rules, &Returned::default()) {
                check(&info, &next);
                if strict {
                    check_home(&info, &next);
                }
                whole.follows(&info, &next, rules);
                prop_assert_eq!(settled(&next, rules, &Returned::default()), None);
                info = next;
            }
        }
    }
}
