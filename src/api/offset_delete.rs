//! OffsetDelete (key 47, v0; KIP-496): forgets a group's offsets in topics that no member reads.

use std::collections::HashMap;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic;
use metaq_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use metaq_protocol::messages::{ApiKey, OffsetDeleteRequest, OffsetDeleteResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::{WireError, code_of};
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::OffsetDelete,
    order: Order::Alone,
    needs: &[
        (Operation::Delete, ResourceKind::Group),
        (Operation::Read, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let group = Resource::Group(&request.group_id);
    if let Err(denied) = authorize(&cx, &caller, Operation::Delete, group) {
        return OffsetDeleteResponse::default().with_error_code(denied.code());
    }
    let image = cx.cluster.image();
    let may_read = |topic: &str| authorize(&cx, &caller, Operation::Read, Resource::Topic(topic));
    let exists = |topic: &str, index: i32| {
        image
            .topic(topic)
            .is_some_and(|topic| topic.partition(index).is_some())
    };
    let all = request.topics.iter().flat_map(|topic| {
        topic
            .partitions
            .iter()
            .map(move |partition| (topic.name.to_string(), partition.partition_index))
    });
    let (known, _): (Vec<_>, Vec<_>) =
        all.partition(|(topic, index)| may_read(topic).is_ok() && exists(topic, *index));
    let outcomes = match cx
        .coordinator
        .delete_offsets(&request.group_id, known.clone())
        .await
    {
        Ok(outcomes) => outcomes,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(error.code()),
    };
    let codes: HashMap<(String, i32), i16> = known
        .into_iter()
        .zip(outcomes.iter().map(code_of))
        .collect();
    let code = |topic: &str, index: i32| {
        if let Err(denied) = may_read(topic) {
            return denied.code();
        }
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        let code = codes.get(&(topic.to_owned(), index));
        code.copied().unwrap_or(unknown)
    };
    // As in Kafka, one without partitions is named where it is not there, or not to be read.
    let is_named = |topic: &&OffsetDeleteRequestTopic| {
        let name = topic.name.as_str();
        !topic.partitions.is_empty() || may_read(name).is_err() || image.topic(name).is_none()
    };
    let topics = request.topics.iter().filter(is_named).map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(&topic.name, partition.partition_index))
        });
        OffsetDeleteResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
