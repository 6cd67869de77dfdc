//! Share groups over several brokers: what is stored of a partition is often another broker's than the partition.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::collections::BTreeMap;

use cluster::{Cluster, LONG, Node, SHORT_SESSION, until_produced, within};
use common::Client;
use metaq_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use metaq_protocol::messages::share_fetch_request::{
    AcknowledgementBatch, FetchPartition, FetchTopic,
};
use metaq_protocol::messages::*;
use metaq_protocol::protocol::StrBytes;
use serde_json::Value;
use uuid::Uuid;

const PARTITIONS: i32 = 16;
const MEMBER: &str = "a";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn beat(group: &str, epoch: i32) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(MEMBER))
        .with_member_epoch(epoch)
        .with_subscribed_topic_names(Some(vec![common::name("t")]))
}

/// The member's session at one broker.
struct Reader {
    client: Client,
    group: String,
    topic_id: Uuid,
    epoch: i32,
}

impl Reader {
    fn new(node: &Node, group: &str, topic_id: Uuid) -> Self {
        Self {
            client: node.client(),
            group: group.to_owned(),
            topic_id,
            epoch: 0,
        }
    }

    /// Fetches from these partitions, and accepts offsets of some; offsets that it is given, by partition.
    fn fetch(&mut self, partitions: &[i32], accepts: &BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
        let partitions = partitions.iter().map(|index| {
            let accepted = accepts.get(index).map(|offset| {
                AcknowledgementBatch::default()
                    .with_first_offset(*offset)
                    .with_last_offset(*offset)
                    .with_acknowledge_types(vec![1])
            });
            FetchPartition::default()
                .with_partition_index(*index)
                .with_acknowledgement_batches(accepted.into_iter().collect())
        });
        let topic = FetchTopic::default()
            .with_topic_id(self.topic_id)
            .with_partitions(partitions.collect());
        let request = ShareFetchRequest::default()
            .with_group_id(Some(GroupId(text(&self.group))))
            .with_member_id(Some(text(MEMBER)))
            .with_share_session_epoch(self.epoch)
            .with_max_wait_ms(200)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_max_records(500)
            .with_batch_size(500)
            .with_topics(vec![topic]);
        self.epoch += 1;
        let answer = self.client.ask(2, &request);
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        let mut given = BTreeMap::new();
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            let index = partition.partition_index;
            assert_eq!(
                partition.error_code, 0,
                "{index}: {:?}",
                partition.error_message
            );
            let refused = &partition.acknowledge_error_message;
            assert_eq!(partition.acknowledge_error_code, 0, "{index}: {refused:?}");
            for part in &partition.acquired_records {
                assert_eq!(part.first_offset, part.last_offset, "one record each");
                given.insert(index, part.first_offset);
            }
        }
        given
    }

    /// Takes a record of each partition and accepts it.
    fn take_all(&mut self, partitions: &[i32], offset: i64) {
        let mut open: BTreeMap<i32, i64> = BTreeMap::new();
        let mut done = 0;
        within(LONG, "a record of each partition", || {
            let given = self.fetch(partitions, &std::mem::take(&mut open));
            assert!(given.values().all(|given| *given == offset), "{given:?}");
            done += given.len();
            open = given;
            done == partitions.len() && open.is_empty()
        });
    }
}

/// Where the group is with each partition, and its lag.
fn offsets(client: &mut Client, group: &str) -> Vec<(i64, i64)> {
    let asked = DescribeShareGroupOffsetsRequestGroup::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(None);
    let request = DescribeShareGroupOffsetsRequest::default().with_groups(vec![asked]);
    let answer = client.ask(1, &request);
    let partitions = &answer.groups[0].topics[0].partitions;
    let mut all: Vec<_> = partitions
        .iter()
        .map(|partition| {
            let found = (partition.start_offset, partition.lag);
            (partition.partition_index, found)
        })
        .collect();
    all.sort_unstable();
    all.into_iter().map(|(_, found)| found).collect()
}

/// Of how many partitions a node's dashboard knows how far a group is, and what it has not read of them.
fn lag(node: &Node, group: &str) -> Option<(i64, i64)> {
    let page = node.page("/api/groups");
    let groups: Value = serde_json::from_str(page.split_once("\r\n\r\n")?.1).ok()?;
    let mut all = groups["items"].as_array()?.iter();
    let found = all.find(|found| found["group_id"] == *group)?;
    Some((found["partitions"].as_i64()?, found["lag"].as_i64()?))
}

#[test]
fn what_is_accepted_is_stored_by_other_brokers_and_goes_on_when_they_are_gone() {
    let mut cluster = Cluster::start(2, &[SHORT_SESSION]);
    cluster.create(0, "t", PARTITIONS);
    let named = metadata_request::MetadataRequestTopic::default();
    let named = named.with_name(Some(common::name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![named]));
    let topic_id = cluster.nodes[0].client().ask(12, &request).topics[0].topic_id;
    let leaders: Vec<i32> = cluster.nodes[0]
        .leaders("t")
        .iter()
        .map(|(leader, _)| *leader)
        .collect();
    let led_by = |id: i32| -> Vec<i32> {
        let partitions = (0..PARTITIONS).filter(|index| leaders[*index as usize] == id);
        partitions.collect()
    };
    let group = cluster.group_of(0);
    let mut coordinator = cluster.nodes[0].client();
    let joined = coordinator.ask(1, &beat(&group, 0));
    assert_eq!(joined.error_code, 0, "{:?}", joined.error_message);
    let assigned = &joined.assignment.unwrap().topic_partitions[0].partitions;
    assert_eq!(
        assigned.len(),
        PARTITIONS as usize,
        "initialized at both brokers"
    );
    // Groups begin with what comes from now on, which is settled when a partition is first fetched.
    let mut readers = [0, 1].map(|id: i32| {
        let node = &cluster.nodes[id as usize];
        let mut reader = Reader::new(node, &group, topic_id);
        assert_eq!(reader.fetch(&led_by(id), &BTreeMap::new()), BTreeMap::new());
        reader
    });
    for (index, leader) in leaders.iter().enumerate() {
        until_produced(&cluster.nodes[*leader as usize], "t", index as i32);
    }
    // Ends are at those that lead, and what is stored is at those that coordinate.
    let all = i64::from(PARTITIONS);
    let lags = |wanted| lag(&cluster.nodes[0], &group) == Some((all, wanted));
    within(LONG, "what is not read yet", || lags(all));
    for (id, reader) in (0..).zip(&mut readers) {
        reader.take_all(&led_by(id), 0);
    }
    within(LONG, "all to be read", || lags(0));
    let all = offsets(&mut coordinator, &group);
    assert_eq!(all, vec![(1, 0); PARTITIONS as usize]);
    cluster.nodes[1].kill();
    let own = led_by(0);
    within(LONG, "the other broker's slots to be taken over", || {
        cluster.nodes[0].brokers() == [0]
    });
    for index in &own {
        until_produced(&cluster.nodes[0], "t", *index);
    }
    readers[0].take_all(&own, 1);
    let all = offsets(&mut coordinator, &group);
    for index in own {
        assert_eq!(all[index as usize], (2, 0), "{index}");
    }
}
