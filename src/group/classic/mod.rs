//! A classic consumer group as a state machine: no sockets, no clock, no locks (Kafka's GroupCoordinator and
//! GroupMetadata; KIP-134, 345, 394, 559, 814).
//!
//! ```text
//!            first join            all joined, or time over         leader synced, stored
//!   Empty ───────────────▶ PreparingRebalance ───────▶ CompletingRebalance ───────▶ Stable
//!     ▲                       │        ▲                     │                        │
//!     └── nobody left ────────┘        └──── join, leave, silence, sync time over ────┘
//! ```
//!
//! Calls say what happened and when; [`ClassicGroup::take_effects`] says what to do about it, in order. Somebody
//! else owns time: it calls [`ClassicGroup::tick`] at [`ClassicGroup::next_deadline`].

mod rebalance;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::group::held::Held;
use crate::group::member::{Member, Waiter};
use crate::group::messages::{
    GroupDescription, GroupError, JoinReply, JoinRequest, LeaveMember, MemberDescription,
    SyncReply, SyncRequest,
};
use crate::group::subscription::subscribed_topics;

pub(in crate::group) use told::Rebalanced;

/// A new member that never came back with its answer taken is dropped after this (Kafka's NewMemberJoinTimeoutMs).
const NEW_MEMBER_TIMEOUT_MS: i64 = 5 * 60 * 1000;

/// Where a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::group) enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Waiting for members to join.
    PreparingRebalance,
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    /// Everybody has an assignment.
    Stable,
}

impl State {
    pub(in crate::group) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What must be done after a call; carried out in order.
#[derive(Debug, PartialEq)]
pub(in crate::group) enum Effect {
    /// Answer a join.
    Join(Waiter, Result<JoinReply, GroupError>),
    /// Answer a sync.
    Sync(Waiter, Result<SyncReply, GroupError>),
    /// Store the group, then call [`ClassicGroup::persisted`] with the generation.
    Persist {
        /// Which generation is stored.
        generation: i32,
        /// A join that is answered with this when the group is stored.
        then: Option<(Waiter, JoinReply)>,
    },
}

/// Limits that a group keeps.
#[derive(Debug, Clone, Copy)]
pub(in crate::group) struct Limits {
    pub(in crate::group) initial_rebalance_delay_ms: i64,
    pub(in crate::group) members_max: usize,
}

/// A member that was handed an id and has not come back with it.
#[derive(Debug)]
struct Pending {
    /// How long the id holds, ms.
    until_ms: i64,
    /// Its share of what groups may hold in memory.
    _held: Option<Held>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::group) struct ClassicGroup {
    pub(in crate::group) state: State,
    pub(in crate::group) generation: i32,
    pub(in crate::group) protocol_type: Option<String>,
    pub(in crate::group) protocol: Option<String>,
    pub(in crate::group) leader: Option<String>,
    pub(in crate::group) members: BTreeMap<String, Member>,
    /// Member ids by `group.instance.id`.
    pub(in crate::group) instances: HashMap<String, String>,
    /// Ids that were handed out and not joined with.
    pending: BTreeMap<String, Pending>,
    /// When the state last changed, ms.
    pub(in crate::group) changed_ms: i64,
    /// End of the join phase, and what of the initial delay may still be added.
    join_deadline_ms: Option<i64>,
    initial_delay_left_ms: Option<i64>,
    joined_during_delay: bool,
    /// Members that have not synced by then are dropped.
    sync_deadline_ms: Option<i64>,
    /// The leader's assignment is being stored.
    storing: Option<BTreeMap<String, Bytes>>,
    next_rank: u64,
    effects: Vec<Effect>,
    /// Who would set off a rebalance, and why.
    cause: Option<told::Cause>,
    rebalancing: Option<told::Rebalancing>,
    rebalanced: Vec<Rebalanced>,
}

impl ClassicGroup {
    pub(in crate::group) fn new(now_ms: i64) -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: HashMap::new(),
            pending: BTreeMap::new(),
            changed_ms: now_ms,
            join_deadline_ms: None,
            initial_delay_left_ms: None,
            joined_during_delay: false,
            sync_deadline_ms: None,
            storing: None,
            next_rank: 0,
            effects: Vec::new(),
            cause: None,
            rebalancing: None,
            rebalanced: Vec::new(),
        }
    }

    /// What the calls since the last one want done.
    pub(in crate::group) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Whether nobody is in it or about to be.
    pub(in crate::group) fn is_empty(&self) -> bool {
        self.state == State::Empty && self.members.is_empty()
    }

    /// Whether ids were handed out that may still be joined with.
    pub(in crate::group) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Puts back a member when the group is loaded.
    pub(in crate::group) fn restore(&mut self, mut member: Member, now_ms: i64) {
        member.is_new = false;
        member.rank = self.next_rank;
        self.next_rank += 1;
        member.heard(now_ms);
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// A member asks for a place in the next generation; the answer comes as an effect for `waiter`.
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
                _held: request.held.clone(),
            };
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

    /// Whether a member with these protocols can be among the present ones.
    fn supports(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        self.protocol_type.as_deref() == Some(&*request.protocol_type)
            && request.protocols.iter().any(|(name, _)| {
                self.members
                    .values()
                    .filter(|member| member.id != request.member_id)
                    .all(|member| member.protocols.iter().any(|(known, _)| known == name))
            })
    }

    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance_id {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if current != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
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
            told::label(&member),
            with_reason("a new member joined", &request.reason),
        );
        self.members.insert(id.clone(), member);
        self.joined_during_delay = true;
        self.prepare_and_join(now_ms, &id, limits);
    }

    fn rejoin(&mut self, now_ms: i64, waiter: Waiter, request: &JoinRequest, limits: &Limits) {
        if let Some(member) = self.members.get(&request.member_id) {
            let what = match member.protocols == request.protocols {
                true => "the leader asked for a new assignment",
                false => "a member changed what it reads or how it is assigned",
            };
            self.because(told::label(member), with_reason(what, &request.reason));
        }
        if let Some(member) = self.members.get_mut(&request.member_id) {
            member.update(request);
            if let Some(before) = member.awaiting_join.replace(waiter) {
                self.effects
                    .push(Effect::Join(before, Err(GroupError::RebalanceInProgress)));
            }
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
        let Some(mut member) = self.members.remove(old_id) else {
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
        member.id.clone_from(&new_id);
        member.update(request);
        let same_topics = known_topics(&member) == topics_before;
        member.heard(now_ms);
        self.members.insert(new_id.clone(), member);
        match self.state {
            State::Stable if same_topics && self.choose_protocol() == self.protocol => {
                let leads = self.leader.as_deref() == Some(&*new_id);
                let mut reply = self.current(&new_id);
                if request.can_skip_assignment {
                    reply.skip_assignment = leads;
                } else {
                    // An older client that saw itself as leader would assign anew (KIP-345).
                    reply.leader = old_leader.unwrap_or_default();
                    reply.members = Vec::new();
                }
                // Known under its new id only when that is stored: or it would be fenced after a crash.
                self.effects.push(Effect::Persist {
                    generation: self.generation,
                    then: Some((waiter, reply)),
                });
            }
            _ => {
                if let Some(member) = self.members.get_mut(&new_id) {
                    member.awaiting_join = Some(waiter);
                    let what = "a static member came back with another subscription";
                    let who = told::label(member);
                    self.because(who, with_reason(what, &request.reason));
                }
                self.prepare_and_join(now_ms, &new_id, limits);
            }
        }
    }

    /// The member's place in the generation that there is.
    fn current(&self, member_id: &str) -> JoinReply {
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
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard(now_ms);
        }
        self.effects.push(Effect::Join(waiter, Ok(reply)));
    }

    fn enter(&mut self, state: State, now_ms: i64) {
        self.state = state;
        self.changed_ms = now_ms;
    }

    /// Nobody gets the assignment that was being worked out.
    fn abandon_sync(&mut self, error: GroupError) {
        self.storing = None;
        for member in self.members.values_mut() {
            if let Some(waiter) = member.awaiting_sync.take() {
                self.effects.push(Effect::Sync(waiter, Err(error)));
            }
        }
    }

    /// A member asks for its assignment; the answer comes as an effect for `waiter`.
    pub(in crate::group) fn sync(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        request: SyncRequest,
        limits: &Limits,
    ) {
        if let Err(error) = self.try_sync(now_ms, waiter, request, limits) {
            self.effects.push(Effect::Sync(waiter, Err(error)));
        }
    }

    fn try_sync(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        request: SyncRequest,
        _limits: &Limits,
    ) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs =
            |asked: &Option<String>, known: &Option<String>| asked.is_some() && asked != known;
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance => {
                if let Some(member) = self.members.get_mut(&request.member_id) {
                    member.has_synced = true;
                    if let Some(before) = member.awaiting_sync.replace(waiter) {
                        self.effects
                            .push(Effect::Sync(before, Err(GroupError::RebalanceInProgress)));
                    }
                }
                if self.leader.as_ref() == Some(&request.member_id) && self.storing.is_none() {
                    self.storing = Some(request.assignments);
                    self.effects.push(Effect::Persist {
                        generation: self.generation,
                        then: None,
                    });
                }
                Ok(())
            }
            State::Stable => {
                let reply = self.sync_reply(&request.member_id);
                if let Some(member) = self.members.get_mut(&request.member_id) {
                    member.heard(now_ms);
                    member.has_synced = true;
                }
                self.lift_sync_deadline();
                self.effects.push(Effect::Sync(waiter, Ok(reply)));
                Ok(())
            }
        }
    }

    fn sync_reply(&self, member_id: &str) -> SyncReply {
        let assignment = self
            .members
            .get(member_id)
            .map_or_else(Bytes::new, |member| member.assignment.clone());
        SyncReply {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        }
    }

    /// The assignment of a member as it is to be stored: the one being stored, or the one in force.
    pub(in crate::group) fn assignment_to_store(&self, member: &Member) -> Bytes {
        match &self.storing {
            Some(storing) => storing.get(&member.id).cloned().unwrap_or_default(),
            None => member.assignment.clone(),
        }
    }

    /// What was asked to be stored is stored, or could not be.
    pub(in crate::group) fn persisted(
        &mut self,
        now_ms: i64,
        generation: i32,
        stored: bool,
        limits: &Limits,
    ) {
        if generation != self.generation || self.state != State::CompletingRebalance {
            return;
        }
        let Some(assignments) = self.storing.take() else {
            return;
        };
        if !stored {
            self.abandon_sync(GroupError::CoordinatorNotAvailable);
            self.because(String::new(), "the assignment could not be stored");
            self.prepare_or_go_on(now_ms, limits);
            return;
        }
        self.enter(State::Stable, now_ms);
        self.note_end(now_ms);
        let mut waiting = Vec::new();
        for member in self.members.values_mut() {
            member.assignment = assignments.get(&member.id).cloned().unwrap_or_default();
            if let Some(waiter) = member.awaiting_sync.take() {
                member.heard(now_ms);
                waiting.push((waiter, member.id.clone()));
            }
        }
        for (waiter, id) in waiting {
            let reply = self.sync_reply(&id);
            self.effects.push(Effect::Sync(waiter, Ok(reply)));
        }
        self.lift_sync_deadline();
    }

    /// Who has not synced stays under the deadline; when all have, there is none.
    fn lift_sync_deadline(&mut self) {
        if self.members.values().all(|member| member.has_synced) {
            self.sync_deadline_ms = None;
        }
    }

    /// A member says that it lives.
    pub(in crate::group) fn heartbeat(
        &mut self,
        now_ms: i64,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        self.check_member(member_id, instance_id)?;
        if self.state == State::Empty {
            return Err(GroupError::UnknownMemberId);
        }
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard(now_ms);
        }
        if self.state == State::PreparingRebalance {
            Err(GroupError::RebalanceInProgress)
        } else {
            Ok(())
        }
    }

    /// Whether somebody may commit offsets.
    pub(in crate::group) fn check_commit(
        &mut self,
        now_ms: i64,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation >= 0 || !member_id.is_empty() || instance_id.is_some() {
            self.check_member(member_id, instance_id)?;
        } else {
            return Err(GroupError::UnknownMemberId);
        }
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard(now_ms);
        }
        Ok(())
    }

    /// A member leaves.
    pub(in crate::group) fn leave(
        &mut self,
        now_ms: i64,
        leaving: &LeaveMember,
        limits: &Limits,
    ) -> Result<(), GroupError> {
        let id = match &leaving.instance_id {
            Some(instance) => {
                let current = self
                    .instances
                    .get(instance)
                    .ok_or(GroupError::UnknownMemberId)?;
                if !leaving.member_id.is_empty() && *current != leaving.member_id {
                    return Err(GroupError::FencedInstanceId);
                }
                current.clone()
            }
            None => leaving.member_id.clone(),
        };
        if self.pending.remove(&id).is_some() {
            self.complete_join_if_all(now_ms);
            return Ok(());
        }
        if !self.members.contains_key(&id) {
            return Err(GroupError::UnknownMemberId);
        }
        tracing::debug!(member = id, reason = leaving.reason, "member leaves");
        let why = with_reason("a member left", &leaving.reason);
        self.drop_member(now_ms, &id, &why, limits);
        Ok(())
    }

    /// Takes a member out and rebalances the others.
    fn drop_member(&mut self, now_ms: i64, id: &str, why: &str, limits: &Limits) {
        if let Some(member) = self.members.get(id) {
            self.because(told::label(member), why);
        }
        self.forget(id);
        match self.state {
            State::Stable | State::CompletingRebalance | State::PreparingRebalance => {
                self.prepare_or_go_on(now_ms, limits)
            }
            State::Empty => {}
        }
    }

    fn forget(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        if let Some(instance) = member.instance_id {
            self.instances.remove(&instance);
        }
        if let Some(waiter) = member.awaiting_join {
            self.effects
                .push(Effect::Join(waiter, Err(GroupError::UnknownMemberId)));
        }
        if let Some(waiter) = member.awaiting_sync {
            self.effects
                .push(Effect::Sync(waiter, Err(GroupError::UnknownMemberId)));
        }
        if self.leader.as_deref() == Some(id) {
            let heir = self
                .members
                .values()
                .min_by_key(|member| (member.awaiting_join.is_none(), member.rank));
            self.leader = heir.map(|member| member.id.clone());
        }
    }

    /// Whether members read a topic, as far as their subscriptions can be read.
    pub(in crate::group) fn subscribes(&self, topic: &str) -> bool {
        let Some(protocol) = self.protocol.as_deref() else {
            return !self.members.is_empty();
        };
        self.members.values().any(|member| {
            subscribed_topics(&member.metadata(protocol))
                .is_none_or(|topics| topics.iter().any(|known| known == topic))
        })
    }

    /// The group for DescribeGroups.
    pub(in crate::group) fn describe(&self) -> GroupDescription {
        let protocol = self.protocol.clone().unwrap_or_default();
        let settled = matches!(self.state, State::Stable | State::CompletingRebalance);
        let describe = |member: &Member| MemberDescription {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if self.state == State::Stable {
                member.metadata(&protocol)
            } else {
                Bytes::new()
            },
            assignment: if settled {
                member.assignment.clone()
            } else {
                Bytes::new()
            },
        };
        GroupDescription {
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: if self.state == State::Stable {
                protocol.clone()
            } else {
                String::new()
            },
            generation: self.generation,
            members: self.members.values().map(describe).collect(),
        }
    }
}

/// What happened, with the reason that the client gave (KIP-800), where it gave one.
fn with_reason(what: &str, reason: &str) -> String {
    match reason {
        "" => what.to_owned(),
        reason => format!("{what}: {reason}"),
    }
}
