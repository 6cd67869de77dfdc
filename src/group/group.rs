//! A group with its offsets.

use super::asks::{Ask, FoundOffsets, OffsetsQuery};
use super::classic::{ClassicGroup, State};
use super::messages::{CommittedOffset, GroupError, GroupListing, GroupSurvey};
use super::offsets::{Committed, Key, Offsets, WriteNumber};
use super::pending::PendingByProducer;
use crate::coordinator::Parts;
use crate::memory::Memory;

/// What an offset takes on its way to a client besides its texts, bytes, roughly.
const FETCHED_OFFSET_BYTES: usize = 300;

/// See the module's documentation.
pub(super) struct Group {
    pub(super) classic: ClassicGroup,
    /// What its record is stored in.
    pub(super) parts: Parts,
    pub(super) offsets: Offsets,
    /// Those of open transactions.
    pub(super) pending: PendingByProducer,
    /// Whether transactions had some since the slot was loaded.
    pub(super) has_transactions: bool,
    /// Set while its removal is in flight: asks that would change it, in order, which wait for the outcome.
    pub(super) removal: Option<Vec<Ask>>,
    /// Its timer, as it stands in the slot's list, ms.
    pub(super) deadline_ms: Option<i64>,
}

impl Group {
    pub(super) fn new(classic: ClassicGroup, offsets: Offsets) -> Self {
        Self {
            classic,
            parts: Parts::default(),
            offsets,
            pending: PendingByProducer::default(),
            has_transactions: false,
            removal: None,
            deadline_ms: None,
        }
    }

    /// Whether it never had a member nor an offset.
    pub(super) fn is_nothing(&self) -> bool {
        self.has_no_members()
            && self.offsets.is_empty()
            && self.pending.is_empty()
            && self.removal.is_none()
            && self.classic.generation == 0
            && self.classic.protocol_type.is_none()
    }

    /// Whether it has no members, and none that is about to join.
    pub(super) fn has_no_members(&self) -> bool {
        self.classic.is_empty() && !self.classic.has_pending()
    }

    pub(super) fn list(&self, group_id: &str) -> GroupListing {
        GroupListing {
            group_id: group_id.to_owned(),
            protocol_type: self.classic.protocol_type.clone().unwrap_or_default(),
            state: self.classic.state.name(),
        }
    }

    pub(super) fn survey(&self, group_id: &str) -> GroupSurvey {
        let offset = |((topic, partition), committed): (&Key, &CommittedOffset)| {
            (topic.clone(), *partition, committed.offset)
        };
        GroupSurvey {
            group_id: group_id.to_owned(),
            state: self.classic.state.name(),
            members: self.classic.members.len(),
            offsets: self.offsets.iter().map(offset).collect(),
        }
    }

    /// The number of a write as it is stored: with it another owner of the slot knows which of two offsets is the later one.
    pub(super) fn number_to_store(&self, number: WriteNumber) -> Option<WriteNumber> {
        self.has_transactions.then_some(number)
    }

    /// A commit is in flight.
    pub(super) fn begin_commit(&mut self, number: WriteNumber, offsets: &[(Key, Committed)]) {
        self.offsets.begin();
        if !self.pending.is_empty() {
            let keys = offsets.iter().map(|(key, _)| key.clone());
            self.offsets.asked(number, keys);
        }
    }

    /// What becomes an offset of the group when a producer's transaction is committed: not what was committed otherwise
    /// after it (Kafka compares where the records are).
    pub(super) fn decided_offsets(&self, producer_id: i64) -> Vec<(Key, Committed)> {
        let Some(pending) = self.pending.0.get(&producer_id) else {
            return Vec::new();
        };
        let offsets = pending.offsets.iter();
        let newer = offsets.filter(|(key, pending)| {
            !self
                .offsets
                .is_after(key, pending.number, pending.committed.offset())
        });
        newer
            .map(|(key, pending)| (key.clone(), pending.committed.clone()))
            .collect()
    }

    /// Keys of offsets whose retention is over (KIP-211), but for those that a transaction may replace.
    pub(super) fn expired_offsets(&self, now_ms: i64, retention_ms: i64) -> Vec<Key> {
        let classic = &self.classic;
        let since = |topic: &str, offset: &CommittedOffset| {
            match (classic.state, classic.protocol_type.is_some()) {
                // From when the group became empty, or from the commit if it never had a member.
                (State::Empty, true) => Some(classic.changed_ms.max(offset.commit_ms)),
                (State::Empty, false) => Some(offset.commit_ms),
                (State::Stable, _) if !classic.subscribes(topic) => Some(offset.commit_ms),
                _ => None,
            }
        };
        let mut expired = self.offsets.expired(now_ms, retention_ms, since);
        expired.retain(|key| !self.pending.has(key));
        expired
    }
}

/// The offsets that are asked for, of a group that may not exist.
pub(super) fn fetch_offsets(
    group: Option<&Group>,
    wanted: OffsetsQuery,
    memory: &Memory,
) -> Result<FoundOffsets, GroupError> {
    let OffsetsQuery { keys, stable } = wanted;
    let share = memory.try_take(fetched_bytes(group, keys.as_ref()));
    let share = share.ok_or(GroupError::CoordinatorNotAvailable)?;
    let is_open = |key: &Key| stable && group.is_some_and(|group| group.pending.has(key));
    let of_key = |key: &Key, offset: Option<&CommittedOffset>| match is_open(key) {
        true => Err(GroupError::UnstableOffsetCommit),
        false => Ok(offset.cloned()),
    };
    let stored = |key: &Key| group?.offsets.get(&key.0, key.1);
    let offsets = match (keys, group) {
        (Some(keys), _) => {
            let found = keys
                .into_iter()
                .map(|key| (of_key(&key, stored(&key)), key));
            found.map(|(offset, key)| (key, offset)).collect()
        }
        (None, Some(group)) => {
            let all = group.offsets.iter();
            all.map(|(key, offset)| (key.clone(), of_key(key, Some(offset))))
                .collect()
        }
        (None, None) => Vec::new(),
    };
    Ok(FoundOffsets { offsets, share })
}

/// What the offsets of a group take until they are answered, bytes.
fn fetched_bytes(group: Option<&Group>, wanted: Option<&Vec<Key>>) -> usize {
    let named = |(topic, _): &Key| FETCHED_OFFSET_BYTES + topic.len();
    let text = |key: &Key| {
        let offset = group.and_then(|group| group.offsets.get(&key.0, key.1));
        offset.map_or(0, |offset| offset.metadata.len())
    };
    match (group, wanted) {
        (_, Some(keys)) => keys.iter().map(|key| named(key) + text(key)).sum(),
        (Some(group), None) => {
            let all = group.offsets.iter();
            all.map(|(key, offset)| named(key) + offset.metadata.len())
                .sum()
        }
        (None, None) => 0,
    }
}
