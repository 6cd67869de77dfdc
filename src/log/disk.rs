//! The narrow interface through which segment data reaches a disk.
//!
//! Everything whose loss would lose a record goes through [`Disk`] and [`DiskFile`], so that a test can put
//! a disk underneath that tears writes, forgets what was not synced, or answers EIO and ENOSPC. Index files
//! are rebuilt from the segments and are mapped directly (`index_file.rs`); only their space is asked for here.
//!
//! What is durable when: a file's bytes after [`DiskFile::sync_data`]; which names a directory holds (that a file or a
//! directory is there, has another name, or is gone) after [`Disk::sync_dir`] of that directory. The one says nothing about
//! the other. Until then a power failure may leave the state before the change or after it, for each name by itself; a
//! rename within one directory leaves one of its two names. A process that is killed loses none of it, but who starts after it
//! sees what is not durable yet, and cannot tell.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};

/// The most buffers that one `pwritev` takes (IOV_MAX of Linux).
const IO_SLICES_MAX: usize = 1024;
/// Zeros are written in steps of this size where space cannot be reserved.
const ZEROS_BYTES: usize = 4096;

/// An open file; every call is positioned, so that readers and the writer share it without a lock.
pub trait DiskFile: Send + Sync {
    /// Reads into `buffer` from `position`; returns fewer bytes only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// As [`Self::read_at`], but only what needs no waiting for the disk: `None` where nothing of it is in the page cache,
    /// fewer bytes where a part is.
    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        self.read_at(buffer, position).map(Some)
    }
    /// Writes all buffers one after the other from `position`.
    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()>;
    /// Returns after the file's data is on stable storage (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file, or extends it by zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// The descriptor for sendfile; `None` where there is none, then readers copy.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Of a file; 0 for all else.
    pub bytes: u64,
}

/// A file system.
pub trait Disk: Send + Sync {
    /// Opens a file that is there for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates an empty file, or opens the one that is there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file or a directory, with all that is in it. Durable after [`Self::sync_dir`] of the directory that holds both
    /// names; when that fails, either name may be left.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Until the directory is synced a power failure may bring it back.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// What is in a directory, in no order. Names that are not UTF-8 are left out: no file of a broker has one.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes a directory in one that is there; `AlreadyExists` where there is one.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all that is in it. It is no one step: a kill, an error or a power failure may leave the directory
    /// with any part of its files.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Gives a file one more name, on the same file system; `AlreadyExists` where the name is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Reads a small file whole.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Replaces a small file in one step: temporary file, fdatasync, rename, directory sync.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Writes a small file whole. It is not durable: after a power failure it may be missing, empty or cut short.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let file = self.create(path)?;
        file.set_len(0)?;
        file.write_all_at(&mut [IoSlice::new(content)], 0)
    }
    /// Creates or opens a file that is to be mapped, at least `bytes` long, and makes sure that the disk has the blocks
    /// for them: a write to a mapped page that finds none would end the process.
    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<File>;
    /// Makes renames, creations and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// In a test's disk: these calls are the real disk's.
#[cfg(test)]
macro_rules! as_real_disk {
    (@rename) => {
        fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
            $crate::log::RealDisk.rename(from, to)
        }
    };
    (@others) => {
        fn remove(&self, path: &std::path::Path) -> std::io::Result<()> {
            $crate::log::RealDisk.remove(path)
        }
        fn list(&self, dir: &std::path::Path) -> std::io::Result<Vec<$crate::log::DirEntry>> {
            $crate::log::RealDisk.list(dir)
        }
        fn create_dir(&self, path: &std::path::Path) -> std::io::Result<()> {
            $crate::log::RealDisk.create_dir(path)
        }
        fn remove_dir_all(&self, path: &std::path::Path) -> std::io::Result<()> {
            $crate::log::RealDisk.remove_dir_all(path)
        }
        fn link(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
            $crate::log::RealDisk.link(from, to)
        }
        fn read(&self, path: &std::path::Path) -> std::io::Result<Vec<u8>> {
            $crate::log::RealDisk.read(path)
        }
        fn replace(&self, path: &std::path::Path, content: &[u8]) -> std::io::Result<()> {
            $crate::log::RealDisk.replace(path, content)
        }
    };
    (@reserve) => {
        fn reserve(&self, path: &std::path::Path, bytes: u64) -> std::io::Result<std::fs::File> {
            $crate::log::RealDisk.reserve(path, bytes)
        }
    };
    (@sync_dir) => {
        fn sync_dir(&self, path: &std::path::Path) -> std::io::Result<()> {
            $crate::log::RealDisk.sync_dir(path)
        }
    };
    ($($calls:ident),*) => { $($crate::log::as_real_disk!(@$calls);)* };
}
#[cfg(test)]
pub(crate) use as_real_disk;

/// The machine's own file system.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        list(dir)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".tmp");
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary)?;
        file.write_all_at(content, 0)?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }

    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        loop {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
                Ok(()) => return Ok(file),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP) => break,
                Err(error) => return Err(error.into()),
            }
        }
        // A file system that cannot reserve: writing the blocks is as good.
        let mut have = file.metadata()?.len();
        let zeros = [0; ZEROS_BYTES];
        while have < bytes {
            let some = ZEROS_BYTES.min((bytes - have) as usize);
            file.write_all_at(&zeros[..some], have)?;
            have += some as u64;
        }
        Ok(file)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// The machine's own file system, on which nothing is changed: for looking into a data directory.
#[derive(Debug, Default, Clone, Copy)]
pub struct ReadOnlyDisk;

impl ReadOnlyDisk {
    fn refuse<T>() -> io::Result<T> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl Disk for ReadOnlyDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Self::refuse()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Self::refuse()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Self::refuse()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        list(dir)
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Self::refuse()
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        Self::refuse()
    }

    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Self::refuse()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn replace(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Self::refuse()
    }

    fn reserve(&self, _: &Path, _: u64) -> io::Result<File> {
        Self::refuse()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Self::refuse()
    }
}

fn list(dir: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let kind = entry.file_type()?;
        let bytes = match kind.is_file().then(|| entry.metadata()) {
            Some(Ok(found)) => found.len(),
            // It went meanwhile.
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            Some(Err(error)) => return Err(error),
            None => 0,
        };
        entries.push(DirEntry {
            name,
            is_dir: kind.is_dir(),
            bytes,
        });
    }
    Ok(entries)
}

/// Makes a directory, and those that it is to be in, where they are missing. Durable after [`Disk::sync_dir`] of each that
/// holds a new one.
pub(crate) fn create_dir_all(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dir_all(disk, parent)?;
    }
    match disk.create_dir(dir) {
        // Somebody else did.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made,
    }
}

/// As [`create_dir_all`], and durable when it returns.
pub(crate) fn create_dir_durably(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dir_durably(disk, parent)?;
    }
    create_dir_all(disk, dir)?;
    sync_parent(disk, dir)
}

/// Makes the name of a directory durable, where the directory that it is in can be read: what is not this user's is not
/// this broker's to sync.
pub(crate) fn sync_parent(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => return Ok(()),
    };
    match disk.sync_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.0.read_at(&mut buffer[read..], position + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        let mut buffers = [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.0, &mut buffers, position, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(read)),
            // Not there, or the file system cannot tell.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write_all_at(&self, mut buffers: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut buffers, 0);
        while !buffers.is_empty() {
            let some = &buffers[..buffers.len().min(IO_SLICES_MAX)];
            match rustix::io::pwritev(&self.0, some, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut buffers, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_space_is_on_the_disk_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"kept").unwrap();
        let file = RealDisk.reserve(&path, 1 << 20).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 1 << 20);
        assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512 >= 1 << 20);
        assert!(std::fs::read(&path).unwrap().starts_with(b"kept\0"));
    }

    #[test]
    fn a_directory_lists_its_files_with_their_sizes_and_goes_with_them() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        create_dir_all(&RealDisk, &dir).unwrap();
        create_dir_all(&RealDisk, &dir).unwrap();
        RealDisk.create_dir(&dir.join("sub")).unwrap();
        RealDisk.write(&dir.join("one"), b"1").unwrap();
        RealDisk.link(&dir.join("one"), &dir.join("two")).unwrap();
        let taken = RealDisk.link(&dir.join("one"), &dir.join("two"));
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mut found = RealDisk.list(&dir).unwrap();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let found: Vec<_> = found
            .iter()
            .map(|entry| (&*entry.name, entry.is_dir, entry.bytes))
            .collect();
        assert_eq!(
            found,
            [("one", false, 1), ("sub", true, 0), ("two", false, 1)]
        );
        RealDisk.remove_dir_all(&dir).unwrap();
        assert!(!dir.exists() && root.path().join("a").is_dir());
    }

    #[test]
    fn a_write_of_more_buffers_than_one_call_takes_arrives_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("x")).unwrap();
        let parts: Vec<[u8; 2]> = (0..3000u16).map(|n| n.to_be_bytes()).collect();
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        file.write_all_at(&mut slices, 7).unwrap();
        let mut read = vec![0; 6100];
        assert_eq!(file.read_at(&mut read, 7).unwrap(), 6000);
        assert_eq!(&read[..6000], parts.concat());
    }
}
