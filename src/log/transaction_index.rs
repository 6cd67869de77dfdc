//! `.txnindex`: the transactions that end in a segment by being aborted (Kafka's TransactionIndex). There is none beside a
//! segment without any.
//!
//! One entry, 34 bytes, big-endian, in the order of the markers:
//!
//! | bytes  | field              | meaning                                                          |
//! |--------|--------------------|------------------------------------------------------------------|
//! | 0..2   | version            | 0                                                                |
//! | 2..10  | producer_id        |                                                                  |
//! | 10..18 | first_offset       | of its first record, perhaps in an earlier segment                |
//! | 18..26 | last_offset        | of its marker                                                    |
//! | 26..34 | last_stable_offset | every transaction before it was decided when the marker was written |
//!
//! Life: made by the first abort; appended to by the owner of the log's tail after the marker is in the file and before
//! anybody sees the log's new end; synced with the other indexes of a sealed segment; after a crash written anew from
//! the records (`load_producers`).
//!
//! Concurrency: `bytes` is published with release ordering after the write, so whoever reads it may read the file up to it.
//!
//! Look-ups read one chunk of entries: which one, they know from the first entry of each chunk, which is kept in memory (8 bytes
//! for 128 transactions).

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::LogError;
use super::disk::{Disk, DiskFile};
use super::reach::Reach;
use super::transactions::AbortedTransaction;

const VERSION: i16 = 0;
/// Size of an entry.
const ENTRY_BYTES: usize = 34;
/// Entries that are read at a time: a chunk begins with every so many-th.
const CHUNK_ENTRIES: u64 = 128;

impl AbortedTransaction {
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        entry[..2].copy_from_slice(&VERSION.to_be_bytes());
        let fields = [
            self.producer_id,
            self.first_offset,
            self.last_offset,
            self.last_stable_offset,
        ];
        for (at, field) in entry[2..].chunks_exact_mut(8).zip(fields) {
            at.copy_from_slice(&field.to_be_bytes());
        }
        entry
    }

    /// `None` for a version that is not known.
    fn decode(entry: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let field = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&entry[at..at + 8]);
            i64::from_be_bytes(bytes)
        };
        (i16::from_be_bytes([entry[0], entry[1]]) == VERSION).then(|| Self {
            producer_id: field(2),
            first_offset: field(10),
            last_offset: field(18),
            last_stable_offset: field(26),
        })
    }
}

/// See the module's documentation.
pub(super) struct TransactionIndex {
    disk: Arc<dyn Disk>,
    path: Mutex<PathBuf>,
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    bytes: AtomicU64,
    /// Where the first transaction of each chunk ends, as far as look-ups have needed that.
    chunks: RwLock<Vec<i64>>,
    /// Whether the file is not known to be on stable storage as it is.
    is_unsynced: AtomicBool,
}

impl TransactionIndex {
    /// An index at `path`, of which nothing was found yet.
    pub(super) fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self {
            disk,
            path: Mutex::new(path),
            file: Mutex::new(None),
            bytes: AtomicU64::new(0),
            chunks: RwLock::default(),
            is_unsynced: AtomicBool::new(false),
        }
    }

    /// A file of this size was found.
    pub(super) fn found(&self, bytes: u64) {
        self.is_unsynced.store(true, Ordering::Release);
        let mut chunks = self.chunks.write();
        chunks.clear();
        self.bytes.store(bytes, Ordering::Release);
    }

    /// Whether no transaction is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.load(Ordering::Acquire) == 0
    }

    fn entries(&self) -> u64 {
        self.bytes.load(Ordering::Acquire) / ENTRY_BYTES as u64
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.lock().clone()
    }

    pub(super) fn set_path(&self, path: &Path) {
        *self.path.lock() = path.to_path_buf();
    }

    /// Renames the file with `rename`; whoever opens it meanwhile finds it under the one name or the other.
    pub(super) fn rename(
        &self,
        rename: impl Fn(&Path) -> io::Result<()>,
        to: &Path,
    ) -> io::Result<()> {
        let mut path = self.path.lock();
        rename(&path)?;
        *path = to.to_path_buf();
        Ok(())
    }

    /// Lets go of the file; readers that hold it keep it.
    pub(super) fn close(&self) {
        *self.file.lock() = None;
    }

    /// Removes a file that is there before this one is used.
    pub(super) fn remove_leftover(&self) -> io::Result<()> {
        match self.disk.remove(&self.path.lock()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn opened(&self, reach: Reach) -> Result<Arc<dyn DiskFile>, LogError> {
        if reach == Reach::Cache {
            let file = self.file.try_lock().and_then(|file| file.clone());
            return file.ok_or(LogError::NotCached);
        }
        let mut file = self.file.lock();
        if let Some(open) = &*file {
            return Ok(open.clone());
        }
        let opened = self.disk.open(&self.path.lock())?;
        Ok(file.insert(opened).clone())
    }

    /// The file to be appended to.
    fn writable(&self) -> io::Result<Arc<dyn DiskFile>> {
        let mut file = self.file.lock();
        if let Some(open) = &*file {
            return Ok(open.clone());
        }
        let created = self.disk.create(&self.path.lock())?;
        Ok(file.insert(created).clone())
    }

    /// Adds a transaction; only the owner of the log's tail calls this.
    pub(super) fn append(&self, aborted: &AbortedTransaction) -> io::Result<()> {
        let position = self.bytes.load(Ordering::Relaxed);
        let entry = aborted.encode();
        let file = self.writable()?;
        self.is_unsynced.store(true, Ordering::Release);
        file.write_all_at(&mut [IoSlice::new(&entry)], position)?;
        let bytes = position + ENTRY_BYTES as u64;
        self.bytes.store(bytes, Ordering::Release);
        Ok(())
    }

    /// Makes a file also where there is nothing to be in it.
    pub(super) fn make(&self) -> io::Result<()> {
        self.is_unsynced.store(true, Ordering::Release);
        self.writable().map(drop)
    }

    /// Keeps the transactions whose markers lie before an offset.
    pub(super) fn keep_before(&self, offset: i64) -> Result<(), LogError> {
        if self.is_empty() {
            return Ok(());
        }
        let keep = self.first_ending_at(Reach::Disk, offset)? * ENTRY_BYTES as u64;
        if keep < self.bytes.load(Ordering::Acquire) {
            self.cut(keep)?;
        }
        Ok(())
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        // Readers see less before it is less.
        {
            let mut chunks = self.chunks.write();
            self.bytes.store(bytes, Ordering::Release);
            chunks.truncate((bytes / ENTRY_BYTES as u64).div_ceil(CHUNK_ENTRIES) as usize);
        }
        self.is_unsynced.store(true, Ordering::Release);
        self.writable()?.set_len(bytes)
    }

    /// Says of what ends at and after an offset what was found in the records; whether that is news.
    pub(super) fn replace_from(
        &self,
        offset: i64,
        aborted: &[AbortedTransaction],
    ) -> Result<bool, LogError> {
        if self.is_empty() && aborted.is_empty() {
            return Ok(false);
        }
        if let Some(all) = self.all()? {
            let keep = all.partition_point(|known| known.last_offset < offset);
            if all[keep..] == *aborted {
                return Ok(false);
            }
            self.keep_before(offset)?;
        } else {
            // Nothing of it is believed; whoever opens a log has read the segment from its beginning.
            self.cut(0)?;
        }
        for aborted in aborted {
            self.append(aborted)?;
        }
        Ok(true)
    }

    /// All of it; `None` where it is not as appends leave it.
    pub(super) fn all(&self) -> Result<Option<Vec<AbortedTransaction>>, LogError> {
        let bytes = self.bytes.load(Ordering::Acquire);
        if bytes == 0 {
            return Ok(Some(Vec::new()));
        }
        let mut content = vec![0; bytes as usize];
        let read = self.opened(Reach::Disk)?.read_at(&mut content, 0)?;
        let (entries, rest) = content[..read].as_chunks::<ENTRY_BYTES>();
        let all: Option<Vec<_>> = entries.iter().map(AbortedTransaction::decode).collect();
        let is_whole = rest.is_empty() && read as u64 == bytes;
        let all = all.filter(|all| {
            let mut pairs = all.windows(2);
            is_whole && pairs.all(|pair| pair[0].last_offset < pair[1].last_offset)
        });
        Ok(all)
    }

    /// Whether it is as appends leave it, for a segment that begins at an offset (Kafka's TransactionIndex.sanityCheck).
    pub(super) fn is_sound(&self, base_offset: i64) -> Result<bool, LogError> {
        let all = self.all()?;
        let first = |all: &Vec<AbortedTransaction>| all.first().map(|first| first.last_offset);
        Ok(all.is_some_and(|all| first(&all).is_none_or(|first| first >= base_offset)))
    }

    /// Adds the transactions of which a record may lie at or after `from` and before `to`; whether later segments have none of
    /// them (Kafka's TransactionIndex.collectAbortedTxns).
    pub(super) fn collect(
        &self,
        reach: Reach,
        (from, to): (i64, i64),
        aborted: &mut Vec<AbortedTransaction>,
    ) -> Result<bool, LogError> {
        if self.is_empty() {
            return Ok(false);
        }
        let (mut next, end) = (self.chunk_ending_at(reach, from)?, self.entries());
        while next < end {
            let count = CHUNK_ENTRIES.min(end - next);
            for entry in self.read(reach, next, count)? {
                if entry.last_offset < from {
                    continue;
                }
                if entry.first_offset < to {
                    aborted.push(entry);
                }
                if entry.last_stable_offset >= to {
                    return Ok(true);
                }
            }
            next += count;
        }
        Ok(false)
    }

    /// The number of the first entry of the last chunk before which no marker lies at or after an offset.
    fn chunk_ending_at(&self, reach: Reach, offset: i64) -> Result<u64, LogError> {
        let chunks = self.chunks(reach)?;
        let before = chunks.partition_point(|first| *first < offset) as u64;
        Ok(before.saturating_sub(1) * CHUNK_ENTRIES)
    }

    /// What is known of the chunks, of all entries that are there.
    fn chunks(&self, reach: Reach) -> Result<RwLockReadGuard<'_, Vec<i64>>, LogError> {
        let chunks = match reach {
            Reach::Disk => self.chunks.read(),
            Reach::Cache => self.chunks.try_read().ok_or(LogError::NotCached)?,
        };
        if chunks.len() as u64 * CHUNK_ENTRIES >= self.entries() {
            return Ok(chunks);
        }
        drop(chunks);
        let mut chunks = match reach {
            Reach::Disk => self.chunks.write(),
            Reach::Cache => self.chunks.try_write().ok_or(LogError::NotCached)?,
        };
        // What is cut off meanwhile waits for the lock.
        while (chunks.len() as u64) * CHUNK_ENTRIES < self.entries() {
            let first = self.read(reach, chunks.len() as u64 * CHUNK_ENTRIES, 1)?;
            chunks.extend(first.iter().map(|first| first.last_offset));
        }
        Ok(RwLockWriteGuard::downgrade(chunks))
    }

    /// The number of the first entry whose marker lies at or after an offset.
    fn first_ending_at(&self, reach: Reach, offset: i64) -> Result<u64, LogError> {
        let (mut low, mut high) = (0, self.entries());
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.read(reach, middle, 1)?;
            match entry
                .first()
                .is_some_and(|entry| entry.last_offset < offset)
            {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }

    fn read(
        &self,
        reach: Reach,
        first: u64,
        count: u64,
    ) -> Result<Vec<AbortedTransaction>, LogError> {
        let mut content = vec![0; count as usize * ENTRY_BYTES];
        let position = first * ENTRY_BYTES as u64;
        let file = self.opened(reach)?;
        let whole = content.len();
        match reach {
            Reach::Disk if file.read_at(&mut content, position)? < whole => {
                return Err(self.damaged(position));
            }
            Reach::Cache if file.read_cached_at(&mut content, position)? != Some(whole) => {
                return Err(LogError::NotCached);
            }
            _ => {}
        }
        let (entries, _) = content.as_chunks::<ENTRY_BYTES>();
        let decoded = entries.iter().map(AbortedTransaction::decode);
        decoded
            .collect::<Option<_>>()
            .ok_or_else(|| self.damaged(position))
    }

    fn damaged(&self, position: u64) -> LogError {
        LogError::Damaged {
            file: self.path().display().to_string(),
            position,
            what: "no entry of an aborted transaction".to_owned(),
        }
    }

    /// Writes all of it to its own place and syncs it, after a sync that failed.
    pub(super) fn write_again(&self) -> io::Result<()> {
        let bytes = self.bytes.load(Ordering::Acquire);
        if bytes == 0 && !self.is_unsynced.load(Ordering::Acquire) {
            return Ok(());
        }
        let file = self.writable()?;
        let mut content = vec![0; bytes as usize];
        if file.read_at(&mut content, 0)? < content.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Its length too.
        file.set_len(0)?;
        file.write_all_at(&mut [IoSlice::new(&content)], 0)?;
        self.is_unsynced.store(true, Ordering::Release);
        self.sync()
    }

    /// Returns when the file, and that it is there, are on stable storage: it may be younger than all others of its segment.
    /// Entries that were cut off must not come back either.
    pub(super) fn sync(&self) -> io::Result<()> {
        if !self.is_unsynced.load(Ordering::Acquire) {
            return Ok(());
        }
        self.writable()?.sync_data()?;
        if let Some(dir) = self.path().parent() {
            self.disk.sync_dir(dir)?;
        }
        self.is_unsynced.store(false, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::RealDisk;

    fn index(dir: &Path) -> TransactionIndex {
        TransactionIndex::new(Arc::new(RealDisk), dir.join("00.txnindex"))
    }

    fn aborted(first_offset: i64, last_offset: i64, last_stable_offset: i64) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: 0x0102,
            first_offset,
            last_offset,
            last_stable_offset,
        }
    }

    #[test]
    fn entries_are_byte_for_byte_kafkas() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path());
        assert!(index.is_empty() && !index.path().exists());
        index.append(&aborted(3, 5, 6)).unwrap();
        let mut expected = vec![0, 0];
        for field in [0x0102_i64, 3, 5, 6] {
            expected.extend_from_slice(&field.to_be_bytes());
        }
        assert_eq!(std::fs::read(index.path()).unwrap(), expected);
        assert_eq!(index.all().unwrap(), Some(vec![aborted(3, 5, 6)]));
    }

    #[test]
    fn a_look_up_finds_what_overlaps_and_says_when_no_later_one_can() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path());
        // Two of them at the same time, then one by itself.
        let all = [aborted(3, 6, 5), aborted(5, 8, 9), aborted(10, 12, 13)];
        for one in &all {
            index.append(one).unwrap();
        }
        for reach in [Reach::Cache, Reach::Disk] {
            let found = |from, to| {
                let mut found = Vec::new();
                let is_all = index.collect(reach, (from, to), &mut found).unwrap();
                (found, is_all)
            };
            assert_eq!(found(0, 3), (vec![], true));
            assert_eq!(found(0, 4), (vec![all[0]], true));
            // Up to the marker, and not after it.
            assert_eq!(found(6, 7), (vec![all[0], all[1]], true));
            assert_eq!(found(7, 8), (vec![all[1]], true));
            assert_eq!(found(9, 11), (vec![all[2]], true));
            assert_eq!(found(13, 20), (vec![], false));
            assert_eq!(found(0, 14), (all.to_vec(), false));
        }
        index.close();
        let mut found = Vec::new();
        let opened = index.collect(Reach::Cache, (0, 9), &mut found);
        assert!(matches!(opened, Err(LogError::NotCached)));
    }

    /// What [`TransactionIndex::collect`] is to give, entry by entry.
    fn looked_through(
        all: &[AbortedTransaction],
        (from, to): (i64, i64),
    ) -> Vec<AbortedTransaction> {
        let ends = all
            .iter()
            .position(|one| one.last_offset >= from && one.last_stable_offset >= to);
        let all = &all[..ends.map_or(all.len(), |at| at + 1)];
        let overlaps = |one: &&AbortedTransaction| one.last_offset >= from && one.first_offset < to;
        all.iter().filter(overlaps).copied().collect()
    }

    #[test]
    fn a_look_up_among_many_chunks_finds_the_same_as_looking_through_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = index(dir.path());
        let entry = |n: i64, gap: i64| aborted(gap * n, gap * n + gap + n % 3, gap * n - n % 5);
        let mut all = Vec::new();
        let check = |index: &TransactionIndex, all: &[AbortedTransaction]| {
            let end = all.last().map_or(0, |last| last.last_offset) + 30;
            for (from, length) in (-5..end)
                .step_by(37)
                .zip([1, 10, 1300, 4000].into_iter().cycle())
            {
                let range = (from, from + length);
                for reach in [Reach::Disk, Reach::Cache] {
                    let mut found = Vec::new();
                    index.collect(reach, range, &mut found).unwrap();
                    assert_eq!(
                        found,
                        looked_through(all, range),
                        "{range:?} of {}",
                        all.len()
                    );
                }
            }
        };
        for (keep, until, gap) in [
            (0, 1, 10),
            (1, 127, 10),
            (127, 128, 10),
            (128, 129, 10),
            (129, 1000, 10),
            (300, 700, 20),
            (256, 257, 11),
        ] {
            if keep < all.len() as i64 {
                let first: &AbortedTransaction = &all[keep as usize];
                index.keep_before(first.last_offset).unwrap();
                all.truncate(keep as usize);
            }
            for n in keep..until {
                all.push(entry(n, gap));
                index.append(&entry(n, gap)).unwrap();
            }
            check(&index, &all);
        }
        // As it is found at the next start.
        let again = TransactionIndex::new(Arc::new(RealDisk), index.path());
        again.found(all.len() as u64 * ENTRY_BYTES as u64);
        index = again;
        check(&index, &all);
    }

    #[test]
    fn what_is_found_in_the_records_replaces_what_was_noted() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path());
        let all = [aborted(3, 6, 5), aborted(5, 8, 9), aborted(10, 12, 13)];
        for one in &all {
            index.append(one).unwrap();
        }
        assert!(!index.replace_from(8, &all[1..]).unwrap());
        assert!(index.replace_from(8, &all[2..]).unwrap());
        assert_eq!(index.all().unwrap(), Some(vec![all[0], all[2]]));
        index.keep_before(12).unwrap();
        assert_eq!(index.all().unwrap(), Some(vec![all[0]]));
        // What a crash tore is not believed.
        let bytes = std::fs::read(index.path()).unwrap();
        for torn in [&bytes[..20], &[&bytes[..], &bytes[..]].concat(), &[9; 34]] {
            std::fs::write(index.path(), torn).unwrap();
            index.close();
            index.found(torn.len() as u64);
            assert_eq!(index.all().unwrap(), None);
            assert!(!index.is_sound(0).unwrap());
            assert!(index.replace_from(0, &all).unwrap());
            assert_eq!(index.all().unwrap(), Some(all.to_vec()));
        }
        assert!(index.is_sound(6).unwrap() && !index.is_sound(7).unwrap());
    }
}
