//! Assignors of the broker's side (KIP-848): who is to have which partitions.
//!
//! - `uniform`: as many for each member as can be, and each keeps what it has where that is possible
//! - `range`: neighbours of each topic to one member, and the same numbers of all topics where those are alike
//!
//! Racks make no difference, as in Kafka since 4.0.

mod range;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::partitions::Partitions;

/// A member, as an assignor sees it.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) member_id: &'a str,
    pub(super) instance_id: Option<&'a str>,
    /// Topics that it reads, of those that exist.
    pub(super) topics: BTreeSet<Uuid>,
    /// Its target until now.
    pub(super) before: &'a Partitions,
}

/// How many partitions each topic has.
pub(super) type Counts = BTreeMap<Uuid, i32>;

/// An assignor by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    /// See the module's documentation.
    Uniform,
    /// See the module's documentation.
    Range,
}

impl Assignor {
    /// All there are, in Kafka's order; the first is the default.
    pub const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// Kafka's class.
    fn class(self) -> &'static str {
        match self {
            Self::Uniform => "org.apache.kafka.coordinator.group.assignor.UniformAssignor",
            Self::Range => "org.apache.kafka.coordinator.group.assignor.RangeAssignor",
        }
    }

    /// The assignor of a name, or of Kafka's class, as a broker's configuration may give it.
    pub fn named(name: &str) -> Option<Self> {
        let is_it = |assignor: &Self| assignor.name() == name || assignor.class() == name;
        Self::ALL.into_iter().find(is_it)
    }

    /// What each candidate is to have, in their order.
    pub(super) fn assign(self, candidates: &[Candidate<'_>], counts: &Counts) -> Vec<Partitions> {
        match self {
            Self::Uniform => uniform::assign(candidates, counts),
            Self::Range => range::assign(candidates, counts),
        }
    }
}

/// How many candidates read each topic.
fn readers(candidates: &[Candidate<'_>]) -> BTreeMap<Uuid, usize> {
    let mut readers = BTreeMap::new();
    for topic in candidates.iter().flat_map(|candidate| &candidate.topics) {
        *readers.entry(*topic).or_default() += 1;
    }
    readers
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn topic(n: u8) -> Uuid {
        Uuid::from_u128(u128::from(n) + 1)
    }

    type Asked = Vec<(BTreeSet<u8>, bool)>;

    fn assign(
        assignor: Assignor,
        asked: &Asked,
        counts: &Counts,
        before: &[Partitions],
    ) -> Vec<Partitions> {
        let ids: Vec<String> = (0..asked.len()).map(|n| format!("m{n}")).collect();
        let none = Partitions::new();
        let candidates = asked
            .iter()
            .enumerate()
            .map(|(n, (topics, is_static))| Candidate {
                member_id: &ids[n],
                instance_id: is_static.then_some(&*ids[n]),
                topics: topics
                    .iter()
                    .map(|n| topic(*n))
                    .filter(|id| counts.contains_key(id))
                    .collect(),
                before: before.get(n).unwrap_or(&none),
            });
        assignor.assign(&candidates.collect::<Vec<_>>(), counts)
    }

    fn size(of: &Partitions) -> usize {
        of.values().map(BTreeSet::len).sum()
    }

    /// Every partition that someone reads is one reader's, and no other one is anybody's.
    fn check_whole(asked: &Asked, counts: &Counts, assigned: &[Partitions]) {
        let mut owners = BTreeMap::new();
        for (n, partitions) in assigned.iter().enumerate() {
            for (id, numbers) in partitions {
                for number in numbers {
                    assert_eq!(owners.insert((*id, *number), n), None);
                    assert!(asked[n].0.iter().any(|asked| topic(*asked) == *id));
                }
            }
        }
        for (id, count) in counts {
            let is_read = asked
                .iter()
                .any(|(topics, _)| topics.iter().any(|n| topic(*n) == *id));
            for number in 0..*count {
                assert_eq!(
                    owners.contains_key(&(*id, number)),
                    is_read,
                    "{id} {number}"
                );
            }
        }
        let all: i32 = counts.values().sum();
        assert!(owners.len() <= all as usize);
    }

    /// Nobody has two more than somebody who could take one.
    fn check_balance(asked: &Asked, assigned: &[Partitions]) {
        for (n, partitions) in assigned.iter().enumerate() {
            for id in partitions.keys() {
                for (other, (topics, _)) in asked.iter().enumerate() {
                    if topics.iter().any(|n| topic(*n) == *id) {
                        assert!(
                            size(partitions) <= size(&assigned[other]) + 1,
                            "{n} against {other}: {assigned:?}"
                        );
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_and_nobody_has_too_many(
            asked in vec((btree_set(0..5u8, 0..4), any::<bool>()), 1..7),
            more in vec((btree_set(0..5u8, 0..4), any::<bool>()), 0..4),
            counts in vec(0..9i32, 5),
        ) {
            let counts: Counts = counts.into_iter().enumerate().map(|(n, count)| (topic(n as u8), count)).collect();
            let first = assign(Assignor::Uniform, &asked, &counts, &[]);
            check_whole(&asked, &counts, &first);
            check_balance(&asked, &first);
            // What is balanced stays.
            prop_assert_eq!(&assign(Assignor::Uniform, &asked, &counts, &first), &first);
            let mut larger = asked.clone();
            larger.extend(more);
            let second = assign(Assignor::Uniform, &larger, &counts, &first);
            check_whole(&larger, &counts, &second);
            check_balance(&larger, &second);
            // One that leaves: the others keep all that they had.
            let gone = assign(Assignor::Uniform, &asked[1..].to_vec(), &counts, &first[1..]);
            check_whole(&asked[1..].to_vec(), &counts, &gone);
            if asked.iter().all(|(topics, _)| *topics == asked[0].0) {
                for (before, after) in first[1..].iter().zip(&gone) {
                    for (id, numbers) in before {
                        prop_assert!(numbers.is_subset(&after[id]));
                    }
                }
            }
            let ranges = assign(Assignor::Range, &asked, &counts, &first);
            check_whole(&asked, &counts, &ranges);
        }
    }

    #[test]
    fn ranges_are_neighbours_and_the_same_in_topics_that_are_alike() {
        let asked = vec![
            (BTreeSet::from([0, 1]), false),
            (BTreeSet::from([0, 1]), false),
        ];
        let counts = Counts::from([(topic(0), 3), (topic(1), 3)]);
        let assigned = assign(Assignor::Range, &asked, &counts, &[]);
        let of = |numbers: &[i32]| -> Partitions {
            [0, 1]
                .into_iter()
                .map(|n| (topic(n), numbers.iter().copied().collect()))
                .collect()
        };
        assert_eq!(assigned, [of(&[0, 1]), of(&[2])]);
        // Static members come first, whatever their ids are.
        let asked = vec![(BTreeSet::from([0]), false), (BTreeSet::from([0]), true)];
        let assigned = assign(Assignor::Range, &asked, &counts, &[]);
        assert_eq!(size(&assigned[1]), 2);
    }

    #[test]
    fn a_thousand_members_of_a_thousand_partitions_each_keep_theirs_when_one_joins() {
        let one = (BTreeSet::from([0]), false);
        let asked: Asked = vec![one.clone(); 1000];
        let counts = Counts::from([(topic(0), 1500)]);
        let first = assign(Assignor::Uniform, &asked, &counts, &[]);
        let mut larger = asked.clone();
        larger.push(one);
        let second = assign(Assignor::Uniform, &larger, &counts, &first);
        check_whole(&larger, &counts, &second);
        let moved = first
            .iter()
            .zip(&second)
            .filter(|(before, after)| before != after);
        assert_eq!(moved.count(), 1);
    }
}
