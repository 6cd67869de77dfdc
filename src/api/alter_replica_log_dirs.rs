//! AlterReplicaLogDirs (key 34, v1–v2; KIP-113): moves partitions to other data directories of this broker, while they
//! serve.
//!
//! - Answered when the move has begun; DescribeLogDirs tells when it is done.
//! - A partition that this broker does not lead is REPLICA_NOT_AVAILABLE; unlike Kafka, no directory is remembered for
//!   one that may come.

use std::collections::BTreeMap;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use metaq_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, ApiKey};

use super::authorize::{Denied, Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::topic_name;
use super::{Api, Caller, Context, Order, serve};
use crate::partition::{MoveError, PartitionError};

pub(super) const API: Api = Api {
    key: ApiKey::AlterReplicaLogDirs,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    if let Err(denied) = authorize(&cx, &caller, Operation::Alter, Resource::Cluster) {
        return of_all(request, &denied);
    }
    let mut wanted: BTreeMap<&str, BTreeMap<i32, &str>> = BTreeMap::new();
    for dir in &request.dirs {
        // As by Kafka, which thinks of partitions, a topic without any is not in the answer.
        let named = dir
            .topics
            .iter()
            .filter(|topic| !topic.partitions.is_empty());
        for topic in named {
            let partitions = wanted.entry(topic.name.as_str()).or_default();
            let indexes = topic.partitions.iter();
            partitions.extend(indexes.map(|index| (*index, dir.path.as_str())));
        }
    }
    let mut results = Vec::with_capacity(wanted.len());
    for (topic, indexes) in wanted {
        let mut partitions = Vec::with_capacity(indexes.len());
        for (index, dir) in indexes {
            // Other tasks run too during a request that names very many.
            tokio::task::coop::consume_budget().await;
            let begun = begin(&cx, topic, index, dir);
            let error_code = begun.err().map_or(0, |error| error.code());
            let result = AlterReplicaLogDirPartitionResult::default()
                .with_partition_index(index)
                .with_error_code(error_code);
            partitions.push(result);
        }
        results.push(
            AlterReplicaLogDirTopicResult::default()
                .with_topic_name(topic_name(topic))
                .with_partitions(partitions),
        );
    }
    AlterReplicaLogDirsResponse::default().with_results(results)
}

/// Everything as it is named, with the error (Kafka's AlterReplicaLogDirsRequest.getErrorResponse).
fn of_all(request: AlterReplicaLogDirsRequest, denied: &Denied) -> AlterReplicaLogDirsResponse {
    let topics = request.dirs.into_iter().flat_map(|dir| dir.topics);
    let results = topics.map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            AlterReplicaLogDirPartitionResult::default()
                .with_partition_index(*index)
                .with_error_code(denied.code())
        });
        AlterReplicaLogDirTopicResult::default()
            .with_partitions(partitions.collect())
            .with_topic_name(topic.name)
    });
    AlterReplicaLogDirsResponse::default().with_results(results.collect())
}

/// The directory is looked at first (Kafka's ReplicaManager.alterReplicaLogDirs).
fn begin(cx: &Context, topic: &str, index: i32, dir: &str) -> Result<(), ResponseError> {
    let wire = |error| match error {
        MoveError::NoDirectory(_) => ResponseError::LogDirNotFound,
        MoveError::Io(_) => ResponseError::KafkaStorageError,
    };
    cx.partitions.data_dir(dir.as_ref()).map_err(wire)?;
    let partition = cx
        .partitions
        .get(topic, index)
        .map_err(|error| match error {
            PartitionError::Offline(_) => ResponseError::KafkaStorageError,
            PartitionError::Unknown | PartitionError::NotLeader => {
                ResponseError::ReplicaNotAvailable
            }
        })?;
    cx.partitions
        .move_to(&partition, dir.as_ref())
        .map_err(wire)
}
