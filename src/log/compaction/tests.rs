//! Compaction against a model: of every record that was ever appended.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use metaq_protocol::batch::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, Compression, verify_crc,
};
use metaq_protocol::compression;
use metaq_protocol::records::Records;

use super::super::segment::Segment;
use super::super::{
    AppendRequest, Disk, DiskFile, LeftAs, Log, LogConfig, LogError, OpenMode, Outcome,
    ProducedBatch, RealDisk, ToVerify, TransactionMarker, TransactionVersion, unlink_all,
};
use super::key_index::{KeyIndex, KeyIndexWriter};
use super::key_map::KeyedOffset;
use super::{Compacted, CompactionPass, KeyMap};

mod kills;

const NOW: i64 = 1_700_000_000_000;
const RETENTION: i64 = 300;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1500,
        index_interval_bytes: 200,
        compact: true,
        delete: false,
        delete_retention_ms: RETENTION,
        ..LogConfig::default()
    }
}

fn open(dir: &Path, mode: OpenMode, cleaned_until: i64) -> Log {
    let left = LeftAs {
        cleaned_until,
        ..LeftAs::new(mode)
    };
    let opened = Log::open(Arc::new(RealDisk), dir, config(), left, NOW);
    opened.unwrap().log
}

fn compact(log: &Log, keys: &mut KeyMap, now_ms: i64) -> Result<Option<Compacted>, LogError> {
    log.sync(now_ms)?;
    let end = log.ends().log_end.offset;
    let stable = log.first_unstable(end).map_or(end, |at| at.offset);
    let until = log.cleanable(stable, now_ms)?.end;
    log.compact(&mut CompactionPass {
        until,
        keys,
        now_ms,
        throttle: &mut |_| true,
    })
}

/// Passes until none has anything left to do; what was replaced is unlinked.
fn compact_all(log: &Log, keys: &mut KeyMap, now_ms: i64) {
    loop {
        compact(log, keys, now_ms).unwrap().unwrap();
        unlink_all(&log.take_replaced());
        if log.compacting.lock().is_none() {
            return;
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    timestamp: i64,
}

/// All records of clients that are in the log, by offset, and whether a reader of committed records is told that they were
/// aborted.
fn read_all(log: &Log) -> BTreeMap<i64, (Stored, bool)> {
    let mut all = BTreeMap::new();
    let aborted = log.aborted_between(0, i64::MAX, super::super::Reach::Disk);
    let aborted = crate::log::Aborted::new(aborted.unwrap());
    let mut next = log.ends().log_start;
    let limit = log.ends().log_end;
    while let Some(slice) = log.read(next, 1, true, limit).unwrap() {
        let mut bytes = vec![0; slice.bytes];
        slice.file.read_at(&mut bytes, slice.position).unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        assert!(verify_crc(&bytes), "at {next}");
        assert!(header.last_offset() >= next, "at {next}: {header:?}");
        next = header.last_offset() + 1;
        if header.is_control() || header.record_count == 0 {
            continue;
        }
        let codec = header.compression().unwrap();
        let packed = &bytes[BATCH_HEADER_BYTES..];
        let unpacked = compression::decompress(codec, packed, 1 << 20).unwrap();
        for record in Records::new(&header, &unpacked) {
            let record = record.unwrap();
            let stored = Stored {
                key: record.key.unwrap().to_vec(),
                value: record.value.map(<[u8]>::to_vec),
                timestamp: record.timestamp,
            };
            let is_aborted = aborted.has(&header);
            assert!(all.insert(record.offset, (stored, is_aborted)).is_none());
        }
    }
    assert_eq!(next, limit.offset, "the log's end is reached");
    all
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Plain,
    Open(i64),
    Committed,
    Aborted,
}

struct Producer {
    id: i64,
    epoch: i16,
    sequence: i32,
    is_open: bool,
    /// It sends no more batches after so many of all, and its last ones are gone through many times.
    batches_left: u64,
}

/// A log, and what it is to hold.
struct Model {
    random: u64,
    log: Log,
    all: BTreeMap<i64, (Stored, Kind)>,
    producers: Vec<Producer>,
    now_ms: i64,
    /// When a tombstone could first be gone: its deletion was seen in a pass at this time.
    passes: Vec<i64>,
}

impl Model {
    fn new(dir: &Path, seed: u64) -> Self {
        let producer = |id| Producer {
            id,
            epoch: 0,
            sequence: 0,
            is_open: false,
            batches_left: (seed + id as u64 * 7) % 30,
        };
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            log: open(dir, OpenMode::Clean, 0),
            all: BTreeMap::new(),
            producers: (1..5).map(producer).collect(),
            now_ms: NOW,
            passes: Vec::new(),
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % end
    }

    fn records(&mut self) -> Vec<Stored> {
        let count = 1 + self.below(6);
        let record = |model: &mut Self| {
            let key = model.below(25);
            let size = model.below(60) as usize;
            let value = (model.below(5) > 0).then(|| vec![key as u8; size]);
            Stored {
                key: format!("key {key}").into_bytes(),
                value,
                timestamp: model.now_ms - model.below(50) as i64,
            }
        };
        (0..count).map(|_| record(self)).collect()
    }

    fn append(&mut self, request: AppendRequest) -> i64 {
        let answers = self.log.append_with(&[request], 0, self.now_ms, |_| {});
        let appended = answers.into_iter().next().unwrap();
        appended.unwrap().base_offset
    }

    /// A batch of a producer, or of none.
    fn produce(&mut self) {
        let records = self.records();
        let codec = [Compression::None, Compression::Lz4, Compression::Gzip];
        let codec = codec[self.below(3) as usize];
        let mut who = self.below(6) as usize;
        match self.producers.get_mut(who) {
            Some(producer) if producer.batches_left > 0 => producer.batches_left -= 1,
            _ => who = self.producers.len(),
        }
        let now_ms = self.now_ms;
        let is_transactional = who < 2;
        let mut builder = BatchBuilder::new().compression(codec);
        if let Some(producer) = self.producers.get(who) {
            builder = builder.producer(producer.id, producer.epoch, producer.sequence);
        }
        if is_transactional {
            builder = builder.transactional();
        }
        for record in &records {
            let (key, value) = (Some(&record.key[..]), record.value.as_deref());
            builder = builder.push(key, value, &[], record.timestamp);
        }
        let bytes = builder.finish().unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        let batches = vec![ProducedBatch { header, bytes }];
        let request = match is_transactional {
            false => AppendRequest::of_client(batches),
            true => {
                let producer = &self.producers[who];
                let to_verify = ToVerify {
                    producer_id: producer.id,
                    producer_epoch: producer.epoch,
                    base_sequence: producer.sequence,
                    is_v2: true,
                };
                let verification = self.log.begin_verification(&to_verify, now_ms).unwrap();
                AppendRequest::verified(batches, verification)
            }
        };
        let base = self.append(request);
        let mut kind = Kind::Plain;
        if let Some(producer) = self.producers.get_mut(who) {
            producer.sequence += records.len() as i32;
            if is_transactional {
                producer.is_open = true;
                kind = Kind::Open(producer.id);
            }
        }
        for (delta, record) in records.into_iter().enumerate() {
            self.all.insert(base + delta as i64, (record, kind));
        }
    }

    /// Ends the transaction of one of the two producers that have them.
    fn end_transaction(&mut self) {
        let who = self.below(2) as usize;
        if self.producers[who].batches_left == 0 && !self.producers[who].is_open {
            return;
        }
        let outcome = match self.below(2) {
            0 => Outcome::Commit,
            _ => Outcome::Abort,
        };
        let producer = &mut self.producers[who];
        producer.epoch += 1;
        producer.sequence = 0;
        producer.is_open = false;
        let (id, producer_epoch) = (producer.id, producer.epoch);
        let marker = TransactionMarker {
            producer_id: id,
            producer_epoch,
            coordinator_epoch: 3,
            outcome,
            version: TransactionVersion::V2,
        };
        self.append(AppendRequest::of_marker(&marker, NOW).unwrap());
        let ended = match outcome {
            Outcome::Commit => Kind::Committed,
            Outcome::Abort => Kind::Aborted,
        };
        for (_, kind) in self.all.values_mut() {
            if *kind == Kind::Open(id) {
                *kind = ended;
            }
        }
    }

    fn compact(&mut self, keys: &mut KeyMap) {
        compact(&self.log, keys, self.now_ms).unwrap().unwrap();
        self.passes.push(self.now_ms);
        unlink_all(&self.log.take_replaced());
        self.check();
    }

    fn reopen(&mut self, dir: &Path) {
        let cleaned_until = self.log.cleaned_until();
        let synced_end = self.log.ends().synced_end;
        let mode = match self.below(3) {
            0 => {
                self.log.close(self.now_ms).unwrap();
                OpenMode::Clean
            }
            1 => OpenMode::AfterKill {
                recovery_point: synced_end,
            },
            _ => OpenMode::AfterCrash {
                recovery_point: synced_end,
            },
        };
        let before = self.producers_known();
        let end = self.log.ends().log_end;
        if self.below(2) == 0 {
            // All that is known of producers is what the records say.
            for entry in RealDisk.list(dir).unwrap() {
                if entry.name.ends_with(".snapshot") {
                    RealDisk.remove(&dir.join(entry.name)).unwrap();
                }
            }
        }
        self.log = open(dir, mode, cleaned_until);
        assert_eq!(self.log.ends().log_end.offset, end.offset, "{mode:?}");
        assert_eq!(self.producers_known(), before, "{mode:?}");
        self.check();
    }

    /// Epoch, last sequence and open transaction of each producer.
    fn producers_known(&self) -> BTreeMap<i64, (i16, i32, bool)> {
        self.log.with_producers(|producers| {
            let state = |(id, producer): (i64, &super::super::Producer)| {
                let open = producer.is_in_transaction();
                (id, (producer.epoch, producer.last_sequence(), open))
            };
            producers.iter().map(state).collect()
        })
    }

    fn check(&self) {
        let there = read_all(&self.log);
        let cleaned_until = self.log.cleaned_until();
        for (offset, (stored, is_aborted)) in &there {
            let (expected, kind) = &self.all[offset];
            assert_eq!(stored, expected);
            assert_eq!(*is_aborted, *kind == Kind::Aborted, "{offset} {kind:?}");
        }
        let is_read = |kind: &Kind| matches!(kind, Kind::Plain | Kind::Committed);
        let mut newest: HashMap<&[u8], i64> = HashMap::new();
        let mut clean: HashMap<&[u8], i64> = HashMap::new();
        for (offset, (stored, kind)) in &self.all {
            if is_read(kind) {
                newest.insert(&stored.key, *offset);
                if *offset < cleaned_until {
                    clean.insert(&stored.key, *offset);
                }
            }
        }
        for (key, offset) in &newest {
            let (stored, _) = &self.all[offset];
            let may_go = stored.value.is_none()
                && self.passes.iter().any(|at| at + RETENTION <= self.now_ms);
            assert!(
                there.contains_key(offset) || may_go,
                "the last record of {:?}, at {offset}, is gone",
                String::from_utf8_lossy(key)
            );
        }
        for (offset, (stored, kind)) in &self.all {
            let is_there = there.contains_key(offset);
            if *offset >= cleaned_until && matches!(kind, Kind::Open(_)) {
                assert!(is_there, "{offset} of an open transaction is gone");
            }
            if *offset < cleaned_until {
                let is_last = is_read(kind) && clean[&stored.key[..]] == *offset;
                assert!(is_last || !is_there, "{offset} ({kind:?}) is there still");
            }
        }
    }
}

#[test]
fn the_last_record_of_every_key_stays_and_no_other_that_was_gone_through() {
    // More of them: METAQ_COMPACTION_SEEDS=first..end.
    let seeds = match std::env::var("METAQ_COMPACTION_SEEDS") {
        Ok(range) => {
            let (first, end) = range.split_once("..").unwrap();
            first.parse().unwrap()..end.parse().unwrap()
        }
        Err(_) => 0..10,
    };
    for seed in seeds {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::new(dir.path(), seed);
        let slots = [1000, 1000, 40, 20][model.below(4) as usize];
        let mut keys = KeyMap::with_slots(slots);
        for _ in 0..150 {
            match model.below(20) {
                0..13 => model.produce(),
                13..15 => model.end_transaction(),
                15..18 => model.compact(&mut keys),
                18 => model.reopen(dir.path()),
                _ => model.now_ms += 400,
            }
        }
    }
}

#[test]
fn nothing_goes_for_a_record_that_is_not_synced() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), OpenMode::Clean, 0);
    let append = |value: u8| {
        let batch = BatchBuilder::new().push(Some(b"key"), Some(&[value; 800]), &[], NOW);
        let bytes = batch.finish().unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        let batches = vec![ProducedBatch { header, bytes }];
        log.append(&[batches], 0, NOW).remove(0).unwrap();
    };
    let mut keys = KeyMap::with_slots(1000);
    let mut compact = |until: i64| {
        let pass = CompactionPass {
            until,
            keys: &mut keys,
            now_ms: NOW,
            throttle: &mut |_| true,
        };
        log.compact(&mut { pass }).unwrap().unwrap();
    };
    append(1);
    append(2);
    log.sync(NOW).unwrap();
    // One a segment. What comes is in the files, and the power may take it.
    for value in 3..9 {
        append(value);
    }
    let end = log.cleanable(i64::MAX, NOW).unwrap().end;
    assert_eq!(end, 2);
    compact(end);
    let there: Vec<i64> = read_all(&log).into_keys().collect();
    assert_eq!(there, [1, 2, 3, 4, 5, 6, 7]);
    log.sync(NOW).unwrap();
    compact(log.cleanable(i64::MAX, NOW).unwrap().end);
    let there: Vec<i64> = read_all(&log).into_keys().collect();
    assert_eq!(there, [6, 7]);
}

#[test]
fn a_reader_whose_limit_was_found_before_a_pass_reads_whole_batches_up_to_it() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let log = open(dir.path(), OpenMode::Clean, 0);
    let end = log.ends().log_end;
    let limits: Vec<_> = (0..end.offset).map(|at| log.position_of(at)).collect();
    let segments = log.segments().len();
    for _ in 0..3 {
        compact_all(&log, &mut KeyMap::with_slots(1000), NOW);
    }
    let merged = log.segments().len();
    assert!(merged < segments, "{merged} of {segments}");
    for limit in limits.into_iter().map(Result::unwrap) {
        let mut next = log.ends().log_start;
        while let Some(slice) = log.read(next, 1 << 20, false, limit).unwrap() {
            let mut bytes = vec![0; slice.bytes];
            slice.file.read_at(&mut bytes, slice.position).unwrap();
            for batch in metaq_protocol::batch::Batches::new(&bytes) {
                let (header, _) = batch.unwrap();
                // A batch that holds the limit is before it where its own position is.
                assert!(header.base_offset < limit.offset, "{limit:?}");
                next = header.last_offset() + 1;
            }
        }
    }
}

#[test]
fn a_pass_that_is_stopped_at_any_moment_loses_nothing_and_leaves_no_file_behind() {
    let dir = tempfile::tempdir().unwrap();
    let expected = filled(dir.path());
    let log = open(dir.path(), OpenMode::Clean, 0);
    let mut keys = KeyMap::with_slots(1000);
    for asked in 0.. {
        let mut left = asked;
        let until = log.cleanable(i64::MAX, NOW).unwrap().end;
        let done = log.compact(&mut CompactionPass {
            until,
            keys: &mut keys,
            now_ms: NOW,
            throttle: &mut |_| {
                left -= 1;
                left >= 0
            },
        });
        unlink_all(&log.take_replaced());
        let names = RealDisk.list(dir.path()).unwrap();
        let is_left = |name: &str| {
            [".cleaned", ".swap", ".deleted"]
                .iter()
                .any(|end| name.ends_with(end))
        };
        assert!(!names.iter().any(|entry| is_left(&entry.name)), "{asked}");
        assert_eq!(readable(&log), expected, "{asked}");
        match done {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, LogError::Stopped), "{error}"),
        }
    }
    assert!(log.cleaned_until() > 0);
}

/// A log of several segments, some of aborted transactions, closed; and the last records of its keys.
fn filled(dir: &Path) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let mut model = Model::new(dir, 7);
    for n in 0..40 {
        model.produce();
        if n % 8 == 7 {
            model.end_transaction();
        }
    }
    for _ in 0..8 {
        model.end_transaction();
    }
    let end = model.log.ends().log_end.offset;
    assert_eq!(model.log.first_unstable(end), None);
    model.log.close(NOW).unwrap();
    last_of(
        model
            .all
            .values()
            .filter(|(_, kind)| *kind != Kind::Aborted),
    )
}

fn last_of<'a>(
    all: impl Iterator<Item = &'a (Stored, Kind)>,
) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    all.map(|(stored, _)| (stored.key.clone(), stored.value.clone()))
        .collect()
}

/// The last record of each key as a reader of committed records sees it.
fn readable(log: &Log) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let end = log.ends().log_end.offset;
    let aborted = log
        .aborted_between(0, end, super::super::Reach::Disk)
        .unwrap();
    let aborted = crate::log::Aborted::new(aborted);
    let mut last = BTreeMap::new();
    for segment in log.segments().iter() {
        let mut walk = segment.batches(0, segment.bytes()).unwrap();
        while let Some(at) = walk.next().unwrap() {
            let header = at.header;
            if header.is_control() || aborted.has(&header) || header.record_count == 0 {
                continue;
            }
            let bytes = segment.read_batch(&at).unwrap();
            let codec = header.compression().unwrap();
            let packed = &bytes[BATCH_HEADER_BYTES..];
            let unpacked = compression::decompress(codec, packed, 1 << 20).unwrap();
            for record in Records::new(&header, &unpacked) {
                let record = record.unwrap();
                let value = record.value.map(<[u8]>::to_vec);
                last.insert(record.key.unwrap().to_vec(), value);
            }
        }
    }
    last
}
