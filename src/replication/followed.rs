//! A partition that is copied, and from where its log goes on.

use std::sync::Arc;

use uuid::Uuid;

use crate::api::Context;
use crate::partition::Partition;

/// A partition, by the topic's id.
pub(super) type Key = (Uuid, i32);

/// From where a follower goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The leader's epoch, as far as it is known here.
    pub(super) leader_epoch: i32,
    /// The end of the log.
    pub(super) offset: i64,
    /// The epoch of the last record, -1 where there is none.
    pub(super) last_epoch: i32,
    /// The start of the log.
    pub(super) log_start: i64,
}

/// The partition, where this broker has it open and follows.
pub(super) fn partition(cx: &Context, (topic_id, index): Key) -> Option<Arc<Partition>> {
    let topic = cx.partitions.topic_by_id(topic_id)?;
    let partition = topic.get(index).ok()?;
    (!partition.is_leader() && !partition.log().is_offline()).then(|| partition.clone())
}

/// Where a partition goes on that is followed in an epoch.
pub(super) fn position(partition: &Partition, leader_epoch: i32) -> Position {
    let log = partition.log();
    let ends = log.ends();
    Position {
        leader_epoch,
        offset: ends.log_end.offset,
        last_epoch: log.epochs().latest().unwrap_or(-1),
        log_start: ends.log_start,
    }
}
