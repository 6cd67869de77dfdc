//! Makes known what became of a partition that was to move.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::MutexGuard;

use super::roles::take;
use super::{HostedPartition, Map, Partitions, TopicPartitions, TopicToOpen};
use crate::log::LogError;
use crate::partition::Partition;
use crate::partition::volume::Volume;

fn is_slot(topic: &TopicPartitions, partition: &Arc<Partition>) -> bool {
    let slot = topic.slots.get(&partition.index());
    matches!(slot, Some(HostedPartition::Online(known)) if Arc::ptr_eq(known, partition))
}

impl Partitions {
    /// Whoever renames partitions' directories, or looks which there are to open one, does it alone: a partition that moves
    /// is under its name in no directory for a moment.
    pub(in crate::partition) fn lock_renames(&self) -> MutexGuard<'_, ()> {
        self.renaming.lock()
    }

    /// What of its log is synced is not known from now on.
    pub(in crate::partition) fn note_unclosed(&self, partition: &Partition) {
        let key = (partition.topic_id(), partition.index());
        self.unclosed.lock().insert(key);
    }

    /// Whether this is the partition that is known under its name.
    pub(in crate::partition) fn is_current(&self, partition: &Arc<Partition>) -> bool {
        let map = self.map.load();
        let topic = map.by_id.get(&partition.topic_id());
        topic.is_some_and(|topic| is_slot(topic, partition))
    }

    /// Opens a partition anew, and makes it known instead of the one that it was; `false` where that one is not known any
    /// more, because its topic is deleted or it is led elsewhere: then its files stay as they are.
    pub(in crate::partition) fn replace(
        &self,
        old: &Arc<Partition>,
        to_open: &TopicToOpen,
    ) -> bool {
        if !self.is_current(old) {
            return false;
        }
        let index = old.index();
        let unused = (AtomicU64::new(0), AtomicU64::new(0));
        let grown: Vec<AtomicBool> = self.volumes.iter().map(|_| AtomicBool::default()).collect();
        let is_there = |volume: &Volume| volume.dir.partition_path(&to_open.topic, index).exists();
        let opened = match self.volumes.iter().any(is_there) {
            true => self.open_one(
                to_open,
                index,
                old.identity(),
                &old.state(),
                (&unused.0, &unused.1, &grown),
            ),
            // Not to be begun anew: it is in a copy or set aside.
            false => Err(LogError::Offline(AWAY.to_owned())),
        };
        let slot = opened.map_or_else(
            |error| {
                tracing::error!(topic = %to_open.topic, partition = index, %error, "partition is offline");
                HostedPartition::Offline(error.to_string().into())
            },
            HostedPartition::Online,
        );
        self.publish_instead(old, slot)
    }

    /// Takes a partition offline whose move failed, and could not be undone.
    pub(in crate::partition) fn lose(&self, old: &Arc<Partition>, error: &io::Error) {
        let reason = format!("{AWAY}: {error}");
        self.publish_instead(old, HostedPartition::Offline(reason.into()));
    }

    fn publish_instead(&self, old: &Arc<Partition>, slot: HostedPartition) -> bool {
        let _change = self.changes.lock();
        let mut map = Map::clone(&self.map.load());
        let topic = map.by_id.get(&old.topic_id());
        let Some(topic) = topic.filter(|topic| is_slot(topic, old)) else {
            if let HostedPartition::Online(partition) = slot {
                self.let_go(&partition);
            }
            return false;
        };
        let mut changed = TopicPartitions::clone(topic);
        if let HostedPartition::Online(partition) = &slot {
            // Another role may have begun since it was opened. Nobody else knows it yet.
            let state = old.state();
            if partition.state() != state {
                take(partition.replica(), &state);
            }
            partition.traffic().go_on_from(old.traffic());
            // It may have been changed meanwhile.
            partition.log().reconfigure((*old.log().config()).clone());
        }
        let published = match &slot {
            HostedPartition::Online(partition) => Some(partition.clone()),
            HostedPartition::Offline(_) | HostedPartition::Stopped => None,
        };
        changed.slots.insert(old.index(), slot);
        let changed = Arc::new(changed);
        map.by_name.insert(changed.topic.clone(), changed.clone());
        map.by_id.insert(changed.topic_id, changed);
        self.map.store(Arc::new(map));
        self.generation.fetch_add(1, Ordering::Release);
        if let Some(partition) = published {
            // Who found the old one until now has told that one who is in sync.
            partition.update_state(&old.state());
        }
        true
    }

    /// Closes what was opened in vain. Whoever took the old one off the map does the rest.
    fn let_go(&self, partition: &Partition) {
        partition.mark_deleted();
        if let Some((volume, _)) = self.holding(partition) {
            volume.has_one_less();
        }
        if let Err(error) = partition.log().close(self.clock.now_ms()) {
            tracing::error!(topic = %partition.topic(), partition = partition.index(), %error, "not closed cleanly");
        }
    }
}

/// Why a partition is offline whose directory has none of its names.
const AWAY: &str = "its directory is away since a move that failed; start the broker anew";

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::log::{LogConfig, RealDisk};
    use crate::partition::{Eligible, Identity, PartitionState, PartitionsOptions};

    const TOPIC: Uuid = Uuid::from_u128(7);

    fn state(leader: i32, leader_epoch: i32) -> PartitionState {
        PartitionState {
            own: 1,
            leader,
            leader_epoch,
            partition_epoch: leader_epoch,
            replicas: vec![1, 2],
            isr: vec![1, 2],
            eligible: Eligible::None,
        }
    }

    #[tokio::test]
    async fn a_partition_that_moves_has_the_role_that_began_while_it_did() {
        let dir = tempfile::tempdir().unwrap();
        let options = PartitionsOptions::new(vec![dir.path().to_path_buf()]);
        let partitions = Arc::new(Partitions::open(Arc::new(RealDisk), &options).unwrap());
        let identity = Identity {
            broker_id: 1,
            number: 0,
        };
        let to_open = TopicToOpen {
            topic: "t".into(),
            topic_id: TOPIC,
            config: LogConfig::default(),
            partitions: vec![(0, identity, state(1, 3))],
        };
        partitions.open_topics(vec![to_open.clone()]);
        for (before, after) in [(state(1, 3), state(2, 4)), (state(2, 4), state(1, 5))] {
            let old = partitions.get("t", 0).unwrap();
            old.mark_moved();
            old.log().close(0).unwrap();
            let unused = (AtomicU64::new(0), AtomicU64::new(0));
            let grown = [AtomicBool::default()];
            let opened = partitions
                .open_one(
                    &to_open,
                    0,
                    identity,
                    &before,
                    (&unused.0, &unused.1, &grown),
                )
                .unwrap();
            partitions.take_roles(vec![(TOPIC, 0, after.clone())]).await;
            let slot = HostedPartition::Online(opened);
            assert!(partitions.publish_instead(&old, slot));
            let new = partitions.get("t", 0).unwrap();
            assert!(!Arc::ptr_eq(&old, &new));
            assert_eq!(
                (new.state(), new.leader_epoch()),
                (after.clone(), after.leader_epoch)
            );
            assert_eq!(new.is_leader(), after.is_led_here());
        }
        partitions.close();
    }
}
