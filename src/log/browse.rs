//! Looking into a log for people: its segments in figures, whole batches one after the other, and how much lies after an
//! offset. Reads what the caller says it may, and no more.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use metaq_protocol::batch::BatchHeader;

use super::LogError;
use super::partition_log::Log;
use super::segment::{Segment, segment_of};

/// One segment in figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFigures {
    /// First offset that it may hold.
    pub base_offset: i64,
    /// Where its `.log` file is.
    pub path: std::path::PathBuf,
    /// Bytes of the `.log` file.
    pub bytes: u64,
    /// Entries of the offset index; `None` where it cannot be read.
    pub offset_entries: Option<usize>,
    /// Entries of the time index; `None` where it cannot be read.
    pub time_entries: Option<usize>,
    /// Largest timestamp of its records, ms since 1970; -1 without.
    pub largest_timestamp: i64,
    /// When it was written last, ms since 1970.
    pub modified_ms: i64,
}

impl Segment {
    fn figures(&self) -> SegmentFigures {
        let largest = self.largest_timestamp();
        SegmentFigures {
            base_offset: self.base_offset,
            path: self.path(),
            bytes: self.bytes(),
            offset_entries: self.offsets.file.entries().ok(),
            time_entries: self.times.file.entries().ok(),
            largest_timestamp: largest.map_or(-1, |largest| largest.timestamp),
            modified_ms: self.modified_ms.load(Ordering::Relaxed),
        }
    }
}

/// A batch that is passed by.
#[derive(Debug)]
pub struct PassedBatch {
    /// Its header.
    pub header: BatchHeader,
    /// Its bytes, header included; `None` where it is larger than was asked for.
    pub bytes: Option<Vec<u8>>,
}

impl Log {
    /// The latest segments in figures, oldest first. Opens their indexes; may wait for the disk.
    pub fn segment_figures(&self, most: usize) -> Vec<SegmentFigures> {
        let segments = self.segments();
        let from = segments.len().saturating_sub(most);
        segments[from..].iter().map(|one| one.figures()).collect()
    }

    /// Passes batches by, from the one that holds `offset`, or the first after it, to the end of what readers may see.
    /// Batches above `batch_bytes_max` are not read. May wait for the disk.
    pub fn pass_batches(
        &self,
        offset: i64,
        limit: i64,
        batch_bytes_max: usize,
        mut each: impl FnMut(PassedBatch) -> ControlFlow<()>,
    ) -> Result<(), LogError> {
        let segments = self.segments();
        let first = segment_of(&segments, offset);
        for segment in &segments[first..] {
            let end = segment.bytes();
            let Some(start) = segment.batch_holding(offset, end)? else {
                continue;
            };
            let mut walk = segment.batches(start.position, end)?;
            while let Some(at) = walk.next()? {
                if at.header.base_offset >= limit {
                    return Ok(());
                }
                let bytes = match at.header.total_bytes() <= batch_bytes_max {
                    true => Some(segment.read_batch(&at)?),
                    false => None,
                };
                let passed = PassedBatch {
                    header: at.header,
                    bytes,
                };
                if each(passed).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What a reader at `offset` has before it: bytes of batches, and the header of the first. `None` where there is
    /// nothing. May wait for the disk.
    pub fn ahead(&self, offset: i64) -> Result<Option<(u64, BatchHeader)>, LogError> {
        let segments = self.segments();
        let first = segment_of(&segments, offset);
        for (n, segment) in segments.iter().enumerate().skip(first) {
            let end = segment.bytes();
            let found = match segment.batch_holding(offset, end) {
                // Deleted a moment ago.
                Err(LogError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
                found => found?,
            };
            if let Some(found) = found {
                let later: u64 = segments[n + 1..].iter().map(|later| later.bytes()).sum();
                return Ok(Some((end - found.position + later, found.header)));
            }
        }
        Ok(None)
    }
}
