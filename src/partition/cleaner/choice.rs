//! Which log is compacted next (Kafka's LogCleanerManager.grabFilthiestCompactedLog): of those whose dirty share is above
//! `min.cleanable.dirty.ratio`, or whose oldest dirty record is older than `max.compaction.lag.ms`, the dirtiest one. Where there
//! is none, one with tombstones whose time has come.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::handle::Partition;
use super::super::registry::Partitions;
use super::records::{Claim, Records, Seen, key_of};
use crate::log::{Cleanable, LogError};

/// What is compacted next.
pub(super) struct Choice<'a> {
    pub(super) partition: Arc<Partition>,
    pub(super) cleanable: Cleanable,
    _claim: Claim<'a>,
}

/// What a look found.
#[derive(Default)]
pub(super) struct Look<'a> {
    pub(super) choice: Option<Choice<'a>>,
    /// Logs that cannot be looked at.
    pub(super) failed: Vec<(Arc<Partition>, LogError)>,
    /// Something is to be synced before it can be compacted.
    pub(super) waits_for_sync: bool,
}

/// Looks at all logs, and takes one.
pub(super) fn choose<'a>(partitions: &Partitions, records: &'a Records) -> Look<'a> {
    let (now, now_ms) = (Instant::now(), partitions.clock().now_ms());
    let (mut look, mut seen, mut wanted) = (Look::default(), Vec::new(), Vec::new());
    for topic in partitions.topics() {
        for partition in topic.online().filter(|partition| is_compacted(partition)) {
            look.waits_for_sync |= sync_what_is_sealed(partition);
            let key = key_of(partition);
            if records.is_at_work(key) {
                seen.push(Seen::unknown(key));
                continue;
            }
            // Segments may go while they are looked at: what fails twice has failed.
            let found = cleanable(partition, now_ms).or_else(|_| cleanable(partition, now_ms));
            let cleanable = match found {
                Ok(cleanable) => cleanable,
                Err(error) => {
                    seen.push(Seen::unknown(key));
                    if !records.rests(key, now) {
                        look.failed.push((partition.clone(), error));
                    }
                    continue;
                }
            };
            seen.push(Seen {
                key,
                dirty_ratio: cleanable.dirty_ratio(),
                dirty_bytes: cleanable.dirty_bytes,
                is_overdue: cleanable.is_overdue,
            });
            if !records.rests(key, now) && is_due(partition, &cleanable, records, now) {
                wanted.push((partition.clone(), cleanable.dirty_ratio()));
            }
        }
    }
    records.looked(&seen);
    wanted.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    for (partition, _) in wanted {
        let key = key_of(&partition);
        if partitions.is_moving(&partition) {
            continue;
        }
        let Some(claim) = records.claim(key) else {
            continue;
        };
        // Another cleaner may have had it since.
        if let Ok(cleanable) = cleanable(&partition, now_ms)
            && is_due(&partition, &cleanable, records, now)
        {
            look.choice = Some(Choice {
                partition,
                cleanable,
                _claim: claim,
            });
            break;
        }
    }
    look
}

/// Whether a log is compacted at all.
pub(super) fn is_compacted(partition: &Partition) -> bool {
    let log = partition.log();
    !partition.is_deleted() && log.config().compact && log.offline_reason().is_none()
}

fn cleanable(partition: &Partition, now_ms: i64) -> Result<Cleanable, LogError> {
    let last_stable = partition.last_stable_offset();
    partition.log().cleanable(last_stable, now_ms)
}

fn is_due(partition: &Partition, cleanable: &Cleanable, records: &Records, now: Instant) -> bool {
    let min_millionths = f64::from(partition.log().config().min_cleanable_millionths);
    let is_dirty = cleanable.dirty_ratio() * 1e6 > min_millionths;
    let drops_tombstones =
        || cleanable.has_due_tombstones && records.may_drop_tombstones(key_of(partition), now);
    is_dirty || cleanable.is_overdue && cleanable.dirty_bytes > 0 || drops_tombstones()
}

/// What is not synced is not compacted: what is sealed is synced soon. Whether there is any.
fn sync_what_is_sealed(partition: &Partition) -> bool {
    let ends = partition.log().ends();
    let waits = ends.synced_end < ends.log_end.segment_base;
    if waits {
        partition.sync_soon();
    }
    waits
}
