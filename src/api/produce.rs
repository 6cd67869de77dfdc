//! Produce (key 0, v3–v13; KIP-98, 467, 516, 951): appends record batches.
//!
//! - Advertised from v0, as by Kafka, because clients decide on compression by it; below v3 is refused.
//! - Exactly one batch a partition; it is stored as it was sent, unless the topic has its own codec.
//! - acks=0 is never answered; where it fails the connection is closed, as Kafka does, so that the client notices.
//! - Compressed batches are unpacked to check their records, as by Kafka; what does not unpack is INVALID_RECORD. Where
//!   that takes much memory it waits until there is some; after 30 s REQUEST_TIMED_OUT, which clients try again.
//! - Each record that is a reason for INVALID_RECORD or INVALID_TIMESTAMP is named, so that a client can send the others
//!   again (KIP-467); of a request [`RECORD_ERRORS_MAX`] at most.
//! - Answered when what acks and the topic's sync policy promise is true. One partition's error leaves the
//!   others alone.
//! - Where acceptPublish is false it is TOPIC_AUTHORIZATION_FAILED; for a partition that is closed (closed.partitions),
//!   POLICY_VIOLATION.
//! - Where another broker leads, v10 and later say which one and where it is (KIP-951).
//! - The first batch of a transaction in a partition is held until the transaction's coordinator has confirmed it, or, from
//!   v12 on, made the partition part of it (KIP-890); later ones of the connection wait behind it.
//!
//! Tests: tests/broker.rs, tests/refusals.rs.

use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::frame;
use metaq_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use metaq_protocol::messages::{ApiKey, BrokerId, ProduceRequest, ProduceResponse};
use tokio::time::Instant;

use super::authorize::{Operation, ResourceKind};
use super::context::REFUSALS_NOTED_MAX;
use super::produce_queue::{Queued, QueuedTopic, queue, refuse_all};
use super::produce_refusal::{Refusal, refused};
use super::produce_request::refused_whole;
use super::reply::Reply;
use super::shared::{current_leader, endpoints_of, name_of};
use super::{Answer, Api, Body, Caller, Context, Order, Response, charge};
use crate::log::{Appended, LogError};
use crate::quota::QuotaKind;

pub(super) const API: Api = Api {
    key: ApiKey::Produce,
    order: Order::WithKin,
    needs: &[
        (Operation::Write, ResourceKind::Topic),
        (Operation::Write, ResourceKind::TransactionalId),
    ],
    start: |cx, caller, request, mut stage| -> Answer {
        Box::pin(async move {
            let produce: ProduceRequest = frame::decode(&request)?;
            let request_bytes = request.bytes();
            drop(request.body);
            let (acks, timeout_ms) = (produce.acks, produce.timeout_ms);
            let queued = match refused_whole(&cx, &caller, &produce) {
                Some((error, why)) => refuse_all(produce, error, &why),
                None => queue(&cx, &caller, produce).await,
            };
            stage.ordered();
            let deadline = commit_deadline(acks, timeout_ms);
            let mut response = answer(&cx, &caller, queued, deadline).await;
            name_leaders(&cx, &caller, &mut response);
            let throttle = charge_produced(&cx, &caller, acks, request_bytes);
            let (response, throttle) = Reply::with_throttle(response, throttle).finish();
            drop(stage);
            if acks == 0 {
                let body = match first_error(&response) {
                    Some(code) => {
                        Body::Close(format!("produce with acks=0 failed with error {code}"))
                    }
                    None => Body::Silence,
                };
                return Ok(Response { body, throttle });
            }
            let bytes = frame::encode_response(
                request.api_key,
                caller.version,
                caller.correlation_id,
                &response,
            )?;
            let body = bytes.into();
            Ok(Response { body, throttle })
        })
    },
};

/// How long a client waits for what it produced. Of the time that it took nothing is said where nothing is answered (Kafka's
/// KafkaApis.handleProduceRequest).
fn charge_produced(cx: &Context, caller: &Caller, acks: i16, bytes: usize) -> Duration {
    if !cx.quotas.has_any() {
        return Duration::ZERO;
    }
    let kind = QuotaKind::Produce;
    let of_bytes = charge::charge(cx, caller, kind, bytes);
    let of_time = match acks {
        0 => Duration::ZERO,
        _ => charge::charge_time(cx, caller),
    };
    charge::settle(cx, caller, (kind, of_bytes), of_time)
}

/// From this version on an answer says who leads a partition that is another broker's (KIP-951).
const LEADERS_VERSION_MIN: i16 = 10;

/// Until when acks=all waits for followers; what was appended stays, and may still be committed (Kafka's DelayedProduce).
fn commit_deadline(acks: i16, timeout_ms: i32) -> Option<Instant> {
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    (acks == -1).then(|| Instant::now() + timeout)
}

async fn answer(
    cx: &Context,
    caller: &Caller,
    queued: Vec<QueuedTopic>,
    deadline: Option<Instant>,
) -> ProduceResponse {
    let mut topics = Vec::with_capacity(queued.len());
    let mut noted = 0;
    for topic in queued {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (index, queued) in topic.partitions {
            partitions.push(match outcome(cx, queued, deadline).await {
                Ok(appended) => PartitionProduceResponse::default()
                    .with_index(index)
                    .with_base_offset(appended.base_offset)
                    .with_log_append_time_ms(appended.log_append_time_ms)
                    .with_log_start_offset(appended.log_start),
                Err(refusal) => {
                    noted += 1;
                    if noted <= REFUSALS_NOTED_MAX {
                        let name = match topic.id.is_nil() {
                            true => topic.name.to_string(),
                            false => name_of(cx, topic.id),
                        };
                        let code = refusal.error.code();
                        cx.note(caller, &format!("{name}-{index}"), code, &refusal.text);
                    }
                    refused(index, &refusal)
                }
            });
        }
        let response = TopicProduceResponse::default()
            .with_name(topic.name)
            .with_topic_id(topic.id);
        topics.push(response.with_partition_responses(partitions));
    }
    ProduceResponse::default().with_responses(topics)
}

async fn outcome(
    cx: &Context,
    queued: Queued,
    deadline: Option<Instant>,
) -> Result<Appended, Refusal> {
    let (partition, answer) = match queued {
        Queued::Waiting(partition, answer) => (partition, answer),
        Queued::Refused(refusal) => return Err(refusal),
        // Every one that is found is appended or refused.
        Queued::Found(found) => return Err(Refusal::of(&found.partition, &LogError::NotLeader)),
    };
    // The disk alone is waited for as long as it takes.
    let answered = match deadline.filter(|_| partition.replicas() > 1) {
        None => answer.await,
        Some(deadline) => match tokio::time::timeout_at(deadline, answer).await {
            Ok(answered) => answered,
            Err(_) => {
                let why = "not all replicas in sync have it yet".to_owned();
                return Err(Refusal::new(ResponseError::RequestTimedOut, why));
            }
        },
    };
    match answered {
        // Others may act in this broker's place by now; the client asks who leads.
        Ok(Ok(_)) if !cx.cluster.may_act() => Err(Refusal::of(&partition, &LogError::NotLeader)),
        Ok(Ok(appended)) => Ok(appended),
        Ok(Err(error)) => Err(Refusal::of(&partition, &error)),
        Err(_) => {
            let error = LogError::Offline("the writer ended".to_owned());
            Err(Refusal::of(&partition, &error))
        }
    }
}

/// Says of partitions that this broker does not lead who does, and where that is.
fn name_leaders(cx: &Context, caller: &Caller, response: &mut ProduceResponse) {
    if caller.version < LEADERS_VERSION_MIN {
        return;
    }
    let mut leaders = Vec::new();
    for topic in &mut response.responses {
        for partition in &mut topic.partition_responses {
            if partition.error_code != ResponseError::NotLeaderOrFollower.code() {
                continue;
            }
            let leader = current_leader(cx, &topic.name, topic.topic_id, partition.index);
            if let Some((id, epoch)) = leader {
                partition.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(BrokerId(id))
                    .with_leader_epoch(epoch);
                leaders.push(id);
            }
        }
    }
    if leaders.is_empty() {
        return;
    }
    let endpoints = endpoints_of(cx, caller, leaders);
    let endpoint = |(id, host, port, rack)| {
        NodeEndpoint::default()
            .with_node_id(id)
            .with_host(host)
            .with_port(port)
            .with_rack(rack)
    };
    response.node_endpoints = endpoints.into_iter().map(endpoint).collect();
}

fn first_error(response: &ProduceResponse) -> Option<i16> {
    let all = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    all.map(|partition| partition.error_code)
        .find(|code| *code != 0)
}
