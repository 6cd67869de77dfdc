//! DescribeProducers (key 61, v0; KIP-664): the producers that a partition remembers.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use metaq_protocol::messages::{
    ApiKey, DescribeProducersRequest, DescribeProducersResponse, ProducerId,
};
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::room::{NoRoom, Room};
use super::shared::{message, partition_of, text};
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::{ClusterError, check_topic_name};
use crate::log::Producer;
use crate::partition::Partition;

/// What a producer takes in an answer.
const PRODUCER_BYTES: usize = 150;

pub(super) const API: Api = Api {
    key: ApiKey::DescribeProducers,
    order: Order::Alone,
    needs: &[(Operation::Read, ResourceKind::Topic)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut room = Room::new(&cx);
    let image = cx.cluster.image();
    let topics = request.topics.into_iter().map(|topic| {
        let may_read = authorize(&cx, &caller, Operation::Read, Resource::Topic(&topic.name));
        let mut partition = |index: i32| {
            let answer = PartitionResponse::default().with_partition_index(index);
            if let Err(error) = check_topic_name(&topic.name) {
                let error = ClusterError::Name(error);
                return answer
                    .with_error_code(error.code())
                    .with_error_message(message(&error));
            }
            if let Err(denied) = &may_read {
                return answer
                    .with_error_code(denied.code())
                    .with_error_message(message(denied));
            }
            let producers = |partition: Arc<Partition>| {
                partition.log().with_producers(|all| {
                    room.grow(all.len() * PRODUCER_BYTES)?;
                    let producers = all.iter();
                    let producers = producers.map(|(id, producer)| described(id, producer));
                    Ok::<Vec<ProducerState>, NoRoom>(producers.collect())
                })
            };
            match partition_of(&cx, &topic.name, Uuid::nil(), index).map(producers) {
                Ok(Ok(producers)) => answer.with_active_producers(producers),
                Ok(Err(error)) => answer
                    .with_error_code(error.wire(ResponseError::RequestTimedOut).code())
                    .with_error_message(message(&error)),
                // As Kafka's KafkaApis and ReplicaManager.
                Err(error) => answer.with_error_code(error.code()).with_error_message(
                    (image.topic(&topic.name).is_none())
                        .then(|| text(ClusterError::UnknownTopic.to_string())),
                ),
            }
        };
        let partitions = topic
            .partition_indexes
            .iter()
            .copied()
            .map(&mut partition)
            .collect();
        TopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn described(id: i64, producer: &Producer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence())
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.transaction_first_offset)
}
