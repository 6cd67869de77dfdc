//! DeleteRecords (key 21, v0–v2; KIP-107): moves a partition's log start offset forward.
//!
//! - Offset -1 stands for the high watermark; beyond it is OFFSET_OUT_OF_RANGE.
//! - Refused with POLICY_VIOLATION where the cleanup policy does not name delete, as by Kafka.
//! - Answered after the new start is durable in log-start-offset-checkpoint.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use metaq_protocol::messages::{ApiKey, DeleteRecordsRequest, DeleteRecordsResponse};
use uuid::Uuid;

use super::errors::WireError;
use super::shared::partition_of;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::DeleteRecords,
    order: Order::Alone,
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    _: Caller,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let answer =
                DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            partitions.push(
                match delete(&cx, &topic.name, asked.partition_index, asked.offset).await {
                    Ok(log_start) => answer.with_low_watermark(log_start),
                    Err(error) => answer.with_error_code(error.code()).with_low_watermark(-1),
                },
            );
        }
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete(cx: &Context, topic: &str, index: i32, offset: i64) -> Result<i64, ResponseError> {
    let partition = partition_of(cx, topic, Uuid::nil(), index).map_err(|error| error.wire())?;
    if !partition.log().config().delete {
        return Err(ResponseError::PolicyViolation);
    }
    cx.partitions
        .delete_records(&partition, offset)
        .await
        .map_err(|error| error.wire())
}
