//! DeleteShareGroupState (key 86, v0; KIP-932): a group has no more to do with partitions.
//!
//! - From brokers alone, which is why ApiVersions does not name it.
//! - Each share partition is answered by itself; one whose coordinator is another broker is NOT_COORDINATOR.
//! - What was initialized with a later state epoch than the group had when it was told to delete stays.

use std::sync::Arc;

use metaq_protocol::messages::delete_share_group_state_request::DeleteStateData;
use metaq_protocol::messages::delete_share_group_state_response::{
    DeleteStateResult, PartitionResult,
};
use metaq_protocol::messages::{
    ApiKey, DeleteShareGroupStateRequest, DeleteShareGroupStateResponse,
};

use super::authorize::{Operation, ResourceKind};
use super::share_state_requests::StateRequest;
use super::share_state_tags::numbers;
use super::{Api, Caller, Context, Order, serve};
use crate::share::{ShareKey, ShareStateError};

pub(super) const API: Api = Api {
    key: ApiKey::DeleteShareGroupState,
    order: Order::Alone,
    needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DeleteShareGroupStateRequest,
) -> DeleteShareGroupStateResponse {
    let state_request = StateRequest::of(&cx, &caller, &request.group_id);
    let mut results = Vec::with_capacity(request.topics.len());
    for DeleteStateData {
        topic_id,
        partitions,
        ..
    } in request.topics
    {
        let mut answered = Vec::with_capacity(partitions.len());
        for asked in partitions {
            let index = asked.partition;
            let said = numbers(&asked.unknown_tagged_fields);
            let state_epoch = said.and_then(|[epoch]| i32::try_from(epoch).ok());
            let work = |key| delete(&cx, key, state_epoch.unwrap_or(i32::MAX));
            let outcome = state_request.answer(topic_id, index, work).await;
            let result = PartitionResult::default().with_partition(index);
            answered.push(match outcome {
                Ok(()) => result,
                Err((code, why)) => result.with_error_code(code).with_error_message(why),
            });
        }
        let result = DeleteStateResult::default()
            .with_topic_id(topic_id)
            .with_partitions(answered);
        results.push(result);
    }
    DeleteShareGroupStateResponse::default().with_results(results)
}

async fn delete(cx: &Context, key: ShareKey, state_epoch: i32) -> Result<(), ShareStateError> {
    cx.shares.states.delete(&key, state_epoch).await
}
