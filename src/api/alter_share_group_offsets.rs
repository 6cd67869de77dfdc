//! AlterShareGroupOffsets (key 91, v0; KIP-932): sets where a share group without members goes on.
//!
//! - A group that does not exist is made. One with members is NON_EMPTY_GROUP.
//! - What was done with records of the partition before is forgotten; a leader that still knows it is fenced by the state epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_share_group_offsets_response::{
    AlterShareGroupOffsetsResponsePartition as AlteredPartition,
    AlterShareGroupOffsetsResponseTopic as AlteredTopic,
};
use metaq_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, ApiKey,
};
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::share_acknowledgements::{Refusal, refusal, refusal_of};
use super::share_state_admin::initialize;
use super::shared::text;
use super::{Api, Caller, Context, Order, serve};
use crate::share::ShareKey;

pub(super) const API: Api = Api {
    key: ApiKey::AlterShareGroupOffsets,
    order: Order::Alone,
    needs: &[
        (Operation::Read, ResourceKind::Group),
        (Operation::Read, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

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
    cx: &Context,
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
        topics.push((topic.topic_name, id, partitions));
    }
    let state_epoch = cx.coordinator.share_state_epoch(group_id).await;
    let state_epoch = state_epoch.map_err(|error| (error.wire(), error.to_string()))?;
    let mut set: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for (_, topic_id, partitions) in &mut topics {
        for asked in partitions.iter_mut().filter(|asked| asked.outcome.is_ok()) {
            let key = ShareKey {
                group_id: group_id.into(),
                topic_id: *topic_id,
                partition: asked.index,
            };
            let outcome = initialize(cx, &key, state_epoch, asked.start).await;
            asked.outcome = outcome.map_err(refusal_of);
            if asked.outcome.is_ok() {
                set.entry(*topic_id).or_default().push(asked.index);
            }
        }
    }
    let set = set.into_iter().collect();
    let told = cx.coordinator.share_initialized(group_id, set, Vec::new());
    told.await
        .map_err(|error| (error.wire(), error.to_string()))?;
    let altered = topics.into_iter().map(|(name, id, partitions)| {
        AlteredTopic::default()
            .with_topic_name(name)
            .with_topic_id(id)
            .with_partitions(partitions.into_iter().map(altered_partition).collect())
    });
    Ok(altered.collect())
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
