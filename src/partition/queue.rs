//! What is to be written in a data directory, and who writes it: the writer thread, or a connection at the end of its turn.
//!
//! Whoever writes is alone, and takes all that is queued. A connection does it while that is little, is a write to the page
//! cache and nothing else, and while the disk has not made anybody wait lately; then an answer needs no other thread, which
//! costs more to wake than a batch costs to write. All else, and what comes while somebody writes, is the thread's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::round::{Hand, Job};
use super::wakes;
use super::workers::Filled;
use crate::log::PLAIN_BATCHES_MAX;
use crate::vital::Vital;

/// Why nothing is written any more after a bug.
const ENDED: &str = "the writer ended by a bug; the broker must be restarted";
/// What is queued at the end of a turn is written there if it is less than this. The thread is woken at once when as much
/// is queued, also within a turn.
const TURN_BYTES_MAX: usize = 256 << 10;
/// When connections write what they queued themselves; clones share the count.
#[derive(Clone, Debug)]
pub struct Turns {
    /// At most so many at a time, over all data directories; 0 for never. Fewer than the runtime has threads: a disk that
    /// stands still leaves the others.
    pub at_a_time_max: usize,
    /// A plain round that takes longer, whoever writes it, leaves those behind it to the thread …
    pub time_max: Duration,
    /// … for this long.
    pub pause: Duration,
    under_way: Arc<AtomicUsize>,
}

impl Turns {
    /// With the times that production has.
    pub fn new(at_a_time_max: usize) -> Self {
        Self {
            at_a_time_max,
            time_max: Duration::from_millis(2),
            pause: Duration::from_secs(1),
            under_way: Arc::default(),
        }
    }

    fn begin(&self) -> Option<TurnUnderWay<'_>> {
        let under_way = self.under_way.fetch_add(1, Ordering::AcqRel);
        let turn = TurnUnderWay(&self.under_way);
        (under_way < self.at_a_time_max).then_some(turn)
    }
}

struct TurnUnderWay<'a>(&'a AtomicUsize);

impl Drop for TurnUnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// See the module's documentation.
pub(super) struct Queue {
    name: String,
    state: Mutex<State>,
    pub(super) filled: Filled,
    pub(super) hand: Hand,
    turns: Turns,
    vital: Vital,
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
    /// Gives all that is queued; whoever takes it is busy.
    fn take(&mut self, taken: &mut Taken, now_ms: i64) {
        taken.is_plain = self.is_plain(now_ms);
        self.bytes = 0;
        self.busy = true;
        std::mem::swap(&mut taken.jobs, &mut self.jobs);
    }

    /// Whether what is queued is little, and a write to the page cache and nothing else.
    fn is_plain(&self, now_ms: i64) -> bool {
        self.bytes < TURN_BYTES_MAX
            && self.jobs.len() <= PLAIN_BATCHES_MAX
            && self.jobs.iter().all(|job| job.is_plain(self.bytes, now_ms))
    }

    fn is_for_thread(&self) -> bool {
        let until = self.thread_only_until;
        self.stopping || self.ended || until.is_some_and(|until| until > Instant::now())
    }
}

impl Queue {
    pub(super) fn new(
        name: String,
        filled: Filled,
        hand: Hand,
        turns: Turns,
        vital: &Vital,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            state: Mutex::default(),
            filled,
            hand,
            turns,
            vital: vital.clone(),
        })
    }

    pub(super) fn wake(&self) {
        self.filled.wake();
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

    /// Writes what a connection's turn has queued, or leaves it to the thread.
    pub(super) fn end_turn(&self) {
        let turn = self.turns.begin();
        let mut taken = Taken::default();
        {
            let mut state = self.state.lock();
            if state.busy || state.jobs.is_empty() {
                // Whoever is busy looks again.
                return;
            }
            let now_ms = self.hand.clock.now_ms();
            if turn.is_none() || state.is_for_thread() || !state.is_plain(now_ms) {
                drop(state);
                self.wake();
                return;
            }
            state.take(&mut taken, now_ms);
        }
        let slow = self.work(&mut taken);
        let mut state = self.state.lock();
        self.rest(&mut state, slow);
        let more = !state.jobs.is_empty() || state.stopping;
        drop(state);
        if more {
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
                self.filled.threads.wait(&mut state);
            }
            state.take(&mut taken, self.hand.clock.now_ms());
            drop(state);
            let slow = self.work(&mut taken);
            state = self.state.lock();
            self.rest(&mut state, slow);
        }
    }

    /// Does what is queued, as a step of a simulation or behind the thread.
    pub(super) fn work_off(&self) {
        let mut taken = Taken::default();
        self.state.lock().take(&mut taken, self.hand.clock.now_ms());
        let slow = self.work(&mut taken);
        self.rest(&mut self.state.lock(), slow);
    }

    /// Writes; whether the disk made it wait. Nothing is written behind a panic.
    fn work(&self, taken: &mut Taken) -> bool {
        let began = Instant::now();
        let work = || self.hand.work(&mut taken.jobs);
        self.vital.run(&self.name, work, || self.fail());
        taken.is_plain && began.elapsed() > self.turns.time_max
    }

    /// Nobody is busy any more.
    fn rest(&self, state: &mut State, slow: bool) {
        state.busy = false;
        if slow {
            state.thread_only_until = Some(Instant::now() + self.turns.pause);
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
