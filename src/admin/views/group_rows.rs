//! The partitions of a group, as its page shows them: how far it is in each, and what lies ahead.
//!
//! Tests: tests/shares_seen.rs, tests/dashboard.rs.

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::group_members::SeenMember;
use crate::api::Context;
use crate::partition::Partition;

/// A topic and a partition's index.
pub(super) type Key = (String, i32);

/// A partition of a group.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct GroupPartitionView {
    /// The topic.
    pub(in crate::admin) topic: String,
    /// The partition's index.
    pub(in crate::admin) partition: i32,
    /// `brokerId-n`.
    pub(in crate::admin) identity: String,
    /// The next offset that the group will read; of a share group the first one that is not done. `None` where there is none.
    pub(in crate::admin) committed: Option<i64>,
    /// When it committed that, ms since 1970.
    pub(in crate::admin) committed_ms: Option<i64>,
    /// Readers see what lies before it; `None` where no broker answers for it.
    pub(in crate::admin) high_watermark: Option<i64>,
    /// Messages that it has not read.
    pub(in crate::admin) lag: Option<i64>,
    /// Bytes that it has not read; of this broker's partitions only.
    pub(in crate::admin) lag_bytes: Option<u64>,
    /// Age of the oldest message that it has not read, ms; of this broker's partitions only.
    pub(in crate::admin) lag_ms: Option<i64>,
    /// The member that owns it; of a share group one of those that read it.
    pub(in crate::admin) owner: Option<String>,
    /// That member's client id and host, and how many more there are.
    pub(in crate::admin) owner_client: Option<String>,
}

/// How far a group is in a partition.
pub(super) struct Reached {
    /// Everything before is read.
    pub(super) offset: i64,
    /// When it said so, ms.
    pub(super) at_ms: Option<i64>,
    /// From where on its lag is counted; later than `offset` where records beyond that are done.
    pub(super) done: Option<i64>,
}

/// A row before the disk was asked how much lies ahead.
pub(super) struct Row {
    pub(super) view: GroupPartitionView,
    pub(super) partition: Option<Arc<Partition>>,
    pub(super) done: Option<i64>,
}

impl Row {
    /// In a log that has records from `start` to `end`.
    pub(super) fn lag(&self, start: i64, end: i64) -> Option<i64> {
        match self.done {
            Some(done) => Some(end.saturating_sub(done).max(0)),
            // Empty: where it begins makes no difference.
            None if start >= end => Some(0),
            // It will begin at one of the ends; it is not known which.
            None => None,
        }
    }
}

/// Of each partition those that have it: of a share group there may be several.
pub(super) fn owners(members: &[SeenMember]) -> HashMap<Key, Vec<&SeenMember>> {
    let mut owners: HashMap<Key, Vec<&SeenMember>> = HashMap::new();
    for member in members {
        for (topic, partitions) in &member.partitions {
            for partition in partitions {
                let of = owners.entry((topic.clone(), *partition)).or_default();
                of.push(member);
            }
        }
    }
    owners
}

pub(super) fn row(cx: &Context, key: &Key, owners: &HashMap<Key, Vec<&SeenMember>>) -> Row {
    let image = cx.cluster.image();
    let info = image.topic(&key.0).and_then(|topic| topic.partition(key.1));
    let all = owners.get(key).map_or(&[][..], Vec::as_slice);
    let owner = all.first();
    let client = |member: &&SeenMember| match all.len() {
        1 => member.client(),
        n => format!("{} and {} more", member.client(), n - 1),
    };
    let partition = cx.partitions.get(&key.0, key.1).ok();
    let view = GroupPartitionView {
        topic: key.0.clone(),
        partition: key.1,
        identity: info.map_or_else(|| "?".to_owned(), |info| info.identity.to_string()),
        committed: None,
        committed_ms: None,
        high_watermark: partition
            .as_ref()
            .map(|partition| partition.high_watermark()),
        lag: None,
        lag_bytes: None,
        lag_ms: None,
        owner: owner.map(|member| member.member_id.clone()),
        owner_client: owner.map(client),
    };
    Row {
        view,
        partition,
        done: None,
    }
}

/// The group's lag in a partition; asks the disk.
pub(super) fn measured(row: Row, now_ms: i64) -> GroupPartitionView {
    let Some(partition) = &row.partition else {
        return row.view;
    };
    let (start, end) = (partition.log().ends().log_start, partition.high_watermark());
    let lag = row.lag(start, end);
    let mut view = row.view;
    let Some(lag) = lag else {
        return view;
    };
    view.lag = Some(lag);
    (view.lag_bytes, view.lag_ms) = (Some(0), None);
    let from = view.committed.unwrap_or(start).max(start);
    if lag > 0
        && let Ok(Some((bytes, first))) = partition.log().ahead(from)
    {
        view.lag_bytes = Some(bytes);
        view.lag_ms = (first.base_timestamp >= 0).then(|| (now_ms - first.base_timestamp).max(0));
    }
    view
}
