//! The thread that looks after partitions by the clock: `flush.ms`, retention, producer expiry, checkpoints,
//! delayed removal of deleted files, closing of idle files.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::leader::Partition;
use super::set::Partitions;
use super::workers::Workers;
use crate::log::{Segment, unlink_all};

/// How often the clock is looked at; the grain of `flush.ms`.
const TICK: Duration = Duration::from_millis(100);
/// How often files of sealed segments that nobody reads are closed.
const IDLE_FILES_INTERVAL: Duration = Duration::from_secs(300);

/// Intervals of the jobs.
#[derive(Clone, Copy, Debug)]
pub struct HousekeepingIntervals {
    /// `log.retention.check.interval.ms`.
    pub retention: Duration,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub checkpoint: Duration,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
}

#[derive(Default)]
struct Shared {
    stopping: Mutex<bool>,
    wake: Condvar,
}

/// The running thread.
pub struct Housekeeping {
    shared: Arc<Shared>,
    intervals: Arc<Mutex<HousekeepingIntervals>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Where there is no thread.
    task: Option<AbortHandle>,
}

/// Files that go when their time has come.
enum Doomed {
    Segments(Vec<Arc<Segment>>),
    Directory(PathBuf),
}

impl Housekeeping {
    /// Starts the thread. `deleted_dirs` yields partition directories that were set aside.
    pub fn start(
        partitions: Arc<Partitions>,
        intervals: HousekeepingIntervals,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let intervals = Arc::new(Mutex::new(intervals));
        let mut house = House::new(partitions, intervals.clone());
        if let Workers::Steps(_) = house.partitions.workers() {
            let task = async move {
                loop {
                    tokio::time::sleep(TICK).await;
                    house.look_after();
                }
            };
            return Ok(Self {
                shared,
                intervals,
                thread: Mutex::default(),
                task: Some(tokio::spawn(task).abort_handle()),
            });
        }
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("housekeeping".to_owned())
            .spawn(move || {
                let vital = house.partitions.vital().clone();
                vital.run("housekeeping", || run(&of_thread, &mut house), || ());
            })?;
        Ok(Self {
            shared,
            intervals,
            thread: Mutex::new(Some(thread)),
            task: None,
        })
    }

    /// How often what is done; may be changed.
    pub fn intervals(&self) -> Arc<Mutex<HousekeepingIntervals>> {
        self.intervals.clone()
    }

    /// Ends the thread.
    pub fn stop(&self) {
        *self.shared.stopping.lock() = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn run(shared: &Shared, house: &mut House) {
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
        house.look_after();
    }
}

/// What is looked after, and when that was done last.
struct House {
    partitions: Arc<Partitions>,
    intervals: Arc<Mutex<HousekeepingIntervals>>,
    retained: Instant,
    checkpointed: Instant,
    idle: Instant,
    /// Partitions of topics with `flush.ms`; ten thousand without it cost nothing.
    flushed: Vec<Arc<Partition>>,
    doomed: Vec<(i64, Doomed)>,
}

impl House {
    fn new(partitions: Arc<Partitions>, intervals: Arc<Mutex<HousekeepingIntervals>>) -> Self {
        let now = Instant::now();
        Self {
            partitions,
            intervals,
            retained: now,
            checkpointed: now,
            idle: now,
            flushed: Vec::new(),
            doomed: Vec::new(),
        }
    }

    fn look_after(&mut self) {
        let Self {
            partitions, doomed, ..
        } = self;
        let now = partitions.clock().now_ms();
        let intervals = *self.intervals.lock();
        if partitions.take_changed() {
            self.flushed.clear();
            each(partitions, |partition| {
                if partition.log().config().flush_ms != i64::MAX {
                    self.flushed.push(partition.clone());
                }
            });
        }
        flush_by_time(&self.flushed, now);
        for (aside, delay_ms) in partitions.take_set_aside() {
            doomed.push((now.saturating_add(delay_ms), Doomed::Directory(aside)));
        }
        if self.retained.elapsed() >= intervals.retention {
            self.retained = Instant::now();
            let expiration_ms = intervals.producer_expiration_ms;
            retain(partitions, now, expiration_ms, doomed);
        }
        for (segments, delay_ms) in partitions.take_dropped() {
            doomed.push((now.saturating_add(delay_ms), Doomed::Segments(segments)));
        }
        remove_due(doomed, now);
        if self.checkpointed.elapsed() >= intervals.checkpoint {
            self.checkpointed = Instant::now();
            // Said already; it is tried again at the next turn.
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

fn flush_by_time(partitions: &[Arc<Partition>], now: i64) {
    for partition in partitions {
        if partition.log().unsynced_for_ms(now) >= partition.log().config().flush_ms {
            partition.writer().sync_soon(partition);
        }
    }
}

fn retain(
    partitions: &Partitions,
    now: i64,
    producer_expiration_ms: i64,
    doomed: &mut Vec<(i64, Doomed)>,
) {
    each(partitions, |partition| {
        let subject = partition.clone();
        // On the writer thread: it owns the segment list.
        let answer = partition.writer().run_blocking(move || {
            subject.log().expire_producers(now, producer_expiration_ms);
            subject.log().retain(now, subject.high_watermark())
        });
        let ends = partition.log().ends();
        let in_journal =
            partition.log().config().syncs_every_append() && ends.synced_end < ends.log_end.offset;
        if in_journal || ends.synced_end < ends.log_end.segment_base {
            // What is sealed is dropped at the next turn when it is synced, and the journal is not needed for ever.
            partition.writer().sync_soon(partition);
        }
        match answer {
            Some(Ok(segments)) if !segments.is_empty() => {
                tracing::info!(topic = %partition.topic(), partition = partition.index(), segments = segments.len(),
                    log_start = partition.log().ends().log_start, "retention dropped segments");
                let at = now.saturating_add(partition.log().config().file_delete_delay_ms);
                doomed.push((at, Doomed::Segments(segments)));
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => {
                tracing::warn!(topic = %partition.topic(), partition = partition.index(), %error, "retention failed");
            }
        }
    });
}

fn remove_due(doomed: &mut Vec<(i64, Doomed)>, now: i64) {
    doomed.retain(|(at, what)| {
        if *at > now {
            return true;
        }
        match what {
            Doomed::Segments(segments) => unlink_all(segments),
            Doomed::Directory(path) => {
                if let Err(error) = std::fs::remove_dir_all(path) {
                    tracing::warn!(dir = %path.display(), %error, "cannot remove a deleted partition");
                }
            }
        }
        false
    });
}
