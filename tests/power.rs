//! Whole partitions, with their writer, sync and housekeeping threads, over a disk that forgets what was not synced: the
//! power goes at a random moment while several producers append at full speed, again and again. METAQ_POWER_SEED repeats
//! a run's choices.

#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/names.rs"]
mod names;
#[path = "simulation/random.rs"]
mod random;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metaq::clock::WallClock;
use metaq::log::{LogConfig, LogError, LogOffsets, ProducedBatch, Reach, ReadWanted};
use metaq::partition::{
    Acks, Housekeeping, HousekeepingIntervals, Identity, Isolation, Partition, PartitionState,
    Partitions, PartitionsOptions, ReadError, TopicToOpen,
};
use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, Batches};
use metaq_protocol::records::Records;
use random::Random;
use uuid::Uuid;

const PARTITIONS: i32 = 3;
/// Producers of one partition.
const PRODUCERS: usize = 2;
/// Batches of a producer on their way.
const IN_FLIGHT: usize = 5;
const ROUND_MS_MAX: i64 = 60;

/// Records of one producer: their numbers are its sequences.
#[derive(Clone, Copy)]
struct Sent {
    first: i64,
    count: i64,
}

/// Every so many records one has more bytes than a journal takes of one partition.
const LARGE_EVERY: i64 = 60;
const LARGE_BYTES: usize = 100 << 10;

/// Numbers its records from 0, and sends again what was not acknowledged.
struct Producer {
    sends_large: bool,
    id: i64,
    partition: i32,
    next: i64,
    unacknowledged: VecDeque<Sent>,
    acknowledged: Vec<(i64, Sent)>,
    random: Random,
}

impl Producer {
    fn batch(&self, sent: Sent) -> Vec<ProducedBatch> {
        let mut builder = BatchBuilder::new().producer(self.id, 0, sent.first as i32);
        for number in sent.first..sent.first + sent.count {
            let is_large = self.sends_large && number % LARGE_EVERY == self.id % LARGE_EVERY;
            let fill = if is_large {
                LARGE_BYTES
            } else {
                number as usize % 90
            };
            let value = format!("{} {number} {}", self.id, "x".repeat(fill));
            builder = builder.push(
                None,
                Some(value.as_bytes()),
                &[],
                WallClock::default().now_ms(),
            );
        }
        let bytes = builder.finish().unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        vec![ProducedBatch { header, bytes }]
    }

    /// Appends until the disk is gone or `stop` is set.
    fn produce(&mut self, partition: &Arc<Partition>, stop: &AtomicBool) {
        let mut waiting: VecDeque<_> = VecDeque::new();
        for sent in &self.unacknowledged {
            waiting.push_back(partition.append(Acks::All, self.batch(*sent)));
        }
        loop {
            while !stop.load(Ordering::SeqCst) && waiting.len() < IN_FLIGHT {
                let count = self.random.between(1, 20);
                let sent = Sent {
                    first: self.next,
                    count,
                };
                self.next += count;
                self.unacknowledged.push_back(sent);
                waiting.push_back(partition.append(Acks::All, self.batch(sent)));
            }
            let Some(answer) = waiting.pop_front() else {
                return;
            };
            match answer.blocking_recv() {
                Ok(Ok(appended)) => {
                    let sent = self.unacknowledged.pop_front().unwrap();
                    self.acknowledged.push((appended.base_offset, sent));
                }
                Ok(Err(LogError::Offline(_))) | Err(_) => return,
                Ok(Err(error)) => panic!(
                    "producer {}: {error} {:?} unacked {:?} {:?}",
                    self.id,
                    partition.log().with_producers(|p| p
                        .iter()
                        .find(|(id, _)| *id == self.id)
                        .map(|(_, p)| p.batches.clone())),
                    self.unacknowledged
                        .iter()
                        .map(|s| (s.first, s.count))
                        .collect::<Vec<_>>(),
                    partition
                        .log()
                        .segments()
                        .iter()
                        .map(|s| (s.base_offset(), s.bytes()))
                        .collect::<Vec<_>>()
                ),
            }
        }
    }
}

/// A data directory, what is known of it, and the disk below it.
struct World {
    root: tempfile::TempDir,
    disk: disk::Disk,
    config: LogConfig,
    sync_threads: usize,
    journal_file_bytes: u64,
    checkpoint: Duration,
    random: Random,
}

/// The broker's part that is under test.
struct Running {
    partitions: Arc<Partitions>,
    housekeeping: Housekeeping,
    disk: disk::Disk,
}

impl Running {
    fn get(&self, n: i32) -> Arc<Partition> {
        self.partitions.get("t", n).unwrap()
    }

    /// The power goes; then the threads are ended, which changes nothing any more.
    fn lose_power(self) {
        self.disk.cut_power();
        self.stop();
    }

    fn stop(self) {
        self.housekeeping.stop();
        self.partitions.close();
    }
}

impl World {
    fn new(config: LogConfig) -> Self {
        let seed = std::env::var("METAQ_POWER_SEED").ok();
        let seed = seed.map_or(WallClock::default().now_ms() as u64, |text| {
            text.parse().unwrap()
        });
        println!("METAQ_POWER_SEED={seed}");
        Self {
            root: disk::directory().unwrap(),
            disk: disk::Disk::default(),
            config,
            sync_threads: 4,
            // Both files are used up many times.
            journal_file_bytes: 64 << 10,
            checkpoint: Duration::from_millis(100),
            random: Random::new(seed),
        }
    }

    fn dir(&self, n: i32) -> PathBuf {
        self.root.path().join(format!("t-{n}"))
    }

    fn open(&self) -> Running {
        self.disk.power_on();
        let options = PartitionsOptions {
            sync_threads: self.sync_threads,
            open_threads: 2,
            journal_file_bytes: self.journal_file_bytes,
            ..PartitionsOptions::new(vec![self.root.path().to_path_buf()])
        };
        let partitions = Arc::new(Partitions::open(Arc::new(self.disk.clone()), &options).unwrap());
        for dir in partitions.data_dirs() {
            dir.claim("cluster", 0).unwrap();
        }
        let identity = |number| Identity {
            broker_id: 0,
            number,
        };
        let topic = TopicToOpen {
            topic: "t".into(),
            topic_id: Uuid::from_u128(7),
            config: self.config.clone(),
            partitions: (0..PARTITIONS)
                .map(|n| (n, identity(n), PartitionState::alone(0)))
                .collect(),
        };
        partitions.open_topics(vec![topic]);
        let opened = partitions.topic("t").unwrap();
        let offline: Vec<_> = opened.offline().collect();
        assert_eq!(offline, []);
        partitions.settle();
        let intervals = HousekeepingIntervals {
            retention: Duration::from_millis(100),
            checkpoint: self.checkpoint,
            producer_expiration_ms: i64::MAX,
            producer_bytes_max: usize::MAX,
        };
        Running {
            housekeeping: Housekeeping::start(partitions.clone(), intervals).unwrap(),
            partitions,
            disk: self.disk.clone(),
        }
    }

    fn producers(&mut self, first_id: i64) -> Vec<Producer> {
        let producer = |n: usize| Producer {
            sends_large: self.config.segment_bytes > LARGE_BYTES as u64 * 2,
            id: first_id + n as i64,
            partition: n as i32 % PARTITIONS,
            next: 0,
            unacknowledged: VecDeque::new(),
            acknowledged: Vec::new(),
            random: Random::new(self.random.next()),
        };
        let count = PARTITIONS as usize * PRODUCERS;
        (0..count).map(producer).collect()
    }

    /// Everybody at full speed, and in the middle of it the power goes.
    fn produce_until_the_power_goes(&mut self, producers: &mut [Producer]) {
        self.produce_on(self.open(), producers);
    }

    fn produce_on(&mut self, running: Running, producers: &mut [Producer]) {
        let lasts = Duration::from_millis(self.random.between(0, ROUND_MS_MAX) as u64);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for producer in producers {
                let partition = running.get(producer.partition);
                let stop = &stop;
                scope.spawn(move || producer.produce(&partition, stop));
            }
            std::thread::sleep(lasts);
            running.lose_power();
            stop.store(true, Ordering::SeqCst);
        });
        // The system does not run on.
        let _ = std::fs::remove_file(self.root.path().join("metaq-running"));
        self.disk.lose_power(&mut self.random);
        for n in 0..PARTITIONS {
            let trusted = trusted_before(&self.dir(n), recovery_point(self.root.path(), n));
            disk::damage_indexes(&self.dir(n), trusted, &mut self.random);
        }
    }
}

/// What the checkpoint says of a partition.
fn recovery_point(root: &Path, n: i32) -> i64 {
    let text = std::fs::read_to_string(root.join("recovery-point-offset-checkpoint"));
    let text = text.unwrap_or_default();
    let of = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("t {n} ")));
    of.map_or(0, |offset| offset.parse().unwrap())
}

/// Segments before this one are trusted: their indexes were synced.
fn trusted_before(dir: &Path, recovery_point: i64) -> i64 {
    let bases = std::fs::read_dir(dir).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".log")?.parse::<i64>().ok()
    });
    bases
        .filter(|base| *base <= recovery_point)
        .max()
        .unwrap_or(0)
}

/// All records of a partition: offset, producer and number; and where it starts and ends.
fn read_all(partition: &Partition) -> (Vec<(i64, i64, i64)>, LogOffsets) {
    let ends = partition.log().ends();
    let (mut at, mut found) = (ends.log_start, Vec::new());
    while at < ends.log_end.offset {
        let wanted = ReadWanted {
            offset: at,
            bytes_max: 1 << 20,
            first_batch_whole: true,
        };
        let slice = match partition.read(&wanted, Isolation::ReadUncommitted, Reach::Disk) {
            // Retention came in between.
            Err(ReadError::Log(LogError::OffsetOutOfRange { .. }))
                if partition.log().ends().log_start > at =>
            {
                return read_all(partition);
            }
            read => read.unwrap().unwrap(),
        };
        let mut bytes = vec![0; slice.bytes];
        assert_eq!(
            slice.file.read_at(&mut bytes, slice.position).unwrap(),
            slice.bytes
        );
        for batch in Batches::new(&bytes) {
            let (header, whole) = batch.unwrap();
            let dir = partition.log().dir();
            let is_whole = metaq_protocol::batch::verify_crc(whole);
            assert!(is_whole, "{at} of {ends:?} in {}", dir.display());
            let records = Records::new(&header, &whole[BATCH_HEADER_BYTES..]);
            for (record, offset) in records.zip(header.base_offset..) {
                let value = record.unwrap().value.unwrap().to_vec();
                let text = String::from_utf8(value).unwrap();
                let mut words = text.split(' ').map(|word| word.parse::<i64>());
                let mut word = || words.next().unwrap().unwrap();
                if offset >= ends.log_start {
                    found.push((offset, word(), word()));
                }
            }
            at = header.last_offset() + 1;
        }
    }
    (found, ends)
}

/// Of each producer the records are there in order, each once, without a gap; returns how many acknowledged ones are
/// missing at the end of each partition.
fn check(running: &Running, producers: &[Producer]) -> Vec<i64> {
    let check_one = |n: i32| {
        let partition = running.get(n);
        let (found, ends) = read_all(&partition);
        let mut missing = 0;
        for producer in producers.iter().filter(|producer| producer.partition == n) {
            let own = found.iter().filter(|(_, id, _)| *id == producer.id);
            let own: Vec<(i64, i64)> = own.map(|(offset, _, number)| (*offset, *number)).collect();
            for pair in own.windows(2) {
                assert_eq!(
                    pair[1].1,
                    pair[0].1 + 1,
                    "producer {}: {pair:?}",
                    producer.id
                );
            }
            for (offset, sent) in &producer.acknowledged {
                for at in 0..sent.count {
                    let record = (offset + at, sent.first + at);
                    if record.0 >= ends.log_end.offset {
                        missing += 1;
                    } else if record.0 >= ends.log_start {
                        assert!(
                            own.binary_search(&record).is_ok(),
                            "{record:?} of {}",
                            producer.id
                        );
                    }
                }
            }
        }
        missing
    };
    (0..PARTITIONS).map(check_one).collect()
}

/// Small segments, so that rolls, indexes and deletions are hit.
fn config(flush_messages: i64) -> LogConfig {
    LogConfig {
        segment_bytes: 20_000,
        index_interval_bytes: 500,
        retention_bytes: 200_000,
        file_delete_delay_ms: 0,
        flush_messages,
        ..LogConfig::default()
    }
}

#[test]
fn a_power_loss_at_full_speed_takes_nothing_that_was_acknowledged_as_synced() {
    let mut world = World::new(config(0));
    let mut producers = world.producers(1000);
    for _ in 0..30 {
        world.produce_until_the_power_goes(&mut producers);
        let running = world.open();
        assert_eq!(check(&running, &producers), [0; PARTITIONS as usize]);
        running.lose_power();
    }
    let running = world.open();
    let stop = AtomicBool::new(true);
    for producer in &mut producers {
        // What was not acknowledged, once more.
        producer.produce(&running.get(producer.partition), &stop);
        assert!(producer.unacknowledged.is_empty() && producer.next > 0);
    }
    assert_eq!(check(&running, &producers), [0; PARTITIONS as usize]);
    running.stop();
    let seen = metaq::log::verify_dir(world.root.path()).unwrap();
    assert_eq!(seen.findings, []);
    let acknowledged = producers.iter().map(|producer| producer.acknowledged.len());
    println!("{} batches were acknowledged", acknowledged.sum::<usize>());
}

/// Segments that hold large batches.
fn large_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 400_000,
        retention_bytes: 2_000_000,
        ..config(0)
    }
}

/// Every sync takes up to some milliseconds; appends and other syncs go on in the middle of it.
fn slow_syncs(seed: u64) -> disk::DuringSync {
    let random = parking_lot::Mutex::new(Random::new(seed));
    Arc::new(move |_: &Path| {
        let micros = random.lock().between(0, 4000) as u64;
        std::thread::sleep(Duration::from_micros(micros));
    })
}

#[test]
fn a_power_loss_in_the_middle_of_syncs_takes_nothing_that_was_acknowledged_as_synced() {
    for config in [config(0), large_segments()] {
        let mut world = World::new(config);
        world
            .disk
            .during_syncs(Some(slow_syncs(world.random.next())));
        let mut producers = world.producers(1000);
        for _ in 0..30 {
            world.produce_until_the_power_goes(&mut producers);
            let running = world.open();
            assert_eq!(check(&running, &producers), [0; PARTITIONS as usize]);
            running.lose_power();
        }
        assert!(producers.iter().all(|producer| producer.next > 0));
    }
}

#[test]
fn a_writeback_that_fails_takes_nothing_that_was_acknowledged_as_synced() {
    for config in [config(0), large_segments()] {
        let mut world = World::new(config);
        world
            .disk
            .during_syncs(Some(slow_syncs(world.random.next())));
        let mut producers = world.producers(1000);
        for _ in 0..40 {
            let running = world.open();
            world.disk.fail_writeback_in(world.random.below(40));
            world.produce_on(running, &mut producers);
            world.disk.stop_failing();
            let running = world.open();
            assert_eq!(check(&running, &producers), [0; PARTITIONS as usize]);
            running.lose_power();
        }
        assert!(producers.iter().all(|producer| producer.next > 0));
    }
}

#[test]
fn a_power_loss_takes_less_of_a_partition_than_flush_messages_says() {
    const FLUSH_MESSAGES: i64 = 100;
    let mut world = World::new(config(FLUSH_MESSAGES));
    let mut most = 0;
    for round in 0..20 {
        // What was lost makes a gap that an idempotent producer cannot go on behind.
        let mut producers = world.producers(1000 * (round + 1));
        world.produce_until_the_power_goes(&mut producers);
        let running = world.open();
        for missing in check(&running, &producers) {
            assert!(missing < FLUSH_MESSAGES, "{missing} are lost");
            most = most.max(missing);
        }
        running.stop();
    }
    println!("at most {most} were lost");
    assert!(most > 0, "the power took nothing, so this shows nothing");
}

#[test]
fn without_syncs_a_power_loss_leaves_whole_batches_from_the_beginning() {
    let mut world = World::new(config(i64::MAX));
    let mut most = 0;
    for round in 0..30 {
        let mut producers = world.producers(1000 * (round + 1));
        world.produce_until_the_power_goes(&mut producers);
        let running = world.open();
        // That what is there has no gaps is checked too.
        most = most.max(check(&running, &producers).into_iter().max().unwrap());
        running.stop();
    }
    println!("at most {most} were lost");
    assert!(most > 0, "the power took nothing, so this shows nothing");
}

#[test]
fn what_is_older_than_flush_ms_survives_a_power_loss() {
    let mut world = World::new(LogConfig {
        flush_ms: 50,
        ..config(i64::MAX)
    });
    let running = world.open();
    let mut producers = world.producers(1000);
    let stop = AtomicBool::new(true);
    for producer in &mut producers {
        producer.unacknowledged = [Sent { first: 0, count: 7 }].into();
        producer.produce(&running.get(producer.partition), &stop);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_synced = |n| {
        let ends = running.get(n).log().ends();
        ends.synced_end == ends.log_end.offset
    };
    while !(0..PARTITIONS).all(is_synced) {
        assert!(Instant::now() < deadline, "nothing is synced by the clock");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.lose_power();
    world.disk.lose_power(&mut world.random);
    let _ = std::fs::remove_file(world.root.path().join("metaq-running"));
    for n in 0..PARTITIONS {
        disk::damage_indexes(&world.dir(n), 0, &mut world.random);
    }
    let running = world.open();
    assert_eq!(check(&running, &producers), [0; PARTITIONS as usize]);
    running.stop();
}

#[test]
fn an_io_error_of_the_journal_or_a_log_takes_nothing_that_was_acknowledged() {
    let mut world = World::new(config(0));
    let mut producers = world.producers(1000);
    for _ in 0..30 {
        let running = world.open();
        world.disk.fail_in(world.random.below(400));
        world.produce_on(running, &mut producers);
        world.disk.stop_failing();
        let running = world.open();
        assert_eq!(check(&running, &producers), [0; PARTITIONS as usize]);
        running.lose_power();
    }
    assert!(producers.iter().all(|producer| producer.next > 0));
}

#[test]
fn an_io_error_takes_its_partition_offline_and_a_restart_brings_back_what_was_acknowledged() {
    for flush_messages in [0, i64::MAX] {
        let mut world = World::new(LogConfig {
            retention_bytes: -1,
            ..config(flush_messages)
        });
        // Its errors are nobody's.
        world.journal_file_bytes = 0;
        // A checkpoint that cannot be written takes nothing offline.
        world.checkpoint = Duration::MAX;
        for round in 0..10 {
            let mut producers = world.producers(1000 * (round + 1));
            let running = world.open();
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for producer in &mut producers {
                    let partition = running.get(producer.partition);
                    let stop = &stop;
                    scope.spawn(move || producer.produce(&partition, stop));
                }
                world.disk.fail_in(world.random.below(200));
                let offline = |n: &i32| running.get(*n).log().offline_reason().is_some();
                let deadline = Instant::now() + Duration::from_secs(20);
                while (0..PARTITIONS).filter(offline).count() == 0 {
                    assert!(Instant::now() < deadline, "nothing failed");
                    std::thread::sleep(Duration::from_millis(1));
                }
                // Appending is over there, reading is not, and the others do not notice.
                stop.store(true, Ordering::SeqCst);
                for n in 0..PARTITIONS {
                    let partition = running.get(n);
                    if offline(&n) {
                        let reason = partition.log().offline_reason().unwrap();
                        assert!(reason.contains(&format!("t-{n}")), "{reason}");
                    }
                }
                assert_eq!((0..PARTITIONS).filter(offline).count(), 1);
            });
            world.disk.stop_failing();
            running.stop();
            let running = world.open();
            assert_eq!(check(&running, &producers), [0; PARTITIONS as usize]);
            running.stop();
        }
    }
}
