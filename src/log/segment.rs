//! One segment: a `.log` file of record batches and the indexes beside it.
//!
//! Life: created active at the log's end; appended to by the owner of the log's tail; sealed on roll (indexes
//! cut to size); renamed to `*.deleted` when retention or DeleteRecords drops it, and unlinked after
//! `file.delete.delay.ms`. Plans that hold the file read on.
//!
//! Concurrency: `bytes` is published with release ordering after the write, so whoever reads it may read the
//! file up to it. Files are opened by use and closed by age.
//!
//! Tests: log/tests.rs.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};
use parking_lot::Mutex;

use super::LogError;
use super::disk::{Disk, DiskFile};
use super::offset_index::OffsetIndex;
use super::reach::Reach;
use super::time_index::{TimeIndex, TimestampOffset};
use super::transaction_index::TransactionIndex;

/// How much is read at a time while walking batch headers from an index position.
const SCAN_BYTES: usize = 16 << 10;

/// After a batch of this size only the next header is read.
const LARGE_BATCH_BYTES: usize = 4 << 10;

/// A segment of a log. Offsets in it are `base_offset ..`, positions are bytes from the file's start.
pub struct Segment {
    pub(super) base_offset: i64,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: Mutex<PathBuf>,
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    bytes: AtomicU64,
    pub(super) offsets: OffsetIndex,
    pub(super) times: TimeIndex,
    pub(super) aborted: TransactionIndex,
    largest_timestamp: Mutex<Option<TimestampOffset>>,
    /// Timestamp of the first batch, or -1: what `segment.ms` counts from.
    pub(super) first_timestamp: AtomicI64,
    /// When the file was last written, in ms, for segments whose records carry no timestamp.
    pub(super) modified_ms: AtomicI64,
    /// When the file was made, in ms: what `segment.ms` counts from where the first record carries no timestamp.
    created_ms: i64,
    pub(super) deleted: AtomicBool,
    /// Whether compaction was here: records may be missing.
    compacted: AtomicBool,
    /// Whether both indexes were synced since the segment was sealed.
    indexes_synced: AtomicBool,
    /// Whether the directory was synced since the file was made: before that a power failure may take the file.
    named: AtomicBool,
}

/// When a segment's file was made and last written, ms.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileAge {
    pub(super) created_ms: i64,
    pub(super) modified_ms: i64,
}

impl FileAge {
    /// A file that is made now.
    pub(super) fn new(now_ms: i64) -> Self {
        Self {
            created_ms: now_ms,
            modified_ms: now_ms,
        }
    }

    /// What the file system says; not every one remembers when a file was made.
    pub(super) fn of(metadata: &std::fs::Metadata, now_ms: i64) -> Self {
        let ms = |time: io::Result<std::time::SystemTime>| {
            let age = time.ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some(age.as_millis() as i64)
        };
        let modified_ms = ms(metadata.modified()).unwrap_or(now_ms);
        Self {
            created_ms: ms(metadata.created()).unwrap_or(modified_ms),
            modified_ms,
        }
    }
}

/// A batch found in a segment.
#[derive(Clone, Copy, Debug)]
pub struct BatchAt {
    /// Its header.
    pub header: BatchHeader,
    /// Byte position in the `.log`.
    pub position: u64,
}

/// Which of a log's segments an offset belongs to; the first one for what is before them.
pub(super) fn segment_of(segments: &[Arc<Segment>], offset: i64) -> usize {
    segments
        .partition_point(|segment| segment.base_offset <= offset)
        .saturating_sub(1)
}

impl Segment {
    /// A segment of which `bytes` are valid; [`Self::create`] makes the file of a new one.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        base_offset: i64,
        bytes: u64,
        age: FileAge,
        index_bytes_max: usize,
    ) -> Self {
        let path = |extension| dir.join(file_name(base_offset, extension));
        Self {
            base_offset,
            disk: disk.clone(),
            path: Mutex::new(path("log")),
            file: Mutex::new(None),
            bytes: AtomicU64::new(bytes),
            offsets: OffsetIndex::new(disk.clone(), path("index"), base_offset, index_bytes_max),
            times: TimeIndex::new(
                disk.clone(),
                path("timeindex"),
                base_offset,
                index_bytes_max,
            ),
            aborted: TransactionIndex::new(disk, path("txnindex")),
            largest_timestamp: Mutex::new(None),
            first_timestamp: AtomicI64::new(-1),
            modified_ms: AtomicI64::new(age.modified_ms),
            created_ms: age.created_ms,
            deleted: AtomicBool::new(false),
            compacted: AtomicBool::new(false),
            indexes_synced: AtomicBool::new(false),
            named: AtomicBool::new(false),
        }
    }

    /// Makes the `.log` file, empty. Indexes that an earlier segment of the same name left after a power failure
    /// would point into nothing.
    pub(super) fn create(&self) -> io::Result<()> {
        self.offsets.file.remove_leftover()?;
        self.times.file.remove_leftover()?;
        self.aborted.remove_leftover()?;
        let created = self.disk.create(&self.path.lock())?;
        created.set_len(0)?;
        *self.file.lock() = Some(created);
        Ok(())
    }

    /// First offset that the segment may hold.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// Valid bytes of the `.log` file.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Where the `.log` file is.
    pub fn path(&self) -> PathBuf {
        self.path.lock().clone()
    }

    /// The open `.log` file; opens it when it was closed. It must be there.
    pub(super) fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        let mut file = self.file.lock();
        if let Some(open) = &*file {
            return Ok(open.clone());
        }
        let opened = self.disk.open(&self.path.lock())?;
        Ok(file.insert(opened).clone())
    }

    /// The open `.log` file, where it is open and not being opened.
    fn file_if_open(&self) -> Option<Arc<dyn DiskFile>> {
        self.file.try_lock()?.clone()
    }

    /// Lets go of the files; readers that hold them keep them.
    pub(super) fn close_files(&self) {
        *self.file.lock() = None;
        self.close_indexes();
    }

    pub(super) fn close_indexes(&self) {
        self.offsets.file.close();
        self.times.file.close();
        self.aborted.close();
    }

    /// Appends `buffers` (`bytes` in all) at the end and publishes the new size.
    pub(super) fn append(&self, buffers: &mut [IoSlice<'_>], bytes: u64) -> io::Result<()> {
        let position = self.bytes.load(Ordering::Relaxed);
        self.file()?.write_all_at(buffers, position)?;
        self.bytes.store(position + bytes, Ordering::Release);
        Ok(())
    }

    /// Cuts the file to `bytes`, and the indexes to what remains.
    pub(super) fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.remove_keys()?;
        self.file()?.set_len(bytes)?;
        self.bytes.store(bytes, Ordering::Release);
        Ok(())
    }

    /// Cuts off what lies at and after a position and an offset, which a batch begins at; the indexes first, which may have
    /// less than there is, but never more. It is appended to from now on.
    pub(super) fn cut(&self, position: u64, offset: i64) -> Result<(), LogError> {
        self.indexes_synced.store(false, Ordering::Release);
        self.offsets.keep_before(position)?;
        self.times.keep_before(offset)?;
        self.aborted.keep_before(offset)?;
        self.truncate(position)?;
        self.forget_timestamps();
        self.first_timestamp.store(-1, Ordering::Relaxed);
        self.load_timestamps()?;
        // The time index ends somewhere before the last batch.
        let from = self.offsets.last()?.map_or(0, |(_, at)| u64::from(at));
        let mut walk = self.batches(from, position)?;
        while let Some(found) = walk.next()? {
            self.note_timestamp(&found.header);
        }
        Ok(())
    }

    /// Largest timestamp of the segment's records; the file's age where records carry none.
    pub(super) fn largest_timestamp(&self) -> io::Result<TimestampOffset> {
        let mut largest = self.largest_timestamp.lock();
        if largest.is_none() {
            *largest = self.times.last()?;
        }
        Ok(largest.unwrap_or(TimestampOffset {
            timestamp: -1,
            offset: self.base_offset,
        }))
    }

    /// [`Self::largest_timestamp`], or when the file was written where there is none.
    pub(super) fn age_timestamp_ms(&self) -> io::Result<i64> {
        let largest = self.largest_timestamp()?.timestamp;
        Ok(if largest >= 0 {
            largest
        } else {
            self.modified_ms.load(Ordering::Relaxed)
        })
    }

    /// Notes that the file was written to.
    pub(super) fn touch(&self, now_ms: i64) {
        self.modified_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Takes a batch's timestamp into account.
    pub(super) fn note_timestamp(&self, header: &BatchHeader) {
        let _ = self.first_timestamp.compare_exchange(
            -1,
            header.max_timestamp,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        let mut largest = self.largest_timestamp.lock();
        if largest.is_none_or(|known| header.max_timestamp > known.timestamp) {
            *largest = Some(TimestampOffset {
                timestamp: header.max_timestamp,
                offset: header.last_offset(),
            });
        }
    }

    pub(super) fn forget_timestamps(&self) {
        *self.largest_timestamp.lock() = None;
    }

    /// How long `segment.ms` has run for a segment to which a batch of this timestamp comes: since the first batch's,
    /// or by the clock since the file was made (Kafka's LogSegment.timeWaitedForRoll).
    pub(super) fn waited_for_roll_ms(&self, now_ms: i64, timestamp: i64) -> i64 {
        match self.first_timestamp.load(Ordering::Relaxed) {
            -1 => now_ms - self.created_ms,
            first => timestamp - first,
        }
    }

    /// The largest timestamp that does not make it wait longer than `age_max_ms`, where it has a batch.
    pub(super) fn rolls_after_ms(&self, age_max_ms: i64) -> i64 {
        match self.first_timestamp.load(Ordering::Relaxed) {
            -1 => i64::MIN,
            first => first.saturating_add(age_max_ms),
        }
    }

    /// Completes the time index and cuts both indexes to their entries.
    pub(super) fn seal(&self) -> io::Result<()> {
        if self.bytes() > 0 {
            self.times.append_if_later(self.largest_timestamp()?)?;
        }
        self.offsets.file.trim_and_close()?;
        self.times.file.trim_and_close()
    }

    /// Syncs the indexes of a sealed segment, once.
    pub(super) fn sync_indexes(&self) -> io::Result<()> {
        if !self.indexes_are_synced() {
            self.offsets.file.sync()?;
            self.times.file.sync()?;
            self.aborted.sync()?;
            self.indexes_synced.store(true, Ordering::Release);
        }
        Ok(())
    }

    pub(super) fn indexes_are_synced(&self) -> bool {
        self.indexes_synced.load(Ordering::Acquire)
    }

    /// Whether compaction was here: records may be missing.
    pub(super) fn is_compacted(&self) -> bool {
        self.compacted.load(Ordering::Acquire)
    }

    /// Compaction was here.
    pub(super) fn note_compacted(&self) {
        self.compacted.store(true, Ordering::Release);
    }

    /// Whether the file is found again by its name whatever happens.
    pub(super) fn is_named(&self) -> bool {
        self.named.load(Ordering::Acquire)
    }

    /// The directory was synced.
    pub(super) fn note_named(&self) {
        self.named.store(true, Ordering::Release);
    }

    /// For a segment that was sealed before it was opened.
    pub(super) fn trust_indexes(&self) {
        self.indexes_synced.store(true, Ordering::Release);
    }

    /// For the one that is appended to from now on: its indexes are to be synced once more when it is sealed.
    pub(super) fn note_active(&self) {
        self.indexes_synced.store(false, Ordering::Release);
    }

    /// The first batch that ends at or after `offset`, scanning from the index's hint and below `end`.
    pub(super) fn batch_holding(&self, offset: i64, end: u64) -> Result<Option<BatchAt>, LogError> {
        self.batch_holding_within(Reach::Disk, offset, end)
    }

    /// As [`Self::batch_holding`]; [`LogError::NotCached`] where that needs more than may be reached.
    pub(super) fn batch_holding_within(
        &self,
        reach: Reach,
        offset: i64,
        end: u64,
    ) -> Result<Option<BatchAt>, LogError> {
        let (hint, file) = match reach {
            Reach::Disk => (self.offsets.position_before(offset)?, self.file()?),
            Reach::Cache => {
                let hint = self.offsets.position_before_cached(offset);
                let hint = hint.ok_or(LogError::NotCached)?;
                (hint, self.file_if_open().ok_or(LogError::NotCached)?)
            }
        };
        let hint = u64::from(hint);
        let mut batches = self.walk(reach, file, if hint < end { hint } else { 0 }, end);
        while let Some(found) = batches.next()? {
            if found.header.last_offset() >= offset {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Walks batch headers from `position` (a batch's start) up to `end`.
    pub(super) fn batches(&self, position: u64, end: u64) -> io::Result<BatchWalk<'_>> {
        Ok(self.walk(Reach::Disk, self.file()?, position, end))
    }

    fn walk(
        &self,
        reach: Reach,
        file: Arc<dyn DiskFile>,
        position: u64,
        end: u64,
    ) -> BatchWalk<'_> {
        BatchWalk {
            segment: self,
            reach,
            file,
            position,
            end,
            next_offset: self.base_offset,
            batch_before: 0,
            buffer: Vec::new(),
            buffer_position: 0,
        }
    }

    /// Reads a whole batch.
    pub(super) fn read_batch(&self, at: &BatchAt) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; at.header.total_bytes()];
        let read = self.file()?.read_at(&mut bytes, at.position)?;
        if read < bytes.len() {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(bytes)
        }
    }
}

/// A forward walk over batch headers, reading a few KiB at a time.
pub(super) struct BatchWalk<'a> {
    segment: &'a Segment,
    reach: Reach,
    file: Arc<dyn DiskFile>,
    position: u64,
    end: u64,
    /// No batch may begin before it.
    next_offset: i64,
    /// Size of the last batch.
    batch_before: usize,
    buffer: Vec<u8>,
    buffer_position: u64,
}

impl BatchWalk<'_> {
    /// The next batch, or `None` at the end. What is no batch is an error: the segment is damaged there.
    pub(super) fn next(&mut self) -> Result<Option<BatchAt>, LogError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let left = self.end - self.position;
        if left < BATCH_HEADER_BYTES as u64 {
            return Err(self.damaged(format!("{left} bytes are too few for a batch")));
        }
        let buffered = self.buffer_position + self.buffer.len() as u64;
        if self.position < self.buffer_position
            || self.position + BATCH_HEADER_BYTES as u64 > buffered
        {
            let ahead = match self.batch_before >= LARGE_BATCH_BYTES {
                true => BATCH_HEADER_BYTES,
                false => SCAN_BYTES,
            };
            self.buffer.resize(ahead.min(left as usize), 0);
            let read = match self.reach {
                Reach::Disk => self.file.read_at(&mut self.buffer, self.position)?,
                Reach::Cache => self
                    .file
                    .read_cached_at(&mut self.buffer, self.position)?
                    .filter(|read| *read >= BATCH_HEADER_BYTES)
                    .ok_or(LogError::NotCached)?,
            };
            self.buffer.truncate(read);
            self.buffer_position = self.position;
        }
        let at = (self.position - self.buffer_position) as usize;
        let Some(bytes) = self.buffer.get(at..at + BATCH_HEADER_BYTES) else {
            return Err(self.damaged("the file ends here".to_owned()));
        };
        let header = BatchHeader::parse(bytes).map_err(|error| self.damaged(error.to_string()))?;
        if header.total_bytes() as u64 > left {
            let bytes = header.total_bytes();
            return Err(self.damaged(format!("a batch of {bytes} bytes, where {left} are left")));
        }
        if header.base_offset < self.next_offset || header.last_offset_delta < 0 {
            let offset = header.base_offset;
            return Err(self.damaged(format!(
                "offset {offset}, where {} is next",
                self.next_offset
            )));
        }
        let found = BatchAt {
            header,
            position: self.position,
        };
        self.position += header.total_bytes() as u64;
        self.next_offset = header.last_offset() + 1;
        self.batch_before = header.total_bytes();
        Ok(Some(found))
    }

    fn damaged(&self, what: String) -> LogError {
        LogError::Damaged {
            file: self.segment.path().display().to_string(),
            position: self.position,
            what,
        }
    }
}

/// `%020d.extension`, as Kafka names a segment's files.
pub fn file_name(base_offset: i64, extension: &str) -> String {
    format!("{base_offset:020}.{extension}")
}

/// The base offset in a segment file's name, when it is one with that extension.
pub fn base_offset_of(name: &str, extension: &str) -> Option<i64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}
