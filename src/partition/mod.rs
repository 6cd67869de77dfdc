//! Partitions of this broker: a log with its leader epoch, high watermark, producers and waiting readers, and
//! the threads that write and sync.

mod admission;
mod housekeeping;
mod leader;
mod set;
mod sync;
mod waiters;
mod wakes;
mod writer;

#[cfg(test)]
mod tests;

pub use admission::{InvalidBatch, admit};
pub use housekeeping::{Housekeeping, HousekeepingIntervals};
pub use leader::{Identity, Isolation, ListedOffset, OffsetSpec, Partition, ReadError};
pub use set::{
    OpenReport, PartitionError, Partitions, PartitionsOptions, TopicPartitions, TopicToOpen,
};
pub use waiters::{Subscription, Waiter};
pub use wakes::wakes_together;
pub use writer::Writer;

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 of the machine's clock.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as i64)
}
