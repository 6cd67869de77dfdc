//! What is removed: groups and offsets, by request, with their topic, or because their retention is over.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{Groups, Then};
use crate::coordinator::Answer;
use crate::group::asks::Outcomes;
use crate::group::classic::State;
use crate::group::messages::GroupError;
use crate::group::offsets::Key;
use crate::group::persist;
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
            Some(group) if group.classic.state != State::Empty => Some(GroupError::NonEmptyGroup),
            Some(_) => None,
        };
        if let Some(error) = refusal {
            return answer.send(Err(error));
        }
        self.forget(&group_id);
        let ops = vec![persist::remove_group_op(&group_id)];
        self.store(now_ms, &group_id, ops, Then::Delete(answer));
    }

    pub(super) fn delete_offsets(
        &mut self,
        now_ms: i64,
        group_id: String,
        keys: Vec<Key>,
        answer: Answer<Result<Outcomes, GroupError>>,
    ) {
        let number = self.number();
        let Some(group) = self.groups.get_mut(&group_id) else {
            return answer.send(Err(GroupError::GroupIdNotFound));
        };
        let is_active = group.classic.state != State::Empty;
        if is_active && group.classic.protocol_type.as_deref() != Some("consumer") {
            return answer.send(Err(GroupError::NonEmptyGroup));
        }
        let mut outcomes = Vec::with_capacity(keys.len());
        let mut ops = Vec::new();
        for key in keys {
            if is_active && group.classic.subscribes(&key.0) {
                outcomes.push(Err(GroupError::GroupSubscribedToTopic));
            } else {
                outcomes.push(Ok(()));
                group.offsets.remove(number, &key);
                ops.extend(persist::remove_offset_op(&group_id, &key, &*self.topics));
            }
        }
        self.store(
            now_ms,
            &group_id,
            ops,
            Then::DeleteOffsets(outcomes, answer),
        );
    }

    pub(super) fn topic_deleted(&mut self, now_ms: i64, topic: &str, id: Uuid) {
        let of_groups = self.groups.iter_mut().filter_map(|(group_id, group)| {
            let are_gone = group.offsets.remove_topic(topic, id);
            are_gone.then(|| group_id.clone())
        });
        let group_ids: Vec<String> = of_groups.collect();
        for group_id in group_ids {
            let path = paths::group_topic_offsets(&group_id, topic);
            self.store(
                now_ms,
                &group_id,
                vec![Op::DeleteTree { path }],
                Then::Nothing,
            );
        }
    }

    /// Removes offsets whose retention is over, and groups that have nothing left.
    pub(super) fn expire(&mut self, now_ms: i64) {
        self.remove_orphans(now_ms);
        let number = self.number();
        let mut ops = Vec::new();
        let mut gone = Vec::new();
        for (group_id, group) in &mut self.groups {
            let retention_ms = self.context.limits.offsets_retention_ms;
            for key in group.expired_offsets(now_ms, retention_ms) {
                ops.extend(persist::remove_offset_op(group_id, &key, &*self.topics));
                group.offsets.remove(number, &key);
            }
            // As Kafka's GroupMetadataManager: an empty group without offsets goes at once.
            if group.has_nothing_left() {
                gone.push(group_id.clone());
            }
        }
        for group_id in gone {
            tracing::info!(group = group_id, "the empty group expired");
            self.forget(&group_id);
            ops.push(persist::remove_group_op(&group_id));
        }
        self.store(now_ms, "", ops, Then::Nothing);
    }

    /// Offsets of topics that are gone; usually their deletion was noticed.
    fn remove_orphans(&mut self, now_ms: i64) {
        let groups = self.groups.values();
        let orphans =
            groups.flat_map(|group| group.offsets.orphans(|topic| self.topics.id_of(topic)));
        let orphans: BTreeSet<(String, Uuid)> = orphans.collect();
        for (topic, id) in orphans {
            self.topic_deleted(now_ms, &topic, id);
        }
    }
}
