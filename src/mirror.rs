//! `__consumer_offsets` as a log (`offsets.topic.mirror`): what groups store in the coordination tree is appended to it too, in
//! Kafka's record format, for tools that read it. Nothing in the broker does.
//!
//! Each slot of this broker has a partition. It begins with the slot's whole state, after which changes follow. When a slot
//! comes to this broker, when changes were lost, and when they have grown to several times the state, the whole state is
//! appended again, and after offsets.topic.mirror.keep.ms the log's start moves to it: so a reader that begins at the start knows
//! everything, without compaction, and one that reads on has time.
//! An offset in it means nothing to the broker that owns the slot next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metaq_protocol::batch::{BatchBuilder, BatchHeader};
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;

use crate::cluster::{Cluster, ClusterEvent, INTERNAL_TOPIC_ID};
use crate::config::{TopicConfig, TopicOverrides};
use crate::coordinator::{InternalTopic, Slot};
use crate::group::{GroupCoordinator, MirrorFeed, MirrorRecord, MirrorUpdate};
use crate::log::{LogError, ProducedBatch};
use crate::partition::{Acks, Identity, Partition, PartitionState, Partitions, TopicToOpen};

/// The configuration that turns it on.
pub const OFFSETS_MIRROR: &str = "offsets.topic.mirror";
/// A batch has about this many bytes of records, or one larger record.
const BATCH_BYTES: usize = 256 << 10;
/// Changes may grow to this, bytes, before the whole state is appended again; or to [`STATE_TIMES_MAX`] times the state.
const CHANGES_BYTES_MIN: usize = 4 << 20;
const STATE_TIMES_MAX: usize = 4;
/// How often slots are looked for whose whole state is needed, and what is superseded.
const TICK: Duration = Duration::from_secs(1);
/// The longest wait before a partition is tried again that cannot be written.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long what a whole state supersedes is kept, ms.
pub const OFFSETS_MIRROR_KEEP: &str = "offsets.topic.mirror.keep.ms";

/// What was appended of a slot.
#[derive(Debug, Default)]
struct Mirrored {
    /// The epoch that its partition is open in.
    epoch: i32,
    state_bytes: usize,
    changes_bytes: usize,
    /// Where whole states begin that have superseded what is before them, and since when.
    superseded: VecDeque<(Instant, i64)>,
    /// How often it could not be appended to, without a success in between, and when it is tried again.
    failures: u32,
    retry_at: Option<Instant>,
}

impl Mirrored {
    fn has_grown(&self) -> bool {
        self.changes_bytes > CHANGES_BYTES_MIN.max(STATE_TIMES_MAX * self.state_bytes)
    }
}

/// See the module's documentation.
pub struct OffsetsMirror {
    cluster: Arc<Cluster>,
    partitions: Arc<Partitions>,
    coordinator: GroupCoordinator,
    feed: Arc<MirrorFeed>,
    slots: BTreeMap<Slot, Mirrored>,
    /// How long readers have to pass on from what is superseded.
    keep: Duration,
}

impl OffsetsMirror {
    /// Of what these groups tell.
    pub fn new(
        cluster: Arc<Cluster>,
        partitions: Arc<Partitions>,
        coordinator: GroupCoordinator,
        feed: Arc<MirrorFeed>,
        keep: Duration,
    ) -> Self {
        Self {
            cluster,
            partitions,
            coordinator,
            feed,
            slots: BTreeMap::new(),
            keep,
        }
    }

    /// Appends what comes, until the broker ends.
    pub async fn run(mut self, mut events: broadcast::Receiver<ClusterEvent>) {
        let feed = self.feed.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                update = feed.next() => self.take(update).await,
                event = events.recv() => match event {
                    Ok(ClusterEvent::TopicDeleted(..)) => {}
                    Ok(ClusterEvent::Slots) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.stop_lost().await;
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                _ = tick.tick() => {
                    for slot in feed.lost() {
                        let mirrored = self.slots.get(&slot);
                        let retry_at = mirrored.and_then(|mirrored| mirrored.retry_at);
                        if retry_at.is_none_or(|at| at <= Instant::now()) {
                            self.coordinator.mirror_whole(slot).await;
                        }
                    }
                    self.drop_superseded().await;
                }
            }
        }
    }

    async fn take(&mut self, update: MirrorUpdate) {
        let slot = update.slot;
        if self.epoch_of(slot) != Some(update.epoch) {
            return;
        }
        let Err(error) = self.append(update).await else {
            return;
        };
        self.feed.lose(slot);
        let mirrored = self.slots.entry(slot).or_default();
        mirrored.failures += 1;
        let wait = RETRY_MAX.min(TICK * 2u32.saturating_pow(mirrored.failures.min(16)));
        mirrored.retry_at = Some(Instant::now() + wait);
        match mirrored.failures {
            1 => {
                tracing::warn!(%slot, %error, "a partition of __consumer_offsets cannot be written; trying on")
            }
            _ => {
                tracing::debug!(%slot, %error, "a partition of __consumer_offsets cannot be written")
            }
        }
    }

    /// Moves the start of logs to the latest whole state that readers have had time to reach.
    async fn drop_superseded(&mut self) {
        let keep = self.keep;
        let name = InternalTopic::ConsumerOffsets.name();
        for (slot, mirrored) in &mut self.slots {
            let is_over = |(since, _): &(Instant, i64)| since.elapsed() >= keep;
            let over = mirrored.superseded.iter().take_while(|one| is_over(one));
            let over = over.count();
            let Some((_, start)) = mirrored.superseded.drain(..over).next_back() else {
                continue;
            };
            let Ok(partition) = self.partitions.get(name, slot.number() as i32) else {
                continue;
            };
            if let Err(error) = self.partitions.delete_records(&partition, start).await {
                tracing::warn!(%slot, %error, "what is superseded in __consumer_offsets stays");
            }
        }
    }

    async fn append(&mut self, update: MirrorUpdate) -> Result<(), LogError> {
        let MirrorUpdate {
            slot,
            epoch,
            is_whole,
            records,
        } = update;
        let partition = self.open(slot, epoch).await?;
        let start = partition.log().ends().log_end.offset;
        let now_ms = self.partitions.clock().now_ms();
        let batches = batches(&records, now_ms)?;
        let bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
        for batch in batches {
            let appended = partition.append(Acks::Leader, vec![batch]).await;
            appended.map_err(|_| LogError::Offline("the writer ended".to_owned()))??;
        }
        let mirrored = self.slots.entry(slot).or_default();
        (mirrored.failures, mirrored.retry_at) = (0, None);
        if is_whole {
            (mirrored.state_bytes, mirrored.changes_bytes) = (bytes, 0);
            mirrored.superseded.push_back((Instant::now(), start));
        } else {
            mirrored.changes_bytes += bytes;
            if mirrored.has_grown() {
                mirrored.changes_bytes = 0;
                self.coordinator.mirror_whole(slot).await;
            }
        }
        Ok(())
    }

    /// The partition of a slot, open in an epoch.
    async fn open(&mut self, slot: Slot, epoch: i32) -> Result<Arc<Partition>, LogError> {
        let name = InternalTopic::ConsumerOffsets.name();
        let index = slot.number() as i32;
        let is_open = self
            .slots
            .get(&slot)
            .is_some_and(|known| known.epoch == epoch);
        if is_open && let Ok(partition) = self.partitions.get(name, index) {
            return Ok(partition);
        }
        self.partitions.stop(&[(INTERNAL_TOPIC_ID, index)]).await;
        let identity = Identity {
            broker_id: self.cluster.broker_id(),
            number: slot.number() as i32,
        };
        let known = self.cluster.image().internal_topic(name);
        let overrides = &known.map(|known| known.overrides).unwrap_or_default();
        let broker = &TopicOverrides::default();
        let topic = TopicToOpen {
            topic: name.into(),
            topic_id: INTERNAL_TOPIC_ID,
            config: TopicConfig { overrides, broker }.log(),
            partitions: vec![(index, identity, PartitionState::alone(epoch))],
        };
        let partitions = self.partitions.clone();
        let open = move || partitions.open_topics(vec![topic]);
        let opened = self.partitions.workers().unblock(open).await;
        opened.ok_or_else(|| LogError::Offline("opening it panicked; this is a bug".to_owned()))?;
        self.slots.entry(slot).or_default().epoch = epoch;
        let partition = self.partitions.get(name, index);
        partition.map_err(|error| LogError::Offline(error.to_string()))
    }

    /// Gives up the partitions of slots that other brokers own.
    async fn stop_lost(&mut self) {
        let slots = self.slots.keys().copied();
        let lost: Vec<Slot> = slots
            .filter(|slot| self.epoch_of(*slot).is_none())
            .collect();
        for slot in lost {
            self.slots.remove(&slot);
            self.feed.forget(slot);
            self.partitions
                .stop(&[(INTERNAL_TOPIC_ID, slot.number() as i32)])
                .await;
        }
    }

    /// The epoch in which this broker owns a slot.
    fn epoch_of(&self, slot: Slot) -> Option<i32> {
        let info = self.cluster.image().slot(slot)?;
        (info.owner == self.cluster.broker_id()).then_some(info.epoch)
    }
}

fn batches(records: &[MirrorRecord], now_ms: i64) -> Result<Vec<ProducedBatch>, LogError> {
    let malformed = |error: String| LogError::Offline(format!("a record of the mirror: {error}"));
    let mut all = Vec::new();
    let mut left = records;
    while !left.is_empty() {
        let (mut builder, mut bytes, mut taken) = (BatchBuilder::new(), 0, 0);
        while let Some(record) = left.get(taken)
            && (taken == 0 || bytes + record.bytes() <= BATCH_BYTES)
        {
            bytes += record.bytes();
            builder = builder.push(Some(&record.key), record.value.as_deref(), &[], now_ms);
            taken += 1;
        }
        left = &left[taken..];
        let bytes = builder
            .finish()
            .map_err(|error| malformed(error.to_string()))?;
        let header = BatchHeader::parse(&bytes).map_err(|error| malformed(error.to_string()))?;
        all.push(ProducedBatch { header, bytes });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn records_are_cut_into_batches_and_a_large_one_has_its_own() {
        let record = |bytes| MirrorRecord {
            key: Bytes::from_static(b"k"),
            value: Some(Bytes::from(vec![0; bytes])),
        };
        let half = BATCH_BYTES / 2;
        let records = [
            record(half - 9),
            record(half - 9),
            record(3 * half),
            record(1),
        ];
        let batches = batches(&records, 5).unwrap();
        let counts = batches.iter().map(|batch| batch.header.record_count);
        assert_eq!(counts.collect::<Vec<_>>(), [2, 1, 1]);
    }

    #[test]
    fn the_state_is_appended_again_when_changes_are_several_times_as_large() {
        let grown = |state_bytes, changes_bytes| {
            let mirrored = Mirrored {
                state_bytes,
                changes_bytes,
                ..Mirrored::default()
            };
            mirrored.has_grown()
        };
        assert!(!grown(0, CHANGES_BYTES_MIN) && grown(0, CHANGES_BYTES_MIN + 1));
        assert!(!grown(CHANGES_BYTES_MIN, 4 * CHANGES_BYTES_MIN));
        assert!(grown(CHANGES_BYTES_MIN, 4 * CHANGES_BYTES_MIN + 1));
    }
}
