//! Streams groups: what is asked of them.

use super::{Groups, Then};
use crate::coordinator::{Answer, Parts};
use crate::group::asks::Ask;
use crate::group::classic::ClassicGroup;
use crate::group::consumer::is_vacant;
use crate::group::group::{Group, Members};
use crate::group::hosted_record::HostedStreamsGroup;
use crate::group::messages::{GroupError, Refusal};
use crate::group::offsets::Offsets;
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
            // A group without members becomes a classic one.
            Ask::Join(..) if group.members.is_empty() => return Some(ask),
            Ask::Join(_, answer) => answer.send(Err(GroupError::UnknownMemberId)),
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
        if beat.member_epoch == JOIN {
            self.be_streams_group(now_ms, group_id);
        }
        let (settings, topics) = (self.context.settings.streams(group_id), self.topics.clone());
        let exists = self.groups.contains_key(group_id);
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

    /// Makes a streams group, where there is no group of that name, or a classic one without members.
    fn be_streams_group(&mut self, now_ms: i64, group_id: &str) {
        let Some(group) = self.groups.get_mut(group_id) else {
            let hosted = HostedStreamsGroup::new(StreamsGroup::new(), Parts::default());
            let offsets = Offsets::since(self.number());
            let group = Group::of(Members::Streams(hosted), offsets);
            self.groups.insert(group_id.to_owned(), group);
            return;
        };
        if group.classic().is_some_and(is_vacant) {
            let parts = std::mem::take(&mut group.parts);
            let hosted = HostedStreamsGroup::new(StreamsGroup::new(), parts);
            group.members = Members::Streams(hosted);
            let ops = crate::group::consumer::remove_ops(group_id);
            self.store(now_ms, group_id.to_owned(), ops, Then::Nothing);
        }
    }

    /// A streams group without members becomes a classic one, for a classic member that joins.
    pub(super) fn be_classic_if_streams(&mut self, now_ms: i64, group_id: &str) {
        let Some(group) = self.groups.get_mut(group_id) else {
            return;
        };
        let Members::Streams(hosted) = &mut group.members else {
            return;
        };
        let (parts, held) = (std::mem::take(&mut hosted.parts), hosted.held.take());
        group.parts = parts;
        group.members = Members::Classic(Box::new(ClassicGroup::new(now_ms)));
        for answer in held {
            answer(Ok(()));
        }
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
