//! CreateAcls (key 30, v1–v3; KIP-140): without an authorizer SECURITY_DISABLED for each, in Kafka's words.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::create_acls_response::AclCreationResult;
use metaq_protocol::messages::{ApiKey, CreateAclsRequest, CreateAclsResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::CreateAcls,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// As Kafka's AclApis says it.
pub(super) const NO_AUTHORIZER: &str = "No Authorizer is configured.";

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: CreateAclsRequest,
) -> CreateAclsResponse {
    let right = authorize(&cx, &caller, Operation::Alter, Resource::Cluster);
    let (error, why) = match right {
        Ok(()) => (ResponseError::SecurityDisabled, NO_AUTHORIZER.to_owned()),
        Err(denied) => (denied.wire(), denied.to_string()),
    };
    let refused = AclCreationResult::default()
        .with_error_code(error.code())
        .with_error_message(message(&why));
    CreateAclsResponse::default().with_results(vec![refused; request.creations.len()])
}
