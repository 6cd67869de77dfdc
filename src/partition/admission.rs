//! What a leader checks of produced record data before it is queued (Kafka's LogValidator), on the network
//! thread and in parallel.

use bytes::{Bytes, BytesMut};
use metaq_protocol::batch::{
    self, BATCH_HEADER_BYTES, BatchError, BatchHeader, Batches, Compression,
};
use metaq_protocol::compression::{self, CompressionError};
use metaq_protocol::records::Records;

use crate::log::{LogConfig, ProducedBatch};

/// A batch is unpacked to at most this many bytes while it is checked or recompressed.
const UNPACKED_BYTES_MAX: usize = 256 << 20;

/// Why record data is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBatch {
    /// The bytes are no valid batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The records do not unpack.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// Not exactly one batch.
    #[error("a produce request holds exactly one batch for a partition, not {0}")]
    NotOneBatch(usize),
    /// Larger than `max.message.bytes`.
    #[error("a batch of {bytes} bytes is larger than max.message.bytes={bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The timestamp is too far from the broker's clock.
    #[error("timestamp {timestamp} is not within {earliest}..={latest}")]
    Timestamp {
        /// The batch's.
        timestamp: i64,
        /// `message.timestamp.before.max.ms` ago.
        earliest: i64,
        /// `message.timestamp.after.max.ms` ahead.
        latest: i64,
    },
    /// A keyless record for a compacted topic.
    #[error("record {0} has no key, which a compacted topic needs")]
    NoKey(usize),
    /// A transactional batch, or an idempotent one without a sequence.
    #[error("{0}")]
    Record(&'static str),
}

/// Checks produced bytes against a topic's settings, and puts them under the topic's own codec.
pub fn admit(
    bytes: &Bytes,
    config: &LogConfig,
    now_ms: i64,
) -> Result<Vec<ProducedBatch>, InvalidBatch> {
    let mut batches = Vec::with_capacity(1);
    let mut at = 0;
    for found in Batches::new(bytes) {
        let (_, slice) = found?;
        batches.push(bytes.slice(at..at + slice.len()));
        at += slice.len();
    }
    if batches.len() != 1 {
        return Err(InvalidBatch::NotOneBatch(batches.len()));
    }
    batches
        .into_iter()
        .map(|batch| admit_one(batch, config, now_ms))
        .collect()
}

fn admit_one(
    mut bytes: Bytes,
    config: &LogConfig,
    now_ms: i64,
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
    if !config.log_append_time {
        let earliest = now_ms.saturating_sub(config.timestamp_before_max_ms);
        let latest = now_ms.saturating_add(config.timestamp_after_max_ms);
        let timestamp = header.max_timestamp;
        if timestamp >= 0 && !(earliest..=latest).contains(&timestamp) {
            return Err(InvalidBatch::Timestamp {
                timestamp,
                earliest,
                latest,
            });
        }
    }
    let codec = header.compression()?;
    let recompress = config.recompress.filter(|target| *target != codec);
    if config.compact || recompress.is_some() {
        let unpacked =
            compression::decompress(codec, &bytes[BATCH_HEADER_BYTES..], UNPACKED_BYTES_MAX)?;
        check_records(&header, &unpacked, config.compact)?;
        if let Some(target) = recompress {
            bytes = rebuild(&header, target, &unpacked)?;
            header = BatchHeader::parse(&bytes)?;
            if bytes.len() > config.max_message_bytes {
                return Err(too_large(bytes.len()));
            }
        }
    } else if codec == Compression::None {
        check_records(&header, &bytes[BATCH_HEADER_BYTES..], false)?;
    }
    Ok(ProducedBatch { header, bytes })
}

/// Walks the records: as many as the header says, in offset order, with keys where needed.
fn check_records(
    header: &BatchHeader,
    unpacked: &[u8],
    keys_needed: bool,
) -> Result<(), InvalidBatch> {
    let mut expected = header.base_offset;
    for (n, record) in Records::new(header, unpacked).enumerate() {
        let record =
            record.map_err(|_| InvalidBatch::Record("a record in the batch is malformed"))?;
        if record.offset != expected {
            return Err(InvalidBatch::Record(
                "the batch's records are not in offset order",
            ));
        }
        expected += 1;
        if keys_needed && record.key.is_none() {
            return Err(InvalidBatch::NoKey(n));
        }
    }
    if expected - header.base_offset != i64::from(header.record_count) {
        return Err(InvalidBatch::Record(
            "the batch does not hold as many records as it says",
        ));
    }
    Ok(())
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
    let mut head = [0; BATCH_HEADER_BYTES];
    header.write(&mut head);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[21..]), &packed);
    head[17..21].copy_from_slice(&crc.to_be_bytes());
    let mut rebuilt = BytesMut::with_capacity(BATCH_HEADER_BYTES + packed.len());
    rebuilt.extend_from_slice(&head);
    rebuilt.extend_from_slice(&packed);
    Ok(rebuilt.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaq_protocol::batch::BatchBuilder;

    const NOW: i64 = 1_700_000_000_000;

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
        assert!(admit(&batch(None), &LogConfig::default(), NOW).is_ok());
        assert!(matches!(
            admit(&batch(None), &compacted, NOW),
            Err(InvalidBatch::NoKey(0))
        ));
        assert!(admit(&batch(Some(b"a")), &compacted, NOW).is_ok());
    }

    #[test]
    fn a_topics_own_codec_replaces_the_producers() {
        let config = LogConfig {
            recompress: Some(Compression::Zstd),
            ..LogConfig::default()
        };
        let admitted = admit(&batch(None), &config, NOW).unwrap();
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
        let refuse = |bytes: Vec<u8>| admit(&bytes.into(), &LogConfig::default(), NOW);
        assert!(matches!(refuse(twice), Err(InvalidBatch::NotOneBatch(2))));
        assert!(matches!(
            refuse(Vec::new()),
            Err(InvalidBatch::NotOneBatch(0))
        ));
    }

    #[test]
    fn a_timestamp_far_ahead_is_refused() {
        let early = NOW - 2 * 3_600_000;
        let refused = admit(&batch(None), &LogConfig::default(), early);
        assert!(matches!(refused, Err(InvalidBatch::Timestamp { .. })));
    }

    #[test]
    fn a_batch_above_the_limit_is_refused() {
        let config = LogConfig {
            max_message_bytes: 64,
            ..LogConfig::default()
        };
        assert!(matches!(
            admit(&batch(None), &config, NOW),
            Err(InvalidBatch::TooLarge { .. })
        ));
    }
}
