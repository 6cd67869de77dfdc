//! Brokers of one cluster as processes of their own, what a test asks of them, and a member of a group that a test moves by hand.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use metaq::meta::{MetaStore, ZooKeeperOptions};
use metaq_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use metaq_protocol::messages::create_topics_request::CreatableTopic;
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::metadata_response::MetadataResponse;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use metaq_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use metaq_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, CreateTopicsRequest, FindCoordinatorRequest,
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, SyncGroupRequest,
};
use metaq_protocol::protocol::StrBytes;
use parking_lot::{Condvar, Mutex};

use crate::common::{Client, batch, name};
use crate::zookeeper;
use crate::zookeeper::{free_ports, signal_process};

/// A broker's process.
pub struct Node {
    pub id: i32,
    pub port: u16,
    pub dashboard: u16,
    arguments: Vec<String>,
    dir: std::path::PathBuf,
    child: Option<Child>,
}

fn run_metaq(words: &[&str], more: &[String]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(words)
        .args(more)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

impl Node {
    /// Starts broker `id` below `dir`, and waits until it is ready. Without ZooKeeper's address it stands alone.
    pub fn start(dir: &Path, id: i32, zookeeper: &str, settings: &[&str]) -> Self {
        let mut node = Self::prepare(dir, id, zookeeper, settings);
        node.launch();
        node
    }

    pub fn prepare(dir: &Path, id: i32, zookeeper: &str, settings: &[&str]) -> Self {
        let ports = free_ports(2);
        let own = dir.join(format!("broker-{id}"));
        std::fs::create_dir_all(&own).unwrap();
        let mut arguments = vec!["start".to_owned()];
        let data = format!("dataPath={}", own.join("data").display());
        let all = [
            format!("brokerId={id}"),
            format!("serverPort={}", ports[0]),
            format!("dashboardHttpPort={}", ports[1]),
            "hostName=127.0.0.1".to_owned(),
            format!("zk.zkEnable={}", !zookeeper.is_empty()),
            format!("zk.zkConnect={zookeeper}"),
            "group.initial.rebalance.delay.ms=0".to_owned(),
            data,
        ];
        let given = settings.iter().map(|setting| (*setting).to_owned());
        for setting in all.into_iter().chain(given) {
            arguments.extend(["--set".to_owned(), setting]);
        }
        Self {
            id,
            port: ports[0],
            dashboard: ports[1],
            arguments,
            dir: own,
            child: None,
        }
    }

    /// From now on it is started with one of MetaQ's words.
    pub fn start_as(&mut self, mode: &str) {
        self.arguments.insert(1, mode.to_owned());
    }

    /// Starts with another value from now on.
    pub fn set(&mut self, setting: &str) {
        let key = &setting[..=setting.find('=').unwrap()];
        match self.arguments.iter_mut().find(|word| word.starts_with(key)) {
            Some(found) => setting.clone_into(found),
            None => self
                .arguments
                .extend(["--set".to_owned(), setting.to_owned()]),
        }
    }

    fn spawn(&self) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        Command::new(env!("CARGO_BIN_EXE_metaq"))
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Starts it (again) and waits until it is ready.
    pub fn launch(&mut self) {
        let mut child = self.spawn();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        self.child = Some(child);
        assert!(ready.contains("ready"), "{}", self.log());
    }

    /// Starts it and waits until it gives up.
    pub fn fails(&self) -> (ExitStatus, String) {
        let status = self.spawn().wait().unwrap();
        (status, self.log())
    }

    /// Runs `metaq` with some words and this broker's configuration; what it printed.
    pub fn command(&self, words: &[&str]) -> Result<String, String> {
        run_metaq(words, &self.arguments[1..])
    }

    /// Runs `metaq` with some words against this broker; what it printed.
    pub fn client_command(&self, words: &[&str]) -> Result<String, String> {
        run_metaq(words, &["-b".to_owned(), self.address()])
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn data(&self) -> std::path::PathBuf {
        self.dir.join("data")
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address().parse().unwrap())
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        signal_process("-TERM", child.id());
        child.wait().unwrap()
    }

    pub fn pause(&self) {
        signal_process("-STOP", self.child.as_ref().unwrap().id());
    }

    pub fn resume(&self) {
        signal_process("-CONT", self.child.as_ref().unwrap().id());
    }

    /// The body and status of a page of its dashboard.
    pub fn page(&self, path: &str) -> String {
        use std::io::{Read, Write};
        let mut answer = String::new();
        if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.dashboard)) {
            let _ = write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    /// Has a partition of a topic moved to other replicas.
    pub fn reassign(&self, topic: &str, partition: i32, replicas: &[i32]) {
        let partition = ReassignablePartition::default()
            .with_partition_index(partition)
            .with_replicas(Some(replicas.iter().copied().map(BrokerId).collect()));
        let topic = ReassignableTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(10_000)
            .with_topics(vec![topic]);
        let answer = self.client().ask(0, &request);
        let partition = &answer.responses[0].partitions[0];
        assert_eq!((answer.error_code, partition.error_code), (0, 0));
    }

    /// What it says of the cluster and of some topics, or of all.
    pub fn metadata(&self, topics: Option<&[&str]>) -> MetadataResponse {
        use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
        let asked = |topic: &&str| MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default()
            .with_topics(topics.map(|topics| topics.iter().map(asked).collect()));
        self.client().ask(9, &request)
    }

    /// Ids of the brokers that it knows.
    pub fn brokers(&self) -> Vec<i32> {
        let mut ids: Vec<i32> = self
            .metadata(Some(&[]))
            .brokers
            .iter()
            .map(|broker| broker.node_id.0)
            .collect();
        ids.sort_unstable();
        ids
    }

    pub fn controller(&self) -> i32 {
        self.metadata(Some(&[])).controller_id.0
    }

    /// Leader and error of each partition of a topic, by index.
    pub fn leaders(&self, topic: &str) -> Vec<(i32, i16)> {
        let metadata = self.metadata(Some(&[topic]));
        let mut partitions = metadata.topics[0].partitions.clone();
        partitions.sort_by_key(|partition| partition.partition_index);
        partitions
            .iter()
            .map(|partition| (partition.leader_id.0, partition.error_code))
            .collect()
    }

    /// The broker that coordinates a group, as this one says.
    pub fn coordinator_of(&self, group: &str) -> Option<i32> {
        let request = FindCoordinatorRequest::default()
            .with_coordinator_keys(vec![StrBytes::from_string(group.to_owned())]);
        let found = self.client().ask(4, &request).coordinators.remove(0);
        (found.error_code == 0).then_some(found.node_id.0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            // One that is stopped would not die before it goes on.
            signal_process("-CONT", child.id());
        }
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(6000);
            eprintln!("---- broker {}\n{}", self.id, &log[from..]);
        }
    }
}

/// Waits until something is true, at most so long; how long it took.
pub fn within(wait: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < wait, "waited {wait:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    started.elapsed()
}

/// Looks into a tree on ZooKeeper.
pub struct Tree {
    runtime: tokio::runtime::Runtime,
    pub store: MetaStore,
}

impl Tree {
    pub fn open(servers: &str, root: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let options = ZooKeeperOptions {
            servers: servers.to_owned(),
            root: root.to_owned(),
            session_timeout: Duration::from_secs(20),
            connection_timeout: Duration::from_secs(20),
            auth: None,
            set_acl: true,
            tls: None,
        };
        let store = runtime
            .block_on(MetaStore::connect_zookeeper(options))
            .unwrap();
        Self { runtime, store }
    }

    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn get(&self, path: &str) -> Option<String> {
        let node = self.run(self.store.get(path)).unwrap();
        node.map(|node| String::from_utf8_lossy(&node.data).into_owned())
    }

    pub fn children(&self, path: &str) -> Vec<String> {
        self.run(self.store.children(path)).unwrap()
    }

    /// All paths below one.
    pub fn below(&self, path: &str) -> Vec<String> {
        let nodes = self.run(self.store.subtree(path)).unwrap();
        nodes.into_iter().map(|(path, _)| path).collect()
    }
}

/// A member of a group that reads one topic.
pub struct Member {
    pub group: String,
    pub id: String,
    pub generation: i32,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

impl Member {
    /// Joins a group alone and assigns itself one partition of a topic.
    pub fn join(client: &mut Client, group: &str, topic: &str, partition: i32) -> Self {
        let mut assignment = vec![0, 0, 0, 0, 0, 1];
        assignment.extend((topic.len() as u16).to_be_bytes());
        assignment.extend(topic.as_bytes());
        assignment.extend([0, 0, 0, 1]);
        assignment.extend(partition.to_be_bytes());
        assignment.extend([0xff; 4]);
        Self::join_assigned(client, group, None, topic, assignment)
    }

    /// Joins a group alone and assigns itself something, as a static member where it has a name.
    pub fn join_assigned(
        client: &mut Client,
        group: &str,
        instance: Option<&str>,
        topic: &str,
        assignment: Vec<u8>,
    ) -> Self {
        let mut subscription = vec![0, 0, 0, 0, 0, 1];
        subscription.extend((topic.len() as u16).to_be_bytes());
        subscription.extend(topic.as_bytes());
        subscription.extend([0xff; 4]);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(subscription.clone().into());
        let mut request = JoinGroupRequest::default()
            .with_group_id(group_id(group))
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_group_instance_id(instance.map(text))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let deadline = Instant::now() + Duration::from_secs(20);
        let joined = loop {
            let joined = client.ask(5, &request);
            match joined.error_code {
                0 => break joined,
                79 => request.member_id = joined.member_id.clone(),
                code => {
                    // On its way from another coordinator, as a client finds it too.
                    assert!(matches!(code, 14..=16), "join {group}: error {code}");
                    assert!(Instant::now() < deadline, "join {group}: error {code}");
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        };
        let member = Self {
            group: group.to_owned(),
            id: joined.member_id.to_string(),
            generation: joined.generation_id,
        };
        let assigned = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(assignment.into());
        let sync = SyncGroupRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id)
            .with_assignments(vec![assigned]);
        assert_eq!(client.ask(3, &sync).error_code, 0, "sync {group}");
        member
    }

    /// What it was assigned, asked for again.
    pub fn assignment(&self, client: &mut Client) -> Result<Vec<u8>, i16> {
        let sync = SyncGroupRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id));
        let answer = client.ask(2, &sync);
        match answer.error_code {
            0 => Ok(answer.assignment.to_vec()),
            code => Err(code),
        }
    }

    pub fn heartbeat(&self, client: &mut Client) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id));
        client.ask(3, &request).error_code
    }

    /// Leaves by its id, or is gone already.
    pub fn leave(&self, client: &mut Client) -> i16 {
        let request = LeaveGroupRequest::default()
            .with_group_id(group_id(&self.group))
            .with_member_id(text(&self.id));
        client.ask(2, &request).error_code
    }

    pub fn commit(&self, client: &mut Client, topic: &str, partition: i32, offset: i64) -> i16 {
        let asked = (self.generation, self.id.as_str());
        commit(client, &self.group, asked, topic, partition, offset)
    }
}

/// Commits an offset; the error code.
pub fn commit(
    client: &mut Client,
    group: &str,
    (generation, member): (i32, &str),
    topic: &str,
    partition: i32,
    offset: i64,
) -> i16 {
    let one = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name(topic))
        .with_partitions(vec![one]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(vec![topic]);
    client.ask(7, &request).topics[0].partitions[0].error_code
}

/// A committed offset, or the error code.
pub fn committed(
    client: &mut Client,
    group: &str,
    topic: &str,
    partition: i32,
) -> Result<i64, i16> {
    let asked = OffsetFetchRequestTopics::default()
        .with_name(name(topic))
        .with_partition_indexes(vec![partition]);
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(group_id(group))
        .with_topics(Some(vec![asked]));
    let answer = client.ask(8, &OffsetFetchRequest::default().with_groups(vec![asked]));
    let group = &answer.groups[0];
    match group.error_code {
        0 => Ok(group.topics[0].partitions[0].committed_offset),
        code => Err(code),
    }
}

/// How long a test waits for what has no time of its own.
pub const LONG: Duration = Duration::from_secs(20);
/// Session timeout of brokers whose loss a test waits for.
pub const SESSION: Duration = Duration::from_millis(3000);
pub const SHORT_SESSION: &str = "zk.zkSessionTimeoutMs=3000";

pub fn fresh_root() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/cluster-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A cluster on the server that the tests share.
pub struct Cluster {
    pub nodes: Vec<Node>,
    dir: tempfile::TempDir,
    pub servers: String,
    pub root: String,
    _turn: Turn,
}

/// Clusters that run at a time: their timing is tested, and the machine may be small.
const CLUSTERS_MAX: usize = 3;
static CLUSTERS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

pub struct Turn;

impl Turn {
    fn take() -> Self {
        let mut running = CLUSTERS.0.lock();
        while *running == CLUSTERS_MAX {
            CLUSTERS.1.wait(&mut running);
        }
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *CLUSTERS.0.lock() -= 1;
        CLUSTERS.1.notify_one();
    }
}

impl Cluster {
    pub fn start(count: i32, settings: &[&str]) -> Self {
        Self::start_on(&zookeeper::shared().address(), count, settings)
    }

    pub fn start_on(servers: &str, count: i32, settings: &[&str]) -> Self {
        let mut cluster = Self {
            dir: tempfile::tempdir().unwrap(),
            servers: servers.to_owned(),
            root: fresh_root(),
            nodes: Vec::new(),
            _turn: Turn::take(),
        };
        for id in 0..count {
            cluster.add(id, settings);
        }
        let all: Vec<i32> = (0..count).collect();
        for node in &cluster.nodes {
            within(LONG, "all brokers to know each other", || {
                let mut coordinators: Vec<_> = (0..100)
                    .filter_map(|n| node.coordinator_of(&format!("probe-{n}")))
                    .collect();
                coordinators.sort_unstable();
                coordinators.dedup();
                node.brokers() == all && coordinators == all
            });
        }
        cluster
    }

    pub fn add(&mut self, id: i32, settings: &[&str]) {
        let node = self.prepare(id, &self.servers, settings);
        self.nodes.push(node);
        self.nodes.last_mut().unwrap().launch();
    }

    /// Brokers that are started with MetaQ's words, or without one where it is empty, and know each other. The file of each names
    /// a topic, `named`.
    pub fn start_as(modes: &[(&str, &[&str])]) -> Self {
        let mut cluster = Self::start(0, &[]);
        for (id, (mode, settings)) in (0..).zip(modes) {
            let mut node = cluster.prepare(id, &cluster.servers, settings);
            if !mode.is_empty() {
                node.start_as(mode);
            }
            let file = node.dir.join("server.ini");
            std::fs::write(&file, "[topic=named]\n").unwrap();
            let file = file.display().to_string();
            node.arguments.extend(["--config".to_owned(), file]);
            node.launch();
            cluster.nodes.push(node);
        }
        let all: Vec<i32> = (0..modes.len() as i32).collect();
        within(LONG, "all brokers to know each other", || {
            cluster.nodes.iter().all(|node| node.brokers() == all)
        });
        cluster
    }

    pub fn prepare(&self, id: i32, servers: &str, settings: &[&str]) -> Node {
        let root = format!("zk.zkRoot={}", self.root);
        let mut all = vec![root.as_str()];
        all.extend(settings);
        Node::prepare(self.dir.path(), id, servers, &all)
    }

    pub fn tree(&self) -> Tree {
        Tree::open(&self.servers, &self.root)
    }

    /// The index of a node, and of another one.
    pub fn other_than(&self, id: i32) -> &Node {
        self.nodes.iter().find(|node| node.id != id).unwrap()
    }

    /// Creates a topic by any node; all nodes know it when this returns.
    pub fn create(&self, by: usize, topic: &str, partitions: i32) {
        assert_eq!(create(&mut self.nodes[by].client(), topic, partitions), 0);
        for node in &self.nodes {
            let all_led = || {
                let leaders = node.leaders(topic);
                leaders.len() == partitions as usize && leaders.iter().all(|(_, error)| *error == 0)
            };
            within(LONG, "the topic on every broker", all_led);
        }
    }

    /// A group that a given broker coordinates.
    pub fn group_of(&self, id: i32) -> String {
        let group = |n: &i32| format!("group-{n}");
        let node = self.nodes.iter().find(|node| node.id == id).unwrap();
        let mut found = None;
        within(LONG, "a share of the groups", || {
            found = (0..100)
                .map(|n| group(&n))
                .find(|group| node.coordinator_of(group) == Some(id));
            found.is_some()
        });
        found.unwrap()
    }
}

pub fn create(client: &mut Client, topic: &str, partitions: i32) -> i16 {
    let new = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(-1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![new])
        .with_timeout_ms(10_000);
    client.ask(5, &request).topics[0].error_code
}

/// Appends one record; error code and offset.
pub fn produce(client: &mut Client, topic: &str, partition: i32) -> (i16, i64) {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch(1)));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic]);
    let response = client.ask(9, &request);
    let answer = &response.responses[0].partition_responses[0];
    (answer.error_code, answer.base_offset)
}

pub fn until_produced(node: &Node, topic: &str, partition: i32) -> i64 {
    let mut offset = -1;
    within(LONG, "a partition to take messages", || {
        let (code, at) = produce(&mut node.client(), topic, partition);
        offset = at;
        code == 0
    });
    offset
}
