//! A log whose process was killed while the system ran on: only its end is looked at.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

use metaq_protocol::batch::{BatchBuilder, BatchHeader};

use super::*;

const NOW: i64 = 1_700_000_000_000;
const KILLED: OpenMode = OpenMode::AfterKill { recovery_point: 0 };

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 20_000,
        index_interval_bytes: 500,
        ..LogConfig::default()
    }
}

fn open(dir: &Path, mode: OpenMode) -> OpenedLog {
    Log::open(Arc::new(RealDisk), dir, config(), LeftAs::new(mode), NOW).unwrap()
}

/// Appends batches of two records each and lets go of the log without closing it.
fn killed(dir: &Path, batches: i64) {
    let log = open(dir, OpenMode::Clean).log;
    for n in 0..batches {
        let bytes = BatchBuilder::new()
            .producer(7, 0, (n * 2) as i32)
            .push(None, Some(&[1; 50]), &[], NOW + n)
            .push(None, Some(&[2; 50]), &[], NOW + n)
            .finish()
            .unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        let answers = log.append(&[vec![ProducedBatch { header, bytes }]], 0, NOW);
        assert!(answers[0].is_ok());
    }
}

fn active(dir: &Path) -> std::path::PathBuf {
    let logs = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max()
        .unwrap()
}

#[test]
fn what_is_after_the_last_index_entry_is_read_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), 1000);
    let opened = open(dir.path(), KILLED);
    assert_eq!(opened.log.ends().log_end.offset, 2000);
    assert!(
        (1..2000).contains(&opened.scanned_bytes),
        "{}",
        opened.scanned_bytes
    );
    assert_eq!((opened.cut_bytes, opened.log.ends().synced_end), (0, 0));
    let last = opened.log.with_producers(|producers| {
        producers
            .iter()
            .map(|(id, producer)| (id, producer.last_sequence()))
            .next()
    });
    assert_eq!(last, Some((7, 1999)));
    for offset in (0..2000).step_by(13) {
        let limit = opened.log.ends().log_end;
        assert!(opened.log.read(offset, 1, true, limit).unwrap().is_some());
    }
    // Nothing of it was synced, and the next sync does it.
    assert_eq!(opened.log.sync(NOW).unwrap().offset, 2000);
}

#[test]
fn a_write_that_the_kill_cut_short_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), 100);
    let path = active(dir.path());
    let bytes = std::fs::metadata(&path).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(bytes - 10)
        .unwrap();
    let opened = open(dir.path(), KILLED);
    assert_eq!(opened.log.ends().log_end.offset, 198);
    assert!(opened.cut_bytes > 0);
}

#[test]
fn an_index_that_is_missing_or_points_nowhere_has_the_segment_read_whole() {
    for damage in [
        |index: &Path| std::fs::remove_file(index).unwrap(),
        |index: &Path| std::fs::write(index, [0x11; 64]).unwrap(),
        |index: &Path| std::fs::write(index, [0; 64]).unwrap(),
    ] {
        for extension in ["index", "timeindex"] {
            let dir = tempfile::tempdir().unwrap();
            killed(dir.path(), 100);
            let segment = std::fs::metadata(active(dir.path())).unwrap().len();
            damage(&active(dir.path()).with_extension(extension));
            let opened = open(dir.path(), KILLED);
            assert_eq!(opened.log.ends().log_end.offset, 200);
            assert_eq!(opened.scanned_bytes, segment);
            let found = opened
                .log
                .find_timestamp(NOW + 77, opened.log.ends().log_end.offset);
            assert_eq!(found.unwrap().unwrap().offset, 154);
        }
    }
}

#[test]
fn damage_before_the_end_is_left_to_who_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), 100);
    let path = active(dir.path());
    let mut content = std::fs::read(&path).unwrap();
    content[200] ^= 1;
    std::fs::write(&path, content).unwrap();
    let opened = open(dir.path(), KILLED);
    assert_eq!(
        (opened.log.ends().log_end.offset, opened.cut_bytes),
        (200, 0)
    );
}

#[test]
fn an_epoch_that_the_records_are_of_and_the_file_does_not_know_is_found() {
    let crashed = OpenMode::AfterCrash { recovery_point: 0 };
    for mode in [KILLED, crashed] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("leader-epoch-checkpoint");
        let log = open(dir.path(), OpenMode::Clean).log;
        let mut older = Vec::new();
        for epoch in [3, 5] {
            older = std::fs::read(&file).unwrap_or_default();
            log.begin_epoch(epoch).unwrap();
            for n in 0..100 {
                let builder = BatchBuilder::new().push(None, Some(&[1; 50]), &[], NOW + n);
                let bytes = builder.finish().unwrap();
                let header = BatchHeader::parse(&bytes).unwrap();
                let answers = log.append(&[vec![ProducedBatch { header, bytes }]], epoch, NOW);
                assert!(answers[0].is_ok());
            }
        }
        drop(log);
        // As the power may leave it, where it was not written durably.
        std::fs::write(&file, older).unwrap();
        let log = open(dir.path(), mode).log;
        let epochs = log.epochs();
        assert_eq!(epochs.latest(), Some(5), "{mode:?}");
        assert_eq!(epochs.end_offset_for(3, 200), Some((3, 100)), "{mode:?}");
    }
}
