//! A classic consumer group as a state machine: no sockets, no clock, no locks (Kafka's GroupCoordinator and
//! GroupMetadata; KIP-134, 345, 394, 559, 814).
//!
//! ```text
//!            first join            all joined, or time over         leader synced, stored
//!   Empty ───────────────▶ PreparingRebalance ───────▶ CompletingRebalance ───────▶ Stable
//!     ▲                       │        ▲                     │                        │
//!     └── no member left ─────┘        └──── join, leave, silence, sync time over ────┘
//! ```
//!
//! Calls say what happened and when; [`ClassicGroup::take_effects`] says what to do about it, in order. The caller owns
//! time: it calls [`ClassicGroup::tick`] at [`ClassicGroup::next_deadline`].
//!
//! - `join`: how members get in; `membership`: signs of life, commits, how members go
//! - `rebalance`: the join phase and its end; `sync`: the assignment, until it is stored and given out
//! - `supported`: which assignors members support; `rebalanced`: what is reported of a rebalance
//! - `tests`: of all files here

mod join;
mod membership;
mod rebalance;
mod rebalanced;
mod supported;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use crate::group::member::{Member, Waiter};
use crate::group::messages::{
    GroupDescription, GroupError, JoinReply, MemberDescription, SyncReply,
};
use crate::group::reserved::Reserved;
use crate::group::subscription::subscribed_topics;

pub(in crate::group) use rebalanced::Rebalanced;
use supported::Supported;

/// State of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::group) enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Waiting for members to join.
    PreparingRebalance,
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    /// Every member has an assignment.
    Stable,
}

impl State {
    /// Whether there is such a transition.
    fn may_become(self, next: Self) -> bool {
        match next {
            Self::Empty => self != Self::Empty,
            Self::PreparingRebalance => self != Self::PreparingRebalance,
            Self::CompletingRebalance => self == Self::PreparingRebalance,
            Self::Stable => self == Self::CompletingRebalance,
        }
    }

    pub(in crate::group) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What must be done after a call; carried out in order.
#[derive(Debug, PartialEq)]
pub(in crate::group) enum Effect {
    /// Answer a join.
    Join(Waiter, Result<JoinReply, GroupError>),
    /// Answer a sync.
    Sync(Waiter, Result<SyncReply, GroupError>),
    /// Store the group, then call [`ClassicGroup::persisted`] with this and the outcome.
    Persist(Change),
}

/// Why a group is stored.
#[derive(Debug, PartialEq)]
pub(in crate::group) enum Change {
    /// The assignment of a generation, which is given out when it is stored.
    Assignment { generation: i32 },
    /// The last member is gone.
    Emptied { generation: i32 },
    /// A static member has another id; its join is answered when that is stored.
    Replaced {
        instance_id: String,
        waiter: Waiter,
        reply: JoinReply,
    },
}

/// Limits that a group keeps.
#[derive(Debug, Clone, Copy)]
pub(in crate::group) struct Limits {
    pub(in crate::group) initial_rebalance_delay_ms: i64,
    pub(in crate::group) members_max: usize,
    /// The group is of one member, which leads it whatever it was before.
    pub(in crate::group) alone: bool,
}

/// A member that was given an id and has not come back with it.
#[derive(Debug)]
struct Pending {
    /// How long the id holds, ms.
    until_ms: i64,
    /// Its share of what groups may hold in memory.
    _reserved: Option<Reserved>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::group) struct ClassicGroup {
    pub(in crate::group) state: State,
    pub(in crate::group) generation: i32,
    pub(in crate::group) protocol_type: Option<String>,
    pub(in crate::group) protocol: Option<String>,
    pub(in crate::group) leader: Option<String>,
    pub(in crate::group) members: BTreeMap<String, Member>,
    supported: Supported,
    /// Member ids by `group.instance.id`.
    pub(in crate::group) instances: HashMap<String, String>,
    /// Ids that were given out and not joined with.
    pending: BTreeMap<String, Pending>,
    /// No member is silent for too long before, nor does an id that was given out end, ms; perhaps none is then.
    due_ms: i64,
    /// When the state last changed, ms.
    pub(in crate::group) changed_ms: i64,
    /// End of the join phase, and what of the initial delay may still be added.
    join_deadline_ms: Option<i64>,
    initial_delay_left_ms: Option<i64>,
    joined_during_delay: bool,
    /// Members that have not synced by then are dropped.
    sync_deadline_ms: Option<i64>,
    /// The leader's assignment is being stored.
    storing: Option<sync::Assignments>,
    /// Static members as they are stored, by `group.instance.id`, while another id is being stored.
    replaced: BTreeMap<String, Member>,
    /// The empty group could not be stored: it is tried again then, ms.
    store_again_ms: Option<i64>,
    next_rank: u64,
    effects: Vec<Effect>,
    /// The member that would set off a rebalance, and why.
    cause: Option<rebalanced::Cause>,
    rebalancing: Option<rebalanced::Rebalancing>,
    rebalanced: Vec<Rebalanced>,
}

impl ClassicGroup {
    pub(in crate::group) fn new(now_ms: i64) -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            supported: Supported::default(),
            instances: HashMap::new(),
            pending: BTreeMap::new(),
            due_ms: i64::MAX,
            changed_ms: now_ms,
            join_deadline_ms: None,
            initial_delay_left_ms: None,
            joined_during_delay: false,
            sync_deadline_ms: None,
            storing: None,
            replaced: BTreeMap::new(),
            store_again_ms: None,
            next_rank: 0,
            effects: Vec::new(),
            cause: None,
            rebalancing: None,
            rebalanced: Vec::new(),
        }
    }

    /// The effects of the calls since the last one.
    pub(in crate::group) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Whether it has no members.
    pub(in crate::group) fn is_empty(&self) -> bool {
        self.state == State::Empty && self.members.is_empty()
    }

    /// Whether ids were given out that may still be joined with.
    pub(in crate::group) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Restores a member when the group is loaded.
    pub(in crate::group) fn restore(&mut self, mut member: Member, now_ms: i64) {
        member.is_new = false;
        member.rank = self.next_rank;
        self.next_rank += 1;
        member.heard(now_ms);
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        self.put(member);
    }

    /// Puts a member in.
    pub(super) fn put(&mut self, member: Member) {
        self.supported.add(&member);
        self.due_ms = self.due_ms.min(member.deadline_ms);
        if let Some(before) = self.members.insert(member.id.clone(), member) {
            self.supported.remove(&before);
        }
    }

    /// Takes a member out, for good or to put it in again.
    pub(super) fn take(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.supported.remove(&member);
        Some(member)
    }

    /// The group is none of the classic protocol any more: who waits is told to join again.
    pub(in crate::group) fn abandon(&mut self) -> Vec<Effect> {
        let error = GroupError::RebalanceInProgress;
        self.abandon_sync(error);
        for member in self.members.values_mut() {
            if let Some(waiter) = member.awaiting_join.take() {
                self.effects.push(Effect::Join(waiter, Err(error)));
            }
        }
        self.take_effects()
    }

    /// Its members come from a consumer group: they have what they are to have, and nobody has to join.
    pub(in crate::group) fn converted(&mut self, now_ms: i64) {
        self.protocol = self.choose_protocol();
        let first = self.members.values().min_by_key(|member| member.rank);
        self.leader = first.map(|member| member.id.clone());
        for member in self.members.values_mut() {
            member.has_synced = true;
        }
        self.state = State::Stable;
        self.changed_ms = now_ms;
    }

    /// Somebody outside uses its offsets, though it has no members.
    pub(in crate::group) fn was_in_use(&mut self, now_ms: i64) {
        self.protocol_type
            .get_or_insert_with(|| "consumer".to_owned());
        self.changed_ms = now_ms;
    }

    /// Begins a rebalance for a reason that no member gave.
    pub(in crate::group) fn rebalance_because(&mut self, now_ms: i64, why: &str, limits: &Limits) {
        self.because(String::new(), why);
        self.prepare_or_go_on(now_ms, limits);
    }

    pub(super) fn enter(&mut self, state: State, now_ms: i64) {
        debug_assert!(
            self.state.may_become(state),
            "{:?} to {state:?}",
            self.state
        );
        self.state = state;
        self.store_again_ms = None;
        self.changed_ms = now_ms;
    }

    /// Whether its members are consumers.
    pub(in crate::group) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some("consumer")
    }

    /// The topics that members read; `None` where their subscriptions cannot be read (Kafka's
    /// ClassicGroup.computeSubscribedTopics).
    pub(in crate::group) fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.is_of_consumers() {
            return None;
        }
        let mut read = BTreeSet::new();
        for member in self.members.values() {
            let metadata = member.metadata(self.protocol.as_deref()?);
            read.extend(subscribed_topics(&metadata)?);
        }
        Some(read)
    }

    /// The group for DescribeGroups.
    pub(in crate::group) fn describe(&self) -> GroupDescription {
        let protocol = self.protocol.clone().unwrap_or_default();
        let describe = |member: &Member| MemberDescription {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if self.state == State::Stable {
                member.metadata(&protocol)
            } else {
                Bytes::new()
            },
            assignment: member.assignment.clone(),
        };
        GroupDescription {
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: if self.state == State::Stable {
                protocol.clone()
            } else {
                String::new()
            },
            generation: self.generation,
            members: self.members.values().map(describe).collect(),
        }
    }
}
