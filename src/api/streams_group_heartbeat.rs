//! StreamsGroupHeartbeat (key 88, v0–v1; KIP-1071): a thread of a Kafka Streams application joins, reports, leaves, and learns
//! which tasks it has.
//!
//! - Epoch 0 joins, with the topology; -1 leaves, -2 leaves for a while (static members).
//! - Topics that the group needs and that are not there are made before this is answered; what hinders that is in the text of
//!   MISSING_INTERNAL_TOPICS. Kafka answers first, and tells of errors with a later heartbeat. Whoever may not create topics
//!   is told so there.
//! - STREAMS_INVALID_TOPOLOGY where no broker can run the topology, FENCED_MEMBER_EPOCH where the member must join anew.
//!
//! Tests: tests/streams.rs.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use metaq_protocol::messages::ApiKey;
use metaq_protocol::messages::streams_group_heartbeat_request::{
    self as asked, StreamsGroupHeartbeatRequest,
};
use metaq_protocol::messages::streams_group_heartbeat_response::{
    self as answered, StreamsGroupHeartbeatResponse,
};
use metaq_protocol::protocol::StrBytes;

use super::authorize::{Denied, Operation, Resource, ResourceKind, authorize, is_permitted};
use super::charge::Mutations;
use super::errors::WireError;
use super::internal_topics::create_internal;
use super::shared::{optional, text, told, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::{check_topic_name, is_internal_name};
use crate::group::TopicToCreate;
use crate::group::{
    Endpoint, EndpointPartitions, GroupError, OwnedLists, Refusal, Status, StatusCode,
    StreamsHeartbeat, StreamsReply,
};
use crate::meta::streams_records::{CopartitionGroup, InternalTopicRecord, Subtopology, Topology};

const JOIN: i32 = 0;
const LEAVE_FOR_A_WHILE: i32 = -2;
/// Topics whose creation failed that a status names.
const NAMED_MAX: usize = 3;

pub(super) const API: Api = Api {
    key: ApiKey::StreamsGroupHeartbeat,
    order: Order::Alone,
    needs: &[
        (Operation::Read, ResourceKind::Group),
        (Operation::Describe, ResourceKind::Topic),
        (Operation::Create, ResourceKind::Cluster),
        (Operation::Create, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: StreamsGroupHeartbeatRequest,
) -> StreamsGroupHeartbeatResponse {
    let group = request.group_id.to_string();
    match answer(&cx, &caller, request).await {
        Ok(reply) => replied(reply),
        Err((code, why)) => {
            cx.note(&caller, &group, code, &why);
            StreamsGroupHeartbeatResponse::default()
                .with_error_code(code)
                .with_error_message(told(why))
        }
    }
}

async fn answer(
    cx: &Arc<Context>,
    caller: &Caller,
    request: StreamsGroupHeartbeatRequest,
) -> Result<StreamsReply, (i16, String)> {
    // Kafka gives the code alone.
    let denied = |denied: Denied| (denied.code(), String::new());
    let refused = |refusal: Refusal| (refusal.error.code(), refusal.message);
    let group = Resource::Group(&request.group_id);
    authorize(cx, caller, Operation::Read, group).map_err(denied)?;
    check_names(&request).map_err(refused)?;
    for topic in request.topology.iter().flat_map(topics_of) {
        authorize(cx, caller, Operation::Describe, Resource::Topic(topic)).map_err(denied)?;
    }
    check(&request).map_err(refused)?;
    let group_id = request.group_id.to_string();
    let beat = heartbeat(caller, request).map_err(refused)?;
    let answered = cx.coordinator.streams_heartbeat(&group_id, beat).await;
    let mut reply = answered.map_err(refused)?;
    if !reply.to_create.is_empty() {
        let hindrance = create(cx, caller, &reply).await;
        let missing = |status: &&mut Status| status.code == StatusCode::MissingInternalTopics;
        if let Some(status) = reply.statuses.iter_mut().find(missing)
            && let Some(hindrance) = hindrance
        {
            status.detail = format!("{}; {hindrance}", status.detail);
        }
    }
    Ok(reply)
}

/// All topics that a topology names.
fn topics_of(topology: &asked::Topology) -> impl Iterator<Item = &str> {
    topology.subtopologies.iter().flat_map(|part| {
        let internal = part.repartition_source_topics.iter();
        let internal = internal.chain(&part.state_changelog_topics);
        let named = part
            .source_topics
            .iter()
            .chain(&part.repartition_sink_topics);
        named
            .chain(internal.map(|topic| &topic.name))
            .map(|name| name.as_str())
    })
}

/// As KafkaApis.handleStreamsGroupHeartbeat.
fn check_names(request: &StreamsGroupHeartbeatRequest) -> Result<(), Refusal> {
    let mut named = HashSet::new();
    let names = request.topology.iter().flat_map(topics_of);
    let names: Vec<&str> = names.filter(|name| named.insert(*name)).collect();
    let names = || names.iter().copied();
    let refuse = |message: String| {
        Err(Refusal {
            error: GroupError::StreamsInvalidTopology,
            message,
        })
    };
    let internal: Vec<&str> = names().filter(|name| is_internal_name(name)).collect();
    if !internal.is_empty() {
        let internal = internal.join(",");
        return refuse(format!(
            "Use of Kafka internal topics {internal} in a Kafka Streams topology is prohibited."
        ));
    }
    let invalid: Vec<&str> = names()
        .filter(|name| check_topic_name(name).is_err())
        .collect();
    if !invalid.is_empty() {
        let invalid = invalid.join(",");
        return refuse(format!("Topic names {invalid} are not valid topic names."));
    }
    Ok(())
}

/// Whether the request makes sense (GroupCoordinatorService.throwIfStreamsGroupHeartbeatRequestIsInvalid).
fn check(request: &StreamsGroupHeartbeatRequest) -> Result<(), Refusal> {
    let invalid = |message: String| Refusal {
        error: GroupError::InvalidRequest,
        message,
    };
    let parts = request.topology.iter().flat_map(|of| &of.subtopologies);
    let mut regexes = parts.map(|part| &part.source_topic_regex);
    if regexes.any(|regexes| !regexes.is_empty()) {
        let why = "Regular expressions for source topics are not supported yet.";
        return Err(invalid(why.to_owned()));
    }
    let is_blank = |text: &str| text.trim().is_empty();
    let is_set_blank = |text: &Option<StrBytes>| text.as_ref().is_some_and(|text| is_blank(text));
    let tasks = [
        ("ActiveTasks", &request.active_tasks),
        ("StandbyTasks", &request.standby_tasks),
        ("WarmupTasks", &request.warmup_tasks),
    ];
    let is_some = |(_, tasks): &(&str, &Option<Vec<asked::TaskIds>>)| tasks.is_some();
    let why = if is_blank(&request.member_id) {
        "MemberId can't be empty."
    } else if is_blank(&request.group_id) {
        "GroupId can't be empty."
    } else if is_set_blank(&request.instance_id) {
        "InstanceId can't be empty."
    } else if is_set_blank(&request.rack_id) {
        "RackId can't be empty."
    } else if request.member_epoch == JOIN {
        return check_join(request, &tasks);
    } else if request.member_epoch == LEAVE_FOR_A_WHILE && request.instance_id.is_none() {
        "InstanceId can't be null."
    } else if request.member_epoch < LEAVE_FOR_A_WHILE {
        let epoch = request.member_epoch;
        return Err(invalid(format!(
            "MemberEpoch is {epoch}, but must be greater than or equal to -2."
        )));
    } else if tasks.iter().any(is_some) && !tasks.iter().all(is_some) {
        "If one task-type is non-null, all must be non-null."
    } else if request.topology.is_some() {
        "Topology can only be provided when (re-)joining."
    } else {
        return Ok(());
    };
    Err(invalid(why.to_owned()))
}

fn check_join(
    request: &StreamsGroupHeartbeatRequest,
    tasks: &[(&str, &Option<Vec<asked::TaskIds>>)],
) -> Result<(), Refusal> {
    let refuse = |error, message: String| Err(Refusal { error, message });
    let invalid = GroupError::InvalidRequest;
    if request.rebalance_timeout_ms == -1 {
        let why = "RebalanceTimeoutMs must be provided in first request.";
        return refuse(invalid, why.to_owned());
    }
    let has = |tasks: &Option<Vec<asked::TaskIds>>| tasks.as_ref().is_some_and(|of| !of.is_empty());
    if let Some((name, _)) = tasks.iter().find(|(_, tasks)| has(tasks)) {
        return refuse(invalid, format!("{name} must be empty when (re-)joining."));
    }
    let Some(topology) = &request.topology else {
        let why = "Topology must be non-null when (re-)joining.";
        return refuse(invalid, why.to_owned());
    };
    let changelogs = topology.subtopologies.iter();
    let mut changelogs = changelogs.flat_map(|part| &part.state_changelog_topics);
    if let Some(topic) = changelogs.find(|topic| topic.partitions != 0) {
        let (name, partitions) = (topic.name.as_str(), topic.partitions);
        return refuse(
            GroupError::StreamsInvalidTopology,
            format!(
                "Changelog topic {name} must have an undefined partition count, but it is set to {partitions}."
            ),
        );
    }
    let some = tasks.iter().filter(|(_, tasks)| tasks.is_some()).count();
    match some {
        0 | 3 => Ok(()),
        _ => refuse(
            invalid,
            "If one task-type is non-null, all must be non-null.".to_owned(),
        ),
    }
}

fn heartbeat(
    caller: &Caller,
    request: StreamsGroupHeartbeatRequest,
) -> Result<StreamsHeartbeat, Refusal> {
    let topology = request.topology.map(topology).transpose()?;
    let tasks = (
        request.active_tasks,
        request.standby_tasks,
        request.warmup_tasks,
    );
    let owned = match tasks {
        (Some(active), Some(standby), Some(warmup)) => Some(OwnedLists {
            active: lists(active),
            standby: lists(standby),
            warmup: lists(warmup),
        }),
        _ => None,
    };
    let endpoint = request.user_endpoint.map(|endpoint| Endpoint {
        host: endpoint.host.to_string(),
        port: endpoint.port,
    });
    let tags = request.client_tags.map(pairs);
    let offsets = |offsets: Option<Vec<asked::TaskOffset>>| {
        offsets.map(|offsets| {
            let of =
                |of: asked::TaskOffset| ((of.subtopology_id.to_string(), of.partition), of.offset);
            offsets.into_iter().map(of).collect()
        })
    };
    Ok(StreamsHeartbeat {
        member_id: request.member_id.to_string(),
        member_epoch: request.member_epoch,
        endpoint_epoch: request.endpoint_information_epoch,
        instance_id: optional(&request.instance_id),
        rack: optional(&request.rack_id),
        rebalance_timeout_ms: (request.rebalance_timeout_ms != -1)
            .then_some(request.rebalance_timeout_ms),
        topology,
        owned,
        process_id: optional(&request.process_id),
        endpoint,
        client_tags: tags,
        offsets: offsets(request.task_offsets),
        end_offsets: offsets(request.task_end_offsets),
        shuts_down: request.shutdown_application,
        client_id: optional(&caller.client_id).unwrap_or_default(),
        client_host: caller.host(),
        version: caller.version,
        reserved: Default::default(),
    })
}

fn lists(tasks: Vec<asked::TaskIds>) -> Vec<(String, Vec<i32>)> {
    let tasks = tasks.into_iter();
    tasks
        .map(|tasks| (tasks.subtopology_id.to_string(), tasks.partitions))
        .collect()
}

fn pairs(pairs: Vec<asked::KeyValue>) -> BTreeMap<String, String> {
    let pairs = pairs.into_iter();
    pairs
        .map(|pair| (pair.key.to_string(), pair.value.to_string()))
        .collect()
}

fn topology(topology: asked::Topology) -> Result<Topology, Refusal> {
    let invalid = |message: String| Refusal {
        error: GroupError::StreamsInvalidTopology,
        message,
    };
    if topology.epoch < 0 {
        return Err(invalid("Topology epoch must be non-negative.".to_owned()));
    }
    let mut subtopologies = BTreeMap::new();
    for part in topology.subtopologies {
        let id = part.subtopology_id.to_string();
        if subtopologies
            .insert(id.clone(), subtopology(part))
            .is_some()
        {
            return Err(invalid(format!("Subtopology {id} is named twice.")));
        }
    }
    Ok(Topology {
        epoch: topology.epoch,
        subtopologies,
    })
}

fn subtopology(part: asked::Subtopology) -> Subtopology {
    let names = |names: Vec<metaq_protocol::messages::TopicName>| {
        names.iter().map(|name| name.to_string()).collect()
    };
    let internal = |topics: Vec<asked::TopicInfo>| {
        let topic = |topic: asked::TopicInfo| InternalTopicRecord {
            name: topic.name.to_string(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            configs: pairs(topic.topic_configs),
        };
        topics.into_iter().map(topic).collect()
    };
    let group = |group: asked::CopartitionGroup| CopartitionGroup {
        source_topics: group.source_topics,
        repartition_source_topics: group.repartition_source_topics,
    };
    Subtopology {
        source_topics: names(part.source_topics),
        repartition_sink_topics: names(part.repartition_sink_topics),
        repartition_source_topics: internal(part.repartition_source_topics),
        changelog_topics: internal(part.state_changelog_topics),
        copartition_groups: part.copartition_groups.into_iter().map(group).collect(),
    }
}

/// Makes the topics that are missing; what hindered that.
async fn create(cx: &Arc<Context>, caller: &Caller, reply: &StreamsReply) -> Option<String> {
    let may_create_all = is_permitted(cx, caller, Operation::Create, Resource::Cluster);
    let may_create = |name: &str| {
        may_create_all || authorize(cx, caller, Operation::Create, Resource::Topic(name)).is_ok()
    };
    let names = reply.to_create.iter().map(|topic| &*topic.name);
    let denied: Vec<&str> = names.filter(|name| !may_create(name)).collect();
    if !denied.is_empty() {
        let denied = denied.join(", ");
        return Some(format!("Unauthorized to CREATE on topics {denied}."));
    }
    let (allowed, mut failed) = within_quota(cx, caller, &reply.to_create);
    failed.extend(create_internal(cx, &allowed).await);
    if failed.is_empty() {
        return None;
    }
    let named = failed.iter().take(NAMED_MAX);
    let named: Vec<String> = named.map(|(name, why)| format!("{name} ({why})")).collect();
    let more = match failed.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("Creation failed: {}{more}.", named.join(", ")))
}

/// The topics that the client's quota of mutations allows to be made, and why the others are not.
fn within_quota(
    cx: &Context,
    caller: &Caller,
    topics: &[TopicToCreate],
) -> (Vec<TopicToCreate>, Vec<(String, String)>) {
    let Some(mut mutations) = Mutations::strictly(cx, caller) else {
        return (topics.to_vec(), Vec::new());
    };
    let (mut allowed, mut exceeding) = (Vec::new(), Vec::new());
    for topic in topics {
        match mutations.record(topic.partitions.max(0) as usize) {
            Ok(()) => allowed.push(topic.clone()),
            Err(why) => exceeding.push((topic.name.clone(), why.to_string())),
        }
    }
    (allowed, exceeding)
}

fn replied(reply: StreamsReply) -> StreamsGroupHeartbeatResponse {
    let (active, standby, warmup) = match reply.tasks {
        None => (None, None, None),
        Some(tasks) => (
            Some(task_ids(tasks.active)),
            Some(task_ids(tasks.standby)),
            Some(task_ids(tasks.warmup)),
        ),
    };
    let status = |status: Status| {
        answered::Status::default()
            .with_status_code(status.code as i8)
            .with_status_detail(text(status.detail))
    };
    let endpoints = reply
        .endpoints
        .map(|of| of.into_iter().map(endpoint).collect());
    StreamsGroupHeartbeatResponse::default()
        .with_member_id(text(reply.member_id))
        .with_member_epoch(reply.member_epoch)
        .with_heartbeat_interval_ms(reply.heartbeat_interval_ms)
        .with_task_offset_interval_ms(reply.task_offset_interval_ms)
        .with_acceptable_recovery_lag(reply.acceptable_recovery_lag)
        .with_status(Some(reply.statuses.into_iter().map(status).collect()))
        .with_active_tasks(active)
        .with_standby_tasks(standby)
        .with_warmup_tasks(warmup)
        .with_endpoint_information_epoch(reply.endpoint_epoch)
        .with_partitions_by_user_endpoint(endpoints)
}

fn task_ids(lists: Vec<(String, Vec<i32>)>) -> Vec<answered::TaskIds> {
    let lists = lists.into_iter();
    lists
        .map(|(name, partitions)| {
            answered::TaskIds::default()
                .with_subtopology_id(text(name))
                .with_partitions(partitions)
        })
        .collect()
}

fn endpoint(of: EndpointPartitions) -> answered::EndpointToPartitions {
    let partitions = |topics: Vec<(String, Vec<i32>)>| {
        let topics = topics.into_iter().map(|(name, partitions)| {
            answered::TopicPartition::default()
                .with_topic(topic_name(&name))
                .with_partitions(partitions)
        });
        topics.collect()
    };
    let endpoint = answered::Endpoint::default()
        .with_host(text(of.endpoint.host))
        .with_port(of.endpoint.port);
    answered::EndpointToPartitions::default()
        .with_user_endpoint(endpoint)
        .with_active_partitions(partitions(of.active))
        .with_standby_partitions(partitions(of.standby))
}
