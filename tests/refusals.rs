//! What Kafka answers, field by field, to requests that are slightly wrong: found by compat-tests/differ.

mod common;

use bytes::Bytes;
use common::{Client, Running, batch, fetch_request, name, produce_request};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use metaq_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use metaq_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use metaq_protocol::messages::describe_configs_request::DescribeConfigsResource;
use metaq_protocol::messages::describe_producers_request::TopicRequest as ProducersOf;
use metaq_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use metaq_protocol::messages::elect_leaders_request::TopicPartitions;
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::leave_group_request::MemberIdentity;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use metaq_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use metaq_protocol::messages::update_features_request::FeatureUpdateKey;
use metaq_protocol::messages::{
    AlterReplicaLogDirsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteGroupsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest,
    DescribeProducersRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest,
    FindCoordinatorRequest, GroupId, IncrementalAlterConfigsRequest, JoinGroupRequest,
    LeaveGroupRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest, UpdateFeaturesRequest,
};
use metaq_protocol::protocol::StrBytes;
use uuid::Uuid;

const INVALID_REQUEST: i16 = ResponseError::InvalidRequest.code();
const UNKNOWN: i16 = ResponseError::UnknownTopicOrPartition.code();

/// A broker with a topic `t` of one partition.
fn with_topic(test: impl FnOnce(&mut Client)) {
    let dir = tempfile::tempdir().unwrap();
    let no_delay = "group.initial.rebalance.delay.ms=0";
    let broker = Running::start(dir.path(), &[no_delay]);
    let mut client = broker.client();
    client.create("t");
    test(&mut client);
    broker.stop();
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

#[test]
fn of_a_partition_that_a_produce_request_names_twice_the_last_one_counts() {
    with_topic(|client| {
        let mut request = produce_request("t", batch(3), -1);
        let mut again = request.topic_data[0].partition_data[0].clone();
        again.records = Some(batch(2));
        request.topic_data[0].partition_data.push(again);
        let answer = client.ask(9, &request);
        assert_eq!(answer.responses[0].partition_responses.len(), 1);
        assert_eq!(client.fetch("t", 0), [(0, 2)]);
    });
}

#[test]
fn a_batch_of_no_known_format_fails_the_whole_produce_request() {
    with_topic(|client| {
        let mut request = produce_request("t", batch(1), -1);
        let mut unknown = batch(1).to_vec();
        unknown[16] = 3;
        let more = produce_request("missing", unknown.into(), -1);
        request.topic_data.extend(more.topic_data);
        for topic in client.ask(9, &request).responses {
            let answer = &topic.partition_responses[0];
            let why = answer.error_message.as_deref();
            assert_eq!(answer.error_code, ResponseError::CorruptMessage.code());
            assert_eq!(why, Some("Invalid magic found in record: 3"));
        }
        assert!(client.fetch("t", 0).is_empty());
    });
}

#[test]
fn only_records_are_a_reason_that_a_produce_answer_says() {
    with_topic(|client| {
        let whole = batch(1);
        let cut = whole.slice(..whole.len() - 3);
        let of_topic = |topic: &str, records: Bytes, acks| produce_request(topic, records, acks);
        for (request, error) in [
            (of_topic("missing", whole.clone(), -1), UNKNOWN),
            (of_topic("t", cut, -1), ResponseError::InvalidRecord.code()),
            (
                of_topic("t", whole, 2),
                ResponseError::InvalidRequiredAcks.code(),
            ),
        ] {
            let answer = client.ask(9, &request);
            let answer = &answer.responses[0].partition_responses[0];
            assert_eq!((answer.error_code, &answer.error_message), (error, &None));
        }
    });
}

fn listed(client: &mut Client, version: i16, asked: &[(i32, i64)]) -> Vec<(i32, i16)> {
    let partitions = asked.iter().map(|(index, timestamp)| {
        ListOffsetsPartition::default()
            .with_partition_index(*index)
            .with_timestamp(*timestamp)
            .with_current_leader_epoch(5)
    });
    let topic = ListOffsetsTopic::default()
        .with_name(name("t"))
        .with_partitions(partitions.collect());
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    let answer = client.ask(version, &request);
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|one| (one.partition_index, one.error_code))
        .collect()
}

#[test]
fn offsets_are_refused_in_kafkas_order_and_each_partition_once() {
    with_topic(|client| {
        let unsupported = ResponseError::UnsupportedVersion.code();
        assert_eq!(listed(client, 5, &[(9, -3)]), [(9, unsupported)]);
        assert_eq!(listed(client, 5, &[(0, -3)]), [(0, unsupported)]);
        assert!(listed(client, 5, &[]).is_empty());
        let twice = listed(client, 5, &[(0, -3), (0, -1), (9, -1)]);
        assert_eq!(twice, [(0, INVALID_REQUEST), (9, UNKNOWN)]);
    });
}

#[test]
fn a_sync_names_the_protocol_where_its_version_can() {
    with_topic(|client| {
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_protocol_type(Some(text("consumer")));
        let error = ResponseError::InconsistentGroupProtocol.code();
        assert_eq!(client.ask(5, &request).error_code, error);
        let error = ResponseError::UnknownMemberId.code();
        let request = request.with_protocol_type(None);
        assert_eq!(client.ask(4, &request).error_code, error);
    });
}

#[test]
fn what_a_member_named_before_must_be_among_what_it_names_now() {
    with_topic(|client| {
        let mut join = |member: &str, protocol: &'static str| {
            let protocol =
                JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str(protocol));
            let request = JoinGroupRequest::default()
                .with_group_id(GroupId(text("g")))
                .with_session_timeout_ms(10_000)
                .with_rebalance_timeout_ms(100)
                .with_member_id(text(member))
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol]);
            let answer = client.ask(3, &request);
            (answer.error_code, answer.member_id.to_string())
        };
        let (error, member) = join("", "range");
        assert_eq!(error, 0);
        let refused = ResponseError::InconsistentGroupProtocol.code();
        assert_eq!(join(&member, "other").0, refused);
        assert_eq!(join(&member, "range").0, 0);
    });
}

#[test]
fn what_is_not_there_has_no_aborted_transactions_and_no_session_goes_on_below_its_end() {
    with_topic(|client| {
        for (topic, aborted) in [("missing", true), ("t", false)] {
            let answer = client.ask(11, &fetch_request(topic, 0, 0));
            let partition = &answer.responses[0].partitions[0];
            assert_eq!(
                partition.aborted_transactions.is_some(),
                aborted,
                "of {topic}"
            );
        }
        let mut request = fetch_request("t", 0, 0);
        request.topics[0].partitions[0].current_leader_epoch = -2;
        let answer = client.ask(11, &request);
        assert_eq!(answer.responses[0].partitions[0].error_code, 0);
        let request = fetch_request("t", 0, 0).with_session_epoch(-2);
        let answer = client.ask(11, &request);
        let error = ResponseError::FetchSessionIdNotFound.code();
        assert_eq!(answer.error_code, error);
    });
}

#[test]
fn an_unknown_type_fails_the_whole_request() {
    with_topic(|client| {
        let topic = TopicPartitions::default()
            .with_topic(name("t"))
            .with_partitions(vec![0]);
        let request = ElectLeadersRequest::default()
            .with_election_type(2)
            .with_topic_partitions(Some(vec![topic]));
        let answer = client.ask(2, &request);
        assert_eq!(answer.error_code, INVALID_REQUEST);
        let result = &answer.replica_election_results[0].partition_result[0];
        let why = Some("Unknown election type 2");
        assert_eq!(result.error_code, INVALID_REQUEST);
        assert_eq!(result.error_message.as_deref(), why);

        let resource = |kind: i8| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(name("t").0)
                .with_configuration_keys(None)
        };
        let request =
            DescribeConfigsRequest::default().with_resources(vec![resource(2), resource(99)]);
        for result in client.ask(4, &request).results {
            let why = result.error_message.unwrap_or_default();
            assert_eq!(result.error_code, INVALID_REQUEST);
            assert!(why.starts_with("This most likely occurs because"), "{why}");
        }

        let request = FindCoordinatorRequest::default()
            .with_key_type(9)
            .with_coordinator_keys(vec![text("g")]);
        let answer = client.ask(4, &request);
        let why = answer.coordinators[0].error_message.as_deref();
        assert!(why.is_some_and(|why| why.starts_with("This most likely occurs because")));
    });
}

#[test]
fn a_group_is_deleted_once_and_who_only_wants_to_join_leaves_by_its_id() {
    with_topic(|client| {
        let group = || GroupId(text("g"));
        let protocol =
            JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range"));
        let request = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(10_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let pending = client.ask(5, &request);
        let required = ResponseError::MemberIdRequired.code();
        assert_eq!(pending.error_code, required);
        let leaving = MemberIdentity::default()
            .with_member_id(pending.member_id)
            .with_group_instance_id(Some(text("")));
        let request = LeaveGroupRequest::default()
            .with_group_id(group())
            .with_members(vec![leaving]);
        assert_eq!(client.ask(5, &request).members[0].error_code, 0);
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group(), group()]);
        assert_eq!(client.ask(2, &request).results.len(), 1);
    });
}

#[test]
fn a_cursor_is_at_a_partition_of_a_topic_that_is_asked_for() {
    with_topic(|client| {
        let topic = TopicRequest::default().with_name(name("t"));
        for (cursor, error) in [(("t", 0), 0), (("a", 0), 42), (("t", -1), 42)] {
            let cursor_at = Cursor::default()
                .with_topic_name(name(cursor.0))
                .with_partition_index(cursor.1);
            let request = DescribeTopicPartitionsRequest::default()
                .with_topics(vec![topic.clone()])
                .with_response_partition_limit(10)
                .with_cursor(Some(cursor_at));
            let answer = client.ask(0, &request);
            assert_eq!(answer.topics[0].error_code, error, "{cursor:?}");
        }
    });
}

#[test]
fn a_directory_is_looked_for_before_the_partition_and_each_partition_answered_once() {
    with_topic(|client| {
        let topic = AlterReplicaLogDirTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![0, 7]);
        let dir = AlterReplicaLogDir::default()
            .with_path(text("/nowhere"))
            .with_topics(vec![topic]);
        let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir.clone(), dir]);
        let answer = client.ask(2, &request);
        assert_eq!(answer.results.len(), 1);
        let error = ResponseError::LogDirNotFound.code();
        let partitions = answer.results[0].partitions.iter();
        let all: Vec<_> = partitions
            .map(|one| (one.partition_index, one.error_code))
            .collect();
        assert_eq!(all, [(0, error), (7, error)]);
    });
}

#[test]
fn a_configuration_is_checked_before_its_topic_is_looked_for() {
    with_topic(|client| {
        let mut change = |topic: &str, key: &'static str, operation, value: &'static str| {
            let config = AlterableConfig::default()
                .with_name(StrBytes::from_static_str(key))
                .with_config_operation(operation)
                .with_value(Some(StrBytes::from_static_str(value)));
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(name(topic).0)
                .with_configs(vec![config]);
            let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
            let answer = client.ask(1, &request).responses.remove(0);
            let why = answer.error_message.unwrap_or_default();
            (answer.error_code, why.to_string())
        };
        let missing = "The topic 'missing' does not exist.".to_owned();
        let found = change("missing", "retention.ms", 0, "1");
        assert_eq!(found, (UNKNOWN, missing));
        let config = ResponseError::InvalidConfig.code();
        assert_eq!(change("missing", "retention.ms", 0, "x").0, config);
        assert_eq!(change("..", "retention.ms", 2, "1").0, config);
        let unknown = "Can't APPEND to key x because its type is not LIST.".to_owned();
        assert_eq!(change("t", "x", 2, "1"), (config, unknown));
        let invalid = ResponseError::InvalidTopicException.code();
        let why = "Topic name is invalid: '..' is not allowed".to_owned();
        assert_eq!(change("..", "retention.ms", 0, "1"), (invalid, why));
    });
}

#[test]
fn metadata_of_what_cannot_be_named_so_is_refused() {
    with_topic(|client| {
        let named = MetadataRequestTopic::default().with_name(Some(name("t")));
        let request = MetadataRequest::default().with_topics(Some(vec![named.clone()]));
        let id = client.ask(12, &request).topics[0].topic_id;
        let mut request = request.with_topics(Some(vec![named.with_topic_id(id)]));
        for version in [10, 11] {
            let answer = client.ask(version, &request);
            assert_eq!(answer.topics[0].error_code, INVALID_REQUEST);
            assert!(answer.brokers.is_empty());
        }
        let again = MetadataRequestTopic::default().with_topic_id(id);
        let named = MetadataRequestTopic::default().with_name(Some(name("missing")));
        let more = [again.with_name(None), named];
        request.topics.as_mut().unwrap().extend(more);
        assert_eq!(client.ask(12, &request).topics.len(), 1);

        let request = DescribeClusterRequest::default().with_endpoint_type(3);
        let answer = client.ask(1, &request);
        let error = ResponseError::UnsupportedEndpointType.code();
        assert_eq!(answer.error_code, error);
        let why = Some("Unsupported endpoint type 3");
        assert_eq!(answer.error_message.as_deref(), why);
    });
}

#[test]
fn topics_are_refused_in_kafkas_words() {
    with_topic(|client| {
        let new = CreatableTopic::default()
            .with_num_partitions(1)
            .with_replication_factor(1);
        let assigned = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(0)]);
        let assigned = vec![assigned];
        for (new, why) in [
            (
                new.clone().with_num_partitions(0).with_name(name("u")),
                "Number of partitions was set to an invalid non-positive value.",
            ),
            (
                new.clone().with_replication_factor(0).with_name(name("u")),
                "Replication factor must be larger than 0, or -1 to use the default value.",
            ),
            (
                new.clone()
                    .with_assignments(assigned.clone())
                    .with_name(name("u")),
                "A manual partition assignment was specified, but replication factor was not set to -1.",
            ),
            (
                new.clone()
                    .with_assignments(assigned)
                    .with_replication_factor(-1)
                    .with_name(name("u")),
                "A manual partition assignment was specified, but numPartitions was not set to -1.",
            ),
            (
                new.clone().with_name(name("")),
                "Topic name is invalid: the empty string is not allowed",
            ),
            (
                new.with_name(name("a b")),
                "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
            ),
        ] {
            let request = CreateTopicsRequest::default().with_topics(vec![new]);
            let answer = client.ask(5, &request);
            assert_eq!(answer.topics[0].error_message.as_deref(), Some(why));
        }
        let more = CreatePartitionsTopic::default()
            .with_name(name("missing"))
            .with_count(2)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![more]);
        let answer = &client.ask(3, &request).results[0];
        assert_eq!((answer.error_code, &answer.error_message), (UNKNOWN, &None));
    });
}

#[test]
fn what_is_not_there_is_described_as_by_kafka() {
    with_topic(|client| {
        let topic = ProducersOf::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![9]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        let answer = &client.ask(0, &request).topics[0].partitions[0];
        assert_eq!((answer.error_code, &answer.error_message), (UNKNOWN, &None));

        let request = DescribeGroupsRequest::default()
            .with_groups(vec![GroupId(text("nobody"))])
            .with_include_authorized_operations(true);
        let omitted = i32::MIN;
        assert_eq!(
            client.ask(6, &request).groups[0].authorized_operations,
            omitted
        );
        assert_ne!(
            client.ask(5, &request).groups[0].authorized_operations,
            omitted
        );

        let topic = OffsetCommitRequestTopic::default();
        let topics = ["t", "missing"].map(|topic_name| topic.clone().with_name(name(topic_name)));
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_topics(topics.into());
        let answered = client.ask(9, &request).topics;
        let answered: Vec<&str> = answered.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(answered, ["missing"]);

        let internal = MetadataRequestTopic::default().with_name(Some(name("__transaction_state")));
        let request = MetadataRequest::default().with_topics(Some(vec![internal]));
        assert!(client.ask(9, &request).topics[0].is_internal);
        let topic = TopicRequest::default().with_name(name("a b"));
        let request = DescribeTopicPartitionsRequest::default().with_topics(vec![topic]);
        let invalid = ResponseError::InvalidTopicException.code();
        assert_eq!(client.ask(0, &request).topics[0].error_code, invalid);

        let update = FeatureUpdateKey::default()
            .with_feature(text("x"))
            .with_max_version_level(3);
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
        for version in 0..=2 {
            let answer = client.ask(version, &request);
            let why = "The update failed for all features since the following feature had an error: Invalid update version 3 for feature x. Local controller 0 does not support this feature.";
            assert_eq!(answer.error_message.as_deref(), Some(why));
            assert!(answer.results.is_empty());
        }
    });
}

/// A topic of no partitions is in OffsetFetch's answer, and in OffsetCommit's where it is unknown.
#[test]
fn topics_of_no_partitions_are_answered_as_by_kafka() {
    with_topic(|client| {
        let asked = MetadataRequestTopic::default().with_name(Some(name("t")));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let ids = [
            client.ask(12, &request).topics[0].topic_id,
            Uuid::from_u128(7),
        ];
        let named = || ["t", "missing"].into_iter().zip(ids);
        for version in [9, 10] {
            let (no_name, no_id) = (version >= 10, version < 10);
            let name = |of: &str| name(if no_name { "" } else { of });
            let id = |of: Uuid| if no_id { Uuid::nil() } else { of };
            let topic = |(topic, of)| {
                OffsetCommitRequestTopic::default()
                    .with_name(name(topic))
                    .with_topic_id(id(of))
            };
            let request = OffsetCommitRequest::default()
                .with_group_id(GroupId(text("g")))
                .with_topics(named().map(topic).collect());
            let answer = client.ask(version, &request).topics;
            let told: Vec<_> = answer
                .iter()
                .map(|topic| (&topic.name, topic.topic_id))
                .collect();
            assert_eq!(told, [(&name("missing"), id(ids[1]))]);

            let topic = |(topic, of)| {
                OffsetFetchRequestTopics::default()
                    .with_name(name(topic))
                    .with_topic_id(id(of))
            };
            let group = OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(text("g")))
                .with_topics(Some(named().map(topic).collect()));
            let request = OffsetFetchRequest::default().with_groups(vec![group]);
            let answer = client.ask(version, &request).groups.remove(0).topics;
            let told = answer
                .iter()
                .map(|topic| (topic.name.clone(), topic.topic_id));
            let expected = named().map(|(topic, of)| (name(topic), id(of)));
            assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            assert!(answer.iter().all(|topic| topic.partitions.is_empty()));
        }
        for version in [1, 7] {
            let topic = |(topic, _)| OffsetFetchRequestTopic::default().with_name(name(topic));
            let request = OffsetFetchRequest::default()
                .with_group_id(GroupId(text("g")))
                .with_topics(Some(named().map(topic).collect()));
            let answer = client.ask(version, &request).topics;
            let told: Vec<_> = answer.iter().map(|topic| topic.name.clone()).collect();
            assert_eq!(told, [name("t"), name("missing")]);
        }
    });
}
