//! The journal of a data directory: what was appended to logs that acknowledge only synced records, once more, all in
//! one file. One sync of it covers all those logs; their own files are synced later, and before that a power failure
//! is made up for by the journal when they are opened.
//!
//! Two files of one size, written in turn, never longer: `metaq-journal-0` and `-1`. Big-endian:
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | magic | `MQJ1` |
//! | 4..8 | crc | CRC-32C of the generation |
//! | 8..16 | generation | one more than the other file's when it was begun; 0 where nothing in it counts |
//! | 4096.. | rounds | each begins at a multiple of 4096, so that no write touches what is synced |
//!
//! A round: its length (u32, all of it), CRC-32C of what follows (u32), generation (u64), entries. An entry: topic id (16
//! bytes), partition (i32), the length of what follows (u32), a record batch as it is in the log. The first round that is
//! not whole ends the file: it was not synced, and so nobody was told of it.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use metaq_protocol::batch::BATCH_HEADER_BYTES;
use uuid::Uuid;

use super::disk::{Disk, DiskFile};

const MAGIC: [u8; 4] = *b"MQJ1";
const BLOCK_BYTES: u64 = 4096;
const HEADER_BYTES: usize = 16;
const ROUND_BYTES: usize = 16;
const ENTRY_BYTES: usize = 24;
const PREFIX: &str = "metaq-journal-";
/// Behind [`PREFIX`], of files that hold records of partitions that could not be opened.
const KEPT: &str = "kept-";
/// Zeros are written in steps of this size when a file is made.
const ZEROS_BYTES: usize = 1 << 20;

/// A batch as it was written to a log.
#[derive(Clone, Debug)]
pub struct WrittenBatch {
    /// Its header.
    pub head: [u8; BATCH_HEADER_BYTES],
    /// What follows.
    pub body: Bytes,
}

/// A batch that goes into the journal.
pub struct Entry<'a> {
    /// Of its topic.
    pub topic_id: Uuid,
    /// Of its topic.
    pub partition: i32,
    /// The batch.
    pub batch: &'a WrittenBatch,
}

/// A batch that was found in a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journaled {
    /// Of its topic.
    pub topic_id: Uuid,
    /// Of its topic.
    pub partition: i32,
    /// The batch.
    pub batch: Bytes,
}

/// The file that is written to. One thread has it.
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file_bytes: u64,
    generation: u64,
    active: usize,
    file: Option<Arc<dyn DiskFile>>,
    position: u64,
}

impl Journal {
    /// A journal of two files of `file_bytes` each; nothing is written before it is used.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, file_bytes: u64) -> Self {
        Self {
            disk,
            dir: dir.to_path_buf(),
            file_bytes,
            generation: 0,
            active: 1,
            file: None,
            position: u64::MAX,
        }
    }

    /// Which of the two files is written to.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Whether a round of so many batches and bytes can ever be taken.
    pub fn takes(&self, batches: usize, bytes: usize) -> bool {
        round_bytes(batches, bytes) <= self.file_bytes.saturating_sub(BLOCK_BYTES)
    }

    /// Whether such a round has room in the active file.
    pub fn has_room(&self, batches: usize, bytes: usize) -> bool {
        let end = self.position.checked_add(round_bytes(batches, bytes));
        end.is_some_and(|end| end <= self.file_bytes)
    }

    /// Goes on in the other file; what is in it does not count any more.
    pub fn switch(&mut self) -> io::Result<()> {
        let other = 1 - self.active;
        if self.generation == 0 {
            let known = generations(&*self.disk, &self.dir)?;
            self.generation = known
                .into_iter()
                .map(|(generation, _)| generation)
                .max()
                .unwrap_or(0);
        }
        let file = self.make(&path(&self.dir, other))?;
        self.generation += 1;
        file.write_all_at(&mut [IoSlice::new(&header(self.generation))], 0)?;
        (self.active, self.file, self.position) = (other, Some(file), BLOCK_BYTES);
        Ok(())
    }

    /// A file of the full size, all of it written: overwriting it changes nothing but its content, so that a sync has
    /// nothing else to write.
    fn make(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(path)?;
        let mut have = file.size()?;
        if have == self.file_bytes {
            return Ok(file);
        }
        if have > self.file_bytes {
            file.set_len(self.file_bytes)?;
            have = self.file_bytes;
        }
        let zeros = vec![0; ZEROS_BYTES];
        while have < self.file_bytes {
            let some = zeros.len().min((self.file_bytes - have) as usize);
            file.write_all_at(&mut [IoSlice::new(&zeros[..some])], have)?;
            have += some as u64;
        }
        file.sync_data()?;
        self.disk.sync_dir(&self.dir)?;
        Ok(file)
    }

    /// Writes a round, for which there is room, and syncs it.
    pub fn append(&mut self, entries: &[Entry<'_>]) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let heads: Vec<_> = entries.iter().map(entry_head).collect();
        let mut bytes = ROUND_BYTES;
        let mut crc = crc32c::crc32c(&self.generation.to_be_bytes());
        for (entry, head) in entries.iter().zip(&heads) {
            bytes += ENTRY_BYTES + BATCH_HEADER_BYTES + entry.batch.body.len();
            crc = crc32c::crc32c_append(crc, head);
            crc = crc32c::crc32c_append(crc, &entry.batch.head);
            crc = crc32c::crc32c_append(crc, &entry.batch.body);
        }
        let head = round_head(bytes, crc, self.generation);
        let mut buffers = Vec::with_capacity(entries.len() * 3 + 2);
        buffers.push(IoSlice::new(&head));
        for (entry, head) in entries.iter().zip(&heads) {
            buffers.push(IoSlice::new(head));
            buffers.push(IoSlice::new(&entry.batch.head));
            buffers.push(IoSlice::new(&entry.batch.body));
        }
        // Whole blocks, so that none has to be read before it is written.
        let rest = [0; BLOCK_BYTES as usize];
        let padded = (bytes as u64).next_multiple_of(BLOCK_BYTES);
        buffers.push(IoSlice::new(&rest[..(padded - bytes as u64) as usize]));
        file.write_all_at(&mut buffers, self.position)?;
        file.sync_data()?;
        self.position += padded;
        Ok(())
    }
}

/// What a round takes of a file.
fn round_bytes(batches: usize, bytes: usize) -> u64 {
    ((ROUND_BYTES + batches * ENTRY_BYTES + bytes) as u64).next_multiple_of(BLOCK_BYTES)
}

fn path(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("{PREFIX}{n}"))
}

fn header(generation: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&crc32c::crc32c(&generation.to_be_bytes()).to_be_bytes());
    header[8..].copy_from_slice(&generation.to_be_bytes());
    header
}

fn round_head(bytes: usize, crc: u32, generation: u64) -> [u8; ROUND_BYTES] {
    let mut head = [0; ROUND_BYTES];
    head[..4].copy_from_slice(&(bytes as u32).to_be_bytes());
    head[4..8].copy_from_slice(&crc.to_be_bytes());
    head[8..].copy_from_slice(&generation.to_be_bytes());
    head
}

fn entry_head(entry: &Entry<'_>) -> [u8; ENTRY_BYTES] {
    let length = BATCH_HEADER_BYTES + entry.batch.body.len();
    let mut head = [0; ENTRY_BYTES];
    head[..16].copy_from_slice(entry.topic_id.as_bytes());
    head[16..20].copy_from_slice(&entry.partition.to_be_bytes());
    head[20..].copy_from_slice(&(length as u32).to_be_bytes());
    head
}

/// The journal files in a directory with their generations, those that do not count left out.
fn generations(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let mut start = [0; HEADER_BYTES];
        let read = disk.open(&entry.path())?.read_at(&mut start, 0)?;
        let generation = u64::from_be_bytes(start[8..].try_into().unwrap_or_default());
        if read == HEADER_BYTES && generation > 0 && start == header(generation) {
            found.push((generation, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// All that counts in a directory's journal, oldest first.
pub fn load(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<Journaled>> {
    let mut all = Vec::new();
    for (generation, path) in generations(disk, dir)? {
        let file = disk.open(&path)?;
        let mut content = vec![0; file.size()? as usize];
        let read = file.read_at(&mut content, 0)?;
        content.truncate(read);
        read_rounds(generation, Bytes::from(content), &mut all);
    }
    Ok(all)
}

fn read_rounds(generation: u64, content: Bytes, all: &mut Vec<Journaled>) {
    let mut position = BLOCK_BYTES as usize;
    while let Some(bytes) = whole_round(generation, &content, position) {
        let mut entries = content.slice(position + ROUND_BYTES..position + bytes);
        while let Some(found) = next_entry(&mut entries) {
            all.push(found);
        }
        position = (position + bytes).next_multiple_of(BLOCK_BYTES as usize);
    }
}

/// The length of the round at a position, where it is whole.
fn whole_round(generation: u64, content: &[u8], position: usize) -> Option<usize> {
    let mut head = content.get(position..position + ROUND_BYTES)?;
    let bytes = head.get_u32() as usize;
    let crc = head.get_u32();
    let whole = content.get(position..position.checked_add(bytes)?)?;
    let is_whole =
        bytes > ROUND_BYTES && head.get_u64() == generation && crc32c::crc32c(&whole[8..]) == crc;
    is_whole.then_some(bytes)
}

fn next_entry(entries: &mut Bytes) -> Option<Journaled> {
    if entries.len() < ENTRY_BYTES {
        return None;
    }
    let topic_id = Uuid::from_u128(entries.get_u128());
    let partition = entries.get_i32();
    let bytes = entries.get_u32() as usize;
    (bytes <= entries.len()).then(|| Journaled {
        topic_id,
        partition,
        batch: entries.split_to(bytes),
    })
}

/// Makes nothing count any more: all of it is synced elsewhere.
pub fn discard(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for (_, path) in generations(disk, dir)? {
        if is_kept(&path) {
            disk.remove(&path)?;
            continue;
        }
        let file = disk.open(&path)?;
        file.write_all_at(&mut [IoSlice::new(&header(0))], 0)?;
        file.sync_data()?;
    }
    Ok(())
}

/// Puts the files aside, so that what is in them is found at the next start too.
pub fn keep(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for (generation, path) in generations(disk, dir)? {
        if !is_kept(&path) {
            disk.rename(&path, &dir.join(format!("{PREFIX}{KEPT}{generation}")))?;
        }
    }
    disk.sync_dir(dir)
}

fn is_kept(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.starts_with(KEPT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::RealDisk;

    const FILE_BYTES: u64 = 64 << 10;

    fn batch(fill: u8, bytes: usize) -> WrittenBatch {
        WrittenBatch {
            head: [fill; BATCH_HEADER_BYTES],
            body: vec![fill; bytes].into(),
        }
    }

    fn round(journal: &mut Journal, batches: &[WrittenBatch]) {
        let entry = |(n, batch)| Entry {
            topic_id: Uuid::from_u128(7),
            partition: n as i32,
            batch,
        };
        let entries: Vec<_> = batches.iter().enumerate().map(entry).collect();
        let bytes = batches
            .iter()
            .map(|batch| BATCH_HEADER_BYTES + batch.body.len())
            .sum();
        if !journal.has_room(batches.len(), bytes) {
            journal.switch().unwrap();
        }
        journal.append(&entries).unwrap();
    }

    fn found(dir: &Path) -> Vec<u8> {
        let all = load(&RealDisk, dir).unwrap();
        all.iter().map(|found| found.batch[0]).collect()
    }

    #[test]
    fn rounds_are_found_in_their_order_over_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES);
        for n in 1..=20 {
            round(&mut journal, &[batch(n, 100), batch(n, 3000)]);
        }
        let all = load(&RealDisk, dir.path()).unwrap();
        assert_eq!(all.last().unwrap().partition, 1);
        assert_eq!(all.last().unwrap().batch.len(), BATCH_HEADER_BYTES + 3000);
        // The first file was begun again behind round 15 + 15.
        assert_eq!(
            found(dir.path()),
            (1..=20).flat_map(|n| [n, n]).collect::<Vec<_>>()
        );
        for n in 21..=40 {
            round(&mut journal, &[batch(n, 100), batch(n, 3000)]);
        }
        let left = found(dir.path());
        assert!(
            left.starts_with(&[16, 16]) && left.ends_with(&[40, 40]),
            "{left:?}"
        );
    }

    #[test]
    fn a_torn_round_ends_it_and_a_new_journal_goes_on_behind_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES);
        (1..=3).for_each(|n| round(&mut journal, &[batch(n, 5000)]));
        let path = path(dir.path(), 0);
        let mut content = std::fs::read(&path).unwrap();
        // In the third round, which takes two blocks like the others.
        content[4096 * 5 + 4500] ^= 1;
        std::fs::write(&path, content).unwrap();
        assert_eq!(found(dir.path()), [1, 2]);
        let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES);
        round(&mut journal, &[batch(9, 10)]);
        assert_eq!(journal.generation, 2);
    }

    #[test]
    fn what_is_discarded_does_not_count_and_what_is_kept_does() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES);
        round(&mut journal, &[batch(1, 10)]);
        keep(&RealDisk, dir.path()).unwrap();
        assert_eq!(found(dir.path()), [1]);
        let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES);
        round(&mut journal, &[batch(2, 10)]);
        assert_eq!(found(dir.path()), [1, 2]);
        discard(&RealDisk, dir.path()).unwrap();
        assert!(found(dir.path()).is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_round_that_is_larger_than_a_file_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES);
        assert!(journal.takes(1, 61_400) && !journal.takes(1, 61_401));
    }
}
