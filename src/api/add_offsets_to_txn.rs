//! AddOffsetsToTxn (key 25, v0–v4; KIP-98): a group's offsets become part of a transaction, as the partition of
//! `__consumer_offsets` that stands for the group's slot.
//!
//! - Clients of version 2 of transactions do not ask: TxnOffsetCommit adds the group by itself (KIP-890).
//! - A fenced producer is INVALID_PRODUCER_EPOCH before v2.

use std::sync::Arc;

use metaq_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, ApiKey};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::in_transaction::fenced_before;
use super::{Api, Caller, Context, Order, serve};
use crate::coordinator::{InternalTopic, Slot};
use crate::transaction::{AddPartitions, Producer, TransactionVersion};

pub(super) const API: Api = Api {
    key: ApiKey::AddOffsetsToTxn,
    order: Order::Alone,
    needs: &[
        (Operation::Write, ResourceKind::TransactionalId),
        (Operation::Read, ResourceKind::Group),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// PRODUCER_FENCED is known to clients from this version on.
const FENCED_VERSION_MIN: i16 = 2;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let refuse = |code: i16| AddOffsetsToTxnResponse::default().with_error_code(code);
    let (id, group) = (&request.transactional_id, &request.group_id);
    let may_write = authorize(
        &cx,
        &caller,
        Operation::Write,
        Resource::TransactionalId(id),
    );
    let may =
        may_write.and_then(|()| authorize(&cx, &caller, Operation::Read, Resource::Group(group)));
    if let Err(denied) = may {
        return refuse(denied.code());
    }
    let topic = InternalTopic::ConsumerOffsets.name().to_owned();
    let add = AddPartitions {
        producer: Producer {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        },
        partitions: vec![(topic, Slot::of(group).number() as i32)],
        version: TransactionVersion::V0,
    };
    match cx.transactions.add_partitions(id, add).await {
        Ok(()) => AddOffsetsToTxnResponse::default(),
        Err(error) => {
            cx.note(&caller, id, error.code(), &error.to_string());
            refuse(fenced_before(FENCED_VERSION_MIN, &caller, error.wire()).code())
        }
    }
}
