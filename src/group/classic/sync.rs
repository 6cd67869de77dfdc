//! How the assignment of a generation is brought by its leader, stored, and given out.
//!
//! Tests: group/classic/tests.rs, group/classic/tests/assignments.rs.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::group::member::{Member, Waiter};
use crate::group::messages::{GroupError, SyncReply, SyncRequest};
use crate::group::reserved::Reserved;

use super::{Change, ClassicGroup, Effect, Limits, State};

/// An empty group that could not be stored is stored again after this: or a restart would bring back its last members.
const STORE_AGAIN_MS: i64 = 5_000;

/// What a leader assigns.
#[derive(Debug)]
pub(super) struct Assignments {
    /// By member id.
    by_member: BTreeMap<String, Bytes>,
    /// Its share of the memory for members.
    reserved: Option<Reserved>,
}

impl Assignments {
    fn of(&self, member_id: &str) -> Bytes {
        self.by_member.get(member_id).cloned().unwrap_or_default()
    }
}

impl ClassicGroup {
    /// The assignment that was being worked out is given to no one, and the one before it is nobody's any more (Kafka's
    /// resetAndPropagateAssignmentWithError).
    pub(super) fn abandon_sync(&mut self, error: GroupError) {
        self.storing = None;
        for member in self.members.values_mut() {
            if self.state == State::CompletingRebalance {
                member.assign(Bytes::new(), None);
            }
            if let Some(waiter) = member.awaiting_sync.take() {
                self.effects.push(Effect::Sync(waiter, Err(error)));
            }
        }
        self.find_due();
    }

    /// A member asks for its assignment; the answer comes as an effect for `waiter`.
    pub(in crate::group) fn sync(&mut self, now_ms: i64, waiter: Waiter, request: SyncRequest) {
        if let Err(error) = self.try_sync(now_ms, waiter, request) {
            self.effects.push(Effect::Sync(waiter, Err(error)));
        }
    }

    fn try_sync(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        request: SyncRequest,
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
                    self.storing = Some(Assignments {
                        by_member: request.assignments,
                        reserved: request.reserved,
                    });
                    let generation = self.generation;
                    let change = Change::Assignment { generation };
                    self.effects.push(Effect::Persist(change));
                }
                Ok(())
            }
            State::Stable => {
                let reply = self.sync_reply(&request.member_id);
                self.heard(now_ms, &request.member_id);
                if let Some(member) = self.members.get_mut(&request.member_id) {
                    member.has_synced = true;
                }
                self.lift_sync_deadline();
                self.effects.push(Effect::Sync(waiter, Ok(reply)));
                Ok(())
            }
        }
    }

    fn sync_reply(&self, member_id: &str) -> SyncReply {
        debug_assert!(
            self.state == State::Stable,
            "an assignment is stored before it is given out"
        );
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
            Some(storing) => storing.of(&member.id),
            None => member.assignment.clone(),
        }
    }

    /// What was asked to be stored is stored, or is refused.
    pub(in crate::group) fn persisted(
        &mut self,
        now_ms: i64,
        change: Change,
        stored: Result<(), GroupError>,
        limits: &Limits,
    ) {
        match change {
            Change::Assignment { generation } => {
                self.assignment_stored(now_ms, generation, stored, limits);
            }
            Change::Emptied { generation } => {
                let is_still = self.state == State::Empty && self.generation == generation;
                if stored.is_err() && is_still {
                    self.store_again_ms = Some(now_ms + STORE_AGAIN_MS);
                }
            }
            Change::Replaced {
                instance_id,
                waiter,
                reply,
            } => self.replacement_stored(now_ms, &instance_id, (waiter, reply), stored),
        }
    }

    fn assignment_stored(
        &mut self,
        now_ms: i64,
        generation: i32,
        stored: Result<(), GroupError>,
        limits: &Limits,
    ) {
        if generation != self.generation || self.state != State::CompletingRebalance {
            return;
        }
        let Some(assignments) = self.storing.take() else {
            return;
        };
        if let Err(error) = stored {
            self.abandon_sync(error);
            self.because(String::new(), "the assignment could not be stored");
            self.prepare_or_go_on(now_ms, limits);
            return;
        }
        self.enter(State::Stable, now_ms);
        self.note_end(now_ms);
        let mut waiting = Vec::new();
        for member in self.members.values_mut() {
            let assignment = assignments.of(&member.id);
            member.assign(assignment, assignments.reserved.clone());
            if let Some(waiter) = member.awaiting_sync.take() {
                member.heard(now_ms);
                waiting.push((waiter, member.id.clone()));
            }
        }
        self.find_due();
        for (waiter, id) in waiting {
            let reply = self.sync_reply(&id);
            self.effects.push(Effect::Sync(waiter, Ok(reply)));
        }
        self.lift_sync_deadline();
    }

    /// Members that have not synced stay under the deadline; when all have, there is none.
    fn lift_sync_deadline(&mut self) {
        if self.members.values().all(|member| member.has_synced) {
            self.sync_deadline_ms = None;
        }
    }
}
