//! This broker's replica of a partition: its log, how far it is, who waits for it.
//!
//! Concurrency: one at a time writes in its data directory, and appends; sync threads move the synced end; everybody
//! else reads. The replica knows none of them: `handle.rs` has it together with who writes it.
//!
//! Tests: partition/transaction_tests.rs, partition/registry/roles.rs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::ack_queue::AppendReply;
use super::acks::Acks;
use super::fetch_waiters::Waiters;
use super::isr_watch::IsrWatch;
use super::partition_state::{Eligible, PartitionState};
use super::progress::{Progress, Role, shows};
use super::sync_turn::SyncTurn;
use super::watermarks::{ReadLimits, Watermarks};
use crate::log::journal::WrittenBatch;
use crate::log::{AppendRequest, Log, LogError, OffsetPosition, Origin, Segment, SyncTarget};

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
    /// The first record at or after a timestamp in ms.
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
pub struct Replica {
    topic: Arc<str>,
    topic_id: Uuid,
    index: i32,
    identity: Identity,
    log: Log,
    leader_epoch: AtomicI32,
    leads: AtomicBool,
    pub(super) counts: ReplicaCounts,
    pub(super) progress: Mutex<Progress>,
    /// What [`Progress`] says that readers may see; set with its lock, before anybody is answered.
    pub(super) limits: RwLock<ReadLimits>,
    pub(super) waiters: Arc<Waiters>,
    /// Fetches of followers, which see all that is written.
    pub(super) follower_waiters: Arc<Waiters>,
    pub(super) isr_watch: Arc<IsrWatch>,
    pub(super) sync_turn: SyncTurn,
    /// Nothing is appended here any more.
    deleted: AtomicBool,
    /// Nothing of it is needed any more.
    gone: AtomicBool,
    traffic: Traffic,
}

/// How many replicas the partition has, and how many are in sync.
pub(super) struct ReplicaCounts {
    pub(super) all: AtomicUsize,
    pub(super) in_sync: AtomicUsize,
    /// Whether some are eligible that are not.
    pub(super) has_eligible: AtomicBool,
}

/// What an append brings a partition that has more bytes than this is synced in its own file: what is large is not written
/// twice.
const PART_BYTES_MAX: usize = 64 << 10;

/// What an append wants to be done next.
#[derive(Default)]
pub(super) struct SyncNeeds {
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
    /// Nothing was appended: the log is going to be cut off at `run_from`; told whether that is noted.
    pub(super) cut: Option<oneshot::Sender<bool>>,
}

impl Replica {
    /// A replica over its log, as the cluster says that it is. Of one that other brokers keep too, no more may be read than
    /// `high_watermark`, until it is known what is committed.
    pub(super) fn new(
        named: (Arc<str>, Uuid, i32, Identity),
        log: Log,
        state: &PartitionState,
        high_watermark: i64,
        isr_watch: Arc<IsrWatch>,
    ) -> Self {
        let (topic, topic_id, index, identity) = named;
        let ends = log.ends();
        // Where it cannot be found, less is known to be durable, or committed.
        let nowhere = OffsetPosition {
            offset: ends.log_start,
            segment_base: ends.log_start,
            position: 0,
        };
        let position_of = |offset: i64| match offset > ends.log_start {
            true => log.position_of(offset).unwrap_or(nowhere),
            false => nowhere,
        };
        let synced = position_of(ends.synced_end);
        let committed = match state.is_replicated() {
            true => position_of(high_watermark),
            false => ends.log_end,
        };
        let unstable = log.first_unstable(committed.offset);
        let watermarks = Watermarks::opened(ends.log_end, synced, committed, unstable);
        let mut progress = Progress::opened(&log, watermarks, state);
        let (limits, _) = progress.advance(&log, &isr_watch);
        Self {
            topic,
            topic_id,
            index,
            identity,
            log,
            leader_epoch: AtomicI32::new(state.leader_epoch),
            leads: AtomicBool::new(state.is_led_here()),
            counts: ReplicaCounts {
                all: AtomicUsize::new(state.replicas.len()),
                in_sync: AtomicUsize::new(state.isr.len()),
                has_eligible: AtomicBool::new(state.eligible == Eligible::Some),
            },
            progress: Mutex::new(progress),
            limits: RwLock::new(limits),
            waiters: Arc::default(),
            follower_waiters: Arc::default(),
            isr_watch,
            sync_turn: SyncTurn::default(),
            deleted: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            traffic: Traffic::default(),
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

    /// Whether this broker leads it.
    pub fn is_leader(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    pub(super) fn set_leads(&self, leads: bool, leader_epoch: i32) {
        self.leader_epoch.store(leader_epoch, Ordering::Release);
        self.leads.store(leads, Ordering::Release);
    }

    /// Bytes that came and went since the start.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Whether the topic was deleted meanwhile, or the partition went to another directory or another leader.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(super) fn mark_deleted(&self) {
        self.gone.store(true, Ordering::Release);
        self.take_no_more();
    }

    fn take_no_more(&self) {
        self.deleted.store(true, Ordering::Release);
        {
            // It does not hear of followers any more.
            let mut progress = self.progress.lock();
            if let Role::Leader(_) = progress.role {
                progress.acks.refuse_all(|| LogError::NotLeader);
            }
        }
        self.waiters.wake_all();
        self.follower_waiters.wake_all();
    }

    /// Another broker leads it: what is appended here from now on is refused.
    pub(super) fn mark_stopped(&self) {
        self.take_no_more();
    }

    /// It was stopped, and nothing is appended any more: nobody will hear of a sync.
    pub(super) fn refuse_stopped(&self) {
        let mut progress = self.progress.lock();
        progress.acks.refuse_all(|| LogError::NotLeader);
    }

    /// The partition goes to another directory: what is appended here from now on is refused, and asked again.
    pub(super) fn mark_moved(&self) {
        self.take_no_more();
    }

    /// Checks the leader epoch that a reader claims to know; -1 means that it knows none (Kafka's RequestUtils.getLeaderEpoch).
    pub fn check_epoch(&self, asked: i32) -> Result<(), ReadError> {
        let current = self.leader_epoch();
        match asked {
            -1 => Ok(()),
            _ if asked < current => Err(ReadError::FencedEpoch { asked, current }),
            _ if asked > current => Err(ReadError::UnknownEpoch { asked, current }),
            _ => Ok(()),
        }
    }

    /// How many replicas it has.
    pub fn replicas(&self) -> usize {
        self.counts.all.load(Ordering::Relaxed)
    }

    /// How many replicas are in sync, as the cluster says.
    pub fn in_sync_replicas(&self) -> usize {
        self.counts.in_sync.load(Ordering::Relaxed)
    }

    /// How many replicas have to be in sync for what a producer waits for.
    pub fn needed_in_sync(&self, acks: Acks) -> usize {
        let min_insync = self.log.config().min_insync_replicas;
        let eligible = match self.counts.has_eligible.load(Ordering::Relaxed) {
            true => self.in_sync_replicas() + 1,
            false => 0,
        };
        acks.needed_in_sync(min_insync.max(eligible), self.replicas())
    }

    /// Whether enough replicas are in sync for what a producer waits for.
    pub fn check_in_sync(&self, acks: Acks) -> Result<(), LogError> {
        let needed = self.needed_in_sync(acks);
        let in_sync = self.in_sync_replicas();
        match in_sync < needed {
            true => Err(LogError::NotEnoughReplicas { in_sync, needed }),
            false => Ok(()),
        }
    }

    /// Appends what several requests brought; called by the one that writes. `may_journal` says that there is a journal.
    pub(super) fn append_group(
        &self,
        mut requests: Vec<AppendRequest>,
        mut replies: Vec<AppendReply>,
        now_ms: i64,
        may_journal: bool,
    ) -> SyncNeeds {
        if !requests.iter().all(|request| self.takes(request)) {
            self.refuse_others(&mut requests, &mut replies);
        }
        if requests.is_empty() {
            return SyncNeeds::default();
        }
        let before = self.log.ends().log_end;
        let syncs_every_append = self.log.config().syncs_every_append();
        let (mut written, mut bytes, mut appended_bytes) = (Vec::new(), 0, 0);
        let results = self
            .log
            .append_with(&requests, self.leader_epoch(), now_ms, |batch| {
                appended_bytes += (batch.head.len() + batch.body.len()) as u64;
                if may_journal && syncs_every_append {
                    bytes += batch.body.len();
                    written.push(batch);
                }
            });
        if self.is_leader() {
            // What a follower copies is no producer's.
            self.traffic.appended(appended_bytes);
        }
        let end = self.log.ends().log_end;
        let mut wanted = SyncNeeds {
            // A sealed segment is synced soon, so that a crash need not scan it.
            sync: end.segment_base != before.segment_base,
            journal: None,
        };
        let goes_into_journal =
            !written.is_empty() && bytes <= PART_BYTES_MAX && self.log.is_named();
        let mut answered = Vec::with_capacity(replies.len());
        self.change(|progress| {
            if end.offset > before.offset
                && let Role::Leader(followers) = &mut progress.role
            {
                followers.fall_behind(before.offset);
            }
            let watermarks = &mut progress.watermarks;
            watermarks.appended(end);
            if goes_into_journal {
                let run_from = watermarks.queue_in_journal(before.offset, end.offset);
                wanted.journal = Some(ToJournal {
                    written,
                    run_from,
                    end,
                    cut: None,
                });
            }
            for (result, reply) in results.into_iter().zip(replies) {
                match result {
                    Ok(appended) if !reply.is_due(&appended, watermarks) => {
                        // Also a batch that was given to the journal before, and is sent again.
                        wanted.sync |=
                            reply.waits_for_sync(&appended, watermarks, shows(&self.log));
                        progress.acks.push(appended, reply);
                    }
                    result => answered.push((result, reply)),
                }
            }
        });
        if end.offset > before.offset {
            self.follower_waiters.wake_all();
        }
        if self.log.is_offline() {
            self.isr_watch.want(self.topic_id, self.index);
        }
        for (result, reply) in answered {
            reply.send(result);
        }
        wanted
    }

    /// Whether it takes what was queued, in the role that it has by now.
    fn takes(&self, request: &AppendRequest) -> bool {
        let in_role = match request.origin {
            Origin::Replication { leader_epoch } => {
                !self.is_leader() && leader_epoch == self.leader_epoch()
            }
            Origin::Client(_) | Origin::Coordinator(_) => self.is_leader(),
        };
        in_role && !self.is_deleted()
    }

    fn refuse_others(&self, requests: &mut Vec<AppendRequest>, replies: &mut Vec<AppendReply>) {
        let all = requests.drain(..).zip(replies.drain(..));
        let (taken, refused): (Vec<_>, Vec<_>) = all.partition(|(request, _)| self.takes(request));
        for (_, reply) in refused {
            reply.send(Err(LogError::NotLeader));
        }
        (*requests, *replies) = taken.into_iter().unzip();
    }

    /// Changes what is known of the log's progress, publishes what may be read by it, and then answers those whose promise
    /// became true.
    pub(super) fn change(&self, change: impl FnOnce(&mut Progress)) {
        let (has_moved, reached) = {
            let mut progress = self.progress.lock();
            change(&mut progress);
            let (limits, has_moved) = progress.advance(&self.log, &self.isr_watch);
            if has_moved {
                *self.limits.write() = limits;
            }
            let Progress {
                watermarks, acks, ..
            } = &mut *progress;
            (has_moved, acks.take_reached(watermarks))
        };
        if has_moved {
            self.waiters.wake_all();
            // Its next fetch tells a follower.
            self.follower_waiters.note_all();
        }
        let min_insync = self.needed_in_sync(Acks::All);
        let is_under_min = self.in_sync_replicas() < min_insync;
        for (appended, reply) in reached {
            match is_under_min && reply.is_for_all() {
                true => reply.send(Err(LogError::NotEnoughReplicasAfterAppend)),
                false => reply.send(Ok(appended)),
            }
        }
    }

    /// Moves the log's start to an offset ([`Log::advance_log_start`]); called by the one that writes.
    pub(super) fn advance_log_start(
        &self,
        offset: i64,
        now_ms: i64,
    ) -> Result<Vec<Arc<Segment>>, LogError> {
        let dropped = self.log.advance_log_start(offset, now_ms);
        self.log_start_moved();
        dropped
    }

    /// Applies retention ([`Log::retain`]); called by the one that writes.
    pub(super) fn retain(&self, now_ms: i64) -> Result<Vec<Arc<Segment>>, LogError> {
        let dropped = self.log.retain(now_ms, self.high_watermark());
        self.log_start_moved();
        dropped
    }

    /// What an open transaction holds back begins no earlier than the log.
    fn log_start_moved(&self) {
        self.change(|_| {});
        self.follower_waiters.note_all();
    }

    /// The journal holds, durably, what was given to it up to here.
    pub(super) fn journaled(&self, end: OffsetPosition) {
        self.change(|progress| progress.watermarks.journaled(end));
    }

    /// Whether the journal may hold anything of the log.
    pub(super) fn was_journaled(&self) -> bool {
        self.progress.lock().watermarks.was_journaled()
    }

    /// What was given to the journal is not in it: the log itself must be synced.
    pub(super) fn not_journaled(&self) {
        self.progress.lock().watermarks.forget_journal();
    }

    /// Whether what the journal is given begins there, and has no gap since.
    pub(super) fn is_run_of_journal(&self, run_from: i64) -> bool {
        self.progress.lock().watermarks.is_run_of_journal(run_from)
    }

    /// Whether the journal is all that would be left of what lies before `end`.
    pub(super) fn needs_journal(&self, end: i64) -> bool {
        let ends = self.log.ends();
        // What was cut off needs none. One that was stopped or moved is what there is until its log is closed.
        !self.gone.load(Ordering::Acquire) && ends.synced_end < end.min(ends.log_end.offset)
    }

    /// Syncs what lies before an end that the log had, and answers who waited for it; called by a sync thread. Returns
    /// whether more wait.
    pub(super) fn sync_to(&self, target: SyncTarget, now_ms: i64) -> bool {
        match self.log.sync_to(target, now_ms) {
            Ok(synced) => self.log_was_synced(&synced),
            Err(LogError::Offline(reason)) => {
                self.refuse_waiting(&reason);
                false
            }
            Err(error) => {
                self.refuse_waiting(&error.to_string());
                false
            }
        }
    }

    /// Takes over what a sync made durable, and answers who waited for it. Returns whether more wait.
    pub(super) fn log_was_synced(&self, synced: &SyncTarget) -> bool {
        let mut is_of_log = false;
        self.change(|progress| {
            // Whoever cuts the log off comes with this lock too, after it: what was synced may be gone.
            is_of_log = self.log.is_as_it_was(synced);
            if is_of_log {
                progress.watermarks.synced(synced.end());
            }
        });
        let progress = self.progress.lock();
        let watermarks = &progress.watermarks;
        !is_of_log || progress.acks.wants_sync(watermarks, shows(&self.log))
    }

    /// Takes the log offline because it cannot be known what is synced.
    pub(super) fn fail_sync(&self, reason: &str) {
        self.log.fail(reason);
        self.refuse_waiting(reason);
        tracing::error!(topic = %self.topic, partition = self.index, reason);
    }

    fn refuse_waiting(&self, reason: &str) {
        let refusal = || LogError::Offline(reason.to_owned());
        self.progress.lock().acks.refuse_all(refusal);
        self.follower_waiters.wake_all();
        self.isr_watch.want(self.topic_id, self.index);
    }
}
