//! AlterShareGroupOffsets (key 91, v0; KIP-932): sets where a share group without members goes on.
//!
//! - A group that does not exist is made. One with members is NON_EMPTY_GROUP.
//! - What was done with records of the partition before is forgotten; a leader that still knows it is fenced by the state epoch.
//! - An offset beyond the end of the log is the end. A member that joins meanwhile is not assigned the partition until it is set.
//!
//! Tests: tests/shares.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_share_group_offsets_response::{
    AlterShareGroupOffsetsResponsePartition as AlteredPartition,
    AlterShareGroupOffsetsResponseTopic as AlteredTopic,
};
use metaq_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, ApiKey, TopicName,
};
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::describe_share_group_offsets::end_offset;
use super::errors::WireError;
use super::own_task::counted_in_own_task;
use super::share_acknowledgements::{Refusal, refusal, refusal_of};
use super::share_state_admin::{group_refusal, initialize, summary};
use super::shared::text;
use super::{Api, Caller, Context, Order, serve};
use crate::share::{ShareKey, ShareStateError};

pub(super) const API: Api = Api {
    key: ApiKey::AlterShareGroupOffsets,
    order: Order::Alone,
    needs: &[
        (Operation::Read, ResourceKind::Group),
        (Operation::Read, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// Where a group begins as its configuration says.
const AS_CONFIGURED: i64 = -1;

/// Partitions that are asked about, or set, at a time: a coordinator waits for its store with each.
const AT_ONCE: usize = 64;

/// A topic's name, id and partitions.
type Altered = (TopicName, Uuid, Vec<Asked>);

/// A partition whose offset is to be set, and why it is not.
struct Asked {
    index: i32,
    start: i64,
    outcome: Result<(), Refusal>,
}

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    match alter(&cx, &caller, request).await {
        Ok(topics) => AlterShareGroupOffsetsResponse::default().with_responses(topics),
        Err((error, why)) => AlterShareGroupOffsetsResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(text(why))),
    }
}

async fn alter(
    cx: &Arc<Context>,
    caller: &Caller,
    request: AlterShareGroupOffsetsRequest,
) -> Result<Vec<AlteredTopic>, Refusal> {
    let group_id = &**request.group_id;
    authorize(cx, caller, Operation::Read, Resource::Group(group_id))
        .map_err(|denied| (denied.wire(), denied.to_string()))?;
    let image = cx.cluster.image();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = image.topic(&topic.topic_name).cloned();
        let allowed = authorize(
            cx,
            caller,
            Operation::Read,
            Resource::Topic(&topic.topic_name),
        );
        let partitions = topic.partitions.iter().map(|asked| Asked {
            index: asked.partition_index,
            start: asked.start_offset,
            outcome: match (&allowed, &found) {
                (Err(denied), _) => Err((denied.wire(), denied.to_string())),
                (Ok(()), Some(found)) if found.partition(asked.partition_index).is_some() => Ok(()),
                _ => Err(refusal(ResponseError::UnknownTopicOrPartition)),
            },
        });
        let partitions: Vec<Asked> = partitions.collect();
        let id = found.map_or(Uuid::nil(), |found| found.id);
        // As by Kafka, nothing is said of a topic that is not there and of which nothing was asked.
        if !id.is_nil() || !partitions.is_empty() {
            topics.push((topic.topic_name, id, partitions));
        }
    }
    bound(cx, group_id, &mut topics).await;
    let topics = set_again_where_fenced(cx, group_id, topics).await?;
    let altered = topics.into_iter().map(|(name, id, partitions)| {
        AlteredTopic::default()
            .with_topic_name(name)
            .with_topic_id(id)
            .with_partitions(partitions.into_iter().map(altered_partition).collect())
    });
    Ok(altered.collect())
}

/// A group that went on beyond the end of a log would leave out what comes there. As for consumer groups, whose tool does so
/// itself, such an offset means the end.
async fn bound(cx: &Arc<Context>, group_id: &str, topics: &mut [Altered]) {
    let wanted = places(topics, |asked| asked.outcome.is_ok());
    let ends = stream::iter(wanted).map(|(topic, at)| {
        let (name, topic_id, partitions) = &topics[topic];
        let key = key(group_id, *topic_id, partitions[at].index);
        let (cx, name) = (cx.clone(), name.clone());
        async move { ((topic, at), end_offset(&cx, &name, &key).await) }
    });
    let ends: Vec<_> = ends.buffer_unordered(AT_ONCE).collect().await;
    for ((topic, at), end) in ends {
        let asked = &mut topics[topic].2[at];
        match end {
            _ if asked.start < AS_CONFIGURED => {
                asked.outcome = Err(refusal(ResponseError::InvalidRequest));
            }
            Ok(end) => asked.start = asked.start.min(end),
            Err(refused) => asked.outcome = Err(refused),
        }
    }
}

/// Where those partitions are that are wanted: number of the topic, and of the partition in it.
fn places(topics: &[Altered], is_wanted: impl Fn(&Asked) -> bool) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for (topic, (.., partitions)) in topics.iter().enumerate() {
        let wanted = partitions.iter().enumerate();
        let wanted = wanted.filter(|(_, asked)| is_wanted(asked));
        places.extend(wanted.map(|(at, _)| (topic, at)));
    }
    places
}

fn key(group_id: &str, topic_id: Uuid, partition: i32) -> ShareKey {
    ShareKey {
        group_id: group_id.into(),
        topic_id,
        partition,
    }
}

/// Sets them, and once more where something of an earlier group of this name was in the way.
async fn set_again_where_fenced(
    cx: &Arc<Context>,
    group_id: &str,
    topics: Vec<Altered>,
) -> Result<Vec<Altered>, Refusal> {
    let bytes_of = |(name, _, partitions): &Altered| {
        size_of::<Altered>() + name.len() + size_of::<Asked>() * partitions.len()
    };
    let bytes = topics.iter().map(bytes_of).sum();
    let (of_task, group_id) = (cx.clone(), group_id.to_owned());
    // It goes on where the client does not wait for it: no member is assigned what is being set.
    let going_on = async move {
        let (mut topics, beyond) = set(&of_task, &group_id, topics).await?;
        if beyond > 0 {
            (topics, _) = set(&of_task, &group_id, topics).await?;
        }
        Ok(topics)
    };
    let done = counted_in_own_task(&cx.memory, bytes, going_on).await;
    done.unwrap_or_else(|| Err(refusal(ResponseError::CoordinatorNotAvailable)))
}

/// Whether it is to be set, or to be set again.
fn is_wanted(asked: &Asked) -> bool {
    let fenced = ResponseError::FencedStateEpoch;
    asked
        .outcome
        .as_ref()
        .map_or_else(|(error, _)| *error == fenced, |()| true)
}

/// Sets them with the group's next state epoch; and the latest one of those that have a later one, 0 for none.
async fn set(
    cx: &Arc<Context>,
    group_id: &str,
    mut topics: Vec<Altered>,
) -> Result<(Vec<Altered>, i32), Refusal> {
    let wanted = topics.iter().map(|(_, topic_id, partitions)| {
        let wanted = partitions.iter().filter(|asked| is_wanted(asked));
        (*topic_id, wanted.map(|asked| asked.index).collect())
    });
    let wanted = wanted.filter(|(_, partitions): &(Uuid, Vec<i32>)| !partitions.is_empty());
    let wanted: Vec<(Uuid, Vec<i32>)> = wanted.collect();
    let state_epoch = match cx.coordinator.share_alter(group_id, wanted).await {
        Ok(state_epoch) => state_epoch,
        Err(error) => return Err(group_refusal(cx, group_id, error).await),
    };
    let (mut done, mut failed) = (
        BTreeMap::<_, Vec<i32>>::new(),
        BTreeMap::<_, Vec<i32>>::new(),
    );
    let setting = stream::iter(places(&topics, is_wanted)).map(|(topic, at)| {
        let (_, topic_id, partitions) = &topics[topic];
        let key = key(group_id, *topic_id, partitions[at].index);
        let (cx, start) = (cx.clone(), partitions[at].start);
        async move {
            let outcome = initialize(&cx, &key, state_epoch, start).await;
            let there = match outcome {
                Err(ShareStateError::FencedStateEpoch) => summary(&cx, &key).await.ok(),
                _ => None,
            };
            let later = there.map_or(0, |there| there.state_epoch);
            ((topic, at), outcome, later)
        }
    });
    let outcomes: Vec<_> = setting.buffer_unordered(AT_ONCE).collect().await;
    let beyond = outcomes.iter().map(|(.., later)| *later).max();
    let beyond = beyond.unwrap_or(0);
    for ((topic, at), outcome, _) in outcomes {
        let (_, topic_id, partitions) = &mut topics[topic];
        let asked = &mut partitions[at];
        let which = match outcome.is_ok() {
            true => &mut done,
            false => &mut failed,
        };
        which.entry(*topic_id).or_default().push(asked.index);
        asked.outcome = outcome.map_err(|error| match error {
            ShareStateError::FencedStateEpoch => refusal(ResponseError::FencedStateEpoch),
            error => refusal_of(error),
        });
    }
    let outcomes = (done.into_iter().collect(), failed.into_iter().collect());
    let told = cx.coordinator.share_initialized(group_id, outcomes, beyond);
    told.await.map_err(|error| refusal(error.wire()))?;
    Ok((topics, beyond))
}

fn altered_partition(asked: Asked) -> AlteredPartition {
    let partition = AlteredPartition::default().with_partition_index(asked.index);
    match asked.outcome {
        Ok(()) => partition,
        Err((error, why)) => partition
            .with_error_code(error.code())
            .with_error_message(Some(text(why))),
    }
}
