//! What Kafka answers, field by field: each of these cases was met by a client, a tool or an application.

mod common;

use bytes::Bytes;
use common::{Client, Running, fetch_request, name, now_ms, produce_request};
use metaq_protocol::ResponseError;
use metaq_protocol::batch::{BatchBuilder, Compression};
use metaq_protocol::messages::create_acls_request::AclCreation;
use metaq_protocol::messages::create_topics_request::CreatableTopic;
use metaq_protocol::messages::delete_acls_request::DeleteAclsFilter;
use metaq_protocol::messages::describe_configs_request::DescribeConfigsResource;
use metaq_protocol::messages::elect_leaders_request::TopicPartitions;
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic;
use metaq_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use metaq_protocol::messages::produce_response::PartitionProduceResponse;
use metaq_protocol::messages::update_features_request::FeatureUpdateKey;
use metaq_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use metaq_protocol::messages::{
    AlterConfigsRequest, ApiKey, ApiVersionsRequest, BrokerId, CreateAclsRequest,
    CreateTopicsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeClientQuotasRequest,
    DescribeConfigsRequest, DescribeQuorumRequest, ElectLeadersRequest, FindCoordinatorRequest,
    GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    LeaveGroupRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, ProducerId, SyncGroupRequest,
    UnregisterBrokerRequest, UpdateFeaturesRequest, WriteTxnMarkersRequest, alter_configs_request,
};
use metaq_protocol::protocol::StrBytes;

fn set_config(client: &mut Client, topic: &str, key: &'static str, value: &'static str) {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(key))
        .with_value(Some(StrBytes::from_static_str(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(name(topic).0)
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.ask(1, &request).responses[0].error_code, 0);
}

fn produce(client: &mut Client, version: i16, batch: Bytes) -> PartitionProduceResponse {
    let request = produce_request("t", batch, -1);
    let mut response = client.ask(version, &request);
    response.responses[0].partition_responses.remove(0)
}

/// Records by whether they have a key, and by timestamp.
fn records(codec: Compression, all: &[(bool, i64)]) -> Bytes {
    let mut builder = BatchBuilder::new().compression(codec);
    for (has_key, timestamp) in all {
        builder = builder.push(
            has_key.then_some(b"k".as_slice()),
            Some(b"v"),
            &[],
            *timestamp,
        );
    }
    builder.finish().unwrap()
}

fn named(response: &PartitionProduceResponse) -> Vec<(i32, String)> {
    let errors = response.record_errors.iter();
    errors
        .map(|error| {
            let text = error.batch_index_error_message.as_deref();
            (error.batch_index, text.unwrap_or_default().to_owned())
        })
        .collect()
}

#[test]
fn every_record_that_is_a_reason_for_a_refusal_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let now = now_ms();
    for codec in [Compression::None, Compression::Lz4] {
        let late = now + 3 * 3_600_000;
        let batch = records(
            codec,
            &[(true, now), (true, now), (true, late), (true, now)],
        );
        let answer = produce(&mut client, 9, batch);
        assert_eq!(answer.error_code, ResponseError::InvalidTimestamp.code());
        let message = answer.error_message.as_deref();
        let whole = "One or more records have been rejected due to invalid timestamp";
        assert_eq!(message, Some(whole));
        let named = named(&answer);
        assert_eq!(named.len(), 1);
        assert_eq!(named[0].0, 2);
        let text = format!("Timestamp {late} of message with offset 2 is out of range.");
        assert!(named[0].1.starts_with(&text), "{}", named[0].1);
        assert_eq!(answer.log_start_offset, 0);
    }
    set_config(&mut client, "t", "cleanup.policy", "compact");
    let batch = records(
        Compression::None,
        &(0..8).map(|at| (at % 3 != 0, now)).collect::<Vec<_>>(),
    );
    let answer = produce(&mut client, 9, batch);
    assert_eq!(answer.error_code, ResponseError::InvalidRecord.code());
    let text = "Compacted topic cannot accept message without key in topic partition t-0";
    let expected: Vec<_> = [0, 3, 6].map(|at| (at, text.to_owned())).into();
    assert_eq!(named(&answer), expected);
    assert_eq!(answer.log_start_offset, 0);
    assert_eq!((answer.base_offset, answer.log_append_time_ms), (-1, -1));
    broker.stop();
}

#[test]
fn what_a_version_of_produce_does_not_carry_is_refused_with_kafkas_errors() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let now = now_ms();
    let zstd = records(Compression::Zstd, &[(true, now)]);
    for version in 3..7 {
        let answer = produce(&mut client, version, zstd.clone());
        let refused = ResponseError::UnsupportedCompressionType.code();
        assert_eq!(answer.error_code, refused, "version {version}");
    }
    assert_eq!(produce(&mut client, 7, zstd.clone()).error_code, 0);
    let mut old = zstd.to_vec();
    old[16] = 1;
    for wrong in [Bytes::new(), zstd.slice(..zstd.len() - 1), old.into()] {
        let answer = produce(&mut client, 9, wrong);
        assert_eq!(answer.error_code, ResponseError::InvalidRecord.code());
        assert_eq!(answer.log_start_offset, -1);
    }
    broker.stop();
}

#[test]
fn a_success_has_no_error_message() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let new = CreatableTopic::default()
        .with_name(name("t"))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![new]);
    for version in 2..=7 {
        let request = request.clone().with_validate_only(version < 7);
        let answer = &client.ask(version, &request).topics[0];
        assert_eq!((answer.error_code, &answer.error_message), (0, &None));
    }
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(name("t").0);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    for version in 0..=1 {
        let answer = &client.ask(version, &request).responses[0];
        assert_eq!((answer.error_code, &answer.error_message), (0, &None));
    }
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(name("t").0);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    for version in 0..=2 {
        let answer = &client.ask(version, &request).responses[0];
        assert_eq!((answer.error_code, &answer.error_message), (0, &None));
    }
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(name("t").0)
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    // But for these two: empty, and the name of no error.
    for version in 1..=4 {
        let answer = &client.ask(version, &request).results[0];
        let message = answer.error_message.as_deref();
        assert_eq!((answer.error_code, message), (0, Some("")));
    }
    for version in 1..=3 {
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("g"));
        let answer = client.ask(version, &request);
        assert_eq!(answer.error_message.as_deref(), Some("NONE"));
    }
    broker.stop();
}

#[test]
fn a_topic_id_of_zeros_is_no_topic_where_topics_are_named_by_id() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let unknown = ResponseError::UnknownTopicId.code();
    let batch = records(Compression::None, &[(true, now_ms())]);
    assert_eq!(produce(&mut client, 13, batch).error_code, unknown);
    let answer = client.ask(13, &fetch_request("t", 0, 0));
    assert_eq!(answer.responses[0].partitions[0].error_code, unknown);
    broker.stop();
}

#[test]
fn a_marker_without_a_producer_is_refused_only_where_there_is_a_partition() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let topic = WritableTxnMarkerTopic::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![0, 99]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
        .with_topics(vec![topic]);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let answer = client.ask(1, &request);
    let partitions = &answer.markers[0].topics[0].partitions;
    let codes: Vec<i16> = partitions.iter().map(|one| one.error_code).collect();
    let missing = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(codes, [-1, missing]);
    broker.stop();
}

#[test]
fn what_is_asked_for_by_an_unknown_id_has_no_name_in_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let asked = MetadataRequestTopic::default()
        .with_topic_id(uuid::Uuid::from_u128(7))
        .with_name(Some(name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    let topic = &client.ask(12, &request).topics[0];
    assert_eq!(topic.error_code, ResponseError::UnknownTopicId.code());
    assert_eq!(
        (&topic.name, topic.topic_id),
        (&None, uuid::Uuid::from_u128(7))
    );
    broker.stop();
}

#[test]
fn slots_of_transactional_ids_are_shown_to_who_names_their_topic() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["offsets.topic.mirror=true"]);
    let mut client = broker.client();
    let topic = "__transaction_state";
    let named = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let mut request = MetadataRequest::default().with_topics(Some(vec![named]));
    let found = &client.ask(9, &request).topics[0];
    assert_eq!((found.error_code, found.is_internal), (0, true));
    let led = |partition: &&MetadataResponsePartition| partition.leader_id == BrokerId(0);
    assert_eq!(found.partitions.iter().filter(led).count(), 64);
    request.topics = None;
    let all = client.ask(9, &request).topics;
    let is_it = |found: &MetadataResponseTopic| found.name == Some(name(topic));
    assert!(!all.iter().any(is_it));
    // It has no records.
    let answer = client.ask(11, &fetch_request(topic, 0, 0));
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(answer.responses[0].partitions[0].error_code, unknown);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(name(topic).0);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.ask(4, &request).results[0].error_code, 0);
    broker.stop();
}

#[test]
fn a_topic_that_is_named_without_partitions_is_in_the_answer_where_it_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(5);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let commit = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    assert_eq!(client.ask(8, &commit).topics[0].partitions[0].error_code, 0);
    let topics =
        ["t", "missing"].map(|topic| OffsetDeleteRequestTopic::default().with_name(name(topic)));
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_topics(topics.into());
    let answer = client.ask(0, &request);
    let named: Vec<&str> = answer
        .topics
        .iter()
        .map(|topic| topic.name.as_str())
        .collect();
    assert_eq!((answer.error_code, named), (0, vec!["missing"]));
    broker.stop();
}

fn list(client: &mut Client, timestamp: i64, leader_epoch: i32) -> (i16, i64, i64) {
    let partition = ListOffsetsPartition::default()
        .with_timestamp(timestamp)
        .with_current_leader_epoch(leader_epoch);
    let topic = ListOffsetsTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    let answer = &client.ask(8, &request).topics[0].partitions[0];
    (answer.error_code, answer.offset, answer.timestamp)
}

#[test]
fn records_without_timestamps_have_a_largest_one_and_epochs_below_none_are_old() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(list(&mut client, -3, -1), (0, -1, -1));
    let batch = records(Compression::None, &[(true, -1), (true, -1)]);
    assert_eq!(produce(&mut client, 9, batch).error_code, 0);
    assert_eq!(list(&mut client, -3, -1), (0, 0, -1));
    let old = ResponseError::FencedLeaderEpoch.code();
    for epoch in [-2, i32::MIN] {
        assert_eq!(list(&mut client, -1, epoch), (old, -1, -1));
    }
    assert_eq!(list(&mut client, -1, 0), (0, 2, -1));
    broker.stop();
}

#[test]
fn a_group_without_a_name_or_that_is_not_there_is_answered_by_version() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let unnamed = ResponseError::InvalidGroupId.code();
    let beat = client.ask(3, &HeartbeatRequest::default());
    assert_eq!(beat.error_code, unnamed);
    assert_eq!(
        client.ask(1, &LeaveGroupRequest::default()).error_code,
        unnamed
    );
    assert_eq!(
        client.ask(3, &SyncGroupRequest::default()).error_code,
        unnamed
    );
    assert_eq!(
        client.ask(0, &OffsetDeleteRequest::default()).error_code,
        unnamed
    );
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(5);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let mut commit = OffsetCommitRequest::default()
        .with_generation_id_or_member_epoch(3)
        .with_topics(vec![topic]);
    for (version, expected) in [
        (8, ResponseError::IllegalGeneration),
        (9, ResponseError::GroupIdNotFound),
    ] {
        let answer = client.ask(version, &commit);
        assert_eq!(answer.topics[0].partitions[0].error_code, expected.code());
    }
    // Offsets alone may belong to a group without a name, and whoever fetches them may say to be any member.
    commit.generation_id_or_member_epoch = -1;
    assert_eq!(client.ask(8, &commit).topics[0].partitions[0].error_code, 0);
    let topic = OffsetFetchRequestTopics::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default()
        .with_member_id(Some(StrBytes::from_static_str("nobody")))
        .with_member_epoch(77)
        .with_topics(Some(vec![topic]));
    let answer = client.ask(9, &OffsetFetchRequest::default().with_groups(vec![group]));
    assert_eq!(answer.groups[0].error_code, 0);
    assert_eq!(answer.groups[0].topics[0].partitions[0].committed_offset, 5);
    broker.stop();
}

#[test]
fn half_of_a_producer_id_is_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let refused = ResponseError::InvalidRequest.code();
    for (id, epoch, expected) in [(5, -1, refused), (-1, 5, refused), (-1, -1, 0)] {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch);
        assert_eq!(client.ask(4, &request).error_code, expected);
    }
    broker.stop();
}

/// An operation (AlterConfigOp.OpType), a key and a value.
type Setting<'a> = (i8, &'a str, Option<&'a str>);

/// The error of setting topic configurations, each by its operation.
fn alter(client: &mut Client, topic: &str, configs: &[Setting<'_>]) -> (i16, String) {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let config = |(operation, key, value): &Setting<'_>| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(configs.iter().map(config).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.ask(1, &request).responses.remove(0);
    (
        answer.error_code,
        answer.error_message.unwrap_or_default().to_string(),
    )
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_in_kafkas_words() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    const SET: i8 = 0;
    const APPEND: i8 = 2;
    let (request, config) = (
        ResponseError::InvalidRequest.code(),
        ResponseError::InvalidConfig.code(),
    );
    let cases: [(&[Setting<'_>], i16, &str); 11] = [
        (
            &[
                (SET, "retention.ms", Some("1")),
                (SET, "retention.ms", Some("2")),
            ],
            request,
            "Error due to duplicate config keys",
        ),
        (
            &[
                (SET, "retention.ms", None),
                (APPEND, "cleanup.policy", None),
            ],
            request,
            "Null value not supported for : retention.ms, cleanup.policy",
        ),
        (
            &[(APPEND, "compression.type", Some("gzip"))],
            config,
            "Can't APPEND to key compression.type because its type is not LIST.",
        ),
        (
            &[(SET, "min.cleanable.dirty.ratio", Some("2"))],
            config,
            "Invalid value 2 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
        ),
        (
            &[(SET, "compression.type", Some("rar"))],
            config,
            "Invalid value rar for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            &[(SET, "segment.ms", Some("0"))],
            config,
            "Invalid value 0 for configuration segment.ms: Value must be at least 1",
        ),
        (
            &[(SET, "retention.ms", Some("soon"))],
            config,
            "Invalid value soon for configuration retention.ms: Not a number of type LONG",
        ),
        (
            &[(SET, "preallocate", Some("maybe"))],
            config,
            "Invalid value maybe for configuration preallocate: Expected value to be either true or false",
        ),
        (
            &[
                (SET, "min.compaction.lag.ms", Some("9")),
                (SET, "max.compaction.lag.ms", Some("8")),
            ],
            config,
            "conflict topic config setting min.compaction.lag.ms (9) > max.compaction.lag.ms (8)",
        ),
        (
            &[(SET, "remote.storage.enable", Some("true"))],
            config,
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
        ),
        (
            &[(SET, "no.such.key", Some("1"))],
            config,
            "Unknown topic config name: no.such.key",
        ),
    ];
    for (configs, code, text) in cases {
        let refused = alter(&mut client, "t", configs);
        assert_eq!(refused, (code, text.to_owned()));
    }
    for fits in ["", "compact", "compact,delete"] {
        let set = alter(&mut client, "t", &[(SET, "cleanup.policy", Some(fits))]);
        assert_eq!(set, (0, String::new()), "{fits:?}");
    }
    let replicas = "leader.replication.throttled.replicas";
    assert_eq!(
        alter(&mut client, "t", &[(APPEND, replicas, Some("0:1"))]).0,
        0
    );
    let (code, text) = alter(&mut client, "no/topic", &[]);
    assert_eq!(code, ResponseError::InvalidTopicException.code(), "{text}");
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(alter(&mut client, "none", &[]).0, unknown);
    // The older API has no operations.
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(StrBytes::from_static_str("retention.ms"))
        .with_value(None);
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(name("t").0)
        .with_configs(vec![config]);
    let answer = client.ask(
        1,
        &AlterConfigsRequest::default().with_resources(vec![resource]),
    );
    let answer = &answer.responses[0];
    assert_eq!(answer.error_code, request);
    let text = "Null value not supported for : retention.ms";
    assert_eq!(answer.error_message.as_deref(), Some(text));
    broker.stop();
}

#[test]
fn configurations_are_described_with_kafkas_types_and_synonyms() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let mut describe = |kind: i8, named: &'static str| {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_static_str(named))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default()
            .with_include_synonyms(true)
            .with_resources(vec![resource]);
        client.ask(4, &request).results.remove(0).configs
    };
    let topic = describe(2, "t");
    let entry = |key: &str| topic.iter().find(|entry| &*entry.name == key).unwrap();
    assert_eq!(
        entry("leader.replication.throttled.replicas").config_type,
        7
    );
    assert_eq!(entry("remote.storage.enable").config_type, 1);
    let retention = entry("retention.ms");
    assert_eq!(retention.value.as_deref(), Some("604800000"));
    assert!(retention.synonyms.is_empty());
    let synonyms = entry("cleanup.policy").synonyms.iter();
    let synonyms: Vec<_> = synonyms
        .map(|one| (&*one.name, one.value.as_deref()))
        .collect();
    assert_eq!(synonyms, [("log.cleanup.policy", Some("delete"))]);
    // A subscription that is not there is described with the defaults.
    let metrics = describe(16, "none");
    let names: Vec<&str> = metrics.iter().map(|entry| &*entry.name).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.contains(&"interval.ms"));
    broker.stop();
}

#[test]
fn nobody_makes_or_writes_to_kafkas_own_topics() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let mut create = |topic: &str| {
        let new = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![new]);
        client.ask(5, &request).topics[0].error_code
    };
    for topic in ["__cluster_metadata", "__share_group_state"] {
        assert_eq!(
            create(topic),
            ResponseError::InvalidRequest.code(),
            "{topic}"
        );
    }
    let exists = ResponseError::TopicAlreadyExists.code();
    for topic in ["__consumer_offsets", "__transaction_state"] {
        assert_eq!(create(topic), exists, "{topic}");
    }
    let batch = records(Compression::None, &[(true, now_ms())]);
    let request = produce_request("__consumer_offsets", batch, -1);
    let answer = client.ask(9, &request);
    let refused = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(refused, ResponseError::InvalidTopicException.code());
    broker.stop();
}

#[test]
fn telemetry_is_named_while_somebody_subscribes_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let is_named = |client: &mut Client| {
        let keys = client.ask(0, &ApiVersionsRequest::default()).api_keys;
        let named = |wanted: ApiKey| keys.iter().any(|key| key.api_key == wanted as i16);
        assert!(named(ApiKey::Produce));
        let of_telemetry = [ApiKey::GetTelemetrySubscriptions, ApiKey::PushTelemetry];
        of_telemetry.map(named)
    };
    assert_eq!(is_named(&mut client), [false; 2]);
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str("metrics"))
        .with_value(Some(StrBytes::from_static_str("*")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(16)
        .with_resource_name(StrBytes::from_static_str("all"))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.ask(1, &request).responses[0].error_code, 0);
    assert_eq!(is_named(&mut client), [true; 2]);
    broker.stop();
}

#[test]
fn what_is_not_served_is_refused_in_the_apis_own_form() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let no_security = ResponseError::SecurityDisabled.code();
    for version in 1..=3 {
        let any = DescribeAclsRequest::default()
            .with_resource_type_filter(1)
            .with_pattern_type_filter(1)
            .with_operation(1)
            .with_permission_type(1);
        let acls = client.ask(version, &any);
        assert_eq!(acls.error_code, no_security);
        let text = "No Authorizer is configured on the broker";
        assert_eq!(acls.error_message.as_deref(), Some(text));
        let creation = AclCreation::default()
            .with_resource_type(2)
            .with_resource_pattern_type(3)
            .with_operation(3)
            .with_permission_type(3);
        let request = CreateAclsRequest::default().with_creations(vec![creation; 2]);
        let created = client.ask(version, &request).results;
        assert_eq!(created.len(), 2);
        assert_eq!(created[0].error_code, no_security);
        let filter = DeleteAclsFilter::default()
            .with_resource_type_filter(2)
            .with_pattern_type_filter(3)
            .with_operation(3)
            .with_permission_type(3);
        let request = DeleteAclsRequest::default().with_filters(vec![filter]);
        let deleted = client.ask(version, &request).filter_results;
        assert_eq!(deleted[0].error_code, no_security);
    }
    for version in 0..=2 {
        let asked = TopicPartitions::default()
            .with_topic(name("t"))
            .with_partitions(vec![0, 7]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![asked]));
        let answer = client.ask(version, &request);
        let results = &answer.replica_election_results[0].partition_result;
        let codes: Vec<i16> = results.iter().map(|result| result.error_code).collect();
        let (not_needed, unknown) = (
            ResponseError::ElectionNotNeeded.code(),
            ResponseError::UnknownTopicOrPartition.code(),
        );
        assert_eq!(codes, [not_needed, unknown]);
        let all = client.ask(version, &request.with_topic_partitions(None));
        assert!(all.replica_election_results[0].partition_result.is_empty());
        let quorum = client.ask(version, &DescribeQuorumRequest::default());
        assert_eq!(quorum.error_code, ResponseError::UnsupportedVersion.code());
        let update = FeatureUpdateKey::default()
            .with_feature(StrBytes::from_static_str("streams.version"))
            .with_max_version_level(2);
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
        let updated = client.ask(version, &request);
        let refused = ResponseError::InvalidUpdateVersion.code();
        assert_eq!(updated.error_code, refused);
    }
    let moving = client.ask(0, &ListPartitionReassignmentsRequest::default());
    assert_eq!((moving.error_code, moving.error_message), (0, None));
    let quotas = client.ask(1, &DescribeClientQuotasRequest::default());
    let message = quotas.error_message.as_deref();
    assert_eq!((quotas.error_code, message), (0, Some("")));
    assert_eq!(quotas.entries, Some(Vec::new()));
    for (id, expected) in [
        (0, ResponseError::InvalidRequest),
        (9, ResponseError::BrokerIdNotRegistered),
    ] {
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
        assert_eq!(client.ask(0, &request).error_code, expected.code());
    }
    broker.stop();
}
