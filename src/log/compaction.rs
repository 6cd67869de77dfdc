//! Compaction: of the records of a key, the last one stays (cleanup.policy=compact; Kafka's LogCleanerManager and Cleaner).
//!
//! ```text
//! log start      cleaned until              end                    log end
//!    │ clean: one record a key │ dirty: new since │ not yet: active segment, …│
//! ```
//!
//! A pass puts the newest offset of each key of the dirty part into a map, the newest segment first, and then goes through
//! all segments: of a clean one the key index beside it tells whether newer records supersede any of it, and where they do
//! not, it is left alone. Where the map is full before the whole dirty part is in it, what is in it is applied to all that is
//! older, and the next pass goes on below.
//!
//! What holds at every moment, through kills and power failures: the last record of every key before the end of the pass is
//! there, in its place and with its offset. A record goes only for one that is newer, durable, and not part of a transaction
//! that is open or aborted.
//!
//! Never taken: the active segment, what is not synced, what is at or after the last stable offset, and what is younger than
//! `min.compaction.lag.ms`.

mod batch_reader;
mod cleaned_segment;
mod groups;
mod key_index;
mod key_map;
mod pass;
mod retention;
mod rewriter;
mod scan;
mod swap;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LogError;
use super::partition_log::{HORIZON_UNKNOWN, Log};
use super::segment::{Segment, segment_of};

use key_index::{KeyIndex, NO_HORIZON};

pub use key_map::{KEY_MAP_BYTES_MIN, KeyMap};
pub(super) use swap::finish_swaps;

/// What of a log could be compacted at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleanable {
    /// Records before it were compacted already.
    pub first_dirty: i64,
    /// All before it may be compacted: a segment's base offset, or `first_dirty` where there is nothing.
    pub end: i64,
    /// Bytes of the segments before `first_dirty`.
    pub clean_bytes: u64,
    /// Bytes of the segments between the two.
    pub dirty_bytes: u64,
    /// The first dirty record is older than `max.compaction.lag.ms`.
    pub is_overdue: bool,
    /// Tombstones are there whose time has come, as far as is known.
    pub has_due_tombstones: bool,
}

impl Cleanable {
    /// The share of bytes that is dirty, 0 to 1.
    pub fn dirty_ratio(&self) -> f64 {
        match self.clean_bytes + self.dirty_bytes {
            0 => 0.0,
            all => self.dirty_bytes as f64 / all as f64,
        }
    }
}

/// What a pass over a log is given.
pub struct CompactionPass<'a> {
    /// [`Cleanable::end`].
    pub until: i64,
    /// Room for keys; what is in it is forgotten.
    pub keys: &'a mut KeyMap,
    /// The clock, ms.
    pub now_ms: i64,
    /// Hears of the bytes that are read or written, and may sleep; `false` ends the pass.
    pub throttle: &'a mut dyn FnMut(u64) -> bool,
}

/// What a pass did.
#[derive(Default)]
pub struct Compacted {
    /// The first dirty offset now; before the pass's end where the map was full: another pass goes on.
    pub cleaned_until: i64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Bytes of the segments that were written anew.
    pub before_bytes: u64,
    /// Bytes of what took their place.
    pub after_bytes: u64,
    /// Keys in the map.
    pub keys: usize,
}

impl Log {
    /// What could be compacted now. `last_stable` is the last stable offset.
    pub fn cleanable(&self, last_stable: i64, now_ms: i64) -> Result<Cleanable, LogError> {
        let (ends, segments, config) = (self.ends(), self.segments(), self.config());
        let known = self.cleaned_until();
        // As Kafka's LogCleanerManager.cleanableOffsets.
        let first_dirty = match known < ends.log_start || known > ends.log_end.offset {
            true => ends.log_start,
            false => known,
        };
        let active = segments[segments.len() - 1].base_offset;
        let bound = last_stable.min(ends.synced_end).min(active);
        let first = segment_of(&segments, first_dirty);
        let mut end = segment_of(&segments, bound);
        if config.min_compaction_lag_ms > 0 {
            for (at, segment) in segments.iter().enumerate().take(end).skip(first) {
                let newest = segment.largest_timestamp()?.timestamp;
                if newest > now_ms.saturating_sub(config.min_compaction_lag_ms) {
                    end = at;
                    break;
                }
            }
        }
        let end = segments[end].base_offset.max(first_dirty);
        let bytes = |from: i64, to: i64| {
            let there = segments.iter().take(segments.len() - 1);
            let there = there.filter(|segment| (from..to).contains(&segment.base_offset));
            there.map(|segment| segment.bytes()).sum()
        };
        let first_base = match end > first_dirty {
            true => segments[first].base_offset,
            false => first_dirty,
        };
        Ok(Cleanable {
            first_dirty,
            end,
            clean_bytes: bytes(i64::MIN, first_base),
            dirty_bytes: bytes(first_base, end),
            is_overdue: end > first_dirty
                && is_older(
                    &segments[first..],
                    now_ms.saturating_sub(config.max_compaction_lag_ms),
                )?,
            has_due_tombstones: self.delete_horizon()? <= now_ms,
        })
    }

    /// When the first of the tombstones that passes went through may go, ms: after a restart key indexes tell it.
    fn delete_horizon(&self) -> Result<i64, LogError> {
        let known = self.delete_horizon.load(Ordering::Acquire);
        if known != HORIZON_UNKNOWN {
            return Ok(known);
        }
        let mut horizon = NO_HORIZON;
        for segment in self.segments().iter() {
            if let Some(index) = KeyIndex::open(&*self.disk, segment)? {
                horizon = horizon.min(index.facts.delete_horizon);
            }
        }
        // A pass may have found another one meanwhile.
        let found = self.delete_horizon.compare_exchange(
            HORIZON_UNKNOWN,
            horizon,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        Ok(found.map_or_else(|newer| newer, |_| horizon))
    }

    /// The first dirty offset: what is before it was compacted.
    pub fn cleaned_until(&self) -> i64 {
        self.cleaned_until.load(Ordering::Acquire)
    }

    /// An opened log was compacted before.
    pub(super) fn note_compacted(&self, cleaned_until: i64) {
        let known = match cleaned_until > self.ends().log_end.offset {
            // It is of another log.
            true => 0,
            false => cleaned_until,
        };
        self.cleaned_until.store(known, Ordering::Release);
    }

    /// The segments that passes have written anew since this was asked last, also those that did not come to their end. They are
    /// renamed to `*.deleted`: to be unlinked after `file.delete.delay.ms`.
    pub fn take_replaced(&self) -> Vec<Arc<Segment>> {
        std::mem::take(&mut self.replaced.lock())
    }

    /// Whether somebody waits for a pass to give the log up.
    pub fn is_rewrite_wanted(&self) -> bool {
        self.rewriting.is_wanted()
    }

    /// One pass of compaction. Takes as long as reading takes: on a thread of its own. `None` where somebody else rewrites the
    /// log, or it is offline. [`LogError::Stopped`] where it is to end, or somebody waits for it: nothing is lost, and what
    /// was done stays done.
    pub fn compact(&self, pass: &mut CompactionPass<'_>) -> Result<Option<Compacted>, LogError> {
        let Some(rewriting) = self.rewriting.try_lock() else {
            return Ok(None);
        };
        if self.is_offline() {
            return Ok(None);
        }
        let compacted = pass::run(self, &rewriting, pass);
        pass.keys.clear();
        compacted.map(Some)
    }
}

/// Whether the first batch of one of these segments, the last aside, is older than a time.
fn is_older(segments: &[Arc<Segment>], than_ms: i64) -> Result<bool, LogError> {
    let sealed = &segments[..segments.len() - 1];
    if than_ms < 0 {
        return Ok(false);
    }
    for segment in sealed {
        let first = segment.batches(0, segment.bytes())?.next()?;
        if first.is_some_and(|batch| (0..than_ms).contains(&batch.header.max_timestamp)) {
            return Ok(true);
        }
    }
    Ok(false)
}
