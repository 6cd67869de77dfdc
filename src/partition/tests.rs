//! Partitions of a broker over a disk that tells what it was asked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::*;
use crate::log::{Disk, DiskFile, LogConfig, RealDisk};

/// Remembers which directories were synced.
#[derive(Default)]
struct Telling(Arc<Mutex<Vec<PathBuf>>>);

impl Disk for Telling {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        RealDisk.replace(path, content)
    }
    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<std::fs::File> {
        RealDisk.reserve(path, bytes)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.lock().push(path.to_path_buf());
        RealDisk.sync_dir(path)
    }
}

#[test]
fn a_new_partitions_directory_is_durable_before_the_partition_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Telling::default();
    let synced = disk.0.clone();
    let options = PartitionsOptions {
        open_threads: 2,
        ..PartitionsOptions::new(vec![dir.path().to_path_buf()])
    };
    let partitions = Partitions::open(Arc::new(disk), &options).unwrap();
    let identity = Identity {
        broker_id: 0,
        number: 0,
    };
    let topic = TopicToOpen {
        topic: "t".into(),
        topic_id: Uuid::from_u128(7),
        config: LogConfig::default(),
        partitions: (0..5).map(|index| (index, identity, 0)).collect(),
    };
    let syncs = || {
        let synced = synced.lock();
        synced.iter().filter(|path| **path == dir.path()).count()
    };
    assert_eq!(partitions.open_topics(vec![topic.clone()]).online, 5);
    assert_eq!(syncs(), 1);
    // What is there already costs nothing.
    assert_eq!(partitions.open_topics(vec![topic]).online, 5);
    assert_eq!(syncs(), 1);
}
