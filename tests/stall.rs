//! A disk that stands still: what needs no disk is answered while it does.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::{LONG, Node, SHORT_SESSION, create, within};
use common::{Client, Running, batch, fetch_request, name, produce_request};
use metaq::log::{DirEntry, Disk, DiskFile, RealDisk};
use metaq_protocol::messages::describe_producers_request::TopicRequest;
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use metaq_protocol::messages::*;
use metaq_protocol::protocol::{Request, StrBytes};
use parking_lot::{Condvar, Mutex};

/// Every call waits while the disk stands still.
#[derive(Clone, Default)]
struct Stalling(Arc<(Mutex<bool>, Condvar)>);

impl Stalling {
    fn stall(&self, stalls: bool) {
        *self.0.0.lock() = stalls;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut stalls = self.0.0.lock();
        self.0.1.wait_while(&mut stalls, |stalls| *stalls);
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(StallingFile(file, self.clone()))
    }
}

struct StallingFile(Arc<dyn DiskFile>, Stalling);

impl DiskFile for StallingFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.1.pass();
        self.0.read_at(buffer, position)
    }
    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        // What was written is in memory.
        self.0.read_at(buffer, position).map(Some)
    }
    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        self.1.pass();
        self.0.write_all_at(buffers, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_data()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.1.pass();
        self.0.set_len(bytes)
    }
    fn size(&self) -> io::Result<u64> {
        self.1.pass();
        self.0.size()
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Disk for Stalling {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.pass();
        Ok(self.file(RealDisk.open(path)?))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.pass();
        Ok(self.file(RealDisk.create(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass();
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass();
        RealDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.pass();
        RealDisk.list(dir)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.pass();
        RealDisk.create_dir(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.pass();
        RealDisk.remove_dir_all(path)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass();
        RealDisk.link(from, to)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.pass();
        RealDisk.read(path)
    }
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.pass();
        RealDisk.replace(path, content)
    }
    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<File> {
        self.pass();
        RealDisk.reserve(path, bytes)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.pass();
        RealDisk.sync_dir(path)
    }
}

const TOPICS: [&str; 3] = ["cached", "synced", "other"];
/// Connections that wait for the disk: more than the runtime has threads.
const STUCK: usize = 12;
/// An answer that waits for the disk does not come within this: the disk stands still until all are asked.
const ANSWER_MAX: Duration = Duration::from_secs(5);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn start(dir: &Path, disk: &Stalling) -> Running {
    let settings = ["group.initial.rebalance.delay.ms=0"];
    let broker = Running::start_over(dir, &settings, Arc::new(disk.clone()));
    let mut client = broker.client();
    for topic in TOPICS {
        let flush = create_topics_request::CreatableTopicConfig::default()
            .with_name(text("flush.messages"))
            .with_value(Some(text("1")));
        let creatable = create_topics_request::CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(if topic == "synced" {
                vec![flush]
            } else {
                Vec::new()
            });
        client.ask(
            5,
            &CreateTopicsRequest::default().with_topics(vec![creatable]),
        );
        for _ in 0..3 {
            assert_eq!(client.produce(topic, batch(5)).0, 0);
        }
    }
    broker
}

/// Connections whose requests wait for the disk, each in its own way.
fn stick(broker: &Running) -> Vec<Client> {
    let stuck = (0..STUCK).map(|n| {
        let mut client = broker.client();
        let topic = TOPICS[n % TOPICS.len()];
        match n % 4 {
            0 | 1 => client.send(9, &produce_request(topic, batch(3), -1)),
            2 => client.send(11, &fetch_request(topic, 0, 0)),
            _ => client.send(2, &delete_records(topic)),
        }
        client
    });
    stuck.collect()
}

fn delete_records(topic: &str) -> DeleteRecordsRequest {
    let partition = delete_records_request::DeleteRecordsPartition::default()
        .with_partition_index(0)
        .with_offset(1);
    let topic = delete_records_request::DeleteRecordsTopic::default()
        .with_name(name(topic))
        .with_partitions(vec![partition]);
    DeleteRecordsRequest::default()
        .with_timeout_ms(10_000)
        .with_topics(vec![topic])
}

fn list_offsets(topic: &str, timestamp: i64) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(0)
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(name(topic))
        .with_partitions(vec![partition]);
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic])
}

fn epoch_end(topic: &str, epoch: i32) -> OffsetForLeaderEpochRequest {
    let partition = OffsetForLeaderPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(-1)
        .with_leader_epoch(epoch);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![partition]);
    OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic])
}

fn producers(topic: &str) -> DescribeProducersRequest {
    let topic = TopicRequest::default()
        .with_name(name(topic))
        .with_partition_indexes(vec![0]);
    DescribeProducersRequest::default().with_topics(vec![topic])
}

/// Asks on a connection of its own, and says how long the answer took; `None` when none came while the disk stood still.
fn asked<R: Request>(broker: &Running, version: i16, request: &R) -> Option<Duration> {
    let mut client = broker.client();
    client.stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    let started = Instant::now();
    client.send(version, request);
    client.stream.peek(&mut [0]).ok().map(|_| started.elapsed())
}

fn page(broker: &Running, path: &'static str) -> Option<Duration> {
    let address = broker.broker().dashboard_address().unwrap();
    let started = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream.read_exact(&mut [0]).ok().map(|()| started.elapsed())
}

fn member(client: &mut Client) -> JoinGroupResponse {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(&[0; 10]));
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    client.ask(3, &join)
}

type Question<'a> = (String, Box<dyn FnOnce() -> Option<Duration> + Send + 'a>);

/// What needs no disk: each with what it is called.
fn questions<'a>(broker: &'a Running, member: &JoinGroupResponse) -> Vec<Question<'a>> {
    fn question<'a, R: Request + Send + 'a>(
        broker: &'a Running,
        (what, topic): (&str, &str),
        version: i16,
        request: R,
    ) -> Question<'a> {
        let ask = move || asked(broker, version, &request);
        (format!("{what} {topic}"), Box::new(ask))
    }
    let mut all = Vec::new();
    for topic in TOPICS {
        let asked_topic = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let metadata = MetadataRequest::default().with_topics(Some(vec![asked_topic]));
        let of = |what| (what, topic);
        let at_end = fetch_request(topic, 15, 0);
        all.extend([
            question(broker, of("Metadata"), 9, metadata),
            question(broker, of("ListOffsets latest"), 5, list_offsets(topic, -1)),
            question(
                broker,
                of("ListOffsets earliest"),
                5,
                list_offsets(topic, -2),
            ),
            question(broker, of("OffsetForLeaderEpoch"), 3, epoch_end(topic, 0)),
            question(
                broker,
                of("OffsetForLeaderEpoch later"),
                3,
                epoch_end(topic, 7),
            ),
            question(broker, of("DescribeProducers"), 0, producers(topic)),
            question(broker, of("Fetch at the end"), 11, at_end),
        ]);
    }
    let heartbeat = HeartbeatRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id(member.generation_id)
        .with_member_id(member.member_id.clone());
    all.push(question(broker, ("Heartbeat", ""), 2, heartbeat));
    for path in ["/healthz", "/readyz", "/metrics"] {
        all.push((path.to_owned(), Box::new(move || page(broker, path))));
    }
    all
}

fn all_answers(questions: Vec<Question<'_>>) -> Vec<(String, Option<Duration>)> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = questions
            .into_iter()
            .map(|(what, ask)| (what, scope.spawn(ask)))
            .collect();
        let answered = asked.into_iter();
        answered
            .map(|(what, asked)| (what, asked.join().unwrap()))
            .collect()
    })
}

#[test]
fn what_needs_no_disk_is_answered_while_the_disk_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Stalling::default();
    let broker = start(dir.path(), &disk);
    let member = member(&mut broker.client());
    disk.stall(true);
    let stuck = stick(&broker);
    // By now each of them waits; those that wait on a thread of the runtime hold it up.
    std::thread::sleep(Duration::from_secs(2));
    let answers = all_answers(questions(&broker, &member));
    disk.stall(false);
    let missing = answers.iter().filter(|(_, took)| took.is_none());
    let missing: Vec<&str> = missing.map(|(what, _)| what.as_str()).collect();
    assert!(missing.is_empty(), "waited for the disk: {missing:?}");
    let slowest = answers.iter().max_by_key(|(_, took)| *took).unwrap();
    println!("the slowest of {}: {slowest:?}", answers.len());
    drop(stuck);
    broker.stop();
}

#[test]
fn a_controller_whose_disk_stands_still_does_not_hold_up_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Stalling::default();
    let servers = zookeeper::shared().address();
    let root = format!(
        "zk.zkRoot=/{}",
        dir.path().file_name().unwrap().to_str().unwrap()
    );
    let settings = [
        "brokerId=0",
        "zk.zkEnable=true",
        &format!("zk.zkConnect={servers}"),
        &root,
        SHORT_SESSION,
    ];
    let data = dir.path().join("broker-0");
    let stalled = Running::start_over(&data, &settings, Arc::new(disk.clone()));
    let other = Node::start(dir.path(), 1, &servers, &[&root, SHORT_SESSION]);
    assert_eq!(other.controller(), 0);
    disk.stall(true);
    let mut waits = stalled.client();
    let creatable = create_topics_request::CreatableTopic::default()
        .with_name(name("waits"))
        .with_num_partitions(8)
        .with_replication_factor(1);
    waits.send(
        5,
        &CreateTopicsRequest::default()
            .with_topics(vec![creatable])
            .with_timeout_ms(30_000),
    );
    within(LONG, "another controller", || other.controller() == 1);
    // The session of the one that stands still lives on, and it says who is the controller.
    assert_eq!(other.brokers(), [0, 1]);
    let metadata = || {
        let all = MetadataRequest::default().with_topics(None);
        stalled.client().ask(9, &all)
    };
    within(LONG, "the stalled broker to know the controller", || {
        metadata().controller_id == 1
    });
    assert_eq!(create(&mut other.client(), "goes_on", 8), 0);
    disk.stall(false);
    within(LONG, "both topics", || {
        let topics = metadata().topics;
        let led = |topic: &metadata_response::MetadataResponseTopic| {
            topic.partitions.len() == 8 && topic.partitions.iter().all(|one| one.error_code == 0)
        };
        topics.len() == 2 && topics.iter().all(led)
    });
    assert_eq!(other.controller(), 1);
    stalled.stop();
}
