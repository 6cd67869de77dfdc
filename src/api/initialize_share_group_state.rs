//! InitializeShareGroupState (key 83, v0; KIP-932): a group begins with partitions, or their offsets are set.
//!
//! - From brokers alone, which is why ApiVersions does not name it.
//! - Each share partition is answered by itself; one whose coordinator is another broker is NOT_COORDINATOR.

use std::sync::Arc;

use metaq_protocol::messages::initialize_share_group_state_request::{
    InitializeStateData, PartitionData,
};
use metaq_protocol::messages::initialize_share_group_state_response::{
    InitializeStateResult, PartitionResult,
};
use metaq_protocol::messages::{
    ApiKey, InitializeShareGroupStateRequest, InitializeShareGroupStateResponse,
};
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::share_states::key_of;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve};
use crate::share::ShareStateError;

pub(super) const API: Api = Api {
    key: ApiKey::InitializeShareGroupState,
    order: Order::Alone,
    needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: InitializeShareGroupStateRequest,
) -> InitializeShareGroupStateResponse {
    let may = authorize(&cx, &caller, Operation::ClusterAction, Resource::Cluster);
    let may = may.map_err(|denied| (denied.code(), message(&denied)));
    let mut results = Vec::with_capacity(request.topics.len());
    for InitializeStateData {
        topic_id,
        partitions,
        ..
    } in request.topics
    {
        let mut answered = Vec::with_capacity(partitions.len());
        for asked in partitions {
            let index = asked.partition;
            let outcome = match &may {
                Err(denied) => Err(denied.clone()),
                Ok(()) => initialize(&cx, &request.group_id, topic_id, &asked)
                    .await
                    .map_err(|error| (error.code(), message(&error))),
            };
            let result = PartitionResult::default().with_partition(index);
            answered.push(match outcome {
                Ok(()) => result,
                Err((code, why)) => result.with_error_code(code).with_error_message(why),
            });
        }
        let result = InitializeStateResult::default()
            .with_topic_id(topic_id)
            .with_partitions(answered);
        results.push(result);
    }
    InitializeShareGroupStateResponse::default().with_results(results)
}

async fn initialize(
    cx: &Context,
    group_id: &str,
    topic_id: Uuid,
    asked: &PartitionData,
) -> Result<(), ShareStateError> {
    let key = key_of(cx, group_id, topic_id, asked.partition)?;
    let is_start = (-1..i64::MAX).contains(&asked.start_offset);
    if asked.state_epoch < 0 || !is_start {
        return Err(ShareStateError::InvalidRequest);
    }
    let (state_epoch, start) = (asked.state_epoch, asked.start_offset);
    cx.shares.states.initialize(&key, state_epoch, start).await
}
