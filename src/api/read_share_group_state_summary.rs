//! ReadShareGroupStateSummary (key 87, v0–v1; KIP-932, 1226): what is stored of share partitions, in short.
//!
//! - From brokers alone, which is why ApiVersions does not name it.
//! - Each share partition is answered by itself; one whose coordinator is another broker is NOT_COORDINATOR.

use std::sync::Arc;

use metaq_protocol::messages::read_share_group_state_summary_request::ReadStateSummaryData;
use metaq_protocol::messages::read_share_group_state_summary_response::{
    PartitionResult, ReadStateSummaryResult,
};
use metaq_protocol::messages::{
    ApiKey, ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse,
};

use super::authorize::{Operation, ResourceKind};
use super::share_state_requests::StateRequest;
use super::{Api, Caller, Context, Order, serve};
use crate::share::{ShareKey, ShareStateError, ShareSummary};

pub(super) const API: Api = Api {
    key: ApiKey::ReadShareGroupStateSummary,
    order: Order::Alone,
    needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ReadShareGroupStateSummaryRequest,
) -> ReadShareGroupStateSummaryResponse {
    let state_request = StateRequest::of(&cx, &caller, &request.group_id);
    let mut results = Vec::with_capacity(request.topics.len());
    for ReadStateSummaryData {
        topic_id,
        partitions,
        ..
    } in request.topics
    {
        let mut answered = Vec::with_capacity(partitions.len());
        for asked in partitions {
            let index = asked.partition;
            let work = |key| read(&cx, key);
            let outcome = state_request.answer(topic_id, index, work).await;
            let result = PartitionResult::default().with_partition(index);
            answered.push(match outcome {
                Ok(summary) => with_summary(result, summary),
                Err((code, why)) => result.with_error_code(code).with_error_message(why),
            });
        }
        let result = ReadStateSummaryResult::default()
            .with_topic_id(topic_id)
            .with_partitions(answered);
        results.push(result);
    }
    ReadShareGroupStateSummaryResponse::default().with_results(results)
}

async fn read(cx: &Context, key: ShareKey) -> Result<ShareSummary, ShareStateError> {
    cx.shares.states.summary(&key).await
}

fn with_summary(result: PartitionResult, summary: ShareSummary) -> PartitionResult {
    result
        .with_state_epoch(summary.state_epoch)
        .with_leader_epoch(summary.leader_epoch)
        .with_start_offset(summary.start)
        .with_delivery_complete_count(summary.delivery_complete_count)
}
