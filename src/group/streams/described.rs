//! A streams group for people and StreamsGroupDescribe.
//!
//! Tests: tests/streams.rs.

use std::collections::BTreeMap;

use super::member::{ENTRY_BYTES, Endpoint, StreamsMember, TaskOffsets};
use super::messages::topology_bytes;
use super::readiness::Readiness;
use super::{StreamsGroup, tasks::AssignedTasks, tasks::TargetTasks};
use crate::meta::streams_records::Topology;

/// Partitions of subtopologies.
pub type TaskNumbers = BTreeMap<String, Vec<i32>>;

/// Subtopology, partition, offset.
pub type TaskOffset = (String, i32, i64);

/// Tasks of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribedTasks {
    /// It runs them.
    pub active: TaskNumbers,
    /// It keeps a copy of their state.
    pub standby: TaskNumbers,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsMemberDescription {
    /// Made by the client.
    pub member_id: String,
    /// Its epoch.
    pub epoch: i32,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Where it is, if it says so.
    pub rack: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Of the topology that it runs.
    pub topology_epoch: i32,
    /// The process that it is a thread of.
    pub process_id: String,
    /// Where its state can be asked for.
    pub endpoint: Option<Endpoint>,
    /// What it says of where it is.
    pub client_tags: BTreeMap<String, String>,
    /// How far its copies of state are.
    pub offsets: Vec<TaskOffset>,
    /// How far they could be.
    pub end_offsets: Vec<TaskOffset>,
    /// What it has.
    pub assigned: DescribedTasks,
    /// What it is asked to give up.
    pub revoking: DescribedTasks,
    /// What it is to have.
    pub target: DescribedTasks,
    /// Ids of members that have what it is to run.
    pub waits_for: Vec<String>,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsGroupDescription {
    /// Kafka's name of the state.
    pub state: &'static str,
    /// The group epoch.
    pub epoch: i32,
    /// Of the targets.
    pub assignment_epoch: i32,
    /// What the application does; internal topics with the numbers of partitions that they have, where they are ready.
    pub topology: Option<Topology>,
    /// Why it cannot run yet, if it cannot.
    pub hindrance: Option<String>,
    /// All members.
    pub members: Vec<StreamsMemberDescription>,
}

/// What a member takes in an answer besides its texts, tags and tasks.
const MEMBER_BYTES: usize = 600;

impl StreamsGroupDescription {
    /// What it takes in an answer, bytes, roughly.
    pub fn bytes(&self) -> usize {
        let members = self.members.iter().map(StreamsMemberDescription::bytes);
        self.topology.as_ref().map_or(0, topology_bytes) + members.sum::<usize>()
    }
}

impl StreamsMemberDescription {
    fn bytes(&self) -> usize {
        let of_id = self.member_id.len() + self.client_id.len() + self.client_host.len();
        let tags = self.client_tags.iter();
        let tags = tags.map(|(key, value)| ENTRY_BYTES + key.len() + value.len());
        let offsets = self.offsets.iter().chain(&self.end_offsets);
        let offsets = offsets.map(|(name, ..)| ENTRY_BYTES + name.len());
        let both = [&self.assigned, &self.target];
        let both = both.into_iter().flat_map(|of| [&of.active, &of.standby]);
        let tasks = both.flatten();
        let tasks = tasks.map(|(name, all)| ENTRY_BYTES + name.len() + 4 * all.len());
        let texts = of_id + self.process_id.len();
        MEMBER_BYTES + texts + tags.chain(offsets).chain(tasks).sum::<usize>()
    }
}

impl StreamsGroup {
    pub(in crate::group) fn describe(&self) -> StreamsGroupDescription {
        let readiness = self.readiness.as_ref();
        let status = readiness.and_then(|found| found.status.as_ref());
        StreamsGroupDescription {
            state: self.state(),
            epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            topology: self.described_topology(),
            hindrance: status.map(|status| status.detail.clone()),
            members: self.members.values().map(|of| self.described(of)).collect(),
        }
    }

    fn described_topology(&self) -> Option<Topology> {
        let mut topology = self.topology.clone()?;
        let readiness = self.readiness.as_ref();
        if let Some(found) = readiness.filter(|found| Readiness::is_ready(found)) {
            for part in topology.subtopologies.values_mut() {
                let repartitioned = part.repartition_source_topics.iter_mut();
                for topic in repartitioned.chain(&mut part.changelog_topics) {
                    if let Some(count) = found.internal.get(&topic.name) {
                        topic.partitions = *count;
                    }
                }
            }
        }
        Some(topology)
    }

    fn described(&self, member: &StreamsMember) -> StreamsMemberDescription {
        let said = &member.metadata;
        let wanted = member.target.active.iter();
        let wanted = wanted.filter(|(name, n)| !member.assigned.active.has(name, *n));
        let holders = wanted.filter_map(|(name, n)| self.holders.active(&(name.to_owned(), n)));
        let mut waits_for: Vec<String> = holders.filter(|id| **id != member.id).cloned().collect();
        waits_for.sort();
        waits_for.dedup();
        StreamsMemberDescription {
            member_id: member.id.clone(),
            epoch: member.epoch,
            instance_id: said.instance_id.clone(),
            rack: said.rack.clone(),
            client_id: said.client_id.clone(),
            client_host: said.client_host.clone(),
            topology_epoch: said.topology_epoch,
            process_id: said.process_id.clone(),
            endpoint: said.endpoint.clone(),
            client_tags: said.client_tags.clone(),
            offsets: offsets(&member.offsets),
            end_offsets: offsets(&member.end_offsets),
            assigned: of_assigned(&member.assigned),
            revoking: of_assigned(&member.revoking),
            target: of_target(&member.target),
            waits_for,
        }
    }
}

fn of_assigned(tasks: &AssignedTasks) -> DescribedTasks {
    DescribedTasks {
        active: tasks.active.tasks().lists(),
        standby: tasks.standby.lists(),
    }
}

fn of_target(tasks: &TargetTasks) -> DescribedTasks {
    DescribedTasks {
        active: tasks.active.lists(),
        standby: tasks.standby.lists(),
    }
}

fn offsets(offsets: &TaskOffsets) -> Vec<TaskOffset> {
    let all = offsets.iter();
    all.map(|((name, n), offset)| (name.clone(), *n, *offset))
        .collect()
}
