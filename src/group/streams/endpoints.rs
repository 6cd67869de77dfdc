//! Where the state of which partitions can be asked for (Kafka's EndpointToPartitionsManager): each member that says where it
//! listens, with the partitions that its tasks read.

use std::collections::BTreeSet;

use super::member::{Endpoint, StreamsMember};
use super::tasks::TaskSet;
use crate::coordinator::Topics;
use crate::meta::streams_records::Topology;

/// A member that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPartitions {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Topics with the partitions that it reads.
    pub active: Vec<(String, Vec<i32>)>,
    /// Topics with the partitions whose state it has a copy of.
    pub standby: Vec<(String, Vec<i32>)>,
}

/// Of those members that say where they listen.
pub(super) fn of<'a>(
    members: impl Iterator<Item = &'a StreamsMember>,
    topology: &Topology,
    topics: &dyn Topics,
) -> Vec<EndpointPartitions> {
    let of_member = |member: &StreamsMember| {
        let endpoint = member.metadata.endpoint.clone()?;
        let active = member.assigned.active.tasks();
        Some(EndpointPartitions {
            endpoint,
            active: partitions(&active, topology, topics),
            standby: partitions(&member.assigned.standby, topology, topics),
        })
    };
    members.filter_map(of_member).collect()
}

/// A part has as many tasks as its topic with the most partitions: topics with fewer have none for the last tasks.
fn partitions(
    tasks: &TaskSet,
    topology: &Topology,
    topics: &dyn Topics,
) -> Vec<(String, Vec<i32>)> {
    let mut found = Vec::new();
    for (name, numbers) in tasks.lists() {
        let Some(part) = topology.subtopologies.get(&name) else {
            continue;
        };
        for topic in part.inputs().collect::<BTreeSet<_>>() {
            let count = topics.shape_of(topic).map_or(0, |(_, count)| count);
            let there = numbers.iter().copied().filter(|n| *n < count);
            let there: Vec<i32> = there.collect();
            if !there.is_empty() {
                found.push((topic.clone(), there));
            }
        }
    }
    found
}
