//! ElectLeaders (key 43, v0–v2; KIP-183, 460): the controller elects the preferred leaders, or any replica where none leads.
//!
//! - Without a list of partitions (all of them) those that need no election are not named, as by Kafka.
//! - Where nothing can be elected, PREFERRED_LEADER_NOT_AVAILABLE or ELIGIBLE_LEADERS_NOT_AVAILABLE.
//! - An unclean election of a partition with ordering=strict is ELIGIBLE_LEADERS_NOT_AVAILABLE, with what to do instead.
//! - Election type 100, which Kafka does not have, has another replica in sync lead such a partition (`metaq partition fail-over`).

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::elect_leaders_request::TopicPartitions;
use metaq_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use metaq_protocol::messages::{ApiKey, ElectLeadersRequest, ElectLeadersResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{message, topic_name};
use super::{Api, Caller, Context, Order, serve_by_controller};
use crate::cluster::{Election, ElectionRefusal, Topic};

pub(super) const API: Api = Api {
    key: ApiKey::ElectLeaders,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve_by_controller(cx, caller, frame, stage, handle),
};

/// A preferred leader is asked for.
const PREFERRED: i8 = 0;
/// Any replica is.
const UNCLEAN: i8 = 1;
/// Any replica in sync is, though the order is strict; MetaQ's own.
pub const FAIL_OVER: i8 = 100;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    if let Err(denied) = authorize(&cx, &caller, Operation::Alter, Resource::Cluster) {
        let asked = request.topic_partitions.unwrap_or_default();
        return of_all(caller.version, asked, denied.wire(), &denied);
    }
    // As QuorumController: where there is nothing to do, it does not matter how.
    if request.topic_partitions.as_ref().is_some_and(Vec::is_empty) {
        return ElectLeadersResponse::default();
    }
    let election = match request.election_type {
        _ if caller.version == 0 => Election::Preferred,
        PREFERRED => Election::Preferred,
        UNCLEAN => Election::Unclean,
        FAIL_OVER => Election::FailOver,
        _ => return of_no_type(caller.version, request),
    };
    let image = cx.cluster.image();
    let all = request.topic_partitions.is_none();
    let asked = request.topic_partitions.unwrap_or_else(|| {
        let every = |topic: &Arc<Topic>| {
            TopicPartitions::default()
                .with_topic(topic_name(&topic.name))
                .with_partitions((0..topic.partitions.len() as i32).collect())
        };
        image.topics().map(every).collect()
    });
    let wanted: Vec<(&str, i32)> = asked
        .iter()
        .flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|index| (&**topic.topic, *index))
        })
        .collect();
    let elected = cx
        .cluster
        .controller()
        .elect_leaders(election, &wanted)
        .await;
    let elected = match elected {
        Ok(elected) => elected,
        Err(error) => return of_all(caller.version, asked, error.wire(), &error),
    };
    let mut elected = elected.into_iter();
    let needed = ElectionRefusal::NotNeeded;
    let results = asked.into_iter().map(|topic| {
        let results = topic.partitions.iter().zip(&mut elected);
        let results = results.filter(|(_, result)| !all || result.as_ref() != Err(&needed));
        let results = results.map(|(index, result)| partition_result(*index, result));
        ReplicaElectionResult::default()
            .with_partition_result(results.collect())
            .with_topic(topic.topic.clone())
    });
    ElectLeadersResponse::default().with_replica_election_results(results.collect())
}

fn partition_result(index: i32, result: Result<(), ElectionRefusal>) -> PartitionResult {
    let partition = PartitionResult::default().with_partition_id(index);
    match result {
        Ok(()) => partition.with_error_message(None),
        Err(refusal) => partition
            .with_error_code(refusal.code())
            .with_error_message(message(&refusal)),
    }
}

fn of_no_type(version: i16, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let why = format!("Unknown election type {}", request.election_type);
    let asked = request.topic_partitions.unwrap_or_default();
    of_all(version, asked, ResponseError::InvalidRequest, &why)
}

/// Each partition has the error too, and alone in version 0 (Kafka's ElectLeadersRequest.getErrorResponse).
fn of_all(
    version: i16,
    asked: Vec<TopicPartitions>,
    error: ResponseError,
    why: &impl std::fmt::Display,
) -> ElectLeadersResponse {
    let results = asked.into_iter().map(|topic| {
        let refused = |index: &i32| {
            PartitionResult::default()
                .with_partition_id(*index)
                .with_error_code(error.code())
                .with_error_message(message(why))
        };
        ReplicaElectionResult::default()
            .with_partition_result(topic.partitions.iter().map(refused).collect())
            .with_topic(topic.topic)
    });
    ElectLeadersResponse::default()
        .with_error_code(if version > 0 { error.code() } else { 0 })
        .with_replica_election_results(results.collect())
}
