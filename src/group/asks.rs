//! What is asked of groups, each with where it is answered.

use uuid::Uuid;

use super::messages::{
    CommitOffsets, CommittedOffset, GroupDescription, GroupError, GroupListing, GroupSurvey,
    Heartbeat, JoinReply, JoinRequest, LeaveMember, SyncReply, SyncRequest,
};
use super::offsets::Key;
use crate::coordinator::Answer;
use crate::memory::Share;

/// One outcome for each thing that was asked for.
pub(super) type Outcomes = Vec<Result<(), GroupError>>;

/// Offsets on their way to a client.
pub struct FoundOffsets {
    /// As they were asked for.
    pub offsets: Vec<((String, i32), Option<CommittedOffset>)>,
    /// What they take of the memory that clients may make the broker hold.
    pub share: Share,
}

/// Asked of one group.
pub(super) enum Ask {
    Join(Box<JoinRequest>, Answer<Result<JoinReply, GroupError>>),
    Sync(SyncRequest, Answer<Result<SyncReply, GroupError>>),
    Heartbeat(Heartbeat, Answer<Result<(), GroupError>>),
    Leave(Vec<LeaveMember>, Answer<Outcomes>),
    Commit(CommitOffsets, Answer<Outcomes>),
    /// Of these topics and partitions, or all.
    FetchOffsets(Option<Vec<Key>>, Answer<Result<FoundOffsets, GroupError>>),
    Describe(Answer<Option<GroupDescription>>),
    Delete(Answer<Result<(), GroupError>>),
    DeleteOffsets(Vec<Key>, Answer<Result<Outcomes, GroupError>>),
}

impl Ask {
    /// Whether it changes nothing.
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::FetchOffsets(..) | Self::Describe(_))
    }
}

/// Asked of all groups of a slot.
pub(super) enum AskAll {
    List(Answer<Vec<GroupListing>>),
    Survey(Answer<Vec<GroupSurvey>>),
    /// A topic was deleted: name and id.
    TopicDeleted(String, Uuid),
    /// Queues the whole state for the mirror.
    Mirror,
}
