//! One partition led by this broker.
//!
//! Concurrency: whoever writes in its data directory appends, one at a time; sync threads move the synced end; everybody
//! else reads. The high watermark is what readers may see: the log's end, or the synced end where the topic
//! acknowledges only synced records.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::journaling::PART_BYTES_MAX;
use super::sync_turn::SyncTurn;
use super::waiters::Waiters;
use super::writer::Writer;
use crate::log::journal::WrittenBatch;
use crate::log::{
    Appended, FoundTimestamp, Log, LogError, OffsetPosition, ProducedBatch, Reach, ReadWanted,
    Slice,
};

/// A partition's name in MetaQ's model: the broker it was dealt to, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The home broker.
    pub broker_id: i32,
    /// Number among the topic's partitions of that broker.
    pub number: i32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.broker_id, self.number)
    }
}

/// What a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The log's start.
    Earliest,
    /// The end that the isolation level allows.
    Latest,
    /// The first local offset; without tiers, the log's start.
    EarliestLocal,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first record at or behind a timestamp in ms.
    Timestamp(i64),
}

/// An offset that was asked for; -1 in the parts that do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset.
    pub offset: i64,
    /// Its record's timestamp, ms.
    pub timestamp: i64,
    /// Its leader epoch.
    pub leader_epoch: i32,
}

/// Bytes of records that came to a partition and went since the broker's start.
#[derive(Debug, Default)]
pub struct Traffic {
    appended_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Traffic {
    /// Appended by producers. Whoever writes counts them, one at a time.
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Ordering::Relaxed)
    }

    /// Sent to consumers.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Counts on from where another one is.
    pub(super) fn go_on_from(&self, other: &Self) {
        let (appended, sent) = (other.appended_bytes(), other.sent_bytes());
        self.appended_bytes.store(appended, Ordering::Relaxed);
        self.sent_bytes.store(sent, Ordering::Relaxed);
    }

    fn appended(&self, bytes: u64) {
        let before = self.appended_bytes.load(Ordering::Relaxed);
        self.appended_bytes.store(before + bytes, Ordering::Relaxed);
    }

    /// A consumer is sent so many.
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Why a read is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The reader knows an older leader epoch.
    #[error("leader epoch {asked} is older than {current}")]
    FencedEpoch {
        /// The reader's.
        asked: i32,
        /// The partition's.
        current: i32,
    },
    /// The reader knows a newer leader epoch than this broker.
    #[error("leader epoch {asked} is newer than {current}")]
    UnknownEpoch {
        /// The reader's.
        asked: i32,
        /// The partition's.
        current: i32,
    },
    /// The log refuses.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// See the module's documentation.
pub struct Partition {
    topic: Arc<str>,
    topic_id: Uuid,
    index: i32,
    identity: Identity,
    log: Log,
    leader_epoch: AtomicI32,
    high_watermark: RwLock<OffsetPosition>,
    pub(super) waiters: Waiters,
    /// Requests whose acknowledgement waits for a sync, with the last offset that it must cover.
    sync_waiters: Mutex<Vec<(Appended, AppendReply)>>,
    durable: Mutex<Durable>,
    pub(super) sync_turn: SyncTurn,
    deleted: AtomicBool,
    traffic: Traffic,
    writer: Writer,
}

/// What of the log survives a power failure: what its files were synced to, and behind it what the journal of the data
/// directory holds.
struct Durable {
    /// Behind what is synced in the log's files.
    synced: OffsetPosition,
    /// The first offset that the journal holds, or will hold; `i64::MAX` where it holds nothing.
    from: i64,
    /// Behind what was given to the journal.
    queued: i64,
    /// Behind what is synced in the journal.
    journaled: OffsetPosition,
}

impl Durable {
    fn of(log: &Log) -> Self {
        let ends = log.ends();
        let synced = OffsetPosition {
            offset: ends.synced_end,
            ..ends.log_end
        };
        Self {
            synced,
            from: i64::MAX,
            queued: i64::MAX,
            journaled: synced,
        }
    }

    fn end(&self) -> OffsetPosition {
        match self.synced.offset >= self.from && self.journaled.offset > self.synced.offset {
            true => self.journaled,
            false => self.synced,
        }
    }

    /// What is appended from `from` to `end` goes into the journal; returns where its run begins there.
    fn queue(&mut self, from: i64, end: i64) -> i64 {
        if self.queued != from {
            // What lies before is not in it, and must be synced before this counts.
            self.from = from;
        }
        self.queued = end;
        self.from
    }

    fn forget_journal(&mut self) {
        (self.from, self.queued) = (i64::MAX, i64::MAX);
    }

    /// Whether the journal will make it durable that an offset was appended.
    fn waits_for_journal(&self, offset: i64) -> bool {
        self.synced.offset >= self.from && offset < self.queued
    }
}

/// What an append wants to be done next.
#[derive(Default)]
pub(super) struct Wanted {
    /// The partition's own files are to be synced.
    pub(super) sync: bool,
    /// Goes into the journal.
    pub(super) journal: Option<ToJournal>,
}

/// What of one append goes into the journal.
pub(super) struct ToJournal {
    pub(super) written: Vec<WrittenBatch>,
    /// First offset of the run that it continues.
    pub(super) run_from: i64,
    /// The log's end after it.
    pub(super) end: OffsetPosition,
}

pub(super) type AppendReply = oneshot::Sender<Result<Appended, LogError>>;

impl Partition {
    pub(super) fn new(
        topic: Arc<str>,
        topic_id: Uuid,
        index: i32,
        identity: Identity,
        log: Log,
        leader_epoch: i32,
        writer: Writer,
    ) -> Self {
        let end = log.ends().log_end;
        Self {
            topic,
            topic_id,
            index,
            identity,
            durable: Mutex::new(Durable::of(&log)),
            log,
            leader_epoch: AtomicI32::new(leader_epoch),
            high_watermark: RwLock::new(end),
            waiters: Waiters::default(),
            sync_waiters: Mutex::new(Vec::new()),
            sync_turn: SyncTurn::default(),
            deleted: AtomicBool::new(false),
            traffic: Traffic::default(),
            writer,
        }
    }

    /// Topic name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Topic id.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// The dense index that clients use.
    pub fn index(&self) -> i32 {
        self.index
    }

    /// `brokerId-n`.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The current leader epoch.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.load(Ordering::Acquire)
    }

    /// Bytes that came and went since the start.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Where its data directory's work is done.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Whether the topic was deleted meanwhile, or the partition went to another directory or another leader.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(super) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    /// Another broker leads it: what is appended here from now on is refused.
    pub(super) fn mark_stopped(&self) {
        self.mark_deleted();
    }

    /// The partition goes to another directory: what is appended here from now on is refused, and asked again.
    pub(super) fn mark_moved(&self) {
        self.mark_deleted();
    }

    /// Checks the leader epoch that a reader claims to know; negative means that it knows none.
    pub fn check_epoch(&self, asked: i32) -> Result<(), ReadError> {
        let current = self.leader_epoch();
        match asked {
            ..0 => Ok(()),
            _ if asked < current => Err(ReadError::FencedEpoch { asked, current }),
            _ if asked > current => Err(ReadError::UnknownEpoch { asked, current }),
            _ => Ok(()),
        }
    }

    /// Readers may see what lies before this offset.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.read().offset
    }

    /// What lies before this offset survives a power failure, in the log's files or in the journal.
    pub fn durable_offset(&self) -> i64 {
        self.durable.lock().end().offset
    }

    /// Every transaction before this offset is decided. Without open transactions, the high watermark.
    pub fn last_stable_offset(&self) -> i64 {
        self.high_watermark()
    }

    /// The end that readers of an isolation level see.
    pub fn readable_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark(),
            Isolation::ReadCommitted => self.last_stable_offset(),
        }
    }

    /// The slice for a fetch; see [`Log::read_within`].
    pub fn read(&self, wanted: &ReadWanted, reach: Reach) -> Result<Option<Slice>, ReadError> {
        let limit = *self.high_watermark.read();
        Ok(self.log.read_within(wanted, limit, reach)?)
    }

    /// Queues batches for appending; the answer comes when what the topic promises is true. Queueing is done
    /// when this returns, so calls keep their order.
    pub fn append(
        self: &Arc<Self>,
        batches: Vec<ProducedBatch>,
    ) -> oneshot::Receiver<Result<Appended, LogError>> {
        let (reply, answer) = oneshot::channel();
        self.writer.append(self.clone(), batches, reply);
        answer
    }

    /// Appends what several requests brought; called by whoever writes. `may_journal` says that there is a journal.
    pub(super) fn append_round(
        &self,
        requests: &[Vec<ProducedBatch>],
        replies: Vec<AppendReply>,
        now_ms: i64,
        may_journal: bool,
    ) -> Wanted {
        if self.is_deleted() {
            for reply in replies {
                let _ = reply.send(Err(LogError::NotLeader));
            }
            return Wanted::default();
        }
        let before = self.log.ends().log_end;
        let syncs_every_append = self.log.config().syncs_every_append();
        let (mut written, mut bytes, mut appended_bytes) = (Vec::new(), 0, 0);
        let results = self
            .log
            .append_telling(requests, self.leader_epoch(), now_ms, |batch| {
                appended_bytes += (batch.head.len() + batch.body.len()) as u64;
                if may_journal && syncs_every_append {
                    bytes += batch.body.len();
                    written.push(batch);
                }
            });
        self.traffic.appended(appended_bytes);
        let end = self.log.ends().log_end;
        let mut wanted = Wanted {
            // A sealed segment is synced soon, so that a crash need not scan it.
            sync: end.segment_base != before.segment_base,
            journal: None,
        };
        if !syncs_every_append {
            // Visible before acknowledged: who was told may read it at once.
            self.publish_high_watermark(end);
        }
        if !written.is_empty() && bytes <= PART_BYTES_MAX && self.log.is_named() {
            let run_from = self.durable.lock().queue(before.offset, end.offset);
            wanted.journal = Some(ToJournal {
                written,
                run_from,
                end,
            });
        }
        // Under this lock, so that nothing becomes durable unnoticed in between.
        let mut waiting = self.sync_waiters.lock();
        let durable = self.durable.lock();
        for (result, reply) in results.into_iter().zip(replies) {
            match result {
                Ok(appended)
                    if appended.needs_sync && appended.last_offset >= durable.end().offset =>
                {
                    // Also a batch that was given to the journal before, and is sent again.
                    wanted.sync |= !durable.waits_for_journal(appended.last_offset);
                    waiting.push((appended, reply));
                }
                result => {
                    let _ = reply.send(result);
                }
            }
        }
        wanted
    }

    /// The journal holds, durably, what was given to it up to here.
    pub(super) fn journaled(&self, end: OffsetPosition) {
        {
            let mut durable = self.durable.lock();
            if durable.from < end.offset && durable.journaled.offset < end.offset {
                durable.journaled = end;
            }
        }
        self.answer_durable();
    }

    /// What was given to the journal is not in it: the log itself must be synced.
    pub(super) fn not_journaled(&self) {
        self.durable.lock().forget_journal();
    }

    /// Whether the journal is all that would be left of what lies before `end`.
    pub(super) fn needs_journal(&self, end: i64) -> bool {
        !self.is_deleted() && self.log.ends().synced_end < end
    }

    /// Syncs what lies before an end that the log had, and answers who waited for it; called by a sync thread. Returns
    /// whether more wait.
    pub(super) fn sync_to(&self, end: OffsetPosition, now_ms: i64) -> bool {
        match self.log.sync_to(end, now_ms) {
            Ok(synced) => {
                {
                    let mut durable = self.durable.lock();
                    if synced.offset >= durable.synced.offset {
                        durable.synced = synced;
                    }
                }
                self.answer_durable()
            }
            Err(error) => {
                self.refuse_sync_waiters(&error.to_string());
                false
            }
        }
    }

    /// Answers who waited for what is durable now; whether others wait for a sync of the log.
    fn answer_durable(&self) -> bool {
        let mut waiting = self.sync_waiters.lock();
        let (end, done, wants_sync) = {
            let durable = self.durable.lock();
            let end = durable.end();
            let (done, more) = std::mem::take(&mut *waiting)
                .into_iter()
                .partition::<Vec<_>, _>(|(appended, _)| appended.last_offset < end.offset);
            *waiting = more;
            let in_journal = |appended: &Appended| durable.waits_for_journal(appended.last_offset);
            let wants_sync = waiting.iter().any(|(appended, _)| !in_journal(appended));
            (end, done, wants_sync)
        };
        drop(waiting);
        // Here too before it is acknowledged.
        self.publish_high_watermark(end);
        for (appended, reply) in done {
            let _ = reply.send(Ok(appended));
        }
        wants_sync
    }

    /// Takes the log offline because it cannot be known what is synced.
    pub(super) fn fail_sync(&self, reason: &str) {
        self.log.fail(reason);
        self.refuse_sync_waiters(reason);
        tracing::error!(topic = %self.topic, partition = self.index, reason);
    }

    fn refuse_sync_waiters(&self, reason: &str) {
        for (_, reply) in self.sync_waiters.lock().drain(..) {
            let _ = reply.send(Err(LogError::Offline(reason.to_owned())));
        }
    }

    fn publish_high_watermark(&self, end: OffsetPosition) {
        {
            let mut high_watermark = self.high_watermark.write();
            if end.offset < high_watermark.offset {
                return;
            }
            // Also at the same offset: a roll moves the position into the new segment.
            *high_watermark = end;
        }
        self.waiters.wake_all();
    }

    /// Answers ListOffsets.
    pub fn list_offset(
        &self,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<ListedOffset, LogError> {
        let limit = self.readable_end(isolation);
        let log_start = self.log.ends().log_start;
        let at = |offset| ListedOffset {
            offset,
            timestamp: -1,
            leader_epoch: self.epoch_of(offset),
        };
        let found = |found: Option<FoundTimestamp>| match found {
            Some(found) => ListedOffset {
                offset: found.offset,
                timestamp: found.timestamp,
                leader_epoch: found.leader_epoch,
            },
            None => ListedOffset {
                offset: -1,
                timestamp: -1,
                leader_epoch: -1,
            },
        };
        Ok(match spec {
            OffsetSpec::Earliest | OffsetSpec::EarliestLocal => at(log_start),
            OffsetSpec::Latest => at(limit),
            OffsetSpec::MaxTimestamp => found(self.log.find_max_timestamp(limit)?),
            OffsetSpec::Timestamp(timestamp) => found(self.log.find_timestamp(timestamp, limit)?),
        })
    }

    fn epoch_of(&self, offset: i64) -> i32 {
        let epochs = self.log.epochs();
        epochs
            .epoch_of(offset)
            .unwrap_or_else(|| self.leader_epoch())
    }

    /// The epoch at most `epoch` and where it ended, for OffsetForLeaderEpoch.
    pub fn epoch_end(&self, epoch: i32) -> Option<(i32, i64)> {
        let end = self.log.ends().log_end.offset;
        if epoch == self.leader_epoch() {
            return Some((epoch, end));
        }
        self.log.epochs().end_offset_for(epoch, end)
    }
}
