//! A share group of KIP-932 as a state machine: no sockets, no clock, no locks (Kafka's ShareGroup, and its part of
//! GroupMetadataManager).
//!
//! ```text
//!   a member changes what it reads, joins, leaves; topics change; share partitions are initialized -> group epoch + 1
//!   group epoch > assignment epoch  -> a target for each member, assignment epoch = group epoch
//!   a member's heartbeat: it has its target                                  -> member epoch = assignment epoch
//! ```
//!
//! Members share partitions, so nobody waits for another one to give something up. A partition is assigned once its share
//! partition is initialized at its coordinator: whoever asks this machine is told which ones are to be, and reports them
//! ([`ShareGroup::initialized`]).
//!
//! What a call changes is known here at once and is to be stored after it ([`ShareGroup::is_unstored`]). What members were told of
//! their targets is not stored: after a change of the coordinator each is believed, up to the group epoch.
//!
//! - `heartbeat`: members report; `simple_assignor`: who reads what; `member`: one of them
//! - `stored`: the group as a node of the tree, and back; `described`: for people

mod described;
mod heartbeat;
mod member;
mod simple_assignor;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

pub use described::{ShareGroupDescription, ShareMemberDescription};
pub use heartbeat::{ShareHeartbeat, ShareReply, ToInitialize};
pub(in crate::group) use member::ShareMember;
pub(in crate::group) use stored::{SHARE_TYPE, load, ops};

use simple_assignor::{Partitions, Reader, assign};

/// What the configuration says of a share group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareGroupSettings {
    /// `share.session.timeout.ms`.
    pub session_timeout_ms: i32,
    /// `share.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// `group.share.max.size`.
    pub members_max: usize,
}

/// What is known of a topic's share partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct TopicShares {
    initialized: BTreeSet<i32>,
    /// Since when they are being initialized, ms.
    initializing: BTreeMap<i32, i64>,
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(in crate::group) struct ShareGroup {
    /// The group epoch.
    pub(in crate::group) epoch: i32,
    pub(in crate::group) assignment_epoch: i32,
    pub(in crate::group) members: BTreeMap<String, ShareMember>,
    /// By topic.
    shares: BTreeMap<Uuid, TopicShares>,
    /// Topics that members read as they were when they were looked at last: name, id, partitions.
    seen: BTreeMap<String, (Uuid, i32)>,
    /// Counts changes.
    change: u64,
    is_unstored: bool,
    /// Members that went, and why, for people.
    told: Vec<(String, String)>,
}

impl ShareGroup {
    pub(in crate::group) fn new() -> Self {
        Self {
            epoch: 0,
            assignment_epoch: 0,
            members: BTreeMap::new(),
            shares: BTreeMap::new(),
            seen: BTreeMap::new(),
            change: 0,
            is_unstored: false,
            told: Vec::new(),
        }
    }

    /// Kafka's name of the state.
    pub(in crate::group) fn state(&self) -> &'static str {
        match self.members.is_empty() {
            true => "Empty",
            false => "Stable",
        }
    }

    /// Whether members read a topic.
    pub(in crate::group) fn subscribes(&self, topic: &str) -> bool {
        let mut members = self.members.values();
        members.any(|member| member.topics.contains(topic))
    }

    /// Counts changes.
    pub(in crate::group) fn change(&self) -> u64 {
        self.change
    }

    /// Whether something is to be stored.
    pub(in crate::group) fn is_unstored(&self) -> bool {
        self.is_unstored
    }

    /// What there is now is being stored, or is to be stored again.
    pub(in crate::group) fn set_unstored(&mut self, is_unstored: bool) {
        self.is_unstored = is_unstored;
    }

    /// Members that went since this was asked last, and why.
    pub(in crate::group) fn take_told(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.told)
    }

    /// Share partitions that are initialized, by topic.
    pub(in crate::group) fn initialized_partitions(&self) -> Vec<(Uuid, Vec<i32>)> {
        let shares = self.shares.iter();
        let some = shares.filter(|(_, shares)| !shares.initialized.is_empty());
        some.map(|(id, shares)| (*id, shares.initialized.iter().copied().collect()))
            .collect()
    }

    /// All share partitions of which something may be stored, by topic.
    pub(in crate::group) fn all_partitions(&self) -> Vec<(Uuid, Vec<i32>)> {
        let shares = self.shares.iter();
        let all = shares.map(|(id, shares)| {
            let initializing = shares.initializing.keys();
            let all: BTreeSet<i32> = shares
                .initialized
                .iter()
                .chain(initializing)
                .copied()
                .collect();
            (*id, all.into_iter().collect())
        });
        all.collect()
    }

    fn changed(&mut self) {
        self.change += 1;
        self.is_unstored = true;
    }

    fn bump(&mut self) {
        self.epoch += 1;
        self.changed();
    }

    /// Share partitions are initialized: members can be assigned them.
    pub(in crate::group) fn initialized(&mut self, topic_id: Uuid, partitions: &[i32]) {
        let shares = self.shares.entry(topic_id).or_default();
        let mut is_new = false;
        for partition in partitions {
            shares.initializing.remove(partition);
            is_new |= shares.initialized.insert(*partition);
        }
        if is_new {
            // The target is made anew with the next heartbeat.
            self.bump();
        }
    }

    /// Share partitions could not be initialized; that is tried again with the next heartbeat.
    pub(in crate::group) fn not_initialized(&mut self, topic_id: Uuid, partitions: &[i32]) {
        if let Some(shares) = self.shares.get_mut(&topic_id) {
            for partition in partitions {
                shares.initializing.remove(partition);
            }
        }
    }

    /// The group has no more to do with a topic; whether it had.
    pub(in crate::group) fn forget_topic(&mut self, topic_id: Uuid) -> bool {
        let had = self.shares.remove(&topic_id).is_some();
        if had {
            self.changed();
        }
        had
    }

    /// An operator sets offsets of an empty group: the state epoch with which they are set.
    pub(in crate::group) fn next_state_epoch(&mut self) -> i32 {
        self.bump();
        self.assignment_epoch = self.epoch;
        self.epoch
    }

    /// When [`Self::tick`] has something to do, ms.
    pub(in crate::group) fn next_deadline(&self) -> Option<i64> {
        let members = self.members.values();
        members.map(|member| member.session_until_ms).min()
    }

    /// Members that were not heard of in time are gone; who they are.
    pub(in crate::group) fn tick(&mut self, now_ms: i64) -> Vec<String> {
        let members = self.members.iter();
        let gone = members.filter(|(_, member)| member.session_until_ms <= now_ms);
        let gone: Vec<String> = gone.map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.remove(id, "its session timed out");
        }
        gone
    }

    fn remove(&mut self, member_id: &str, why: &str) {
        if let Some(member) = self.members.remove(member_id) {
            self.told.push((member.client_id, why.to_owned()));
            self.bump();
        }
    }

    /// Gives each member a target, where the group changed since.
    fn assign(&mut self) {
        if self.assignment_epoch >= self.epoch {
            return;
        }
        self.assignment_epoch = self.epoch;
        let partitions: Partitions = self
            .shares
            .iter()
            .map(|(id, shares)| (*id, shares.initialized.clone()))
            .collect();
        let id_of = |name: &String| self.seen.get(name).map(|(id, _)| *id);
        let subscriptions: Vec<BTreeSet<Uuid>> = self
            .members
            .values()
            .map(|member| member.topics.iter().filter_map(id_of).collect())
            .collect();
        let members: Vec<Reader<'_>> = self
            .members
            .values()
            .zip(&subscriptions)
            .map(|(member, topics)| Reader {
                topics,
                before: &member.target,
            })
            .collect();
        let targets = assign(&members, &partitions);
        for (member, target) in self.members.values_mut().zip(targets) {
            member.target = target;
        }
        self.changed();
    }
}
