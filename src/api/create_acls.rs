//! CreateAcls (key 30, v1–v3; KIP-140, KIP-290): makes bindings, each of which may be refused, by the controller. Without an
//! authorizer SECURITY_DISABLED for each, in Kafka's words.
//!
//! - A binding that is there already is no mistake.
//! - A request with an element of code 0 ends the connection, as Kafka's, which does not read it.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::create_acls_request::AclCreation;
use metaq_protocol::messages::create_acls_response::AclCreationResult;
use metaq_protocol::messages::{ApiKey, CreateAclsRequest, CreateAclsResponse};

use super::acl_bindings::{Asked, UNKNOWN_ELEMENT, is_any_unknown};
use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{message, text};
use super::{Api, Caller, Context, Order, serve_by_controller, unless};
use crate::cluster::ClusterError;
use crate::security::Binding;

pub(super) const API: Api = Api {
    key: ApiKey::CreateAcls,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| {
        unless(is_unreadable, UNKNOWN_ELEMENT, frame, |frame| {
            serve_by_controller(cx, caller, frame, stage, handle)
        })
    },
};

/// As Kafka's AclApis says it.
pub(super) const NO_AUTHORIZER: &str = "No Authorizer is configured.";

fn is_unreadable(request: &CreateAclsRequest) -> bool {
    request.creations.iter().any(|asked| {
        is_any_unknown([
            asked.resource_type,
            asked.resource_pattern_type,
            asked.operation,
            asked.permission_type,
        ])
    })
}

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: CreateAclsRequest,
) -> CreateAclsResponse {
    let results = create(&cx, &caller, &request.creations).await;
    let results =
        results.unwrap_or_else(|(error, why)| vec![refused(error, &why); request.creations.len()]);
    let outcomes = request.creations.iter().zip(&results);
    let outcomes = outcomes.map(|(asked, result)| {
        let why = result.error_message.as_deref().unwrap_or_default();
        (asked.resource_name.as_str(), result.error_code, why)
    });
    cx.note_all(&caller, outcomes);
    CreateAclsResponse::default().with_results(results)
}

/// The results, or the error of all.
async fn create(
    cx: &Context,
    caller: &Caller,
    asked: &[AclCreation],
) -> Result<Vec<AclCreationResult>, (ResponseError, String)> {
    authorize(cx, caller, Operation::Alter, Resource::Cluster)
        .map_err(|denied| (denied.wire(), denied.to_string()))?;
    if cx.authorizer.is_none() {
        return Err((ResponseError::SecurityDisabled, NO_AUTHORIZER.to_owned()));
    }
    let bindings: Vec<Result<Binding, String>> = asked.iter().map(binding).collect();
    let valid = bindings.iter().filter_map(|binding| binding.as_ref().ok());
    let made = cx.cluster.controller();
    let made = made.create_acls(valid.cloned().collect()).await;
    let made = made.map_err(|error: ClusterError| (error.wire(), error.to_string()))?;
    let mut made = made.into_iter();
    let results = bindings.into_iter().map(|binding| match binding {
        Err(why) => refused(ResponseError::InvalidRequest, &why),
        Ok(_) => match made.next() {
            Some(Err(refusal)) => refused(refusal.wire(), &refusal.to_string()),
            _ => AclCreationResult::default().with_error_message(message(&"")),
        },
    });
    Ok(results.collect())
}

fn binding(asked: &AclCreation) -> Result<Binding, String> {
    let asked = Asked {
        resource: asked.resource_type,
        name: &asked.resource_name,
        kind: asked.resource_pattern_type,
        principal: &asked.principal,
        host: &asked.host,
        operation: asked.operation,
        permission: asked.permission_type,
    };
    asked.binding()
}

fn refused(error: ResponseError, why: &str) -> AclCreationResult {
    AclCreationResult::default()
        .with_error_code(error.code())
        .with_error_message(message(&text(why)))
}
