//! Groups and offsets as nodes of the coordination tree, and back.

use bytes::Bytes;

use super::classic::{ClassicGroup, State};
use super::member::Member;
use super::messages::{CommittedOffset, JoinRequest};
use super::offsets::{Key, Offsets};
use super::subscription::{assigned_partitions, subscribed_topics};
use crate::coordinator::{StoredId, TopicPartition, Topics};
use crate::meta::paths::GroupNode;
use crate::meta::records::{
    GroupRecord, MemberIdRecord, MemberRecord, OffsetRecord, RECORD_VERSION, decode, encode,
    from_hex, to_hex,
};
use crate::meta::{MetaError, Op, paths};

/// The steps that store a group with its members and owners.
pub(super) fn group_ops(group_id: &str, group: &ClassicGroup, topics: &dyn Topics) -> Vec<Op> {
    let record = GroupRecord {
        version: RECORD_VERSION,
        group_type: "classic".to_owned(),
        generation: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol: group.protocol.clone(),
        leader: group.leader.clone(),
        changed_ms: group.changed_ms,
        members: group
            .members
            .values()
            .map(|member| member_record(group, member))
            .collect(),
    };
    let (ids, owners) = (paths::group_ids(group_id), paths::group_owners(group_id));
    let mut ops = vec![
        Op::put(paths::group(group_id), encode(&record)),
        Op::delete_tree(ids),
        Op::delete_tree(owners),
    ];
    ops.extend(member_ops(group_id, group));
    for member in group.members.values() {
        let assignment = group.assignment_to_store(member);
        for (topic, partitions) in assigned_partitions(&assignment).unwrap_or_default() {
            for partition in partitions {
                if let Some(found) = topics.partition(&topic, partition) {
                    let path = paths::group_owner(group_id, &topic, &found.identity);
                    ops.push(Op::put(path, Bytes::from(member.id.clone())));
                }
            }
        }
    }
    ops
}

fn member_record(group: &ClassicGroup, member: &Member) -> MemberRecord {
    MemberRecord {
        member_id: member.id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        session_timeout_ms: member.session_timeout_ms,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        protocols: member
            .protocols
            .iter()
            .map(|(name, metadata)| (name.clone(), to_hex(metadata)))
            .collect(),
        assignment: to_hex(&group.assignment_to_store(member)),
    }
}

/// The steps that show the members of a group.
pub(super) fn member_ops(group_id: &str, group: &ClassicGroup) -> Vec<Op> {
    let show = |member: &Member| {
        let subscription = group
            .protocol
            .as_deref()
            .and_then(|name| subscribed_topics(&member.metadata(name)));
        let id = MemberIdRecord {
            version: RECORD_VERSION,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            instance_id: member.instance_id.clone(),
            subscription: subscription.unwrap_or_default(),
        };
        Op::Put {
            path: paths::group_member(group_id, &member.id),
            data: encode(&id),
            ephemeral: true,
        }
    };
    group.members.values().map(show).collect()
}

/// The step that stores an offset.
pub(super) fn offset_op(
    group_id: &str,
    topic: &str,
    partition: &TopicPartition,
    offset: &CommittedOffset,
) -> Op {
    let record = OffsetRecord {
        version: RECORD_VERSION,
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata.clone(),
        commit_ms: offset.commit_ms,
        expire_ms: offset.expire_ms,
        topic_id: offset.topic_id,
    };
    let path = paths::group_offset(group_id, topic, &partition.identity);
    Op::put(path, encode(&record))
}

/// The step that removes an offset; `None` when the partition is not known (any more).
pub(super) fn remove_offset_op(
    group_id: &str,
    (topic, partition): &Key,
    topics: &dyn Topics,
) -> Option<Op> {
    let partition = topics.partition(topic, *partition)?;
    Some(Op::DeleteTree {
        path: paths::group_offset(group_id, topic, &partition.identity),
    })
}

/// The step that removes a group with all that belongs to it.
pub(super) fn remove_group_op(group_id: &str) -> Op {
    Op::DeleteTree {
        path: paths::group(group_id),
    }
}

/// A group that was found in the tree.
pub(super) struct LoadedGroup {
    pub(super) classic: ClassicGroup,
    pub(super) offsets: Offsets,
    /// Offsets of partitions that are not known.
    pub(super) unresolved: usize,
}

/// Reads a group from its nodes. What cannot be read is ignored: the group begins anew then, the offset is not there.
pub(super) fn load(stored: &StoredId, topics: &dyn Topics, now_ms: i64) -> LoadedGroup {
    let mut loaded = LoadedGroup {
        classic: ClassicGroup::new(now_ms),
        offsets: Offsets::default(),
        unresolved: 0,
    };
    for (path, node) in &stored.nodes {
        match paths::group_node(path) {
            Some(GroupNode::Group) if !node.data.is_empty() => {
                match decode(path, &node.data).and_then(|record| group_from(record, path, now_ms)) {
                    Ok(group) => loaded.classic = group,
                    Err(error) => tracing::error!(%error, "the group begins anew"),
                }
            }
            Some(GroupNode::Offset { topic, identity }) => {
                let Some(partition) = topics.index_of(&topic, identity) else {
                    loaded.unresolved += 1;
                    continue;
                };
                let record: OffsetRecord = match decode(path, &node.data) {
                    Ok(record) => record,
                    Err(error) => {
                        tracing::error!(%error, "the offset is ignored");
                        continue;
                    }
                };
                let current = topics.id_of(&topic);
                if record.topic_id.is_none_or(|id| current == Some(id)) {
                    loaded
                        .offsets
                        .restore((topic, partition), offset_from(record));
                }
            }
            _ => {}
        }
    }
    loaded
}

fn offset_from(record: OffsetRecord) -> CommittedOffset {
    CommittedOffset {
        offset: record.offset,
        leader_epoch: record.leader_epoch,
        metadata: record.metadata,
        commit_ms: record.commit_ms,
        expire_ms: record.expire_ms,
        topic_id: record.topic_id,
    }
}

fn group_from(record: GroupRecord, path: &str, now_ms: i64) -> Result<ClassicGroup, MetaError> {
    let mut group = ClassicGroup::new(now_ms);
    group.generation = record.generation;
    group.protocol_type = record.protocol_type.clone();
    group.protocol = record.protocol;
    group.leader = record.leader;
    group.changed_ms = record.changed_ms;
    let bytes = |digits: &str| {
        let malformed = || MetaError::Malformed {
            path: path.to_owned(),
            what: "not hexadecimal".to_owned(),
        };
        from_hex(digits).map(Bytes::from).ok_or_else(malformed)
    };
    for stored in record.members {
        let mut protocols = Vec::with_capacity(stored.protocols.len());
        for (name, metadata) in stored.protocols {
            protocols.push((name, bytes(&metadata)?));
        }
        let request = JoinRequest {
            member_id: stored.member_id.clone(),
            instance_id: stored.instance_id,
            client_id: stored.client_id,
            client_host: stored.client_host,
            session_timeout_ms: stored.session_timeout_ms,
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            protocol_type: record.protocol_type.clone().unwrap_or_default(),
            protocols,
            member_id_required: false,
            can_skip_assignment: false,
            reason: String::new(),
            reserved: None,
        };
        let mut member = Member::new(stored.member_id, 0, &request);
        member.assignment = bytes(&stored.assignment)?;
        group.restore(member, now_ms);
    }
    group.state = if group.members.is_empty() {
        State::Empty
    } else {
        State::Stable
    };
    Ok(group)
}
