//! Heartbeat (key 12, v0–v4; KIP-345): a member says that it lives, and learns of rebalances.

use std::sync::Arc;

use metaq_protocol::messages::{ApiKey, HeartbeatRequest, HeartbeatResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::{WireError, code_of};
use super::shared::optional;
use super::{Api, Caller, Context, Order, serve};
use crate::group::Heartbeat;

pub(super) const API: Api = Api {
    key: ApiKey::Heartbeat,
    order: Order::Alone,
    needs: &[(Operation::Read, ResourceKind::Group)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(cx: Arc<Context>, caller: Caller, request: HeartbeatRequest) -> HeartbeatResponse {
    let group = Resource::Group(&request.group_id);
    if let Err(denied) = authorize(&cx, &caller, Operation::Read, group) {
        return HeartbeatResponse::default().with_error_code(denied.code());
    }
    let beat = Heartbeat {
        member_id: request.member_id.to_string(),
        instance_id: optional(&request.group_instance_id),
        generation: request.generation_id,
    };
    let outcome = cx.coordinator.heartbeat(&request.group_id, beat).await;
    if let Err(error) = &outcome {
        let (group, why) = (&request.group_id, error.to_string());
        cx.note(&caller, group, error.code(), &why);
    }
    HeartbeatResponse::default().with_error_code(code_of(&outcome))
}
