//! Carries out on this broker's partitions what follows from the cluster: the one place that opens, gives up, deletes and
//! configures them.
//!
//! Tests: tests/cluster.rs, tests/simulation.rs.

use std::sync::Arc;

use uuid::Uuid;

use super::image::{PartitionInfo, Topic};
use super::reconcile::Step;
use crate::config::{LiveConfig, TopicConfig, TopicOverrides};
use crate::log::LogConfig;
use crate::partition::{Eligible, OpenReport, PartitionState, Partitions, Removal, TopicToOpen};

/// This broker's partitions and the configuration that they get.
pub(super) struct Reconciler {
    broker_id: i32,
    config: Arc<LiveConfig>,
    partitions: Arc<Partitions>,
}

impl Reconciler {
    pub(super) fn new(
        broker_id: i32,
        config: Arc<LiveConfig>,
        partitions: Arc<Partitions>,
    ) -> Self {
        Self {
            broker_id,
            config,
            partitions,
        }
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
        let (mut deleted, mut removed) = (Vec::new(), Vec::new());
        let (mut roles, mut updates, mut opened) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Delete(topic) => deleted.push(topic.id),
                Step::Remove(topic, partitions) => removed.extend(removals(topic, partitions)),
                Step::Reconfigure(topic) => self.reconfigure(topic),
                Step::BecomeFollower(topic, partitions) | Step::BecomeLeader(topic, partitions) => {
                    let known = self.partitions.topic_by_id(topic.id);
                    let is_open = |index: &&i32| {
                        let known = known.as_ref();
                        known.is_some_and(|known| known.is_open(**index))
                    };
                    let (open, closed): (Vec<_>, Vec<_>) = partitions.iter().partition(is_open);
                    roles.extend(self.states(topic, open));
                    if !closed.is_empty() {
                        opened.push(self.to_open(topic, closed, settle));
                    }
                }
                Step::UpdateState(topic, partitions) => {
                    updates.extend(self.states(topic, partitions));
                }
            }
        }
        self.partitions.delete(&deleted).await;
        self.partitions.remove(&removed).await;
        self.partitions.take_roles(roles).await;
        self.partitions.update_states(updates);
        if opened.is_empty() && !settle {
            return Some(OpenReport::default());
        }
        let partitions = self.partitions.clone();
        let open = move || {
            let report = partitions.open_topics(opened);
            if settle {
                partitions.settle();
            }
            report
        };
        self.partitions.workers().unblock(open).await
    }

    fn states<'a>(
        &self,
        topic: &Topic,
        partitions: impl IntoIterator<Item = &'a i32>,
    ) -> Vec<(Uuid, i32, PartitionState)> {
        let state = |index: &i32| {
            let info = topic.partition(*index)?;
            Some((topic.id, *index, self.state_of(info)))
        };
        partitions.into_iter().filter_map(state).collect()
    }

    fn state_of(&self, info: &PartitionInfo) -> PartitionState {
        PartitionState {
            own: self.broker_id,
            leader: info.leader,
            leader_epoch: info.leader_epoch,
            partition_epoch: info.partition_epoch,
            replicas: info.replicas.clone(),
            isr: info.isr.clone(),
            eligible: match info.elr.is_empty() {
                true => Eligible::None,
                false => Eligible::Some,
            },
        }
    }

    /// What is opened at start was led, if it was led here, in an earlier run of the broker: it may have less by now than its
    /// followers have of that epoch, or than its consumers have read, so it does not lead in it. The controller gives it another
    /// one.
    fn to_open(&self, topic: &Topic, partitions: Vec<&i32>, at_start: bool) -> TopicToOpen {
        let config = self.log_config(topic);
        let mut dirs = self.partitions.data_dirs();
        let may_have_lost = !config.syncs_every_append() && dirs.any(|dir| dir.may_have_lost());
        let info = |index: &i32| {
            let info = topic.partition(*index)?;
            let mut state = self.state_of(info);
            let begins = state.is_replicated() || may_have_lost;
            if at_start && state.is_led_here() && begins {
                state.leader = -1;
            }
            Some((*index, info.identity, state))
        };
        TopicToOpen {
            topic: topic.name.clone(),
            topic_id: topic.id,
            config,
            partitions: partitions.into_iter().filter_map(info).collect(),
        }
    }
}

fn removals<'a>(topic: &'a Topic, partitions: &'a [i32]) -> impl Iterator<Item = Removal> + 'a {
    partitions.iter().filter_map(|index| {
        let info = topic.partition(*index)?;
        Some(Removal {
            topic_id: topic.id,
            index: *index,
            leader_epoch: info.leader_epoch,
        })
    })
}
