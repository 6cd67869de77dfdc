//! What is to be written in a data directory, and who writes it: the writer thread, or a connection at the end of its turn.
//!
//! Whoever writes is alone, and takes all that is queued. A connection does it while that is a write to the page cache
//! and nothing else, and while the disk has not made anybody wait lately; then an answer needs no other thread, which
//! costs more to wake than a batch costs to write. All else, and what comes while somebody writes, is the thread's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::round::{Hand, Job};
use super::wakes;
use super::workers::Filled;

/// Why nothing is written any more after a bug.
const ENDED: &str = "the writer thread ended; the broker must be restarted";

/// The thread is woken at once when this much is queued, also within a turn.
const TURN_BYTES_MAX: usize = 256 << 10;
/// A round that takes longer than this leaves those behind it, for a while, to the thread: a disk that makes its writers
/// wait must not make connections wait.
const TURN_TIME_MAX: Duration = Duration::from_millis(2);
const TURN_PAUSE: Duration = Duration::from_secs(1);
/// Rounds that are written at the end of one turn: its own, and what others queued meanwhile.
const TURN_ROUNDS_MAX: usize = 2;

/// See the module's documentation.
pub(super) struct Queue {
    state: Mutex<State>,
    pub(super) filled: Filled,
    pub(super) hand: Hand,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    /// Bytes of the batches among them.
    bytes: usize,
    /// Somebody writes a round: the thread, or a connection at the end of its turn. Nobody else begins one.
    busy: bool,
    /// Until when rounds are the thread's alone.
    thread_only_until: Option<Instant>,
    stopping: bool,
    /// The thread ended by a panic.
    ended: bool,
}

impl State {
    /// Gives all that is queued for an empty list.
    fn take(&mut self, jobs: &mut Vec<Job>) {
        self.bytes = 0;
        self.busy = true;
        std::mem::swap(jobs, &mut self.jobs);
    }

    /// Whose what is queued is, at the end of a turn.
    fn next(&self) -> Next {
        let is_idle = self.jobs.is_empty() && !self.stopping;
        if self.busy || is_idle {
            // Whoever is busy looks again.
            return Next::Nothing;
        }
        let is_small = self.bytes < TURN_BYTES_MAX;
        let are_plain = || self.jobs.iter().all(|job| job.is_plain(self.bytes));
        let is_slow = || {
            let until = self.thread_only_until;
            until.is_some_and(|until| until > Instant::now())
        };
        match is_small && !self.stopping && !self.ended && are_plain() && !is_slow() {
            true => Next::ForTurn,
            false => Next::ForThread,
        }
    }
}

enum Next {
    Nothing,
    ForTurn,
    ForThread,
}

/// A round that is written at the end of a turn; behind one that panicked the thread goes on.
struct Busy<'a> {
    queue: &'a Queue,
    began: Instant,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.queue.state.lock();
        state.busy = false;
        if now - self.began > TURN_TIME_MAX {
            state.thread_only_until = Some(now + TURN_PAUSE);
        }
        drop(state);
        if std::thread::panicking() {
            self.queue.wake();
        }
    }
}

impl Queue {
    pub(super) fn new(filled: Filled, hand: Hand) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            filled,
            hand,
        })
    }

    pub(super) fn wake(&self) {
        self.filled.wake();
    }

    /// Writes what a connection's turn has queued, or leaves it to the thread.
    pub(super) fn end_turn(&self) {
        let mut jobs = Vec::new();
        for round in 0.. {
            {
                let mut state = self.state.lock();
                match state.next() {
                    Next::Nothing => return,
                    Next::ForTurn if round < TURN_ROUNDS_MAX && !self.has_steps() => {
                        state.take(&mut jobs);
                    }
                    _ => break,
                }
            }
            let _busy = Busy {
                queue: self,
                began: Instant::now(),
            };
            self.hand.work(&mut jobs);
        }
        self.wake();
    }

    /// Whether a simulation says when what is done.
    fn has_steps(&self) -> bool {
        self.filled.tasks.is_some()
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
        let first = state.jobs.len() == 1;
        let much = before < TURN_BYTES_MAX && state.bytes >= TURN_BYTES_MAX;
        drop(state);
        if much || (first && !wakes::put_off(self)) {
            self.wake();
        }
    }

    /// The thread's work, until it is stopped.
    pub(super) fn run(&self) {
        let mut jobs = Vec::new();
        let mut is_ours = false;
        loop {
            {
                let mut state = self.state.lock();
                if is_ours {
                    state.busy = false;
                }
                while state.busy || state.jobs.is_empty() {
                    if state.stopping && !state.busy {
                        return;
                    }
                    self.filled.threads.wait(&mut state);
                }
                state.take(&mut jobs);
                is_ours = true;
            }
            self.hand.work(&mut jobs);
        }
    }

    /// Takes nothing more; the thread ends behind what is queued.
    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }

    /// Does what is queued.
    pub(super) fn work_off(&self) {
        let mut jobs = Vec::new();
        self.state.lock().take(&mut jobs);
        self.hand.work(&mut jobs);
        self.state.lock().busy = false;
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
