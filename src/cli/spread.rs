//! Which brokers are to keep which partitions, and to lead them: over racks, then evenly, with little to copy (pure). It goes step
//! by step: now and then a replica more is copied than the least there could be.
//!
//! Replicas are spread first: each partition over as many racks as it can be, then as many on each broker as on any other. Then
//! the first replicas, which lead: that is only an order of those that are there. Partitions count alike, however large they are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A broker that replicas may go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Those that say nothing stand together.
    pub(super) rack: Option<String>,
    /// Whether it leads where another one could: it is not drained, and takes messages.
    pub(super) leads: bool,
    /// What it keeps of partitions that are not planned for: of two brokers alike the one with less gets more.
    pub(super) kept: usize,
}

/// Brokers that replicas may go to, by id.
pub(super) type Hosts = BTreeMap<i32, Host>;

/// The brokers of each partition as they are to be, the one that is to lead first. `factor` is how many each is to have; as many as it
/// has where it is not given, and no more than there are brokers.
pub(super) fn spread(
    hosts: &Hosts,
    partitions: &[Vec<i32>],
    factor: Option<usize>,
) -> Vec<Vec<i32>> {
    let mut plan = Plan::of(hosts, partitions);
    for (n, before) in partitions.iter().enumerate() {
        plan.resize(n, factor.unwrap_or(before.len()).min(hosts.len()));
    }
    (0..partitions.len()).for_each(|n| plan.spread_over_racks(n));
    plan.even_out();
    plan.choose_leaders();
    plan.partitions
}

struct Plan<'a> {
    hosts: &'a Hosts,
    partitions: Vec<Vec<i32>>,
    /// Partitions by the brokers that keep them.
    kept: BTreeMap<i32, BTreeSet<usize>>,
    /// Those of them that are copied there by the plan: where they go costs nothing more.
    copied: BTreeMap<i32, BTreeSet<usize>>,
}

impl<'a> Plan<'a> {
    /// As it is, but for replicas on brokers that may keep none.
    fn of(hosts: &'a Hosts, partitions: &[Vec<i32>]) -> Self {
        let mut kept: BTreeMap<i32, BTreeSet<usize>> =
            hosts.keys().map(|id| (*id, BTreeSet::new())).collect();
        let mut left = Vec::with_capacity(partitions.len());
        for (n, replicas) in partitions.iter().enumerate() {
            let replicas = replicas.iter().filter(|id| hosts.contains_key(id));
            let replicas: Vec<i32> = replicas.copied().collect();
            for id in &replicas {
                kept.entry(*id).or_default().insert(n);
            }
            left.push(replicas);
        }
        Self {
            hosts,
            partitions: left,
            kept,
            copied: BTreeMap::new(),
        }
    }

    fn rack(&self, id: i32) -> Option<&str> {
        self.hosts.get(&id).and_then(|host| host.rack.as_deref())
    }

    fn count(&self, id: i32) -> usize {
        self.kept.get(&id).map_or(0, BTreeSet::len)
    }

    /// What a broker has: of what is planned, and of all.
    fn load(&self, id: i32) -> (usize, usize) {
        let count = self.count(id);
        (
            count,
            count + self.hosts.get(&id).map_or(0, |host| host.kept),
        )
    }

    /// How many of a partition's replicas stand in a rack, without one of them.
    fn beside(&self, n: usize, rack: Option<&str>, without: Option<i32>) -> usize {
        let others = self.partitions[n].iter().filter(|id| Some(**id) != without);
        others.filter(|id| self.rack(**id) == rack).count()
    }

    /// Whether somebody would lead a partition, without one of its replicas and with another broker: none keeps it alone that leads only
    /// what no other one can, or never.
    fn is_led(&self, n: usize, without: Option<i32>, with: Option<i32>) -> bool {
        let leads = |id: i32| self.hosts.get(&id).is_some_and(|host| host.leads);
        let replicas = self.partitions[n].iter().copied();
        let mut rest = replicas.filter(|id| Some(*id) != without).chain(with);
        rest.any(leads) || !self.hosts.values().any(|host| host.leads)
    }

    /// Brokers that do not keep a partition.
    fn free(&self, n: usize) -> impl Iterator<Item = i32> {
        let replicas = &self.partitions[n];
        let ids = self.hosts.keys().copied();
        ids.filter(move |id| !replicas.contains(id))
    }

    fn add(&mut self, n: usize, id: i32) {
        self.partitions[n].push(id);
        self.kept.entry(id).or_default().insert(n);
        self.copied.entry(id).or_default().insert(n);
    }

    fn remove(&mut self, n: usize, id: i32) {
        self.partitions[n].retain(|known| *known != id);
        self.kept.entry(id).or_default().remove(&n);
    }

    /// One replica goes where another one was, in its place.
    fn replace(&mut self, n: usize, from: i32, to: i32) {
        for known in &mut self.partitions[n] {
            if *known == from {
                *known = to;
            }
        }
        self.kept.entry(from).or_default().remove(&n);
        self.copied.entry(from).or_default().remove(&n);
        self.kept.entry(to).or_default().insert(n);
        self.copied.entry(to).or_default().insert(n);
    }

    fn resize(&mut self, n: usize, factor: usize) {
        while self.partitions[n].len() < factor {
            let place = |id: &i32| {
                let is_left_alone = !self.is_led(n, None, Some(*id));
                let beside = self.beside(n, self.rack(*id), None);
                (is_left_alone, beside, self.load(*id), *id)
            };
            let Some(id) = self.free(n).min_by_key(place) else {
                return;
            };
            self.add(n, id);
        }
        while self.partitions[n].len() > factor {
            // The first stays as long as there is another one like it.
            let place = |(at, id): &(usize, i32)| {
                let others_lead = self.is_led(n, Some(*id), None);
                let beside = self.beside(n, self.rack(*id), None);
                (others_lead, beside, self.load(*id), *at)
            };
            let replicas = self.partitions[n].iter().copied().enumerate();
            let Some((_, id)) = replicas.max_by_key(place) else {
                return;
            };
            self.remove(n, id);
        }
    }

    /// Moves replicas that stand beside another one into racks that have none.
    fn spread_over_racks(&mut self, n: usize) {
        loop {
            let doubled = self.partitions[n].iter().copied();
            let doubled = doubled.filter(|id| self.beside(n, self.rack(*id), Some(*id)) > 0);
            let goes = doubled.max_by_key(|id| self.load(*id));
            let free = self.free(n);
            let free = free.filter(|id| {
                self.beside(n, self.rack(*id), None) == 0 && self.is_led(n, goes, Some(*id))
            });
            let comes = free.min_by_key(|id| (self.load(*id), *id));
            let (Some(goes), Some(comes)) = (goes, comes) else {
                return;
            };
            self.replace(n, goes, comes);
        }
    }

    /// Moves replicas from brokers with many to brokers with few, as long as that makes them more even.
    fn even_out(&mut self) {
        while self.move_one() {}
    }

    fn move_one(&mut self) -> bool {
        let mut ids: Vec<i32> = self.hosts.keys().copied().collect();
        ids.sort_by_key(|id| (self.load(*id), *id));
        for from in ids.iter().rev() {
            for to in &ids {
                if self.count(*to) + 2 > self.count(*from) {
                    break;
                }
                if let Some(n) = self.movable(*from, *to) {
                    self.replace(n, *from, *to);
                    return true;
                }
            }
        }
        false
    }

    /// A partition that can go from one broker to another one and stands in as many racks then: one that is copied anyway, or that
    /// others lead, where there is one.
    fn movable(&self, from: i32, to: i32) -> Option<usize> {
        let to_rack = self.rack(to);
        let is_in_same = self.rack(from) == to_rack;
        let can_go = |n: &usize| {
            let replicas = &self.partitions[*n];
            let keeps_racks = || {
                is_in_same
                    || self.beside(*n, to_rack, Some(from)) == 0
                    || self.beside(*n, self.rack(from), Some(from)) > 0
            };
            !replicas.contains(&to) && keeps_racks() && self.is_led(*n, Some(from), Some(to))
        };
        let copied = self.copied.get(&from).into_iter().flatten().copied();
        if let Some(n) = copied.into_iter().find(can_go) {
            return Some(n);
        }
        let of_from = self.kept.get(&from)?;
        let mut found = None;
        for n in of_from.iter().copied().filter(can_go) {
            if self.partitions[n].first() != Some(&from) {
                return Some(n);
            }
            found = found.or(Some(n));
        }
        found
    }

    /// Puts another replica first where that makes the brokers lead more evenly. Those that lead unwillingly come last.
    fn choose_leaders(&mut self) {
        let leads = |id: &i32| self.hosts.get(id).is_some_and(|host| host.leads);
        let mut led: Led = self
            .hosts
            .keys()
            .filter(|id| leads(id))
            .map(|id| (*id, BTreeSet::new()))
            .collect();
        for (n, replicas) in self.partitions.iter_mut().enumerate() {
            replicas.sort_by_key(|id| !leads(id));
            if let Some(of_first) = replicas.first().and_then(|first| led.get_mut(first)) {
                of_first.insert(n);
            }
        }
        while let Some(path) = leader_path(&self.partitions, &led) {
            for (n, to) in path {
                let replicas = &mut self.partitions[n];
                if let Some(of_first) = replicas.first().and_then(|first| led.get_mut(first)) {
                    of_first.remove(&n);
                }
                led.entry(to).or_default().insert(n);
                replicas.retain(|id| *id != to);
                replicas.insert(0, to);
            }
        }
    }
}

/// The partitions that each broker leads, of those that lead willingly.
type Led = BTreeMap<i32, BTreeSet<usize>>;

/// Partitions, each with its next leader, that take one from a broker that leads two more than another one, and give that one more.
fn leader_path(partitions: &[Vec<i32>], led: &Led) -> Option<Vec<(usize, i32)>> {
    let mut most: Vec<i32> = led.keys().copied().collect();
    most.sort_by_key(|id| std::cmp::Reverse(led[id].len()));
    most.into_iter().find_map(|from| way(partitions, led, from))
}

/// The shortest way from a broker, by partitions that another replica could lead, to one that leads two fewer.
fn way(partitions: &[Vec<i32>], led: &Led, from: i32) -> Option<Vec<(usize, i32)>> {
    let most = led[&from].len();
    if led.values().all(|of_one| of_one.len() + 2 > most) {
        return None;
    }
    let mut came: BTreeMap<i32, (i32, usize)> = BTreeMap::new();
    let mut next = VecDeque::from([from]);
    while let Some(id) = next.pop_front() {
        for n in &led[&id] {
            for other in &partitions[*n] {
                let of_other = led.get(other).map(BTreeSet::len);
                let Some(of_other) = of_other.filter(|_| *other != from) else {
                    continue;
                };
                if came.contains_key(other) {
                    continue;
                }
                came.insert(*other, (id, *n));
                if of_other + 2 <= most {
                    return Some(traced(&came, from, *other));
                }
                next.push_back(*other);
            }
        }
    }
    None
}

fn traced(came: &BTreeMap<i32, (i32, usize)>, from: i32, to: i32) -> Vec<(usize, i32)> {
    let (mut path, mut at) = (Vec::new(), to);
    while at != from {
        let Some((before, n)) = came.get(&at) else {
            return path;
        };
        path.push((*n, at));
        at = *before;
    }
    path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hosts(racks: &[(i32, Option<usize>)]) -> Hosts {
        let host = |(id, rack): &(i32, Option<usize>)| {
            let host = Host {
                rack: rack.map(|rack| format!("r{rack}")),
                leads: true,
                kept: 0,
            };
            (*id, host)
        };
        racks.iter().map(host).collect()
    }

    fn alike(ids: std::ops::Range<i32>) -> Hosts {
        hosts(&ids.map(|id| (id, None)).collect::<Vec<_>>())
    }

    fn counts(hosts: &Hosts, partitions: &[Vec<i32>], at: Option<usize>) -> BTreeMap<i32, usize> {
        let mut counts: BTreeMap<i32, usize> = hosts.keys().map(|id| (*id, 0)).collect();
        for replicas in partitions {
            let counted = replicas.iter().enumerate();
            for (_, id) in counted.filter(|(n, _)| at.is_none_or(|at| at == *n)) {
                *counts.entry(*id).or_default() += 1;
            }
        }
        counts
    }

    fn difference(counts: &BTreeMap<i32, usize>) -> usize {
        let most = counts.values().max().copied().unwrap_or(0);
        most - counts.values().min().copied().unwrap_or(0)
    }

    /// How many replicas have to be copied.
    fn copied(before: &[Vec<i32>], after: &[Vec<i32>]) -> usize {
        let new = |(before, after): (&Vec<i32>, &Vec<i32>)| {
            after.iter().filter(|id| !before.contains(id)).count()
        };
        before.iter().zip(after).map(new).sum()
    }

    #[test]
    fn a_new_broker_gets_its_share_and_no_more_is_copied() {
        let before: Vec<Vec<i32>> = (0..30).map(|n| vec![n % 3, (n + 1) % 3]).collect();
        let after = spread(&alike(0..4), &before, None);
        let all = counts(&alike(0..4), &after, None);
        assert_eq!(all.values().copied().collect::<Vec<_>>(), [15, 15, 15, 15]);
        assert_eq!(copied(&before, &after), 15);
        assert!(difference(&counts(&alike(0..4), &after, Some(0))) <= 1);
        // What is even is left alone.
        assert_eq!(spread(&alike(0..3), &before, None), before);
    }

    #[test]
    fn replicas_are_added_where_there_are_few_and_taken_away_where_there_are_many() {
        let before = vec![vec![0], vec![0], vec![1], vec![1]];
        let three = spread(&alike(0..4), &before, Some(3));
        let all = counts(&alike(0..4), &three, None);
        // Eight are new; one more goes where that makes it even.
        assert_eq!((difference(&all), copied(&before, &three)), (0, 9));
        let one = spread(&alike(0..4), &three, Some(1));
        assert_eq!(copied(&three, &one), 0);
        assert_eq!(difference(&counts(&alike(0..4), &one, None)), 0);
        // No more than there are brokers.
        let most = spread(&alike(0..2), &before, Some(5));
        assert!(most.iter().all(|replicas| replicas.len() == 2));
    }

    #[test]
    fn brokers_that_are_not_named_keep_nothing() {
        let before: Vec<Vec<i32>> = (0..12).map(|n| vec![n % 3, (n + 1) % 3]).collect();
        let after = spread(&alike(1..4), &before, None);
        let all = counts(&alike(1..4), &after, None);
        assert_eq!(all, BTreeMap::from([(1, 8), (2, 8), (3, 8)]));
        assert_eq!(copied(&before, &after), 8);
    }

    #[test]
    fn a_partition_stands_in_as_many_racks_as_it_can() {
        let two = hosts(&[(0, Some(0)), (1, Some(0)), (2, Some(1)), (3, Some(1))]);
        let before = vec![vec![0, 1], vec![1, 0], vec![2, 3], vec![3, 2]];
        let after = spread(&two, &before, None);
        for replicas in &after {
            assert_ne!(replicas[0] < 2, replicas[1] < 2, "{after:?}");
        }
        assert_eq!(copied(&before, &after), 4);
        assert_eq!(difference(&counts(&two, &after, None)), 0);
        assert_eq!(difference(&counts(&two, &after, Some(0))), 0);
    }

    #[test]
    fn who_leads_unwillingly_comes_last_and_others_lead_evenly() {
        let mut all = alike(0..3);
        all.get_mut(&0).unwrap().leads = false;
        let before = vec![vec![0, 1, 2]; 6];
        let after = spread(&all, &before, None);
        let first = counts(&all, &after, Some(0));
        assert_eq!(first, BTreeMap::from([(0, 0), (1, 3), (2, 3)]));
        assert!(after.iter().all(|replicas| replicas[2] == 0));
        assert_eq!(copied(&before, &after), 0);
    }

    #[test]
    fn a_broker_that_leads_unwillingly_keeps_nothing_alone() {
        let mut all = alike(0..3);
        all.get_mut(&0).unwrap().leads = false;
        let alone = spread(&all, &vec![vec![1]; 6], None);
        assert_eq!(
            counts(&all, &alone, None),
            BTreeMap::from([(0, 0), (1, 3), (2, 3)])
        );
        let fewer = spread(&all, &[vec![0, 1], vec![0, 2]], Some(1));
        assert_eq!(fewer, [[1], [2]]);
        let more = spread(&all, &[vec![], vec![]], Some(2));
        assert!(more.iter().all(|replicas| replicas[0] != 0), "{more:?}");
        // Where nobody leads willingly, all keep their share.
        all.values_mut().for_each(|host| host.leads = false);
        let even = spread(&all, &vec![vec![1]; 6], None);
        assert_eq!(difference(&counts(&all, &even, None)), 0);
    }

    #[test]
    fn twenty_thousand_partitions_are_planned_in_time() {
        let before: Vec<Vec<i32>> = (0..20_000)
            .map(|n| vec![n % 5, (n + 1) % 5, (n + 2) % 5])
            .collect();
        let started = std::time::Instant::now();
        let after = spread(&alike(0..6), &before, None);
        assert_eq!(difference(&counts(&alike(0..6), &after, None)), 0);
        assert!(difference(&counts(&alike(0..6), &after, Some(0))) <= 1);
        assert_eq!(copied(&before, &after), 10_000);
        let took = started.elapsed();
        assert!(took < std::time::Duration::from_secs(20), "{took:?}");
    }

    /// Brokers in racks, and partitions on some of them and on brokers that are not there.
    fn some() -> impl Strategy<Value = (Hosts, Vec<Vec<i32>>, usize)> {
        (1..7_i32, 1..4_usize, 1..4_usize).prop_flat_map(|(brokers, racks, factor)| {
            let factor = factor.min(brokers as usize);
            let ids: Vec<(i32, Option<usize>)> = (0..brokers)
                .map(|id| (id, Some(id as usize % racks)))
                .collect();
            let partition =
                proptest::sample::subsequence((0..brokers + 1).collect::<Vec<i32>>(), factor);
            let partitions = proptest::collection::vec(partition.prop_shuffle(), 0..40);
            (Just(hosts(&ids)), partitions, Just(factor))
        })
    }

    proptest! {
        #[test]
        fn every_plan_is_spread_and_a_plan_of_a_plan_changes_nothing((hosts, before, factor) in some()) {
            let after = spread(&hosts, &before, None);
            let racks: BTreeSet<_> = hosts.values().map(|host| &host.rack).collect();
            for replicas in &after {
                let different: BTreeSet<&i32> = replicas.iter().collect();
                prop_assert_eq!(different.len(), factor);
                prop_assert!(replicas.iter().all(|id| hosts.contains_key(id)));
                let of: BTreeSet<_> = replicas.iter().map(|id| &hosts[id].rack).collect();
                prop_assert_eq!(of.len(), factor.min(racks.len()));
            }
            // Where racks hold no broker back.
            if racks.len() == 1 || racks.len() == hosts.len() {
                let all = counts(&hosts, &after, None);
                prop_assert!(difference(&all) <= 1, "{:?}", all);
                // What was elsewhere is copied, and may crowd out another one; else a broker gives away what it has too much.
                let had = counts(&hosts, &before, None);
                let fewest = all.values().min().copied().unwrap_or(0);
                let gone: usize = before.iter().flatten().filter(|id| !hosts.contains_key(id)).count();
                let too_much: usize = hosts.keys().map(|id| had[id].saturating_sub(fewest)).sum();
                prop_assert!(copied(&before, &after) <= 2 * gone + too_much);
            }
            // No broker leads two more than another one that could lead some of it.
            let led = counts(&hosts, &after, Some(0));
            for replicas in &after {
                for other in replicas {
                    prop_assert!(led[&replicas[0]] <= led[other] + 1, "{:?}", led);
                }
            }
            prop_assert_eq!(&spread(&hosts, &after, None), &after);
        }
    }
}
