//! How many partitions the topics that a group makes are to have (Kafka's RepartitionTopics, CopartitionedTopicsEnforcer and
//! ChangelogTopics).
//!
//! A repartition topic has as many as its writer has tasks, unless the application says; topics that are read together have the
//! same; a changelog has one for each task.

use std::collections::{BTreeMap, BTreeSet};

use super::readiness::NotReady;
use crate::coordinator::Topics;
use crate::meta::streams_records::{CopartitionGroup, Subtopology, Topology};

/// Numbers of partitions of topics, by name.
pub(super) type Counts = BTreeMap<String, i32>;

/// What is known of topics while the numbers are found.
pub(super) struct PartitionCounts<'a> {
    topology: &'a Topology,
    topics: &'a dyn Topics,
    decided: Counts,
}

impl<'a> PartitionCounts<'a> {
    /// The numbers of all topics that the group makes; all topics that it does not make are there.
    pub(super) fn decide(topology: &'a Topology, topics: &'a dyn Topics) -> Result<Self, NotReady> {
        let mut counts = Self {
            topology,
            topics,
            decided: Counts::new(),
        };
        counts.decided = counts.of_repartition_topics()?;
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
        most.ok_or_else(|| {
            NotReady::invalid(format!("No source topics found for subtopology {name}"))
        })
    }

    fn of_repartition_topics(&self) -> Result<Counts, NotReady> {
        let parts = || self.topology.subtopologies.values();
        let said = parts().flat_map(|part| &part.repartition_source_topics);
        let said = said.filter(|topic| topic.partitions != 0);
        let mut counts: Counts = said
            .map(|topic| (topic.name.clone(), topic.partitions))
            .collect();
        // A topic may depend on another one of these.
        loop {
            let (mut is_missing, mut is_found) = (false, false);
            for part in parts() {
                for sink in &part.repartition_sink_topics {
                    if counts.contains_key(sink) {
                        continue;
                    }
                    match self.of_writer(part, &counts) {
                        Some(count) => {
                            counts.insert(sink.clone(), count);
                            is_found = true;
                        }
                        None => is_missing = true,
                    }
                }
            }
            if !is_missing {
                break;
            }
            if !is_found {
                return Err(NotReady::invalid(
                    "Failed to compute number of partitions for all repartition topics. There may be loops in the topology that cannot be resolved.",
                ));
            }
        }
        let mut sources = parts().flat_map(|part| &part.repartition_source_topics);
        if sources.any(|topic| !counts.contains_key(&topic.name)) {
            return Err(NotReady::invalid(
                "Failed to compute number of partitions for all repartition topics, because a repartition source topic is never used as a sink topic.",
            ));
        }
        Ok(counts)
    }

    /// As many as the topic with the most partitions that the writer reads; `None` where none of them is known.
    fn of_writer(&self, part: &Subtopology, counts: &Counts) -> Option<i32> {
        let repartitioned = part.repartition_source_topics.iter();
        let repartitioned = repartitioned.filter_map(|topic| counts.get(&topic.name).copied());
        let sources = part.source_topics.iter();
        let sources = sources.filter_map(|topic| self.of(topic));
        repartitioned.chain(sources).max()
    }

    /// The numbers of the repartition topics of a group that is read together.
    fn copartitioned(
        &self,
        part: &Subtopology,
        group: &CopartitionGroup,
    ) -> Result<Counts, NotReady> {
        let names = members(part, group)
            .ok_or_else(|| NotReady::invalid("A copartition group names a topic that is none"))?;
        if names.is_empty() {
            return Ok(Counts::new());
        }
        let mut all = Counts::new();
        for name in names {
            let no_count =
                || NotReady::invalid(format!("Number of partitions is not set for topic: {name}"));
            all.insert(name.clone(), self.of(name).ok_or_else(no_count)?);
        }
        let (made, there): (Counts, Counts) =
            all.into_iter().partition(|(name, _)| self.is_made(name));
        let fixed = self.fixed();
        let count = if !there.is_empty() {
            same(&there, &there)?
        } else if !fixed.is_empty() {
            let of_fixed = fixed
                .iter()
                .filter_map(|name| Some(((*name).clone(), self.of(name)?)));
            same(&of_fixed.collect(), &made)?
        } else {
            made.values().copied().max().unwrap_or_default()
        };
        let differs = made
            .iter()
            .find(|(name, is)| fixed.contains(name) && **is != count);
        if let Some((name, is)) = differs {
            return Err(NotReady::incorrectly_partitioned(format!(
                "Number of partitions [{is}] of repartition topic [{name}] doesn't match number of partitions [{count}] of the source topic."
            )));
        }
        Ok(made.into_keys().map(|name| (name, count)).collect())
    }

    fn is_made(&self, topic: &str) -> bool {
        let parts = self.topology.subtopologies.values();
        let mut made = parts.flat_map(|part| &part.repartition_source_topics);
        made.any(|made| made.name == topic)
    }

    /// Repartition topics whose number the application says.
    fn fixed(&self) -> BTreeSet<&String> {
        let parts = self.topology.subtopologies.values();
        let made = parts.flat_map(|part| &part.repartition_source_topics);
        let fixed = made.filter(|topic| topic.partitions != 0);
        fixed.map(|topic| &topic.name).collect()
    }
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
        _ => {
            let told: Vec<String> = told.iter().map(|(name, n)| format!("{name}={n}")).collect();
            Err(NotReady::incorrectly_partitioned(format!(
                "Following topics do not have the same number of partitions: [{{{}}}]",
                told.join(", ")
            )))
        }
    }
}
