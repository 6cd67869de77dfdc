//! Broadcast groups: each member stands alone.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::group::messages::{
    GroupDescription, Heartbeat, JoinRequest, LeaveMember, SyncRequest, TransactionalCommit,
};
use crate::group::testing::{FixedSettings, settings};
use crate::group::{ConsumerSettings, ShareGroupSettings};

/// What an assignor of a client's gives: one topic, `t`, with partitions 0 and 1.
const ALL: &[u8] = b"\0\0\0\0\0\x01\0\x01t\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0";
/// Reads `t`.
const READS_T: &[u8] = b"\0\0\0\0\0\x01\0\x01t\0\0\0\0";
pub(super) const SESSION_MS: i64 = 10_000;

pub(super) struct Mode(pub(super) AtomicBool);

impl GroupSettings for Mode {
    fn consumer(&self, group_id: &str) -> Arc<ConsumerSettings> {
        FixedSettings(settings()).consumer(group_id)
    }

    fn streams(&self, group_id: &str) -> crate::group::streams::StreamsSettings {
        FixedSettings(settings()).streams(group_id)
    }

    fn share(&self, group_id: &str) -> ShareGroupSettings {
        FixedSettings(settings()).share(group_id)
    }

    fn is_broadcast(&self, _: &str) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

pub(super) fn bench() -> (Bench, Arc<Mode>) {
    let mode = Arc::new(Mode(AtomicBool::new(true)));
    (Bench::with(1 << 20, mode.clone()), mode)
}

/// How a member calls itself, and the connection that it has.
#[derive(Clone, Copy)]
pub(super) struct Name {
    client_id: &'static str,
    instance: Option<&'static str>,
    connection: u64,
}

pub(super) fn named(
    client_id: &'static str,
    instance: Option<&'static str>,
    connection: u64,
) -> Name {
    Name {
        client_id,
        instance,
        connection,
    }
}

/// A member of a generation.
pub(super) struct Joined {
    id: String,
    name: Name,
    generation: i32,
}

impl Bench {
    fn try_join(&mut self, name: Name, member_id: &str) -> Result<JoinReply, GroupError> {
        let request = JoinRequest {
            member_id: member_id.to_owned(),
            instance_id: name.instance.map(str::to_owned),
            client_id: name.client_id.to_owned(),
            client_host: "/h".to_owned(),
            session_timeout_ms: SESSION_MS as i32,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(READS_T))],
            member_id_required: true,
            can_skip_assignment: false,
            reason: String::new(),
            connection: Some(name.connection),
            reserved: None,
        };
        let answer = self.ask(|answer| Ask::Join(Box::new(request), answer));
        self.store(Ok(()));
        answer.blocking_recv().expect("nobody is waited for")
    }

    /// A member that joins, by its own choice alone in its generation, and takes everything.
    pub(super) fn join(&mut self, name: Name) -> Joined {
        let mut reply = self.try_join(name, "").unwrap();
        if reply.generation < 0 {
            reply = self.try_join(name, &reply.member_id).unwrap();
        }
        assert_eq!(reply.leader, reply.member_id);
        assert_eq!(reply.members.len(), 1);
        let sync = SyncRequest {
            member_id: reply.member_id.clone(),
            instance_id: name.instance.map(str::to_owned),
            generation: reply.generation,
            protocol_type: None,
            protocol: None,
            assignments: BTreeMap::from([(reply.member_id.clone(), Bytes::from_static(ALL))]),
            reserved: None,
        };
        let synced = self.ask(|answer| Ask::Sync(sync, answer));
        self.store(Ok(()));
        assert_eq!(synced.blocking_recv().unwrap().unwrap().assignment, ALL);
        Joined {
            id: reply.member_id,
            name,
            generation: reply.generation,
        }
    }

    pub(super) fn beat(&mut self, member: &Joined) -> Result<(), GroupError> {
        let beat = Heartbeat {
            member_id: member.id.clone(),
            instance_id: member.name.instance.map(str::to_owned),
            generation: member.generation,
        };
        let answer = self.ask(|answer| Ask::Heartbeat(beat, answer));
        self.store(Ok(()));
        answer.blocking_recv().unwrap()
    }

    pub(super) fn commit_of(&mut self, member: &Joined, offset: i64) -> Result<(), GroupError> {
        let commit = CommitOffsets {
            version: 9,
            member_id: member.id.clone(),
            instance_id: member.name.instance.map(str::to_owned),
            generation: member.generation,
            retention_ms: None,
            offsets: vec![OffsetToCommit {
                topic: "t".to_owned(),
                partition: 0,
                offset,
                leader_epoch: -1,
                metadata: String::new(),
            }],
        };
        let answer = self.ask(|answer| Ask::Commit(commit, answer));
        self.store(Ok(()));
        answer.blocking_recv().unwrap()[0]
    }

    /// The offset of partition 0 for who asks by a connection under a client id; -1 where there is none.
    pub(super) fn offset_for(&mut self, member: AskingMember) -> i64 {
        let wanted = OffsetsQuery {
            keys: Some(vec![("t".to_owned(), 0)]),
            stable: true,
            member,
        };
        let found = self.ask(|answer| Ask::FetchOffsets(wanted, answer));
        let found = found.blocking_recv().unwrap().unwrap();
        let offset = found.offsets[0].1.as_ref().unwrap().as_ref();
        offset.map_or(-1, |offset| offset.offset)
    }

    fn own_offset(&mut self, name: Name) -> i64 {
        self.offset_for(AskingMember {
            by: Some((name.connection, name.client_id.to_owned())),
            ..AskingMember::NOBODY
        })
    }

    pub(super) fn leave(&mut self, member: &Joined) {
        let leaving = LeaveMember {
            member_id: member.id.clone(),
            instance_id: member.name.instance.map(str::to_owned),
            reason: String::new(),
        };
        let left = self.ask(|answer| Ask::Leave(vec![leaving], answer));
        assert_eq!(left.blocking_recv(), Ok(vec![Ok(())]));
        self.store(Ok(()));
    }

    fn described(&mut self) -> GroupDescription {
        match self.ask(Ask::Describe).blocking_recv().unwrap() {
            Some(Described::Classic(group)) => group,
            other => panic!("{other:?}"),
        }
    }

    fn listed(&mut self) -> Vec<(String, &'static str)> {
        let (answer, listed) = Answer::new();
        self.groups.handle_all(self.now_ms, AskAll::List(answer));
        let listed = listed.blocking_recv().unwrap().into_iter();
        listed.map(|group| (group.group_id, group.state)).collect()
    }
}

#[test]
fn members_join_and_leave_without_disturbing_each_other() {
    let (mut bench, _) = bench();
    let first = bench.join(named("a", None, 1));
    let others = [
        named("a", None, 2),
        named("b", None, 3),
        named("c", Some("i"), 4),
    ];
    let others = others.map(|name| bench.join(name));
    for member in others.iter().chain([&first]) {
        assert_eq!(bench.beat(member), Ok(()));
    }
    let described = bench.described();
    assert_eq!(
        (described.state, &*described.protocol),
        ("Stable", "broadcast")
    );
    assert_eq!(described.members.len(), 4);
    assert!(
        described
            .members
            .iter()
            .all(|member| member.assignment == ALL)
    );
    assert_eq!(bench.listed(), [("g".to_owned(), "Stable")]);
    bench.leave(&first);
    assert_eq!(bench.beat(&first), Err(GroupError::UnknownMemberId));
    for member in &others {
        assert_eq!(bench.beat(member), Ok(()));
    }
    assert_eq!(bench.described().members.len(), 3);
    // One that is silent goes alone too.
    bench.now_ms += SESSION_MS - 1;
    assert_eq!(bench.beat(&others[0]), Ok(()));
    bench.now_ms += 2;
    bench.groups.tick(bench.now_ms);
    bench.store(Ok(()));
    assert_eq!(bench.described().members.len(), 1);
    assert_eq!(bench.beat(&others[0]), Ok(()));
}

#[test]
fn offsets_are_those_of_the_instance_id_or_else_of_the_client_id() {
    let (mut bench, _) = bench();
    let names = [
        named("a", None, 1),
        named("a", None, 2),
        named("b", None, 3),
        named("b", Some("i"), 4),
        named("b", Some("j"), 5),
        named("", None, 6),
        named("", None, 7),
    ];
    let members = names.map(|name| bench.join(name));
    for (member, offset) in members.iter().zip([10, 11, 20, 30, 40, 50, 60]) {
        assert_eq!(bench.own_offset(member.name).max(0) % 10, 0);
        assert_eq!(bench.commit_of(member, offset), Ok(()));
    }
    let own = names.map(|name| bench.own_offset(name));
    assert_eq!(own, [11, 11, 20, 30, 40, 50, 60]);
    // By its id a member is told whatever connection asks.
    let by_id = AskingMember {
        id: Some(members[4].id.clone()),
        ..AskingMember::NOBODY
    };
    assert_eq!(bench.offset_for(by_id), 40);
    // By the client id alone, where it says enough; otherwise the slowest member's.
    assert_eq!(bench.own_offset(named("a", None, 99)), 11);
    assert_eq!(bench.own_offset(named("b", None, 99)), 11);
    assert_eq!(bench.offset_for(AskingMember::NOBODY), 11);
    assert_eq!(bench.offsets(), Some(vec![(0, 11)]));
    // Those of nobody's name go with the member, the others stay.
    for member in &members {
        bench.leave(member);
    }
    bench.reload();
    let members = names.map(|name| bench.join(name));
    let own = names.map(|name| bench.own_offset(name));
    assert_eq!(own, [11, 11, 20, 30, 40, -1, -1]);
    assert_eq!(bench.commit_of(&members[0], 100), Ok(()));
    assert_eq!(bench.offset_for(AskingMember::NOBODY), 20);
}

#[test]
fn members_are_known_to_the_slots_next_owner() {
    let (mut bench, _) = bench();
    let members = [named("a", None, 1), named("b", Some("i"), 2)].map(|name| bench.join(name));
    assert_eq!(bench.commit_of(&members[1], 5), Ok(()));
    bench.reload();
    for member in &members {
        assert_eq!(bench.beat(member), Ok(()));
    }
    assert_eq!(bench.own_offset(named("b", Some("i"), 99)), 5);
    assert_eq!(bench.listed(), [("g".to_owned(), "Stable")]);
}

#[test]
fn a_static_member_that_is_back_leads_again_and_fences_who_was_there() {
    let (mut bench, _) = bench();
    let before = bench.join(named("a", Some("i"), 1));
    let after = bench.join(named("a", Some("i"), 2));
    assert_eq!(bench.beat(&before), Err(GroupError::FencedInstanceId));
    assert_eq!(
        bench.commit_of(&before, 7),
        Err(GroupError::FencedInstanceId)
    );
    assert_eq!(bench.beat(&after), Ok(()));
    assert_eq!(bench.described().members.len(), 1);
}

#[test]
fn a_member_of_an_old_generation_commits_nothing() {
    let (mut bench, _) = bench();
    let mut member = bench.join(named("a", None, 1));
    member.generation += 1;
    assert_eq!(
        bench.commit_of(&member, 7),
        Err(GroupError::IllegalGeneration)
    );
    member.id.push('x');
    assert_eq!(
        bench.commit_of(&member, 7),
        Err(GroupError::UnknownMemberId)
    );
    assert_eq!(bench.own_offset(named("a", None, 1)), -1);
}

#[test]
fn the_mode_changes_when_the_group_is_empty() {
    let (mut bench, mode) = bench();
    mode.0.store(false, Ordering::SeqCst);
    let together = bench.try_join(named("a", Some("i"), 1), "").unwrap();
    assert_eq!(together.generation, 1);
    mode.0.store(true, Ordering::SeqCst);
    // The others are waited for: it is one group still.
    let waits = bench.try_join_later(named("b", Some("j"), 2));
    assert!(waits.is_some(), "joins the ordinary group");
    // Both are silent, and out.
    for _ in 0..2 {
        bench.now_ms += 10 * SESSION_MS;
        bench.groups.tick(bench.now_ms);
        bench.store(Ok(()));
    }
    let alone = bench.join(named("a", None, 1));
    mode.0.store(false, Ordering::SeqCst);
    let other = bench.join(named("b", None, 2));
    assert_eq!((bench.beat(&alone), bench.beat(&other)), (Ok(()), Ok(())));
    bench.leave(&alone);
    bench.leave(&other);
    let first = bench.join(named("a", None, 1));
    assert_eq!(bench.described().protocol, "range");
    assert_eq!(bench.beat(&first), Ok(()));
}

impl Bench {
    /// A join that is not answered at once.
    fn try_join_later(
        &mut self,
        name: Name,
    ) -> Option<oneshot::Receiver<Result<JoinReply, GroupError>>> {
        let request = JoinRequest {
            member_id: String::new(),
            instance_id: name.instance.map(str::to_owned),
            client_id: name.client_id.to_owned(),
            client_host: "/h".to_owned(),
            session_timeout_ms: SESSION_MS as i32,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(READS_T))],
            member_id_required: false,
            can_skip_assignment: false,
            reason: String::new(),
            connection: None,
            reserved: None,
        };
        let mut answer = self.ask(|answer| Ask::Join(Box::new(request), answer));
        self.store(Ok(()));
        answer.try_recv().is_err().then_some(answer)
    }
}

#[test]
fn offsets_from_outside_are_those_of_every_member() {
    let (mut bench, _) = bench();
    let names = [named("a", None, 1), named("b", Some("i"), 2)];
    let members = names.map(|name| bench.join(name));
    for (member, offset) in members.iter().zip([10, 20]) {
        assert_eq!(bench.commit_of(member, offset), Ok(()));
    }
    let refused = bench.commit(0, 3);
    let unknown = vec![Err(GroupError::UnknownMemberId)];
    assert_eq!(refused.blocking_recv(), Ok(unknown));
    members.iter().for_each(|member| bench.leave(member));
    let set = bench.commit(0, 3);
    bench.store(Ok(()));
    assert_eq!(set.blocking_recv(), Ok(vec![Ok(())]));
    for name in names {
        bench.join(name);
        assert_eq!(bench.own_offset(name), 3);
    }
}

#[test]
fn a_broadcast_group_is_deleted_with_all_that_is_of_it() {
    let (mut bench, _) = bench();
    let member = bench.join(named("a", None, 1));
    assert_eq!(bench.commit_of(&member, 10), Ok(()));
    let refused = bench.ask(Ask::Delete);
    assert_eq!(refused.blocking_recv(), Ok(Err(GroupError::NonEmptyGroup)));
    bench.leave(&member);
    let read = bench.ask(|answer| Ask::DeleteOffsets(vec![("t".to_owned(), 0)], answer));
    bench.store(Ok(()));
    assert_eq!(read.blocking_recv(), Ok(Ok(vec![Ok(())])));
    assert_eq!(bench.offset_for(AskingMember::NOBODY), -1);
    let deleted = bench.ask(Ask::Delete);
    bench.store(Ok(()));
    assert_eq!(deleted.blocking_recv(), Ok(Ok(())));
    assert!(!bench.exists() && bench.listed().is_empty());
    assert!(bench.tree.is_empty(), "{:?}", bench.tree);
}

#[test]
fn a_deletion_of_offsets_waits_for_the_marker_of_a_transaction_that_has_some() {
    let (mut bench, _) = bench();
    let member = bench.join(named("a", None, 1));
    assert_eq!(bench.commit_of(&member, 10), Ok(()));
    let (producer_id, producer_epoch) = (7, 0);
    let verify = |answer| Ask::VerifyTransaction {
        producer_id,
        producer_epoch,
        answer,
    };
    let commit = TransactionalCommit {
        producer_id,
        producer_epoch,
        guard: bench.ask(verify).blocking_recv().unwrap().unwrap(),
        member_id: member.id.clone(),
        instance_id: None,
        generation: member.generation,
        offsets: vec![OffsetToCommit {
            topic: "t".to_owned(),
            partition: 0,
            offset: 15,
            leader_epoch: -1,
            metadata: String::new(),
        }],
    };
    let added = bench.ask(|answer| Ask::CommitTransactional(commit, answer));
    bench.store(Ok(()));
    assert_eq!(added.blocking_recv(), Ok(vec![Ok(())]));
    bench.leave(&member);
    let (answer, ended) = Answer::new();
    let end = TransactionEnd {
        producer_id,
        producer_epoch,
        coordinator_epoch: 1,
        is_commit: true,
        bumps_epoch: false,
    };
    let end = AskAll::EndTransaction(end, answer);
    bench.groups.handle_all(bench.now_ms, end);
    let keys = vec![("t".to_owned(), 0)];
    let mut deleted = bench.ask(|answer| Ask::DeleteOffsets(keys, answer));
    assert_eq!(bench.store(Ok(())), 1, "the deletion waits");
    assert_eq!(ended.blocking_recv(), Ok(Ok(())));
    assert!(deleted.try_recv().is_err());
    assert_eq!(bench.offset_for(AskingMember::NOBODY), 15);
    bench.store(Ok(()));
    assert_eq!(deleted.blocking_recv(), Ok(Ok(vec![Ok(())])));
    assert_eq!(bench.offset_for(AskingMember::NOBODY), -1);
}

#[test]
fn offsets_expire_when_nobody_of_their_name_is_there() {
    let (mut bench, _) = bench();
    let member = bench.join(named("a", None, 1));
    assert_eq!(bench.commit_of(&member, 10), Ok(()));
    for _ in 0..(2 * RETENTION_MS / SESSION_MS) {
        bench.now_ms += SESSION_MS - 1;
        assert_eq!(bench.beat(&member), Ok(()));
        bench.groups.tick(bench.now_ms);
        bench.store(Ok(()));
    }
    assert_eq!(bench.own_offset(member.name), 10);
    bench.leave(&member);
    bench.now_ms += RETENTION_MS - 2 * CHECK_INTERVAL_MS;
    bench.groups.tick(bench.now_ms);
    bench.store(Ok(()));
    assert_eq!(bench.offset_for(AskingMember::NOBODY), 10);
    bench.expire();
    bench.store(Ok(()));
    assert!(!bench.exists());
    assert!(bench.tree.is_empty(), "{:?}", bench.tree);
}

#[test]
fn a_member_whose_end_cannot_be_stored_is_gone_all_the_same_and_it_is_tried_again() {
    let (mut bench, _) = bench();
    let member = bench.join(named("a", None, 1));
    let leaving = LeaveMember {
        member_id: member.id.clone(),
        instance_id: None,
        reason: String::new(),
    };
    let left = bench.ask(|answer| Ask::Leave(vec![leaving], answer));
    bench.store(REFUSED);
    assert_eq!(left.blocking_recv(), Ok(vec![Ok(())]));
    assert_eq!(bench.beat(&member), Err(GroupError::UnknownMemberId));
    assert!(!bench.tree.is_empty());
    bench.now_ms += 10_000;
    bench.groups.tick(bench.now_ms);
    bench.store(Ok(()));
    assert!(bench.tree.is_empty() && bench.listed().is_empty());
}
