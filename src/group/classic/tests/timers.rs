//! When something is due in a group.

use super::*;

#[test]
fn static_members_are_waited_for_again_at_intervals_whatever_rebalance_timeout_they_bring() {
    for rebalance_timeout_ms in [i32::MIN, -1, 0, 1, 60_000] {
        let mut group = ClassicGroup::new(0);
        for (waiter, instance) in [(1, "a"), (2, "b")] {
            let mut join = range("");
            join.instance_id = Some(instance.to_owned());
            join.rebalance_timeout_ms = rebalance_timeout_ms;
            join.session_timeout_ms = i32::MAX;
            group.join(0, waiter, instance.to_owned(), &join, &LIMITS);
        }
        group.complete_join(0);
        let leaving = LeaveMember {
            member_id: String::new(),
            instance_id: Some("a".to_owned()),
            reason: String::new(),
        };
        group.leave(0, &leaving, &LIMITS).unwrap();
        let mut now_ms = group.next_deadline().unwrap();
        for _ in 0..5 {
            group.tick(now_ms, &LIMITS);
            let next = group.next_deadline().unwrap();
            assert!(
                next >= now_ms + 1000,
                "{rebalance_timeout_ms}: {now_ms}, {next}"
            );
            now_ms = next;
        }
        assert_eq!(group.state, State::PreparingRebalance);
    }
}

#[test]
fn a_heartbeat_leaves_the_timer_and_a_deadline_that_becomes_earlier_does_not() {
    let mut group = stable_pair();
    for id in ["a", "b"] {
        group.heartbeat(4_000, id, None, 2).unwrap();
    }
    assert_eq!(group.next_deadline(), Some(10_000));
    group.tick(10_000, &LIMITS);
    assert_eq!(
        (group.state, group.next_deadline()),
        (State::Stable, Some(14_000))
    );
    // The clock went back.
    group.heartbeat(1_000, "a", None, 2).unwrap();
    assert_eq!(group.next_deadline(), Some(11_000));
    group.tick(11_000, &LIMITS);
    assert_eq!(group.members.keys().collect::<Vec<_>>(), ["b"]);
    // Who was given an id holds it for as long as its session.
    let mut new = range("");
    (new.member_id_required, new.session_timeout_ms) = (true, 500);
    group.join(12_000, 9, "c".into(), &new, &LIMITS);
    assert_eq!(group.next_deadline(), Some(12_500));
}

#[test]
fn who_is_told_that_the_assignment_is_not_given_out_is_waited_for_as_long_as_its_session_was_to_last()
 {
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &range(""), &LIMITS);
    group.join(0, 2, "b".into(), &range(""), &LIMITS);
    group.join(0, 3, String::new(), &range("a"), &LIMITS);
    group.sync(0, 4, sync("b", 2, &[]));
    let _ = group.heartbeat(9_000, "a", None, 2);
    group.tick(10_000, &LIMITS);
    assert!(group.members.contains_key("b"), "it waits for an answer");
    group.join(12_000, 5, "c".into(), &range(""), &LIMITS);
    group.tick(group.next_deadline().unwrap(), &LIMITS);
    assert!(!group.members.contains_key("b"));
}

#[test]
fn when_all_have_asked_for_their_assignment_nobody_is_late_however_long_it_takes_to_be_stored() {
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &range(""), &LIMITS);
    group.join(0, 2, "b".into(), &range(""), &LIMITS);
    group.join(0, 3, String::new(), &range("a"), &LIMITS);
    group.sync(0, 4, sync("a", 2, &[("a", b"x"), ("b", b"y")]));
    group.sync(0, 5, sync("b", 2, &[]));
    group.take_effects();
    group.tick(60_000, &LIMITS);
    assert_eq!(group.take_effects(), []);
    group.persisted(60_001, assignment(2), Ok(()), &LIMITS);
    assert_eq!((group.state, group.members.len()), (State::Stable, 2));
    assert_eq!(group.take_effects().len(), 2);
}
