//! Of a share partition nothing is stored, though its group reads it: what was stored was lost, or a broker of an earlier
//! version died while it deleted it. The partition's leader initializes it again; nobody else would.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use metaq_protocol::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequestGroup as AskedGroup,
    DescribeShareGroupOffsetsRequestTopic as AskedTopic,
};
use metaq_protocol::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponseGroup as DescribedGroup;
use metaq_protocol::messages::{DescribeShareGroupOffsetsRequest, GroupId};
use uuid::Uuid;

use super::context::Context;
use super::forward::FORWARDED;
use super::share_state_admin::initialize;
use super::shared::{text, topic_name};
use crate::coordinator::Slot;
use crate::peer::Lane;
use crate::share::{NOT_SET, ShareKey};

/// Of a group in the request and in the answer (KIP-482): which of the partitions it began with.
const KNOWN_TAG: i32 = 10_004;
/// How long the group's coordinator may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A version of DescribeShareGroupOffsets that every broker serves.
const DESCRIBE_VERSION: i16 = 0;
/// Whatever its group initializes comes after it.
const FIRST_STATE_EPOCH: i32 = 0;

/// Initializes a share partition, if its group has begun with it; whether it did.
pub(super) async fn initialize_lost(cx: &Context, key: &ShareKey) -> bool {
    if !is_known(cx, key).await {
        return false;
    }
    tracing::warn!(share = %key, "nothing is stored of it; its group begins anew with the partition");
    let done = initialize(cx, key, FIRST_STATE_EPOCH, NOT_SET).await;
    done.is_ok()
}

/// Whether the coordinator of the group knows it as initialized.
async fn is_known(cx: &Context, key: &ShareKey) -> bool {
    let image = cx.cluster.image();
    let Some(broker) = image.coordinator_of(Slot::of(&key.group_id)) else {
        return false;
    };
    if broker.id == cx.cluster.broker_id() {
        let known = cx.coordinator.share_partitions(&key.group_id).await;
        return known.is_ok_and(|known| {
            let mut topics = known.iter().filter(|(id, _)| *id == key.topic_id);
            topics.any(|(_, partitions)| partitions.contains(&key.partition))
        });
    }
    let Some(topic) = image.topic_by_id(key.topic_id) else {
        return false;
    };
    let topic = AskedTopic::default()
        .with_topic_name(topic_name(&topic.name))
        .with_partitions(vec![key.partition]);
    let mut group = AskedGroup::default()
        .with_group_id(GroupId(text(&*key.group_id)))
        .with_topics(Some(vec![topic]));
    group.unknown_tagged_fields.insert(KNOWN_TAG, Bytes::new());
    let request = DescribeShareGroupOffsetsRequest::default().with_groups(vec![group]);
    let to = (Lane::Shares, broker);
    let asked = (FORWARDED, DESCRIBE_VERSION);
    let Ok(answer) = cx.call(to, asked, &request, ANSWER_MAX).await else {
        return false;
    };
    // One of an earlier version does not look for it.
    let looked = |group: &&DescribedGroup| group.unknown_tagged_fields.contains_key(&KNOWN_TAG);
    let groups = answer.groups.iter().filter(looked);
    let topics = groups.flat_map(|group| &group.topics);
    let of_topic = topics.filter(|topic| topic.topic_id == key.topic_id);
    let mut partitions = of_topic.flat_map(|topic| &topic.partitions);
    partitions.any(|partition| partition.partition_index == key.partition)
}

/// Whether a request asks which of some partitions its group began with, and nothing else of them.
pub(super) fn asks_for_known(group: &AskedGroup) -> bool {
    group.unknown_tagged_fields.contains_key(&KNOWN_TAG)
}

/// Those of the partitions that are asked for that the group began with.
pub(super) async fn known_of(
    cx: &Context,
    group_id: &str,
    asked: Vec<(Arc<str>, Uuid, Vec<i32>)>,
) -> Vec<(Arc<str>, Uuid, Vec<i32>)> {
    let all = cx.coordinator.share_partitions(group_id).await;
    let all = all.unwrap_or_default().into_iter();
    let all: HashMap<Uuid, HashSet<i32>> = all
        .map(|(id, partitions)| (id, partitions.into_iter().collect()))
        .collect();
    let known = asked.into_iter().map(|(name, id, mut partitions)| {
        let known = all.get(&id);
        partitions.retain(|index| known.is_some_and(|known| known.contains(index)));
        (name, id, partitions)
    });
    known.collect()
}

/// Marks an answer as one to that question.
pub(super) fn tell_known(group: &mut DescribedGroup) {
    group.unknown_tagged_fields.insert(KNOWN_TAG, Bytes::new());
}
