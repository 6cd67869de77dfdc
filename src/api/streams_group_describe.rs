//! StreamsGroupDescribe (key 89, v0–v1; KIP-1071, 1331): streams groups with their topology, members and tasks.
//!
//! - A group that does not exist, or is no streams group, is GROUP_ID_NOT_FOUND with a message.
//! - Topics that the group makes have the numbers of partitions that were decided, once all are there.
//! - Descriptions of topologies are kept by a plugin of Kafka's brokers: here none is stored, which is what is told.
//!
//! Tests: tests/streams.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::streams_group_describe_request::StreamsGroupDescribeRequest;
use metaq_protocol::messages::streams_group_describe_response::StreamsGroupDescribeResponse;
use metaq_protocol::messages::streams_group_describe_response::{
    self as answered, DescribedGroup, Member,
};
use metaq_protocol::messages::{ApiKey, GroupId, TopicName};

use super::authorize::{Operation, Resource, ResourceKind, authorize, authorized_operations};
use super::errors::WireError;
use super::room::{NoRoom, Room};
use super::share_acknowledgements::Refusal;
use super::shared::{OPERATIONS_OMITTED, text, told, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::group::{
    Described, StreamsGroupDescription, StreamsMemberDescription, TaskNumbers, TaskOffset,
};
use crate::meta::streams_records::{InternalTopicRecord, Subtopology, Topology};

/// The assignor of all streams groups.
const ASSIGNOR: &str = "sticky";
/// From this version on the assignor is told.
const ASSIGNOR_VERSION_MIN: i16 = 1;
/// Nobody keeps descriptions of topologies.
const NOT_STORED: i8 = 1;

pub(super) const API: Api = Api {
    key: ApiKey::StreamsGroupDescribe,
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
    request: StreamsGroupDescribeRequest,
) -> StreamsGroupDescribeResponse {
    let mut groups = Vec::with_capacity(request.group_ids.len());
    let mut room = Room::new(&cx);
    for group_id in request.group_ids {
        let found = describe(&cx, &caller, &mut room, &group_id).await;
        let operations = match request.include_authorized_operations && found.is_ok() {
            true => authorized_operations(&cx, &caller.session, Resource::Group(&group_id)),
            false => OPERATIONS_OMITTED,
        };
        let group = match found {
            Ok(found) => described(found, caller.version, request.include_topology_description),
            Err((error, why)) => DescribedGroup::default()
                .with_error_code(error.code())
                .with_error_message(told(why)),
        };
        let group = group
            .with_group_id(group_id)
            .with_authorized_operations(operations);
        groups.push(group);
    }
    StreamsGroupDescribeResponse::default().with_groups(groups)
}

async fn describe(
    cx: &Context,
    caller: &Caller,
    room: &mut Room,
    group_id: &GroupId,
) -> Result<StreamsGroupDescription, Refusal> {
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
        Some(Described::Streams(found)) => {
            let found = visible(cx, caller, found)?;
            room.grow(found.bytes()).map_err(no_room)?;
            return Ok(found);
        }
        Some(_) => format!("Group {} is not a streams group.", group_id.0),
        None => format!("Group {} not found.", group_id.0),
    };
    Err((ResponseError::GroupIdNotFound, why))
}

/// As KafkaApis: a group with a topic that the client may not describe is not described.
fn visible(
    cx: &Context,
    caller: &Caller,
    found: StreamsGroupDescription,
) -> Result<StreamsGroupDescription, Refusal> {
    let parts = found
        .topology
        .iter()
        .flat_map(|of| of.subtopologies.values());
    let mut names = parts.flat_map(|part| {
        part.inputs()
            .chain(part.made())
            .chain(&part.repartition_sink_topics)
    });
    let may_see =
        |name: &String| authorize(cx, caller, Operation::Describe, Resource::Topic(name)).is_ok();
    let is_visible = names.all(may_see);
    drop(names);
    match is_visible {
        true => Ok(found),
        false => Err((
            ResponseError::TopicAuthorizationFailed,
            "The described group uses topics that the client is not authorized to describe."
                .to_owned(),
        )),
    }
}

fn described(
    found: StreamsGroupDescription,
    version: i16,
    wants_description: bool,
) -> DescribedGroup {
    let members = found.members.into_iter().map(member);
    let group = DescribedGroup::default()
        .with_group_state(text(found.state))
        .with_group_epoch(found.epoch)
        .with_assignment_epoch(found.assignment_epoch)
        .with_topology(found.topology.map(topology))
        .with_members(members.collect());
    if version < ASSIGNOR_VERSION_MIN {
        return group;
    }
    let status = if wants_description { NOT_STORED } else { 0 };
    group
        .with_assignor_name(Some(text(ASSIGNOR)))
        .with_topology_description_status(status)
}

fn topology(topology: Topology) -> answered::Topology {
    let parts = topology.subtopologies.into_iter().map(subtopology);
    answered::Topology::default()
        .with_epoch(topology.epoch)
        .with_subtopologies(Some(parts.collect()))
}

fn subtopology((id, part): (String, Subtopology)) -> answered::Subtopology {
    let names = |mut names: Vec<String>| -> Vec<TopicName> {
        names.sort();
        names.iter().map(|name| topic_name(name)).collect()
    };
    let internal = |mut topics: Vec<InternalTopicRecord>| -> Vec<answered::TopicInfo> {
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics.into_iter().map(internal_topic).collect()
    };
    answered::Subtopology::default()
        .with_subtopology_id(text(id))
        .with_source_topics(names(part.source_topics))
        .with_repartition_sink_topics(names(part.repartition_sink_topics))
        .with_repartition_source_topics(internal(part.repartition_source_topics))
        .with_state_changelog_topics(internal(part.changelog_topics))
}

fn internal_topic(topic: InternalTopicRecord) -> answered::TopicInfo {
    answered::TopicInfo::default()
        .with_name(topic_name(&topic.name))
        .with_partitions(topic.partitions)
        .with_replication_factor(topic.replication_factor)
        .with_topic_configs(pairs(topic.configs))
}

fn pairs(pairs: BTreeMap<String, String>) -> Vec<answered::KeyValue> {
    let pairs = pairs.into_iter().map(|(key, value)| {
        answered::KeyValue::default()
            .with_key(text(key))
            .with_value(text(value))
    });
    pairs.collect()
}

fn member(found: StreamsMemberDescription) -> Member {
    let endpoint = found.endpoint.map(|endpoint| {
        answered::Endpoint::default()
            .with_host(text(endpoint.host))
            .with_port(endpoint.port)
    });
    Member::default()
        .with_member_id(text(found.member_id))
        .with_member_epoch(found.epoch)
        .with_instance_id(found.instance_id.map(text))
        .with_rack_id(found.rack.map(text))
        .with_client_id(text(found.client_id))
        .with_client_host(text(found.client_host))
        .with_topology_epoch(found.topology_epoch)
        .with_process_id(text(found.process_id))
        .with_user_endpoint(endpoint)
        .with_client_tags(pairs(found.client_tags))
        .with_task_offsets(offsets(found.offsets))
        .with_task_end_offsets(offsets(found.end_offsets))
        .with_assignment(assignment(found.assigned.active, found.assigned.standby))
        .with_target_assignment(assignment(found.target.active, found.target.standby))
}

fn assignment(active: TaskNumbers, standby: TaskNumbers) -> answered::Assignment {
    let ids = |tasks: TaskNumbers| {
        let tasks = tasks.into_iter().map(|(name, partitions)| {
            answered::TaskIds::default()
                .with_subtopology_id(text(name))
                .with_partitions(partitions)
        });
        tasks.collect()
    };
    answered::Assignment::default()
        .with_active_tasks(ids(active))
        .with_standby_tasks(ids(standby))
}

fn offsets(offsets: Vec<TaskOffset>) -> Vec<answered::TaskOffset> {
    let offsets = offsets.into_iter().map(|(name, partition, offset)| {
        answered::TaskOffset::default()
            .with_subtopology_id(text(name))
            .with_partition(partition)
            .with_offset(offset)
    });
    offsets.collect()
}
