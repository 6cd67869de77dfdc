//! A disk whose power can be cut at any moment, under threads that go on: from then on every call fails, and what a
//! call before it did is decided. What is left is then up to the disk that forgets below it.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use metaq::log::{Disk, DiskFile};
use parking_lot::RwLock;

/// See the module's documentation; clones share it.
#[derive(Clone)]
pub struct Cut<D> {
    disk: D,
    has_power: Arc<RwLock<bool>>,
}

impl<D> Cut<D> {
    pub fn new(disk: D) -> Self {
        Self {
            disk,
            has_power: Arc::new(RwLock::new(true)),
        }
    }

    /// Waits for the calls under way; behind this nothing changes.
    pub fn cut(&self) {
        *self.has_power.write() = false;
    }
}

fn with_power<T>(has_power: &RwLock<bool>, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let has_power = has_power.read();
    match *has_power {
        true => call(),
        false => Err(io::Error::other("the power is gone")),
    }
}

struct CutFile {
    file: Arc<dyn DiskFile>,
    has_power: Arc<RwLock<bool>>,
}

impl<D> Cut<D> {
    fn file(
        &self,
        open: impl FnOnce() -> io::Result<Arc<dyn DiskFile>>,
    ) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CutFile {
            file: with_power(&self.has_power, open)?,
            has_power: self.has_power.clone(),
        }))
    }
}

impl<D: Disk> Disk for Cut<D> {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(|| self.disk.open(path))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(|| self.disk.create(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        with_power(&self.has_power, || self.disk.rename(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        with_power(&self.has_power, || self.disk.remove(path))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        with_power(&self.has_power, || self.disk.read(path))
    }
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        with_power(&self.has_power, || self.disk.replace(path, content))
    }
    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<File> {
        with_power(&self.has_power, || self.disk.reserve(path, bytes))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        with_power(&self.has_power, || self.disk.sync_dir(path))
    }
}

impl DiskFile for CutFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }
    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        with_power(&self.has_power, || {
            self.file.write_all_at(buffers, position)
        })
    }
    fn sync_data(&self) -> io::Result<()> {
        with_power(&self.has_power, || self.file.sync_data())
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        with_power(&self.has_power, || self.file.set_len(bytes))
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }
}
