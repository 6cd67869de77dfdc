//! InitProducerId (key 22, v0–v6; KIP-98, 360, 890, 939): an id for an idempotent producer, or the next epoch of one with a
//! transactional id.
//!
//! - Ids come from a reserved block; a request costs a durable write once in a thousand times.
//! - Without a transactional id every call gives a new id with epoch 0, as in Kafka.
//! - An id without an epoch, or the other way round, is INVALID_REQUEST.
//! - With a transactional id its coordinator answers. An ongoing transaction of an earlier producer is aborted first, which
//!   Kafka answers with CONCURRENT_TRANSACTIONS; here the answer waits for that, for a second.
//! - Two phases (v6): the transaction of an earlier producer can be kept, which Kafka 4.4 refuses. They need
//!   transaction.two.phase.commit.enable.
//! - A fenced producer is INVALID_PRODUCER_EPOCH before v4.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::authorize::{Denied, Operation, Resource, ResourceKind, authorize, is_permitted_some};
use super::errors::WireError;
use super::in_transaction::fenced_before;
use super::{Api, Caller, Context, Order, serve};
use crate::transaction::{Begin, Initialized, Producer};

pub(super) const API: Api = Api {
    key: ApiKey::InitProducerId,
    order: Order::Alone,
    needs: &[
        (Operation::IdempotentWrite, ResourceKind::Cluster),
        (Operation::Write, ResourceKind::Topic),
        (Operation::Write, ResourceKind::TransactionalId),
        (Operation::TwoPhaseCommit, ResourceKind::TransactionalId),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// PRODUCER_FENCED is known to clients from this version on.
const FENCED_VERSION_MIN: i16 = 4;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refuse = |error: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if let Err(denied) = may_begin(&cx, &caller, &request) {
        return refuse(denied.wire());
    }
    if (request.producer_id.0 == -1) != (request.producer_epoch == -1) {
        return refuse(ResponseError::InvalidRequest);
    }
    let Some(id) = &request.transactional_id else {
        return match cx.producer_ids.next().await {
            Ok(id) => InitProducerIdResponse::default()
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(0),
            Err(error) => refuse(error.wire()),
        };
    };
    let expected = Producer {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let begin = Begin {
        timeout_ms: request.transaction_timeout_ms,
        expected: (request.producer_id.0 != -1).then_some(expected),
        two_phase: request.enable_2_pc,
        keep_prepared: request.keep_prepared_txn,
    };
    match cx.transactions.init(id, begin).await {
        Ok(initialized) => answer(&initialized),
        Err(error) => {
            cx.note(&caller, id, error.code(), &error.to_string());
            refuse(fenced_before(FENCED_VERSION_MIN, &caller, error.wire()))
        }
    }
}

fn may_begin(cx: &Context, caller: &Caller, request: &InitProducerIdRequest) -> Result<(), Denied> {
    let Some(id) = &request.transactional_id else {
        // Who may write to any topic may do so idempotently (KIP-679).
        return match is_permitted_some(cx, caller, Operation::Write, ResourceKind::Topic) {
            true => Ok(()),
            false => authorize(cx, caller, Operation::IdempotentWrite, Resource::Cluster),
        };
    };
    let id = Resource::TransactionalId(id);
    authorize(cx, caller, Operation::Write, id)?;
    match request.enable_2_pc {
        true => authorize(cx, caller, Operation::TwoPhaseCommit, id),
        false => Ok(()),
    }
}

fn answer(initialized: &Initialized) -> InitProducerIdResponse {
    let ongoing = initialized.ongoing.unwrap_or(Producer::NONE);
    InitProducerIdResponse::default()
        .with_producer_id(ProducerId(initialized.producer.id))
        .with_producer_epoch(initialized.producer.epoch)
        .with_ongoing_txn_producer_id(ProducerId(ongoing.id))
        .with_ongoing_txn_producer_epoch(ongoing.epoch)
}
