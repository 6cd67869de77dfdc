//! Every field of every request gets the values that nobody sends: the least, -1, 0, the most, nothing, null, the same
//! twice, very many. The broker answers or closes the connection, others are answered as ever, nothing panics, and memory
//! stays where it was.

mod common;
#[path = "common/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Client, batch};
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::{GroupId, JoinGroupRequest};
use metaq_protocol::protocol::StrBytes;
use metaq_protocol::shape::{Direction, Shape, shape_of};
use metaq_protocol::versions::{self, ApiRow};
use process::Process;

/// What the broker may hold in memory, whatever it is asked.
const RESIDENT_MAX: usize = 512 << 20;
/// So long an attacker waits for an answer, or for the end of its connection.
const ATTACK_MAX: Duration = Duration::from_secs(180);
/// So long anybody else waits at most. Far above what an answer takes, so that a busy machine is no failure.
const WITNESS_MAX: Duration = Duration::from_secs(5);
const WITNESS_PAUSE: Duration = Duration::from_millis(5);
/// Entries of an array that is long, where nothing else is said.
const MANY: usize = 1000;
/// As many as a request may have.
const MOST: usize = usize::MAX;
/// More than that: closes the connection.
const TOO_MANY: usize = 1_000_000;
/// A frame is no larger than this; some arrays then have fewer entries.
const FRAME_BYTES_MAX: usize = 60 << 20;

/// ApiVersions, correlation id 2: it is answered after what came before it, which may have no answer.
const VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 2, 0xff, 0xff];

/// What a field gets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    /// As a client would send it.
    Usual,
    /// A number's bytes: the first one, and all others.
    Number(u8, u8),
    /// No text, no bytes, no entries.
    Empty,
    Null,
    /// A text or bytes of this length.
    Long(usize),
    /// A text that is no name: separators, a zero byte, a way out of a directory.
    Odd,
    /// So many entries that are all alike.
    Alike(usize),
    /// So many entries with names and numbers of their own.
    Distinct(usize),
}

/// A number's extremes: the least, -1, 0, the most.
const NUMBERS: [Value; 4] = [
    Value::Number(0x80, 0),
    Value::Number(0xff, 0xff),
    Value::Number(0, 0),
    Value::Number(0x7f, 0xff),
];

/// Who the group's member is that some requests come from.
#[derive(Clone)]
struct Member {
    group: String,
    id: String,
    generation: i32,
}

/// Writes a request's body by its schema; one field, counted in the order of writing, gets another value.
struct Writer<'a> {
    member: &'a Member,
    records: &'a [u8],
    /// Entries that all arrays may have together.
    entries_max: usize,
    /// The field's number and path, and what it gets.
    target: (usize, &'a str, Value),
    /// Fields so far, by path.
    fields: Vec<(String, Kind)>,
    path: Vec<&'a str>,
    /// Within an entry of an array of distinct ones: which.
    entry: Option<usize>,
    out: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Number,
    Text { nullable: bool },
    Bytes { nullable: bool },
    Array { nullable: bool },
}

impl Kind {
    /// What is tried; `most` where an array gets as many entries as there may be.
    fn values(self, most: bool) -> Vec<Value> {
        let null = |nullable: bool| nullable.then_some(Value::Null);
        match self {
            Self::Number => NUMBERS.to_vec(),
            Self::Text { nullable } => {
                let texts = [Value::Empty, Value::Odd, Value::Long(32_767)];
                texts.into_iter().chain(null(nullable)).collect()
            }
            Self::Bytes { nullable } => {
                let bytes = [Value::Empty, Value::Long(1), Value::Long(2 << 20)];
                bytes.into_iter().chain(null(nullable)).collect()
            }
            Self::Array { nullable } => {
                let some = [
                    Value::Empty,
                    Value::Alike(2),
                    Value::Alike(MANY),
                    Value::Distinct(MANY),
                ];
                let all = some.into_iter().chain(null(nullable));
                let very_many = [MOST, TOO_MANY].map(Value::Alike).into_iter();
                let very_many = very_many.chain([Value::Distinct(MOST)]);
                all.chain(very_many.filter(|_| most)).collect()
            }
        }
    }
}

impl<'a> Writer<'a> {
    fn new(
        member: &'a Member,
        records: &'a [u8],
        entries_max: usize,
        target: (usize, &'a str, Value),
    ) -> Self {
        Self {
            // Others stand around the one that is long.
            entries_max: entries_max - 10,
            member,
            records,
            target,
            fields: Vec::new(),
            path: Vec::new(),
            entry: None,
            out: Vec::new(),
        }
    }

    /// Counts a field; what it gets.
    fn field(&mut self, kind: Kind) -> Value {
        let number = self.fields.len();
        self.fields.push((self.path.join("."), kind));
        match self.target {
            (target, _, value) if target == number => value,
            _ => Value::Usual,
        }
    }

    /// Topics are made by counts or by assignments, not by both.
    fn is_assigned(&self) -> bool {
        self.target.1.contains("assignments")
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn length(&mut self, compact: bool, short: bool, length: Option<usize>) {
        match (compact, short) {
            (true, _) => self.varint(length.map_or(0, |length| length + 1)),
            (false, true) => {
                let length = length.map_or(-1, |length| i16::try_from(length).unwrap());
                self.out.extend_from_slice(&length.to_be_bytes());
            }
            (false, false) => {
                let length = length.map_or(-1, |length| i32::try_from(length).unwrap());
                self.out.extend_from_slice(&length.to_be_bytes());
            }
        }
    }

    fn write(&mut self, shape: &'a Shape) {
        match shape {
            Shape::Fixed(bytes) => self.number(*bytes),
            Shape::Text { compact, nullable } => {
                let value = self.field(Kind::Text {
                    nullable: *nullable,
                });
                let text = self.text(value, *nullable);
                self.length(*compact, true, text.as_ref().map(Vec::len));
                self.out.extend(text.unwrap_or_default());
            }
            Shape::Bytes { compact, nullable } => {
                let value = self.field(Kind::Bytes {
                    nullable: *nullable,
                });
                let bytes = match value {
                    Value::Null => None,
                    Value::Empty => Some(Vec::new()),
                    Value::Long(count) => Some(vec![1; count]),
                    _ if self.path.last() == Some(&"records") => Some(self.records.to_vec()),
                    _ => Some(b"\0\0".to_vec()),
                };
                self.length(*compact, false, bytes.as_ref().map(Vec::len));
                self.out.extend(bytes.unwrap_or_default());
            }
            Shape::Array {
                compact,
                nullable,
                element,
                ..
            } => self.array(*compact, *nullable, element),
            Shape::Struct {
                nullable,
                fields,
                tags,
            } => {
                if *nullable {
                    self.out.push(1);
                }
                for (name, field) in fields {
                    self.path.push(name);
                    self.write(field);
                    self.path.pop();
                }
                if let Some(tags) = tags {
                    self.tags(tags);
                }
            }
        }
    }

    fn tags(&mut self, tags: &'a [(u32, String, Shape)]) {
        self.out.push(tags.len() as u8);
        for (tag, name, shape) in tags {
            let before = std::mem::take(&mut self.out);
            self.path.push(name);
            self.write(shape);
            self.path.pop();
            let field = std::mem::replace(&mut self.out, before);
            self.varint(*tag as usize);
            self.varint(field.len());
            self.out.extend(field);
        }
    }

    fn array(&mut self, compact: bool, nullable: bool, element: &'a Shape) {
        let value = self.field(Kind::Array { nullable });
        let count = match value {
            Value::Null => None,
            Value::Empty => Some(0),
            Value::Alike(count) | Value::Distinct(count) => Some(count),
            _ if self.path.ends_with(&["topics", "assignments"]) && !self.is_assigned() => Some(0),
            _ => Some(1),
        };
        // The fields of the first entry are those that are counted.
        let before = std::mem::take(&mut self.out);
        self.write(element);
        let first = std::mem::replace(&mut self.out, before);
        let fits = match value {
            Value::Alike(MOST) | Value::Distinct(MOST) => {
                let entries = self.entries_max / (1 + arrays_in(element));
                entries.min(FRAME_BYTES_MAX / first.len().max(1))
            }
            _ => usize::MAX,
        };
        let count = count.map(|count| count.min(fits));
        self.length(compact, false, count);
        let mark = self.fields.len();
        for entry in 0..count.unwrap_or(0) {
            if let (Value::Distinct(_), None) = (value, self.entry) {
                self.entry = Some(entry);
                self.write(element);
                self.fields.truncate(mark);
                self.entry = None;
            } else {
                self.out.extend_from_slice(&first);
            }
        }
    }

    fn number(&mut self, bytes: usize) {
        let value = self.field(Kind::Number);
        if let Value::Number(first, rest) = value {
            self.out.push(first);
            self.out.extend(std::iter::repeat_n(rest, bytes - 1));
            return;
        }
        let usual: i64 = match *self.path.last().unwrap_or(&"") {
            "generation_id" | "generation_id_or_member_epoch" | "member_epoch" => {
                i64::from(self.member.generation)
            }
            "acks"
            | "session_epoch"
            | "producer_id"
            | "producer_epoch"
            | "current_leader_epoch"
            | "retention_time_ms"
            | "last_fetched_epoch"
            | "committed_leader_epoch" => -1,
            "session_timeout_ms" | "rebalance_timeout_ms" => 10_000,
            "timeout_ms" | "max_wait_ms" | "transaction_timeout_ms" => 100,
            "max_bytes" | "partition_max_bytes" => 1 << 20,
            "num_partitions" | "replication_factor" if self.is_assigned() => -1,
            "num_partitions" | "replication_factor" | "endpoint_type" => 1,
            "resource_type" | "resource_types" => 2,
            "count" => 2,
            "response_partition_limit" => 100,
            "partition_index" | "partition" | "partitions" | "partition_indexes" | "index" => {
                self.entry.unwrap_or(0) as i64
            }
            _ => 0,
        };
        let long = i128::from(usual).to_be_bytes();
        self.out.extend_from_slice(&long[16 - bytes..]);
    }

    fn text(&self, value: Value, nullable: bool) -> Option<Vec<u8>> {
        match value {
            Value::Null => return None,
            Value::Empty => return Some(Vec::new()),
            Value::Long(count) => return Some(format!("{:x<count$}", self.member.group).into()),
            Value::Odd => return Some(format!("../\0\n%s{{}}é/..{}", self.member.group).into()),
            _ => {}
        }
        let distinct = |text: &str| match self.entry {
            Some(entry) => format!("{text}{entry}"),
            None => text.to_owned(),
        };
        let text = match *self.path.last().unwrap_or(&"") {
            "group_id" | "groups" | "groups_names" | "coordinator_keys" => {
                distinct(&self.member.group)
            }
            "member_id" => distinct(&self.member.id),
            "protocol_type" => "consumer".to_owned(),
            "protocol_name" => "range".to_owned(),
            "group_instance_id" => "i".to_owned(),
            "transactional_id" | "committed_metadata" if nullable => return None,
            "configuration_keys" => "retention.ms".to_owned(),
            "value" => "1000000".to_owned(),
            "name" if self.path.contains(&"configs") => "retention.ms".to_owned(),
            "name" if self.path.contains(&"protocols") => distinct("range"),
            _ => distinct("t"),
        };
        Some(text.into_bytes())
    }
}

/// Arrays that one value of a shape has, each with one entry.
fn arrays_in(shape: &Shape) -> usize {
    match shape {
        Shape::Array { element, .. } => 1 + arrays_in(element),
        Shape::Struct { fields, .. } => fields.iter().map(|(_, field)| arrays_in(field)).sum(),
        _ => 0,
    }
}

/// A frame with its length and header.
fn frame(row: &ApiRow, version: i16, shape: &Shape, body: &[u8]) -> Vec<u8> {
    let is_flexible = matches!(shape, Shape::Struct { tags: Some(_), .. });
    let mut out = vec![0; 4];
    out.extend_from_slice(&row.key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 1, 0, 1, b'h']);
    if is_flexible {
        out.push(0);
    }
    out.extend_from_slice(body);
    let length = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// Somebody who asks for odd things, over one connection while it is open.
struct Attacker<'a> {
    broker: &'a Process,
    stream: Option<TcpStream>,
    answered: usize,
    closed: usize,
}

impl<'a> Attacker<'a> {
    fn new(broker: &'a Process) -> Self {
        Self {
            broker,
            stream: None,
            answered: 0,
            closed: 0,
        }
    }

    /// Sends a frame, and waits for an answer or for the end of the connection.
    fn attack(&mut self, frame: &[u8], what: &str) {
        let connect = || {
            let stream = TcpStream::connect(self.broker.address()).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(ATTACK_MAX)).unwrap();
            stream
        };
        let mut stream = self.stream.take().unwrap_or_else(connect);
        let asked = stream
            .write_all(frame)
            .and_then(|()| stream.write_all(&VERSIONS))
            .and_then(|()| skip_answers(&mut stream));
        match asked {
            Ok(()) => {
                self.answered += 1;
                self.stream = Some(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("{what}: neither answered nor closed within {ATTACK_MAX:?}")
            }
            Err(_) => self.closed += 1,
        }
    }
}

/// Reads up to the answer to [`VERSIONS`].
fn skip_answers(stream: &mut TcpStream) -> std::io::Result<()> {
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        let [length, correlation_id] =
            [&head[..4], &head[4..]].map(|number| u32::from_be_bytes(number.try_into().unwrap()));
        let rest = u64::from(length) - 4;
        let skipped = std::io::copy(&mut stream.take(rest), &mut std::io::sink())?;
        if skipped < rest {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if correlation_id == 2 {
            return Ok(());
        }
    }
}

/// Joins a group of its own as a static member.
fn join(client: &mut Client, group: &str) -> Member {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_group_instance_id(Some(text("i")))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let joined = client.ask(5, &request);
    assert_eq!(joined.error_code, 0);
    Member {
        group: group.to_owned(),
        id: joined.member_id.to_string(),
        generation: joined.generation_id,
    }
}

/// Somebody who uses the broker as anybody does, all the time, and is answered in time.
struct Witness {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Duration>>,
}

impl Witness {
    fn start(mut client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let (code, offset) = client.produce("witness", batch(3));
                assert_eq!(code, 0);
                assert_eq!(client.fetch("witness", offset), [(offset, 3)]);
                slowest = slowest.max(asked.elapsed());
                std::thread::sleep(WITNESS_PAUSE);
            }
            slowest
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// How long it waited at most.
    fn stop(mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

struct Walk<'a> {
    broker: &'a Process,
    attacker: Attacker<'a>,
    client: Client,
    groups: usize,
    largest: usize,
    slowest: Duration,
}

impl Walk<'_> {
    /// Tries every field of one version of a request.
    fn version(&mut self, row: &ApiRow, version: i16, most: bool) {
        let shape = shape_of(row.key, Direction::Request, version).unwrap();
        let records = batch(2);
        let nobody = Member {
            group: String::new(),
            id: String::new(),
            generation: 0,
        };
        let mut plain = Writer::new(
            &nobody,
            &records,
            row.entries_max,
            (usize::MAX, "", Value::Usual),
        );
        plain.write(shape);
        let of_group = plain.fields.iter().any(|(path, _)| path == "group_id");
        let fields = plain.fields;
        let mut tried = vec![(usize::MAX, "as usual", Value::Usual)];
        for (n, (path, kind)) in fields.iter().enumerate() {
            let values = kind.values(most).into_iter();
            tried.extend(values.map(|value| (n, path.as_str(), value)));
        }
        let witness = Witness::start(self.broker.client());
        for (n, path, value) in tried {
            let what = format!("{} {version}, {path} = {value:?}", row.name);
            self.groups += 1;
            let group = format!("g{}", self.groups);
            let member = match of_group && row.name != "JoinGroup" {
                true => join(&mut self.client, &group),
                false => Member {
                    group,
                    ..nobody.clone()
                },
            };
            let mut writer = Writer::new(&member, &records, row.entries_max, (n, path, value));
            writer.write(shape);
            let started = Instant::now();
            let bytes = frame(row, version, shape, &writer.out);
            self.attacker.attack(&bytes, &what);
            self.look(&what, started);
        }
        self.client.create("t");
        let slowest = witness.stop();
        assert!(
            slowest < WITNESS_MAX,
            "{} {version}: others waited {slowest:?}",
            row.name
        );
        self.slowest = self.slowest.max(slowest);
    }

    fn look(&mut self, what: &str, started: Instant) {
        let took = started.elapsed();
        if took > Duration::from_millis(500) {
            println!("{what}: {took:?}");
        }
        let resident = self.broker.resident();
        if resident > self.largest + (8 << 20) {
            println!("{what}: {} MiB", resident >> 20);
        }
        self.largest = self.largest.max(resident);
        assert!(resident < RESIDENT_MAX, "{what}: {} MiB", resident >> 20);
    }
}

#[test]
fn no_value_of_any_field_stops_the_broker_or_takes_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let settings = ["group.initial.rebalance.delay.ms=0"];
    let broker = Process::start_logging(&dir.path().join("data"), &settings, &log);
    let mut client = broker.client();
    client.create("witness");
    let mut walk = Walk {
        broker: &broker,
        attacker: Attacker::new(&broker),
        client,
        groups: 0,
        largest: broker.resident(),
        slowest: Duration::ZERO,
    };
    // A quota that it sets would hold up all that follows; its values are in tests/quotas.rs.
    let sets_quotas = metaq_protocol::messages::ApiKey::AlterClientQuotas as i16;
    let rows = versions::TABLE.iter();
    for row in rows.filter(|row| row.key != sets_quotas) {
        let mut before = None;
        for version in row.min..=row.max {
            let shape = shape_of(row.key, Direction::Request, version).unwrap();
            // The same fields mean the same.
            if before != Some(shape) || version == row.max {
                walk.version(row, version, version == row.max);
            }
            before = Some(shape);
        }
        let said = std::fs::read_to_string(&log).unwrap();
        let panicked = said.lines().find(|line| line.contains("panicked"));
        assert_eq!(panicked, None, "behind {}", row.name);
    }
    for page in ["/metrics", "/readyz", "/api/groups", "/api/topics"] {
        let answer = broker.page(page);
        assert!(answer.starts_with("HTTP/1.1 200"), "{page}: {answer:.200}");
    }
    assert_eq!(broker.metric("metaq_handler_panics_total"), 0);
    let Attacker {
        answered, closed, ..
    } = walk.attacker;
    println!(
        "{answered} answered, {closed} closed; {} MiB at most; others waited {:?} at most",
        walk.largest >> 20,
        walk.slowest
    );
    assert!(answered > 1000 && closed > 10);
}
