//! What is removed: groups and offsets, by request, with their topic, or because their retention is over. It is known until
//! its removal is stored.
//!
//! Tests: group/groups/tests.rs.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{Groups, Then};
use crate::coordinator::{Answer, Machine};
use crate::group::asks::{Ask, Outcomes};
use crate::group::group::Group;
use crate::group::messages::GroupError;
use crate::group::offsets::{Key, WriteNumber};
use crate::group::producers::WaitingForProducer;
use crate::group::share::ShareGroup;
use crate::group::streams::StreamsGroup;
use crate::group::{persist, stored_transactions};
use crate::meta::{Op, paths};

impl Groups {
    pub(super) fn delete(
        &mut self,
        now_ms: i64,
        group_id: String,
        answer: Answer<Result<(), GroupError>>,
    ) {
        let refusal = match self.groups.get(&group_id) {
            None => Some(GroupError::GroupIdNotFound),
            Some(group) if !group.is_empty() => Some(GroupError::NonEmptyGroup),
            Some(_) => None,
        };
        if let Some(error) = refusal {
            return answer.send(Err(error));
        }
        self.remove(now_ms, group_id, Some(answer));
    }

    /// Removes a group; until that is stored or refused, asks that would change the group wait.
    pub(super) fn remove(
        &mut self,
        now_ms: i64,
        group_id: String,
        answer: Option<Answer<Result<(), GroupError>>>,
    ) {
        if let Some(group) = self.groups.get_mut(&group_id) {
            debug_assert!(group.removal.is_none(), "one removal at a time");
            group.removal = Some(Vec::new());
        }
        let ops = vec![persist::remove_group_op(&group_id)];
        let id = group_id.clone();
        let then = Then::GroupRemoved { group_id, answer };
        self.store(now_ms, id, ops, then);
    }

    pub(super) fn group_removed(
        &mut self,
        now_ms: i64,
        group_id: &str,
        answer: Option<Answer<Result<(), GroupError>>>,
        stored: Result<(), GroupError>,
    ) {
        let group = self.groups.get_mut(group_id);
        let waiting = group.and_then(|group| group.removal.take());
        match stored {
            Ok(()) => {
                if let Some(group) = self.groups.get(group_id) {
                    self.mirror.removed(group_id, group);
                }
                let group = self.groups.get_mut(group_id);
                // What its members did last is stored: nothing of it is there any more.
                for answer in group.map(Group::take_held).unwrap_or_default() {
                    answer(Ok(()));
                }
                self.forget(group_id);
            }
            Err(_) => {
                let settings = self.consumer_settings(group_id);
                self.solo_not_ended(now_ms, group_id);
                self.settle(group_id);
                self.settle_consumer(now_ms, group_id, &settings);
                self.settle_recorded::<ShareGroup>(group_id);
                self.settle_recorded::<StreamsGroup>(group_id);
            }
        }
        if let Some(answer) = answer {
            answer.send(stored);
        }
        for ask in waiting.unwrap_or_default() {
            self.handle(now_ms, group_id.to_owned(), ask);
        }
    }

    pub(super) fn delete_offsets(
        &mut self,
        now_ms: i64,
        group_id: String,
        keys: Vec<Key>,
        answer: Answer<Result<Outcomes, GroupError>>,
    ) {
        let Some(group) = self.groups.get(&group_id) else {
            return answer.send(Err(GroupError::GroupIdNotFound));
        };
        let is_active = !group.is_empty();
        let classic = group.classic();
        if is_active && classic.is_some_and(|classic| !classic.is_of_consumers()) {
            return answer.send(Err(GroupError::NonEmptyGroup));
        }
        // Also those whose offsets are only on their way.
        for producer_id in group.pending.0.keys() {
            if let Some(busy) = self.producers.busy(*producer_id) {
                let ask = Ask::DeleteOffsets(keys, answer);
                return busy
                    .waiting
                    .push_back(WaitingForProducer::Ask(group_id, ask));
            }
        }
        let read = is_active.then(|| group.subscribed());
        let is_read = |key: &Key| read.as_ref().is_some_and(|read| read.has(&key.0));
        let outcome = |key: &Key| match is_read(key) {
            true => Err(GroupError::GroupSubscribedToTopic),
            false => Ok(()),
        };
        let outcomes: Outcomes = keys.iter().map(outcome).collect();
        let keys = keys.into_iter().zip(&outcomes);
        let keys = keys.filter(|(_, outcome)| outcome.is_ok());
        let keys = keys.map(|(key, _)| key).collect();
        self.remove_offsets(now_ms, group_id, keys, Some((outcomes, answer)));
    }

    /// Removes offsets; they are known until that is stored.
    pub(super) fn remove_offsets(
        &mut self,
        now_ms: i64,
        group_id: String,
        keys: Vec<Key>,
        answer: Option<(Outcomes, Answer<Result<Outcomes, GroupError>>)>,
    ) {
        let number = self.number();
        let remove = |key: &Key| persist::remove_offset_op(&group_id, key, &*self.topics);
        let mut ops: Vec<Op> = keys.iter().filter_map(remove).collect();
        let mut producers = Vec::new();
        if let Some(group) = self.groups.get_mut(&group_id) {
            group.offsets.begin();
            producers = group.pending.producers_of(&keys);
            for producer_id in &producers {
                let epoch = self.producers.epoch(*producer_id);
                let of = (*producer_id, epoch);
                let pending = &mut group.pending;
                ops.extend(stored_transactions::pending_without_ops(
                    &group_id,
                    pending,
                    of,
                    &keys,
                    &*self.topics,
                ));
                self.producers.begin_change(*producer_id, now_ms);
            }
        }
        let id = group_id.clone();
        let then = Then::OffsetsRemoved {
            group_id,
            number,
            keys,
            producers,
            answer,
        };
        self.store(now_ms, id, ops, then);
    }

    pub(super) fn offsets_removed(
        &mut self,
        group_id: &str,
        number: WriteNumber,
        mut keys: Vec<Key>,
        stored: Result<(), GroupError>,
    ) {
        if stored.is_err() {
            keys.clear();
        }
        let told = self.mirror.keys(keys.iter());
        if let Some(group) = self.groups.get_mut(group_id) {
            group.pending.remove(&keys);
            group.offsets.finish_removal(number, keys);
        }
        self.mirror
            .offsets(group_id, self.groups.get(group_id), &told);
    }

    /// Forgets the offsets in a topic at once: the topic is gone already, and a new one of the same name must not be read from
    /// them. If their removal is refused, memory is still as it would be after a restart: nodes with the id of another topic
    /// are not loaded.
    pub(super) fn topic_deleted(&mut self, now_ms: i64, topic: &str, id: Uuid) {
        let mirror = &self.mirror;
        let of_groups = self.groups.iter_mut().filter_map(|(group_id, group)| {
            let gone = mirror.offsets_in(group, topic, id);
            let are_gone = group.offsets.remove_topic(topic, id);
            group.pending.remove_topic(topic, id);
            mirror.offsets(group_id, Some(group), &gone);
            are_gone.then(|| group_id.clone())
        });
        let group_ids: Vec<String> = of_groups.collect();
        for group_id in group_ids {
            let path = paths::group_topic_offsets(&group_id, topic);
            let ops = vec![Op::DeleteTree { path }];
            self.store(now_ms, group_id, ops, Then::Nothing);
        }
    }

    /// Removes offsets whose retention is over, and groups that have nothing left.
    pub(super) fn expire(&mut self, now_ms: i64) {
        let retention_ms = self.context.limits.offsets_retention_ms;
        let mut over = Vec::new();
        let in_use = self.client_ids_in_use(now_ms);
        for (group_id, group) in &self.groups {
            // What is in flight may be a younger commit of the same offset, or the group's removal.
            // A share group has none, and stays until somebody removes it.
            let is_busy = group.removal.is_some() || group.offsets.are_in_flight();
            if is_busy || group.is_share() || in_use.contains(group_id) {
                continue;
            }
            let keys = group.expired_offsets(now_ms, retention_ms);
            // As Kafka's GroupMetadataManager: an empty group without offsets goes at once.
            let is_over = group.has_no_members()
                && keys.len() == group.offsets.len()
                && group.pending.is_empty()
                && self.solos(group_id).next().is_none();
            if is_over || !keys.is_empty() {
                over.push((group_id.clone(), keys, is_over));
            }
        }
        for (group_id, keys, is_over) in over {
            match is_over {
                true => {
                    tracing::info!(group = group_id, "the empty group expires");
                    self.remove(now_ms, group_id, None);
                }
                false => self.remove_offsets(now_ms, group_id, keys, None),
            }
        }
    }

    /// Offsets of topics that are gone; usually their deletion was noticed.
    pub(super) fn remove_orphans(&mut self, now_ms: i64) {
        let groups = self.groups.values();
        let orphans =
            groups.flat_map(|group| group.offsets.orphans(|topic| self.topics.id_of(topic)));
        let orphans: BTreeSet<(String, Uuid)> = orphans.collect();
        for (topic, id) in orphans {
            self.topic_deleted(now_ms, &topic, id);
        }
    }
}
