//! Who acts in whose place: brokers that die, stop in order, are stopped past their session, are cut off, or come twice.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::time::Duration;

use cluster::{
    Cluster, LONG, Member, Node, SESSION, SHORT_SESSION, Tree, commit, committed, create, produce,
    until_produced, within,
};
use common::{Client, batch, name};
use metaq::meta::Op;
use metaq_protocol::messages::ProduceRequest;
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proxy::Proxy;

const NOT_LEADER: i16 = 6;
const LEADER_NOT_AVAILABLE: i16 = 5;
const NOT_COORDINATOR: i16 = 16;

#[test]
fn a_number_that_is_taken_is_refused_and_the_other_one_named() {
    let cluster = Cluster::start(1, &[]);
    let elsewhere = tempfile::tempdir().unwrap();
    let root = format!("zk.zkRoot={}", cluster.root);
    let second = Node::prepare(elsewhere.path(), 0, &cluster.servers, &[&root]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args([
            "start",
            "--set",
            "brokerId=0",
            "--set",
            "serverPort=0",
            "--set",
            "dashboardHttpPort=0",
        ])
        .args(["--set", "zk.zkEnable=true", "--set", &root])
        .args(["--set", &format!("zk.zkConnect={}", cluster.servers)])
        .args(["--set", &format!("dataPath={}", second.data().display())])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("broker id 0 is taken") && said.contains(&cluster.nodes[0].port.to_string()),
        "{said}"
    );
    assert_eq!(cluster.nodes[0].brokers(), [0]);
    // Nothing was made in its directory that could be taken for partitions later.
    let left = std::fs::read_dir(second.data()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".lock"]);
}

#[test]
fn a_killed_broker_takes_its_registration_over_without_waiting() {
    let mut cluster = Cluster::start(2, &["zk.zkSessionTimeoutMs=30000"]);
    cluster.create(0, "t", 2);
    let tree = cluster.tree();
    let epoch = |tree: &Tree| {
        let record = tree.get("/brokers/ids/1").unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        record["epoch"].as_i64().unwrap()
    };
    let before = epoch(&tree);
    assert_eq!(produce(&mut cluster.nodes[1].client(), "t", 1), (0, 0));
    cluster.nodes[1].kill();
    let started = std::time::Instant::now();
    cluster.nodes[1].launch();
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "waited for the session to end"
    );
    assert_eq!(epoch(&tree), before + 1);
    assert_eq!(produce(&mut cluster.nodes[1].client(), "t", 1), (0, 1));
    assert_eq!(cluster.nodes[0].leaders("t"), [(0, 0), (1, 0)]);
}

#[test]
fn a_group_goes_on_with_another_coordinator_without_a_rebalance() {
    let mut cluster = Cluster::start(3, &[SHORT_SESSION]);
    cluster.create(0, "t", 3);
    let group = cluster.group_of(2);
    let member = Member::join(&mut cluster.nodes[2].client(), &group, "t", 0);
    assert_eq!(member.commit(&mut cluster.nodes[2].client(), "t", 0, 41), 0);
    cluster.nodes[2].kill();
    // What the issue of a broker's death may take: its session, and a second.
    let left = &cluster.nodes[0];
    let mut coordinator = -1;
    let took = within(LONG, "another coordinator", || {
        match left.coordinator_of(&group) {
            Some(id) if id != 2 => {
                coordinator = id;
                let client = &mut cluster.nodes[id as usize].client();
                member.heartbeat(client) == 0
            }
            _ => false,
        }
    });
    assert!(took < SESSION * 3, "{took:?}");
    let client = &mut cluster.nodes[coordinator as usize].client();
    assert_eq!(committed(client, &group, "t", 0), Ok(41));
    // The same member in the same generation.
    assert_eq!(member.commit(client, "t", 0, 42), 0);
    let tree = cluster.tree();
    assert_eq!(
        tree.get(&format!("/consumers/{group}/owners/t/0-0"))
            .unwrap(),
        member.id
    );
    assert!(
        tree.get(&format!("/consumers/{group}/offsets/t/0-0"))
            .unwrap()
            .contains("\"offset\":42")
    );
    within(LONG, "the member to be shown", || {
        tree.children(&format!("/consumers/{group}/ids")) == [member.id.as_str()]
    });
}

#[test]
fn a_broker_that_stops_in_order_hands_over_at_once() {
    let mut cluster = Cluster::start(2, &["zk.zkSessionTimeoutMs=30000"]);
    cluster.create(0, "t", 2);
    let controller = cluster.nodes[0].controller();
    let group = cluster.group_of(controller);
    let stopping = controller as usize;
    let member = Member::join(&mut cluster.nodes[stopping].client(), &group, "t", 0);
    assert!(cluster.nodes[stopping].stop().success());
    let left = cluster.other_than(controller);
    // Well before the session's timeout.
    within(Duration::from_secs(5), "the hand-over", || {
        left.controller() == left.id
            && left.coordinator_of(&group) == Some(left.id)
            && member.heartbeat(&mut left.client()) == 0
    });
    assert_eq!(left.brokers(), [left.id]);
}

#[test]
fn a_broker_that_was_stopped_past_its_session_neither_leads_nor_coordinates() {
    let cluster = Cluster::start(2, &[SHORT_SESSION]);
    cluster.create(0, "t", 2);
    let controller = cluster.nodes[0].controller();
    let paused = controller as usize;
    let group = cluster.group_of(controller);
    let member = Member::join(&mut cluster.nodes[paused].client(), &group, "t", 0);
    assert_eq!(
        member.commit(&mut cluster.nodes[paused].client(), "t", 0, 5),
        0
    );
    let mut connected = cluster.nodes[paused].client();
    let mut connected_too = cluster.nodes[paused].client();
    cluster.nodes[paused].pause();
    let left = cluster.other_than(controller);
    within(LONG, "the other one to take over", || {
        left.controller() == left.id && left.coordinator_of(&group) == Some(left.id)
    });
    within(LONG, "the group there", || {
        member.commit(&mut left.client(), "t", 0, 9) == 0
    });
    // What waits in its sockets is read the moment it goes on.
    let data = PartitionProduceData::default()
        .with_index(controller)
        .with_records(Some(batch(1)));
    let topic = TopicProduceData::default()
        .with_name(name("t"))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic]);
    connected.send(9, &request);
    let resumed = {
        cluster.nodes[paused].resume();
        let (_, response) = connected.receive::<ProduceRequest>(9);
        response.responses[0].partition_responses[0].error_code
    };
    assert_eq!(resumed, NOT_LEADER);
    let stale = (member.generation, member.id.as_str());
    let late = commit(&mut connected_too, &group, stale, "t", 0, 6);
    assert_eq!(late, NOT_COORDINATOR);
    assert_eq!(committed(&mut left.client(), &group, "t", 0), Ok(9));
    // It becomes a member again by itself, and its partition is as it was.
    assert_eq!(until_produced(&cluster.nodes[paused], "t", controller), 0);
    within(LONG, "both again", || left.brokers() == [0, 1]);
    within(LONG, "the offset", || {
        let Some(owner) = cluster.nodes[paused].coordinator_of(&group) else {
            return false;
        };
        let client = &mut cluster.nodes[owner as usize].client();
        committed(client, &group, "t", 0) == Ok(9)
    });
}

#[test]
fn a_broker_that_is_cut_off_gives_way_and_comes_back() {
    let servers = zookeeper::shared().address();
    let proxy = Proxy::new(servers.clone());
    let mut cluster = Cluster::start_on(&servers, 1, &[SHORT_SESSION]);
    let mut cut_off = cluster.prepare(1, &proxy.address(), &[SHORT_SESSION]);
    cut_off.launch();
    cluster.nodes.push(cut_off);
    within(LONG, "both", || cluster.nodes[0].brokers() == [0, 1]);
    cluster.create(0, "t", 2);
    let [near, far] = &cluster.nodes[..] else {
        panic!()
    };
    assert_eq!(produce(&mut far.client(), "t", 1), (0, 0));
    proxy.close();
    // It goes on for a while, and has stopped before the other one knows that it may.
    let mut stopped = false;
    within(LONG, "the other one to see it", || {
        stopped |= produce(&mut far.client(), "t", 1).0 == NOT_LEADER;
        near.brokers() == [0]
    });
    assert!(stopped);
    assert!(far.page("/readyz").contains("503"));
    assert_eq!(near.leaders("t"), [(0, 0), (-1, LEADER_NOT_AVAILABLE)]);
    proxy.open();
    until_produced(far, "t", 1);
    within(LONG, "both again", || {
        near.brokers() == [0, 1] && far.page("/readyz").contains("200")
    });
}

#[test]
fn a_controller_is_replaced_when_its_session_ends() {
    let mut cluster = Cluster::start(3, &[SHORT_SESSION]);
    let controller = cluster.nodes[0].controller();
    let tree = cluster.tree();
    cluster.nodes[controller as usize].kill();
    within(LONG, "the session's end", || {
        let node = tree.get("/controller");
        node.is_none_or(|record| !record.contains(&format!("\"broker_id\":{controller},")))
    });
    let left = cluster.other_than(controller);
    let took = within(LONG, "a new controller that serves", || {
        let now = left.controller();
        now >= 0 && now != controller && create(&mut left.client(), "t", 4) == 0
    });
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(
        left.leaders("t")
            .iter()
            .all(|(leader, _)| *leader != controller)
    );
}

#[test]
fn a_resumed_coordinator_never_tells_what_was_true_before() {
    let cluster = Cluster::start(2, &[SHORT_SESSION]);
    cluster.create(0, "t", 2);
    let group = cluster.group_of(0);
    let anyone = (-1, "");
    let committed_by =
        |node: &Node, offset| commit(&mut node.client(), &group, anyone, "t", 0, offset);
    let [paused, left] = &cluster.nodes[..] else {
        panic!()
    };
    assert_eq!(committed_by(paused, 5), 0);
    let mut waiting: Vec<_> = (0..4).map(|_| paused.client()).collect();
    paused.pause();
    within(LONG, "the group at the other one", || {
        committed_by(left, 9) == 0
    });
    // Changes all the while, so that the resumed one has much to read.
    let address = left.address();
    let noise = std::thread::spawn(move || {
        for n in 0..40 {
            let mut client = Client::connect(address.parse().unwrap());
            create(&mut client, &format!("noise-{n}"), 1);
        }
    });
    paused.resume();
    let until = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < until {
        for client in &mut waiting {
            let told = committed(client, &group, "t", 0);
            assert!(
                told != Ok(5) && told != Ok(-1),
                "an offset of before: {told:?}"
            );
        }
    }
    noise.join().unwrap();
}

#[test]
fn of_two_with_one_number_the_one_that_lost_its_session_serves_no_more() {
    let cluster = Cluster::start(1, &[SHORT_SESSION]);
    cluster.create(0, "t", 1);
    let first = &cluster.nodes[0];
    assert_eq!(produce(&mut first.client(), "t", 0), (0, 0));
    first.pause();
    let elsewhere = tempfile::tempdir().unwrap();
    let root = format!("zk.zkRoot={}", cluster.root);
    let settings = [root.as_str(), SHORT_SESSION];
    let mut second = Node::prepare(elsewhere.path(), 0, &cluster.servers, &settings);
    within(LONG, "the first one's session to end", || {
        cluster.tree().get("/brokers/ids/0/master").is_none()
    });
    second.launch();
    until_produced(&second, "t", 0);
    first.resume();
    within(LONG, "the first one to notice", || {
        first
            .page("/readyz")
            .contains("another process has this broker's number")
    });
    for _ in 0..50 {
        assert_eq!(produce(&mut first.client(), "t", 0).0, NOT_LEADER);
        assert_eq!(produce(&mut second.client(), "t", 0).0, 0);
    }
    assert_eq!(second.controller(), 0);
}

#[test]
fn a_controller_that_was_overtaken_is_elected_anew() {
    let cluster = Cluster::start(2, &[]);
    let tree = cluster.tree();
    // As by an election whose answer nobody got.
    let epoch = tree.get("/controller_epoch").unwrap();
    let op = Op::Set {
        path: "/controller_epoch".to_owned(),
        data: epoch.into(),
        version: None,
    };
    tree.run(tree.store.multi(vec![op])).unwrap();
    within(LONG, "a controller that may write", || {
        create(&mut cluster.nodes[0].client(), "t", 2) == 0
    });
    cluster.create(1, "u", 2);
}
