//! Answers that would be many times as large as what asks for them: the same group is named thousands of times.

mod common;

use common::{Client, Running};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use metaq_protocol::messages::list_config_resources_response::ConfigResource;
use metaq_protocol::messages::streams_group_heartbeat_request::{Subtopology, Topology};
use metaq_protocol::messages::*;
use metaq_protocol::protocol::StrBytes;

/// As often as a request may name groups.
const TIMES: usize = 10_000;
const TOPICS: usize = 40;
const INVALID: i16 = ResponseError::InvalidRequest.code();

fn group() -> GroupId {
    GroupId(StrBytes::from_static_str("g"))
}

fn names() -> Vec<TopicName> {
    let long = "n".repeat(200);
    (0..TOPICS)
        .map(|n| common::name(&format!("{long}{n}")))
        .collect()
}

fn broker(dir: &tempfile::TempDir) -> Running {
    let settings = ["numPartitions=1", "group.share.assignment.interval.ms=0"];
    Running::start(dir.path(), &settings)
}

/// The first are told of, and the others are refused with a text that says what to do.
fn first_are_told(told: impl IntoIterator<Item = (i16, Option<StrBytes>)>) {
    let told: Vec<_> = told.into_iter().collect();
    assert_eq!(told.len(), TIMES);
    assert_eq!(told[0].0, 0, "{:?}", told[0]);
    let refused = told.iter().position(|(code, _)| *code != 0).unwrap();
    assert!(refused > TIMES / 20, "{refused}");
    for (code, why) in &told[refused..] {
        assert_eq!(*code, INVALID);
        let why = why.as_deref().unwrap_or_default();
        assert!(why.contains("larger than 32 MiB"), "{why}");
    }
}

/// A share group with one member that reads all topics.
fn share_group(client: &mut Client) {
    for name in names() {
        client.create(&name);
    }
    let beat = ShareGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(StrBytes::from_static_str("a"))
        .with_subscribed_topic_names(Some(names()));
    let joined = client.ask(1, &beat);
    assert_eq!(joined.error_code, 0, "{:?}", joined.error_message);
    let assigned = joined.assignment.unwrap().topic_partitions;
    assert_eq!(assigned.len(), TOPICS);
}

#[test]
fn a_share_group_that_is_named_over_and_over_is_described_as_often_as_an_answer_holds() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    share_group(&mut client);
    let request = ShareGroupDescribeRequest::default().with_group_ids(vec![group(); TIMES]);
    let told = client.ask(1, &request).groups.into_iter();
    first_are_told(told.map(|group| (group.error_code, group.error_message)));
    let asked = DescribeShareGroupOffsetsRequestGroup::default()
        .with_group_id(group())
        .with_topics(None);
    let request = DescribeShareGroupOffsetsRequest::default().with_groups(vec![asked; TIMES]);
    let told = client.ask(1, &request).groups.into_iter();
    first_are_told(told.map(|group| (group.error_code, group.error_message)));
    broker.stop();
}

#[test]
fn a_streams_group_that_is_named_over_and_over_is_described_as_often_as_an_answer_holds() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    let part = Subtopology::default()
        .with_subtopology_id(StrBytes::from_static_str("0"))
        .with_source_topics(names());
    let topology = Topology::default().with_subtopologies(vec![part]);
    let beat = StreamsGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(StrBytes::from_static_str("a"))
        .with_topology(Some(topology))
        .with_rebalance_timeout_ms(60_000)
        .with_process_id(Some(StrBytes::from_static_str("a")))
        .with_active_tasks(Some(Vec::new()))
        .with_standby_tasks(Some(Vec::new()))
        .with_warmup_tasks(Some(Vec::new()));
    let joined = client.ask(1, &beat);
    assert_eq!(joined.error_code, 0, "{:?}", joined.error_message);
    let request = StreamsGroupDescribeRequest::default().with_group_ids(vec![group(); TIMES]);
    let told = client.ask(1, &request).groups.into_iter();
    first_are_told(told.map(|group| (group.error_code, group.error_message)));
    broker.stop();
}

#[test]
fn a_type_of_configurations_that_is_named_over_and_over_is_listed_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    client.create("t");
    let request = ListConfigResourcesRequest::default().with_resource_types(vec![2; 900]);
    let told = client.ask(1, &request);
    let is_topic = |found: &&ConfigResource| &*found.resource_name == "t";
    let times = told.config_resources.iter().filter(is_topic).count();
    assert_eq!((told.error_code, times), (0, 1));
    broker.stop();
}
