//! What runs in a shard: a state machine for all ids of one kind in a slot, free of I/O, clocks and locks.
//!
//! A call says what happened and when. After each call the shard takes the writes that the machine asks for
//! ([`Machine::take_writes`]), queues them in that order, and brings their outcomes back ([`Machine::stored`]). Memory
//! follows what is stored: a machine changes its state when the write is stored, or undoes the change if it is refused.
//!
//! An ask brings its [`Answer`]. The machine answers at once, when a write is stored, or keeps the answer until something
//! changes. A dropped answer means NOT_COORDINATOR.
//!
//! A machine does not call other brokers or other slots. Its context has a channel to a task that does, and the result comes
//! back as an ask through the [`Coordinator`](super::Coordinator). So all events reach the machine one by one, in the slot's
//! task.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::error::CoordinatorError;
use super::slot::{InternalTopic, SlotPartition};
use super::topics::Topics;
use crate::meta::{Node, Op};

/// Where an ask is answered.
#[derive(Debug)]
pub struct Answer<T>(oneshot::Sender<T>);

impl<T> Answer<T> {
    pub(crate) fn new() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers; a client that went away meanwhile misses it.
    pub fn send(self, value: T) {
        let _ = self.0.send(value);
    }
}

/// Nodes to write in one multi, and how to go on with the outcome.
#[derive(Debug)]
pub struct Write<T> {
    /// The id that they belong to.
    pub id: String,
    /// What to write. The multi also checks that this broker still owns the slot.
    pub ops: Vec<Op>,
    /// Comes back with the outcome.
    pub then: T,
}

/// What is stored of one id: the nodes at and below it, with their paths.
#[derive(Debug)]
pub struct StoredId {
    /// The id.
    pub id: String,
    /// In no particular order.
    pub nodes: Vec<(String, Node)>,
}

/// What is stored of a slot.
#[derive(Debug, Default)]
pub struct StoredSlot {
    /// All its ids.
    pub ids: Vec<StoredId>,
    /// Nodes of its own, below its child of [`Machine::SLOT_ROOT`], in no particular order.
    pub nodes: Vec<(String, Node)>,
}

/// What the machine of a slot is made of.
pub struct Stored<'a, M: Machine> {
    /// What the machines of all slots share.
    pub context: &'a Arc<M::Context>,
    /// The cluster's topics, now and later.
    pub topics: &'a Arc<dyn Topics>,
    /// The slot, as a partition of [`Machine::TOPIC`].
    pub partition: SlotPartition,
    /// Counts the slot's owners; that of a partition's leaders on the wire.
    pub epoch: i32,
    /// The time.
    pub now_ms: i64,
    /// The slot's nodes.
    pub slot: &'a StoredSlot,
}

/// A machine made of stored nodes.
pub struct Loaded<M> {
    /// The machine.
    pub machine: M,
    /// How many nodes name partitions that [`Topics`] does not know.
    pub unresolved: usize,
}

/// See the module's documentation.
pub trait Machine: Sized + Send + 'static {
    /// The internal topic whose partitions stand for its slots.
    const TOPIC: InternalTopic;
    /// Its ids are the children of this node.
    const ROOT: &'static str;
    /// Where slots have nodes of their own: below the children of this node, which are named by slots' numbers.
    const SLOT_ROOT: Option<&'static str> = None;
    /// What the machines of all slots share: limits, where events go.
    type Context: Send + Sync + 'static;
    /// What is asked about one id, with its answer.
    type Ask: Send;
    /// What is asked about all ids of the slot.
    type AskAll: Send;
    /// How to go on with the outcome of a write.
    type Then: Send;

    /// Makes the machine of a slot. It may ask for writes at once.
    fn load(stored: Stored<'_, Self>) -> Loaded<Self>;

    /// An ask about one id.
    fn handle(&mut self, now_ms: i64, id: String, ask: Self::Ask);

    /// An ask about all ids of the slot.
    fn handle_all(&mut self, now_ms: i64, ask: Self::AskAll);

    /// When [`Self::tick`] has something to do, ms.
    fn next_deadline(&self) -> Option<i64>;

    /// Does what is due, for each id at most once.
    fn tick(&mut self, now_ms: i64);

    /// A write is stored or refused.
    fn stored(&mut self, now_ms: i64, then: Self::Then, outcome: Result<(), CoordinatorError>);

    /// The writes that were asked for since the last call, in order.
    fn take_writes(&mut self) -> Vec<Write<Self::Then>>;
}
