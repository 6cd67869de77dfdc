//! Whether the coordinator was asked about a transaction before its first batch is appended (KIP-890; Kafka's
//! VerificationStateEntry and VerificationGuard).
//!
//! Who brings the first batch of a transaction gets a guard, asks the coordinator, and shows the guard when it appends. What
//! ends a transaction in between takes the guard away, so that an answer about an earlier transaction counts for nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use metaq_protocol::batch::BatchHeader;

/// Says that an append was verified: of one partition and producer, and unlike any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationGuard(u64);

impl VerificationGuard {
    fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// How a client's batch was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// It is no part of a transaction, or its transaction goes on here already.
    NotNeeded,
    /// The coordinator says that its transaction is open and has this partition.
    Guard(VerificationGuard),
}

/// A batch that is to be verified.
#[derive(Clone, Copy, Debug)]
pub struct ToVerify {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// Whether each of its transactions has an epoch of its own.
    pub is_v2: bool,
}

/// One producer that was not verified yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unverified {
    guard: VerificationGuard,
    epoch: i16,
    pub(super) lowest_sequence: i32,
    pub(super) is_v2: bool,
    since_ms: i64,
}

/// By producer id.
#[derive(Clone, Debug, Default)]
pub(super) struct Verifications(HashMap<i64, Unverified>);

impl Verifications {
    /// The guard of a producer's next transaction. Batches that overtake each other on the way must not be stored out of
    /// order: the lowest sequence that was asked for comes first.
    pub(super) fn begin(&mut self, batch: &ToVerify, now_ms: i64) -> VerificationGuard {
        let known = self.0.entry(batch.producer_id);
        let known = known.or_insert_with(|| Unverified {
            guard: VerificationGuard::unique(),
            epoch: batch.producer_epoch,
            lowest_sequence: batch.base_sequence,
            is_v2: batch.is_v2,
            since_ms: now_ms,
        });
        if batch.producer_epoch > known.epoch {
            known.epoch = batch.producer_epoch;
            known.lowest_sequence = batch.base_sequence;
        } else if batch.producer_epoch == known.epoch {
            known.lowest_sequence = known.lowest_sequence.min(batch.base_sequence);
        }
        known.guard
    }

    pub(super) fn get(&self, producer_id: i64) -> Option<&Unverified> {
        self.0.get(&producer_id)
    }

    /// Whether an append of a producer's first batch was verified.
    pub(super) fn holds(&self, producer_id: i64, verification: Verification) -> bool {
        let known = self.0.get(&producer_id);
        known.is_some_and(|known| verification == Verification::Guard(known.guard))
    }

    /// A transactional batch is stored: a transaction began, or ended. By version 2 a marker may be late: the guard of the
    /// transaction that has its epoch is that of the next one, and stays.
    pub(super) fn stored(&mut self, batch: &BatchHeader) {
        let is_of_next = |known: &Unverified| {
            known.is_v2 && batch.is_control() && known.epoch == batch.producer_epoch
        };
        if !self.0.is_empty() && !self.get(batch.producer_id).is_some_and(is_of_next) {
            self.0.remove(&batch.producer_id);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets those that were begun longest ago, until no more than that are left.
    pub(super) fn forget_oldest(&mut self, left: usize) {
        let excess = self.0.len().saturating_sub(left);
        if excess == 0 {
            return;
        }
        let mut all: Vec<(u64, i64)> = self.0.iter().map(|(id, one)| (one.guard.0, *id)).collect();
        all.select_nth_unstable(excess - 1);
        for (_, id) in &all[..excess] {
            self.0.remove(id);
        }
        self.0.shrink_to(left);
    }

    /// Forgets those that were begun so long ago.
    pub(super) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.0
            .retain(|_, known| now_ms - known.since_ms < expiration_ms);
    }
}
