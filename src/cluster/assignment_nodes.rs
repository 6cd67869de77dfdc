//! What the partitions of a large topic are, in nodes of a thousand each: a topic's own node would be too large (pure).
//!
//! A topic whose node has room for its partitions has them there, as earlier versions read it. One that does not is written by this
//! version only, where earlier ones could not have made it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::image::{PartitionInfo, Topic, parse_identity};
use crate::meta::records::{AssignmentsRecord, RECORD_VERSION, decode, encode};
use crate::meta::{MetaError, Node, paths};
use crate::partition::Identity;

/// What a topic's node may hold, bytes: a write takes 512 KiB, and has a few more nodes.
pub(super) const TOPIC_NODE_BYTES_MAX: usize = 480 << 10;

/// The nodes of a topic's partitions, with their contents.
pub(super) fn assignments_of(topic: &Topic) -> Vec<(String, Bytes)> {
    let chunk = paths::ASSIGNMENTS_A_NODE as usize;
    let nodes = topic.partitions.chunks(chunk).enumerate();
    let nodes = nodes.map(|(n, infos)| {
        let first = n * chunk;
        let path = paths::assignments_from(&topic.name, first as i32);
        (path, encode(&record_of(topic, first, infos)))
    });
    nodes.collect()
}

fn record_of(topic: &Topic, first: usize, infos: &[PartitionInfo]) -> AssignmentsRecord {
    let mut record = AssignmentsRecord {
        version: RECORD_VERSION,
        topic_id: topic.id,
        replicas: Vec::with_capacity(infos.len()),
        numbers: BTreeMap::new(),
        identities: BTreeMap::new(),
        first_epochs: BTreeMap::new(),
    };
    let mut next: BTreeMap<i32, i32> = BTreeMap::new();
    for (index, info) in (first as i32..).zip(infos) {
        let Identity { broker_id, number } = info.identity;
        let replicas = match info.is_as_it_began() {
            true => info.replicas.clone(),
            false => vec![broker_id],
        };
        record.numbers.entry(broker_id).or_insert(number);
        let counted = next.get(&broker_id).copied().unwrap_or(number);
        if replicas.first() != Some(&broker_id) || counted != number {
            record.identities.insert(index, info.identity.to_string());
        }
        next.insert(broker_id, number + 1);
        record.replicas.push(replicas);
        if info.first_epoch != 0 {
            record.first_epochs.insert(index, info.first_epoch);
        }
    }
    record
}

/// A large topic's partitions as they began, from its nodes by their paths.
pub(super) fn partitions_from(
    topic: &Topic,
    count: i32,
    nodes: &BTreeMap<String, Node>,
) -> Result<Vec<PartitionInfo>, MetaError> {
    let mut partitions = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    for first in (0..count).step_by(paths::ASSIGNMENTS_A_NODE as usize) {
        let path = paths::assignments_from(&topic.name, first);
        let node = nodes
            .get(&path)
            .ok_or_else(|| MetaError::NoNode(path.clone()))?;
        let record: AssignmentsRecord = decode(&path, &node.data)?;
        let malformed = |what: &str| MetaError::Malformed {
            path: path.clone(),
            what: what.to_owned(),
        };
        if record.topic_id != topic.id {
            return Err(malformed("of another topic of that name"));
        }
        // More than the topic has by its own node are on their way.
        let here = (count - first).min(paths::ASSIGNMENTS_A_NODE) as usize;
        if record.replicas.len() < here {
            return Err(malformed("too few partitions"));
        }
        let mut next = record.numbers;
        for (index, replicas) in (first..).zip(record.replicas).take(here) {
            let counted = || {
                let broker_id = *replicas.first()?;
                let number = *next.get(&broker_id)?;
                Some(Identity { broker_id, number })
            };
            let identity = match record.identities.get(&index) {
                Some(other) => parse_identity(other),
                None => counted(),
            };
            let identity = identity.ok_or_else(|| malformed("no identity"))?;
            next.insert(identity.broker_id, identity.number.saturating_add(1));
            let first_epoch = record.first_epochs.get(&index).copied().unwrap_or(0);
            partitions.push(PartitionInfo::new(identity, replicas, first_epoch));
        }
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::config::TopicOverrides;

    /// Partitions with these identities, each kept by its home and by broker 7.
    fn topic(identities: &[(i32, i32)]) -> Topic {
        let info = |(broker_id, number): &(i32, i32)| {
            let identity = Identity {
                broker_id: *broker_id,
                number: *number,
            };
            PartitionInfo::new(identity, vec![*broker_id, 7], 0)
        };
        Topic {
            name: "t".into(),
            id: Uuid::from_u128(3),
            overrides: TopicOverrides::default(),
            partitions: identities.iter().map(info).collect(),
        }
    }

    fn nodes(topic: &Topic) -> BTreeMap<String, Node> {
        let node = |(path, data): (String, Bytes)| {
            let node = Node {
                data,
                version: 0,
                ephemeral: false,
            };
            (path, node)
        };
        assignments_of(topic).into_iter().map(node).collect()
    }

    #[test]
    fn identities_are_counted_and_read_as_they_were() {
        let mut written = topic(&[(0, 4), (1, 0), (0, 5), (1, 1), (0, 8), (0, 9)]);
        let other = &mut written.partitions[2];
        (other.first_epoch, other.leader_epoch) = (9, 9);
        // As one that was found: another broker keeps it.
        written.partitions[3].replicas = vec![7];
        let known = PartitionInfo::new(written.partitions[3].identity, vec![7], 0);
        written.partitions[3] = known;
        let nodes = nodes(&written);
        let text = &nodes["/brokers/topics/t/assignments/0"].data;
        let text = std::str::from_utf8(text).unwrap();
        let expected = r#""replicas":[[0,7],[1,7],[0,7],[7],[0,7],[0,7]],"numbers":{"0":4,"1":0},"identities":{"3":"1-1","4":"0-8"},"first_epochs":{"2":9}}"#;
        assert!(text.ends_with(expected), "{text}");
        let read = |topic: &Topic, count| partitions_from(topic, count, &nodes);
        assert_eq!(read(&written, 6).unwrap(), written.partitions);
        // More are on their way than the topic's own node says.
        assert_eq!(read(&written, 2).unwrap(), written.partitions[..2]);
        assert!(read(&written, 7).is_err());
        let other = Topic {
            id: Uuid::from_u128(4),
            ..written.clone()
        };
        assert!(read(&other, 6).is_err());
        assert!(partitions_from(&written, 6, &BTreeMap::new()).is_err());
    }

    #[test]
    fn of_a_partition_with_a_state_of_its_own_the_home_is_told_alone() {
        let mut written = topic(&[(0, 0), (1, 0)]);
        written.partitions[1].replicas = vec![7, 8, 9];
        written.partitions[1].change_state(7, vec![7]);
        let nodes = nodes(&written);
        let read = partitions_from(&written, 2, &nodes).unwrap();
        assert_eq!(read[0], written.partitions[0]);
        assert_eq!(read[1].identity, written.partitions[1].identity);
        assert_eq!(read[1].replicas, [1]);
    }
}
