//! DescribeConfigs (key 32, v1–v4; KIP-133, 226, 569): configurations with where they come from.
//!
//! - Topics: every key of the topic table. Brokers: every key of the broker table, read-only.
//! - Groups and client metrics have no configurations here; broker loggers are not described.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_configs_request::DescribeConfigsResource;
use metaq_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use metaq_protocol::messages::{ApiKey, DescribeConfigsRequest, DescribeConfigsResponse};

use super::shared::{message, text};
use super::{Api, Caller, Context, serve};
use crate::cluster::{Topic, check_topic_name};
use crate::config::{Kind, TOPIC_KEYS, broker_keys};

pub(super) const API: Api = Api {
    key: ApiKey::DescribeConfigs,
    start: |cx, caller, frame| serve(cx, caller, frame, handle),
};

/// Kafka's ConfigResource.Type.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// Kafka's ConfigSource.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

/// One configuration in force.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) source: i8,
    kind: Kind,
    doc: &'static str,
    read_only: bool,
    /// Name, value and source of every level that sets it, the one in force first.
    synonyms: Vec<(&'static str, String, i8)>,
}

async fn handle(
    cx: Arc<Context>,
    _: Caller,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let (synonyms, docs) = (request.include_synonyms, request.include_documentation);
    let describe = |resource: &DescribeConfigsResource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match entries(&cx, resource) {
            Ok(entries) => {
                let keys = resource
                    .configuration_keys
                    .as_ref()
                    .filter(|keys| !keys.is_empty());
                let wanted = |entry: &Entry| {
                    keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == entry.name))
                };
                let configs = entries
                    .into_iter()
                    .filter(wanted)
                    .map(|entry| described(entry, synonyms, docs));
                result.with_configs(configs.collect())
            }
            Err((error, why)) => result
                .with_error_code(error.code())
                .with_error_message(message(&why)),
        }
    };
    DescribeConfigsResponse::default()
        .with_results(request.resources.iter().map(describe).collect())
}

fn entries(
    cx: &Context,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Entry>, (ResponseError, String)> {
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC => match cx.cluster.image().topic(name) {
            Some(topic) => Ok(topic_entries(cx, topic)),
            None if check_topic_name(name).is_err() => Err((
                ResponseError::InvalidTopicException,
                ResponseError::InvalidTopicException.to_string(),
            )),
            None => Err((
                ResponseError::UnknownTopicOrPartition,
                ResponseError::UnknownTopicOrPartition.to_string(),
            )),
        },
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER if name == cx.cluster.broker_id().to_string() => Ok(broker_entries(cx)),
        BROKER => {
            let id = cx.cluster.broker_id();
            let why =
                format!("Unexpected broker id, expected {id} or empty string, but received {name}");
            Err((ResponseError::InvalidRequest, why))
        }
        BROKER_LOGGER | CLIENT_METRICS | GROUP => Ok(Vec::new()),
        other => Err((
            ResponseError::InvalidRequest,
            format!("Unsupported resource type: {other}"),
        )),
    }
}

/// Every configuration of a topic.
pub(super) fn topic_entries(cx: &Context, topic: &Topic) -> Vec<Entry> {
    let from_file = cx.cluster.defaults_for(&topic.name);
    let entry = |key: &'static crate::config::TopicKey| {
        let mut synonyms = Vec::new();
        if let Some(own) = topic.overrides.0.get(key.name) {
            synonyms.push((key.name, own.clone(), SOURCE_TOPIC));
        }
        let broker_name = key.broker_name.unwrap_or(key.name);
        if let Some(set) = from_file.0.get(key.name) {
            synonyms.push((broker_name, set.clone(), SOURCE_STATIC_BROKER));
        }
        synonyms.push((broker_name, key.default.to_owned(), SOURCE_DEFAULT));
        let (_, value, source) = synonyms[0].clone();
        Entry {
            name: key.name,
            value,
            source,
            kind: key.kind,
            doc: key.doc,
            read_only: false,
            synonyms,
        }
    };
    TOPIC_KEYS.iter().map(entry).collect()
}

fn broker_entries(cx: &Context) -> Vec<Entry> {
    let entry = |key: crate::config::BrokerKey| {
        let mut synonyms = Vec::new();
        if cx.config.source(key.name).is_some() {
            synonyms.push((
                key.name,
                cx.config.text(key.name).to_owned(),
                SOURCE_STATIC_BROKER,
            ));
        }
        synonyms.push((key.name, key.default.to_owned(), SOURCE_DEFAULT));
        let (_, value, source) = synonyms[0].clone();
        Entry {
            name: key.name,
            value,
            source,
            kind: key.kind,
            doc: key.doc,
            read_only: true,
            synonyms,
        }
    };
    broker_keys().map(entry).collect()
}

fn described(entry: Entry, synonyms: bool, docs: bool) -> DescribeConfigsResourceResult {
    let synonym = |(name, value, source): (&'static str, String, i8)| {
        DescribeConfigsSynonym::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
            .with_source(source)
    };
    let all = if synonyms {
        entry.synonyms.into_iter().map(synonym).collect()
    } else {
        Vec::new()
    };
    DescribeConfigsResourceResult::default()
        .with_name(text(entry.name))
        .with_value(Some(text(entry.value)))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source)
        .with_synonyms(all)
        .with_config_type(entry.kind.wire_type())
        .with_documentation(docs.then(|| text(entry.doc)))
}
