//! A data directory whose writes go nowhere, and what is held against what becomes of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};

use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use shuttle::thread;
use tokio::sync::oneshot;

use crate::executor::{Filled, Workers};
use crate::inline_write::{INLINE_BYTES_MAX, InlineWrites, Work, WriteQueue};
use crate::primitives::{Condvar, Mutex};

const WRITER: &str = "writer";

/// A job's connection, and its number there.
pub type Name = (usize, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On the fast path.
    Little,
    /// More than a connection writes.
    Much,
    /// Not on the fast path.
    Slow,
    /// All that comes after it is refused. Not on the fast path.
    Moves,
    /// Ends the commit group by a panic.
    Panics,
    /// By one that the supervisor does not hold.
    Escapes,
}

/// Why something is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Moved,
    /// The queue takes nothing more, or a panic took it.
    Unwritten,
}

/// Where it is written.
pub type Answer = Result<usize, Refused>;

pub struct Job {
    name: Name,
    kind: Kind,
    reply: oneshot::Sender<Answer>,
}

/// A panic that goes past the supervisor.
struct Escape;

pub struct Directory {
    written: Mutex<Vec<Name>>,
    writers: AtomicUsize,
    moved: AtomicBool,
    /// By a panic.
    ended: AtomicBool,
    closed: AtomicBool,
    /// Connections that write, in any directory, and how many may.
    inline: OnceLock<(Arc<AtomicUsize>, usize)>,
    /// Lets a connection's write go on when the runtime was set going.
    stands_still: Option<(Mutex<bool>, Condvar)>,
}

/// Counts down when dropped, also by a panic.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn one_more(count: &'a AtomicUsize, max: usize, what: &str) -> Self {
        assert!(count.fetch_add(1, SeqCst) < max, "{what}");
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Directory {
    pub fn new() -> Self {
        Self {
            written: Mutex::new(Vec::new()),
            writers: AtomicUsize::new(0),
            moved: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            inline: OnceLock::new(),
            stands_still: None,
        }
    }

    /// One in which connections' writes go on only when the runtime was set going.
    pub fn standing_still() -> Self {
        Self {
            stands_still: Some((Mutex::new(false), Condvar::new())),
            ..Self::new()
        }
    }

    /// What is written so far.
    pub fn written(&self) -> Vec<Name> {
        self.written.lock().clone()
    }

    fn is_written_by_thread() -> bool {
        thread::current().name() == Some(WRITER)
    }

    /// Waits until the runtime was set going.
    fn stand_still(&self) {
        if let Some((going, changed)) = &self.stands_still {
            let mut going = going.lock();
            while !*going {
                changed.wait(&mut going);
            }
            *going = false;
        }
    }

    fn do_one(&self, job: Job) {
        match job.kind {
            Kind::Panics => resume_unwind(Box::new(())),
            Kind::Escapes => resume_unwind(Box::new(Escape)),
            _ if self.moved.load(SeqCst) => drop(job.reply.send(Err(Refused::Moved))),
            kind => {
                self.moved.store(kind == Kind::Moves, SeqCst);
                let mut written = self.written.lock();
                let (connection, number) = job.name;
                let mut before = written.iter().filter(|(other, _)| *other == connection);
                let is_next = before.next_back().is_none_or(|(_, last)| *last < number);
                assert!(is_next, "{:?} is written after {:?}", job.name, *written);
                written.push(job.name);
                let at = written.len() - 1;
                drop(written);
                let _ = job.reply.send(Ok(at));
            }
        }
    }
}

impl Work for Directory {
    type Job = Job;

    fn bytes(job: &Job) -> usize {
        match job.kind {
            Kind::Much => INLINE_BYTES_MAX,
            _ => 1,
        }
    }

    fn is_on_fast_path(&self, jobs: &[Job], _: usize) -> bool {
        let is_slow = |job: &Job| matches!(job.kind, Kind::Slow | Kind::Moves);
        !jobs.iter().any(is_slow)
    }

    fn write(&self, jobs: &mut Vec<Job>, on_panic: impl FnOnce()) {
        let _writes = Counted::one_more(&self.writers, 1, "two write at a time");
        let is_stopped = self.closed.load(SeqCst) || self.ended.load(SeqCst);
        assert!(
            !is_stopped || jobs.is_empty(),
            "something is written after the end"
        );
        let by_thread = Self::is_written_by_thread();
        let _inline = self
            .inline
            .get()
            .filter(|_| !by_thread)
            .map(|(count, max)| Counted::one_more(count, *max, "too many connections write"));
        if !by_thread {
            let bytes: usize = jobs.iter().map(Self::bytes).sum();
            let may_write = bytes < INLINE_BYTES_MAX && self.is_on_fast_path(jobs, bytes);
            assert!(may_write, "a connection writes what is the thread's");
            self.stand_still();
        }
        let work = || jobs.drain(..).for_each(|job| self.do_one(job));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.ended.store(true, SeqCst);
            match panic.is::<Escape>() {
                true => resume_unwind(panic),
                false => on_panic(),
            }
        }
    }

    fn refuse(job: Job, _: &str) {
        let _ = job.reply.send(Err(Refused::Unwritten));
    }

    fn set_runtime_going(&self) {
        if let Some((going, changed)) = &self.stands_still {
            *going.lock() = true;
            changed.notify_one();
        }
    }
}

/// `None` where it ended by a panic that the supervisor does not hold. As the runtime does for a task.
pub fn unless_escaped<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Some(done),
        Err(panic) if panic.is::<Escape>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// Counts the connections that write in any of these.
pub fn expect_at_most(houses: &[House], max: usize) {
    let count = Arc::new(AtomicUsize::new(0));
    for house in houses {
        let _ = house.directory().inline.set((count.clone(), max));
    }
}

/// A directory's queue and its thread; clones share them.
#[derive(Clone)]
pub struct House {
    queue: Arc<WriteQueue<Directory>>,
    thread: Arc<std::sync::Mutex<Option<thread::JoinHandle<()>>>>,
}

impl House {
    pub fn open(directory: Directory, inline_writes: InlineWrites) -> Self {
        let filled = Filled::new(&Workers::Threads);
        let queue = WriteQueue::new(directory, filled, inline_writes);
        let of_thread = queue.clone();
        let thread = thread::Builder::new().name(WRITER.to_owned());
        let thread = thread.spawn(move || {
            if unless_escaped(|| of_thread.run()).is_none() {
                of_thread.fail();
            }
        });
        Self {
            queue,
            thread: Arc::new(std::sync::Mutex::new(thread.ok())),
        }
    }

    pub fn directory(&self) -> &Directory {
        &self.queue.work
    }

    /// Queues a job; what comes is checked before it is given.
    pub fn push(&self, name: Name, kind: Kind) -> impl Future<Output = Answer> + use<> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Job { name, kind, reply });
        let queue = self.queue.clone();
        async move {
            let answer = answer.await.unwrap_or(Err(Refused::Unwritten));
            if let Ok(at) = answer {
                assert_eq!(queue.work.written().get(at), Some(&name));
            }
            answer
        }
    }

    /// Stops the thread, and waits for it. Nothing is written afterwards.
    pub fn close(&self) {
        self.queue.stop();
        let thread = self.thread.lock().unwrap().take();
        if let Some(thread) = thread {
            thread.join().unwrap();
        }
        let directory = self.directory();
        assert_eq!(
            directory.writers.load(SeqCst),
            0,
            "somebody writes after the stop"
        );
        directory.closed.store(true, SeqCst);
    }
}
