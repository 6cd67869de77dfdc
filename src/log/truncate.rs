//! Truncation: cutting off the end of a log, or all of it, as a follower does whose leader's log went another way. It is
//! durable when it returns:
//!
//! ```text
//! recovery point lowered to the new end      by the caller, durably: what comes after it is scanned after a crash
//! later segments      renamed to *.deleted, newest first: a kill leaves a shorter log without a hole
//! the last segment    its indexes cut, then its records, then synced; then the directory
//! leader epochs       cut, stored durably
//! producers           snapshots after the new end removed, the state rebuilt from the newest one before it
//! ```
//!
//! Tests: log/transaction_tests.rs, log/committed_tests.rs, tests/simulation.rs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LogError;
use super::failed_sync;
use super::load_producers::load_producers;
use super::offset_position::OffsetPosition;
use super::partition_log::{Log, Tail};
use super::producer_snapshot;
use super::producers::Producers;
use super::restore::LogLocation;
use super::rewrite_lock::Rewriting;
use super::segment::{Segment, segment_of};

impl Log {
    /// How often records of this log were cut off or replaced since it was opened.
    pub fn rewrites(&self) -> u64 {
        self.rewriting.rewrites()
    }

    /// Cuts off what lies at and after an offset, durably; `false` where the log does not reach that far (Kafka's
    /// UnifiedLog.truncateTo). A batch that holds the offset goes whole. The caller has lowered the recovery point before.
    pub fn truncate_to(&self, offset: i64, now_ms: i64) -> Result<bool, LogError> {
        let rewriting = self.rewriting.lock();
        let ends = self.ends();
        if offset >= ends.log_end.offset {
            // An epoch that began at the end and in which nothing was written is not the leader's (Kafka's truncateTo).
            let _appending = self.lock_tail();
            if self.change_epochs(|epochs| epochs.truncate_from_end(offset)) {
                self.store_epochs()?;
            }
            return Ok(false);
        }
        if offset < ends.log_start {
            return Err(LogError::OffsetOutOfRange {
                offset,
                log_start: ends.log_start,
                log_end: ends.log_end.offset,
            });
        }
        self.rewrite(&rewriting, now_ms, |log, tail| log.cut_off(tail, offset))?;
        Ok(true)
    }

    /// Drops all records and goes on at an offset, durably: what a follower does whose leader begins elsewhere (Kafka's
    /// truncateFullyAndStartAt). The caller has set the log's start to it before, and lowered the recovery point.
    pub fn start_anew_at(&self, offset: i64, now_ms: i64) -> Result<(), LogError> {
        let rewriting = self.rewriting.lock();
        self.rewrite(&rewriting, now_ms, |log, tail| {
            log.replace_all(tail, offset, now_ms)
        })
    }

    /// Nobody syncs or appends while it is done; where it fails, the log is offline.
    fn rewrite(
        &self,
        rewriting: &Rewriting<'_>,
        now_ms: i64,
        change: impl FnOnce(&Self, &mut Tail) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let _syncing = self.lock_syncs();
        let mut tail = self.lock_tail();
        if let Some(reason) = self.offline_reason() {
            return Err(LogError::Offline(reason));
        }
        rewriting.begin();
        self.fast_path_epoch.store(-1, Ordering::Relaxed);
        change(self, &mut tail).map_err(|error| {
            // What is on the device is not known: some of it may be cut.
            failed_sync::note(&*self.disk, &self.dir());
            let error = std::io::Error::other(error.to_string());
            LogError::Offline(self.take_offline(&mut tail, &error))
        })?;
        let ends = self.ends();
        debug_assert!(ends.synced_end <= ends.log_end.offset, "{ends:?}");
        self.note_unsynced(&ends, now_ms);
        Ok(())
    }

    fn cut_off(&self, tail: &mut Tail, offset: i64) -> Result<(), LogError> {
        let mut kept = Vec::clone(&self.segments.load());
        let cut = kept.split_off(segment_of(&kept, offset) + 1);
        let last = kept[kept.len() - 1].clone();
        let found = last.batch_holding(offset, last.bytes())?;
        let position = found.map_or(last.bytes(), |batch| batch.position);
        let end = found.map_or(offset, |batch| batch.header.base_offset.min(offset));
        self.segments.store(Arc::new(kept));
        {
            let mut ends = self.ends.write();
            ends.log_end = OffsetPosition {
                offset: end,
                segment_base: last.base_offset,
                position,
            };
            ends.synced_end = ends.synced_end.min(end);
        }
        for segment in cut.iter().rev() {
            segment.mark_deleted()?;
        }
        last.cut(position, end)?;
        tail.bytes_since_index_entry = 0;
        last.file()?.sync_data()?;
        self.finish_cut(&cut, end)
    }

    fn replace_all(&self, tail: &mut Tail, offset: i64, now_ms: i64) -> Result<(), LogError> {
        let all = self.segments.load_full();
        for segment in all.iter().rev() {
            segment.mark_deleted()?;
        }
        let location = LogLocation {
            disk: &self.disk,
            dir: &self.dir(),
            config: &self.config(),
            now_ms,
        };
        let fresh = location.create_first(offset)?;
        {
            let mut ends = self.ends.write();
            ends.log_start = offset;
            ends.synced_end = offset;
            ends.log_end = OffsetPosition {
                offset,
                segment_base: offset,
                position: 0,
            };
        }
        self.segments.store(Arc::new(vec![fresh]));
        tail.bytes_since_index_entry = 0;
        self.change_epochs(|epochs| epochs.clear());
        producer_snapshot::remove(&*self.disk, &self.dir(), |_| true)?;
        self.finish_cut(&all, offset)
    }

    /// Makes durable what was renamed, and cuts what tells of the records.
    fn finish_cut(&self, cut: &[Arc<Segment>], end: i64) -> Result<(), LogError> {
        self.sync_names()?;
        self.segments
            .load()
            .iter()
            .for_each(|segment| segment.note_named());
        self.change_epochs(|epochs| epochs.truncate_from_end(end));
        self.store_epochs()?;
        producer_snapshot::remove(&*self.disk, &self.dir(), |at| at > end)?;
        let segments = self.segments.load();
        let log_start = self.ends().log_start;
        let producers = match end > log_start {
            true => load_producers(&self.disk, &self.dir(), &segments, log_start..end, end)?,
            false => Producers::default(),
        };
        self.replace_producers(producers);
        self.archived_until.fetch_min(end, Ordering::AcqRel);
        self.cleaned_until.fetch_min(end, Ordering::AcqRel);
        *self.compacting.lock() = None;
        for segment in cut {
            segment.unlink()?;
        }
        Ok(())
    }
}
