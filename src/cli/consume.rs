//! `metaq consume`: a topic's records, from an offset or a time on, in a format of one's own.
//!
//! It reads partitions by itself and commits nothing; a group is looked at with `metaq group`.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use data_encoding::HEXLOWER;
use metaq_protocol::ResponseError;
use metaq_protocol::batch::{BATCH_HEADER_BYTES, Batches};
use metaq_protocol::compression::decompress;
use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use metaq_protocol::messages::fetch_response::PartitionData;
use metaq_protocol::messages::{BrokerId, FetchRequest};
use metaq_protocol::records::{Record, Records};
use serde::Serialize;

use super::Failure;
use super::aborted::Aborted;
use super::client::{Address, Client, topic_name};
use super::refused::check;
use super::topic::{identity_of, metadata, offsets_seen};
use crate::security::Operation;

/// A broker that has nothing new answers after this long, divided by the number of brokers that are asked in turn.
const FETCH_WAIT_MS: i32 = 500;
/// A partition's share of an answer, bytes.
const PARTITION_BYTES_MAX: i32 = 4 << 20;
/// What a batch may unpack to, bytes.
const UNPACKED_BYTES_MAX: usize = 256 << 20;
/// The pause before a broker is asked again after an error.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Errors that may pass are waited for this many times in a row.
const RETRIES_MAX: u32 = 150;

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(after_help = "\
Formats: %t topic, %p partition, %i brokerId-n, %o offset, %T timestamp, %k key, %K its length, %s value, %S its length, \
%h headers, %% a percent sign; \\n \\t \\r \\0 \\\\

Examples:
  metaq consume greetings -e                     # all there is
  metaq consume greetings -o latest              # what comes from now on
  metaq consume greetings -o -10 -e              # the last ten of each partition
  metaq consume greetings -o @1764000000000 -e   # from a time on, ms since 1970
  metaq consume orders -f '%i:%o %k=%s\\n' -c 20
  metaq consume orders --json | jq .value
  metaq consume orders --isolation-level read_committed")]
pub(super) struct Consume {
    /// Topic.
    topic: String,
    /// Only this partition; may be given several times.
    #[arg(short, long)]
    partition: Vec<i32>,
    /// Where to begin: earliest, latest, an offset, -N for the last N, or @MS for a time.
    #[arg(
        short,
        long,
        default_value = "earliest",
        allow_hyphen_values = true,
        value_parser = Begin::parse
    )]
    offset: Begin,
    /// End after this many records.
    #[arg(short, long)]
    count: Option<u64>,
    /// End at what is the end now.
    #[arg(short, long)]
    exit: bool,
    /// What to print of a record.
    #[arg(short, long, default_value = "%s\\n")]
    format: String,
    /// How keys and values are printed.
    #[arg(long, value_enum, default_value_t = Show::Text)]
    show: Show,
    /// Which records of transactions are read; of committed ones alone up to the first transaction that is open.
    #[arg(long, value_enum, default_value_t = Isolation::ReadUncommitted)]
    isolation_level: Isolation,
    #[command(flatten)]
    address: Address,
}

/// As Kafka's consumers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Isolation {
    /// All.
    ReadUncommitted,
    /// Those of transactions that were committed, and those of none.
    ReadCommitted,
}

impl Isolation {
    fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Earliest,
    Latest,
    Offset(i64),
    Last(i64),
    Time(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Show {
    /// As they are.
    Text,
    /// In hexadecimal digits.
    Hex,
}

impl Begin {
    fn parse(text: &str) -> Result<Self, String> {
        let number = |digits: &str| {
            let number: Result<i64, _> = digits.parse();
            number.map_err(|_| format!("not earliest, latest, OFFSET, -N or @MS: {text}"))
        };
        match text {
            "earliest" | "beginning" => Ok(Self::Earliest),
            "latest" | "end" => Ok(Self::Latest),
            _ => match (text.strip_prefix('-'), text.strip_prefix('@')) {
                (Some(last), _) => number(last).map(Self::Last),
                (_, Some(time)) => number(time).map(Self::Time),
                _ => number(text).map(Self::Offset),
            },
        }
    }
}

/// A partition while it is read.
#[derive(Debug)]
struct Position {
    leader: i32,
    identity: Option<String>,
    next: i64,
    /// Where to end.
    end: Option<i64>,
}

impl Position {
    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }
}

/// A record as `--json` prints it, and `metaq produce --input json` reads it.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    topic: &'a str,
    partition: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
    offset: i64,
    timestamp: i64,
    key: Option<&'a str>,
    /// Instead of a key that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    headers: Vec<ShownHeader<'a>>,
}

#[derive(Debug, Serialize)]
struct ShownHeader<'a> {
    name: String,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

struct Consumer {
    client: Client,
    topic: String,
    positions: BTreeMap<i32, Position>,
    left: u64,
    isolation: Isolation,
    json: bool,
    format: Vec<Part>,
    show: Show,
    out: BufWriter<io::Stdout>,
}

/// A piece of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Field(char),
}

impl Consume {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut consumer = Consumer {
            format: parse_format(&self.format)?,
            client: Client::connect(&self.address)?,
            topic: self.topic.clone(),
            positions: BTreeMap::new(),
            left: self.count.unwrap_or(u64::MAX),
            isolation: self.isolation_level,
            json: self.address.json,
            show: self.show,
            out: BufWriter::with_capacity(64 << 10, io::stdout()),
        };
        consumer.begin(&self)?;
        match consumer.read_on() {
            // Who reads it has seen enough.
            Err(error) if is_broken_pipe(&error) => Ok(()),
            other => other,
        }
    }
}

impl Consumer {
    fn begin(&mut self, asked: &Consume) -> Result<(), Failure> {
        let topic = metadata(&mut self.client, &self.topic)?;
        let all = topic.partitions.iter();
        let all: Vec<i32> = all.map(|partition| partition.partition_index).collect();
        if let Some(missing) = asked.partition.iter().find(|index| !all.contains(index)) {
            return Err(format!("{} has no partition {missing}", self.topic).into());
        }
        let wanted = match asked.partition.is_empty() {
            true => all,
            false => asked.partition.clone(),
        };
        let isolation = self.isolation.code();
        let mut seen = |time| offsets_seen(&mut self.client, &topic, &wanted, (time, isolation));
        let (starts, ends) = (seen(-2)?, seen(-1)?);
        let times = match asked.offset {
            Begin::Time(ms) => seen(ms)?,
            _ => BTreeMap::new(),
        };
        for partition in topic.partitions {
            let index = partition.partition_index;
            let (Some(start), Some(end)) = (starts.get(&index), ends.get(&index)) else {
                continue;
            };
            let next = match asked.offset {
                Begin::Earliest => *start,
                Begin::Latest => *end,
                Begin::Offset(offset) => offset,
                Begin::Last(count) => (end - count).max(*start),
                // -1 where there is none so late.
                Begin::Time(_) => times
                    .get(&index)
                    .copied()
                    .filter(|at| *at >= 0)
                    .unwrap_or(*end),
            };
            let position = Position {
                leader: partition.leader_id.0,
                identity: identity_of(&partition),
                next,
                end: asked.exit.then_some(*end),
            };
            self.positions.insert(index, position);
        }
        match self.positions.is_empty() {
            true => Err(format!("no partition of {} can be read", self.topic).into()),
            false => Ok(()),
        }
    }

    fn read_on(&mut self) -> Result<(), Failure> {
        let mut failed = 0;
        while self.left > 0 && !self.positions.values().all(Position::is_done) {
            match self.round() {
                Ok(()) => failed = 0,
                Err(error) if is_broken_pipe(&error) || failed >= RETRIES_MAX => {
                    return Err(error);
                }
                Err(error) if error.is::<Lasting>() => return Err(error),
                Err(_) => {
                    failed += 1;
                    std::thread::sleep(RETRY_PAUSE);
                    let _ = self.client.reconnect().and_then(|()| self.find_leaders());
                }
            }
        }
        Ok(self.out.flush()?)
    }

    fn find_leaders(&mut self) -> Result<(), Failure> {
        for partition in metadata(&mut self.client, &self.topic)?.partitions {
            if let Some(position) = self.positions.get_mut(&partition.partition_index) {
                position.leader = partition.leader_id.0;
            }
        }
        Ok(())
    }

    /// Asks every leader once.
    fn round(&mut self) -> Result<(), Failure> {
        let mut by_leader: BTreeMap<i32, Vec<FetchPartition>> = BTreeMap::new();
        for (index, position) in self.positions.iter().filter(|(_, at)| !at.is_done()) {
            let asked = FetchPartition::default()
                .with_partition(*index)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(position.next)
                .with_partition_max_bytes(PARTITION_BYTES_MAX);
            by_leader.entry(position.leader).or_default().push(asked);
        }
        let wait_ms = FETCH_WAIT_MS / by_leader.len().max(1) as i32;
        for (leader, asked) in by_leader {
            let topic = FetchTopic::default()
                .with_topic(topic_name(&self.topic))
                .with_partitions(asked);
            let request = FetchRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_max_wait_ms(wait_ms)
                .with_min_bytes(1)
                .with_max_bytes(16 << 20)
                .with_session_epoch(-1)
                .with_isolation_level(self.isolation.code())
                .with_topics(vec![topic]);
            let answer = self.client.ask_broker(leader, 11, &request)?;
            check(&self.topic, answer.error_code, None)?;
            for partition in answer
                .responses
                .into_iter()
                .flat_map(|topic| topic.partitions)
            {
                self.print_partition(&partition)?;
            }
            self.out.flush()?;
        }
        Ok(())
    }

    fn print_partition(&mut self, data: &PartitionData) -> Result<(), Failure> {
        let index = data.partition_index;
        let what = format!("{} partition {index}", self.topic);
        if let Some(error) = ResponseError::try_from_code(data.error_code) {
            let refused = (data.error_code, None);
            let about = (&*what, &*self.topic);
            let failure = self.client.check_messages(about, refused, Operation::Read);
            return match error.is_retriable() {
                true => failure,
                false => failure.map_err(|error| Lasting(error.to_string()).into()),
            };
        }
        let Some(bytes) = &data.records else {
            return Ok(());
        };
        let mut aborted = Aborted::of(data);
        // The last batch may be cut off.
        for (header, batch) in Batches::new(bytes).map_while(Result::ok) {
            if !aborted.takes(&header, batch) {
                let damaged = |why: String| {
                    Failure::from(Lasting(format!(
                        "{what} offset {}: {why}",
                        header.base_offset
                    )))
                };
                let codec = header
                    .compression()
                    .map_err(|error| damaged(error.to_string()))?;
                let unpacked = decompress(codec, &batch[BATCH_HEADER_BYTES..], UNPACKED_BYTES_MAX)
                    .map_err(|error| damaged(error.to_string()))?;
                for record in Records::new(&header, &unpacked) {
                    let record = record.map_err(|error| damaged(error.to_string()))?;
                    self.print(index, &record)?;
                }
            }
            if let Some(position) = self.positions.get_mut(&index) {
                position.next = position.next.max(header.last_offset() + 1);
            }
        }
        Ok(())
    }

    fn print(&mut self, index: i32, record: &Record<'_>) -> Result<(), Failure> {
        let Some(position) = self.positions.get_mut(&index) else {
            return Ok(());
        };
        // A batch may begin before what was asked for, and reach beyond.
        if record.offset < position.next || position.is_done() || self.left == 0 {
            return Ok(());
        }
        position.next = record.offset + 1;
        self.left -= 1;
        let identity = position.identity.as_deref();
        if self.json {
            let shown = shown(&self.topic, index, identity, record);
            serde_json::to_writer(&mut self.out, &shown)?;
            self.out.write_all(b"\n")?;
            return Ok(());
        }
        for part in &self.format {
            let out = &mut self.out;
            let bytes = |out: &mut BufWriter<_>, bytes: Option<&[u8]>| match self.show {
                Show::Text => out.write_all(bytes.unwrap_or_default()),
                Show::Hex => out.write_all(HEXLOWER.encode(bytes.unwrap_or_default()).as_bytes()),
            };
            let len = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
            match part {
                Part::Literal(text) => out.write_all(text)?,
                Part::Field('t') => out.write_all(self.topic.as_bytes())?,
                Part::Field('p') => write!(out, "{index}")?,
                Part::Field('i') => write!(out, "{}", identity.unwrap_or("-"))?,
                Part::Field('o') => write!(out, "{}", record.offset)?,
                Part::Field('T') => write!(out, "{}", record.timestamp)?,
                Part::Field('k') => bytes(out, record.key)?,
                Part::Field('s') => bytes(out, record.value)?,
                Part::Field('K') => write!(out, "{}", len(record.key))?,
                Part::Field('S') => write!(out, "{}", len(record.value))?,
                Part::Field(_) => write_headers(out, record)?,
            }
        }
        Ok(())
    }
}

/// An error that does not pass.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Lasting(String);

fn is_broken_pipe(error: &Failure) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    let json = error.downcast_ref::<serde_json::Error>();
    error.downcast_ref().is_some_and(broken)
        || json.and_then(|error| error.io_error_kind()) == Some(io::ErrorKind::BrokenPipe)
}

/// `name=value,…`, as kcat.
fn write_headers(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    for (n, (name, value)) in record.headers().enumerate() {
        if n > 0 {
            out.write_all(b",")?;
        }
        out.write_all(name)?;
        out.write_all(b"=")?;
        out.write_all(value.unwrap_or(b"NULL"))?;
    }
    Ok(())
}

/// Text where it is UTF-8, otherwise digits.
fn text_or_hex(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => (None, None),
        Some((Ok(text), _)) => (Some(text), None),
        Some((Err(_), bytes)) => (None, Some(HEXLOWER.encode(bytes))),
    }
}

fn shown<'a>(
    topic: &'a str,
    partition: i32,
    identity: Option<&'a str>,
    record: &Record<'a>,
) -> Shown<'a> {
    let (key, key_hex) = text_or_hex(record.key);
    let (value, value_hex) = text_or_hex(record.value);
    let headers = record.headers().map(|(name, value)| {
        let (value, value_hex) = text_or_hex(value);
        ShownHeader {
            name: String::from_utf8_lossy(name).into_owned(),
            value,
            value_hex,
        }
    });
    Shown {
        topic,
        partition,
        identity,
        offset: record.offset,
        timestamp: record.timestamp,
        key,
        key_hex,
        value,
        value_hex,
        headers: headers.collect(),
    }
}

fn parse_format(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, matches!(char, '%' | '\\').then(|| chars.next())) {
            (_, Some(None)) => return Err(format!("format {text:?} ends in {char}")),
            ('%', Some(Some('%'))) => literal.push(b'%'),
            ('%', Some(Some(field))) if "tpioTksKSh".contains(field) => {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Field(field));
            }
            ('\\', Some(Some('n'))) => literal.push(b'\n'),
            ('\\', Some(Some('t'))) => literal.push(b'\t'),
            ('\\', Some(Some('r'))) => literal.push(b'\r'),
            ('\\', Some(Some('0'))) => literal.push(0),
            ('\\', Some(Some('\\'))) => literal.push(b'\\'),
            (_, Some(Some(other))) => {
                return Err(format!("format {text:?}: there is no {char}{other}"));
            }
            (char, None) => {
                literal.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_as_by_kcat() {
        let parts = parse_format("%p: %k\\n%%").unwrap();
        let literal = |text: &str| Part::Literal(text.into());
        assert_eq!(
            parts,
            [
                Part::Field('p'),
                literal(": "),
                Part::Field('k'),
                literal("\n%")
            ]
        );
        for wrong in ["%", "%x", "\\", "\\x"] {
            assert!(parse_format(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn beginnings_are_offsets_times_and_words() {
        for (text, from) in [
            ("earliest", Begin::Earliest),
            ("end", Begin::Latest),
            ("17", Begin::Offset(17)),
            ("-3", Begin::Last(3)),
            ("@1000", Begin::Time(1000)),
        ] {
            assert_eq!(Begin::parse(text), Ok(from));
        }
        assert!(Begin::parse("soon").is_err());
    }
}
