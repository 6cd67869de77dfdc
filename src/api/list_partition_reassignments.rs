//! ListPartitionReassignments (key 46, v0; KIP-455): partitions do not move between brokers, so that there are none.

use std::sync::Arc;

use metaq_protocol::messages::{
    ApiKey, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::ListPartitionReassignments,
    order: Order::Alone,
    needs: &[(Operation::Describe, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let none = ListPartitionReassignmentsResponse::default();
    match authorize(&cx, &caller, Operation::Describe, Resource::Cluster) {
        Ok(()) => none.with_error_message(None),
        Err(denied) => none
            .with_error_code(denied.code())
            .with_error_message(message(&denied)),
    }
}
