//! Who leads and who is in sync, as brokers go and come: the controller settles every partition for the registrations that
//! there are (Kafka's ReplicationControlManager.generateLeaderAndIsrUpdates).
//!
//! `/brokers/settled` says which registrations that was done for. A broker that registered again in between is found by it,
//! also by a controller that saw neither its death nor its return: it was gone, and leads nothing of what it led, or in a new
//! epoch. The node is written after the partitions' states: what is done twice changes nothing the second time, but for an
//! epoch that grows once more.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::ClusterError;
use super::controller::Controller;
use super::elections::{Returned, settled};
use super::image::{Broker, Image, Topic};
use super::partition_changes::Planned;
use crate::meta::records::{RECORD_VERSION, SettledRecord, decode, encode};
use crate::meta::{Op, paths};

impl Controller {
    /// Makes known who is there, and where this broker is the controller, settles the partitions for it. No topic is made for
    /// brokers that nothing was settled for.
    pub(super) async fn brokers_are(
        &self,
        brokers: BTreeMap<i32, Broker>,
    ) -> Result<(), ClusterError> {
        let _change = self.view.lock_changes().await;
        if self.view.image().brokers != brokers {
            let ids: Vec<i32> = brokers.keys().copied().collect();
            tracing::info!(?ids, "brokers of the cluster");
            self.view.change_image(|image| image.brokers = brokers);
        }
        self.settle().await
    }

    /// Settles all partitions, where this broker is the controller. By the holder of the lock for changes.
    pub(super) async fn settle(&self) -> Result<(), ClusterError> {
        if !self.is_controller() {
            return Ok(());
        }
        let image = self.view.image();
        let known = self.settled_for().await?;
        let there: BTreeMap<i32, i64> = image
            .brokers
            .values()
            .map(|broker| (broker.id, broker.epoch))
            .collect();
        let is_new = |(id, epoch): &(&i32, &i64)| known.get(id) != Some(epoch);
        let renewed = there.iter().filter(is_new).map(|(id, _)| *id);
        let returned = Returned {
            renewed: renewed.collect(),
            lost: BTreeSet::new(),
        };
        let mut planned = Planned::of(image.clone());
        let changed: usize = image
            .topics()
            .map(|topic| self.settle_topic(&image, topic, &returned, &mut planned))
            .sum();
        if changed > 0 {
            let live: Vec<&i32> = there.keys().collect();
            tracing::info!(
                partitions = changed,
                ?live,
                "leaders or in-sync replicas change"
            );
        }
        self.store_planned(planned).await?;
        if known == there {
            return Ok(());
        }
        let record = SettledRecord {
            version: RECORD_VERSION,
            brokers: there,
        };
        self.change_as_controller(vec![Op::put(paths::SETTLED, encode(&record))])
            .await
    }

    /// How many partitions of a topic change.
    fn settle_topic(
        &self,
        image: &Image,
        topic: &std::sync::Arc<Topic>,
        returned: &Returned,
        planned: &mut Planned,
    ) -> usize {
        let are_alone = topic.partitions.iter().all(|info| info.is_alone());
        if are_alone {
            return 0;
        }
        let rules = self.rules_for(image, topic);
        let mut changed = 0;
        for (index, info) in topic.partitions.iter().enumerate() {
            if let Some(info) = settled(info, rules, returned) {
                planned.put(topic, index, info);
                changed += 1;
            }
        }
        changed
    }

    /// A topic with other settings, as its partitions are by them.
    pub(super) fn settled_by(&self, mut topic: Topic) -> Topic {
        let image = self.view.image();
        let rules = self.rules_for(&image, &topic);
        for info in &mut topic.partitions {
            if let Some(after) = settled(info, rules, &Returned::default()) {
                *info = after;
            }
        }
        topic
    }

    /// The registrations that all partitions are settled for, as the tree says.
    async fn settled_for(&self) -> Result<BTreeMap<i32, i64>, ClusterError> {
        match self.view.meta.get(paths::SETTLED).await? {
            Some(node) => Ok(decode::<SettledRecord>(paths::SETTLED, &node.data)?.brokers),
            None => Ok(BTreeMap::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::changes::{ConfigChange, NewTopic};
    use super::super::cluster::Cluster;
    use super::super::configs::Configured;
    use super::super::image::PartitionInfo;
    use super::super::testing::{alone, dies, put, register, text};
    use super::*;

    /// Broker 0 as the controller, with others.
    async fn with(dir: &std::path::Path, others: &[(i32, i64)]) -> Cluster {
        let cluster = alone(dir).await;
        register(&cluster, others).await;
        cluster
    }

    async fn create(cluster: &Cluster, name: &str, partitions: i32, replication_factor: i16) {
        let wanted = [NewTopic {
            partitions,
            replication_factor,
            ..NewTopic::with_defaults(name)
        }];
        let made = cluster.controller().create_topics(&wanted, false).await;
        assert!(made[0].is_ok(), "{made:?}");
    }

    fn partitions(cluster: &Cluster, name: &str) -> Vec<PartitionInfo> {
        cluster.image().topic(name).unwrap().partitions.clone()
    }

    fn states(cluster: &Cluster, name: &str) -> Vec<(i32, Vec<i32>, i32)> {
        let of = |info: PartitionInfo| (info.leader, info.isr, info.leader_epoch);
        partitions(cluster, name).into_iter().map(of).collect()
    }

    /// The same controller finds in the tree what it knows.
    async fn check_tree(cluster: &Cluster, name: &str) {
        let known = partitions(cluster, name);
        cluster.view.reload_topics(None).await.unwrap();
        assert_eq!(partitions(cluster, name), known);
    }

    #[tokio::test]
    async fn what_a_dead_broker_led_is_led_by_another_one_and_what_is_kept_once_waits() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = with(dir.path(), &[(1, 1), (2, 1)]).await;
        create(&cluster, "t", 3, 3).await;
        create(&cluster, "once", 3, 1).await;
        let once = partitions(&cluster, "once");
        dies(&cluster, 1).await;
        let moved = [(0, vec![0, 2], 0), (2, vec![0, 2], 1), (2, vec![2, 0], 0)];
        let in_order = |states: Vec<(i32, Vec<i32>, i32)>| -> Vec<(i32, BTreeSet<i32>, i32)> {
            let sorted = |(leader, isr, epoch): (i32, Vec<i32>, i32)| {
                (leader, isr.into_iter().collect(), epoch)
            };
            states.into_iter().map(sorted).collect()
        };
        let after = in_order(states(&cluster, "t"));
        let (first, rest) = after.split_first().unwrap();
        assert_eq!(*first, in_order(moved.to_vec())[0]);
        assert!(rest[0].0 != 1 && rest[0].2 == 1 && rest[1].0 == 2 && rest[1].2 == 0);
        assert_eq!(partitions(&cluster, "once"), once);
        check_tree(&cluster, "t").await;
        // It is back, and follows.
        register(&cluster, &[(1, 2)]).await;
        assert_eq!(in_order(states(&cluster, "t")), after);
        assert_eq!(partitions(&cluster, "once"), once);
    }

    #[tokio::test]
    async fn a_broker_that_comes_back_leads_what_none_leads_and_it_was_in_sync_with() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = with(dir.path(), &[(1, 1), (2, 1)]).await;
        let assigned = NewTopic {
            assignments: BTreeMap::from([(0, vec![1, 2])]),
            ..NewTopic::with_defaults("t")
        };
        let made = cluster.controller().create_topics(&[assigned], false).await;
        assert!(made[0].is_ok());
        dies(&cluster, 1).await;
        assert_eq!(states(&cluster, "t"), [(2, vec![2], 1)]);
        dies(&cluster, 2).await;
        assert_eq!(states(&cluster, "t"), [(-1, vec![2], 2)]);
        register(&cluster, &[(1, 2)]).await;
        assert_eq!(states(&cluster, "t"), [(-1, vec![2], 2)]);
        register(&cluster, &[(2, 2)]).await;
        assert_eq!(states(&cluster, "t"), [(2, vec![2], 3)]);
        check_tree(&cluster, "t").await;
    }

    #[tokio::test]
    async fn a_quick_restart_moves_the_lead_also_where_no_controller_saw_it() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = with(dir.path(), &[(1, 1)]).await;
        create(&cluster, "t", 2, 2).await;
        register(&cluster, &[(1, 2)]).await;
        assert_eq!(states(&cluster, "t"), [(0, vec![0], 0), (0, vec![0], 1)]);
        let settled = text(cluster.meta(), paths::SETTLED).await.unwrap();
        assert!(settled.contains(r#""brokers":{"0":1,"1":2}"#), "{settled}");
        // The controller dies with what it knows, and broker 0 restarts before the next one begins.
        let state = r#"{"version":1,"topic_id":"TOPIC","partitions":{"0":{"leader":0,"leader_epoch":7,"isr":[0,1],"partition_epoch":9}}}"#;
        let id = cluster.image().topic("t").unwrap().id.to_string();
        let path = paths::partition_states_from("t", 0);
        put(cluster.meta(), &path, &state.replace("TOPIC", &id)).await;
        put(
            cluster.meta(),
            paths::SETTLED,
            r#"{"version":1,"brokers":{"0":0,"1":2}}"#,
        )
        .await;
        cluster.controller().begin_anew();
        cluster.membership.reload_controller().await.unwrap();
        assert_eq!(states(&cluster, "t")[0], (1, vec![1], 8));
        check_tree(&cluster, "t").await;
    }

    #[tokio::test]
    async fn who_may_lead_follows_the_settings() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = with(dir.path(), &[(1, 1), (2, 1)]).await;
        let new = NewTopic {
            assignments: BTreeMap::from([(0, vec![1, 2, 0])]),
            config: vec![("min.insync.replicas".to_owned(), Some("2".to_owned()))],
            ..NewTopic::with_defaults("t")
        };
        let made = cluster.controller().create_topics(&[new], false).await;
        let id = made[0].as_ref().unwrap().id;
        // Broker 0 falls out, then the others die one after the other.
        let proposal = super::super::partition_changes::IsrProposal {
            topic_id: id,
            index: 0,
            leader_epoch: 0,
            partition_epoch: 0,
            isr: vec![(1, 1), (2, 1)],
            is_recovering: false,
        };
        let altered = cluster.alter_partitions(1, 1, vec![proposal]).await;
        assert!(altered.unwrap()[0].is_ok());
        dies(&cluster, 1).await;
        dies(&cluster, 2).await;
        let info = partitions(&cluster, "t").remove(0);
        assert_eq!((info.leader, info.isr, info.elr), (-1, vec![2], vec![1]));
        // With one in sync being enough, the eligible one may lack what is committed from now on.
        let set = |value: &str| {
            let key = "min.insync.replicas".to_owned();
            [ConfigChange::Set(key, value.to_owned())]
        };
        let changed = set("1");
        let changed = cluster.controller().change_config("t", &changed, false);
        changed.await.unwrap();
        let info = partitions(&cluster, "t").remove(0);
        assert_eq!((info.leader, info.isr, info.elr), (-1, vec![2], vec![]));
        let unclean = [ConfigChange::Set(
            "unclean.leader.election.enable".to_owned(),
            "true".to_owned(),
        )];
        let changed = cluster
            .controller()
            .change_resource(Configured::Broker, "", &unclean, false);
        changed.await.unwrap();
        assert_eq!(states(&cluster, "t")[0].0, 0);
        check_tree(&cluster, "t").await;
    }

    #[tokio::test]
    async fn ten_thousand_partitions_of_a_dead_broker_are_led_again_in_time() {
        const MOST: Duration = Duration::from_secs(5);
        let dir = tempfile::tempdir().unwrap();
        let cluster = with(dir.path(), &[(1, 1), (2, 1)]).await;
        let replicas: Vec<Vec<i32>> = vec![vec![1, 2]; 2500];
        for name in ["a", "b", "c", "d"] {
            let new = NewTopic {
                assignments: (0..).zip(replicas.iter().cloned()).collect(),
                ..NewTopic::with_defaults(name)
            };
            let made = cluster.controller().create_topics(&[new], false).await;
            assert!(made[0].is_ok());
        }
        let started = Instant::now();
        dies(&cluster, 1).await;
        let took = started.elapsed();
        println!("settled in {took:?}");
        assert!(took < MOST, "{took:?}");
        for name in ["a", "d"] {
            let expected = vec![(2, vec![2], 1); 2500];
            assert_eq!(states(&cluster, name), expected);
            check_tree(&cluster, name).await;
        }
    }
}
