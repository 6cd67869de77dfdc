//! Members of a classic group: heartbeats, commits, leaving.
//!
//! Tests: group/classic/tests.rs.

use crate::group::messages::{GroupError, LeaveMember};

use super::rebalanced::{label, with_reason};
use super::{ClassicGroup, Effect, Limits, State};

impl ClassicGroup {
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
        self.heard(now_ms, member_id);
        if self.state == State::PreparingRebalance {
            Err(GroupError::RebalanceInProgress)
        } else {
            Ok(())
        }
    }

    /// Notes a sign of life of a member.
    pub(super) fn heard(&mut self, now_ms: i64, member_id: &str) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard(now_ms);
            self.due_ms = self.due_ms.min(member.deadline_ms);
        }
    }

    /// Whether offsets may be committed by this member, or from outside the group.
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
        self.heard(now_ms, member_id);
        Ok(())
    }

    /// The same for offsets of a transaction: the state of the group does not matter, and they do not tell that a member
    /// lives. Older requests name no member.
    pub(in crate::group) fn check_transactional_commit(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        if generation < 0
            && (self.state == State::Empty || member_id.is_empty() && instance_id.is_none())
        {
            return Ok(());
        }
        self.check_member(member_id, instance_id)?;
        match generation == self.generation {
            true => Ok(()),
            false => Err(GroupError::IllegalGeneration),
        }
    }

    /// A member leaves.
    pub(in crate::group) fn leave(
        &mut self,
        now_ms: i64,
        leaving: &LeaveMember,
        limits: &Limits,
    ) -> Result<(), GroupError> {
        let is_pending = self.pending.contains_key(&leaving.member_id);
        let id = match &leaving.instance_id {
            // One that has only just got its id leaves by that alone, as by Kafka.
            Some(instance) if !is_pending => {
                let current = self
                    .instances
                    .get(instance)
                    .ok_or(GroupError::UnknownMemberId)?;
                if !leaving.member_id.is_empty() && *current != leaving.member_id {
                    return Err(GroupError::FencedInstanceId);
                }
                current.clone()
            }
            _ => leaving.member_id.clone(),
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
    pub(super) fn drop_member(&mut self, now_ms: i64, id: &str, why: &str, limits: &Limits) {
        if let Some(member) = self.members.get(id) {
            self.because(label(member), why);
        }
        self.forget(id);
        match self.state {
            State::Stable | State::CompletingRebalance | State::PreparingRebalance => {
                self.prepare_or_go_on(now_ms, limits)
            }
            State::Empty => {}
        }
    }

    pub(super) fn forget(&mut self, id: &str) {
        let Some(member) = self.take(id) else {
            return;
        };
        if let Some(instance) = member.instance_id {
            self.instances.remove(&instance);
            self.replaced.remove(&instance);
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

    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
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
}
