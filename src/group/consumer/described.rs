//! A consumer group as people and ConsumerGroupDescribe see it.

use super::{ConsumerGroup, ConsumerMember, ConsumerSettings, Partitions};
use crate::coordinator::Topics;
use uuid::Uuid;

/// Partitions by topic: id, name, numbers; those of topics that are gone are left out.
pub type MemberPartitions = Vec<(Uuid, String, Vec<i32>)>;

/// A consumer group, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupDescription {
    /// Kafka's name of the state.
    pub state: &'static str,
    /// The group epoch.
    pub epoch: i32,
    /// The group epoch that the targets were made for.
    pub assignment_epoch: i32,
    /// The assignor that makes the next one.
    pub assignor: &'static str,
    /// All members.
    pub members: Vec<ConsumerMemberDescription>,
}

/// A member of a consumer group, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerMemberDescription {
    /// Member id.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// Where it is.
    pub rack_id: Option<String>,
    /// Its epoch.
    pub epoch: i32,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Topics that it reads.
    pub topics: Vec<String>,
    /// A regular expression of topics that it reads.
    pub regex: Option<String>,
    /// Whether it speaks the classic protocol.
    pub is_classic: bool,
    /// Kafka's name of where it stands: `STABLE`, `UNREVOKED_PARTITIONS`, `UNRELEASED_PARTITIONS`.
    pub state: &'static str,
    /// What it has, also what it is asked to give up.
    pub assigned: MemberPartitions,
    /// What it is asked to give up.
    pub revoking: MemberPartitions,
    /// What it is to have.
    pub target: MemberPartitions,
    /// Members that have something of that, which it waits for.
    pub waits_for: Vec<String>,
}

impl ConsumerGroup {
    /// The group for people.
    pub(in crate::group) fn describe(
        &self,
        settings: &ConsumerSettings,
        topics: &dyn Topics,
    ) -> ConsumerGroupDescription {
        let assignor = self
            .preferred_assignor()
            .unwrap_or(settings.default_assignor());
        let members = self.members.values();
        ConsumerGroupDescription {
            state: self.state(),
            epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor: assignor.name(),
            members: members
                .map(|member| self.describe_member(member, topics))
                .collect(),
        }
    }

    fn describe_member(
        &self,
        member: &ConsumerMember,
        topics: &dyn Topics,
    ) -> ConsumerMemberDescription {
        let mut has = member.assigned.partitions();
        for (topic, partition, _) in member.revoking.iter() {
            has.entry(topic).or_default().insert(partition);
        }
        let waits_for = self.waits_for(&member.id).into_iter();
        let mut waits_for: Vec<String> = waits_for.map(|(_, _, of)| of.to_owned()).collect();
        waits_for.sort();
        waits_for.dedup();
        ConsumerMemberDescription {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: member.reads.topics.iter().cloned().collect(),
            regex: member.reads.regex.clone(),
            is_classic: member.is_classic(),
            state: member.state.name(),
            assigned: named(&has, topics),
            revoking: named(&member.revoking.partitions(), topics),
            target: named(&member.target, topics),
            waits_for,
        }
    }
}

fn named(partitions: &Partitions, topics: &dyn Topics) -> MemberPartitions {
    let topics = partitions
        .iter()
        .filter_map(|(id, numbers)| Some((*id, topics.name_of(*id)?, numbers)));
    topics
        .map(|(id, name, numbers)| (id, name, numbers.iter().copied().collect()))
        .collect()
}
