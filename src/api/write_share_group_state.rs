//! WriteShareGroupState (key 85, v0–v1; KIP-932, 1226): the leader of a partition stores what a group has done.
//!
//! - From brokers alone, which is why ApiVersions does not name it.
//! - Each share partition is answered by itself; one whose coordinator is another broker is NOT_COORDINATOR.
//! - Answered when it is durable. FENCED_LEADER_EPOCH where a later leader has read it, FENCED_STATE_EPOCH where the offset was
//!   set since.
//! - A write that arrives after a later one is FENCED_LEADER_EPOCH: its leader has told members that it does not count.

use std::sync::Arc;

use metaq_protocol::messages::write_share_group_state_request::{PartitionData, WriteStateData};
use metaq_protocol::messages::write_share_group_state_response::{
    PartitionResult, WriteStateResult,
};
use metaq_protocol::messages::{ApiKey, WriteShareGroupStateRequest, WriteShareGroupStateResponse};

use super::authorize::{Operation, ResourceKind};
use super::share_state_requests::StateRequest;
use super::share_state_tags::numbers;
use super::{Api, Caller, Context, Order, serve};
use crate::share::{RecordState, ShareKey, ShareStateError, StateBatch, WriteOrder, WrittenState};

pub(super) const API: Api = Api {
    key: ApiKey::WriteShareGroupState,
    order: Order::Alone,
    needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: WriteShareGroupStateRequest,
) -> WriteShareGroupStateResponse {
    let state_request = StateRequest::of(&cx, &caller, &request.group_id);
    let mut results = Vec::with_capacity(request.topics.len());
    for WriteStateData {
        topic_id,
        partitions,
        ..
    } in request.topics
    {
        let mut answered = Vec::with_capacity(partitions.len());
        for asked in partitions {
            let index = asked.partition;
            let work = |key| write(&cx, key, &asked);
            let outcome = state_request.answer(topic_id, index, work).await;
            let result = PartitionResult::default().with_partition(index);
            answered.push(match outcome {
                Ok(()) => result,
                Err((code, why)) => result.with_error_code(code).with_error_message(why),
            });
        }
        let result = WriteStateResult::default()
            .with_topic_id(topic_id)
            .with_partitions(answered);
        results.push(result);
    }
    WriteShareGroupStateResponse::default().with_results(results)
}

async fn write(cx: &Context, key: ShareKey, asked: &PartitionData) -> Result<(), ShareStateError> {
    let batches = asked.state_batches.iter().map(|batch| {
        Some(StateBatch {
            first: batch.first_offset,
            last: batch.last_offset,
            state: RecordState::of_id(batch.delivery_state)?,
            delivery_count: batch.delivery_count,
        })
    });
    let batches: Option<Vec<StateBatch>> = batches.collect();
    let batches = batches.filter(|batches| {
        let is_in_order = batches.is_sorted_by(|before, after| before.last < after.first);
        is_in_order && batches.iter().all(is_possible)
    });
    let batches = batches.ok_or(ShareStateError::InvalidRequest)?;
    let is_start = (-1..i64::MAX).contains(&asked.start_offset);
    if asked.state_epoch < 0 || asked.leader_epoch < 0 || !is_start {
        return Err(ShareStateError::InvalidRequest);
    }
    let [reading, number] = numbers(&asked.unknown_tagged_fields).unwrap_or_default();
    let written = WrittenState {
        order: WriteOrder { reading, number },
        state_epoch: asked.state_epoch,
        leader_epoch: asked.leader_epoch,
        start: asked.start_offset,
        delivery_complete_count: asked.delivery_complete_count,
        batches,
    };
    cx.shares.states.write(&key, written).await
}

/// Whether a log can have such records, and they can have been given out so often.
fn is_possible(batch: &StateBatch) -> bool {
    let is_range = batch.first >= 0 && batch.first <= batch.last && batch.last < i64::MAX;
    is_range && batch.delivery_count >= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_no_log_has_is_refused() {
        let is_possible = |first, last, delivery_count| {
            is_possible(&StateBatch {
                first,
                last,
                state: RecordState::Available,
                delivery_count,
            })
        };
        assert!(is_possible(0, 0, 0));
        assert!(is_possible(7, i64::MAX - 1, 1));
        assert!(!is_possible(-1, 3, 1));
        assert!(!is_possible(4, 3, 1));
        assert!(!is_possible(0, i64::MAX, 1));
        assert!(!is_possible(0, 3, -1));
    }
}
