//! A load generator that is light enough not to be the bottleneck: raw protocol, batches encoded once, several
//! connections, requests pipelined. Prints one line of JSON.
//!
//! `load produce|fetch --address HOST:PORT --topic T [--partitions 4] [--connections 4] [--in-flight 4]
//!  [--record-bytes 1024] [--batch-bytes 16384] [--fetch-bytes 1048576] [--total-mib 1024] [--pid BROKER] [--config KEY=VALUE …]`
//! With `--committed yes` a fetch reads committed records alone.
//! With `--floor yes` the other side is a program of benches/floor.rs: answers are counted, not decoded.
//!
//! `load create` makes the topic. `load paced --records-per-s N [--share 1.0] --seconds N` sends batches when they are
//! due, not when the broker is ready for them.
//! `load start --command COMMAND [--first-fetch yes]` times a broker's start to its first answer, or first records.
//!
//! `load ask` sends Metadata requests of all topics, `--in-flight` in one write, `--seconds` long.
//!
//! `load keyed` produces records with keys at random out of `--keys`, for compacted topics.
//!
//! `load deaf` opens `--connections` that fetch from the topic and never read, until its standard input ends.
//!
//! `load wait --partitions N --pid BROKER` has a fetch wait for N partitions while one of them is appended to, and tells the
//! broker's CPU time an append.
//!
//! `load members --members N --partitions P --seconds S --pid BROKER` has the members of a group (KIP-848) join at once, and tells when
//! all had their part, and what their heartbeats cost in the second half of the run.
//!
//! `load commit` commits offsets of `--groups` groups, one a request, `--seconds` long; the address may be several.
//! `load transact` has each connection write and commit transactions of ten records, `--seconds` long; `records_per_s` are
//! transactions then, the times are those of a commit, and `cpu_us_each` is the broker's CPU time of one. With `--abort-every N`
//! each N-th is aborted. `load takeover` commits one transaction after the other and tells the longest time without a commit, while
//! somebody kills brokers; the address may be several. `load ids --groups N` begins N transactional ids at one broker, and tells what
//! it takes with them.
//! `load zookeeper` sets as many nodes of a ZooKeeper one by one, as a broker would that wrote each commit by itself.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metaq_protocol::batch::{BatchBuilder, Batches};
use metaq_protocol::frame;
use metaq_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use metaq_protocol::messages::{
    CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest, TopicName,
};
use metaq_protocol::protocol::{Request, StrBytes};

#[path = "asking.rs"]
mod asking;
#[path = "commits.rs"]
mod commits;
#[path = "deaf.rs"]
mod deaf;
#[path = "keyed.rs"]
mod keyed;
#[path = "members.rs"]
mod members;
#[path = "paced.rs"]
mod paced;
#[path = "startup.rs"]
mod startup;
#[path = "takeover.rs"]
mod takeover;
#[path = "transacting.rs"]
mod transacting;
#[path = "waiting.rs"]
mod waiting;

type Failure = Box<dyn std::error::Error + Send + Sync>;
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 11;

#[derive(Clone)]
struct Options {
    address: String,
    topic: String,
    partitions: i32,
    connections: usize,
    in_flight: usize,
    record_bytes: usize,
    batch_bytes: usize,
    fetch_bytes: usize,
    total_bytes: u64,
    groups: usize,
    members: usize,
    keys: u64,
    records_per_s: u64,
    run: Duration,
    /// Fetches read committed records alone.
    committed: bool,
    /// Each so manieth transaction is aborted; 0 for none.
    abort_every: usize,
    /// The other side is no broker.
    floor: bool,
    pid: Option<u32>,
    config: Vec<String>,
}

fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let mode = words.next().ok_or("produce or fetch")?;
    let mut given: HashMap<String, String> = HashMap::new();
    let mut config = Vec::new();
    while let Some(key) = words.next() {
        let value = words.next().ok_or_else(|| format!("{key} needs a value"))?;
        if key == "--config" {
            config.push(value);
        } else {
            given.insert(key, value);
        }
    }
    let share: f64 = given.get("--share").map_or(Ok(1.0), |text| text.parse())?;
    let number = |key: &str, default: u64| given.get(key).map_or(Ok(default), |text| text.parse());
    let options = Options {
        address: given.get("--address").ok_or("--address")?.clone(),
        topic: given.get("--topic").ok_or("--topic")?.clone(),
        partitions: number("--partitions", 4)? as i32,
        connections: number("--connections", 4)? as usize,
        in_flight: number("--in-flight", 4)? as usize,
        record_bytes: number("--record-bytes", 1024)? as usize,
        batch_bytes: number("--batch-bytes", 16 << 10)? as usize,
        fetch_bytes: number("--fetch-bytes", 1 << 20)?.min(1 << 30) as usize,
        total_bytes: number("--total-mib", 1024)? << 20,
        groups: number("--groups", 1000)? as usize,
        members: number("--members", 1000)?.max(1) as usize,
        keys: number("--keys", 1_000_000)?,
        records_per_s: (number("--records-per-s", 5000)? as f64 * share) as u64,
        committed: given.contains_key("--committed"),
        abort_every: number("--abort-every", 0)? as usize,
        floor: given.contains_key("--floor"),
        run: Duration::from_secs(number("--seconds", 10)?),
        pid: given.get("--pid").map(|pid| pid.parse()).transpose()?,
        config,
    };
    if mode == "start" {
        let command = given.get("--command").ok_or("--command")?;
        return startup::start(&options, command, given.contains_key("--first-fetch"));
    }
    if mode == "create" {
        return create(&options);
    }
    if mode == "deaf" {
        return deaf::stay(&options);
    }
    if mode == "members" {
        create(&options)?;
        return members::members(&options);
    }
    if mode == "ids" {
        return takeover::ids(&options);
    }
    if mode == "takeover" {
        create(&options)?;
        return takeover::take_over(&options);
    }
    if mode == "wait" {
        create(&options)?;
        return waiting::wait(&options);
    }
    let cpu_before = options.pid.map(cpu_seconds).transpose()?;
    let started = Instant::now();
    let (records, bytes, mut latencies) = match mode.as_str() {
        "produce" => {
            create(&options)?;
            in_threads(&options, produce)?
        }
        "fetch" => in_threads(&options, fetch)?,
        "paced" => {
            create(&options)?;
            in_threads(&options, paced::paced)?
        }
        "commit" => {
            create(&options)?;
            in_threads(&options, commits::commit)?
        }
        "keyed" => {
            create(&options)?;
            in_threads(&options, keyed::keyed)?
        }
        "transact" => {
            create(&options)?;
            in_threads(&options, transacting::transact)?
        }
        "ask" => in_threads(&options, asking::asking)?,
        "zookeeper" => commits::set_one_by_one(&options)?,
        other => {
            return Err(format!(
                "{other}: produce, fetch, keyed, paced, create, start, commit, transact, takeover, ids, ask, deaf, wait, members or zookeeper"
            )
            .into());
        }
    };
    let seconds = match mode.as_str() {
        // Not with the time that is not counted.
        "paced" => options.run.as_secs_f64(),
        _ => started.elapsed().as_secs_f64(),
    };
    let cpu = match (options.pid, cpu_before) {
        (Some(pid), Some(before)) => cpu_seconds(pid)? - before,
        _ => f64::NAN,
    };
    latencies.sort_unstable();
    let at = |share: f64| {
        latencies
            .get((latencies.len() as f64 * share) as usize)
            .map_or(0.0, |l| l.as_secs_f64() * 1e3)
    };
    let gib = bytes as f64 / (1u64 << 30) as f64;
    println!(
        "{{\"records_per_s\": {:.0}, \"mib_per_s\": {:.1}, \"cpu_s_per_gib\": {:.3}, \"cpu_us_each\": {:.2}, \"p50_ms\": {:.2}, \"p99_ms\": {:.2}, \"p999_ms\": {:.2}, \"rss_mib\": {:.1}}}",
        records as f64 / seconds,
        bytes as f64 / seconds / (1 << 20) as f64,
        cpu / gib,
        cpu * 1e6 / records.max(1) as f64,
        at(0.5),
        at(0.99),
        at(0.999),
        options.pid.map_or(0.0, resident_mib),
    );
    Ok(())
}

type Measured = (u64, u64, Vec<Duration>);

/// Runs one client a connection and adds up what they did.
fn in_threads(
    options: &Options,
    work: fn(&Options, usize) -> Result<Measured, Failure>,
) -> Result<Measured, Failure> {
    let results: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..options.connections)
            .map(|n| scope.spawn(move || work(options, n)))
            .collect();
        started.into_iter().map(|thread| thread.join()).collect()
    });
    let mut sum: Measured = (0, 0, Vec::new());
    for result in results {
        let (records, bytes, latencies) = result.map_err(|_| "a client panicked")??;
        sum.0 += records;
        sum.1 += bytes;
        sum.2.extend(latencies);
    }
    Ok(sum)
}

fn topic_name(options: &Options) -> TopicName {
    TopicName(StrBytes::from_string(options.topic.clone()))
}

fn read_frame(stream: &mut impl Read) -> Result<Bytes, Failure> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame.into())
}

fn ask<R: Request>(options: &Options, version: i16, request: &R) -> Result<R::Response, Failure> {
    ask_at(&options.address, version, request)
}

/// Asks the first of some brokers.
fn ask_at<R: Request>(addresses: &str, version: i16, request: &R) -> Result<R::Response, Failure> {
    let address = addresses.split(',').next().unwrap_or_default();
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&frame::encode_request(version, 1, "load", request)?)?;
    Ok(frame::decode_response::<R>(version, read_frame(&mut stream)?)?.1)
}

fn create(options: &Options) -> Result<(), Failure> {
    if options.floor {
        return Ok(());
    }
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let configs = options
        .config
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .map(|(key, value)| {
            CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value)))
        });
    let topic = CreatableTopic::default()
        .with_name(topic_name(options))
        .with_num_partitions(options.partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let response = ask(
        options,
        5,
        &CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000),
    )?;
    if !matches!(response.topics[0].error_code, 0 | 36) {
        return Err(format!("cannot create the topic: {}", response.topics[0].error_code).into());
    }
    // Leaders may take a moment.
    for _ in 0..600 {
        let asked = MetadataRequestTopic::default().with_name(Some(topic_name(options)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let metadata = ask(options, 9, &request)?;
        let ready =
            |partition: &metaq_protocol::messages::metadata_response::MetadataResponsePartition| {
                partition.error_code == 0
            };
        if metadata.topics[0].partitions.len() == options.partitions as usize
            && metadata.topics[0].partitions.iter().all(ready)
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("the topic has no leaders".into())
}

/// A batch of `batch_bytes` at most, and how many records it has.
fn batch_of(options: &Options, seed: usize) -> Result<(Bytes, usize), Failure> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_millis() as i64;
    let records = (options.batch_bytes / (options.record_bytes + 20)).max(1);
    let mut value = vec![0u8; options.record_bytes];
    // Incompressible enough for nobody to cheat, cheap enough to make.
    let mut state = 88_172_645_463_325_252u64 + seed as u64;
    value.iter_mut().for_each(|byte| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    });
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder = builder.push(None, Some(&value), &[], now);
    }
    Ok((builder.finish()?, records))
}

fn produce_frame(options: &Options, partition: i32, batch: Bytes) -> Result<Bytes, Failure> {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch));
    let topic = TopicProduceData::default()
        .with_name(topic_name(options))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    Ok(frame::encode_request(PRODUCE_VERSION, 1, "load", &request)?)
}

/// The connection's own partitions, in turn: as many as there are a connection, one at least.
fn frames_of(options: &Options, n: usize) -> Result<(Vec<Bytes>, usize), Failure> {
    let (batch, records) = batch_of(options, n)?;
    let partitions = options.partitions as usize;
    let own = (n % partitions..partitions).step_by(options.connections);
    let frames = own.map(|partition| produce_frame(options, partition as i32, batch.clone()));
    Ok((frames.collect::<Result<_, _>>()?, records))
}

fn error_of(answer: Bytes) -> Result<i16, Failure> {
    let (_, response) = frame::decode_response::<ProduceRequest>(PRODUCE_VERSION, answer)?;
    Ok(response.responses[0].partition_responses[0].error_code)
}

/// Sends each once, until it is taken: a leader that was just made may not know it yet. Nothing of it is counted.
fn probe(stream: &mut TcpStream, answers: &mut impl Read, frames: &[Bytes]) -> Result<(), Failure> {
    for sent in frames {
        let mut tries = 0;
        loop {
            stream.write_all(sent)?;
            match error_of(read_frame(answers)?)? {
                0 => break,
                3 | 5 | 6 if tries < 600 => std::thread::sleep(Duration::from_millis(50)),
                code => return Err(format!("produce failed with error {code}").into()),
            }
            tries += 1;
        }
    }
    Ok(())
}

fn produce(options: &Options, n: usize) -> Result<Measured, Failure> {
    let (frames, records) = frames_of(options, n)?;
    let mut stream = TcpStream::connect(&options.address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    if !options.floor {
        probe(&mut stream, &mut answers, &frames)?;
    }
    let payload = (records * options.record_bytes) as u64;
    let requests = (options.total_bytes / options.connections as u64 / payload).max(1) as usize;
    let mut latencies = Vec::with_capacity(requests);
    let mut sent_at = std::collections::VecDeque::new();
    let mut frames = frames.iter().cycle();
    let mut written = 0;
    while latencies.len() < requests {
        while written < requests && sent_at.len() < options.in_flight {
            sent_at.push_back(Instant::now());
            stream.write_all(frames.next().ok_or("no partition")?)?;
            written += 1;
        }
        let answer = read_frame(&mut answers)?;
        latencies.extend(sent_at.pop_front().map(|at| at.elapsed()));
        if !options.floor && (latencies.len() == 1 || latencies.len() == requests) {
            match error_of(answer)? {
                0 => {}
                code => return Err(format!("produce failed with error {code}").into()),
            }
        }
    }
    Ok((
        (requests * records) as u64,
        requests as u64 * payload,
        latencies,
    ))
}

/// Fetches from one partition at an offset; nothing at its end.
fn fetch_at(
    options: &Options,
    stream: &mut TcpStream,
    partition: i32,
    offset: i64,
) -> Result<Bytes, Failure> {
    let wanted = FetchPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(options.fetch_bytes as i32);
    let topic = FetchTopic::default()
        .with_topic(topic_name(options))
        .with_partitions(vec![wanted]);
    let request = FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(options.fetch_bytes.max(4 << 20) as i32)
        .with_isolation_level(i8::from(options.committed))
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    stream.write_all(&frame::encode_request(FETCH_VERSION, 1, "load", &request)?)?;
    let answer = read_frame(stream)?;
    if options.floor {
        return Ok(answer);
    }
    let (_, response) = frame::decode_response::<FetchRequest>(FETCH_VERSION, answer)?;
    let answered = &response.responses[0].partitions[0];
    match answered.records.clone().unwrap_or_default() {
        records if answered.error_code == 0 => Ok(records),
        _ => Err(format!("error {} at offset {offset}", answered.error_code).into()),
    }
}

/// Reads a partition, again from its beginning behind its end, until the share of the total is had.
fn fetch(options: &Options, n: usize) -> Result<Measured, Failure> {
    let mut stream = TcpStream::connect(&options.address)?;
    stream.set_nodelay(true)?;
    let (mut offset, mut records, mut bytes) = (0i64, 0u64, 0u64);
    let mut latencies = Vec::new();
    let quota = options.total_bytes / options.connections as u64;
    while bytes < quota {
        let at = Instant::now();
        let got = fetch_at(options, &mut stream, n as i32 % options.partitions, offset)?;
        latencies.push(at.elapsed());
        if options.floor {
            bytes += got.len() as u64;
            continue;
        }
        if got.is_empty() {
            if offset == 0 {
                return Err(format!("nothing in {}", options.topic).into());
            }
            offset = 0;
            continue;
        }
        for batch in Batches::new(&got) {
            // The last one may be cut off.
            let Ok((header, whole)) = batch else { break };
            offset = header.last_offset() + 1;
            records += header.record_count as u64;
            bytes += whole.len() as u64;
        }
    }
    Ok((records, bytes, latencies))
}

/// User and system time of a process.
fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields.get(11).ok_or("stat")?.parse::<u64>()?
        + fields.get(12).ok_or("stat")?.parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}
