//! What a leader knows of its partition's other replicas: how far each is, which are in sync, and which it proposes to the
//! controller to be (Kafka's Replica and the in-sync part of Partition). No clock, no locks.
//!
//! A record is committed once every member of the maximal in-sync set has it: those that the cluster says are in sync, and those
//! that a proposal under way would add (KIP-497). While fewer than `min.insync.replicas` are in sync nothing is committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::partition_state::PartitionState;
use super::session_clock::SessionClock;

/// How far a follower says that it is, by a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    /// The follower.
    pub replica: i32,
    /// Its registration, -1 where it does not say (KIP-903).
    pub broker_epoch: i64,
    /// The leader's epoch as it knows it, -1 where it does not say.
    pub leader_epoch: i32,
    /// The end of its log.
    pub offset: i64,
    /// The start of its log, -1 where it does not say.
    pub log_start: i64,
}

/// What a leader makes of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerNoted {
    /// The broker is no replica, the fetch is one of an earlier life of it (KIP-903), or of what the leader does not have.
    Refused,
    /// The follower is in sync, as the cluster says.
    InSync,
    /// It is not.
    OutOfSync,
}

/// What a leader proposes to the controller (AlterPartition).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChange {
    /// The epoch in which this broker leads.
    pub leader_epoch: i32,
    /// The state that the proposal changes.
    pub partition_epoch: i32,
    /// Who is to be in sync, each with the registration that it fetched with; -1 where it is not known.
    pub isr: Vec<(i32, i64)>,
}

/// How a follower is, for people and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerState {
    /// The broker.
    pub replica: i32,
    /// The end of its log, -1 where it has not fetched from this leader.
    pub log_end: i64,
    /// The start of its log, -1 where it has not said.
    pub log_start: i64,
    /// Whether it is in sync, as the cluster says.
    pub is_in_sync: bool,
    /// Since when it has not reached the leader's end; `None` where it never did in this epoch.
    pub caught_up: Option<Instant>,
}

/// One follower.
#[derive(Debug)]
struct Follower {
    /// -1 until it fetches.
    end: i64,
    log_start: i64,
    broker_epoch: i64,
    /// Its latest fetch, and the leader's end then.
    last_fetch: Option<(Instant, i64)>,
    /// When it had all that the leader had.
    caught_up: Option<Instant>,
    /// When it fetched last in its session, also where that fetch did not look at this partition because nothing moved.
    clock: Option<Arc<SessionClock>>,
}

impl Follower {
    /// One that is in sync is taken for caught up when the leader begins (Kafka's Replica.resetReplicaState).
    fn new(is_in_sync: bool, now: Instant) -> Self {
        Self {
            end: -1,
            log_start: -1,
            broker_epoch: -1,
            last_fetch: None,
            caught_up: is_in_sync.then_some(now),
            clock: None,
        }
    }

    /// When it had all that the leader had, as far as is known by now.
    fn caught_up(&self, leader_end: i64) -> Option<Instant> {
        let fetched = self.clock.as_ref().filter(|_| self.end == leader_end);
        self.caught_up.max(fetched.map(|clock| clock.latest()))
    }

    /// As Kafka's Replica.updateFetchStateOrThrow.
    fn fetched(&mut self, fetch: &FollowerFetch, leader_end: i64, now: Instant) {
        if fetch.offset >= leader_end {
            self.caught_up = self.caught_up.max(Some(now));
        } else if let Some((then, end)) = self.last_fetch
            && fetch.offset >= end
        {
            self.caught_up = self.caught_up.max(Some(then));
        }
        self.end = fetch.offset;
        self.log_start = fetch.log_start;
        self.broker_epoch = fetch.broker_epoch;
        self.last_fetch = Some((now, leader_end));
    }

    fn is_caught_up(&self, leader_end: i64, now: Instant, lag_max: Duration) -> bool {
        let is_recent = |then| now.saturating_duration_since(then) <= lag_max;
        self.end == leader_end || self.caught_up.is_some_and(is_recent)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Followers {
    own: i32,
    leader_epoch: i32,
    partition_epoch: i32,
    isr: Vec<i32>,
    /// The in-sync set of the proposal under way.
    proposed: Option<Vec<i32>>,
    /// Where the leader's epoch began: who is not that far cannot join.
    epoch_start: i64,
    followers: BTreeMap<i32, Follower>,
}

impl Followers {
    /// Of a leader whose epoch begins at an offset.
    pub(super) fn new(state: &PartitionState, epoch_start: i64, now: Instant) -> Self {
        let mut followers = Self {
            own: state.own,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            isr: Vec::new(),
            proposed: None,
            epoch_start,
            followers: BTreeMap::new(),
        };
        followers.take(state, now);
        followers
    }

    fn take(&mut self, state: &PartitionState, now: Instant) {
        self.partition_epoch = state.partition_epoch;
        self.isr.clone_from(&state.isr);
        self.proposed = None;
        let others = state.replicas.iter().filter(|id| **id != self.own);
        self.followers.retain(|id, _| state.replicas.contains(id));
        for id in others {
            let is_in_sync = state.isr.contains(id);
            let new = || Follower::new(is_in_sync, now);
            self.followers.entry(*id).or_insert_with(new);
        }
    }

    /// Takes over what the cluster says, unless it is older than what is known.
    pub(super) fn update(&mut self, state: &PartitionState, now: Instant) {
        if state.leader_epoch == self.leader_epoch && state.partition_epoch > self.partition_epoch {
            self.take(state, now);
        }
    }

    /// Whether a broker keeps the partition.
    pub(super) fn has(&self, replica: i32) -> bool {
        self.followers.contains_key(&replica)
    }

    /// Where the leader's epoch began.
    pub(super) fn epoch_start(&self) -> i64 {
        self.epoch_start
    }

    /// Notes a fetch; one of an earlier registration of the broker than one before says nothing (KIP-903), unless it is the one
    /// that the broker has: who claims a later one does not keep the broker out.
    pub(super) fn fetched(
        &mut self,
        fetch: &FollowerFetch,
        is_registered: bool,
        clock: Option<&Arc<SessionClock>>,
        leader_end: i64,
        now: Instant,
    ) -> FollowerNoted {
        let Some(follower) = self.followers.get_mut(&fetch.replica) else {
            return FollowerNoted::Refused;
        };
        // It was asked in another epoch, and took long to read: the follower may have less by now.
        if fetch.leader_epoch != -1 && fetch.leader_epoch != self.leader_epoch {
            return FollowerNoted::Refused;
        }
        let is_earlier = fetch.broker_epoch != -1 && follower.broker_epoch > fetch.broker_epoch;
        if is_earlier && !is_registered {
            return FollowerNoted::Refused;
        }
        follower.fetched(fetch, leader_end, now);
        follower.clock = clock.cloned();
        match self.isr.contains(&fetch.replica) {
            true => FollowerNoted::InSync,
            false => FollowerNoted::OutOfSync,
        }
    }

    /// The leader's log ends further on than there from now on: who had it all had it at the latest fetch of its session.
    pub(super) fn fall_behind(&mut self, leader_end: i64) {
        for follower in self.followers.values_mut() {
            follower.caught_up = follower.caught_up(leader_end);
        }
    }

    fn is_in_maximal_isr(&self, id: i32) -> bool {
        let proposed = self.proposed.as_ref();
        self.isr.contains(&id) || proposed.is_some_and(|isr| isr.contains(&id))
    }

    /// What is before it every replica has that counts; `None` while too few are in sync for anything to be committed. Who has
    /// caught up of late, `is_eligible` and will be in sync soon counts too, so that it can join under load (Kafka's
    /// Partition.maybeIncrementLeaderHW).
    pub(super) fn committed_end(
        &self,
        leader_end: i64,
        needed: usize,
        now: Instant,
        lag_max: Duration,
        is_eligible: impl Fn(i32, i64) -> bool,
    ) -> Option<i64> {
        if self.isr.len() < needed {
            return None;
        }
        let counts = |(id, follower): &(&i32, &Follower)| {
            self.is_in_maximal_isr(**id)
                || (follower.end >= self.epoch_start
                    && follower.is_caught_up(leader_end, now, lag_max)
                    && is_eligible(**id, follower.broker_epoch))
        };
        let counting = self.followers.iter().filter(counts);
        let least = counting.map(|(_, follower)| follower.end).min();
        Some(least.unwrap_or(i64::MAX))
    }

    /// Whether a follower may join: it has all that is committed, and is in the leader's epoch (Kafka's
    /// Partition.isFollowerInSync).
    pub(super) fn may_join(&self, replica: i32, high_watermark: i64) -> bool {
        let is_far_enough = |follower: &Follower| {
            follower.end >= high_watermark && follower.end >= self.epoch_start
        };
        self.proposed.is_none()
            && !self.isr.contains(&replica)
            && self.followers.get(&replica).is_some_and(is_far_enough)
    }

    /// Who is in sync and has not been at the leader's end for longer than is allowed.
    fn is_lagging(&self, id: i32, leader_end: i64, now: Instant, lag_max: Duration) -> bool {
        let follower = self.followers.get(&id);
        follower.is_some_and(|follower| !follower.is_caught_up(leader_end, now, lag_max))
    }

    /// Whether somebody who is in sync lags.
    pub(super) fn has_laggards(&self, leader_end: i64, now: Instant, lag_max: Duration) -> bool {
        let mut isr = self.isr.iter();
        self.proposed.is_none() && isr.any(|id| self.is_lagging(*id, leader_end, now, lag_max))
    }

    /// Begins a proposal, where there is one to be made: who lags leaves, and who has what is committed and `is_eligible` joins.
    pub(super) fn propose(
        &mut self,
        (leader_end, high_watermark): (i64, i64),
        now: Instant,
        lag_max: Duration,
        is_eligible: impl Fn(i32, i64) -> bool,
    ) -> Option<IsrChange> {
        if self.proposed.is_some() {
            return None;
        }
        let stays = |id: &i32| !self.is_lagging(*id, leader_end, now, lag_max);
        let mut isr: Vec<i32> = self.isr.iter().copied().filter(stays).collect();
        for (id, follower) in &self.followers {
            // One that asks no more is not back, whatever it had.
            let asks = follower
                .last_fetch
                .is_some_and(|(then, _)| now.saturating_duration_since(then) <= lag_max);
            let joins = asks
                && self.may_join(*id, high_watermark)
                && is_eligible(*id, follower.broker_epoch);
            if joins {
                isr.push(*id);
            }
        }
        if isr == self.isr {
            return None;
        }
        let epoch_of = |id: &i32| {
            self.followers
                .get(id)
                .map_or(-1, |known| known.broker_epoch)
        };
        let with_epochs = isr.iter().map(|id| (*id, epoch_of(id))).collect();
        self.proposed = Some(isr);
        Some(IsrChange {
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            isr: with_epochs,
        })
    }

    /// The proposal made from this state failed, and nothing came of it for sure; it may be made again.
    pub(super) fn withdraw(&mut self, partition_epoch: i32) {
        if self.partition_epoch == partition_epoch {
            self.proposed = None;
        }
    }

    /// How each follower is.
    pub(super) fn states(&self, leader_end: i64) -> Vec<FollowerState> {
        let state = |(id, follower): (&i32, &Follower)| FollowerState {
            replica: *id,
            log_end: follower.end,
            log_start: follower.log_start,
            is_in_sync: self.isr.contains(id),
            caught_up: follower.caught_up(leader_end),
        };
        self.followers.iter().map(state).collect()
    }

    /// The least start of log among the followers that are `live`; `None` where one of them has not said.
    pub(super) fn least_log_start(&self, is_live: impl Fn(i32) -> bool) -> Option<i64> {
        let live = self.followers.iter().filter(|(id, _)| is_live(**id));
        let starts: Vec<i64> = live.map(|(_, follower)| follower.log_start).collect();
        match starts.contains(&-1) {
            true => None,
            false => Some(starts.into_iter().min().unwrap_or(i64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::Eligible;

    const LAG_MAX: Duration = Duration::from_secs(30);

    fn state(isr: &[i32], partition_epoch: i32) -> PartitionState {
        PartitionState {
            own: 1,
            leader: 1,
            leader_epoch: 4,
            partition_epoch,
            replicas: vec![1, 2, 3],
            isr: isr.to_vec(),
            eligible: Eligible::None,
        }
    }

    fn fetch(replica: i32, offset: i64) -> FollowerFetch {
        FollowerFetch {
            replica,
            broker_epoch: 7,
            leader_epoch: -1,
            offset,
            log_start: 0,
        }
    }

    fn any(_: i32, _: i64) -> bool {
        true
    }

    #[test]
    fn committed_is_what_all_that_are_in_sync_have() {
        let now = Instant::now();
        let mut followers = Followers::new(&state(&[1, 2], 1), 5, now);
        let committed = |followers: &Followers| followers.committed_end(20, 2, now, LAG_MAX, any);
        // It has not fetched yet.
        assert_eq!(committed(&followers), Some(-1));
        followers.fetched(&fetch(2, 12), false, None, 20, now);
        assert_eq!(committed(&followers), Some(12));
        // Far off, and not in sync.
        followers.fetched(&fetch(3, 1), false, None, 20, now);
        assert_eq!(committed(&followers), Some(12));
        followers.update(&state(&[1], 2), now);
        assert_eq!(committed(&followers), None);
        // It may be back at once.
        assert_eq!(followers.committed_end(20, 1, now, LAG_MAX, any), Some(12));
        // It is not there.
        let refuse = |_: i32, _: i64| false;
        let without = followers.committed_end(20, 1, now, LAG_MAX, refuse);
        assert_eq!(without, Some(i64::MAX));
        let later = now + 2 * LAG_MAX;
        assert_eq!(
            followers.committed_end(20, 1, later, LAG_MAX, any),
            Some(i64::MAX)
        );
    }

    #[test]
    fn who_joins_counts_from_the_proposal_on_and_who_is_to_leave_until_it_is_answered() {
        let now = Instant::now();
        let mut followers = Followers::new(&state(&[1, 2], 1), 5, now);
        followers.fetched(&fetch(2, 20), false, None, 20, now);
        followers.fetched(&fetch(3, 18), false, None, 20, now);
        assert!(followers.may_join(3, 18) && !followers.may_join(3, 19));
        let later = now + 2 * LAG_MAX;
        followers.fetched(&fetch(3, 18), false, None, 18, later);
        let proposal = followers.propose((30, 18), later, LAG_MAX, any).unwrap();
        assert_eq!(proposal.isr, [(1, -1), (3, 7)]);
        assert_eq!((proposal.leader_epoch, proposal.partition_epoch), (4, 1));
        assert_eq!(
            followers.committed_end(30, 2, later, LAG_MAX, any),
            Some(18)
        );
        assert!(followers.propose((30, 18), later, LAG_MAX, any).is_none());
        followers.update(&state(&[1, 3], 2), later);
        followers.fetched(&fetch(3, 25), false, None, 30, later);
        assert_eq!(
            followers.committed_end(30, 2, later, LAG_MAX, any),
            Some(25)
        );
    }

    #[test]
    fn who_asks_no_more_does_not_join_with_another_one() {
        let now = Instant::now();
        let mut followers = Followers::new(&state(&[1], 1), 0, now);
        followers.fetched(&fetch(2, 20), false, None, 20, now);
        let later = now + 2 * LAG_MAX;
        followers.fetched(&fetch(3, 20), false, None, 20, later);
        let proposal = followers.propose((20, 20), later, LAG_MAX, any).unwrap();
        assert_eq!(proposal.isr, [(1, -1), (3, 7)]);
    }

    #[test]
    fn who_has_not_reached_the_leaders_epoch_or_is_not_eligible_does_not_join() {
        let now = Instant::now();
        let mut followers = Followers::new(&state(&[1, 2], 1), 15, now);
        followers.fetched(&fetch(2, 20), false, None, 20, now);
        followers.fetched(&fetch(3, 12), false, None, 20, now);
        assert!(!followers.may_join(3, 10));
        followers.fetched(&fetch(3, 15), false, None, 20, now);
        let refuse = |_: i32, _: i64| false;
        assert!(followers.propose((20, 10), now, LAG_MAX, refuse).is_none());
        assert!(followers.propose((20, 10), now, LAG_MAX, any).is_some());
    }

    #[test]
    fn a_fetch_of_an_earlier_life_of_a_broker_says_nothing() {
        let now = Instant::now();
        let mut followers = Followers::new(&state(&[1], 1), 0, now);
        let noted = followers.fetched(&fetch(2, 3), false, None, 20, now);
        assert_eq!(noted, FollowerNoted::OutOfSync);
        let mut earlier = fetch(2, 20);
        earlier.broker_epoch = 6;
        let noted = followers.fetched(&earlier, false, None, 20, now);
        assert!(noted == FollowerNoted::Refused && !followers.may_join(2, 20));
        let noted = followers.fetched(&fetch(9, 20), false, None, 20, now);
        assert_eq!(noted, FollowerNoted::Refused);
    }

    #[test]
    fn who_claims_a_later_registration_does_not_keep_the_broker_out() {
        let now = Instant::now();
        let mut followers = Followers::new(&state(&[1], 1), 0, now);
        let mut claimed = fetch(2, 3);
        claimed.broker_epoch = i64::MAX;
        followers.fetched(&claimed, false, None, 20, now);
        let noted = followers.fetched(&fetch(2, 20), true, None, 20, now);
        assert!(noted == FollowerNoted::OutOfSync && followers.may_join(2, 20));
    }

    #[test]
    fn a_follower_leaves_that_did_not_reach_the_leaders_end_for_too_long() {
        let now = Instant::now();
        let mut followers = Followers::new(&state(&[1, 2, 3], 1), 0, now);
        let later = now + LAG_MAX / 2;
        followers.fetched(&fetch(2, 10), false, None, 10, later);
        // It reached what was the end at its fetch before.
        followers.fetched(&fetch(2, 10), false, None, 20, later + LAG_MAX / 2);
        let end = later + LAG_MAX;
        assert!(followers.has_laggards(20, end, LAG_MAX));
        let proposal = followers.propose((20, 5), end, LAG_MAX, any).unwrap();
        assert_eq!(proposal.isr, [(1, -1), (2, 7)]);
        // Not known what became of it.
        assert!(!followers.has_laggards(20, end, LAG_MAX));
        followers.withdraw(1);
        assert!(followers.has_laggards(20, end, LAG_MAX));
    }

    #[test]
    fn who_has_it_all_is_caught_up_as_of_its_sessions_latest_fetch() {
        let now = Instant::now();
        let mut followers = Followers::new(&state(&[1, 2, 3], 1), 0, now);
        let (clock, other) = (Arc::new(SessionClock::new(now)), SessionClock::new(now));
        followers.fetched(&fetch(2, 10), false, Some(&clock), 10, now);
        followers.fetched(&fetch(3, 10), false, Some(&Arc::new(other)), 10, now);
        // The session of one of them goes on; the log rests.
        let later = now + 2 * LAG_MAX;
        clock.fetched(later);
        followers.fall_behind(10);
        clock.fetched(later + LAG_MAX);
        let proposal = followers.propose((20, 10), later, LAG_MAX, any).unwrap();
        assert_eq!(proposal.isr, [(1, -1), (2, 7)]);
        let caught_up = followers
            .states(20)
            .iter()
            .map(|one| one.caught_up)
            .collect::<Vec<_>>();
        assert_eq!(caught_up, [Some(later), Some(now)]);
    }

    #[test]
    fn what_is_older_than_what_is_known_changes_nothing() {
        let now = Instant::now();
        let mut followers = Followers::new(&state(&[1, 2], 5), 0, now);
        followers.update(&state(&[1], 5), now);
        followers.update(&state(&[1], 4), now);
        assert_eq!(followers.isr.len(), 2);
        let mut other_epoch = state(&[1], 6);
        other_epoch.leader_epoch = 5;
        followers.update(&other_epoch, now);
        assert_eq!(followers.isr.len(), 2);
        followers.update(&state(&[1], 6), now);
        assert_eq!(followers.isr.len(), 1);
    }
}
