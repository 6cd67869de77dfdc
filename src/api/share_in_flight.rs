//! What members of share groups have of partitions at this moment, as the partitions' leaders know it, for people.
//!
//! A leader is asked by DescribeShareGroupOffsets with a tagged field (KIP-482) of the group, and answers for what it leads with a
//! tagged field of the partition. Brokers of earlier versions pass over it.
//!
//! Tests: tests/shares_seen.rs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use metaq_protocol::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequestGroup as AskedGroup,
    DescribeShareGroupOffsetsRequestTopic as AskedTopic,
};
use metaq_protocol::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponsePartition as DescribedPartition;
use metaq_protocol::messages::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, GroupId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::forward::FORWARDED;
use super::shared::{text, topic_name};
use crate::peer::Lane;
use crate::share::{Leading, ShareKey};

/// Of the group, empty; of a partition, JSON of [`ShareInFlight`].
const IN_FLIGHT_TAG: i32 = 10_003;
/// Ranges that are told of a partition, from the first on.
const RANGES_MAX: usize = 100;
/// A leader that does not answer within this is left out.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The version in which leaders are asked.
pub const IN_FLIGHT_VERSION: i16 = 0;

/// Topic and partition index.
type Key = (String, i32);

/// What members have of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShareInFlight {
    /// How many records members have.
    pub records: i64,
    /// Ranges of them, from the first on.
    pub ranges: Vec<AcquiredRange>,
    /// How many ranges more there are.
    pub left_out: usize,
}

/// Records that a member has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcquiredRange {
    /// First offset.
    pub first: i64,
    /// Last offset.
    pub last: i64,
    /// The member.
    pub member_id: String,
    /// For how long it has them, ms.
    pub held_ms: i64,
    /// How much longer they are its own, ms; 0 where its lock is over and that is being stored.
    pub lock_ms: i64,
    /// How often they were given to a member, this time included.
    pub delivery_count: i16,
}

impl ShareInFlight {
    fn of(leading: &Leading) -> Self {
        let mut told = Self::default();
        for part in leading.in_flight() {
            let Some(held) = part.held else { continue };
            told.records += part.last - part.first + 1;
            if told.ranges.len() == RANGES_MAX {
                told.left_out += 1;
                continue;
            }
            told.ranges.push(AcquiredRange {
                first: part.first,
                last: part.last,
                member_id: held.member.to_string(),
                held_ms: held.since_ms,
                lock_ms: held.until_ms.max(0),
                delivery_count: part.delivery_count,
            });
        }
        told
    }

    fn here(cx: &Context, key: &ShareKey) -> Option<Self> {
        cx.shares
            .partitions
            .get(key)
            .map(|leading| Self::of(&leading))
    }
}

/// Whether a request is about what is in flight at this broker.
pub(super) fn is_asked(group: &AskedGroup) -> bool {
    group.unknown_tagged_fields.contains_key(&IN_FLIGHT_TAG)
}

/// Adds what is in flight here of a partition; how many bytes that is.
pub(super) fn describe_here(
    cx: &Context,
    key: &ShareKey,
    partition: &mut DescribedPartition,
) -> usize {
    let told = ShareInFlight::here(cx, key);
    let Some(told) = told.and_then(|told| serde_json::to_vec(&told).ok()) else {
        return 0;
    };
    let bytes = told.len();
    let fields = &mut partition.unknown_tagged_fields;
    fields.insert(IN_FLIGHT_TAG, told.into());
    bytes
}

/// Asks a leader what is in flight of some of its partitions.
pub fn in_flight_request(
    group_id: &str,
    topics: &BTreeMap<String, Vec<i32>>,
) -> DescribeShareGroupOffsetsRequest {
    let topics = topics.iter().map(|(name, partitions)| {
        AskedTopic::default()
            .with_topic_name(topic_name(name))
            .with_partitions(partitions.clone())
    });
    let mut group = AskedGroup::default()
        .with_group_id(GroupId(text(group_id)))
        .with_topics(Some(topics.collect()));
    let fields = &mut group.unknown_tagged_fields;
    fields.insert(IN_FLIGHT_TAG, Bytes::new());
    DescribeShareGroupOffsetsRequest::default().with_groups(vec![group])
}

/// What a leader answers to that.
pub fn in_flight_answer(answer: &DescribeShareGroupOffsetsResponse) -> Vec<(Key, ShareInFlight)> {
    let topics = answer.groups.iter().flat_map(|group| &group.topics);
    let found = topics.flat_map(|topic| {
        topic.partitions.iter().filter_map(|partition| {
            let told = partition.unknown_tagged_fields.get(&IN_FLIGHT_TAG)?;
            let key = (topic.topic_name.to_string(), partition.partition_index);
            Some((key, serde_json::from_slice(told).ok()?))
        })
    });
    found.collect()
}

/// What members have of some partitions of a group, here and elsewhere; nothing of those whose leader does not answer.
pub async fn share_in_flight(
    cx: &Arc<Context>,
    group_id: &str,
    partitions: impl Iterator<Item = Key>,
) -> HashMap<Key, ShareInFlight> {
    let image = cx.cluster.image();
    let mut found = HashMap::new();
    let mut elsewhere: BTreeMap<i32, BTreeMap<String, Vec<i32>>> = BTreeMap::new();
    for (name, index) in partitions {
        let Some(topic) = image.topic(&name) else {
            continue;
        };
        let key = ShareKey {
            group_id: group_id.into(),
            topic_id: topic.id,
            partition: index,
        };
        match topic.partition(index).map(|info| info.leader) {
            Some(leader) if leader == cx.cluster.broker_id() => {
                let told = ShareInFlight::here(cx, &key);
                found.extend(told.map(|told| ((name, index), told)));
            }
            Some(leader) => {
                let topics = elsewhere.entry(leader).or_default();
                topics.entry(name).or_default().push(index);
            }
            None => {}
        }
    }
    let asked = elsewhere.into_iter().map(|(leader, topics)| {
        let (cx, broker) = (cx.clone(), image.brokers.get(&leader).cloned());
        let request = in_flight_request(group_id, &topics);
        async move {
            let to = (Lane::Forwards, &broker?);
            let asked = (FORWARDED, IN_FLIGHT_VERSION);
            let answer = cx.call(to, asked, &request, ANSWER_MAX).await;
            Some(in_flight_answer(&answer.ok()?))
        }
    });
    let answers = join_all(asked).await;
    found.extend(answers.into_iter().flatten().flatten());
    found
}
