//! ShareAcknowledge (key 79, v1–v2; KIP-932, 1222): a member of a share group says what it did with records.
//!
//! - In the member's share session, whose epoch counts on; epoch -1 ends it, and what the member still has is others' again.
//! - Each partition is answered by itself, when what is said of it is durable.
//! - Records that the member does not have are INVALID_RECORD_STATE, and nothing that is said of the partition counts then.
//! - v2 may renew locks, if the request says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::share_acknowledge_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionData, ShareAcknowledgeTopicResponse,
};
use metaq_protocol::messages::{ApiKey, ShareAcknowledgeRequest, ShareAcknowledgeResponse};

use super::authorize::{Operation, ResourceKind};
use super::errors::WireError;
use super::share_acknowledgements::{Member, Outcomes, Refusal, SaidOf, check_named};
use super::share_settings::ShareSettings;
use super::shared::{current_leader, endpoints_of, text};
use super::{Api, Caller, Context, Order, serve};
use crate::share::{Acknowledgement, FINAL_EPOCH};

pub(super) const API: Api = Api {
    key: ApiKey::ShareAcknowledge,
    order: Order::Alone,
    needs: &[
        (Operation::Read, ResourceKind::Group),
        (Operation::Read, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ShareAcknowledgeRequest,
) -> ShareAcknowledgeResponse {
    match acknowledge(&cx, &caller, &request).await {
        Ok(response) => response,
        Err((error, why)) => {
            let group_id = request.group_id.as_deref().map_or("", |id| id);
            cx.note(&caller, group_id, error.code(), &why);
            // Kafka gives the code alone.
            ShareAcknowledgeResponse::default().with_error_code(error.code())
        }
    }
}

async fn acknowledge(
    cx: &Arc<Context>,
    caller: &Caller,
    request: &ShareAcknowledgeRequest,
) -> Result<ShareAcknowledgeResponse, Refusal> {
    let group_id = request.group_id.as_ref().map(|id| &***id);
    let member = Member::of(cx, caller, group_id, request.member_id.as_deref())?;
    let named = request.topics.iter().map(|topic| topic.partitions.len());
    check_named(named.sum())?;
    let epoch = request.share_session_epoch;
    cx.shares
        .sessions
        .acknowledge(member.group_id, member.member_id, epoch)
        .map_err(|error| (error.wire(), error.to_string()))?;
    let settings = ShareSettings::of(cx, member.group_id);
    let said = said_of(request);
    let outcomes = member
        .acknowledge(&settings, &said, request.is_renew_ack)
        .await;
    if epoch == FINAL_EPOCH {
        member.leave();
    }
    let refused = outcomes.iter().filter_map(|((topic_id, index), outcome)| {
        let (error, why) = outcome.as_ref().err()?;
        Some((format!("{topic_id}-{index}"), error.code(), why.as_str()))
    });
    let refused: Vec<_> = refused.collect();
    let noted = refused
        .iter()
        .map(|(subject, code, why)| (subject.as_str(), *code, *why));
    cx.note_all(caller, noted);
    Ok(response(cx, caller, &settings, outcomes))
}

fn said_of(request: &ShareAcknowledgeRequest) -> Vec<SaidOf> {
    let topics = request.topics.iter();
    let all = topics.flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            let batches = partition.acknowledgement_batches.iter();
            let said = batches.map(|batch| Acknowledgement {
                first: batch.first_offset,
                last: batch.last_offset,
                types: batch.acknowledge_types.clone(),
            });
            SaidOf {
                partition: (topic.topic_id, partition.partition_index),
                said: said.collect(),
            }
        })
    });
    all.collect()
}

fn response(
    cx: &Context,
    caller: &Caller,
    settings: &ShareSettings,
    outcomes: Outcomes,
) -> ShareAcknowledgeResponse {
    let mut topics: BTreeMap<_, Vec<PartitionData>> = BTreeMap::new();
    let mut leaders = Vec::new();
    for ((topic_id, index), outcome) in outcomes {
        let mut partition = PartitionData::default().with_partition_index(index);
        if let Err((error, why)) = outcome {
            partition.error_code = error.code();
            partition.error_message = Some(text(why));
            if error == ResponseError::NotLeaderOrFollower
                && let Some((id, epoch)) = current_leader(cx, "", topic_id, index)
            {
                leaders.push(id);
                partition.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(id)
                    .with_leader_epoch(epoch);
            }
        }
        topics.entry(topic_id).or_default().push(partition);
    }
    let topic = |(topic_id, partitions)| {
        ShareAcknowledgeTopicResponse::default()
            .with_topic_id(topic_id)
            .with_partitions(partitions)
    };
    let endpoints = endpoints_of(cx, caller, leaders).into_iter();
    let endpoints = endpoints.map(|(id, host, port, rack)| {
        NodeEndpoint::default()
            .with_node_id(id)
            .with_host(host)
            .with_port(port)
            .with_rack(rack)
    });
    ShareAcknowledgeResponse::default()
        .with_acquisition_lock_timeout_ms(settings.lock_timeout_ms())
        .with_responses(topics.into_iter().map(topic).collect())
        .with_node_endpoints(endpoints.collect())
}
