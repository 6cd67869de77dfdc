//! The handle to what writes in a data directory: every append, roll and deletion there goes through it.
//!
//! What is queued is taken at once, each partition's batches are written together, partitions that must be synced are
//! handed to the sync threads, and all are answered. The queue is bounded by the request memory that connections may
//! hold: every queued batch is a slice of a frame that was admitted.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::ack_queue::AppendReply;
use super::commit_group::{CommitContext, Gate, Job};
use super::executor::{Filled, Step, Workers};
use super::inline_write::WriteQueue;
use super::journal_writer::Journaling;
use super::options::PartitionsOptions;
use super::replica::Replica;
use super::sync_threads::SyncThreads;
use crate::log::{AppendRequest, Disk};
use crate::supervisor::Supervisor;

/// A handle to the writer thread; clones share it.
#[derive(Clone)]
pub struct Writer {
    queue: Arc<WriteQueue<CommitContext>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Writer {
    /// Starts the thread, and those that sync beside it, for a data directory on a disk.
    pub(super) fn start(
        name: &str,
        (disk, dir): (Arc<dyn Disk>, &Path),
        options: &PartitionsOptions,
        gate: Gate,
        supervisor: &Supervisor,
    ) -> std::io::Result<Self> {
        let syncs = SyncThreads::start(name, options, supervisor)?;
        let thread_name = format!("writer {name}");
        let context = CommitContext {
            name: thread_name.clone(),
            supervisor: supervisor.clone(),
            runtime: Handle::try_current().ok(),
            journal: Journaling::start(name, disk, dir, options, &syncs, supervisor)?,
            syncs,
            gate,
            clock: options.clock.clone(),
        };
        let filled = Filled::new(&options.workers);
        let queue = WriteQueue::new(context, filled, options.inline_writes.clone());
        if let Workers::Steps(_) = options.workers {
            tokio::spawn(run_steps(queue.clone(), options.workers.clone()));
            return Ok(Self {
                queue,
                thread: Arc::default(),
            });
        }
        let (of_thread, supervisor) = (queue.clone(), supervisor.clone());
        let thread = std::thread::Builder::new()
            .name(thread_name.clone())
            .spawn(move || {
                supervisor.run(&thread_name, || of_thread.run(), || of_thread.fail());
            })?;
        Ok(Self {
            queue,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    pub(super) fn append(
        &self,
        partition: Arc<Replica>,
        request: AppendRequest,
        reply: AppendReply,
    ) {
        self.queue.push(Job::Append {
            partition,
            request,
            reply,
        });
    }

    /// The time of day.
    pub(super) fn now_ms(&self) -> i64 {
        self.queue.work.clock.now_ms()
    }

    /// Runs something on the writer thread, after all that was queued before.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Job::Run(Box::new(move || {
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
                self.queue.work_off();
                answer.try_recv().ok()
            }
        }
    }

    /// The journal of the directory, where there is one.
    pub(super) fn journal(&self) -> Option<&Journaling> {
        self.queue.work.journal.as_ref()
    }

    /// Syncs every partition by itself from now on.
    pub(super) fn do_without_journal(&self) {
        if let Some(journal) = &self.queue.work.journal {
            journal.leave_as_it_is();
        }
    }

    /// Asks for a sync of a partition soon.
    pub fn sync_soon(&self, partition: &Arc<Replica>) {
        self.queue.work.syncs.push(partition.clone());
    }

    /// Finishes what is queued and ends the threads.
    pub fn stop(&self) {
        self.queue.stop();
        match self.thread.lock().take() {
            Some(thread) => {
                let _ = thread.join();
            }
            None => self.queue.work_off(),
        }
        if let Some(journal) = &self.queue.work.journal {
            journal.stop();
        }
        self.queue.work.syncs.stop();
    }
}

/// The thread's work as a task.
async fn run_steps(queue: Arc<WriteQueue<CommitContext>>, workers: Workers) {
    let (Some(filled), Workers::Steps(pause)) = (&queue.filled.tasks, &workers) else {
        return;
    };
    loop {
        filled.notified().await;
        tokio::time::sleep(pause(Step::Write)).await;
        queue.work_off();
        if queue.is_stopping() {
            return;
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
        let supervisor = Supervisor::default();
        let options = PartitionsOptions::new(Vec::new());
        let place = (Arc::new(RealDisk) as Arc<dyn Disk>, Path::new("."));
        let writer = Writer::start("x", place, &options, Gate::default(), &supervisor).unwrap();
        let fatal = writer.run(|| std::panic::panic_any(Bomb));
        let later = writer.run(|| ());
        assert!(fatal.blocking_recv().is_err() && later.blocking_recv().is_err());
        assert!(writer.run(|| ()).blocking_recv().is_err());
        assert_eq!(supervisor.ended(), ["writer x"]);
        writer.stop();
    }
}
