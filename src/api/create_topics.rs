//! CreateTopics (key 19, v2–v7; KIP-4, 464, 525, 516): creates topics, or says what would happen.
//!
//! - -1 for partitions and replication factor takes the broker's defaults.
//! - A topic that is named twice in one request is refused, and so is one with both counts and assignments.
//! - Answered with the configuration in force (v5+).

use std::collections::HashMap;
use std::sync::Arc;

use metaq_protocol::messages::create_topics_request::CreatableTopic;
use metaq_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use metaq_protocol::messages::{ApiKey, CreateTopicsRequest, CreateTopicsResponse};

use super::describe_configs::topic_entries;
use super::errors::WireError;
use super::shared::{message, optional, text};
use super::spread::{self, Expected};
use super::{Api, Caller, Context, Order, serve_by_controller};
use crate::cluster::{ClusterError, NewTopic, Topic};

pub(super) const API: Api = Api {
    key: ApiKey::CreateTopics,
    order: Order::Alone,
    start: |cx, caller, frame, stage| serve_by_controller(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut named: HashMap<&str, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.as_str()).or_default() += 1;
    }
    let (once, twice): (Vec<&CreatableTopic>, Vec<&CreatableTopic>) = request
        .topics
        .iter()
        .partition(|topic| named.get(topic.name.as_str()) == Some(&1));
    let wanted: Vec<NewTopic> = once.iter().map(|topic| new_topic(topic)).collect();
    let outcomes = cx
        .cluster
        .create_topics(&wanted, request.validate_only)
        .await;
    if !request.validate_only {
        let created = outcomes
            .iter()
            .flatten()
            .map(|topic| Expected::There(topic.name.to_string(), topic.id, topic.partitions.len()));
        let created: Vec<Expected> = created.collect();
        spread::wait(&cx, &created, request.timeout_ms).await;
    }
    let mut topics: Vec<CreatableTopicResult> = once
        .iter()
        .zip(outcomes)
        .map(|(asked, outcome)| match outcome {
            Ok(topic) => created(&cx, caller.version, &topic, request.validate_only),
            Err(error) => refused(asked, &error),
        })
        .collect();
    for (n, topic) in twice.iter().enumerate() {
        if !twice[..n].iter().any(|earlier| earlier.name == topic.name) {
            topics.push(refused(
                topic,
                &ClusterError::Request(format!("Duplicate topic name: {}", topic.name.0)),
            ));
        }
    }
    for topic in &topics {
        let why = topic.error_message.as_deref().unwrap_or_default();
        let (name, code) = (&*topic.name, topic.error_code);
        cx.note(&caller, ApiKey::CreateTopics, name, code, why);
    }
    CreateTopicsResponse::default().with_topics(topics)
}

fn new_topic(asked: &CreatableTopic) -> NewTopic {
    let replicas = |assignment: &metaq_protocol::messages::create_topics_request::CreatableReplicaAssignment| {
        (assignment.partition_index, assignment.broker_ids.iter().map(|id| id.0).collect())
    };
    NewTopic {
        name: asked.name.to_string(),
        partitions: asked.num_partitions,
        replication_factor: asked.replication_factor,
        assignments: asked.assignments.iter().map(replicas).collect(),
        config: asked
            .configs
            .iter()
            .map(|config| (config.name.to_string(), optional(&config.value)))
            .collect(),
    }
}

fn created(cx: &Context, version: i16, topic: &Topic, validate_only: bool) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(super::shared::topic_name(&topic.name));
    if version < 5 {
        return result;
    }
    let configs = topic_entries(cx, topic).into_iter().map(|entry| {
        CreatableTopicConfigs::default()
            .with_name(text(entry.name))
            .with_value(Some(text(entry.value)))
            .with_config_source(entry.source)
    });
    let replicas = topic
        .partitions
        .first()
        .map_or(0, |partition| partition.replicas.len());
    let result = result
        .with_num_partitions(topic.partitions.len() as i32)
        .with_replication_factor(replicas as i16)
        .with_configs(Some(configs.collect()));
    if version >= 7 && !validate_only {
        result.with_topic_id(topic.id)
    } else {
        result
    }
}

fn refused(asked: &CreatableTopic, error: &ClusterError) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(asked.name.clone())
        .with_error_code(error.code())
        .with_error_message(message(error))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}
