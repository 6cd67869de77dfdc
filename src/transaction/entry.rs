//! A transactional id in its slot's machine: what is stored of it, what is being stored, and who waits for that.

use std::collections::VecDeque;

use super::asks::{Ask, Asked};
use super::error::TransactionError;
use super::messages::Initialized;
use super::state::Producer;
use super::transaction::Transaction;
use crate::coordinator::Parts;

/// See the module's documentation.
pub(super) struct Entry {
    /// As it is stored.
    pub(super) now: Transaction,
    /// What is going on, if anything is.
    pub(super) live: Option<Box<Live>>,
}

/// What is going on with a transactional id.
#[derive(Default)]
pub(super) struct Live {
    /// What is being stored.
    pub(super) change: Option<Change>,
    /// Requests that wait for the change, or for markers, in their order.
    pub(super) waiting: VecDeque<Waiting>,
    /// What is to be tried again, but not before, ms; 0 for at once.
    pub(super) again_ms: i64,
    /// Of the markers that are being written; 0 for none yet.
    pub(super) markers: u64,
    /// The parts of a large record.
    pub(super) parts: Parts,
    /// In the machine's list of deadlines, ms.
    pub(super) deadline_ms: Option<i64>,
}

/// A change on its way to the store.
pub(super) struct Change {
    pub(super) next: Transaction,
    /// Whether the store has it: until then, more can go into the same write.
    pub(super) is_sent: bool,
    /// Of the write, where its record is in parts.
    pub(super) number: u64,
    pub(super) replies: Vec<Reply>,
}

/// What is answered when a change is stored.
pub(super) enum Reply {
    Init(Asked<Initialized>, Initialized),
    End(Asked<Producer>, Producer),
    Done(Asked<()>),
}

impl Reply {
    pub(super) fn send(self, stored: Result<(), TransactionError>) {
        match self {
            Self::Init(answer, initialized) => answer.send(stored.map(|()| initialized)),
            Self::End(answer, producer) => answer.send(stored.map(|()| producer)),
            Self::Done(answer) => answer.send(stored),
        }
    }
}

/// A request that waits.
pub(super) struct Waiting {
    pub(super) ask: Ask,
    /// Then it is refused, ms.
    pub(super) until_ms: i64,
}

impl Entry {
    pub(super) fn new(now: Transaction) -> Self {
        Self { now, live: None }
    }

    pub(super) fn live(&mut self) -> &mut Live {
        self.live.get_or_insert_default()
    }

    pub(super) fn change(&self) -> Option<&Change> {
        self.live.as_ref()?.change.as_ref()
    }

    /// Whether requests wait now: for a write, or for markers.
    pub(super) fn is_busy(&self) -> bool {
        self.change().is_some() || self.now.state.preparing().is_some()
    }

    /// When something is due, ms.
    pub(super) fn next_deadline(&self) -> Option<i64> {
        let live = self.live.as_deref();
        let waiting = live.into_iter().flat_map(|live| &live.waiting);
        let waiting = waiting.map(|waiting| waiting.until_ms).min();
        let again_ms = live.map_or(0, |live| live.again_ms);
        let due = match self.change() {
            Some(_) => None,
            None if self.now.state.preparing().is_some() => Some(again_ms),
            None => self.now.times_out_ms().map(|at_ms| at_ms.max(again_ms)),
        };
        waiting.into_iter().chain(due).min()
    }

    /// Takes no memory for what is not going on.
    pub(super) fn rest(&mut self) {
        let is_idle = |live: &Live| {
            live.change.is_none()
                && live.waiting.is_empty()
                && live.parts.is_empty()
                && live.deadline_ms.is_none()
        };
        if !self.is_busy() && self.live.as_deref().is_some_and(is_idle) {
            self.live = None;
        }
    }
}
