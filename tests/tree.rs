//! A cluster and its tree in ZooKeeper: one that is away, slow or loses a server, another program's, one that cannot be read, an
//! earlier version's, and who leads by it.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::time::Duration;

use cluster::{
    Cluster, LONG, Member, Node, SESSION, SHORT_SESSION, Tree, commit, committed, create,
    fresh_root, produce, until_produced, within,
};
use common::{Client, name, now_ms};
use metaq::meta::Op;
use metaq_protocol::messages::create_partitions_request::CreatePartitionsTopic;

use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::{
    BrokerId, CreatePartitionsRequest, ListOffsetsRequest, MetadataRequest, fetch_response,
    produce_response,
};
use proxy::Proxy;
use zookeeper::ZooKeeper;

const NOT_LEADER: i16 = 6;
const FENCED_LEADER_EPOCH: i16 = 74;

#[test]
fn zookeeper_may_be_away_for_a_while() {
    let mut server = ZooKeeper::start(1);
    let cluster = Cluster::start_on(&server.address(), 2, &["zk.zkSessionTimeoutMs=24000"]);
    cluster.create(0, "t", 2);
    let group = cluster.group_of(0);
    let member = Member::join(&mut cluster.nodes[0].client(), &group, "t", 0);
    for kill in [false, true] {
        match kill {
            true => server.servers[0].kill(),
            false => server.servers[0].pause(),
        }
        let away = std::time::Instant::now();
        let (before, mut produced) = (now_ms(), 0);
        // Well within the session's timeout.
        while away.elapsed() < Duration::from_millis(4000) {
            assert_eq!(produce(&mut cluster.nodes[1].client(), "t", 1).0, 0);
            assert_eq!(member.heartbeat(&mut cluster.nodes[0].client()), 0);
            produced += 1;
        }
        assert!(produced > 100, "{produced} in {} ms", now_ms() - before);
        let address = cluster.nodes[0].address().parse().unwrap();
        let (group, id) = (group.clone(), member.id.clone());
        let generation = member.generation;
        let waiting = std::thread::spawn(move || {
            commit(
                &mut Client::connect(address),
                &group,
                (generation, &id),
                "t",
                0,
                7,
            )
        });
        match kill {
            true => server.servers[0].start(),
            false => server.servers[0].resume(),
        }
        assert_eq!(waiting.join().unwrap(), 0);
    }
    assert_eq!(cluster.nodes[0].brokers(), [0, 1]);
    cluster.create(1, "after", 2);
}

#[test]
fn brokers_come_back_by_themselves_when_zookeeper_was_away_for_long() {
    let mut server = ZooKeeper::start(1);
    let cluster = Cluster::start_on(&server.address(), 2, &[SHORT_SESSION]);
    cluster.create(0, "t", 2);
    let group = cluster.group_of(1);
    let member = Member::join(&mut cluster.nodes[1].client(), &group, "t", 0);
    assert_eq!(member.commit(&mut cluster.nodes[1].client(), "t", 0, 3), 0);
    server.servers[0].kill();
    within(LONG, "both to stop", || {
        let stops = |node: &Node| produce(&mut node.client(), "t", node.id).0 == NOT_LEADER;
        cluster.nodes.iter().all(stops)
    });
    std::thread::sleep(SESSION);
    server.servers[0].start();
    for node in &cluster.nodes {
        within(LONG, "both to be back", || node.brokers() == [0, 1]);
        until_produced(node, "t", node.id);
    }
    within(LONG, "the group", || {
        let Some(owner) = cluster.nodes[0].coordinator_of(&group) else {
            return false;
        };
        let client = &mut cluster.nodes[owner as usize].client();
        member.heartbeat(client) == 0 && committed(client, &group, "t", 0) == Ok(3)
    });
}

#[test]
fn an_ensemble_may_lose_a_server_and_its_leader() {
    let mut ensemble = ZooKeeper::start(3);
    let cluster = Cluster::start_on(&ensemble.address(), 2, &["zk.zkSessionTimeoutMs=6000"]);
    cluster.create(0, "t", 2);
    let group = cluster.group_of(0);
    let member = Member::join(&mut cluster.nodes[0].client(), &group, "t", 0);
    for round in 0..2 {
        let leader = ensemble.leader();
        let victim = if round == 0 { (leader + 1) % 3 } else { leader };
        ensemble.servers[victim].kill();
        for n in 0..50 {
            let offset = round * 100 + n;
            assert_eq!(
                member.commit(&mut cluster.nodes[0].client(), "t", 0, offset),
                0
            );
            assert_eq!(produce(&mut cluster.nodes[1].client(), "t", 1).0, 0);
        }
        ensemble.servers[victim].start();
    }
    assert_eq!(cluster.nodes[0].brokers(), [0, 1]);
    cluster.create(1, "after", 4);
}

#[test]
fn a_slow_zookeeper_makes_changes_slow_and_nothing_else() {
    let proxy = Proxy::new(zookeeper::shared().address());
    let mut cluster = Cluster::start(1, &[]);
    let mut far = cluster.prepare(1, &proxy.address(), &[]);
    far.launch();
    cluster.nodes.push(far);
    within(LONG, "both", || cluster.nodes[0].brokers() == [0, 1]);
    cluster.create(0, "t", 2);
    proxy.delay(Duration::from_millis(200));
    let group = cluster.group_of(1);
    let member = Member::join(&mut cluster.nodes[1].client(), &group, "t", 0);
    let started = std::time::Instant::now();
    for n in 0..200 {
        assert_eq!(produce(&mut cluster.nodes[1].client(), "t", 1), (0, n));
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(member.commit(&mut cluster.nodes[1].client(), "t", 0, 1), 0);
    cluster.create(1, "another", 4);
    assert_eq!(cluster.nodes[0].brokers(), [0, 1]);
}

#[test]
fn a_root_that_a_metaq_uses_is_refused() {
    let servers = zookeeper::shared().address();
    let root = fresh_root();
    let tree = Tree::open(&servers, &root);
    let master = Op::put("/brokers/ids/3/master", "meta://10.0.0.3:8123".into());
    tree.run(tree.store.multi(vec![master])).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let setting = format!("zk.zkRoot={root}");
    let node = Node::prepare(dir.path(), 0, &servers, &[&setting]);
    let (status, log) = node.fails();
    assert!(!status.success());
    assert!(log.contains("choose another zk.zkRoot"), "{log}");
    // Nothing was written to it.
    assert_eq!(
        tree.below("/"),
        [
            "/brokers",
            "/brokers/ids",
            "/brokers/ids/3",
            "/brokers/ids/3/master"
        ]
    );
}

#[test]
fn without_zookeeper_the_start_fails_with_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let port = zookeeper::free_ports(1)[0];
    let nowhere = format!("127.0.0.1:{port}");
    let node = Node::prepare(dir.path(), 0, &nowhere, &["zk.zkConnectionTimeoutMs=2500"]);
    let (status, log) = node.fails();
    assert!(!status.success());
    assert!(
        log.contains(&nowhere) && log.contains("zk.zkConnectionTimeoutMs"),
        "{log}"
    );
    // It was said before what is waited for.
    let waits = log.find("waiting for ZooKeeper").unwrap();
    assert!(waits < log.find("was not reached within").unwrap(), "{log}");
}

#[test]
fn a_broker_moves_to_zookeeper_and_back_with_all_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let servers = zookeeper::shared().address();
    let root = format!("zk.zkRoot={}", fresh_root());
    let mut alone = Node::start(dir.path(), 0, "", &[]);
    assert_eq!(create(&mut alone.client(), "t", 3), 0);
    assert_eq!(produce(&mut alone.client(), "t", 2), (0, 0));
    let member = Member::join(&mut alone.client(), "g", "t", 2);
    assert_eq!(member.commit(&mut alone.client(), "t", 2, 1), 0);
    // While it runs its store is read through it, and not exported.
    let listed = alone.command(&["meta", "ls", "/consumers"]).unwrap();
    assert!(listed.contains('g'), "{listed}");
    let file = dir.path().join("tree.json");
    let file = file.to_str().unwrap();
    assert!(alone.command(&["meta", "export", file]).is_err());
    assert!(alone.stop().success());
    alone.command(&["meta", "export", file]).unwrap();

    let mut clustered = Node::prepare(dir.path(), 0, &servers, &[&root]);
    let (status, log) = clustered.fails();
    assert!(!status.success());
    assert!(log.contains("not in ZooKeeper yet"), "{log}");
    let said = clustered.command(&["meta", "import", file]).unwrap();
    assert!(said.contains("nodes created"), "{said}");
    clustered.launch();
    within(LONG, "the group", || {
        committed(&mut clustered.client(), "g", "t", 2) == Ok(1)
    });
    // The member goes on in its generation.
    assert_eq!(member.commit(&mut clustered.client(), "t", 2, 2), 0);
    assert_eq!(produce(&mut clustered.client(), "t", 2), (0, 1));
    let refused = clustered.command(&["meta", "export", file]).unwrap_err();
    assert!(refused.contains("broker 0 is registered"), "{refused}");
    assert!(clustered.stop().success());
    clustered.command(&["meta", "export", file]).unwrap();

    // The store that was left on the way there does not stand in the way back.
    assert!(alone.data().join("metaq-meta.redb.moved").exists());
    alone.command(&["meta", "import", file]).unwrap();
    alone.launch();
    assert_eq!(committed(&mut alone.client(), "g", "t", 2), Ok(2));
    assert_eq!(produce(&mut alone.client(), "t", 2), (0, 2));
    assert_eq!(member.heartbeat(&mut alone.client()), 0);
}

#[test]
fn an_operator_sees_the_cluster_and_its_tree() {
    let cluster = Cluster::start(2, &[]);
    cluster.create(0, "t", 4);
    let node = &cluster.nodes[1];
    let run = |words: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_metaq"))
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let dashboard = format!("127.0.0.1:{}", node.dashboard);
    let status = run(&["cluster", "status", "-d", &dashboard]);
    assert!(
        status.contains("zookeeper, session 1 connected"),
        "{status}"
    );
    assert!(
        status.contains("4 partitions: 0 without a leader"),
        "{status}"
    );
    let json = run(&["cluster", "status", "-d", &dashboard, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let slots: Vec<_> = json["brokers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| &b["slots"])
        .collect();
    assert_eq!(slots, [32, 32]);
    assert_eq!(json["coordination"]["may_act"], true);
    let address = node.address();
    let described = run(&["topic", "describe", "t", "-b", &address]);
    assert!(
        described.contains("0-1") && described.contains("1-1"),
        "{described}"
    );
    assert!(
        node.command(&["meta", "tree", "/brokers/ids"])
            .unwrap()
            .contains("ephemeral")
    );
    let topic = node.command(&["meta", "get", "/brokers/topics/t"]).unwrap();
    assert!(topic.contains("\"identity\":\"1-0\""), "{topic}");
    assert!(
        node.command(&["meta", "get", "/nothing"])
            .unwrap_err()
            .contains("no node /nothing")
    );
    let ready = node.page("/readyz");
    assert!(
        ready.contains("200") && ready.contains("coordination: zookeeper connected"),
        "{ready}"
    );
    let metrics = node.page("/metrics");
    for name in [
        "metaq_coordination_connected 1",
        "metaq_coordinator_slots 32",
        "metaq_brokers 2",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
}

#[test]
fn offsets_of_a_metaq_are_listed_and_left_as_they_are() {
    let servers = zookeeper::shared().address();
    let root = fresh_root();
    let tree = Tree::open(&servers, &root);
    let put = |path: &str, text: &'static str| Op::put(path, text.into());
    let ops = vec![
        put("/brokers/ids/0/master", "meta://10.0.0.3:8123"),
        put("/consumers/readers/offsets/orders/0-0", "-7204-1048576"),
        put("/consumers/readers/offsets/orders/0-1", "2097152"),
    ];
    tree.run(tree.store.multi(ops)).unwrap();
    let before = tree.below("/");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(["meta", "metaq-offsets", "--json", "--root", &root])
        .args(["--set", &format!("zk.zkConnect={servers}")])
        .output()
        .unwrap();
    assert!(output.status.success());
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows[0]["message_id"], -7204);
    assert_eq!(rows[0]["offset"], 1_048_576);
    assert_eq!(rows[1]["message_id"], serde_json::Value::Null);
    assert_eq!(rows[1]["offset"], 2_097_152);
    assert_eq!(tree.below("/"), before);
}

#[test]
fn a_node_that_cannot_be_read_stops_nothing_else() {
    let mut cluster = Cluster::start(2, &[SHORT_SESSION]);
    cluster.create(0, "t", 2);
    assert_eq!(produce(&mut cluster.nodes[0].client(), "t", 0), (0, 0));
    let tree = cluster.tree();
    let garbage = vec![
        Op::put("/brokers/topics/broken", "no json".into()),
        Op::put("/consumers/g/offsets/t/0-0", "12-34".into()),
    ];
    tree.run(tree.store.multi(garbage)).unwrap();
    cluster.nodes[1].kill();
    within(LONG, "the loss to be seen", || {
        cluster.nodes[0].brokers() == [0]
    });
    assert_eq!(produce(&mut cluster.nodes[0].client(), "t", 0), (0, 1));
    within(LONG, "groups", || {
        committed(&mut cluster.nodes[0].client(), "g", "t", 0) == Ok(-1)
    });
    // One that cannot be read any more is left as it is known.
    let op = Op::put("/brokers/topics/t", "no json either".into());
    tree.run(tree.store.multi(vec![op])).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(produce(&mut cluster.nodes[0].client(), "t", 0), (0, 2));
}

#[test]
fn a_root_of_a_stopped_metaq_is_refused_too() {
    let servers = zookeeper::shared().address();
    let root = fresh_root();
    let tree = Tree::open(&servers, &root);
    let offset = Op::put("/consumers/readers/offsets/orders/0-0", "-7-1024".into());
    tree.run(tree.store.multi(vec![offset])).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let setting = format!("zk.zkRoot={root}");
    let (status, log) = Node::prepare(dir.path(), 0, &servers, &[&setting]).fails();
    assert!(!status.success());
    assert!(log.contains("choose another zk.zkRoot"), "{log}");
}

/// What an answer says of a partition that its broker does not lead: the code, leader and epoch, and where that is.
type Directions = (i16, (i32, i32), Vec<(i32, String, i32)>);

fn directions_of_produce(client: &mut Client, version: i16) -> Directions {
    let mut request = common::produce_request("t", common::batch(1), -1);
    request.topic_data[0].partition_data[0].index = 1;
    let answer = client.ask(version, &request);
    let partition = &answer.responses[0].partition_responses[0];
    let leader = &partition.current_leader;
    let endpoints = answer.node_endpoints.iter();
    let endpoint =
        |node: &produce_response::NodeEndpoint| (node.node_id.0, node.host.to_string(), node.port);
    (
        partition.error_code,
        (leader.leader_id.0, leader.leader_epoch),
        endpoints.map(endpoint).collect(),
    )
}

fn directions_of_fetch(client: &mut Client, version: i16, epoch: i32) -> Directions {
    let topics = client
        .ask(12, &MetadataRequest::default().with_topics(None))
        .topics;
    let mut request = common::fetch_request("t", 0, 60_000);
    request.topics[0].topic_id = topics[0].topic_id;
    request.topics[0].partitions[0].partition = 1;
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    let answer = client.ask(version, &request);
    let partition = &answer.responses[0].partitions[0];
    let leader = &partition.current_leader;
    let endpoints = answer.node_endpoints.iter();
    let endpoint =
        |node: &fetch_response::NodeEndpoint| (node.node_id.0, node.host.to_string(), node.port);
    (
        partition.error_code,
        (leader.leader_id.0, leader.leader_epoch),
        endpoints.map(endpoint).collect(),
    )
}

/// Asks a broker that does not lead partition 1 of `t`; it says who does, in which epoch, and where that is.
fn assert_names_the_leader(asked: &Node, leader: &Node, epoch: i32) {
    let client = &mut asked.client();
    let unnamed = (NOT_LEADER, (-1, -1), vec![]);
    let endpoint = (leader.id, "127.0.0.1".to_owned(), i32::from(leader.port));
    let named = (NOT_LEADER, (leader.id, epoch), vec![endpoint]);
    assert_eq!(directions_of_produce(client, 9), unnamed);
    assert_eq!(directions_of_produce(client, 10), named);
    // Newer clients may read from followers (KIP-392).
    assert_eq!(directions_of_fetch(client, 10, -1), unnamed);
    let (_, leader, endpoints) = named;
    let fenced = (FENCED_LEADER_EPOCH, leader, endpoints);
    assert_eq!(directions_of_fetch(client, 16, epoch - 1), fenced);
}

#[test]
fn a_partition_is_led_where_the_tree_says_and_keeps_its_records_when_it_comes_back() {
    let cluster = Cluster::start(2, &[]);
    cluster.create(0, "t", 2);
    let [first, second] = &cluster.nodes[..] else {
        panic!("two brokers");
    };
    assert_eq!(produce(&mut second.client(), "t", 1), (0, 0));
    let tree = cluster.tree();
    let record = tree.get("/brokers/topics/t").unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let led_by = |leader: i32, epoch: i32| {
        let states = serde_json::json!({
            "version": 1,
            "topic_id": record["topic_id"],
            "partitions": {"1": {
                "leader": leader, "leader_epoch": epoch, "isr": [leader], "partition_epoch": epoch
            }}
        });
        let states = Op::put("/brokers/topics/t/partitions/0", states.to_string().into());
        tree.run(tree.store.multi(vec![states])).unwrap();
    };
    led_by(0, 1);
    within(LONG, "the other leader", || {
        produce(&mut first.client(), "t", 1).0 == 0
    });
    within(LONG, "the first one to stop", || {
        produce(&mut second.client(), "t", 1).0 == NOT_LEADER
    });
    within(LONG, "it to know why", || {
        second.leaders("t") == [(0, 0), (0, 0)]
    });
    assert!(second.data().join("t-1").exists());
    assert_names_the_leader(second, first, 1);
    // As long as a follower's fetch takes at most: it copies nothing, and cuts nothing off.
    std::thread::sleep(Duration::from_secs(1));
    led_by(1, 2);
    within(LONG, "the leader that was", || {
        produce(&mut second.client(), "t", 1).0 == 0
    });
    within(LONG, "the other one to stop", || {
        produce(&mut first.client(), "t", 1).0 == NOT_LEADER
    });
    // What it had, what was appended now.
    let mut client = second.client();
    let ends = client.ask(
        7,
        &ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![
                ListOffsetsTopic::default()
                    .with_name(name("t"))
                    .with_partitions(vec![
                        ListOffsetsPartition::default()
                            .with_partition_index(1)
                            .with_current_leader_epoch(2)
                            .with_timestamp(-1),
                    ]),
            ]),
    );
    let end = &ends.topics[0].partitions[0];
    assert_eq!((end.error_code, end.offset), (0, 2));
    // A change to the topic leaves the state alone.
    let more = CreatePartitionsTopic::default()
        .with_name(name("t"))
        .with_count(3)
        .with_assignments(None);
    let more = CreatePartitionsRequest::default()
        .with_topics(vec![more])
        .with_timeout_ms(10_000);
    assert_eq!(first.client().ask(3, &more).results[0].error_code, 0);
    led_by(0, 3);
    within(LONG, "the third change", || {
        second.leaders("t")[1] == (0, 0) && second.leaders("t").len() == 3
    });
}

#[test]
fn a_tree_that_an_earlier_version_wrote_is_brought_up_to_date() {
    let servers = zookeeper::shared().address();
    let root = fresh_root();
    let tree = Tree::open(&servers, &root);
    let old = r#"{"version":1,"topic_id":"00000000-0000-0000-0000-000000000007","config":{"retention.ms":"4711"},
        "partitions":[{"identity":"0-0","replicas":[0],"isr":[0],"leader":0,"leader_epoch":5}]}"#;
    let old = Op::put("/brokers/topics/old", old.into());
    tree.run(tree.store.multi(vec![old])).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let setting = format!("zk.zkRoot={root}");
    let node = Node::start(dir.path(), 0, &servers, &[&setting]);
    assert_eq!(node.leaders("old"), [(0, 0)]);
    let metadata = node.metadata(Some(&["old"]));
    assert_eq!(metadata.topics[0].partitions[0].leader_epoch, 5);
    assert_eq!(produce(&mut node.client(), "old", 0), (0, 0));
    let record = tree.get("/brokers/topics/old").unwrap();
    assert!(
        record.contains("\"version\":2") && record.contains("4711"),
        "{record}"
    );
}
