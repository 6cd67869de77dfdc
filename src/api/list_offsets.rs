//! ListOffsets (key 2, v1–v11; KIP-79, 98, 320, 734, 405, 1005, 1023): offsets by name or by time.
//!
//! - -1 latest (by isolation level), -2 earliest, -3 largest timestamp (v7+), -4 earliest local (v8+),
//!   -5 latest tiered (v9+), -6 earliest that is to be uploaded (v11+); there are no tiers: offset -1.
//! - A timestamp beyond all records answers offset -1 without an error.
//! - A leader that does not know yet how far its partition is committed answers OFFSET_NOT_AVAILABLE, or LEADER_NOT_AVAILABLE
//!   before v5 (KIP-207). A follower (a broker that says its id) is given the end of the log.
//! - A partition that is named twice is INVALID_REQUEST, once; after it comes what a version does not know, and only then
//!   what the partition says (Kafka's ReplicaManager.fetchOffset).
//!
//! Tests: tests/committed.rs, tests/answers.rs.

use std::collections::HashSet;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use metaq_protocol::messages::{ApiKey, ListOffsetsRequest, ListOffsetsResponse};
use uuid::Uuid;

use super::authorize::{Denied, Operation, Resource, ResourceKind, authorize};
use super::context::REFUSALS_NOTED_MAX;
use super::errors::WireError;
use super::shared::{named_twice, partition_of};
use super::{Api, Caller, Context, Order, serve};
use crate::partition::{Isolation, ListedOffset, OffsetSpec, Partition};

pub(super) const API: Api = Api {
    key: ApiKey::ListOffsets,
    order: Order::Alone,
    needs: &[(Operation::Describe, ResourceKind::Topic)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// From this version on OFFSET_NOT_AVAILABLE is known.
const NOT_AVAILABLE_FROM: i16 = 5;

/// What who asks sees of a log.
#[derive(Clone, Copy)]
enum Seen {
    /// A follower, all that is written.
    All,
    /// A client.
    By(Isolation),
}

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let seen = match (request.replica_id.0 >= 0, request.isolation_level) {
        (true, _) => Seen::All,
        (false, 1) => Seen::By(Isolation::ReadCommitted),
        (false, _) => Seen::By(Isolation::ReadUncommitted),
    };
    let mut noted = 0;
    // As Kafka's ListOffsetsRequest.duplicatePartitions.
    let mut twice = named_twice(request.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (topic.name.clone(), partition.partition_index))
    }));
    let mut refused = HashSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let resource = Resource::Topic(&topic.name);
        if let Err(denied) = authorize(&cx, &caller, Operation::Describe, resource) {
            cx.note(&caller, &topic.name, denied.code(), "");
            topics.push(of_denied(topic, &denied));
            continue;
        }
        // It is not answered, as by Kafka.
        if topic.partitions.is_empty() {
            continue;
        }
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let response =
                ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
            let name = (topic.name.clone(), asked.partition_index);
            let listed = match twice.take(&name) {
                Some(name) => {
                    refused.insert(name);
                    Err(ResponseError::InvalidRequest)
                }
                None if refused.contains(&name) => continue,
                None => list(&cx, caller.version, &topic.name, &asked, seen).await,
            };
            partitions.push(match listed {
                Ok(found) => response
                    .with_offset(found.offset)
                    .with_timestamp(found.timestamp)
                    .with_leader_epoch(if caller.version >= 4 {
                        found.leader_epoch
                    } else {
                        -1
                    }),
                Err(error) => {
                    if noted < REFUSALS_NOTED_MAX {
                        let what = format!("{}-{}", &*topic.name, asked.partition_index);
                        cx.note(&caller, &what, error.code(), "");
                        noted += 1;
                    }
                    response
                        .with_error_code(error.code())
                        .with_offset(-1)
                        .with_timestamp(-1)
                }
            });
        }
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// Everything as it is named, also what is named twice (KafkaApis.handleListOffsetRequest).
fn of_denied(topic: ListOffsetsTopic, denied: &Denied) -> ListOffsetsTopicResponse {
    let partitions = topic.partitions.iter().map(|asked| {
        ListOffsetsPartitionResponse::default()
            .with_partition_index(asked.partition_index)
            .with_error_code(denied.code())
            .with_offset(-1)
            .with_timestamp(-1)
    });
    ListOffsetsTopicResponse::default()
        .with_partitions(partitions.collect())
        .with_name(topic.name)
}

async fn list(
    cx: &Context,
    version: i16,
    topic: &str,
    asked: &ListOffsetsPartition,
    seen: Seen,
) -> Result<ListedOffset, ResponseError> {
    let spec = spec(asked.timestamp, version)?;
    let partition = partition_of(cx, topic, Uuid::nil(), asked.partition_index)
        .map_err(|error| error.wire())?;
    partition
        .check_epoch(asked.current_leader_epoch)
        .map_err(|error| error.wire())?;
    // There are no tiers.
    let Some(spec) = spec else {
        return Ok(ListedOffset {
            offset: -1,
            timestamp: -1,
            leader_epoch: -1,
        });
    };
    let isolation = match seen {
        Seen::By(isolation) => isolation,
        Seen::All if spec == OffsetSpec::Latest => return Ok(log_end(&partition)),
        Seen::All => Isolation::ReadUncommitted,
    };
    if !partition.knows_high_watermark() && spec != OffsetSpec::Earliest {
        return Err(match version >= NOT_AVAILABLE_FROM {
            true => ResponseError::OffsetNotAvailable,
            false => ResponseError::LeaderNotAvailable,
        });
    }
    let look = move || partition.list_offset(spec, isolation);
    let found = match spec {
        OffsetSpec::Timestamp(_) | OffsetSpec::MaxTimestamp => {
            // Reads and unpacks batches: not on a thread that serves connections.
            let looked = cx.partitions.workers().unblock(look).await;
            looked.ok_or(ResponseError::UnknownServerError)?
        }
        _ => look(),
    };
    found.map_err(|error| error.wire())
}

/// The end of all that is written, as followers see it.
fn log_end(partition: &Partition) -> ListedOffset {
    ListedOffset {
        offset: partition.log().ends().log_end.offset,
        timestamp: -1,
        leader_epoch: partition.leader_epoch(),
    }
}

/// What a timestamp asks for, none where there never is any.
fn spec(timestamp: i64, version: i16) -> Result<Option<OffsetSpec>, ResponseError> {
    match timestamp {
        -1 => Ok(Some(OffsetSpec::Latest)),
        -2 => Ok(Some(OffsetSpec::Earliest)),
        -3 if version >= 7 => Ok(Some(OffsetSpec::MaxTimestamp)),
        -4 if version >= 8 => Ok(Some(OffsetSpec::EarliestLocal)),
        -5 if version >= 9 => Ok(None),
        // There are no tiers.
        -6 if version >= 11 => Ok(None),
        timestamp if timestamp >= 0 => Ok(Some(OffsetSpec::Timestamp(timestamp))),
        _ => Err(ResponseError::UnsupportedVersion),
    }
}
