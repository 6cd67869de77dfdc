//! Deletes the partitions of topics: forgets them, and takes their directories out of the way.
//!
//! Tests: partition/registry/stop.rs, tests/broker.rs.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::super::moves::remove_copy;
use super::super::volume::Volume;
use super::{HostedPartition, Map, Partitions, TopicPartitions};
use crate::log::FoundPartition;

impl Partitions {
    /// Forgets topics and sets their files aside; they are removed after `file.delete.delay.ms` or at the next
    /// start. When this returns, the directories are out of the way, durably, but for those of the topics that it returns:
    /// these are not deleted until another call for them, or the next start, has done it.
    pub async fn delete(self: &Arc<Self>, topic_ids: &[Uuid]) -> BTreeSet<Uuid> {
        let mut removed = self.forget_topics(topic_ids);
        let left_before = {
            let mut undeleted = self.undeleted.lock();
            let again = topic_ids.iter().filter_map(|id| undeleted.remove(id));
            again.collect::<Vec<_>>()
        };
        if removed.is_empty() && left_before.is_empty() {
            return BTreeSet::new();
        }
        let online = removed.iter().flat_map(|topic| topic.online());
        online.for_each(|partition| partition.mark_deleted());
        for volume in &self.volumes {
            // What was queued before is written or refused after this. A writer that has ended writes nothing either.
            let _ = volume.writer.run(|| ()).await;
        }
        self.release_in_journals(|topic_id, _| topic_ids.contains(&topic_id));
        removed.extend(left_before);
        let (partitions, topics) = (self.clone(), removed.clone());
        let set_aside = move || partitions.set_files_aside(&topics);
        let left = self.workers.unblock(set_aside).await;
        let left = left.unwrap_or_else(|| removed.iter().map(|topic| topic.topic_id).collect());
        let mut undeleted = self.undeleted.lock();
        for topic in removed {
            if left.contains(&topic.topic_id) {
                undeleted.insert(topic.topic_id, topic);
            }
        }
        left
    }

    /// Topics whose files a failing disk has left where they were, or whose new names are not known to be durable.
    pub fn undeleted(&self) -> BTreeSet<Uuid> {
        self.undeleted.lock().keys().copied().collect()
    }

    fn forget_topics(&self, topic_ids: &[Uuid]) -> Vec<Arc<TopicPartitions>> {
        let _change = self.changes.lock();
        let known = self.map.load();
        if !topic_ids.iter().any(|id| known.by_id.contains_key(id)) {
            return Vec::new();
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
        self.generation.fetch_add(1, Ordering::Release);
        removed
    }

    /// Takes the files of deleted topics' partitions out of the way; the ids of those of which some may be found again.
    fn set_files_aside(&self, removed: &[Arc<TopicPartitions>]) -> BTreeSet<Uuid> {
        // A partition that is on its way to another directory has arrived after this, or stays.
        let _renaming = self.lock_renames();
        let mut left = BTreeSet::new();
        for topic in removed {
            for (index, slot) in &topic.slots {
                if let Err(error) = self.set_partition_aside(topic, *index, slot) {
                    tracing::error!(topic = %topic.topic, partition = index, %error, "cannot set a deleted partition aside");
                    left.insert(topic.topic_id);
                }
            }
            if let Err(error) = self.remove_copies_left(topic.topic_id) {
                tracing::error!(topic = %topic.topic, %error, "cannot remove the copy of a deleted partition");
                left.insert(topic.topic_id);
            }
        }
        for volume in &self.volumes {
            if let Err(error) = volume.dir.sync() {
                tracing::error!(dir = %volume.dir.path().display(), %error, "cannot sync the data directory");
                left.extend(removed.iter().map(|topic| topic.topic_id));
            }
        }
        left
    }

    fn set_partition_aside(
        &self,
        topic: &TopicPartitions,
        index: i32,
        slot: &HostedPartition,
    ) -> io::Result<()> {
        for volume in &self.volumes {
            let path = volume.dir.partition_path(&topic.topic, index);
            let open = match slot {
                HostedPartition::Online(open) if open.log().dir() == path => Some(open),
                _ => None,
            };
            if !path.try_exists()? || open.is_none() && !self.is_of(volume, topic, index)? {
                continue;
            }
            let aside = volume.dir.rename_aside(&topic.topic, index)?;
            let mut delay_ms = 0;
            if let Some(open) = open {
                volume.has_one_less();
                open.log().moved_to(&aside);
                delay_ms = open.log().config().file_delete_delay_ms;
            }
            self.put_aside(aside, delay_ms);
        }
        Ok(())
    }

    /// Whether the directory of a partition that is not open is this topic's. One without an id, which a failing disk or the
    /// power took, is whose name it has.
    pub(super) fn is_of(
        &self,
        volume: &Volume,
        topic: &TopicPartitions,
        index: i32,
    ) -> io::Result<bool> {
        let is_named_anew = self.map.load().by_name.contains_key(&topic.topic);
        let id = volume.dir.topic_id(&topic.topic, index)?;
        Ok(id.map_or(!is_named_anew, |id| id == topic.topic_id))
    }

    /// Copies of a topic's partitions that were not removed when a move failed: the next start could take one for the
    /// partition.
    pub(in crate::partition) fn remove_copies_left(&self, topic_id: Uuid) -> io::Result<()> {
        let copies: Vec<PathBuf> = {
            let moves = self.moves.lock();
            let own = moves.left.iter().filter(|(id, _)| *id == topic_id);
            own.map(|(_, copy)| copy.clone()).collect()
        };
        for copy in copies {
            remove_copy(&*self.disk, &copy)?;
            self.moves.lock().left.retain(|(_, left)| *left != copy);
        }
        Ok(())
    }

    /// Sets a directory aside that was found at start and belongs to no topic, durably, and removes it, unless there is another
    /// one under its name by now; waits for the disk.
    pub fn remove_found(&self, found: &FoundPartition) -> io::Result<()> {
        let is_in = |volume: &&Volume| found.path.parent() == Some(volume.dir.path());
        let Some(volume) = self.volumes.iter().find(is_in) else {
            return Ok(());
        };
        let _renaming = self.lock_renames();
        if let Some(topic_id) = found.topic_id {
            // Where it comes to be a replica again, that begins anew.
            let known = (topic_id, found.partition);
            volume.journaled.lock().remove(&known);
        }
        if !found.path.try_exists()? {
            // Also where an earlier try went no further.
            return volume.dir.sync();
        }
        if volume.dir.topic_id(&found.topic, found.partition)? != found.topic_id {
            // Another topic's by now.
            return Ok(());
        }
        let aside = volume.dir.set_aside(&found.topic, found.partition)?;
        if let Err(error) = self.disk.remove_dir_all(&aside) {
            tracing::warn!(dir = %aside.display(), %error, "a deleted partition is removed at the next start");
        }
        Ok(())
    }
}
