//! A broker that is about to stop: others lead what it leads before it does, so that no client waits for a session to end.
//!
//! It says so in its registration. The controller, whoever that is by then, settles the partitions without it and deals its
//! groups to others; the broker waits until the image says that they have them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::image::{PartitionInfo, Topic};

/// How long a broker that is to stop waits for others to lead what it leads.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);

impl Cluster {
    /// Lets others lead and coordinate what they can.
    pub async fn hand_over(&self) {
        let own = self.broker_id();
        if !self.may_act() || self.image().lasting_brokers() == [own] {
            return;
        }
        let started = Instant::now();
        if let Err(error) = self.membership.announce_end().await {
            tracing::warn!(%error, "cannot say that this broker is about to stop");
            return;
        }
        let mut images = self.image_changes();
        let done = async {
            while {
                images.borrow_and_update();
                self.has_more_than_its_own(own)
            } && images.changed().await.is_ok()
            {}
        };
        let took = match tokio::time::timeout(HAND_OVER_MAX, done).await {
            Ok(()) => started.elapsed(),
            Err(_) => {
                tracing::warn!("others do not lead all of what this broker leads, but it stops");
                return;
            }
        };
        tracing::info!(?took, "others lead and coordinate what they can");
    }
    /// Whether a broker that is about to stop has something that another one can have. What it leads in strict order none can.
    fn has_more_than_its_own(&self, id: i32) -> bool {
        let image = self.image();
        let Some(own) = image.brokers.get(&id) else {
            return false;
        };
        if !own.shutting_down {
            // This broker has not heard of it itself.
            return true;
        }
        let lasts = |other: &i32| {
            let other = image.brokers.get(other);
            other.is_some_and(|other| !other.shutting_down)
        };
        if !image.brokers.keys().any(lasts) {
            return false;
        }
        let coordinates = image.slots.iter().any(|slot| slot.owner == id);
        let is_led = |info: &PartitionInfo| info.leader == id && info.isr.iter().any(lasts);
        let may_go = |topic: &Arc<Topic>| {
            topic.partitions.iter().any(is_led) && !self.is_strictly_ordered(topic)
        };
        coordinates || image.topics().any(may_go)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{alone, put, register, text};
    use super::*;
    use crate::cluster::NewTopic;
    use crate::meta::paths;

    #[tokio::test]
    async fn a_broker_that_is_alone_stops_at_once_and_beside_others_when_they_lead() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        cluster.hand_over().await;
        let own = paths::broker_master(0);
        let registered = text(cluster.meta(), &own).await.unwrap();
        assert!(!registered.contains("shutting_down"));
        register(&cluster, &[(1, 1)]).await;
        let wanted = [
            NewTopic {
                partitions: 2,
                replication_factor: 2,
                ..NewTopic::with_defaults("t")
            },
            NewTopic {
                partitions: 2,
                ..NewTopic::with_defaults("once")
            },
            NewTopic {
                partitions: 2,
                replication_factor: 2,
                config: vec![("ordering".to_owned(), Some("strict".to_owned()))],
                ..NewTopic::with_defaults("strict")
            },
        ];
        let made = cluster.controller().create_topics(&wanted, false).await;
        assert!(made.iter().all(Result::is_ok));
        // Nobody follows the tree here: as the task that does would.
        let follow = async {
            let mut images = cluster.image_changes();
            loop {
                cluster.membership.reload_brokers().await.unwrap();
                let _ = tokio::time::timeout(Duration::from_millis(5), images.changed()).await;
            }
        };
        let started = Instant::now();
        tokio::select! {
            () = cluster.hand_over() => {}
            () = follow => unreachable!(),
        }
        assert!(started.elapsed() < HAND_OVER_MAX);
        let registered = text(cluster.meta(), &own).await.unwrap();
        assert!(registered.contains(r#""shutting_down":true"#));
        let image = cluster.image();
        let led = |name: &str| -> Vec<(i32, Vec<i32>)> {
            let partitions = &image.topic(name).unwrap().partitions;
            let led = partitions.iter();
            led.map(|info| (info.leader, info.isr.clone())).collect()
        };
        assert_eq!(led("t"), [(1, vec![1]), (1, vec![1])]);
        // What is kept once it leads until it is gone.
        assert_eq!(led("once"), [(0, vec![0]), (1, vec![1])]);
        // And what is kept in strict order, with who is in sync.
        assert_eq!(led("strict"), [(0, vec![0, 1]), (1, vec![1])]);
        assert!(image.slots.iter().all(|slot| slot.owner == 1));
        // The other one goes too: nothing can be had by anybody.
        let going = text(cluster.meta(), &paths::broker_master(1))
            .await
            .unwrap();
        let going = going.replace(
            r#""accept_publish":true"#,
            r#""accept_publish":true,"shutting_down":true"#,
        );
        put(cluster.meta(), &paths::broker_master(1), &going).await;
        cluster.membership.reload_brokers().await.unwrap();
        assert!(!cluster.has_more_than_its_own(1));
        let led = &cluster.image().topic("t").unwrap().partitions[0].clone();
        assert_eq!((led.leader, &led.isr[..]), (1, &[1][..]));
    }
}
