//! The offsets of one group.

use std::collections::BTreeMap;

use super::messages::CommittedOffset;

/// Topic and partition index.
pub(super) type Key = (String, i32);

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(super) struct Offsets {
    stored: BTreeMap<Key, CommittedOffset>,
}

impl Offsets {
    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.stored.get(&(topic.to_owned(), partition))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &CommittedOffset)> {
        self.stored.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    pub(super) fn store(&mut self, key: Key, offset: CommittedOffset) {
        self.stored.insert(key, offset);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.stored.remove(key);
    }

    pub(super) fn remove_topic(&mut self, topic: &str) -> bool {
        let before = self.stored.len();
        self.stored.retain(|(name, _), _| name != topic);
        self.stored.len() != before
    }

    /// Offsets whose time is over. It counts from `since(topic, offset)`, or never begins where that is `None`.
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
        self.stored
            .iter()
            .filter(|((topic, _), offset)| over((topic, offset)))
            .map(|(key, _)| key.clone())
            .collect()
    }
}
