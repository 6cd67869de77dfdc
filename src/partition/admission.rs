//! What a leader checks of produced record data before it is queued (Kafka's LogValidator), on the network
//! thread and in parallel.
//!
//! As in Kafka, every record is walked, in compressed batches too: as many as the header says, offsets in order from 0,
//! timestamps in range, keys where the topic is compacted. A compressed batch is unpacked for that through a small
//! buffer and stored as it came. What does not unpack is INVALID_RECORD, where Kafka's answer is UNKNOWN_SERVER_ERROR;
//! offsets out of order are too, where Kafka corrects those of batches that are not compressed.

use bytes::{Bytes, BytesMut};
use metaq_protocol::batch::{
    self, BATCH_HEADER_BYTES, BatchError, BatchHeader, Batches, Compression,
};
use metaq_protocol::compression::{self, CompressionError};
use metaq_protocol::record_stream::RecordStream;
use metaq_protocol::records::Records;

use super::inline_write;
use super::invalid_batch::InvalidBatch;
use super::record_check::{self, RecordFacts};
use crate::log::{LogConfig, ProducedBatch};

/// A batch is unpacked to at most this many bytes while it is checked or recompressed.
const UNPACKED_BYTES_MAX: usize = 256 << 20;
/// A packed batch up to this size is unpacked at once, on the thread that serves its connection, where that takes no more
/// memory than [`INLINE_UNPACKING_BYTES_MAX`]; others where the thread's other connections do not wait for it, and once
/// there is memory for it.
const UNPACKED_INLINE_BYTES_MAX: usize = 16 << 10;
/// Enough for the window that zstd's usual levels ask for. Only as many threads as serve connections take it at a time.
const INLINE_UNPACKING_BYTES_MAX: usize = 4 << 20;

/// A batch that is to be packed anew is taken to unpack to at most so many times its size, and this much more, until it
/// turns out to be larger.
const RECOMPRESSED_RATIO: usize = 16;
const RECOMPRESSED_BYTES_MIN: usize = 64 << 10;

/// A batch whose unpacker asks for more memory than this may unpack to [`LARGE_UNPACKED_BYTES_MAX`] only, and takes no more
/// than that: a window is filled by what comes out. Compression level 22 asks for 128 MiB whatever it packs.
const LARGE_UNPACKING_BYTES: usize = 32 << 20;
/// Of such a batch.
const LARGE_UNPACKED_BYTES_MAX: usize = 64 << 20;
/// The byte of a batch's header that names its codec: the lower one of the attributes.
const BATCH_CODEC_AT: usize = 22;

/// What unpacking record data takes: memory beside the data, and how far it may go with that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacking {
    /// Memory that is to be had first, bytes; 0 where it is unpacked inline, or not at all.
    pub bytes: usize,
    unpacked_bytes_max: usize,
    /// How far another try may go.
    then_bytes_max: usize,
}

impl Unpacking {
    /// Of produced record data, for a topic's settings.
    pub fn of(records: &[u8], config: &LogConfig) -> Self {
        let attributes = records.get(BATCH_CODEC_AT).copied();
        let codec = attributes.and_then(|bits| Compression::of_attributes(bits.into()).ok());
        let packed = records.get(BATCH_HEADER_BYTES..);
        let packed = packed.filter(|_| records.len() <= config.max_message_bytes);
        let (Some(codec), Some(packed)) = (codec, packed) else {
            // It will be refused.
            return Self::new(0, 0, 0, 0);
        };
        let working = compression::working_bytes(codec, packed);
        let (working, bytes_max) = match working > LARGE_UNPACKING_BYTES {
            true => {
                let bytes_max = LARGE_UNPACKED_BYTES_MAX;
                (working.min(bytes_max), bytes_max)
            }
            false => (working, UNPACKED_BYTES_MAX),
        };
        if config.recompress.is_none_or(|target| target == codec) {
            return Self::new(packed.len(), working, bytes_max, bytes_max);
        }
        let expected = match codec {
            Compression::None => packed.len(),
            _ => packed.len().saturating_mul(RECOMPRESSED_RATIO),
        };
        let expected = expected.max(RECOMPRESSED_BYTES_MIN).min(bytes_max);
        // As it is unpacked, and as it is packed again.
        Self::new(packed.len(), working + 2 * expected, expected, bytes_max)
    }

    fn new(
        packed_bytes: usize,
        bytes: usize,
        unpacked_bytes_max: usize,
        then_bytes_max: usize,
    ) -> Self {
        let is_inline =
            packed_bytes <= UNPACKED_INLINE_BYTES_MAX && bytes <= INLINE_UNPACKING_BYTES_MAX;
        Self {
            bytes: if is_inline { 0 } else { bytes },
            unpacked_bytes_max,
            then_bytes_max,
        }
    }

    /// Unpacking much is done where neither the thread's other connections nor what is queued wait for it; the order of
    /// requests stays.
    fn run<T>(self, unpack: impl FnOnce() -> T) -> T {
        match self.bytes > 0 {
            true => {
                inline_write::wake_now();
                tokio::task::block_in_place(unpack)
            }
            false => unpack(),
        }
    }

    /// For a batch that unpacks to more than was expected: as much as any may. `None` for any other error, and where it was
    /// allowed that much.
    pub fn after(self, error: &InvalidBatch) -> Option<Self> {
        let is_larger = matches!(
            error,
            InvalidBatch::Compression(CompressionError::TooLarge(_))
        );
        let most = self.then_bytes_max;
        let more = is_larger && self.unpacked_bytes_max < most;
        more.then_some(Self {
            bytes: 2 * most,
            unpacked_bytes_max: most,
            then_bytes_max: most,
        })
    }
}

/// Checks produced bytes against a topic's settings, and puts them under the topic's own codec. The memory for unpacking
/// them is the caller's to have.
pub fn admit(
    bytes: &Bytes,
    config: &LogConfig,
    now_ms: i64,
    unpacking: Unpacking,
) -> Result<Vec<ProducedBatch>, InvalidBatch> {
    let batch = one_batch(bytes)?;
    admit_one(batch, config, now_ms, unpacking).map(|batch| vec![batch])
}

/// The batch that produced bytes are.
pub fn one_batch(bytes: &Bytes) -> Result<Bytes, InvalidBatch> {
    let mut first = None;
    let (mut count, mut at) = (0, 0);
    for found in Batches::new(bytes) {
        let (_, slice) = match found {
            // As for Kafka: what is not whole is no batch.
            Err(BatchError::Truncated { .. }) if count == 0 => break,
            found => found?,
        };
        let batch = at..at + slice.len();
        (count, at) = (count + 1, batch.end);
        first.get_or_insert(batch);
    }
    match first {
        Some(first) if count == 1 => Ok(bytes.slice(first)),
        _ => Err(InvalidBatch::NotOneBatch(count)),
    }
}

fn admit_one(
    bytes: Bytes,
    config: &LogConfig,
    now_ms: i64,
    unpacking: Unpacking,
) -> Result<ProducedBatch, InvalidBatch> {
    let mut header = batch::validate_produced(&bytes)?;
    let too_large = |bytes: usize| InvalidBatch::TooLarge {
        bytes,
        bytes_max: config.max_message_bytes,
    };
    if bytes.len() > config.max_message_bytes {
        return Err(too_large(bytes.len()));
    }
    if header.producer_id >= 0 && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(InvalidBatch::Record(
            "an idempotent producer's batch needs an epoch and a sequence",
        ));
    }
    if header.base_offset != 0 {
        return Err(InvalidBatch::Record(
            "a producer's batch begins at offset 0",
        ));
    }
    let codec = header.compression()?;
    let packed = &bytes[BATCH_HEADER_BYTES..];
    let recompress = config.recompress.filter(|target| *target != codec);
    if let Some(target) = recompress {
        let (rebuilt, newest) = unpacking.run(|| {
            let unpacked = compression::decompress(codec, packed, unpacking.unpacked_bytes_max)?;
            let newest = check_records(&header, &unpacked, config, now_ms)?;
            Ok::<_, InvalidBatch>((rebuild(&header, target, &unpacked)?, newest))
        })?;
        if rebuilt.len() > config.max_message_bytes {
            return Err(too_large(rebuilt.len()));
        }
        header = BatchHeader::parse(&rebuilt)?;
        return Ok(with_max_timestamp(header, rebuilt, newest));
    }
    let newest = match codec {
        Compression::None => check_records(&header, packed, config, now_ms)?,
        _ => unpacking.run(|| check_packed(&header, packed, config, now_ms, unpacking))?,
    };
    Ok(with_max_timestamp(header, bytes, newest))
}

/// The batch under the largest timestamp that its records have, as Kafka stores it: the time index relies on it.
fn with_max_timestamp(mut header: BatchHeader, bytes: Bytes, newest: i64) -> ProducedBatch {
    if header.max_timestamp == newest {
        return ProducedBatch { header, bytes };
    }
    header.max_timestamp = newest;
    let bytes = seal(&mut header, &bytes[BATCH_HEADER_BYTES..]);
    ProducedBatch { header, bytes }
}

/// Walks the records of a batch that is not packed, or not any more; returns their largest timestamp.
fn check_records(
    header: &BatchHeader,
    unpacked: &[u8],
    config: &LogConfig,
    now_ms: i64,
) -> Result<i64, InvalidBatch> {
    record_check::check(header, config, now_ms, || {
        Ok(Records::new(header, unpacked).map(|record| {
            let malformed = |_| InvalidBatch::Record("a record in the batch is malformed");
            let record = record.map_err(malformed)?;
            Ok(RecordFacts {
                offset: record.offset,
                timestamp: record.timestamp,
                has_key: record.key.is_some(),
            })
        }))
    })
}

/// As [`check_records`], without keeping what is unpacked.
fn check_packed(
    header: &BatchHeader,
    packed: &[u8],
    config: &LogConfig,
    now_ms: i64,
    unpacking: Unpacking,
) -> Result<i64, InvalidBatch> {
    record_check::check(header, config, now_ms, || {
        let records = RecordStream::new(header, packed, unpacking.unpacked_bytes_max)?;
        Ok(records.map(|record| {
            let record = record?;
            Ok(RecordFacts {
                offset: record.offset_delta,
                timestamp: record.timestamp,
                has_key: record.has_key,
            })
        }))
    })
}

/// The same records under another codec.
fn rebuild(
    header: &BatchHeader,
    target: Compression,
    unpacked: &[u8],
) -> Result<Bytes, InvalidBatch> {
    let packed = compression::compress(target, unpacked)?;
    let mut header = *header;
    header.attributes = (header.attributes & !0x07) | target.attribute();
    header.batch_length = i32::try_from(packed.len() + BATCH_HEADER_BYTES - 12)
        .map_err(|_| InvalidBatch::Record("the recompressed batch is too large"))?;
    Ok(seal(&mut header, &packed))
}

/// A batch of this header, whose CRC is set, and these records.
fn seal(header: &mut BatchHeader, records: &[u8]) -> Bytes {
    let mut head = [0; BATCH_HEADER_BYTES];
    header.write(&mut head);
    header.crc = crc32c::crc32c_append(crc32c::crc32c(&head[21..]), records);
    head[17..21].copy_from_slice(&header.crc.to_be_bytes());
    let mut sealed = BytesMut::with_capacity(BATCH_HEADER_BYTES + records.len());
    sealed.extend_from_slice(&head);
    sealed.extend_from_slice(records);
    sealed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaq_protocol::batch::BatchBuilder;

    const NOW: i64 = 1_700_000_000_000;

    fn admit_now(bytes: &Bytes, config: &LogConfig) -> Result<Vec<ProducedBatch>, InvalidBatch> {
        admit(bytes, config, NOW, Unpacking::of(bytes, config))
    }

    fn batch(key: Option<&[u8]>) -> Bytes {
        BatchBuilder::new()
            .push(key, Some(b"value"), &[], NOW)
            .push(Some(b"k"), None, &[], NOW)
            .finish()
            .unwrap()
    }

    #[test]
    fn a_keyless_record_is_refused_on_a_compacted_topic_only() {
        let compacted = LogConfig {
            compact: true,
            ..LogConfig::default()
        };
        assert!(admit_now(&batch(None), &LogConfig::default()).is_ok());
        assert!(matches!(
            admit_now(&batch(None), &compacted),
            Err(InvalidBatch::Refused(_))
        ));
        assert!(admit_now(&batch(Some(b"a")), &compacted).is_ok());
    }

    #[test]
    fn a_topics_own_codec_replaces_the_producers() {
        let config = LogConfig {
            recompress: Some(Compression::Zstd),
            ..LogConfig::default()
        };
        let admitted = admit_now(&batch(None), &config).unwrap();
        let produced = &admitted[0];
        assert_eq!(produced.header.compression().unwrap(), Compression::Zstd);
        assert!(batch::verify_crc(&produced.bytes));
        let unpacked = compression::decompress(
            Compression::Zstd,
            &produced.bytes[BATCH_HEADER_BYTES..],
            1 << 20,
        )
        .unwrap();
        let keys: Vec<_> = Records::new(&produced.header, &unpacked)
            .map(|record| record.unwrap().key.map(<[u8]>::to_vec))
            .collect();
        assert_eq!(keys, [None, Some(b"k".to_vec())]);
    }

    #[test]
    fn two_batches_and_none_are_refused() {
        let mut twice = batch(None).to_vec();
        twice.extend_from_slice(&batch(None));
        let refuse = |bytes: Vec<u8>| admit_now(&bytes.into(), &LogConfig::default());
        assert!(matches!(refuse(twice), Err(InvalidBatch::NotOneBatch(2))));
        assert!(matches!(
            refuse(Vec::new()),
            Err(InvalidBatch::NotOneBatch(0))
        ));
    }

    #[test]
    fn a_timestamp_far_ahead_is_refused() {
        let early = NOW - 2 * 3_600_000;
        let config = LogConfig::default();
        let unpacking = Unpacking::of(&batch(None), &config);
        let refused = admit(&batch(None), &config, early, unpacking);
        assert!(matches!(refused, Err(InvalidBatch::Refused(_))));
    }

    #[test]
    fn a_batch_above_the_limit_is_refused() {
        let config = LogConfig {
            max_message_bytes: 64,
            ..LogConfig::default()
        };
        assert!(matches!(
            admit_now(&batch(None), &config),
            Err(InvalidBatch::TooLarge { .. })
        ));
    }

    /// Both under a right CRC: a header as it is changed, over records as they are.
    fn lying(batch: &Bytes, lie: impl Fn(&mut BatchHeader), records: Option<&[u8]>) -> Bytes {
        let mut header = BatchHeader::parse(batch).unwrap();
        let records = records.unwrap_or(&batch[BATCH_HEADER_BYTES..]);
        header.batch_length = (records.len() + BATCH_HEADER_BYTES - 12) as i32;
        lie(&mut header);
        seal(&mut header, records)
    }

    fn packed(codec: Compression, timestamps: &[i64]) -> Bytes {
        let mut builder = BatchBuilder::new().compression(codec);
        for timestamp in timestamps {
            builder = builder.push(Some(b"k"), Some(&[7; 100]), &[], *timestamp);
        }
        builder.finish().unwrap()
    }

    const CODECS: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn admitted(batch: Bytes) -> Result<ProducedBatch, InvalidBatch> {
        admit_now(&batch, &LogConfig::default()).map(|mut all| all.remove(0))
    }

    #[test]
    fn what_does_not_unpack_to_the_records_that_the_header_names_is_refused() {
        for codec in CODECS {
            let good = packed(codec, &[NOW; 200]);
            assert_eq!(admitted(good.clone()).unwrap().bytes, good);
            let cut = &good[BATCH_HEADER_BYTES..good.len() - 3];
            let more = |header: &mut BatchHeader| {
                header.record_count += 1;
                header.last_offset_delta += 1;
            };
            let fewer = |header: &mut BatchHeader| {
                header.record_count -= 1;
                header.last_offset_delta -= 1;
            };
            for bad in [
                lying(&good, |_| {}, Some(b"this is no packed data at all")),
                lying(&good, |_| {}, Some(cut)),
                lying(&good, more, None),
                lying(&good, fewer, None),
                lying(&good, |header| header.base_offset = 5, None),
            ] {
                assert!(admitted(bad).is_err(), "{codec:?}");
            }
        }
    }

    #[test]
    fn records_own_timestamps_count_and_not_what_the_header_says_of_them() {
        for codec in CODECS {
            let ahead = packed(codec, &[NOW, NOW + 9 * 3_600_000, NOW]);
            let honest_looking = lying(&ahead, |header| header.max_timestamp = NOW, None);
            assert!(matches!(
                admitted(honest_looking),
                Err(InvalidBatch::Refused(_))
            ));
            let good = packed(codec, &[NOW, NOW + 5, NOW]);
            for lie in [NOW, NOW + 1000] {
                let stored = lying(&good, |header| header.max_timestamp = lie, None);
                let stored = admitted(stored).unwrap();
                assert_eq!(stored.header.max_timestamp, NOW + 5);
                assert_eq!(stored.bytes, good);
            }
        }
    }

    #[test]
    fn keyless_records_are_seen_in_packed_batches() {
        let config = LogConfig {
            compact: true,
            ..LogConfig::default()
        };
        let keyless = BatchBuilder::new()
            .compression(Compression::Lz4)
            .push(Some(b"k"), None, &[], NOW)
            .push(None, None, &[], NOW)
            .finish()
            .unwrap();
        assert!(matches!(
            admit_now(&keyless, &config),
            Err(InvalidBatch::Refused(_))
        ));
    }

    #[test]
    fn what_is_packed_anew_and_unpacks_to_more_than_expected_is_tried_again_with_all_that_is_allowed()
     {
        let config = LogConfig {
            recompress: Some(Compression::Lz4),
            ..LogConfig::default()
        };
        let batch = BatchBuilder::new()
            .compression(Compression::Zstd)
            .push(None, Some(&vec![0; 4 << 20]), &[], NOW)
            .finish()
            .unwrap();
        let expected = Unpacking::of(&batch, &config);
        let error = admit(&batch, &config, NOW, expected).unwrap_err();
        let all = expected.after(&error).unwrap();
        assert!(all.bytes > expected.bytes && all.after(&error).is_none());
        assert!(admit(&batch, &config, NOW, all).is_ok());
    }

    #[test]
    fn only_what_unpacks_with_much_memory_asks_for_it() {
        let config = LogConfig::default();
        let of = |codec, value_bytes: usize| {
            let value = vec![0; value_bytes];
            let batch = BatchBuilder::new()
                .compression(codec)
                .push(None, Some(&value), &[], NOW);
            Unpacking::of(&batch.finish().unwrap(), &config).bytes
        };
        for codec in CODECS {
            assert_eq!(of(codec, 10_000), 0, "{codec:?}");
        }
        assert_eq!(of(Compression::None, 100_000), 0);
        // Zeros: packed to almost nothing, but for snappy.
        assert!(of(Compression::Snappy, 1_000_000) > 1_000_000);
    }
}
