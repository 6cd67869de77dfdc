//! What a Produce request queues: the records of each partition, in the order in which Kafka looks for what is wrong with them.
//!
//! Tests: tests/order.rs, tests/broker.rs.

use std::sync::Arc;

use bytes::Bytes;
use metaq_protocol::ResponseError;
use metaq_protocol::batch::{BatchError, BatchHeader, Compression};
use metaq_protocol::messages::produce_request::TopicProduceData;
use metaq_protocol::messages::{ProduceRequest, TopicName};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::authorize::{Operation, Resource, authorize};
use super::context::wire_name;
use super::errors::WireError;
use super::produce_refusal::Refusal;
use super::produce_request::{has_transactional, overridden, transaction_of};
use super::shared::{BY_ID_VERSION_MIN, LookupError, found_name, partition_of};
use super::transaction_check::{InTransaction, Support, check};
use super::{Caller, Context};
use crate::cluster::is_internal_name;
use crate::log::{Appended, LogConfig, LogError, ProducedBatch, ToVerify, Verification};
use crate::memory::NoMemory;
use crate::partition::{
    Acks, InvalidBatch, Partition, RECORD_ERRORS_MAX, Unpacking, admit, one_batch,
};
use crate::transaction::Producer;

/// Memory that produced batches may take while they are unpacked, bytes, beside that of requests.
pub const UNPACKING_BYTES_MAX: usize = 32 << 20;

/// zstd came with this version (KIP-110).
const ZSTD_VERSION_MIN: i16 = 7;

/// What becomes of the records of a partition.
pub(super) enum Queued {
    Waiting(
        Arc<Partition>,
        oneshot::Receiver<Result<Appended, LogError>>,
    ),
    /// Not queued yet: its transaction's coordinator is asked first.
    Found(Box<Found>),
    Refused(Refusal),
}

/// Records, and the partition that is there for them.
pub(super) struct Found {
    pub(super) partition: Arc<Partition>,
    records: Bytes,
    verification: Verification,
}

/// The records of a topic.
pub(super) struct QueuedTopic {
    pub(super) name: TopicName,
    pub(super) id: Uuid,
    pub(super) partitions: Vec<(i32, Queued)>,
}

/// Queues what is valid; done before the next request of the connection begins.
pub(super) async fn queue(
    cx: &Context,
    caller: &Caller,
    request: ProduceRequest,
) -> Vec<QueuedTopic> {
    let acks = request.acks;
    let mut topics = Vec::with_capacity(request.topic_data.len());
    let mut named = 0;
    let overridden = overridden(&request);
    let transaction = request.transactional_id.clone();
    let transaction = transaction.filter(|_| has_transactional(&request));
    let mut producers = Vec::new();
    for (place, topic) in request.topic_data.into_iter().enumerate() {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for (at, data) in topic.partition_data.into_iter().enumerate() {
            if overridden.contains(&(place, at)) {
                continue;
            }
            let records = data.records.unwrap_or_default();
            let name = (&*topic.name.0, topic.topic_id);
            let producer = transaction_of(&records).filter(|producer| producer.id >= 0);
            let found = find(cx, caller, name, data.index, records);
            if is_counted(&found) {
                producers.extend(producer);
            }
            let queued = match found {
                Err(refusal) => Queued::Refused(refusal),
                Ok(found) if transaction.is_some() => Queued::Found(Box::new(found)),
                Ok(found) => append(cx, acks, found, &mut named).await,
            };
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
    if let Some(id) = transaction {
        let partitions = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        let mut all: Vec<&mut Queued> = partitions.map(|(_, queued)| queued).collect();
        match one_of(&producers) {
            Err(several) => all.iter_mut().for_each(|queued| refuse(queued, &several)),
            Ok(producer) => {
                let of = producer.map(|producer| InTransaction {
                    transactional_id: &id,
                    producer,
                    support: Support::of_produce(caller.version),
                });
                queue_transactional(cx, of, acks, &mut all).await;
            }
        }
    }
    topics
}

/// Refuses all records of a request.
pub(super) fn refuse_all(
    request: ProduceRequest,
    error: ResponseError,
    why: &str,
) -> Vec<QueuedTopic> {
    // What is named several times is answered once.
    let overridden = overridden(&request);
    let refused = || Queued::Refused(Refusal::new(error, why.to_owned()));
    let topic = |(place, topic): (usize, TopicProduceData)| {
        let partitions = topic.partition_data.iter().enumerate();
        let counted = partitions.filter(|(at, _)| !overridden.contains(&(place, *at)));
        QueuedTopic {
            name: topic.name,
            id: topic.topic_id,
            partitions: counted.map(|(_, data)| (data.index, refused())).collect(),
        }
    };
    let topics = request.topic_data.into_iter().enumerate().map(topic);
    topics
        .filter(|topic| !topic.partitions.is_empty())
        .collect()
}

/// Whether the producer of a partition's batch is looked at: of one that is there, whoever leads it.
fn is_counted(found: &Result<Found, Refusal>) -> bool {
    match found {
        Ok(_) => true,
        Err(refusal) => matches!(
            refusal.error,
            ResponseError::NotLeaderOrFollower | ResponseError::InvalidTopicException
        ),
    }
}

/// Batches of a request are parts of transactions of several producers.
#[derive(Debug, thiserror::Error)]
#[error("Transactional records contained more than one producer ID")]
struct SeveralProducers;

/// Whose transaction the batches are part of.
fn one_of(producers: &[Producer]) -> Result<Option<Producer>, SeveralProducers> {
    match producers.split_first() {
        Some((first, others)) if others.iter().any(|other| other != first) => Err(SeveralProducers),
        first => Ok(first.map(|(first, _)| *first)),
    }
}

fn refuse(queued: &mut Queued, why: &SeveralProducers) {
    let error = ResponseError::InvalidProducerIdMapping;
    *queued = Queued::Refused(Refusal::new(error, why.to_string()));
}

/// Queues what was found, of a request that has batches of a transaction: those once the coordinator has confirmed them, before
/// anything else is looked at (Kafka's ReplicaManager.handleProduceAppend).
async fn queue_transactional(
    cx: &Context,
    of: Option<InTransaction<'_>>,
    acks: i16,
    all: &mut [&mut Queued],
) {
    if let Some(of) = of {
        verify(cx, of, all).await;
    }
    let mut named = 0;
    for queued in all {
        // What it is until it is known what it becomes.
        let refused = Refusal::new(ResponseError::UnknownServerError, String::new());
        **queued = match std::mem::replace(*queued, Queued::Refused(refused)) {
            Queued::Found(found) => append(cx, acks, *found, &mut named).await,
            other => other,
        };
    }
}

/// Asks the transaction's coordinator about all partitions that are new to it.
async fn verify(cx: &Context, of: InTransaction<'_>, all: &mut [&mut Queued]) {
    let mut waiting = Vec::with_capacity(all.len());
    let mut named = Vec::with_capacity(all.len());
    for queued in all {
        let Queued::Found(found) = &mut **queued else {
            continue;
        };
        match begin_verification(found, of.support) {
            Ok(Verification::NotNeeded) => {}
            Ok(verification) => {
                let partition = &found.partition;
                named.push((partition.topic().to_string(), partition.index()));
                waiting.push((queued, verification));
            }
            Err(error) => {
                **queued = Queued::Refused(Refusal::new(error.wire(), error.to_string()));
            }
        }
    }
    if waiting.is_empty() {
        return;
    }
    let mut outcomes = check(cx, of, named).await.into_iter();
    for (queued, verification) in waiting {
        // Nothing that the coordinator has not spoken of counts as confirmed.
        let outcome = outcomes.next();
        match outcome.unwrap_or(Err(ResponseError::InvalidTxnState)) {
            Ok(()) => confirm(queued, verification),
            Err(error) => **queued = Queued::Refused(unverified(error, of.support)),
        }
    }
}

fn confirm(queued: &mut Queued, verification: Verification) {
    if let Queued::Found(found) = queued {
        found.verification = verification;
    }
}

/// A batch that is no part of a transaction needs none.
fn begin_verification(found: &Found, support: Support) -> Result<Verification, LogError> {
    let header = BatchHeader::parse(&found.records);
    let is_of_producer =
        |header: &BatchHeader| header.is_transactional() && header.producer_id >= 0;
    let Some(first) = header.ok().filter(is_of_producer) else {
        return Ok(Verification::NotNeeded);
    };
    found.partition.begin_verification(&ToVerify {
        producer_id: first.producer_id,
        producer_epoch: first.producer_epoch,
        base_sequence: first.base_sequence,
        is_v2: support == Support::Add,
    })
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

/// The partition that records are for, where the client may write to it.
fn find(
    cx: &Context,
    caller: &Caller,
    (name, id): (&str, Uuid),
    index: i32,
    records: Bytes,
) -> Result<Found, Refusal> {
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
    check_records(caller.version, &records)?;
    Ok(Found {
        partition,
        records,
        verification: Verification::NotNeeded,
    })
}

/// Queues what is valid. `named` counts the records of this request that are named as reasons.
async fn append(cx: &Context, acks: i16, found: Found, named: &mut usize) -> Queued {
    let Found {
        partition,
        records,
        verification,
    } = found;
    match admitted(cx, acks, &partition, &records).await {
        Ok((acks, batches)) => {
            let answer = partition.append_verified(acks, batches, verification);
            Queued::Waiting(partition, answer)
        }
        Err(mut refusal) => {
            if let Some(records) = &mut refusal.records {
                records.named.truncate(RECORD_ERRORS_MAX - *named);
                *named += records.named.len();
            }
            Queued::Refused(refusal)
        }
    }
}

/// The batches of records that a partition takes.
async fn admitted(
    cx: &Context,
    acks: i16,
    partition: &Arc<Partition>,
    records: &Bytes,
) -> Result<(Acks, Vec<ProducedBatch>), Refusal> {
    let acks = Acks::of_wire(acks).ok_or_else(|| {
        let text = format!("acks={acks} is not -1, 0 or 1");
        Refusal::new(ResponseError::InvalidRequiredAcks, text)
    })?;
    let config = partition.log().config();
    if config.is_closed(partition.index()) {
        let text = format!(
            "partition {} of {} is closed: it takes no messages (closed.partitions; metaq partition open)",
            partition.identity(),
            partition.topic()
        );
        return Err(Refusal::new(ResponseError::PolicyViolation, text));
    }
    let in_sync = partition.check_in_sync(acks);
    in_sync.map_err(|error| Refusal::of(partition, &error))?;
    let batches = unpacked(cx, partition, records, &config).await?;
    Ok((acks, batches))
}

/// What a request does not carry, whatever the partition (Kafka's ProduceRequest.validateRecords).
fn check_records(version: i16, records: &Bytes) -> Result<(), Refusal> {
    let refuse = |error: InvalidBatch| Err(Refusal::new(error.wire(), error.to_string()));
    let several = match one_batch(records) {
        Err(error @ InvalidBatch::NotOneBatch(2..)) => Some(error),
        Err(error @ (InvalidBatch::NotOneBatch(_) | InvalidBatch::Batch(BatchError::Magic(_)))) => {
            return refuse(error);
        }
        // Anything else is the log's to say.
        _ => None,
    };
    let codec = || BatchHeader::parse(records).ok()?.compression().ok();
    if version < ZSTD_VERSION_MIN && codec() == Some(Compression::Zstd) {
        return Err(Refusal::new(
            ResponseError::UnsupportedCompressionType,
            format!(
                "Produce requests with version {version} are not allowed to use ZStandard compression"
            ),
        ));
    }
    several.map_or(Ok(()), refuse)
}

/// Checks record data, once there is memory for unpacking them.
async fn unpacked(
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
            let granted = memory.grow(&mut share, bytes, bytes, tokio::time::Instant::now());
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
        InvalidBatch::Refused(records) => Refusal {
            error: records.wire(),
            text: records.text(partition.topic(), partition.index()),
            partition: Some(partition.clone()),
            records: Some(records),
        },
        error => Refusal::of(partition, &error),
    }
}
