//! Changes to the state of partitions, which the controller alone writes: what a leader proposes of its in-sync replicas
//! (AlterPartition, KIP-497), and who leads as brokers come and go.
//!
//! No write checks the version of the node that it replaces. The state that a change starts from is the image's, which is the
//! tree's: it was read after the election, nobody but the controller writes these nodes, each of its writes checks that its
//! term lasts, and the lock for changes is held from what is read to the image that follows. Where a write fails, what is in
//! the tree is read again before the lock is given back, and where that fails too, the term ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::changes::ClusterError;
use super::controller::Controller;
use super::elections::{Change, Rules};
use super::image::{Image, PartitionInfo, Topic};
use super::topic_nodes;
use crate::config::TopicConfig;
use crate::meta::gather;

/// A leader's proposal (AlterPartition), or that of any replica in sync whose files cannot be used: that it is so no more. Where
/// it led, another one does then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrProposal {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub index: i32,
    /// The epoch that the leader leads in.
    pub leader_epoch: i32,
    /// The state that it starts from.
    pub partition_epoch: i32,
    /// Those that it would have in sync, each with the number of its registration as the leader saw it; -1 where it does not
    /// know.
    pub isr: Vec<(i32, i64)>,
    /// Whether the leader still recovers from an election that was not clean.
    pub is_recovering: bool,
}

/// Why a proposal is refused; Kafka's ReplicationControlManager.validateAlterPartitionData.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IsrRefusal {
    /// No topic has that id.
    #[error("no such topic")]
    UnknownTopic,
    /// It has no such partition.
    #[error("no such partition")]
    UnknownPartition,
    /// The leader knows a later state: this broker may not be the controller any more.
    #[error("the leader knows a later state than the controller")]
    NotController,
    /// Another leader epoch has begun.
    #[error("another leader epoch has begun")]
    FencedLeaderEpoch,
    /// It does not lead the partition, or proposes what cannot be.
    #[error("not from the leader, or not of the replicas, or without the leader")]
    InvalidRequest,
    /// The state is another one by now.
    #[error("the state of the partition is another one by now")]
    InvalidUpdateVersion,
    /// A member is not there, or is not the one that the leader saw.
    #[error("a broker of it is not registered, shuts down, or is registered anew")]
    IneligibleReplica,
    /// It is done, and another broker leads now.
    #[error("another broker leads from now on")]
    NewLeaderElected,
}

/// Topics on their way to another state.
pub(super) struct Planned {
    image: Arc<Image>,
    topics: BTreeMap<Arc<str>, Topic>,
}

impl Planned {
    pub(super) fn of(image: Arc<Image>) -> Self {
        Self {
            image,
            topics: BTreeMap::new(),
        }
    }

    /// A topic as it is to be.
    pub(super) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics
            .get(name)
            .or_else(|| self.image.topic(name).map(|topic| &**topic))
    }

    /// Gives a partition another state.
    pub(super) fn put(&mut self, topic: &Arc<Topic>, index: usize, info: PartitionInfo) {
        let planned = self.topics.entry(topic.name.clone());
        let planned = planned.or_insert_with(|| Topic::clone(topic));
        if let Some(known) = planned.partitions.get_mut(index) {
            *known = info;
        }
    }
}

impl Controller {
    /// What a leader proposes of partitions, all in as few writes as they take: the state that each has from now on. Only as
    /// the controller. A leader whose registration is another one is told so (STALE_BROKER_EPOCH).
    pub async fn alter_partitions(
        &self,
        leader: i32,
        leader_registration: i64,
        proposals: Vec<IsrProposal>,
    ) -> Result<Vec<Result<PartitionInfo, IsrRefusal>>, ClusterError> {
        let _change = self.view.lock_changes().await;
        if !self.is_controller() {
            return Err(ClusterError::NotController);
        }
        let image = self.view.image();
        let registered = image.brokers.get(&leader).map(|broker| broker.epoch);
        if registered != Some(leader_registration) {
            return Err(ClusterError::StaleBroker);
        }
        let mut planned = Planned::of(image);
        let results = proposals
            .iter()
            .map(|proposal| self.alter(&mut planned, leader, proposal))
            .collect();
        self.store_planned(planned).await?;
        Ok(results)
    }

    fn alter(
        &self,
        planned: &mut Planned,
        leader: i32,
        proposal: &IsrProposal,
    ) -> Result<PartitionInfo, IsrRefusal> {
        let image = planned.image.clone();
        let known = image.topic_by_id(proposal.topic_id);
        let known = known.ok_or(IsrRefusal::UnknownTopic)?;
        let topic = planned.topic(&known.name).unwrap_or(known);
        let info = topic.partition(proposal.index);
        let info = info.ok_or(IsrRefusal::UnknownPartition)?;
        let rules = self.rules_for(&image, known);
        check(info, leader, proposal)?;
        check_members(rules, leader, &proposal.isr)?;
        let led_by = info.leader;
        let mut change = Change::of(info, rules);
        change.isr = proposal.isr.iter().map(|(id, _)| *id).collect();
        let resigned = BTreeSet::from([leader]);
        if resigns(info, leader, proposal) {
            change.lost = &resigned;
        }
        let Some(after) = change.made() else {
            return Ok(info.clone());
        };
        tracing::debug!(
            topic = %known.name, partition = proposal.index, isr = ?after.isr, before = ?info.isr,
            "in-sync replicas changed"
        );
        planned.put(known, proposal.index as usize, after.clone());
        match after.leader == led_by {
            true => Ok(after),
            false => Err(IsrRefusal::NewLeaderElected),
        }
    }

    /// In-sync replicas that acks=all needs of a topic: no more than there are replicas (Kafka's getTopicEffectiveMinIsr).
    pub fn min_in_sync(&self, topic: &Topic) -> usize {
        let broker = &self.view.reconciler().defaults_for(&topic.name);
        let overrides = &topic.overrides;
        min_isr(topic, &TopicConfig { overrides, broker })
    }

    /// What elections of a topic go by.
    pub(super) fn rules_for<'a>(&self, image: &'a Image, topic: &Topic) -> Rules<'a> {
        let broker = &self.view.reconciler().defaults_for(&topic.name);
        let overrides = &topic.overrides;
        let config = TopicConfig { overrides, broker };
        Rules {
            brokers: &image.brokers,
            drained: &image.drained,
            min_isr: min_isr(topic, &config),
            unclean: config.get("unclean.leader.election.enable") == "true",
            strict: config.is_strictly_ordered(),
        }
    }

    /// Writes what is planned, as many topics and partitions in a write as it takes, and makes it known. By the holder of
    /// the lock for changes.
    pub(super) async fn store_planned(&self, planned: Planned) -> Result<(), ClusterError> {
        let Planned { image, mut topics } = planned;
        topics.retain(|_, topic| !self.view.is_lost(topic));
        let pairs = topics.values().filter_map(|after| {
            let before = image.topic(&after.name)?;
            Some(topic_nodes::change(before, after))
        });
        // Each node is a change by itself: it has all that it says of its partitions.
        for (_, ops) in gather(pairs.flatten()) {
            if let Err(error) = self.change_as_controller(ops).await {
                self.read_again(topics.keys()).await;
                return Err(error);
            }
        }
        if !topics.is_empty() {
            let changed = topics.into_values();
            self.view.apply(|image| image.put(changed)).await;
        }
        Ok(())
    }

    /// Learns what became of topics some of whose nodes may have been written.
    pub(super) async fn read_again<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) {
        let names = names.map(|name| name.to_string()).collect();
        // A server that lags may have less than what was written.
        let read = match self.view.meta.sync().await {
            Ok(()) => self.view.read_topics(Some(&names)).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = read {
            tracing::warn!(%error, "the state of partitions is not known; beginning anew as the controller");
            self.begin_anew();
        }
    }
}

fn min_isr(topic: &Topic, config: &TopicConfig<'_>) -> usize {
    let replicas = topic.partitions.first();
    let replicas = replicas.map_or(1, |info| info.replicas.len());
    let asked: usize = config.get("min.insync.replicas").parse().unwrap_or(1);
    asked.min(replicas)
}

/// Whether a replica that is in sync proposes that the others are.
fn resigns(info: &PartitionInfo, id: i32, proposal: &IsrProposal) -> bool {
    let others = info.isr.iter().filter(|member| **member != id);
    let mut others: Vec<i32> = others.copied().collect();
    let mut proposed: Vec<i32> = proposal.isr.iter().map(|(id, _)| *id).collect();
    others.sort_unstable();
    proposed.sort_unstable();
    info.isr.contains(&id) && !others.is_empty() && proposed == others
}

/// Whether a leader may propose this of a partition, in Kafka's order.
fn check(info: &PartitionInfo, leader: i32, proposal: &IsrProposal) -> Result<(), IsrRefusal> {
    if proposal.leader_epoch > info.leader_epoch || proposal.partition_epoch > info.partition_epoch
    {
        return Err(IsrRefusal::NotController);
    }
    if proposal.leader_epoch < info.leader_epoch {
        return Err(IsrRefusal::FencedLeaderEpoch);
    }
    let resigns = resigns(info, leader, proposal);
    if leader != info.leader && !resigns {
        return Err(IsrRefusal::InvalidRequest);
    }
    if proposal.partition_epoch < info.partition_epoch {
        return Err(IsrRefusal::InvalidUpdateVersion);
    }
    let mut isr: Vec<i32> = proposal.isr.iter().map(|(id, _)| *id).collect();
    isr.sort_unstable();
    let are_different = isr.windows(2).all(|pair| pair[0] < pair[1]);
    let are_replicas = isr.iter().all(|id| info.replicas.contains(id));
    // None recovers for long here: an election that is not clean leaves a leader like any other.
    let has_proposer = resigns || isr.contains(&leader);
    if !are_different || !are_replicas || !has_proposer || proposal.is_recovering {
        return Err(IsrRefusal::InvalidRequest);
    }
    Ok(())
}

/// Whether the members are there, as the leader saw them (KIP-841, KIP-903): a fetch of a former life of a broker adds
/// nothing. A leader that is about to stop leads on only where no other one is in sync; it may propose one.
fn check_members(rules: Rules<'_>, leader: i32, isr: &[(i32, i64)]) -> Result<(), IsrRefusal> {
    let is_eligible = |(id, epoch): &(i32, i64)| {
        let may_be = *id == leader || rules.is_active(*id);
        let registered = rules.brokers.get(id).filter(|_| may_be);
        registered.is_some_and(|broker| *epoch == -1 || broker.epoch == *epoch)
    };
    match isr.iter().all(is_eligible) {
        true => Ok(()),
        false => Err(IsrRefusal::IneligibleReplica),
    }
}

#[cfg(test)]
mod tests {
    use super::super::changes::NewTopic;
    use super::super::cluster::Cluster;
    use super::super::testing::{alone, dies, register, text};
    use super::*;
    use crate::meta::paths;

    /// Broker 0, with 1 and 2 beside it, and a topic of partitions on all three, the first led by broker 0.
    async fn with_topic(dir: &std::path::Path) -> (Cluster, Uuid) {
        let cluster = alone(dir).await;
        register(&cluster, &[(1, 11), (2, 12)]).await;
        let wanted = [NewTopic {
            partitions: 3,
            replication_factor: 3,
            ..NewTopic::with_defaults("t")
        }];
        let made = cluster.controller().create_topics(&wanted, false).await;
        let id = made[0].as_ref().unwrap().id;
        (cluster, id)
    }

    fn proposal(topic_id: Uuid, index: i32, isr: &[(i32, i64)]) -> IsrProposal {
        IsrProposal {
            topic_id,
            index,
            leader_epoch: 0,
            partition_epoch: 0,
            isr: isr.to_vec(),
            is_recovering: false,
        }
    }

    async fn alter(
        cluster: &Cluster,
        leader: i32,
        proposals: Vec<IsrProposal>,
    ) -> Vec<Result<PartitionInfo, IsrRefusal>> {
        let registration = cluster.image().brokers[&leader].epoch;
        let altered = cluster.alter_partitions(leader, registration, proposals);
        altered.await.unwrap()
    }

    #[tokio::test]
    async fn what_a_leader_proposes_is_in_the_tree_and_known() {
        let dir = tempfile::tempdir().unwrap();
        let (cluster, id) = with_topic(dir.path()).await;
        let shrunk = alter(&cluster, 0, vec![proposal(id, 0, &[(0, -1), (2, 12)])]).await;
        let info = shrunk[0].clone().unwrap();
        assert_eq!((info.isr.clone(), info.leader), (vec![0, 2], 0));
        assert_eq!((info.leader_epoch, info.partition_epoch), (0, 1));
        let image = cluster.image();
        assert_eq!(image.topic("t").unwrap().partition(0), Some(&info));
        let path = paths::partition_states_from("t", 0);
        let states = text(cluster.meta(), &path).await.unwrap();
        let state = r#""0":{"leader":0,"leader_epoch":0,"replicas":[0,1,2],"isr":[0,2],"partition_epoch":1}"#;
        assert!(states.contains(state), "{states}");
        // The same once more comes from a state that is over; from the one that is, it changes nothing.
        let again = alter(&cluster, 0, vec![proposal(id, 0, &[(0, -1)])]).await;
        assert_eq!(again, [Err(IsrRefusal::InvalidUpdateVersion)]);
        let mut same = proposal(id, 0, &[(2, 12), (0, -1)]);
        same.partition_epoch = 1;
        assert_eq!(alter(&cluster, 0, vec![same]).await, [Ok(info)]);
    }

    #[tokio::test]
    async fn proposals_are_refused_in_kafkas_order() {
        let dir = tempfile::tempdir().unwrap();
        let (cluster, id) = with_topic(dir.path()).await;
        let good = proposal(id, 0, &[(0, -1), (1, 11)]);
        let with = |change: fn(&mut IsrProposal)| {
            let mut proposal = good.clone();
            change(&mut proposal);
            proposal
        };
        let cases: Vec<(IsrProposal, IsrRefusal)> = vec![
            (
                with(|it| it.topic_id = Uuid::nil()),
                IsrRefusal::UnknownTopic,
            ),
            (with(|it| it.index = 3), IsrRefusal::UnknownPartition),
            (with(|it| it.index = -1), IsrRefusal::UnknownPartition),
            (with(|it| it.leader_epoch = 1), IsrRefusal::NotController),
            (with(|it| it.partition_epoch = 1), IsrRefusal::NotController),
            (
                with(|it| it.leader_epoch = -1),
                IsrRefusal::FencedLeaderEpoch,
            ),
            // Broker 1 leads it.
            (with(|it| it.index = 1), IsrRefusal::InvalidRequest),
            (
                with(|it| it.partition_epoch = -1),
                IsrRefusal::InvalidUpdateVersion,
            ),
            (
                with(|it| it.isr = vec![(1, 11)]),
                IsrRefusal::InvalidRequest,
            ),
            (with(|it| it.isr.push((0, -1))), IsrRefusal::InvalidRequest),
            (with(|it| it.isr.push((7, -1))), IsrRefusal::InvalidRequest),
            (
                with(|it| it.is_recovering = true),
                IsrRefusal::InvalidRequest,
            ),
            (
                with(|it| it.isr.push((2, 11))),
                IsrRefusal::IneligibleReplica,
            ),
        ];
        let proposals = cases.iter().map(|(proposal, _)| proposal.clone());
        let refused = alter(&cluster, 0, proposals.collect()).await;
        let expected: Vec<_> = cases.iter().map(|(_, why)| Err(*why)).collect();
        assert_eq!(refused, expected);
        let untouched = text(cluster.meta(), &paths::partition_states_from("t", 0)).await;
        assert_eq!(untouched, None);
        let stale = cluster.alter_partitions(1, 10, vec![good.clone()]).await;
        assert!(matches!(stale, Err(ClusterError::StaleBroker)));
        let unknown = cluster.alter_partitions(7, 1, vec![good.clone()]).await;
        assert!(matches!(unknown, Err(ClusterError::StaleBroker)));
        cluster.controller().begin_anew();
        let none = cluster.alter_partitions(0, 1, vec![good]).await;
        assert!(matches!(none, Err(ClusterError::NotController)));
    }

    #[tokio::test]
    async fn a_replica_that_cannot_use_its_files_takes_itself_out_and_another_one_leads() {
        let dir = tempfile::tempdir().unwrap();
        let (cluster, id) = with_topic(dir.path()).await;
        // One that follows.
        let follower = alter(&cluster, 2, vec![proposal(id, 0, &[(0, -1), (1, -1)])]).await;
        let info = follower[0].clone().unwrap();
        assert_eq!((info.leader, info.leader_epoch), (0, 0));
        assert_eq!(info.isr, [0, 1]);
        // It is not in sync any more.
        let mut again = proposal(id, 0, &[(0, -1)]);
        again.partition_epoch = 1;
        let refused = alter(&cluster, 2, vec![again.clone()]).await;
        assert_eq!(refused, [Err(IsrRefusal::InvalidRequest)]);
        // Nor may one that follows say it of others.
        let refused = alter(
            &cluster,
            1,
            vec![IsrProposal {
                isr: vec![(1, -1)],
                ..again.clone()
            }],
        );
        assert_eq!(refused.await, [Err(IsrRefusal::InvalidRequest)]);
        // The leader, whose follower has to be there.
        again.isr = vec![(1, -1)];
        dies(&cluster, 1).await;
        let info = cluster.image().topic("t").unwrap().partitions[0].clone();
        assert_eq!(info.isr, [0]);
        register(&cluster, &[(1, 12), (2, 12)]).await;
        let mut joins = proposal(id, 0, &[(0, -1), (1, -1)]);
        joins.partition_epoch = info.partition_epoch;
        let joined = alter(&cluster, 0, vec![joins]).await[0].clone().unwrap();
        again.partition_epoch = joined.partition_epoch;
        let resigned = alter(&cluster, 0, vec![again]).await;
        assert_eq!(resigned, [Err(IsrRefusal::NewLeaderElected)]);
        let info = cluster.image().topic("t").unwrap().partitions[0].clone();
        assert_eq!((info.leader, info.leader_epoch), (1, 1));
        assert_eq!(info.isr, [1]);
        // It is not counted on either where too few are left.
        let wanted = [NewTopic {
            assignments: BTreeMap::from([(0, vec![0, 1])]),
            config: vec![("min.insync.replicas".to_owned(), Some("2".to_owned()))],
            ..NewTopic::with_defaults("u")
        }];
        let made = cluster.controller().create_topics(&wanted, false).await;
        let id = made[0].as_ref().unwrap().id;
        let resigned = alter(&cluster, 0, vec![proposal(id, 0, &[(1, -1)])]).await;
        assert_eq!(resigned, [Err(IsrRefusal::NewLeaderElected)]);
        let info = cluster.image().topic("u").unwrap().partitions[0].clone();
        assert_eq!((info.isr, info.elr), (vec![1], vec![]));
    }

    #[tokio::test]
    async fn a_fetch_of_a_brokers_former_life_adds_it_to_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (cluster, id) = with_topic(dir.path()).await;
        let shrunk = alter(&cluster, 0, vec![proposal(id, 0, &[(0, -1)])]).await;
        assert!(shrunk[0].is_ok());
        register(&cluster, &[(1, 21)]).await;
        let mut former = proposal(id, 0, &[(0, -1), (1, 11)]);
        former.partition_epoch = cluster.image().topic("t").unwrap().partitions[0].partition_epoch;
        let refused = alter(&cluster, 0, vec![former.clone()]).await;
        assert_eq!(refused, [Err(IsrRefusal::IneligibleReplica)]);
        former.isr[1].1 = 21;
        let added = alter(&cluster, 0, vec![former]).await;
        assert_eq!(added[0].as_ref().unwrap().isr, [0, 1]);
    }

    #[tokio::test]
    async fn of_two_proposals_of_one_partition_the_second_comes_from_a_state_that_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let (cluster, id) = with_topic(dir.path()).await;
        let both = vec![
            proposal(id, 0, &[(0, -1), (1, 11)]),
            proposal(id, 0, &[(0, -1), (2, 12)]),
        ];
        let altered = alter(&cluster, 0, both).await;
        assert_eq!(altered[0].as_ref().unwrap().isr, [0, 1]);
        assert_eq!(altered[1], Err(IsrRefusal::InvalidUpdateVersion));
    }
}
