//! How far share groups are with the partitions that they began with, for people: of many partitions at a time.
//!
//! Tests: tests/shares_seen.rs, tests/shares_cluster.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use metaq_protocol::messages::ReadShareGroupStateSummaryRequest;
use metaq_protocol::messages::read_share_group_state_summary_request as summary_request;
use uuid::Uuid;

use super::context::Context;
use super::share_state_admin::{SUMMARY_VERSION, asked_summary, summary_in};
use super::share_states::{ask, coordinator_of};
use super::shared::text;
use crate::cluster::Broker;
use crate::group::{ByTopic, GroupError};
use crate::share::{ShareKey, ShareSummary};

/// Share partitions that another broker is asked about at a time.
const ASKED_AT_ONCE: usize = 1000;
/// Brokers that are asked at the same time.
const BROKERS_AT_ONCE: usize = 8;

/// How far a share group is with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareProgress {
    /// Everything before is done.
    pub start: i64,
    /// Where it would be if the records that are done all came first: what lies between here and the end is not done (KIP-1226).
    /// `None` where nobody has read the partition yet.
    pub done: Option<i64>,
}

impl ShareProgress {
    fn of(summary: &ShareSummary) -> Option<Self> {
        let count = i64::from(summary.delivery_complete_count);
        (summary.start >= 0).then(|| Self {
            start: summary.start,
            done: (count >= 0).then_some(summary.start.saturating_add(count)),
        })
    }
}

/// Topic and partition index, with how far a group is there.
pub type Progress = ((String, i32), ShareProgress);

/// How far a share group is with the partitions that it began with; of those that are known. `partitions_max` is how many are
/// looked at.
pub async fn share_progress(
    cx: &Arc<Context>,
    group_id: &str,
    partitions_max: usize,
) -> Result<Vec<Progress>, GroupError> {
    let all = cx.coordinator.share_partitions(group_id).await?;
    let image = cx.cluster.image();
    let group: Arc<str> = group_id.into();
    let mut here = Vec::new();
    let mut elsewhere: BTreeMap<i32, (Broker, Vec<ShareKey>)> = BTreeMap::new();
    for key in keys(&group, all).take(partitions_max) {
        match coordinator_of(cx, &key) {
            Ok(None) => here.push(key),
            Ok(Some(broker)) => {
                let found = elsewhere.entry(broker.id);
                found.or_insert_with(|| (broker, Vec::new())).1.push(key);
            }
            Err(_) => {}
        }
    }
    let mut found = Vec::with_capacity(here.len());
    for key in here {
        tokio::task::coop::consume_budget().await;
        if let Ok(summary) = cx.shares.states.summary(&key).await {
            found.push((key.topic_id, key.partition, summary));
        }
    }
    let asked = stream::iter(elsewhere.into_values()).map(|(broker, keys)| {
        let (cx, group) = (cx.clone(), group.clone());
        async move { ask_one(&cx, &broker, &group, &keys).await }
    });
    let asked: Vec<_> = asked.buffer_unordered(BROKERS_AT_ONCE).collect().await;
    found.extend(asked.into_iter().flatten());
    let found = found.into_iter().filter_map(|(topic_id, index, summary)| {
        let topic = image.topic_by_id(topic_id)?;
        let progress = ShareProgress::of(&summary)?;
        Some(((topic.name.to_string(), index), progress))
    });
    Ok(found.collect())
}

fn keys(group: &Arc<str>, all: ByTopic) -> impl Iterator<Item = ShareKey> {
    all.into_iter().flat_map(move |(topic_id, partitions)| {
        let group = group.clone();
        partitions.into_iter().map(move |partition| ShareKey {
            group_id: group.clone(),
            topic_id,
            partition,
        })
    })
}

/// What another broker has stored of those that it answers for.
async fn ask_one(
    cx: &Context,
    broker: &Broker,
    group: &str,
    keys: &[ShareKey],
) -> Vec<(Uuid, i32, ShareSummary)> {
    let mut found = Vec::with_capacity(keys.len());
    for some in keys.chunks(ASKED_AT_ONCE) {
        let mut topics: BTreeMap<Uuid, Vec<_>> = BTreeMap::new();
        for key in some {
            let partitions = topics.entry(key.topic_id).or_default();
            partitions.push(asked_summary(key));
        }
        let topics = topics.into_iter().map(|(id, partitions)| {
            summary_request::ReadStateSummaryData::default()
                .with_topic_id(id)
                .with_partitions(partitions)
        });
        let request = ReadShareGroupStateSummaryRequest::default()
            .with_group_id(text(group))
            .with_topics(topics.collect());
        let Ok(answer) = ask(cx, broker, SUMMARY_VERSION, &request).await else {
            return found;
        };
        for topic in &answer.results {
            let known = topic.partitions.iter().filter_map(|partition| {
                let summary = summary_in(partition).ok()?;
                Some((topic.topic_id, partition.partition, summary))
            });
            found.extend(known);
        }
    }
    found
}
