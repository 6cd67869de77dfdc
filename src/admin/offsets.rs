//! Where a group goes on: planning and setting its offsets.
//!
//! Tests: tests/dashboard.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use metaq_protocol::ResponseError;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use metaq_protocol::messages::{
    BrokerId, GroupId, ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use metaq_protocol::protocol::StrBytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::actions::{coordinator_of, named, outcome, tell, text};
use super::errors::ApiError;
use super::rights;
use super::visitor::Visitor;
use super::wire::ask_broker;
use crate::api::{Context, Resource};
use crate::security::Operation;

/// Where a group shall go on in a topic.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetOffsets {
    /// The topic.
    pub(super) topic: String,
    /// Its partitions; all without.
    #[serde(default)]
    pub(super) partitions: Option<Vec<i32>>,
    /// `earliest`, `latest`, `offset`, `timestamp` (ms since 1970), or `skip` (so many messages forward, or back).
    pub(super) to: String,
    /// The offset, the time, or how many messages.
    #[serde(default)]
    pub(super) value: Option<i64>,
    /// Without it, only the plan is answered.
    #[serde(default)]
    pub(super) execute: bool,
}

/// What a reset does, or did.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct ResetPlan {
    /// Whether it was done.
    pub(super) executed: bool,
    /// Partition by partition.
    pub(super) partitions: Vec<PlannedOffset>,
}

/// A partition of a reset.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct PlannedOffset {
    /// The partition's index.
    pub(super) partition: i32,
    /// What is committed; `null` for nothing.
    pub(super) before: Option<i64>,
    /// Where the group shall go on.
    pub(super) behind: i64,
}

/// Sets where a group without members goes on, or tells where it would.
pub(super) async fn reset(
    cx: &Arc<Context>,
    actor: &Visitor,
    group: &str,
    wanted: &ResetOffsets,
) -> Result<ResetPlan, ApiError> {
    // As a commit asks for it; other brokers, which are asked for the rest, do not know who asks.
    let topic = Resource::Topic(&wanted.topic);
    rights::require(cx, actor, Operation::Read, topic)?;
    let image = cx.cluster.image();
    let Some(topic) = image.topic(&wanted.topic).cloned() else {
        return Err(ApiError::not_found(format!("topic {}", wanted.topic)));
    };
    let all = 0..topic.partitions.len() as i32;
    let mut chosen: Vec<i32> = wanted
        .partitions
        .clone()
        .unwrap_or_else(|| all.clone().collect());
    chosen.sort_unstable();
    chosen.dedup();
    if let Some(absent) = chosen.iter().find(|index| !all.contains(index)) {
        return Err(ApiError::not_found(format!(
            "partition {absent} of {}",
            wanted.topic
        )));
    }
    let committed = committed(cx, actor, group, &wanted.topic, &chosen).await?;
    let mut partitions = Vec::with_capacity(chosen.len());
    for index in chosen {
        let before = committed.get(&index).copied();
        let leader = topic.partitions[index as usize].leader;
        let target = Target {
            cx,
            actor,
            topic: &wanted.topic,
            index,
            leader,
        };
        let behind = target.of(&wanted.to, wanted.value, before).await?;
        partitions.push(PlannedOffset {
            partition: index,
            before,
            behind,
        });
    }
    if wanted.execute {
        commit(cx, actor, group, &wanted.topic, &partitions).await?;
        let value = wanted
            .value
            .map_or(String::new(), |value| format!(" {value}"));
        let what = format!("reset {} to {}{value}", wanted.topic, wanted.to);
        tell(cx, actor, group, &what);
    }
    Ok(ResetPlan {
        executed: wanted.execute,
        partitions,
    })
}

async fn committed(
    cx: &Arc<Context>,
    actor: &Visitor,
    group: &str,
    topic: &str,
    partitions: &[i32],
) -> Result<BTreeMap<i32, i64>, ApiError> {
    let asked = OffsetFetchRequestTopic::default()
        .with_name(named(topic))
        .with_partition_indexes(partitions.to_vec());
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(Some(vec![asked]));
    let response = ask_broker(cx, actor.session(), coordinator_of(cx, group), 7, &request).await?;
    outcome(response.error_code, None)?;
    let found = response.topics.iter().flat_map(|topic| &topic.partitions);
    let found = found.filter(|partition| partition.committed_offset >= 0);
    Ok(found
        .map(|partition| (partition.partition_index, partition.committed_offset))
        .collect())
}

async fn commit(
    cx: &Arc<Context>,
    actor: &Visitor,
    group: &str,
    topic: &str,
    planned: &[PlannedOffset],
) -> Result<(), ApiError> {
    let partition = |planned: &PlannedOffset| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(planned.partition)
            .with_committed_offset(planned.behind)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(StrBytes::default()))
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(named(topic))
        .with_partitions(planned.iter().map(partition).collect());
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let response = ask_broker(cx, actor.session(), coordinator_of(cx, group), 8, &request).await?;
    for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
        if partition.error_code == ResponseError::UnknownMemberId.code() {
            let message =
                "The group has members: stop them first, or they would go on where they are.";
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "non_empty_group",
                message,
            ));
        }
        outcome(partition.error_code, None)?;
    }
    Ok(())
}

/// A partition whose new offset is looked for.
struct Target<'a> {
    cx: &'a Arc<Context>,
    actor: &'a Visitor,
    topic: &'a str,
    index: i32,
    leader: i32,
}

impl Target<'_> {
    async fn of(&self, to: &str, value: Option<i64>, before: Option<i64>) -> Result<i64, ApiError> {
        let value = || value.ok_or_else(|| ApiError::bad(format!("{to} needs a value.")));
        let within = |offset: i64, (start, end): (i64, i64)| offset.clamp(start, end);
        match to {
            "earliest" => self.list(-2).await,
            "latest" => self.list(-1).await,
            "timestamp" => {
                let found = self.list(value()?.max(0)).await?;
                if found >= 0 {
                    Ok(found)
                } else {
                    self.list(-1).await
                }
            }
            "offset" => Ok(within(value()?, self.ends().await?)),
            "skip" => {
                let ends = self.ends().await?;
                let from = before.unwrap_or(ends.0);
                Ok(within(from.saturating_add(value()?), ends))
            }
            other => Err(ApiError::bad(format!(
                "{other} is none of earliest, latest, offset, timestamp and skip."
            ))),
        }
    }

    async fn ends(&self) -> Result<(i64, i64), ApiError> {
        Ok((self.list(-2).await?, self.list(-1).await?))
    }

    async fn list(&self, timestamp: i64) -> Result<i64, ApiError> {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(self.index)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(named(self.topic))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let response = ask_broker(self.cx, self.actor.session(), self.leader, 7, &request).await?;
        let found = response
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .next();
        let Some(found) = found else {
            return Err(ApiError::failed("the answer has no partition"));
        };
        outcome(found.error_code, None)?;
        Ok(found.offset)
    }
}
