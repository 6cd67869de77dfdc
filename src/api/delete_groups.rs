//! DeleteGroups (key 42, v0–v2; KIP-229): deletes empty groups with their offsets.

use std::sync::Arc;

use metaq_protocol::messages::delete_groups_response::DeletableGroupResult;
use metaq_protocol::messages::{ApiKey, DeleteGroupsRequest, DeleteGroupsResponse};

use super::errors::code_of;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::DeleteGroups,
    order: Order::Alone,
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(cx: Arc<Context>, _: Caller, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let outcome = cx.coordinator.delete(&group_id).await;
        results.push(
            DeletableGroupResult::default()
                .with_group_id(group_id)
                .with_error_code(code_of(&outcome)),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}
