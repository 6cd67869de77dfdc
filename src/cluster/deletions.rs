//! Deleting topics, and the end of deleted ones: each broker removes what it has of them and says so in the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use uuid::Uuid;

use super::changes::ClusterError;
use super::controller::Controller;
use super::image::Topic;
use super::topic_nodes;
use super::view::View;
use crate::log::FoundPartition;
use crate::meta::records::{DeletedTopicRecord, RECORD_VERSION, decode, encode};
use crate::meta::{MetaError, Node, Op, gather, paths};

/// Notes that are read at the same time.
const READS_AT_ONCE: usize = 256;

impl Controller {
    /// Deletes topics; their names are free when this returns. The answers stand in the order of the topics, each of which
    /// stands there once. Brokers that are away remove the files when they are back.
    pub async fn delete_topics(&self, topics: &[Arc<Topic>]) -> Vec<Result<(), ClusterError>> {
        let change = self.view.lock_changes().await;
        let refuse_all =
            |error: fn() -> ClusterError| topics.iter().map(|_| Err(error())).collect();
        if !self.is_controller() {
            return refuse_all(|| ClusterError::NotController);
        }
        if !self.view.config.flag("delete.topic.enable") {
            return refuse_all(|| ClusterError::DeletionDisabled);
        }
        let image = self.view.image();
        let known = topics.iter().map(|topic| image.topic_by_id(topic.id));
        let found: Vec<Option<&Arc<Topic>>> = known.collect();
        let mut forgotten = self
            .forget(found.iter().flatten().copied())
            .await
            .into_iter();
        let results: Vec<Result<(), ClusterError>> = found
            .iter()
            .map(|topic| match topic {
                Some(_) => forgotten.next().unwrap_or(Err(ClusterError::NotController)),
                None => Err(ClusterError::UnknownTopic),
            })
            .collect();
        let gone: Vec<&Arc<Topic>> = found
            .iter()
            .zip(&results)
            .filter_map(|(topic, result)| result.is_ok().then_some(*topic).flatten())
            .collect();
        let named = gone.iter().map(|topic| &*topic.name);
        self.view.apply(|image| image.remove(named)).await;
        drop(change);
        // Of those whose files a failing disk left where they were, the note stays until the next start.
        let left = self.view.partitions.undeleted();
        let ids = gone.iter().map(|topic| topic.id);
        let ids: Vec<Uuid> = ids.filter(|id| !left.contains(id)).collect();
        if let Err(error) = self.view.confirm_deletions(&ids).await {
            tracing::warn!(%error, "deleted topics are left in the tree until the next start");
        }
        results
    }

    /// Takes topics out of the tree, with a note that outlives a crash before their files are out of the way, where they would
    /// look like topics to adopt.
    async fn forget(
        &self,
        topics: impl Iterator<Item = &Arc<Topic>>,
    ) -> Vec<Result<(), ClusterError>> {
        let forget_one = |topic: &Arc<Topic>| {
            let partitions = topic.partitions.iter();
            let have_files = partitions.flat_map(|info| info.replicas.iter().chain(&info.left_on));
            let brokers: BTreeSet<i32> = have_files.copied().chain([self.view.broker_id]).collect();
            let note = encode(&DeletedTopicRecord {
                version: RECORD_VERSION,
                topic: topic.name.to_string(),
                brokers: brokers.into_iter().collect(),
            });
            vec![
                Op::put(paths::deleted_topic(topic.id), note),
                topic_nodes::delete(topic),
                Op::delete_tree(paths::topic_pubs(&topic.name)),
            ]
        };
        let topics: Vec<&Arc<Topic>> = topics.collect();
        let mut results = Vec::with_capacity(topics.len());
        for (count, ops) in gather(topics.iter().map(|topic| forget_one(topic))) {
            match self.change_as_controller(ops).await {
                Ok(()) => results.extend((0..count).map(|_| Ok(()))),
                Err(error) => {
                    // They may be gone.
                    let tried = topics.iter().skip(results.len()).take(count);
                    self.read_again(tried.map(|topic| &topic.name)).await;
                    results.extend((0..count).map(|_| Err(error.repeated())));
                }
            }
        }
        results
    }
}

impl View {
    /// Removes what this broker still has of deleted topics, and says so in the tree; returns their ids. A topic's
    /// deletion is complete when all its brokers did that.
    pub(super) async fn finish_deletions(&self) -> Result<BTreeSet<Uuid>, ClusterError> {
        let (mut ids, mut own) = (BTreeSet::new(), BTreeMap::new());
        for (path, node) in self.meta.subtree(paths::DELETED).await? {
            let element = path.rsplit('/').next().unwrap_or_default();
            let Ok(id) = Uuid::parse_str(element) else {
                continue;
            };
            ids.insert(id);
            match decode::<DeletedTopicRecord>(&path, &node.data) {
                // Records of older versions name no brokers: there was one only.
                Ok(record)
                    if record.brokers.is_empty() || record.brokers.contains(&self.broker_id) =>
                {
                    own.insert(id, record.topic);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a topic's deletion is left as it is"),
            }
        }
        if !own.is_empty() {
            let left = self.remove_deleted(&own).await;
            let removed = own.into_keys().filter(|id| !left.contains(id));
            let removed: Vec<Uuid> = removed.collect();
            self.confirm_deletions(&removed).await?;
        }
        Ok(ids)
    }

    /// Removes what is here of some topics, given with their names; those of which something is left.
    async fn remove_deleted(&self, topics: &BTreeMap<Uuid, String>) -> BTreeSet<Uuid> {
        let ids: Vec<Uuid> = topics.keys().copied().collect();
        let mut left = self.partitions.delete(&ids).await;
        for found in self.partitions.found() {
            let Some(id) = self.deleted_topic_of(&found, topics) else {
                continue;
            };
            tracing::info!(dir = %found.path.display(), topic_id = %id, "finishing a topic's deletion");
            if let Err(error) = self.partitions.remove_found(&found) {
                tracing::error!(dir = %found.path.display(), %error, "cannot remove a deleted topic's partition");
                left.insert(id);
            }
        }
        left
    }

    /// Which of these topics a directory is of. One without an id holds nothing that was acknowledged as synced, because the
    /// first sync makes the id durable. Its name says whose it is: a later topic of that name would have found it in its way.
    fn deleted_topic_of(
        &self,
        found: &FoundPartition,
        topics: &BTreeMap<Uuid, String>,
    ) -> Option<Uuid> {
        if let Some(id) = found.topic_id {
            return topics.contains_key(&id).then_some(id);
        }
        let mut of_name = topics.iter().filter(|(_, name)| **name == found.topic);
        of_name.next().map(|(id, _)| *id)
    }

    /// Takes this broker off the lists of those that still have to remove deleted topics' files.
    pub(super) async fn confirm_deletions(&self, ids: &[Uuid]) -> Result<(), ClusterError> {
        let reads: Vec<_> = ids
            .iter()
            .map(|id| {
                let path = paths::deleted_topic(*id);
                async move { Ok::<_, MetaError>((*id, self.meta.get(&path).await?)) }
            })
            .collect();
        let notes: Vec<(Uuid, Option<Node>)> = stream::iter(reads)
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        let mut changes = Vec::new();
        let mut confirmed = Vec::new();
        for (id, node) in notes {
            if let Some(node) = node {
                changes.push(vec![self.confirmation(id, &node)?]);
                confirmed.push(id);
            }
        }
        let mut confirmed = confirmed.into_iter();
        for (count, ops) in gather(changes) {
            let ids: Vec<Uuid> = confirmed.by_ref().take(count).collect();
            match self.meta.multi(ops).await {
                // Another broker is at one of them too.
                Err(MetaError::BadVersion(_) | MetaError::NoNode(_)) => {
                    for id in ids {
                        self.confirm_deletion(id).await?;
                    }
                }
                result => result?,
            }
        }
        Ok(())
    }

    async fn confirm_deletion(&self, id: Uuid) -> Result<(), ClusterError> {
        loop {
            let Some(node) = self.meta.get(&paths::deleted_topic(id)).await? else {
                return Ok(());
            };
            match self.meta.multi(vec![self.confirmation(id, &node)?]).await {
                Err(MetaError::BadVersion(_) | MetaError::NoNode(_)) => {}
                result => return Ok(result?),
            }
        }
    }

    /// What takes this broker off a note; the note goes with the last one.
    fn confirmation(&self, id: Uuid, node: &Node) -> Result<Op, MetaError> {
        let path = paths::deleted_topic(id);
        let mut record: DeletedTopicRecord = decode(&path, &node.data)?;
        record.brokers.retain(|broker| *broker != self.broker_id);
        let version = Some(node.version);
        Ok(match record.brokers.is_empty() {
            true => Op::Delete { path, version },
            false => Op::Set {
                path,
                data: encode(&record),
                version,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::testing::{
        Refusing, alone, create, directories, member, open, open_over, put, store, text,
    };
    use super::*;

    #[tokio::test]
    async fn topics_go_with_their_files_and_another_one_of_a_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        create(&cluster, "a", 2).await;
        create(&cluster, "b", 1).await;
        let image = cluster.image();
        let known: Vec<Arc<Topic>> = image.topics().cloned().collect();
        let gone = cluster.controller().delete_topics(&known[..1]).await;
        assert!(gone[0].is_ok());
        assert!(cluster.image().topic("a").is_none());
        assert!(!dir.path().join("data/a-1").exists());
        create(&cluster, "a", 1).await;
        let both = cluster.controller().delete_topics(&known).await;
        assert!(matches!(both[0], Err(ClusterError::UnknownTopic)));
        assert!(both[1].is_ok());
        let left: Vec<String> = cluster
            .image()
            .topics()
            .map(|topic| topic.name.to_string())
            .collect();
        assert_eq!(left, ["a"]);
        assert!(
            cluster
                .meta()
                .children(paths::DELETED)
                .await
                .unwrap()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_note_names_brokers_that_were_away_when_their_replicas_were_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        create(&cluster, "a", 1).await;
        let mut topic = Topic::clone(cluster.image().topic("a").unwrap());
        topic.partitions[0].left_on = vec![7];
        let id = topic.id;
        cluster.view.change_image(|image| image.put([topic]));
        let topic = cluster.image().topic("a").unwrap().clone();
        let gone = cluster.controller().delete_topics(&[topic]).await;
        assert!(gone[0].is_ok());
        let note = text(cluster.meta(), &paths::deleted_topic(id)).await;
        assert!(note.unwrap().contains(r#""brokers":[7]"#));
    }

    #[tokio::test]
    async fn a_note_waits_for_every_broker_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let meta = cluster.meta();
        let note = |id: u128| paths::deleted_topic(Uuid::from_u128(id));
        let of = |brokers: &str| format!(r#"{{"version":1,"topic":"t","brokers":{brokers}}}"#);
        put(meta, &note(1), &of("[0,1]")).await;
        put(meta, &note(2), &of("[0]")).await;
        put(meta, &note(3), &of("[1]")).await;
        put(meta, &note(4), r#"{"version":1,"topic":"t"}"#).await;
        put(meta, &note(5), "no json").await;
        let ids = cluster.view.finish_deletions().await.unwrap();
        assert_eq!(ids.len(), 5);
        for id in [1, 3] {
            let left = text(meta, &note(id)).await.unwrap();
            assert!(left.contains(r#""brokers":[1]"#), "{left}");
        }
        assert!(text(meta, &note(2)).await.is_none() && text(meta, &note(4)).await.is_none());
        assert!(text(meta, &note(5)).await.is_some());
    }

    #[tokio::test]
    async fn a_deletion_is_not_confirmed_while_a_failing_disk_has_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let (meta, disk) = (store(dir.path()), Refusing::default());
        let cluster = open_over(dir.path(), &meta, Arc::new(disk.clone()));
        let cluster = cluster.await.unwrap();
        cluster.join(member(), directories()).await.unwrap();
        create(&cluster, "a", 1).await;
        let topic = cluster.image().topic("a").unwrap().clone();
        let note = paths::deleted_topic(topic.id);
        disk.0.store(true, Ordering::SeqCst);
        let gone = cluster.controller().delete_topics(&[topic]).await;
        assert!(gone[0].is_ok());
        for _ in 0..2 {
            // Whoever follows the tree tries again.
            assert!(text(&meta, &note).await.is_some());
            assert!(dir.path().join("data/a-0").exists());
            cluster.view.finish_deletions().await.unwrap();
        }
        disk.0.store(false, Ordering::SeqCst);
        cluster.view.finish_deletions().await.unwrap();
        assert!(text(&meta, &note).await.is_none());
        assert!(!dir.path().join("data/a-0").exists());
    }

    #[tokio::test]
    async fn a_topic_that_has_the_name_of_a_deleted_one_keeps_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        create(&alone(dir.path()).await, "a", 1).await;
        // Found at the next start.
        let cluster = alone(dir.path()).await;
        let old = cluster.image().topic("a").unwrap().clone();
        let known = std::slice::from_ref(&old);
        cluster.controller().delete_topics(known).await;
        create(&cluster, "a", 1).await;
        // The deletion is heard of once more.
        let note = paths::deleted_topic(old.id);
        put(
            cluster.meta(),
            &note,
            r#"{"version":1,"topic":"a","brokers":[0]}"#,
        )
        .await;
        cluster.view.finish_deletions().await.unwrap();
        assert!(dir.path().join("data/a-0").exists());
        assert!(text(cluster.meta(), &note).await.is_none());
    }

    #[tokio::test]
    async fn a_directory_without_its_topics_id_goes_with_a_topic_that_was_deleted_and_is_not_adopted()
     {
        let dir = tempfile::tempdir().unwrap();
        let meta = store(dir.path());
        let note = paths::deleted_topic(Uuid::from_u128(1));
        put(
            &meta,
            &note,
            r#"{"version":1,"topic":"gone","brokers":[0]}"#,
        )
        .await;
        // The power failed before partition.metadata was durable, and the topic was deleted while this broker was away.
        for name in ["gone-0", "found-0"] {
            std::fs::create_dir_all(dir.path().join("data").join(name)).unwrap();
        }
        let cluster = open(dir.path(), &meta).await.unwrap();
        assert!(cluster.image().topic("gone").is_none());
        assert!(!dir.path().join("data/gone-0").exists());
        assert!(text(&meta, &note).await.is_none());
        assert!(cluster.image().topic("found").is_some());
    }
}
