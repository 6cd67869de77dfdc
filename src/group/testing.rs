//! Topics for the tests of this module.

use std::pin::Pin;
use std::sync::Arc;

use uuid::Uuid;

use super::consumer::{Assignor, ConsumerSettings, GroupSettings, MigrationPolicy};

use super::share::ShareGroupSettings;
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

    fn refresh(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

/// The same settings for every group.
pub(super) struct FixedSettings(pub(super) ConsumerSettings);

impl GroupSettings for FixedSettings {
    fn share(&self, _: &str) -> ShareGroupSettings {
        ShareGroupSettings {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5000,
            members_max: 200,
        }
    }

    fn consumer(&self, _: &str) -> Arc<ConsumerSettings> {
        Arc::new(self.0.clone())
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
