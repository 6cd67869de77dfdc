//! What a follower does whose leader's log does not reach from where the follower's ends: it asks where that log starts and ends
//! (Kafka's AbstractFetcherThread.fetchOffsetAndTruncate).

use std::io;
use std::time::Duration;

use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use metaq_protocol::protocol::StrBytes;

use super::REPLICATION;
use crate::api::Context;
use crate::partition::{CutTo, Partition};
use crate::peer::Lane;

/// ListOffsets in this version is understood by every broker of a cluster.
const LIST_OFFSETS_VERSION: i16 = 5;
const ANSWER_MAX: Duration = Duration::from_secs(30);
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// What is to become of the follower's log; `None` where it may just go on.
pub(super) async fn resolve(
    cx: &Context,
    leader: i32,
    leader_epoch: i32,
    partition: &Partition,
) -> io::Result<Option<CutTo>> {
    let end = ask(cx, leader, leader_epoch, partition, LATEST).await?;
    let ends = partition.log().ends();
    let own_end = ends.log_end.offset;
    let to = match end < own_end {
        true => Some(CutTo::back_to(end, ends.log_start)),
        false => {
            let start = ask(cx, leader, leader_epoch, partition, EARLIEST).await?;
            (start > own_end).then_some(CutTo::AnewAt(start))
        }
    };
    let (topic, index) = (partition.topic(), partition.index());
    tracing::info!(%topic, partition = index, own_end, ?to, "the leader's log does not reach from there");
    Ok(to)
}

/// One offset of the leader's log.
async fn ask(
    cx: &Context,
    leader: i32,
    leader_epoch: i32,
    partition: &Partition,
    timestamp: i64,
) -> io::Result<i64> {
    let wanted = ListOffsetsPartition::default()
        .with_partition_index(partition.index())
        .with_current_leader_epoch(leader_epoch)
        .with_timestamp(timestamp);
    let name = StrBytes::from_string(partition.topic().to_string());
    let topic = ListOffsetsTopic::default()
        .with_name(TopicName(name))
        .with_partitions(vec![wanted]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(cx.cluster.broker_id()))
        .with_topics(vec![topic]);
    let image = cx.cluster.image();
    let leader = image.brokers.get(&leader);
    let leader = leader.ok_or(io::ErrorKind::NotConnected)?;
    let (to, by) = (
        (Lane::Forwards, leader),
        (REPLICATION, LIST_OFFSETS_VERSION),
    );
    let response = cx.call(to, by, &request, ANSWER_MAX).await?;
    let mut all = response.topics.iter().flat_map(|topic| &topic.partitions);
    let found = all.next().ok_or(io::ErrorKind::InvalidData)?;
    match found.error_code {
        0 if found.offset < 0 => Err(io::ErrorKind::InvalidData.into()),
        0 => Ok(found.offset),
        code => Err(io::Error::other(format!("error {code}"))),
    }
}
