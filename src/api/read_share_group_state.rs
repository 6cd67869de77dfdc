//! ReadShareGroupState (key 84, v0; KIP-932): the leader of a partition begins to serve a group.
//!
//! - From brokers alone, which is why ApiVersions does not name it.
//! - Each share partition is answered by itself; one whose coordinator is another broker is NOT_COORDINATOR.
//! - A leader of an earlier epoch writes no more from then on.
//! - What is stored of records beyond the end of a new leader's log is forgotten.

use std::sync::Arc;

use metaq_protocol::messages::read_share_group_state_request::{PartitionData, ReadStateData};
use metaq_protocol::messages::read_share_group_state_response::{
    PartitionResult, ReadStateResult, StateBatch,
};
use metaq_protocol::messages::{ApiKey, ReadShareGroupStateRequest, ReadShareGroupStateResponse};

use super::authorize::{Operation, ResourceKind};
use super::share_state_requests::StateRequest;
use super::share_state_tags::{numbers, set_numbers};
use super::{Api, Caller, Context, Order, serve};
use crate::share::{Reading, ShareKey, ShareStateError, StoredState};

pub(super) const API: Api = Api {
    key: ApiKey::ReadShareGroupState,
    order: Order::Alone,
    needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ReadShareGroupStateRequest,
) -> ReadShareGroupStateResponse {
    let state_request = StateRequest::of(&cx, &caller, &request.group_id);
    let mut results = Vec::with_capacity(request.topics.len());
    for ReadStateData {
        topic_id,
        partitions,
        ..
    } in request.topics
    {
        let mut answered = Vec::with_capacity(partitions.len());
        for asked in partitions {
            let index = asked.partition;
            let work = |key| read(&cx, key, &asked);
            let outcome = state_request.answer(topic_id, index, work).await;
            let result = PartitionResult::default().with_partition(index);
            answered.push(match outcome {
                Ok(state) => with_state(result, &state),
                Err((code, why)) => result.with_error_code(code).with_error_message(why),
            });
        }
        let result = ReadStateResult::default()
            .with_topic_id(topic_id)
            .with_partitions(answered);
        results.push(result);
    }
    ReadShareGroupStateResponse::default().with_results(results)
}

async fn read(
    cx: &Context,
    key: ShareKey,
    asked: &PartitionData,
) -> Result<StoredState, ShareStateError> {
    if asked.leader_epoch < 0 {
        return Err(ShareStateError::InvalidRequest);
    }
    let said = numbers(&asked.unknown_tagged_fields);
    let log_end = said.and_then(|[end]| i64::try_from(end).ok());
    let reading = Reading {
        leader_epoch: asked.leader_epoch,
        log_end: log_end.unwrap_or(i64::MAX),
    };
    cx.shares.states.read(&key, reading).await
}

fn with_state(result: PartitionResult, state: &StoredState) -> PartitionResult {
    let batches = state.batches.iter().map(|batch| {
        StateBatch::default()
            .with_first_offset(batch.first)
            .with_last_offset(batch.last)
            .with_delivery_state(batch.state.id())
            .with_delivery_count(batch.delivery_count)
    });
    let mut result = result
        .with_state_epoch(state.state_epoch)
        .with_start_offset(state.start)
        .with_state_batches(batches.collect());
    set_numbers(&mut result.unknown_tagged_fields, &[state.reading]);
    result
}
