//! IncrementalAlterConfigs (key 44, v0–v1; KIP-339): sets, deletes, appends to and subtracts from single
//! configurations of topics.

use std::collections::HashSet;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use metaq_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use metaq_protocol::messages::{
    ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};

use super::alter_configs::apply;
use super::shared::{message, optional};
use super::{Api, Caller, Context, serve_by_controller};
use crate::cluster::ConfigChange;

pub(super) const API: Api = Api {
    key: ApiKey::IncrementalAlterConfigs,
    start: |cx, caller, frame| serve_by_controller(cx, caller, frame, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let outcome = match changes(&resource) {
            Ok(changes) => {
                apply(
                    &cx,
                    resource.resource_type,
                    &resource.resource_name,
                    &changes,
                    request.validate_only,
                )
                .await
            }
            Err(why) => Err((ResponseError::InvalidRequest, why)),
        };
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
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
        cx.note(&caller, ApiKey::IncrementalAlterConfigs, name, code, why);
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn changes(resource: &AlterConfigsResource) -> Result<Vec<ConfigChange>, String> {
    let mut seen = HashSet::new();
    let mut changes = Vec::with_capacity(resource.configs.len());
    for config in &resource.configs {
        let name = config.name.to_string();
        if !seen.insert(name.clone()) {
            return Err(format!("Error due to duplicate config keys: {name}"));
        }
        let value = optional(&config.value);
        let needed = || {
            value
                .clone()
                .ok_or_else(|| format!("Null value not supported for: {name}"))
        };
        changes.push(match config.config_operation {
            0 => ConfigChange::Set(name.clone(), needed()?),
            1 => ConfigChange::Delete(name.clone()),
            2 => ConfigChange::Append(name.clone(), needed()?),
            3 => ConfigChange::Subtract(name.clone(), needed()?),
            other => return Err(format!("Unknown config operation {other}")),
        });
    }
    Ok(changes)
}
