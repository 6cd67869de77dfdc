//! The members of a group of any protocol, as its page shows them.
//!
//! Tests: tests/shares_seen.rs, tests/broadcast.rs.

use std::collections::HashMap;

use crate::group::{
    BROADCAST_PROTOCOL, ConsumerGroupDescription, ConsumerMemberDescription, Described,
    GroupDescription, GroupError, GroupKind, MemberDescription, MemberPartitions,
    ShareGroupDescription, ShareMemberDescription, StreamsGroupDescription,
    StreamsMemberDescription, TaskNumbers, assigned_partitions,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::admin) enum NoGroup {
    #[error("there is no group {0}")]
    Unknown(String),
    #[error("broker {0} coordinates this group; ask its dashboard")]
    Elsewhere(i32),
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// A group with its members.
pub(super) struct Seen {
    pub(super) kind: GroupKind,
    pub(super) state: &'static str,
    /// Of a consumer group its epoch.
    pub(super) generation: i32,
    pub(super) protocol_type: String,
    /// The assignor.
    pub(super) protocol: String,
    pub(super) members: Vec<SeenMember>,
}

/// A member.
pub(super) struct SeenMember {
    pub(super) member_id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) partitions: Vec<(String, Vec<i32>)>,
    /// Where it stands, where there is more to say than what it has.
    pub(super) standing: Option<String>,
}

impl Seen {
    /// Leaves out what members have of topics that are not there for the visitor.
    pub(super) fn keep_topics(&mut self, is_seen: impl Fn(&str) -> bool) {
        for member in &mut self.members {
            member.partitions.retain(|(topic, _)| is_seen(topic));
        }
    }
}

impl SeenMember {
    /// Its name for people.
    pub(super) fn client(&self) -> String {
        let host = self.client_host.trim_start_matches('/');
        format!("{} ({host})", self.client_id)
    }
}

impl From<Described> for Seen {
    fn from(described: Described) -> Self {
        match described {
            Described::Classic(group) => of_classic(group),
            Described::Consumer(group) => of_consumer(group),
            Described::Share(group) => of_share(group),
            Described::Streams(group) => of_streams(group),
        }
    }
}

fn of_classic(group: GroupDescription) -> Seen {
    let member = |member: MemberDescription| SeenMember {
        partitions: assigned_partitions(&member.assignment).unwrap_or_default(),
        member_id: member.member_id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
        standing: None,
    };
    Seen {
        kind: GroupKind::Classic,
        state: group.state,
        generation: group.generation,
        protocol_type: group.protocol_type,
        protocol: group.protocol,
        members: group.members.into_iter().map(member).collect(),
    }
}

fn of_consumer(group: ConsumerGroupDescription) -> Seen {
    let names = group.members.iter();
    let names: HashMap<String, String> = names
        .map(|member| (member.member_id.clone(), member.client_id.clone()))
        .collect();
    let members = group.members.iter().map(|member| SeenMember {
        member_id: member.member_id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        partitions: without_ids(&member.assigned),
        standing: standing(&group, member, &names),
    });
    Seen {
        kind: GroupKind::Consumer,
        state: group.state,
        generation: group.epoch,
        protocol_type: "consumer".to_owned(),
        protocol: group.assignor.to_owned(),
        members: members.collect(),
    }
}

fn of_share(group: ShareGroupDescription) -> Seen {
    let member = |member: ShareMemberDescription| SeenMember {
        member_id: member.member_id,
        instance_id: None,
        client_id: member.client_id,
        client_host: member.client_host,
        partitions: without_ids(&member.assigned),
        standing: None,
    };
    Seen {
        kind: GroupKind::Share,
        state: group.state,
        generation: group.epoch,
        protocol_type: "share".to_owned(),
        protocol: "simple".to_owned(),
        members: group.members.into_iter().map(member).collect(),
    }
}

fn of_streams(group: StreamsGroupDescription) -> Seen {
    let names = group.members.iter();
    let names: HashMap<String, String> = names
        .map(|member| (member.member_id.clone(), member.client_id.clone()))
        .collect();
    let members = group.members.iter().map(|member| SeenMember {
        member_id: member.member_id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        partitions: partitions_of_tasks(&group, &member.assigned.active),
        standing: streams_standing(&group, member, &names),
    });
    Seen {
        kind: GroupKind::Streams,
        state: group.state,
        generation: group.epoch,
        protocol_type: "streams".to_owned(),
        protocol: "sticky".to_owned(),
        members: members.collect(),
    }
}

/// The partitions that tasks read; a topic may have fewer than its part of the application has tasks.
fn partitions_of_tasks(
    group: &StreamsGroupDescription,
    tasks: &TaskNumbers,
) -> Vec<(String, Vec<i32>)> {
    let Some(topology) = &group.topology else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (part, numbers) in tasks {
        let part = topology.subtopologies.get(part);
        let topics = part.into_iter().flat_map(|part| part.inputs());
        found.extend(topics.map(|topic| (topic.clone(), numbers.clone())));
    }
    found
}

/// Which tasks a member has, and what it waits for.
fn streams_standing(
    group: &StreamsGroupDescription,
    member: &StreamsMemberDescription,
    names: &HashMap<String, String>,
) -> Option<String> {
    let list = |tasks: &TaskNumbers| {
        let tasks = tasks
            .iter()
            .flat_map(|(part, numbers)| numbers.iter().map(move |n| format!("{part}_{n}")));
        tasks.collect::<Vec<_>>().join(" ")
    };
    let mut said = Vec::new();
    if member.epoch == -2 {
        said.push("left for a while; its tasks wait for it".to_owned());
    }
    if !member.assigned.active.is_empty() {
        said.push(format!("runs {}", list(&member.assigned.active)));
    }
    if !member.assigned.standby.is_empty() {
        said.push(format!("stands by for {}", list(&member.assigned.standby)));
    }
    if !member.revoking.active.is_empty() || !member.revoking.standby.is_empty() {
        let (active, standby) = (
            list(&member.revoking.active),
            list(&member.revoking.standby),
        );
        let tasks = format!("{active} {standby}");
        let tasks = tasks.trim();
        said.push(format!(
            "is asked to give up {tasks} and has not said yet that it has"
        ));
    }
    if !member.waits_for.is_empty() {
        let names = clients(&member.waits_for, names);
        said.push(format!("waits for tasks of {names}"));
    }
    if let Some(why) = &group.hindrance {
        said.push(why.clone());
    }
    (!said.is_empty()).then(|| format!("epoch {}: {}", member.epoch, said.join("; ")))
}

/// Client ids of members, in a list; the id of one whose client is not known.
fn clients(ids: &[String], names: &HashMap<String, String>) -> String {
    let names = ids.iter().map(|id| names.get(id).unwrap_or(id).as_str());
    names.collect::<Vec<_>>().join(", ")
}

fn without_ids(partitions: &MemberPartitions) -> Vec<(String, Vec<i32>)> {
    let topics = partitions.iter();
    topics
        .map(|(_, name, numbers)| (name.clone(), numbers.clone()))
        .collect()
}

fn count(partitions: &MemberPartitions) -> usize {
    partitions.iter().map(|(_, _, numbers)| numbers.len()).sum()
}

/// Why a member has not what it is to have yet, and for whom it waits.
fn standing(
    group: &ConsumerGroupDescription,
    member: &ConsumerMemberDescription,
    names: &HashMap<String, String>,
) -> Option<String> {
    let mut said = Vec::new();
    if member.is_classic {
        said.push("speaks the classic protocol".to_owned());
    }
    if member.epoch == -2 {
        said.push("left for a while; its partitions wait for it".to_owned());
    }
    let revoking = count(&member.revoking);
    if revoking > 0 {
        said.push(format!(
            "is asked to give up {revoking} and has not said yet that it has"
        ));
    }
    if !member.waits_for.is_empty() {
        let names = clients(&member.waits_for, names);
        said.push(format!("waits for partitions of {names}"));
    }
    // In a broadcast group each member has an epoch of its own.
    let is_behind = member.epoch >= 0
        && member.epoch < group.assignment_epoch
        && group.assignor != BROADCAST_PROTOCOL;
    if is_behind && said.is_empty() {
        let (has, of) = (count(&member.assigned), count(&member.target));
        said.push(format!(
            "has {has}, is to have {of} from its next heartbeat on"
        ));
    }
    (!said.is_empty()).then(|| format!("epoch {}: {}", member.epoch, said.join("; ")))
}
