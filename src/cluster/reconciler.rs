//! Carries out on this broker's partitions what follows from the cluster: the one place that opens, gives up, deletes and
//! configures them.

use std::sync::Arc;

use uuid::Uuid;

use super::image::Topic;
use super::reconcile::Step;
use crate::config::{LiveConfig, TopicConfig, TopicOverrides};
use crate::log::LogConfig;
use crate::partition::{OpenReport, Partitions, TopicToOpen};

/// This broker's partitions and the configuration that they get.
pub(super) struct Reconciler {
    config: Arc<LiveConfig>,
    partitions: Arc<Partitions>,
}

impl Reconciler {
    pub(super) fn new(config: Arc<LiveConfig>, partitions: Arc<Partitions>) -> Self {
        Self { config, partitions }
    }

    /// What a topic gets from the broker's configuration, under its own overrides.
    pub(super) fn defaults_for(&self, topic: &str) -> TopicOverrides {
        self.config.load().defaults_for_topic(topic)
    }

    fn log_config(&self, topic: &Topic) -> LogConfig {
        let broker = &self.defaults_for(&topic.name);
        let overrides = &topic.overrides;
        let config = TopicConfig { overrides, broker };
        let archive_dir = config.archives().then(|| self.config.load().archive_dir());
        LogConfig {
            archive_dir: archive_dir.flatten(),
            ..config.log()
        }
    }

    /// Gives a topic's logs the settings that are in force now.
    pub(super) fn reconfigure(&self, topic: &Topic) {
        self.partitions
            .reconfigure(&topic.name, &self.log_config(topic));
    }

    /// Does all steps. What ends has ended when this returns, and what begins can be used, but for what the report counts as
    /// offline. One `settle`s that opens what was there at start.
    pub(super) async fn carry_out(&self, steps: &[Step], settle: bool) -> Option<OpenReport> {
        let (mut deleted, mut stopped, mut begun) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Delete(topic) => deleted.push(topic.id),
                // A follower copies nothing yet, so it is closed like what is kept elsewhere.
                Step::Stop(topic, partitions) | Step::BecomeFollower(topic, partitions) => {
                    stopped.extend(partitions.iter().map(|index| (topic.id, *index)));
                }
                Step::Reconfigure(topic) => self.reconfigure(topic),
                Step::BecomeLeader(topic, partitions) => {
                    stopped.extend(self.led_before(topic, partitions));
                    begun.push(self.to_open(topic, partitions));
                }
            }
        }
        self.partitions.delete(&deleted).await;
        self.partitions.stop(&stopped).await;
        if begun.is_empty() && !settle {
            return Some(OpenReport::default());
        }
        let partitions = self.partitions.clone();
        let open = move || {
            let report = partitions.open_topics(begun);
            if settle {
                partitions.settle();
            }
            report
        };
        self.partitions.workers().unblock(open).await
    }

    /// Those that are open in an earlier epoch.
    fn led_before(&self, topic: &Topic, partitions: &[i32]) -> Vec<(Uuid, i32)> {
        let Some(here) = self.partitions.topic_by_id(topic.id) else {
            return Vec::new();
        };
        let is_open = |index: &&i32| here.is_open(**index);
        let open = partitions.iter().filter(is_open);
        open.map(|index| (topic.id, *index)).collect()
    }

    fn to_open(&self, topic: &Topic, partitions: &[i32]) -> TopicToOpen {
        let info = |index: &i32| {
            let info = topic.partition(*index)?;
            Some((*index, info.identity, info.leader_epoch))
        };
        TopicToOpen {
            topic: topic.name.clone(),
            topic_id: topic.id,
            config: self.log_config(topic),
            partitions: partitions.iter().filter_map(info).collect(),
        }
    }
}
