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

/// Which slots get another owner so that all are with live brokers, evenly, and as few as possible move.
pub(super) fn deal_slots(owners: &[i32], live: &[i32]) -> Vec<(usize, i32)> {
    if live.is_empty() {
        return Vec::new();
    }
    let most = owners.len().div_ceil(live.len());
    let mut counts: BTreeMap<i32, usize> = live.iter().map(|id| (*id, 0)).collect();
    let mut homeless = Vec::new();
    for (slot, owner) in owners.iter().enumerate() {
        match counts.get_mut(owner) {
            Some(count) if *count < most => *count += 1,
            _ => homeless.push(slot),
        }
    }
    let mut moves = Vec::with_capacity(homeless.len());
    for slot in homeless {
        if let Some((id, count)) = counts.iter_mut().min_by_key(|(_, count)| **count) {
            *count += 1;
            moves.push((slot, *id));
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_go_to_live_brokers_evenly_and_no_more_move_than_must() {
        let after = |owners: &[i32], live: &[i32]| {
            let mut owners = owners.to_vec();
            let moves = deal_slots(&owners, live);
            for (slot, owner) in &moves {
                owners[*slot] = *owner;
            }
            (owners, moves.len())
        };
        let (one, moved) = after(&[-1; 64], &[0]);
        assert_eq!((moved, one.iter().all(|owner| *owner == 0)), (64, true));
        let (two, moved) = after(&one, &[0, 1]);
        assert_eq!(moved, 32);
        let (three, moved) = after(&two, &[0, 1, 2]);
        assert_eq!(moved, 20);
        assert_eq!(after(&three, &[0, 1, 2]).1, 0);
        let (left, moved) = after(&three, &[0, 2]);
        assert_eq!(moved, 22);
        assert_eq!(left.iter().filter(|owner| **owner == 2).count(), 32);
        assert_eq!(after(&three, &[]).1, 0);
    }

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
