//! The log of one partition: its segments, what readers may see of them, and the tail that is appended to.
//!
//! ```text
//! log start            recovery point        high watermark      log end
//!    │ segment 0 │ segment 1 │ … │ active segment  ┊                  │
//!    └──── readers see an immutable segment list ──┘   the writer's tail
//! ```
//!
//! Concurrency: one thread at a time appends, rolls, truncates and deletes, under the `tail` lock, which is held while the
//! disk is waited for and which nobody else takes. What others look at is published beside it: segments, settings and
//! leader epochs behind atomic pointers; ends, producers and whether the log is offline under locks that are never held
//! while waiting.
//!
//! Tests: log/tests.rs, log/transaction_tests.rs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::LogError;
use super::config::LogConfig;
use super::disk::Disk;
use super::epochs::LeaderEpochs;
use super::failed_sync;
use super::offset_position::OffsetPosition;
use super::partition_metadata;
use super::producer_snapshot;
use super::producers::Producers;
use super::rewrite_lock::RewriteLock;
use super::segment::{FileAge, Segment, segment_of};

/// The names of a log are made durable when its first segment has a part of its size.
const NAMED_AHEAD_DIVISOR: u64 = 16;

/// What a sync is to make durable.
#[derive(Clone, Copy, Debug)]
pub struct SyncTarget {
    end: OffsetPosition,
    /// How often the log was rewritten by then.
    rewrites: u64,
}

impl SyncTarget {
    /// What lies before it.
    pub fn end(&self) -> OffsetPosition {
        self.end
    }
}

/// Where a log begins, where it ends, and how far it is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOffsets {
    /// First offset that may be read.
    pub log_start: i64,
    /// The next offset to be written.
    pub log_end: OffsetPosition,
    /// Everything before it survives a power loss.
    pub synced_end: i64,
}

/// The mutable end of a log; only its appender works on it.
pub struct Tail {
    pub(super) bytes_since_index_entry: u64,
    pub(super) jitter_ms: i64,
}

/// One partition's log. See the module's documentation.
pub struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: RwLock<PathBuf>,
    pub(super) config: ArcSwap<LogConfig>,
    pub(super) segments: ArcSwap<Vec<Arc<Segment>>>,
    pub(super) ends: RwLock<LogOffsets>,
    pub(super) tail: Mutex<Tail>,
    /// Only the appender changes them.
    pub(super) producers: Mutex<Producers>,
    /// Whether one of them has a transaction that readers of committed records are held back by; changed with their lock.
    pub(super) has_undecided: AtomicBool,
    /// Whether a transaction was aborted, of all that is there.
    pub(super) has_aborted: AtomicBool,
    pub(super) epochs: ArcSwap<LeaderEpochs>,
    /// Why the log takes no more appends, once it does not.
    offline: RwLock<Option<String>>,
    /// When the oldest append that is not synced was written, ms; 0 when all is synced.
    pub(super) unsynced_since_ms: AtomicI64,
    /// One sync at a time: Linux reports a failed writeback once for an open file, and of two syncs side by side only one
    /// would hear of it.
    syncing: Mutex<()>,
    /// Whether the topic's id in its directory is known to be durable.
    topic_id_is_durable: Mutex<bool>,
    /// One at a time changes records that are there already.
    pub(super) rewriting: RewriteLock,
    /// Before this offset newer records have superseded no record that is there: the first dirty offset.
    pub(super) cleaned_until: AtomicI64,
    /// A compaction that goes on: up to where, the offset from which on it is done, and when the first tombstone of what was gone
    /// through may go.
    pub(super) compacting: Mutex<Option<(i64, i64, i64)>>,
    /// Segments whose place others have taken, and nobody was told of yet.
    pub(super) replaced: Mutex<Vec<Arc<Segment>>>,
    /// When the first of the tombstones that are there may go, ms; [`HORIZON_UNKNOWN`] until somebody wants to know.
    pub(super) delete_horizon: AtomicI64,
    /// What keys are hashed with, once it is known.
    pub(super) key_seed: Mutex<Option<[u8; 16]>>,
    /// What lies before it is in the archive, as far as this process knows.
    pub(super) archived_until: AtomicI64,
    /// The leader epoch whose appends are on the fast path: writes to the active segment and nothing else; -1 for none.
    pub(super) fast_path_epoch: AtomicI32,
    /// How much more may be appended like that, and until when the segment is not too old for it, ms.
    pub(super) fast_path_bytes: AtomicU64,
    pub(super) fast_path_until_ms: AtomicI64,
}

/// Nobody has looked for tombstones yet.
pub(super) const HORIZON_UNKNOWN: i64 = i64::MIN;

impl Log {
    pub(super) fn assemble(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        segments: Vec<Arc<Segment>>,
        ends: LogOffsets,
        producers: Producers,
        epochs: LeaderEpochs,
    ) -> Self {
        let jitter_ms = jitter(dir, config.segment_jitter_ms);
        let has_aborted = segments.iter().any(|segment| !segment.aborted.is_empty());
        Self {
            disk,
            dir: RwLock::new(dir.to_path_buf()),
            config: ArcSwap::from_pointee(config),
            segments: ArcSwap::from_pointee(segments),
            ends: RwLock::new(ends),
            tail: Mutex::new(Tail {
                bytes_since_index_entry: 0,
                jitter_ms,
            }),
            has_undecided: AtomicBool::new(!producers.undecided.is_empty()),
            has_aborted: AtomicBool::new(has_aborted),
            producers: Mutex::new(producers),
            epochs: ArcSwap::from_pointee(epochs),
            offline: RwLock::new(None),
            unsynced_since_ms: AtomicI64::new(0),
            syncing: Mutex::new(()),
            topic_id_is_durable: Mutex::new(false),
            rewriting: RewriteLock::default(),
            cleaned_until: AtomicI64::new(0),
            compacting: Mutex::default(),
            replaced: Mutex::default(),
            delete_horizon: AtomicI64::new(HORIZON_UNKNOWN),
            key_seed: Mutex::default(),
            archived_until: AtomicI64::new(0),
            fast_path_epoch: AtomicI32::new(-1),
            fast_path_bytes: AtomicU64::new(0),
            fast_path_until_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// Where its files are.
    pub fn dir(&self) -> PathBuf {
        self.dir.read().clone()
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        self.config.load_full()
    }

    /// Takes new settings; they apply from the next append on.
    pub fn reconfigure(&self, config: LogConfig) {
        self.config.store(Arc::new(config));
        self.fast_path_epoch.store(-1, Ordering::Relaxed);
    }

    /// Start, end and synced end at this moment.
    pub fn ends(&self) -> LogOffsets {
        *self.ends.read()
    }

    /// The segments at this moment, oldest first; never empty.
    pub fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        self.segments.load_full()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments
            .load()
            .iter()
            .map(|segment| segment.bytes())
            .sum()
    }

    /// Why the log takes no more appends, when it does not.
    pub fn offline_reason(&self) -> Option<String> {
        self.offline.read().clone()
    }

    pub fn is_offline(&self) -> bool {
        self.offline.read().is_some()
    }

    /// Looks at the producers, which the appender waits for.
    pub fn with_producers<T>(&self, look: impl FnOnce(&Producers) -> T) -> T {
        look(&self.producers.lock())
    }

    /// The leader epochs at this moment.
    pub fn epochs(&self) -> Arc<LeaderEpochs> {
        self.epochs.load_full()
    }

    /// Changes the leader epochs, by the appender; whether there was anything to change.
    pub(super) fn change_epochs(&self, change: impl FnOnce(&mut LeaderEpochs) -> bool) -> bool {
        let mut epochs = LeaderEpochs::clone(&self.epochs.load());
        let changed = change(&mut epochs);
        if changed {
            self.epochs.store(Arc::new(epochs));
        }
        changed
    }

    pub(super) fn store_epochs(&self) -> io::Result<()> {
        self.epochs.load().store(&*self.disk, &self.dir())
    }

    /// Notes that `leader_epoch` begins here, durably where there are records before it.
    pub fn begin_epoch(&self, leader_epoch: i32) -> Result<(), LogError> {
        let _appending = self.tail.lock();
        let ends = self.ends();
        if self.change_epochs(|epochs| epochs.assign(leader_epoch, ends.log_end.offset)) {
            match ends.log_end.offset > ends.log_start {
                true => self.store_epochs()?,
                // Of what is lost with the power the records themselves tell.
                false => self.epochs.load().write(&*self.disk, &self.dir())?,
            }
        }
        Ok(())
    }

    /// Takes no more appends, for a reason that is not the disk's.
    pub fn fail(&self, reason: &str) {
        self.offline
            .write()
            .get_or_insert_with(|| reason.to_owned());
    }

    /// Marks the log offline after a disk error, and cuts off what was half written; by who holds the tail.
    pub(super) fn take_offline(&self, _: &mut Tail, error: &io::Error) -> String {
        let reason = format!("{}: {error}", self.dir().display());
        tracing::error!(log = %self.dir().display(), %error, "disk error: the partition goes offline");
        if let Some(active) = self.segments.load().last() {
            let _ = active.truncate(active.bytes());
        }
        *self.offline.write() = Some(reason.clone());
        reason
    }

    /// Whether the file that is appended to is found again by its name whatever happens. Until then a journal does not
    /// count: a later segment that is there would stand for records that are not.
    pub fn is_named(&self) -> bool {
        let segments = self.segments.load();
        segments.last().is_some_and(|active| active.is_named())
    }

    /// Syncs everything appended so far; returns the end before which all is durable. Appends go on
    /// meanwhile: their lock is not held during the sync.
    pub fn sync(&self, now_ms: i64) -> Result<OffsetPosition, LogError> {
        let synced = self.sync_to(self.sync_target(), now_ms);
        synced.map(|synced| synced.end)
    }

    /// What a sync that begins now makes durable.
    pub fn sync_target(&self) -> SyncTarget {
        // Nothing is cut off meanwhile.
        let _syncing = self.syncing.lock();
        self.target()
    }

    fn target(&self) -> SyncTarget {
        SyncTarget {
            end: self.ends().log_end,
            rewrites: self.rewrites(),
        }
    }

    /// Whether nothing of the log was cut off or replaced since then.
    pub fn is_as_it_was(&self, target: &SyncTarget) -> bool {
        self.rewrites() == target.rewrites
    }

    /// As [`Self::sync`], for what lies before an end that the log had; returns what is durable now. That is another one where
    /// the log was cut meanwhile: the end says nothing of what was appended after that.
    pub fn sync_to(&self, target: SyncTarget, now_ms: i64) -> Result<SyncTarget, LogError> {
        let _syncing = self.syncing.lock();
        let target = match self.is_as_it_was(&target) {
            true => target,
            false => self.target(),
        };
        let end = target.end;
        if let Some(reason) = self.offline_reason() {
            // After a failed sync the system may have dropped what it could not write: never try again.
            return Err(LogError::Offline(reason));
        }
        let synced_end = self.ends().synced_end;
        if synced_end >= end.offset {
            return Ok(target);
        }
        let result = self.sync_segments(synced_end, end);
        let mut tail = self.tail.lock();
        match result {
            // Meanwhile an append may have found that the disk fails; nothing is promised of such a log any more.
            Ok(()) if self.is_offline() => {
                Err(LogError::Offline(self.offline_reason().unwrap_or_default()))
            }
            Ok(()) => {
                let mut ends = self.ends.write();
                ends.synced_end = ends.synced_end.max(end.offset);
                self.note_unsynced(&ends, now_ms);
                Ok(target)
            }
            Err(error) => {
                failed_sync::note(&*self.disk, &self.dir());
                Err(LogError::Offline(self.take_offline(&mut tail, &error)))
            }
        }
    }

    fn sync_segments(&self, from: i64, to: OffsetPosition) -> io::Result<()> {
        let segments = self.segments.load();
        let first = segment_of(&segments, from);
        let dirty = segments[first..]
            .iter()
            .filter(|segment| segment.base_offset <= to.segment_base);
        let mut unnamed = Vec::new();
        for segment in dirty {
            segment.file()?.sync_data()?;
            if !segment.is_named() {
                unnamed.push(segment);
            }
        }
        // A recovery point after a segment means that its indexes are trusted too.
        if let Some((_, sealed)) = segments.split_last() {
            for segment in sealed.iter().rev() {
                if segment.indexes_are_synced() {
                    break;
                }
                segment.sync_indexes()?;
            }
        }
        if !unnamed.is_empty() {
            self.sync_names()?;
            unnamed.into_iter().for_each(|segment| segment.note_named());
        }
        Ok(())
    }

    /// Makes durable which files the log has, and whose it is: what is found of it after a power failure is never taken for
    /// another topic's of that name.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        let dir = self.dir();
        {
            // Syncs and retention come here at the same time.
            let mut is_durable = self.topic_id_is_durable.lock();
            if !*is_durable {
                *is_durable = partition_metadata::sync(&*self.disk, &dir)?;
            }
        }
        self.disk.sync_dir(&dir)
    }

    /// Makes the names of a log that has begun durable some time before it rolls, so that appends do not wait for it then.
    pub fn name_ahead(&self) -> io::Result<()> {
        let segments = self.segments.load();
        // Asked of every log each second: of one that has nothing as soon as can be.
        let is_due = |active: &Arc<Segment>| {
            let bytes = active.bytes();
            bytes > 0 && bytes >= self.config().segment_bytes / NAMED_AHEAD_DIVISOR
        };
        if segments.iter().any(|segment| segment.is_named()) || !segments.last().is_some_and(is_due)
        {
            return Ok(());
        }
        self.sync_names()?;
        segments.iter().for_each(|segment| segment.note_named());
        Ok(())
    }

    /// Begins a new active segment at the log's end. The old one's indexes are cut and its producers saved.
    pub(super) fn roll(&self, tail: &mut Tail, now_ms: i64) -> io::Result<()> {
        self.fast_path_epoch.store(-1, Ordering::Relaxed);
        let end = self.ends().log_end.offset;
        let segments = self.segments.load_full();
        if let Some(active) = segments.last() {
            if active.base_offset == end {
                return Ok(());
            }
            active.seal()?;
        }
        if !segments.iter().any(|segment| segment.is_named()) {
            // Or a power failure could leave the new one alone: the log would begin with it, as if what was before were deleted.
            self.sync_names()?;
            segments.iter().for_each(|segment| segment.note_named());
        }
        self.store_producers(end)?;
        let config = self.config();
        let dir = self.dir();
        let fresh = Segment::new(
            self.disk.clone(),
            &dir,
            end,
            0,
            FileAge::new(now_ms),
            config.index_bytes_max,
        );
        fresh.create()?;
        let mut rolled = Vec::clone(&segments);
        rolled.push(Arc::new(fresh));
        self.segments.store(Arc::new(rolled));
        self.ends.write().log_end = OffsetPosition {
            offset: end,
            segment_base: end,
            position: 0,
        };
        tail.bytes_since_index_entry = 0;
        tail.jitter_ms = jitter(&dir, config.segment_jitter_ms);
        Ok(())
    }

    /// What is not synced at these offsets waits from now on.
    pub(super) fn note_unsynced(&self, ends: &LogOffsets, now_ms: i64) {
        let since_ms = match ends.log_end.offset > ends.synced_end {
            true => now_ms,
            false => 0,
        };
        self.unsynced_since_ms.store(since_ms, Ordering::Relaxed);
    }

    /// Keeps syncs out.
    pub(super) fn lock_syncs(&self) -> MutexGuard<'_, ()> {
        self.syncing.lock()
    }

    pub(super) fn lock_tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock()
    }

    /// Syncs, saves the producers and cuts the indexes: a clean close. Appends are refused afterwards.
    pub fn close(&self, now_ms: i64) -> Result<i64, LogError> {
        let _rewriting = self.rewriting.lock();
        let synced = self.sync(now_ms)?.offset;
        let mut tail = self.tail.lock();
        if let Some(reason) = self.offline_reason() {
            return Err(LogError::Offline(reason));
        }
        let segments = self.segments.load();
        if let Some(active) = segments.last() {
            active.seal()?;
            if let Err(error) = active.aborted.sync() {
                failed_sync::note(&*self.disk, &self.dir());
                return Err(LogError::Offline(self.take_offline(&mut tail, &error)));
            }
        }
        self.store_producers(synced)?;
        // A segment that was empty until now had nothing else to sync; who opens the log trusts that it is there.
        if segments.iter().any(|segment| !segment.is_named()) {
            self.sync_names()?;
        }
        *self.offline.write() = Some("closed".to_owned());
        Ok(synced)
    }

    /// Saves the producers of all that lies before `offset`.
    fn store_producers(&self, offset: i64) -> io::Result<()> {
        // Copied, so that their lock is not held while waiting for the disk.
        let producers = self.producers.lock().clone();
        producer_snapshot::store(&*self.disk, &self.dir(), offset, &producers)
    }

    /// How long the oldest unsynced append has been waiting; 0 when there is none, and for ever where the clock was set back since.
    pub fn unsynced_for_ms(&self, now_ms: i64) -> i64 {
        match self.unsynced_since_ms.load(Ordering::Relaxed) {
            0 => 0,
            since if now_ms < since => i64::MAX,
            since => now_ms - since,
        }
    }

    /// Follows its directory, which was renamed; appends are refused from now on.
    pub fn moved_to(&self, dir: &Path) {
        let _rewriting = self.rewriting.lock();
        let _appending = self.tail.lock();
        *self.offline.write() = Some("deleted".to_owned());
        *self.dir.write() = dir.to_path_buf();
        self.segments
            .load()
            .iter()
            .for_each(|segment| segment.moved_to(dir));
    }

    /// Lets go of the files of all segments but the active one. What is not synced stays open: an error of its writeback
    /// may be known to the open file alone.
    pub fn close_idle_files(&self) {
        let synced_end = self.ends().synced_end;
        let segments = self.segments.load();
        let synced = segments
            .windows(2)
            .filter(|pair| pair[1].base_offset <= synced_end);
        synced.for_each(|pair| pair[0].close_files());
    }
}

/// A number below `max_ms` that differs between partitions.
fn jitter(dir: &Path, max_ms: i64) -> i64 {
    if max_ms <= 0 {
        return 0;
    }
    let seed = crc32c::crc32c(dir.as_os_str().as_encoded_bytes());
    i64::from(seed) % max_ms
}
