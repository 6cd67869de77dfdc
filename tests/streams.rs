//! Streams groups (KIP-1071) over the wire: topics that a topology needs, tasks, what is stored, and what other protocols see.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::time::{Duration, Instant};

use cluster::Cluster;
use common::{Client, Running};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::streams_group_heartbeat_request::{
    KeyValue, Subtopology, TaskIds, TopicInfo, Topology,
};
use metaq_protocol::messages::*;
use metaq_protocol::protocol::StrBytes;

const GROUP: &str = "app";
const VERSION: i16 = 1;
/// Codes of what members are told besides.
const MISSING_INTERNAL_TOPICS: i8 = 3;
const ASSIGNMENT_DELAYED: i8 = 5;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn broker(dir: &tempfile::TempDir) -> Running {
    let settings = [
        "numPartitions=2",
        "group.streams.initial.rebalance.delay.ms=0",
    ];
    Running::start(dir.path(), &settings)
}

fn internal(name: &str) -> TopicInfo {
    let config = KeyValue::default()
        .with_key(text("cleanup.policy"))
        .with_value(text("compact"));
    TopicInfo::default()
        .with_name(common::name(name))
        .with_topic_configs(vec![config])
}

/// Part 0 reads `t` and writes `words`, part 1 counts those.
fn counting() -> Topology {
    let reads = Subtopology::default()
        .with_subtopology_id(text("0"))
        .with_source_topics(vec![common::name("t")])
        .with_repartition_sink_topics(vec![common::name("words")]);
    let counts = Subtopology::default()
        .with_subtopology_id(text("1"))
        .with_repartition_source_topics(vec![internal("words")])
        .with_state_changelog_topics(vec![internal("counts")]);
    Topology::default().with_subtopologies(vec![reads, counts])
}

fn plain(member: &str, epoch: i32) -> StreamsGroupHeartbeatRequest {
    plain_of(GROUP, member, epoch)
}

fn plain_of(group: &str, member: &str, epoch: i32) -> StreamsGroupHeartbeatRequest {
    StreamsGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(member))
        .with_member_epoch(epoch)
}

fn joining(member: &str, topology: Topology) -> StreamsGroupHeartbeatRequest {
    plain(member, 0)
        .with_topology(Some(topology))
        .with_rebalance_timeout_ms(60_000)
        .with_process_id(Some(text(member)))
        .with_active_tasks(Some(Vec::new()))
        .with_standby_tasks(Some(Vec::new()))
        .with_warmup_tasks(Some(Vec::new()))
}

fn tasks(told: &StreamsGroupHeartbeatResponse) -> Vec<(String, Vec<i32>)> {
    let tasks = told.active_tasks.iter().flatten();
    tasks
        .map(|of| (of.subtopology_id.to_string(), of.partitions.clone()))
        .collect()
}

/// Joins, and reports until the member has so many tasks.
fn join(client: &mut Client, member: &str, count: usize) -> (i32, Vec<(String, Vec<i32>)>) {
    let mut told = client.ask(VERSION, &joining(member, counting()));
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        assert_eq!(told.error_code, 0, "{:?}", told.error_message);
        let has = tasks(&told);
        if has.iter().map(|(_, of)| of.len()).sum::<usize>() == count {
            return (told.member_epoch, has);
        }
        assert!(Instant::now() < until, "{told:?}");
        std::thread::sleep(Duration::from_millis(50));
        told = client.ask(VERSION, &plain(member, told.member_epoch));
    }
}

fn create(client: &mut Client, topic: &str) {
    let topic = create_topics_request::CreatableTopic::default()
        .with_name(common::name(topic))
        .with_num_partitions(2)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    assert_eq!(client.ask(5, &request).topics[0].error_code, 0);
}

fn commit(client: &mut Client, member: &str, epoch: i32) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(common::name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(epoch)
        .with_topics(vec![topic]);
    client.ask(9, &request).topics[0].partitions[0].error_code
}

#[test]
fn the_topics_of_an_application_are_made_and_its_tasks_are_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    create(&mut client, "t");
    let first = client.ask(VERSION, &joining("a", counting()));
    let status = &first.status.as_ref().unwrap()[0];
    assert_eq!(status.status_code, MISSING_INTERNAL_TOPICS);
    assert!(status.status_detail.contains("counts, words"), "{status:?}");
    assert!(first.member_epoch > 0);
    // They are there by the time of the answer.
    let second = client.ask(VERSION, &plain("a", first.member_epoch));
    let both = vec![("0".to_owned(), vec![0, 1]), ("1".to_owned(), vec![0, 1])];
    assert_eq!(tasks(&second), both);
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("counts"))
        .with_configuration_keys(Some(vec![text("cleanup.policy")]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let configs = client.ask(1, &request);
    let value = configs.results[0].configs[0].value.clone();
    assert_eq!(value.as_deref(), Some("compact"));
    // Other protocols see it, and are refused.
    let listed = client.ask(5, &ListGroupsRequest::default());
    let group = &listed.groups[0];
    assert_eq!(
        (&*group.group_type, &*group.protocol_type),
        ("streams", "streams")
    );
    assert_eq!(&*group.group_state, "Stable");
    let beat = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text("x"))
        .with_rebalance_timeout_ms(1000)
        .with_subscribed_topic_names(Some(vec![common::name("t")]))
        .with_topic_partitions(Some(Vec::new()));
    let refused = client.ask(1, &beat);
    assert_eq!(refused.error_code, ResponseError::GroupIdNotFound.code());
    assert_eq!(
        refused.error_message.as_deref(),
        Some("Group app is not a consumer group.")
    );
    let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(GROUP))]);
    let deleted = client.ask(2, &request).results[0].error_code;
    assert_eq!(deleted, ResponseError::NonEmptyGroup.code());
    client.ask(VERSION, &plain("a", -1));
    assert_eq!(client.ask(2, &request).results[0].error_code, 0);
    broker.stop();
}

#[test]
fn the_controller_makes_the_topics_where_another_broker_coordinates_the_application() {
    let cluster = Cluster::start(2, &["group.streams.initial.rebalance.delay.ms=0"]);
    cluster.create(0, "t", 2);
    let other = cluster.other_than(cluster.nodes[0].controller());
    let group = cluster.group_of(other.id);
    let mut client = other.client();
    let join = joining("a", counting()).with_group_id(GroupId(text(&group)));
    let first = client.ask(VERSION, &join);
    assert_eq!(first.error_code, 0, "{:?}", first.error_message);
    let status = &first.status.as_ref().unwrap()[0];
    assert_eq!(status.status_code, MISSING_INTERNAL_TOPICS);
    assert!(
        !status.status_detail.contains("Creation failed"),
        "{status:?}"
    );
    let second = client.ask(VERSION, &plain_of(&group, "a", first.member_epoch));
    let both = vec![("0".to_owned(), vec![0, 1]), ("1".to_owned(), vec![0, 1])];
    assert_eq!(tasks(&second), both, "{second:?}");
}

#[test]
fn members_keep_their_tasks_and_their_offsets_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = broker(&dir);
    let mut client = first.client();
    create(&mut client, "t");
    let (epoch, _) = join(&mut client, "a", 4);
    assert_eq!(commit(&mut client, "a", epoch), 0);
    assert_eq!(
        commit(&mut client, "a", epoch + 1),
        ResponseError::StaleMemberEpoch.code()
    );
    assert_eq!(
        commit(&mut client, "b", epoch),
        ResponseError::UnknownMemberId.code()
    );
    first.stop();
    let second = broker(&dir);
    let mut client = second.client();
    let told = client.ask(VERSION, &plain("a", epoch));
    assert_eq!((told.error_code, told.member_epoch), (0, epoch));
    assert_eq!(told.active_tasks, None, "nothing changed");
    assert_eq!(told.status, Some(Vec::new()));
    let request = StreamsGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(GROUP))]);
    let described = client.ask(VERSION, &request);
    let group = &described.groups[0];
    assert_eq!((&*group.group_state, group.group_epoch), ("Stable", epoch));
    assert_eq!(group.assignor_name.as_deref(), Some("sticky"));
    let nameless = StreamsGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(""))]);
    let nameless = &client.ask(VERSION, &nameless).groups[0];
    let invalid = ResponseError::InvalidGroupId.code();
    assert_eq!(
        (nameless.error_code, &nameless.error_message),
        (invalid, &None)
    );
    let member = &group.members[0];
    assert_eq!(member.assignment, member.target_assignment);
    let parts = group.topology.as_ref().unwrap().subtopologies.as_ref();
    let counts = &parts.unwrap()[1];
    assert_eq!(counts.state_changelog_topics[0].partitions, 2);
    // It has lost what it was told: it hears it again.
    let owns = plain("a", epoch)
        .with_active_tasks(Some(Vec::new()))
        .with_standby_tasks(Some(Vec::new()))
        .with_warmup_tasks(Some(Vec::new()));
    let told = client.ask(VERSION, &owns);
    assert_eq!(tasks(&told).len(), 2);
    second.stop();
}

#[test]
fn a_task_changes_hands_when_it_was_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let (mut client, mut other) = (broker.client(), broker.client());
    create(&mut client, "t");
    let (a, _) = join(&mut client, "a", 4);
    let b = other.ask(VERSION, &joining("b", counting()));
    assert_eq!(tasks(&b), []);
    // The target is made once in a second.
    let until = Instant::now() + Duration::from_secs(10);
    let told = loop {
        let told = client.ask(VERSION, &plain("a", a));
        if told.active_tasks.is_some() {
            break told;
        }
        let delayed = told.status.iter().flatten();
        assert!(Instant::now() < until, "{told:?}");
        let codes: Vec<i8> = delayed.map(|status| status.status_code).collect();
        assert!(codes.is_empty() || codes == [ASSIGNMENT_DELAYED]);
        std::thread::sleep(Duration::from_millis(50));
    };
    let kept = told.active_tasks.unwrap().into_iter().map(|of| {
        TaskIds::default()
            .with_subtopology_id(of.subtopology_id)
            .with_partitions(of.partitions)
    });
    let gave_up = plain("a", told.member_epoch)
        .with_active_tasks(Some(kept.collect()))
        .with_standby_tasks(Some(Vec::new()))
        .with_warmup_tasks(Some(Vec::new()));
    assert_eq!(client.ask(VERSION, &gave_up).error_code, 0);
    let b = other.ask(VERSION, &plain("b", b.member_epoch));
    let count: usize = tasks(&b).iter().map(|(_, of)| of.len()).sum();
    assert_eq!(count, 2);
    broker.stop();
}

#[test]
fn what_no_broker_can_run_is_refused_with_a_text() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    let invalid = ResponseError::InvalidRequest.code();
    let topology = ResponseError::StreamsInvalidTopology.code();
    let of_offsets = Subtopology::default()
        .with_subtopology_id(text("0"))
        .with_source_topics(vec![common::name("__consumer_offsets")]);
    let with_name = |name: &str| {
        let part = Subtopology::default()
            .with_subtopology_id(text("0"))
            .with_source_topics(vec![common::name(name)]);
        Topology::default().with_subtopologies(vec![part])
    };
    let twice = with_name("t").with_subtopologies(vec![
        Subtopology::default().with_source_topics(vec![common::name("t")]),
        Subtopology::default().with_source_topics(vec![common::name("t")]),
    ]);
    let counted = internal("counts").with_partitions(3);
    let fixed = Subtopology::default()
        .with_source_topics(vec![common::name("t")])
        .with_state_changelog_topics(vec![counted]);
    let by_regex = Subtopology::default().with_source_topic_regex(vec![text("t.*")]);
    let of = |part| Topology::default().with_subtopologies(vec![part]);
    let cases = [
        (joining("", counting()), invalid, "MemberId can't be empty."),
        (
            joining("a", counting()).with_rebalance_timeout_ms(-1),
            invalid,
            "RebalanceTimeoutMs must be provided in first request.",
        ),
        (
            joining("a", counting()).with_topology(None),
            invalid,
            "Topology must be non-null when (re-)joining.",
        ),
        (
            joining("a", counting()).with_standby_tasks(None),
            invalid,
            "If one task-type is non-null, all must be non-null.",
        ),
        (
            plain("a", -3),
            invalid,
            "MemberEpoch is -3, but must be greater than or equal to -2.",
        ),
        (plain("a", -2), invalid, "InstanceId can't be null."),
        (
            plain("a", 1).with_topology(Some(counting())),
            invalid,
            "Topology can only be provided when (re-)joining.",
        ),
        (
            plain("a", 1),
            ResponseError::GroupIdNotFound.code(),
            "Streams group app not found.",
        ),
        (
            joining("a", of(of_offsets)),
            topology,
            "Use of Kafka internal topics __consumer_offsets in a Kafka Streams topology is prohibited.",
        ),
        (
            joining("a", with_name("a/b")),
            topology,
            "Topic names a/b are not valid topic names.",
        ),
        (
            joining("a", twice),
            topology,
            "Subtopology  is named twice.",
        ),
        (
            joining("a", of(fixed)),
            topology,
            "Changelog topic counts must have an undefined partition count, but it is set to 3.",
        ),
        (
            joining("a", of(by_regex)),
            invalid,
            "Regular expressions for source topics are not supported yet.",
        ),
    ];
    for (request, code, why) in cases {
        let told = client.ask(VERSION, &request);
        assert_eq!(told.error_code, code, "{why}");
        assert_eq!(told.error_message.as_deref(), Some(why));
    }
    let listed = client.ask(5, &ListGroupsRequest::default());
    assert_eq!(
        listed.groups.len(),
        0,
        "nothing is left of what was refused"
    );
    broker.stop();
}
