//! ShareGroupDescribe (key 77, v1; KIP-932): share groups with their members.
//!
//! - A group that does not exist, or is no share group, is GROUP_ID_NOT_FOUND with a message.
//! - Without a name it is INVALID_GROUP_ID.
//!
//! Tests: tests/shares.rs, tests/large_answers.rs.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::share_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use metaq_protocol::messages::{
    ApiKey, GroupId, ShareGroupDescribeRequest, ShareGroupDescribeResponse,
};

use super::authorize::{Operation, Resource, ResourceKind, authorize, authorized_operations};
use super::errors::WireError;
use super::room::{NoRoom, Room};
use super::share_acknowledgements::Refusal;
use super::shared::{OPERATIONS_OMITTED, text, told, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::group::{Described, ShareGroupDescription, ShareMemberDescription};

/// The assignor of all share groups.
const ASSIGNOR: &str = "simple";

/// What a member takes in an answer besides its texts and partitions.
const MEMBER_BYTES: usize = 400;
/// What a topic of a member takes.
const TOPIC_BYTES: usize = 100;

pub(super) const API: Api = Api {
    key: ApiKey::ShareGroupDescribe,
    order: Order::Alone,
    needs: &[
        (Operation::Describe, ResourceKind::Group),
        (Operation::Describe, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ShareGroupDescribeRequest,
) -> ShareGroupDescribeResponse {
    let mut groups = Vec::with_capacity(request.group_ids.len());
    let mut room = Room::new(&cx);
    for group_id in request.group_ids {
        let found = describe(&cx, &caller, &mut room, &group_id).await;
        let operations = match request.include_authorized_operations && found.is_ok() {
            true => authorized_operations(&cx, &caller.session, Resource::Group(&group_id)),
            false => OPERATIONS_OMITTED,
        };
        let group = match found {
            Ok(found) => described(found),
            Err((error, why)) => DescribedGroup::default()
                .with_error_code(error.code())
                .with_error_message(told(why)),
        };
        let group = group
            .with_group_id(group_id)
            .with_authorized_operations(operations);
        groups.push(group);
    }
    ShareGroupDescribeResponse::default().with_groups(groups)
}

async fn describe(
    cx: &Context,
    caller: &Caller,
    room: &mut Room,
    group_id: &GroupId,
) -> Result<ShareGroupDescription, Refusal> {
    authorize(cx, caller, Operation::Describe, Resource::Group(group_id))
        .map_err(|denied| (denied.wire(), String::new()))?;
    // Kafka gives the code alone.
    if group_id.is_empty() {
        return Err((ResponseError::InvalidGroupId, String::new()));
    }
    let no_room = |error: NoRoom| error.told(ResponseError::CoordinatorNotAvailable);
    room.check().map_err(no_room)?;
    let found = cx.coordinator.describe(group_id).await;
    let why = match found.map_err(|error| (error.wire(), error.to_string()))? {
        Some(Described::Share(found)) => {
            let found = visible(cx, caller, found)?;
            room.grow(found.members.iter().map(member_bytes).sum())
                .map_err(no_room)?;
            return Ok(found);
        }
        Some(_) => format!("Group {} is not a share group.", group_id.0),
        None => format!("Group {} not found.", group_id.0),
    };
    Err((ResponseError::GroupIdNotFound, why))
}

/// As KafkaApis: a group with a topic that the client may not describe is not described.
fn visible(
    cx: &Context,
    caller: &Caller,
    found: ShareGroupDescription,
) -> Result<ShareGroupDescription, Refusal> {
    let assigned = found.members.iter().flat_map(|member| &member.assigned);
    let denied = assigned.into_iter().find_map(|(_, name, _)| {
        authorize(cx, caller, Operation::Describe, Resource::Topic(name)).err()
    });
    let Some(denied) = denied else {
        return Ok(found);
    };
    let why = "The group has described topic(s) that the client is not authorized to describe.";
    Err((denied.wire(), why.to_owned()))
}

/// What a member takes in the answer, roughly.
fn member_bytes(member: &ShareMemberDescription) -> usize {
    let texts = member.member_id.len() + member.client_id.len() + member.client_host.len();
    let topics: usize = member.topics.iter().map(String::len).sum();
    let assigned = member.assigned.iter();
    let assigned = assigned.map(|(_, name, all)| TOPIC_BYTES + name.len() + 4 * all.len());
    MEMBER_BYTES + texts + topics + assigned.sum::<usize>()
}

fn described(found: ShareGroupDescription) -> DescribedGroup {
    let members = found.members.into_iter().map(described_member);
    DescribedGroup::default()
        .with_group_state(text(found.state))
        .with_group_epoch(found.epoch)
        .with_assignment_epoch(found.assignment_epoch)
        .with_assignor_name(text(ASSIGNOR))
        .with_members(members.collect())
}

fn described_member(member: ShareMemberDescription) -> Member {
    let assigned = member.assigned.into_iter().map(|(id, name, partitions)| {
        TopicPartitions::default()
            .with_topic_id(id)
            .with_topic_name(topic_name(&name))
            .with_partitions(partitions)
    });
    let topics = member.topics.iter().map(|name| topic_name(name));
    Member::default()
        .with_member_id(text(member.member_id))
        .with_rack_id(member.rack.map(text))
        .with_member_epoch(member.epoch)
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(topics.collect())
        .with_assignment(Assignment::default().with_topic_partitions(assigned.collect()))
}
