//! How a replica gets its role and what each role does: a leader hears from its followers, a follower from its leader. A role is
//! taken by whoever writes in the data directory, so that nothing of the role before comes after it.
//!
//! Tests: partition/registry/roles.rs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::followers::{FollowerFetch, FollowerNoted, FollowerState, IsrChange};
use super::partition_state::{Eligible, PartitionState};
use super::progress::{Progress, Role};
use super::replica::Replica;
use super::session_clock::SessionClock;
use crate::log::{Log, LogError, OffsetPosition, Segment};

impl Replica {
    /// Takes the role that the cluster says it has; the log has begun the epoch before, where this broker leads in it. Called by
    /// whoever writes.
    pub(super) fn take_role(&self, state: &PartitionState) {
        let led_here = state.is_led_here();
        let now = Instant::now();
        self.set_leads(self.is_leader() && led_here, state.leader_epoch);
        self.count(state);
        self.change(|progress| {
            progress.take_state(self.log(), state, now);
            if !led_here {
                progress.acks.refuse_all(|| LogError::NotLeader);
            }
        });
        if led_here {
            self.set_leads(true, state.leader_epoch);
        }
        // Who waits looks again, and finds another role.
        self.waiters.wake_all();
        self.follower_waiters.wake_all();
    }

    fn count(&self, state: &PartitionState) {
        let (all, in_sync) = (state.replicas.len(), state.isr.len());
        self.counts.all.store(all, Ordering::Relaxed);
        self.counts.in_sync.store(in_sync, Ordering::Relaxed);
        let eligible = &self.counts.has_eligible;
        eligible.store(state.eligible == Eligible::Some, Ordering::Relaxed);
    }

    /// Leads from now on, in the epoch of the state; called by whoever writes.
    pub(super) fn lead(&self, state: &PartitionState) -> Result<(), LogError> {
        self.log().begin_epoch(state.leader_epoch)?;
        self.take_role(state);
        Ok(())
    }

    /// What the cluster says of the partition, as far as it is known here.
    pub fn state(&self) -> PartitionState {
        self.progress.lock().state.clone()
    }

    /// Takes over who is in sync, of the leader epoch that it is in.
    pub fn update_state(&self, state: &PartitionState) {
        let now = Instant::now();
        let mut is_newer = false;
        self.change(|progress| {
            let known = &mut progress.state;
            let is_same = state.leader_epoch == known.leader_epoch
                && state.partition_epoch == known.partition_epoch;
            if is_same && known.eligible == Eligible::Unknown {
                known.eligible = state.eligible;
                self.count(known);
                return;
            }
            if state.leader_epoch != known.leader_epoch
                || state.partition_epoch <= known.partition_epoch
            {
                return;
            }
            is_newer = true;
            if self.is_leader() && state.isr != known.isr {
                let (topic, partition, before) = (self.topic(), self.index(), &known.isr);
                tracing::info!(%topic, partition, isr = ?state.isr, ?before, "in-sync replicas");
            }
            progress.state = state.clone();
            if !self.is_leader() && state.is_led_here() {
                // It led in this epoch in an earlier run, and does not any more.
                progress.state.leader = -1;
            }
            self.count(state);
            match &mut progress.role {
                Role::Leader(followers) => followers.update(state, now),
                Role::Alone if state.is_replicated() => {
                    progress.take_state(self.log(), state, now);
                }
                Role::Alone | Role::Follower { .. } => {}
            }
        });
        if is_newer {
            // A follower's session does not look at who is in sync and has it all.
            self.follower_waiters.note_all();
        }
    }

    /// Notes how far a follower is, by a fetch in a session that has a clock.
    pub fn follower_fetched(
        &self,
        fetch: &FollowerFetch,
        clock: Option<&Arc<SessionClock>>,
    ) -> FollowerNoted {
        // It has something else than this log.
        if fetch.offset > self.log().ends().log_end.offset {
            return FollowerNoted::Refused;
        }
        let now = Instant::now();
        let is_registered = self
            .isr_watch
            .is_eligible(fetch.replica, fetch.broker_epoch);
        let (mut noted, mut may_join) = (FollowerNoted::Refused, false);
        self.change(|progress| {
            if let Role::Leader(followers) = &mut progress.role {
                let leader_end = progress.watermarks.log_end().offset;
                noted = followers.fetched(fetch, is_registered, clock, leader_end, now);
                let high_watermark = progress.watermarks.high_watermark();
                may_join = noted == FollowerNoted::OutOfSync
                    && followers.may_join(fetch.replica, high_watermark);
            }
        });
        if may_join {
            self.isr_watch.want(self.topic_id(), self.index());
        }
        noted
    }

    /// Whether a broker keeps it beside this one, which leads it.
    pub fn has_follower(&self, replica: i32) -> bool {
        match &self.progress.lock().role {
            Role::Leader(followers) => followers.has(replica),
            Role::Alone | Role::Follower { .. } => false,
        }
    }

    /// Says that there is something to propose where a follower lags.
    pub fn look_for_laggards(&self) {
        let lag_max = self.isr_watch.lag_max;
        let has_laggards = match &*self.progress.lock() {
            Progress {
                role: Role::Leader(followers),
                watermarks,
                ..
            } => followers.has_laggards(watermarks.log_end().offset, Instant::now(), lag_max),
            _ => false,
        };
        if has_laggards {
            self.isr_watch.want(self.topic_id(), self.index());
        }
    }

    /// Begins a proposal of who is in sync, where another set is due; those that would join must be eligible, by broker and
    /// registration.
    pub fn begin_proposal(&self, is_eligible: impl Fn(i32, i64) -> bool) -> Option<IsrChange> {
        let mut proposal = None;
        self.change(|progress| {
            if let Role::Leader(followers) = &mut progress.role {
                let watermarks = &progress.watermarks;
                let ends = (watermarks.log_end().offset, watermarks.high_watermark());
                let lag_max = self.isr_watch.lag_max;
                proposal = followers.propose(ends, Instant::now(), lag_max, is_eligible);
            }
        });
        proposal
    }

    /// The proposal is over: the controller refused it for good.
    pub fn withdraw_proposal(&self, proposal: &IsrChange) {
        self.change(|progress| {
            if let Role::Leader(followers) = &mut progress.role {
                followers.withdraw(proposal.partition_epoch);
            }
        });
    }

    /// How its followers are, where this broker leads it.
    pub fn followers(&self) -> Vec<FollowerState> {
        let progress = self.progress.lock();
        match &progress.role {
            Role::Leader(followers) => followers.states(progress.watermarks.log_end().offset),
            Role::Alone | Role::Follower { .. } => Vec::new(),
        }
    }

    /// The least start of log among the followers that are live; `None` while it is not known.
    pub fn least_log_start(&self, is_live: impl Fn(i32) -> bool) -> Option<i64> {
        match &self.progress.lock().role {
            Role::Leader(followers) => followers.least_log_start(is_live),
            Role::Alone | Role::Follower { .. } => Some(i64::MAX),
        }
    }

    /// Whether the high watermark of a leader is known: it has reached what was there when its epoch began (Kafka's
    /// Partition.fetchOffsetForTimestamp).
    pub fn knows_high_watermark(&self) -> bool {
        let progress = self.progress.lock();
        match &progress.role {
            Role::Leader(followers) => {
                progress.watermarks.high_watermark() >= followers.epoch_start()
            }
            Role::Alone | Role::Follower { .. } => true,
        }
    }

    /// A follower hears how far its leader is.
    pub fn leader_said(&self, leader_epoch: i32, high_watermark: i64) {
        if leader_epoch != self.leader_epoch() {
            return;
        }
        self.change(|progress| {
            if let Role::Follower {
                high_watermark: known,
            } = &mut progress.role
            {
                *known = high_watermark;
            }
        });
    }

    /// Cuts off what lies at and after an offset of a follower whose leader has something else there; called by whoever writes,
    /// after the journal and the checkpoints know it. `false` where the role changed meanwhile.
    pub(super) fn cut_off(
        &self,
        leader_epoch: i32,
        offset: i64,
        now_ms: i64,
    ) -> Result<bool, LogError> {
        self.cut(leader_epoch, |log| {
            log.truncate_to(offset, now_ms).map(|_| ())
        })
    }

    /// Drops all records of a follower and goes on at an offset; otherwise as [`Self::cut_off`].
    pub(super) fn start_anew_at(
        &self,
        leader_epoch: i32,
        offset: i64,
        now_ms: i64,
    ) -> Result<bool, LogError> {
        self.cut(leader_epoch, |log| log.start_anew_at(offset, now_ms))
    }

    fn cut(
        &self,
        leader_epoch: i32,
        cut: impl FnOnce(&Log) -> Result<(), LogError>,
    ) -> Result<bool, LogError> {
        if self.is_leader() || self.leader_epoch() != leader_epoch || self.is_deleted() {
            return Ok(false);
        }
        cut(self.log())?;
        self.log_was_cut();
        Ok(true)
    }

    fn log_was_cut(&self) {
        let ends = self.log().ends();
        let start = OffsetPosition {
            offset: ends.log_start,
            segment_base: ends.log_start,
            position: 0,
        };
        let synced = self.log().position_of(ends.synced_end).unwrap_or(start);
        let first_unstable = |high_watermark| self.log().first_unstable(high_watermark);
        {
            let mut progress = self.progress.lock();
            let watermarks = &mut progress.watermarks;
            watermarks.cut_to(ends.log_end, synced, first_unstable);
            *self.limits.write() = watermarks.limits();
            progress.recent_ends.clear();
        }
        self.change(|_| {});
        self.waiters.wake_all();
    }

    /// Takes over where the leader's log starts, as far as it has what is committed.
    pub(super) fn follow_log_start(
        &self,
        offset: i64,
        now_ms: i64,
    ) -> Result<Vec<Arc<Segment>>, LogError> {
        let to = offset.min(self.high_watermark());
        match to > self.log().ends().log_start {
            true => self.advance_log_start(to, now_ms),
            false => Ok(Vec::new()),
        }
    }
}
