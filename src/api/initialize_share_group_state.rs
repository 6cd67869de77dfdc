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

use super::authorize::{Operation, ResourceKind};
use super::share_state_requests::StateRequest;
use super::{Api, Caller, Context, Order, serve};
use crate::share::{ShareKey, ShareStateError};

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
    let state_request = StateRequest::of(&cx, &caller, &request.group_id);
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
            let work = |key| initialize(&cx, key, &asked);
            let outcome = state_request.answer(topic_id, index, work).await;
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
    key: ShareKey,
    asked: &PartitionData,
) -> Result<(), ShareStateError> {
    let is_start = (-1..i64::MAX).contains(&asked.start_offset);
    if asked.state_epoch < 0 || !is_start {
        return Err(ShareStateError::InvalidRequest);
    }
    let (state_epoch, start) = (asked.state_epoch, asked.start_offset);
    cx.shares.states.initialize(&key, state_epoch, start).await
}
