//! DeleteRecords (key 21, v0–v2; KIP-107): moves a partition's log start offset forward.
//!
//! - Offset -1 stands for the high watermark; beyond it is OFFSET_OUT_OF_RANGE.
//! - Refused with POLICY_VIOLATION where the cleanup policy does not name delete, as by Kafka.
//! - Of a partition that is named several times the last offset counts, as by Kafka.
//! - Answered after the new start is durable in log-start-offset-checkpoint, and the followers that are there have moved theirs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use metaq_protocol::messages::{ApiKey, DeleteRecordsRequest, DeleteRecordsResponse, TopicName};
use tokio::time::Instant;
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::partition_of;
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::is_internal_name;
use crate::log::LogError;
use crate::partition::Partition;

pub(super) const API: Api = Api {
    key: ApiKey::DeleteRecords,
    order: Order::Alone,
    needs: &[(Operation::Delete, ResourceKind::Topic)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// Between two looks at how far followers are, which say so when they fetch.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let deadline =
        Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut offsets: HashMap<(TopicName, i32), i64> = HashMap::new();
    for topic in &request.topics {
        for asked in &topic.partitions {
            offsets.insert((topic.name.clone(), asked.partition_index), asked.offset);
        }
    }
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut moved = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for index in topic.partitions.iter().map(|asked| asked.partition_index) {
            // Where it was named before it is answered there.
            let Some(offset) = offsets.remove(&(topic.name.clone(), index)) else {
                continue;
            };
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(index);
            partitions.push(
                match delete(&cx, &caller, &topic.name, index, offset).await {
                    Ok(partition) => {
                        moved.push((topics.len(), partitions.len(), partition));
                        answer
                    }
                    Err(error) => answer.with_error_code(error.code()).with_low_watermark(-1),
                },
            );
        }
        // One of no partitions is not answered, as by Kafka.
        if partitions.is_empty() {
            continue;
        }
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    if !moved.is_empty() {
        // One write for all of them.
        let durable = cx.partitions.checkpoint_aside().await.map_err(LogError::Io);
        for (topic, at, partition) in moved {
            let reached = match &durable {
                Ok(()) => low_watermark(&cx, &partition, deadline).await,
                Err(error) => Err(error.wire()),
            };
            let answer = &mut topics[topic].partitions[at];
            match reached {
                Ok(low_watermark) => answer.low_watermark = low_watermark,
                Err(error) => {
                    answer.error_code = error.code();
                    answer.low_watermark = -1;
                }
            }
        }
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

/// Waits until the replicas that are there have moved their starts as well (Kafka's DelayedDeleteRecords); the least of them.
async fn low_watermark(
    cx: &Context,
    partition: &Partition,
    deadline: Instant,
) -> Result<i64, ResponseError> {
    let start = partition.log().ends().log_start;
    loop {
        let image = cx.cluster.image();
        let is_live = |id: i32| image.brokers.contains_key(&id);
        match partition.least_log_start(is_live) {
            Some(least) if least >= start => return Ok(start),
            _ if !partition.is_leader() => return Err(ResponseError::NotLeaderOrFollower),
            _ if Instant::now() >= deadline => return Err(ResponseError::RequestTimedOut),
            _ => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

async fn delete(
    cx: &Context,
    caller: &Caller,
    topic: &str,
    index: i32,
    offset: i64,
) -> Result<Arc<Partition>, ResponseError> {
    authorize(cx, caller, Operation::Delete, Resource::Topic(topic))
        .map_err(|denied| denied.wire())?;
    let partition = partition_of(cx, topic, Uuid::nil(), index).map_err(|error| error.wire())?;
    if is_internal_name(topic) {
        return Err(ResponseError::InvalidTopicException);
    }
    if !partition.log().config().delete {
        return Err(ResponseError::PolicyViolation);
    }
    cx.partitions
        .delete_records(&partition, offset)
        .await
        .map_err(|error| error.wire())?;
    Ok(partition)
}
