//! What a transaction is about: its state, who it belongs to, how it ended, by which version of the protocol.

pub use crate::log::{Outcome, TransactionVersion};

/// A state of a transactional id (Kafka's TransactionState). PrepareEpochFence and Dead of Kafka are never stored: an id that
/// is Dead is not there, and an epoch is fenced by the write that begins the abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has a producer, and no transaction.
    Empty,
    /// Its transaction has partitions.
    Ongoing,
    /// It is decided to commit; markers are being written.
    PrepareCommit,
    /// It is decided to abort; markers are being written.
    PrepareAbort,
    /// Its last transaction is committed.
    CompleteCommit,
    /// Its last transaction is aborted.
    CompleteAbort,
    /// It is not stored.
    Dead,
}

impl State {
    /// Those that are stored, and so can be listed.
    pub const STORED: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// As Kafka names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
            Self::Dead => "Dead",
        }
    }

    /// The stored state of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::STORED.into_iter().find(|state| state.name() == name)
    }

    /// While the markers are being written of a transaction that ends so.
    pub(super) fn preparing_to(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Commit => Self::PrepareCommit,
            Outcome::Abort => Self::PrepareAbort,
        }
    }

    /// When all markers are written.
    pub(super) fn complete_by(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Commit => Self::CompleteCommit,
            Outcome::Abort => Self::CompleteAbort,
        }
    }

    /// How the transaction ends whose markers are being written.
    pub fn preparing(self) -> Option<Outcome> {
        match self {
            Self::PrepareCommit => Some(Outcome::Commit),
            Self::PrepareAbort => Some(Outcome::Abort),
            _ => None,
        }
    }
}

/// A producer's id and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    /// The id, -1 for none.
    pub id: i64,
    /// Counts the producers of the id.
    pub epoch: i16,
}

impl Producer {
    /// No producer.
    pub const NONE: Self = Self { id: -1, epoch: -1 };

    /// A new id, with its first epoch.
    pub(super) fn first(id: i64) -> Self {
        Self { id, epoch: 0 }
    }

    /// The same id with the next epoch.
    pub(super) fn bumped(self) -> Self {
        Self {
            epoch: self.epoch.saturating_add(1),
            ..self
        }
    }

    /// Whether no client may have a later epoch of this id (Kafka's TransactionMetadata.isEpochExhausted): the last one is
    /// kept for fencing.
    pub(super) fn is_exhausted(self) -> bool {
        self.epoch >= EPOCH_LAST
    }
}

/// The last epoch that a client may have.
pub(super) const EPOCH_LAST: i16 = i16::MAX - 1;
