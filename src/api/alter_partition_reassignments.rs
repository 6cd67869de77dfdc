//! AlterPartitionReassignments (key 45, v0–v1; KIP-455, 860): the controller moves partitions to other brokers, or takes back
//! a move that is under way, which is what no list of replicas means.
//!
//! - Each partition is answered by itself, once its move has begun; ListPartitionReassignments tells what is under way.
//! - v1 can refuse another number of replicas (KIP-860).

use std::sync::Arc;

use metaq_protocol::messages::alter_partition_reassignments_request::ReassignableTopic;
use metaq_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use metaq_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ApiKey,
};

use super::authorize::{Denied, Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve_by_controller};
use crate::cluster::{Reassignment, ReassignmentRefusal};

pub(super) const API: Api = Api {
    key: ApiKey::AlterPartitionReassignments,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve_by_controller(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let may_change_factor = request.allow_replication_factor_change;
    let mut answer = AlterPartitionReassignmentsResponse::default().with_error_message(None);
    if caller.version > 0 {
        answer.allow_replication_factor_change = may_change_factor;
    }
    let refused =
        |answer: AlterPartitionReassignmentsResponse, code, why: &dyn std::fmt::Display| {
            cx.note(&caller, "", code, &why.to_string());
            answer
                .with_error_code(code)
                .with_error_message(message(&why))
        };
    if let Err(denied) = authorize(&cx, &caller, Operation::Alter, Resource::Cluster) {
        // Each partition has the error too, and the rest its default (AlterPartitionReassignmentsRequest.getErrorResponse).
        answer.allow_replication_factor_change = true;
        answer.responses = of_all(request.topics, &denied);
        return refused(answer, denied.code(), &denied);
    }
    let wanted = request.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| Reassignment {
            topic: topic.name.to_string(),
            index: partition.partition_index,
            replicas: partition
                .replicas
                .as_ref()
                .map(|ids| ids.iter().map(|id| id.0).collect()),
        })
    });
    let wanted: Vec<Reassignment> = wanted.collect();
    let results = cx.cluster.controller().reassign(&wanted, may_change_factor);
    let results = match results.await {
        Ok(results) => results,
        Err(error) => return refused(answer, error.code(), &error),
    };
    let mut results = results.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(&mut results);
        let partitions = partitions.map(|(asked, result)| {
            let partition = ReassignablePartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_error_message(None);
            match result {
                Ok(()) => partition,
                Err(refusal) => partition
                    .with_error_code(refusal.code())
                    // Kafka gives a code alone where it has no more to say than the code does (ApiError.fromThrowable).
                    .with_error_message(match refusal {
                        ReassignmentRefusal::NoneInProgress => None,
                        refusal => message(&refusal),
                    }),
            }
        });
        ReassignableTopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    let answer = answer.with_responses(topics.collect());
    let outcomes = answer.responses.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| {
            let why = partition.error_message.as_deref().unwrap_or_default();
            (topic.name.as_str(), partition.error_code, why)
        })
    });
    cx.note_all(&caller, outcomes);
    answer
}

fn of_all(asked: Vec<ReassignableTopic>, denied: &Denied) -> Vec<ReassignableTopicResponse> {
    let topics = asked.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            ReassignablePartitionResponse::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(denied.code())
                .with_error_message(message(denied))
        });
        ReassignableTopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    topics.collect()
}
