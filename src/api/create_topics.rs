//! CreateTopics (key 19, v2–v7; KIP-4, 464, 525, 516): creates topics, or says what would happen.
//!
//! - -1 for partitions and replication factor takes the broker's defaults.
//! - A topic that is named twice in one request is refused, and so is one with both counts and assignments.
//! - More than [`PARTITIONS_PER_REQUEST_MAX`] partitions in one request are POLICY_VIOLATION, as by Kafka's controller.
//! - Answered with the configuration in force (v5+).
//!
//! Tests: tests/cluster.rs, tests/refusals.rs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::create_topics_request::CreatableTopic;
use metaq_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use metaq_protocol::messages::{ApiKey, CreateTopicsRequest, CreateTopicsResponse, TopicName};

use super::applied::{Expected, wait_until_applied};
use super::authorize::{Operation, Resource, ResourceKind, authorize, is_permitted, permitted};
use super::charge::Mutations;
use super::describe_configs::topic_entries;
use super::errors::WireError;
use super::reply::Reply;
use super::shared::{DUPLICATE_NAME, message, named_twice, optional, text};
use super::{Api, Caller, Context, Order, serve_by_controller};
use crate::cluster::{ClusterError, NewTopic, Topic};

/// Kafka's topic of its own metadata.
const CLUSTER_METADATA: &str = "__cluster_metadata";

/// As Kafka's ControllerApis says it.
const DENIED: &str = "Authorization failed.";

/// From this version on a quota of partitions is strict (KIP-599).
const STRICT_FROM: i16 = 6;
/// Kafka's ReplicationControlManager.MAX_PARTITIONS_PER_BATCH.
const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

pub(super) const API: Api = Api {
    key: ApiKey::CreateTopics,
    order: Order::Alone,
    needs: &[
        (Operation::Create, ResourceKind::Cluster),
        (Operation::Create, ResourceKind::Topic),
        (Operation::DescribeConfigs, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve_by_controller(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: CreateTopicsRequest,
) -> Reply<CreateTopicsResponse> {
    let twice = named_twice(request.topics.iter().map(|topic| topic.name.clone()));
    let may_create_all = is_permitted(&cx, &caller, Operation::Create, Resource::Cluster);
    let may_create = |topic: &&CreatableTopic| match may_create_all {
        true => Ok(()),
        // Refused to everybody.
        false if topic.name.as_str() == CLUSTER_METADATA => Ok(()),
        false => authorize(
            &cx,
            &caller,
            Operation::Create,
            Resource::Topic(&topic.name),
        ),
    };
    let once = request
        .topics
        .iter()
        .filter(|topic| !twice.contains(&topic.name));
    let (once, denied) = permitted(once, may_create);
    let wanted: Vec<NewTopic> = once.iter().map(|topic| new_topic(topic)).collect();
    if are_too_many(&cx, &wanted) {
        return refuse_all(&cx, &caller, &request).into();
    }
    let (outcomes, throttle) = create(&cx, &caller, &wanted, request.validate_only).await;
    if !request.validate_only {
        let created = outcomes
            .iter()
            .flatten()
            .map(|topic| Expected::There(topic.name.to_string(), topic.id, topic.partitions.len()));
        let created: Vec<Expected> = created.collect();
        wait_until_applied(&cx, &created, request.timeout_ms).await;
    }
    let mut topics: Vec<CreatableTopicResult> = once
        .iter()
        .zip(outcomes)
        .map(|(asked, outcome)| match outcome {
            Ok(topic) => created(&cx, &caller, &topic),
            Err(error) => refused(asked.name.clone(), &error),
        })
        .collect();
    let duplicate = ClusterError::Request(DUPLICATE_NAME.to_owned());
    let denied = denied.into_iter();
    topics.extend(denied.map(|(topic, denied)| {
        refused(topic.name.clone(), &denied).with_error_message(message(&DENIED))
    }));
    topics.extend(twice.into_iter().map(|name| refused(name, &duplicate)));
    let outcomes = topics.iter().map(|topic| {
        let why = topic.error_message.as_deref().unwrap_or_default();
        (topic.name.as_str(), topic.error_code, why)
    });
    cx.note_all(&caller, outcomes);
    Reply::with_throttle(
        CreateTopicsResponse::default().with_topics(topics),
        throttle,
    )
}

/// Creates topics, as many as the client's quota allows, and says how long it is to wait then.
async fn create(
    cx: &Context,
    caller: &Caller,
    wanted: &[NewTopic],
    validate_only: bool,
) -> (Vec<Result<Arc<Topic>, ClusterError>>, Duration) {
    let controller = cx.cluster.controller();
    let Some(mut mutations) = Mutations::of(cx, caller, STRICT_FROM) else {
        let outcomes = controller.create_topics(wanted, validate_only).await;
        return (outcomes, Duration::ZERO);
    };
    // What is refused for another reason costs nothing.
    let mut outcomes = controller.create_topics(wanted, true).await;
    for outcome in &mut outcomes {
        if let Ok(topic) = outcome
            && let Err(exceeded) = mutations.record(topic.partitions.len())
        {
            *outcome = Err(exceeded);
        }
    }
    if !validate_only {
        let allowed: Vec<usize> = (0..wanted.len()).filter(|n| outcomes[*n].is_ok()).collect();
        let topics: Vec<NewTopic> = allowed.iter().map(|n| wanted[*n].clone()).collect();
        let created = controller.create_topics(&topics, false).await;
        for (n, created) in allowed.into_iter().zip(created) {
            outcomes[n] = created;
        }
    }
    (outcomes, mutations.throttle())
}

/// Whether topics have more partitions together than may be created at once.
pub(super) fn are_too_many(cx: &Context, topics: &[NewTopic]) -> bool {
    let by_default = cx.config.number("num.partitions");
    let partitions = |topic: &NewTopic| match (topic.assignments.len(), topic.partitions) {
        (0, -1) => usize::try_from(by_default).unwrap_or(1),
        // What makes no sense is refused by itself.
        (0, asked) => usize::try_from(asked).unwrap_or(0),
        (assigned, _) => assigned,
    };
    let all = topics.iter().map(partitions);
    all.fold(0, usize::saturating_add) > PARTITIONS_PER_REQUEST_MAX
}

fn refuse_all(
    cx: &Context,
    caller: &Caller,
    request: &CreateTopicsRequest,
) -> CreateTopicsResponse {
    let code = ResponseError::PolicyViolation.code();
    let why = "Excessively large number of partitions per request.";
    cx.note(caller, "", code, why);
    let mut named = HashSet::new();
    let topics = request.topics.iter().map(|topic| topic.name.clone());
    let topics = topics.filter(|name| named.insert(name.clone()));
    let refused = topics.map(|name| {
        CreatableTopicResult::default()
            .with_name(name)
            .with_error_code(code)
            .with_error_message(message(&why))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
    });
    CreateTopicsResponse::default().with_topics(refused.collect())
}

pub(super) fn new_topic(asked: &CreatableTopic) -> NewTopic {
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

fn created(cx: &Context, caller: &Caller, topic: &Topic) -> CreatableTopicResult {
    let version = caller.version;
    let result = CreatableTopicResult::default()
        .with_name(super::shared::topic_name(&topic.name))
        .with_error_message(None);
    if version < 5 {
        return result;
    }
    let right = Operation::DescribeConfigs;
    if let Err(denied) = authorize(cx, caller, right, Resource::Topic(&topic.name)) {
        let result = result.with_topic_config_error_code(denied.code());
        let result = result.with_num_partitions(-1).with_replication_factor(-1);
        return with_id(result.with_configs(Some(Vec::new())), version, topic);
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
    with_id(result, version, topic)
}

fn with_id(result: CreatableTopicResult, version: i16, topic: &Topic) -> CreatableTopicResult {
    match version {
        ..7 => result,
        // Also of one that is only looked at, as by Kafka.
        _ => result.with_topic_id(topic.id),
    }
}

fn refused<E: WireError + std::fmt::Display>(name: TopicName, error: &E) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(error.code())
        .with_error_message(message(error))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}
