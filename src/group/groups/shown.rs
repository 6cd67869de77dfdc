//! Groups as people see them: those that belong together as one broadcast group.
//!
//! Tests: group/groups/tests/broadcast.rs.

use std::collections::BTreeSet;

use super::Groups;
use super::broadcast::is_there;
use crate::coordinator::Topics;
use crate::group::classic::ClassicGroup;
use crate::group::consumer::{
    ConsumerGroupDescription, ConsumerMemberDescription, MemberPartitions,
};
use crate::group::group::{Group, Members};
use crate::group::messages::{
    Described, GroupDescription, GroupKind, GroupListing, GroupSurvey, MemberDescription,
};
use crate::group::solo::{BROADCAST_PROTOCOL, Solo, group_of};
use crate::group::subscription::{assignment, subscribed_topics};

/// A group as it is shown to people.
#[derive(Clone, Copy)]
pub(super) enum Shown<'a> {
    Ordinary(&'a str, &'a Group),
    Broadcast(&'a str),
}

impl Groups {
    /// Whether there is a broadcast group of the name to show.
    pub(super) fn is_shown_as_broadcast(&self, group_id: &str) -> bool {
        self.solos(group_id).next().is_some()
            && (!self.groups.contains_key(group_id) || self.is_broadcast(group_id))
    }

    /// All groups, those that belong together as one.
    pub(super) fn shown(&self) -> Vec<Shown<'_>> {
        let solos = self.groups.keys().filter_map(|id| group_of(id));
        let mut broadcast: BTreeSet<&str> = solos.collect();
        broadcast.retain(|id| self.is_shown_as_broadcast(id));
        let ordinary = self
            .groups
            .iter()
            .filter(|(id, _)| Solo::of(id).is_none() && !broadcast.contains(id.as_str()));
        let ordinary = ordinary.map(|(id, group)| Shown::Ordinary(id, group));
        let broadcast = broadcast.iter().map(|id| Shown::Broadcast(id));
        ordinary.chain(broadcast).collect()
    }

    pub(super) fn list(&self, shown: Shown<'_>) -> GroupListing {
        match shown {
            Shown::Ordinary(id, group) => group.list(id),
            Shown::Broadcast(id) => GroupListing {
                group_id: id.to_owned(),
                kind: self.broadcast_kind(id),
                protocol_type: "consumer".to_owned(),
                state: self.broadcast_state(id),
            },
        }
    }

    pub(super) fn survey(&self, shown: Shown<'_>) -> GroupSurvey {
        let (id, group) = match shown {
            Shown::Ordinary(id, group) => return group.survey(id),
            Shown::Broadcast(id) => (id, self.slowest(id)),
        };
        let offsets = group.into_iter();
        GroupSurvey {
            group_id: id.to_owned(),
            kind: self.broadcast_kind(id),
            state: self.broadcast_state(id),
            members: self.solos(id).filter(|(_, solo)| is_there(solo)).count(),
            offsets: offsets
                .map(|((topic, partition), committed)| (topic, partition, committed.offset))
                .collect(),
        }
    }

    fn broadcast_state(&self, group_id: &str) -> &'static str {
        match self.solos(group_id).any(|(_, solo)| is_there(solo)) {
            true => "Stable",
            false => "Empty",
        }
    }

    /// The protocol of the members that are there. Where they speak both, the group is one of the newer protocol, which has a
    /// place for members of the older one.
    fn broadcast_kind(&self, group_id: &str) -> GroupKind {
        let speaks = |solo: &Group| solo.consumer().is_some() && is_there(solo);
        match self.solos(group_id).any(|(_, solo)| speaks(solo)) {
            true => GroupKind::Consumer,
            false => GroupKind::Classic,
        }
    }

    pub(super) fn describe_broadcast(&self, group_id: &str) -> Described {
        match self.broadcast_kind(group_id) {
            GroupKind::Consumer => Described::Consumer(self.describe_alone(group_id)),
            _ => Described::Classic(self.describe_classic_alone(group_id)),
        }
    }

    fn describe_classic_alone(&self, group_id: &str) -> GroupDescription {
        let alone = self.solos(group_id).filter_map(|(_, solo)| solo.classic());
        let described: Vec<_> = alone.map(ClassicGroup::describe).collect();
        let generation = described.iter().map(|alone| alone.generation).max();
        let state = self.broadcast_state(group_id);
        GroupDescription {
            state,
            protocol_type: "consumer".to_owned(),
            protocol: match state {
                "Empty" => String::new(),
                _ => BROADCAST_PROTOCOL.to_owned(),
            },
            generation: generation.unwrap_or(0),
            members: described
                .into_iter()
                .flat_map(|alone| alone.members)
                .collect(),
        }
    }

    /// Members of both protocols, each with the epoch or generation of its own.
    fn describe_alone(&self, group_id: &str) -> ConsumerGroupDescription {
        let mut members = Vec::new();
        for (id, solo) in self.solos(group_id) {
            match &solo.members {
                Members::Consumer(hosted) => {
                    let settings = self.consumer_settings(id);
                    let described = hosted.group.describe(&settings, &*self.topics);
                    members.extend(described.members);
                }
                Members::Classic(classic) => {
                    let described = classic.describe();
                    let generation = described.generation;
                    let all = described.members.into_iter();
                    members.extend(all.map(|member| of_classic(member, generation, &*self.topics)));
                }
                Members::Share(_) | Members::Streams(_) => {}
            }
        }
        let epoch = members.iter().map(|member| member.epoch).max().unwrap_or(0);
        ConsumerGroupDescription {
            state: self.broadcast_state(group_id),
            epoch,
            assignment_epoch: epoch,
            assignor: BROADCAST_PROTOCOL,
            members,
        }
    }
}

/// A member of the classic protocol beside others of KIP-848.
fn of_classic(
    member: MemberDescription,
    generation: i32,
    topics: &dyn Topics,
) -> ConsumerMemberDescription {
    let assigned = assignment(&member.assignment).unwrap_or_default().topics;
    let with_id = |(name, numbers): (String, Vec<i32>)| Some((topics.id_of(&name)?, name, numbers));
    let assigned: MemberPartitions = assigned.into_iter().filter_map(with_id).collect();
    ConsumerMemberDescription {
        member_id: member.member_id,
        instance_id: member.instance_id,
        rack_id: None,
        epoch: generation,
        client_id: member.client_id,
        client_host: member.client_host,
        topics: subscribed_topics(&member.metadata).unwrap_or_default(),
        regex: None,
        is_classic: true,
        state: "STABLE",
        target: assigned.clone(),
        assigned,
        revoking: Vec::new(),
        waits_for: Vec::new(),
    }
}
