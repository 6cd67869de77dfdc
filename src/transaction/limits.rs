//! Limits of transactions, from the broker's configuration.

/// Longest transactional id, bytes: what the versions before tagged fields can say.
pub(super) const TRANSACTIONAL_ID_BYTES_MAX: usize = i16::MAX as usize;

/// What a transactional id takes, here and as a node of the tree, bytes, roughly; a topic of its transaction besides its name,
/// and a partition.
pub(super) const ID_BYTES: usize = 450;
pub(super) const TOPIC_BYTES: usize = 200;
pub(super) const PARTITION_BYTES: usize = 30;

/// How long a request waits for the change that it needs, before it is answered with CONCURRENT_TRANSACTIONS, ms. Kafka asks
/// again every 20 ms, for at most 100 ms, or leaves it to the client.
pub(super) const WAIT_MS_MAX: i64 = 1000;
/// The same, where the leader of a partition asks: records and other leaders' requests wait meanwhile, ms. Kafka's
/// add.partitions.to.txn.retry.backoff.max.ms.
pub(super) const LEADERS_WAIT_MS_MAX: i64 = 100;
/// Requests that wait for one transactional id. A client has one at a time.
pub(super) const WAITING_MAX: usize = 64;
/// Requests that wait for all transactional ids of the broker; of what they hold the broker's memory for requests has its share.
pub(super) const WAITING_ALL_MAX: usize = 100_000;

/// Markers that are not known to be written are asked for again after this, ms: the answer may be lost.
pub(super) const MARKERS_AGAIN_MS: i64 = 30_000;
/// That all markers are written is stored after this, ms, unless somebody asks before: partitions of the next transaction go
/// into the same write then.
pub(super) const COMPLETE_AFTER_MS: i64 = 20;
/// What could not be stored, and no client asks for again, is tried again after this, ms.
pub(super) const STORE_AGAIN_MS: i64 = 1000;
/// A producer id that was asked for and did not come is asked for again after this, ms.
pub(super) const PRODUCER_ID_AGAIN_MS: i64 = 5000;
/// Expired transactional ids that are removed at once; others follow after [`EXPIRE_PAUSE_MS`].
pub(super) const EXPIRE_AT_ONCE: usize = 200;
/// See [`EXPIRE_AT_ONCE`], ms.
pub(super) const EXPIRE_PAUSE_MS: i64 = 100;

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub struct TransactionLimits {
    /// `transaction.max.timeout.ms`.
    pub timeout_ms_max: i32,
    /// `transactional.id.expiration.ms`.
    pub expiration_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiration_check_ms: i64,
    /// `max.tx.timeout.timer.capacity`: open transactions that have a timeout.
    pub timers_max: usize,
    /// `transactional.ids.max.bytes`: of all transactional ids together.
    pub bytes_max: usize,
    /// `transaction.two.phase.commit.enable`.
    pub two_phase: bool,
}
