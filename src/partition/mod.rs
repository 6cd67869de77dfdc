//! Partitions of this broker: a log with its leader epoch, high watermark, producers and waiting readers, and
//! the threads that write and sync.

mod ack_queue;
mod acks;
mod admission;
mod cleaner;
mod commit_group;
mod executor;
mod fetch_waiters;
mod followers;
mod handle;
mod housekeeping;
mod inline_write;
mod invalid_batch;
mod isr_watch;
mod journal_writer;
mod moves;
mod options;
mod partition_state;
mod primitives;
mod producer_room;
mod progress;
mod reads;
mod record_check;
mod registry;
mod relocation;
mod replica;
mod role;
mod session_clock;
mod sync_threads;
mod sync_turn;
mod volume;
mod watermarks;
mod writer;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod transaction_tests;

pub use acks::Acks;
pub use admission::{Unpacking, admit, one_batch};
pub use cleaner::{Cleaner, CleanerFigures, CleanerOptions, LastPass, Uncleanable};
pub use executor::{Step, Workers};
pub use fetch_waiters::{FetchWaiter, Subscription};
pub use followers::{FollowerFetch, FollowerNoted, FollowerState, IsrChange};
pub use handle::Partition;
pub use housekeeping::{Housekeeping, HousekeepingIntervals};
pub use inline_write::{InlineWrites, with_inline_writes};
pub use invalid_batch::{InvalidBatch, RECORD_ERRORS_MAX, RecordErrors};
pub use isr_watch::IsrWatch;
pub use options::PartitionsOptions;
pub use partition_state::{Eligible, PartitionState};
pub use registry::{
    Cut, CutTo, OpenReport, PartitionError, Partitions, Removal, TopicPartitions, TopicToOpen,
};
pub use relocation::MoveError;
pub use replica::{Identity, ListedOffset, OffsetSpec, ReadError, Replica, Traffic};
pub use session_clock::SessionClock;
pub use watermarks::{Isolation, ReadLimits};
pub use writer::Writer;
