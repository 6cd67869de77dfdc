//! ElectLeaders (key 43, v0–v2; KIP-183, 460): a partition has one replica, which leads it, so that no election is needed.
//!
//! - Without a list of partitions (all of them) those that need no election are not named, as by Kafka.
//! - Where the replica's broker is not there, PREFERRED_LEADER_NOT_AVAILABLE or ELIGIBLE_LEADERS_NOT_AVAILABLE.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::elect_leaders_request::TopicPartitions;
use metaq_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use metaq_protocol::messages::{ApiKey, ElectLeadersRequest, ElectLeadersResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{message, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::{Image, Topic};

pub(super) const API: Api = Api {
    key: ApiKey::ElectLeaders,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// A preferred leader is asked for.
const PREFERRED: i8 = 0;
/// Any replica is.
const UNCLEAN: i8 = 1;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    if let Err(denied) = authorize(&cx, &caller, Operation::Alter, Resource::Cluster) {
        return ElectLeadersResponse::default().with_error_code(denied.code());
    }
    if caller.version > 0 && !matches!(request.election_type, PREFERRED | UNCLEAN) {
        return of_no_type(request);
    }
    let image = cx.cluster.image();
    let is_preferred = caller.version == 0 || request.election_type == PREFERRED;
    let all = request.topic_partitions.is_none();
    let asked = request.topic_partitions.unwrap_or_else(|| {
        let every = |topic: &Arc<Topic>| {
            TopicPartitions::default()
                .with_topic(topic_name(&topic.name))
                .with_partitions((0..topic.partitions.len() as i32).collect())
        };
        image.topics().map(every).collect()
    });
    let results = asked.into_iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let elected = partitions.map(|index| elect(&image, &topic.topic, *index, is_preferred));
        let needed = ResponseError::ElectionNotNeeded.code();
        ReplicaElectionResult::default()
            .with_partition_result(
                elected
                    .filter(|result| !all || result.error_code != needed)
                    .collect(),
            )
            .with_topic(topic.topic.clone())
    });
    ElectLeadersResponse::default().with_replica_election_results(results.collect())
}

/// Each partition has the error too (Kafka's ElectLeadersRequest.getErrorResponse).
fn of_no_type(request: ElectLeadersRequest) -> ElectLeadersResponse {
    let error = ResponseError::InvalidRequest.code();
    let why = format!("Unknown election type {}", request.election_type);
    let topics = request.topic_partitions.unwrap_or_default().into_iter();
    let results = topics.map(|topic| {
        let refused = |index: &i32| {
            PartitionResult::default()
                .with_partition_id(*index)
                .with_error_code(error)
                .with_error_message(message(&why))
        };
        ReplicaElectionResult::default()
            .with_partition_result(topic.partitions.iter().map(refused).collect())
            .with_topic(topic.topic)
    });
    ElectLeadersResponse::default()
        .with_error_code(error)
        .with_replica_election_results(results.collect())
}

/// What becomes of one (Kafka's ReplicationControlManager.electLeader).
fn elect(image: &Image, topic: &str, index: i32, is_preferred: bool) -> PartitionResult {
    let unknown = ResponseError::UnknownTopicOrPartition;
    let (error, why) = match image.topic(topic) {
        None => (unknown, format!("No such topic as {topic}")),
        Some(known) => match known.partition(index) {
            None => (unknown, format!("No such partition as {topic}-{index}")),
            Some(info) => {
                let (error, why) = match (image.brokers.contains_key(&info.leader), is_preferred) {
                    (true, _) => (
                        ResponseError::ElectionNotNeeded,
                        "Leader election not needed for topic partition.",
                    ),
                    (false, true) => (
                        ResponseError::PreferredLeaderNotAvailable,
                        "The preferred leader was not available.",
                    ),
                    (false, false) => (
                        ResponseError::EligibleLeadersNotAvailable,
                        "Eligible topic partition leaders are not available.",
                    ),
                };
                (error, why.to_owned())
            }
        },
    };
    PartitionResult::default()
        .with_partition_id(index)
        .with_error_code(error.code())
        .with_error_message(message(&why))
}
