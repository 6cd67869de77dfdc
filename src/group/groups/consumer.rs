//! Consumer groups of KIP-848: what is asked of them, how changes get to the tree, and how groups change between protocols.
//!
//! A group has one write under way; what changes meanwhile goes with the next one. So a thousand members that join at once
//! are a few writes.
//!
//! Tests: group/groups/tests/consumer.rs.

use std::sync::Arc;

use super::{Groups, Then};
use crate::coordinator::{Answer, Write};
use crate::group::asks::Outcomes;
use crate::group::classic::{ClassicGroup, Effect};
use crate::group::consumer::{
    self, ConsumerGroup, ConsumerHeartbeat, ConsumerReply, ConsumerSettings, MigrationPolicy,
    StoredConsumerGroup, is_vacant,
};
use crate::group::group::{Group, HostedConsumerGroup, InFlight, Members};
use crate::group::held_answers::Held;
use crate::group::limits::STORE_AGAIN_MS;
use crate::group::messages::{
    GroupError, Heartbeat, JoinReply, JoinRequest, LeaveMember, Refusal, SyncReply, SyncRequest,
};
use crate::group::offsets::{Offsets, WriteNumber};
use crate::group::persist;
use crate::group::solo::group_of;
use crate::meta::{Op, gather};
use crate::observe::{EventKind, Happened};

impl Groups {
    /// What is in force for a group. One that stands for a member of a broadcast group has nobody to share with: its target is
    /// made as soon as something changes, and its member may change its protocol.
    pub(super) fn consumer_settings(&self, group_id: &str) -> Arc<ConsumerSettings> {
        match group_of(group_id) {
            None => self.context.settings.consumer(group_id),
            Some(of) => {
                let settings = self.context.settings.consumer(of);
                Arc::new(ConsumerSettings {
                    assignment_interval_ms: 0,
                    migration: MigrationPolicy::Bidirectional,
                    ..ConsumerSettings::clone(&settings)
                })
            }
        }
    }

    pub(super) fn consumer_heartbeat(
        &mut self,
        now_ms: i64,
        group_id: &str,
        mut beat: ConsumerHeartbeat,
        answer: Answer<Result<ConsumerReply, Refusal>>,
    ) {
        let settings = self.consumer_settings(group_id);
        let made = self.be_consumer_group(now_ms, group_id, &beat, &settings);
        if let Err(refusal) = made {
            return answer.send(Err(refusal));
        }
        if beat.member_id.is_empty() {
            beat.member_id = uuid::Uuid::new_v4().to_string();
        }
        let topics = self.topics.clone();
        let hosted = self.groups.get_mut(group_id).and_then(Group::consumer_mut);
        let Some(hosted) = hosted else {
            return answer.send(Err(GroupError::GroupIdNotFound.into()));
        };
        match hosted.group.heartbeat(now_ms, beat, &settings, &*topics) {
            Ok(reply) => {
                let change = hosted.group.change_of(&reply.member_id);
                let held = move |stored: Result<(), GroupError>| {
                    answer.send(stored.map(|()| reply).map_err(Refusal::from));
                };
                hosted.held.hold(change, Box::new(held));
            }
            Err(refusal) => answer.send(Err(refusal)),
        }
        self.settle_consumer(now_ms, group_id, &settings);
    }

    /// Makes the group a consumer group for a member that joins, where it is none.
    fn be_consumer_group(
        &mut self,
        now_ms: i64,
        group_id: &str,
        beat: &ConsumerHeartbeat,
        settings: &ConsumerSettings,
    ) -> Result<(), Refusal> {
        let group = self.groups.get(group_id);
        if group.is_some_and(|group| group.consumer().is_some()) {
            return Ok(());
        }
        let joins = beat.member_epoch == 0;
        if joins {
            // Nothing is made of a group for a member that is refused.
            ConsumerGroup::check_new(beat)?;
        }
        let refuse = |message: String| Refusal {
            error: GroupError::GroupIdNotFound,
            message,
        };
        let Some(group) = self.groups.get_mut(group_id) else {
            if !joins && let Some(of) = group_of(group_id) {
                // It went with its member, who may come back to the broadcast group.
                let member = &beat.member_id;
                return Err(Refusal {
                    error: GroupError::UnknownMemberId,
                    message: format!("Member {member} is not a member of group {of}."),
                });
            }
            if !joins {
                // As GroupMetadataManager words them.
                return Err(refuse(match beat.member_epoch < 0 {
                    true => format!("Group {group_id} not found."),
                    false => format!("Consumer group {group_id} not found."),
                }));
            }
            let hosted = HostedConsumerGroup::new(
                ConsumerGroup::new(now_ms),
                StoredConsumerGroup::default(),
            );
            let offsets = Offsets::since(self.number());
            let group = Group::of(Members::Consumer(hosted), offsets);
            self.groups.insert(group_id.to_owned(), group);
            return Ok(());
        };
        let Members::Classic(classic) = &mut group.members else {
            return Ok(());
        };
        if !joins {
            return Err(refuse(format!("Group {group_id} is not a consumer group.")));
        }
        let (made, abandoned) = match is_vacant(classic) {
            true => (ConsumerGroup::new(now_ms), Vec::new()),
            false => {
                let with = (settings, &*self.topics);
                let made = ConsumerGroup::of_classic(now_ms, group_id, classic, with)?;
                (made, classic.abandon())
            }
        };
        let nodes = StoredConsumerGroup::instead_of(std::mem::take(&mut group.parts));
        group.members = Members::Consumer(HostedConsumerGroup::new(made, nodes));
        let ops = consumer::remove_ops(group_id);
        self.store(now_ms, group_id.to_owned(), ops, Then::Nothing);
        for effect in abandoned {
            self.answer_effect(effect);
        }
        Ok(())
    }

    /// A classic member joins a consumer group that has members.
    pub(super) fn join_consumer(
        &mut self,
        now_ms: i64,
        group_id: &str,
        (new_id, request): (String, &JoinRequest),
        answer: Answer<Result<JoinReply, GroupError>>,
    ) {
        let settings = self.consumer_settings(group_id);
        let topics = self.topics.clone();
        let Some(hosted) = self.groups.get_mut(group_id).and_then(Group::consumer_mut) else {
            return answer.send(Err(GroupError::UnknownMemberId));
        };
        let joined = hosted
            .group
            .join_classic(now_ms, new_id, request, (&settings, &*topics));
        match joined {
            Ok(reply) => {
                let change = match reply.generation < 0 {
                    // It was only given an id.
                    true => 0,
                    false => hosted.group.change_of(&reply.member_id),
                };
                let held = move |stored: Result<(), GroupError>| {
                    answer.send(stored.map(|()| reply));
                };
                hosted.held.hold(change, Box::new(held));
            }
            Err(error) => answer.send(Err(error)),
        }
        self.settle_consumer(now_ms, group_id, &settings);
    }

    pub(super) fn sync_consumer(
        &mut self,
        now_ms: i64,
        group_id: &str,
        request: &SyncRequest,
        answer: Answer<Result<SyncReply, GroupError>>,
    ) {
        let topics = self.topics.clone();
        let Some(hosted) = self.groups.get_mut(group_id).and_then(Group::consumer_mut) else {
            return answer.send(Err(GroupError::UnknownMemberId));
        };
        match hosted.group.sync_classic(now_ms, request, &*topics) {
            Ok(reply) => {
                let change = hosted.group.change_of(&request.member_id);
                let held = move |stored: Result<(), GroupError>| {
                    answer.send(stored.map(|()| reply));
                };
                hosted.held.hold(change, Box::new(held));
            }
            Err(error) => answer.send(Err(error)),
        }
        self.reschedule(group_id);
    }

    pub(super) fn heartbeat_consumer(
        &mut self,
        now_ms: i64,
        group_id: &str,
        beat: &Heartbeat,
    ) -> Result<(), GroupError> {
        let hosted = self.groups.get_mut(group_id).and_then(Group::consumer_mut);
        let hosted = hosted.ok_or(GroupError::UnknownMemberId)?;
        let outcome = hosted.group.heartbeat_classic(now_ms, beat);
        self.reschedule(group_id);
        outcome
    }

    pub(super) fn leave_consumer(
        &mut self,
        now_ms: i64,
        group_id: &str,
        members: &[LeaveMember],
        answer: Answer<Outcomes>,
    ) {
        let settings = self.consumer_settings(group_id);
        let Some(hosted) = self.groups.get_mut(group_id).and_then(Group::consumer_mut) else {
            return answer.send(vec![Err(GroupError::UnknownMemberId); members.len()]);
        };
        let outcomes = hosted.group.leave_all(now_ms, members);
        let change = hosted.group.change();
        let held = move |stored: Result<(), GroupError>| {
            let outcomes = outcomes.into_iter();
            answer.send(outcomes.map(|outcome| outcome.and(stored)).collect());
        };
        hosted.held.hold(change, Box::new(held));
        self.settle_consumer(now_ms, group_id, &settings);
    }

    /// What is due in a consumer group.
    pub(super) fn tick_consumer(&mut self, now_ms: i64, group_id: &str) {
        let settings = self.consumer_settings(group_id);
        let topics = self.topics.clone();
        if let Some(hosted) = self.groups.get_mut(group_id).and_then(Group::consumer_mut) {
            if hosted.store_again_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                hosted.store_again_ms = None;
            }
            hosted.group.tick(now_ms, &settings, &*topics);
        }
        self.settle_consumer(now_ms, group_id, &settings);
    }

    /// Reports what happened, stores what changed, makes it a classic group where it is to be one, and updates its timer.
    pub(super) fn settle_consumer(
        &mut self,
        now_ms: i64,
        group_id: &str,
        settings: &ConsumerSettings,
    ) {
        let Some(hosted) = self.groups.get_mut(group_id).and_then(Group::consumer_mut) else {
            return;
        };
        let told = hosted.group.take_told();
        // A member that stands alone makes nobody wait.
        for told in told.into_iter().filter(|_| group_of(group_id).is_none()) {
            let (epoch, members) = (hosted.group.epoch, hosted.group.members.len());
            let rebalance = Happened::new(EventKind::Rebalance, group_id)
                .who(&told.who)
                .why(&told.why)
                .detail(format!("group epoch {epoch}, {members} members"));
            self.context.events.tell(rebalance);
        }
        let is_over = hosted.group.members.is_empty() && hosted.store_again_ms.is_none();
        match hosted.group.is_to_be_classic(settings) {
            true => self.become_classic(now_ms, group_id),
            false if is_over && self.ends_with_its_member(group_id) => {
                self.end_solo_of_consumer(now_ms, group_id);
            }
            false => self.flush(now_ms, group_id),
        }
        self.reschedule(group_id);
        self.drop_if_nothing(group_id);
    }

    /// A solo group whose member is gone goes too, where it ever had one and that is not under way.
    fn end_solo_of_consumer(&mut self, now_ms: i64, group_id: &str) {
        let group = self.groups.get(group_id);
        if group.is_some_and(|group| group.removal.is_none() && !group.is_nothing()) {
            self.remove(now_ms, group_id.to_owned(), None);
        }
    }

    /// Stores what changed, where no write is under way.
    fn flush(&mut self, now_ms: i64, group_id: &str) {
        let number = self.number();
        let topics = self.topics.clone();
        let group = self.groups.get_mut(group_id);
        // What is on its way to be removed is not written any more; if it stays, this comes again.
        let group = group.filter(|group| group.removal.is_none());
        let Some(hosted) = group.and_then(Group::consumer_mut) else {
            return;
        };
        let waits = hosted.in_flight.is_some() || hosted.store_again_ms.is_some();
        if waits || hosted.group.unstored().is_empty() {
            return;
        }
        let what = hosted.group.take_unstored();
        let (steps, written) = hosted.nodes.write(group_id, &hosted.group, &what, &*topics);
        let multis = gather(steps);
        hosted.in_flight = Some(InFlight {
            number,
            change: hosted.group.change(),
            left: multis.len().max(1),
            failed: None,
            what,
            written,
        });
        if multis.is_empty() {
            return self.consumer_stored(now_ms, group_id, number, Ok(()));
        }
        for (_, ops) in multis {
            let group_id = group_id.to_owned();
            self.writes.push(Write {
                id: group_id.clone(),
                ops,
                then: Then::ConsumerGroup { group_id, number },
            });
        }
    }

    /// A part of a write of a consumer group is stored, or refused.
    pub(super) fn consumer_stored(
        &mut self,
        now_ms: i64,
        group_id: &str,
        number: WriteNumber,
        stored: Result<(), GroupError>,
    ) {
        let Some(hosted) = self.groups.get_mut(group_id).and_then(Group::consumer_mut) else {
            return;
        };
        let Some(in_flight) = hosted.in_flight.as_mut().filter(|own| own.number == number) else {
            return;
        };
        in_flight.left -= 1;
        in_flight.failed = in_flight.failed.or(stored.err());
        if in_flight.left > 0 {
            return;
        }
        let Some(over) = hosted.in_flight.take() else {
            return;
        };
        let outcome = match over.failed {
            None => {
                hosted.nodes.stored(over.written);
                Ok(())
            }
            Some(error) => {
                hosted.group.unstored().again(over.what);
                hosted.store_again_ms = Some(now_ms + STORE_AGAIN_MS);
                Err(error)
            }
        };
        hosted.held.settle(over.change, outcome);
        self.flush(now_ms, group_id);
        self.reschedule(group_id);
    }

    /// A consumer group without members becomes a classic one, for a classic member that joins.
    pub(super) fn be_classic_if_empty(&mut self, now_ms: i64, group_id: &str) {
        let group = self.groups.get_mut(group_id);
        let consumer = group.and_then(|group| group.consumer());
        if consumer.is_some_and(|consumer| consumer.members.is_empty()) {
            let held = self.replace_members(group_id, ClassicGroup::new(now_ms));
            // The head of the consumer group would bring it back.
            let ops = self.classic_instead_ops(group_id);
            let then = Then::Released { held };
            self.store(now_ms, group_id.to_owned(), ops, then);
        }
    }

    /// All members are classic: the group becomes a classic one, with what they are to have.
    fn become_classic(&mut self, now_ms: i64, group_id: &str) {
        let group = self.groups.get(group_id).and_then(Group::consumer);
        let Some((mut classic, rebalances)) =
            group.map(|group| group.to_classic(now_ms, &*self.topics))
        else {
            return;
        };
        tracing::info!(group = group_id, rebalances, "becomes a classic group");
        if rebalances {
            let limits = self.classic_limits();
            classic.rebalance_because(now_ms, "the group became a classic one", &limits);
        }
        let held = self.replace_members(group_id, classic);
        let ops = self.classic_instead_ops(group_id);
        self.store(now_ms, group_id.to_owned(), ops, Then::Released { held });
        self.settle(group_id);
    }

    /// The steps that store a classic group in the place of a consumer group.
    fn classic_instead_ops(&mut self, group_id: &str) -> Vec<Op> {
        let mut ops = consumer::remove_ops(group_id);
        if let Some(group) = self.groups.get_mut(group_id)
            && let Members::Classic(classic) = &group.members
        {
            let (own, _) = persist::group_ops(group_id, classic, &mut group.parts, &*self.topics);
            ops.extend(own);
        }
        ops
    }

    /// Puts a classic group in the place of a consumer group; the answers that still wait.
    fn replace_members(&mut self, group_id: &str, classic: ClassicGroup) -> Vec<Held> {
        let Some(group) = self.groups.get_mut(group_id) else {
            return Vec::new();
        };
        match std::mem::replace(&mut group.members, Members::Classic(Box::new(classic))) {
            Members::Classic(_) | Members::Share(_) | Members::Streams(_) => Vec::new(),
            Members::Consumer(mut hosted) => {
                group.parts = std::mem::take(&mut hosted.nodes.head);
                hosted.held.take()
            }
        }
    }

    /// Answers a join or a sync of a group that is no classic one any more.
    fn answer_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Join(waiter, reply) => self.answer_join(waiter, reply),
            Effect::Sync(waiter, reply) => self.answer_sync(waiter, reply),
            Effect::Persist(_) => {}
        }
    }
}
