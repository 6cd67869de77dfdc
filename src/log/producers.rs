//! What a partition remembers of its producers, so that a retried batch is stored once (KIP-98; Kafka's
//! ProducerStateManager and ProducerAppendInfo).
//!
//! Per producer id: the epoch, the last five batches' sequence numbers and the open transaction. Kept in memory by the owner
//! of the log's tail; saved to `%020d.snapshot` on roll and on clean close, rebuilt from the log after the snapshot.

use std::collections::{HashMap, VecDeque};

use metaq_protocol::batch::{BatchHeader, EndMarker, Outcome, next_sequence};

use super::offset_position::OffsetPosition;
use super::transactions::{AbortedTransaction, TransactionVersion, Undecided};
use super::verifications::{ToVerify, Verification, Verifications};

/// Batches remembered per producer; clients keep at most this many in flight.
pub const BATCHES_MAX: usize = 5;
/// `producer.id.expiration.ms` of Kafka.
pub const EXPIRATION_MS_DEFAULT: i64 = 86_400_000;
pub(super) const NO_SEQUENCE: i32 = -1;

pub(super) const NO_EPOCH: i16 = -1;
const NO_OFFSET: i64 = -1;
/// No end of a transaction can have an epoch after this one (see [`Producers::admit_marker`]).
const LAST_EPOCH: i16 = i16::MAX;

/// Why a batch or a marker of a producer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
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
    /// A batch with a lower sequence is to come before this one.
    #[error("out of order: sequence {got}, and {lowest} is still to come")]
    BeforeLower {
        /// First sequence of the batch.
        got: i32,
        /// The lowest that the coordinator was asked about.
        lowest: i32,
    },
    /// A transactional batch that belongs to no transaction that the coordinator knows to be open.
    #[error("the batch is not part of an open transaction")]
    NotInTransaction,
    /// A batch without a transaction, of a producer that has one open.
    #[error("a batch outside of the producer's open transaction")]
    OutsideTransaction,
    /// A marker of version 2 without an epoch of its own.
    #[error("a marker's producer epoch {got} is not after {current}")]
    StaleMarker {
        /// Epoch of the marker.
        got: i16,
        /// Epoch known.
        current: i16,
    },
    /// A newer coordinator has ended a transaction of the producer already.
    #[error("coordinator epoch {got} is older than {current}")]
    FencedCoordinator {
        /// Epoch of the marker's coordinator.
        got: i32,
        /// Epoch known.
        current: i32,
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
    fn new(epoch: i16) -> Self {
        Self {
            epoch,
            batches: VecDeque::with_capacity(BATCHES_MAX),
            coordinator_epoch: -1,
            last_timestamp: -1,
            transaction_first_offset: NO_OFFSET,
        }
    }

    /// Whether it has an open transaction.
    pub fn is_in_transaction(&self) -> bool {
        self.transaction_first_offset >= 0
    }

    /// Offset of its last record; of one that wrote none lately -1.
    fn last_offset(&self) -> i64 {
        let last = self.batches.back();
        last.map_or(NO_OFFSET, |batch| batch.last_offset)
    }

    fn take_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }

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
    pub(super) undecided: Undecided,
    verifications: Verifications,
}

impl Producers {
    /// Decides on a batch that a client sent.
    pub fn admit(
        &self,
        batch: &BatchHeader,
        verification: Verification,
    ) -> Result<Admission, ProducerError> {
        if batch.producer_id < 0 {
            return Ok(Admission::Append);
        }
        let known = self.by_id.get(&batch.producer_id);
        if let Some(known) = known {
            if batch.producer_epoch < known.epoch {
                return Err(ProducerError::FencedEpoch {
                    got: batch.producer_epoch,
                    current: known.epoch,
                });
            }
            let same = |stored: &&StoredBatch| {
                stored.first_sequence() == batch.base_sequence
                    && stored.last_sequence == batch.last_sequence()
            };
            if batch.producer_epoch == known.epoch
                && let Some(stored) = known.batches.iter().find(same)
            {
                return Ok(Admission::Duplicate(*stored));
            }
        }
        if batch.is_transactional() {
            self.check_transaction(batch, known, verification)?;
        }
        if let Some(known) = known {
            check_sequence(batch, known)?;
            if known.is_in_transaction() && !batch.is_transactional() {
                return Err(ProducerError::OutsideTransaction);
            }
        }
        Ok(Admission::Append)
    }

    /// That the coordinator knows of the transaction, and that its first batch comes first (Kafka's
    /// UnifiedLog.analyzeAndValidateProducerState and ProducerAppendInfo.checkSequence).
    fn check_transaction(
        &self,
        batch: &BatchHeader,
        known: Option<&Producer>,
        verification: Verification,
    ) -> Result<(), ProducerError> {
        let goes_on =
            |known: &Producer| known.is_in_transaction() && known.epoch == batch.producer_epoch;
        if !known.is_some_and(goes_on) && !self.verifications.holds(batch.producer_id, verification)
        {
            return Err(ProducerError::NotInTransaction);
        }
        let Some(unverified) = self.verifications.get(batch.producer_id) else {
            return Ok(());
        };
        let (got, lowest) = (batch.base_sequence, unverified.lowest_sequence);
        let is_first = known.is_none_or(|known| known.batches.is_empty());
        match unverified.is_v2 && is_first && got != 0 {
            true => Err(ProducerError::OutOfOrder {
                got,
                last: NO_SEQUENCE,
            }),
            false if got > lowest => Err(ProducerError::BeforeLower { got, lowest }),
            false => Ok(()),
        }
    }

    /// Begins to verify a transactional batch; [`Verification::NotNeeded`] where its transaction goes on here already
    /// (Kafka's UnifiedLog.maybeStartTransactionVerification).
    pub fn begin_verification(
        &mut self,
        batch: &ToVerify,
        now_ms: i64,
    ) -> Result<Verification, ProducerError> {
        if let Some(known) = self.by_id.get(&batch.producer_id) {
            if batch.producer_epoch < known.epoch {
                return Err(ProducerError::FencedEpoch {
                    got: batch.producer_epoch,
                    current: known.epoch,
                });
            }
            if known.is_in_transaction() && known.epoch == batch.producer_epoch {
                return Ok(Verification::NotNeeded);
            }
        }
        let guard = self.verifications.begin(batch, now_ms);
        Ok(Verification::Guard(guard))
    }

    /// Decides on a marker that a coordinator sent (Kafka's ProducerAppendInfo.appendEndTxnMarker). One that was written
    /// already is written again, and ends nothing.
    pub fn admit_marker(
        &self,
        batch: &BatchHeader,
        marker: &EndMarker,
        version: TransactionVersion,
    ) -> Result<(), ProducerError> {
        let known = self.by_id.get(&batch.producer_id);
        let (got, current) = (
            batch.producer_epoch,
            known.map_or(NO_EPOCH, |known| known.epoch),
        );
        if got < current {
            return Err(ProducerError::FencedEpoch { got, current });
        }
        let Some(known) = known else {
            return Ok(());
        };
        if version >= TransactionVersion::V2
            && got == current
            && known.is_in_transaction()
            && got != LAST_EPOCH
        {
            return Err(ProducerError::StaleMarker { got, current });
        }
        let (got, current) = (marker.coordinator_epoch, known.coordinator_epoch);
        match got < current {
            true => Err(ProducerError::FencedCoordinator { got, current }),
            false => Ok(()),
        }
    }

    /// Remembers a batch that was stored `at` a place, or is found there while rebuilding, with what it says where it is a
    /// marker.
    /// Returns the transaction that it aborts.
    pub fn stored(
        &mut self,
        batch: &BatchHeader,
        marker: Option<EndMarker>,
        at: impl FnOnce() -> OffsetPosition,
    ) -> Option<AbortedTransaction> {
        if batch.producer_id < 0 {
            return None;
        }
        if batch.is_transactional() {
            self.verifications.stored(batch);
        }
        if batch.is_control() {
            return self.ended(batch, marker?);
        }
        let producer = self.by_id.entry(batch.producer_id);
        let producer = producer.or_insert_with(|| Producer::new(batch.producer_epoch));
        producer.take_epoch(batch.producer_epoch);
        producer.last_timestamp = batch.max_timestamp;
        if batch.is_transactional() && !producer.is_in_transaction() {
            producer.transaction_first_offset = batch.base_offset;
            self.undecided.begin(batch.producer_id, at());
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
        None
    }

    /// A marker is stored.
    fn ended(&mut self, batch: &BatchHeader, marker: EndMarker) -> Option<AbortedTransaction> {
        let producer = self.by_id.entry(batch.producer_id);
        let producer = producer.or_insert_with(|| Producer::new(batch.producer_epoch));
        producer.take_epoch(batch.producer_epoch);
        producer.last_timestamp = batch.max_timestamp;
        producer.coordinator_epoch = marker.coordinator_epoch;
        let first_offset = std::mem::replace(&mut producer.transaction_first_offset, NO_OFFSET);
        // One that has no records here changes nothing for readers.
        if first_offset < 0 {
            return None;
        }
        let (producer_id, last_offset) = (batch.producer_id, batch.base_offset);
        let last_stable_offset = self.undecided.end(producer_id, first_offset, last_offset);
        (marker.outcome == Outcome::Abort).then_some(AbortedTransaction {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset,
        })
    }

    /// Puts back a producer from a snapshot, after what an earlier entry said of it.
    pub fn restore(&mut self, producer_id: i64, mut producer: Producer) {
        if let Some(earlier) = self.by_id.remove(&producer_id) {
            if earlier.is_in_transaction() {
                self.undecided.forget(earlier.transaction_first_offset);
            }
            if earlier.epoch == producer.epoch {
                let room = BATCHES_MAX.saturating_sub(producer.batches.len());
                for batch in earlier.batches.into_iter().rev().take(room) {
                    producer.batches.push_front(batch);
                }
            }
        }
        if producer.is_in_transaction() {
            let first_offset = producer.transaction_first_offset;
            self.undecided.begun(producer_id, first_offset);
        }
        self.by_id.insert(producer_id, producer);
    }

    /// Forgets producers that were silent for `expiration_ms` and have no open transaction.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.by_id.retain(|_, producer| {
            producer.is_in_transaction() || now_ms - producer.last_timestamp < expiration_ms
        });
        self.verifications.expire(now_ms, expiration_ms);
    }

    /// Forgets those that wrote longest ago, by their places in the log, until no more than that are left; those of open
    /// transactions stay. Those that had transactions, which nobody has without a coordinator, go last.
    pub fn forget_oldest(&mut self, left: usize) {
        self.verifications.forget_oldest(left / 2);
        let left = left.saturating_sub(self.verifications.len());
        let excess = self.by_id.len().saturating_sub(left);
        let at_rest = self
            .by_id
            .iter()
            .filter(|(_, one)| !one.is_in_transaction());
        let mut at_rest: Vec<((bool, i64), i64)> = at_rest
            .map(|(id, one)| ((one.coordinator_epoch >= 0, one.last_offset()), *id))
            .collect();
        let excess = excess.min(at_rest.len());
        if excess == 0 {
            return;
        }
        at_rest.select_nth_unstable(excess - 1);
        for (_, id) in &at_rest[..excess] {
            self.by_id.remove(id);
        }
        self.by_id.shrink_to(left);
    }

    /// How many are remembered, with those of which only a transaction is being verified.
    pub fn remembered(&self) -> usize {
        self.by_id.len() + self.verifications.len()
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

/// That a batch follows the producer's last one; its epoch is not older.
fn check_sequence(batch: &BatchHeader, known: &Producer) -> Result<(), ProducerError> {
    let (got, last) = (batch.base_sequence, known.last_sequence());
    let follows = match batch.producer_epoch > known.epoch {
        true => got == 0,
        false => got == next_sequence(last, 1),
    };
    match follows || known.epoch == NO_EPOCH {
        true => Ok(()),
        false => Err(ProducerError::OutOfOrder { got, last }),
    }
}

#[cfg(test)]
mod tests;
