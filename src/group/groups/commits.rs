//! Offsets that are committed: known when they are stored.
//!
//! Tests: group/groups/tests.rs.

use super::{Group, Groups, Then};
use crate::coordinator::{Answer, Topics};
use crate::group::asks::Outcomes;
use crate::group::classic::ClassicGroup;
use crate::group::consumer::{Commit, CommitKind};
use crate::group::group::Members;
use crate::group::messages::{CommitOffsets, CommittedOffset, GroupError, OffsetToCommit};
use crate::group::offsets::{Committed, Key, Offsets, WriteNumber};
use crate::group::persist::{self, offset_bytes};
use crate::group::reserved::Reserved;
use crate::group::solo::group_of;

impl Groups {
    pub(super) fn commit(
        &mut self,
        now_ms: i64,
        group_id: String,
        commit: CommitOffsets,
        answer: Answer<Outcomes>,
    ) {
        let number = self.number();
        let checks = match self.check_commit(now_ms, number, &group_id, &commit) {
            Ok(checks) => checks,
            Err(error) => return answer.send(vec![Err(error); commit.offsets.len()]),
        };
        let expire_ms = commit.retention_ms.map(|ms| now_ms.saturating_add(ms));
        let asked = commit.offsets.into_iter().zip(checks).collect();
        let (outcomes, offsets, identities) = self.to_store(now_ms, &group_id, expire_ms, asked);
        let mut to_store = None;
        if let Some(group) = self.groups.get_mut(&group_id) {
            group.begin_commit(number, &offsets);
            to_store = group.number_to_store(number);
        }
        let ops = persist::offset_ops(&group_id, to_store, &offsets, &identities);
        self.reschedule(&group_id);
        let id = group_id.clone();
        let then = Then::Commit {
            group_id,
            number,
            offsets,
            outcomes,
            answer,
        };
        self.store(now_ms, id, ops, then);
    }

    /// What of the offsets that are asked to be stored can be, each with its partition's identity.
    pub(super) fn to_store(
        &self,
        now_ms: i64,
        group_id: &str,
        expire_ms: Option<i64>,
        asked: Vec<(OffsetToCommit, Result<(), GroupError>)>,
    ) -> (Outcomes, Vec<(Key, Committed)>, Vec<String>) {
        let (mut outcomes, mut offsets) = (Vec::new(), Vec::new());
        let mut identities = Vec::new();
        for (asked, check) in asked {
            if check.is_err() {
                outcomes.push(check);
                continue;
            }
            if asked.metadata.len() > self.context.limits.metadata_bytes_max {
                outcomes.push(Err(GroupError::OffsetMetadataTooLarge));
                continue;
            }
            let Some(partition) = self.topics.partition(&asked.topic, asked.partition) else {
                outcomes.push(Err(GroupError::UnknownTopicOrPartition));
                continue;
            };
            let offset = CommittedOffset {
                offset: asked.offset,
                leader_epoch: asked.leader_epoch,
                metadata: asked.metadata,
                commit_ms: now_ms,
                expire_ms,
                topic_id: Some(partition.topic_id),
            };
            let key = (asked.topic, asked.partition);
            let Some(reserved) = self.reserve_offset(group_id, &key, &offset) else {
                outcomes.push(Err(GroupError::OffsetsTooLarge));
                continue;
            };
            outcomes.push(Ok(()));
            offsets.push((key, Committed::new(offset, reserved)));
            identities.push(partition.identity);
        }
        (outcomes, offsets, identities)
    }

    /// The memory of an offset; one that takes no more than what is known in its stead may always be committed.
    fn reserve_offset(
        &self,
        group_id: &str,
        key: &Key,
        offset: &CommittedOffset,
    ) -> Option<Reserved> {
        let bytes = offset_bytes(group_id, &key.0, offset);
        let group = self.groups.get(group_id);
        let known = group.and_then(|group| group.offsets.get(&key.0, key.1));
        let known = known.map_or(0, |known| offset_bytes(group_id, &key.0, known));
        let memory = &self.context.offsets;
        match bytes <= known {
            true => Some(memory.reserve_anyway(bytes)),
            false => memory.reserve(bytes),
        }
    }

    /// What of the commit is allowed.
    pub(super) fn check_commit(
        &mut self,
        now_ms: i64,
        number: WriteNumber,
        group_id: &str,
        commit: &CommitOffsets,
    ) -> Result<Outcomes, GroupError> {
        let topics = self.topics.clone();
        let group = self.group_to_commit(now_ms, number, group_id, commit.generation)?;
        let instance = commit.instance_id.as_deref();
        let member = (&*commit.member_id, instance, commit.generation);
        match &mut group.members {
            Members::Classic(classic) => {
                let (id, instance, generation) = member;
                classic.check_commit(now_ms, id, instance, generation)?;
                Ok(vec![Ok(()); commit.offsets.len()])
            }
            Members::Share(_) => Err(GroupError::GroupIdNotFound),
            Members::Streams(hosted) => {
                let version = Some(commit.version);
                hosted
                    .group
                    .check_commit(member, version, keys_of(&commit.offsets))
            }
            Members::Consumer(hosted) => {
                let version = commit.version;
                let kind = CommitKind::Plain { version };
                let allowed = hosted.group.check_commit(member, kind)?;
                Ok(check_each(&allowed, &commit.offsets, &*topics))
            }
        }
    }

    /// The group that offsets are for. A client outside any group makes it.
    pub(super) fn group_to_commit(
        &mut self,
        now_ms: i64,
        number: WriteNumber,
        group_id: &str,
        generation: i32,
    ) -> Result<&mut Group, GroupError> {
        if !self.groups.contains_key(group_id) {
            if generation >= 0 {
                return Err(match group_of(group_id) {
                    // It went with its member.
                    Some(_) => GroupError::UnknownMemberId,
                    None => GroupError::GroupIdNotFound,
                });
            }
            let group = Group::new(ClassicGroup::new(now_ms), Offsets::since(number));
            self.groups.insert(group_id.to_owned(), group);
        }
        let group = self.groups.get_mut(group_id);
        group.ok_or(GroupError::UnknownMemberId)
    }

    /// The offsets of a commit are stored, or none of them is.
    pub(super) fn committed(
        &mut self,
        group_id: &str,
        number: WriteNumber,
        mut offsets: Vec<(Key, Committed)>,
        mut outcomes: Outcomes,
        stored: Result<(), GroupError>,
    ) -> Outcomes {
        if stored.is_err() {
            offsets.clear();
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                *outcome = stored;
            }
        }
        let keys = self.mirror.keys(offsets.iter().map(|(key, _)| key));
        if let Some(group) = self.groups.get_mut(group_id) {
            group.offsets.finish_commit(number, offsets);
        }
        self.mirror
            .offsets(group_id, self.groups.get(group_id), &keys);
        self.drop_if_nothing(group_id);
        outcomes
    }
}

/// Topics and partitions of offsets.
pub(super) fn keys_of(offsets: &[OffsetToCommit]) -> impl Iterator<Item = (&str, i32)> {
    offsets.iter().map(|asked| (&*asked.topic, asked.partition))
}

/// What of the offsets a member may commit.
pub(super) fn check_each(
    allowed: &Commit<'_>,
    offsets: &[OffsetToCommit],
    topics: &dyn Topics,
) -> Outcomes {
    let check = |asked: &OffsetToCommit| match topics.id_of(&asked.topic) {
        Some(id) => allowed.check(id, asked.partition),
        // What is not there is refused as that.
        None => Ok(()),
    };
    offsets.iter().map(check).collect()
}
