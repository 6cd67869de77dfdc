//! What is stored of streams groups (KIP-1071). Its form is that of [`records`](super::records).
//!
//! Tests: group/streams/tests.rs.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::records::PartsRecord;

/// Partitions by subtopology: each is a task.
pub type TaskNumbers = BTreeMap<String, Vec<i32>>;

/// `/consumers/<group>` of a streams group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsGroupRecord {
    /// Record version.
    pub version: u32,
    /// `streams`.
    #[serde(rename = "type")]
    pub group_type: String,
    /// The group epoch.
    pub epoch: i32,
    /// Of the targets of the members.
    pub assignment_epoch: i32,
    /// Of the topology whose topics are as it needs them; -1 for none.
    pub validated_topology_epoch: i32,
    /// What the topics looked like.
    pub topics_hash: String,
    /// Of the targets: what the configuration said.
    pub assignment_configs: BTreeMap<String, String>,
    /// Its topology and members, where they stand here.
    #[serde(default, skip_serializing_if = "StreamsBulkRecord::is_empty")]
    pub bulk: StreamsBulkRecord,
    /// Which parts they are in, where they are too large for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PartsRecord>,
}

/// The large part of a [`StreamsGroupRecord`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsBulkRecord {
    /// What the application does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// All members.
    pub members: Vec<StreamsMemberRecord>,
}

impl StreamsBulkRecord {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A member in a [`StreamsBulkRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsMemberRecord {
    /// Made by the client.
    pub member_id: String,
    /// Its epoch; -2 for a static member that left for a while.
    pub epoch: i32,
    /// The one before.
    pub previous_epoch: i32,
    /// `STABLE`, `UNREVOKED_TASKS` or `UNRELEASED_TASKS`.
    pub state: String,
    /// `group.instance.id` of a static member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Where it is, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// How long it may take to give tasks up, ms.
    pub rebalance_timeout_ms: i32,
    /// Of the topology that it runs.
    pub topology_epoch: i32,
    /// The process that it is a thread of.
    pub process_id: String,
    /// Where its state can be asked for: host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<(String, u16)>,
    /// What the client says of where it is.
    pub client_tags: BTreeMap<String, String>,
    /// Active tasks that it has, each with the epoch since when.
    pub active: BTreeMap<String, BTreeMap<i32, i32>>,
    /// Standby tasks that it has.
    pub standby: TaskNumbers,
    /// Active tasks that it is to give up.
    pub revoking_active: BTreeMap<String, BTreeMap<i32, i32>>,
    /// Standby tasks that it is to give up.
    pub revoking_standby: TaskNumbers,
    /// Active tasks that it is to have.
    pub target_active: TaskNumbers,
    /// Standby tasks that it is to have.
    pub target_standby: TaskNumbers,
}

/// What an application reads, keeps and writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Counts its versions.
    pub epoch: i32,
    /// Its parts, by name.
    pub subtopologies: BTreeMap<String, Subtopology>,
}

/// A part of a [`Topology`]: one task for each partition of its topics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subtopology {
    /// Topics that it reads, which somebody else makes.
    pub source_topics: Vec<String>,
    /// Topics that it writes for other parts.
    pub repartition_sink_topics: Vec<String>,
    /// Topics that it reads, which other parts write.
    pub repartition_source_topics: Vec<InternalTopicRecord>,
    /// Topics that keep its state.
    pub changelog_topics: Vec<InternalTopicRecord>,
    /// Topics that must have the same number of partitions.
    pub copartition_groups: Vec<CopartitionGroup>,
}

/// A topic that the group makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternalTopicRecord {
    /// Its name.
    pub name: String,
    /// How many partitions; 0 as many as the topics that it depends on.
    pub partitions: i32,
    /// 0 as the broker's configuration says.
    pub replication_factor: i16,
    /// Its configuration.
    pub configs: BTreeMap<String, String>,
}

/// Places in the lists of topics of a [`Subtopology`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopartitionGroup {
    /// In `source_topics`.
    pub source_topics: Vec<i16>,
    /// In `repartition_source_topics`.
    pub repartition_source_topics: Vec<i16>,
}

impl Subtopology {
    /// Names of all topics that its tasks read.
    pub fn inputs(&self) -> impl Iterator<Item = &String> {
        let repartitioned = self.repartition_source_topics.iter();
        self.source_topics
            .iter()
            .chain(repartitioned.map(|topic| &topic.name))
    }

    /// Names of the topics that the group makes for it.
    pub fn made(&self) -> impl Iterator<Item = &String> {
        self.internal_topics().map(|topic| &topic.name)
    }

    /// The topics that the group makes for it.
    pub fn internal_topics(&self) -> impl Iterator<Item = &InternalTopicRecord> {
        self.repartition_source_topics
            .iter()
            .chain(&self.changelog_topics)
    }
}

impl Topology {
    /// Names of all topics that must be there.
    pub fn required_topics(&self) -> impl Iterator<Item = &String> {
        self.subtopologies
            .values()
            .flat_map(|part| part.source_topics.iter().chain(part.made()))
    }

    /// Whether any part reads a topic.
    pub fn reads(&self, topic: &str) -> bool {
        let mut inputs = self.subtopologies.values().flat_map(Subtopology::inputs);
        inputs.any(|name| name == topic)
    }

    /// The first part that reads each topic, by the topics.
    pub fn readers(&self) -> HashMap<&str, &String> {
        let mut readers = HashMap::new();
        for (name, part) in &self.subtopologies {
            for topic in part.inputs() {
                readers.entry(&**topic).or_insert(name);
            }
        }
        readers
    }
}
