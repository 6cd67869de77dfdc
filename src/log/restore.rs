//! What a journal holds of a log, written to the log's end again when it is opened.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use metaq_protocol::batch::BatchHeader;

use super::LogError;
use super::config::LogConfig;
use super::disk::Disk;
use super::segment::{BatchAt, FileAge, Segment};
use super::trust::Indexer;

/// A batch of this log that a journal holds.
#[derive(Clone, Debug)]
pub struct JournaledBatch {
    /// First offset of the run that it belongs to: nothing of a run was acknowledged before all before it was synced.
    pub run_from: i64,
    /// The batch; empty where the log was cut off at `run_from`.
    pub bytes: Bytes,
}

/// Where a log is being opened.
pub(super) struct LogLocation<'a> {
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) dir: &'a Path,
    pub(super) config: &'a LogConfig,
    pub(super) now_ms: i64,
}

impl LogLocation<'_> {
    /// Its first segment, empty.
    pub(super) fn create_first(&self, base_offset: i64) -> Result<Arc<Segment>, LogError> {
        let age = FileAge::new(self.now_ms);
        let max = self.config.index_bytes_max;
        let first = Segment::new(self.disk.clone(), self.dir, base_offset, 0, age, max);
        first.create()?;
        Ok(Arc::new(first))
    }
}

/// Writes batches of the journal to the log's end; returns the new one.
pub(super) fn restore(
    location: &LogLocation<'_>,
    segments: &mut Vec<Arc<Segment>>,
    journaled: &[JournaledBatch],
    mut next_offset: i64,
) -> Result<i64, LogError> {
    let (mut indexer, began) = (Indexer::default(), next_offset);
    // Run and last offset of the entry before.
    let mut before: Option<(i64, i64)> = None;
    for (header, batch) in that_count(journaled)? {
        let earlier = before.replace((batch.run_from, header.last_offset()));
        if header.last_offset() < next_offset {
            continue;
        }
        let only = match &segments[..] {
            [only] if only.bytes() == 0 && header.base_offset > next_offset => Some(only.clone()),
            _ => None,
        };
        if let Some(empty) = only {
            // What lay before it was deleted, and with it the files.
            empty.mark_deleted()?;
            empty.unlink()?;
            *segments = vec![location.create_first(header.base_offset)?];
            next_offset = header.base_offset;
        }
        if next_offset < batch.run_from {
            // What lies before the run was never synced, so that nothing of the run was acknowledged.
            continue;
        }
        let active = &segments[segments.len() - 1];
        // A follower copies what the leader compacted, with its gaps: where the log has what came before in the same run, nothing
        // is missing between.
        let follows =
            |(run_from, last): (i64, i64)| run_from == batch.run_from && last < next_offset;
        let is_gap = location.config.compact && earlier.is_none_or(follows);
        if header.base_offset < next_offset || header.base_offset > next_offset && !is_gap {
            return Err(LogError::Hole {
                after: active.path().display().to_string(),
                from: next_offset,
                to: header.base_offset,
            });
        }
        let (position, bytes) = (active.bytes(), &batch.bytes);
        active.append(&mut [IoSlice::new(bytes)], bytes.len() as u64)?;
        indexer.add(active, &BatchAt { header, position }, location.config)?;
        next_offset = header.last_offset() + 1;
    }
    if next_offset > began {
        tracing::warn!(dir = %location.dir.display(), from = began, to = next_offset, "written again from the journal");
    }
    Ok(next_offset)
}

/// The batches that count, by offset: where one was journaled at or before the offset of an earlier one, the log had lost
/// that earlier one and all that followed it, and where the log was cut off, what was journaled before does not come back.
fn that_count(
    journaled: &[JournaledBatch],
) -> Result<Vec<(BatchHeader, &JournaledBatch)>, LogError> {
    let mut counting: Vec<(BatchHeader, &JournaledBatch)> = Vec::new();
    for batch in journaled {
        if batch.bytes.is_empty() {
            let is_cut = |(earlier, _): &(BatchHeader, _)| earlier.last_offset() >= batch.run_from;
            while counting.last().is_some_and(is_cut) {
                counting.pop();
            }
            continue;
        }
        let header = BatchHeader::parse(&batch.bytes).map_err(io::Error::other)?;
        let lost = |(earlier, _): &(BatchHeader, _)| earlier.last_offset() >= header.base_offset;
        while counting.last().is_some_and(lost) {
            counting.pop();
        }
        counting.push((header, batch));
    }
    Ok(counting)
}

#[cfg(test)]
mod tests {
    use metaq_protocol::batch::{BatchBuilder, header_for_append};

    use super::*;
    use crate::log::{LeftAs, Log, OpenMode, RealDisk};

    /// A batch of `count` records that say `value`, as a log holds it.
    fn journaled(run_from: i64, base_offset: i64, count: usize, value: &str) -> JournaledBatch {
        let mut builder = BatchBuilder::new();
        for _ in 0..count {
            builder = builder.push(None, Some(value.as_bytes()), &[], 1);
        }
        let mut bytes = builder.finish().unwrap().to_vec();
        let head = header_for_append(&bytes, base_offset, 0, None);
        bytes[..head.len()].copy_from_slice(&head);
        JournaledBatch {
            run_from,
            bytes: bytes.into(),
        }
    }

    fn open(dir: &Path, journaled: &[JournaledBatch]) -> Result<i64, LogError> {
        open_as(dir, &LogConfig::default(), journaled)
    }

    fn open_as(
        dir: &Path,
        config: &LogConfig,
        journaled: &[JournaledBatch],
    ) -> Result<i64, LogError> {
        let left = LeftAs::new(OpenMode::AfterCrash { recovery_point: 0 });
        let (disk, config) = (Arc::new(RealDisk), config.clone());
        let opened = Log::open_with(disk, dir, config, left, journaled, 1)?;
        Ok(opened.log.ends().log_end.offset)
    }

    #[test]
    fn what_was_copied_with_the_gaps_of_compaction_is_written_again_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let gaps = [
            journaled(0, 0, 2, "a"),
            journaled(0, 5, 1, "b"),
            journaled(0, 9, 1, "c"),
        ];
        let compacted = LogConfig {
            compact: true,
            ..LogConfig::default()
        };
        for _ in 0..2 {
            assert_eq!(open_as(dir.path(), &compacted, &gaps).unwrap(), 10);
        }
        // The log has the first of them already, and the journal file that held it was used anew.
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open_as(dir.path(), &compacted, &gaps[..1]).unwrap(), 2);
        assert_eq!(open_as(dir.path(), &compacted, &gaps[1..]).unwrap(), 10);
        // What is of another run may have lost what came before it.
        let dir = tempfile::tempdir().unwrap();
        let runs = [journaled(0, 0, 2, "a"), journaled(1, 5, 1, "b")];
        let refused = open_as(dir.path(), &compacted, &runs);
        assert!(matches!(refused, Err(LogError::Hole { .. })));
    }

    #[test]
    fn a_run_whose_beginning_is_not_there_was_acknowledged_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let first = journaled(0, 0, 2, "a");
        // What came before the second run, records 2..5, was too large for the journal, and was never synced.
        let later = [journaled(5, 5, 1, "b"), journaled(5, 6, 1, "b")];
        let all: Vec<_> = [first].into_iter().chain(later).collect();
        for _ in 0..2 {
            assert_eq!(open(dir.path(), &all).unwrap(), 2);
        }
    }

    #[test]
    fn a_batch_that_is_missing_within_a_run_is_a_hole() {
        let dir = tempfile::tempdir().unwrap();
        let all = [journaled(0, 0, 2, "a"), journaled(0, 5, 1, "b")];
        let refused = open(dir.path(), &all);
        assert!(matches!(
            refused,
            Err(LogError::Hole { from: 2, to: 5, .. })
        ));
    }

    #[test]
    fn what_was_journaled_later_at_the_same_offset_counts() {
        let dir = tempfile::tempdir().unwrap();
        let lost = [journaled(0, 2, 1, "lost"), journaled(0, 3, 1, "lost")];
        let kept = [journaled(0, 0, 2, "a"), journaled(2, 2, 2, "kept")];
        let all: Vec<_> = lost.into_iter().chain(kept).collect();
        assert_eq!(open(dir.path(), &all).unwrap(), 4);
        let content = std::fs::read(dir.path().join("00000000000000000000.log")).unwrap();
        let holds = |text: &[u8]| content.windows(text.len()).any(|at| at == text);
        assert!(holds(b"kept") && !holds(b"lost"));
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let cut = |offset| JournaledBatch {
            run_from: offset,
            bytes: Bytes::new(),
        };
        let all = [
            journaled(0, 0, 2, "a"),
            journaled(0, 2, 1, "lost"),
            journaled(0, 3, 1, "lost"),
            cut(2),
        ];
        assert_eq!(open(dir.path(), &all).unwrap(), 2);
        let dir = tempfile::tempdir().unwrap();
        let later: Vec<_> = all
            .into_iter()
            .chain([journaled(2, 2, 3, "kept")])
            .collect();
        assert_eq!(open(dir.path(), &later).unwrap(), 5);
    }
}
