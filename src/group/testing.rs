//! Topics for the tests of this module.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::consumer::{Assignor, ConsumerSettings, GroupSettings, MigrationPolicy};

use super::share::ShareGroupSettings;
use super::streams::StreamsSettings;
use crate::coordinator::{TopicPartition, Topics};

/// Topic `t` with four partitions.
pub(super) struct OneTopic;

pub(super) const TOPIC_ID: Uuid = Uuid::from_u128(1);

impl Topics for OneTopic {
    fn partition(&self, topic: &str, index: i32) -> Option<TopicPartition> {
        let exists = topic == "t" && (0..4).contains(&index);
        exists.then(|| TopicPartition {
            topic_id: TOPIC_ID,
            identity: format!("0-{index}"),
        })
    }

    fn index_of(&self, topic: &str, identity: &str) -> Option<i32> {
        let index = identity.strip_prefix("0-")?.parse().ok()?;
        self.partition(topic, index).map(|_| index)
    }

    fn id_of(&self, topic: &str) -> Option<Uuid> {
        (topic == "t").then_some(TOPIC_ID)
    }

    fn name_of(&self, id: Uuid) -> Option<String> {
        (id == TOPIC_ID).then(|| "t".to_owned())
    }

    fn shape_of(&self, topic: &str) -> Option<(Uuid, i32)> {
        Some((self.id_of(topic)?, 4))
    }

    fn for_each_name(&self, tell: &mut dyn FnMut(&str)) {
        tell("t");
    }

    fn version(&self) -> u64 {
        1
    }

    fn refresh(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(std::future::ready(true))
    }
}

/// Topics by name, each with a number of partitions.
pub(in crate::group) struct SomeTopics {
    counts: Mutex<BTreeMap<String, (Uuid, i32)>>,
    version: Mutex<u64>,
}

impl SomeTopics {
    pub(in crate::group) fn new(counts: &[(&str, i32)]) -> Self {
        let topics = Self {
            counts: Mutex::default(),
            version: Mutex::new(1),
        };
        for (name, count) in counts {
            topics.put(name, *count);
        }
        topics
    }

    pub(in crate::group) fn put(&self, name: &str, count: i32) {
        let mut counts = self.counts.lock();
        let next = Uuid::from_u128(counts.len() as u128 + 1);
        let entry = counts.entry(name.to_owned()).or_insert((next, 0));
        entry.1 = count;
        *self.version.lock() += 1;
    }
}

impl Topics for SomeTopics {
    fn partition(&self, topic: &str, index: i32) -> Option<TopicPartition> {
        let (topic_id, count) = self.shape_of(topic)?;
        (0..count).contains(&index).then(|| TopicPartition {
            topic_id,
            identity: format!("0-{index}"),
        })
    }

    fn index_of(&self, _: &str, identity: &str) -> Option<i32> {
        identity.strip_prefix("0-")?.parse().ok()
    }

    fn id_of(&self, topic: &str) -> Option<Uuid> {
        Some(self.shape_of(topic)?.0)
    }

    fn name_of(&self, id: Uuid) -> Option<String> {
        let counts = self.counts.lock();
        let found = counts.iter().find(|(_, (of, _))| *of == id);
        found.map(|(name, _)| name.clone())
    }

    fn shape_of(&self, topic: &str) -> Option<(Uuid, i32)> {
        self.counts.lock().get(topic).copied()
    }

    fn for_each_name(&self, tell: &mut dyn FnMut(&str)) {
        self.counts.lock().keys().for_each(|name| tell(name));
    }

    fn version(&self) -> u64 {
        *self.version.lock()
    }

    fn refresh(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(std::future::ready(true))
    }
}

/// The same settings for every group.
pub(super) struct FixedSettings(pub(super) ConsumerSettings);

impl GroupSettings for FixedSettings {
    fn share(&self, _: &str) -> ShareGroupSettings {
        ShareGroupSettings {
            assignment_interval_ms: 0,
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5000,
            members_max: 200,
        }
    }

    fn streams(&self, _: &str) -> StreamsSettings {
        streams_settings()
    }

    fn consumer(&self, _: &str) -> Arc<ConsumerSettings> {
        Arc::new(self.0.clone())
    }
}

/// Kafka's defaults, without a pause before a target or between two.
pub(super) fn streams_settings() -> StreamsSettings {
    StreamsSettings {
        session_timeout_ms: 45_000,
        heartbeat_interval_ms: 5_000,
        unsettled_heartbeat_interval_ms: 500,
        assignment_interval_ms: 0,
        initial_rebalance_delay_ms: 0,
        members_max: 1000,
        standby_replicas: 0,
        rack_aware_tags: Vec::new(),
        task_offset_interval_ms: 60_000,
        acceptable_recovery_lag: 10_000,
    }
}

/// Kafka's defaults, without a pause between targets.
pub(super) fn settings() -> ConsumerSettings {
    ConsumerSettings {
        session_timeout_ms: 45_000,
        heartbeat_interval_ms: 5_000,
        unsettled_heartbeat_interval_ms: 500,
        assignment_interval_ms: 0,
        members_max: 1000,
        classic_members_max: 1000,
        assignors: Assignor::ALL.to_vec(),
        migration: MigrationPolicy::Bidirectional,
    }
}

pub(super) fn fixed_settings() -> Arc<dyn GroupSettings> {
    Arc::new(FixedSettings(settings()))
}
