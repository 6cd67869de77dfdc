//! What clients and operators ask for.
//!
//! Tests: transaction/transactions/tests.rs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::{Reply, Transactions};
use crate::coordinator::{InternalTopic, SlotPartition};
use crate::transaction::asks::{Ask, Asked};
use crate::transaction::entry::Waiting;
use crate::transaction::error::TransactionError;
use crate::transaction::messages::{AddPartitions, End, Init, Initialized};
use crate::transaction::state::{Outcome, Producer, State, TransactionVersion};
use crate::transaction::transaction::{EndStep, Halt, InitStep, Transaction};

impl Transactions {
    pub(super) fn init(
        &mut self,
        now_ms: i64,
        id: &Arc<str>,
        request: Init,
        answer: Asked<Initialized>,
    ) {
        let mut spare = self.spare.take();
        let step = self.now(id).init(&request, &mut spare, now_ms);
        self.spare = spare;
        match step {
            Ok(InitStep::Change(next, initialized)) => {
                if let Err(error) = self.check_room(id, &next) {
                    return answer.send(Err(error));
                }
                if request.keep_prepared && self.now(id).seldom().decision.is_some() {
                    let why = "its producer came back, after an operator had decided";
                    self.report(now_ms, id, why);
                }
                self.store(id, next, vec![Reply::Init(answer, initialized)]);
            }
            Ok(InitStep::Fence) => self.fence(now_ms, id, Ask::Init(request, answer)),
            Err(Halt::NeedsId) => self.wait_for_producer_id(now_ms, id, Ask::Init(request, answer)),
            Err(Halt::Refuse(error)) => answer.send(Err(error)),
        }
    }

    /// Aborts the transaction of the producer before, and lets the later one wait for that.
    fn fence(&mut self, now_ms: i64, id: &Arc<str>, ask: Ask) {
        match self.abort(now_ms, id) {
            Ok(()) => {
                self.report(now_ms, id, "aborted for a later producer of the same id");
                let until_ms = now_ms + ask.wait_ms_max();
                if let Some(live) = self.live_of(id) {
                    live.waiting.push_front(Waiting { ask, until_ms });
                    self.count_waiting(true);
                }
            }
            Err(Halt::NeedsId) => self.wait_for_producer_id(now_ms, id, ask),
            Err(Halt::Refuse(error)) => ask.refuse(error),
        }
    }

    /// Aborts the ongoing transaction. Its producer is fenced by the bumped epoch (Kafka's PrepareEpochFence).
    pub(super) fn abort(&mut self, now_ms: i64, id: &Arc<str>) -> Result<(), Halt> {
        let mut spare = self.spare.take();
        let (outcome, version) = (Outcome::Abort, TransactionVersion::V2);
        let step = self.now(id).prepared(outcome, version, &mut spare, now_ms);
        self.spare = spare;
        if let EndStep::Change(next, _) = step? {
            self.store(id, next, Vec::new());
        }
        Ok(())
    }

    pub(super) fn add(
        &mut self,
        now_ms: i64,
        id: &Arc<str>,
        request: AddPartitions,
        answer: Asked<()>,
    ) {
        match self.added(now_ms, id, self.now(id), &request) {
            Ok(Some(next)) => self.store(id, next, vec![Reply::Done(answer)]),
            Ok(None) => answer.send(Ok(())),
            Err(error) => answer.send(Err(error)),
        }
    }

    /// The same, into a change that is not sent yet.
    pub(super) fn join(
        &mut self,
        now_ms: i64,
        id: &Arc<str>,
        request: &AddPartitions,
        answer: Asked<()>,
    ) {
        let change = self.ids.get(id).and_then(|entry| entry.change());
        let next = match change {
            Some(change) => self.added(now_ms, id, &change.next, request),
            None => Err(TransactionError::ConcurrentTransactions),
        };
        let change = self.live_of(id).and_then(|live| live.change.as_mut());
        match (next, change) {
            (Err(error), _) => answer.send(Err(error)),
            // Known when that is stored.
            (Ok(next), Some(change)) => {
                if let Some(next) = next {
                    change.next = next;
                }
                change.replies.push(Reply::Done(answer));
            }
            (Ok(_), None) => answer.send(Err(TransactionError::ConcurrentTransactions)),
        }
    }

    fn added(
        &self,
        now_ms: i64,
        id: &str,
        transaction: &Transaction,
        request: &AddPartitions,
    ) -> Result<Option<Transaction>, TransactionError> {
        let ids = request.partitions.iter();
        let ids: Option<Vec<Uuid>> = ids
            .map(|(topic, index)| self.topic_id(topic, *index))
            .collect();
        let ids = ids.ok_or(TransactionError::UnknownTopicOrPartition)?;
        let Some(next) = transaction.add(request, &ids, now_ms)? else {
            return Ok(None);
        };
        self.check_room(id, &next)?;
        if next.times_out_ms().is_some()
            && transaction.state != State::Ongoing
            && self.context.timers.load(Ordering::Relaxed) >= self.context.limits.timers_max
        {
            tracing::warn!("maxTxTimeoutTimerCapacity: no more open transactions are taken");
            return Err(TransactionError::ConcurrentTransactions);
        }
        Ok(Some(next))
    }

    /// The id of the topic that has this partition; nil where a group's slot stands for it.
    fn topic_id(&self, topic: &str, index: i32) -> Option<Uuid> {
        let slot = SlotPartition::find(topic, index);
        if slot.is_some_and(|slot| slot.topic == InternalTopic::ConsumerOffsets) {
            return Some(Uuid::nil());
        }
        self.topics
            .partition(topic, index)
            .map(|found| found.topic_id)
    }

    pub(super) fn end(
        &mut self,
        now_ms: i64,
        id: &Arc<str>,
        request: End,
        answer: Asked<Producer>,
    ) {
        let mut spare = self.spare.take();
        let step = self.now(id).end(&request, &mut spare, now_ms);
        self.spare = spare;
        match step {
            Ok(EndStep::Change(next, producer)) => {
                self.store(id, next, vec![Reply::End(answer, producer)]);
            }
            Ok(EndStep::Again(producer)) => answer.send(Ok(producer)),
            Err(Halt::NeedsId) => self.wait_for_producer_id(now_ms, id, Ask::End(request, answer)),
            Err(Halt::Refuse(error)) => answer.send(Err(error)),
        }
    }

    pub(super) fn decide_for_client(
        &mut self,
        now_ms: i64,
        id: &Arc<str>,
        outcome: Outcome,
        answer: Asked<()>,
    ) {
        let mut spare = self.spare.take();
        let next = self.now(id).decided(outcome, &mut spare, now_ms);
        self.spare = spare;
        match next {
            Ok(next) => self.store(id, next, vec![Reply::Done(answer)]),
            Err(Halt::NeedsId) => {
                self.wait_for_producer_id(now_ms, id, Ask::Decide(outcome, answer));
            }
            Err(Halt::Refuse(error)) => answer.send(Err(error)),
        }
    }

    pub(super) fn forget_decision(&mut self, id: &Arc<str>, answer: Asked<()>) {
        match self.now(id).without_decision() {
            Some(next) => self.store(id, next, vec![Reply::Done(answer)]),
            None => answer.send(Err(TransactionError::TransactionalIdNotFound)),
        }
    }
}
