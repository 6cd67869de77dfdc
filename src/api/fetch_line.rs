//! What is wanted in a fetch session, each partition once, in the order in which they are served.
//!
//! Tests: tests/fetch.rs, tests/committed.rs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use crate::partition::{FetchWaiter, Partition, Subscription};

/// A partition in a session, without the topic's name: its key twice, what is wanted of it, and what the maps and its waiters add.
pub(super) const PARTITION_BYTES: usize = 2 * size_of::<PartitionKey>() + size_of::<Wanted>() + 96;

/// A partition as a fetch names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PartitionKey {
    pub(super) topic: Arc<str>,
    /// Nil where the client names topics.
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
}

/// What a client wants of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartitionFetch {
    pub(super) key: PartitionKey,
    pub(super) current_leader_epoch: i32,
    pub(super) fetch_offset: i64,
    /// Where a follower's log starts, -1 of a consumer.
    pub(super) log_start: i64,
    /// Of the record before `fetch_offset`; -1 where the client does not say.
    pub(super) last_fetched_epoch: i32,
    pub(super) bytes_max: i32,
    /// High watermark and log start that were sent last; a change of them is sent even without records.
    pub(super) last_sent: Option<(i64, i64)>,
    /// Its number in the session, for as long as it is in it.
    pub(super) slot: usize,
}

struct Wanted {
    /// Its place among the others.
    position: u64,
    fetch: PartitionFetch,
    /// What tells the session that it moved.
    watched: Option<(Arc<Partition>, Subscription)>,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Line {
    slot_next: usize,
    position_next: u64,
    slots: HashMap<PartitionKey, usize>,
    wanted: HashMap<usize, Wanted>,
    /// Slots by position.
    order: BTreeMap<u64, usize>,
    /// Sum over the partitions.
    name_bytes: usize,
}

impl Line {
    /// A known partition keeps its place and what was sent of it. Says its slot.
    pub(super) fn put(&mut self, mut new: PartitionFetch) -> usize {
        if let Some((slot, known)) = self.known(&new.key) {
            (new.slot, new.last_sent) = (slot, known.fetch.last_sent);
            known.fetch = new;
            return slot;
        }
        let (slot, position) = (self.slot_next, self.position_next);
        (self.slot_next, self.position_next) = (slot + 1, position + 1);
        new.slot = slot;
        self.name_bytes += new.key.topic.len();
        self.slots.insert(new.key.clone(), slot);
        self.order.insert(position, slot);
        let wanted = Wanted {
            position,
            fetch: new,
            watched: None,
        };
        self.wanted.insert(slot, wanted);
        slot
    }

    fn known(&mut self, key: &PartitionKey) -> Option<(usize, &mut Wanted)> {
        let slot = *self.slots.get(key)?;
        Some((slot, self.wanted.get_mut(&slot)?))
    }

    pub(super) fn remove(&mut self, key: &PartitionKey) {
        let Some(slot) = self.slots.remove(key) else {
            return;
        };
        if let Some(removed) = self.wanted.remove(&slot) {
            self.order.remove(&removed.position);
            self.name_bytes -= removed.fetch.key.topic.len();
        }
    }

    /// Notes the ends that an answer said of a partition; one with records goes to the end of the line.
    pub(super) fn note_sent(&mut self, key: &PartitionKey, ends: (i64, i64), records: bool) {
        let position = self.position_next;
        let Some((slot, known)) = self.known(key) else {
            return;
        };
        known.fetch.last_sent = Some(ends);
        if records {
            let before = std::mem::replace(&mut known.position, position);
            self.order.remove(&before);
            self.order.insert(position, slot);
            self.position_next += 1;
        }
    }

    /// Has `waiter` told of every move of the partition of a slot, from now on.
    pub(super) fn watch(
        &mut self,
        slot: usize,
        partition: &Arc<Partition>,
        waiter: &Arc<FetchWaiter>,
    ) {
        let Some(wanted) = self.wanted.get_mut(&slot) else {
            return;
        };
        let watched = wanted.watched.as_ref();
        if !watched.is_some_and(|(known, _)| Arc::ptr_eq(known, partition)) {
            let subscription = partition.subscribe(waiter, slot, true);
            wanted.watched = Some((partition.clone(), subscription));
        }
    }

    /// What it takes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.wanted.len() * PARTITION_BYTES + self.name_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// All that is wanted, in order.
    pub(super) fn all(&self) -> Vec<PartitionFetch> {
        let slots = self.order.values();
        slots
            .filter_map(|slot| Some(self.wanted.get(slot)?.fetch.clone()))
            .collect()
    }

    /// What is wanted of some slots, in order; those that are not in it any more left out.
    pub(super) fn of(&self, slots: impl IntoIterator<Item = usize>) -> Vec<PartitionFetch> {
        let found = slots.into_iter().filter_map(|slot| self.wanted.get(&slot));
        let mut found: Vec<&Wanted> = found.collect();
        found.sort_unstable_by_key(|wanted| wanted.position);
        found
            .into_iter()
            .map(|wanted| wanted.fetch.clone())
            .collect()
    }
}

impl FromIterator<PartitionFetch> for Line {
    fn from_iter<I: IntoIterator<Item = PartitionFetch>>(named: I) -> Self {
        let mut line = Self::default();
        for wanted in named {
            line.put(wanted);
        }
        line
    }
}
