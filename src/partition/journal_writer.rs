//! The threads that write a data directory's journal (`log/journal.rs`). What waits when one of them is free goes into a
//! journal record; journal records are synced side by side, because devices like that, and answered in their order. When a file of the
//! journal is full, the partitions in it are synced themselves, and the other file is taken; as long as that one is still
//! needed, partitions are synced one by one instead.
//!
//! Tests: tests/power.rs, tests/simulation.rs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use metaq_protocol::batch::BATCH_HEADER_BYTES;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::executor::{Filled, Step, Workers};
use super::options::PartitionsOptions;
use super::replica::{Replica, ToJournal};
use super::sync_threads::SyncThreads;
use crate::log::Disk;
use crate::log::journal::{self, Entry, Journal, JournalRange, WrittenBatch};
use crate::observe::Syncs;
use crate::supervisor::Supervisor;

/// Journal records that are synced side by side.
const RECORDS_IN_FLIGHT_MAX: usize = 4;

/// What one commit group of the writer appended to one partition.
pub(super) struct JournaledAppend {
    pub(super) partition: Arc<Replica>,
    pub(super) what: ToJournal,
}

impl JournaledAppend {
    fn bytes(&self) -> usize {
        let bytes = |batch: &WrittenBatch| BATCH_HEADER_BYTES + batch.body.len();
        self.what.written.iter().map(bytes).sum()
    }

    fn entries(&self) -> usize {
        self.what.written.len() + usize::from(self.what.cut.is_some())
    }
}

#[derive(Default)]
struct State {
    parts: Vec<JournaledAppend>,
    stopping: bool,
    /// It failed: everything is synced by itself.
    broken: bool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    filled: Filled,
}

/// The journal, and who still needs what is in its files.
struct JournalState {
    journal: Journal,
    needed: [Needed; 2],
    held: Arc<Mutex<Held>>,
    /// Journal records under way, by the file that they are in.
    under_way: [usize; 2],
    /// Journal records that are over while one before them is not, by their numbers.
    over: BTreeMap<u64, JournalRecord>,
    /// The number of the journal record that is to be answered next.
    next: Option<u64>,
    /// A journal record failed: none that was under way counts, nor any after it.
    failed: bool,
    /// Nothing in the files counts any more.
    discarded: bool,
    syncs: SyncThreads,
}

/// What the files may hold; asked without waiting for whoever writes.
#[derive(Default)]
struct Held {
    /// Partitions, by topic id and index, of which each file holds anything.
    partitions: [HashSet<(Uuid, i32)>; 2],
    /// They hold what was in them at the start, which could not be put aside.
    unsettled: bool,
}

/// Partitions by topic id and index, with the end before which all must be synced.
type Needed = HashMap<(Uuid, i32), (Arc<Replica>, i64)>;

/// What is written and synced together.
struct JournalRecord {
    range: JournalRange,
    parts: Vec<JournaledAppend>,
    is_durable: bool,
}

impl JournalRecord {
    fn write(&mut self) -> io::Result<()> {
        let mut entries = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let entry = |batch| Entry {
                topic_id: part.partition.topic_id(),
                partition: part.partition.index(),
                run_from: part.what.run_from,
                batch,
            };
            entries.extend(part.what.written.iter().map(|batch| entry(Some(batch))));
            if part.what.cut.is_some() {
                entries.push(entry(None));
            }
        }
        self.range.write(&entries)?;
        self.is_durable = true;
        Ok(())
    }
}

/// A handle to the threads; clones share them.
#[derive(Clone)]
pub(super) struct Journaling {
    journal: Arc<JournalQueue>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

struct JournalQueue {
    queue: Queue,
    state_of_files: Mutex<JournalState>,
    held: Arc<Mutex<Held>>,
    counted: Arc<Syncs>,
}

impl Journaling {
    /// Starts the threads for a directory; `None` where there is to be no journal.
    pub(super) fn start(
        name: &str,
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &PartitionsOptions,
        syncs: &SyncThreads,
        supervisor: &Supervisor,
    ) -> io::Result<Option<Self>> {
        if options.journal_file_bytes == 0 {
            return Ok(None);
        }
        let is_stepwise = matches!(options.workers, Workers::Steps(_));
        let writers = options.sync_threads.clamp(1, RECORDS_IN_FLIGHT_MAX);
        let held = Arc::new(Mutex::new(Held::default()));
        let journal = Arc::new(JournalQueue {
            queue: Queue {
                filled: Filled::new(&options.workers),
                ..Queue::default()
            },
            state_of_files: Mutex::new(JournalState {
                journal: Journal::new(disk, dir, options.journal_file_bytes, writers),
                needed: Default::default(),
                held: held.clone(),
                under_way: [0; 2],
                over: BTreeMap::new(),
                next: None,
                failed: false,
                discarded: false,
                syncs: syncs.clone(),
            }),
            held: held.clone(),
            counted: options.syncs.clone(),
        });
        let mut threads = Vec::new();
        for n in 0..writers {
            if is_stepwise {
                tokio::spawn(run_steps(journal.clone(), n, options.workers.clone()));
                continue;
            }
            let (journal, supervisor) = (journal.clone(), supervisor.clone());
            let name = format!("journal {name} {n}");
            let thread = std::thread::Builder::new()
                .name(name.clone())
                .spawn(move || {
                    supervisor.run(
                        &name,
                        || run(&journal, n),
                        || journal.give_up("a thread ended"),
                    )
                })?;
            threads.push(thread);
        }
        Ok(Some(Self {
            journal,
            threads: Arc::new(Mutex::new(threads)),
        }))
    }

    /// Whether it takes anything.
    pub(super) fn is_usable(&self) -> bool {
        !self.journal.queue.state.lock().broken
    }

    /// Takes nothing from now on: what was in it at the start is needed, and could not be put aside.
    pub(super) fn leave_as_it_is(&self) {
        self.journal.held.lock().unsettled = true;
        self.journal.give_up("what is in it is needed");
    }

    /// Whether what was in it at the start is still there.
    pub(super) fn is_unsettled(&self) -> bool {
        self.journal.held.lock().unsettled
    }

    /// What was in it at the start has been put aside after all. Nothing was written to it since.
    pub(super) fn note_settled(&self) {
        self.journal.held.lock().unsettled = false;
    }

    /// Whether it may hold anything of a partition, of whichever object that stood for it.
    pub(super) fn may_hold(&self, topic_id: Uuid, index: i32) -> bool {
        let has = |of_file: &HashSet<(Uuid, i32)>| of_file.contains(&(topic_id, index));
        self.journal.held.lock().partitions.iter().any(has)
    }

    /// Queues what a commit group of the writer appended.
    pub(super) fn push(&self, parts: Vec<JournaledAppend>) {
        if parts.is_empty() {
            return;
        }
        let queue = &self.journal.queue;
        let mut state = queue.state.lock();
        if state.broken {
            drop(state);
            self.journal.state_of_files.lock().sync_instead(parts);
            return;
        }
        state.parts.extend(parts);
        drop(state);
        queue.filled.wake();
    }

    /// Notes durably that logs are cut off at offsets: what was journaled of them from there on does not count. `false` for
    /// those of which that could not be noted.
    pub(super) async fn cut(&self, cuts: Vec<(Arc<Replica>, i64)>) -> Vec<bool> {
        let (mut parts, mut noted) = (Vec::new(), Vec::new());
        for (partition, offset) in cuts {
            let (cut, answer) = oneshot::channel();
            let end = partition.log().ends().log_end;
            let what = ToJournal {
                written: Vec::new(),
                run_from: offset,
                end,
                cut: Some(cut),
            };
            parts.push(JournaledAppend { partition, what });
            noted.push(answer);
        }
        self.push(parts);
        let noted = noted
            .into_iter()
            .map(async |answer| answer.await == Ok(true));
        futures_util::future::join_all(noted).await
    }

    /// What it holds of partitions is needed no more, where another object stands for them now, or none.
    pub(super) fn release(&self, is_released: impl Fn(Uuid, i32) -> bool) {
        for needed in &mut self.journal.state_of_files.lock().needed {
            needed.retain(|(topic_id, index), (partition, _)| {
                !(partition.is_deleted() && is_released(*topic_id, *index))
            });
        }
    }

    /// Discards what a journal holds that takes nothing any more, durably; `false` while a partition still needs it.
    pub(super) fn dissolve(&self, disk: &dyn Disk, dir: &Path) -> bool {
        self.journal.state_of_files.lock().dissolve(disk, dir)
    }

    /// Finishes what is queued and ends the threads.
    pub(super) fn stop(&self) {
        self.journal.queue.state.lock().stopping = true;
        self.journal.queue.filled.threads.notify_all();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
        // Where there are none.
        while let Some(mut record) = self.journal.begin(0) {
            let written = record.write();
            self.journal.finish(record, written);
        }
    }
}

impl JournalQueue {
    /// Takes what is queued and gives it a range of writer `n`; `None` when nothing is left to be written.
    fn begin(&self, n: usize) -> Option<JournalRecord> {
        // Under this lock, so that journal records have their numbers in the order of the queue.
        let mut state_of_files = self.state_of_files.lock();
        loop {
            let parts = std::mem::take(&mut self.queue.state.lock().parts);
            if parts.is_empty() {
                return None;
            }
            let parts = state_of_files.in_their_runs(parts);
            if parts.is_empty() {
                continue;
            }
            match state_of_files.range(n, &parts) {
                Ok(Some(range)) => {
                    return Some(JournalRecord {
                        range,
                        parts,
                        is_durable: false,
                    });
                }
                Ok(None) => state_of_files.sync_instead(parts),
                Err(error) => {
                    state_of_files.sync_instead(parts);
                    drop(state_of_files);
                    self.give_up(&error.to_string());
                    return None;
                }
            }
        }
    }

    /// Answers the journal record, and those that waited for it.
    fn finish(&self, record: JournalRecord, written: io::Result<()>) {
        self.state_of_files.lock().finish(record);
        if let Err(error) = written {
            self.give_up(&error.to_string());
        }
    }

    /// Takes nothing any more. What was not answered is synced by itself.
    fn give_up(&self, why: &str) {
        let left = {
            let mut state = self.queue.state.lock();
            if !state.broken {
                tracing::error!(
                    why,
                    "the journal is not written any more; partitions are synced one by one"
                );
            }
            state.broken = true;
            std::mem::take(&mut state.parts)
        };
        self.state_of_files.lock().sync_instead(left);
    }
}

impl JournalState {
    /// Those whose run the journal still has without a gap. What came before the others was synced instead of being journaled
    /// after they were queued: they are too, or recovery would miss it in their run.
    fn in_their_runs(&self, parts: Vec<JournaledAppend>) -> Vec<JournaledAppend> {
        let is_in_run = |part: &JournaledAppend| {
            part.what.cut.is_some() || part.partition.is_run_of_journal(part.what.run_from)
        };
        let (whole, torn): (Vec<_>, Vec<_>) = parts.into_iter().partition(is_in_run);
        for JournaledAppend { partition, .. } in torn {
            self.syncs.push(partition);
        }
        whole
    }

    /// A range for a journal record of these parts, perhaps in the other file; `None` where there is none now.
    fn range(
        &mut self,
        writer: usize,
        parts: &[JournaledAppend],
    ) -> io::Result<Option<JournalRange>> {
        let batches = parts.iter().map(JournaledAppend::entries).sum();
        let bytes = parts.iter().map(JournaledAppend::bytes).sum();
        let mut range = self.journal.range(writer, batches, bytes);
        if range.is_none() && self.journal.takes(batches, bytes) && self.switch()? {
            range = self.journal.range(writer, batches, bytes);
        }
        if let Some(range) = &range {
            let key = |part: &JournaledAppend| (part.partition.topic_id(), part.partition.index());
            self.held.lock().partitions[range.in_file].extend(parts.iter().map(key));
            self.under_way[range.in_file] += 1;
            self.next.get_or_insert(range.number);
        }
        Ok(range)
    }

    fn dissolve(&mut self, disk: &dyn Disk, dir: &Path) -> bool {
        for needed in &mut self.needed {
            needed.retain(|_, (partition, end)| partition.needs_journal(*end));
            let waiting = needed.values();
            waiting.for_each(|(partition, _)| self.syncs.push(partition.clone()));
        }
        let is_needed = self.under_way.iter().any(|n| *n > 0)
            || self.needed.iter().any(|needed| !needed.is_empty());
        if is_needed || self.discarded || self.held.lock().unsettled {
            return self.discarded;
        }
        match journal::discard_written(disk, dir) {
            Ok(()) => {
                self.discarded = true;
                self.held.lock().partitions = Default::default();
            }
            Err(error) => tracing::warn!(%error, "cannot discard the journal"),
        }
        self.discarded
    }

    /// Takes the other file, unless somebody still needs it.
    fn switch(&mut self) -> io::Result<bool> {
        let active = self.journal.active();
        let others = &mut self.needed[1 - active];
        others.retain(|_, (partition, end)| partition.needs_journal(*end));
        if !others.is_empty() || self.under_way[1 - active] > 0 {
            for (partition, _) in others.values() {
                self.syncs.push(partition.clone());
            }
            return Ok(false);
        }
        self.journal.switch()?;
        self.held.lock().partitions[1 - active].clear();
        for (partition, _) in self.needed[active].values() {
            self.syncs.push(partition.clone());
        }
        Ok(true)
    }

    /// Answers all journal records that are over, up to the first that is not. None counts once one has failed: what the device
    /// did with the others that were under way is not known.
    fn finish(&mut self, record: JournalRecord) {
        self.failed |= !record.is_durable;
        self.over.insert(record.range.number, record);
        if self.failed {
            for (_, record) in std::mem::take(&mut self.over) {
                self.under_way[record.range.in_file] -= 1;
                self.sync_instead(record.parts);
            }
            return;
        }
        while let Some(number) = self.next
            && let Some(record) = self.over.remove(&number)
        {
            let in_file = record.range.in_file;
            self.under_way[in_file] -= 1;
            self.next = Some(number + 1);
            for JournaledAppend { partition, what } in record.parts {
                if let Some(cut) = what.cut {
                    let _ = cut.send(true);
                    continue;
                }
                partition.journaled(what.end);
                if in_file != self.journal.active() {
                    self.syncs.push(partition.clone());
                }
                let key = (partition.topic_id(), partition.index());
                self.needed[in_file].insert(key, (partition, what.end.offset));
            }
        }
    }

    fn sync_instead(&self, parts: Vec<JournaledAppend>) {
        for JournaledAppend { partition, what } in parts {
            match what.cut {
                Some(cut) => drop(cut.send(false)),
                None => {
                    partition.not_journaled();
                    self.syncs.push(partition);
                }
            }
        }
    }
}

fn run(journal: &JournalQueue, n: usize) {
    loop {
        {
            let mut state = journal.queue.state.lock();
            while state.parts.is_empty() {
                if state.stopping {
                    return;
                }
                journal.queue.filled.threads.wait(&mut state);
            }
        }
        if let Some(mut record) = journal.begin(n) {
            let began = Instant::now();
            let write = AssertUnwindSafe(|| record.write());
            let written = std::panic::catch_unwind(write);
            journal
                .counted
                .took(began.elapsed(), || "journal".to_owned());
            let bug = |_| {
                Err(io::Error::other(
                    "a write to the journal panicked; this is a bug",
                ))
            };
            journal.finish(record, written.unwrap_or_else(bug));
        }
    }
}

/// A thread's work as a task.
async fn run_steps(journal: Arc<JournalQueue>, n: usize, workers: Workers) {
    let (Some(filled), Workers::Steps(pause)) = (&journal.queue.filled.tasks, &workers) else {
        return;
    };
    loop {
        filled.notified().await;
        while let Some(mut record) = journal.begin(n) {
            tokio::time::sleep(pause(Step::Sync)).await;
            let written = record.write();
            journal.finish(record, written);
        }
        if journal.queue.state.lock().stopping {
            return;
        }
    }
}
