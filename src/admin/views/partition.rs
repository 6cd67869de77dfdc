//! One partition: its segments, producers and epochs.
//!
//! Tests: tests/dashboard_security.rs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::replicas::{self, ReplicaView};
use super::topics::PartitionView;
use crate::admin::visitor::Visitor;
use crate::api::{Context, Resource};
use crate::partition::Partition;
use crate::security::Operation;

/// Segments that are shown: the latest.
const SEGMENTS_SHOWN: usize = 200;
/// Producers that are shown: those that wrote last.
const PRODUCERS_SHOWN: usize = 200;
/// Epochs that are shown: the latest.
const EPOCHS_SHOWN: usize = 200;

/// A partition of this broker.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct PartitionDetail {
    /// The topic.
    pub(in crate::admin) topic: String,
    /// The partition in the list of its topic.
    pub(in crate::admin) partition: PartitionView,
    /// Brokers that keep it.
    pub(in crate::admin) replicas: Vec<i32>,
    /// Those in sync.
    pub(in crate::admin) isr: Vec<i32>,
    /// How each replica is, in their order.
    pub(in crate::admin) replica_states: Vec<ReplicaView>,
    /// Where its files are; `None` on other brokers.
    pub(in crate::admin) directory: Option<String>,
    /// What lies before it survives a power failure.
    pub(in crate::admin) durable_offset: Option<i64>,
    /// The latest segments, oldest first.
    pub(in crate::admin) segments: Vec<SegmentView>,
    /// How many segments there are.
    pub(in crate::admin) segments_total: usize,
    /// Idempotent producers that wrote last, the latest first; nothing without Read on the topic.
    pub(in crate::admin) producers: Vec<ProducerView>,
    /// How many producers are remembered.
    pub(in crate::admin) producers_total: usize,
    /// Leader epochs and where they begin, oldest first.
    pub(in crate::admin) epochs: Vec<EpochView>,
    /// Bytes of files in its directory by what they are: `log`, `index`, `timeindex`, and others.
    pub(in crate::admin) files: BTreeMap<String, u64>,
}

/// A segment.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct SegmentView {
    /// First offset that it may hold.
    pub(in crate::admin) base_offset: i64,
    /// Its file.
    pub(in crate::admin) file: String,
    /// Bytes of the `.log` file.
    pub(in crate::admin) bytes: u64,
    /// Entries of the offset index.
    pub(in crate::admin) offset_index_entries: Option<usize>,
    /// Entries of the time index.
    pub(in crate::admin) time_index_entries: Option<usize>,
    /// Largest timestamp of its records, ms since 1970; -1 without.
    pub(in crate::admin) largest_timestamp_ms: i64,
    /// When it was written last, ms since 1970.
    pub(in crate::admin) modified_ms: i64,
}

/// A producer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct ProducerView {
    /// Its id.
    pub(in crate::admin) id: i64,
    /// Its epoch.
    pub(in crate::admin) epoch: i16,
    /// Sequence of its last record, -1 when unknown.
    pub(in crate::admin) last_sequence: i32,
    /// Offset of its last record, -1 when unknown.
    pub(in crate::admin) last_offset: i64,
    /// Timestamp of its last batch, ms since 1970.
    pub(in crate::admin) last_timestamp_ms: i64,
    /// Start of its open transaction, `None` without.
    pub(in crate::admin) transaction_start: Option<i64>,
}

/// A leader epoch.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct EpochView {
    /// The epoch.
    pub(in crate::admin) epoch: i32,
    /// First offset written under it.
    pub(in crate::admin) start_offset: i64,
}

impl PartitionDetail {
    /// May wait for the disk; `None` where there is no such partition.
    pub(in crate::admin) fn of(
        cx: &Context,
        visitor: &Visitor,
        topic: &str,
        index: i32,
    ) -> Option<Self> {
        let image = cx.cluster.image();
        let topic = image.topic(topic)?;
        let info = topic.partition(index)?;
        let here = cx.partitions.get(&topic.name, index).ok();
        let mut view = Self {
            topic: topic.name.to_string(),
            partition: PartitionView::of(cx, topic, index, info),
            replicas: info.replicas.clone(),
            isr: info.isr.clone(),
            replica_states: replicas::of(cx, info, here.as_deref()),
            directory: None,
            durable_offset: None,
            segments: Vec::new(),
            segments_total: 0,
            producers: Vec::new(),
            producers_total: 0,
            epochs: Vec::new(),
            files: BTreeMap::new(),
        };
        if let Some(partition) = here {
            view.fill(&partition);
        }
        // As DescribeProducers asks for it.
        if !visitor.may(cx, Operation::Read, Resource::Topic(&topic.name)) {
            view.producers.clear();
        }
        Some(view)
    }

    fn fill(&mut self, partition: &Partition) {
        let log = partition.log();
        self.directory = Some(log.dir().display().to_string());
        self.durable_offset = Some(partition.durable_offset());
        self.segments_total = log.segments().len();
        let segment = |figures: crate::log::SegmentFigures| SegmentView {
            base_offset: figures.base_offset,
            file: figures
                .path
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            bytes: figures.bytes,
            offset_index_entries: figures.offset_entries,
            time_index_entries: figures.time_entries,
            largest_timestamp_ms: figures.largest_timestamp,
            modified_ms: figures.modified_ms,
        };
        let figures = log.segment_figures(SEGMENTS_SHOWN);
        self.segments = figures.into_iter().map(segment).collect();
        let mut producers = log.with_producers(|producers| {
            let all = producers.iter().map(|(id, producer)| ProducerView {
                id,
                epoch: producer.epoch,
                last_sequence: producer.last_sequence(),
                last_offset: producer
                    .batches
                    .back()
                    .map_or(-1, |batch| batch.last_offset),
                last_timestamp_ms: producer.last_timestamp,
                transaction_start: Some(producer.transaction_first_offset)
                    .filter(|offset| *offset >= 0),
            });
            all.collect::<Vec<_>>()
        });
        self.producers_total = producers.len();
        producers.sort_by_key(|producer| std::cmp::Reverse(producer.last_timestamp_ms));
        producers.truncate(PRODUCERS_SHOWN);
        self.producers = producers;
        let epochs: Vec<_> = log.epochs().iter().copied().collect();
        let from = epochs.len().saturating_sub(EPOCHS_SHOWN);
        let epoch = |start: &crate::log::EpochStart| EpochView {
            epoch: start.epoch,
            start_offset: start.start_offset,
        };
        self.epochs = epochs[from..].iter().map(epoch).collect();
        self.files = files(&log.dir());
    }
}

/// Bytes by the ending of the names.
fn files(dir: &std::path::Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = match path.extension() {
            Some(extension) => extension.to_string_lossy().into_owned(),
            None => "checkpoints".to_owned(),
        };
        let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
        *found.entry(kind).or_default() += bytes;
    }
    found
}
