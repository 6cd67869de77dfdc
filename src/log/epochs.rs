//! `leader-epoch-checkpoint`: which leader epoch began at which offset (KIP-101; Kafka's LeaderEpochFileCache).
//!
//! ```text
//! 0              version
//! 2              number of entries
//! 0 0            epoch, start offset
//! 3 1500
//! ```

use std::io;
use std::path::Path;

use super::checkpoint::{self, CheckpointError};
use super::disk::Disk;

/// The epochs of one log, oldest first; both columns grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochStart>,
}

/// One line of the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// Leader epoch.
    pub epoch: i32,
    /// First offset written under it.
    pub start_offset: i64,
}

/// The file's name.
pub const FILE_NAME: &str = "leader-epoch-checkpoint";

impl LeaderEpochs {
    /// Reads the checkpoint of a partition directory; a missing one is empty.
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Self, CheckpointError> {
        let path = dir.join(FILE_NAME);
        let rows = match checkpoint::read_rows(disk, &path)? {
            Some(rows) => rows,
            None => return Ok(Self::default()),
        };
        let mut epochs = Self::default();
        for row in rows {
            let entry = parse(&row).ok_or_else(|| CheckpointError::line(&path, &row))?;
            epochs.assign(entry.epoch, entry.start_offset);
        }
        Ok(epochs)
    }

    /// Writes the checkpoint durably.
    pub fn store(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        disk.replace(&dir.join(FILE_NAME), &self.content())
    }

    /// Writes it, not durably.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        disk.write(&dir.join(FILE_NAME), &self.content())
    }

    fn content(&self) -> Vec<u8> {
        let row = |entry: &EpochStart| format!("{} {}", entry.epoch, entry.start_offset);
        checkpoint::rows_content(self.entries.iter().map(row))
    }

    /// All epochs, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &EpochStart> {
        self.entries.iter()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes that `epoch` begins at `start_offset`; returns whether that was news.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if epoch < 0 || self.entries.last().is_some_and(|last| last.epoch >= epoch) {
            return false;
        }
        self.entries
            .retain(|entry| entry.start_offset < start_offset);
        self.entries.push(EpochStart {
            epoch,
            start_offset,
        });
        true
    }

    /// The epoch under which `offset` was written.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        self.entries
            .iter()
            .rev()
            .find(|entry| entry.start_offset <= offset)
            .map(|entry| entry.epoch)
    }

    /// The latest epoch.
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// Where the latest epoch began, if it is this one.
    pub fn start_of_latest(&self, epoch: i32) -> Option<i64> {
        let latest = self.entries.last().filter(|entry| entry.epoch == epoch);
        latest.map(|entry| entry.start_offset)
    }

    /// OffsetForLeaderEpoch's answer: the largest known epoch not above `epoch`, and where it ended.
    pub fn end_offset_for(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        let latest = self.latest()?;
        // As Kafka's LeaderEpochFileCache: an undefined epoch has no end.
        if epoch < 0 {
            return None;
        }
        if epoch == latest {
            return Some((epoch, log_end));
        }
        if epoch > latest {
            return None;
        }
        let next = self.entries.iter().position(|entry| entry.epoch > epoch)?;
        match next.checked_sub(1) {
            // Every known epoch is later: the asked one ended before the first known one began.
            None => Some((epoch, self.entries[next].start_offset)),
            Some(before) => Some((self.entries[before].epoch, self.entries[next].start_offset)),
        }
    }

    /// Forgets what lies before the log's start, keeping the epoch that covers it.
    pub fn truncate_from_start(&mut self, log_start: i64) -> bool {
        let Some(covering) = self
            .entries
            .iter()
            .rposition(|entry| entry.start_offset <= log_start)
        else {
            return false;
        };
        let changed = covering > 0 || self.entries[covering].start_offset < log_start;
        self.entries.drain(..covering);
        if let Some(first) = self.entries.first_mut() {
            first.start_offset = first.start_offset.max(log_start);
        }
        changed
    }

    /// Forgets all; whether there were any.
    pub fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.entries).is_empty()
    }

    /// Forgets epochs that begin at or after a new log end.
    pub fn truncate_from_end(&mut self, log_end: i64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.start_offset < log_end);
        self.entries.len() != before
    }
}

fn parse(row: &str) -> Option<EpochStart> {
    let (epoch, start) = row.split_once(' ')?;
    Some(EpochStart {
        epoch: epoch.parse().ok()?,
        start_offset: start.trim().parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::RealDisk;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (epoch, start) in entries {
            epochs.assign(*epoch, *start);
        }
        epochs
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let epochs = epochs(&[(1, 0), (3, 100), (7, 250)]);
        assert_eq!(epochs.end_offset_for(7, 400), Some((7, 400)));
        assert_eq!(epochs.end_offset_for(3, 400), Some((3, 250)));
        assert_eq!(epochs.end_offset_for(5, 400), Some((3, 250)));
        assert_eq!(epochs.end_offset_for(0, 400), Some((0, 0)));
        assert_eq!(epochs.end_offset_for(8, 400), None);
        assert_eq!(epochs.epoch_of(99), Some(1));
        assert_eq!(epochs.epoch_of(100), Some(3));
    }

    #[test]
    fn the_checkpoint_is_read_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let written = epochs(&[(0, 0), (3, 1500)]);
        written.store(&RealDisk, dir.path()).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join(FILE_NAME)).unwrap(),
            "0\n2\n0 0\n3 1500\n"
        );
        assert_eq!(LeaderEpochs::load(&RealDisk, dir.path()).unwrap(), written);
    }

    #[test]
    fn the_start_keeps_the_epoch_that_covers_it() {
        let mut epochs = epochs(&[(1, 0), (3, 100), (7, 250)]);
        assert!(epochs.truncate_from_start(120));
        assert_eq!(
            epochs.entries,
            [
                EpochStart {
                    epoch: 3,
                    start_offset: 120
                },
                EpochStart {
                    epoch: 7,
                    start_offset: 250
                }
            ]
        );
    }
}
