//! The batches of a slice, for whoever gives parts of it to different readers.

use std::io;

use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};

use super::LogError;
use super::reach::Reach;
use super::read::Slice;

/// Headers are read so many bytes at a time.
const SCAN_BYTES: usize = 16 << 10;
/// Of batches as large as this only the headers.
const LARGE_BATCH_BYTES: usize = 4 << 10;

/// A batch of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceBatch {
    /// Its header.
    pub header: BatchHeader,
    /// Where in the file it begins.
    pub position: u64,
}

impl Slice {
    /// The whole batches in it, in order, up to the first one that ends at or after an offset. [`LogError::NotCached`] where
    /// that needs more than may be reached.
    pub fn batches(&self, until: i64, reach: Reach) -> Result<Vec<SliceBatch>, LogError> {
        let end = self.position + self.bytes as u64;
        let mut batches: Vec<SliceBatch> = Vec::new();
        let mut position = self.position;
        let (mut buffer, mut begins) = (Vec::new(), 0);
        while position + BATCH_HEADER_BYTES as u64 <= end {
            let at = position.checked_sub(begins).map(|at| at as usize);
            let is_there = |at: &usize| {
                buffer.len() >= BATCH_HEADER_BYTES && *at <= buffer.len() - BATCH_HEADER_BYTES
            };
            let at = match at.filter(is_there) {
                Some(at) => at,
                None => {
                    let last = batches.last();
                    let is_large =
                        last.is_some_and(|last| last.header.total_bytes() >= LARGE_BATCH_BYTES);
                    let wanted = if is_large {
                        BATCH_HEADER_BYTES
                    } else {
                        SCAN_BYTES
                    };
                    buffer.resize(wanted.min((end - position) as usize), 0);
                    self.read_headers(&mut buffer, position, reach)?;
                    begins = position;
                    0
                }
            };
            let header = BatchHeader::parse(&buffer[at..]).map_err(|error| LogError::Damaged {
                file: "a segment".to_owned(),
                position,
                what: error.to_string(),
            })?;
            let bytes = header.total_bytes() as u64;
            // A part of a batch at the end is sent to consumers, but nothing of it is anybody's.
            if position + bytes > end {
                break;
            }
            batches.push(SliceBatch { header, position });
            if header.last_offset() >= until {
                break;
            }
            position += bytes;
        }
        Ok(batches)
    }

    fn read_headers(
        &self,
        buffer: &mut Vec<u8>,
        position: u64,
        reach: Reach,
    ) -> Result<(), LogError> {
        let read = match reach {
            Reach::Disk => self.file.read_at(buffer, position)?,
            Reach::Cache => {
                let read = self.file.read_cached_at(buffer, position)?;
                read.ok_or(LogError::NotCached)?
            }
        };
        buffer.truncate(read);
        match read >= BATCH_HEADER_BYTES {
            true => Ok(()),
            false if reach == Reach::Cache => Err(LogError::NotCached),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}
