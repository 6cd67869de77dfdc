//! Dead letters as records of their topic.
//!
//! Tests: tests/shares_dead_letters.rs.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchBuilder};
use metaq_protocol::compression;
use metaq_protocol::records::{Record, Records};

use crate::log::{LogError, PassedBatch};
use crate::partition::Partition;

/// Of a larger batch, packed or unpacked, the records are dead letters without content.
const BATCH_BYTES_MAX: usize = 16 << 20;
pub(super) const UNPACKED_BYTES_MAX: usize = 16 << 20;
/// Content that is read at a time; what comes after it is read the next time.
const CONTENT_BYTES_MAX: usize = 4 << 20;
/// What a record has besides its fields, bytes, and a batch besides its records.
const RECORD_OVERHEAD_BYTES: usize = 100;

/// Name of the offset's header; the others are the same for all records of a range.
const OFFSET_HEADER: &str = "__dlq.errors.offset";

/// What is copied of a record.
pub(super) struct Content {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A record of the dead-letter topic.
pub(super) struct Letter {
    /// In the topic that it comes from.
    pub(super) offset: i64,
    /// Where from and why.
    pub(super) headers: Arc<Vec<(&'static str, String)>>,
    /// What it was, where that is copied.
    pub(super) record: Option<Content>,
}

impl Content {
    fn of(record: &Record<'_>) -> Self {
        let headers = record.headers();
        Self {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers
                .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }

    fn bytes(&self) -> usize {
        let length = |field: &Option<Vec<u8>>| field.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + length(value) + 10);
        length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }
}

impl Letter {
    fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + value.len() + 10);
        let content = self.record.as_ref().map_or(0, Content::bytes);
        headers.sum::<usize>() + content + RECORD_OVERHEAD_BYTES
    }
}

/// What was read of some records.
pub(super) struct ReadRecords {
    /// By offset; what is not there has no content.
    pub(super) found: HashMap<i64, Content>,
    /// What comes after it was not looked at.
    pub(super) last: i64,
}

/// Reads the records between these offsets, as much as may be read at a time. May wait for the disk.
pub(super) fn read_records(
    partition: &Partition,
    first: i64,
    last: i64,
) -> Result<ReadRecords, LogError> {
    let mut read = Reading {
        bytes: 0,
        records: ReadRecords {
            found: HashMap::new(),
            last,
        },
        first,
    };
    let pass = |batch: PassedBatch| read.pass(&batch);
    partition
        .log()
        .pass_batches(first, last + 1, BATCH_BYTES_MAX, pass)?;
    Ok(read.records)
}

struct Reading {
    first: i64,
    bytes: usize,
    records: ReadRecords,
}

impl Reading {
    fn pass(&mut self, batch: &PassedBatch) -> ControlFlow<()> {
        let (header, bytes) = (&batch.header, batch.bytes.as_deref());
        let packed = bytes.and_then(|bytes| bytes.get(BATCH_HEADER_BYTES..));
        let unpacked = packed.and_then(|packed| {
            let codec = header.compression().ok()?;
            compression::decompress(codec, packed, UNPACKED_BYTES_MAX).ok()
        });
        let Some(unpacked) = unpacked else {
            return ControlFlow::Continue(());
        };
        for record in Records::new(header, &unpacked).map_while(Result::ok) {
            if !(self.first..=self.records.last).contains(&record.offset) {
                continue;
            }
            if self.bytes >= CONTENT_BYTES_MAX {
                self.records.last = record.offset - 1;
                return ControlFlow::Break(());
            }
            let content = Content::of(&record);
            self.bytes += content.bytes();
            self.records.found.insert(record.offset, content);
        }
        ControlFlow::Continue(())
    }
}

/// A batch of the first letters, as many as fit, at least one; and how many they are.
pub(super) fn batch_of(
    letters: &[Letter],
    now_ms: i64,
    bytes_max: usize,
) -> (Option<Bytes>, usize) {
    let (mut batch, mut bytes, mut count) = (BatchBuilder::new(), RECORD_OVERHEAD_BYTES, 0);
    for letter in letters {
        bytes += letter.bytes();
        if count > 0 && bytes > bytes_max {
            break;
        }
        let offset = letter.offset.to_string();
        let own = letter.headers.iter();
        let own = own.map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
        let mut headers: Vec<(&[u8], Option<&[u8]>)> = own.collect();
        headers.push((OFFSET_HEADER.as_bytes(), Some(offset.as_bytes())));
        let record = letter.record.as_ref();
        let copied = record.iter().flat_map(|record| &record.headers);
        headers.extend(copied.map(|(name, value)| (name.as_slice(), value.as_deref())));
        batch = batch.push(
            record.and_then(|record| record.key.as_deref()),
            record.and_then(|record| record.value.as_deref()),
            &headers,
            now_ms,
        );
        count += 1;
    }
    (batch.finish().ok(), count)
}
