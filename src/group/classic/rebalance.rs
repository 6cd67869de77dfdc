//! The rebalance of a classic group: which members are in the next generation, under which assignor, and what happens
//! when time is over.
//!
//! Tests: group/classic/tests.rs, group/classic/tests/timers.rs.

use std::collections::BTreeMap;

use super::{Change, ClassicGroup, Effect, Limits, Member, State, Supported};
use crate::group::messages::GroupError;

/// If no member rejoined, they are waited for again for at least this long: their rebalance timeout may be 0, and a
/// deadline that is over as soon as it is set would be due again and again within the same millisecond.
pub(super) const REJOIN_WAIT_MS_MIN: i64 = 1000;

impl ClassicGroup {
    /// Begins a rebalance, or completes the one that is under way if all have joined.
    pub(super) fn prepare_or_go_on(&mut self, now_ms: i64, limits: &Limits) {
        if self.state != State::PreparingRebalance {
            let was_empty = self.state == State::Empty;
            self.note_begin(now_ms);
            self.abandon_sync(GroupError::RebalanceInProgress);
            self.enter(State::PreparingRebalance, now_ms);
            self.sync_deadline_ms = None;
            let rebalance_timeout = self.rebalance_timeout_ms();
            let delay = limits.initial_rebalance_delay_ms;
            let joins = self.members.values().any(|m| m.awaiting_join.is_some());
            // As GroupMetadataManager.prepareRebalance: whoever has no more than an id when the delay of a new group is over is
            // not waited for.
            if was_empty && delay <= 0 && joins {
                return self.complete_join(now_ms);
            }
            if was_empty && delay > 0 {
                self.join_deadline_ms = Some(now_ms + delay);
                self.initial_delay_left_ms = Some((rebalance_timeout - delay).max(0));
                self.joined_during_delay = false;
            } else {
                self.join_deadline_ms = Some(now_ms + rebalance_timeout);
                self.initial_delay_left_ms = None;
            }
        }
        self.complete_join_if_all(now_ms);
    }

    /// The same, with a member that joined.
    pub(super) fn prepare_and_join(&mut self, now_ms: i64, member_id: &str, limits: &Limits) {
        if self.state == State::PreparingRebalance {
            self.note_joined(now_ms, member_id);
        }
        self.prepare_or_go_on(now_ms, limits);
    }

    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        self.members
            .values()
            .map(|member| i64::from(member.rebalance_timeout_ms))
            .max()
            .unwrap_or(0)
    }

    pub(super) fn complete_join_if_all(&mut self, now_ms: i64) {
        let all_joined = self
            .members
            .values()
            .all(|member| member.awaiting_join.is_some());
        if self.state == State::PreparingRebalance
            && self.initial_delay_left_ms.is_none()
            && all_joined
            && self.pending.is_empty()
        {
            self.complete_join(now_ms);
        }
    }

    /// The join phase is over: members that did not join are out, the others are a generation.
    pub(super) fn complete_join(&mut self, now_ms: i64) {
        self.join_deadline_ms = None;
        self.initial_delay_left_ms = None;
        let gone = |member: &Member| member.awaiting_join.is_none() && member.instance_id.is_none();
        let gone: Vec<String> = self
            .members
            .values()
            .filter(|member| gone(member))
            .map(|m| m.id.clone())
            .collect();
        for id in gone {
            tracing::debug!(member = id, "did not rejoin in time");
            self.forget(&id);
            if let Some(under_way) = &mut self.rebalancing {
                under_way.missing += 1;
            }
        }
        if self.members.is_empty() {
            self.become_empty(now_ms);
            return;
        }
        let Some(first) = self
            .members
            .values()
            .filter(|m| m.awaiting_join.is_some())
            .min_by_key(|m| m.rank)
        else {
            // Static members only, none of them back yet: wait for them once more.
            let wait_ms = self.rebalance_timeout_ms().max(REJOIN_WAIT_MS_MIN);
            self.join_deadline_ms = Some(now_ms + wait_ms);
            return;
        };
        let first = first.id.clone();
        let leader_joined = self
            .leader
            .as_ref()
            .and_then(|id| self.members.get(id))
            .is_some_and(|m| m.awaiting_join.is_some());
        if !leader_joined {
            self.leader = Some(first);
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        self.protocol = self.choose_protocol();
        self.enter(State::CompletingRebalance, now_ms);
        self.sync_deadline_ms = Some(now_ms + self.rebalance_timeout_ms());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let reply = self.current(&id);
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.is_new = false;
            member.has_synced = false;
            member.heard(now_ms);
            if let Some(waiter) = member.awaiting_join.take() {
                self.effects.push(Effect::Join(waiter, Ok(reply)));
            }
        }
        self.find_due();
    }

    pub(super) fn become_empty(&mut self, now_ms: i64) {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.protocol = None;
        self.leader = None;
        self.join_deadline_ms = None;
        self.initial_delay_left_ms = None;
        self.sync_deadline_ms = None;
        self.find_due();
        self.enter(State::Empty, now_ms);
        self.note_end(now_ms);
        self.store_empty();
    }

    fn store_empty(&mut self) {
        let generation = self.generation;
        let change = Change::Emptied { generation };
        self.effects.push(Effect::Persist(change));
    }

    /// The assignor that most members prefer among those that all support.
    pub(super) fn choose_protocol(&self) -> Option<String> {
        debug_assert_eq!(self.supported, Supported::by(self.members.values()));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let mut known = member.protocols.iter();
            if let Some((name, _)) = known.find(|(name, _)| self.all_support(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes
            .into_iter()
            .max_by_key(|(_, votes)| *votes)
            .map(|(name, _)| name.to_owned())
    }

    pub(super) fn all_support(&self, protocol: &str) -> bool {
        self.supported.count(protocol) == self.members.len()
    }

    /// The first moment at which a member is silent for too long, or an id that was given out ends, ms. Whoever makes one of
    /// these earlier lowers `due_ms` at once; one that becomes later leaves it, until it is found by this.
    fn first_due_ms(&self) -> i64 {
        let members = self.members.values();
        let heeded = members.filter(|member| !member.is_waiting() || member.is_new);
        let silent = heeded.map(|member| member.deadline_ms);
        let pending = self.pending.values().map(|id| id.until_ms);
        silent.chain(pending).min().unwrap_or(i64::MAX)
    }

    pub(super) fn find_due(&mut self) {
        self.due_ms = self.first_due_ms();
    }

    /// When [`Self::tick`] may have something to do, ms.
    pub(in crate::group) fn next_deadline(&self) -> Option<i64> {
        debug_assert!(self.due_ms <= self.first_due_ms(), "no timer is late");
        let due = (self.due_ms < i64::MAX).then_some(self.due_ms);
        [
            due,
            self.join_deadline_ms,
            self.sync_deadline_ms,
            self.store_again_ms,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(in crate::group) fn tick(&mut self, now_ms: i64, limits: &Limits) {
        self.pending.retain(|_, id| id.until_ms > now_ms);
        if self.store_again_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.store_again_ms = None;
            self.store_empty();
        }
        let silent = |member: &&Member| {
            member.deadline_ms <= now_ms && (!member.is_waiting() || member.is_new)
        };
        let silent: Vec<String> = self
            .members
            .values()
            .filter(silent)
            .map(|member| member.id.clone())
            .collect();
        for id in silent {
            tracing::info!(
                member = id,
                "the member was silent for longer than its session timeout"
            );
            let why = "a member was silent for longer than its session timeout";
            self.drop_member(now_ms, &id, why, limits);
        }
        if self
            .sync_deadline_ms
            .is_some_and(|deadline| deadline <= now_ms)
        {
            self.drop_unsynced(now_ms, limits);
        }
        if self
            .join_deadline_ms
            .is_some_and(|deadline| deadline <= now_ms)
        {
            match self.initial_delay_left_ms {
                Some(left) if left > 0 && self.joined_during_delay => {
                    let delay = limits.initial_rebalance_delay_ms.min(left);
                    self.initial_delay_left_ms = Some(left - delay);
                    self.join_deadline_ms = Some(now_ms + delay);
                    self.joined_during_delay = false;
                }
                _ => self.complete_join(now_ms),
            }
        }
        self.complete_join_if_all(now_ms);
        self.find_due();
    }

    /// Members that joined but never asked for their assignment are out (KAFKA-9752).
    fn drop_unsynced(&mut self, now_ms: i64, limits: &Limits) {
        self.sync_deadline_ms = None;
        if !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        let unsynced = self.members.values().filter(|member| !member.has_synced);
        let unsynced: Vec<String> = unsynced.map(|member| member.id.clone()).collect();
        // All have: the assignment takes long to be stored.
        let Some(first) = unsynced.first() else {
            return;
        };
        let why = "a member did not ask for its assignment in time";
        self.because(first.clone(), why);
        for id in unsynced {
            tracing::info!(
                member = id,
                "the member did not ask for its assignment in time"
            );
            self.forget(&id);
        }
        match self.members.is_empty() {
            true => self.become_empty(now_ms),
            false => self.prepare_or_go_on(now_ms, limits),
        }
    }
}
