//! Consumer groups: the classic protocol, that of KIP-848, and offsets, as a machine of the [coordinator](crate::coordinator).
//!
//! - `group_coordinator`: what the rest of the broker asks
//! - `groups`: the machine: the groups of one slot
//! - `group`: one group; `classic`: its members of the classic protocol, `consumer`: those of KIP-848, `share`: those of a share
//!   group, `streams`: threads of a Kafka Streams application (KIP-1071), state machines without I/O; `held_answers`: what waits until their changes are stored
//! - `offsets`: its offsets; `pending`: those of open transactions; `producers`: the producers that a slot knows
//! - `persist`: groups and offsets as nodes of the coordination tree, and back; `record`: a group's own, in parts where
//!   it is large; `stored_transactions`: the same of what transactions have for groups
//! - `solo`: the groups that a broadcast group is made of
//! - `mirror`: groups and offsets as records of `__consumer_offsets`

mod asks;
mod classic;
mod consumer;
#[allow(clippy::module_inception)] // the noun is the module's
mod group;
mod group_coordinator;
mod groups;
mod held_answers;
mod hosted_record;
mod limits;
mod member;
mod messages;
mod mirror;
mod offsets;
mod partitions;
mod pending;
mod persist;
mod producers;
mod record;
mod reserved;
mod share;
mod solo;
mod stored_transactions;
mod streams;
mod subscription;
#[cfg(test)]
mod testing;

pub use asks::{AskingMember, ByTopic, FoundOffset, FoundOffsets, OffsetsQuery};
pub use consumer::{
    Assignor, ConsumerGroupDescription, ConsumerHeartbeat, ConsumerMemberDescription,
    ConsumerReply, ConsumerSettings, GroupSettings, MemberPartitions, MigrationPolicy,
    VisibleTopics,
};
pub use group_coordinator::GroupCoordinator;
pub use limits::GroupLimits;
pub use messages::{
    CommitOffsets, CommittedOffset, Described, GroupDescription, GroupError, GroupKind,
    GroupListing, GroupSurvey, Guard, Heartbeat, JoinReply, JoinRequest, LeaveMember,
    MemberDescription, OffsetToCommit, Refusal, SyncReply, SyncRequest, TransactionEnd,
    TransactionalCommit,
};
pub use mirror::{MirrorFeed, MirrorRecord, MirrorUpdate};
pub use reserved::Reserved;
pub use share::{
    ShareGroupDescription, ShareGroupSettings, ShareHeartbeat, ShareMemberDescription, ShareReply,
    ToDelete, ToInitialize,
};
pub use solo::BROADCAST_PROTOCOL;
pub use streams::{
    Endpoint, EndpointPartitions, OwnedLists, Status, StatusCode, StreamsGroupDescription,
    StreamsHeartbeat, StreamsMemberDescription, StreamsReply, StreamsSettings, TaskNumbers,
    TaskOffset, TopicToCreate,
};
pub use subscription::assigned_partitions;
