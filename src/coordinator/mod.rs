//! Shards of state machines over the coordination tree, as Kafka's CoordinatorRuntime: which slots this broker owns, a task
//! for each that runs a [`Machine`], fenced writes. What the machines do (groups, transactions) is not known here.
//!
//! - [`Slot`], [`SlotPartition`]: the slot of an id, and the partition of an internal topic that stands for it
//! - [`Coordinator`]: the slots of this broker; finds the shard of an id, loads new slots, ends lost ones
//! - `shard`: the task of one slot: its queue, timers, writes in flight, fencing
//! - `stored`: reads of slots' nodes, and writes that check the owner
//! - [`Parts`]: the record of an id, in parts where it is large
//! - `tests`: of the coordinator and its shards, with a machine of their own
//! - [`Machine`]: what runs in a shard, without I/O; [`Topics`]: what it may know of topics

mod clock;
#[allow(clippy::module_inception)] // the noun is the module's
mod coordinator;
mod error;
mod machine;
mod parts;
mod shard;
mod slot;
mod stored;
#[cfg(test)]
mod tests;
mod topics;

pub use coordinator::{Coordinator, Ownership};
pub use error::CoordinatorError;
pub use machine::{Answer, Loaded, Machine, Stored, StoredId, StoredSlot, Write};
pub use parts::{FoundRecord, PART_BYTES_MAX, Parts};
pub use slot::{InternalTopic, Slot, SlotPartition};
pub use topics::{TopicPartition, Topics};
