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

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metaq_protocol::ResponseError;
use metaq_protocol::batch::{BatchError, BatchHeader, Compression};
use metaq_protocol::frame;
use metaq_protocol::messages::produce_request::TopicProduceData;
use metaq_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use metaq_protocol::messages::{ApiKey, BrokerId, ProduceRequest, ProduceResponse};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::context::{REFUSALS_NOTED_MAX, wire_name};
use super::errors::WireError;
use super::produce_refusal::{Refusal, refused};
use super::produce_request::{overridden, refused_whole};
use super::reply::Reply;
use super::shared::{
    BY_ID_VERSION_MIN, LookupError, current_leader, endpoints_of, found_name, name_of, partition_of,
};
use super::transaction_check::{InTransaction, Support, check};
use super::{Answer, Api, Body, Caller, Context, Order, Response, charge};
use crate::cluster::is_internal_name;
use crate::log::{Appended, LogConfig, LogError, ProducedBatch, ToVerify, Verification};
use crate::memory::NoMemory;
use crate::partition::{Acks, InvalidBatch, Partition, RECORD_ERRORS_MAX, Unpacking, admit};
use crate::quota::QuotaKind;
use crate::transaction::Producer;

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

/// Memory that produced batches may take while they are unpacked, bytes, beside that of requests.
pub const UNPACKING_BYTES_MAX: usize = 32 << 20;

/// zstd came with this version (KIP-110).
const ZSTD_VERSION_MIN: i16 = 7;

/// From this version on an answer says who leads a partition that is another broker's (KIP-951).
const LEADERS_VERSION_MIN: i16 = 10;

enum Queued {
    Waiting(
        Arc<Partition>,
        oneshot::Receiver<Result<Appended, LogError>>,
    ),
    /// Not queued yet: its transaction's coordinator is asked first.
    Unverified(Box<Unverified>),
    Refused(Refusal),
}

/// The first batch of a transaction in a partition.
struct Unverified {
    partition: Arc<Partition>,
    acks: Acks,
    batches: Vec<ProducedBatch>,
    verification: Verification,
}

struct QueuedTopic {
    name: metaq_protocol::messages::TopicName,
    id: Uuid,
    partitions: Vec<(i32, Queued)>,
}

/// Queues what is valid; done before the next request of the connection begins.
async fn queue(cx: &Context, caller: &Caller, request: ProduceRequest) -> Vec<QueuedTopic> {
    let acks = request.acks;
    let mut topics = Vec::with_capacity(request.topic_data.len());
    let mut may_be_named = RECORD_ERRORS_MAX;
    let overridden = overridden(&request);
    let transactional_id = request.transactional_id.clone();
    let mut is_verified = true;
    for (place, topic) in request.topic_data.into_iter().enumerate() {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for (at, data) in topic.partition_data.into_iter().enumerate() {
            if overridden.contains(&(place, at)) {
                continue;
            }
            let records = data.records.unwrap_or_default();
            let name = (&*topic.name.0, topic.topic_id);
            let queued = append(cx, caller, acks, name, data.index, records).await;
            let queued = queued.unwrap_or_else(|mut refusal| {
                if let Some(records) = &mut refusal.records {
                    records.named.truncate(may_be_named);
                    may_be_named -= records.named.len();
                }
                Queued::Refused(refusal)
            });
            is_verified &= !matches!(queued, Queued::Unverified(_));
            partitions.push((data.index, queued));
        }
        // One of no partitions is not answered, as by Kafka.
        if partitions.is_empty() {
            continue;
        }
        topics.push(QueuedTopic {
            name: topic.name,
            id: topic.topic_id,
            partitions,
        });
    }
    if let Some(id) = transactional_id.filter(|_| !is_verified) {
        verify(cx, caller, &id, &mut topics).await;
    }
    topics
}

fn refuse_all(request: ProduceRequest, error: ResponseError, why: &str) -> Vec<QueuedTopic> {
    let refused = || Queued::Refused(Refusal::new(error, why.to_owned()));
    let topic = |topic: TopicProduceData| QueuedTopic {
        name: topic.name,
        id: topic.topic_id,
        partitions: topic
            .partition_data
            .iter()
            .map(|data| (data.index, refused()))
            .collect(),
    };
    let topics = request.topic_data.into_iter().map(topic);
    topics
        .filter(|topic| !topic.partitions.is_empty())
        .collect()
}

/// Asks the transaction's coordinator about all partitions that are new to it, and queues their batches.
async fn verify(cx: &Context, caller: &Caller, id: &str, topics: &mut [QueuedTopic]) {
    let partitions = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    let mut waiting: Vec<&mut Queued> = partitions
        .map(|(_, queued)| queued)
        .filter(|queued| matches!(queued, Queued::Unverified(_)))
        .collect();
    let mut named = Vec::with_capacity(waiting.len());
    let mut producer = None;
    for queued in &waiting {
        if let Queued::Unverified(unverified) = queued {
            let partition = &unverified.partition;
            named.push((partition.topic().to_string(), partition.index()));
            let first = unverified.batches.first();
            producer = producer.or(first.map(|batch| Producer {
                id: batch.header.producer_id,
                epoch: batch.header.producer_epoch,
            }));
        }
    }
    let Some(producer) = producer else {
        return;
    };
    let support = Support::of_produce(caller.version);
    let of = InTransaction {
        transactional_id: id,
        producer,
        support,
    };
    let outcomes = check(cx, of, named).await;
    for (queued, outcome) in waiting.iter_mut().zip(outcomes) {
        let refused = match outcome {
            Ok(()) => Refusal::new(ResponseError::UnknownServerError, String::new()),
            Err(error) => unverified(error, support),
        };
        // What it is until it is known what it becomes.
        let taken = std::mem::replace(*queued, Queued::Refused(refused));
        if let (Queued::Unverified(first), Ok(())) = (taken, outcome) {
            let Unverified {
                partition,
                acks,
                batches,
                verification,
            } = *first;
            let answer = partition.append_verified(acks, batches, verification);
            **queued = Queued::Waiting(partition, answer);
        }
    }
}

/// What a client is told whose transaction could not be confirmed (Kafka's ReplicaManager.handleProduceAppend).
fn unverified(error: ResponseError, support: Support) -> Refusal {
    let is_passing = match error {
        ResponseError::NetworkException
        | ResponseError::CoordinatorLoadInProgress
        | ResponseError::CoordinatorNotAvailable
        | ResponseError::NotCoordinator => true,
        ResponseError::ConcurrentTransactions => support != Support::Add,
        _ => false,
    };
    match (error, is_passing) {
        // Older clients try that again.
        (_, true) => Refusal::new(
            ResponseError::NotEnoughReplicas,
            format!(
                "Unable to verify the partition has been added to the transaction. Underlying error: {}",
                wire_name(error)
            ),
        ),
        (ResponseError::InvalidTxnState, _) => Refusal::new(
            error,
            "Partition was not added to the transaction".to_owned(),
        ),
        _ => Refusal::new(error, String::new()),
    }
}

async fn append(
    cx: &Context,
    caller: &Caller,
    acks: i16,
    (name, id): (&str, Uuid),
    index: i32,
    records: Bytes,
) -> Result<Queued, Refusal> {
    if id.is_nil() && caller.version >= BY_ID_VERSION_MIN {
        let error = LookupError::UnknownTopicId;
        return Err(Refusal::new(error.wire(), error.to_string()));
    }
    let found = partition_of(cx, name, id, index);
    let named = found_name(cx, &found, name, id);
    // Before what is wrong with the partition: that says what is there.
    if let Some(topic) = &named {
        authorize(cx, caller, Operation::Write, Resource::Topic(topic))
            .map_err(|denied| Refusal::new(denied.wire(), String::new()))?;
    }
    if is_internal_name(name) && cx.cluster.image().internal_topic(name).is_some() {
        let text = format!("Cannot append to internal topic {name}");
        return Err(Refusal::new(ResponseError::InvalidTopicException, text));
    }
    let partition = found.map_err(|error| Refusal::new(error.wire(), error.to_string()))?;
    check_version(caller.version, &records)?;
    let acks = Acks::of_wire(acks).ok_or_else(|| {
        let text = format!("acks={acks} is not -1, 0 or 1");
        Refusal::new(ResponseError::InvalidRequiredAcks, text)
    })?;
    let config = partition.log().config();
    if config.is_closed(index) {
        let text = format!(
            "partition {} of {} is closed: it takes no messages (closed.partitions; metaq partition open)",
            partition.identity(),
            partition.topic()
        );
        return Err(Refusal::new(ResponseError::PolicyViolation, text));
    }
    let in_sync = partition.check_in_sync(acks);
    in_sync.map_err(|error| Refusal::of(&partition, &error))?;
    let batches = admitted(cx, &partition, &records, &config).await?;
    let verification = match batches.iter().find(|batch| batch.header.is_transactional()) {
        None => Verification::NotNeeded,
        Some(first) => {
            let to_verify = ToVerify {
                producer_id: first.header.producer_id,
                producer_epoch: first.header.producer_epoch,
                base_sequence: first.header.base_sequence,
                is_v2: Support::of_produce(caller.version) == Support::Add,
            };
            let begun = partition.begin_verification(&to_verify);
            begun.map_err(|error| Refusal::of(&partition, &error))?
        }
    };
    if verification == Verification::NotNeeded {
        let answer = partition.append(acks, batches);
        return Ok(Queued::Waiting(partition, answer));
    }
    Ok(Queued::Unverified(Box::new(Unverified {
        partition,
        acks,
        batches,
        verification,
    })))
}

/// What a version of the request does not carry (Kafka's ProduceRequest.validateRecords).
fn check_version(version: i16, records: &[u8]) -> Result<(), Refusal> {
    let codec = || BatchHeader::parse(records).ok()?.compression().ok();
    match version < ZSTD_VERSION_MIN && codec() == Some(Compression::Zstd) {
        true => Err(Refusal::new(
            ResponseError::UnsupportedCompressionType,
            format!(
                "Produce requests with version {version} are not allowed to use ZStandard compression"
            ),
        )),
        false => Ok(()),
    }
}

/// Checks record data, once there is memory for unpacking them.
async fn admitted(
    cx: &Context,
    partition: &Arc<Partition>,
    records: &Bytes,
    config: &LogConfig,
) -> Result<Vec<ProducedBatch>, Refusal> {
    let now_ms = cx.partitions.clock().now_ms();
    let mut unpacking = Unpacking::of(records, config);
    loop {
        let (memory, bytes) = match unpacking.bytes > UNPACKING_BYTES_MAX {
            // More than half, so that there is one at a time; never all, because the request itself is there too.
            true => (
                &cx.memory,
                unpacking.bytes.min(cx.memory.bytes_max() / 8 * 5),
            ),
            false => (&cx.unpacking, unpacking.bytes),
        };
        let mut share = memory.empty_share();
        if bytes > 0 {
            let granted = memory.grow(&mut share, bytes, bytes);
            let no_memory = |NoMemory| {
                let text = "there was no memory for unpacking the batch in time".to_owned();
                Refusal::new(ResponseError::RequestTimedOut, text)
            };
            granted.await.map_err(no_memory)?;
        }
        let error = match admit(records, config, now_ms, unpacking) {
            Ok(batches) => return Ok(batches),
            Err(error) => error,
        };
        let again = unpacking.after(&error);
        unpacking = again.ok_or_else(|| invalid(partition, error))?;
    }
}

fn invalid(partition: &Arc<Partition>, error: InvalidBatch) -> Refusal {
    match error {
        // Not for the log to say.
        InvalidBatch::NotOneBatch(_) | InvalidBatch::Batch(BatchError::Magic(_)) => {
            Refusal::new(error.wire(), error.to_string())
        }
        InvalidBatch::Refused(records) => Refusal {
            error: records.wire(),
            text: records.text(partition.topic(), partition.index()),
            partition: Some(partition.clone()),
            records: Some(records),
        },
        error => Refusal::of(partition, &error),
    }
}

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
        // Not without a transactional id.
        Queued::Unverified(_) => {
            return Err(unverified(ResponseError::InvalidTxnState, Support::Add));
        }
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
