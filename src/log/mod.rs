//! Sequential segment files, byte for byte as Kafka's: append, index, read, recover, retain.
//!
//! [`Log`] is one partition's log. It knows nothing of topics, leaders or clients; `partition` drives it.

mod aborted;
mod aborted_batches;
mod append;
mod archive;
mod browse;
mod checkpoint;
mod compaction;
mod config;
mod copy;
mod data_dir;
mod dir_name;
mod disk;
mod epochs;
mod failed_sync;
mod index_file;
pub mod journal;
mod last_stable;
mod left_as;
mod load_producers;
mod look_up;
mod offset_index;
mod offset_position;
mod partition_log;
mod partition_metadata;
mod producer_snapshot;
mod producers;
mod reach;
mod read;
mod recover;
mod repair;
mod restore;
mod retain;
mod rewrite_lock;
mod segment;
mod segment_files;
mod slice_batches;
mod time_index;
mod transaction_index;
mod transactions;
mod truncate;
mod trust;
mod verifications;
mod verify;
mod verify_transactions;

#[cfg(test)]
mod committed_tests;
#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transaction_tests;

use std::io;

pub use metaq_protocol::batch::Outcome;

pub use aborted_batches::Aborted;
pub use append::{AppendRequest, Appended, FAST_PATH_BATCHES_MAX, Origin, ProducedBatch};
pub use browse::{PassedBatch, SegmentFigures};
pub use checkpoint::CheckpointError;
pub use compaction::{Cleanable, Compacted, CompactionPass, KEY_MAP_BYTES_MIN, KeyMap};
pub use config::LogConfig;
pub(crate) use copy::copy_range;
pub(crate) use data_dir::FUTURE;
pub use data_dir::{DataDir, DataDirError, FoundPartition, Left, PartitionOffsets};
pub(crate) use dir_name::capped_name;
#[cfg(test)]
pub(crate) use disk::as_real_disk;
pub use disk::{DirEntry, Disk, DiskFile, RealDisk};
pub use epochs::{EpochStart, LeaderEpochs};
pub use left_as::{LeftAs, OpenMode};
pub use look_up::FoundTimestamp;
pub use offset_position::OffsetPosition;
pub use partition_log::{Log, LogOffsets, SyncTarget};
pub use partition_metadata::to_base64 as uuid_to_base64;
pub use producers::{
    EXPIRATION_MS_DEFAULT as PRODUCER_EXPIRATION_MS_DEFAULT, Producer, ProducerError, StoredBatch,
};
pub use reach::Reach;
pub use read::{CommittedSlice, ReadWanted, Slice};
pub use recover::OpenedLog;
pub use repair::{Cut, Repair, plan_repairs};
pub use restore::JournaledBatch;
pub use retain::unlink_all;
pub use segment::{BatchAt, Segment};
pub use slice_batches::SliceBatch;
pub use transactions::{AbortedTransaction, TransactionMarker, TransactionVersion};
pub use verifications::{ToVerify, Verification, VerificationGuard};
pub use verify::{
    Dump, DumpedBatch, DumpedMarker, Finding, Verified, dump_segment, verify_dir,
    verify_dir_reporting,
};

/// Why a log refuses.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The partition is not led here any more: its topic was deleted, or others may act in this broker's place.
    #[error("this broker does not lead the partition any more")]
    NotLeader,
    /// Fewer replicas are in sync than acks=-1 needs.
    #[error("{} in sync, min.insync.replicas is {needed}", replicas(*in_sync))]
    NotEnoughReplicas {
        /// How many are.
        in_sync: usize,
        /// `min.insync.replicas`.
        needed: usize,
    },
    /// The journal cannot note now that the log is cut off; it may later.
    #[error("the journal cannot note now that the log is cut off")]
    NotJournaled,
    /// What acks=-1 waited for is in too few logs: replicas fell out of sync meanwhile.
    #[error("too few replicas are in sync for what was appended")]
    NotEnoughReplicasAfterAppend,
    /// The disk failed earlier; the text says where and how.
    #[error("log is offline: {0}")]
    Offline(String),
    /// The disk fails now.
    #[error("disk error: {0}")]
    Io(#[from] io::Error),
    /// What is asked for is not in memory, and the disk may not be waited for.
    #[error("it must be read from the disk")]
    NotCached,
    /// Outside `log_start ..= log_end`.
    #[error("offset {offset} is outside {log_start}..={log_end}")]
    OffsetOutOfRange {
        /// Asked.
        offset: i64,
        /// First readable.
        log_start: i64,
        /// Next to be written.
        log_end: i64,
    },
    /// A batch that no segment can hold.
    #[error("a batch of {0} bytes is larger than a segment")]
    BatchLargerThanSegment(usize),
    /// A producer's batch that does not follow, or that its transaction does not let in.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// Compaction was to end, and did; nothing is lost by it.
    #[error("the compaction was stopped")]
    Stopped,
    /// One batch has more keys than compaction may remember.
    #[error(
        "a batch of {records} records, and room for {capacity} keys (log.cleaner.dedupe.buffer.size)"
    )]
    TooManyKeys {
        /// Of the batch.
        records: usize,
        /// Keys that fit.
        capacity: usize,
    },
    /// What a follower fetched does not go on where its log ends.
    #[error("fetched records begin at {offset}, and the log ends at {expected}")]
    UnexpectedOffset {
        /// Where they begin.
        offset: i64,
        /// Where the log ends, or the batch before them.
        expected: i64,
    },
    /// What a follower fetched is of a later epoch than the one that it was fetched in.
    #[error("a fetched batch is of leader epoch {got}, later than {current}")]
    LaterEpoch {
        /// The batch's.
        got: i32,
        /// The leader's.
        current: i32,
    },
    /// What a follower fetched is no whole and valid batch.
    #[error("fetched records are damaged: {0}")]
    FetchedDamaged(String),
    /// Records that were there are not any more.
    #[error("records {from}..{to} are missing: the log does not go on after {after}")]
    Hole {
        /// The last file before them.
        after: String,
        /// First offset that is missing.
        from: i64,
        /// First offset that is there again.
        to: i64,
    },
    /// A stored batch cannot be read.
    #[error("damaged batch at {position} of {file}: {what}")]
    Damaged {
        /// The segment file.
        file: String,
        /// Byte position.
        position: u64,
        /// What is wrong.
        what: String,
    },
}

fn replicas(count: usize) -> String {
    match count {
        1 => "1 replica is".to_owned(),
        _ => format!("{count} replicas are"),
    }
}
