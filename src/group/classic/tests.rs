mod assignments;
mod timers;

use super::*;
use crate::group::member::Waiter;
use crate::group::messages::{JoinRequest, LeaveMember, SyncRequest};

const LIMITS: Limits = Limits {
    initial_rebalance_delay_ms: 0,
    members_max: 10,
    alone: false,
};

fn request(member_id: &str, protocols: &[(&str, &[u8])]) -> JoinRequest {
    JoinRequest {
        member_id: member_id.to_owned(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "h".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: protocols
            .iter()
            .map(|(n, m)| ((*n).to_owned(), Bytes::copy_from_slice(m)))
            .collect(),
        member_id_required: false,
        can_skip_assignment: true,
        reason: String::new(),
        connection: None,
        reserved: None,
    }
}

const REFUSED: Result<(), GroupError> = Err(GroupError::CoordinatorNotAvailable);

fn assignment(generation: i32) -> Change {
    Change::Assignment { generation }
}

fn range(member_id: &str) -> JoinRequest {
    request(member_id, &[("range", b"")])
}

fn sync(member_id: &str, generation: i32, assignments: &[(&str, &[u8])]) -> SyncRequest {
    SyncRequest {
        member_id: member_id.to_owned(),
        instance_id: None,
        generation,
        protocol_type: None,
        protocol: None,
        assignments: assignments
            .iter()
            .map(|(id, a)| ((*id).to_owned(), Bytes::copy_from_slice(a)))
            .collect(),
        reserved: None,
    }
}

fn joins(effects: Vec<Effect>) -> Vec<(Waiter, Result<JoinReply, GroupError>)> {
    let join = |effect| match effect {
        Effect::Join(waiter, reply) => Some((waiter, reply)),
        _ => None,
    };
    effects.into_iter().filter_map(join).collect()
}

/// A stable group of `a` (the leader) and `b` in generation 2.
fn stable_pair() -> ClassicGroup {
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &range(""), &LIMITS);
    group.join(0, 2, "b".into(), &range(""), &LIMITS);
    group.join(0, 3, String::new(), &range("a"), &LIMITS);
    assert_eq!(
        (group.state, group.generation),
        (State::CompletingRebalance, 2)
    );
    group.sync(0, 4, sync("a", 2, &[("a", b"A"), ("b", b"B")]));
    group.sync(0, 5, sync("b", 2, &[]));
    group.persisted(0, assignment(2), Ok(()), &LIMITS);
    group.take_effects();
    assert_eq!(group.state, State::Stable);
    group
}

#[test]
fn the_first_member_leads_and_sees_every_member() {
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &range(""), &LIMITS);
    let replies = joins(group.take_effects());
    let reply = replies[0].1.as_ref().unwrap();
    assert_eq!(
        (reply.generation, reply.leader.as_str(), reply.members.len()),
        (1, "a", 1)
    );
    assert_eq!(reply.protocol.as_deref(), Some("range"));
}

#[test]
fn a_follower_that_syncs_before_the_leader_waits_for_the_assignment() {
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &range(""), &LIMITS);
    group.join(0, 2, "b".into(), &range(""), &LIMITS);
    group.join(0, 3, String::new(), &range("a"), &LIMITS);
    group.take_effects();
    group.sync(0, 4, sync("b", 2, &[]));
    assert_eq!(group.take_effects(), []);
    group.sync(0, 5, sync("a", 2, &[("b", b"B")]));
    assert_eq!(group.take_effects(), [Effect::Persist(assignment(2))]);
    group.persisted(0, assignment(2), Ok(()), &LIMITS);
    let assignments: Vec<_> = group
        .take_effects()
        .into_iter()
        .map(|effect| match effect {
            Effect::Sync(waiter, Ok(reply)) => (waiter, reply.assignment),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        assignments,
        [(5, Bytes::new()), (4, Bytes::from_static(b"B"))]
    );
}

#[test]
fn an_assignment_that_cannot_be_stored_is_not_given_out() {
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &range(""), &LIMITS);
    group.sync(0, 2, sync("a", 1, &[("a", b"A")]));
    group.take_effects();
    group.persisted(0, assignment(1), REFUSED, &LIMITS);
    assert_eq!(
        group.take_effects()[0],
        Effect::Sync(2, Err(GroupError::CoordinatorNotAvailable))
    );
    assert_eq!(group.state, State::PreparingRebalance);
}

#[test]
fn a_dynamic_member_is_asked_to_come_back_with_an_id() {
    let mut group = ClassicGroup::new(0);
    let mut new = range("");
    new.member_id_required = true;
    group.join(0, 1, "a".into(), &new, &LIMITS);
    let reply = joins(group.take_effects())[0].1.clone().unwrap();
    assert_eq!((reply.generation, reply.member_id.as_str()), (-1, "a"));
    assert!(group.members.is_empty());
    group.join(0, 2, String::new(), &range("a"), &LIMITS);
    assert_eq!(
        joins(group.take_effects())[0]
            .1
            .as_ref()
            .unwrap()
            .generation,
        1
    );
}

#[test]
fn a_member_that_was_given_an_id_and_never_joined_does_not_hold_up_the_others() {
    let mut group = stable_pair();
    let mut new = range("");
    new.member_id_required = true;
    group.join(0, 3, "ghost".into(), &new, &LIMITS);
    for id in ["a", "b"] {
        let changed = request(id, &[("range", b"other")]);
        group.join(0, 4, String::new(), &changed, &LIMITS);
    }
    group.take_effects();
    assert_eq!(group.state, State::PreparingRebalance);
    group.tick(10_000, &LIMITS);
    assert_eq!(joins(group.take_effects()).len(), 2);
}

#[test]
fn a_silent_member_is_dropped_and_the_others_rebalance() {
    let mut group = stable_pair();
    assert_eq!(group.next_deadline(), Some(10_000));
    assert_eq!(group.heartbeat(9_000, "a", None, 2), Ok(()));
    group.tick(10_000, &LIMITS);
    assert_eq!(group.state, State::PreparingRebalance);
    assert_eq!(
        group.heartbeat(10_001, "a", None, 2),
        Err(GroupError::RebalanceInProgress)
    );
    assert_eq!(
        group.heartbeat(10_001, "b", None, 2),
        Err(GroupError::UnknownMemberId)
    );
    group.join(10_002, 9, String::new(), &range("a"), &LIMITS);
    assert_eq!(
        joins(group.take_effects())[0]
            .1
            .as_ref()
            .unwrap()
            .generation,
        3
    );
}

#[test]
fn a_member_that_does_not_rejoin_within_the_rebalance_timeout_is_out() {
    let mut group = stable_pair();
    group.join(
        0,
        9,
        String::new(),
        &request("a", &[("range", b"changed")]),
        &LIMITS,
    );
    for now in (0..60_000).step_by(5_000) {
        let _ = group.heartbeat(now, "b", None, 2);
        group.tick(now, &LIMITS);
        assert!(joins(group.take_effects()).is_empty(), "at {now}");
    }
    let _ = group.heartbeat(59_000, "b", None, 2);
    group.tick(60_000, &LIMITS);
    let reply = joins(group.take_effects())[0].1.clone().unwrap();
    assert_eq!((reply.generation, reply.members.len()), (3, 1));
}

#[test]
fn the_initial_delay_gathers_members_and_grows_while_they_come() {
    let limits = Limits {
        initial_rebalance_delay_ms: 3_000,
        members_max: 10,
        alone: false,
    };
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &range(""), &limits);
    assert_eq!(group.next_deadline(), Some(3_000));
    group.join(1_000, 2, "b".into(), &range(""), &limits);
    group.tick(3_000, &limits);
    assert!(group.take_effects().is_empty());
    group.tick(6_000, &limits);
    assert_eq!(joins(group.take_effects()).len(), 2);
    assert_eq!(group.generation, 1);
}

#[test]
fn a_new_group_does_not_wait_for_who_has_no_more_than_an_id() {
    let asks_for_an_id = JoinRequest {
        member_id_required: true,
        ..range("")
    };
    for delay_ms in [0, 3_000] {
        let limits = Limits {
            initial_rebalance_delay_ms: delay_ms,
            ..LIMITS
        };
        let mut group = ClassicGroup::new(0);
        group.join(0, 1, "never".into(), &asks_for_an_id, &limits);
        assert!(group.has_pending());
        group.take_effects();
        group.join(1, 2, "a".into(), &range(""), &limits);
        group.tick(1 + delay_ms, &limits);
        let reply = joins(group.take_effects()).remove(0).1.unwrap();
        assert_eq!((reply.generation, reply.members.len()), (1, 1));
    }
}

#[test]
fn a_static_member_that_restarts_replaces_its_member_without_a_rebalance() {
    let mut group = ClassicGroup::new(0);
    let mut join = range("");
    join.instance_id = Some("i".to_owned());
    group.join(0, 1, "i-1".into(), &join, &LIMITS);
    group.sync(0, 2, sync("i-1", 1, &[("i-1", b"A")]));
    group.persisted(0, assignment(1), Ok(()), &LIMITS);
    group.take_effects();
    group.join(5, 3, "i-2".into(), &join, &LIMITS);
    let change = changes(&mut group).remove(0);
    group.persisted(5, change, Ok(()), &LIMITS);
    let replies = joins(group.take_effects());
    let reply = replies[0].1.as_ref().unwrap();
    assert_eq!(
        (
            reply.generation,
            reply.member_id.as_str(),
            reply.skip_assignment
        ),
        (1, "i-2", true)
    );
    assert_eq!(group.state, State::Stable);
    assert_eq!(
        group.heartbeat(6, "i-1", Some("i"), 1),
        Err(GroupError::FencedInstanceId)
    );
    group.sync(7, 4, sync("i-2", 1, &[]));
    assert!(
        matches!(&group.take_effects()[0], Effect::Sync(4, Ok(reply)) if reply.assignment == "A")
    );
}

/// [`stable_pair`] after both have left.
fn emptied_pair() -> ClassicGroup {
    let mut group = stable_pair();
    for id in ["a", "b"] {
        let leaving = LeaveMember {
            member_id: id.into(),
            instance_id: None,
            reason: String::new(),
        };
        assert_eq!(group.leave(1, &leaving, &LIMITS), Ok(()));
    }
    group
}

#[test]
fn the_last_member_leaves_an_empty_group() {
    let mut group = emptied_pair();
    assert_eq!(group.state, State::Empty);
    let emptied = || Change::Emptied { generation: 3 };
    assert!(group.take_effects().contains(&Effect::Persist(emptied())));
    assert_eq!(group.check_commit(2, "", None, -1), Ok(()));
}

#[test]
fn commits_are_fenced_by_member_and_generation() {
    let mut group = stable_pair();
    assert_eq!(group.check_commit(1, "a", None, 2), Ok(()));
    assert_eq!(
        group.check_commit(1, "a", None, 1),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(
        group.check_commit(1, "x", None, 2),
        Err(GroupError::UnknownMemberId)
    );
    assert_eq!(
        group.check_commit(1, "", None, -1),
        Err(GroupError::UnknownMemberId)
    );
}

#[test]
fn the_assignor_that_most_prefer_and_all_know_is_chosen() {
    let mut group = ClassicGroup::new(0);
    group.join(
        0,
        1,
        "a".into(),
        &request("", &[("range", b""), ("sticky", b"")]),
        &LIMITS,
    );
    group.join(
        0,
        2,
        "b".into(),
        &request("", &[("sticky", b""), ("range", b"")]),
        &LIMITS,
    );
    group.join(
        0,
        3,
        "c".into(),
        &request("", &[("sticky", b""), ("range", b"")]),
        &LIMITS,
    );
    group.join(
        0,
        4,
        String::new(),
        &request("a", &[("range", b""), ("sticky", b"")]),
        &LIMITS,
    );
    assert_eq!(group.protocol.as_deref(), Some("sticky"));
    group.take_effects();
    group.join(0, 5, "d".into(), &request("", &[("other", b"")]), &LIMITS);
    assert_eq!(
        joins(group.take_effects())[0].1,
        Err(GroupError::InconsistentGroupProtocol)
    );
}

#[test]
fn a_member_that_joined_but_never_synced_is_dropped() {
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &range(""), &LIMITS);
    group.join(0, 2, "b".into(), &range(""), &LIMITS);
    group.join(0, 3, String::new(), &range("a"), &LIMITS);
    group.sync(0, 4, sync("b", 2, &[]));
    group.take_effects();
    for now in (0..60_000).step_by(5_000) {
        let _ = group.heartbeat(now, "a", None, 2);
        group.tick(now, &LIMITS);
    }
    let _ = group.heartbeat(59_999, "a", None, 2);
    group.tick(60_000, &LIMITS);
    assert!(!group.members.contains_key("a"));
    assert!(
        group
            .take_effects()
            .contains(&Effect::Sync(4, Err(GroupError::RebalanceInProgress)))
    );
}

#[test]
fn a_full_group_takes_no_more() {
    let limits = Limits {
        initial_rebalance_delay_ms: 0,
        members_max: 1,
        alone: false,
    };
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &range(""), &limits);
    group.take_effects();
    group.join(0, 2, "b".into(), &range(""), &limits);
    assert_eq!(
        joins(group.take_effects())[0].1,
        Err(GroupError::GroupMaxSizeReached)
    );
}

#[test]
fn a_member_that_never_syncs_is_dropped_also_when_the_leader_did() {
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &range(""), &LIMITS);
    group.join(0, 2, "b".into(), &range(""), &LIMITS);
    group.join(0, 3, String::new(), &range("a"), &LIMITS);
    group.sync(0, 4, sync("a", 2, &[("a", b"x"), ("b", b"y")]));
    group.persisted(0, assignment(2), Ok(()), &LIMITS);
    assert_eq!(group.state, State::Stable);
    for now in (0..60_000).step_by(5_000) {
        let _ = group.heartbeat(now, "a", None, 2);
        let _ = group.heartbeat(now, "b", None, 2);
        group.tick(now, &LIMITS);
    }
    group.tick(60_000, &LIMITS);
    assert_eq!(group.members.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(group.state, State::PreparingRebalance);
}

#[test]
fn a_static_member_that_is_back_is_answered_when_its_new_id_is_stored() {
    let mut group = ClassicGroup::new(0);
    let own = |member_id: &str| JoinRequest {
        instance_id: Some("i".to_owned()),
        ..range(member_id)
    };
    group.join(0, 1, "a".into(), &own(""), &LIMITS);
    group.sync(0, 2, sync("a", 1, &[("a", b"x")]));
    group.persisted(0, assignment(1), Ok(()), &LIMITS);
    group.take_effects();
    group.join(0, 3, "b".into(), &own(""), &LIMITS);
    let effects = group.take_effects();
    let [
        Effect::Persist(Change::Replaced {
            waiter: 3, reply, ..
        }),
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!((reply.member_id.as_str(), reply.generation), ("b", 1));
}

/// A stable group of one static member `i`, which has the id `a`.
fn stable_static() -> (ClassicGroup, JoinRequest) {
    let mut group = ClassicGroup::new(0);
    let mut own = range("");
    own.instance_id = Some("i".to_owned());
    group.join(0, 1, "a".into(), &own, &LIMITS);
    group.sync(0, 2, sync("a", 1, &[("a", b"x")]));
    group.persisted(0, assignment(1), Ok(()), &LIMITS);
    group.take_effects();
    (group, own)
}

/// The changes that a group asks to store.
fn changes(group: &mut ClassicGroup) -> Vec<Change> {
    let change = |effect| match effect {
        Effect::Persist(change) => Some(change),
        _ => None,
    };
    group
        .take_effects()
        .into_iter()
        .filter_map(change)
        .collect()
}

#[test]
fn a_static_member_whose_new_id_is_refused_keeps_the_one_that_is_stored() {
    let (mut group, own) = stable_static();
    group.join(1, 3, "b".into(), &own, &LIMITS);
    let change = changes(&mut group).remove(0);
    group.persisted(2, change, REFUSED, &LIMITS);
    assert_eq!(
        joins(group.take_effects()),
        [(3, Err(GroupError::CoordinatorNotAvailable))]
    );
    assert_eq!(group.members.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(group.leader.as_deref(), Some("a"));
    assert_eq!(group.heartbeat(3, "a", Some("i"), 1), Ok(()));
    group.sync(4, 5, sync("a", 1, &[]));
    assert!(
        matches!(&group.take_effects()[0], Effect::Sync(5, Ok(reply)) if reply.assignment == "x")
    );
}

#[test]
fn a_static_member_that_is_replaced_twice_has_the_last_id_that_was_stored() {
    for first in [Ok(()), REFUSED] {
        let (mut group, own) = stable_static();
        group.join(1, 3, "b".into(), &own, &LIMITS);
        group.join(1, 4, "c".into(), &own, &LIMITS);
        let mut wanted = changes(&mut group);
        let (second, change) = (wanted.remove(1), wanted.remove(0));
        group.persisted(2, change, first, &LIMITS);
        group.persisted(2, second, REFUSED, &LIMITS);
        let stored = if first.is_ok() { "b" } else { "a" };
        assert_eq!(group.members.keys().collect::<Vec<_>>(), [stored]);
        assert_eq!(group.heartbeat(3, stored, Some("i"), 1), Ok(()));
    }
}

#[test]
fn an_empty_group_that_cannot_be_stored_is_stored_later() {
    let mut group = emptied_pair();
    for _ in 0..2 {
        let mut wanted = changes(&mut group);
        assert_eq!(wanted, [Change::Emptied { generation: 3 }]);
        group.persisted(10, wanted.remove(0), REFUSED, &LIMITS);
        let again_ms = group.next_deadline().unwrap();
        assert!(again_ms > 10);
        group.tick(again_ms, &LIMITS);
    }
    let change = changes(&mut group).remove(0);
    group.persisted(20_000, change, Ok(()), &LIMITS);
    assert_eq!(group.next_deadline(), None);
}

#[test]
fn a_rebalance_reports_who_set_it_off_and_why_and_how_long_it_took() {
    let mut group = stable_pair();
    group.take_rebalanced();
    let mut newcomer = range("");
    newcomer.reason = "scaled out".to_owned();
    group.join(1000, 6, "c".into(), &newcomer, &LIMITS);
    group.join(1500, 7, String::new(), &range("a"), &LIMITS);
    group.join(3000, 8, String::new(), &range("b"), &LIMITS);
    assert_eq!(group.take_rebalanced(), [], "the assignment is missing");
    group.sync(3100, 9, sync("a", 3, &[]));
    group.persisted(3200, assignment(3), Ok(()), &LIMITS);
    let over = group.take_rebalanced();
    assert_eq!(over.len(), 1);
    let over = &over[0];
    assert_eq!((over.took_ms, over.generation), (2200, 3));
    assert_eq!(over.who, "c (h)");
    assert_eq!(over.why, "a new member joined: scaled out");
    assert_eq!(over.members, (2, 3));
    assert_eq!(over.waited_for, Some(("c (h)".to_owned(), 2000)));
    assert!(group.take_rebalanced().is_empty());
}

#[test]
fn a_silent_members_end_is_the_reason_of_the_rebalance_after_it() {
    let mut group = stable_pair();
    group.take_rebalanced();
    group.heartbeat(9_000, "a", None, 2).unwrap();
    group.tick(10_000, &LIMITS);
    group.join(10_500, 6, String::new(), &range("a"), &LIMITS);
    group.sync(10_600, 7, sync("a", 3, &[]));
    group.persisted(10_700, assignment(3), Ok(()), &LIMITS);
    let over = &group.take_rebalanced()[0];
    assert!(over.why.contains("silent"), "{over:?}");
    assert_eq!((over.took_ms, over.members), (700, (2, 1)));
}

#[test]
fn what_sets_off_another_rebalance_within_one_is_reported_with_it() {
    let mut group = stable_pair();
    group.take_rebalanced();
    group.join(100, 6, "c".into(), &range(""), &LIMITS);
    group.join(200, 7, String::new(), &range("a"), &LIMITS);
    group.join(300, 8, String::new(), &range("b"), &LIMITS);
    assert_eq!(group.state, State::CompletingRebalance);
    let leaving = LeaveMember {
        member_id: "c".to_owned(),
        instance_id: None,
        reason: String::new(),
    };
    group.leave(400, &leaving, &LIMITS).unwrap();
    for (at, id) in [(500, "a"), (600, "b")] {
        group.join(at, at as Waiter, String::new(), &range(id), &LIMITS);
    }
    group.sync(700, 9, sync("a", 4, &[]));
    group.persisted(800, assignment(4), Ok(()), &LIMITS);
    let over = group.take_rebalanced();
    assert_eq!(over.len(), 1);
    assert_eq!(over[0].why, "a new member joined; then: a member left");
    assert_eq!((over[0].took_ms, over[0].generation), (700, 4));
}
