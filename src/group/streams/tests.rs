//! Streams groups, step by step.

mod limits;

mod memory;

use std::collections::BTreeMap;

use super::*;
use crate::coordinator::{Parts, StoredId};
use crate::group::limits::MEMBER_OVERHEAD_BYTES;
use crate::group::reserved::GroupMemory;
use crate::group::testing::{SomeTopics, streams_settings};
use crate::meta::streams_records::{CopartitionGroup, InternalTopicRecord, Subtopology};
use crate::meta::{Node, Op, paths};

pub(super) fn internal(name: &str, partitions: i32) -> InternalTopicRecord {
    InternalTopicRecord {
        name: name.to_owned(),
        partitions,
        replication_factor: 0,
        configs: BTreeMap::new(),
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Part 0 reads `in` and writes `words`; part 1 counts those in a store with a changelog.
pub(super) fn counting() -> Topology {
    let reads = Subtopology {
        source_topics: names(&["in"]),
        repartition_sink_topics: names(&["words"]),
        ..Subtopology::default()
    };
    let counts = Subtopology {
        repartition_source_topics: vec![internal("words", 0)],
        changelog_topics: vec![internal("counts", 0)],
        ..Subtopology::default()
    };
    topology([reads, counts])
}

fn topology(parts: impl IntoIterator<Item = Subtopology>) -> Topology {
    let parts = parts.into_iter().enumerate();
    Topology {
        epoch: 0,
        subtopologies: parts.map(|(n, part)| (n.to_string(), part)).collect(),
    }
}

/// A join as Kafka Streams says it.
pub(super) fn joining(member_id: &str, process: &str, topology: Topology) -> StreamsHeartbeat {
    StreamsHeartbeat {
        member_id: member_id.to_owned(),
        rebalance_timeout_ms: Some(60_000),
        topology: Some(topology),
        owned: Some(OwnedLists::default()),
        process_id: Some(process.to_owned()),
        client_tags: Some(BTreeMap::new()),
        version: 1,
        ..StreamsHeartbeat::default()
    }
}

/// A heartbeat that says nothing new.
pub(super) fn plain(member_id: &str, member_epoch: i32) -> StreamsHeartbeat {
    StreamsHeartbeat {
        member_id: member_id.to_owned(),
        member_epoch,
        version: 1,
        ..StreamsHeartbeat::default()
    }
}

/// What a record written by [`ops`] is read as.
pub(super) fn read_back(
    group: &StreamsGroup,
    settings: &StreamsSettings,
    now_ms: i64,
) -> StreamsGroup {
    let (ops, _) = ops("g", group, &mut Parts::default());
    let nodes = ops.into_iter().filter_map(|op| match op {
        Op::Put { path, data, .. } => {
            let node = Node {
                data,
                version: 0,
                ephemeral: false,
            };
            Some((path, node))
        }
        _ => None,
    });
    let nodes: Vec<(String, Node)> = nodes.collect();
    assert_eq!(nodes[0].0, paths::group("g"));
    let id = "g".to_owned();
    let memory = GroupMemory::new(usize::MAX);
    let stored = StoredId { id, nodes };
    let group = load(&stored, settings, &memory, now_ms).unwrap().0;
    let less = MEMBER_OVERHEAD_BYTES * group.members.len();
    assert!(memory.taken() >= less, "members count");
    group
}

struct Bench {
    group: StreamsGroup,
    topics: SomeTopics,
    settings: StreamsSettings,
    now_ms: i64,
}

impl Bench {
    fn new(topics: &[(&str, i32)]) -> Self {
        Self {
            group: StreamsGroup::new(),
            topics: SomeTopics::new(topics),
            settings: streams_settings(),
            now_ms: 1000,
        }
    }

    fn ready() -> Self {
        Self::new(&[("in", 2), ("words", 2), ("counts", 2)])
    }

    fn ask(&mut self, beat: StreamsHeartbeat) -> Result<StreamsReply, (GroupError, String)> {
        let answered = self
            .group
            .heartbeat(self.now_ms, ("g", beat), &self.settings, &self.topics);
        answered.map_err(|refusal| (refusal.error, refusal.message))
    }

    fn join(&mut self, id: &str, process: &str) -> StreamsReply {
        self.ask(joining(id, process, counting())).unwrap()
    }

    /// A heartbeat that says what the member has.
    fn owning(&mut self, id: &str, epoch: i32, active: &[(&str, &[i32])]) -> StreamsReply {
        let active = active.iter();
        let active = active.map(|(name, partitions)| ((*name).to_owned(), partitions.to_vec()));
        let owned = OwnedLists {
            active: active.collect(),
            ..OwnedLists::default()
        };
        let beat = StreamsHeartbeat {
            owned: Some(owned),
            ..plain(id, epoch)
        };
        self.ask(beat).unwrap()
    }
}

fn codes(reply: &StreamsReply) -> Vec<StatusCode> {
    reply.statuses.iter().map(|status| status.code).collect()
}

fn active(reply: &StreamsReply) -> Vec<(String, Vec<i32>)> {
    reply.tasks.clone().unwrap().active
}

fn lists(lists: &[(&str, &[i32])]) -> Vec<(String, Vec<i32>)> {
    let lists = lists.iter();
    lists
        .map(|(name, partitions)| ((*name).to_owned(), partitions.to_vec()))
        .collect()
}

#[test]
fn the_first_member_has_topics_made_and_then_all_tasks() {
    let mut bench = Bench::new(&[]);
    let told = bench.join("a", "p");
    assert_eq!(codes(&told), [StatusCode::MissingSourceTopics]);
    assert_eq!(told.statuses[0].detail, "Source topics in are missing.");
    assert_eq!(bench.group.state(), "NotReady");
    bench.topics.put("in", 3);
    let told = bench.ask(plain("a", told.member_epoch)).unwrap();
    assert_eq!(codes(&told), [StatusCode::MissingInternalTopics]);
    let made: Vec<(&str, i32)> = told
        .to_create
        .iter()
        .map(|topic| (&*topic.name, topic.partitions))
        .collect();
    assert_eq!(made, [("words", 3), ("counts", 3)]);
    assert_eq!(told.heartbeat_interval_ms, 500);
    bench.topics.put("words", 3);
    bench.topics.put("counts", 3);
    let told = bench.ask(plain("a", told.member_epoch)).unwrap();
    assert_eq!(codes(&told), []);
    assert_eq!(
        active(&told),
        lists(&[("0", &[0, 1, 2]), ("1", &[0, 1, 2])])
    );
    assert_eq!(bench.group.state(), "Stable");
    assert_eq!(told.heartbeat_interval_ms, 5000);
    // Nothing more to say.
    let told = bench.ask(plain("a", told.member_epoch)).unwrap();
    assert_eq!(told.tasks, None);
}

#[test]
fn a_task_changes_hands_only_when_it_was_given_up() {
    let mut bench = Bench::ready();
    let a = bench.join("a", "p");
    assert_eq!(active(&a), lists(&[("0", &[0, 1]), ("1", &[0, 1])]));
    let b = bench.join("b", "q");
    assert_eq!(active(&b), [], "a has everything");
    assert_eq!(bench.group.state(), "Reconciling");
    let a = bench.ask(plain("a", a.member_epoch)).unwrap();
    let kept = active(&a);
    assert_eq!(kept.iter().map(|(_, of)| of.len()).sum::<usize>(), 2);
    let b = bench.ask(plain("b", b.member_epoch)).unwrap();
    assert_eq!(b.tasks, None, "a has not said that it gave up");
    let owned: Vec<(&str, &[i32])> = kept.iter().map(|(name, of)| (&**name, &**of)).collect();
    let a = bench.owning("a", a.member_epoch, &owned);
    let b = bench.ask(plain("b", b.member_epoch)).unwrap();
    assert_eq!(active(&b).iter().map(|(_, of)| of.len()).sum::<usize>(), 2);
    assert_eq!(a.member_epoch, b.member_epoch);
    assert_eq!(bench.group.state(), "Stable");
}

#[test]
fn who_does_not_give_up_in_time_is_thrown_out_and_who_is_silent_too() {
    let mut bench = Bench::ready();
    let a = bench.join("a", "p");
    bench.join("b", "q");
    bench.ask(plain("a", a.member_epoch)).unwrap();
    for _ in 0..6 {
        bench.now_ms += 10_000;
        let a = bench.group.members.get("a").map(|member| member.epoch);
        let b = bench.group.members["b"].epoch;
        bench.group.tick(bench.now_ms, &bench.settings);
        if let Some(epoch) = a
            && bench.group.members.contains_key("a")
        {
            bench.ask(plain("a", epoch)).unwrap();
        }
        bench.ask(plain("b", b)).unwrap();
    }
    assert!(!bench.group.members.contains_key("a"));
    let b = bench.group.members["b"].assigned.active.tasks().lists();
    assert_eq!(b.values().map(Vec::len).sum::<usize>(), 4);
    bench.now_ms += 45_000;
    bench.group.tick(bench.now_ms, &bench.settings);
    assert_eq!(bench.group.state(), "Empty");
}

#[test]
fn the_first_target_waits_for_more_members() {
    let mut bench = Bench::ready();
    bench.settings.initial_rebalance_delay_ms = 3000;
    let a = bench.join("a", "p");
    assert_eq!(codes(&a), [StatusCode::AssignmentDelayed]);
    assert!(a.member_epoch > 0, "a member that joined has an epoch");
    let b = bench.join("b", "q");
    assert_eq!(codes(&b), [StatusCode::AssignmentDelayed]);
    bench.now_ms += 3000;
    assert_eq!(bench.group.next_deadline(), Some(bench.now_ms));
    bench.group.tick(bench.now_ms, &bench.settings);
    let a = bench.ask(plain("a", a.member_epoch)).unwrap();
    let b = bench.ask(plain("b", b.member_epoch)).unwrap();
    for told in [a, b] {
        let tasks = active(&told);
        assert_eq!(tasks.iter().map(|(_, of)| of.len()).sum::<usize>(), 2);
    }
}

#[test]
fn a_static_member_comes_back_to_its_tasks_without_a_rebalance() {
    let mut bench = Bench::ready();
    let as_static = |id: &str| StreamsHeartbeat {
        instance_id: Some("i".to_owned()),
        ..joining(id, "p", counting())
    };
    let a = bench.ask(as_static("a")).unwrap();
    let epoch = bench.group.epoch;
    let (error, why) = bench.ask(as_static("b")).unwrap_err();
    assert_eq!(error, GroupError::UnreleasedInstanceId);
    assert!(
        why.contains("the instance id is owned by a member"),
        "{why}"
    );
    let leave = StreamsHeartbeat {
        instance_id: Some("i".to_owned()),
        ..plain("a", -2)
    };
    assert_eq!(bench.ask(leave).unwrap().member_epoch, -2);
    let b = bench.ask(as_static("b")).unwrap();
    assert_eq!(active(&b), active(&a));
    assert_eq!((bench.group.epoch, b.member_epoch), (epoch, epoch));
    let with_instance = StreamsHeartbeat {
        instance_id: Some("i".to_owned()),
        ..plain("a", epoch)
    };
    let (error, _) = bench.ask(with_instance).unwrap_err();
    assert_eq!(error, GroupError::FencedInstanceId);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut bench = Bench::ready();
    let (error, why) = bench.ask(plain("a", 3)).unwrap_err();
    assert_eq!(error, GroupError::UnknownMemberId);
    assert_eq!(why, "Member a is not a member of group g.");
    // A part that reads nothing, and one that reads what nobody writes.
    for (part, why) in [
        (Subtopology::default(), "No source topics found"),
        (
            Subtopology {
                repartition_source_topics: vec![internal("x", 0)],
                ..Subtopology::default()
            },
            "never used as a sink topic",
        ),
        (
            Subtopology {
                repartition_source_topics: vec![internal("x", 0)],
                repartition_sink_topics: names(&["x"]),
                ..Subtopology::default()
            },
            "There may be loops",
        ),
        (
            Subtopology {
                source_topics: names(&["in"]),
                copartition_groups: vec![CopartitionGroup {
                    source_topics: vec![0, 7],
                    ..CopartitionGroup::default()
                }],
                ..Subtopology::default()
            },
            "copartition group",
        ),
    ] {
        let (error, said) = bench.ask(joining("a", "p", topology([part]))).unwrap_err();
        assert_eq!(error, GroupError::StreamsInvalidTopology);
        assert!(said.contains(why), "{said}");
    }
    assert_eq!((bench.group.epoch, bench.group.members.len()), (1, 0));
    let a = bench.join("a", "p");
    let invalid = |name: &str, n: i32| StreamsHeartbeat {
        owned: Some(OwnedLists {
            active: vec![(name.to_owned(), vec![n])],
            ..OwnedLists::default()
        }),
        ..plain("a", a.member_epoch)
    };
    let (error, why) = bench.ask(invalid("9", 0)).unwrap_err();
    assert_eq!(error, GroupError::InvalidRequest);
    assert_eq!(why, "Subtopology 9 does not exist in the topology.");
    let (_, why) = bench.ask(invalid("0", 2)).unwrap_err();
    assert!(
        why.starts_with("Task 2 for subtopology 0 is invalid."),
        "{why}"
    );
    let (error, _) = bench.ask(plain("a", a.member_epoch + 1)).unwrap_err();
    assert_eq!(error, GroupError::FencedMemberEpoch);
    let mut other = counting();
    other.subtopologies.remove("1");
    let (error, why) = bench.ask(joining("b", "q", other)).unwrap_err();
    assert_eq!(error, GroupError::InvalidRequest);
    assert_eq!(why, "Topology updates are not supported yet.");
    bench.settings.members_max = 1;
    let (error, _) = bench.ask(joining("b", "q", counting())).unwrap_err();
    assert_eq!(error, GroupError::GroupMaxSizeReached);
}

#[test]
fn topics_that_are_read_together_have_the_same_number_of_partitions() {
    let part = |right: InternalTopicRecord| Subtopology {
        source_topics: names(&["left"]),
        repartition_source_topics: vec![right],
        copartition_groups: vec![CopartitionGroup {
            source_topics: vec![0],
            repartition_source_topics: vec![0],
        }],
        ..Subtopology::default()
    };
    let writer = Subtopology {
        source_topics: names(&["in"]),
        repartition_sink_topics: names(&["right"]),
        ..Subtopology::default()
    };
    let mut bench = Bench::new(&[("in", 2), ("left", 5)]);
    let told = bench
        .ask(joining(
            "a",
            "p",
            topology([part(internal("right", 0)), writer.clone()]),
        ))
        .unwrap();
    assert_eq!(told.to_create[0].partitions, 5, "as many as the other one");
    let mut bench = Bench::new(&[("in", 2), ("left", 5)]);
    let told = bench
        .ask(joining(
            "a",
            "p",
            topology([part(internal("right", 3)), writer]),
        ))
        .unwrap();
    assert_eq!(codes(&told), [StatusCode::IncorrectlyPartitionedTopics]);
    assert_eq!(
        told.statuses[0].detail,
        "Number of partitions [3] of repartition topic [right] doesn't match number of partitions [5] of the source topic."
    );
    let joined = Subtopology {
        source_topics: names(&["left", "in"]),
        copartition_groups: vec![CopartitionGroup {
            source_topics: vec![0, 1],
            ..CopartitionGroup::default()
        }],
        ..Subtopology::default()
    };
    let mut bench = Bench::new(&[("in", 2), ("left", 5)]);
    let told = bench.ask(joining("a", "p", topology([joined]))).unwrap();
    assert_eq!(
        told.statuses[0].detail,
        "Following topics do not have the same number of partitions: [{in=2, left=5}]"
    );
    let mut bench = Bench::new(&[("in", 2), ("words", 2), ("counts", 3)]);
    let told = bench.join("a", "p");
    assert_eq!(
        told.statuses[0].detail,
        "Existing topic counts has different number of partitions: expected 2, found 3"
    );
}

#[test]
fn offsets_are_committed_by_members_in_their_epoch_or_for_what_they_had_since() {
    let mut bench = Bench::ready();
    let a = bench.join("a", "p");
    let check = |bench: &Bench, id: &str, epoch: i32, version: Option<i16>| {
        let keys = [("in", 0), ("elsewhere", 0)];
        bench
            .group
            .check_commit((id, None, epoch), version, keys.into_iter())
    };
    let all = Ok(vec![Ok(()), Ok(())]);
    assert_eq!(check(&bench, "a", a.member_epoch, Some(9)), all);
    assert_eq!(
        check(&bench, "a", a.member_epoch, Some(8)),
        Err(GroupError::UnsupportedVersion)
    );
    assert_eq!(
        check(&bench, "", -1, Some(9)),
        Err(GroupError::UnknownMemberId)
    );
    assert_eq!(check(&bench, "", -1, None), all);
    assert_eq!(
        check(&bench, "a", a.member_epoch + 1, Some(9)),
        Err(GroupError::StaleMemberEpoch)
    );
    // Its tasks are its own since its first epoch: another epoch later it may still commit for them.
    bench.join("b", "q");
    let told = bench.ask(plain("a", a.member_epoch)).unwrap();
    let kept = active(&told);
    let owned: Vec<(&str, &[i32])> = kept.iter().map(|(name, of)| (&**name, &**of)).collect();
    bench.owning("a", told.member_epoch, &owned);
    let has_first = bench.group.members["a"].assigned.active.has("0", 0);
    let of_first = match has_first {
        true => Ok(()),
        false => Err(GroupError::StaleMemberEpoch),
    };
    assert_eq!(
        check(&bench, "a", a.member_epoch, Some(9)),
        Ok(vec![of_first, Err(GroupError::StaleMemberEpoch)])
    );
    assert_eq!(bench.group.check_fetch(None, -1), Ok(()));
    assert_eq!(
        bench.group.check_fetch(Some("a"), 1),
        Err(GroupError::StaleMemberEpoch)
    );
}

#[test]
fn members_are_told_what_concerns_them() {
    let mut bench = Bench::ready();
    bench.settings.rack_aware_tags = vec!["zone".to_owned()];
    let endpoint = |port| Endpoint {
        host: "h".to_owned(),
        port,
    };
    let a = bench
        .ask(StreamsHeartbeat {
            endpoint: Some(endpoint(1)),
            ..joining("a", "p", counting())
        })
        .unwrap();
    assert_eq!(codes(&a), [StatusCode::MissingClientTags]);
    let known = a.endpoints.unwrap();
    assert_eq!(known[0].endpoint, endpoint(1));
    assert_eq!(
        known[0].active,
        lists(&[("in", &[0, 1]), ("words", &[0, 1])])
    );
    let beat = StreamsHeartbeat {
        endpoint_epoch: a.endpoint_epoch,
        version: 0,
        ..plain("a", a.member_epoch)
    };
    let told = bench.ask(beat.clone()).unwrap();
    assert_eq!((told.endpoints, told.statuses), (None, vec![]));
    let mut newer = counting();
    newer.epoch = -1;
    bench.group.topology.as_mut().unwrap().epoch = 1;
    let stale = bench.ask(beat).unwrap();
    assert_eq!(codes(&stale)[0], StatusCode::StaleTopology);
    let ends = StreamsHeartbeat {
        shuts_down: true,
        ..plain("a", a.member_epoch)
    };
    let told = bench.ask(ends).unwrap();
    assert!(codes(&told).contains(&StatusCode::ShutdownApplication));
}

#[test]
fn standby_replicas_follow_the_configuration() {
    let mut bench = Bench::ready();
    let a = bench.join("a", "p");
    bench.join("b", "q");
    let told = bench.ask(plain("a", a.member_epoch)).unwrap();
    let kept = active(&told);
    let owned: Vec<(&str, &[i32])> = kept.iter().map(|(name, of)| (&**name, &**of)).collect();
    bench.owning("a", told.member_epoch, &owned);
    bench.settings.standby_replicas = 1;
    let epoch = bench.group.epoch;
    for id in ["a", "b", "a", "b"] {
        let epoch = bench.group.members[id].epoch;
        bench.ask(plain(id, epoch)).unwrap();
    }
    assert_eq!(bench.group.epoch, epoch + 1);
    let standby: usize = bench
        .group
        .members
        .values()
        .map(|member| member.assigned.standby.iter().count())
        .sum();
    assert_eq!(standby, 2, "part 1 keeps state");
}

#[test]
fn what_is_stored_is_what_is_read() {
    let mut bench = Bench::ready();
    bench.settings.standby_replicas = 1;
    let a = bench.join("a", "p");
    bench.join("b", "q");
    bench.ask(plain("a", a.member_epoch)).unwrap();
    let read = read_back(&bench.group, &bench.settings, bench.now_ms);
    assert_eq!(read.epoch, bench.group.epoch);
    assert_eq!(read.assignment_epoch, bench.group.assignment_epoch);
    assert_eq!(read.topology, bench.group.topology);
    assert_eq!(read.topics_hash, bench.group.topics_hash);
    assert_eq!(read.holders, bench.group.holders);
    for (id, member) in &bench.group.members {
        let found = &read.members[id];
        assert_eq!(found.metadata, member.metadata);
        assert_eq!(
            (found.state, found.epoch, found.previous_epoch),
            (member.state, member.epoch, member.previous_epoch)
        );
        assert_eq!(
            (&found.assigned, &found.revoking, &found.target),
            (&member.assigned, &member.revoking, &member.target)
        );
    }
    let described = read.describe();
    assert_eq!(described.members.len(), 2);
}
