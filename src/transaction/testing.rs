//! A slot's machine over a store in memory, for the tests of this module.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::asks::{Ask, AskAll, Asked, Errand, Markers};
use super::error::TransactionError;
use super::limits::{COMPLETE_AFTER_MS, TransactionLimits};
use super::messages::{AddPartitions, End, Init, Initialized, TransactionDescription};
use super::state::{Outcome, Producer, TransactionVersion};
use super::transactions::{TransactionContext, Transactions};
use crate::clock::WallClock;
use crate::coordinator::{
    Answer, CoordinatorError, Machine, SlotPartition, Stored, StoredId, StoredSlot, TopicPartition,
    Topics, Write,
};
use crate::meta::{Node, Op, paths};
use crate::observe::Events;

pub(super) const ID: &str = "app";
pub(super) const TIMEOUT_MS: i32 = 60_000;
pub(super) const EXPIRATION_MS: i64 = 7 * 24 * 3_600_000;
pub(super) const TIMERS_MAX: usize = 3;
pub(super) const BYTES_MAX: usize = 1 << 20;

/// Topics with ten thousand partitions each, by id.
#[derive(Default)]
pub(super) struct SomeTopics(pub(super) Mutex<BTreeMap<String, Uuid>>);

impl Topics for SomeTopics {
    fn partition(&self, topic: &str, index: i32) -> Option<TopicPartition> {
        let topic_id = self.id_of(topic)?;
        (0..10_000).contains(&index).then(|| TopicPartition {
            topic_id,
            identity: format!("0-{index}"),
        })
    }

    fn index_of(&self, _: &str, identity: &str) -> Option<i32> {
        identity.strip_prefix("0-")?.parse().ok()
    }

    fn id_of(&self, topic: &str) -> Option<Uuid> {
        self.0.lock().get(topic).copied()
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
        Box::pin(std::future::ready(true))
    }
}

/// An answer that may have come.
pub(super) type Got<T> = oneshot::Receiver<Result<T, TransactionError>>;

pub(super) struct Bench {
    pub(super) machine: Transactions,
    pub(super) now_ms: i64,
    pub(super) topics: Arc<SomeTopics>,
    pub(super) tree: BTreeMap<String, Bytes>,
    /// Writes that are in flight.
    pub(super) writes: VecDeque<Write<Arc<str>>>,
    pub(super) next_id: i64,
    context: Arc<TransactionContext>,
    errands: mpsc::UnboundedReceiver<Errand>,
    /// Markers that were asked for.
    pub(super) markers: Vec<Markers>,
    epoch: i32,
}

impl Bench {
    pub(super) fn new() -> Self {
        let topics = Arc::new(SomeTopics::default());
        for (topic, id) in [("t", 1), ("u", 2)] {
            topics
                .0
                .lock()
                .insert(topic.to_owned(), Uuid::from_u128(id));
        }
        let (sender, errands) = mpsc::unbounded_channel();
        let context = Arc::new(TransactionContext {
            limits: TransactionLimits {
                timeout_ms_max: 900_000,
                expiration_ms: EXPIRATION_MS,
                expiration_check_ms: 3_600_000,
                timers_max: TIMERS_MAX,
                bytes_max: BYTES_MAX,
                two_phase: true,
            },
            errands: sender,
            events: Events::new(WallClock::default()),
            timers: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            last_number: 0.into(),
        });
        Self {
            machine: load(&context, &topics, &BTreeMap::new(), 1, 0),
            now_ms: 0,
            topics,
            tree: BTreeMap::new(),
            writes: VecDeque::new(),
            next_id: 1000,
            context,
            errands,
            markers: Vec::new(),
            epoch: 1,
        }
    }

    /// The broker dies: what is in flight is stored as far as `stored` says, and another one reads what is there.
    pub(super) fn crash(&mut self, stored: usize) {
        for write in std::mem::take(&mut self.writes).into_iter().take(stored) {
            apply(&mut self.tree, write.ops);
        }
        while self.errands.try_recv().is_ok() {}
        self.epoch += 1;
        let (tree, epoch) = (&self.tree, self.epoch);
        self.machine = load(&self.context, &self.topics, tree, epoch, self.now_ms);
        self.collect();
        self.tick();
    }

    /// Takes what the machine asks for.
    pub(super) fn collect(&mut self) {
        self.writes.extend(self.machine.take_writes());
        while let Ok(errand) = self.errands.try_recv() {
            match errand {
                Errand::Markers(markers) => self.markers.push(markers),
                Errand::ProducerId(_) => {
                    let id = self.next_id;
                    self.next_id += 1;
                    self.ask_all(AskAll::ProducerId(Some(id)));
                }
            }
        }
    }

    pub(super) fn ask(&mut self, id: &str, ask: Ask) {
        self.machine.handle(self.now_ms, id.to_owned(), ask);
        self.collect();
    }

    pub(super) fn ask_all(&mut self, ask: AskAll) {
        self.machine.handle_all(self.now_ms, ask);
        self.collect();
    }

    pub(super) fn tick(&mut self) {
        let is_due = |bench: &Self| {
            let next = bench.machine.next_deadline();
            next.is_some_and(|at_ms| at_ms <= bench.now_ms)
        };
        while is_due(self) {
            self.machine.tick(self.now_ms);
            self.collect();
        }
    }

    pub(super) fn wait(&mut self, ms: i64) {
        self.now_ms += ms;
        self.tick();
    }

    /// The first write in flight is stored.
    pub(super) fn store_one(&mut self) -> bool {
        let Some(write) = self.writes.pop_front() else {
            return false;
        };
        apply(&mut self.tree, write.ops);
        self.machine.stored(self.now_ms, write.then, Ok(()));
        self.collect();
        true
    }

    /// All writes are stored, and those that follow.
    pub(super) fn store(&mut self) {
        while self.store_one() {}
    }

    pub(super) fn refuse_one(&mut self) -> bool {
        let Some(write) = self.writes.pop_front() else {
            return false;
        };
        let refused = Err(CoordinatorError::NotAvailable);
        self.machine.stored(self.now_ms, write.then, refused);
        self.collect();
        true
    }

    /// All markers that were asked for are written.
    pub(super) fn mark(&mut self) {
        for markers in std::mem::take(&mut self.markers) {
            self.mark_one(&markers);
        }
        self.wait(COMPLETE_AFTER_MS);
    }

    pub(super) fn mark_one(&mut self, markers: &Markers) {
        let partitions = markers.partitions.iter();
        let partitions = partitions
            .map(|(topic, index)| (topic.clone(), index))
            .collect();
        let id = markers.transactional_id.to_string();
        self.ask(&id, Ask::Marked(markers.number, partitions));
    }

    fn asked<T>(&mut self, id: &str, ask: impl FnOnce(Asked<T>) -> Ask) -> Got<T> {
        let (answer, got) = Answer::new();
        self.ask(id, ask(answer));
        got
    }

    pub(super) fn begin(&mut self, id: &str, request: Init) -> Got<Initialized> {
        self.asked(id, |answer| Ask::Init(request, answer))
    }

    pub(super) fn begin_add(&mut self, id: &str, request: AddPartitions) -> Got<()> {
        self.asked(id, |answer| Ask::Add(request, answer))
    }

    pub(super) fn begin_end(&mut self, id: &str, request: End) -> Got<Producer> {
        self.asked(id, |answer| Ask::End(request, answer))
    }

    pub(super) fn init_as(&mut self, request: Init) -> Result<Initialized, TransactionError> {
        let got = self.begin(ID, request);
        self.store();
        self.mark();
        self.store();
        answered(got)
    }

    pub(super) fn init(&mut self) -> Producer {
        self.init_as(init()).unwrap().producer
    }

    pub(super) fn add(
        &mut self,
        producer: Producer,
        partitions: &[(&str, i32)],
    ) -> Result<(), TransactionError> {
        let got = self.begin_add(ID, add(producer, partitions));
        self.store();
        answered(got)
    }

    /// Answered, with no marker written.
    pub(super) fn end(&mut self, request: End) -> Result<Producer, TransactionError> {
        let got = self.begin_end(ID, request);
        self.store();
        answered(got)
    }

    pub(super) fn verify(
        &mut self,
        producer: Producer,
        partitions: &[(&str, i32)],
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        let request = add(producer, partitions);
        let got = self.asked(ID, |answer| Ask::Verify(request, answer));
        answered(got)
    }

    /// The answer does not matter.
    pub(super) fn begin_decide(&mut self, outcome: Outcome) {
        drop(self.asked(ID, |answer| Ask::Decide(outcome, answer)));
    }

    pub(super) fn decide(&mut self, outcome: Outcome) -> Result<(), TransactionError> {
        let got = self.asked(ID, |answer| Ask::Decide(outcome, answer));
        self.store();
        answered(got)
    }

    pub(super) fn forget_decision(&mut self) -> Result<(), TransactionError> {
        let got = self.asked(ID, Ask::ForgetDecision);
        self.store();
        answered(got)
    }

    pub(super) fn describe(&mut self, id: &str) -> Option<TransactionDescription> {
        let (answer, mut got) = Answer::new();
        self.ask(id, Ask::Describe(answer));
        got.try_recv().unwrap()
    }

    pub(super) fn state(&mut self) -> &'static str {
        self.describe(ID).map_or("none", |found| found.state.name())
    }

    pub(super) fn bytes(&self) -> usize {
        self.context
            .bytes
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn open_timers(&self) -> usize {
        self.context
            .timers
            .load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// The answer that must have come.
pub(super) fn answered<T>(mut got: Got<T>) -> Result<T, TransactionError> {
    got.try_recv().expect("an answer")
}

pub(super) fn is_answered<T>(got: &mut Got<T>) -> bool {
    !matches!(got.try_recv(), Err(oneshot::error::TryRecvError::Empty))
}

pub(super) fn init() -> Init {
    Init {
        timeout_ms: TIMEOUT_MS,
        expected: None,
        keep_prepared: false,
    }
}

pub(super) fn expecting(producer: Producer) -> Init {
    Init {
        expected: Some(producer),
        ..init()
    }
}

pub(super) fn add(producer: Producer, partitions: &[(&str, i32)]) -> AddPartitions {
    let partitions = partitions.iter();
    AddPartitions {
        producer,
        partitions: partitions.map(|(t, n)| ((*t).to_owned(), *n)).collect(),
        version: TransactionVersion::V2,
    }
}

pub(super) fn commit(producer: Producer) -> End {
    End {
        producer,
        outcome: Outcome::Commit,
        version: TransactionVersion::V2,
    }
}

pub(super) fn abort(producer: Producer) -> End {
    End {
        outcome: Outcome::Abort,
        ..commit(producer)
    }
}

pub(super) fn v1(end: End) -> End {
    End {
        version: TransactionVersion::V0,
        ..end
    }
}

pub(super) fn bumped(producer: Producer) -> Producer {
    Producer {
        epoch: producer.epoch + 1,
        ..producer
    }
}

pub(super) fn before(producer: Producer) -> Producer {
    Producer {
        epoch: producer.epoch - 1,
        ..producer
    }
}

/// A producer that has such an epoch.
pub(super) fn with_epoch(bench: &mut Bench, epoch: i16) -> Producer {
    let producer = bench.init();
    let path = paths::transaction(ID);
    let stored = String::from_utf8(bench.tree[&path].to_vec()).unwrap();
    let stored = stored.replace("\"epoch\":0", &format!("\"epoch\":{epoch}"));
    bench.tree.insert(path, stored.into());
    bench.crash(0);
    Producer { epoch, ..producer }
}

pub(super) fn complete(bench: &mut Bench, end: End) -> Producer {
    let after = bench.end(end).unwrap();
    bench.mark();
    bench.store();
    after
}

fn apply(tree: &mut BTreeMap<String, Bytes>, ops: Vec<Op>) {
    for op in ops {
        match op {
            Op::Put { path, data, .. } => drop(tree.insert(path, data)),
            Op::DeleteTree { path } => tree.retain(|there, _| !paths::is_at_or_below(there, &path)),
            other => panic!("{other:?}"),
        }
    }
}

fn load(
    context: &Arc<TransactionContext>,
    topics: &Arc<SomeTopics>,
    tree: &BTreeMap<String, Bytes>,
    epoch: i32,
    now_ms: i64,
) -> Transactions {
    let mut ids: BTreeMap<String, Vec<(String, Node)>> = BTreeMap::new();
    for (path, data) in tree {
        let id = paths::child_of(paths::TRANSACTIONS, path).unwrap();
        let node = Node {
            data: data.clone(),
            version: 0,
            ephemeral: false,
        };
        ids.entry(id).or_default().push((path.clone(), node));
    }
    let ids = ids.into_iter().map(|(id, nodes)| StoredId { id, nodes });
    let slot = StoredSlot {
        ids: ids.collect(),
        nodes: Vec::new(),
    };
    let topics: Arc<dyn Topics> = topics.clone();
    let loaded = Transactions::load(Stored {
        context,
        topics: &topics,
        partition: SlotPartition::find(Transactions::TOPIC.name(), 7).unwrap(),
        epoch,
        now_ms,
        slot: &slot,
    });
    loaded.machine
}
