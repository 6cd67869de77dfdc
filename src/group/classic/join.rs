//! How members get into a classic group: as new ones, again, or in place of a static member.
//!
//! Tests: group/classic/tests.rs.

use crate::group::member::{Member, Waiter};
use crate::group::messages::{GroupError, JoinReply, JoinRequest};
use crate::group::subscription::subscribed_topics;

use super::rebalanced::{label, with_reason};
use super::{Change, ClassicGroup, Effect, Limits, Pending, State};

/// A new member that never came back with its answer taken is dropped after this (Kafka's NewMemberJoinTimeoutMs).
const NEW_MEMBER_TIMEOUT_MS: i64 = 5 * 60 * 1000;

impl ClassicGroup {
    /// A member asks to be in the next generation; the answer comes as an effect for `waiter`.
    pub(in crate::group) fn join(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        new_id: String,
        request: &JoinRequest,
        limits: &Limits,
    ) {
        if let Err(error) = self.try_join(now_ms, waiter, new_id, request, limits) {
            self.effects.push(Effect::Join(waiter, Err(error)));
        }
    }

    fn try_join(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        new_id: String,
        request: &JoinRequest,
        limits: &Limits,
    ) -> Result<(), GroupError> {
        if !self.supports(request) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        if request.member_id.is_empty() {
            return self.join_new(now_ms, waiter, new_id, request, limits);
        }
        if request.instance_id.is_none() && self.pending.remove(&request.member_id).is_some() {
            self.add(now_ms, waiter, request.member_id.clone(), request, limits);
            return Ok(());
        }
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        let matches = self
            .members
            .get(&request.member_id)
            .is_some_and(|known| known.protocols == request.protocols);
        match self.state {
            State::PreparingRebalance => self.rejoin(now_ms, waiter, request, limits),
            State::CompletingRebalance if matches => {
                self.answer_current(now_ms, waiter, &request.member_id)
            }
            State::CompletingRebalance => self.rejoin(now_ms, waiter, request, limits),
            State::Stable if self.leader.as_deref() == Some(&*request.member_id) || !matches => {
                self.rejoin(now_ms, waiter, request, limits);
            }
            State::Stable => self.answer_current(now_ms, waiter, &request.member_id),
            State::Empty => return Err(GroupError::UnknownMemberId),
        }
        Ok(())
    }

    fn join_new(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        new_id: String,
        request: &JoinRequest,
        limits: &Limits,
    ) -> Result<(), GroupError> {
        if let Some(instance) = &request.instance_id
            && let Some(old_id) = self.instances.get(instance).cloned()
        {
            self.replace_static(now_ms, waiter, &old_id, new_id, request, limits);
            return Ok(());
        }
        if self.members.len() + self.pending.len() >= limits.members_max {
            return Err(GroupError::GroupMaxSizeReached);
        }
        if request.instance_id.is_none() && request.member_id_required {
            let until = now_ms + i64::from(request.session_timeout_ms);
            let pending = Pending {
                until_ms: until,
                _reserved: request.reserved.clone(),
            };
            self.due_ms = self.due_ms.min(until);
            self.pending.insert(new_id.clone(), pending);
            // The id travels in the answer beside the error.
            let reply = JoinReply {
                generation: -1,
                member_id: new_id,
                ..JoinReply::default()
            };
            self.effects.push(Effect::Join(waiter, Ok(reply)));
            return Ok(());
        }
        self.add(now_ms, waiter, new_id, request, limits);
        Ok(())
    }

    /// Whether a member with these protocols can be among the present ones; what it named before counts too, as in Kafka's
    /// ClassicGroup.supportsProtocols.
    fn supports(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        self.protocol_type.as_deref() == Some(&*request.protocol_type)
            && request
                .protocols
                .iter()
                .any(|(name, _)| self.all_support(name))
    }

    fn add(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        id: String,
        request: &JoinRequest,
        limits: &Limits,
    ) {
        let mut member = Member::new(id.clone(), self.next_rank, request);
        self.next_rank += 1;
        member.awaiting_join = Some(waiter);
        member.deadline_ms = now_ms + NEW_MEMBER_TIMEOUT_MS;
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        if let Some(instance) = &request.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        tracing::debug!(member = id, reason = request.reason, "member joins");
        self.because(
            label(&member),
            with_reason("a new member joined", &request.reason),
        );
        self.put(member);
        self.joined_during_delay = true;
        self.prepare_and_join(now_ms, &id, limits);
    }

    fn rejoin(&mut self, now_ms: i64, waiter: Waiter, request: &JoinRequest, limits: &Limits) {
        if let Some(member) = self.members.get(&request.member_id) {
            let what = match member.protocols == request.protocols {
                true => "the leader asked for a new assignment",
                false => "a member changed what it reads or how it is assigned",
            };
            self.because(label(member), with_reason(what, &request.reason));
        }
        if let Some(mut member) = self.take(&request.member_id) {
            member.update(request);
            if let Some(before) = member.awaiting_join.replace(waiter) {
                self.effects
                    .push(Effect::Join(before, Err(GroupError::RebalanceInProgress)));
            }
            self.put(member);
        }
        self.prepare_and_join(now_ms, &request.member_id, limits);
    }

    /// A static member is back under a new id.
    fn replace_static(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        old_id: &str,
        new_id: String,
        request: &JoinRequest,
        limits: &Limits,
    ) {
        let Some(mut member) = self.take(old_id) else {
            return;
        };
        if let Some(fenced) = member.awaiting_join.take() {
            self.effects
                .push(Effect::Join(fenced, Err(GroupError::FencedInstanceId)));
        }
        if let Some(fenced) = member.awaiting_sync.take() {
            self.effects
                .push(Effect::Sync(fenced, Err(GroupError::FencedInstanceId)));
        }
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), new_id.clone());
        }
        let old_leader = self.leader.clone();
        if self.leader.as_deref() == Some(old_id) {
            self.leader = Some(new_id.clone());
        }
        let known_topics = |member: &Member| {
            self.protocol
                .as_deref()
                .and_then(|protocol| subscribed_topics(&member.metadata(protocol)))
        };
        let topics_before = known_topics(&member);
        let before = member.clone();
        member.id.clone_from(&new_id);
        member.update(request);
        let same_topics = known_topics(&member) == topics_before;
        member.heard(now_ms);
        self.put(member);
        match self.state {
            State::Stable
                if same_topics && !limits.alone && self.choose_protocol() == self.protocol =>
            {
                let leads = self.leader.as_deref() == Some(&*new_id);
                let mut reply = self.current(&new_id);
                if request.can_skip_assignment {
                    reply.skip_assignment = leads;
                } else {
                    // An older client that saw itself as leader would assign again (KIP-345).
                    reply.leader = old_leader.unwrap_or_default();
                    reply.members = Vec::new();
                }
                // Known under its new id only when that is stored: or it would be fenced after a crash.
                let instance_id = before.instance_id.clone().unwrap_or_default();
                self.replaced.entry(instance_id.clone()).or_insert(before);
                self.effects.push(Effect::Persist(Change::Replaced {
                    instance_id,
                    waiter,
                    reply,
                }));
            }
            _ => {
                if let Some(member) = self.members.get_mut(&new_id) {
                    member.awaiting_join = Some(waiter);
                    let what = "a static member came back with another subscription";
                    let who = label(member);
                    self.because(who, with_reason(what, &request.reason));
                }
                self.prepare_and_join(now_ms, &new_id, limits);
            }
        }
    }

    /// Another id of a static member is stored and its join answered; or it is refused, and the member has the id that is
    /// stored again (as Kafka's GroupCoordinator.updateStaticMemberAndRebalance).
    pub(super) fn replacement_stored(
        &mut self,
        now_ms: i64,
        instance_id: &str,
        (waiter, reply): (Waiter, JoinReply),
        stored: Result<(), GroupError>,
    ) {
        let is_current = self.instances.get(instance_id) == Some(&reply.member_id);
        match (stored, is_current) {
            (Ok(()), true) => {
                self.replaced.remove(instance_id);
            }
            // It was replaced once more meanwhile: if that is refused, this is what is stored.
            (Ok(()), false) => {
                if let Some(member) = self.replaced.get_mut(instance_id) {
                    member.id.clone_from(&reply.member_id);
                }
            }
            (Err(_), true) => self.undo_replacement(now_ms, instance_id, &reply.member_id),
            (Err(_), false) => {}
        }
        self.effects
            .push(Effect::Join(waiter, stored.map(|()| reply)));
    }

    fn undo_replacement(&mut self, now_ms: i64, instance_id: &str, new_id: &str) {
        let Some(mut member) = self.replaced.remove(instance_id) else {
            return;
        };
        // An assignment that is being stored names the new id, and stores it.
        if self.storing.is_some() {
            return;
        }
        let Some(current) = self.take(new_id) else {
            return;
        };
        let refused = GroupError::CoordinatorNotAvailable;
        if let Some(waiter) = current.awaiting_join {
            self.effects.push(Effect::Join(waiter, Err(refused)));
        }
        if let Some(waiter) = current.awaiting_sync {
            self.effects.push(Effect::Sync(waiter, Err(refused)));
        }
        member.assign(current.assignment, current.assignment_reserved);
        member.heard(now_ms);
        if self.leader.as_deref() == Some(new_id) {
            self.leader = Some(member.id.clone());
        }
        self.instances
            .insert(instance_id.to_owned(), member.id.clone());
        self.put(member);
    }

    /// What the member is in the current generation.
    pub(super) fn current(&self, member_id: &str) -> JoinReply {
        let leader = self.leader.clone().unwrap_or_default();
        let protocol = self.protocol.clone().unwrap_or_default();
        let described = |member: &Member| {
            (
                member.id.clone(),
                member.instance_id.clone(),
                member.metadata(&protocol),
            )
        };
        let members = if leader == member_id {
            self.members.values().map(described).collect()
        } else {
            Vec::new()
        };
        JoinReply {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader,
            member_id: member_id.to_owned(),
            skip_assignment: false,
            members,
        }
    }

    fn answer_current(&mut self, now_ms: i64, waiter: Waiter, member_id: &str) {
        let mut reply = self.current(member_id);
        if self.state == State::Stable {
            reply.members = Vec::new();
        }
        self.heard(now_ms, member_id);
        self.effects.push(Effect::Join(waiter, Ok(reply)));
    }
}
