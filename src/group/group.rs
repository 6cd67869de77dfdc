//! A group with its offsets.
//!
//! Tests: group/groups/tests.rs, group/group_coordinator/tests.rs.

use std::collections::BTreeSet;

use super::asks::{Ask, FoundOffsets, OffsetsQuery};
use super::classic::{ClassicGroup, State};
use super::consumer::{ConsumerGroup, StoredConsumerGroup, Unstored, WrittenParts};
use super::held_answers::{Held, HeldAnswers};
use super::hosted_record::{HostedShareGroup, HostedStreamsGroup};
use super::limits::INITIAL_EPOCH;
use super::messages::{CommittedOffset, GroupError, GroupKind, GroupListing, GroupSurvey};
use super::offsets::{Committed, Key, Offsets, WriteNumber};
use super::pending::PendingByProducer;
use super::share::ShareGroup;
use super::streams::StreamsGroup;
use crate::coordinator::Parts;
use crate::memory::Memory;

/// What an offset takes on its way to a client besides its texts, bytes, roughly.
pub(super) const FETCHED_OFFSET_BYTES: usize = 300;

/// The members of a group, by its protocol. A group of offsets alone is a classic one.
pub(super) enum Members {
    Classic(Box<ClassicGroup>),
    Consumer(Box<HostedConsumerGroup>),
    Share(Box<HostedShareGroup>),
    Streams(Box<HostedStreamsGroup>),
}

/// A consumer group, and what of it is on its way to the tree.
pub(super) struct HostedConsumerGroup {
    pub(super) group: ConsumerGroup,
    pub(super) nodes: StoredConsumerGroup,
    pub(super) in_flight: Option<InFlight>,
    pub(super) held: HeldAnswers,
    /// What could not be stored is stored again then, ms.
    pub(super) store_again_ms: Option<i64>,
}

/// What of a consumer group is being stored.
pub(super) struct InFlight {
    /// Tells it from others.
    pub(super) number: WriteNumber,
    /// The change up to which it goes.
    pub(super) change: u64,
    /// Multis that are not stored yet.
    pub(super) left: usize,
    pub(super) failed: Option<GroupError>,
    pub(super) what: Unstored,
    pub(super) written: WrittenParts,
}

impl HostedConsumerGroup {
    pub(super) fn new(group: ConsumerGroup, nodes: StoredConsumerGroup) -> Box<Self> {
        Box::new(Self {
            group,
            nodes,
            in_flight: None,
            held: HeldAnswers::since(0),
            store_again_ms: None,
        })
    }

    fn next_deadline(&self) -> Option<i64> {
        let both = [self.group.next_deadline(), self.store_again_ms];
        both.into_iter().flatten().min()
    }
}

/// The member of a group that has one.
pub(super) struct OnlyMember<'a> {
    pub(super) id: &'a str,
    pub(super) client_id: &'a str,
    /// That it joined by, or last spoke by.
    pub(super) connection: Option<u64>,
}

/// What members of a group read.
pub(super) enum Subscribed<'a> {
    /// Topics that members of a classic group name.
    Named(BTreeSet<String>),
    /// What members of a classic group say cannot be read; whether they are consumers.
    Unknown(bool),
    /// Members of a protocol that tells.
    By(&'a Members),
}

impl Subscribed<'_> {
    /// Whether a topic is among it. Consumers may read any, as far as is known (Kafka's ClassicGroup.isSubscribedToTopic).
    pub(super) fn has(&self, topic: &str) -> bool {
        match self {
            Self::Named(topics) => topics.contains(topic),
            Self::Unknown(are_consumers) => *are_consumers,
            Self::By(Members::Classic(_)) => false,
            Self::By(Members::Consumer(hosted)) => hosted.group.subscribes(topic),
            Self::By(Members::Share(hosted)) => hosted.group.subscribes(topic),
            Self::By(Members::Streams(hosted)) => hosted.group.subscribes(topic),
        }
    }
}

/// See the module's documentation.
pub(super) struct Group {
    pub(super) members: Members,
    /// What the record of a classic group is stored in.
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
        Self::of(Members::Classic(Box::new(classic)), offsets)
    }

    pub(super) fn of(members: Members, offsets: Offsets) -> Self {
        Self {
            members,
            parts: Parts::default(),
            offsets,
            pending: PendingByProducer::default(),
            has_transactions: false,
            removal: None,
            deadline_ms: None,
        }
    }

    /// Its members, where they are those of a classic group.
    pub(super) fn classic(&self) -> Option<&ClassicGroup> {
        match &self.members {
            Members::Classic(classic) => Some(classic),
            _ => None,
        }
    }

    pub(super) fn classic_mut(&mut self) -> Option<&mut ClassicGroup> {
        match &mut self.members {
            Members::Classic(classic) => Some(classic),
            _ => None,
        }
    }

    /// Its members, where they are those of a consumer group.
    pub(super) fn consumer(&self) -> Option<&ConsumerGroup> {
        match &self.members {
            Members::Consumer(hosted) => Some(&hosted.group),
            _ => None,
        }
    }

    pub(super) fn consumer_mut(&mut self) -> Option<&mut HostedConsumerGroup> {
        match &mut self.members {
            Members::Consumer(hosted) => Some(hosted),
            _ => None,
        }
    }

    /// The member of a group that has one.
    pub(super) fn only_member(&self) -> Option<OnlyMember<'_>> {
        match &self.members {
            Members::Classic(classic) => {
                let (id, member) = classic.members.first_key_value()?;
                Some(OnlyMember {
                    id,
                    client_id: &member.client_id,
                    connection: member.connection,
                })
            }
            Members::Consumer(hosted) => {
                let (id, member) = hosted.group.members.first_key_value()?;
                Some(OnlyMember {
                    id,
                    client_id: &member.client_id,
                    connection: member.connection,
                })
            }
            Members::Share(_) | Members::Streams(_) => None,
        }
    }

    /// Its members, where they share partitions.
    pub(super) fn share(&self) -> Option<&ShareGroup> {
        match &self.members {
            Members::Share(hosted) => Some(&hosted.group),
            _ => None,
        }
    }

    pub(super) fn share_mut(&mut self) -> Option<&mut HostedShareGroup> {
        match &mut self.members {
            Members::Share(hosted) => Some(hosted),
            _ => None,
        }
    }

    /// Its members, where they are threads of a Kafka Streams application.
    pub(super) fn streams(&self) -> Option<&StreamsGroup> {
        match &self.members {
            Members::Streams(hosted) => Some(&hosted.group),
            _ => None,
        }
    }

    pub(super) fn streams_mut(&mut self) -> Option<&mut HostedStreamsGroup> {
        match &mut self.members {
            Members::Streams(hosted) => Some(hosted),
            _ => None,
        }
    }

    pub(super) fn is_share(&self) -> bool {
        self.share().is_some()
    }

    pub(super) fn kind(&self) -> GroupKind {
        match &self.members {
            Members::Classic(_) => GroupKind::Classic,
            Members::Consumer(_) => GroupKind::Consumer,
            Members::Share(_) => GroupKind::Share,
            Members::Streams(_) => GroupKind::Streams,
        }
    }

    /// Kafka's name of its state.
    pub(super) fn state(&self) -> &'static str {
        match &self.members {
            Members::Classic(classic) => classic.state.name(),
            Members::Consumer(hosted) => hosted.group.state(),
            Members::Share(hosted) => hosted.group.state(),
            Members::Streams(hosted) => hosted.group.state(),
        }
    }

    /// When its timer is due, ms.
    pub(super) fn next_deadline(&self) -> Option<i64> {
        match &self.members {
            Members::Classic(classic) => classic.next_deadline(),
            Members::Consumer(hosted) => hosted.next_deadline(),
            Members::Share(hosted) => hosted.next_deadline(),
            Members::Streams(hosted) => hosted.next_deadline(),
        }
    }

    /// All answers that wait for a change to be stored.
    pub(super) fn take_held(&mut self) -> Vec<Held> {
        match &mut self.members {
            Members::Classic(_) => Vec::new(),
            Members::Consumer(hosted) => hosted.held.take(),
            Members::Share(hosted) => hosted.held.take(),
            Members::Streams(hosted) => hosted.held.take(),
        }
    }

    /// What its members read, to ask of many topics.
    pub(super) fn subscribed(&self) -> Subscribed<'_> {
        match &self.members {
            Members::Classic(classic) => match classic.subscribed_topics() {
                Some(topics) => Subscribed::Named(topics),
                None => Subscribed::Unknown(classic.is_of_consumers()),
            },
            members => Subscribed::By(members),
        }
    }

    /// Whether it never had a member nor an offset.
    pub(super) fn is_nothing(&self) -> bool {
        let never_had_members = match &self.members {
            Members::Classic(classic) => classic.generation == 0 && classic.protocol_type.is_none(),
            Members::Consumer(hosted) => {
                hosted.group.epoch == INITIAL_EPOCH && hosted.held.are_none()
            }
            Members::Share(hosted) => hosted.group.epoch == INITIAL_EPOCH && hosted.held.are_none(),
            Members::Streams(hosted) => {
                hosted.group.epoch == INITIAL_EPOCH && hosted.held.are_none()
            }
        };
        self.has_no_members()
            && self.offsets.is_empty()
            && self.pending.is_empty()
            && self.removal.is_none()
            && never_had_members
    }

    /// Whether it has no members, and none that is about to join.
    pub(super) fn has_no_members(&self) -> bool {
        match &self.members {
            Members::Classic(classic) => classic.is_empty() && !classic.has_pending(),
            Members::Consumer(hosted) => hosted.group.members.is_empty(),
            Members::Share(hosted) => hosted.group.members.is_empty(),
            Members::Streams(hosted) => hosted.group.members.is_empty(),
        }
    }

    /// Whether Kafka calls it empty: members may still be about to join.
    pub(super) fn is_empty(&self) -> bool {
        match &self.members {
            Members::Classic(classic) => classic.state == State::Empty,
            Members::Consumer(hosted) => hosted.group.members.is_empty(),
            Members::Share(hosted) => hosted.group.members.is_empty(),
            Members::Streams(hosted) => hosted.group.members.is_empty(),
        }
    }

    /// Such as `consumer`; empty where it never had members.
    fn protocol_type(&self) -> String {
        match &self.members {
            Members::Classic(classic) => classic.protocol_type.clone().unwrap_or_default(),
            Members::Consumer(_) => "consumer".to_owned(),
            Members::Share(_) => "share".to_owned(),
            Members::Streams(_) => "streams".to_owned(),
        }
    }

    pub(super) fn list(&self, group_id: &str) -> GroupListing {
        GroupListing {
            group_id: group_id.to_owned(),
            kind: self.kind(),
            protocol_type: self.protocol_type(),
            state: self.state(),
        }
    }

    pub(super) fn survey(&self, group_id: &str) -> GroupSurvey {
        let offset = |((topic, partition), committed): (&Key, &CommittedOffset)| {
            (topic.clone(), *partition, committed.offset)
        };
        GroupSurvey {
            group_id: group_id.to_owned(),
            kind: self.kind(),
            state: self.state(),
            members: match &self.members {
                Members::Classic(classic) => classic.members.len(),
                Members::Consumer(hosted) => hosted.group.members.len(),
                Members::Share(hosted) => hosted.group.members.len(),
                Members::Streams(hosted) => hosted.group.members.len(),
            },
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
        let read = match self.classic() {
            // As Kafka's ClassicGroup.offsetExpirationCondition: where it is known what members read.
            Some(classic) if classic.state == State::Stable => classic.subscribed_topics(),
            _ => None,
        };
        let is_unread = |topic: &str| read.as_ref().is_some_and(|read| !read.contains(topic));
        let since = |topic: &str, offset: &CommittedOffset| match &self.members {
            Members::Classic(classic) => match (classic.state, classic.protocol_type.is_some()) {
                // From when the group became empty, or from the commit if it never had a member.
                (State::Empty, true) => Some(classic.changed_ms.max(offset.commit_ms)),
                (State::Empty, false) => Some(offset.commit_ms),
                (State::Stable, _) if is_unread(topic) => Some(offset.commit_ms),
                _ => None,
            },
            // As Kafka's ConsumerGroup.offsetExpirationCondition; from when it became empty, where that is later.
            Members::Consumer(hosted) => match &hosted.group {
                group if group.members.is_empty() => Some(group.changed_ms.max(offset.commit_ms)),
                group if !group.subscribes(topic) => Some(offset.commit_ms),
                _ => None,
            },
            // As Kafka's StreamsGroup.offsetExpirationCondition.
            Members::Streams(hosted) => match &hosted.group {
                group if !group.subscribes(topic) => Some(offset.commit_ms),
                _ => None,
            },
            // It has none.
            Members::Share(_) => None,
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
    let OffsetsQuery {
        keys,
        stable,
        member,
    } = wanted;
    if let Some(consumer) = group.and_then(Group::consumer) {
        consumer.check_fetch(member.id.as_deref(), member.epoch)?;
    }
    if let Some(streams) = group.and_then(Group::streams) {
        streams.check_fetch(member.id.as_deref(), member.epoch)?;
    }
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
