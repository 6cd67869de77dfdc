//! Members of classic groups: what they ask, and what a group does about it.
//!
//! Tests: group/group_coordinator/tests.rs, group/groups/tests/broadcast.rs.

use uuid::Uuid;

use super::{Groups, Then, Waiting};
use crate::coordinator::{Answer, Write};
use crate::group::asks::Outcomes;
use crate::group::classic::{Change, ClassicGroup, Effect, Rebalanced};
use crate::group::group::{Group, Members};
use crate::group::member::Waiter;
use crate::group::messages::{
    GroupError, Heartbeat, JoinReply, JoinRequest, LeaveMember, SyncReply, SyncRequest,
};
use crate::group::offsets::Offsets;
use crate::group::persist;
use crate::group::solo::Solo;
use crate::observe::{EventKind, Events, Happened};

impl Groups {
    pub(super) fn join(
        &mut self,
        now_ms: i64,
        group_id: &str,
        request: &JoinRequest,
        answer: Answer<Result<JoinReply, GroupError>>,
    ) {
        if !self.groups.contains_key(group_id) {
            if !request.member_id.is_empty() {
                return answer.send(Err(GroupError::UnknownMemberId));
            }
            let offsets = Offsets::since(self.number());
            let group = Group::new(ClassicGroup::new(now_ms), offsets);
            self.groups.insert(group_id.to_owned(), group);
        }
        let new_id = match Solo::of(group_id) {
            Some(Solo::Member(id)) => id.to_owned(),
            _ => new_member_id(request),
        };
        self.be_classic_if_empty(now_ms, group_id);
        self.be_classic_if_streams(now_ms, group_id);
        let group = self.groups.get(group_id);
        if group.is_some_and(|group| group.consumer().is_some()) {
            return self.join_consumer(now_ms, group_id, (new_id, request), answer);
        }
        let limits = self.limits_of(group_id);
        let waiter = self.wait(Waiting::Join(answer));
        if let Some(classic) = self.classic_mut(group_id) {
            classic.join(now_ms, waiter, new_id, request, &limits);
        }
        self.settle(group_id);
    }

    pub(super) fn sync(
        &mut self,
        now_ms: i64,
        group_id: &str,
        request: SyncRequest,
        answer: Answer<Result<SyncReply, GroupError>>,
    ) {
        let Some(group) = self.groups.get(group_id) else {
            return answer.send(Err(GroupError::UnknownMemberId));
        };
        if group.consumer().is_some() {
            return self.sync_consumer(now_ms, group_id, &request, answer);
        }
        let waiter = self.wait(Waiting::Sync(answer));
        if let Some(classic) = self.classic_mut(group_id) {
            classic.sync(now_ms, waiter, request);
        }
        self.settle(group_id);
    }

    pub(super) fn heartbeat(
        &mut self,
        now_ms: i64,
        group_id: &str,
        beat: &Heartbeat,
    ) -> Result<(), GroupError> {
        let group = self.groups.get_mut(group_id);
        let group = group.ok_or(GroupError::UnknownMemberId)?;
        let instance = beat.instance_id.as_deref();
        match group.classic_mut() {
            Some(classic) => classic.heartbeat(now_ms, &beat.member_id, instance, beat.generation),
            None => self.heartbeat_consumer(now_ms, group_id, beat),
        }
    }

    pub(super) fn leave(
        &mut self,
        now_ms: i64,
        group_id: &str,
        members: &[LeaveMember],
        answer: Answer<Outcomes>,
    ) {
        let limits = self.classic_limits();
        match self
            .groups
            .get_mut(group_id)
            .map(|group| &mut group.members)
        {
            None => answer.send(vec![Err(GroupError::UnknownMemberId); members.len()]),
            Some(Members::Share(_) | Members::Streams(_)) => {
                answer.send(vec![Err(GroupError::UnknownMemberId); members.len()]);
            }
            Some(Members::Consumer(_)) => self.leave_consumer(now_ms, group_id, members, answer),
            Some(Members::Classic(classic)) => {
                let leave = |leaving: &LeaveMember| classic.leave(now_ms, leaving, &limits);
                let outcomes = members.iter().map(leave).collect();
                self.settle(group_id);
                answer.send(outcomes);
            }
        }
    }

    pub(super) fn answer_join(&mut self, waiter: Waiter, reply: Result<JoinReply, GroupError>) {
        if let Some(Waiting::Join(answer)) = self.waiting.remove(&waiter) {
            answer.send(reply);
        }
    }

    pub(super) fn answer_sync(&mut self, waiter: Waiter, reply: Result<SyncReply, GroupError>) {
        if let Some(Waiting::Sync(answer)) = self.waiting.remove(&waiter) {
            answer.send(reply);
        }
    }

    /// Carries out a classic group's effects, and updates its timer.
    pub(super) fn settle(&mut self, group_id: &str) {
        let Some(group) = self.groups.get_mut(group_id) else {
            return;
        };
        let Members::Classic(classic) = &mut group.members else {
            return;
        };
        let is_solo = Solo::of(group_id).is_some();
        for over in classic.take_rebalanced() {
            // A member that stands alone makes nobody wait.
            if !is_solo {
                report(&self.context.events, group_id, &over);
            }
        }
        for effect in classic.take_effects() {
            match effect {
                Effect::Join(waiter, reply) => self.answer_join(waiter, reply),
                Effect::Sync(waiter, reply) => self.answer_sync(waiter, reply),
                Effect::Persist(change) => self.persist(group_id, change),
            }
        }
        self.reschedule(group_id);
        self.drop_if_nothing(group_id);
    }

    /// Stores a classic group.
    pub(super) fn persist(&mut self, group_id: &str, change: Change) {
        if matches!(change, Change::Emptied { .. }) && self.ends_with_its_member(group_id) {
            return self.end_solo(group_id);
        }
        let Some(group) = self.groups.get_mut(group_id) else {
            return;
        };
        let Members::Classic(classic) = &group.members else {
            return;
        };
        let (ops, number) = persist::group_ops(group_id, classic, &mut group.parts, &*self.topics);
        let id = group_id.to_owned();
        let then = Then::Group {
            group_id: id.clone(),
            change,
            number,
        };
        self.writes.push(Write { id, ops, then });
    }

    pub(super) fn group_stored(
        &mut self,
        now_ms: i64,
        group_id: &str,
        change: Change,
        stored: Result<(), GroupError>,
    ) {
        let limits = self.limits_of(group_id);
        if let Some(classic) = self.classic_mut(group_id) {
            classic.persisted(now_ms, change, stored, &limits);
        }
        if let (Some(group), Ok(())) = (self.groups.get(group_id), stored) {
            self.mirror.group(group_id, group);
        }
        self.settle(group_id);
    }
}

/// A name for a new member, as Kafka's.
pub(super) fn new_member_id(request: &JoinRequest) -> String {
    let prefix = request.instance_id.as_deref().unwrap_or(&request.client_id);
    format!("{prefix}-{}", Uuid::new_v4())
}

/// Reports a rebalance to people.
fn report(events: &Events, group_id: &str, over: &Rebalanced) {
    let (before, after) = over.members;
    let mut detail = format!("generation {}, {before} → {after} members", over.generation);
    if let Some((member, ms)) = &over.waited_for
        && *ms > 0
    {
        detail.push_str(&format!("; last to join: {member} after {ms} ms"));
    }
    if over.missing > 0 {
        detail.push_str(&format!("; {} did not rejoin in time", over.missing));
    }
    let rebalance = Happened::new(EventKind::Rebalance, group_id)
        .who(&over.who)
        .why(&over.why)
        .detail(detail)
        .took_ms(over.took_ms);
    events.tell(rebalance);
}
