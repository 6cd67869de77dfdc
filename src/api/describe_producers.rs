//! DescribeProducers (key 61, v0; KIP-664): the producers that a partition remembers.

use std::sync::Arc;

use metaq_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use metaq_protocol::messages::{
    ApiKey, DescribeProducersRequest, DescribeProducersResponse, ProducerId,
};
use uuid::Uuid;

use super::errors::WireError;
use super::shared::{message, partition_of};
use super::{Api, Caller, Context, Order, serve};
use crate::log::Producer;

pub(super) const API: Api = Api {
    key: ApiKey::DescribeProducers,
    order: Order::Alone,
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    _: Caller,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partition = |index: i32| {
            let answer = PartitionResponse::default().with_partition_index(index);
            match partition_of(&cx, &topic.name, Uuid::nil(), index) {
                Ok(partition) => {
                    answer.with_active_producers(partition.log().with_producers(|all| {
                        all.iter()
                            .map(|(id, producer)| described(id, producer))
                            .collect()
                    }))
                }
                Err(error) => answer
                    .with_error_code(error.code())
                    .with_error_message(message(&error)),
            }
        };
        let partitions = topic
            .partition_indexes
            .iter()
            .copied()
            .map(partition)
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
