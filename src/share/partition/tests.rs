//! Cases of their own.

use std::sync::Arc;

use super::*;
use crate::share::limits::ShareLimits;

const LIMITS: ShareLimits = ShareLimits {
    lock_ms: 1000,
    delivery_count_max: 5,
    retry_backoff_ms: 0,
    locks_max: 100,
    has_dead_letters: false,
    may_renew: true,
};

fn empty() -> SharePartition {
    SharePartition::new(&StoredState {
        reading: 1,
        start: 0,
        state_epoch: 0,
        batches: Vec::new(),
    })
}

/// Batches of ten records from 0 to below `end`.
fn tens(end: i64) -> Vec<BatchSpan> {
    let firsts = (0..end).step_by(10);
    firsts
        .map(|first| BatchSpan {
            first,
            last: first + 9,
        })
        .collect()
}

fn acquire_at(
    partition: &mut SharePartition,
    now_ms: i64,
    member: &str,
    records_max: i64,
    is_strict: bool,
) -> Vec<(i64, i64, i16)> {
    let from = partition.next_offset();
    let batches: Vec<BatchSpan> = tens(1000)
        .into_iter()
        .filter(|batch| batch.last >= from)
        .collect();
    let wanted = Acquire {
        member: &Arc::from(member),
        records_max,
        is_strict,
        batch_size: 500,
        from,
        batches: &batches,
        aborted: &[],
    };
    let acquired = partition.acquire(now_ms, &LIMITS, &wanted);
    acquired
        .iter()
        .map(|part| (part.first, part.last, part.delivery_count))
        .collect()
}

fn acquire(partition: &mut SharePartition, member: &str, max: i64) -> Vec<(i64, i64, i16)> {
    acquire_at(partition, 0, member, max, false)
}

fn say(first: i64, last: i64, types: &[i8]) -> Acknowledgement {
    Acknowledgement {
        first,
        last,
        types: types.to_vec(),
    }
}

fn acknowledge(
    partition: &mut SharePartition,
    member: &str,
    first: i64,
    last: i64,
    types: &[i8],
) -> Result<Option<WriteNumber>, AcknowledgeError> {
    partition.acknowledge(0, &LIMITS, member, &[say(first, last, types)])
}

/// Stores all that waits; what was written.
fn store(partition: &mut SharePartition) -> StateWrite {
    let write = partition.take_write().unwrap();
    partition.stored(write.number, true);
    write
}

fn batch(first: i64, last: i64, state: RecordState, delivery_count: i16) -> StateBatch {
    StateBatch {
        first,
        last,
        state,
        delivery_count,
    }
}

#[test]
fn a_member_gets_whole_batches_of_the_log_unless_it_wants_no_record_more() {
    let mut partition = empty();
    assert_eq!(acquire(&mut partition, "a", 15), [(0, 19, 1)]);
    assert_eq!(acquire_at(&mut partition, 0, "b", 5, true), [(20, 24, 1)]);
    assert_eq!(acquire(&mut partition, "c", 1), [(25, 29, 1)]);
    assert_eq!((partition.start(), partition.end()), (0, 30));
}

#[test]
fn parts_are_as_large_as_asked_for_and_begin_with_batches() {
    let mut partition = empty();
    let wanted = Acquire {
        member: &Arc::from("a"),
        records_max: 50,
        is_strict: false,
        batch_size: 15,
        from: 0,
        batches: &tens(100),
        aborted: &[],
    };
    let acquired = partition.acquire(0, &LIMITS, &wanted);
    let parts: Vec<_> = acquired
        .iter()
        .map(|part| (part.first, part.last))
        .collect();
    assert_eq!(parts, [(0, 19), (20, 39), (40, 49)]);
}

#[test]
fn what_is_accepted_counts_when_it_is_stored_and_the_start_follows() {
    let mut partition = empty();
    acquire(&mut partition, "a", 20);
    assert_eq!(acknowledge(&mut partition, "a", 10, 19, &[1]), Ok(Some(1)));
    let write = store(&mut partition);
    assert_eq!((write.start, write.delivery_complete_count), (0, 10));
    // The rest goes on with its delivery count if this leader is gone.
    let expected = [
        batch(0, 9, RecordState::Available, 1),
        batch(10, 19, RecordState::Acknowledged, 1),
    ];
    assert_eq!(write.batches, expected);
    assert_eq!(partition.start(), 0);
    assert_eq!(acknowledge(&mut partition, "a", 0, 9, &[1]), Ok(Some(2)));
    assert_eq!(partition.start(), 0, "it is not stored yet");
    let write = store(&mut partition);
    assert_eq!((write.start, write.delivery_complete_count), (20, 0));
    assert_eq!(write.batches, []);
    assert_eq!((partition.start(), partition.end()), (20, 20));
    assert_eq!(partition.take_write(), None);
}

#[test]
fn what_is_released_comes_again_when_it_is_stored_and_too_often_never() {
    let mut partition = empty();
    for count in 1..=5 {
        // From the third time on with fewer others, the last time alone.
        let acquired = acquire_at(&mut partition, 0, "a", 1, true);
        assert_eq!(acquired, [(0, 0, count)]);
        assert!(acknowledge(&mut partition, "a", 0, 0, &[2]).is_ok());
        assert_ne!(partition.next_offset(), 0);
        let write = store(&mut partition);
        let state = match count {
            5 => {
                assert_eq!((write.start, write.batches), (1, Vec::new()));
                continue;
            }
            _ => RecordState::Available,
        };
        assert_eq!(write.batches, [batch(0, 0, state, count)]);
    }
    assert_eq!(partition.start(), 1);
}

#[test]
fn records_that_may_be_poison_are_tried_with_fewer_others_and_last_alone() {
    let mut partition = empty();
    let mut sizes = Vec::new();
    for _ in 0..4 {
        let acquired = acquire(&mut partition, "a", 40);
        sizes.push(acquired.iter().map(|part| part.1 - part.0 + 1).sum::<i64>());
        partition.release(0, &LIMITS, "a");
        store(&mut partition);
    }
    // Three times all; then those that came three times by halves.
    assert_eq!(sizes, [40, 40, 40, 20]);
    assert_eq!(acquire(&mut partition, "a", 40), [(0, 0, 5)]);
    assert_eq!(acquire(&mut partition, "b", 40), [(1, 1, 5)]);
}

#[test]
fn one_record_or_each_of_several_can_be_said_something_of() {
    let mut partition = empty();
    acquire(&mut partition, "a", 10);
    let types = [1, 1, 2, 3, 0, 1];
    assert_eq!(acknowledge(&mut partition, "a", 1, 6, &types), Ok(Some(1)));
    let write = store(&mut partition);
    use RecordState::{Acknowledged, Archived, Available};
    let expected = [
        batch(0, 0, Available, 1),
        batch(1, 2, Acknowledged, 1),
        batch(3, 3, Available, 1),
        batch(4, 5, Archived, 1),
        batch(6, 6, Acknowledged, 1),
        batch(7, 9, Available, 1),
    ];
    assert_eq!(write.batches, expected);
    assert_eq!(write.delivery_complete_count, 5);
    assert_eq!(partition.next_offset(), 3);
}

#[test]
fn only_its_member_says_something_of_a_record_and_once() {
    use AcknowledgeError::{InvalidRecordState, InvalidRequest};
    let mut partition = empty();
    let none = acknowledge(&mut partition, "a", 0, 0, &[1]);
    assert_eq!(none, Err(InvalidRecordState));
    acquire(&mut partition, "a", 10);
    let other = acknowledge(&mut partition, "b", 0, 9, &[1]);
    assert_eq!(other, Err(InvalidRecordState));
    let beyond = acknowledge(&mut partition, "a", 0, 10, &[1]);
    assert_eq!(beyond, Err(InvalidRequest));
    let twice = [say(0, 4, &[1]), say(4, 9, &[1])];
    let twice = partition.acknowledge(0, &LIMITS, "a", &twice);
    assert_eq!(twice, Err(InvalidRecordState));
    assert!(!partition.wants_write(), "nothing of it counts");
    assert!(acknowledge(&mut partition, "a", 0, 4, &[2]).is_ok());
    let again = acknowledge(&mut partition, "a", 0, 4, &[1]);
    assert_eq!(again, Err(InvalidRecordState), "it is being stored");
    store(&mut partition);
    let released = acknowledge(&mut partition, "a", 0, 4, &[1]);
    assert_eq!(released, Err(InvalidRecordState));
    assert!(acknowledge(&mut partition, "a", 5, 9, &[3]).is_ok());
}

#[test]
fn a_lock_ends_in_time_unless_it_is_renewed() {
    let mut partition = empty();
    acquire(&mut partition, "a", 20);
    assert_eq!(partition.next_deadline(), Some(1000));
    let renewed = partition.acknowledge(600, &LIMITS, "a", &[say(0, 9, &[4])]);
    assert_eq!(renewed, Ok(None), "nothing is stored of it");
    partition.tick(999, &LIMITS);
    assert!(!partition.wants_write());
    partition.tick(1000, &LIMITS);
    let late = partition.acknowledge(1000, &LIMITS, "a", &[say(10, 19, &[1])]);
    assert_eq!(late, Err(AcknowledgeError::InvalidRecordState));
    store(&mut partition);
    assert_eq!(partition.next_offset(), 10);
    assert_eq!(partition.next_deadline(), Some(1600));
    let refused = ShareLimits {
        may_renew: false,
        ..LIMITS
    };
    let refused = partition.acknowledge(1000, &refused, "a", &[say(0, 9, &[4])]);
    assert_eq!(refused, Err(AcknowledgeError::InvalidRecordState));
}

#[test]
fn what_is_given_back_is_given_to_nobody_for_a_while() {
    let limits = ShareLimits {
        retry_backoff_ms: 500,
        ..LIMITS
    };
    let mut partition = empty();
    acquire(&mut partition, "a", 20);
    let said = partition.acknowledge(100, &limits, "a", &[say(0, 9, &[2])]);
    assert!(said.is_ok());
    store(&mut partition);
    assert_eq!(partition.next_offset(), 20);
    assert_eq!(partition.next_deadline(), Some(600));
    assert!(!partition.tick(599, &limits));
    assert!(partition.tick(600, &limits));
    assert_eq!(partition.next_offset(), 0);
    assert_eq!(
        acquire_at(&mut partition, 600, "b", 100, true),
        [(0, 9, 2), (20, 89, 1)]
    );
    // A lock that is over is the same.
    assert!(!partition.tick(1000, &limits));
    store(&mut partition);
    assert_eq!(partition.next_offset(), 90);
    assert!(!partition.tick(1499, &limits));
    assert!(partition.tick(1500, &limits));
    assert_eq!(partition.next_offset(), 10);
}

#[test]
fn dead_letters_are_copied_before_they_are_done_and_again_by_a_leader_that_does_not_know() {
    let limits = ShareLimits {
        has_dead_letters: true,
        delivery_count_max: 2,
        ..LIMITS
    };
    let mut partition = empty();
    acquire(&mut partition, "a", 20);
    let said = [say(0, 3, &[3]), say(4, 4, &[0]), say(5, 9, &[1])];
    assert!(partition.acknowledge(0, &limits, "a", &said).is_ok());
    assert_eq!(
        partition.take_dead_letters(),
        None,
        "that is not stored yet"
    );
    let write = store(&mut partition);
    let archiving = batch(0, 3, RecordState::Archiving, 1);
    assert_eq!((write.start, write.batches[0]), (0, archiving));
    let mut letters = DeadLetters {
        first: 0,
        last: 3,
        delivery_count: 1,
        death: Some(Death::Rejected),
    };
    assert_eq!(partition.take_dead_letters(), Some(letters));
    assert_eq!(partition.take_dead_letters(), None, "they are being copied");
    // A part of them.
    partition.copied(&letters, 1);
    let write = partition.take_write().unwrap();
    assert_eq!((write.start, write.batches.as_slice()), (2, &[][..]));
    partition.stored(write.number, false);
    (letters.first, letters.last) = (2, 3);
    assert_eq!(
        partition.take_dead_letters(),
        Some(letters),
        "and not the first ones"
    );
    let write = store(&mut partition);
    assert_eq!(write.start, 2);
    // The next leader.
    let stored = StoredState {
        reading: 1,
        start: 2,
        state_epoch: 0,
        batches: vec![batch(2, 3, RecordState::Archiving, 1)],
    };
    let mut next = SharePartition::new(&stored);
    assert_eq!(next.next_offset(), 4, "nobody is given them");
    letters.death = None;
    assert_eq!(next.take_dead_letters(), Some(letters));
    assert!(next.has_dead_letters());
    next.copied(&letters, 3);
    store(&mut next);
    assert_eq!((next.start(), next.has_dead_letters()), (4, false));
}

#[test]
fn what_is_given_out_too_often_is_a_dead_letter() {
    let limits = ShareLimits {
        has_dead_letters: true,
        delivery_count_max: 1,
        ..LIMITS
    };
    let mut partition = empty();
    acquire(&mut partition, "a", 20);
    partition.tick(1000, &limits);
    store(&mut partition);
    let letters = partition.take_dead_letters().unwrap();
    assert_eq!((letters.first, letters.last), (0, 19));
    assert_eq!(letters.death, Some(Death::TooOften));
}

#[test]
fn what_could_not_be_stored_is_still_its_members() {
    let mut partition = empty();
    acquire(&mut partition, "a", 10);
    assert_eq!(acknowledge(&mut partition, "a", 0, 9, &[1]), Ok(Some(1)));
    let first = partition.take_write().unwrap();
    assert_eq!(partition.take_write(), None, "one at a time");
    partition.stored(first.number, false);
    assert_eq!(partition.start(), 0);
    assert_eq!(acknowledge(&mut partition, "a", 0, 9, &[1]), Ok(Some(2)));
    store(&mut partition);
    assert_eq!(partition.start(), 10);
}

#[test]
fn what_is_said_while_a_write_is_on_its_way_goes_with_the_next_one() {
    let mut partition = empty();
    acquire(&mut partition, "a", 20);
    assert_eq!(acknowledge(&mut partition, "a", 0, 4, &[1]), Ok(Some(1)));
    let first = partition.take_write().unwrap();
    assert_eq!(acknowledge(&mut partition, "a", 5, 9, &[1]), Ok(Some(2)));
    assert_eq!(acknowledge(&mut partition, "a", 10, 14, &[1]), Ok(Some(2)));
    partition.stored(first.number, true);
    assert_eq!(partition.start(), 5);
    assert_eq!(store(&mut partition).start, 15);
}

#[test]
fn no_more_is_under_way_than_may_be_but_what_is_there_comes_again() {
    let mut partition = empty();
    let all = acquire(&mut partition, "a", 500);
    assert_eq!(all, [(0, 99, 1)]);
    assert!(!partition.can_acquire(LIMITS.locks_max));
    assert_eq!(acquire(&mut partition, "b", 500), []);
    assert!(acknowledge(&mut partition, "a", 50, 59, &[2]).is_ok());
    store(&mut partition);
    assert!(partition.can_acquire(LIMITS.locks_max));
    assert_eq!(acquire(&mut partition, "b", 500), [(50, 59, 2)]);
}

#[test]
fn what_the_log_lost_is_done() {
    let mut partition = empty();
    acquire(&mut partition, "a", 20);
    partition.log_begins_at(15);
    assert_eq!((partition.start(), partition.end()), (15, 20));
    let passed_over = acknowledge(&mut partition, "a", 0, 9, &[1]);
    assert_eq!(passed_over, Ok(None));
    assert_eq!(acknowledge(&mut partition, "a", 0, 19, &[1]), Ok(Some(1)));
    store(&mut partition);
    assert_eq!(partition.start(), 20);
    partition.log_begins_at(50);
    assert_eq!((partition.start(), partition.end()), (50, 50));
    partition.log_ends_at(30);
    assert_eq!((partition.start(), partition.end()), (30, 30));
}

#[test]
fn what_was_compacted_away_is_given_to_nobody() {
    let mut partition = empty();
    let batches = [
        BatchSpan { first: 5, last: 9 },
        BatchSpan {
            first: 14,
            last: 15,
        },
    ];
    let wanted = Acquire {
        member: &Arc::from("a"),
        records_max: 100,
        is_strict: false,
        batch_size: 500,
        from: 0,
        batches: &batches,
        aborted: &[],
    };
    let acquired = partition.acquire(0, &LIMITS, &wanted);
    // What is missing between batches the member finds out itself.
    assert_eq!((acquired[0].first, acquired[0].last), (5, 15));
    assert_eq!(partition.start(), 5);
    assert!(acknowledge(&mut partition, "a", 5, 15, &[1]).is_ok());
    store(&mut partition);
    assert_eq!(partition.start(), 16);
}

#[test]
fn records_of_aborted_transactions_are_left_out() {
    let mut partition = empty();
    let wanted = Acquire {
        member: &Arc::from("a"),
        records_max: 100,
        is_strict: false,
        batch_size: 500,
        from: 0,
        batches: &tens(50),
        aborted: &[
            BatchSpan { first: 0, last: 9 },
            BatchSpan {
                first: 20,
                last: 29,
            },
        ],
    };
    let acquired = partition.acquire(0, &LIMITS, &wanted);
    let parts: Vec<_> = acquired
        .iter()
        .map(|part| (part.first, part.last))
        .collect();
    assert_eq!(parts, [(10, 19), (30, 49)]);
    assert_eq!(partition.start(), 10);
    assert!(acknowledge(&mut partition, "a", 10, 19, &[1]).is_ok());
    store(&mut partition);
    assert_eq!(partition.start(), 30);
}

#[test]
fn a_leader_goes_on_with_what_is_stored() {
    use RecordState::{Acknowledged, Available};
    let partition = SharePartition::new(&StoredState {
        reading: 1,
        start: 10,
        state_epoch: 3,
        batches: vec![
            batch(10, 14, Acknowledged, 1),
            batch(20, 24, Available, 2),
            batch(25, 29, Acknowledged, 1),
        ],
    });
    assert_eq!((partition.start(), partition.end()), (15, 30));
    assert_eq!(partition.state_epoch(), 3);
    let mut partition = partition;
    let first = acquire_at(&mut partition, 0, "a", 5, true);
    assert_eq!(first, [(15, 19, 1)], "nothing was stored of these");
    let second = acquire_at(&mut partition, 0, "a", 10, true);
    assert_eq!(second, [(20, 24, 3), (30, 34, 1)]);
}
