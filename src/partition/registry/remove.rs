//! Removes the replicas that this broker keeps no more, while their topics go on elsewhere: they are given up, and their
//! directories taken out of the way (Kafka's ReplicaManager.stopPartitions, which deletes the logs).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use uuid::Uuid;

use super::{Cut, CutTo, Partitions};
use crate::partition::Partition;

/// A replica that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub index: i32,
    /// The leader epoch in which this broker is none of the replicas. Taking a replica away begins one: where the replica here
    /// knows it already, or a later one, who says so knows less than it does, and its files stay.
    pub leader_epoch: i32,
}

impl Partitions {
    /// Gives replicas up ([`Partitions::stop`]), and sets their files aside; they are removed after `file.delete.delay.ms` or
    /// at the next start. Where their directories cannot be renamed, they stay until the next start.
    pub async fn remove(self: &Arc<Self>, removals: &[Removal]) {
        let known = |one: &Removal| {
            let topic = self.topic_by_id(one.topic_id)?;
            let known = topic.get(one.index).ok()?;
            (known.leader_epoch() < one.leader_epoch).then(|| known.clone())
        };
        let leaving: Vec<Arc<Partition>> = removals.iter().filter_map(known).collect();
        let all = removals.iter().map(|one| (one.topic_id, one.index));
        self.stop(&all.collect::<Vec<_>>()).await;
        if leaving.is_empty() {
            return;
        }
        let leaving = self.forget_in_journals(leaving).await;
        let own = self.clone();
        let set_aside = move || own.set_replicas_aside(&leaving);
        if self.workers.unblock(set_aside).await.is_none() {
            tracing::error!("the files of replicas that are kept no more are left where they are");
        }
    }

    /// What the journals hold of them does not count from now on: a replica that comes back begins anew. Those for which that
    /// cannot be noted are left out.
    async fn forget_in_journals(
        self: &Arc<Self>,
        leaving: Vec<Arc<Partition>>,
    ) -> Vec<Arc<Partition>> {
        let mut by_volume: BTreeMap<usize, Vec<Cut>> = BTreeMap::new();
        for partition in leaving {
            if let Some(at) = self.volume_of(&partition) {
                let leader_epoch = partition.leader_epoch();
                let to = CutTo::AnewAt(0);
                by_volume.entry(at).or_default().push(Cut {
                    partition,
                    leader_epoch,
                    to,
                });
            }
        }
        let mut noted = Vec::new();
        for (at, cuts) in by_volume {
            match self.note_cuts_in_journal(at, &cuts).await {
                true => noted.extend(cuts.into_iter().map(|cut| cut.partition)),
                false => tracing::error!(
                    "the files of replicas that are kept no more stay until the next start: the journal cannot be written"
                ),
            }
        }
        noted
    }

    fn set_replicas_aside(&self, leaving: &[Arc<Partition>]) {
        // A partition that is on its way to another directory has arrived after this, or stays.
        let _renaming = self.lock_renames();
        for partition in leaving {
            if let Err(error) = self.set_replica_aside(partition) {
                tracing::error!(topic = %partition.topic(), partition = partition.index(), %error,
                    "cannot set a replica aside that is kept no more");
            }
        }
        for volume in &self.volumes {
            if let Err(error) = volume.dir.sync() {
                tracing::error!(dir = %volume.dir.path().display(), %error, "cannot sync the data directory");
            }
        }
    }

    fn set_replica_aside(&self, partition: &Partition) -> io::Result<()> {
        let (topic_id, index) = (partition.topic_id(), partition.index());
        let Some(topic) = self.topic_by_id(topic_id) else {
            return Ok(());
        };
        if topic.is_open(index) {
            // It is a replica again.
            return Ok(());
        }
        // The next start could take one for the partition.
        self.remove_copies_left(topic_id)?;
        for volume in &self.volumes {
            let path = volume.dir.partition_path(&topic.topic, index);
            if !path.try_exists()? || !self.is_of(volume, &topic, index)? {
                continue;
            }
            let aside = volume.dir.rename_aside(&topic.topic, index)?;
            partition.log().moved_to(&aside);
            partition.replica().mark_deleted();
            tracing::info!(topic = %topic.topic, partition = index,
                "removed: this broker keeps no replica of it any more");
            self.put_aside(aside, partition.log().config().file_delete_delay_ms);
        }
        self.unclosed.lock().remove(&(topic_id, index));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use metaq_protocol::batch::{BatchBuilder, BatchHeader};

    use super::*;
    use crate::log::{LogConfig, ProducedBatch, RealDisk};
    use crate::partition::{Acks, Identity, PartitionState, PartitionsOptions, TopicToOpen};

    const TOPIC: Uuid = Uuid::from_u128(7);

    fn open(dir: &std::path::Path) -> Arc<Partitions> {
        let options = PartitionsOptions::new(vec![dir.to_path_buf()]);
        Arc::new(Partitions::open(Arc::new(RealDisk), &options).unwrap())
    }

    /// Partitions 0 and 1, led in epoch 3.
    fn topic() -> TopicToOpen {
        let identity = |number| Identity {
            broker_id: 0,
            number,
        };
        TopicToOpen {
            topic: "t".into(),
            topic_id: TOPIC,
            config: LogConfig::default(),
            partitions: (0..2)
                .map(|index| (index, identity(index), PartitionState::alone(3)))
                .collect(),
        }
    }

    async fn append(partitions: &Partitions, index: i32) -> i64 {
        let bytes = BatchBuilder::new().push(None, Some(b"x"), &[], 1).finish();
        let bytes = bytes.unwrap();
        let batch = ProducedBatch {
            header: BatchHeader::parse(&bytes).unwrap(),
            bytes,
        };
        let led = partitions.get("t", index).unwrap();
        let appended = led.append(Acks::All, vec![batch]).await.unwrap();
        appended.unwrap().base_offset
    }

    fn removal(index: i32, leader_epoch: i32) -> Removal {
        Removal {
            topic_id: TOPIC,
            index,
            leader_epoch,
        }
    }

    #[tokio::test]
    async fn a_replica_that_is_taken_away_leaves_nothing_and_begins_anew_where_it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let partitions = open(dir.path());
        partitions.open_topics(vec![topic()]);
        assert_eq!(
            (append(&partitions, 0).await, append(&partitions, 1).await),
            (0, 0)
        );
        partitions.remove(&[removal(0, 4)]).await;
        assert!(partitions.get("t", 0).is_err() && !dir.path().join("t-0").exists());
        assert!(dir.path().join("t-1").exists() && append(&partitions, 1).await == 1);
        assert_eq!(partitions.take_set_aside().len(), 1);
        // Twice is as good as once.
        partitions.remove(&[removal(0, 4), removal(9, 1)]).await;
        let mut back = topic();
        back.partitions = vec![(0, back.partitions[0].1, PartitionState::alone(5))];
        assert_eq!(partitions.open_topics(vec![back]).online, 1);
        assert_eq!(append(&partitions, 0).await, 0);
        partitions.close();
    }

    #[tokio::test]
    async fn who_knows_less_than_the_replica_removes_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let partitions = open(dir.path());
        partitions.open_topics(vec![topic()]);
        append(&partitions, 0).await;
        partitions.remove(&[removal(0, 3)]).await;
        assert!(partitions.get("t", 0).is_err() && dir.path().join("t-0").exists());
        assert!(partitions.take_set_aside().is_empty());
        let mut back = topic();
        back.partitions.truncate(1);
        partitions.open_topics(vec![back]);
        assert_eq!(append(&partitions, 0).await, 1);
        partitions.close();
    }

    #[tokio::test]
    async fn what_the_journal_held_of_it_does_not_come_back_after_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let killed = open(dir.path());
        let synced = |indices: &[i32]| {
            let mut topic = topic();
            topic.config.flush_messages = 1;
            topic.partitions.retain(|one| indices.contains(&one.0));
            topic
        };
        killed.open_topics(vec![synced(&[0, 1])]);
        killed.settle();
        for n in 0..3 {
            assert_eq!(append(&killed, 0).await, n);
        }
        killed.remove(&[removal(0, 4)]).await;
        // It comes back, and has nothing yet when the power goes.
        killed.open_topics(vec![synced(&[0])]);
        drop(killed);
        let _ = std::fs::remove_file(dir.path().join("metaq-running"));
        let partitions = open(dir.path());
        assert_eq!(partitions.open_topics(vec![synced(&[0, 1])]).online, 2);
        let back = partitions.get("t", 0).unwrap();
        assert_eq!(back.log().ends().log_end.offset, 0);
        partitions.close();
    }
}
