//! Groups on both coordination stores: whatever their clients call themselves, and however much they assign.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use cluster::{Cluster, LONG, Member, Node, committed, create, within};

/// What ZooKeeper takes in no path, and what it does.
const NAMES: [&str; 6] = [
    "app-🚀",
    "\u{e000}",
    "\u{f8ff}",
    "\u{fff0}x",
    "a/b %2f ü",
    "...",
];

fn names_are_kept(node: &mut Node) {
    let mut client = node.client();
    create(&mut client, "t", 1);
    let members = NAMES.map(|name| {
        let assignment = vec![7; 10];
        let member = Member::join_assigned(&mut client, name, Some(name), "t", assignment);
        assert_eq!(member.commit(&mut client, "t", 0, 42), 0, "{name:?}");
        member
    });
    node.kill();
    node.launch();
    let mut client = node.client();
    within(LONG, "the groups are there again", || {
        NAMES
            .iter()
            .all(|name| committed(&mut client, name, "t", 0) == Ok(42))
    });
    for member in members {
        assert_eq!(
            member.assignment(&mut client),
            Ok(vec![7; 10]),
            "{:?}",
            member.group
        );
        assert_eq!(member.heartbeat(&mut client), 0, "{:?}", member.group);
    }
}

/// Below what Kafka takes, which is a message.max.bytes less its record's other fields.
const LARGE_BYTES: usize = 900_000;

fn a_large_assignment_is_kept(node: &mut Node) {
    let mut client = node.client();
    create(&mut client, "t", 1);
    let large: Vec<u8> = (0..LARGE_BYTES).map(|at| (at % 251) as u8).collect();
    // A static member with another subscription than before begins a rebalance.
    let join = |client: &mut common::Client, topic: &str, assignment| {
        Member::join_assigned(client, "g", Some("i"), topic, assignment)
    };
    let member = join(&mut client, "t", large.clone());
    assert!(member.assignment(&mut client) == Ok(large.clone()));
    node.kill();
    node.launch();
    let mut client = node.client();
    within(LONG, "the assignment is there again", || {
        member.assignment(&mut client) == Ok(large.clone())
    });
    // Others after it, small and large.
    for (topic, assignment) in [("u", vec![1]), ("v", large.clone()), ("w", large)] {
        let member = join(&mut client, topic, assignment.clone());
        assert!(member.assignment(&mut client) == Ok(assignment), "{topic}");
    }
}

fn alone(test: impl FnOnce(&mut Node)) {
    let dir = tempfile::tempdir().unwrap();
    test(&mut Node::start(dir.path(), 0, "", &[]));
}

fn on_zookeeper(test: impl FnOnce(&mut Node)) {
    let mut cluster = Cluster::start(1, &[]);
    test(&mut cluster.nodes[0]);
}

#[test]
fn groups_and_members_of_any_name_outlive_a_kill() {
    alone(names_are_kept);
}

#[test]
fn groups_and_members_of_any_name_outlive_a_kill_on_zookeeper() {
    on_zookeeper(names_are_kept);
}

#[test]
fn a_large_assignment_outlives_a_kill() {
    alone(a_large_assignment_is_kept);
}

#[test]
fn a_large_assignment_outlives_a_kill_on_zookeeper() {
    on_zookeeper(a_large_assignment_is_kept);
}
