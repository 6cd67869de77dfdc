//! Members of the classic protocol in a consumer group, on their way to the new protocol or back (KIP-848): the coordinator
//! assigns, so a join is answered at once and nobody leads; a member that has to give something up is told to join again.
//!
//! Tests: group/consumer/tests/migration.rs.

use bytes::Bytes;
use uuid::Uuid;

use super::heartbeat::{Speaker, check_fenced};
use super::member::ClassicProtocol;
use super::settings::{ConsumerSettings, MigrationPolicy};
use super::visible::VisibleTopics;
use super::{ConsumerGroup, ConsumerMember, MemberState, Reads, label};
use crate::coordinator::Topics;
use crate::group::messages::{
    GroupError, Heartbeat, JoinReply, JoinRequest, LeaveMember, SyncReply, SyncRequest,
};
use crate::group::subscription::{Subscription, assignment_bytes, subscription};

/// Kafka's name for the formats of its consumer.
pub(super) const CONSUMER_PROTOCOL: &str = "consumer";

impl ConsumerGroup {
    /// A classic member joins. The reply holds as that to a heartbeat does.
    pub(in crate::group) fn join_classic(
        &mut self,
        now_ms: i64,
        new_id: String,
        request: &JoinRequest,
        (settings, topics): (&ConsumerSettings, &dyn Topics),
    ) -> Result<JoinReply, GroupError> {
        if settings.migration == MigrationPolicy::Disabled {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let is_new = request.member_id.is_empty();
        let member_id = match is_new {
            true => &new_id,
            false => &request.member_id,
        };
        self.check_room(member_id, request.instance_id.as_deref(), settings)
            .map_err(|refusal| refusal.error)?;
        let subscription = self.supported(request)?;
        if is_new && request.instance_id.is_none() && request.member_id_required {
            return Ok(JoinReply {
                generation: -1,
                member_id: new_id,
                ..JoinReply::default()
            });
        }
        let Speaker { member, before, .. } = self.classic_speaker(member_id, is_new, request)?;
        let member_id = member.id.clone();
        let had = Self::partitions_of(&member);
        let member = updated(member, request, &subscription);
        let (who, reads) = (label(&member), member.reads.clone());
        self.put(member);
        let reads_others = self.reads(before.as_ref(), &reads);
        // Its protocol has no regular expressions.
        let visible = VisibleTopics::default();
        self.look_at_topics(now_ms, (&who, reads_others), topics, &visible);
        self.make_target_if_due(now_ms, settings, topics);
        let owned = subscription.owned.iter();
        let owned = owned
            .filter_map(|(topic, partitions)| Some((topics.id_of(topic)?, partitions.clone())));
        let owned: Vec<(Uuid, Vec<i32>)> = owned.collect();
        self.reconcile(
            now_ms,
            &member_id,
            (&had, Some(&owned)),
            reads_others,
            topics,
        );
        Ok(self.joined(now_ms, &member_id, request))
    }

    /// What a classic member reads, where its protocols fit those of the other classic members.
    fn supported(&self, request: &JoinRequest) -> Result<Subscription, GroupError> {
        let inconsistent = GroupError::InconsistentGroupProtocol;
        let protocols = self.members.values();
        let classic: Vec<&ClassicProtocol> = protocols
            .filter_map(|member| member.classic.as_ref())
            .collect();
        let is_known_to_all = |name: &str| {
            classic
                .iter()
                .all(|of| of.protocols.iter().any(|(known, _)| known == name))
        };
        let fits = request.protocol_type == CONSUMER_PROTOCOL
            && request
                .protocols
                .iter()
                .any(|(name, _)| is_known_to_all(name));
        let first = request.protocols.first().filter(|_| fits);
        let (_, metadata) = first.ok_or(inconsistent)?;
        subscription(metadata).ok_or(inconsistent)
    }

    fn classic_speaker(
        &mut self,
        member_id: &str,
        is_new: bool,
        request: &JoinRequest,
    ) -> Result<Speaker, GroupError> {
        let Some(instance) = &request.instance_id else {
            return Ok(self.speaker(member_id));
        };
        let known = self.static_member(instance);
        match known {
            None if is_new => Ok(Speaker::new(member_id)),
            None => Err(GroupError::UnknownMemberId),
            Some(known) if is_new => {
                let old_id = known.id.clone();
                Ok(self.replace(&old_id, member_id))
            }
            Some(known) => {
                check_fenced(known, member_id, instance).map_err(|refusal| refusal.error)?;
                Ok(self.speaker(member_id))
            }
        }
    }

    /// The answer to a member that joined, which must sync within its rebalance timeout.
    fn joined(&mut self, now_ms: i64, member_id: &str, request: &JoinRequest) -> JoinReply {
        let mut reply = JoinReply {
            member_id: member_id.to_owned(),
            ..JoinReply::default()
        };
        let Some(member) = self.members.get_mut(member_id) else {
            return reply;
        };
        member.session_deadline_ms = now_ms + i64::from(request.session_timeout_ms);
        member.join_deadline_ms = None;
        let timeout_ms = i64::from(request.rebalance_timeout_ms.max(0));
        member.sync_deadline_ms = Some(now_ms + timeout_ms);
        self.due_ms = self.due_ms.min(member.next_deadline());
        reply.generation = member.epoch;
        reply.protocol_type = Some(CONSUMER_PROTOCOL.to_owned());
        reply.protocol = first_protocol(member).map(str::to_owned);
        reply
    }

    /// A classic member by what it says of itself.
    fn classic_member(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<&mut ConsumerMember, GroupError> {
        if let Some(instance) = instance_id {
            let known = self.static_member(instance);
            let known = known.ok_or(GroupError::UnknownMemberId)?;
            check_fenced(known, member_id, instance).map_err(|refusal| refusal.error)?;
        }
        let member = self.members.get_mut(member_id);
        let member = member.filter(|member| member.is_classic());
        let member = member.ok_or(GroupError::UnknownMemberId)?;
        match member.epoch == generation {
            true => Ok(member),
            false => Err(GroupError::IllegalGeneration),
        }
    }

    /// A classic member asks for its assignment.
    pub(in crate::group) fn sync_classic(
        &mut self,
        now_ms: i64,
        request: &SyncRequest,
        topics: &dyn Topics,
    ) -> Result<SyncReply, GroupError> {
        let assignment_epoch = self.assignment_epoch;
        let instance = request.instance_id.as_deref();
        let member = self.classic_member(&request.member_id, instance, request.generation)?;
        let differs = |asked: &Option<String>, known: Option<&str>| {
            asked.is_some() && asked.as_deref() != known
        };
        if differs(&request.protocol_type, Some(CONSUMER_PROTOCOL))
            || differs(&request.protocol, first_protocol(member))
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        if assignment_epoch > member.epoch && member.state != MemberState::UnrevokedPartitions {
            await_join(member, now_ms);
            self.due_ms = now_ms.min(self.due_ms);
            return Err(GroupError::RebalanceInProgress);
        }
        member.sync_deadline_ms = None;
        heard_classic(member, now_ms);
        Ok(SyncReply {
            protocol_type: request.protocol_type.clone(),
            protocol: request.protocol.clone(),
            assignment: assignment_of(member, topics),
        })
    }

    /// A classic member says that it lives; it is told to join again where it has something to give up, or something to get.
    pub(in crate::group) fn heartbeat_classic(
        &mut self,
        now_ms: i64,
        beat: &Heartbeat,
    ) -> Result<(), GroupError> {
        let assignment_epoch = self.assignment_epoch;
        let waits = !self.waits_for(&beat.member_id).is_empty();
        let instance = beat.instance_id.as_deref();
        let member = self.classic_member(&beat.member_id, instance, beat.generation)?;
        heard_classic(member, now_ms);
        let rejoins = member.epoch < assignment_epoch
            || member.state == MemberState::UnrevokedPartitions
            || member.state == MemberState::UnreleasedPartitions && !waits;
        if rejoins {
            await_join(member, now_ms);
        }
        let deadline_ms = member.next_deadline();
        self.due_ms = self.due_ms.min(deadline_ms);
        match rejoins {
            true => Err(GroupError::RebalanceInProgress),
            false => Ok(()),
        }
    }

    /// Takes members out by LeaveGroup, of either protocol; an outcome for each.
    pub(in crate::group) fn leave_all(
        &mut self,
        now_ms: i64,
        leaving: &[LeaveMember],
    ) -> Vec<Result<(), GroupError>> {
        let found: Vec<_> = leaving.iter().map(|one| self.leaving(one)).collect();
        let ids: Vec<String> = found.iter().flatten().cloned().collect();
        self.fence(now_ms, &ids, "a member left");
        found.into_iter().map(|found| found.map(drop)).collect()
    }

    fn leaving(&self, leaving: &LeaveMember) -> Result<String, GroupError> {
        let Some(instance) = &leaving.instance_id else {
            let is_known = self.members.contains_key(&leaving.member_id);
            return match is_known {
                true => Ok(leaving.member_id.clone()),
                false => Err(GroupError::UnknownMemberId),
            };
        };
        let known = self.static_member(instance);
        let known = known.ok_or(GroupError::UnknownMemberId)?;
        if !leaving.member_id.is_empty() {
            check_fenced(known, &leaving.member_id, instance).map_err(|refusal| refusal.error)?;
        }
        Ok(known.id.clone())
    }
}

fn updated(
    mut member: ConsumerMember,
    request: &JoinRequest,
    subscription: &Subscription,
) -> ConsumerMember {
    if request.instance_id.is_some() {
        member.instance_id.clone_from(&request.instance_id);
    }
    if subscription.rack.is_some() {
        member.rack_id.clone_from(&subscription.rack);
    }
    member.rebalance_timeout_ms = request.rebalance_timeout_ms;
    member.reads = Reads {
        topics: subscription.topics.iter().cloned().collect(),
        regex: None,
        assignor: member.reads.assignor.take(),
    };
    member.client_id.clone_from(&request.client_id);
    member.client_host.clone_from(&request.client_host);
    member.connection = request.connection;
    member.classic = Some(ClassicProtocol {
        session_timeout_ms: request.session_timeout_ms,
        protocols: request.protocols.clone(),
    });
    if request.reserved.is_some() {
        member.reserved.clone_from(&request.reserved);
    }
    member
}

fn first_protocol(member: &ConsumerMember) -> Option<&str> {
    let first = member.classic.as_ref()?.protocols.first()?;
    Some(&first.0)
}

fn heard_classic(member: &mut ConsumerMember, now_ms: i64) {
    let timeout_ms = member
        .classic
        .as_ref()
        .map_or(0, |classic| classic.session_timeout_ms);
    member.session_deadline_ms = now_ms + i64::from(timeout_ms);
}

/// It must join again within its rebalance timeout, from the first time that it is told so.
fn await_join(member: &mut ConsumerMember, now_ms: i64) {
    let timeout_ms = i64::from(member.rebalance_timeout_ms.max(0));
    member.join_deadline_ms.get_or_insert(now_ms + timeout_ms);
}

/// What a member has, in the consumer's own format, in the version that it speaks.
fn assignment_of(member: &ConsumerMember, topics: &dyn Topics) -> Bytes {
    let version = member.classic.as_ref().and_then(|classic| {
        let (_, metadata) = classic.protocols.first()?;
        Some(i16::from_be_bytes([*metadata.first()?, *metadata.get(1)?]))
    });
    assignment_bytes(version.unwrap_or(0), &member.assigned.partitions(), topics)
}
