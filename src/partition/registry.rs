//! All partitions of this broker, by topic.
//!
//! Look-ups read an immutable map behind an atomic pointer. Changes go through one lock and publish a new map.
//!
//! Tests: partition/tests.rs, partition/registry/stop.rs.

mod cut;
mod delete;
mod open;
mod remove;
mod replace;
mod roles;
mod stop;

pub use cut::{Cut, CutTo};
pub use remove::Removal;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use uuid::Uuid;

use super::commit_group::Gate;
use super::executor::Workers;
use super::handle::Partition;
use super::isr_watch::IsrWatch;
use super::moves::{self, Moves};
use super::options::PartitionsOptions;
use super::partition_state::PartitionState;
use super::replica::Identity;
use super::volume::{self, Volume};
use super::writer::Writer;
use crate::clock::WallClock;
use crate::log::journal;
use crate::log::{
    DataDir, DataDirError, Disk, FoundPartition, LogConfig, LogError, PartitionOffsets, Segment,
};
use crate::meta::Lease;
use crate::supervisor::Supervisor;

/// A topic whose partitions are to be opened or created here.
#[derive(Clone, Debug)]
pub struct TopicToOpen {
    /// Name.
    pub topic: Arc<str>,
    /// Id.
    pub topic_id: Uuid,
    /// Settings of its logs.
    pub config: LogConfig,
    /// Index, identity and state of each partition that this broker keeps.
    pub partitions: Vec<(i32, Identity, PartitionState)>,
}

/// Why there is no partition to work on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PartitionError {
    /// This broker has no such partition.
    #[error("unknown topic or partition")]
    Unknown,
    /// Another broker leads it, or may by now.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// Its files cannot be used; the text says why.
    #[error("partition is offline: {0}")]
    Offline(String),
}

/// The partitions of one topic.
#[derive(Clone)]
pub struct TopicPartitions {
    /// Name.
    pub topic: Arc<str>,
    /// Id.
    pub topic_id: Uuid,
    slots: BTreeMap<i32, HostedPartition>,
}

#[derive(Clone)]
enum HostedPartition {
    Online(Arc<Partition>),
    Offline(Arc<str>),
    /// Led elsewhere by now; its files are still here.
    Stopped,
}

impl TopicPartitions {
    /// One partition.
    pub fn get(&self, index: i32) -> Result<&Arc<Partition>, PartitionError> {
        match self.slots.get(&index) {
            Some(HostedPartition::Online(partition)) => Ok(partition),
            Some(HostedPartition::Offline(reason)) => {
                Err(PartitionError::Offline(reason.to_string()))
            }
            Some(HostedPartition::Stopped) => Err(PartitionError::NotLeader),
            None => Err(PartitionError::Unknown),
        }
    }

    /// Whether a partition is here, online or not.
    pub fn is_open(&self, index: i32) -> bool {
        let slot = self.slots.get(&index);
        slot.is_some_and(|slot| !matches!(slot, HostedPartition::Stopped))
    }

    /// Those that are online.
    pub fn online(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.slots.values().filter_map(|slot| match slot {
            HostedPartition::Online(partition) => Some(partition),
            HostedPartition::Offline(_) | HostedPartition::Stopped => None,
        })
    }

    /// Those that are offline, and why.
    pub fn offline(&self) -> impl Iterator<Item = (i32, &str)> {
        self.slots.iter().filter_map(|(index, slot)| match slot {
            HostedPartition::Online(_) | HostedPartition::Stopped => None,
            HostedPartition::Offline(reason) => Some((*index, &**reason)),
        })
    }
}

#[derive(Default, Clone)]
struct Map {
    by_name: HashMap<Arc<str>, Arc<TopicPartitions>>,
    by_id: HashMap<Uuid, Arc<TopicPartitions>>,
}

/// What the checkpoints say of a partition that is open.
fn offsets_of(partition: &Arc<Partition>) -> ((String, i32), PartitionOffsets) {
    let ends = partition.log().ends();
    let at = PartitionOffsets {
        recovery_point: ends.synced_end,
        log_start: ends.log_start,
        high_watermark: partition.high_watermark(),
        cleaned_until: partition.log().cleaned_until(),
    };
    ((partition.topic().to_string(), partition.index()), at)
}

/// What opening partitions did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct OpenReport {
    /// Opened or created.
    pub online: usize,
    /// Not usable.
    pub offline: usize,
    /// Bytes checked after a crash.
    pub scanned_bytes: u64,
    /// Bytes cut off.
    pub cut_bytes: u64,
}

/// See the module's documentation.
pub struct Partitions {
    disk: Arc<dyn Disk>,
    pub(super) volumes: Vec<Volume>,
    pub(super) moves: Mutex<Moves>,
    open_threads: usize,
    clock: WallClock,
    workers: Workers,
    map: ArcSwap<Map>,
    /// How often partitions or their settings have changed.
    generation: AtomicU64,
    /// How often settings of logs were replaced.
    reconfigured: AtomicU64,
    changes: Mutex<()>,
    /// See [`Partitions::lock_renames`]; taken before `changes`.
    renaming: Mutex<()>,
    /// Deleted topics whose files are not durably out of the way.
    undeleted: Mutex<HashMap<Uuid, Arc<TopicPartitions>>>,
    /// Partitions whose logs could not be closed: they are opened as after a kill, however the directory was left.
    unclosed: Mutex<HashSet<(Uuid, i32)>>,
    /// Whether a log was opened that ends before what it had synced.
    lost_synced: AtomicBool,
    found: HashMap<(String, i32), (usize, Option<Uuid>)>,
    /// Deleted directories and segments, with the delay after which their files go; taken by housekeeping.
    set_aside: Mutex<Vec<(PathBuf, i64)>>,
    dropped: Mutex<Vec<(Vec<Arc<Segment>>, i64)>>,
    gate: Gate,
    isr_watch: Arc<IsrWatch>,
    supervisor: Supervisor,
}

impl Partitions {
    /// Opens the data directories; no partition yet.
    pub fn open(disk: Arc<dyn Disk>, options: &PartitionsOptions) -> Result<Self, DataDirError> {
        let mut volumes = Vec::new();
        let mut found = HashMap::new();
        let gate = Gate::default();
        let supervisor = Supervisor::default();
        let dirs = options.data_paths.iter();
        let dirs = dirs.map(|path| DataDir::open(disk.clone(), path));
        let dirs = dirs.collect::<Result<Vec<_>, _>>()?;
        let paths: Vec<&Path> = dirs.iter().map(DataDir::path).collect();
        moves::settle(&*disk, &paths).map_err(|source| DataDirError::Io {
            path: options.data_paths.first().cloned().unwrap_or_default(),
            source,
        })?;
        for (path, dir) in options.data_paths.iter().zip(dirs) {
            for partition in dir.scan()? {
                found.insert(
                    (partition.topic, partition.partition),
                    (volumes.len(), partition.topic_id),
                );
            }
            let name = volumes.len().to_string();
            let place = (disk.clone(), path.as_path());
            let writer = Writer::start(&name, place, options, gate.clone(), &supervisor);
            let writer = writer.map_err(|source| DataDirError::Io {
                path: path.clone(),
                source,
            })?;
            let journaled =
                volume::load_journal(&*disk, &dir).map_err(|source| DataDirError::Io {
                    path: path.clone(),
                    source,
                })?;
            volumes.push(Volume {
                dir,
                writer,
                partitions: AtomicUsize::new(0),
                journaled: Mutex::new(journaled),
            });
        }
        let open_threads = options.open_threads.max(1);
        Ok(Self {
            disk,
            volumes,
            moves: Mutex::default(),
            open_threads,
            clock: options.clock.clone(),
            workers: options.workers.clone(),
            map: ArcSwap::default(),
            generation: AtomicU64::new(1),
            reconfigured: AtomicU64::new(0),
            changes: Mutex::new(()),
            renaming: Mutex::new(()),
            undeleted: Mutex::default(),
            unclosed: Mutex::default(),
            lost_synced: AtomicBool::new(false),
            found,
            set_aside: Mutex::default(),
            dropped: Mutex::default(),
            gate,
            isr_watch: Arc::new(IsrWatch::new(options.replica_lag_max)),
            supervisor,
        })
    }

    /// Appends nothing from now on while the lease does not hold.
    pub fn hold_to(&self, lease: &Arc<Lease>) {
        let _ = self.gate.set(lease.clone());
    }

    /// Which led partitions have something to propose about who is in sync.
    pub fn isr_watch(&self) -> &Arc<IsrWatch> {
        &self.isr_watch
    }

    /// The time of day.
    pub fn clock(&self) -> &WallClock {
        &self.clock
    }

    /// Who does what would block.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Which of the threads and tasks that the broker needs have ended.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// The disk that they are on.
    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// The data directories.
    pub fn data_dirs(&self) -> impl Iterator<Item = &DataDir> {
        self.volumes.iter().map(|volume| &volume.dir)
    }

    /// Partition directories that were there at start.
    pub fn found(&self) -> Vec<FoundPartition> {
        let describe =
            |((topic, partition), (volume, topic_id)): (&(String, i32), &(usize, Option<Uuid>))| {
                let path = self.volumes[*volume].dir.partition_path(topic, *partition);
                FoundPartition {
                    topic: topic.clone(),
                    partition: *partition,
                    topic_id: *topic_id,
                    path,
                }
            };
        let mut found: Vec<_> = self.found.iter().map(describe).collect();
        found.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        found
    }

    /// The latest leader epoch that a directory found at start was written under.
    pub fn latest_epoch(&self, topic: &str, partition: i32) -> i32 {
        let at = self.found.get(&(topic.to_owned(), partition));
        at.map_or(0, |(volume, _)| {
            self.volumes[*volume].dir.latest_epoch(topic, partition)
        })
    }

    /// A partition by topic name.
    pub fn get(&self, topic: &str, index: i32) -> Result<Arc<Partition>, PartitionError> {
        let map = self.map.load();
        map.by_name
            .get(topic)
            .ok_or(PartitionError::Unknown)?
            .get(index)
            .cloned()
    }

    /// A topic's partitions by name.
    pub fn topic(&self, topic: &str) -> Option<Arc<TopicPartitions>> {
        self.map.load().by_name.get(topic).cloned()
    }

    /// A topic's partitions by id.
    pub fn topic_by_id(&self, topic_id: Uuid) -> Option<Arc<TopicPartitions>> {
        self.map.load().by_id.get(&topic_id).cloned()
    }

    /// All topics with partitions here.
    pub fn topics(&self) -> Vec<Arc<TopicPartitions>> {
        self.map.load().by_name.values().cloned().collect()
    }

    /// Gives a topic's logs new settings.
    pub fn reconfigure(&self, topic: &str, config: &LogConfig) {
        if let Some(topic) = self.topic(topic) {
            topic
                .online()
                .for_each(|partition| partition.log().reconfigure(config.clone()));
            self.generation.fetch_add(1, Ordering::Release);
            self.reconfigured.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// How often settings of logs were replaced.
    pub(super) fn reconfigured(&self) -> u64 {
        self.reconfigured.load(Ordering::Acquire)
    }

    /// How often partitions or their settings have changed.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Moves a partition's log start to `offset`, or to the high watermark for -1 (DeleteRecords). It is durable after
    /// [`Self::checkpoint_aside`].
    pub async fn delete_records(
        &self,
        partition: &Arc<Partition>,
        offset: i64,
    ) -> Result<(), LogError> {
        let high_watermark = partition.high_watermark();
        let ends = partition.log().ends();
        let target = if offset == -1 { high_watermark } else { offset };
        if target < 0 || target > high_watermark {
            return Err(LogError::OffsetOutOfRange {
                offset,
                log_start: ends.log_start,
                log_end: high_watermark,
            });
        }
        let (subject, now) = (partition.clone(), self.clock.now_ms());
        let moved = partition
            .writer()
            .run(move || subject.advance_log_start(target, now))
            .await;
        let dropped =
            moved.map_err(|_| LogError::Offline("the writer thread ended".to_owned()))??;
        if !dropped.is_empty() {
            self.drop_later(dropped, partition.log().config().file_delete_delay_ms);
        }
        Ok(())
    }

    /// As [`Self::checkpoint`], for a caller that must not wait for the disk itself.
    pub async fn checkpoint_aside(self: &Arc<Self>) -> std::io::Result<()> {
        let partitions = self.clone();
        let written = self.workers.unblock(move || partitions.checkpoint()).await;
        written.unwrap_or_else(|| {
            Err(std::io::Error::other(
                "a checkpoint panicked; this is a bug",
            ))
        })
    }

    pub(super) fn put_aside(&self, dir: PathBuf, delay_ms: i64) {
        self.set_aside.lock().push((dir, delay_ms));
    }

    pub(super) fn take_set_aside(&self) -> Vec<(PathBuf, i64)> {
        std::mem::take(&mut self.set_aside.lock())
    }

    /// Segments that no log has any more; their files go after a delay.
    pub(super) fn drop_later(&self, segments: Vec<Arc<Segment>>, delay_ms: i64) {
        self.dropped.lock().push((segments, delay_ms));
    }

    pub(super) fn take_dropped(&self) -> Vec<(Vec<Arc<Segment>>, i64)> {
        std::mem::take(&mut self.dropped.lock())
    }

    /// The volume that a partition is in, by number.
    fn volume_of(&self, partition: &Partition) -> Option<usize> {
        let dir = partition.log().dir();
        let mut volumes = self.volumes.iter();
        volumes.position(|volume| dir.parent() == Some(volume.dir.path()))
    }

    fn holding(&self, partition: &Partition) -> Option<(&Volume, PathBuf)> {
        let path = partition.log().dir();
        let volume = self
            .volumes
            .iter()
            .find(|volume| path.parent() == Some(volume.dir.path()))?;
        Some((volume, path))
    }

    /// The data directory that a partition is in.
    pub fn data_dir_of(&self, partition: &Partition) -> Option<&DataDir> {
        self.holding(partition).map(|(volume, _)| &volume.dir)
    }

    /// Notes durably up to where a partition is compacted; what was compacted is durable.
    pub(super) fn note_cleaned(&self, partition: &Arc<Partition>) -> std::io::Result<()> {
        let Some((volume, _)) = self.holding(partition) else {
            return Ok(());
        };
        let (topic, index) = (partition.topic(), partition.index());
        let until = partition.log().cleaned_until();
        let is_current = || self.is_current(partition);
        volume.dir.note_cleaned(topic, index, until, is_current)
    }

    /// Writes the checkpoints of all data directories; a failure of one leaves the others alone.
    pub fn checkpoint(&self) -> std::io::Result<()> {
        let mut result = Ok(());
        for volume in &self.volumes {
            if let Err(error) = volume.dir.checkpoint(|| self.offsets_in(volume)) {
                tracing::error!(dir = %volume.dir.path().display(), %error, "cannot write the checkpoints");
                result = Err(error);
            }
        }
        result
    }

    pub(super) fn offsets_in(&self, volume: &Volume) -> BTreeMap<(String, i32), PartitionOffsets> {
        let mut offsets = BTreeMap::new();
        for topic in self.map.load().by_name.values() {
            let here = topic
                .online()
                .filter(|partition| partition.log().dir().parent() == Some(volume.dir.path()));
            offsets.extend(here.map(offsets_of));
        }
        offsets
    }

    /// Ends the writers, closes every log, and marks the directories as cleanly closed.
    pub fn close(&self) {
        self.stop_moving();
        for volume in &self.volumes {
            volume.writer.stop();
        }
        let all: Vec<_> = self
            .topics()
            .iter()
            .flat_map(|topic| topic.online().cloned().collect::<Vec<_>>())
            .collect();
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let worker = || {
            while let Some(partition) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = partition.log().close(self.clock.now_ms()) {
                    failed.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(topic = %partition.topic(), partition = partition.index(), %error,
                        "not closed cleanly");
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..(self.open_threads * 4).min(all.len()) {
                scope.spawn(worker);
            }
            worker();
        });
        let checkpointed = self.checkpoint().is_ok();
        let clean = checkpointed
            && failed.into_inner() == 0
            && self.unclosed.lock().is_empty()
            && self
                .topics()
                .iter()
                .all(|topic| topic.offline().next().is_none());
        for volume in self.volumes.iter().filter(|_| clean) {
            let discarded = journal::discard(&*self.disk, volume.dir.path());
            if let Err(error) = discarded.and_then(|()| volume.dir.mark_clean()) {
                tracing::error!(dir = %volume.dir.path().display(), %error, "cannot mark the directory clean");
            }
        }
    }
}
