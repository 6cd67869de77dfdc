//! A streams group as a node of the coordination tree, and back.
//!
//! Tests: group/streams/tests.rs, group/streams/model.rs.

use std::sync::Arc;

use super::member::{Endpoint, MemberMetadata, MemberState, StreamsMember};
use super::messages::topology_bytes;
use super::tasks::{ActiveTasks, AssignedTasks, TargetTasks, TaskSet};
use super::{StreamsGroup, StreamsSettings, task_bytes};
use crate::coordinator::{FoundRecord, Parts, StoredId};
use crate::group::limits::{kept_bytes, member_bytes};
use crate::group::reserved::GroupMemory;
use crate::meta::records::{RECORD_VERSION, decode, encode};
use crate::meta::streams_records::{StreamsBulkRecord, StreamsGroupRecord, StreamsMemberRecord};
use crate::meta::{MetaError, Op, paths};

/// What the record of a streams group says it is.
pub(in crate::group) const STREAMS_TYPE: &str = "streams";

/// The steps that store a streams group, and the number of the write.
pub(in crate::group) fn ops(
    group_id: &str,
    group: &StreamsGroup,
    parts: &mut Parts,
) -> (Vec<Op>, u64) {
    let bulk = StreamsBulkRecord {
        topology: group.topology.clone(),
        members: group.members.values().map(member_record).collect(),
    };
    let node = |parts: Option<_>| {
        encode(&StreamsGroupRecord {
            version: RECORD_VERSION,
            group_type: STREAMS_TYPE.to_owned(),
            epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            validated_topology_epoch: group.validated_topology_epoch,
            topics_hash: format!("{:016x}", group.topics_hash),
            assignment_configs: group.assignment_configs.clone(),
            bulk: match parts {
                Some(_) => StreamsBulkRecord::default(),
                None => bulk.clone(),
            },
            parts,
        })
    };
    parts.write(&paths::group(group_id), node, || encode(&bulk))
}

fn member_record(member: &StreamsMember) -> StreamsMemberRecord {
    let said = &member.metadata;
    let endpoint = said.endpoint.as_ref();
    StreamsMemberRecord {
        member_id: member.id.clone(),
        epoch: member.epoch,
        previous_epoch: member.previous_epoch,
        state: member.state.name().to_owned(),
        instance_id: said.instance_id.clone(),
        rack: said.rack.clone(),
        client_id: said.client_id.clone(),
        client_host: said.client_host.clone(),
        rebalance_timeout_ms: said.rebalance_timeout_ms,
        topology_epoch: said.topology_epoch,
        process_id: said.process_id.clone(),
        endpoint: endpoint.map(|endpoint| (endpoint.host.clone(), endpoint.port)),
        client_tags: said.client_tags.clone(),
        active: member.assigned.active.0.clone(),
        standby: member.assigned.standby.lists(),
        revoking_active: member.revoking.active.0.clone(),
        revoking_standby: member.revoking.standby.lists(),
        target_active: member.target.active.lists(),
        target_standby: member.target.standby.lists(),
    }
}

/// Reads a streams group. Its members have their session timeout to report.
pub(in crate::group) fn load(
    stored: &StoredId,
    settings: &StreamsSettings,
    memory: &Arc<GroupMemory>,
    now_ms: i64,
) -> Result<(StreamsGroup, Parts), MetaError> {
    let path = paths::group(&stored.id);
    let found = FoundRecord::among(&path, stored);
    let mut group = StreamsGroup::new();
    let Some(node) = found.node else {
        return Ok((group, found.parts()));
    };
    let mut record: StreamsGroupRecord = decode(&path, node)?;
    if let Some(parts) = record.parts.take() {
        record.bulk = decode(&path, &found.bulk(&path, &parts)?)?;
    }
    group.epoch = record.epoch;
    group.assignment_epoch = record.assignment_epoch;
    group.validated_topology_epoch = record.validated_topology_epoch;
    group.topics_hash = u64::from_str_radix(&record.topics_hash, 16).unwrap_or(0);
    group.assignment_configs = record.assignment_configs;
    group.topology = record.bulk.topology;
    let of_topology = group.topology.as_ref().map(topology_bytes);
    group.reserved = of_topology.map(|bytes| memory.reserve_anyway(kept_bytes(bytes)));
    let until_ms = now_ms + i64::from(settings.session_timeout_ms);
    for record in record.bulk.members {
        let malformed = || MetaError::Malformed {
            path: path.clone(),
            what: "an unknown state of a member".to_owned(),
        };
        let state = MemberState::named(&record.state).ok_or_else(malformed)?;
        let mut member = member_from(record, state);
        let names = stored.id.len() + member.id.len() + member.metadata.client_id.len();
        let bytes = member_bytes(names + member.metadata.bytes());
        member.reserved.member = Some(memory.reserve_anyway(bytes));
        member.session_deadline_ms = until_ms;
        if member.state == MemberState::UnrevokedTasks {
            let timeout_ms = i64::from(member.metadata.rebalance_timeout_ms.max(0));
            member.revocation_deadline_ms = Some(now_ms + timeout_ms);
        }
        let nothing = AssignedTasks::default();
        group.holders.change(
            &member.id,
            [&nothing, &nothing],
            [&member.assigned, &member.revoking],
        );
        group.put(member);
    }
    let bytes = group.members.values().map(bytes_of_tasks).sum();
    group.of_tasks = Some(memory.reserve_anyway(bytes));
    Ok((group, found.parts()))
}

/// What the tasks take that a member has or is to have, bytes, roughly.
fn bytes_of_tasks(member: &StreamsMember) -> usize {
    let (own, target) = (&member.assigned, &member.target);
    let others = [&own.standby, &target.standby];
    let active = own.active.iter().map(|(name, ..)| name);
    let target = target.active.iter().map(|(name, _)| name);
    let others = others.into_iter().flat_map(TaskSet::iter);
    let names = active.chain(target).chain(others.map(|(name, _)| name));
    // Each is in the target and in what the member has.
    names.map(task_bytes).sum::<usize>() / 2
}

fn member_from(record: StreamsMemberRecord, state: MemberState) -> StreamsMember {
    let endpoint = record.endpoint;
    let metadata = MemberMetadata {
        instance_id: record.instance_id,
        rack: record.rack,
        client_id: record.client_id,
        client_host: record.client_host,
        rebalance_timeout_ms: record.rebalance_timeout_ms,
        topology_epoch: record.topology_epoch,
        process_id: record.process_id,
        endpoint: endpoint.map(|(host, port)| Endpoint { host, port }),
        client_tags: record.client_tags,
    };
    StreamsMember {
        metadata,
        state,
        epoch: record.epoch,
        previous_epoch: record.previous_epoch,
        assigned: AssignedTasks {
            active: ActiveTasks(record.active),
            standby: TaskSet::of(record.standby),
        },
        revoking: AssignedTasks {
            active: ActiveTasks(record.revoking_active),
            standby: TaskSet::of(record.revoking_standby),
        },
        target: TargetTasks {
            active: TaskSet::of(record.target_active),
            standby: TaskSet::of(record.target_standby),
        },
        ..StreamsMember::new(record.member_id)
    }
}
