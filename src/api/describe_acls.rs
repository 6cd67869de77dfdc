//! DescribeAcls (key 29, v1–v3; KIP-140, KIP-290): the bindings that a filter asks for, as this broker knows them. Without an
//! authorizer SECURITY_DISABLED, in Kafka's words.
//!
//! A request with an element of code 0 ends the connection, as Kafka's, which does not read it; no binding has an element of
//! another unknown code.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use metaq_protocol::messages::{ApiKey, DescribeAclsRequest, DescribeAclsResponse};

use super::acl_bindings::{UNKNOWN_ELEMENT, filter, is_any_unknown};
use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{message, text};
use super::{Api, Caller, Context, Order, serve, unless};
use crate::security::{Acls, Entry, Filter, Pattern};

pub(super) const API: Api = Api {
    key: ApiKey::DescribeAcls,
    order: Order::Alone,
    needs: &[(Operation::Describe, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| {
        unless(is_unreadable, UNKNOWN_ELEMENT, frame, |frame| {
            serve(cx, caller, frame, stage, handle)
        })
    },
};

/// As Kafka's AclApis says it.
const NO_AUTHORIZER: &str = "No Authorizer is configured on the broker";

fn is_unreadable(request: &DescribeAclsRequest) -> bool {
    is_any_unknown([
        request.resource_type_filter,
        request.pattern_type_filter,
        request.operation,
        request.permission_type,
    ])
}

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeAclsRequest,
) -> DescribeAclsResponse {
    let right = authorize(&cx, &caller, Operation::Describe, Resource::Cluster);
    let (error, why) = match right {
        Err(denied) => (denied.wire(), denied.to_string()),
        Ok(()) if cx.authorizer.is_none() => {
            (ResponseError::SecurityDisabled, NO_AUTHORIZER.to_owned())
        }
        Ok(()) => {
            let filter = filter(
                (
                    request.resource_type_filter,
                    &request.resource_name_filter,
                    request.pattern_type_filter,
                ),
                (&request.principal_filter, &request.host_filter),
                (request.operation, request.permission_type),
            );
            let found = cx.cluster.with_acls(|acls| found(acls, &filter));
            return DescribeAclsResponse::default()
                .with_error_message(message(&""))
                .with_resources(found);
        }
    };
    cx.note(&caller, "the cluster", error.code(), &why);
    DescribeAclsResponse::default()
        .with_error_code(error.code())
        .with_error_message(message(&text(why)))
}

fn found(acls: &Acls, filter: &Filter) -> Vec<DescribeAclsResource> {
    let mut resources: Vec<(&Pattern, Vec<AclDescription>)> = Vec::new();
    for (pattern, entry) in acls.find(filter) {
        match resources.last_mut() {
            Some((last, entries)) if *last == pattern => entries.push(described(entry)),
            _ => resources.push((pattern, vec![described(entry)])),
        }
    }
    let resources = resources.into_iter().map(|(pattern, entries)| {
        DescribeAclsResource::default()
            .with_resource_type(pattern.resource.code())
            .with_resource_name(text(pattern.name.as_str()))
            .with_pattern_type(pattern.kind.code())
            .with_acls(entries)
    });
    resources.collect()
}

fn described(entry: &Entry) -> AclDescription {
    AclDescription::default()
        .with_principal(text(entry.principal.as_str()))
        .with_host(text(entry.host.as_str()))
        .with_operation(entry.operation.code())
        .with_permission_type(entry.permission.code())
}
