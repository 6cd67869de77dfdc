//! What is asked of the transactional ids of a slot, with writes that are stored or refused as a test says.

use super::*;
use crate::transaction::limits::{LEADERS_WAIT_MS_MAX, WAIT_MS_MAX};
use crate::transaction::state::{Outcome, Producer};
use crate::transaction::testing::*;

use TransactionError as E;

#[test]
fn a_transaction_commits_and_the_next_has_the_next_epoch() {
    let mut bench = Bench::new();
    let first = bench.init();
    assert_eq!((first.id, first.epoch), (1000, 0));
    assert_eq!(bench.state(), "Empty");
    assert_eq!(bench.add(first, &[("t", 1), ("u", 2)]), Ok(()));
    assert_eq!(bench.state(), "Ongoing");
    assert_eq!(bench.open_timers(), 1);
    let second = bench.end(commit(first)).unwrap();
    assert_eq!(second, bumped(first));
    assert_eq!(bench.state(), "PrepareCommit");
    let markers = &bench.markers[0];
    assert_eq!(
        (markers.producer, markers.outcome),
        (second, Outcome::Commit)
    );
    assert_eq!(
        (markers.coordinator_epoch, markers.partitions.len()),
        (1, 2)
    );
    bench.mark();
    bench.store();
    assert_eq!(bench.state(), "CompleteCommit");
    assert_eq!(bench.open_timers(), 0);
    assert_eq!(bench.add(first, &[("t", 1)]), Err(E::ProducerFenced));
    assert_eq!(bench.add(second, &[("t", 1)]), Ok(()));
}

#[test]
fn no_marker_leaves_before_the_decision_is_stored_and_no_answer_either() {
    let mut bench = Bench::new();
    let producer = bench.init();
    bench.add(producer, &[("t", 1)]).unwrap();
    let mut ended = bench.begin_end(ID, commit(producer));
    assert!(!is_answered(&mut ended) && bench.markers.is_empty());
    bench.crash(0);
    assert_eq!(bench.state(), "Ongoing");
    drop(bench.begin_end(ID, commit(producer)));
    bench.crash(1);
    assert_eq!(bench.state(), "PrepareCommit");
    assert_eq!(bench.markers.len(), 1, "sent by the next owner");
    assert_eq!(bench.markers[0].coordinator_epoch, 3);
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let mut bench = Bench::new();
    let first = bench.init();
    bench.add(first, &[("t", 1)]).unwrap();
    let second = complete(&mut bench, commit(first));
    for _ in 0..2 {
        assert_eq!(bench.end(commit(first)), Ok(second));
        bench.crash(0);
    }
    assert_eq!(bench.end(abort(first)), Err(E::InvalidTxnState));
}

#[test]
fn a_retry_while_markers_are_written_waits_for_them() {
    let mut bench = Bench::new();
    let first = bench.init();
    bench.add(first, &[("t", 1)]).unwrap();
    let second = bench.end(commit(first)).unwrap();
    let mut again = bench.begin_end(ID, commit(first));
    assert!(!is_answered(&mut again));
    bench.mark();
    bench.store();
    assert_eq!(answered(again), Ok(second));
}

#[test]
fn what_waits_too_long_is_told_to_come_again() {
    let mut bench = Bench::new();
    let first = bench.init();
    bench.add(first, &[("t", 1)]).unwrap();
    let second = bench.end(commit(first)).unwrap();
    let mut adds = bench.begin_add(ID, add(second, &[("t", 1)]));
    let mut begins = bench.begin(ID, init());
    bench.wait(LEADERS_WAIT_MS_MAX - 1);
    assert!(!is_answered(&mut adds));
    bench.wait(1);
    assert_eq!(answered(adds), Err(E::ConcurrentTransactions));
    let many = (0..WAITING_MAX).map(|_| bench.begin_add(ID, add(second, &[("t", 1)])));
    let last = many.collect::<Vec<_>>().into_iter().next_back().unwrap();
    assert_eq!(answered(last), Err(E::ConcurrentTransactions), "too many");
    bench.wait(WAIT_MS_MAX - LEADERS_WAIT_MS_MAX - 1);
    assert!(!is_answered(&mut begins));
    bench.wait(1);
    assert_eq!(answered(begins), Err(E::ConcurrentTransactions));
}

#[test]
fn partitions_of_the_next_transaction_go_into_the_write_that_completes_the_one_before() {
    let mut bench = Bench::new();
    let first = bench.init();
    bench.add(first, &[("t", 1)]).unwrap();
    let second = bench.end(commit(first)).unwrap();
    let added = bench.begin_add(ID, add(second, &[("t", 2)]));
    let also = bench.begin_add(ID, add(second, &[("u", 3)]));
    let zombie = bench.begin_add(ID, add(first, &[("u", 4)]));
    bench.mark();
    assert_eq!(bench.writes.len(), 1);
    assert!(bench.store_one() && bench.writes.is_empty());
    assert_eq!((answered(added), answered(also)), (Ok(()), Ok(())));
    assert_eq!(answered(zombie), Err(E::ProducerFenced));
    assert_eq!(bench.state(), "Ongoing");
    bench.crash(0);
    let found = bench.describe(ID).unwrap();
    assert_eq!((found.producer, found.partitions.len()), (second, 2));
}

#[test]
fn partitions_that_come_soon_after_the_markers_go_into_that_write_too() {
    let mut bench = Bench::new();
    let first = bench.init();
    bench.add(first, &[("t", 1)]).unwrap();
    let second = bench.end(commit(first)).unwrap();
    let markers = bench.markers.remove(0);
    bench.mark_one(&markers);
    assert!(bench.writes.is_empty());
    let added = bench.begin_add(ID, add(second, &[("t", 2)]));
    assert_eq!(bench.writes.len(), 1);
    assert!(bench.store_one() && bench.writes.is_empty());
    assert_eq!((answered(added), bench.state()), (Ok(()), "Ongoing"));
    let third = bench.end(commit(second)).unwrap();
    let markers = bench.markers.remove(0);
    bench.mark_one(&markers);
    assert_eq!(
        bench.end(commit(second)),
        Ok(third),
        "whoever asks has it stored"
    );
    assert_eq!(bench.state(), "CompleteCommit");
}

#[test]
fn a_write_that_is_refused_changes_nothing() {
    let mut bench = Bench::new();
    let producer = bench.init();
    let added = bench.begin_add(ID, add(producer, &[("t", 1)]));
    bench.refuse_one();
    assert_eq!(answered(added), Err(E::CoordinatorNotAvailable));
    assert_eq!(bench.state(), "Empty");
    bench.add(producer, &[("t", 1)]).unwrap();
    let ended = bench.begin_end(ID, commit(producer));
    bench.refuse_one();
    assert_eq!(answered(ended), Err(E::CoordinatorNotAvailable));
    assert_eq!((bench.state(), bench.markers.len()), ("Ongoing", 0));
    let next = bench.end(commit(producer)).unwrap();
    bench.mark();
    bench.refuse_one();
    assert_eq!(bench.state(), "PrepareCommit");
    bench.wait(STORE_AGAIN_MS);
    bench.refuse_one();
    let added = bench.begin_add(ID, add(next, &[("t", 1)]));
    bench.store();
    assert_eq!((answered(added), bench.state()), (Ok(()), "Ongoing"));
}

#[test]
fn ends_of_version_2_are_answered_by_kafkas_table() {
    // By state: abort again, abort, commit again, commit; NONE and a new epoch are both answered with the producer.
    type Row = (&'static str, [Result<i16, E>; 4]);
    let fenced = Err(E::ProducerFenced);
    let wrong = Err(E::InvalidTxnState);
    let rows: [Row; 3] = [
        ("Empty", [fenced, Ok(1), fenced, wrong]),
        ("CompleteAbort", [Ok(0), Ok(1), wrong, wrong]),
        ("CompleteCommit", [wrong, Ok(1), Ok(0), wrong]),
    ];
    for (state, expected) in rows {
        for (case, expected) in expected.into_iter().enumerate() {
            let mut bench = Bench::new();
            let mut producer = with_epoch(&mut bench, 5);
            if state != "Empty" {
                bench.add(producer, &[("t", 1)]).unwrap();
                let end = match state {
                    "CompleteAbort" => abort(producer),
                    _ => commit(producer),
                };
                producer = complete(&mut bench, end);
            }
            assert_eq!(bench.state(), state);
            let asker = if case % 2 == 0 {
                before(producer)
            } else {
                producer
            };
            let end = if case < 2 {
                abort(asker)
            } else {
                commit(asker)
            };
            let answer = bench.end(end);
            let epoch = answer.map(|answer| answer.epoch - producer.epoch);
            assert_eq!(epoch, expected, "{state}, case {case}");
        }
    }
}

#[test]
fn ends_of_version_1_keep_the_epoch() {
    let mut bench = Bench::new();
    let producer = bench.init();
    assert_eq!(bench.end(v1(commit(producer))), Err(E::InvalidTxnState));
    assert_eq!(bench.end(v1(abort(producer))), Err(E::InvalidTxnState));
    bench.add(producer, &[("t", 1)]).unwrap();
    assert_eq!(
        bench.end(v1(commit(before(producer)))),
        Err(E::ProducerFenced)
    );
    bench.end(v1(commit(producer))).unwrap();
    assert_eq!(bench.markers[0].producer, producer);
    bench.mark();
    bench.store();
    assert!(bench.end(v1(commit(producer))).is_ok(), "again");
    assert_eq!(bench.end(v1(abort(producer))), Err(E::InvalidTxnState));
    assert_eq!(bench.add(producer, &[("t", 1)]), Ok(()));
}

/// An old request, or one of a client that does not wait for answers: of version 1 its epoch is that of the end.
#[test]
fn partitions_that_come_after_an_end_do_not_take_its_place() {
    for end in [commit, abort] {
        let mut bench = Bench::new();
        let producer = bench.init();
        let first = bench.begin_add(ID, add(producer, &[("t", 1)]));
        let ended = bench.begin_end(ID, v1(end(producer)));
        let mut late = bench.begin_add(ID, add(producer, &[("u", 2)]));
        assert!(bench.store_one() && bench.store_one());
        assert_eq!(answered(first), Ok(()));
        assert!(answered(ended).is_ok());
        assert!(bench.state().starts_with("Prepare"), "{}", bench.state());
        assert_eq!(bench.markers.len(), 1);
        assert!(!is_answered(&mut late));
        bench.mark();
        bench.store();
        assert_eq!(answered(late), Ok(()));
        assert_eq!(bench.state(), "Ongoing");
    }
}

#[test]
fn producer_ids_are_given_to_those_that_wait_one_by_one() {
    let mut bench = Bench::new();
    let ids = ["a", "b", "c"];
    let waiting = ids.map(|id| {
        let (answer, got) = crate::coordinator::Answer::new();
        bench
            .machine
            .handle(0, id.to_owned(), Ask::Init(init(), answer));
        got
    });
    bench.machine.handle_all(0, AskAll::ProducerId(Some(7)));
    // The others are asked for by the first's coming.
    bench.collect();
    bench.store();
    let mut given: Vec<i64> = waiting
        .map(|got| answered(got).unwrap().producer.id)
        .to_vec();
    assert_eq!(given[0], 7);
    given.dedup();
    assert_eq!(given.len(), ids.len());
}

#[test]
fn who_does_not_have_the_producer_is_refused() {
    let mut bench = Bench::new();
    let producer = bench.init();
    let other = Producer { id: 7, ..producer };
    assert_eq!(
        bench.add(other, &[("t", 0)]),
        Err(E::InvalidProducerIdMapping)
    );
    assert_eq!(bench.end(commit(other)), Err(E::InvalidProducerIdMapping));
    assert_eq!(
        bench.end(v1(commit(other))),
        Err(E::InvalidProducerIdMapping)
    );
    assert_eq!(
        bench.add(bumped(producer), &[("t", 0)]),
        Err(E::ProducerFenced)
    );
    assert_eq!(
        bench.add(producer, &[("t", 10_000)]),
        Err(E::UnknownTopicOrPartition)
    );
    assert_eq!(
        bench.add(producer, &[("v", 0)]),
        Err(E::UnknownTopicOrPartition)
    );
    assert_eq!(bench.add(producer, &[("__consumer_offsets", 63)]), Ok(()));
    assert_eq!(
        bench.add(producer, &[("__consumer_offsets", 64)]),
        Err(E::UnknownTopicOrPartition)
    );
    let nobody = bench.begin_end("another", commit(producer));
    assert_eq!(answered(nobody), Err(E::InvalidProducerIdMapping));
    assert!(bench.describe("another").is_none());
}

#[test]
fn only_partitions_of_the_transaction_are_verified() {
    let mut bench = Bench::new();
    let producer = bench.init();
    bench.add(producer, &[("t", 1)]).unwrap();
    let verified = bench.verify(producer, &[("t", 1), ("t", 2)]);
    assert_eq!(verified, Ok(vec![Ok(()), Err(E::TransactionAbortable)]));
    assert_eq!(
        bench.verify(before(producer), &[("t", 1)]),
        Err(E::ProducerFenced)
    );
    let next = complete(&mut bench, commit(producer));
    let verified = bench.verify(next, &[("t", 1)]);
    assert_eq!(verified, Ok(vec![Err(E::TransactionAbortable)]));
}

#[test]
fn a_new_producer_aborts_the_transaction_of_the_one_before_and_begins_when_that_is_done() {
    let mut bench = Bench::new();
    let first = bench.init();
    bench.add(first, &[("t", 1)]).unwrap();
    let mut got = bench.begin(ID, init());
    bench.store();
    assert!(!is_answered(&mut got));
    assert_eq!(bench.markers[0].outcome, Outcome::Abort);
    assert_eq!(bench.markers[0].producer, bumped(first));
    bench.mark();
    bench.store();
    assert_eq!(answered(got).unwrap().producer, bumped(bumped(first)));
    assert_eq!(bench.add(first, &[("t", 1)]), Err(E::ProducerFenced));
    assert_eq!(bench.end(commit(first)), Err(E::ProducerFenced));
}

#[test]
fn a_producer_that_says_what_it_had_goes_on_and_one_of_an_earlier_epoch_does_not() {
    let mut bench = Bench::new();
    let first = bench.init();
    let second = bench.init_as(expecting(first)).unwrap().producer;
    assert_eq!(second, bumped(first));
    assert_eq!(
        bench.init_as(expecting(first)).unwrap().producer,
        second,
        "again"
    );
    let third = bench.init();
    assert_eq!(bench.init_as(expecting(second)), Err(E::ProducerFenced));
    bench.add(third, &[("t", 1)]).unwrap();
    assert_eq!(bench.init_as(expecting(second)), Err(E::ProducerFenced));
    assert_eq!(
        bench.state(),
        "Ongoing",
        "it does not disturb the later one"
    );
    assert_eq!(
        bench.init_as(expecting(third)).unwrap().producer,
        bumped(third)
    );
    let unknown = bench.begin("new", expecting(first));
    bench.store();
    assert_eq!(answered(unknown).unwrap().producer.epoch, 0);
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_can_go_on() {
    let mut bench = Bench::new();
    let first = bench.init();
    bench.add(first, &[("t", 1)]).unwrap();
    bench.wait(i64::from(TIMEOUT_MS) - 1);
    assert!(bench.writes.is_empty());
    bench.add(first, &[("t", 2)]).unwrap();
    bench.wait(1);
    bench.refuse_one();
    bench.wait(STORE_AGAIN_MS);
    bench.store();
    assert_eq!(bench.state(), "PrepareAbort");
    assert_eq!(bench.markers[0].producer, bumped(first));
    bench.mark();
    bench.store();
    assert_eq!(bench.state(), "CompleteAbort");
    assert_eq!(bench.add(first, &[("t", 1)]), Err(E::ProducerFenced));
    assert_eq!(
        bench.init_as(expecting(first)).unwrap().producer,
        bumped(first)
    );
}

#[test]
fn a_time_that_was_over_while_no_broker_ran_is_over_at_the_start() {
    let mut bench = Bench::new();
    let producer = bench.init();
    bench.add(producer, &[("t", 1)]).unwrap();
    bench.now_ms += i64::from(TIMEOUT_MS);
    bench.crash(0);
    bench.store();
    assert_eq!(bench.state(), "PrepareAbort");
}

#[test]
fn epochs_that_are_used_up_are_followed_by_another_producer_id() {
    let mut bench = Bench::new();
    let mut producer = with_epoch(&mut bench, 32_764);
    let id = producer.id;
    for epoch in [32_765, 32_766] {
        bench.add(producer, &[("t", 1)]).unwrap();
        producer = complete(&mut bench, commit(producer));
        assert_eq!((producer.id, producer.epoch), (id, epoch));
    }
    bench.add(producer, &[("t", 1)]).unwrap();
    let next = bench.end(commit(producer)).unwrap();
    assert_eq!(next.epoch, 0);
    assert_ne!(next.id, id);
    let markers = bench.markers[0].producer;
    assert_eq!((markers.id, markers.epoch), (id, i16::MAX));
    bench.crash(0);
    let waits = bench.begin_add(ID, add(next, &[("t", 1)]));
    bench.mark();
    bench.store();
    assert_eq!(answered(waits), Ok(()));
    let next = complete(&mut bench, abort(next));
    assert_eq!(next.epoch, 1);
}

#[test]
fn an_end_across_producer_ids_is_answered_again() {
    let mut bench = Bench::new();
    let last = with_epoch(&mut bench, 32_766);
    bench.add(last, &[("t", 1)]).unwrap();
    let next = complete(&mut bench, commit(last));
    assert_eq!(bench.end(commit(last)), Ok(next));
    assert_eq!(bench.end(abort(last)), Err(E::InvalidTxnState));
    bench.crash(0);
    assert_eq!(bench.init_as(expecting(last)).unwrap().producer, next);
}

#[test]
fn a_producer_that_begins_with_used_up_epochs_gets_another_id() {
    let mut bench = Bench::new();
    let last = with_epoch(&mut bench, 32_766);
    let next = bench.init_as(expecting(last)).unwrap().producer;
    assert_eq!((next.epoch, next.id == last.id), (0, false));
    assert_eq!(
        bench.init_as(expecting(last)).unwrap().producer,
        next,
        "again"
    );
    let last = with_epoch(&mut Bench::new(), 32_766);
    assert_eq!(last.epoch, 32_766);
    let mut bench = Bench::new();
    let last = with_epoch(&mut bench, 32_766);
    bench.add(last, &[("t", 1)]).unwrap();
    let next = bench.init_as(init()).unwrap().producer;
    assert_eq!((next.epoch, next.id == last.id), (1, false), "fenced first");
}

#[test]
fn without_a_producer_id_a_new_id_waits_and_then_is_told_so() {
    let mut bench = Bench::new();
    let (answer, mut got) = crate::coordinator::Answer::new();
    let ask = Ask::Init(init(), answer);
    bench.machine.handle(0, ID.to_owned(), ask);
    assert!(!is_answered(&mut got));
    bench.machine.handle_all(0, AskAll::ProducerId(None));
    assert_eq!(answered(got), Err(E::CoordinatorNotAvailable));
    assert!(bench.describe(ID).is_none());
}

#[test]
fn a_new_producer_is_answered_when_the_abort_before_it_cannot_be_stored() {
    let mut bench = Bench::new();
    let first = bench.init();
    bench.add(first, &[("t", 1)]).unwrap();
    let mut got = bench.begin(ID, init());
    let mut refused = 0;
    while refused < 1000 && bench.refuse_one() {
        refused += 1;
        bench.now_ms += 10;
    }
    assert!(
        refused < 100,
        "writes are asked for again at once: {refused}, and after {} ms",
        bench.now_ms
    );
    bench.tick();
    assert!(is_answered(&mut got));
}

#[test]
fn partitions_of_a_topic_that_was_made_again_are_added_under_its_id() {
    let mut bench = Bench::new();
    let first = bench.init();
    bench.add(first, &[("t", 1)]).unwrap();
    bench
        .topics
        .0
        .lock()
        .insert("t".to_owned(), uuid::Uuid::from_u128(77));
    bench.add(first, &[("t", 1)]).unwrap();
    bench.end(commit(first)).unwrap();
    let ids: Vec<_> = bench.markers[0]
        .partitions
        .topics()
        .map(|(_, found)| found.topic_id)
        .collect();
    assert_eq!(ids, [uuid::Uuid::from_u128(77)]);
}

#[test]
fn a_topic_that_another_broker_knows_under_an_older_id_keeps_its_partitions() {
    let mut bench = Bench::new();
    let first = bench.init();
    bench
        .topics
        .0
        .lock()
        .insert("t".to_owned(), uuid::Uuid::from_u128(77));
    bench.add(first, &[("t", 1)]).unwrap();
    bench.end(commit(first)).unwrap();
    // the next owner's view is older
    bench
        .topics
        .0
        .lock()
        .insert("t".to_owned(), uuid::Uuid::from_u128(1));
    bench.markers.clear();
    bench.crash(0);
    assert!(!bench.markers.is_empty() && !bench.markers[0].partitions.is_empty());
}
