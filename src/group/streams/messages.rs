//! What members of a streams group say, and what they are told.

use std::collections::BTreeMap;

use super::endpoints::EndpointPartitions;
use super::member::{ENTRY_BYTES, Endpoint, Shares};
use super::readiness::TopicToCreate;
use super::status::Status;
use crate::meta::streams_records::{Subtopology, Topology};

/// Partitions of subtopologies.
type Lists = Vec<(String, Vec<i32>)>;

/// Tasks by what a member does with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedLists {
    /// It runs them.
    pub active: Lists,
    /// It keeps a copy of their state.
    pub standby: Lists,
    /// It makes one, to run them.
    pub warmup: Lists,
}

/// What a member says; `None` where it says that nothing changed.
#[derive(Debug, Clone, Default)]
pub struct StreamsHeartbeat {
    /// Made by the client.
    pub member_id: String,
    /// 0 to join, -1 to leave, -2 to leave for a while.
    pub member_epoch: i32,
    /// Of what it knows of endpoints.
    pub endpoint_epoch: i32,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Where it is.
    pub rack: Option<String>,
    /// ms.
    pub rebalance_timeout_ms: Option<i32>,
    /// What the application does; with a join.
    pub topology: Option<Topology>,
    /// What it has.
    pub owned: Option<OwnedLists>,
    /// The process that it is a thread of.
    pub process_id: Option<String>,
    /// Where its state can be asked for.
    pub endpoint: Option<Endpoint>,
    /// What it says of where it is.
    pub client_tags: Option<BTreeMap<String, String>>,
    /// How far its copies of state are.
    pub offsets: Option<BTreeMap<(String, i32), i64>>,
    /// How far they could be.
    pub end_offsets: Option<BTreeMap<(String, i32), i64>>,
    /// Whether the whole application is to end.
    pub shuts_down: bool,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Of the request.
    pub version: i16,
    /// Its shares of the memory for members; set by the coordinator.
    pub reserved: Shares,
}

impl StreamsHeartbeat {
    /// What the member takes, bytes, roughly.
    pub(in crate::group) fn bytes(&self) -> usize {
        let texts = [&self.instance_id, &self.rack, &self.process_id];
        let texts = texts.into_iter().flatten().map(String::len);
        let endpoint = self.endpoint.iter().map(|endpoint| endpoint.host.len());
        let tags = self.client_tags.iter().flatten();
        let tags = tags.map(|(key, value)| ENTRY_BYTES + key.len() + value.len());
        texts.chain(endpoint).chain(tags).sum()
    }

    /// What the topology takes, bytes, roughly.
    pub(in crate::group) fn topology_bytes(&self) -> usize {
        self.topology.as_ref().map_or(0, topology_bytes)
    }

    /// What its offsets take, and the ends, bytes, roughly.
    pub(in crate::group) fn offset_bytes(&self) -> (usize, usize) {
        let bytes = |offsets: &Option<BTreeMap<(String, i32), i64>>| {
            let offsets = offsets.iter().flatten();
            offsets.map(|((name, _), _)| ENTRY_BYTES + name.len()).sum()
        };
        (bytes(&self.offsets), bytes(&self.end_offsets))
    }

    /// What it says that the member has, bytes, roughly; nothing of that is kept.
    pub(in crate::group) fn owned_bytes(&self) -> usize {
        let owned = self.owned.iter();
        let lists = owned.flat_map(|owned| [&owned.active, &owned.standby, &owned.warmup]);
        let lists = lists.flatten();
        lists
            .map(|(name, partitions)| ENTRY_BYTES + name.len() + 4 * partitions.len())
            .sum()
    }
}

/// What a topology takes, bytes, roughly.
pub(super) fn topology_bytes(topology: &Topology) -> usize {
    let of_part = |(name, part): (&String, &Subtopology)| {
        let names = part
            .source_topics
            .iter()
            .chain(&part.repartition_sink_topics);
        let names = names.map(|name| ENTRY_BYTES + name.len());
        let internal = part.internal_topics().map(|topic| {
            let configs = topic.configs.iter();
            let configs = configs.map(|(key, value)| ENTRY_BYTES + key.len() + value.len());
            ENTRY_BYTES + topic.name.len() + configs.sum::<usize>()
        });
        let together = part.copartition_groups.iter().map(|group| {
            ENTRY_BYTES + 2 * (group.source_topics.len() + group.repartition_source_topics.len())
        });
        ENTRY_BYTES + name.len() + names.chain(internal).chain(together).sum::<usize>()
    };
    topology.subtopologies.iter().map(of_part).sum()
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamsReply {
    /// The member's id.
    pub member_id: String,
    /// Its epoch.
    pub member_epoch: i32,
    /// When to say next that it lives, ms; 0 to a member that left.
    pub heartbeat_interval_ms: i32,
    /// How often to say how far copies of state are, ms.
    pub task_offset_interval_ms: i32,
    /// Records that a copy may be behind to count as up to date.
    pub acceptable_recovery_lag: i64,
    /// What else there is to say.
    pub statuses: Vec<Status>,
    /// What it is to have, where that changed or it joins.
    pub tasks: Option<OwnedLists>,
    /// Of what there is to know of endpoints.
    pub endpoint_epoch: i32,
    /// Where state can be asked for, where the member knows another epoch of it.
    pub endpoints: Option<Vec<EndpointPartitions>>,
    /// Topics that are to be made.
    pub to_create: Vec<TopicToCreate>,
}
