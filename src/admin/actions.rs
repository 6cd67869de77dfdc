//! What the dashboard changes: topics and groups' offsets. Each action is recorded in the log and among the events, with who did
//! it.
//!
//! Tests: tests/dashboard.rs, tests/cluster.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use metaq_protocol::ResponseError;
use metaq_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use metaq_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use metaq_protocol::messages::delete_topics_request::DeleteTopicState;
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteTopicsRequest,
    GroupId, IncrementalAlterConfigsRequest, TopicName,
};
use metaq_protocol::protocol::StrBytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::errors::ApiError;
use super::views::transactions;
use super::visitor::Visitor;
use super::wire::{ask, ask_broker};
use crate::api::Context;
use crate::config::broker_key;
use crate::coordinator::Slot;
use crate::log::Outcome;
use crate::observe::{EventKind, Happened};
use crate::transaction::{State, TransactionError};

/// How long the cluster may take to make a change.
const TIMEOUT_MS: i32 = 30_000;
const TOPIC_RESOURCE: i8 = 2;
const SET: i8 = 0;
const UNSET: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// A topic to be created.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateTopic {
    /// Its name.
    name: String,
    /// Its partitions; as the brokers' configuration says, without.
    #[serde(default)]
    partitions: Option<i32>,
    /// Its own configurations.
    #[serde(default)]
    configurations: BTreeMap<String, String>,
}

impl CreateTopic {
    pub(super) fn new(
        name: &str,
        partitions: Option<i32>,
        configurations: BTreeMap<String, String>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            partitions,
            configurations,
        }
    }
}

/// Changes to a topic's configurations.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AlterTopic {
    /// To be set.
    pub(super) set: BTreeMap<String, String>,
    /// To be forgotten, so that the broker's is in force again.
    pub(super) unset: Vec<String>,
}

/// More partitions for a topic.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddPartitions {
    /// How many it shall have in all.
    pub(super) count: i32,
}

/// What an action did.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct Done {
    /// In a sentence.
    pub(super) message: String,
}

/// What reading the configuration file again did.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct ReloadView {
    /// In force now.
    pub(super) applied: Vec<ChangedView>,
    /// Written in the file, and in force after a restart.
    pub(super) needs_restart: Vec<ChangedView>,
    /// Written in the file, but set at run time or on the command line to something else.
    pub(super) overruled: Vec<ChangedView>,
}

/// A setting whose value is another one now.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct ChangedView {
    /// Its name, or the section.
    pub(super) name: String,
    /// Before.
    pub(super) from: String,
    /// After.
    pub(super) to: String,
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn named(topic: &str) -> TopicName {
    TopicName(text(topic))
}

/// Tells of an action.
pub(super) fn tell(cx: &Context, actor: &Visitor, subject: &str, what: &str) {
    let who = actor.label();
    tracing::info!(who, subject, what, "done on the dashboard");
    let done = Happened::new(EventKind::Action, subject);
    cx.observe.events.tell(done.who(who).why(what));
}

/// The refusal that a response carries.
pub(super) fn outcome(code: i16, message: Option<&StrBytes>) -> Result<(), ApiError> {
    let Some(error) = ResponseError::try_from_code(code) else {
        return Ok(());
    };
    use ResponseError as E;
    let status = match error {
        E::UnknownTopicOrPartition | E::GroupIdNotFound => StatusCode::NOT_FOUND,
        E::TopicAuthorizationFailed
        | E::GroupAuthorizationFailed
        | E::ClusterAuthorizationFailed => StatusCode::FORBIDDEN,
        E::TopicAlreadyExists
        | E::NonEmptyGroup
        | E::UnknownMemberId
        | E::TopicDeletionDisabled => StatusCode::CONFLICT,
        E::RequestTimedOut
        | E::NotController
        | E::NotCoordinator
        | E::CoordinatorNotAvailable
        | E::CoordinatorLoadInProgress
        | E::KafkaStorageError
        | E::UnknownServerError => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    let message = message.map(ToString::to_string);
    let message = message.unwrap_or_else(|| error.to_string());
    Err(ApiError::new(status, word(error), message))
}

/// As in `topic_already_exists`.
fn word(error: ResponseError) -> String {
    let mut word = String::new();
    for letter in format!("{error:?}").chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}

/// Creates a topic.
pub(super) async fn create_topic(
    cx: &Arc<Context>,
    actor: &Visitor,
    wanted: &CreateTopic,
) -> Result<Done, ApiError> {
    let config = |(name, value): (&String, &String)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(named(&wanted.name))
        .with_num_partitions(wanted.partitions.unwrap_or(-1))
        .with_replication_factor(-1)
        .with_configs(wanted.configurations.iter().map(config).collect());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(TIMEOUT_MS);
    let response = ask(cx, actor.session(), 7, &request).await?;
    for topic in &response.topics {
        outcome(topic.error_code, topic.error_message.as_ref())?;
    }
    let partitions = response
        .topics
        .first()
        .map_or(0, |topic| topic.num_partitions);
    let message = format!(
        "Created topic {} with {partitions} partitions.",
        wanted.name
    );
    tell(
        cx,
        actor,
        &wanted.name,
        &format!("created with {partitions} partitions"),
    );
    Ok(Done { message })
}

/// Deletes a topic.
pub(super) async fn delete_topic(
    cx: &Arc<Context>,
    actor: &Visitor,
    topic: &str,
) -> Result<Done, ApiError> {
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![
            DeleteTopicState::default().with_name(Some(named(topic))),
        ])
        .with_timeout_ms(TIMEOUT_MS);
    let response = ask(cx, actor.session(), 6, &request).await?;
    for result in &response.responses {
        outcome(result.error_code, result.error_message.as_ref())?;
    }
    tell(cx, actor, topic, "deleted the topic");
    let message = format!("Deleted topic {topic}.");
    Ok(Done { message })
}

/// Changes a topic's configurations.
pub(super) async fn alter_topic(
    cx: &Arc<Context>,
    actor: &Visitor,
    topic: &str,
    changes: &AlterTopic,
) -> Result<Done, ApiError> {
    let set = changes.set.iter().map(|(name, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(SET)
            .with_value(Some(text(value)))
    });
    let unset = changes.unset.iter().map(|name| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(UNSET)
    });
    let configs: Vec<AlterableConfig> = set.chain(unset).collect();
    if configs.is_empty() {
        return Err(ApiError::bad("Nothing is to be changed."));
    }
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(topic))
        .with_configs(configs);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = ask(cx, actor.session(), 1, &request).await?;
    for result in &response.responses {
        outcome(result.error_code, result.error_message.as_ref())?;
    }
    let set: Vec<String> = changes
        .set
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let unset = changes.unset.iter().map(|name| format!("{name} unset"));
    let all: Vec<String> = set.into_iter().chain(unset).collect();
    tell(cx, actor, topic, &all.join(", "));
    let message = format!("Changed {topic}: {}.", all.join(", "));
    Ok(Done { message })
}

/// Lets a partition take no messages, or take them again; it can be read all the while.
pub(super) async fn set_closed(
    cx: &Arc<Context>,
    actor: &Visitor,
    topic: &str,
    partition: i32,
    closed: bool,
) -> Result<Done, ApiError> {
    let image = cx.cluster.image();
    let known = image
        .topic(topic)
        .and_then(|topic| topic.partition(partition));
    if known.is_none() {
        return Err(ApiError::not_found(format!(
            "partition {partition} of {topic}"
        )));
    }
    let (operation, word) = match closed {
        true => (APPEND, "closed"),
        false => (SUBTRACT, "opened"),
    };
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str("closed.partitions"))
        .with_config_operation(operation)
        .with_value(Some(text(&partition.to_string())));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(topic))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = ask(cx, actor.session(), 1, &request).await?;
    for result in &response.responses {
        outcome(result.error_code, result.error_message.as_ref())?;
    }
    tell(cx, actor, &format!("{topic}-{partition}"), word);
    let message = format!("Partition {partition} of {topic} was {word}.");
    Ok(Done { message })
}

/// Reads the configuration file again.
pub(super) async fn reload(cx: &Arc<Context>, actor: &Visitor) -> Result<ReloadView, ApiError> {
    let report = cx.cluster.reload_config().await;
    let report = report.map_err(|error| ApiError::bad(error.to_string()))?;
    tell(cx, actor, "configuration", "read again");
    let changed = |changes: Vec<crate::config::Changed>| {
        let named = changes.into_iter().map(|change| {
            let is_secret = broker_key(&change.name).is_some_and(|key| key.is_secret());
            let shown = |value: String| match is_secret {
                true => "********".to_owned(),
                false => value,
            };
            ChangedView {
                from: shown(change.from),
                to: shown(change.to),
                name: change.name,
            }
        });
        named.collect()
    };
    Ok(ReloadView {
        applied: changed(report.applied),
        needs_restart: changed(report.needs_restart),
        overruled: changed(report.overruled),
    })
}

/// Gives a topic more partitions.
pub(super) async fn add_partitions(
    cx: &Arc<Context>,
    actor: &Visitor,
    topic: &str,
    wanted: &AddPartitions,
) -> Result<Done, ApiError> {
    let more = CreatePartitionsTopic::default()
        .with_name(named(topic))
        .with_count(wanted.count)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![more])
        .with_timeout_ms(TIMEOUT_MS);
    let response = ask(cx, actor.session(), 3, &request).await?;
    for result in &response.results {
        outcome(result.error_code, result.error_message.as_ref())?;
    }
    let count = wanted.count;
    tell(cx, actor, topic, &format!("extended to {count} partitions"));
    let message = format!("{topic} has {count} partitions now.");
    Ok(Done { message })
}

/// Ends a transaction without its client.
pub(super) async fn end_transaction(
    cx: &Arc<Context>,
    actor: &Visitor,
    id: &str,
    outcome: Outcome,
) -> Result<Done, ApiError> {
    transactions::check_here(cx, id)?;
    if let Err(error) = cx.transactions.decide(id, outcome).await {
        return Err(not_ended(cx, id, error).await);
    }
    let what = match outcome {
        Outcome::Commit => "committed the transaction",
        Outcome::Abort => "aborted the transaction",
    };
    tell(cx, actor, id, what);
    let message = format!("{id}: {what}.");
    Ok(Done { message })
}

/// Why a transaction cannot be ended so.
async fn not_ended(cx: &Context, id: &str, error: TransactionError) -> ApiError {
    if error != TransactionError::InvalidTxnState {
        return error.into();
    }
    let message = match cx.transactions.describe(id).await {
        Ok(found) if found.state == State::Ongoing && !found.is_two_phase() => {
            format!("The transaction of {id} has one phase: it can only be aborted.")
        }
        Ok(found) => format!(
            "{id} has no open transaction: its state is {}.",
            found.state.name()
        ),
        Err(error) => return error.into(),
    };
    ApiError::new(StatusCode::CONFLICT, "conflict", message)
}

/// Forgets what an operator decided of a transaction of two phases.
pub(super) async fn forget_decision(
    cx: &Arc<Context>,
    actor: &Visitor,
    id: &str,
) -> Result<Done, ApiError> {
    transactions::check_here(cx, id)?;
    if let Err(error) = cx.transactions.forget_decision(id).await {
        let is_there = cx.transactions.describe(id).await.is_ok();
        return Err(match error {
            TransactionError::TransactionalIdNotFound if is_there => {
                ApiError::not_found(format!("recorded decision about {id}"))
            }
            error => error.into(),
        });
    }
    tell(cx, actor, id, "forgot the decision");
    let message = format!("Forgot the decision about {id}.");
    Ok(Done { message })
}

pub(super) fn coordinator_of(cx: &Context, group_id: &str) -> i32 {
    let image = cx.cluster.image();
    let slot = image.slot(Slot::of(group_id));
    slot.map_or(cx.cluster.broker_id(), |slot| slot.owner)
}

/// Deletes a group that has no members.
pub(super) async fn delete_group(
    cx: &Arc<Context>,
    actor: &Visitor,
    group: &str,
) -> Result<Done, ApiError> {
    let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
    let broker = coordinator_of(cx, group);
    let response = ask_broker(cx, actor.session(), broker, 2, &request).await?;
    for result in &response.results {
        outcome(result.error_code, None)?;
    }
    tell(cx, actor, group, "deleted the group");
    let message = format!("Deleted group {group}.");
    Ok(Done { message })
}
