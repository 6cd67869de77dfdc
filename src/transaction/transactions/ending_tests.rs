//! How transactions of a slot end: markers, deleted topics, expiry, two phases, and very many partitions.

use super::*;
use crate::transaction::TWO_PHASE_TIMEOUT_MS;
use crate::transaction::messages::{End, Init};
use crate::transaction::state::Outcome;
use crate::transaction::testing::*;

use TransactionError as E;

#[test]
fn markers_whose_answer_is_lost_are_sent_again_and_two_answers_are_one() {
    let mut bench = Bench::new();
    let producer = bench.init();
    bench.add(producer, &[("t", 1), ("t", 2)]).unwrap();
    bench.end(commit(producer)).unwrap();
    let lost = bench.markers.remove(0);
    let one = vec![("t".into(), 1)];
    bench.ask(ID, Ask::Marked(lost.number, one));
    bench.wait(30_000);
    assert_eq!(bench.markers.len(), 1);
    let left: Vec<i32> = bench.markers[0].partitions.iter().map(|(_, n)| n).collect();
    assert_eq!(left, [2]);
    bench.mark_one(&lost);
    bench.mark_one(&lost);
    bench.wait(20);
    bench.store();
    assert_eq!(bench.state(), "CompleteCommit");
    let next = bumped(producer);
    bench.add(next, &[("t", 1)]).unwrap();
    bench.end(commit(next)).unwrap();
    bench.mark_one(&lost);
    bench.store();
    assert_eq!(bench.state(), "PrepareCommit", "of an earlier transaction");
}

#[test]
fn partitions_of_a_deleted_topic_hold_nothing_up() {
    let mut bench = Bench::new();
    let producer = bench.init();
    bench.add(producer, &[("t", 1), ("u", 1)]).unwrap();
    bench.end(commit(producer)).unwrap();
    let t = bench.topics.0.lock().remove("t").unwrap();
    bench.ask_all(AskAll::TopicDeleted("t".to_owned(), t));
    let u = bench.topics.0.lock().remove("u").unwrap();
    bench.crash(0);
    bench.store();
    assert_eq!(
        bench.state(),
        "CompleteCommit",
        "nothing is left at the next start"
    );
    bench.topics.0.lock().insert("u".to_owned(), u);
    let next = bumped(producer);
    bench.add(next, &[("u", 1)]).unwrap();
    bench.ask_all(AskAll::TopicDeleted("u".to_owned(), t));
    assert_eq!(
        bench.describe(ID).unwrap().partitions.len(),
        1,
        "an earlier one of the name"
    );
    drop(bench.begin_end(ID, commit(next)));
    bench.ask_all(AskAll::TopicDeleted("u".to_owned(), u));
    bench.store();
    assert_eq!(bench.state(), "CompleteCommit");
}

#[test]
fn ids_that_are_not_used_expire_and_open_transactions_never() {
    let mut bench = Bench::new();
    let producer = bench.init_as(two_phase()).unwrap().producer;
    bench.add(producer, &[("t", 1)]).unwrap();
    drop(bench.begin("idle", init()));
    bench.store();
    bench.wait(EXPIRATION_MS - 1);
    bench.store();
    assert!(bench.describe("idle").is_some());
    bench.wait(3_600_000);
    assert!(bench.describe("idle").is_some(), "until it is stored");
    let comes_back = bench.begin("idle", init());
    bench.store();
    assert_eq!(answered(comes_back).unwrap().producer.epoch, 0);
    assert_eq!(bench.state(), "Ongoing");
    assert_eq!(bench.tree.len(), 2);
}

#[test]
fn no_more_transactions_are_open_than_there_are_timers() {
    let mut bench = Bench::new();
    let mut add_by = |id: &str, request: Init| {
        let got = bench.begin(id, request);
        bench.store();
        let producer = answered(got).unwrap().producer;
        let got = bench.begin_add(id, add(producer, &[("t", 1)]));
        bench.store();
        answered(got)
    };
    for id in ["a", "b", "c"] {
        assert_eq!(add_by(id, init()), Ok(()));
    }
    assert_eq!(add_by("d", init()), Err(E::ConcurrentTransactions));
    assert_eq!(add_by("e", two_phase()), Ok(()), "it has no timer");
    assert_eq!(bench.open_timers(), TIMERS_MAX);
    bench.crash(0);
    assert_eq!(bench.open_timers(), TIMERS_MAX);
}

fn two_phase() -> Init {
    Init {
        timeout_ms: TWO_PHASE_TIMEOUT_MS,
        ..init()
    }
}

fn keeping() -> Init {
    Init {
        keep_prepared: true,
        ..two_phase()
    }
}

#[test]
fn a_transaction_of_two_phases_waits_for_its_next_producer_which_ends_it() {
    for outcome in [Outcome::Commit, Outcome::Abort] {
        let mut bench = Bench::new();
        let first = bench.init_as(two_phase()).unwrap().producer;
        bench.add(first, &[("t", 1)]).unwrap();
        bench.wait(EXPIRATION_MS * 100);
        bench.crash(0);
        assert_eq!(bench.state(), "Ongoing");
        let kept = bench.init_as(keeping()).unwrap();
        assert_eq!(kept.ongoing, Some(first));
        assert_eq!(kept.producer, bumped(first));
        bench.crash(0);
        let kept = bench.init_as(keeping()).unwrap();
        assert_eq!(kept.ongoing, Some(first));
        assert_eq!(kept.producer, bumped(bumped(first)));
        assert_eq!(bench.end(commit(first)), Err(E::ProducerFenced));
        assert_eq!(bench.add(first, &[("t", 2)]), Err(E::ProducerFenced));
        assert_eq!(
            bench.add(kept.producer, &[("t", 2)]),
            Err(E::InvalidTxnState)
        );
        let end = End {
            outcome,
            ..commit(kept.producer)
        };
        let after = bench.end(end).unwrap();
        assert_eq!(after, bumped(kept.producer));
        assert_eq!(bench.markers[0].outcome, outcome);
        assert_eq!(bench.markers[0].producer, after);
        bench.mark();
        bench.store();
        assert_eq!(bench.end(end), Ok(after), "again");
        assert_eq!(bench.add(after, &[("t", 1)]), Ok(()));
    }
}

#[test]
fn a_kept_transaction_ends_under_its_own_producer_id_where_its_epochs_are_used_up() {
    let mut bench = Bench::new();
    let first = with_epoch(&mut bench, 32_766);
    bench.add(first, &[("t", 1)]).unwrap();
    let kept = bench.init_as(keeping()).unwrap();
    assert_eq!(kept.ongoing, Some(first));
    assert_eq!(
        (kept.producer.epoch, kept.producer.id == first.id),
        (0, false)
    );
    assert_eq!(bench.end(commit(first)), Err(E::ProducerFenced));
    let after = bench.end(commit(kept.producer)).unwrap();
    assert_eq!(after, bumped(kept.producer));
    let markers = bench.markers[0].producer;
    assert_eq!((markers.id, markers.epoch), (first.id, i16::MAX));
    bench.crash(0);
    bench.mark();
    bench.store();
    assert_eq!(bench.end(commit(kept.producer)), Ok(after), "again");
    assert_eq!(bench.add(after, &[("t", 1)]), Ok(()));
}

#[test]
fn there_is_nothing_to_keep_without_a_transaction() {
    let mut bench = Bench::new();
    let kept = bench.init_as(keeping()).unwrap();
    assert_eq!((kept.ongoing, kept.producer.epoch), (None, 0));
    bench.add(kept.producer, &[("t", 1)]).unwrap();
    let next = bench.init_as(two_phase()).unwrap();
    assert_eq!(next.ongoing, None, "aborted, as it is not to be kept");
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn an_operator_decides_and_that_is_recorded_until_it_is_forgotten() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.decide(Outcome::Commit),
        Err(E::TransactionalIdNotFound)
    );
    let first = bench.init_as(two_phase()).unwrap().producer;
    assert_eq!(bench.decide(Outcome::Commit), Err(E::InvalidTxnState));
    bench.add(first, &[("t", 1)]).unwrap();
    assert_eq!(bench.decide(Outcome::Commit), Ok(()));
    assert_eq!(bench.markers[0].outcome, Outcome::Commit);
    bench.mark();
    bench.store();
    assert_eq!(
        bench.end(abort(first)),
        Err(E::InvalidTxnState),
        "it was committed"
    );
    bench.crash(0);
    let decision = bench.describe(ID).unwrap().decision.unwrap();
    assert_eq!(
        (decision.outcome, decision.producer),
        (Outcome::Commit, first)
    );
    bench.wait(EXPIRATION_MS * 2);
    bench.store();
    assert_eq!(bench.forget_decision(), Ok(()));
    assert_eq!(bench.describe(ID).unwrap().decision, None);
    assert_eq!(bench.forget_decision(), Err(E::TransactionalIdNotFound));
}

#[test]
fn an_operator_aborts_a_transaction_of_one_phase_and_does_not_commit_it() {
    let mut bench = Bench::new();
    let producer = bench.init();
    bench.add(producer, &[("t", 1)]).unwrap();
    assert_eq!(bench.decide(Outcome::Commit), Err(E::InvalidTxnState));
    assert_eq!(bench.decide(Outcome::Abort), Ok(()));
    assert_eq!(bench.state(), "PrepareAbort");
    assert_eq!(bench.describe(ID).unwrap().decision, None);
}

#[test]
fn a_transaction_of_ten_thousand_partitions_is_stored_in_parts_and_read_again() {
    let mut bench = Bench::new();
    let names: Vec<String> = (0..1000)
        .map(|n| format!("{}-{n}", "t".repeat(200)))
        .collect();
    for (name, id) in names.iter().zip(10..) {
        let id = uuid::Uuid::from_u128(id);
        bench.topics.0.lock().insert(name.clone(), id);
    }
    let producer = bench.init();
    let all = |name: &String| {
        (0..10)
            .map(|index| (name.clone(), index))
            .collect::<Vec<_>>()
    };
    let mut request = add(producer, &[]);
    request.partitions = names.iter().flat_map(all).collect();
    let added = bench.begin_add(ID, request);
    bench.store();
    assert_eq!(answered(added), Ok(()));
    let largest = bench.tree.values().map(|data| data.len()).max().unwrap();
    assert!(largest <= crate::coordinator::PART_BYTES_MAX, "{largest}");
    assert!(bench.tree.len() > 1);
    bench.crash(0);
    assert_eq!(bench.describe(ID).unwrap().partitions.len(), 10_000);
    complete(&mut bench, commit(producer));
    assert_eq!(bench.tree.len(), 1, "nothing is left of the parts");
}

#[test]
fn ids_and_partitions_take_no_more_memory_than_they_may() {
    let mut bench = Bench::new();
    let mut last = Ok(());
    let mut count = 0;
    while last.is_ok() {
        let got = bench.begin(&format!("id-{count}"), init());
        bench.store();
        last = answered(got).map(|_| ());
        count += 1;
    }
    assert_eq!(last, Err(E::PolicyViolation));
    assert!(count > 1000 && bench.bytes() <= BYTES_MAX, "{count}");
    let again = bench.begin("id-0", init());
    bench.store();
    let producer = answered(again).unwrap().producer;
    let mut request = add(producer, &[]);
    request.partitions = (0..1000).map(|index| ("t".to_owned(), index)).collect();
    let added = bench.begin_add("id-0", request);
    bench.store();
    assert_eq!(answered(added), Err(E::PolicyViolation));
    let before = bench.bytes();
    bench.crash(0);
    assert_eq!(bench.bytes(), before);
    bench.wait(EXPIRATION_MS);
    for _ in 0..count {
        bench.store();
        bench.wait(100);
    }
    assert_eq!(bench.bytes(), 0);
}

#[test]
fn an_idle_id_takes_little_memory() {
    assert!(size_of::<Entry>() <= 72, "{}", size_of::<Entry>());
    let mut bench = Bench::new();
    let producer = bench.init();
    bench.add(producer, &[("t", 1)]).unwrap();
    complete(&mut bench, commit(producer));
    let entry = &bench.machine.ids[ID];
    assert!(entry.live.is_none() && entry.now.seldom.is_none());
    let bytes = bench.tree[&paths::transaction(ID)].len();
    assert!(bytes < 180, "{bytes}");
}
