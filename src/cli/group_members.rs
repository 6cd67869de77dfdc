//! The members of a group of any protocol, as `metaq group` shows them.

use metaq_protocol::ResponseError;
use metaq_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup as ConsumerGroup, Member as ConsumerMember,
};
use metaq_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use metaq_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, GroupId,
};
use metaq_protocol::protocol::StrBytes;
use serde::Serialize;

use super::Failure;
use super::client::{Client, check};
use crate::group::assigned_partitions;

/// A group with its members.
pub(super) struct SeenGroup {
    /// `classic` or `consumer`.
    pub(super) kind: &'static str,
    pub(super) state: String,
    /// The assignor; empty where there is none.
    pub(super) protocol: String,
    /// Of a consumer group: the group epoch, and the one that the targets are of.
    pub(super) epochs: Option<(i32, i32)>,
    pub(super) members: Vec<SeenMember>,
}

/// A member.
#[derive(Serialize)]
pub(super) struct SeenMember {
    pub(super) member: String,
    pub(super) client: String,
    pub(super) host: String,
    /// Of a consumer group.
    pub(super) epoch: Option<i32>,
    pub(super) partitions: Vec<(String, Vec<i32>)>,
    /// Of a consumer group: how many it is to have.
    pub(super) target: Option<usize>,
}

impl SeenMember {
    pub(super) fn count(&self) -> usize {
        self.partitions.iter().map(|(_, all)| all.len()).sum()
    }
}

pub(super) fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
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
        check(group, found.error_code, None)?;
        return Ok(of_classic(found));
    }
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(group)]);
    let error_of = |response: &ConsumerGroupDescribeResponse| {
        response.groups.first().map_or(0, |group| group.error_code)
    };
    let answer = client.ask_coordinator(group, 1, &request, error_of)?;
    let found = answer.groups.into_iter().next().ok_or(none)?;
    if found.error_code == ResponseError::GroupIdNotFound.code() {
        return Err(format!("{group}: no such group").into());
    }
    check(group, found.error_code, found.error_message.as_deref())?;
    Ok(of_consumer(found))
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
