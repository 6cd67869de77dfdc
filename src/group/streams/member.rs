//! A member of a streams group: a thread of the application.
//!
//! Tests: group/streams/tests.rs, group/streams/model.rs.

use std::collections::BTreeMap;

use super::tasks::{AssignedTasks, TargetTasks};
use crate::group::reserved::Reserved;

/// What an entry of a map takes besides its text, bytes, roughly.
pub(super) const ENTRY_BYTES: usize = 64;

/// Where a member stands on its way to its target (Kafka's streams MemberState).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::group) enum MemberState {
    /// It has what its epoch says.
    #[default]
    Stable,
    /// It is asked to give tasks up, and has not said yet that it has.
    UnrevokedTasks,
    /// It waits for tasks that others have.
    UnreleasedTasks,
}

impl MemberState {
    const ALL: [Self; 3] = [Self::Stable, Self::UnrevokedTasks, Self::UnreleasedTasks];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stable => "STABLE",
            Self::UnrevokedTasks => "UNREVOKED_TASKS",
            Self::UnreleasedTasks => "UNRELEASED_TASKS",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What a member says of itself; the group's epoch grows where it is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::group) struct MemberMetadata {
    /// `group.instance.id` of a static member.
    pub(in crate::group) instance_id: Option<String>,
    pub(in crate::group) rack: Option<String>,
    pub(in crate::group) client_id: String,
    pub(in crate::group) client_host: String,
    /// How long it may take to give tasks up, ms.
    pub(in crate::group) rebalance_timeout_ms: i32,
    /// Of the topology that it runs; -1 before it says.
    pub(in crate::group) topology_epoch: i32,
    /// The process that it is a thread of.
    pub(in crate::group) process_id: String,
    /// Where its state can be asked for.
    pub(in crate::group) endpoint: Option<Endpoint>,
    pub(in crate::group) client_tags: BTreeMap<String, String>,
}

impl MemberMetadata {
    pub(super) fn new() -> Self {
        Self {
            instance_id: None,
            rack: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: -1,
            topology_epoch: -1,
            process_id: String::new(),
            endpoint: None,
            client_tags: BTreeMap::new(),
        }
    }

    /// What it takes, bytes, roughly.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.instance_id, &self.rack];
        let texts = texts.into_iter().flatten().map(String::len);
        let endpoint = self.endpoint.iter().map(|endpoint| endpoint.host.len());
        let tags = self.client_tags.iter();
        let tags = tags.map(|(key, value)| ENTRY_BYTES + key.len() + value.len());
        self.process_id.len() + texts.chain(endpoint).chain(tags).sum::<usize>()
    }

    /// Whether another target may follow from the difference for a static member, which comes back under other ids.
    pub(super) fn differs_for_assignment(&self, other: &Self) -> bool {
        self.topology_epoch != other.topology_epoch
            || self.rack != other.rack
            || self.client_tags != other.client_tags
            || self.process_id != other.process_id
    }
}

/// A host and a port, as the application says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// What of the memory for members a heartbeat takes, for what is kept of it.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    /// What the member says of itself.
    pub member: Option<Reserved>,
    /// The topology.
    pub topology: Option<Reserved>,
    /// How far its copies of state are.
    pub offsets: Option<Reserved>,
    /// How far they could be.
    pub end_offsets: Option<Reserved>,
}

/// Positions in changelogs, by subtopology and partition.
pub(in crate::group) type TaskOffsets = BTreeMap<(String, i32), i64>;

/// See the module's documentation. Tasks are the member's from when they are in `assigned` until they are in neither of
/// `assigned` and `revoking`.
#[derive(Debug, Clone)]
pub(in crate::group) struct StreamsMember {
    pub(in crate::group) id: String,
    pub(in crate::group) metadata: MemberMetadata,
    pub(in crate::group) state: MemberState,
    /// -2 for a static member that left for a while.
    pub(in crate::group) epoch: i32,
    pub(in crate::group) previous_epoch: i32,
    pub(in crate::group) assigned: AssignedTasks,
    /// What it is asked to give up.
    pub(in crate::group) revoking: AssignedTasks,
    pub(in crate::group) target: TargetTasks,

    /// How far its copies of state are, and how far they could be, as it last said; not stored.
    pub(super) offsets: TaskOffsets,
    pub(super) end_offsets: TaskOffsets,
    /// Silent until then it is thrown out, ms.
    pub(super) session_deadline_ms: i64,
    /// It must have given tasks up by then, ms.
    pub(super) revocation_deadline_ms: Option<i64>,
    /// Its shares of what groups may hold in memory; not the topology's, which is the group's.
    pub(super) reserved: Shares,
}

impl StreamsMember {
    pub(super) fn new(id: String) -> Self {
        Self {
            id,
            metadata: MemberMetadata::new(),
            state: MemberState::Stable,
            epoch: 0,
            previous_epoch: 0,
            assigned: AssignedTasks::default(),
            revoking: AssignedTasks::default(),
            target: TargetTasks::default(),
            offsets: TaskOffsets::new(),
            end_offsets: TaskOffsets::new(),
            session_deadline_ms: i64::MAX,
            revocation_deadline_ms: None,
            reserved: Shares::default(),
        }
    }

    /// Whether it has what a target epoch gives it.
    pub(super) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
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
        if self.session_deadline_ms <= now_ms {
            return Some("a member was silent for its session timeout");
        }
        let is_over = self.revocation_deadline_ms.is_some_and(|at| at <= now_ms);
        is_over.then_some("a member did not give its tasks up within its rebalance timeout")
    }

    /// The first moment at which something is due, ms.
    pub(super) fn next_deadline(&self) -> i64 {
        let revocation = self.revocation_deadline_ms.unwrap_or(i64::MAX);
        self.session_deadline_ms.min(revocation)
    }
}
