//! OffsetCommit (key 8, v2–v10; KIP-211, 320, 345, 848): stores a group's offsets durably.
//!
//! - Topics are named by their ids alone from v10 on.
//! - From members of the current generation, or from outside (generation -1) while the group is empty.
//! - A retention in the request (v2 to v4) takes the place of offsets.retention.minutes.
//! - Answered after the coordination store has them.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use metaq_protocol::messages::{ApiKey, OffsetCommitRequest, OffsetCommitResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::context::REFUSALS_NOTED_MAX;
use super::errors::{WireError, code_of};
use super::shared::{OFFSETS_BY_ID_VERSION_MIN, name_of, optional};
use super::{Api, Caller, Context, Order, Stage, serve};
use crate::group::{CommitOffsets, OffsetToCommit};

pub(super) const API: Api = Api {
    key: ApiKey::OffsetCommit,
    order: Order::WithKin,
    needs: &[
        (Operation::Read, ResourceKind::Group),
        (Operation::Read, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, mut stage| {
        let handle = |cx, caller, request| async move {
            let response = handle(cx, caller, request, || stage.ordered()).await;
            drop(stage);
            response
        };
        serve(cx, caller, frame, Stage::free(), handle)
    },
};

/// A member of a group that is not there learnt of an old generation before version 9 (Kafka's OffsetMetadataManager).
fn in_version(code: i16, version: i16) -> i16 {
    match code == ResponseError::GroupIdNotFound.code() && version < 9 {
        true => ResponseError::IllegalGeneration.code(),
        false => code,
    }
}

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: OffsetCommitRequest,
    queued: impl FnOnce() + Send,
) -> OffsetCommitResponse {
    let of_group = Resource::Group(&request.group_id);
    let of_group = authorize(&cx, &caller, Operation::Read, of_group);
    let image = cx.cluster.image();
    let is_by_id = caller.version >= OFFSETS_BY_ID_VERSION_MIN;
    let mut offsets = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    // Position in `offsets` of every partition that exists.
    let mut places = Vec::new();
    for topic in &request.topics {
        let known = match is_by_id {
            true => image.topic_by_id(topic.topic_id),
            false => image.topic(&topic.name),
        };
        let name = known.map_or(&**topic.name, |topic| &*topic.name);
        let of_topic = || match is_by_id && known.is_none() {
            true => Err(ResponseError::UnknownTopicId.code()),
            false => authorize(&cx, &caller, Operation::Read, Resource::Topic(name))
                .map_err(|denied| denied.code()),
        };
        let of_group = of_group.as_ref().map_err(|denied| denied.code());
        let refused = of_group.and_then(|()| of_topic()).err();
        // One of no partitions is answered where it is refused or unknown, as by Kafka.
        if topic.partitions.is_empty() && refused.is_none() && known.is_some() {
            continue;
        }
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let response = OffsetCommitResponsePartition::default()
                .with_partition_index(asked.partition_index);
            if let Some(code) = refused {
                partitions.push(response.with_error_code(code));
                continue;
            }
            if known.is_none_or(|topic| topic.partition(asked.partition_index).is_none()) {
                partitions
                    .push(response.with_error_code(ResponseError::UnknownTopicOrPartition.code()));
                continue;
            }
            places.push((topics.len(), partitions.len()));
            partitions.push(response);
            offsets.push(OffsetToCommit {
                topic: name.to_owned(),
                partition: asked.partition_index,
                offset: asked.committed_offset,
                leader_epoch: asked.committed_leader_epoch,
                metadata: optional(&asked.committed_metadata).unwrap_or_default(),
            });
        }
        topics.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions),
        );
    }
    if !offsets.is_empty() {
        let commit = CommitOffsets {
            member_id: request.member_id.to_string(),
            instance_id: optional(&request.group_instance_id),
            generation: request.generation_id_or_member_epoch,
            retention_ms: (request.retention_time_ms >= 0).then_some(request.retention_time_ms),
            version: caller.version,
            offsets,
        };
        let codes: Vec<i16> = match cx
            .coordinator
            .commit(&request.group_id, commit, queued)
            .await
        {
            Ok(outcomes) => outcomes.iter().map(code_of).collect(),
            Err(error) => vec![error.code(); places.len()],
        };
        let codes = codes
            .into_iter()
            .map(|code| in_version(code, caller.version));
        for ((topic, partition), code) in places.into_iter().zip(codes) {
            topics[topic].partitions[partition].error_code = code;
        }
    }
    let all = topics.iter().flat_map(|topic| {
        let refused = topic.partitions.iter().filter(|one| one.error_code != 0);
        refused.map(move |one| (topic, one))
    });
    for (topic, one) in all.take(REFUSALS_NOTED_MAX) {
        let group = &*request.group_id;
        let named = match is_by_id {
            true => name_of(&cx, topic.topic_id),
            false => topic.name.to_string(),
        };
        let subject = format!("{group} {named}-{}", one.partition_index);
        cx.note(&caller, &subject, one.error_code, "");
    }
    OffsetCommitResponse::default().with_topics(topics)
}
