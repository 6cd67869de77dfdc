//! Moving a partition to another data directory of this broker, while it serves (Kafka's AlterReplicaLogDirs, MetaQ's
//! move-partitions).
//!
//! ```text
//! copy      <to>/<topic>-<partition>.<random>-future     beside the partition, which goes on; until little is missing
//! switch    appends are refused with NOT_LEADER, so that clients ask again; the log is closed, the rest is copied
//!           the file `metaq-moved` is put into the copy; its files, its names and its own name are synced
//!           both data directories' checkpoints say where the partition begins and that all of it is synced
//!           <from>/<topic>-<partition>  ->  …-delete     <from> is synced; removed later, as a deleted topic's
//!           <to>/…-future  ->  <to>/<topic>-<partition>  <to> is synced
//!           `metaq-moved` is removed, the partition is opened, and appends go on
//! ```
//!
//! What a kill leaves is settled at the next start (`moves.rs`): while the old directory is there, it is the partition and the
//! copy goes; a copy with `metaq-moved` whose old directory is gone is the partition. A step that fails is undone, and the
//! old directory is opened again; where that fails too, the partition is offline until the next start. A copy loses its mark,
//! durably, before anything else of it: a part of one must never be taken for a partition. One partition moves at a time, on a
//! thread of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use uuid::Uuid;

use super::executor::Workers;
use super::handle::Partition;
use super::moves::{MOVED, remove_copy};
use super::registry::{Partitions, TopicToOpen};
use super::volume::Volume;
use crate::log::{DataDir, DirEntry, Disk, FUTURE, PartitionOffsets, capped_name, copy_range};

/// The switch waits until this little is to be copied, bytes; or the passes below are over.
const SWITCH_BYTES_MAX: u64 = 4 << 20;
/// Rounds of copying what came meanwhile.
const ROUNDS_MAX: usize = 20;

/// Why a partition does not move.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// No such data directory.
    #[error("{0} is not a data directory of this broker (dataPath, log.dirs)")]
    NoDirectory(PathBuf),
    /// There is no thread to be had.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a switch did not come about.
struct MoveFailed {
    error: io::Error,
    /// The copy is left: a power failure may leave no other.
    needs_copy: bool,
}

impl From<io::Error> for MoveFailed {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            needs_copy: false,
        }
    }
}

impl Partitions {
    /// The number of a data directory.
    pub fn data_dir(&self, dir: &Path) -> Result<usize, MoveError> {
        let absolute = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let wanted = absolute(dir);
        let mut volumes = self.volumes.iter();
        let found = volumes.position(|volume| absolute(volume.dir.path()) == wanted);
        found.ok_or_else(|| MoveError::NoDirectory(dir.to_owned()))
    }

    /// Begins to move a partition; [`Partitions::moving`] tells when it is done. Into the directory that it is in means
    /// that it stays.
    pub fn move_to(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        dir: &Path,
    ) -> Result<(), MoveError> {
        let to = self.data_dir(dir)?;
        let key = (partition.topic().clone(), partition.index());
        // Where it is in the middle of a switch, that is finished first.
        let stays = !partition.is_deleted() && self.is_in(partition, to);
        let mut moves = self.moves.lock();
        if stays {
            moves.wanted.remove(&key);
            return Ok(());
        }
        moves.wanted.insert(key, to);
        if let Workers::Steps(_) = self.workers() {
            drop(moves);
            self.move_all();
            return Ok(());
        }
        if moves.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let partitions = self.clone();
            let mover = std::thread::Builder::new().name("mover".to_owned());
            moves.thread = Some(mover.spawn(move || partitions.move_all())?);
        }
        Ok(())
    }

    /// What moves, or waits to: topic, partition, and where to.
    pub fn moving(&self) -> Vec<(Arc<str>, i32, PathBuf)> {
        let moves = self.moves.lock();
        let all = moves.wanted.iter();
        all.map(|((topic, index), to)| {
            let dir = self.volumes[*to].dir.path().to_owned();
            (topic.clone(), *index, dir)
        })
        .collect()
    }

    /// Whether a partition is being copied to another directory, or waits to be.
    pub(super) fn is_moving(&self, partition: &Partition) -> bool {
        let moves = self.moves.lock();
        let mut wanted = moves.wanted.keys();
        wanted.any(|(topic, index)| topic == partition.topic() && *index == partition.index())
    }

    /// Lets what is being copied go; a switch is finished.
    pub(super) fn stop_moving(&self) {
        let thread = {
            let mut moves = self.moves.lock();
            moves.stopping = true;
            moves.thread.take()
        };
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    fn move_all(&self) {
        loop {
            let (key, to) = {
                let mut moves = self.moves.lock();
                let next = moves.wanted.first_key_value();
                let next = next.map(|(key, to)| (key.clone(), *to));
                match next {
                    Some(next) if !moves.stopping => next,
                    _ => {
                        // Whoever wants more finds no thread.
                        moves.thread = None;
                        return;
                    }
                }
            };
            self.move_named(&key.0, key.1, to);
            let mut moves = self.moves.lock();
            if moves.wanted.get(&key) == Some(&to) {
                moves.wanted.remove(&key);
            }
        }
    }

    fn move_named(&self, topic: &str, partition: i32, to: usize) {
        let dir = self.volumes[to].dir.path().display();
        match self.get(topic, partition) {
            // Deleted meanwhile, or there already.
            Err(_) => {}
            Ok(there) if self.is_in(&there, to) => {}
            Ok(there) => {
                tracing::info!(topic, partition, %dir, "moving the partition");
                match self.move_one(&there, to) {
                    Ok(()) => tracing::info!(topic, partition, %dir, "the partition is moved"),
                    Err(error) => {
                        tracing::error!(topic, partition, %dir, %error, "the partition is not moved")
                    }
                }
            }
        }
    }

    fn is_in(&self, partition: &Partition, volume: usize) -> bool {
        partition.log().dir().parent() == Some(self.volumes[volume].dir.path())
    }

    /// Whether the move is still wanted.
    fn goes_on(&self, partition: &Partition, to: usize) -> bool {
        let key = (partition.topic().clone(), partition.index());
        let moves = self.moves.lock();
        moves.wanted.get(&key) == Some(&to) && !moves.stopping && !partition.is_deleted()
    }

    fn move_one(&self, partition: &Arc<Partition>, to: usize) -> io::Result<()> {
        let (topic, index) = (partition.topic(), partition.index());
        // One that an earlier move could not remove says that it is whole: a kill amid this move would make it the partition.
        self.remove_copies_left(partition.topic_id())?;
        let random = Uuid::new_v4().simple();
        let future = self.volumes[to]
            .dir
            .path()
            .join(capped_name(topic, &format!("-{index}.{random}{FUTURE}")));
        self.disk().create_dir(&future)?;
        let mut copy = DirectoryCopy {
            disk: self.disk(),
            from: partition.log().dir(),
            to: &future,
            done: BTreeMap::new(),
        };
        match self.copy_while_it_serves(partition, to, &mut copy) {
            Ok(rewrites) => self.switch(partition, to, &mut copy, rewrites),
            Err(error) => {
                self.drop_copy(partition, &future);
                Err(error)
            }
        }
    }

    /// Copies until little is missing; as of which count of rewrites.
    fn copy_while_it_serves(
        &self,
        partition: &Partition,
        to: usize,
        copy: &mut DirectoryCopy<'_>,
    ) -> io::Result<u64> {
        let goes_on = || self.goes_on(partition, to);
        let mut rewrites = partition.log().rewrites();
        for _ in 0..ROUNDS_MAX {
            let now = partition.log().rewrites();
            if std::mem::replace(&mut rewrites, now) != now {
                copy.begin_anew()?;
            }
            copy.pass(false, &goes_on)?;
            if copy.missing()? <= SWITCH_BYTES_MAX {
                break;
            }
        }
        Ok(rewrites)
    }

    /// Closes the log, finishes the copy, and makes it the partition; or opens the old one again. Nobody else looks for the
    /// partition's directory meanwhile, so that it is found under its name, or its topic is deleted before or after.
    fn switch(
        &self,
        old: &Arc<Partition>,
        to: usize,
        copy: &mut DirectoryCopy<'_>,
        rewrites: u64,
    ) -> io::Result<()> {
        let _renaming = self.lock_renames();
        let (topic, index) = (old.topic(), old.index());
        let volumes = &self.volumes;
        let is_in = |volume: &Volume| copy.from.parent() == Some(volume.dir.path());
        let Some(from) = volumes.iter().find(|volume| is_in(volume)) else {
            self.drop_copy(old, copy.to);
            return Err(io::Error::other("it is in no data directory"));
        };
        if !self.is_current(old) {
            self.drop_copy(old, copy.to);
            return Err(io::Error::other("it was deleted, or is led elsewhere"));
        }
        let moved = self
            .close_and_finish(old, copy, rewrites)
            .and_then(|row| self.exchange(old, &from.dir, &volumes[to].dir, copy, row));
        if let Err(failed) = &moved
            && !failed.needs_copy
        {
            self.drop_copy(old, copy.to);
        }
        from.has_one_less();
        match &moved {
            Err(failed) if failed.needs_copy => self.lose(old, &failed.error),
            // The new one, or the old one as before.
            _ => self.open_moved(old),
        }
        for volume in [from, &volumes[to]] {
            volume.dir.release_offsets(topic, index);
        }
        moved.map_err(|failed| failed.error)
    }

    /// Nothing is appended any more, and the copy is whole and durable; what the checkpoints are to say of the partition.
    fn close_and_finish(
        &self,
        old: &Partition,
        copy: &mut DirectoryCopy<'_>,
        rewrites: u64,
    ) -> Result<PartitionOffsets, MoveFailed> {
        let now = self.clock().now_ms();
        old.mark_moved();
        // After what is queued already, so that what waits for a sync is answered.
        let _ = old.writer().run_blocking(|| ());
        old.sync_to(old.log().sync_target(), now);
        let closed = old.log().close(now);
        if closed.is_err() {
            self.note_unclosed(old);
        }
        closed.map_err(|error| io::Error::other(error.to_string()))?;
        if old.log().rewrites() != rewrites {
            // Nobody rewrites it any more.
            copy.begin_anew()?;
        }
        copy.pass(true, &|| true)?;
        copy.finish()?;
        let ends = old.log().ends();
        Ok(PartitionOffsets {
            recovery_point: ends.synced_end,
            log_start: ends.log_start,
            high_watermark: old.high_watermark(),
            cleaned_until: old.log().cleaned_until(),
        })
    }

    /// Sets the old directory aside and gives the copy its name. What fails is undone.
    fn exchange(
        &self,
        old: &Partition,
        from: &DataDir,
        to: &DataDir,
        copy: &DirectoryCopy<'_>,
        row: PartitionOffsets,
    ) -> Result<(), MoveFailed> {
        let (topic, index) = (old.topic(), old.index());
        // Whichever directory is opened next begins where this one was closed.
        from.hold_offsets(topic, index, row)?;
        to.hold_offsets(topic, index, row)?;
        let aside = from.rename_aside(topic, index)?;
        let path = to.partition_path(topic, index);
        let placed = from
            .sync()
            .and_then(|()| self.disk().rename(copy.to, &path));
        if let Err(error) = placed {
            let back = self.disk().rename(&aside, &copy.from);
            // Until that is durable, the copy may be all that is found under a name of the partition.
            let needs_copy = back.and_then(|()| from.sync()).is_err();
            return Err(MoveFailed { error, needs_copy });
        }
        old.log().moved_to(&aside);
        self.put_aside(aside, old.log().config().file_delete_delay_ms);
        // Until its new name is durable, the next start needs the mark to know it by.
        let named = to
            .sync()
            .and_then(|()| self.disk().remove(&path.join(MOVED)));
        if let Err(error) = named {
            tracing::warn!(dir = %path.display(), %error, "the move may have to be finished at the next start");
        }
        Ok(())
    }

    /// A copy that does not become the partition. Where it cannot be removed, the deletion of its topic tries again.
    fn drop_copy(&self, partition: &Partition, copy: &Path) {
        if let Err(error) = remove_copy(self.disk(), copy) {
            tracing::error!(dir = %copy.display(), %error, "cannot remove the copy of a partition that is not moved");
            let left = (partition.topic_id(), copy.to_owned());
            self.moves.lock().left.push(left);
        }
    }

    /// Opens the partition where it is by now, and makes it known instead of the old one.
    fn open_moved(&self, old: &Arc<Partition>) {
        let (topic, index) = (old.topic(), old.index());
        let to_open = TopicToOpen {
            topic: topic.clone(),
            topic_id: old.topic_id(),
            config: (*old.log().config()).clone(),
            partitions: vec![(index, old.identity(), old.state())],
        };
        if !self.replace(old, &to_open) {
            tracing::warn!(%topic, partition = index, "deleted, or led elsewhere, while it moved");
        }
        // Who waits for records of the old one looks again, and finds the new one.
        old.mark_moved();
    }
}

/// A copy of a partition's directory that is brought up to date in passes.
struct DirectoryCopy<'a> {
    disk: &'a dyn Disk,
    from: PathBuf,
    to: &'a Path,
    /// How much of which file is there.
    done: BTreeMap<String, u64>,
}

impl DirectoryCopy<'_> {
    /// The files of the partition with their sizes; of segments that are not sealed, and in passes before the last one,
    /// the records alone.
    fn files(&self, last: bool) -> io::Result<Vec<(String, u64)>> {
        let counts = |entry: &DirEntry| {
            let name = &entry.name;
            let is_passing = name.ends_with(".deleted") || name.ends_with(".tmp");
            !entry.is_dir && !is_passing && name != MOVED && (last || name.ends_with(".log"))
        };
        let entries = self.disk.list(&self.from)?.into_iter().filter(counts);
        let mut files: Vec<_> = entries.map(|entry| (entry.name, entry.bytes)).collect();
        files.sort();
        Ok(files)
    }

    /// Records that are copied were cut off or replaced: all are copied again.
    fn begin_anew(&mut self) -> io::Result<()> {
        for name in std::mem::take(&mut self.done).into_keys() {
            match self.disk.remove(&self.to.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// How many bytes of records are not copied yet.
    fn missing(&self) -> io::Result<u64> {
        let files = self.files(false)?;
        let missing = |(name, bytes): &(String, u64)| {
            bytes.saturating_sub(self.done.get(name).copied().unwrap_or(0))
        };
        Ok(files.iter().map(missing).sum())
    }

    /// Copies what is there and not copied yet. Records are only appended; other files are copied whole, in the last
    /// pass.
    fn pass(&mut self, last: bool, goes_on: &dyn Fn() -> bool) -> io::Result<()> {
        for (name, bytes) in self.files(last)? {
            let is_records = name.ends_with(".log");
            let from = match is_records {
                true => self.done.get(&name).copied().unwrap_or(0),
                false => 0,
            };
            if is_records && from == bytes && self.done.contains_key(&name) {
                continue;
            }
            match copy_range(
                self.disk,
                &self.from.join(&name),
                &self.to.join(&name),
                from..bytes,
                goes_on,
            ) {
                Ok(()) => {
                    self.done.insert(name, bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !last => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes away what retention took meanwhile, and makes the copy durable and whole.
    fn finish(&self) -> io::Result<()> {
        let wanted = self.files(true)?;
        for entry in self.disk.list(self.to)? {
            if !wanted.iter().any(|(wanted, _)| *wanted == entry.name) {
                self.disk.remove(&self.to.join(entry.name))?;
            }
        }
        let copied = self.disk.list(self.to)?;
        for (name, bytes) in &wanted {
            let is_it = |entry: &&DirEntry| entry.name == *name;
            let copied = copied.iter().find(is_it).map_or(0, |entry| entry.bytes);
            if copied != *bytes {
                let what = format!("{name} has {copied} bytes in the copy and {bytes} here");
                return Err(io::Error::other(what));
            }
        }
        let name = self.from.file_name().unwrap_or_default();
        // In one step: a part of the name would be another one's.
        self.disk
            .replace(&self.to.join(MOVED), name.as_encoded_bytes())?;
        match self.to.parent() {
            Some(parent) => self.disk.sync_dir(parent),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RealDisk;

    #[test]
    fn a_copy_follows_what_is_appended_and_what_retention_takes() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("t-0"), root.path().join("future"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        let mut copy = DirectoryCopy {
            disk: &RealDisk,
            from: from.clone(),
            to: &to,
            done: BTreeMap::new(),
        };
        fs::write(from.join("0.log"), b"old").unwrap();
        fs::write(from.join("3.log"), b"first").unwrap();
        fs::write(from.join("3.index"), b"i").unwrap();
        assert_eq!(copy.missing().unwrap(), 8);
        copy.pass(false, &|| true).unwrap();
        assert_eq!(copy.missing().unwrap(), 0);
        fs::rename(from.join("0.log"), from.join("0.log.deleted")).unwrap();
        fs::write(from.join("3.log"), b"first second").unwrap();
        copy.pass(true, &|| true).unwrap();
        copy.finish().unwrap();
        let mut names: Vec<_> = fs::read_dir(&to)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["3.index", "3.log", MOVED]);
        assert_eq!(fs::read(to.join("3.log")).unwrap(), b"first second");
        // Cut off, and appended to.
        fs::write(from.join("3.log"), b"first other!").unwrap();
        copy.begin_anew().unwrap();
        copy.pass(true, &|| true).unwrap();
        copy.finish().unwrap();
        assert_eq!(fs::read(to.join("3.log")).unwrap(), b"first other!");
    }
}
