//! Who writes what is queued in a data directory: the writer thread, or a connection at the end of its poll.
//!
//! One writes at a time, and takes all that is queued. A connection does it while that is little and on the fast path (a write
//! to the page cache and nothing else), and while the disk has been fast lately; then an answer needs no other thread, which
//! costs more to wake than a batch costs to write. What a connection queues in one poll is written together, at the end of
//! that poll. All else, and what comes while another writes, is the thread's, which is woken once a poll.
//!
//! A connection that is made to wait holds up its thread of the runtime, and the sockets may go unwatched: one thread of a
//! runtime watches them, and another takes over only when it is woken. So while connections write, the writer thread looks
//! now and then whether one of them is stuck, and then gives the runtime something to do.
//!
//! How something is written stands elsewhere ([`Work`]), and so do locks and the clock ([`super::primitives`]): the tests in
//! tests/inline_write run this file with others, and choose who runs when.
//!
//! Tests: tests/inline_write, partition/tests.rs.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::executor::Filled;
use super::primitives::{
    AtomicU8, AtomicU64, AtomicUsize, AtomicWaker, Instant, Mutex, MutexGuard, Ordering,
    thread_local,
};

/// Why nothing is written any more after a bug.
const ENDED: &str = "the writer ended by a bug; the broker must be restarted";
/// Why nothing is written any more otherwise.
const STOPPING: &str = "the broker is shutting down";
/// What is queued at the end of a poll is written there if it is less than this. The thread is woken at once when as much
/// is queued, also within a poll.
pub(super) const INLINE_BYTES_MAX: usize = 256 << 10;
/// How often the thread checks connections that write.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A commit group that takes as many times [`InlineWrites::time_max`] is slow whatever it did.
const SLOW_GROUP_FACTOR: u32 = 50;
/// A connection whose answers are there at the end of a poll is polled again at once, this often, before the runtime polls
/// others.
const POLLS_MAX: usize = 4;

/// When connections write what they queued themselves; clones share the count.
#[derive(Clone, Debug)]
pub struct InlineWrites {
    /// At most so many at a time, over all data directories; 0 for never. Fewer than the runtime has threads: a disk that
    /// stands still leaves the others.
    pub at_a_time_max: usize,
    /// A commit group on the fast path that takes longer, whoever writes it, leaves those after it to the thread; so does any
    /// other that takes fifty times as long …
    pub time_max: Duration,
    /// … for this long.
    pub pause: Duration,
    under_way: Arc<AtomicUsize>,
    written: Arc<AtomicU64>,
}

impl InlineWrites {
    /// With the times that production has.
    pub fn new(at_a_time_max: usize) -> Self {
        Self {
            at_a_time_max,
            time_max: Duration::from_millis(2),
            pause: Duration::from_secs(1),
            under_way: Arc::default(),
            written: Arc::default(),
        }
    }

    /// How many commit groups connections have written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Begins one; `None` when there are too many.
    fn begin(&self) -> Option<InlineWrite<'_>> {
        let under_way = self.under_way.fetch_add(1, Ordering::AcqRel);
        let inline_write = InlineWrite(&self.under_way);
        (under_way < self.at_a_time_max).then_some(inline_write)
    }
}

/// Ends when dropped.
struct InlineWrite<'a>(&'a AtomicUsize);

impl Drop for InlineWrite<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is queued, and how it is written.
pub(super) trait Work: Send + Sync + 'static {
    /// Something to be done, and where it is answered.
    type Job: Send;
    /// What of it counts against [`INLINE_BYTES_MAX`].
    fn bytes(job: &Self::Job) -> usize;
    /// Whether doing all of it is a write to the page cache and nothing else.
    fn is_on_fast_path(&self, jobs: &[Self::Job], bytes: usize) -> bool;
    /// Does all of it, in its order, and answers. Where that panics, calls `on_panic` and returns.
    fn write(&self, jobs: &mut Vec<Self::Job>, on_panic: impl FnOnce());
    /// Answers without doing it.
    fn refuse(job: Self::Job, why: &str);
    /// Wakes a thread of the runtime, which then watches the sockets and the clock.
    fn set_runtime_going(&self);
}

/// See the module's documentation.
pub(super) struct WriteQueue<W: Work> {
    state: Mutex<State<W::Job>>,
    pub(super) filled: Filled,
    pub(super) work: W,
    inline_writes: InlineWrites,
}

struct State<J> {
    jobs: Vec<J>,
    /// What counts of them.
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

impl<J> Default for State<J> {
    fn default() -> Self {
        Self {
            jobs: Vec::new(),
            bytes: 0,
            busy: false,
            inline_writes: 0,
            watched: false,
            thread_only_until: None,
            stopping: false,
            ended: false,
        }
    }
}

/// What the thread or a connection took.
struct Taken<J> {
    jobs: Vec<J>,
    /// Whether all of it is little, and on the fast path.
    is_on_fast_path: bool,
}

impl<J> Taken<J> {
    fn nothing() -> Self {
        Self {
            jobs: Vec::new(),
            is_on_fast_path: false,
        }
    }
}

impl<J> State<J> {
    /// Gives all that is queued, and marks the queue busy. `is_on_fast_path` is [`State::is_on_fast_path`].
    fn take(&mut self, taken: &mut Taken<J>, is_on_fast_path: bool) {
        debug_assert!(!self.busy, "two write at a time");
        debug_assert!(taken.jobs.is_empty(), "something was left unwritten");
        taken.is_on_fast_path = is_on_fast_path;
        self.bytes = 0;
        self.busy = true;
        std::mem::swap(&mut taken.jobs, &mut self.jobs);
    }

    /// Whether what is queued is little, and a write to the page cache and nothing else.
    fn is_on_fast_path<W: Work<Job = J>>(&self, work: &W) -> bool {
        self.bytes < INLINE_BYTES_MAX && work.is_on_fast_path(&self.jobs, self.bytes)
    }

    /// Nothing more is taken; gives what must be refused.
    fn fail(&mut self) -> Vec<J> {
        self.ended = true;
        std::mem::take(&mut self.jobs)
    }

    fn is_for_thread(&self) -> bool {
        let until = self.thread_only_until;
        self.stopping || self.ended || until.is_some_and(|until| until > Instant::now())
    }
}

/// Cleans up after a panic that leaves a commit group: the queue is not busy, and what waits is refused. Forgotten where there
/// was none.
struct Fails<'a, W: Work>(&'a WriteQueue<W>);

impl<W: Work> Drop for Fails<'_, W> {
    fn drop(&mut self) {
        let jobs = {
            let mut state = self.0.state.lock();
            // At once: nobody may take what is queued in between.
            state.busy = false;
            state.fail()
        };
        refuse_all::<W>(jobs);
        self.0.filled.wake();
    }
}

impl<W: Work> EndOfPoll for WriteQueue<W> {
    /// Writes what a connection has queued in its poll, or leaves it to the thread.
    fn end_poll(&self) {
        let inline_write = self.inline_writes.begin();
        let mut taken = Taken::nothing();
        let unwatched = {
            let mut state = self.state.lock();
            if state.busy || state.jobs.is_empty() {
                // The one that is writing looks again.
                return;
            }
            if inline_write.is_none() || state.is_for_thread() || !state.is_on_fast_path(&self.work)
            {
                drop(state);
                self.filled.wake();
                return;
            }
            state.take(&mut taken, true);
            state.inline_writes += 1;
            !std::mem::replace(&mut state.watched, true)
        };
        if unwatched {
            self.filled.wake();
        }
        self.inline_writes.written.fetch_add(1, Ordering::Relaxed);
        let state = self.write(&mut taken);
        let more = !state.jobs.is_empty() || state.stopping;
        drop(state);
        if more {
            self.filled.wake();
        }
    }

    fn wake(&self) {
        self.filled.wake();
    }
}

impl<W: Work> WriteQueue<W> {
    pub(super) fn new(work: W, filled: Filled, inline_writes: InlineWrites) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::default()),
            filled,
            work,
            inline_writes,
        })
    }

    /// Queues something; the answer comes when it is done or refused.
    pub(super) fn push(self: &Arc<Self>, job: W::Job) {
        let mut state = self.state.lock();
        if state.ended || state.stopping {
            let why = if state.ended { ENDED } else { STOPPING };
            drop(state);
            W::refuse(job, why);
            return;
        }
        let before = state.bytes;
        state.bytes += W::bytes(&job);
        state.jobs.push(job);
        let much = before < INLINE_BYTES_MAX && state.bytes >= INLINE_BYTES_MAX;
        drop(state);
        // At the end of its own poll, not of the first one that queued.
        if !put_off(self) || much {
            self.filled.wake();
        }
    }

    /// The thread's work, until it is stopped.
    pub(super) fn run(&self) {
        let mut taken = Taken::nothing();
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
            let is_on_fast_path = state.is_on_fast_path(&self.work);
            state.take(&mut taken, is_on_fast_path);
            drop(state);
            state = self.write(&mut taken);
        }
    }

    /// Waits, and looks whether a connection has been writing all the time.
    fn watch_inline_writes(&self, state: &mut MutexGuard<'_, State<W::Job>>) {
        let (before, was_busy) = (state.inline_writes, state.busy);
        let waited = self.filled.threads.wait_for(state, LOOK_EVERY);
        if !waited.timed_out() || state.inline_writes != before {
            return;
        }
        match was_busy && state.busy {
            true => MutexGuard::unlocked(state, || self.work.set_runtime_going()),
            false => state.watched = false,
        }
    }

    /// Does what is queued, as a step of a simulation or after the thread.
    pub(super) fn work_off(&self) {
        let mut taken = Taken::nothing();
        {
            let mut state = self.state.lock();
            let is_on_fast_path = state.is_on_fast_path(&self.work);
            state.take(&mut taken, is_on_fast_path);
        }
        drop(self.write(&mut taken));
    }

    /// Writes; the queue is not busy afterwards. Nothing more is written after a panic.
    fn write(&self, taken: &mut Taken<W::Job>) -> MutexGuard<'_, State<W::Job>> {
        let fails = Fails(self);
        let began = Instant::now();
        self.work.write(&mut taken.jobs, || self.fail());
        std::mem::forget(fails);
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
        self.filled.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }

    /// Refuses what is queued, and all that comes.
    pub(super) fn fail(&self) {
        let jobs = self.state.lock().fail();
        refuse_all::<W>(jobs);
    }
}

fn refuse_all<W: Work>(jobs: Vec<W::Job>) {
    jobs.into_iter().for_each(|job| W::refuse(job, ENDED));
}

/// What has work to do at the end of a poll: a queue, whatever is in it.
trait EndOfPoll {
    /// Does it, or leaves it to its thread.
    fn end_poll(&self);
    /// Wakes its thread.
    fn wake(&self);
}

thread_local! {
    /// The queues to be worked off at the end of the poll, while there is one.
    static PUT_OFF: RefCell<Option<Vec<Arc<dyn EndOfPoll>>>> = const { RefCell::new(None) };
}

/// A poll that is under way. Dropped without [`PollUnderWay::end`] it panicked: its queues are left to their threads.
struct PollUnderWay;

impl PollUnderWay {
    fn begin() -> Self {
        PUT_OFF.with(|put_off| put_off.replace(Some(Vec::new())));
        Self
    }

    /// Works off what the poll has queued.
    fn end(self) {
        let queues = self.take();
        std::mem::forget(self);
        match &queues[..] {
            [queue] => queue.end_poll(),
            // One directory's disk is not waited for before another's.
            queues => queues.iter().for_each(|queue| queue.wake()),
        }
    }

    fn take(&self) -> Vec<Arc<dyn EndOfPoll>> {
        let queues = PUT_OFF.with(|put_off| put_off.replace(None));
        queues.unwrap_or_default()
    }
}

impl Drop for PollUnderWay {
    fn drop(&mut self) {
        self.take().iter().for_each(|queue| queue.wake());
    }
}

/// Leaves what the poll has queued so far to the writer threads: the poll takes long.
pub(super) fn wake_now() {
    let queues = PUT_OFF.with(|put_off| put_off.borrow_mut().as_mut().map(std::mem::take));
    queues.iter().flatten().for_each(|queue| queue.wake());
}

/// Whether the queue will be worked off at the end of the poll that is under way.
fn put_off<W: Work>(queue: &Arc<WriteQueue<W>>) -> bool {
    let at = Arc::as_ptr(queue).cast::<()>();
    PUT_OFF.with(|put_off| match &mut *put_off.borrow_mut() {
        Some(queues) => {
            let is_known = |known: &Arc<dyn EndOfPoll>| Arc::as_ptr(known).cast::<()>() == at;
            if !queues.iter().any(is_known) {
                queues.push(queue.clone());
            }
            true
        }
        None => false,
    })
}

/// Wakes a task, unless its poll is under way: then another one follows without the runtime's help.
struct PollWaker {
    task: AtomicWaker,
    poll: AtomicU8,
}

/// Of [`PollWaker::poll`].
const UNDER_WAY: u8 = 1;
/// There is reason for another one.
const WOKEN: u8 = 2;

impl Wake for PollWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Writes in any case, so that what was done before is seen by the poll that sees this.
        if self.poll.fetch_or(WOKEN, Ordering::AcqRel) & UNDER_WAY == 0 {
            self.task.wake();
        }
    }
}

impl PollWaker {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            task: AtomicWaker::new(),
            poll: AtomicU8::new(0),
        })
    }

    /// Begins a poll; what was there to wake for is looked at now.
    fn begin(&self) {
        self.poll.swap(UNDER_WAY, Ordering::AcqRel);
    }

    /// Whether the poll ended; otherwise there is reason for another one.
    fn end(&self) -> bool {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let ended = self.poll.compare_exchange(UNDER_WAY, 0, success, failure);
        ended.is_ok()
    }
}

/// Polls a future, and at the end of each poll writes what it has queued.
pub async fn with_inline_writes<T>(mut future: Pin<&mut impl Future<Output = T>>) -> T {
    let own = PollWaker::new();
    let waker = Waker::from(own.clone());
    poll_fn(|cx| {
        own.task.register(cx.waker());
        for _ in 0..POLLS_MAX {
            own.begin();
            let under_way = PollUnderWay::begin();
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            under_way.end();
            if polled.is_ready() || own.end() {
                return polled;
            }
        }
        // Others are polled first.
        own.poll.swap(0, Ordering::AcqRel);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}
