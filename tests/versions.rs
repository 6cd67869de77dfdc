//! What the newest versions of APIs brought, as Apache Kafka 4.4 answers.

mod common;

use common::{Client, Running, batch, name};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_commit_response::OffsetCommitResponseTopic;
use metaq_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use metaq_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use metaq_protocol::messages::{
    ApiVersionsRequest, DeleteGroupsRequest, DeleteTopicsRequest, DescribeLogDirsRequest, GroupId,
    ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use metaq_protocol::protocol::StrBytes;
use uuid::Uuid;

fn group_id(group: &'static str) -> GroupId {
    GroupId(StrBytes::from_static_str(group))
}

fn topic_id(client: &mut Client, topic: &str) -> Uuid {
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    client.ask(12, &request).topics[0].topic_id
}

/// KIP-1023; there are no tiers, so nothing is about to be uploaded.
#[test]
fn the_earliest_offset_that_is_to_be_uploaded_is_unknown_without_tiers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(client.produce("t", batch(3)), (0, 0));
    let mut ask = |version, timestamp| {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic]);
        let partition = &client.ask(version, &request).topics[0].partitions[0];
        (
            partition.error_code,
            partition.offset,
            partition.timestamp,
            partition.leader_epoch,
        )
    };
    assert_eq!(ask(11, -6), (0, -1, -1, -1));
    assert_eq!(ask(11, -1), (0, 3, -1, 0));
    let unsupported = ResponseError::UnsupportedVersion.code();
    assert_eq!(ask(10, -6), (unsupported, -1, -1, -1));
    assert_eq!(ask(11, -7), (unsupported, -1, -1, -1));
    broker.stop();
}

/// Commits offset 5 to partitions 0 and 9 of a topic.
fn commit(client: &mut Client, version: i16, topic: &str, id: Uuid) -> OffsetCommitResponseTopic {
    let partition = |index| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(5)
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name(topic))
        .with_topic_id(id)
        .with_partitions(vec![partition(0), partition(9)]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id("g"))
        .with_topics(vec![topic]);
    client.ask(version, &request).topics.remove(0)
}

fn codes(topic: &OffsetCommitResponseTopic) -> Vec<i16> {
    let codes = topic
        .partitions
        .iter()
        .map(|partition| partition.error_code);
    codes.collect()
}

/// Fetches the offset of partition 0 of topics, or of all topics.
fn fetch(client: &mut Client, ids: Option<&[Uuid]>) -> OffsetFetchResponseGroup {
    let topic = |id: &Uuid| {
        OffsetFetchRequestTopics::default()
            .with_topic_id(*id)
            .with_partition_indexes(vec![0])
    };
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(group_id("g"))
        .with_topics(ids.map(|ids| ids.iter().map(topic).collect()));
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    client.ask(10, &request).groups.remove(0)
}

/// KIP-848.
#[test]
fn offsets_are_committed_and_fetched_by_topic_id() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.create("u");
    let (id, other, unknown) = (
        topic_id(&mut client, "t"),
        topic_id(&mut client, "u"),
        Uuid::from_u128(7),
    );
    let unknown_id = ResponseError::UnknownTopicId.code();
    let unknown_partition = ResponseError::UnknownTopicOrPartition.code();

    let committed = commit(&mut client, 10, "", id);
    assert_eq!((committed.topic_id, &*committed.name.0), (id, ""));
    assert_eq!(codes(&committed), [0, unknown_partition]);
    for nothing in [unknown, Uuid::nil()] {
        let refused = commit(&mut client, 10, "", nothing);
        assert_eq!(refused.topic_id, nothing);
        assert_eq!(codes(&refused), [unknown_id; 2]);
    }
    // By name as before.
    assert_eq!(
        codes(&commit(&mut client, 9, "u", Uuid::nil())),
        [0, unknown_partition]
    );
    let unnamed = commit(&mut client, 9, "nothing", Uuid::nil());
    assert_eq!(codes(&unnamed), [unknown_partition; 2]);

    let found = fetch(&mut client, Some(&[unknown, id, Uuid::nil(), other]));
    assert_eq!(found.error_code, 0);
    let seen = |group: &OffsetFetchResponseGroup| {
        let mut all: Vec<_> = group
            .topics
            .iter()
            .map(|topic| {
                let partition = &topic.partitions[0];
                assert_eq!(topic.partitions.len(), 1);
                assert_eq!(partition.metadata.as_deref(), Some(""));
                (
                    topic.topic_id,
                    partition.error_code,
                    partition.committed_offset,
                )
            })
            .collect();
        all.sort();
        all
    };
    let mut expected = [
        (Uuid::nil(), unknown_id, -1),
        (unknown, unknown_id, -1),
        (id, 0, 5),
        (other, 0, 5),
    ];
    expected.sort();
    assert_eq!(seen(&found), expected);

    let mut expected = [(id, 0, 5), (other, 0, 5)];
    expected.sort();
    assert_eq!(seen(&fetch(&mut client, None)), expected);

    let delete = DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
    assert_eq!(client.ask(5, &delete).responses[0].error_code, 0);
    client.create("t");
    let again = topic_id(&mut client, "t");
    let found = fetch(&mut client, Some(&[id, again]));
    let mut expected = [(id, unknown_id, -1), (again, 0, -1)];
    expected.sort();
    assert_eq!(seen(&found), expected);
    assert_eq!(seen(&fetch(&mut client, None)), [(other, 0, 5)]);
    broker.stop();
}

/// KIP-1242.
#[test]
fn a_client_that_means_another_broker_is_sent_back_to_its_first_servers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let metadata = client.ask(9, &MetadataRequest::default());
    let (own, node) = (metadata.cluster_id.unwrap(), metadata.brokers[0].node_id.0);
    let other = StrBytes::from_static_str("another");
    let rebootstrap = ResponseError::RebootstrapRequired.code();
    let invalid = ResponseError::InvalidRequest.code();
    for (cluster_id, node_id, expected) in [
        (None, -1, 0),
        (Some(&own), node, 0),
        (Some(&own), node + 1, rebootstrap),
        (Some(&other), node, rebootstrap),
        (Some(&other), -1, invalid),
        (Some(&own), -1, invalid),
        (None, node, invalid),
    ] {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("test"))
            .with_client_software_version(StrBytes::from_static_str("1"))
            .with_cluster_id(cluster_id.cloned())
            .with_node_id(node_id);
        let answer = client.ask(5, &request);
        assert_eq!(answer.error_code, expected, "{cluster_id:?} {node_id}");
        assert_eq!(answer.api_keys.is_empty(), expected != 0);
        assert_eq!(client.ask(4, &request).error_code, 0);
    }
    broker.stop();
}

/// KIP-1066: no directory is closed to new partitions here.
#[test]
fn no_log_directory_is_cordoned() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let request = DescribeLogDirsRequest::default().with_topics(None);
    let results = client.ask(5, &request).results;
    assert_eq!(results.len(), 1);
    assert!(!results[0].is_cordoned && results[0].total_bytes > 0);
    assert_eq!(results[0].topics[0].name, name("t"));
    broker.stop();
}

/// KIP-1331: there is a text where a streams group's topology cannot be deleted, and no other.
#[test]
fn groups_that_are_not_deleted_have_an_error_without_a_text() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(codes(&commit(&mut client, 9, "t", Uuid::nil()))[0], 0);
    let named = vec![group_id("g"), group_id("nothing"), group_id("g")];
    let request = DeleteGroupsRequest::default().with_groups_names(named);
    let results = client.ask(3, &request).results;
    let told: Vec<_> = results
        .iter()
        .map(|result| {
            (
                &*result.group_id.0,
                result.error_code,
                result.error_message.as_deref(),
            )
        })
        .collect();
    let not_found = ResponseError::GroupIdNotFound.code();
    assert_eq!(told, [("g", 0, None), ("nothing", not_found, None)]);
    broker.stop();
}
