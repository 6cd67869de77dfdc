//! A member of a consumer group, and what of it is stored.
//!
//! Tests: group/consumer/tests.rs, group/consumer/model.rs.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::partitions::{Assigned, Partitions};
use crate::group::reserved::Reserved;

/// Where a member stands on its way to its target (Kafka's MemberState).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::group) enum MemberState {
    /// It has what its epoch says.
    #[default]
    Stable,
    /// It is asked to give partitions up, and has not said yet that it has.
    UnrevokedPartitions,
    /// It waits for partitions that others have.
    UnreleasedPartitions,
}

impl MemberState {
    pub(in crate::group) fn name(self) -> &'static str {
        match self {
            Self::Stable => "STABLE",
            Self::UnrevokedPartitions => "UNREVOKED_PARTITIONS",
            Self::UnreleasedPartitions => "UNRELEASED_PARTITIONS",
        }
    }

    pub(in crate::group) fn named(name: &str) -> Option<Self> {
        [
            Self::Stable,
            Self::UnrevokedPartitions,
            Self::UnreleasedPartitions,
        ]
        .into_iter()
        .find(|state| state.name() == name)
    }
}

/// What a member of the classic protocol brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::group) struct ClassicProtocol {
    pub(in crate::group) session_timeout_ms: i32,
    /// Assignors in the member's order, each with its subscription.
    pub(in crate::group) protocols: Vec<(String, Bytes)>,
}

/// What a member reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::group) struct Reads {
    pub(in crate::group) topics: BTreeSet<String>,
    /// Topics by a regular expression; an empty one is none.
    pub(in crate::group) regex: Option<String>,
    /// The assignor that it prefers to share them.
    pub(in crate::group) assignor: Option<String>,
}

impl Reads {
    /// The regular expression, where there is one.
    pub(in crate::group) fn pattern(&self) -> Option<&str> {
        self.regex.as_deref().filter(|regex| !regex.is_empty())
    }
}

/// See the module's documentation. Partitions are the member's from when they are in `assigned` until they are in neither
/// of `assigned` and `revoking`.
#[derive(Debug, Clone, Default)]
pub(in crate::group) struct ConsumerMember {
    pub(in crate::group) id: String,
    /// `group.instance.id` of a static member.
    pub(in crate::group) instance_id: Option<String>,
    pub(in crate::group) rack_id: Option<String>,
    pub(in crate::group) client_id: String,
    pub(in crate::group) client_host: String,
    /// The connection that it last spoke by; it is not stored.
    pub(in crate::group) connection: Option<u64>,
    /// How long it may take to give partitions up, ms.
    pub(in crate::group) rebalance_timeout_ms: i32,
    pub(in crate::group) reads: Reads,
    /// Where it speaks the classic protocol.
    pub(in crate::group) classic: Option<ClassicProtocol>,
    pub(in crate::group) state: MemberState,
    /// -2 for a static member that left for a while.
    pub(in crate::group) epoch: i32,
    pub(in crate::group) previous_epoch: i32,
    pub(in crate::group) assigned: Assigned,
    /// What it is asked to give up.
    pub(in crate::group) revoking: Assigned,
    pub(in crate::group) target: Partitions,
    /// The group epoch that the target was made for.
    pub(in crate::group) target_epoch: i32,

    /// Silent until then it is thrown out, ms.
    pub(super) session_deadline_ms: i64,
    /// It must have given partitions up by then, ms.
    pub(super) revocation_deadline_ms: Option<i64>,
    /// A classic member must have joined again by then, ms.
    pub(super) join_deadline_ms: Option<i64>,
    /// A classic member must have synced by then, ms.
    pub(super) sync_deadline_ms: Option<i64>,
    /// The change that last touched it.
    pub(super) changed: u64,
    /// Its share of what groups may hold in memory.
    pub(super) reserved: Option<Reserved>,
}

impl ConsumerMember {
    pub(in crate::group) fn new(id: String) -> Self {
        Self {
            id,
            rebalance_timeout_ms: -1,
            session_deadline_ms: i64::MAX,
            ..Self::default()
        }
    }

    pub(in crate::group) fn is_classic(&self) -> bool {
        self.classic.is_some()
    }

    /// Whether it has what a target epoch gives it.
    pub(in crate::group) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }

    /// The epoch that it has from now on. Until it speaks of that, it may still speak of the one before: an answer can be lost.
    pub(super) fn advance(&mut self, epoch: i32) {
        if epoch != self.epoch {
            self.previous_epoch = self.epoch;
            self.epoch = epoch;
        }
    }

    /// Why it is to be thrown out, if it is.
    pub(super) fn is_late(&self, now_ms: i64) -> Option<&'static str> {
        let is_over = |deadline_ms: Option<i64>| deadline_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if self.session_deadline_ms <= now_ms {
            Some("a member was silent for its session timeout")
        } else if is_over(self.revocation_deadline_ms) {
            Some("a member did not give its partitions up within its rebalance timeout")
        } else if is_over(self.join_deadline_ms) {
            Some("a classic member did not join again within its rebalance timeout")
        } else if is_over(self.sync_deadline_ms) {
            Some("a classic member did not sync within its rebalance timeout")
        } else {
            None
        }
    }

    /// The first moment at which something is due, ms.
    pub(super) fn next_deadline(&self) -> i64 {
        let more = [
            self.revocation_deadline_ms,
            self.join_deadline_ms,
            self.sync_deadline_ms,
        ];
        let more = more.into_iter().flatten();
        more.fold(self.session_deadline_ms, i64::min)
    }
}
