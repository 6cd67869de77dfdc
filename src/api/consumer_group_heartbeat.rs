//! ConsumerGroupHeartbeat (key 68, v0–v1; KIP-848): members of consumer groups join, say what they read and have, learn what
//! they are to have, and leave.
//!
//! Tests: tests/broadcast.rs, tests/simulation.rs.

use std::sync::Arc;

use metaq_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use metaq_protocol::messages::{
    ApiKey, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use metaq_protocol::protocol::StrBytes;

use super::authorize::{Denied, Operation, Resource, ResourceKind, authorize, is_permitted};
use super::errors::WireError;
use super::shared::{optional, text, told};
use super::{Api, Caller, Context, Order, serve};
use crate::group::{ConsumerHeartbeat, ConsumerReply, GroupError, Refusal, VisibleTopics};

pub(super) const API: Api = Api {
    key: ApiKey::ConsumerGroupHeartbeat,
    order: Order::Alone,
    needs: &[
        (Operation::Read, ResourceKind::Group),
        (Operation::Describe, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// From this version on members choose their own ids (KIP-1082).
const OWN_MEMBER_ID_VERSION_MIN: i16 = 1;
const JOIN: i32 = 0;
const LEAVE: i32 = -1;
const LEAVE_FOR_A_WHILE: i32 = -2;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let group = request.group_id.to_string();
    match answer(&cx, &caller, request).await {
        Ok(reply) => replied(reply),
        Err((code, why)) => {
            cx.note(&caller, &group, code, &why);
            ConsumerGroupHeartbeatResponse::default()
                .with_error_code(code)
                .with_error_message(told(why))
        }
    }
}

async fn answer(
    cx: &Arc<Context>,
    caller: &Caller,
    request: ConsumerGroupHeartbeatRequest,
) -> Result<ConsumerReply, (i16, String)> {
    // Kafka gives the code alone.
    let denied = |denied: Denied| (denied.code(), String::new());
    let group = Resource::Group(&request.group_id);
    authorize(cx, caller, Operation::Read, group).map_err(denied)?;
    for topic in request.subscribed_topic_names.iter().flatten() {
        authorize(cx, caller, Operation::Describe, Resource::Topic(topic)).map_err(denied)?;
    }
    let refused = |refusal: Refusal| (refusal.error.code(), refusal.message);
    check(&request, caller.version).map_err(refused)?;
    check_assignor(cx, &request).map_err(refused)?;
    let group_id = request.group_id.to_string();
    let beat = heartbeat(cx, caller, request);
    let answered = cx.coordinator.consumer_heartbeat(&group_id, beat).await;
    answered.map_err(refused)
}

/// Whether the request makes sense (GroupCoordinatorService.throwIfConsumerGroupHeartbeatRequestIsInvalid).
fn check(request: &ConsumerGroupHeartbeatRequest, version: i16) -> Result<(), Refusal> {
    let invalid = |why: &str| Refusal {
        error: GroupError::InvalidRequest,
        message: why.to_owned(),
    };
    let is_blank = |text: &str| text.trim().is_empty();
    let is_set_blank = |text: &Option<StrBytes>| text.as_ref().is_some_and(|text| is_blank(text));
    let epoch = request.member_epoch;
    let is_known = version >= OWN_MEMBER_ID_VERSION_MIN || epoch > 0 || epoch == LEAVE;
    if is_known && is_blank(&request.member_id) {
        return Err(invalid("MemberId can't be empty."));
    }
    if is_blank(&request.group_id) {
        return Err(invalid("GroupId can't be empty."));
    }
    if is_set_blank(&request.instance_id) {
        return Err(invalid("InstanceId can't be empty."));
    }
    if is_set_blank(&request.rack_id) {
        return Err(invalid("RackId can't be empty."));
    }
    match epoch {
        JOIN => check_join(request).map_err(invalid)?,
        LEAVE_FOR_A_WHILE if request.instance_id.is_none() => {
            return Err(invalid("InstanceId can't be null."));
        }
        ..LEAVE_FOR_A_WHILE => return Err(invalid("MemberEpoch is invalid.")),
        _ => {}
    }
    Ok(())
}

/// Whether the assignor is one that members may prefer.
fn check_assignor(cx: &Context, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let Some(asked) = &request.server_assignor else {
        return Ok(());
    };
    let settings = cx.coordinator.consumer_settings(&request.group_id);
    let assignors = &settings.assignors;
    if assignors.iter().any(|known| known.name() == asked.as_str()) {
        return Ok(());
    }
    let known: Vec<&str> = assignors.iter().map(|known| known.name()).collect();
    let known = known.join(", ");
    Err(Refusal {
        error: GroupError::UnsupportedAssignor,
        message: format!("ServerAssignor {asked} is not supported. Supported assignors: {known}."),
    })
}

fn check_join(request: &ConsumerGroupHeartbeatRequest) -> Result<(), &'static str> {
    if request.rebalance_timeout_ms == -1 {
        return Err("RebalanceTimeoutMs must be provided in first request.");
    }
    let owned = request.topic_partitions.as_ref();
    if owned.is_none_or(|owned| !owned.is_empty()) {
        return Err("TopicPartitions must be empty when (re-)joining.");
    }
    if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
        return Err(
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
        );
    }
    Ok(())
}

/// The topics that a client may know of.
fn visible(cx: &Arc<Context>, caller: &Caller) -> VisibleTopics {
    if cx.authorizer.is_none() {
        return VisibleTopics::default();
    }
    let (cx, caller) = (cx.clone(), caller.clone());
    VisibleTopics::of(move |topic| {
        is_permitted(&cx, &caller, Operation::Describe, Resource::Topic(topic))
    })
}

fn heartbeat(
    cx: &Arc<Context>,
    caller: &Caller,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerHeartbeat {
    let owned = request.topic_partitions.map(|topics| {
        let topics = topics.into_iter();
        topics
            .map(|topic| (topic.topic_id, topic.partitions))
            .collect()
    });
    let topics = request.subscribed_topic_names.map(|names| {
        let names = names.into_iter();
        names.map(|name| name.to_string()).collect()
    });
    ConsumerHeartbeat {
        member_id: request.member_id.to_string(),
        member_epoch: request.member_epoch,
        instance_id: optional(&request.instance_id),
        rack_id: optional(&request.rack_id),
        rebalance_timeout_ms: (request.rebalance_timeout_ms != -1)
            .then_some(request.rebalance_timeout_ms),
        topics,
        regex: optional(&request.subscribed_topic_regex),
        assignor: optional(&request.server_assignor),
        owned,
        client_id: optional(&caller.client_id).unwrap_or_default(),
        client_host: caller.host(),
        visible: visible(cx, caller),
        connection: Some(caller.session.id()),
        reserved: None,
    }
}

fn replied(reply: ConsumerReply) -> ConsumerGroupHeartbeatResponse {
    let assignment = reply.assignment.map(|topics| {
        let topics = topics.into_iter().map(|(id, partitions)| {
            TopicPartitions::default()
                .with_topic_id(id)
                .with_partitions(partitions)
        });
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(text(reply.member_id)))
        .with_member_epoch(reply.member_epoch)
        .with_heartbeat_interval_ms(reply.heartbeat_interval_ms)
        .with_assignment(assignment)
}
