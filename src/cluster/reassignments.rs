//! Moving the replicas of partitions from some brokers to others (AlterPartitionReassignments, KIP-455).
//!
//! A partition that moves has all replicas, those that come and those that go. Those that go leave when all that come are in
//! sync ([`Change::made`]), which a leader's proposal brings about. A reassignment is taken back by naming no replicas.

use super::changes::ClusterError;
use super::controller::Controller;
use super::elections::{Change, NO_LEADER, Rules};
use super::image::PartitionInfo;
use super::partition_changes::Planned;

/// Where a partition's replicas are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub index: i32,
    /// Its replicas; `None` to take back what is under way.
    pub replicas: Option<Vec<i32>>,
}

/// Why a partition does not move; Kafka's ReplicationControlManager.alterPartitionReassignment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReassignmentRefusal {
    /// There is no such topic, or it has no such partition.
    #[error("{0}")]
    Unknown(String),
    /// There is nothing to take back.
    #[error("No partition reassignment is in progress.")]
    NoneInProgress,
    /// The replicas cannot be those.
    #[error("{0}")]
    Assignment(String),
    /// They are more or fewer than before, and the request does not want that (KIP-860).
    #[error("The replication factor is changed from {before} to {after}")]
    ReplicationFactor {
        /// How many there are, without those that go.
        before: usize,
        /// How many there would be.
        after: usize,
    },
}

impl Controller {
    /// Begins to move partitions, or takes it back; each with its result. Only as the controller.
    pub async fn reassign(
        &self,
        wanted: &[Reassignment],
        may_change_factor: bool,
    ) -> Result<Vec<Result<(), ReassignmentRefusal>>, ClusterError> {
        let _change = self.view.lock_changes().await;
        if !self.is_controller() {
            return Err(ClusterError::NotController);
        }
        let mut planned = Planned::of(self.view.image());
        let results = wanted
            .iter()
            .map(|one| self.plan_reassignment(&mut planned, one, may_change_factor))
            .collect();
        self.store_planned(planned).await?;
        Ok(results)
    }

    fn plan_reassignment(
        &self,
        planned: &mut Planned,
        wanted: &Reassignment,
        may_change_factor: bool,
    ) -> Result<(), ReassignmentRefusal> {
        let image = self.view.image();
        let Reassignment { topic, index, .. } = wanted;
        let unknown = |what: String| ReassignmentRefusal::Unknown(what);
        let known = image
            .topic(topic)
            .ok_or_else(|| unknown(format!("Unable to find a topic named {topic}.")))?;
        let info = planned.topic(topic).unwrap_or(known).partition(*index);
        let info =
            info.ok_or_else(|| unknown(format!("Unable to find partition {topic}:{index}.")))?;
        let rules = self.rules_for(&image, known);
        let after = match &wanted.replicas {
            None => cancelled(info, rules, &format!("{topic}:{index}"))?,
            Some(_) if rules.strict && info.leader == NO_LEADER => {
                return Err(ReassignmentRefusal::Assignment(format!(
                    "{topic}:{index} waits for its home broker (ordering=strict), without which the others may lack records. \
                     To go on without it, have another replica lead first: metaq partition fail-over."
                )));
            }
            Some(target) => {
                let checked = self.check_replicas(target);
                checked.map_err(ReassignmentRefusal::Assignment)?;
                let before = info.replicas.len() - info.removing.len();
                if !may_change_factor && before != target.len() {
                    let after = target.len();
                    return Err(ReassignmentRefusal::ReplicationFactor { before, after });
                }
                moved(info, rules, target)
            }
        };
        if let Some(after) = after {
            planned.put(known, *index as usize, after);
        }
        Ok(())
    }
}

/// A partition on its way to other replicas, or there where nothing has to be copied; `None` where nothing changes. What was
/// under way is given up for it.
fn moved(info: &PartitionInfo, rules: Rules<'_>, target: &[i32]) -> Option<PartitionInfo> {
    let originals = without(&info.replicas, &info.adding);
    let mut change = Change::of(info, rules);
    change.adding = without(target, &originals);
    // Those that were to come and are not in sync yet go at once.
    let abandoned = without(&without(&info.adding, &info.isr), target);
    change.removing = without(&without(&info.replicas, target), &abandoned);
    change.replicas = target.iter().chain(&change.removing).copied().collect();
    change.made()
}

/// A partition as it was before it began to move (Kafka's PartitionReassignmentRevert).
fn cancelled(
    info: &PartitionInfo,
    rules: Rules<'_>,
    name: &str,
) -> Result<Option<PartitionInfo>, ReassignmentRefusal> {
    if info.adding.is_empty() && info.removing.is_empty() {
        return Err(ReassignmentRefusal::NoneInProgress);
    }
    let mut change = Change::of(info, rules);
    change.replicas = without(&info.replicas, &info.adding);
    change.isr = without(&info.isr, &info.adding);
    (change.adding, change.removing) = (Vec::new(), Vec::new());
    if change.isr.is_empty() {
        if !rules.unclean || rules.strict {
            return Err(ReassignmentRefusal::Assignment(format!(
                "Unable to revert partition assignment for {name} because it would require an unclean leader election."
            )));
        }
        change.isr.extend(change.replicas.first());
    }
    Ok(change.made())
}

fn without(ids: &[i32], others: &[i32]) -> Vec<i32> {
    let rest = ids.iter().filter(|id| !others.contains(id));
    rest.copied().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::changes::NewTopic;
    use super::super::cluster::Cluster;
    use super::super::partition_changes::IsrProposal;
    use super::super::testing::{alone, dies, register};
    use super::*;

    async fn with_topic(dir: &std::path::Path) -> Cluster {
        let cluster = alone(dir).await;
        register(&cluster, &[(1, 1), (2, 1), (3, 1)]).await;
        let new = NewTopic {
            assignments: BTreeMap::from([(0, vec![0, 1])]),
            ..NewTopic::with_defaults("t")
        };
        let made = cluster.controller().create_topics(&[new], false).await;
        assert!(made[0].is_ok());
        cluster
    }

    async fn reassign(
        cluster: &Cluster,
        replicas: Option<&[i32]>,
    ) -> Result<(), ReassignmentRefusal> {
        let wanted = [Reassignment {
            topic: "t".to_owned(),
            index: 0,
            replicas: replicas.map(<[i32]>::to_vec),
        }];
        let results = cluster.controller().reassign(&wanted, true).await;
        results.unwrap().remove(0)
    }

    fn info(cluster: &Cluster) -> PartitionInfo {
        cluster.image().topic("t").unwrap().partitions[0].clone()
    }

    /// Its leader finds these in sync.
    async fn in_sync(
        cluster: &Cluster,
        isr: &[i32],
    ) -> Result<PartitionInfo, crate::cluster::IsrRefusal> {
        let info = info(cluster);
        let proposal = IsrProposal {
            topic_id: cluster.image().topic("t").unwrap().id,
            index: 0,
            leader_epoch: info.leader_epoch,
            partition_epoch: info.partition_epoch,
            isr: isr.iter().map(|id| (*id, -1)).collect(),
            is_recovering: false,
        };
        let registration = cluster.image().brokers[&info.leader].epoch;
        let altered = cluster.alter_partitions(info.leader, registration, vec![proposal]);
        altered.await.unwrap().remove(0)
    }

    async fn check_tree(cluster: &Cluster) {
        let known = info(cluster);
        cluster.view.reload_topics(None).await.unwrap();
        assert_eq!(info(cluster), known);
    }

    #[tokio::test]
    async fn replicas_go_when_all_that_come_are_in_sync() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = with_topic(dir.path()).await;
        reassign(&cluster, Some(&[2, 3])).await.unwrap();
        let moving = info(&cluster);
        assert_eq!(
            (moving.replicas, moving.isr),
            (vec![2, 3, 0, 1], vec![0, 1])
        );
        assert_eq!((moving.adding, moving.removing), (vec![2, 3], vec![0, 1]));
        assert_eq!((moving.leader, moving.leader_epoch), (0, 0));
        check_tree(&cluster).await;
        assert!(in_sync(&cluster, &[0, 1, 2]).await.is_ok());
        assert_eq!(info(&cluster).adding, [2, 3]);
        let done = in_sync(&cluster, &[0, 1, 2, 3]).await;
        assert_eq!(done, Err(crate::cluster::IsrRefusal::NewLeaderElected));
        let moved = info(&cluster);
        assert_eq!((&moved.replicas, &moved.isr), (&vec![2, 3], &vec![2, 3]));
        assert!(moved.adding.is_empty() && moved.removing.is_empty());
        assert_eq!((moved.leader, moved.leader_epoch), (2, 1));
        check_tree(&cluster).await;
        // In another order, at once.
        reassign(&cluster, Some(&[3, 2])).await.unwrap();
        assert_eq!(info(&cluster).replicas, [3, 2]);
        assert_eq!(info(&cluster).leader, 2);
        check_tree(&cluster).await;
    }

    #[tokio::test]
    async fn what_is_under_way_is_taken_back_or_given_up_for_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = with_topic(dir.path()).await;
        let none = reassign(&cluster, None).await;
        assert_eq!(none, Err(ReassignmentRefusal::NoneInProgress));
        reassign(&cluster, Some(&[0, 2])).await.unwrap();
        assert!(in_sync(&cluster, &[0]).await.is_ok());
        reassign(&cluster, None).await.unwrap();
        assert_eq!(info(&cluster).replicas, [0, 1]);
        assert_eq!(info(&cluster).isr, [0]);
        reassign(&cluster, Some(&[2, 3])).await.unwrap();
        reassign(&cluster, Some(&[3, 0])).await.unwrap();
        let moving = info(&cluster);
        assert_eq!(moving.replicas, [3, 0, 1]);
        assert_eq!((moving.adding, moving.removing), (vec![3], vec![1]));
        reassign(&cluster, None).await.unwrap();
        assert_eq!(info(&cluster).adding, [0; 0]);
        check_tree(&cluster).await;
        // Only one that came is in sync and there: it would not be clean.
        reassign(&cluster, Some(&[2, 3])).await.unwrap();
        assert!(in_sync(&cluster, &[0, 2]).await.is_ok());
        dies(&cluster, 1).await;
        let image = cluster.image();
        let rules = cluster
            .controller()
            .rules_for(&image, image.topic("t").unwrap());
        let mut only = info(&cluster);
        (only.isr, only.leader) = (vec![2], 2);
        let unclean = cancelled(&only, rules, "t:0");
        assert!(matches!(unclean, Err(ReassignmentRefusal::Assignment(_))));
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused_in_kafkas_words() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = with_topic(dir.path()).await;
        let wanted = |topic: &str, index, replicas: &[i32]| Reassignment {
            topic: topic.to_owned(),
            index,
            replicas: Some(replicas.to_vec()),
        };
        let wanted = [
            wanted("u", 0, &[0]),
            wanted("t", 1, &[0]),
            wanted("t", 0, &[]),
            wanted("t", 0, &[0, 9]),
            wanted("t", 0, &[1, 1]),
            wanted("t", 0, &[1]),
        ];
        let results = cluster.controller().reassign(&wanted, false).await.unwrap();
        let said: Vec<String> = results
            .iter()
            .map(|result| result.as_ref().unwrap_err().to_string())
            .collect();
        let expected = [
            "Unable to find a topic named u.",
            "Unable to find partition t:1.",
            "The manual partition assignment includes an empty replica list.",
            "The manual partition assignment includes broker 9, but no such broker is registered.",
            "The manual partition assignment includes the broker 1 more than once.",
            "The replication factor is changed from 2 to 1",
        ];
        assert_eq!(said, expected);
        assert_eq!(info(&cluster).partition_epoch, 0);
        // Fewer replicas, where that is wanted: at once, because the one that stays is in sync.
        reassign(&cluster, Some(&[1])).await.unwrap();
        let alone = info(&cluster);
        assert_eq!((alone.leader, alone.leader_epoch), (1, 1));
        assert_eq!(alone.replicas, [1]);
    }
}
