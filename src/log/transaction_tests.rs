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

/// What the index of each segment says, by the segments' base offsets.
fn indexes(log: &Log) -> Vec<(i64, Vec<AbortedTransaction>)> {
    let segments = log.segments();
    let all = segments.iter().map(|segment| {
        let all = segment.aborted.all().unwrap();
        (segment.base_offset(), all.expect("it is sound"))
    });
    all.collect()
}

fn aborted(
    producer_id: i64,
    first_offset: i64,
    last_offset: i64,
    stable: i64,
) -> AbortedTransaction {
    AbortedTransaction {
        producer_id,
        first_offset,
        last_offset,
        last_stable_offset: stable,
    }
}

/// Transactions of three producers in several segments, every second one of them aborted; one of the first one's is open all
/// the time.
fn filled(dir: &Path) -> Log {
    let log = open(dir, OpenMode::Clean);
    let mut producers = [1, 2, 3].map(Sender::new);
    producers[0].send(&log);
    for n in 0..12 {
        for producer in &mut producers[1..] {
            producer.send(&log);
        }
        for (at, producer) in producers[1..].iter_mut().enumerate() {
            let outcome = match (n + at) % 2 {
                0 => Outcome::Abort,
                _ => Outcome::Commit,
            };
            producer.end(&log, outcome);
        }
    }
    assert!(log.segments().len() > 3);
    log
}

#[test]
fn an_aborted_transaction_is_in_the_index_of_the_segment_that_its_marker_is_in() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), OpenMode::Clean);
    let (mut one, mut other) = (Sender::new(1), Sender::new(2));
    one.send(&log);
    other.send(&log);
    // The other one's is still open, then none is.
    assert_eq!(one.end(&log, Outcome::Abort), 2);
    assert_eq!(other.end(&log, Outcome::Abort), 3);
    let expected = vec![aborted(1, 0, 2, 1), aborted(2, 1, 3, 4)];
    assert_eq!(indexes(&log), [(0, expected.clone())]);
    one.send(&log);
    while log.segments().len() < 3 {
        other.send(&log);
    }
    let marker = one.end(&log, Outcome::Abort);
    let second = log.segments()[2].base_offset();
    let later = aborted(1, 4, marker, 5);
    let all = indexes(&log);
    assert_eq!((&all[0].1, &all[2]), (&expected, &(second, vec![later])));
    // A commit leaves no trace.
    other.end(&log, Outcome::Commit);
    assert_eq!(indexes(&log), all);
    // It overlaps all that lies between its first record and its marker.
    let found = |from, to| log.aborted_between(from, to, Reach::Disk).unwrap();
    assert_eq!(found(4, 5), [later]);
    assert_eq!(found(second, second + 1), [later]);
    assert_eq!(found(marker + 1, marker + 2), []);
    assert_eq!(found(2, 4), [expected[0], expected[1]]);
    assert_eq!(found(3, 4), [expected[1]]);
    assert_eq!(found(0, 100), [expected[0], expected[1], later]);
}

#[test]
fn the_indexes_are_made_anew_from_the_records_whatever_a_crash_left_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    let expected = indexes(&log);
    assert!(expected.iter().filter(|(_, all)| !all.is_empty()).count() > 2);
    let paths: Vec<_> = log
        .segments()
        .iter()
        .map(|one| one.aborted.path())
        .collect();
    drop(log);
    let content = |path: &Path| std::fs::read(path).unwrap_or_default();
    let before: Vec<_> = paths.iter().map(|path| content(path)).collect();
    for left in 0..4 {
        for path in paths.iter().filter(|path| path.exists()) {
            let bytes = content(path);
            match left {
                0 => std::fs::remove_file(path).unwrap(),
                1 => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
                2 => std::fs::write(path, [&bytes[..], b"more"].concat()).unwrap(),
                _ => std::fs::write(path, vec![0; bytes.len()]).unwrap(),
            }
        }
        let log = open(dir.path(), CRASHED);
        assert_eq!(indexes(&log), expected, "{left}");
        assert_eq!(first_unstable(&log), Some(0), "{left}");
        drop(log);
        let after: Vec<_> = paths.iter().map(|path| content(path)).collect();
        assert_eq!(after, before, "{left}");
    }
}

#[test]
fn a_kill_between_an_abort_and_its_entry_leaves_no_aborted_record_readable() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    let expected = indexes(&log);
    let active = log.segments().last().unwrap().aborted.path();
    drop(log);
    let bytes = std::fs::read(&active).unwrap();
    for cut in [bytes.len() - 34, bytes.len() - 10] {
        std::fs::write(&active, &bytes[..cut]).unwrap();
        assert_eq!(indexes(&open(dir.path(), KILLED)), expected);
    }
    // Also where the segment was closed in between, so that there is a snapshot in the middle of it.
    open(dir.path(), KILLED).close(NOW).unwrap();
    let log = open(dir.path(), OpenMode::Clean);
    let mut late = Sender::new(8);
    late.send(&log);
    late.end(&log, Outcome::Abort);
    let expected = indexes(&log);
    let active = log.segments().last().unwrap().aborted.path();
    drop(log);
    let bytes = std::fs::read(&active).unwrap();
    std::fs::write(&active, &bytes[..bytes.len() - 34]).unwrap();
    assert_eq!(indexes(&open(dir.path(), KILLED)), expected);
}

#[test]
fn an_index_that_is_damaged_is_made_anew_also_after_a_clean_close() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    let expected = indexes(&log);
    let second = log.segments()[1].aborted.path();
    log.close(NOW).unwrap();
    drop(log);
    std::fs::write(&second, b"x").unwrap();
    let log = open(dir.path(), OpenMode::Clean);
    assert_eq!(indexes(&log), expected);
    assert_eq!(first_unstable(&log), Some(0));
}

#[test]
fn indexes_are_cut_off_with_the_log_and_dropped_with_their_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    let before = indexes(&log);
    let all: Vec<_> = before.iter().flat_map(|(_, all)| all.clone()).collect();
    let cut = all[all.len() / 2].last_offset;
    let stays = |entry: &&AbortedTransaction| entry.last_offset < cut;
    let expected: Vec<_> = all.iter().filter(stays).copied().collect();
    assert!(log.truncate_to(cut, NOW).unwrap());
    let left: Vec<_> = indexes(&log).into_iter().flat_map(|(_, all)| all).collect();
    assert_eq!(left, expected);
    // What was open at the cut is open again, and so is the one that its marker ended.
    assert_eq!(first_unstable(&log), Some(0));
    let start = log.segments()[2].base_offset();
    unlink_all(&log.advance_log_start(start, NOW).unwrap());
    let names = std::fs::read_dir(dir.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let indexes = names.filter(|name| name.contains("txnindex"));
    assert!({ indexes }.all(|name| name.as_str() >= format!("{start:020}").as_str()));
    log.start_anew_at(500, NOW).unwrap();
    assert_eq!(log.aborted_between(0, 1000, Reach::Disk).unwrap(), []);
    assert_eq!(first_unstable(&log), None);
}

#[test]
fn verification_finds_an_index_that_does_not_say_what_the_records_say_and_repair_has_it_made_anew()
{
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().join("t-0");
    let log = filled(&dir);
    let expected = indexes(&log);
    let paths: Vec<_> = log
        .segments()
        .iter()
        .map(|one| one.aborted.path())
        .collect();
    log.close(NOW).unwrap();
    drop(log);
    let findings = || verify_dir(data.path()).unwrap().findings;
    assert_eq!(findings(), []);
    let bytes = std::fs::read(&paths[1]).unwrap();
    let mut other = bytes.clone();
    // Of another producer.
    other[9] ^= 1;
    for wrong in [&bytes[34..], &other, b"torn"] {
        std::fs::write(&paths[1], wrong).unwrap();
        let found = findings();
        assert!(
            !found.is_empty() && found.iter().all(|one| one.file == paths[1]),
            "{found:?}"
        );
    }
    std::fs::remove_file(&paths[1]).unwrap();
    assert!(!findings().is_empty());
    let repairs = plan_repairs(data.path(), |_, _| {}).unwrap();
    assert_eq!((repairs.len(), &repairs[0].cut), (1, &None));
    repairs[0].execute(NOW).unwrap();
    let end = expected.last().unwrap().1.last().unwrap().last_offset + 1;
    let log = open(
        &dir,
        OpenMode::AfterCrash {
            recovery_point: end,
        },
    );
    assert_eq!(indexes(&log), expected);
    assert_eq!(findings(), []);
}

#[test]
fn a_reader_of_committed_records_at_the_exact_boundary_of_a_segment_is_told_what_was_aborted_on_both_sides()
 {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), OpenMode::Clean);
    let mut one = Sender::new(1);
    let mut last = one.send(&log);
    while log.segments().len() < 2 {
        last = one.send(&log);
    }
    // The second segment begins with a record of the transaction, and the third with its marker.
    let second = log.segments()[1].base_offset();
    assert_eq!(last, second);
    last = one.send(&log);
    log.reconfigure(LogConfig {
        segment_bytes: log.segments()[1].bytes(),
        ..config()
    });
    let marker = one.end(&log, Outcome::Abort);
    assert_eq!(
        (log.segments().len(), log.segments()[2].base_offset()),
        (3, marker)
    );
    assert_eq!(marker, last + 1);
    let limit = log.ends().log_end;
    let told = |offset| {
        let wanted = ReadWanted {
            offset,
            bytes_max: 1 << 20,
            first_batch_whole: true,
        };
        let read = log.read_committed_within(&wanted, limit, Reach::Disk);
        let read = read.unwrap().unwrap();
        assert!(read.slice.bytes > 0);
        read.aborted
    };
    let expected = [aborted(1, 0, marker, marker + 1)];
    for offset in [0, second - 1, second, second + 1, marker - 1, marker] {
        assert_eq!(told(offset), expected, "at {offset}");
    }
    one.send(&log);
    one.end(&log, Outcome::Commit);
    let limit = log.ends().log_end;
    let wanted = ReadWanted {
        offset: marker + 1,
        bytes_max: 1 << 20,
        first_batch_whole: true,
    };
    let read = log.read_committed_within(&wanted, limit, Reach::Disk);
    assert_eq!(read.unwrap().unwrap().aborted, []);
}
