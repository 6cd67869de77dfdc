//! The slots that this broker has: the coordinators of groups and of transactional ids follow the cluster, which deals slots to
//! brokers, and know its topics.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use uuid::Uuid;

use crate::api::Context;
use crate::cluster::{Cluster, ClusterEvent, SlotInfo, parse_identity};
use crate::coordinator::{Ownership, Slot, TopicPartition, Topics};
use crate::meta::MetaError;

/// How long to wait before reading groups and transactional ids again.
const ASSIGN_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How often share partitions are looked for that this broker leads no more.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The topics of the cluster's image.
pub struct ImageTopics(pub Arc<Cluster>);

impl Topics for ImageTopics {
    fn partition(&self, topic: &str, index: i32) -> Option<TopicPartition> {
        let image = self.0.image();
        let topic = image.topic(topic)?;
        Some(TopicPartition {
            topic_id: topic.id,
            identity: topic.partition(index)?.identity.to_string(),
        })
    }

    fn index_of(&self, topic: &str, identity: &str) -> Option<i32> {
        let image = self.0.image();
        let identity = parse_identity(identity)?;
        let partitions = &image.topic(topic)?.partitions;
        let index = partitions
            .iter()
            .position(|info| info.identity == identity)?;
        Some(index as i32)
    }

    fn id_of(&self, topic: &str) -> Option<Uuid> {
        Some(self.0.image().topic(topic)?.id)
    }

    fn name_of(&self, id: Uuid) -> Option<String> {
        Some(self.0.image().topic_by_id(id)?.name.to_string())
    }

    fn shape_of(&self, topic: &str) -> Option<(Uuid, i32)> {
        let image = self.0.image();
        let topic = image.topic(topic)?;
        Some((topic.id, topic.partitions.len() as i32))
    }

    fn for_each_name(&self, tell: &mut dyn FnMut(&str)) {
        self.0.image().topics().for_each(|topic| tell(&topic.name));
    }

    fn version(&self) -> u64 {
        self.0.image().topics_version()
    }

    fn refresh(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(self.0.refresh_topics())
    }
}

/// The slots that this broker has.
pub fn own_slots(cluster: &Cluster) -> BTreeMap<Slot, Ownership> {
    let image = cluster.image();
    let own = |(slot, info): (Slot, &SlotInfo)| {
        let ownership = Ownership {
            epoch: info.epoch,
            version: info.version,
        };
        (info.owner == cluster.broker_id()).then_some((slot, ownership))
    };
    Slot::all().zip(&image.slots).filter_map(own).collect()
}

/// Coordinates the slots that this broker has now.
async fn assign(cx: &Context) -> Result<(), MetaError> {
    let own = own_slots(&cx.cluster);
    let (groups, transactions, shares) = tokio::join!(
        cx.coordinator.assign(&own),
        cx.transactions.assign(&own),
        cx.shares.states.assign(&own),
    );
    groups.and(transactions).and(shares)
}

/// The epoch in which this broker leads a partition, if it does.
fn led_in(cx: &Context, topic_id: Uuid, index: i32) -> Option<i32> {
    let topic = cx.partitions.topic_by_id(topic_id)?;
    let partition = topic.get(index).ok()?;
    partition.is_leader().then(|| partition.leader_epoch())
}

/// Lets the coordinators follow the cluster.
pub async fn coordinate(cx: Arc<Context>, mut events: broadcast::Receiver<ClusterEvent>) {
    let mut sweep = tokio::time::interval(SWEEP_PAUSE);
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = sweep.tick() => {
                cx.shares.partitions.sweep(|topic_id, index| led_in(&cx, topic_id, index));
                continue;
            }
        };
        match event {
            Ok(ClusterEvent::TopicDeleted(topic, id)) => {
                cx.coordinator.topic_deleted(&topic, id).await;
                cx.transactions.topic_deleted(&topic, id).await;
                cx.shares.states.topic_deleted(id).await;
            }
            Err(broadcast::error::RecvError::Closed) => return,
            Ok(ClusterEvent::Slots) | Err(broadcast::error::RecvError::Lagged(_)) => {
                while let Err(error) = assign(&cx).await {
                    tracing::warn!(%error, "cannot read groups and transactional ids; trying again");
                    tokio::time::sleep(ASSIGN_RETRY_PAUSE).await;
                }
            }
        }
    }
}
