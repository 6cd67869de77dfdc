//! Produce (key 0, v3–v13; KIP-98, 467, 516, 951): appends record batches.
//!
//! - Advertised from v0, as by Kafka, because clients decide on compression by it; below v3 is refused.
//! - Exactly one batch a partition; it is stored as it was sent, unless the topic has its own codec.
//! - acks=0 is never answered; where it fails the connection is closed, as Kafka does, so that the client notices.
//! - Compressed batches are unpacked to check their records, as by Kafka; what does not unpack is INVALID_RECORD. Where
//!   that takes much memory it waits until there is some; after 30 s REQUEST_TIMED_OUT, which clients try again.
//! - Answered when what acks and the topic's sync policy promise is true. One partition's error leaves the
//!   others alone.
//! - Where acceptPublish is false it is TOPIC_AUTHORIZATION_FAILED; for a partition that is closed (closed.partitions),
//!   POLICY_VIOLATION.
//! - Transactional batches are refused with INVALID_TXN_STATE: transactions are not served yet.

use bytes::Bytes;
use metaq_protocol::ResponseError;
use metaq_protocol::frame;
use metaq_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use metaq_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::context::REFUSALS_NOTED_MAX;
use super::errors::WireError;
use super::reply::Reply;
use super::shared::{message, name_of, partition_of};
use super::{Answer, Api, Body, Caller, Context, Order, Response};
use crate::log::{Appended, LogConfig, LogError, ProducedBatch};
use crate::memory::NoMemory;
use crate::partition::{Acks, InvalidBatch, Unpacking, admit};

pub(super) const API: Api = Api {
    key: ApiKey::Produce,
    order: Order::WithKin,
    needs: &[(Operation::Write, ResourceKind::Topic)],
    start: |cx, caller, request, mut stage| -> Answer {
        Box::pin(async move {
            let produce: ProduceRequest = frame::decode(&request)?;
            drop(request.body);
            let acks = produce.acks;
            let queued = queue(&cx, &caller, produce).await;
            stage.ordered();
            let (response, throttle) = Reply::from(answer(&cx, queued).await).finish();
            drop(stage);
            note_refusals(&cx, &caller, &response);
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

enum Queued {
    Waiting(oneshot::Receiver<Result<Appended, LogError>>),
    Refused(Refusal),
}

struct Refusal {
    error: ResponseError,
    text: String,
    record: Option<i32>,
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
    for topic in request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let records = data.records.unwrap_or_default();
            let name = (&*topic.name.0, topic.topic_id);
            let queued = append(cx, caller, acks, name, data.index, records).await;
            partitions.push((data.index, queued.unwrap_or_else(Queued::Refused)));
        }
        topics.push(QueuedTopic {
            name: topic.name,
            id: topic.topic_id,
            partitions,
        });
    }
    topics
}

async fn append(
    cx: &Context,
    caller: &Caller,
    acks: i16,
    (name, id): (&str, Uuid),
    index: i32,
    records: Bytes,
) -> Result<Queued, Refusal> {
    let acks = Acks::of_wire(acks).ok_or_else(|| {
        let text = format!("acks={acks} is not -1, 0 or 1");
        refuse(ResponseError::InvalidRequiredAcks, text)
    })?;
    let partition = partition_of(cx, name, id, index)
        .map_err(|error| refuse(error.wire(), error.to_string()))?;
    authorize(
        cx,
        caller,
        Operation::Write,
        Resource::Topic(partition.topic()),
    )
    .map_err(|denied| refuse(denied.wire(), denied.to_string()))?;
    let config = partition.log().config();
    if config.is_closed(index) {
        let text = format!(
            "partition {} of {} is closed: it takes no messages (closed.partitions; metaq partition open)",
            partition.identity(),
            partition.topic()
        );
        return Err(refuse(ResponseError::PolicyViolation, text));
    }
    let in_sync = partition.check_in_sync(acks);
    in_sync.map_err(|error| refuse(error.wire(), error.to_string()))?;
    let batches = admitted(cx, &records, &config).await?;
    if batches.iter().any(|batch| batch.header.is_transactional()) {
        return Err(refuse(
            ResponseError::InvalidTxnState,
            "transactions are not served yet".to_owned(),
        ));
    }
    Ok(Queued::Waiting(partition.append(acks, batches)))
}

/// Checks record data, once there is memory for unpacking them.
async fn admitted(
    cx: &Context,
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
                refuse(ResponseError::RequestTimedOut, text)
            };
            granted.await.map_err(no_memory)?;
        }
        let error = match admit(records, config, now_ms, unpacking) {
            Ok(batches) => return Ok(batches),
            Err(error) => error,
        };
        unpacking = unpacking.after(&error).ok_or_else(|| Refusal {
            record: match error {
                InvalidBatch::NoKey(record) => i32::try_from(record).ok(),
                _ => None,
            },
            ..refuse(error.wire(), error.to_string())
        })?;
    }
}

async fn answer(cx: &Context, queued: Vec<QueuedTopic>) -> ProduceResponse {
    let mut topics = Vec::with_capacity(queued.len());
    for topic in queued {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (index, queued) in topic.partitions {
            partitions.push(match queued {
                Queued::Waiting(answer) => match answer.await {
                    // Others may act in this broker's place by now; the client asks who leads.
                    Ok(Ok(_)) if !cx.cluster.may_act() => {
                        refused(index, &refusal(&LogError::NotLeader))
                    }
                    Ok(Ok(appended)) => PartitionProduceResponse::default()
                        .with_index(index)
                        .with_base_offset(appended.base_offset)
                        .with_log_append_time_ms(appended.log_append_time_ms)
                        .with_log_start_offset(appended.log_start),
                    Ok(Err(error)) => refused(index, &refusal(&error)),
                    Err(_) => refused(
                        index,
                        &refusal(&LogError::Offline("the writer ended".to_owned())),
                    ),
                },
                Queued::Refused(refusal) => refused(index, &refusal),
            });
        }
        let response = TopicProduceResponse::default()
            .with_name(topic.name)
            .with_topic_id(topic.id);
        topics.push(response.with_partition_responses(partitions));
    }
    ProduceResponse::default().with_responses(topics)
}

fn refusal(error: &LogError) -> Refusal {
    refuse(error.wire(), error.to_string())
}

fn refuse(error: ResponseError, text: String) -> Refusal {
    Refusal {
        error,
        text,
        record: None,
    }
}

fn refused(index: i32, refusal: &Refusal) -> PartitionProduceResponse {
    let record_errors = refusal.record.map(|record| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(record)
            .with_batch_index_error_message(message(&refusal.text))
    });
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(refusal.error.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
        .with_record_errors(record_errors.into_iter().collect())
        .with_error_message(message(&refusal.text))
}

fn note_refusals(cx: &Context, caller: &Caller, response: &ProduceResponse) {
    let mut noted = 0;
    for topic in &response.responses {
        let refused = topic.partition_responses.iter();
        for partition in refused.filter(|partition| partition.error_code != 0) {
            noted += 1;
            if noted > REFUSALS_NOTED_MAX {
                return;
            }
            let subject = match topic.topic_id.is_nil() {
                true => format!("{}-{}", *topic.name, partition.index),
                false => format!("{}-{}", name_of(cx, topic.topic_id), partition.index),
            };
            let why = partition.error_message.as_deref().unwrap_or_default();
            cx.note(caller, &subject, partition.error_code, why);
        }
    }
}

fn first_error(response: &ProduceResponse) -> Option<i16> {
    let all = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    all.map(|partition| partition.error_code)
        .find(|code| *code != 0)
}
