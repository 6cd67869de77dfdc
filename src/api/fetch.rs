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
//! - A follower (a broker that says its id) sees all that is written, and by what it asks for the leader knows how far it is. It
//!   is asked to be a replica of the partition, in its present registration (KIP-903).
//! - Where a client's quotas allow no more the answer is empty, and says for how long (KIP-219); the limit of bytes is lowered to
//!   what they allow still.
//! - Clients of v11 and later may read from followers too (KIP-392), up to the high watermark that those know.
//!
//! Tests: tests/fetch.rs, tests/broker.rs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::fetch_response::{self, FetchPiece, FetchedTopic};
use metaq_protocol::frame;
use metaq_protocol::messages::fetch_response::NodeEndpoint;
use metaq_protocol::messages::{ApiKey, FetchRequest};
use tokio::time::Instant;
use uuid::Uuid;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::context::REFUSALS_NOTED_MAX;
use super::fetch_line::{PartitionFetch, PartitionKey};
use super::fetch_read::{FetchLimits, Fetched, Follower};
use super::fetch_sessions::{
    FetchKind, FollowerId, LastSent, SessionError, SessionRequest, SessionWatch,
};
use super::fetch_throttle;
use super::fetch_wait::Reading;
use super::reply::throttle_ms;
use super::shared::{current_leader, endpoints_of, name_of};
use super::{Answer, Api, Body, Caller, Context, Order, Piece, Response, Stage, charge};
use crate::log::Slice;
use crate::partition::Isolation;

/// From this version on clients name topics by id.
const TOPIC_IDS_FROM: i16 = 13;
/// From this version on an answer has an error code of its own.
const ERROR_CODE_FROM: i16 = 7;
/// From this version on an answer says who leads a partition that is another broker's (KIP-951).
const LEADERS_FROM: i16 = 16;
/// The class of replica.selector.class by which consumers are sent to replicas near them.
const RACK_AWARE: &str = "RackAwareReplicaSelector";
/// Partitions that one request may name or forget.
const PARTITIONS_MAX: usize = 100_000;
/// A client that asks to wait longer is answered after this (Kafka's clients ask for 500).
const WAIT_MS_MAX: u64 = 5 * 60 * 1000;

pub(super) const API: Api = Api {
    key: ApiKey::Fetch,
    order: Order::OnlyWaits,
    needs: &[
        (Operation::Read, ResourceKind::Topic),
        (Operation::ClusterAction, ResourceKind::Cluster),
    ],
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

/// Gives nothing: a session goes on, and one that is to begin does so with the next request (Kafka's
/// FetchContext.getThrottledResponse).
fn withhold(cx: &Context, kind: FetchKind, throttle: Duration) -> Answered {
    let mut answered = Answered {
        throttle,
        ..Answered::default()
    };
    match kind {
        FetchKind::Incremental(id) => answered.response.session_id = id,
        FetchKind::Full(0) => {}
        FetchKind::Full(id) => cx.fetch_sessions.end(id),
    }
    answered
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
    let follower = follower_of(&request);
    let bytes_max = match follower {
        None => bytes_max.min(charge::fetch_bytes_max(cx, caller)),
        Some(_) => bytes_max,
    };
    // One that may not be a follower is none, and gets nothing.
    let is_denied = follower.is_some()
        && authorize(cx, caller, Operation::ClusterAction, Resource::Cluster).is_err();
    let follower = follower.filter(|_| !is_denied);
    if let Some(id) = follower
        && let Err(error) = check_follower(cx, id)
    {
        return Answered::with_error(error);
    }
    let begun = cx.fetch_sessions.begin(SessionRequest {
        id: request.session_id,
        epoch: request.session_epoch,
        by_id,
        named: wanted(&request),
        forgotten: &forgotten,
        follower,
    });
    let begun = match begun {
        Ok(begun) => begun,
        Err(error) => return Answered::with_error(session_error(error)),
    };
    let rack = request.rack_id.clone();
    let clock = begun.watch.as_ref().map(|watch| watch.clock().clone());
    let limits = FetchLimits {
        caller,
        rack: (follower.is_none() && selects_by_rack(cx, &rack)).then_some(&*rack),
        follower: follower.map(|id| Follower { id, clock }),
        is_denied,
        bytes_max,
        // More than the answer may hold never comes (Kafka's KafkaApis.handleFetchRequest).
        bytes_min: usize::try_from(request.min_bytes)
            .unwrap_or(0)
            .min(bytes_max),
        isolation: match request.isolation_level {
            1 if follower.is_none() => Isolation::ReadCommitted,
            _ => Isolation::ReadUncommitted,
        },
    };
    let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or(0);
    let deadline = Instant::now() + Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
    drop(request);
    let mut reading = Reading::new(cx, &limits, begun.wanted, begun.watch);
    reading.wait(deadline, stage).await;
    if !cx.cluster.may_act() {
        // What was read before this process was stopped is not given by a broker that leads no more.
        reading.read_all().await;
    }
    let (wanted, fetched, watch) = reading.end();
    let throttle = match follower.is_none() && cx.quotas.has_any() {
        true => {
            let slices = fetched.iter().flat_map(|fetched| &fetched.slice);
            let bytes = slices.map(|slice| slice.bytes).sum();
            let given = charge::charge_fetched(cx, caller, bytes);
            if !given.is_given {
                return withhold(cx, begun.kind, given.throttle);
            }
            given.throttle
        }
        // Brokers are not throttled.
        false => Duration::ZERO,
    };
    note_fetched(cx, caller, &wanted, &fetched, follower.is_some());
    Answered {
        throttle,
        ..assemble(cx, begun.kind, wanted, fetched, watch)
    }
}

/// Notes what is sent, and what is refused. What followers take is no consumer's traffic.
fn note_fetched(
    cx: &Context,
    caller: &Caller,
    wanted: &[PartitionFetch],
    fetched: &[Fetched],
    is_follower: bool,
) {
    let mut noted = 0;
    for (wanted, fetched) in wanted.iter().zip(fetched) {
        match (&fetched.partition, &fetched.slice) {
            // What followers take is no consumer's traffic.
            (Some(partition), Some(slice)) if is_follower => {
                fetch_throttle::note_sent(cx, partition, slice.bytes);
            }
            (Some(partition), Some(slice)) => partition.traffic().sent(slice.bytes),
            (None, _) if noted < REFUSALS_NOTED_MAX => {
                noted += 1;
                note_refusal(cx, caller, wanted, fetched.answer.error_code);
            }
            _ => {}
        }
    }
}

/// Whether a consumer in a rack is sent to a replica near it.
fn selects_by_rack(cx: &Context, rack: &str) -> bool {
    let selector = || cx.config.text("replica.selector.class");
    !rack.is_empty() && selector().ends_with(RACK_AWARE)
}

/// The broker that fetches as a follower.
fn follower_of(request: &FetchRequest) -> Option<FollowerId> {
    let state = &request.replica_state;
    let (id, epoch) = match request.replica_id.0 >= 0 {
        // Before v15.
        true => (request.replica_id.0, -1),
        false => (state.replica_id.0, state.replica_epoch),
    };
    (id >= 0).then_some((id, epoch))
}

/// Whether a broker may fetch as a follower. One of an earlier life of the broker may not (KIP-903).
fn check_follower(cx: &Context, (replica, epoch): FollowerId) -> Result<(), ResponseError> {
    let image = cx.cluster.image();
    let known = image.brokers.get(&replica);
    match known.is_some_and(|known| epoch == -1 || known.epoch <= epoch) {
        true => Ok(()),
        false => Err(ResponseError::NotLeaderOrFollower),
    }
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
            log_start: partition.log_start_offset,
            last_fetched_epoch: partition.last_fetched_epoch.max(-1),
            bytes_max: partition.partition_max_bytes,
            last_sent: None,
            slot: 0,
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

/// Groups what was fetched by topic; an incremental answer leaves out what did not change.
fn assemble(
    cx: &Context,
    kind: FetchKind,
    wanted: Vec<PartitionFetch>,
    fetched: Vec<Fetched>,
    mut watch: Option<SessionWatch>,
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
    for (wanted, fetched) in wanted.into_iter().zip(fetched) {
        if let Some(watch) = &mut watch
            && fetched.rests()
        {
            watch.is_read(wanted.slot);
        }
        let says_nothing = fetched.says_nothing();
        let Fetched { answer, slice, .. } = fetched;
        let ends = (answer.high_watermark, answer.log_start_offset);
        let records = slice.is_some();
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
