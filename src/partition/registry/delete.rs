//! Deletes the partitions of topics: forgets them, and takes their directories out of the way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::{Map, Partitions, TopicPartitions};

impl Partitions {
    /// Forgets topics and sets their files aside; they are removed after `file.delete.delay.ms` or at the next
    /// start. When this returns, the directories are out of the way.
    pub async fn delete(self: &Arc<Self>, topic_ids: &[Uuid]) {
        let removed: Vec<Arc<TopicPartitions>> = {
            let _change = self.changes.lock();
            let known = self.map.load();
            if !topic_ids.iter().any(|id| known.by_id.contains_key(id)) {
                return;
            }
            let mut map = Map::clone(&known);
            let removed = topic_ids.iter().filter_map(|id| map.by_id.remove(id));
            let removed: Vec<_> = removed.collect();
            for topic in &removed {
                let named = map.by_name.get(&topic.topic);
                if named.is_some_and(|named| named.topic_id == topic.topic_id) {
                    map.by_name.remove(&topic.topic);
                }
            }
            self.map.store(Arc::new(map));
            self.changed.store(true, Ordering::Release);
            removed
        };
        let online = removed.iter().flat_map(|topic| topic.online());
        online.for_each(|partition| partition.mark_deleted());
        for volume in &self.volumes {
            // What was queued before is written or refused after this. A writer that has ended writes nothing either.
            let _ = volume.writer.run(|| ()).await;
        }
        let partitions = self.clone();
        let set_aside = move || partitions.set_files_aside(&removed);
        let _ = self.workers.unblock(set_aside).await;
    }

    /// Takes the files of deleted topics' partitions out of the way.
    fn set_files_aside(&self, removed: &[Arc<TopicPartitions>]) {
        // A partition that is on its way to another directory has arrived after this, or stays.
        let _renaming = self.lock_renames();
        for topic in removed {
            for index in topic.unopened() {
                self.set_aside_unopened(topic, index);
            }
        }
        for partition in removed.iter().flat_map(|topic| topic.online()) {
            let Some((volume, path)) = self.holding(partition) else {
                continue;
            };
            volume.has_one_less();
            match volume
                .dir
                .rename_aside(partition.topic(), partition.index())
            {
                Ok(aside) => {
                    partition.log().moved_to(&aside);
                    let delay_ms = partition.log().config().file_delete_delay_ms;
                    self.put_aside(aside, delay_ms);
                }
                Err(error) => {
                    tracing::error!(dir = %path.display(), %error, "cannot set a deleted partition aside")
                }
            }
        }
        for volume in &self.volumes {
            if let Err(error) = volume.dir.sync() {
                tracing::error!(dir = %volume.dir.path().display(), %error, "cannot sync the data directory");
            }
        }
    }

    /// The directory of a deleted topic's partition that is not open, where it is that topic's. One without an id, which
    /// a failing disk or the power took, is whose name it has.
    fn set_aside_unopened(&self, topic: &TopicPartitions, index: i32) {
        let is_named_anew = self.map.load().by_name.contains_key(&topic.topic);
        for volume in &self.volumes {
            let is_there = volume.dir.partition_path(&topic.topic, index).exists();
            match volume.dir.topic_id(&topic.topic, index) {
                Ok(Some(id)) if id == topic.topic_id => {}
                Ok(None) if is_there && !is_named_anew => {}
                _ => continue,
            }
            match volume.dir.set_aside(&topic.topic, index) {
                Ok(aside) => self.set_aside.lock().push((aside, 0)),
                Err(error) => {
                    tracing::error!(topic = %topic.topic, partition = index, %error, "cannot set a deleted partition aside")
                }
            }
        }
    }
}
