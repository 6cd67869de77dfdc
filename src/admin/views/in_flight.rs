//! What members of a share group have at this moment, by partition.

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::group_members::SeenMember;
use crate::api::{AcquiredRange, Context, share_in_flight};

/// Ranges that are shown of all partitions of a group.
const RANGES_SHOWN: usize = 500;

/// What members have of a partition.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct InFlightView {
    /// The topic.
    pub(in crate::admin) topic: String,
    /// The partition's index.
    pub(in crate::admin) partition: i32,
    /// `brokerId-n`.
    pub(in crate::admin) identity: String,
    /// How many records members have.
    pub(in crate::admin) records: i64,
    /// Ranges of them, from the first on.
    pub(in crate::admin) ranges: Vec<InFlightRange>,
    /// How many ranges more there are that are not shown.
    pub(in crate::admin) left_out: usize,
}

/// Records that a member has.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct InFlightRange {
    /// Which, until when, and how often they were given out.
    #[serde(flatten)]
    pub(in crate::admin) acquired: AcquiredRange,
    /// The member's client id and host, where it is in the group.
    pub(in crate::admin) client: Option<String>,
}

/// Topic, partition index and `brokerId-n`.
pub(super) type SharedPartition = (String, i32, String);

/// Of some partitions of a share group, those of which members have something.
pub(super) async fn of(
    cx: &Arc<Context>,
    group_id: &str,
    members: &[SeenMember],
    partitions: &[SharedPartition],
) -> Vec<InFlightView> {
    let keys = partitions.iter();
    let keys = keys.map(|(topic, partition, _)| (topic.clone(), *partition));
    let mut found = share_in_flight(cx, group_id, keys).await;
    let clients: HashMap<&str, String> = members
        .iter()
        .map(|member| (member.member_id.as_str(), member.client()))
        .collect();
    let mut room = RANGES_SHOWN;
    let mut views = Vec::new();
    for (topic, partition, identity) in partitions {
        let told = found.remove(&(topic.clone(), *partition));
        let Some(told) = told.filter(|told| told.records > 0) else {
            continue;
        };
        let all = told.ranges.len();
        let ranges = told.ranges.into_iter().take(room);
        let ranges: Vec<InFlightRange> = ranges
            .map(|acquired| InFlightRange {
                client: clients.get(acquired.member_id.as_str()).cloned(),
                acquired,
            })
            .collect();
        room -= ranges.len();
        views.push(InFlightView {
            topic: topic.clone(),
            partition: *partition,
            identity: identity.clone(),
            records: told.records,
            left_out: told.left_out + all - ranges.len(),
            ranges,
        });
    }
    views.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    views
}
