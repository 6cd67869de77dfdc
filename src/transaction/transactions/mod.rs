//! The transactional ids of one slot as a machine of the coordinator: their timers, the requests that wait for them, and
//! their writes.
//!
//! - here: what happens, what waits, what is stored
//! - `requests`: what clients and operators ask for
//! - `ending`: markers, timeouts, topics that are deleted, ids that expire
//! - `tests`, `ending_tests`, `model`: of all files here, with writes that are stored or refused, and against a small model

mod ending;
#[cfg(test)]
mod ending_tests;
#[cfg(test)]
mod model;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::asks::{Ask, AskAll, Errand};
use super::entry::{Change, Entry, Live, Reply, Waiting};
use super::error::TransactionError;
use super::limits::{
    PRODUCER_ID_AGAIN_MS, STORE_AGAIN_MS, TransactionLimits, WAITING_ALL_MAX, WAITING_MAX,
};
use super::messages::{HANGING_MS, TransactionCounts, TransactionDescription};
use super::persist;
use super::state::State;
use super::transaction::{Spare, Transaction};
use crate::coordinator::{
    CoordinatorError, InternalTopic, Loaded, Machine, SlotPartition, Stored, Topics, Write,
};
use crate::meta::paths;
use crate::observe::{EventKind, Events, Happened};

/// What the transactional ids of all slots share.
pub(super) struct TransactionContext {
    pub(super) limits: TransactionLimits,
    /// What other brokers and the cluster are asked for.
    pub(super) errands: mpsc::UnboundedSender<Errand>,
    /// Reports transactions that end without their producer.
    pub(super) events: Events,
    /// Open transactions that have a timeout.
    pub(super) timers: AtomicUsize,
    /// Requests that wait.
    pub(super) waiting: AtomicUsize,
    /// What all ids take.
    pub(super) bytes: AtomicUsize,
    /// Of [`Markers`](super::asks::Markers).
    pub(super) last_number: AtomicU64,
}

/// See the module's documentation.
pub(super) struct Transactions {
    context: Arc<TransactionContext>,
    topics: Arc<dyn Topics>,
    partition: SlotPartition,
    epoch: i32,
    ids: HashMap<Arc<str>, Entry>,
    /// Timers of transactional ids, ms.
    deadlines: BTreeSet<(i64, Arc<str>)>,
    /// When ids are looked through for those that expired, ms.
    expire_at_ms: i64,
    /// A producer id that nobody has.
    spare: Spare,
    /// Requests that wait for one.
    without_id: VecDeque<(Arc<str>, Ask)>,
    /// When one was asked for, ms.
    id_asked_ms: Option<i64>,
    /// Changes that are not sent yet.
    unsent: Vec<Arc<str>>,
    /// Of this slot, of what [`TransactionContext`] counts of all.
    timers: usize,
    waiting: usize,
    bytes: usize,
}

impl Machine for Transactions {
    const TOPIC: InternalTopic = InternalTopic::TransactionState;
    const ROOT: &'static str = paths::TRANSACTIONS;
    type Context = TransactionContext;
    type Ask = Ask;
    type AskAll = AskAll;
    type Then = Arc<str>;

    fn load(from: Stored<'_, Self>) -> Loaded<Self> {
        let mut machine = Self {
            context: from.context.clone(),
            topics: from.topics.clone(),
            partition: from.partition,
            epoch: from.epoch,
            ids: HashMap::with_capacity(from.slot.ids.len()),
            deadlines: BTreeSet::new(),
            expire_at_ms: from.now_ms,
            spare: None,
            without_id: VecDeque::new(),
            id_asked_ms: None,
            unsent: Vec::new(),
            timers: 0,
            waiting: 0,
            bytes: 0,
        };
        let mut unresolved = 0;
        for stored in &from.slot.ids {
            match persist::load(stored, &**from.topics) {
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "the transactional id is not known"),
                Ok(Some(loaded)) => {
                    unresolved += loaded.unresolved;
                    let id: Arc<str> = stored.id.as_str().into();
                    machine.count_bytes(0, loaded.transaction.bytes(&id));
                    if loaded.transaction.times_out_ms().is_some() {
                        machine.count_timer(true);
                    }
                    let mut entry = Entry::new(loaded.transaction);
                    if !loaded.parts.is_empty() {
                        entry.live().parts = loaded.parts;
                    }
                    machine.ids.insert(id.clone(), entry);
                    // What is being ended is due at once: its markers are sent again.
                    machine.settle(&id);
                }
            }
        }
        Loaded {
            machine,
            unresolved,
        }
    }

    fn handle(&mut self, now_ms: i64, id: String, ask: Ask) {
        let id: Arc<str> = match self.ids.get_key_value(id.as_str()) {
            Some((id, _)) => id.clone(),
            None => id.into(),
        };
        self.take(now_ms, &id, ask);
        self.settle(&id);
    }

    fn handle_all(&mut self, now_ms: i64, ask: AskAll) {
        match ask {
            AskAll::List(answer) => {
                let ids = self.ids.iter();
                let stored = ids.filter(|(_, entry)| entry.now.state != State::Dead);
                answer.send(stored.map(|(id, entry)| describe(id, &entry.now)).collect());
            }
            AskAll::Count(answer) => answer.send(self.count(now_ms)),
            AskAll::TopicDeleted(topic, id) => self.topic_deleted(now_ms, &topic, id),
            AskAll::ProducerId(id) => self.take_producer_id(now_ms, id),
        }
    }

    fn next_deadline(&self) -> Option<i64> {
        let first = self.deadlines.first().map(|(at_ms, _)| *at_ms);
        let asked_ms = self.id_asked_ms.map(|at_ms| at_ms + PRODUCER_ID_AGAIN_MS);
        let due = [first, asked_ms, Some(self.expire_at_ms)];
        due.into_iter().flatten().min()
    }

    /// Each id does what is due, once: what is due again by then waits for the next call, after other events.
    fn tick(&mut self, now_ms: i64) {
        let later = self.deadlines.split_off(&(now_ms + 1, "".into()));
        for (_, id) in std::mem::replace(&mut self.deadlines, later) {
            if let Some(live) = self.live_of(&id) {
                live.deadline_ms = None;
            }
            self.refuse_those_that_waited(now_ms, &id);
            self.end_what_is_due(now_ms, &id);
            self.settle(&id);
        }
        let is_missing = |at_ms: i64| at_ms + PRODUCER_ID_AGAIN_MS <= now_ms;
        if self.id_asked_ms.is_some_and(is_missing) {
            self.ask_for_producer_id(now_ms);
        }
        if self.expire_at_ms <= now_ms {
            self.expire(now_ms);
        }
    }

    fn stored(&mut self, now_ms: i64, id: Arc<str>, outcome: Result<(), CoordinatorError>) {
        let Some(entry) = self.ids.get_mut(&id) else {
            return;
        };
        let Some(change) = entry.live().change.take() else {
            return;
        };
        let stored = outcome.map_err(TransactionError::from);
        match stored {
            Ok(()) => {
                let was_timed = entry.now.times_out_ms().is_some();
                let bytes = (entry.now.bytes(&id), change.next.bytes(&id));
                entry.now = change.next;
                let live = entry.live();
                live.again_ms = 0;
                live.markers = 0;
                live.parts.stored(change.number);
                let is_timed = entry.now.times_out_ms().is_some();
                let is_preparing = entry.now.state.preparing().is_some();
                self.count_bytes(bytes.0, bytes.1);
                if was_timed != is_timed {
                    self.count_timer(is_timed);
                }
                if is_preparing {
                    self.end_what_is_due(now_ms, &id);
                }
            }
            Err(error) => {
                entry.live().again_ms = now_ms + STORE_AGAIN_MS;
                self.refuse_who_fences(&id, error);
            }
        }
        for reply in change.replies {
            reply.send(stored);
        }
        self.take_waiting(now_ms, &id);
        self.settle(&id);
    }

    fn take_writes(&mut self) -> Vec<Write<Arc<str>>> {
        let unsent = std::mem::take(&mut self.unsent);
        unsent.into_iter().filter_map(|id| self.write(id)).collect()
    }
}

impl Transactions {
    fn live_of(&mut self, id: &str) -> Option<&mut Live> {
        self.ids.get_mut(id)?.live.as_deref_mut()
    }

    fn is_busy(&self, id: &str) -> bool {
        self.ids.get(id).is_some_and(Entry::is_busy)
    }

    /// Takes a request, or lets it wait.
    fn take(&mut self, now_ms: i64, id: &Arc<str>, ask: Ask) {
        let must_wait = match &ask {
            Ask::Describe(_) | Ask::Marked(..) => false,
            // The log looks again when records are appended.
            Ask::Verify(..) => {
                let entry = self.ids.get(id);
                entry.is_some_and(|entry| entry.now.state.preparing().is_some())
            }
            _ => self.is_busy(id),
        };
        match must_wait {
            true => {
                self.wait(now_ms, id, ask);
                self.complete(now_ms, id);
            }
            false => self.decide(now_ms, id, ask),
        }
    }

    fn decide(&mut self, now_ms: i64, id: &Arc<str>, ask: Ask) {
        match ask {
            Ask::Init(request, answer) => self.init(now_ms, id, request, answer),
            Ask::Add(request, answer) => self.add(now_ms, id, request, answer),
            Ask::Verify(request, answer) => answer.send(self.now(id).verify(&request)),
            Ask::End(request, answer) => self.end(now_ms, id, request, answer),
            Ask::Describe(answer) => {
                let entry = self.ids.get(id);
                let entry = entry.filter(|entry| entry.now.state != State::Dead);
                answer.send(entry.map(|entry| describe(id, &entry.now)));
            }
            Ask::Decide(outcome, answer) => self.decide_for_client(now_ms, id, outcome, answer),
            Ask::ForgetDecision(answer) => self.forget_decision(id, answer),
            Ask::TimedOut => self.timed_out(now_ms, id),
            Ask::Marked(number, partitions) => self.marked(now_ms, id, number, &partitions),
        }
    }

    /// As it is stored.
    fn now(&self, id: &str) -> &Transaction {
        self.ids
            .get(id)
            .map_or(&Transaction::DEAD, |entry| &entry.now)
    }

    /// Reports to people that a transaction ends without its producer.
    fn report(&self, now_ms: i64, id: &str, why: &str) {
        let now = self.now(id);
        let detail = format!(
            "producer {}, epoch {}, {} partitions, open for {} ms",
            now.producer.id,
            now.producer.epoch,
            now.partitions.len(),
            now_ms - now.start_ms
        );
        tracing::info!(id, why, detail, "a transaction");
        let happened = Happened::new(EventKind::Transaction, id).why(why);
        self.context.events.tell(happened.detail(detail));
    }

    fn count(&self, now_ms: i64) -> TransactionCounts {
        let mut counts = TransactionCounts::default();
        for entry in self.ids.values() {
            let now = &entry.now;
            let is_ending = now.state.preparing().is_some();
            let is_open = now.state == State::Ongoing;
            counts += TransactionCounts {
                ids: usize::from(now.state != State::Dead),
                open: usize::from(is_open),
                two_phase: usize::from(is_open && now.is_two_phase()),
                ending: usize::from(is_ending),
                hanging: usize::from(is_ending && now_ms - now.updated_ms > HANGING_MS),
            };
        }
        counts
    }

    /// A request waits for the change that goes on.
    fn wait(&mut self, now_ms: i64, id: &Arc<str>, ask: Ask) {
        let until_ms = now_ms + ask.wait_ms_max();
        let is_full = self.context.waiting.load(Ordering::Relaxed) >= WAITING_ALL_MAX;
        let Some(entry) = self.ids.get_mut(id) else {
            return ask.refuse(TransactionError::ConcurrentTransactions);
        };
        let waiting = &mut entry.live().waiting;
        if is_full || waiting.len() >= WAITING_MAX {
            return ask.refuse(TransactionError::ConcurrentTransactions);
        }
        waiting.push_back(Waiting { ask, until_ms });
        self.count_waiting(true);
    }

    /// Takes requests that waited, until one of them changes something again. Partitions that are added go into the same
    /// write, also into the one that completes the transaction before; not into one that decides how the transaction ends.
    fn take_waiting(&mut self, now_ms: i64, id: &Arc<str>) {
        while let Some(live) = self.live_of(id) {
            let may_join =
                |change: &Change| !change.is_sent && change.next.state.preparing().is_none();
            let is_joining = live.change.as_ref().is_some_and(may_join)
                && matches!(
                    live.waiting.front().map(|waiting| &waiting.ask),
                    Some(Ask::Add(..))
                );
            if !is_joining && self.is_busy(id) {
                return;
            }
            let next = self.live_of(id).and_then(|live| live.waiting.pop_front());
            let Some(Waiting { ask, .. }) = next else {
                return;
            };
            self.count_waiting(false);
            match ask {
                Ask::Add(request, answer) if is_joining => self.join(now_ms, id, &request, answer),
                ask => self.decide(now_ms, id, ask),
            }
        }
    }

    /// The abort that a later producer waits for is refused: so is the producer, which asks again.
    fn refuse_who_fences(&mut self, id: &str, error: TransactionError) {
        let is_init = |waiting: &Waiting| matches!(waiting.ask, Ask::Init(..));
        let Some(live) = self.live_of(id) else {
            return;
        };
        if live.waiting.front().is_some_and(is_init)
            && let Some(waiting) = live.waiting.pop_front()
        {
            self.count_waiting(false);
            waiting.ask.refuse(error);
        }
    }

    fn refuse_those_that_waited(&mut self, now_ms: i64, id: &str) {
        let Some(live) = self.live_of(id) else {
            return;
        };
        let is_over = |waiting: &Waiting| waiting.until_ms <= now_ms;
        if !live.waiting.iter().any(is_over) {
            return;
        }
        let waiting = std::mem::take(&mut live.waiting).into_iter();
        let (over, left): (Vec<Waiting>, Vec<Waiting>) = waiting.partition(is_over);
        live.waiting = left.into();
        for Waiting { ask, .. } in over {
            self.count_waiting(false);
            ask.refuse(TransactionError::ConcurrentTransactions);
        }
    }

    /// Asks for a change to be stored.
    fn store(&mut self, id: &Arc<str>, next: Transaction, replies: Vec<Reply>) {
        let new = || Entry::new(Transaction::DEAD);
        let entry = self.ids.entry(id.clone()).or_insert_with(new);
        debug_assert!(entry.change().is_none(), "one change at a time");
        entry.live().change = Some(Change {
            next,
            is_sent: false,
            number: 0,
            replies,
        });
        self.unsent.push(id.clone());
    }

    fn write(&mut self, id: Arc<str>) -> Option<Write<Arc<str>>> {
        let live = self.live_of(&id)?;
        let change = live.change.as_mut().filter(|change| !change.is_sent)?;
        let (ops, number) = persist::ops(&id, &change.next, &mut live.parts);
        change.is_sent = true;
        change.number = number;
        Some(Write {
            id: id.to_string(),
            ops,
            then: id,
        })
    }

    /// A request needs a producer id that nobody has.
    fn wait_for_producer_id(&mut self, now_ms: i64, id: &Arc<str>, ask: Ask) {
        if self.context.waiting.load(Ordering::Relaxed) >= WAITING_ALL_MAX {
            return ask.refuse(TransactionError::CoordinatorNotAvailable);
        }
        self.without_id.push_back((id.clone(), ask));
        self.count_waiting(true);
        if self.id_asked_ms.is_none() {
            self.ask_for_producer_id(now_ms);
        }
    }

    fn ask_for_producer_id(&mut self, now_ms: i64) {
        self.id_asked_ms = Some(now_ms);
        let _ = self
            .context
            .errands
            .send(Errand::ProducerId(self.partition.slot));
    }

    fn take_producer_id(&mut self, now_ms: i64, spare: Option<i64>) {
        self.id_asked_ms = None;
        let is_none = spare.is_none();
        self.spare = self.spare.or(spare);
        let mut without_id = std::mem::take(&mut self.without_id);
        while let Some((id, ask)) = without_id.pop_front() {
            if !is_none && self.spare.is_none() {
                // It was one producer id: the others go on waiting, for the next one.
                without_id.push_front((id, ask));
                without_id.append(&mut self.without_id);
                self.without_id = without_id;
                if self.id_asked_ms.is_none() {
                    self.ask_for_producer_id(now_ms);
                }
                return;
            }
            self.count_waiting(false);
            match is_none {
                true => ask.refuse(TransactionError::CoordinatorNotAvailable),
                false => self.take(now_ms, &id, ask),
            }
            self.settle(&id);
        }
    }

    /// Updates the timer of an id, and what it takes.
    fn settle(&mut self, id: &Arc<str>) {
        let Some(entry) = self.ids.get_mut(id) else {
            return;
        };
        let next = entry.next_deadline();
        let before = entry.live.as_ref().and_then(|live| live.deadline_ms);
        if next != before {
            if let Some(before) = before {
                self.deadlines.remove(&(before, id.clone()));
            }
            if let Some(next) = next {
                self.deadlines.insert((next, id.clone()));
            }
            entry.live().deadline_ms = next;
        }
        entry.rest();
        if entry.now.state == State::Dead && entry.live.is_none() {
            self.ids.remove(id);
        }
    }

    fn count_timer(&mut self, is_more: bool) {
        count(&self.context.timers, &mut self.timers, is_more);
    }

    /// What an id takes is another number now.
    fn count_bytes(&mut self, before: usize, now: usize) {
        self.bytes = (self.bytes + now).saturating_sub(before);
        self.context.bytes.fetch_add(now, Ordering::Relaxed);
        self.context.bytes.fetch_sub(before, Ordering::Relaxed);
    }

    /// Whether there is room for a change.
    fn check_room(&self, id: &str, next: &Transaction) -> Result<(), TransactionError> {
        let (before, now) = (self.now(id).bytes(id), next.bytes(id));
        let all = self.context.bytes.load(Ordering::Relaxed);
        match now <= before || all + (now - before) <= self.context.limits.bytes_max {
            true => Ok(()),
            false => Err(TransactionError::PolicyViolation),
        }
    }

    fn count_waiting(&mut self, is_more: bool) {
        count(&self.context.waiting, &mut self.waiting, is_more);
    }
}

impl Drop for Transactions {
    /// Another broker counts them now.
    fn drop(&mut self) {
        let (timers, waiting) = (self.timers, self.waiting);
        self.context.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.context.timers.fetch_sub(timers, Ordering::Relaxed);
        self.context.waiting.fetch_sub(waiting, Ordering::Relaxed);
    }
}

fn count(all: &AtomicUsize, own: &mut usize, is_more: bool) {
    match is_more {
        true => {
            *own += 1;
            all.fetch_add(1, Ordering::Relaxed);
        }
        false => {
            *own = own.saturating_sub(1);
            all.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn describe(id: &str, now: &Transaction) -> TransactionDescription {
    TransactionDescription {
        transactional_id: id.to_owned(),
        state: now.state,
        producer: now.producer,
        timeout_ms: now.timeout_ms,
        start_ms: now.start_ms,
        updated_ms: now.updated_ms,
        partitions: now.partitions.clone(),
        decision: now.seldom().decision,
    }
}
