//! Several brokers of one cluster on a real ZooKeeper: who is there, where topics go, what an operator sets. What becomes of them
//! with the tree is in `tree.rs`, who acts in whose place in `takeover.rs`.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::time::Duration;

use cluster::{Cluster, LONG, Node, SHORT_SESSION, create, produce, until_produced, within};
use common::name;
use metaq_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use metaq_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use metaq_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
};

const NOT_LEADER: i16 = 6;
const LEADER_NOT_AVAILABLE: i16 = 5;

#[test]
fn three_brokers_are_one_cluster_whichever_is_asked() {
    let cluster = Cluster::start(3, &["numPartitions=2"]);
    let tree = cluster.tree();
    let controller = cluster.nodes[0].controller();
    assert!(
        cluster
            .nodes
            .iter()
            .all(|node| node.controller() == controller)
    );
    // Asked of one that is not the controller; dealt over all, numPartitions to each.
    let asked = cluster.other_than(controller);
    assert_eq!(create(&mut asked.client(), "dealt", -1), 0);
    for node in &cluster.nodes {
        within(LONG, "the topic", || {
            let leaders: Vec<i32> = node.leaders("dealt").iter().map(|(id, _)| *id).collect();
            leaders == [0, 0, 1, 1, 2, 2]
        });
    }
    let record = tree.get("/brokers/topics/dealt").unwrap();
    for identity in ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"] {
        assert!(record.contains(&format!("\"{identity}\"")), "{record}");
    }
    within(LONG, "who takes messages", || {
        tree.children("/brokers/topics-pub/dealt") == ["0-m", "1-m", "2-m"]
    });
    assert_eq!(tree.get("/brokers/topics-pub/dealt/1-m").unwrap(), "2");
    // Each leads its own, and sends elsewhere for the rest.
    for node in &cluster.nodes {
        for partition in 0..6 {
            let (code, _) = produce(&mut node.client(), "dealt", partition);
            let leads = partition / 2 == node.id;
            assert_eq!(code, if leads { 0 } else { NOT_LEADER });
        }
    }
    // A topic that is named by asking for it, at a broker that is not the controller.
    within(LONG, "the named topic", || {
        asked.metadata(Some(&["named"])).topics[0].error_code == 0
    });
    // Deleted by one, gone with all.
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![name("dealt")])
        .with_timeout_ms(10_000);
    assert_eq!(asked.client().ask(5, &request).responses[0].error_code, 0);
    for node in &cluster.nodes {
        within(LONG, "the topic's end", || {
            node.metadata(None)
                .topics
                .iter()
                .all(|topic| topic.name != Some(name("dealt")))
        });
    }
    within(LONG, "the files' end", || {
        tree.children("/brokers/deleted").is_empty()
    });
}

#[test]
fn a_brokers_partitions_wait_for_it_and_a_deletion_does_too() {
    let mut cluster = Cluster::start(2, &[SHORT_SESSION]);
    cluster.create(0, "kept", 2);
    cluster.create(0, "deleted", 2);
    let tree = cluster.tree();
    assert_eq!(produce(&mut cluster.nodes[1].client(), "kept", 1), (0, 0));
    produce(&mut cluster.nodes[1].client(), "deleted", 1);
    // Of the two, the controller may be the one that goes.
    cluster.nodes[1].kill();
    let left = &cluster.nodes[0];
    within(LONG, "the loss to be seen", || {
        left.leaders("kept") == [(0, 0), (-1, LEADER_NOT_AVAILABLE)] && left.controller() == 0
    });
    until_produced(left, "kept", 0);
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![name("deleted")])
        .with_timeout_ms(10_000);
    assert_eq!(left.client().ask(5, &request).responses[0].error_code, 0);
    within(LONG, "the one that is away to be noted", || {
        let pending = tree.children("/brokers/deleted");
        pending.len() == 1 && {
            let note = tree
                .get(&format!("/brokers/deleted/{}", pending[0]))
                .unwrap();
            note.contains("\"brokers\":[1]")
        }
    });
    assert!(cluster.nodes[1].data().join("deleted-1").exists());
    cluster.nodes[1].launch();
    within(LONG, "the deletion's end", || {
        tree.children("/brokers/deleted").is_empty()
    });
    assert!(!cluster.nodes[1].data().join("deleted-1").exists());
    within(LONG, "the partition to be back", || {
        cluster.nodes[0].leaders("kept") == [(0, 0), (1, 0)]
    });
    assert_eq!(produce(&mut cluster.nodes[1].client(), "kept", 1), (0, 1));
}

#[test]
fn what_a_broker_does_not_take_or_give_is_refused_by_name() {
    let cluster = Cluster::start(1, &["acceptPublish=false"]);
    cluster.create(0, "t", 1);
    const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    assert_eq!(
        produce(&mut cluster.nodes[0].client(), "t", 0).0,
        TOPIC_AUTHORIZATION_FAILED
    );
    assert!(cluster.tree().children("/brokers/topics-pub").is_empty());
    assert_eq!(cluster.nodes[0].client().fetch("t", 0), []);
}

#[test]
fn what_is_set_at_one_broker_is_in_force_at_all_and_outlives_the_controller() {
    let mut cluster = Cluster::start(3, &[SHORT_SESSION]);
    cluster.create(0, "t", 3);
    let controller = cluster.nodes[0].controller();
    let elsewhere = (controller as usize + 1) % 3;
    let at = cluster.nodes[elsewhere].address();
    let metaq = |words: &[&str]| {
        let command = std::process::Command::new(env!("CARGO_BIN_EXE_metaq"))
            .args(words)
            .output()
            .unwrap();
        assert!(command.status.success(), "{words:?}: {command:?}");
        String::from_utf8(command.stdout).unwrap()
    };
    let set = [
        "config",
        "set",
        "broker",
        "default",
        "log.retention.ms=4711",
        "-b",
        &at,
    ];
    metaq(&set);
    let own = [
        "config",
        "set",
        "broker",
        "1",
        "log.retention.ms=4712",
        "-b",
        &at,
    ];
    metaq(&own);
    let value = |node: &Node, words: &[&str]| {
        let address = node.address();
        let shown = [&["config", "show"], words, &["-b", &address]].concat();
        metaq(&shown)
    };
    let in_force = |cluster: &Cluster, id: i32| {
        let wanted = if id == 1 { "4712" } else { "4711" };
        within(LONG, "the setting", || {
            value(&cluster.nodes[id as usize], &["broker"]).contains(wanted)
        });
    };
    (0..3).for_each(|id| in_force(&cluster, id));
    cluster.nodes[controller as usize].kill();
    let survivor = elsewhere as i32;
    within(LONG, "another controller", || {
        ![-1, controller].contains(&cluster.nodes[elsewhere].controller())
    });
    let address = cluster.nodes[elsewhere].address();
    metaq(&[
        "config",
        "set",
        "group",
        "g",
        "consumer.session.timeout.ms=50000",
        "-b",
        &address,
    ]);
    in_force(&cluster, survivor);
    cluster.nodes[controller as usize].launch();
    in_force(&cluster, controller);
    let shown = value(&cluster.nodes[controller as usize], &["group", "g"]);
    assert!(shown.contains("50000"), "{shown}");
}

/// A request to a broker's dashboard with its token; the body of the answer.
fn act(node: &Node, method: &str, path: &str, body: &str) -> serde_json::Value {
    use std::io::{Read, Write};
    let token = std::fs::read_to_string(node.data().join("dashboard.token")).unwrap();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", node.dashboard)).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        token.trim(),
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"))
}

#[test]
fn a_dashboard_acts_on_the_whole_cluster_and_counts_a_groups_lag_on_all_brokers() {
    let cluster = Cluster::start(2, &[]);
    let asked = cluster.other_than(cluster.nodes[0].controller());
    let body = r#"{"name": "made", "partitions": 4}"#;
    let made = act(asked, "POST", "/api/topics", body);
    assert!(made["message"].is_string(), "{made}");
    for node in &cluster.nodes {
        within(LONG, "the topic", || node.leaders("made").len() == 4);
    }
    for (partition, (leader, _)) in asked.leaders("made").into_iter().enumerate() {
        let node = &cluster.nodes[leader as usize];
        assert_eq!(
            produce(&mut node.client(), "made", partition as i32),
            (0, 0)
        );
    }
    // Whoever coordinates the group, both can be asked to set its offsets.
    for (node, expected) in cluster.nodes.iter().zip([1, 0]) {
        let to = if expected == 1 { "latest" } else { "earliest" };
        let body = format!(r#"{{"topic": "made", "to": "{to}", "execute": true}}"#);
        let plan = act(node, "POST", "/api/groups/readers/offsets", &body);
        let all = plan["partitions"]
            .as_array()
            .unwrap_or_else(|| panic!("{plan}"));
        assert!(all.iter().all(|one| one["behind"] == expected), "{plan}");
    }
    let mut coordinators = 0;
    for node in &cluster.nodes {
        let group = act(node, "GET", "/api/groups/readers", "");
        if group["error"] == "other_broker" {
            continue;
        }
        coordinators += 1;
        assert_eq!(group["group"]["lag"], 4, "{group}");
        let listed = act(node, "GET", "/api/groups", "");
        assert_eq!(listed["items"][0]["lag"], 4, "{listed}");
        let broker = act(node, "GET", "/api/broker", "");
        assert_eq!(broker["lag"], 4.0, "{broker}");
    }
    assert_eq!(coordinators, 1);
}

#[test]
fn a_change_to_topics_is_answered_when_every_broker_has_made_it() {
    let cluster = Cluster::start(3, &[]);
    let controller = cluster.nodes[0].controller();
    let asked = &cluster.nodes[controller as usize];
    let delete = DeleteTopicsRequest::default()
        .with_topic_names(vec![name("t")])
        .with_timeout_ms(10_000);
    for round in 0..20 {
        assert_eq!(create(&mut asked.client(), "t", 3), 0);
        for node in &cluster.nodes {
            // At once, from the beginning of a new log, though one of that name was there a moment ago.
            assert_eq!(
                produce(&mut node.client(), "t", node.id),
                (0, 0),
                "round {round}"
            );
            assert_eq!(node.leaders("t"), [(0, 0), (1, 0), (2, 0)]);
        }
        assert_eq!(asked.client().ask(5, &delete).responses[0].error_code, 0);
    }
}

/// Connections that a broker has accepted so far.
fn accepted(node: &Node) -> u64 {
    let page = node.page("/metrics");
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("metaq_connections_accepted_total "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_change_to_topics_takes_one_connection_to_each_broker_and_the_next_ones_none() {
    let cluster = Cluster::start(3, &[]);
    let controller = cluster.nodes[0].controller();
    let asked = cluster.other_than(controller);
    let mut client = asked.client();
    let before: Vec<u64> = cluster.nodes.iter().map(accepted).collect();
    assert_eq!(create(&mut client, "first", 3), 0);
    let after: Vec<u64> = cluster.nodes.iter().map(accepted).collect();
    // From who was asked to the controller, and from the controller to the two others.
    for (before, after) in before.iter().zip(&after) {
        assert!(after - before <= 1, "{before} and {after}");
    }
    for n in 0..20 {
        assert_eq!(create(&mut client, &format!("more-{n}"), 3), 0);
        for node in &cluster.nodes {
            let known = node.page(&format!("/api/topics/more-{n}"));
            assert!(known.contains("200 OK"), "{known}");
        }
    }
    let last: Vec<u64> = cluster.nodes.iter().map(accepted).collect();
    assert_eq!(last, after);
}

#[test]
fn partitions_go_where_they_are_put_and_keep_their_identities() {
    let cluster = Cluster::start(2, &[]);
    let assignment = |partition: i32, broker: i32| {
        CreatableReplicaAssignment::default()
            .with_partition_index(partition)
            .with_broker_ids(vec![BrokerId(broker)])
    };
    let new = CreatableTopic::default()
        .with_name(name("placed"))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments(vec![assignment(0, 1), assignment(1, 0), assignment(2, 1)]);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![new])
        .with_timeout_ms(10_000);
    let client = &mut cluster.nodes[0].client();
    assert_eq!(client.ask(5, &request).topics[0].error_code, 0);
    let more = CreatePartitionsTopic::default()
        .with_name(name("placed"))
        .with_count(5)
        .with_assignments(None);
    let more = CreatePartitionsRequest::default()
        .with_topics(vec![more])
        .with_timeout_ms(10_000);
    assert_eq!(client.ask(3, &more).results[0].error_code, 0);
    for node in &cluster.nodes {
        let leaders: Vec<i32> = node.leaders("placed").iter().map(|(id, _)| *id).collect();
        assert_eq!(leaders, [1, 0, 1, 0, 1]);
    }
    let record = cluster.tree().get("/brokers/topics/placed").unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let identities: Vec<_> = record["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|partition| partition["identity"].as_str().unwrap())
        .collect();
    assert_eq!(identities, ["1-0", "0-0", "1-1", "0-1", "1-2"]);
    // A broker that is not there is refused.
    const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
    let nowhere = CreatableTopic::default()
        .with_name(name("nowhere"))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments(vec![assignment(0, 7)]);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![nowhere])
        .with_timeout_ms(10_000);
    let refused = client.ask(5, &request).topics[0].error_code;
    assert_eq!(refused, INVALID_REPLICA_ASSIGNMENT);
    // Nor are there more replicas than brokers.
    const INVALID_REPLICATION_FACTOR: i16 = 38;
    let mut replicated = |topic: &str, factor: i16| {
        let new = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(2)
            .with_replication_factor(factor);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![new])
            .with_timeout_ms(10_000);
        client.ask(5, &request).topics[0].error_code
    };
    assert_eq!(replicated("thrice", 3), INVALID_REPLICATION_FACTOR);
    assert_eq!(replicated("twice", 2), 0);
    for node in &cluster.nodes {
        let topic = node.metadata(Some(&["twice"])).topics.remove(0);
        let mut partitions = topic.partitions;
        partitions.sort_by_key(|partition| partition.partition_index);
        for (partition, replicas) in partitions.iter().zip([[0, 1], [1, 0]]) {
            let replicas = replicas.map(BrokerId);
            assert_eq!(partition.leader_id, replicas[0]);
            assert_eq!(partition.replica_nodes, replicas);
            assert_eq!(partition.isr_nodes, replicas);
        }
    }
}

#[test]
fn a_topic_of_too_many_partitions_is_refused_and_not_made() {
    let cluster = Cluster::start(1, &[]);
    const POLICY_VIOLATION: i16 = 44;
    let client = &mut cluster.nodes[0].client();
    assert_eq!(create(client, "huge", 20_000), POLICY_VIOLATION);
    assert!(cluster.nodes[0].metadata(None).topics.is_empty());
    assert!(cluster.tree().children("/brokers/topics").is_empty());
    assert_eq!(create(client, "large", 3_000), 0);
}

/// Creates as many topics of one partition in one request; how long the answer took.
fn create_many(node: &Node, prefix: &str, count: usize) -> Duration {
    let new = |n: usize| {
        CreatableTopic::default()
            .with_name(name(&format!("{prefix}-{n}")))
            .with_num_partitions(1)
            .with_replication_factor(-1)
    };
    let request = CreateTopicsRequest::default()
        .with_topics((0..count).map(new).collect())
        .with_timeout_ms(60_000);
    let mut client = node.client();
    client
        .stream
        .set_read_timeout(Some(Duration::from_secs(120)))
        .unwrap();
    let started = std::time::Instant::now();
    let answer = client.ask(5, &request);
    let took = started.elapsed();
    let refused = answer.topics.iter().find(|topic| topic.error_code != 0);
    assert!(refused.is_none(), "{refused:?}");
    assert_eq!(answer.topics.len(), count);
    took
}

#[test]
fn a_request_for_more_topics_than_one_write_holds_makes_all_of_them_on_all_brokers() {
    let cluster = Cluster::start(2, &[]);
    create_many(&cluster.nodes[0], "many", 1_200);
    for node in &cluster.nodes {
        within(LONG, "all topics", || {
            let topics = node.metadata(None).topics;
            topics.len() == 1_200 && topics.iter().all(|topic| topic.error_code == 0)
        });
    }
    // Of one partition each, and dealt evenly all the same.
    let led = cluster.nodes[0].metadata(None).topics;
    let by_first = led
        .iter()
        .filter(|topic| topic.partitions[0].leader_id.0 == 0);
    assert_eq!(by_first.count(), 600);
}

/// The longest that ten thousand topics may take beside as many known ones.
const MANY_TOPICS_MAX: Duration = Duration::from_secs(20);
/// The longest that their end may take.
const MANY_DELETED_MAX: Duration = Duration::from_secs(60);
/// Topics that are known then; a broker that stands alone keeps all of them open and may open 20,000 files.
const KNOWN_ALONE: usize = 9_900;
const KNOWN: usize = 10_000;
const MANY: usize = 10_000;

#[test]
#[ignore = "opens 20,000 files, and measures: it wants the machine for itself"]
fn ten_thousand_topics_beside_as_many_are_made_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let alone = Node::start(dir.path(), 0, "", &[]);
    let known = create_many(&alone, "known", KNOWN_ALONE);
    let took = create_many(&alone, "many", MANY);
    eprintln!("one broker: {known:?}, then {took:?}");
    assert!(took < MANY_TOPICS_MAX, "one broker: {took:?}");
    drop(alone);
    let cluster = Cluster::start(3, &[]);
    let asked = cluster.other_than(cluster.nodes[0].controller());
    let known = create_many(asked, "known", KNOWN);
    let took = create_many(asked, "many", MANY);
    eprintln!("three brokers: {known:?}, then {took:?}");
    assert!(took < MANY_TOPICS_MAX, "three brokers: {took:?}");
    let started = std::time::Instant::now();
    assert_eq!(create(&mut asked.client(), "wide", MANY as i32), 0);
    eprintln!("{MANY} partitions of one topic: {:?}", started.elapsed());
    for node in &cluster.nodes {
        assert_eq!(node.metadata(None).topics.len(), KNOWN + MANY + 1);
    }
    let names = (0..MANY).map(|n| name(&format!("many-{n}"))).collect();
    let request = DeleteTopicsRequest::default()
        .with_topic_names(names)
        .with_timeout_ms(60_000);
    let mut client = asked.client();
    client
        .stream
        .set_read_timeout(Some(Duration::from_secs(120)))
        .unwrap();
    let started = std::time::Instant::now();
    let answer = client.ask(5, &request);
    assert!(answer.responses.iter().all(|topic| topic.error_code == 0));
    let took = started.elapsed();
    eprintln!("{MANY} topics deleted: {took:?}");
    assert!(took < MANY_DELETED_MAX, "{took:?}");
}

#[test]
fn offsets_are_not_reset_where_a_leader_cannot_be_asked() {
    let mut cluster = Cluster::start(2, &[]);
    cluster.create(0, "t", 2);
    for (partition, (leader, _)) in cluster.nodes[0].leaders("t").into_iter().enumerate() {
        let mut client = cluster.nodes[leader as usize].client();
        within(LONG, "a record to be taken", || {
            produce(&mut client, "t", partition as i32).0 == 0
        });
    }
    cluster.nodes[1].kill();
    let group = |words: &str| {
        let words: Vec<&str> = std::iter::once("group").chain(words.split(' ')).collect();
        cluster.nodes[0].client_command(&words)
    };
    // The group may have been coordinated by the one that was killed.
    within(LONG, "a refusal that says why", || {
        let refused = group("reset-offsets g -t t --to-latest --execute").unwrap_err();
        refused.contains("has no leader that can be asked")
    });
    let known = group("describe g");
    assert!(
        known.is_err() || !known.as_ref().unwrap().contains("t "),
        "{known:?}"
    );
}
