//! Streams groups: what is asked of them.

use super::{Groups, Then};
use crate::coordinator::{Answer, Parts};
use crate::group::asks::Ask;
use crate::group::classic::ClassicGroup;
use crate::group::consumer::{is_vacant, remove_ops};
use crate::group::group::{Group, Members};
use crate::group::hosted_record::HostedStreamsGroup;
use crate::group::messages::{GroupError, Refusal};
use crate::group::offsets::Offsets;
use crate::group::persist;
use crate::group::streams::{StreamsGroup, StreamsHeartbeat, StreamsReply};

/// Epoch of a member that joins.
const JOIN: i32 = 0;
/// A static member that leaves and will be back has the lowest epoch.
const LEAVE_MAX: i32 = -1;

impl Groups {
    /// Refuses what only groups of other protocols understand; what a streams group does as they do is given back.
    pub(super) fn refuse_of_streams(&self, group_id: &str, ask: Ask) -> Option<Ask> {
        let group = self.groups.get(group_id).and_then(Group::streams);
        let Some(group) = group else {
            return Some(ask);
        };
        match ask {
            // A group without members becomes a classic one, for a new member.
            Ask::Join(request, answer) => match (group.members.is_empty(), &*request.member_id) {
                (true, "") => return Some(Ask::Join(request, answer)),
                (true, _) => answer.send(Err(GroupError::UnknownMemberId)),
                (false, _) => answer.send(Err(GroupError::InconsistentGroupProtocol)),
            },
            Ask::Sync(_, answer) => answer.send(Err(GroupError::UnknownMemberId)),
            Ask::Heartbeat(_, answer) => answer.send(Err(GroupError::UnknownMemberId)),
            Ask::Leave(members, answer) => {
                answer.send(vec![Err(GroupError::UnknownMemberId); members.len()]);
            }
            Ask::ConsumerHeartbeat(_, answer) => answer.send(Err(Refusal {
                error: GroupError::GroupIdNotFound,
                message: format!("Group {group_id} is not a consumer group."),
            })),
            ask => return Some(ask),
        }
        None
    }

    pub(super) fn streams_heartbeat(
        &mut self,
        now_ms: i64,
        group_id: &str,
        beat: StreamsHeartbeat,
        answer: Answer<Result<StreamsReply, Refusal>>,
    ) {
        let (settings, topics) = (self.context.settings.streams(group_id), self.topics.clone());
        if beat.member_epoch == JOIN && self.may_be_streams_group(group_id) {
            // Nothing is made of a group for a member that is refused.
            let mut group = StreamsGroup::new();
            match group.heartbeat(now_ms, (group_id, beat), &settings, &*topics) {
                Ok(reply) => self.be_streams_group(now_ms, group_id, group, (reply, answer)),
                Err(refusal) => answer.send(Err(refusal)),
            }
            return;
        }
        let exists = self.groups.contains_key(group_id) || self.has_solos(group_id);
        let Some(hosted) = self.groups.get_mut(group_id).and_then(Group::streams_mut) else {
            let message = match (exists, beat.member_epoch <= LEAVE_MAX) {
                (true, _) => format!("Group {group_id} is not a streams group."),
                (false, true) => format!("Group {group_id} not found."),
                (false, false) => format!("Streams group {group_id} not found."),
            };
            let error = GroupError::GroupIdNotFound;
            return answer.send(Err(Refusal { error, message }));
        };
        match hosted
            .group
            .heartbeat(now_ms, (group_id, beat), &settings, &*topics)
        {
            Ok(reply) => hosted.hold(Box::new(move |stored| {
                answer.send(stored.map(|()| reply).map_err(Refusal::from));
            })),
            Err(refusal) => answer.send(Err(refusal)),
        }
        self.settle_recorded::<StreamsGroup>(group_id);
    }

    /// Whether there is no group of that name, or a classic one without members.
    fn may_be_streams_group(&self, group_id: &str) -> bool {
        let group = self.groups.get(group_id);
        group.is_none_or(|group| group.classic().is_some_and(is_vacant))
            && !self.has_solos(group_id)
    }

    /// A streams group that its first member has joined; the member is answered when that is stored.
    fn be_streams_group(
        &mut self,
        now_ms: i64,
        group_id: &str,
        made: StreamsGroup,
        (reply, answer): (StreamsReply, Answer<Result<StreamsReply, Refusal>>),
    ) {
        let before = self.groups.get_mut(group_id);
        let parts = before.map_or_else(Parts::default, |group| std::mem::take(&mut group.parts));
        let mut hosted = HostedStreamsGroup::new(StreamsGroup::new(), parts);
        hosted.group = made;
        hosted.hold(Box::new(move |stored| {
            answer.send(stored.map(|()| reply).map_err(Refusal::from));
        }));
        let members = Members::Streams(hosted);
        match self.groups.get_mut(group_id) {
            Some(group) => {
                group.members = members;
                let ops = remove_ops(group_id);
                self.store(now_ms, group_id.to_owned(), ops, Then::Nothing);
            }
            None => {
                let offsets = Offsets::since(self.number());
                let group = Group::of(members, offsets);
                self.groups.insert(group_id.to_owned(), group);
            }
        }
        self.settle_recorded::<StreamsGroup>(group_id);
    }

    /// A streams group without members becomes a classic one, for a classic member that joins.
    pub(super) fn be_classic_if_streams(&mut self, now_ms: i64, group_id: &str) {
        let Some(group) = self.groups.get_mut(group_id) else {
            return;
        };
        let Members::Streams(hosted) = &mut group.members else {
            return;
        };
        let held = hosted.held.take();
        group.parts = std::mem::take(&mut hosted.parts);
        let classic = ClassicGroup::new(now_ms);
        let (ops, _) = persist::group_ops(group_id, &classic, &mut group.parts, &*self.topics);
        group.members = Members::Classic(Box::new(classic));
        self.store(now_ms, group_id.to_owned(), ops, Then::Released { held });
    }

    /// What is due in a streams group.
    pub(super) fn tick_streams(&mut self, now_ms: i64, group_id: &str) {
        let settings = self.context.settings.streams(group_id);
        if let Some(hosted) = self.groups.get_mut(group_id).and_then(Group::streams_mut) {
            hosted.tick(now_ms);
            hosted.group.tick(now_ms, &settings);
        }
        self.settle_recorded::<StreamsGroup>(group_id);
    }
}
