//! The producers that a slot knows. In Kafka offsets of transactions are records of a partition of `__consumer_offsets`, which
//! checks producers as any partition does: so does a slot here, for all its groups together.
//!
//! What a marker says of its producer stays known: a node of the slot, written with what the marker makes of the groups. Without it
//! another owner would take the late marker of an earlier coordinator for that of the producer's next transaction, which has the
//! same epoch before version 2 of transactions.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::asks::Ask;
use super::messages::{GroupError, Guard, TransactionEnd};
use crate::coordinator::Answer;

/// How long a verification may take until its guard is forgotten, ms.
const GUARD_EXPIRATION_MS: i64 = 300_000;
/// Producers without a transaction that a slot remembers; those that ended one longest ago go first.
const PRODUCERS_AT_REST_MAX: usize = 10_000;

/// Producers of which a slot knows nothing but that their transactions are being verified: the coordinators of these transactions have
/// not agreed yet, and whoever asks can name any producer. Those who asked first make room for others.
const PRODUCERS_UNVERIFIED_MAX: usize = 10_000;

/// What waits until a producer's write is stored.
pub(super) enum WaitingForProducer {
    /// Of a group.
    Ask(String, Ask),
    /// A marker.
    End(TransactionEnd, Answer<Result<(), GroupError>>),
}

/// What a producer's last marker said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastMarker {
    pub(super) producer_id: i64,
    /// Its epoch.
    pub(super) epoch: i16,
    /// Its coordinator's.
    pub(super) coordinator_epoch: i32,
    /// When it was stored, ms.
    pub(super) at_ms: i64,
}

/// What a marker changes of what is stored of a slot's producers.
#[derive(Debug, Default)]
pub(super) struct ProducerChange {
    /// What it says, unless that is stored already.
    pub(super) marker: Option<LastMarker>,
    /// A producer that is forgotten for it.
    pub(super) forgotten: Option<i64>,
}

/// A producer of a slot.
#[derive(Default)]
pub(super) struct SlotProducer {
    epoch: i16,
    /// Of its last marker.
    coordinator_epoch: i32,
    /// Its last marker, as it is stored.
    stored: Option<LastMarker>,
    /// Groups that it has pending offsets in.
    pub(super) groups: BTreeSet<String>,
    /// Groups that it may have some stored in: a write that failed may still have been made.
    doubtful: BTreeSet<String>,
    /// Of the verification that was begun after its last marker.
    verification: Option<Verification>,
    /// Writes of its offsets or its marker that are in flight: several where what removes its offsets is of several groups.
    writes: usize,
    pub(super) waiting: VecDeque<WaitingForProducer>,
    last_ms: i64,
}

impl SlotProducer {
    /// The groups that its marker is about.
    pub(super) fn groups_to_end(&self) -> BTreeSet<String> {
        self.groups.union(&self.doubtful).cloned().collect()
    }

    /// Whether what is asked has to wait for it.
    pub(super) fn is_busy(&self) -> bool {
        self.writes > 0
    }

    /// Whether nothing of it is open, nor about to be.
    fn is_at_rest(&self) -> bool {
        let has_groups = !self.groups.is_empty() || !self.doubtful.is_empty();
        !self.is_busy() && !has_groups && self.verification.is_none()
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
pub(super) struct SlotProducers {
    by_id: HashMap<i64, SlotProducer>,
    /// Those whose last marker is stored, the one that was silent for longest first: when, ms, and its id.
    by_marker: BTreeSet<(i64, i64)>,
    /// Those of which nothing is known but that they are being verified, by their guards: the first is the oldest one.
    unverified: BTreeMap<u64, i64>,
    /// `producer.id.expiration.ms`.
    expiration_ms: i64,
    last_guard: u64,
}

impl SlotProducers {
    /// `first_guard` is one that no other slot, nor this one earlier, gave.
    pub(super) fn new(first_guard: u64, expiration_ms: i64) -> Self {
        Self {
            by_id: HashMap::new(),
            by_marker: BTreeSet::new(),
            unverified: BTreeMap::new(),
            expiration_ms,
            last_guard: first_guard,
        }
    }

    /// The producer, if what is asked has to wait for it.
    pub(super) fn busy(&mut self, producer_id: i64) -> Option<&mut SlotProducer> {
        self.by_id
            .get_mut(&producer_id)
            .filter(|producer| producer.is_busy())
    }

    pub(super) fn get_mut(&mut self, producer_id: i64) -> Option<&mut SlotProducer> {
        self.by_id.get_mut(&producer_id)
    }

    /// A marker that was read.
    pub(super) fn restore_marker(&mut self, marker: LastMarker) {
        self.known(marker.producer_id, marker.epoch, marker.at_ms);
        self.marker_stored(marker);
    }

    fn marker_stored(&mut self, marker: LastMarker) {
        let id = marker.producer_id;
        let Some(producer) = self.by_id.get_mut(&id) else {
            return;
        };
        if let Some(before) = producer.stored.replace(marker) {
            self.by_marker.remove(&(before.at_ms, id));
        }
        producer.coordinator_epoch = marker.coordinator_epoch;
        self.by_marker.insert((marker.at_ms, id));
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
        if let Some(begun) = &producer.verification {
            self.unverified.remove(&begun.guard.0);
        }
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
        let begun = begun.guard;
        if producer.epoch < 0 && begun == guard {
            self.unverified.insert(guard.0, producer_id);
            self.forget_unverified();
        }
        Ok(Some(begun))
    }

    /// Forgets the producer whose verification began first, where they are too many.
    fn forget_unverified(&mut self) {
        if self.unverified.len() <= PRODUCERS_UNVERIFIED_MAX {
            return;
        }
        let Some((guard, producer_id)) = self.unverified.pop_first() else {
            return;
        };
        let is_it = |producer: &SlotProducer| {
            let begun = producer.verification.as_ref();
            producer.epoch < 0 && begun.is_some_and(|begun| begun.guard == Guard(guard))
        };
        if self.by_id.get(&producer_id).is_some_and(is_it) {
            self.forget(producer_id);
        }
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
        self.known(producer_id, epoch, now_ms).writes += 1;
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

    /// What a marker that counts changes of what is stored here.
    pub(super) fn change_for(&mut self, end: &TransactionEnd, now_ms: i64) -> ProducerChange {
        let producer = self.by_id.get(&end.producer_id);
        let stored = producer.and_then(|producer| producer.stored);
        let is_stored = stored.is_some_and(|stored| {
            (stored.epoch, stored.coordinator_epoch) == (end.producer_epoch, end.coordinator_epoch)
        });
        // The same marker again; where it ends something it is a newer one, which counts for the expiration.
        if is_stored && producer.is_some_and(|producer| producer.groups_to_end().is_empty()) {
            return ProducerChange::default();
        }
        let is_full = stored.is_none() && self.by_marker.len() >= PRODUCERS_AT_REST_MAX;
        ProducerChange {
            marker: Some(LastMarker {
                producer_id: end.producer_id,
                epoch: end.producer_epoch,
                coordinator_epoch: end.coordinator_epoch,
                at_ms: now_ms,
            }),
            forgotten: is_full.then(|| self.forget_oldest()).flatten(),
        }
    }

    /// Forgets the producer that ended its last transaction longest ago.
    fn forget_oldest(&mut self) -> Option<i64> {
        let is_at_rest = |id: &i64| self.by_id.get(id).is_none_or(SlotProducer::is_at_rest);
        let mut ids = self.by_marker.iter().map(|(_, id)| *id);
        let oldest = ids.find(is_at_rest)?;
        self.forget(oldest);
        Some(oldest)
    }

    fn forget(&mut self, producer_id: i64) {
        let forgotten = self.by_id.remove(&producer_id);
        if let Some(stored) = forgotten.and_then(|producer| producer.stored) {
            self.by_marker.remove(&(stored.at_ms, producer_id));
        }
    }

    /// A marker is stored, with what it says. One of version 2 may be late: what is being verified under its epoch is the next
    /// transaction.
    pub(super) fn ended(&mut self, end: &TransactionEnd, marker: Option<LastMarker>, now_ms: i64) {
        if let Some(marker) = marker {
            self.known(marker.producer_id, marker.epoch, now_ms);
            self.marker_stored(marker);
        }
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

    /// Forgets producers that were silent for long, and guards of verifications that led to nothing. Returns the producers whose
    /// last markers are stored.
    pub(super) fn expire(&mut self, now_ms: i64) -> Vec<i64> {
        let since = |ms: i64| now_ms.saturating_sub(ms);
        let mut expired = Vec::new();
        for (id, producer) in &mut self.by_id {
            let over = producer
                .verification
                .take_if(|begun| since(begun.since_ms) >= GUARD_EXPIRATION_MS);
            if let Some(over) = over {
                self.unverified.remove(&over.guard.0);
            }
            let is_known = producer.epoch >= 0 && since(producer.last_ms) < self.expiration_ms;
            if producer.is_at_rest() && !is_known {
                expired.push(*id);
            }
        }
        let is_stored = |id: &i64| {
            self.by_id
                .get(id)
                .is_some_and(|known| known.stored.is_some())
        };
        let stored = expired.iter().copied().filter(is_stored).collect();
        expired.into_iter().for_each(|id| self.forget(id));
        stored
    }

    /// What waits for a producer's next turn, once its write is stored or refused.
    pub(super) fn finish(&mut self, producer_id: i64) -> VecDeque<WaitingForProducer> {
        let producer = self.by_id.get_mut(&producer_id);
        let Some(producer) = producer else {
            return VecDeque::new();
        };
        producer.writes = producer.writes.saturating_sub(1);
        match producer.is_busy() {
            true => VecDeque::new(),
            false => std::mem::take(&mut producer.waiting),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRATION_MS: i64 = 86_400_000;

    /// The producers after a marker.
    fn ended(producers: &mut SlotProducers, end: &TransactionEnd, now_ms: i64) -> ProducerChange {
        let change = producers.change_for(end, now_ms);
        producers.ended(end, change.marker, now_ms);
        change
    }

    fn end(producer_epoch: i16, coordinator_epoch: i32, bumps_epoch: bool) -> TransactionEnd {
        TransactionEnd {
            producer_id: 7,
            producer_epoch,
            coordinator_epoch,
            is_commit: true,
            bumps_epoch,
        }
    }

    /// A marker of another producer.
    fn of(producer_id: i64) -> TransactionEnd {
        TransactionEnd {
            producer_id,
            ..end(0, 1, false)
        }
    }

    fn open(epoch: i16) -> SlotProducers {
        let mut producers = SlotProducers::new(0, EXPIRATION_MS);
        producers.restore(7, epoch, "g", 0);
        producers
    }

    #[test]
    fn a_guard_counts_until_the_next_marker() {
        let mut producers = SlotProducers::new(0, EXPIRATION_MS);
        let guard = producers.verify((7, 0), 0).unwrap();
        assert!(guard.is_some());
        assert_eq!(producers.verify((7, 0), 0).unwrap(), guard);
        assert_eq!(producers.check_commit((7, 0), guard), Ok(()));
        assert_eq!(
            producers.check_commit((7, 0), None),
            Err(GroupError::InvalidTxnState)
        );
        ended(&mut producers, &end(0, 1, false), 0);
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
        ended(&mut producers, &end(4, 1, true), 0);
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
        ended(&mut producers, &end(4, 1, true), 0);
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
        let mut producers = SlotProducers::new(0, EXPIRATION_MS);
        producers.begin(7, 0, 0);
        producers.failed(7, "g");
        producers.finish(7);
        producers.expire(EXPIRATION_MS);
        assert!(producers.by_id.contains_key(&7));
    }

    #[test]
    fn what_led_to_nothing_is_forgotten_and_what_is_open_is_not() {
        let mut producers = open(3);
        producers.verify((8, 0), 0).unwrap();
        ended(&mut producers, &of(9), 0);
        assert_eq!(producers.expire(GUARD_EXPIRATION_MS), [0; 0]);
        let mut known: Vec<i64> = producers.by_id.keys().copied().collect();
        known.sort_unstable();
        assert_eq!(known, [7, 9]);
        assert_eq!(producers.expire(EXPIRATION_MS), [9]);
        assert!(producers.by_id.keys().eq([&7]) && producers.by_marker.is_empty());
    }

    #[test]
    fn producers_that_are_only_being_verified_are_so_many_and_those_who_asked_first_give_way() {
        let mut producers = open(3);
        let first = producers.verify((1000, 0), 0).unwrap();
        let second = producers.verify((1001, 0), 0).unwrap();
        producers.begin(1001, 0, 0);
        for id in 0..PRODUCERS_UNVERIFIED_MAX as i64 {
            producers.verify((2000 + id, 0), 0).unwrap();
        }
        let refused = producers.check_commit((1000, 0), first);
        assert_eq!(refused, Err(GroupError::InvalidTxnState));
        // That one's offsets are being stored.
        assert_eq!(producers.check_commit((1001, 0), second), Ok(()));
        assert_eq!(producers.by_id.len(), PRODUCERS_UNVERIFIED_MAX + 2);
        producers.expire(GUARD_EXPIRATION_MS);
        assert!(producers.unverified.is_empty());
        assert!(producers.by_id.contains_key(&7) && producers.by_id.len() == 2);
    }

    #[test]
    fn a_marker_that_ends_nothing_and_says_nothing_new_is_not_stored_again() {
        let mut producers = open(3);
        let change = ended(&mut producers, &end(3, 1, false), 0);
        assert!(change.marker.is_some());
        let again = ended(&mut producers, &end(3, 1, false), 1);
        assert!(again.marker.is_none());
        for newer in [end(3, 2, false), end(4, 2, false)] {
            let change = ended(&mut producers, &newer, 2);
            assert!(change.marker.is_some(), "{newer:?}");
        }
        producers.opened(7, "g");
        let next = ended(&mut producers, &end(4, 2, false), 3);
        assert_eq!(next.marker.map(|marker| marker.at_ms), Some(3));
    }

    #[test]
    fn those_at_rest_for_longest_make_room_for_others() {
        let mut producers = open(3);
        ended(&mut producers, &end(3, 1, false), -2);
        producers.opened(7, "g");
        for id in 0..PRODUCERS_AT_REST_MAX as i64 {
            let change = ended(&mut producers, &of(1000 + id), id);
            // The one with an open transaction is not at rest.
            let makes_room = id == PRODUCERS_AT_REST_MAX as i64 - 1;
            assert_eq!(change.forgotten, makes_room.then_some(1000));
        }
        assert_eq!(producers.by_marker.len(), PRODUCERS_AT_REST_MAX);
        assert_eq!(producers.by_id.len(), PRODUCERS_AT_REST_MAX);
        // One that is known needs no room.
        let again = ended(&mut producers, &end(4, 1, false), 0);
        assert!(again.forgotten.is_none() && again.marker.is_some());
    }
}
