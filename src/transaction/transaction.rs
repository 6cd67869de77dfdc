//! A transactional id and its transaction, without I/O: what each request makes of it, after Kafka's TransactionCoordinator
//! and TransactionMetadata.
//!
//! These are asked in a state that rests: not while a write is in flight, nor while markers are being written.
//!
//! Tests: transaction/transactions/tests.rs, transaction/transactions/model.rs.

use super::error::TransactionError;
use super::limits::{ID_BYTES, PARTITION_BYTES, TOPIC_BYTES};
use super::messages::{AddPartitions, Decision, End, Init, Initialized, TWO_PHASE_TIMEOUT_MS};
use super::partitions::Partitions;
use super::state::{EPOCH_LAST, Outcome, Producer, State, TransactionVersion};

/// See the module's documentation. Small while nothing is going on: there may be very many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    /// That of the ongoing transaction, where a later producer keeps it; while a transaction ends, that of its markers.
    pub(super) producer: Producer,
    /// When the transaction began, -1 for none, ms.
    pub(super) start_ms: i64,
    /// When this changed last, ms.
    pub(super) updated_ms: i64,
    pub(super) partitions: Partitions,
    pub(super) timeout_ms: i32,
    /// The epoch before, as its client knows it, -1 for none: it may ask again under it.
    pub(super) last_epoch: i16,
    pub(super) state: State,
    pub(super) version: TransactionVersion,
    pub(super) seldom: Option<Box<Seldom>>,
}

/// What few transactional ids have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seldom {
    /// The producer's id before it changed, -1 for none.
    pub(super) previous_id: i64,
    /// What the client has, where it keeps a transaction of an earlier producer; what it will have when the transaction is
    /// complete, where that is another id.
    pub(super) next: Producer,
    pub(super) decision: Option<Decision>,
}

impl Seldom {
    const NOTHING: Self = Self {
        previous_id: -1,
        next: Producer::NONE,
        decision: None,
    };

    /// `None` where there is nothing of it.
    pub(super) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::NOTHING).then(|| Box::new(self))
    }
}

/// Why a request does not change anything now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// Refused.
    Refuse(TransactionError),
    /// A new producer id is needed first.
    NeedsId,
}

impl From<TransactionError> for Halt {
    fn from(error: TransactionError) -> Self {
        Self::Refuse(error)
    }
}

/// What becomes of a producer that begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InitStep {
    /// This is stored, then it is answered.
    Change(Transaction, Initialized),
    /// The ongoing transaction is aborted first.
    Fence,
}

/// What becomes of a request to end a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EndStep {
    /// This is stored, then it is answered with the producer that the client is from then on.
    Change(Transaction, Producer),
    /// It has ended already, in this way: the same answer again.
    Again(Producer),
}

/// A producer id that nobody has yet, if there is one.
pub(super) type Spare = Option<i64>;

impl Transaction {
    /// One that is not there.
    pub(super) const DEAD: Self = Self {
        producer: Producer::NONE,
        start_ms: -1,
        updated_ms: -1,
        partitions: Partitions::NONE,
        timeout_ms: 0,
        last_epoch: -1,
        state: State::Dead,
        version: TransactionVersion::V0,
        seldom: None,
    };

    pub(super) fn seldom(&self) -> &Seldom {
        self.seldom.as_deref().unwrap_or(&Seldom::NOTHING)
    }

    fn set_seldom(&mut self, change: impl FnOnce(&mut Seldom)) {
        let mut seldom = self.seldom().clone();
        change(&mut seldom);
        self.seldom = seldom.boxed();
    }

    fn with_seldom(mut self, change: impl FnOnce(&mut Seldom)) -> Self {
        self.set_seldom(change);
        self
    }

    pub(super) fn next(&self) -> Producer {
        self.seldom().next
    }

    /// What the client that may ask has.
    pub(super) fn client(&self) -> Producer {
        match self.next() {
            Producer::NONE => self.producer,
            next => next,
        }
    }

    /// What it takes in memory, here and as a node of the tree, bytes, roughly; nothing where it is not there.
    pub(super) fn bytes(&self, id: &str) -> usize {
        if self.state == State::Dead {
            return 0;
        }
        let topic = |topic: &str| TOPIC_BYTES + 2 * topic.len();
        let topics = self.partitions.topics().map(|(name, _)| topic(name));
        ID_BYTES + 3 * id.len() + topics.sum::<usize>() + PARTITION_BYTES * self.partitions.len()
    }

    pub(super) fn is_two_phase(&self) -> bool {
        self.timeout_ms == TWO_PHASE_TIMEOUT_MS
    }

    /// When it is aborted if it has not ended, ms.
    pub(super) fn times_out_ms(&self) -> Option<i64> {
        let is_timed = self.state == State::Ongoing && !self.is_two_phase();
        is_timed.then(|| self.start_ms.saturating_add(i64::from(self.timeout_ms)))
    }

    /// A producer begins (TransactionCoordinator.handleInitProducerId). The spare id is taken where a new one is needed.
    pub(super) fn init(
        &self,
        request: &Init,
        spare: &mut Spare,
        now_ms: i64,
    ) -> Result<InitStep, Halt> {
        self.check_expected(request.expected)?;
        match self.state {
            State::Ongoing if request.keep_prepared => self.keep(request, spare, now_ms),
            State::Ongoing => Ok(InitStep::Fence),
            _ => {
                let next = self.begin(request, spare, now_ms)?;
                let initialized = Initialized {
                    producer: next.producer,
                    ongoing: None,
                };
                Ok(InitStep::Change(next, initialized))
            }
        }
    }

    /// Whether a producer that was given this before may go on (KIP-360). Kafka aborts an ongoing transaction also for one of
    /// an earlier epoch, and fences it then; here it is fenced at once, and the transaction goes on.
    fn check_expected(&self, expected: Option<Producer>) -> Result<(), TransactionError> {
        let Some(expected) = expected.filter(|_| self.state != State::Dead) else {
            return Ok(());
        };
        let client = self.client();
        let is_known = match self.state {
            State::Ongoing => expected == client,
            _ => {
                let is_of_previous =
                    expected.id == self.seldom().previous_id && expected.is_exhausted();
                let is_again = expected.epoch == self.last_epoch
                    && (expected.id == client.id || is_of_previous);
                expected == client || is_again
            }
        };
        match is_known {
            true => Ok(()),
            false => Err(TransactionError::ProducerFenced),
        }
    }

    /// An id without transaction gets its next producer (TransactionMetadata.prepareIncrementProducerEpoch,
    /// prepareProducerIdRotation).
    fn begin(&self, request: &Init, spare: &mut Spare, now_ms: i64) -> Result<Self, Halt> {
        let mut next = Self {
            state: State::Empty,
            timeout_ms: request.timeout_ms,
            start_ms: -1,
            updated_ms: now_ms,
            partitions: Partitions::NONE,
            ..self.clone()
        };
        let is_again = |expected: Producer| expected != self.producer;
        if self.state != State::Dead && request.expected.is_some_and(is_again) {
            // The answer was lost: the same one again.
            return Ok(next);
        }
        next.last_epoch = match request.expected {
            Some(_) => self.producer.epoch,
            None => -1,
        };
        if self.state == State::Dead || self.producer.is_exhausted() {
            let id = spare.take().ok_or(Halt::NeedsId)?;
            next.producer = Producer::first(id);
            next.set_seldom(|seldom| seldom.previous_id = self.producer.id);
        } else {
            next.producer = self.producer.bumped();
            next.set_seldom(|seldom| seldom.previous_id = -1);
        }
        Ok(next)
    }

    /// A producer begins that is to end the ongoing transaction of an earlier one (KIP-939): that one is fenced, and its
    /// transaction stays as it is.
    fn keep(&self, request: &Init, spare: &mut Spare, now_ms: i64) -> Result<InitStep, Halt> {
        let client = match self.client() {
            client if client.is_exhausted() => Producer::first(spare.take().ok_or(Halt::NeedsId)?),
            client => client.bumped(),
        };
        let mut next = self.clone().with_seldom(|seldom| seldom.next = client);
        next.updated_ms = now_ms;
        // A prepared one is not aborted because its next producer is of one phase.
        if !self.is_two_phase() {
            next.timeout_ms = request.timeout_ms;
        }
        let initialized = Initialized {
            producer: client,
            ongoing: Some(self.producer),
        };
        Ok(InitStep::Change(next, initialized))
    }

    fn check_producer(&self, producer: Producer) -> Result<(), TransactionError> {
        let client = self.client();
        if self.state == State::Dead || producer.id != client.id {
            // The producer of a transaction that is kept for a later one has an id that was right.
            return Err(match producer.id == self.producer.id && producer.id >= 0 {
                true => TransactionError::ProducerFenced,
                false => TransactionError::InvalidProducerIdMapping,
            });
        }
        match producer.epoch == client.epoch {
            true => Ok(()),
            false => Err(TransactionError::ProducerFenced),
        }
    }

    /// Partitions become part of it (TransactionCoordinator.handleAddPartitionsToTransaction); `None` where they are already.
    pub(super) fn add(
        &self,
        request: &AddPartitions,
        ids: &[uuid::Uuid],
        now_ms: i64,
    ) -> Result<Option<Self>, TransactionError> {
        debug_assert!(self.state.preparing().is_none(), "{self:?}");
        self.check_producer(request.producer)?;
        if self.state == State::Ongoing && self.next() != Producer::NONE {
            // Its producer is to end it, not to go on with it.
            return Err(TransactionError::InvalidTxnState);
        }
        let mut named = request.partitions.iter().zip(ids);
        if self.state == State::Ongoing
            && named.all(|((topic, index), id)| self.partitions.contains_of(topic, *id, *index))
        {
            return Ok(None);
        }
        let mut next = self.clone();
        if self.state != State::Ongoing {
            next.start_ms = now_ms;
        }
        for ((topic, index), id) in request.partitions.iter().zip(ids) {
            next.partitions.insert(topic, *id, *index);
        }
        next.state = State::Ongoing;
        next.updated_ms = now_ms;
        next.version = request.version;
        next.set_seldom(|seldom| seldom.previous_id = -1);
        Ok(Some(next))
    }

    /// Which of these are part of it (TransactionCoordinator.handleVerifyPartitionsInTransaction).
    pub(super) fn verify(
        &self,
        request: &AddPartitions,
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        self.check_producer(request.producer)?;
        let verify = |(topic, index): &(String, i32)| match self.partitions.contains(topic, *index)
        {
            true => Ok(()),
            false => Err(TransactionError::TransactionAbortable),
        };
        Ok(request.partitions.iter().map(verify).collect())
    }

    /// A client ends it (TransactionCoordinator.endTransaction, and the table there).
    pub(super) fn end(
        &self,
        request: &End,
        spare: &mut Spare,
        now_ms: i64,
    ) -> Result<EndStep, Halt> {
        if request.version >= TransactionVersion::V2 {
            return self.end_v2(request, spare, now_ms);
        }
        self.check_producer(request.producer)?;
        match self.state {
            State::Ongoing => self.prepared(request.outcome, request.version, spare, now_ms),
            state if state == State::complete_by(request.outcome) => {
                Ok(EndStep::Again(Producer::NONE))
            }
            _ => Err(TransactionError::InvalidTxnState.into()),
        }
    }

    fn end_v2(&self, request: &End, spare: &mut Spare, now_ms: i64) -> Result<EndStep, Halt> {
        let (asked, has) = (request.producer, self.client());
        let is_complete = matches!(self.state, State::CompleteCommit | State::CompleteAbort);
        let is_overflow =
            self.seldom().previous_id == asked.id && asked.epoch == EPOCH_LAST && has.epoch == 0;
        let is_bumped = asked.id == has.id && Some(has.epoch) == asked.epoch.checked_add(1);
        let is_retry = is_complete && (is_overflow || is_bumped);
        if !is_retry {
            self.check_producer(asked)?;
        }
        match (self.state, request.outcome) {
            (State::Ongoing, outcome) => self.prepared(outcome, request.version, spare, now_ms),
            (state, outcome) if is_retry && state == State::complete_by(outcome) => {
                Ok(EndStep::Again(has))
            }
            (_, Outcome::Abort) if !is_retry => {
                self.prepared(Outcome::Abort, request.version, spare, now_ms)
            }
            _ => Err(TransactionError::InvalidTxnState.into()),
        }
    }

    /// It ends, whoever wants it (TransactionMetadata.prepareAbortOrCommit). Without partitions there is no marker to write,
    /// and it is complete at once.
    pub(super) fn prepared(
        &self,
        outcome: Outcome,
        version: TransactionVersion,
        spare: &mut Spare,
        now_ms: i64,
    ) -> Result<EndStep, Halt> {
        let client = self.client();
        let mut next = self.clone();
        if version >= TransactionVersion::V2 {
            next.last_epoch = client.epoch;
            let after = match client.is_exhausted() {
                true => Producer::first(spare.take().ok_or(Halt::NeedsId)?),
                false => client.bumped(),
            };
            // Markers have the transaction's own id, and a later epoch than its records.
            next.producer.epoch = match after.id == self.producer.id {
                true => after.epoch,
                false => self.producer.epoch.saturating_add(1).max(match client.id {
                    id if id == self.producer.id => client.bumped().epoch,
                    _ => 0,
                }),
            };
            next.set_next(after, client.id);
        } else if client.id == self.producer.id {
            next.producer = client;
            next.set_next(client, client.id);
        }
        next.state = State::preparing_to(outcome);
        next.version = version;
        next.updated_ms = now_ms;
        if self.state != State::Ongoing {
            next.start_ms = now_ms;
        }
        let answer = match version >= TransactionVersion::V2 {
            true => next.client(),
            false => Producer::NONE,
        };
        let next = match next.partitions.is_empty() {
            true => next.completed(now_ms).unwrap_or(next),
            false => next,
        };
        Ok(EndStep::Change(next, answer))
    }

    /// The client has this when the transaction is complete.
    fn set_next(&mut self, after: Producer, previous_id: i64) {
        let is_other = after.id != self.producer.id;
        self.set_seldom(|seldom| {
            seldom.next = match is_other {
                true => after,
                false => Producer::NONE,
            };
            seldom.previous_id = match is_other {
                true => previous_id,
                false => -1,
            };
        });
    }

    /// All its markers are written (TransactionMetadata.prepareComplete); `None` in any other state.
    pub(super) fn completed(&self, now_ms: i64) -> Option<Self> {
        let outcome = self.state.preparing()?;
        let mut next = Self {
            state: State::complete_by(outcome),
            producer: self.client(),
            partitions: Partitions::NONE,
            updated_ms: now_ms,
            ..self.clone()
        };
        next.set_seldom(|seldom| seldom.next = Producer::NONE);
        Some(next)
    }

    /// An operator ends it without its client. Only one of two phases can be committed so: of any other, the client may not
    /// have sent all of it. What the other system may have decided otherwise is recorded.
    pub(super) fn decided(
        &self,
        outcome: Outcome,
        spare: &mut Spare,
        now_ms: i64,
    ) -> Result<Self, Halt> {
        if self.state == State::Dead {
            return Err(TransactionError::TransactionalIdNotFound.into());
        }
        let may_end = self.is_two_phase() || outcome == Outcome::Abort;
        if self.state != State::Ongoing || !may_end {
            return Err(TransactionError::InvalidTxnState.into());
        }
        let decision = Decision {
            outcome,
            producer: self.producer,
            at_ms: now_ms,
        };
        match self.prepared(outcome, TransactionVersion::V2, spare, now_ms)? {
            EndStep::Change(next, _) if !self.is_two_phase() => Ok(next),
            EndStep::Change(next, _) => {
                Ok(next.with_seldom(|seldom| seldom.decision = Some(decision)))
            }
            EndStep::Again(_) => Err(TransactionError::InvalidTxnState.into()),
        }
    }

    /// A recorded decision is not kept any more; `None` where there is none.
    pub(super) fn without_decision(&self) -> Option<Self> {
        self.seldom().decision?;
        Some(self.clone().with_seldom(|seldom| seldom.decision = None))
    }
}
