//! `.keys`: the hashes of the keys in a sealed segment, beside it. With it a pass finds out whether newer records supersede
//! some of the segment without reading it: what nobody wrote to again is left alone. It is metaq's own; Kafka passes over it.
//!
//! Integers big-endian. The header:
//!
//! | bytes  | field          | meaning                                                             |
//! |--------|----------------|---------------------------------------------------------------------|
//! | 0..8   | magic          | `mqkeys` and version 1                                              |
//! | 8..16  | base_offset    | of the segment                                                      |
//! | 16..24 | log_bytes      | size of its `.log`                                                  |
//! | 24..32 | delete_horizon | when the first tombstone may go, ms; 2^63−1 for none                |
//! | 32..40 | count          | of entries                                                          |
//! | 40     | flags          | of [`Facts`]: 0 unstamped tombstones, 1 walk, 2 unkeyed, 3 opaque   |
//! | 41..44 | –              | 0                                                                   |
//! | 44..48 | batches_crc    | CRC-32C of offset and CRC of each batch of the `.log`                |
//! | 48..64 | seed           | the secret that keys are hashed with, one a log                     |
//! | 64..68 | entries_crc    | CRC-32C of the entries                                              |
//! | 68..72 | header_crc     | CRC-32C of all before                                               |
//!
//! An entry, 20 bytes, in the order of offsets: the hash (16), offset − base with the highest bit for a tombstone (4). Every
//! record has one that is not of an aborted transaction.
//!
//! Life: written when a segment is first gone through, or written anew by compaction; removed with its segment and where that
//! is cut. What does not fit its segment, or is torn, counts as missing.
//!
//! Tests: log/compaction/tests.rs.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use metaq_protocol::batch::BatchHeader;

use super::super::disk::{Disk, DiskFile};
use super::super::segment::Segment;
use super::key_map::{KeySeed, KeyedOffset};

const MAGIC: [u8; 8] = *b"mqkeys\0\x01";
const HEADER_BYTES: usize = 72;
const ENTRY_BYTES: usize = 20;
const TOMBSTONE: u32 = 1 << 31;
/// Entries read or written at a time.
pub(super) const CHUNK_ENTRIES: usize = 32 << 10;
/// Bytes of them.
pub(super) const CHUNK_BYTES: u64 = (CHUNK_ENTRIES * ENTRY_BYTES) as u64;
/// There is no delete horizon.
pub(super) const NO_HORIZON: i64 = i64::MAX;

/// What is known of a segment that was gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// When the first tombstone may go, of those that have a horizon, ms.
    pub(super) delete_horizon: i64,
    /// There are tombstones without a horizon.
    pub(super) has_unstamped_tombstones: bool,
    /// Batches must be looked at one by one: some are of transactions, or have no records.
    pub(super) needs_walk: bool,
    /// There are records without a key.
    pub(super) has_unkeyed: bool,
    /// There are batches that are not looked into.
    pub(super) has_opaque: bool,
    /// Of offset and CRC of each batch.
    pub(super) batches_crc: u32,
    /// Records with a key that are not of an aborted transaction.
    pub(super) records: u64,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            delete_horizon: NO_HORIZON,
            has_unstamped_tombstones: false,
            needs_walk: false,
            has_unkeyed: false,
            has_opaque: false,
            batches_crc: 0,
            records: 0,
        }
    }
}

impl Facts {
    /// Takes a batch of the segment into account.
    pub(super) fn add_batch(&mut self, header: &BatchHeader) {
        self.batches_crc = add_to_crc(self.batches_crc, header);
        self.needs_walk |=
            header.is_transactional() || header.is_control() || header.record_count == 0;
    }

    /// Takes a tombstone of a batch into account.
    pub(super) fn add_tombstone(&mut self, header: &BatchHeader) {
        match header.has_delete_horizon() {
            true => self.delete_horizon = self.delete_horizon.min(header.base_timestamp),
            false => self.has_unstamped_tombstones = true,
        }
    }
}

/// Adds a batch to the checksum that a segment's batches are known by.
pub(super) fn add_to_crc(crc: u32, header: &BatchHeader) -> u32 {
    let with_offset = crc32c::crc32c_append(crc, &header.base_offset.to_be_bytes());
    crc32c::crc32c_append(with_offset, &header.crc.to_be_bytes())
}

/// An index that is being written; it counts when it is finished.
pub(super) struct KeyIndexWriter {
    file: Arc<dyn DiskFile>,
    base_offset: i64,
    seed: KeySeed,
    buffer: Vec<u8>,
    position: u64,
    count: u64,
    crc: u32,
}

impl KeyIndexWriter {
    pub(super) fn create(
        disk: &dyn Disk,
        path: &Path,
        base_offset: i64,
        seed: &KeySeed,
    ) -> io::Result<Self> {
        let file = disk.create(path)?;
        file.set_len(0)?;
        Ok(Self {
            file,
            base_offset,
            seed: *seed,
            buffer: Vec::with_capacity(CHUNK_ENTRIES * ENTRY_BYTES),
            position: HEADER_BYTES as u64,
            count: 0,
            crc: 0,
        })
    }

    /// Adds a record after those before it.
    pub(super) fn add(&mut self, key: &KeyedOffset) -> io::Result<()> {
        let delta = u32::try_from(key.offset - self.base_offset)
            .ok()
            .filter(|delta| delta & TOMBSTONE == 0)
            .ok_or_else(|| io::Error::other("an offset that its segment cannot have"))?;
        let [high, low] = key.hash;
        self.buffer.extend_from_slice(&high.to_be_bytes());
        self.buffer.extend_from_slice(&low.to_be_bytes());
        let tombstone = if key.is_tombstone { TOMBSTONE } else { 0 };
        self.buffer
            .extend_from_slice(&(delta | tombstone).to_be_bytes());
        self.count += 1;
        match self.buffer.len() < CHUNK_ENTRIES * ENTRY_BYTES {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        let slices = &mut [IoSlice::new(&self.buffer)];
        self.file.write_all_at(slices, self.position)?;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the header, for a segment of this size; what is written is durable.
    pub(super) fn finish(mut self, log_bytes: u64, facts: &Facts) -> io::Result<()> {
        self.flush()?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&self.base_offset.to_be_bytes());
        header.extend_from_slice(&log_bytes.to_be_bytes());
        header.extend_from_slice(&facts.delete_horizon.to_be_bytes());
        header.extend_from_slice(&self.count.to_be_bytes());
        let flags = u8::from(facts.has_unstamped_tombstones)
            | u8::from(facts.needs_walk) << 1
            | u8::from(facts.has_unkeyed) << 2
            | u8::from(facts.has_opaque) << 3;
        header.extend_from_slice(&[flags, 0, 0, 0]);
        header.extend_from_slice(&facts.batches_crc.to_be_bytes());
        header.extend_from_slice(&self.seed);
        header.extend_from_slice(&self.crc.to_be_bytes());
        let crc = crc32c::crc32c(&header);
        header.extend_from_slice(&crc.to_be_bytes());
        self.file.write_all_at(&mut [IoSlice::new(&header)], 0)?;
        self.file.sync_data()
    }
}

/// An index that fits its segment.
pub(super) struct KeyIndex {
    file: Arc<dyn DiskFile>,
    base_offset: i64,
    entries_crc: u32,
    pub(super) seed: KeySeed,
    pub(super) facts: Facts,
}

impl KeyIndex {
    /// The index beside a segment, where there is one that fits it.
    pub(super) fn open(disk: &dyn Disk, segment: &Segment) -> io::Result<Option<Self>> {
        let path = segment.keys_path();
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut header = [0; HEADER_BYTES];
        if file.read_at(&mut header, 0)? < HEADER_BYTES {
            return Ok(None);
        }
        Ok(Self::decode(file, &header, segment))
    }

    fn decode(
        file: Arc<dyn DiskFile>,
        header: &[u8; HEADER_BYTES],
        segment: &Segment,
    ) -> Option<Self> {
        let long = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            i64::from_be_bytes(bytes)
        };
        let word = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&header[at..at + 4]);
            u32::from_be_bytes(bytes)
        };
        let is_whole = header[..8] == MAGIC && crc32c::crc32c(&header[..68]) == word(68);
        let fits = long(8) == segment.base_offset() && long(16) as u64 == segment.bytes();
        if !is_whole || !fits {
            return None;
        }
        let mut seed = [0; 16];
        seed.copy_from_slice(&header[48..64]);
        let is_set = |flag: u8| header[40] >> flag & 1 == 1;
        Some(Self {
            file,
            base_offset: long(8),
            entries_crc: word(64),
            seed,
            facts: Facts {
                delete_horizon: long(24),
                has_unstamped_tombstones: is_set(0),
                needs_walk: is_set(1),
                has_unkeyed: is_set(2),
                has_opaque: is_set(3),
                batches_crc: word(44),
                records: long(32) as u64,
            },
        })
    }

    /// The records in the order of their offsets.
    pub(super) fn entries(&self) -> KeyIndexEntries<'_> {
        KeyIndexEntries {
            index: self,
            next: 0,
            crc: 0,
            chunk: Vec::new(),
            at: 0,
        }
    }
}

/// Goes through an index. The last step fails where it is not as it was written.
pub(super) struct KeyIndexEntries<'a> {
    index: &'a KeyIndex,
    /// The first entry that was not read.
    next: u64,
    crc: u32,
    chunk: Vec<u8>,
    at: usize,
}

impl KeyIndexEntries<'_> {
    pub(super) fn next(&mut self) -> io::Result<Option<KeyedOffset>> {
        if self.at == self.chunk.len() && !self.read()? {
            return Ok(None);
        }
        let entry = &self.chunk[self.at..self.at + ENTRY_BYTES];
        self.at += ENTRY_BYTES;
        let half = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&entry[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        let delta = u32::from_be_bytes([entry[16], entry[17], entry[18], entry[19]]);
        Ok(Some(KeyedOffset {
            hash: [half(0), half(8)],
            offset: self.index.base_offset + i64::from(delta & !TOMBSTONE),
            is_tombstone: delta & TOMBSTONE != 0,
        }))
    }

    fn read(&mut self) -> io::Result<bool> {
        let left = self.index.facts.records - self.next;
        if left == 0 {
            return match self.crc == self.index.entries_crc {
                true => Ok(false),
                false => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a .keys file is damaged",
                )),
            };
        }
        let entries = left.min(CHUNK_ENTRIES as u64);
        self.chunk.resize(entries as usize * ENTRY_BYTES, 0);
        let position = HEADER_BYTES as u64 + self.next * ENTRY_BYTES as u64;
        if self.index.file.read_at(&mut self.chunk, position)? < self.chunk.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.crc = crc32c::crc32c_append(self.crc, &self.chunk);
        self.next += entries;
        self.at = 0;
        Ok(true)
    }
}

/// Whether an error says that an index is not as it was written, so that it counts as missing.
pub(super) fn is_damaged(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}
