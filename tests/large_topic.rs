//! A topic of many partitions, as a controller makes and changes it in ZooKeeper. Nobody serves them.

#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metaq::cluster::{
    Broker, Cluster, ConfigChange, Directories, MorePartitions, NewTopic, PartitionInfo,
};
use metaq::config::{Config, LiveConfig};
use metaq::log::RealDisk;
use metaq::meta::{MetaStore, Op, ZooKeeperOptions, paths};
use metaq::partition::{Partitions, PartitionsOptions};

const PARTITIONS: i32 = 20_000;
/// A node, ZooKeeper's limit for which is 1 MiB.
const NODE_BYTES_MAX: usize = 512 << 10;
const LONG: Duration = Duration::from_secs(60);

async fn connect() -> MetaStore {
    let options = ZooKeeperOptions {
        servers: zookeeper::shared().address(),
        root: "/large".to_owned(),
        session_timeout: Duration::from_secs(20),
        connection_timeout: Duration::from_secs(20),
        auth: None,
        set_acl: true,
        tls: None,
    };
    MetaStore::connect_zookeeper(options).await.unwrap()
}

fn registration(id: i32) -> Op {
    let record = format!(
        r#"{{"version":1,"epoch":1,"endpoints":[],"rack":null,"directory_id":"dir-{id}","accept_publish":true,"metaq":"0"}}"#
    );
    Op::put(paths::broker_master(id), record.into())
}

/// Broker 0, which keeps nothing and is the controller, beside brokers 1001 to 1004, which only are there.
async fn controller(dir: &Path, meta: &MetaStore) -> Arc<Cluster> {
    let data = dir.join("data");
    let settings = [
        format!("dataPath={}", data.display()),
        "brokerId=0".to_owned(),
    ];
    let config = Arc::new(LiveConfig::new(Config::load(None, &settings).unwrap()));
    let options = PartitionsOptions::new(vec![data]);
    let partitions = Arc::new(Partitions::open(Arc::new(RealDisk), &options).unwrap());
    partitions.hold_to(meta.lease());
    let opened = Cluster::open(config, meta.clone(), partitions.clone(), None).await;
    let cluster = Arc::new(opened.unwrap().0);
    let member = Broker {
        id: 0,
        endpoints: Vec::new(),
        rack: None,
        accept_publish: false,
        follows_only: false,
        shutting_down: false,
        lost: Default::default(),
        epoch: 0,
    };
    let directories = Directories::of(&partitions).unwrap();
    cluster.join(member, directories).await.unwrap();
    assert!(cluster.is_controller());
    tokio::spawn(cluster.clone().follow());
    let others = (1001..=1004).map(registration).collect();
    meta.multi(others).await.unwrap();
    until(&cluster, "the others to be known", |cluster| {
        cluster.image().brokers.len() == 5
    })
    .await;
    cluster
}

async fn until(cluster: &Cluster, what: &str, is_so: impl Fn(&Cluster) -> bool) {
    let began = Instant::now();
    while !is_so(cluster) {
        assert!(began.elapsed() < LONG, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{what}: {:?}", began.elapsed());
}

fn partitions(cluster: &Cluster) -> Vec<PartitionInfo> {
    cluster.image().topic("large").unwrap().partitions.clone()
}

/// What a broker that starts now would know of it.
async fn check_tree(cluster: &Cluster, meta: &MetaStore) {
    for (path, node) in meta.subtree(&paths::topic("large")).await.unwrap() {
        assert!(
            node.data.len() < NODE_BYTES_MAX,
            "{path}: {}",
            node.data.len()
        );
    }
    let known = partitions(cluster);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let settings = [
        format!("dataPath={}", data.display()),
        "brokerId=9".to_owned(),
    ];
    let config = Arc::new(LiveConfig::new(Config::load(None, &settings).unwrap()));
    let options = PartitionsOptions::new(vec![data]);
    let opened = Arc::new(Partitions::open(Arc::new(RealDisk), &options).unwrap());
    let (other, _) = Cluster::open(config, meta.clone(), opened, None)
        .await
        .unwrap();
    assert!(partitions(&other) == known);
}

/// A topic one of whose replicas is about to stop has a state of its own from the beginning.
async fn begins_without_one_that_stops(cluster: &Cluster, meta: &MetaStore) {
    let path = paths::broker_master(1004);
    let node = meta.get(&path).await.unwrap().unwrap();
    let record = String::from_utf8(node.data.to_vec()).unwrap();
    let stops = record.replace(r#""metaq""#, r#""shutting_down":true,"metaq""#);
    meta.multi(vec![Op::put(path.clone(), stops.into())])
        .await
        .unwrap();
    until(cluster, "it to be about to stop", |cluster| {
        cluster.image().brokers[&1004].shutting_down
    })
    .await;
    let new = NewTopic {
        assignments: [(0, vec![1003, 1004])].into(),
        ..NewTopic::with_defaults("small")
    };
    let made = cluster.controller().create_topics(&[new], false).await;
    assert!(made[0].is_ok(), "{:?}", made[0].as_ref().err());
    let info = &made[0].as_ref().unwrap().partitions[0];
    assert_eq!((info.leader, &info.isr[..]), (1003, &[1003][..]));
    meta.multi(vec![Op::put(path, record.into())])
        .await
        .unwrap();
    until(cluster, "it to stay", |cluster| {
        !cluster.image().brokers[&1004].shutting_down
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_partitions_of_three_replicas_are_made_led_and_configured() {
    let (dir, meta) = (tempfile::tempdir().unwrap(), connect().await);
    let cluster = controller(dir.path(), &meta).await;
    let replicas = |n: i32| (0..3).map(|at| 1001 + (n + at) % 4).collect();
    let new = NewTopic {
        assignments: (0..PARTITIONS).map(|n| (n, replicas(n))).collect(),
        config: vec![("min.insync.replicas".to_owned(), Some("2".to_owned()))],
        ..NewTopic::with_defaults("large")
    };
    let began = Instant::now();
    let made = cluster.controller().create_topics(&[new], false).await;
    assert!(made[0].is_ok(), "{:?}", made[0].as_ref().err());
    println!("made: {:?}", began.elapsed());
    check_tree(&cluster, &meta).await;
    begins_without_one_that_stops(&cluster, &meta).await;
    // One dies, then another one: three quarters of the partitions have another state each time.
    for dead in [1001, 1002] {
        let gone = vec![Op::delete(paths::broker_master(dead))];
        meta.multi(gone).await.unwrap();
        until(&cluster, "others to lead", |cluster| {
            let led: BTreeSet<i32> = partitions(cluster).iter().map(|info| info.leader).collect();
            !led.contains(&dead)
        })
        .await;
    }
    check_tree(&cluster, &meta).await;
    // Where one in sync is enough, nobody else is eligible: the state of a quarter changes with the setting.
    assert!(partitions(&cluster).iter().any(|info| !info.elr.is_empty()));
    let key = "min.insync.replicas".to_owned();
    let change = [ConfigChange::Set(key, "1".to_owned())];
    let changed = cluster.controller().change_config("large", &change, false);
    changed.await.unwrap();
    assert!(partitions(&cluster).iter().all(|info| info.elr.is_empty()));
    check_tree(&cluster, &meta).await;
    let more = MorePartitions {
        name: "large".to_owned(),
        count: PARTITIONS + 1,
        assignments: Some(vec![vec![1003, 1004, 0]]),
    };
    let made = cluster.controller().create_partitions(&[more], false).await;
    assert!(made[0].is_ok(), "{:?}", made[0].as_ref().err());
    check_tree(&cluster, &meta).await;
}
