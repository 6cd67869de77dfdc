//! Opening topics' partitions, side by side: where each lies or will lie, what its log needs, what of the journal belongs to
//! it; and what must be on stable storage before they are shown.
//!
//! Tests: partition/tests.rs, partition/registry/remove.rs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use super::super::handle::Partition;
use super::super::partition_state::PartitionState;
use super::super::replica::{Identity, Replica};
use super::super::volume::Volume;
use super::{
    HostedPartition, Map, OpenReport, PartitionError, Partitions, TopicPartitions, TopicToOpen,
};
use crate::log::journal::{self, Journaled};
use crate::log::{
    DataDir, DataDirError, FoundPartition, Left, LeftAs, Log, LogError, OpenMode, uuid_to_base64,
};

impl Partitions {
    /// Opens or creates partitions, several at a time, and makes them known. A partition that cannot be opened
    /// is offline; the others are not affected.
    pub fn open_topics(&self, topics: Vec<TopicToOpen>) -> OpenReport {
        let work: Vec<(usize, i32, Identity, &PartitionState)> = topics
            .iter()
            .enumerate()
            .flat_map(|(n, topic)| {
                topic
                    .partitions
                    .iter()
                    .map(move |(index, id, state)| (n, *index, *id, state))
            })
            .collect();
        let names = || {
            work.iter()
                .map(|(n, index, ..)| (&*topics[*n].topic, *index))
        };
        let _renaming = self.lock_renames();
        for volume in &self.volumes {
            // One write for all of them; where it fails, opening each tells.
            let _ = volume.dir.forget_missing(names());
        }
        let (next, scanned, cut) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let opened = Mutex::new(Vec::with_capacity(work.len()));
        let grown: Vec<AtomicBool> = self.volumes.iter().map(|_| AtomicBool::default()).collect();
        let worker = || {
            while let Some((n, index, identity, state)) =
                work.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let slot = match self.open_one(
                    &topics[*n],
                    *index,
                    *identity,
                    state,
                    (&scanned, &cut, &grown),
                ) {
                    Ok(partition) => HostedPartition::Online(partition),
                    Err(error) => {
                        tracing::error!(topic = %topics[*n].topic, partition = index, %error, "partition is offline");
                        HostedPartition::Offline(error.to_string().into())
                    }
                };
                opened.lock().push((*n, *index, slot));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.open_threads.min(work.len()) {
                scope.spawn(worker);
            }
            worker();
        });
        let mut opened = opened.into_inner();
        self.make_durable(&grown, &mut opened);
        let offline = opened
            .iter()
            .filter(|(_, _, slot)| matches!(slot, HostedPartition::Offline(_)))
            .count();
        let report = OpenReport {
            online: opened.len() - offline,
            offline,
            scanned_bytes: scanned.into_inner(),
            cut_bytes: cut.into_inner(),
        };
        for (n, index, slot) in &opened {
            if let HostedPartition::Offline(_) = slot {
                self.isr_watch.want(topics[*n].topic_id, *index);
            }
        }
        self.publish(&topics, opened);
        report
    }

    /// Whether a log was found that ends before what it had synced: its files were damaged, or others were put in their place.
    pub fn have_lost_synced(&self) -> bool {
        self.lost_synced.load(Ordering::Relaxed)
    }

    /// Called when the partitions that are known were opened for the first time: journals may be used anew, and the
    /// directories need no check while the system runs on, but for those that may have lost something (see
    /// [`Self::note_registered`]). What is offline is tried again at the next start.
    pub fn settle(&self) {
        for volume in &self.volumes {
            if let Err(error) = self.settle_journal(volume) {
                tracing::error!(dir = %volume.dir.path().display(), %error, "cannot put the journal aside");
                // What is in it must not be written over.
                volume.writer.do_without_journal();
            }
            if !volume.dir.may_have_lost() {
                self.check_no_more(&volume.dir);
            }
        }
    }

    /// Called when this broker registered with what it may have lost: that is said for good. A run that ended before would
    /// otherwise be taken for one that was killed, which loses nothing.
    pub fn note_registered(&self) {
        let may_have_lost = |volume: &&Volume| volume.dir.may_have_lost();
        let lost = self.volumes.iter().filter(may_have_lost);
        lost.for_each(|volume| self.check_no_more(&volume.dir));
    }

    fn check_no_more(&self, dir: &DataDir) {
        if let Err(error) = self.note_checked(dir) {
            tracing::warn!(%error, "a start after a kill will check all that is not synced");
        }
    }

    /// What the journal holds is in the logs now, but for partitions that are offline; what is of a topic that nobody
    /// knows was deleted with it.
    pub(super) fn settle_journal(&self, volume: &Volume) -> std::io::Result<()> {
        if volume.dir.left() == Left::Clean {
            return Ok(());
        }
        let map = self.map.load();
        let mut left = volume.journaled.lock();
        // What is of a partition that is online is in its log: in another directory, where it was moved there. One that this
        // broker keeps no more is not known.
        let is_needed = |(topic_id, index): &(Uuid, i32)| {
            let topic = map.by_id.get(topic_id);
            topic.is_some_and(|topic| matches!(topic.get(*index), Err(PartitionError::Offline(_))))
        };
        // One that comes to be kept here again begins anew.
        left.retain(|known, _| is_needed(known));
        if left.is_empty() {
            return journal::discard(&*self.disk, volume.dir.path());
        }
        let needed = left.iter().flat_map(|((topic_id, index), batches)| {
            batches.iter().map(|batch| Journaled {
                topic_id: *topic_id,
                partition: *index,
                run_from: batch.run_from,
                batch: batch.bytes.clone(),
            })
        });
        let needed: Vec<Journaled> = needed.collect();
        journal::keep(&*self.disk, volume.dir.path(), &needed)
    }

    fn note_checked(&self, dir: &DataDir) -> Result<(), DataDirError> {
        let is_open = |found: &FoundPartition| self.get(&found.topic, found.partition).is_ok();
        match dir.left() {
            Left::Killed => Ok(()),
            Left::Clean => dir.note_running(),
            Left::Crashed if dir.scan()?.iter().all(is_open) => dir.note_running(),
            Left::Crashed => Ok(()),
        }
    }

    /// Syncs the data directories in which partition directories were made; where that fails, what is there is offline.
    fn make_durable(&self, grown: &[AtomicBool], opened: &mut [(usize, i32, HostedPartition)]) {
        let grown = self.volumes.iter().zip(grown);
        for (volume, _) in grown.filter(|(_, grown)| grown.load(Ordering::Relaxed)) {
            let Err(error) = self.disk.sync_dir(volume.dir.path()) else {
                continue;
            };
            tracing::error!(dir = %volume.dir.path().display(), %error, "cannot sync the data directory");
            for (_, _, slot) in opened.iter_mut() {
                let is_there = |partition: &Arc<Partition>| {
                    partition.log().dir().parent() == Some(volume.dir.path())
                };
                if matches!(slot, HostedPartition::Online(partition) if is_there(partition)) {
                    *slot = HostedPartition::Offline(error.to_string().into());
                }
            }
        }
    }

    fn publish(&self, topics: &[TopicToOpen], opened: Vec<(usize, i32, HostedPartition)>) {
        let _change = self.changes.lock();
        let mut map = Map::clone(&self.map.load());
        // A topic may stand there more than once.
        let mut fresh: HashMap<Uuid, TopicPartitions> = HashMap::new();
        for (n, index, slot) in opened {
            let topic = &topics[n];
            let entry = fresh.entry(topic.topic_id).or_insert_with(|| {
                match map.by_id.get(&topic.topic_id) {
                    Some(known) => TopicPartitions::clone(known),
                    None => TopicPartitions {
                        topic: topic.topic.clone(),
                        topic_id: topic.topic_id,
                        slots: BTreeMap::new(),
                    },
                }
            });
            entry.slots.insert(index, slot);
        }
        for topic in fresh.into_values().map(Arc::new) {
            map.by_name.insert(topic.topic.clone(), topic.clone());
            map.by_id.insert(topic.topic_id, topic);
        }
        self.map.store(Arc::new(map));
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(super) fn open_one(
        &self,
        topic: &TopicToOpen,
        index: i32,
        identity: Identity,
        state: &PartitionState,
        (scanned, cut, grown): (&AtomicU64, &AtomicU64, &[AtomicBool]),
    ) -> Result<Arc<Partition>, LogError> {
        let at = self.place(topic, index)?;
        let volume = &self.volumes[at];
        let dir = volume.dir.partition_path(&topic.topic, index);
        let is_new = !dir.exists();
        if is_new {
            grown[at].store(true, Ordering::Relaxed);
        }
        volume
            .dir
            .forget_missing([(&*topic.topic, index)].into_iter())?;
        let offsets = volume.dir.offsets(&topic.topic, index);
        let recovery_point = offsets.recovery_point;
        let after_crash = OpenMode::AfterCrash { recovery_point };
        let mode = match volume.dir.left() {
            Left::Clean if self.unclosed.lock().contains(&(topic.topic_id, index)) => {
                OpenMode::AfterKill { recovery_point }
            }
            Left::Clean => OpenMode::Clean,
            Left::Killed => OpenMode::AfterKill { recovery_point },
            Left::Crashed => after_crash,
        };
        let in_journal = (topic.topic_id, index);
        let journaled = volume.journaled.lock().get(&in_journal).cloned();
        // Nothing is journaled before the directory is durable: what there is, is of a replica that was removed.
        let journaled = journaled.filter(|_| !is_new).unwrap_or_default();
        let open = |mode| {
            let left = LeftAs {
                mode,
                log_start: offsets.log_start,
                cleaned_until: offsets.cleaned_until,
            };
            Log::open_with(
                self.disk.clone(),
                &dir,
                topic.config.clone(),
                left,
                &journaled,
                self.clock.now_ms(),
            )
        };
        let opened = match open(mode) {
            Err(LogError::Damaged {
                file,
                position,
                what,
            }) if mode != after_crash => {
                tracing::warn!(
                    file,
                    position,
                    what,
                    "checking the partition as after a crash"
                );
                open(after_crash)?
            }
            result => result?,
        };
        if !journaled.is_empty() {
            // Before the journal is used anew.
            opened.log.sync(self.clock.now_ms())?;
            volume.journaled.lock().remove(&in_journal);
        }
        scanned.fetch_add(opened.scanned_bytes, Ordering::Relaxed);
        cut.fetch_add(opened.cut_bytes, Ordering::Relaxed);
        if opened.cut_bytes > 0 {
            tracing::warn!(topic = %topic.topic, partition = index, cut_bytes = opened.cut_bytes,
                log_end = opened.log.ends().log_end.offset, "recovered after a crash");
        }
        let log_end = opened.log.ends().log_end.offset;
        if log_end < recovery_point {
            tracing::error!(topic = %topic.topic, partition = index, log_end, recovery_point,
                "records that were synced are gone: the log ends before its recovery point");
            self.lost_synced.store(true, Ordering::Relaxed);
        }
        match is_new {
            true => volume
                .dir
                .write_topic_id(&topic.topic, index, topic.topic_id)?,
            false => volume
                .dir
                .store_topic_id_if_new(&topic.topic, index, topic.topic_id)?,
        }
        if state.is_led_here() {
            opened.log.begin_epoch(state.leader_epoch)?;
        }
        // It says more than there is: what is appended from here on was not compacted.
        let cleaned_until = opened.log.cleaned_until();
        if cleaned_until < offsets.cleaned_until {
            let note = |until| volume.dir.note_cleaned(&topic.topic, index, until, || true);
            note(cleaned_until)?;
        }
        self.unclosed.lock().remove(&(topic.topic_id, index));
        let ends = opened.log.ends();
        if ends.synced_end >= ends.log_end.offset {
            // An earlier object's log may never have been synced: this is what it had.
            self.release_in_journals(|id, of| (id, of) == (topic.topic_id, index));
        }
        let replica = Replica::new(
            (topic.topic.clone(), topic.topic_id, index, identity),
            opened.log,
            state,
            offsets.high_watermark,
            self.isr_watch.clone(),
        );
        volume.partitions.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Partition::new(replica, volume.writer.clone())))
    }

    /// The volume that has the partition's directory, or the emptiest one. What is another topic's is left alone:
    /// deletions leave a note in the tree, so it is not known how it came here.
    fn place(&self, topic: &TopicToOpen, index: i32) -> Result<usize, LogError> {
        let volumes = || self.volumes.iter().enumerate();
        let path = |volume: &Volume| volume.dir.partition_path(&topic.topic, index);
        let mut there = volumes().filter(|(_, volume)| path(volume).exists());
        let Some((at, volume)) = there.next() else {
            let emptiest =
                volumes().min_by_key(|(_, volume)| volume.partitions.load(Ordering::Relaxed));
            return emptiest
                .map(|(at, _)| at)
                .ok_or_else(|| LogError::Offline("no data directory".to_owned()));
        };
        if let Some((_, other)) = there.next() {
            return Err(LogError::Offline(format!(
                "there are two directories of it: {} and {}",
                path(volume).display(),
                path(other).display()
            )));
        }
        match volume.dir.topic_id(&topic.topic, index)? {
            Some(id) if id != topic.topic_id => Err(LogError::Offline(format!(
                "{} belongs to a topic with id {}, but {} has id {}; move the directory away to begin anew",
                path(volume).display(),
                uuid_to_base64(id),
                topic.topic,
                uuid_to_base64(topic.topic_id)
            ))),
            _ => Ok(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RealDisk;
    use crate::partition::PartitionsOptions;

    #[test]
    fn what_may_be_lost_is_found_by_each_start_until_it_was_registered() {
        let dir = tempfile::tempdir().unwrap();
        let options = PartitionsOptions::new(vec![dir.path().to_path_buf()]);
        let open = || Partitions::open(Arc::new(RealDisk), &options).unwrap();
        let left = |partitions: &Partitions| partitions.data_dirs().next().unwrap().left();
        // Used once, and the system did not run on.
        let partitions = open();
        let first = partitions.data_dirs().next().unwrap();
        first.claim("cluster", 0).unwrap();
        drop(partitions);
        for _ in 0..2 {
            let partitions = open();
            assert_eq!(left(&partitions), Left::Crashed);
            partitions.settle();
        }
        let partitions = open();
        partitions.settle();
        partitions.note_registered();
        drop(partitions);
        assert_eq!(left(&open()), Left::Killed);
    }
}
