//! What runs in a shard: a state machine for all ids of one kind in a slot, free of I/O, clocks and locks.
//!
//! A call says what happened and when. What the machine wants stored is taken from it after each call
//! ([`Machine::take_writes`]), written in that order, each write at once or not at all, and its outcome comes back
//! ([`Machine::stored`]). Memory follows what is stored: a machine changes what a write is about when the write is stored,
//! or puts it back if it is not.
//!
//! An ask brings its [`Answer`]. The machine answers at once, when a write is stored, or keeps the answer until something
//! changes; an answer that is dropped says that another broker coordinates the id.
//!
//! What takes time elsewhere (calls of other brokers, of other slots) is not done in a machine: whoever makes its context
//! gives it a channel to a task that does it, and the result comes back as an ask through the
//! [`Coordinator`](super::Coordinator). So a machine sees events one after the other, all of them in the slot's task.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{CoordinatorError, InternalTopic, Topics};
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

/// Nodes to write in one step, and what goes on when they are stored.
#[derive(Debug)]
pub struct Write<T> {
    /// The id that they belong to.
    pub id: String,
    /// What to write. That the slot is still this broker's is checked in the same step.
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

/// A machine that was made of what is stored.
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
    /// What the machines of all slots share: limits, where events go.
    type Context: Send + Sync + 'static;
    /// What is asked of one id, with the answer.
    type Ask: Send;
    /// What is asked of all ids in the slot.
    type AskAll: Send;
    /// What goes on when a write is stored.
    type Then: Send;

    /// Makes the machine of a slot. It may want something written at once.
    fn load(
        context: &Arc<Self::Context>,
        topics: &Arc<dyn Topics>,
        now_ms: i64,
        stored: &[StoredId],
    ) -> Loaded<Self>;

    /// Something is asked of an id.
    fn handle(&mut self, now_ms: i64, id: String, ask: Self::Ask);

    /// Something is asked of the slot.
    fn handle_all(&mut self, now_ms: i64, ask: Self::AskAll);

    /// When [`Self::tick`] has something to do, ms.
    fn next_deadline(&self) -> Option<i64>;

    /// Does what is due, for each id at most once.
    fn tick(&mut self, now_ms: i64);

    /// A write is stored, or nothing of it is.
    fn stored(&mut self, now_ms: i64, then: Self::Then, outcome: Result<(), CoordinatorError>);

    /// What the calls since the last one want written, in order.
    fn take_writes(&mut self) -> Vec<Write<Self::Then>>;
}
