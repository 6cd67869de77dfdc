//! Why what is stored of a share partition is not read or written.

use crate::coordinator::CoordinatorError;

/// Named as Kafka's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareStateError {
    /// What is asked makes no sense, or of a share partition that was not initialized.
    #[error("the share partition was not initialized")]
    InvalidRequest,
    /// A later leader of the partition has read it.
    #[error("there is a newer leader of the partition")]
    FencedLeaderEpoch,
    /// Its offsets were set anew.
    #[error("the state of the share partition was set anew")]
    FencedStateEpoch,
    /// There is no such group.
    #[error("the group is not there")]
    GroupIdNotFound,
    /// There is no such partition.
    #[error("the partition is not there")]
    UnknownTopicOrPartition,
    /// This broker leads the partition no more.
    #[error("another broker leads the partition")]
    NotLeaderOrFollower,
    /// Another broker coordinates it.
    #[error("another broker coordinates this share partition")]
    NotCoordinator,
    /// What is stored is being read.
    #[error("the coordinator is loading")]
    CoordinatorLoadInProgress,
    /// The coordinator cannot be reached, or cannot store anything now.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// What there is to store cannot be stored.
    #[error("what there is to store cannot be stored")]
    UnknownServerError,
}

impl ShareStateError {
    /// Whether the same may succeed a moment later.
    pub fn may_heal(self) -> bool {
        matches!(
            self,
            Self::NotCoordinator | Self::CoordinatorLoadInProgress | Self::CoordinatorNotAvailable
        )
    }
}

impl From<CoordinatorError> for ShareStateError {
    fn from(error: CoordinatorError) -> Self {
        match error {
            CoordinatorError::NotCoordinator => Self::NotCoordinator,
            CoordinatorError::LoadInProgress => Self::CoordinatorLoadInProgress,
            CoordinatorError::NotAvailable => Self::CoordinatorNotAvailable,
            CoordinatorError::UnknownServerError => Self::UnknownServerError,
        }
    }
}
