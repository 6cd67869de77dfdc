//! Reading a log: which range of which file a fetch is to be sent, and for readers of committed records which transactions
//! in it were aborted.
//!
//! Tests: log/tests.rs, log/committed_tests.rs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LogError;
use super::disk::DiskFile;
use super::offset_position::OffsetPosition;
use super::partition_log::{Log, LogOffsets};
use super::reach::Reach;
use super::segment::{Segment, segment_of};
use super::transactions::AbortedTransaction;

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

/// What a reader of committed records is sent.
#[derive(Clone)]
pub struct CommittedSlice {
    /// The records, those of aborted transactions too.
    pub slice: Slice,
    /// The aborted transactions that have records in it, and perhaps some more that begin soon after it.
    pub aborted: Vec<AbortedTransaction>,
}

/// What a fetch wants of a log.
#[derive(Clone, Copy, Debug)]
pub struct ReadWanted {
    /// From the batch that holds it on.
    pub offset: i64,
    /// At most so many bytes …
    pub bytes_max: usize,
    /// … but the first batch whole.
    pub first_batch_whole: bool,
}

impl Log {
    /// As [`Self::read_within`], waiting for the disk.
    pub fn read(
        &self,
        offset: i64,
        bytes_max: usize,
        first_batch_whole: bool,
        limit: OffsetPosition,
    ) -> Result<Option<Slice>, LogError> {
        let wanted = ReadWanted {
            offset,
            bytes_max,
            first_batch_whole,
        };
        self.read_within(&wanted, limit, Reach::Disk)
    }

    /// The slice that a fetch is to be sent: nothing of it lies at or beyond `limit`. [`LogError::NotCached`] where looking
    /// for it needs more than may be reached.
    pub fn read_within(
        &self,
        wanted: &ReadWanted,
        limit: OffsetPosition,
        reach: Reach,
    ) -> Result<Option<Slice>, LogError> {
        self.with_range(wanted.offset, || {
            let segments = self.segments.load();
            let found = self.find_slice(&segments, wanted, limit, reach)?;
            Ok(found.map(|(_, slice)| slice))
        })
    }

    /// As [`Self::read_within`], for a reader of committed records: `limit` is the last stable offset.
    pub fn read_committed_within(
        &self,
        wanted: &ReadWanted,
        limit: OffsetPosition,
        reach: Reach,
    ) -> Result<Option<CommittedSlice>, LogError> {
        self.with_range(wanted.offset, || {
            let segments = self.segments.load();
            let found = self.find_slice(&segments, wanted, limit, reach)?;
            let Some((at, slice)) = found else {
                return Ok(None);
            };
            let aborted = match self.has_aborted.load(Ordering::Acquire) {
                true => {
                    let end = slice.position + slice.bytes as u64;
                    let end = end_offset(&segments[at..], end, limit, reach)?;
                    self.aborted_in(&segments[at..], (wanted.offset, end), reach)?
                }
                false => Vec::new(),
            };
            Ok(Some(CommittedSlice { slice, aborted }))
        })
    }

    /// Reads at an offset that the log has.
    fn with_range<T>(
        &self,
        offset: i64,
        read: impl FnOnce() -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        self.check_range(offset)?;
        let found = read();
        if let Err(LogError::Io(error)) = &found
            && error.kind() == io::ErrorKind::NotFound
        {
            // The segment may have been deleted since.
            self.check_range(offset)?;
        }
        found
    }

    /// Whether the log begins at or before an offset, and ends at or after it.
    pub fn check_range(&self, offset: i64) -> Result<(), LogError> {
        let ends = self.ends();
        if offset < ends.log_start || offset > ends.log_end.offset {
            return Err(out_of_range(offset, &ends));
        }
        Ok(())
    }

    /// The slice, and which of the segments it is of.
    fn find_slice(
        &self,
        segments: &[Arc<Segment>],
        wanted: &ReadWanted,
        limit: OffsetPosition,
        reach: Reach,
    ) -> Result<Option<(usize, Slice)>, LogError> {
        let offset = wanted.offset;
        if offset >= limit.offset {
            return Ok(None);
        }
        let from = segments
            .iter()
            .enumerate()
            .skip(segment_of(segments, offset));
        for (at, segment) in
            from.take_while(|(_, segment)| segment.base_offset <= limit.segment_base)
        {
            let end = limit_in(&segments[at..], limit, reach)?;
            if let Some(found) = segment.batch_holding_within(reach, offset, end)? {
                if found.header.base_offset > offset {
                    self.check_skip(offset, found.header.base_offset, segment)?;
                }
                let whole = if wanted.first_batch_whole {
                    found.header.total_bytes()
                } else {
                    0
                };
                let bytes = ((end - found.position) as usize).min(wanted.bytes_max.max(whole));
                // A part of a batch is of no use (Kafka's ReplicaManager.readFromLog).
                if bytes < found.header.total_bytes() {
                    return Ok(None);
                }
                let slice = Slice {
                    file: segment.file()?,
                    position: found.position,
                    bytes,
                };
                return Ok((bytes > 0).then_some((at, slice)));
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
            return Err(out_of_range(offset, &ends));
        }
        let cleaned_until = self.cleaned_until.load(Ordering::Acquire);
        if self.config().compact || offset < cleaned_until || segment.is_compacted() {
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
        let at = segment_of(&segments, offset);
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

    /// Bytes of records at and after an offset, whole batches.
    pub fn bytes_from(&self, offset: i64) -> Result<u64, LogError> {
        let from = self.position_of(offset)?;
        let segments = self.segments.load();
        let rest = segments.iter();
        let rest = rest.filter(|segment| segment.base_offset >= from.segment_base);
        let bytes: u64 = rest.map(|segment| segment.bytes()).sum();
        Ok(bytes.saturating_sub(from.position))
    }
}

/// Where in the first of these segments a limit is, or its end where all of it is before the limit. Compaction may have
/// written anew what the limit was found in.
fn limit_in(
    segments: &[Arc<Segment>],
    limit: OffsetPosition,
    reach: Reach,
) -> Result<u64, LogError> {
    let segment = &segments[0];
    if segments
        .get(1)
        .is_some_and(|next| next.base_offset <= limit.offset)
    {
        return Ok(segment.bytes());
    }
    if segment.base_offset == limit.segment_base && !segment.is_compacted() {
        return Ok(limit.position);
    }
    let bytes = segment.bytes();
    let found = segment.batch_holding_within(reach, limit.offset, bytes)?;
    Ok(found.map_or(bytes, |batch| batch.position))
}

/// An offset that what ends at a position of the first of these segments ends before, up to a limit.
fn end_offset(
    segments: &[Arc<Segment>],
    end: u64,
    limit: OffsetPosition,
    reach: Reach,
) -> Result<i64, LogError> {
    let segment = &segments[0];
    let next = segments.get(1).map(|next| next.base_offset);
    let holds_limit = next.is_none_or(|next| next > limit.offset);
    if holds_limit && end >= limit_in(segments, limit, reach)? {
        return Ok(limit.offset);
    }
    let offset = segment.offsets.offset_after(reach, end)?.or(next);
    Ok(offset.map_or(limit.offset, |offset| offset.min(limit.offset)))
}

fn out_of_range(offset: i64, ends: &LogOffsets) -> LogError {
    LogError::OffsetOutOfRange {
        offset,
        log_start: ends.log_start,
        log_end: ends.log_end.offset,
    }
}
