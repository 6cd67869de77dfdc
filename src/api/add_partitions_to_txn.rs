//! AddPartitionsToTxn (key 24, v0–v5; KIP-98, 890): partitions become part of a transaction.
//!
//! - v0 to v3 come from clients before version 2 of transactions, one transaction at a time; those from v4 on come from the
//!   leaders of partitions, for several, and may only look whether the partitions are part of it already.
//! - One bad partition fails all of its transaction: it gets its own error, the others OPERATION_NOT_ATTEMPTED. To clients
//!   that comes before all that the coordinator looks at, as in KafkaApis.
//! - A fenced producer is INVALID_PRODUCER_EPOCH before v2.
//!
//! Tests: tests/transactions.rs.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use metaq_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use metaq_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::in_transaction::{Membership, fenced_before, here, is_known};
use super::{Api, Caller, Context, Order, serve};
use crate::coordinator::InternalTopic;
use crate::transaction::{AddPartitions, Producer, TransactionVersion};

/// Transactions that are asked about at the same time: each waits for its coordinator.
const AT_ONCE: usize = 64;

pub(super) const API: Api = Api {
    key: ApiKey::AddPartitionsToTxn,
    order: Order::WithKin,
    needs: &[
        (Operation::Write, ResourceKind::TransactionalId),
        (Operation::Write, ResourceKind::Topic),
        (Operation::ClusterAction, ResourceKind::Cluster),
    ],
    start: |cx, caller, frame, mut stage| {
        if frame.version >= BROKERS_VERSION_MIN {
            // Of different producers, who wait for each other in no order.
            stage.ordered();
        }
        serve(cx, caller, frame, stage, handle)
    },
};

/// Brokers ask in this version and later.
const BROKERS_VERSION_MIN: i16 = 4;
/// PRODUCER_FENCED is known to clients from this version on.
const FENCED_VERSION_MIN: i16 = 2;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    if caller.version < BROKERS_VERSION_MIN {
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        let result = add(&cx, &caller, transaction).await;
        return AddPartitionsToTxnResponse::default()
            .with_results_by_topic_v3_and_below(result.topic_results);
    }
    let right = Operation::ClusterAction;
    if let Err(denied) = authorize(&cx, &caller, right, Resource::Cluster) {
        return AddPartitionsToTxnResponse::default().with_error_code(denied.code());
    }
    let transactions = stream::iter(request.transactions);
    let results = transactions.map(|transaction| add(&cx, &caller, transaction));
    let results = results.buffered(AT_ONCE).collect().await;
    AddPartitionsToTxnResponse::default().with_results_by_transaction(results)
}

/// Adds the partitions of one transaction, or looks for them in it.
async fn add(
    cx: &Context,
    caller: &Caller,
    transaction: AddPartitionsToTxnTransaction,
) -> AddPartitionsToTxnResult {
    let id = transaction.transactional_id.clone();
    let topics = &transaction.topics;
    let errors = match refusals(cx, caller, &transaction) {
        Some(errors) => errors,
        None => {
            let asked = AddPartitions {
                producer: Producer {
                    id: transaction.producer_id.0,
                    epoch: transaction.producer_epoch,
                },
                partitions: partitions_of(topics),
                version: match caller.version < BROKERS_VERSION_MIN {
                    true => TransactionVersion::V0,
                    false => TransactionVersion::V2,
                },
            };
            let membership = match transaction.verify_only {
                true => Membership::Verify,
                false => Membership::Add,
            };
            let outcomes = here(cx, &id, asked, membership).await;
            let outcomes = outcomes.into_iter().map(Result::err);
            outcomes.collect()
        }
    };
    let partitions = partitions_of(topics);
    let codes = errors.into_iter().map(|error| {
        error.map_or(0, |error| {
            fenced_before(FENCED_VERSION_MIN, caller, error).code()
        })
    });
    let codes: Vec<i16> = codes.collect();
    let outcomes = partitions.iter().zip(&codes);
    let outcomes = outcomes.map(|((topic, _), code)| (topic.as_str(), *code, ""));
    cx.note_all(caller, outcomes);
    AddPartitionsToTxnResult::default()
        .with_transactional_id(id)
        .with_topic_results(results(topics, &codes))
}

fn partitions_of(topics: &[AddPartitionsToTxnTopic]) -> Vec<(String, i32)> {
    let of = |topic: &AddPartitionsToTxnTopic| {
        let name = topic.name.to_string();
        let indices = topic.partitions.clone().into_iter();
        indices.map(move |index| (name.clone(), index))
    };
    topics.iter().flat_map(of).collect()
}

/// The codes of the partitions, in their order.
fn results(
    topics: &[AddPartitionsToTxnTopic],
    codes: &[i16],
) -> Vec<AddPartitionsToTxnTopicResult> {
    // As by Kafka: a topic without partitions is not in an answer that tells partitions apart.
    let tells_apart = |code: &i16| {
        let of_partitions = [
            ResponseError::OperationNotAttempted,
            ResponseError::UnknownTopicOrPartition,
            ResponseError::TopicAuthorizationFailed,
        ];
        of_partitions.iter().any(|error| error.code() == *code)
    };
    let are_told_apart = codes.iter().any(tells_apart);
    let mut codes = codes.iter();
    let result = |topic: &AddPartitionsToTxnTopic| {
        let partition = |index: &i32| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(codes.next().copied().unwrap_or_default())
        };
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(topic.partitions.iter().map(partition).collect())
    };
    let named = topics.iter();
    let named = named.filter(|topic| !are_told_apart || !topic.partitions.is_empty());
    named.map(result).collect()
}

/// What a client may not do: the error of each partition, where there is any.
fn refusals(
    cx: &Context,
    caller: &Caller,
    transaction: &AddPartitionsToTxnTransaction,
) -> Option<Vec<Option<ResponseError>>> {
    // Brokers ask of those that they lead, and are answered by what the transaction has.
    if caller.version >= BROKERS_VERSION_MIN {
        return None;
    }
    let partitions = partitions_of(&transaction.topics);
    let id = Resource::TransactionalId(&transaction.transactional_id);
    if let Err(denied) = authorize(cx, caller, Operation::Write, id) {
        return Some(vec![Some(denied.wire()); partitions.len()]);
    }
    let may_write = |topic: &str| match InternalTopic::named(topic) {
        Some(_) => Err(ResponseError::TopicAuthorizationFailed),
        None => authorize(cx, caller, Operation::Write, Resource::Topic(topic))
            .map_err(|denied| denied.wire()),
    };
    let refused = |(topic, index): &(String, i32)| match may_write(topic) {
        Err(error) => Some(error),
        Ok(()) if !is_known(cx, topic, *index) => Some(ResponseError::UnknownTopicOrPartition),
        Ok(()) => None,
    };
    let refused: Vec<Option<ResponseError>> = partitions.iter().map(refused).collect();
    if refused.iter().all(Option::is_none) {
        return None;
    }
    let not_tried =
        |error: Option<ResponseError>| Some(error.unwrap_or(ResponseError::OperationNotAttempted));
    Some(refused.into_iter().map(not_tried).collect())
}
