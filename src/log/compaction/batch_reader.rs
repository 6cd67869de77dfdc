//! Reading a segment's batches whole, one after the other.

use std::sync::Arc;

use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};

use super::super::LogError;
use super::super::disk::DiskFile;
use super::super::segment::Segment;

/// Read at a time, bytes; more where a batch is larger.
const CHUNK_BYTES: usize = 1 << 20;

/// A whole batch of a segment.
pub(super) struct WholeBatch<'a> {
    pub(super) header: BatchHeader,
    pub(super) position: u64,
    pub(super) bytes: &'a [u8],
}

/// Reads a part of a segment batch by batch.
pub(super) struct BatchReader<'a> {
    segment: &'a Segment,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    buffer_position: u64,
    position: u64,
    end: u64,
}

impl<'a> BatchReader<'a> {
    /// Reads from a batch's position on.
    pub(super) fn new(segment: &'a Segment, position: u64) -> Result<Self, LogError> {
        Ok(Self {
            segment,
            file: segment.file()?,
            buffer: Vec::new(),
            buffer_position: position,
            position,
            end: segment.bytes(),
        })
    }

    /// The next batch; how many bytes were read for it is added to `read`.
    pub(super) fn next(&mut self, read: &mut u64) -> Result<Option<WholeBatch<'_>>, LogError> {
        if self.position >= self.end {
            return Ok(None);
        }
        self.fill(BATCH_HEADER_BYTES, read)?;
        let header =
            BatchHeader::parse(self.buffered()).map_err(|error| self.damaged(error.to_string()))?;
        let total = header.total_bytes();
        if header.last_offset_delta < 0 || total as u64 > self.end - self.position {
            return Err(self.damaged("a batch that does not end in its file".to_owned()));
        }
        self.fill(total, read)?;
        let position = self.position;
        self.position += total as u64;
        let at = (position - self.buffer_position) as usize;
        Ok(Some(WholeBatch {
            header,
            position,
            bytes: &self.buffer[at..at + total],
        }))
    }

    fn buffered(&self) -> &[u8] {
        &self.buffer[(self.position - self.buffer_position) as usize..]
    }

    /// Makes sure that so many bytes from the position on are in the buffer.
    fn fill(&mut self, bytes: usize, read: &mut u64) -> Result<(), LogError> {
        if self.buffered().len() >= bytes {
            return Ok(());
        }
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let want = bytes.max(CHUNK_BYTES).min(left);
        self.buffer.resize(want, 0);
        let found = self.file.read_at(&mut self.buffer, self.position)?;
        self.buffer.truncate(found);
        self.buffer_position = self.position;
        *read += found as u64;
        match found >= bytes {
            true => Ok(()),
            false => Err(self.damaged("the file ends here".to_owned())),
        }
    }

    fn damaged(&self, what: String) -> LogError {
        damaged(self.segment, self.position, what)
    }
}

/// A batch that cannot be read.
pub(super) fn damaged(segment: &Segment, position: u64, what: String) -> LogError {
    LogError::Damaged {
        file: segment.path().display().to_string(),
        position,
        what,
    }
}
