//! A share group as a node of the coordination tree, and back.

use std::sync::Arc;

use uuid::Uuid;

use super::simple_assignor::Partitions;
use super::{ShareGroup, ShareMember, TopicShares};
use crate::coordinator::{FoundRecord, Parts, StoredId};
use crate::group::limits::member_bytes;
use crate::group::reserved::GroupMemory;
use crate::meta::records::{RECORD_VERSION, decode, encode};
use crate::meta::share_records::{ShareGroupRecord, ShareMemberRecord};
use crate::meta::{MetaError, Op, paths};

/// What the record of a share group says it is.
pub(in crate::group) const SHARE_TYPE: &str = "share";

/// The steps that store a share group, and the number of the write.
pub(in crate::group) fn ops(
    group_id: &str,
    group: &ShareGroup,
    parts: &mut Parts,
) -> (Vec<Op>, u64) {
    let members: Vec<ShareMemberRecord> = group.members.iter().map(member_record).collect();
    let node = |parts: Option<_>| {
        encode(&ShareGroupRecord {
            version: RECORD_VERSION,
            group_type: SHARE_TYPE.to_owned(),
            epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            initialized: group.initialized_partitions(),
            deleting: by_topic(group, |shares| shares.deleting.iter().copied().collect()),
            met: by_topic(group, |shares| shares.met_with.into_iter().collect()),
            members: match parts {
                Some(_) => Vec::new(),
                None => members.clone(),
            },
            parts,
        })
    };
    parts.write(&paths::group(group_id), node, || encode(&members))
}

/// What is known of topics, of those of which something is.
fn by_topic(group: &ShareGroup, known: impl Fn(&TopicShares) -> Vec<i32>) -> Vec<(Uuid, Vec<i32>)> {
    let all = group.shares.iter().map(|(id, shares)| (*id, known(shares)));
    all.filter(|(_, known)| !known.is_empty()).collect()
}

fn member_record((id, member): (&String, &ShareMember)) -> ShareMemberRecord {
    let target = member.target.iter();
    ShareMemberRecord {
        member_id: id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        rack: member.rack.clone(),
        topics: member.topics.iter().cloned().collect(),
        target: target
            .map(|(id, partitions)| (*id, partitions.iter().copied().collect()))
            .collect(),
    }
}

/// Reads a share group. Its members have until `session_until_ms` to report.
pub(in crate::group) fn load(
    stored: &StoredId,
    session_until_ms: i64,
    memory: &Arc<GroupMemory>,
) -> Result<(ShareGroup, Parts), MetaError> {
    let path = paths::group(&stored.id);
    let found = FoundRecord::among(&path, stored);
    let Some(node) = found.node else {
        return Ok((ShareGroup::new(), found.parts()));
    };
    let mut record: ShareGroupRecord = decode(&path, node)?;
    if let Some(parts) = record.parts.take() {
        record.members = decode(&path, &found.bulk(&path, &parts)?)?;
    }
    let mut group = ShareGroup::new();
    group.epoch = record.epoch;
    group.assignment_epoch = record.assignment_epoch;
    for (topic_id, partitions) in record.initialized {
        let shares = group.shares.entry(topic_id).or_default();
        shares.initialized = partitions.into_iter().collect();
    }
    for (topic_id, partitions) in record.deleting {
        let shares = group.shares.entry(topic_id).or_default();
        shares.deleting = partitions.into_iter().collect();
    }
    for (topic_id, met_with) in record.met {
        let shares = group.shares.entry(topic_id).or_default();
        shares.met_with = met_with.first().copied();
    }
    group.sessions_until_ms = session_until_ms;
    for member in record.members {
        let topics = member.topics.iter().map(String::len);
        let names = stored.id.len() + member.member_id.len() + member.client_id.len();
        let rack = member.rack.as_ref().map_or(0, String::len);
        let bytes = member_bytes(names + rack + topics.sum::<usize>());
        let target = partitions_of(member.target);
        let read = ShareMember {
            client_id: member.client_id,
            client_host: member.client_host,
            rack: member.rack,
            topics: member.topics.into_iter().collect(),
            epoch: record.assignment_epoch,
            previous_epoch: -1,
            is_epoch_known: false,
            assigned: target.clone(),
            target,
            session_until_ms,
            reserved: Some(memory.reserve_anyway(bytes)),
        };
        group.members.insert(member.member_id, read);
    }
    Ok((group, found.parts()))
}

fn partitions_of(partitions: Vec<(Uuid, Vec<i32>)>) -> Partitions {
    let topics = partitions.into_iter();
    topics
        .map(|(id, partitions)| (id, partitions.into_iter().collect()))
        .collect()
}
