//! Where and how a broker's partitions are kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::executor::Workers;
use super::inline_write::InlineWrites;
use crate::clock::WallClock;
use crate::observe::Syncs;

/// Where and how partitions are kept.
#[derive(Clone, Debug)]
pub struct PartitionsOptions {
    /// Data directories; at least one.
    pub data_paths: Vec<PathBuf>,
    /// Threads that sync, per data directory.
    pub sync_threads: usize,
    /// Size of each of the two files of a data directory's journal; 0 for none.
    pub journal_file_bytes: u64,
    /// Threads that open and recover partitions at start.
    pub open_threads: usize,
    /// The time of day.
    pub clock: WallClock,
    /// Who writes and syncs.
    pub workers: Workers,
    /// When connections write what they queued.
    pub inline_writes: InlineWrites,
    /// Where syncs are counted.
    pub syncs: Arc<Syncs>,
    /// How long a replica may not have reached its leader's end and stay in sync (replica.lag.time.max.ms).
    pub replica_lag_max: Duration,
}

/// Kafka's default of replica.lag.time.max.ms.
const REPLICA_LAG_MAX: Duration = Duration::from_secs(30);

impl PartitionsOptions {
    /// One thread for each kind of work, on the machine's clock.
    pub fn new(data_paths: Vec<PathBuf>) -> Self {
        Self {
            data_paths,
            sync_threads: 1,
            journal_file_bytes: 1 << 20,
            open_threads: 1,
            clock: WallClock::default(),
            workers: Workers::default(),
            inline_writes: InlineWrites::new(0),
            syncs: Arc::default(),
            replica_lag_max: REPLICA_LAG_MAX,
        }
    }
}
