//! AlterConfigs (key 33, v0–v2; KIP-133, 226): replaces all that is set for a topic, a broker, all brokers, a group or a
//! client metrics subscription.
//!
//! - What is not named goes back to its default.
//! - What of a broker changes at run time is in docs/configuration.md; the rest is INVALID_REQUEST, as by Kafka.
//! - Loggers' levels are changed by IncrementalAlterConfigs alone.
//!
//! Tests: tests/config.rs, tests/answers.rs.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_configs_request::AlterConfigsResource;
use metaq_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use metaq_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse, ApiKey};

use super::authorize::{Operation, ResourceKind, authorize};
use super::describe_configs::{
    BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC, config_resource,
};
use super::errors::WireError;
use super::shared::{named_twice, optional, told};
use super::{Api, Caller, Context, Order, serve_by_controller};
use crate::cluster::{ConfigChange, Configured};

pub(super) const API: Api = Api {
    key: ApiKey::AlterConfigs,
    order: Order::Alone,
    needs: &[
        (Operation::AlterConfigs, ResourceKind::Topic),
        (Operation::AlterConfigs, ResourceKind::Group),
        (Operation::AlterConfigs, ResourceKind::Cluster),
    ],
    start: |cx, caller, frame, stage| serve_by_controller(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let key =
        |resource: &AlterConfigsResource| (resource.resource_type, resource.resource_name.clone());
    let twice = named_twice(request.resources.iter().map(key));
    for resource in request.resources {
        let is_named_twice = twice.contains(&key(&resource));
        let names = resource.configs.iter().map(|config| &config.name);
        let has_duplicates = !named_twice(names).is_empty();
        let mut changes = vec![ConfigChange::Clear];
        let mut without_value = Vec::new();
        for config in &resource.configs {
            let name = config.name.to_string();
            match optional(&config.value) {
                Some(value) => changes.push(ConfigChange::Set(name, value)),
                None => without_value.push(name),
            }
        }
        let changes = match () {
            () if has_duplicates => Err(DUPLICATE_KEYS.to_owned()),
            () if !without_value.is_empty() => Err(no_value(&without_value)),
            () => Ok(changes),
        };
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let outcome = match changes {
            _ if is_named_twice => Err((ResponseError::InvalidRequest, NAMED_TWICE.to_owned())),
            Ok(changes) => {
                apply(&cx, &caller, (kind, &name), &changes, request.validate_only).await
            }
            Err(why) => Err((ResponseError::InvalidRequest, why)),
        };
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(kind)
            .with_resource_name(name)
            .with_error_message(None);
        responses.push(match outcome {
            Ok(()) => response,
            Err((error, why)) => response
                .with_error_code(error.code())
                .with_error_message(told(why)),
        });
    }
    let outcomes = responses.iter().map(|response| {
        let why = response.error_message.as_deref().unwrap_or_default();
        (response.resource_name.as_str(), response.error_code, why)
    });
    cx.note_all(&caller, outcomes);
    AlterConfigsResponse::default().with_responses(responses)
}

/// As Kafka's ConfigAdminManager words it.
pub(super) const NAMED_TWICE: &str = "Each resource must appear at most once.";

/// The same.
pub(super) const DUPLICATE_KEYS: &str = "Error due to duplicate config keys";

/// The same, of keys that need a value.
pub(super) fn no_value(names: &[String]) -> String {
    format!("Null value not supported for : {}", names.join(", "))
}

/// The same.
pub(super) fn unknown_type(resource_type: i8) -> String {
    format!("Unknown resource type {resource_type}")
}

/// Whether a client may change the configurations of a resource.
pub(super) fn may_alter(
    cx: &Context,
    caller: &Caller,
    resource_type: i8,
    name: &str,
) -> Result<(), (ResponseError, String)> {
    let resource = config_resource(resource_type, name);
    authorize(cx, caller, Operation::AlterConfigs, resource).map_err(|denied| {
        let why = match resource_type {
            // Kafka gives the code alone.
            BROKER_LOGGER => String::new(),
            _ => denied.to_string(),
        };
        (denied.wire(), why)
    })
}

/// Changes the configurations of one resource.
pub(super) async fn apply(
    cx: &Context,
    caller: &Caller,
    (resource_type, name): (i8, &str),
    changes: &[ConfigChange],
    validate_only: bool,
) -> Result<(), (ResponseError, String)> {
    let what = match resource_type {
        TOPIC => None,
        BROKER => Some(Configured::Broker),
        GROUP => Some(Configured::Group),
        CLIENT_METRICS => Some(Configured::ClientMetrics),
        other => {
            return Err((ResponseError::InvalidRequest, unknown_type(other)));
        }
    };
    may_alter(cx, caller, resource_type, name)?;
    let changed = match what {
        None => {
            cx.cluster
                .controller()
                .change_config(name, changes, validate_only)
                .await
        }
        Some(what) => {
            cx.cluster
                .controller()
                .change_resource(what, name, changes, validate_only)
                .await
        }
    };
    if changed.is_ok() && !validate_only {
        // A value may be a secret.
        let keys: Vec<&str> = changes.iter().map(ConfigChange::key).collect();
        tracing::info!(
            resource_type,
            name,
            ?keys,
            "configuration changed by a client"
        );
    }
    changed.map_err(|error| (error.wire(), error.to_string()))
}
