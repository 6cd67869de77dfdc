//! ConsumerGroupDescribe (key 69, v0–v1; KIP-848): consumer groups with what their members have and are to have.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use metaq_protocol::messages::{
    ApiKey, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId,
};

use super::authorize::{Operation, Resource, ResourceKind, authorize, authorized_operations};
use super::errors::WireError;
use super::room::{NoRoom, Room};
use super::shared::{OPERATIONS_OMITTED, message, text, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::group::{
    ConsumerGroupDescription, ConsumerMemberDescription, Described, GroupError, MemberPartitions,
};

/// What a member takes in an answer besides its texts and partitions.
const MEMBER_BYTES: usize = 400;
/// What a topic of a member takes.
const TOPIC_BYTES: usize = 100;

pub(super) const API: Api = Api {
    key: ApiKey::ConsumerGroupDescribe,
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
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let mut groups = Vec::with_capacity(request.group_ids.len());
    let mut room = Room::new(&cx);
    for group_id in request.group_ids {
        let resource = Resource::Group(&group_id);
        let found = match authorize(&cx, &caller, Operation::Describe, resource) {
            Ok(()) => find(&cx, &caller, &mut room, &group_id).await,
            Err(denied) => Err((denied.wire(), None)),
        };
        let operations = match request.include_authorized_operations && found.is_ok() {
            true => authorized_operations(&cx, &caller.session, resource),
            false => OPERATIONS_OMITTED,
        };
        groups.push(described(group_id, found).with_authorized_operations(operations));
    }
    ConsumerGroupDescribeResponse::default().with_groups(groups)
}

type Found = Result<ConsumerGroupDescription, (ResponseError, Option<String>)>;

async fn find(cx: &Context, caller: &Caller, room: &mut Room, group_id: &GroupId) -> Found {
    let not_found = |why: String| (GroupError::GroupIdNotFound.wire(), Some(why));
    let no_room = |error: NoRoom| (error.wire(ResponseError::CoordinatorNotAvailable), None);
    room.check().map_err(no_room)?;
    let id = &group_id.0;
    if id.is_empty() {
        return Err((ResponseError::InvalidGroupId, None));
    }
    let group = match cx.coordinator.describe(id).await {
        Ok(Some(Described::Consumer(group))) => group,
        Ok(Some(_)) => return Err(not_found(format!("Group {id} is not a consumer group."))),
        Ok(None) => return Err(not_found(format!("Group {id} not found."))),
        Err(error) => return Err((error.wire(), None)),
    };
    // As KafkaApis: a group with a topic that the client may not describe is not described.
    let denied = {
        let all = group.members.iter();
        let mut topics = all.flat_map(names);
        topics.find_map(|topic| {
            let topic = Resource::Topic(topic);
            authorize(cx, caller, Operation::Describe, topic).err()
        })
    };
    if let Some(denied) = denied {
        let why = "The group has described topic(s) that the client is not authorized to describe.";
        return Err((denied.wire(), Some(why.to_owned())));
    }
    room.grow(group.members.iter().map(member_bytes).sum())
        .map_err(no_room)?;
    Ok(group)
}

fn names(member: &ConsumerMemberDescription) -> impl Iterator<Item = &String> {
    let both = member.assigned.iter().chain(&member.target);
    both.map(|(_, name, _)| name)
}

/// What a member takes in the answer, roughly.
fn member_bytes(member: &ConsumerMemberDescription) -> usize {
    let texts = member.member_id.len() + member.client_id.len() + member.client_host.len();
    let topics: usize = member.topics.iter().map(String::len).sum();
    let both = member.assigned.iter().chain(&member.target);
    let partitions = both.map(|(_, name, all)| TOPIC_BYTES + name.len() + 4 * all.len());
    MEMBER_BYTES + texts + topics + partitions.sum::<usize>()
}

fn described(group_id: GroupId, found: Found) -> DescribedGroup {
    let group = DescribedGroup::default().with_group_id(group_id);
    match found {
        Ok(found) => group
            .with_group_state(text(found.state))
            .with_group_epoch(found.epoch)
            .with_assignment_epoch(found.assignment_epoch)
            .with_assignor_name(text(found.assignor))
            .with_members(found.members.into_iter().map(member).collect()),
        Err((error, why)) => group
            .with_error_code(error.code())
            .with_error_message(why.and_then(|why| message(&why))),
    }
}

fn member(member: ConsumerMemberDescription) -> Member {
    let names = member.topics.iter().map(|name| topic_name(name));
    Member::default()
        .with_member_id(text(member.member_id))
        .with_instance_id(member.instance_id.map(text))
        .with_rack_id(member.rack_id.map(text))
        .with_member_epoch(member.epoch)
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(names.collect())
        .with_subscribed_topic_regex(member.regex.map(text))
        .with_assignment(assignment(member.assigned))
        .with_target_assignment(assignment(member.target))
        .with_member_type(i8::from(!member.is_classic))
}

fn assignment(topics: MemberPartitions) -> Assignment {
    let topics = topics.into_iter().map(|(id, name, partitions)| {
        TopicPartitions::default()
            .with_topic_id(id)
            .with_topic_name(topic_name(&name))
            .with_partitions(partitions)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
