//! Elections that somebody asks for: the preferred leader back, or any replica rather than none (ElectLeaders, KIP-183, 460),
//! or one that is in sync where the order is strict; and the preferred leaders back by themselves.

use std::sync::Arc;
use std::time::Duration;

use super::changes::ClusterError;
use super::cluster::Cluster;
use super::controller::Controller;
use super::elections::{Change, Preference, Rules};
use super::image::{Image, PartitionInfo};
use super::partition_changes::Planned;

/// Whom to elect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// The first replica, where it is in sync.
    Preferred,
    /// Any replica, where none leads and the order is not strict.
    Unclean,
    /// Any replica that is in sync, where none leads because the order is strict.
    FailOver,
}

/// Why none is elected; Kafka's ReplicationControlManager.electLeader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElectionRefusal {
    /// There is no such topic.
    #[error("No such topic as {0}")]
    UnknownTopic(String),
    /// It has no such partition.
    #[error("No such partition as {0}-{1}")]
    UnknownPartition(String, i32),
    /// The one that would be elected leads.
    #[error("Leader election not needed for topic partition.")]
    NotNeeded,
    /// The first replica is not in sync.
    #[error("The preferred leader was not available.")]
    PreferredNotAvailable,
    /// No replica is there.
    #[error("Eligible topic partition leaders are not available.")]
    NoneEligible,
    /// Its home broker alone leads it.
    #[error(
        "{topic}-{index} has ordering=strict, and waits for its home broker {home}. Start that one, or have another replica that is in sync lead: metaq partition fail-over --topic {topic} --start {index} --accept-reordering"
    )]
    StrictOrder {
        /// The topic.
        topic: String,
        /// The partition.
        index: i32,
        /// The broker.
        home: i32,
    },
    /// Others lead it anyway, where they can.
    #[error(
        "{0} has ordering=ordinary: a replica that is in sync leads without being asked to, and any other one by an unclean election."
    )]
    OrdinaryOrder(String),
    /// Its order is strict, and who is there lacks what is committed.
    #[error(
        "No replica of {0}-{1} that is in sync is there. Start a broker that keeps one, or give the topic ordering=ordinary, with which an unclean election has one lead that lacks records."
    )]
    NoneInSync(String, i32),
}

/// Preferred leaders that are elected in one go (Kafka's ReplicationControlManager.maxElectionsPerImbalance).
const ELECTIONS_AT_ONCE: usize = 1000;

impl Controller {
    /// Elects leaders of partitions, each with its result. Only as the controller.
    pub async fn elect_leaders(
        &self,
        election: Election,
        partitions: &[(&str, i32)],
    ) -> Result<Vec<Result<(), ElectionRefusal>>, ClusterError> {
        let _change = self.view.lock_changes().await;
        if !self.is_controller() {
            return Err(ClusterError::NotController);
        }
        let image = self.view.image();
        let mut planned = Planned::of(image.clone());
        let results = partitions
            .iter()
            .map(|(topic, index)| self.plan_election(&image, &mut planned, election, topic, *index))
            .collect();
        self.store_planned(planned).await?;
        Ok(results)
    }

    fn plan_election(
        &self,
        image: &Image,
        planned: &mut Planned,
        election: Election,
        name: &str,
        index: i32,
    ) -> Result<(), ElectionRefusal> {
        let unknown = || ElectionRefusal::UnknownTopic(name.to_owned());
        let known = image.topic(name).ok_or_else(unknown)?;
        let topic = planned.topic(name).unwrap_or(known);
        let unknown = || ElectionRefusal::UnknownPartition(name.to_owned(), index);
        let info = topic.partition(index).ok_or_else(unknown)?;
        let rules = self.rules_for(image, known);
        let is_led = rules.brokers.contains_key(&info.leader);
        match (election, rules.strict) {
            (Election::Unclean, true) if !is_led => {
                return Err(ElectionRefusal::StrictOrder {
                    topic: name.to_owned(),
                    index,
                    home: info.replicas.first().copied().unwrap_or(-1),
                });
            }
            (Election::FailOver, false) => {
                return Err(ElectionRefusal::OrdinaryOrder(name.to_owned()));
            }
            _ => {}
        }
        let after = elected(info, rules, election).map_err(|refusal| match refusal {
            ElectionRefusal::NoneEligible if election == Election::FailOver => {
                ElectionRefusal::NoneInSync(name.to_owned(), index)
            }
            refusal => refusal,
        })?;
        planned.put(known, index as usize, after);
        Ok(())
    }

    /// Elects the preferred leaders that do not lead; how many of them do now.
    pub(super) async fn elect_preferred(&self) -> Result<usize, ClusterError> {
        let image = self.view.image();
        let is_elsewhere = |info: &PartitionInfo| {
            let preferred = info.replicas.first();
            preferred.is_some_and(|id| {
                *id != info.leader && info.isr.contains(id) && image.leads_willingly(*id)
            })
        };
        let elsewhere = image.topics().flat_map(|topic| {
            let infos = (0..).zip(&topic.partitions);
            let moved = infos.filter(|(_, info)| is_elsewhere(info));
            moved.map(|(index, _)| (&*topic.name, index))
        });
        let wanted: Vec<(&str, i32)> = elsewhere.take(ELECTIONS_AT_ONCE).collect();
        if wanted.is_empty() {
            return Ok(0);
        }
        let results = self.elect_leaders(Election::Preferred, &wanted).await?;
        Ok(results.iter().filter(|result| result.is_ok()).count())
    }
}

impl Cluster {
    /// As long as this broker is the controller, gives the lead back to the preferred leaders from time to time.
    pub async fn balance_leaders(self: Arc<Self>) {
        loop {
            let config = self.view.config.load_full();
            let pause = config.number("leader.imbalance.check.interval.seconds");
            tokio::time::sleep(Duration::from_secs(pause.unsigned_abs())).await;
            // Those that are left are elected at once, too.
            while self.is_controller() && config.flag("auto.leader.rebalance.enable") {
                match self.controller.elect_preferred().await {
                    Ok(0) => break,
                    Ok(count) => tracing::info!(count, "preferred leaders lead again"),
                    Err(error) => {
                        tracing::warn!(%error, "cannot elect the preferred leaders");
                        break;
                    }
                }
            }
        }
    }
}

/// What becomes of a partition by an election.
fn elected(
    info: &PartitionInfo,
    rules: Rules<'_>,
    election: Election,
) -> Result<PartitionInfo, ElectionRefusal> {
    let is_led = rules.brokers.contains_key(&info.leader);
    let is_preferred = info.replicas.first() == Some(&info.leader);
    if is_led && (election != Election::Preferred || is_preferred) {
        return Err(ElectionRefusal::NotNeeded);
    }
    let none = match election {
        Election::Preferred => ElectionRefusal::PreferredNotAvailable,
        Election::Unclean | Election::FailOver => ElectionRefusal::NoneEligible,
    };
    if info.is_alone() {
        return Err(none);
    }
    let rules = Rules {
        unclean: rules.unclean || election == Election::Unclean,
        ..rules
    };
    let mut change = Change::of(info, rules);
    change.preference = match election {
        Election::Preferred | Election::Unclean => Preference::FirstReplica,
        Election::FailOver => Preference::AnyInSync,
    };
    change.made().ok_or(none)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::changes::NewTopic;
    use super::super::testing::{alone, dies, register};
    use super::*;

    async fn with_topic(dir: &std::path::Path) -> Cluster {
        let cluster = alone(dir).await;
        register(&cluster, &[(1, 1), (2, 1)]).await;
        let replicas = [vec![1, 2, 0], vec![0, 1, 2]];
        let wanted = [
            NewTopic {
                assignments: (0..).zip(replicas).collect(),
                ..NewTopic::with_defaults("t")
            },
            NewTopic {
                assignments: BTreeMap::from([(0, vec![1])]),
                ..NewTopic::with_defaults("once")
            },
        ];
        let made = cluster.controller().create_topics(&wanted, false).await;
        assert!(made.iter().all(Result::is_ok));
        cluster
    }

    async fn elect(
        cluster: &Cluster,
        election: Election,
        wanted: &[(&str, i32)],
    ) -> Vec<Result<(), ElectionRefusal>> {
        let elected = cluster.controller().elect_leaders(election, wanted);
        elected.await.unwrap()
    }

    fn state(cluster: &Cluster, index: i32) -> (i32, Vec<i32>) {
        let image = cluster.image();
        let info = image.topic("t").unwrap().partition(index).unwrap().clone();
        (info.leader, info.isr)
    }

    #[tokio::test]
    async fn the_preferred_leader_is_elected_where_it_is_in_sync() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = with_topic(dir.path()).await;
        dies(&cluster, 1).await;
        assert_eq!(state(&cluster, 0), (2, vec![2, 0]));
        let wanted = [("t", 0), ("t", 1), ("t", 2), ("u", 0), ("once", 0)];
        let results = elect(&cluster, Election::Preferred, &wanted).await;
        let expected = [
            Err(ElectionRefusal::PreferredNotAvailable),
            Err(ElectionRefusal::NotNeeded),
            Err(ElectionRefusal::UnknownPartition("t".to_owned(), 2)),
            Err(ElectionRefusal::UnknownTopic("u".to_owned())),
            Err(ElectionRefusal::PreferredNotAvailable),
        ];
        assert_eq!(results, expected);
        register(&cluster, &[(1, 2)]).await;
        assert_eq!(cluster.controller.elect_preferred().await.unwrap(), 0);
        let proposal = super::super::partition_changes::IsrProposal {
            topic_id: cluster.image().topic("t").unwrap().id,
            index: 0,
            leader_epoch: 1,
            partition_epoch: 1,
            isr: vec![(0, -1), (1, 2), (2, 1)],
            is_recovering: false,
        };
        let altered = cluster.alter_partitions(2, 1, vec![proposal]).await;
        assert!(altered.unwrap()[0].is_ok());
        assert_eq!(cluster.controller.elect_preferred().await.unwrap(), 1);
        assert_eq!(state(&cluster, 0), (1, vec![1, 2, 0]));
        assert_eq!(cluster.controller.elect_preferred().await.unwrap(), 0);
    }

    /// Sets how a topic's partitions are ordered.
    async fn order(cluster: &Cluster, ordering: &str) {
        let set = super::super::changes::ConfigChange::Set("ordering".to_owned(), ordering.into());
        let sets = [set];
        let changed = cluster.controller().change_config("t", &sets, false);
        changed.await.unwrap();
    }

    #[tokio::test]
    async fn in_strict_order_only_an_operator_has_another_one_lead_and_the_home_broker_gets_it_back()
     {
        let dir = tempfile::tempdir().unwrap();
        let cluster = with_topic(dir.path()).await;
        let refused = elect(&cluster, Election::FailOver, &[("t", 0)]).await;
        assert_eq!(
            refused,
            [Err(ElectionRefusal::OrdinaryOrder("t".to_owned()))]
        );
        order(&cluster, "strict").await;
        let fails_over = [("t", 0), ("once", 0)];
        let refused = elect(&cluster, Election::FailOver, &fails_over).await;
        let ordinary = Err(ElectionRefusal::OrdinaryOrder("once".to_owned()));
        assert_eq!(refused, [Err(ElectionRefusal::NotNeeded), ordinary]);
        dies(&cluster, 1).await;
        assert_eq!(state(&cluster, 0), (-1, vec![1, 2, 0]));
        assert_eq!(state(&cluster, 1), (0, vec![0, 2]));
        let unclean = elect(&cluster, Election::Unclean, &[("t", 0), ("t", 1)]).await;
        let waits = ElectionRefusal::StrictOrder {
            topic: "t".to_owned(),
            index: 0,
            home: 1,
        };
        assert!(waits.to_string().contains("waits for its home broker 1"));
        assert_eq!(unclean, [Err(waits), Err(ElectionRefusal::NotNeeded)]);
        let preferred = elect(&cluster, Election::Preferred, &[("t", 0)]).await;
        assert_eq!(preferred, [Err(ElectionRefusal::PreferredNotAvailable)]);
        let done = elect(&cluster, Election::FailOver, &[("t", 0)]).await;
        assert_eq!(done, [Ok(())]);
        assert_eq!(state(&cluster, 0), (2, vec![2, 0]));
        // It is back, and leads when the other one finds it in sync.
        register(&cluster, &[(1, 2)]).await;
        assert_eq!(state(&cluster, 0), (2, vec![2, 0]));
        let known = cluster.image().topic("t").unwrap().partitions[0].clone();
        let proposal = super::super::partition_changes::IsrProposal {
            topic_id: cluster.image().topic("t").unwrap().id,
            index: 0,
            leader_epoch: known.leader_epoch,
            partition_epoch: known.partition_epoch,
            isr: vec![(0, -1), (1, 2), (2, 1)],
            is_recovering: false,
        };
        let altered = cluster.alter_partitions(2, 1, vec![proposal]).await;
        let elsewhere = super::super::partition_changes::IsrRefusal::NewLeaderElected;
        assert_eq!(altered.unwrap(), [Err(elsewhere)]);
        assert_eq!(state(&cluster, 0), (1, vec![1, 2, 0]));
        // Ordinary again while none leads: another one does at once.
        dies(&cluster, 1).await;
        assert_eq!(state(&cluster, 0).0, -1);
        order(&cluster, "ordinary").await;
        assert_eq!(state(&cluster, 0), (2, vec![2, 0]));
        // Strict while another one leads: it leads on, because the home broker lacks what that one took.
        order(&cluster, "strict").await;
        assert_eq!(state(&cluster, 0), (2, vec![2, 0]));
        for id in [0, 2] {
            dies(&cluster, id).await;
        }
        let none = elect(&cluster, Election::FailOver, &[("t", 0)]).await;
        assert_eq!(none, [Err(ElectionRefusal::NoneInSync("t".to_owned(), 0))]);
    }

    #[tokio::test]
    async fn any_replica_is_elected_where_none_leads_and_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = with_topic(dir.path()).await;
        let proposal = super::super::partition_changes::IsrProposal {
            topic_id: cluster.image().topic("t").unwrap().id,
            index: 0,
            leader_epoch: 0,
            partition_epoch: 0,
            isr: vec![(1, 1)],
            is_recovering: false,
        };
        let altered = cluster.alter_partitions(1, 1, vec![proposal]).await;
        assert!(altered.unwrap()[0].is_ok());
        let needless = elect(&cluster, Election::Unclean, &[("t", 0)]).await;
        assert_eq!(needless, [Err(ElectionRefusal::NotNeeded)]);
        dies(&cluster, 1).await;
        assert_eq!(state(&cluster, 0), (-1, vec![1]));
        let preferred = elect(&cluster, Election::Preferred, &[("t", 0)]).await;
        assert_eq!(preferred, [Err(ElectionRefusal::PreferredNotAvailable)]);
        let unclean = elect(&cluster, Election::Unclean, &[("t", 0), ("once", 0)]).await;
        assert_eq!(unclean, [Ok(()), Err(ElectionRefusal::NoneEligible)]);
        assert_eq!(state(&cluster, 0), (2, vec![2]));
    }
}
