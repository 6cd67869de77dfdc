//! The end of deleted topics: each broker removes what it has of them and says so in the tree.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::changes::ClusterError;
use super::view::View;
use crate::meta::records::{DeletedTopicRecord, decode, encode};
use crate::meta::{MetaError, Op, paths};

impl View {
    /// Removes what this broker still has of deleted topics, and says so in the tree; returns their ids. A topic's
    /// deletion is complete when all its brokers did that.
    pub(super) async fn finish_deletions(&self) -> Result<BTreeSet<Uuid>, ClusterError> {
        let mut ids = BTreeSet::new();
        for (path, node) in self.meta.subtree(paths::DELETED).await? {
            let element = path.rsplit('/').next().unwrap_or_default();
            let Ok(id) = Uuid::parse_str(element) else {
                continue;
            };
            ids.insert(id);
            let record = match decode::<DeletedTopicRecord>(&path, &node.data) {
                Ok(record) => record,
                Err(error) => {
                    tracing::error!(%error, "a topic's deletion is left as it is");
                    continue;
                }
            };
            // Records of older versions name no brokers: there was one only.
            let concerned = record.brokers.is_empty() || record.brokers.contains(&self.broker_id);
            if concerned && self.remove_deleted(id).await {
                self.confirm_deletion(id).await?;
            }
        }
        Ok(ids)
    }

    /// Whether nothing is left of it here.
    async fn remove_deleted(&self, id: Uuid) -> bool {
        self.partitions.delete(&[id]).await;
        let mut all_gone = true;
        for found in self.partitions.found() {
            if found.topic_id == Some(id) && found.path.exists() {
                tracing::info!(dir = %found.path.display(), topic_id = %id, "finishing a topic's deletion");
                self.partitions.remove_found(&found);
                all_gone &= !found.path.exists();
            }
        }
        all_gone
    }

    /// Takes this broker off the list of those that still have to remove a deleted topic's files.
    pub(super) async fn confirm_deletion(&self, id: Uuid) -> Result<(), ClusterError> {
        let path = paths::deleted_topic(id);
        loop {
            let Some(node) = self.meta.get(&path).await? else {
                return Ok(());
            };
            let mut record: DeletedTopicRecord = decode(&path, &node.data)?;
            record.brokers.retain(|broker| *broker != self.broker_id);
            let version = Some(node.version);
            let path = path.clone();
            let op = match record.brokers.is_empty() {
                true => Op::Delete { path, version },
                false => Op::Set {
                    path,
                    data: encode(&record),
                    version,
                },
            };
            match self.meta.multi(vec![op]).await {
                Err(MetaError::BadVersion(_) | MetaError::NoNode(_)) => {}
                result => return Ok(result?),
            }
        }
    }
}
