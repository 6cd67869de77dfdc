//! `__consumer_offsets` with offsets.topic.mirror: what a tool reads there is what groups have committed, through restarts, and
//! nobody writes to it.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use cluster::{Cluster, LONG, SHORT_SESSION, within};
use common::{Client, Running, batch, fetch_request, name, produce_request, wait_for};
use metaq_protocol::ResponseError;
use metaq_protocol::batch::{BATCH_HEADER_BYTES, Batches};
use metaq_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::{
    BrokerId, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, GroupId,
    ListOffsetsRequest, MetadataRequest, OffsetCommitRequest,
};
use metaq_protocol::protocol::StrBytes;
use metaq_protocol::records::Records;

const TOPIC: &str = "__consumer_offsets";
/// The slot of the group `g`.
const SLOT: i32 = 24;
const ON: [&str; 2] = [
    "offsets.topic.mirror=true",
    "offsets.topic.mirror.keep.ms=0",
];

fn commit(client: &mut Client, partition: i32, offset: i64) {
    commit_with(client, partition, offset, "m");
}

fn commit_with(client: &mut Client, partition: i32, offset: i64, metadata: &str) {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(StrBytes::from_string(metadata.to_owned())));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let answer = client.ask(8, &request);
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

fn end_of_log(client: &mut Client, timestamp: i64) -> (i16, i64) {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(SLOT)
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(name(TOPIC))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    let answer = &client.ask(7, &request).topics[0].partitions[0];
    (answer.error_code, answer.offset)
}

/// Keys and values from the log's start on.
fn all_records(client: &mut Client) -> Vec<(Bytes, Option<Bytes>)> {
    let (_, start) = end_of_log(client, -2);
    let mut request = fetch_request(TOPIC, start, 0);
    request.topics[0].partitions[0].partition = SLOT;
    let mut answer = client.ask(12, &request);
    let answer = answer.responses[0].partitions.remove(0);
    assert_eq!(answer.error_code, 0);
    let bytes = answer.records.unwrap_or_default();
    let mut all = Vec::new();
    for found in Batches::new(&bytes) {
        let (header, batch) = found.unwrap();
        for record in Records::new(&header, &batch[BATCH_HEADER_BYTES..]) {
            let record = record.unwrap();
            let value = record.value.map(Bytes::copy_from_slice);
            all.push((Bytes::copy_from_slice(record.key.unwrap()), value));
        }
    }
    all
}

/// What a reader that keeps the latest value of each key knows: offsets by partition, and whether the group is there.
fn read(client: &mut Client) -> BTreeMap<i32, i64> {
    let mut offsets = BTreeMap::new();
    for (mut key, value) in all_records(client) {
        if key.get_i16() != 1 {
            continue;
        }
        let mut string = |expected: &str| {
            let length = key.get_i16() as usize;
            assert_eq!(&key.split_to(length)[..], expected.as_bytes());
        };
        string("g");
        string("t");
        let partition = key.get_i32();
        match value {
            Some(mut value) => {
                assert_eq!(value.get_i16(), 3, "the value's version");
                offsets.insert(partition, value.get_i64());
            }
            None => drop(offsets.remove(&partition)),
        }
    }
    offsets
}

fn wait_until_read(client: &mut Client, expected: &[(i32, i64)]) {
    let expected: BTreeMap<i32, i64> = expected.iter().copied().collect();
    wait_for("the mirror to follow", || read(client) == expected);
}

#[test]
fn what_groups_commit_is_read_from_the_topic_through_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &ON);
    let mut client = broker.client();
    client.create("t");
    wait_for("the mirror", || end_of_log(&mut client, -1) == (0, 0));
    commit(&mut client, 0, 5);
    commit(&mut client, 0, 7);
    wait_until_read(&mut client, &[(0, 7)]);
    assert_eq!(all_records(&mut client).len(), 2);
    let (_, before) = end_of_log(&mut client, -1);
    broker.stop();

    // The whole state is there again, and nothing else.
    let broker = Running::start(dir.path(), &ON);
    let mut client = broker.client();
    wait_for("the state to be written again", || {
        end_of_log(&mut client, -2).1 == before && all_records(&mut client).len() == 1
    });
    assert_eq!(read(&mut client), BTreeMap::from([(0, 7)]));
    commit(&mut client, 0, 8);
    wait_until_read(&mut client, &[(0, 8)]);
    let request = DeleteGroupsRequest::default()
        .with_groups_names(vec![GroupId(StrBytes::from_static_str("g"))]);
    assert_eq!(client.ask(2, &request).results[0].error_code, 0);
    wait_until_read(&mut client, &[]);
    commit(&mut client, 0, 1);
    wait_until_read(&mut client, &[(0, 1)]);
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![name("t")])
        .with_timeout_ms(10_000);
    assert_eq!(client.ask(3, &request).responses[0].error_code, 0);
    wait_until_read(&mut client, &[]);
    broker.stop();
}

#[test]
fn what_is_superseded_goes_and_a_reader_from_the_start_knows_everything_all_along() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &ON);
    let mut client = broker.client();
    client.create("t");
    wait_for("the mirror", || end_of_log(&mut client, -1) == (0, 0));
    // More than 4 MiB of changes of one offset.
    let metadata = "x".repeat(4000);
    for offset in 0..1200 {
        commit_with(&mut client, 0, offset, &metadata);
    }
    wait_for("the log's start to move", || {
        end_of_log(&mut client, -2).1 > 0
    });
    wait_until_read(&mut client, &[(0, 1199)]);
    let (start, end) = (end_of_log(&mut client, -2).1, end_of_log(&mut client, -1).1);
    assert!(end - start < 300, "{start} to {end}");
    broker.stop();
}

#[test]
fn the_topic_is_listed_and_belongs_to_the_broker_alone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &ON);
    let mut client = broker.client();
    wait_for("the mirror", || end_of_log(&mut client, -1) == (0, 0));
    let all = client
        .ask(12, &MetadataRequest::default().with_topics(None))
        .topics;
    assert_eq!(all.len(), 1);
    assert!(all[0].is_internal && all[0].partitions.len() == 64);
    let request = produce_request(TOPIC, batch(1), -1);
    let answer = client.ask(9, &request);
    let refused = ResponseError::InvalidTopicException.code();
    assert_eq!(
        answer.responses[0].partition_responses[0].error_code,
        refused
    );
    // Nor by the id that its directories have.
    let mut request = produce_request(TOPIC, batch(1), -1);
    request.topic_data[0].topic_id = metaq::cluster::INTERNAL_TOPIC_ID;
    request.topic_data[0].partition_data[0].index = SLOT;
    let answer = client.ask(13, &request);
    let unknown = ResponseError::UnknownTopicId.code();
    assert_eq!(
        answer.responses[0].partition_responses[0].error_code,
        unknown
    );
    let partition = DeleteRecordsPartition::default()
        .with_partition_index(SLOT)
        .with_offset(-1);
    let topic = DeleteRecordsTopic::default()
        .with_name(name(TOPIC))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default()
        .with_timeout_ms(10_000)
        .with_topics(vec![topic]);
    let answer = client.ask(2, &request);
    assert_eq!(answer.topics[0].partitions[0].error_code, refused);
    broker.stop();

    // Without the mirror its files mean nothing.
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let all = client
        .ask(12, &MetadataRequest::default().with_topics(None))
        .topics;
    assert!(all.is_empty());
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(end_of_log(&mut client, -1).0, unknown);
    let named = MetadataRequestTopic::default().with_name(Some(name(TOPIC)));
    let request = MetadataRequest::default().with_topics(Some(vec![named]));
    assert_eq!(client.ask(12, &request).topics[0].error_code, 0);
    broker.stop();
}

#[test]
fn a_slot_that_goes_to_another_broker_has_its_whole_state_there() {
    let mut cluster = Cluster::start(2, &[ON[0], ON[1], SHORT_SESSION]);
    cluster.create(0, "t", 2);
    let owner = cluster.nodes[0].coordinator_of("g").unwrap();
    let mut client = cluster.nodes[owner as usize].client();
    wait_for("the mirror", || end_of_log(&mut client, -1) == (0, 0));
    // Partition 0 is broker 0's, partition 1 the other one's.
    for partition in 0..2 {
        commit(&mut client, partition, 7);
    }
    wait_until_read(&mut client, &[(0, 7), (1, 7)]);
    let not_leader = ResponseError::NotLeaderOrFollower.code();
    let mut left = cluster.other_than(owner).client();
    assert_eq!(end_of_log(&mut left, -1).0, not_leader);
    cluster.nodes[owner as usize].kill();
    within(LONG, "the other broker to lead", || {
        end_of_log(&mut left, -1).0 == 0
    });
    wait_until_read(&mut left, &[(0, 7), (1, 7)]);
    commit(&mut left, 0, 8);
    wait_until_read(&mut left, &[(0, 8), (1, 7)]);
    // It comes back without the slot.
    cluster.nodes[owner as usize].launch();
    let mut back = cluster.nodes[owner as usize].client();
    within(LONG, "it to know who leads", || {
        end_of_log(&mut back, -1).0 == not_leader
    });
}
