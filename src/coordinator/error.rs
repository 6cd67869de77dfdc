//! Why a coordinator does not answer.

/// Named as Kafka's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CoordinatorError {
    /// Another broker has the slot, or this one may not act at this moment.
    #[error("another broker coordinates this id")]
    NotCoordinator,
    /// What is stored is being read.
    #[error("the slot is being read from the coordination tree")]
    LoadInProgress,
    /// The coordination tree did not take a write.
    #[error("the coordinator is not available")]
    NotAvailable,
    /// The coordination tree will never take this write: it is too large, say. As Kafka's for a record that is too large.
    #[error("what there is to store cannot be stored")]
    UnknownServerError,
}
