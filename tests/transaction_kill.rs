//! `kill -9` of a process that appends transactions and ends them, again and again over the same directory: what it said to have
//! appended is there, what is open holds readers of committed records back, and nothing that was aborted is read.
//!
//! The process is this binary, run for one of its tests. `METAQ_KILL_ROUNDS` says how often (10).

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use metaq::log::{
    AbortedTransaction, LogConfig, Outcome, ProducedBatch, Reach, ReadWanted, RealDisk, ToVerify,
    TransactionMarker, TransactionVersion,
};
use metaq::partition::{
    Acks, Identity, Isolation, Partition, PartitionState, Partitions, PartitionsOptions,
    TopicToOpen,
};
use metaq_protocol::batch::{BatchBuilder, BatchHeader, Batches, EndMarker};
use uuid::Uuid;

/// Says to the child where it appends.
const DIRECTORY: &str = "METAQ_TRANSACTION_KILL_DIRECTORY";
const CHILD: &str = "the_process_that_is_killed";
const PRODUCERS: i64 = 4;
const ROUNDS: u64 = 10;

fn open(dir: &Path) -> (Partitions, Arc<Partition>) {
    let options = PartitionsOptions::new(vec![dir.to_path_buf()]);
    let partitions = Partitions::open(Arc::new(RealDisk), &options).unwrap();
    for dir in partitions.data_dirs() {
        dir.claim("cluster", 0).unwrap();
        // What is there is whole as long as the system runs.
        dir.note_running().unwrap();
    }
    let identity = Identity {
        broker_id: 0,
        number: 0,
    };
    partitions.open_topics(vec![TopicToOpen {
        topic: "t".into(),
        topic_id: Uuid::from_u128(7),
        config: LogConfig {
            segment_bytes: 4000,
            index_interval_bytes: 500,
            ..LogConfig::default()
        },
        partitions: vec![(0, identity, PartitionState::alone(0))],
    }]);
    let partition = partitions.get("t", 0).unwrap();
    (partitions, partition)
}

/// One of the child's producers.
struct Sender {
    id: i64,
    epoch: i16,
    sequence: i32,
}

impl Sender {
    /// Goes on with what the partition knows of it; what is open is ended first.
    fn find(partition: &Partition, id: i64) -> Self {
        let known = partition.log().with_producers(|all| {
            let mut found = all.iter().filter(|(known, _)| *known == id);
            found.next().map(|(_, producer)| producer.epoch)
        });
        Self {
            id,
            epoch: known.unwrap_or(0),
            sequence: 0,
        }
    }

    fn send(&mut self, partition: &Partition) -> i64 {
        let to_verify = ToVerify {
            producer_id: self.id,
            producer_epoch: self.epoch,
            base_sequence: self.sequence,
            is_v2: true,
        };
        let verification = partition.begin_verification(&to_verify).unwrap();
        let builder = BatchBuilder::new().producer(self.id, self.epoch, self.sequence);
        let value = vec![7; 20 + (self.sequence as usize % 5) * 40];
        let builder = builder.transactional().push(None, Some(&value), &[], 1);
        let bytes = builder.finish().unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        let batches = vec![ProducedBatch { header, bytes }];
        let answer = partition.append_verified(Acks::All, batches, verification);
        self.sequence += 1;
        answer.blocking_recv().unwrap().unwrap().base_offset
    }

    fn end(&mut self, partition: &Partition, outcome: Outcome) -> i64 {
        (self.epoch, self.sequence) = (self.epoch + 1, 0);
        let answer = partition.append_marker(&TransactionMarker {
            producer_id: self.id,
            producer_epoch: self.epoch,
            coordinator_epoch: 0,
            outcome,
            version: TransactionVersion::V2,
        });
        answer.blocking_recv().unwrap().unwrap().base_offset
    }
}

/// Appends until it is killed, where it is told a directory. Each line says what is appended: a producer, what, and where.
#[test]
fn the_process_that_is_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let (_partitions, partition) = open(Path::new(&dir));
    let mut senders: Vec<_> = (0..PRODUCERS)
        .map(|id| Sender::find(&partition, id))
        .collect();
    let mut out = std::io::stdout();
    let mut say = |id: i64, what: &str, offset: i64| {
        writeln!(out, "appended {id} {what} {offset}").unwrap();
        out.flush().unwrap();
    };
    for sender in &mut senders {
        let offset = sender.end(&partition, Outcome::Abort);
        say(sender.id, "abort", offset);
    }
    for n in 0_usize.. {
        let sender = &mut senders[n * 7 % PRODUCERS as usize];
        // The first one's is open for long.
        let lasts = if sender.id == 0 { 40 } else { 3 };
        if sender.sequence < lasts {
            let offset = sender.send(&partition);
            say(sender.id, "data", offset);
            continue;
        }
        let (outcome, what) = match n % 3 {
            0 => (Outcome::Commit, "commit"),
            _ => (Outcome::Abort, "abort"),
        };
        let offset = sender.end(&partition, outcome);
        say(sender.id, what, offset);
    }
}

/// Runs the child until it has said so many lines, and kills it; what it said.
fn killed_after(dir: &Path, lines: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([CHILD, "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = |line: Result<String, _>| {
        let line: String = line.ok()?;
        let at = line.find("appended ")?;
        Some(line[at..].to_owned())
    };
    let mut heard: Vec<_> = out.by_ref().filter_map(said).take(lines).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it was gone; the last line may be cut short.
    heard.extend(
        out.filter_map(said)
            .filter(|line| line.split(' ').count() == 4),
    );
    assert!(heard.len() >= lines, "{heard:?}");
    heard
}

/// What of a log is read up to an end that an isolation level shows, with the aborted transactions.
fn read_all(
    partition: &Partition,
    isolation: Isolation,
) -> Vec<(BatchHeader, Option<EndMarker>, bool)> {
    let limits = partition.read_limits();
    let mut all = Vec::new();
    let mut offset = partition.log().ends().log_start;
    while offset < limits.readable_end(isolation) {
        let wanted = ReadWanted {
            offset,
            bytes_max: 3000,
            first_batch_whole: true,
        };
        let read = partition.read_below(&wanted, &limits, isolation, Reach::Disk);
        let (slice, aborted) = read.unwrap().expect("there is something");
        let mut bytes = vec![0; slice.bytes];
        slice.file.read_at(&mut bytes, slice.position).unwrap();
        for (header, seen) in seen_by_a_client(&bytes, &aborted) {
            let whole = &bytes[seen.1..];
            offset = header.last_offset() + 1;
            all.push((header, EndMarker::of_batch(whole), seen.0));
        }
    }
    all
}

/// Each batch, whether a client takes it to be committed (Java's CompletedFetch), and where it begins.
fn seen_by_a_client(
    bytes: &[u8],
    aborted: &[AbortedTransaction],
) -> Vec<(BatchHeader, (bool, usize))> {
    let mut aborted = aborted.to_vec();
    aborted.sort_by_key(|one| one.first_offset);
    let mut aborted = aborted.into_iter().peekable();
    let (mut left_out, mut seen, mut at) = (HashSet::new(), Vec::new(), 0);
    for (header, batch) in Batches::new(bytes).map_while(Result::ok) {
        while let Some(one) = aborted.next_if(|one| one.first_offset <= header.last_offset()) {
            left_out.insert(one.producer_id);
        }
        if header.is_control() {
            left_out.remove(&header.producer_id);
        }
        let is_seen = !header.is_control() && !left_out.contains(&header.producer_id);
        seen.push((header, (is_seen, at)));
        at += batch.len();
    }
    seen
}

fn check(partition: &Partition, said: &[String]) {
    let all = read_all(partition, Isolation::ReadUncommitted);
    let what = |marker: &Option<EndMarker>| match marker.map(|marker| marker.outcome) {
        None => "data",
        Some(Outcome::Abort) => "abort",
        Some(Outcome::Commit) => "commit",
    };
    let found: HashSet<String> = all
        .iter()
        .map(|(header, marker, _)| {
            let (id, offset) = (header.producer_id, header.base_offset);
            format!("appended {id} {} {offset}", what(marker))
        })
        .collect();
    for line in said {
        assert!(found.contains(line), "{line:?} is not there");
    }
    // What became of each batch's transaction, from what is there.
    let mut open: HashMap<i64, Vec<i64>> = HashMap::new();
    let mut committed = HashSet::new();
    for (header, marker, _) in &all {
        match marker {
            None => open
                .entry(header.producer_id)
                .or_default()
                .push(header.base_offset),
            Some(marker) => {
                let ended = open.remove(&header.producer_id).unwrap_or_default();
                if marker.outcome == Outcome::Commit {
                    committed.extend(ended);
                }
            }
        }
    }
    let first_open = open.values().map(|parts| parts[0]).min();
    let expected = first_open.unwrap_or(partition.high_watermark());
    assert_eq!(partition.last_stable_offset(), expected);
    for (header, marker, is_seen) in read_all(partition, Isolation::ReadCommitted) {
        let base = header.base_offset;
        let expected = marker.is_none() && committed.contains(&base);
        assert_eq!(is_seen, expected, "{base} of {}", header.producer_id);
    }
}

#[test]
fn transactions_survive_kills_whole_and_decided_as_they_were() {
    let rounds = std::env::var("METAQ_KILL_ROUNDS");
    let rounds = rounds.ok().and_then(|rounds| rounds.parse().ok());
    let dir = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    for round in 0..rounds.unwrap_or(ROUNDS) {
        said.extend(killed_after(dir.path(), 20 + (round as usize * 37) % 150));
        let (partitions, partition) = open(dir.path());
        check(&partition, &said);
        // Sometimes there is a clean close in between.
        if round % 3 == 2 {
            partitions.close();
            partitions
                .data_dirs()
                .for_each(|dir| dir.mark_clean().unwrap());
        }
    }
    assert!(said.len() > 100);
}
