//! What a partition remembers of its producers, so that a retried batch is stored once (KIP-98; Kafka's
//! ProducerStateManager and ProducerAppendInfo).
//!
//! Per producer id: the epoch and the last five batches' sequence numbers. Kept in memory by the owner of the
//! log's tail; saved to `%020d.snapshot` on roll and on clean close, rebuilt from the log after the snapshot.

use std::collections::{HashMap, VecDeque};

use metaq_protocol::batch::{BatchHeader, next_sequence};

/// Batches remembered per producer; clients keep at most this many in flight.
pub const BATCHES_MAX: usize = 5;
/// `producer.id.expiration.ms` of Kafka.
pub const EXPIRATION_MS_DEFAULT: i64 = 86_400_000;
pub(super) const NO_SEQUENCE: i32 = -1;

/// Why a batch of an idempotent producer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// A newer instance of the producer has written already.
    #[error("producer epoch {got} is older than {current}")]
    FencedEpoch {
        /// Epoch of the batch.
        got: i16,
        /// Epoch known.
        current: i16,
    },
    /// A batch before this one is missing.
    #[error("out of order: sequence {got} after {last}")]
    OutOfOrder {
        /// First sequence of the batch.
        got: i32,
        /// Last sequence stored, -1 for none.
        last: i32,
    },
}

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBatch {
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Records minus one.
    pub offset_delta: i32,
    /// Its largest timestamp.
    pub timestamp: i64,
}

impl StoredBatch {
    /// Sequence of its first record.
    pub fn first_sequence(&self) -> i32 {
        // Sequences wrap from i32::MAX to 0.
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        if first < 0 {
            (first + (1 << 31)) as i32
        } else {
            first as i32
        }
    }

    /// Offset of its first record.
    pub fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Its epoch.
    pub epoch: i16,
    /// The latest batches, oldest first, at most [`BATCHES_MAX`].
    pub batches: VecDeque<StoredBatch>,
    /// Epoch of the transaction coordinator, -1 without transactions.
    pub coordinator_epoch: i32,
    /// Largest timestamp of its last batch, ms.
    pub last_timestamp: i64,
    /// Start of its open transaction, -1 for none.
    pub transaction_first_offset: i64,
}

impl Producer {
    /// Sequence of the last record, -1 when unknown.
    pub fn last_sequence(&self) -> i32 {
        self.batches
            .back()
            .map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }
}

/// What is to become of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// New: store it.
    Append,
    /// Stored before: answer with that place.
    Duplicate(StoredBatch),
}

/// The producers of one partition.
#[derive(Debug, Clone, Default)]
pub struct Producers {
    by_id: HashMap<i64, Producer>,
}

impl Producers {
    /// Decides on a batch that a client sent.
    pub fn admit(&self, batch: &BatchHeader) -> Result<Admission, SequenceError> {
        if batch.producer_id < 0 {
            return Ok(Admission::Append);
        }
        let Some(known) = self.by_id.get(&batch.producer_id) else {
            // Unknown, perhaps because its records have expired: any sequence is accepted, as in Kafka.
            return Ok(Admission::Append);
        };
        if batch.producer_epoch < known.epoch {
            return Err(SequenceError::FencedEpoch {
                got: batch.producer_epoch,
                current: known.epoch,
            });
        }
        if batch.producer_epoch > known.epoch {
            return match batch.base_sequence {
                0 => Ok(Admission::Append),
                got => Err(SequenceError::OutOfOrder {
                    got,
                    last: known.last_sequence(),
                }),
            };
        }
        let same = |stored: &&StoredBatch| {
            stored.first_sequence() == batch.base_sequence
                && stored.last_sequence == batch.last_sequence()
        };
        if let Some(stored) = known.batches.iter().find(same) {
            return Ok(Admission::Duplicate(*stored));
        }
        let last = known.last_sequence();
        if batch.base_sequence == next_sequence(last, 1) {
            Ok(Admission::Append)
        } else {
            Err(SequenceError::OutOfOrder {
                got: batch.base_sequence,
                last,
            })
        }
    }

    /// Remembers a batch that was stored, or is found in the log while rebuilding.
    pub fn stored(&mut self, batch: &BatchHeader) {
        if batch.producer_id < 0 {
            return;
        }
        let producer = self
            .by_id
            .entry(batch.producer_id)
            .or_insert_with(|| Producer {
                epoch: batch.producer_epoch,
                batches: VecDeque::with_capacity(BATCHES_MAX),
                coordinator_epoch: -1,
                last_timestamp: batch.max_timestamp,
                transaction_first_offset: -1,
            });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        producer.last_timestamp = batch.max_timestamp;
        if batch.is_control() {
            producer.transaction_first_offset = -1;
            return;
        }
        if batch.is_transactional() && producer.transaction_first_offset < 0 {
            producer.transaction_first_offset = batch.base_offset;
        }
        if producer.batches.len() == BATCHES_MAX {
            producer.batches.pop_front();
        }
        producer.batches.push_back(StoredBatch {
            last_sequence: batch.last_sequence(),
            last_offset: batch.last_offset(),
            offset_delta: batch.last_offset_delta,
            timestamp: batch.max_timestamp,
        });
    }

    /// Puts back a producer from a snapshot, after what an earlier entry said of it.
    pub fn restore(&mut self, producer_id: i64, mut producer: Producer) {
        if let Some(earlier) = self.by_id.remove(&producer_id)
            && earlier.epoch == producer.epoch
        {
            let room = BATCHES_MAX.saturating_sub(producer.batches.len());
            for batch in earlier.batches.into_iter().rev().take(room) {
                producer.batches.push_front(batch);
            }
        }
        self.by_id.insert(producer_id, producer);
    }

    /// Forgets producers that were silent for `expiration_ms` and have no open transaction.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.by_id.retain(|_, producer| {
            producer.transaction_first_offset >= 0
                || now_ms - producer.last_timestamp < expiration_ms
        });
    }

    /// Producer ids and their states.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.by_id.iter().map(|(id, producer)| (*id, producer))
    }

    /// How many producers are remembered.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaq_protocol::batch::BatchBuilder;

    fn batch(epoch: i16, base_sequence: i32, records: usize, base_offset: i64) -> BatchHeader {
        let mut builder = BatchBuilder::new().producer(9, epoch, base_sequence);
        for _ in 0..records {
            builder = builder.push(None, Some(b"v"), &[], 1000);
        }
        let mut header = BatchHeader::parse(&builder.finish().unwrap()).unwrap();
        header.base_offset = base_offset;
        header
    }

    #[test]
    fn a_retried_batch_is_recognised_among_the_last_five() {
        let mut producers = Producers::default();
        for n in 0..7 {
            let next = batch(0, n * 10, 10, i64::from(n) * 10);
            assert_eq!(producers.admit(&next), Ok(Admission::Append));
            producers.stored(&next);
        }
        match producers.admit(&batch(0, 30, 10, 0)) {
            Ok(Admission::Duplicate(stored)) => assert_eq!(stored.first_offset(), 30),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            producers.admit(&batch(0, 10, 10, 0)),
            Err(SequenceError::OutOfOrder { got: 10, last: 69 })
        );
    }

    #[test]
    fn a_gap_is_out_of_order_and_an_old_epoch_is_fenced() {
        let mut producers = Producers::default();
        producers.stored(&batch(3, 0, 1, 0));
        assert_eq!(
            producers.admit(&batch(3, 2, 1, 0)),
            Err(SequenceError::OutOfOrder { got: 2, last: 0 })
        );
        assert_eq!(
            producers.admit(&batch(2, 1, 1, 0)),
            Err(SequenceError::FencedEpoch { got: 2, current: 3 })
        );
        assert_eq!(
            producers.admit(&batch(4, 1, 1, 0)),
            Err(SequenceError::OutOfOrder { got: 1, last: 0 })
        );
        assert_eq!(producers.admit(&batch(4, 0, 1, 0)), Ok(Admission::Append));
    }

    #[test]
    fn sequences_wrap_after_the_largest_one() {
        let mut producers = Producers::default();
        producers.stored(&batch(0, i32::MAX - 1, 4, 0));
        assert_eq!(producers.by_id[&9].last_sequence(), 1);
        assert_eq!(
            producers.by_id[&9].batches[0].first_sequence(),
            i32::MAX - 1
        );
        assert_eq!(producers.admit(&batch(0, 2, 1, 4)), Ok(Admission::Append));
    }

    #[test]
    fn a_silent_producer_expires() {
        let mut producers = Producers::default();
        producers.stored(&batch(0, 0, 1, 0));
        producers.expire(1000 + EXPIRATION_MS_DEFAULT - 1, EXPIRATION_MS_DEFAULT);
        assert_eq!(producers.len(), 1);
        producers.expire(1000 + EXPIRATION_MS_DEFAULT, EXPIRATION_MS_DEFAULT);
        assert!(producers.is_empty());
    }
}
