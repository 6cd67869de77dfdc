//! Who leads and who is in sync, as brokers go and come: the controller settles every partition for the registrations that
//! there are (Kafka's ReplicationControlManager.generateLeaderAndIsrUpdates).
//!
//! `/brokers/settled` says which registrations that was done for. A broker that registered again in between is found by it,
//! also by a controller that saw neither its death nor its return: it was gone, and leads nothing of what it led, or in a new
//! epoch. It also says which losses it was done for: a broker that has less than it had is in sync with nothing until it has copied
//! it, and not eligible (KIP-966); the registration after that one does not hide it. The node is written after the partitions' states: what is done twice changes nothing the second time, but for an
//! epoch that grows once more.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::ClusterError;
use super::controller::Controller;
use super::elections::{Returned, settled};
use super::image::{Broker, Image, Topic};
use super::partition_changes::Planned;
use crate::config::TopicConfig;
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
        if !self.may_change()? {
            return Ok(());
        }
        let image = self.view.image();
        let known = self.settled_for().await?;
        let arrivals = Arrivals::of(&image.brokers, &known);
        let mut planned = Planned::of(image.clone());
        let changed: usize = image
            .topics()
            .map(|topic| self.settle_topic(&image, topic, &arrivals, &mut planned))
            .sum();
        if changed > 0 {
            let live: Vec<&i32> = image.brokers.keys().collect();
            tracing::info!(
                partitions = changed,
                ?live,
                "leaders or in-sync replicas change"
            );
        }
        self.store_planned(planned).await?;
        let record = settled_by_now(&image.brokers, &known);
        if known == record {
            return Ok(());
        }
        self.change_as_controller(vec![Op::put(paths::SETTLED, encode(&record))])
            .await
    }

    /// How many partitions of a topic change.
    fn settle_topic(
        &self,
        image: &Image,
        topic: &std::sync::Arc<Topic>,
        arrivals: &Arrivals,
        planned: &mut Planned,
    ) -> usize {
        let are_alone = topic.partitions.iter().all(|info| info.is_alone());
        if are_alone && arrivals.of_others.lost.is_empty() {
            return 0;
        }
        let rules = self.rules_for(image, topic);
        let returned = match self.syncs_every_message(topic) {
            true => &arrivals.of_synced,
            false => &arrivals.of_others,
        };
        let mut changed = 0;
        for (index, info) in topic.partitions.iter().enumerate() {
            // Which syncs its broker has made, that one says by its own settings.
            let returned = match info.is_alone() {
                true => &arrivals.of_others,
                false => returned,
            };
            if let Some(info) = settled(info, rules, returned) {
                planned.put(topic, index, info);
                changed += 1;
            }
        }
        changed
    }

    fn syncs_every_message(&self, topic: &Topic) -> bool {
        let broker = &self.view.reconciler().defaults_for(&topic.name);
        let overrides = &topic.overrides;
        TopicConfig { overrides, broker }.log().syncs_every_append()
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
    async fn settled_for(&self) -> Result<SettledRecord, ClusterError> {
        match self.view.meta.get(paths::SETTLED).await? {
            Some(node) => Ok(decode(paths::SETTLED, &node.data).unwrap_or_else(|error| {
                tracing::error!(%error, "the partitions are settled anew");
                unsettled()
            })),
            None => Ok(unsettled()),
        }
    }
}

fn unsettled() -> SettledRecord {
    SettledRecord {
        version: RECORD_VERSION,
        brokers: BTreeMap::new(),
        lost: BTreeMap::new(),
    }
}

/// Brokers that came since the partitions were settled.
struct Arrivals {
    /// As they are to topics that sync each message: they have what they acknowledged, where they have their directories.
    of_synced: Returned,
    /// As they are to other topics.
    of_others: Returned,
}

impl Arrivals {
    fn of(brokers: &BTreeMap<i32, Broker>, known: &SettledRecord) -> Self {
        let is_new = |broker: &&Broker| known.brokers.get(&broker.id) != Some(&broker.epoch);
        let (mut renewed, mut directory, mut unsynced) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for broker in brokers.values().filter(is_new) {
            let dealt_with = known.lost.get(&broker.id).copied().unwrap_or_default();
            renewed.insert(broker.id);
            if broker.lost.directory > dealt_with.directory {
                directory.insert(broker.id);
            }
            if broker.lost.unsynced > dealt_with.unsynced {
                unsynced.insert(broker.id);
            }
        }
        unsynced.extend(&directory);
        let returned = |lost| Returned {
            renewed: renewed.clone(),
            lost,
        };
        Self {
            of_synced: returned(directory),
            of_others: returned(unsynced),
        }
    }
}

/// What is settled, when it is for these brokers.
fn settled_by_now(brokers: &BTreeMap<i32, Broker>, known: &SettledRecord) -> SettledRecord {
    let there = brokers.values();
    let mut lost = known.lost.clone();
    for broker in there.clone().filter(|broker| !broker.lost.is_none()) {
        lost.insert(broker.id, broker.lost);
    }
    SettledRecord {
        version: RECORD_VERSION,
        brokers: there.map(|broker| (broker.id, broker.epoch)).collect(),
        lost,
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
    async fn a_broker_that_is_drained_leads_coordinates_and_gets_only_what_no_other_one_can_have() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = with(dir.path(), &[(1, 1), (2, 1)]).await;
        create(&cluster, "t", 3, 3).await;
        create(&cluster, "once", 3, 1).await;
        let once = partitions(&cluster, "once");
        let controller = cluster.controller();
        let change = [ConfigChange::Set(
            super::super::configs::DRAINED.to_owned(),
            "true".to_owned(),
        )];
        let drained = controller.change_resource(Configured::Broker, "1", &change, false);
        drained.await.unwrap();
        let all: Vec<i32> = vec![0, 1, 2];
        let mut moved = 0;
        for (leader, mut isr, epoch) in states(&cluster, "t") {
            isr.sort_unstable();
            assert!(isr == all && leader != 1);
            moved += epoch;
        }
        assert_eq!(moved, 1);
        assert_eq!(partitions(&cluster, "once"), once);
        let image = cluster.image();
        assert!(image.slots.iter().all(|slot| slot.owner != 1));
        create(&cluster, "new", 4, 3).await;
        for info in partitions(&cluster, "new") {
            assert_eq!(info.replicas[2], 1);
        }
        check_tree(&cluster, "t").await;
        // It gets nothing back while it is drained.
        assert_eq!(controller.elect_preferred().await.unwrap(), 0);
        let change = [ConfigChange::Delete(
            super::super::configs::DRAINED.to_owned(),
        )];
        let back = controller.change_resource(Configured::Broker, "1", &change, false);
        back.await.unwrap();
        assert_eq!(controller.elect_preferred().await.unwrap(), 1);
        let leads = states(&cluster, "t")
            .iter()
            .filter(|(leader, ..)| *leader == 1)
            .count();
        assert_eq!(leads, 1);
        assert!(cluster.image().slots.iter().any(|slot| slot.owner == 1));
    }

    /// Broker 1 is registered, as one that came back with less.
    async fn comes_back(cluster: &Cluster, epoch: i64, lost: &str) {
        let record = format!(
            r#"{{"version":1,"epoch":{epoch},"endpoints":[],"rack":null,"directory_id":"dir-1","accept_publish":true,"lost":{lost},"metaq":"0"}}"#
        );
        put(cluster.meta(), &paths::broker_master(1), &record).await;
        cluster.membership.reload_brokers().await.unwrap();
    }

    /// Broker 0, and topics of two replicas that need both, which broker 1 was the last to lead.
    async fn led_by_one_last(dir: &std::path::Path) -> Cluster {
        let cluster = with(dir, &[(1, 1), (2, 1)]).await;
        for (name, flush) in [("synced", "1"), ("cached", "1000")] {
            let setting = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
            let new = NewTopic {
                assignments: BTreeMap::from([(0, vec![1, 2])]),
                config: vec![
                    setting("flush.messages", flush),
                    setting("min.insync.replicas", "2"),
                ],
                ..NewTopic::with_defaults(name)
            };
            let made = cluster.controller().create_topics(&[new], false).await;
            assert!(made[0].is_ok());
        }
        for id in [2, 1] {
            dies(&cluster, id).await;
        }
        assert_eq!(states(&cluster, "cached"), [(-1, vec![1], 1)]);
        cluster
    }

    #[tokio::test]
    async fn who_lost_what_was_not_synced_does_not_lead_where_another_one_has_all() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = led_by_one_last(dir.path()).await;
        comes_back(&cluster, 2, r#"{"unsynced":2}"#).await;
        assert_eq!(states(&cluster, "synced"), [(1, vec![1], 2)]);
        assert_eq!(states(&cluster, "cached"), [(-1, vec![2], 1)]);
        check_tree(&cluster, "cached").await;
        register(&cluster, &[(2, 2)]).await;
        assert_eq!(states(&cluster, "cached"), [(2, vec![2], 2)]);
        // It is dealt with: the next registration, which says it still, is a restart like any other.
        dies(&cluster, 1).await;
        let alone = super::super::partition_changes::IsrProposal {
            topic_id: cluster.image().topic("cached").unwrap().id,
            index: 0,
            leader_epoch: 2,
            partition_epoch: partitions(&cluster, "cached")[0].partition_epoch,
            isr: vec![(2, 2), (1, 3)],
            is_recovering: false,
        };
        comes_back(&cluster, 3, r#"{"unsynced":2}"#).await;
        let altered = cluster.alter_partitions(2, 2, vec![alone]).await;
        assert!(altered.unwrap()[0].is_ok());
        dies(&cluster, 2).await;
        dies(&cluster, 1).await;
        comes_back(&cluster, 4, r#"{"unsynced":2}"#).await;
        assert_eq!(states(&cluster, "cached")[0].0, 1);
        let settled = text(cluster.meta(), paths::SETTLED).await.unwrap();
        assert!(
            settled.contains(r#""lost":{"1":{"unsynced":2}}"#),
            "{settled}"
        );
    }

    #[tokio::test]
    async fn a_loss_that_no_controller_saw_is_found_at_the_next_registration() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = led_by_one_last(dir.path()).await;
        // Registration 2 found the loss, and was over before anybody looked.
        comes_back(&cluster, 3, r#"{"unsynced":2}"#).await;
        assert_eq!(states(&cluster, "cached"), [(-1, vec![2], 1)]);
    }

    #[tokio::test]
    async fn who_comes_without_its_directory_has_lost_what_is_synced_too() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = led_by_one_last(dir.path()).await;
        comes_back(&cluster, 2, r#"{"directory":2}"#).await;
        for name in ["synced", "cached"] {
            assert_eq!(states(&cluster, name), [(-1, vec![2], 1)]);
        }
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
