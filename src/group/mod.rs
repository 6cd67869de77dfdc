//! Consumer groups: the classic protocol and offsets, as a machine of the [coordinator](crate::coordinator).
//!
//! - `group_coordinator`: what the rest of the broker asks
//! - `groups`: the machine: the groups of one slot
//! - `group`: one group; `classic`: its members, a state machine without I/O; `offsets`: its offsets; `pending`: those of open
//!   transactions; `producers`: the producers that a slot knows
//! - `persist`: groups and offsets as nodes of the coordination tree, and back; `record`: a group's own, in parts where
//!   it is large; `stored_transactions`: the same of what transactions have for groups
//! - `mirror`: groups and offsets as records of `__consumer_offsets`

mod asks;
mod classic;
#[allow(clippy::module_inception)] // the noun is the module's
mod group;
mod group_coordinator;
mod groups;
mod limits;
mod member;
mod messages;
mod mirror;
mod offsets;
mod pending;
mod persist;
mod producers;
mod record;
mod reserved;
mod stored_transactions;
mod subscription;
#[cfg(test)]
mod testing;

pub use asks::{FoundOffset, FoundOffsets, OffsetsQuery};
pub use group_coordinator::GroupCoordinator;
pub use limits::GroupLimits;
pub use messages::{
    CommitOffsets, CommittedOffset, GroupDescription, GroupError, GroupListing, GroupSurvey, Guard,
    Heartbeat, JoinReply, JoinRequest, LeaveMember, MemberDescription, OffsetToCommit, SyncReply,
    SyncRequest, TransactionEnd, TransactionalCommit,
};
pub use mirror::{MirrorFeed, MirrorRecord, MirrorUpdate};
pub use reserved::Reserved;
pub use subscription::assigned_partitions;
