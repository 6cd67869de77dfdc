//! Offsets of open transactions, of one group: pending from TxnOffsetCommit until a marker says what becomes of them.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::offsets::{Committed, Key, WriteNumber};

/// An offset of a transaction.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// Of the write that stored it; 0 if that is not known.
    pub(super) number: WriteNumber,
    pub(super) committed: Committed,
}

/// What one producer's transaction has for a group.
#[derive(Debug, Default)]
pub(super) struct PendingOffsets {
    pub(super) offsets: BTreeMap<Key, Pending>,
    /// The number of the next node that some of them are stored in.
    pub(super) next_part: u64,
    /// Those that are on their way to be stored, while there is a write.
    in_flight: Option<BTreeSet<Key>>,
}

/// What the open transactions have for one group, by producer id.
#[derive(Debug, Default)]
pub(super) struct PendingByProducer(pub(super) BTreeMap<i64, PendingOffsets>);

impl PendingByProducer {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a transaction may replace an offset, also by one that is not stored yet: whoever gets the partition meanwhile
    /// must not begin before it (KIP-447; Kafka's hasPendingTransactionalOffsets).
    pub(super) fn has(&self, key: &Key) -> bool {
        let mut producers = self.0.values();
        producers.any(|pending| {
            let in_flight = pending.in_flight.as_ref();
            pending.offsets.contains_key(key) || in_flight.is_some_and(|keys| keys.contains(key))
        })
    }

    /// The producers whose transactions have one of these.
    pub(super) fn producers_of(&self, keys: &[Key]) -> Vec<i64> {
        let has_one =
            |pending: &PendingOffsets| keys.iter().any(|key| pending.offsets.contains_key(key));
        let producers = self.0.iter().filter(|(_, pending)| has_one(pending));
        producers.map(|(id, _)| *id).collect()
    }

    /// Forgets these offsets; what their transactions have besides stays.
    pub(super) fn remove(&mut self, keys: &[Key]) {
        for pending in self.0.values_mut() {
            for key in keys {
                pending.offsets.remove(key);
            }
        }
        self.forget_empty();
    }

    /// Forgets what transactions have of a topic that is gone.
    pub(super) fn remove_topic(&mut self, topic: &str, id: Uuid) {
        for pending in self.0.values_mut() {
            pending.offsets.retain(|(name, _), pending| {
                let of = pending.committed.offset().topic_id;
                name != topic || of.is_some_and(|of| of != id)
            });
        }
        self.forget_empty();
    }

    /// Takes what is stored.
    pub(super) fn put(
        &mut self,
        producer_id: i64,
        number: WriteNumber,
        offsets: impl IntoIterator<Item = (Key, Committed)>,
    ) {
        let of_producer = self.0.entry(producer_id).or_default();
        for (key, committed) in offsets {
            let pending = Pending { number, committed };
            of_producer.offsets.insert(key, pending);
        }
    }

    /// The same, of a part that was read.
    pub(super) fn restore(
        &mut self,
        (producer_id, part): (i64, u64),
        offsets: impl IntoIterator<Item = (Key, Pending)>,
    ) {
        let of_producer = self.0.entry(producer_id).or_default();
        of_producer.offsets.extend(offsets);
        of_producer.next_part = of_producer.next_part.max(part + 1);
    }

    /// Nodes of a producer have numbers below this.
    pub(super) fn parts(&self, producer_id: i64) -> u64 {
        let of_producer = self.0.get(&producer_id);
        of_producer.map_or(0, |pending| pending.next_part)
    }

    /// Numbers of nodes that were not used yet.
    pub(super) fn take_parts(&mut self, producer_id: i64, count: u64) -> u64 {
        let of_producer = self.0.entry(producer_id).or_default();
        let first = of_producer.next_part;
        of_producer.next_part += count;
        first
    }

    /// Offsets of a producer are on their way.
    pub(super) fn begin(&mut self, producer_id: i64, keys: impl Iterator<Item = Key>) {
        self.0.entry(producer_id).or_default().in_flight = Some(keys.collect());
    }

    /// They are stored, or refused.
    pub(super) fn finish(&mut self, producer_id: i64) {
        if let Some(pending) = self.0.get_mut(&producer_id) {
            pending.in_flight = None;
        }
        self.forget_empty();
    }

    /// Forgets producers of which nothing is pending any more.
    fn forget_empty(&mut self) {
        self.0
            .retain(|_, pending| pending.in_flight.is_some() || !pending.offsets.is_empty());
    }
}
