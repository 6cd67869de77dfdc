//! Batches as compaction leaves them: with some of their records, or with none (Kafka's MemoryRecords.filterTo, KIP-534).
//!
//! Offsets, sequence numbers, epochs and the batch's flags stay. What changes:
//!
//! | field          | records left                                           | none left         |
//! |----------------|--------------------------------------------------------|-------------------|
//! | base_timestamp | as it was; the delete horizon where one is set         | −1                |
//! | max_timestamp  | of the records that are left; as it was for LogAppendTime | as it was      |
//! | attributes     | bit 6 where a delete horizon is set                    | no codec, no bit 6 |
//! | record_count   | of those that are left                                 | 0                 |

use bytes::{BufMut, BytesMut};

use super::builder::put_varint;
use super::{
    BATCH_HEADER_BYTES, BatchHeader, CODEC_MASK, CRC_START, Compression, DELETE_HORIZON,
    LENGTH_PREFIX_BYTES,
};
use crate::compression::{self, CompressionError};
use crate::records::{Record, RecordError, Records};

const NO_TIMESTAMP: i64 = -1;

/// Why a batch cannot be written anew.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// Its records cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// They cannot be packed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// The new batch is too large for its length field.
    #[error("a batch of {0} bytes")]
    TooLarge(usize),
}

/// Writes a batch anew with those of its records that `keep` names, at the end of `out`; nothing where there are none. Its
/// header is given, and its records unpacked. A delete horizon, ms, is set where one is given; one that is there stays.
/// Returns how many records it has.
pub fn write_some_records(
    header: &BatchHeader,
    unpacked: &[u8],
    delete_horizon: Option<i64>,
    mut keep: impl FnMut(&Record<'_>) -> bool,
    out: &mut Vec<u8>,
) -> Result<usize, CompactError> {
    let mut kept = BytesMut::with_capacity(unpacked.len());
    let (mut count, mut max_timestamp) = (0, NO_TIMESTAMP);
    let mut records = Records::new(header, unpacked);
    loop {
        let from = records.position();
        let Some(record) = records.next() else { break };
        let record = record?;
        if !keep(&record) {
            continue;
        }
        count += 1;
        max_timestamp = max_timestamp.max(record.timestamp);
        let encoded = &unpacked[from..records.position()];
        match delete_horizon {
            None => kept.put_slice(encoded),
            Some(horizon) => put_with_base(&mut kept, header, encoded, horizon)?,
        }
    }
    if count == 0 {
        return Ok(0);
    }
    let codec = Compression::of_attributes(header.attributes).unwrap_or(Compression::None);
    let packed = compression::compress(codec, &kept)?;
    let mut header = *header;
    header.record_count = count as i32;
    if let Some(horizon) = delete_horizon {
        header.attributes |= DELETE_HORIZON;
        header.base_timestamp = horizon;
    }
    if !header.is_log_append_time() {
        header.max_timestamp = max_timestamp;
    }
    write_batch(header, &packed, out)?;
    Ok(count)
}

/// Writes what is left of a batch without records, which says where its producer was, or where its segment ends, at the end
/// of `out` (Kafka's DefaultRecordBatch.writeEmptyHeader).
pub fn write_no_records(header: &BatchHeader, out: &mut Vec<u8>) -> Result<(), CompactError> {
    let mut header = *header;
    header.attributes &= !(CODEC_MASK | DELETE_HORIZON);
    header.base_timestamp = NO_TIMESTAMP;
    header.record_count = 0;
    write_batch(header, &[], out)
}

fn write_batch(
    mut header: BatchHeader,
    packed: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CompactError> {
    let bytes = packed.len() + BATCH_HEADER_BYTES;
    header.batch_length =
        i32::try_from(bytes - LENGTH_PREFIX_BYTES).map_err(|_| CompactError::TooLarge(bytes))?;
    let mut head = [0; BATCH_HEADER_BYTES];
    header.write(&mut head);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[CRC_START..]), packed);
    head[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(packed);
    Ok(())
}

/// A record of a batch whose base timestamp is another one from now on.
fn put_with_base(
    out: &mut BytesMut,
    header: &BatchHeader,
    encoded: &[u8],
    base_timestamp: i64,
) -> Result<(), RecordError> {
    let (attributes, delta, rest) = Records::split_timestamp(encoded)?;
    let timestamp = header.base_timestamp.wrapping_add(delta);
    let mut body = BytesMut::with_capacity(encoded.len() + 8);
    body.put_u8(attributes);
    put_varint(&mut body, timestamp.wrapping_sub(base_timestamp));
    body.put_slice(rest);
    put_varint(out, body.len() as i64);
    out.put_slice(&body);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, verify_crc};
    use super::*;

    type Field<'a> = Option<&'a [u8]>;

    fn batch(codec: Compression) -> Vec<u8> {
        let headers: &[(&[u8], Field<'_>)] = &[(b"h", Some(b"1")), (b"h", None)];
        let batch = BatchBuilder::new()
            .producer(7, 3, 40)
            .transactional()
            .compression(codec)
            .push(Some(b"a"), Some(b"1"), headers, 1000)
            .push(Some(b"b"), None, &[], 5000)
            .push(Some(b"a"), Some(b"2"), headers, 2000)
            .finish()
            .unwrap();
        let head = super::super::header_for_append(&batch, 100, 9, None);
        [&head, &batch[BATCH_HEADER_BYTES..]].concat()
    }

    fn rewritten(
        batch: &[u8],
        horizon: Option<i64>,
        keep: impl Fn(i64) -> bool,
    ) -> (usize, Vec<u8>) {
        let header = BatchHeader::parse(batch).unwrap();
        let codec = header.compression().unwrap();
        let unpacked =
            compression::decompress(codec, &batch[BATCH_HEADER_BYTES..], 1 << 20).unwrap();
        let mut out = Vec::new();
        let keep = |record: &Record<'_>| keep(record.offset);
        let kept = write_some_records(&header, &unpacked, horizon, keep, &mut out).unwrap();
        (kept, out)
    }

    /// Offset, timestamp, key, value and count of headers of a record.
    type Whole = (i64, i64, Vec<u8>, Option<Vec<u8>>, usize);

    fn records(batch: &[u8]) -> Vec<Whole> {
        let header = BatchHeader::parse(batch).unwrap();
        let codec = header.compression().unwrap();
        let stored = &batch[BATCH_HEADER_BYTES..];
        let unpacked = compression::decompress(codec, stored, 1 << 20).unwrap();
        let record = |record: Result<Record<'_>, RecordError>| {
            let record = record.unwrap();
            let key = record.key.unwrap().to_vec();
            let value = record.value.map(<[u8]>::to_vec);
            let headers = record.headers().count();
            (record.offset, record.timestamp, key, value, headers)
        };
        Records::new(&header, &unpacked).map(record).collect()
    }

    #[test]
    fn records_that_stay_keep_all_that_they_had() {
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let before = batch(Compression::from_name(codec).unwrap());
            for horizon in [None, Some(90_000_000)] {
                let (kept, after) = rewritten(&before, horizon, |offset| offset != 101);
                assert_eq!(kept, 2);
                assert!(verify_crc(&after));
                let all = records(&before);
                assert_eq!(records(&after), [all[0].clone(), all[2].clone()], "{codec}");
                let (old, new) = (
                    BatchHeader::parse(&before).unwrap(),
                    BatchHeader::parse(&after).unwrap(),
                );
                assert_eq!(after.len(), new.total_bytes());
                assert_eq!((new.base_offset, new.last_offset()), (100, 102));
                assert_eq!((new.producer_id, new.producer_epoch), (7, 3));
                assert_eq!((new.base_sequence, new.last_sequence()), (40, 42));
                assert_eq!((new.leader_epoch, new.record_count), (9, 2));
                assert_eq!((old.max_timestamp, new.max_timestamp), (5000, 2000));
                assert!(new.is_transactional());
                assert_eq!(new.has_delete_horizon(), horizon.is_some());
                assert_eq!(new.base_timestamp, horizon.unwrap_or(1000));
                // One that was written anew is written anew in the same way.
                let (kept, again) = rewritten(&after, None, |_| true);
                assert_eq!((kept, again == after), (2, true), "{codec}");
            }
        }
    }

    #[test]
    fn a_batch_without_records_says_where_its_producer_was() {
        let before = batch(Compression::Lz4);
        let old = BatchHeader::parse(&before).unwrap();
        assert_eq!(rewritten(&before, None, |_| false), (0, Vec::new()));
        let mut after = Vec::new();
        write_no_records(&old, &mut after).unwrap();
        assert!(verify_crc(&after));
        let new = BatchHeader::parse(&after).unwrap();
        assert_eq!(after.len(), BATCH_HEADER_BYTES);
        assert_eq!((new.record_count, new.base_timestamp), (0, NO_TIMESTAMP));
        assert_eq!(new.compression(), Ok(Compression::None));
        assert_eq!(new.last_sequence(), old.last_sequence());
        assert_eq!((new.base_offset, new.last_offset()), (100, 102));
        assert!(new.is_transactional() && records(&after).is_empty());
    }

    #[test]
    fn the_brokers_time_stays_that_of_all_records() {
        let plain = batch(Compression::None);
        let head = super::super::header_for_append(&plain, 100, 9, Some(77_000));
        let stamped = [&head, &plain[BATCH_HEADER_BYTES..]].concat();
        let (_, after) = rewritten(&stamped, Some(90_000_000), |offset| offset == 100);
        assert_eq!(BatchHeader::parse(&after).unwrap().max_timestamp, 77_000);
        assert_eq!(records(&after)[0].1, 77_000);
    }
}
