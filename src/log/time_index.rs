//! `.timeindex`: finds where in a segment a timestamp may first appear (Kafka's TimeIndex).
//!
//! One entry, 12 bytes, big-endian:
//!
//! | bytes  | field           | meaning                                                        |
//! |--------|-----------------|----------------------------------------------------------------|
//! | 0..8   | timestamp       | largest timestamp (ms) of the segment up to this entry          |
//! | 8..12  | relative_offset | last offset of the batch that brought that timestamp − base     |

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::Disk;
use super::index_file::IndexFile;

const ENTRY_BYTES: usize = 12;

pub(super) struct TimeIndex {
    base_offset: i64,
    pub(super) file: IndexFile<ENTRY_BYTES>,
}

/// Largest timestamp so far and the offset that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Milliseconds since 1970, or -1 when there is none.
    pub timestamp: i64,
    /// Last offset of the batch that holds the timestamp.
    pub offset: i64,
}

impl TimeIndex {
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

    /// The offset from which a record of at least `timestamp` is found by scanning forward.
    pub(super) fn offset_before(&self, timestamp: i64) -> io::Result<i64> {
        let found = self
            .file
            .last_where(|entry| self.decode(entry).timestamp < timestamp)?;
        Ok(found.map_or(self.base_offset, |entry| self.decode(&entry).offset))
    }

    pub(super) fn last(&self) -> io::Result<Option<TimestampOffset>> {
        let entries = self.file.entries()?;
        let Some(n) = entries.checked_sub(1) else {
            return Ok(None);
        };
        Ok(self.file.get(n)?.map(|entry| self.decode(&entry)))
    }

    /// All entries, for verification.
    pub(super) fn all(&self) -> io::Result<Vec<TimestampOffset>> {
        let mut all = Vec::new();
        for n in 0..self.file.entries()? {
            all.extend(self.file.get(n)?.map(|entry| self.decode(&entry)));
        }
        Ok(all)
    }

    /// Keeps the entries of records before an offset.
    pub(super) fn keep_before(&self, offset: i64) -> io::Result<()> {
        self.file
            .keep_where(|entry| self.decode(entry).offset < offset)
    }

    /// Adds an entry when the timestamp is larger than the last one's.
    pub(super) fn append_if_later(&self, largest: TimestampOffset) -> io::Result<()> {
        if largest.timestamp < 0
            || self
                .last()?
                .is_some_and(|last| largest.timestamp <= last.timestamp)
        {
            return Ok(());
        }
        let mut entry = [0; ENTRY_BYTES];
        entry[..8].copy_from_slice(&largest.timestamp.to_be_bytes());
        entry[8..].copy_from_slice(&((largest.offset - self.base_offset) as u32).to_be_bytes());
        self.file.append(entry)
    }

    fn decode(&self, entry: &[u8; ENTRY_BYTES]) -> TimestampOffset {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *entry;
        TimestampOffset {
            timestamp: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            offset: self.base_offset + i64::from(u32::from_be_bytes([i, j, k, l])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::RealDisk;

    #[test]
    fn only_growing_timestamps_are_kept_and_a_look_up_stays_before_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let index = TimeIndex::new(Arc::new(RealDisk), dir.path().join("t"), 50, 1 << 20);
        for (timestamp, offset) in [(100, 59), (90, 69), (100, 79), (200, 89)] {
            index
                .append_if_later(TimestampOffset { timestamp, offset })
                .unwrap();
        }
        assert_eq!(index.file.entries().unwrap(), 2);
        assert_eq!(index.offset_before(100).unwrap(), 50);
        assert_eq!(index.offset_before(101).unwrap(), 59);
        assert_eq!(
            index.last().unwrap(),
            Some(TimestampOffset {
                timestamp: 200,
                offset: 89
            })
        );
    }
}
