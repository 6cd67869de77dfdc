//! InitProducerId (key 22, v0–v5; KIP-98, 360): an id for an idempotent producer.
//!
//! - Ids come from a reserved block; a request costs a durable write once in a thousand times.
//! - Without a transactional id every call gives a new id with epoch 0, as in Kafka.
//! - An id without an epoch, or the other way round, is INVALID_REQUEST.
//! - With a transactional id it is refused with INVALID_REQUEST: transactions are not served yet.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::InitProducerId,
    order: Order::Alone,
    needs: &[(Operation::IdempotentWrite, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

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
    let right = Operation::IdempotentWrite;
    if let Err(denied) = authorize(&cx, &caller, right, Resource::Cluster) {
        return refuse(denied.wire());
    }
    if (request.producer_id.0 == -1) != (request.producer_epoch == -1) {
        return refuse(ResponseError::InvalidRequest);
    }
    if let Some(id) = &request.transactional_id {
        let (error, why) = (
            ResponseError::InvalidRequest,
            "transactions are not served yet",
        );
        cx.note(&caller, id, error.code(), why);
        return refuse(ResponseError::InvalidRequest);
    }
    match cx.producer_ids.next().await {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(0),
        Err(error) => refuse(error.wire()),
    }
}
