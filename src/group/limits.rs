//! Limits of groups, from the broker's configuration.

use std::time::Duration;

/// What one join may bring, and a member's assignment may be, bytes: what Kafka's coordinator can store in one message.
pub(super) const MEMBER_BYTES_MAX: usize = 1 << 20;

/// The epoch of a group of the new protocols before anything changes it (Kafka's TargetAssignmentMetadata.INITIAL): a member's
/// epoch is above 0 as soon as it has joined.
pub(super) const INITIAL_EPOCH: i32 = 1;

/// What of a consumer group or a share group could not be stored is stored again after this, ms.
pub(super) const STORE_AGAIN_MS: i64 = 1_000;

/// Longest member id that a member may choose, bytes.
pub(super) const MEMBER_ID_BYTES_MAX: usize = 1000;

/// What a member and its group take besides what the join brings, bytes, roughly.
pub(super) const MEMBER_OVERHEAD_BYTES: usize = 4 << 10;

/// What bytes take that a group keeps: it has them in the coordination tree too, in hexadecimal.
pub(super) const fn kept_bytes(bytes: usize) -> usize {
    3 * bytes
}

/// What a member takes that brings so many bytes, its names among them: these are keys too, of the group, of timers, of members.
pub(super) const fn member_bytes(brought: usize) -> usize {
    kept_bytes(brought) + MEMBER_OVERHEAD_BYTES
}

/// What a partition or a task takes that a group gives to a member, bytes, roughly: where it is to be, where it is, who has it, and
/// the same in the coordination tree.
pub(super) const ASSIGNED_BYTES: usize = 300;

/// A group for whose target there was no room tries again after this, ms.
pub(super) const NO_ROOM_RETRY_MS: i64 = 1000;

/// What an offset and its node take besides its texts, bytes, roughly; the first one of a group has the group with it.
pub(super) const OFFSET_OVERHEAD_BYTES: usize = 1000;

/// Longest group id, bytes: what the versions before tagged fields can say.
pub(super) const GROUP_ID_BYTES_MAX: usize = i16::MAX as usize;

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub struct GroupLimits {
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i64,
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: i32,
    /// `group.max.size`.
    pub members_max: usize,
    /// `group.members.max.bytes`: of all groups together.
    pub members_bytes_max: usize,
    /// `group.offsets.max.bytes`: of all groups together.
    pub offsets_bytes_max: usize,
    /// `group.share.max.groups`.
    pub share_groups_max: usize,
    /// `offset.metadata.max.bytes`.
    pub metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in ms.
    pub offsets_retention_ms: i64,
    /// `producer.id.expiration.ms`: how long a producer is remembered after its last marker.
    pub producer_expiration_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_check_interval: Duration,
}
