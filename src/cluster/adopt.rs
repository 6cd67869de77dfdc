//! Partition directories that were found in the data directories: those of topics that the tree does not know, and those of
//! replicas that this broker keeps no more.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::changes::ClusterError;
use super::image::{INTERNAL_TOPIC_ID, Topic};
use super::names::{check_topic_name, is_reserved_name};
use super::placement::Identities;
use super::topic_nodes;
use super::view::View;
use crate::config::TopicOverrides;
use crate::log::FoundPartition;
use crate::meta::MetaError;

impl View {
    /// Removes what was found of partitions that this broker keeps no more: it was away when its replicas were taken away, which
    /// began a leader epoch. Where the files know that epoch, the tree is an older one, and they stay.
    pub(super) async fn remove_found_replicas(&self) {
        let image = self.image();
        let is_kept_no_more = |found: &FoundPartition| {
            let topic = image.topic(&found.topic);
            let topic = topic.filter(|topic| found.topic_id == Some(topic.id));
            let info = topic.and_then(|topic| topic.partition(found.partition));
            info.is_some_and(|info| {
                let written = self.partitions.latest_epoch(&found.topic, found.partition);
                !info.replicas.contains(&self.broker_id) && info.leader_epoch > written
            })
        };
        let mut strays = self.partitions.found();
        strays.retain(is_kept_no_more);
        if strays.is_empty() {
            return;
        }
        let partitions = self.partitions.clone();
        let remove = move || {
            for stray in strays {
                let (topic, partition) = (&stray.topic, stray.partition);
                match partitions.remove_found(&stray) {
                    Ok(()) => {
                        tracing::info!(
                            topic,
                            partition,
                            "removed: this broker keeps no replica of it any more"
                        );
                    }
                    Err(error) => {
                        tracing::error!(topic, partition, %error, "cannot remove a replica that is kept no more");
                    }
                }
            }
        };
        if self.partitions.workers().unblock(remove).await.is_none() {
            tracing::error!("replicas that are kept no more are left where they are");
        }
    }

    /// Makes topics of partition directories that the tree does not know, such as another Kafka's.
    pub(super) async fn adopt_found(&self, deleted: &BTreeSet<Uuid>) -> Result<(), ClusterError> {
        let image = self.image();
        let found = self.partitions.found();
        let is_mirror = |found: &&FoundPartition| found.topic_id == Some(INTERNAL_TOPIC_ID);
        let mirrors = found.iter().filter(is_mirror).count();
        if mirrors > 0 && !self.config.flag("offsets.topic.mirror") {
            tracing::warn!(
                directories = mirrors,
                "left alone: __consumer_offsets is there and offsets.topic.mirror is off"
            );
        }
        let mut unknown: BTreeMap<String, (Option<Uuid>, i32)> = BTreeMap::new();
        for found in found {
            if image.topic(&found.topic).is_some()
                || found.topic_id == Some(INTERNAL_TOPIC_ID)
                || found.topic_id.is_some_and(|id| deleted.contains(&id))
                // It was a deleted topic's.
                || !found.path.exists()
            {
                continue;
            }
            if is_reserved_name(&found.topic) || check_topic_name(&found.topic).is_err() {
                tracing::warn!(dir = %found.path.display(), "left alone: not a topic of this broker");
                continue;
            }
            let entry = unknown.entry(found.topic).or_insert((found.topic_id, 0));
            entry.0 = entry.0.or(found.topic_id);
            entry.1 = entry.1.max(found.partition + 1);
        }
        let mut adopted = Vec::new();
        for (name, (topic_id, partitions)) in unknown {
            tracing::info!(
                topic = name,
                partitions,
                "adopting a topic that was found in the data directory"
            );
            let replicas = vec![vec![self.broker_id]; partitions as usize];
            let mut partitions = Identities::default().deal(&replicas, |_| true);
            // Epochs never go back, or clients would be fenced by their own records.
            for (index, partition) in partitions.iter_mut().enumerate() {
                let epoch = self.partitions.latest_epoch(&name, index as i32);
                (partition.first_epoch, partition.leader_epoch) = (epoch, epoch);
            }
            let id = topic_id.unwrap_or_else(Uuid::new_v4);
            adopted.push(Topic {
                name: name.into(),
                id,
                overrides: TopicOverrides::default(),
                partitions,
            });
        }
        let writes: Vec<_> = adopted
            .iter()
            .map(|topic| self.meta.multi(topic_nodes::create(topic)))
            .collect();
        let mut made = Vec::new();
        for (topic, written) in adopted.into_iter().zip(writes) {
            match written.await {
                Ok(()) => made.push(topic),
                // Another broker has other partitions of it.
                Err(MetaError::NodeExists(_)) => {
                    tracing::warn!(topic = %topic.name, "left alone: another broker adopted it")
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.change_image(|image| image.put(made));
        Ok(())
    }
}
