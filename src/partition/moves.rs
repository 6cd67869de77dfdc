//! Which partitions move to which data directory, and what a kill left of that.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use uuid::Uuid;

use crate::log::{Disk, FUTURE};

/// In a copy that is whole; says which partition it is, in a directory whose name may have only a part of the topic's.
pub(super) const MOVED: &str = "metaq-moved";

/// What moves, by topic and partition.
#[derive(Default)]
pub(super) struct Moves {
    /// To which data directory, by its place in the configuration.
    pub(super) wanted: BTreeMap<(Arc<str>, i32), usize>,
    pub(super) thread: Option<JoinHandle<()>>,
    pub(super) stopping: bool,
    /// Copies that could not be removed, with the ids of their topics.
    pub(super) left: Vec<(Uuid, PathBuf)>,
}

/// Settles what a kill left of moves; before the directories are looked through, and after what is seen in them was made
/// durable: a name that the power takes back would make the wrong directory the partition.
pub(super) fn settle(disk: &dyn Disk, dirs: &[&Path]) -> io::Result<()> {
    for dir in dirs {
        for entry in disk.list(dir)? {
            if let Some((named, _)) = entry.name.rsplit_once('.')
                && entry.name.ends_with(FUTURE)
            {
                settle_copy(disk, dirs, dir, &dir.join(&entry.name), named)?;
            }
        }
    }
    Ok(())
}

/// Makes a copy the partition where it is whole and the partition is nowhere else, or removes it.
fn settle_copy(
    disk: &dyn Disk,
    dirs: &[&Path],
    dir: &Path,
    copy: &Path,
    named: &str,
) -> io::Result<()> {
    let moved = match disk.read(&copy.join(MOVED)) {
        // As earlier versions wrote it.
        Ok(said) if said.is_empty() => Some(named.to_owned()),
        Ok(said) => Some(String::from_utf8_lossy(&said).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let is_there = |partition: &&String| dirs.iter().any(|dir| dir.join(partition).exists());
    if let Some(partition) = moved.as_ref().filter(|partition| !is_there(partition)) {
        tracing::info!(partition, dir = %dir.display(), "finishing the move of a partition");
        let path = dir.join(partition);
        disk.rename(copy, &path)?;
        // As long as its name is not durable, the next start must know it by its mark.
        disk.sync_dir(dir)?;
        disk.remove(&path.join(MOVED))
    } else {
        tracing::info!(partition = named, dir = %dir.display(), "the move of a partition was cut short; it stays where it was");
        remove_copy(disk, copy)
    }
}

/// Removes a copy, first of all the mark that it is whole, durably: what a kill or the power leaves of it is no partition.
pub(super) fn remove_copy(disk: &dyn Disk, copy: &Path) -> io::Result<()> {
    if !copy.try_exists()? {
        return Ok(());
    }
    match disk.remove(&copy.join(MOVED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Also where it is gone: who removed it may have ended before this.
    disk.sync_dir(copy)?;
    disk.remove_dir_all(copy)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::log::{RealDisk, capped_name};

    fn partition_dir(path: PathBuf) -> PathBuf {
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("00000000000000000000.log"), b"records").unwrap();
        path
    }

    #[test]
    fn a_kill_amid_a_move_leaves_the_partition_once() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        let future = |n: u32| b.join(format!("t-{n}.0123{FUTURE}"));
        // 0: amid copying. 1: whole, the old one is there. 2: whole, and the old one is set aside.
        for n in 0..3 {
            partition_dir(future(n));
        }
        partition_dir(a.join("t-0"));
        partition_dir(a.join("t-1"));
        partition_dir(a.join("t-2.4567-delete"));
        fs::write(future(1).join(MOVED), b"").unwrap();
        fs::write(future(2).join(MOVED), b"").unwrap();
        let long = "n".repeat(249);
        let of_long = b.join(capped_name(&long, &format!("-0.0123{FUTURE}-{FUTURE}")));
        partition_dir(of_long.clone());
        fs::write(of_long.join(MOVED), format!("{long}-0")).unwrap();
        settle(&RealDisk, &[&a, &b]).unwrap();
        let there = |dir: &Path, n: u32| dir.join(format!("t-{n}")).exists();
        assert_eq!(
            [there(&a, 0), there(&a, 1), there(&a, 2)],
            [true, true, false]
        );
        assert_eq!(
            [there(&b, 0), there(&b, 1), there(&b, 2)],
            [false, false, true]
        );
        assert!(b.join(format!("{long}-0")).exists() && !of_long.exists());
        assert!((0..3).all(|n| !future(n).exists()) && !b.join("t-2").join(MOVED).exists());
    }
}
