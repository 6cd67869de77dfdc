//! Transactional ids and their transactions, as a machine of the [coordinator](crate::coordinator).
//!
//! - `transaction_coordinator`: what the rest of the broker asks
//! - `transactions`: the machine: the transactional ids of one slot
//! - `entry`: one id in it; `transaction`: its state and rules, without I/O; `partitions`: those of a transaction
//! - `persist`: an id as nodes of the coordination tree, and back
//! - `asks`, `messages`, `state`, `error`: what is asked and answered

mod asks;
mod entry;
mod error;
mod limits;
mod messages;
mod partitions;
mod persist;
mod state;
#[cfg(test)]
mod testing;
#[allow(clippy::module_inception)] // the noun is the module's
mod transaction;
mod transaction_coordinator;
mod transactions;

pub use asks::{Errand, Markers};
pub use error::TransactionError;
pub use limits::TransactionLimits;
pub use messages::{
    AddPartitions, Decision, End, HANGING_MS, Init, Initialized, TWO_PHASE_TIMEOUT_MS,
    TransactionCounts, TransactionDescription,
};
pub use partitions::{Partitions, TopicPartitions};
pub use state::{Outcome, Producer, State, TransactionVersion};
pub use transaction_coordinator::{Begin, Errands, TransactionCoordinator};
