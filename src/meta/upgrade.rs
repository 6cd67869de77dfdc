//! Brings a tree that an earlier version wrote to the form that this one reads, at start.
//!
//! Topics of version 1 had the state of their partitions in the topic's own node. Since version 2 the node has what the
//! topic is, and the state is in nodes of its own, where it is another one than at the beginning.

use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

use super::records::{
    AssignmentRecord, PartitionStateRecord, PartitionStatesRecord, RECORD_VERSION,
    TOPIC_RECORD_VERSION, TopicRecord, decode, encode,
};
use super::{MetaError, MetaStore, Node, Op, gather, paths};

/// `/brokers/topics/<topic>` of version 1.
#[derive(Deserialize)]
struct TopicRecord1 {
    version: u32,
    topic_id: Uuid,
    #[serde(default)]
    config: BTreeMap<String, String>,
    partitions: Vec<PartitionRecord1>,
}

#[derive(Deserialize)]
struct PartitionRecord1 {
    identity: String,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    leader: i32,
    leader_epoch: i32,
}

/// Rewrites the topics of version 1; how many there were. Several brokers may do it at the same time.
pub async fn upgrade_topics(store: &MetaStore) -> Result<usize, MetaError> {
    let mut upgraded = 0;
    loop {
        let nodes = store.subtree(paths::TOPICS).await?;
        let all: Vec<Vec<Op>> = nodes
            .iter()
            .filter_map(|(path, node)| upgraded_topic(path, node))
            .collect();
        if all.is_empty() {
            return Ok(upgraded);
        }
        for (topics, ops) in gather(all) {
            match store.multi(ops).await {
                Ok(()) => upgraded += topics,
                // Another broker is at it too.
                Err(MetaError::BadVersion(_) | MetaError::NoNode(_) | MetaError::NodeExists(_)) => {
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What brings a topic's node to version 2; `None` for any other node.
fn upgraded_topic(path: &str, node: &Node) -> Option<Vec<Op>> {
    let name = paths::topic_of(path).filter(|name| paths::topic(name) == path)?;
    let old: TopicRecord1 = decode(path, &node.data).ok()?;
    if old.version != 1 {
        return None;
    }
    let mut states: BTreeMap<i32, PartitionStatesRecord> = BTreeMap::new();
    let mut partitions = Vec::with_capacity(old.partitions.len());
    for (index, partition) in (0..).zip(old.partitions) {
        let is_initial = Some(&partition.leader) == partition.replicas.first()
            && partition.isr == partition.replicas;
        if !is_initial {
            let states =
                states
                    .entry(paths::first_beside(index))
                    .or_insert_with(|| PartitionStatesRecord {
                        version: RECORD_VERSION,
                        topic_id: old.topic_id,
                        partitions: BTreeMap::new(),
                    });
            let state = PartitionStateRecord {
                leader: partition.leader,
                leader_epoch: partition.leader_epoch,
                replicas: Vec::new(),
                isr: partition.isr,
                elr: Vec::new(),
                last_known_leader: None,
                adding: Vec::new(),
                removing: Vec::new(),
                left_on: Vec::new(),
                partition_epoch: 0,
            };
            states.partitions.insert(index, state);
        }
        partitions.push(AssignmentRecord {
            identity: partition.identity,
            replicas: partition.replicas,
            first_epoch: partition.leader_epoch,
        });
    }
    let record = TopicRecord {
        version: TOPIC_RECORD_VERSION,
        topic_id: old.topic_id,
        config: old.config,
        partition_count: None,
        partitions,
    };
    let mut ops = vec![Op::Set {
        path: path.to_owned(),
        data: encode(&record),
        version: Some(node.version),
    }];
    let states = states.into_iter().map(|(first, states)| {
        let path = paths::partition_states_from(&name, first);
        Op::put(path, encode(&states))
    });
    ops.extend(states);
    Some(ops)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"version":1,"topic_id":"00000000-0000-0000-0000-000000000007","config":{"retention.ms":"1"},
        "partitions":[{"identity":"0-0","replicas":[0],"isr":[0],"leader":0,"leader_epoch":0},
        {"identity":"1-0","replicas":[1,2],"isr":[2],"leader":2,"leader_epoch":5},
        {"identity":"0-1","replicas":[0],"isr":[0],"leader":0,"leader_epoch":3}]}"#;

    #[tokio::test]
    async fn a_topic_of_version_1_keeps_its_id_its_settings_and_its_epochs() {
        let dir = tempfile::tempdir().unwrap();
        let store = MetaStore::open_embedded(&dir.path().join("meta")).unwrap();
        let ops = vec![
            Op::put("/brokers/topics/a%2fb", OLD.into()),
            Op::put("/brokers/topics/broken", "no json".into()),
        ];
        store.multi(ops).await.unwrap();
        assert_eq!(upgrade_topics(&store).await.unwrap(), 1);
        let path = "/brokers/topics/a%2fb";
        let node = store.get(path).await.unwrap().unwrap();
        let record: TopicRecord = decode(path, &node.data).unwrap();
        assert_eq!(record.version, 2);
        assert_eq!(record.topic_id, Uuid::from_u128(7));
        assert_eq!(record.config["retention.ms"], "1");
        let epochs: Vec<i32> = record
            .partitions
            .iter()
            .map(|one| one.first_epoch)
            .collect();
        assert_eq!(epochs, [0, 5, 3]);
        let path = "/brokers/topics/a%2fb/partitions/0";
        let node = store.get(path).await.unwrap().unwrap();
        let states: PartitionStatesRecord = decode(path, &node.data).unwrap();
        // The others are as they began.
        assert_eq!(states.partitions.len(), 1);
        let state = &states.partitions[&1];
        assert_eq!((state.leader, state.leader_epoch), (2, 5));
        assert_eq!(state.isr, [2]);
        assert_eq!(upgrade_topics(&store).await.unwrap(), 0);
        let broken = store.get("/brokers/topics/broken").await.unwrap().unwrap();
        assert_eq!(&broken.data[..], b"no json");
    }
}
