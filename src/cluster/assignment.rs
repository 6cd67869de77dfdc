//! Which brokers are to keep new partitions: as the request says, or dealt.

use std::collections::BTreeMap;

use super::changes::{ClusterError, NewTopic};
use super::controller::Controller;
use super::placement::{Host, Load};

/// Most partitions that one topic may have; a typing error should not fill the disk with directories.
pub const PARTITIONS_PER_TOPIC_MAX: i32 = 100_000;

impl Controller {
    /// The replicas of each partition of a new topic.
    pub(super) fn plan_replicas(
        &self,
        new: &NewTopic,
        load: &mut Load,
    ) -> Result<Vec<Vec<i32>>, ClusterError> {
        if !new.assignments.is_empty() {
            // As Kafka's ReplicationControlManager.createTopic.
            let both = match (new.replication_factor, new.partitions) {
                (-1, -1) => None,
                (-1, _) => Some("numPartitions"),
                _ => Some("replication factor"),
            };
            if let Some(set) = both {
                return Err(ClusterError::Request(format!(
                    "A manual partition assignment was specified, but {set} was not set to -1."
                )));
            }
            return self.check_assignments(0, &new.assignments, None);
        }
        // In Kafka's order.
        if new.replication_factor < -1 || new.replication_factor == 0 {
            return Err(ClusterError::ReplicationFactor(
                "Replication factor must be larger than 0, or -1 to use the default value."
                    .to_owned(),
            ));
        }
        let partitions = match new.partitions {
            -1 => self.view.config.load().partitions_for_topic(&new.name) * load.leaders() as i32,
            n => n,
        };
        check_partitions(partitions)?;
        let factor = match new.replication_factor {
            -1 => self.view.config.number("default.replication.factor"),
            asked => i64::from(asked),
        };
        let factor = usize::try_from(factor).unwrap_or(1);
        check_reachable(factor, load).map_err(|why| {
            let what = format!("Unable to replicate the partition {factor} time(s): {why}");
            ClusterError::ReplicationFactor(what)
        })?;
        Ok(load.deal(partitions as usize, factor))
    }

    /// The replicas that a request names for partitions from `first` on, where they can be those: as many for each partition
    /// as the topic's others have.
    pub(super) fn check_assignments(
        &self,
        first: i32,
        assignments: &BTreeMap<i32, Vec<i32>>,
        mut factor: Option<usize>,
    ) -> Result<Vec<Vec<i32>>, ClusterError> {
        let is_active = self.lasting();
        let mut all = Vec::with_capacity(assignments.len());
        for (index, replicas) in assignments {
            self.check_replicas(replicas)
                .map_err(ClusterError::Assignment)?;
            let before = *factor.get_or_insert(replicas.len());
            if replicas.len() != before {
                return Err(ClusterError::Assignment(format!(
                    "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with previous partitions, which have {before} replica(s).",
                    replicas.len()
                )));
            }
            if !replicas.iter().any(|id| is_active(*id)) {
                return Err(ClusterError::Assignment(format!(
                    "All brokers specified in the manual partition assignment for partition {index} are fenced or in controlled shutdown."
                )));
            }
            all.push(replicas.clone());
        }
        // Last, as in ReplicationControlManager.createTopic.
        if !(first..)
            .zip(assignments)
            .all(|(n, (index, _))| n == *index)
        {
            return Err(ClusterError::Assignment(
                "partitions should be a consecutive 0-based integer sequence".to_owned(),
            ));
        }
        Ok(all)
    }

    /// Whether a partition can have these replicas; why not, in the order and the words of Kafka's
    /// ReplicationControlManager.validateManualPartitionAssignment.
    pub(super) fn check_replicas(&self, replicas: &[i32]) -> Result<(), String> {
        let live = self.live_brokers();
        let mut sorted = replicas.to_vec();
        sorted.sort_unstable();
        if sorted.is_empty() {
            return Err(
                "The manual partition assignment includes an empty replica list.".to_owned(),
            );
        }
        for (at, id) in sorted.iter().enumerate() {
            if !live.contains(id) {
                return Err(format!(
                    "The manual partition assignment includes broker {id}, but no such broker is registered."
                ));
            }
            if at > 0 && sorted[at - 1] == *id {
                return Err(format!(
                    "The manual partition assignment includes the broker {id} more than once."
                ));
            }
        }
        let image = self.view.image();
        let only_follows = |id: &i32| {
            let broker = image.brokers.get(id);
            broker.is_some_and(|broker| broker.follows_only)
        };
        if replicas.iter().all(only_follows) && !live.iter().all(only_follows) {
            return Err(format!(
                "The manual partition assignment includes only brokers that never lead ({replicas:?}, broker.follows.only)."
            ));
        }
        Ok(())
    }

    /// Which brokers can be in sync with a new partition.
    pub(super) fn lasting(&self) -> impl Fn(i32) -> bool + use<> {
        let image = self.view.image();
        let lasting = match image.brokers.is_empty() {
            true => vec![self.view.broker_id],
            false => image.lasting_brokers(),
        };
        move |id| lasting.contains(&id)
    }

    fn live_brokers(&self) -> Vec<i32> {
        let image = self.view.image();
        if image.brokers.is_empty() {
            vec![self.view.broker_id]
        } else {
            image.brokers.keys().copied().collect()
        }
    }

    /// What the brokers have that take new partitions.
    pub(super) fn load(&self) -> Load {
        let image = self.view.image();
        let lasting = self.lasting();
        let live = image.brokers.values();
        let live = live
            .filter(|broker| lasting(broker.id))
            .map(|broker| Host::of(broker, &image));
        // Before it is a member.
        let alone = image.brokers.is_empty();
        let own = alone.then(|| (self.view.broker_id, Host::default()));
        Load::of(live.chain(own), &image)
    }
}

/// How many partitions a topic may have.
pub(super) fn check_partitions(count: i32) -> Result<(), ClusterError> {
    if count <= 0 {
        return Err(ClusterError::Partitions(
            "Number of partitions was set to an invalid non-positive value.".to_owned(),
        ));
    }
    if count > PARTITIONS_PER_TOPIC_MAX {
        return Err(ClusterError::Partitions(format!(
            "Number of partitions must not be larger than {PARTITIONS_PER_TOPIC_MAX}."
        )));
    }
    Ok(())
}

/// Whether there are brokers for so many replicas; why not, in the words of Kafka's StripedReplicaPlacer.
pub(super) fn check_reachable(factor: usize, load: &Load) -> Result<(), String> {
    let live = load.brokers();
    match factor <= live {
        true => Ok(()),
        false => Err(format!(
            "The target replication factor of {factor} cannot be reached because only {live} broker(s) are registered or some brokers have all their log directories cordoned."
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::changes::MorePartitions;
    use super::super::cluster::Cluster;
    use super::super::image::Topic;
    use super::super::testing::{alone, new_topic, put, register};
    use super::*;
    use crate::meta::paths;

    fn replicated(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
        NewTopic {
            replication_factor,
            ..new_topic(name, partitions)
        }
    }

    fn assigned(name: &str, replicas: &[&[i32]]) -> NewTopic {
        let replicas = replicas.iter().map(|ids| ids.to_vec());
        NewTopic {
            assignments: (0..).zip(replicas).collect(),
            ..NewTopic::with_defaults(name)
        }
    }

    async fn create(cluster: &Cluster, new: NewTopic) -> Result<Arc<Topic>, ClusterError> {
        let wanted = [new];
        let made = cluster.controller().create_topics(&wanted, false).await;
        made.into_iter().next().unwrap()
    }

    fn replicas(topic: &Topic) -> Vec<Vec<i32>> {
        let infos = topic.partitions.iter();
        infos.map(|info| info.replicas.clone()).collect()
    }

    #[tokio::test]
    async fn a_topic_has_as_many_replicas_as_there_are_brokers_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        register(&cluster, &[(1, 1), (2, 1)]).await;
        let made = create(&cluster, replicated("three", 3, 3)).await.unwrap();
        for (first, info) in (0..).zip(&made.partitions) {
            assert_eq!((info.leader, info.replicas.len()), (first, 3));
            assert_eq!(
                (info.isr.clone(), info.elr.len()),
                (info.replicas.clone(), 0)
            );
            assert_eq!(info.identity.to_string(), format!("{first}-0"));
        }
        assert_eq!(cluster.image().topic("three"), Some(&made));
        let refused = create(&cluster, replicated("four", 3, 4)).await;
        let why = "Unable to replicate the partition 4 time(s): The target replication factor of 4 cannot be reached because only 3 broker(s) are registered or some brokers have all their log directories cordoned.";
        assert!(matches!(refused, Err(ClusterError::ReplicationFactor(said)) if said == why));
        let refused = create(&cluster, replicated("none", 3, -2)).await;
        assert!(matches!(refused, Err(ClusterError::ReplicationFactor(_))));
    }

    #[tokio::test]
    async fn replicas_that_a_request_names_are_as_many_for_each_partition() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        register(&cluster, &[(1, 1), (2, 1)]).await;
        let made = create(&cluster, assigned("two", &[&[2, 0], &[1, 2]])).await;
        assert_eq!(replicas(&made.unwrap()), [[2, 0], [1, 2]]);
        for (wrong, why) in [
            (
                assigned("uneven", &[&[0, 1], &[0]]),
                "The manual partition assignment includes a partition with 1 replica(s), but this is not consistent with previous partitions, which have 2 replica(s).",
            ),
            (
                assigned("again", &[&[0, 0]]),
                "The manual partition assignment includes the broker 0 more than once.",
            ),
            (
                assigned("elsewhere", &[&[0, 9]]),
                "The manual partition assignment includes broker 9, but no such broker is registered.",
            ),
        ] {
            let refused = create(&cluster, wrong).await;
            assert!(matches!(refused, Err(ClusterError::Assignment(said)) if said == why));
        }
    }

    #[tokio::test]
    async fn what_only_brokers_that_never_lead_would_keep_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let slave = r#"{"version":1,"epoch":1,"endpoints":[],"rack":null,"directory_id":"dir-1","accept_publish":false,"follows_only":true,"metaq":"0"}"#;
        put(cluster.meta(), &paths::broker_master(1), slave).await;
        register(&cluster, &[]).await;
        let refused = create(&cluster, assigned("t", &[&[1]])).await;
        let why = "The manual partition assignment includes only brokers that never lead ([1], broker.follows.only).";
        assert!(matches!(refused, Err(ClusterError::Assignment(said)) if said == why));
        let made = create(&cluster, assigned("t", &[&[0, 1]])).await.unwrap();
        assert_eq!(
            (made.partitions[0].leader, made.partitions[0].isr.len()),
            (0, 2)
        );
        // Of its own accord nothing is led by it.
        let made = create(&cluster, replicated("u", 4, 1)).await.unwrap();
        assert_eq!(replicas(&made), [[0], [0], [0], [0]]);
    }

    #[tokio::test]
    async fn partitions_that_are_added_have_as_many_replicas_as_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        register(&cluster, &[(1, 1), (2, 1)]).await;
        create(&cluster, replicated("t", 1, 2)).await.unwrap();
        let more = |count, assignments: Option<Vec<Vec<i32>>>| MorePartitions {
            name: "t".to_owned(),
            count,
            assignments,
        };
        let extend = async |more| {
            let made = cluster.controller().create_partitions(&[more], false).await;
            made.into_iter().next().unwrap()
        };
        let dealt = extend(more(4, None)).await.unwrap();
        assert!(dealt.partitions.iter().all(|info| info.replicas.len() == 2));
        let named = extend(more(5, Some(vec![vec![1, 2]]))).await.unwrap();
        assert_eq!(named.partitions[4].replicas, [1, 2]);
        let uneven = extend(more(6, Some(vec![vec![1]]))).await;
        assert!(matches!(uneven, Err(ClusterError::Assignment(_))));
    }
}
