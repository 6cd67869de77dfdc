//! What a data directory says of its partitions' offsets: the rows of the four checkpoints.

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
    /// The same of what is compacted, which is also written alone.
    are_cleaned_mixed: bool,
}

impl Rows {
    fn are_in_doubt(&self) -> bool {
        self.are_mixed || self.are_cleaned_mixed
    }
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
        if stale.is_empty() && !rows.are_in_doubt() {
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

    /// Replaces the four checkpoints durably. Rows of partitions that are not among the `online` ones are kept as long
    /// as their directory is there: an offline partition comes back with its offsets. `online` is asked while nobody else
    /// changes the rows: what was deleted before is forgotten here, and what is deleted later is forgotten later.
    pub fn checkpoint(
        &self,
        online: impl FnOnce() -> BTreeMap<TopicPartition, PartitionOffsets>,
    ) -> io::Result<()> {
        let mut rows = self.rows.lock();
        let mut offsets = online();
        for (key, at) in &rows.known {
            if !offsets.contains_key(key) && self.partition_path(&key.0, key.1).exists() {
                offsets.insert(key.clone(), *at);
            }
        }
        offsets.extend(rows.held.iter().map(|(key, at)| (key.clone(), *at)));
        if rows.known == offsets && !rows.are_in_doubt() {
            return Ok(());
        }
        self.write_checkpoints(&mut rows, offsets)
    }

    /// Notes durably up to where a partition is compacted, where it is `current`: under the name of one that was deleted may be
    /// another one, which is not. What was compacted must be durable before.
    pub fn note_cleaned(
        &self,
        topic: &str,
        partition: i32,
        until: i64,
        is_current: impl FnOnce() -> bool,
    ) -> io::Result<()> {
        let mut rows = self.rows.lock();
        let key = (topic.to_owned(), partition);
        let known = rows.known.get(&key).copied().unwrap_or_default();
        if known.cleaned_until == until && !rows.are_cleaned_mixed || !is_current() {
            return Ok(());
        }
        let mut offsets = rows.known.clone();
        let row = PartitionOffsets {
            cleaned_until: until,
            ..known
        };
        offsets.insert(key, row);
        self.write_cleaned(&mut rows, &offsets)?;
        rows.known = offsets;
        Ok(())
    }

    /// Writes the row of a partition that moves, from here or to here, durably; it stays until [`Self::release_offsets`], whether
    /// the partition has a directory here or not.
    pub fn hold_offsets(
        &self,
        topic: &str,
        partition: i32,
        row: PartitionOffsets,
    ) -> io::Result<()> {
        self.hold_rows(&[((topic.to_owned(), partition), row)])
    }

    /// The same of several partitions, with one write.
    pub fn hold_rows(&self, held: &[(TopicPartition, PartitionOffsets)]) -> io::Result<()> {
        let mut rows = self.rows.lock();
        let mut offsets = rows.known.clone();
        offsets.extend(held.iter().cloned());
        if offsets != rows.known || rows.are_in_doubt() {
            self.write_checkpoints(&mut rows, offsets)?;
        }
        rows.held.extend(held.iter().cloned());
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
        if rows.are_cleaned_mixed || cleaned_in(&rows.known) != cleaned_in(&offsets) {
            self.write_cleaned(rows, &offsets)?;
        }
        rows.known = offsets;
        rows.are_mixed = false;
        Ok(())
    }

    fn write_cleaned(
        &self,
        rows: &mut Rows,
        offsets: &BTreeMap<TopicPartition, PartitionOffsets>,
    ) -> io::Result<()> {
        rows.are_cleaned_mixed = true;
        let path = self.path.join(checkpoint::CLEANED);
        checkpoint::write_offsets(&*self.disk, &path, &cleaned_in(offsets))?;
        rows.are_cleaned_mixed = false;
        Ok(())
    }
}

/// Kafka's file has rows of what was compacted alone.
fn cleaned_in(
    offsets: &BTreeMap<TopicPartition, PartitionOffsets>,
) -> BTreeMap<TopicPartition, i64> {
    let compacted = offsets.iter().filter(|(_, at)| at.cleaned_until > 0);
    compacted
        .map(|(partition, at)| (partition.clone(), at.cleaned_until))
        .collect()
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
        cleaned_until: 5,
    };

    fn cleaned(dir: &std::path::Path) -> String {
        std::fs::read_to_string(dir.join(checkpoint::CLEANED)).unwrap_or_default()
    }

    #[test]
    fn what_is_compacted_is_noted_alone_and_goes_with_the_partition() {
        let dir = tempfile::tempdir().unwrap();
        let open = || DataDir::open(Arc::new(RealDisk), dir.path()).unwrap();
        for name in ["t-0", "t-1"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let data = open();
        let not_compacted = PartitionOffsets {
            cleaned_until: 0,
            ..ROW
        };
        let rows = || [(("t".to_owned(), 0), not_compacted)].into();
        data.checkpoint(rows).unwrap();
        assert_eq!(cleaned(dir.path()), "");
        data.note_cleaned("t", 0, 5, || true).unwrap();
        data.note_cleaned("t", 1, 9, || false).unwrap();
        assert_eq!(cleaned(dir.path()), "0\n1\nt 0 5\n");
        drop(data);
        let data = open();
        assert_eq!(
            (data.offsets("t", 0), data.offsets("t", 1)),
            (ROW, PartitionOffsets::default())
        );
        // Cut off, and so lowered.
        let lowered = PartitionOffsets {
            cleaned_until: 4,
            ..ROW
        };
        data.checkpoint(|| [(("t".to_owned(), 0), lowered)].into())
            .unwrap();
        assert_eq!(cleaned(dir.path()), "0\n1\nt 0 4\n");
        std::fs::remove_dir(dir.path().join("t-0")).unwrap();
        data.forget_missing([("t", 0)].into_iter()).unwrap();
        assert_eq!(cleaned(dir.path()), "0\n0\n");
    }

    #[test]
    fn a_damaged_checkpoint_of_the_cleaner_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(checkpoint::CLEANED), "0\n2\nt 0 4\n").unwrap();
        std::fs::write(dir.path().join(checkpoint::LOG_STARTS), "0\n1\nt 0 3\n").unwrap();
        let data = DataDir::open(Arc::new(RealDisk), dir.path()).unwrap();
        let row = data.offsets("t", 0);
        assert_eq!((row.cleaned_until, row.log_start), (0, 3));
    }

    #[test]
    fn a_row_that_is_held_stays_without_a_directory_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let open = || DataDir::open(Arc::new(RealDisk), dir.path()).unwrap();
        let data = open();
        data.hold_offsets("t", 0, ROW).unwrap();
        data.checkpoint(BTreeMap::new).unwrap();
        data.forget_missing([("t", 0)].into_iter()).unwrap();
        assert_eq!(data.offsets("t", 0), ROW);
        drop(data);
        let data = open();
        assert_eq!(data.offsets("t", 0), ROW);
        data.hold_offsets("t", 0, ROW).unwrap();
        data.release_offsets("t", 0);
        data.checkpoint(BTreeMap::new).unwrap();
        assert_eq!(data.offsets("t", 0), PartitionOffsets::default());
    }
}
