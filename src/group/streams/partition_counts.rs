//! How many partitions the topics that a group makes are to have (Kafka's RepartitionTopics, CopartitionedTopicsEnforcer and
//! ChangelogTopics).
//!
//! A repartition topic has as many as its writer has tasks, unless the application says; topics that are read together have the
//! same; a changelog has one for each task.
//!
//! Tests: group/streams/tests.rs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::not_ready::NotReady;
use crate::coordinator::Topics;
use crate::meta::streams_records::{CopartitionGroup, Subtopology, Topology};

/// Numbers of partitions of topics, by name.
pub(super) type Counts = BTreeMap<String, i32>;

/// What is known of topics while the numbers are found.
pub(super) struct PartitionCounts<'a> {
    topics: &'a dyn Topics,
    decided: Counts,
    /// Repartition topics, and those of them whose number the application says.
    made: BTreeSet<&'a str>,
    fixed: BTreeSet<&'a str>,
}

impl<'a> PartitionCounts<'a> {
    /// The numbers of all topics that the group makes; all topics that it does not make are there.
    pub(super) fn decide(topology: &'a Topology, topics: &'a dyn Topics) -> Result<Self, NotReady> {
        let parts = topology.subtopologies.values();
        let made = parts.flat_map(|part| &part.repartition_source_topics);
        let fixed = made.clone().filter(|topic| topic.partitions != 0);
        let mut counts = Self {
            topics,
            decided: Counts::new(),
            fixed: fixed.map(|topic| &*topic.name).collect(),
            made: made.map(|topic| &*topic.name).collect(),
        };
        counts.decided = of_repartition_topics(topology, &|topic| counts.of(topic))?;
        for part in topology.subtopologies.values() {
            for group in &part.copartition_groups {
                let together = counts.copartitioned(part, group)?;
                counts.decided.extend(together);
            }
        }
        for (name, part) in &topology.subtopologies {
            let tasks = counts.tasks_of(name, part)?;
            let changelogs = part.changelog_topics.iter();
            let changelogs = changelogs.map(|topic| (topic.name.clone(), tasks));
            counts.decided.extend(changelogs);
        }
        Ok(counts)
    }

    /// How many partitions a topic has, or is to have.
    pub(super) fn of(&self, topic: &str) -> Option<i32> {
        let there = self.topics.shape_of(topic).map(|(_, count)| count);
        there.or_else(|| self.decided.get(topic).copied())
    }

    /// The number that was decided for a topic that the group makes.
    pub(super) fn decided(&self, topic: &str) -> Option<i32> {
        self.decided.get(topic).copied()
    }

    /// How many tasks a part has.
    pub(super) fn tasks_of(&self, name: &str, part: &Subtopology) -> Result<i32, NotReady> {
        let counts = part.inputs().map(|topic| {
            let no_count = || NotReady::invalid(format!("No partition count for topic {topic}"));
            self.of(topic).ok_or_else(no_count)
        });
        let counts = counts.collect::<Result<Vec<i32>, NotReady>>()?;
        let most = counts.into_iter().max();
        most.ok_or_else(|| no_sources(name))
    }

    /// The numbers of the repartition topics of a group that is read together.
    fn copartitioned(
        &self,
        part: &Subtopology,
        group: &CopartitionGroup,
    ) -> Result<Counts, NotReady> {
        let names = members(part, group).ok_or_else(no_place)?;
        if names.is_empty() {
            return Ok(Counts::new());
        }
        let mut all = Counts::new();
        for name in names {
            let no_count =
                || NotReady::invalid(format!("Number of partitions is not set for topic: {name}"));
            all.insert(name.clone(), self.of(name).ok_or_else(no_count)?);
        }
        let (made, there): (Counts, Counts) = all
            .into_iter()
            .partition(|(name, _)| self.made.contains(&**name));
        let count = if !there.is_empty() {
            same(&there, &there)?
        } else if !self.fixed.is_empty() {
            self.of_fixed(&made)?
        } else {
            made.values().copied().max().unwrap_or_default()
        };
        let differs = made
            .iter()
            .find(|(name, is)| self.fixed.contains(&***name) && **is != count);
        if let Some((name, is)) = differs {
            return Err(NotReady::incorrectly_partitioned(format!(
                "Number of partitions [{is}] of repartition topic [{name}] doesn't match number of partitions [{count}] of the source topic."
            )));
        }
        Ok(made.into_keys().map(|name| (name, count)).collect())
    }
}

impl PartitionCounts<'_> {
    /// The number that all topics have whose number the application says.
    fn of_fixed(&self, told: &Counts) -> Result<i32, NotReady> {
        let mut numbers = self.fixed.iter().filter_map(|name| self.of(name));
        let first = numbers.next().unwrap_or_default();
        match numbers.all(|number| number == first) {
            true => Ok(first),
            false => Err(not_the_same(told)),
        }
    }
}

/// Whether a topology can be run at all, whatever its topics look like.
pub(super) fn check_shape(topology: &Topology) -> Result<(), NotReady> {
    for (name, part) in &topology.subtopologies {
        if part.inputs().next().is_none() {
            return Err(no_sources(name));
        }
        if let Some(topic) = part.internal_topics().find(|topic| topic.partitions < 0) {
            let (name, count) = (&topic.name, topic.partitions);
            let why = format!("Number of partitions {count} of topic {name} is invalid");
            return Err(NotReady::invalid(why));
        }
        for group in &part.copartition_groups {
            members(part, group).ok_or_else(no_place)?;
        }
    }
    // Whether they can be found at all does not depend on how many there are.
    of_repartition_topics(topology, &|_| Some(1)).map(drop)
}

/// The numbers of all repartition topics; `of` says those of topics that are there.
fn of_repartition_topics(
    topology: &Topology,
    of: &dyn Fn(&str) -> Option<i32>,
) -> Result<Counts, NotReady> {
    let parts = || topology.subtopologies.values();
    let said = parts().flat_map(|part| &part.repartition_source_topics);
    let said = said.filter(|topic| topic.partitions != 0);
    let mut counts: Counts = said
        .map(|topic| (topic.name.clone(), topic.partitions))
        .collect();
    let writers: Vec<&Subtopology> = parts()
        .filter(|part| !part.repartition_sink_topics.is_empty())
        .collect();
    if !say_of_sinks(&writers, &mut counts, of) {
        return Err(NotReady::invalid(
            "Failed to compute number of partitions for all repartition topics. There may be loops in the topology that cannot be resolved.",
        ));
    }
    let mut sources = parts().flat_map(|part| &part.repartition_source_topics);
    if sources.any(|topic| !counts.contains_key(&topic.name)) {
        return Err(NotReady::invalid(NEVER_WRITTEN));
    }
    Ok(counts)
}

/// Adds the numbers of what writers write, which may depend on one another; whether all are known then. As Kafka does it: round by
/// round all writers in their order, and what one reads counts where it is known by then. One is looked at when that is so.
fn say_of_sinks(
    writers: &[&Subtopology],
    counts: &mut Counts,
    of: &dyn Fn(&str) -> Option<i32>,
) -> bool {
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (n, part) in writers.iter().enumerate() {
        for topic in &part.repartition_source_topics {
            readers.entry(&topic.name).or_default().push(n);
        }
    }
    let mut is_done = vec![false; writers.len()];
    // By round and place.
    let all = writers.iter().enumerate();
    let known = all.filter(|(_, part)| of_writer(part, counts, of).is_some());
    let mut due: BTreeSet<(usize, usize)> = known.map(|(n, _)| (0, n)).collect();
    while let Some((round, n)) = due.pop_first() {
        let Some(count) = of_writer(writers[n], counts, of).filter(|_| !is_done[n]) else {
            continue;
        };
        is_done[n] = true;
        for sink in &writers[n].repartition_sink_topics {
            if counts.contains_key(sink) {
                continue;
            }
            counts.insert(sink.clone(), count);
            let of_sink = readers.get(&**sink).into_iter().flatten();
            let waiting = of_sink.filter(|reader| !is_done[**reader]);
            due.extend(waiting.map(|reader| (round + usize::from(*reader <= n), *reader)));
        }
    }
    let mut sinks = writers
        .iter()
        .flat_map(|part| &part.repartition_sink_topics);
    sinks.all(|sink| counts.contains_key(sink))
}

/// As many as the topic with the most partitions that the writer reads; `None` where none of them is known.
fn of_writer(part: &Subtopology, counts: &Counts, of: &dyn Fn(&str) -> Option<i32>) -> Option<i32> {
    let repartitioned = part.repartition_source_topics.iter();
    let repartitioned = repartitioned.filter_map(|topic| counts.get(&topic.name).copied());
    let sources = part.source_topics.iter();
    let sources = sources.filter_map(|topic| of(topic));
    repartitioned.chain(sources).max()
}

const NEVER_WRITTEN: &str = "Failed to compute number of partitions for all repartition topics, because a repartition source topic is never used as a sink topic.";

fn no_sources(name: &str) -> NotReady {
    NotReady::invalid(format!("No source topics found for subtopology {name}"))
}

fn no_place() -> NotReady {
    NotReady::invalid("A copartition group names a topic that is none")
}

/// The topics of a group, by their places; `None` where a place is none.
fn members<'a>(part: &'a Subtopology, group: &CopartitionGroup) -> Option<BTreeSet<&'a String>> {
    let place = |n: &i16| usize::try_from(*n).ok();
    let mut names = BTreeSet::new();
    for n in &group.source_topics {
        names.insert(part.source_topics.get(place(n)?)?);
    }
    for n in &group.repartition_source_topics {
        names.insert(&part.repartition_source_topics.get(place(n)?)?.name);
    }
    Some(names)
}

/// The number that all of these have.
fn same(counts: &Counts, told: &Counts) -> Result<i32, NotReady> {
    let numbers: BTreeSet<i32> = counts.values().copied().collect();
    match numbers.first() {
        Some(count) if numbers.len() == 1 => Ok(*count),
        _ => Err(not_the_same(told)),
    }
}

fn not_the_same(told: &Counts) -> NotReady {
    let told: Vec<String> = told.iter().map(|(name, n)| format!("{name}={n}")).collect();
    NotReady::incorrectly_partitioned(format!(
        "Following topics do not have the same number of partitions: [{{{}}}]",
        told.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::meta::streams_records::InternalTopicRecord;

    /// Round by round all writers, until nothing comes of a round.
    fn by_rounds(writers: &[&Subtopology], counts: &mut Counts, of: &dyn Fn(&str) -> Option<i32>) {
        let mut left: Vec<&Subtopology> = writers.to_vec();
        loop {
            let before = left.len();
            left.retain(|part| {
                let count = of_writer(part, counts, of);
                for sink in count.iter().flat_map(|_| &part.repartition_sink_topics) {
                    counts.entry(sink.clone()).or_insert(count.unwrap());
                }
                count.is_none()
            });
            if left.len() == before {
                return;
            }
        }
    }

    fn part(reads: &[u8], writes: &[u8], source: Option<u8>) -> Subtopology {
        let topic = |n: &u8| InternalTopicRecord {
            name: n.to_string(),
            partitions: 0,
            replication_factor: 0,
            configs: BTreeMap::new(),
        };
        Subtopology {
            source_topics: source.iter().map(|n| format!("in-{n}")).collect(),
            repartition_source_topics: reads.iter().map(topic).collect(),
            repartition_sink_topics: writes.iter().map(u8::to_string).collect(),
            ..Subtopology::default()
        }
    }

    /// What parts read and write, and a source topic of theirs.
    type Shapes = Vec<(Vec<u8>, Vec<u8>, Option<u8>)>;

    fn shapes() -> impl Strategy<Value = Shapes> {
        let topics = || proptest::collection::vec(0..12u8, 0..3);
        proptest::collection::vec((topics(), topics(), proptest::option::of(1..5u8)), 0..14)
    }

    proptest! {
        #[test]
        fn what_is_looked_at_when_something_is_known_comes_to_the_same(shapes in shapes()) {
            let shapes = shapes.iter();
            let parts: Vec<_> = shapes.map(|(reads, writes, source)| part(reads, writes, *source)).collect();
            let writers: Vec<_> = parts.iter().filter(|part| !part.repartition_sink_topics.is_empty()).collect();
            let of = |name: &str| name.strip_prefix("in-").and_then(|n| n.parse().ok()).filter(|n| *n < 4);
            let (mut found, mut expected) = (Counts::new(), Counts::new());
            let is_whole = say_of_sinks(&writers, &mut found, &of);
            by_rounds(&writers, &mut expected, &of);
            prop_assert_eq!(&found, &expected);
            let mut sinks = writers.iter().flat_map(|part| &part.repartition_sink_topics);
            prop_assert_eq!(is_whole, sinks.all(|sink| expected.contains_key(sink)));
        }
    }

    #[test]
    fn a_chain_that_goes_back_through_all_parts_is_resolved() {
        let mut parts: Vec<Subtopology> = (0..200).map(|n| part(&[n + 1], &[n], None)).collect();
        parts.push(part(&[], &[200], Some(3)));
        let writers: Vec<&Subtopology> = parts.iter().collect();
        let mut counts = Counts::new();
        assert!(say_of_sinks(&writers, &mut counts, &|_| Some(3)));
        assert_eq!(counts.len(), 201);
        assert!(counts.values().all(|count| *count == 3));
    }
}
