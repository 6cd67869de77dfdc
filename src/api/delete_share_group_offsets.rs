//! DeleteShareGroupOffsets (key 92, v0; KIP-932): a share group without members has no more to do with topics.
//!
//! - The group forgets them first, then what is stored goes: a broker that dies between leaves something to delete again.
//! - A topic that the group has nothing of is UNKNOWN_TOPIC_OR_PARTITION, a group with members NON_EMPTY_GROUP.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic as DeletedTopic;
use metaq_protocol::messages::{
    ApiKey, DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse,
};
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::share_acknowledgements::{Refusal, refusal, refusal_of};
use super::share_state_admin::{delete, group_refusal};
use super::shared::text;
use super::{Api, Caller, Context, Order, serve};
use crate::share::ShareKey;

/// Partitions whose state is deleted at a time: a coordinator waits for its store with each.
const DELETED_AT_ONCE: usize = 64;

pub(super) const API: Api = Api {
    key: ApiKey::DeleteShareGroupOffsets,
    order: Order::Alone,
    needs: &[
        (Operation::Delete, ResourceKind::Group),
        (Operation::Read, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

const UNKNOWN: ResponseError = ResponseError::UnknownTopicOrPartition;
/// Kafka's words for a topic that a group has nothing of.
const NOTHING_THERE: &str = "There is no offset information to delete.";

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    match delete_all(&cx, &caller, request).await {
        Ok(topics) => DeleteShareGroupOffsetsResponse::default().with_responses(topics),
        Err((error, why)) => DeleteShareGroupOffsetsResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(text(why))),
    }
}

async fn delete_all(
    cx: &Context,
    caller: &Caller,
    request: DeleteShareGroupOffsetsRequest,
) -> Result<Vec<DeletedTopic>, Refusal> {
    let group_id = &**request.group_id;
    authorize(cx, caller, Operation::Delete, Resource::Group(group_id))
        .map_err(|denied| (denied.wire(), denied.to_string()))?;
    let image = cx.cluster.image();
    let ids: Vec<Option<Result<Uuid, Refusal>>> = request
        .topics
        .iter()
        .map(|topic| {
            let name = Resource::Topic(&topic.topic_name);
            if let Err(denied) = authorize(cx, caller, Operation::Read, name) {
                return Some(Err((denied.wire(), denied.to_string())));
            }
            image.topic(&topic.topic_name).map(|topic| Ok(topic.id))
        })
        .collect();
    let wanted = ids.iter().flatten().filter_map(|id| id.as_ref().ok());
    let wanted: Vec<Uuid> = wanted.copied().collect();
    let known = match cx.coordinator.share_delete(group_id, Some(wanted)).await {
        Ok(known) => known,
        Err(error) => return Err(group_refusal(cx, group_id, error).await),
    };
    let state_epoch = known.state_epoch;
    let known: HashMap<Uuid, Vec<i32>> = known.topics.into_iter().collect();
    let mut deleted = Vec::with_capacity(request.topics.len());
    for (topic, id) in request.topics.into_iter().zip(ids) {
        let answer = DeletedTopic::default().with_topic_name(topic.topic_name);
        let (id, outcome) = match id {
            Some(Err(refused)) => (Uuid::nil(), Err(refused)),
            None => (Uuid::nil(), Err(refusal(UNKNOWN))),
            Some(Ok(id)) => match known.get(&id) {
                None => (Uuid::nil(), Err((UNKNOWN, NOTHING_THERE.to_owned()))),
                Some(partitions) => {
                    let what = (id, partitions.as_slice());
                    let done = delete_topic(cx, group_id, what, state_epoch).await;
                    (id, done)
                }
            },
        };
        let answer = answer.with_topic_id(id);
        deleted.push(match outcome {
            Ok(()) => answer,
            Err((error, why)) => answer
                .with_error_code(error.code())
                .with_error_message(Some(text(why))),
        });
    }
    Ok(deleted)
}

async fn delete_topic(
    cx: &Context,
    group_id: &str,
    what: (Uuid, &[i32]),
    state_epoch: i32,
) -> Result<(), Refusal> {
    delete_states(cx, group_id, what, state_epoch).await?;
    let told = cx.coordinator.share_deleted(group_id, what.0).await;
    told.map_err(|error| refusal(error.wire()))
}

/// Forgets what a group has done with partitions of a topic, up to a state epoch.
pub(super) async fn delete_states(
    cx: &Context,
    group_id: &str,
    (topic_id, partitions): (Uuid, &[i32]),
    state_epoch: i32,
) -> Result<(), Refusal> {
    let keys = partitions.iter().map(|partition| ShareKey {
        group_id: group_id.into(),
        topic_id,
        partition: *partition,
    });
    let keys: Vec<ShareKey> = keys.collect();
    let deletions = keys.into_iter();
    let deletions = deletions.map(|key| async move { delete(cx, &key, state_epoch).await });
    let mut outcomes = stream::iter(deletions).buffer_unordered(DELETED_AT_ONCE);
    while let Some(outcome) = outcomes.next().await {
        outcome.map_err(refusal_of)?;
    }
    Ok(())
}
