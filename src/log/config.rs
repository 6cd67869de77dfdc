//! What a log needs to know of its topic's configuration, as numbers.

use std::path::PathBuf;
use std::sync::Arc;

use metaq_protocol::batch::Compression;

use crate::schedule::Schedule;
use crate::throttle::ThrottledReplicas;

/// Settings of one partition's log; replaced whole when the topic's configuration changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Roll before a segment grows beyond this (`segment.bytes`).
    pub segment_bytes: u64,
    /// Roll when the first record is older than this (`segment.ms`).
    pub segment_ms: i64,
    /// At most this much is taken off `segment_ms` at random, so that partitions do not roll together.
    pub segment_jitter_ms: i64,
    /// Size limit of one index file (`segment.index.bytes`).
    pub index_bytes_max: usize,
    /// One index entry for about this many bytes (`index.interval.bytes`).
    pub index_interval_bytes: u64,
    /// Acknowledge after a sync when this many messages are unsynced (`flush.messages`); `i64::MAX` for never.
    pub flush_messages: i64,
    /// Sync at least this often (`flush.ms`); `i64::MAX` for never.
    pub flush_ms: i64,
    /// Delete segments older than this (`retention.ms`); -1 for never.
    pub retention_ms: i64,
    /// Delete the oldest segments above this size (`retention.bytes`); -1 for no limit.
    pub retention_bytes: i64,
    /// Largest batch taken (`max.message.bytes`).
    pub max_message_bytes: usize,
    /// The broker's clock replaces the producer's (`message.timestamp.type=LogAppendTime`).
    pub log_append_time: bool,
    /// How far a record may lie in the past (`message.timestamp.before.max.ms`).
    pub timestamp_before_max_ms: i64,
    /// How far a record may lie in the future (`message.timestamp.after.max.ms`).
    pub timestamp_after_max_ms: i64,
    /// Wait before a deleted segment's files are unlinked (`file.delete.delay.ms`).
    pub file_delete_delay_ms: i64,
    /// `cleanup.policy` names compact: records need keys.
    pub compact: bool,
    /// `cleanup.policy` names delete: retention applies.
    pub delete: bool,
    /// How long tombstones and the markers of compacted transactions stay (`delete.retention.ms`).
    pub delete_retention_ms: i64,
    /// A record stays at least this long before compaction takes it (`min.compaction.lag.ms`).
    pub min_compaction_lag_ms: i64,
    /// A record is compacted after this time at the latest (`max.compaction.lag.ms`).
    pub max_compaction_lag_ms: i64,
    /// Millionths of the log's bytes that are dirty before it is compacted (`min.cleanable.dirty.ratio`).
    pub min_cleanable_millionths: u32,
    /// The topic's own codec (`compression.type`); `None` keeps the producer's.
    pub recompress: Option<Compression>,
    /// Replicas that acks=all needs (`min.insync.replicas`).
    pub min_insync_replicas: usize,
    /// Partitions of the topic that take no messages (`closed.partitions`), in order.
    pub closed: Arc<[i32]>,
    /// Replicas that are throttled where they lead (`leader.replication.throttled.replicas`).
    pub leader_throttled: ThrottledReplicas,
    /// Replicas that are throttled where they follow (`follower.replication.throttled.replicas`).
    pub follower_throttled: ThrottledReplicas,
    /// When retention is applied (`delete.when`); `None` for regularly.
    pub delete_when: Option<Arc<Schedule>>,
    /// Where segments go before retention deletes them (`archive.enable`, `log.archive.dir`); `None` for nowhere.
    pub archive_dir: Option<PathBuf>,
}

impl LogConfig {
    /// Whether appended records are ever synced on purpose.
    pub fn promises_syncs(&self) -> bool {
        self.flush_messages != i64::MAX || self.flush_ms != i64::MAX
    }

    /// Whether a partition of the topic takes no messages.
    pub fn is_closed(&self, partition: i32) -> bool {
        !self.closed.is_empty() && self.closed.binary_search(&partition).is_ok()
    }

    /// Whether every append waits for a sync.
    pub fn syncs_every_append(&self) -> bool {
        self.flush_messages <= 1
    }
}

impl Default for LogConfig {
    /// Kafka's topic defaults.
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            segment_jitter_ms: 0,
            index_bytes_max: 10 << 20,
            index_interval_bytes: 4096,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            max_message_bytes: 1_048_588,
            log_append_time: false,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            file_delete_delay_ms: 60_000,
            compact: false,
            delete: true,
            delete_retention_ms: 24 * 3_600_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_millionths: 500_000,
            recompress: None,
            min_insync_replicas: 1,
            closed: Arc::default(),
            leader_throttled: ThrottledReplicas::None,
            follower_throttled: ThrottledReplicas::None,
            delete_when: None,
            archive_dir: None,
        }
    }
}
