//! The writer thread of a data directory: it owns every append, roll and deletion there.
//!
//! It takes all that is queued at once, writes each partition's batches together, hands partitions that must
//! be synced to the sync threads, and answers. The queue is bounded by the request memory that connections may
//! hold: every queued batch is a slice of a frame that was admitted.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::journaling::{Journaling, Part};
use super::leader::{AppendReply, Partition};
use super::set::PartitionsOptions;
use super::sync::SyncThreads;
use super::wakes;
use super::workers::{Filled, Step, Workers};
use crate::clock::WallClock;
use crate::log::{Disk, LogError, ProducedBatch};
use crate::meta::Lease;
use crate::vital::Vital;

/// The thread is woken at once when this much is queued, also within [`super::wakes_together`].
const WAKE_BYTES: usize = 256 << 10;

/// Why nothing is written any more after a bug.
const ENDED: &str = "the writer thread ended; the broker must be restarted";

enum Job {
    Append {
        partition: Arc<Partition>,
        batches: Vec<ProducedBatch>,
        reply: AppendReply,
    },
    Run(Box<dyn FnOnce() + Send>),
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Filled,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    /// Bytes of the batches among them.
    bytes: usize,
    stopping: bool,
    /// The thread ended by a panic.
    ended: bool,
}

impl State {
    /// Gives all that is queued for an empty list.
    fn take(&mut self, jobs: &mut Vec<Job>) {
        self.bytes = 0;
        std::mem::swap(jobs, &mut self.jobs);
    }
}

impl Queue {
    pub(super) fn wake(&self) {
        self.filled.wake();
    }

    /// Does what is queued.
    fn work_off(&self, hand: &Hand) {
        let mut jobs = Vec::new();
        self.state.lock().take(&mut jobs);
        hand.work(&mut jobs);
    }

    /// Refuses what is queued, and all that comes.
    fn fail(&self) {
        let jobs = {
            let mut state = self.state.lock();
            state.ended = true;
            std::mem::take(&mut state.jobs)
        };
        jobs.into_iter().for_each(|job| job.refuse(ENDED));
    }
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { batches, .. } => batches.iter().map(|batch| batch.bytes.len()).sum(),
            Self::Run(_) => 0,
        }
    }

    /// Answers without doing it; who waits for a [`Job::Run`] sees that it is gone.
    fn refuse(self, why: &str) {
        if let Self::Append { reply, .. } = self {
            let _ = reply.send(Err(LogError::Offline(why.to_owned())));
        }
    }
}

/// Until when this broker may write, once that is known. Without a lease nothing is held back.
pub(super) type Gate = Arc<OnceLock<Arc<Lease>>>;

/// A handle to the writer thread; clones share it.
#[derive(Clone)]
pub struct Writer {
    queue: Arc<Queue>,
    hand: Hand,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What a round is written with.
#[derive(Clone)]
struct Hand {
    syncs: SyncThreads,
    journal: Option<Journaling>,
    gate: Gate,
    clock: WallClock,
}

impl Writer {
    /// Starts the thread, and those that sync beside it, for a data directory on a disk.
    pub(super) fn start(
        name: &str,
        (disk, dir): (Arc<dyn Disk>, &Path),
        options: &PartitionsOptions,
        gate: Gate,
        vital: &Vital,
    ) -> std::io::Result<Self> {
        let syncs = SyncThreads::start(name, options, vital)?;
        let hand = Hand {
            journal: Journaling::start(name, disk, dir, options, &syncs, vital)?,
            syncs,
            gate,
            clock: options.clock.clone(),
        };
        if let Workers::Steps(_) = options.workers {
            return Ok(Self::start_steps(&options.workers, hand));
        }
        let queue = Arc::new(Queue::default());
        let (of_thread, with, vital) = (queue.clone(), hand.clone(), vital.clone());
        let name = format!("writer {name}");
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                vital.run(&name, || run(&of_thread, &with), || of_thread.fail());
            })?;
        Ok(Self {
            queue,
            hand,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    fn start_steps(workers: &Workers, hand: Hand) -> Self {
        let queue = Arc::new(Queue {
            filled: Filled::new(workers),
            ..Queue::default()
        });
        tokio::spawn(run_steps(queue.clone(), hand.clone(), workers.clone()));
        Self {
            queue,
            hand,
            thread: Arc::default(),
        }
    }

    pub(super) fn append(
        &self,
        partition: Arc<Partition>,
        batches: Vec<ProducedBatch>,
        reply: AppendReply,
    ) {
        self.push(Job::Append {
            partition,
            batches,
            reply,
        });
    }

    /// Runs something on the writer thread, behind all that was queued before.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        self.push(Job::Run(Box::new(move || {
            let _ = reply.send(work());
        })));
        answer
    }

    /// The same, waiting for it on a thread that may wait; `None` when the thread ended.
    pub(super) fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let mut answer = self.run(work);
        match self.queue.filled.tasks {
            None => answer.blocking_recv().ok(),
            Some(_) => {
                self.queue.work_off(&self.hand);
                answer.try_recv().ok()
            }
        }
    }

    /// Syncs every partition by itself from now on.
    pub(super) fn do_without_journal(&self) {
        if let Some(journal) = &self.hand.journal {
            journal.give_up("what is in it is needed");
        }
    }

    /// Asks for a sync of a partition soon.
    pub fn sync_soon(&self, partition: &Arc<Partition>) {
        self.hand.syncs.push(partition.clone());
    }

    fn push(&self, job: Job) {
        let mut state = self.queue.state.lock();
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
        let much = before < WAKE_BYTES && state.bytes >= WAKE_BYTES;
        drop(state);
        if much || (first && !wakes::put_off(&self.queue)) {
            self.queue.wake();
        }
    }

    /// Finishes what is queued and ends the threads.
    pub fn stop(&self) {
        self.queue.state.lock().stopping = true;
        self.queue.wake();
        match self.thread.lock().take() {
            Some(thread) => {
                let _ = thread.join();
            }
            None => self.queue.work_off(&self.hand),
        }
        if let Some(journal) = &self.hand.journal {
            journal.stop();
        }
        self.hand.syncs.stop();
    }
}

/// The thread's work as a task.
async fn run_steps(queue: Arc<Queue>, hand: Hand, workers: Workers) {
    let (Some(filled), Workers::Steps(pause)) = (&queue.filled.tasks, &workers) else {
        return;
    };
    loop {
        filled.notified().await;
        tokio::time::sleep(pause(Step::Write)).await;
        queue.work_off(&hand);
        if queue.state.lock().stopping {
            return;
        }
    }
}

fn run(queue: &Queue, hand: &Hand) {
    let mut jobs = Vec::new();
    loop {
        {
            let mut state = queue.state.lock();
            while state.jobs.is_empty() {
                if state.stopping {
                    return;
                }
                queue.filled.threads.wait(&mut state);
            }
            state.take(&mut jobs);
        }
        hand.work(&mut jobs);
    }
}

impl Hand {
    fn work(&self, jobs: &mut Vec<Job>) {
        let mut round = Round::default();
        for job in jobs.drain(..) {
            match job {
                Job::Append {
                    partition,
                    batches,
                    reply,
                } => round.add(partition, batches, reply),
                Job::Run(work) => {
                    // What was queued before it is written before it.
                    std::mem::take(&mut round).write(self);
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
                        tracing::error!("a task of the writer thread panicked");
                    }
                }
            }
        }
        round.write(self);
    }
}

/// What one pass over the queue found, by partition in the order of their first batch.
#[derive(Default)]
struct Round {
    at: HashMap<*const Partition, usize>,
    groups: Vec<Group>,
}

struct Group {
    partition: Arc<Partition>,
    requests: Vec<Vec<ProducedBatch>>,
    replies: Vec<AppendReply>,
}

/// The pointers are only compared; the groups keep their partitions alive.
impl Round {
    fn add(&mut self, partition: Arc<Partition>, batches: Vec<ProducedBatch>, reply: AppendReply) {
        let groups = &mut self.groups;
        let at = *self.at.entry(Arc::as_ptr(&partition)).or_insert_with(|| {
            groups.push(Group {
                partition,
                requests: Vec::new(),
                replies: Vec::new(),
            });
            groups.len() - 1
        });
        groups[at].requests.push(batches);
        groups[at].replies.push(reply);
    }

    fn write(self, hand: &Hand) {
        if hand.gate.get().is_some_and(|lease| !lease.is_valid()) {
            // The process may have been stopped for longer than others wait.
            let replies = self.groups.into_iter().flat_map(|group| group.replies);
            for reply in replies {
                let _ = reply.send(Err(LogError::NotLeader));
            }
            return;
        }
        let journal = hand.journal.as_ref().filter(|journal| journal.is_usable());
        let mut parts = Vec::new();
        for Group {
            partition,
            requests,
            replies,
        } in self.groups
        {
            let now_ms = hand.clock.now_ms();
            let work = || partition.append_round(&requests, replies, now_ms, journal.is_some());
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
                Ok(wanted) => {
                    if wanted.sync {
                        hand.syncs.push(partition.clone());
                    }
                    parts.extend(wanted.journal.map(|(written, end)| Part {
                        partition,
                        written,
                        end,
                    }));
                }
                Err(_) => {
                    partition.log().fail("an append panicked; this is a bug");
                    tracing::error!(topic = %partition.topic(), partition = partition.index(), "append panicked")
                }
            }
        }
        if let Some(journal) = journal {
            journal.push(parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RealDisk;

    /// Panics once more while a panic's remains are cleared away.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose, again");
        }
    }

    #[test]
    fn a_writer_that_ended_by_a_panic_leaves_nobody_waiting() {
        let vital = Vital::default();
        let options = PartitionsOptions::new(Vec::new());
        let place = (Arc::new(RealDisk) as Arc<dyn Disk>, Path::new("."));
        let writer = Writer::start("x", place, &options, Gate::default(), &vital).unwrap();
        let fatal = writer.run(|| std::panic::panic_any(Bomb));
        let behind = writer.run(|| ());
        assert!(fatal.blocking_recv().is_err() && behind.blocking_recv().is_err());
        assert!(writer.run(|| ()).blocking_recv().is_err());
        assert_eq!(vital.ended(), ["writer x"]);
        writer.stop();
    }
}
