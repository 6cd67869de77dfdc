//! A streams group of KIP-1071 as a state machine: no sockets, no clock, no locks (Kafka's StreamsGroup, and its part of
//! GroupMetadataManager). Its members are threads of an application that Kafka Streams runs; what they share are its tasks.
//!
//! ```text
//!   a member joins, leaves, changes; topics change; the topology's topics are ready -> group epoch + 1
//!   group epoch > assignment epoch, the delay is over -> a target for each member, assignment epoch = group epoch
//!   a member's heartbeat: it gives up what it must, gets what is free -> member epoch = assignment epoch
//! ```
//!
//! The first member brings the topology. Topics between parts of the application, and those that keep its state, are made by
//! whoever asks this machine, which is told which ones. Nobody gets an active task that another member has not given up.
//!
//! What a call changes is known here at once and is to be stored after it ([`StreamsGroup::is_unstored`]).
//!
//! - `heartbeat`: members report; `messages`: what they say and are told; `member`: one of them; `status`: what they are told besides
//! - `readiness`, `not_ready`, `partition_counts`: whether the topics are as the topology needs them
//! - `sticky_assignor`: who is to have which tasks; `reconciliation`: one step of a member towards that; `tasks`: sets of them
//! - `endpoints`: where the state of which partitions can be asked for
//! - `settings`: what the configuration says; `stored`: the group as a node of the tree, and back; `described`: for people
//! - `tests`, `model`: of all files here

mod described;
mod endpoints;
mod heartbeat;
mod member;
mod messages;
#[cfg(test)]
mod model;
mod not_ready;
mod partition_counts;
mod readiness;
mod reconciliation;
mod settings;
mod status;
mod sticky_assignor;
mod stored;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use crate::coordinator::Topics;
use crate::group::limits::{ASSIGNED_BYTES, INITIAL_EPOCH, NO_ROOM_RETRY_MS};
use crate::group::member::member_label;
use crate::group::messages::GroupError;
use crate::group::reserved::Reserved;
use crate::meta::streams_records::Topology;

pub use described::{StreamsGroupDescription, StreamsMemberDescription, TaskNumbers, TaskOffset};
pub use endpoints::EndpointPartitions;
pub use member::Endpoint;
pub(in crate::group) use member::StreamsMember;
pub use messages::{OwnedLists, StreamsHeartbeat, StreamsReply};
pub use readiness::TopicToCreate;
pub use settings::StreamsSettings;
pub use status::{Status, StatusCode};
pub(in crate::group) use stored::{STREAMS_TYPE, load, ops};

use readiness::{Part, Readiness};
use sticky_assignor::{Candidate, assign};
use tasks::Holders;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(in crate::group) struct StreamsGroup {
    /// The group epoch.
    pub(in crate::group) epoch: i32,
    pub(in crate::group) assignment_epoch: i32,
    /// When the target was made, ms; 0 for never.
    assigned_ms: i64,
    /// No target is made before, ms; while the group's first members join.
    delayed_until_ms: Option<i64>,
    pub(in crate::group) members: BTreeMap<String, StreamsMember>,
    /// Member ids by `group.instance.id`.
    instances: HashMap<String, String>,
    holders: Holders,
    topology: Option<Topology>,
    /// The topology's share of what groups may hold in memory.
    reserved: Option<Reserved>,
    /// The share of the tasks that members have.
    of_tasks: Option<Reserved>,
    /// There was no room for a target: none is made before, ms.
    no_room_until_ms: i64,
    /// Of the topology whose topics are as it needs them; -1 for none.
    validated_topology_epoch: i32,
    readiness: Option<Readiness>,
    /// Topics that are missing are made by one member, and by another one from then on, ms.
    create_again_ms: i64,
    /// The topics that were looked at last, and what they looked like.
    seen_version: u64,
    topics_hash: u64,
    /// What the configuration said of assignments when the group epoch last grew.
    assignment_configs: BTreeMap<String, String>,
    /// The member that wants the whole application to end.
    shutdown_by: Option<String>,
    /// Counts changes of what can be asked for where; not stored.
    endpoint_epoch: i32,
    /// Counts changes.
    change: u64,
    is_unstored: bool,
    /// Nothing is due before, ms.
    due_ms: i64,
    /// Who set a rebalance off, and why, for people.
    told: Vec<(String, String)>,
}

impl StreamsGroup {
    pub(in crate::group) fn new() -> Self {
        Self {
            epoch: INITIAL_EPOCH,
            assignment_epoch: INITIAL_EPOCH,
            assigned_ms: 0,
            delayed_until_ms: None,
            members: BTreeMap::new(),
            instances: HashMap::new(),
            holders: Holders::default(),
            topology: None,
            reserved: None,
            of_tasks: None,
            no_room_until_ms: 0,
            validated_topology_epoch: -1,
            readiness: None,
            create_again_ms: 0,
            seen_version: 0,
            topics_hash: 0,
            assignment_configs: BTreeMap::new(),
            shutdown_by: None,
            endpoint_epoch: 0,
            change: 0,
            is_unstored: false,
            due_ms: i64::MAX,
            told: Vec::new(),
        }
    }

    /// Kafka's name of the state.
    pub(in crate::group) fn state(&self) -> &'static str {
        let topology_epoch = self.topology.as_ref().map(|topology| topology.epoch);
        let lags = |member: &StreamsMember| !member.is_reconciled_to(self.assignment_epoch);
        if self.members.is_empty() {
            "Empty"
        } else if topology_epoch != Some(self.validated_topology_epoch) {
            "NotReady"
        } else if self.epoch > self.assignment_epoch {
            "Assigning"
        } else if self.members.values().any(lags) {
            "Reconciling"
        } else {
            "Stable"
        }
    }

    /// Whether tasks of members read a topic.
    pub(in crate::group) fn subscribes(&self, topic: &str) -> bool {
        let topology = self.topology.as_ref();
        !self.members.is_empty() && topology.is_some_and(|topology| topology.reads(topic))
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

    /// What set rebalances off since this was asked last.
    pub(in crate::group) fn take_told(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.told)
    }

    /// When [`Self::tick`] may have something to do, ms.
    pub(in crate::group) fn next_deadline(&self) -> Option<i64> {
        (self.due_ms < i64::MAX).then_some(self.due_ms)
    }

    fn changed(&mut self) {
        self.change += 1;
        self.is_unstored = true;
    }

    /// The target is to be made anew.
    fn bump(&mut self, who: &str, why: &str) {
        self.epoch += 1;
        self.changed();
        self.told.push((who.to_owned(), why.to_owned()));
    }

    fn put(&mut self, member: StreamsMember) {
        self.due_ms = self.due_ms.min(member.next_deadline());
        if let Some(instance) = &member.metadata.instance_id {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out for good, with all that it has.
    fn remove(&mut self, id: &str) -> Option<StreamsMember> {
        let member = self.members.remove(id)?;
        let nothing = Default::default();
        self.holders.change(
            id,
            [&member.assigned, &member.revoking],
            [&nothing, &nothing],
        );
        if let Some(instance) = &member.metadata.instance_id
            && self.instances.get(instance).is_some_and(|own| own == id)
        {
            self.instances.remove(instance);
        }
        Some(member)
    }

    /// Throws a member out.
    fn fence(&mut self, id: &str, why: &str) {
        let Some(member) = self.remove(id) else {
            return;
        };
        if self.members.is_empty() {
            self.of_tasks = None;
        }
        if member.metadata.endpoint.is_some() {
            self.endpoint_epoch += 1;
        }
        self.bump(&label(&member), why);
        if self.members.is_empty() {
            self.assignment_epoch = self.epoch;
            self.assigned_ms = 0;
            self.delayed_until_ms = None;
            self.shutdown_by = None;
        }
    }

    /// Does what is due: silent members are thrown out, and a target that had to wait is made.
    pub(in crate::group) fn tick(&mut self, now_ms: i64, settings: &StreamsSettings) {
        if now_ms < self.due_ms {
            return;
        }
        let late = self.members.values();
        let late = late.filter_map(|member| Some((member.id.clone(), member.is_late(now_ms)?)));
        for (id, why) in late.collect::<Vec<_>>() {
            tracing::info!(member = id, why, "thrown out of its group");
            self.fence(&id, why);
        }
        self.make_target_if_due(now_ms, settings);
        self.reschedule(settings);
    }

    fn reschedule(&mut self, settings: &StreamsSettings) {
        let of_members = self.members.values().map(StreamsMember::next_deadline);
        self.due_ms = of_members.min().unwrap_or(i64::MAX);
        let waits = self.epoch > self.assignment_epoch && !self.members.is_empty();
        if waits && self.readiness.is_some() {
            self.due_ms = self.due_ms.min(self.target_due_ms(settings));
        }
    }

    /// When the next target may be made, ms.
    fn target_due_ms(&self, settings: &StreamsSettings) -> i64 {
        let interval_ms = i64::from(settings.assignment_interval_ms);
        let after_last = match self.assigned_ms {
            0 => 0,
            made_ms => made_ms.saturating_add(interval_ms),
        };
        let delayed = self.delayed_until_ms.unwrap_or(0);
        delayed.max(after_last).max(self.no_room_until_ms)
    }

    /// Makes a target for the group epoch, where there is none and nothing delays it; what delays it otherwise.
    fn make_target_if_due(&mut self, now_ms: i64, settings: &StreamsSettings) -> Option<Status> {
        // A clock that went back far delays nothing for as long.
        let delay_ms = i64::from(settings.initial_rebalance_delay_ms);
        let waits = |until: i64| until > now_ms && until <= now_ms.saturating_add(delay_ms);
        if self.delayed_until_ms.is_some_and(waits) {
            return Some(delayed("initial rebalance delay"));
        }
        self.delayed_until_ms = None;
        if self.assignment_epoch >= self.epoch || self.members.is_empty() {
            return None;
        }
        // A clock that went back far does not put it off for as long.
        let is_ahead = self.assigned_ms > now_ms;
        if self.no_room_until_ms > now_ms + NO_ROOM_RETRY_MS {
            self.no_room_until_ms = 0;
        }
        if self.no_room_until_ms > now_ms {
            return Some(no_room());
        }
        if now_ms < self.target_due_ms(settings) && !is_ahead {
            return Some(delayed("assignment interval"));
        }
        // It is not known until a member reports after a change of the coordinator.
        let readiness = self.readiness.as_ref()?;
        // One of nothing delays none that comes after it.
        let (parts, made_ms) = match readiness.is_ready() {
            true => (readiness.parts.clone(), now_ms),
            false => (BTreeMap::new(), 0),
        };
        if !self.reserve_tasks(&parts, settings.standby_replicas) {
            self.no_room_until_ms = now_ms + NO_ROOM_RETRY_MS;
            return Some(no_room());
        }
        self.no_room_until_ms = 0;
        let candidates = self.members.values().map(|member| Candidate {
            process_id: &member.metadata.process_id,
            assigned: &member.assigned,
            offsets: &member.offsets,
        });
        let candidates: Vec<Candidate<'_>> = candidates.collect();
        let targets = assign(&candidates, &parts, settings.standby_replicas);
        for (member, target) in self.members.values_mut().zip(targets) {
            member.target = target;
        }
        self.assignment_epoch = self.epoch;
        self.assigned_ms = made_ms;
        self.changed();
        None
    }

    /// Takes the memory for the tasks of a target; whether there is room.
    fn reserve_tasks(&mut self, parts: &BTreeMap<String, Part>, standby_replicas: usize) -> bool {
        let copies = 1 + standby_replicas.min(self.members.len() - 1);
        let of_part = |(name, part): (&String, &Part)| part.tasks as usize * task_bytes(name);
        let bytes = copies * parts.iter().map(of_part).sum::<usize>();
        let mut shares = self.members.values().map(|member| &member.reserved.member);
        // All members have one, but in tests.
        let Some(share) = shares.find_map(Option::as_ref) else {
            return true;
        };
        let Some(of_tasks) = share.another(bytes, self.of_tasks.as_ref()) else {
            return false;
        };
        self.of_tasks = Some(of_tasks);
        true
    }

    /// Looks at the topics, where they or the topology may be others than before: whether they are ready, and whether the target
    /// is to be made anew.
    fn look_at_topics(&mut self, topics: &dyn Topics) -> Result<bool, String> {
        let Some(topology) = &self.topology else {
            return Ok(false);
        };
        if self.readiness.is_some() && topics.version() == self.seen_version {
            return Ok(false);
        }
        let is_other = readiness::hash(topology, topics) != self.topics_hash;
        let readiness = match self.readiness.is_none() || is_other {
            true => Some(Readiness::of(topology, topics)?),
            false => None,
        };
        Ok(self.seen(topics, readiness))
    }

    /// The topics are as they are now, from which this follows, where it is something else than before; whether the target is to
    /// be made anew.
    fn seen(&mut self, topics: &dyn Topics, readiness: Option<Readiness>) -> bool {
        let Some(topology) = &self.topology else {
            return false;
        };
        if readiness.is_some() {
            self.readiness = readiness;
            self.create_again_ms = 0;
        }
        let hash = readiness::hash(topology, topics);
        let is_other = std::mem::replace(&mut self.topics_hash, hash) != hash;
        self.seen_version = topics.version();
        self.endpoint_epoch += i32::from(is_other);
        let is_ready = self.readiness.as_ref().is_some_and(Readiness::is_ready);
        let validated = match is_ready {
            true => topology.epoch,
            false => -1,
        };
        let was = std::mem::replace(&mut self.validated_topology_epoch, validated);
        is_other || was != validated
    }

    /// Whether offsets may be committed: by a member in its epoch, or in an older one for partitions of tasks that it has had
    /// since; or from outside while the group is empty. An outcome for each topic and partition.
    pub(in crate::group) fn check_commit<'a>(
        &self,
        (member_id, instance_id, epoch): (&str, Option<&str>, i32),
        version: Option<i16>,
        keys: impl Iterator<Item = (&'a str, i32)>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let is_anonymous = epoch < 0 && member_id.is_empty() && instance_id.is_none();
        let is_from_outside =
            epoch < 0 && self.members.is_empty() || version.is_none() && is_anonymous;
        if is_from_outside {
            return Ok(keys.map(|_| Ok(())).collect());
        }
        let member = self.members.get(member_id);
        let member = member.ok_or(GroupError::UnknownMemberId)?;
        if version.is_some_and(|version| version < 9) {
            return Err(GroupError::UnsupportedVersion);
        }
        if epoch > member.epoch {
            return Err(GroupError::StaleMemberEpoch);
        }
        if epoch == member.epoch {
            return Ok(keys.map(|_| Ok(())).collect());
        }
        let readers = self.topology.as_ref().map(Topology::readers);
        let readers = readers.unwrap_or_default();
        let check = |(topic, partition): (&str, i32)| {
            let since = readers.get(topic).and_then(|part| {
                let assigned = member.assigned.active.since(part, partition);
                assigned.or_else(|| member.revoking.active.since(part, partition))
            });
            match since.is_some_and(|since| epoch >= since) {
                true => Ok(()),
                false => Err(GroupError::StaleMemberEpoch),
            }
        };
        Ok(keys.map(check).collect())
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
            false => Err(GroupError::StaleMemberEpoch),
        }
    }
}

/// What a task of a subtopology takes, bytes, roughly.
fn task_bytes(subtopology: &str) -> usize {
    ASSIGNED_BYTES + subtopology.len()
}

fn no_room() -> Status {
    let why = "Assignment delayed: there is no memory for so many tasks (group.members.max.bytes).";
    Status::new(StatusCode::AssignmentDelayed, why.to_owned())
}

fn delayed(by: &str) -> Status {
    Status::new(
        StatusCode::AssignmentDelayed,
        format!("Assignment delayed due to the configured {by}."),
    )
}

/// A member's name for people.
fn label(member: &StreamsMember) -> String {
    let said = &member.metadata;
    member_label(
        said.instance_id.as_deref(),
        &said.client_id,
        &said.client_host,
    )
}
