//! Fetch (key 1, v4–v18; KIP-74, 98, 107, 207, 227, 320, 516, 951): record batches from files.
//!
//! - The batch that contains the asked offset is returned whole from its start; the first batch of the first
//!   non-empty partition even when it is larger than the limits.
//! - Waits until `min_bytes` are there or `max_wait_ms` is over; an error is answered at once.
//! - Records are not read here: the answer is a skeleton with ranges of segment files.
//! - Where acceptSubscribe is false it is TOPIC_AUTHORIZATION_FAILED.
//! - More than [`PARTITIONS_MAX`] partitions in one request are refused with INVALID_REQUEST, or by closing the
//!   connection where the answer has no place for it (below v7).
//! - A client that says the epoch of the last record it read, and read what is not in the log, gets the largest epoch that
//!   both have and where it ends (v12+; KIP-320), not records.
//! - A client that asks for committed records gets what lies before the last stable offset, markers and aborted records too,
//!   and is told which transactions of it were aborted; others are told of none (null), as by Kafka.
//! - Where another broker leads, or in another epoch, v16 and later say which one and where it is (KIP-951).
//! - Rack-aware reading from followers (KIP-392) waits for replication.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::fetch_response::{self, FetchPiece, FetchedPartition, FetchedTopic};
use metaq_protocol::frame;
use metaq_protocol::messages::fetch_response::NodeEndpoint;
use metaq_protocol::messages::{ApiKey, FetchRequest};
use tokio::time::Instant;
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::context::REFUSALS_NOTED_MAX;
use super::errors::WireError;
use super::fetch_sessions::{FetchKind, LastSent, PartitionFetch, PartitionKey, SessionError};
use super::reply::throttle_ms;
use super::shared::{BY_ID_VERSION_MIN, current_leader, endpoints_of, name_of, partition_of};
use super::{Answer, Api, Body, Caller, Context, Order, Piece, Response, Stage};
use crate::log::{AbortedTransaction, LogError, Reach, ReadWanted, Slice};
use crate::partition::{FetchWaiter, Isolation, Partition, ReadError, ReadLimits};

/// From this version on clients name topics by id.
const TOPIC_IDS_FROM: i16 = 13;
/// From this version on an answer has an error code of its own.
const ERROR_CODE_FROM: i16 = 7;
/// From this version on an answer says who leads a partition that is another broker's (KIP-951).
const LEADERS_FROM: i16 = 16;
/// Before this version clients did not know KAFKA_STORAGE_ERROR.
const STORAGE_ERROR_FROM: i16 = 6;
/// Partitions that one request may name or forget.
const PARTITIONS_MAX: usize = 100_000;
/// A client that asks to wait longer is answered after this (Kafka's clients ask for 500).
const WAIT_MS_MAX: u64 = 5 * 60 * 1000;

pub(super) const API: Api = Api {
    key: ApiKey::Fetch,
    order: Order::OnlyWaits,
    needs: &[(Operation::Read, ResourceKind::Topic)],
    start: |cx, caller, request, mut stage| -> Answer {
        Box::pin(async move {
            let fetch: FetchRequest = frame::decode(&request)?;
            drop(request.body);
            let named = named_partitions(&fetch);
            if named > PARTITIONS_MAX && caller.version < ERROR_CODE_FROM {
                let why =
                    format!("a fetch that names {named} partitions, more than {PARTITIONS_MAX}");
                return Ok(Body::Close(why).into());
            }
            let answered = answer(&cx, &caller, fetch, &mut stage).await;
            drop(stage);
            let Answered {
                throttle,
                mut response,
                mut slices,
            } = answered;
            response.throttle_ms = throttle_ms(throttle);
            name_leaders(&cx, &caller, &mut response);
            let frame = fetch_response::encode(caller.version, caller.correlation_id, &response)?;
            let fill = |piece| match piece {
                FetchPiece::Skeleton(bytes) => Some(Piece::Bytes(bytes)),
                FetchPiece::Records { topic, partition } => {
                    slices.remove(&(topic, partition)).map(Piece::File)
                }
            };
            Ok(Response {
                body: Body::Send(frame.into_iter().filter_map(fill).collect()),
                throttle,
            })
        })
    },
};

#[derive(Default)]
struct Answered {
    throttle: Duration,
    response: fetch_response::Fetched,
    /// By position in the topics and their partitions.
    slices: HashMap<(usize, usize), Slice>,
}

impl Answered {
    fn with_error(error: ResponseError) -> Self {
        let mut answered = Self::default();
        answered.response.error_code = error.code();
        answered
    }
}

/// What all partitions give.
struct Reading {
    fetched: Vec<Fetched>,
    /// Bytes of records.
    bytes: usize,
    /// Sum over the partitions.
    withheld: usize,
    /// There is enough, or something that is answered at once.
    is_enough: bool,
}

/// What one partition gives.
struct Fetched {
    partition: Option<Arc<Partition>>,
    answer: FetchedPartition,
    slice: Option<Slice>,
    /// Bytes that it may give and does not, because its next batch is larger: they count as given where a fetch waits for
    /// enough (Kafka's DelayedFetch.tryComplete).
    withheld: usize,
}

/// What all partitions of a request have in common.
struct FetchLimits<'a> {
    caller: &'a Caller,
    bytes_max: usize,
    bytes_min: usize,
    isolation: Isolation,
}

fn named_partitions(request: &FetchRequest) -> usize {
    let named = request.topics.iter().map(|topic| topic.partitions.len());
    let forgotten = request.forgotten_topics_data.iter();
    named.sum::<usize>() + forgotten.map(|topic| topic.partitions.len()).sum::<usize>()
}

async fn answer(
    cx: &Arc<Context>,
    caller: &Caller,
    request: FetchRequest,
    stage: &mut Stage,
) -> Answered {
    if named_partitions(&request) > PARTITIONS_MAX {
        return Answered::with_error(ResponseError::InvalidRequest);
    }
    let by_id = caller.version >= TOPIC_IDS_FROM;
    let forgotten: Vec<PartitionKey> = request
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| {
            let name: Arc<str> = topic.topic.as_str().into();
            let key = move |partition: &i32| PartitionKey {
                topic: name.clone(),
                topic_id: topic.topic_id,
                partition: *partition,
            };
            topic.partitions.iter().map(key)
        })
        .collect();
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0);
    let bytes_max = bytes_max.min(cx.config.fetch_bytes_max());
    let limits = FetchLimits {
        caller,
        bytes_max,
        // More than the answer may hold never comes (Kafka's KafkaApis.handleFetchRequest).
        bytes_min: usize::try_from(request.min_bytes)
            .unwrap_or(0)
            .min(bytes_max),
        isolation: if request.isolation_level == 1 {
            Isolation::ReadCommitted
        } else {
            Isolation::ReadUncommitted
        },
    };
    let deadline = Instant::now()
        + Duration::from_millis(
            u64::try_from(request.max_wait_ms)
                .unwrap_or(0)
                .min(WAIT_MS_MAX),
        );
    let named = wanted(&request);
    let begun = cx.fetch_sessions.begin(
        request.session_id,
        request.session_epoch,
        by_id,
        named,
        &forgotten,
    );
    drop(request);
    let (kind, wanted) = match begun {
        Ok(begun) => begun,
        Err(error) => return Answered::with_error(session_error(error)),
    };
    let mut fetched = wait(cx, &wanted, &limits, deadline, stage).await;
    if !cx.cluster.may_act() {
        // What was read before this process was stopped is not given by a broker that leads no more.
        fetched = read(cx, &wanted, &limits).await.fetched;
    }
    let mut noted = 0;
    for (wanted, fetched) in wanted.iter().zip(&fetched) {
        match (&fetched.partition, &fetched.slice) {
            (Some(partition), Some(slice)) => partition.traffic().sent(slice.bytes),
            (None, _) if noted < REFUSALS_NOTED_MAX => {
                noted += 1;
                note_refusal(cx, caller, wanted, fetched.answer.error_code);
            }
            _ => {}
        }
    }
    assemble(cx, kind, wanted, fetched)
}

fn note_refusal(cx: &Context, caller: &Caller, wanted: &PartitionFetch, code: i16) {
    let key = &wanted.key;
    let topic = match key.topic_id.is_nil() {
        true => key.topic.to_string(),
        false => name_of(cx, key.topic_id),
    };
    let subject = format!("{topic}-{}", key.partition);
    let why = match ResponseError::try_from_code(code) {
        Some(ResponseError::OffsetOutOfRange) => {
            format!("offset {} was asked for", wanted.fetch_offset)
        }
        _ => String::new(),
    };
    cx.note(caller, &subject, code, &why);
}

fn wanted(request: &FetchRequest) -> Vec<PartitionFetch> {
    let mut all = Vec::new();
    for topic in &request.topics {
        let name: Arc<str> = topic.topic.as_str().into();
        all.extend(topic.partitions.iter().map(|partition| PartitionFetch {
            key: PartitionKey {
                topic: name.clone(),
                topic_id: topic.topic_id,
                partition: partition.partition,
            },
            // As Kafka's FetchRequest: whatever is below zero is none.
            current_leader_epoch: partition.current_leader_epoch.max(-1),
            fetch_offset: partition.fetch_offset,
            last_fetched_epoch: partition.last_fetched_epoch.max(-1),
            bytes_max: partition.partition_max_bytes,
            last_sent: None,
        }));
    }
    all
}

fn session_error(error: SessionError) -> ResponseError {
    match error {
        SessionError::NotFound => ResponseError::FetchSessionIdNotFound,
        SessionError::WrongEpoch => ResponseError::InvalidFetchSessionEpoch,
        SessionError::TopicIds => ResponseError::FetchSessionTopicIdError,
    }
}

/// Reads until there is enough, an error, or no more time; not into a shutdown. What waits costs by what moves: each time
/// only the partitions that did are read again.
async fn wait(
    cx: &Arc<Context>,
    wanted: &[PartitionFetch],
    limits: &FetchLimits<'_>,
    deadline: Instant,
    stage: &mut Stage,
) -> Vec<Fetched> {
    let mut reading = read(cx, wanted, limits).await;
    if reading.is_enough || Instant::now() >= deadline {
        return reading.fetched;
    }
    let waiter = Arc::new(FetchWaiter::default());
    let mut draining = cx.draining.clone();
    let mut subscriptions = Vec::with_capacity(wanted.len());
    for (number, fetched) in reading.fetched.iter().enumerate() {
        let subscribe = |partition: &Arc<Partition>| partition.subscribe(&waiter, number);
        subscriptions.push(fetched.partition.as_ref().map(subscribe));
        if fetched.has_moved() {
            // It moved before the subscription.
            waiter.note_moved(number);
        }
    }
    stage.ordered();
    loop {
        let moved = tokio::select! {
            moved = waiter.moved() => moved,
            () = tokio::time::sleep_until(deadline) => return reading.fetched,
            _ = draining.wait_for(|draining| *draining) => return reading.fetched,
        };
        for number in moved {
            tokio::task::coop::consume_budget().await;
            let before = reading.fetched[number].partition.clone();
            reading.read_again(cx, wanted, limits, number).await;
            let now = &reading.fetched[number].partition;
            if let (Some(before), Some(now)) = (before, now)
                && !Arc::ptr_eq(&before, now)
            {
                // It goes on in another directory.
                let renewed = now.subscribe(&waiter, number);
                subscriptions[number] = Some(renewed);
                if reading.fetched[number].has_moved() {
                    waiter.note_moved(number);
                }
            }
        }
        if reading.is_enough {
            return reading.fetched;
        }
    }
}

async fn read(cx: &Arc<Context>, wanted: &[PartitionFetch], limits: &FetchLimits<'_>) -> Reading {
    let mut reading = Reading {
        fetched: Vec::with_capacity(wanted.len()),
        bytes: 0,
        withheld: 0,
        is_enough: wanted.is_empty() || limits.bytes_min == 0,
    };
    for wanted in wanted {
        // Other tasks run too during a request that names very many.
        tokio::task::coop::consume_budget().await;
        let fetched = read_one(cx, wanted, limits, reading.bytes).await;
        reading.add(&fetched, limits);
        reading.fetched.push(fetched);
    }
    reading
}

impl Reading {
    fn add(&mut self, fetched: &Fetched, limits: &FetchLimits<'_>) {
        self.bytes += fetched.answer.records_bytes;
        self.withheld += fetched.withheld;
        self.is_enough |= fetched.answer.error_code != 0
            || fetched.answer.diverging_epoch.is_some()
            || self.bytes + self.withheld >= limits.bytes_min;
    }

    /// Reads one of the partitions again.
    async fn read_again(
        &mut self,
        cx: &Arc<Context>,
        wanted: &[PartitionFetch],
        limits: &FetchLimits<'_>,
        number: usize,
    ) {
        self.bytes -= self.fetched[number].answer.records_bytes;
        self.withheld -= self.fetched[number].withheld;
        let fetched = read_one(cx, &wanted[number], limits, self.bytes).await;
        self.add(&fetched, limits);
        self.fetched[number] = fetched;
    }
}

impl Fetched {
    /// Whether its partition can give more by now, or is not the one to ask any more.
    fn has_moved(&self) -> bool {
        let answered = (self.answer.high_watermark, self.answer.last_stable_offset);
        self.partition.as_ref().is_some_and(|partition| {
            let limits = partition.read_limits();
            let now = (limits.high_watermark(), limits.last_stable_offset());
            partition.is_deleted() || now != answered
        })
    }
}

/// Reads one partition, of a fetch that has so many bytes already.
async fn read_one(
    cx: &Arc<Context>,
    wanted: &PartitionFetch,
    limits: &FetchLimits<'_>,
    bytes: usize,
) -> Fetched {
    let key = &wanted.key;
    let refuse = |error: ResponseError| Fetched {
        partition: None,
        answer: FetchedPartition {
            index: key.partition,
            error_code: for_version(limits.caller.version, error).code(),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            // As Kafka's FetchResponse.partitionResponse, of what no log was asked for.
            aborted: is_unread(error).then(Vec::new),
            ..FetchedPartition::default()
        },
        slice: None,
        withheld: 0,
    };
    if key.topic_id.is_nil() && limits.caller.version >= BY_ID_VERSION_MIN {
        return refuse(ResponseError::UnknownTopicId);
    }
    let partition = match partition_of(cx, &key.topic, key.topic_id, key.partition) {
        Ok(partition) => partition,
        Err(error) => return refuse(error.wire()),
    };
    let topic = Resource::Topic(partition.topic());
    if let Err(denied) = authorize(cx, limits.caller, Operation::Read, topic) {
        return refuse(denied.wire());
    }
    if let Err(error) = partition.check_epoch(wanted.current_leader_epoch) {
        return refuse(error.wire());
    }
    let left = limits.bytes_max.saturating_sub(bytes);
    let to_read = ReadWanted {
        offset: wanted.fetch_offset,
        bytes_max: left.min(usize::try_from(wanted.bytes_max).unwrap_or(0)),
        first_batch_whole: bytes == 0,
    };
    // Before the read: what comes in between is seen as a move.
    let read_limits = partition.read_limits();
    let readable_end = read_limits.readable_end(limits.isolation);
    let diverging_epoch = match diverging_epoch(&partition, wanted) {
        Ok(diverging_epoch) => diverging_epoch,
        Err(error) => return refuse(error),
    };
    let read = match diverging_epoch {
        Some(_) => Ok(None),
        None => read_partition(cx, &partition, to_read, read_limits, limits.isolation).await,
    };
    let read = read.map(|read| match read {
        Some((slice, aborted)) => (Some(slice), aborted),
        None => (None, Vec::new()),
    });
    match read {
        Ok((slice, aborted)) => Fetched {
            answer: FetchedPartition {
                index: key.partition,
                error_code: 0,
                high_watermark: read_limits.high_watermark(),
                last_stable_offset: read_limits.last_stable_offset(),
                log_start_offset: partition.log().ends().log_start,
                aborted: (limits.isolation == Isolation::ReadCommitted
                    && diverging_epoch.is_none())
                .then(|| aborted.iter().map(as_told).collect()),
                diverging_epoch,
                current_leader: None,
                records_bytes: slice.as_ref().map_or(0, |slice| slice.bytes),
            },
            withheld: match &slice {
                None if diverging_epoch.is_none() && wanted.fetch_offset < readable_end => {
                    usize::try_from(wanted.bytes_max).unwrap_or(0)
                }
                _ => 0,
            },
            slice,
            partition: Some(partition),
        },
        Err(error) => refuse(error.wire()),
    }
}

fn as_told(aborted: &AbortedTransaction) -> (i64, i64) {
    (aborted.producer_id, aborted.first_offset)
}

/// As KafkaApis.maybeDownConvertStorageError: so that an old client asks again who leads.
fn for_version(version: i16, error: ResponseError) -> ResponseError {
    match error {
        ResponseError::KafkaStorageError if version < STORAGE_ERROR_FROM => {
            ResponseError::NotLeaderOrFollower
        }
        error => error,
    }
}

/// Largest epoch that the log shares with a client, and where it ends, where the client read what is not in this log
/// (KIP-320, 595; Kafka's Partition.readRecords).
fn diverging_epoch(
    partition: &Partition,
    wanted: &PartitionFetch,
) -> Result<Option<(i32, i64)>, ResponseError> {
    if wanted.last_fetched_epoch == -1 {
        return Ok(None);
    }
    let end = partition.epoch_end(wanted.last_fetched_epoch);
    let (epoch, end_offset) = end.ok_or(ResponseError::OffsetOutOfRange)?;
    if wanted.fetch_offset < partition.log().ends().log_start {
        return Err(ResponseError::OffsetOutOfRange);
    }
    let diverges = epoch < wanted.last_fetched_epoch || end_offset < wanted.fetch_offset;
    Ok(diverges.then_some((epoch, end_offset)))
}

/// Says of partitions that this broker does not lead, or in another epoch, who leads them, and where that is.
fn name_leaders(cx: &Context, caller: &Caller, response: &mut fetch_response::Fetched) {
    if caller.version < LEADERS_FROM {
        return;
    }
    let mut leaders = Vec::new();
    for topic in &mut response.topics {
        for partition in &mut topic.partitions {
            if ![
                ResponseError::NotLeaderOrFollower.code(),
                ResponseError::FencedLeaderEpoch.code(),
            ]
            .contains(&partition.error_code)
            {
                continue;
            }
            partition.current_leader = current_leader(cx, &topic.name, topic.id, partition.index);
            leaders.extend(partition.current_leader.map(|(id, _)| id));
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
    response.endpoints = endpoints.into_iter().map(endpoint).collect();
}

/// Whether an error says that there is no such partition for the client, rather than that its log gives nothing.
fn is_unread(error: ResponseError) -> bool {
    matches!(
        error,
        ResponseError::UnknownTopicOrPartition
            | ResponseError::UnknownTopicId
            | ResponseError::TopicAuthorizationFailed
    )
}

/// Reads on this thread what is in memory, and elsewhere what the disk must be waited for.
async fn read_partition(
    cx: &Context,
    partition: &Arc<Partition>,
    wanted: ReadWanted,
    limits: ReadLimits,
    isolation: Isolation,
) -> Result<Option<(Slice, Vec<AbortedTransaction>)>, ReadError> {
    match partition.read_below(&wanted, &limits, isolation, Reach::Cache) {
        Err(ReadError::Log(LogError::NotCached)) => {}
        read => return read,
    }
    let partition = partition.clone();
    let read = move || partition.read_below(&wanted, &limits, isolation, Reach::Disk);
    let panicked = || LogError::Offline("a read panicked; this is a bug".to_owned());
    let read = cx.partitions.workers().unblock(read).await;
    read.unwrap_or_else(|| Err(panicked().into()))
}

/// Groups what was fetched by topic; an incremental answer leaves out what did not change.
fn assemble(
    cx: &Context,
    kind: FetchKind,
    wanted: Vec<PartitionFetch>,
    fetched: Vec<Fetched>,
) -> Answered {
    let (session_id, incremental) = match kind {
        FetchKind::Full(id) => (id, false),
        FetchKind::Incremental(id) => (id, true),
    };
    let mut answered = Answered::default();
    answered.response.session_id = session_id;
    let topics = &mut answered.response.topics;
    let mut sent = Vec::new();
    let mut places: HashMap<(Arc<str>, Uuid), usize> = HashMap::new();
    for (wanted, Fetched { answer, slice, .. }) in wanted.into_iter().zip(fetched) {
        let ends = (answer.high_watermark, answer.log_start_offset);
        let records = slice.is_some();
        let says_nothing = !records && answer.error_code == 0 && answer.diverging_epoch.is_none();
        if incremental && says_nothing && wanted.last_sent == Some(ends) {
            continue;
        }
        let key = wanted.key;
        let place = places.entry((key.topic.clone(), key.topic_id));
        let at = *place.or_insert_with(|| {
            topics.push(FetchedTopic {
                name: key.topic.to_string(),
                id: key.topic_id,
                partitions: Vec::new(),
            });
            topics.len() - 1
        });
        if let Some(slice) = slice {
            answered
                .slices
                .insert((at, topics[at].partitions.len()), slice);
        }
        topics[at].partitions.push(answer);
        if session_id != 0 {
            // An error is sent again every time.
            sent.push(LastSent { key, ends, records });
        }
    }
    if session_id != 0 {
        cx.fetch_sessions.note_sent(session_id, &sent);
    }
    answered
}
