//! Going through the records of a segment for their keys.

use metaq_protocol::batch::verify_crc;
use metaq_protocol::compression::{self, CompressionError};
use metaq_protocol::records::Records;

use super::super::LogError;
use super::super::aborted_batches::Aborted;
use super::super::segment::Segment;
use super::batch_reader::{BatchReader, WholeBatch, damaged};
use super::key_index::Facts;
use super::key_map::{KeyHasher, KeyedOffset};

/// A batch that unpacks to more, bytes, is not looked into: it stays as it is.
pub(super) const UNPACKED_BYTES_MAX: usize = 256 << 20;

/// What goes through records does with them.
pub(super) trait ScanTarget {
    /// A record with a key that is not of an aborted transaction; `false` to stop.
    fn keyed(&mut self, key: &KeyedOffset) -> Result<bool, LogError>;
    /// All records of a batch were given; `false` to stop.
    fn batch_ended(&mut self) -> Result<bool, LogError> {
        Ok(true)
    }
}

/// How far a scan came.
pub(super) enum Scanned {
    /// To the segment's end.
    Whole(Facts),
    /// The target stopped it.
    Stopped,
}

/// Goes through the records of a segment from a batch's position on. `throttle` hears of the bytes that are read.
pub(super) fn scan(
    segment: &Segment,
    position: u64,
    hasher: &KeyHasher,
    aborted: &Aborted,
    target: &mut dyn ScanTarget,
    throttle: &mut dyn FnMut(u64) -> Result<(), LogError>,
) -> Result<Scanned, LogError> {
    let mut reader = BatchReader::new(segment, position)?;
    let mut facts = Facts::default();
    loop {
        let mut read = 0;
        let Some(batch) = reader.next(&mut read)? else {
            return Ok(Scanned::Whole(facts));
        };
        facts.add_batch(&batch.header);
        let is_passed = batch.header.is_control() || aborted.has(&batch.header);
        if !is_passed && !scan_batch(segment, &batch, hasher, &mut facts, target)? {
            return Ok(Scanned::Stopped);
        }
        if read > 0 {
            throttle(read)?;
        }
    }
}

fn scan_batch(
    segment: &Segment,
    batch: &WholeBatch<'_>,
    hasher: &KeyHasher,
    facts: &mut Facts,
    target: &mut dyn ScanTarget,
) -> Result<bool, LogError> {
    let Some(unpacked) = unpack(segment, batch)? else {
        facts.has_opaque = true;
        return Ok(true);
    };
    for record in Records::new(&batch.header, &unpacked) {
        let record = record.map_err(|error| damaged(segment, batch.position, error.to_string()))?;
        let Some(key) = record.key else {
            facts.has_unkeyed = true;
            continue;
        };
        facts.records += 1;
        let is_tombstone = record.value.is_none();
        if is_tombstone {
            facts.add_tombstone(&batch.header);
        }
        let key = KeyedOffset {
            hash: hasher.hash(key),
            offset: record.offset,
            is_tombstone,
        };
        if !target.keyed(&key)? {
            return Ok(false);
        }
    }
    target.batch_ended()
}

/// A batch's records; `None` where they are too many to be unpacked at once. What is damaged is an error: it must not be
/// written anew with a checksum that is right.
pub(super) fn unpack<'a>(
    segment: &Segment,
    batch: &WholeBatch<'a>,
) -> Result<Option<std::borrow::Cow<'a, [u8]>>, LogError> {
    let damaged = |what: String| damaged(segment, batch.position, what);
    if !verify_crc(batch.bytes) {
        return Err(damaged("the CRC does not match".to_owned()));
    }
    if batch.header.record_count == 0 {
        return Ok(Some(std::borrow::Cow::Borrowed(&[])));
    }
    let codec = batch.header.compression();
    let codec = codec.map_err(|error| damaged(error.to_string()))?;
    let packed = &batch.bytes[metaq_protocol::batch::BATCH_HEADER_BYTES..];
    match compression::decompress(codec, packed, UNPACKED_BYTES_MAX) {
        Ok(unpacked) => Ok(Some(unpacked)),
        Err(CompressionError::TooLarge(_)) => Ok(None),
        Err(error) => Err(damaged(error.to_string())),
    }
}
