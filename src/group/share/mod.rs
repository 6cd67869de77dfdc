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
//! - `topic_shares`: its share partitions of a topic
//! - `stored`: the group as a node of the tree, and back; `described`: for people

mod described;
mod heartbeat;
mod member;
mod simple_assignor;
mod stored;
#[cfg(test)]
mod tests;
mod topic_shares;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::group::limits::INITIAL_EPOCH;

pub use described::{ShareGroupDescription, ShareMemberDescription};
pub use heartbeat::{ShareHeartbeat, ShareReply, ToInitialize};
pub(in crate::group) use member::ShareMember;
pub(in crate::group) use stored::{SHARE_TYPE, load, ops};

use simple_assignor::{Partitions, Reader, assign};
use topic_shares::TopicShares;

/// What the configuration says of a share group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareGroupSettings {
    /// `share.session.timeout.ms`.
    pub session_timeout_ms: i32,
    /// `share.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// `share.assignment.interval.ms`.
    pub assignment_interval_ms: i32,
    /// `group.share.max.size`.
    pub members_max: usize,
}

/// What is to be deleted of what is stored of share partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToDelete {
    /// What has a later one is of a time after this.
    pub state_epoch: i32,
    /// By topic.
    pub topics: Vec<(Uuid, Vec<i32>)>,
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
    /// The version of the topics then; `None` where members read others since.
    seen_version: Option<u64>,
    /// When it is to be looked for share partitions that are to be initialized, ms.
    initialize_due_ms: i64,
    /// When a target was made that has partitions, ms.
    assigned_ms: Option<i64>,
    /// No session ends before, ms.
    sessions_until_ms: i64,
    /// Counts changes.
    change: u64,
    is_unstored: bool,
    /// Members that went, and why, for people.
    told: Vec<(String, String)>,
}

impl ShareGroup {
    pub(in crate::group) fn new() -> Self {
        Self {
            epoch: INITIAL_EPOCH,
            assignment_epoch: INITIAL_EPOCH,
            members: BTreeMap::new(),
            shares: BTreeMap::new(),
            seen: BTreeMap::new(),
            seen_version: None,
            initialize_due_ms: i64::MIN,
            assigned_ms: None,
            sessions_until_ms: i64::MAX,
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
        let new = partitions.iter().filter(|one| shares.initialized(**one));
        if new.count() > 0 {
            // The target is made anew with the next heartbeat.
            self.bump();
        }
    }

    /// Share partitions could not be initialized; that is tried again with the next heartbeat.
    pub(in crate::group) fn not_initialized(&mut self, topic_id: Uuid, partitions: &[i32]) {
        self.initialize_due_ms = i64::MIN;
        if let Some(shares) = self.shares.get_mut(&topic_id) {
            let again = partitions
                .iter()
                .filter(|one| shares.not_initialized(**one));
            if again.count() > 0 {
                self.bump();
            }
        }
    }

    /// Something is stored with a state epoch that this group has not reached: of an earlier group of its name. What it
    /// initializes from now on has later ones.
    pub(in crate::group) fn passes(&mut self, state_epoch: i32) {
        if state_epoch >= self.epoch {
            self.epoch = state_epoch;
            self.bump();
        }
    }

    /// The group has no more to do with a topic, of which nothing is stored any more; whether it had.
    pub(in crate::group) fn forget_topic(&mut self, topic_id: Uuid) -> bool {
        self.initialize_due_ms = i64::MIN;
        let had = self.shares.remove(&topic_id).is_some();
        if had {
            self.changed();
        }
        had
    }

    /// An operator sets offsets of an empty group: the state epoch with which they are set. Nobody is assigned these share
    /// partitions until [`Self::initialized`] or [`Self::not_initialized`] says that it is over.
    pub(in crate::group) fn alter(&mut self, now_ms: i64, topics: &[(Uuid, Vec<i32>)]) -> i32 {
        for (topic_id, partitions) in topics {
            let shares = self.shares.entry(*topic_id).or_default();
            partitions.iter().for_each(|one| shares.alter(now_ms, *one));
        }
        self.bump_empty();
        self.epoch
    }

    /// An empty group has no more to do with some topics, or with all: what of them may be stored, and the latest state epoch
    /// that it has. It is known as such until [`Self::deleted`].
    pub(in crate::group) fn delete(&mut self, topics: Option<&[Uuid]>) -> ToDelete {
        let shares = self.shares.iter_mut();
        let some = shares.filter(|(id, _)| topics.is_none_or(|topics| topics.contains(id)));
        let to_delete = ToDelete {
            state_epoch: self.epoch,
            topics: some.map(|(id, shares)| (*id, shares.delete())).collect(),
        };
        self.bump_empty();
        to_delete
    }

    /// Nothing is stored any more of what was to be deleted of a topic.
    pub(in crate::group) fn deleted(&mut self, topic_id: Uuid) {
        if let Some(shares) = self.shares.get_mut(&topic_id) {
            if shares.deleted() {
                self.shares.remove(&topic_id);
            }
            self.changed();
        }
    }

    /// The next epoch of a group without members, which has no target to be made.
    fn bump_empty(&mut self) {
        self.initialize_due_ms = i64::MIN;
        self.bump();
        self.assignment_epoch = self.epoch;
    }

    /// When [`Self::tick`] has something to do, ms.
    pub(in crate::group) fn next_deadline(&self) -> Option<i64> {
        (!self.members.is_empty()).then_some(self.sessions_until_ms)
    }

    /// Members that were not heard of in time are gone; who they are.
    pub(in crate::group) fn tick(&mut self, now_ms: i64) -> Vec<String> {
        // Each heartbeat would look at all members otherwise.
        if now_ms < self.sessions_until_ms {
            return Vec::new();
        }
        let members = self.members.iter();
        let gone = members.filter(|(_, member)| member.session_until_ms <= now_ms);
        let gone: Vec<String> = gone.map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.remove(id, "its session timed out");
        }
        let sessions = self.members.values().map(|member| member.session_until_ms);
        self.sessions_until_ms = sessions.min().unwrap_or(i64::MAX);
        gone
    }

    fn remove(&mut self, member_id: &str, why: &str) {
        if let Some(member) = self.members.remove(member_id) {
            self.told.push((member.client_id, why.to_owned()));
            self.seen_version = None;
            self.bump();
        }
    }

    /// Gives each member a target, where the group changed since; when it can be, ms, where that is too early.
    fn assign(&mut self, now_ms: i64, settings: &ShareGroupSettings) -> Option<i64> {
        if self.assignment_epoch >= self.epoch {
            return None;
        }
        // A clock that went back far does not put it off for as long.
        let made_ms = self.assigned_ms.filter(|made_ms| *made_ms <= now_ms);
        let due_ms = made_ms.map(|ms| ms + i64::from(settings.assignment_interval_ms));
        if due_ms.is_some_and(|due_ms| now_ms < due_ms) {
            return due_ms;
        }
        self.make_target();
        let mut targets = self.members.values().map(|member| &member.target);
        if targets.any(|target| !target.is_empty()) {
            self.assigned_ms = Some(now_ms);
        }
        None
    }

    fn make_target(&mut self) {
        self.assignment_epoch = self.epoch;
        let partitions: Partitions = self
            .shares
            .iter()
            .map(|(id, shares)| (*id, shares.assignable()))
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
