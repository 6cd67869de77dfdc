//! One producer's numbered records to one partition: sent at full speed, acknowledged or not, and found again.
//!
//! Records are numbered from 0. An idempotent producer sends again what was not acknowledged, so each record's number is
//! its offset, for ever. A plain one gives up what was not acknowledged and goes on behind it, so that of each round a
//! run of records without a gap must be there, which ends at or behind the last acknowledged one.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchBuilder, Batches, verify_crc};
use metaq_protocol::frame;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::{FetchRequest, ListOffsetsRequest, ProduceRequest};
use metaq_protocol::records::Records;

use crate::common::{Client, fetch_request, name, now_ms, produce_request};
use crate::random::Random;

/// Batches that wait for their acknowledgement: of an idempotent producer as many as the broker remembers.
const IDEMPOTENT_IN_FLIGHT: usize = 5;
const PLAIN_IN_FLIGHT: usize = 40;
const BATCH_RECORDS_MAX: u64 = 64;
/// Longer than this no answer takes while the broker runs.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Records that were sent together.
#[derive(Clone, Copy)]
struct Batch {
    first: i64,
    count: i64,
}

/// From this offset on, records are numbered from `number` on.
struct Run {
    offset: i64,
    number: i64,
}

/// See the module's documentation.
pub struct Stream {
    pub topic: String,
    acks: i16,
    /// The id of an idempotent producer.
    producer: Option<i64>,
    random: Random,
    /// The next record's number.
    next: i64,
    unacknowledged: VecDeque<Batch>,
    /// Acknowledged since the last check, with their offsets.
    acknowledged: Vec<(i64, Batch)>,
    pub acknowledged_records: i64,
    /// Sent without being acknowledged, and not found.
    pub lost_in_flight: i64,
    runs: Vec<Run>,
    /// All before this offset was found right.
    checked_end: i64,
    /// What the topic keeps at least, bytes, when it does not keep everything.
    pub retention_bytes: Option<usize>,
    /// A reader saw everything before this offset.
    pub seen_end: Arc<AtomicI64>,
}

impl Stream {
    pub fn new(topic: &str, acks: i16, producer: Option<i64>, seed: u64) -> Self {
        Self {
            topic: topic.to_owned(),
            acks,
            producer,
            random: Random::new(seed),
            next: 0,
            unacknowledged: VecDeque::new(),
            acknowledged: Vec::new(),
            acknowledged_records: 0,
            lost_in_flight: 0,
            runs: vec![Run {
                offset: 0,
                number: 0,
            }],
            checked_end: 0,
            retention_bytes: None,
            seen_end: Arc::default(),
        }
    }

    pub fn acks(&self) -> i16 {
        self.acks
    }

    fn encode(&self, batch: Batch) -> Bytes {
        let mut builder = BatchBuilder::new();
        if let Some(id) = self.producer {
            builder = builder.producer(id, 0, batch.first as i32);
        }
        for number in batch.first..batch.first + batch.count {
            let value = format!("{number} {}", "x".repeat(number as usize * 7 % 200));
            builder = builder.push(None, Some(value.as_bytes()), &[], now_ms());
        }
        let request = produce_request(&self.topic, builder.finish().unwrap(), self.acks);
        frame::encode_request(9, 1, "crash", &request).unwrap()
    }

    /// Sends until the broker is gone or `stop` is set; then what is in flight is waited for.
    pub fn produce(&mut self, address: SocketAddr, stop: &AtomicBool) {
        // The error is that the broker was killed; anything else that is wrong panics.
        let _ = self.try_produce(address, stop);
    }

    fn try_produce(&mut self, address: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let mut answers = BufReader::new(stream.try_clone()?);
        let in_flight_max = match self.producer {
            Some(_) => IDEMPOTENT_IN_FLIGHT,
            None => PLAIN_IN_FLIGHT,
        };
        for batch in self.unacknowledged.clone() {
            stream.write_all(&self.encode(batch))?;
        }
        loop {
            let stopping = stop.load(Ordering::SeqCst);
            while !stopping && (self.acks == 0 || self.unacknowledged.len() < in_flight_max) {
                let batch = Batch {
                    first: self.next,
                    count: 1 + self.random.below(BATCH_RECORDS_MAX) as i64,
                };
                let frame = self.encode(batch);
                // It may arrive even where writing fails.
                self.next += batch.count;
                if self.acks != 0 {
                    self.unacknowledged.push_back(batch);
                }
                stream.write_all(&frame)?;
                if self.acks == 0 && stop.load(Ordering::SeqCst) {
                    return Ok(());
                }
            }
            let Some(batch) = self.unacknowledged.front().copied() else {
                return Ok(());
            };
            let offset = read_answer(&mut answers)?;
            self.unacknowledged.pop_front();
            if self.producer.is_some() {
                assert_eq!(offset, batch.first, "{}: stored at", self.topic);
            }
            self.acknowledged.push((offset, batch));
            self.acknowledged_records += batch.count;
        }
    }

    /// After a restart: everything that was acknowledged or seen is there, in order, once. With `all`, also what earlier
    /// checks found is looked at again.
    pub fn check(&mut self, address: SocketAddr, all: bool) {
        let mut client = Client::connect(address);
        let (found, start) = self.read(&mut client, if all { 0 } else { self.checked_end });
        let end = found.end;
        let (topic, seen) = (&self.topic, self.seen_end.load(Ordering::SeqCst));
        assert!(end >= seen, "{topic}: ends at {end}, {seen} was read");
        if let (Some(kept), 1..) = (self.retention_bytes, start) {
            let (whole, _) = self.read(&mut client, 0);
            assert!(
                whole.bytes >= kept,
                "{topic}: {} bytes are left",
                whole.bytes
            );
        }
        for (offset, batch) in self.acknowledged.drain(..) {
            let number = number_at(&self.runs, offset);
            assert_eq!(number, batch.first, "{topic}: acknowledged at {offset}");
            let after = offset + batch.count;
            assert!(
                end >= after,
                "{topic}: ends at {end}, {after} was acknowledged"
            );
        }
        if self.producer.is_none() {
            let found = number_at(&self.runs, end);
            assert!(found <= self.next, "{topic}: {found} were found");
            self.lost_in_flight += self.next - found;
            self.unacknowledged.clear();
            self.runs.push(Run {
                offset: end,
                number: self.next,
            });
        }
        self.checked_end = end;
    }

    /// Reads everything from an offset on, or from the log's start, and holds each record against its number. Also where
    /// the log starts.
    fn read(&self, client: &mut Client, from: i64) -> (Found, i64) {
        let topic = &self.topic;
        let (mut start, mut at, mut bytes) = (0, from, 0);
        loop {
            let response = client.ask(11, &fetch_request(topic, at, 0));
            let partition = &response.responses[0].partitions[0];
            if partition.error_code == metaq_protocol::ResponseError::OffsetOutOfRange.code() {
                // Deleted by retention, perhaps just now.
                let earliest = earliest(client, topic);
                assert!(
                    earliest > at,
                    "{topic}: nothing at {at}, starts at {earliest}"
                );
                (start, at, bytes) = (earliest, earliest, 0);
                continue;
            }
            assert_eq!(partition.error_code, 0, "{topic} at {at}");
            let records = partition.records.clone().unwrap_or_default();
            if records.is_empty() {
                return (Found { end: at, bytes }, start);
            }
            for batch in Batches::new(&records) {
                let (header, whole) = batch.unwrap();
                assert!(verify_crc(whole), "{topic} at {at}");
                let batch = Records::new(&header, &whole[BATCH_HEADER_BYTES..]);
                for (record, offset) in batch.zip(header.base_offset..) {
                    let value = record.unwrap().value.unwrap_or_default();
                    let number = value.split(|byte| *byte == b' ').next().unwrap_or_default();
                    let expected = number_at(&self.runs, offset).to_string();
                    assert_eq!(number, expected.as_bytes(), "{topic} at {offset}");
                }
                // The first one may begin before what was asked for.
                let begins = header.base_offset;
                assert!(
                    begins == at || bytes == 0 && begins <= at,
                    "{topic}: {begins} at {at}"
                );
                at = header.last_offset() + 1;
                bytes += whole.len();
            }
        }
    }

    /// Follows the log as a consumer does, until the broker is gone.
    pub fn follow(topic: &str, seen_end: &AtomicI64, address: SocketAddr) -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        loop {
            let at = seen_end.load(Ordering::SeqCst);
            let request = fetch_request(topic, at, 100);
            stream.write_all(&frame::encode_request(11, 1, "crash", &request).unwrap())?;
            let answer = read_frame(&mut stream)?;
            let (_, response) = frame::decode_response::<FetchRequest>(11, answer).unwrap();
            let partition = &response.responses[0].partitions[0];
            assert_eq!(partition.error_code, 0, "{topic} at {at}");
            let records = partition.records.clone().unwrap_or_default();
            if let Some((header, _)) = Batches::new(&records).flatten().last() {
                seen_end.store(header.last_offset() + 1, Ordering::SeqCst);
            }
        }
    }
}

/// What a whole read found.
struct Found {
    end: i64,
    bytes: usize,
}

fn number_at(runs: &[Run], offset: i64) -> i64 {
    let run = runs.iter().rev().find(|run| run.offset <= offset);
    run.map_or(-1, |run| run.number + offset - run.offset)
}

fn earliest(client: &mut Client, topic: &str) -> i64 {
    let partition = ListOffsetsPartition::default()
        .with_current_leader_epoch(-1)
        .with_timestamp(-2);
    let topic = ListOffsetsTopic::default()
        .with_name(name(topic))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![topic]);
    client.ask(5, &request).topics[0].partitions[0].offset
}

pub fn read_frame(stream: &mut impl Read) -> io::Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame.into())
}

/// The offset of a produced batch.
fn read_answer(stream: &mut impl Read) -> io::Result<i64> {
    let answer = read_frame(stream)?;
    let (_, response) = frame::decode_response::<ProduceRequest>(9, answer).unwrap();
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 0);
    Ok(partition.base_offset)
}
