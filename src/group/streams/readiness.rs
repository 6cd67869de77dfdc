//! Whether the topics of an application are as it needs them, how many tasks it has then, and which topics are to be made
//! (Kafka's InternalTopicManager).
//!
//! Tests: group/streams/tests.rs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

use super::not_ready::NotReady;
use super::partition_counts::{PartitionCounts, check_shape};
use super::status::{Status, StatusCode};
use crate::coordinator::Topics;
use crate::meta::streams_records::{Subtopology, Topology};

/// Tasks that an application may have, standby tasks not counted.
pub(super) const TASKS_MAX: i64 = 100_000;
/// Topics that a status names.
const NAMED_MAX: usize = 3;

/// A topic that the group needs and that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicToCreate {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// `None` as the broker's configuration says.
    pub replication_factor: Option<i16>,
    /// Its configuration.
    pub configs: BTreeMap<String, String>,
}

/// A part of the application, with its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// How many.
    pub(super) tasks: i32,
    /// Whether they keep state.
    pub(super) is_stateful: bool,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Readiness {
    /// What hinders, if anything does.
    pub(super) status: Option<Status>,
    /// The application's parts, where its source topics are there.
    pub(super) parts: BTreeMap<String, Part>,
    /// What is to be made.
    pub(super) to_create: Vec<TopicToCreate>,
    /// How many partitions the topics have that the group makes.
    pub(super) internal: BTreeMap<String, i32>,
}

impl Readiness {
    pub(super) fn is_ready(&self) -> bool {
        self.status.is_none()
    }

    /// Of a topology, as the topics are now.
    pub(super) fn of(topology: &Topology, topics: &dyn Topics) -> Result<Self, String> {
        match Self::examine(topology, topics) {
            Ok(found) => Ok(found),
            Err(NotReady::Invalid(why)) => Err(why),
            Err(NotReady::Status(status)) => Ok(Self {
                status: Some(status),
                ..Self::default()
            }),
        }
    }

    fn examine(topology: &Topology, topics: &dyn Topics) -> Result<Self, NotReady> {
        check_shape(topology)?;
        let sources = topology.subtopologies.values();
        let sources = sources.flat_map(|part| &part.source_topics);
        let missing: BTreeSet<&str> = sources
            .filter(|name| topics.id_of(name).is_none())
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            let names = summary(&missing);
            let why = format!("Source topics {names} are missing.");
            return Err(NotReady::Status(Status::new(
                StatusCode::MissingSourceTopics,
                why,
            )));
        }
        let counts = PartitionCounts::decide(topology, topics)?;
        let mut found = Self::default();
        let mut named = HashSet::new();
        let mut all: i64 = 0;
        for (name, part) in &topology.subtopologies {
            let tasks = counts.tasks_of(name, part)?;
            let is_stateful = !part.changelog_topics.is_empty();
            let part_found = Part { tasks, is_stateful };
            found.parts.insert(name.clone(), part_found);
            all += i64::from(tasks);
            if all > TASKS_MAX {
                let why = format!("The application has more than {TASKS_MAX} tasks");
                return Err(NotReady::incorrectly_partitioned(why));
            }
            found.look_at_internal(part, &counts, &mut named, topics)?;
        }
        if !found.to_create.is_empty() {
            let missing: BTreeSet<&str> =
                found.to_create.iter().map(|topic| &*topic.name).collect();
            let names = summary(&missing);
            let why = format!("Internal topics are missing: {names}");
            found.status = Some(Status::new(StatusCode::MissingInternalTopics, why));
        }
        Ok(found)
    }

    fn look_at_internal<'a>(
        &mut self,
        part: &'a Subtopology,
        counts: &PartitionCounts<'_>,
        named: &mut HashSet<&'a str>,
        topics: &dyn Topics,
    ) -> Result<(), NotReady> {
        for topic in part.internal_topics() {
            let name = &topic.name;
            let decided = counts.decided(name);
            let wanted = match topic.partitions {
                0 => decided.unwrap_or_default(),
                said => said,
            };
            if wanted < 1 {
                let why = format!("Number of partitions must be set for topic {name}");
                return Err(NotReady::Invalid(why));
            }
            self.internal.insert(name.clone(), wanted);
            match topics.shape_of(name) {
                Some((_, is)) if is != wanted => {
                    return Err(NotReady::incorrectly_partitioned(format!(
                        "Existing topic {name} has different number of partitions: expected {wanted}, found {is}"
                    )));
                }
                Some(_) => {}
                None if !named.insert(name) => {}
                None => self.to_create.push(TopicToCreate {
                    name: name.clone(),
                    partitions: wanted,
                    replication_factor: (topic.replication_factor != 0)
                        .then_some(topic.replication_factor),
                    configs: topic.configs.clone(),
                }),
            }
        }
        Ok(())
    }
}

fn summary(names: &BTreeSet<&str>) -> String {
    let named: Vec<&str> = names.iter().copied().take(NAMED_MAX).collect();
    let more = names.len() - named.len();
    match more {
        0 => named.join(", "),
        more => format!("{} and {more} additional topics", named.join(", ")),
    }
}

/// What the topics of an application look like.
pub(super) fn hash(topology: &Topology, topics: &dyn Topics) -> u64 {
    let names: BTreeSet<&String> = topology.required_topics().collect();
    let mut hasher = SipHasher13::new();
    for name in names {
        if let Some((id, count)) = topics.shape_of(name) {
            (name, id.as_u128(), count).hash(&mut hasher);
        }
    }
    hasher.finish()
}
