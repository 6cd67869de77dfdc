//! What is old: retention, where a log begins, and what is found by time.

use super::*;

#[test]
fn a_segment_of_records_without_timestamps_is_rolled_by_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig {
        segment_ms: 1000,
        ..LogConfig::default()
    };
    let log = open(dir.path(), config, OpenMode::Clean).log;
    for n in 0..10 {
        let appended = log.append(&[batch(1, -1)], 0, NOW + n * 300);
        assert!(appended[0].is_ok());
    }
    let bases: Vec<i64> = log.segments().iter().map(|s| s.base_offset()).collect();
    assert_eq!(bases, [0, 4, 8]);
}

#[test]
fn records_without_timestamps_are_not_taken_for_old_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    for _ in 0..10 {
        append(&log, 3, -1);
    }
    drop(log);
    let crash = OpenMode::AfterCrash { recovery_point: 0 };
    let log = open(dir.path(), config(), crash).log;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    assert!(log.retain(now, 30).unwrap().is_empty());
}

#[test]
fn retention_by_time_drops_whole_segments_and_rolls_an_old_active_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(
        dir.path(),
        LogConfig {
            retention_ms: 1000,
            ..config()
        },
        OpenMode::Clean,
    )
    .log;
    for n in 0..20 {
        append(&log, 3, NOW + n * 100);
    }
    let dropped = log.retain(NOW + 1500, 60).unwrap();
    assert!(dropped.is_empty(), "nothing is synced yet");
    log.sync(NOW).unwrap();
    let dropped = log.retain(NOW + 1500, 60).unwrap();
    assert!(!dropped.is_empty());
    let start = log.ends().log_start;
    assert!(start > 0 && start < 60);
    assert!(log.retain(NOW + 1500, 60).unwrap().is_empty());
    unlink_all(&dropped);
    assert!(dropped.iter().all(|segment| !segment.path().exists()));
    log.retain(NOW + 10_000, 60).unwrap();
    assert_eq!((log.ends().log_start, log.bytes()), (60, 0));
    assert_eq!(append(&log, 1, NOW), 60);
}

#[test]
fn retention_on_a_disk_where_nothing_can_be_written_removes_files_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    for n in 0..60 {
        append(&log, 3, NOW + n);
    }
    log.sync(NOW).unwrap();
    // The leader epochs cannot be stored.
    std::fs::create_dir(dir.path().join("leader-epoch-checkpoint.tmp")).unwrap();
    let before = log.segments().len();
    let dropped = log.advance_log_start(100, NOW).unwrap();
    assert!(dropped.len() > 3);
    assert_eq!(log.segments().len(), before - dropped.len());
    unlink_all(&dropped);
    assert!(dropped.iter().all(|segment| !segment.path().exists()));
    assert_eq!(log.epochs().start_of_latest(0), Some(100));
}

#[test]
fn the_largest_timestamp_of_the_active_segment_outlives_a_restart() {
    let recovery_point = 0;
    for mode in [
        OpenMode::Clean,
        OpenMode::AfterKill { recovery_point },
        OpenMode::AfterCrash { recovery_point },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let large = LogConfig {
            segment_bytes: 1 << 20,
            retention_ms: 5000,
            ..config()
        };
        let log = open(dir.path(), large.clone(), OpenMode::Clean).log;
        append(&log, 1, NOW + 2000);
        for _ in 0..10 {
            append(&log, 1, NOW);
        }
        if mode == OpenMode::Clean {
            log.close(NOW).unwrap();
        }
        drop(log);
        let log = open(dir.path(), large, mode).log;
        // What is written to it before anybody has asked.
        append(&log, 1, NOW + 1000);
        let found = log.find_timestamp(NOW + 1500, i64::MAX).unwrap().unwrap();
        assert_eq!(found.offset, 0, "{mode:?}");
        let largest = log.find_max_timestamp(i64::MAX).unwrap().unwrap();
        assert_eq!(largest.offset, 0, "{mode:?}");
        log.sync(NOW).unwrap();
        assert!(log.retain(NOW + 6500, 12).unwrap().is_empty(), "{mode:?}");
    }
}

#[test]
fn retention_never_goes_beyond_the_high_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(
        dir.path(),
        LogConfig {
            retention_ms: 0,
            ..config()
        },
        OpenMode::Clean,
    )
    .log;
    for n in 0..20 {
        append(&log, 3, NOW + n);
    }
    log.sync(NOW).unwrap();
    log.retain(NOW + 10_000, 30).unwrap();
    assert!((1..=30).contains(&log.ends().log_start));
}

#[test]
fn retention_by_size_keeps_at_least_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(
        dir.path(),
        LogConfig {
            retention_bytes: 3000,
            ..config()
        },
        OpenMode::Clean,
    )
    .log;
    for n in 0..50 {
        append(&log, 3, NOW + n);
    }
    log.sync(NOW).unwrap();
    log.retain(NOW, 150).unwrap();
    assert!((3000..4000).contains(&log.bytes()), "{}", log.bytes());
}

#[test]
fn moving_the_start_drops_what_lies_wholly_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    for n in 0..50 {
        append(&log, 3, NOW + n);
    }
    let before = log.segments().len();
    log.advance_log_start(77, NOW).unwrap();
    assert_eq!(log.ends().log_start, 77);
    assert!(log.segments().len() < before);
    assert!(matches!(
        log.read(76, 1, true, log.ends().log_end),
        Err(LogError::OffsetOutOfRange { .. })
    ));
    assert_eq!(first_offset_of(&read(&log, 77).unwrap()), 75);
    assert!(matches!(
        log.advance_log_start(151, NOW),
        Err(LogError::OffsetOutOfRange { .. })
    ));
}

#[test]
fn timestamps_are_found_within_compressed_batches() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), LogConfig::default(), OpenMode::Clean).log;
    let mut builder = BatchBuilder::new().compression(metaq_protocol::batch::Compression::Lz4);
    for n in [10, 30, 20] {
        builder = builder.push(None, Some(b"v"), &[], NOW + n);
    }
    let bytes = builder.finish().unwrap();
    let produced = ProducedBatch {
        header: BatchHeader::parse(&bytes).unwrap(),
        bytes,
    };
    log.append(&[vec![produced]], 0, NOW).remove(0).unwrap();
    let find = |timestamp| {
        log.find_timestamp(timestamp, 3)
            .unwrap()
            .map(|found| (found.offset, found.timestamp))
    };
    assert_eq!(find(NOW), Some((0, NOW + 10)));
    assert_eq!(find(NOW + 15), Some((1, NOW + 30)));
    assert_eq!(find(NOW + 31), None);
    assert_eq!(log.find_max_timestamp(3).unwrap().unwrap().offset, 1);
}

#[test]
fn the_brokers_time_is_found_from_the_logs_start_within_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), LogConfig::default(), OpenMode::Clean).log;
    let mut builder = BatchBuilder::new();
    for _ in 0..3 {
        builder = builder.push(None, Some(b"v"), &[], NOW);
    }
    let mut bytes = builder.finish().unwrap().to_vec();
    bytes[22] |= 8;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let produced = ProducedBatch {
        header: BatchHeader::parse(&bytes).unwrap(),
        bytes: bytes.into(),
    };
    log.append(&[vec![produced]], 0, NOW).remove(0).unwrap();
    log.advance_log_start(1, NOW).unwrap();
    let found = log.find_timestamp(NOW, 3).unwrap().unwrap();
    assert_eq!((found.offset, found.timestamp), (1, NOW));
}

#[test]
fn offsets_that_were_deleted_are_not_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    for n in 0..10 {
        append(&log, 3, NOW + n);
    }
    drop(log);
    // The end was lost, and with it the offset up to which records were deleted.
    let left = LeftAs {
        log_start: 50,
        ..LeftAs::new(OpenMode::AfterCrash { recovery_point: 0 })
    };
    let opened = try_open(dir.path(), config(), left).unwrap();
    let ends = opened.log.ends();
    assert_eq!((ends.log_start, ends.log_end.offset), (50, 50));
    assert_eq!(append(&opened.log, 3, NOW), 50);
    assert_eq!(first_offset_of(&read(&opened.log, 50).unwrap()), 50);
    drop(opened);
    assert_eq!(verify_dir(dir.path()).unwrap().findings, []);
}
