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

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use metaq_protocol::ResponseError;
use metaq_protocol::batch::{BatchError, BatchHeader, Compression};
use metaq_protocol::frame;
use metaq_protocol::messages::produce_request::TopicProduceData;
use metaq_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use metaq_protocol::messages::{ApiKey, BrokerId, ProduceRequest, ProduceResponse};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::context::{REFUSALS_NOTED_MAX, wire_name};
use super::errors::WireError;
use super::produce_request::{overridden, refused_whole};
use super::reply::Reply;
use super::shared::{
    BY_ID_VERSION_MIN, LookupError, current_leader, endpoints_of, message, name_of, partition_of,
    text,
};
use super::transaction_check::{InTransaction, Support, check};
use super::{Answer, Api, Body, Caller, Context, Order, Response};
use crate::cluster::is_internal_name;
use crate::log::{Appended, LogConfig, LogError, ProducedBatch, ToVerify, Verification};
use crate::memory::NoMemory;
use crate::partition::{
    Acks, InvalidBatch, Partition, RECORD_ERRORS_MAX, RecordErrors, Unpacking, admit,
};
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
            drop(request.body);
            let acks = produce.acks;
            let queued = match refused_whole(&cx, &caller, &produce) {
                Some((error, why)) => refuse_all(produce, error, &why),
                None => queue(&cx, &caller, produce).await,
            };
            stage.ordered();
            let mut response = answer(&cx, &caller, queued).await;
            name_leaders(&cx, &caller, &mut response);
            let (response, throttle) = Reply::from(response).finish();
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

struct Refusal {
    error: ResponseError,
    text: String,
    /// The log that refuses, where it is one.
    partition: Option<Arc<Partition>>,
    records: Option<RecordErrors>,
}

impl Refusal {
    fn new(error: ResponseError, text: String) -> Self {
        Self {
            error,
            text,
            partition: None,
            records: None,
        }
    }

    fn of(partition: &Arc<Partition>, error: &(impl WireError + Display)) -> Self {
        Self {
            partition: Some(partition.clone()),
            ..Self::new(error.wire(), error.to_string())
        }
    }

    /// Whether the client reads why: as Kafka's LogAppendResult, where the reason is in the records; and what Kafka does not
    /// know.
    fn says_why(&self) -> bool {
        let is_own = matches!(
            self.error,
            ResponseError::PolicyViolation | ResponseError::RequestTimedOut
        );
        let is_before_append = self.partition.is_none()
            && matches!(
                self.error,
                ResponseError::CorruptMessage
                    | ResponseError::InvalidProducerIdMapping
                    | ResponseError::InvalidTxnState
                    | ResponseError::NotEnoughReplicas
            );
        self.records.is_some() || is_own || is_before_append
    }

    /// As Kafka's ReplicaManager.appendToLocalLog: the log's start, unless the reason is not the log's.
    fn log_start(&self) -> i64 {
        match (&self.partition, self.error) {
            (
                _,
                ResponseError::NotLeaderOrFollower
                | ResponseError::MessageTooLarge
                | ResponseError::RecordListTooLarge
                | ResponseError::CorruptMessage
                | ResponseError::KafkaStorageError,
            )
            | (None, _) => -1,
            (Some(partition), _) => partition.log().ends().log_start,
        }
    }
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
    if is_internal_name(name) && cx.cluster.image().internal_topic(name).is_some() {
        let text = format!("Cannot append to internal topic {name}");
        return Err(Refusal::new(ResponseError::InvalidTopicException, text));
    }
    let partition = partition_of(cx, name, id, index)
        .map_err(|error| Refusal::new(error.wire(), error.to_string()))?;
    authorize(
        cx,
        caller,
        Operation::Write,
        Resource::Topic(partition.topic()),
    )
    .map_err(|denied| Refusal::new(denied.wire(), denied.to_string()))?;
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

async fn answer(cx: &Context, caller: &Caller, queued: Vec<QueuedTopic>) -> ProduceResponse {
    let mut topics = Vec::with_capacity(queued.len());
    let mut noted = 0;
    for topic in queued {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (index, queued) in topic.partitions {
            partitions.push(match outcome(cx, queued).await {
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

async fn outcome(cx: &Context, queued: Queued) -> Result<Appended, Refusal> {
    let (partition, answer) = match queued {
        Queued::Waiting(partition, answer) => (partition, answer),
        Queued::Refused(refusal) => return Err(refusal),
        // Not without a transactional id.
        Queued::Unverified(_) => {
            return Err(unverified(ResponseError::InvalidTxnState, Support::Add));
        }
    };
    match answer.await {
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

fn refused(index: i32, refusal: &Refusal) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(refusal.error.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(refusal.log_start())
        .with_record_errors(record_errors(refusal))
        .with_error_message(refusal.says_why().then(|| text(&*refusal.text)))
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

fn record_errors(refusal: &Refusal) -> Vec<BatchIndexAndErrorMessage> {
    let (Some(partition), Some(records)) = (&refusal.partition, &refusal.records) else {
        return Vec::new();
    };
    let named = records.named.iter().map(|record| {
        let text = record.text(partition.topic(), partition.index());
        BatchIndexAndErrorMessage::default()
            .with_batch_index(record.batch_index)
            .with_batch_index_error_message(message(&text))
    });
    named.collect()
}

fn first_error(response: &ProduceResponse) -> Option<i16> {
    let all = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    all.map(|partition| partition.error_code)
        .find(|code| *code != 0)
}
