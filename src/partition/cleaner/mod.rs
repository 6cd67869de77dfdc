//! The cleaners: threads of their own that compact logs, one log at a time each (Kafka's LogCleaner). Which log is next says
//! `choice`, what is known of them `records`; what a pass over a log does is the log's (`log/compaction.rs`).
//!
//! - What all of them together read and write stays within a rate, and what they remember within a memory.
//! - A pass is given up at once where the broker shuts down, or the partition is deleted, moves, or is not compacted any more.
//! - After a pass the log's `cleaner-offset-checkpoint` is written: what it says is on the disk by then.
//! - They give way to other threads where processors are busy.
//! - A log that fails rests, longer each time, and is told of; the others go on.
//!
//! Where there are no threads (`Workers::Steps`), a task makes the passes one after the other.

mod choice;
mod options;
mod rate_limit;
mod records;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::executor::{Step, Workers};
use super::handle::Partition;
use super::registry::Partitions;
use crate::log::{Compacted, CompactionPass, KeyMap, LogError};
use crate::observe::{EventKind, Events, Happened};
use choice::{Choice, choose, is_compacted};
use rate_limit::RateLimit;
use records::{Records, key_of, remedy_of};

pub use options::CleanerOptions;
pub use records::{CleanerFigures, LastPass, Uncleanable};

/// How often settings that changed are looked for.
const TICK: Duration = Duration::from_millis(250);
/// How often it is looked whether a pass still goes on while it pauses: somebody may wait for the log.
const LOOK: Duration = Duration::from_millis(10);
/// Whatever `log.cleaner.backoff.ms` says: a look goes through all logs.
const IDLE_MIN: Duration = Duration::from_millis(50);
/// How soon it is looked again where a sync is waited for.
const SYNC_WAIT: Duration = Duration::from_secs(1);
/// How nice a cleaner is to other threads (setpriority): its share of a busy processor is a third of theirs.
const NICE: i32 = 5;
/// So many bytes go by between two looks whether a pass goes on.
const LOOK_BYTES: u64 = 64 << 10;

/// See the module's documentation.
pub struct Cleaner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Where there are no threads.
    task: Option<AbortHandle>,
}

struct Shared {
    partitions: Arc<Partitions>,
    events: Events,
    records: Records,
    limit: RateLimit,
    is_stopping: AtomicBool,
    crew: Mutex<Crew>,
    woken: Condvar,
}

/// How many there are to be, and are.
struct Crew {
    options: CleanerOptions,
    /// By the number of a thread.
    is_running: Vec<bool>,
}

/// What a cleaner did at its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It looks for more at once.
    Worked,
    /// There is nothing to do for so long.
    Idle(Duration),
}

impl Cleaner {
    /// Starts the threads.
    pub fn start(
        partitions: Arc<Partitions>,
        options: CleanerOptions,
        events: Events,
    ) -> std::io::Result<Self> {
        let steps = match partitions.workers() {
            Workers::Steps(pause) => Some(pause.clone()),
            Workers::Threads => None,
        };
        let shared = Arc::new(Shared {
            partitions,
            events,
            records: Records::default(),
            limit: RateLimit::new(),
            is_stopping: AtomicBool::new(false),
            crew: Mutex::new(Crew {
                options: options.clone(),
                is_running: Vec::new(),
            }),
            woken: Condvar::new(),
        });
        let task = steps.map(|pause| {
            let shared = shared.clone();
            tokio::spawn(async move { shared.run_steps(&*pause).await }).abort_handle()
        });
        let cleaner = Self {
            shared,
            threads: Mutex::default(),
            task,
        };
        cleaner.set_options(options)?;
        Ok(cleaner)
    }

    /// Works by other settings from now on; threads end when their pass is given up, or begin.
    pub fn set_options(&self, options: CleanerOptions) -> std::io::Result<()> {
        let shared = &self.shared;
        let mut crew = shared.crew.lock();
        if crew.options != options {
            shared.records.try_again();
        }
        crew.options = options;
        shared.woken.notify_all();
        if self.task.is_some() {
            return Ok(());
        }
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        for number in 0..crew.options.threads_wanted() {
            if crew.is_running.len() <= number {
                crew.is_running.push(false);
            }
            if !crew.is_running[number] {
                threads.push(shared.clone().spawn(number)?);
                crew.is_running[number] = true;
            }
        }
        Ok(())
    }

    /// Gives up what is at work, and ends the threads.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        {
            let _crew = self.shared.crew.lock();
            self.shared.woken.notify_all();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            let _ = thread.join();
        }
        if let Some(task) = &self.task {
            task.abort();
        }
    }

    /// Sums, and how it was at the last look.
    pub fn figures(&self) -> CleanerFigures {
        self.shared.records.figures()
    }

    /// The last pass over a partition since the start.
    pub fn last_pass(&self, partition: &Partition) -> Option<LastPass> {
        self.shared.records.last_pass(key_of(partition))
    }

    /// Logs that cannot be compacted.
    pub fn uncleanable(&self) -> Vec<Uncleanable> {
        self.shared.records.uncleanable()
    }
}

impl Shared {
    fn spawn(self: Arc<Self>, number: usize) -> std::io::Result<JoinHandle<()>> {
        let name = format!("cleaner {number}");
        let supervisor = self.partitions.supervisor().clone();
        let thread = std::thread::Builder::new().name(name.clone());
        thread.spawn(move || {
            let died = || {
                self.records.thread_died();
                if let Some(is_running) = self.crew.lock().is_running.get_mut(number) {
                    *is_running = false;
                }
            };
            // Of this thread alone; whoever waits for an answer comes first. Where it is refused, all are equal.
            let _ = rustix::process::setpriority_process(None, NICE);
            supervisor.run(&name, || self.run(number), died);
        })
    }

    fn run(&self, number: usize) {
        loop {
            let Some(options) = self.options_of(number) else {
                return;
            };
            if let Turn::Idle(pause) = self.take_turn(number, &options) {
                self.wait(pause, &options);
            }
        }
    }

    /// The settings; `None` where there is no such thread to be.
    fn options_of(&self, number: usize) -> Option<CleanerOptions> {
        let mut crew = self.crew.lock();
        if self.goes_on(number, &crew) {
            return Some(crew.options.clone());
        }
        if let Some(is_running) = crew.is_running.get_mut(number) {
            *is_running = false;
        }
        None
    }

    fn goes_on(&self, number: usize, crew: &Crew) -> bool {
        !self.is_stopping.load(Ordering::Acquire) && number < crew.options.threads_wanted()
    }

    /// Waits, but not for longer than until settings change.
    fn wait(&self, pause: Duration, options: &CleanerOptions) {
        let until = Instant::now() + pause;
        let settings = self.partitions.reconfigured();
        let mut crew = self.crew.lock();
        while !self.is_stopping.load(Ordering::Acquire)
            && crew.options == *options
            && self.partitions.reconfigured() == settings
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.woken.wait_for(&mut crew, left.min(TICK));
        }
    }

    async fn run_steps(&self, pause: &(dyn Fn(Step) -> Duration + Send + Sync)) {
        loop {
            tokio::time::sleep(pause(Step::Compact)).await;
            let Some(options) = self.options_of(0) else {
                tokio::time::sleep(TICK).await;
                continue;
            };
            if let Turn::Idle(pause) = self.take_turn(0, &options) {
                let until = Instant::now() + pause;
                let settings = self.partitions.reconfigured();
                while Instant::now() < until && self.partitions.reconfigured() == settings {
                    tokio::time::sleep(TICK.min(pause)).await;
                }
            }
        }
    }

    /// Looks at the logs, and makes one pass.
    fn take_turn(&self, number: usize, options: &CleanerOptions) -> Turn {
        let look = choose(&self.partitions, &self.records);
        for (partition, error) in &look.failed {
            self.failed(partition, error, 0);
        }
        let Some(choice) = look.choice else {
            let pause = options.backoff.max(IDLE_MIN);
            return Turn::Idle(match look.waits_for_sync {
                true => pause.min(SYNC_WAIT),
                false => pause,
            });
        };
        // A bug in a pass is that log's misfortune alone.
        let pass = AssertUnwindSafe(|| self.compact(number, options, &choice));
        let dirty_bytes = choice.cleanable.dirty_bytes;
        match std::panic::catch_unwind(pass) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(&choice.partition, &error, dirty_bytes),
            Err(_) => {
                let what = "a pass panicked; this is a bug".to_owned();
                self.set_aside(
                    &choice.partition,
                    (what, "report the panic that is in the log"),
                    dirty_bytes,
                );
            }
        }
        Turn::Worked
    }

    fn compact(
        &self,
        number: usize,
        options: &CleanerOptions,
        choice: &Choice<'_>,
    ) -> Result<(), LogError> {
        let (partition, clock) = (&choice.partition, self.partitions.clock());
        let began = Instant::now();
        let mut keys = KeyMap::with_memory(options.key_bytes_each());
        let mut moved = 0;
        let mut throttle = |bytes| {
            moved += bytes;
            if bytes > 0 && moved < LOOK_BYTES {
                return true;
            }
            self.drop_replaced(partition);
            self.pause(number, partition, std::mem::take(&mut moved))
        };
        let compacted = partition.log().compact(&mut CompactionPass {
            until: choice.cleanable.end,
            keys: &mut keys,
            now_ms: clock.now_ms(),
            throttle: &mut throttle,
        });
        self.drop_replaced(partition);
        let Some(compacted) = compacted? else {
            self.records.let_rest(key_of(partition));
            return Ok(());
        };
        self.tell(partition, &compacted, began.elapsed());
        let pass = LastPass::of(&compacted, clock.now_ms(), began.elapsed());
        let was_dirty = choice.cleanable.dirty_bytes > 0;
        self.records.done(key_of(partition), pass, was_dirty);
        if let Err(error) = self.partitions.note_cleaned(partition) {
            tracing::warn!(topic = %partition.topic(), partition = partition.index(), %error,
                "cannot note how far the log is compacted; it is noted with the next checkpoint");
        }
        Ok(())
    }

    /// Has files unlinked whose place others have taken, also in the middle of a pass: it may take long, and the disk be full.
    fn drop_replaced(&self, partition: &Partition) {
        let replaced = partition.log().take_replaced();
        if !replaced.is_empty() {
            let delay_ms = partition.log().config().file_delete_delay_ms;
            self.partitions.drop_later(replaced, delay_ms);
        }
    }

    /// Counts bytes, and sleeps as long as they are too many; whether the pass goes on.
    fn pause(&self, number: usize, partition: &Partition, bytes: u64) -> bool {
        let goes_on = |crew: &Crew| {
            self.goes_on(number, crew)
                && is_compacted(partition)
                && !self.partitions.is_moving(partition)
                && !partition.log().is_rewrite_wanted()
        };
        let mut crew = self.crew.lock();
        let pause = match self.partitions.workers() {
            Workers::Threads => self.limit.moved(bytes, crew.options.bytes_per_second),
            Workers::Steps(_) => Duration::ZERO,
        };
        let until = Instant::now() + pause;
        while goes_on(&crew) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            self.woken.wait_for(&mut crew, left.min(LOOK));
        }
        false
    }

    fn tell(&self, partition: &Partition, compacted: &Compacted, took: Duration) {
        let (topic, index) = (partition.topic(), partition.index());
        let Compacted {
            cleaned_until,
            before_bytes,
            after_bytes,
            read_bytes,
            keys,
            ..
        } = compacted;
        let took_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        tracing::info!(%topic, partition = index, cleaned_until, before_bytes, after_bytes, read_bytes, keys, took_ms, "compacted");
        let detail =
            format!("{before_bytes} bytes became {after_bytes}; compacted up to {cleaned_until}");
        let happened = Happened::new(EventKind::Compaction, format!("{topic}-{index}"));
        self.events
            .tell(happened.why("compacted").detail(detail).took_ms(took_ms));
    }

    fn failed(&self, partition: &Partition, error: &LogError, dirty_bytes: u64) {
        // Given up, or offline, of which others tell.
        if matches!(error, LogError::Stopped) || !is_compacted(partition) {
            return;
        }
        let why = (error.to_string(), remedy_of(error));
        self.set_aside(partition, why, dirty_bytes);
    }

    fn set_aside(
        &self,
        partition: &Partition,
        (reason, remedy): (String, &'static str),
        dirty_bytes: u64,
    ) {
        let (topic, index) = (partition.topic(), partition.index());
        let now_ms = self.partitions.clock().now_ms();
        let why = (reason.clone(), remedy);
        let (rest, failures) = self.records.failed(partition, why, dirty_bytes, now_ms);
        tracing::error!(%topic, partition = index, reason, failures, retry_s = rest.as_secs(), remedy, "cannot be compacted");
        let happened = Happened::new(EventKind::Compaction, format!("{topic}-{index}"));
        self.events.tell(happened.why(reason).detail(remedy));
    }
}
