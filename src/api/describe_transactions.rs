//! DescribeTransactions (key 65, v0; KIP-664): state, producer and partitions of transactional ids.
//!
//! - An id that is not known is TRANSACTIONAL_ID_NOT_FOUND, an empty one INVALID_REQUEST.
//! - While markers are written, the partitions are those that have none yet.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use metaq_protocol::messages::{
    ApiKey, DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TransactionalId,
};

use super::authorize::{Operation, Resource, ResourceKind, authorize, is_permitted};
use super::errors::WireError;
use super::room::{NoRoom, Room};
use super::shared::{text, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::transaction::{TopicPartitions, TransactionDescription};

/// What an id takes in an answer, and a topic, bytes, roughly.
const ENTRY_BYTES: usize = 200;

pub(super) const API: Api = Api {
    key: ApiKey::DescribeTransactions,
    order: Order::Alone,
    needs: &[
        (Operation::Describe, ResourceKind::TransactionalId),
        (Operation::Describe, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let mut room = Room::new(&cx);
    let mut states = Vec::with_capacity(request.transactional_ids.len());
    for id in request.transactional_ids {
        let state = match find(&cx, &caller, &mut room, &id).await {
            Ok(found) => described(&cx, &caller, &found),
            Err(error) => TransactionState::default().with_error_code(error.code()),
        };
        states.push(state.with_transactional_id(id));
    }
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

async fn find(
    cx: &Context,
    caller: &Caller,
    room: &mut Room,
    id: &TransactionalId,
) -> Result<TransactionDescription, ResponseError> {
    let resource = Resource::TransactionalId(id);
    authorize(cx, caller, Operation::Describe, resource).map_err(|denied| denied.wire())?;
    let no_room = |error: NoRoom| error.wire(ResponseError::CoordinatorNotAvailable);
    room.check().map_err(no_room)?;
    let found = cx.transactions.describe(id).await;
    let found = found.map_err(|error| error.wire())?;
    let topics = found.partitions.topics();
    let bytes = |(topic, found): (&Arc<str>, &TopicPartitions)| {
        ENTRY_BYTES + topic.len() + size_of::<i32>() * found.partitions.len()
    };
    let bytes: usize = topics.map(bytes).sum();
    room.grow(ENTRY_BYTES + bytes).map_err(no_room)?;
    Ok(found)
}

fn described(cx: &Context, caller: &Caller, found: &TransactionDescription) -> TransactionState {
    let is_visible =
        |topic: &str| is_permitted(cx, caller, Operation::Describe, Resource::Topic(topic));
    let topics = found.partitions.topics();
    let topics = topics.filter(|(topic, _)| is_visible(topic));
    let topics = topics.map(|(topic, found)| {
        TopicData::default()
            .with_topic(topic_name(topic))
            .with_partitions(found.partitions.iter().copied().collect())
    });
    TransactionState::default()
        .with_transaction_state(text(found.state.name()))
        .with_transaction_timeout_ms(found.timeout_ms)
        .with_transaction_start_time_ms(found.start_ms)
        .with_producer_id(ProducerId(found.producer.id))
        .with_producer_epoch(found.producer.epoch)
        .with_topics(topics.collect())
}
