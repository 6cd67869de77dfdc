//! Transactions in one partition's log: what holds readers back, and that it outlives whatever ends the process.

use std::path::Path;
use std::sync::Arc;

use metaq_protocol::batch::{BatchBuilder, BatchHeader};

use super::*;

const NOW: i64 = 1_700_000_000_000;

/// Segments of a few batches each.
fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}

fn open(dir: &Path, mode: OpenMode) -> Log {
    let left = LeftAs::new(mode);
    let opened = Log::open(Arc::new(RealDisk), dir, config(), left, NOW);
    opened.unwrap().log
}

const KILLED: OpenMode = OpenMode::AfterKill { recovery_point: 0 };
const CRASHED: OpenMode = OpenMode::AfterCrash { recovery_point: 0 };

/// A producer of transactions.
#[derive(Clone, Copy)]
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

    fn batch(&self, is_transactional: bool) -> Vec<ProducedBatch> {
        let mut builder = BatchBuilder::new().producer(self.id, self.epoch, self.sequence);
        if is_transactional {
            builder = builder.transactional();
        }
        let bytes = builder
            .push(None, Some(&[7; 60]), &[], NOW)
            .finish()
            .unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        vec![ProducedBatch { header, bytes }]
    }

    /// Appends a record of a transaction; its offset.
    fn send(&mut self, log: &Log) -> i64 {
        let to_verify = ToVerify {
            producer_id: self.id,
            producer_epoch: self.epoch,
            base_sequence: self.sequence,
            is_v2: true,
        };
        let verification = log.begin_verification(&to_verify, NOW).unwrap();
        let offset = append(log, AppendRequest::verified(self.batch(true), verification));
        self.sequence += 1;
        offset.unwrap()
    }

    /// Ends its transaction by the rules of version 2; the marker's offset.
    fn end(&mut self, log: &Log, outcome: Outcome) -> i64 {
        self.epoch += 1;
        self.sequence = 0;
        let marker = TransactionMarker {
            producer_id: self.id,
            producer_epoch: self.epoch,
            coordinator_epoch: 3,
            outcome,
            version: TransactionVersion::V2,
        };
        append(log, AppendRequest::of_marker(&marker, NOW).unwrap()).unwrap()
    }
}

fn append(log: &Log, request: AppendRequest) -> Result<i64, LogError> {
    let mut answers = log.append_with(&[request], 0, NOW, |_| {});
    answers.remove(0).map(|appended| appended.base_offset)
}

/// The first offset that is not stable, where all that is written will stay.
fn first_unstable(log: &Log) -> Option<i64> {
    let end = log.ends().log_end.offset;
    log.first_unstable(end).map(|at| at.offset)
}

#[test]
fn an_open_transaction_outlives_snapshots_restarts_kills_and_truncation() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), OpenMode::Clean);
    let (mut one, mut other) = (Sender::new(1), Sender::new(2));
    append(&log, AppendRequest::of_client(Sender::new(9).batch(false))).unwrap();
    assert_eq!(first_unstable(&log), None);
    assert_eq!(one.send(&log), 1);
    let position = log.first_unstable(10);
    // Through several segments.
    for _ in 0..30 {
        other.send(&log);
        other.end(&log, Outcome::Commit);
    }
    assert!(log.segments().len() > 3);
    assert_eq!(log.first_unstable(100), position);
    // A kill finds the newest snapshot and what came after it; then there is one of a clean close.
    drop(log);
    for mode in [KILLED, CRASHED] {
        let log = open(dir.path(), mode);
        assert_eq!(log.first_unstable(100), position, "{mode:?}");
        log.close(NOW).unwrap();
        let log = open(dir.path(), OpenMode::Clean);
        assert_eq!(log.first_unstable(100), position, "after {mode:?}");
        drop(log);
    }
    let log = open(dir.path(), OpenMode::Clean);
    assert!(log.truncate_to(31, NOW).unwrap());
    assert_eq!(log.first_unstable(100), position);
    let refused = append(&log, AppendRequest::of_client(one.batch(false)));
    let outside = ProducerError::OutsideTransaction;
    assert!(matches!(refused, Err(LogError::Producer(error)) if error == outside));
    one.end(&log, Outcome::Commit);
    // The other's marker was cut off.
    assert_eq!(first_unstable(&log), Some(30));
    other.end(&log, Outcome::Commit);
    assert_eq!(first_unstable(&log), None);
}

#[test]
fn a_marker_that_is_cut_off_leaves_its_transaction_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), OpenMode::Clean);
    let mut one = Sender::new(1);
    assert_eq!(one.send(&log), 0);
    let marker = one.end(&log, Outcome::Commit);
    assert_eq!(first_unstable(&log), None);
    assert!(log.truncate_to(marker, NOW).unwrap());
    assert_eq!(first_unstable(&log), Some(0));
}

#[test]
fn a_transaction_whose_records_were_deleted_holds_readers_back_from_the_logs_start() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), OpenMode::Clean);
    let mut one = Sender::new(1);
    for _ in 0..20 {
        one.send(&log);
    }
    unlink_all(&log.advance_log_start(12, NOW).unwrap());
    assert_eq!(first_unstable(&log), Some(12));
    one.end(&log, Outcome::Abort);
    assert_eq!(first_unstable(&log), None);
}

#[test]
fn no_other_control_batch_than_a_marker_is_appended_for_a_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), OpenMode::Clean);
    let request = AppendRequest {
        origin: Origin::Coordinator(TransactionVersion::V2),
        batches: Sender::new(1).batch(true),
    };
    assert!(append(&log, request).is_err());
    assert_eq!(log.ends().log_end.offset, 0);
}

#[test]
fn a_follower_knows_of_its_leaders_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), OpenMode::Clean);
    let mut one = Sender::new(1);
    one.send(&log);
    one.send(&log);
    one.end(&log, Outcome::Abort);
    one.send(&log);
    let slice = log
        .read(0, 1 << 20, true, log.ends().log_end)
        .unwrap()
        .unwrap();
    let mut fetched = vec![0; slice.bytes];
    slice.file.read_at(&mut fetched, slice.position).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let follower = open(dir.path(), OpenMode::Clean);
    follower
        .append_as_follower(&fetched.into(), 0, NOW)
        .unwrap();
    assert_eq!(first_unstable(&follower), Some(3));
    // Until its high watermark says that the marker stays.
    assert_eq!(follower.first_unstable(2).map(|at| at.offset), Some(3));
    let known = |log: &Log| {
        log.with_producers(|all| {
            all.iter()
                .map(|(_, known)| known.clone())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(known(&follower), known(&log));
}
