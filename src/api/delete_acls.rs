//! DeleteAcls (key 31, v1–v3; KIP-140, KIP-290): deletes the bindings that filters ask for, and tells which, by the controller.
//! Without an authorizer SECURITY_DISABLED for each filter, in Kafka's words.
//!
//! - What two filters ask for is told to both.
//! - A request with an element of code 0 ends the connection, as Kafka's, which does not read it.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::delete_acls_request::DeleteAclsFilter;
use metaq_protocol::messages::delete_acls_response::{
    DeleteAclsFilterResult, DeleteAclsMatchingAcl,
};
use metaq_protocol::messages::{ApiKey, DeleteAclsRequest, DeleteAclsResponse};

use super::acl_bindings::{ACL_FILTERS_MAX, UNKNOWN_ELEMENT, check_filter, filter, is_any_unknown};
use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::create_acls::NO_AUTHORIZER;
use super::errors::WireError;
use super::shared::{message, text};
use super::{Api, Caller, Context, Order, serve_by_controller, unless};
use crate::security::{Binding, Filter};

pub(super) const API: Api = Api {
    key: ApiKey::DeleteAcls,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| {
        unless(is_unreadable, UNKNOWN_ELEMENT, frame, |frame| {
            serve_by_controller(cx, caller, frame, stage, handle)
        })
    },
};

fn is_unreadable(request: &DeleteAclsRequest) -> bool {
    request.filters.iter().any(|asked| {
        is_any_unknown([
            asked.resource_type_filter,
            asked.pattern_type_filter,
            asked.operation,
            asked.permission_type,
        ])
    })
}

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DeleteAclsRequest,
) -> DeleteAclsResponse {
    let results = delete(&cx, &caller, &request.filters).await;
    let results =
        results.unwrap_or_else(|(error, why)| vec![refused(error, &why); request.filters.len()]);
    let outcomes = request.filters.iter().zip(&results);
    let outcomes = outcomes.map(|(asked, result)| {
        let name = asked.resource_name_filter.as_deref().unwrap_or_default();
        let why = result.error_message.as_deref().unwrap_or_default();
        (name, result.error_code, why)
    });
    cx.note_all(&caller, outcomes);
    DeleteAclsResponse::default().with_filter_results(results)
}

/// The results, or the error of all.
async fn delete(
    cx: &Context,
    caller: &Caller,
    asked: &[DeleteAclsFilter],
) -> Result<Vec<DeleteAclsFilterResult>, (ResponseError, String)> {
    authorize(cx, caller, Operation::Alter, Resource::Cluster)
        .map_err(|denied| (denied.wire(), denied.to_string()))?;
    if cx.authorizer.is_none() {
        return Err((ResponseError::SecurityDisabled, NO_AUTHORIZER.to_owned()));
    }
    if asked.len() > ACL_FILTERS_MAX {
        let why = format!("A request has {ACL_FILTERS_MAX} filters at most.");
        return Err((ResponseError::InvalidRequest, why));
    }
    let filters: Vec<Filter> = asked.iter().map(filter_of).collect();
    let valid = filters.iter().filter(|filter| check_filter(filter).is_ok());
    let valid: Vec<Filter> = valid.cloned().collect();
    let deleted = cx.cluster.controller().delete_acls(&valid).await;
    let deleted = deleted.map_err(|error| (error.wire(), error.to_string()))?;
    let deleted = deleted.map_err(|refusal| (refusal.wire(), refusal.to_string()))?;
    let mut deleted = deleted.into_iter();
    let results = filters.iter().map(|filter| match check_filter(filter) {
        Err(why) => refused(ResponseError::InvalidRequest, why),
        Ok(()) => {
            let matching = deleted.next().unwrap_or_default();
            DeleteAclsFilterResult::default()
                .with_error_message(None)
                .with_matching_acls(matching.into_iter().map(told).collect())
        }
    });
    Ok(results.collect())
}

fn filter_of(asked: &DeleteAclsFilter) -> Filter {
    filter(
        (
            asked.resource_type_filter,
            &asked.resource_name_filter,
            asked.pattern_type_filter,
        ),
        (&asked.principal_filter, &asked.host_filter),
        (asked.operation, asked.permission_type),
    )
}

fn told(binding: Binding) -> DeleteAclsMatchingAcl {
    let Binding { pattern, entry } = binding;
    DeleteAclsMatchingAcl::default()
        .with_error_message(None)
        .with_resource_type(pattern.resource.code())
        .with_resource_name(text(pattern.name))
        .with_pattern_type(pattern.kind.code())
        .with_principal(text(entry.principal))
        .with_host(text(entry.host))
        .with_operation(entry.operation.code())
        .with_permission_type(entry.permission.code())
}

fn refused(error: ResponseError, why: &str) -> DeleteAclsFilterResult {
    DeleteAclsFilterResult::default()
        .with_error_code(error.code())
        .with_error_message(message(&text(why)))
}
