//! Partitions of this broker: a log with its leader epoch, high watermark, producers and waiting readers, and
//! the threads that write and sync.

mod ack_queue;
mod admission;
mod housekeeping;
mod journaling;
mod leader;
mod moving;
mod queue;
mod round;
mod set;
mod sync;
mod sync_turn;
mod waiters;
mod wakes;
mod watermarks;
mod workers;
mod writer;

#[cfg(test)]
mod tests;

pub use admission::{InvalidBatch, admit};
pub use housekeeping::{Housekeeping, HousekeepingIntervals};
pub use leader::{Identity, Isolation, ListedOffset, OffsetSpec, Partition, ReadError, Traffic};
pub use moving::MoveError;
pub use queue::Turns;
pub use set::{
    OpenReport, PartitionError, Partitions, PartitionsOptions, TopicPartitions, TopicToOpen,
};
pub use waiters::{FetchWaiter, Subscription};
pub use wakes::in_turns;
pub use workers::{Step, Workers};
pub use writer::Writer;
