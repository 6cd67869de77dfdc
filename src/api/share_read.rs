//! What one partition gives to a member of a share group: records that are read from its log and become the member's.
//!
//! Tests: tests/shares.rs, tests/shares_cluster.rs.

use std::sync::Arc;

use metaq_protocol::ResponseError;

use super::Context;
use super::errors::WireError;
use super::own_task::in_own_task;
use super::share_acknowledgements::{Member, Refusal, refusal, refusal_of};
use super::share_lost_state::initialize_lost;
use super::share_settings::ShareSettings;
use super::share_states::ShareStates;
use super::shared::partition_of;
use crate::config::OffsetReset;
use crate::log::{Aborted, AbortedTransaction, LogError, Reach, ReadWanted, Slice, SliceBatch};
use crate::partition::{Isolation, OffsetSpec, Partition, ReadError};
use crate::share::{
    Acquire, AcquiredRecords, BatchSpan, Leading, LogBounds, Reading, ShareStateError, ShareStore,
    SharedPartition,
};

/// What a partition gives.
pub(super) struct Given {
    pub(super) acquired: Vec<AcquiredRecords>,
    /// The batches that the records are in.
    pub(super) slice: Slice,
    pub(super) from: Arc<Partition>,
}

/// What is still to be given.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShareRoom {
    pub(super) records: i64,
    pub(super) bytes: usize,
    /// One batch, however large it is.
    pub(super) first_batch_whole: bool,
    /// Never more records than these (KIP-1206).
    pub(super) is_strict: bool,
    /// See [`Acquire::batch_size`].
    pub(super) batch_size: i64,
}

/// A partition of which a member is to be given records.
pub(super) struct Shared {
    pub(super) partition: Arc<Partition>,
    pub(super) leading: Arc<Leading>,
}

/// What was read of a log for a share group.
struct Read {
    slice: Slice,
    batches: Vec<SliceBatch>,
    aborted: Vec<AbortedTransaction>,
}

/// Why a share partition is not opened.
enum OpenError {
    State(ShareStateError),
    Log(LogError),
}

impl From<ShareStateError> for OpenError {
    fn from(error: ShareStateError) -> Self {
        Self::State(error)
    }
}

/// A share partition that is open already; `None` where it has to be opened.
pub(super) fn opened(
    member: &Member<'_>,
    shared: SharedPartition,
) -> Option<Result<Shared, Refusal>> {
    if let Err(refused) = member.check(shared) {
        return Some(Err(refused));
    }
    let (topic_id, index) = shared;
    match partition_of(member.cx, "", topic_id, index) {
        Ok(partition) => {
            let opened = &member.cx.shares.partitions;
            let leading = opened.opened(&member.key(shared), reading_of(&partition))?;
            Some(Ok(Shared { partition, leading }))
        }
        Err(error) => Some(Err((error.wire(), error.to_string()))),
    }
}

fn reading_of(partition: &Partition) -> Reading {
    Reading {
        leader_epoch: partition.leader_epoch(),
        log_end: partition.log().ends().log_end.offset,
    }
}

/// Finds a share partition, and has what is stored of it read where it was not; `None` where that does not succeed now. That
/// goes on when nobody waits for it any more.
pub(super) async fn open(
    member: &Member<'_>,
    settings: &ShareSettings,
    shared: SharedPartition,
) -> Result<Option<Shared>, Refusal> {
    member.check(shared)?;
    let (topic_id, index) = shared;
    let partition = partition_of(member.cx, "", topic_id, index);
    let partition = partition.map_err(|error| (error.wire(), error.to_string()))?;
    let key = member.key(shared);
    let (cx, of_task, opened_key) = (member.cx.clone(), partition.clone(), key.clone());
    let (limits, reset) = (settings.limits, settings.reset);
    let opening = async move {
        let store: Arc<dyn ShareStore> = Arc::new(ShareStates(cx.clone()));
        let begin = || bounds(&cx, &of_task, reset);
        let (all, at) = (&cx.shares.partitions, (&opened_key, reading_of(&of_task)));
        let opened = all.open(at, &store, limits, begin).await;
        match opened {
            Err(OpenError::State(ShareStateError::InvalidRequest))
                if initialize_lost(&cx, &opened_key).await =>
            {
                all.open(at, &store, limits, begin).await
            }
            opened => opened,
        }
    };
    let opened = match member.cx.shares.partitions.begin_opening(&key) {
        // One task for each is enough; whoever comes meanwhile waits for it, or asks again.
        true => {
            let cx = member.cx.clone();
            in_own_task(async move {
                let opened = opening.await;
                cx.shares.partitions.opening_ended(&key);
                opened
            })
            .await
        }
        false => opening.await,
    };
    match opened {
        Ok(leading) => Ok(Some(Shared { partition, leading })),
        Err(OpenError::State(error)) if error.may_heal() => Ok(None),
        Err(OpenError::State(error)) => Err(refusal_of(error)),
        Err(OpenError::Log(error)) => Err((error.wire(), error.to_string())),
    }
}

/// What the log has, and where a group begins.
async fn bounds(
    cx: &Context,
    partition: &Arc<Partition>,
    reset: OffsetReset,
) -> Result<LogBounds, OpenError> {
    let ends = partition.log().ends();
    let latest = partition.readable_end(Isolation::ReadUncommitted);
    let begin = match reset {
        OffsetReset::Earliest => ends.log_start,
        OffsetReset::Latest => latest,
        OffsetReset::ByDuration(ms) => {
            let since = cx.partitions.clock().now_ms().saturating_sub(ms).max(0);
            let found = partition.clone();
            let look = move || {
                let spec = OffsetSpec::Timestamp(since);
                found.list_offset(spec, Isolation::ReadUncommitted)
            };
            let found = cx.partitions.workers().unblock(look).await;
            let found = found
                .unwrap_or_else(|| Err(panicked()))
                .map_err(OpenError::Log)?;
            match found.offset {
                -1 => latest,
                offset => offset,
            }
        }
    };
    Ok(LogBounds {
        start: ends.log_start,
        end: ends.log_end.offset,
        begin,
    })
}

impl Shared {
    /// How many bytes there are to give, without giving them.
    pub(super) async fn ahead(
        &self,
        cx: &Context,
        settings: &ShareSettings,
        room: &ShareRoom,
    ) -> Result<usize, Refusal> {
        let Some((from, _)) = self.next_offset(settings)? else {
            return Ok(0);
        };
        let read = self.read(cx, settings.isolation, from, from, room).await?;
        Ok(read.map_or(0, |read| read.slice.bytes))
    }

    fn next_offset(&self, settings: &ShareSettings) -> Result<Option<(i64, i64)>, Refusal> {
        let log_start = self.partition.log().ends().log_start;
        let next = self.leading.next_offset(settings.limits, log_start);
        next.map_err(refusal_of)
    }

    /// Gives records to a member.
    pub(super) async fn give(
        &self,
        cx: &Context,
        settings: &ShareSettings,
        member: &Arc<str>,
        room: &ShareRoom,
    ) -> Result<Option<Given>, Refusal> {
        let _turn = self.leading.turn().await;
        loop {
            // Of a log that is in memory nothing here waits for anything.
            tokio::task::coop::consume_budget().await;
            let Some((from, ahead)) = self.next_offset(settings)? else {
                return Ok(None);
            };
            // More than that is never given at once.
            let most = room.records.min(settings.limits.locks_max);
            let until = from.saturating_add(most).saturating_add(ahead);
            let read = self.read(cx, settings.isolation, from, until, room).await?;
            let Some(Read {
                slice,
                batches,
                aborted,
            }) = read
            else {
                return Ok(None);
            };
            let spans: Vec<BatchSpan> = batches.iter().map(span).collect();
            let aborted = Aborted::new(aborted);
            let aborted: Vec<BatchSpan> = batches
                .iter()
                .filter(|batch| !batch.header.is_control() && aborted.has(&batch.header))
                .map(span)
                .collect();
            let wanted = Acquire {
                member,
                records_max: room.records,
                is_strict: room.is_strict,
                batch_size: room.batch_size,
                from,
                batches: &spans,
                aborted: &aborted,
            };
            let acquired = self.leading.acquire(&settings.limits, &wanted);
            let acquired = acquired.map_err(refusal_of)?;
            if let (Some(first), Some(last)) = (acquired.first(), acquired.last()) {
                return Ok(Some(Given {
                    slice: cut(slice, &batches, first.first, last.last),
                    from: self.partition.clone(),
                    acquired,
                }));
            }
            // All of it was of aborted transactions.
            if aborted.is_empty() {
                return Ok(None);
            }
        }
    }

    async fn read(
        &self,
        cx: &Context,
        isolation: Isolation,
        from: i64,
        until: i64,
        room: &ShareRoom,
    ) -> Result<Option<Read>, Refusal> {
        let wanted = ReadWanted {
            offset: from,
            bytes_max: room.bytes,
            first_batch_whole: room.first_batch_whole,
        };
        let read = match read_at(&self.partition, &wanted, isolation, until, Reach::Cache) {
            Err(ReadError::Log(LogError::NotCached)) => {
                let partition = self.partition.clone();
                let look = move || read_at(&partition, &wanted, isolation, until, Reach::Disk);
                let read = cx.partitions.workers().unblock(look).await;
                read.unwrap_or_else(|| Err(panicked().into()))
            }
            read => read,
        };
        match read {
            // What was given out before was more than there is: it may come again.
            Err(error) if error.wire() == ResponseError::OffsetOutOfRange => Ok(None),
            Err(error) => Err((error.wire(), error.to_string())),
            Ok(read) => Ok(read.filter(|read| !read.batches.is_empty())),
        }
    }
}

fn panicked() -> LogError {
    LogError::Offline("a read panicked; this is a bug".to_owned())
}

fn read_at(
    partition: &Partition,
    wanted: &ReadWanted,
    isolation: Isolation,
    until: i64,
    reach: Reach,
) -> Result<Option<Read>, ReadError> {
    let limits = partition.read_limits();
    let Some((slice, aborted)) = partition.read_below(wanted, &limits, isolation, reach)? else {
        return Ok(None);
    };
    let batches = slice.batches(until, reach)?;
    Ok(Some(Read {
        slice,
        batches,
        aborted,
    }))
}

fn span(batch: &SliceBatch) -> BatchSpan {
    BatchSpan {
        first: batch.header.base_offset,
        last: batch.header.last_offset(),
    }
}

/// The batches that hold these offsets (ShareFetchUtils.maybeSliceFetchRecords).
fn cut(slice: Slice, batches: &[SliceBatch], first: i64, last: i64) -> Slice {
    let holds = |batch: &&SliceBatch| {
        batch.header.last_offset() >= first && batch.header.base_offset <= last
    };
    let mut held = batches.iter().filter(holds);
    let Some(begin) = held.next() else {
        return slice;
    };
    let end = held.next_back().unwrap_or(begin);
    let end = end.position + end.header.total_bytes() as u64;
    Slice {
        position: begin.position,
        bytes: (end - begin.position) as usize,
        ..slice
    }
}

/// Why a request is refused whose share session is not what it says.
pub(super) fn session_refusal(error: crate::share::ShareSessionError) -> Refusal {
    match error.wire() {
        ResponseError::InvalidRequest => (ResponseError::InvalidRequest, error.to_string()),
        error => refusal(error),
    }
}
