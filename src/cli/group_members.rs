//! The members of a group of any protocol, as `metaq group` shows them.
//!
//! Tests: tests/shares_seen.rs, tests/broadcast.rs.

use std::collections::BTreeMap;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup as ConsumerGroup, Member as ConsumerMember,
};
use metaq_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use metaq_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use metaq_protocol::messages::share_group_describe_response::{
    DescribedGroup as ShareGroup, Member as ShareMember,
};
use metaq_protocol::messages::streams_group_describe_response::{
    DescribedGroup as StreamsGroup, Member as StreamsMember, TaskIds,
};
use metaq_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse,
    GroupId, ShareGroupDescribeRequest, ShareGroupDescribeResponse, StreamsGroupDescribeRequest,
    StreamsGroupDescribeResponse,
};
use metaq_protocol::protocol::StrBytes;
use serde::Serialize;

use super::Failure;
use super::client::Client;
use super::refused::check_right;
use crate::group::assigned_partitions;
use crate::security::Operation;

/// A group with its members.
pub(super) struct SeenGroup {
    /// `classic`, `consumer`, `share` or `streams`.
    pub(super) kind: &'static str,
    pub(super) state: String,
    /// The assignor; empty where there is none.
    pub(super) protocol: String,
    /// Of a consumer or streams group: the group epoch, and the one that the targets are of.
    pub(super) epochs: Option<(i32, i32)>,
    pub(super) members: Vec<SeenMember>,
}

/// A member.
#[derive(Serialize)]
pub(super) struct SeenMember {
    pub(super) member: String,
    pub(super) client: String,
    pub(super) host: String,
    /// Not of a classic group.
    pub(super) epoch: Option<i32>,
    pub(super) partitions: Vec<(String, Vec<i32>)>,
    /// Of a consumer or streams group: how many it is to have.
    pub(super) target: Option<usize>,
}

impl SeenMember {
    /// Its partitions.
    pub(super) fn keys(&self) -> impl Iterator<Item = (String, i32)> {
        let topics = self.partitions.iter();
        topics.flat_map(|(topic, all)| all.iter().map(|partition| (topic.clone(), *partition)))
    }

    pub(super) fn count(&self) -> usize {
        self.partitions.iter().map(|(_, all)| all.len()).sum()
    }
}

pub(super) fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

/// Fails where a broker refused an operation on a group.
pub(super) fn check_group(
    group: &str,
    refused: (i16, Option<&str>),
    operation: Operation,
) -> Result<(), Failure> {
    check_right(group, refused, (operation, &format!("group {group}")))
}

/// A group of any protocol.
pub(super) fn seen(client: &mut Client, group: &str) -> Result<SeenGroup, Failure> {
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
    let error_of = |response: &DescribeGroupsResponse| {
        response.groups.first().map_or(0, |group| group.error_code)
    };
    let answer = client.ask_coordinator(group, 6, &request, error_of)?;
    let none = "the broker did not answer for the group";
    let found = answer.groups.into_iter().next().ok_or(none)?;
    if found.error_code != ResponseError::GroupIdNotFound.code() {
        check_group(group, (found.error_code, None), Operation::Describe)?;
        return Ok(of_classic(found));
    }
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(group)]);
    let error_of = |response: &ConsumerGroupDescribeResponse| {
        response.groups.first().map_or(0, |group| group.error_code)
    };
    let answer = client.ask_coordinator(group, 1, &request, error_of)?;
    let found = answer.groups.into_iter().next().ok_or(none)?;
    if found.error_code != ResponseError::GroupIdNotFound.code() {
        let refused = (found.error_code, found.error_message.as_deref());
        check_group(group, refused, Operation::Describe)?;
        return Ok(of_consumer(found));
    }
    let request = ShareGroupDescribeRequest::default().with_group_ids(vec![group_id(group)]);
    let error_of = |response: &ShareGroupDescribeResponse| {
        response.groups.first().map_or(0, |group| group.error_code)
    };
    let answer = client.ask_coordinator(group, 1, &request, error_of)?;
    let found = answer.groups.into_iter().next().ok_or(none)?;
    if found.error_code != ResponseError::GroupIdNotFound.code() {
        let refused = (found.error_code, found.error_message.as_deref());
        check_group(group, refused, Operation::Describe)?;
        return Ok(of_share(found));
    }
    let request = StreamsGroupDescribeRequest::default().with_group_ids(vec![group_id(group)]);
    let error_of = |response: &StreamsGroupDescribeResponse| {
        response.groups.first().map_or(0, |group| group.error_code)
    };
    let answer = client.ask_coordinator(group, 1, &request, error_of)?;
    let found = answer.groups.into_iter().next().ok_or(none)?;
    if found.error_code == ResponseError::GroupIdNotFound.code() {
        return Err(format!("{group}: no such group").into());
    }
    let refused = (found.error_code, found.error_message.as_deref());
    check_group(group, refused, Operation::Describe)?;
    Ok(of_streams(found))
}

/// Its partitions are those that its active tasks read.
fn of_streams(found: StreamsGroup) -> SeenGroup {
    let parts = found.topology.and_then(|topology| topology.subtopologies);
    let mut inputs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in parts.into_iter().flatten() {
        let made = part.repartition_source_topics.iter();
        let topics = part
            .source_topics
            .iter()
            .chain(made.map(|topic| &topic.name));
        let topics = topics.map(|name| name.to_string());
        inputs.insert(part.subtopology_id.to_string(), topics.collect());
    }
    let named = |tasks: &[TaskIds]| -> Vec<(String, Vec<i32>)> {
        let of = tasks.iter().flat_map(|of| {
            let topics = inputs.get(&*of.subtopology_id).into_iter().flatten();
            topics.map(|topic| (topic.clone(), of.partitions.clone()))
        });
        of.collect()
    };
    let member = |member: StreamsMember| {
        let target = named(&member.target_assignment.active_tasks);
        SeenMember {
            partitions: named(&member.assignment.active_tasks),
            member: member.member_id.to_string(),
            client: member.client_id.to_string(),
            host: member.client_host.to_string(),
            epoch: Some(member.member_epoch),
            target: Some(target.iter().map(|(_, all)| all.len()).sum()),
        }
    };
    SeenGroup {
        kind: "streams",
        state: found.group_state.to_string(),
        protocol: found
            .assignor_name
            .map_or_else(String::new, |name| name.to_string()),
        epochs: Some((found.group_epoch, found.assignment_epoch)),
        members: found.members.into_iter().map(member).collect(),
    }
}

/// Where a share group is with each partition: everything before is done; and how many records are not.
pub(super) fn shared(client: &mut Client, group: &str) -> Result<Shared, Failure> {
    let asked = DescribeShareGroupOffsetsRequestGroup::default()
        .with_group_id(group_id(group))
        .with_topics(None);
    let request = DescribeShareGroupOffsetsRequest::default().with_groups(vec![asked]);
    let error_of = |response: &DescribeShareGroupOffsetsResponse| {
        response.groups.first().map_or(0, |group| group.error_code)
    };
    let answer = client.ask_coordinator(group, 1, &request, error_of)?;
    let mut all = Shared::new();
    for found in answer.groups {
        let refused = (found.error_code, found.error_message.as_deref());
        check_group(group, refused, Operation::Describe)?;
        for topic in found.topics {
            for partition in topic.partitions {
                let key = (topic.topic_name.to_string(), partition.partition_index);
                let known = |number: i64| (number >= 0).then_some(number);
                all.insert(key, (known(partition.start_offset), known(partition.lag)));
            }
        }
    }
    Ok(all)
}

/// By topic and partition: start and lag, where they are known.
pub(super) type Shared = BTreeMap<(String, i32), (Option<i64>, Option<i64>)>;

fn of_share(found: ShareGroup) -> SeenGroup {
    let member = |member: ShareMember| {
        let topics = member.assignment.topic_partitions.iter();
        SeenMember {
            partitions: topics
                .map(|topic| (topic.topic_name.to_string(), topic.partitions.clone()))
                .collect(),
            member: member.member_id.to_string(),
            client: member.client_id.to_string(),
            host: member.client_host.to_string(),
            epoch: Some(member.member_epoch),
            target: None,
        }
    };
    SeenGroup {
        kind: "share",
        state: found.group_state.to_string(),
        protocol: found.assignor_name.to_string(),
        epochs: None,
        members: found.members.into_iter().map(member).collect(),
    }
}

fn of_classic(found: DescribedGroup) -> SeenGroup {
    let member = |member: DescribedGroupMember| SeenMember {
        partitions: assigned_partitions(&member.member_assignment).unwrap_or_default(),
        member: member.member_id.to_string(),
        client: member.client_id.to_string(),
        host: member.client_host.to_string(),
        epoch: None,
        target: None,
    };
    SeenGroup {
        kind: "classic",
        state: found.group_state.to_string(),
        protocol: found.protocol_data.to_string(),
        epochs: None,
        members: found.members.into_iter().map(member).collect(),
    }
}

fn of_consumer(found: ConsumerGroup) -> SeenGroup {
    let named = |assignment: &Assignment| -> Vec<(String, Vec<i32>)> {
        let topics = assignment.topic_partitions.iter();
        topics
            .map(|topic| (topic.topic_name.to_string(), topic.partitions.clone()))
            .collect()
    };
    let member = |member: ConsumerMember| SeenMember {
        partitions: named(&member.assignment),
        member: member.member_id.to_string(),
        client: member.client_id.to_string(),
        host: member.client_host.to_string(),
        epoch: Some(member.member_epoch),
        target: Some(
            named(&member.target_assignment)
                .iter()
                .map(|(_, all)| all.len())
                .sum(),
        ),
    };
    SeenGroup {
        kind: "consumer",
        state: found.group_state.to_string(),
        protocol: found.assignor_name.to_string(),
        epochs: Some((found.group_epoch, found.assignment_epoch)),
        members: found.members.into_iter().map(member).collect(),
    }
}
