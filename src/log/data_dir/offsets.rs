//! What a data directory says of its partitions' offsets: the rows of the three checkpoints.

use std::collections::BTreeMap;
use std::io;

use super::super::checkpoint::{self, TopicPartition};
use super::{DataDir, PartitionOffsets};

/// The rows.
#[derive(Default)]
pub(super) struct Rows {
    /// As the files say.
    known: BTreeMap<TopicPartition, PartitionOffsets>,
    /// Of partitions that move: they stay, whichever directories there are.
    held: BTreeMap<TopicPartition, PartitionOffsets>,
    /// The last write failed: some of the files may have its rows.
    are_mixed: bool,
}

impl Rows {
    pub(super) fn new(known: BTreeMap<TopicPartition, PartitionOffsets>) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }
}

impl DataDir {
    /// Forgets the rows of those partitions that have no directory, durably: what is made under such a name next is
    /// new, and a row of an earlier topic of that name would hide its records after a crash.
    pub fn forget_missing<'a>(
        &self,
        partitions: impl Iterator<Item = (&'a str, i32)>,
    ) -> io::Result<()> {
        let mut rows = self.rows.lock();
        let is_stale = |key: &TopicPartition| {
            rows.known.contains_key(key)
                && !rows.held.contains_key(key)
                && !self.partition_path(&key.0, key.1).exists()
        };
        let stale: Vec<TopicPartition> = partitions
            .map(|(topic, partition)| (topic.to_owned(), partition))
            .filter(is_stale)
            .collect();
        if stale.is_empty() && !rows.are_mixed {
            return Ok(());
        }
        let mut kept = rows.known.clone();
        kept.retain(|key, _| !stale.contains(key));
        self.write_checkpoints(&mut rows, kept)
    }

    /// A partition's checkpointed offsets.
    pub fn offsets(&self, topic: &str, partition: i32) -> PartitionOffsets {
        let rows = self.rows.lock();
        let row = rows.known.get(&(topic.to_owned(), partition));
        row.copied().unwrap_or_default()
    }

    /// Replaces the three checkpoints durably. Rows of partitions that are not among the `online` ones are kept as long
    /// as their directory is there: an offline partition comes back with its offsets.
    pub fn checkpoint(&self, online: BTreeMap<TopicPartition, PartitionOffsets>) -> io::Result<()> {
        let mut rows = self.rows.lock();
        let mut offsets = online;
        for (key, at) in &rows.known {
            if !offsets.contains_key(key) && self.partition_path(&key.0, key.1).exists() {
                offsets.insert(key.clone(), *at);
            }
        }
        offsets.extend(rows.held.iter().map(|(key, at)| (key.clone(), *at)));
        if rows.known == offsets && !rows.are_mixed {
            return Ok(());
        }
        self.write_checkpoints(&mut rows, offsets)
    }

    /// Writes the row of a partition that moves, from here or to here, durably; it stays until [`Self::release_offsets`], whether
    /// the partition has a directory here or not.
    pub fn hold_offsets(
        &self,
        topic: &str,
        partition: i32,
        row: PartitionOffsets,
    ) -> io::Result<()> {
        let mut rows = self.rows.lock();
        let key = (topic.to_owned(), partition);
        let mut offsets = rows.known.clone();
        offsets.insert(key.clone(), row);
        self.write_checkpoints(&mut rows, offsets)?;
        rows.held.insert(key, row);
        Ok(())
    }

    /// From now on the row goes with the directory again.
    pub fn release_offsets(&self, topic: &str, partition: i32) {
        self.rows.lock().held.remove(&(topic.to_owned(), partition));
    }

    fn write_checkpoints(
        &self,
        rows: &mut Rows,
        offsets: BTreeMap<TopicPartition, PartitionOffsets>,
    ) -> io::Result<()> {
        rows.are_mixed = true;
        let column = |of: fn(&PartitionOffsets) -> i64| -> BTreeMap<TopicPartition, i64> {
            offsets
                .iter()
                .map(|(partition, offsets)| (partition.clone(), of(offsets)))
                .collect()
        };
        let write =
            |name, rows| checkpoint::write_offsets(&*self.disk, &self.path.join(name), &rows);
        write(checkpoint::LOG_STARTS, column(|offsets| offsets.log_start))?;
        write(
            checkpoint::RECOVERY_POINTS,
            column(|offsets| offsets.recovery_point),
        )?;
        write(
            checkpoint::HIGH_WATERMARKS,
            column(|offsets| offsets.high_watermark),
        )?;
        rows.known = offsets;
        rows.are_mixed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::RealDisk;

    const ROW: PartitionOffsets = PartitionOffsets {
        recovery_point: 7,
        log_start: 3,
        high_watermark: 7,
    };

    #[test]
    fn a_row_that_is_held_stays_without_a_directory_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let open = || DataDir::open(Arc::new(RealDisk), dir.path()).unwrap();
        let data = open();
        data.hold_offsets("t", 0, ROW).unwrap();
        data.checkpoint(BTreeMap::new()).unwrap();
        data.forget_missing([("t", 0)].into_iter()).unwrap();
        assert_eq!(data.offsets("t", 0), ROW);
        drop(data);
        let data = open();
        assert_eq!(data.offsets("t", 0), ROW);
        data.hold_offsets("t", 0, ROW).unwrap();
        data.release_offsets("t", 0);
        data.checkpoint(BTreeMap::new()).unwrap();
        assert_eq!(data.offsets("t", 0), PartitionOffsets::default());
    }
}
