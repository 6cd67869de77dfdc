//! What members ask of a group and what they are answered, without any wire format.
//!
//! Tests: group/groups/tests.rs, group/group_coordinator/tests.rs.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::consumer::ConsumerGroupDescription;
use super::reserved::Reserved;
use super::share::ShareGroupDescription;
use super::streams::StreamsGroupDescription;
use crate::coordinator::CoordinatorError;
use crate::log::{Outcome, TransactionMarker, TransactionVersion};

/// Why a group refuses; named as Kafka's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // each says what it is
pub enum GroupError {
    #[error("the group id is invalid")]
    InvalidGroupId,
    #[error("the session timeout is outside the range of this broker")]
    InvalidSessionTimeout,
    #[error("the member is not known to the group")]
    UnknownMemberId,
    #[error("the member must rejoin with the id it is given")]
    MemberIdRequired,
    #[error("another member with the same group.instance.id took over")]
    FencedInstanceId,
    #[error("the group has no room for another member")]
    GroupMaxSizeReached,
    #[error("the member's protocols do not fit the group's")]
    InconsistentGroupProtocol,
    #[error("the generation is not the group's")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    #[error("another broker coordinates the group")]
    NotCoordinator,
    #[error("the group is being read from the coordination tree")]
    CoordinatorLoadInProgress,
    #[error("the group id does not exist")]
    GroupIdNotFound,
    #[error("the group is not empty")]
    NonEmptyGroup,
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    #[error("the committed metadata is too large")]
    OffsetMetadataTooLarge,
    #[error("the offsets of all groups would take more memory than group.offsets.max.bytes")]
    OffsetsTooLarge,
    #[error("the topic or partition does not exist")]
    UnknownTopicOrPartition,
    #[error("the request makes no sense")]
    InvalidRequest,
    #[error("what there is to store of the group cannot be stored")]
    UnknownServerError,
    #[error("the member has another epoch")]
    FencedMemberEpoch,
    #[error("the member epoch is not the member's")]
    StaleMemberEpoch,
    #[error("another member has the group.instance.id")]
    UnreleasedInstanceId,
    #[error("the assignor is not among group.consumer.assignors")]
    UnsupportedAssignor,
    #[error("the regular expression is not valid")]
    InvalidRegularExpression,
    #[error("no broker can run the topology")]
    StreamsInvalidTopology,
    #[error("members of this protocol must use a newer version of the request")]
    UnsupportedVersion,
    #[error("an open transaction has an offset of the partition")]
    UnstableOffsetCommit,
    #[error("a newer instance of the producer is known")]
    InvalidProducerEpoch,
    #[error(
        "the producer has no open transaction here, nor was one verified since the last marker"
    )]
    InvalidTxnState,
    #[error("a newer owner of the transactional id's slot is known")]
    TransactionCoordinatorFenced,
}

impl From<CoordinatorError> for GroupError {
    fn from(error: CoordinatorError) -> Self {
        match error {
            CoordinatorError::NotCoordinator => Self::NotCoordinator,
            CoordinatorError::LoadInProgress => Self::CoordinatorLoadInProgress,
            CoordinatorError::NotAvailable => Self::CoordinatorNotAvailable,
            CoordinatorError::UnknownServerError => Self::UnknownServerError,
        }
    }
}

/// Why a heartbeat is refused, with what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Chooses the code.
    pub error: GroupError,
    /// For people.
    pub message: String,
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        let message = error.to_string();
        Self { error, message }
    }
}

/// A member that wants to be in the next generation.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    /// Empty for a new member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// ms.
    pub session_timeout_ms: i32,
    /// ms.
    pub rebalance_timeout_ms: i32,
    /// Such as `consumer`.
    pub protocol_type: String,
    /// Assignors in order of preference, each with the member's metadata.
    pub protocols: Vec<(String, Bytes)>,
    /// A new dynamic member is asked to come back with an id (JoinGroup v4, KIP-394).
    pub member_id_required: bool,
    /// The member knows how to skip the assignment (v9, KIP-814).
    pub can_skip_assignment: bool,
    /// Why it joins, for the log (KIP-800).
    pub reason: String,
    /// The connection that it comes by, where that is known: OffsetFetch names no member of a classic group.
    pub connection: Option<u64>,
    /// Its share of the memory for members; set by the coordinator.
    pub reserved: Option<Reserved>,
}

/// What a member is in a generation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JoinReply {
    /// The generation.
    pub generation: i32,
    /// Protocol type.
    pub protocol_type: Option<String>,
    /// The chosen assignor.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// The member's id.
    pub member_id: String,
    /// The leader has nothing to assign (KIP-814).
    pub skip_assignment: bool,
    /// Member id, instance id, metadata; for the leader only.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// A member that wants its assignment; the leader brings those of all members.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// Member id.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// The generation it joined.
    pub generation: i32,
    /// From v5 on.
    pub protocol_type: Option<String>,
    /// From v5 on.
    pub protocol: Option<String>,
    /// By member id.
    pub assignments: BTreeMap<String, Bytes>,
    /// Their share of the memory for members; set by the coordinator.
    pub reserved: Option<Reserved>,
}

/// A member's assignment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncReply {
    /// Protocol type.
    pub protocol_type: Option<String>,
    /// The chosen assignor.
    pub protocol: Option<String>,
    /// What the leader gave it.
    pub assignment: Bytes,
}

/// A member says that it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Member id.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// The generation that it is in.
    pub generation: i32,
}

/// A member that leaves, named by id, by instance id, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveMember {
    /// May be empty with an instance id.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// For the log.
    pub reason: String,
}

/// An offset to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// Topic name.
    pub topic: String,
    /// Partition index.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// -1 when unknown.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: String,
}

/// Offsets that a member commits, or a client outside the group (generation -1).
#[derive(Debug, Clone)]
pub struct CommitOffsets {
    /// Empty outside the group.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// -1 outside the group.
    pub generation: i32,
    /// The request's own retention, ms (v2 to v4).
    pub retention_ms: Option<i64>,
    /// The version of the request.
    pub version: i16,
    /// What to store.
    pub offsets: Vec<OffsetToCommit>,
}

/// Offsets that belong to a producer's transaction.
#[derive(Debug, Clone)]
pub struct TransactionalCommit {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// From [`verify_transaction`](super::GroupCoordinator::verify_transaction), where that gave one.
    pub guard: Option<Guard>,
    /// Empty outside the group, and in older requests.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// -1 outside the group, and in older requests.
    pub generation: i32,
    /// What to store.
    pub offsets: Vec<OffsetToCommit>,
}

/// Says that no marker of a producer came since its transaction was asked after (KIP-890).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard(pub(super) u64);

/// A marker for all groups of a slot: a transaction is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionEnd {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch; for [`bumps_epoch`](Self::bumps_epoch) one that the transaction did not have yet.
    pub producer_epoch: i16,
    /// Counts the owners of the slot of the transactional id.
    pub coordinator_epoch: i32,
    /// Whether its offsets become the groups'.
    pub is_commit: bool,
    /// Version 2 of transactions (KIP-890).
    pub bumps_epoch: bool,
}

impl From<&TransactionMarker> for TransactionEnd {
    fn from(marker: &TransactionMarker) -> Self {
        Self {
            producer_id: marker.producer_id,
            producer_epoch: marker.producer_epoch,
            coordinator_epoch: marker.coordinator_epoch,
            is_commit: marker.outcome == Outcome::Commit,
            bumps_epoch: marker.version >= TransactionVersion::V2,
        }
    }
}

/// A stored offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// -1 when unknown.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: String,
    /// When, ms.
    pub commit_ms: i64,
    /// When it expires, if the client said so, ms.
    pub expire_ms: Option<i64>,
    /// The topic that it was committed in; a topic that is created again under the same name has another id.
    pub topic_id: Option<Uuid>,
}

/// A member, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Member id.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Its metadata for the chosen assignor.
    pub metadata: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

/// A group, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Kafka's name of the state.
    pub state: &'static str,
    /// Protocol type, empty without.
    pub protocol_type: String,
    /// The chosen assignor, empty without.
    pub protocol: String,
    /// The generation.
    pub generation: i32,
    /// All members.
    pub members: Vec<MemberDescription>,
}

/// Which protocol the members of a group speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// JoinGroup and SyncGroup, or nobody.
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848).
    Consumer,
    /// ShareGroupHeartbeat (KIP-932).
    Share,
    /// StreamsGroupHeartbeat (KIP-1071).
    Streams,
}

impl GroupKind {
    /// Kafka's name (GroupType).
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
            Self::Share => "share",
            Self::Streams => "streams",
        }
    }
}

/// A group of any kind, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Described {
    /// A classic group.
    Classic(GroupDescription),
    /// A consumer group.
    Consumer(ConsumerGroupDescription),
    /// A share group.
    Share(ShareGroupDescription),
    /// A streams group.
    Streams(StreamsGroupDescription),
}

/// A group with its offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSurvey {
    /// Group id.
    pub group_id: String,
    /// Its protocol.
    pub kind: GroupKind,
    /// Kafka's name of the state.
    pub state: &'static str,
    /// How many members it has.
    pub members: usize,
    /// Topic, partition, committed offset.
    pub offsets: Vec<(String, i32, i64)>,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Group id.
    pub group_id: String,
    /// Its protocol.
    pub kind: GroupKind,
    /// Protocol type, empty without.
    pub protocol_type: String,
    /// Kafka's name of the state.
    pub state: &'static str,
}
