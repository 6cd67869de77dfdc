//! The thread that writes a data directory's journal (`log/journal.rs`): all that waits for it goes into one round, and
//! one sync answers it. When a file of the journal is full, the partitions in it are synced themselves, and the other
//! file is taken; as long as that one is still needed, partitions are synced one by one instead.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use metaq_protocol::batch::BATCH_HEADER_BYTES;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use uuid::Uuid;

use super::leader::Partition;
use super::set::PartitionsOptions;
use super::sync::SyncThreads;
use super::workers::{Step, Workers};
use crate::log::journal::{Entry, Journal, WrittenBatch};
use crate::log::{Disk, OffsetPosition};
use crate::vital::Vital;

/// A partition's part of a round of the writer, if it has more bytes than this, is synced in its own file: what is large
/// is not written twice.
pub(super) const PART_BYTES_MAX: usize = 64 << 10;

/// What one round of the writer appended to one partition.
pub(super) struct Part {
    pub(super) partition: Arc<Partition>,
    pub(super) written: Vec<WrittenBatch>,
    /// The log's end behind it.
    pub(super) end: OffsetPosition,
}

impl Part {
    fn bytes(&self) -> usize {
        let bytes = |batch: &WrittenBatch| BATCH_HEADER_BYTES + batch.body.len();
        self.written.iter().map(bytes).sum()
    }
}

#[derive(Default)]
struct State {
    parts: Vec<Part>,
    stopping: bool,
    /// It failed: everything is synced by itself.
    broken: bool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    /// Instead of `filled`, where a task waits.
    filled_for_task: Option<Notify>,
}

/// A handle to the thread; clones share it.
#[derive(Clone)]
pub(super) struct Journaling {
    queue: Arc<Queue>,
    keeper: Arc<Mutex<Keeper>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Journaling {
    /// Starts the thread for a directory; `None` where there is to be no journal.
    pub(super) fn start(
        name: &str,
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &PartitionsOptions,
        syncs: &SyncThreads,
        vital: &Vital,
    ) -> std::io::Result<Option<Self>> {
        if options.journal_file_bytes == 0 {
            return Ok(None);
        }
        let steps = matches!(options.workers, Workers::Steps(_));
        let queue = Arc::new(Queue {
            filled_for_task: steps.then(Notify::new),
            ..Queue::default()
        });
        let keeper = Arc::new(Mutex::new(Keeper {
            journal: Journal::new(disk, dir, options.journal_file_bytes),
            needed: Default::default(),
            syncs: syncs.clone(),
        }));
        let this = Self {
            queue: queue.clone(),
            keeper: keeper.clone(),
            thread: Arc::default(),
        };
        if steps {
            tokio::spawn(run_steps(queue, keeper, options.workers.clone()));
            return Ok(Some(this));
        }
        let name = format!("journal {name}");
        let vital = vital.clone();
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                vital.run(&name, || run(&queue, &keeper), || ());
            })?;
        *this.thread.lock() = Some(thread);
        Ok(Some(this))
    }

    /// Whether it takes anything.
    pub(super) fn is_usable(&self) -> bool {
        !self.queue.state.lock().broken
    }

    /// Queues what a round appended.
    pub(super) fn push(&self, parts: Vec<Part>) {
        if parts.is_empty() {
            return;
        }
        let mut state = self.queue.state.lock();
        if state.broken {
            drop(state);
            let keeper = self.keeper.lock();
            parts
                .into_iter()
                .for_each(|part| keeper.sync_instead(part.partition));
            return;
        }
        state.parts.extend(parts);
        drop(state);
        match &self.queue.filled_for_task {
            None => {
                self.queue.filled.notify_one();
            }
            Some(filled) => filled.notify_one(),
        }
    }

    /// Finishes what is queued and ends the thread.
    pub(super) fn stop(&self) {
        self.queue.state.lock().stopping = true;
        self.queue.filled.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        // Where there is no thread.
        work_off(&self.queue, &self.keeper);
    }
}

/// The journal, and who still needs what is in its files.
struct Keeper {
    journal: Journal,
    needed: [Needed; 2],
    syncs: SyncThreads,
}

/// Partitions by topic id and index, with the end before which all must be synced.
type Needed = HashMap<(Uuid, i32), (Arc<Partition>, i64)>;

impl Keeper {
    /// Writes a round and answers who waits for it. An error means that the journal is not to be used any more; who
    /// was not answered is to be synced by itself.
    fn write(&mut self, mut parts: Vec<Part>) -> std::io::Result<()> {
        let batches = parts.iter().map(|part| part.written.len()).sum();
        let bytes = parts.iter().map(Part::bytes).sum();
        if !self.journal.takes(batches, bytes) {
            // Half of it may do.
            let second = parts.split_off(parts.len() / 2);
            if parts.is_empty() {
                second
                    .into_iter()
                    .for_each(|part| self.sync_instead(part.partition));
                return Ok(());
            }
            self.write(parts)?;
            return self.write(second);
        }
        if !self.journal.has_room(batches, bytes) && !self.switch()? {
            parts
                .into_iter()
                .for_each(|part| self.sync_instead(part.partition));
            return Ok(());
        }
        self.append(&parts)?;
        let needed = &mut self.needed[self.journal.active()];
        for Part { partition, end, .. } in parts {
            partition.journaled(end);
            let key = (partition.topic_id(), partition.index());
            needed.insert(key, (partition, end.offset));
        }
        Ok(())
    }

    fn append(&mut self, parts: &[Part]) -> std::io::Result<()> {
        let mut entries = Vec::with_capacity(parts.len());
        for part in parts {
            entries.extend(part.written.iter().map(|batch| Entry {
                topic_id: part.partition.topic_id(),
                partition: part.partition.index(),
                batch,
            }));
        }
        self.journal.append(&entries)
    }

    /// Takes the other file, unless somebody still needs it.
    fn switch(&mut self) -> std::io::Result<bool> {
        let active = self.journal.active();
        let others = &mut self.needed[1 - active];
        others.retain(|_, (partition, end)| partition.needs_journal(*end));
        if !others.is_empty() {
            others
                .values()
                .for_each(|(partition, _)| self.syncs.push(partition.clone()));
            return Ok(false);
        }
        self.journal.switch()?;
        let retired = self.needed[active].values();
        retired.for_each(|(partition, _)| self.syncs.push(partition.clone()));
        Ok(true)
    }

    fn sync_instead(&self, partition: Arc<Partition>) {
        partition.not_journaled();
        self.syncs.push(partition);
    }
}

/// Writes all that is queued, until nothing is.
fn work_off(queue: &Queue, keeper: &Mutex<Keeper>) {
    loop {
        let parts = std::mem::take(&mut queue.state.lock().parts);
        if parts.is_empty() {
            return;
        }
        let partitions: Vec<_> = parts.iter().map(|part| part.partition.clone()).collect();
        let mut keeper = keeper.lock();
        let why = match std::panic::catch_unwind(AssertUnwindSafe(|| keeper.write(parts))) {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "a round panicked; this is a bug".to_owned(),
        };
        tracing::error!(
            why,
            "the journal is not written any more; partitions are synced one by one"
        );
        let mut state = queue.state.lock();
        state.broken = true;
        let left = std::mem::take(&mut state.parts);
        drop(state);
        let left = left.into_iter().map(|part| part.partition);
        partitions
            .into_iter()
            .chain(left)
            .for_each(|partition| keeper.sync_instead(partition));
    }
}

fn run(queue: &Queue, keeper: &Mutex<Keeper>) {
    loop {
        {
            let mut state = queue.state.lock();
            while state.parts.is_empty() {
                if state.stopping {
                    return;
                }
                queue.filled.wait(&mut state);
            }
        }
        work_off(queue, keeper);
    }
}

/// The thread's work as a task.
async fn run_steps(queue: Arc<Queue>, keeper: Arc<Mutex<Keeper>>, workers: Workers) {
    let (Some(filled), Workers::Steps(pause)) = (&queue.filled_for_task, &workers) else {
        return;
    };
    loop {
        filled.notified().await;
        tokio::time::sleep(pause(Step::Sync)).await;
        work_off(&queue, &keeper);
        if queue.state.lock().stopping {
            return;
        }
    }
}
