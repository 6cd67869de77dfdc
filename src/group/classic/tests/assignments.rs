//! What members are assigned, what assignors they support, and what they read.

use proptest::prelude::*;

use super::*;
use crate::group::reserved::GroupMemory;

/// What members are described to have.
fn described(group: &ClassicGroup) -> Vec<Bytes> {
    let members = group.describe().members.into_iter();
    members.map(|member| member.assignment).collect()
}

#[test]
fn members_are_described_with_what_they_have_until_an_assignment_is_given_up() {
    let mut group = stable_pair();
    assert_eq!(described(&group), ["A", "B"]);
    group.join(1, 6, String::new(), &range("a"), &LIMITS);
    assert_eq!(group.state, State::PreparingRebalance);
    assert_eq!(described(&group), ["A", "B"]);
    group.join(2, 7, String::new(), &range("b"), &LIMITS);
    assert_eq!(group.state, State::CompletingRebalance);
    assert_eq!(described(&group), ["A", "B"]);
    group.join(3, 8, "c".into(), &range(""), &LIMITS);
    assert_eq!(group.state, State::PreparingRebalance);
    assert_eq!(described(&group), ["", "", ""]);
}

#[test]
fn the_memory_of_an_assignment_is_free_when_another_one_replaces_it_or_it_is_given_up() {
    let memory = GroupMemory::new(100);
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &range(""), &LIMITS);
    let with_share = |generation, bytes: usize| SyncRequest {
        reserved: memory.reserve(bytes),
        ..sync("a", generation, &[("a", b"A")])
    };
    group.sync(0, 2, with_share(1, 60));
    assert!(memory.reserve(41).is_none());
    group.persisted(0, assignment(1), Ok(()), &LIMITS);
    group.join(1, 3, String::new(), &range("a"), &LIMITS);
    assert!(memory.reserve(41).is_none());
    group.sync(1, 4, with_share(2, 40));
    group.persisted(1, assignment(2), Ok(()), &LIMITS);
    assert!(memory.reserve(60).is_some() && memory.reserve(61).is_none());
    group.join(2, 5, String::new(), &range("a"), &LIMITS);
    group.sync(2, 6, with_share(3, 60));
    group.persisted(2, assignment(3), REFUSED, &LIMITS);
    assert!(memory.reserve(100).is_some());
}

#[test]
fn the_topics_that_consumers_read_are_known_and_those_of_others_are_not() {
    let reads = |member_id: &str, topic: &[u8]| {
        let mut metadata = b"\0\0\0\0\0\x01\0\x01".to_vec();
        metadata.extend(topic);
        request(member_id, &[("range", &metadata)])
    };
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &reads("", b"t"), &LIMITS);
    group.join(0, 2, "b".into(), &reads("", b"u"), &LIMITS);
    group.join(0, 3, String::new(), &reads("a", b"t"), &LIMITS);
    let both = ["t", "u"].map(str::to_owned);
    assert_eq!(group.subscribed_topics(), Some(BTreeSet::from(both)));
    // One that cannot be read may read anything.
    group.join(1, 4, "c".into(), &range(""), &LIMITS);
    assert_eq!(group.subscribed_topics(), None);
    let mut other = reads("", b"t");
    other.protocol_type = "connect".to_owned();
    let mut group = ClassicGroup::new(0);
    group.join(0, 1, "a".into(), &other, &LIMITS);
    assert_eq!(group.subscribed_topics(), None);
}

const NAMES: [&str; 3] = ["range", "sticky", "other"];

/// What a member does, with the assignors that it names.
#[derive(Debug, Clone)]
enum Step {
    Join(Option<usize>, Vec<usize>),
    JoinAgain(usize, Vec<usize>),
    Leave(usize),
    Tick(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let named = || proptest::collection::vec(0..NAMES.len(), 1..4);
    let step = prop_oneof![
        (proptest::option::of(0..2usize), named()).prop_map(|(own, named)| Step::Join(own, named)),
        (0..8usize, named()).prop_map(|(who, named)| Step::JoinAgain(who, named)),
        (0..8usize).prop_map(Step::Leave),
        (0..20_000i64).prop_map(Step::Tick),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Also that no timer is late: [`ClassicGroup::next_deadline`] looks at all members to check.
    #[test]
    fn the_assignors_that_all_support_are_those_that_each_does(steps in steps()) {
        let mut group = ClassicGroup::new(0);
        let mut now_ms = 0;
        for (n, step) in steps.into_iter().enumerate() {
            let naming = |id: &str, named: Vec<usize>| {
                let named: Vec<(&str, &[u8])> =
                    named.into_iter().map(|n| (NAMES[n], &b""[..])).collect();
                request(id, &named)
            };
            let known = |who: usize| group.members.keys().nth(who).cloned();
            match step {
                Step::Join(own, named) => {
                    let mut join = naming("", named);
                    join.instance_id = own.map(|own| format!("i{own}"));
                    group.join(now_ms, n as Waiter, format!("m{n}"), &join, &LIMITS);
                }
                Step::JoinAgain(who, named) => {
                    if let Some(id) = known(who) {
                        let mut join = naming(&id, named);
                        join.instance_id = group.members[&id].instance_id.clone();
                        group.join(now_ms, n as Waiter, String::new(), &join, &LIMITS);
                    }
                }
                Step::Leave(who) => {
                    if let Some(member_id) = known(who) {
                        let leaving = LeaveMember {
                            member_id,
                            instance_id: None,
                            reason: String::new(),
                        };
                        let _ = group.leave(now_ms, &leaving, &LIMITS);
                    }
                }
                Step::Tick(ms) => {
                    now_ms += ms;
                    group.tick(now_ms, &LIMITS);
                }
            }
            for change in changes(&mut group) {
                group.persisted(now_ms, change, Ok(()), &LIMITS);
            }
            assert_eq!(group.supported, Supported::by(group.members.values()));
            let supports = |member: &Member, name| member.protocols.iter().any(|(n, _)| n == name);
            for name in NAMES {
                let all = group.members.values().all(|member| supports(member, name));
                assert_eq!(group.all_support(name), all, "{name}");
            }
            group.next_deadline();
        }
    }
}
