//! How a topic stands in the coordination tree: one node for what it is, and nodes for the state of its partitions, a hundred
//! in each, where that is not as it began. So a topic is made by one write however many partitions it has, and a change of
//! leader or of the in-sync replicas rewrites a few kilobytes. What the partitions of a large topic are stands in nodes of its own
//! (`assignment_nodes`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::assignment_nodes::{TOPIC_NODE_BYTES_MAX, assignments_of, partitions_from};
use super::image::{PartitionInfo, Topic, parse_identity};
use crate::config::TopicOverrides;
use crate::meta::records::{
    AssignmentRecord, LARGE_TOPIC_RECORD_VERSION, PartitionStateRecord, PartitionStatesRecord,
    RECORD_VERSION, TOPIC_RECORD_VERSION, TopicRecord, decode, encode,
};
use crate::meta::{MetaError, MetaStore, Node, Op, paths};

/// Topics that are read at the same time.
const READS_AT_ONCE: usize = 256;

/// The nodes of one topic.
#[derive(Default)]
struct Nodes {
    topic: Option<Node>,
    /// Those below it, by their paths.
    below: BTreeMap<String, Node>,
}

/// All topics of the tree, and the names of those whose nodes cannot be read.
pub(super) async fn read_all(
    meta: &MetaStore,
) -> Result<(Vec<Topic>, BTreeSet<String>), MetaError> {
    let mut nodes: BTreeMap<String, Nodes> = BTreeMap::new();
    for (path, node) in meta.subtree(paths::TOPICS).await? {
        let Some(name) = paths::topic_of(&path) else {
            continue;
        };
        let is_topic = path == paths::topic(&name);
        let of_topic = nodes.entry(name).or_default();
        match is_topic {
            true => of_topic.topic = Some(node),
            false => {
                of_topic.below.insert(path, node);
            }
        }
    }
    let (mut topics, mut unreadable) = (Vec::new(), BTreeSet::new());
    for (name, Nodes { topic, below }) in nodes {
        let Some(topic) = topic else {
            continue;
        };
        match topic_from(&name, &topic, &below) {
            Ok(topic) => topics.push(topic),
            Err(error) => {
                tracing::error!(topic = name, %error, "the topic is left as it is known here");
                unreadable.insert(name);
            }
        }
    }
    Ok((topics, unreadable))
}

/// What the tree says of some topics, in their order; `None` for those that it does not have, and what is wrong with those
/// that cannot be read.
pub(super) async fn read_named(
    meta: &MetaStore,
    names: &BTreeSet<String>,
) -> Result<Vec<Option<Result<Topic, MetaError>>>, MetaError> {
    let reads: Vec<_> = names.iter().map(|name| read_one(meta, name)).collect();
    stream::iter(reads)
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await
}

async fn read_one(
    meta: &MetaStore,
    name: &str,
) -> Result<Option<Result<Topic, MetaError>>, MetaError> {
    let Some(node) = meta.get(&paths::topic(name)).await? else {
        return Ok(None);
    };
    let mut below = BTreeMap::new();
    let mut parents = vec![paths::partition_states(name)];
    let record = decode::<TopicRecord>(&paths::topic(name), &node.data);
    if record.is_ok_and(|record| record.version == LARGE_TOPIC_RECORD_VERSION) {
        parents.push(paths::assignments(name));
    }
    for parent in parents {
        for first in meta.children(&parent).await? {
            let path = format!("{parent}/{first}");
            if let Some(node) = meta.get(&path).await? {
                below.insert(path, node);
            }
        }
    }
    Ok(Some(topic_from(name, &node, &below)))
}

/// A topic from its nodes: its own, and those below it by their paths.
fn topic_from(name: &str, node: &Node, below: &BTreeMap<String, Node>) -> Result<Topic, MetaError> {
    let path = paths::topic(name);
    let malformed = |what: String| MetaError::Malformed {
        path: path.clone(),
        what,
    };
    let record: TopicRecord = decode(&path, &node.data)?;
    let mut topic = Topic {
        name: name.into(),
        id: record.topic_id,
        overrides: TopicOverrides(record.config),
        partitions: Vec::with_capacity(record.partitions.len()),
    };
    match (record.version, record.partition_count) {
        (TOPIC_RECORD_VERSION, _) => {
            for partition in record.partitions {
                let identity = parse_identity(&partition.identity).ok_or_else(|| {
                    malformed(format!("{:?} is no brokerId-n", partition.identity))
                })?;
                let (replicas, first_epoch) = (partition.replicas, partition.first_epoch);
                let info = PartitionInfo::new(identity, replicas, first_epoch);
                topic.partitions.push(info);
            }
        }
        (LARGE_TOPIC_RECORD_VERSION, Some(count)) => {
            topic.partitions = partitions_from(&topic, count, below)?;
        }
        (version, _) => return Err(malformed(format!("version {version}"))),
    }
    let states = format!("{}/", paths::partition_states(name));
    let of_partitions = below.range(states.clone()..);
    for (path, node) in of_partitions.take_while(|(path, _)| path.starts_with(&states)) {
        let record: PartitionStatesRecord = decode(path, &node.data)?;
        if record.topic_id == topic.id {
            take_states(&mut topic.partitions, record);
        }
    }
    Ok(topic)
}

fn take_states(partitions: &mut [PartitionInfo], record: PartitionStatesRecord) {
    for (index, state) in record.partitions {
        let info = usize::try_from(index)
            .ok()
            .and_then(|index| partitions.get_mut(index));
        let Some(info) = info else {
            continue;
        };
        info.leader = state.leader;
        info.leader_epoch = state.leader_epoch;
        info.isr = state.isr;
        if !state.replicas.is_empty() {
            info.replicas = state.replicas;
        }
        (info.elr, info.adding, info.removing) = (state.elr, state.adding, state.removing);
        info.left_on = state.left_on;
        info.last_known_leader = state.last_known_leader.unwrap_or(-1);
        info.partition_epoch = state.partition_epoch;
    }
}

/// The content of a topic's node.
fn topic_record(topic: &Topic) -> TopicRecord {
    let assignment = |info: &PartitionInfo| AssignmentRecord {
        identity: info.identity.to_string(),
        replicas: info.replicas.clone(),
        first_epoch: info.first_epoch,
    };
    TopicRecord {
        version: TOPIC_RECORD_VERSION,
        topic_id: topic.id,
        config: topic.overrides.0.clone(),
        partition_count: None,
        partitions: topic.partitions.iter().map(assignment).collect(),
    }
}

/// What a topic is, in its own node and, where that would be too large, in those of its partitions.
fn description(topic: &Topic) -> (Bytes, Vec<(String, Bytes)>) {
    let whole = encode(&topic_record(topic));
    if whole.len() <= TOPIC_NODE_BYTES_MAX {
        return (whole, Vec::new());
    }
    let record = TopicRecord {
        version: LARGE_TOPIC_RECORD_VERSION,
        topic_id: topic.id,
        config: topic.overrides.0.clone(),
        partition_count: Some(topic.partitions.len() as i32),
        partitions: Vec::new(),
    };
    (encode(&record), assignments_of(topic))
}

/// What makes a topic. All to the letter, in this order: what is only to be there would be made first, and its parents with it.
pub(super) fn create(topic: &Topic) -> Vec<Op> {
    let (own, assignments) = description(topic);
    let none = Topic {
        partitions: Vec::new(),
        ..topic.clone()
    };
    let mut ops = vec![Op::create(paths::topic(&topic.name), own)];
    let below = [
        (paths::assignments(&topic.name), assignments),
        (paths::partition_states(&topic.name), states(&none, topic)),
    ];
    for (parent, nodes) in below {
        if !nodes.is_empty() {
            ops.push(Op::create(parent, Bytes::new()));
            ops.extend(nodes.into_iter().map(|(path, data)| Op::create(path, data)));
        }
    }
    ops
}

/// What removes a topic.
pub(super) fn delete(topic: &Topic) -> Op {
    Op::delete_tree(paths::topic(&topic.name))
}

/// What makes a topic another one: the states of partitions that differ, and its description where that does, a change a node. In this
/// order each write of some of them leaves a topic that can be read: states say all of their partitions, and the topic's own node,
/// which comes last, counts what is described.
pub(super) fn change(before: &Topic, after: &Topic) -> Vec<Vec<Op>> {
    let states = states(before, after).into_iter();
    let mut changes: Vec<Vec<Op>> = states.map(|state| put_below(after, state)).collect();
    if !are_described_alike(before, after) {
        let (own, assignments) = description(after);
        let assignments = assignments.into_iter();
        changes.extend(assignments.map(|assignment| put_below(after, assignment)));
        changes.push(vec![Op::Set {
            path: paths::topic(&after.name),
            data: own,
            version: None,
        }]);
    }
    changes
}

/// A node below a topic's, which must be there: it may have been deleted by a write whose outcome is not known yet.
fn put_below(topic: &Topic, (path, data): (String, Bytes)) -> Vec<Op> {
    let topic_is_there = Op::Check {
        path: paths::topic(&topic.name),
        version: None,
    };
    vec![topic_is_there, Op::put(path, data)]
}

/// Whether what two topics are is the same, but for the state of their partitions. A partition that has a state of its own has its
/// replicas there: a write of one node moves it.
fn are_described_alike(one: &Topic, other: &Topic) -> bool {
    let alike = |(a, b): (&PartitionInfo, &PartitionInfo)| {
        (a.identity, a.first_epoch) == (b.identity, b.first_epoch)
    };
    (one.id, &one.overrides, one.partitions.len())
        == (other.id, &other.overrides, other.partitions.len())
        && one.partitions.iter().zip(&other.partitions).all(alike)
}

/// The nodes of the states of a topic's partitions that are others than before.
fn states(before: &Topic, after: &Topic) -> Vec<(String, Bytes)> {
    let mut nodes = Vec::new();
    let chunk = paths::PARTITIONS_A_NODE as usize;
    for (n, infos) in after.partitions.chunks(chunk).enumerate() {
        let first = n * chunk;
        let states = states_of(after, first, infos);
        let known = before.partitions.get(first..).unwrap_or_default();
        let known = &known[..known.len().min(chunk)];
        if states != states_of(before, first, known) {
            let path = paths::partition_states_from(&after.name, first as i32);
            nodes.push((path, encode(&states)));
        }
    }
    nodes
}

fn states_of(topic: &Topic, first: usize, infos: &[PartitionInfo]) -> PartitionStatesRecord {
    let state = |info: &PartitionInfo| PartitionStateRecord {
        leader: info.leader,
        leader_epoch: info.leader_epoch,
        replicas: info.replicas.clone(),
        isr: info.isr.clone(),
        elr: info.elr.clone(),
        last_known_leader: Some(info.last_known_leader).filter(|id| *id >= 0),
        adding: info.adding.clone(),
        removing: info.removing.clone(),
        left_on: info.left_on.clone(),
        partition_epoch: info.partition_epoch,
    };
    let changed = infos
        .iter()
        .enumerate()
        .filter(|(_, info)| !info.is_as_it_began())
        .map(|(n, info)| ((first + n) as i32, state(info)));
    PartitionStatesRecord {
        version: RECORD_VERSION,
        topic_id: topic.id,
        partitions: changed.collect(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::partition::Identity;

    fn topic(id: u128, partitions: usize) -> Topic {
        let info = |number: usize| {
            let identity = Identity {
                broker_id: 1,
                number: number as i32,
            };
            PartitionInfo::new(identity, vec![1, 2], 0)
        };
        Topic {
            name: "t".into(),
            id: Uuid::from_u128(id),
            overrides: TopicOverrides::default(),
            partitions: (0..partitions).map(info).collect(),
        }
    }

    fn led_by(topic: &Topic, index: usize, leader: i32) -> Topic {
        let mut topic = topic.clone();
        topic.partitions[index].change_state(leader, vec![leader]);
        topic
    }

    async fn tree() -> (tempfile::TempDir, MetaStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = MetaStore::open_embedded(&dir.path().join("meta")).unwrap();
        store
            .multi(vec![Op::put(paths::TOPICS, bytes::Bytes::new())])
            .await
            .unwrap();
        (dir, store)
    }

    async fn read(store: &MetaStore) -> Option<Topic> {
        let (all, unreadable) = read_all(store).await.unwrap();
        assert!(unreadable.is_empty());
        let named = read_named(store, &BTreeSet::from(["t".to_owned()])).await;
        let named = named.unwrap().remove(0).map(Result::unwrap);
        assert_eq!(all.into_iter().next(), named);
        named
    }

    #[tokio::test]
    async fn a_topic_is_read_as_it_was_made_and_changed() {
        let (_dir, store) = tree().await;
        let mut made = topic(7, 250);
        made.partitions[249].first_epoch = 9;
        made.partitions[249].leader_epoch = 9;
        store.multi(create(&made)).await.unwrap();
        assert_eq!(read(&store).await, Some(made.clone()));
        assert_eq!(store.subtree(paths::TOPICS).await.unwrap().len(), 1);
        let moved = led_by(&led_by(&made, 3, 2), 249, 2);
        store.multi(change(&made, &moved).concat()).await.unwrap();
        assert_eq!(read(&store).await, Some(moved.clone()));
        // A change of one partition leaves the others' nodes alone, and the topic's own.
        let again = led_by(&moved, 4, 2);
        let paths: Vec<String> = change(&moved, &again)
            .concat()
            .iter()
            .map(|op| op.path().to_owned())
            .collect();
        assert_eq!(
            paths,
            ["/brokers/topics/t", "/brokers/topics/t/partitions/0"]
        );
        let mut moving = again.clone();
        moving.partitions[3].last_known_leader = 1;
        let info = &mut moving.partitions[200];
        (info.elr, info.adding, info.removing) = (vec![2], vec![3], vec![1]);
        info.left_on = vec![4];
        store.multi(change(&moved, &moving).concat()).await.unwrap();
        assert_eq!(read(&store).await, Some(moving));
        let mut configured = again.clone();
        let overrides = &mut configured.overrides.0;
        overrides.insert("retention.ms".to_owned(), "1".to_owned());
        let ops = change(&again, &configured).concat();
        assert_eq!(ops.len(), 1);
        assert_eq!(ops[0].path(), "/brokers/topics/t");
        assert!(change(&again, &again).is_empty());
    }

    #[tokio::test]
    async fn a_change_of_a_topic_that_was_deleted_meanwhile_leaves_nothing_of_it() {
        let (_dir, store) = tree().await;
        let made = topic(7, 3);
        let mut configured = led_by(&made, 1, 2);
        configured
            .overrides
            .0
            .insert("retention.ms".to_owned(), "1".to_owned());
        for after in [led_by(&made, 1, 2), configured, topic(7, 4)] {
            store.multi(create(&made)).await.unwrap();
            store.multi(vec![delete(&made)]).await.unwrap();
            let refused = store.multi(change(&made, &after).concat()).await;
            assert_eq!(refused, Err(MetaError::NoNode("/brokers/topics/t".into())));
            assert!(store.subtree(paths::TOPICS).await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_topic_of_twenty_thousand_partitions_of_three_replicas_is_made_by_one_write_and_changed()
     {
        const WRITE_BYTES_MAX: usize = 512 << 10;
        let (_dir, store) = tree().await;
        let mut made = topic(7, 20_000);
        for (n, info) in made.partitions.iter_mut().enumerate() {
            // Numbers as large as somebody would give brokers.
            let replicas = (0..3).map(|at| 1001 + (n as i32 + at) % 5).collect();
            let identity = Identity {
                broker_id: 1001 + n as i32 % 5,
                number: n as i32 / 5,
            };
            *info = PartitionInfo::new(identity, replicas, 0);
        }
        let ops = create(&made);
        let bytes: usize = ops.iter().map(|op| op.bytes() + 100).sum();
        println!("{} nodes, {bytes} bytes", ops.len());
        assert!(bytes < WRITE_BYTES_MAX, "{bytes}");
        store.multi(ops).await.unwrap();
        assert_eq!(read(&store).await, Some(made.clone()));
        let moved = led_by(&made, 19_999, 1002);
        let ops = change(&made, &moved);
        assert_eq!(ops.len(), 1);
        store.multi(ops.concat()).await.unwrap();
        assert_eq!(read(&store).await, Some(moved.clone()));
        // Other settings, more partitions, and others led elsewhere. Wherever the writes end, it is a topic of before or after.
        let mut more = led_by(&moved, 7, 1003);
        more.overrides
            .0
            .insert("retention.ms".to_owned(), "1".to_owned());
        for number in 4000..5500 {
            let identity = Identity {
                broker_id: 1001,
                number,
            };
            more.partitions
                .push(PartitionInfo::new(identity, vec![1001, 1002, 1003], 0));
        }
        let changes = change(&moved, &more);
        let ops = changes.iter().flatten();
        assert!(ops.map(|op| op.bytes() + 100).sum::<usize>() < WRITE_BYTES_MAX);
        for ops in changes {
            store.multi(ops).await.unwrap();
            let read = read(&store).await.unwrap();
            for (n, info) in read.partitions.iter().enumerate() {
                let before = moved.partitions.get(n);
                assert!(
                    before == Some(info) || more.partitions[n] == *info,
                    "{n}: {info:?}"
                );
            }
        }
        assert_eq!(read(&store).await, Some(more.clone()));
        store.multi(vec![delete(&more)]).await.unwrap();
        assert!(store.subtree(paths::TOPICS).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_topic_that_outgrows_its_node_moves_to_others_and_a_smaller_one_stays_as_it_was_read()
    {
        let (_dir, store) = tree().await;
        let small = topic(7, 4000);
        store.multi(create(&small)).await.unwrap();
        let node = store.get("/brokers/topics/t").await.unwrap().unwrap();
        let record: TopicRecord = decode("/brokers/topics/t", &node.data).unwrap();
        assert_eq!((record.version, record.partitions.len()), (2, 4000));
        let large = topic(7, 15_000);
        store.multi(change(&small, &large).concat()).await.unwrap();
        assert_eq!(read(&store).await, Some(large.clone()));
        let node = store.get("/brokers/topics/t").await.unwrap().unwrap();
        let record: TopicRecord = decode("/brokers/topics/t", &node.data).unwrap();
        assert_eq!((record.version, record.partition_count), (3, Some(15_000)));
        // One whose partitions are not there cannot be read, and stops nothing else.
        store
            .multi(vec![Op::delete("/brokers/topics/t/assignments/3000")])
            .await
            .unwrap();
        let (topics, unreadable) = read_all(&store).await.unwrap();
        assert!(topics.is_empty() && unreadable.contains("t"));
    }

    #[tokio::test]
    async fn states_of_an_earlier_topic_of_the_name_and_of_partitions_that_are_not_there_mean_nothing()
     {
        let (_dir, store) = tree().await;
        let made = topic(7, 3);
        store.multi(create(&made)).await.unwrap();
        let other = led_by(&topic(8, 3), 1, 2);
        store
            .multi(change(&topic(8, 3), &other).concat())
            .await
            .unwrap();
        assert_eq!(read(&store).await, Some(made.clone()));
        let more = led_by(&topic(7, 5), 4, 2);
        store
            .multi(change(&topic(7, 5), &more).concat())
            .await
            .unwrap();
        assert_eq!(read(&store).await, Some(made.clone()));
        store.multi(vec![delete(&made)]).await.unwrap();
        assert_eq!(read(&store).await, None);
        assert!(store.subtree(paths::TOPICS).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named_and_stops_nothing_else() {
        let (_dir, store) = tree().await;
        store.multi(create(&topic(7, 1))).await.unwrap();
        let states = paths::partition_states_from("states", 0);
        let mut other = topic(9, 1);
        other.name = "states".into();
        let ops = vec![
            Op::put(paths::topic("broken"), "no json".into()),
            Op::put(paths::topic("old"), r#"{"version":1,"topic_id":"00000000-0000-0000-0000-000000000007","partitions":[]}"#.into()),
            Op::put(states, "no json".into()),
        ];
        let ops = create(&other).into_iter().chain(ops).collect();
        store.multi(ops).await.unwrap();
        let (topics, unreadable) = read_all(&store).await.unwrap();
        assert_eq!(topics, [topic(7, 1)]);
        let names: Vec<&str> = unreadable.iter().map(String::as_str).collect();
        assert_eq!(names, ["broken", "old", "states"]);
    }
}
