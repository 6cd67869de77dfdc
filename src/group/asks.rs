//! What is asked of groups, each with where it is answered.

use uuid::Uuid;

use super::consumer::{ConsumerHeartbeat, ConsumerReply};
use super::messages::{
    CommitOffsets, CommittedOffset, Described, GroupError, GroupListing, GroupSurvey, Guard,
    Heartbeat, JoinReply, JoinRequest, LeaveMember, Refusal, SyncReply, SyncRequest,
    TransactionEnd, TransactionalCommit,
};
use super::offsets::Key;
use super::share::{ShareHeartbeat, ShareReply, ToDelete};
use super::streams::{StreamsHeartbeat, StreamsReply};
use crate::coordinator::Answer;
use crate::memory::Share;

/// One outcome for each thing that was asked for.
pub(super) type Outcomes = Vec<Result<(), GroupError>>;

/// An offset, if there is one; an error where a transaction keeps it open and only stable ones are wanted.
pub type FoundOffset = Result<Option<CommittedOffset>, GroupError>;

/// Offsets on their way to a client.
pub struct FoundOffsets {
    /// As they were asked for.
    pub offsets: Vec<((String, i32), FoundOffset)>,
    /// What they take of the memory that clients may make the broker hold.
    pub share: Share,
}

/// Which offsets are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetsQuery {
    /// Topics and partitions; `None` for all.
    pub keys: Option<Vec<(String, i32)>>,
    /// Not those that an open transaction may replace (KIP-447).
    pub stable: bool,
    /// Who asks.
    pub member: AskingMember,
}

/// The member of a consumer group that asks for offsets, or somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskingMember {
    /// `None` where the request does not say.
    pub id: Option<String>,
    /// -1 where the request does not say.
    pub epoch: i32,
    /// The connection that it comes by, and the client's name for itself, where they are known: these tell a member of a
    /// broadcast group where the request does not.
    pub by: Option<(u64, String)>,
}

impl AskingMember {
    /// Nobody of the group.
    pub const NOBODY: Self = Self {
        id: None,
        epoch: -1,
        by: None,
    };
}

/// Asked of one group.
pub(super) enum Ask {
    Join(Box<JoinRequest>, Answer<Result<JoinReply, GroupError>>),
    Sync(SyncRequest, Answer<Result<SyncReply, GroupError>>),
    Heartbeat(Heartbeat, Answer<Result<(), GroupError>>),
    ConsumerHeartbeat(
        Box<ConsumerHeartbeat>,
        Answer<Result<ConsumerReply, Refusal>>,
    ),
    Leave(Vec<LeaveMember>, Answer<Outcomes>),
    Commit(CommitOffsets, Answer<Outcomes>),
    FetchOffsets(OffsetsQuery, Answer<Result<FoundOffsets, GroupError>>),
    /// See [`verify_transaction`](super::GroupCoordinator::verify_transaction).
    VerifyTransaction {
        producer_id: i64,
        producer_epoch: i16,
        answer: Answer<Result<Option<Guard>, GroupError>>,
    },
    CommitTransactional(TransactionalCommit, Answer<Outcomes>),
    /// Put off by the group's removal; it is about all groups of the slot.
    EndTransaction(TransactionEnd, Answer<Result<(), GroupError>>),
    Share(ShareAsk),
    StreamsHeartbeat(Box<StreamsHeartbeat>, Answer<Result<StreamsReply, Refusal>>),
    Describe(Answer<Option<Described>>),
    Delete(Answer<Result<(), GroupError>>),
    DeleteOffsets(Vec<Key>, Answer<Result<Outcomes, GroupError>>),
}

/// Partitions by topic.
pub type ByTopic = Vec<(Uuid, Vec<i32>)>;

/// Asked of one share group.
pub(super) enum ShareAsk {
    Heartbeat(Box<ShareHeartbeat>, Answer<Result<ShareReply, Refusal>>),
    /// Share partitions are initialized, or could not be; by topic.
    Initialized {
        done: ByTopic,
        failed: ByTopic,
        /// The latest state epoch of what is in their way; 0 for none.
        beyond: i32,
        answer: Answer<Result<(), GroupError>>,
    },
    /// Offsets of a group without members are to be set: with which state epoch.
    Alter(ByTopic, Answer<Result<i32, GroupError>>),
    /// A group without members is to have no more to do with some topics, or with all.
    Delete(Option<Vec<Uuid>>, Answer<Result<ToDelete, GroupError>>),
    /// Nothing is stored of a topic any more.
    Deleted(Uuid, Answer<Result<(), GroupError>>),
    /// Its share partitions that are initialized.
    Partitions(Answer<Result<ByTopic, GroupError>>),
}

impl Ask {
    /// Whether it changes nothing.
    pub(super) fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::FetchOffsets(..)
                | Self::Describe(_)
                | Self::VerifyTransaction { .. }
                | Self::Share(ShareAsk::Partitions(_))
        )
    }
}

/// Asked of all groups of a slot.
pub(super) enum AskAll {
    List(Answer<Vec<GroupListing>>),
    Survey(Answer<Vec<GroupSurvey>>),
    /// A topic was deleted: name and id.
    TopicDeleted(String, Uuid),
    EndTransaction(TransactionEnd, Answer<Result<(), GroupError>>),
    /// Queues the whole state for the mirror.
    Mirror,
}
