//! A partition that moves between the data directories of its broker, over a disk that knows names (`disk.rs`): while it is
//! appended to, the process is killed, the power goes, or a call fails, at any step of a move, of a deletion of its topic, of
//! an archived segment, and of the start that follows.
//!
//! Whatever happens, after a start at which nothing fails the partition is online and is there once, has every record that was
//! acknowledged, each once, and begins no earlier than was answered to DeleteRecords; a topic whose deletion was confirmed
//! is not found again; and what retention dropped is in the archive.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use metaq::clock::WallClock;
use metaq::log::{
    Appended, DataDirError, LogConfig, LogError, ProducedBatch, Reach, ReadWanted, unlink_all,
    uuid_to_base64,
};
use metaq::partition::{
    Acks, Identity, InlineWrites, Isolation, Partition, PartitionState, Partitions,
    PartitionsOptions, TopicToOpen, Workers, with_inline_writes,
};
use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, Batches};
use metaq_protocol::records::Records;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::chance;
use super::disk::{Disk, damage_indexes, directory};
use super::random::Random;

const NOW: i64 = 1_700_000_000_000;
const TOPIC: &str = "t";
/// Data directories.
const DIRS: usize = 3;
/// Calls of the disk at the end of a move, in which the directories change their names.
const SWITCH_CALLS: u64 = 50;
/// How long a lock of a directory may be held by a process that does not know of it.
const LOCK_MAX: Duration = Duration::from_secs(20);
/// A step in which nothing happens any more.
const STEP_MAX: Duration = Duration::from_secs(3600);

type Answer = oneshot::Receiver<Result<Appended, LogError>>;

/// A batch that was sent.
#[derive(Clone, Copy)]
struct Sent {
    count: i64,
    /// Where it was acknowledged to be.
    base: Option<i64>,
}

/// What was promised of a topic.
struct Topic {
    id: Uuid,
    /// By the number that the records of a batch have.
    sent: BTreeMap<u64, Sent>,
    /// What was answered to DeleteRecords, and what was asked.
    deleted: i64,
    deleted_max: i64,
    /// What the log itself called synced.
    synced: i64,
}

impl Topic {
    fn new(id: Uuid) -> Self {
        Self {
            id,
            sent: BTreeMap::new(),
            deleted: 0,
            deleted_max: 0,
            synced: 0,
        }
    }

    fn answered(&mut self, number: u64, answer: &Result<Appended, LogError>) {
        if let (Ok(appended), Some(sent)) = (answer, self.sent.get_mut(&number)) {
            sent.base = Some(appended.base_offset);
        }
    }

    fn acknowledged(&self) -> impl Iterator<Item = (u64, i64, i64)> {
        let sent = self.sent.iter();
        sent.filter_map(|(number, sent)| Some((*number, sent.base?, sent.count)))
    }
}

/// How whoever runs comes to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Killed,
    PowerLost,
    Stopped,
}

struct Broker {
    /// Its tasks go with it.
    runtime: tokio::runtime::Runtime,
    partitions: Arc<Partitions>,
}

struct World<'a> {
    root: &'a Path,
    disk: Disk,
    random: Random,
    config: LogConfig,
    now: Arc<AtomicI64>,
    broker: Option<Broker>,
    topic: Topic,
    /// Whose deletion is not confirmed.
    leaving: BTreeSet<Uuid>,
    gone: BTreeSet<Uuid>,
    number: u64,
    /// Of the last move that was done.
    move_calls: u64,
    /// What ends comes to this end.
    end: End,
    trace: Vec<String>,
}

/// Runs one seed: what is wrong, and the trace that led there, when something is.
pub fn run(seed: u64, steps: usize) -> Result<(), String> {
    let told = chance::seeded(seed, || told(seed, steps));
    match told {
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
    let archives = random.one_in(4);
    let config = LogConfig {
        segment_bytes: random.between(800, 4000) as u64,
        index_interval_bytes: random.between(50, 400) as u64,
        flush_messages: [1, 1, 1, i64::MAX][random.below(4) as usize],
        retention_bytes: if archives { 3000 } else { -1 },
        archive_dir: archives.then(|| dir.path().join("archive")),
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    };
    let disk = Disk::with_names(dir.path());
    if random.one_in(2) {
        disk.refuse_links();
    }
    let mut world = World {
        root: dir.path(),
        disk,
        random,
        config,
        now: Arc::new(AtomicI64::new(NOW)),
        broker: None,
        topic: Topic::new(Uuid::from_u128(1)),
        leaving: BTreeSet::new(),
        gone: BTreeSet::new(),
        number: 0,
        move_calls: SWITCH_CALLS,
        end: End::Killed,
        trace: Vec::new(),
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.start()?;
        for _ in 0..steps {
            world.step()?;
        }
        world.end(End::Killed)
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

    /// Runs something in the broker.
    fn on_broker<T>(&self, work: impl Future<Output = T>) -> Result<T, String> {
        let within = async { tokio::time::timeout(STEP_MAX, work).await };
        let done = self.broker().runtime.block_on(within);
        done.map_err(|_| "nothing happens any more".to_owned())
    }

    fn partition(&self) -> Option<Arc<Partition>> {
        self.broker().partitions.get(TOPIC, 0).ok()
    }

    fn step(&mut self) -> Result<(), String> {
        self.now
            .fetch_add(self.random.between(0, 500), Ordering::Relaxed);
        match self.random.below(100) {
            0..45 => self.append()?,
            45..72 => self.relocate()?,
            72..77 => self.delete_records()?,
            77..82 => self.retain()?,
            82..88 => self.delete_topic()?,
            88..91 => self.checkpoint()?,
            91..94 => return self.end(End::Killed),
            94..97 => return self.end(End::PowerLost),
            _ => return self.end(End::Stopped),
        }
        if self.disk.has_ended() {
            return self.end(self.end);
        }
        let is_whole = self
            .partition()
            .is_some_and(|partition| partition.log().offline_reason().is_none());
        match is_whole && self.leaving.is_empty() {
            true => Ok(()),
            // Whoever looks after it starts it again.
            false => {
                self.note("it is offline, or something is left".to_owned());
                self.end(End::Killed)
            }
        }
    }

    /// Something is to go wrong in the middle of what comes next, within some calls.
    fn arm(&mut self, calls_max: u64) {
        self.arm_after(0, calls_max);
    }

    fn arm_after(&mut self, calls: u64, more_max: u64) {
        let calls = calls + self.random.below(more_max);
        match self.random.below(8) {
            4 => {
                let more = self.random.below(4);
                self.disk.fail_twice_in(calls, more);
                self.note(format!("fails in {calls} calls, and {more} later"));
            }
            5 => {
                self.end = [End::Killed, End::PowerLost][self.random.below(2) as usize];
                let more = self.random.between(1, 12) as u64;
                self.disk.fail_in(calls);
                self.disk.end_in(calls + more);
                self.note(format!(
                    "fails in {calls} calls, {:?} {more} later",
                    self.end
                ));
            }
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

    /// How many calls there were.
    fn disarm(&mut self) -> u64 {
        match self.disk.has_ended() {
            true => 0,
            false => self.disk.revive(),
        }
    }

    fn next_batch(&mut self) -> (u64, Vec<ProducedBatch>) {
        self.number += 1;
        let (number, count) = (self.number, self.random.between(1, 4));
        let mut builder = BatchBuilder::new();
        for n in 0..count {
            let value = format!("{number} {n} {}", "x".repeat((number % 90) as usize));
            builder = builder.push(None, Some(value.as_bytes()), &[], NOW);
        }
        let bytes = builder.finish().expect("plain batches always encode");
        let header = BatchHeader::parse(&bytes).expect("it was just built");
        let sent = Sent { count, base: None };
        self.topic.sent.insert(number, sent);
        (number, vec![ProducedBatch { header, bytes }])
    }

    fn append(&mut self) -> Result<(), String> {
        let Some(partition) = self.partition() else {
            return Ok(());
        };
        if self.random.one_in(12) {
            self.arm(12);
        }
        let batches: Vec<_> = (0..self.random.between(1, 4))
            .map(|_| self.next_batch())
            .collect();
        let answers: Vec<(u64, Answer)> = {
            let _runtime = self.broker().runtime.enter();
            let append = |(number, batch)| (number, partition.append(Acks::All, batch));
            batches.into_iter().map(append).collect()
        };
        let acknowledged = self.await_answers(answers)?;
        self.disarm();
        let end = partition.log().ends().log_end.offset;
        self.note(format!("append: {acknowledged} acknowledged, end {end}"));
        Ok(())
    }

    /// The partition moves; sometimes it is appended to in the middle of a sync.
    fn relocate(&mut self) -> Result<(), String> {
        let Some(partition) = self.partition() else {
            return Ok(());
        };
        self.disk.revive();
        let to = self.dirs()[self.random.below(DIRS as u64) as usize].clone();
        if to.as_path() == partition.log().dir().parent().unwrap_or(Path::new("")) {
            return Ok(());
        }
        self.note(format!("move to {}", to.display()));
        // Most calls copy; the switch comes last.
        match self.random.one_in(3) {
            true => self.arm(160),
            false => self.arm_after(self.move_calls.saturating_sub(SWITCH_CALLS), SWITCH_CALLS),
        }
        let queued = self.append_during_syncs(&partition);
        let moved = self.on_broker(async {
            self.broker()
                .partitions
                .move_to(&partition, &to)
                .map_err(|error| error.to_string())
        });
        self.disk.during_syncs(None);
        moved??;
        let queued = std::mem::take(&mut *queued.lock());
        self.await_answers(queued)?;
        let calls = self.disarm();
        let at = self.partition().map(|partition| partition.log().dir());
        if at.as_ref().is_some_and(|at| at.parent() == Some(&*to)) && calls > 0 {
            self.move_calls = calls;
        }
        self.note(format!("it is in {at:?}"));
        Ok(())
    }

    /// In some of the syncs that come, as a connection does it that writes itself.
    fn append_during_syncs(
        &mut self,
        partition: &Arc<Partition>,
    ) -> Arc<Mutex<Vec<(u64, Answer)>>> {
        let queued = Arc::new(Mutex::new(Vec::new()));
        let batches = self.random.below(4);
        let batches: Vec<_> = (0..batches).map(|_| self.next_batch()).collect();
        let from = self.random.below(12) as i64;
        let (left, countdown) = (Mutex::new(batches), AtomicI64::new(from));
        let (answers, partition) = (queued.clone(), partition.clone());
        self.disk.during_syncs(Some(Arc::new(move |_| {
            if countdown.fetch_sub(1, Ordering::Relaxed) > 0 {
                return;
            }
            let Some((number, batch)) = left.lock().pop() else {
                return;
            };
            let mut batch = Some(batch);
            let append = pin!(std::future::poll_fn(|_| {
                let batch = batch.take().unwrap_or_default();
                Poll::Ready(partition.append(Acks::All, batch))
            }));
            let mut at_once = pin!(with_inline_writes(append));
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(answer) = at_once.as_mut().poll(&mut cx) {
                answers.lock().push((number, answer));
            }
        })));
        queued
    }

    /// How many were acknowledged.
    fn await_answers(&mut self, answers: Vec<(u64, Answer)>) -> Result<usize, String> {
        let answers = self.on_broker(async {
            let mut all = Vec::new();
            for (number, answer) in answers {
                all.push((number, answer.await));
            }
            all
        })?;
        let mut acknowledged = 0;
        for (number, answer) in answers {
            if let Ok(answer) = answer {
                acknowledged += usize::from(answer.is_ok());
                self.topic.answered(number, &answer);
            }
        }
        Ok(acknowledged)
    }

    fn delete_records(&mut self) -> Result<(), String> {
        let Some(partition) = self
            .partition()
            .filter(|_| self.config.archive_dir.is_none())
        else {
            return Ok(());
        };
        if self.random.one_in(4) {
            self.arm(12);
        }
        let ends = partition.log().ends();
        let to = self
            .random
            .between(ends.log_start, partition.high_watermark());
        let partitions = self.broker().partitions.clone();
        let deleted = self.on_broker(async {
            let moved = partitions.delete_records(&partition, to).await;
            moved.is_ok() && partitions.checkpoint_aside().await.is_ok()
        })?;
        self.topic.deleted_max = self.topic.deleted_max.max(to);
        if deleted {
            self.topic.deleted = self.topic.deleted.max(to);
        }
        self.disarm();
        self.note(format!("delete records before {to}: {deleted}"));
        Ok(())
    }

    /// Puts what is due into the archive and drops it.
    fn retain(&mut self) -> Result<(), String> {
        let Some(partition) = self.partition() else {
            return Ok(());
        };
        let Some(root) = &self.config.archive_dir else {
            return Ok(());
        };
        let dir = root.join(format!("{TOPIC}-0-{}", uuid_to_base64(self.topic.id)));
        self.arm(30);
        let (log, now) = (partition.log(), self.now.load(Ordering::Relaxed));
        let high_watermark = partition.high_watermark();
        let due = log.due_for_archive(now, high_watermark).unwrap_or_default();
        let archived = log.archive(&due, &dir);
        if let Ok(dropped) = log.retain(now, high_watermark) {
            unlink_all(&dropped);
        }
        let from = log.ends().log_start;
        self.disarm();
        self.note(format!("archive {}: {archived:?}, from {from}", due.len()));
        Ok(())
    }

    /// The topic is deleted, and another one gets its name.
    fn delete_topic(&mut self) -> Result<(), String> {
        let old = self.topic.id;
        self.arm(30);
        let partitions = self.broker().partitions.clone();
        let left = self.on_broker(async { partitions.delete(&[old]).await })?;
        // Who ended cannot say so.
        match left.is_empty() && !self.disk.has_ended() {
            true => self.gone.insert(old),
            false => self.leaving.insert(old),
        };
        self.note(format!("delete {old}: left {:?}", self.leaving));
        self.topic = Topic::new(Uuid::from_u128(old.as_u128() + 1));
        if !self.disk.has_ended() {
            self.open_topic();
        }
        self.disarm();
        Ok(())
    }

    fn open_topic(&mut self) {
        let identity = Identity {
            broker_id: 0,
            number: 0,
        };
        let topic = TopicToOpen {
            topic: TOPIC.into(),
            topic_id: self.topic.id,
            config: self.config.clone(),
            partitions: vec![(0, identity, PartitionState::alone(0))],
        };
        let _runtime = self.broker().runtime.enter();
        self.broker().partitions.open_topics(vec![topic]);
    }

    fn checkpoint(&mut self) -> Result<(), String> {
        let _ = self.broker().partitions.checkpoint();
        Ok(())
    }

    /// The broker comes to its end, and starts again: with something going wrong in the middle, and then without.
    fn end(&mut self, how: End) -> Result<(), String> {
        self.note(format!("{how:?}"));
        if let Some(partition) = self.partition() {
            self.topic.synced = self.topic.synced.max(partition.log().ends().synced_end);
        }
        if how == End::Stopped {
            let _runtime = self.broker().runtime.enter();
            self.broker().partitions.close();
        }
        self.over(how);
        for _ in 0..self.random.below(3) {
            let calls_max = [12, 40][self.random.below(2) as usize];
            self.arm(calls_max);
            let started = self.start();
            if self.disk.has_ended() {
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
        self.check()
    }

    /// Nothing of the broker is left but what is on the disk.
    fn over(&mut self, how: End) {
        if let Some(broker) = self.broker.take() {
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

    /// As a broker starts: directories, what was deleted, and then its topics.
    fn start(&mut self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .map_err(|error| error.to_string())?;
        let now = self.now.clone();
        let mut inline_writes = InlineWrites::new(1);
        inline_writes.time_max = STEP_MAX;
        let options = PartitionsOptions {
            journal_file_bytes: 16 << 10,
            clock: WallClock::told_by(move || now.load(Ordering::Relaxed)),
            workers: Workers::Steps(Arc::new(|_| Duration::from_millis(1))),
            inline_writes,
            ..PartitionsOptions::new(self.dirs())
        };
        let deadline = Instant::now() + LOCK_MAX;
        let opened = loop {
            let _runtime = runtime.enter();
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
        for found in partitions.found() {
            let id = found.topic_id;
            if let Some(id) = id.filter(|id| self.gone.contains(id)) {
                return Err(format!("topic {id} came back in {}", found.path.display()));
            }
            let is_synced =
                self.config.flush_messages == 1 && self.topic.acknowledged().next().is_some();
            if id.is_none() && self.leaving.is_empty() && is_synced {
                let path = found.path.display();
                return Err(format!("{path} has synced records, and lost its id"));
            }
            // One without an id is whose deletion is not confirmed.
            if id.map_or(!self.leaving.is_empty(), |id| self.leaving.contains(&id)) {
                let removed = partitions.remove_found(&found);
                removed.map_err(|error| format!("{} stays: {error}", found.path.display()))?;
            }
        }
        if self.disk.has_ended() {
            return Err("it has ended".to_owned());
        }
        self.gone.append(&mut self.leaving);
        self.broker = Some(Broker {
            runtime,
            partitions,
        });
        self.open_topic();
        self.broker().partitions.settle();
        let _ = self.broker().partitions.checkpoint();
        Ok(())
    }

    /// Holds what is there against what was promised; nothing failed since the start.
    fn check(&mut self) -> Result<(), String> {
        let partition = match self.broker().partitions.get(TOPIC, 0) {
            Ok(partition) => partition,
            Err(error) => return Err(format!("after a start at which nothing failed: {error}")),
        };
        for dir in self.dirs() {
            for entry in std::fs::read_dir(&dir).map_err(|error| error.to_string())? {
                let path = entry.map_err(|error| error.to_string())?.path();
                if path.is_dir() && path != partition.log().dir() {
                    return Err(format!("{} is left", path.display()));
                }
            }
        }
        let ends = partition.log().ends();
        let (start, end) = (ends.log_start, ends.log_end.offset);
        self.note(format!(
            "{} from {start} to {end}",
            partition.log().dir().display()
        ));
        if start < self.topic.deleted {
            return Err(format!("it begins at {start}, before what was deleted"));
        }
        if self.config.archive_dir.is_none() && start > self.topic.deleted_max {
            return Err(format!("it begins at {start}, after what was deleted"));
        }
        let found = read_all(&partition, start, end)?;
        self.hold_against(&found, start, end)?;
        self.check_archive(start)
    }

    fn hold_against(
        &mut self,
        found: &BTreeMap<u64, (i64, i64)>,
        start: i64,
        end: i64,
    ) -> Result<(), String> {
        for (number, (base, count)) in found {
            match self.topic.sent.get(number) {
                Some(sent) if sent.count == *count => {}
                _ => {
                    return Err(format!(
                        "batch {number} at {base} was not sent to this topic"
                    ));
                }
            }
        }
        let promises = self.config.flush_messages == 1;
        let mut lost = Vec::new();
        for (number, base, count) in self.topic.acknowledged() {
            if base + count <= start || found.get(&number) == Some(&(base, count)) {
                continue;
            }
            // What nobody synced may go with the power, the end of it first.
            if promises || base + count <= self.topic.synced.max(end) {
                return Err(format!(
                    "batch {number} was acknowledged at {base}: {start}..{end}"
                ));
            }
            lost.push(number);
        }
        for number in lost {
            self.topic.sent.remove(&number);
        }
        Ok(())
    }

    /// What retention dropped is there, and all of it.
    fn check_archive(&self, start: i64) -> Result<(), String> {
        let Some(root) = &self.config.archive_dir else {
            return Ok(());
        };
        let dir = root.join(format!("{TOPIC}-0-{}", uuid_to_base64(self.topic.id)));
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "log") {
                let bytes = std::fs::read(entry.path()).map_err(|error| error.to_string())?;
                collect(&bytes, &mut found)?;
            }
        }
        for (number, base, count) in self.topic.acknowledged() {
            if base < start && found.get(&number) != Some(&(base, count)) {
                return Err(format!("batch {number} of {base} is not in the archive"));
            }
        }
        Ok(())
    }
}

/// The batches of a log by the number of their records: where, and how many.
fn read_all(
    partition: &Partition,
    start: i64,
    end: i64,
) -> Result<BTreeMap<u64, (i64, i64)>, String> {
    let (mut at, mut found) = (start, BTreeMap::new());
    while at < end {
        let wanted = ReadWanted {
            offset: at,
            bytes_max: 1 << 20,
            first_batch_whole: true,
        };
        let slice = partition
            .read(&wanted, Isolation::ReadUncommitted, Reach::Disk)
            .map_err(|error| format!("reading {at}: {error}"))?
            .ok_or_else(|| format!("nothing at {at}"))?;
        let mut bytes = vec![0; slice.bytes];
        let read = slice.file.read_at(&mut bytes, slice.position);
        if read.map_err(|error| error.to_string())? < bytes.len() {
            return Err(format!("the file ends in {at}"));
        }
        at = collect(&bytes, &mut found)?.ok_or_else(|| format!("no batch at {at}"))?;
    }
    Ok(found)
}

/// Adds the batches of some bytes; where the next one begins.
fn collect(bytes: &[u8], found: &mut BTreeMap<u64, (i64, i64)>) -> Result<Option<i64>, String> {
    let mut next = None;
    for batch in Batches::new(bytes) {
        let (header, whole) = batch.map_err(|error| error.to_string())?;
        if !metaq_protocol::batch::verify_crc(whole) {
            return Err(format!("the batch at {} is damaged", header.base_offset));
        }
        let record = Records::new(&header, &whole[BATCH_HEADER_BYTES..]).next();
        let value = record.and_then(|record| record.ok()?.value.map(|value| value.to_vec()));
        let text = String::from_utf8(value.unwrap_or_default()).unwrap_or_default();
        let number = text.split(' ').next().and_then(|word| word.parse().ok());
        let number = number.ok_or_else(|| format!("foreign records at {}", header.base_offset))?;
        let here = (header.base_offset, i64::from(header.record_count));
        if let Some(there) = found.insert(number, here).filter(|there| *there != here) {
            return Err(format!("batch {number} is at {there:?} and {here:?}"));
        }
        next = Some(header.last_offset() + 1);
    }
    Ok(next)
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
        name.strip_suffix(".log")?.parse::<i64>().ok()
    });
    let before = bases.filter(|base| *base <= recovery_point.unwrap_or(0));
    before.max().unwrap_or(0)
}
