//! TxnOffsetCommit (key 28, v0–v6; KIP-98, 447, 890, 1319): offsets that become a group's with the producer's transaction.
//!
//! - Topics are named by their ids alone from v6 on.
//! - The transaction's coordinator is asked first whether the group is part of the transaction; from v5 on it makes it so.
//! - Members are checked from v3 on (KIP-447): by generation, whatever the group is doing.
//! - Answered after the coordination store has them. Fetches see them once the transaction is committed.
//!
//! Tests: tests/transactions.rs, tests/simulation.rs.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use metaq_protocol::messages::{ApiKey, TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::context::REFUSALS_NOTED_MAX;
use super::errors::{WireError, code_of};
use super::shared::{name_of, optional};
use super::transaction_check::{InTransaction, Support, check};
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::Topic;
use crate::coordinator::{InternalTopic, Slot};
use crate::group::{Guard, OffsetToCommit, TransactionalCommit};
use crate::transaction::Producer;

pub(super) const API: Api = Api {
    key: ApiKey::TxnOffsetCommit,
    order: Order::Alone,
    needs: &[
        (Operation::Write, ResourceKind::TransactionalId),
        (Operation::Read, ResourceKind::Group),
        (Operation::Read, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// Topics are named by their ids from this version on.
const BY_ID_VERSION_MIN: i16 = 6;
/// Older clients do not know COORDINATOR_LOAD_IN_PROGRESS (KAFKA-7296).
const LOADING_VERSION_MIN: i16 = 2;
/// Older clients are told of an old generation where there is no group (KIP-1319).
const NO_GROUP_VERSION_MIN: i16 = 6;

fn in_version(code: i16, version: i16) -> i16 {
    let is = |error: ResponseError| code == error.code();
    if is(ResponseError::GroupIdNotFound) && version < NO_GROUP_VERSION_MIN {
        return ResponseError::IllegalGeneration.code();
    }
    if is(ResponseError::CoordinatorLoadInProgress) && version < LOADING_VERSION_MIN {
        return ResponseError::CoordinatorNotAvailable.code();
    }
    code
}

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let sorted = sort(&cx, &caller, &request);
    let Sorted {
        mut topics,
        offsets,
        places,
    } = sorted;
    if !offsets.is_empty() {
        let codes = match commit(&cx, &caller, &request, offsets).await {
            Ok(codes) => codes,
            Err(error) => vec![error.code(); places.len()],
        };
        for ((topic, partition), code) in places.into_iter().zip(codes) {
            topics[topic].partitions[partition].error_code = in_version(code, caller.version);
        }
    }
    note(&cx, &caller, &request, &topics);
    TxnOffsetCommitResponse::default().with_topics(topics)
}

/// What is answered at once, and what is to be stored.
#[derive(Default)]
struct Sorted {
    topics: Vec<TxnOffsetCommitResponseTopic>,
    offsets: Vec<OffsetToCommit>,
    /// Where each offset is answered.
    places: Vec<(usize, usize)>,
}

fn sort(cx: &Context, caller: &Caller, request: &TxnOffsetCommitRequest) -> Sorted {
    let id = &request.transactional_id;
    let of_transaction = Resource::TransactionalId(id);
    let allowed = authorize(cx, caller, Operation::Write, of_transaction);
    let of_group = Resource::Group(&request.group_id);
    let allowed = allowed.and_then(|()| authorize(cx, caller, Operation::Read, of_group));
    let image = cx.cluster.image();
    let is_by_id = caller.version >= BY_ID_VERSION_MIN;
    let mut sorted = Sorted::default();
    for topic in &request.topics {
        let known = match is_by_id {
            true => image.topic_by_id(topic.topic_id).map(|topic| &**topic),
            false => image.topic(&topic.name).map(|topic| &**topic),
        };
        let name = known.map_or(&**topic.name, |topic| &*topic.name);
        let of_topic = || match is_by_id && known.is_none() {
            true => Err(ResponseError::UnknownTopicId.code()),
            false => authorize(cx, caller, Operation::Read, Resource::Topic(name))
                .map_err(|denied| denied.code()),
        };
        let allowed = allowed.as_ref().map_err(WireError::code);
        let refused = allowed.and_then(|()| of_topic()).err();
        // As by Kafka, nothing is said of a topic that is there and of which nothing was asked.
        if topic.partitions.is_empty() && refused.is_none() && known.is_some() {
            continue;
        }
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let index = asked.partition_index;
            let code = refused.or_else(|| unknown(known, index));
            let response = TxnOffsetCommitResponsePartition::default().with_partition_index(index);
            if let Some(code) = code {
                partitions.push(response.with_error_code(code));
                continue;
            }
            sorted.places.push((sorted.topics.len(), partitions.len()));
            partitions.push(response);
            sorted.offsets.push(OffsetToCommit {
                topic: name.to_owned(),
                partition: index,
                offset: asked.committed_offset,
                leader_epoch: asked.committed_leader_epoch,
                metadata: optional(&asked.committed_metadata).unwrap_or_default(),
            });
        }
        let response = TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id);
        sorted.topics.push(response.with_partitions(partitions));
    }
    sorted
}

fn unknown(topic: Option<&Topic>, index: i32) -> Option<i16> {
    let is_there = topic.is_some_and(|topic| topic.partition(index).is_some());
    (!is_there).then(|| ResponseError::UnknownTopicOrPartition.code())
}

/// A code for each offset.
async fn commit(
    cx: &Context,
    caller: &Caller,
    request: &TxnOffsetCommitRequest,
    offsets: Vec<OffsetToCommit>,
) -> Result<Vec<i16>, ResponseError> {
    let guard = verify(cx, caller, request).await?;
    let commit = TransactionalCommit {
        producer_id: request.producer_id.0,
        producer_epoch: request.producer_epoch,
        guard,
        member_id: request.member_id.to_string(),
        instance_id: optional(&request.group_instance_id),
        generation: request.generation_id_or_member_epoch,
        offsets,
    };
    let outcomes = cx
        .coordinator
        .commit_transactional(&request.group_id, commit)
        .await;
    let outcomes = outcomes.map_err(|error| error.wire())?;
    Ok(outcomes.iter().map(code_of).collect())
}

/// Asks the transaction's coordinator, unless the transaction has offsets here already.
async fn verify(
    cx: &Context,
    caller: &Caller,
    request: &TxnOffsetCommitRequest,
) -> Result<Option<Guard>, ResponseError> {
    let producer = (request.producer_id.0, request.producer_epoch);
    let guard = cx
        .coordinator
        .verify_transaction(&request.group_id, producer)
        .await
        .map_err(|error| error.wire())?;
    if guard.is_none() {
        return Ok(None);
    }
    let of = InTransaction {
        transactional_id: &request.transactional_id,
        producer: Producer {
            id: producer.0,
            epoch: producer.1,
        },
        support: Support::of_txn_offset_commit(caller.version),
    };
    let slot = Slot::of(&request.group_id).number() as i32;
    let partition = (InternalTopic::ConsumerOffsets.name().to_owned(), slot);
    let outcomes = check(cx, of, vec![partition]).await;
    match outcomes.into_iter().find_map(Result::err) {
        None => Ok(guard),
        // Clients try that again without looking for the coordinator (Kafka's
        // GroupCoordinatorService.handleOperationException).
        Some(ResponseError::NetworkException) => Err(ResponseError::CoordinatorLoadInProgress),
        Some(error) => Err(error),
    }
}

fn note(
    cx: &Context,
    caller: &Caller,
    request: &TxnOffsetCommitRequest,
    topics: &[TxnOffsetCommitResponseTopic],
) {
    let all = topics.iter().flat_map(|topic| {
        let refused = topic.partitions.iter().filter(|one| one.error_code != 0);
        refused.map(move |one| (topic, one))
    });
    for (topic, one) in all.take(REFUSALS_NOTED_MAX) {
        let named = match caller.version >= BY_ID_VERSION_MIN {
            true => name_of(cx, topic.topic_id),
            false => topic.name.to_string(),
        };
        let group = &*request.group_id;
        let subject = format!("{group} {named}-{}", one.partition_index);
        cx.note(caller, &subject, one.error_code, "");
    }
}
