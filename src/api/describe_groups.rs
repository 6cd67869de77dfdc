//! DescribeGroups (key 15, v0–v6; KIP-430, 1043): state, members and assignments of groups.
//!
//! - A group that does not exist, or is no classic one, is Dead without an error; from v6 on GROUP_ID_NOT_FOUND with a message.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use metaq_protocol::messages::{ApiKey, DescribeGroupsRequest, DescribeGroupsResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize, authorized_operations};
use super::errors::WireError;
use super::room::{NoRoom, Room};
use super::shared::{OPERATIONS_OMITTED, message, text};
use super::{Api, Caller, Context, Order, serve};
use crate::group::{Described, GroupDescription, GroupError, MemberDescription};

/// What a member takes in an answer besides what it brought.
const MEMBER_BYTES: usize = 400;

pub(super) const API: Api = Api {
    key: ApiKey::DescribeGroups,
    order: Order::Alone,
    needs: &[(Operation::Describe, ResourceKind::Group)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// A group that is not there is an error from this version on (KIP-1043).
const NOT_FOUND_VERSION_MIN: i16 = 6;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let version = caller.version;
    let asked = version >= 3 && request.include_authorized_operations;
    let mut groups = Vec::with_capacity(request.groups.len());
    let mut room = Room::new(&cx);
    for group_id in request.groups {
        let resource = Resource::Group(&group_id);
        let found = match authorize(&cx, &caller, Operation::Describe, resource) {
            Ok(()) => find(&cx, &mut room, &group_id).await,
            Err(denied) => Err(denied.wire()),
        };
        // Not of one that is refused, or in newer versions is not there.
        let is_described = match &found {
            Ok(Found::Classic(_)) => true,
            Ok(_) => version < NOT_FOUND_VERSION_MIN,
            Err(_) => false,
        };
        let operations = match asked && is_described {
            true => authorized_operations(&cx, &caller.session, resource),
            false => OPERATIONS_OMITTED,
        };
        let group = DescribedGroup::default().with_authorized_operations(operations);
        groups.push(match found {
            Ok(Found::Classic(found)) => group
                .with_group_id(group_id)
                .with_group_state(text(found.state))
                .with_protocol_type(text(found.protocol_type))
                .with_protocol_data(text(found.protocol))
                .with_members(
                    found
                        .members
                        .into_iter()
                        .map(|member| described(version, member))
                        .collect(),
                ),
            Ok(other) if version >= NOT_FOUND_VERSION_MIN => {
                let why = match other {
                    Found::Nothing => format!("Group {} not found.", group_id.0),
                    _ => format!("Group {} is not a classic group.", group_id.0),
                };
                group
                    .with_group_id(group_id)
                    .with_group_state(text("Dead"))
                    .with_error_code(GroupError::GroupIdNotFound.code())
                    .with_error_message(message(&why))
            }
            Ok(_) => group.with_group_id(group_id).with_group_state(text("Dead")),
            Err(error) => group.with_group_id(group_id).with_error_code(error.code()),
        });
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

/// What there is of a name.
enum Found {
    Classic(GroupDescription),
    /// A group of another protocol.
    Other,
    Nothing,
}

/// A group, where there is one, and where there is memory for it.
async fn find(cx: &Context, room: &mut Room, group_id: &str) -> Result<Found, ResponseError> {
    let no_room = |error: NoRoom| error.wire(ResponseError::CoordinatorNotAvailable);
    room.check().map_err(no_room)?;
    match cx.coordinator.describe(group_id).await {
        Ok(Some(Described::Classic(found))) => room
            .grow(described_bytes(&found))
            .map(|()| Found::Classic(found))
            .map_err(no_room),
        Ok(Some(_)) => Ok(Found::Other),
        Ok(None) => Ok(Found::Nothing),
        Err(error) => Err(error.wire()),
    }
}

/// What a group takes in the answer, roughly.
fn described_bytes(group: &GroupDescription) -> usize {
    let member = |member: &MemberDescription| {
        let texts = member.member_id.len() + member.client_id.len() + member.client_host.len();
        MEMBER_BYTES + texts + member.metadata.len() + member.assignment.len()
    };
    group.members.iter().map(member).sum()
}

fn described(version: i16, member: MemberDescription) -> DescribedGroupMember {
    let described = DescribedGroupMember::default()
        .with_member_id(text(member.member_id))
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment);
    if version >= 4 {
        described.with_group_instance_id(member.instance_id.map(text))
    } else {
        described
    }
}
