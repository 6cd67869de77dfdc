//! Control batches that end a transaction on a partition (KIP-98; Kafka's EndTransactionMarker and ControlRecordType).
//!
//! Such a batch is transactional, has the producer's id and epoch, no sequence, and one record:
//!
//! | part  | bytes | field             | meaning                             |
//! |-------|-------|-------------------|-------------------------------------|
//! | key   | 0..2  | version           | 0                                   |
//! | key   | 2..4  | type              | 0 abort, 1 commit                   |
//! | value | 0..2  | version           | 0                                   |
//! | value | 2..6  | coordinator_epoch | of the coordinator that decided     |

use bytes::Bytes;

use super::{BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, Compression};
use crate::records::Records;

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;
/// A marker has no sequence.
const NO_SEQUENCE: i32 = -1;

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its records are not to be read.
    Abort,
    /// Its records are to be read.
    Commit,
}

/// What a marker's record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndMarker {
    /// How the transaction ends.
    pub outcome: Outcome,
    /// Epoch of the coordinator that decided.
    pub coordinator_epoch: i32,
}

impl EndMarker {
    /// The control batch of a producer, with base offset 0.
    pub fn batch(self, producer_id: i64, producer_epoch: i16, timestamp: i64) -> Bytes {
        let kind = match self.outcome {
            Outcome::Abort => ABORT,
            Outcome::Commit => COMMIT,
        };
        let [v0, v1] = VERSION.to_be_bytes();
        let [k0, k1] = kind.to_be_bytes();
        let [e0, e1, e2, e3] = self.coordinator_epoch.to_be_bytes();
        BatchBuilder::new()
            .producer(producer_id, producer_epoch, NO_SEQUENCE)
            .transactional()
            .control()
            .push(
                Some(&[v0, v1, k0, k1]),
                Some(&[v0, v1, e0, e1, e2, e3]),
                &[],
                timestamp,
            )
            .finish_plain()
    }

    /// What a whole control batch says; `None` where it is no marker of a transaction, or its record was compacted away.
    /// Later versions of key and value are read as this one, as by Kafka.
    pub fn of_batch(batch: &[u8]) -> Option<Self> {
        let header = BatchHeader::parse(batch).ok()?;
        if !header.is_control() || header.compression() != Ok(Compression::None) {
            return None;
        }
        let records = batch.get(BATCH_HEADER_BYTES..header.total_bytes())?;
        let record = Records::new(&header, records).next()?.ok()?;
        let (version, kind) = record.key?.split_first_chunk::<2>()?;
        let (value_version, epoch) = record.value?.split_first_chunk::<2>()?;
        if i16::from_be_bytes(*version) < VERSION || i16::from_be_bytes(*value_version) < VERSION {
            return None;
        }
        let outcome = match i16::from_be_bytes(*kind.first_chunk()?) {
            ABORT => Outcome::Abort,
            COMMIT => Outcome::Commit,
            _ => return None,
        };
        Some(Self {
            outcome,
            coordinator_epoch: i32::from_be_bytes(*epoch.first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{validate_produced, verify_crc};
    use super::*;
    use crate::batch::BatchError;

    /// As MemoryRecords.withEndTransactionMarker of Kafka 4.4 writes it.
    const COMMIT_BY_KAFKA: [u8; 78] = [
        0, 0, 0, 0, 0, 0, 0, 0, // base offset
        0, 0, 0, 66, // length
        0xff, 0xff, 0xff, 0xff, // leader epoch
        2,    // magic
        0, 0, 0, 0, // CRC, set below
        0, 0x30, // transactional, control
        0, 0, 0, 0, // last offset delta
        0, 0, 0, 0, 0, 0, 0, 5, // base timestamp
        0, 0, 0, 0, 0, 0, 0, 5, // max timestamp
        0, 0, 0, 0, 0, 0, 0x10, 0x01, // producer id
        0, 7, // producer epoch
        0xff, 0xff, 0xff, 0xff, // base sequence
        0, 0, 0, 1, // count
        32, 0, 0, 0, // record: length, attributes, deltas
        8, 0, 0, 0, 1, // key
        12, 0, 0, 0, 0, 0, 9, // value
        0, // headers
    ];

    #[test]
    fn markers_are_byte_for_byte_kafkas() {
        for (outcome, kind) in [(Outcome::Commit, 1), (Outcome::Abort, 0)] {
            let mut expected = COMMIT_BY_KAFKA;
            expected[69] = kind;
            let crc = crc32c::crc32c(&expected[21..]);
            expected[17..21].copy_from_slice(&crc.to_be_bytes());
            let marker = EndMarker {
                outcome,
                coordinator_epoch: 9,
            };
            let batch = marker.batch(0x1001, 7, 5);
            assert_eq!(batch[..], expected);
            assert!(verify_crc(&batch));
            assert_eq!(EndMarker::of_batch(&batch), Some(marker));
            // No client may send one.
            assert_eq!(validate_produced(&batch), Err(BatchError::Control));
        }
    }

    #[test]
    fn what_is_no_marker_says_nothing() {
        let control = |key: &[u8], value: &[u8]| {
            let builder = BatchBuilder::new().transactional().control();
            builder.push(Some(key), Some(value), &[], 1).finish_plain()
        };
        let value = [0, 0, 0, 0, 0, 3];
        // The types of Kafka's own metadata log, and what is cut short.
        for key in [&[0, 0, 0, 2][..], &[0, 0, 0], &[], &[0xff, 0xff, 0, 1]] {
            assert_eq!(EndMarker::of_batch(&control(key, &value)), None);
        }
        assert_eq!(
            EndMarker::of_batch(&control(&[0, 0, 0, 1], &value[..5])),
            None
        );
        // Emptied by compaction.
        let empty = BatchBuilder::new().transactional().control().finish_plain();
        assert_eq!(EndMarker::of_batch(&empty), None);
        let data = BatchBuilder::new().push(Some(&[0, 0, 0, 1]), Some(&value), &[], 1);
        assert_eq!(EndMarker::of_batch(&data.finish_plain()), None);
        // Versions to come are read as this one.
        let later = EndMarker::of_batch(&control(&[0, 1, 0, 1], &[0, 1, 0, 0, 0, 3, 0]));
        assert_eq!(later.map(|marker| marker.coordinator_epoch), Some(3));
    }
}
