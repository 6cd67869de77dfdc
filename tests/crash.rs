//! `kill -9` while everybody produces at full speed, again and again on one data directory: what was acknowledged is there,
//! in order, and of idempotent producers once; what was read stays; committed offsets never go back; the directory
//! verifies. METAQ_KILL_ROUNDS says how often (20 without), METAQ_KILL_SEED repeats a run's choices.

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "simulation/random.rs"]
mod random;
#[path = "crash/stream.rs"]
mod stream;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use common::{Client, name};
use metaq_protocol::frame;
use metaq_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use metaq_protocol::messages::{
    CreateTopicsRequest, GroupId, InitProducerIdRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use metaq_protocol::protocol::StrBytes;
use process::{Process, metaq, start_command};
use random::Random;
use stream::Stream;

const ROUNDS: u64 = 20;
/// Every so many rounds all of the history is read again, and the files are verified.
const WHOLE_EVERY: u64 = 10;
/// The topic that somebody reads all the while.
const FOLLOWED: &str = "idempotent-synced";
/// How long a round produces at most, ms.
const ROUND_MS_MAX: i64 = 600;
/// How long after its start a broker is killed again at most, ms: while it recovers, or just behind.
const RECOVERY_MS_MAX: i64 = 150;

/// Everything that happens by the clock happens often, so that kills hit it.
const SETTINGS: &[&str] = &[
    "log.segment.bytes=1048576",
    "log.index.interval.bytes=512",
    "log.retention.check.interval.ms=100",
    "log.segment.delete.delay.ms=50",
    "log.flush.offset.checkpoint.interval.ms=50",
];

fn number(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(default, |text| text.parse().unwrap())
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Offsets that somebody commits one after the other.
#[derive(Default)]
struct Commits {
    sent: AtomicI64,
    acknowledged: AtomicI64,
}

impl Commits {
    fn commit(&self, address: SocketAddr, stop: &AtomicBool) {
        let mut client = Client::connect(address);
        while !stop.load(Ordering::SeqCst) {
            let offset = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(0)
                .with_committed_offset(offset);
            let topic = OffsetCommitRequestTopic::default()
                .with_name(name("idempotent"))
                .with_partitions(vec![partition]);
            let request = OffsetCommitRequest::default()
                .with_group_id(GroupId(text("g")))
                .with_generation_id_or_member_epoch(-1)
                .with_topics(vec![topic]);
            let request = frame::encode_request(8, 1, "crash", &request).unwrap();
            if client.stream.write_all(&request).is_err() {
                return;
            }
            let Ok(answer) = stream::read_frame(&mut client.stream) else {
                return;
            };
            let (_, response) = frame::decode_response::<OffsetCommitRequest>(8, answer).unwrap();
            assert_eq!(response.topics[0].partitions[0].error_code, 0);
            self.acknowledged.store(offset, Ordering::SeqCst);
        }
    }

    fn check(&self, address: SocketAddr) {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(name("idempotent"))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_topics(Some(vec![topic]));
        let response = Client::connect(address).ask(7, &request);
        let committed = response.topics[0].partitions[0].committed_offset.max(0);
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let sent = self.sent.load(Ordering::SeqCst);
        assert!(
            (acknowledged..=sent).contains(&committed),
            "{committed} of {acknowledged}..={sent}"
        );
        // What was found once is not taken back either.
        self.acknowledged.store(committed, Ordering::SeqCst);
    }
}

fn create(client: &mut Client, topic: &str, configs: &[(&str, &str)]) {
    let config = |(key, value): &(&str, &str)| {
        CreatableTopicConfig::default()
            .with_name(text(key))
            .with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.iter().map(config).collect());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    assert_eq!(client.ask(5, &request).topics[0].error_code, 0);
}

/// A topic, the acks and the idempotence of its producer, and its configuration.
type Plan = (
    &'static str,
    i16,
    bool,
    &'static [(&'static str, &'static str)],
);

/// The topics, and who produces to each.
fn streams(address: SocketAddr, seed: u64) -> Vec<Stream> {
    const RETENTION: (&str, &str) = ("retention.bytes", "3000000");
    let mut client = Client::connect(address);
    let plans: [Plan; 6] = [
        ("idempotent", -1, true, &[RETENTION]),
        (FOLLOWED, -1, true, &[("flush.messages", "1")]),
        ("plain", -1, false, &[RETENTION]),
        (
            "plain-synced-now-and-then",
            -1,
            false,
            &[RETENTION, ("flush.messages", "1000"), ("flush.ms", "100")],
        ),
        ("acks-1", 1, false, &[RETENTION]),
        ("acks-0", 0, false, &[RETENTION]),
    ];
    let mut streams = Vec::new();
    for (n, (topic, acks, idempotent, configs)) in plans.into_iter().enumerate() {
        create(&mut client, topic, configs);
        let id = idempotent.then(|| {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            client.ask(4, &request).producer_id.0
        });
        let mut stream = Stream::new(topic, acks, id, seed + n as u64);
        stream.retention_bytes = configs.contains(&RETENTION).then_some(3_000_000);
        streams.push(stream);
    }
    streams
}

/// Everybody at full speed until `end` returns; it ends the broker.
fn at_full_speed(
    streams: &mut [Stream],
    commits: &Commits,
    address: SocketAddr,
    end: impl FnOnce(),
) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The synced topic, whose records are seen when they are synced; it keeps all of them.
        let followed = streams
            .iter()
            .find(|stream| stream.topic == FOLLOWED)
            .unwrap();
        let seen_end = followed.seen_end.clone();
        // Ends with an error when the broker is gone.
        scope.spawn(move || Stream::follow(FOLLOWED, &seen_end, address));
        scope.spawn(|| commits.commit(address, &stop));
        for stream in streams {
            scope.spawn(|| stream.produce(address, &stop));
        }
        end();
        stop.store(true, Ordering::SeqCst);
    });
}

fn verify(data: &Path) {
    let (code, out, errors) = metaq(&["log", "verify", data.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{out}{errors}");
}

#[test]
fn kill_9_at_full_speed_loses_and_doubles_nothing_acknowledged() {
    let rounds = number("METAQ_KILL_ROUNDS", ROUNDS);
    let seed = number("METAQ_KILL_SEED", common::now_ms() as u64);
    println!("METAQ_KILL_SEED={seed}");
    let mut random = Random::new(seed);
    let root = tempfile::tempdir().unwrap();
    let (data, log) = (root.path().join("data"), root.path().join("log"));
    let started = Instant::now();
    let mut streams = {
        let broker = Process::start_logging(&data, SETTINGS, &log);
        streams(broker.address(), seed)
    };
    let commits = Commits::default();
    let (mut clean, mut in_recovery) = (0, 0);
    for round in 1..=rounds {
        if random.one_in(4) {
            // Killed while it recovers from the last kill, or just behind.
            let mut again = start_command(&data, SETTINGS)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let pause = Duration::from_millis(random.between(0, RECOVERY_MS_MAX) as u64);
            std::thread::sleep(pause);
            again.kill().unwrap();
            again.wait().unwrap();
            in_recovery += 1;
        }
        let mut broker = Process::start_logging(&data, SETTINGS, &log);
        let address = broker.address();
        let whole = round % WHOLE_EVERY == 0;
        streams
            .iter_mut()
            .for_each(|stream| stream.check(address, whole));
        commits.check(address);
        let signal = match random.one_in(8) {
            true => "-TERM",
            false => "-KILL",
        };
        let lasts = Duration::from_millis(random.between(0, ROUND_MS_MAX) as u64);
        at_full_speed(&mut streams, &commits, address, || {
            std::thread::sleep(lasts);
            let status = broker.signal(signal);
            if signal == "-TERM" {
                assert_eq!(status.code(), Some(0));
            }
        });
        if signal == "-TERM" {
            clean += 1;
            verify(&data);
        }
        if whole {
            println!("{round} rounds, {:?}", started.elapsed());
        }
    }
    let mut broker = Process::start_logging(&data, SETTINGS, &log);
    let address = broker.address();
    let enough = AtomicBool::new(true);
    for stream in &mut streams {
        stream.check(address, true);
        // Idempotent producers send again what was not acknowledged.
        stream.produce(address, &enough);
        stream.check(address, true);
    }
    commits.check(address);
    assert_eq!(broker.signal("-TERM").code(), Some(0));
    verify(&data);
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(
        !said.contains("panicked") && !said.contains("offline"),
        "{said}"
    );
    for stream in &streams {
        println!(
            "{}: {} acknowledged, {} in flight were lost",
            stream.topic, stream.acknowledged_records, stream.lost_in_flight
        );
        assert!(stream.acks() == 0 || stream.acknowledged_records > 0);
    }
    println!(
        "{rounds} rounds: {clean} ended by SIGTERM, {in_recovery} killed again in recovery; {} commits",
        commits.acknowledged.load(Ordering::SeqCst)
    );
}
