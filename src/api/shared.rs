//! What several APIs do alike.
//!
//! Tests: tests/answers.rs, tests/listeners.rs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{BrokerId, TopicName};
use metaq_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::context::{Caller, Context};
use super::errors::WireError;
use crate::cluster::{Broker, INTERNAL_TOPIC_ID, Image, PartitionInfo, Topic};
use crate::coordinator::InternalTopic;
use crate::partition::{Partition, PartitionError};

/// "Not asked for" in authorized-operations fields.
pub(super) const OPERATIONS_OMITTED: i32 = i32::MIN;
pub(super) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// What a topic is refused with that a request names twice (Kafka's ControllerApis).
pub(super) const DUPLICATE_NAME: &str = "Duplicate topic name.";

/// Kafka's text of INVALID_REQUEST where it says no more.
pub(super) const INVALID_REQUEST: &str = "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible broker. See the broker logs for more details.";

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(super) fn broker_ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(*id)).collect()
}

pub(super) fn optional(text: &Option<StrBytes>) -> Option<String> {
    text.as_ref().map(|text| text.to_string())
}

/// The error's message for a response.
pub(super) fn message(error: &impl std::fmt::Display) -> Option<StrBytes> {
    Some(text(error.to_string()))
}

/// A message, where there is one.
pub(super) fn told(why: String) -> Option<StrBytes> {
    (!why.is_empty()).then(|| text(why))
}

/// Those that are named more than once.
pub(super) fn named_twice<T: Clone + Eq + Hash>(all: impl IntoIterator<Item = T>) -> HashSet<T> {
    let mut named = HashSet::new();
    all.into_iter()
        .filter(|one| !named.insert(one.clone()))
        .collect()
}

/// A topic's name, or its id where it has none here.
pub(super) fn name_of(cx: &Context, id: Uuid) -> String {
    let image = cx.cluster.image();
    image
        .topic_by_id(id)
        .map_or_else(|| id.to_string(), |topic| topic.name.to_string())
}

/// Produce and Fetch name topics by their ids alone from this version on (KIP-516).
pub(super) const BY_ID_VERSION_MIN: i16 = 13;

/// OffsetCommit and OffsetFetch do from this version on (KIP-848).
pub(super) const OFFSETS_BY_ID_VERSION_MIN: i16 = 10;

/// A partition that this broker leads, as a request names it: by topic name in older versions, by id in newer ones.
pub(super) fn partition_of(
    cx: &Context,
    name: &str,
    id: Uuid,
    index: i32,
) -> Result<Arc<Partition>, LookupError> {
    let partition = replica_of(cx, name, id, index)?;
    match partition.is_leader() {
        true => Ok(partition),
        false => Err(PartitionError::NotLeader.into()),
    }
}

/// The same of a partition that this broker leads or follows.
pub(super) fn replica_of(
    cx: &Context,
    name: &str,
    id: Uuid,
    index: i32,
) -> Result<Arc<Partition>, LookupError> {
    let found = if id.is_nil() {
        cx.partitions.get(name, index)
    } else if id == INTERNAL_TOPIC_ID {
        // Clients are not given it: they name the topic.
        Err(PartitionError::Unknown)
    } else {
        match cx.partitions.topic_by_id(id) {
            Some(topic) => topic.get(index).cloned(),
            None => Err(PartitionError::Unknown),
        }
    };
    match found {
        Ok(partition) if cx.cluster.may_act() => Ok(partition),
        Ok(_) => Err(PartitionError::NotLeader.into()),
        Err(PartitionError::Unknown) => Err(elsewhere(cx, name, id, index)),
        Err(error) => Err(error.into()),
    }
}

/// The name of the topic that a request names by name or id, whether its partition was found here or not; `None` for an id that
/// no topic has.
pub(super) fn found_name<'a, E>(
    cx: &Context,
    found: &'a Result<Arc<Partition>, E>,
    name: &'a str,
    id: Uuid,
) -> Option<Cow<'a, str>> {
    match found {
        Ok(partition) => Some((&**partition.topic()).into()),
        Err(_) if id.is_nil() => Some(name.into()),
        Err(_) => {
            let image = cx.cluster.image();
            let topic = image.topic_by_id(id)?;
            Some(topic.name.to_string().into())
        }
    }
}

/// A partition that is not here may be another broker's.
fn elsewhere(cx: &Context, name: &str, id: Uuid, index: i32) -> LookupError {
    let image = cx.cluster.image();
    let topic = match id.is_nil() {
        true => with_records(cx, &image, name),
        false => image.topic_by_id(id).cloned(),
    };
    match topic {
        Some(topic) if topic.partition(index).is_some() => PartitionError::NotLeader.into(),
        None if !id.is_nil() => LookupError::UnknownTopicId,
        _ => PartitionError::Unknown.into(),
    }
}

/// A topic whose records a client may ask for: that of groups' offsets has some where it is mirrored.
fn with_records(cx: &Context, image: &Image, name: &str) -> Option<Arc<Topic>> {
    match cx.coordinator.mirror() {
        Some(_) if name == InternalTopic::ConsumerOffsets.name() => image.topic_or_internal(name),
        _ => image.topic(name).cloned(),
    }
}

/// The internal topic, where it has records.
pub(super) fn mirrored_topic(cx: &Context, image: &Image) -> Option<Topic> {
    let name = InternalTopic::ConsumerOffsets.name();
    cx.coordinator
        .mirror()
        .and_then(|_| image.internal_topic(name))
}

/// Who leads a partition, as the answer of a broker that does not lead it says (KIP-951; Kafka's
/// KafkaApis.getCurrentLeader). `None` where this broker does not know: its view of the cluster may be old.
pub(super) fn current_leader(cx: &Context, name: &str, id: Uuid, index: i32) -> Option<(i32, i32)> {
    if !cx.cluster.may_act() {
        return None;
    }
    let image = cx.cluster.image();
    let topic = match id.is_nil() {
        true => with_records(cx, &image, name),
        false => image.topic_by_id(id).cloned(),
    };
    let topic = topic?;
    let info = topic.partition(index)?;
    Some((info.leader, info.leader_epoch))
}

/// Where a client finds brokers: id, host, port and rack of each that has its listener.
pub(super) fn endpoints_of(
    cx: &Context,
    caller: &Caller,
    brokers: impl IntoIterator<Item = i32>,
) -> Vec<(BrokerId, StrBytes, i32, Option<StrBytes>)> {
    let image = cx.cluster.image();
    let brokers: BTreeSet<i32> = brokers.into_iter().collect();
    let known = brokers.iter().filter_map(|id| image.brokers.get(id));
    let endpoint = |broker: &Broker| {
        let (host, port) = caller.endpoint_of(broker)?;
        let rack = broker.rack.clone().map(text);
        Some((BrokerId(broker.id), text(host), port, rack))
    };
    known.filter_map(endpoint).collect()
}

/// Why a named partition is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    #[error(transparent)]
    Partition(#[from] PartitionError),
}

impl WireError for LookupError {
    fn wire(&self) -> ResponseError {
        match self {
            Self::UnknownTopicId => ResponseError::UnknownTopicId,
            Self::Partition(error) => error.wire(),
        }
    }
}

/// A partition's part of Metadata for a client of a listener: error code, leader, and replicas that the client cannot reach
/// (Kafka's KRaftMetadataCache.getPartitionMetadata).
pub(super) fn leadership(
    brokers: &BTreeMap<i32, Broker>,
    listener: &str,
    info: &PartitionInfo,
) -> (Result<i32, ResponseError>, Vec<i32>) {
    let is_reached = |id: &i32| {
        let broker = brokers.get(id);
        broker.is_some_and(|broker| broker.endpoint(listener).is_some())
    };
    let replicas = info.replicas.iter().copied();
    let offline = replicas.filter(|id| !is_reached(id)).collect();
    let leader = match brokers.contains_key(&info.leader) {
        true if is_reached(&info.leader) => Ok(info.leader),
        true => Err(ResponseError::ListenerNotFound),
        false => Err(ResponseError::LeaderNotAvailable),
    };
    (leader, offline)
}
