//! Who leads and who is in sync, as the controller writes it.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use cluster::{Cluster, LONG, Node, SESSION, SHORT_SESSION, produce, within};
use common::{Client, Running, name};
use metaq::api::FORWARDED;
use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use metaq_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use metaq_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use metaq_protocol::messages::describe_topic_partitions_request::TopicRequest;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::metadata_response::MetadataResponsePartition;
use metaq_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionRequest, AlterPartitionResponse, BrokerId,
    CreateTopicsRequest, DescribeTopicPartitionsRequest, MetadataRequest,
};
use uuid::Uuid;

fn id_of(client: &mut Client, topic: &str) -> Uuid {
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    client.ask(12, &request).topics[0].topic_id
}

/// A leader's proposal, as a version has it.
fn proposal(
    version: i16,
    topic_id: Uuid,
    (broker, registration): (i32, i64),
    isr: &[i32],
) -> AlterPartitionRequest {
    let member = |id: &i32| {
        BrokerState::default()
            .with_broker_id(BrokerId(*id))
            .with_broker_epoch(-1)
    };
    let partition = match version {
        2 => PartitionData::default().with_new_isr(isr.iter().map(|id| BrokerId(*id)).collect()),
        _ => PartitionData::default().with_new_isr_with_epochs(isr.iter().map(member).collect()),
    };
    let topic = TopicData::default()
        .with_topic_id(topic_id)
        .with_partitions(vec![partition]);
    AlterPartitionRequest::default()
        .with_broker_id(BrokerId(broker))
        .with_broker_epoch(registration)
        .with_topics(vec![topic])
}

#[test]
fn a_leaders_proposal_is_taken_from_a_broker_and_from_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let id = id_of(&mut client, "t");
    let code = ResponseError::code;
    let mut ask = |request: AlterPartitionRequest, version| -> AlterPartitionResponse {
        client.send_as(FORWARDED, version, &request);
        client.receive::<AlterPartitionRequest>(version).1
    };
    for version in [2, 3] {
        let answer = ask(proposal(version, id, (0, 1), &[0]), version);
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((answer.error_code, partition.error_code), (0, 0));
        assert_eq!((partition.leader_id.0, partition.partition_epoch), (0, 0));
        assert_eq!(partition.isr, [BrokerId(0)]);
        let answer = ask(proposal(version, id, (0, 1), &[0, 1]), version);
        let refused = answer.topics[0].partitions[0].error_code;
        assert_eq!(refused, code(&ResponseError::InvalidRequest));
        let answer = ask(proposal(version, Uuid::from_u128(7), (0, 1), &[0]), version);
        let refused = answer.topics[0].partitions[0].error_code;
        assert_eq!(refused, code(&ResponseError::UnknownTopicId));
        let answer = ask(proposal(version, id, (0, 7), &[0]), version);
        assert_eq!(answer.error_code, code(&ResponseError::StaleBrokerEpoch));
        assert!(answer.topics.is_empty());
    }
    let mut other = broker.client();
    other.send(3, &proposal(3, id, (0, 1), &[0]));
    assert!(other.is_closed());
    broker.stop();
}

/// Leader and in-sync replicas, in their order, of each partition.
fn states(node: &Node, topic: &str) -> Vec<(i32, BTreeSet<i32>)> {
    let topic = node.metadata(Some(&[topic])).topics.remove(0);
    let mut partitions = topic.partitions;
    partitions.sort_by_key(|partition| partition.partition_index);
    let state = |partition: MetadataResponsePartition| {
        let isr = partition.isr_nodes.iter().map(|id| id.0).collect();
        (partition.leader_id.0, isr)
    };
    partitions.into_iter().map(state).collect()
}

/// Creates a topic with these replicas; all brokers know it when this returns.
fn place(cluster: &Cluster, topic: &str, replicas: &[&[i32]]) {
    let assignment = |(index, replicas): (i32, &&[i32])| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(replicas.iter().map(|id| BrokerId(*id)).collect())
    };
    let new = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments((0..).zip(replicas).map(assignment).collect());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![new])
        .with_timeout_ms(10_000);
    let made = cluster.nodes[0].client().ask(5, &request);
    assert_eq!(made.topics[0].error_code, 0);
}

fn isr(ids: &[i32]) -> BTreeSet<i32> {
    ids.iter().copied().collect()
}

#[test]
fn whoever_dies_is_followed_by_a_replica_in_sync_on_every_broker() {
    let mut cluster = Cluster::start(3, &[SHORT_SESSION]);
    place(&cluster, "t", &[&[0, 1, 2], &[1, 2, 0], &[2, 0, 1]]);
    place(&cluster, "once", &[&[1]]);
    // One that is the controller, and with it what it would have written.
    let dead = cluster.nodes[0].controller();
    cluster.nodes[dead as usize].kill();
    let rest: Vec<i32> = (0..3).filter(|id| *id != dead).collect();
    let took = within(SESSION + LONG, "others to lead", || {
        rest.iter().all(|id| {
            let states = states(&cluster.nodes[*id as usize], "t");
            states
                .iter()
                .all(|(leader, in_sync)| rest.contains(leader) && *in_sync == isr(&rest))
        })
    });
    println!("led again after {took:?}");
    let survivor = &cluster.nodes[rest[0] as usize];
    let heirs = states(survivor, "t");
    // In the order of the replicas, and what is not led by it stays.
    let heir = |replicas: [i32; 3]| replicas.into_iter().find(|id| *id != dead).unwrap();
    let expected = [heir([0, 1, 2]), heir([1, 2, 0]), heir([2, 0, 1])];
    let leaders: Vec<i32> = heirs.iter().map(|(leader, _)| *leader).collect();
    assert_eq!(leaders, expected);
    // It is back, and follows; what only it keeps it leads.
    cluster.nodes[dead as usize].launch();
    let back = &cluster.nodes[dead as usize];
    within(LONG, "it to be known", || back.brokers() == [0, 1, 2]);
    // It follows at once, and is in sync as soon as it has everything; those that lead go on.
    within(LONG, "it to be in sync where the others lead", || {
        let expected = leaders.iter().map(|leader| (*leader, isr(&[0, 1, 2])));
        states(back, "t") == expected.collect::<Vec<_>>()
    });
    assert_eq!(states(back, "once"), [(1, isr(&[1]))]);
    let settled = cluster.tree().get("/brokers/settled").unwrap();
    assert!(settled.contains(&format!("\"{dead}\":2")), "{settled}");
}

#[test]
fn a_quick_restart_of_a_leader_is_a_death() {
    let mut cluster = Cluster::start(2, &["zk.zkSessionTimeoutMs=20000"]);
    place(&cluster, "t", &[&[0, 1], &[1, 0]]);
    place(&cluster, "once", &[&[1]]);
    let dead = 1 - cluster.nodes[0].controller();
    let other = 1 - dead;
    cluster.nodes[dead as usize].kill();
    cluster.nodes[dead as usize].launch();
    // It follows, and is in sync again as soon as it has everything.
    within(LONG, "the other one to lead", || {
        cluster.nodes.iter().all(|node| {
            let states = states(node, "t");
            states
                .iter()
                .all(|(leader, in_sync)| *leader == other && *in_sync == isr(&[0, 1]))
        })
    });
    let once = states(&cluster.nodes[0], "once");
    assert_eq!(once, [(1, isr(&[1]))]);
}

#[test]
fn who_is_to_stop_hands_over_what_others_can_lead_before_it_does() {
    let mut cluster = Cluster::start(3, &["zk.zkSessionTimeoutMs=20000"]);
    place(&cluster, "t", &[&[0, 1, 2], &[1, 2, 0], &[2, 0, 1]]);
    place(&cluster, "once", &[&[1]]);
    // The controller too: it moves what it leads itself.
    let controller = cluster.nodes[0].controller();
    for going in [controller, (controller + 1) % 3] {
        let rest: BTreeSet<i32> = cluster.nodes[2 - going as usize % 2]
            .brokers()
            .into_iter()
            .collect();
        let rest: BTreeSet<i32> = rest.into_iter().filter(|id| *id != going).collect();
        let started = Instant::now();
        assert!(cluster.nodes[going as usize].stop().success());
        println!("stopped after {:?}", started.elapsed());
        let log = cluster.nodes[going as usize].log();
        assert!(log.contains("others lead and coordinate what they can"));
        let witness = &cluster.nodes[*rest.first().unwrap() as usize];
        within(LONG, "others to lead", || {
            let states = states(witness, "t");
            states
                .iter()
                .all(|(leader, isr)| rest.contains(leader) && !isr.contains(&going))
        });
        // It comes back, and follows.
        cluster.nodes[going as usize].launch();
        let all: Vec<i32> = (0..3).collect();
        within(LONG, "it to be back", || {
            cluster.nodes.iter().all(|node| node.brokers() == all)
        });
    }
}

/// Of the first partition of a topic, as DescribeTopicPartitions says it: the leader, the eligible ones, and who was last known to lead.
fn may_lead(node: &Node, topic: &str) -> (i32, Vec<i32>, Vec<i32>) {
    let asked = TopicRequest::default().with_name(name(topic));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![asked])
        .with_response_partition_limit(10);
    let topic = node.client().ask(0, &request).topics.remove(0);
    let partition = &topic.partitions[0];
    let ids = |ids: &Option<Vec<BrokerId>>| ids.as_ref().unwrap().iter().map(|id| id.0).collect();
    (
        partition.leader_id.0,
        ids(&partition.eligible_leader_replicas),
        ids(&partition.last_known_elr),
    )
}

/// What the power takes with it: that the system runs on, and the end of a log that was not synced.
fn lose_power(node: &mut Node, topic: &str) {
    node.kill();
    std::fs::remove_file(node.data().join("metaq-running")).unwrap();
    let segment = node
        .data()
        .join(format!("{topic}-0/00000000000000000000.log"));
    let segment = std::fs::File::options().write(true).open(segment).unwrap();
    segment
        .set_len(segment.metadata().unwrap().len() / 2)
        .unwrap();
}

#[test]
fn the_last_in_sync_that_lost_power_waits_for_one_that_has_all_that_was_acknowledged() {
    let mut cluster = Cluster::start(3, &[SHORT_SESSION, "min.insync.replicas=2"]);
    place(&cluster, "t", &[&[0, 1, 2]]);
    let mut client = cluster.nodes[0].client();
    for n in 0..10 {
        assert_eq!(produce(&mut client, "t", 0), (0, n));
    }
    for dead in [2, 1] {
        cluster.nodes[dead].kill();
        within(SESSION + LONG, "it to leave", || {
            states(&cluster.nodes[0], "t")[0].1 == (0..dead as i32).collect()
        });
    }
    assert_eq!(may_lead(&cluster.nodes[0], "t"), (0, vec![1], vec![]));
    lose_power(&mut cluster.nodes[0], "t");
    cluster.nodes[0].launch();
    assert_eq!(may_lead(&cluster.nodes[0], "t"), (-1, vec![], vec![0]));
    // Broker 1 left while nothing was acknowledged any more.
    assert_eq!(states(&cluster.nodes[0], "t"), [(-1, isr(&[1]))]);
    let registered = cluster.tree().get("/brokers/ids/0").unwrap();
    assert!(
        registered.contains(r#""lost":{"unsynced":2}"#),
        "{registered}"
    );
    cluster.nodes[1].launch();
    within(LONG, "broker 1 to lead and broker 0 to be in sync", || {
        states(&cluster.nodes[1], "t") == [(1, isr(&[0, 1]))]
    });
    assert_eq!(may_lead(&cluster.nodes[1], "t"), (1, vec![], vec![]));
    assert_eq!(produce(&mut cluster.nodes[1].client(), "t", 0), (0, 10));
}

/// Runs `metaq` against a broker: exit code, what it printed, what it said.
fn metaq(node: &Node, words: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(words)
        .args(["-b", &node.address()])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

fn json(node: &Node, words: &[&str]) -> serde_json::Value {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    let (_, out, told) = metaq(node, &words);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {told}"))
}

#[test]
fn a_clusters_status_shows_who_is_away_and_what_partitions_lack() {
    let mut cluster = Cluster::start(3, &[SHORT_SESSION, "min.insync.replicas=2"]);
    // Broker 2 leads nothing.
    place(&cluster, "t", &[&[0, 1, 2], &[1, 0, 2]]);
    place(&cluster, "pair", &[&[0, 2]]);
    let status = |node: &Node| {
        let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
            .args([
                "cluster",
                "status",
                "-d",
                &format!("127.0.0.1:{}", node.dashboard),
            ])
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (out, told) = (text(output.stdout), text(output.stderr));
        (output.status.code().unwrap(), out, told)
    };
    let row = |out: &str, id: &str| -> Vec<String> {
        let mut rows = out.lines().map(|line| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        let found = rows.find(|cells| {
            let state = cells.get(1).map_or("", String::as_str);
            cells[..1] == [id] && ["live", "stopping", "away"].contains(&state)
        });
        found.unwrap_or_default()
    };
    let (code, out, told) = status(&cluster.nodes[0]);
    assert_eq!(code, 0, "{out}{told}");
    assert!(
        out.contains("2 topics, 3 partitions: 0 without a leader, 0 with replicas that are not in sync, 0 below"),
        "{out}"
    );
    assert_eq!(row(&out, "2")[1], "live");
    assert_eq!(row(&out, "2")[5..8], ["0", "3", "3"], "{out}");
    cluster.nodes[2].kill();
    within(SESSION + LONG, "it to leave", || {
        states(&cluster.nodes[0], "pair") == [(0, isr(&[0]))]
            && states(&cluster.nodes[0], "t")[1].1 == isr(&[0, 1])
    });
    let (code, out, told) = status(&cluster.nodes[0]);
    assert!(
        out.contains("0 without a leader, 3 with replicas that are not in sync, 1 below"),
        "{out}"
    );
    within(LONG, "the leader to tell why", || {
        let told = cluster.nodes[0].page("/api/events?kind=in_sync");
        told.contains("out of sync: its broker is away") && told.contains("broker 2")
    });
    assert_eq!(row(&out, "2")[1..3], ["away", "-"], "{out}");
    assert_eq!(row(&out, "2")[5..8], ["0", "3", "0"], "{out}");
    assert!(
        code == 1 && told.contains("1 partition with fewer replicas in sync"),
        "{told}"
    );
    // Nobody leads what the other one kept alone.
    cluster.nodes[0].kill();
    within(SESSION + LONG, "nobody to lead it", || {
        let leader = |topic: &str| states(&cluster.nodes[1], topic)[0].0;
        (leader("pair"), leader("t")) == (-1, 1)
    });
    let (code, out, _) = status(&cluster.nodes[1]);
    assert!(code == 1 && row(&out, "-1").is_empty(), "{out}");
    assert!(out.contains(": 1 without a leader"), "{out}");
}

fn leads(node: &Node, topic: &str, id: i32) -> usize {
    let states = states(node, topic);
    states.iter().filter(|(leader, _)| *leader == id).count()
}

#[test]
fn a_broker_that_is_drained_leads_only_what_no_other_one_can_until_it_is_undone() {
    let mut cluster = Cluster::start(3, &["auto.leader.rebalance.enable=true"]);
    place(&cluster, "t", &[&[0, 1, 2], &[1, 2, 0], &[2, 0, 1]]);
    place(&cluster, "once", &[&[1]]);
    let ask = &cluster.nodes[0];
    let (code, _, told) = metaq(ask, &["cluster", "drain", "7"]);
    assert!(code == 1 && told.contains("there is no broker 7"), "{told}");
    for wrong in ["x", "-1", "1.5"] {
        let (code, _, told) = metaq(ask, &["cluster", "drain", wrong]);
        assert!(
            code == 2 && told.contains("a broker's number is expected"),
            "{told}"
        );
    }
    let drained = json(ask, &["cluster", "drain", "1"]);
    assert_eq!(drained["was_drained"], false);
    let left = &drained["left"];
    assert_eq!(
        (&drained["moved"], left.as_array().unwrap().len()),
        (&1.into(), 1)
    );
    assert_eq!(
        (&left[0]["topic"], &left[0]["why"]),
        (&"once".into(), &"no other broker keeps it".into())
    );
    let (code, out, _) = metaq(ask, &["cluster", "drain", "1"]);
    assert!(
        code == 1
            && out
                .contains("broker 1 was drained before: others lead 0 of 1 partition that it led"),
        "{out}"
    );
    for node in &cluster.nodes {
        within(LONG, "others to lead", || leads(node, "t", 1) == 0);
    }
    // It outlives the broker.
    assert!(cluster.nodes[1].stop().success());
    cluster.nodes[1].launch();
    within(LONG, "it to be in sync", || {
        states(&cluster.nodes[0], "t")
            .iter()
            .all(|(_, in_sync)| *in_sync == isr(&[0, 1, 2]))
    });
    let (_, elected, _) = metaq(&cluster.nodes[0], &["cluster", "balance", "--execute"]);
    assert_eq!(leads(&cluster.nodes[0], "t", 1), 0, "{elected}");
    let page = cluster.nodes[0].page("/api/cluster");
    assert!(page.contains(r#""drained":true"#), "{page}");
    let back = json(&cluster.nodes[0], &["cluster", "drain", "1", "--undo"]);
    assert_eq!(
        (&back["later"], &back["was_drained"]),
        (&0.into(), &true.into())
    );
    // Whichever broker is asked, at once.
    let (_, out, _) = metaq(&cluster.nodes[2], &["cluster", "drain", "1", "--undo"]);
    assert!(
        out.contains("broker 1 was not drained: it leads 0"),
        "{out}"
    );
    // Its share was given to others by the balance. Without what only it keeps, all of it can go.
    assert_eq!(metaq(&cluster.nodes[0], &["topic", "delete", "once"]).0, 0);
    let (code, ..) = metaq(&cluster.nodes[0], &["cluster", "balance", "--execute"]);
    assert_eq!(code, 0);
    within(LONG, "it to lead again", || {
        leads(&cluster.nodes[0], "t", 1) == 1
    });
    let (code, out, _) = metaq(&cluster.nodes[0], &["cluster", "drain", "1"]);
    assert!(
        code == 0 && out.contains("others lead 1 partition"),
        "{out}"
    );
}

/// How many replicas of a topic each broker has, and how many of them are the first.
fn shares(node: &Node, topic: &str, brokers: i32) -> Vec<(usize, usize)> {
    let topic = node.metadata(Some(&[topic])).topics.remove(0);
    let share = |id: i32| {
        let keeps = topic
            .partitions
            .iter()
            .filter(|one| one.replica_nodes.contains(&BrokerId(id)));
        let first = topic
            .partitions
            .iter()
            .filter(|one| one.replica_nodes[0] == BrokerId(id));
        (keeps.count(), first.count())
    };
    (0..brokers).map(share).collect()
}

#[test]
fn a_new_broker_gets_its_share_when_an_operator_says_so() {
    let mut cluster = Cluster::start(2, &[]);
    place(
        &cluster,
        "t",
        &[&[0, 1], &[1, 0], &[0, 1], &[1, 0], &[0, 1], &[1, 0]],
    );
    assert_eq!(produce(&mut cluster.nodes[0].client(), "t", 0), (0, 0));
    cluster.add(2, &[]);
    within(LONG, "it to be known", || {
        cluster.nodes.iter().all(|node| node.brokers() == [0, 1, 2])
    });
    let ask = &cluster.nodes[2];
    let planned = json(ask, &["cluster", "balance"]);
    assert_eq!(planned["moves"].as_array().unwrap().len(), 4, "{planned}");
    assert_eq!(planned["brokers"][2]["replicas_planned"], 4);
    assert_eq!(shares(ask, "t", 3), [(6, 3), (6, 3), (0, 0)]);
    let (code, out, told) = metaq(ask, &["cluster", "balance", "--execute"]);
    assert!(
        code == 0 && told.contains("4 replicas copied"),
        "{out} {told}"
    );
    assert_eq!(shares(ask, "t", 3), [(4, 2), (4, 2), (4, 2)]);
    within(LONG, "each to lead its share", || {
        (0..3).all(|id| leads(ask, "t", id) == 2)
    });
    let leader = states(ask, "t")[0].0 as usize;
    assert_eq!(produce(&mut cluster.nodes[leader].client(), "t", 0), (0, 1));
    let (code, out, told) = metaq(ask, &["cluster", "balance"]);
    assert!(
        code == 0 && told.contains("nothing to change"),
        "{out} {told}"
    );
}

#[test]
fn a_topic_gets_other_brokers_and_more_replicas_and_what_is_under_way_is_taken_back() {
    let cluster = Cluster::start(3, &[]);
    place(&cluster, "t", &[&[0], &[0], &[0], &[0], &[0], &[0]]);
    let ask = &cluster.nodes[1];
    let reassign = |words: &[&str]| {
        let words: Vec<&str> = ["topic", "reassign", "t"]
            .iter()
            .chain(words)
            .copied()
            .collect();
        metaq(ask, &words)
    };
    let (code, out, told) = reassign(&["--replication-factor", "2"]);
    assert!(
        code == 0 && out.contains("COPIED TO") && told.contains("--execute does it"),
        "{told}"
    );
    assert_eq!(shares(ask, "t", 3), [(6, 6), (0, 0), (0, 0)]);
    let (code, _, told) = reassign(&["--replication-factor", "2", "--execute"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(shares(ask, "t", 3), [(4, 2), (4, 2), (4, 2)]);
    let (code, _, told) = reassign(&["--brokers", "1,2", "--execute"]);
    assert_eq!(code, 0, "{told}");
    let left = |node: &Node| {
        let entries = std::fs::read_dir(node.data()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.starts_with("t-") && !name.ends_with("-delete"))
            .count()
    };
    within(LONG, "the replicas of broker 0 to go", || {
        left(&cluster.nodes[0]) == 0
    });
    assert_eq!(left(&cluster.nodes[1]), 6);
    assert_eq!(shares(ask, "t", 3), [(0, 0), (6, 3), (6, 3)]);
    for (wrong, why) in [
        (
            &["--replication-factor", "4"][..],
            "4 replicas need as many brokers, and there are 3 brokers",
        ),
        (&["--brokers", "1,9"], "broker 9 is not there"),
        (
            &["--brokers", "0,1,0"],
            "--brokers names broker 0 more than once",
        ),
        (
            &["--brokers", "1"],
            "2 replicas need as many brokers, and there are 1 broker",
        ),
    ] {
        let (code, _, told) = reassign(wrong);
        assert!(code == 1 && told.contains(why), "{told}");
    }
    for (wrong, why) in [
        (
            ["-r", "0"],
            "a number of replicas is expected, which is 1 or more",
        ),
        (["-r", "many"], "a number of replicas is expected"),
        (["--brokers", "1,x"], "a broker's number is expected"),
    ] {
        let (code, _, told) = reassign(&wrong);
        assert!(code == 2 && told.contains(why), "{told}");
    }
    // One that cannot be done yet.
    cluster.nodes[0].pause();
    let partition =
        ReassignablePartition::default().with_replicas(Some(vec![BrokerId(0), BrokerId(1)]));
    let topic = ReassignableTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let request = AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(10_000)
        .with_topics(vec![topic]);
    let controller = &cluster.nodes[ask.controller() as usize];
    if controller.id == 0 {
        // It does nothing while it stands still.
        cluster.nodes[0].resume();
        return;
    }
    assert_eq!(controller.client().ask(0, &request).error_code, 0);
    within(LONG, "it to move", || {
        let status = json(ask, &["topic", "reassign", "t", "--status"]);
        status[0]["adding"] == serde_json::json!([0])
    });
    let (code, _, told) = reassign(&[]);
    assert!(code == 1 && told.contains("t-0 moves already"), "{told}");
    let (code, out, told) = reassign(&["--cancel"]);
    assert!(
        code == 0 && told.contains("1 partition taken back") && out.contains("IN SYNC"),
        "{out} {told}"
    );
    // It is done when it is said.
    let status = json(ask, &["topic", "reassign", "t", "--status"]);
    assert_eq!(status, serde_json::json!([]));
    assert_eq!(json(ask, &["topic", "reassign", "t", "--cancel"]), status);
    cluster.nodes[0].resume();
    assert_eq!(shares(ask, "t", 3), [(0, 0), (6, 3), (6, 3)]);
}

#[test]
fn a_broker_that_was_away_when_its_replica_was_taken_away_removes_it_when_it_is_back() {
    let mut cluster = Cluster::start(3, &[SHORT_SESSION]);
    place(&cluster, "t", &[&[0, 1]]);
    assert_eq!(produce(&mut cluster.nodes[0].client(), "t", 0), (0, 0));
    cluster.nodes[0].kill();
    within(SESSION + LONG, "broker 1 to lead", || {
        states(&cluster.nodes[1], "t") == [(1, isr(&[1]))]
    });
    let words = ["topic", "reassign", "t", "--brokers", "1,2", "--execute"];
    let (code, _, told) = metaq(&cluster.nodes[1], &words);
    assert_eq!(code, 0, "{told}");
    let replica = cluster.nodes[0].data().join("t-0");
    assert!(replica.exists());
    cluster.nodes[0].launch();
    assert!(!replica.exists());
    assert_eq!(produce(&mut cluster.nodes[1].client(), "t", 0), (0, 1));
}

#[test]
fn samsa_and_gregor_both_have_every_message_and_take_none_alone() {
    let mut cluster =
        Cluster::start_as(&[("samsa", &[SHORT_SESSION]), ("gregor", &[SHORT_SESSION])]);
    // It takes both, and the first one was there alone.
    within(LONG, "the topic of the file to be made", || {
        let named = states(&cluster.nodes[1], "named");
        named
            .first()
            .is_some_and(|(_, in_sync)| *in_sync == isr(&[0, 1]))
    });
    cluster.create(0, "t", 2);
    assert_eq!(
        states(&cluster.nodes[0], "t"),
        [(0, isr(&[0, 1])), (1, isr(&[0, 1]))]
    );
    assert_eq!(produce(&mut cluster.nodes[0].client(), "t", 0), (0, 0));
    cluster.nodes[0].kill();
    within(SESSION + LONG, "gregor to lead", || {
        leads(&cluster.nodes[1], "t", 1) == 2
    });
    let (code, _) = produce(&mut cluster.nodes[1].client(), "t", 0);
    assert_eq!(code, ResponseError::NotEnoughReplicas.code());
    cluster.nodes[0].launch();
    within(LONG, "both to be in sync", || {
        states(&cluster.nodes[1], "t")
            .iter()
            .all(|(_, in_sync)| *in_sync == isr(&[0, 1]))
    });
    let leader = states(&cluster.nodes[1], "t")[0].0;
    assert_eq!(
        produce(&mut cluster.nodes[leader as usize].client(), "t", 0),
        (0, 1)
    );
}

#[test]
fn a_slave_has_a_copy_and_never_leads() {
    let master = &[SHORT_SESSION, "default.replication.factor=2"];
    let mut cluster = Cluster::start_as(&[("", master), ("slave", &[SHORT_SESSION])]);
    within(LONG, "the topic of the file to be made", || {
        states(&cluster.nodes[0], "named") == [(0, isr(&[0, 1]))]
    });
    cluster.create(0, "t", 2);
    let (led, none) = ((0, isr(&[0, 1])), (-1, isr(&[0])));
    assert_eq!(states(&cluster.nodes[0], "t"), [led.clone(), led.clone()]);
    for n in 0..3 {
        assert_eq!(produce(&mut cluster.nodes[0].client(), "t", 0), (0, n));
    }
    let (code, out, _) = {
        let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
            .args([
                "server",
                "slave-status",
                "--json",
                "-b",
                &cluster.nodes[1].address(),
            ])
            .output();
        let output = output.unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            (),
        )
    };
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (
            code,
            &told[1]["keeps"],
            &told[1]["in_sync"],
            &told[1]["leads"]
        ),
        (Some(0), &3.into(), &3.into(), &0.into())
    );
    // The master dies: nobody leads, and its end is not cut off for the slave's.
    cluster.nodes[0].kill();
    within(SESSION + LONG, "nobody to lead", || {
        states(&cluster.nodes[1], "t") == [none.clone(), none.clone()]
    });
    cluster.nodes[0].launch();
    within(
        LONG,
        "the master to lead, and the slave to be in sync",
        || states(&cluster.nodes[0], "t") == [led.clone(), led.clone()],
    );
    assert_eq!(produce(&mut cluster.nodes[0].client(), "t", 0), (0, 3));
    let (code, out, _) = metaq(&cluster.nodes[0], &["cluster", "drain", "0"]);
    assert!(
        code == 1 && out.contains("the others in sync only follow"),
        "{out}"
    );
    let (code, ..) = metaq(&cluster.nodes[0], &["cluster", "drain", "0", "--undo"]);
    assert_eq!(code, 0);
    // Without the slave it goes on.
    cluster.nodes[1].kill();
    within(SESSION + LONG, "the slave to leave", || {
        states(&cluster.nodes[0], "t")[0] == (0, isr(&[0]))
    });
    assert_eq!(produce(&mut cluster.nodes[0].client(), "t", 0), (0, 4));
}
