//! OffsetForLeaderEpoch (key 23, v2–v4; KIP-101, 320): where a leader epoch ended, to find diverging logs.
//!
//! - Answered by the leader only. An epoch that is newer than the leader's has no end: -1.

use std::sync::Arc;

use metaq_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use metaq_protocol::messages::{ApiKey, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize, is_permitted};
use super::errors::WireError;
use super::shared::partition_of;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::OffsetForLeaderEpoch,
    order: Order::Alone,
    needs: &[
        (Operation::ClusterAction, ResourceKind::Cluster),
        (Operation::Describe, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    // Brokers may ask of every topic.
    let right = Operation::ClusterAction;
    let may_ask_all = is_permitted(&cx, &caller, right, Resource::Cluster);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            let resource = Resource::Topic(&topic.topic);
            let may_describe = match may_ask_all {
                true => Ok(()),
                false => authorize(&cx, &caller, Operation::Describe, resource),
            };
            let found = may_describe.map_err(|denied| denied.wire()).and_then(|()| {
                partition_of(&cx, &topic.topic, Uuid::nil(), asked.partition)
                    .map_err(|error| error.wire())
            });
            let found = found.and_then(|partition| {
                match partition.check_epoch(asked.current_leader_epoch) {
                    Ok(()) => Ok(partition.epoch_end(asked.leader_epoch)),
                    Err(error) => Err(error.wire()),
                }
            });
            partitions.push(match found {
                Ok(end) => {
                    let (epoch, end_offset) = end.unwrap_or((-1, -1));
                    answer.with_leader_epoch(epoch).with_end_offset(end_offset)
                }
                Err(error) => answer
                    .with_error_code(error.code())
                    .with_leader_epoch(-1)
                    .with_end_offset(-1),
            });
        }
        topics.push(
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic)
                .with_partitions(partitions),
        );
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}
