//! What other brokers know: the ends of partitions that they lead.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use metaq_protocol::protocol::StrBytes;

use super::wire::{ask_broker, own_session};
use crate::api::{Context, share_progress};
use crate::group::{GroupKind, GroupSurvey};
use crate::session::ListenerInfo;

/// A broker that does not answer within this is left out.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// ListOffsets in this version is understood by every broker of a cluster.
const VERSION: i16 = 7;
const LATEST: i64 = -1;

/// Topic and partition index.
type Key = (String, i32);

/// Partitions of groups that are asked about at a time; the others have no lag for this time.
const PARTITIONS_MAX: usize = 20_000;

/// Share groups commit no offsets: how far they are is read from what is stored of their partitions. Those that come after a
/// broker that does not answer in time have no lag for this time.
pub(super) async fn add_share_offsets(cx: &Arc<Context>, groups: &mut [GroupSurvey]) {
    let mut left = PARTITIONS_MAX;
    let until = tokio::time::Instant::now() + ANSWER_MAX;
    for group in groups {
        if group.kind != GroupKind::Share {
            continue;
        }
        let found = share_progress(cx, &group.group_id, left);
        let found = match tokio::time::timeout_at(until, found).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => continue,
            Err(_) => return,
        };
        left -= found.len();
        let found = found.into_iter();
        let found = found.filter_map(|((topic, index), at)| Some((topic, index, at.done?)));
        group.offsets = found.collect();
    }
}

/// The ends of all partitions that groups read and that are led elsewhere.
pub(super) async fn ends_of(cx: &Arc<Context>, groups: &[GroupSurvey]) -> HashMap<Key, i64> {
    let read = groups.iter().flat_map(|group| &group.offsets);
    let elsewhere = read.filter(|(topic, index, _)| cx.partitions.get(topic, *index).is_err());
    let keys: HashSet<Key> = elsewhere
        .take(PARTITIONS_MAX)
        .map(|(topic, index, _)| (topic.clone(), *index))
        .collect();
    match keys.is_empty() {
        true => HashMap::new(),
        false => high_watermarks(cx, keys.into_iter().collect()).await,
    }
}

/// What a group has not read of a partition; `elsewhere` has the ends of those that are led elsewhere.
pub(super) fn lag_in(
    cx: &Context,
    elsewhere: &HashMap<Key, i64>,
    (topic, index, offset): &(String, i32, i64),
) -> Option<i64> {
    let end = match cx.partitions.get(topic, *index) {
        Ok(partition) => partition.high_watermark(),
        Err(_) => *elsewhere.get(&(topic.clone(), *index))?,
    };
    // A group may commit any number.
    Some(end.saturating_sub(*offset).max(0))
}

/// What lies before it can be read: of those of some partitions that are led elsewhere and whose broker answers.
pub(super) async fn high_watermarks(cx: &Arc<Context>, wanted: Vec<Key>) -> HashMap<Key, i64> {
    let image = cx.cluster.image();
    let mut by_leader: BTreeMap<i32, BTreeMap<String, Vec<i32>>> = BTreeMap::new();
    for (topic, partition) in wanted {
        let info = image
            .topic(&topic)
            .and_then(|topic| topic.partition(partition));
        let leader = info.map(|info| info.leader);
        let leader =
            leader.filter(|id| *id != cx.cluster.broker_id() && image.brokers.contains_key(id));
        if let Some(leader) = leader {
            let topics = by_leader.entry(leader).or_default();
            topics.entry(topic).or_default().push(partition);
        }
    }
    let asked = by_leader
        .into_iter()
        .map(|(leader, topics)| ask_one(cx, leader, topics));
    join_all(asked).await.into_iter().flatten().collect()
}

async fn ask_one(
    cx: &Arc<Context>,
    leader: i32,
    topics: BTreeMap<String, Vec<i32>>,
) -> Vec<(Key, i64)> {
    let partition = |index: i32| {
        ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_current_leader_epoch(-1)
            .with_timestamp(LATEST)
    };
    let topic = |(name, partitions): (String, Vec<i32>)| {
        ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_string(name)))
            .with_partitions(partitions.into_iter().map(partition).collect())
    };
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(topics.into_iter().map(topic).collect());
    let listener = Arc::new(ListenerInfo::plaintext());
    let session = own_session(listener, ([127, 0, 0, 1], 0).into());
    let asked = ask_broker(cx, &session, leader, VERSION, &request);
    let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_MAX, asked).await else {
        return Vec::new();
    };
    let found = answer.topics.into_iter().flat_map(|topic| {
        let name = topic.name.to_string();
        let partitions = topic.partitions.into_iter();
        partitions
            .filter(|partition| partition.error_code == 0)
            .map(move |partition| ((name.clone(), partition.partition_index), partition.offset))
    });
    found.collect()
}
