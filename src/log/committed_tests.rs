//! What a reader of committed records makes of what it is sent, against a model: at every offset, with several limits, whatever
//! producers did, and after kills, power failures and truncation.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use metaq_protocol::batch::{BatchBuilder, BatchHeader, Batches, EndMarker, next_sequence};
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_700_000_000_000;
const PRODUCERS: usize = 3;
/// Sequences wrap soon.
const FIRST_SEQUENCE: i32 = i32::MAX - 3;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A producer sends so many records in its transaction.
    Send(usize, usize),
    End(usize, Outcome),
    /// Records outside of transactions.
    Plain(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let producer = 0..PRODUCERS;
    let outcome = prop_oneof![Just(Outcome::Abort), Just(Outcome::Commit)];
    prop_oneof![
        4 => (producer.clone(), 1..4_usize).prop_map(|(producer, records)| Event::Send(producer, records)),
        2 => (producer, outcome).prop_map(|(producer, outcome)| Event::End(producer, outcome)),
        1 => (1..3_usize).prop_map(Event::Plain),
    ]
}

/// What a batch of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Of a transaction, by the offset of its first record.
    Part(i64),
    Marker,
}

/// What was appended: batches by their first offsets, and what became of transactions.
#[derive(Clone, Default)]
struct Model {
    batches: BTreeMap<i64, (Kind, i64)>,
    /// By the first record: the marker, once it is there.
    transactions: BTreeMap<i64, Option<(i64, Outcome)>>,
    /// The first record of each producer's.
    open: HashMap<usize, i64>,
    end: i64,
}

impl Model {
    fn append(&mut self, kind: Kind, records: usize) {
        self.batches.insert(self.end, (kind, records as i64));
        self.end += records as i64;
    }

    fn last_stable(&self) -> i64 {
        let mut undecided = self.transactions.iter().filter(|(_, end)| end.is_none());
        undecided.next().map_or(self.end, |(first, _)| *first)
    }

    fn is_visible(&self, kind: Kind) -> bool {
        match kind {
            Kind::Plain => true,
            Kind::Marker => false,
            Kind::Part(first) => matches!(self.transactions[&first], Some((_, Outcome::Commit))),
        }
    }

    /// The log was cut off at a batch.
    fn truncate(&mut self, offset: i64) {
        self.batches.retain(|base, _| *base < offset);
        self.transactions.retain(|first, _| *first < offset);
        for end in self.transactions.values_mut() {
            *end = end.filter(|(marker, _)| *marker < offset);
        }
        self.end = offset;
    }
}

struct World {
    log: Log,
    model: Model,
    epochs: [i16; PRODUCERS],
    sequences: [i32; PRODUCERS],
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 700,
        index_interval_bytes: 150,
        ..LogConfig::default()
    }
}

fn open(dir: &Path, mode: OpenMode) -> Log {
    let left = LeftAs::new(mode);
    let opened = Log::open(Arc::new(RealDisk), dir, config(), left, NOW);
    opened.unwrap().log
}

impl World {
    fn new(dir: &Path) -> Self {
        Self {
            log: open(dir, OpenMode::Clean),
            model: Model::default(),
            epochs: [0; PRODUCERS],
            sequences: [FIRST_SEQUENCE; PRODUCERS],
        }
    }

    fn append(&self, request: AppendRequest) {
        let answer = self.log.append_with(&[request], 0, NOW, |_| {}).remove(0);
        assert_eq!(answer.unwrap().base_offset, self.model.end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Plain(records) => {
                let batches = batch(BatchBuilder::new(), records);
                self.append(AppendRequest::of_client(batches));
                self.model.append(Kind::Plain, records);
            }
            Event::Send(producer, records) => self.send(producer, records),
            Event::End(producer, outcome) => self.end(producer, outcome),
        }
    }

    fn send(&mut self, producer: usize, records: usize) {
        let (id, epoch) = (producer as i64, self.epochs[producer]);
        let base_sequence = self.sequences[producer];
        let to_verify = ToVerify {
            producer_id: id,
            producer_epoch: epoch,
            base_sequence,
            is_v2: false,
        };
        let verification = self.log.begin_verification(&to_verify, NOW).unwrap();
        let builder = BatchBuilder::new().producer(id, epoch, base_sequence);
        let batches = batch(builder.transactional(), records);
        self.append(AppendRequest::verified(batches, verification));
        self.sequences[producer] = next_sequence(base_sequence, records as i32);
        let end = self.model.end;
        let first = *self.model.open.entry(producer).or_insert(end);
        self.model.transactions.entry(first).or_insert(None);
        self.model.append(Kind::Part(first), records);
    }

    /// Also where there is no transaction to be ended.
    fn end(&mut self, producer: usize, outcome: Outcome) {
        let marker = TransactionMarker {
            producer_id: producer as i64,
            producer_epoch: self.epochs[producer],
            coordinator_epoch: 0,
            outcome,
            version: TransactionVersion::V0,
        };
        self.append(AppendRequest::of_marker(&marker, NOW).unwrap());
        // A producer that a marker alone tells of begins at 0.
        if self.sequences[producer] == FIRST_SEQUENCE {
            self.sequences[producer] = 0;
        }
        let at = self.model.end;
        if let Some(first) = self.model.open.remove(&producer) {
            self.model.transactions.insert(first, Some((at, outcome)));
        }
        self.model.append(Kind::Marker, 1);
    }

    /// Reads from every offset on.
    fn check(&self) {
        let (log, model) = (&self.log, &self.model);
        let end = log.ends().log_end;
        let limit = log.first_unstable(end.offset).unwrap_or(end);
        assert_eq!(limit.offset, model.last_stable());
        for offset in 0..limit.offset {
            for bytes_max in [1, 150, 400, 1 << 20] {
                let wanted = ReadWanted {
                    offset,
                    bytes_max,
                    first_batch_whole: true,
                };
                let read = log.read_committed_within(&wanted, limit, Reach::Disk);
                let read = read.unwrap().expect("there is something");
                self.check_read(offset, limit.offset, &read);
            }
        }
    }

    fn check_read(&self, offset: i64, limit: i64, read: &CommittedSlice) {
        let mut bytes = vec![0; read.slice.bytes];
        let file = &read.slice.file;
        assert_eq!(
            file.read_at(&mut bytes, read.slice.position).unwrap(),
            bytes.len()
        );
        for aborted in &read.aborted {
            let end = self.model.transactions[&aborted.first_offset];
            assert_eq!(end, Some((aborted.last_offset, Outcome::Abort)));
            assert!(
                aborted.last_offset >= offset && aborted.first_offset < limit,
                "{aborted:?}"
            );
        }
        let mut expected = Vec::new();
        let mut given = Vec::new();
        for batch in Batches::new(&bytes) {
            // A part of one may stand at the end.
            let Ok((header, _)) = batch else { break };
            assert!(header.last_offset() < limit);
            let (kind, _) = self.model.batches[&header.base_offset];
            if self.model.is_visible(kind) {
                expected.push(header.base_offset);
            }
            given.push(header);
        }
        assert!(!given.is_empty());
        let seen = seen_by_a_client(&bytes, &read.aborted);
        assert_eq!(
            seen, expected,
            "at {offset} below {limit}: {:?}",
            read.aborted
        );
    }
}

fn batch(mut builder: BatchBuilder, records: usize) -> Vec<ProducedBatch> {
    for n in 0..records {
        builder = builder.push(None, Some(&vec![7; 20 * (n + 1)]), &[], NOW);
    }
    let bytes = builder.finish().unwrap();
    let header = BatchHeader::parse(&bytes).unwrap();
    vec![ProducedBatch { header, bytes }]
}

/// The first offsets of the batches that a client takes to be committed (Java's CompletedFetch).
fn seen_by_a_client(bytes: &[u8], aborted: &[AbortedTransaction]) -> Vec<i64> {
    let mut aborted: Vec<_> = aborted.to_vec();
    aborted.sort_by_key(|one| one.first_offset);
    let mut aborted = aborted.into_iter().peekable();
    let mut producers = HashSet::new();
    let mut seen = Vec::new();
    for (header, batch) in Batches::new(bytes).map_while(Result::ok) {
        while let Some(one) = aborted.next_if(|one| one.first_offset <= header.last_offset()) {
            producers.insert(one.producer_id);
        }
        if header.is_control() {
            let marker = EndMarker::of_batch(batch).unwrap();
            if marker.outcome == Outcome::Abort {
                producers.remove(&header.producer_id);
            }
        } else if !header.is_transactional() || !producers.contains(&header.producer_id) {
            seen.push(header.base_offset);
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn committed_records_are_always_seen_and_aborted_ones_never(
        events in proptest::collection::vec(event(), 1..60),
        cut in any::<proptest::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path());
        for event in events {
            world.happen(event);
        }
        world.check();
        let recovery_point = 0;
        for mode in [OpenMode::AfterKill { recovery_point }, OpenMode::AfterCrash { recovery_point }] {
            let World { log, .. } = world;
            drop(log);
            world = World { log: open(dir.path(), mode), ..world };
            world.check();
        }
        let bases: Vec<i64> = world.model.batches.keys().copied().collect();
        let to = bases[cut.index(bases.len())];
        world.log.truncate_to(to, NOW).unwrap();
        world.model.truncate(to);
        world.check();
    }

    #[test]
    fn alternating_commits_and_aborts_are_told_apart(records in 1..4_usize, transactions in 1..12_usize) {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path());
        for n in 0..transactions {
            for producer in 0..PRODUCERS {
                world.happen(Event::Send(producer, records));
            }
            for producer in 0..PRODUCERS {
                let outcome = [Outcome::Abort, Outcome::Commit][(n + producer) % 2];
                world.happen(Event::End(producer, outcome));
            }
        }
        world.check();
    }
}
