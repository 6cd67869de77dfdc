//! The journal of a data directory: what was appended to logs that acknowledge only synced records, once more, all in
//! one file. One sync of it covers all those logs; their own files are synced later, and before that a power failure
//! is made up for by the journal when they are opened.
//!
//! Two files of one size, written alternately, never longer: `metaq-journal-0` and `-1`. Big-endian:
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | magic | `MQJ2`; `MQJ0` where nothing in it counts any more; `MQJ1` is older: its entries do not say where their run begins |
//! | 4..8 | crc | CRC-32C of the generation |
//! | 8..16 | generation | one more than any before it in the directory, so that nothing of an earlier one is taken for its own |
//! | 4096.. | journal records | each begins at a multiple of 4096, so that no write touches what is synced |
//!
//! A journal record: its length (u32, all of it), CRC-32C of what follows (u32), generation (u64), its number (u64), entries. An
//! entry: topic id (16 bytes), partition (i32), the length of the batch (u32), where its run begins (i64), a record batch
//! as it is in the log. An entry without a batch says that the log is cut off where its run begins: what was journaled of it
//! before, at and after that offset, does not count any more.
//!
//! A run of a partition is what was journaled of it without a gap. Nothing of it is acknowledged before what lies before
//! the run is synced in the log's own files; where that is missing after a power failure, the run does not count.
//!
//! Several journal records may be written and synced at the same time, but one counts only after all before it: none is
//! acknowledged before its predecessor is synced, and reading ends at the first number that is missing, until another run of
//! the broker.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use metaq_protocol::batch::BATCH_HEADER_BYTES;
use uuid::Uuid;

use super::disk::{Disk, DiskFile};

const MAGIC: [u8; 4] = *b"MQJ2";
/// As [`MAGIC`], with entries that do not say where their run begins.
const MAGIC_WITHOUT_RUNS: [u8; 4] = *b"MQJ1";
const DISCARDED: [u8; 4] = *b"MQJ0";
const BLOCK_BYTES: u64 = 4096;
const HEADER_BYTES: usize = 16;
const RECORD_BYTES: usize = 24;
const ENTRY_BYTES: usize = 32;
const ENTRY_BYTES_WITHOUT_RUN: usize = 24;
const PREFIX: &str = "metaq-journal-";
/// After [`PREFIX`]: files that hold records of partitions that could not be opened.
const KEPT: &str = "kept-";
/// At the end of the name of one that is not whole.
const UNFINISHED: &str = ".tmp";
/// Of those that are kept: entries of a journal record.
const KEPT_ENTRIES_MAX: usize = 1000;
/// The part of a journal record's number that counts within one run of the broker; above it is the generation with which the run
/// began.
const NUMBER_IN_RUN: u64 = u32::MAX as u64;
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
    /// First offset of the run that it belongs to.
    pub run_from: i64,
    /// The batch; `None` where the log is cut off at `run_from`.
    pub batch: Option<&'a WrittenBatch>,
}

/// A batch that was found in a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journaled {
    /// Of its topic.
    pub topic_id: Uuid,
    /// Of its topic.
    pub partition: i32,
    /// First offset of the run that it belongs to; `i64::MIN` where the file does not say.
    pub run_from: i64,
    /// The batch; empty where the log was cut off at `run_from`.
    pub batch: Bytes,
}

/// Gives journal records their ranges. Ranges do not overlap: each is written without waiting for the others.
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file_bytes: u64,
    generation: u64,
    number: u64,
    active: usize,
    /// One open file description for each writer: Linux reports a failed writeback once to each of them, so that a writer
    /// learns of its own loss also when another has synced the file meanwhile.
    files: Vec<Arc<dyn DiskFile>>,
    writers: usize,
    position: u64,
}

/// Where in a file a journal record goes.
pub struct JournalRange {
    file: Arc<dyn DiskFile>,
    position: u64,
    generation: u64,
    /// The number of the journal record.
    pub number: u64,
    /// In which of the two files.
    pub in_file: usize,
}

impl Journal {
    /// A journal of two files of `file_bytes` each, for writers numbered from 0; nothing is written before it is used.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, file_bytes: u64, writers: usize) -> Self {
        Self {
            disk,
            dir: dir.to_path_buf(),
            file_bytes,
            generation: 0,
            number: 0,
            active: 1,
            files: Vec::new(),
            writers,
            position: u64::MAX,
        }
    }

    /// Which of the two files is written to.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Whether a journal record of so many batches and bytes can ever be taken.
    pub fn takes(&self, batches: usize, bytes: usize) -> bool {
        record_bytes(batches, bytes) <= self.file_bytes.saturating_sub(BLOCK_BYTES)
    }

    /// A range for such a record of a writer in the active file, where there is room.
    pub fn range(&mut self, writer: usize, batches: usize, bytes: usize) -> Option<JournalRange> {
        let end = self.position.checked_add(record_bytes(batches, bytes))?;
        let file = self.files.get(writer).cloned();
        let file = file.filter(|_| end <= self.file_bytes)?;
        let range = JournalRange {
            file,
            position: self.position,
            generation: self.generation,
            number: self.number,
            in_file: self.active,
        };
        (self.position, self.number) = (end, self.number + 1);
        Some(range)
    }

    /// Goes on in the other file; what is in it does not count any more.
    pub fn switch(&mut self) -> io::Result<()> {
        let other = 1 - self.active;
        if self.generation == 0 {
            let known = files(&*self.disk, &self.dir)?;
            self.generation = known.last().map_or(0, |newest| newest.generation);
            self.number = (self.generation + 1) << NUMBER_IN_RUN.count_ones();
        }
        self.generation += 1;
        let file = self.make(&path(&self.dir, other), self.generation)?;
        let mut files = vec![file];
        while files.len() < self.writers {
            files.push(self.disk.open(&path(&self.dir, other))?);
        }
        (self.active, self.files, self.position) = (other, files, BLOCK_BYTES);
        Ok(())
    }

    /// A file of the full size, all of it written: overwriting it changes nothing but its content, so that a sync has
    /// nothing else to write. What was in it counts no more when this returns: if a power failure took the new header alone,
    /// records that are written over would be missing before those of the other file, and take those with them.
    fn make(&self, path: &Path, generation: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(path)?;
        file.write_all_at(&mut [IoSlice::new(&header(MAGIC, generation))], 0)?;
        let mut have = file.size()?;
        if have > self.file_bytes {
            file.set_len(self.file_bytes)?;
            have = self.file_bytes;
        }
        let zeros = vec![0; ZEROS_BYTES.min((self.file_bytes - have) as usize)];
        while have < self.file_bytes {
            let some = zeros.len().min((self.file_bytes - have) as usize);
            file.write_all_at(&mut [IoSlice::new(&zeros[..some])], have)?;
            have += some as u64;
        }
        file.sync_data()?;
        // Also for a file that is whole: its maker may have stopped before this.
        self.disk.sync_dir(&self.dir)?;
        Ok(file)
    }
}

impl JournalRange {
    /// Writes the journal record there and syncs it.
    pub fn write(&self, entries: &[Entry<'_>]) -> io::Result<()> {
        let head_of = |entry: &Entry<'_>| {
            let of = (entry.topic_id, entry.partition);
            entry_head(of, batch_bytes(entry), entry.run_from)
        };
        let heads: Vec<_> = entries.iter().map(head_of).collect();
        let mut bytes = RECORD_BYTES;
        let mut crc = crc32c::crc32c(&self.generation.to_be_bytes());
        crc = crc32c::crc32c_append(crc, &self.number.to_be_bytes());
        for (entry, head) in entries.iter().zip(&heads) {
            bytes += ENTRY_BYTES + batch_bytes(entry);
            crc = crc32c::crc32c_append(crc, head);
            if let Some(batch) = entry.batch {
                crc = crc32c::crc32c_append(crc, &batch.head);
                crc = crc32c::crc32c_append(crc, &batch.body);
            }
        }
        let head = record_head(bytes, crc, self.generation, self.number);
        let mut buffers = Vec::with_capacity(entries.len() * 3 + 2);
        buffers.push(IoSlice::new(&head));
        for (entry, head) in entries.iter().zip(&heads) {
            buffers.push(IoSlice::new(head));
            if let Some(batch) = entry.batch {
                buffers.push(IoSlice::new(&batch.head));
                buffers.push(IoSlice::new(&batch.body));
            }
        }
        // Whole blocks, so that none has to be read before it is written.
        let rest = [0; BLOCK_BYTES as usize];
        let padded = bytes.next_multiple_of(BLOCK_BYTES as usize);
        buffers.push(IoSlice::new(&rest[..padded - bytes]));
        self.file.write_all_at(&mut buffers, self.position)?;
        self.file.sync_data()
    }
}

fn record_head(bytes: usize, crc: u32, generation: u64, number: u64) -> [u8; RECORD_BYTES] {
    let mut head = [0; RECORD_BYTES];
    head[..4].copy_from_slice(&(bytes as u32).to_be_bytes());
    head[4..8].copy_from_slice(&crc.to_be_bytes());
    head[8..16].copy_from_slice(&generation.to_be_bytes());
    head[16..].copy_from_slice(&number.to_be_bytes());
    head
}

/// What a journal record takes of a file.
fn record_bytes(batches: usize, bytes: usize) -> u64 {
    ((RECORD_BYTES + batches * ENTRY_BYTES + bytes) as u64).next_multiple_of(BLOCK_BYTES)
}

fn path(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("{PREFIX}{n}"))
}

fn header(magic: [u8; 4], generation: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&magic);
    header[4..8].copy_from_slice(&crc32c::crc32c(&generation.to_be_bytes()).to_be_bytes());
    header[8..].copy_from_slice(&generation.to_be_bytes());
    header
}

fn batch_bytes(entry: &Entry<'_>) -> usize {
    let bytes = |batch: &WrittenBatch| BATCH_HEADER_BYTES + batch.body.len();
    entry.batch.map_or(0, bytes)
}

fn entry_head(
    (topic_id, partition): (Uuid, i32),
    length: usize,
    run_from: i64,
) -> [u8; ENTRY_BYTES] {
    let mut head = [0; ENTRY_BYTES];
    head[..16].copy_from_slice(topic_id.as_bytes());
    head[16..20].copy_from_slice(&partition.to_be_bytes());
    head[20..24].copy_from_slice(&(length as u32).to_be_bytes());
    head[24..].copy_from_slice(&run_from.to_be_bytes());
    head
}

/// A journal file that was found.
struct JournalFile {
    generation: u64,
    path: PathBuf,
    /// Whether anything in it counts.
    counts: bool,
    has_runs: bool,
}

/// The journal files in a directory, oldest first.
fn files(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<JournalFile>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // What a kill left of one that was not whole is none.
        if !name.starts_with(PREFIX) || name.ends_with(UNFINISHED) {
            continue;
        }
        let path = entry.path();
        let mut start = [0; HEADER_BYTES];
        disk.open(&path)?.read_at(&mut start, 0)?;
        let generation = u64::from_be_bytes(start[8..].try_into().unwrap_or_default());
        let has_runs = start != header(MAGIC_WITHOUT_RUNS, generation);
        let counts = start == header(MAGIC, generation) || !has_runs;
        let generation = match counts || start == header(DISCARDED, generation) {
            true => generation,
            // A header that was not written whole, in a file that was not needed: what it had counts no more, but must not be
            // taken for a later generation's either.
            false => newest_generation(disk, &path)?,
        };
        found.push(JournalFile {
            generation,
            path,
            counts,
            has_runs,
        });
    }
    found.sort_by_key(|found| found.generation);
    Ok(found)
}

/// All that counts in a directory's journal, oldest first.
pub fn load(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<Journaled>> {
    let mut all = Vec::new();
    let mut number = None;
    for found in files(disk, dir)?.into_iter().filter(|found| found.counts) {
        let file = disk.open(&found.path)?;
        let mut content = vec![0; file.size()? as usize];
        let read = file.read_at(&mut content, 0)?;
        content.truncate(read);
        read_records(&found, Bytes::from(content), &mut number, &mut all);
    }
    Ok(all)
}

/// Reads the journal records of a file that have the next numbers, or are of another run of the broker: that one's first ones may
/// have been written over.
fn read_records(
    file: &JournalFile,
    content: Bytes,
    next: &mut Option<u64>,
    all: &mut Vec<Journaled>,
) {
    let mut position = BLOCK_BYTES as usize;
    while let Some((bytes, number)) = whole_record(file.generation, &content, position) {
        let is_missed =
            |next: u64| next != number && next & !NUMBER_IN_RUN == number & !NUMBER_IN_RUN;
        if next.is_some_and(is_missed) {
            return;
        }
        *next = Some(number + 1);
        let mut entries = content.slice(position + RECORD_BYTES..position + bytes);
        while let Some(found) = next_entry(&mut entries, file.has_runs) {
            all.push(found);
        }
        position = (position + bytes).next_multiple_of(BLOCK_BYTES as usize);
    }
}

/// The newest generation of which a file has a whole journal record; 0 where it has none.
fn newest_generation(disk: &dyn Disk, path: &Path) -> io::Result<u64> {
    let content = disk.read(path)?;
    let positions = (BLOCK_BYTES as usize..content.len()).step_by(BLOCK_BYTES as usize);
    let generations = positions.filter_map(|position| record_at(&content, position));
    Ok(generations
        .map(|(_, generation, _)| generation)
        .max()
        .unwrap_or(0))
}

/// Length and number of the journal record of a generation at a position, where it is whole.
fn whole_record(generation: u64, content: &[u8], position: usize) -> Option<(usize, u64)> {
    let (bytes, of, number) = record_at(content, position)?;
    (of == generation).then_some((bytes, number))
}

/// Length, generation and number of the journal record at a position, where it is whole.
fn record_at(content: &[u8], position: usize) -> Option<(usize, u64, u64)> {
    let mut head = content.get(position..position + RECORD_BYTES)?;
    let bytes = head.get_u32() as usize;
    let crc = head.get_u32();
    let whole = content.get(position..position.checked_add(bytes)?)?;
    let is_whole = bytes > RECORD_BYTES && crc32c::crc32c(&whole[8..]) == crc;
    is_whole.then(|| (bytes, head.get_u64(), head.get_u64()))
}

fn next_entry(entries: &mut Bytes, has_runs: bool) -> Option<Journaled> {
    let head_bytes = match has_runs {
        true => ENTRY_BYTES,
        false => ENTRY_BYTES_WITHOUT_RUN,
    };
    if entries.len() < head_bytes {
        return None;
    }
    let topic_id = Uuid::from_u128(entries.get_u128());
    let partition = entries.get_i32();
    let bytes = entries.get_u32() as usize;
    let run_from = match has_runs {
        true => entries.get_i64(),
        false => i64::MIN,
    };
    (bytes <= entries.len()).then(|| Journaled {
        topic_id,
        partition,
        run_from,
        batch: entries.split_to(bytes),
    })
}

/// Makes nothing count any more: all of it is synced elsewhere.
pub fn discard(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let mut removed = remove_unfinished(disk, dir)?;
    for found in files(disk, dir)?.into_iter().filter(|found| found.counts) {
        if is_kept(&found.path) {
            disk.remove(&found.path)?;
            removed = true;
            continue;
        }
        discard_file(disk, &found)?;
    }
    if removed {
        disk.sync_dir(dir)?;
    }
    Ok(())
}

/// Removes what a kill left of files that were not whole; whether there were any.
fn remove_unfinished(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    let entries = disk.list(dir)?.into_iter().map(|entry| entry.name);
    let left = entries.filter(|name| name.starts_with(PREFIX) && name.ends_with(UNFINISHED));
    let left: Vec<String> = left.collect();
    for name in &left {
        disk.remove(&dir.join(name))?;
    }
    Ok(!left.is_empty())
}

/// The same, but for what was put aside.
pub fn discard_written(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let all = files(disk, dir)?.into_iter();
    let mut written = all.filter(|found| found.counts && !is_kept(&found.path));
    written.try_for_each(|found| discard_file(disk, &found))
}

fn discard_file(disk: &dyn Disk, found: &JournalFile) -> io::Result<()> {
    let file = disk.open(&found.path)?;
    let discarded = header(DISCARDED, found.generation);
    file.write_all_at(&mut [IoSlice::new(&discarded)], 0)?;
    file.sync_data()
}

/// Puts aside what is needed of it, so that it is found at the next start too; nothing else counts any more.
pub fn keep(disk: &dyn Disk, dir: &Path, needed: &[Journaled]) -> io::Result<()> {
    remove_unfinished(disk, dir)?;
    let known = files(disk, dir)?;
    let generation = known.last().map_or(0, |newest| newest.generation) + 1;
    let mut content = vec![0; BLOCK_BYTES as usize];
    content[..HEADER_BYTES].copy_from_slice(&header(MAGIC, generation));
    let first = generation << NUMBER_IN_RUN.count_ones();
    for (number, entries) in (first..).zip(needed.chunks(KEPT_ENTRIES_MAX)) {
        push_record(&mut content, (generation, number), entries);
    }
    disk.replace(&dir.join(format!("{PREFIX}{KEPT}{generation}")), &content)?;
    let (kept, written): (Vec<_>, Vec<_>) = known
        .into_iter()
        .filter(|found| found.counts)
        .partition(|found| is_kept(&found.path));
    for found in written {
        discard_file(disk, &found)?;
    }
    for found in kept {
        disk.remove(&found.path)?;
    }
    disk.sync_dir(dir)
}

fn push_record(content: &mut Vec<u8>, (generation, number): (u64, u64), entries: &[Journaled]) {
    let at = content.len();
    content.extend_from_slice(&[0; RECORD_BYTES]);
    for entry in entries {
        let of = (entry.topic_id, entry.partition);
        content.extend_from_slice(&entry_head(of, entry.batch.len(), entry.run_from));
        content.extend_from_slice(&entry.batch);
    }
    let bytes = content.len() - at;
    content[at..at + RECORD_BYTES].copy_from_slice(&record_head(bytes, 0, generation, number));
    let crc = crc32c::crc32c(&content[at + 8..]);
    content[at + 4..at + 8].copy_from_slice(&crc.to_be_bytes());
    content.resize(content.len().next_multiple_of(BLOCK_BYTES as usize), 0);
}

fn is_kept(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.starts_with(KEPT))
}

#[cfg(test)]
mod tests;
