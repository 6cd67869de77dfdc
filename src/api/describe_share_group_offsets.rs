//! DescribeShareGroupOffsets (key 90, v0–v1; KIP-932, 1226): how far share groups are with partitions.
//!
//! - Without topics all partitions that the group began with. What is not known is offset -1, not an error.
//! - v1 says the lag: records up to the end of the log that are not done; -1 where nobody has read yet and no offset was set.
//!
//! Tests: tests/shares.rs, tests/shares_cluster.rs.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup as AskedGroup;
use metaq_protocol::messages::describe_share_group_offsets_response::{
    DescribeShareGroupOffsetsResponseGroup as DescribedGroup,
    DescribeShareGroupOffsetsResponsePartition as DescribedPartition,
    DescribeShareGroupOffsetsResponseTopic as DescribedTopic,
};
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::{
    ApiKey, BrokerId, DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse,
    ListOffsetsRequest,
};
use uuid::Uuid;

use super::authorize::{Denied, Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::forward::FORWARDED;
use super::room::{NoRoom, Room};
use super::share_acknowledgements::{Refusal, refusal};
use super::share_in_flight::{describe_here, is_asked};
use super::share_lost_state::{asks_for_known, known_of, tell_known};
use super::share_state_admin::summary;
use super::shared::{text, told, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::group::GroupError;
use crate::partition::Isolation;
use crate::peer::Lane;
use crate::share::ShareKey;

/// Share partitions that are looked at at the same time.
const LOOKED_AT_ONCE: usize = 64;
/// How long a partition's leader may take to say where its log ends.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A version of ListOffsets that every broker serves.
const LIST_VERSION: i16 = 7;
/// What a topic takes in an answer besides its name.
const TOPIC_BYTES: usize = 100;
/// What a partition takes in an answer, and while it is looked at.
const PARTITION_BYTES: usize = 200;
/// Stands for the end in ListOffsets.
const LATEST: i64 = -1;
/// Of offsets and lags that are not known.
const UNKNOWN: i64 = -1;

pub(super) const API: Api = Api {
    key: ApiKey::DescribeShareGroupOffsets,
    order: Order::Alone,
    needs: &[
        (Operation::Describe, ResourceKind::Group),
        (Operation::Describe, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    let mut room = Room::new(&cx);
    for asked in request.groups {
        let mut group = match describe(&cx, &caller, &mut room, &asked).await {
            Ok(topics) => DescribedGroup::default().with_topics(topics),
            Err((error, why)) => DescribedGroup::default()
                .with_error_code(error.code())
                .with_error_message(told(why)),
        };
        if asks_for_known(&asked) {
            tell_known(&mut group);
        }
        groups.push(group.with_group_id(asked.group_id));
    }
    DescribeShareGroupOffsetsResponse::default().with_groups(groups)
}

async fn describe(
    cx: &Arc<Context>,
    caller: &Caller,
    room: &mut Room,
    asked: &AskedGroup,
) -> Result<Vec<DescribedTopic>, Refusal> {
    let group_id = &**asked.group_id;
    // Kafka gives the code alone.
    authorize(cx, caller, Operation::Describe, Resource::Group(group_id))
        .map_err(|denied| (denied.wire(), String::new()))?;
    room.check().map_err(no_room)?;
    let may_see = |name: &str| {
        let topic = Resource::Topic(name);
        authorize(cx, caller, Operation::Describe, topic)
    };
    let image = cx.cluster.image();
    let mut described = Vec::new();
    let mut known: Vec<(Arc<str>, Uuid, Vec<i32>)> = Vec::new();
    match &asked.topics {
        None => {
            let all = cx.coordinator.share_partitions(group_id).await;
            // As by Kafka, a group that is not there has none.
            let all = match all {
                Err(GroupError::GroupIdNotFound) => Vec::new(),
                all => all.map_err(|error| (error.wire(), error.to_string()))?,
            };
            for (topic_id, partitions) in all {
                if let Some(topic) = image.topic_by_id(topic_id)
                    && may_see(&topic.name).is_ok()
                {
                    known.push((topic.name.clone(), topic_id, partitions));
                }
            }
        }
        Some(topics) => {
            for topic in topics {
                let name = &*topic.topic_name;
                match (may_see(name), image.topic(name)) {
                    (Err(denied), _) => {
                        described.push(without(name, &topic.partitions, Some(&denied)));
                    }
                    (Ok(()), None) => described.push(without(name, &topic.partitions, None)),
                    (Ok(()), Some(found)) => {
                        // One that is named twice is told of once.
                        let mut seen = HashSet::new();
                        let partitions = topic.partitions.iter().copied();
                        let partitions = partitions.filter(|index| seen.insert(*index));
                        known.push((found.name.clone(), found.id, partitions.collect()));
                    }
                }
            }
        }
    }
    let bytes = |(name, _, partitions): &(Arc<str>, Uuid, Vec<i32>)| {
        TOPIC_BYTES + name.len() + PARTITION_BYTES * partitions.len()
    };
    room.grow(known.iter().map(bytes).sum()).map_err(no_room)?;
    if asks_for_known(asked) {
        for (name, id, partitions) in known_of(cx, group_id, known).await {
            described.push(without(&name, &partitions, None).with_topic_id(id));
        }
        return Ok(described);
    }
    match is_asked(asked) {
        true => described.extend(look_here(cx, room, group_id, known).await?),
        false => described.extend(look_at(cx, group_id, known).await),
    }
    Ok(described)
}

/// A topic of which nothing is known, or nothing is told.
fn without(name: &str, partitions: &[i32], error: Option<&Denied>) -> DescribedTopic {
    let partitions = partitions.iter().map(|index| {
        let partition = DescribedPartition::default()
            .with_partition_index(*index)
            .with_start_offset(UNKNOWN)
            .with_lag(UNKNOWN);
        match error {
            None => partition,
            Some(error) => partition
                .with_error_code(error.code())
                .with_error_message(Some(text(error.to_string()))),
        }
    });
    DescribedTopic::default()
        .with_topic_name(topic_name(name))
        .with_partitions(partitions.collect())
}

fn no_room(error: NoRoom) -> Refusal {
    error.told(ResponseError::CoordinatorNotAvailable)
}

/// What is in flight of partitions that this broker leads.
async fn look_here(
    cx: &Context,
    room: &mut Room,
    group_id: &str,
    topics: Vec<(Arc<str>, Uuid, Vec<i32>)>,
) -> Result<Vec<DescribedTopic>, Refusal> {
    let mut described = Vec::with_capacity(topics.len());
    for (name, topic_id, partitions) in topics {
        let mut topic = without(&name, &partitions, None).with_topic_id(topic_id);
        for partition in &mut topic.partitions {
            tokio::task::coop::consume_budget().await;
            let key = ShareKey {
                group_id: group_id.into(),
                topic_id,
                partition: partition.partition_index,
            };
            room.grow(describe_here(cx, &key, partition))
                .map_err(no_room)?;
        }
        described.push(topic);
    }
    Ok(described)
}

async fn look_at(
    cx: &Arc<Context>,
    group_id: &str,
    topics: Vec<(Arc<str>, Uuid, Vec<i32>)>,
) -> Vec<DescribedTopic> {
    let group: Arc<str> = group_id.into();
    let all = topics
        .iter()
        .enumerate()
        .flat_map(|(at, (name, id, partitions))| {
            let group = &group;
            partitions.iter().map(move |index| {
                let key = ShareKey {
                    group_id: group.clone(),
                    topic_id: *id,
                    partition: *index,
                };
                (at, name.clone(), key)
            })
        });
    let all: Vec<(usize, Arc<str>, ShareKey)> = all.collect();
    let looks = stream::iter(all).map(|(at, name, key)| {
        let cx = cx.clone();
        async move { (at, partition(&cx, &name, &key).await) }
    });
    let found: Vec<(usize, DescribedPartition)> = looks.buffered(LOOKED_AT_ONCE).collect().await;
    let mut by_topic: BTreeMap<usize, Vec<DescribedPartition>> = BTreeMap::new();
    for (at, partition) in found {
        by_topic.entry(at).or_default().push(partition);
    }
    let described = topics.iter().enumerate().map(|(at, (name, id, _))| {
        DescribedTopic::default()
            .with_topic_name(topic_name(name))
            .with_topic_id(*id)
            .with_partitions(by_topic.remove(&at).unwrap_or_default())
    });
    described.collect()
}

async fn partition(cx: &Context, topic: &str, key: &ShareKey) -> DescribedPartition {
    let described = DescribedPartition::default().with_partition_index(key.partition);
    let summary = match summary(cx, key).await {
        Ok(summary) => summary,
        Err(error) => {
            tracing::debug!(share = %key, %error, "cannot read what is stored");
            return described.with_start_offset(UNKNOWN).with_lag(UNKNOWN);
        }
    };
    let described = described
        .with_start_offset(summary.start)
        .with_leader_epoch(summary.leader_epoch.max(0))
        .with_lag(UNKNOWN);
    if summary.start < 0 || summary.delivery_complete_count < 0 {
        return described;
    }
    match end_offset(cx, topic, key).await {
        Ok(end) => {
            let done = summary.start + i64::from(summary.delivery_complete_count);
            described.with_lag((end - done).max(0))
        }
        Err((error, why)) => DescribedPartition::default()
            .with_partition_index(key.partition)
            .with_error_code(error.code())
            .with_error_message(Some(text(why))),
    }
}

/// Where a partition's log ends, as its leader says.
pub(super) async fn end_offset(cx: &Context, topic: &str, key: &ShareKey) -> Result<i64, Refusal> {
    let here = cx.partitions.topic_by_id(key.topic_id);
    let here = here.and_then(|topic| topic.get(key.partition).cloned().ok());
    if let Some(partition) = here.filter(|partition| partition.is_leader()) {
        return Ok(partition.readable_end(Isolation::ReadUncommitted));
    }
    let image = cx.cluster.image();
    let found = image.topic_by_id(key.topic_id);
    let leader = found.and_then(|topic| topic.partition(key.partition));
    let leader = leader.and_then(|info| image.brokers.get(&info.leader));
    let leader = leader.ok_or_else(|| refusal(ResponseError::LeaderNotAvailable))?;
    let asked = ListOffsetsPartition::default()
        .with_partition_index(key.partition)
        .with_timestamp(LATEST);
    let asked = ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![asked]);
    let to = (Lane::Forwards, leader);
    let answer = cx
        .call(to, (FORWARDED, LIST_VERSION), &request, ANSWER_MAX)
        .await;
    let answer = answer.map_err(|_| refusal(ResponseError::LeaderNotAvailable))?;
    let mut found = answer.topics.iter().flat_map(|topic| &topic.partitions);
    match found.next() {
        Some(found) => match ResponseError::try_from_code(found.error_code) {
            None => Ok(found.offset),
            Some(error) => Err(refusal(error)),
        },
        None => Err(refusal(ResponseError::UnknownServerError)),
    }
}
