//! Shards of state machines over the coordination tree, as Kafka's CoordinatorRuntime: who has which slot, a task a slot
//! that runs a [`Machine`], writes that are fenced. What the machines do (groups, transactions) is not known here.
//!
//! - [`Slot`], [`SlotPartition`]: which slot an id is in, and the partition of an internal topic that stands for it
//! - [`Coordinator`]: the slots of this broker; finds the shard for an id, loads what is stored, lets go of what was lost
//! - `shard`: the task of one slot: its queue, timers, writes under way, fencing
//! - `stored`: reading the nodes of slots, and writes that check who has the slot
//! - [`Machine`]: what runs in a shard, free of I/O; [`Topics`]: what it may know of topics

mod clock;
#[allow(clippy::module_inception)] // the noun is the module's
mod coordinator;
mod error;
mod machine;
mod shard;
mod slot;
mod stored;
#[cfg(test)]
mod tests;
mod topics;

pub use coordinator::{Coordinator, Ownership};
pub use error::CoordinatorError;
pub use machine::{Answer, Loaded, Machine, StoredId, Write};
pub use slot::{InternalTopic, Slot, SlotPartition};
pub use topics::{TopicPartition, Topics};
