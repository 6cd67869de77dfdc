//! The coordinator of groups, as the rest of the broker sees it: checks what is asked, and asks the group's slot.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::asks::{Ask, AskAll, ByTopic, FoundOffsets, OffsetsQuery, Outcomes, ShareAsk};
use super::consumer::{ConsumerHeartbeat, ConsumerReply, ConsumerSettings, GroupSettings};
use super::groups::{GroupContext, Groups};
use super::limits::{
    GROUP_ID_BYTES_MAX, GroupLimits, MEMBER_BYTES_MAX, MEMBER_ID_BYTES_MAX, kept_bytes,
    member_bytes,
};
use super::messages::{
    CommitOffsets, Described, GroupError, GroupListing, GroupSurvey, Guard, Heartbeat, JoinReply,
    JoinRequest, LeaveMember, Refusal, SyncReply, SyncRequest, TransactionEnd, TransactionalCommit,
};
use super::mirror::MirrorFeed;
use super::reserved::GroupMemory;
use super::share::{ShareHeartbeat, ShareReply, ToDelete};
use super::streams::{StreamsHeartbeat, StreamsReply};
use crate::clock::WallClock;
use crate::coordinator::{Answer, Coordinator, Ownership, Slot, Topics};
use crate::memory::Memory;
use crate::meta::paths::SOLO;
use crate::meta::{MetaError, MetaStore};
use crate::observe::Events;

/// See the module's documentation; clones share it.
#[derive(Clone)]
pub struct GroupCoordinator {
    slots: Coordinator<Groups>,
}

impl GroupCoordinator {
    /// Coordinates nothing until slots are assigned.
    pub fn new(
        meta: MetaStore,
        topics: Arc<dyn Topics>,
        (limits, settings): (GroupLimits, Arc<dyn GroupSettings>),
        wall: &WallClock,
        (events, memory): (Events, Memory),
        mirror: Option<Arc<MirrorFeed>>,
    ) -> Self {
        let context = GroupContext {
            limits,
            settings,
            events,
            memory,
            mirror,
            members: GroupMemory::new(limits.members_bytes_max),
            offsets: GroupMemory::new(limits.offsets_bytes_max),
            share_groups: GroupMemory::new(limits.share_groups_max),
        };
        Self {
            slots: Coordinator::new(meta, topics, wall, context),
        }
    }

    /// Coordinates the groups of these slots and no others.
    pub async fn assign(&self, owned: &BTreeMap<Slot, Ownership>) -> Result<(), MetaError> {
        self.slots.assign(owned).await
    }

    /// Answers members that wait for others, and lets none wait from now on: the broker shuts down.
    pub fn drain(&self) {
        self.slots.drain();
    }

    /// Ends all slots; members that wait learn that the coordinator is another one.
    pub fn stop(&self) {
        self.slots.stop();
    }

    async fn ask<T>(
        &self,
        group_id: &str,
        ask: impl FnOnce(Answer<T>) -> Ask,
    ) -> Result<T, GroupError> {
        self.ask_queued(group_id, ask, || ()).await
    }

    async fn ask_queued<T>(
        &self,
        group_id: &str,
        ask: impl FnOnce(Answer<T>) -> Ask,
        queued: impl FnOnce(),
    ) -> Result<T, GroupError> {
        if group_id.len() > GROUP_ID_BYTES_MAX || group_id.contains(SOLO) {
            return Err(GroupError::InvalidGroupId);
        }
        Ok(self.slots.ask(group_id, ask, queued).await?)
    }

    /// For what may wait for other members.
    async fn ask_unless_draining<T>(
        &self,
        group_id: &str,
        ask: impl FnOnce(Answer<T>) -> Ask,
    ) -> Result<T, GroupError> {
        check_named(group_id)?;
        Ok(self.slots.ask_unless_draining(group_id, ask).await?)
    }

    /// Joins a group; answers when the generation is formed. A reply with generation -1 gives a member the id
    /// that it must come back with.
    pub async fn join(
        &self,
        group_id: &str,
        mut request: JoinRequest,
    ) -> Result<JoinReply, GroupError> {
        check_named(group_id)?;
        let GroupContext {
            limits, members, ..
        } = self.slots.context();
        let range = limits.session_timeout_min_ms..=limits.session_timeout_max_ms;
        if !range.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let protocols = request.protocols.iter();
        let protocols = protocols.map(|(name, data)| name.len() + data.len());
        let instance_id = request.instance_id.as_ref().map_or(0, String::len);
        let bytes = protocols.sum::<usize>() + request.protocol_type.len() + instance_id;
        if bytes > MEMBER_BYTES_MAX {
            return Err(GroupError::InvalidRequest);
        }
        let names = group_id.len() + request.client_id.len() + request.member_id.len();
        let share = members.reserve(member_bytes(bytes + names));
        request.reserved = Some(share.ok_or(GroupError::GroupMaxSizeReached)?);
        let request = Box::new(request);
        self.ask_unless_draining(group_id, |answer| Ask::Join(request, answer))
            .await?
    }

    /// Fetches a member's assignment, or brings those of all members; answers when it is stored.
    pub async fn sync(
        &self,
        group_id: &str,
        mut request: SyncRequest,
    ) -> Result<SyncReply, GroupError> {
        check_named(group_id)?;
        let mut assignments = request.assignments.values();
        if assignments.any(|assignment| assignment.len() > MEMBER_BYTES_MAX) {
            return Err(GroupError::InvalidRequest);
        }
        if !request.assignments.is_empty() {
            let members = &self.slots.context().members;
            let assigned = request.assignments.iter();
            let bytes = assigned.map(|(id, assignment)| id.len() + assignment.len());
            let share = members.reserve(kept_bytes(bytes.sum()));
            // GROUP_MAX_SIZE_REACHED is none of SyncGroup's errors: of this one clients know that they may join again later.
            request.reserved = Some(share.ok_or(GroupError::CoordinatorNotAvailable)?);
        }
        self.ask_unless_draining(group_id, |answer| Ask::Sync(request, answer))
            .await?
    }

    /// A member says that it lives.
    pub async fn heartbeat(&self, group_id: &str, beat: Heartbeat) -> Result<(), GroupError> {
        check_named(group_id)?;
        self.ask(group_id, |answer| Ask::Heartbeat(beat, answer))
            .await?
    }

    /// A heartbeat of a member that speaks KIP-848.
    pub async fn consumer_heartbeat(
        &self,
        group_id: &str,
        mut beat: ConsumerHeartbeat,
    ) -> Result<ConsumerReply, Refusal> {
        let members = &self.slots.context().members;
        let texts = [&beat.regex, &beat.instance_id, &beat.rack_id];
        let texts = texts.into_iter().flatten().map(String::len);
        let topics = beat.topics.iter().flatten().map(String::len);
        let bytes = texts.sum::<usize>() + topics.sum::<usize>();
        if bytes > MEMBER_BYTES_MAX || beat.member_id.len() > MEMBER_ID_BYTES_MAX {
            return Err(GroupError::InvalidRequest.into());
        }
        // What changes nothing takes nothing. The group knows whether the share may stay.
        if beat.topics.is_some() || beat.regex.is_some() {
            let names = group_id.len() + beat.client_id.len() + beat.member_id.len();
            beat.reserved = Some(members.reserve_anyway(member_bytes(bytes + names)));
        }
        let beat = Box::new(beat);
        self.ask(group_id, |answer| Ask::ConsumerHeartbeat(beat, answer))
            .await?
    }

    /// A heartbeat of a thread of a Kafka Streams application (KIP-1071).
    pub async fn streams_heartbeat(
        &self,
        group_id: &str,
        mut beat: StreamsHeartbeat,
    ) -> Result<StreamsReply, Refusal> {
        let members = &self.slots.context().members;
        let (bytes, of_topology) = (beat.bytes(), beat.topology_bytes());
        let (of_offsets, of_ends) = beat.offset_bytes();
        let sizes = [bytes, of_topology, of_offsets, of_ends, beat.owned_bytes()];
        let is_too_large = sizes.into_iter().any(|bytes| bytes > MEMBER_BYTES_MAX);
        if is_too_large || beat.member_id.len() > MEMBER_ID_BYTES_MAX {
            return Err(GroupError::InvalidRequest.into());
        }
        // What changes nothing takes nothing. What is kept is in the coordination tree too.
        if beat.topology.is_some() || bytes > 0 {
            let names = group_id.len() + beat.client_id.len() + beat.member_id.len();
            let share = members.reserve_anyway(member_bytes(bytes + names));
            beat.reserved.member = Some(share);
        }
        if of_topology > 0 {
            let share = members.reserve(kept_bytes(of_topology));
            beat.reserved.topology = Some(share.ok_or(GroupError::GroupMaxSizeReached)?);
        }
        // The group keeps them where there is room.
        let share = |bytes| Some(members.reserve_anyway(bytes));
        beat.reserved.offsets = beat.offsets.as_ref().and_then(|_| share(of_offsets));
        beat.reserved.end_offsets = beat.end_offsets.as_ref().and_then(|_| share(of_ends));
        let beat = Box::new(beat);
        self.ask(group_id, |answer| Ask::StreamsHeartbeat(beat, answer))
            .await?
    }

    /// What is in force for a consumer group.
    pub fn consumer_settings(&self, group_id: &str) -> Arc<ConsumerSettings> {
        self.slots.context().settings.consumer(group_id)
    }

    /// Takes members out; an outcome for each.
    pub async fn leave(
        &self,
        group_id: &str,
        members: Vec<LeaveMember>,
    ) -> Result<Outcomes, GroupError> {
        check_named(group_id)?;
        self.ask(group_id, |answer| Ask::Leave(members, answer))
            .await
    }

    /// Stores offsets durably; an outcome for each. `queued` is called once commits that come later are stored later.
    pub async fn commit(
        &self,
        group_id: &str,
        commit: CommitOffsets,
        queued: impl FnOnce(),
    ) -> Result<Outcomes, GroupError> {
        self.ask_queued(group_id, |answer| Ask::Commit(commit, answer), queued)
            .await
    }

    /// Stored offsets.
    pub async fn fetch_offsets(
        &self,
        group_id: &str,
        wanted: OffsetsQuery,
    ) -> Result<FoundOffsets, GroupError> {
        self.ask(group_id, |answer| Ask::FetchOffsets(wanted, answer))
            .await?
    }

    /// Begins to verify that a producer's transaction includes the group. `None` where offsets of it are here already;
    /// otherwise the commit must bring the guard, after the coordinator of the transaction has confirmed it.
    pub async fn verify_transaction(
        &self,
        group_id: &str,
        (producer_id, producer_epoch): (i64, i16),
    ) -> Result<Option<Guard>, GroupError> {
        check_named(group_id)?;
        let ask = |answer| Ask::VerifyTransaction {
            producer_id,
            producer_epoch,
            answer,
        };
        self.ask(group_id, ask).await?
    }

    /// Stores offsets of a transaction durably, which are the group's once it is committed; an outcome for each.
    pub async fn commit_transactional(
        &self,
        group_id: &str,
        commit: TransactionalCommit,
    ) -> Result<Outcomes, GroupError> {
        check_named(group_id)?;
        self.ask(group_id, |answer| Ask::CommitTransactional(commit, answer))
            .await
    }

    /// A transaction is over: its offsets in all groups of a slot become the groups', or go. Answers when that is stored.
    pub async fn end_transaction(&self, slot: Slot, end: TransactionEnd) -> Result<(), GroupError> {
        self.slots
            .ask_slot_of(slot, |answer| AskAll::EndTransaction(end, answer))
            .await?
    }

    /// A heartbeat of a member of a share group.
    pub async fn share_heartbeat(
        &self,
        group_id: &str,
        mut beat: ShareHeartbeat,
    ) -> Result<ShareReply, Refusal> {
        check_named(group_id)?;
        let members = &self.slots.context().members;
        let topics = beat.topics.iter().flatten().map(String::len);
        let bytes = topics.sum::<usize>() + beat.rack.as_ref().map_or(0, String::len);
        if bytes > MEMBER_BYTES_MAX {
            return Err(GroupError::InvalidRequest.into());
        }
        if beat.topics.is_some() {
            let names = group_id.len() + beat.client_id.len() + beat.member_id.len();
            beat.reserved = Some(members.reserve_anyway(member_bytes(bytes + names)));
        }
        let beat = Box::new(beat);
        self.ask(group_id, |answer| {
            Ask::Share(ShareAsk::Heartbeat(beat, answer))
        })
        .await?
    }

    /// Share partitions of a group are initialized, and others could not be; by topic. `beyond` is the latest state epoch that
    /// others of them have, 0 for none.
    pub async fn share_initialized(
        &self,
        group_id: &str,
        (done, failed): (ByTopic, ByTopic),
        beyond: i32,
    ) -> Result<(), GroupError> {
        self.ask(group_id, |answer| {
            Ask::Share(ShareAsk::Initialized {
                done,
                failed,
                beyond,
                answer,
            })
        })
        .await?
    }

    /// Offsets of a share group without members are to be set: with this state epoch. The group is made if there is none. No
    /// member is assigned these until [`Self::share_initialized`] says how it ended.
    pub async fn share_alter(&self, group_id: &str, topics: ByTopic) -> Result<i32, GroupError> {
        check_named(group_id)?;
        self.ask(group_id, |answer| {
            Ask::Share(ShareAsk::Alter(topics, answer))
        })
        .await?
    }

    /// A share group without members is to have no more to do with some topics, or with all: what of them may be stored, which
    /// is remembered until [`Self::share_deleted`] says that it is gone.
    pub async fn share_delete(
        &self,
        group_id: &str,
        topics: Option<Vec<Uuid>>,
    ) -> Result<ToDelete, GroupError> {
        check_named(group_id)?;
        self.ask(group_id, |answer| {
            Ask::Share(ShareAsk::Delete(topics, answer))
        })
        .await?
    }

    /// Nothing is stored any more of what was to be deleted of a topic.
    pub async fn share_deleted(&self, group_id: &str, topic_id: Uuid) -> Result<(), GroupError> {
        self.ask(group_id, |answer| {
            Ask::Share(ShareAsk::Deleted(topic_id, answer))
        })
        .await?
    }

    /// The share partitions that a group began with, by topic.
    pub async fn share_partitions(&self, group_id: &str) -> Result<ByTopic, GroupError> {
        self.ask(group_id, |answer| Ask::Share(ShareAsk::Partitions(answer)))
            .await?
    }

    /// A group, if it exists.
    pub async fn describe(&self, group_id: &str) -> Result<Option<Described>, GroupError> {
        self.ask(group_id, Ask::Describe).await
    }

    /// All groups that this broker coordinates, by id.
    pub async fn list(&self) -> Result<Vec<GroupListing>, GroupError> {
        if self.slots.is_loading() {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        let mut all = self.slots.ask_all(AskAll::List).await.concat();
        all.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        Ok(all)
    }

    /// All groups that this broker coordinates, by id, with their offsets.
    pub async fn survey(&self) -> Vec<GroupSurvey> {
        let mut all = self.slots.ask_all(AskAll::Survey).await.concat();
        all.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        all
    }

    /// Deletes an empty group with its offsets.
    pub async fn delete(&self, group_id: &str) -> Result<(), GroupError> {
        self.ask(group_id, Ask::Delete).await?
    }

    /// Deletes offsets of topics that no member reads; an outcome for each.
    pub async fn delete_offsets(
        &self,
        group_id: &str,
        keys: Vec<(String, i32)>,
    ) -> Result<Outcomes, GroupError> {
        check_named(group_id)?;
        self.ask(group_id, |answer| Ask::DeleteOffsets(keys, answer))
            .await?
    }

    /// Forgets all offsets in a topic that was deleted.
    pub async fn topic_deleted(&self, topic: &str, id: Uuid) {
        let deleted = || AskAll::TopicDeleted(topic.to_owned(), id);
        self.slots.queue_all(deleted).await;
    }

    /// Where what becomes known of groups is queued for `__consumer_offsets`, if it is.
    pub fn mirror(&self) -> Option<&Arc<MirrorFeed>> {
        self.slots.context().mirror.as_ref()
    }

    /// Queues all that is known of a slot's groups for the mirror, if the slot is here.
    pub async fn mirror_whole(&self, slot: Slot) {
        self.slots.queue(slot, AskAll::Mirror).await;
    }
}

/// What has members has a name; offsets alone may be without (Kafka's GroupCoordinatorService).
fn check_named(group_id: &str) -> Result<(), GroupError> {
    let is_named = !group_id.is_empty() && !group_id.contains(SOLO);
    match !is_named || group_id.len() > GROUP_ID_BYTES_MAX {
        true => Err(GroupError::InvalidGroupId),
        false => Ok(()),
    }
}
