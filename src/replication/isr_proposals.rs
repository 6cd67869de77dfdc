//! Proposes to the controller who is in sync (AlterPartition; Kafka's AlterPartitionManager): what partitions want changed, all that
//! is there in one request, one request at a time.
//!
//! A replica in sync whose files cannot be used here, led or followed, proposes that the others are in sync: it resigns.
//!
//! A proposal of which it is not known what became of it is sent again as it is: who it would add may be in sync by now, and counts
//! until the controller has said that it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use metaq_protocol::messages::alter_partition_response::PartitionData as Altered;
use metaq_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse, BrokerId};
use tokio::time::Instant;

use super::followed::Key;
use crate::api::{Context, FORWARDED, alter_partitions_here};
use crate::cluster::{Image, PartitionInfo};
use crate::partition::{IsrChange, Partition, PartitionError, TopicPartitions};
use crate::peer::Lane;

/// AlterPartition in this version is understood by every broker of a cluster.
const VERSION: i16 = 3;
/// How long the controller may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Pause after a proposal without an answer, or one that was not taken.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause after which partitions whose files cannot be used are looked at again.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// Sends what partitions want proposed, until the broker ends.
pub(super) async fn send(cx: Arc<Context>) {
    let watch = cx.partitions.isr_watch().clone();
    let mut proposals = Proposals {
        cx: cx.clone(),
        under_way: BTreeMap::new(),
        failed: BTreeSet::new(),
    };
    // As Kafka's ReplicaManager: twice in the time that a replica may lag.
    let mut looked = Instant::now();
    loop {
        let pause = match (proposals.under_way.is_empty(), proposals.failed.is_empty()) {
            (true, true) => watch.lag_max / 2,
            (true, false) => FAILED_PAUSE.min(watch.lag_max / 2),
            (false, _) => PAUSE,
        };
        if let Ok(wanted) = tokio::time::timeout(pause, watch.wanted()).await {
            wanted.into_iter().for_each(|key| proposals.begin(key));
        }
        if looked.elapsed() >= watch.lag_max / 2 {
            looked = Instant::now();
            let topics = cx.partitions.topics();
            let led = topics.iter().flat_map(|topic| topic.online());
            led.for_each(|partition| partition.look_for_laggards());
            proposals.look_for_failed(&topics);
        }
        proposals.resign();
        proposals.send().await;
    }
}

struct Proposals {
    cx: Arc<Context>,
    /// Those that were not answered, and how many are in sync before them.
    under_way: BTreeMap<Key, (IsrChange, usize)>,
    /// Partitions whose files cannot be used here.
    failed: BTreeSet<Key>,
}

impl Proposals {
    fn partition(&self, key: &Key) -> Option<Arc<Partition>> {
        let topic = self.cx.partitions.topic_by_id(key.0)?;
        topic.get(key.1).ok().cloned()
    }

    /// Whether the files of a partition cannot be used. One that goes to another directory is closed, and nothing else.
    fn has_failed(&self, key: &Key) -> bool {
        let topic = self.cx.partitions.topic_by_id(key.0);
        topic.is_some_and(|topic| match topic.get(key.1) {
            Ok(partition) => partition.log().is_offline() && !partition.is_deleted(),
            Err(error) => matches!(error, PartitionError::Offline(_)),
        })
    }

    /// The state of a partition, as far as it is known here.
    fn info(&self, key: &Key) -> Option<PartitionInfo> {
        let image = self.cx.cluster.image();
        image.topic_by_id(key.0)?.partition(key.1).cloned()
    }

    /// Finds those whose failure nobody told of.
    fn look_for_failed(&mut self, topics: &[Arc<TopicPartitions>]) {
        for topic in topics {
            let online = topic.online().map(|partition| partition.index());
            let offline = topic.offline().map(|(index, _)| index);
            let all = online.chain(offline).map(|index| (topic.topic_id, index));
            let failed: Vec<Key> = all.filter(|key| self.has_failed(key)).collect();
            self.failed.extend(failed);
        }
    }

    /// Proposes of partitions whose files cannot be used that the others are in sync.
    fn resign(&mut self) {
        let own = self.cx.cluster.broker_id();
        for key in std::mem::take(&mut self.failed) {
            if !self.has_failed(&key) {
                continue;
            }
            self.failed.insert(key);
            let known = self.info(&key);
            let known = known.filter(|info| info.isr.contains(&own) && info.isr.len() > 1);
            if let Some(info) = known {
                let others = info.isr.iter().filter(|id| **id != own);
                let resignation = IsrChange {
                    leader_epoch: info.leader_epoch,
                    partition_epoch: info.partition_epoch,
                    isr: others.map(|id| (*id, -1)).collect(),
                };
                self.under_way.insert(key, (resignation, info.isr.len()));
            }
        }
    }

    /// Begins the proposal that a partition wants, where it is due.
    fn begin(&mut self, key: Key) {
        if self.has_failed(&key) {
            self.failed.insert(key);
            return;
        }
        let Some(partition) = self.partition(&key) else {
            return;
        };
        let watch = self.cx.partitions.isr_watch();
        let before = partition.state().isr.len();
        let change = partition.begin_proposal(|id, epoch| watch.is_eligible(id, epoch));
        if let Some(change) = change {
            self.under_way.insert(key, (change, before));
        }
    }

    /// Sends all that has no answer, and takes the answers.
    async fn send(&mut self) {
        let is_current = |key: &Key, change: &IsrChange| {
            if self.has_failed(key) {
                let known = self.info(key);
                return known.is_some_and(|info| {
                    info.leader_epoch == change.leader_epoch
                        && info.partition_epoch == change.partition_epoch
                });
            }
            let partition = self.partition(key);
            partition.is_some_and(|partition| {
                let state = partition.state();
                partition.is_leader()
                    && state.leader_epoch == change.leader_epoch
                    && state.partition_epoch == change.partition_epoch
            })
        };
        let outdated: Vec<Key> = self
            .under_way
            .iter()
            .filter(|(key, (change, _))| !is_current(key, change))
            .map(|(key, _)| *key)
            .collect();
        for key in outdated {
            self.under_way.remove(&key);
        }
        if self.under_way.is_empty() {
            return;
        }
        match self.ask().await {
            Ok(answer) if answer.error_code == 0 => {
                for topic in answer.topics {
                    for altered in topic.partitions {
                        self.answered((topic.topic_id, altered.partition_index), &altered);
                    }
                }
            }
            Ok(answer) => {
                let error = ResponseError::try_from_code(answer.error_code);
                tracing::debug!(?error, "proposals of who is in sync are not taken now");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::debug!(%error, "proposals of who is in sync have no answer");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// As Kafka's Partition.handleAlterPartitionError.
    fn answered(&mut self, key: Key, altered: &Altered) {
        if self.has_failed(&key) {
            // What became of it the image says; where it is not done, it is proposed again in a while.
            let error = ResponseError::try_from_code(altered.error_code);
            tracing::info!(topic_id = %key.0, partition = key.1, ?error, "cannot use its files, and resigned");
            self.under_way.remove(&key);
            return;
        }
        let Some(partition) = self.partition(&key) else {
            return;
        };
        match ResponseError::try_from_code(altered.error_code) {
            None => {
                let change = self.under_way.remove(&key);
                let mut state = partition.state();
                if state.leader_epoch == altered.leader_epoch {
                    state.partition_epoch = altered.partition_epoch;
                    state.isr = altered.isr.iter().map(|id| id.0).collect();
                    partition.update_state(&state);
                }
                if let Some((change, before)) = change {
                    self.count(before, altered.isr.len());
                    // Where it changed nothing, no other state ends it.
                    partition.withdraw_proposal(&change);
                }
            }
            Some(
                error @ (ResponseError::IneligibleReplica | ResponseError::OperationNotAttempted),
            ) => {
                let failed = &self.cx.metrics.isr_updates_failed;
                failed.fetch_add(1, Ordering::Relaxed);
                tracing::info!(topic = %partition.topic(), partition = key.1, ?error, "who is in sync stays");
                if let Some((change, _)) = self.under_way.remove(&key) {
                    partition.withdraw_proposal(&change);
                }
            }
            // Another state is on its way here, which ends the proposal; or the same is asked again.
            Some(error) => {
                tracing::debug!(topic = %partition.topic(), partition = key.1, ?error, "a proposal is not taken");
            }
        }
    }

    /// So many were in sync before a proposal, and are after it.
    fn count(&self, before: usize, after: usize) {
        let metrics = &self.cx.metrics;
        let counted = match after.cmp(&before) {
            std::cmp::Ordering::Less => &metrics.isr_shrinks,
            std::cmp::Ordering::Equal => return,
            std::cmp::Ordering::Greater => &metrics.isr_expands,
        };
        counted.fetch_add(1, Ordering::Relaxed);
    }

    async fn ask(&self) -> io::Result<AlterPartitionResponse> {
        let image = self.cx.cluster.image();
        let own = self.cx.cluster.broker_id();
        let away = || io::Error::from(io::ErrorKind::NotConnected);
        let registered = image.brokers.get(&own).ok_or_else(away)?;
        let request = AlterPartitionRequest::default()
            .with_broker_id(BrokerId(own))
            .with_broker_epoch(registered.epoch)
            .with_topics(self.topics(&image));
        if self.cx.cluster.is_controller() {
            return Ok(alter_partitions_here(&self.cx, request, VERSION).await);
        }
        let controller = image.brokers.get(&image.controller_id);
        let controller = controller.filter(|controller| controller.id != own);
        let controller = controller.ok_or_else(away)?;
        let (to, by) = ((Lane::InSync, controller), (FORWARDED, VERSION));
        self.cx.call(to, by, &request, ANSWER_MAX).await
    }

    fn topics(&self, image: &Image) -> Vec<TopicData> {
        let mut topics: Vec<TopicData> = Vec::new();
        for ((topic_id, index), (change, _)) in &self.under_way {
            let member = |(id, epoch): &(i32, i64)| {
                let registered = image.brokers.get(id).map_or(-1, |broker| broker.epoch);
                BrokerState::default()
                    .with_broker_id(BrokerId(*id))
                    // Who leads, or has not fetched yet, is in the registration that is known.
                    .with_broker_epoch(if *epoch == -1 { registered } else { *epoch })
            };
            let partition = PartitionData::default()
                .with_partition_index(*index)
                .with_leader_epoch(change.leader_epoch)
                .with_partition_epoch(change.partition_epoch)
                .with_new_isr_with_epochs(change.isr.iter().map(member).collect());
            match topics.last_mut() {
                Some(topic) if topic.topic_id == *topic_id => topic.partitions.push(partition),
                _ => topics.push(
                    TopicData::default()
                        .with_topic_id(*topic_id)
                        .with_partitions(vec![partition]),
                ),
            }
        }
        topics
    }
}
