//! LeaveGroup (key 13, v0–v5; KIP-345, 800): takes members out of a group.
//!
//! - From v3 on several at a time, each by member id, instance id, or both, with an answer for each.

use std::sync::Arc;

use metaq_protocol::messages::leave_group_response::MemberResponse;
use metaq_protocol::messages::{ApiKey, LeaveGroupRequest, LeaveGroupResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::{WireError, code_of};
use super::shared::{optional, text};
use super::{Api, Caller, Context, Order, serve};
use crate::group::LeaveMember;

pub(super) const API: Api = Api {
    key: ApiKey::LeaveGroup,
    order: Order::Alone,
    needs: &[(Operation::Read, ResourceKind::Group)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let group = Resource::Group(&request.group_id);
    if let Err(denied) = authorize(&cx, &caller, Operation::Read, group) {
        return LeaveGroupResponse::default().with_error_code(denied.code());
    }
    let single = caller.version < 3;
    let members: Vec<LeaveMember> = match single {
        true => vec![LeaveMember {
            member_id: request.member_id.to_string(),
            instance_id: None,
            reason: "not given".to_owned(),
        }],
        false => request
            .members
            .iter()
            .map(|member| LeaveMember {
                member_id: member.member_id.to_string(),
                instance_id: optional(&member.group_instance_id),
                reason: optional(&member.reason).unwrap_or_default(),
            })
            .collect(),
    };
    let outcomes = match cx
        .coordinator
        .leave(&request.group_id, members.clone())
        .await
    {
        Ok(outcomes) => outcomes,
        Err(error) => return LeaveGroupResponse::default().with_error_code(error.code()),
    };
    if single {
        return LeaveGroupResponse::default().with_error_code(outcomes.first().map_or(0, code_of));
    }
    let answer = |(member, outcome): (LeaveMember, &Result<(), crate::group::GroupError>)| {
        MemberResponse::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.instance_id.map(text))
            .with_error_code(code_of(outcome))
    };
    LeaveGroupResponse::default()
        .with_members(members.into_iter().zip(&outcomes).map(answer).collect())
}
