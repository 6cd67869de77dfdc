//! Cleaners over logs on a real disk.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metaq_protocol::batch::{BatchBuilder, BatchHeader};
use uuid::Uuid;

use super::choice::choose;
use super::records::{Records, key_of};
use super::{Cleaner, CleanerOptions};
use crate::clock::WallClock;
use crate::log::{LogConfig, ProducedBatch, RealDisk};
use crate::observe::{EventKind, Events};
use crate::partition::{
    Acks, Identity, Partition, PartitionState, Partitions, PartitionsOptions, TopicToOpen,
};

const DEADLINE: Duration = Duration::from_secs(30);

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 2048,
        compact: true,
        delete: false,
        ..LogConfig::default()
    }
}

struct World {
    dir: tempfile::TempDir,
    partitions: Arc<Partitions>,
    events: Events,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            partitions: open(dir.path()),
            dir,
            events: Events::new(WallClock::default()),
        }
    }

    fn create(&self, name: &str, id: u128, config: LogConfig) -> Arc<Partition> {
        let identity = Identity {
            broker_id: 0,
            number: 0,
        };
        let report = self.partitions.open_topics(vec![TopicToOpen {
            topic: name.into(),
            topic_id: Uuid::from_u128(id),
            config,
            partitions: vec![(0, identity, PartitionState::alone(0))],
        }]);
        assert_eq!(report.online, 1);
        self.partitions.get(name, 0).unwrap()
    }

    fn clean(&self, options: CleanerOptions) -> Cleaner {
        let options = CleanerOptions {
            backoff: Duration::from_millis(50),
            ..options
        };
        Cleaner::start(self.partitions.clone(), options, self.events.clone()).unwrap()
    }

    fn checkpoint(&self) -> String {
        let path = self.dir.path().join("cleaner-offset-checkpoint");
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

fn open(dir: &Path) -> Arc<Partitions> {
    let options = PartitionsOptions::new(vec![dir.to_path_buf()]);
    Arc::new(Partitions::open(Arc::new(RealDisk), &options).unwrap())
}

/// Appends values of few keys, a batch each.
async fn fill(partition: &Partition, records: usize) {
    fill_with(partition, records, &[b'v'; 100]).await;
}

async fn fill_with(partition: &Partition, records: usize, value: &[u8]) {
    for n in 0..records {
        let key = format!("key {}", n % 3);
        let batch = BatchBuilder::new().push(Some(key.as_bytes()), Some(value), &[], 1);
        let bytes = batch.finish().unwrap();
        let batch = ProducedBatch {
            header: BatchHeader::parse(&bytes).unwrap(),
            bytes,
        };
        partition
            .append(Acks::All, vec![batch])
            .await
            .unwrap()
            .unwrap();
    } // Only what is synced is compacted.
    partition.log().sync(1).unwrap();
}

/// A log that takes cleaners a long time, and one that is at it.
async fn slowed(world: &World, bytes: usize) -> (Arc<Partition>, Cleaner) {
    let config = LogConfig {
        segment_bytes: 1 << 20,
        ..config()
    };
    let partition = world.create("slow", 5, config);
    let value: Vec<u8> = (0..20_000u32).map(|n| ((n * n) >> 7) as u8).collect();
    fill_with(&partition, bytes / value.len(), &value).await;
    let cleaner = world.clean(CleanerOptions {
        bytes_per_second: 1000.0,
        ..CleanerOptions::default()
    });
    let key = key_of(&partition);
    until("at work", || cleaner.shared.records.is_at_work(key)).await;
    (partition, cleaner)
}

#[tokio::test]
async fn whoever_waits_for_a_log_does_not_wait_for_the_rate_of_the_cleaners() {
    let world = World::new();
    let (partition, cleaner) = slowed(&world, 3 << 20).await;
    let waits = partition.clone();
    // As a replica that follows another leader.
    let truncates = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let end = waits.log().ends().log_end.offset;
        let truncated = waits.log().truncate_to(end - 1, 1);
        (truncated, began.elapsed())
    });
    let (truncated, took) = tokio::time::timeout(DEADLINE, truncates)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(truncated, Ok(true)), "{truncated:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    cleaner.stop();
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_dirty_log_is_compacted_and_it_is_noted_how_far() {
    let world = World::new();
    let partition = world.create("t", 7, config());
    fill(&partition, 60).await;
    let before = partition.log().bytes();
    let cleaner = world.clean(CleanerOptions::default());
    until("compacted", || cleaner.last_pass(&partition).is_some()).await;
    let pass = cleaner.last_pass(&partition).unwrap();
    assert!(partition.log().bytes() < before / 2);
    assert_eq!(pass.cleaned_until, partition.log().cleaned_until());
    assert_eq!(
        pass.before_bytes - pass.after_bytes,
        cleaner.figures().dropped_bytes
    );
    let row = format!("0\n1\nt 0 {}\n", pass.cleaned_until);
    until("noted", || world.checkpoint() == row).await;
    let dropped = world.partitions.take_dropped();
    assert!(!dropped.is_empty() && dropped.iter().all(|(_, delay)| *delay == 60_000));
    let told = world.events.latest(&[EventKind::Compaction], 1);
    assert!(told[0].subject == "t-0" && told[0].took_ms.is_some());
    cleaner.stop();
    world.partitions.close();
    drop((partition, cleaner));
    let World {
        dir, partitions, ..
    } = world;
    drop(partitions);
    let partitions = open(dir.path());
    let row = partitions.data_dirs().next().unwrap().offsets("t", 0);
    assert_eq!(row.cleaned_until, pass.cleaned_until);
}

#[tokio::test]
async fn the_dirtiest_log_is_next_and_no_two_cleaners_have_one() {
    let world = World::new();
    let (some, more) = (
        world.create("some", 1, config()),
        world.create("more", 2, config()),
    );
    fill(&some, 60).await;
    let cleaner = world.clean(CleanerOptions::default());
    until("compacted", || cleaner.last_pass(&some).is_some()).await;
    cleaner.stop();
    fill(&some, 60).await;
    fill(&more, 60).await;
    let records = Records::default();
    let (first, second) = (
        choose(&world.partitions, &records),
        choose(&world.partitions, &records),
    );
    assert!(choose(&world.partitions, &records).choice.is_none());
    let name = |choice: &Option<super::Choice<'_>>| {
        let choice = choice.as_ref().unwrap();
        choice.partition.topic().to_string()
    };
    assert_eq!(
        (name(&first.choice), name(&second.choice)),
        ("more".into(), "some".into())
    );
    drop(first);
    assert_eq!(name(&choose(&world.partitions, &records).choice), "more");
}

#[tokio::test]
async fn a_log_below_its_ratio_waits_until_it_is_overdue() {
    let world = World::new();
    let lazy = LogConfig {
        min_cleanable_millionths: 1_000_000,
        ..config()
    };
    let partition = world.create("t", 7, lazy.clone());
    fill(&partition, 60).await;
    let records = Records::default();
    assert!(choose(&world.partitions, &records).choice.is_none());
    assert!(records.figures().dirty_ratio_max > 0.9);
    // Their timestamp is of 1970.
    let overdue = LogConfig {
        max_compaction_lag_ms: 1000,
        ..lazy
    };
    world.partitions.reconfigure("t", &overdue);
    assert!(choose(&world.partitions, &records).choice.is_some());
    assert_eq!(records.figures().overdue, 1);
}

#[tokio::test]
async fn a_policy_that_changes_is_followed_at_once() {
    let world = World::new();
    let not_compacted = LogConfig {
        compact: false,
        ..config()
    };
    let partition = world.create("t", 7, not_compacted.clone());
    fill(&partition, 60).await;
    let slow = CleanerOptions {
        backoff: Duration::from_secs(3600),
        ..CleanerOptions::default()
    };
    let start =
        |options| Cleaner::start(world.partitions.clone(), options, world.events.clone()).unwrap();
    let cleaner = start(slow);
    world.partitions.reconfigure("t", &config());
    until("compacted", || cleaner.last_pass(&partition).is_some()).await;
    world.partitions.reconfigure("t", &not_compacted);
    fill(&partition, 60).await;
    let records = Records::default();
    assert!(choose(&world.partitions, &records).choice.is_none());
    cleaner.stop();
}

/// At a byte a second a pass takes for ever.
fn never_done() -> CleanerOptions {
    CleanerOptions {
        bytes_per_second: 1.0,
        backoff: Duration::from_millis(50),
        ..CleanerOptions::default()
    }
}

fn is_at_work(cleaner: &Cleaner, partition: &Partition) -> bool {
    let key = super::key_of(partition);
    cleaner.shared.records.is_at_work(key)
}

/// Enough for a pass to pause within.
async fn fill_much(partition: &Partition) {
    fill_with(partition, 80, &[b'v'; 1000]).await;
}

#[tokio::test]
async fn a_slow_pass_is_given_up_at_once_where_it_may_not_go_on() {
    let world = World::new();
    let config = config();
    let partition = world.create("t", 7, config.clone());
    fill_much(&partition).await;
    let cleaner = world.clean(never_done());
    until("at work", || is_at_work(&cleaner, &partition)).await;
    // Not compacted any more.
    let not_compacted = LogConfig {
        compact: false,
        ..config.clone()
    };
    world.partitions.reconfigure("t", &not_compacted);
    until("given up", || !is_at_work(&cleaner, &partition)).await;
    world.partitions.reconfigure("t", &config);
    until("at work again", || is_at_work(&cleaner, &partition)).await;
    // Fewer threads.
    let none = CleanerOptions {
        threads: 0,
        ..never_done()
    };
    cleaner.set_options(none).unwrap();
    until("given up", || !is_at_work(&cleaner, &partition)).await;
    cleaner.set_options(never_done()).unwrap();
    until("at work again", || is_at_work(&cleaner, &partition)).await;
    // Deleted.
    let began = Instant::now();
    let left = world.partitions.delete(&[Uuid::from_u128(7)]).await;
    assert!(left.is_empty() && began.elapsed() < DEADLINE);
    until("given up", || !is_at_work(&cleaner, &partition)).await;
    let anew = world.create("t", 8, config);
    fill_much(&anew).await;
    until("at work again", || is_at_work(&cleaner, &anew)).await;
    // The end.
    let began = Instant::now();
    cleaner.stop();
    world.partitions.close();
    assert!(began.elapsed() < DEADLINE);
    assert_eq!(cleaner.figures().failures, 0);
    assert_eq!(world.checkpoint(), "");
}

#[tokio::test]
async fn a_log_that_fails_rests_and_is_told_of_and_the_others_go_on() {
    let world = World::new();
    let (bad, good) = (
        world.create("bad", 1, config()),
        world.create("good", 2, config()),
    );
    fill(&bad, 60).await;
    fill(&good, 60).await;
    let first = world.dir.path().join("bad-0/00000000000000000000.log");
    let mut content = std::fs::read(&first).unwrap();
    content[100] ^= 0xff;
    std::fs::write(&first, content).unwrap();
    let cleaner = world.clean(CleanerOptions::default());
    until("the other one is compacted", || {
        cleaner.last_pass(&good).is_some()
    })
    .await;
    until("it is told of", || !cleaner.uncleanable().is_empty()).await;
    let uncleanable = cleaner.uncleanable();
    assert_eq!(
        (&*uncleanable[0].topic, uncleanable[0].failures),
        ("bad", 1)
    );
    assert!(!uncleanable[0].remedy.is_empty());
    let told = world.events.latest(&[EventKind::Compaction], 9);
    assert!(told.iter().any(|event| event.subject == "bad-0"));
    let figures = cleaner.figures();
    assert_eq!((figures.uncleanable, figures.failures), (1, 1));
    // Other settings may help.
    let other = CleanerOptions {
        key_bytes: 1 << 21,
        backoff: Duration::from_millis(50),
        ..CleanerOptions::default()
    };
    cleaner.set_options(other).unwrap();
    until("it is tried again", || cleaner.figures().failures == 2).await;
    // It is forgotten with its topic.
    world.partitions.delete(&[Uuid::from_u128(1)]).await;
    until("forgotten", || cleaner.uncleanable().is_empty()).await;
    cleaner.stop();
}
