//! What Kafka answers, field by field: each of these cases was met by a client, a tool or an application.

mod common;

use bytes::Bytes;
use common::{Client, Running, name, now_ms, produce_request};
use metaq_protocol::ResponseError;
use metaq_protocol::batch::{BatchBuilder, Compression};
use metaq_protocol::messages::create_topics_request::CreatableTopic;
use metaq_protocol::messages::describe_configs_request::DescribeConfigsResource;
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::produce_response::PartitionProduceResponse;
use metaq_protocol::messages::{
    AlterConfigsRequest, CreateTopicsRequest, DescribeConfigsRequest, FindCoordinatorRequest,
    IncrementalAlterConfigsRequest, alter_configs_request,
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
    for version in 1..=4 {
        let answer = &client.ask(version, &request).results[0];
        assert_eq!((answer.error_code, &answer.error_message), (0, &None));
    }
    // But for this one, whose message is the name of no error.
    for version in 1..=3 {
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("g"));
        let answer = client.ask(version, &request);
        assert_eq!(answer.error_message.as_deref(), Some("NONE"));
    }
    broker.stop();
}
