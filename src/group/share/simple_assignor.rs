//! Which members of a share group read which partitions (Kafka's SimpleAssignor): each partition has members that share it, as
//! many as each other partition, and each member as many partitions as each other member; whoever has a partition keeps it, as
//! far as that goes.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

pub(super) use crate::group::partitions::Partitions;
use crate::group::partitions::count;

/// A member, as it is to be assigned partitions.
pub(super) struct Reader<'a> {
    /// Topics that it reads.
    pub(super) topics: &'a BTreeSet<Uuid>,
    /// What it had before.
    pub(super) before: &'a Partitions,
}

type Partition = (Uuid, i32);

/// What each of the members is to read of these partitions.
pub(super) fn assign(members: &[Reader<'_>], partitions: &Partitions) -> Vec<Partitions> {
    let mut assigned = vec![Partitions::new(); members.len()];
    let Some(first) = members.first() else {
        return assigned;
    };
    let pool = |topics: &mut dyn Iterator<Item = &Uuid>| -> Vec<Partition> {
        let known = topics.filter_map(|id| Some((*id, partitions.get(id)?)));
        known
            .flat_map(|(id, indices)| indices.iter().map(move |index| (id, *index)))
            .collect()
    };
    if members.iter().all(|member| member.topics == first.topics) {
        let everybody: Vec<usize> = (0..members.len()).collect();
        let all = pool(&mut first.topics.iter());
        share(&all, &everybody, members, &mut assigned);
        return assigned;
    }
    // Members read different topics: each topic is shared by itself, those that have least first.
    let topics: BTreeSet<Uuid> = members
        .iter()
        .flat_map(|member| member.topics.iter().copied())
        .collect();
    for topic in topics {
        let mut readers: Vec<usize> = (0..members.len())
            .filter(|member| members[*member].topics.contains(&topic))
            .collect();
        readers.sort_by_key(|member| count(&assigned[*member]));
        let all = pool(&mut [topic].iter());
        share(&all, &readers, members, &mut assigned);
    }
    assigned
}

fn has(partitions: &Partitions, (topic, index): Partition) -> bool {
    partitions
        .get(&topic)
        .is_some_and(|indices| indices.contains(&index))
}

/// Shares partitions among some of the members.
fn share(all: &[Partition], among: &[usize], members: &[Reader<'_>], assigned: &mut [Partitions]) {
    if all.is_empty() || among.is_empty() {
        return;
    }
    let sharing = among.len().div_ceil(all.len());
    let total = sharing * all.len();
    let up_to = |n: usize| (total * n).div_ceil(among.len());
    let mut left: Vec<usize> = (0..among.len()).map(|n| up_to(n + 1) - up_to(n)).collect();
    let mut readers: BTreeMap<Partition, usize> = all.iter().map(|one| (*one, 0)).collect();
    let mut give = |member: usize, partition: Partition, assigned: &mut [Partitions]| {
        *readers.entry(partition).or_default() += 1;
        let topic = assigned[member].entry(partition.0).or_default();
        topic.insert(partition.1);
        readers[&partition]
    };
    let mut shared: BTreeMap<Partition, usize> = BTreeMap::new();
    for (n, member) in among.iter().enumerate() {
        for partition in all {
            let room = shared.get(partition).copied().unwrap_or_default() < sharing;
            if left[n] > 0 && room && has(members[*member].before, *partition) {
                shared.insert(*partition, give(*member, *partition, assigned));
                left[n] -= 1;
            }
        }
    }
    let mut next = 0;
    for partition in all {
        for _ in shared.get(partition).copied().unwrap_or_default()..sharing {
            let turn = (0..among.len()).map(|step| (next + step) % among.len());
            let mut free = turn.filter(|n| left[*n] > 0 && !has(&assigned[among[*n]], *partition));
            if let Some(n) = free.next() {
                shared.insert(*partition, give(among[n], *partition, assigned));
                left[n] -= 1;
                next = n + 1;
            }
        }
    }
    // Nobody is left without a partition, and no partition without a member.
    for (n, member) in among.iter().enumerate() {
        let has_some = all.iter().any(|one| has(&assigned[*member], *one));
        let least = all
            .iter()
            .min_by_key(|one| shared.get(one).copied().unwrap_or_default());
        if let (false, Some(partition)) = (has_some, least) {
            shared.insert(*partition, give(*member, *partition, assigned));
            left[n] = left[n].saturating_sub(1);
        }
    }
    for partition in all {
        if shared.get(partition).copied().unwrap_or_default() == 0 {
            let idlest = among.iter().min_by_key(|member| count(&assigned[**member]));
            if let Some(member) = idlest {
                shared.insert(*partition, give(*member, *partition, assigned));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(n: u128) -> Uuid {
        Uuid::from_u128(n + 1)
    }

    fn partitions(counts: &[i32]) -> Partitions {
        let topics = counts.iter().enumerate();
        topics
            .map(|(n, count)| (topic(n as u128), (0..*count).collect()))
            .collect()
    }

    fn assign_all(
        subscriptions: &[BTreeSet<Uuid>],
        before: &[Partitions],
        partitions: &Partitions,
    ) -> Vec<Partitions> {
        let members: Vec<Reader<'_>> = subscriptions
            .iter()
            .zip(before)
            .map(|(topics, before)| Reader { topics, before })
            .collect();
        assign(&members, partitions)
    }

    fn readers(assigned: &[Partitions], partition: Partition) -> usize {
        assigned.iter().filter(|one| has(one, partition)).count()
    }

    #[test]
    fn members_that_are_more_than_partitions_share_them() {
        let all = partitions(&[2]);
        let one: BTreeSet<Uuid> = [topic(0)].into();
        let assigned = assign_all(&vec![one; 5], &vec![Partitions::new(); 5], &all);
        let loads: Vec<usize> = assigned.iter().map(count).collect();
        assert!(loads.iter().all(|load| (1..=2).contains(load)), "{loads:?}");
        assert_eq!(readers(&assigned, (topic(0), 0)), 3);
        assert_eq!(readers(&assigned, (topic(0), 1)), 3);
    }

    #[test]
    fn partitions_that_are_more_than_members_are_dealt_evenly_and_stay() {
        let all = partitions(&[7]);
        let one: BTreeSet<Uuid> = [topic(0)].into();
        let two = assign_all(&vec![one.clone(); 2], &vec![Partitions::new(); 2], &all);
        let mut loads: Vec<usize> = two.iter().map(count).collect();
        loads.sort_unstable();
        assert_eq!(loads, [3, 4]);
        let before: Vec<Partitions> = two.iter().cloned().chain([Partitions::new()]).collect();
        let three = assign_all(&vec![one; 3], &before, &all);
        for (before, now) in two.iter().zip(&three) {
            let stays = now[&topic(0)].is_subset(&before[&topic(0)]);
            assert!(stays, "{before:?} {now:?}");
        }
        assert!((2..=3).contains(&count(&three[2])), "{three:?}");
    }

    proptest! {
        #[test]
        fn every_partition_that_is_read_has_members_and_every_member_reads_only_its_topics(
            counts in prop::collection::vec(1..6_i32, 1..4),
            subscriptions in prop::collection::vec(prop::collection::btree_set(0..4_usize, 0..4), 1..9),
            is_same in any::<bool>(),
        ) {
            let all = partitions(&counts);
            let mut topics: Vec<BTreeSet<Uuid>> = subscriptions
                .iter()
                .map(|set| set.iter().map(|n| topic(*n as u128)).collect())
                .collect();
            if is_same {
                topics = vec![topics[0].clone(); topics.len()];
            }
            let nothing = vec![Partitions::new(); topics.len()];
            let first = assign_all(&topics, &nothing, &all);
            let second = assign_all(&topics, &first, &all);
            for assigned in [&first, &second] {
                for (member, topics) in assigned.iter().zip(&topics) {
                    prop_assert!(member.keys().all(|id| topics.contains(id)));
                    let may_read = topics.iter().any(|id| all.contains_key(id));
                    prop_assert_eq!(count(member) > 0, may_read);
                }
                for (id, indices) in &all {
                    let is_read = topics.iter().any(|topics| topics.contains(id));
                    for index in indices {
                        prop_assert_eq!(readers(assigned, (*id, *index)) > 0, is_read);
                    }
                }
            }
            if is_same {
                let loads: Vec<usize> = first.iter().map(count).collect();
                let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
                prop_assert!(most - least <= 2, "{:?}", loads);
                prop_assert_eq!(first, second);
            }
        }
    }
}
