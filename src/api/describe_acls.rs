//! DescribeAcls (key 29, v1–v3; KIP-140): without an authorizer SECURITY_DISABLED, in Kafka's words.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, DescribeAclsRequest, DescribeAclsResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::DescribeAcls,
    order: Order::Alone,
    needs: &[(Operation::Describe, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// As Kafka's AclApis says it.
const NO_AUTHORIZER: &str = "No Authorizer is configured on the broker";

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    _request: DescribeAclsRequest,
) -> DescribeAclsResponse {
    let right = authorize(&cx, &caller, Operation::Describe, Resource::Cluster);
    let (error, why) = match right {
        Ok(()) => (ResponseError::SecurityDisabled, NO_AUTHORIZER.to_owned()),
        Err(denied) => (denied.wire(), denied.to_string()),
    };
    DescribeAclsResponse::default()
        .with_error_code(error.code())
        .with_error_message(message(&why))
}
