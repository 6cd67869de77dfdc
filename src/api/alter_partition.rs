//! AlterPartition (key 56, v2–v3; KIP-497, 841, 903): a leader proposes to the controller who is in sync with it.
//!
//! - From brokers alone, which is why ApiVersions does not name it: Kafka's brokers do not serve it either, their controllers
//!   do. To anybody else it is an API that is not known, and the connection ends.
//! - Only the controller answers; any other broker says NOT_CONTROLLER, and the leader looks who it is.
//! - v3 says which registration of each member the leader saw; v2 leaves it out.

use std::sync::Arc;

use bytes::Bytes;
use metaq_protocol::messages::alter_partition_request::{PartitionData, TopicData};
use metaq_protocol::messages::alter_partition_response::{
    PartitionData as AlteredPartition, TopicData as AlteredTopic,
};
use metaq_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse, ApiKey, BrokerId};
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::broker_ids;
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::{IsrProposal, IsrRefusal, PartitionInfo};
use crate::partition::Eligible;

/// A tagged field (KIP-482) of an altered partition, beyond Kafka's answer: one byte, 1 where replicas that are not in sync are
/// eligible as leaders (KIP-966).
const ELIGIBLE_TAG: i32 = 10_003;

pub(super) const API: Api = Api {
    key: ApiKey::AlterPartition,
    order: Order::Alone,
    needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// Members have the number of their registration from this version on.
const EPOCHS_VERSION_MIN: i16 = 3;
/// What a leader says that recovers from an election that was not clean (Kafka's LeaderRecoveryState).
const RECOVERING: i8 = 1;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: AlterPartitionRequest,
) -> AlterPartitionResponse {
    match authorize(&cx, &caller, Operation::ClusterAction, Resource::Cluster) {
        Err(denied) => AlterPartitionResponse::default().with_error_code(denied.code()),
        Ok(()) => alter_partitions_here(&cx, request, caller.version).await,
    }
}

/// What this broker answers as the controller.
pub async fn alter_partitions_here(
    cx: &Context,
    request: AlterPartitionRequest,
    version: i16,
) -> AlterPartitionResponse {
    let answer = AlterPartitionResponse::default();
    let leader = request.broker_id.0;
    let proposals = request.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|asked| proposal(topic.topic_id, asked, version))
    });
    let altered = cx
        .cluster
        .alter_partitions(leader, request.broker_epoch, proposals.collect())
        .await;
    match altered {
        Err(error) => answer.with_error_code(error.code()),
        Ok(results) => {
            let mut results = results.into_iter();
            let topics = request.topics.into_iter();
            answer.with_topics(
                topics
                    .map(|topic| altered_topic(topic, &mut results))
                    .collect(),
            )
        }
    }
}

fn proposal(topic_id: Uuid, asked: &PartitionData, version: i16) -> IsrProposal {
    let isr = match version {
        ..EPOCHS_VERSION_MIN => asked.new_isr.iter().map(|id| (id.0, -1)).collect(),
        _ => {
            let members = asked.new_isr_with_epochs.iter();
            members
                .map(|member| (member.broker_id.0, member.broker_epoch))
                .collect()
        }
    };
    IsrProposal {
        topic_id,
        index: asked.partition_index,
        leader_epoch: asked.leader_epoch,
        partition_epoch: asked.partition_epoch,
        isr,
        is_recovering: asked.leader_recovery_state == RECOVERING,
    }
}

/// The partitions of one topic, each with the next result.
/// What the controller made of those that are not in sync; brokers of earlier versions do not say it.
pub fn eligible_in(altered: &AlteredPartition) -> Eligible {
    let field = altered.unknown_tagged_fields.get(&ELIGIBLE_TAG);
    match field.map(|field| &field[..]) {
        Some([0]) => Eligible::None,
        Some([1]) => Eligible::Some,
        _ => Eligible::Unknown,
    }
}

fn altered_topic(
    topic: TopicData,
    results: &mut impl Iterator<Item = Result<PartitionInfo, IsrRefusal>>,
) -> AlteredTopic {
    let partitions = topic.partitions.iter().zip(results).map(|(asked, result)| {
        let partition = AlteredPartition::default().with_partition_index(asked.partition_index);
        match result {
            Err(refusal) => partition.with_error_code(refusal.code()),
            Ok(info) => {
                let mut partition = partition
                    .with_leader_id(BrokerId(info.leader))
                    .with_leader_epoch(info.leader_epoch)
                    .with_isr(broker_ids(&info.isr))
                    .with_partition_epoch(info.partition_epoch);
                let eligible = Bytes::from(vec![u8::from(!info.elr.is_empty())]);
                let fields = &mut partition.unknown_tagged_fields;
                fields.insert(ELIGIBLE_TAG, eligible);
                partition
            }
        }
    });
    AlteredTopic::default()
        .with_topic_id(topic.topic_id)
        .with_partitions(partitions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::Identity;

    #[test]
    fn a_leader_learns_whether_others_are_eligible() {
        let identity = Identity {
            broker_id: 1,
            number: 0,
        };
        let mut info = PartitionInfo::new(identity, vec![1, 2], 0);
        let eligible = |info: &PartitionInfo| {
            let topic = TopicData::default().with_partitions(vec![PartitionData::default()]);
            let altered = altered_topic(topic, &mut [Ok(info.clone())].into_iter());
            eligible_in(&altered.partitions[0])
        };
        assert_eq!(eligible(&info), Eligible::None);
        info.elr = vec![2];
        assert_eq!(eligible(&info), Eligible::Some);
        assert_eq!(eligible_in(&AlteredPartition::default()), Eligible::Unknown);
    }
}
