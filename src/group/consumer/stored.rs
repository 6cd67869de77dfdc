//! A consumer group as nodes of the coordination tree, and back: a small head with the epochs, and a node for each member. A
//! write removes members first, then puts them, then the head: where it stops in the middle, [`load`] finds that and has the
//! target made anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use uuid::Uuid;

use super::member::ClassicProtocol;
use super::partitions::{Assigned, Partitions};
use super::settings::ConsumerSettings;
use super::{ConsumerGroup, ConsumerMember, MemberState, Reads, Unstored};
use crate::coordinator::{FoundRecord, Parts, StoredId, Topics};
use crate::group::limits::{ASSIGNED_BYTES, member_bytes};
use crate::group::reserved::GroupMemory;
use crate::meta::consumer_records::{
    ClassicProtocolRecord, ConsumerGroupRecord, ConsumerMemberRecord, MemberPartitionsRecord,
    TopicPartitionsRecord,
};
use crate::meta::paths::{self, GroupNode};
use crate::meta::records::{RECORD_VERSION, decode, encode};
use crate::meta::{MetaError, Op};

/// The type in a head.
pub(in crate::group) const CONSUMER_TYPE: &str = "consumer";

/// What is known of the nodes of a consumer group.
#[derive(Debug, Default)]
pub(in crate::group) struct StoredConsumerGroup {
    /// Of the head; of a classic group before.
    pub(in crate::group) head: Parts,
    /// Of members that have some.
    members: HashMap<String, Parts>,
}

/// Which parts a write leaves.
#[derive(Debug, Default)]
pub(in crate::group) struct WrittenParts {
    head: Option<u64>,
    members: Vec<(String, u64)>,
}

impl StoredConsumerGroup {
    /// The head comes in the place of a classic group's record, which was stored in these parts.
    pub(in crate::group) fn instead_of(head: Parts) -> Self {
        Self {
            head,
            members: HashMap::new(),
        }
    }

    /// The steps that store what changed, in order, each entry in one multi.
    pub(in crate::group) fn write(
        &mut self,
        group_id: &str,
        group: &ConsumerGroup,
        unstored: &Unstored,
        topics: &dyn Topics,
    ) -> (Vec<Vec<Op>>, WrittenParts) {
        let mut written = WrittenParts::default();
        let mut steps = Vec::new();
        let (there, gone): (Vec<&String>, Vec<&String>) = unstored
            .members
            .iter()
            .partition(|id| group.members.contains_key(*id));
        for id in gone {
            let path = paths::consumer_member(group_id, id);
            steps.push(vec![Op::delete_tree(path)]);
            self.members.remove(id);
        }
        for key in &unstored.owners {
            steps.extend(owner_op(group_id, group, *key, topics).map(|op| vec![op]));
        }
        for id in there {
            if let Some(member) = group.members.get(id) {
                let path = paths::consumer_member(group_id, id);
                let (ops, number) = self.member_ops(&path, member, topics);
                written.members.push((id.clone(), number));
                steps.push(ops);
            }
        }
        if unstored.head {
            let head = ConsumerGroupRecord {
                version: RECORD_VERSION,
                group_type: CONSUMER_TYPE.to_owned(),
                epoch: group.epoch,
                assignment_epoch: group.assignment_epoch,
                topics_hash: format!("{:016x}", group.subscriptions.hash),
                changed_ms: group.changed_ms,
                members: group.members.len(),
            };
            let path = paths::group(group_id);
            let (ops, number) = self.head.write(&path, |_| encode(&head), Bytes::new);
            written.head = Some(number);
            steps.push(ops);
        }
        (steps, written)
    }

    fn member_ops(
        &mut self,
        path: &str,
        member: &ConsumerMember,
        topics: &dyn Topics,
    ) -> (Vec<Op>, u64) {
        let record = member_record(member, topics);
        let parts = self.members.entry(member.id.clone()).or_default();
        let node = |parts| match parts {
            None => encode(&record),
            parts => encode(&ConsumerMemberRecord {
                partitions: MemberPartitionsRecord::default(),
                parts,
                ..record.clone()
            }),
        };
        parts.write(path, node, || encode(&record.partitions))
    }

    /// A write is stored.
    pub(in crate::group) fn stored(&mut self, written: WrittenParts) {
        if let Some(number) = written.head {
            self.head.stored(number);
        }
        for (id, number) in written.members {
            if let Some(parts) = self.members.get_mut(&id) {
                parts.stored(number);
                if parts.is_empty() {
                    self.members.remove(&id);
                }
            }
        }
    }
}

/// The step that shows whose a partition is; `None` where it is not known any more.
fn owner_op(
    group_id: &str,
    group: &ConsumerGroup,
    (topic, partition): (Uuid, i32),
    topics: &dyn Topics,
) -> Option<Op> {
    let name = topics.name_of(topic)?;
    let found = topics.partition(&name, partition)?;
    let path = paths::group_owner(group_id, &name, &found.identity);
    Some(match group.owner_of(topic, partition) {
        Some(owner) => Op::put(path, Bytes::from(owner.to_owned())),
        None => Op::delete_tree(path),
    })
}

/// The step that removes everything that a group of another protocol does not have.
pub(in crate::group) fn remove_ops(group_id: &str) -> Vec<Op> {
    vec![
        Op::delete_tree(paths::consumer_members(group_id)),
        Op::delete_tree(paths::group_owners(group_id)),
        Op::delete_tree(paths::group_ids(group_id)),
    ]
}

fn member_record(member: &ConsumerMember, topics: &dyn Topics) -> ConsumerMemberRecord {
    let classic = member
        .classic
        .as_ref()
        .map(|classic| ClassicProtocolRecord {
            session_timeout_ms: classic.session_timeout_ms,
            protocols: classic
                .protocols
                .iter()
                .map(|(name, metadata)| (name.clone(), HEXLOWER.encode(metadata)))
                .collect(),
        });
    ConsumerMemberRecord {
        version: RECORD_VERSION,
        member_id: member.id.clone(),
        epoch: member.epoch,
        previous_epoch: member.previous_epoch,
        state: member.state.name().to_owned(),
        instance_id: member.instance_id.clone(),
        rack_id: member.rack_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        topics: member.reads.topics.iter().cloned().collect(),
        regex: member.reads.regex.clone(),
        assignor: member.reads.assignor.clone(),
        classic,
        target_epoch: member.target_epoch,
        partitions: MemberPartitionsRecord {
            assigned: assigned_records(&member.assigned, topics),
            revoking: assigned_records(&member.revoking, topics),
            target: target_records(&member.target, topics),
        },
        parts: None,
    }
}

fn assigned_records(assigned: &Assigned, topics: &dyn Topics) -> Vec<TopicPartitionsRecord> {
    let of = |(topic, partitions): (&Uuid, &BTreeMap<i32, i32>)| {
        let numbers = partitions.iter().map(|(n, epoch)| (*n, Some(*epoch)));
        topic_record(*topic, numbers, topics)
    };
    assigned.0.iter().map(of).collect()
}

fn target_records(target: &Partitions, topics: &dyn Topics) -> Vec<TopicPartitionsRecord> {
    let of = |(topic, partitions): (&Uuid, &BTreeSet<i32>)| {
        topic_record(*topic, partitions.iter().map(|n| (*n, None)), topics)
    };
    target.iter().map(of).collect()
}

fn topic_record(
    topic_id: Uuid,
    numbers: impl Iterator<Item = (i32, Option<i32>)>,
    topics: &dyn Topics,
) -> TopicPartitionsRecord {
    TopicPartitionsRecord {
        topic: topics.name_of(topic_id).unwrap_or_default(),
        topic_id,
        partitions: ranges(numbers),
    }
}

/// Numbers in order, each with an epoch or none, as text.
fn ranges(numbers: impl Iterator<Item = (i32, Option<i32>)>) -> String {
    let mut runs: Vec<(i32, i32, Option<i32>)> = Vec::new();
    for (n, epoch) in numbers {
        match runs.last_mut() {
            Some((_, last, of)) if *last + 1 == n && *of == epoch => *last = n,
            _ => runs.push((n, n, epoch)),
        }
    }
    let text = |(first, last, epoch): (i32, i32, Option<i32>)| {
        let range = match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        epoch.map_or(range.clone(), |epoch| format!("{range}@{epoch}"))
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(" ")
}

/// More partitions than any topic has are none.
const RANGE_MAX: i32 = 1_000_000;

/// The numbers of such a text.
fn numbers(text: &str) -> Option<Vec<(i32, Option<i32>)>> {
    let mut all = Vec::new();
    for run in text.split_ascii_whitespace() {
        let (range, epoch) = match run.split_once('@') {
            Some((range, epoch)) => (range, Some(epoch.parse().ok()?)),
            None => (run, None),
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
        if first < 0 || last < first || last - first > RANGE_MAX {
            return None;
        }
        all.extend((first..=last).map(|n| (n, epoch)));
    }
    Some(all)
}

/// Reads a group from its nodes. A member that cannot be read is left out: it joins again.
pub(in crate::group) fn load(
    stored: &StoredId,
    (settings, topics): (&ConsumerSettings, &dyn Topics),
    memory: &Arc<GroupMemory>,
    now_ms: i64,
) -> Result<(ConsumerGroup, StoredConsumerGroup), MetaError> {
    let path = paths::group(&stored.id);
    let found = FoundRecord::among(&path, stored);
    let mut group = ConsumerGroup::new(now_ms);
    let mut nodes = StoredConsumerGroup {
        head: found.parts(),
        ..StoredConsumerGroup::default()
    };
    let (mut torn, mut members) = (false, None);
    if let Some(data) = found.node {
        let head: ConsumerGroupRecord = decode(&path, data)?;
        (group.epoch, group.assignment_epoch) = (head.epoch, head.assignment_epoch);
        group.subscriptions.hash = u64::from_str_radix(&head.topics_hash, 16).unwrap_or(0);
        group.changed_ms = head.changed_ms;
        members = Some(head.members);
    }
    for (id, of_member) in by_member(stored) {
        match load_member(&stored.id, &id, &of_member, topics) {
            Ok((mut member, parts)) => {
                let bytes = member_bytes(stored.id.len() + brought_bytes(&member));
                member.reserved = Some(memory.reserve_anyway(bytes));
                if !parts.is_empty() {
                    nodes.members.insert(id, parts);
                }
                torn |= group.restore(member);
            }
            Err(error) => {
                tracing::error!(%error, "the member is left out of its group");
                torn = true;
                group.unstored.members.insert(id);
            }
        }
    }
    let partitions: usize = group.members.values().map(assigned_count).sum();
    group.of_partitions = Some(memory.reserve_anyway(partitions * ASSIGNED_BYTES));
    torn |= members.is_some_and(|members| members != group.members.len());
    group.settle_loaded(torn, now_ms, settings, topics);
    Ok((group, nodes))
}

/// Partitions that a member has, or is to have.
fn assigned_count(member: &ConsumerMember) -> usize {
    let target = member.target.values().map(BTreeSet::len).sum();
    member.assigned.iter().count().max(target)
}

/// What a member brought, its names among it, bytes.
fn brought_bytes(member: &ConsumerMember) -> usize {
    let texts = [
        &member.instance_id,
        &member.rack_id,
        &member.reads.regex,
        &member.reads.assignor,
    ];
    let texts = texts.into_iter().flatten().map(String::len);
    let topics = member.reads.topics.iter().map(String::len);
    let classic = member.classic.iter().flat_map(|classic| &classic.protocols);
    let protocols = classic.map(|(name, metadata)| name.len() + metadata.len());
    let names = member.id.len() + member.client_id.len();
    names + texts.chain(topics).chain(protocols).sum::<usize>()
}

/// The nodes at and below each member's.
fn by_member(stored: &StoredId) -> BTreeMap<String, StoredId> {
    let mut members: BTreeMap<String, StoredId> = BTreeMap::new();
    for (path, node) in &stored.nodes {
        if let Some(GroupNode::Member(id)) = paths::group_node(path) {
            let of_member = members.entry(id.clone()).or_insert_with(|| StoredId {
                id,
                nodes: Vec::new(),
            });
            of_member.nodes.push((path.clone(), node.clone()));
        }
    }
    members
}

fn load_member(
    group_id: &str,
    id: &str,
    stored: &StoredId,
    topics: &dyn Topics,
) -> Result<(ConsumerMember, Parts), MetaError> {
    let path = paths::consumer_member(group_id, id);
    let found = FoundRecord::among(&path, stored);
    let malformed = |what: &str| MetaError::Malformed {
        path: path.clone(),
        what: what.to_owned(),
    };
    let data = found.node.ok_or_else(|| malformed("no record"))?;
    let mut record: ConsumerMemberRecord = decode(&path, data)?;
    if let Some(parts) = record.parts.take() {
        record.partitions = decode(&path, &found.bulk(&path, &parts)?)?;
    }
    let state = MemberState::named(&record.state);
    let mut classic = None;
    if let Some(stored) = record.classic {
        let mut protocols = Vec::with_capacity(stored.protocols.len());
        for (name, metadata) in stored.protocols {
            let bytes = HEXLOWER_PERMISSIVE.decode(metadata.as_bytes());
            let bytes = bytes.map_err(|_| malformed("not hexadecimal"))?;
            protocols.push((name, Bytes::from(bytes)));
        }
        classic = Some(ClassicProtocol {
            session_timeout_ms: stored.session_timeout_ms,
            protocols,
        });
    }
    let has = |records: &[TopicPartitionsRecord]| {
        assigned_from(records, topics).ok_or_else(|| malformed("not partitions"))
    };
    let target = has(&record.partitions.target)?.partitions();
    let member = ConsumerMember {
        instance_id: record.instance_id,
        rack_id: record.rack_id,
        client_id: record.client_id,
        client_host: record.client_host,
        rebalance_timeout_ms: record.rebalance_timeout_ms,
        reads: Reads {
            topics: record.topics.into_iter().collect(),
            regex: record.regex,
            assignor: record.assignor,
        },
        classic,
        state: state.ok_or_else(|| malformed("an unknown state"))?,
        epoch: record.epoch,
        previous_epoch: record.previous_epoch,
        assigned: has(&record.partitions.assigned)?,
        revoking: has(&record.partitions.revoking)?,
        target,
        target_epoch: record.target_epoch,
        ..ConsumerMember::new(id.to_owned())
    };
    Ok((member, found.parts()))
}

/// Of topics that exist.
fn assigned_from(records: &[TopicPartitionsRecord], topics: &dyn Topics) -> Option<Assigned> {
    let mut assigned = Assigned::default();
    for record in records {
        let numbers = numbers(&record.partitions)?;
        if topics.name_of(record.topic_id).is_some() {
            for (n, epoch) in numbers {
                assigned.insert(record.topic_id, n, epoch.unwrap_or(0));
            }
        }
    }
    Some(assigned)
}

impl ConsumerGroup {
    /// Puts in a member that was stored; whether a write of the group had stopped in the middle.
    fn restore(&mut self, member: ConsumerMember) -> bool {
        let mut torn = member.target_epoch > self.assignment_epoch;
        if let Some(instance) = &member.instance_id
            && let Some(other) = self.instances.get(instance).cloned()
        {
            // The one that was to replace the other was told nothing yet.
            tracing::warn!(instance, "two members of one instance id: the first stays");
            self.unstored.members.insert(member.id);
            debug_assert!(self.members.contains_key(&other));
            return true;
        }
        let reads = member.reads.clone();
        let mut member = member;
        torn |= self.take_back_doubles(&mut member);
        self.own(&[], &member);
        self.unstored.owners.clear();
        self.put_unchanged(member);
        self.reads(None, &reads);
        torn
    }

    /// A partition that two members have: the one that has it longer was told so, the other one not yet.
    fn take_back_doubles(&mut self, member: &mut ConsumerMember) -> bool {
        let has = Self::partitions_of(member);
        let mut torn = false;
        for (topic, partition) in has {
            let Some(other) = self.owners.get(&(topic, partition)).cloned() else {
                continue;
            };
            torn = true;
            let since = |of: &ConsumerMember| {
                let since = of.assigned.epoch_of(topic, partition);
                since.or(of.revoking.epoch_of(topic, partition))
            };
            let theirs = self.members.get(&other).and_then(since);
            let is_ours = since(member) < theirs;
            let loser = match is_ours {
                true => self.members.get_mut(&other),
                false => Some(&mut *member),
            };
            if let Some(loser) = loser {
                loser.assigned.remove(topic, partition);
                loser.revoking.remove(topic, partition);
                if loser.revoking.is_empty() {
                    loser.state = MemberState::UnreleasedPartitions;
                }
                self.unstored.members.insert(loser.id.clone());
            }
            if is_ours {
                self.owners.remove(&(topic, partition));
            }
        }
        torn
    }

    /// All members are in: they live for a session timeout from now on, and epochs are above all that were told.
    fn settle_loaded(
        &mut self,
        torn: bool,
        now_ms: i64,
        settings: &ConsumerSettings,
        topics: &dyn Topics,
    ) {
        let epochs = self.members.values();
        let told = epochs.flat_map(|member| [member.epoch, member.target_epoch]);
        let highest = told.max().unwrap_or(0).max(self.assignment_epoch);
        let is_behind = self.epoch < highest;
        self.epoch = self.epoch.max(highest);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let classic = self.members.get(&id).and_then(|m| m.classic.as_ref());
            let timeout_ms = classic.map_or(settings.session_timeout_ms, |c| c.session_timeout_ms);
            self.heard(now_ms, &id, timeout_ms);
            if let Some(member) = self.members.get_mut(&id)
                && member.state == MemberState::UnrevokedPartitions
                && !member.is_classic()
            {
                let timeout_ms = i64::from(member.rebalance_timeout_ms.max(0));
                member.revocation_deadline_ms = Some(now_ms + timeout_ms);
            }
        }
        self.subscriptions.resolve_unchecked(now_ms, topics);
        let hash = self.subscriptions.hash;
        let look_different = self.subscriptions.look(topics) && hash != 0;
        if !self.members.is_empty() && (torn || is_behind || look_different) {
            self.bump_epoch("", "the coordinator changed while the group did");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_read_as_they_were_written() {
        let all = [(0, Some(5)), (1, Some(5)), (2, Some(6)), (7, Some(6))];
        assert_eq!(ranges(all.into_iter()), "0-1@5 2@6 7@6");
        assert_eq!(numbers("0-1@5 2@6 7@6").unwrap(), all);
        assert_eq!(ranges([(3, None), (4, None)].into_iter()), "3-4");
        assert_eq!(numbers("3-4").unwrap(), [(3, None), (4, None)]);
        assert_eq!(numbers("").unwrap(), []);
        for bad in ["x", "3-1", "-1", "1@", "0-2000000000"] {
            assert_eq!(numbers(bad), None, "{bad}");
        }
    }
}
