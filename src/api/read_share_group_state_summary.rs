//! ReadShareGroupStateSummary (key 87, v0–v1; KIP-932, 1226): what is stored of share partitions, in short.
//!
//! - From brokers alone, which is why ApiVersions does not name it.
//! - Each share partition is answered by itself; one whose coordinator is another broker is NOT_COORDINATOR.

use std::sync::Arc;

use metaq_protocol::messages::read_share_group_state_summary_request::{
    PartitionData, ReadStateSummaryData,
};
use metaq_protocol::messages::read_share_group_state_summary_response::{
    PartitionResult, ReadStateSummaryResult,
};
use metaq_protocol::messages::{
    ApiKey, ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse,
};
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::share_states::key_of;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve};
use crate::share::{ShareStateError, ShareSummary};

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
    let may = authorize(&cx, &caller, Operation::ClusterAction, Resource::Cluster);
    let may = may.map_err(|denied| (denied.code(), message(&denied)));
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
            let outcome = match &may {
                Err(denied) => Err(denied.clone()),
                Ok(()) => read(&cx, &request.group_id, topic_id, &asked)
                    .await
                    .map_err(|error| (error.code(), message(&error))),
            };
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

async fn read(
    cx: &Context,
    group_id: &str,
    topic_id: Uuid,
    asked: &PartitionData,
) -> Result<ShareSummary, ShareStateError> {
    let key = key_of(cx, group_id, topic_id, asked.partition)?;
    cx.shares.states.summary(&key).await
}

fn with_summary(result: PartitionResult, summary: ShareSummary) -> PartitionResult {
    result
        .with_state_epoch(summary.state_epoch)
        .with_leader_epoch(summary.leader_epoch)
        .with_start_offset(summary.start)
        .with_delivery_complete_count(summary.delivery_complete_count)
}
