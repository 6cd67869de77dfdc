//! Offsets of transactions.

use uuid::Uuid;

use super::*;
use crate::group::messages::{Guard, TransactionEnd, TransactionalCommit};
use crate::group::stored_transactions;

const PRODUCER: i64 = 7;

impl Bench {
    fn verify(&mut self, epoch: i16) -> Result<Option<Guard>, GroupError> {
        let ask = |answer| Ask::VerifyTransaction {
            producer_id: PRODUCER,
            producer_epoch: epoch,
            answer,
        };
        self.ask(ask).try_recv().unwrap()
    }

    fn add_with(
        &mut self,
        (epoch, guard): (i16, Option<Guard>),
        offsets: &[(i32, i64)],
    ) -> oneshot::Receiver<Outcomes> {
        let offset = |(partition, offset): &(i32, i64)| OffsetToCommit {
            topic: "t".to_owned(),
            partition: *partition,
            offset: *offset,
            leader_epoch: -1,
            metadata: String::new(),
        };
        let commit = TransactionalCommit {
            producer_id: PRODUCER,
            producer_epoch: epoch,
            guard,
            member_id: String::new(),
            instance_id: None,
            generation: -1,
            offsets: offsets.iter().map(offset).collect(),
        };
        self.ask(|answer| Ask::CommitTransactional(commit, answer))
    }

    /// Adds offsets to the producer's transaction, as a client whose transaction's coordinator agrees.
    fn add(&mut self, epoch: i16, offsets: &[(i32, i64)]) -> oneshot::Receiver<Outcomes> {
        let guard = self.verify(epoch).unwrap();
        self.add_with((epoch, guard), offsets)
    }

    fn end_with(&mut self, end: TransactionEnd) -> oneshot::Receiver<Result<(), GroupError>> {
        let (answer, receiver) = Answer::new();
        let ask = AskAll::EndTransaction(end, answer);
        self.groups.handle_all(self.now_ms, ask);
        receiver
    }

    fn end(&mut self, epoch: i16, is_commit: bool) -> oneshot::Receiver<Result<(), GroupError>> {
        self.end_with(TransactionEnd {
            producer_id: PRODUCER,
            producer_epoch: epoch,
            coordinator_epoch: 1,
            is_commit,
            bumps_epoch: true,
        })
    }

    /// Partitions whose offsets a transaction may replace.
    fn unstable(&mut self) -> Vec<i32> {
        let keys = (0..4).map(|index| ("t".to_owned(), index)).collect();
        let wanted = OffsetsQuery {
            member: AskingMember::NOBODY,
            keys: Some(keys),
            stable: true,
        };
        let mut found = self.ask(|answer| Ask::FetchOffsets(wanted, answer));
        let offsets = found.try_recv().unwrap().unwrap().offsets.into_iter();
        let unstable =
            offsets.filter(|(_, offset)| *offset == Err(GroupError::UnstableOffsetCommit));
        unstable.map(|((_, index), _)| index).collect()
    }

    fn has_pending_nodes(&self) -> bool {
        self.tree.keys().any(|path| path.contains("/pending/"))
    }
}

/// A group with offsets in partitions 0 and 1.
fn with_room() -> Bench {
    add_offsets(Bench::with_room(1 << 20))
}

/// A group with offsets in partitions 0 and 1, and an open transaction that has one of partition 0.
fn with_transaction() -> Bench {
    let mut bench = with_room();
    let mut added = bench.add(0, &[(0, 15)]);
    assert_eq!(bench.unstable(), [0], "it may be stored already");
    bench.store(Ok(()));
    assert_eq!(added.try_recv(), Ok(vec![Ok(())]));
    assert_eq!(bench.unstable(), [0]);
    bench
}

#[test]
fn offsets_of_a_transaction_are_the_groups_once_it_is_committed_and_gone_once_it_is_aborted() {
    for (is_commit, left) in [(true, 15), (false, 10)] {
        let mut bench = with_transaction();
        assert_eq!(bench.offsets(), Some(vec![(0, 10), (1, 20)]));
        let mut ended = bench.end(1, is_commit);
        assert_eq!(bench.unstable(), [0], "not stored yet");
        bench.store(Ok(()));
        assert_eq!(ended.try_recv(), Ok(Ok(())));
        assert_eq!(bench.offsets(), Some(vec![(0, left), (1, 20)]));
        assert!(bench.unstable().is_empty() && !bench.has_pending_nodes());
        bench.reload();
        assert_eq!(bench.offsets(), Some(vec![(0, left), (1, 20)]));
    }
}

#[test]
fn another_owner_of_the_slot_knows_what_is_pending() {
    for (is_commit, left) in [(true, 16), (false, 10)] {
        let mut bench = with_transaction();
        bench.add(0, &[(0, 16), (2, 5)]);
        bench.store(Ok(()));
        bench.reload();
        assert_eq!(bench.unstable(), [0, 2]);
        assert_eq!(bench.verify(0), Ok(None), "it is in the transaction");
        bench.end(1, is_commit);
        bench.store(Ok(()));
        let offsets = bench.offsets().unwrap();
        assert_eq!(
            (offsets[0], offsets.len()),
            ((0, left), 2 + usize::from(is_commit))
        );
        assert!(!bench.has_pending_nodes());
    }
}

#[test]
fn an_offset_that_was_committed_after_that_of_the_transaction_stays() {
    for reload in [false, true] {
        let mut bench = with_transaction();
        bench.now_ms += 1;
        bench.commit(0, 17);
        if reload {
            bench.store(Ok(()));
            bench.reload();
        }
        bench.end(1, true);
        bench.store(Ok(()));
        assert_eq!(bench.offsets(), Some(vec![(0, 17), (1, 20)]), "{reload}");
        assert!(bench.unstable().is_empty());
        bench.reload();
        assert_eq!(bench.offsets(), Some(vec![(0, 17), (1, 20)]), "{reload}");
    }
}

#[test]
fn clocks_of_owners_do_not_say_which_of_two_offsets_is_the_later_one() {
    for (first_ms, then_ms) in [(1000, 0), (0, 1000), (5, 5)] {
        for transaction_is_later in [true, false] {
            let mut bench = with_room();
            let mut steps: [fn(&mut Bench); 2] = [
                |bench| drop(bench.add(0, &[(0, 15)])),
                |bench| drop(bench.commit(0, 17)),
            ];
            if transaction_is_later {
                steps.reverse();
            }
            for (step, now_ms) in steps.iter().zip([first_ms, then_ms]) {
                bench.now_ms = now_ms;
                step(&mut bench);
                bench.store(Ok(()));
                bench.reload();
            }
            bench.end(1, true);
            bench.store(Ok(()));
            let expected = if transaction_is_later { 15 } else { 17 };
            assert_eq!(
                bench.offsets(),
                Some(vec![(0, expected), (1, 20)]),
                "{first_ms} {then_ms} {transaction_is_later}"
            );
        }
    }
}

#[test]
fn an_offset_that_was_committed_before_that_of_the_transaction_does_not() {
    let mut bench = with_room();
    // Stored after it, and asked for before.
    bench.commit(0, 17);
    bench.add(0, &[(0, 15)]);
    bench.store(Ok(()));
    bench.end(1, true);
    bench.store(Ok(()));
    assert_eq!(bench.offsets(), Some(vec![(0, 15), (1, 20)]));
}

#[test]
fn a_marker_waits_for_what_the_transaction_adds_and_later_offsets_wait_for_the_marker() {
    let mut bench = with_room();
    let mut added = bench.add(0, &[(0, 15)]);
    let mut ended = bench.end(1, true);
    let mut late = bench.add_with((1, None), &[(1, 25)]);
    assert_eq!(bench.store(Ok(())), 1, "the marker waits");
    assert!(added.try_recv().is_ok() && ended.try_recv().is_err());
    assert_eq!(bench.store(Ok(())), 1);
    assert_eq!(ended.try_recv(), Ok(Ok(())));
    bench.store(Ok(()));
    assert_eq!(late.try_recv(), Ok(vec![Err(GroupError::InvalidTxnState)]));
    assert_eq!(bench.offsets(), Some(vec![(0, 15), (1, 20)]));
}

#[test]
fn what_was_verified_before_a_marker_is_not_added_after_it() {
    let mut bench = with_room();
    let guard = bench.verify(0).unwrap();
    // By version 1, where the next transaction has the same epoch.
    bench.end_with(TransactionEnd {
        producer_id: PRODUCER,
        producer_epoch: 0,
        coordinator_epoch: 1,
        is_commit: false,
        bumps_epoch: false,
    });
    bench.store(Ok(()));
    let mut late = bench.add_with((0, guard), &[(0, 15)]);
    assert_eq!(late.try_recv(), Ok(vec![Err(GroupError::InvalidTxnState)]));
    bench.reload();
    // Neither by another owner, which knows no marker.
    let mut late = bench.add_with((0, guard), &[(0, 15)]);
    assert_eq!(late.try_recv(), Ok(vec![Err(GroupError::InvalidTxnState)]));
    assert!(bench.unstable().is_empty());
}

#[test]
fn a_producer_of_an_older_epoch_is_fenced_with_its_offsets_and_its_marker() {
    let mut bench = with_transaction();
    bench.end(1, false);
    bench.store(Ok(()));
    let mut late = bench.add_with((0, None), &[(0, 15)]);
    assert_eq!(
        late.try_recv(),
        Ok(vec![Err(GroupError::InvalidProducerEpoch)])
    );
    bench.add(1, &[(0, 18)]);
    bench.store(Ok(()));
    // The same marker again: not this transaction's.
    let mut again = bench.end(1, false);
    assert_eq!(again.try_recv(), Ok(Err(GroupError::InvalidProducerEpoch)));
    assert_eq!(bench.unstable(), [0]);
}

/// A marker of version 1, where transactions of a producer have one epoch.
pub(super) fn version_1(producer_epoch: i16, coordinator_epoch: i32) -> TransactionEnd {
    TransactionEnd {
        producer_id: PRODUCER,
        producer_epoch,
        coordinator_epoch,
        is_commit: true,
        bumps_epoch: false,
    }
}

#[test]
fn a_late_marker_of_an_earlier_coordinator_does_not_end_the_next_transaction_after_a_failover() {
    let mut bench = with_transaction();
    bench.end_with(version_1(0, 2));
    bench.store(Ok(()));
    bench.reload();
    bench.add(0, &[(0, 16)]);
    bench.store(Ok(()));
    let mut late = bench.end_with(version_1(0, 1));
    bench.store(Ok(()));
    let fenced = Err(GroupError::TransactionCoordinatorFenced);
    assert_eq!(late.try_recv(), Ok(fenced));
    assert_eq!(bench.unstable(), [0]);
}

#[test]
fn a_producer_of_an_older_epoch_is_fenced_after_a_failover_too() {
    let mut bench = with_transaction();
    bench.end(1, true);
    bench.store(Ok(()));
    bench.reload();
    assert_eq!(bench.verify(0), Err(GroupError::InvalidProducerEpoch));
    let mut late = bench.end_with(version_1(0, 1));
    assert_eq!(late.try_recv(), Ok(Err(GroupError::InvalidProducerEpoch)));
}

#[test]
fn a_marker_that_is_refused_leaves_the_transaction_open_and_may_come_again() {
    let mut bench = with_transaction();
    let mut refused = bench.end(1, true);
    bench.store(REFUSED);
    assert_eq!(
        refused.try_recv(),
        Ok(Err(GroupError::CoordinatorNotAvailable))
    );
    assert_eq!(bench.unstable(), [0]);
    for _ in 0..2 {
        let mut ended = bench.end(1, true);
        bench.store(Ok(()));
        assert_eq!(ended.try_recv(), Ok(Ok(())));
        assert_eq!(bench.offsets(), Some(vec![(0, 15), (1, 20)]));
    }
}

#[test]
fn offsets_of_a_transaction_that_are_refused_leave_nothing() {
    let mut bench = Bench::new();
    let mut added = bench.add(0, &[(0, 15)]);
    bench.store(REFUSED);
    assert_eq!(
        added.try_recv(),
        Ok(vec![Err(GroupError::CoordinatorNotAvailable)])
    );
    assert!(!bench.exists() && bench.groups.groups.is_empty());
}

#[test]
fn a_group_stays_while_offsets_of_another_transaction_are_on_their_way() {
    let mut bench = Bench::with_room(1 << 20);
    let mut refused = bench.add(0, &[(0, 15)]);
    let other = (PRODUCER + 1, 0);
    let verify = |answer| Ask::VerifyTransaction {
        producer_id: other.0,
        producer_epoch: other.1,
        answer,
    };
    let guard = bench.ask(verify).try_recv().unwrap().unwrap();
    let commit = TransactionalCommit {
        producer_id: other.0,
        producer_epoch: other.1,
        guard,
        member_id: String::new(),
        instance_id: None,
        generation: -1,
        offsets: vec![OffsetToCommit {
            topic: "t".to_owned(),
            partition: 1,
            offset: 7,
            leader_epoch: -1,
            metadata: String::new(),
        }],
    };
    let mut added = bench.ask(|answer| Ask::CommitTransactional(commit, answer));
    let mut writes = bench.groups.take_writes().into_iter();
    bench.groups.stored(0, writes.next().unwrap().then, REFUSED);
    bench.groups.stored(0, writes.next().unwrap().then, Ok(()));
    assert!(refused.try_recv().unwrap()[0].is_err());
    assert_eq!(added.try_recv(), Ok(vec![Ok(())]));
    assert_eq!(bench.unstable(), [1]);
}

#[test]
fn what_was_stored_although_it_was_refused_goes_with_the_marker() {
    let mut bench = with_room();
    let mut added = bench.add(0, &[(0, 15)]);
    // The answer is lost, and the write is made.
    for write in bench.groups.take_writes() {
        write.ops.into_iter().for_each(|op| bench.apply(op));
        bench.groups.stored(0, write.then, REFUSED);
    }
    assert_eq!(
        added.try_recv(),
        Ok(vec![Err(GroupError::CoordinatorNotAvailable)])
    );
    assert!(bench.has_pending_nodes());
    bench.end(1, false);
    bench.store(Ok(()));
    bench.reload();
    assert!(bench.unstable().is_empty() && !bench.has_pending_nodes());
}

#[test]
fn a_deletion_takes_what_is_pending_along() {
    let mut bench = with_transaction();
    bench.add(0, &[(2, 30)]);
    bench.store(Ok(()));
    let keys = vec![("t".to_owned(), 0)];
    let mut deleted = bench.ask(|answer| Ask::DeleteOffsets(keys, answer));
    let mut ended = bench.end(1, true);
    bench.store(Ok(()));
    assert_eq!(deleted.try_recv(), Ok(Ok(vec![Ok(())])));
    assert_eq!(bench.unstable(), [2]);
    let before = bench.tree.clone();
    assert!(ended.try_recv().is_err());
    bench.store(Ok(()));
    assert_eq!(bench.offsets(), Some(vec![(1, 20), (2, 30)]));
    // A kill between the two.
    bench.tree = before;
    bench.reload();
    assert_eq!(bench.unstable(), [2]);
}

#[test]
fn a_group_that_is_deleted_takes_what_is_pending_along_and_a_marker_waits_for_the_outcome() {
    for (outcome, left) in [(Ok(()), None), (REFUSED, Some(vec![(0, 15), (1, 20)]))] {
        let mut bench = with_transaction();
        bench.ask(Ask::Delete);
        let mut ended = bench.end(1, true);
        assert_eq!(bench.store(outcome), 1, "the marker waits");
        bench.store(Ok(()));
        assert_eq!(ended.try_recv(), Ok(Ok(())));
        match left {
            Some(left) => assert_eq!(bench.offsets(), Some(left)),
            None => {
                let mut left = bench.tree.keys();
                let is_of_producer = |path: &String| paths::producer_of(path) == Some(PRODUCER);
                assert!(left.all(is_of_producer) && !bench.exists());
            }
        }
        assert!(bench.unstable().is_empty() && !bench.has_pending_nodes());
    }
}

#[test]
fn neither_an_offset_nor_a_group_expires_that_a_transaction_has_an_offset_for() {
    let mut bench = with_transaction();
    bench.expire();
    bench.store(Ok(()));
    assert_eq!(bench.offsets(), Some(vec![(0, 10)]));
    bench.groups.tick(bench.now_ms + RETENTION_MS);
    assert!(bench.exists());
}

#[test]
fn many_offsets_are_stored_in_parts_and_read_again() {
    let mut bench = with_room();
    let identities: Vec<String> = (0..2000).map(|n| format!("0-{n}")).collect();
    let group = bench.groups.groups.get_mut("g").unwrap();
    let (key, committed) = {
        let decided = group
            .offsets
            .iter()
            .next()
            .map(|(key, offset)| (key.clone(), offset.clone()));
        let (key, offset) = decided.unwrap();
        let memory = bench.context.offsets.reserve_anyway(0);
        (key, Committed::new(offset, memory))
    };
    let record =
        |identity: &String| stored_transactions::pending_record(&key, 2, &committed, identity);
    let of = (PRODUCER, 0);
    let records = identities.iter().map(record);
    let ops = stored_transactions::pending_ops("g", &mut group.pending, of, records);
    assert!(ops.len() > 1);
    for op in &ops {
        let Op::Put { data, .. } = op else { panic!() };
        assert!(data.len() < crate::coordinator::PART_BYTES_MAX + 200);
    }
    let one = [record(&identities[0])];
    let more = stored_transactions::pending_ops("g", &mut group.pending, of, one);
    let all: BTreeSet<_> = ops
        .iter()
        .chain(&more)
        .map(|op| format!("{op:?}"))
        .collect();
    assert_eq!(all.len(), ops.len() + 1, "no part is written over");
}

impl Bench {
    fn add_of(
        &mut self,
        producer_id: i64,
        partition: i32,
        metadata: String,
    ) -> oneshot::Receiver<Outcomes> {
        let ask = |answer| Ask::VerifyTransaction {
            producer_id,
            producer_epoch: 0,
            answer,
        };
        let guard = self.ask(ask).try_recv().unwrap().unwrap();
        let commit = TransactionalCommit {
            producer_id,
            producer_epoch: 0,
            guard,
            member_id: String::new(),
            instance_id: None,
            generation: -1,
            offsets: vec![OffsetToCommit {
                topic: "t".to_owned(),
                partition,
                offset: 77,
                leader_epoch: -1,
                metadata,
            }],
        };
        self.ask(|answer| Ask::CommitTransactional(commit, answer))
    }
}

#[test]
fn parts_are_not_overwritten_when_a_topic_is_deleted_while_the_first_is_in_flight() {
    let mut bench = with_room();
    bench.add(0, &[(0, 15)]);
    bench.groups.handle_all(
        0,
        AskAll::TopicDeleted("unrelated".to_owned(), Uuid::from_u128(99)),
    );
    bench.store(Ok(()));
    bench.add(0, &[(1, 25)]);
    bench.store(Ok(()));
    assert_eq!(bench.unstable(), [0, 1]);
    bench.reload();
    assert_eq!(bench.unstable(), [0, 1]);
}

#[test]
fn parts_are_not_overwritten_when_another_producer_is_stored() {
    let mut bench = with_room();
    bench.add(0, &[(0, 15)]);
    let writes_of_first = bench.groups.take_writes();
    // of another producer, refused for its metadata
    bench.add_of(8, 2, "m".repeat(1000));
    for write in writes_of_first {
        for op in write.ops {
            bench.apply(op);
        }
        bench.groups.stored(0, write.then, Ok(()));
    }
    bench.add(0, &[(1, 25)]);
    bench.store(Ok(()));
    assert_eq!(bench.unstable(), [0, 1]);
    bench.reload();
    assert_eq!(bench.unstable(), [0, 1]);
}

#[test]
fn a_new_group_is_not_dropped_while_its_first_pending_offsets_are_in_flight() {
    let mut bench = Bench::with_room(1 << 20);
    let mut added = bench.add(0, &[(0, 15)]);
    let writes_of_first = bench.groups.take_writes();
    bench.add_of(8, 2, "m".repeat(1000));
    for write in writes_of_first {
        for op in write.ops {
            bench.apply(op);
        }
        bench.groups.stored(0, write.then, Ok(()));
    }
    assert_eq!(added.try_recv(), Ok(vec![Ok(())]));
    let mut ended = bench.end(1, true);
    bench.store(Ok(()));
    assert_eq!(ended.try_recv(), Ok(Ok(())));
    assert_eq!(bench.offsets(), Some(vec![(0, 15)]));
    assert!(!bench.has_pending_nodes());
}

#[test]
fn the_latest_of_many_commits_counts_after_a_reload() {
    let mut bench = with_room();
    for offset in 100..112 {
        bench.add(0, &[(0, offset)]);
        bench.store(Ok(()));
    }
    bench.reload();
    bench.end(1, true);
    bench.store(Ok(()));
    assert_eq!(bench.offsets().unwrap()[0], (0, 111));
}
