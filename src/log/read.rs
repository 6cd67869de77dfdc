//! Reading a log: which range of which file a fetch is to be sent.

use std::io;
use std::sync::Arc;

use super::LogError;
use super::disk::DiskFile;
use super::offset_position::OffsetPosition;
use super::partition_log::{Log, LogOffsets};
use super::reach::Reach;
use super::segment::{Segment, segment_of};

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
        let offset = wanted.offset;
        self.check_range(offset)?;
        let found = self.find_slice(wanted, limit, reach);
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
            return Err(out_of_range(offset, &ends));
        }
        Ok(())
    }

    fn find_slice(
        &self,
        wanted: &ReadWanted,
        limit: OffsetPosition,
        reach: Reach,
    ) -> Result<Option<Slice>, LogError> {
        let offset = wanted.offset;
        if offset >= limit.offset {
            return Ok(None);
        }
        let segments = self.segments.load();
        let first = segment_of(&segments, offset);
        for segment in segments[first..]
            .iter()
            .take_while(|segment| segment.base_offset <= limit.segment_base)
        {
            let end = if segment.base_offset == limit.segment_base {
                limit.position
            } else {
                segment.bytes()
            };
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
            return Err(out_of_range(offset, &ends));
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
}

fn out_of_range(offset: i64, ends: &LogOffsets) -> LogError {
    LogError::OffsetOutOfRange {
        offset,
        log_start: ends.log_start,
        log_end: ends.log_end.offset,
    }
}
