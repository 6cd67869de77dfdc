//! Topics, and one topic with its partitions.
//!
//! Tests: tests/dashboard.rs, tests/dashboard_security.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Page, Part};
use crate::admin::Shared;
use crate::admin::visitor::Visitor;
use crate::api::{Context, Resource};
use crate::cluster::{PartitionInfo, Topic};
use crate::config::{TOPIC_KEYS, TopicConfig};
use crate::partition::Partition;
use crate::security::Operation;

/// A topic.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct TopicView {
    /// Its name.
    pub(in crate::admin) name: String,
    /// Its id.
    pub(in crate::admin) id: String,
    /// Its partitions in the cluster.
    pub(in crate::admin) partitions: usize,
    /// Those of this broker: what follows is about them.
    pub(in crate::admin) partitions_here: usize,
    /// Those of this broker that cannot be used.
    pub(in crate::admin) partitions_offline: usize,
    /// Messages that can be read; about, where some were compacted.
    pub(in crate::admin) messages: i64,
    /// Bytes of segments.
    pub(in crate::admin) bytes: u64,
    /// Bytes of records appended a second.
    pub(in crate::admin) bytes_in: f64,
    /// Bytes of records sent a second.
    pub(in crate::admin) bytes_out: f64,
    /// Messages appended a second.
    pub(in crate::admin) messages_in: f64,
    /// Whether messages are taken (acceptPublish).
    pub(in crate::admin) accept_publish: bool,
    /// Whether messages are given out (acceptSubscribe).
    pub(in crate::admin) accept_subscribe: bool,
    /// Its own configurations; nothing without DescribeConfigs on the topic.
    pub(in crate::admin) overrides: BTreeMap<String, String>,
}

/// Which topics, and in which order.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(in crate::admin) struct TopicsAsked {
    /// `name`, `bytes`, `messages` or `in`; by name without.
    pub(in crate::admin) sort: Option<String>,
    /// Only those whose name contains this.
    pub(in crate::admin) filter: Option<String>,
    /// The place of the first, from 0.
    #[schemars(range(min = 0))]
    pub(in crate::admin) offset: Option<u32>,
    /// How many; at most 1000, 100 without.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::admin) limit: Option<u16>,
}

impl TopicsAsked {
    pub(in crate::admin) fn part(&self) -> Part {
        Part {
            filter: self.filter.clone(),
            offset: self.offset,
            limit: self.limit,
        }
    }
}

/// A partition in a list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct PartitionView {
    /// Its index, by which clients know it.
    pub(in crate::admin) index: i32,
    /// `brokerId-n`.
    pub(in crate::admin) identity: String,
    /// The broker that leads it, -1 for none.
    pub(in crate::admin) leader: i32,
    /// Counts its leaders.
    pub(in crate::admin) leader_epoch: i32,
    /// Whether that broker is there.
    pub(in crate::admin) leader_live: bool,
    /// How many brokers keep it.
    pub(in crate::admin) replicas: usize,
    /// How many of these are in sync.
    pub(in crate::admin) in_sync: usize,
    /// Whether its replicas move to other brokers.
    pub(in crate::admin) moves: bool,
    /// Whether this broker leads it: what follows is known of those only.
    pub(in crate::admin) here: bool,
    /// Whether it takes no messages; it can be read.
    pub(in crate::admin) closed: bool,
    /// Why it cannot be used, where it cannot.
    pub(in crate::admin) offline: Option<String>,
    /// First offset that can be read.
    pub(in crate::admin) log_start: Option<i64>,
    /// Readers see what lies before it.
    pub(in crate::admin) high_watermark: Option<i64>,
    /// Next offset to be written.
    pub(in crate::admin) log_end: Option<i64>,
    /// Messages that can be read; about, where some were compacted.
    pub(in crate::admin) messages: Option<i64>,
    /// Bytes of segments.
    pub(in crate::admin) bytes: Option<u64>,
    /// How many segments.
    pub(in crate::admin) segments: Option<usize>,
    /// Bytes appended since the broker's start.
    pub(in crate::admin) appended_bytes: Option<u64>,
    /// Bytes sent since the broker's start.
    pub(in crate::admin) sent_bytes: Option<u64>,
}

/// A configuration of a topic.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct TopicConfigView {
    /// Its name.
    pub(in crate::admin) name: &'static str,
    /// The value in force.
    pub(in crate::admin) value: String,
    /// `topic`, `broker` or `default`.
    pub(in crate::admin) source: &'static str,
    /// What it does.
    pub(in crate::admin) doc: &'static str,
}

/// A topic with its partitions and configurations.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct TopicDetail {
    /// The topic.
    pub(in crate::admin) topic: TopicView,
    /// Its partitions, or a part of them.
    pub(in crate::admin) partitions: Page<PartitionView>,
    /// Its configurations; nothing without DescribeConfigs on the topic.
    pub(in crate::admin) configurations: Vec<TopicConfigView>,
    /// Groups of this broker that committed offsets in it.
    pub(in crate::admin) groups: Vec<String>,
    /// How it is compacted, where it is.
    pub(in crate::admin) compaction: Option<CompactionView>,
}

/// How the partitions here of a compacted topic are compacted.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(in crate::admin) struct CompactionView {
    /// The largest share of a partition's bytes that are not compacted yet, 0 to 1.
    pub(in crate::admin) dirty_ratio_max: f64,
    /// Partitions that cannot be compacted.
    pub(in crate::admin) uncleanable: usize,
    /// When the last pass since the broker's start ended, ms since 1970.
    pub(in crate::admin) last_ms: Option<i64>,
    /// How long it took, ms.
    pub(in crate::admin) last_took_ms: Option<i64>,
    /// Bytes that it wrote anew.
    pub(in crate::admin) last_before_bytes: Option<u64>,
    /// What they became.
    pub(in crate::admin) last_after_bytes: Option<u64>,
}

impl CompactionView {
    fn of(cx: &Context, topic: &Topic) -> Option<Self> {
        let mut view = Self::default();
        let mut is_compacted = false;
        let here = cx.partitions.topic_by_id(topic.id)?;
        for partition in here.online() {
            let log = partition.log();
            if !log.config().compact {
                continue;
            }
            is_compacted = true;
            let now_ms = cx.partitions.clock().now_ms();
            if let Ok(cleanable) = log.cleanable(partition.last_stable_offset(), now_ms) {
                view.dirty_ratio_max = view.dirty_ratio_max.max(cleanable.dirty_ratio());
            }
            if let Some(pass) = cx.cleaner.last_pass(partition)
                && view.last_ms.is_none_or(|last| pass.at_ms > last)
            {
                view.last_ms = Some(pass.at_ms);
                view.last_took_ms = Some(pass.took_ms);
                view.last_before_bytes = Some(pass.before_bytes);
                view.last_after_bytes = Some(pass.after_bytes);
            }
        }
        let uncleanable = cx.cleaner.uncleanable();
        let own = uncleanable.iter().filter(|log| log.topic == topic.name);
        view.uncleanable = own.count();
        is_compacted.then_some(view)
    }
}

/// Whether a visitor may see what is configured of a topic.
fn sees_configurations(cx: &Context, visitor: &Visitor, topic: &str) -> bool {
    visitor.may(cx, Operation::DescribeConfigs, Resource::Topic(topic))
}

/// All topics that are asked for and that the visitor may see.
pub(in crate::admin) fn list(
    shared: &Shared,
    visitor: &Visitor,
    asked: &TopicsAsked,
) -> Page<TopicView> {
    let part = asked.part();
    let cx = &shared.cx;
    let image = cx.cluster.image();
    let wanted = image.topics().filter(|topic| part.wants(&topic.name));
    let seen = wanted.filter(|topic| visitor.sees_topic(cx, &topic.name));
    let view = |topic: &Arc<Topic>| {
        let mut view = TopicView::of(shared, topic);
        if !sees_configurations(cx, visitor, &topic.name) {
            view.overrides.clear();
        }
        view
    };
    let mut all: Vec<TopicView> = seen.map(view).collect();
    match asked.sort.as_deref() {
        Some("bytes") => all.sort_by_key(|topic| std::cmp::Reverse(topic.bytes)),
        Some("messages") => all.sort_by_key(|topic| std::cmp::Reverse(topic.messages)),
        Some("in") => all.sort_by(|a, b| b.bytes_in.total_cmp(&a.bytes_in)),
        _ => {}
    }
    part.of(all)
}

impl TopicView {
    fn of(shared: &Shared, topic: &Topic) -> Self {
        let cx = &shared.cx;
        let rates = shared.rates.load();
        let rates = rates.topics.get(&topic.name).copied().unwrap_or_default();
        let accepts = cx.config.accepts(&topic.name);
        let mut view = Self {
            name: topic.name.to_string(),
            id: topic.id.to_string(),
            partitions: topic.partitions.len(),
            partitions_here: 0,
            partitions_offline: 0,
            messages: 0,
            bytes: 0,
            bytes_in: rates.bytes_in,
            bytes_out: rates.bytes_out,
            messages_in: rates.messages_in,
            accept_publish: accepts.publish,
            accept_subscribe: accepts.subscribe,
            overrides: topic.overrides.0.clone(),
        };
        if let Some(here) = cx.partitions.topic_by_id(topic.id) {
            view.partitions_offline = here.offline().count();
            view.partitions_here = view.partitions_offline;
            for partition in here.online() {
                view.partitions_here += 1;
                view.messages += messages(partition);
                view.bytes += partition.log().bytes();
            }
        }
        view
    }
}

fn messages(partition: &Partition) -> i64 {
    (partition.high_watermark() - partition.log().ends().log_start).max(0)
}

impl PartitionView {
    pub(in crate::admin) fn of(
        cx: &Context,
        topic: &Topic,
        index: i32,
        info: &PartitionInfo,
    ) -> Self {
        let image = cx.cluster.image();
        let mut view = Self {
            index,
            identity: info.identity.to_string(),
            leader: info.leader,
            leader_epoch: info.leader_epoch,
            leader_live: image.brokers.contains_key(&info.leader),
            replicas: info.replicas.len(),
            in_sync: info.isr.len(),
            moves: info.is_moving(),
            here: info.leader == cx.cluster.broker_id(),
            closed: is_closed(cx, topic, index),
            offline: None,
            log_start: None,
            high_watermark: None,
            log_end: None,
            messages: None,
            bytes: None,
            segments: None,
            appended_bytes: None,
            sent_bytes: None,
        };
        match cx
            .partitions
            .topic_by_id(topic.id)
            .map(|here| here.get(index).cloned())
        {
            Some(Ok(partition)) => view.fill(&partition),
            Some(Err(error)) if view.here => view.offline = Some(error.to_string()),
            _ => {}
        }
        view
    }

    fn fill(&mut self, partition: &Arc<Partition>) {
        let ends = partition.log().ends();
        self.offline = partition.log().offline_reason();
        self.log_start = Some(ends.log_start);
        self.high_watermark = Some(partition.high_watermark());
        self.log_end = Some(ends.log_end.offset);
        self.messages = Some(messages(partition));
        self.bytes = Some(partition.log().bytes());
        self.segments = Some(partition.log().segments().len());
        self.appended_bytes = Some(partition.traffic().appended_bytes());
        self.sent_bytes = Some(partition.traffic().sent_bytes());
    }
}

/// Whether a partition takes no messages (closed.partitions).
fn is_closed(cx: &Context, topic: &Topic, index: i32) -> bool {
    if !topic.overrides.0.contains_key("closed.partitions") {
        return false;
    }
    let in_force = TopicConfig {
        overrides: &topic.overrides,
        broker: &cx.cluster.defaults_for(&topic.name),
    };
    in_force.log().is_closed(index)
}

impl TopicDetail {
    /// Whether a configuration differs from its default.
    pub(in crate::admin) fn is_configured(&self) -> bool {
        let mut all = self.configurations.iter();
        all.any(|config| config.source != "default")
    }

    /// May wait for a lock of a partition; `None` where there is no such topic.
    pub(in crate::admin) fn of(
        shared: &Shared,
        visitor: &Visitor,
        name: &str,
        part: &Part,
    ) -> Option<Self> {
        let cx = &shared.cx;
        let image = cx.cluster.image();
        let topic = image.topic(name)?;
        let (offset, limit) = (part.offset(), part.limit());
        let partitions = topic.partitions.iter().enumerate().skip(offset).take(limit);
        let view = |(index, info)| PartitionView::of(cx, topic, index as i32, info);
        let sees_configurations = sees_configurations(cx, visitor, name);
        let mut detail = Self {
            topic: TopicView::of(shared, topic),
            partitions: Page {
                total: topic.partitions.len(),
                offset,
                items: partitions.map(view).collect(),
            },
            configurations: configurations(cx, topic),
            groups: Vec::new(),
            compaction: CompactionView::of(cx, topic),
        };
        if !sees_configurations {
            detail.configurations.clear();
            detail.topic.overrides.clear();
        }
        Some(detail)
    }
}

fn configurations(cx: &Context, topic: &Topic) -> Vec<TopicConfigView> {
    let broker = cx.cluster.defaults_for(&topic.name);
    let in_force = TopicConfig {
        overrides: &topic.overrides,
        broker: &broker,
    };
    let view = |key: &'static crate::config::TopicKey| TopicConfigView {
        name: key.name,
        value: in_force.get(key.name).to_owned(),
        source: match (
            topic.overrides.0.contains_key(key.name),
            broker.0.contains_key(key.name),
        ) {
            (true, _) => "topic",
            (false, true) => "broker",
            (false, false) => "default",
        },
        doc: key.doc,
    };
    TOPIC_KEYS.iter().map(view).collect()
}
