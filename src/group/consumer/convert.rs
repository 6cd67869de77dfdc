//! From a classic group with members to a consumer group, and back (KIP-848's migration): members keep what they have.
//!
//! Tests: group/consumer/tests/migration.rs.

use bytes::Bytes;

use super::classic_members::CONSUMER_PROTOCOL;
use super::heartbeat::refuse;
use super::member::ClassicProtocol;
use super::partitions::{Assigned, Partitions};
use super::settings::ConsumerSettings;
use super::{ConsumerGroup, ConsumerMember, Reads};
use crate::coordinator::Topics;
use crate::group::classic::{ClassicGroup, State};
use crate::group::member::Member;
use crate::group::messages::{GroupError, JoinRequest, Refusal};
use crate::group::subscription::{assignment, assignment_bytes, subscription};

impl ConsumerGroup {
    /// Makes a consumer group of a classic one, whose members go on in it as classic members.
    pub(in crate::group) fn of_classic(
        now_ms: i64,
        group_id: &str,
        classic: &ClassicGroup,
        (settings, topics): (&ConsumerSettings, &dyn Topics),
    ) -> Result<Self, Refusal> {
        check_upgrade(group_id, classic, settings)?;
        let mut group = Self::new(now_ms);
        (group.epoch, group.assignment_epoch) = (classic.generation, classic.generation);
        for member in classic.members.values() {
            let member = of_classic_member(group_id, classic, member, topics)?;
            let reads = member.reads.clone();
            group.own(&[], &member);
            group.put(member);
            group.reads(None, &reads);
        }
        for member in classic.members.values() {
            group.heard(now_ms, &member.id, member.session_timeout_ms);
        }
        let members = group.members.len();
        tracing::info!(group = group_id, members, "becomes a consumer group");
        group.subscriptions.look(topics);
        group.touch_head();
        Ok(group)
    }

    /// Whether all its members are classic, and it is to be a classic group again.
    pub(in crate::group) fn is_to_be_classic(&self, settings: &ConsumerSettings) -> bool {
        let len = self.members.len();
        settings.migration.downgrades()
            && (1..=settings.classic_members_max).contains(&len)
            && self.members.values().all(ConsumerMember::is_classic)
    }

    /// The classic group of its members, all of them classic, and whether they are to rebalance.
    pub(in crate::group) fn to_classic(
        &self,
        now_ms: i64,
        topics: &dyn Topics,
    ) -> (ClassicGroup, bool) {
        let mut group = ClassicGroup::new(now_ms);
        for member in self.members.values() {
            group.restore(to_classic_member(member), now_ms);
        }
        // What members commit until they have joined again is of the epoch that they have.
        group.generation = self.assignment_epoch;
        group.protocol_type = Some(CONSUMER_PROTOCOL.to_owned());
        group.converted(now_ms);
        let protocol = group.protocol.clone().unwrap_or_default();
        for member in self.members.values() {
            if let Some(into) = group.members.get_mut(&member.id) {
                let metadata = into.metadata(&protocol);
                let version = metadata
                    .get(..2)
                    .map_or(0, |v| i16::from_be_bytes([v[0], v[1]]));
                into.assignment = assignment_bytes(version, &member.assigned.partitions(), topics);
            }
        }
        // Until they have joined again nobody may have what another one has to give up first.
        let is_on_its_way =
            |member: &ConsumerMember| !member.is_reconciled_to(self.assignment_epoch);
        let rebalances =
            self.epoch > self.assignment_epoch || self.members.values().any(is_on_its_way);
        (group, rebalances)
    }
}

fn check_upgrade(
    group_id: &str,
    classic: &ClassicGroup,
    settings: &ConsumerSettings,
) -> Result<(), Refusal> {
    let why = if !settings.migration.upgrades() {
        "online upgrade is disabled"
    } else if classic.protocol_type.as_deref() != Some(CONSUMER_PROTOCOL) {
        "the group does not use the consumer embedded protocol"
    } else if classic.members.len() > settings.members_max {
        "the group size exceeds the consumer group maximum size"
    } else if classic.members.len() == settings.members_max {
        return Err(GroupError::GroupMaxSizeReached.into());
    } else {
        return Ok(());
    };
    tracing::info!(group = group_id, why, "does not become a consumer group");
    Err(refuse(
        GroupError::GroupIdNotFound,
        format!("Cannot upgrade classic group {group_id} to consumer group because {why}."),
    ))
}

fn of_classic_member(
    group_id: &str,
    classic: &ClassicGroup,
    member: &Member,
    topics: &dyn Topics,
) -> Result<ConsumerMember, Refusal> {
    let cannot = |why: &str| {
        refuse(
            GroupError::GroupIdNotFound,
            format!("Cannot upgrade classic group {group_id} to consumer group because {why}."),
        )
    };
    // Before a generation was formed no protocol is chosen.
    let metadata = match &classic.protocol {
        Some(protocol) => member.metadata(protocol),
        None => member
            .protocols
            .first()
            .map_or_else(Bytes::new, |(_, metadata)| metadata.clone()),
    };
    let malformed = "the embedded consumer protocol is malformed";
    let subscription = subscription(&metadata).ok_or_else(|| cannot(malformed))?;
    let stored = classic.assignment_to_store(member);
    let mut has = Partitions::new();
    if !stored.is_empty() {
        let assigned = assignment(&stored).ok_or_else(|| cannot(malformed))?;
        if assigned.has_user_data {
            return Err(cannot(
                "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default assignor before re-attempting the upgrade",
            ));
        }
        for (topic, partitions) in assigned.topics {
            if let Some(id) = topics.id_of(&topic) {
                has.entry(id).or_default().extend(partitions);
            }
        }
    }
    let generation = classic.generation;
    Ok(ConsumerMember {
        instance_id: member.instance_id.clone(),
        rack_id: subscription.rack,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        connection: member.connection,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        reads: Reads {
            topics: subscription.topics.into_iter().collect(),
            regex: None,
            assignor: None,
        },
        classic: Some(ClassicProtocol {
            session_timeout_ms: member.session_timeout_ms,
            protocols: member.protocols.clone(),
        }),
        epoch: generation,
        previous_epoch: generation,
        assigned: Assigned::with_epoch(&has, generation),
        target: has,
        target_epoch: generation,
        reserved: member.reserved.clone(),
        ..ConsumerMember::new(member.id.clone())
    })
}

fn to_classic_member(member: &ConsumerMember) -> Member {
    let (session_timeout_ms, protocols) = match &member.classic {
        Some(classic) => (classic.session_timeout_ms, classic.protocols.clone()),
        None => (0, Vec::new()),
    };
    let request = JoinRequest {
        member_id: member.id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        session_timeout_ms,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        protocol_type: CONSUMER_PROTOCOL.to_owned(),
        protocols,
        member_id_required: false,
        can_skip_assignment: false,
        reason: String::new(),
        connection: member.connection,
        reserved: member.reserved.clone(),
    };
    Member::new(member.id.clone(), 0, &request)
}

/// Whether a classic group has nobody, and is replaced by a group of another protocol without a word.
pub(in crate::group) fn is_vacant(classic: &ClassicGroup) -> bool {
    classic.state == State::Empty && classic.is_empty() && !classic.has_pending()
}
