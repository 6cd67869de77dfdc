//! AlterConfigs (key 33, v0–v2; KIP-133): replaces all of a topic's own configurations.
//!
//! - What is not named goes back to its default. Brokers' configurations are in the file and not changed here.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use metaq_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse, ApiKey};

use super::describe_configs::TOPIC;
use super::errors::WireError;
use super::shared::{message, optional};
use super::{Api, Caller, Context, serve_by_controller};
use crate::cluster::ConfigChange;

pub(super) const API: Api = Api {
    key: ApiKey::AlterConfigs,
    start: |cx, caller, frame| serve_by_controller(cx, caller, frame, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let mut changes = vec![ConfigChange::Clear];
        for config in &resource.configs {
            let name = config.name.to_string();
            changes.push(match optional(&config.value) {
                Some(value) => ConfigChange::Set(name, value),
                None => ConfigChange::Delete(name),
            });
        }
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let outcome = apply(&cx, kind, &name, &changes, request.validate_only).await;
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(kind)
            .with_resource_name(name);
        responses.push(match outcome {
            Ok(()) => response,
            Err((error, why)) => response
                .with_error_code(error.code())
                .with_error_message(message(&why)),
        });
    }
    for response in &responses {
        let why = response.error_message.as_deref().unwrap_or_default();
        let (name, code) = (&*response.resource_name, response.error_code);
        cx.note(&caller, ApiKey::AlterConfigs, name, code, why);
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// Changes the configurations of one resource.
pub(super) async fn apply(
    cx: &Context,
    resource_type: i8,
    name: &str,
    changes: &[ConfigChange],
    validate_only: bool,
) -> Result<(), (ResponseError, String)> {
    if resource_type != TOPIC {
        let why = "Only topics' configurations change at run time; the broker's are in its configuration file.";
        return Err((ResponseError::InvalidRequest, why.to_owned()));
    }
    let changed = cx.cluster.change_config(name, changes, validate_only).await;
    changed.map_err(|error| (error.wire(), error.to_string()))
}
