//! Topics for the tests of this module.

use std::pin::Pin;

use uuid::Uuid;

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

    fn refresh(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}
