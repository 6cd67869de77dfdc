//! Whether partitions are part of a transaction, and making them so: asked of the coordinator of its transactional id, which
//! may be another broker (Kafka's AddPartitionsToTxnManager).
//!
//! Tests: tests/transactions.rs.

use std::collections::BTreeMap;
use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::frame;
use metaq_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use metaq_protocol::messages::add_partitions_to_txn_response::AddPartitionsToTxnTopicResult;
use metaq_protocol::messages::{AddPartitionsToTxnRequest, ProducerId, TransactionalId};

use super::context::{Caller, Context};
use super::errors::WireError;
use super::shared::{text, topic_name};
use crate::cluster::Broker;
use crate::coordinator::Slot;
use crate::peer::Lane;
use crate::transaction::{AddPartitions, TransactionError};

/// AddPartitionsToTxn in this version is understood by every broker of a cluster.
const ADD_VERSION: i16 = 5;
/// Client id of what brokers ask coordinators for.
pub const TRANSACTIONS: &str = "metaq-transactions";
/// How long the coordinator may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What is asked of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// The partitions become part of the transaction (KIP-890: Produce 12, TxnOffsetCommit 5).
    Add,
    /// They have to be part of it already.
    Verify,
}

/// The outcome for each partition, in their order.
pub type Outcomes = Vec<Result<(), ResponseError>>;

/// Asks the coordinator of a transactional id about partitions, wherever it is. All of them are added, or none.
pub async fn in_transaction(
    cx: &Context,
    id: &str,
    request: AddPartitions,
    membership: Membership,
) -> Outcomes {
    let count = request.partitions.len();
    let image = cx.cluster.image();
    let coordinator = image.coordinator_of(Slot::of(id));
    match coordinator {
        Some(broker) if broker.id != cx.cluster.broker_id() => {
            ask(cx, broker, id, &request, membership)
                .await
                .unwrap_or_else(|error| vec![Err(error); count])
        }
        _ => here(cx, id, request, membership).await,
    }
}

/// The same, of this broker.
pub(super) async fn here(
    cx: &Context,
    id: &str,
    request: AddPartitions,
    membership: Membership,
) -> Outcomes {
    let count = request.partitions.len();
    let all = |error: TransactionError| vec![Err(error.wire()); count];
    match membership {
        Membership::Add => {
            let unknown = TransactionError::UnknownTopicOrPartition;
            let named = request.partitions.clone();
            match cx.transactions.add_partitions(id, request).await {
                Ok(()) => vec![Ok(()); count],
                Err(error) if error == unknown => not_added(cx, &named),
                Err(error) => all(error),
            }
        }
        Membership::Verify => match cx.transactions.verify_partitions(id, request).await {
            Ok(outcomes) => {
                let outcomes = outcomes.into_iter();
                let wire = |error: TransactionError| error.wire();
                outcomes.map(|outcome| outcome.map_err(wire)).collect()
            }
            Err(error) => all(error),
        },
    }
}

/// One partition that is not there fails all of them; the others were not tried.
fn not_added(cx: &Context, partitions: &[(String, i32)]) -> Outcomes {
    let outcome = |(topic, index): &(String, i32)| match is_known(cx, topic, *index) {
        true => Err(ResponseError::OperationNotAttempted),
        false => Err(ResponseError::UnknownTopicOrPartition),
    };
    let outcomes: Outcomes = partitions.iter().map(outcome).collect();
    match outcomes.contains(&Err(ResponseError::UnknownTopicOrPartition)) {
        true => outcomes,
        // It came to be known meanwhile.
        false => vec![Err(ResponseError::UnknownTopicOrPartition); partitions.len()],
    }
}

/// Whether the cluster has a partition.
pub(super) fn is_known(cx: &Context, topic: &str, index: i32) -> bool {
    let image = cx.cluster.image();
    let topic = image.topic_or_internal(topic);
    topic.is_some_and(|topic| topic.partition(index).is_some())
}

async fn ask(
    cx: &Context,
    broker: &Broker,
    id: &str,
    request: &AddPartitions,
    membership: Membership,
) -> Result<Outcomes, ResponseError> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in &request.partitions {
        topics.entry(topic).or_default().push(*index);
    }
    let topic = |(name, partitions)| {
        AddPartitionsToTxnTopic::default()
            .with_name(topic_name(name))
            .with_partitions(partitions)
    };
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(TransactionalId(text(id)))
        .with_producer_id(ProducerId(request.producer.id))
        .with_producer_epoch(request.producer.epoch)
        .with_verify_only(membership == Membership::Verify)
        .with_topics(topics.into_iter().map(topic).collect());
    let asked = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
    let frame = frame::encode_request(ADD_VERSION, 0, TRANSACTIONS, &asked)
        .map_err(|_| ResponseError::UnknownServerError)?;
    // As Kafka where a coordinator does not answer.
    let lane = Lane::Adds(crc32c::crc32c(id.as_bytes()) as usize % Lane::ADDS);
    let answer = cx.ask_broker_on(lane, broker, frame, ANSWER_MAX).await;
    let answer = answer.map_err(|error| {
        tracing::warn!(broker = broker.id, %error, "the coordinator of a transaction did not answer");
        ResponseError::NetworkException
    })?;
    let answer = answer.slice(answer.len().min(4)..);
    let (_, response) = frame::decode_response::<AddPartitionsToTxnRequest>(ADD_VERSION, answer)
        .map_err(|_| ResponseError::NetworkException)?;
    if let Some(error) = ResponseError::try_from_code(response.error_code) {
        return Err(error);
    }
    let result = response.results_by_transaction.into_iter().next();
    let result = result.ok_or(ResponseError::UnknownServerError)?;
    Ok(outcomes_in(&result.topic_results, &request.partitions))
}

fn outcomes_in(
    results: &[AddPartitionsToTxnTopicResult],
    partitions: &[(String, i32)],
) -> Outcomes {
    let mut codes: BTreeMap<(&str, i32), i16> = BTreeMap::new();
    for topic in results {
        for partition in &topic.results_by_partition {
            let at = (topic.name.as_str(), partition.partition_index);
            codes.insert(at, partition.partition_error_code);
        }
    }
    let outcome =
        |(topic, index): &(String, i32)| {
            let code = codes.get(&(topic.as_str(), *index));
            match code {
                Some(0) => Ok(()),
                Some(code) => Err(ResponseError::try_from_code(*code)
                    .unwrap_or(ResponseError::UnknownServerError)),
                None => Err(ResponseError::UnknownServerError),
            }
        };
    partitions.iter().map(outcome).collect()
}

/// PRODUCER_FENCED as clients know it that came before it.
pub(super) fn fenced_before(
    version_min: i16,
    caller: &Caller,
    error: ResponseError,
) -> ResponseError {
    match error {
        ResponseError::ProducerFenced if caller.version < version_min => {
            ResponseError::InvalidProducerEpoch
        }
        error => error,
    }
}
