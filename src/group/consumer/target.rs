//! The target of a consumer group: which member is to have which partitions.

use uuid::Uuid;

use super::assignor::{Assignor, Candidate, Counts};
use super::settings::ConsumerSettings;
use super::{ConsumerGroup, Partitions};
use crate::coordinator::Topics;
use crate::group::limits::{ASSIGNED_BYTES, NO_ROOM_RETRY_MS};

impl ConsumerGroup {
    /// The assignor that most members prefer, if any prefers one.
    pub(super) fn preferred_assignor(&self) -> Option<Assignor> {
        Assignor::named(self.subscriptions.preferred_assignor()?)
    }

    /// When the next target may be made, ms.
    pub(super) fn target_due_ms(&self, settings: &ConsumerSettings) -> i64 {
        let after_last = match self.assigned_ms {
            0 => 0,
            made_ms => made_ms.saturating_add(i64::from(settings.assignment_interval_ms)),
        };
        after_last.max(self.no_room_until_ms)
    }

    /// Makes a target for the group epoch, where there is none and the interval since the last one is over.
    pub(super) fn make_target_if_due(
        &mut self,
        now_ms: i64,
        settings: &ConsumerSettings,
        topics: &dyn Topics,
    ) {
        if self.assignment_epoch >= self.epoch || self.members.is_empty() {
            return;
        }
        if self.no_room_until_ms > now_ms + NO_ROOM_RETRY_MS {
            self.no_room_until_ms = 0;
        }
        let due_ms = self.target_due_ms(settings);
        // A clock that went back far does not put it off for as long.
        let is_ahead = self.assigned_ms > now_ms;
        if now_ms < due_ms && (!is_ahead || now_ms < self.no_room_until_ms) {
            self.due_ms = self.due_ms.min(due_ms);
            return;
        }
        self.make_target(now_ms, settings, topics);
    }

    fn make_target(&mut self, now_ms: i64, settings: &ConsumerSettings, topics: &dyn Topics) {
        let assignor = self
            .preferred_assignor()
            .unwrap_or(settings.default_assignor());
        let counts = self.subscriptions.counts(topics);
        if !self.reserve_partitions(&counts) {
            // Members have what they had until there is room.
            if self.no_room_until_ms == 0 {
                tracing::warn!("a group gives out nothing anew: group.members.max.bytes is taken");
            }
            self.no_room_until_ms = now_ms + NO_ROOM_RETRY_MS;
            self.due_ms = self.due_ms.min(self.target_due_ms(settings));
            return;
        }
        self.no_room_until_ms = 0;
        let candidates = self.members.values().map(|member| Candidate {
            member_id: &member.id,
            instance_id: member.instance_id.as_deref(),
            topics: self.subscriptions.ids_of(&member.reads, topics),
            before: &member.target,
        });
        let candidates: Vec<Candidate<'_>> = candidates.collect();
        let targets = assignor.assign(&candidates, &counts);
        drop(candidates);
        self.assignment_epoch = self.epoch;
        self.assigned_ms = now_ms;
        self.touch_head();
        let change = self.change;
        for (member, target) in self.members.values_mut().zip(targets) {
            if member.target != target {
                member.target = target;
                member.target_epoch = self.assignment_epoch;
                member.changed = change;
                self.unstored.members.insert(member.id.clone());
            }
        }
    }

    /// Takes the memory for the partitions of a target; whether there is room.
    fn reserve_partitions(&mut self, counts: &Counts) -> bool {
        let partitions: usize = counts.values().map(|count| *count as usize).sum();
        let mut shares = self.members.values().map(|member| &member.reserved);
        // All members have one, but in tests.
        let Some(share) = shares.find_map(Option::as_ref) else {
            return true;
        };
        let bytes = partitions * ASSIGNED_BYTES;
        let Some(of_partitions) = share.another(bytes, self.of_partitions.as_ref()) else {
            return false;
        };
        self.of_partitions = Some(of_partitions);
        true
    }

    /// The owner of a partition that a member waits for.
    pub(super) fn owner_of(&self, topic: Uuid, partition: i32) -> Option<&str> {
        self.owners.get(&(topic, partition)).map(String::as_str)
    }

    /// What of a member's target others still have.
    pub(super) fn waits_for(&self, member_id: &str) -> Vec<(Uuid, i32, &str)> {
        let Some(member) = self.members.get(member_id) else {
            return Vec::new();
        };
        let target: &Partitions = &member.target;
        let all = target
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().map(|n| (*topic, *n)));
        let of_others = all.filter_map(|(topic, partition)| {
            let owner = self.owner_of(topic, partition)?;
            (owner != member_id).then_some((topic, partition, owner))
        });
        of_others.collect()
    }
}
