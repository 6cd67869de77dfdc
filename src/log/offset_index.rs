//! `.index`: finds the position of an offset in a segment (Kafka's OffsetIndex).
//!
//! One entry, 8 bytes, big-endian:
//!
//! | bytes | field           | meaning                                    |
//! |-------|-----------------|--------------------------------------------|
//! | 0..4  | relative_offset | offset of the batch's last record − base    |
//! | 4..8  | position        | byte position of the batch in the `.log`    |

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::LogError;
use super::disk::Disk;
use super::index_file::IndexFile;
use super::reach::Reach;

const ENTRY_BYTES: usize = 8;

pub(super) struct OffsetIndex {
    base_offset: i64,
    pub(super) file: IndexFile<ENTRY_BYTES>,
}

impl OffsetIndex {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        base_offset: i64,
        bytes_max: usize,
    ) -> Self {
        Self {
            base_offset,
            file: IndexFile::new(disk, path, bytes_max),
        }
    }

    /// Position of a batch from which `offset` is reached by scanning forward; 0 when no entry lies before it.
    pub(super) fn position_before(&self, offset: i64) -> io::Result<u32> {
        let found = self.file.last_where(|entry| self.ends_by(entry, offset))?;
        Ok(found.as_ref().map_or(0, position))
    }

    /// As [`Self::position_before`], where the disk need not be waited for; `None` otherwise.
    pub(super) fn position_before_cached(&self, offset: i64) -> Option<u32> {
        let found = self
            .file
            .last_where_cached(|entry| self.ends_by(entry, offset))?;
        Some(found.as_ref().map_or(0, position))
    }

    /// An offset that all batches before a position end before; `None` where the index does not reach that far (Kafka's
    /// OffsetIndex.fetchUpperBoundOffset).
    pub(super) fn offset_after(&self, reach: Reach, end: u64) -> Result<Option<i64>, LogError> {
        let before = |entry: &[u8; ENTRY_BYTES]| u64::from(position(entry)) < end;
        let found = match reach {
            Reach::Disk => self.file.first_after(before)?,
            Reach::Cache => {
                let found = self.file.first_after_cached(before);
                found.ok_or(LogError::NotCached)?
            }
        };
        Ok(found.map(|entry| self.base_offset + i64::from(relative(&entry))))
    }

    fn ends_by(&self, entry: &[u8; ENTRY_BYTES], offset: i64) -> bool {
        self.base_offset + i64::from(relative(entry)) <= offset
    }

    /// The last entry: offset and position.
    pub(super) fn last(&self) -> io::Result<Option<(i64, u32)>> {
        let entries = self.file.entries()?;
        let Some(n) = entries.checked_sub(1) else {
            return Ok(None);
        };
        Ok(self.file.get(n)?.map(|entry| {
            (
                self.base_offset + i64::from(relative(&entry)),
                position(&entry),
            )
        }))
    }

    /// All entries, for verification.
    pub(super) fn all(&self) -> io::Result<Vec<(i64, u32)>> {
        let mut all = Vec::new();
        for n in 0..self.file.entries()? {
            if let Some(entry) = self.file.get(n)? {
                all.push((
                    self.base_offset + i64::from(relative(&entry)),
                    position(&entry),
                ));
            }
        }
        Ok(all)
    }

    /// Keeps the entries of batches that begin before a position.
    pub(super) fn keep_before(&self, end: u64) -> io::Result<()> {
        self.file
            .keep_where(|entry| u64::from(position(entry)) < end)
    }

    /// Notes that the batch ending in `last_offset` starts at `batch_position`.
    pub(super) fn append(&self, last_offset: i64, batch_position: u32) -> io::Result<()> {
        let mut entry = [0; ENTRY_BYTES];
        entry[..4].copy_from_slice(&((last_offset - self.base_offset) as u32).to_be_bytes());
        entry[4..].copy_from_slice(&batch_position.to_be_bytes());
        self.file.append(entry)
    }
}

fn relative(entry: &[u8; ENTRY_BYTES]) -> u32 {
    u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]])
}

fn position(entry: &[u8; ENTRY_BYTES]) -> u32 {
    u32::from_be_bytes([entry[4], entry[5], entry[6], entry[7]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::RealDisk;

    #[test]
    fn a_look_up_gives_the_last_batch_that_does_not_end_after_the_offset() {
        let dir = tempfile::tempdir().unwrap();
        let index = OffsetIndex::new(Arc::new(RealDisk), dir.path().join("i"), 1000, 1 << 20);
        index.append(1009, 4096).unwrap();
        index.append(1019, 8192).unwrap();
        assert_eq!(index.position_before(1000).unwrap(), 0);
        assert_eq!(index.position_before(1009).unwrap(), 4096);
        assert_eq!(index.position_before(1018).unwrap(), 4096);
        assert_eq!(index.position_before(5000).unwrap(), 8192);
        assert_eq!(index.last().unwrap(), Some((1019, 8192)));
        for reach in [Reach::Disk, Reach::Cache] {
            let offset_after = |end| index.offset_after(reach, end).unwrap();
            assert_eq!(offset_after(4096), Some(1009));
            assert_eq!(offset_after(4097), Some(1019));
            assert_eq!(offset_after(8193), None);
        }
    }
}
