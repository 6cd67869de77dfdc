//! A member of a group, and where it is in a broadcast group, whose members have all partitions and each its own offsets.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::group_members::{Seen, SeenMember};
use crate::api::Context;
use crate::group::{AskingMember, BROADCAST_PROTOCOL, GroupError, OffsetsQuery};

/// A member.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct MemberView {
    /// Its id.
    pub(in crate::admin) member_id: String,
    /// `group.instance.id` of a static member.
    pub(in crate::admin) instance_id: Option<String>,
    /// The client's name for itself.
    pub(in crate::admin) client_id: String,
    /// Where it connects from.
    pub(in crate::admin) host: String,
    /// Its partitions as `topic brokerId-n`.
    pub(in crate::admin) partitions: Vec<String>,
    /// Messages that it has not read; what other brokers do not answer for is left out.
    pub(in crate::admin) lag: i64,
    /// Of a member of a broadcast group: where it is in each of its partitions.
    pub(in crate::admin) offsets: Vec<MemberOffsetView>,
    /// Of a member of a consumer group that has not what it is to have: why not, and for whom it waits.
    pub(in crate::admin) standing: Option<String>,
}

/// Where a member is in a partition.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct MemberOffsetView {
    /// The topic.
    pub(in crate::admin) topic: String,
    /// `brokerId-n`.
    pub(in crate::admin) identity: String,
    /// The next offset that it will read; `None` where it committed none.
    pub(in crate::admin) committed: Option<i64>,
    /// Messages that it has not read; `None` where that is not known.
    pub(in crate::admin) lag: Option<i64>,
}

/// How far a partition goes.
pub(super) struct PartitionEnd<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) identity: &'a str,
    pub(super) high_watermark: Option<i64>,
}

/// By topic and partition.
type Offsets = HashMap<(String, i32), i64>;

/// By member id; `None` where the group is no broadcast group.
pub(super) struct OwnOffsets(Option<HashMap<String, Offsets>>);

impl OwnOffsets {
    pub(super) async fn of(
        cx: &Context,
        group_id: &str,
        described: &Seen,
    ) -> Result<Self, GroupError> {
        if described.protocol != BROADCAST_PROTOCOL {
            return Ok(Self(None));
        }
        let mut all = HashMap::new();
        for member in &described.members {
            let wanted = OffsetsQuery {
                keys: None,
                stable: false,
                member: AskingMember {
                    id: Some(member.member_id.clone()),
                    ..AskingMember::NOBODY
                },
            };
            let found = cx.coordinator.fetch_offsets(group_id, wanted).await?;
            let offsets = found.offsets.into_iter();
            let own = offsets.filter_map(|(key, offset)| Some((key, offset.ok()??.offset)));
            all.insert(member.member_id.clone(), own.collect());
        }
        Ok(Self(Some(all)))
    }

    pub(super) fn are_each_members(&self) -> bool {
        self.0.is_some()
    }

    /// Those of a member, by topic and partition; `None` where the group is no broadcast group.
    pub(super) fn of_member(
        &self,
        member: &SeenMember,
        ends: &[PartitionEnd<'_>],
    ) -> Option<Vec<MemberOffsetView>> {
        let own = self.0.as_ref()?.get(&member.member_id)?;
        let is_its = |end: &&PartitionEnd<'_>| {
            let has = |(topic, partitions): &(String, Vec<i32>)| {
                topic == end.topic && partitions.contains(&end.partition)
            };
            member.partitions.iter().any(has)
        };
        let view = |end: &PartitionEnd<'_>| {
            let key = (end.topic.to_owned(), end.partition);
            let committed = own.get(&key).copied();
            let both = committed.zip(end.high_watermark);
            MemberOffsetView {
                topic: key.0,
                identity: end.identity.to_owned(),
                committed,
                lag: both.map(|(committed, end)| end.saturating_sub(committed).max(0)),
            }
        };
        let mut offsets: Vec<_> = ends.iter().filter(is_its).map(view).collect();
        offsets.sort_by(|a, b| (&a.topic, &a.identity).cmp(&(&b.topic, &b.identity)));
        Some(offsets)
    }
}
