//! DeleteGroups (key 42, v0–v3; KIP-229, 1331): deletes empty groups with their offsets.
//!
//! - A group that is named twice is deleted and answered once.
//! - A share group forgets its share partitions first, then what is stored of them goes, then the group: one that stays because a
//!   member joins meanwhile begins anew, and one that stays because a broker died can be deleted again.
//! - Errors have no text (v3): Kafka gives one to streams groups alone.

use std::collections::HashSet;
use std::sync::Arc;

use metaq_protocol::messages::delete_groups_response::DeletableGroupResult;
use metaq_protocol::messages::{ApiKey, DeleteGroupsRequest, DeleteGroupsResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::delete_share_group_offsets::delete_states;
use super::errors::{WireError, code_of};
use super::{Api, Caller, Context, Order, serve};
use crate::group::GroupError;

pub(super) const API: Api = Api {
    key: ApiKey::DeleteGroups,
    order: Order::Alone,
    needs: &[(Operation::Delete, ResourceKind::Group)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    let mut named = HashSet::new();
    for group_id in request.groups_names {
        // One that is named several times is answered once, as by Kafka.
        if !named.insert(group_id.clone()) {
            continue;
        }
        let group = Resource::Group(&group_id);
        let code = match authorize(&cx, &caller, Operation::Delete, group) {
            Ok(()) => delete(&cx, &group_id).await,
            Err(denied) => denied.code(),
        };
        results.push(
            DeletableGroupResult::default()
                .with_group_id(group_id)
                .with_error_code(code),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}

/// Deletes a group, and of a share group what is stored of its share partitions; an error code.
async fn delete(cx: &Context, group_id: &str) -> i16 {
    match cx.coordinator.share_delete(group_id, None).await {
        Ok(known) => {
            for (topic_id, partitions) in &known.topics {
                let what = (*topic_id, partitions.as_slice());
                let deleted = delete_states(cx, group_id, what, known.state_epoch).await;
                if let Err((error, _)) = deleted {
                    return error.code();
                }
            }
        }
        // It is no share group, or has no name that one could have.
        Err(GroupError::GroupIdNotFound | GroupError::InvalidGroupId) => {}
        Err(error) => return error.code(),
    }
    code_of(&cx.coordinator.delete(group_id).await)
}
