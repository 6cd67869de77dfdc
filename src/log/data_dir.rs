//! A data directory: its lock, its identity, its checkpoints, and the partition directories found in it.
//!
//! ```text
//! <dataPath>/.lock                                held while a broker uses the directory
//!            meta.properties                      cluster id, broker id, directory id
//!            .kafka_cleanshutdown                 present after a clean close only
//!            metaq-running                        which run of the system it is, or was, used in
//!            recovery-point-offset-checkpoint …   four checkpoints
//!            <topic>-<partition>/                 one a partition
//!            <topic>-<partition>.<uuid>-delete/   being deleted
//! ```

mod offsets;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::checkpoint::{self, TopicPartition};
use super::dir_name::capped_name;
use super::disk::{Disk, create_dir_durably, sync_parent};
use super::epochs::LeaderEpochs;
use super::partition_metadata;
use offsets::Rows;

const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const RUNNING: &str = "metaq-running";
/// What says how a directory was left.
pub(super) const MARKERS: [&str; 2] = [CLEAN_SHUTDOWN, RUNNING];
/// Differs between any two runs of the system.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const META_PROPERTIES: &str = "meta.properties";
const DELETING: &str = "-delete";
/// Ends the names of copies that become partitions (`partition/relocation.rs`), as Kafka's do.
pub(crate) const FUTURE: &str = "-future";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error("{0} is in use by another process (it holds the .lock file)")]
    Locked(PathBuf),
    /// It belongs to another broker or cluster.
    #[error("{path}/meta.properties says {key}={found}, but this broker's is {expected}")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Which property differs.
        key: &'static str,
        /// What the file says.
        found: String,
        /// What this broker has.
        expected: String,
    },
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// A partition directory that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPartition {
    /// Topic name.
    pub topic: String,
    /// Partition index.
    pub partition: i32,
    /// Topic id of its `partition.metadata`.
    pub topic_id: Option<Uuid>,
    /// The directory.
    pub path: PathBuf,
}

/// A partition's offsets in the four checkpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// Synced up to here.
    pub recovery_point: i64,
    /// First readable.
    pub log_start: i64,
    /// High watermark.
    pub high_watermark: i64,
    /// Compacted up to here; 0 for not at all.
    pub cleaned_until: i64,
}

/// How a data directory was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Every log was closed.
    Clean,
    /// The broker ended, but the system has run on since, and so still holds all that was written.
    Killed,
    /// What was not synced may be gone, or torn.
    Crashed,
}

/// An open data directory.
pub struct DataDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Kept open: the lock goes with it.
    _lock: File,
    left: Left,
    /// Whether it was in use before.
    is_known: bool,
    rows: Mutex<Rows>,
}

impl DataDir {
    /// Creates or opens the directory and takes its lock. The directory and all names in it are durable when this returns: what
    /// follows from a name that is seen must not outlive the name.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io {
            path: path.to_path_buf(),
            source,
        };
        create_dir_durably(&*disk, path).map_err(io)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(".lock"))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Locked(path.to_path_buf())),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let left = match path.join(CLEAN_SHUTDOWN).exists() {
            true => Left::Clean,
            false if ran_in(&*disk, path).is_some_and(|run| Some(run) == this_run(path)) => {
                Left::Killed
            }
            false => Left::Crashed,
        };
        if left != Left::Clean {
            // Who was killed may have made it, and names in it, without syncing them.
            let synced = sync_parent(&*disk, path).and_then(|()| disk.sync_dir(path));
            synced.map_err(io)?;
        }
        let rows = Rows::new(load_checkpoints(&*disk, path));
        Ok(Self {
            disk: disk.clone(),
            path: path.to_path_buf(),
            _lock: lock,
            left,
            is_known: path.join(META_PROPERTIES).exists(),
            rows: Mutex::new(rows),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk it is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// How it was left.
    pub fn left(&self) -> Left {
        self.left
    }

    /// Whether what was not synced may be gone from it.
    pub fn may_have_lost(&self) -> bool {
        self.left == Left::Crashed && self.is_known
    }

    /// A property of `meta.properties`, such as `cluster.id` or `node.id`.
    pub fn property(&self, key: &str) -> Result<Option<String>, DataDirError> {
        let path = self.path.join(META_PROPERTIES);
        match self.disk.read(&path) {
            Ok(content) => {
                let text = String::from_utf8_lossy(&content);
                let value = |line: &str| {
                    line.split_once('=')
                        .filter(|(k, _)| *k == key)
                        .map(|(_, v)| v.to_owned())
                };
                Ok(text.lines().find_map(value))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DataDirError::Io { path, source }),
        }
    }

    /// Checks that the directory is not another broker's, before anything in it is changed.
    pub fn check_owner(&self, broker_id: i32) -> Result<(), DataDirError> {
        self.check_property("node.id", &broker_id.to_string())
    }

    fn check_property(&self, key: &'static str, expected: &str) -> Result<(), DataDirError> {
        match self.property(key)?.filter(|found| found != expected) {
            Some(found) => Err(DataDirError::Foreign {
                path: self.path.clone(),
                key,
                found,
                expected: expected.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Takes the directory into use: it is this broker's and this cluster's, `meta.properties` says so, and from now
    /// on it is clean only after [`Self::mark_clean`]. Deletions of partitions that were cut short are finished.
    pub fn claim(&self, cluster_id: &str, broker_id: i32) -> Result<(), DataDirError> {
        self.check_owner(broker_id)?;
        self.check_property("cluster.id", cluster_id)?;
        if self.property("directory.id")?.is_none() {
            let directory_id = partition_metadata::to_base64(Uuid::new_v4());
            let content = format!(
                "#\nversion=1\ncluster.id={cluster_id}\nnode.id={broker_id}\ndirectory.id={directory_id}\n"
            );
            let path = self.path.join(META_PROPERTIES);
            self.disk
                .replace(&path, content.as_bytes())
                .map_err(|source| DataDirError::Io { path, source })?;
        }
        let marker = self.path.join(CLEAN_SHUTDOWN);
        if self.left == Left::Clean {
            let unmark = self
                .disk
                .remove(&marker)
                .and_then(|()| self.disk.sync_dir(&self.path));
            unmark.map_err(|source| DataDirError::Io {
                path: marker,
                source,
            })?;
        }
        self.finish_deletions()
    }

    fn finish_deletions(&self) -> Result<(), DataDirError> {
        let io = |source| DataDirError::Io {
            path: self.path.clone(),
            source,
        };
        for entry in self.disk.list(&self.path).map_err(io)? {
            if entry.is_dir && entry.name.ends_with(DELETING) {
                let path = self.path.join(entry.name);
                tracing::info!(dir = %path.display(), "finishing the deletion of a partition");
                self.disk.remove_dir_all(&path).map_err(io)?;
            }
        }
        Ok(())
    }

    /// The partition directories; nothing is changed.
    pub fn scan(&self) -> Result<Vec<FoundPartition>, DataDirError> {
        let io = |source| DataDirError::Io {
            path: self.path.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in self.disk.list(&self.path).map_err(io)? {
            let name = &*entry.name;
            if !entry.is_dir || name.ends_with(DELETING) || name.ends_with(FUTURE) {
                continue;
            }
            let Some((topic, partition)) = split_name(name) else {
                tracing::warn!(dir = name, "ignored: not a partition directory");
                continue;
            };
            let path = self.path.join(name);
            let topic_id = partition_metadata::load(&*self.disk, &path).map_err(io)?;
            found.push(FoundPartition {
                topic: topic.to_owned(),
                partition,
                topic_id,
                path,
            });
        }
        found.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(found)
    }

    /// The latest leader epoch in a partition's checkpoint; 0 when there is none.
    pub fn latest_epoch(&self, topic: &str, partition: i32) -> i32 {
        let epochs = LeaderEpochs::load(&*self.disk, &self.partition_path(topic, partition));
        epochs.ok().and_then(|epochs| epochs.latest()).unwrap_or(0)
    }

    /// Where a partition's files are.
    pub fn partition_path(&self, topic: &str, partition: i32) -> PathBuf {
        self.path.join(format!("{topic}-{partition}"))
    }

    /// Writes `partition.metadata` unless it says so already.
    pub fn store_topic_id_if_new(
        &self,
        topic: &str,
        partition: i32,
        topic_id: Uuid,
    ) -> io::Result<()> {
        if self.topic_id(topic, partition)? == Some(topic_id) {
            return Ok(());
        }
        partition_metadata::store(
            &*self.disk,
            &self.partition_path(topic, partition),
            topic_id,
        )
    }

    /// Writes `partition.metadata` into a directory that was just made.
    pub fn write_topic_id(&self, topic: &str, partition: i32, topic_id: Uuid) -> io::Result<()> {
        let dir = self.partition_path(topic, partition);
        partition_metadata::write(&*self.disk, &dir, topic_id)
    }

    /// The topic id in a partition's `partition.metadata`.
    pub fn topic_id(&self, topic: &str, partition: i32) -> io::Result<Option<Uuid>> {
        partition_metadata::load(&*self.disk, &self.partition_path(topic, partition))
    }

    /// Renames a partition's directory out of the way; the caller removes it later.
    pub fn set_aside(&self, topic: &str, partition: i32) -> io::Result<PathBuf> {
        let aside = self.rename_aside(topic, partition)?;
        self.sync()?;
        Ok(aside)
    }

    /// Makes durable which directories are here.
    pub fn sync(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.path)
    }

    /// As [`DataDir::set_aside`], durable after [`DataDir::sync`].
    pub fn rename_aside(&self, topic: &str, partition: i32) -> io::Result<PathBuf> {
        let rest = format!("-{partition}.{}{DELETING}", Uuid::new_v4().simple());
        let aside = self.path.join(capped_name(topic, &rest));
        self.disk
            .rename(&self.partition_path(topic, partition), &aside)?;
        Ok(aside)
    }

    /// Notes that what is in the directory is whole as long as the system runs.
    pub fn note_running(&self) -> Result<(), DataDirError> {
        let Some(run) = this_run(&self.path) else {
            return Ok(());
        };
        let path = self.path.join(RUNNING);
        self.disk
            .replace(&path, run.as_bytes())
            .map_err(|source| DataDirError::Io { path, source })
    }

    /// Notes that every log was closed cleanly.
    pub fn mark_clean(&self) -> io::Result<()> {
        self.disk.replace(
            &self.path.join(CLEAN_SHUTDOWN),
            b"{\"version\":0,\"brokerEpoch\":-1}",
        )
    }
}

/// The run of the system, and this very directory: a copy of it may have been taken at any moment. `None` where the
/// system does not say.
fn this_run(path: &Path) -> Option<String> {
    let boot = std::fs::read_to_string(BOOT_ID).ok()?;
    let directory = std::fs::metadata(path).ok()?;
    let (device, inode) = (directory.dev(), directory.ino());
    Some(format!(
        "boot={}\ndevice={device}\ninode={inode}\n",
        boot.trim()
    ))
}

/// The run in which the directory was used last.
fn ran_in(disk: &dyn Disk, path: &Path) -> Option<String> {
    String::from_utf8(disk.read(&path.join(RUNNING)).ok()?).ok()
}

/// Reads the four checkpoints. A damaged one is as good as none, as in Kafka: partitions are then checked from
/// their beginning, start at their first segment, and are compacted again.
fn load_checkpoints(disk: &dyn Disk, dir: &Path) -> BTreeMap<TopicPartition, PartitionOffsets> {
    type Set = fn(&mut PartitionOffsets, i64);
    let columns: [(&str, Set); 4] = [
        (checkpoint::RECOVERY_POINTS, |offsets, at| {
            offsets.recovery_point = at
        }),
        (checkpoint::LOG_STARTS, |offsets, at| offsets.log_start = at),
        (checkpoint::HIGH_WATERMARKS, |offsets, at| {
            offsets.high_watermark = at
        }),
        (checkpoint::CLEANED, |offsets, at| {
            offsets.cleaned_until = at
        }),
    ];
    let mut checkpoints: BTreeMap<TopicPartition, PartitionOffsets> = BTreeMap::new();
    for (name, set) in columns {
        match checkpoint::read_offsets(disk, &dir.join(name)) {
            Ok(rows) => rows
                .into_iter()
                .for_each(|(partition, at)| set(checkpoints.entry(partition).or_default(), at)),
            Err(error) => tracing::warn!(%error, "going on without the checkpoint"),
        }
    }
    checkpoints
}

/// Splits `<topic>-<partition>`.
fn split_name(name: &str) -> Option<(&str, i32)> {
    let (topic, partition) = name.rsplit_once('-')?;
    if topic.is_empty() || !partition.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((topic, partition.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::RealDisk;

    fn open(path: &Path) -> Result<DataDir, DataDirError> {
        DataDir::open(Arc::new(RealDisk), path)
    }

    #[test]
    fn a_second_broker_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let held = open(dir.path()).unwrap();
        assert!(matches!(open(dir.path()), Err(DataDirError::Locked(_))));
        drop(held);
        assert!(open(dir.path()).is_ok());
    }

    #[test]
    fn another_brokers_directory_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path()).unwrap();
        data.claim("cluster-a", 0).unwrap();
        data.claim("cluster-a", 0).unwrap();
        let refusal = data.claim("cluster-a", 1).unwrap_err();
        assert!(refusal.to_string().contains("node.id=0"), "{refusal}");
    }

    #[test]
    fn a_damaged_checkpoint_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(checkpoint::RECOVERY_POINTS), "").unwrap();
        std::fs::write(dir.path().join(checkpoint::LOG_STARTS), "0\n1\nt 0 5\n").unwrap();
        let offsets = open(dir.path()).unwrap().offsets("t", 0);
        assert_eq!((offsets.recovery_point, offsets.log_start), (0, 5));
    }

    #[test]
    fn a_new_directory_has_nothing_of_an_earlier_one_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path()).unwrap();
        let offsets = PartitionOffsets {
            recovery_point: 7,
            log_start: 5,
            high_watermark: 7,
            cleaned_until: 6,
        };
        let rows = ["kept", "gone"].map(|topic| ((topic.to_owned(), 0), offsets));
        std::fs::create_dir(dir.path().join("kept-0")).unwrap();
        data.checkpoint(|| BTreeMap::from(rows)).unwrap();
        data.forget_missing([("kept", 0), ("gone", 0), ("new", 0)].into_iter())
            .unwrap();
        drop(data);
        let data = open(dir.path()).unwrap();
        assert_eq!(data.offsets("kept", 0), offsets);
        assert_eq!(data.offsets("gone", 0), PartitionOffsets::default());
    }

    #[test]
    fn the_clean_marker_holds_for_one_opening() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path()).unwrap();
        assert_eq!(data.left(), Left::Crashed);
        assert!(!data.may_have_lost());
        data.mark_clean().unwrap();
        drop(data);
        let data = open(dir.path()).unwrap();
        assert_eq!(data.left(), Left::Clean);
        data.claim("cluster-a", 0).unwrap();
        drop(data);
        let data = open(dir.path()).unwrap();
        assert_eq!(data.left(), Left::Crashed);
        assert!(data.may_have_lost());
        data.note_running().unwrap();
        drop(data);
        assert_eq!(open(dir.path()).unwrap().left(), Left::Killed);
    }

    #[test]
    fn a_directory_of_another_run_of_the_system_or_a_copy_is_not_taken_for_whole() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap().note_running().unwrap();
        let running = dir.path().join(RUNNING);
        let run = std::fs::read_to_string(&running).unwrap();
        let copy = tempfile::tempdir().unwrap();
        std::fs::write(copy.path().join(RUNNING), &run).unwrap();
        assert_eq!(open(copy.path()).unwrap().left(), Left::Crashed);
        std::fs::write(&running, run.replace("boot=", "boot=0")).unwrap();
        assert_eq!(open(dir.path()).unwrap().left(), Left::Crashed);
    }

    #[test]
    fn topic_names_may_hold_dashes_and_foreign_directories_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a-b-3", "lost+found", "x-1.0123-delete"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let data = open(dir.path()).unwrap();
        let found = data.scan().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].topic.as_str(), found[0].partition), ("a-b", 3));
        assert!(dir.path().join("lost+found").exists());
        // Only its owner goes on with what was begun here.
        assert!(dir.path().join("x-1.0123-delete").exists());
        data.claim("cluster-a", 0).unwrap();
        assert!(!dir.path().join("x-1.0123-delete").exists());
    }
}
