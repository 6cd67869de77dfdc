//! Moving a partition to another data directory of this broker, while it serves (Kafka's AlterReplicaLogDirs, MetaQ's
//! move-partitions).
//!
//! ```text
//! copy      <to>/<topic>-<partition>.<random>-future     beside the partition, which goes on; until little is missing
//! switch    appends are refused with NOT_LEADER, so that clients ask again; the log is closed, the rest is copied,
//!           all of it synced, and the file `metaq-moved` put into the copy
//!           <from>/<topic>-<partition>  ->  …-delete     removed later, as a deleted topic's
//!           <to>/…-future  ->  <to>/<topic>-<partition>  opened; appends go on
//! ```
//!
//! What a kill leaves is settled at the next start: while the old directory is there, it is the partition and the copy
//! goes; a copy with `metaq-moved` whose old directory is gone is the partition. One partition moves at a time, on a
//! thread of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use uuid::Uuid;

use super::executor::Workers;
use super::handle::Partition;
use super::moves::MOVED;
use super::registry::{Partitions, TopicToOpen};
use crate::log::{DirEntry, Disk, FUTURE, PartitionOffsets, capped_name, copy_range};

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

impl Partitions {
    /// Begins to move a partition; [`Partitions::moving`] tells when it is done. Into the directory that it is in means
    /// that it stays.
    pub fn move_to(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        dir: &Path,
    ) -> Result<(), MoveError> {
        let absolute = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let wanted = absolute(dir);
        let mut volumes = self.volumes.iter();
        let to = volumes.position(|volume| absolute(volume.dir.path()) == wanted);
        let to = to.ok_or_else(|| MoveError::NoDirectory(dir.to_owned()))?;
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
        let going = || self.goes_on(partition, to);
        let mut outcome = Ok(());
        let mut rewrites = partition.log().rewrites();
        for _ in 0..ROUNDS_MAX {
            let now = partition.log().rewrites();
            if std::mem::replace(&mut rewrites, now) != now {
                copy.begin_anew()?;
            }
            outcome = copy.pass(false, &going);
            if outcome.is_err() || copy.missing() <= SWITCH_BYTES_MAX {
                break;
            }
        }
        if outcome.is_ok() {
            outcome = self.switch(partition, to, &mut copy, rewrites);
        }
        if outcome.is_err() && copy.from.exists() {
            let _ = self.disk().remove_dir_all(&future);
        }
        outcome
    }

    fn switch(
        &self,
        old: &Arc<Partition>,
        to: usize,
        copy: &mut DirectoryCopy<'_>,
        rewrites: u64,
    ) -> io::Result<()> {
        let other = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
        let (topic, index, now) = (old.topic(), old.index(), self.clock().now_ms());
        old.mark_moved();
        // After what is queued already, so that what waits for a sync is answered.
        let _ = old.writer().run_blocking(|| ());
        old.sync_to(old.log().ends().log_end, now);
        let ends = old.log().ends();
        let copied = old
            .log()
            .close(now)
            .map_err(|error| other(&error))
            .and_then(|_| match old.log().rewrites() == rewrites {
                true => Ok(()),
                // Nobody rewrites it any more.
                false => copy.begin_anew(),
            })
            .and_then(|()| copy.pass(true, &|| true))
            .and_then(|()| copy.finish());
        let from = self
            .volumes
            .iter()
            .position(|volume| old.log().dir().parent() == Some(volume.dir.path()));
        let from = from.ok_or_else(|| io::Error::other("it is in no data directory"))?;
        self.volumes[from]
            .partitions
            .fetch_sub(1, Ordering::Relaxed);
        let moved = copied
            .and_then(|()| self.volumes[from].dir.set_aside(topic, index))
            .and_then(|aside| self.put_in_place(old, to, copy, aside));
        if moved.is_ok() {
            let row = PartitionOffsets {
                recovery_point: ends.synced_end,
                log_start: ends.log_start,
                high_watermark: old.high_watermark(),
            };
            let at = &self.volumes[to];
            let mut offsets = self.offsets_in(at);
            offsets.insert((topic.to_string(), index), row);
            if let Err(error) = at.dir.checkpoint(offsets) {
                tracing::warn!(%topic, partition = index, %error, "cannot write the checkpoints");
            }
        }
        // The new one, or the old one as before.
        self.open_moved(old);
        moved
    }

    /// The old directory is set aside: makes the copy the partition, or the old one again.
    fn put_in_place(
        &self,
        old: &Arc<Partition>,
        to: usize,
        copy: &DirectoryCopy<'_>,
        aside: PathBuf,
    ) -> io::Result<()> {
        old.log().moved_to(&aside);
        let dir = &self.volumes[to].dir;
        let path = dir.partition_path(old.topic(), old.index());
        if let Err(error) = self.disk().rename(copy.to, &path) {
            // Where this fails too, the next start finds the copy whole.
            self.disk().rename(&aside, &copy.from)?;
            return Err(error);
        }
        let delay_ms = old.log().config().file_delete_delay_ms;
        self.put_aside(aside, delay_ms);
        let named = dir
            .sync()
            .and_then(|()| self.disk().remove(&path.join(MOVED)));
        if let Err(error) = named {
            tracing::warn!(dir = %path.display(), %error, "the move may have to be finished at the next start");
        }
        Ok(())
    }

    /// Opens the partition where it is by now, and makes it known instead of the old one.
    fn open_moved(&self, old: &Arc<Partition>) {
        let (topic, index) = (old.topic(), old.index());
        let to_open = TopicToOpen {
            topic: topic.clone(),
            topic_id: old.topic_id(),
            config: (*old.log().config()).clone(),
            partitions: vec![(index, old.identity(), old.leader_epoch())],
        };
        if !self.replace(old, &to_open) {
            tracing::warn!(%topic, partition = index, "the topic was deleted while its partition moved");
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
            !entry.is_dir && !is_passing && (last || name.ends_with(".log"))
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
    fn missing(&self) -> u64 {
        let files = self.files(false).unwrap_or_default();
        let missing = |(name, bytes): &(String, u64)| {
            bytes.saturating_sub(self.done.get(name).copied().unwrap_or(0))
        };
        files.iter().map(missing).sum()
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
        let moved = self.to.join(MOVED);
        let name = self.from.file_name().unwrap_or_default();
        self.disk.write(&moved, name.as_encoded_bytes())?;
        self.disk.open(&moved)?.sync_data()?;
        self.disk.sync_dir(self.to)?;
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
        assert_eq!(copy.missing(), 8);
        copy.pass(false, &|| true).unwrap();
        assert_eq!(copy.missing(), 0);
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
