//! `metaq produce`: a record a line, from standard input or a file.
//!
//! - Keys choose partitions as in Java clients; records without a key fill a batch of one partition after the other.
//! - With acks=all, the default, the producer is idempotent: what is sent again after a broken connection is stored once,
//!   and order per partition is kept. With acks=1 it may be stored twice.
//!
//! Tests: tests/shell.rs.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use metaq_protocol::ResponseError;
use metaq_protocol::batch::{BatchBuilder, Compression, next_sequence};
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use metaq_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use serde::Serialize;

use super::Failure;
use super::client::{Address, Client, topic_name};
use super::lines::{Outgoing, from_json, read_lines, unhex};
use super::partitioner::partition_for_key;
use super::refused::{check, check_right, is_lacking, is_lasting, needed};
use super::topic::metadata;
use crate::clock::WallClock;
use crate::security::Operation;

/// How long a topic may take to be created.
const TOPIC_WAIT: Duration = Duration::from_secs(3);
/// The pause before something is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tail -F app.log | metaq produce app-logs
  metaq produce orders -K : orders.txt                 # key:value a line
  metaq produce orders --input json < records.jsonl    # as metaq consume --json prints them
  echo hello | metaq produce greetings -H source=shell -p 2")]
pub(super) struct Produce {
    /// Topic.
    topic: String,
    /// File to read; standard input without it.
    file: Option<PathBuf>,
    /// To this partition.
    #[arg(short, long)]
    partition: Option<i32>,
    /// Key of every record.
    #[arg(short, long, conflicts_with = "key_separator")]
    key: Option<String>,
    /// What stands between key and value on a line.
    #[arg(short = 'K', long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Header of every record; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// What a line is.
    #[arg(long, value_enum, default_value_t = Input::Text)]
    input: Input,
    /// An empty value becomes null, which deletes its key in a compacted topic.
    #[arg(short = 'Z', long)]
    null: bool,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(short = 'z', long, default_value = "none", value_parser = codec)]
    compression: Compression,
    /// What counts as written: all, 1, or 0 for what was sent.
    #[arg(long, value_enum, default_value_t = Acks::All)]
    acks: Acks,
    /// Bytes of records that are sent together at most.
    #[arg(long, default_value_t = 256 << 10, value_name = "BYTES")]
    batch_bytes: usize,
    /// How long records may wait for more, ms.
    #[arg(long, default_value_t = 50, value_name = "MS")]
    linger_ms: u64,
    /// How long to go on trying, ms.
    #[arg(long, default_value_t = 120_000, value_name = "MS")]
    timeout_ms: u64,
    #[command(flatten)]
    address: Address,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Input {
    /// The value, or key and value with --key-separator.
    Text,
    /// An object with key, value, headers, partition, timestamp: all may be missing. key_hex and value_hex give bytes.
    Json,
    /// The value's bytes in hexadecimal digits.
    Hex,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Acks {
    All,
    #[value(name = "1")]
    One,
    #[value(name = "0")]
    None,
}

impl Acks {
    fn wire(self) -> i16 {
        match self {
            Self::All => -1,
            Self::One => 1,
            Self::None => 0,
        }
    }
}

fn codec(name: &str) -> Result<Compression, String> {
    Compression::from_name(name).ok_or_else(|| format!("no such codec: {name}"))
}

/// Records of one partition that are sent together.
#[derive(Debug)]
struct Filling {
    builder: BatchBuilder,
    records: i32,
    bytes: usize,
    since: Instant,
}

/// What became of the records of a partition.
#[derive(Debug, Serialize)]
struct Written {
    partition: i32,
    records: u64,
    /// None where nothing was said of it (acks=0).
    first_offset: Option<i64>,
    last_offset: Option<i64>,
}

struct Producer {
    client: Client,
    topic: String,
    acks: Acks,
    compression: Compression,
    batch_bytes_max: usize,
    timeout: Duration,
    /// Id and epoch; none without acks=all.
    producer: Option<(i64, i16)>,
    /// By index.
    leaders: Vec<i32>,
    sequences: Vec<i32>,
    filling: BTreeMap<i32, Filling>,
    /// Where records without a key go until the batch is full.
    sticky: i32,
    written: BTreeMap<i32, Written>,
}

impl Produce {
    pub(super) fn run(self) -> Result<(), Failure> {
        let headers = self.headers.iter().map(|header| self.header(header));
        let headers = headers.collect::<Result<Vec<_>, _>>()?;
        // Opened before anything else, so that a wrong name is found first.
        let reader: Box<dyn Read + Send> = match &self.file {
            Some(path) => Box::new(
                std::fs::File::open(path)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
            ),
            None => Box::new(io::stdin()),
        };
        let mut producer = Producer::open(&self)?;
        let lines = read_lines(reader);
        let outcome = self.pump(&mut producer, &lines, &headers);
        // What was read before an error is sent all the same.
        let sent = producer.send_all();
        self.report(&producer)?;
        outcome.and(sent)
    }

    fn header(&self, text: &str) -> Result<(Vec<u8>, Option<Vec<u8>>), Failure> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("--header {text}: expected NAME=VALUE"))?;
        Ok((name.into(), Some(value.into())))
    }

    fn pump(
        &self,
        producer: &mut Producer,
        lines: &Receiver<io::Result<Vec<u8>>>,
        headers: &[(Vec<u8>, Option<Vec<u8>>)],
    ) -> Result<(), Failure> {
        let linger = Duration::from_millis(self.linger_ms);
        for number in 1_u64.. {
            let line = loop {
                match lines.recv_timeout(producer.wait(linger)) {
                    Ok(line) => break line,
                    Err(RecvTimeoutError::Timeout) => producer.send_due(linger)?,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            };
            let line = line.map_err(|error| format!("line {number}: {error}"))?;
            let mut record = self
                .record(&line)
                .map_err(|why| format!("line {number}: {why}"))?;
            record.headers.extend_from_slice(headers);
            producer
                .take(record)
                .map_err(|why| format!("line {number}: {why}"))?;
        }
        Ok(())
    }

    fn record(&self, line: &[u8]) -> Result<Outgoing, String> {
        let mut record = match self.input {
            Input::Json => from_json(line)?,
            Input::Hex => Outgoing {
                value: Some(unhex(line)?),
                ..Outgoing::default()
            },
            Input::Text => self.text_record(line)?,
        };
        if let Some(key) = &self.key {
            record.key.get_or_insert_with(|| key.clone().into_bytes());
        }
        if self.null && record.value.as_ref().is_some_and(Vec::is_empty) {
            record.value = None;
        }
        record.partition = record.partition.or(self.partition);
        Ok(record)
    }

    fn text_record(&self, line: &[u8]) -> Result<Outgoing, String> {
        let (key, value) = match self.key_separator.as_deref() {
            None | Some("") => (None, line),
            Some(separator) => {
                let at = find(line, separator.as_bytes())
                    .ok_or_else(|| format!("there is no {separator:?} after a key"))?;
                (Some(line[..at].to_vec()), &line[at + separator.len()..])
            }
        };
        Ok(Outgoing {
            key,
            value: Some(value.to_vec()),
            ..Outgoing::default()
        })
    }

    fn report(&self, producer: &Producer) -> Result<(), Failure> {
        let written: Vec<&Written> = producer.written.values().collect();
        if self.address.json {
            println!("{}", serde_json::to_string_pretty(&written)?);
            return Ok(());
        }
        for one in written {
            let offsets = match (one.first_offset, one.last_offset) {
                (Some(first), Some(last)) => format!(", offsets {first} to {last}"),
                _ => String::new(),
            };
            println!(
                "{} records to {} partition {}{offsets}",
                one.records, self.topic, one.partition
            );
        }
        Ok(())
    }
}

impl Producer {
    fn open(asked: &Produce) -> Result<Self, Failure> {
        let mut client = Client::connect(&asked.address)?;
        let topic = format!("topic {}", asked.topic);
        let producer = match asked.acks {
            Acks::All => {
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_transaction_timeout_ms(0);
                let answer = client.ask(2, &request)?;
                // Who may write to any topic may have one.
                let refused = (answer.error_code, None);
                check_right("a producer id", refused, (Operation::Write, &topic))?;
                Some((answer.producer_id.0, answer.producer_epoch))
            }
            _ => None,
        };
        let mut producer = Self {
            client,
            topic: asked.topic.clone(),
            acks: asked.acks,
            compression: asked.compression,
            batch_bytes_max: asked.batch_bytes,
            timeout: Duration::from_millis(asked.timeout_ms),
            producer,
            leaders: Vec::new(),
            sequences: Vec::new(),
            filling: BTreeMap::new(),
            sticky: 0,
            written: BTreeMap::new(),
        };
        producer.find_topic()?;
        Ok(producer)
    }

    /// Waits for the topic, which asking for it may create.
    fn find_topic(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + TOPIC_WAIT.min(self.timeout);
        let code = self.client.create_by_asking(&self.topic)?;
        let created = check(&self.topic, code, None);
        while let Err(error) = self.find_leaders() {
            let topic = format!("topic {}", self.topic);
            match &created {
                _ if is_lacking(&error) => return Err(needed(Operation::Write, &topic)),
                Err(_) if code == ResponseError::TopicAuthorizationFailed.code() => {
                    let why = needed(Operation::Create, &topic);
                    return Err(format!("{error}: to have it created {why}").into());
                }
                Err(refused) if is_lasting(refused) => return created,
                _ if is_lasting(&error) || Instant::now() > until => return Err(error),
                _ => std::thread::sleep(RETRY_PAUSE),
            }
        }
        self.sequences.resize(self.leaders.len(), 0);
        Ok(())
    }

    fn find_leaders(&mut self) -> Result<(), Failure> {
        let topic = metadata(&mut self.client, &self.topic)?;
        let leaders = topic
            .partitions
            .iter()
            .map(|partition| partition.leader_id.0);
        self.leaders = leaders.collect();
        match self.leaders.is_empty() {
            true => Err(format!("{} has no partitions", self.topic).into()),
            false => Ok(()),
        }
    }

    /// How long the next line may take before something must be sent.
    fn wait(&self, linger: Duration) -> Duration {
        let oldest = self.filling.values().map(|filling| filling.since).min();
        oldest.map_or(Duration::from_secs(3600), |since| {
            linger.saturating_sub(since.elapsed())
        })
    }

    fn take(&mut self, record: Outgoing) -> Result<(), Failure> {
        let count = self.leaders.len();
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) if (0..count as i32).contains(&partition) => partition,
            (Some(partition), _) => {
                return Err(format!(
                    "there is no partition {partition}; {} has {count}",
                    self.topic
                )
                .into());
            }
            (None, Some(key)) => partition_for_key(key, count) as i32,
            (None, None) => self.sticky,
        };
        let bytes = record.bytes();
        let full = |filling: &Filling| filling.bytes + bytes > self.batch_bytes_max;
        if self.filling.get(&partition).is_some_and(full) {
            self.send(partition)?;
            if record.partition.is_none() && record.key.is_none() {
                self.sticky = (self.sticky + 1) % count as i32;
                return self.take(record);
            }
        }
        self.put(partition, record, bytes);
        Ok(())
    }

    fn put(&mut self, partition: i32, record: Outgoing, bytes: usize) {
        let mut filling = self.filling.remove(&partition).unwrap_or_else(|| {
            let builder = BatchBuilder::new().compression(self.compression);
            Filling {
                builder: match self.producer {
                    Some((id, epoch)) => {
                        builder.producer(id, epoch, self.sequences[partition as usize])
                    }
                    None => builder,
                },
                records: 0,
                bytes: 0,
                since: Instant::now(),
            }
        });
        let headers = record.headers.iter();
        let headers: Vec<(&[u8], Option<&[u8]>)> = headers
            .map(|(name, value)| (name.as_slice(), value.as_deref()))
            .collect();
        let timestamp = record
            .timestamp
            .unwrap_or_else(|| WallClock::default().now_ms());
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        filling.builder = filling.builder.push(key, value, &headers, timestamp);
        filling.records += 1;
        filling.bytes += bytes;
        self.filling.insert(partition, filling);
    }

    /// Sends what has waited long enough.
    fn send_due(&mut self, linger: Duration) -> Result<(), Failure> {
        let due = |(partition, filling): (&i32, &Filling)| {
            (filling.since.elapsed() >= linger).then_some(*partition)
        };
        for partition in self.filling.iter().filter_map(due).collect::<Vec<_>>() {
            self.send(partition)?;
        }
        Ok(())
    }

    fn send_all(&mut self) -> Result<(), Failure> {
        self.send_due(Duration::ZERO)
    }

    fn send(&mut self, partition: i32) -> Result<(), Failure> {
        let Some(filling) = self.filling.remove(&partition) else {
            return Ok(());
        };
        let records = filling.records;
        let base_offset = self.deliver(partition, filling.builder.finish()?)?;
        let sequence = &mut self.sequences[partition as usize];
        *sequence = next_sequence(*sequence, records);
        let last_offset = base_offset.map(|base| base + i64::from(records) - 1);
        let written = self.written.entry(partition).or_insert(Written {
            partition,
            records: 0,
            first_offset: base_offset,
            last_offset,
        });
        written.records += records as u64;
        written.last_offset = last_offset.or(written.last_offset);
        Ok(())
    }

    /// Sends a batch until it is acknowledged; where it was stored, as far as that is known.
    fn deliver(&mut self, partition: i32, batch: Bytes) -> Result<Option<i64>, Failure> {
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch));
        let topic = TopicProduceData::default()
            .with_name(topic_name(&self.topic))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(self.acks.wire())
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        let what = format!("{} partition {partition}", self.topic);
        let until = Instant::now() + self.timeout;
        loop {
            let leader = self.leaders.get(partition as usize).copied().unwrap_or(-1);
            let error: Failure = match self.attempt(leader, &request, &what) {
                Ok(Ok(offset)) => return Ok(offset),
                Ok(Err(refused)) => return Err(refused),
                Err(error) => error,
            };
            if Instant::now() > until {
                return Err(format!("{what}: given up: {error}").into());
            }
            std::thread::sleep(RETRY_PAUSE);
            let _ = self.client.reconnect().and_then(|()| self.find_leaders());
        }
    }

    /// One try: an outer error may pass, an inner one does not.
    fn attempt(
        &mut self,
        leader: i32,
        request: &ProduceRequest,
        what: &str,
    ) -> Result<Result<Option<i64>, Failure>, Failure> {
        if self.acks == Acks::None {
            self.client.tell_broker(leader, 9, request)?;
            return Ok(Ok(None));
        }
        let answer = self.client.ask_broker(leader, 9, request)?;
        let answered = answer.responses.first();
        let answered = answered
            .and_then(|topic| topic.partition_responses.first())
            .ok_or("the broker did not answer for the partition")?;
        let message = answered.error_message.as_deref();
        match ResponseError::try_from_code(answered.error_code) {
            None => Ok(Ok(Some(answered.base_offset))),
            Some(ResponseError::DuplicateSequenceNumber) => Ok(Ok(None)),
            Some(error) if error.is_retriable() => {
                check(what, answered.error_code, message).map(|()| Ok(None))
            }
            Some(_) => {
                let (about, refused) = ((what, &*self.topic), (answered.error_code, message));
                let checked = self.client.check_messages(about, refused, Operation::Write);
                Ok(checked.map(|()| None))
            }
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
