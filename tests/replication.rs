//! Partitions of several replicas: processes of brokers over one ZooKeeper, what is acknowledged, and what is left of it.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::{Cluster, LONG, Node, SESSION, SHORT_SESSION, produce, within};
use common::{Client, batch, fetch_request, name, now_ms, produce_request};
use metaq_protocol::batch::{BatchBuilder, Batches, verify_crc};
use metaq_protocol::frame;
use metaq_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use metaq_protocol::messages::{
    DeleteRecordsRequest, IncrementalAlterConfigsRequest, MetadataRequest, ProduceRequest,
};
use metaq_protocol::protocol::{Request, StrBytes};

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
    acknowledged_is_on_every_replica(&SETTINGS);
}

#[test]
fn followers_copy_also_from_leaders_that_keep_no_fetch_sessions() {
    let mut settings = SETTINGS.to_vec();
    settings.push("max.incremental.fetch.session.cache.slots=0");
    acknowledged_is_on_every_replica(&settings);
}

fn acknowledged_is_on_every_replica(settings: &[&str]) {
    let cluster = Cluster::start(3, settings);
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
    let lags = replica_on_page(node, "t", p, followers[0].id);
    let why = lags["why"].as_str().unwrap();
    assert!(why.contains("replica.lag.time.max.ms"), "{lags}");
    let behind = |what: &str| lags[what].as_u64().unwrap();
    assert!((18..=20).contains(&behind("behind_messages")), "{lags}");
    assert!(
        behind("behind_bytes") > 18 * 60 && behind("behind_ms") >= 900,
        "{lags}"
    );
    let other = replica_on_page(node, "t", p, followers[1].id);
    assert_eq!(other["why"], serde_json::Value::Null);
    assert_eq!(metric(node, "metaq_isr_shrinks_total"), 1.0);
    assert!(metric(node, "metaq_follower_lag_max") >= 18.0);
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
    assert!(metric(node, "metaq_isr_expands_total") >= 1.0);
    assert!(metric(node, "metaq_replication_sent_bytes_total") > 40.0 * 60.0);
    assert!(metric(followers[0], "metaq_replication_received_bytes_total") > 20.0 * 60.0);
}

/// What a broker's dashboard says of a replica.
fn replica_on_page(node: &Node, topic: &str, partition: i32, broker: i32) -> serde_json::Value {
    let page = node.page(&format!("/api/topics/{topic}/partitions/{partition}"));
    let body = &page[page.find('{').unwrap()..=page.rfind('}').unwrap()];
    let detail: serde_json::Value = serde_json::from_str(body).unwrap();
    let mut replicas = detail["replica_states"].as_array().unwrap().iter();
    let found = replicas.find(|replica| replica["broker"] == broker);
    found.unwrap().clone()
}

/// The value of a metric without labels.
fn metric(node: &Node, name: &str) -> f64 {
    let page = node.page("/metrics");
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().trim().parse().unwrap()
}

/// A connection that may break.
struct Link(TcpStream);

impl Link {
    fn to(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let frame = frame::encode_request(version, 1, "load", request).map_err(io::Error::other)?;
        self.0.write_all(&frame)?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer)?;
        let decoded = frame::decode_response::<R>(version, answer.into());
        Ok(decoded.map_err(io::Error::other)?.1)
    }
}

/// What clients of a cluster know: where its brokers are.
#[derive(Clone)]
struct Addresses(Vec<String>);

impl Addresses {
    fn of(cluster: &Cluster) -> Self {
        Self(cluster.nodes.iter().map(Node::address).collect())
    }

    /// Who leads a partition, as any broker that answers says.
    fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let ask = |address: &String| {
            let metadata = Link::to(address)?.ask(9, &request)?;
            let mut partitions = metadata.topics[0].partitions.iter();
            let found = partitions.find(|found| found.partition_index == partition);
            io::Result::Ok(found.map(|found| found.leader_id.0).filter(|id| *id >= 0))
        };
        self.0
            .iter()
            .find_map(|address| ask(address).ok().flatten())
    }
}

/// What was acknowledged of one partition: offsets and values.
type Acknowledged = Vec<(i64, String)>;

/// Sends one record after the other to one partition, until it is told to stop, each until it is acknowledged.
fn produce_until(
    addresses: &Addresses,
    topic: &str,
    partition: i32,
    stop: &AtomicBool,
    longest: &Mutex<Duration>,
) -> Acknowledged {
    let mut acknowledged = Vec::new();
    let mut link: Option<Link> = None;
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        let value = format!("{partition}-{n}");
        let began = Instant::now();
        loop {
            if link.is_none() {
                let leader = addresses.leader(topic, partition);
                let to = leader.map(|id| Link::to(&addresses.0[id as usize]));
                link = to.and_then(Result::ok);
            }
            let answered = link
                .as_mut()
                .map(|link| link.ask(9, &record(topic, partition, &value)));
            if let Some(Ok(response)) = answered {
                let answer = &response.responses[0].partition_responses[0];
                if answer.error_code == 0 {
                    acknowledged.push((answer.base_offset, value));
                    break;
                }
            }
            link = None;
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut longest = longest.lock().unwrap();
        *longest = began.elapsed().max(*longest);
    }
    acknowledged
}

fn record(topic: &str, partition: i32, value: &str) -> ProduceRequest {
    let builder = BatchBuilder::new().push(None, Some(value.as_bytes()), &[], 1);
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(builder.finish().unwrap()));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(5_000)
        .with_topic_data(vec![topic])
}

/// Offsets and values of all records in the segments of a partition.
fn records_in(node: &Node, topic: &str, partition: i32) -> BTreeMap<i64, String> {
    let bytes = log_bytes(node, topic, partition);
    let mut records = BTreeMap::new();
    for found in Batches::new(&bytes) {
        let (header, batch) = found.unwrap();
        assert!(verify_crc(batch));
        // One record a batch, its value between its attributes and its count of headers.
        let text = String::from_utf8_lossy(&batch[61..]).into_owned();
        let kept = |c: &char| c.is_ascii_digit() || *c == '-';
        records.insert(header.base_offset, text.chars().filter(kept).collect());
    }
    records
}

fn until_in_sync(node: &Node) {
    within(LONG, "all to be in sync", || {
        (0..3).all(|partition| in_sync(node, "t", partition) == [0, 1, 2])
    });
}

/// Does something while there is a producer for each partition of `t`; then all that was acknowledged must be there. The longest
/// time that a record waited for its acknowledgement.
fn while_producing(cluster: &mut Cluster, work: impl FnOnce(&mut Cluster)) -> Duration {
    let addresses = Addresses::of(cluster);
    let (stop, longest) = (AtomicBool::new(false), Mutex::new(Duration::ZERO));
    let acknowledged: Vec<Acknowledged> = std::thread::scope(|scope| {
        let produce = |partition| {
            let (addresses, stop, longest) = (&addresses, &stop, &longest);
            scope.spawn(move || produce_until(addresses, "t", partition, stop, longest))
        };
        let producers: Vec<_> = (0..3).map(produce).collect();
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(cluster)));
        stop.store(true, Ordering::SeqCst);
        let joined = producers.into_iter().map(|one| one.join().unwrap());
        let acknowledged = joined.collect();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        acknowledged
    });
    for (partition, acknowledged) in acknowledged.iter().enumerate() {
        assert!(acknowledged.len() > 20, "{}", acknowledged.len());
        until_equal(cluster, &[0, 1, 2], "t", partition as i32);
        let records = records_in(&cluster.nodes[0], "t", partition as i32);
        for (offset, value) in acknowledged {
            let kept = records.get(offset);
            assert!(
                kept.is_some_and(|kept| kept.contains(value.as_str())),
                "{offset} {value} {kept:?}"
            );
        }
    }
    longest.into_inner().unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_when_brokers_are_killed_one_after_the_other() {
    let mut settings = SETTINGS.to_vec();
    settings.extend([SHORT_SESSION, "replica.lag.time.max.ms=2000"]);
    let mut cluster = Cluster::start(3, &settings);
    cluster.create(0, "t", 3);
    let longest = while_producing(&mut cluster, |cluster| {
        for victim in [1, 2, 0] {
            std::thread::sleep(Duration::from_millis(500));
            cluster.nodes[victim].kill();
            std::thread::sleep(SESSION + Duration::from_secs(1));
            cluster.nodes[victim].launch();
            until_in_sync(&cluster.nodes[victim]);
        }
    });
    println!("killed: longest without an acknowledgement: {longest:?}");
}

#[test]
fn brokers_that_stop_in_order_hand_over_what_they_lead() {
    let mut cluster = Cluster::start(3, &SETTINGS);
    cluster.create(0, "t", 3);
    let longest = while_producing(&mut cluster, |cluster| {
        for victim in [1, 2, 0] {
            std::thread::sleep(Duration::from_millis(500));
            assert!(cluster.nodes[victim].stop().success());
            std::thread::sleep(Duration::from_millis(500));
            cluster.nodes[victim].launch();
            until_in_sync(&cluster.nodes[victim]);
        }
    });
    // Their sessions last much longer.
    assert!(longest < Duration::from_secs(10), "{longest:?}");
    println!("stopped: longest without an acknowledgement: {longest:?}");
}

#[test]
fn a_broker_that_is_drained_hands_over_what_it_leads_while_it_goes_on() {
    let mut cluster = Cluster::start(3, &SETTINGS);
    cluster.create(0, "t", 3);
    let longest = while_producing(&mut cluster, |cluster| {
        for victim in ["0", "1", "2"] {
            for words in [
                &["cluster", "drain", victim][..],
                &["cluster", "drain", victim, "--undo"],
            ] {
                std::thread::sleep(Duration::from_millis(300));
                let done = std::process::Command::new(env!("CARGO_BIN_EXE_metaq"))
                    .args(words)
                    .args(["-b", &cluster.nodes[0].address()])
                    .output();
                let done = done.unwrap();
                assert!(
                    done.status.success(),
                    "{}",
                    String::from_utf8_lossy(&done.stderr)
                );
            }
        }
    });
    println!("drained: longest without an acknowledgement: {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

#[test]
fn a_consumer_is_sent_to_a_replica_in_its_rack_and_reads_there_what_is_committed() {
    let settings = |rack: &'static str| {
        vec![
            "default.replication.factor=2",
            "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector",
            rack,
        ]
    };
    let mut cluster = Cluster::start(1, &settings("broker.rack=a"));
    cluster.add(1, &settings("broker.rack=b"));
    let both = |node: &Node| node.brokers() == [0, 1];
    within(LONG, "both brokers", || cluster.nodes.iter().all(both));
    cluster.create(0, "t", 2);
    let leaders = cluster.nodes[0].leaders("t");
    let p = leaders.iter().position(|(id, _)| *id == 0).unwrap() as i32;
    let (leader, follower) = (&cluster.nodes[0], &cluster.nodes[1]);
    assert_eq!(produce(&mut leader.client(), "t", p), (0, 0));
    let fetch = |node: &Node, rack: &str| {
        let mut request = fetch_request("t", 0, 500).with_rack_id(rack.to_owned().into());
        request.topics[0].partitions[0].partition = p;
        let answer = node.client().ask(11, &request);
        let data = answer.responses[0].partitions[0].clone();
        let bytes = data.records.map_or(0, |records| records.len());
        (data.error_code, data.preferred_read_replica.0, bytes > 0)
    };
    assert_eq!(fetch(leader, "b"), (0, 1, false));
    assert_eq!(fetch(leader, "a"), (0, -1, true));
    assert_eq!(fetch(leader, ""), (0, -1, true));
    within(LONG, "the follower to hear what is committed", || {
        fetch(follower, "b") == (0, -1, true)
    });
}

/// Deletes the records of partition 0 before an offset; error code and low watermark.
fn delete_before(client: &mut Client, topic: &str, offset: i64) -> (i16, i64) {
    let partition = DeleteRecordsPartition::default()
        .with_partition_index(0)
        .with_offset(offset);
    let topic = DeleteRecordsTopic::default()
        .with_name(name(topic))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default()
        .with_timeout_ms(10_000)
        .with_topics(vec![topic]);
    let answer = client.ask(1, &request);
    let answer = &answer.topics[0].partitions[0];
    (answer.error_code, answer.low_watermark)
}

/// Appends one batch, with acks=1; error code and offset.
fn produce_batch(client: &mut Client, topic: &str, records: Bytes) -> (i16, i64) {
    let response = client.ask(9, &produce_request(topic, records, 1));
    let answer = &response.responses[0].partition_responses[0];
    (answer.error_code, answer.base_offset)
}

#[test]
fn a_new_replica_copies_a_log_that_starts_within_a_batch() {
    let cluster = Cluster::start(
        3,
        &["default.replication.factor=2", "min.insync.replicas=2"],
    );
    cluster.create(0, "t", 1);
    let leader = cluster.nodes[0].leaders("t")[0].0;
    let mut client = cluster.nodes[leader as usize].client();
    assert_eq!(produce_batch(&mut client, "t", batch(10)), (0, 0));
    assert_eq!(produce(&mut client, "t", 0), (0, 10));
    assert_eq!(delete_before(&mut client, "t", 5), (0, 5));
    let other = {
        let before = in_sync(&cluster.nodes[0], "t", 0);
        (0..3).find(|id| !before.contains(id)).unwrap()
    };
    cluster.nodes[0].reassign("t", 0, &[leader, other]);
    let mut after = vec![leader, other];
    after.sort_unstable();
    within(LONG, "the new replica to be in sync", || {
        in_sync(&cluster.nodes[0], "t", 0) == after
    });
    until_equal(&cluster, &[leader as usize, other as usize], "t", 0);
}

#[test]
fn a_replica_that_cannot_use_its_files_is_not_in_sync_and_leads_no_more() {
    let mut settings = SETTINGS.to_vec();
    settings.push("maxSegmentSize=1048576");
    let cluster = Cluster::start(3, &settings);
    cluster.create(0, "t", 1);
    let value = vec![b'x'; 400 << 10];
    let large = BatchBuilder::new().push(None, Some(&value), &[], now_ms());
    let large = large.finish().unwrap();
    for lost in 1..=2 {
        let leader = cluster.nodes[0].leaders("t")[0].0;
        // First one that leads, then one that follows.
        let fails = match lost {
            1 => leader,
            _ => *in_sync(&cluster.nodes[0], "t", 0)
                .iter()
                .find(|id| **id != leader)
                .unwrap(),
        };
        let node = &cluster.nodes[fails as usize];
        let mut client = cluster.nodes[leader as usize].client();
        // It may have heard later than the others that it leads.
        within(LONG, "the leader to take records", || {
            produce_batch(&mut client, "t", batch(1)).0 == 0
        });
        // A file may be made meanwhile.
        let replica = node.data().join("t-0");
        within(LONG, "its files to go", || {
            let _ = std::fs::remove_dir_all(&replica);
            !replica.exists()
        });
        // The next segment cannot be made.
        for _ in 0..4 {
            produce_batch(&mut client, "t", large.clone());
        }
        within(LONG, "the replica to be out of sync", || {
            in_sync(&cluster.nodes[0], "t", 0).len() == 3 - lost
        });
        assert!(!in_sync(&cluster.nodes[0], "t", 0).contains(&fails));
    }
    let leader = cluster.nodes[0].leaders("t")[0].0 as usize;
    let mut client = cluster.nodes[leader].client();
    assert_eq!(produce_batch(&mut client, "t", batch(1)).0, 0);
}

/// Sets a configuration of a topic, or of a broker.
fn configure(node: &Node, (kind, resource): (i8, &str), key: &str, value: &str) {
    const SET: i8 = 0;
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_string(key.to_owned()))
        .with_config_operation(SET)
        .with_value(Some(StrBytes::from_string(value.to_owned())));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(StrBytes::from_string(resource.to_owned()))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = node.client().ask(1, &request);
    assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
}

#[test]
fn throttled_replicas_are_copied_no_faster_than_allowed_and_those_in_sync_do_not_wait() {
    const TOPIC: i8 = 2;
    const BROKER: i8 = 4;
    const RATE: usize = 500_000;
    let cluster = Cluster::start(
        3,
        &["default.replication.factor=2", "min.insync.replicas=2"],
    );
    let value = vec![b'x'; 400 << 10];
    let large = BatchBuilder::new().push(None, Some(&value), &[], now_ms());
    let large = large.finish().unwrap();
    for side in ["leader", "follower"] {
        cluster.create(0, side, 1);
        let leader = cluster.nodes[0].leaders(side)[0].0;
        let node = &cluster.nodes[leader as usize];
        let mut client = node.client();
        for _ in 0..8 {
            assert_eq!(produce_batch(&mut client, side, large.clone()).0, 0);
        }
        let before = in_sync(node, side, 0);
        let other = (0..3).find(|id| !before.contains(id)).unwrap();
        let rate = format!("{side}.replication.throttled.rate");
        for node in &cluster.nodes {
            let broker = node.id.to_string();
            configure(node, (BROKER, &broker), &rate, &RATE.to_string());
        }
        let who = match side {
            "leader" => leader,
            _ => other,
        };
        let replicas = format!("{side}.replication.throttled.replicas");
        configure(node, (TOPIC, side), &replicas, &format!("0:{who}"));
        let began = Instant::now();
        let mut all = before.clone();
        all.push(other);
        all.sort_unstable();
        node.reassign(side, 0, &all);
        // The follower that is in sync is not slower than before.
        std::thread::sleep(Duration::from_secs(1));
        for _ in 0..3 {
            let asked = Instant::now();
            assert_eq!(produce(&mut client, side, 0).0, 0);
            assert!(asked.elapsed() < Duration::from_millis(1500), "{side}");
        }
        let added = replica_on_page(node, side, 0, other);
        assert_eq!(added["is_added"], true);
        assert!(
            added["copied_percent"]
                .as_f64()
                .is_none_or(|copied| copied < 90.0),
            "{added}"
        );
        assert_eq!(metric(node, "metaq_partitions_reassigning"), 1.0);
        within(2 * LONG, "the new replica to be in sync", || {
            in_sync(node, side, 0) == all
        });
        // What one fetch brings at once does not wait.
        let least = (8 * large.len() - (1 << 20)) / RATE;
        let took = began.elapsed();
        assert!(took > Duration::from_secs(least as u64), "{side}: {took:?}");
    }
}

#[test]
fn records_are_deleted_on_every_replica_before_it_is_answered() {
    let cluster = Cluster::start(3, &SETTINGS);
    cluster.create(0, "t", 1);
    let leader = cluster.nodes[0].leaders("t")[0].0 as usize;
    let mut client = cluster.nodes[leader].client();
    for n in 0..5 {
        assert_eq!(produce(&mut client, "t", 0), (0, n));
    }
    assert_eq!(delete_before(&mut client, "t", 3), (0, 3));
}

#[test]
fn a_partition_moves_to_other_brokers_while_it_takes_records() {
    let cluster = Cluster::start(
        3,
        &["default.replication.factor=2", "min.insync.replicas=2"],
    );
    cluster.create(0, "t", 3);
    let replicas = |node: &Node| -> Vec<i32> {
        let metadata = node.metadata(Some(&["t"]));
        let mut partitions = metadata.topics[0].partitions.iter();
        let found = partitions.find(|found| found.partition_index == 0);
        let mut replicas: Vec<i32> = found.unwrap().replica_nodes.iter().map(|id| id.0).collect();
        replicas.sort_unstable();
        replicas
    };
    let before = replicas(&cluster.nodes[0]);
    let other = (0..3).find(|id| !before.contains(id)).unwrap();
    let leader = cluster.nodes[0].leaders("t")[0].0;
    let goes = before.iter().copied().find(|id| *id != leader).unwrap();
    let mut client = cluster.nodes[leader as usize].client();
    for n in 0..5 {
        assert_eq!(produce(&mut client, "t", 0), (0, n));
    }
    cluster.nodes[goes as usize].reassign("t", 0, &[leader, other]);
    let mut after = vec![leader, other];
    after.sort_unstable();
    within(LONG, "the replicas to be the others", || {
        cluster
            .nodes
            .iter()
            .all(|node| replicas(node) == after && in_sync(node, "t", 0) == after)
    });
    assert_eq!(produce(&mut client, "t", 0), (0, 5));
    until_equal(&cluster, &[leader as usize, other as usize], "t", 0);
}
