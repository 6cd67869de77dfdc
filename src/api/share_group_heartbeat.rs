//! ShareGroupHeartbeat (key 76, v1; KIP-932): a member of a share group joins, reports, leaves, and learns what it reads.
//!
//! - Epoch 0 joins, with topics; -1 leaves.
//! - Share partitions that the group meets for the first time are initialized at their coordinators before this is answered, so
//!   that a member has its partitions with the first answer. Kafka answers before, and the member learns of them when it
//!   reports next.
//! - FENCED_MEMBER_EPOCH where the member must join anew, UNKNOWN_MEMBER_ID where it is not known, GROUP_MAX_SIZE_REACHED where
//!   the group has group.share.max.size members.
//! - What a member that leaves still has at this broker is others' again at once; other brokers learn of it by its sessions.
//!
//! Tests: tests/shares.rs, tests/shares_cluster.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::share_group_heartbeat_response::{Assignment, TopicPartitions};
use metaq_protocol::messages::{ApiKey, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::own_task::counted_in_own_task;
use super::share_acknowledgements::{Refusal, is_member_id, release};
use super::share_state_admin::{initialize, summary};
use super::shared::told;
use super::{Api, Caller, Context, Order, serve};
use crate::group::{self, ShareHeartbeat, ShareReply, ToInitialize};
use crate::share::{ShareKey, ShareStateError};

/// Share partitions that are initialized at the same time.
const INITIALIZED_AT_ONCE: usize = 64;
/// What one takes while it is initialized, bytes.
const PARTITION_BYTES: usize = 200;
/// How often it is tried at once: again where something of an earlier group of the name is in the way.
const INITIALIZE_ROUNDS_MAX: usize = 2;
/// Epoch of a member that joins, and of one that leaves.
const JOIN: i32 = 0;
const LEAVE: i32 = -1;

pub(super) const API: Api = Api {
    key: ApiKey::ShareGroupHeartbeat,
    order: Order::Alone,
    needs: &[
        (Operation::Read, ResourceKind::Group),
        (Operation::Describe, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ShareGroupHeartbeatRequest,
) -> ShareGroupHeartbeatResponse {
    let member_id = request.member_id.clone();
    match heartbeat(&cx, &caller, &request).await {
        Ok(reply) => response(reply).with_member_id(Some(member_id)),
        Err((error, why)) => {
            cx.note(&caller, &request.group_id, error.code(), &why);
            ShareGroupHeartbeatResponse::default()
                .with_error_code(error.code())
                .with_error_message(told(why))
        }
    }
}

async fn heartbeat(
    cx: &Arc<Context>,
    caller: &Caller,
    request: &ShareGroupHeartbeatRequest,
) -> Result<ShareReply, Refusal> {
    let group_id = &**request.group_id;
    authorize(cx, caller, Operation::Read, Resource::Group(group_id))
        .map_err(|denied| (denied.wire(), String::new()))?;
    check(request)?;
    for topic in request.subscribed_topic_names.iter().flatten() {
        authorize(cx, caller, Operation::Describe, Resource::Topic(topic))
            .map_err(|denied| (denied.wire(), String::new()))?;
    }
    let topics = request.subscribed_topic_names.as_ref();
    let beat = ShareHeartbeat {
        member_id: request.member_id.to_string(),
        member_epoch: request.member_epoch,
        rack: request.rack_id.as_ref().map(|rack| rack.to_string()),
        topics: topics.map(|topics| topics.iter().map(|name| name.to_string()).collect()),
        client_id: caller.client_id.as_deref().unwrap_or_default().to_owned(),
        client_host: caller.host(),
        reserved: None,
    };
    let reply = cx.coordinator.share_heartbeat(group_id, beat.clone()).await;
    let reply = reply.map_err(refusal_of)?;
    if request.member_epoch == LEAVE {
        let partitions = cx.shares.sessions.end(group_id, &request.member_id);
        release(cx, group_id, &request.member_id, &partitions);
        return Ok(reply);
    }
    let mut reply = reply;
    for _ in 0..INITIALIZE_ROUNDS_MAX {
        if reply.to_initialize.is_empty() {
            break;
        }
        // It goes on where the client does not wait for it.
        let bytes = PARTITION_BYTES * reply.to_initialize.len();
        let all = reply.to_initialize.clone();
        let going_on = initialize_all(cx.clone(), group_id.to_owned(), all);
        let done = counted_in_own_task(&cx.memory, bytes, going_on).await;
        if done != Some(true) {
            break;
        }
        let again = ShareHeartbeat {
            member_epoch: reply.member_epoch,
            ..beat.clone()
        };
        let again = cx.coordinator.share_heartbeat(group_id, again).await;
        let again = again.map_err(refusal_of)?;
        // What the member was to be told already, unless it is something else by now.
        reply = ShareReply {
            assignment: again.assignment.or(reply.assignment),
            ..again
        };
    }
    Ok(reply)
}

/// As KafkaApis and GroupCoordinatorService.throwIfShareGroupHeartbeatRequestIsInvalid, in their order.
fn check(request: &ShareGroupHeartbeatRequest) -> Result<(), Refusal> {
    let topics = request.subscribed_topic_names.as_ref();
    let why = if !is_member_id(&request.member_id) {
        // Kafka gives the code alone.
        ""
    } else if request.group_id.is_empty() {
        "GroupId can't be empty."
    } else if request.rack_id.as_ref().is_some_and(|rack| rack.is_empty()) {
        "RackId can't be empty."
    } else if request.member_epoch < LEAVE {
        "MemberEpoch is invalid."
    } else if request.member_epoch == JOIN && topics.is_none_or(Vec::is_empty) {
        "SubscribedTopicNames must be set in first request."
    } else {
        return Ok(());
    };
    Err((ResponseError::InvalidRequest, why.to_owned()))
}

fn refusal_of(refusal: group::Refusal) -> Refusal {
    (refusal.error.wire(), refusal.message)
}

/// Initializes share partitions, and tells the group which are; whether the group has more to do now.
async fn initialize_all(cx: Arc<Context>, group_id: String, all: Vec<ToInitialize>) -> bool {
    let group: Arc<str> = group_id.as_str().into();
    let outcomes: Vec<(ToInitialize, bool, i32)> = stream::iter(all)
        .map(|one| {
            let (cx, group) = (&cx, group.clone());
            async move {
                let key = ShareKey {
                    group_id: group,
                    topic_id: one.topic_id,
                    partition: one.partition,
                };
                let done = initialize(cx, &key, one.state_epoch, one.start).await;
                if let Err(error) = &done {
                    tracing::warn!(share = %key, %error, "cannot initialize");
                }
                let there = match done {
                    Err(ShareStateError::FencedStateEpoch) => summary(cx, &key).await.ok(),
                    _ => None,
                };
                (
                    one,
                    done.is_ok(),
                    there.map_or(0, |there| there.state_epoch),
                )
            }
        })
        .buffer_unordered(INITIALIZED_AT_ONCE)
        .collect()
        .await;
    let of = |is_done: bool| {
        let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (one, ..) in outcomes.iter().filter(|(_, done, _)| *done == is_done) {
            topics.entry(one.topic_id).or_default().push(one.partition);
        }
        topics.into_iter().collect::<Vec<_>>()
    };
    let beyond = outcomes.iter().map(|(.., beyond)| *beyond).max();
    let beyond = beyond.unwrap_or(0);
    let (done, failed) = (of(true), of(false));
    let is_any = !done.is_empty() || beyond > 0;
    let told = cx
        .coordinator
        .share_initialized(&group_id, (done, failed), beyond);
    told.await.is_ok() && is_any
}

fn response(reply: ShareReply) -> ShareGroupHeartbeatResponse {
    let assignment = reply.assignment.map(|topics| {
        let topics = topics.into_iter().map(|(id, partitions)| {
            TopicPartitions::default()
                .with_topic_id(id)
                .with_partitions(partitions)
        });
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ShareGroupHeartbeatResponse::default()
        .with_member_epoch(reply.member_epoch)
        .with_heartbeat_interval_ms(reply.heartbeat_interval_ms)
        .with_assignment(assignment)
}
