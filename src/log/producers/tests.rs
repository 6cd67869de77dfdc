use metaq_protocol::batch::BatchBuilder;

use super::*;

fn admit(producers: &Producers, batch: &BatchHeader) -> Result<Admission, ProducerError> {
    producers.admit(batch, Verification::NotNeeded)
}

/// Where a batch would be.
fn at(batch: &BatchHeader) -> OffsetPosition {
    OffsetPosition {
        offset: batch.base_offset,
        segment_base: 0,
        position: 0,
    }
}

fn store(producers: &mut Producers, batch: &BatchHeader) {
    assert_eq!(producers.stored(batch, None, || at(batch)), None);
}

fn batch(epoch: i16, base_sequence: i32, records: usize, base_offset: i64) -> BatchHeader {
    let mut builder = BatchBuilder::new().producer(9, epoch, base_sequence);
    for _ in 0..records {
        builder = builder.push(None, Some(b"v"), &[], 1000);
    }
    let mut header = BatchHeader::parse(&builder.finish().unwrap()).unwrap();
    header.base_offset = base_offset;
    header
}

#[test]
fn a_retried_batch_is_recognised_among_the_last_five() {
    let mut producers = Producers::default();
    for n in 0..7 {
        let next = batch(0, n * 10, 10, i64::from(n) * 10);
        assert_eq!(admit(&producers, &next), Ok(Admission::Append));
        store(&mut producers, &next);
    }
    match admit(&producers, &batch(0, 30, 10, 0)) {
        Ok(Admission::Duplicate(stored)) => assert_eq!(stored.first_offset(), 30),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        admit(&producers, &batch(0, 10, 10, 0)),
        Err(ProducerError::OutOfOrder { got: 10, last: 69 })
    );
}

#[test]
fn a_gap_is_out_of_order_and_an_old_epoch_is_fenced() {
    let mut producers = Producers::default();
    store(&mut producers, &batch(3, 0, 1, 0));
    assert_eq!(
        admit(&producers, &batch(3, 2, 1, 0)),
        Err(ProducerError::OutOfOrder { got: 2, last: 0 })
    );
    assert_eq!(
        admit(&producers, &batch(2, 1, 1, 0)),
        Err(ProducerError::FencedEpoch { got: 2, current: 3 })
    );
    assert_eq!(
        admit(&producers, &batch(4, 1, 1, 0)),
        Err(ProducerError::OutOfOrder { got: 1, last: 0 })
    );
    assert_eq!(admit(&producers, &batch(4, 0, 1, 0)), Ok(Admission::Append));
}

#[test]
fn sequences_wrap_after_the_largest_one() {
    let mut producers = Producers::default();
    store(&mut producers, &batch(0, i32::MAX - 1, 4, 0));
    assert_eq!(producers.by_id[&9].last_sequence(), 1);
    assert_eq!(
        producers.by_id[&9].batches[0].first_sequence(),
        i32::MAX - 1
    );
    assert_eq!(admit(&producers, &batch(0, 2, 1, 4)), Ok(Admission::Append));
}

#[test]
fn those_that_wrote_longest_ago_are_forgotten_but_for_open_transactions() {
    let mut producers = Producers::default();
    for (offset, id) in (0..10).zip([7, 3, 5, 1, 9, 2, 8, 4, 6, 0]) {
        let mut one = batch(0, 0, 1, offset);
        one.producer_id = id;
        if id == 3 {
            one.attributes |= 0x10;
        }
        store(&mut producers, &one);
    }
    producers.forget_oldest(4);
    let mut left: Vec<i64> = producers.iter().map(|(id, _)| id).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 3, 4, 6]);
    let wanted = |producer_id| ToVerify {
        producer_id,
        producer_epoch: 0,
        base_sequence: 0,
        is_v2: true,
    };
    for id in 100..110 {
        producers.begin_verification(&wanted(id), 0).unwrap();
    }
    assert_eq!(producers.remembered(), 14);
    producers.forget_oldest(6);
    assert_eq!(producers.remembered(), 6);
    producers.forget_oldest(0);
    assert_eq!(producers.remembered(), 1);
}

#[test]
fn a_silent_producer_expires() {
    let mut producers = Producers::default();
    store(&mut producers, &batch(0, 0, 1, 0));
    producers.expire(1000 + EXPIRATION_MS_DEFAULT - 1, EXPIRATION_MS_DEFAULT);
    assert_eq!(producers.len(), 1);
    producers.expire(1000 + EXPIRATION_MS_DEFAULT, EXPIRATION_MS_DEFAULT);
    assert!(producers.is_empty());
}

/// A batch of one record in a transaction.
fn transactional(epoch: i16, base_sequence: i32, base_offset: i64) -> BatchHeader {
    let builder = BatchBuilder::new().producer(9, epoch, base_sequence);
    let builder = builder.transactional().push(None, Some(b"v"), &[], 1000);
    let mut header = BatchHeader::parse(&builder.finish().unwrap()).unwrap();
    header.base_offset = base_offset;
    header
}

const COMMIT: EndMarker = EndMarker {
    outcome: Outcome::Commit,
    coordinator_epoch: 5,
};

/// The header of a marker.
fn marker(epoch: i16, base_offset: i64) -> BatchHeader {
    let mut header = BatchHeader::parse(&COMMIT.batch(9, epoch, 2000)).unwrap();
    header.base_offset = base_offset;
    header
}

fn to_verify(producer_epoch: i16, base_sequence: i32, is_v2: bool) -> ToVerify {
    ToVerify {
        producer_id: 9,
        producer_epoch,
        base_sequence,
        is_v2,
    }
}

/// Producers of which the one has a transaction open since offset 10, by epoch 3.
fn in_transaction() -> Producers {
    let mut producers = Producers::default();
    store(&mut producers, &transactional(3, 0, 10));
    producers
}

fn first_unstable(producers: &mut Producers) -> Option<i64> {
    producers
        .undecided
        .first_unstable(1 << 40)
        .map(|at| at.offset)
}

#[test]
fn a_transaction_goes_on_until_its_marker_which_takes_epoch_and_sequences_along() {
    let mut producers = in_transaction();
    let next = transactional(3, 1, 11);
    assert_eq!(admit(&producers, &next), Ok(Admission::Append));
    store(&mut producers, &next);
    assert_eq!(first_unstable(&mut producers), Some(10));
    let version = TransactionVersion::V2;
    assert_eq!(
        producers.admit_marker(&marker(4, 12), &COMMIT, version),
        Ok(())
    );
    assert_eq!(
        producers.stored(&marker(4, 12), Some(COMMIT), || at(&next)),
        None
    );
    assert_eq!(first_unstable(&mut producers), None);
    let producer = &producers.by_id[&9];
    let known = (
        producer.epoch,
        producer.coordinator_epoch,
        producer.last_timestamp,
    );
    assert_eq!(known, (4, 5, 2000));
    assert!(producer.batches.is_empty() && !producer.is_in_transaction());
    // By the rules before version 2 the epoch stays, and with it what is remembered.
    store(&mut producers, &transactional(4, 0, 13));
    producers.stored(&marker(4, 14), Some(COMMIT), || at(&next));
    assert_eq!(producers.by_id[&9].last_sequence(), 0);
}

#[test]
fn an_abort_tells_what_readers_must_leave_out() {
    let mut producers = in_transaction();
    let abort = EndMarker {
        outcome: Outcome::Abort,
        ..COMMIT
    };
    let aborted = producers.stored(&marker(3, 20), Some(abort), || at(&marker(3, 20)));
    let expected = AbortedTransaction {
        producer_id: 9,
        first_offset: 10,
        last_offset: 20,
        last_stable_offset: 21,
    };
    assert_eq!(aborted, Some(expected));
    // There is none any more.
    let again = producers.stored(&marker(3, 21), Some(abort), || at(&marker(3, 21)));
    assert_eq!(again, None);
}

#[test]
fn a_marker_that_was_written_before_ends_no_later_transaction() {
    let mut producers = in_transaction();
    let v2 = TransactionVersion::V2;
    // The epoch of the records is not the marker's.
    let stale = ProducerError::StaleMarker { got: 3, current: 3 };
    assert_eq!(
        producers.admit_marker(&marker(3, 11), &COMMIT, v2),
        Err(stale)
    );
    producers.stored(&marker(4, 11), Some(COMMIT), || at(&marker(4, 11)));
    // Sent once more after a failover, while none is open.
    assert_eq!(producers.admit_marker(&marker(4, 12), &COMMIT, v2), Ok(()));
    // The next one is.
    store(&mut producers, &transactional(4, 0, 12));
    let stale = ProducerError::StaleMarker { got: 4, current: 4 };
    assert_eq!(
        producers.admit_marker(&marker(4, 13), &COMMIT, v2),
        Err(stale)
    );
    // Before version 2 the same epoch ends it.
    for version in [TransactionVersion::V0, TransactionVersion::V1] {
        assert_eq!(
            producers.admit_marker(&marker(4, 13), &COMMIT, version),
            Ok(())
        );
    }
}

#[test]
fn a_transaction_of_the_last_epoch_can_be_ended() {
    let mut producers = Producers::default();
    store(&mut producers, &transactional(i16::MAX, 0, 0));
    let marker = marker(i16::MAX, 1);
    let admitted = producers.admit_marker(&marker, &COMMIT, TransactionVersion::V2);
    assert_eq!(admitted, Ok(()));
}

#[test]
fn hostile_markers_are_refused_and_one_of_an_unknown_producer_ends_nothing() {
    let mut producers = in_transaction();
    let v0 = TransactionVersion::V0;
    let fenced = ProducerError::FencedEpoch { got: 2, current: 3 };
    assert_eq!(
        producers.admit_marker(&marker(2, 11), &COMMIT, v0),
        Err(fenced)
    );
    producers.stored(&marker(3, 11), Some(COMMIT), || at(&marker(3, 11)));
    let zombie = EndMarker {
        coordinator_epoch: 4,
        ..COMMIT
    };
    let fenced = ProducerError::FencedCoordinator { got: 4, current: 5 };
    assert_eq!(
        producers.admit_marker(&marker(3, 12), &zombie, v0),
        Err(fenced)
    );
    let mut unknown = marker(0, 12);
    unknown.producer_id = 1000;
    assert_eq!(producers.admit_marker(&unknown, &COMMIT, v0), Ok(()));
    assert_eq!(
        producers.stored(&unknown, Some(COMMIT), || at(&unknown)),
        None
    );
    assert_eq!(first_unstable(&mut producers), None);
    assert_eq!(producers.by_id[&1000].epoch, 0);
}

#[test]
fn a_batch_outside_of_the_open_transaction_is_refused() {
    let producers = in_transaction();
    for outside in [batch(3, 1, 1, 11), batch(4, 0, 1, 11)] {
        let refused = admit(&producers, &outside);
        assert_eq!(refused, Err(ProducerError::OutsideTransaction));
    }
}

#[test]
fn a_late_batch_of_the_former_transaction_does_not_join_the_next() {
    for (version, marker_epoch) in [(TransactionVersion::V1, 3), (TransactionVersion::V2, 4)] {
        let mut producers = in_transaction();
        let ended = marker(marker_epoch, 11);
        assert_eq!(producers.admit_marker(&ended, &COMMIT, version), Ok(()));
        producers.stored(&ended, Some(COMMIT), || at(&ended));
        let refused = admit(&producers, &transactional(3, 1, 12)).unwrap_err();
        match version {
            TransactionVersion::V2 => {
                assert_eq!(refused, ProducerError::FencedEpoch { got: 3, current: 4 });
            }
            _ => assert_eq!(refused, ProducerError::NotInTransaction),
        }
    }
}

#[test]
fn a_first_batch_needs_the_guard_of_its_own_transaction() {
    let mut producers = Producers::default();
    let first = transactional(3, 0, 10);
    assert_eq!(
        admit(&producers, &first),
        Err(ProducerError::NotInTransaction)
    );
    let guard = producers
        .begin_verification(&to_verify(3, 0, false), 0)
        .unwrap();
    // An abort comes in between: the coordinator's answer was about what it ended.
    producers.stored(&marker(3, 10), Some(COMMIT), || at(&first));
    let late = producers.admit(&first, guard);
    assert_eq!(late, Err(ProducerError::NotInTransaction));
    let renewed = producers
        .begin_verification(&to_verify(3, 0, false), 0)
        .unwrap();
    assert_ne!(guard, renewed);
    assert_eq!(
        producers.admit(&first, guard),
        Err(ProducerError::NotInTransaction)
    );
    assert_eq!(producers.admit(&first, renewed), Ok(Admission::Append));
    store(&mut producers, &first);
    let goes_on = producers.begin_verification(&to_verify(3, 1, false), 0);
    assert_eq!(goes_on, Ok(Verification::NotNeeded));
    let fenced = producers.begin_verification(&to_verify(2, 0, false), 0);
    assert_eq!(
        fenced,
        Err(ProducerError::FencedEpoch { got: 2, current: 3 })
    );
}

#[test]
fn of_batches_that_are_verified_at_once_the_lowest_comes_first() {
    let mut producers = Producers::default();
    let guard = producers
        .begin_verification(&to_verify(3, 7, false), 0)
        .unwrap();
    assert_eq!(
        producers.begin_verification(&to_verify(3, 5, false), 0),
        Ok(guard)
    );
    let refused = producers.admit(&transactional(3, 7, 0), guard);
    assert_eq!(
        refused,
        Err(ProducerError::BeforeLower { got: 7, lowest: 5 })
    );
    let admitted = producers.admit(&transactional(3, 5, 0), guard);
    assert_eq!(admitted, Ok(Admission::Append));
    // By version 2 every transaction of an unknown producer begins at 0.
    let mut producers = Producers::default();
    let guard = producers
        .begin_verification(&to_verify(3, 5, true), 0)
        .unwrap();
    let refused = producers.admit(&transactional(3, 5, 0), guard);
    assert_eq!(refused, Err(ProducerError::OutOfOrder { got: 5, last: -1 }));
}

#[test]
fn a_late_marker_of_version_2_leaves_the_next_transactions_guard() {
    let mut producers = in_transaction();
    let guard = producers
        .begin_verification(&to_verify(4, 0, true), 0)
        .unwrap();
    producers.stored(&marker(4, 11), Some(COMMIT), || at(&marker(4, 11)));
    let admitted = producers.admit(&transactional(4, 0, 12), guard);
    assert_eq!(admitted, Ok(Admission::Append));
}

#[test]
fn a_retried_batch_is_recognised_after_its_transaction_ended() {
    let mut producers = in_transaction();
    producers.stored(&marker(3, 11), Some(COMMIT), || at(&marker(3, 11)));
    let again = admit(&producers, &transactional(3, 0, 12));
    assert!(matches!(again, Ok(Admission::Duplicate(stored)) if stored.last_offset == 10));
}

#[test]
fn sequences_of_a_transaction_wrap_after_the_largest_one() {
    let mut producers = Producers::default();
    let guard = producers
        .begin_verification(&to_verify(0, i32::MAX, false), 0)
        .unwrap();
    let last = transactional(0, i32::MAX, 0);
    assert_eq!(producers.admit(&last, guard), Ok(Admission::Append));
    store(&mut producers, &last);
    assert_eq!(
        admit(&producers, &transactional(0, 0, 1)),
        Ok(Admission::Append)
    );
    let gap = admit(&producers, &transactional(0, 1, 1));
    assert_eq!(
        gap,
        Err(ProducerError::OutOfOrder {
            got: 1,
            last: i32::MAX
        })
    );
}

#[test]
fn a_producer_does_not_expire_while_its_transaction_is_open() {
    let mut producers = in_transaction();
    let much_later = 1000 * EXPIRATION_MS_DEFAULT;
    producers.expire(much_later, 1);
    assert_eq!(first_unstable(&mut producers), Some(10));
    assert_eq!(producers.len(), 1);
    producers.stored(&marker(3, 11), Some(COMMIT), || at(&marker(3, 11)));
    producers.expire(much_later, 1);
    assert!(producers.is_empty());
    assert_eq!(first_unstable(&mut producers), None);
}

#[test]
fn a_guard_that_was_never_used_expires() {
    let mut producers = Producers::default();
    let guard = producers
        .begin_verification(&to_verify(0, 0, false), 1000)
        .unwrap();
    producers.expire(1005, 5);
    let first = transactional(0, 0, 0);
    assert_eq!(
        producers.admit(&first, guard),
        Err(ProducerError::NotInTransaction)
    );
}
