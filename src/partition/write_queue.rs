//! What is to be written in a data directory, and who writes it: the writer thread, or a connection at the end of its poll.
//!
//! One writes at a time, and takes all that is queued. A connection does it while that is little and on the fast path (a
//! write to the page cache and nothing else), and while the disk has been fast lately; then an answer needs no other thread, which
//! costs more to wake than a batch costs to write. All else, and what comes while another writes, is the thread's.
//!
//! A connection that is made to wait holds up its thread of the runtime, and the sockets may go unwatched: one
//! thread of a runtime watches them, and another takes over only when it is woken. So while connections write, the writer
//! thread looks now and then whether one of them is stuck, and then gives the runtime something to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;

use super::commit_group::{CommitContext, Job};
use super::executor::Filled;
use super::inline_write::{self, EndOfPoll};
use super::inline_writes::InlineWrites;
use crate::log::FAST_PATH_BATCHES_MAX;
use crate::supervisor::Supervisor;

/// Why nothing is written any more after a bug.
const ENDED: &str = "the writer ended by a bug; the broker must be restarted";
/// What is queued at the end of a poll is written there if it is less than this. The thread is woken at once when as much
/// is queued, also within a poll.
const INLINE_BYTES_MAX: usize = 256 << 10;
/// How often the thread checks connections that write.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A commit group that takes as many times [`InlineWrites::time_max`] is slow whatever it did.
const SLOW_GROUP_FACTOR: u32 = 50;

/// See the module's documentation.
pub(super) struct WriteQueue {
    name: String,
    state: Mutex<State>,
    pub(super) filled: Filled,
    pub(super) context: CommitContext,
    inline_writes: InlineWrites,
    supervisor: Supervisor,
    /// Whose threads connections hold up.
    runtime: Option<Handle>,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    /// Bytes of the batches among them.
    bytes: usize,
    /// A commit group is being written, by the thread or by a connection at the end of its poll. No other begins meanwhile.
    busy: bool,
    /// Commit groups that connections have begun.
    inline_writes: u64,
    /// Whether the thread checks them.
    watched: bool,
    /// Until when only the thread writes.
    thread_only_until: Option<Instant>,
    stopping: bool,
    /// A commit group ended by a panic.
    ended: bool,
}

/// What somebody took.
#[derive(Default)]
struct Taken {
    jobs: Vec<Job>,
    /// Whether all of it is little, and on the fast path.
    is_on_fast_path: bool,
}

impl State {
    /// Gives all that is queued, and marks the queue busy. `is_on_fast_path` is [`State::is_on_fast_path`].
    fn take(&mut self, taken: &mut Taken, is_on_fast_path: bool) {
        taken.is_on_fast_path = is_on_fast_path;
        self.bytes = 0;
        self.busy = true;
        std::mem::swap(&mut taken.jobs, &mut self.jobs);
    }

    /// Whether what is queued is little, and a write to the page cache and nothing else.
    fn is_on_fast_path(&self, now_ms: i64) -> bool {
        self.bytes < INLINE_BYTES_MAX
            && self.jobs.len() <= FAST_PATH_BATCHES_MAX
            && self
                .jobs
                .iter()
                .all(|job| job.is_on_fast_path(self.bytes, now_ms))
    }

    fn is_for_thread(&self) -> bool {
        let until = self.thread_only_until;
        self.stopping || self.ended || until.is_some_and(|until| until > Instant::now())
    }
}

/// Cleans up after a panic that leaves a commit group: the queue is not busy, and what waits is refused.
struct Fails<'a>(&'a WriteQueue);

impl Drop for Fails<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.lock().busy = false;
            self.0.fail();
            self.0.wake();
        }
    }
}

impl EndOfPoll for WriteQueue {
    /// Writes what a connection has queued in its poll, or leaves it to the thread.
    fn end_poll(&self) {
        let inline_write = self.inline_writes.begin();
        let mut taken = Taken::default();
        let unwatched = {
            let mut state = self.state.lock();
            if state.busy || state.jobs.is_empty() {
                // The one that is writing looks again.
                return;
            }
            let now_ms = self.context.clock.now_ms();
            if inline_write.is_none() || state.is_for_thread() || !state.is_on_fast_path(now_ms) {
                drop(state);
                self.wake();
                return;
            }
            state.take(&mut taken, true);
            state.inline_writes += 1;
            !std::mem::replace(&mut state.watched, true)
        };
        if unwatched {
            self.wake();
        }
        self.inline_writes.count_written();
        let state = self.work(&mut taken);
        let more = !state.jobs.is_empty() || state.stopping;
        drop(state);
        if more {
            self.wake();
        }
    }

    fn wake(&self) {
        self.filled.wake();
    }
}

impl WriteQueue {
    pub(super) fn new(
        name: String,
        filled: Filled,
        context: CommitContext,
        inline_writes: InlineWrites,
        supervisor: &Supervisor,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            state: Mutex::default(),
            filled,
            context,
            inline_writes,
            supervisor: supervisor.clone(),
            runtime: Handle::try_current().ok(),
        })
    }

    /// Queues something; the answer comes when it is done or refused.
    pub(super) fn push(self: &Arc<Self>, job: Job) {
        let mut state = self.state.lock();
        if state.ended || state.stopping {
            let why = match state.ended {
                true => ENDED,
                false => "the broker is shutting down",
            };
            drop(state);
            job.refuse(why);
            return;
        }
        let before = state.bytes;
        state.bytes += job.bytes();
        state.jobs.push(job);
        let much = before < INLINE_BYTES_MAX && state.bytes >= INLINE_BYTES_MAX;
        drop(state);
        // At the end of its own poll, not of the first one that queued.
        if !inline_write::put_off(self) || much {
            self.wake();
        }
    }

    /// The thread's work, until it is stopped.
    pub(super) fn run(&self) {
        let mut taken = Taken::default();
        let mut state = self.state.lock();
        loop {
            while state.busy || state.jobs.is_empty() {
                if state.stopping && !state.busy {
                    return;
                }
                match state.watched {
                    true => self.watch_inline_writes(&mut state),
                    false => self.filled.threads.wait(&mut state),
                }
            }
            let is_on_fast_path = state.is_on_fast_path(self.context.clock.now_ms());
            state.take(&mut taken, is_on_fast_path);
            drop(state);
            state = self.work(&mut taken);
        }
    }

    /// Waits, and looks whether a connection has been writing all the time.
    fn watch_inline_writes(&self, state: &mut MutexGuard<'_, State>) {
        let (before, was_busy) = (state.inline_writes, state.busy);
        let waited = self.filled.threads.wait_for(state, LOOK_EVERY);
        if !waited.timed_out() || state.inline_writes != before {
            return;
        }
        match was_busy && state.busy {
            true => MutexGuard::unlocked(state, || self.set_runtime_going()),
            false => state.watched = false,
        }
    }

    /// Wakes a thread of the runtime, which then watches the sockets and the clock.
    fn set_runtime_going(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(std::future::ready(()));
        }
    }

    /// Does what is queued, as a step of a simulation or after the thread.
    pub(super) fn work_off(&self) {
        let mut taken = Taken::default();
        {
            let mut state = self.state.lock();
            let is_on_fast_path = state.is_on_fast_path(self.context.clock.now_ms());
            state.take(&mut taken, is_on_fast_path);
        }
        drop(self.work(&mut taken));
    }

    /// Writes; the queue is not busy afterwards. Nothing more is written after a panic.
    fn work(&self, taken: &mut Taken) -> MutexGuard<'_, State> {
        let _panics = Fails(self);
        let began = Instant::now();
        let work = || self.context.work(&mut taken.jobs);
        self.supervisor.run(&self.name, work, || self.fail());
        let took = began.elapsed();
        let time_max = self.inline_writes.time_max;
        let mut state = self.state.lock();
        state.busy = false;
        if took > time_max && (taken.is_on_fast_path || took / SLOW_GROUP_FACTOR > time_max) {
            state.thread_only_until = Some(Instant::now() + self.inline_writes.pause);
        }
        state
    }

    /// Takes nothing more; the thread ends after what is queued.
    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }

    /// Refuses what is queued, and all that comes.
    pub(super) fn fail(&self) {
        let jobs = {
            let mut state = self.state.lock();
            state.ended = true;
            std::mem::take(&mut state.jobs)
        };
        jobs.into_iter().for_each(|job| job.refuse(ENDED));
    }
}
