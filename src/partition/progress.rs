//! What is known of a partition's progress: how far its log is, who waits for it, what this replica is to the partition, and what
//! of it is committed. One struct, behind one lock.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::ack_queue::AckQueue;
use super::followers::Followers;
use super::isr_watch::IsrWatch;
use super::partition_state::PartitionState;
use super::watermarks::{Bound, Promise, ReadLimits, Watermarks};
use crate::log::{Log, LogError, OffsetPosition};

/// Ends that are remembered: one of them is most often where the high watermark goes next.
const RECENT_ENDS: usize = 64;

/// What a replica is to its partition.
pub(super) enum Role {
    /// The leader, and no other broker keeps it.
    Alone,
    /// The leader.
    Leader(Followers),
    /// It follows, or nobody leads; the leader's high watermark as far as it said so.
    Follower { high_watermark: i64 },
}

/// Where the log ended of late, by offset.
#[derive(Default)]
pub(super) struct RecentEnds(VecDeque<OffsetPosition>);

impl RecentEnds {
    fn push(&mut self, end: OffsetPosition) {
        if self.0.back().is_some_and(|last| last.offset >= end.offset) {
            return;
        }
        if self.0.len() == RECENT_ENDS {
            self.0.pop_front();
        }
        self.0.push_back(end);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Where an offset is; one that was not an end of late is looked up.
    fn position_of(&self, offset: i64, log: &Log) -> Result<OffsetPosition, LogError> {
        let found = self.0.binary_search_by_key(&offset, |end| end.offset);
        found.map_or_else(|_| log.position_of(offset), |at| Ok(self.0[at]))
    }
}

/// See the module's documentation.
pub(super) struct Progress {
    pub(super) watermarks: Watermarks,
    pub(super) acks: AckQueue,
    pub(super) role: Role,
    /// What the cluster says of the partition.
    pub(super) state: PartitionState,
    pub(super) recent_ends: RecentEnds,
}

/// What a topic shows its readers: what is durable, where it acknowledges nothing else.
pub(super) fn shows(log: &Log) -> Promise {
    match log.config().syncs_every_append() {
        true => Promise::Durable,
        false => Promise::Written,
    }
}

impl Progress {
    /// Of a log that was opened, as the cluster says that the partition is.
    pub(super) fn opened(log: &Log, watermarks: Watermarks, state: &PartitionState) -> Self {
        let mut progress = Self {
            watermarks,
            acks: AckQueue::default(),
            role: Role::Alone,
            state: state.clone(),
            recent_ends: RecentEnds::default(),
        };
        progress.take_state(log, state, Instant::now());
        progress
    }

    /// Takes the role that follows from what the cluster says. A leader's epoch began where the log says, or begins now.
    pub(super) fn take_state(&mut self, log: &Log, state: &PartitionState, now: Instant) {
        let start = log.epochs().start_of_latest(state.leader_epoch);
        let start = start.unwrap_or_else(|| self.watermarks.log_end().offset);
        self.role = match (state.is_led_here(), state.is_replicated()) {
            (true, false) => Role::Alone,
            (true, true) => Role::Leader(Followers::new(state, start, now)),
            (false, _) => Role::Follower {
                high_watermark: self.watermarks.high_watermark(),
            },
        };
        self.state = state.clone();
    }

    /// Moves what may be read as far as it may be by now; whether it moved.
    pub(super) fn advance(&mut self, log: &Log, watch: &IsrWatch) -> (ReadLimits, bool) {
        let bound = self.bound(log, watch);
        let first_unstable = |high_watermark| log.first_unstable(high_watermark);
        self.watermarks.advance(shows(log), bound, first_unstable)
    }

    /// What bounds the high watermark.
    fn bound(&mut self, log: &Log, watch: &IsrWatch) -> Bound {
        if let Role::Alone = self.role {
            return Bound::None;
        }
        self.recent_ends.push(self.watermarks.log_end());
        let own = self.watermarks.own_end(shows(log)).offset;
        let committed = match &self.role {
            Role::Alone => return Bound::None,
            Role::Follower { high_watermark } => Some(*high_watermark),
            Role::Leader(followers) => {
                let min_insync = log.config().min_insync_replicas;
                let needed = self.state.needed_in_sync(min_insync);
                let leader_end = self.watermarks.log_end().offset;
                let is_eligible = |id, registration| watch.is_eligible(id, registration);
                followers.committed_end(
                    leader_end,
                    needed,
                    Instant::now(),
                    watch.lag_max,
                    is_eligible,
                )
            }
        };
        match committed {
            None => Bound::Held,
            Some(end) if end >= own => Bound::None,
            Some(end) if end <= self.watermarks.high_watermark() => Bound::Held,
            Some(end) => {
                let found = self.recent_ends.position_of(end, log);
                // Where it cannot be found nothing is lost: it is looked for again with the next move.
                found.map_or(Bound::Held, Bound::At)
            }
        }
    }
}
