//! CreatePartitions (key 37, v0–v3; KIP-195): extends topics to a new total of partitions.
//!
//! - A topic that is named twice in one request is refused, once (Kafka's ControllerApis).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use metaq_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use metaq_protocol::messages::{
    ApiKey, CreatePartitionsRequest, CreatePartitionsResponse, TopicName,
};

use super::applied::{Expected, wait_until_applied};
use super::authorize::{Operation, Resource, ResourceKind, authorize, permitted};
use super::charge::Mutations;
use super::errors::WireError;
use super::reply::Reply;
use super::shared::{DUPLICATE_NAME, text, topic_name};
use super::{Api, Caller, Context, Order, serve_by_controller};
use crate::cluster::{ClusterError, MorePartitions, Topic};

/// From this version on a quota of partitions is strict (KIP-599).
const STRICT_FROM: i16 = 3;

pub(super) const API: Api = Api {
    key: ApiKey::CreatePartitions,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Topic)],
    start: |cx, caller, frame, stage| serve_by_controller(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: CreatePartitionsRequest,
) -> Reply<CreatePartitionsResponse> {
    let mut named: HashMap<&str, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.as_str()).or_default() += 1;
    }
    let is_once = |topic: &&CreatePartitionsTopic| named.get(topic.name.as_str()) == Some(&1);
    let once = request.topics.iter().filter(is_once);
    let (once, denied) = permitted(once, |topic| {
        let topic = Resource::Topic(&topic.name);
        authorize(&cx, &caller, Operation::Alter, topic)
    });
    let wanted: Vec<MorePartitions> = once.iter().map(|topic| more_partitions(topic)).collect();
    let (outcomes, throttle) = extend(&cx, &caller, &wanted, request.validate_only).await;
    let mut extended = Vec::new();
    if !request.validate_only {
        extended.extend(outcomes.iter().flatten().map(|topic| {
            Expected::There(topic.name.to_string(), topic.id, topic.partitions.len())
        }));
    }
    let mut results: Vec<CreatePartitionsTopicResult> = once
        .iter()
        .zip(outcomes)
        .map(|(topic, outcome)| match outcome {
            Ok(_) => CreatePartitionsTopicResult::default().with_name(topic.name.clone()),
            Err(error) => refused(topic.name.clone(), &error),
        })
        .collect();
    let denied = denied.into_iter();
    // Kafka gives the code alone.
    results.extend(
        denied.map(|(topic, denied)| refused(topic.name.clone(), &denied).with_error_message(None)),
    );
    let duplicate = ClusterError::Request(DUPLICATE_NAME.to_owned());
    let twice = named.iter().filter(|(_, count)| **count > 1);
    results.extend(twice.map(|(name, _)| refused(topic_name(name), &duplicate)));
    let outcomes = results.iter().map(|result| {
        let why = result.error_message.as_deref().unwrap_or_default();
        (result.name.as_str(), result.error_code, why)
    });
    cx.note_all(&caller, outcomes);
    wait_until_applied(&cx, &extended, request.timeout_ms).await;
    let response = CreatePartitionsResponse::default().with_results(results);
    Reply::with_throttle(response, throttle)
}

/// Extends topics, as many as the client's quota allows, and says how long it is to wait then.
async fn extend(
    cx: &Context,
    caller: &Caller,
    wanted: &[MorePartitions],
    validate_only: bool,
) -> (Vec<Result<Arc<Topic>, ClusterError>>, Duration) {
    let controller = cx.cluster.controller();
    let Some(mut mutations) = Mutations::of(cx, caller, STRICT_FROM) else {
        let outcomes = controller.create_partitions(wanted, validate_only).await;
        return (outcomes, Duration::ZERO);
    };
    let image = cx.cluster.image();
    // What is refused for another reason costs nothing.
    let mut outcomes = controller.create_partitions(wanted, true).await;
    for (topic, outcome) in wanted.iter().zip(&mut outcomes) {
        let has = image
            .topic(&topic.name)
            .map_or(0, |topic| topic.partitions.len());
        let more = usize::try_from(topic.count)
            .unwrap_or(0)
            .saturating_sub(has);
        if outcome.is_ok()
            && let Err(exceeded) = mutations.record(more)
        {
            *outcome = Err(exceeded);
        }
    }
    if !validate_only {
        let allowed: Vec<usize> = (0..wanted.len()).filter(|n| outcomes[*n].is_ok()).collect();
        let topics: Vec<MorePartitions> = allowed.iter().map(|n| wanted[*n].clone()).collect();
        let extended = controller.create_partitions(&topics, false).await;
        for (n, extended) in allowed.into_iter().zip(extended) {
            outcomes[n] = extended;
        }
    }
    (outcomes, mutations.throttle())
}

fn more_partitions(topic: &CreatePartitionsTopic) -> MorePartitions {
    let assignments = topic.assignments.as_ref().map(|all| {
        all.iter()
            .map(|assignment| assignment.broker_ids.iter().map(|id| id.0).collect())
            .collect()
    });
    MorePartitions {
        name: topic.name.to_string(),
        count: topic.count,
        assignments,
    }
}

fn refused<E: WireError + std::fmt::Display>(
    name: TopicName,
    error: &E,
) -> CreatePartitionsTopicResult {
    let result = CreatePartitionsTopicResult::default()
        .with_name(name)
        .with_error_code(error.code());
    // As Kafka's ReplicationControlManager.createPartitions.
    let says_why = error.wire() != ResponseError::UnknownTopicOrPartition;
    result.with_error_message(says_why.then(|| text(error.to_string())))
}
