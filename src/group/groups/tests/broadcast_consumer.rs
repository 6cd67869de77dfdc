//! Broadcast groups with members that speak KIP-848: each stands alone, with an epoch of its own.

use super::broadcast::{Joined, SESSION_MS, bench, named};
use super::*;
use crate::group::consumer::{ConsumerGroupDescription, ConsumerHeartbeat, ConsumerReply};
use crate::group::messages::{LeaveMember, Refusal};

/// A member of the new protocol.
#[derive(Clone, Copy)]
struct Who {
    id: &'static str,
    client_id: &'static str,
    instance: Option<&'static str>,
}

const A: Who = who("m-a", "a", None);
const ALSO_A: Who = who("m-b", "a", None);
const STATIC: Who = who("m-i", "a", Some("i"));
const NAMELESS: Who = who("m-n", "", None);

const fn who(id: &'static str, client_id: &'static str, instance: Option<&'static str>) -> Who {
    Who {
        id,
        client_id,
        instance,
    }
}

fn connection_of(who: Who) -> u64 {
    u64::from(*who.id.as_bytes().last().unwrap())
}

impl Bench {
    fn says(
        &mut self,
        who: Who,
        epoch: i32,
        regex: Option<&str>,
    ) -> Result<ConsumerReply, Refusal> {
        let joins = epoch == 0;
        let beat = ConsumerHeartbeat {
            member_id: who.id.to_owned(),
            member_epoch: epoch,
            instance_id: who.instance.map(str::to_owned),
            rebalance_timeout_ms: joins.then_some(60_000),
            topics: (joins && regex.is_none()).then(|| vec!["t".to_owned()]),
            regex: regex.map(str::to_owned),
            owned: joins.then(Vec::new),
            client_id: who.client_id.to_owned(),
            client_host: "/h".to_owned(),
            connection: Some(connection_of(who)),
            ..ConsumerHeartbeat::default()
        };
        let answer = self.ask(|answer| Ask::ConsumerHeartbeat(Box::new(beat), answer));
        self.store_all();
        answer.blocking_recv().expect("nobody is waited for")
    }

    fn store_all(&mut self) {
        while self.store(Ok(())) > 0 {}
    }

    /// A member that joins, and is given everything at once; its epoch.
    fn comes(&mut self, who: Who) -> i32 {
        let reply = self.says(who, 0, None).unwrap();
        let assigned = reply.assignment.unwrap();
        assert_eq!(assigned.len(), 1);
        assert_eq!(assigned[0].1, [0, 1, 2, 3]);
        assert_eq!(reply.member_id, who.id);
        reply.member_epoch
    }

    fn commits(&mut self, who: Who, epoch: i32, offset: i64) -> Result<(), GroupError> {
        let commit = CommitOffsets {
            version: 9,
            member_id: who.id.to_owned(),
            instance_id: who.instance.map(str::to_owned),
            generation: epoch,
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
        self.store_all();
        answer.blocking_recv().unwrap()[0]
    }

    /// The offset of partition 0 for a member in an epoch; -1 where there is none.
    fn offset_of(&mut self, who: Who, epoch: i32) -> Result<i64, GroupError> {
        let wanted = OffsetsQuery {
            keys: Some(vec![("t".to_owned(), 0)]),
            stable: true,
            member: AskingMember {
                id: Some(who.id.to_owned()),
                epoch,
                by: None,
            },
        };
        let found = self.ask(|answer| Ask::FetchOffsets(wanted, answer));
        let found = found.blocking_recv().unwrap()?;
        let offset = found.offsets[0].1.as_ref().unwrap().as_ref();
        Ok(offset.map_or(-1, |offset| offset.offset))
    }

    fn seen(&mut self) -> ConsumerGroupDescription {
        match self.ask(Ask::Describe).blocking_recv().unwrap() {
            Some(Described::Consumer(group)) => group,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn each_member_is_given_everything_at_once_and_nobody_else_notices() {
    let (mut bench, _) = bench();
    let all = [A, ALSO_A, STATIC, NAMELESS];
    let epochs = all.map(|who| bench.comes(who));
    for (who, epoch) in all.into_iter().zip(epochs) {
        let reply = bench.says(who, epoch, None).unwrap();
        assert_eq!((reply.member_epoch, reply.assignment), (epoch, None));
    }
    let seen = bench.seen();
    assert_eq!((seen.state, seen.assignor), ("Stable", "broadcast"));
    assert_eq!(seen.members.len(), 4);
    for member in &seen.members {
        assert_eq!(member.assigned[0].2, [0, 1, 2, 3]);
        assert!(member.waits_for.is_empty() && !member.is_classic);
    }
    // One leaves, one is silent: the others read on in their epochs.
    assert_eq!(bench.says(ALSO_A, -1, None).unwrap().member_epoch, -1);
    let gone = bench.says(ALSO_A, epochs[1], None).unwrap_err();
    assert_eq!(gone.error, GroupError::UnknownMemberId);
    assert!(!gone.message.contains('\0'), "{}", gone.message);
    bench.now_ms += 44_000;
    for n in [0, 2] {
        assert_eq!(
            bench.says(all[n], epochs[n], None).unwrap().member_epoch,
            epochs[n]
        );
    }
    bench.now_ms += 2_000;
    bench.groups.tick(bench.now_ms);
    bench.store_all();
    assert_eq!(bench.seen().members.len(), 2);
    // Nothing is left of those that are gone.
    let of_members = bench
        .tree
        .keys()
        .filter(|path| path.contains("broadcast/members/"));
    assert!(of_members.clone().all(|path| path.contains("m-a")));
    assert!(of_members.count() > 0);
}

#[test]
fn a_regular_expression_is_given_what_it_matches() {
    let (mut bench, _) = bench();
    let reply = bench.says(A, 0, Some("t|u")).unwrap();
    assert_eq!(reply.assignment.unwrap()[0].1, [0, 1, 2, 3]);
    let invalid = bench.says(ALSO_A, 0, Some("(")).unwrap_err();
    assert_eq!(invalid.error, GroupError::InvalidRegularExpression);
    assert_eq!(
        bench.seen().members.len(),
        1,
        "nothing is left of who was refused"
    );
    let nothing = bench.says(ALSO_A, 0, Some("u")).unwrap();
    assert_eq!(nothing.assignment, Some(Vec::new()));
}

#[test]
fn offsets_are_those_of_the_instance_id_or_else_of_the_client_id_in_the_members_epoch() {
    let (mut bench, _) = bench();
    let all = [A, ALSO_A, STATIC, NAMELESS];
    let epochs = all.map(|who| bench.comes(who));
    for ((who, epoch), offset) in all.into_iter().zip(epochs).zip([10, 11, 20, 30]) {
        assert_eq!(bench.commits(who, epoch, offset), Ok(()));
        assert_eq!(bench.offset_of(who, epoch), Ok(offset));
    }
    assert_eq!(bench.offset_of(A, epochs[0]), Ok(11));
    // As librdkafka fetches, which does not say its id: by the connection that its heartbeats come by.
    for (who, offset) in all.into_iter().zip([11, 11, 20, 30]) {
        let by = Some((connection_of(who), "a".to_owned()));
        let asking = AskingMember {
            by,
            ..AskingMember::NOBODY
        };
        assert_eq!(bench.offset_for(asking), offset);
    }
    // In another epoch neither, and not as a member that is none.
    for n in 0..4 {
        let stale = Err(GroupError::StaleMemberEpoch);
        assert_eq!(bench.commits(all[n], epochs[n] + 1, 99), stale);
        assert_eq!(
            bench.offset_of(all[n], epochs[n] + 1),
            Err(GroupError::StaleMemberEpoch)
        );
    }
    let nobody = who("nobody", "a", None);
    assert_eq!(bench.offset_of(nobody, 2), Err(GroupError::UnknownMemberId));
    assert_eq!(bench.offset_of(nobody, -1), Ok(11));
    assert_eq!(
        bench.commits(nobody, 2, 99),
        Err(GroupError::UnknownMemberId)
    );
    // Who names a member without an epoch looks from outside; anybody else sees the slowest one's.
    assert_eq!(bench.offset_of(STATIC, -1), Ok(20));
    assert_eq!(bench.offsets(), Some(vec![(0, 11)]));
    // They outlive the members, but for one that has no name; and the slot's owner.
    for who in [A, ALSO_A, NAMELESS] {
        bench.says(who, -1, None).unwrap();
    }
    bench.reload();
    assert_eq!(
        bench.says(STATIC, epochs[2], None).unwrap().member_epoch,
        epochs[2]
    );
    let back = [who("m-c", "a", None), who("m-d", "", None)];
    let epochs = back.map(|who| bench.comes(who));
    assert_eq!(bench.offset_of(back[0], epochs[0]), Ok(11));
    assert_eq!(bench.offset_of(back[1], epochs[1]), Ok(-1));
}

#[test]
fn a_static_member_keeps_its_place_while_it_is_away_and_is_not_replaced_while_it_is_there() {
    let (mut bench, _) = bench();
    let epoch = bench.comes(STATIC);
    assert_eq!(bench.commits(STATIC, epoch, 7), Ok(()));
    // As librdkafka beats, which says its instance id only when it joins.
    let briefly = who(STATIC.id, "a", None);
    let reply = bench.says(briefly, epoch, None).unwrap();
    assert_eq!(reply.member_epoch, epoch);
    let second = who("m-j", "a", Some("i"));
    let refused = bench.says(second, 0, None).unwrap_err();
    assert_eq!(refused.error, GroupError::UnreleasedInstanceId);
    assert_eq!(bench.says(STATIC, -2, None).unwrap().member_epoch, -2);
    let epoch = bench.comes(second);
    assert_eq!(bench.offset_of(second, epoch), Ok(7));
    // An operator removes it.
    let leaving = LeaveMember {
        member_id: String::new(),
        instance_id: Some("i".to_owned()),
        reason: String::new(),
    };
    let left = bench.ask(|answer| Ask::Leave(vec![leaving], answer));
    bench.store_all();
    assert_eq!(left.blocking_recv(), Ok(vec![Ok(())]));
    let gone = bench.says(second, epoch, None).unwrap_err();
    assert_eq!(gone.error, GroupError::UnknownMemberId);
}

#[test]
fn members_of_both_protocols_stand_side_by_side_with_the_offsets_of_their_names() {
    let (mut bench, _) = bench();
    let classic: Joined = bench.join(named("a", None, 1));
    assert_eq!(bench.commit_of(&classic, 5), Ok(()));
    let epoch = bench.comes(A);
    assert_eq!(bench.offset_of(A, epoch), Ok(5));
    assert_eq!(bench.beat(&classic), Ok(()));
    let seen = bench.seen();
    let mut classics: Vec<bool> = seen.members.iter().map(|one| one.is_classic).collect();
    classics.sort_unstable();
    assert_eq!(classics, [false, true]);
    let of_classic = seen.members.iter().find(|one| one.is_classic).unwrap();
    assert_eq!(of_classic.topics, ["t"]);
    assert_eq!(of_classic.assigned[0].2, [0, 1]);
    // A static member goes on with the other protocol, and back.
    bench.comes(STATIC);
    assert_eq!(bench.says(STATIC, -2, None).unwrap().member_epoch, -2);
    bench.now_ms += 10 * SESSION_MS;
    bench.groups.tick(bench.now_ms);
    bench.store_all();
    let now_classic = bench.join(named("a", Some("i"), 2));
    assert_eq!(bench.commit_of(&now_classic, 9), Ok(()));
    bench.leave(&now_classic);
    bench.now_ms += 10 * SESSION_MS;
    bench.groups.tick(bench.now_ms);
    bench.store_all();
    let epoch = bench.comes(STATIC);
    assert_eq!(bench.offset_of(STATIC, epoch), Ok(9));
}

#[test]
fn the_end_of_a_member_that_could_not_be_stored_is_stored_later() {
    let (mut bench, _) = bench();
    let epoch = bench.comes(A);
    let beat = ConsumerHeartbeat {
        member_id: A.id.to_owned(),
        member_epoch: -1,
        client_id: A.client_id.to_owned(),
        ..ConsumerHeartbeat::default()
    };
    let _answer = bench.ask(|answer| Ask::ConsumerHeartbeat(Box::new(beat), answer));
    assert_eq!(bench.store(REFUSED), 1);
    assert_eq!(bench.store(Ok(())), 0, "not at once");
    let gone = bench.says(A, epoch, None).unwrap_err();
    assert_eq!(gone.error, GroupError::UnknownMemberId);
    bench.now_ms += 1_000;
    bench.groups.tick(bench.now_ms);
    bench.store_all();
    assert!(
        !bench
            .tree
            .keys()
            .any(|path| path.contains("broadcast/members/"))
    );
}

/// Java's consumer ends when it is told that there is no such group.
#[test]
fn a_member_that_reports_while_its_end_is_stored_is_told_that_it_is_none_and_joins_again() {
    let (mut bench, _) = bench();
    let epoch = bench.comes(A);
    bench.now_ms += 60_000;
    bench.groups.tick(bench.now_ms);
    // The removal is on its way.
    let beat = ConsumerHeartbeat {
        member_id: A.id.to_owned(),
        member_epoch: epoch,
        client_id: A.client_id.to_owned(),
        connection: Some(connection_of(A)),
        ..ConsumerHeartbeat::default()
    };
    let late = bench.ask(|answer| Ask::ConsumerHeartbeat(Box::new(beat), answer));
    bench.store_all();
    let refused = late.blocking_recv().unwrap().unwrap_err();
    assert_eq!(refused.error, GroupError::UnknownMemberId);
    assert!(!refused.message.contains('\0'), "{}", refused.message);
    bench.comes(A);
}
