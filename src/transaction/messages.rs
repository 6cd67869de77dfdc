//! What is asked of a transactional id, and answered.

use super::partitions::Partitions;
use super::state::{Outcome, Producer, State, TransactionVersion};

/// A producer begins, or goes on after an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// A transaction that takes longer is aborted, ms; [`TWO_PHASE_TIMEOUT_MS`] for one of two phases.
    pub timeout_ms: i32,
    /// What the producer was given before (KIP-360).
    pub expected: Option<Producer>,
    /// Leave an ongoing transaction as it is (KIP-939), rather than abort it.
    pub keep_prepared: bool,
}

/// The timeout of transactions of two phases, which have none (Kafka's TransactionMetadata.isDistributedTwoPhaseCommitTxn).
pub const TWO_PHASE_TIMEOUT_MS: i32 = i32::MAX;

/// A producer may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initialized {
    /// What it is from now on.
    pub producer: Producer,
    /// The transaction that was kept for it to end.
    pub ongoing: Option<Producer>,
}

/// Partitions are to become part of a transaction, or are looked for in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddPartitions {
    /// Who asks.
    pub producer: Producer,
    /// Topics and indices.
    pub partitions: Vec<(String, i32)>,
    /// The version of the protocol that the client uses.
    pub version: TransactionVersion,
}

/// A transaction is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Who asks.
    pub producer: Producer,
    /// How.
    pub outcome: Outcome,
    /// The version of the protocol that the client uses.
    pub version: TransactionVersion,
}

/// What an operator decided of a transaction of two phases, without its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How it ended.
    pub outcome: Outcome,
    /// Whose transaction it was.
    pub producer: Producer,
    /// When, ms.
    pub at_ms: i64,
}

/// What transactional ids are doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransactionCounts {
    /// All of them.
    pub ids: usize,
    /// Open transactions.
    pub open: usize,
    /// Open transactions of two phases among them.
    pub two_phase: usize,
    /// Those that are decided, and whose markers are being written.
    pub ending: usize,
    /// Those among them whose markers are not written for [`HANGING_MS`].
    pub hanging: usize,
}

/// Markers that are not written for this long do not come to be by themselves soon, ms.
pub const HANGING_MS: i64 = 30_000;

impl std::ops::AddAssign for TransactionCounts {
    fn add_assign(&mut self, more: Self) {
        self.ids += more.ids;
        self.open += more.open;
        self.two_phase += more.two_phase;
        self.ending += more.ending;
        self.hanging += more.hanging;
    }
}

/// A transactional id, for people and tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionDescription {
    /// The id.
    pub transactional_id: String,
    /// Its state.
    pub state: State,
    /// Its producer; that of the ongoing transaction, where a later producer keeps it.
    pub producer: Producer,
    /// A transaction that takes longer is aborted, ms; [`TWO_PHASE_TIMEOUT_MS`] for one of two phases.
    pub timeout_ms: i32,
    /// When the transaction began, ms; -1 for none.
    pub start_ms: i64,
    /// When it changed last, ms.
    pub updated_ms: i64,
    /// Its partitions; while markers are written, those that have none yet.
    pub partitions: Partitions,
    /// What an operator decided of it.
    pub decision: Option<Decision>,
}

impl TransactionDescription {
    /// Whether its transactions wait for the decision of another system, however long it takes (KIP-939).
    pub fn is_two_phase(&self) -> bool {
        self.timeout_ms == TWO_PHASE_TIMEOUT_MS
    }
}
