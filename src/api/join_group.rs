//! JoinGroup (key 11, v0–v9; KIP-62, 134, 345, 394, 559, 800, 814): a place in the next generation of a group.
//!
//! - Answered when the generation is formed. From v4 on a new dynamic member is first asked to come back with
//!   an id; a static member never is.
//! - Before v1 the rebalance timeout is the session timeout.

use std::sync::Arc;

use bytes::Bytes;
use metaq_protocol::messages::join_group_response::JoinGroupResponseMember;
use metaq_protocol::messages::{ApiKey, JoinGroupRequest, JoinGroupResponse};
use metaq_protocol::protocol::StrBytes;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{optional, text};
use super::{Api, Caller, Context, Order, serve};
use crate::group::{GroupError, JoinReply, JoinRequest};

pub(super) const API: Api = Api {
    key: ApiKey::JoinGroup,
    order: Order::Alone,
    needs: &[(Operation::Read, ResourceKind::Group)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(cx: Arc<Context>, caller: Caller, request: JoinGroupRequest) -> JoinGroupResponse {
    let group = Resource::Group(&request.group_id);
    if let Err(denied) = authorize(&cx, &caller, Operation::Read, group) {
        return failed(caller.version, &denied);
    }
    let group_id = request.group_id.to_string();
    let member_id = request.member_id.clone();
    let version = caller.version;
    let rebalance_timeout_ms = if version >= 1 {
        request.rebalance_timeout_ms
    } else {
        request.session_timeout_ms
    };
    let join = JoinRequest {
        member_id: member_id.to_string(),
        instance_id: optional(&request.group_instance_id),
        client_id: optional(&caller.client_id).unwrap_or_default(),
        client_host: caller.host(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .into_iter()
            // Copied: a slice would keep the whole frame for as long as the member is there.
            .map(|p| (p.name.to_string(), Bytes::copy_from_slice(&p.metadata)))
            .collect(),
        member_id_required: version >= 4,
        can_skip_assignment: version >= 9,
        reason: optional(&request.reason).unwrap_or_default(),
        connection: Some(caller.session.id()),
        reserved: None,
    };
    match cx.coordinator.join(&group_id, join).await {
        Ok(reply) if reply.generation < 0 => {
            failed(version, &GroupError::MemberIdRequired).with_member_id(text(reply.member_id))
        }
        Ok(reply) => joined(version, reply),
        Err(error) => {
            let why = error.to_string();
            cx.note(&caller, &group_id, error.code(), &why);
            failed(version, &error).with_member_id(member_id)
        }
    }
}

fn joined(version: i16, reply: JoinReply) -> JoinGroupResponse {
    let member = |(id, instance, metadata): (String, Option<String>, bytes::Bytes)| {
        let member = JoinGroupResponseMember::default()
            .with_member_id(text(id))
            .with_metadata(metadata);
        if version >= 5 {
            member.with_group_instance_id(instance.map(text))
        } else {
            member
        }
    };
    let response = JoinGroupResponse::default()
        .with_generation_id(reply.generation)
        .with_protocol_name(protocol_name(version, reply.protocol.unwrap_or_default()))
        .with_leader(text(reply.leader))
        .with_member_id(text(reply.member_id))
        .with_members(reply.members.into_iter().map(member).collect());
    let response = if version >= 7 {
        response.with_protocol_type(reply.protocol_type.map(text))
    } else {
        response
    };
    if version >= 9 {
        response.with_skip_assignment(reply.skip_assignment)
    } else {
        response
    }
}

/// From v7 on one without a name is null (JoinGroupResponse).
fn protocol_name(version: i16, name: String) -> Option<StrBytes> {
    (version < 7 || !name.is_empty()).then(|| text(name))
}

fn failed(version: i16, error: &impl WireError) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_protocol_name(protocol_name(version, String::new()))
}
