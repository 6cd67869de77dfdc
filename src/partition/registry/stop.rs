//! Gives up partitions that this broker leads no more: closes their logs and leaves their files where they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::{HostedPartition, Map, Partitions, TopicPartitions, offsets_of};
use crate::partition::Partition;

impl Partitions {
    /// Gives partitions up, by topic and index. Nothing is appended to them when this returns, all that was is synced, and
    /// they can be opened again, here or at the next start.
    pub async fn stop(self: &Arc<Self>, partitions: &[(Uuid, i32)]) {
        let stopped = self.forget(partitions);
        for partition in &stopped {
            partition.mark_stopped();
            if let Some((volume, _)) = self.holding(partition) {
                // A writer that has ended writes nothing either.
                let _ = volume.writer.run(|| ()).await;
                volume.has_one_less();
            }
            partition.refuse_stopped();
        }
        let own = self.clone();
        let close = move || {
            stopped
                .iter()
                .for_each(|partition| own.close_one(partition));
            own.keep_offsets(&stopped);
        };
        if self.workers.unblock(close).await.is_none() {
            tracing::error!("partitions that are led elsewhere were not closed");
        }
    }

    /// Takes partitions off the map; those that were online.
    fn forget(&self, partitions: &[(Uuid, i32)]) -> Vec<Arc<Partition>> {
        let _change = self.changes.lock();
        let known = self.map.load();
        let is_open = |(id, index): &&(Uuid, i32)| {
            let topic = known.by_id.get(id);
            topic.is_some_and(|topic| topic.is_open(*index))
        };
        if !partitions.iter().any(|one| is_open(&one)) {
            return Vec::new();
        }
        let mut map = Map::clone(&known);
        let mut stopped = Vec::new();
        let mut changed: BTreeMap<Uuid, TopicPartitions> = BTreeMap::new();
        for (id, index) in partitions.iter().filter(is_open) {
            let Some(topic) = map.by_id.get(id) else {
                continue;
            };
            let topic = changed
                .entry(*id)
                .or_insert_with(|| TopicPartitions::clone(topic));
            if let Some(HostedPartition::Online(partition)) =
                topic.slots.insert(*index, HostedPartition::Stopped)
            {
                stopped.push(partition);
            }
        }
        for topic in changed.into_values().map(Arc::new) {
            map.by_name.insert(topic.topic.clone(), topic.clone());
            map.by_id.insert(topic.topic_id, topic);
        }
        self.map.store(Arc::new(map));
        self.generation.fetch_add(1, Ordering::Release);
        stopped
    }

    fn close_one(&self, partition: &Partition) {
        let (topic, index) = (partition.topic(), partition.index());
        match partition.log().close(self.clock.now_ms()) {
            Ok(end) => {
                tracing::info!(%topic, partition = index, end, "closed: not led here any more")
            }
            Err(error) => {
                self.note_unclosed(partition);
                tracing::error!(%topic, partition = index, %error, "not closed cleanly");
            }
        }
    }

    /// The checkpoints know them as they were closed; nothing else will say so later.
    fn keep_offsets(&self, stopped: &[Arc<Partition>]) {
        for volume in &self.volumes {
            let here = stopped
                .iter()
                .filter(|partition| partition.log().dir().parent() == Some(volume.dir.path()));
            let offsets: BTreeMap<_, _> = here.map(offsets_of).collect();
            if offsets.is_empty() {
                continue;
            }
            if let Err(error) = volume.dir.checkpoint(|| offsets) {
                tracing::error!(dir = %volume.dir.path().display(), %error, "cannot write the checkpoints");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use metaq_protocol::batch::{BatchBuilder, BatchHeader};

    use crate::log::{LogConfig, LogError, ProducedBatch, RealDisk};
    use crate::partition::{
        Acks, Identity, PartitionError, PartitionState, Partitions, PartitionsOptions, TopicToOpen,
    };

    use super::*;

    fn topic(leader_epoch: i32) -> TopicToOpen {
        let identity = |number| Identity {
            broker_id: 0,
            number,
        };
        TopicToOpen {
            topic: "t".into(),
            topic_id: Uuid::from_u128(7),
            config: LogConfig::default(),
            partitions: (0..2)
                .map(|index| (index, identity(index), PartitionState::alone(leader_epoch)))
                .collect(),
        }
    }

    fn batch() -> Vec<ProducedBatch> {
        let bytes = BatchBuilder::new().push(None, Some(b"x"), &[], 1).finish();
        let bytes = bytes.unwrap();
        vec![ProducedBatch {
            header: BatchHeader::parse(&bytes).unwrap(),
            bytes,
        }]
    }

    fn open(dir: &std::path::Path) -> Arc<Partitions> {
        let options = PartitionsOptions::new(vec![dir.to_path_buf()]);
        Arc::new(Partitions::open(Arc::new(RealDisk), &options).unwrap())
    }

    #[tokio::test]
    async fn what_is_given_up_takes_nothing_more_and_has_all_of_it_when_it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let partitions = open(dir.path());
        partitions.open_topics(vec![topic(0)]);
        let led = partitions.get("t", 0).unwrap();
        led.append(Acks::All, batch()).await.unwrap().unwrap();
        let given_up = (Uuid::from_u128(7), 0);
        partitions.stop(&[given_up]).await;
        assert!(matches!(
            partitions.get("t", 0),
            Err(PartitionError::NotLeader)
        ));
        let refused = led.append(Acks::All, batch()).await.unwrap();
        assert!(matches!(refused, Err(LogError::NotLeader)));
        assert!(partitions.get("t", 1).is_ok());
        assert!(dir.path().join("t-0").exists());
        // Nobody is led astray by what is not there.
        partitions
            .stop(&[given_up, (Uuid::from_u128(8), 0), (Uuid::from_u128(7), 9)])
            .await;
        let mut back = topic(3);
        back.partitions.truncate(1);
        assert_eq!(partitions.open_topics(vec![back]).online, 1);
        let led = partitions.get("t", 0).unwrap();
        assert_eq!(
            (led.leader_epoch(), led.log().ends().log_end.offset),
            (3, 1)
        );
        led.append(Acks::All, batch()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_files_of_what_was_given_up_go_with_their_topic() {
        let dir = tempfile::tempdir().unwrap();
        let partitions = open(dir.path());
        partitions.open_topics(vec![topic(0)]);
        partitions.stop(&[(Uuid::from_u128(7), 0)]).await;
        partitions.delete(&[Uuid::from_u128(7)]).await;
        assert!(!dir.path().join("t-0").exists() && !dir.path().join("t-1").exists());
    }

    #[tokio::test]
    async fn a_directory_that_lost_its_id_goes_with_its_topic_unless_another_one_has_the_name() {
        for is_named_anew in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let partitions = open(dir.path());
            partitions.open_topics(vec![topic(0)]);
            partitions.stop(&[(Uuid::from_u128(7), 0)]).await;
            std::fs::remove_file(dir.path().join("t-0/partition.metadata")).unwrap();
            if is_named_anew {
                let mut anew = topic(0);
                anew.topic_id = Uuid::from_u128(8);
                anew.partitions.clear();
                anew.partitions.extend(topic(0).partitions.drain(1..));
                partitions.open_topics(vec![anew]);
            }
            partitions.delete(&[Uuid::from_u128(7)]).await;
            assert_eq!(dir.path().join("t-0").exists(), is_named_anew);
        }
    }
}
