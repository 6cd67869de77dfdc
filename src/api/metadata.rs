//! Metadata (key 3, v0–v13; KIP-4, 78, 430, 516): brokers, topics, leaders.
//!
//! - A null list means all topics (an empty one in v0); an empty one none.
//! - A missing topic is created on the way where that is allowed, and answered as created.
//! - By id from v10 on; an unknown id is UNKNOWN_TOPIC_ID.
//! - `__consumer_offsets` and `__transaction_state`, when they are named, have the slots of groups and of transactional ids as their
//!   partitions; the former is among all topics where it has records (offsets.topic.mirror).
//!
//! Tests: tests/broker.rs, tests/refusals.rs.

use std::collections::HashSet;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use metaq_protocol::messages::{ApiKey, BrokerId, MetadataRequest, MetadataResponse, TopicName};

use super::applied::{Expected, answer_when_applied, wait_until_applied};
use super::authorize::{
    Operation, Resource, ResourceKind, authorize, authorized_cluster_operations,
    authorized_operations, is_permitted, permitted,
};
use super::charge::Mutations;
use super::context::REFUSALS_NOTED_MAX;
use super::create_topics::are_too_many;
use super::errors::WireError;
use super::forward::create_at_controller;
use super::own_task::make_in_own_task;
use super::shared::{OPERATIONS_OMITTED, broker_ids, leadership, mirrored_topic, text, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::{
    Image, NewTopic, Topic, check_topic_name, is_internal_name, is_reserved_name,
};

pub(super) const API: Api = Api {
    key: ApiKey::Metadata,
    order: Order::Alone,
    needs: &[
        (Operation::Describe, ResourceKind::Topic),
        (Operation::Create, ResourceKind::Topic),
        (Operation::Create, ResourceKind::Cluster),
        (Operation::Describe, ResourceKind::Cluster),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(cx: Arc<Context>, caller: Caller, request: MetadataRequest) -> MetadataResponse {
    if let Some(answer) = answer_when_applied(&cx, &caller, &request).await {
        return answer;
    }
    let all = match &request.topics {
        None => true,
        Some(topics) => topics.is_empty() && caller.version == 0,
    };
    let mut asked = request.topics.unwrap_or_default();
    if let Some(refusal) = of_no_name(caller.version, &asked) {
        return refusal;
    }
    // Names do not count beside ids (KafkaApis.handleTopicMetadataRequest).
    if asked.iter().any(|topic| !topic.topic_id.is_nil()) {
        asked.retain(|topic| !topic.topic_id.is_nil());
    }
    // One that is named several times is answered once, as by Kafka; where there is an id, that is its name.
    let mut named = HashSet::new();
    asked.retain(|topic| {
        let name = topic.name.clone().filter(|_| topic.topic_id.is_nil());
        named.insert((topic.topic_id, name))
    });
    let may_create = caller.version < 4 || request.allow_auto_topic_creation;
    let uncreated = match may_create && cx.config.flag("auto.create.topics.enable") {
        true => create_missing(&cx, &caller, &asked).await,
        false => HashSet::new(),
    };
    let image = cx.cluster.image();
    let with_operations = request.include_topic_authorized_operations;
    let describe = |topic: &Arc<Topic>| described(&cx, &caller, &image, topic, with_operations);
    let may_describe = |topic: &&Arc<Topic>| {
        let topic = Resource::Topic(&topic.name);
        is_permitted(&cx, &caller, Operation::Describe, topic)
    };
    let topics: Vec<MetadataResponseTopic> = match all {
        true => {
            let mirrored = mirrored_topic(&cx, &image).map(Arc::new);
            let all = image.topics().chain(&mirrored);
            all.filter(may_describe).map(describe).collect()
        }
        false => asked
            .iter()
            .map(|asked| {
                find(&cx, &caller, &image, &uncreated, asked, with_operations)
                    .map_or_else(|refusal| *refusal, |topic| describe(&topic))
            })
            .collect(),
    };
    let refused = |topic: &&MetadataResponseTopic| topic.error_code != 0;
    for topic in topics.iter().filter(refused).take(REFUSALS_NOTED_MAX) {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        cx.note(&caller, name, topic.error_code, "");
    }
    let brokers = image.brokers.values().filter_map(|broker| {
        let (host, port) = caller.endpoint_of(broker)?;
        let described = MetadataResponseBroker::default()
            .with_node_id(BrokerId(broker.id))
            .with_host(text(host))
            .with_port(port)
            .with_rack(broker.rack.clone().map(text));
        Some(described)
    });
    let with_operations =
        request.include_cluster_authorized_operations && (8..=10).contains(&caller.version);
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(text(image.cluster_id.clone())))
        .with_controller_id(BrokerId(image.controller_id))
        .with_topics(topics)
        .with_cluster_authorized_operations(if with_operations {
            authorized_cluster_operations(&cx, &caller.session)
        } else {
            OPERATIONS_OMITTED
        })
}

/// From this version on topics can be asked for by their ids (KIP-516); those before have the field already.
const BY_ID_FROM: i16 = 12;

/// What Kafka answers where a topic of an older version has an id, or no name (KafkaApis.handleTopicMetadataRequest).
fn of_no_name(version: i16, asked: &[MetadataRequestTopic]) -> Option<MetadataResponse> {
    let has_name = |topic: &MetadataRequestTopic| topic.topic_id.is_nil() && topic.name.is_some();
    if version >= BY_ID_FROM || asked.iter().all(has_name) {
        return None;
    }
    let topics = asked.iter().map(|topic| {
        MetadataResponseTopic::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_name(Some(topic.name.clone().unwrap_or_default()))
            .with_topic_id(topic.topic_id)
            .with_topic_authorized_operations(OPERATIONS_OMITTED)
    });
    let refusal = MetadataResponse::default()
        .with_controller_id(BrokerId(-1))
        .with_cluster_authorized_operations(OPERATIONS_OMITTED)
        .with_topics(topics.collect());
    Some(refusal)
}

/// Creates topics that are missing, where the client may see and create them; those that it may see and not create.
async fn create_missing(
    cx: &Arc<Context>,
    caller: &Caller,
    asked: &[MetadataRequestTopic],
) -> HashSet<TopicName> {
    let image = cx.cluster.image();
    let names = asked
        .iter()
        .filter(|topic| topic.topic_id.is_nil())
        .filter_map(|topic| topic.name.as_ref());
    let is_missing = |name: &&TopicName| {
        image.topic_or_internal(name).is_none()
            && is_permitted(cx, caller, Operation::Describe, Resource::Topic(name))
    };
    let may_create_all = is_permitted(cx, caller, Operation::Create, Resource::Cluster);
    let (missing, denied) = permitted(names.filter(is_missing), |name| match may_create_all {
        true => Ok(()),
        false => authorize(cx, caller, Operation::Create, Resource::Topic(name)),
    });
    let may_be_made = |name: &&TopicName| check_topic_name(name).is_ok() && !is_reserved_name(name);
    let missing = missing.into_iter().filter(may_be_made);
    let mut missing: Vec<NewTopic> = missing.map(|name| NewTopic::with_defaults(name)).collect();
    if let Some(mut mutations) = Mutations::strictly(cx, caller) {
        let partitions = cx.config.number("num.partitions").max(1) as usize;
        missing.retain(|_| mutations.record(partitions).is_ok());
    }
    if !missing.is_empty() && !are_too_many(cx, &missing) {
        let (of_task, wanted) = (cx.clone(), missing.clone());
        let making = async move { create(&of_task, wanted).await };
        if make_in_own_task(&cx.memory, &missing, making)
            .await
            .is_none()
        {
            tracing::warn!("no memory for creating the topics that a client asked for");
        }
    }
    denied.into_iter().map(|(name, _)| name.clone()).collect()
}

async fn create(cx: &Context, missing: Vec<NewTopic>) {
    if !cx.cluster.is_controller() {
        let names: Vec<String> = missing.into_iter().map(|topic| topic.name).collect();
        create_at_controller(cx, &names).await;
        return cx.cluster.wait_for_topics(&names).await;
    }
    let mut created = Vec::new();
    for (topic, result) in missing
        .iter()
        .zip(cx.cluster.controller().create_topics(&missing, false).await)
    {
        match result {
            Ok(known) => {
                tracing::info!(topic = topic.name, "created because a client asked for it");
                let partitions = known.partitions.len();
                created.push(Expected::There(topic.name.clone(), known.id, partitions));
            }
            Err(error) => tracing::debug!(topic = topic.name, %error, "not created"),
        }
    }
    wait_until_applied(cx, &created, CREATE_WAIT_MS).await;
}

fn find(
    cx: &Context,
    caller: &Caller,
    image: &Image,
    uncreated: &HashSet<TopicName>,
    asked: &MetadataRequestTopic,
    with_operations: bool,
) -> Result<Arc<Topic>, Box<MetadataResponseTopic>> {
    let refuse = |error: ResponseError| {
        // Of an id nothing but the id is known.
        let name = asked.name.clone().filter(|_| asked.topic_id.is_nil());
        let refusal = MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(name)
            .with_is_internal(
                asked
                    .name
                    .as_ref()
                    .is_some_and(|name| is_internal_name(name)),
            )
            .with_topic_id(asked.topic_id)
            .with_topic_authorized_operations(OPERATIONS_OMITTED);
        Box::new(refusal)
    };
    let may_describe = |name: &str| {
        // Whether it is an internal one is not told either.
        authorize(cx, caller, Operation::Describe, Resource::Topic(name))
            .map_err(|denied| Box::new(refuse(denied.wire()).with_is_internal(false)))
    };
    if !asked.topic_id.is_nil() {
        let known = image.topic_by_id(asked.topic_id).cloned();
        let topic = known.ok_or_else(|| refuse(ResponseError::UnknownTopicId))?;
        return may_describe(&topic.name).map(|()| topic);
    }
    let name = asked.name.as_ref().map_or("", |name| name.as_str());
    // Of what is not there too, as by Kafka.
    let nothing = |error: ResponseError| {
        let operations = match with_operations {
            true => authorized_operations(cx, &caller.session, Resource::Topic(name)),
            false => OPERATIONS_OMITTED,
        };
        let refusal = refuse(error).with_topic_authorized_operations(operations);
        Box::new(refusal)
    };
    may_describe(name)?;
    if asked
        .name
        .as_ref()
        .is_some_and(|name| uncreated.contains(name))
    {
        return Err(refuse(ResponseError::TopicAuthorizationFailed));
    }
    if check_topic_name(name).is_err() {
        return Err(nothing(ResponseError::InvalidTopicException));
    }
    image
        .topic_or_internal(name)
        .ok_or_else(|| nothing(crate::partition::PartitionError::Unknown.wire()))
}

/// How long a client that asks for a new topic waits for all brokers to have it, ms.
const CREATE_WAIT_MS: i32 = 1000;

/// From this version on a client knows LISTENER_NOT_FOUND (Kafka's KafkaApis.handleTopicMetadataRequest).
const LISTENER_NOT_FOUND_FROM: i16 = 6;

/// Client id of metaq's own commands.
pub const CLI_CLIENT_ID: &str = "metaq-cli";
/// Tagged field (KIP-482) of a partition that tells those commands its identity `brokerId-n`.
pub const IDENTITY_TAG: i32 = 10_000;

fn described(
    cx: &Context,
    caller: &Caller,
    image: &Image,
    topic: &Topic,
    with_operations: bool,
) -> MetadataResponseTopic {
    let partition = |(index, info): (usize, &crate::cluster::PartitionInfo)| {
        let listener = &caller.session.listener().name;
        let (leader, offline) = leadership(&image.brokers, listener, info);
        let error_code = match leader {
            Ok(_) => 0,
            Err(ResponseError::ListenerNotFound) if caller.version < LISTENER_NOT_FOUND_FROM => {
                ResponseError::LeaderNotAvailable.code()
            }
            Err(error) => error.code(),
        };
        let mut described = MetadataResponsePartition::default();
        if caller.client_id.as_deref() == Some(CLI_CLIENT_ID) {
            let identity = info.identity.to_string().into();
            described
                .unknown_tagged_fields
                .insert(IDENTITY_TAG, identity);
        }
        described
            .with_error_code(error_code)
            .with_partition_index(index as i32)
            .with_leader_id(BrokerId(leader.unwrap_or(-1)))
            .with_leader_epoch(info.leader_epoch)
            .with_replica_nodes(broker_ids(&info.replicas))
            .with_isr_nodes(broker_ids(&info.isr))
            .with_offline_replicas(broker_ids(&offline))
    };
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_is_internal(is_internal_name(&topic.name))
        .with_partitions(topic.partitions.iter().enumerate().map(partition).collect())
        .with_topic_authorized_operations(if with_operations {
            authorized_operations(cx, &caller.session, Resource::Topic(&topic.name))
        } else {
            OPERATIONS_OMITTED
        })
}
