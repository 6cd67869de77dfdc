//! A file of fixed-width entries, preallocated and memory-mapped: what `.index` and `.timeindex` share.
//!
//! Life: opened lazily on the first append or look-up; grown by doubling while its segment is active; cut to
//! its entries on roll and on clean close. After a crash the file may end in zeros, which are not entries.
//! Nothing is written to a page for which the disk has not reserved a block.
//!
//! Concurrency: one appender (the owner of the log's tail). Readers see `entries` with acquire ordering, and an
//! entry is never changed after it was counted, except by [`IndexFile::truncate`], which takes the write lock.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::RwLock;

use super::disk::Disk;

/// The first mapping of an active segment's index; it doubles from here up to `segment.index.bytes`.
const INDEX_BYTES_FIRST: usize = 4096;

pub(super) struct IndexFile<const WIDTH: usize> {
    disk: Arc<dyn Disk>,
    path: RwLock<PathBuf>,
    bytes_max: usize,
    /// `None` until used, while the file is empty, and after [`IndexFile::close`].
    map: RwLock<Option<MmapRaw>>,
    /// Whether `entries` was counted since the file was last let go of.
    counted: AtomicBool,
    entries: AtomicUsize,
    /// How much of the map was reserved on the disk since the file was opened; the rest may be holes.
    reserved: AtomicUsize,
}

/// Whether all of a map is in memory, so that looking at it does not wait for the disk.
fn is_resident(map: &MmapRaw) -> bool {
    let pages = map.len().div_ceil(rustix::param::page_size());
    let mut resident = vec![0u8; pages];
    // SAFETY: the map begins at a page and is as long as it says; there is a byte for each of its pages.
    let asked = unsafe { libc::mincore(map.as_mut_ptr().cast(), map.len(), resident.as_mut_ptr()) };
    asked == 0 && resident.iter().all(|page| page & 1 == 1)
}

impl<const WIDTH: usize> IndexFile<WIDTH> {
    /// An index at `path` of at most `bytes_max` bytes; nothing is opened yet.
    pub(super) fn new(disk: Arc<dyn Disk>, path: PathBuf, bytes_max: usize) -> Self {
        Self {
            disk,
            path: RwLock::new(path),
            bytes_max,
            map: RwLock::new(None),
            counted: AtomicBool::new(false),
            entries: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
        }
    }

    /// How many entries there are. Opens the file when it is not open.
    pub(super) fn entries(&self) -> io::Result<usize> {
        self.open()?;
        Ok(self.entries.load(Ordering::Acquire))
    }

    /// The n-th entry.
    pub(super) fn get(&self, n: usize) -> io::Result<Option<[u8; WIDTH]>> {
        self.open()?;
        let map = self.map.read();
        let Some(map) = map.as_ref() else {
            return Ok(None);
        };
        if n >= self.entries.load(Ordering::Acquire) {
            return Ok(None);
        }
        Ok(Some(read_entry(map, n)))
    }

    /// The last entry for which `before` holds, given that it holds for a prefix of the entries.
    pub(super) fn last_where(
        &self,
        before: impl Fn(&[u8; WIDTH]) -> bool,
    ) -> io::Result<Option<[u8; WIDTH]>> {
        self.open()?;
        let map = self.map.read();
        Ok(map.as_ref().and_then(|map| self.search(map, before)))
    }

    /// As [`Self::last_where`], where the disk need not be waited for; `None` otherwise.
    pub(super) fn last_where_cached(
        &self,
        before: impl Fn(&[u8; WIDTH]) -> bool,
    ) -> Option<Option<[u8; WIDTH]>> {
        self.look_cached(|map| self.search(map, before))
    }

    /// Looks at the entries, if there are any, where the disk need not be waited for; `None` otherwise.
    fn look_cached<T>(&self, look: impl FnOnce(&MmapRaw) -> Option<T>) -> Option<Option<T>> {
        if !self.counted.load(Ordering::Acquire) {
            return None;
        }
        // Whoever makes room waits for the disk with the lock.
        let map = self.map.try_read()?;
        let Some(map) = map.as_ref() else {
            return Some(None);
        };
        // What is appended to was written by this process.
        let is_active = self.reserved.load(Ordering::Relaxed) > 0;
        (is_active || is_resident(map)).then(|| look(map))
    }

    /// The first entry for which `before` does not hold, given that it holds for a prefix of the entries.
    pub(super) fn first_after(
        &self,
        before: impl Fn(&[u8; WIDTH]) -> bool,
    ) -> io::Result<Option<[u8; WIDTH]>> {
        self.open()?;
        let map = self.map.read();
        Ok(map.as_ref().and_then(|map| self.search_after(map, before)))
    }

    /// As [`Self::first_after`], where the disk need not be waited for; `None` otherwise.
    pub(super) fn first_after_cached(
        &self,
        before: impl Fn(&[u8; WIDTH]) -> bool,
    ) -> Option<Option<[u8; WIDTH]>> {
        self.look_cached(|map| self.search_after(map, before))
    }

    fn search(&self, map: &MmapRaw, before: impl Fn(&[u8; WIDTH]) -> bool) -> Option<[u8; WIDTH]> {
        let (after, _) = self.bound(map, before);
        (after > 0).then(|| read_entry(map, after - 1))
    }

    fn search_after(
        &self,
        map: &MmapRaw,
        before: impl Fn(&[u8; WIDTH]) -> bool,
    ) -> Option<[u8; WIDTH]> {
        let (after, entries) = self.bound(map, before);
        (after < entries).then(|| read_entry(map, after))
    }

    /// How many entries come first for which `before` holds, and of how many.
    fn bound(&self, map: &MmapRaw, before: impl Fn(&[u8; WIDTH]) -> bool) -> (usize, usize) {
        let entries = self.entries.load(Ordering::Acquire);
        let (mut low, mut high) = (0, entries);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(&read_entry::<WIDTH>(map, middle)) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        (low, entries)
    }

    /// Whether one more entry fits below `segment.index.bytes`.
    pub(super) fn is_full(&self) -> bool {
        (self.entries.load(Ordering::Relaxed) + 1) * WIDTH > self.bytes_max
    }

    /// Whether `more` entries can be added to what is mapped, without asking the disk for anything.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let entries = self.entries.load(Ordering::Relaxed);
        self.map.read().is_some()
            && (entries + more) * WIDTH <= self.reserved.load(Ordering::Relaxed)
    }

    /// Makes sure that `more` entries can be added without asking the disk for space; only the owner of the log's
    /// tail calls this.
    pub(super) fn reserve(&self, more: usize) -> io::Result<()> {
        self.open()?;
        self.make_room((self.entries.load(Ordering::Relaxed) + more) * WIDTH)
    }

    /// Adds an entry; only the owner of the log's tail calls this.
    pub(super) fn append(&self, entry: [u8; WIDTH]) -> io::Result<()> {
        self.open()?;
        let n = self.entries.load(Ordering::Relaxed);
        self.make_room((n + 1) * WIDTH)?;
        let map = self.map.read();
        let Some(map) = map.as_ref() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        // SAFETY: make_room mapped at least (n + 1) * WIDTH bytes and reserved their blocks; no reader looks at entry n before the
        // store below, and there is one appender.
        unsafe {
            std::ptr::copy_nonoverlapping(entry.as_ptr(), map.as_mut_ptr().add(n * WIDTH), WIDTH)
        };
        self.entries.store(n + 1, Ordering::Release);
        Ok(())
    }

    /// Keeps the first `entries` entries.
    pub(super) fn truncate(&self, entries: usize) -> io::Result<()> {
        self.open()?;
        let mut map = self.map.write();
        // After what a crash left of a first page there may be more than was counted.
        if entries < self.entries.load(Ordering::Relaxed) || entries == 0 {
            *map = None;
            self.counted.store(false, Ordering::Release);
            match OpenOptions::new().write(true).open(&*self.path.read()) {
                Ok(file) => file.set_len((entries * WIDTH) as u64)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Keeps the entries for which `before` holds, given that it holds for a prefix of the entries.
    pub(super) fn keep_where(&self, before: impl Fn(&[u8; WIDTH]) -> bool) -> io::Result<()> {
        let mut keep = self.entries()?;
        while let Some(entry) = keep
            .checked_sub(1)
            .map(|n| self.get(n))
            .transpose()?
            .flatten()
        {
            if before(&entry) {
                break;
            }
            keep -= 1;
        }
        self.truncate(keep)
    }

    /// Cuts the file to its entries and unmaps it; a later use opens it again.
    pub(super) fn trim_and_close(&self) -> io::Result<()> {
        self.open()?;
        let mut map = self.map.write();
        *map = None;
        self.counted.store(false, Ordering::Release);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&*self.path.read())?;
        file.set_len((self.entries.load(Ordering::Relaxed) * WIDTH) as u64)
    }

    /// Returns when the entries are on stable storage.
    pub(super) fn sync(&self) -> io::Result<()> {
        match File::open(&*self.path.read()) {
            // It covers what was written through the map.
            Ok(file) => file.sync_data(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes a file that is there before this one is used.
    pub(super) fn remove_leftover(&self) -> io::Result<()> {
        match std::fs::remove_file(&*self.path.read()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Unmaps without touching the file.
    pub(super) fn close(&self) {
        let mut map = self.map.write();
        *map = None;
        self.counted.store(false, Ordering::Release);
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.read().clone()
    }

    pub(super) fn set_path(&self, path: &Path) {
        *self.path.write() = path.to_path_buf();
    }

    /// Renames the file with `rename`; whoever opens it meanwhile finds it under the one name or the other.
    pub(super) fn rename(
        &self,
        rename: impl Fn(&Path) -> io::Result<()>,
        to: &Path,
    ) -> io::Result<()> {
        let mut path = self.path.write();
        rename(&path)?;
        *path = to.to_path_buf();
        Ok(())
    }

    /// Maps what there is of the file; never changes it.
    fn open(&self) -> io::Result<()> {
        if self.counted.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut map = self.map.write();
        if self.counted.load(Ordering::Acquire) {
            return Ok(());
        }
        // Entries are written after `make_room` only, which maps the file anew.
        let found = match File::open(&*self.path.read()) {
            Ok(file) => {
                let bytes = file.metadata()?.len() as usize;
                if bytes < WIDTH {
                    None
                } else {
                    Some(MmapOptions::new().len(bytes).map_raw_read_only(&file)?)
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let entries = found
            .as_ref()
            .map_or(0, |map| count_entries::<WIDTH>(map, map.len() / WIDTH));
        self.entries.store(entries, Ordering::Release);
        self.reserved.store(0, Ordering::Relaxed);
        *map = found;
        self.counted.store(true, Ordering::Release);
        Ok(())
    }

    /// Maps at least `bytes` that are reserved; the file stays a whole number of entries long, as Kafka's checks want
    /// it.
    fn make_room(&self, bytes: usize) -> io::Result<()> {
        let reserved = self.reserved.load(Ordering::Relaxed);
        if bytes <= reserved {
            return Ok(());
        }
        let mut map = self.map.write();
        let have = map.as_ref().map_or(0, MmapRaw::len);
        let grown = (reserved * 2)
            .max(INDEX_BYTES_FIRST)
            .min(self.bytes_max)
            .max(bytes)
            .max(have);
        let grown = grown.next_multiple_of(WIDTH);
        let file = self.disk.reserve(&self.path.read(), grown as u64)?;
        *map = Some(MmapOptions::new().len(grown).map_raw(&file)?);
        self.reserved.store(grown, Ordering::Relaxed);
        Ok(())
    }
}

fn read_entry<const WIDTH: usize>(map: &MmapRaw, n: usize) -> [u8; WIDTH] {
    let mut entry = [0; WIDTH];
    debug_assert!((n + 1) * WIDTH <= map.len());
    // SAFETY: callers pass n < entries, and entries * WIDTH never exceeds the map's length; a counted entry
    // is not written to any more.
    unsafe {
        std::ptr::copy_nonoverlapping(map.as_ptr().add(n * WIDTH), entry.as_mut_ptr(), WIDTH)
    };
    entry
}

/// Entries before the zeros that preallocation leaves. The first entry may be all zeros by right only when
/// it is not followed by others, where dropping it costs nothing.
fn count_entries<const WIDTH: usize>(map: &MmapRaw, slots: usize) -> usize {
    let slots = slots.min(map.len() / WIDTH);
    if slots > 0 && read_entry::<WIDTH>(map, slots - 1) != [0; WIDTH] {
        return slots;
    }
    let (mut low, mut high) = (0, slots);
    while low < high {
        let middle = low + (high - low) / 2;
        if read_entry::<WIDTH>(map, middle) != [0; WIDTH] {
            low = middle + 1
        } else {
            high = middle
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::RealDisk;

    #[test]
    fn entries_survive_growth_trim_and_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.index");
        let index = IndexFile::<8>::new(Arc::new(RealDisk), path.clone(), 1 << 20);
        for n in 1..=2000u64 {
            index.append(n.to_be_bytes()).unwrap();
        }
        assert_eq!(
            index
                .last_where(|entry| u64::from_be_bytes(*entry) <= 777)
                .unwrap(),
            Some(777u64.to_be_bytes())
        );
        index.trim_and_close().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 16_000);
        assert_eq!(index.entries().unwrap(), 2000);
    }

    #[test]
    fn looking_into_a_sealed_index_does_not_change_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.timeindex");
        let index = IndexFile::<12>::new(Arc::new(RealDisk), path.clone(), 1 << 20);
        index.append([1; 12]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len() % 12, 0);
        index.trim_and_close().unwrap();
        assert_eq!(index.get(0).unwrap(), Some([1; 12]));
        index.close();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 12);
    }

    #[test]
    fn zeros_left_by_a_crash_are_not_entries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.index");
        let mut content = vec![1; 24];
        content.resize(4096, 0);
        std::fs::write(&path, content).unwrap();
        assert_eq!(
            IndexFile::<8>::new(Arc::new(RealDisk), path, 1 << 20)
                .entries()
                .unwrap(),
            3
        );
    }

    #[test]
    fn what_a_crash_left_after_pages_that_it_lost_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.index");
        let mut content = vec![0; 12 << 10];
        content.resize(14 << 10, 9);
        content.resize(16 << 10, 0);
        std::fs::write(&path, content).unwrap();
        let index = IndexFile::<8>::new(Arc::new(RealDisk), path.clone(), 1 << 20);
        assert_eq!(index.entries().unwrap(), 0);
        index.truncate(0).unwrap();
        for n in 1..=1100u64 {
            index.append(n.to_be_bytes()).unwrap();
        }
        // As after a kill.
        let again = IndexFile::<8>::new(Arc::new(RealDisk), path, 1 << 20);
        assert_eq!(again.entries().unwrap(), 1100);
    }

    #[test]
    fn holes_that_another_program_left_are_filled_before_they_are_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.index");
        std::fs::write(&path, [1; 8]).unwrap();
        let sparse = OpenOptions::new().write(true).open(&path).unwrap();
        sparse.set_len(1 << 20).unwrap();
        let index = IndexFile::<8>::new(Arc::new(RealDisk), path, 1 << 20);
        index.append([2; 8]).unwrap();
        let blocks = std::os::unix::fs::MetadataExt::blocks(&sparse.metadata().unwrap());
        assert!(blocks * 512 >= 1 << 20, "{blocks} blocks");
        assert_eq!(index.get(0).unwrap(), Some([1; 8]));
        index.truncate(1).unwrap();
        assert_eq!(index.entries().unwrap(), 1);
        index.append([3; 8]).unwrap();
        assert_eq!(index.get(1).unwrap(), Some([3; 8]));
    }

    #[test]
    fn an_index_is_full_at_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let index = IndexFile::<8>::new(Arc::new(RealDisk), dir.path().join("x.index"), 16);
        index.append([1; 8]).unwrap();
        assert!(!index.is_full());
        index.append([2; 8]).unwrap();
        assert!(index.is_full());
    }
}
