//! CreatePartitions (key 37, v0–v3; KIP-195): extends topics to a new total of partitions.

use std::sync::Arc;

use metaq_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use metaq_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use metaq_protocol::messages::{ApiKey, CreatePartitionsRequest, CreatePartitionsResponse};

use super::applied::{Expected, wait_until_applied};
use super::errors::{WireError, code_of};
use super::shared::{message, named_twice};
use super::{Api, Caller, Context, Order, serve_by_controller};
use crate::cluster::ClusterError;

pub(super) const API: Api = Api {
    key: ApiKey::CreatePartitions,
    order: Order::Alone,
    start: |cx, caller, frame, stage| serve_by_controller(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    let mut extended = Vec::new();
    let twice = named_twice(request.topics.iter().map(|topic| topic.name.clone()));
    for topic in &request.topics {
        let outcome = match twice.contains(&topic.name) {
            true => Err(ClusterError::Request(
                "Duplicate topic in request.".to_owned(),
            )),
            false => extend(&cx, topic, request.validate_only).await,
        };
        let result = CreatePartitionsTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(code_of(&outcome));
        if outcome.is_ok()
            && !request.validate_only
            && let Some(known) = cx.cluster.image().topic(&topic.name)
        {
            let name = topic.name.to_string();
            extended.push(Expected::There(name, known.id, known.partitions.len()));
        }
        results.push(match outcome {
            Ok(()) => result,
            Err(error) => result
                .with_error_code(error.code())
                .with_error_message(message(&error)),
        });
    }
    let outcomes = results.iter().map(|result| {
        let why = result.error_message.as_deref().unwrap_or_default();
        (result.name.as_str(), result.error_code, why)
    });
    cx.note_all(&caller, ApiKey::CreatePartitions, outcomes);
    wait_until_applied(&cx, &extended, request.timeout_ms).await;
    CreatePartitionsResponse::default().with_results(results)
}

async fn extend(
    cx: &Context,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), ClusterError> {
    let assignments = topic.assignments.as_ref().map(|all| {
        all.iter()
            .map(|assignment| assignment.broker_ids.iter().map(|id| id.0).collect())
            .collect()
    });
    cx.cluster
        .controller()
        .create_partitions(&topic.name, topic.count, assignments, validate_only)
        .await
}
