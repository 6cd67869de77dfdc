//! A consumer group of KIP-848 as a state machine: no sockets, no clock, no locks (Kafka's ConsumerGroup, and its part of
//! GroupMetadataManager).
//!
//! ```text
//!   a member changes what it reads, joins, leaves; topics change      -> group epoch + 1
//!   group epoch > assignment epoch, the interval since the last is over -> a target for each member, assignment epoch = group epoch
//!   a member's heartbeat: it gives up what it must, gets what is free  -> member epoch = assignment epoch
//! ```
//!
//! Nobody gets a partition that another member has not given up. What a call changes is known here at once and stored after it:
//! [`ConsumerGroup::unstored`] says what, and whoever asked is answered when that is stored.
//!
//! - `heartbeat`: members of the new protocol; `classic_members`: those of the old one, on their way from it or back
//! - `target`: who is to have what, by the `assignor`s; `reconciliation`: one step of a member towards that
//! - `subscriptions`: what they read; `partitions`: how partitions are kept
//! - `convert`: from a classic group, and back; `stored`: as nodes of the tree, and back
//! - `settings`: what the configuration says; `described`: for people
//! - `tests`, `model`: of all files here

mod assignor;
mod classic_members;
mod convert;
mod described;
mod heartbeat;
mod member;
#[cfg(test)]
mod model;
mod partitions;
mod reconciliation;
mod settings;
mod stored;
mod subscriptions;
mod target;
#[cfg(test)]
mod tests;
mod visible;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use crate::coordinator::Topics;
use crate::group::limits::INITIAL_EPOCH;
use crate::group::member::member_label;
use crate::group::messages::GroupError;
use crate::group::reserved::Reserved;

pub use assignor::Assignor;
pub(in crate::group) use convert::is_vacant;
pub use described::{ConsumerGroupDescription, ConsumerMemberDescription, MemberPartitions};
pub use heartbeat::{ConsumerHeartbeat, ConsumerReply};
pub(in crate::group) use member::{ConsumerMember, MemberState, Reads};
pub use settings::{ConsumerSettings, GroupSettings, MigrationPolicy};
pub(in crate::group) use stored::{
    CONSUMER_TYPE, StoredConsumerGroup, WrittenParts, load, remove_ops,
};
pub use visible::VisibleTopics;

use partitions::Partitions;
use reconciliation::Owners;
use subscriptions::Subscriptions;

/// What changed and is not stored yet.
#[derive(Debug, Default)]
pub(in crate::group) struct Unstored {
    /// Epochs.
    pub(in crate::group) head: bool,
    /// Members, those that are gone too.
    pub(in crate::group) members: BTreeSet<String>,
    /// Partitions that have another owner.
    pub(in crate::group) owners: BTreeSet<(Uuid, i32)>,
}

impl Unstored {
    pub(in crate::group) fn is_empty(&self) -> bool {
        !self.head && self.members.is_empty() && self.owners.is_empty()
    }

    /// What could not be stored is to be stored again.
    pub(in crate::group) fn again(&mut self, refused: Self) {
        self.head |= refused.head;
        self.members.extend(refused.members);
        self.owners.extend(refused.owners);
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::group) struct ConsumerGroup {
    /// The group epoch.
    pub(in crate::group) epoch: i32,
    pub(in crate::group) assignment_epoch: i32,
    /// When the target was made, ms; 0 for never.
    assigned_ms: i64,
    pub(in crate::group) members: BTreeMap<String, ConsumerMember>,
    /// Member ids by `group.instance.id`.
    instances: HashMap<String, String>,
    owners: Owners,
    /// The share of the partitions that members have of the memory for members.
    of_partitions: Option<Reserved>,
    /// There was no room for a target: none is made before, ms; 0 where there was.
    no_room_until_ms: i64,
    subscriptions: Subscriptions,
    /// When the group last became empty, ms.
    pub(in crate::group) changed_ms: i64,
    /// Counts changes.
    change: u64,
    unstored: Unstored,
    /// Nothing is due before, ms; something may be due then.
    due_ms: i64,
    /// Members that were thrown out or converted and why, for people.
    told: Vec<Told>,
}

/// Something that happened to the group, for people.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::group) struct Told {
    /// The member that set it off.
    pub(in crate::group) who: String,
    /// Why.
    pub(in crate::group) why: String,
}

impl ConsumerGroup {
    pub(in crate::group) fn new(now_ms: i64) -> Self {
        Self {
            epoch: INITIAL_EPOCH,
            assignment_epoch: INITIAL_EPOCH,
            assigned_ms: 0,
            members: BTreeMap::new(),
            instances: HashMap::new(),
            owners: Owners::new(),
            of_partitions: None,
            no_room_until_ms: 0,
            subscriptions: Subscriptions::default(),
            changed_ms: now_ms,
            change: 0,
            unstored: Unstored::default(),
            due_ms: i64::MAX,
            told: Vec::new(),
        }
    }

    /// Kafka's name of the state.
    pub(in crate::group) fn state(&self) -> &'static str {
        let lags = |member: &ConsumerMember| !member.is_reconciled_to(self.assignment_epoch);
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.assignment_epoch {
            "Assigning"
        } else if self.members.values().any(lags) {
            "Reconciling"
        } else {
            "Stable"
        }
    }

    /// Whether a member reads a topic.
    pub(in crate::group) fn subscribes(&self, topic: &str) -> bool {
        self.subscriptions.has(topic)
    }

    /// What changed since the last call.
    pub(in crate::group) fn take_unstored(&mut self) -> Unstored {
        std::mem::take(&mut self.unstored)
    }

    pub(in crate::group) fn unstored(&mut self) -> &mut Unstored {
        &mut self.unstored
    }

    /// The number of the latest change.
    pub(in crate::group) fn change(&self) -> u64 {
        self.change
    }

    /// What happened since the last call.
    pub(in crate::group) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// When [`Self::tick`] may have something to do, ms.
    pub(in crate::group) fn next_deadline(&self) -> Option<i64> {
        (self.due_ms < i64::MAX).then_some(self.due_ms)
    }

    /// The same as [`ConsumerMember::instance_id`]'s member.
    fn static_member(&self, instance_id: &str) -> Option<&ConsumerMember> {
        self.members.get(self.instances.get(instance_id)?)
    }

    fn touch(&mut self) -> u64 {
        self.change += 1;
        self.change
    }

    fn touch_head(&mut self) {
        self.touch();
        self.unstored.head = true;
    }

    /// The target is to be made anew.
    fn bump_epoch(&mut self, who: &str, why: &str) {
        self.epoch += 1;
        self.touch_head();
        self.told.push(Told {
            who: who.to_owned(),
            why: why.to_owned(),
        });
    }

    /// Puts in a member that is new or changed in what is stored of it. What it reads is told apart, by [`Self::reads`].
    fn put(&mut self, mut member: ConsumerMember) {
        member.changed = self.touch();
        let is_new = self.unstored.members.insert(member.id.clone());
        // The head says how many there are.
        self.unstored.head |= is_new && member.epoch == 0;
        self.put_unchanged(member);
    }

    /// Puts in a member as it is stored.
    fn put_unchanged(&mut self, member: ConsumerMember) {
        self.due_ms = self.due_ms.min(member.next_deadline());
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Notes what a member reads now; whether it is something else than before.
    fn reads(&mut self, before: Option<&Reads>, now: &Reads) -> bool {
        self.subscriptions.add(now);
        if let Some(before) = before {
            self.subscriptions.remove(before);
        }
        let nothing = Reads::default();
        let before = before.unwrap_or(&nothing);
        (&before.topics, before.pattern()) != (&now.topics, now.pattern())
    }

    /// Partitions are the member's that it has now, and no others.
    fn own(&mut self, had: &[(Uuid, i32)], member: &ConsumerMember) {
        for key in had {
            let is_still = member.assigned.has(key.0, key.1) || member.revoking.has(key.0, key.1);
            if !is_still && self.owners.get(key) == Some(&member.id) {
                self.owners.remove(key);
                self.unstored.owners.insert(*key);
            }
        }
        let has = member.assigned.iter().chain(member.revoking.iter());
        for (topic, partition, _) in has {
            let key = (topic, partition);
            if self.owners.get(&key) != Some(&member.id) {
                self.owners.insert(key, member.id.clone());
                self.unstored.owners.insert(key);
            }
        }
    }

    /// All that a member has.
    fn partitions_of(member: &ConsumerMember) -> Vec<(Uuid, i32)> {
        let has = member.assigned.iter().chain(member.revoking.iter());
        has.map(|(topic, partition, _)| (topic, partition))
            .collect()
    }

    /// Takes a member out for good, with all that it has.
    fn remove(&mut self, id: &str) -> Option<ConsumerMember> {
        let member = self.members.remove(id)?;
        self.subscriptions.remove(&member.reads);
        self.touch();
        self.unstored.members.insert(id.to_owned());
        for key in Self::partitions_of(&member) {
            if self.owners.get(&key).is_some_and(|owner| owner == id) {
                self.owners.remove(&key);
                self.unstored.owners.insert(key);
            }
        }
        self.unstored.head = true;
        self.forget_instance(&member);
        Some(member)
    }

    /// The member is none of its instance id any more.
    fn forget_instance(&mut self, member: &ConsumerMember) {
        if let Some(instance) = &member.instance_id
            && self.instances.get(instance) == Some(&member.id)
        {
            self.instances.remove(instance);
        }
    }

    /// Throws members out (Kafka's consumerGroupFenceMembers, without the downgrade).
    fn fence(&mut self, now_ms: i64, ids: &[String], why: &str) {
        let gone: Vec<ConsumerMember> = ids.iter().filter_map(|id| self.remove(id)).collect();
        if self.members.is_empty() {
            self.of_partitions = None;
        }
        let Some(first) = gone.first() else {
            return;
        };
        self.bump_epoch(&label(first), why);
        if self.members.is_empty() {
            self.assignment_epoch = self.epoch;
            self.assigned_ms = 0;
            self.changed_ms = now_ms;
        }
    }

    /// Does what is due: silent members are thrown out, and a target that had to wait is made. Members that are gone.
    pub(in crate::group) fn tick(
        &mut self,
        now_ms: i64,
        settings: &ConsumerSettings,
        topics: &dyn Topics,
    ) {
        if now_ms < self.due_ms {
            return;
        }
        let mut late: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        for member in self.members.values_mut() {
            if let Some(why) = member.is_late(now_ms) {
                late.entry(why).or_default().push(member.id.clone());
            }
        }
        for (why, ids) in late {
            for id in &ids {
                tracing::info!(member = id, why, "thrown out of its group");
            }
            self.fence(now_ms, &ids, why);
        }
        self.make_target_if_due(now_ms, settings, topics);
        self.reschedule(now_ms, settings);
    }

    fn reschedule(&mut self, now_ms: i64, settings: &ConsumerSettings) {
        let of_members = self.members.values().map(ConsumerMember::next_deadline);
        let mut due_ms = of_members.min().unwrap_or(i64::MAX);
        if self.epoch > self.assignment_epoch && !self.members.is_empty() {
            due_ms = due_ms.min(self.target_due_ms(settings).max(now_ms + 1));
        }
        self.due_ms = due_ms;
    }

    /// Whether offsets may be committed: by a member in its epoch, or in an older one for partitions that it has had since
    /// (KIP-1251); or from outside while the group is empty. One outcome for all, or the question for each partition.
    pub(in crate::group) fn check_commit(
        &self,
        (member_id, instance_id, epoch): (&str, Option<&str>, i32),
        how: CommitKind,
    ) -> Result<Commit<'_>, GroupError> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(Commit::All);
        }
        let is_anonymous = epoch < 0 && member_id.is_empty() && instance_id.is_none();
        if how == CommitKind::Transactional && is_anonymous {
            return Ok(Commit::All);
        }
        let member = self.members.get(member_id);
        let member = member.ok_or(GroupError::UnknownMemberId)?;
        let is_old = matches!(how, CommitKind::Plain { version } if version < 9);
        if is_old && !member.is_classic() {
            return Err(GroupError::UnsupportedVersion);
        }
        if epoch > member.epoch {
            return Err(stale(member));
        }
        match epoch == member.epoch {
            true => Ok(Commit::All),
            false => Ok(Commit::Older { member, epoch }),
        }
    }

    /// Whether a member may ask for offsets.
    pub(in crate::group) fn check_fetch(
        &self,
        member_id: Option<&str>,
        epoch: i32,
    ) -> Result<(), GroupError> {
        if member_id.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = member_id.and_then(|id| self.members.get(id));
        let member = member.ok_or(GroupError::UnknownMemberId)?;
        match epoch == member.epoch {
            true => Ok(()),
            false => Err(stale(member)),
        }
    }
}

/// How offsets are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::group) enum CommitKind {
    /// By OffsetCommit of this version.
    Plain { version: i16 },
    /// By TxnOffsetCommit.
    Transactional,
}

/// What of a commit is allowed.
#[derive(Debug)]
pub(in crate::group) enum Commit<'a> {
    /// Everything.
    All,
    /// What the member has had since that epoch.
    Older {
        member: &'a ConsumerMember,
        epoch: i32,
    },
}

impl Commit<'_> {
    /// Whether a partition's offset may be committed.
    pub(in crate::group) fn check(&self, topic: Uuid, partition: i32) -> Result<(), GroupError> {
        let Self::Older { member, epoch } = self else {
            return Ok(());
        };
        let since = member.assigned.epoch_of(topic, partition);
        let since = since.or_else(|| member.revoking.epoch_of(topic, partition));
        match since.is_some_and(|since| *epoch >= since) {
            true => Ok(()),
            false => Err(stale(member)),
        }
    }
}

/// What a member of an old epoch is told, by its protocol.
fn stale(member: &ConsumerMember) -> GroupError {
    match member.is_classic() {
        true => GroupError::IllegalGeneration,
        false => GroupError::StaleMemberEpoch,
    }
}

/// A member's name for people.
fn label(member: &ConsumerMember) -> String {
    member_label(
        member.instance_id.as_deref(),
        &member.client_id,
        &member.client_host,
    )
}
