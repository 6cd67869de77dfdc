//! SyncGroup (key 14, v0–v5; KIP-345, 559): a member's assignment; the leader brings everybody's.
//!
//! - Followers wait until the leader has synced and the assignment is durable.
//! - From v5 on the protocol's type and name must be there, and are checked against the group's (KIP-559).

use std::sync::Arc;

use bytes::Bytes;
use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, SyncGroupRequest, SyncGroupResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{optional, text};
use super::{Api, Caller, Context, Order, serve};
use crate::group::SyncRequest;

pub(super) const API: Api = Api {
    key: ApiKey::SyncGroup,
    order: Order::Alone,
    needs: &[(Operation::Read, ResourceKind::Group)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// The protocol is named from this version on.
const PROTOCOL_VERSION_MIN: i16 = 5;

async fn handle(cx: Arc<Context>, caller: Caller, request: SyncGroupRequest) -> SyncGroupResponse {
    let is_named = request.protocol_type.is_some() && request.protocol_name.is_some();
    if caller.version >= PROTOCOL_VERSION_MIN && !is_named {
        let error = ResponseError::InconsistentGroupProtocol.code();
        cx.note(&caller, &request.group_id, error, "no protocol is named");
        return SyncGroupResponse::default().with_error_code(error);
    }
    let group = Resource::Group(&request.group_id);
    if let Err(denied) = authorize(&cx, &caller, Operation::Read, group) {
        return SyncGroupResponse::default().with_error_code(denied.code());
    }
    let sync = SyncRequest {
        member_id: request.member_id.to_string(),
        instance_id: optional(&request.group_instance_id),
        generation: request.generation_id,
        protocol_type: optional(&request.protocol_type),
        protocol: optional(&request.protocol_name),
        assignments: request
            .assignments
            .into_iter()
            // Copied: a slice would keep the whole frame for as long as the member is there.
            .map(|a| {
                let assignment = Bytes::copy_from_slice(&a.assignment);
                (a.member_id.to_string(), assignment)
            })
            .collect(),
        reserved: None,
    };
    match cx.coordinator.sync(&request.group_id, sync).await {
        Ok(reply) => {
            let response = SyncGroupResponse::default().with_assignment(reply.assignment);
            if caller.version < PROTOCOL_VERSION_MIN {
                return response;
            }
            response
                .with_protocol_type(reply.protocol_type.map(text))
                .with_protocol_name(reply.protocol.map(text))
        }
        Err(error) => {
            let (group, why) = (&request.group_id, error.to_string());
            cx.note(&caller, group, error.code(), &why);
            SyncGroupResponse::default().with_error_code(error.code())
        }
    }
}
