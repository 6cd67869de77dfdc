//! IncrementalAlterConfigs (key 44, v0–v1; KIP-339, 226, 412, 714, 1142): sets, deletes, appends to and subtracts from
//! single configurations of topics, brokers, groups, client metrics and loggers.
//!
//! - The controller makes the changes, but for loggers' levels: those are the broker's that is asked, and last until it
//!   ends. A broker's settings may be made through any broker, where Kafka wants the one that they are for.
//!
//! Tests: tests/config.rs, tests/answers.rs.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::frame;
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use metaq_protocol::messages::{
    ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};

use super::alter_configs::{DUPLICATE_KEYS, NAMED_TWICE, apply, may_alter, no_value, unknown_type};
use super::authorize::{Operation, ResourceKind};
use super::describe_configs::{BROKER_LOGGER, KINDS};
use super::shared::{named_twice, optional, told};
use super::{Answer, Api, Body, Caller, Context, Order, forward, serve};
use crate::cluster::ConfigChange;
use crate::logging;

/// The operation that puts a configuration back (AlterConfigOp.OpType).
const DELETE: i8 = 1;

type Outcome = Result<(), (ResponseError, String)>;

pub(super) const API: Api = Api {
    key: ApiKey::IncrementalAlterConfigs,
    order: Order::Alone,
    needs: &[
        (Operation::AlterConfigs, ResourceKind::Topic),
        (Operation::AlterConfigs, ResourceKind::Group),
        (Operation::AlterConfigs, ResourceKind::Cluster),
    ],
    start: |cx, caller, request, stage| -> Answer {
        Box::pin(async move {
            let asked: IncrementalAlterConfigsRequest = frame::decode(&request)?;
            let is_logger =
                |resource: &AlterConfigsResource| resource.resource_type == BROKER_LOGGER;
            // Loggers are this broker's; a request that is about them too is answered here.
            if !asked.resources.iter().any(is_logger)
                && let Some(bytes) = forward::to_controller(&cx, &caller, &request).await
            {
                return Ok(Body::from(bytes).into());
            }
            serve(cx, caller, request, stage, handle).await
        })
    },
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let key =
        |resource: &AlterConfigsResource| (resource.resource_type, resource.resource_name.clone());
    let twice = named_twice(request.resources.iter().map(key));
    for resource in request.resources {
        let outcome = match twice.contains(&key(&resource)) {
            true => Err((ResponseError::InvalidRequest, NAMED_TWICE.to_owned())),
            false => change(&cx, &caller, &resource, request.validate_only).await,
        };
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
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
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn change(
    cx: &Context,
    caller: &Caller,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Outcome {
    let changes = changes(resource).map_err(|why| (ResponseError::InvalidRequest, why))?;
    let (kind, name) = (resource.resource_type, &resource.resource_name);
    match kind {
        BROKER_LOGGER => {
            may_alter(cx, caller, kind, name)?;
            change_loggers(cx, name, &changes, validate_only)
        }
        _ => apply(cx, caller, (kind, name), &changes, validate_only).await,
    }
}

/// All of them or none, as Kafka's RuntimeLoggerManager does it.
fn change_loggers(
    cx: &Context,
    name: &str,
    changes: &[ConfigChange],
    validate_only: bool,
) -> Outcome {
    let id = cx.cluster.broker_id();
    let request = |why: String| (ResponseError::InvalidRequest, why);
    if name.parse() != Ok(id) {
        return Err(request(match name.parse::<i32>() {
            Ok(_) => format!("Unexpected node id. Expected {id}, but received {name}"),
            Err(_) => format!("Node id must be an integer, but it is: {name}"),
        }));
    }
    let mut levels = Vec::with_capacity(changes.len());
    for change in changes {
        let (logger, level) = match change {
            ConfigChange::Set(logger, level) => (logger, Some(level.as_str())),
            ConfigChange::Delete(logger) => (logger, None),
            ConfigChange::Append(..) => {
                let why = "APPEND operation is not allowed for the BROKER_LOGGER resource";
                return Err(request(why.to_owned()));
            }
            ConfigChange::Subtract(..) | ConfigChange::Clear => {
                let why = "SUBTRACT operation is not allowed for the BROKER_LOGGER resource";
                return Err(request(why.to_owned()));
            }
        };
        logging::check(logger, level).map_err(|error| match error {
            logging::LoggerError::RemovesRoot => request(error.to_string()),
            _ => (ResponseError::InvalidConfig, error.to_string()),
        })?;
        levels.push((logger, level));
    }
    for (logger, level) in levels.into_iter().filter(|_| !validate_only) {
        // Checked above.
        let _ = logging::set(logger, level);
    }
    Ok(())
}

fn changes(resource: &AlterConfigsResource) -> Result<Vec<ConfigChange>, String> {
    let names = resource.configs.iter().map(|config| &config.name);
    if !named_twice(names).is_empty() {
        return Err(DUPLICATE_KEYS.to_owned());
    }
    let needs_value = |config: &&AlterableConfig| config.config_operation != DELETE;
    let without = resource.configs.iter().filter(needs_value);
    let without = without.filter(|config| config.value.is_none());
    let without: Vec<String> = without.map(|config| config.name.to_string()).collect();
    if !without.is_empty() {
        return Err(no_value(&without));
    }
    if !KINDS.contains(&resource.resource_type) {
        return Err(unknown_type(resource.resource_type));
    }
    let mut changes = Vec::with_capacity(resource.configs.len());
    for config in &resource.configs {
        let name = config.name.to_string();
        let value = optional(&config.value).unwrap_or_default();
        changes.push(match config.config_operation {
            0 => ConfigChange::Set(name, value),
            DELETE => ConfigChange::Delete(name),
            2 => ConfigChange::Append(name, value),
            3 => ConfigChange::Subtract(name, value),
            other => return Err(format!("Unknown config operation {other}")),
        });
    }
    Ok(changes)
}
