//! A compacted topic over a disk that forgets and knows names (`disk.rs`): producers with and without transactions write and
//! delete keys, cleaners compact, the partition moves, its topic is deleted and made again; the process is killed, the power
//! goes, or a call fails, at any step of a pass.
//!
//! Whatever happens, a reader from the start finds the last value of every key that was acknowledged and is not lost by
//! promise, in its place, and no older value of a key that was deleted; nothing of an aborted transaction is ever shown; a
//! producer that sends its last batch again, or the next one, is answered as ever.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metaq::clock::WallClock;
use metaq::log::{
    Appended, DataDirError, LogConfig, LogError, Outcome, ProducedBatch, Reach, ReadWanted,
    ToVerify, TransactionMarker, TransactionVersion, verify_dir,
};
use metaq::observe::Events;
use metaq::partition::{
    Acks, Cleaner, CleanerOptions, Housekeeping, HousekeepingIntervals, Identity, Isolation,
    Partition, PartitionState, Partitions, PartitionsOptions, TopicToOpen, Workers,
};
use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, Batches, verify_crc};
use metaq_protocol::records::Records;
use uuid::Uuid;

use super::chance;
use super::disk::{Disk, damage_indexes, directory};
use super::random::Random;

const NOW: i64 = 1_700_000_000_000;
const TOPIC: &str = "t";
const DIRS: usize = 2;
const KEYS: u64 = 9;
const PRODUCERS: usize = 2;
/// Where tombstones stay.
const FOR_EVER_MS: i64 = 1 << 40;
/// How long a lock of a directory may be held by a process that does not know of it.
const LOCK_MAX: Duration = Duration::from_secs(20);
/// A step in which nothing happens any more.
const STEP_MAX: Duration = Duration::from_secs(3600);
/// Passes of all seeds that came to their end, so that a test can say that there were some.
pub static PASSES: AtomicU64 = AtomicU64::new(0);

/// A record that was sent.
#[derive(Clone, Copy)]
struct Sent {
    key: u64,
    is_tombstone: bool,
    transaction: Option<usize>,
    /// Where it was acknowledged to be.
    offset: Option<i64>,
}

/// A transaction, each of a producer of its own.
struct Transaction {
    sequence: i32,
    is_answered: bool,
    decided: Option<Outcome>,
    is_marked: bool,
}

/// A batch that is sent until it is answered.
struct Pending {
    batch: ProducedBatch,
    numbers: Vec<u64>,
}

/// A producer that is idempotent.
struct Producer {
    id: i64,
    sequence: i32,
    pending: Option<Pending>,
}

/// How whoever runs comes to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Killed,
    PowerLost,
    Stopped,
}

struct Broker {
    runtime: tokio::runtime::Runtime,
    partitions: Arc<Partitions>,
    cleaner: Cleaner,
    housekeeping: Housekeeping,
}

struct World<'a> {
    root: &'a Path,
    disk: Disk,
    random: Random,
    config: LogConfig,
    now: Arc<AtomicI64>,
    broker: Option<Broker>,
    topic: Uuid,
    sent: BTreeMap<u64, Sent>,
    transactions: Vec<Transaction>,
    producers: Vec<Producer>,
    producer_ids: i64,
    number: u64,
    end: End,
    trace: Vec<String>,
}

/// Runs one seed: what is wrong, and the trace that led there, when something is.
pub fn run(seed: u64, steps: usize) -> Result<(), String> {
    match chance::seeded(seed, || told(seed, steps)) {
        Some((None, _)) => Ok(()),
        Some((Some(failure), trace)) => {
            let trace = trace.join("\n  ");
            Err(format!("seed {seed}: {failure}\n  {trace}"))
        }
        None => Err(format!("seed {seed}: panicked")),
    }
}

/// What is wrong, and the trace.
pub fn told(seed: u64, steps: usize) -> (Option<String>, Vec<String>) {
    let dir = directory().expect("a directory can be made");
    let mut random = Random::new(seed);
    let config = LogConfig {
        segment_bytes: random.between(600, 3000) as u64,
        index_interval_bytes: random.between(50, 400) as u64,
        flush_messages: [1, 1, i64::MAX][random.below(3) as usize],
        compact: true,
        delete: false,
        delete_retention_ms: [500, FOR_EVER_MS][random.below(2) as usize],
        min_cleanable_millionths: [10_000, 300_000][random.below(2) as usize],
        file_delete_delay_ms: [0, 2000][random.below(2) as usize],
        ..LogConfig::default()
    };
    let mut world = World {
        root: dir.path(),
        disk: Disk::with_names(dir.path()),
        random,
        config,
        now: Arc::new(AtomicI64::new(NOW)),
        broker: None,
        topic: Uuid::from_u128(1),
        sent: BTreeMap::new(),
        transactions: Vec::new(),
        producers: Vec::new(),
        producer_ids: 1000,
        number: 0,
        end: End::Killed,
        trace: Vec::new(),
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.begin_producers();
        world.start()?;
        for _ in 0..steps {
            world.step()?;
        }
        world.end(End::Killed)?;
        world.end(End::Stopped)
    }));
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(what)) => Some(what),
        Err(panic) => Some(match panic.downcast_ref::<String>() {
            Some(text) => format!("panicked: {text}"),
            None => "panicked".to_owned(),
        }),
    };
    (failure, world.trace)
}

impl World<'_> {
    fn note(&mut self, what: String) {
        self.trace.push(what);
    }

    fn dirs(&self) -> Vec<PathBuf> {
        (0..DIRS).map(|n| self.root.join(format!("d{n}"))).collect()
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("it runs")
    }

    fn on_broker<T>(&self, work: impl Future<Output = T>) -> Result<T, String> {
        let within = async { tokio::time::timeout(STEP_MAX, work).await };
        let done = self.broker().runtime.block_on(within);
        done.map_err(|_| "nothing happens any more".to_owned())
    }

    fn partition(&self) -> Option<Arc<Partition>> {
        self.broker().partitions.get(TOPIC, 0).ok()
    }

    fn begin_producers(&mut self) {
        self.producers.clear();
        for _ in 0..PRODUCERS {
            self.producer_ids += 1;
            self.producers.push(Producer {
                id: self.producer_ids,
                sequence: 0,
                pending: None,
            });
        }
    }

    fn step(&mut self) -> Result<(), String> {
        let passed = self.random.between(0, 500);
        self.now.fetch_add(passed, Ordering::Relaxed);
        match self.random.below(100) {
            0..38 => self.append()?,
            38..54 => self.transact()?,
            54..76 => self.compact()?,
            76..79 => {
                let _ = self.broker().partitions.checkpoint();
            }
            79..82 => self.relocate()?,
            82..84 => self.delete_topic()?,
            84..90 => return self.end(End::Killed),
            90..96 => return self.end(End::PowerLost),
            _ => return self.end(End::Stopped),
        }
        if self.disk.has_ended() {
            return self.end(self.end);
        }
        let is_whole = self
            .partition()
            .is_some_and(|partition| partition.log().offline_reason().is_none());
        match is_whole {
            true => Ok(()),
            false => {
                self.note("it is offline".to_owned());
                self.end(End::Killed)
            }
        }
    }

    /// Something is to go wrong in the middle of what comes next, within some calls.
    fn arm(&mut self, calls_max: u64) {
        let calls = self.random.below(calls_max);
        match self.random.below(6) {
            0 | 1 => {
                self.end = [End::Killed, End::PowerLost][self.random.below(2) as usize];
                self.disk.end_in(calls);
                self.note(format!("{:?} in {calls} calls", self.end));
            }
            2 => {
                self.disk.fail_in(calls);
                self.note(format!("fails in {calls} calls"));
            }
            3 => {
                self.disk.fail_writeback_in(calls / 5);
                self.note(format!("a writeback fails in {} syncs", calls / 5));
            }
            _ => {}
        }
    }

    fn disarm(&mut self) {
        if !self.disk.has_ended() {
            self.disk.revive();
        }
    }

    /// A batch of some keys.
    fn next_batch(
        &mut self,
        (id, sequence): (i64, i32),
        transaction: Option<usize>,
    ) -> (ProducedBatch, Vec<u64>) {
        let mut builder = BatchBuilder::new().producer(id, 0, sequence);
        if transaction.is_some() {
            builder = builder.transactional();
        }
        let mut numbers = Vec::new();
        for _ in 0..self.random.between(1, 4) {
            self.number += 1;
            let key = self.random.below(KEYS);
            let is_tombstone = self.random.one_in(6);
            let name = self.number.to_string();
            let value = "x".repeat((self.number % 120) as usize);
            let value = (!is_tombstone).then_some(value.as_bytes());
            let headers: [(&[u8], Option<&[u8]>); 1] = [(b"n", Some(name.as_bytes()))];
            let at = self.now.load(Ordering::Relaxed);
            builder = builder.push(Some(key.to_string().as_bytes()), value, &headers, at);
            let sent = Sent {
                key,
                is_tombstone,
                transaction,
                offset: None,
            };
            self.sent.insert(self.number, sent);
            numbers.push(self.number);
        }
        let bytes = builder.finish().expect("plain batches always encode");
        let header = BatchHeader::parse(&bytes).expect("it was just built");
        (ProducedBatch { header, bytes }, numbers)
    }

    fn acknowledged(&mut self, numbers: &[u64], appended: &Appended) {
        for (n, number) in numbers.iter().enumerate() {
            if let Some(sent) = self.sent.get_mut(number) {
                sent.offset = Some(appended.base_offset + n as i64);
            }
        }
    }

    fn append(&mut self) -> Result<(), String> {
        if self.random.one_in(15) {
            self.arm(12);
        }
        for _ in 0..self.random.between(1, 5) {
            let at = self.random.below(PRODUCERS as u64) as usize;
            self.send(at)?;
        }
        self.disarm();
        Ok(())
    }

    /// A producer sends its next batch, or the last one again that was not answered.
    fn send(&mut self, at: usize) -> Result<(), String> {
        let Some(partition) = self.partition() else {
            return Ok(());
        };
        if self.producers[at].pending.is_none() {
            let (id, sequence) = (self.producers[at].id, self.producers[at].sequence);
            let (batch, numbers) = self.next_batch((id, sequence), None);
            self.producers[at].pending = Some(Pending { batch, numbers });
        }
        let pending = self.producers[at].pending.as_ref();
        let Some((batch, numbers)) = pending.map(|one| (one.batch.clone(), one.numbers.clone()))
        else {
            return Ok(());
        };
        let answer = self.on_broker(async { partition.append(Acks::All, vec![batch]).await })?;
        match answer {
            Ok(Ok(appended)) => {
                self.note(format!(
                    "{} records at {}",
                    numbers.len(),
                    appended.base_offset
                ));
                self.acknowledged(&numbers, &appended);
                self.producers[at].sequence += numbers.len() as i32;
                self.producers[at].pending = None;
                Ok(())
            }
            Ok(Err(LogError::Producer(error))) => {
                let id = self.producers[at].id;
                Err(format!("producer {id} does not go on: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// A transaction begins, goes on, or is ended.
    fn transact(&mut self) -> Result<(), String> {
        if self.random.one_in(15) {
            self.arm(12);
        }
        let open = self.transactions.iter().position(|one| !one.is_marked);
        let at = match open {
            Some(at) => at,
            None => {
                self.transactions.push(Transaction {
                    sequence: 0,
                    is_answered: true,
                    decided: None,
                    is_marked: false,
                });
                self.transactions.len() - 1
            }
        };
        let transaction = &self.transactions[at];
        let ends = transaction.decided.is_some()
            || !transaction.is_answered
            || transaction.sequence > 0 && self.random.one_in(2);
        match ends {
            true => self.end_transaction(at)?,
            false => self.send_in_transaction(at)?,
        }
        self.disarm();
        Ok(())
    }

    fn id_of(&self, at: usize) -> i64 {
        // None is used twice, whatever topic it was of.
        (self.topic.as_u128() as i64) * 1_000_000 + at as i64
    }

    fn send_in_transaction(&mut self, at: usize) -> Result<(), String> {
        let Some(partition) = self.partition() else {
            return Ok(());
        };
        let (id, sequence) = (self.id_of(at), self.transactions[at].sequence);
        let (batch, numbers) = self.next_batch((id, sequence), Some(at));
        let to_verify = ToVerify {
            producer_id: id,
            producer_epoch: 0,
            base_sequence: sequence,
            is_v2: false,
        };
        self.transactions[at].is_answered = false;
        let answer = self.on_broker(async {
            let verification = partition.begin_verification(&to_verify)?;
            let answer = partition.append_verified(Acks::All, vec![batch], verification);
            answer.await.unwrap_or(Err(LogError::NotLeader))
        })?;
        if let Ok(appended) = answer {
            self.note(format!(
                "{} records of {at} at {}",
                numbers.len(),
                appended.base_offset
            ));
            self.acknowledged(&numbers, &appended);
            let transaction = &mut self.transactions[at];
            transaction.sequence += numbers.len() as i32;
            transaction.is_answered = true;
        }
        Ok(())
    }

    fn end_transaction(&mut self, at: usize) -> Result<(), String> {
        let Some(partition) = self.partition() else {
            return Ok(());
        };
        let outcome = match self.random.one_in(2) {
            true => Outcome::Commit,
            false => Outcome::Abort,
        };
        let outcome = *self.transactions[at].decided.get_or_insert(outcome);
        let marker = TransactionMarker {
            producer_id: self.id_of(at),
            producer_epoch: 1,
            coordinator_epoch: 0,
            outcome,
            version: TransactionVersion::V2,
        };
        let answer = self.on_broker(async { partition.append_marker(&marker).await })?;
        let ended = match answer {
            Ok(Ok(_)) => true,
            // It was written before.
            Ok(Err(LogError::Producer(_))) => true,
            _ => false,
        };
        self.note(format!("{outcome:?} of {at}: {ended}"));
        self.transactions[at].is_marked = ended;
        Ok(())
    }

    /// Time goes by, and the cleaner works.
    fn compact(&mut self) -> Result<(), String> {
        let Some(partition) = self.partition() else {
            return Ok(());
        };
        if self.random.one_in(3) {
            self.arm(150);
        }
        let passed = self.random.between(0, 2000);
        self.now.fetch_add(passed, Ordering::Relaxed);
        let before = self.broker().cleaner.figures();
        self.on_broker(async { tokio::time::sleep(Duration::from_secs(10)).await })?;
        let after = self.broker().cleaner.figures();
        self.disarm();
        PASSES.fetch_add(after.passes - before.passes, Ordering::Relaxed);
        self.note(format!(
            "{} passes, {} failed; compacted up to {}, {} bytes less",
            after.passes - before.passes,
            after.failures - before.failures,
            partition.log().cleaned_until(),
            after.dropped_bytes - before.dropped_bytes
        ));
        for log in self.broker().cleaner.uncleanable() {
            self.note(format!("uncleanable: {}", log.reason));
        }
        let is_whole = !self.disk.has_ended() && partition.log().offline_reason().is_none();
        match is_whole {
            true => self.check(),
            false => Ok(()),
        }
    }

    fn relocate(&mut self) -> Result<(), String> {
        let Some(partition) = self.partition() else {
            return Ok(());
        };
        let to = self.dirs()[self.random.below(DIRS as u64) as usize].clone();
        let moved = self.on_broker(async {
            let partitions = &self.broker().partitions;
            partitions.move_to(&partition, &to)
        })?;
        moved.map_err(|error| error.to_string())?;
        self.note(format!("moved to {}", to.display()));
        self.check()
    }

    fn delete_topic(&mut self) -> Result<(), String> {
        let partitions = self.broker().partitions.clone();
        let left = self.on_broker(async { partitions.delete(&[self.topic]).await })?;
        if !left.is_empty() {
            return Err("a topic is not deleted".to_owned());
        }
        self.note("deleted".to_owned());
        self.topic = Uuid::from_u128(self.topic.as_u128() + 1);
        self.sent.clear();
        self.transactions.clear();
        self.begin_producers();
        self.open_topic();
        match self.partition() {
            Some(anew) if anew.log().cleaned_until() == 0 => Ok(()),
            _ => Err("a new topic is taken for compacted".to_owned()),
        }
    }

    fn open_topic(&mut self) {
        let identity = Identity {
            broker_id: 0,
            number: 0,
        };
        let topic = TopicToOpen {
            topic: TOPIC.into(),
            topic_id: self.topic,
            config: self.config.clone(),
            partitions: vec![(0, identity, PartitionState::alone(0))],
        };
        let _runtime = self.broker().runtime.enter();
        self.broker().partitions.open_topics(vec![topic]);
    }

    /// The broker comes to its end, and starts again: with something going wrong in the middle, and then without.
    fn end(&mut self, how: End) -> Result<(), String> {
        self.note(format!("{how:?}"));
        let mut lost = how == End::PowerLost;
        let mut stops = None;
        if how == End::Stopped {
            let broker = self.broker();
            let _runtime = broker.runtime.enter();
            broker.cleaner.stop();
            broker.housekeeping.stop();
            broker.partitions.close();
            stops = self.partition().map(|partition| partition.log().dir());
        }
        self.over(how);
        if let Some(dir) = stops {
            let verified = verify_dir(&dir).map_err(|error| error.to_string())?;
            if let Some(finding) = verified.findings.first() {
                return Err(format!("verify: {finding:?}"));
            }
        }
        for _ in 0..self.random.below(3) {
            let calls_max = [12, 60][self.random.below(2) as usize];
            self.arm(calls_max);
            let started = self.start();
            if self.disk.has_ended() {
                lost |= self.end == End::PowerLost;
                self.over(self.end);
                continue;
            }
            if let Err(why) = started {
                self.note(format!("it does not start: {why}"));
            }
            self.over(End::Killed);
        }
        self.disk.revive();
        self.start()?;
        self.disk.revive();
        if lost && self.config.flush_messages != 1 {
            self.forget_lost()?;
        }
        self.check()
    }

    /// What nobody synced may have gone with the power, the end of it first. Producers begin anew.
    fn forget_lost(&mut self) -> Result<(), String> {
        let partition = self.partition().ok_or("the partition is offline")?;
        let end = partition.log().ends().log_end.offset;
        for sent in self.sent.values_mut() {
            if sent.offset.is_some_and(|offset| offset >= end) {
                sent.offset = None;
            }
        }
        self.begin_producers();
        // Markers may be gone too: they are written again.
        for transaction in &mut self.transactions {
            transaction.is_answered = false;
            transaction.decided.get_or_insert(Outcome::Abort);
            transaction.is_marked = false;
        }
        for at in 0..self.transactions.len() {
            self.end_transaction(at)?;
        }
        Ok(())
    }

    /// Nothing of the broker is left but what is on the disk.
    fn over(&mut self, how: End) {
        if let Some(broker) = self.broker.take() {
            {
                let _runtime = broker.runtime.enter();
                broker.cleaner.stop();
                broker.housekeeping.stop();
            }
            drop(broker.cleaner);
            drop(broker.housekeeping);
            drop(broker.partitions);
            drop(broker.runtime);
        }
        self.disk.revive();
        if how != End::PowerLost {
            return;
        }
        self.note("the power is gone".to_owned());
        self.disk.lose_power(&mut self.random);
        for dir in self.dirs() {
            // The system does not run on.
            let _ = std::fs::remove_file(dir.join("metaq-running"));
            let partition = dir.join(format!("{TOPIC}-0"));
            if partition.is_dir() {
                let trusted = trusted_before(&dir, &partition);
                damage_indexes(&partition, trusted, &mut self.random);
            }
        }
    }

    fn start(&mut self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .map_err(|error| error.to_string())?;
        let now = self.now.clone();
        let clock = WallClock::told_by(move || now.load(Ordering::Relaxed));
        let options = PartitionsOptions {
            journal_file_bytes: 16 << 10,
            clock: clock.clone(),
            workers: Workers::Steps(Arc::new(|_| Duration::from_millis(1))),
            ..PartitionsOptions::new(self.dirs())
        };
        let deadline = Instant::now() + LOCK_MAX;
        let _within = runtime.enter();
        let opened = loop {
            match Partitions::open(Arc::new(self.disk.clone()), &options) {
                // A process that another test begins has all files of this one until it runs its own program.
                Err(DataDirError::Locked(_)) if Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                opened => break opened,
            }
        };
        let partitions = Arc::new(opened.map_err(|error| error.to_string())?);
        for dir in partitions.data_dirs() {
            dir.claim("cluster", 0).map_err(|error| error.to_string())?;
        }
        if self.disk.has_ended() {
            return Err("it has ended".to_owned());
        }
        let cleaner = CleanerOptions {
            backoff: Duration::from_secs(1),
            ..CleanerOptions::default()
        };
        let cleaner = Cleaner::start(partitions.clone(), cleaner, Events::new(clock));
        let intervals = HousekeepingIntervals {
            retention: Duration::from_secs(5),
            checkpoint: Duration::from_secs(3),
            producer_expiration_ms: i64::MAX,
            producer_bytes_max: usize::MAX,
        };
        let housekeeping = Housekeeping::start(partitions.clone(), intervals);
        let failed = |error: std::io::Error| error.to_string();
        let (cleaner, housekeeping) = (cleaner.map_err(failed)?, housekeeping.map_err(failed)?);
        drop(_within);
        self.broker = Some(Broker {
            runtime,
            partitions,
            cleaner,
            housekeeping,
        });
        self.open_topic();
        self.broker().partitions.settle();
        let _ = self.broker().partitions.checkpoint();
        Ok(())
    }

    /// Whether a record must be there for readers, or a later one of its key.
    fn is_sure(&self, sent: &Sent) -> bool {
        sent.offset.is_some()
            && sent.transaction.is_none_or(|at| {
                let transaction = &self.transactions[at];
                transaction.is_marked && transaction.decided == Some(Outcome::Commit)
            })
    }

    fn is_aborted(&self, sent: &Sent) -> bool {
        let decided = sent.transaction.map(|at| self.transactions[at].decided);
        decided.is_some_and(|decided| decided != Some(Outcome::Commit))
    }

    /// Holds what a reader from the start finds against what was acknowledged; nothing failed since the start.
    fn check(&mut self) -> Result<(), String> {
        let partition = self.broker().partitions.get(TOPIC, 0);
        let partition = partition.map_err(|error| format!("it is offline: {error}"))?;
        let all = self.read(&partition, Isolation::ReadUncommitted)?;
        let shown = self.read(&partition, Isolation::ReadCommitted)?;
        if let Some((offset, _)) = shown.iter().find(|(offset, _)| !all.contains_key(offset)) {
            return Err(format!("{offset} is committed, and not there"));
        }
        let (mut last, mut expected) = (BTreeMap::new(), BTreeMap::new());
        for (offset, number) in &shown {
            let sent = &self.sent[number];
            if self.is_aborted(sent) {
                return Err(format!("{offset} is shown, which was not committed"));
            }
            last.insert(sent.key, (*offset, *number));
        }
        let last_stable = partition.last_stable_offset();
        for (number, sent) in &self.sent {
            let Some(offset) = sent.offset else { continue };
            if offset >= last_stable {
                if all.get(&offset) != Some(number) {
                    return Err(format!("{offset} is not stable, and not there"));
                }
                continue;
            }
            if !self.is_sure(sent) {
                continue;
            }
            let at = (offset, *number);
            let entry = expected.entry(sent.key).or_insert(at);
            *entry = at.max(*entry);
        }
        for (key, (offset, number)) in expected {
            let found = last.get(&key);
            if found.is_some_and(|(found, _)| *found >= offset) {
                continue;
            }
            // By a tombstone that went in its time, which may be one that nobody was told of.
            let deletes = |sent: &Sent| {
                let is_unheard = sent.offset.is_none() && !self.is_aborted(sent);
                sent.key == key && sent.is_tombstone && is_unheard
            };
            let is_deleted = self.sent[&number].is_tombstone || self.sent.values().any(deletes);
            let may_be_gone = is_deleted && self.config.delete_retention_ms != FOR_EVER_MS;
            if found.is_some() || !may_be_gone {
                return Err(format!(
                    "of key {key} the last record at {offset} (number {number}) is not there: {found:?}"
                ));
            }
        }
        Ok(())
    }

    /// The records that a reader from the start finds, by their offsets.
    fn read(
        &self,
        partition: &Partition,
        isolation: Isolation,
    ) -> Result<BTreeMap<i64, u64>, String> {
        let limits = partition.read_limits();
        let (mut at, end) = (
            partition.log().ends().log_start,
            limits.readable_end(isolation),
        );
        let mut found = BTreeMap::new();
        while at < end {
            let wanted = ReadWanted {
                offset: at,
                bytes_max: 700,
                first_batch_whole: true,
            };
            let read = partition.read_below(&wanted, &limits, isolation, Reach::Disk);
            let read = read.map_err(|error| format!("reading {at}: {error}"))?;
            // What is left before the end may have been compacted.
            let Some((slice, aborted)) = read else { break };
            let mut bytes = vec![0; slice.bytes];
            let length = slice.file.read_at(&mut bytes, slice.position);
            if length.map_err(|error| error.to_string())? < bytes.len() {
                return Err(format!("the file ends in {at}"));
            }
            // As clients do it: what is open in the order of its first records.
            let mut aborted = aborted;
            aborted.sort_by_key(|one| std::cmp::Reverse(one.first_offset));
            let (mut open, from) = (BTreeSet::new(), at);
            for batch in Batches::new(&bytes) {
                let (header, whole) = match batch {
                    Ok(batch) => batch,
                    Err(error) if at == from => return Err(format!("at {at}: {error}")),
                    // It is cut off where the slice ends.
                    Err(_) => break,
                };
                if !verify_crc(whole) {
                    return Err(format!("the batch at {} is damaged", header.base_offset));
                }
                if header.last_offset() < at {
                    return Err(format!("read {at}, given {}", header.base_offset));
                }
                while let Some(one) = aborted.pop_if(|one| one.first_offset <= header.last_offset())
                {
                    open.insert(one.producer_id);
                }
                at = header.last_offset() + 1;
                if header.is_control() {
                    open.remove(&header.producer_id);
                    continue;
                }
                if header.is_transactional() && open.contains(&header.producer_id) {
                    continue;
                }
                self.collect(&header, whole, &mut found)?;
            }
        }
        Ok(found)
    }

    fn collect(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        found: &mut BTreeMap<i64, u64>,
    ) -> Result<(), String> {
        for record in Records::new(header, &batch[BATCH_HEADER_BYTES..]) {
            let record = record.map_err(|error| error.to_string())?;
            let offset = record.offset;
            let name = record.headers().next().and_then(|(_, value)| value);
            let name = name.and_then(|value| std::str::from_utf8(value).ok()?.parse::<u64>().ok());
            let number = name.ok_or_else(|| format!("a foreign record at {offset}"))?;
            let Some(sent) = self.sent.get(&number) else {
                return Err(format!("{number} at {offset} was not sent to this topic"));
            };
            let key = sent.key.to_string();
            if record.key != Some(key.as_bytes()) || record.value.is_none() != sent.is_tombstone {
                return Err(format!("{number} at {offset} is not what was sent"));
            }
            if sent.offset.is_some_and(|there| there != offset) {
                return Err(format!(
                    "{number} was acknowledged at {:?}, found at {offset}",
                    sent.offset
                ));
            }
            if let Some(other) = found.insert(offset, number) {
                return Err(format!("{other} and {number} are at {offset}"));
            }
        }
        Ok(())
    }
}

/// Base offset of the segment that the recovery point is in: indexes of those before were synced.
fn trusted_before(data: &Path, partition: &Path) -> i64 {
    let checkpoint = std::fs::read_to_string(data.join("recovery-point-offset-checkpoint"));
    let row = format!("{TOPIC} 0 ");
    let recovery_point = checkpoint.ok().and_then(|rows| {
        let of = |line: &str| line.strip_prefix(&row)?.parse::<i64>().ok();
        rows.lines().find_map(of)
    });
    let bases = std::fs::read_dir(partition).into_iter().flatten();
    let bases = bases.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        // One that takes the place of others counts from then on.
        let name = name.strip_suffix(".swap").unwrap_or(&name);
        name.strip_suffix(".log")?.parse::<i64>().ok()
    });
    let before = bases.filter(|base| *base <= recovery_point.unwrap_or(0));
    before.max().unwrap_or(0)
}
