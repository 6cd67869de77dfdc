//! Dropping what is old: retention by time and by size, and DeleteRecords (KIP-107).
//!
//! Only whole sealed segments are dropped; an active segment that is due is rolled first. Dropped segments are
//! renamed at once and unlinked after `file.delete.delay.ms` by the caller.
//!
//! Tests: log/tests.rs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LogError;
use super::partition_log::{Log, Tail};
use super::producer_snapshot;
use super::segment::Segment;

impl Log {
    /// Applies retention as of `now_ms`, never beyond `high_watermark`. Returns the dropped segments; none while the log is
    /// being rewritten.
    ///
    /// Only what is synced is dropped: with unsynced segments alone a power failure could leave nothing, and offsets
    /// would be given twice. What DeleteRecords took goes at once, for its start is on the disk. Where there is an archive,
    /// only what is in it is dropped (`archive.rs`); DeleteRecords does not wait for that.
    pub fn retain(&self, now_ms: i64, high_watermark: i64) -> Result<Vec<Arc<Segment>>, LogError> {
        let Some(_rewriting) = self.rewriting.try_lock() else {
            return Ok(Vec::new());
        };
        let mut tail = self.lock_tail();
        if self.is_offline() {
            return Ok(Vec::new());
        }
        let mut drop = self.due(now_ms, high_watermark)?;
        if self.config().archive_dir.is_some() {
            drop = drop.min(self.below(self.archived_until.load(Ordering::Acquire)));
        }
        let drop = drop.max(self.before_log_start().min(self.below(high_watermark)));
        self.drop_oldest(&mut tail, drop, now_ms)
    }

    /// How many of the oldest segments retention takes, synced ones alone.
    pub(super) fn due(&self, now_ms: i64, high_watermark: i64) -> Result<usize, LogError> {
        let synced_end = self.ends().synced_end;
        self.due_before(now_ms, high_watermark.min(synced_end))
    }

    /// Whether retention would take more were the log synced.
    pub fn retention_waits_for_sync(
        &self,
        now_ms: i64,
        high_watermark: i64,
    ) -> Result<bool, LogError> {
        let synced = self.due(now_ms, high_watermark)?;
        Ok(self.due_before(now_ms, high_watermark)? > synced)
    }

    fn due_before(&self, now_ms: i64, offset: i64) -> Result<usize, LogError> {
        let config = self.config();
        if !config.delete {
            return Ok(0);
        }
        let due = self
            .due_by_time(now_ms, config.retention_ms)?
            .max(self.due_by_size(config.retention_bytes));
        Ok(due.min(self.below(offset)))
    }

    /// Moves the log's start to `offset`; what lies wholly before it is dropped, now or by the next retention. Returns the
    /// dropped segments.
    pub fn advance_log_start(
        &self,
        offset: i64,
        now_ms: i64,
    ) -> Result<Vec<Arc<Segment>>, LogError> {
        let rewriting = self.rewriting.try_lock();
        let mut tail = self.lock_tail();
        let ends = self.ends();
        if offset > ends.log_end.offset {
            return Err(LogError::OffsetOutOfRange {
                offset,
                log_start: ends.log_start,
                log_end: ends.log_end.offset,
            });
        }
        if offset > ends.log_start {
            self.ends.write().log_start = offset;
            self.drop_epochs_before(offset);
        }
        match rewriting {
            Some(_) => self.drop_oldest(&mut tail, self.before_log_start(), now_ms),
            // Retention takes them later.
            None => Ok(Vec::new()),
        }
    }

    /// How many of the oldest segments are older than `retention_ms`.
    fn due_by_time(&self, now_ms: i64, retention_ms: i64) -> Result<usize, LogError> {
        if retention_ms < 0 {
            return Ok(0);
        }
        let mut due = 0;
        for segment in self.segments.load().iter() {
            if segment.bytes() == 0
                || now_ms.saturating_sub(segment.age_timestamp_ms()?) <= retention_ms
            {
                break;
            }
            due += 1;
        }
        Ok(due)
    }

    /// How many of the oldest segments can go so that at least `retention_bytes` remain.
    fn due_by_size(&self, retention_bytes: i64) -> usize {
        if retention_bytes < 0 {
            return 0;
        }
        let mut surplus = self.bytes() as i64 - retention_bytes;
        let fits = |segment: &&Arc<Segment>| {
            surplus -= segment.bytes() as i64;
            surplus >= 0 && segment.bytes() > 0
        };
        self.segments.load().iter().take_while(fits).count()
    }

    /// How many segments end before the log's start.
    fn before_log_start(&self) -> usize {
        let log_start = self.ends().log_start;
        let segments = self.segments.load();
        segments
            .iter()
            .skip(1)
            .take_while(|next| next.base_offset <= log_start)
            .count()
    }

    /// How many segments end at or before `offset`.
    fn below(&self, offset: i64) -> usize {
        let segments = self.segments.load();
        let sealed = segments
            .iter()
            .skip(1)
            .take_while(|next| next.base_offset <= offset)
            .count();
        if self.ends().log_end.offset <= offset {
            segments.len()
        } else {
            sealed
        }
    }

    fn drop_oldest(
        &self,
        tail: &mut Tail,
        drop: usize,
        now_ms: i64,
    ) -> Result<Vec<Arc<Segment>>, LogError> {
        if drop == 0 {
            return Ok(Vec::new());
        }
        if drop >= self.segments.load().len() {
            self.roll(tail, now_ms)?;
        }
        let mut kept = Vec::clone(&self.segments.load());
        let drop = drop.min(kept.len() - 1);
        let dropped: Vec<_> = kept.drain(..drop).collect();
        let first = kept[0].base_offset;
        if !dropped.is_empty() && !kept.iter().any(|segment| segment.is_named()) {
            // Or a power failure could take all that is left, and offsets would be given twice.
            self.sync_names()?;
            kept.iter().for_each(|segment| segment.note_named());
        }
        // In this order, so that a reader that finds a segment gone finds the reason too.
        let log_start = {
            let mut ends = self.ends.write();
            ends.log_start = ends.log_start.max(first);
            ends.synced_end = ends.synced_end.max(ends.log_start);
            ends.log_start
        };
        self.segments.store(Arc::new(kept));
        // Whatever fails from here on, their files are to go: a full disk, too, has room again by that alone.
        for segment in &dropped {
            let marked = segment.mark_deleted();
            self.warn_of(marked, "cannot mark a segment as deleted");
        }
        self.drop_epochs_before(log_start);
        let removed = producer_snapshot::remove(&*self.disk, &self.dir(), |at| at < first);
        self.warn_of(removed, "cannot remove snapshots of producers");
        Ok(dropped)
    }

    /// Forgets leader epochs that are over before an offset. Where that cannot be stored, the file has some more than it must.
    fn drop_epochs_before(&self, offset: i64) {
        if self.change_epochs(|epochs| epochs.truncate_from_start(offset)) {
            self.warn_of(self.store_epochs(), "cannot store the leader epochs");
        }
    }

    fn warn_of<E: std::fmt::Display>(&self, result: Result<(), E>, what: &'static str) {
        if let Err(error) = result {
            tracing::warn!(dir = %self.dir().display(), %error, "{what}");
        }
    }

    /// How many producers are remembered, with those of which only a transaction is being verified.
    pub fn producers_remembered(&self) -> usize {
        self.producers.lock().remembered()
    }

    /// Forgets the producers that wrote longest ago, until no more are left; those of open transactions stay.
    pub fn forget_producers(&self, left: usize) {
        self.producers.lock().forget_oldest(left);
    }

    /// Forgets producers that were silent for long.
    pub fn expire_producers(&self, now_ms: i64, expiration_ms: i64) {
        self.producers.lock().expire(now_ms, expiration_ms);
    }
}

/// Removes the files of dropped segments.
pub fn unlink_all(dropped: &[Arc<Segment>]) {
    for segment in dropped {
        if let Err(error) = segment.unlink() {
            tracing::warn!(segment = %segment.path().display(), %error, "cannot remove a deleted segment");
        }
    }
}
