//! Partitions of several replicas: processes of brokers over one ZooKeeper, what is acknowledged, and what is left of it.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::path::Path;
use std::time::Duration;

use cluster::{Cluster, LONG, Node, produce, within};
use common::{Client, batch, name};
use metaq_protocol::messages::ProduceRequest;
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};

const NOT_ENOUGH_REPLICAS: i16 = 19;

const SETTINGS: [&str; 2] = ["default.replication.factor=3", "min.insync.replicas=2"];

/// All bytes of a partition's segments.
fn log_bytes(node: &Node, topic: &str, partition: i32) -> Vec<u8> {
    let dir = node.data().join(format!("{topic}-{partition}"));
    let mut segments: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| is_segment(path))
        .collect();
    segments.sort();
    let read = |path: &std::path::PathBuf| std::fs::read(path).unwrap_or_default();
    segments.iter().flat_map(read).collect()
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

/// Waits until all brokers that run have the same records of a partition.
fn until_equal(cluster: &Cluster, of: &[usize], topic: &str, partition: i32) -> usize {
    let mut bytes = 0;
    within(LONG, "the replicas to be equal", || {
        let all: Vec<_> = of
            .iter()
            .map(|n| log_bytes(&cluster.nodes[*n], topic, partition))
            .collect();
        bytes = all[0].len();
        bytes > 0 && all.windows(2).all(|pair| pair[0] == pair[1])
    });
    bytes
}

#[test]
fn what_is_acknowledged_is_on_every_replica_byte_for_byte() {
    let cluster = Cluster::start(3, &SETTINGS);
    cluster.create(0, "t", 3);
    let mut before = 0;
    for partition in 0..3 {
        let leader = cluster.nodes[0].leaders("t")[partition as usize].0;
        let mut client = cluster.nodes[leader as usize].client();
        for n in 0..50 {
            let began = std::time::Instant::now();
            assert_eq!(produce(&mut client, "t", partition), (0, n));
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        before += until_equal(&cluster, &[0, 1, 2], "t", partition);
    }
    assert!(before > 0);
}

/// Appends one record; error code and offset.
fn produce_acks(client: &mut Client, topic: &str, partition: i32, acks: i16) -> (i16, i64) {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch(1)));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic]);
    let response = client.ask(9, &request);
    let answer = &response.responses[0].partition_responses[0];
    (answer.error_code, answer.base_offset)
}

/// Those that are in sync of a partition, as a broker knows it.
fn in_sync(node: &Node, topic: &str, partition: i32) -> Vec<i32> {
    let metadata = node.metadata(Some(&[topic]));
    let mut partitions = metadata.topics[0].partitions.iter();
    let found = partitions.find(|found| found.partition_index == partition);
    let mut isr: Vec<i32> = found.unwrap().isr_nodes.iter().map(|id| id.0).collect();
    isr.sort_unstable();
    isr
}

#[test]
fn a_follower_that_stands_still_leaves_and_is_back_once_it_has_everything() {
    let mut settings = SETTINGS.to_vec();
    settings.push("replica.lag.time.max.ms=1000");
    let cluster = Cluster::start(3, &settings);
    cluster.create(0, "t", 3);
    // The controller writes who is in sync: it stays.
    let leader = cluster.nodes[0].controller();
    let leaders = cluster.nodes[0].leaders("t");
    let p = leaders.iter().position(|(id, _)| *id == leader).unwrap() as i32;
    let followers: Vec<&Node> = cluster
        .nodes
        .iter()
        .filter(|node| node.id != leader)
        .collect();
    let node = &cluster.nodes[leader as usize];
    let mut client = node.client();
    assert_eq!(produce(&mut client, "t", p), (0, 0));
    followers[0].pause();
    // Until it is out, what all have to have waits; then two are enough.
    for n in 1..20 {
        assert_eq!(produce(&mut client, "t", p), (0, n));
    }
    let mut left = vec![leader, followers[1].id];
    left.sort_unstable();
    assert_eq!(in_sync(node, "t", p), left);
    followers[1].pause();
    // Who has all that there is stays, as in Kafka: there has to be more.
    assert_eq!(produce_acks(&mut client, "t", p, 1), (0, 20));
    within(LONG, "the other one to leave too", || {
        in_sync(node, "t", p) == [leader]
    });
    // Fewer than min.insync.replicas.
    assert_eq!(produce(&mut client, "t", p).0, NOT_ENOUGH_REPLICAS);
    followers.iter().for_each(|node| node.resume());
    within(LONG, "both to be back", || {
        in_sync(node, "t", p) == [0, 1, 2]
    });
    assert_eq!(produce(&mut client, "t", p), (0, 21));
    until_equal(&cluster, &[0, 1, 2], "t", p);
}
