//! The archive: where segments of topics with `archive.enable` go before retention deletes them (MetaQ's deletePolicy
//! `archive,…`).
//!
//! ```text
//! <log.archive.dir>/<topic>-<partition>-<topic id>/00000000000000000000.log
//! ```
//!
//! A segment is deleted only when its whole file is in the archive, durably, under its name: linked, where both are on
//! one file system, or copied beside, synced and renamed. What a kill leaves in between is done again, and finds what
//! was done. A file in the archive is never written over, also not by what compaction left of its segment. It is a segment of Kafka's format (`metaq log dump`).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LogError;
use super::copy::copy_range;
use super::disk::{Disk, create_dir_durably, sync_parent};
use super::partition_log::Log;
use super::segment::{Segment, file_name};

/// Files are compared in steps of this size, bytes.
const COMPARED_BYTES: usize = 64 << 10;

impl Log {
    /// The segments that retention would drop now were they archived, oldest first. An active one that is due is
    /// sealed, so that it is among them the next time.
    pub fn due_for_archive(
        &self,
        now_ms: i64,
        high_watermark: i64,
    ) -> Result<Vec<Arc<Segment>>, LogError> {
        let mut tail = self.lock_tail();
        if self.is_offline() {
            return Ok(Vec::new());
        }
        let due = self.due(now_ms, high_watermark)?;
        if due >= self.segments.load().len() {
            self.roll(&mut tail, now_ms)?;
        }
        let archived = self.archived_until.load(Ordering::Acquire);
        let segments = self.segments.load();
        let sealed = due.min(segments.len() - 1);
        let wanted = segments[..sealed]
            .iter()
            .filter(|segment| segment.base_offset >= archived);
        Ok(wanted.cloned().collect())
    }

    /// Puts segments into the archive, in order; retention may drop what is there. Takes as long as copying takes: not
    /// on a thread that appends wait for.
    pub fn archive(&self, segments: &[Arc<Segment>], dir: &Path) -> io::Result<()> {
        for segment in segments {
            archive_segment(&*self.disk, segment, dir)?;
            let next = {
                let all = self.segments.load();
                let next = all
                    .iter()
                    .find(|next| next.base_offset > segment.base_offset);
                next.map_or(segment.base_offset, |next| next.base_offset)
            };
            self.archived_until.fetch_max(next, Ordering::AcqRel);
        }
        Ok(())
    }
}

fn archive_segment(disk: &dyn Disk, segment: &Segment, dir: &Path) -> io::Result<()> {
    create_dir_durably(disk, dir)?;
    let (from, base_offset) = (&segment.path(), segment.base_offset);
    let to = dir.join(file_name(base_offset, "log"));
    if to.exists() {
        // What was archived before it was compacted has more records.
        return match segment.is_compacted() || is_same(disk, from, &to)? {
            true => sync_dirs(disk, dir),
            false => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there already, with other records", to.display()),
            )),
        };
    }
    if disk.link(from, &to).is_err() {
        let beside = dir.join(file_name(base_offset, "log.tmp"));
        let bytes = disk.open(from)?.size()?;
        copy_range(disk, from, &beside, 0..bytes, &|| true)?;
        disk.rename(&beside, &to)?;
    }
    sync_dirs(disk, dir)
}

/// Also the names of the directory and of the archive's root: who made them may have been killed before it synced them.
fn sync_dirs(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.sync_dir(dir)?;
    sync_parent(disk, dir)?;
    dir.parent().map_or(Ok(()), |root| sync_parent(disk, root))
}

fn is_same(disk: &dyn Disk, one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (disk.open(one)?, disk.open(other)?);
    if one.size()? != other.size()? {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    let mut position = 0;
    loop {
        let read = one.read_at(&mut left, position)?;
        if read == 0 {
            return Ok(true);
        }
        let same = other.read_at(&mut right[..read], position)? == read;
        if !same || left[..read] != right[..read] {
            return Ok(false);
        }
        position += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{LeftAs, LogConfig, OpenMode, OpenedLog, ProducedBatch, RealDisk};
    use super::*;
    use metaq_protocol::batch::{BatchBuilder, BatchHeader};

    const NOW: i64 = 1_700_000_000_000;
    const LATER: i64 = NOW + 10_000;

    fn open(dir: &Path, mode: OpenMode) -> OpenedLog {
        let config = LogConfig {
            segment_bytes: 1000,
            retention_ms: 1000,
            archive_dir: Some("anywhere".into()),
            ..LogConfig::default()
        };
        Log::open(Arc::new(RealDisk), dir, config, LeftAs::new(mode), NOW).unwrap()
    }

    fn filled(dir: &Path) -> Log {
        let log = open(dir, OpenMode::Clean).log;
        for n in 0..30 {
            let bytes = BatchBuilder::new()
                .push(
                    None,
                    Some(format!("record {n} {}", "x".repeat(90)).as_bytes()),
                    &[],
                    NOW,
                )
                .finish()
                .unwrap();
            let header = BatchHeader::parse(&bytes).unwrap();
            let batch = vec![ProducedBatch { header, bytes }];
            log.append(&[batch], 0, NOW).remove(0).unwrap();
        }
        log.sync(NOW).unwrap();
        log
    }

    /// All bytes of the segments of a directory, in order.
    fn records_in(dir: &Path) -> Vec<u8> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        files.sort();
        files
            .iter()
            .flat_map(|path| fs::read(path).unwrap())
            .collect()
    }

    #[test]
    fn a_segment_is_dropped_only_when_it_is_in_the_archive() {
        let (dir, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log = filled(dir.path());
        let all = records_in(dir.path());
        assert!(
            log.retain(LATER, 30).unwrap().is_empty(),
            "nothing is archived yet"
        );
        let due = log.due_for_archive(LATER, 30).unwrap();
        assert!(due.len() > 2);
        log.archive(&due[..1], archive.path()).unwrap();
        assert_eq!(log.retain(LATER, 30).unwrap().len(), 1);
        // The active one was sealed, because it is due too.
        let due = log.due_for_archive(LATER, 30).unwrap();
        log.archive(&due, archive.path()).unwrap();
        assert_eq!(log.retain(LATER, 30).unwrap().len(), due.len());
        assert_eq!(log.ends().log_start, 30);
        assert!(log.due_for_archive(LATER, 30).unwrap().is_empty());
        assert!(records_in(archive.path()) == all);
    }

    #[test]
    fn a_kill_between_archive_and_deletion_neither_loses_nor_doubles_a_record() {
        let (dir, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log = filled(dir.path());
        let all = records_in(dir.path());
        let due = log.due_for_archive(LATER, 30).unwrap();
        log.archive(&due, archive.path()).unwrap();
        // What a kill amid copying leaves.
        fs::write(
            archive
                .path()
                .join(file_name(due[1].base_offset, "log.tmp")),
            b"part",
        )
        .unwrap();
        drop(log);
        let log = open(dir.path(), OpenMode::AfterCrash { recovery_point: 0 }).log;
        log.sync(NOW).unwrap();
        assert!(
            log.retain(LATER, 30).unwrap().is_empty(),
            "it is not known what is archived"
        );
        for _ in 0..2 {
            let due = log.due_for_archive(LATER, 30).unwrap();
            log.archive(&due, archive.path()).unwrap();
        }
        assert!(!log.retain(LATER, 30).unwrap().is_empty());
        assert_eq!(log.ends().log_start, 30);
        assert!(records_in(archive.path()) == all);
    }

    #[test]
    fn a_file_in_the_archive_is_not_written_over() {
        let (dir, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log = filled(dir.path());
        let due = log.due_for_archive(LATER, 30).unwrap();
        let other = archive.path().join(file_name(due[0].base_offset, "log"));
        fs::write(&other, b"other records").unwrap();
        let error = log.archive(&due, archive.path()).unwrap_err();
        assert!(error.to_string().contains("other records"), "{error}");
        assert!(log.retain(LATER, 30).unwrap().is_empty());
        assert_eq!(fs::read(&other).unwrap(), b"other records");
    }

    #[test]
    fn what_was_archived_before_it_was_compacted_stays_in_the_archive() {
        let (dir, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log = filled(dir.path());
        let due = log.due_for_archive(LATER, 30).unwrap();
        let earlier = archive.path().join(file_name(due[0].base_offset, "log"));
        fs::write(&earlier, b"more records").unwrap();
        due[0].note_compacted();
        log.archive(&due, archive.path()).unwrap();
        assert!(!log.retain(LATER, 30).unwrap().is_empty());
        assert_eq!(fs::read(&earlier).unwrap(), b"more records");
    }

    #[test]
    fn what_cannot_be_linked_is_copied() {
        // Links end at the border of a file system.
        let other = Path::new("/dev/shm");
        let archive = match tempfile::tempdir_in(other) {
            Ok(dir) => dir,
            Err(_) => tempfile::tempdir().unwrap(),
        };
        let dir = tempfile::tempdir().unwrap();
        let log = filled(dir.path());
        let due = log.due_for_archive(LATER, 30).unwrap();
        let first = fs::read(due[0].path()).unwrap();
        log.archive(&due[..1], &archive.path().join("deep/er"))
            .unwrap();
        let copied = archive
            .path()
            .join("deep/er")
            .join(file_name(due[0].base_offset, "log"));
        assert_eq!(fs::read(copied).unwrap(), first);
    }
}
