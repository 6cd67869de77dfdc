//! DeleteAcls (key 31, v1–v3; KIP-140): without an authorizer SECURITY_DISABLED for each filter, in Kafka's words.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use metaq_protocol::messages::{ApiKey, DeleteAclsRequest, DeleteAclsResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::create_acls::NO_AUTHORIZER;
use super::errors::WireError;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::DeleteAcls,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DeleteAclsRequest,
) -> DeleteAclsResponse {
    let right = authorize(&cx, &caller, Operation::Alter, Resource::Cluster);
    let (error, why) = match right {
        Ok(()) => (ResponseError::SecurityDisabled, NO_AUTHORIZER.to_owned()),
        Err(denied) => (denied.wire(), denied.to_string()),
    };
    let refused = DeleteAclsFilterResult::default()
        .with_error_code(error.code())
        .with_error_message(message(&why));
    DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()])
}
