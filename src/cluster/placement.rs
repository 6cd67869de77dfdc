//! Where new partitions go, and what they are called.

use std::collections::BTreeMap;

use super::image::Topic;
use crate::partition::Identity;

/// Numbers that identities of a topic have reached, by home broker.
#[derive(Debug, Clone, Default)]
pub(super) struct Identities(BTreeMap<i32, i32>);

impl Identities {
    pub(super) fn of(topic: &Topic) -> Self {
        let mut reached = BTreeMap::new();
        for info in &topic.partitions {
            let next = reached.entry(info.identity.broker_id).or_insert(0);
            *next = (*next).max(info.identity.number + 1);
        }
        Self(reached)
    }

    pub(super) fn next_of(&mut self, broker_id: i32) -> Identity {
        let next = self.0.entry(broker_id).or_insert(0);
        *next += 1;
        Identity {
            broker_id,
            number: *next - 1,
        }
    }
}

/// Deals partitions over brokers in runs: with brokers 0 and 1, ten partitions are 0-0 … 0-4, 1-0 … 1-4.
pub(super) fn spread(brokers: &[i32], partitions: usize) -> Vec<Vec<i32>> {
    (0..partitions)
        .map(|n| vec![brokers[n * brokers.len() / partitions]])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_dealt_in_runs() {
        let homes: Vec<i32> = spread(&[0, 1], 10)
            .into_iter()
            .map(|replicas| replicas[0])
            .collect();
        assert_eq!(homes, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
        assert_eq!(spread(&[7], 3), [[7], [7], [7]]);
    }
}
