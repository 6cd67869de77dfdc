//! DescribeClientQuotas (key 48, v0–v1; KIP-546): quotas are not served, so that there are none.

use std::sync::Arc;

use metaq_protocol::messages::{ApiKey, DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::DescribeClientQuotas,
    order: Order::Alone,
    needs: &[(Operation::DescribeConfigs, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    _request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let none = DescribeClientQuotasResponse::default();
    let right = Operation::DescribeConfigs;
    match authorize(&cx, &caller, right, Resource::Cluster) {
        Ok(()) => none.with_error_message(None),
        Err(denied) => none
            .with_error_code(denied.code())
            .with_error_message(message(&denied))
            .with_entries(None),
    }
}
