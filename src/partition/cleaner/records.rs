//! What is known of the logs that are compacted: which are at work, how the last pass of each was, which failed and rest.
//!
//! Tests: partition/cleaner/tests.rs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::handle::Partition;
use crate::log::{Compacted, LogError};

/// A log that failed is tried again after this, and after twice as long each time that it fails again.
const RETRY_MIN: Duration = Duration::from_secs(60);
/// At least so often.
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// A log that somebody else rewrites is left to that one for so long.
const REST: Duration = Duration::from_secs(1);
/// A pass for tombstones alone that found none to drop is not made again for so long.
const TOMBSTONES_REST: Duration = Duration::from_secs(600);

/// A partition, whatever its topic is called.
pub(super) type Key = (Uuid, i32);

pub(super) fn key_of(partition: &Partition) -> Key {
    (partition.topic_id(), partition.index())
}

/// The last pass over a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastPass {
    /// When it ended, ms since 1970.
    pub at_ms: i64,
    /// How long it took.
    pub took_ms: i64,
    /// First dirty offset after it.
    pub cleaned_until: i64,
    /// Bytes of the segments that it wrote anew.
    pub before_bytes: u64,
    /// Bytes of what took their place.
    pub after_bytes: u64,
    /// Bytes that it read.
    pub read_bytes: u64,
    /// Bytes that it wrote.
    pub written_bytes: u64,
    /// Keys that were in its map.
    pub keys: usize,
}

/// A log that cannot be compacted, and rests until it is tried again (Kafka's uncleanable partitions, which rest until the
/// broker's restart).
#[derive(Clone, Debug)]
pub struct Uncleanable {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// Why.
    pub reason: String,
    /// What to do.
    pub remedy: &'static str,
    /// Since when, ms since 1970.
    pub since_ms: i64,
    /// How often it failed since then.
    pub failures: u32,
    /// Bytes that are not compacted because of it, as of the last look.
    pub dirty_bytes: u64,
    retry_at: Instant,
}

/// Sums since the start, and what was seen at the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CleanerFigures {
    /// Passes that came to their end.
    pub passes: u64,
    /// Passes that failed.
    pub failures: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Bytes by which logs became smaller.
    pub dropped_bytes: u64,
    /// The largest dirty share of a log, 0 to 1, at the last look.
    pub dirty_ratio_max: f64,
    /// Logs with records older than `max.compaction.lag.ms` that are not compacted, at the last look.
    pub overdue: u64,
    /// How long the longest of the last passes of each log took, ms.
    pub last_pass_ms_max: i64,
    /// Logs that cannot be compacted.
    pub uncleanable: u64,
    /// Their dirty bytes.
    pub uncleanable_bytes: u64,
    /// Threads that ended by a bug.
    pub dead_threads: u64,
}

#[derive(Default)]
struct State {
    at_work: HashSet<Key>,
    resting: HashMap<Key, Instant>,
    tombstones_resting: HashMap<Key, Instant>,
    uncleanable: BTreeMap<Key, Uncleanable>,
    passes: HashMap<Key, LastPass>,
    sums: CleanerFigures,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Records {
    state: Mutex<State>,
    dead_threads: AtomicU64,
}

/// A log that one cleaner works on, and no other one, as long as this is kept.
pub(super) struct Claim<'a> {
    records: &'a Records,
    key: Key,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.records.state.lock().at_work.remove(&self.key);
    }
}

/// How a log is at a look.
pub(super) struct Seen {
    pub(super) key: Key,
    pub(super) dirty_ratio: f64,
    pub(super) dirty_bytes: u64,
    pub(super) is_overdue: bool,
}

impl Seen {
    /// It is there, and nothing is known of it at the moment.
    pub(super) fn unknown(key: Key) -> Self {
        Self {
            key,
            dirty_ratio: 0.0,
            dirty_bytes: 0,
            is_overdue: false,
        }
    }
}

impl Records {
    /// Whether a cleaner works on a log.
    pub(super) fn is_at_work(&self, key: Key) -> bool {
        self.state.lock().at_work.contains(&key)
    }

    /// Takes a log, where no other cleaner has it.
    pub(super) fn claim(&self, key: Key) -> Option<Claim<'_>> {
        let is_new = self.state.lock().at_work.insert(key);
        is_new.then_some(Claim { records: self, key })
    }

    /// Whether a log is left alone for now.
    pub(super) fn rests(&self, key: Key, now: Instant) -> bool {
        let state = self.state.lock();
        let uncleanable = state.uncleanable.get(&key);
        state.at_work.contains(&key)
            || state.resting.get(&key).is_some_and(|until| now < *until)
            || uncleanable.is_some_and(|log| now < log.retry_at)
    }

    /// Whether a pass for tombstones alone is worth it.
    pub(super) fn may_drop_tombstones(&self, key: Key, now: Instant) -> bool {
        let state = self.state.lock();
        let resting = state.tombstones_resting.get(&key);
        resting.is_none_or(|until| now >= *until)
    }

    /// Notes how all compacted logs are; what is known of others is forgotten.
    pub(super) fn looked(&self, logs: &[Seen]) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let there: HashSet<Key> = logs.iter().map(|log| log.key).collect();
        state.resting.retain(|key, _| there.contains(key));
        state
            .tombstones_resting
            .retain(|key, _| there.contains(key));
        state.passes.retain(|key, _| there.contains(key));
        state.uncleanable.retain(|key, _| there.contains(key));
        for log in logs {
            if let Some(uncleanable) = state.uncleanable.get_mut(&log.key) {
                uncleanable.dirty_bytes = log.dirty_bytes;
            }
        }
        let ratios = logs.iter().map(|log| log.dirty_ratio);
        state.sums.dirty_ratio_max = ratios.fold(0.0, f64::max);
        state.sums.overdue = logs.iter().filter(|log| log.is_overdue).count() as u64;
    }

    pub(super) fn let_rest(&self, key: Key) {
        self.state.lock().resting.insert(key, Instant::now() + REST);
    }

    /// A pass came to its end. `was_dirty` where there was more to do than to drop tombstones.
    pub(super) fn done(&self, key: Key, pass: LastPass, was_dirty: bool) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.uncleanable.remove(&key);
        state.passes.insert(key, pass);
        let sums = &mut state.sums;
        sums.passes += 1;
        sums.read_bytes += pass.read_bytes;
        sums.written_bytes += pass.written_bytes;
        sums.dropped_bytes += pass.before_bytes.saturating_sub(pass.after_bytes);
        match !was_dirty && pass.after_bytes >= pass.before_bytes {
            true => {
                let until = Instant::now() + TOMBSTONES_REST;
                state.tombstones_resting.insert(key, until);
            }
            false => drop(state.tombstones_resting.remove(&key)),
        }
    }

    /// A pass failed; how long the log rests, and how often it has failed by now.
    pub(super) fn failed(
        &self,
        partition: &Partition,
        (reason, remedy): (String, &'static str),
        dirty_bytes: u64,
        now_ms: i64,
    ) -> (Duration, u32) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.sums.failures += 1;
        let entry = state.uncleanable.entry(key_of(partition));
        let log = entry.or_insert_with(|| Uncleanable {
            topic: partition.topic().clone(),
            partition: partition.index(),
            reason: String::new(),
            remedy,
            since_ms: now_ms,
            failures: 0,
            dirty_bytes,
            retry_at: Instant::now(),
        });
        let rest = RETRY_MIN * 2u32.saturating_pow(log.failures.min(10));
        let rest = rest.min(RETRY_MAX);
        (log.reason, log.remedy, log.dirty_bytes) = (reason, remedy, dirty_bytes);
        log.failures += 1;
        log.retry_at = Instant::now() + rest;
        (rest, log.failures)
    }

    /// Other settings may have taken the cause away: what failed is tried again.
    pub(super) fn try_again(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        for log in state.uncleanable.values_mut() {
            log.retry_at = now;
        }
    }

    pub(super) fn thread_died(&self) {
        self.dead_threads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn last_pass(&self, key: Key) -> Option<LastPass> {
        self.state.lock().passes.get(&key).copied()
    }

    pub(super) fn uncleanable(&self) -> Vec<Uncleanable> {
        self.state.lock().uncleanable.values().cloned().collect()
    }

    pub(super) fn figures(&self) -> CleanerFigures {
        let state = self.state.lock();
        let bytes = state.uncleanable.values().map(|log| log.dirty_bytes);
        let took = state.passes.values().map(|pass| pass.took_ms).max();
        CleanerFigures {
            last_pass_ms_max: took.unwrap_or(0),
            uncleanable: state.uncleanable.len() as u64,
            uncleanable_bytes: bytes.sum(),
            dead_threads: self.dead_threads.load(Ordering::Relaxed),
            ..state.sums
        }
    }
}

impl LastPass {
    pub(super) fn of(compacted: &Compacted, at_ms: i64, took: Duration) -> Self {
        Self {
            at_ms,
            took_ms: i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
            cleaned_until: compacted.cleaned_until,
            before_bytes: compacted.before_bytes,
            after_bytes: compacted.after_bytes,
            read_bytes: compacted.read_bytes,
            written_bytes: compacted.written_bytes,
            keys: compacted.keys,
        }
    }
}

/// What an operator does about a pass that failed.
pub(super) fn remedy_of(error: &LogError) -> &'static str {
    match error {
        LogError::TooManyKeys { .. } => {
            "raise log.cleaner.dedupe.buffer.size, or let producers send smaller batches"
        }
        LogError::Damaged { .. } | LogError::Hole { .. } => {
            "the log is damaged: see what metaq log verify says of its directory, and restore it from a copy"
        }
        LogError::Io(_) => "free space, or look at the disk; it is tried again by itself",
        _ => "it is tried again by itself; report it with this line if it goes on",
    }
}
