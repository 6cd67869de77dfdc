//! Where new partitions go, and what they are called.

use std::collections::{BTreeMap, BTreeSet};

use super::image::{Image, PartitionInfo, Topic};
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

    /// Gives new partitions their identities: the home broker is the first replica.
    pub(super) fn deal(&mut self, replicas: &[Vec<i32>]) -> Vec<PartitionInfo> {
        let deal_one = |replicas: &Vec<i32>| {
            let home = replicas.first().copied().unwrap_or(-1);
            PartitionInfo::new(self.next_of(home), replicas.clone(), 0)
        };
        replicas.iter().map(deal_one).collect()
    }

    fn next_of(&mut self, broker_id: i32) -> Identity {
        let next = self.0.entry(broker_id).or_insert(0);
        *next += 1;
        Identity {
            broker_id,
            number: *next - 1,
        }
    }
}

/// Partitions that each of some brokers leads.
#[derive(Debug, Clone, Default)]
pub(super) struct Load(BTreeMap<i32, usize>);

impl Load {
    /// Of brokers that take new partitions.
    pub(super) fn of(brokers: &[i32], image: &Image) -> Self {
        let mut led: BTreeMap<i32, usize> = brokers.iter().map(|id| (*id, 0)).collect();
        for info in image.topics().flat_map(|topic| &topic.partitions) {
            if let Some(count) = led.get_mut(&info.leader) {
                *count += 1;
            }
        }
        Self(led)
    }

    /// How many brokers there are, one at the least.
    pub(super) fn brokers(&self) -> usize {
        self.0.len().max(1)
    }

    /// Deals partitions evenly and in runs: with brokers 0 and 1, ten partitions are 0-0 … 0-4, 1-0 … 1-4. Those that
    /// are left over go to the brokers that lead the fewest.
    pub(super) fn deal(&mut self, partitions: usize) -> Vec<Vec<i32>> {
        let brokers = self.brokers();
        let mut by_load: Vec<(usize, i32)> = self.0.iter().map(|(id, led)| (*led, *id)).collect();
        by_load.sort_unstable();
        let more: BTreeSet<i32> = by_load
            .into_iter()
            .take(partitions % brokers)
            .map(|(_, id)| id)
            .collect();
        let mut dealt = Vec::with_capacity(partitions);
        for (id, led) in &mut self.0 {
            let own = partitions / brokers + usize::from(more.contains(id));
            *led += own;
            dealt.extend(std::iter::repeat_n(vec![*id], own));
        }
        dealt
    }
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

    fn homes(load: &mut Load, partitions: usize) -> Vec<i32> {
        let dealt = load.deal(partitions).into_iter();
        dealt.map(|replicas| replicas[0]).collect()
    }

    #[test]
    fn partitions_are_dealt_in_runs() {
        let mut load = Load::of(&[0, 1], &Image::default());
        assert_eq!(homes(&mut load, 10), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
        let mut load = Load::of(&[7], &Image::default());
        assert_eq!(homes(&mut load, 3), [7, 7, 7]);
    }

    #[test]
    fn what_cannot_be_dealt_evenly_goes_to_who_leads_the_fewest() {
        let mut load = Load::of(&[0, 1, 2], &Image::default());
        let one_each: Vec<Vec<i32>> = (0..4).map(|_| homes(&mut load, 1)).collect();
        assert_eq!(one_each, [[0], [1], [2], [0]]);
        assert_eq!(homes(&mut load, 4), [0, 1, 1, 2]);
        assert_eq!(homes(&mut load, 2), [0, 2]);
        assert_eq!(load.deal(0), Vec::<Vec<i32>>::new());
        assert_eq!(Load::default().deal(3), Vec::<Vec<i32>>::new());
    }
}
