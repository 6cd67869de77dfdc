//! How a segment that was written anew takes the place of those that it was made from, whatever happens meanwhile (as Kafka's
//! LocalLog.replaceSegments and LogLoader):
//!
//! ```text
//! 1  b.*.cleaned      written and synced; a kill leaves what is removed at the next start
//! 2  b.*.swap         renamed, `.log` last; when that name is durable, the new one counts
//! 3  old *.deleted    renamed; durable
//! 4  b.*              renamed, `.log` last; durable
//! ```
//!
//! After a kill a `.log.swap` says that all from 2 on is to be done, again or still: [`finish_swaps`] does it when the log is
//! opened. Readers see the new segment from 2 on, and read on in the old files until these are unlinked.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};

use super::super::LogError;
use super::super::disk::Disk;
use super::super::failed_sync;
use super::super::partition_log::Log;
use super::super::producer_snapshot;
use super::super::segment::{Segment, base_offset_of, file_name};
use super::cleaned_segment::CLEANED;

/// Ends the names of files that are whole and take the place of others.
const SWAP: &str = ".swap";
/// What stands beside a `.log`.
const BESIDE: [&str; 4] = ["index", "timeindex", "txnindex", "keys"];

/// Puts a segment into the place of those that it was made from. Where that fails half-way, the log is offline until it is
/// opened again.
pub(super) fn swap(
    log: &Log,
    cleaned: &Arc<Segment>,
    replaced: &[Arc<Segment>],
) -> Result<(), LogError> {
    let dir = log.dir();
    cleaned.rename_suffix(CLEANED, SWAP, &|| log.disk.sync_dir(&dir))?;
    // From here on it would be finished at the next start.
    let swapped = finish(log, cleaned, replaced, &dir);
    swapped.map_err(|error| {
        failed_sync::note(&*log.disk, &dir);
        LogError::Offline(log.take_offline(&mut log.lock_tail(), &error))
    })
}

fn finish(
    log: &Log,
    cleaned: &Arc<Segment>,
    replaced: &[Arc<Segment>],
    dir: &Path,
) -> io::Result<()> {
    log.disk.sync_dir(dir)?;
    cleaned.note_named();
    exchange(log, cleaned, replaced);
    for old in replaced.iter().rev() {
        old.mark_deleted()?;
    }
    log.disk.sync_dir(dir)?;
    cleaned.rename_suffix(SWAP, "", &|| log.disk.sync_dir(dir))?;
    log.disk.sync_dir(dir)?;
    let gone: BTreeSet<i64> = replaced[1..].iter().map(|old| old.base_offset).collect();
    // The swap is whole without it.
    if let Err(error) = producer_snapshot::remove(&*log.disk, dir, |at| gone.contains(&at)) {
        tracing::warn!(dir = %dir.display(), %error, "cannot remove snapshots of producers");
    }
    Ok(())
}

/// Shows the new segment to readers instead of the old ones.
fn exchange(log: &Log, cleaned: &Arc<Segment>, replaced: &[Arc<Segment>]) {
    // Whoever rolls changes the list too.
    let _appending = log.lock_tail();
    let mut segments = Vec::clone(&log.segments());
    let first = segments
        .iter()
        .position(|segment| Arc::ptr_eq(segment, &replaced[0]));
    if let Some(first) = first {
        segments.splice(first..first + replaced.len(), [cleaned.clone()]);
        log.segments.store(Arc::new(segments));
    }
}

/// Removes what was not finished of a segment; what cannot be removed now is at the next start.
pub(super) fn remove_unfinished(log: &Log, base_offset: i64) {
    let dir = log.dir();
    for extension in BESIDE.iter().chain(&["log"]) {
        for suffix in [CLEANED, SWAP] {
            let name = file_name(base_offset, extension) + suffix;
            let _ = log.disk.remove(&dir.join(name));
        }
    }
}

/// Finishes or undoes what a kill interrupted, before the segments of a directory are looked for.
pub(in crate::log) fn finish_swaps(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<()> {
    let names: BTreeSet<String> = disk
        .list(dir)?
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    let is_left = |name: &&String| name.ends_with(CLEANED) || name.ends_with(SWAP);
    if !names.iter().any(|name| is_left(&name)) {
        return Ok(());
    }
    let bases = |extension: &str| -> Vec<i64> {
        let bases = names.iter().map(|name| base_offset_of(name, extension));
        bases.flatten().collect()
    };
    let (swapped, logs) = (bases("log.swap"), bases("log"));
    for base in &swapped {
        finish_swap(&**disk, dir, (*base, &logs), &names)?;
    }
    for name in names.iter().filter(is_left) {
        let of_swapped = |base: &i64| name.starts_with(&file_name(*base, ""));
        if name.ends_with(CLEANED) || !swapped.iter().any(of_swapped) {
            disk.remove(&dir.join(name))?;
        }
    }
    Ok(())
}

fn finish_swap(
    disk: &dyn Disk,
    dir: &Path,
    (base, logs): (i64, &[i64]),
    names: &BTreeSet<String>,
) -> io::Result<()> {
    let swapped = dir.join(file_name(base, "log.swap"));
    let end = end_of(disk, &swapped)?;
    tracing::info!(dir = %dir.display(), from = base, to = end, "finishing a compaction");
    let remove = |base, extension: &str| {
        let name = file_name(base, extension);
        match names.contains(&name) {
            true => disk.remove(&dir.join(name)),
            false => Ok(()),
        }
    };
    let replaced = logs.iter().filter(|old| (base..end).contains(old));
    for old in replaced.filter(|old| **old != base) {
        remove(*old, "log")?;
        for extension in BESIDE {
            remove(*old, extension)?;
        }
    }
    // Where one is missing, it has its name already: all were there when the `.log.swap` was named.
    for extension in BESIDE {
        let from = file_name(base, &format!("{extension}{SWAP}"));
        if names.contains(&from) {
            disk.rename(&dir.join(from), &dir.join(file_name(base, extension)))?;
        }
    }
    disk.sync_dir(dir)?;
    disk.rename(&swapped, &dir.join(file_name(base, "log")))?;
    disk.sync_dir(dir)
}

/// The offset after the last batch of a file that is whole.
fn end_of(disk: &dyn Disk, log: &Path) -> io::Result<i64> {
    let file = disk.open(log)?;
    let (bytes, mut position, mut end) = (file.size()?, 0, 0);
    let mut head = [0; BATCH_HEADER_BYTES];
    while position < bytes {
        let read = file.read_at(&mut head, position)?;
        let header = BatchHeader::parse(&head[..read]).map_err(io::Error::other)?;
        end = header.last_offset() + 1;
        position += header.total_bytes() as u64;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use metaq_protocol::batch::BatchBuilder;

    use super::super::super::disk::RealDisk;
    use super::*;

    /// What is left of these files, each holding its name, after a start; names ending in `log.swap` hold a batch.
    fn left_of(names: &[&str]) -> BTreeSet<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        let batch = BatchBuilder::new().push(Some(b"k"), Some(b"v"), &[], 1);
        let batch = batch.finish().unwrap();
        for name in names {
            let path = dir.path().join(format!("{:020}.{name}", 0));
            match *name {
                "log.swap" => std::fs::write(path, &batch),
                _ => std::fs::write(path, name),
            }
            .unwrap();
        }
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        finish_swaps(&disk, dir.path()).unwrap();
        let left = std::fs::read_dir(dir.path()).unwrap().map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().to_str().unwrap()[21..].to_owned();
            let what = std::fs::read(entry.path()).unwrap();
            (name, String::from_utf8_lossy(&what).into_owned())
        });
        left.filter(|(name, _)| name != "log").collect()
    }

    const SWAPPED: [&str; 4] = ["index", "timeindex", "txnindex", "keys"];

    fn expected(renamed: &[&str]) -> BTreeSet<(String, String)> {
        let of = |name: &&str| match renamed.contains(name) {
            true => (name.to_string(), name.to_string()),
            false => (name.to_string(), format!("{name}.swap")),
        };
        SWAPPED.iter().map(of).collect()
    }

    #[test]
    fn what_a_kill_left_beside_the_old_log_is_not_taken_for_that_of_the_new_one() {
        let swaps = SWAPPED.map(|name| format!("{name}.swap"));
        let mut begun: Vec<&str> = swaps.iter().map(String::as_str).collect();
        begun.push("log.swap");
        // Before, while and after the files of the old one are renamed.
        for old in [
            &["log", "index", "timeindex", "txnindex", "keys"][..],
            &["log", "index", "timeindex", "txnindex"],
            &["log.deleted", "index", "timeindex", "txnindex"],
            &["log.deleted", "index.deleted", "timeindex", "txnindex"],
            &["log.deleted", "txnindex.deleted"],
        ] {
            let mut left = left_of(&[&begun[..], old].concat());
            left.retain(|(name, _)| !name.ends_with(".deleted"));
            assert_eq!(left, expected(&[]), "{old:?}");
        }
    }

    #[test]
    fn what_was_renamed_already_of_the_new_log_stays() {
        let begun = ["log.swap", "timeindex.swap", "keys", "index", "txnindex"];
        let stays = expected(&["keys", "index", "txnindex"]);
        assert_eq!(left_of(&begun), stays);
        // The old one is still there where a start was killed in the middle of this.
        assert_eq!(left_of(&[&begun[..], &["log"]].concat()), stays);
    }
}
