//! Of a share partition nothing is stored, though its group reads it: what was stored was lost, or a broker of an earlier
//! version died while it deleted it. The partition's leader initializes it again; nobody else would.

use std::time::Duration;

use metaq_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup as AskedGroup;
use metaq_protocol::messages::{DescribeShareGroupOffsetsRequest, GroupId};

use super::context::Context;
use super::forward::FORWARDED;
use super::share_state_admin::initialize;
use super::shared::text;
use crate::coordinator::Slot;
use crate::peer::Lane;
use crate::share::{NOT_SET, ShareKey};

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
    let group = AskedGroup::default()
        .with_group_id(GroupId(text(&*key.group_id)))
        .with_topics(None);
    let request = DescribeShareGroupOffsetsRequest::default().with_groups(vec![group]);
    let to = (Lane::Shares, broker);
    let asked = (FORWARDED, DESCRIBE_VERSION);
    let Ok(answer) = cx.call(to, asked, &request, ANSWER_MAX).await else {
        return false;
    };
    let topics = answer.groups.iter().flat_map(|group| &group.topics);
    let of_topic = topics.filter(|topic| topic.topic_id == key.topic_id);
    let mut partitions = of_topic.flat_map(|topic| &topic.partitions);
    partitions.any(|partition| partition.partition_index == key.partition)
}
