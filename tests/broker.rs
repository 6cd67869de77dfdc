//! A running broker: what it answers, in which order, and what survives.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::time::Instant;

use common::{Running, batch, fetch_request, name, now_ms, produce_request};
use metaq_protocol::ResponseError;
use metaq_protocol::batch::BatchBuilder;
use metaq_protocol::messages::create_topics_request::CreatableTopic;
use metaq_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use metaq_protocol::messages::delete_topics_request::DeleteTopicState;
use metaq_protocol::messages::describe_topic_partitions_request::TopicRequest;
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use metaq_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeTopicPartitionsRequest, FetchRequest, GroupId, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, JoinGroupRequest, ListGroupsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
};
use metaq_protocol::protocol::StrBytes;

fn set_config(
    client: &mut common::Client,
    topic: &str,
    key: &'static str,
    value: &'static str,
) -> i16 {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(key))
        .with_value(Some(StrBytes::from_static_str(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(name(topic).0)
        .with_configs(vec![config]);
    let response = client.ask(
        1,
        &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]),
    );
    response.responses[0].error_code
}

#[test]
fn what_was_produced_is_fetched_from_the_batch_that_holds_the_offset() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(client.produce("t", batch(3)), (0, 0));
    assert_eq!(client.produce("t", batch(4)), (0, 3));
    assert_eq!(client.fetch("t", 0), [(0, 3), (3, 4)]);
    assert_eq!(client.fetch("t", 5), [(3, 4)]);
    assert_eq!(client.fetch("t", 7), []);
    let response = client.ask(11, &fetch_request("t", 8, 0));
    assert_eq!(
        response.responses[0].partitions[0].error_code,
        ResponseError::OffsetOutOfRange.code()
    );
    broker.stop();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    for _ in 0..200 {
        client.send(9, &produce_request("t", batch(2), -1));
        client.send(9, &MetadataRequest::default().with_topics(Some(Vec::new())));
    }
    for n in 0..200 {
        let (produced, response) = client.receive::<ProduceRequest>(9);
        let (asked, _) = client.receive::<MetadataRequest>(9);
        assert_eq!(
            response.responses[0].partition_responses[0].base_offset,
            n * 2
        );
        assert_eq!(asked, produced + 1);
    }
    broker.stop();
}

#[test]
fn a_waiting_fetch_is_woken_by_an_append() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let (mut reader, mut writer) = (broker.client(), broker.client());
    writer.create("t");
    let started = Instant::now();
    reader.send(11, &fetch_request("t", 0, 15_000));
    // Answered on the same connection behind it, so the fetch has been taken up; it must still be waiting.
    reader.send(9, &MetadataRequest::default().with_topics(Some(Vec::new())));
    writer.produce("t", batch(1));
    let (_, response) = reader.receive::<FetchRequest>(11);
    assert!(
        !response.responses[0].partitions[0]
            .records
            .as_ref()
            .unwrap()
            .is_empty()
    );
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    broker.stop();
}

#[test]
fn a_fetch_does_not_wait_for_more_than_its_answer_may_hold() {
    const WAIT_MS: i32 = 30_000;
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["fetch.max.bytes=2000"]);
    let mut client = broker.client();
    client.create("t");
    let large = || {
        let batch = BatchBuilder::new().push(None, Some(&[7; 3000]), &[], now_ms());
        batch.finish().unwrap()
    };
    for _ in 0..2 {
        assert_eq!(client.produce("t", large()).0, 0);
    }
    // The first by the request's own limit, the second by the broker's.
    for bytes_max in [1000, i32::MAX] {
        let asked = Instant::now();
        let request = fetch_request("t", 0, WAIT_MS)
            .with_min_bytes(100_000)
            .with_max_bytes(bytes_max);
        let response = client.ask(11, &request);
        let records = response.responses[0].partitions[0].records.as_ref();
        assert!(records.is_some_and(|records| records.len() > 3000));
        assert!(asked.elapsed().as_millis() < WAIT_MS as u128 / 2);
    }
    broker.stop();
}

#[test]
fn a_clean_restart_and_a_crash_keep_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    for _ in 0..50 {
        assert_eq!(client.produce("t", batch(10)).0, 0);
    }
    // What a killed broker leaves behind: the files as they are.
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    broker.stop();
    for data in [dir.path(), crashed.path()] {
        let broker = Running::start(data, &[]);
        let mut client = broker.client();
        assert_eq!(
            client
                .fetch("t", 0)
                .iter()
                .map(|(_, count)| count)
                .sum::<i32>(),
            500
        );
        assert_eq!(client.produce("t", batch(1)), (0, 500));
        broker.stop();
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            // Not the socket by which a running broker is told things.
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_torn_last_batch_is_cut_and_the_rest_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.produce("t", batch(3));
    client.produce("t", batch(3));
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    broker.stop();
    let file = crashed.path().join("t-0/00000000000000000000.log");
    let bytes = std::fs::metadata(&file).unwrap().len();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(bytes - 5)
        .unwrap();
    let broker = Running::start(crashed.path(), &[]);
    let mut client = broker.client();
    assert_eq!(client.fetch("t", 0), [(0, 3)]);
    assert_eq!(client.produce("t", batch(1)), (0, 3));
    broker.stop();
}

#[test]
fn damage_is_told_to_who_reads_it_and_a_lost_segment_to_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["log.segment.bytes=1048576"]);
    let mut client = broker.client();
    client.create("t");
    let large = BatchBuilder::new()
        .push(None, Some(&[7; 400_000]), &[], now_ms())
        .finish()
        .unwrap();
    for _ in 0..6 {
        client.produce("t", large.clone());
    }
    broker.stop();
    let file = dir.path().join("t-0/00000000000000000002.log");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[16] = 7;
    std::fs::write(&file, bytes).unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let response = client.ask(11, &fetch_request("t", 2, 0));
    assert_eq!(
        response.responses[0].partitions[0].error_code,
        ResponseError::CorruptMessage.code()
    );
    assert_eq!(client.fetch("t", 1), [(1, 1)]);
    assert_eq!(client.fetch("t", 4).len(), 2);
    broker.stop();
    std::fs::remove_file(file).unwrap();
    let broker = Running::start(dir.path(), &[]);
    let page = broker.page("/readyz");
    assert!(
        page.contains("503") && page.contains("records 2..4 are missing"),
        "{page}"
    );
    broker.stop();
}

#[test]
fn a_directory_of_another_topic_is_left_alone_and_its_partition_is_offline() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.create("u");
    client.produce("t", batch(3));
    broker.stop();
    let id_file = |topic: &str| dir.path().join(format!("{topic}-0/partition.metadata"));
    let own = std::fs::read(id_file("t")).unwrap();
    std::fs::copy(id_file("u"), id_file("t")).unwrap();
    let broker = Running::start(dir.path(), &[]);
    let page = broker.page("/readyz");
    assert!(page.contains("belongs to a topic with id"), "{page}");
    assert_eq!(
        broker.client().produce("t", batch(1)).0,
        ResponseError::KafkaStorageError.code()
    );
    broker.stop();
    std::fs::write(id_file("t"), own).unwrap();
    let broker = Running::start(dir.path(), &[]);
    assert_eq!(broker.client().fetch("t", 0), [(0, 3)]);
    broker.stop();
}

#[test]
fn a_topic_with_an_offline_partition_can_be_deleted_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.produce("t", batch(3));
    broker.stop();
    let segment = dir.path().join("t-0/00000000000000000000.log");
    std::fs::remove_file(&segment).unwrap();
    std::fs::create_dir(&segment).unwrap();
    let broker = Running::start(dir.path(), &[]);
    assert!(broker.page("/readyz").contains("offline: t-0"));
    let mut client = broker.client();
    let state = DeleteTopicState::default().with_name(Some(name("t")));
    client.ask(6, &DeleteTopicsRequest::default().with_topics(vec![state]));
    client.create("t");
    assert_eq!(client.produce("t", batch(1)), (0, 0));
    assert!(broker.page("/readyz").contains("200"));
    broker.stop();
}

#[test]
fn a_partition_that_was_offline_for_a_while_keeps_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.create("u");
    for _ in 0..10 {
        client.produce("t", batch(10));
    }
    assert_eq!(delete_records(&mut client, "t", 55), 55);
    broker.stop();
    let segment = dir.path().join("t-0/00000000000000000000.log");
    let kept = dir.path().join("kept");
    std::fs::rename(&segment, &kept).unwrap();
    std::fs::create_dir(&segment).unwrap();
    let broker = Running::start(dir.path(), &[]);
    assert!(broker.page("/readyz").contains("offline: t-0"));
    broker.client().produce("u", batch(1));
    broker.stop();
    std::fs::remove_dir(&segment).unwrap();
    std::fs::rename(&kept, &segment).unwrap();
    let broker = Running::start(dir.path(), &[]);
    let partition = broker.broker().context().partitions.get("t", 0).unwrap();
    assert_eq!(partition.log().ends().log_start, 55);
    broker.stop();
}

/// Moves the start of partition 0; returns the new one.
fn delete_records(client: &mut common::Client, topic: &str, offset: i64) -> i64 {
    let partition = DeleteRecordsPartition::default().with_offset(offset);
    let topic = DeleteRecordsTopic::default()
        .with_name(name(topic))
        .with_partitions(vec![partition]);
    let response = client.ask(1, &DeleteRecordsRequest::default().with_topics(vec![topic]));
    response.topics[0].partitions[0].low_watermark
}

#[test]
fn an_idempotent_batch_is_stored_once_also_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let sequence = |base: i32| {
        BatchBuilder::new()
            .producer(7, 0, base)
            .push(None, Some(b"v"), &[], now_ms())
            .finish()
            .unwrap()
    };
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(client.produce("t", sequence(0)), (0, 0));
    assert_eq!(client.produce("t", sequence(1)), (0, 1));
    assert_eq!(client.produce("t", sequence(0)), (0, 0));
    assert_eq!(
        client.produce("t", sequence(5)).0,
        ResponseError::OutOfOrderSequenceNumber.code()
    );
    broker.stop();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    assert_eq!(client.produce("t", sequence(1)), (0, 1));
    assert_eq!(client.produce("t", sequence(2)), (0, 2));
    broker.stop();
}

#[test]
fn producer_ids_are_never_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = std::collections::HashSet::new();
    for _ in 0..3 {
        let broker = Running::start(dir.path(), &[]);
        let mut client = broker.client();
        for _ in 0..10 {
            let response = client.ask(
                4,
                &InitProducerIdRequest::default().with_transactional_id(None),
            );
            assert!(ids.insert(response.producer_id.0));
        }
        broker.stop();
    }
}

#[test]
fn one_partitions_error_leaves_the_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.create("u");
    let mut damaged = batch(1).to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let mut request = produce_request("t", batch(1), -1);
    request
        .topic_data
        .extend(produce_request("u", damaged.into(), -1).topic_data);
    request
        .topic_data
        .extend(produce_request("missing", batch(1), -1).topic_data);
    let response = client.ask(9, &request);
    let codes: Vec<i16> = response
        .responses
        .iter()
        .map(|topic| topic.partition_responses[0].error_code)
        .collect();
    let expected = [
        0,
        ResponseError::CorruptMessage.code(),
        ResponseError::UnknownTopicOrPartition.code(),
    ];
    assert_eq!(codes, expected);
    broker.stop();
}

#[test]
fn acks_zero_is_not_answered_and_its_failure_closes_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.send(9, &produce_request("t", batch(1), 0));
    // The next answer is the next request's.
    client.ask(9, &MetadataRequest::default().with_topics(Some(Vec::new())));
    common::wait_for("the record", || broker.client().fetch("t", 0) == [(0, 1)]);
    client.send(9, &produce_request("missing", batch(1), 0));
    assert!(client.is_closed());
    broker.stop();
}

#[test]
fn a_topics_limits_and_policies_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(set_config(&mut client, "t", "max.message.bytes", "100"), 0);
    assert_eq!(
        client.produce("t", batch(50)).0,
        ResponseError::MessageTooLarge.code()
    );
    assert_eq!(
        set_config(&mut client, "t", "max.message.bytes", "100000"),
        0
    );
    assert_eq!(set_config(&mut client, "t", "cleanup.policy", "compact"), 0);
    assert_eq!(
        client.produce("t", batch(1)).0,
        ResponseError::InvalidRecord.code()
    );
    assert_eq!(
        set_config(&mut client, "t", "retention.ms", "soon"),
        ResponseError::InvalidConfig.code()
    );
    // Of one replica there are never two in sync; Kafka counts those that there are.
    assert_eq!(set_config(&mut client, "t", "cleanup.policy", "delete"), 0);
    assert_eq!(set_config(&mut client, "t", "min.insync.replicas", "2"), 0);
    assert_eq!(client.produce("t", batch(1)).0, 0);
    broker.stop();
}

#[test]
fn a_deleted_topics_name_is_free_at_once_and_its_records_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    // The longest name that there may be leaves no room for anything to be added to it.
    let longest = "n".repeat(249);
    for topic in ["t", &longest].into_iter().cycle().take(6) {
        client.create(topic);
        assert_eq!(client.produce(topic, batch(5)), (0, 0));
        let state = DeleteTopicState::default().with_name(Some(name(topic)));
        let response = client.ask(6, &DeleteTopicsRequest::default().with_topics(vec![state]));
        assert_eq!(response.responses[0].error_code, 0);
    }
    broker.stop();
    let broker = Running::start(dir.path(), &[]);
    let topics = broker
        .client()
        .ask(9, &MetadataRequest::default().with_topics(None))
        .topics;
    assert!(topics.is_empty());
    broker.stop();
}

#[test]
fn a_topic_of_a_deleted_ones_name_keeps_its_own_records_across_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    for _ in 0..20 {
        client.produce("t", batch(10));
    }
    assert_eq!(delete_records(&mut client, "t", 150), 150);
    let state = DeleteTopicState::default().with_name(Some(name("t")));
    client.ask(6, &DeleteTopicsRequest::default().with_topics(vec![state]));
    client.create("t");
    for n in 0..10 {
        assert_eq!(client.produce("t", batch(10)), (0, n * 10));
    }
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    broker.stop();
    let broker = Running::start(crashed.path(), &[]);
    assert_eq!(broker.client().fetch("t", 0).len(), 10);
    broker.stop();
}

#[test]
fn a_deletion_that_was_cut_short_is_finished_and_not_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.produce("t", batch(5));
    let crashed = tempfile::tempdir().unwrap();
    copy(&dir.path().join("t-0"), &{
        std::fs::create_dir(crashed.path().join("t-0")).unwrap();
        crashed.path().join("t-0")
    });
    let id = broker
        .broker()
        .context()
        .cluster
        .image()
        .topic("t")
        .unwrap()
        .id;
    broker.stop();
    // The tree as a crash between forgetting the topic and moving its files leaves it.
    let meta =
        metaq::meta::MetaStore::open_embedded(&crashed.path().join("metaq-meta.redb")).unwrap();
    let note = metaq::meta::Op::put(
        metaq::meta::paths::deleted_topic(id),
        r#"{"version":1,"topic":"t"}"#.into(),
    );
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        meta.multi(vec![note]).await.unwrap();
        meta.close().await;
    });
    drop(meta);
    let broker = Running::start(crashed.path(), &[]);
    assert!(
        broker
            .client()
            .ask(9, &MetadataRequest::default().with_topics(None))
            .topics
            .is_empty()
    );
    assert!(!crashed.path().join("t-0").exists());
    broker.stop();
}

#[test]
fn a_directory_that_nobody_deleted_is_adopted_with_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.produce("t", batch(5));
    let id = broker
        .broker()
        .context()
        .cluster
        .image()
        .topic("t")
        .unwrap()
        .id;
    broker.stop();
    std::fs::remove_file(dir.path().join("metaq-meta.redb")).unwrap();
    let broker = Running::start(dir.path(), &[]);
    assert_eq!(
        broker
            .broker()
            .context()
            .cluster
            .image()
            .topic("t")
            .unwrap()
            .id,
        id
    );
    assert_eq!(broker.client().fetch("t", 0), [(0, 5)]);
    broker.stop();
}

#[test]
fn offsets_are_kept_across_a_restart_and_forgotten_with_their_topic() {
    let dir = tempfile::tempdir().unwrap();
    let group = || GroupId(StrBytes::from_static_str("g"));
    let fetch = |client: &mut common::Client| {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group())
            .with_topics(Some(vec![topic]));
        client.ask(7, &request).topics[0].partitions[0].committed_offset
    };
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(42);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let commit = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    assert_eq!(client.ask(8, &commit).topics[0].partitions[0].error_code, 0);
    assert_eq!(fetch(&mut client), 42);
    broker.stop();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    assert_eq!(fetch(&mut client), 42);
    let state = DeleteTopicState::default().with_name(Some(name("t")));
    client.ask(6, &DeleteTopicsRequest::default().with_topics(vec![state]));
    assert_eq!(fetch(&mut client), -1);
    broker.stop();
}

#[test]
fn a_shutdown_answers_what_waits_instead_of_waiting_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["group.initial.rebalance.delay.ms=60000"]);
    let (mut reader, mut member, mut witness) = (broker.client(), broker.client(), broker.client());
    witness.create("t");
    reader.send(11, &fetch_request("t", 0, 60_000).with_session_epoch(0));
    let protocol =
        JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range"));
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    member.send(3, &join);
    let cx = broker.broker().context().clone();
    common::wait_for("both to wait", || {
        let listed = witness.ask(4, &ListGroupsRequest::default());
        listed.groups.len() == 1 && cx.fetch_sessions.len() == 1
    });
    let stopping = Instant::now();
    broker.stop();
    assert!(stopping.elapsed().as_secs() < 5, "{:?}", stopping.elapsed());
    let (_, fetched) = reader.receive::<FetchRequest>(11);
    assert_eq!(fetched.responses[0].partitions[0].error_code, 0);
    let (_, joined) = member.receive::<JoinGroupRequest>(3);
    assert_eq!(joined.error_code, ResponseError::NotCoordinator.code());
}

#[test]
fn synced_topics_are_visible_once_synced() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["unflushThreshold=1"]);
    let mut client = broker.client();
    client.create("t");
    for n in 0..20 {
        assert_eq!(client.produce("t", batch(1)), (0, n));
    }
    let partition = broker.broker().context().partitions.get("t", 0).unwrap();
    assert_eq!(
        (partition.durable_offset(), partition.high_watermark()),
        (20, 20)
    );
    assert_eq!(client.fetch("t", 0).len(), 20);
    broker.stop();
}

#[test]
fn the_dashboard_port_says_that_it_is_ready_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.ask(
        3,
        &ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("x"))
            .with_client_software_version(StrBytes::from_static_str("1")),
    );
    assert!(broker.page("/healthz").contains("200 OK"));
    assert!(broker.page("/readyz").contains("200 OK"));
    let metrics = broker.page("/metrics");
    assert!(
        metrics.contains("metaq_requests_total{api=\"ApiVersions\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("metaq_partition_log_end_offset{topic=\"t\",partition=\"0-0\"} 0"),
        "{metrics}"
    );
    broker.stop();
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let refused = std::panic::catch_unwind(|| Running::start(dir.path(), &[]));
    assert!(refused.is_err());
    broker.stop();
}

#[test]
fn a_topics_own_clock_and_codec_are_applied() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(
        set_config(&mut client, "t", "message.timestamp.type", "LogAppendTime"),
        0
    );
    assert_eq!(set_config(&mut client, "t", "compression.type", "zstd"), 0);
    let old = BatchBuilder::new()
        .push(None, Some(&[7; 500]), &[], 1000)
        .finish()
        .unwrap();
    let before = now_ms();
    assert_eq!(client.produce("t", old), (0, 0));
    let response = client.ask(11, &fetch_request("t", 0, 0));
    let records = response.responses[0].partitions[0].records.clone().unwrap();
    let header = metaq_protocol::batch::BatchHeader::parse(&records).unwrap();
    assert!(metaq_protocol::batch::verify_crc(&records));
    assert!(header.is_log_append_time() && header.max_timestamp >= before);
    assert_eq!(
        header.compression().unwrap(),
        metaq_protocol::batch::Compression::Zstd
    );
    broker.stop();
}

#[test]
fn another_brokers_directory_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    Running::start(dir.path(), &[]).stop();
    let leftover = dir.path().join("t-0.0123-delete");
    std::fs::create_dir(&leftover).unwrap();
    let refused = std::panic::catch_unwind(|| Running::start(dir.path(), &["brokerId=7"]));
    assert!(refused.is_err());
    assert!(leftover.exists());
    assert!(dir.path().join(".kafka_cleanshutdown").exists());
    Running::start(dir.path(), &[]).stop();
}

#[test]
fn what_was_acknowledged_can_be_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    for n in 0..2000 {
        assert_eq!(client.produce("t", batch(1)), (0, n));
        assert_eq!(client.fetch("t", n), [(n, 1)]);
    }
    broker.stop();
}

#[test]
fn offsets_of_an_earlier_topic_of_the_same_name_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(cluster::commit(&mut client, "g", (-1, ""), "t", 0, 77), 0);
    assert_eq!(cluster::committed(&mut client, "g", "t", 0), Ok(77));
    broker.stop();
    // As a crash leaves it that comes behind the topic's deletion and creation, before the offset was removed.
    let file = dir.path().join("metaq-meta.redb");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let meta = metaq::meta::MetaStore::open_embedded(&file).unwrap();
        let path = "/consumers/g/offsets/t/0-0";
        let node = meta.get(path).await.unwrap().unwrap();
        let mut record: serde_json::Value = serde_json::from_slice(&node.data).unwrap();
        record["topic_id"] = "00000000-0000-0000-0000-000000000001".into();
        let op = metaq::meta::Op::put(path, record.to_string().into());
        meta.multi(vec![op]).await.unwrap();
        meta.close().await;
    });
    let broker = Running::start(dir.path(), &[]);
    assert_eq!(
        cluster::committed(&mut broker.client(), "g", "t", 0),
        Ok(-1)
    );
    broker.stop();
}

#[test]
fn the_order_of_data_directories_does_not_matter_and_two_stores_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let both = |first: &std::path::Path, second: &std::path::Path| {
        std::path::PathBuf::from(format!("{},{}", first.display(), second.display()))
    };
    let broker = Running::start(&both(&a, &b), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(cluster::commit(&mut client, "g", (-1, ""), "t", 0, 7), 0);
    broker.stop();
    let broker = Running::start(&both(&b, &a), &[]);
    assert_eq!(cluster::committed(&mut broker.client(), "g", "t", 0), Ok(7));
    broker.stop();
    std::fs::copy(a.join("metaq-meta.redb"), b.join("metaq-meta.redb")).unwrap();
    let two = std::panic::catch_unwind(|| Running::start(&both(&a, &b), &[]));
    assert!(two.is_err());
}

#[test]
fn a_writer_that_ended_by_a_bug_is_told_by_healthz_and_to_producers() {
    /// Panics once more while a panic's remains are cleared away, where nothing catches it.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose, again");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.produce("t", batch(1));
    let partition = broker.broker().context().partitions.get("t", 0).unwrap();
    let fatal = partition.writer().run(|| std::panic::panic_any(Bomb));
    assert!(fatal.blocking_recv().is_err());
    common::wait_for("a word of it", || broker.page("/healthz").contains("503"));
    assert!(broker.page("/healthz").contains("ended: writer 0"));
    assert_eq!(
        client.produce("t", batch(1)).0,
        ResponseError::KafkaStorageError.code()
    );
    assert_eq!(client.fetch("t", 0), [(0, 1)]);
    broker.stop();
}

#[test]
fn slots_of_groups_are_shown_as_partitions_of_an_internal_topic_to_who_names_it() {
    const OFFSETS: &str = "__consumer_offsets";
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["auto.create.topics.enable=true"]);
    let mut client = broker.client();
    client.create("t");
    let named = MetadataRequestTopic::default().with_name(Some(name(OFFSETS)));
    let by_name = MetadataRequest::default().with_topics(Some(vec![named]));
    let response = client.ask(9, &by_name);
    let topic = &response.topics[0];
    assert_eq!((topic.error_code, topic.is_internal), (0, true));
    let slots = &broker.broker().context().cluster.image().slots;
    assert_eq!(topic.partitions.len(), slots.len());
    for (index, (partition, slot)) in topic.partitions.iter().zip(slots).enumerate() {
        assert_eq!(partition.partition_index, index as i32);
        assert_eq!(partition.leader_id.0, slot.owner);
        assert_eq!(partition.leader_epoch, slot.epoch);
        assert_eq!(partition.isr_nodes, [partition.leader_id]);
    }
    let named = TopicRequest::default().with_name(name(OFFSETS));
    let describe = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![named])
        .with_response_partition_limit(40);
    let described = client.ask(0, &describe);
    assert!(described.topics[0].is_internal);
    assert_eq!(described.topics[0].partitions.len(), 40);
    assert_eq!(described.next_cursor.unwrap().partition_index, 40);
    // It is there: it is neither created on the way nor by request.
    let create = CreatableTopic::default()
        .with_name(name(OFFSETS))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let create = CreateTopicsRequest::default().with_topics(vec![create]);
    let created = client.ask(5, &create);
    let exists = ResponseError::TopicAlreadyExists.code();
    assert_eq!(created.topics[0].error_code, exists);
    let all = client.ask(9, &MetadataRequest::default().with_topics(None));
    assert_eq!(all.topics.len(), 1, "{:?}", all.topics);
    broker.stop();
}
