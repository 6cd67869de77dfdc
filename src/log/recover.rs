//! Opening a partition's directory: trusting it after a clean close, scanning it after a crash.
//!
//! Where only the process was killed, the system still holds every byte that was written: just the last write may be
//! cut short, and what lies after the last index entry is read. After any other crash, segments after the recovery point are read batch by batch; the first batch that is not whole
//! and valid ends the log. Indexes and producer state after the newest snapshot are rebuilt. Segments before
//! the recovery point were synced and are trusted (`trust.rs`).
//!
//! Tests: log/tests.rs, log/kill_tests.rs.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use metaq_protocol::batch::{self, BATCH_HEADER_BYTES, BatchHeader};

use super::LogError;
use super::compaction::finish_swaps;
use super::config::LogConfig;
use super::disk::{Disk, DiskFile, create_dir_all};
use super::epochs::LeaderEpochs;
use super::failed_sync;
use super::left_as::{LeftAs, OpenMode};
use super::load_producers::load_producers;
use super::offset_position::OffsetPosition;
use super::partition_log::{Log, LogOffsets};
use super::producer_snapshot;
use super::restore::{JournaledBatch, LogLocation, restore};
use super::segment::{BatchAt, BatchWalk, FileAge, Segment, base_offset_of, segment_of};
use super::trust::{self, Indexer};

/// How much is read at a time while scanning a segment after a crash.
const SCAN_BYTES: usize = 1 << 20;

/// Messages of formats before version 2 are recognized up to this size.
const OLD_MESSAGE_BYTES_MAX: usize = 16 << 20;

/// An opened log and what opening it did.
pub struct OpenedLog {
    /// The log.
    pub log: Log,
    /// Bytes that were checked.
    pub scanned_bytes: u64,
    /// Bytes that were cut off because no valid batch began there.
    pub cut_bytes: u64,
}

impl Log {
    /// Opens or creates the log in `dir`.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        left: LeftAs,
        now_ms: i64,
    ) -> Result<OpenedLog, LogError> {
        Self::open_with(disk, dir, config, left, &[], now_ms)
    }

    /// As [`Self::open`], with batches that a journal holds: those that the files have lost are written again.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        left: LeftAs,
        journaled: &[JournaledBatch],
        now_ms: i64,
    ) -> Result<OpenedLog, LogError> {
        create_dir_all(&*disk, dir)?;
        let sync_failed = left.mode != OpenMode::Clean && failed_sync::is_noted(&*disk, dir);
        let left = match sync_failed {
            // Indexes are not believed either.
            true => left.after_crash(),
            false => left,
        };
        let LeftAs {
            mode,
            log_start,
            cleaned_until,
        } = left;
        let location = LogLocation {
            disk: &disk,
            dir,
            config: &config,
            now_ms,
        };
        let mut segments = find_segments(&location)?;
        drop_deleted(&mut segments, log_start)?;
        if mode == OpenMode::Clean {
            segments.iter().for_each(|segment| segment.note_named());
        }
        if segments.is_empty() {
            segments.push(location.create_first(log_start.max(0))?);
        }
        let mut scan = Scan {
            disk: &disk,
            dir,
            scanned_bytes: 0,
            cut_bytes: 0,
        };
        let next_offset = match mode {
            OpenMode::Clean => {
                trust::check_trusted(&segments, None, &config, left)?;
                trust::end_of(&segments[segments.len() - 1], &config)?
            }
            OpenMode::AfterKill { .. } | OpenMode::AfterCrash { .. } => {
                scan.recover(&mut segments, &config, left)?
            }
        };
        let (scanned_bytes, cut_bytes) = (scan.scanned_bytes, scan.cut_bytes);
        let next_offset = restore(&location, &mut segments, journaled, next_offset)?;
        let next_offset = if next_offset < log_start {
            begin_anew(&location, &mut segments, log_start)?;
            log_start
        } else {
            next_offset
        };
        for pair in segments.windows(2) {
            // What was scanned was synced with its indexes; what was only looked at has synced ones where records after it
            // are synced. One that ends at the recovery point was synced as the active one, without them.
            if pair[1].base_offset < mode.recovery_point() {
                pair[0].trust_indexes();
            }
        }
        let active = &segments[segments.len() - 1];
        active.note_active();
        active.load_timestamps()?;
        let log_end = OffsetPosition {
            offset: next_offset,
            segment_base: active.base_offset,
            position: active.bytes(),
        };
        let log_start = log_start.max(segments[0].base_offset).min(next_offset);
        let synced_end = mode.recovery_point().clamp(log_start, next_offset);
        let mut epochs = match LeaderEpochs::load(&*disk, dir) {
            Ok(epochs) if !epochs.is_empty() || next_offset == log_start => epochs,
            // A new log's is not written durably.
            Ok(_) => rebuild_epochs(&*disk, dir, &segments)?,
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "rebuilding the leader epochs from the log");
                rebuild_epochs(&*disk, dir, &segments)?
            }
        };
        // A power failure may have left an older file than the records (Kafka's LogSegment.recover).
        if mode != OpenMode::Clean && last_epoch(&segments)? > epochs.latest() {
            epochs = match rebuild_epochs(&*disk, dir, &segments) {
                // Reads of that part say so; a list with a gap would be believed.
                Err(LogError::Damaged { .. }) => epochs,
                rebuilt => rebuilt?,
            };
        }
        if epochs.truncate_from_end(next_offset.max(1)) {
            epochs.store(&*disk, dir)?;
        }
        let believed = believed_until(&segments, mode, next_offset)?;
        let range = log_start..next_offset;
        let producers = load_producers(&disk, dir, &segments, range, believed)?;
        if matches!(mode, OpenMode::AfterCrash { .. }) {
            // One that ends at the recovery point: none before one that is synced may be left out.
            for sealed in &segments[..segments.len() - 1] {
                sealed.sync_indexes()?;
            }
        }
        // One a segment is enough, and the newest: every clean close leaves one more.
        let bases: Vec<i64> = segments.iter().map(|segment| segment.base_offset).collect();
        producer_snapshot::remove(&*disk, dir, |at| at < next_offset && !bases.contains(&at))?;
        let ends = LogOffsets {
            log_start,
            log_end,
            synced_end,
        };
        if sync_failed {
            failed_sync::write_again(&segments, synced_end)?;
        }
        let promises_syncs = config.promises_syncs();
        let log = Log::assemble(disk, dir, config, segments, ends, producers, epochs);
        log.note_compacted(cleaned_until);
        if promises_syncs || sync_failed {
            // What the process before had not synced is found here, and from now on read and acknowledged.
            log.sync(now_ms)?;
        }
        if sync_failed {
            failed_sync::forget(&*log.disk, &log.dir())?;
        }
        Ok(OpenedLog {
            log,
            scanned_bytes,
            cut_bytes,
        })
    }
}

/// The segments in a directory by their `.log` files, oldest first; leftovers of deletions are removed.
fn find_segments(location: &LogLocation<'_>) -> Result<Vec<Arc<Segment>>, LogError> {
    let LogLocation {
        disk, dir, config, ..
    } = *location;
    let (mut segments, mut aborted) = (Vec::new(), HashMap::new());
    let (mut with_keys, mut is_interrupted) = (Vec::new(), false);
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(".deleted") || name.ends_with(".tmp") {
            disk.remove(&entry.path())?;
        } else if let Some(base_offset) = base_offset_of(name, "log") {
            let metadata = entry.metadata()?;
            let segment = Segment::new(
                disk.clone(),
                dir,
                base_offset,
                metadata.len(),
                FileAge::of(&metadata, location.now_ms),
                config.index_bytes_max,
            );
            segments.push(Arc::new(segment));
        } else if let Some(base_offset) = base_offset_of(name, "txnindex") {
            aborted.insert(base_offset, entry.metadata()?.len());
        } else if let Some(base_offset) = base_offset_of(name, "keys") {
            with_keys.push(base_offset);
        } else if name.ends_with(".swap") || name.ends_with(".cleaned") {
            is_interrupted = true;
        }
    }
    if is_interrupted {
        finish_swaps(disk, dir)?;
        return find_segments(location);
    }
    for segment in &segments {
        if let Some(bytes) = aborted.get(&segment.base_offset) {
            segment.aborted.found(*bytes);
        }
        if with_keys.contains(&segment.base_offset) {
            segment.note_compacted();
        }
    }
    segments.sort_by_key(|segment| segment.base_offset);
    Ok(segments)
}

/// Segments wholly before the log's start were deleted; a power failure may bring such a file back, and torn. What
/// lies after it must not be taken for what a crash cut off.
fn drop_deleted(segments: &mut Vec<Arc<Segment>>, log_start: i64) -> Result<(), LogError> {
    let next = segments.iter().skip(1);
    let deleted = next
        .take_while(|next| next.base_offset <= log_start)
        .count();
    for segment in segments.drain(..deleted) {
        segment.mark_deleted()?;
        segment.unlink()?;
    }
    Ok(())
}

/// What was left ends before the log's start, as a power failure may leave it after DeleteRecords: all of it was
/// deleted, and no offset is given twice.
fn begin_anew(
    location: &LogLocation<'_>,
    segments: &mut Vec<Arc<Segment>>,
    log_start: i64,
) -> Result<(), LogError> {
    tracing::warn!(dir = %location.dir.display(), log_start, "all that was left lies before the log's start");
    for deleted in segments.drain(..) {
        deleted.mark_deleted()?;
        deleted.unlink()?;
    }
    segments.push(location.create_first(log_start)?);
    Ok(())
}

/// Up to where the indexes of aborted transactions are believed: a power failure may have torn those of segments that are not
/// known to be synced, and others may be damaged.
fn believed_until(
    segments: &[Arc<Segment>],
    mode: OpenMode,
    log_end: i64,
) -> Result<i64, LogError> {
    let mut believed = match mode {
        OpenMode::AfterCrash { recovery_point } => {
            // One that ends there was synced as the active one, without its indexes.
            let synced = recovery_point.saturating_sub(1);
            segments[segment_of(segments, synced)].base_offset
        }
        OpenMode::Clean | OpenMode::AfterKill { .. } => log_end,
    };
    for segment in segments {
        if !segment.aborted.is_empty() && !segment.aborted.is_sound(segment.base_offset)? {
            let file = segment.aborted.path();
            tracing::warn!(file = %file.display(), "rebuilding the index of aborted transactions");
            believed = believed.min(segment.base_offset);
        }
    }
    Ok(believed.min(log_end))
}

struct Scan<'a> {
    disk: &'a Arc<dyn Disk>,
    dir: &'a Path,
    scanned_bytes: u64,
    cut_bytes: u64,
}

impl Scan<'_> {
    /// Checks everything after the recovery point; returns the log's end.
    fn recover(
        &mut self,
        segments: &mut Vec<Arc<Segment>>,
        config: &LogConfig,
        left: LeftAs,
    ) -> Result<i64, LogError> {
        let recovery_point = left.mode.recovery_point();
        let was_killed = matches!(left.mode, OpenMode::AfterKill { .. });
        let first = match was_killed {
            true => segments.len(),
            false => segments.partition_point(|segment| segment.base_offset <= recovery_point),
        };
        let first = first.saturating_sub(1);
        let scanned_from = segments[first].base_offset;
        trust::check_trusted(&segments[..first], Some(scanned_from), config, left)?;
        let mut next_offset = scanned_from;
        let mut keep = segments.len();
        for (n, segment) in segments.iter().enumerate().skip(first) {
            let found = segment.bytes();
            next_offset = match was_killed {
                true => self.scan_end(segment, config)?,
                false => self.scan_segment(segment, config)?,
            };
            let Some(next) = segments.get(n + 1) else {
                break;
            };
            let is_cut = segment.bytes() < found;
            // The part of what is missing that was synced and not deleted.
            let missed = next_offset.max(left.log_start)..next.base_offset.min(recovery_point);
            if !is_cut
                && !missed.is_empty()
                && trust::is_hole(next_offset, next.base_offset, config, left.cleaned_until)
            {
                // It was synced, so that no crash explains it.
                return Err(LogError::Hole {
                    after: segment.path().display().to_string(),
                    from: next_offset,
                    to: next.base_offset,
                });
            }
            if is_cut
                || trust::is_hole(next_offset, next.base_offset, config, left.cleaned_until)
                || trust::is_lost(next_offset, next.base_offset, left)
            {
                keep = n + 1;
                break;
            }
        }
        for lost in segments.split_off(keep) {
            self.cut_bytes += lost.bytes();
            tracing::warn!(segment = %lost.path().display(), "dropped: it lies after what the crash cut off");
            lost.mark_deleted()?;
            lost.unlink()?;
        }
        // What is sealed has indexes of its own size again.
        for sealed in &segments[first..segments.len() - 1] {
            sealed.seal()?;
            sealed.sync_indexes()?;
        }
        producer_snapshot::remove(&**self.disk, self.dir, |at| at > next_offset)?;
        Ok(next_offset)
    }

    /// Reads what lies after the last index entry of a segment, as far as that entry can be believed.
    fn scan_end(&mut self, segment: &Segment, config: &LogConfig) -> Result<i64, LogError> {
        let Some(from) = trust::last_indexed(segment)? else {
            return self.scan_segment(segment, config);
        };
        // Of what is not read again.
        let _ = segment.largest_timestamp()?;
        self.scan_from(segment, config, from.position, from.header.base_offset)
    }

    /// Reads a whole segment and rebuilds its indexes.
    fn scan_segment(&mut self, segment: &Segment, config: &LogConfig) -> Result<i64, LogError> {
        segment.offsets.file.truncate(0)?;
        segment.times.file.truncate(0)?;
        segment.forget_timestamps();
        self.scan_from(segment, config, 0, segment.base_offset)
    }

    /// Checks the batches of a segment from one on, indexes them, and cuts it at the first that is not valid.
    fn scan_from(
        &mut self,
        segment: &Segment,
        config: &LogConfig,
        mut position: u64,
        mut next_offset: i64,
    ) -> Result<i64, LogError> {
        let began = position;
        let file = segment.file()?;
        let end = segment.bytes();
        let (mut buffer, mut indexer) = (Vec::new(), Indexer::default());
        let mut buffer_start = position;
        while position + BATCH_HEADER_BYTES as u64 <= end {
            let want = batch_bytes(&buffer, buffer_start, position);
            let Some(total) =
                want.filter(|total| position + *total as u64 <= buffer_start + buffer.len() as u64)
            else {
                let need = want.unwrap_or(SCAN_BYTES).max(SCAN_BYTES);
                if position + want.unwrap_or(0) as u64 > end
                    || (buffer_start == position && buffer.len() >= need)
                {
                    break;
                }
                buffer.resize(need.min((end - position) as usize), 0);
                let read = file.read_at(&mut buffer, position)?;
                buffer.truncate(read);
                if read < BATCH_HEADER_BYTES || batch_bytes(&buffer, position, position).is_none() {
                    break;
                }
                buffer_start = position;
                continue;
            };
            let at = (position - buffer_start) as usize;
            let bytes = &buffer[at..at + total];
            let Ok(header) = BatchHeader::parse(bytes) else {
                break;
            };
            if header.base_offset < next_offset
                || header.last_offset_delta < 0
                || !batch::verify_crc(bytes)
            {
                break;
            }
            indexer.add(segment, &BatchAt { header, position }, config)?;
            position += total as u64;
            next_offset = header.last_offset() + 1;
        }
        self.scanned_bytes += position - began;
        if position < end {
            refuse_old_format(segment, &*file, position, end)?;
            self.cut_bytes += end - position;
            tracing::warn!(segment = %segment.path().display(), kept = position, cut = end - position,
                "cut at the first batch that is not whole");
            segment.truncate(position)?;
            if let Err(error) = file.sync_data() {
                // What lies before the cut was to be written by it too.
                failed_sync::note(&**self.disk, self.dir);
                return Err(error.into());
            }
        }
        Ok(next_offset)
    }
}

/// What a Kafka of before 0.11 wrote is not cut off as damage: the partition stays offline.
fn refuse_old_format(
    segment: &Segment,
    file: &dyn DiskFile,
    position: u64,
    end: u64,
) -> Result<(), LogError> {
    let mut bytes = vec![0; OLD_MESSAGE_BYTES_MAX.min((end - position) as usize)];
    let read = file.read_at(&mut bytes, position)?;
    if batch::is_old_message(&bytes[..read]) {
        return Err(LogError::Damaged {
            file: segment.path().display().to_string(),
            position,
            what: "a message of a format before Kafka 0.11, which is not read".to_owned(),
        });
    }
    Ok(())
}

/// The size of the batch at `position`, when its header is in the buffer and makes sense.
fn batch_bytes(buffer: &[u8], buffer_start: u64, position: u64) -> Option<usize> {
    let at = usize::try_from(position.checked_sub(buffer_start)?).ok()?;
    let header = buffer.get(at..at.checked_add(BATCH_HEADER_BYTES)?)?;
    BatchHeader::parse(header)
        .ok()
        .map(|header| header.total_bytes())
}

/// The leader epoch of the last batch; `None` where there is none.
fn last_epoch(segments: &[Arc<Segment>]) -> Result<Option<i32>, LogError> {
    let Some(last) = segments.iter().rev().find(|segment| segment.bytes() > 0) else {
        return Ok(None);
    };
    let indexed = last.offsets.last()?;
    let from = indexed.map_or(0, |(_, position)| u64::from(position));
    let mut walk = last.batches(from.min(last.bytes()), last.bytes())?;
    let mut epoch = None;
    while let Some(found) = next_sound(&mut walk)? {
        epoch = Some(found.header.leader_epoch);
    }
    Ok(epoch)
}

/// The next batch; none after one that is damaged: reads of that part say so, and the rest is served.
fn next_sound(walk: &mut BatchWalk<'_>) -> Result<Option<BatchAt>, LogError> {
    match walk.next() {
        Err(LogError::Damaged { file, position, .. }) => {
            tracing::warn!(
                file,
                position,
                "a damaged batch while looking for leader epochs"
            );
            Ok(None)
        }
        found => found,
    }
}

fn rebuild_epochs(
    disk: &dyn Disk,
    dir: &Path,
    segments: &[Arc<Segment>],
) -> Result<LeaderEpochs, LogError> {
    let mut epochs = LeaderEpochs::default();
    for segment in segments {
        let mut walk = segment.batches(0, segment.bytes())?;
        while let Some(found) = walk.next()? {
            epochs.assign(found.header.leader_epoch, found.header.base_offset);
        }
    }
    epochs.store(disk, dir)?;
    Ok(epochs)
}

impl Segment {
    /// Notes timestamps of an active segment that was opened or cut: the first batch's, for `segment.ms`, and the largest, which what is
    /// appended may not exceed.
    pub(super) fn load_timestamps(&self) -> Result<(), LogError> {
        let _ = self.largest_timestamp()?;
        match self.batches(0, self.bytes())?.next() {
            Ok(Some(first)) => self
                .first_timestamp
                .store(first.header.max_timestamp, Ordering::Relaxed),
            // Reads of that part say so.
            Ok(None) | Err(LogError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
