//! What single steps of the hot path take: `cargo bench --bench micro`.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use metaq::log::{LeftAs, Log, LogConfig, OpenMode, ProducedBatch, RealDisk};
use metaq::partition::{Unpacking, admit};
use metaq_protocol::batch::{BatchBuilder, BatchHeader, Batches};

const NOW_MS: i64 = 1_700_000_000_000;
const BATCH_BYTES: usize = 16 << 10;
/// A log that is appended to is begun anew behind so many: what is written stays below the threshold of writeback.
const LOG_BATCHES_MAX: u64 = 16 << 10;

/// A batch of 16 KiB of records of one size.
fn batch(record_bytes: usize) -> Bytes {
    let value = vec![7; record_bytes];
    let mut builder = BatchBuilder::new();
    for _ in 0..BATCH_BYTES / (record_bytes + 20) {
        builder = builder.push(None, Some(&value), &[], NOW_MS);
    }
    builder.finish().expect("records fit")
}

fn open(dir: &std::path::Path) -> Log {
    let left = LeftAs::new(OpenMode::Clean);
    let opened = Log::open(Arc::new(RealDisk), dir, LogConfig::default(), left, NOW_MS);
    opened.expect("a directory of its own").log
}

fn produced(bytes: &Bytes) -> ProducedBatch {
    ProducedBatch {
        header: BatchHeader::parse(bytes).expect("built here"),
        bytes: bytes.clone(),
    }
}

fn header_walk(c: &mut Criterion) {
    let many = batch(1024).repeat(64);
    let mut group = c.benchmark_group("header walk");
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 batches of 16 KiB", |b| {
        b.iter(|| {
            Batches::new(black_box(&many))
                .filter_map(Result::ok)
                .count()
        });
    });
    group.finish();
}

fn validation(c: &mut Criterion) {
    let config = LogConfig::default();
    let mut group = c.benchmark_group("batch validation");
    for record_bytes in [100, 1024] {
        let bytes = batch(record_bytes);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("16 KiB of {record_bytes} B records"), |b| {
            b.iter(|| {
                let unpacking = Unpacking::of(black_box(&bytes), &config);
                admit(black_box(&bytes), &config, NOW_MS, unpacking).is_ok()
            });
        });
    }
    group.finish();
}

fn append(c: &mut Criterion) {
    let fresh = || {
        let dir = tempfile::tempdir().expect("a place for it");
        let log = open(dir.path());
        (dir, log)
    };
    let bytes = batch(1024);
    let request = [vec![produced(&bytes)]];
    let (mut place, mut batches) = (fresh(), 0);
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("a batch of 16 KiB to the page cache", |b| {
        b.iter(|| {
            batches += 1;
            if batches % LOG_BATCHES_MAX == 0 {
                place = fresh();
            }
            let appended = place.1.append(black_box(&request), 0, NOW_MS).remove(0);
            appended.expect("the disk has room")
        });
    });
    group.finish();
}

fn look_up(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a place for it");
    let log = open(dir.path());
    let request = [vec![produced(&batch(100))]];
    for _ in 0..10_000 {
        log.append(&request, 0, NOW_MS);
    }
    let end = log.ends().log_end;
    let mut at = 0;
    c.bench_function("index look-up in 160 MiB of 16 KiB batches", |b| {
        b.iter(|| {
            // Any order, the same every time.
            at = (at + 7_919_993) % end.offset;
            log.read(black_box(at), 1 << 20, true, end).is_ok()
        });
    });
}

criterion_group!(benches, header_walk, validation, append, look_up);
criterion_main!(benches);
