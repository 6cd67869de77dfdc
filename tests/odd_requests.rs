//! What Kafka answers where a request names something twice, or names it and asks nothing of it. Each of these was found by
//! compat-tests/differ.

mod common;

use common::{Client, Running, name};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use metaq_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use metaq_protocol::messages::describe_configs_request::DescribeConfigsResource;
use metaq_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestTopic;
use metaq_protocol::messages::update_features_request::FeatureUpdateKey;
use metaq_protocol::messages::*;
use metaq_protocol::protocol::StrBytes;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn producer(client: &mut Client, id: &'static str) -> (ProducerId, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(text(id).into()))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let answer = client.ask(4, &request);
    assert_eq!(answer.error_code, 0);
    (answer.producer_id, answer.producer_epoch)
}

#[test]
fn a_word_that_is_in_a_configurations_list_twice_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let config = AlterableConfig::default()
        .with_name(text("cleanup.policy"))
        .with_value(Some(text("delete, compact,delete")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.ask(1, &request).responses.remove(0);
    assert_eq!((answer.error_code, answer.error_message), (0, None));
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configuration_keys(Some(vec![text("cleanup.policy")]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let described = client.ask(4, &request).results.remove(0);
    let value = described.configs[0].value.as_deref();
    assert_eq!(value, Some("delete,compact"));
    broker.stop();
}

#[test]
fn of_a_feature_that_is_named_twice_the_last_level_counts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let update = |level| {
        FeatureUpdateKey::default()
            .with_feature(text("no.such.feature"))
            .with_max_version_level(level)
            .with_upgrade_type(2)
    };
    let request =
        UpdateFeaturesRequest::default().with_feature_updates(vec![update(2), update(99)]);
    let answer = broker.client().ask(1, &request);
    let refused = ResponseError::InvalidUpdateVersion.code();
    assert_eq!(answer.error_code, refused);
    let why = answer.error_message.unwrap();
    assert!(why.contains("Invalid update version 99"), "{why}");
    broker.stop();
}

#[test]
fn an_election_of_nothing_is_over_at_once_whatever_kind_it_is_of() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let request = ElectLeadersRequest::default()
        .with_election_type(2)
        .with_topic_partitions(Some(Vec::new()))
        .with_timeout_ms(5000);
    let answer = broker.client().ask(2, &request);
    assert_eq!(
        (answer.error_code, answer.replica_election_results),
        (0, Vec::new())
    );
    broker.stop();
}

#[test]
fn a_group_that_is_not_there_and_a_protocol_without_a_name_are_told_in_kafkas_words() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["group.initial.rebalance.delay.ms=0"]);
    let mut client = broker.client();
    let mut why = |epoch| {
        let beat = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(text("none").into())
            .with_member_id(text("m"))
            .with_member_epoch(epoch);
        client.ask(1, &beat).error_message.unwrap().to_string()
    };
    assert_eq!(why(5), "Consumer group none not found.");
    assert_eq!(why(-1), "Group none not found.");
    for (version, named) in [(5, Some("")), (7, None)] {
        let protocol = join_group_request::JoinGroupRequestProtocol::default();
        let join = JoinGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(format!("g{version}"))))
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(1000)
            .with_group_instance_id(Some(text("i")))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let joined = client.ask(version, &join);
        assert_eq!(joined.error_code, 0);
        assert_eq!(joined.protocol_name.as_deref(), named);
    }
    broker.stop();
}

#[test]
fn transactions_answer_for_partitions_and_not_for_topics_without_any() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    client.create("u");
    let (id, epoch) = producer(&mut client, "x");
    let topic = |topic: &str, partitions: &[i32]| {
        AddPartitionsToTxnTopic::default()
            .with_name(name(topic))
            .with_partitions(partitions.to_vec())
    };
    for (partition, expected) in [(0, &["u", "t"][..]), (9, &["t"])] {
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(text("x").into())
            .with_v3_and_below_producer_id(id)
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(vec![topic("u", &[]), topic("t", &[partition])]);
        let answer = client.ask(2, &request).results_by_topic_v3_and_below;
        let named: Vec<&str> = answer.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(named, expected);
    }
    let topics = ["t", "missing"];
    let topics = topics.map(|topic| TxnOffsetCommitRequestTopic::default().with_name(name(topic)));
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(text("x").into())
        .with_group_id(text("g").into())
        .with_producer_id(id)
        .with_producer_epoch(epoch)
        .with_topics(topics.to_vec());
    let answer = client.ask(3, &request).topics;
    let named: Vec<&str> = answer.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(named, ["missing"]);
    broker.stop();
}
