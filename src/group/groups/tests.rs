//! The groups of a slot, with writes that are stored or refused as a test says.

mod broadcast;
mod broadcast_consumer;
mod consumer;
mod producers;
mod transactions;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::*;
use crate::clock::WallClock;
use crate::coordinator::{SlotPartition, StoredId, StoredSlot};
use crate::group::asks::{AskingMember, FoundOffsets, OffsetsQuery};
use crate::group::messages::{CommitOffsets, OffsetToCommit};
use crate::group::reserved::GroupMemory;
use crate::group::testing::{OneTopic, fixed_settings};
use crate::meta::Node;

const CHECK_INTERVAL_MS: i64 = 60_000;
const RETENTION_MS: i64 = 3_600_000;
const PRODUCER_EXPIRATION_MS: i64 = 7_200_000;
/// For two offsets.
const OFFSETS_BYTES_MAX: usize = 2500;
const REFUSED: Result<(), CoordinatorError> = Err(CoordinatorError::NotAvailable);

/// The machine of a slot, and the time.
struct Bench {
    groups: Groups,
    context: Arc<GroupContext>,
    now_ms: i64,
    /// What is stored.
    tree: BTreeMap<String, Bytes>,
}

fn load(context: &Arc<GroupContext>, now_ms: i64, slot: &StoredSlot) -> Groups {
    let topics: Arc<dyn Topics> = Arc::new(OneTopic);
    let loaded = Groups::load(Stored {
        context,
        topics: &topics,
        partition: SlotPartition::find(Groups::TOPIC.name(), 0).unwrap(),
        epoch: 1,
        now_ms,
        slot,
    });
    loaded.machine
}

impl Bench {
    fn new() -> Self {
        Self::with_room(OFFSETS_BYTES_MAX)
    }

    /// With so much memory for offsets.
    fn with_room(offsets_bytes_max: usize) -> Self {
        Self::with(offsets_bytes_max, fixed_settings())
    }

    fn with(offsets_bytes_max: usize, settings: Arc<dyn GroupSettings>) -> Self {
        let limits = GroupLimits {
            initial_rebalance_delay_ms: 0,
            session_timeout_min_ms: 1,
            session_timeout_max_ms: i32::MAX,
            members_max: 10,
            members_bytes_max: 1 << 20,
            offsets_bytes_max,
            share_groups_max: 10,
            metadata_bytes_max: 100,
            offsets_retention_ms: RETENTION_MS,
            producer_expiration_ms: PRODUCER_EXPIRATION_MS,
            offsets_check_interval: Duration::from_millis(CHECK_INTERVAL_MS as u64),
        };
        let context = Arc::new(GroupContext {
            limits,
            settings,
            events: Events::new(WallClock::default()),
            memory: Memory::new(Arc::default(), 1 << 20),
            members: GroupMemory::new(limits.members_bytes_max),
            offsets: GroupMemory::new(limits.offsets_bytes_max),
            share_groups: GroupMemory::new(limits.share_groups_max),
            mirror: None,
        });
        Self {
            groups: load(&context, 0, &StoredSlot::default()),
            context,
            now_ms: 0,
            tree: BTreeMap::new(),
        }
    }

    /// The slot comes to another owner, who knows what is stored.
    fn reload(&mut self) {
        let node = |data: &Bytes| Node {
            data: data.clone(),
            version: 0,
            ephemeral: false,
        };
        let nodes = self
            .tree
            .iter()
            .map(|(path, data)| (path.clone(), node(data)));
        let (nodes, own) =
            nodes.partition(|(path, _)| paths::is_at_or_below(path, &paths::group("g")));
        let id = "g".to_owned();
        let slot = StoredSlot {
            ids: vec![StoredId { id, nodes }],
            nodes: own,
        };
        self.groups = load(&self.context, self.now_ms, &slot);
    }

    fn ask<T>(&mut self, ask: impl FnOnce(Answer<T>) -> Ask) -> oneshot::Receiver<T> {
        let (answer, receiver) = Answer::new();
        self.groups.handle(self.now_ms, "g".to_owned(), ask(answer));
        receiver
    }

    /// The outcome of all writes that are wanted; how many they were.
    fn store(&mut self, outcome: Result<(), CoordinatorError>) -> usize {
        let writes = self.groups.take_writes();
        let count = writes.len();
        for write in writes {
            for op in write.ops.into_iter().filter(|_| outcome.is_ok()) {
                self.apply(op);
            }
            self.groups.stored(self.now_ms, write.then, outcome);
        }
        count
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Put { path, data, .. } => {
                self.tree.insert(path, data);
            }
            Op::DeleteTree { path } => self.tree.retain(|at, _| !paths::is_at_or_below(at, &path)),
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, partition: i32, offset: i64) -> oneshot::Receiver<Outcomes> {
        let commit = CommitOffsets {
            version: 9,
            member_id: String::new(),
            instance_id: None,
            generation: -1,
            retention_ms: None,
            offsets: vec![OffsetToCommit {
                topic: "t".to_owned(),
                partition,
                offset,
                leader_epoch: -1,
                metadata: String::new(),
            }],
        };
        self.ask(|answer| Ask::Commit(commit, answer))
    }

    /// Offsets by partition, as a client fetches them; `None` if that is not answered at once.
    fn offsets(&mut self) -> Option<Vec<(i32, i64)>> {
        let wanted = OffsetsQuery {
            member: AskingMember::NOBODY,
            keys: None,
            stable: false,
        };
        let mut found = self.ask(|answer| Ask::FetchOffsets(wanted, answer));
        let found: FoundOffsets = found.try_recv().ok()?.unwrap();
        let offsets = found.offsets.into_iter();
        Some(
            offsets
                .filter_map(|((_, index), offset)| Some((index, offset.ok()??.offset)))
                .collect(),
        )
    }

    fn exists(&mut self) -> bool {
        let mut described = self.ask(Ask::Describe);
        described.try_recv().unwrap().is_some()
    }

    /// Lets the retention of all that was committed so far end, and checks it.
    fn expire(&mut self) {
        self.now_ms += RETENTION_MS + CHECK_INTERVAL_MS;
        self.groups.tick(self.now_ms);
    }
}

/// A group without members that has offsets in partitions 0 and 1.
fn with_offsets() -> Bench {
    add_offsets(Bench::new())
}

fn add_offsets(mut bench: Bench) -> Bench {
    let answers = [bench.commit(0, 10), bench.commit(1, 20)];
    assert_eq!(bench.offsets(), Some(vec![]), "not stored yet");
    bench.store(Ok(()));
    for mut answer in answers {
        assert_eq!(answer.try_recv(), Ok(vec![Ok(())]));
    }
    assert_eq!(bench.offsets(), Some(vec![(0, 10), (1, 20)]));
    bench
}

#[test]
fn a_commit_that_is_refused_is_not_known_and_leaves_no_group() {
    let mut bench = Bench::new();
    let mut answer = bench.commit(0, 10);
    bench.store(REFUSED);
    let refused = vec![Err(GroupError::CoordinatorNotAvailable)];
    assert_eq!(answer.try_recv(), Ok(refused));
    assert!(!bench.exists());
}

#[test]
fn a_group_whose_deletion_is_refused_is_there_with_its_offsets() {
    let mut bench = with_offsets();
    let mut answer = bench.ask(Ask::Delete);
    assert_eq!(bench.store(REFUSED), 1);
    let refused = Err(GroupError::CoordinatorNotAvailable);
    assert_eq!(answer.try_recv(), Ok(refused));
    assert!(bench.exists());
    assert_eq!(bench.offsets(), Some(vec![(0, 10), (1, 20)]));
    let mut answer = bench.ask(Ask::Delete);
    bench.store(Ok(()));
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    assert!(!bench.exists());
    let mut answer = bench.ask(Ask::Delete);
    assert_eq!(answer.try_recv(), Ok(Err(GroupError::GroupIdNotFound)));
}

#[test]
fn a_change_to_a_group_during_its_deletion_waits_for_the_outcome_and_a_read_does_not() {
    for (outcome, left) in [(REFUSED, vec![(0, 11), (1, 20)]), (Ok(()), vec![(0, 11)])] {
        let mut bench = with_offsets();
        let mut deleted = bench.ask(Ask::Delete);
        let mut committed = bench.commit(0, 11);
        assert_eq!(bench.offsets(), Some(vec![(0, 10), (1, 20)]));
        assert_eq!(bench.store(outcome), 1, "the commit waits");
        assert!(deleted.try_recv().is_ok() && committed.try_recv().is_err());
        bench.store(Ok(()));
        assert_eq!(committed.try_recv(), Ok(vec![Ok(())]));
        assert_eq!(bench.offsets(), Some(left), "{outcome:?}");
    }
}

#[test]
fn offsets_whose_deletion_is_refused_are_still_known() {
    let mut bench = with_offsets();
    let delete = |bench: &mut Bench| {
        let keys = vec![("t".to_owned(), 0)];
        bench.ask(|answer| Ask::DeleteOffsets(keys, answer))
    };
    let mut answer = delete(&mut bench);
    bench.store(REFUSED);
    let refused = Err(GroupError::CoordinatorNotAvailable);
    assert_eq!(answer.try_recv(), Ok(refused));
    assert_eq!(bench.offsets(), Some(vec![(0, 10), (1, 20)]));
    let mut answer = delete(&mut bench);
    bench.store(Ok(()));
    assert_eq!(answer.try_recv(), Ok(Ok(vec![Ok(())])));
    assert_eq!(bench.offsets(), Some(vec![(1, 20)]));
}

#[test]
fn a_commit_after_a_deletion_of_the_offset_stays_whichever_is_answered_first() {
    for commit_first in [false, true] {
        let mut bench = with_offsets();
        let keys = vec![("t".to_owned(), 0)];
        let _deleted = bench.ask(|answer| Ask::DeleteOffsets(keys, answer));
        let _committed = bench.commit(0, 11);
        let mut writes = bench.groups.take_writes();
        if commit_first {
            writes.reverse();
        }
        for write in writes {
            bench.groups.stored(0, write.then, Ok(()));
        }
        assert_eq!(bench.offsets(), Some(vec![(0, 11), (1, 20)]));
    }
}

#[test]
fn what_expires_is_known_until_its_removal_is_stored() {
    let mut bench = with_offsets();
    bench.expire();
    assert_eq!(bench.store(REFUSED), 1);
    assert!(bench.exists());
    assert_eq!(bench.offsets(), Some(vec![(0, 10), (1, 20)]));
    bench.expire();
    assert_eq!(bench.store(Ok(())), 1);
    assert!(!bench.exists());
}

#[test]
fn an_offset_that_expires_goes_without_those_that_were_committed_later() {
    let mut bench = with_offsets();
    bench.now_ms = RETENTION_MS;
    let _answer = bench.commit(1, 21);
    bench.store(Ok(()));
    bench.now_ms = 0;
    bench.expire();
    bench.store(REFUSED);
    assert_eq!(bench.offsets(), Some(vec![(0, 10), (1, 21)]));
    bench.groups.tick(bench.now_ms + CHECK_INTERVAL_MS);
    bench.store(Ok(()));
    assert_eq!(bench.offsets(), Some(vec![(1, 21)]));
}

#[test]
fn an_offset_does_not_expire_while_a_commit_of_it_is_in_flight() {
    let mut bench = with_offsets();
    bench.now_ms = RETENTION_MS + CHECK_INTERVAL_MS;
    let mut committed = bench.commit(0, 11);
    bench.groups.tick(bench.now_ms);
    assert_eq!(bench.store(Ok(())), 1, "the commit alone");
    assert_eq!(committed.try_recv(), Ok(vec![Ok(())]));
    assert_eq!(bench.offsets(), Some(vec![(0, 11), (1, 20)]));
}

#[test]
fn an_offset_of_a_partition_that_is_gone_meanwhile_is_refused() {
    let mut bench = Bench::new();
    let mut answer = bench.commit(9, 10);
    bench.store(Ok(()));
    let refused = vec![Err(GroupError::UnknownTopicOrPartition)];
    assert_eq!(answer.try_recv(), Ok(refused));
    assert!(!bench.exists());
}

#[test]
fn new_offsets_above_the_limit_are_refused_and_known_ones_go_on() {
    let mut bench = Bench::new();
    for partition in [0, 1] {
        let committed = bench.commit(partition, 1);
        bench.store(Ok(()));
        assert_eq!(committed.blocking_recv(), Ok(vec![Ok(())]));
    }
    let refused = bench.commit(2, 1);
    bench.store(Ok(()));
    let too_large = Err(GroupError::OffsetsTooLarge);
    assert_eq!(refused.blocking_recv(), Ok(vec![too_large]));
    let again = bench.commit(1, 2);
    bench.store(Ok(()));
    assert_eq!(again.blocking_recv(), Ok(vec![Ok(())]));
    assert_eq!(bench.offsets(), Some(vec![(0, 1), (1, 2)]));
    // What is deleted leaves its room to others.
    let keys = vec![("t".to_owned(), 0)];
    let deleted = bench.ask(|answer| Ask::DeleteOffsets(keys, answer));
    bench.store(Ok(()));
    assert_eq!(deleted.blocking_recv(), Ok(Ok(vec![Ok(())])));
    let committed = bench.commit(2, 1);
    bench.store(Ok(()));
    assert_eq!(committed.blocking_recv(), Ok(vec![Ok(())]));
}
