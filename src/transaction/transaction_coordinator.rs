//! The coordinator of transactions, as the rest of the broker sees it: checks what is asked, and asks the id's slot.
//!
//! Tests: tests/transactions.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::asks::{Ask, AskAll, Asked, Errand};
use super::error::TransactionError;
use super::limits::{TRANSACTIONAL_ID_BYTES_MAX, TransactionLimits};
use super::messages::{
    AddPartitions, End, Init, Initialized, TWO_PHASE_TIMEOUT_MS, TransactionCounts,
    TransactionDescription,
};
use super::state::{Outcome, Producer};
use super::transactions::{TransactionContext, Transactions};
use crate::clock::WallClock;
use crate::coordinator::{Coordinator, Ownership, Slot, Topics};
use crate::meta::{MetaError, MetaStore};
use crate::observe::Events;

/// What the machines ask of the tasks beside them.
pub type Errands = mpsc::UnboundedReceiver<Errand>;

/// A producer with a transactional id begins, as its client says it.
#[derive(Debug, Clone)]
pub struct Begin {
    /// A transaction that takes longer is aborted, ms.
    pub timeout_ms: i32,
    /// What the producer was given before (KIP-360).
    pub expected: Option<Producer>,
    /// Its transactions wait for the decision of another system (KIP-939).
    pub two_phase: bool,
    /// Leave an ongoing transaction as it is.
    pub keep_prepared: bool,
}

/// See the module's documentation; clones share it.
#[derive(Clone)]
pub struct TransactionCoordinator {
    slots: Coordinator<Transactions>,
}

impl TransactionCoordinator {
    /// Coordinates nothing until slots are assigned. Somebody must run the errands.
    pub fn new(
        meta: MetaStore,
        topics: Arc<dyn Topics>,
        limits: TransactionLimits,
        wall: &WallClock,
        events: Events,
    ) -> (Self, Errands) {
        let (errands, receiver) = mpsc::unbounded_channel();
        let context = TransactionContext {
            limits,
            errands,
            events,
            timers: 0.into(),
            waiting: 0.into(),
            bytes: 0.into(),
            last_number: 0.into(),
        };
        let slots = Coordinator::new(meta, topics, wall, context);
        (Self { slots }, receiver)
    }

    /// Coordinates the transactional ids of these slots and no others.
    pub async fn assign(&self, owned: &BTreeMap<Slot, Ownership>) -> Result<(), MetaError> {
        self.slots.assign(owned).await
    }

    /// Lets no client wait from now on: the broker shuts down.
    pub fn drain(&self) {
        self.slots.drain();
    }

    /// Ends all slots; clients that wait learn that the coordinator is another one.
    pub fn stop(&self) {
        self.slots.stop();
    }

    async fn ask<T>(
        &self,
        id: &str,
        ask: impl FnOnce(Asked<T>) -> Ask,
    ) -> Result<T, TransactionError> {
        if id.is_empty() || id.len() > TRANSACTIONAL_ID_BYTES_MAX {
            return Err(TransactionError::InvalidRequest);
        }
        self.slots.ask_unless_draining(id, ask).await?
    }

    /// A producer begins. An ongoing transaction of an earlier one is aborted first.
    pub async fn init(&self, id: &str, begin: Begin) -> Result<Initialized, TransactionError> {
        let limits = &self.slots.context().limits;
        if id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        if begin.two_phase && !limits.two_phase {
            return Err(TransactionError::TransactionalIdAuthorizationFailed);
        }
        let timeouts = 1..=limits.timeout_ms_max;
        if !begin.two_phase && !timeouts.contains(&begin.timeout_ms) {
            return Err(TransactionError::InvalidTransactionTimeout);
        }
        let request = Init {
            timeout_ms: match begin.two_phase {
                true => TWO_PHASE_TIMEOUT_MS,
                false => begin.timeout_ms,
            },
            expected: begin.expected,
            keep_prepared: begin.keep_prepared,
        };
        self.ask(id, |answer| Ask::Init(request, answer)).await
    }

    /// Partitions become part of the ongoing transaction, or begin one. All of them do, or none.
    pub async fn add_partitions(
        &self,
        id: &str,
        request: AddPartitions,
    ) -> Result<(), TransactionError> {
        self.ask(id, |answer| Ask::Add(request, answer)).await
    }

    /// Which partitions are part of the ongoing transaction: each one that is not is TRANSACTION_ABORTABLE.
    pub async fn verify_partitions(
        &self,
        id: &str,
        request: AddPartitions,
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        self.ask(id, |answer| Ask::Verify(request, answer)).await
    }

    /// The ongoing transaction ends; answered when that is certain, before its markers are written. The producer that the
    /// client is from then on, of version 2.
    pub async fn end(&self, id: &str, request: End) -> Result<Producer, TransactionError> {
        self.ask(id, |answer| Ask::End(request, answer)).await
    }

    /// An operator ends a transaction without its client; one of two phases either way, any other by abort.
    pub async fn decide(&self, id: &str, outcome: Outcome) -> Result<(), TransactionError> {
        self.ask(id, |answer| Ask::Decide(outcome, answer)).await
    }

    /// What an operator decided is not kept any more.
    pub async fn forget_decision(&self, id: &str) -> Result<(), TransactionError> {
        self.ask(id, Ask::ForgetDecision).await
    }

    /// A transactional id.
    pub async fn describe(&self, id: &str) -> Result<TransactionDescription, TransactionError> {
        if id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        let found = self.slots.ask(id, Ask::Describe, || ()).await?;
        found.ok_or(TransactionError::TransactionalIdNotFound)
    }

    /// All transactional ids that this broker coordinates, by id.
    pub async fn list(&self) -> Result<Vec<TransactionDescription>, TransactionError> {
        if self.slots.is_loading() {
            return Err(TransactionError::CoordinatorLoadInProgress);
        }
        let mut all = self.slots.ask_all(AskAll::List).await.concat();
        all.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
        Ok(all)
    }

    /// What the transactional ids are doing that this broker coordinates.
    pub async fn count(&self) -> TransactionCounts {
        let mut all = TransactionCounts::default();
        for counts in self.slots.ask_all(AskAll::Count).await {
            all += counts;
        }
        all
    }

    /// Partitions of a topic that was deleted are not part of any transaction.
    pub async fn topic_deleted(&self, topic: &str, id: Uuid) {
        let deleted = || AskAll::TopicDeleted(topic.to_owned(), id);
        self.slots.queue_all(deleted).await;
    }

    /// A slot gets the producer id that it asked for, or learns that there is none now.
    pub async fn producer_id(&self, slot: Slot, id: Option<i64>) {
        self.slots.queue(slot, AskAll::ProducerId(id)).await;
    }

    /// Markers are written, or not needed.
    pub async fn marked(&self, id: &str, number: u64, partitions: Vec<(Arc<str>, i32)>) {
        let marked = Ask::Marked(number, partitions);
        self.slots.tell(id, marked).await;
    }
}
