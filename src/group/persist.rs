//! Groups and offsets as nodes of the coordination tree, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use super::classic::{ClassicGroup, State};
use super::consumer::{self, CONSUMER_TYPE, GroupSettings};
use super::group::{HostedConsumerGroup, Members};
use super::hosted_record::{HostedShareGroup, HostedStreamsGroup};
use super::limits::{OFFSET_OVERHEAD_BYTES, kept_bytes, member_bytes};
use super::member::Member;
use super::messages::{CommittedOffset, JoinRequest};
use super::offsets::{Committed, Key, Offsets, WriteNumber};
use super::pending::{Pending, PendingByProducer};
use super::record;
use super::reserved::GroupMemory;
use super::share::{self, SHARE_TYPE};
use super::solo::group_of;
use super::streams::{self, STREAMS_TYPE};
use super::subscription::{assigned_partitions, subscribed_topics};
use crate::coordinator::{Parts, StoredId, Topics};
use crate::meta::paths::GroupNode;
use crate::meta::records::{
    GroupRecord, MemberIdRecord, MemberRecord, OffsetRecord, PendingOffsetRecord,
    PendingOffsetsRecord, RECORD_VERSION, decode, encode,
};
use crate::meta::{MetaError, Op, paths};

/// The steps that store a group with its members and owners; with the number of the write.
pub(super) fn group_ops(
    group_id: &str,
    group: &ClassicGroup,
    parts: &mut Parts,
    topics: &dyn Topics,
) -> (Vec<Op>, u64) {
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
        parts: None,
    };
    let (mut ops, number) = record::write(parts, group_id, &record);
    ops.push(Op::delete_tree(paths::group_ids(group_id)));
    ops.push(Op::delete_tree(paths::group_owners(group_id)));
    ops.extend(member_ops(group_id, group));
    for (path, member_id) in owners(group_id, group, topics) {
        ops.push(Op::put(path, Bytes::from(member_id.to_owned())));
    }
    (ops, number)
}

/// Whose each partition is, by the path that shows it. An assignment may name one as often as it has room for.
fn owners<'a>(
    group_id: &str,
    group: &'a ClassicGroup,
    topics: &dyn Topics,
) -> BTreeMap<String, &'a str> {
    let mut owners = BTreeMap::new();
    for member in group.members.values() {
        let assignment = group.assignment_to_store(member);
        for (topic, partitions) in assigned_partitions(&assignment).unwrap_or_default() {
            for partition in partitions.into_iter().collect::<BTreeSet<i32>>() {
                if let Some(found) = topics.partition(&topic, partition) {
                    let path = paths::group_owner(group_id, &topic, &found.identity);
                    owners.insert(path, &*member.id);
                }
            }
        }
    }
    owners
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
            .map(|(name, metadata)| (name.clone(), HEXLOWER.encode(metadata)))
            .collect(),
        assignment: HEXLOWER.encode(&group.assignment_to_store(member)),
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

/// What an offset takes in memory, bytes, roughly: here, and as a node of the tree.
pub(super) fn offset_bytes(group_id: &str, topic: &str, offset: &CommittedOffset) -> usize {
    OFFSET_OVERHEAD_BYTES + 2 * topic.len() + 3 * (offset.metadata.len() + group_id.len())
}

/// The steps that store offsets, each of a partition with an identity.
pub(super) fn offset_ops(
    group_id: &str,
    number: Option<WriteNumber>,
    offsets: &[(Key, Committed)],
    identities: &[String],
) -> Vec<Op> {
    let with_identity = offsets.iter().zip(identities);
    let op = |(((topic, _), committed), identity): (&(Key, Committed), &String)| {
        offset_op(group_id, topic, identity, number, committed.offset())
    };
    with_identity.map(op).collect()
}

/// The step that stores one.
pub(super) fn offset_op(
    group_id: &str,
    topic: &str,
    identity: &str,
    number: Option<WriteNumber>,
    offset: &CommittedOffset,
) -> Op {
    let path = paths::group_offset(group_id, topic, identity);
    Op::put(path, encode(&offset_record(number, offset)))
}

/// An offset as it is stored.
pub(super) fn offset_record(number: Option<WriteNumber>, offset: &CommittedOffset) -> OffsetRecord {
    OffsetRecord {
        version: RECORD_VERSION,
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata.clone(),
        commit_ms: offset.commit_ms,
        expire_ms: offset.expire_ms,
        topic_id: offset.topic_id,
        number,
    }
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
    pub(super) members: Members,
    /// Of the record of a classic group.
    pub(super) parts: Parts,
    pub(super) offsets: Offsets,
    pub(super) pending: PendingByProducer,
    /// Whose transactions those are of, with their epochs.
    pub(super) producers: Vec<(i64, i16)>,
    /// Offsets of partitions that are not known.
    pub(super) unresolved: usize,
    /// The highest number of a write that is stored.
    pub(super) last_number: WriteNumber,
}

/// Reads a group from its nodes. A node that cannot be read is ignored: such a group begins without members, such an offset
/// is unknown.
pub(super) fn load(
    stored: &StoredId,
    (settings, topics): (&dyn GroupSettings, &dyn Topics),
    (of_members, memory): (&Arc<GroupMemory>, &Arc<GroupMemory>),
    now_ms: i64,
) -> LoadedGroup {
    let (members, parts) = load_members(stored, (settings, topics), of_members, now_ms);
    let mut loaded = LoadedGroup {
        members,
        parts,
        offsets: Offsets::default(),
        pending: PendingByProducer::default(),
        producers: Vec::new(),
        unresolved: 0,
        last_number: 0,
    };
    let mut pending = Vec::new();
    for (path, node) in &stored.nodes {
        let (topic, identity) = match paths::group_node(path) {
            Some(GroupNode::Offset { topic, identity }) => (topic, identity),
            Some(GroupNode::Pending { producer_id, n }) => {
                match decode::<PendingOffsetsRecord>(path, &node.data) {
                    Ok(record) => pending.push((producer_id, n, record)),
                    Err(error) => tracing::error!(%error, "offsets of a transaction are ignored"),
                }
                continue;
            }
            _ => continue,
        };
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
            let number = loaded.number_of(&record);
            let offset = offset_from(record);
            let bytes = offset_bytes(&stored.id, &topic, &offset);
            let committed = Committed::new(offset, memory.reserve_anyway(bytes));
            loaded
                .offsets
                .restore((topic, partition), number, committed);
        } else {
            // Of an earlier topic, or of a later one that is not known here yet.
            loaded.unresolved += 1;
        }
    }
    // The latest offset of a partition is in the part with the highest number.
    pending.sort_unstable_by_key(|(producer_id, n, _)| (*producer_id, *n));
    for (producer_id, n, record) in pending {
        loaded.restore_pending((producer_id, n), record, stored, topics, memory);
    }
    loaded
}

/// The members of a group, by its protocol.
fn load_members(
    stored: &StoredId,
    (settings, topics): (&dyn GroupSettings, &dyn Topics),
    memory: &Arc<GroupMemory>,
    now_ms: i64,
) -> (Members, Parts) {
    let nobody = |error: MetaError| {
        tracing::error!(%error, "the group begins without members");
        Members::Classic(Box::new(ClassicGroup::new(now_ms)))
    };
    if record::type_of(stored).as_deref() == Some(SHARE_TYPE) {
        let settings = settings.share(&stored.id);
        let until_ms = now_ms + i64::from(settings.session_timeout_ms);
        return match share::load(stored, until_ms, memory) {
            Ok((group, parts)) => {
                let hosted = HostedShareGroup::new(group, parts);
                (Members::Share(hosted), Parts::default())
            }
            Err(error) => (nobody(error), Parts::default()),
        };
    }
    if record::type_of(stored).as_deref() == Some(STREAMS_TYPE) {
        let settings = settings.streams(&stored.id);
        return match streams::load(stored, &settings, memory, now_ms) {
            Ok((group, parts)) => {
                let hosted = HostedStreamsGroup::new(group, parts);
                (Members::Streams(hosted), Parts::default())
            }
            Err(error) => (nobody(error), Parts::default()),
        };
    }
    if record::type_of(stored).as_deref() == Some(CONSUMER_TYPE) {
        let settings = settings.consumer(group_of(&stored.id).unwrap_or(&stored.id));
        return match consumer::load(stored, (&settings, topics), memory, now_ms) {
            Ok((group, nodes)) => {
                let hosted = HostedConsumerGroup::new(group, nodes);
                (Members::Consumer(hosted), Parts::default())
            }
            Err(error) => (nobody(error), Parts::default()),
        };
    }
    let (record, parts) = record::read(stored);
    let group = record.and_then(|record| match record {
        Some(record) => group_from(record, (&stored.id, memory), now_ms),
        None => Ok(ClassicGroup::new(now_ms)),
    });
    let members = group.map(|group| Members::Classic(Box::new(group)));
    (members.unwrap_or_else(nobody), parts)
}

impl LoadedGroup {
    /// The number of the write that stored an offset, 0 where it is not stored.
    fn number_of(&mut self, record: &OffsetRecord) -> WriteNumber {
        let number = record.number.unwrap_or(0);
        self.last_number = self.last_number.max(number);
        number
    }

    fn restore_pending(
        &mut self,
        (producer_id, n): (i64, u64),
        record: PendingOffsetsRecord,
        stored: &StoredId,
        topics: &dyn Topics,
        memory: &Arc<GroupMemory>,
    ) {
        let mut offsets = Vec::with_capacity(record.offsets.len());
        for PendingOffsetRecord {
            topic,
            partition,
            offset,
        } in record.offsets
        {
            let Some(index) = topics.index_of(&topic, &partition) else {
                self.unresolved += 1;
                continue;
            };
            let number = self.number_of(&offset);
            let offset = offset_from(offset);
            if offset
                .topic_id
                .is_some_and(|id| topics.id_of(&topic) != Some(id))
            {
                self.unresolved += 1;
                continue;
            }
            let bytes = offset_bytes(&stored.id, &topic, &offset);
            let committed = Committed::new(offset, memory.reserve_anyway(bytes));
            offsets.push(((topic, index), Pending { number, committed }));
        }
        self.pending.restore((producer_id, n), offsets);
        self.producers.push((producer_id, record.producer_epoch));
    }
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

fn group_from(
    record: GroupRecord,
    (group_id, memory): (&str, &Arc<GroupMemory>),
    now_ms: i64,
) -> Result<ClassicGroup, MetaError> {
    let mut group = ClassicGroup::new(now_ms);
    group.generation = record.generation;
    group.protocol_type = record.protocol_type.clone();
    group.protocol = record.protocol;
    group.leader = record.leader;
    group.changed_ms = record.changed_ms;
    let bytes = |digits: &str| {
        let malformed = || MetaError::Malformed {
            path: paths::group(group_id),
            what: "not hexadecimal".to_owned(),
        };
        let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
        bytes.map(Bytes::from).map_err(|_| malformed())
    };
    for stored in record.members {
        let mut protocols = Vec::with_capacity(stored.protocols.len());
        for (name, metadata) in stored.protocols {
            protocols.push((name, bytes(&metadata)?));
        }
        let texts = protocols.iter().map(|(name, data)| name.len() + data.len());
        let names = [group_id, &stored.member_id, &stored.client_id];
        let names = names.map(str::len).into_iter().sum::<usize>()
            + record.protocol_type.as_ref().map_or(0, String::len)
            + stored.instance_id.as_ref().map_or(0, String::len);
        let share = memory.reserve_anyway(member_bytes(texts.sum::<usize>() + names));
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
            connection: None,
            reserved: Some(share),
        };
        let mut member = Member::new(stored.member_id, 0, &request);
        let assignment = bytes(&stored.assignment)?;
        let share = memory.reserve_anyway(kept_bytes(assignment.len()));
        member.assign(assignment, Some(share));
        group.restore(member, now_ms);
    }
    group.state = if group.members.is_empty() {
        State::Empty
    } else {
        State::Stable
    };
    Ok(group)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::group::testing::{OneTopic, TOPIC_ID, fixed_settings};
    use crate::meta::Node;

    fn member(id: &str) -> Member {
        let request = JoinRequest {
            member_id: id.to_owned(),
            instance_id: Some(format!("i-{id}")),
            client_id: "c".to_owned(),
            client_host: "/h".to_owned(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(b"\x00\x01"))],
            member_id_required: false,
            can_skip_assignment: false,
            reason: String::new(),
            connection: None,
            reserved: None,
        };
        let mut member = Member::new(id.to_owned(), 0, &request);
        // One topic, `t`, with partition 2.
        let assignment = b"\0\0\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x02";
        member.assignment = Bytes::from_static(assignment);
        member
    }

    fn group() -> ClassicGroup {
        let mut group = ClassicGroup::new(5);
        group.generation = 7;
        group.protocol_type = Some("consumer".to_owned());
        group.protocol = Some("range".to_owned());
        group.leader = Some("a".to_owned());
        group.restore(member("a"), 5);
        group
    }

    fn offset(topic_id: Uuid) -> CommittedOffset {
        CommittedOffset {
            offset: 42,
            leader_epoch: 3,
            metadata: "m".to_owned(),
            commit_ms: 9,
            expire_ms: Some(99),
            topic_id: Some(topic_id),
        }
    }

    fn offset_of(partition: i32, topic_id: Uuid) -> Op {
        offset_op("g", "t", &format!("0-{partition}"), None, &offset(topic_id))
    }

    /// What these operations leave of the group `g`.
    fn stored(ops: Vec<Op>) -> StoredId {
        let node = |op| match op {
            Op::Put { path, data, .. } => {
                let node = Node {
                    data,
                    version: 0,
                    ephemeral: false,
                };
                Some((path, node))
            }
            _ => None,
        };
        StoredId {
            id: "g".to_owned(),
            nodes: ops.into_iter().filter_map(node).collect(),
        }
    }

    #[test]
    fn a_group_is_read_as_it_was_stored() {
        let before = group();
        let (mut ops, _) = group_ops("g", &before, &mut Parts::default(), &OneTopic);
        let owner = paths::group_owner("g", "t", "0-2");
        assert!(ops.contains(&Op::put(owner, Bytes::from_static(b"a"))));
        ops.push(offset_of(1, TOPIC_ID));
        let members = GroupMemory::new(usize::MAX);
        let loaded = load(
            &stored(ops),
            (&*fixed_settings(), &OneTopic),
            (&members, &GroupMemory::new(usize::MAX)),
            1000,
        );
        let bytes = member_bytes("grangecai-aconsumer".len() + 2) + kept_bytes(17);
        assert_eq!(members.taken(), bytes);
        assert_eq!(loaded.unresolved, 0);
        assert_eq!(loaded.offsets.get("t", 1), Some(&offset(TOPIC_ID)));
        let Members::Classic(group) = loaded.members else {
            panic!("a classic group");
        };
        assert_eq!((group.state, group.generation), (State::Stable, 7));
        assert_eq!(group.leader, before.leader);
        assert_eq!(group.describe().members[0].client_id, "c");
        let (now, then) = (&group.members["a"], &before.members["a"]);
        assert_eq!(now.protocols, then.protocols);
        assert_eq!(now.assignment, then.assignment);
        assert_eq!(group.instances["i-a"], "a");
        // Alive for a session timeout from now on.
        assert_eq!(group.next_deadline(), Some(11_000));
    }

    #[test]
    fn a_partition_that_an_assignment_names_often_is_stored_once() {
        let mut group = group();
        let mut assignment = b"\0\0\0\0\0\x01\0\x01t\0\0\x40\0".to_vec();
        assignment.extend([0, 0, 0, 2].repeat(0x4000));
        for member in group.members.values_mut() {
            member.assignment = Bytes::from(assignment.clone());
        }
        let (ops, _) = group_ops("g", &group, &mut Parts::default(), &OneTopic);
        assert!(ops.len() < 10, "{}", ops.len());
        let owner = paths::group_owner("g", "t", "0-2");
        assert!(ops.contains(&Op::put(owner, Bytes::from_static(b"a"))));
    }

    #[test]
    fn offsets_of_an_earlier_topic_of_the_name_and_of_unknown_partitions_are_not_loaded() {
        let of_earlier = offset_of(1, Uuid::from_u128(77));
        let ops = vec![of_earlier, offset_of(9, TOPIC_ID)];
        let loaded = load(
            &stored(ops),
            (&*fixed_settings(), &OneTopic),
            (&GroupMemory::new(usize::MAX), &GroupMemory::new(usize::MAX)),
            0,
        );
        assert_eq!(loaded.offsets.len(), 0);
        // Perhaps only this broker does not know of them yet.
        assert_eq!(loaded.unresolved, 2);
    }

    #[test]
    fn nodes_that_cannot_be_read_leave_the_others_alone() {
        let damaged = Bytes::from_static(b"{");
        let ops = vec![
            Op::put(paths::group("g"), damaged.clone()),
            Op::put(paths::group_offset("g", "t", "0-0"), damaged),
            offset_of(1, TOPIC_ID),
        ];
        let loaded = load(
            &stored(ops),
            (&*fixed_settings(), &OneTopic),
            (&GroupMemory::new(usize::MAX), &GroupMemory::new(usize::MAX)),
            0,
        );
        assert!(matches!(&loaded.members, Members::Classic(classic) if classic.is_empty()));
        assert_eq!(loaded.offsets.len(), 1);
    }
}
