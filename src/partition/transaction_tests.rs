//! Transactions in a partition: what readers of committed records see, and when they hear of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::batch::{BatchBuilder, BatchHeader};
use uuid::Uuid;

use super::*;
use crate::log::{
    LogConfig, LogError, Outcome, ProducedBatch, ProducerError, Reach, RealDisk, ToVerify,
    TransactionMarker, TransactionVersion, Verification,
};

/// Nothing takes that long.
const SOON: Duration = Duration::from_secs(30);

fn opened(dir: &Path, config: LogConfig) -> (Partitions, Arc<Partition>) {
    opened_in(&[dir], config)
}

fn opened_in(dirs: &[&Path], config: LogConfig) -> (Partitions, Arc<Partition>) {
    let options = PartitionsOptions::new(dirs.iter().map(|dir| dir.to_path_buf()).collect());
    let partitions = Partitions::open(Arc::new(RealDisk), &options).unwrap();
    let identity = Identity {
        broker_id: 0,
        number: 0,
    };
    partitions.open_topics(vec![TopicToOpen {
        topic: "t".into(),
        topic_id: Uuid::from_u128(7),
        config,
        partitions: vec![(0, identity, PartitionState::alone(0))],
    }]);
    let partition = partitions.get("t", 0).unwrap();
    (partitions, partition)
}

/// A producer of transactions.
struct Sender {
    id: i64,
    epoch: i16,
    sequence: i32,
}

impl Sender {
    fn new(id: i64) -> Self {
        Self {
            id,
            epoch: 0,
            sequence: 0,
        }
    }

    fn verified(&self, partition: &Partition) -> Verification {
        let to_verify = ToVerify {
            producer_id: self.id,
            producer_epoch: self.epoch,
            base_sequence: self.sequence,
            is_v2: true,
        };
        partition.begin_verification(&to_verify).unwrap()
    }

    async fn append(
        &mut self,
        partition: &Partition,
        verification: Verification,
    ) -> Result<i64, LogError> {
        let builder = BatchBuilder::new().producer(self.id, self.epoch, self.sequence);
        let builder = builder.transactional().push(None, Some(b"v"), &[], 1);
        let bytes = builder.finish().unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        let batches = vec![ProducedBatch { header, bytes }];
        let answer = partition.append_verified(Acks::All, batches, verification);
        let appended = answer.await.unwrap()?;
        self.sequence += 1;
        Ok(appended.base_offset)
    }

    /// Appends a record of a transaction; its offset.
    async fn send(&mut self, partition: &Partition) -> i64 {
        let verification = self.verified(partition);
        self.append(partition, verification).await.unwrap()
    }

    fn marker(&self, outcome: Outcome) -> TransactionMarker {
        TransactionMarker {
            producer_id: self.id,
            producer_epoch: self.epoch + 1,
            coordinator_epoch: 3,
            outcome,
            version: TransactionVersion::V2,
        }
    }

    /// Ends its transaction; the marker's offset.
    async fn end(&mut self, partition: &Partition, outcome: Outcome) -> i64 {
        let answer = partition.append_marker(&self.marker(outcome));
        let appended = answer.await.unwrap().unwrap();
        (self.epoch, self.sequence) = (self.epoch + 1, 0);
        appended.base_offset
    }
}

/// As a broker that stops does, with its lock of the directory.
fn close(partitions: Partitions) {
    partitions.close();
}

fn ends(partition: &Partition) -> (i64, i64) {
    (partition.last_stable_offset(), partition.high_watermark())
}

#[tokio::test]
async fn readers_of_committed_records_see_up_to_the_first_open_transaction_and_hear_of_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (partitions, partition) = opened(dir.path(), LogConfig::default());
    let (mut one, mut other) = (Sender::new(1), Sender::new(2));
    one.send(&partition).await;
    other.send(&partition).await;
    one.send(&partition).await;
    assert_eq!(ends(&partition), (0, 3));
    let waiter = Arc::new(FetchWaiter::default());
    let _subscription = partition.subscribe(&waiter, 4, false);
    one.end(&partition, Outcome::Commit).await;
    assert_eq!(ends(&partition), (1, 4));
    let moved = tokio::time::timeout(SOON, waiter.moved()).await.unwrap();
    assert!(moved.contains(&4));
    other.end(&partition, Outcome::Abort).await;
    assert_eq!(ends(&partition), (5, 5));
    close(partitions);
    // And so it is after a restart, with one open.
    let (partitions, partition) = opened(dir.path(), LogConfig::default());
    assert_eq!(ends(&partition), (5, 5));
    one.send(&partition).await;
    close(partitions);
    let (partitions, partition) = opened(dir.path(), LogConfig::default());
    assert_eq!(ends(&partition), (5, 6));
    // What DeleteRecords takes is not waited for.
    partitions.delete_records(&partition, -1).await.unwrap();
    assert_eq!(ends(&partition), (6, 6));
    partitions.close();
}

#[tokio::test]
async fn where_only_what_is_synced_is_shown_a_transaction_is_decided_once_its_marker_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig {
        flush_messages: 1,
        ..LogConfig::default()
    };
    let (partitions, partition) = opened(dir.path(), config);
    let mut one = Sender::new(1);
    one.send(&partition).await;
    assert_eq!(ends(&partition), (0, 1));
    let marker = one.end(&partition, Outcome::Commit).await;
    assert!(partition.durable_offset() > marker);
    assert_eq!(ends(&partition), (2, 2));
    partitions.close();
}

#[tokio::test]
async fn a_transaction_that_nobody_verified_leaves_nothing_hanging() {
    let dir = tempfile::tempdir().unwrap();
    let (partitions, partition) = opened(dir.path(), LogConfig::default());
    let mut one = Sender::new(1);
    let refused = one.append(&partition, Verification::NotNeeded).await;
    let expected = ProducerError::NotInTransaction;
    assert!(matches!(refused, Err(LogError::Producer(error)) if error == expected));
    // One that comes after the abort of what it belonged to.
    one.send(&partition).await;
    let late = one.verified(&partition);
    assert_eq!(late, Verification::NotNeeded);
    let answer = partition.append_marker(&one.marker(Outcome::Abort));
    answer.await.unwrap().unwrap();
    let refused = one.append(&partition, late).await;
    assert!(matches!(refused, Err(LogError::Producer(_))));
    assert_eq!(ends(&partition), (2, 2));
    partitions.close();
}

#[tokio::test]
async fn a_marker_needs_as_many_replicas_in_sync_as_acks_all() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig {
        min_insync_replicas: 2,
        ..LogConfig::default()
    };
    let (partitions, partition) = opened(dir.path(), config);
    // The topic has one replica, and needs no more than it has.
    let answer = partition.append_marker(&Sender::new(1).marker(Outcome::Commit));
    assert_eq!(answer.await.unwrap().unwrap().base_offset, 0);
    partitions.close();
    let answer = partition.append_marker(&Sender::new(1).marker(Outcome::Commit));
    assert!(matches!(
        answer.await,
        Ok(Err(LogError::Offline(_))) | Err(_)
    ));
}

#[tokio::test]
async fn a_partition_takes_its_transactions_along_to_another_data_directory() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (partitions, partition) = opened_in(&[one.path(), two.path()], LogConfig::default());
    let partitions = Arc::new(partitions);
    let home = partition.log().dir();
    let (mut decided, mut open) = (Sender::new(1), Sender::new(2));
    decided.send(&partition).await;
    decided.end(&partition, Outcome::Abort).await;
    open.send(&partition).await;
    let expected = partition.log().aborted_between(0, 10, Reach::Disk).unwrap();
    assert_eq!((ends(&partition), expected.len()), ((2, 3), 1));
    let other = [&one, &two].map(|dir| dir.path());
    let other = other
        .into_iter()
        .find(|dir| !home.starts_with(dir))
        .unwrap();
    partitions.move_to(&partition, other).unwrap();
    let deadline = std::time::Instant::now() + SOON;
    let moved = loop {
        let now = partitions.get("t", 0);
        if let Ok(now) = now
            && now.log().dir().starts_with(other)
        {
            break now;
        }
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(ends(&moved), (2, 3));
    let found = moved.log().aborted_between(0, 10, Reach::Disk).unwrap();
    assert_eq!(found, expected);
    open.end(&moved, Outcome::Commit).await;
    assert_eq!(ends(&moved), (4, 4));
    partitions.close();
}
