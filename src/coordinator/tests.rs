//! A coordinator whose machine counts numbers up.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::clock::WallClock;
use crate::meta::{MetaStore, Op, paths};

/// How many ms after being asked [`Ask::Later`] is answered.
const LATER_MS: i64 = 10;

/// The numbers of a slot.
struct Numbers {
    partition: SlotPartition,
    epoch: i32,
    numbers: BTreeMap<String, i64>,
    later: Vec<(i64, Answer<()>)>,
    waiting: Vec<Answer<()>>,
    writes: Vec<Write<Counted>>,
}

struct Counted(String, i64, Answer<i64>);

enum Ask {
    /// Counts up; answered when it is stored.
    Count(Answer<i64>),
    Read(Answer<i64>),
    /// Where it runs.
    Shard(Answer<(SlotPartition, i32)>),
    Later(Answer<()>),
    /// Never answered.
    Wait(Answer<()>),
}

impl Machine for Numbers {
    const TOPIC: InternalTopic = InternalTopic::TransactionState;
    const ROOT: &'static str = "/numbers";
    type Context = ();
    type Ask = Ask;
    type AskAll = Answer<i64>;
    type Then = Counted;

    fn load(stored: Stored<'_, Self>) -> Loaded<Self> {
        let mut numbers = BTreeMap::new();
        for StoredId { id, nodes } in &stored.slot.ids {
            let data = std::str::from_utf8(&nodes[0].1.data).unwrap();
            numbers.insert(id.clone(), data.parse().unwrap());
        }
        let are_known = stored.topics.id_of("t").is_some();
        let unresolved = if are_known { 0 } else { numbers.len() };
        let machine = Self {
            partition: stored.partition,
            epoch: stored.epoch,
            numbers,
            later: Vec::new(),
            waiting: Vec::new(),
            writes: Vec::new(),
        };
        Loaded {
            machine,
            unresolved,
        }
    }

    fn handle(&mut self, now_ms: i64, id: String, ask: Ask) {
        let known = self.numbers.get(&id).copied().unwrap_or(0);
        match ask {
            Ask::Read(answer) => answer.send(known),
            Ask::Shard(answer) => answer.send((self.partition, self.epoch)),
            Ask::Later(answer) => self.later.push((now_ms + LATER_MS, answer)),
            Ask::Wait(answer) => self.waiting.push(answer),
            Ask::Count(answer) => {
                let data = Bytes::from((known + 1).to_string());
                self.writes.push(Write {
                    ops: vec![Op::put(paths::child(Self::ROOT, &id), data)],
                    then: Counted(id.clone(), known + 1, answer),
                    id,
                });
            }
        }
    }

    fn handle_all(&mut self, _: i64, answer: Answer<i64>) {
        answer.send(self.numbers.values().sum());
    }

    fn next_deadline(&self) -> Option<i64> {
        self.later.first().map(|(at_ms, _)| *at_ms)
    }

    fn tick(&mut self, now_ms: i64) {
        let due = self.later.extract_if(.., |(at_ms, _)| *at_ms <= now_ms);
        due.for_each(|(_, answer)| answer.send(()));
    }

    fn stored(&mut self, _: i64, then: Counted, outcome: Result<(), CoordinatorError>) {
        let Counted(id, number, answer) = then;
        if outcome.is_ok() {
            self.numbers.insert(id, number);
            answer.send(number);
        }
    }

    fn take_writes(&mut self) -> Vec<Write<Counted>> {
        std::mem::take(&mut self.writes)
    }
}

/// Topics that are known from the first refresh on.
#[derive(Default)]
struct LateTopics {
    refreshed: AtomicUsize,
    cannot_read: AtomicBool,
}

impl Topics for LateTopics {
    fn partition(&self, _: &str, _: i32) -> Option<TopicPartition> {
        None
    }

    fn index_of(&self, _: &str, _: &str) -> Option<i32> {
        None
    }

    fn id_of(&self, _: &str) -> Option<Uuid> {
        (self.refreshed.load(Ordering::SeqCst) > 0).then_some(Uuid::nil())
    }

    fn name_of(&self, _: Uuid) -> Option<String> {
        None
    }

    fn shape_of(&self, _: &str) -> Option<(Uuid, i32)> {
        None
    }

    fn for_each_name(&self, _: &mut dyn FnMut(&str)) {}

    fn version(&self) -> u64 {
        1
    }

    fn refresh(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        let reads = !self.cannot_read.load(Ordering::SeqCst);
        self.refreshed
            .fetch_add(usize::from(reads), Ordering::SeqCst);
        Box::pin(std::future::ready(reads))
    }
}

/// One broker's coordinator, and the slot of the number `n`.
struct Bench {
    _dir: tempfile::TempDir,
    meta: MetaStore,
    topics: Arc<LateTopics>,
    numbers: Coordinator<Numbers>,
    slot: Slot,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let meta = MetaStore::open_embedded(&dir.path().join("meta")).unwrap();
        meta.lease().claim(meta.lease().session());
        let topics = Arc::new(LateTopics::default());
        let wall = WallClock::default();
        let bench = Self {
            _dir: dir,
            numbers: Coordinator::new(meta.clone(), topics.clone(), &wall, ()),
            meta,
            topics,
            slot: Slot::of("n"),
        };
        bench.change_owner().await;
        bench
    }

    /// The slot's node gets the next version.
    async fn change_owner(&self) {
        let path = paths::coordinator_slot(self.slot.number());
        self.meta
            .multi(vec![Op::put(path, Bytes::new())])
            .await
            .unwrap();
    }

    async fn assign(&self, epoch: i32) {
        let version = epoch;
        let owned = BTreeMap::from([(self.slot, Ownership { epoch, version })]);
        self.numbers.assign(&owned).await.unwrap();
    }

    async fn ask<T>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Result<T, CoordinatorError> {
        self.numbers.ask("n", ask, || ()).await
    }
}

const NOT_COORDINATOR: CoordinatorError = CoordinatorError::NotCoordinator;

#[tokio::test]
async fn what_a_broker_stored_is_read_by_the_next_one_that_has_the_slot() {
    let bench = Bench::new().await;
    assert_eq!(bench.ask(Ask::Read).await, Err(NOT_COORDINATOR));
    bench.assign(0).await;
    assert_eq!(bench.ask(Ask::Count).await, Ok(1));
    assert_eq!(bench.ask(Ask::Count).await, Ok(2));
    assert_eq!(bench.numbers.ask_all(|answer| answer).await, [2]);
    bench.numbers.assign(&BTreeMap::new()).await.unwrap();
    assert_eq!(bench.ask(Ask::Read).await, Err(NOT_COORDINATOR));
    assert!(bench.numbers.ask_all(|answer| answer).await.is_empty());
    bench.assign(0).await;
    assert_eq!(bench.ask(Ask::Read).await, Ok(2));
    let other = bench.numbers.ask("another slot", Ask::Read, || ()).await;
    assert_eq!(other, Err(NOT_COORDINATOR));
}

#[tokio::test]
async fn a_broker_that_lost_the_slot_unnoticed_writes_nothing_and_answers_nothing() {
    let bench = Bench::new().await;
    bench.assign(0).await;
    assert_eq!(bench.ask(Ask::Count).await, Ok(1));
    let waits = bench.ask(Ask::Wait);
    bench.change_owner().await;
    let (counted, waited) = tokio::join!(bench.ask(Ask::Count), waits);
    assert_eq!(
        (counted, waited),
        (Err(NOT_COORDINATOR), Err(NOT_COORDINATOR))
    );
    assert_eq!(bench.ask(Ask::Read).await, Err(NOT_COORDINATOR));
    bench.assign(1).await;
    assert_eq!(bench.ask(Ask::Read).await, Ok(1));
    let partition = SlotPartition {
        topic: InternalTopic::TransactionState,
        slot: bench.slot,
    };
    assert_eq!(bench.ask(Ask::Shard).await, Ok((partition, 1)));
}

#[tokio::test]
async fn a_slot_is_read_again_in_another_session_and_not_asked_before() {
    let bench = Bench::new().await;
    bench.assign(0).await;
    assert_eq!(bench.ask(Ask::Count).await, Ok(1));
    let lease = bench.meta.lease();
    lease.begin(2);
    assert_eq!(bench.ask(Ask::Read).await, Err(NOT_COORDINATOR));
    // Another broker counts, and is gone again.
    let path = paths::child(Numbers::ROOT, "n");
    let counted = vec![Op::put(path, Bytes::from_static(b"7"))];
    bench.meta.multi(counted).await.unwrap();
    lease.claim(2);
    assert_eq!(bench.ask(Ask::Read).await, Err(NOT_COORDINATOR));
    bench.assign(0).await;
    assert_eq!(bench.ask(Ask::Read).await, Ok(7));
}

#[tokio::test]
async fn topics_are_refreshed_for_what_names_unknown_ones_and_only_then() {
    let bench = Bench::new().await;
    bench.assign(0).await;
    assert_eq!(bench.topics.refreshed.load(Ordering::SeqCst), 0);
    assert_eq!(bench.ask(Ask::Count).await, Ok(1));
    for _ in 0..2 {
        bench.numbers.assign(&BTreeMap::new()).await.unwrap();
        bench.assign(0).await;
        assert_eq!(bench.topics.refreshed.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_slot_is_not_taken_while_topics_that_its_nodes_name_cannot_be_read() {
    let bench = Bench::new().await;
    bench.assign(0).await;
    assert_eq!(bench.ask(Ask::Count).await, Ok(1));
    bench.numbers.assign(&BTreeMap::new()).await.unwrap();
    bench.topics.cannot_read.store(true, Ordering::SeqCst);
    let ownership = Ownership {
        epoch: 1,
        version: 0,
    };
    let owned = BTreeMap::from([(bench.slot, ownership)]);
    assert!(bench.numbers.assign(&owned).await.is_err());
    assert!(bench.ask(Ask::Read).await.is_err());
    bench.topics.cannot_read.store(false, Ordering::SeqCst);
    bench.numbers.assign(&owned).await.unwrap();
    assert_eq!(bench.ask(Ask::Read).await, Ok(1));
}

#[tokio::test]
async fn the_machine_is_called_when_its_deadline_is_over() {
    let bench = Bench::new().await;
    bench.assign(0).await;
    let began = std::time::Instant::now();
    assert_eq!(bench.ask(Ask::Later).await, Ok(()));
    assert!(began.elapsed().as_millis() as i64 >= LATER_MS - 1);
}

#[tokio::test]
async fn an_ask_that_waits_for_others_is_sent_away_at_a_shutdown() {
    let bench = Bench::new().await;
    bench.assign(0).await;
    let waits = bench.numbers.ask_unless_draining("n", Ask::Wait);
    let drains = async { bench.numbers.drain() };
    let (waited, ()) = tokio::join!(waits, drains);
    assert_eq!(waited, Err(NOT_COORDINATOR));
    let waits = bench.numbers.ask_unless_draining("n", Ask::Wait);
    assert_eq!(waits.await, Err(NOT_COORDINATOR));
    assert_eq!(
        bench.ask(Ask::Count).await,
        Ok(1),
        "what does not wait is served"
    );
    bench.numbers.stop();
    assert_eq!(bench.ask(Ask::Read).await, Err(NOT_COORDINATOR));
}

#[cfg(debug_assertions)]
#[tokio::test]
#[should_panic(expected = "went back from epoch")]
async fn an_owner_of_an_earlier_epoch_is_noticed() {
    let bench = Bench::new().await;
    bench.assign(1).await;
    bench.assign(0).await;
}
