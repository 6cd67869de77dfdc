//! Why a transaction's request is refused.

use crate::coordinator::CoordinatorError;

/// Named as Kafka's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// What is asked makes no sense.
    #[error("the request is not valid")]
    InvalidRequest,
    /// The transactional id is not there, or has another producer id.
    #[error("the producer id is not that of the transactional id")]
    InvalidProducerIdMapping,
    /// There is a later producer of the transactional id.
    #[error("there is a newer producer with the same transactional id")]
    ProducerFenced,
    /// The transaction before is not complete yet.
    #[error("the transaction before is not complete yet")]
    ConcurrentTransactions,
    /// The transaction's state does not allow it.
    #[error("the transaction is in another state")]
    InvalidTxnState,
    /// The transaction must be aborted; then the producer can go on.
    #[error("the partition is not part of the transaction")]
    TransactionAbortable,
    /// There is no such partition.
    #[error("there is no such partition")]
    UnknownTopicOrPartition,
    /// Out of `transaction.max.timeout.ms`.
    #[error("the transaction timeout is not positive, or above transaction.max.timeout.ms")]
    InvalidTransactionTimeout,
    /// Two-phase commit is not enabled.
    #[error("transaction.two.phase.commit.enable is false")]
    TransactionalIdAuthorizationFailed,
    /// Transactional ids and their transactions may not take more memory.
    #[error("transactional.ids.max.bytes: no more transactional ids or partitions are taken")]
    PolicyViolation,
    /// Nothing is known of this id.
    #[error("there is no such transactional id")]
    TransactionalIdNotFound,
    /// Another broker coordinates it.
    #[error("another broker coordinates this transactional id")]
    NotCoordinator,
    /// What is stored is being read.
    #[error("the transactional ids are being read from the coordination tree")]
    CoordinatorLoadInProgress,
    /// The coordination tree did not take a write.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// The coordination tree will never take this write.
    #[error("what there is to store cannot be stored")]
    UnknownServerError,
}

impl From<CoordinatorError> for TransactionError {
    fn from(error: CoordinatorError) -> Self {
        match error {
            CoordinatorError::NotCoordinator => Self::NotCoordinator,
            CoordinatorError::LoadInProgress => Self::CoordinatorLoadInProgress,
            CoordinatorError::NotAvailable => Self::CoordinatorNotAvailable,
            CoordinatorError::UnknownServerError => Self::UnknownServerError,
        }
    }
}
