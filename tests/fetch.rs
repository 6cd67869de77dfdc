//! What a consumer's fetch is answered that says where it is: the epoch of the last record it read (KIP-320).

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Client, Running, batch, fetch_request};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::fetch_response::PartitionData;
use metaq_protocol::messages::{DeleteRecordsRequest, FetchRequest, delete_records_request};

/// A fetch at an offset by a client whose last record is of an epoch.
fn request(offset: i64, last_fetched_epoch: i32, wait_ms: i32) -> FetchRequest {
    let mut request = fetch_request("t", offset, wait_ms);
    request.topics[0].partitions[0].last_fetched_epoch = last_fetched_epoch;
    request
}

fn fetched(client: &mut Client, request: &FetchRequest) -> PartitionData {
    let mut answer = client.ask(12, request);
    assert_eq!(answer.error_code, 0);
    answer.responses[0].partitions.remove(0)
}

fn delete_before(client: &mut Client, offset: i64) {
    let partition = delete_records_request::DeleteRecordsPartition::default().with_offset(offset);
    let topic = delete_records_request::DeleteRecordsTopic::default()
        .with_name(common::name("t"))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default()
        .with_timeout_ms(10_000)
        .with_topics(vec![topic]);
    assert_eq!(
        client.ask(2, &request).topics[0].partitions[0].error_code,
        0
    );
}

#[test]
fn who_read_what_is_not_in_the_log_is_told_where_the_logs_part() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(client.produce("t", batch(3)), (0, 0));
    let of = |data: &PartitionData| {
        let diverging = &data.diverging_epoch;
        let records = data.records.as_ref().map_or(0, |records| records.len());
        (
            data.error_code,
            (diverging.epoch, diverging.end_offset),
            records > 0,
        )
    };
    // In step, at the end too; without an epoch nothing is compared.
    assert_eq!(
        of(&fetched(&mut client, &request(1, 0, 0))),
        (0, (-1, -1), true)
    );
    assert_eq!(
        of(&fetched(&mut client, &request(3, 0, 0))),
        (0, (-1, -1), false)
    );
    let out_of_range = ResponseError::OffsetOutOfRange.code();
    let beyond = fetched(&mut client, &request(9, -1, 0));
    assert_eq!(of(&beyond), (out_of_range, (-1, -1), false));
    // Beyond the log's end: answered at once, with the log's ends and without records.
    let parted = fetched(&mut client, &request(9, 0, 60_000));
    assert_eq!(of(&parted), (0, (0, 3), false));
    assert_eq!((parted.high_watermark, parted.log_start_offset), (3, 0));
    // An epoch that this log never had has no end here.
    let unknown = fetched(&mut client, &request(1, 5, 60_000));
    assert_eq!(of(&unknown), (out_of_range, (-1, -1), false));
    assert_eq!(unknown.high_watermark, -1);
    // Before the log's start is out of range, whatever the epochs say.
    delete_before(&mut client, 2);
    let deleted = fetched(&mut client, &request(1, 0, 60_000));
    assert_eq!(of(&deleted), (out_of_range, (-1, -1), false));
    broker.stop();
}

#[test]
fn records_that_no_longer_fit_count_where_a_fetch_waits_for_enough() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    for topic in ["t", "u"] {
        client.create(topic);
        assert_eq!(client.produce(topic, batch(200)), (0, 0));
    }
    let bytes = batch(200).len() as i32;
    let mut request = fetch_request("t", 0, 60_000);
    request.topics.extend(fetch_request("u", 0, 0).topics);
    for topic in &mut request.topics {
        topic.partitions[0].partition_max_bytes = bytes - 1;
    }
    // The first partition gives its batch whole; with what the other one may give, which is less than a batch, it is enough.
    request.min_bytes = 2 * (bytes - 1);
    let asked = Instant::now();
    let answer = client.ask(12, &request);
    assert!(asked.elapsed() < Duration::from_secs(30));
    let given = |at: usize| {
        let records: &Option<Bytes> = &answer.responses[at].partitions[0].records;
        records.as_ref().map_or(0, Bytes::len)
    };
    assert_eq!((given(0), given(1)), (bytes as usize, 0));
    broker.stop();
}

#[test]
fn a_session_says_a_divergence_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(client.produce("t", batch(3)), (0, 0));
    let mut request = request(9, 0, 60_000).with_session_epoch(0);
    let first = client.ask(12, &request);
    assert_ne!(first.session_id, 0);
    request.topics.clear();
    request.session_id = first.session_id;
    for epoch in 1..=2 {
        request.session_epoch = epoch;
        let answer = client.ask(12, &request);
        let partition = &answer.responses[0].partitions[0];
        let diverging = &partition.diverging_epoch;
        assert_eq!((diverging.epoch, diverging.end_offset), (0, 3));
    }
    broker.stop();
}
