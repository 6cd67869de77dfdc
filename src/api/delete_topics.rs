//! DeleteTopics (key 20, v1–v6; KIP-4, 516): deletes topics by name, or by id from v6 on.
//!
//! - A topic that is named twice is INVALID_REQUEST both times.
//! - When it is answered, the name is free and the files are out of the way; offsets that groups committed in
//!   the topic are forgotten.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::delete_topics_response::DeletableTopicResult;
use metaq_protocol::messages::{ApiKey, DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use uuid::Uuid;

use super::applied::{Expected, wait_until_applied};
use super::errors::WireError;
use super::shared::{message, named_twice, topic_name};
use super::{Api, Caller, Context, Order, serve_by_controller};
use crate::cluster::ClusterError;

pub(super) const API: Api = Api {
    key: ApiKey::DeleteTopics,
    order: Order::Alone,
    start: |cx, caller, frame, stage| serve_by_controller(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked: Vec<(Option<TopicName>, Uuid)> = match caller.version {
        6.. => request
            .topics
            .into_iter()
            .map(|topic| (topic.name, topic.topic_id))
            .collect(),
        _ => request
            .topic_names
            .into_iter()
            .map(|name| (Some(name), Uuid::nil()))
            .collect(),
    };
    let twice = named_twice(asked.iter().cloned());
    let mut responses = Vec::with_capacity(asked.len());
    for (name, id) in asked {
        responses.push(match twice.contains(&(name.clone(), id)) {
            true => refused_twice(name, id),
            false => delete(&cx, name, id).await,
        });
    }
    let outcomes = responses.iter().map(|response| {
        let name = response.name.as_deref().map_or("", |name| name);
        let why = response.error_message.as_deref().unwrap_or_default();
        (name, response.error_code, why)
    });
    cx.note_all(&caller, ApiKey::DeleteTopics, outcomes);
    let deleted = responses.iter().filter(|result| result.error_code == 0);
    let deleted = deleted.filter_map(|result| {
        let name = result.name.as_ref()?.to_string();
        Some(Expected::Gone(name, result.topic_id))
    });
    let deleted: Vec<Expected> = deleted.collect();
    wait_until_applied(&cx, &deleted, request.timeout_ms).await;
    DeleteTopicsResponse::default().with_responses(responses)
}

/// As Kafka's ControllerApis words it.
fn refused_twice(name: Option<TopicName>, id: Uuid) -> DeletableTopicResult {
    let why = match name {
        Some(_) => "Duplicate topic name.",
        None => "Duplicate topic id.",
    };
    DeletableTopicResult::default()
        .with_name(name)
        .with_topic_id(id)
        .with_error_code(ResponseError::InvalidRequest.code())
        .with_error_message(message(&why))
}

async fn delete(cx: &Context, name: Option<TopicName>, id: Uuid) -> DeletableTopicResult {
    let image = cx.cluster.image();
    let result = DeletableTopicResult::default().with_topic_id(id);
    let found = match &name {
        Some(_) if !id.is_nil() => {
            let error = ResponseError::InvalidRequest;
            return result
                .with_name(name)
                .with_error_code(error.code())
                .with_error_message(message(&error));
        }
        Some(name) => image.topic(name).ok_or(ClusterError::UnknownTopic),
        None => image.topic_by_id(id).ok_or(ClusterError::UnknownTopicId),
    };
    let topic = match found {
        Ok(topic) => topic.clone(),
        Err(error) => {
            return result
                .with_name(name)
                .with_error_code(error.code())
                .with_error_message(message(&error));
        }
    };
    let result = result
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id);
    match cx.cluster.controller().delete_topic(&topic.name).await {
        Ok(()) => {
            cx.coordinator.topic_deleted(&topic.name, topic.id).await;
            result
        }
        Err(error) => result
            .with_error_code(error.code())
            .with_error_message(message(&error)),
    }
}
