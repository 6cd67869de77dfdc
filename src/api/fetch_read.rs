//! What one partition gives to a fetch: whether who asks may have it, what it may see, and what is known of it afterwards.
//!
//! Tests: tests/fetch.rs, tests/committed.rs.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::fetch_response::FetchedPartition;

use super::authorize::{Operation, Resource, authorize};
use super::errors::WireError;
use super::fetch_line::PartitionFetch;
use super::fetch_sessions::FollowerId;
use super::fetch_throttle::holds_back;
use super::shared::{BY_ID_VERSION_MIN, LookupError, found_name, partition_of, replica_of};
use super::{Caller, Context};
use crate::log::{AbortedTransaction, LogError, Reach, ReadWanted, Slice};
use crate::partition::{
    FollowerFetch, FollowerNoted, FollowerState, Isolation, Partition, ReadError, ReadLimits,
    SessionClock,
};

/// From this version on a client may read from followers (KIP-392).
const ANY_REPLICA_FROM: i16 = 11;
/// Before this version clients did not know KAFKA_STORAGE_ERROR.
const STORAGE_ERROR_FROM: i16 = 6;
/// What one partition gives.
pub(super) struct Fetched {
    pub(super) partition: Option<Arc<Partition>>,
    pub(super) answer: FetchedPartition,
    pub(super) slice: Option<Slice>,
    /// Bytes that it may give and does not, because its next batch is larger: they count as given where a fetch waits for
    /// enough (Kafka's DelayedFetch.tryComplete).
    pub(super) withheld: usize,
    /// Where the log ended, as far as who asks may see it.
    seen_end: i64,
    /// Whether who asks is a follower in sync.
    is_in_sync: bool,
}

/// A broker that fetches as a follower.
pub(super) struct Follower {
    pub(super) id: FollowerId,
    /// Of its session, where it has one.
    pub(super) clock: Option<Arc<SessionClock>>,
}

/// What all partitions of a request have in common.
pub(super) struct FetchLimits<'a> {
    pub(super) caller: &'a Caller,
    /// `None` for a consumer.
    pub(super) follower: Option<Follower>,
    /// Says that it is a follower and has no right to be one.
    pub(super) is_denied: bool,
    pub(super) bytes_max: usize,
    pub(super) bytes_min: usize,
    pub(super) isolation: Isolation,
    /// Where a consumer is, where it is to read from a replica that is near.
    pub(super) rack: Option<&'a str>,
}

impl Fetched {
    /// Whether its partition can give more by now, or is not the one to ask any more.
    pub(super) fn has_moved(&self, is_follower: bool) -> bool {
        let answered = (self.answer.high_watermark, self.answer.last_stable_offset);
        self.partition.as_ref().is_some_and(|partition| {
            let limits = partition.read_limits();
            let now = (limits.high_watermark(), limits.last_stable_offset());
            let has_moved = match is_follower {
                true => partition.log().ends().log_end.offset != self.seen_end,
                false => now != answered,
            };
            partition.is_deleted() || has_moved
        })
    }

    /// Whether there is nothing to tell but where the partition ends.
    pub(super) fn says_nothing(&self) -> bool {
        self.slice.is_none() && !self.is_answered_at_once()
    }

    /// Whether it is told without waiting for more.
    pub(super) fn is_answered_at_once(&self) -> bool {
        self.answer.error_code != 0
            || self.answer.diverging_epoch.is_some()
            || self.answer.preferred_read_replica.is_some()
    }

    /// Whether a follower that is answered this need not look before the partition moves: it has it all, and is in sync.
    pub(super) fn rests(&self) -> bool {
        self.says_nothing() && self.withheld == 0 && self.is_in_sync
    }
}

/// Reads one partition, of a fetch that has so many bytes already.
pub(super) async fn read_one(
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
        seen_end: -1,
        is_in_sync: false,
    };
    if key.topic_id.is_nil() && limits.caller.version >= BY_ID_VERSION_MIN {
        return refuse(ResponseError::UnknownTopicId);
    }
    if limits.is_denied {
        return refuse(ResponseError::TopicAuthorizationFailed);
    }
    let found = find(cx, wanted, limits);
    let named = found_name(cx, &found, &key.topic, key.topic_id);
    // Before what is wrong with the partition: that says what is there.
    let allowed = match (&limits.follower, &named) {
        (None, Some(topic)) => {
            authorize(cx, limits.caller, Operation::Read, Resource::Topic(topic))
        }
        _ => Ok(()),
    };
    if let Err(denied) = allowed {
        return refuse(denied.wire());
    }
    let partition = match found {
        Ok(partition) => partition,
        Err(error) => return refuse(error.wire()),
    };
    if let Err(error) = partition.check_epoch(wanted.current_leader_epoch) {
        return refuse(error.wire());
    }
    if let Some(follower) = &limits.follower
        && !partition.has_follower(follower.id.0)
    {
        return refuse(match wanted.current_leader_epoch {
            -1 => ResponseError::NotLeaderOrFollower,
            _ => ResponseError::UnknownLeaderEpoch,
        });
    }
    if limits.follower.is_none() && !partition.is_leader() && lags(&partition, wanted) {
        // It may be there at the leader (KIP-392).
        return refuse(ResponseError::OffsetNotAvailable);
    }
    let left = limits.bytes_max.saturating_sub(bytes);
    let to_read = ReadWanted {
        offset: wanted.fetch_offset,
        bytes_max: left.min(usize::try_from(wanted.bytes_max).unwrap_or(0)),
        first_batch_whole: bytes == 0,
    };
    // Before the read: what comes in between is seen as a move.
    let read_limits = partition.read_limits();
    let log_end = partition.log().ends().log_end;
    let readable_end = match &limits.follower {
        Some(_) => log_end.offset,
        None => read_limits.readable_end(limits.isolation),
    };
    let diverging_epoch = match diverging_epoch(&partition, wanted) {
        Ok(diverging_epoch) => diverging_epoch,
        Err(error) => return refuse(error),
    };
    let is_held_back = (limits.follower.as_ref())
        .is_some_and(|follower| holds_back(cx, &partition, follower.id.0));
    let near = limits
        .rack
        .and_then(|rack| near_replica(cx, &partition, rack, wanted.fetch_offset));
    let read = match diverging_epoch {
        Some(_) => Ok(None),
        // It reads there.
        None if near.is_some() => Ok(None),
        // It gets nothing now, and hears as others do that there is no such offset.
        None if is_held_back => partition
            .log()
            .check_range(wanted.fetch_offset)
            .map(|()| None)
            .map_err(ReadError::Log),
        None => {
            let within = match &limits.follower {
                Some(_) => ReadLimits::all_before(log_end),
                None => read_limits,
            };
            read_partition(cx, &partition, to_read, within, limits.isolation).await
        }
    };
    let mut is_in_sync = false;
    if let Some(follower) = &limits.follower
        && read.is_ok()
        && diverging_epoch.is_none()
    {
        match note_follower(&partition, wanted, follower) {
            FollowerNoted::Refused => return refuse(ResponseError::NotLeaderOrFollower),
            noted => is_in_sync = noted == FollowerNoted::InSync,
        }
    }
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
                preferred_read_replica: near,
                records_bytes: slice.as_ref().map_or(0, |slice| slice.bytes),
            },
            withheld: match &slice {
                None if diverging_epoch.is_none()
                    && near.is_none()
                    && !is_held_back
                    && wanted.fetch_offset < readable_end =>
                {
                    usize::try_from(wanted.bytes_max).unwrap_or(0)
                }
                _ => 0,
            },
            slice,
            partition: Some(partition),
            seen_end: log_end.offset,
            is_in_sync,
        },
        Err(error) => refuse(error.wire()),
    }
}

/// The partition that is read: a follower, and a client that knows nothing of others, read from the leader (KIP-392).
pub(super) fn find(
    cx: &Context,
    wanted: &PartitionFetch,
    limits: &FetchLimits<'_>,
) -> Result<Arc<Partition>, LookupError> {
    let key = &wanted.key;
    let any_replica = limits.follower.is_none() && limits.caller.version >= ANY_REPLICA_FROM;
    match any_replica {
        true => replica_of(cx, &key.topic, key.topic_id, key.partition),
        false => partition_of(cx, &key.topic, key.topic_id, key.partition),
    }
}

/// Whether a follower does not have what lies before the offset that a consumer asks for.
fn lags(partition: &Partition, wanted: &PartitionFetch) -> bool {
    wanted.fetch_offset > partition.log().ends().log_end.offset
}

/// A replica in the rack of a consumer that has what it asks for, where the leader is in another one: the one that is furthest
/// (Kafka's RackAwareReplicaSelector).
fn near_replica(cx: &Context, partition: &Partition, rack: &str, offset: i64) -> Option<i32> {
    if !partition.is_leader() || partition.replicas() == 1 {
        return None;
    }
    let image = cx.cluster.image();
    let is_near = |id: &i32| {
        let broker = image.brokers.get(id);
        broker.is_some_and(|broker| broker.rack.as_deref() == Some(rack))
    };
    if is_near(&cx.cluster.broker_id()) {
        return None;
    }
    let has = |follower: &FollowerState| {
        let starts_before = (0..=offset).contains(&follower.log_start);
        follower.is_in_sync && starts_before && follower.log_end >= offset
    };
    let all = partition.followers().into_iter();
    let near = all.filter(|follower| is_near(&follower.replica) && has(follower));
    let furthest = near.max_by_key(|follower| follower.log_end);
    furthest.map(|follower| follower.replica)
}

/// Notes that a follower has what lies before what it asks for.
fn note_follower(
    partition: &Partition,
    wanted: &PartitionFetch,
    follower: &Follower,
) -> FollowerNoted {
    let (replica, broker_epoch) = follower.id;
    let fetch = FollowerFetch {
        replica,
        broker_epoch,
        leader_epoch: wanted.current_leader_epoch,
        offset: wanted.fetch_offset,
        log_start: wanted.log_start,
    };
    partition.follower_fetched(&fetch, follower.clock.as_ref())
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
