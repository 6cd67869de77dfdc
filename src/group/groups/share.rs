//! Share groups: what is asked of them.
//!
//! Tests: tests/shares.rs.

use uuid::Uuid;

use super::Groups;
use crate::coordinator::{Answer, Parts};
use crate::group::asks::{Ask, ShareAsk};
use crate::group::group::{Group, Members};
use crate::group::hosted_record::HostedShareGroup;
use crate::group::messages::{GroupError, Refusal};
use crate::group::offsets::Offsets;
use crate::group::share::{ShareGroup, ShareHeartbeat, ShareReply};

/// Epoch of a member that joins.
const JOIN: i32 = 0;
/// Of one that leaves.
const LEAVE: i32 = -1;

fn check_empty(group: &ShareGroup) -> Result<(), GroupError> {
    match group.members.is_empty() {
        true => Ok(()),
        false => Err(GroupError::NonEmptyGroup),
    }
}

impl Groups {
    /// Refuses what only groups of other protocols understand; what a share group does as they do is given back.
    pub(super) fn refuse_of_share(&self, group_id: &str, ask: Ask) -> Option<Ask> {
        let is_share = self.groups.get(group_id).is_some_and(Group::is_share);
        if !is_share {
            return Some(ask);
        }
        match ask {
            Ask::Join(_, answer) => answer.send(Err(GroupError::InconsistentGroupProtocol)),
            Ask::Sync(_, answer) => answer.send(Err(GroupError::UnknownMemberId)),
            Ask::Heartbeat(_, answer) => answer.send(Err(GroupError::UnknownMemberId)),
            Ask::Leave(members, answer) => {
                answer.send(vec![Err(GroupError::UnknownMemberId); members.len()]);
            }
            Ask::ConsumerHeartbeat(_, answer) => {
                answer.send(Err(GroupError::GroupIdNotFound.into()));
            }
            Ask::Commit(commit, answer) => {
                answer.send(vec![Err(GroupError::GroupIdNotFound); commit.offsets.len()]);
            }
            Ask::CommitTransactional(commit, answer) => {
                answer.send(vec![Err(GroupError::GroupIdNotFound); commit.offsets.len()]);
            }
            Ask::FetchOffsets(_, answer) => answer.send(Err(GroupError::GroupIdNotFound)),
            Ask::DeleteOffsets(_, answer) => answer.send(Err(GroupError::GroupIdNotFound)),
            ask => return Some(ask),
        }
        None
    }

    pub(super) fn share_ask(&mut self, now_ms: i64, group_id: &str, ask: ShareAsk) {
        match ask {
            ShareAsk::Heartbeat(beat, answer) => {
                self.share_heartbeat(now_ms, group_id, *beat, answer);
            }
            ShareAsk::Initialized {
                done,
                failed,
                beyond,
                answer,
            } => {
                // The group may be another one by now.
                self.change_share(group_id, answer, |group| {
                    group.passes(beyond);
                    for (topic_id, partitions) in &done {
                        group.initialized(*topic_id, partitions);
                    }
                    for (topic_id, partitions) in &failed {
                        group.not_initialized(*topic_id, partitions);
                    }
                    Ok(())
                });
            }
            ShareAsk::Alter(topics, answer) => {
                if let Err(refusal) = self.make_share(group_id) {
                    return answer.send(Err(refusal.error));
                }
                self.change_share(group_id, answer, |group| {
                    check_empty(group)?;
                    Ok(group.alter(now_ms, &topics))
                });
            }
            ShareAsk::Delete(topics, answer) => {
                self.change_share(group_id, answer, |group| {
                    check_empty(group)?;
                    Ok(group.delete(topics.as_deref()))
                });
            }
            ShareAsk::Deleted(topic_id, answer) => {
                self.change_share(group_id, answer, |group| {
                    group.deleted(topic_id);
                    Ok(())
                });
            }
            ShareAsk::Partitions(answer) => {
                let group = self.groups.get(group_id).and_then(Group::share);
                let known = group.map(ShareGroup::initialized_partitions);
                answer.send(known.ok_or(GroupError::GroupIdNotFound));
            }
        }
    }

    fn share_heartbeat(
        &mut self,
        now_ms: i64,
        group_id: &str,
        beat: ShareHeartbeat,
        answer: Answer<Result<ShareReply, Refusal>>,
    ) {
        if beat.member_epoch == JOIN
            && let Err(refusal) = self.make_share(group_id)
        {
            return answer.send(Err(refusal));
        }
        let (settings, topics) = (self.context.settings.share(group_id), self.topics.clone());
        let Some(hosted) = self.groups.get_mut(group_id).and_then(Group::share_mut) else {
            let message = match self.groups.contains_key(group_id) {
                true => format!("Group {group_id} is not a share group."),
                // As GroupMetadataManager words them.
                false if beat.member_epoch == LEAVE => format!("Group {group_id} not found."),
                false => format!("Share group {group_id} not found."),
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
        self.settle_recorded::<ShareGroup>(group_id);
    }

    /// Changes a share group; answers when that is stored.
    fn change_share<T: Send + 'static>(
        &mut self,
        group_id: &str,
        answer: Answer<Result<T, GroupError>>,
        change: impl FnOnce(&mut ShareGroup) -> Result<T, GroupError>,
    ) {
        let Some(hosted) = self.groups.get_mut(group_id).and_then(Group::share_mut) else {
            return answer.send(Err(GroupError::GroupIdNotFound));
        };
        match change(&mut hosted.group) {
            Ok(done) => hosted.hold(Box::new(move |stored| answer.send(stored.map(|()| done)))),
            Err(error) => answer.send(Err(error)),
        }
        self.settle_recorded::<ShareGroup>(group_id);
    }

    /// Makes a share group, where there is no group of that name.
    fn make_share(&mut self, group_id: &str) -> Result<(), Refusal> {
        if self.groups.contains_key(group_id) {
            return Ok(());
        }
        if self.has_solos(group_id) {
            let message = format!("Group {group_id} is not a share group.");
            let error = GroupError::GroupIdNotFound;
            return Err(Refusal { error, message });
        }
        let max = self.context.limits.share_groups_max;
        let Some(place) = self.context.share_groups.reserve(1) else {
            let message = format!("The broker has reached its maximum of {max} share groups.");
            let error = GroupError::GroupMaxSizeReached;
            return Err(Refusal { error, message });
        };
        let mut hosted = HostedShareGroup::new(ShareGroup::new(), Parts::default());
        hosted.place = Some(place);
        let offsets = Offsets::since(self.number());
        let group = Group::of(Members::Share(hosted), offsets);
        self.groups.insert(group_id.to_owned(), group);
        Ok(())
    }

    /// What is due in a share group.
    pub(super) fn tick_share(&mut self, now_ms: i64, group_id: &str) {
        if let Some(hosted) = self.groups.get_mut(group_id).and_then(Group::share_mut) {
            hosted.tick(now_ms);
            hosted.group.tick(now_ms);
        }
        self.settle_recorded::<ShareGroup>(group_id);
    }

    /// Share groups have no more to do with a topic that is gone.
    pub(super) fn topic_deleted_for_shares(&mut self, topic_id: Uuid) {
        let had = self.groups.iter_mut().filter_map(|(id, group)| {
            let hosted = group.share_mut()?;
            hosted.group.forget_topic(topic_id).then(|| id.clone())
        });
        for group_id in had.collect::<Vec<_>>() {
            self.settle_recorded::<ShareGroup>(&group_id);
        }
    }
}
