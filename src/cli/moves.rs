//! Moving replicas and leaders of a cluster, as its controller does it: what there is, what moves, and waiting for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use metaq_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use metaq_protocol::messages::elect_leaders_request::TopicPartitions;
use metaq_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, ElectLeadersRequest,
    ListPartitionReassignmentsRequest, MetadataResponse,
};
use serde::Serialize;

use super::Failure;
use super::client::{Client, topic_name};
use super::config::describe;
use super::refused::{check, check_right};
use super::spread::{Host, Hosts, spread};
use crate::cluster::{DRAINED, is_internal_name};
use crate::security::Operation;

pub(super) const BROKER_RESOURCE: i8 = 4;
pub(super) const TOPIC_RESOURCE: i8 = 2;
const TIMEOUT_MS: i32 = 30_000;
const PREFERRED: i8 = 0;
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How often it is said how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// A partition that does not move, and is not where it was to be for so long, was sent elsewhere by somebody else.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// A partition, and the brokers that keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Known {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) leader: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) isr: Vec<i32>,
}

/// Brokers that are there, with their racks, and the partitions of topics.
pub(super) struct Layout {
    pub(super) racks: BTreeMap<i32, Option<String>>,
    pub(super) partitions: Vec<Known>,
}

impl Layout {
    /// Of some topics, each of which must be there, or of all but internal ones.
    pub(super) fn ask(client: &mut Client, topics: Option<&[String]>) -> Result<Self, Failure> {
        let names: Option<Vec<&str>> =
            topics.map(|topics| topics.iter().map(String::as_str).collect());
        let metadata = client.metadata(names.as_deref())?;
        Self::of(&metadata, names.is_some())
    }

    /// Of all topics but internal ones, as the controller has it.
    pub(super) fn of_controller(client: &mut Client) -> Result<Self, Failure> {
        Self::of(&client.metadata_of_controller(None)?, false)
    }

    fn of(metadata: &MetadataResponse, must_be_there: bool) -> Result<Self, Failure> {
        let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<i32>>();
        let rack = |rack: String| Some(rack).filter(|rack| !rack.is_empty());
        let racks = metadata.brokers.iter().map(|broker| {
            let named = broker.rack.as_ref().map(ToString::to_string);
            (broker.node_id.0, named.and_then(rack))
        });
        let racks = racks.collect();
        let mut partitions = Vec::new();
        for topic in &metadata.topics {
            let name = topic.name.as_ref().map(|name| name.to_string());
            let name = name.unwrap_or_default();
            if must_be_there {
                check(&name, topic.error_code, None)?;
            } else if is_internal_name(&name) {
                continue;
            }
            partitions.extend(topic.partitions.iter().map(|partition| Known {
                topic: name.clone(),
                partition: partition.partition_index,
                leader: partition.leader_id.0,
                replicas: ids(&partition.replica_nodes),
                isr: ids(&partition.isr_nodes),
            }));
        }
        partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(Self { racks, partitions })
    }

    /// Brokers that replicas may go to: some of those that are there, or all.
    pub(super) fn hosts(
        &self,
        client: &mut Client,
        named: Option<&[i32]>,
    ) -> Result<Hosts, Failure> {
        if let Some(away) = named.and_then(|ids| ids.iter().find(|id| !self.racks.contains_key(id)))
        {
            return Err(format!("broker {away} is not there").into());
        }
        let meant = |id: &i32| named.is_none_or(|ids| ids.contains(id));
        let mut hosts = Hosts::new();
        for (id, rack) in self.racks.iter().filter(|(id, _)| meant(id)) {
            let host = Host {
                rack: rack.clone(),
                leads: reluctance(client, *id)?.is_none(),
                kept: 0,
            };
            hosts.insert(*id, host);
        }
        Ok(hosts)
    }
}

/// Why a broker does not lead where another one could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reluctance {
    /// It is drained.
    Drained,
    /// It never leads (`broker.follows.only`).
    FollowsOnly,
    /// It takes no messages (`accept.publish`).
    TakesNothing,
}

/// Why a broker that is there does not lead where another one could; `None` where it does.
pub(super) fn reluctance(client: &mut Client, id: i32) -> Result<Option<Reluctance>, Failure> {
    let configs = describe(client, Some(id), BROKER_RESOURCE, &id.to_string())?;
    let is_set = |key: &str, value: &str| {
        let mut configs = configs.iter();
        let found = configs.find(|config| config.name.as_str() == key);
        found.is_some_and(|config| config.value.as_deref() == Some(value))
    };
    let reasons = [
        (Reluctance::Drained, DRAINED, "true"),
        (Reluctance::FollowsOnly, "broker.follows.only", "true"),
        (Reluctance::TakesNothing, "accept.publish", "false"),
    ];
    let mut reasons = reasons.into_iter();
    let found = reasons.find(|(_, key, value)| is_set(key, value));
    Ok(found.map(|(reason, ..)| reason))
}

/// Whether the home broker of each of a topic's partitions alone leads it.
pub(super) fn is_strictly_ordered(client: &mut Client, topic: &str) -> Result<bool, Failure> {
    let configs = describe(client, None, TOPIC_RESOURCE, topic)?;
    let mut configs = configs.iter();
    let found = configs.find(|config| config.name.as_str() == "ordering");
    Ok(found.is_some_and(|config| config.value.as_deref() == Some("strict")))
}

/// A partition whose replicas are to be others, or in another order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Move {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) planned: Vec<i32>,
    /// Brokers that have to copy it.
    pub(super) copied_to: Vec<i32>,
}

/// What changes, where partitions are spread over some brokers.
pub(super) fn plan(hosts: &Hosts, partitions: &[Known], factor: Option<usize>) -> Vec<Move> {
    let before: Vec<Vec<i32>> = partitions
        .iter()
        .map(|known| known.replicas.clone())
        .collect();
    let after = spread(hosts, &before, factor);
    let moved = partitions.iter().zip(after).filter_map(|(known, planned)| {
        let copied_to = planned.iter().filter(|id| !known.replicas.contains(id));
        let moved = Move {
            topic: known.topic.clone(),
            partition: known.partition,
            replicas: known.replicas.clone(),
            copied_to: copied_to.copied().collect(),
            planned,
        };
        (moved.planned != moved.replicas).then_some(moved)
    });
    moved.collect()
}

/// A partition that is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Ongoing {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) adding: Vec<i32>,
    pub(super) removing: Vec<i32>,
}

/// All partitions that are on their way.
pub(super) fn ongoing(client: &mut Client) -> Result<Vec<Ongoing>, Failure> {
    let request = ListPartitionReassignmentsRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_topics(None);
    let response = client.ask(0, &request)?;
    let refused = (response.error_code, response.error_message.as_deref());
    check_right("moves", refused, (Operation::Describe, "the cluster"))?;
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
    let mut all = Vec::new();
    for topic in &response.topics {
        all.extend(topic.partitions.iter().map(|partition| Ongoing {
            topic: topic.name.to_string(),
            partition: partition.partition_index,
            replicas: ids(&partition.replicas),
            adding: ids(&partition.adding_replicas),
            removing: ids(&partition.removing_replicas),
        }));
    }
    Ok(all)
}

/// Has the controller move partitions, or take back that they move, where no replicas are named.
pub(super) fn submit(
    client: &mut Client,
    partitions: &[(&str, i32, Option<&[i32]>)],
) -> Result<(), Failure> {
    let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
    for (topic, partition, replicas) in partitions {
        let ids = replicas.map(|ids| ids.iter().map(|id| BrokerId(*id)).collect());
        let partition = ReassignablePartition::default()
            .with_partition_index(*partition)
            .with_replicas(ids);
        topics.entry(topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        ReassignableTopic::default()
            .with_name(topic_name(name))
            .with_partitions(partitions)
    });
    let request = AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_topics(topics.collect());
    let response = client.ask(0, &request)?;
    let refused = (response.error_code, response.error_message.as_deref());
    check_right("moves", refused, (Operation::Alter, "the cluster"))?;
    let mut refused = Vec::new();
    for topic in &response.responses {
        for partition in &topic.partitions {
            let what = format!("{}-{}", &**topic.name, partition.partition_index);
            let message = partition.error_message.as_deref();
            refused.extend(check(&what, partition.error_code, message).err());
        }
    }
    match refused.len() {
        0 => Ok(()),
        1 => Err(refused.remove(0)),
        n => Err(format!("{n} partitions are refused, such as {}", refused[0]).into()),
    }
}

/// Moves partitions, waits until they are where they are to be, and has the first of their replicas lead them.
pub(super) fn carry_out(client: &mut Client, moves: &[Move]) -> Result<(), Failure> {
    let wanted = moves.iter();
    let wanted = wanted.map(|one| (one.topic.as_str(), one.partition, Some(&one.planned[..])));
    submit(client, &wanted.collect::<Vec<_>>())?;
    let topics: BTreeSet<String> = moves.iter().map(|one| one.topic.clone()).collect();
    let topics: Vec<String> = topics.into_iter().collect();
    let (mut told, mut moved) = (Instant::now(), Instant::now());
    loop {
        let layout = Layout::ask(client, Some(&topics))?;
        let left = unfinished(moves, &layout.partitions);
        if left.is_empty() {
            break;
        }
        let on_the_way = ongoing(client)?;
        let is_left = |one: &Ongoing| left.contains(&(one.topic.as_str(), one.partition));
        if on_the_way.iter().any(is_left) {
            moved = Instant::now();
        } else if moved.elapsed() > LOST_AFTER {
            let n = left.len();
            return Err(format!(
                "{n} partitions are not where they were to be: somebody else moved them, or took it back"
            )
            .into());
        }
        if told.elapsed() > TOLD_EVERY {
            told = Instant::now();
            eprintln!("{} of {} partitions still move", left.len(), moves.len());
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    let led = moves.iter().map(|one| (one.topic.as_str(), one.partition));
    elect_preferred(client, &led.collect::<Vec<_>>()).map(drop)
}

/// Of partitions that move, those that are not there yet.
fn unfinished<'a>(moves: &'a [Move], known: &[Known]) -> BTreeSet<(&'a str, i32)> {
    let now: BTreeMap<(&str, i32), &[i32]> = known
        .iter()
        .map(|known| ((known.topic.as_str(), known.partition), &known.replicas[..]))
        .collect();
    let names = moves.iter();
    let names = names.map(|one| ((one.topic.as_str(), one.partition), &one.planned[..]));
    let left = names.filter(|(name, planned)| now.get(name) != Some(planned));
    left.map(|(name, _)| name).collect()
}

/// Has the first replicas of partitions lead them, where they are in sync; how many lead now that did not.
pub(super) fn elect_preferred(
    client: &mut Client,
    partitions: &[(&str, i32)],
) -> Result<usize, Failure> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        TopicPartitions::default()
            .with_topic(topic_name(name))
            .with_partitions(partitions)
    });
    let request = ElectLeadersRequest::default()
        .with_election_type(PREFERRED)
        .with_topic_partitions(Some(topics.collect()))
        .with_timeout_ms(TIMEOUT_MS);
    let response = client.ask(2, &request)?;
    let refused = (response.error_code, None);
    check_right("elections", refused, (Operation::Alter, "the cluster"))?;
    let results = response.replica_election_results.iter();
    let results = results.flat_map(|topic| &topic.partition_result);
    Ok(results.filter(|result| result.error_code == 0).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(partition: i32, replicas: &[i32]) -> Known {
        Known {
            topic: "t".to_owned(),
            partition,
            leader: replicas[0],
            replicas: replicas.to_vec(),
            isr: replicas.to_vec(),
        }
    }

    #[test]
    fn a_plan_names_what_changes_and_is_done_when_the_replicas_are_those() {
        let host = Host {
            leads: true,
            ..Host::default()
        };
        let hosts: Hosts = (0..3).map(|id| (id, host.clone())).collect();
        let before = [known(0, &[0, 1]), known(1, &[0, 1]), known(2, &[1, 0])];
        let moves = plan(&hosts, &before, None);
        let copied: usize = moves.iter().map(|one| one.copied_to.len()).sum();
        assert_eq!(copied, 2, "{moves:?}");
        assert_eq!(unfinished(&moves, &before).len(), moves.len());
        let mut after = before.to_vec();
        for one in &moves {
            after[one.partition as usize]
                .replicas
                .clone_from(&one.planned);
        }
        assert!(unfinished(&moves, &after).is_empty());
        assert!(plan(&hosts, &after, None).is_empty());
        // On its way it has those that go, too.
        after[moves[0].partition as usize].replicas.push(9);
        assert_eq!(unfinished(&moves, &after).len(), 1);
    }
}
