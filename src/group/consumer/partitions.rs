//! Partitions by the id of their topic: as a member is to have them, and as it has them.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

pub(in crate::group) use crate::group::partitions::{Partitions, count};

/// Partitions that a member has, each with the assignment epoch: the member epoch in which it got it (KIP-1251).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::group) struct Assigned(pub(in crate::group) BTreeMap<Uuid, BTreeMap<i32, i32>>);

impl Assigned {
    pub(in crate::group) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The epoch in which a partition was assigned.
    pub(in crate::group) fn epoch_of(&self, topic: Uuid, partition: i32) -> Option<i32> {
        self.0.get(&topic)?.get(&partition).copied()
    }

    pub(in crate::group) fn has(&self, topic: Uuid, partition: i32) -> bool {
        self.epoch_of(topic, partition).is_some()
    }

    pub(in crate::group) fn insert(&mut self, topic: Uuid, partition: i32, epoch: i32) {
        self.0.entry(topic).or_default().insert(partition, epoch);
    }

    pub(in crate::group) fn remove(&mut self, topic: Uuid, partition: i32) {
        if let Some(partitions) = self.0.get_mut(&topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.0.remove(&topic);
            }
        }
    }

    /// Topic, partition, epoch.
    pub(in crate::group) fn iter(&self) -> impl Iterator<Item = (Uuid, i32, i32)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(partition, epoch)| (*topic, *partition, *epoch))
        })
    }

    /// Without the epochs.
    pub(in crate::group) fn partitions(&self) -> Partitions {
        let topics = self.0.iter();
        topics
            .map(|(topic, partitions)| (*topic, partitions.keys().copied().collect()))
            .collect()
    }

    /// All with the same epoch.
    pub(in crate::group) fn with_epoch(partitions: &Partitions, epoch: i32) -> Self {
        let of = |(topic, partitions): (&Uuid, &BTreeSet<i32>)| {
            (*topic, partitions.iter().map(|n| (*n, epoch)).collect())
        };
        Self(partitions.iter().map(of).collect())
    }

    /// Whether all of these partitions are among them.
    pub(in crate::group) fn has_all(&self, owned: &[(Uuid, Vec<i32>)]) -> bool {
        owned.iter().all(|(topic, partitions)| {
            partitions
                .iter()
                .all(|partition| self.has(*topic, *partition))
        })
    }

    /// Whether any of these partitions is among them.
    pub(in crate::group) fn has_any(&self, owned: &[(Uuid, Vec<i32>)]) -> bool {
        owned.iter().any(|(topic, partitions)| {
            partitions
                .iter()
                .any(|partition| self.has(*topic, *partition))
        })
    }

    /// As if assigned before any epoch: a static member that left for a while has them under another member id.
    pub(in crate::group) fn reset_epochs(&mut self) {
        for partitions in self.0.values_mut() {
            partitions.values_mut().for_each(|epoch| *epoch = 0);
        }
    }
}
