//! ListPartitionReassignments (key 46, v0; KIP-455): which partitions move to other brokers.
//!
//! - Without a list of topics all that move; topics and partitions that are not there, or do not move, are left out.

use std::sync::Arc;

use metaq_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use metaq_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use metaq_protocol::messages::{
    ApiKey, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{broker_ids, message, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::Topic;

pub(super) const API: Api = Api {
    key: ApiKey::ListPartitionReassignments,
    order: Order::Alone,
    needs: &[(Operation::Describe, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let answer = ListPartitionReassignmentsResponse::default();
    if let Err(denied) = authorize(&cx, &caller, Operation::Describe, Resource::Cluster) {
        return answer
            .with_topics(request.topics.into_iter().flatten().map(as_asked).collect())
            .with_error_code(denied.code())
            .with_error_message(message(&denied));
    }
    let image = cx.cluster.image();
    let topics: Vec<OngoingTopicReassignment> = match &request.topics {
        None => {
            let all = image.topics();
            all.filter_map(|topic| ongoing(topic, 0..topic.partitions.len() as i32))
                .collect()
        }
        Some(asked) => {
            let known = asked.iter().filter_map(|asked| {
                let topic = image.topic(&asked.name)?;
                ongoing(topic, asked.partition_indexes.iter().copied())
            });
            known.collect()
        }
    };
    answer.with_error_message(None).with_topics(topics)
}

/// What a request asks for, without anything of it (Kafka's ListPartitionReassignmentsRequest.getErrorResponse).
fn as_asked(asked: ListPartitionReassignmentsTopics) -> OngoingTopicReassignment {
    let indexes = asked.partition_indexes.into_iter();
    let partitions =
        indexes.map(|index| OngoingPartitionReassignment::default().with_partition_index(index));
    OngoingTopicReassignment::default()
        .with_name(asked.name)
        .with_partitions(partitions.collect())
}

/// The partitions of a topic that move; `None` where none does.
fn ongoing(
    topic: &Topic,
    indices: impl IntoIterator<Item = i32>,
) -> Option<OngoingTopicReassignment> {
    let partitions = indices.into_iter().filter_map(|index| {
        let info = topic.partition(index)?;
        let moves = !info.adding.is_empty() || !info.removing.is_empty();
        moves.then(|| {
            OngoingPartitionReassignment::default()
                .with_partition_index(index)
                .with_replicas(broker_ids(&info.replicas))
                .with_adding_replicas(broker_ids(&info.adding))
                .with_removing_replicas(broker_ids(&info.removing))
        })
    });
    let partitions: Vec<OngoingPartitionReassignment> = partitions.collect();
    (!partitions.is_empty()).then(|| {
        OngoingTopicReassignment::default()
            .with_name(topic_name(&topic.name))
            .with_partitions(partitions)
    })
}
