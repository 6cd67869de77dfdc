//! The threads that do what is due by the clock: one has what `flush.ms` says synced, one does retention, producer expiry,
//! checkpoints, delayed removal of deleted files, closing of idle files.
//!
//! Tests: tests/power.rs, tests/config.rs.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::executor::Workers;
use super::handle::Partition;
use super::producer_room::keep_within;
use super::registry::Partitions;
use crate::log::{Disk, LogConfig, LogError, Segment, capped_name, unlink_all, uuid_to_base64};
use crate::schedule::Schedule;
use crate::supervisor::Supervisor;

/// How often the clock is looked at; the grain of `flush.ms`.
const TICK: Duration = Duration::from_millis(100);
/// How often files of sealed segments that are not read are closed.
const IDLE_FILES_INTERVAL: Duration = Duration::from_secs(300);

/// How often producers are counted, and names made durable.
const PRODUCERS_INTERVAL: Duration = Duration::from_secs(1);

/// How long retention waits for a sync before it waits for its next time.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Intervals of the jobs.
#[derive(Clone, Copy, Debug)]
pub struct HousekeepingIntervals {
    /// `log.retention.check.interval.ms`.
    pub retention: Duration,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub checkpoint: Duration,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
    /// `producer.ids.max.bytes`.
    pub producer_bytes_max: usize,
}

#[derive(Default)]
struct Shared {
    stopping: Mutex<bool>,
    wake: Condvar,
}

/// The running threads.
pub struct Housekeeping {
    shared: Arc<Shared>,
    intervals: Arc<Mutex<HousekeepingIntervals>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Where there are no threads.
    task: Option<AbortHandle>,
}

/// Files to unlink when their delay is over.
enum PendingUnlink {
    Segments(Vec<Arc<Segment>>),
    Directory(PathBuf),
}

impl Housekeeping {
    /// Starts the threads. `deleted_dirs` yields partition directories that were set aside.
    pub fn start(
        partitions: Arc<Partitions>,
        intervals: HousekeepingIntervals,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let intervals = Arc::new(Mutex::new(intervals));
        let mut housekeeper = Housekeeper::new(partitions, intervals.clone());
        if let Workers::Steps(_) = housekeeper.partitions.workers() {
            let mut flusher = Flusher::new(housekeeper.partitions.clone());
            let task = async move {
                loop {
                    tokio::time::sleep(TICK).await;
                    flusher.run_due();
                    housekeeper.run_due();
                }
            };
            return Ok(Self {
                shared,
                intervals,
                threads: Mutex::default(),
                task: Some(tokio::spawn(task).abort_handle()),
            });
        }
        let mut flusher = Flusher::new(housekeeper.partitions.clone());
        let supervisor = housekeeper.partitions.supervisor().clone();
        let housekeeping = Self {
            shared,
            intervals,
            threads: Mutex::default(),
            task: None,
        };
        housekeeping.spawn("flush", supervisor.clone(), move || flusher.run_due())?;
        housekeeping.spawn("housekeeping", supervisor, move || housekeeper.run_due())?;
        Ok(housekeeping)
    }

    fn spawn(
        &self,
        name: &'static str,
        supervisor: Supervisor,
        mut run_due: impl FnMut() + Send + 'static,
    ) -> std::io::Result<()> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || {
            supervisor.run(name, || run(&shared, &mut run_due), || ());
        })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// How often what is done; may be changed.
    pub fn intervals(&self) -> Arc<Mutex<HousekeepingIntervals>> {
        self.intervals.clone()
    }

    /// Ends the threads.
    pub fn stop(&self) {
        *self.shared.stopping.lock() = true;
        self.shared.wake.notify_all();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn run(shared: &Shared, run_due: &mut dyn FnMut()) {
    loop {
        {
            let mut stopping = shared.stopping.lock();
            if !*stopping {
                shared.wake.wait_for(&mut stopping, TICK);
            }
            if *stopping {
                return;
            }
        }
        run_due();
    }
}

/// The duties, and when each was last done.
struct Housekeeper {
    partitions: Arc<Partitions>,
    intervals: Arc<Mutex<HousekeepingIntervals>>,
    retained: Instant,
    checkpointed: Instant,
    idle: Instant,
    counted: Instant,
    generation: u64,
    unlinks: Vec<(i64, PendingUnlink)>,
    schedules: Schedules,
    archive: Archive,
    retries: Vec<RetryRetention>,
}

impl Housekeeper {
    fn new(partitions: Arc<Partitions>, intervals: Arc<Mutex<HousekeepingIntervals>>) -> Self {
        let now = Instant::now();
        Self {
            partitions,
            intervals,
            retained: now,
            checkpointed: now,
            idle: now,
            counted: now,
            generation: 0,
            unlinks: Vec::new(),
            schedules: Schedules::default(),
            archive: Archive::default(),
            retries: Vec::new(),
        }
    }

    fn run_due(&mut self) {
        let Self {
            partitions,
            unlinks,
            ..
        } = self;
        let now = partitions.clock().now_ms();
        let intervals = *self.intervals.lock();
        let generation = partitions.generation();
        if generation != self.generation {
            self.generation = generation;
            self.schedules.follow(partitions, now);
        }
        for (aside, delay_ms) in partitions.take_set_aside() {
            unlinks.push((
                now.saturating_add(delay_ms),
                PendingUnlink::Directory(aside),
            ));
        }
        let regularly = self.retained.elapsed() >= intervals.retention;
        if regularly {
            self.retained = Instant::now();
        }
        let scheduled = self.schedules.due(now);
        if regularly || !scheduled.is_empty() {
            let due = Due {
                regularly,
                scheduled,
                producer_expiration_ms: intervals.producer_expiration_ms,
            };
            let to_archive = retain(partitions, now, &due, unlinks, &mut self.retries);
            self.archive.add(to_archive);
        }
        let (synced, waiting) = std::mem::take(&mut self.retries)
            .into_iter()
            .partition::<Vec<_>, _>(RetryRetention::is_due);
        self.retries = waiting;
        self.retries.retain(|retry| retry.given_up > Instant::now());
        for retry in synced {
            self.archive
                .add(apply(&retry.partition, now, unlinks).into_iter().collect());
        }
        for partition in self.archive.take_done(partitions.workers()) {
            drop_old(&partition, now, unlinks);
        }
        for (segments, delay_ms) in partitions.take_dropped() {
            unlinks.push((
                now.saturating_add(delay_ms),
                PendingUnlink::Segments(segments),
            ));
        }
        remove_due(partitions.disk(), unlinks, now);
        if self.counted.elapsed() >= PRODUCERS_INTERVAL {
            self.counted = Instant::now();
            keep_within(partitions, intervals.producer_bytes_max);
            name_ahead(partitions);
        }
        if self.checkpointed.elapsed() >= intervals.checkpoint {
            self.checkpointed = Instant::now();
            // Said already; it is tried again at the next pass.
            let _ = partitions.checkpoint();
        }
        if self.idle.elapsed() >= IDLE_FILES_INTERVAL {
            self.idle = Instant::now();
            each(partitions, |partition| partition.log().close_idle_files());
        }
    }
}

fn each(partitions: &Partitions, mut work: impl FnMut(&Arc<Partition>)) {
    for topic in partitions.topics() {
        topic.online().for_each(&mut work);
    }
}

/// What is due by `flush.ms`, on a thread of its own: it waits neither for retention nor for the removal of files.
struct Flusher {
    partitions: Arc<Partitions>,
    generation: u64,
    /// Partitions of topics with `flush.ms`; ten thousand without it cost nothing.
    flushed: Vec<Arc<Partition>>,
}

impl Flusher {
    fn new(partitions: Arc<Partitions>) -> Self {
        Self {
            partitions,
            generation: 0,
            flushed: Vec::new(),
        }
    }

    fn run_due(&mut self) {
        let generation = self.partitions.generation();
        if generation != self.generation {
            self.generation = generation;
            self.flushed.clear();
            each(&self.partitions, |partition| {
                if partition.log().config().flush_ms != i64::MAX {
                    self.flushed.push(partition.clone());
                }
            });
        }
        let now = self.partitions.clock().now_ms();
        for partition in &self.flushed {
            if partition.log().unsynced_for_ms(now) >= partition.log().config().flush_ms {
                partition.sync_soon();
            }
        }
    }
}

/// Makes the names of logs durable before they roll.
fn name_ahead(partitions: &Partitions) {
    each(partitions, |partition| {
        if let Err(error) = partition.log().name_ahead() {
            // It is tried again, at the latest when the log rolls.
            tracing::debug!(topic = %partition.topic(), partition = partition.index(), %error, "cannot make the names of a log durable");
        }
    });
}

/// When which topics' retention is applied.
#[derive(Default)]
struct Schedules {
    /// Next time of each schedule that a topic has, ms.
    next: Vec<(Arc<Schedule>, i64)>,
}

impl Schedules {
    fn follow(&mut self, partitions: &Partitions, now: i64) {
        let mut wanted: Vec<Arc<Schedule>> = Vec::new();
        each(partitions, |partition| {
            if let Some(schedule) = &partition.log().config().delete_when
                && !wanted.contains(schedule)
            {
                wanted.push(schedule.clone());
            }
        });
        self.next.retain(|(known, _)| wanted.contains(known));
        for schedule in wanted {
            if !self.next.iter().any(|(known, _)| *known == schedule) {
                let next = schedule.next_after(now).unwrap_or(i64::MAX);
                self.next.push((schedule, next));
            }
        }
    }

    /// Those whose time has come.
    fn due(&mut self, now: i64) -> Vec<Arc<Schedule>> {
        let mut due = Vec::new();
        for (schedule, next) in &mut self.next {
            if *next <= now {
                *next = schedule.next_after(now).unwrap_or(i64::MAX);
                due.push(schedule.clone());
            }
        }
        due
    }
}

/// Which partitions' retention is applied.
struct Due {
    regularly: bool,
    scheduled: Vec<Arc<Schedule>>,
    producer_expiration_ms: i64,
}

impl Due {
    fn is_for(&self, config: &LogConfig) -> bool {
        match &config.delete_when {
            None => self.regularly,
            Some(schedule) => self.scheduled.contains(schedule),
        }
    }
}

/// Puts into the archive what is due, on a thread of its own: retention of other partitions does not wait for a copy.
#[derive(Default)]
struct Archive {
    waiting: Vec<(Arc<Partition>, Vec<Arc<Segment>>)>,
    copying: Option<JoinHandle<Vec<Arc<Partition>>>>,
}

impl Archive {
    fn add(&mut self, due: Vec<(Arc<Partition>, Vec<Arc<Segment>>)>) {
        for (partition, segments) in due {
            let known = self
                .waiting
                .iter_mut()
                .find(|(known, _)| Arc::ptr_eq(known, &partition));
            match known {
                Some((_, waiting)) => *waiting = segments,
                None => self.waiting.push((partition, segments)),
            }
        }
    }

    /// Begins with what waits; returns the partitions of which something is in the archive now.
    fn take_done(&mut self, workers: &Workers) -> Vec<Arc<Partition>> {
        let mut done = Vec::new();
        if let Some(copying) = self.copying.take_if(|copying| copying.is_finished()) {
            done = copying.join().unwrap_or_default();
        }
        if self.copying.is_some() || self.waiting.is_empty() {
            return done;
        }
        let work = std::mem::take(&mut self.waiting);
        if let Workers::Steps(_) = workers {
            done.extend(archive(work));
            return done;
        }
        let copying = std::thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || archive(work));
        // Where there is no thread to be had, it is due again at the next pass.
        self.copying = copying.ok();
        done
    }
}

fn archive(work: Vec<(Arc<Partition>, Vec<Arc<Segment>>)>) -> Vec<Arc<Partition>> {
    let mut done = Vec::new();
    for (partition, segments) in work {
        let Some(root) = partition.log().config().archive_dir.clone() else {
            continue;
        };
        let (topic, index) = (partition.topic(), partition.index());
        let id = uuid_to_base64(partition.topic_id());
        let dir = root.join(capped_name(topic, &format!("-{index}-{id}")));
        match partition.log().archive(&segments, &dir) {
            Ok(()) => {
                tracing::info!(%topic, partition = index, segments = segments.len(), dir = %dir.display(), "archived")
            }
            Err(error) => {
                tracing::error!(%topic, partition = index, %error, dir = %dir.display(),
                    "cannot archive; nothing is deleted that is not in the archive")
            }
        }
        done.push(partition);
    }
    done
}

/// Applies retention; returns what is to be archived first.
fn retain(
    partitions: &Partitions,
    now: i64,
    due: &Due,
    unlinks: &mut Vec<(i64, PendingUnlink)>,
    retries: &mut Vec<RetryRetention>,
) -> Vec<(Arc<Partition>, Vec<Arc<Segment>>)> {
    let mut to_archive = Vec::new();
    each(partitions, |partition| {
        let config = partition.log().config();
        if due.regularly {
            let (subject, expiration_ms) = (partition.clone(), due.producer_expiration_ms);
            // As the writer: it owns the segment list and the producers.
            let _ = partition
                .writer()
                .run_blocking(move || subject.log().expire_producers(now, expiration_ms));
            sync_for_retention(partition, &config);
        }
        if due.is_for(&config) {
            to_archive.extend(apply(partition, now, unlinks));
            retries.extend(RetryRetention::of(partition, now));
        }
    });
    to_archive
}

/// Drops what is old of a partition, or returns what must be archived before.
fn apply(
    partition: &Arc<Partition>,
    now: i64,
    unlinks: &mut Vec<(i64, PendingUnlink)>,
) -> Option<(Arc<Partition>, Vec<Arc<Segment>>)> {
    drop_old(partition, now, unlinks);
    partition.log().config().archive_dir.as_ref()?;
    let subject = partition.clone();
    let segments = partition.writer().run_blocking(move || {
        let high_watermark = subject.high_watermark();
        subject.log().due_for_archive(now, high_watermark)
    });
    match segments? {
        Ok(segments) if segments.is_empty() => None,
        Ok(segments) => Some((partition.clone(), segments)),
        Err(error) => {
            failed(partition, &error);
            None
        }
    }
}

/// A partition of which retention takes more when it is synced: it is applied again then.
struct RetryRetention {
    partition: Arc<Partition>,
    synced_end: i64,
    given_up: Instant,
}

impl RetryRetention {
    fn of(partition: &Arc<Partition>, now: i64) -> Option<Self> {
        let log = partition.log();
        if !matches!(
            log.retention_waits_for_sync(now, partition.high_watermark()),
            Ok(true)
        ) {
            return None;
        }
        partition.sync_soon();
        Some(Self {
            partition: partition.clone(),
            synced_end: log.ends().log_end.offset,
            given_up: Instant::now() + RETRY_MAX,
        })
    }

    fn is_due(&self) -> bool {
        self.partition.log().ends().synced_end >= self.synced_end
    }
}

/// What is sealed is dropped at the next pass when it is synced, and the journal is not needed for ever.
fn sync_for_retention(partition: &Arc<Partition>, config: &LogConfig) {
    let ends = partition.log().ends();
    let in_journal = config.syncs_every_append() && ends.synced_end < ends.log_end.offset;
    if in_journal || ends.synced_end < ends.log_end.segment_base {
        partition.sync_soon();
    }
}

fn drop_old(partition: &Arc<Partition>, now: i64, unlinks: &mut Vec<(i64, PendingUnlink)>) {
    let subject = partition.clone();
    let dropped = partition.writer().run_blocking(move || subject.retain(now));
    match dropped {
        Some(Ok(segments)) if !segments.is_empty() => {
            tracing::info!(topic = %partition.topic(), partition = partition.index(), segments = segments.len(),
                log_start = partition.log().ends().log_start, "retention dropped segments");
            let at = now.saturating_add(partition.log().config().file_delete_delay_ms);
            unlinks.push((at, PendingUnlink::Segments(segments)));
        }
        Some(Err(error)) => failed(partition, &error),
        Some(Ok(_)) | None => {}
    }
}

fn failed(partition: &Partition, error: &LogError) {
    tracing::warn!(topic = %partition.topic(), partition = partition.index(), %error, "retention failed");
}

fn remove_due(disk: &dyn Disk, unlinks: &mut Vec<(i64, PendingUnlink)>, now: i64) {
    unlinks.retain(|(at, what)| {
        if *at > now {
            return true;
        }
        match what {
            PendingUnlink::Segments(segments) => unlink_all(segments),
            PendingUnlink::Directory(path) => {
                if let Err(error) = disk.remove_dir_all(path) {
                    tracing::warn!(dir = %path.display(), %error, "cannot remove a deleted partition");
                }
            }
        }
        false
    });
}
