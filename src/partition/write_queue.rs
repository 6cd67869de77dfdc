//! What is to be written in a data directory, and who writes it: the writer thread, or a connection at the end of its turn.
//!
//! Whoever writes is alone, and takes all that is queued. A connection does it while that is little, is a write to the page
//! cache and nothing else, and while the disk has not made anybody wait lately; then an answer needs no other thread, which
//! costs more to wake than a batch costs to write. All else, and what comes while somebody writes, is the thread's.
//!
//! A connection that is made to wait holds up its thread of the runtime, and nobody may be left to watch the sockets: a
//! runtime has one thread do that, and the next one only when somebody wakes it. So while connections write, the writer
//! thread looks now and then whether one of them is stuck, and then gives the runtime something to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;

use super::commit_group::{CommitContext, Job};
use super::executor::Filled;
use super::inline_write::{self, EndOfPoll};
use super::inline_writes::InlineWrites;
use crate::log::PLAIN_BATCHES_MAX;
use crate::supervisor::Supervisor;

/// Why nothing is written any more after a bug.
const ENDED: &str = "the writer ended by a bug; the broker must be restarted";
/// What is queued at the end of a turn is written there if it is less than this. The thread is woken at once when as much
/// is queued, also within a turn.
const INLINE_BYTES_MAX: usize = 256 << 10;
/// How often the thread looks after connections that write.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A round that takes as many times [`InlineWrites::time_max`] is slow whatever it did.
const ANY_ROUND: u32 = 50;

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
    /// Somebody writes a round: the thread, or a connection at the end of its turn. Nobody else begins one.
    busy: bool,
    /// Commit groups that connections have begun.
    inline_writes: u64,
    /// Whether the thread looks after them.
    watched: bool,
    /// Until when rounds are the thread's alone.
    thread_only_until: Option<Instant>,
    stopping: bool,
    /// A round ended by a panic.
    ended: bool,
}

/// What somebody took.
#[derive(Default)]
struct Taken {
    jobs: Vec<Job>,
    /// Whether all of it is little, and plain.
    is_plain: bool,
}

impl State {
    /// Gives all that is queued; whoever takes it is busy. `is_plain` is [`State::is_plain`].
    fn take(&mut self, taken: &mut Taken, is_plain: bool) {
        taken.is_plain = is_plain;
        self.bytes = 0;
        self.busy = true;
        std::mem::swap(&mut taken.jobs, &mut self.jobs);
    }

    /// Whether what is queued is little, and a write to the page cache and nothing else.
    fn is_plain(&self, now_ms: i64) -> bool {
        self.bytes < INLINE_BYTES_MAX
            && self.jobs.len() <= PLAIN_BATCHES_MAX
            && self.jobs.iter().all(|job| job.is_plain(self.bytes, now_ms))
    }

    fn is_for_thread(&self) -> bool {
        let until = self.thread_only_until;
        self.stopping || self.ended || until.is_some_and(|until| until > Instant::now())
    }
}

/// What a panic that gets out of a round leaves after: nobody who is busy, and nobody who waits.
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
                // Whoever is busy looks again.
                return;
            }
            let now_ms = self.context.clock.now_ms();
            if inline_write.is_none() || state.is_for_thread() || !state.is_plain(now_ms) {
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
        // At the end of its own turn, not of whoever was first.
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
            let is_plain = state.is_plain(self.context.clock.now_ms());
            state.take(&mut taken, is_plain);
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
            let is_plain = state.is_plain(self.context.clock.now_ms());
            state.take(&mut taken, is_plain);
        }
        drop(self.work(&mut taken));
    }

    /// Writes; nobody is busy after it. Nothing more is written after a panic.
    fn work(&self, taken: &mut Taken) -> MutexGuard<'_, State> {
        let _panics = Fails(self);
        let began = Instant::now();
        let work = || self.context.work(&mut taken.jobs);
        self.supervisor.run(&self.name, work, || self.fail());
        let took = began.elapsed();
        let time_max = self.inline_writes.time_max;
        let mut state = self.state.lock();
        state.busy = false;
        if took > time_max && (taken.is_plain || took / ANY_ROUND > time_max) {
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
