//! One partition's log from outside: append, roll, read, recover, retain, and a disk that fails.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use metaq_protocol::batch::{BatchBuilder, BatchHeader};

use super::*;

mod ages;
mod faults;

const NOW: i64 = 1_700_000_000_000;

/// Segments of a few batches each.
fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}

fn open(dir: &Path, config: LogConfig, mode: OpenMode) -> OpenedLog {
    Log::open(Arc::new(RealDisk), dir, config, LeftAs::new(mode), NOW).unwrap()
}

fn batch(records: usize, timestamp: i64) -> Vec<ProducedBatch> {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder = builder.push(Some(b"key"), Some(&[7; 50]), &[], timestamp);
    }
    let bytes = builder.finish().unwrap();
    vec![ProducedBatch {
        header: BatchHeader::parse(&bytes).unwrap(),
        bytes,
    }]
}

fn append(log: &Log, records: usize, timestamp: i64) -> i64 {
    log.append(&[batch(records, timestamp)], 0, timestamp)
        .remove(0)
        .unwrap()
        .base_offset
}

fn first_offset_of(slice: &Slice) -> i64 {
    let mut bytes = vec![0; 61];
    slice.file.read_at(&mut bytes, slice.position).unwrap();
    BatchHeader::parse(&bytes).unwrap().base_offset
}

fn read(log: &Log, offset: i64) -> Option<Slice> {
    log.read(offset, 1 << 20, true, log.ends().log_end).unwrap()
}

#[test]
fn what_lies_after_an_offset_is_counted_in_whole_batches() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    let one = batch(2, NOW).remove(0).bytes.len() as u64;
    for _ in 0..20 {
        append(&log, 2, NOW);
    }
    assert!(log.segments().len() > 2);
    for n in 0..=20 {
        assert_eq!(log.bytes_from(2 * n as i64).unwrap(), (20 - n) * one);
    }
    assert_eq!(log.bytes_from(5).unwrap(), 18 * one);
}

#[test]
fn a_follower_takes_a_batch_that_is_larger_than_its_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    let large = batch(100, NOW).remove(0).bytes;
    assert!(large.len() > 1000);
    log.append_as_follower(&large, 0, NOW).unwrap();
    append(&log, 1, NOW);
    assert_eq!(log.ends().log_end.offset, 101);
    assert_eq!(first_offset_of(&read(&log, 50).unwrap()), 0);
    assert_eq!(first_offset_of(&read(&log, 100).unwrap()), 100);
}

#[test]
fn what_a_crash_left_unsynced_is_synced_before_a_log_that_syncs_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let crash = OpenMode::AfterCrash { recovery_point: 0 };
    for (flush_messages, synced) in [(1, 3), (i64::MAX, 0)] {
        let config = LogConfig {
            flush_messages,
            ..config()
        };
        let partition = dir.path().join(flush_messages.to_string());
        let log = open(&partition, config.clone(), OpenMode::Clean).log;
        append(&log, 3, NOW);
        drop(log);
        let ends = open(&partition, config, crash).log.ends();
        assert_eq!((ends.log_end.offset, ends.synced_end), (3, synced));
    }
}

#[test]
fn a_log_is_named_durably_when_it_has_a_part_of_a_segment_and_before_it_rolls() {
    let dir = tempfile::tempdir().unwrap();
    let large = LogConfig {
        segment_bytes: 1 << 20,
        ..config()
    };
    let log = open(&dir.path().join("large"), large, OpenMode::Clean).log;
    append(&log, 3, NOW);
    log.name_ahead().unwrap();
    assert!(!log.is_named());
    append(&log, 1100, NOW);
    log.name_ahead().unwrap();
    assert!(log.is_named());
    // One that rolls before anybody looked.
    let log = open(&dir.path().join("small"), config(), OpenMode::Clean).log;
    for _ in 0..20 {
        append(&log, 3, NOW);
    }
    let segments = log.segments();
    assert!(segments.len() > 1 && segments[0].is_named());
    assert!(!log.is_named());
}

#[test]
fn a_log_rolls_and_every_offset_is_found_in_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    for n in 0..100 {
        assert_eq!(append(&log, 3, NOW + n), n * 3);
    }
    assert!(log.segments().len() > 10);
    for offset in 0..300 {
        assert_eq!(
            first_offset_of(&read(&log, offset).unwrap()),
            offset / 3 * 3
        );
    }
    assert!(read(&log, 300).is_none());
    assert!(matches!(
        log.read(301, 1, true, log.ends().log_end),
        Err(LogError::OffsetOutOfRange { .. })
    ));
}

#[test]
fn the_first_batch_is_whole_even_when_it_is_larger_than_the_limit_or_not_read_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    append(&log, 5, NOW);
    let whole = batch(5, NOW)[0].bytes.len();
    let limit = log.ends().log_end;
    assert_eq!(log.read(0, 10, true, limit).unwrap().unwrap().bytes, whole);
    // Or none of it, where another partition has given something.
    assert!(log.read(0, whole - 1, false, limit).unwrap().is_none());
    let read = log.read(0, whole, false, limit).unwrap().unwrap();
    assert_eq!(read.bytes, whole);
}

#[test]
fn nothing_at_or_after_the_limit_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), LogConfig::default(), OpenMode::Clean).log;
    append(&log, 2, NOW);
    let limit = log.ends().log_end;
    append(&log, 2, NOW);
    let slice = log.read(0, 1 << 20, true, limit).unwrap().unwrap();
    assert_eq!(slice.position + slice.bytes as u64, limit.position);
    assert!(log.read(2, 1 << 20, true, limit).unwrap().is_none());
}

#[test]
fn a_log_is_the_same_after_a_clean_close_and_after_a_crash() {
    for crash in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), config(), OpenMode::Clean).log;
        for n in 0..50 {
            append(&log, 3, NOW + n);
        }
        if !crash {
            log.close(NOW).unwrap();
        }
        drop(log);
        let mode = if crash {
            OpenMode::AfterCrash { recovery_point: 0 }
        } else {
            OpenMode::Clean
        };
        let opened = open(dir.path(), config(), mode);
        assert_eq!(opened.log.ends().log_end.offset, 150);
        assert_eq!((opened.cut_bytes, opened.scanned_bytes > 0), (0, crash));
        for offset in (0..150).step_by(7) {
            assert_eq!(
                first_offset_of(&read(&opened.log, offset).unwrap()),
                offset / 3 * 3
            );
        }
        assert_eq!(
            opened
                .log
                .find_timestamp(NOW + 20, i64::MAX)
                .unwrap()
                .unwrap()
                .offset,
            60
        );
        assert_eq!(append(&opened.log, 1, NOW), 150);
        let seen = verify_dir(dir.path()).unwrap();
        assert_eq!((seen.records, seen.findings), (151, vec![]));
    }
}

#[test]
fn a_damaged_batch_ends_the_log_and_what_lies_after_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    for n in 0..30 {
        append(&log, 3, NOW + n);
    }
    let segments = log.segments();
    let damaged = &segments[2];
    let (path, base) = (damaged.path(), damaged.base_offset());
    drop((log, segments));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let opened = open(
        dir.path(),
        config(),
        OpenMode::AfterCrash { recovery_point: 0 },
    );
    assert_eq!(opened.log.ends().log_end.offset, base);
    assert!(opened.cut_bytes > 0);
    assert_eq!(append(&opened.log, 1, NOW), base);
    assert_eq!(verify_dir(dir.path()).unwrap().findings, []);
}

/// A closed log of 30 batches of 3 records in segments of 4 batches.
fn closed(dir: &Path) {
    let log = open(dir, config(), OpenMode::Clean).log;
    for n in 0..30 {
        append(&log, 3, NOW + n);
    }
    assert_eq!(log.segments()[1].base_offset(), 12);
    log.close(NOW).unwrap();
}

fn try_open(dir: &Path, config: LogConfig, left: LeftAs) -> Result<OpenedLog, LogError> {
    Log::open(Arc::new(RealDisk), dir, config, left, NOW)
}

#[test]
fn a_read_over_a_damaged_batch_says_so_and_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path());
    let path = dir.path().join("00000000000000000012.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let second = BatchHeader::parse(&bytes).unwrap().total_bytes();
    bytes[second + 16] = 7;
    std::fs::write(&path, bytes).unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    for offset in 0..90 {
        let found = log.read(offset, 1, true, log.ends().log_end);
        // Also the next batch is only found by walking over it, but for its last record, which the index has.
        if (15..20).contains(&offset) {
            assert!(matches!(found, Err(LogError::Damaged { .. })), "{offset}");
        } else {
            assert_eq!(first_offset_of(&found.unwrap().unwrap()), offset / 3 * 3);
        }
    }
}

#[test]
fn a_lost_segment_keeps_the_log_closed_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path());
    for extension in ["log", "index", "timeindex", "snapshot"] {
        std::fs::remove_file(dir.path().join(format!("00000000000000000012.{extension}"))).unwrap();
    }
    let is_hole = |left| {
        let opened = try_open(dir.path(), config(), left);
        matches!(
            opened,
            Err(LogError::Hole {
                from: 12,
                to: 24,
                ..
            })
        )
    };
    let clean = LeftAs::new(OpenMode::Clean);
    assert!(is_hole(clean));
    assert!(is_hole(LeftAs::new(OpenMode::AfterCrash {
        recovery_point: 90
    })));
    let findings = verify_dir(dir.path()).unwrap().findings;
    assert!(
        findings.len() == 1 && findings[0].what.contains("records 12..24 are missing"),
        "{findings:?}"
    );
    // Compaction leaves such gaps.
    let compacted = LogConfig {
        compact: true,
        ..config()
    };
    let cleaned = LeftAs {
        cleaned_until: 13,
        ..clean
    };
    for opened in [
        try_open(dir.path(), compacted, clean),
        try_open(dir.path(), config(), cleaned),
    ] {
        let log = opened.unwrap().log;
        assert_eq!(first_offset_of(&read(&log, 12).unwrap()), 24);
    }
}

#[test]
fn what_a_crash_left_after_a_lost_end_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path());
    let path = dir.path().join("00000000000000000024.log");
    let bytes = std::fs::read(&path).unwrap();
    let first = BatchHeader::parse(&bytes).unwrap().total_bytes();
    std::fs::write(&path, &bytes[..first]).unwrap();
    let opened = open(
        dir.path(),
        config(),
        OpenMode::AfterCrash { recovery_point: 24 },
    );
    assert_eq!(opened.log.ends().log_end.offset, 27);
    assert!(opened.cut_bytes > 0);
    assert_eq!(append(&opened.log, 1, NOW), 27);
    drop(opened);
    assert_eq!(verify_dir(dir.path()).unwrap().findings, []);
}

#[test]
fn indexes_that_are_missing_empty_or_not_of_the_segment_are_rebuilt() {
    type Spoil = fn(&Path);
    let ways: [Spoil; 4] = [
        |index| std::fs::remove_file(index).unwrap(),
        |index| std::fs::write(index, []).unwrap(),
        |index| std::fs::write(index, [0; 4096]).unwrap(),
        |index| std::fs::write(index, [0x7f; 24]).unwrap(),
    ];
    for spoil in ways {
        let dir = tempfile::tempdir().unwrap();
        closed(dir.path());
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|of| of == "index" || of == "timeindex")
            {
                spoil(&path);
            }
        }
        let log = open(dir.path(), config(), OpenMode::Clean).log;
        for n in 0..30 {
            let found = log.find_timestamp(NOW + n, i64::MAX).unwrap().unwrap();
            assert_eq!(found.offset, n * 3);
        }
        log.close(NOW).unwrap();
        drop(log);
        assert_eq!(verify_dir(dir.path()).unwrap().findings, []);
    }
}

/// As followers of Kafka before 4.0 wrote it: at the position of the first batch of a fetch the last offset of all.
#[test]
fn an_entry_may_stand_for_several_batches_and_ends_with_one_of_them() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path());
    let index = dir.path().join("00000000000000000012.index");
    let with_last = |offset: i32| {
        let entry = [(offset - 12).to_be_bytes(), 0i32.to_be_bytes()].concat();
        std::fs::write(&index, entry).unwrap();
        verify_dir(dir.path()).unwrap().findings.len()
    };
    // Batches end with 14, 17, 20 and 23.
    assert_eq!([14, 17, 23].map(with_last), [0; 3]);
    assert_eq!([13, 16, 24].map(with_last), [1; 3]);
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    log.close(NOW).unwrap();
    drop(log);
    assert_eq!(verify_dir(dir.path()).unwrap().findings, [], "rebuilt");
}

#[test]
fn a_missing_index_is_a_finding() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path());
    std::fs::remove_file(dir.path().join("00000000000000000012.index")).unwrap();
    std::fs::write(dir.path().join("00000000000000000024.timeindex"), []).unwrap();
    let findings = verify_dir(dir.path()).unwrap().findings;
    let named: Vec<_> = findings
        .iter()
        .map(|finding| finding.file.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        named,
        [
            "00000000000000000012.index",
            "00000000000000000024.timeindex"
        ]
    );
}

#[test]
fn the_indexes_of_sealed_segments_are_synced_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    for n in 0..4 {
        append(&log, 3, NOW + n);
    }
    // All of the segment is synced before it is sealed.
    log.sync(NOW).unwrap();
    append(&log, 3, NOW + 4);
    let segments = log.segments();
    assert_eq!(segments.len(), 2);
    assert!(!segments[0].indexes_are_synced());
    log.sync(NOW).unwrap();
    assert!(segments[0].indexes_are_synced() && !segments[1].indexes_are_synced());
}

#[test]
fn segments_before_the_recovery_point_are_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    for n in 0..50 {
        append(&log, 3, NOW + n);
    }
    let synced = log.sync(NOW).unwrap().offset;
    let bytes = log.bytes();
    drop(log);
    let opened = open(
        dir.path(),
        config(),
        OpenMode::AfterCrash {
            recovery_point: synced,
        },
    );
    assert!(
        opened.scanned_bytes < bytes / 4,
        "{} of {bytes}",
        opened.scanned_bytes
    );
}

#[test]
fn messages_of_old_formats_are_refused_and_not_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("00000000000000000000.log");
    // Offset 0, 23 bytes: CRC, magic 1, no key, value "a".
    let mut message = vec![
        1, 0, 0, 0, 0, 0, 0, 0, 0, 5, 255, 255, 255, 255, 0, 0, 0, 1, b'a',
    ];
    let crc = [0xd1, 0x9b, 0x9, 0xad];
    message.splice(..0, crc);
    let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23];
    bytes.extend_from_slice(&message);
    bytes.extend_from_slice(&bytes.clone());
    std::fs::write(&path, &bytes).unwrap();
    for mode in [OpenMode::Clean, OpenMode::AfterCrash { recovery_point: 0 }] {
        let opened = try_open(dir.path(), config(), LeftAs::new(mode));
        assert!(matches!(opened, Err(LogError::Damaged { .. })));
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn an_adopted_transaction_index_goes_with_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path());
    let index = dir.path().join("00000000000000000000.txnindex");
    std::fs::write(&index, b"x").unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    let dropped = log.advance_log_start(12, NOW).unwrap();
    assert!(!index.exists());
    unlink_all(&dropped);
    let left = std::fs::read_dir(dir.path()).unwrap();
    assert!(left.map(|entry| entry.unwrap().file_name()).all(|name| {
        let name = name.to_str().unwrap();
        !name.contains("txnindex") && !name.ends_with(".deleted")
    }));
}
