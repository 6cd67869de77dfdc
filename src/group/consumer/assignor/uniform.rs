//! See [`Assignor`](super::Assignor). First each member keeps what it may keep, then what is nobody's goes to who has
//! least, then single partitions move from who has more to who has less, until nobody has two more than a reader of the
//! same topic.
//!
//! Tests: group/consumer/assignor/mod.rs.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::super::partitions::{Partitions, count};
use super::{Candidate, Counts};

pub(super) fn assign(candidates: &[Candidate<'_>], counts: &Counts) -> Vec<Partitions> {
    let Some(first) = candidates.first() else {
        return Vec::new();
    };
    let are_alike = candidates
        .iter()
        .all(|candidate| candidate.topics == first.topics);
    let mut dealing = Dealing::new(candidates, counts);
    match are_alike {
        true => dealing.limit_to_quotas(),
        false => dealing.by_topic(candidates),
    }
    dealing.give_free();
    if !are_alike {
        dealing.level();
    }
    dealing.assigned
}

/// Partitions on their way to members; members are named by their position among the candidates.
struct Dealing {
    assigned: Vec<Partitions>,
    loads: Vec<usize>,
    /// Partitions that nobody has.
    free: BTreeMap<Uuid, Vec<i32>>,
    /// Members that read a topic; none where all read the same.
    readers: BTreeMap<Uuid, Vec<usize>>,
    /// How many a member may have.
    quotas: Vec<usize>,
}

impl Dealing {
    /// Members keep what they had, where it exists and they still read it.
    fn new(candidates: &[Candidate<'_>], counts: &Counts) -> Self {
        let mut taken: BTreeMap<Uuid, BTreeSet<i32>> = BTreeMap::new();
        let mut keep = |candidate: &Candidate<'_>| {
            let mut kept = Partitions::new();
            for (topic, partitions) in candidate.before {
                let count = counts.get(topic).copied().unwrap_or(0);
                if !candidate.topics.contains(topic) {
                    continue;
                }
                let taken = taken.entry(*topic).or_default();
                let own = partitions.iter().filter(|partition| {
                    (0..count).contains(*partition) && taken.insert(**partition)
                });
                let own: BTreeSet<i32> = own.copied().collect();
                if !own.is_empty() {
                    kept.insert(*topic, own);
                }
            }
            kept
        };
        let assigned: Vec<Partitions> = candidates.iter().map(&mut keep).collect();
        let read: BTreeSet<Uuid> = candidates
            .iter()
            .flat_map(|candidate| candidate.topics.iter().copied())
            .collect();
        let free = counts.iter().filter(|(topic, _)| read.contains(topic));
        let free = free.map(|(topic, count)| {
            let taken = taken.get(topic);
            let is_free = |n: &i32| taken.is_none_or(|taken| !taken.contains(n));
            // The last is given out first.
            (*topic, (0..*count).rev().filter(is_free).collect())
        });
        Self {
            loads: assigned.iter().map(count).collect(),
            quotas: vec![usize::MAX; candidates.len()],
            readers: BTreeMap::new(),
            free: free.collect(),
            assigned,
        }
    }

    /// All read the same: a quota for each, of which none may have more. Who has one more than the least keeps it, as long as
    /// there are enough for that.
    fn limit_to_quotas(&mut self) {
        let free: usize = self.free.values().map(Vec::len).sum();
        let all = free + self.loads.iter().sum::<usize>();
        let (least, mut extra) = (all / self.loads.len(), all % self.loads.len());
        self.quotas = vec![least; self.loads.len()];
        for wants_more in [true, false] {
            for (quota, load) in self.quotas.iter_mut().zip(&self.loads) {
                if extra > 0 && (*load > least) == wants_more && *quota == least {
                    *quota += 1;
                    extra -= 1;
                }
            }
        }
        for member in 0..self.loads.len() {
            while self.loads[member] > self.quotas[member] {
                self.take_last(member);
            }
        }
    }

    /// Takes the member's last partition away.
    fn take_last(&mut self, member: usize) {
        let Some(mut topic) = self.assigned[member].last_entry() else {
            return;
        };
        let id = *topic.key();
        let last = topic.get_mut().pop_last();
        if topic.get().is_empty() {
            topic.remove();
        }
        self.loads[member] -= 1;
        self.free.entry(id).or_default().extend(last);
    }

    fn by_topic(&mut self, candidates: &[Candidate<'_>]) {
        for (n, candidate) in candidates.iter().enumerate() {
            for topic in &candidate.topics {
                self.readers.entry(*topic).or_default().push(n);
            }
        }
    }

    /// Gives what nobody has to who has least of those that read it; topics with few readers first.
    fn give_free(&mut self) {
        let mut free: Vec<(Uuid, Vec<i32>)> = std::mem::take(&mut self.free).into_iter().collect();
        free.sort_by_key(|(topic, _)| self.readers.get(topic).map_or(0, Vec::len));
        let everybody: Vec<usize> = (0..self.loads.len()).collect();
        let mut by_load = BTreeSet::new();
        for (topic, mut partitions) in free {
            let readers = self.readers.get(&topic).unwrap_or(&everybody);
            if by_load.is_empty() || !self.readers.is_empty() {
                by_load = readers.iter().map(|n| (self.room_of(*n), *n)).collect();
            }
            while let Some(partition) = partitions.pop() {
                let Some((_, member)) = by_load.pop_first() else {
                    break;
                };
                self.give(member, topic, partition);
                by_load.insert((self.room_of(member), member));
            }
        }
    }

    /// Lowest for who is to get the next one: below its quota first, then who has least.
    fn room_of(&self, member: usize) -> (bool, usize) {
        let load = self.loads[member];
        (load >= self.quotas[member], load)
    }

    fn give(&mut self, member: usize, topic: Uuid, partition: i32) {
        self.assigned[member]
            .entry(topic)
            .or_default()
            .insert(partition);
        self.loads[member] += 1;
    }

    /// Moves partitions until nobody has two more than another reader of the same topic.
    fn level(&mut self) {
        loop {
            let mut moved = false;
            for topic in self.readers.keys().copied().collect::<Vec<_>>() {
                moved |= self.level_topic(topic);
            }
            if !moved {
                return;
            }
        }
    }

    /// Every move brings two loads nearer to each other, so this ends.
    fn level_topic(&mut self, topic: Uuid) -> bool {
        let Some(readers) = self.readers.get(&topic).cloned() else {
            return false;
        };
        let mut by_load: BTreeSet<(usize, usize)> =
            readers.iter().map(|n| (self.loads[*n], *n)).collect();
        let mut moved = false;
        for from in readers {
            loop {
                let Some((least, to)) = by_load.first().copied() else {
                    return moved;
                };
                if self.loads[from] <= least + 1 {
                    break;
                }
                let Some(partition) = self.take_of(from, topic) else {
                    break;
                };
                by_load.remove(&(least, to));
                by_load.remove(&(self.loads[from] + 1, from));
                self.give(to, topic, partition);
                by_load.insert((self.loads[to], to));
                by_load.insert((self.loads[from], from));
                moved = true;
            }
        }
        moved
    }

    fn take_of(&mut self, member: usize, topic: Uuid) -> Option<i32> {
        let partitions = self.assigned[member].get_mut(&topic)?;
        let partition = partitions.pop_last();
        if partitions.is_empty() {
            self.assigned[member].remove(&topic);
        }
        self.loads[member] -= usize::from(partition.is_some());
        partition
    }
}
