//! Consumer groups: where they are, who owns what, and why they lag or rebalance.

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::events::EventView;
pub(in crate::admin) use super::group_members::NoGroup;
use super::group_members::{Seen, SeenMember};
pub(in crate::admin) use super::group_rows::GroupPartitionView;
use super::group_rows::{Key, Reached, Row, measured, owners, row};
use super::in_flight::{self, InFlightView};
use super::member_views::{MemberOffsetView, MemberView, OwnOffsets, PartitionEnd};
use super::{Page, Part};
use crate::admin::remote;
use crate::admin::visitor::Visitor;
use crate::api::{Context, share_progress};
use crate::coordinator::Slot;
use crate::group::{AskingMember, CommittedOffset, GroupKind, OffsetsQuery};
use crate::observe::EventKind;

/// Rows of a group's partitions that are shown: those that lag most.
const PARTITIONS_SHOWN: usize = 1000;
/// A commit older than this, while messages wait, is worth a word.
const COMMIT_OLD_MS: i64 = 60_000;

/// A group.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct GroupView {
    /// Its id.
    pub(in crate::admin) group_id: String,
    /// `classic`, `consumer` (KIP-848) or `share` (KIP-932).
    pub(in crate::admin) kind: &'static str,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Stable`; of a consumer group `Empty`, `Assigning`,
    /// `Reconciling` or `Stable`.
    pub(in crate::admin) state: &'static str,
    /// How many members it has.
    pub(in crate::admin) members: usize,
    /// Partitions in which it committed offsets.
    pub(in crate::admin) partitions: usize,
    /// Messages that it has not read; what other brokers do not answer for is left out.
    pub(in crate::admin) lag: i64,
    /// Rebalances that are remembered.
    pub(in crate::admin) rebalances: usize,
}

/// A group with everything that is known of it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct GroupDetail {
    /// The group.
    pub(in crate::admin) group: GroupView,
    /// Its generation; of a consumer group its epoch.
    pub(in crate::admin) generation: i32,
    /// Protocol type, mostly `consumer`.
    pub(in crate::admin) protocol_type: String,
    /// The assignor.
    pub(in crate::admin) protocol: String,
    /// The broker that coordinates it.
    pub(in crate::admin) coordinator: i32,
    /// Bytes that it has not read, in partitions of this broker.
    pub(in crate::admin) lag_bytes: u64,
    /// Age of the oldest message that it has not read, ms; `None` where it has read all.
    pub(in crate::admin) lag_ms: Option<i64>,
    /// What stands out: why it lags, or what keeps it from reading.
    pub(in crate::admin) findings: Vec<String>,
    /// Its members.
    pub(in crate::admin) members: Vec<MemberView>,
    /// Its partitions, those that lag most first.
    pub(in crate::admin) partitions: Vec<GroupPartitionView>,
    /// Of a share group what members have at this moment, by partition; of partitions whose leader does not answer nothing.
    pub(in crate::admin) in_flight: Vec<InFlightView>,
    /// Its rebalances, newest first: who set them off, why, and how long they took.
    pub(in crate::admin) rebalances: Vec<EventView>,
}

/// All groups that this broker coordinates and that the visitor may see.
pub(in crate::admin) async fn list(
    cx: &std::sync::Arc<Context>,
    visitor: &Visitor,
    part: &Part,
    by_lag: bool,
) -> Page<GroupView> {
    let mut all = Vec::new();
    let rebalances = cx.observe.events.remembered(EventKind::Rebalance);
    let mut groups = cx.coordinator.survey().await;
    groups.retain(|group| part.wants(&group.group_id) && visitor.sees_group(cx, &group.group_id));
    remote::add_share_offsets(cx, &mut groups).await;
    let elsewhere = remote::ends_of(cx, &groups).await;
    for group in groups {
        let lag = |part: &(String, i32, i64)| remote::lag_in(cx, &elsewhere, part);
        all.push(GroupView {
            kind: group.kind.name(),
            state: group.state,
            members: group.members,
            partitions: group.offsets.len(),
            lag: total(group.offsets.iter().filter_map(lag)),
            rebalances: rebalances.get(&group.group_id).copied().unwrap_or(0),
            group_id: group.group_id,
        });
    }
    if by_lag {
        all.sort_by_key(|group| std::cmp::Reverse(group.lag));
    }
    part.of(all)
}

impl GroupDetail {
    pub(in crate::admin) async fn of(
        cx: &std::sync::Arc<Context>,
        visitor: &Visitor,
        group_id: &str,
    ) -> Result<Self, NoGroup> {
        let image = cx.cluster.image();
        let coordinator = image
            .slot(Slot::of(group_id))
            .map_or(cx.cluster.broker_id(), |slot| slot.owner);
        if coordinator != cx.cluster.broker_id() {
            return Err(NoGroup::Elsewhere(coordinator));
        }
        let unknown = || NoGroup::Unknown(group_id.to_owned());
        let described = cx
            .coordinator
            .describe(group_id)
            .await?
            .ok_or_else(unknown)?;
        let wanted = OffsetsQuery {
            keys: None,
            stable: false,
            member: AskingMember::NOBODY,
        };
        let mut described = Seen::from(described);
        described.keep_topics(|topic| visitor.sees_topic(cx, topic));
        let mut offsets: Vec<(Key, Option<Reached>)> = Vec::new();
        match described.kind {
            GroupKind::Share => {
                let found = share_progress(cx, group_id, usize::MAX).await?.into_iter();
                offsets.extend(found.map(|(key, at)| {
                    let reached = Reached {
                        offset: at.start,
                        at_ms: None,
                        done: at.done,
                    };
                    (key, Some(reached))
                }));
            }
            _ => {
                let found = cx.coordinator.fetch_offsets(group_id, wanted).await?;
                offsets.extend(found.offsets.into_iter().map(|(key, committed)| {
                    let committed = committed.ok().flatten();
                    let told = |committed: CommittedOffset| Reached {
                        offset: committed.offset,
                        at_ms: Some(committed.commit_ms),
                        done: Some(committed.offset),
                    };
                    (key, committed.map(told))
                }));
            }
        }
        offsets.retain(|((topic, _), _)| visitor.sees_topic(cx, topic));
        let own = OwnOffsets::of(cx, group_id, &described).await?;
        let owners = owners(&described.members);
        let mut rows: HashMap<(String, i32), Row> = HashMap::new();
        for (key, reached) in offsets {
            let mut row = row(cx, &key, &owners);
            row.view.committed = reached.as_ref().map(|reached| reached.offset);
            row.view.committed_ms = reached.as_ref().and_then(|reached| reached.at_ms);
            row.done = reached.and_then(|reached| reached.done);
            rows.insert(key, row);
        }
        for key in owners.keys() {
            if !rows.contains_key(key) {
                rows.insert(key.clone(), row(cx, key, &owners));
            }
        }
        let elsewhere = rows.iter().filter(|(_, row)| row.partition.is_none());
        let elsewhere: Vec<(String, i32)> = elsewhere.map(|(key, _)| key.clone()).collect();
        for (key, end) in remote::high_watermarks(cx, elsewhere).await {
            if let Some(row) = rows.get_mut(&key) {
                row.view.high_watermark = Some(end);
                row.view.lag = row.lag(0, end);
            }
        }
        let now_ms = cx.partitions.clock().now_ms();
        let measure = move || {
            let rows = rows.into_values().map(|row| measured(row, now_ms));
            let mut rows: Vec<GroupPartitionView> = rows.collect();
            rows.sort_by(|a, b| {
                (b.lag, &a.topic, a.partition).cmp(&(a.lag, &b.topic, b.partition))
            });
            rows
        };
        let rows = tokio::task::spawn_blocking(measure)
            .await
            .unwrap_or_default();
        let in_flight = match described.kind {
            GroupKind::Share => {
                let partitions = rows.iter();
                let partitions =
                    partitions.map(|row| (row.topic.clone(), row.partition, row.identity.clone()));
                let partitions: Vec<_> = partitions.collect();
                in_flight::of(cx, group_id, &described.members, &partitions).await
            }
            _ => Vec::new(),
        };
        let detail = Self::assemble(cx, group_id, (described, own), rows);
        Ok(Self {
            in_flight,
            ..detail
        })
    }

    fn assemble(
        cx: &Context,
        group_id: &str,
        (described, own): (Seen, OwnOffsets),
        mut rows: Vec<GroupPartitionView>,
    ) -> Self {
        if own.are_each_members() {
            // Every member has each.
            rows.iter_mut()
                .for_each(|row| (row.owner, row.owner_client) = (None, None));
        }
        let rebalances =
            cx.observe
                .events
                .latest_where(&[EventKind::Rebalance], usize::MAX, |event| {
                    event.subject == group_id
                });
        let ends: Vec<PartitionEnd<'_>> = rows.iter().map(end_of).collect();
        let members = described
            .members
            .iter()
            .map(|member| match own.of_member(member, &ends) {
                Some(offsets) => member_of_broadcast(member, offsets),
                None => member_view(member, &rows),
            });
        let members: Vec<MemberView> = members.collect();
        let mut detail = Self {
            group: GroupView {
                group_id: group_id.to_owned(),
                kind: described.kind.name(),
                state: described.state,
                members: members.len(),
                partitions: rows.len(),
                lag: total(rows.iter().filter_map(|row| row.lag)),
                rebalances: rebalances.len(),
            },
            generation: described.generation,
            protocol_type: described.protocol_type,
            protocol: described.protocol,
            // It is asked for its own alone.
            coordinator: cx.cluster.broker_id(),
            lag_bytes: rows.iter().filter_map(|row| row.lag_bytes).sum(),
            lag_ms: rows.iter().filter_map(|row| row.lag_ms).max(),
            findings: Vec::new(),
            members,
            partitions: Vec::new(),
            in_flight: Vec::new(),
            rebalances: rebalances.into_iter().map(EventView::from).collect(),
        };
        let now_ms = cx.partitions.clock().now_ms();
        detail.findings = findings(&detail, &rows, now_ms);
        rows.truncate(PARTITIONS_SHOWN);
        detail.partitions = rows;
        detail
    }
}

/// Owners by topic and partition.
/// A group may commit any number, in many partitions.
fn total(lags: impl Iterator<Item = i64>) -> i64 {
    lags.fold(0, i64::saturating_add)
}

fn member_view(member: &SeenMember, rows: &[GroupPartitionView]) -> MemberView {
    let mut has: HashSet<(&str, i32)> = HashSet::new();
    for (topic, partitions) in &member.partitions {
        has.extend(partitions.iter().map(|index| (topic.as_str(), *index)));
    }
    let own = rows
        .iter()
        .filter(|row| has.contains(&(row.topic.as_str(), row.partition)));
    let mut partitions: Vec<String> = own
        .clone()
        .map(|row| format!("{} {}", row.topic, row.identity))
        .collect();
    partitions.sort();
    MemberView {
        member_id: member.member_id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        host: member.client_host.trim_start_matches('/').to_owned(),
        partitions,
        lag: total(own.filter_map(|row| row.lag)),
        offsets: Vec::new(),
        standing: member.standing.clone(),
    }
}

fn end_of(row: &GroupPartitionView) -> PartitionEnd<'_> {
    PartitionEnd {
        topic: &row.topic,
        partition: row.partition,
        identity: &row.identity,
        high_watermark: row.high_watermark,
    }
}

fn member_of_broadcast(member: &SeenMember, offsets: Vec<MemberOffsetView>) -> MemberView {
    MemberView {
        partitions: Vec::new(),
        lag: total(offsets.iter().filter_map(|own| own.lag)),
        offsets,
        ..member_view(member, &[])
    }
}

/// Members that committed nothing for a while although messages wait, those with most of them first.
fn stuck(rows: &[GroupPartitionView], now_ms: i64) -> Vec<String> {
    let mut by_owner: HashMap<&str, (usize, i64, i64)> = HashMap::new();
    for row in rows.iter().filter(|row| row.lag.unwrap_or(0) > 0) {
        if let (Some(owner), Some(at_ms)) = (&row.owner_client, row.committed_ms) {
            let of = by_owner.entry(owner).or_insert((0, 0, i64::MIN));
            let lag = of.1.saturating_add(row.lag.unwrap_or(0));
            *of = (of.0 + 1, lag, of.2.max(at_ms));
        }
    }
    let mut stuck: Vec<_> = by_owner.into_iter().collect();
    stuck.retain(|(_, (_, _, latest_ms))| *latest_ms < now_ms - COMMIT_OLD_MS);
    stuck.sort_by_key(|(_, (_, lag, _))| std::cmp::Reverse(*lag));
    let described = stuck.into_iter().take(3).map(|(owner, (partitions, lag, latest_ms))| {
        let partitions = match partitions {
            1 => "1 partition".to_owned(),
            n => format!("{n} partitions"),
        };
        let seconds = (now_ms - latest_ms) / 1000;
        format!(
            "{owner} has committed nothing for {seconds} s while {lag} messages wait in {partitions} of it: it is stuck, or it is slow and commits rarely."
        )
    });
    described.collect()
}

/// What an operator would find by looking long enough.
fn findings(detail: &GroupDetail, rows: &[GroupPartitionView], now_ms: i64) -> Vec<String> {
    let mut found = Vec::new();
    let (lag, members) = (detail.group.lag, detail.members.len());
    if members == 0 {
        found.push(match lag {
            0 => "Nobody is in the group; it has read everything.".to_owned(),
            lag => format!(
                "Nobody is in the group, and {lag} messages wait. Only a consumer that takes partitions by itself would read them."
            ),
        });
        return found;
    }
    found.extend(match (detail.group.kind, detail.group.state) {
        (_, "Stable") => None,
        ("consumer", state) => Some(format!(
            "The group is rebalancing ({state}): members read on in what they keep."
        )),
        (_, state) => Some(format!(
            "The group is rebalancing ({state}): its members do not read until it is over."
        )),
    });
    let standing = detail.members.iter().filter_map(|member| {
        let standing = member.standing.as_ref()?;
        Some(format!("{} {standing}.", member.client_id))
    });
    found.extend(standing.take(3));
    let recent = |event: &&EventView| event.at_ms > now_ms - 10 * COMMIT_OLD_MS;
    let often = detail.rebalances.iter().filter(recent).count();
    if often >= 5 {
        found.push(format!(
            "It rebalanced {often} times in the last ten minutes; reading stops each time. The latest reason: {}.",
            detail.rebalances[0].why
        ));
    }
    let uncommitted = rows
        .iter()
        .filter(|row| row.owner.is_some() && row.committed.is_none() && row.lag != Some(0));
    match uncommitted.count() {
        0 => {}
        1 => found.push("In 1 partition its member has committed nothing yet, so how far it is, is not known.".to_owned()),
        n => found.push(format!("In {n} partitions its members have committed nothing yet, so how far they are, is not known.")),
    }
    if lag == 0 {
        if found.is_empty() {
            found.push("It has read everything.".to_owned());
        }
        return found;
    }
    let unowned = rows
        .iter()
        .filter(|row| row.owner.is_none() && row.lag.unwrap_or(0) > 0);
    let unowned: Vec<String> = unowned
        .map(|row| format!("{} {}", row.topic, row.identity))
        .collect();
    if let Some(first) = unowned.first() {
        let (n, reads) = match unowned.len() {
            1 => ("1 partition".to_owned(), "is owned by no member"),
            n => (format!("{n} partitions"), "are owned by no member"),
        };
        found.push(format!("{n} with messages {reads}, {first} for one: no member subscribes to the topic any more, or the assignor left it out."));
    }
    found.extend(stuck(rows, now_ms));
    if let Some(worst) = rows.first()
        && rows.len() > 1
        && worst.lag.unwrap_or(0) > lag / 2
    {
        found.push(format!(
            "{} {} has {} % of the lag{}.",
            worst.topic,
            worst.identity,
            i128::from(worst.lag.unwrap_or(0)) * 100 / i128::from(lag),
            worst
                .owner_client
                .as_ref()
                .map_or_else(String::new, |who| format!("; {who} owns it"))
        ));
    }
    let idle = detail
        .members
        .iter()
        .filter(|member| member.partitions.is_empty())
        .count();
    if idle > 0 && detail.group.state == "Stable" {
        found.push(format!(
            "{idle} of {members} members own nothing: there are more members than partitions."
        ));
    }
    if found.is_empty() {
        found.push(
            "Its members read and commit, but messages arrive faster than they do, or did."
                .to_owned(),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(committed: Option<i64>, lag: Option<i64>) -> GroupPartitionView {
        GroupPartitionView {
            topic: "t".to_owned(),
            partition: 0,
            identity: "0-0".to_owned(),
            committed,
            committed_ms: None,
            high_watermark: Some(5),
            lag,
            lag_bytes: None,
            lag_ms: None,
            owner: Some("m".to_owned()),
            owner_client: None,
        }
    }

    fn found(rows: &[GroupPartitionView]) -> Vec<String> {
        let group = GroupView {
            group_id: "g".to_owned(),
            kind: "classic",
            state: "Stable",
            members: 1,
            partitions: rows.len(),
            lag: total(rows.iter().filter_map(|row| row.lag)),
            rebalances: 1,
        };
        let detail = GroupDetail {
            group,
            generation: 1,
            protocol_type: "consumer".to_owned(),
            protocol: "range".to_owned(),
            coordinator: 0,
            lag_bytes: 0,
            lag_ms: None,
            findings: Vec::new(),
            members: vec![MemberView {
                member_id: "m".to_owned(),
                instance_id: None,
                client_id: "c".to_owned(),
                host: "h".to_owned(),
                partitions: vec!["t 0-0".to_owned()],
                lag: 0,
                offsets: Vec::new(),
                standing: None,
            }],
            partitions: Vec::new(),
            in_flight: Vec::new(),
            rebalances: Vec::new(),
        };
        findings(&detail, rows, 0)
    }

    #[test]
    fn an_empty_partition_without_an_offset_does_not_stand_out() {
        let all_read = "It has read everything.";
        assert_eq!(
            found(&[row(None, Some(0)), row(Some(5), Some(0))]),
            [all_read]
        );
        let unknown = found(&[row(None, None), row(Some(5), Some(0))]);
        assert!(unknown[0].contains("committed nothing yet"), "{unknown:?}");
    }
}
