//! Consumer groups: the classic protocol as a state machine without I/O, offsets, and the coordinator that runs
//! them and keeps them in the coordination tree.

mod classic;
mod coordinator;
mod member;
mod messages;
mod offsets;
mod persist;
mod reserved;
mod slot;
mod subscription;

pub use coordinator::{Coordinator, Found, GroupLimits, Resolve};
pub use messages::{
    CommitOffsets, CommittedOffset, GroupDescription, GroupError, GroupListing, GroupSurvey,
    JoinReply, JoinRequest, LeaveMember, MemberDescription, OffsetToCommit, SyncReply, SyncRequest,
};
pub use reserved::Reserved;
pub use subscription::assigned_partitions;
