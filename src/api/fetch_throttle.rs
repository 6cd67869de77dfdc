//! A leader's side of throttled replication (KIP-73): a follower that is not in sync, and whose replica is throttled, gets nothing
//! while more goes than leader.replication.throttled.rate; what goes to those that are in sync counts, and is not held back (Kafka's
//! ReplicaManager.shouldLeaderThrottle).

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Context;
use crate::partition::Partition;

fn is_throttled(cx: &Context, partition: &Partition) -> bool {
    let throttled = &partition.log().config().leader_throttled;
    throttled.has(partition.index(), cx.cluster.broker_id())
}

/// Whether a follower has to wait.
pub(super) fn holds_back(cx: &Context, partition: &Partition, follower: i32) -> bool {
    let rate_max = || cx.config.number("leader.replication.throttled.rate");
    is_throttled(cx, partition)
        && cx.throttles.leader.is_exceeded(rate_max(), Instant::now())
        && !partition.state().isr.contains(&follower)
}

/// So many bytes go to a follower: counted, and against the rate where it is throttled.
pub(super) fn note_sent(cx: &Context, partition: &Partition, bytes: usize) {
    let sent = &cx.metrics.replication_sent_bytes;
    sent.fetch_add(bytes as u64, Ordering::Relaxed);
    if is_throttled(cx, partition) {
        cx.throttles.leader.record(bytes, Instant::now());
    }
}
