//! Offsets of open transactions: those of one group, and the producers that a slot knows.
//!
//! A producer's offsets are pending from TxnOffsetCommit until a marker says what becomes of them. In Kafka they are records
//! of a partition of `__consumer_offsets`, which checks producers as any partition does: so does a slot here, for all its
//! groups together.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use uuid::Uuid;

use super::asks::Ask;
use super::messages::{GroupError, Guard, TransactionEnd};
use super::offsets::{Committed, Key, WriteNumber};
use crate::coordinator::Answer;

/// How long a producer is remembered after its last marker, ms: Kafka's `producer.id.expiration.ms`.
const PRODUCER_EXPIRATION_MS: i64 = 86_400_000;
/// How long a verification may take until its guard is forgotten, ms.
const GUARD_EXPIRATION_MS: i64 = 300_000;

/// An offset of a transaction.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// Of the write that stored it; 0 if it was read.
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
        offsets: impl IntoIterator<Item = (Key, Committed)>,
    ) {
        self.put(producer_id, 0, offsets);
        let of_producer = self.0.entry(producer_id).or_default();
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

/// What waits until a producer's write is stored.
pub(super) enum WaitingForProducer {
    /// Of a group.
    Ask(String, Ask),
    /// A marker.
    End(TransactionEnd, Answer<Result<(), GroupError>>),
}

/// A producer of a slot.
#[derive(Default)]
pub(super) struct SlotProducer {
    epoch: i16,
    /// Of its last marker.
    coordinator_epoch: i32,
    /// Groups that it has pending offsets in.
    pub(super) groups: BTreeSet<String>,
    /// Groups that it may have some stored in: a write that failed may still have been made.
    doubtful: BTreeSet<String>,
    /// Of the verification that was begun after its last marker.
    verification: Option<Verification>,
    /// A write of its offsets or its marker is in flight.
    pub(super) is_busy: bool,
    pub(super) waiting: VecDeque<WaitingForProducer>,
    last_ms: i64,
}

impl SlotProducer {
    /// The groups that its marker is about.
    pub(super) fn groups_to_end(&self) -> BTreeSet<String> {
        self.groups.union(&self.doubtful).cloned().collect()
    }

    /// Whether the transaction that it has under this epoch has offsets here.
    fn is_open(&self, epoch: i16) -> bool {
        !self.groups.is_empty() && self.epoch == epoch
    }
}

/// A transaction's coordinator is being asked.
struct Verification {
    guard: Guard,
    /// Of the producer that wants to know.
    epoch: i16,
    /// When that began, ms.
    since_ms: i64,
}

/// The producers of a slot.
#[derive(Default)]
pub(super) struct SlotProducers {
    by_id: HashMap<i64, SlotProducer>,
    last_guard: u64,
}

impl SlotProducers {
    /// `first_guard` is one that no other slot, nor this one earlier, gave.
    pub(super) fn new(first_guard: u64) -> Self {
        Self {
            by_id: HashMap::new(),
            last_guard: first_guard,
        }
    }

    /// The producer, if what is asked has to wait for it.
    pub(super) fn busy(&mut self, producer_id: i64) -> Option<&mut SlotProducer> {
        self.by_id
            .get_mut(&producer_id)
            .filter(|producer| producer.is_busy)
    }

    pub(super) fn get_mut(&mut self, producer_id: i64) -> Option<&mut SlotProducer> {
        self.by_id.get_mut(&producer_id)
    }

    /// Of a group that was read.
    pub(super) fn restore(&mut self, producer_id: i64, epoch: i16, group_id: &str, now_ms: i64) {
        let producer = self.known(producer_id, epoch, now_ms);
        producer.groups.insert(group_id.to_owned());
    }

    fn known(&mut self, producer_id: i64, epoch: i16, now_ms: i64) -> &mut SlotProducer {
        let producer = self.by_id.entry(producer_id);
        let producer = producer.or_insert_with(|| SlotProducer {
            epoch,
            coordinator_epoch: -1,
            ..SlotProducer::default()
        });
        producer.epoch = producer.epoch.max(epoch);
        producer.last_ms = now_ms;
        producer
    }

    /// Begins a verification; `None` where the transaction is here already.
    pub(super) fn verify(
        &mut self,
        (producer_id, epoch): (i64, i16),
        now_ms: i64,
    ) -> Result<Option<Guard>, GroupError> {
        self.check_epoch(producer_id, epoch)?;
        self.last_guard += 1;
        let guard = Guard(self.last_guard);
        let producer = self.by_id.entry(producer_id);
        // Its epoch is not known before something of it is stored.
        let producer = producer.or_insert_with(|| SlotProducer {
            epoch: -1,
            coordinator_epoch: -1,
            last_ms: now_ms,
            ..SlotProducer::default()
        });
        if producer.is_open(epoch) {
            return Ok(None);
        }
        let begun = producer.verification.get_or_insert(Verification {
            guard,
            epoch,
            since_ms: now_ms,
        });
        begun.epoch = begun.epoch.max(epoch);
        Ok(Some(begun.guard))
    }

    /// Whether offsets may be added to a producer's transaction.
    pub(super) fn check_commit(
        &self,
        (producer_id, epoch): (i64, i16),
        guard: Option<Guard>,
    ) -> Result<(), GroupError> {
        self.check_epoch(producer_id, epoch)?;
        let producer = self.by_id.get(&producer_id);
        let is_open = producer.is_some_and(|producer| producer.is_open(epoch));
        let begun = producer.and_then(|producer| producer.verification.as_ref());
        let is_verified = guard.is_some() && begun.map(|begun| begun.guard) == guard;
        match is_open || is_verified {
            true => Ok(()),
            false => Err(GroupError::InvalidTxnState),
        }
    }

    /// A producer's epoch, -1 while it is not known.
    pub(super) fn epoch(&self, producer_id: i64) -> i16 {
        self.by_id.get(&producer_id).map_or(-1, |known| known.epoch)
    }

    fn check_epoch(&self, producer_id: i64, epoch: i16) -> Result<(), GroupError> {
        match epoch < self.epoch(producer_id) {
            true => Err(GroupError::InvalidProducerEpoch),
            false => Ok(()),
        }
    }

    /// Offsets of a producer are being stored.
    pub(super) fn begin(&mut self, producer_id: i64, epoch: i16, now_ms: i64) {
        self.known(producer_id, epoch, now_ms).is_busy = true;
    }

    /// Offsets of a producer are stored.
    pub(super) fn opened(&mut self, producer_id: i64, group_id: &str) {
        if let Some(producer) = self.by_id.get_mut(&producer_id) {
            producer.verification = None;
            producer.groups.insert(group_id.to_owned());
        }
    }

    /// Offsets of a producer are not stored, as far as is known.
    pub(super) fn failed(&mut self, producer_id: i64, group_id: &str) {
        if let Some(producer) = self.by_id.get_mut(&producer_id) {
            producer.doubtful.insert(group_id.to_owned());
        }
    }

    /// Whether a marker counts (Kafka's ProducerAppendInfo). One of version 2 has an epoch that the transaction did not have;
    /// where no transaction is open it may have come before.
    pub(super) fn check_end(&self, end: &TransactionEnd) -> Result<(), GroupError> {
        let Some(producer) = self.by_id.get(&end.producer_id) else {
            return Ok(());
        };
        let is_open = !producer.groups.is_empty();
        // After the last epoch comes another producer id.
        let is_bumped = end.bumps_epoch && end.producer_epoch != i16::MAX;
        let is_old = match is_bumped && is_open {
            true => end.producer_epoch <= producer.epoch,
            false => end.producer_epoch < producer.epoch,
        };
        if is_old {
            return Err(GroupError::InvalidProducerEpoch);
        }
        match end.coordinator_epoch < producer.coordinator_epoch {
            true => Err(GroupError::TransactionCoordinatorFenced),
            false => Ok(()),
        }
    }

    /// What changes a producer's pending offsets without it, or its marker, is being stored.
    pub(super) fn begin_change(&mut self, producer_id: i64, now_ms: i64) {
        self.begin(producer_id, self.epoch(producer_id), now_ms);
    }

    /// A marker is stored. One of version 2 may be late: what is being verified under its epoch is the next transaction.
    pub(super) fn ended(&mut self, end: &TransactionEnd, now_ms: i64) {
        let producer = self.known(end.producer_id, end.producer_epoch, now_ms);
        producer.coordinator_epoch = end.coordinator_epoch;
        producer
            .verification
            .take_if(|begun| !(end.bumps_epoch && begun.epoch == end.producer_epoch));
        producer.groups.clear();
        producer.doubtful.clear();
    }

    /// A group is gone, with what was pending in it.
    pub(super) fn group_removed(&mut self, group_id: &str) {
        for producer in self.by_id.values_mut() {
            producer.groups.remove(group_id);
        }
    }

    /// Forgets producers that were silent for long, and guards of verifications that led to nothing.
    pub(super) fn expire(&mut self, now_ms: i64) {
        self.by_id.retain(|_, producer| {
            let since = |ms: i64| now_ms.saturating_sub(ms);
            producer
                .verification
                .take_if(|begun| since(begun.since_ms) >= GUARD_EXPIRATION_MS);
            let is_in_use = producer.is_busy
                || !producer.groups_to_end().is_empty()
                || producer.verification.is_some();
            let is_known = producer.epoch >= 0 && since(producer.last_ms) < PRODUCER_EXPIRATION_MS;
            is_in_use || is_known
        });
    }

    /// What waits for a producer's next turn, once its write is stored or refused.
    pub(super) fn finish(&mut self, producer_id: i64) -> VecDeque<WaitingForProducer> {
        let producer = self.by_id.get_mut(&producer_id);
        producer.map_or_else(VecDeque::new, |producer| {
            producer.is_busy = false;
            std::mem::take(&mut producer.waiting)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(producer_epoch: i16, coordinator_epoch: i32, bumps_epoch: bool) -> TransactionEnd {
        TransactionEnd {
            producer_id: 7,
            producer_epoch,
            coordinator_epoch,
            is_commit: true,
            bumps_epoch,
        }
    }

    fn open(epoch: i16) -> SlotProducers {
        let mut producers = SlotProducers::new(0);
        producers.restore(7, epoch, "g", 0);
        producers
    }

    #[test]
    fn a_guard_counts_until_the_next_marker() {
        let mut producers = SlotProducers::new(0);
        let guard = producers.verify((7, 0), 0).unwrap();
        assert!(guard.is_some());
        assert_eq!(producers.verify((7, 0), 0).unwrap(), guard);
        assert_eq!(producers.check_commit((7, 0), guard), Ok(()));
        assert_eq!(
            producers.check_commit((7, 0), None),
            Err(GroupError::InvalidTxnState)
        );
        producers.ended(&end(0, 1, false), 0);
        assert_eq!(
            producers.check_commit((7, 0), guard),
            Err(GroupError::InvalidTxnState)
        );
        let next = producers.verify((7, 0), 0).unwrap();
        assert!(next.is_some() && next != guard);
    }

    #[test]
    fn what_is_verified_of_the_next_transaction_outlives_a_late_marker_of_the_one_before() {
        let mut producers = open(3);
        // By version 2 the client goes on under the epoch of the marker, before that is here.
        let guard = producers.verify((7, 4), 0).unwrap();
        assert!(
            guard.is_some(),
            "the transaction that is open is the one before"
        );
        producers.ended(&end(4, 1, true), 0);
        assert_eq!(producers.check_commit((7, 4), guard), Ok(()));
    }

    #[test]
    fn an_open_transaction_needs_no_guard_and_an_older_epoch_is_fenced() {
        let mut producers = open(3);
        assert_eq!(producers.verify((7, 3), 0), Ok(None));
        assert_eq!(producers.check_commit((7, 3), None), Ok(()));
        assert_eq!(
            producers.verify((7, 2), 0),
            Err(GroupError::InvalidProducerEpoch)
        );
        assert_eq!(
            producers.check_commit((7, 2), None),
            Err(GroupError::InvalidProducerEpoch)
        );
    }

    #[test]
    fn a_marker_of_version_2_needs_a_new_epoch_while_a_transaction_is_open() {
        let mut producers = open(3);
        assert_eq!(
            producers.check_end(&end(3, 1, true)),
            Err(GroupError::InvalidProducerEpoch)
        );
        assert_eq!(producers.check_end(&end(3, 1, false)), Ok(()));
        assert_eq!(producers.check_end(&end(4, 1, true)), Ok(()));
        producers.ended(&end(4, 1, true), 0);
        // The same again, after its answer was lost.
        assert_eq!(producers.check_end(&end(4, 1, true)), Ok(()));
        assert_eq!(
            producers.check_end(&end(3, 1, true)),
            Err(GroupError::InvalidProducerEpoch)
        );
        assert_eq!(
            producers.check_end(&end(4, 0, true)),
            Err(GroupError::TransactionCoordinatorFenced)
        );
    }

    #[test]
    fn a_marker_of_the_last_epoch_needs_no_new_one() {
        let producers = open(i16::MAX);
        assert_eq!(producers.check_end(&end(i16::MAX, 1, true)), Ok(()));
    }

    #[test]
    fn a_producer_whose_write_is_doubtful_is_remembered_until_its_marker() {
        let mut producers = SlotProducers::new(0);
        producers.begin(7, 0, 0);
        producers.failed(7, "g");
        producers.finish(7);
        producers.expire(PRODUCER_EXPIRATION_MS);
        assert!(producers.by_id.contains_key(&7));
    }

    #[test]
    fn what_led_to_nothing_is_forgotten_and_what_is_open_is_not() {
        let mut producers = open(3);
        producers.verify((8, 0), 0).unwrap();
        producers.ended(
            &TransactionEnd {
                producer_id: 9,
                ..end(0, 1, false)
            },
            0,
        );
        producers.expire(GUARD_EXPIRATION_MS);
        let mut known: Vec<i64> = producers.by_id.keys().copied().collect();
        known.sort_unstable();
        assert_eq!(known, [7, 9]);
        producers.expire(PRODUCER_EXPIRATION_MS);
        assert!(producers.by_id.keys().eq([&7]));
    }
}
