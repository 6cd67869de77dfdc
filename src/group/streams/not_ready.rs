//! Why an application cannot run yet.

use super::status::{Status, StatusCode};

/// Why an application cannot run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotReady {
    /// What members are told until it is otherwise.
    Status(Status),
    /// No broker can run it.
    Invalid(String),
}

impl NotReady {
    pub(super) fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }

    pub(super) fn incorrectly_partitioned(why: String) -> Self {
        Self::Status(Status::new(StatusCode::IncorrectlyPartitionedTopics, why))
    }
}
