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

/// A preferred leader is asked for, not any replica.
const PREFERRED: i8 = 0;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    if let Err(denied) = authorize(&cx, &caller, Operation::Alter, Resource::Cluster) {
        return ElectLeadersResponse::default().with_error_code(denied.code());
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

/// What becomes of one (Kafka's ReplicationControlManager.electLeader).
fn elect(image: &Image, topic: &str, index: i32, is_preferred: bool) -> PartitionResult {
    let unknown = ResponseError::UnknownTopicOrPartition;
    let (error, why) = match image.topic(topic) {
        None => (unknown, format!("No such topic as {topic}")),
        Some(known) => match known.partition(index) {
            None => (unknown, format!("No such partition as {topic}-{index}")),
            Some(info) => {
                let error = match (image.brokers.contains_key(&info.leader), is_preferred) {
                    (true, _) => ResponseError::ElectionNotNeeded,
                    (false, true) => ResponseError::PreferredLeaderNotAvailable,
                    (false, false) => ResponseError::EligibleLeadersNotAvailable,
                };
                (error, error.to_string())
            }
        },
    };
    PartitionResult::default()
        .with_partition_id(index)
        .with_error_code(error.code())
        .with_error_message(message(&why))
}
