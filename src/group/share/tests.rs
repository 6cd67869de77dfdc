//! Members that join, report, leave, and what they are told.

use std::pin::Pin;

use super::*;
use crate::coordinator::{Parts, StoredId, TopicPartition, Topics};
use crate::group::limits::MEMBER_OVERHEAD_BYTES;
use crate::group::messages::{GroupError, Refusal};
use crate::group::reserved::GroupMemory;
use crate::meta::{Node, Op};

const SETTINGS: ShareGroupSettings = ShareGroupSettings {
    session_timeout_ms: 45_000,
    heartbeat_interval_ms: 5000,
    assignment_interval_ms: 0,
    members_max: 4,
};

/// Topics with so many partitions each, with ids by position.
struct Known(Vec<(&'static str, i32)>);

fn id(n: usize) -> Uuid {
    Uuid::from_u128(n as u128 + 1)
}

impl Topics for Known {
    fn partition(&self, _: &str, _: i32) -> Option<TopicPartition> {
        None
    }

    fn index_of(&self, _: &str, _: &str) -> Option<i32> {
        None
    }

    fn id_of(&self, topic: &str) -> Option<Uuid> {
        self.shape_of(topic).map(|(id, _)| id)
    }

    fn name_of(&self, _: Uuid) -> Option<String> {
        None
    }

    fn shape_of(&self, topic: &str) -> Option<(Uuid, i32)> {
        let at = self.0.iter().position(|(name, _)| *name == topic)?;
        Some((id(at), self.0[at].1))
    }

    fn for_each_name(&self, tell: &mut dyn FnMut(&str)) {
        self.0.iter().for_each(|(name, _)| tell(name));
    }

    fn version(&self) -> u64 {
        self.0.iter().map(|(_, count)| 1000 + *count as u64).sum()
    }

    fn refresh(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(std::future::ready(true))
    }
}

fn beat(member: &str, epoch: i32, topics: Option<&[&str]>) -> ShareHeartbeat {
    ShareHeartbeat {
        member_id: member.to_owned(),
        member_epoch: epoch,
        rack: None,
        topics: topics.map(|topics| topics.iter().map(|name| (*name).to_owned()).collect()),
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        reserved: None,
    }
}

fn report(
    group: &mut ShareGroup,
    topics: &Known,
    member: &str,
    epoch: i32,
    reads: Option<&[&str]>,
) -> Result<ShareReply, Refusal> {
    group.heartbeat(0, ("g", beat(member, epoch, reads)), &SETTINGS, topics)
}

/// As the next coordinator of the group finds it.
fn stored_and_read(group: &ShareGroup) -> ShareGroup {
    let (ops, _) = ops("g", group, &mut Parts::default());
    let nodes = ops.into_iter().map(|op| match op {
        Op::Put { path, data, .. } => {
            let node = Node {
                data,
                version: 0,
                ephemeral: false,
            };
            (path, node)
        }
        other => panic!("{other:?}"),
    });
    let stored = StoredId {
        id: "g".to_owned(),
        nodes: nodes.collect(),
    };
    let memory = GroupMemory::new(usize::MAX);
    let group = load(&stored, 45_000, &memory).unwrap().0;
    let less = MEMBER_OVERHEAD_BYTES * group.members.len();
    assert!(memory.taken() >= less, "members count");
    group
}

/// Initializes what is asked for.
fn initialize(group: &mut ShareGroup, reply: &ShareReply) {
    for one in &reply.to_initialize {
        group.initialized(one.topic_id, &[one.partition]);
    }
}

/// A member that has joined, and what it reads.
fn joined(group: &mut ShareGroup, topics: &Known, member: &str, reads: &[&str]) -> (i32, usize) {
    let reply = report(group, topics, member, 0, Some(reads)).unwrap();
    initialize(group, &reply);
    let reply = report(group, topics, member, reply.member_epoch, Some(reads)).unwrap();
    let assigned = reply.assignment.unwrap();
    let count = assigned.iter().map(|(_, partitions)| partitions.len());
    (reply.member_epoch, count.sum())
}

#[test]
fn partitions_are_assigned_once_they_are_initialized() {
    let topics = Known(vec![("t", 3)]);
    let mut group = ShareGroup::new();
    let reply = report(&mut group, &topics, "a", 0, Some(&["t", "nowhere"])).unwrap();
    assert_eq!(reply.assignment, Some(Vec::new()));
    let starts: Vec<(i32, i64)> = reply
        .to_initialize
        .iter()
        .map(|one| (one.partition, one.start))
        .collect();
    assert_eq!(starts, [(0, -1), (1, -1), (2, -1)]);
    let again = report(&mut group, &topics, "a", reply.member_epoch, None).unwrap();
    assert_eq!(again.to_initialize, [], "it is under way");
    assert_eq!(again.assignment, None);
    initialize(&mut group, &reply);
    let reply = report(&mut group, &topics, "a", again.member_epoch, None).unwrap();
    assert_eq!(reply.assignment, Some(vec![(id(0), vec![0, 1, 2])]));
    assert!(reply.member_epoch > again.member_epoch);
    let quiet = report(&mut group, &topics, "a", reply.member_epoch, None).unwrap();
    assert_eq!(
        (quiet.assignment, quiet.member_epoch),
        (None, reply.member_epoch)
    );
}

#[test]
fn partitions_that_a_topic_gets_later_are_read_from_their_beginning() {
    let topics = Known(vec![("t", 1)]);
    let mut group = ShareGroup::new();
    let (epoch, _) = joined(&mut group, &topics, "a", &["t"]);
    let more = Known(vec![("t", 2)]);
    let reply = report(&mut group, &more, "a", epoch, None).unwrap();
    let starts: Vec<(i32, i64)> = reply
        .to_initialize
        .iter()
        .map(|one| (one.partition, one.start))
        .collect();
    assert_eq!(starts, [(1, 0)]);
    group.not_initialized(id(0), &[1]);
    let again = report(&mut group, &more, "a", reply.member_epoch, None).unwrap();
    assert_eq!(again.to_initialize.len(), 1);
}

/// What is to be initialized: partition, where it begins, state epoch.
fn begun(reply: &ShareReply) -> Vec<(i32, i64, i32)> {
    let all = reply.to_initialize.iter();
    all.map(|one| (one.partition, one.start, one.state_epoch))
        .collect()
}

#[test]
fn what_could_not_be_initialized_begins_where_the_others_do_and_with_the_same_state_epoch() {
    let topics = Known(vec![("t", 2)]);
    let mut group = ShareGroup::new();
    let first = report(&mut group, &topics, "a", 0, Some(&["t"])).unwrap();
    let state_epoch = first.to_initialize[0].state_epoch;
    group.initialized(id(0), &[0]);
    // Nothing is heard of the other one: that it is, may be said late.
    let late = group.heartbeat(
        40_000,
        ("g", beat("a", first.member_epoch, None)),
        &SETTINGS,
        &topics,
    );
    assert_eq!(begun(&late.unwrap()), [(1, -1, state_epoch)]);
    group.not_initialized(id(0), &[1]);
    let mut read = stored_and_read(&group);
    let again = report(&mut read, &topics, "a", first.member_epoch, None).unwrap();
    assert_eq!(again.to_initialize[0].start, -1, "also after a restart");
}

#[test]
fn a_group_passes_the_state_epoch_that_an_earlier_one_of_its_name_left() {
    let topics = Known(vec![("t", 1)]);
    let mut group = ShareGroup::new();
    let first = report(&mut group, &topics, "a", 0, Some(&["t"])).unwrap();
    group.passes(77);
    group.not_initialized(id(0), &[0]);
    let again = report(&mut group, &topics, "a", first.member_epoch, None).unwrap();
    assert_eq!(begun(&again), [(0, -1, 78)]);
    let epoch = group.epoch;
    group.passes(70);
    assert_eq!(group.epoch, epoch, "it has set that one itself");
}

#[test]
fn nobody_is_assigned_a_partition_whose_offset_is_being_set() {
    let topics = Known(vec![("t", 2)]);
    let mut group = ShareGroup::new();
    joined(&mut group, &topics, "a", &["t"]);
    report(&mut group, &topics, "a", -1, None).unwrap();
    let before = group.epoch;
    assert!(group.alter(0, &[(id(0), vec![1])]) > before);
    let (epoch, count) = joined(&mut group, &topics, "b", &["t"]);
    assert_eq!(count, 1);
    group.initialized(id(0), &[1]);
    let reply = report(&mut group, &topics, "b", epoch, None).unwrap();
    assert_eq!(reply.assignment, Some(vec![(id(0), vec![0, 1])]));
    // The same where it could not be set.
    report(&mut group, &topics, "b", -1, None).unwrap();
    group.alter(0, &[(id(0), vec![1])]);
    let (epoch, _) = joined(&mut group, &topics, "c", &["t"]);
    group.not_initialized(id(0), &[1]);
    let reply = report(&mut group, &topics, "c", epoch, None).unwrap();
    assert_eq!(reply.assignment, Some(vec![(id(0), vec![0, 1])]));
    assert_eq!(begun(&reply), []);
}

#[test]
fn what_is_to_be_deleted_is_remembered_and_begins_anew_with_a_later_state_epoch() {
    let topics = Known(vec![("t", 2), ("u", 1)]);
    let mut group = ShareGroup::new();
    joined(&mut group, &topics, "a", &["t", "u"]);
    report(&mut group, &topics, "a", -1, None).unwrap();
    let known = group.delete(Some(&[id(0), id(7)]));
    assert_eq!(known.topics, [(id(0), vec![0, 1])]);
    assert_eq!(group.initialized_partitions(), [(id(1), vec![0])]);
    let mut read = stored_and_read(&group);
    let all = read.delete(None);
    assert_eq!(all.topics, [(id(0), vec![0, 1]), (id(1), vec![0])]);
    assert!(all.state_epoch > known.state_epoch);
    let joins = report(&mut read, &topics, "a", 0, Some(&["t"])).unwrap();
    let mut begun = begun(&joins).into_iter();
    assert!(begun.all(|(_, start, state_epoch)| start == -1 && state_epoch > all.state_epoch));
    read.deleted(id(1));
    let left = stored_and_read(&read);
    assert_eq!(left.shares.keys().collect::<Vec<_>>(), [&id(0)]);
}

#[test]
fn targets_are_made_at_most_once_an_interval_and_members_report_when_it_is_over() {
    let topics = Known(vec![("t", 2)]);
    let settings = ShareGroupSettings {
        assignment_interval_ms: 1000,
        ..SETTINGS
    };
    let mut group = ShareGroup::new();
    let report = |group: &mut ShareGroup, now_ms, member: &str, epoch, reads| {
        let beat = ("g", beat(member, epoch, reads));
        group.heartbeat(now_ms, beat, &settings, &topics).unwrap()
    };
    let first = report(&mut group, 0, "a", 0, Some(&["t"][..]));
    initialize(&mut group, &first);
    let a = report(&mut group, 10, "a", first.member_epoch, None);
    assert_eq!(a.assignment.unwrap()[0].1, [0, 1], "with the first answer");
    let b = report(&mut group, 300, "b", 0, Some(&["t"][..]));
    assert_eq!(
        (b.assignment, b.heartbeat_interval_ms),
        (Some(Vec::new()), 710)
    );
    let b = report(&mut group, 1010, "b", b.member_epoch, None);
    assert_eq!(b.assignment.unwrap()[0].1.len(), 1);
    assert_eq!(b.heartbeat_interval_ms, 5000);
}

#[test]
fn a_heartbeat_that_changes_nothing_looks_at_no_topic_and_at_no_partition() {
    let topics = Known(vec![("t", 2)]);
    let mut group = ShareGroup::new();
    let (epoch, _) = joined(&mut group, &topics, "a", &["t"]);
    // They would be found if they were looked at.
    let unchanged = Known(vec![("nothing", 2)]);
    group.shares.clear();
    let quiet = report(&mut group, &unchanged, "a", epoch, None).unwrap();
    assert_eq!((quiet.member_epoch, begun(&quiet)), (epoch, vec![]));
    let more = Known(vec![("t", 3)]);
    let looks = report(&mut group, &more, "a", epoch, None).unwrap();
    assert_eq!(begun(&looks).len(), 3);
}

#[test]
fn a_heartbeat_that_changes_nothing_is_not_stored() {
    let topics = Known(vec![("t", 2)]);
    let mut group = ShareGroup::new();
    let (epoch, count) = joined(&mut group, &topics, "a", &["t"]);
    assert_eq!(count, 2);
    assert!(group.is_unstored());
    group.set_unstored(false);
    let change = group.change();
    assert!(report(&mut group, &topics, "a", epoch, None).is_ok());
    assert!(report(&mut group, &topics, "a", epoch, Some(&["t"])).is_ok());
    assert!(!group.is_unstored());
    assert_eq!(group.change(), change);
    assert!(report(&mut group, &topics, "a", epoch, Some(&["u"])).is_ok());
    assert!(group.is_unstored());
}

#[test]
fn members_share_partitions_and_those_that_go_leave_them_to_others() {
    let topics = Known(vec![("t", 2)]);
    let mut group = ShareGroup::new();
    let (a, _) = joined(&mut group, &topics, "a", &["t"]);
    let (_, count) = joined(&mut group, &topics, "b", &["t"]);
    assert_eq!(count, 1);
    let reply = report(&mut group, &topics, "a", a, None).unwrap();
    assert_eq!(reply.assignment.unwrap()[0].1.len(), 1);
    let (_, count) = joined(&mut group, &topics, "c", &["t"]);
    assert_eq!(count, 1, "shared with another one");
    let left = report(&mut group, &topics, "b", -1, None).unwrap();
    assert_eq!(left.member_epoch, -1);
    assert_eq!(group.tick(44_999), [""; 0]);
    assert_eq!(group.next_deadline(), Some(45_000));
    assert_eq!(group.tick(45_000), ["a", "c"]);
    assert_eq!(group.state(), "Empty");
    assert_eq!(group.take_told().len(), 3);
}

#[test]
fn a_member_that_is_not_what_it_says_is_refused() {
    let topics = Known(vec![("t", 1)]);
    let mut group = ShareGroup::new();
    let error = |reply: Result<ShareReply, Refusal>| reply.unwrap_err().error;
    let unknown = error(report(&mut group, &topics, "a", 1, None));
    assert_eq!(unknown, GroupError::UnknownMemberId);
    assert_eq!(error(report(&mut group, &topics, "a", -1, None)), unknown);
    let first = report(&mut group, &topics, "a", 0, Some(&["t"])).unwrap();
    initialize(&mut group, &first);
    let second = report(&mut group, &topics, "a", first.member_epoch, None).unwrap();
    assert!(second.member_epoch > first.member_epoch);
    // The answer may have been lost.
    assert!(report(&mut group, &topics, "a", first.member_epoch, None).is_ok());
    let (_, _) = joined(&mut group, &topics, "b", &["t"]);
    let third = report(&mut group, &topics, "a", second.member_epoch, None).unwrap();
    assert!(third.member_epoch > second.member_epoch);
    let old = error(report(&mut group, &topics, "a", first.member_epoch, None));
    assert_eq!(old, GroupError::FencedMemberEpoch);
    let ahead = error(report(
        &mut group,
        &topics,
        "a",
        third.member_epoch + 1,
        None,
    ));
    assert_eq!(ahead, GroupError::FencedMemberEpoch);
    for member in ["c", "d"] {
        joined(&mut group, &topics, member, &["t"]);
    }
    let full = error(report(&mut group, &topics, "e", 0, Some(&["t"])));
    assert_eq!(full, GroupError::GroupMaxSizeReached);
    assert!(report(&mut group, &topics, "a", 0, Some(&["t"])).is_ok());
}

#[test]
fn a_coordinator_goes_on_with_what_is_stored_and_believes_members() {
    let topics = Known(vec![("t", 4), ("u", 1)]);
    let mut group = ShareGroup::new();
    let (a, _) = joined(&mut group, &topics, "a", &["t"]);
    joined(&mut group, &topics, "b", &["t", "u"]);
    let mut read = stored_and_read(&group);
    assert_eq!(
        (read.epoch, read.assignment_epoch),
        (group.epoch, group.assignment_epoch)
    );
    assert_eq!(
        read.initialized_partitions(),
        group.initialized_partitions()
    );
    assert_eq!(read.members.len(), 2);
    // It was told of its epoch by the coordinator before.
    let reply = report(&mut read, &topics, "a", a, None).unwrap();
    assert!(reply.to_initialize.is_empty());
    assert!(reply.member_epoch >= a);
    let known = report(&mut read, &topics, "a", reply.member_epoch, None).unwrap();
    assert_eq!(known.assignment, None);
}
