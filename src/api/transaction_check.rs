//! What the first batch of a transaction in a partition needs before it is taken: the word of the transaction's coordinator
//! (KIP-890; Kafka's AddPartitionsToTxnManager). What it says is told in the words that the client's version expects.

use metaq_protocol::ResponseError;

use super::context::Context;
use super::in_transaction::{Membership, in_transaction};
use crate::transaction::{AddPartitions, Producer, TransactionVersion};

/// What a request's version lets the client do (Kafka's TransactionSupportedOperation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Support {
    /// It has added its partitions before, and knows no TRANSACTION_ABORTABLE.
    Verify,
    /// The same, and it knows TRANSACTION_ABORTABLE.
    VerifyAbortable,
    /// Its partitions become part of the transaction by being written to.
    Add,
}

impl Support {
    /// Of a Produce request.
    pub(super) fn of_produce(version: i16) -> Self {
        match version {
            ..=10 => Self::Verify,
            11 => Self::VerifyAbortable,
            _ => Self::Add,
        }
    }

    /// Of a TxnOffsetCommit request.
    pub(super) fn of_txn_offset_commit(version: i16) -> Self {
        match version {
            ..=3 => Self::Verify,
            4 => Self::VerifyAbortable,
            _ => Self::Add,
        }
    }
}

/// Whose transaction it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct InTransaction<'a> {
    pub(super) transactional_id: &'a str,
    pub(super) producer: Producer,
    pub(super) support: Support,
}

/// Asks the coordinator about partitions; an outcome for each.
pub(super) async fn check(
    cx: &Context,
    of: InTransaction<'_>,
    partitions: Vec<(String, i32)>,
) -> Vec<Result<(), ResponseError>> {
    let (membership, version) = match of.support {
        Support::Add => (Membership::Add, TransactionVersion::V2),
        Support::Verify | Support::VerifyAbortable => (Membership::Verify, TransactionVersion::V1),
    };
    let request = AddPartitions {
        producer: of.producer,
        partitions,
        version,
    };
    let outcomes = in_transaction(cx, of.transactional_id, request, membership).await;
    let outcomes = outcomes.into_iter();
    outcomes
        .map(|outcome| outcome.map_err(|error| in_words_of(of.support, error)))
        .collect()
}

fn in_words_of(support: Support, error: ResponseError) -> ResponseError {
    match (error, support) {
        (ResponseError::ProducerFenced, _) => ResponseError::InvalidProducerEpoch,
        (ResponseError::TransactionAbortable, Support::Verify) => ResponseError::InvalidTxnState,
        // Not the client's affair.
        (ResponseError::ClusterAuthorizationFailed, _) => ResponseError::InvalidTxnState,
        (error, _) => error,
    }
}
