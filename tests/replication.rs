//! Partitions of several replicas: processes of brokers over one ZooKeeper, what is acknowledged, and what is left of it.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::path::Path;
use std::time::Duration;

use cluster::{Cluster, LONG, Node, produce, until_produced, within};

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
    let _ = until_produced;
}
