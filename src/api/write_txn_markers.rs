//! WriteTxnMarkers (key 27, v1–v2; KIP-98, 890, 1228): ends transactions on partitions, for the coordinator that decided.
//!
//! - Each partition is answered by itself, once its marker is written with the promise of acks=all; all of a request are queued
//!   before the first one is waited for.
//! - v2 says by which rules the transaction is ended; v1 stands for those before version 2.
//! - A marker without a producer, or of a version that nobody has, is UNKNOWN_SERVER_ERROR where the partition is there, as
//!   Kafka's exception is.
//! - Markers of one producer that follow each other are answered together, and a marker without partitions is not, as by
//!   Kafka.
//! - A partition that cannot be used is UNKNOWN_TOPIC_OR_PARTITION, as by Kafka; one that another broker leads is
//!   NOT_LEADER_OR_FOLLOWER, which the coordinator tries again too.
//! - A partition of `__consumer_offsets` is a slot of groups, whose coordinator ends the transaction in all of them.
//!
//! Tests: tests/committed.rs, tests/answers.rs.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use metaq_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use metaq_protocol::messages::{
    ApiKey, ProducerId, TopicName, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::context::REFUSALS_NOTED_MAX;
use super::errors::WireError;
use super::shared::{LookupError, partition_of};
use super::{Api, Caller, Context, Order, serve};
use crate::coordinator::{InternalTopic, SlotPartition};
use crate::group::{GroupError, TransactionEnd};
use crate::log::{Appended, LogError, Outcome, TransactionMarker, TransactionVersion};
use crate::partition::PartitionError;

pub(super) const API: Api = Api {
    key: ApiKey::WriteTxnMarkers,
    order: Order::Alone,
    needs: &[
        (Operation::Alter, ResourceKind::Cluster),
        (Operation::ClusterAction, ResourceKind::Cluster),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// A partition's marker on its way.
enum Waiting {
    Log(oneshot::Receiver<Result<Appended, LogError>>),
    Groups(JoinHandle<Result<(), GroupError>>),
}

/// The same, or why it is not.
type Queued = Result<Waiting, ResponseError>;

/// What one topic of a marker becomes.
struct QueuedTopic {
    producer_id: ProducerId,
    name: TopicName,
    partitions: Vec<(i32, Queued)>,
}

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let may_write = may_write(&cx, &caller);
    let mut queued = Vec::new();
    for asked in request.markers {
        let marker = marker_of(&asked);
        for topic in asked.topics {
            if topic.partition_indexes.is_empty() {
                continue;
            }
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for index in topic.partition_indexes {
                let one = match may_write {
                    Ok(()) => queue(&cx, &marker, &topic.name, index).await,
                    Err(error) => Err(error),
                };
                partitions.push((index, one));
            }
            queued.push(QueuedTopic {
                producer_id: asked.producer_id,
                name: topic.name,
                partitions,
            });
        }
    }
    answer(&cx, &caller, queued).await
}

/// As Kafka's KafkaApis.handleWriteTxnMarkersRequest: brokers may, and whoever may change the cluster.
fn may_write(cx: &Context, caller: &Caller) -> Result<(), ResponseError> {
    let may = |operation| authorize(cx, caller, operation, Resource::Cluster);
    let allowed = may(Operation::Alter).or_else(|_| may(Operation::ClusterAction));
    allowed.map_err(|denied| denied.wire())
}

fn marker_of(asked: &WritableTxnMarker) -> Result<TransactionMarker, ResponseError> {
    let version = match asked.transaction_version {
        UNKNOWN_VERSION => return Err(ResponseError::UnknownServerError),
        ..=0 => TransactionVersion::V0,
        1 => TransactionVersion::V1,
        _ => TransactionVersion::V2,
    };
    if asked.producer_id.0 < 0 || asked.producer_epoch < 0 {
        return Err(ResponseError::UnknownServerError);
    }
    Ok(TransactionMarker {
        producer_id: asked.producer_id.0,
        producer_epoch: asked.producer_epoch,
        coordinator_epoch: asked.coordinator_epoch,
        outcome: match asked.transaction_result {
            true => Outcome::Commit,
            false => Outcome::Abort,
        },
        version,
    })
}

/// Kafka's TransactionVersion.TV_UNKNOWN, which a leader appends nothing by.
const UNKNOWN_VERSION: i8 = -1;

/// Where there is no such partition, it does not matter what is wrong with the marker.
async fn queue(
    cx: &Context,
    marker: &Result<TransactionMarker, ResponseError>,
    topic: &str,
    index: i32,
) -> Queued {
    if topic == InternalTopic::ConsumerOffsets.name() {
        return end_in_groups(cx, marker, index);
    }
    let partition = partition_of(cx, topic, Uuid::nil(), index).map_err(|error| match error {
        LookupError::Partition(PartitionError::Offline(_)) => {
            ResponseError::UnknownTopicOrPartition
        }
        error => error.wire(),
    })?;
    let marker = marker.as_ref().map_err(|error| *error)?;
    Ok(Waiting::Log(partition.append_marker(marker)))
}

/// Makes the transaction's offsets those of the groups of a slot, or drops them.
fn end_in_groups(
    cx: &Context,
    marker: &Result<TransactionMarker, ResponseError>,
    index: i32,
) -> Queued {
    let topic = InternalTopic::ConsumerOffsets.name();
    let found = SlotPartition::find(topic, index);
    let slot = found.ok_or(ResponseError::UnknownTopicOrPartition)?.slot;
    let marker = marker.as_ref().map_err(|error| *error)?;
    let (groups, end) = (cx.coordinator.clone(), TransactionEnd::from(marker));
    let ended = async move { groups.end_transaction(slot, end).await };
    Ok(Waiting::Groups(tokio::spawn(ended)))
}

async fn answer(
    cx: &Context,
    caller: &Caller,
    queued: Vec<QueuedTopic>,
) -> WriteTxnMarkersResponse {
    let mut markers: Vec<WritableTxnMarkerResult> = Vec::new();
    let mut noted = 0;
    for topic in queued {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (index, one) in topic.partitions {
            let error_code = outcome(cx, one).await.err().map_or(0, |error| error.code());
            if error_code != 0 && noted < REFUSALS_NOTED_MAX {
                noted += 1;
                let subject = format!("{}-{index}", &*topic.name);
                cx.note(caller, &subject, error_code, "");
            }
            partitions.push(
                WritableTxnMarkerPartitionResult::default()
                    .with_partition_index(index)
                    .with_error_code(error_code),
            );
        }
        let result = WritableTxnMarkerTopicResult::default()
            .with_name(topic.name)
            .with_partitions(partitions);
        let last = markers.last_mut();
        match last.filter(|last| last.producer_id == topic.producer_id) {
            Some(known) => known.topics.push(result),
            None => markers.push(
                WritableTxnMarkerResult::default()
                    .with_producer_id(topic.producer_id)
                    .with_topics(vec![result]),
            ),
        }
    }
    WriteTxnMarkersResponse::default().with_markers(markers)
}

async fn outcome(cx: &Context, queued: Queued) -> Result<(), ResponseError> {
    let appended = match queued? {
        Waiting::Log(appended) => appended,
        Waiting::Groups(ended) => {
            let ended = ended.await.map_err(|_| ResponseError::UnknownServerError)?;
            return ended.map_err(in_words_of_a_partition);
        }
    };
    match appended.await {
        // Others may act in this broker's place by now.
        Ok(Ok(_)) if !cx.cluster.may_act() => Err(LogError::NotLeader.wire()),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.wire()),
        // The writer ended.
        Err(_) => Err(ResponseError::KafkaStorageError),
    }
}

/// As Kafka's KafkaApis.handleWriteTxnMarkersRequest.
fn in_words_of_a_partition(error: GroupError) -> ResponseError {
    match error {
        GroupError::NotCoordinator
        | GroupError::CoordinatorNotAvailable
        | GroupError::CoordinatorLoadInProgress => ResponseError::NotLeaderOrFollower,
        error => error.wire(),
    }
}
