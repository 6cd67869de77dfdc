//! The order of effects on one connection: a request sees what every earlier request of its connection did, also where all
//! of them come in one send. Each API that changes something, with each one that reads it.

mod common;

use std::collections::BTreeSet;
use std::io::Write;

use bytes::Bytes;
use common::{Client, Running, batch, fetch_request, name, produce_request, wait_for};
use metaq_protocol::batch::BatchBuilder;
use metaq_protocol::frame;
use metaq_protocol::messages::alter_configs_request::{
    AlterConfigsResource as Replaced, AlterableConfig as ReplacedConfig,
};
use metaq_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use metaq_protocol::messages::create_topics_request::CreatableTopic;
use metaq_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use metaq_protocol::messages::delete_topics_request::DeleteTopicState;
use metaq_protocol::messages::describe_configs_request::DescribeConfigsResource;
use metaq_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use metaq_protocol::messages::describe_producers_request::TopicRequest;
use metaq_protocol::messages::describe_topic_partitions_request::TopicRequest as Described;
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::leave_group_request::MemberIdentity;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use metaq_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use metaq_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use metaq_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use metaq_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use metaq_protocol::messages::*;
use metaq_protocol::protocol::{Request, StrBytes};
use metaq_protocol::versions;

/// How often each pair is tried: whether effects come in order must not be chance.
const TRIES: i64 = 20;

/// Requests that go out in one send.
#[derive(Default)]
struct Sent(Vec<u8>);

impl Sent {
    fn and<R: Request>(mut self, version: i16, request: &R) -> Self {
        let frame = frame::encode_request(version, 7, "test", request).unwrap();
        self.0.extend_from_slice(&frame);
        self
    }

    fn to(self, client: &mut Client) {
        client.stream.write_all(&self.0).unwrap();
    }
}

/// One request after the other in one send; both answers.
fn both<W: Request, R: Request>(
    client: &mut Client,
    (write_version, write): (i16, &W),
    (read_version, read): (i16, &R),
) -> (W::Response, R::Response) {
    let sent = Sent::default().and(write_version, write);
    sent.and(read_version, read).to(client);
    let written = client.receive::<W>(write_version).1;
    (written, client.receive::<R>(read_version).1)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

fn list_offsets(topic: &str, timestamp: i64) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(0)
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(name(topic))
        .with_partitions(vec![partition]);
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic])
}

fn listed(response: &ListOffsetsResponse) -> i64 {
    response.topics[0].partitions[0].offset
}

/// High watermark, log start, and whether there are records.
fn fetched(response: &FetchResponse) -> (i64, i64, bool) {
    let partition = &response.responses[0].partitions[0];
    let has_records = partition
        .records
        .as_ref()
        .is_some_and(|all| !all.is_empty());
    let (watermark, start) = (partition.high_watermark, partition.log_start_offset);
    (watermark, start, has_records)
}

fn fetch_at_once(topic: &str, offset: i64) -> FetchRequest {
    fetch_request(topic, offset, 0).with_min_bytes(0)
}

fn epoch_end(topic: &str) -> OffsetForLeaderEpochRequest {
    let partition = OffsetForLeaderPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(-1)
        .with_leader_epoch(0);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![partition]);
    OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic])
}

fn idempotent(topic: &str, producer: i64, sequence: i32) -> ProduceRequest {
    let builder = BatchBuilder::new().producer(producer, 0, sequence);
    let batch = builder.push(None, Some(b"x"), &[], common::now_ms());
    produce_request(topic, batch.finish().unwrap(), -1)
}

fn producers(topic: &str) -> DescribeProducersRequest {
    let topic = TopicRequest::default()
        .with_name(name(topic))
        .with_partition_indexes(vec![0]);
    DescribeProducersRequest::default().with_topics(vec![topic])
}

fn log_dirs(topic: &str) -> DescribeLogDirsRequest {
    let topic = DescribableLogDirTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![0]);
    DescribeLogDirsRequest::default().with_topics(Some(vec![topic]))
}

fn log_bytes(response: &DescribeLogDirsResponse) -> i64 {
    let topics = response.results.iter().flat_map(|dir| &dir.topics);
    topics
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.partition_size)
        .sum()
}

/// Topics that sync every message and topics that never do: their answers come from different threads.
fn topics(broker: &Running) -> Client {
    let mut client = broker.client();
    for (topic, flush) in [("t", None), ("synced", Some("1"))] {
        let mut creatable = create_topic(topic);
        creatable.configs.extend(flush.map(|messages| {
            create_topics_request::CreatableTopicConfig::default()
                .with_name(text("flush.messages"))
                .with_value(Some(text(messages)))
        }));
        let request = CreateTopicsRequest::default().with_topics(vec![creatable]);
        assert_eq!(client.ask(5, &request).topics[0].error_code, 0);
    }
    client
}

fn create_topic(topic: &str) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(1)
        .with_replication_factor(1)
}

#[test]
fn what_was_produced_is_seen_by_every_reader_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["brokerId=0"]);
    let mut client = topics(&broker);
    for topic in ["t", "synced"] {
        let mut end = 0;
        let mut bytes = 0;
        for acks in [-1, 1].repeat(TRIES as usize) {
            let produce = produce_request(topic, batch(2), acks);
            end += 2;
            let (_, answer) = both(
                &mut client,
                (9, &produce),
                (5, &list_offsets(topic, LATEST)),
            );
            assert_eq!(listed(&answer), end, "{topic}, acks {acks}");
            end += 2;
            let (_, answer) = both(
                &mut client,
                (9, &produce),
                (11, &fetch_at_once(topic, end - 2)),
            );
            assert_eq!(fetched(&answer), (end, 0, true), "{topic}, acks {acks}");
            end += 2;
            let (_, answer) = both(&mut client, (9, &produce), (3, &epoch_end(topic)));
            assert_eq!(answer.topics[0].partitions[0].end_offset, end);
            end += 2;
            let (_, answer) = both(&mut client, (9, &produce), (1, &log_dirs(topic)));
            assert!(log_bytes(&answer) > bytes);
            bytes = log_bytes(&answer);
        }
        for producer in 0..TRIES {
            let produce = idempotent(topic, 5000 + producer, 0);
            let (_, answer) = both(&mut client, (9, &produce), (0, &producers(topic)));
            let known = &answer.topics[0].partitions[0].active_producers;
            assert!(known.iter().any(|one| *one.producer_id == 5000 + producer));
        }
    }
    broker.stop();
}

#[test]
fn what_was_produced_without_acknowledgement_is_seen_too() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = topics(&broker);
    for topic in ["t", "synced"] {
        for n in 1..=TRIES * 5 {
            let sent = Sent::default().and(9, &produce_request(topic, batch(1), 0));
            sent.and(5, &list_offsets(topic, LATEST)).to(&mut client);
            assert_eq!(
                listed(&client.receive::<ListOffsetsRequest>(5).1),
                n,
                "{topic}"
            );
        }
    }
    broker.stop();
}

#[test]
fn deleted_records_are_gone_for_whoever_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = topics(&broker);
    for topic in ["t", "synced"] {
        for n in 1..=TRIES {
            let partition = DeleteRecordsPartition::default()
                .with_partition_index(0)
                .with_offset(-1);
            let of_topic = DeleteRecordsTopic::default()
                .with_name(name(topic))
                .with_partitions(vec![partition]);
            let delete = DeleteRecordsRequest::default()
                .with_timeout_ms(10_000)
                .with_topics(vec![of_topic]);
            // Two that are queued together, what deletes them, and what looks.
            let produce = produce_request(topic, batch(1), -1);
            let sent = Sent::default()
                .and(9, &produce)
                .and(9, &produce)
                .and(2, &delete);
            let sent = sent.and(5, &list_offsets(topic, EARLIEST));
            sent.and(11, &fetch_at_once(topic, n * 2)).to(&mut client);
            client.receive::<ProduceRequest>(9);
            client.receive::<ProduceRequest>(9);
            let deleted = client.receive::<DeleteRecordsRequest>(2).1;
            assert_eq!(deleted.topics[0].partitions[0].low_watermark, n * 2);
            assert_eq!(listed(&client.receive::<ListOffsetsRequest>(5).1), n * 2);
            let answer = client.receive::<FetchRequest>(11).1;
            assert_eq!(fetched(&answer), (n * 2, n * 2, false));
        }
    }
    broker.stop();
}

#[test]
fn markers_are_seen_by_whoever_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = topics(&broker);
    for n in 0..TRIES {
        let topic = WritableTxnMarkerTopic::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![0]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(7))
            .with_producer_epoch(n as i16)
            .with_topics(vec![topic]);
        let write = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        let (_, answer) = both(&mut client, (1, &write), (7, &list_offsets("t", LATEST)));
        assert_eq!(listed(&answer), n + 1);
    }
    broker.stop();
}

fn commit(group_id: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group(group_id))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

fn committed(group_id: &str) -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![0]);
    OffsetFetchRequest::default()
        .with_group_id(group(group_id))
        .with_topics(Some(vec![topic]))
}

fn offset_in(response: &OffsetFetchResponse) -> i64 {
    response.topics[0].partitions[0].committed_offset
}

#[test]
fn committed_and_deleted_offsets_are_seen_by_a_fetch_after_them() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = topics(&broker);
    for n in 1..=TRIES {
        let (_, answer) = both(&mut client, (8, &commit("g", n)), (7, &committed("g")));
        assert_eq!(offset_in(&answer), n);
        // Several commits are under way together, and the last one counts.
        let mut sent = Sent::default();
        for later in 0..8 {
            sent = sent.and(8, &commit("g", n * 100 + later));
        }
        sent.and(7, &committed("g")).to(&mut client);
        for _ in 0..8 {
            let answer = client.receive::<OffsetCommitRequest>(8).1;
            assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        }
        assert_eq!(
            offset_in(&client.receive::<OffsetFetchRequest>(7).1),
            n * 100 + 7
        );
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        let delete = OffsetDeleteRequest::default()
            .with_group_id(group("g"))
            .with_topics(vec![topic]);
        let (_, answer) = both(&mut client, (0, &delete), (7, &committed("g")));
        assert_eq!(offset_in(&answer), -1);
    }
    broker.stop();
}

fn metadata(topic: &str) -> MetadataRequest {
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    MetadataRequest::default().with_topics(Some(vec![asked]))
}

fn partitions_of(topic: &str) -> DescribeTopicPartitionsRequest {
    let topic = Described::default().with_name(name(topic));
    DescribeTopicPartitionsRequest::default()
        .with_topics(vec![topic])
        .with_response_partition_limit(100)
}

#[test]
fn made_grown_and_deleted_topics_are_seen_by_whoever_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["auto.create.topics.enable=false"]);
    let mut client = broker.client();
    for n in 0..TRIES {
        let topic = format!("made-{n}");
        let create = CreateTopicsRequest::default().with_topics(vec![create_topic(&topic)]);
        let grown = CreatePartitionsTopic::default()
            .with_name(name(&topic))
            .with_count(3)
            .with_assignments(None);
        let grow = CreatePartitionsRequest::default().with_topics(vec![grown]);
        let state = DeleteTopicState::default().with_name(Some(name(&topic)));
        let delete = DeleteTopicsRequest::default().with_topics(vec![state]);
        let sent = Sent::default().and(5, &create).and(9, &metadata(&topic));
        let sent = sent.and(9, &produce_request(&topic, batch(1), -1));
        let sent = sent.and(1, &grow).and(0, &partitions_of(&topic));
        let sent = sent.and(6, &delete).and(9, &metadata(&topic));
        sent.and(9, &produce_request(&topic, batch(1), -1))
            .to(&mut client);
        assert_eq!(
            client.receive::<CreateTopicsRequest>(5).1.topics[0].error_code,
            0
        );
        assert_eq!(
            client.receive::<MetadataRequest>(9).1.topics[0]
                .partitions
                .len(),
            1
        );
        let produced = client.receive::<ProduceRequest>(9).1;
        assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
        assert_eq!(
            client.receive::<CreatePartitionsRequest>(1).1.results[0].error_code,
            0
        );
        let described = client.receive::<DescribeTopicPartitionsRequest>(0).1;
        assert_eq!(described.topics[0].partitions.len(), 3);
        client.receive::<DeleteTopicsRequest>(6);
        assert_eq!(
            client.receive::<MetadataRequest>(9).1.topics[0].error_code,
            3
        );
        let refused = client.receive::<ProduceRequest>(9).1;
        assert_eq!(refused.responses[0].partition_responses[0].error_code, 3);
    }
    broker.stop();
}

#[test]
fn changed_configurations_are_seen_by_whoever_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = topics(&broker);
    let asked = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configuration_keys(Some(vec![text("max.message.bytes")]));
    let describe = DescribeConfigsRequest::default().with_resources(vec![asked]);
    let value = |response: &DescribeConfigsResponse| {
        let value = response.results[0].configs[0].value.clone().unwrap();
        value.parse::<i64>().unwrap()
    };
    for n in 1..=TRIES {
        let config = AlterableConfig::default()
            .with_name(text("max.message.bytes"))
            .with_value(Some(text(&(n * 1000).to_string())));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config]);
        let alter = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let (_, answer) = both(&mut client, (1, &alter), (2, &describe));
        assert_eq!(value(&answer), n * 1000);
        let config = ReplacedConfig::default()
            .with_name(text("max.message.bytes"))
            .with_value(Some(text("60")));
        let resource = Replaced::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config]);
        let replace = AlterConfigsRequest::default().with_resources(vec![resource]);
        let sent = Sent::default().and(1, &replace).and(2, &describe);
        sent.and(9, &produce_request("t", batch(20), -1))
            .to(&mut client);
        client.receive::<AlterConfigsRequest>(1);
        assert_eq!(value(&client.receive::<DescribeConfigsRequest>(2).1), 60);
        let produced = client.receive::<ProduceRequest>(9).1;
        // MESSAGE_TOO_LARGE.
        assert_eq!(produced.responses[0].partition_responses[0].error_code, 10);
    }
    broker.stop();
}

fn join(group_id: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    JoinGroupRequest::default()
        .with_group_id(group(group_id))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

fn describe_group(group_id: &str) -> DescribeGroupsRequest {
    DescribeGroupsRequest::default().with_groups(vec![group(group_id)])
}

fn state_in(response: &DescribeGroupsResponse) -> (String, usize) {
    let group = &response.groups[0];
    (group.group_state.to_string(), group.members.len())
}

#[test]
fn what_became_of_a_group_is_seen_by_whoever_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["group.initial.rebalance.delay.ms=0"]);
    let mut client = topics(&broker);
    for n in 0..TRIES {
        let id = format!("g-{n}");
        let (joined, answer) = both(&mut client, (3, &join(&id, "")), (1, &describe_group(&id)));
        assert_eq!(state_in(&answer), ("CompletingRebalance".to_owned(), 1));
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(Bytes::from_static(b"a"));
        let sync = SyncGroupRequest::default()
            .with_group_id(group(&id))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_assignments(vec![assignment]);
        let heartbeat = HeartbeatRequest::default()
            .with_group_id(group(&id))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone());
        let leaving = MemberIdentity::default().with_member_id(joined.member_id.clone());
        let leave = LeaveGroupRequest::default()
            .with_group_id(group(&id))
            .with_members(vec![leaving]);
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![group(&id)]);
        let sent = Sent::default()
            .and(2, &sync)
            .and(1, &describe_group(&id))
            .and(2, &heartbeat);
        let sent = sent
            .and(3, &leave)
            .and(1, &describe_group(&id))
            .and(2, &heartbeat);
        let sent = sent.and(1, &delete).and(2, &ListGroupsRequest::default());
        sent.to(&mut client);
        assert_eq!(client.receive::<SyncGroupRequest>(2).1.error_code, 0);
        let described = client.receive::<DescribeGroupsRequest>(1).1;
        assert_eq!(state_in(&described), ("Stable".to_owned(), 1));
        assert_eq!(client.receive::<HeartbeatRequest>(2).1.error_code, 0);
        assert_eq!(client.receive::<LeaveGroupRequest>(3).1.error_code, 0);
        let described = client.receive::<DescribeGroupsRequest>(1).1;
        assert_eq!(state_in(&described), ("Empty".to_owned(), 0));
        // UNKNOWN_MEMBER_ID.
        assert_eq!(client.receive::<HeartbeatRequest>(2).1.error_code, 25);
        assert_eq!(
            client.receive::<DeleteGroupsRequest>(1).1.results[0].error_code,
            0
        );
        let groups = client.receive::<ListGroupsRequest>(2).1.groups;
        assert!(!groups.iter().any(|group| group.group_id.as_str() == id));
    }
    broker.stop();
}

#[test]
fn what_became_of_a_member_of_the_new_protocol_is_seen_by_whoever_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = topics(&broker);
    for n in 0..TRIES {
        let id = format!("new-{n}");
        let heartbeat = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group(&id))
            .with_member_id(text("member"));
        let joining = heartbeat
            .clone()
            .with_rebalance_timeout_ms(30_000)
            .with_subscribed_topic_names(Some(vec![name("t")]))
            .with_topic_partitions(Some(Vec::new()));
        let leaving = heartbeat.with_member_epoch(-1);
        let describe = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group(&id)]);
        let sent = Sent::default().and(1, &joining).and(1, &describe);
        sent.and(1, &leaving).and(1, &describe).to(&mut client);
        let joined = client.receive::<ConsumerGroupHeartbeatRequest>(1).1;
        assert_eq!(joined.error_code, 0, "{joined:?}");
        let there = client.receive::<ConsumerGroupDescribeRequest>(1).1;
        assert_eq!(there.groups[0].members.len(), 1);
        client.receive::<ConsumerGroupHeartbeatRequest>(1);
        let gone = client.receive::<ConsumerGroupDescribeRequest>(1).1;
        assert_eq!(gone.groups[0].members.len(), 0);
    }
    broker.stop();
}

#[test]
fn what_became_of_a_transaction_is_seen_by_whoever_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = topics(&broker);
    for n in 0..TRIES {
        let id = TransactionalId(text(&format!("txn-{n}")));
        let init = InitProducerIdRequest::default()
            .with_transactional_id(Some(id.clone()))
            .with_transaction_timeout_ms(30_000);
        let describe =
            DescribeTransactionsRequest::default().with_transactional_ids(vec![id.clone()]);
        let state = |response: &DescribeTransactionsResponse| {
            let state = &response.transaction_states[0];
            let topics = state.topics.iter();
            (
                state.transaction_state.to_string(),
                topics
                    .map(|topic| topic.topic.to_string())
                    .collect::<Vec<_>>(),
            )
        };
        let (begun, answer) = both(&mut client, (4, &init), (0, &describe));
        assert_eq!(begun.error_code, 0);
        assert_eq!(state(&answer), ("Empty".to_owned(), Vec::new()));
        let (producer, epoch) = (begun.producer_id, begun.producer_epoch);
        let topic = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![0]);
        let add = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id.clone())
            .with_v3_and_below_producer_id(producer)
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(vec![topic]);
        let batch = BatchBuilder::new()
            .producer(producer.0, epoch, 0)
            .transactional()
            .push(None, Some(b"x"), &[], common::now_ms());
        let produce = produce_request("t", batch.finish().unwrap(), -1)
            .with_transactional_id(Some(id.clone()));
        let offsets = AddOffsetsToTxnRequest::default()
            .with_transactional_id(id.clone())
            .with_producer_id(producer)
            .with_producer_epoch(epoch)
            .with_group_id(group("of-txn"));
        let partition = txn_offset_commit_request::TxnOffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(n);
        let topic = txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        let commit = TxnOffsetCommitRequest::default()
            .with_transactional_id(id.clone())
            .with_group_id(group("of-txn"))
            .with_producer_id(producer)
            .with_producer_epoch(epoch)
            .with_topics(vec![topic]);
        let end = EndTxnRequest::default()
            .with_transactional_id(id.clone())
            .with_producer_id(producer)
            .with_producer_epoch(epoch)
            .with_committed(true);
        let stable = committed("of-txn").with_require_stable(true);
        let open = ListTransactionsRequest::default().with_state_filters(vec![text("Ongoing")]);
        let sent = Sent::default()
            .and(3, &add)
            .and(0, &describe)
            .and(9, &produce);
        let sent = sent.and(3, &offsets).and(0, &describe).and(0, &open);
        let sent = sent.and(3, &commit).and(7, &stable);
        sent.and(3, &end)
            .and(0, &describe)
            .and(0, &open)
            .to(&mut client);
        client.receive::<AddPartitionsToTxnRequest>(3);
        let answer = client.receive::<DescribeTransactionsRequest>(0).1;
        assert_eq!(state(&answer), ("Ongoing".to_owned(), vec!["t".to_owned()]));
        let produced = client.receive::<ProduceRequest>(9).1;
        assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
        assert_eq!(client.receive::<AddOffsetsToTxnRequest>(3).1.error_code, 0);
        let answer = client.receive::<DescribeTransactionsRequest>(0).1;
        assert_eq!(state(&answer).1.len(), 2, "{answer:?}");
        let is_listed = |response: &ListTransactionsResponse| {
            let mut all = response.transaction_states.iter();
            all.any(|one| one.transactional_id == id)
        };
        assert!(is_listed(&client.receive::<ListTransactionsRequest>(0).1));
        let stored = client.receive::<TxnOffsetCommitRequest>(3).1;
        assert_eq!(stored.topics[0].partitions[0].error_code, 0);
        // UNSTABLE_OFFSET_COMMIT.
        let answer = client.receive::<OffsetFetchRequest>(7).1;
        let code = answer.topics[0].partitions[0].error_code;
        assert_eq!((code, answer.error_code), (88, 0), "{answer:?}");
        assert_eq!(client.receive::<EndTxnRequest>(3).1.error_code, 0);
        let answer = client.receive::<DescribeTransactionsRequest>(0).1;
        assert_ne!(state(&answer).0, "Ongoing");
        assert!(!is_listed(&client.receive::<ListTransactionsRequest>(0).1));
    }
    broker.stop();
}

#[test]
fn changed_users_rights_and_quotas_are_seen_by_whoever_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS",
    ];
    let broker = Running::start(dir.path(), &settings);
    let mut client = topics(&broker);
    for n in 0..TRIES {
        let user = format!("user-{n}");
        let acl = create_acls_request::AclCreation::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_resource_pattern_type(3)
            .with_principal(text(&format!("User:{user}")))
            .with_host(text("*"))
            .with_operation(3)
            .with_permission_type(3);
        let create = CreateAclsRequest::default().with_creations(vec![acl]);
        let describe = DescribeAclsRequest::default()
            .with_resource_type_filter(2)
            .with_resource_name_filter(Some(text("t")))
            .with_pattern_type_filter(3)
            .with_principal_filter(Some(text(&format!("User:{user}"))))
            .with_host_filter(None)
            .with_operation(1)
            .with_permission_type(1);
        let filter = delete_acls_request::DeleteAclsFilter::default()
            .with_resource_type_filter(2)
            .with_resource_name_filter(Some(text("t")))
            .with_pattern_type_filter(3)
            .with_principal_filter(Some(text(&format!("User:{user}"))))
            .with_host_filter(None)
            .with_operation(1)
            .with_permission_type(1);
        let delete = DeleteAclsRequest::default().with_filters(vec![filter]);
        let sent = Sent::default().and(2, &create).and(2, &describe);
        sent.and(2, &delete).and(2, &describe).to(&mut client);
        client.receive::<CreateAclsRequest>(2);
        assert_eq!(
            client.receive::<DescribeAclsRequest>(2).1.resources.len(),
            1
        );
        client.receive::<DeleteAclsRequest>(2);
        assert_eq!(
            client.receive::<DescribeAclsRequest>(2).1.resources.len(),
            0
        );

        let entity = alter_client_quotas_request::EntityData::default()
            .with_entity_type(text("user"))
            .with_entity_name(Some(text(&user)));
        let op = alter_client_quotas_request::OpData::default()
            .with_key(text("producer_byte_rate"))
            .with_value(1e6);
        let entry = alter_client_quotas_request::EntryData::default()
            .with_entity(vec![entity])
            .with_ops(vec![op]);
        let alter = AlterClientQuotasRequest::default().with_entries(vec![entry]);
        let component = describe_client_quotas_request::ComponentData::default()
            .with_entity_type(text("user"))
            .with_match(Some(text(&user)));
        let describe = DescribeClientQuotasRequest::default().with_components(vec![component]);
        let (_, answer) = both(&mut client, (1, &alter), (1, &describe));
        assert_eq!(answer.entries.map_or(0, |entries| entries.len()), 1);

        let upsertion = alter_user_scram_credentials_request::ScramCredentialUpsertion::default()
            .with_name(text(&user))
            .with_mechanism(1)
            .with_iterations(4096)
            .with_salt(Bytes::from_static(b"salt"))
            .with_salted_password(Bytes::from(vec![1; 32]));
        let alter = AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion]);
        let wanted =
            describe_user_scram_credentials_request::UserName::default().with_name(text(&user));
        let describe =
            DescribeUserScramCredentialsRequest::default().with_users(Some(vec![wanted]));
        let (_, answer) = both(&mut client, (0, &alter), (0, &describe));
        assert_eq!(answer.results[0].credential_infos.len(), 1, "{answer:?}");
    }
    broker.stop();
}

#[test]
fn whatever_comes_after_a_fetch_that_waits_goes_on_and_may_wake_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = topics(&broker);
    let started = std::time::Instant::now();
    for n in 0..TRIES {
        let sent = Sent::default().and(11, &fetch_request("t", n, 60_000));
        let sent = sent.and(9, &produce_request("t", batch(1), -1));
        sent.and(5, &list_offsets("t", LATEST)).to(&mut client);
        let answer = client.receive::<FetchRequest>(11).1;
        assert_eq!(fetched(&answer), (n + 1, 0, true));
        client.receive::<ProduceRequest>(9);
        assert_eq!(listed(&client.receive::<ListOffsetsRequest>(5).1), n + 1);
    }
    assert!(
        started.elapsed().as_secs() < 60,
        "the fetch waited for its time"
    );
    broker.stop();
}

#[test]
fn a_request_that_waits_for_others_keeps_what_comes_after_it_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["group.initial.rebalance.delay.ms=0"]);
    let (mut first, mut second) = (topics(&broker), broker.client());
    let joined = first.ask(3, &join("g", ""));
    // The second member waits for the first one to come again, and with it what it sent after it.
    let sent = Sent::default().and(3, &join("g", ""));
    sent.and(1, &describe_group("g")).to(&mut second);
    let mut witness = broker.client();
    wait_for("the second member", || {
        state_in(&witness.ask(1, &describe_group("g"))).0 == "PreparingRebalance"
    });
    first.ask(3, &join("g", &joined.member_id));
    second.receive::<JoinGroupRequest>(3);
    let described = second.receive::<DescribeGroupsRequest>(1).1;
    assert_eq!(state_in(&described), ("CompletingRebalance".to_owned(), 2));
    broker.stop();
}

/// Every API is named above, or here with the reason why no other request of this broker reads what it does.
#[test]
fn every_api_is_paired_with_what_reads_it() {
    let nobody_reads = [
        (ApiKey::FindCoordinator, "changes nothing"),
        (ApiKey::ApiVersions, "changes nothing"),
        (ApiKey::DescribeCluster, "changes nothing"),
        (ApiKey::SaslHandshake, "tests/authentication.rs"),
        (ApiKey::SaslAuthenticate, "tests/authentication.rs"),
        (
            ApiKey::CreateDelegationToken,
            "read when a client authenticates: tests/delegation_tokens.rs",
        ),
        (ApiKey::RenewDelegationToken, "tests/delegation_tokens.rs"),
        (ApiKey::ExpireDelegationToken, "tests/delegation_tokens.rs"),
        (ApiKey::DescribeDelegationToken, "changes nothing"),
        (ApiKey::Envelope, "between brokers"),
        (ApiKey::ElectLeaders, "changes who leads: tests/replicas.rs"),
        (ApiKey::AlterPartition, "between brokers"),
        (ApiKey::InitializeShareGroupState, "between brokers"),
        (ApiKey::ReadShareGroupState, "between brokers"),
        (ApiKey::WriteShareGroupState, "between brokers"),
        (ApiKey::DeleteShareGroupState, "between brokers"),
        (ApiKey::ReadShareGroupStateSummary, "between brokers"),
        (ApiKey::StreamsGroupHeartbeat, "tests/streams.rs"),
        (ApiKey::StreamsGroupDescribe, "changes nothing"),
        (ApiKey::ShareGroupHeartbeat, "tests/shares.rs"),
        (ApiKey::ShareGroupDescribe, "changes nothing"),
        (ApiKey::DescribeShareGroupOffsets, "changes nothing"),
        (ApiKey::AlterShareGroupOffsets, "tests/shares.rs"),
        (ApiKey::DeleteShareGroupOffsets, "tests/shares.rs"),
        (ApiKey::ShareFetch, "its answer alone tells what it gives"),
        (
            ApiKey::ShareAcknowledge,
            "read by ShareFetch: tests/shares.rs",
        ),
        (
            ApiKey::AlterPartitionReassignments,
            "begins a move that goes on after its answer",
        ),
        (ApiKey::ListPartitionReassignments, "changes nothing"),
        (ApiKey::DescribeQuorum, "changes nothing"),
        (ApiKey::UpdateFeatures, "changes nothing"),
        (ApiKey::UnregisterBroker, "changes nothing"),
        (ApiKey::ListConfigResources, "changes nothing"),
        (ApiKey::GetTelemetrySubscriptions, "changes nothing"),
        (ApiKey::PushTelemetry, "what is pushed is shown to people"),
        (
            ApiKey::AlterReplicaLogDirs,
            "begins a copy that goes on after its answer",
        ),
    ];
    let source = include_str!("order.rs");
    let named = |api: &versions::ApiRow| source.contains(&format!("{}Request", api.name));
    let left_out: BTreeSet<i16> = nobody_reads.iter().map(|(key, _)| *key as i16).collect();
    for api in versions::TABLE {
        assert_ne!(named(api), left_out.contains(&api.key), "{}", api.name);
    }
}
