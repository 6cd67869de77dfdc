//! Slots: groups and transactional ids are spread over them by hash. Kafka spreads them over the partitions of internal
//! topics: slot n is shown as partition n of these, its owner as the leader, its epoch as the leader epoch.

use std::fmt;

/// One of [`Slot::COUNT`] slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(usize);

impl Slot {
    /// How many there are. Ids would be in other slots with another number: it is fixed.
    pub const COUNT: usize = 64;

    /// The slot of a group id or a transactional id.
    pub fn of(id: &str) -> Self {
        Self(crc32c::crc32c(id.as_bytes()) as usize % Self::COUNT)
    }

    /// The slot with a number, if there is one.
    pub fn new(number: usize) -> Option<Self> {
        (number < Self::COUNT).then_some(Self(number))
    }

    /// All slots in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// Its number, below [`Self::COUNT`].
    pub fn number(self) -> usize {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An internal topic of Kafka whose partitions stand for slots. Its records are not there: what Kafka keeps in them is in
/// the coordination tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InternalTopic {
    /// `__consumer_offsets`: groups and their offsets.
    ConsumerOffsets,
    /// `__transaction_state`: transactional ids.
    TransactionState,
    /// `__share_group_state`: what share groups have done with records. Clients are not shown it.
    ShareGroupState,
}

impl InternalTopic {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConsumerOffsets => "__consumer_offsets",
            Self::TransactionState => "__transaction_state",
            Self::ShareGroupState => "__share_group_state",
        }
    }

    /// The internal topic of a name that clients are shown.
    pub fn named(name: &str) -> Option<Self> {
        [Self::ConsumerOffsets, Self::TransactionState]
            .into_iter()
            .find(|topic| topic.name() == name)
    }
}

/// A partition of an internal topic, which is a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotPartition {
    /// The topic.
    pub topic: InternalTopic,
    /// The slot.
    pub slot: Slot,
}

impl SlotPartition {
    /// The slot that a partition of a topic stands for; `None` for any other topic, or without such a partition.
    pub fn find(topic: &str, partition: i32) -> Option<Self> {
        Some(Self {
            topic: InternalTopic::named(topic)?,
            slot: Slot::new(usize::try_from(partition).ok()?)?,
        })
    }

    /// The partition's index in its topic.
    pub fn index(self) -> i32 {
        self.slot.number() as i32
    }
}

impl fmt::Display for SlotPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic.name(), self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_in_a_slot_and_always_in_the_same() {
        // The slots of groups that are stored already.
        assert_eq!(Slot::of("g").number(), 24);
        assert_eq!(Slot::of("").number(), 0);
        for id in ["a", "orders", "ü", "a/b"] {
            assert!(Slot::all().any(|slot| slot == Slot::of(id)));
        }
    }

    #[test]
    fn a_slot_is_a_partition_of_an_internal_topic_and_the_partition_is_the_slot() {
        for topic in [
            InternalTopic::ConsumerOffsets,
            InternalTopic::TransactionState,
        ] {
            for slot in Slot::all() {
                let partition = SlotPartition { topic, slot };
                let found = SlotPartition::find(topic.name(), partition.index());
                assert_eq!(found, Some(partition));
            }
            for none in [-1, Slot::COUNT as i32, i32::MAX] {
                assert_eq!(SlotPartition::find(topic.name(), none), None);
            }
        }
        assert_eq!(SlotPartition::find("orders", 0), None);
        let shown = SlotPartition::find("__consumer_offsets", 5).map(|found| found.to_string());
        assert_eq!(shown.as_deref(), Some("__consumer_offsets-5"));
    }
}
