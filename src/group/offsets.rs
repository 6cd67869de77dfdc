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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_expires_by_the_groups_retention_or_by_its_own() {
        let mut offsets = Offsets::default();
        let offset = |expire_ms| CommittedOffset {
            offset: 1,
            leader_epoch: -1,
            metadata: String::new(),
            commit_ms: 100,
            expire_ms,
        };
        offsets.store(("t".to_owned(), 0), offset(None));
        offsets.store(("t".to_owned(), 1), offset(Some(120)));
        let expired = |now, since: Option<i64>| offsets.expired(now, 50, |_, _| since).len();
        assert_eq!(expired(119, Some(100)), 0);
        assert_eq!(expired(120, Some(100)), 1);
        assert_eq!(expired(150, Some(100)), 2);
        assert_eq!(expired(10_000, None), 0);
    }
}
