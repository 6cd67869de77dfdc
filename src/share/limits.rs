//! What a share group is allowed, as its configuration says at this moment.

/// For the share partitions of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareLimits {
    /// How long a member may keep records before they are given to others, ms.
    pub lock_ms: i64,
    /// How often a record is given to members at most.
    pub delivery_count_max: i16,
    /// How long records that are given back are nobody's before they are given out again, ms.
    pub retry_backoff_ms: i64,
    /// How many records of a partition may be under way, from the first that is not done to the last one given out.
    pub locks_max: i64,
    /// Whether records that nobody is given any more are copied to a dead-letter topic first (KIP-1191).
    pub has_dead_letters: bool,
    /// Whether a member may renew its locks (KIP-1222).
    pub may_renew: bool,
}
