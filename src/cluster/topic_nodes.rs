//! How a topic stands in the coordination tree: one node for what it is, and nodes for the state of its partitions, a hundred
//! in each, where that is not as it began. So a topic is made by one write however many partitions it has, and a change of
//! leader or of the in-sync replicas rewrites a few kilobytes.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::image::{PartitionInfo, Topic, parse_identity};
use crate::config::TopicOverrides;
use crate::meta::records::{
    AssignmentRecord, PartitionStateRecord, PartitionStatesRecord, RECORD_VERSION,
    TOPIC_RECORD_VERSION, TopicRecord, decode, encode,
};
use crate::meta::{MetaError, MetaStore, Node, Op, paths};

/// Topics that are read at the same time.
const READS_AT_ONCE: usize = 256;

/// The nodes of one topic.
#[derive(Default)]
struct Nodes {
    topic: Option<Node>,
    states: Vec<(String, Node)>,
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
        let is_parent = path == paths::partition_states(&name);
        let of_topic = nodes.entry(name).or_default();
        match is_topic {
            true => of_topic.topic = Some(node),
            false if is_parent => {}
            false => of_topic.states.push((path, node)),
        }
    }
    let (mut topics, mut unreadable) = (Vec::new(), BTreeSet::new());
    for (name, Nodes { topic, states }) in nodes {
        let Some(topic) = topic else {
            continue;
        };
        match topic_from(&name, &topic, &states) {
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
    let parent = paths::partition_states(name);
    let mut states = Vec::new();
    for first in meta.children(&parent).await? {
        let path = format!("{parent}/{first}");
        if let Some(node) = meta.get(&path).await? {
            states.push((path, node));
        }
    }
    Ok(Some(topic_from(name, &node, &states)))
}

/// A topic from its nodes.
fn topic_from(name: &str, topic: &Node, states: &[(String, Node)]) -> Result<Topic, MetaError> {
    let path = paths::topic(name);
    let malformed = |what: String| MetaError::Malformed {
        path: path.clone(),
        what,
    };
    let record: TopicRecord = decode(&path, &topic.data)?;
    if record.version != TOPIC_RECORD_VERSION {
        return Err(malformed(format!("version {}", record.version)));
    }
    let mut partitions = Vec::with_capacity(record.partitions.len());
    for partition in record.partitions {
        let identity = parse_identity(&partition.identity)
            .ok_or_else(|| malformed(format!("{:?} is no brokerId-n", partition.identity)))?;
        let first_epoch = partition.first_epoch;
        partitions.push(PartitionInfo::new(
            identity,
            partition.replicas,
            first_epoch,
        ));
    }
    for (path, node) in states {
        let states: PartitionStatesRecord = decode(path, &node.data)?;
        if states.topic_id != record.topic_id {
            continue;
        }
        for (index, state) in states.partitions {
            let info = usize::try_from(index)
                .ok()
                .and_then(|index| partitions.get_mut(index));
            if let Some(info) = info {
                info.leader = state.leader;
                info.leader_epoch = state.leader_epoch;
                info.isr = state.isr;
                if !state.replicas.is_empty() {
                    info.replicas = state.replicas;
                }
                (info.elr, info.adding, info.removing) = (state.elr, state.adding, state.removing);
                info.last_known_leader = state.last_known_leader.unwrap_or(-1);
                info.partition_epoch = state.partition_epoch;
            }
        }
    }
    Ok(Topic {
        name: name.into(),
        id: record.topic_id,
        overrides: TopicOverrides(record.config),
        partitions,
    })
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
        partitions: topic.partitions.iter().map(assignment).collect(),
    }
}

/// What makes a topic.
pub(super) fn create(topic: &Topic) -> Vec<Op> {
    let made = Op::create(paths::topic(&topic.name), encode(&topic_record(topic)));
    let none = Topic {
        partitions: Vec::new(),
        ..topic.clone()
    };
    [made].into_iter().chain(states(&none, topic)).collect()
}

/// What removes a topic.
pub(super) fn delete(topic: &Topic) -> Op {
    Op::delete_tree(paths::topic(&topic.name))
}

/// What makes a topic another one: its node where that differs, and those of the partitions whose state does.
pub(super) fn change(before: &Topic, after: &Topic) -> Vec<Op> {
    let mut ops = Vec::new();
    let record = topic_record(after);
    let mut known = topic_record(before);
    // A partition that has a state of its own has its replicas there: a write of one node moves it.
    for (known, partition) in known.partitions.iter_mut().zip(&record.partitions) {
        known.replicas.clone_from(&partition.replicas);
    }
    if record != known {
        ops.push(Op::Set {
            path: paths::topic(&after.name),
            data: encode(&record),
            version: None,
        });
    }
    ops.extend(states(before, after));
    ops
}

/// What makes the states of a topic's partitions others.
fn states(before: &Topic, after: &Topic) -> Vec<Op> {
    let mut ops = Vec::new();
    let chunk = paths::PARTITIONS_A_NODE as usize;
    for (n, infos) in after.partitions.chunks(chunk).enumerate() {
        let first = n * chunk;
        let states = states_of(after, first, infos);
        let known = before.partitions.get(first..).unwrap_or_default();
        let known = &known[..known.len().min(chunk)];
        if states != states_of(before, first, known) {
            let path = paths::partition_states_from(&after.name, first as i32);
            ops.push(Op::put(path, encode(&states)));
        }
    }
    ops
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
        store.multi(change(&made, &moved)).await.unwrap();
        assert_eq!(read(&store).await, Some(moved.clone()));
        // A change of one partition leaves the others' nodes alone, and the topic's own.
        let again = led_by(&moved, 4, 2);
        let paths: Vec<String> = change(&moved, &again)
            .iter()
            .map(|op| op.path().to_owned())
            .collect();
        assert_eq!(paths, ["/brokers/topics/t/partitions/0"]);
        let mut moving = again.clone();
        moving.partitions[3].last_known_leader = 1;
        let info = &mut moving.partitions[200];
        (info.elr, info.adding, info.removing) = (vec![2], vec![3], vec![1]);
        store.multi(change(&moved, &moving)).await.unwrap();
        assert_eq!(read(&store).await, Some(moving));
        let mut configured = again.clone();
        let overrides = &mut configured.overrides.0;
        overrides.insert("retention.ms".to_owned(), "1".to_owned());
        let ops = change(&again, &configured);
        assert_eq!(ops.len(), 1);
        assert_eq!(ops[0].path(), "/brokers/topics/t");
        assert_eq!(change(&again, &again), []);
    }

    #[tokio::test]
    async fn states_of_an_earlier_topic_of_the_name_and_of_partitions_that_are_not_there_mean_nothing()
     {
        let (_dir, store) = tree().await;
        let made = topic(7, 3);
        store.multi(create(&made)).await.unwrap();
        let other = led_by(&topic(8, 3), 1, 2);
        store.multi(change(&topic(8, 3), &other)).await.unwrap();
        assert_eq!(read(&store).await, Some(made.clone()));
        let more = led_by(&topic(7, 5), 4, 2);
        store.multi(change(&topic(7, 5), &more)).await.unwrap();
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
