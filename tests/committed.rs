//! Transactions of partitions, by the wire: Fetch, ListOffsets and DescribeProducers of what is appended at hand, and
//! WriteTxnMarkers, which ends it.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Client, Running, batch, fetch_request, name, now_ms, produce_request, wait_for};
use metaq::log::{Outcome, ProducedBatch, ToVerify, TransactionMarker, TransactionVersion};
use metaq::partition::{Acks, Partition};
use metaq_protocol::ResponseError;
use metaq_protocol::batch::{BatchBuilder, BatchHeader, Batches, EndMarker};
use metaq_protocol::messages::describe_producers_request::TopicRequest;
use metaq_protocol::messages::fetch_response::PartitionData;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use metaq_protocol::messages::{
    BrokerId, DescribeProducersRequest, FetchRequest, ListOffsetsRequest, ProducerId,
    WriteTxnMarkersRequest,
};

const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

/// A producer of transactions that has its partition at hand.
struct Sender {
    partition: Arc<Partition>,
    id: i64,
    epoch: i16,
    sequence: i32,
}

impl Sender {
    fn new(broker: &Running, id: i64) -> Self {
        let partitions = &broker.broker().context().partitions;
        Self {
            partition: partitions.get("t", 0).unwrap(),
            id,
            epoch: 0,
            sequence: 0,
        }
    }

    fn send(&mut self, timestamp: i64) -> i64 {
        let to_verify = ToVerify {
            producer_id: self.id,
            producer_epoch: self.epoch,
            base_sequence: self.sequence,
            is_v2: true,
        };
        let verification = self.partition.begin_verification(&to_verify).unwrap();
        let builder = BatchBuilder::new().producer(self.id, self.epoch, self.sequence);
        let builder = builder
            .transactional()
            .push(None, Some(b"v"), &[], timestamp);
        let bytes = builder.finish().unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        let batches = vec![ProducedBatch { header, bytes }];
        let answer = self
            .partition
            .append_verified(Acks::All, batches, verification);
        self.sequence += 1;
        answer.blocking_recv().unwrap().unwrap().base_offset
    }

    fn end(&mut self, outcome: Outcome) -> i64 {
        (self.epoch, self.sequence) = (self.epoch + 1, 0);
        let answer = self.partition.append_marker(&TransactionMarker {
            producer_id: self.id,
            producer_epoch: self.epoch,
            coordinator_epoch: 3,
            outcome,
            version: TransactionVersion::V2,
        });
        answer.blocking_recv().unwrap().unwrap().base_offset
    }
}

fn request(offset: i64, isolation: i8, wait_ms: i32) -> FetchRequest {
    fetch_request("t", offset, wait_ms).with_isolation_level(isolation)
}

fn fetched(client: &mut Client, request: &FetchRequest) -> PartitionData {
    let mut answer = client.ask(12, request);
    let partition = answer.responses[0].partitions.remove(0);
    assert_eq!(partition.error_code, 0);
    partition
}

fn bytes(data: &PartitionData) -> usize {
    data.records.as_ref().map_or(0, |records| records.len())
}

fn aborted(data: &PartitionData) -> Option<Vec<(i64, i64)>> {
    let all = data.aborted_transactions.as_ref()?;
    let told = all.iter().map(|one| (one.producer_id.0, one.first_offset));
    Some(told.collect())
}

#[test]
fn readers_of_committed_records_are_given_what_is_stable_and_told_what_was_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let (mut one, mut other) = (Sender::new(&broker, 70), Sender::new(&broker, 71));
    let now = common::now_ms();
    one.send(now);
    other.send(now);
    // Offsets 0 and 1 are open, 2 is not part of a transaction.
    assert_eq!(client.produce("t", batch(1)), (0, 2));
    let all = fetched(&mut client, &request(0, READ_UNCOMMITTED, 0));
    assert_eq!((all.high_watermark, all.last_stable_offset), (3, 0));
    assert_eq!(aborted(&all), None);
    let committed = fetched(&mut client, &request(0, READ_COMMITTED, 0));
    assert_eq!(
        (committed.high_watermark, committed.last_stable_offset),
        (3, 0)
    );
    assert_eq!((bytes(&committed), aborted(&committed)), (0, Some(vec![])));
    one.end(Outcome::Abort);
    let committed = fetched(&mut client, &request(0, READ_COMMITTED, 0));
    assert_eq!(
        (committed.high_watermark, committed.last_stable_offset),
        (4, 1)
    );
    assert_eq!(aborted(&committed), Some(vec![(70, 0)]));
    assert!(bytes(&committed) > 0 && bytes(&committed) < bytes(&all));
    other.end(Outcome::Commit);
    let committed = fetched(&mut client, &request(0, READ_COMMITTED, 0));
    assert_eq!(
        (committed.high_watermark, committed.last_stable_offset),
        (5, 5)
    );
    assert_eq!(aborted(&committed), Some(vec![(70, 0)]));
    let all = fetched(&mut client, &request(0, READ_UNCOMMITTED, 0));
    assert_eq!((bytes(&all), aborted(&all)), (bytes(&committed), None));
    // After its marker it is not told of any more.
    let later = fetched(&mut client, &request(4, READ_COMMITTED, 0));
    assert_eq!(aborted(&later), Some(vec![]));
    broker.stop();
}

#[test]
fn a_fetch_of_committed_records_waits_for_the_marker_and_not_for_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let mut one = Sender::new(&broker, 70);
    one.send(common::now_ms());
    client.send(12, &request(0, READ_COMMITTED, 60_000));
    let mut witness = broker.client();
    // The records of others come, and are no reason to answer.
    assert_eq!(witness.produce("t", batch(5)).0, 0);
    client
        .stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(client.stream.peek(&mut [0]).is_err());
    client
        .stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let asked = Instant::now();
    one.end(Outcome::Commit);
    let (_, answer) = client.receive::<FetchRequest>(12);
    assert!(asked.elapsed() < Duration::from_secs(15));
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(
        (partition.last_stable_offset, partition.high_watermark),
        (7, 7)
    );
    assert!(bytes(partition) > 0);
    broker.stop();
}

/// The offsets that `metaq consume` prints.
fn consumed(broker: &Running, more: &[&str]) -> Vec<i64> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(["consume", "t", "-e", "-f", "%o\\n"])
        .args(["-b", &broker.address().to_string()])
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn metaq_consume_leaves_out_what_was_aborted_or_is_open_where_that_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let (mut one, mut other) = (Sender::new(&broker, 70), Sender::new(&broker, 71));
    let now = common::now_ms();
    one.send(now);
    other.send(now);
    assert_eq!(client.produce("t", batch(1)), (0, 2));
    one.end(Outcome::Abort);
    other.end(Outcome::Commit);
    // The same producer, after its marker.
    assert_eq!(one.send(now), 5);
    one.end(Outcome::Commit);
    other.send(now);
    assert_eq!(client.produce("t", batch(1)), (0, 8));
    let committed = ["--isolation-level", "read_committed"];
    assert_eq!(consumed(&broker, &committed), [1, 2, 5]);
    let all = [0, 1, 2, 5, 7, 8];
    assert_eq!(consumed(&broker, &[]), all);
    let uncommitted = ["--isolation-level", "read_uncommitted"];
    assert_eq!(consumed(&broker, &uncommitted), all);
    // The end is where the open transaction begins.
    let last = [&committed[..], &["-o", "-2"]].concat();
    assert_eq!(consumed(&broker, &last), [5]);
    broker.stop();
}

#[test]
fn offsets_are_listed_up_to_what_the_isolation_level_shows() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let now = common::now_ms();
    let mut one = Sender::new(&broker, 70);
    assert_eq!(client.produce("t", batch(1)), (0, 0));
    assert_eq!(one.send(now + 1000), 1);
    let listed = |client: &mut Client, timestamp: i64, isolation: i8| {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(0)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(isolation)
            .with_topics(vec![topic]);
        let answer = client.ask(7, &request);
        let partition = &answer.topics[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        partition.offset
    };
    const LATEST: i64 = -1;
    const MAX_TIMESTAMP: i64 = -3;
    for (asked, uncommitted, committed) in
        [(LATEST, 2, 1), (MAX_TIMESTAMP, 1, -1), (now + 1000, 1, -1)]
    {
        assert_eq!(listed(&mut client, asked, READ_UNCOMMITTED), uncommitted);
        assert_eq!(listed(&mut client, asked, READ_COMMITTED), committed);
    }
    one.end(Outcome::Commit);
    for (asked, expected) in [(LATEST, 3), (MAX_TIMESTAMP, 1), (now + 1000, 1)] {
        assert_eq!(listed(&mut client, asked, READ_COMMITTED), expected);
    }
    broker.stop();
}

/// Whoever may write may name as many producers as it likes.
#[test]
fn the_producers_that_wrote_longest_ago_give_way_where_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    // 100 of them.
    let broker = Running::start(dir.path(), &["producer.ids.max.bytes=30000"]);
    let mut client = broker.client();
    for topic in ["t", "other"] {
        client.create(topic);
    }
    let send = |client: &mut Client, topic: &str, id: i64, sequence: i32| {
        let batch = BatchBuilder::new().producer(id, 0, sequence);
        let batch = batch.push(None, Some(b"x"), &[], now_ms()).finish();
        let produced = client.ask(9, &produce_request(topic, batch.unwrap(), -1));
        let partition = &produced.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    };
    assert_eq!(send(&mut client, "other", 7, 0), (0, 0));
    for id in 0..500 {
        assert_eq!(send(&mut client, "t", 1000 + id, 0), (0, id));
    }
    let known = |client: &mut Client, topic: &str| {
        let topic = TopicRequest::default()
            .with_name(name(topic))
            .with_partition_indexes(vec![0]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        let answer = client.ask(0, &request);
        let producers = &answer.topics[0].partitions[0].active_producers;
        let mut ids: Vec<i64> = producers.iter().map(|one| one.producer_id.0).collect();
        ids.sort_unstable();
        ids
    };
    wait_for("the oldest to go", || known(&mut client, "t").len() < 100);
    let left = known(&mut client, "t");
    assert!(left.len() > 50, "{} are left", left.len());
    assert_eq!(left.last(), Some(&1499));
    // Those of the other partition are few, and stay; so does what they sent.
    assert_eq!(known(&mut client, "other"), [7]);
    assert_eq!(send(&mut client, "other", 7, 0), (0, 0));
    // One that is forgotten goes on.
    assert_eq!(send(&mut client, "t", 1000, 1), (0, 500));
    broker.stop();
}

#[test]
fn a_partition_tells_of_its_producers_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let mut one = Sender::new(&broker, 70);
    let described = |client: &mut Client| {
        let topic = TopicRequest::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![0]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        let mut answer = client.ask(0, &request);
        let mut partition = answer.topics[0].partitions.remove(0);
        assert_eq!(
            (partition.error_code, partition.active_producers.len()),
            (0, 1)
        );
        let producer = partition.active_producers.remove(0);
        assert_eq!(producer.producer_id, ProducerId(70));
        (
            producer.producer_epoch,
            producer.last_sequence,
            producer.coordinator_epoch,
            producer.current_txn_start_offset,
        )
    };
    one.send(5);
    one.send(6);
    assert_eq!(described(&mut client), (0, 1, -1, 0));
    one.end(Outcome::Abort);
    assert_eq!(described(&mut client), (1, -1, 3, -1));
    assert_eq!(one.send(7), 3);
    assert_eq!(described(&mut client), (1, 0, 3, 3));
    broker.stop();
}

/// A marker for partitions of topics.
fn marker(producer_id: i64, epoch: i16, topics: &[(&str, &[i32])]) -> WritableTxnMarker {
    let topics = topics.iter().map(|(topic, partitions)| {
        WritableTxnMarkerTopic::default()
            .with_name(name(topic))
            .with_partition_indexes(partitions.to_vec())
    });
    WritableTxnMarker::default()
        .with_producer_id(ProducerId(producer_id))
        .with_producer_epoch(epoch)
        .with_coordinator_epoch(5)
        .with_transaction_version(2)
        .with_transaction_result(true)
        .with_topics(topics.collect())
}

/// Producer, topic, partition and error of each answer, in order.
fn written(
    client: &mut Client,
    version: i16,
    markers: Vec<WritableTxnMarker>,
) -> Vec<(i64, String, i32, i16)> {
    let request = WriteTxnMarkersRequest::default().with_markers(markers);
    let mut all = Vec::new();
    for marker in client.ask(version, &request).markers {
        for topic in marker.topics {
            all.extend(topic.partitions.iter().map(|partition| {
                let (index, error) = (partition.partition_index, partition.error_code);
                (marker.producer_id.0, topic.name.to_string(), index, error)
            }));
        }
    }
    all
}

#[test]
fn each_partition_says_by_itself_what_became_of_its_marker() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let mut one = Sender::new(&broker, 70);
    one.send(common::now_ms());
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    let asked = vec![
        marker(
            70,
            1,
            &[
                ("t", &[0, 900]),
                ("none", &[0]),
                ("__consumer_offsets", &[3, 64]),
            ],
        ),
        // Of a producer that has no records here.
        marker(71, 0, &[("t", &[0])]),
        marker(72, 0, &[("t", &[])]),
    ];
    let expected = [
        (70, "t", 0, 0),
        (70, "t", 900, unknown),
        (70, "none", 0, unknown),
        // A slot of groups, and none.
        (70, "__consumer_offsets", 3, 0),
        (70, "__consumer_offsets", 64, unknown),
        (71, "t", 0, 0),
    ];
    let expected = expected.map(|(id, topic, index, error)| (id, topic.to_owned(), index, error));
    assert_eq!(written(&mut client, 2, asked), expected);
    assert_eq!(written(&mut client, 2, vec![]), []);
    // Readers see control batches, and nothing is held back any more.
    let all = fetched(&mut client, &request(0, READ_COMMITTED, 0));
    assert_eq!((all.last_stable_offset, aborted(&all)), (3, Some(vec![])));
    let records = all.records.unwrap();
    let markers: Vec<_> = Batches::new(&records)
        .map(|batch| EndMarker::of_batch(batch.unwrap().1))
        .collect();
    let commit = EndMarker {
        outcome: Outcome::Commit,
        coordinator_epoch: 5,
    };
    assert_eq!(markers, [None, Some(commit), Some(commit)]);
    broker.stop();
}

#[test]
fn a_marker_that_comes_twice_or_late_or_of_a_former_coordinator_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let mut one = Sender::new(&broker, 70);
    one.send(common::now_ms());
    let mut error = |version: i16, marker: WritableTxnMarker| {
        let all = written(&mut client, version, vec![marker]);
        assert_eq!(all.len(), 1);
        all[0].3
    };
    let of = |epoch| marker(70, epoch, &[("t", &[0])]);
    let stale = ResponseError::InvalidProducerEpoch.code();
    // It has the epoch of the records.
    assert_eq!(error(2, of(0)), stale);
    assert_eq!(error(2, of(1)), 0);
    // Its answer was lost, or another coordinator goes on.
    assert_eq!(error(2, of(1)), 0);
    one.epoch = 1;
    one.sequence = 0;
    let next = one.send(common::now_ms());
    for late in [0, 1] {
        assert_eq!(error(2, of(late)), stale);
    }
    let zombie = of(2).with_coordinator_epoch(4);
    assert_eq!(
        error(2, zombie),
        ResponseError::TransactionCoordinatorFenced.code()
    );
    assert_eq!(one.partition.last_stable_offset(), next);
    // By the older rules the epoch stays.
    assert_eq!(error(1, of(1).with_transaction_version(0)), 0);
    assert_eq!(one.partition.last_stable_offset(), next + 2);
    let end = one.partition.high_watermark();
    let nobodys = ResponseError::UnknownServerError.code();
    assert_eq!(error(2, marker(-1, 0, &[("t", &[0])])), nobodys);
    assert_eq!(error(2, of(-1)), nobodys);
    assert_eq!(error(2, of(5).with_transaction_version(-1)), nobodys);
    assert_eq!(one.partition.high_watermark(), end);
    broker.stop();
}
