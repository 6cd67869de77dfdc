//! DescribeConfigs (key 32, v1–v4; KIP-133, 226, 569): configurations with where they come from.
//!
//! - Topics, brokers, groups: every key of their tables. The empty broker name stands for what is set at run time for
//!   all of them.
//! - Client metrics: a subscription that is not there has no keys. Broker loggers: metaq's modules.
//! - Secrets have no value in the answer.
//!
//! Tests: tests/answers.rs, tests/config.rs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_configs_request::DescribeConfigsResource;
use metaq_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use metaq_protocol::messages::{ApiKey, DescribeConfigsRequest, DescribeConfigsResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::room::{NoRoom, Room};
use super::shared::{INVALID_REQUEST, message, text};
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::{ClusterError, Configured, Topic, check_topic_name};
use crate::config::{
    BrokerKey, CLIENT_METRICS_KEYS, ClientMetricsKey, Config, GROUP_KEYS, GroupKey, Kind, Source,
    TOPIC_KEYS, broker_key, broker_keys,
};
use crate::logging;

pub(super) const API: Api = Api {
    key: ApiKey::DescribeConfigs,
    order: Order::Alone,
    needs: &[
        (Operation::DescribeConfigs, ResourceKind::Topic),
        (Operation::DescribeConfigs, ResourceKind::Group),
        (Operation::DescribeConfigs, ResourceKind::Cluster),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// Kafka's ConfigResource.Type.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// All of them.
pub(super) const KINDS: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

/// Kafka's ConfigSource.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DYNAMIC_BROKER: i8 = 2;
const SOURCE_DYNAMIC_DEFAULT_BROKER: i8 = 3;
const SOURCE_STATIC_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;
const SOURCE_DYNAMIC_BROKER_LOGGER: i8 = 6;
const SOURCE_CLIENT_METRICS: i8 = 7;
const SOURCE_GROUP: i8 = 8;
/// Kafka's ConfigType of what is not known.
const TYPE_UNKNOWN: i8 = 0;

/// Name, value and source of a level that sets a configuration.
type Level = (Cow<'static, str>, String, i8);

/// One configuration in force.
pub(super) struct Entry {
    pub(super) name: Cow<'static, str>,
    pub(super) value: String,
    pub(super) source: i8,
    /// Kafka's ConfigType.
    wire_type: i8,
    doc: &'static str,
    read_only: bool,
    sensitive: bool,
    /// Every level that sets it, the one in force first.
    synonyms: Vec<Level>,
}

impl Entry {
    /// The first level is in force.
    fn new(name: &'static str, kind: Kind, doc: &'static str, synonyms: Vec<Level>) -> Self {
        let (value, source) = match synonyms.first() {
            Some((_, value, source)) => (value.clone(), *source),
            None => (String::new(), SOURCE_DEFAULT),
        };
        Self {
            name: name.into(),
            value,
            source,
            wire_type: kind.wire_type(),
            doc,
            read_only: false,
            sensitive: false,
            synonyms,
        }
    }

    /// Where no level sets it, not even by default.
    fn or_default(mut self, default: &str) -> Self {
        if self.synonyms.is_empty() {
            self.value = default.to_owned();
        }
        self
    }

    /// One that a broker keeps and does not know: whether it is a secret, it cannot tell (Kafka's ConfigHelper).
    fn unknown(name: String, synonyms: Vec<Level>) -> Self {
        Self {
            name: name.into(),
            wire_type: TYPE_UNKNOWN,
            read_only: true,
            sensitive: true,
            ..Self::new("", Kind::Text, "", synonyms)
        }
    }

    /// What it takes in an answer, roughly.
    fn bytes(&self, docs: bool) -> usize {
        let synonyms = self.synonyms.iter();
        let synonyms = synonyms.map(|(name, value, _)| ENTRY_BYTES / 2 + name.len() + value.len());
        let doc = if docs { self.doc.len() } else { 0 };
        ENTRY_BYTES + self.name.len() + self.value.len() + doc + synonyms.sum::<usize>()
    }
}

/// What an entry takes in an answer besides its texts.
const ENTRY_BYTES: usize = 300;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let (synonyms, docs) = (request.include_synonyms, request.include_documentation);
    let mut room = Room::new(&cx);
    let mut describe = |resource: &DescribeConfigsResource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_message(Some(text("")));
        let refused = |error: NoRoom| error.told(ResponseError::RequestTimedOut);
        let is_room = room.check().map_err(refused);
        let found = is_room.and_then(|()| entries(&cx, &caller, resource));
        let found = found.and_then(|mut entries| {
            let keys = resource
                .configuration_keys
                .as_ref()
                .filter(|keys| !keys.is_empty());
            entries.retain(|entry| {
                keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == entry.name))
            });
            let bytes = entries.iter().map(|entry| entry.bytes(docs)).sum();
            room.grow(bytes).map_err(refused)?;
            Ok(entries)
        });
        match found {
            Ok(entries) => {
                let configs = entries.into_iter();
                let configs = configs.map(|entry| described(entry, synonyms, docs));
                result.with_configs(configs.collect())
            }
            Err((error, why)) => result
                .with_error_code(error.code())
                .with_error_message(message(&why)),
        }
    };
    let is_known = |resource: &DescribeConfigsResource| KINDS.contains(&resource.resource_type);
    if !request.resources.iter().all(is_known) {
        return of_no_type(request);
    }
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in &request.resources {
        tokio::task::coop::consume_budget().await;
        results.push(describe(resource));
    }
    DescribeConfigsResponse::default().with_results(results)
}

/// One unknown type fails all (Kafka's ConfigHelper.describeConfigs).
fn of_no_type(request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| {
        DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_error_message(Some(text(INVALID_REQUEST)))
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// What a client must have the right to, to see or change a configuration (Kafka's ConfigResource and AclOperation):
/// brokers, their loggers and client metrics are the cluster's.
pub(super) fn config_resource(resource_type: i8, name: &str) -> Resource<'_> {
    match resource_type {
        TOPIC => Resource::Topic(name),
        GROUP => Resource::Group(name),
        _ => Resource::Cluster,
    }
}

fn entries(
    cx: &Context,
    caller: &Caller,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Entry>, (ResponseError, String)> {
    let name = resource.resource_name.as_str();
    let authorized = config_resource(resource.resource_type, name);
    authorize(cx, caller, Operation::DescribeConfigs, authorized)
        .map_err(|denied| (denied.wire(), denied.to_string()))?;
    match resource.resource_type {
        TOPIC => match cx.cluster.image().topic_or_internal(name) {
            Some(topic) => Ok(topic_entries(cx, &topic)),
            None => Err(match check_topic_name(name) {
                Ok(()) => (ResponseError::UnknownTopicOrPartition, String::new()),
                Err(error) => {
                    let error = ClusterError::Name(error);
                    (error.wire(), error.to_string())
                }
            }),
        },
        BROKER if name.is_empty() => Ok(default_broker_entries(cx)),
        BROKER if name == cx.cluster.broker_id().to_string() => Ok(broker_entries(cx)),
        BROKER_LOGGER if name.is_empty() => Err((
            ResponseError::InvalidRequest,
            "Broker id must not be empty".to_owned(),
        )),
        BROKER_LOGGER if name == cx.cluster.broker_id().to_string() => Ok(logger_entries()),
        BROKER | BROKER_LOGGER => {
            let id = cx.cluster.broker_id();
            let or_empty = match resource.resource_type {
                BROKER => " or empty string",
                _ => "",
            };
            let why = format!("Unexpected broker id, expected {id}{or_empty}, but received {name}");
            Err((ResponseError::InvalidRequest, why))
        }
        GROUP | CLIENT_METRICS if name.is_empty() => {
            let what = match resource.resource_type {
                GROUP => "Group name must not be empty",
                _ => "Client metrics subscription name must not be empty",
            };
            Err((ResponseError::InvalidRequest, what.to_owned()))
        }
        GROUP => Ok(group_entries(cx, name)),
        CLIENT_METRICS => Ok(client_metrics_entries(cx, name)),
        other => Err((
            ResponseError::InvalidRequest,
            format!("Unsupported resource type: {other}"),
        )),
    }
}

/// Every configuration of a topic.
pub(super) fn topic_entries(cx: &Context, topic: &Topic) -> Vec<Entry> {
    let config = cx.config.load_full();
    let from_section = config.section_settings(&topic.name);
    let entry = |key: &'static crate::config::TopicKey| {
        let mut synonyms = Vec::new();
        if let Some(own) = topic.overrides.0.get(key.name) {
            let own = key.kind.plain(own.clone());
            synonyms.push((key.name.into(), own, SOURCE_TOPIC));
        }
        if let Some(set) = from_section.0.get(key.name) {
            synonyms.push((key.name.into(), set.clone(), SOURCE_STATIC_BROKER));
        }
        if let Some(broker_name) = key.broker_name {
            synonyms.extend(levels(&config, broker_name));
        }
        if let Some(by) = default_synonym(key) {
            synonyms.push((by.into(), key.default.to_owned(), SOURCE_DEFAULT));
        }
        Entry::new(key.name, key.kind, key.doc, synonyms).or_default(key.default)
    };
    TOPIC_KEYS.iter().map(entry).collect()
}

/// The broker's configuration that a topic's default comes from, and how that says it (Kafka's ConfigHelper). A key that
/// brokers have no word for has none.
fn default_synonym(key: &crate::config::TopicKey) -> Option<&'static str> {
    match key.name {
        // Those of brokers have no default: it is in hours, or of another key.
        "retention.ms" | "segment.ms" | "segment.jitter.ms" | "flush.ms" => None,
        _ => key.broker_name,
    }
}

/// What the broker's configuration says of a key, at every level.
fn levels(config: &Config, name: &'static str) -> Vec<Level> {
    let source = |source: &Source| match source {
        Source::Dynamic => SOURCE_DYNAMIC_BROKER,
        Source::DynamicDefault => SOURCE_DYNAMIC_DEFAULT_BROKER,
        Source::File(_) | Source::CommandLine => SOURCE_STATIC_BROKER,
    };
    let levels = config.levels(name);
    levels
        .map(|(value, from)| (name.into(), value.to_owned(), source(from)))
        .collect()
}

fn broker_entries(cx: &Context) -> Vec<Entry> {
    let config = cx.config.load_full();
    let entry = |key: BrokerKey| {
        let mut synonyms = levels(&config, key.name);
        synonyms.push((key.name.into(), key.default.to_owned(), SOURCE_DEFAULT));
        Entry {
            read_only: !key.is_dynamic(),
            sensitive: key.is_secret() || key.is_of_plugin(),
            ..Entry::new(key.name, key.kind, key.doc, synonyms)
        }
    };
    let known = broker_keys().map(entry);
    known.chain(unknown_entries(cx)).collect()
}

/// What is set at run time for this broker or all brokers and is no configuration of theirs.
fn unknown_entries(cx: &Context) -> impl Iterator<Item = Entry> {
    let image = cx.cluster.image();
    let own = cx.cluster.broker_id().to_string();
    let mut levels: BTreeMap<String, Vec<Level>> = BTreeMap::new();
    for (broker, source) in [
        (own.as_str(), SOURCE_DYNAMIC_BROKER),
        ("", SOURCE_DYNAMIC_DEFAULT_BROKER),
    ] {
        let set = image.configs.get(Configured::Broker, broker);
        for (name, value) in set.into_iter().flatten() {
            if broker_key(name).is_none() {
                let level = (name.clone().into(), value.clone(), source);
                levels.entry(name.clone()).or_default().push(level);
            }
        }
    }
    let entries = levels.into_iter();
    entries.map(|(name, levels)| Entry::unknown(name, levels))
}

/// What is set at run time for all brokers.
fn default_broker_entries(cx: &Context) -> Vec<Entry> {
    let image = cx.cluster.image();
    let set = image.configs.get(Configured::Broker, "");
    let entry = |(name, value): (&String, &String)| {
        let level = |name| vec![(name, value.clone(), SOURCE_DYNAMIC_DEFAULT_BROKER)];
        match broker_key(name) {
            Some(key) => Entry::new(key.name, key.kind, key.doc, level(key.name.into())),
            None => Entry::unknown(name.clone(), level(name.clone().into())),
        }
    };
    set.into_iter().flatten().map(entry).collect()
}

fn group_entries(cx: &Context, group: &str) -> Vec<Entry> {
    let image = cx.cluster.image();
    let set = image.configs.get(Configured::Group, group);
    let from_file = cx.config.load().defaults_for_group(group);
    let entry = |key: &GroupKey| {
        let mut synonyms = Vec::new();
        if let Some(own) = set.and_then(|set| set.get(key.name)) {
            synonyms.push((key.name.into(), own.clone(), SOURCE_GROUP));
        }
        if let Some(section) = from_file.get(key.name) {
            synonyms.push((key.name.into(), section.clone(), SOURCE_STATIC_BROKER));
        }
        let synonym = broker_synonym(key.name);
        let config = cx.config.load();
        if config.source(synonym).is_some() {
            let value = config.text(synonym).to_owned();
            synonyms.push((synonym.into(), value, SOURCE_STATIC_BROKER));
        }
        synonyms.push((synonym.into(), key.default.to_owned(), SOURCE_DEFAULT));
        Entry::new(key.name, key.kind, key.doc, synonyms)
    };
    GROUP_KEYS.iter().map(entry).collect()
}

/// What brokers call the default of a group's key (Kafka's GroupConfig), itself where they have no word for it.
fn broker_synonym(name: &'static str) -> &'static str {
    match name {
        "consumer.assignment.interval.ms" => "group.consumer.assignment.interval.ms",
        "consumer.heartbeat.interval.ms" => "group.consumer.heartbeat.interval.ms",
        "consumer.session.timeout.ms" => "group.consumer.session.timeout.ms",
        "share.assignment.interval.ms" => "group.share.assignment.interval.ms",
        "share.delivery.count.limit" => "group.share.delivery.count.limit",
        "share.partition.max.record.locks" => "group.share.partition.max.record.locks",
        "share.heartbeat.interval.ms" => "group.share.heartbeat.interval.ms",
        "share.record.lock.duration.ms" => "group.share.record.lock.duration.ms",
        "share.session.timeout.ms" => "group.share.session.timeout.ms",
        "streams.assignment.interval.ms" => "group.streams.assignment.interval.ms",
        "streams.assignor.name" => "group.streams.assignors",
        "streams.heartbeat.interval.ms" => "group.streams.heartbeat.interval.ms",
        "streams.initial.rebalance.delay.ms" => "group.streams.initial.rebalance.delay.ms",
        "streams.num.standby.replicas" => "group.streams.num.standby.replicas",
        "streams.rack.aware.assignment.tags" => "group.streams.rack.aware.assignment.tags",
        "streams.session.timeout.ms" => "group.streams.session.timeout.ms",
        name => name,
    }
}

/// As by Kafka, one that is not there has the defaults.
fn client_metrics_entries(cx: &Context, name: &str) -> Vec<Entry> {
    let image = cx.cluster.image();
    let set = image.configs.get(Configured::ClientMetrics, name);
    let entry = |key: &ClientMetricsKey| {
        let mut synonyms = Vec::new();
        if let Some(own) = set.and_then(|set| set.get(key.name)) {
            synonyms.push((key.name.into(), own.clone(), SOURCE_CLIENT_METRICS));
        }
        Entry::new(key.name, key.kind, key.doc, synonyms).or_default(key.default)
    };
    CLIENT_METRICS_KEYS.iter().map(entry).collect()
}

fn logger_entries() -> Vec<Entry> {
    let entry = |(name, level, _): (&'static str, &str, bool)| {
        let doc = "Level of what the module says, until the broker ends.";
        let levels = vec![(name.into(), level.to_owned(), SOURCE_DYNAMIC_BROKER_LOGGER)];
        Entry::new(name, Kind::Text, doc, levels)
    };
    logging::loggers().into_iter().map(entry).collect()
}

fn described(entry: Entry, synonyms: bool, docs: bool) -> DescribeConfigsResourceResult {
    let visible = |value: String| (!entry.sensitive).then(|| text(value));
    let synonym = |(name, value, source): Level| {
        DescribeConfigsSynonym::default()
            .with_name(text(name))
            .with_value(visible(value))
            .with_source(source)
    };
    let all = if synonyms {
        entry.synonyms.into_iter().map(synonym).collect()
    } else {
        Vec::new()
    };
    DescribeConfigsResourceResult::default()
        .with_name(text(entry.name))
        .with_value(visible(entry.value))
        .with_read_only(entry.read_only)
        .with_is_sensitive(entry.sensitive)
        .with_config_source(entry.source)
        .with_synonyms(all)
        .with_config_type(entry.wire_type)
        .with_documentation(docs.then(|| text(entry.doc)))
}
