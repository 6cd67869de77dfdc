//! Consumer groups, step by step.

mod migration;

use std::cell::Cell;
use std::collections::BTreeMap;

use super::subscriptions::REGEX_REFRESH_MIN_MS;
use super::*;
use crate::group::classic::Limits;
use crate::group::messages::{Heartbeat, JoinReply, JoinRequest, Refusal, SyncRequest};
use crate::group::reserved::GroupMemory;
use crate::group::subscription::assigned_partitions;
use crate::group::testing::{SomeTopics, settings};

/// A group with its topics and a clock.
struct Bench {
    group: ConsumerGroup,
    topics: SomeTopics,
    settings: ConsumerSettings,
    now_ms: Cell<i64>,
}

/// What a member has, by topic name.
type Has = BTreeMap<String, Vec<i32>>;

impl Bench {
    fn new(counts: &[(&str, i32)]) -> Self {
        Self {
            group: ConsumerGroup::new(0),
            topics: SomeTopics::new(counts),
            settings: settings(),
            now_ms: Cell::new(1000),
        }
    }

    fn pass(&self, ms: i64) {
        self.now_ms.set(self.now_ms.get() + ms);
    }

    fn beat(&mut self, beat: ConsumerHeartbeat) -> Result<ConsumerReply, Refusal> {
        let now_ms = self.now_ms.get();
        self.group
            .heartbeat(now_ms, beat, &self.settings, &self.topics)
    }

    fn join(&mut self, id: &str, topics: &[&str]) -> ConsumerReply {
        self.beat(joining(id, topics)).unwrap()
    }

    /// A heartbeat that says what the member has.
    fn has(&mut self, id: &str, epoch: i32, has: &Has) -> ConsumerReply {
        let owned = has
            .iter()
            .map(|(name, partitions)| (self.topics.id_of(name).unwrap(), partitions.clone()));
        let owned = Some(owned.collect());
        let beat = ConsumerHeartbeat {
            owned,
            ..plain(id, epoch)
        };
        self.beat(beat).unwrap()
    }

    fn assignment(&self, reply: &ConsumerReply) -> Option<Has> {
        let topics = reply.assignment.as_ref()?.iter();
        let named =
            topics.map(|(id, partitions)| (self.topics.name_of(*id).unwrap(), partitions.clone()));
        Some(named.collect())
    }

    fn tick(&mut self) {
        let now_ms = self.now_ms.get();
        self.group.tick(now_ms, &self.settings, &self.topics);
    }

    fn join_classic(&mut self, request: &JoinRequest) -> Result<JoinReply, GroupError> {
        let with = (&self.settings, &self.topics as &dyn Topics);
        let id = format!("new-{}", request.client_id);
        self.group
            .join_classic(self.now_ms.get(), id, request, with)
    }

    fn sync_classic(&mut self, id: &str, generation: i32) -> Result<Has, GroupError> {
        let request = SyncRequest {
            member_id: id.to_owned(),
            instance_id: None,
            generation,
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            assignments: BTreeMap::new(),
            reserved: None,
        };
        let reply = self
            .group
            .sync_classic(self.now_ms.get(), &request, &self.topics)?;
        let topics = assigned_partitions(&reply.assignment).unwrap();
        Ok(topics.into_iter().collect())
    }

    fn heartbeat_classic(&mut self, id: &str, generation: i32) -> Result<(), GroupError> {
        let beat = Heartbeat {
            member_id: id.to_owned(),
            instance_id: None,
            generation,
        };
        self.group.heartbeat_classic(self.now_ms.get(), &beat)
    }
}

pub(super) fn plain(id: &str, epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        member_id: id.to_owned(),
        member_epoch: epoch,
        client_id: id.to_owned(),
        client_host: "/h".to_owned(),
        ..ConsumerHeartbeat::default()
    }
}

pub(super) fn joining(id: &str, topics: &[&str]) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        rebalance_timeout_ms: Some(60_000),
        topics: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()),
        owned: Some(Vec::new()),
        ..plain(id, 0)
    }
}

fn has(topic: &str, partitions: &[i32]) -> Has {
    Has::from([(topic.to_owned(), partitions.to_vec())])
}

/// The bytes that a classic consumer brings: it reads `t`, and has these partitions of it.
fn classic(id: &str, owned: &[i32]) -> JoinRequest {
    let mut metadata = vec![0, 1, 0, 0, 0, 1, 0, 1, b't', 255, 255, 255, 255];
    metadata.extend(1i32.to_be_bytes());
    metadata.extend([0, 1, b't']);
    metadata.extend((owned.len() as i32).to_be_bytes());
    for partition in owned {
        metadata.extend(partition.to_be_bytes());
    }
    JoinRequest {
        member_id: id.to_owned(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), metadata.into())],
        member_id_required: true,
        can_skip_assignment: true,
        reason: String::new(),
        connection: None,
        reserved: None,
    }
}

#[test]
fn partitions_are_given_where_there_is_memory_for_them_and_give_it_back() {
    let memory = GroupMemory::new(10_000);
    let mut bench = Bench::new(&[("t", 4)]);
    let others = memory.reserve(9_000).unwrap();
    let mut beat = joining("a", &["t"]);
    beat.reserved = Some(memory.reserve_anyway(400));
    let told = bench.beat(beat).unwrap();
    let given = |reply: &ConsumerReply| {
        let assignment = reply.assignment.iter().flatten();
        assignment
            .map(|(_, partitions)| partitions.len())
            .sum::<usize>()
    };
    assert_eq!(given(&told), 0);
    drop(others);
    bench.pass(60_000);
    let told = bench.beat(plain("a", told.member_epoch)).unwrap();
    assert_eq!((given(&told), memory.taken()), (4, 400 + 4 * 300));
    bench.beat(plain("a", -1)).unwrap();
    assert_eq!(memory.taken(), 0);
}

#[test]
fn a_member_for_whose_topics_there_is_no_memory_stays_with_what_it_has() {
    let memory = GroupMemory::new(10_000);
    let mut bench = Bench::new(&[("t", 4), ("u", 1)]);
    for instance_id in [None, Some("i".to_owned())] {
        let with = |id: &str, epoch: i32, topics: &[&str], bytes: usize| {
            let mut beat = ConsumerHeartbeat {
                member_epoch: epoch,
                instance_id: instance_id.clone(),
                ..joining(id, topics)
            };
            beat.reserved = Some(memory.reserve_anyway(bytes));
            beat
        };
        let told = bench.beat(with("a", 0, &["t"], 400)).unwrap();
        let others = memory.reserve_anyway(10_000);
        let refused = bench.beat(with("a", told.member_epoch, &["t", "u"], 500));
        assert_eq!(refused.unwrap_err().error, GroupError::GroupMaxSizeReached);
        let plainly = ConsumerHeartbeat {
            instance_id: instance_id.clone(),
            ..plain("a", told.member_epoch)
        };
        assert_eq!(bench.beat(plainly).unwrap().member_epoch, told.member_epoch);
        assert_eq!(bench.group.members["a"].assigned.iter().count(), 4);
        drop(others);
        let leaves = ConsumerHeartbeat {
            instance_id: instance_id.clone(),
            ..plain("a", -1)
        };
        bench.beat(leaves).unwrap();
        assert_eq!(memory.taken(), 0);
        bench.pass(60_000);
    }
}

#[test]
fn a_second_member_gets_what_the_first_has_given_up_and_not_before() {
    let mut bench = Bench::new(&[("t", 4)]);
    let a = bench.join("a", &["t"]);
    assert_eq!((a.member_epoch, &*a.member_id), (2, "a"));
    assert_eq!(bench.assignment(&a), Some(has("t", &[0, 1, 2, 3])));
    assert_eq!(a.heartbeat_interval_ms, 5_000);
    let b = bench.join("b", &["t"]);
    assert_eq!(b.member_epoch, 3);
    assert_eq!(bench.assignment(&b), Some(Has::new()));
    // It is not where it is to be: it is to ask again soon.
    assert_eq!(b.heartbeat_interval_ms, 500);
    assert_eq!(bench.group.state(), "Reconciling");
    // The first one learns that it is to keep two; until it says so, the other waits.
    let a = bench.beat(plain("a", 2)).unwrap();
    assert_eq!(
        (a.member_epoch, bench.assignment(&a)),
        (2, Some(has("t", &[0, 1])))
    );
    let b = bench.beat(plain("b", 3)).unwrap();
    assert_eq!((b.member_epoch, b.assignment), (3, None));
    let a = bench.has("a", 2, &has("t", &[0, 1, 2]));
    assert_eq!((a.member_epoch, a.assignment), (2, None));
    let a = bench.has("a", 2, &has("t", &[0, 1]));
    assert_eq!((a.member_epoch, a.assignment), (3, None));
    let b = bench.beat(plain("b", 3)).unwrap();
    assert_eq!(bench.assignment(&b), Some(has("t", &[2, 3])));
    assert_eq!(bench.group.state(), "Stable");
    assert_eq!(bench.group.check_fetch(Some("b"), 3), Ok(()));
    let stale = Err(GroupError::StaleMemberEpoch);
    assert_eq!(bench.group.check_fetch(Some("b"), 2), stale);
}

#[test]
fn a_lost_answer_repeated_gives_the_same_and_a_wrong_epoch_is_fenced() {
    let mut bench = Bench::new(&[("t", 4)]);
    bench.join("a", &["t"]);
    bench.join("b", &["t"]);
    bench.beat(plain("a", 2)).unwrap();
    // The answer that gives a epoch 2 is lost.
    let first = bench.has("a", 2, &has("t", &[0, 1]));
    let again = bench.has("a", 2, &has("t", &[0, 1]));
    assert_eq!(first.member_epoch, again.member_epoch);
    for (epoch, owned) in [
        (4, Has::new()),
        (0x7fff_ffff, Has::new()),
        (2, has("t", &[2])),
    ] {
        let id = bench.topics.id_of("t").unwrap();
        let owned = owned.into_values().map(|partitions| (id, partitions));
        let beat = ConsumerHeartbeat {
            owned: Some(owned.collect()),
            ..plain("a", epoch)
        };
        let refused = bench.beat(beat).unwrap_err();
        assert_eq!(refused.error, GroupError::FencedMemberEpoch, "{epoch}");
    }
    let unknown = bench.beat(plain("nobody", 2)).unwrap_err();
    assert_eq!(unknown.error, GroupError::UnknownMemberId);
    // It joins again with nothing, and has all that is its own at once.
    let a = bench.join("a", &["t"]);
    assert_eq!(bench.assignment(&a), Some(has("t", &[0, 1])));
}

#[test]
fn a_silent_member_is_thrown_out_and_one_that_gives_nothing_up_too() {
    let mut bench = Bench::new(&[("t", 4)]);
    bench.join("a", &["t"]);
    bench.pass(40_000);
    let b = bench.join("b", &["t"]);
    assert_eq!(bench.group.next_deadline(), Some(46_000));
    bench.pass(5_000);
    bench.tick();
    assert_eq!(bench.group.members.len(), 1, "a was silent for 45 s");
    let b = bench.beat(plain("b", b.member_epoch)).unwrap();
    assert_eq!(bench.assignment(&b), Some(has("t", &[0, 1, 2, 3])));
    // Told to give two up, it lives on, but keeps them.
    bench.join("c", &["t"]);
    for _ in 0..12 {
        let reply = bench.beat(plain("b", b.member_epoch)).unwrap();
        assert_eq!(reply.member_epoch, b.member_epoch);
        bench.beat(plain("c", 6)).ok();
        bench.pass(5_000);
        bench.tick();
    }
    assert!(!bench.group.members.contains_key("b"));
    let told = bench.group.take_told();
    assert!(
        told.last()
            .unwrap()
            .why
            .contains("did not give its partitions up"),
        "{told:?}"
    );
}

#[test]
fn a_static_member_comes_back_to_what_it_had_under_another_id() {
    let mut bench = Bench::new(&[("t", 4)]);
    let as_static = |beat: ConsumerHeartbeat| ConsumerHeartbeat {
        instance_id: Some("i".to_owned()),
        ..beat
    };
    let a = bench.beat(as_static(joining("a", &["t"]))).unwrap();
    let taken = bench.beat(as_static(joining("b", &["t"]))).unwrap_err();
    assert_eq!(taken.error, GroupError::UnreleasedInstanceId);
    let left = bench.beat(as_static(plain("a", -2))).unwrap();
    assert_eq!((left.member_epoch, left.heartbeat_interval_ms), (-2, 0));
    let other = bench.join("other", &["t"]);
    assert_eq!(
        bench.assignment(&other),
        Some(Has::new()),
        "they wait for it"
    );
    let b = bench.beat(as_static(joining("b", &["t"]))).unwrap();
    assert!(b.member_epoch > a.member_epoch);
    assert_eq!(bench.assignment(&b), Some(has("t", &[0, 1])));
    let fenced = bench.beat(as_static(plain("a", 2))).unwrap_err();
    assert_eq!(fenced.error, GroupError::FencedInstanceId);
    assert_eq!(bench.group.members.len(), 2);
    bench.beat(as_static(plain("b", -1))).unwrap();
    let unknown = bench.beat(as_static(plain("b", -1))).unwrap_err();
    assert_eq!(unknown.error, GroupError::UnknownMemberId);
}

#[test]
fn topics_that_come_grow_and_go_make_a_new_target() {
    let mut bench = Bench::new(&[("t", 2), ("other", 1)]);
    let beat = ConsumerHeartbeat {
        topics: None,
        regex: Some("t.*".to_owned()),
        ..joining("a", &[])
    };
    let a = bench.beat(beat).unwrap();
    assert_eq!(bench.assignment(&a), Some(has("t", &[0, 1])));
    bench.topics.put("t", 3);
    let a = bench.beat(plain("a", a.member_epoch)).unwrap();
    assert_eq!(bench.assignment(&a), Some(has("t", &[0, 1, 2])));
    // A topic that only an expression names is found when that is resolved again.
    bench.topics.put("t2", 1);
    let same = bench.beat(plain("a", a.member_epoch)).unwrap();
    assert_eq!(same.assignment, None);
    bench.pass(10_000);
    let a = bench.beat(plain("a", a.member_epoch)).unwrap();
    let both = bench.assignment(&a).unwrap();
    assert_eq!(
        both,
        Has::from([("t".to_owned(), vec![0, 1, 2]), ("t2".to_owned(), vec![0])])
    );
    assert!(bench.group.subscribes("t2") && !bench.group.subscribes("other"));
    let bad = ConsumerHeartbeat {
        regex: Some("(".to_owned()),
        ..joining("b", &[])
    };
    let refused = bench.beat(bad).unwrap_err();
    assert_eq!(refused.error, GroupError::InvalidRegularExpression);
    assert_eq!(bench.group.members.len(), 1);
}

#[test]
fn an_expression_that_would_take_gigabytes_is_refused_before_it_is_compiled() {
    let mut bench = Bench::new(&[("t", 1)]);
    let with = |pattern: &str, beat: ConsumerHeartbeat| ConsumerHeartbeat {
        topics: None,
        regex: Some(pattern.to_owned()),
        ..beat
    };
    let letters = r"\pL".repeat(349_000);
    let joins = with(&letters, joining("a", &[]));
    let refused = ConsumerGroup::check_new(&joins).unwrap_err();
    assert_eq!(refused.error, GroupError::InvalidRegularExpression);
    assert!(refused.message.len() < 200, "{}", refused.message.len());
    assert_eq!(bench.beat(joins).unwrap_err(), refused);
    let a = bench.beat(with("t", joining("a", &[]))).unwrap();
    let refused = bench.beat(with(&letters, plain("a", a.member_epoch)));
    let refused = refused.unwrap_err();
    assert_eq!(refused.error, GroupError::InvalidRegularExpression);
    let deep = "(".repeat(2000) + &")".repeat(2000);
    let refused = bench.beat(with(&deep, plain("a", a.member_epoch)));
    let refused = refused.unwrap_err();
    assert_eq!(refused.error, GroupError::InvalidRegularExpression);
    let longest = "t".repeat(4096);
    bench
        .beat(with(&longest, plain("a", a.member_epoch)))
        .unwrap();
}

#[test]
fn an_expression_matches_no_topic_that_the_member_may_not_know_of() {
    let mut bench = Bench::new(&[("t-open", 1), ("t-hidden", 1)]);
    let by = |hidden: bool, beat: ConsumerHeartbeat| ConsumerHeartbeat {
        visible: VisibleTopics::of(move |topic| !hidden || topic != "t-hidden"),
        ..beat
    };
    let joins = ConsumerHeartbeat {
        topics: None,
        regex: Some("t-.*".to_owned()),
        ..joining("a", &[])
    };
    let a = bench.beat(by(true, joins)).unwrap();
    assert_eq!(bench.assignment(&a), Some(has("t-open", &[0])));
    // After it was read again by another coordinator, without anybody's rights, the next heartbeat decides.
    let all = VisibleTopics::default();
    bench
        .group
        .subscriptions
        .resolve_unchecked(0, &bench.topics);
    assert!(bench.group.subscribes("t-hidden"));
    let a = bench.beat(by(true, plain("a", a.member_epoch))).unwrap();
    assert!(!bench.group.subscribes("t-hidden"));
    // With new rights it is there once topics changed.
    bench.topics.put("other", 1);
    bench.pass(REGEX_REFRESH_MIN_MS);
    let beat = ConsumerHeartbeat {
        visible: all,
        ..plain("a", a.member_epoch)
    };
    bench.beat(beat).unwrap();
    assert!(bench.group.subscribes("t-hidden"));
}

#[test]
fn targets_are_made_once_in_an_interval() {
    let mut bench = Bench::new(&[("t", 4)]);
    bench.settings.assignment_interval_ms = 1_000;
    bench.join("a", &["t"]);
    bench.pass(1);
    let b = bench.join("b", &["t"]);
    let c = bench.join("c", &["t"]);
    assert_eq!(
        (b.member_epoch, c.member_epoch),
        (2, 2),
        "by the old target"
    );
    assert_eq!(bench.group.state(), "Assigning");
    assert_eq!(bench.group.next_deadline(), Some(2_000));
    bench.pass(999);
    bench.tick();
    assert_eq!(bench.group.state(), "Reconciling");
    assert_eq!(bench.group.assignment_epoch, bench.group.epoch);
}

#[test]
fn a_group_is_full_at_its_limit() {
    let mut bench = Bench::new(&[("t", 4)]);
    bench.settings.members_max = 1;
    bench.join("a", &["t"]);
    let refused = bench.beat(joining("b", &["t"])).unwrap_err();
    assert_eq!(refused.error, GroupError::GroupMaxSizeReached);
    bench.join("a", &["t"]);
}

#[test]
fn commits_of_an_older_epoch_are_taken_for_what_the_member_has_had_since() {
    let mut bench = Bench::new(&[("t", 4)]);
    bench.join("a", &["t"]);
    bench.join("b", &["t"]);
    bench.beat(plain("a", 2)).unwrap();
    bench.has("a", 2, &has("t", &[0, 1]));
    let id = bench.topics.id_of("t").unwrap();
    let kind = CommitKind::Plain { version: 9 };
    let allowed = bench.group.check_commit(("a", None, 2), kind).unwrap();
    assert_eq!(allowed.check(id, 0), Ok(()));
    assert_eq!(allowed.check(id, 2), Err(GroupError::StaleMemberEpoch));
    let all = bench.group.check_commit(("a", None, 3), kind).unwrap();
    assert_eq!(all.check(id, 2), Ok(()));
    let later = bench.group.check_commit(("a", None, 4), kind);
    assert_eq!(later.unwrap_err(), GroupError::StaleMemberEpoch);
    let old = CommitKind::Plain { version: 8 };
    let old = bench.group.check_commit(("a", None, 3), old);
    assert_eq!(old.unwrap_err(), GroupError::UnsupportedVersion);
    let outside = bench.group.check_commit(("", None, -1), kind);
    assert_eq!(outside.unwrap_err(), GroupError::UnknownMemberId);
    let outside = bench
        .group
        .check_commit(("", None, -1), CommitKind::Transactional);
    assert!(outside.is_ok());
}

#[test]
fn most_heartbeats_change_nothing_that_is_stored() {
    let mut bench = Bench::new(&[("t", 4)]);
    let a = bench.join("a", &["t"]);
    bench.group.take_unstored();
    let change = bench.group.change();
    for _ in 0..3 {
        let same = bench.beat(plain("a", a.member_epoch)).unwrap();
        assert_eq!((same.member_epoch, same.assignment), (a.member_epoch, None));
        // One that says everything, as after an error, is answered with everything.
        let beat = ConsumerHeartbeat {
            member_epoch: a.member_epoch,
            ..joining("a", &["t"])
        };
        let full = bench.beat(beat).unwrap();
        assert_eq!(bench.assignment(&full), Some(has("t", &[0, 1, 2, 3])));
    }
    assert!(bench.group.take_unstored().is_empty());
    assert_eq!(bench.group.change(), change);
}

#[test]
fn a_member_that_takes_anothers_id_leaves_nothing_of_it() {
    let mut bench = Bench::new(&[("t", 4)]);
    bench.join("a", &["t"]);
    let of_instance = |instance: &str, id: &str| ConsumerHeartbeat {
        instance_id: Some(instance.to_owned()),
        ..joining(id, &["t"])
    };
    // The same member, which has an instance id from now on, and then another one.
    for instance in ["i", "k"] {
        let a = bench.beat(of_instance(instance, "a")).unwrap();
        assert_eq!(bench.assignment(&a), Some(has("t", &[0, 1, 2, 3])));
        assert_eq!(bench.group.members.len(), 1);
    }
    let gone = bench.beat(ConsumerHeartbeat {
        instance_id: Some("i".to_owned()),
        ..plain("a", 2)
    });
    assert_eq!(gone.unwrap_err().error, GroupError::UnknownMemberId);
    // A static member that left comes back under the id of another one.
    bench.join("b", &["t"]);
    let leave = ConsumerHeartbeat {
        instance_id: Some("k".to_owned()),
        ..plain("a", -2)
    };
    bench.beat(leave).unwrap();
    bench.beat(of_instance("k", "b")).unwrap();
    assert_eq!(bench.group.members.len(), 1);
    bench
        .beat(ConsumerHeartbeat {
            instance_id: Some("k".to_owned()),
            ..plain("b", -1)
        })
        .unwrap();
    let c = bench.join("c", &["t"]);
    assert_eq!(
        bench.assignment(&c),
        Some(has("t", &[0, 1, 2, 3])),
        "nobody has any of it"
    );
    assert!(!bench.group.subscribes("u"));
}
