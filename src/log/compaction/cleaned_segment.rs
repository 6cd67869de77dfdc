//! A segment that is written anew: `.log`, indexes and key index, all named `*.cleaned` until it takes the place of those that
//! it was made from (`swap`).

use std::io::IoSlice;
use std::sync::Arc;

use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};

use super::super::LogError;
use super::super::config::LogConfig;
use super::super::partition_log::Log;
use super::super::segment::{BatchAt, FileAge, Segment};
use super::super::transactions::AbortedTransaction;
use super::super::trust::Indexer;
use super::key_index::{Facts, KeyIndexWriter};
use super::key_map::{KeySeed, KeyedOffset};

/// Ends the names of files that are being written.
pub(super) const CLEANED: &str = ".cleaned";
/// Written at a time, bytes.
const CHUNK_BYTES: usize = 1 << 20;

pub(super) struct CleanedSegment {
    pub(super) segment: Arc<Segment>,
    config: Arc<LogConfig>,
    indexer: Indexer,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    written: u64,
    keys: KeyIndexWriter,
    pub(super) facts: Facts,
}

impl CleanedSegment {
    /// Begins one that takes the place of segments from `first` on. It has each file that the first one has: after a kill one of
    /// the old one's would be taken for its own.
    pub(super) fn create(log: &Log, first: &Segment, seed: &KeySeed) -> Result<Self, LogError> {
        let config = log.config();
        let segment = Segment::new(
            log.disk.clone(),
            &log.dir(),
            first.base_offset,
            0,
            FileAge::new(first.modified_ms.load(std::sync::atomic::Ordering::Relaxed)),
            config.index_bytes_max,
        );
        segment.use_suffix(CLEANED);
        segment.create()?;
        if !first.aborted.is_empty() {
            segment.aborted.make()?;
        }
        let keys =
            KeyIndexWriter::create(&*log.disk, &segment.keys_path(), first.base_offset, seed)?;
        Ok(Self {
            segment: Arc::new(segment),
            config,
            indexer: Indexer::default(),
            buffer: Vec::with_capacity(CHUNK_BYTES),
            written: 0,
            keys,
            facts: Facts::default(),
        })
    }

    /// Adds a batch that `write` puts at the end of what it is given, if it puts one there. Returns its header.
    pub(super) fn add(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), LogError>,
    ) -> Result<Option<BatchHeader>, LogError> {
        let at = self.buffer.len();
        write(&mut self.buffer)?;
        if self.buffer.len() < at + BATCH_HEADER_BYTES {
            self.buffer.truncate(at);
            return Ok(None);
        }
        let header = BatchHeader::parse(&self.buffer[at..]).map_err(std::io::Error::other)?;
        let position = self.written + at as u64;
        self.facts.add_batch(&header);
        let batch = BatchAt { header, position };
        self.indexer.add(&self.segment, &batch, &self.config)?;
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(Some(header))
    }

    /// Notes a record of the last batch.
    pub(super) fn add_key(
        &mut self,
        key: &KeyedOffset,
        header: &BatchHeader,
    ) -> Result<(), LogError> {
        if key.is_tombstone {
            self.facts.add_tombstone(header);
        }
        Ok(self.keys.add(key)?)
    }

    pub(super) fn add_aborted(&self, aborted: &AbortedTransaction) -> Result<(), LogError> {
        Ok(self.segment.aborted.append(aborted)?)
    }

    /// How many bytes were written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let bytes = self.buffer.len() as u64;
        self.segment
            .append(&mut [IoSlice::new(&self.buffer)], bytes)?;
        self.written += bytes;
        self.buffer.clear();
        Ok(())
    }

    /// Makes all of it durable but the names.
    pub(super) fn finish(mut self) -> Result<Arc<Segment>, LogError> {
        self.flush()?;
        self.segment.seal()?;
        self.segment.file()?.sync_data()?;
        self.segment.sync_indexes()?;
        self.keys.finish(self.written, &self.facts)?;
        Ok(self.segment)
    }
}
