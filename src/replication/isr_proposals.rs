//! Proposes to the controller who is in sync (AlterPartition; Kafka's AlterPartitionManager): what partitions want changed, all that
//! is there in one request, one request at a time.
//!
//! A replica in sync whose files cannot be used here, led or followed, proposes that the others are in sync: it resigns.
//!
//! A proposal of which it is not known what became of it is sent again as it is: who it would add may be in sync by now, and counts
//! until the controller has said that it is not.
//!
//! Tests: tests/replication.rs, tests/replicas.rs.

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
use super::isr_history::{Laggard, Laggards};
use super::retries::Retries;
use crate::api::{Context, FORWARDED, alter_partitions_here, eligible_in};
use crate::cluster::{Image, PartitionInfo};
use crate::partition::{FollowerState, IsrChange, Partition, PartitionError, TopicPartitions};
use crate::peer::Lane;

/// AlterPartition in this version is understood by every broker of a cluster.
const VERSION: i16 = 3;
/// How long the controller may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Pause after which partitions whose files cannot be used are looked at again.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// Sends what partitions want proposed, until the broker ends.
pub(super) async fn send(cx: Arc<Context>, laggards: Arc<Laggards>) {
    let watch = cx.partitions.isr_watch().clone();
    let mut proposals = Proposals {
        cx: cx.clone(),
        laggards,
        under_way: BTreeMap::new(),
        wanted: BTreeSet::new(),
        failed: BTreeSet::new(),
        resigned: Instant::now(),
        retries: Retries::default(),
        asked: (-1, Vec::new()),
    };
    let mut images = cx.cluster.image_changes();
    // As Kafka's ReplicaManager: twice in the time that a replica may lag.
    let mut looked = Instant::now();
    loop {
        let looks_again = looked + watch.lag_max / 2;
        let until = proposals
            .next_at()
            .map_or(looks_again, |at| at.min(looks_again));
        tokio::select! {
            wanted = watch.wanted() => proposals.wanted.extend(wanted),
            () = tokio::time::sleep_until(until) => {}
            changed = images.changed() => if changed.is_err() { return },
        }
        proposals.look_for_brokers();
        proposals.begin_all();
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
    /// Told whom a proposal takes out.
    laggards: Arc<Laggards>,
    /// Those that were not answered, and how many are in sync before them.
    under_way: BTreeMap<Key, (IsrChange, usize)>,
    /// Partitions that have something to propose.
    wanted: BTreeSet<Key>,
    /// Partitions whose files cannot be used here.
    failed: BTreeSet<Key>,
    /// When those were looked at.
    resigned: Instant,
    /// Of partitions; and of the controller, where all was refused.
    retries: Retries<Option<Key>>,
    /// The controller that was asked, and the brokers that were registered then, with their registrations.
    asked: (i32, Vec<(i32, i64, bool)>),
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

    /// Until when there is nothing to do but for what is new; `None` where nothing is left to be done.
    fn next_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let at = |key| self.retries.rests_until(&key, now).unwrap_or(now);
        let keys = self.under_way.keys().chain(&self.wanted);
        let asked = keys.map(|key| at(Some(*key)).max(at(None))).min();
        let failed = (!self.failed.is_empty()).then(|| self.resigned + FAILED_PAUSE);
        asked.into_iter().chain(failed).min()
    }

    fn rests(&self, key: Option<Key>) -> bool {
        self.retries.rests_until(&key, Instant::now()).is_some()
    }

    /// Where another broker is the controller, or one is registered anew or gone, what was refused is asked at once.
    fn look_for_brokers(&mut self) {
        let image = self.cx.cluster.image();
        let brokers = image.brokers.values();
        let registered = brokers.map(|broker| (broker.id, broker.epoch, broker.shutting_down));
        let now = (image.controller_id, registered.collect());
        if now != self.asked {
            self.asked = now;
            self.retries.begin_anew();
        }
    }

    /// Begins what is wanted and does not rest.
    fn begin_all(&mut self) {
        for key in std::mem::take(&mut self.wanted) {
            match self.rests(Some(key)) {
                true => drop(self.wanted.insert(key)),
                false => self.begin(key),
            }
        }
    }

    /// Proposes of partitions whose files cannot be used that the others are in sync.
    fn resign(&mut self) {
        self.resigned = Instant::now();
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
        let before = partition.state().isr;
        let change = partition.begin_proposal(|id, epoch| watch.is_eligible(id, epoch));
        if let Some(change) = change {
            let laggards = laggards(&partition, &before, &change);
            self.laggards.propose(key, change.partition_epoch, laggards);
            self.under_way.insert(key, (change, before.len()));
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
        let keys = self.under_way.keys();
        let due: BTreeSet<Key> = keys
            .copied()
            .filter(|key| !self.rests(Some(*key)))
            .collect();
        if due.is_empty() || self.rests(None) {
            return;
        }
        match self.ask(&due).await {
            Ok(answer) if answer.error_code == 0 => {
                self.retries.taken(&None);
                for topic in answer.topics {
                    for altered in topic.partitions {
                        self.answered((topic.topic_id, altered.partition_index), &altered);
                    }
                }
            }
            Ok(answer) => {
                let error = ResponseError::try_from_code(answer.error_code);
                tracing::debug!(?error, "proposals of who is in sync are not taken now");
                self.retries.refused(None, Instant::now());
            }
            Err(error) => {
                tracing::debug!(%error, "proposals of who is in sync have no answer");
                self.retries.refused(None, Instant::now());
            }
        }
    }

    /// As Kafka's Partition.handleAlterPartitionError.
    fn answered(&mut self, key: Key, altered: &Altered) {
        match altered.error_code {
            0 => self.retries.taken(&Some(key)),
            _ => self.retries.refused(Some(key), Instant::now()),
        }
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
                    state.eligible = eligible_in(altered);
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

    async fn ask(&self, due: &BTreeSet<Key>) -> io::Result<AlterPartitionResponse> {
        let image = self.cx.cluster.image();
        let own = self.cx.cluster.broker_id();
        let away = || io::Error::from(io::ErrorKind::NotConnected);
        let registered = image.brokers.get(&own).ok_or_else(away)?;
        let request = AlterPartitionRequest::default()
            .with_broker_id(BrokerId(own))
            .with_broker_epoch(registered.epoch)
            .with_topics(self.topics(&image, due));
        if self.cx.cluster.is_controller() {
            return Ok(alter_partitions_here(&self.cx, request, VERSION).await);
        }
        let controller = image.brokers.get(&image.controller_id);
        let controller = controller.filter(|controller| controller.id != own);
        let controller = controller.ok_or_else(away)?;
        let (to, by) = ((Lane::InSync, controller), (FORWARDED, VERSION));
        self.cx.call(to, by, &request, ANSWER_MAX).await
    }

    fn topics(&self, image: &Image, due: &BTreeSet<Key>) -> Vec<TopicData> {
        let mut topics: Vec<TopicData> = Vec::new();
        let under_way = self.under_way.iter().filter(|(key, _)| due.contains(*key));
        for ((topic_id, index), (change, _)) in under_way {
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

/// Whom a proposal takes out, as they are at this moment.
fn laggards(partition: &Partition, before: &[i32], change: &IsrChange) -> Vec<Laggard> {
    let stays = |id: i32| change.isr.iter().any(|(member, _)| *member == id);
    let end = partition.log().ends().log_end.offset;
    let followers = partition.followers().into_iter();
    let left = followers.filter(|one| before.contains(&one.replica) && !stays(one.replica));
    let laggard = |one: FollowerState| Laggard {
        replica: one.replica,
        behind: (one.log_end >= 0).then(|| (end - one.log_end).max(0)),
        lagged: one.caught_up.map(|then| then.elapsed()),
    };
    left.map(laggard).collect()
}
