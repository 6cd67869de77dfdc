//! Broadcast groups (`metaq.consume.mode`; MetaQ's own, Kafka has no such thing): every member gets every message.
//!
//! What is asked about such a group goes to the [solo group](Solo) of the member that asks, or is answered for all of them.
//! A member alone leads its group, so its client assigns it all that it reads, with whatever assignor it has; one that speaks KIP-848
//! is assigned all of it here. `shown` has what people see of such a group.
//!
//! - The mode takes effect when the group has no members: with members it stays as it is.
//! - OffsetFetch names no member before version 9, and some clients name none later: then the connection tells which
//!   member joined or spoke by it, or else the client id does, where it is that of members with the same offsets.
//! - Anybody else is told the offsets of the slowest member that is there, or of the slowest of all where none is.
//! - Offsets that are committed from outside are those of every member.
//!
//! Tests: group/groups/tests/broadcast.rs, group/groups/tests/broadcast_consumer.rs.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::classic::new_member_id;
use super::commits::check_each;
use super::{Groups, Then};
use crate::coordinator::Answer;
use crate::group::asks::{Ask, AskingMember, FoundOffsets, OffsetsQuery, Outcomes};
use crate::group::classic::{Change, ClassicGroup};
use crate::group::consumer::{CommitKind, ConsumerHeartbeat};
use crate::group::group::{FETCHED_OFFSET_BYTES, Group, Members};
use crate::group::limits::STORE_AGAIN_MS;
use crate::group::messages::{
    CommitOffsets, CommittedOffset, GroupError, JoinRequest, LeaveMember, Refusal,
    TransactionalCommit,
};
use crate::group::offsets::{Key, Offsets};
use crate::group::persist;
use crate::group::producers::WaitingForProducer;
use crate::group::solo::{Solo, group_of};
use crate::meta::paths::SOLO;

impl Groups {
    /// The solo groups of a group, by id.
    pub(super) fn solos(
        &self,
        group_id: &str,
    ) -> impl Iterator<Item = (&String, &Group)> + use<'_> {
        let after = char::from(SOLO as u8 + 1);
        self.groups
            .range(format!("{group_id}{SOLO}")..format!("{group_id}{after}"))
    }

    /// Whether it is a broadcast group with members.
    pub(super) fn has_solos(&self, group_id: &str) -> bool {
        self.solos(group_id).any(|(_, solo)| is_there(solo))
    }

    /// Whether the group's members stand alone, or would.
    pub(super) fn is_broadcast(&self, group_id: &str) -> bool {
        match self.groups.get(group_id) {
            Some(group) if group.is_share() || !group.has_no_members() => false,
            _ => self.has_solos(group_id) || self.context.settings.is_broadcast(group_id),
        }
    }

    /// Where an ask goes on: one about a broadcast group with a solo group of it. `None` where it is answered.
    pub(super) fn of_broadcast(
        &mut self,
        now_ms: i64,
        group_id: String,
        ask: Ask,
    ) -> Option<(String, Ask)> {
        if Solo::of(&group_id).is_some() {
            return Some((group_id, ask));
        }
        match ask {
            Ask::Delete(answer) if self.solos(&group_id).next().is_some() => {
                self.delete_with_solos(now_ms, group_id, answer);
            }
            Ask::Describe(answer) if self.is_shown_as_broadcast(&group_id) => {
                answer.send(Some(self.describe_broadcast(&group_id)));
            }
            Ask::FetchOffsets(mut query, answer) if self.is_shown_as_broadcast(&group_id) => {
                let reader = self.reader(&group_id, &query.member);
                query.member = AskingMember::NOBODY;
                match reader {
                    Ok(Some(id)) => return Some((id, Ask::FetchOffsets(query, answer))),
                    Ok(None) => answer.send(self.fetch_slowest(&group_id, query)),
                    Err(error) => answer.send(Err(error)),
                }
            }
            Ask::DeleteOffsets(keys, answer) if self.is_shown_as_broadcast(&group_id) => {
                self.delete_offsets_of_each(now_ms, &group_id, keys, answer);
            }
            ask if self.is_broadcast(&group_id) => return self.hand_on(now_ms, group_id, ask),
            ask => return Some((group_id, ask)),
        }
        None
    }

    /// What a member asks, or somebody who would be one.
    fn hand_on(&mut self, now_ms: i64, group_id: String, ask: Ask) -> Option<(String, Ask)> {
        let unknown = GroupError::UnknownMemberId;
        match ask {
            Ask::Join(request, answer) => match self.solo_to_join(&group_id, &request) {
                Ok(id) => return Some((id, Ask::Join(request, answer))),
                Err(error) => answer.send(Err(error)),
            },
            Ask::Sync(request, answer) => {
                let member = (&*request.member_id, request.instance_id.as_deref());
                match self.solo_of(&group_id, member) {
                    Some(id) => return Some((id, Ask::Sync(request, answer))),
                    None => answer.send(Err(unknown)),
                }
            }
            Ask::Heartbeat(beat, answer) => {
                let member = (&*beat.member_id, beat.instance_id.as_deref());
                match self.solo_of(&group_id, member) {
                    Some(id) => return Some((id, Ask::Heartbeat(beat, answer))),
                    None => answer.send(Err(unknown)),
                }
            }
            Ask::Leave(members, answer) => {
                let leave = |leaving| self.leave_solo(now_ms, &group_id, leaving);
                answer.send(members.iter().map(leave).collect());
            }
            Ask::Commit(commit, answer) => {
                return self.commit_to_solo(now_ms, group_id, commit, answer);
            }
            Ask::CommitTransactional(commit, answer) => {
                return self.commit_transactional_to_solo(&group_id, commit, answer);
            }
            Ask::ConsumerHeartbeat(mut beat, answer) => {
                match self.solo_to_beat(&group_id, &mut beat) {
                    Ok(id) => return Some((id, Ask::ConsumerHeartbeat(beat, answer))),
                    Err(refusal) => answer.send(Err(refusal)),
                }
            }
            ask => return Some((group_id, ask)),
        }
        None
    }

    /// The solo group of a member. A static member may leave out what it is called.
    fn solo_of(
        &self,
        group_id: &str,
        (member_id, instance): (&str, Option<&str>),
    ) -> Option<String> {
        let named = instance.map(Solo::Instance).into_iter();
        let mut named = named.chain([Solo::Member(member_id)]);
        let known = named.find_map(|solo| {
            let id = solo.id_in(group_id);
            self.groups.contains_key(&id).then_some(id)
        });
        let is_of = |solo: &Group| {
            let member = solo.only_member();
            member.is_some_and(|member| member.id == member_id)
        };
        let with_it = || self.solos(group_id).find(|(_, solo)| is_of(solo));
        known.or_else(|| with_it().map(|(id, _)| id.clone()))
    }

    fn solo_to_join(&self, group_id: &str, request: &JoinRequest) -> Result<String, GroupError> {
        let id = match (&request.instance_id, &*request.member_id) {
            (Some(instance), _) => Solo::Instance(instance).id_in(group_id),
            (None, "") => Solo::Member(&new_member_id(request)).id_in(group_id),
            (None, member_id) => self
                .solo_of(group_id, (member_id, None))
                .ok_or(GroupError::UnknownMemberId)?,
        };
        match self.has_place(group_id, &id, self.context.limits.members_max) {
            true => Ok(id),
            false => Err(GroupError::GroupMaxSizeReached),
        }
    }

    /// Whether a solo group has its member, or may get one.
    fn has_place(&self, group_id: &str, id: &str, members_max: usize) -> bool {
        let there = || self.solos(group_id).filter(|(_, solo)| is_there(solo));
        self.groups.get(id).is_some_and(is_there) || there().count() < members_max
    }

    /// The solo group of a member that speaks KIP-848.
    fn solo_to_beat(
        &self,
        group_id: &str,
        beat: &mut ConsumerHeartbeat,
    ) -> Result<String, Refusal> {
        if beat.member_id.is_empty() {
            beat.member_id = Uuid::new_v4().to_string();
        }
        let joins = beat.member_epoch == 0;
        let id = match &beat.instance_id {
            Some(instance) => Some(Solo::Instance(instance).id_in(group_id)),
            None if joins => Some(Solo::Member(&beat.member_id).id_in(group_id)),
            // librdkafka says its instance id only when it joins.
            None => self.solo_of(group_id, (&beat.member_id, None)),
        };
        let known = id.filter(|id| joins || self.groups.contains_key(id));
        let id = known.ok_or_else(|| Refusal {
            error: GroupError::UnknownMemberId,
            message: format!(
                "Member {} is not a member of group {group_id}.",
                beat.member_id
            ),
        })?;
        let members_max = self.consumer_settings(group_id).members_max;
        match !joins || self.has_place(group_id, &id, members_max) {
            true => Ok(id),
            false => Err(Refusal {
                error: GroupError::GroupMaxSizeReached,
                message: format!(
                    "The consumer group has reached its maximum capacity of {members_max} members."
                ),
            }),
        }
    }

    fn leave_solo(
        &mut self,
        now_ms: i64,
        group_id: &str,
        leaving: &LeaveMember,
    ) -> Result<(), GroupError> {
        let member = (&*leaving.member_id, leaving.instance_id.as_deref());
        let id = self.solo_of(group_id, member);
        let id = id.ok_or(GroupError::UnknownMemberId)?;
        let limits = self.limits_of(&id);
        let settings = self.consumer_settings(&id);
        let outcome = match self.groups.get_mut(&id).map(|group| &mut group.members) {
            Some(Members::Classic(classic)) => classic.leave(now_ms, leaving, &limits),
            Some(Members::Consumer(hosted)) => {
                let left = hosted
                    .group
                    .leave_all(now_ms, std::slice::from_ref(leaving));
                left.into_iter().collect()
            }
            _ => Err(GroupError::UnknownMemberId),
        };
        self.settle(&id);
        self.settle_consumer(now_ms, &id, &settings);
        outcome
    }

    /// Where the offsets of a solo group's member are kept.
    fn offsets_of(&self, id: &str) -> String {
        let member = self.groups.get(id).and_then(Group::only_member);
        match (Solo::of(id), group_of(id), member) {
            (Some(Solo::Member(_)), Some(group_id), Some(member))
                if !member.client_id.is_empty() =>
            {
                Solo::Client(member.client_id).id_in(group_id)
            }
            _ => id.to_owned(),
        }
    }

    fn commit_to_solo(
        &mut self,
        now_ms: i64,
        group_id: String,
        mut commit: CommitOffsets,
        answer: Answer<Outcomes>,
    ) -> Option<(String, Ask)> {
        let instance = commit.instance_id.clone();
        let generation = commit.generation;
        if generation < 0 && commit.member_id.is_empty() && instance.is_none() {
            self.commit_of_each(now_ms, group_id, commit, answer);
            return None;
        }
        let Some(id) = self.solo_of(&group_id, (&commit.member_id, instance.as_deref())) else {
            let unknown = Err(GroupError::UnknownMemberId);
            answer.send(vec![unknown; commit.offsets.len()]);
            return None;
        };
        let owner = self.offsets_of(&id);
        if owner != id {
            let checks = self.check_commit(now_ms, 0, &id, &commit);
            self.reschedule(&id);
            // Of a member whose epoch is over it may be that only some are refused: then it tries all of them again.
            let refused = checks.and_then(|checks| checks.into_iter().collect::<Result<(), _>>());
            if let Err(error) = refused {
                answer.send(vec![Err(error); commit.offsets.len()]);
                return None;
            }
            // Where they are kept there are no members.
            (commit.member_id, commit.instance_id, commit.generation) = (String::new(), None, -1);
        }
        Some((owner, Ask::Commit(commit, answer)))
    }

    fn commit_transactional_to_solo(
        &mut self,
        group_id: &str,
        mut commit: TransactionalCommit,
        answer: Answer<Outcomes>,
    ) -> Option<(String, Ask)> {
        let instance = commit.instance_id.clone();
        let member = (&*commit.member_id, instance.as_deref());
        let id = self.solo_of(group_id, member);
        let checked = id.ok_or(GroupError::UnknownMemberId).and_then(|id| {
            let generation = commit.generation;
            match self.groups.get(&id).map(|group| &group.members) {
                Some(Members::Classic(classic)) => {
                    classic.check_transactional_commit(member.0, member.1, generation)?;
                }
                Some(Members::Consumer(hosted)) => {
                    let member = (member.0, member.1, generation);
                    let allowed = hosted
                        .group
                        .check_commit(member, CommitKind::Transactional)?;
                    let each = check_each(&allowed, &commit.offsets, &*self.topics);
                    each.into_iter().collect::<Result<(), _>>()?;
                }
                _ => return Err(GroupError::UnknownMemberId),
            }
            Ok(id)
        });
        match checked {
            Ok(id) => {
                let owner = self.offsets_of(&id);
                if owner != id {
                    commit.member_id.clear();
                    (commit.instance_id, commit.generation) = (None, -1);
                }
                Some((owner, Ask::CommitTransactional(commit, answer)))
            }
            Err(error) => {
                answer.send(vec![Err(error); commit.offsets.len()]);
                None
            }
        }
    }

    /// Offsets from outside, for a group without members: all that have some get these.
    fn commit_of_each(
        &mut self,
        now_ms: i64,
        group_id: String,
        commit: CommitOffsets,
        answer: Answer<Outcomes>,
    ) {
        let refuse = |error| vec![Err(error); commit.offsets.len()];
        if self.solos(&group_id).any(|(_, solo)| is_there(solo)) {
            return answer.send(refuse(GroupError::UnknownMemberId));
        }
        let ids = self.ids_with_offsets(&group_id);
        if ids.is_empty() {
            return answer.send(refuse(GroupError::GroupIdNotFound));
        }
        let expire_ms = commit.retention_ms.map(|ms| now_ms.saturating_add(ms));
        let mut outcomes: Outcomes = vec![Ok(()); commit.offsets.len()];
        let (mut commits, mut ops) = (Vec::new(), Vec::new());
        for id in ids {
            let number = self.number();
            let asked = commit.offsets.iter().cloned().zip(outcomes).collect();
            let (checked, offsets, identities) = self.to_store(now_ms, &id, expire_ms, asked);
            outcomes = checked;
            let group = self.groups.get_mut(&id);
            let to_store = group.and_then(|group| {
                group.begin_commit(number, &offsets);
                group.number_to_store(number)
            });
            ops.extend(persist::offset_ops(&id, to_store, &offsets, &identities));
            commits.push((id, number, offsets));
        }
        let then = Then::CommitOfEach {
            commits,
            outcomes,
            answer,
        };
        self.store(now_ms, group_id, ops, then);
    }

    fn ids_with_offsets(&self, group_id: &str) -> Vec<String> {
        let solos = self.solos(group_id);
        let with_offsets = solos.filter(|(_, solo)| !solo.offsets.is_empty());
        with_offsets.map(|(id, _)| id.clone()).collect()
    }

    /// Where the offsets are that a member asks for; `None` where no member asks. Who names a member but no epoch looks at its
    /// offsets from outside, or at those of all where it is gone.
    fn reader(&self, group_id: &str, asking: &AskingMember) -> Result<Option<String>, GroupError> {
        if let Some(member_id) = &asking.id {
            let Some(id) = self.solo_of(group_id, (member_id, None)) else {
                return match asking.epoch {
                    ..0 => Ok(None),
                    _ => Err(GroupError::UnknownMemberId),
                };
            };
            let consumer = self.groups.get(&id).and_then(Group::consumer);
            if let Some(consumer) = consumer.filter(|_| asking.epoch >= 0) {
                consumer.check_fetch(Some(member_id), asking.epoch)?;
            }
            return Ok(Some(self.offsets_of(&id)));
        }
        let Some((connection, client_id)) = asking.by.as_ref() else {
            return Ok(None);
        };
        let mut by_client_id = BTreeSet::new();
        for (id, solo) in self.solos(group_id) {
            let Some(member) = solo.only_member() else {
                continue;
            };
            if member.connection == Some(*connection) {
                return Ok(Some(self.offsets_of(id)));
            }
            if member.client_id == client_id {
                by_client_id.insert(self.offsets_of(id));
            }
        }
        // Where they are several, it is not known which.
        Ok(by_client_id.pop_first().filter(|_| by_client_id.is_empty()))
    }

    /// Where the slowest is in each partition: of the members that are there, of those that have an offset.
    pub(super) fn slowest(&self, group_id: &str) -> BTreeMap<Key, CommittedOffset> {
        let there = self.solos(group_id).filter(|(_, solo)| is_there(solo));
        let mut ids: BTreeSet<String> = there.map(|(id, _)| self.offsets_of(id)).collect();
        if ids.is_empty() {
            ids.extend(self.ids_with_offsets(group_id));
        }
        let mut slowest: BTreeMap<Key, CommittedOffset> = BTreeMap::new();
        let groups = ids.iter().filter_map(|id| self.groups.get(id));
        for (key, offset) in groups.flat_map(|group| group.offsets.iter()) {
            match slowest.get_mut(key) {
                Some(known) if known.offset <= offset.offset => {}
                Some(known) => known.clone_from(offset),
                None => {
                    slowest.insert(key.clone(), offset.clone());
                }
            }
        }
        slowest
    }

    fn fetch_slowest(
        &self,
        group_id: &str,
        query: OffsetsQuery,
    ) -> Result<FoundOffsets, GroupError> {
        let slowest = self.slowest(group_id);
        let keys = query
            .keys
            .unwrap_or_else(|| slowest.keys().cloned().collect());
        let bytes = |key: &Key| {
            let text = slowest.get(key).map_or(0, |offset| offset.metadata.len());
            FETCHED_OFFSET_BYTES + key.0.len() + text
        };
        let share = self.context.memory.try_take(keys.iter().map(bytes).sum());
        let share = share.ok_or(GroupError::CoordinatorNotAvailable)?;
        let is_open = |key: &Key| self.solos(group_id).any(|(_, solo)| solo.pending.has(key));
        let found = |key: Key| match query.stable && is_open(&key) {
            true => (key, Err(GroupError::UnstableOffsetCommit)),
            false => {
                let offset = slowest.get(&key).cloned();
                (key, Ok(offset))
            }
        };
        let offsets = keys.into_iter().map(found).collect();
        Ok(FoundOffsets { offsets, share })
    }

    fn delete_with_solos(
        &mut self,
        now_ms: i64,
        group_id: String,
        answer: Answer<Result<(), GroupError>>,
    ) {
        let own = self.groups.get(&group_id).into_iter();
        let mut all = own.chain(self.solos(&group_id).map(|(_, solo)| solo));
        let has_members = all.any(|group| !group.is_empty());
        drop(all);
        if has_members {
            return answer.send(Err(GroupError::NonEmptyGroup));
        }
        let solos: Vec<String> = self.solos(&group_id).map(|(id, _)| id.clone()).collect();
        for id in solos {
            if self
                .groups
                .get(&id)
                .is_some_and(|solo| solo.removal.is_none())
            {
                self.remove(now_ms, id, None);
            }
        }
        // All that is stored is below the group's own node.
        if !self.groups.contains_key(&group_id) {
            let offsets = Offsets::since(self.number());
            let group = Group::new(ClassicGroup::new(now_ms), offsets);
            self.groups.insert(group_id.clone(), group);
        }
        self.remove(now_ms, group_id, Some(answer));
    }

    fn delete_offsets_of_each(
        &mut self,
        now_ms: i64,
        group_id: &str,
        keys: Vec<Key>,
        answer: Answer<Result<Outcomes, GroupError>>,
    ) {
        let pending = self
            .solos(group_id)
            .flat_map(|(_, solo)| solo.pending.0.keys());
        let producers: BTreeSet<i64> = pending.copied().collect();
        for producer_id in producers {
            if let Some(busy) = self.producers.busy(producer_id) {
                let ask = Ask::DeleteOffsets(keys, answer);
                let waits = WaitingForProducer::Ask(group_id.to_owned(), ask);
                return busy.waiting.push_back(waits);
            }
        }
        let there = self.solos(group_id).filter(|(_, solo)| is_there(solo));
        let subscribed: Vec<_> = there.map(|(_, solo)| solo.subscribed()).collect();
        let mut read: BTreeMap<&str, bool> = BTreeMap::new();
        for (topic, _) in &keys {
            let is_read = || subscribed.iter().any(|solo| solo.has(topic));
            read.entry(topic).or_insert_with(is_read);
        }
        let is_read = |(topic, _): &Key| read.get(&**topic) == Some(&true);
        let outcome = |key: &Key| match is_read(key) {
            true => Err(GroupError::GroupSubscribedToTopic),
            false => Ok(()),
        };
        let outcomes = keys.iter().map(outcome).collect();
        let free: Vec<Key> = keys.iter().filter(|key| !is_read(key)).cloned().collect();
        let has_some = |solo: &Group| !solo.offsets.is_empty() || !solo.pending.is_empty();
        let solos = self.solos(group_id).filter(|(_, solo)| has_some(solo));
        let mut ids: Vec<String> = solos.map(|(id, _)| id.clone()).collect();
        let Some(last) = ids.pop() else {
            return answer.send(Ok(outcomes));
        };
        for id in ids {
            self.remove_offsets(now_ms, id, free.clone(), None);
        }
        // Writes of a slot are stored in their order.
        self.remove_offsets(now_ms, last, free, Some((outcomes, answer)));
    }

    /// A member is gone that had a solo group only while it was there: the group goes too.
    pub(super) fn ends_with_its_member(&self, id: &str) -> bool {
        matches!(Solo::of(id), Some(Solo::Member(_)))
    }

    pub(super) fn end_solo(&mut self, id: &str) {
        let classic = self.groups.get(id).and_then(Group::classic);
        let now_ms = classic.map_or(0, |classic| classic.changed_ms);
        self.remove(now_ms, id.to_owned(), None);
    }

    /// The end of a solo group could not be stored: it is tried again.
    pub(super) fn solo_not_ended(&mut self, now_ms: i64, id: &str) {
        let limits = self.limits_of(id);
        let ends = self.ends_with_its_member(id);
        if let Some(classic) = self
            .classic_mut(id)
            .filter(|classic| ends && classic.is_empty())
        {
            let generation = classic.generation;
            let refused = Err(GroupError::CoordinatorNotAvailable);
            classic.persisted(now_ms, Change::Emptied { generation }, refused, &limits);
        }
        if let Some(hosted) = self.groups.get_mut(id).and_then(Group::consumer_mut)
            && ends
        {
            hosted.store_again_ms = Some(now_ms + STORE_AGAIN_MS);
        }
    }

    /// Retention of offsets that are kept by client id begins when no such member is there any more, as that of other
    /// groups: those whose members are there now.
    pub(super) fn client_ids_in_use(&mut self, now_ms: i64) -> BTreeSet<String> {
        let solos = self.groups.iter();
        let there = solos.filter(|(id, solo)| self.ends_with_its_member(id) && is_there(solo));
        let in_use: BTreeSet<String> = there.map(|(id, _)| self.offsets_of(id)).collect();
        for id in &in_use {
            if let Some(classic) = self.classic_mut(id).filter(|classic| classic.is_empty()) {
                classic.was_in_use(now_ms);
            }
        }
        in_use
    }
}

/// Whether its member is there, or about to be.
pub(super) fn is_there(solo: &Group) -> bool {
    !solo.has_no_members()
}
