//! ShareFetch (key 78, v1–v2; KIP-932, 1206, 1222): records for a member of a share group, and what it did with earlier ones.
//!
//! - In the member's share session: epoch 0 begins one and acknowledges nothing, epoch -1 ends it, and what the member still
//!   has is others' again.
//! - What it acknowledges counts before records are given out, and is answered when that is durable.
//! - Waits until `min_bytes` can be given or `max_wait_ms` is over; at once where every partition is refused.
//! - Records become the member's for share.record.lock.duration.ms; whole batches of the log, unless v2's record limit is
//!   strict.
//! - A request that renews locks (v2) gives no records, and must not ask for any.
//! - A share partition whose coordinator cannot be reached gives nothing until it can.
//!
//! Tests: tests/shares.rs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use metaq_protocol::ResponseError;
use metaq_protocol::fetch_response::FetchPiece;
use metaq_protocol::frame;
use metaq_protocol::messages::share_fetch_response::{
    AcquiredRecords, LeaderIdAndEpoch, NodeEndpoint, PartitionData, ShareFetchableTopicResponse,
};
use metaq_protocol::messages::{ApiKey, ShareFetchRequest, ShareFetchResponse};
use metaq_protocol::share_fetch_response;
use tokio::time::Instant;
use uuid::Uuid;

use super::authorize::{Operation, ResourceKind};
use super::reply::throttle_ms;
use super::share_acknowledgements::{Member, Outcomes, Refusal, SaidOf, check_named, release};
use super::share_read::{Given, session_refusal};
use super::share_settings::ShareSettings;
use super::share_wait::{Drawing, Drawn, ShareWanted};
use super::shared::{current_leader, endpoints_of, text};
use super::{Answer, Api, Body, Caller, Context, Order, Piece, Response, Stage, charge};
use crate::log::Slice;
use crate::quota::QuotaKind;
use crate::session::SessionEnd;
use crate::share::{
    Acknowledgement, FINAL_EPOCH, ShareFetchSession, ShareFetching, ShareSessionError,
    SharedPartition,
};

/// A client that asks to wait longer is answered after this.
const WAIT_MS_MAX: u64 = 5 * 60 * 1000;
/// From this version on a request may renew locks, or have a strict limit of records.
const RENEW_FROM: i16 = 2;
/// ShareAcquireMode.RECORD_LIMIT.
const RECORD_LIMIT: i8 = 1;

pub(super) const API: Api = Api {
    key: ApiKey::ShareFetch,
    order: Order::OnlyWaits,
    needs: &[
        (Operation::Read, ResourceKind::Group),
        (Operation::Read, ResourceKind::Topic),
    ],
    start: |cx, caller, request, mut stage| -> Answer {
        Box::pin(async move {
            let fetch: ShareFetchRequest = frame::decode(&request)?;
            drop(request.body);
            let answered = answer(&cx, &caller, &fetch, &mut stage).await;
            drop(stage);
            let Answered {
                mut response,
                mut slices,
            } = answered;
            let throttle = charge_given(&cx, &caller, &slices);
            response.throttle_time_ms = throttle_ms(throttle);
            let bytes = |topic, partition| {
                let slice = slices.get(&(topic, partition));
                slice.map_or(0, |slice: &Slice| slice.bytes)
            };
            let (version, id) = (caller.version, caller.correlation_id);
            let frame = share_fetch_response::encode(version, id, &response, bytes)?;
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

/// How long a client waits for what it is given. It is given it in any case: others cannot have it any more.
fn charge_given(
    cx: &Context,
    caller: &Caller,
    slices: &HashMap<(usize, usize), Slice>,
) -> Duration {
    if !cx.quotas.has_any() {
        return Duration::ZERO;
    }
    let kind = QuotaKind::Fetch;
    let bytes = slices.values().map(|slice| slice.bytes).sum();
    let of_bytes = charge::charge(cx, caller, kind, bytes);
    let of_time = charge::charge_time(cx, caller);
    charge::settle(cx, caller, (kind, of_bytes), of_time)
}

#[derive(Default)]
struct Answered {
    response: ShareFetchResponse,
    /// By position in the topics and their partitions.
    slices: HashMap<(usize, usize), Slice>,
}

async fn answer(
    cx: &Arc<Context>,
    caller: &Caller,
    request: &ShareFetchRequest,
    stage: &mut Stage,
) -> Answered {
    let answered = fetch(cx, caller, request, stage).await;
    answered.unwrap_or_else(|(error, why)| {
        let group_id = request.group_id.as_deref().map_or("", |id| id);
        cx.note(caller, group_id, error.code(), &why);
        // Kafka gives the code alone.
        let response = ShareFetchResponse::default().with_error_code(error.code());
        Answered {
            response,
            ..Answered::default()
        }
    })
}

async fn fetch(
    cx: &Arc<Context>,
    caller: &Caller,
    request: &ShareFetchRequest,
    stage: &mut Stage,
) -> Result<Answered, Refusal> {
    let group_id = request.group_id.as_ref().map(|id| &***id);
    let member = Member::of(cx, caller, group_id, request.member_id.as_deref())?;
    let named = request.topics.iter().map(|topic| topic.partitions.len());
    check_named(named.sum())?;
    let renews = caller.version >= RENEW_FROM && request.is_renew_ack;
    if renews {
        check_renewal(request)?;
    }
    let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or(0);
    let wait = Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
    let fetching = match begin(&member, request) {
        Ok(fetching) => fetching,
        Err(error) => {
            if error == ShareSessionError::LimitReached {
                // Or the client would ask without a pause.
                tokio::time::sleep(wait).await;
            }
            return Err(session_refusal(error));
        }
    };
    let settings = ShareSettings::of(cx, member.group_id);
    let said = said_of(request);
    let acknowledged = async {
        match said.iter().any(|of| !of.said.is_empty()) {
            true => member.acknowledge(&settings, &said, renews).await,
            false => Vec::new(),
        }
    };
    let wanted = ShareWanted {
        partitions: match fetching {
            ShareFetching::Begins { partitions, .. } | ShareFetching::Partitions(partitions)
                if !renews =>
            {
                partitions
            }
            _ => Vec::new(),
        },
        records_max: i64::from(request.max_records),
        is_strict: caller.version >= RENEW_FROM && request.share_acquire_mode == RECORD_LIMIT,
        batch_size: i64::from(request.batch_size),
        bytes_max: usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(cx.config.fetch_bytes_max()),
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
        deadline: Instant::now() + wait,
    };
    // What it is done with counts before it is given more.
    let drawn = Drawing::new(&member, &settings, wanted).wait(stage);
    let (outcomes, drawn) = future::join(acknowledged, drawn).await;
    if request.share_session_epoch == FINAL_EPOCH {
        member.leave();
    }
    let mut answered = assemble(cx, caller, drawn, outcomes);
    answered.response.acquisition_lock_timeout_ms = settings.lock_timeout_ms();
    Ok(answered)
}

fn check_renewal(request: &ShareFetchRequest) -> Result<(), Refusal> {
    let limits = [
        ("maxBytes", request.max_bytes),
        ("minBytes", request.min_bytes),
        ("maxRecords", request.max_records),
        ("maxWaitMs", request.max_wait_ms),
    ];
    let wrong = limits.iter().filter(|(_, value)| *value != 0);
    let wrong: String = wrong
        .map(|(name, _)| format!("{name} must be set to 0, "))
        .collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err((
            ResponseError::InvalidRequest,
            format!("{wrong}if isRenewAck is true."),
        )),
    }
}

/// Begins, goes on with, or ends the member's session.
fn begin(
    member: &Member<'_>,
    request: &ShareFetchRequest,
) -> Result<ShareFetching, ShareSessionError> {
    let topics = request.topics.iter();
    let named: Vec<SharedPartition> = topics
        .flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|partition| (topic.topic_id, partition.partition_index))
        })
        .collect();
    let forgotten = request.forgotten_topics_data.iter();
    let forgotten: Vec<SharedPartition> = forgotten
        .flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|index| (topic.topic_id, *index))
        })
        .collect();
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    let acknowledges = partitions
        .into_iter()
        .any(|partition| !partition.acknowledgement_batches.is_empty());
    let cx = member.cx;
    let session = ShareFetchSession {
        epoch: request.share_session_epoch,
        connection: member.caller.session.id(),
        named: &named,
        forgotten: &forgotten,
        acknowledges,
        sessions_max: cx.config.number("group.share.max.share.sessions") as usize,
    };
    let (group_id, member_id) = (member.group_id, member.member_id);
    let fetching = cx.shares.sessions.fetch(group_id, member_id, &session)?;
    if let ShareFetching::Begins { is_first: true, .. } = &fetching {
        // An operator may have set offsets while the group had no members.
        cx.shares.partitions.forget_group(group_id);
    }
    if let Some(end) = member.caller.session.watch_end() {
        tokio::spawn(end_with_connection(cx.clone(), end));
    }
    Ok(fetching)
}

/// What the members of a connection have is others' again when it ends.
async fn end_with_connection(cx: Arc<Context>, end: SessionEnd) {
    let connection = end.id();
    end.wait().await;
    for (group_id, member, partitions) in cx.shares.sessions.disconnected(connection) {
        release(&cx, &group_id, &member, &partitions);
    }
}

fn said_of(request: &ShareFetchRequest) -> Vec<SaidOf> {
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

/// Groups what is given and what was acknowledged by topic.
fn assemble(cx: &Context, caller: &Caller, drawn: Vec<Drawn>, outcomes: Outcomes) -> Answered {
    let mut parts: Vec<(SharedPartition, PartitionData, Option<Slice>)> = Vec::new();
    let mut at_of: HashMap<SharedPartition, usize> = HashMap::new();
    let mut leaders = Vec::new();
    for Drawn { partition, outcome } in drawn {
        let (data, slice) = match outcome {
            Ok(None) => continue,
            Ok(Some(given)) => given_data(partition.1, given),
            Err(refused) => (refused_data(cx, partition, refused, &mut leaders), None),
        };
        at_of.entry(partition).or_insert(parts.len());
        parts.push((partition, data, slice));
    }
    for (partition, outcome) in outcomes {
        let at = *at_of.entry(partition).or_insert_with(|| {
            let data = PartitionData::default().with_partition_index(partition.1);
            parts.push((partition, data, None));
            parts.len() - 1
        });
        if let Err((error, why)) = outcome {
            parts[at].1.acknowledge_error_code = error.code();
            parts[at].1.acknowledge_error_message = Some(text(why));
        }
    }
    let mut answered = Answered::default();
    let topics = &mut answered.response.responses;
    let mut places: HashMap<Uuid, usize> = HashMap::new();
    for ((topic_id, _), data, slice) in parts {
        let at = *places.entry(topic_id).or_insert_with(|| {
            topics.push(ShareFetchableTopicResponse::default().with_topic_id(topic_id));
            topics.len() - 1
        });
        if let Some(slice) = slice {
            answered
                .slices
                .insert((at, topics[at].partitions.len()), slice);
        }
        topics[at].partitions.push(data);
    }
    let endpoints = endpoints_of(cx, caller, leaders).into_iter();
    let endpoints = endpoints.map(|(id, host, port, rack)| {
        NodeEndpoint::default()
            .with_node_id(id)
            .with_host(host)
            .with_port(port)
            .with_rack(rack)
    });
    answered.response.node_endpoints = endpoints.collect();
    answered
}

fn given_data(index: i32, given: Given) -> (PartitionData, Option<Slice>) {
    given.from.traffic().sent(given.slice.bytes);
    let acquired = given.acquired.iter().map(|part| {
        AcquiredRecords::default()
            .with_first_offset(part.first)
            .with_last_offset(part.last)
            .with_delivery_count(part.delivery_count)
    });
    let data = PartitionData::default()
        .with_partition_index(index)
        .with_acquired_records(acquired.collect());
    (data, Some(given.slice))
}

fn refused_data(
    cx: &Context,
    (topic_id, index): SharedPartition,
    (error, why): Refusal,
    leaders: &mut Vec<i32>,
) -> PartitionData {
    let mut data = PartitionData::default()
        .with_partition_index(index)
        .with_error_code(error.code())
        .with_error_message(Some(text(why)));
    let moved = [
        ResponseError::NotLeaderOrFollower,
        ResponseError::FencedLeaderEpoch,
    ];
    if moved.contains(&error)
        && let Some((id, epoch)) = current_leader(cx, "", topic_id, index)
    {
        leaders.push(id);
        data.current_leader = LeaderIdAndEpoch::default()
            .with_leader_id(id)
            .with_leader_epoch(epoch);
    }
    data
}
