//! Where new partitions go, and what they are called.

use std::collections::BTreeMap;

use super::image::{Broker, Image, PartitionInfo, Topic};
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

    /// Gives new partitions their identities: the home broker is the first replica. Those that are `active` are in sync.
    pub(super) fn deal(
        &mut self,
        replicas: &[Vec<i32>],
        active: impl Fn(i32) -> bool,
    ) -> Vec<PartitionInfo> {
        let deal_one = |replicas: &Vec<i32>| {
            let home = replicas.first().copied().unwrap_or(-1);
            PartitionInfo::begun(self.next_of(home), replicas.clone(), &active)
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

/// A broker that takes replicas of new partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Where it stands; those that say nothing stand together.
    rack: Option<String>,
    /// Whether it takes messages and is not drained: such a one leads new partitions, and any other comes last among their
    /// replicas.
    takes_messages: bool,
    /// Partitions that it leads.
    led: usize,
    /// Partitions that it keeps.
    kept: usize,
}

impl Host {
    pub(super) fn of(broker: &Broker, image: &Image) -> (i32, Self) {
        let host = Self {
            rack: broker.rack.clone(),
            takes_messages: image.leads_willingly(broker.id),
            ..Self::default()
        };
        (broker.id, host)
    }
}

/// What each of the brokers has that take new partitions.
#[derive(Debug, Clone, Default)]
pub(super) struct Load {
    hosts: BTreeMap<i32, Host>,
    /// How often a broker is the second replica where another is the first: it is the one that leads when that dies, and no
    /// broker shall inherit all that another one led.
    heirs: BTreeMap<(i32, i32), usize>,
}

impl Load {
    /// Of brokers that take new partitions; where none of them takes messages, all lead.
    pub(super) fn of(hosts: impl IntoIterator<Item = (i32, Host)>, image: &Image) -> Self {
        let mut load = Self {
            hosts: hosts.into_iter().collect(),
            heirs: BTreeMap::new(),
        };
        if !load.hosts.values().any(|host| host.takes_messages) {
            let all = load.hosts.values_mut();
            all.for_each(|host| host.takes_messages = true);
        }
        for info in image.topics().flat_map(|topic| &topic.partitions) {
            if let Some(host) = load.hosts.get_mut(&info.leader) {
                host.led += 1;
            }
            load.keep(&info.replicas);
        }
        load
    }

    fn keep(&mut self, replicas: &[i32]) {
        for id in replicas {
            if let Some(host) = self.hosts.get_mut(id) {
                host.kept += 1;
            }
        }
        if let [first, second, ..] = replicas {
            *self.heirs.entry((*first, *second)).or_default() += 1;
        }
    }

    /// How many brokers can keep a replica.
    pub(super) fn brokers(&self) -> usize {
        self.hosts.len()
    }

    /// How many of them lead new partitions, one at the least.
    pub(super) fn leaders(&self) -> usize {
        let leaders = self.hosts.values().filter(|host| host.takes_messages);
        leaders.count().max(1)
    }

    /// Deals the first replicas of partitions evenly and in runs: with brokers 0 and 1, ten partitions are 0-0 … 0-4, 1-0 …
    /// 1-4. Those that are left over go to the brokers that lead the fewest. The other replicas are spread over racks and
    /// brokers as evenly as can be (the properties of Kafka's StripedReplicaPlacer). Of no more replicas than there are
    /// brokers.
    pub(super) fn deal(&mut self, partitions: usize, factor: usize) -> Vec<Vec<i32>> {
        let runs = self.deal_first(partitions);
        let longest = runs.iter().map(|(_, length)| *length).max();
        let mut dealt: Vec<Vec<Vec<i32>>> = vec![Vec::new(); runs.len()];
        let mut taken = Taken::default();
        // Across the runs, so that each broker gets its share of the others' before the last of its own are dealt.
        for n in 0..longest.unwrap_or(0) {
            for (of_run, (first, length)) in dealt.iter_mut().zip(&runs) {
                if n < *length {
                    let replicas = self.replicas_after(*first, factor, &mut taken);
                    self.keep(&replicas);
                    of_run.push(replicas);
                }
            }
        }
        dealt.into_iter().flatten().collect()
    }

    /// How many of some partitions each broker leads, in the order of their numbers.
    fn deal_first(&mut self, partitions: usize) -> Vec<(i32, usize)> {
        let count = self.leaders();
        let leaders = self.hosts.iter_mut();
        let mut leaders: Vec<(&i32, &mut Host)> =
            leaders.filter(|(_, host)| host.takes_messages).collect();
        leaders.sort_by_key(|(id, host)| (host.led, **id));
        let mut runs = Vec::with_capacity(leaders.len());
        for (n, (id, host)) in leaders.into_iter().enumerate() {
            let own = partitions / count + usize::from(n < partitions % count);
            host.led += own;
            runs.push((*id, own));
        }
        runs.sort_unstable();
        runs
    }

    /// A partition's replicas, the first of which is given.
    fn replicas_after(&self, first: i32, factor: usize, taken: &mut Taken) -> Vec<i32> {
        let rack_of = |id: i32| self.hosts.get(&id).and_then(|host| host.rack.as_deref());
        let mut others: Vec<i32> = Vec::with_capacity(factor.saturating_sub(1));
        while others.len() + 1 < factor {
            let beside = |rack: Option<&str>| {
                let replicas = others.iter().chain([&first]);
                replicas.filter(|id| rack_of(**id) == rack).count()
            };
            let free = self.hosts.iter();
            let free = free.filter(|(id, _)| **id != first && !others.contains(id));
            let next = free.min_by_key(|(id, host)| {
                let rack = beside(host.rack.as_deref());
                (rack, taken.of(first, **id), host.kept, **id)
            });
            let Some((id, _)) = next else {
                break;
            };
            taken.take(first, *id);
            others.push(*id);
        }
        others.sort_by_key(|id| {
            let comes_last = self.hosts.get(id).is_some_and(|host| !host.takes_messages);
            let inherits = self.heirs.get(&(first, *id)).copied().unwrap_or(0);
            (comes_last, inherits, *id)
        });
        [first].into_iter().chain(others).collect()
    }
}

/// Replicas of one topic that brokers have got, the first ones not counted.
#[derive(Default)]
struct Taken {
    /// By the first replica and the broker.
    beside: BTreeMap<(i32, i32), usize>,
    by_broker: BTreeMap<i32, usize>,
}

impl Taken {
    /// How many a broker has, and how many of those that another one leads.
    fn of(&self, first: i32, id: i32) -> (usize, usize) {
        let beside = self.beside.get(&(first, id)).copied();
        let all = self.by_broker.get(&id).copied();
        (all.unwrap_or(0), beside.unwrap_or(0))
    }

    fn take(&mut self, first: i32, id: i32) {
        *self.beside.entry((first, id)).or_default() += 1;
        *self.by_broker.entry(id).or_default() += 1;
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
    use std::collections::BTreeSet;

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

    /// Brokers, each with its rack.
    fn hosts(racks: &[(i32, Option<&str>)]) -> Vec<(i32, Host)> {
        let host = |(id, rack): &(i32, Option<&str>)| {
            let rack = rack.map(str::to_owned);
            let host = Host {
                rack,
                takes_messages: true,
                ..Host::default()
            };
            (*id, host)
        };
        racks.iter().map(host).collect()
    }

    fn load(ids: &[i32]) -> Load {
        let racks: Vec<(i32, Option<&str>)> = ids.iter().map(|id| (*id, None)).collect();
        Load::of(hosts(&racks), &Image::default())
    }

    fn homes(load: &mut Load, partitions: usize) -> Vec<i32> {
        let dealt = load.deal(partitions, 1).into_iter();
        dealt.map(|replicas| replicas[0]).collect()
    }

    #[test]
    fn partitions_are_dealt_in_runs() {
        assert_eq!(
            homes(&mut load(&[0, 1]), 10),
            [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
        );
        assert_eq!(homes(&mut load(&[7]), 3), [7, 7, 7]);
    }

    #[test]
    fn what_cannot_be_dealt_evenly_goes_to_who_leads_the_fewest() {
        let mut load = load(&[0, 1, 2]);
        let one_each: Vec<Vec<i32>> = (0..4).map(|_| homes(&mut load, 1)).collect();
        assert_eq!(one_each, [[0], [1], [2], [0]]);
        assert_eq!(homes(&mut load, 4), [0, 1, 1, 2]);
        assert_eq!(homes(&mut load, 2), [0, 2]);
        assert_eq!(load.deal(0, 1), Vec::<Vec<i32>>::new());
        assert_eq!(Load::default().deal(3, 1), Vec::<Vec<i32>>::new());
    }

    #[test]
    fn a_broker_that_takes_no_messages_leads_nothing_new_and_comes_last() {
        let mut all = hosts(&[(0, None), (1, None), (2, None)]);
        all[0].1.takes_messages = false;
        let dealt = Load::of(all.clone(), &Image::default()).deal(4, 3);
        assert_eq!(dealt, [[1, 2, 0], [1, 2, 0], [2, 1, 0], [2, 1, 0]]);
        let refusing = |(id, host): &(i32, Host)| {
            let takes_messages = false;
            let host = Host {
                takes_messages,
                ..host.clone()
            };
            (*id, host)
        };
        let mut none = Load::of(all.iter().map(refusing), &Image::default());
        assert_eq!(homes(&mut none, 3), [0, 1, 2]);
    }

    /// How often each broker of a placement stands at a position, or at any.
    fn counts(dealt: &[Vec<i32>], at: Option<usize>) -> BTreeMap<i32, usize> {
        let mut counts = BTreeMap::new();
        for replicas in dealt {
            let counted = replicas.iter().enumerate();
            for (_, id) in counted.filter(|(n, _)| at.is_none_or(|at| at == *n)) {
                *counts.entry(*id).or_default() += 1;
            }
        }
        counts
    }

    fn spread(counts: &BTreeMap<i32, usize>, brokers: usize) -> usize {
        let least = match counts.len() < brokers {
            true => 0,
            false => counts.values().copied().min().unwrap_or(0),
        };
        counts.values().copied().max().unwrap_or(0) - least
    }

    #[test]
    fn replicas_are_spread_evenly_over_brokers_and_racks() {
        for brokers in 1..10_usize {
            for racks in [1, 2, 3, 5] {
                let all: Vec<(i32, Option<String>)> = (0..brokers)
                    .map(|id| (id as i32, Some(format!("r{}", id % racks))))
                    .collect();
                let all: Vec<(i32, Option<&str>)> = all
                    .iter()
                    .map(|(id, rack)| (*id, rack.as_deref()))
                    .collect();
                for factor in 1..=brokers.min(4) {
                    for partitions in [1, 2, 7, 30, 100] {
                        let mut load = Load::of(hosts(&all), &Image::default());
                        let dealt = load.deal(partitions, factor);
                        check(&dealt, &all, partitions, factor, racks);
                    }
                }
            }
        }
    }

    fn check(
        dealt: &[Vec<i32>],
        all: &[(i32, Option<&str>)],
        partitions: usize,
        factor: usize,
        racks: usize,
    ) {
        let what = format!("{} on {racks} racks, {partitions} x {factor}", all.len());
        assert_eq!(dealt.len(), partitions, "{what}");
        let used = racks.min(all.len());
        for replicas in dealt {
            let different: BTreeSet<&i32> = replicas.iter().collect();
            assert_eq!(different.len(), factor, "{what}: {replicas:?}");
            let of: BTreeSet<usize> = replicas.iter().map(|id| *id as usize % racks).collect();
            assert_eq!(of.len(), factor.min(used), "{what}: {replicas:?}");
        }
        assert!(spread(&counts(dealt, Some(0)), all.len()) <= 1, "{what}");
        if all.len().is_multiple_of(racks) {
            let kept = counts(dealt, None);
            assert!(spread(&kept, all.len()) <= 2, "{what}: {kept:?}");
        }
    }

    #[test]
    fn what_a_broker_led_has_many_heirs() {
        let dealt = load(&[0, 1, 2, 3]).deal(120, 3);
        for first in 0..4 {
            let led = dealt.iter().filter(|replicas| replicas[0] == first);
            let led: Vec<Vec<i32>> = led.cloned().collect();
            let heirs = counts(&led, Some(1));
            assert_eq!(heirs.len(), 3, "{first}: {heirs:?}");
            assert!(spread(&heirs, 3) <= 2, "{first}: {heirs:?}");
        }
        // Of topics that are made one after the other, too.
        let mut load = load(&[0, 1, 2]);
        let one_each: Vec<Vec<i32>> = (0..6).flat_map(|_| load.deal(1, 3)).collect();
        let heirs: BTreeSet<(i32, i32)> = one_each.iter().map(|all| (all[0], all[1])).collect();
        assert_eq!(heirs.len(), 6, "{one_each:?}");
    }
}
