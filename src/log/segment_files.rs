//! The names of a segment's files, and how they change: `*.cleaned` and `*.swap` while compaction makes it, `*.deleted` until it
//! is unlinked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::segment::{Segment, file_name};

impl Segment {
    /// Its files: the records and what stands beside them.
    fn paths(&self) -> [PathBuf; 4] {
        [
            self.path(),
            self.offsets.file.path(),
            self.times.file.path(),
            self.aborted.path(),
        ]
    }

    fn set_path(&self, file: usize, path: &Path) {
        match file {
            0 => *self.path.lock() = path.to_path_buf(),
            1 => self.offsets.file.set_path(path),
            2 => self.times.file.set_path(path),
            _ => self.aborted.set_path(path),
        }
    }

    /// Where the hashes of its keys are, if they are anywhere (`compaction/key_index.rs`).
    pub(super) fn keys_path(&self) -> PathBuf {
        let log = self.path();
        let name = log.file_name().unwrap_or_default().to_string_lossy();
        let suffix = name.strip_prefix(&file_name(self.base_offset, "log"));
        let keys = file_name(self.base_offset, "keys") + suffix.unwrap_or_default();
        log.with_file_name(keys)
    }

    /// The hashes are not those of its keys any more.
    pub(super) fn remove_keys(&self) -> io::Result<()> {
        match self.disk.remove(&self.keys_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Renames one of its files; whoever opens it meanwhile finds it under the one name or the other.
    fn rename(&self, file: usize, to: &Path) -> io::Result<()> {
        // There may be none.
        let rename = |from: &Path| match self.disk.rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        match file {
            0 => {
                let mut path = self.path.lock();
                rename(&path)?;
                *path = to.to_path_buf();
                Ok(())
            }
            1 => self.offsets.file.rename(rename, to),
            2 => self.times.file.rename(rename, to),
            _ => self.aborted.rename(rename, to),
        }
    }

    /// Renames the segment's files to `*.deleted`, so that a crash cannot bring them back half.
    pub(super) fn mark_deleted(&self) -> io::Result<()> {
        self.close_indexes();
        self.remove_keys()?;
        for (file, from) in self.paths().iter().enumerate() {
            self.rename(file, &with_suffix(from, ".deleted"))?;
        }
        self.deleted.store(true, Ordering::Release);
        Ok(())
    }

    /// Names a segment's files that are to be made with a suffix.
    pub(super) fn use_suffix(&self, suffix: &str) {
        for (file, path) in self.paths().iter().enumerate() {
            self.set_path(file, &with_suffix(path, suffix));
        }
    }

    /// Changes the suffix of its files: of the records last, after `sync` has made the other names durable.
    pub(super) fn rename_suffix(
        &self,
        from: &str,
        to: &str,
        sync: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        let renamed = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let plain = name.strip_suffix(from).unwrap_or(&name);
            path.with_file_name(format!("{plain}{to}"))
        };
        let keys = self.keys_path();
        match self.disk.rename(&keys, &renamed(&keys)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for (file, path) in self.paths().iter().enumerate().skip(1) {
            self.rename(file, &renamed(path))?;
        }
        sync()?;
        let log = self.path();
        self.rename(0, &renamed(&log))
    }

    /// Unlinks the files of a segment that was marked deleted.
    pub(super) fn unlink(&self) -> io::Result<()> {
        self.close_files();
        for path in self.paths() {
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Follows its directory, which was renamed.
    pub(super) fn moved_to(&self, dir: &Path) {
        for (file, path) in self.paths().iter().enumerate() {
            if let Some(name) = path.file_name() {
                self.set_path(file, &dir.join(name));
            }
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_path_buf().into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}
