//! ListGroups (key 16, v0–v5; KIP-518, 848): all groups, by state and type where asked.

use std::sync::Arc;

use metaq_protocol::messages::list_groups_response::ListedGroup;
use metaq_protocol::messages::{ApiKey, GroupId, ListGroupsRequest, ListGroupsResponse};
use metaq_protocol::protocol::StrBytes;

use super::authorize::{Operation, Resource, ResourceKind, is_permitted};
use super::errors::WireError;
use super::shared::text;
use super::{Api, Caller, Context, Order, serve};
use crate::group::GroupListing;

pub(super) const API: Api = Api {
    key: ApiKey::ListGroups,
    order: Order::Alone,
    needs: &[
        (Operation::Describe, ResourceKind::Cluster),
        (Operation::Describe, ResourceKind::Group),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let all = match cx.coordinator.list().await {
        Ok(all) => all,
        Err(error) => return ListGroupsResponse::default().with_error_code(error.code()),
    };
    let among = |filter: &[StrBytes], value: &str| {
        filter.is_empty()
            || filter
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let all_are_visible = is_permitted(&cx, &caller, Operation::Describe, Resource::Cluster);
    let is_visible = |group: &GroupListing| {
        let group = Resource::Group(&group.group_id);
        all_are_visible || is_permitted(&cx, &caller, Operation::Describe, group)
    };
    let wanted = |group: &GroupListing| {
        is_visible(group)
            && among(&request.states_filter, group.state)
            && among(&request.types_filter, group.kind.name())
    };
    let list = |group: GroupListing| {
        let listed = ListedGroup::default()
            .with_group_id(GroupId(text(group.group_id)))
            .with_protocol_type(text(group.protocol_type));
        let listed = if caller.version >= 4 {
            listed.with_group_state(text(group.state))
        } else {
            listed
        };
        if caller.version >= 5 {
            listed.with_group_type(text(group.kind.name()))
        } else {
            listed
        }
    };
    ListGroupsResponse::default().with_groups(all.into_iter().filter(wanted).map(list).collect())
}
