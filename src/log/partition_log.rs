//! The log of one partition: its segments, what readers may see of them, and the tail that is appended to.
//!
//! ```text
//! log start            recovery point        high watermark      log end
//!    │ segment 0 │ segment 1 │ … │ active segment  ┊                  │
//!    └──── readers see an immutable segment list ──┘   the writer's tail
//! ```
//!
//! Concurrency: one thread at a time appends, rolls, truncates and deletes, under the `tail` lock, which nobody else
//! holds in steady state. Readers take the segment list from an atomic pointer and the ends from a short lock;
//! neither waits for the disk.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use metaq_protocol::batch::{self, BATCH_HEADER_BYTES, BatchHeader};
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::LogError;
use super::config::LogConfig;
use super::disk::{Disk, DiskFile};
use super::epochs::LeaderEpochs;
use super::journal::WrittenBatch;
use super::producer_snapshot;
use super::producers::{Admission, Producers, SequenceError};
use super::segment::{FileAge, Segment};

/// Batches that [`Log::would_append_plainly`] expects at a time, at most.
pub const PLAIN_BATCHES_MAX: usize = 64;

/// An offset and where it is in the files (Kafka's LogOffsetMetadata).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetPosition {
    /// The offset.
    pub offset: i64,
    /// Base offset of the segment that holds, or will hold, it.
    pub segment_base: i64,
    /// Byte position in that segment.
    pub position: u64,
}

/// The ends of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// First offset that may be read.
    pub log_start: i64,
    /// The next offset to be written.
    pub log_end: OffsetPosition,
    /// Everything before it survives a power loss.
    pub synced_end: i64,
}

/// A batch as it came from a client, validated.
#[derive(Clone, Debug)]
pub struct ProducedBatch {
    /// Its header.
    pub header: BatchHeader,
    /// All its bytes, header included.
    pub bytes: Bytes,
}

/// What one produce request did to one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The broker's time for LogAppendTime topics, else -1.
    pub log_append_time_ms: i64,
    /// The log's start, which clients want in the answer.
    pub log_start: i64,
    /// Acknowledge only once the log is synced up to `last_offset`.
    pub needs_sync: bool,
}

/// A byte range of a segment's file that a reader is to be sent.
#[derive(Clone)]
pub struct Slice {
    /// The open file; it stays readable even when the segment is deleted meanwhile.
    pub file: Arc<dyn DiskFile>,
    /// First byte.
    pub position: u64,
    /// How many bytes.
    pub bytes: usize,
}

/// The mutable end of a log; only its appender works on it.
pub struct Tail {
    pub(super) producers: Producers,
    pub(super) epochs: LeaderEpochs,
    bytes_since_index_entry: u64,
    jitter_ms: i64,
    /// When the oldest append that is not synced was written, ms; 0 when all is synced.
    pub(super) unsynced_since_ms: i64,
    pub(super) offline: Option<String>,
}

/// One partition's log. See the module's documentation.
pub struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: RwLock<PathBuf>,
    pub(super) config: ArcSwap<LogConfig>,
    pub(super) segments: ArcSwap<Vec<Arc<Segment>>>,
    pub(super) ends: RwLock<Ends>,
    pub(super) tail: Mutex<Tail>,
    /// Before this offset records may be missing because compaction took them.
    pub(super) cleaned_until: i64,
    /// What lies before it is in the archive, as far as this process knows.
    pub(super) archived_until: AtomicI64,
    /// The leader epoch whose appends are writes to the active segment and nothing else, as it looks; -1 for none.
    plain_epoch: AtomicI32,
    /// How much more may be appended like that, and until when the segment is not too old for it, ms.
    plain_bytes: AtomicU64,
    plain_until_ms: AtomicI64,
}

impl Log {
    pub(super) fn assemble(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        segments: Vec<Arc<Segment>>,
        ends: Ends,
        producers: Producers,
        epochs: LeaderEpochs,
    ) -> Self {
        let jitter_ms = jitter(dir, config.segment_jitter_ms);
        Self {
            disk,
            dir: RwLock::new(dir.to_path_buf()),
            config: ArcSwap::from_pointee(config),
            segments: ArcSwap::from_pointee(segments),
            ends: RwLock::new(ends),
            tail: Mutex::new(Tail {
                producers,
                epochs,
                bytes_since_index_entry: 0,
                jitter_ms,
                unsynced_since_ms: 0,
                offline: None,
            }),
            cleaned_until: 0,
            archived_until: AtomicI64::new(0),
            plain_epoch: AtomicI32::new(-1),
            plain_bytes: AtomicU64::new(0),
            plain_until_ms: AtomicI64::new(i64::MIN),
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
        self.plain_epoch.store(-1, Ordering::Relaxed);
    }

    /// Start, end and synced end at this moment.
    pub fn ends(&self) -> Ends {
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
        self.tail.lock().offline.clone()
    }

    /// Looks at producers and epochs; never held while waiting.
    pub fn with_producers<T>(&self, look: impl FnOnce(&Producers) -> T) -> T {
        look(&self.tail.lock().producers)
    }

    /// See [`Self::with_producers`].
    pub fn with_epochs<T>(&self, look: impl FnOnce(&LeaderEpochs) -> T) -> T {
        look(&self.tail.lock().epochs)
    }

    /// Notes that `leader_epoch` begins here, durably where there are records before it.
    pub fn begin_epoch(&self, leader_epoch: i32) -> Result<(), LogError> {
        let mut tail = self.tail.lock();
        let ends = self.ends();
        if tail.epochs.assign(leader_epoch, ends.log_end.offset) {
            match ends.log_end.offset > ends.log_start {
                true => tail.epochs.store(&*self.disk, &self.dir())?,
                // Of what is lost with the power the records themselves tell.
                false => tail.epochs.write(&*self.disk, &self.dir())?,
            }
        }
        Ok(())
    }

    /// Appends the batches of several requests with as few writes as possible. The answers stand in the order
    /// of the requests; one that is refused leaves the others alone. After a disk error the log is offline and
    /// every request of the call is answered with it.
    pub fn append(
        &self,
        requests: &[Vec<ProducedBatch>],
        leader_epoch: i32,
        now_ms: i64,
    ) -> Vec<Result<Appended, LogError>> {
        self.append_telling(requests, leader_epoch, now_ms, |_| {})
    }

    /// As [`Self::append`], telling each batch as it was written.
    pub fn append_telling(
        &self,
        requests: &[Vec<ProducedBatch>],
        leader_epoch: i32,
        now_ms: i64,
        mut tell: impl FnMut(WrittenBatch),
    ) -> Vec<Result<Appended, LogError>> {
        let mut tail = self.tail.lock();
        if let Some(reason) = &tail.offline {
            let refusal = || Err(LogError::Offline(reason.clone()));
            return requests.iter().map(|_| refusal()).collect();
        }
        let config = self.config();
        let mut round = Round::new(self, &mut tail, &config, leader_epoch, now_ms, &mut tell);
        let mut answers: Vec<_> = requests.iter().map(|batches| round.take(batches)).collect();
        let written = match round.failed.take() {
            None => round.write_out(),
            Some(error) => Err(error),
        };
        if let Err(error) = written {
            let reason = self.take_offline(&mut tail, &error);
            for answer in &mut answers {
                if answer.is_ok() {
                    *answer = Err(LogError::Offline(reason.clone()));
                }
            }
        }
        self.note_plainness(&tail, &config);
        answers
    }

    /// Whether appending these batches, among `queued_bytes` that may all be for this log, will be a write to the page
    /// cache and nothing else: no new segment, no small file that is replaced and synced, no index that grows. A segment
    /// of 2³¹ offsets is left out of account.
    pub fn would_append_plainly(
        &self,
        leader_epoch: i32,
        batches: &[ProducedBatch],
        queued_bytes: u64,
        now_ms: i64,
    ) -> bool {
        let until_ms = self.plain_until_ms.load(Ordering::Relaxed);
        let is_young = |batch: &ProducedBatch| batch.header.max_timestamp <= until_ms;
        self.plain_epoch.load(Ordering::Relaxed) == leader_epoch
            && queued_bytes <= self.plain_bytes.load(Ordering::Relaxed)
            && match self.config.load().log_append_time {
                true => now_ms <= until_ms,
                false => batches.iter().all(is_young),
            }
    }

    fn note_plainness(&self, tail: &Tail, config: &LogConfig) {
        let segments = self.segments.load();
        let active = segments.last().filter(|active| {
            // An entry a batch at most.
            let (offsets, times) = (&active.offsets.file, &active.times.file);
            offsets.has_room(PLAIN_BATCHES_MAX) && times.has_room(PLAIN_BATCHES_MAX)
        });
        let epoch = match (&tail.offline, active) {
            (None, Some(_)) => tail.epochs.latest().unwrap_or(-1),
            _ => -1,
        };
        if let Some(active) = active {
            let left = config.segment_bytes.saturating_sub(active.bytes());
            let age_max_ms = config.segment_ms.saturating_sub(tail.jitter_ms);
            let until_ms = active.rolls_behind_ms(age_max_ms);
            self.plain_bytes.store(left, Ordering::Relaxed);
            self.plain_until_ms.store(until_ms, Ordering::Relaxed);
        }
        self.plain_epoch.store(epoch, Ordering::Relaxed);
        if !std::ptr::eq(config, Arc::as_ptr(&self.config())) {
            // It changed meanwhile.
            self.plain_epoch.store(-1, Ordering::Relaxed);
        }
    }

    /// Takes no more appends, for a reason that is not the disk's.
    pub fn fail(&self, reason: &str) {
        self.tail
            .lock()
            .offline
            .get_or_insert_with(|| reason.to_owned());
    }

    /// Marks the log offline after a disk error, and cuts off what was half written.
    pub(super) fn take_offline(&self, tail: &mut Tail, error: &io::Error) -> String {
        let reason = format!("{}: {error}", self.dir().display());
        tracing::error!(log = %self.dir().display(), %error, "disk error: the partition goes offline");
        if let Some(active) = self.segments.load().last() {
            let _ = active.truncate(active.bytes());
        }
        tail.offline = Some(reason.clone());
        reason
    }

    /// The slice that a fetch at `offset` is to be sent: at most `bytes_max` bytes, but the first batch whole
    /// when `first_batch_whole`; nothing at or beyond `limit`.
    pub fn read(
        &self,
        offset: i64,
        bytes_max: usize,
        first_batch_whole: bool,
        limit: OffsetPosition,
    ) -> Result<Option<Slice>, LogError> {
        self.check_range(offset)?;
        let found = self.find_slice(offset, bytes_max, first_batch_whole, limit);
        if let Err(LogError::Io(error)) = &found
            && error.kind() == io::ErrorKind::NotFound
        {
            // The segment may have been deleted since.
            self.check_range(offset)?;
        }
        found
    }

    fn check_range(&self, offset: i64) -> Result<(), LogError> {
        let ends = self.ends();
        if offset < ends.log_start || offset > ends.log_end.offset {
            return Err(LogError::OffsetOutOfRange {
                offset,
                log_start: ends.log_start,
                log_end: ends.log_end.offset,
            });
        }
        Ok(())
    }

    fn find_slice(
        &self,
        offset: i64,
        bytes_max: usize,
        first_batch_whole: bool,
        limit: OffsetPosition,
    ) -> Result<Option<Slice>, LogError> {
        if offset >= limit.offset {
            return Ok(None);
        }
        let segments = self.segments.load();
        let first = segments
            .partition_point(|segment| segment.base_offset <= offset)
            .saturating_sub(1);
        for segment in segments[first..]
            .iter()
            .take_while(|segment| segment.base_offset <= limit.segment_base)
        {
            let end = if segment.base_offset == limit.segment_base {
                limit.position
            } else {
                segment.bytes()
            };
            if let Some(found) = segment.batch_holding(offset, end)? {
                if found.header.base_offset > offset {
                    self.check_skip(offset, found.header.base_offset, segment)?;
                }
                let whole = if first_batch_whole {
                    found.header.total_bytes()
                } else {
                    0
                };
                let bytes = ((end - found.position) as usize).min(bytes_max.max(whole));
                let slice = Slice {
                    file: segment.file()?,
                    position: found.position,
                    bytes,
                };
                return Ok((bytes > 0).then_some(slice));
            }
        }
        let last = &segments[segments.len() - 1];
        self.check_skip(offset, limit.offset, last)?;
        Ok(None)
    }

    /// Whether a read may pass over offsets for which there is no batch: they were deleted a moment ago, or compacted.
    fn check_skip(&self, offset: i64, next: i64, segment: &Segment) -> Result<(), LogError> {
        let ends = self.ends();
        if offset < ends.log_start {
            return Err(LogError::OffsetOutOfRange {
                offset,
                log_start: ends.log_start,
                log_end: ends.log_end.offset,
            });
        }
        if self.config().compact || offset < self.cleaned_until {
            return Ok(());
        }
        Err(LogError::Damaged {
            file: segment.path().display().to_string(),
            position: 0,
            what: format!("records {offset}..{next} are missing"),
        })
    }

    /// Position of `offset`, for an offset at a batch's start or at the end.
    pub fn position_of(&self, offset: i64) -> Result<OffsetPosition, LogError> {
        let ends = self.ends();
        if offset >= ends.log_end.offset {
            return Ok(ends.log_end);
        }
        let segments = self.segments.load();
        let at = segments
            .partition_point(|segment| segment.base_offset <= offset)
            .saturating_sub(1);
        let segment = &segments[at];
        let position = match segment.batch_holding(offset, segment.bytes())? {
            Some(found) => found.position,
            None => segment.bytes(),
        };
        Ok(OffsetPosition {
            offset,
            segment_base: segment.base_offset,
            position,
        })
    }

    /// Whether the file that is appended to is found again by its name whatever happens. Until then a journal does not
    /// count: a later segment that is there would stand for records that are not.
    pub fn is_named(&self) -> bool {
        let segments = self.segments.load();
        segments.last().is_some_and(|active| active.is_named())
    }

    /// Syncs everything appended so far; returns the end before which all is durable. Appends go on
    /// meanwhile: the lock is not held during the sync.
    pub fn sync(&self, now_ms: i64) -> Result<OffsetPosition, LogError> {
        if let Some(reason) = self.offline_reason() {
            // After a failed sync the system may have dropped what it could not write: never try again.
            return Err(LogError::Offline(reason));
        }
        let before = self.ends();
        if before.synced_end >= before.log_end.offset {
            return Ok(before.log_end);
        }
        let result = self.sync_segments(before.synced_end, before.log_end);
        let mut tail = self.tail.lock();
        match result {
            Ok(()) => {
                let mut ends = self.ends.write();
                tail.unsynced_since_ms = if ends.log_end.offset > before.log_end.offset {
                    now_ms
                } else {
                    0
                };
                ends.synced_end = ends
                    .synced_end
                    .max(before.log_end.offset)
                    .min(ends.log_end.offset);
                Ok(before.log_end)
            }
            Err(error) => Err(LogError::Offline(self.take_offline(&mut tail, &error))),
        }
    }

    fn sync_segments(&self, from: i64, to: OffsetPosition) -> io::Result<()> {
        let segments = self.segments.load();
        let first = segments
            .partition_point(|segment| segment.base_offset <= from)
            .saturating_sub(1);
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
        // A recovery point behind a segment means that its indexes are trusted too.
        if let Some((_, sealed)) = segments.split_last() {
            for segment in sealed.iter().rev() {
                if segment.indexes_are_synced() {
                    break;
                }
                segment.sync_indexes()?;
            }
        }
        if !unnamed.is_empty() {
            self.disk.sync_dir(&self.dir())?;
            unnamed.into_iter().for_each(|segment| segment.note_named());
        }
        Ok(())
    }

    /// Begins a new active segment at the log's end. The old one's indexes are cut and its producers saved.
    pub(super) fn roll(&self, tail: &mut Tail, now_ms: i64) -> io::Result<()> {
        self.plain_epoch.store(-1, Ordering::Relaxed);
        let end = self.ends().log_end.offset;
        let segments = self.segments.load_full();
        if let Some(active) = segments.last() {
            if active.base_offset == end {
                return Ok(());
            }
            active.seal()?;
        }
        producer_snapshot::store(&*self.disk, &self.dir(), end, &tail.producers)?;
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

    pub(super) fn lock_tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock()
    }

    /// Syncs, saves the producers and cuts the indexes: a clean close. Appends are refused afterwards.
    pub fn close(&self, now_ms: i64) -> Result<i64, LogError> {
        let synced = self.sync(now_ms)?.offset;
        let mut tail = self.tail.lock();
        if let Some(reason) = &tail.offline {
            return Err(LogError::Offline(reason.clone()));
        }
        let segments = self.segments.load();
        if let Some(active) = segments.last() {
            active.seal()?;
        }
        producer_snapshot::store(&*self.disk, &self.dir(), synced, &tail.producers)?;
        // A segment that was empty until now had nothing else to sync; who opens the log trusts that it is there.
        if segments.iter().any(|segment| !segment.is_named()) {
            self.disk.sync_dir(&self.dir())?;
        }
        tail.offline = Some("closed".to_owned());
        Ok(synced)
    }

    /// How long the oldest unsynced append has been waiting; 0 when there is none.
    pub fn unsynced_for_ms(&self, now_ms: i64) -> i64 {
        match self.tail.lock().unsynced_since_ms {
            0 => 0,
            since => now_ms - since,
        }
    }

    /// Follows its directory, which was renamed; appends are refused from now on.
    pub fn moved_to(&self, dir: &Path) {
        let mut tail = self.tail.lock();
        tail.offline = Some("deleted".to_owned());
        *self.dir.write() = dir.to_path_buf();
        self.segments
            .load()
            .iter()
            .for_each(|segment| segment.moved_to(dir));
    }

    /// Lets go of the files of all segments but the active one.
    pub fn close_idle_files(&self) {
        if let Some((_, sealed)) = self.segments.load().split_last() {
            sealed.iter().for_each(|segment| segment.close_files());
        }
    }
}

/// One round of appends: batches are collected and written together, between rolls.
struct Round<'a> {
    log: &'a Log,
    tail: &'a mut Tail,
    config: &'a LogConfig,
    leader_epoch: i32,
    now_ms: i64,
    tell: &'a mut dyn FnMut(WrittenBatch),
    next_offset: i64,
    pending: Vec<Pending>,
    pending_bytes: u64,
    failed: Option<io::Error>,
}

struct Pending {
    head: [u8; BATCH_HEADER_BYTES],
    body: Bytes,
    header: BatchHeader,
}

impl<'a> Round<'a> {
    fn new(
        log: &'a Log,
        tail: &'a mut Tail,
        config: &'a LogConfig,
        leader_epoch: i32,
        now_ms: i64,
        tell: &'a mut dyn FnMut(WrittenBatch),
    ) -> Self {
        let next_offset = log.ends().log_end.offset;
        Self {
            log,
            tail,
            config,
            leader_epoch,
            now_ms,
            tell,
            next_offset,
            pending: Vec::new(),
            pending_bytes: 0,
            failed: None,
        }
    }

    /// Admits one request's batches; they are stored all or none.
    fn take(&mut self, batches: &[ProducedBatch]) -> Result<Appended, LogError> {
        if self.failed.is_some() {
            return Err(LogError::Offline("disk error".to_owned()));
        }
        if let Some(stored) = self.admit(batches)? {
            return Ok(stored);
        }
        let base_offset = self.next_offset;
        for produced in batches {
            if let Err(error) = self.place(produced) {
                self.failed = Some(error);
                return Err(LogError::Offline("disk error".to_owned()));
            }
        }
        Ok(Appended {
            base_offset,
            last_offset: self.next_offset - 1,
            log_append_time_ms: if self.config.log_append_time {
                self.now_ms
            } else {
                -1
            },
            log_start: self.log.ends().log_start,
            needs_sync: self.next_offset - self.log.ends().synced_end >= self.config.flush_messages,
        })
    }

    /// Checks every batch before any is stored; a duplicate's place when the request was stored before.
    fn admit(&self, batches: &[ProducedBatch]) -> Result<Option<Appended>, LogError> {
        for produced in batches {
            if produced.bytes.len() as u64 > self.config.segment_bytes {
                return Err(LogError::BatchLargerThanSegment(produced.bytes.len()));
            }
            match self.tail.producers.admit(&produced.header) {
                Ok(Admission::Append) => {}
                Ok(Admission::Duplicate(stored)) => {
                    return Ok(Some(Appended {
                        base_offset: stored.first_offset(),
                        last_offset: stored.last_offset,
                        log_append_time_ms: if self.config.log_append_time {
                            stored.timestamp
                        } else {
                            -1
                        },
                        log_start: self.log.ends().log_start,
                        // The first try may still be waiting for its sync.
                        needs_sync: self.config.syncs_every_append(),
                    }));
                }
                Err(error) => return Err(LogError::Sequence(error)),
            }
        }
        Ok(None)
    }

    fn place(&mut self, produced: &ProducedBatch) -> io::Result<()> {
        let bytes = produced.bytes.len() as u64;
        if self.must_roll(bytes, &produced.header) {
            self.write_out()?;
            self.log.roll(self.tail, self.now_ms)?;
        }
        let time = self.config.log_append_time.then_some(self.now_ms);
        let head =
            batch::header_for_append(&produced.bytes, self.next_offset, self.leader_epoch, time);
        let header = BatchHeader::parse(&head).map_err(io::Error::other)?;
        if self
            .tail
            .epochs
            .latest()
            .is_none_or(|latest| latest < self.leader_epoch)
        {
            self.tail.epochs.assign(self.leader_epoch, self.next_offset);
            self.tail.epochs.store(&*self.log.disk, &self.log.dir())?;
        }
        self.tail.producers.stored(&header);
        self.next_offset = header.last_offset() + 1;
        self.pending.push(Pending {
            head,
            body: produced.bytes.slice(BATCH_HEADER_BYTES..),
            header,
        });
        self.pending_bytes += bytes;
        Ok(())
    }

    fn must_roll(&self, bytes: u64, header: &BatchHeader) -> bool {
        let segments = self.log.segments.load();
        let Some(active) = segments.last() else {
            return true;
        };
        let size = active.bytes() + self.pending_bytes;
        if size == 0 {
            return false;
        }
        let last_offset = self.next_offset + i64::from(header.last_offset_delta);
        let time = if self.config.log_append_time {
            self.now_ms
        } else {
            header.max_timestamp
        };
        let age = active.waited_for_roll_ms(self.now_ms, time);
        size + bytes > self.config.segment_bytes
            || age > self.config.segment_ms.saturating_sub(self.tail.jitter_ms)
            || last_offset - active.base_offset > i64::from(i32::MAX)
            || active.offsets.file.is_full()
            || active.times.file.is_full()
    }

    /// How many index entries what is pending brings.
    fn entries_due(&self) -> usize {
        let mut since = self.tail.bytes_since_index_entry;
        let is_due = move |pending: &&Pending| {
            let due = since > self.config.index_interval_bytes;
            since = pending.header.total_bytes() as u64 + if due { 0 } else { since };
            due
        };
        self.pending.iter().filter(is_due).count()
    }

    /// Writes what is pending to the active segment, indexes it and publishes the new end.
    fn write_out(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let segments = self.log.segments.load();
        let Some(active) = segments.last() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        // Room for the entries first: once the records are in the file, nothing must fail for want of space.
        let entries = self.entries_due();
        if entries > 0 {
            active.offsets.file.reserve(entries)?;
            active.times.file.reserve(entries)?;
        }
        let mut position = active.bytes();
        let mut buffers = Vec::with_capacity(self.pending.len() * 2);
        for pending in &self.pending {
            buffers.push(IoSlice::new(&pending.head));
            buffers.push(IoSlice::new(&pending.body));
        }
        active.append(&mut buffers, self.pending_bytes)?;
        drop(buffers);
        active.touch(self.now_ms);
        for pending in self.pending.drain(..) {
            let bytes = pending.header.total_bytes() as u64;
            if self.tail.bytes_since_index_entry > self.config.index_interval_bytes {
                active
                    .offsets
                    .append(pending.header.last_offset(), position as u32)?;
                active.times.append_if_later(active.largest_timestamp()?)?;
                self.tail.bytes_since_index_entry = 0;
            }
            active.note_timestamp(&pending.header);
            self.tail.bytes_since_index_entry += bytes;
            position += bytes;
            (self.tell)(WrittenBatch {
                head: pending.head,
                body: pending.body,
            });
        }
        self.pending_bytes = 0;
        if self.tail.unsynced_since_ms == 0 {
            self.tail.unsynced_since_ms = self.now_ms;
        }
        let mut ends = self.log.ends.write();
        ends.log_end = OffsetPosition {
            offset: self.next_offset,
            segment_base: active.base_offset,
            position: active.bytes(),
        };
        Ok(())
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

impl From<SequenceError> for LogError {
    fn from(error: SequenceError) -> Self {
        Self::Sequence(error)
    }
}
