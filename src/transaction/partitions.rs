//! The partitions of a transaction, by topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

/// Partitions of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPartitions {
    /// The topic's id, nil for an internal topic.
    pub topic_id: Uuid,
    /// Indices.
    pub partitions: BTreeSet<i32>,
}

/// See the module's documentation; clones share it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partitions(Option<Arc<BTreeMap<Arc<str>, TopicPartitions>>>);

impl Partitions {
    /// None.
    pub(super) const NONE: Self = Self(None);

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.topics().map(|(_, found)| found.partitions.len()).sum()
    }

    /// Topics with their partitions, by name.
    pub fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &TopicPartitions)> {
        self.0.iter().flat_map(|topics| topics.iter())
    }

    /// All by topic and index.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, i32)> {
        self.topics()
            .flat_map(|(topic, found)| found.partitions.iter().map(move |index| (topic, *index)))
    }

    /// Whether a partition is one of them.
    pub fn contains(&self, topic: &str, index: i32) -> bool {
        let topics = self.0.as_ref();
        let found = topics.and_then(|topics| topics.get(topic));
        found.is_some_and(|found| found.partitions.contains(&index))
    }

    /// The same, of the topic with this id and not of an earlier one of the name.
    pub fn contains_of(&self, topic: &str, topic_id: Uuid, index: i32) -> bool {
        let topics = self.0.as_ref();
        let found = topics.and_then(|topics| topics.get(topic));
        found.is_some_and(|found| found.topic_id == topic_id && found.partitions.contains(&index))
    }

    /// Adds one. Those of an earlier topic of the same name are gone.
    pub fn insert(&mut self, topic: &str, topic_id: Uuid, index: i32) {
        let topics = Arc::make_mut(self.0.get_or_insert_default());
        let new = || TopicPartitions {
            topic_id,
            partitions: BTreeSet::new(),
        };
        match topics.get_mut(topic) {
            Some(found) if found.topic_id == topic_id => {
                found.partitions.insert(index);
            }
            _ => {
                let mut found = new();
                found.partitions.insert(index);
                topics.insert(topic.into(), found);
            }
        }
    }

    /// Removes one; whether it was there.
    pub fn remove(&mut self, topic: &str, index: i32) -> bool {
        if !self.contains(topic, index) {
            return false;
        }
        self.change(|topics| {
            if let Some(found) = topics.get_mut(topic) {
                found.partitions.remove(&index);
                if found.partitions.is_empty() {
                    topics.remove(topic);
                }
            }
        });
        true
    }

    /// Removes those of a topic; whether there were any.
    pub fn remove_topic(&mut self, topic: &str, topic_id: Uuid) -> bool {
        let topics = self.0.as_ref();
        let found = topics.and_then(|topics| topics.get(topic));
        if found.is_none_or(|found| found.topic_id != topic_id) {
            return false;
        }
        self.change(|topics| {
            topics.remove(topic);
        });
        true
    }

    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<Arc<str>, TopicPartitions>)) {
        if let Some(topics) = &mut self.0 {
            change(Arc::make_mut(topics));
            if topics.is_empty() {
                self.0 = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_come_and_go_and_leave_nothing() {
        let id = Uuid::from_u128(1);
        let mut all = Partitions::default();
        all.insert("a", id, 3);
        all.insert("a", id, 1);
        all.insert("b", id, 0);
        let before = all.clone();
        assert_eq!(all.len(), 3);
        assert!(all.contains("a", 3) && !all.contains("a", 2) && !all.contains("c", 0));
        assert!(all.remove("a", 3) && !all.remove("a", 3));
        assert!(!all.remove_topic("a", Uuid::from_u128(2)));
        assert!(all.remove_topic("a", id) && all.remove("b", 0));
        assert_eq!(all, Partitions::default());
        assert_eq!(before.len(), 3, "a copy stays as it was");
    }

    #[test]
    fn a_topic_that_was_made_again_has_none_of_the_partitions_before() {
        let mut all = Partitions::default();
        all.insert("a", Uuid::from_u128(1), 3);
        all.insert("a", Uuid::from_u128(2), 0);
        assert_eq!(all.iter().map(|(_, index)| index).collect::<Vec<_>>(), [0]);
    }
}
