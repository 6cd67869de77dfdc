//! The offsets of one group.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::messages::CommittedOffset;
use super::reserved::Reserved;

/// Topic and partition index.
pub(super) type Key = (String, i32);

/// Numbers commits and removals in the order in which they were asked for, which is the order in which the tree
/// gets them. Their outcomes may come in another order. Those of one owner of the slot are above those that it found stored.
pub(super) type WriteNumber = u64;

/// An offset with its share of the memory of offsets.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    offset: CommittedOffset,
    _reserved: Reserved,
}

impl Committed {
    pub(super) fn new(offset: CommittedOffset, reserved: Reserved) -> Self {
        Self {
            offset,
            _reserved: reserved,
        }
    }

    pub(super) fn offset(&self) -> &CommittedOffset {
        &self.offset
    }
}

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(super) struct Offsets {
    stored: BTreeMap<Key, (WriteNumber, Committed)>,
    /// What was removed while other writes were in flight.
    removed: BTreeMap<Key, WriteNumber>,
    /// Of commits that are in flight, the latest of each, where that matters.
    asked: BTreeMap<Key, WriteNumber>,
    in_flight: usize,
    /// What was asked for earlier was for a group of the same name that is gone.
    since: WriteNumber,
}

impl Offsets {
    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        let (_, committed) = self.stored.get(&(topic.to_owned(), partition))?;
        Some(&committed.offset)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &CommittedOffset)> {
        self.stored
            .iter()
            .map(|(key, (_, committed))| (key, &committed.offset))
    }

    pub(super) fn len(&self) -> usize {
        self.stored.len()
    }

    /// Whether there are none, and none is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.stored.is_empty() && self.in_flight == 0
    }

    /// Of a group that begins with this number.
    pub(super) fn since(number: WriteNumber) -> Self {
        Self {
            since: number,
            ..Self::default()
        }
    }

    /// Takes what is stored, with the number of its write, 0 where that is not stored.
    pub(super) fn restore(&mut self, key: Key, number: WriteNumber, committed: Committed) {
        self.stored.insert(key, (number, committed));
    }

    /// A commit or a removal is in flight.
    pub(super) fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A commit of these is in flight.
    pub(super) fn asked(&mut self, number: WriteNumber, keys: impl Iterator<Item = Key>) {
        self.asked.extend(keys.map(|key| (key, number)));
    }

    /// Whether an offset is known, or in flight, that was committed after this one, whose write had that number.
    pub(super) fn is_after(
        &self,
        key: &Key,
        number: WriteNumber,
        offset: &CommittedOffset,
    ) -> bool {
        let is_asked = self.asked.get(key).is_some_and(|asked| *asked > number);
        let is_stored = self.stored.get(key).is_some_and(|(stored, committed)| {
            match *stored == number {
                // Both were read, and stored by a version that stored no numbers.
                true => committed.offset.commit_ms > offset.commit_ms,
                false => *stored > number,
            }
        });
        is_asked || is_stored
    }

    /// Whether a commit or a removal is in flight.
    pub(super) fn are_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// A commit is stored; or it is refused, then without offsets. A write of a higher number may have been answered before.
    pub(super) fn finish_commit(&mut self, number: WriteNumber, offsets: Vec<(Key, Committed)>) {
        if number < self.since {
            return;
        }
        for (key, offset) in offsets {
            let known = self.stored.get(&key).map(|(number, _)| *number);
            if known.max(self.removed.get(&key).copied()) <= Some(number) {
                self.stored.insert(key, (number, offset));
            }
        }
        self.finish();
    }

    /// A removal is stored; or it is refused, then without keys.
    pub(super) fn finish_removal(&mut self, number: WriteNumber, keys: Vec<Key>) {
        if number < self.since {
            return;
        }
        for key in keys {
            let known = self.stored.get(&key).map(|(number, _)| *number);
            if known < Some(number) {
                self.stored.remove(&key);
                self.removed.insert(key, number);
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        debug_assert!(self.in_flight > 0, "what is finished was begun");
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.removed.clear();
            self.asked.clear();
        }
    }

    /// Removes what was committed in a topic that is gone. Whether its nodes can go too: not while something of a
    /// topic of the same name is stored or in flight.
    pub(super) fn remove_topic(&mut self, topic: &str, id: Uuid) -> bool {
        let before = self.stored.len();
        let of_it = |name: &str, offset: &CommittedOffset| {
            name == topic && offset.topic_id.is_none_or(|known| known == id)
        };
        self.stored
            .retain(|(name, _), (_, committed)| !of_it(name, &committed.offset));
        let left = self.stored.keys().any(|(name, _)| name == topic);
        self.stored.len() != before && !left && self.in_flight == 0
    }

    /// Offsets of topics that are gone, or were created again.
    pub(super) fn orphans(&self, id_of: impl Fn(&str) -> Option<Uuid>) -> Vec<(String, Uuid)> {
        let orphaned = |((topic, _), offset): (&Key, &CommittedOffset)| {
            let id = offset.topic_id?;
            (id_of(topic) != Some(id)).then(|| (topic.clone(), id))
        };
        let mut orphans: Vec<_> = self.iter().filter_map(orphaned).collect();
        orphans.dedup();
        orphans
    }

    /// Offsets whose retention is over. It counts from `since(topic, offset)`, or never begins if that is `None`.
    pub(super) fn expired(
        &self,
        now_ms: i64,
        retention_ms: i64,
        since: impl Fn(&str, &CommittedOffset) -> Option<i64>,
    ) -> Vec<Key> {
        let over = |(topic, offset): (&str, &CommittedOffset)| match (
            since(topic, offset),
            offset.expire_ms,
        ) {
            (None, _) => false,
            (Some(_), Some(expire_ms)) => now_ms >= expire_ms,
            (Some(since), None) => now_ms - since >= retention_ms,
        };
        self.iter()
            .filter(|((topic, _), offset)| over((topic, offset)))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::group::reserved::GroupMemory;

    fn committed(offset: CommittedOffset) -> Committed {
        let memory = GroupMemory::new(usize::MAX);
        Committed::new(offset, memory.reserve_anyway(0))
    }

    #[test]
    fn an_offset_expires_by_the_groups_retention_or_by_its_own() {
        let mut offsets = Offsets::default();
        let offset = |expire_ms| CommittedOffset {
            offset: 1,
            leader_epoch: -1,
            metadata: String::new(),
            commit_ms: 100,
            expire_ms,
            topic_id: None,
        };
        offsets.restore(("t".to_owned(), 0), 0, committed(offset(None)));
        offsets.restore(("t".to_owned(), 1), 0, committed(offset(Some(120))));
        let expired = |now, since: Option<i64>| offsets.expired(now, 50, |_, _| since).len();
        assert_eq!(expired(119, Some(100)), 0);
        assert_eq!(expired(120, Some(100)), 1);
        assert_eq!(expired(150, Some(100)), 2);
        assert_eq!(expired(10_000, None), 0);
    }

    #[test]
    fn a_commit_that_is_answered_late_does_not_undo_a_later_one_or_a_removal() {
        let key = || ("t".to_owned(), 0);
        let at = |offset| CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            commit_ms: 0,
            expire_ms: None,
            topic_id: None,
        };
        let mut offsets = Offsets::default();
        for _ in 0..5 {
            offsets.begin();
        }
        offsets.finish_commit(2, vec![(key(), committed(at(20)))]);
        offsets.finish_commit(1, vec![(key(), committed(at(10)))]);
        assert_eq!(offsets.get("t", 0).unwrap().offset, 20);
        offsets.finish_removal(4, vec![key()]);
        offsets.finish_commit(3, vec![(key(), committed(at(30)))]);
        assert_eq!(offsets.get("t", 0), None);
        assert!(!offsets.is_empty(), "a commit is in flight");
        offsets.finish_commit(5, vec![(key(), committed(at(50)))]);
        assert_eq!(offsets.get("t", 0).unwrap().offset, 50);
        assert!(!offsets.are_in_flight());
    }

    #[test]
    fn offsets_of_a_topic_go_with_its_id_and_not_with_its_name() {
        let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let of = |id| CommittedOffset {
            offset: 1,
            leader_epoch: -1,
            metadata: String::new(),
            commit_ms: 0,
            expire_ms: None,
            topic_id: Some(id),
        };
        let mut offsets = Offsets::default();
        offsets.restore(("t".to_owned(), 0), 0, committed(of(old)));
        offsets.restore(("t".to_owned(), 1), 0, committed(of(new)));
        assert_eq!(offsets.orphans(|_| Some(new)), [("t".to_owned(), old)]);
        assert!(
            !offsets.remove_topic("t", old),
            "the nodes of the new one would go too"
        );
        assert!(offsets.get("t", 0).is_none() && offsets.get("t", 1).is_some());
        assert!(offsets.remove_topic("t", new));
    }
}
