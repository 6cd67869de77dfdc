//! EndTxn (key 26, v0–v5; KIP-98, 890): a transaction commits or aborts.
//!
//! - Answered when the decision is durable, before any marker is written. A retry gets the same answer.
//! - From v5 on (version 2 of transactions) every end begins a new epoch, which the answer tells, or a new producer id.
//! - A fenced producer is INVALID_PRODUCER_EPOCH before v2.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, EndTxnRequest, EndTxnResponse, ProducerId};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::in_transaction::fenced_before;
use super::{Api, Caller, Context, Order, serve};
use crate::log::{Outcome, TransactionVersion};
use crate::transaction::{End, Producer};

pub(super) const API: Api = Api {
    key: ApiKey::EndTxn,
    order: Order::Alone,
    needs: &[(Operation::Write, ResourceKind::TransactionalId)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// From this version on clients know that each end begins a new epoch.
const V2_VERSION_MIN: i16 = 5;
/// PRODUCER_FENCED is known to clients from this version on.
const FENCED_VERSION_MIN: i16 = 2;

async fn handle(cx: Arc<Context>, caller: Caller, request: EndTxnRequest) -> EndTxnResponse {
    let refuse = |error: ResponseError| answer(Producer::NONE).with_error_code(error.code());
    let id = &request.transactional_id;
    let resource = Resource::TransactionalId(id);
    if let Err(denied) = authorize(&cx, &caller, Operation::Write, resource) {
        return refuse(denied.wire());
    }
    let end = End {
        producer: Producer {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        },
        outcome: match request.committed {
            true => Outcome::Commit,
            false => Outcome::Abort,
        },
        version: match caller.version >= V2_VERSION_MIN {
            true => TransactionVersion::V2,
            false => TransactionVersion::V0,
        },
    };
    match cx.transactions.end(id, end).await {
        Ok(producer) if end.version == TransactionVersion::V2 => answer(producer),
        Ok(_) => answer(Producer::NONE),
        Err(error) => {
            cx.note(&caller, id, error.code(), &error.to_string());
            refuse(fenced_before(FENCED_VERSION_MIN, &caller, error.wire()))
        }
    }
}

fn answer(producer: Producer) -> EndTxnResponse {
    EndTxnResponse::default()
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
}
