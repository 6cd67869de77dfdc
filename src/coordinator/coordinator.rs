//! The slots of this broker, and the way to them: a bounded queue to each slot's task. Slots come and go with the brokers;
//! their nodes in the tree stay.
//!
//! ```text
//!               assign                  read                   another broker owns it
//!   elsewhere ──────────▶ loading ─────────────▶ here ─────────────────────────────────▶ elsewhere
//!                            ▲                     │ another version of its node, another session
//!                            └─────────────────────┘ of the store, or its task ended
//! ```
//!
//! Tests: coordinator/tests.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::AbortHandle;

use super::clock::Clock;
use super::error::CoordinatorError;
use super::machine::{Answer, Loaded, Machine, Stored, StoredSlot};
use super::shard::{Command, Shard};
use super::slot::{Slot, SlotPartition};
use super::stored::{self, GuardedStore};
use super::topics::Topics;
use crate::clock::WallClock;
use crate::meta::{MetaError, MetaStore};

/// Commands that may wait for a slot's task.
const QUEUE: usize = 1024;

/// A broker's ownership of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// Counts the slot's owners.
    pub epoch: i32,
    /// Of the slot's node; every write checks it.
    pub version: i32,
}

/// A slot as asks find it.
enum State<M: Machine> {
    /// Another broker owns it, or none does.
    Elsewhere,
    /// Its nodes are being read.
    Loading,
    /// A task runs it.
    Here {
        ownership: Ownership,
        /// The store's session in which it was read; between two sessions another broker may have owned it.
        session: u64,
        commands: mpsc::Sender<Command<M>>,
        task: AbortHandle,
    },
}

impl<M: Machine> Clone for State<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Elsewhere => Self::Elsewhere,
            Self::Loading => Self::Loading,
            Self::Here {
                ownership,
                session,
                commands,
                task,
            } => Self::Here {
                ownership: *ownership,
                session: *session,
                commands: commands.clone(),
                task: task.clone(),
            },
        }
    }
}

/// The coordinator of one kind of ids; clones share it.
pub struct Coordinator<M: Machine> {
    shared: Arc<Shared<M>>,
}

impl<M: Machine> Clone for Coordinator<M> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

struct Shared<M: Machine> {
    meta: MetaStore,
    topics: Arc<dyn Topics>,
    clock: Clock,
    context: Arc<M::Context>,
    /// By slot number.
    states: ArcSwap<Vec<State<M>>>,
    /// Held while slots come and go.
    assigning: AsyncMutex<()>,
    /// The latest epoch of each slot that this broker owned: it only grows.
    epochs: Mutex<BTreeMap<Slot, i32>>,
    /// Set at shutdown: asks no longer wait for other clients.
    draining: watch::Sender<bool>,
}

impl<M: Machine> Coordinator<M> {
    /// Owns no slots until some are assigned.
    pub fn new(
        meta: MetaStore,
        topics: Arc<dyn Topics>,
        wall: &WallClock,
        context: M::Context,
    ) -> Self {
        let shared = Shared {
            meta,
            topics,
            clock: Clock::new(wall),
            context: Arc::new(context),
            states: ArcSwap::from_pointee(vec![State::Elsewhere; Slot::COUNT]),
            assigning: AsyncMutex::new(()),
            epochs: Mutex::default(),
            draining: watch::Sender::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// What the machines of all slots share.
    pub fn context(&self) -> &M::Context {
        &self.shared.context
    }

    /// Owns these slots and no others: reads those that are new, and ends the rest. If a slot went to another broker and came
    /// back, its node has another version, and it is read again.
    pub async fn assign(&self, owned: &BTreeMap<Slot, Ownership>) -> Result<(), MetaError> {
        let _assigning = self.shared.assigning.lock().await;
        self.check_epochs(owned);
        let session = self.shared.meta.lease().session();
        let new = self.end_lost(owned, session);
        if new.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let stored = stored::read(&self.shared.meta, (M::ROOT, M::SLOT_ROOT), &new).await?;
        let machines = self.load(owned, &stored).await?;
        self.change_states(|states| {
            for (slot, ownership, machine) in machines {
                states[slot.number()] = self.start(slot, ownership, session, machine);
            }
        });
        tracing::info!(
            topic = M::TOPIC.name(),
            slots = new.len(),
            ids = stored.values().map(|slot| slot.ids.len()).sum::<usize>(),
            ms = started.elapsed().as_millis() as u64,
            "coordinating"
        );
        Ok(())
    }

    fn check_epochs(&self, owned: &BTreeMap<Slot, Ownership>) {
        let mut epochs = self.shared.epochs.lock();
        for (slot, ownership) in owned {
            let before = epochs.insert(*slot, ownership.epoch);
            debug_assert!(
                before.is_none_or(|before| before <= ownership.epoch),
                "slot {slot} went back from epoch {before:?} to {}",
                ownership.epoch
            );
        }
    }

    /// Ends shards whose slot is not owned any more, or not as it was. Returns the slots to read.
    fn end_lost(&self, owned: &BTreeMap<Slot, Ownership>, now: u64) -> BTreeSet<Slot> {
        let mut new = BTreeSet::new();
        self.change_states(|states| {
            for (slot, state) in Slot::all().zip(states) {
                let wanted = owned.get(&slot);
                if let State::Here {
                    ownership,
                    session,
                    commands,
                    task,
                } = state
                {
                    let is_same = wanted == Some(ownership) && *session == now;
                    if is_same && !commands.is_closed() {
                        continue;
                    }
                    task.abort();
                }
                *state = match wanted {
                    Some(_) => State::Loading,
                    None => State::Elsewhere,
                };
                new.extend(wanted.map(|_| slot));
            }
        });
        new
    }

    /// Makes machines of the nodes.
    async fn load(
        &self,
        owned: &BTreeMap<Slot, Ownership>,
        stored: &BTreeMap<Slot, StoredSlot>,
    ) -> Result<Vec<(Slot, Ownership, M)>, MetaError> {
        let (mut machines, mut unresolved) = self.load_once(owned, stored);
        if unresolved > 0 {
            self.shared.meta.sync().await?;
            if !self.shared.topics.refresh().await {
                // What is left out of a transaction would never be told how that ends. It is tried again.
                let why = "topics that stored nodes name could not be read";
                return Err(MetaError::Unavailable(why.to_owned()));
            }
            (machines, unresolved) = self.load_once(owned, stored);
        }
        if unresolved > 0 {
            let topic = M::TOPIC.name();
            tracing::warn!(
                topic,
                nodes = unresolved,
                "ignored: of partitions that do not exist"
            );
        }
        Ok(machines)
    }

    /// The machines, and how many nodes name unknown partitions.
    fn load_once(
        &self,
        owned: &BTreeMap<Slot, Ownership>,
        stored: &BTreeMap<Slot, StoredSlot>,
    ) -> (Vec<(Slot, Ownership, M)>, usize) {
        let now_ms = self.shared.clock.now_ms();
        let mut unresolved = 0;
        let mut machines = Vec::with_capacity(stored.len());
        for (slot, of_slot) in stored {
            let Some(ownership) = owned.get(slot) else {
                continue;
            };
            let Loaded {
                machine,
                unresolved: more,
            } = M::load(Stored {
                context: &self.shared.context,
                topics: &self.shared.topics,
                partition: partition_of::<M>(*slot),
                epoch: ownership.epoch,
                now_ms,
                slot: of_slot,
            });
            unresolved += more;
            machines.push((*slot, *ownership, machine));
        }
        (machines, unresolved)
    }

    fn start(&self, slot: Slot, ownership: Ownership, session: u64, machine: M) -> State<M> {
        let (commands, receiver) = mpsc::channel(QUEUE);
        let store = GuardedStore::new(self.shared.meta.clone(), slot, ownership.version);
        let shard = Shard::new(partition_of::<M>(slot), store, self.shared.clock, machine);
        State::Here {
            ownership,
            session,
            commands,
            task: tokio::spawn(shard.run(receiver)).abort_handle(),
        }
    }

    fn change_states(&self, change: impl FnOnce(&mut Vec<State<M>>)) {
        let mut states = Vec::clone(&self.shared.states.load());
        change(&mut states);
        self.shared.states.store(Arc::new(states));
    }

    fn shard_of(&self, slot: Slot) -> Result<mpsc::Sender<Command<M>>, CoordinatorError> {
        let lease = self.shared.meta.lease();
        if !lease.is_valid() {
            return Err(CoordinatorError::NotCoordinator);
        }
        let is_loading = || {
            let states = self.shared.states.load();
            matches!(states.get(slot.number()), Some(State::Loading))
        };
        self.shard_in_session(slot)
            .ok_or_else(|| match is_loading() {
                true => CoordinatorError::LoadInProgress,
                false => CoordinatorError::NotCoordinator,
            })
    }

    /// Asks about an id, and waits for the answer. `queued` is called once asks that come later are handled later.
    pub async fn ask<T>(
        &self,
        id: &str,
        ask: impl FnOnce(Answer<T>) -> M::Ask,
        queued: impl FnOnce(),
    ) -> Result<T, CoordinatorError> {
        let command = |answer| Command::One {
            id: id.to_owned(),
            ask: ask(answer),
        };
        self.ask_slot(Slot::of(id), command, queued).await
    }

    async fn ask_slot<T>(
        &self,
        slot: Slot,
        command: impl FnOnce(Answer<T>) -> Command<M>,
        queued: impl FnOnce(),
    ) -> Result<T, CoordinatorError> {
        let lease = self.shared.meta.lease();
        let session = lease.session();
        let commands = self.shard_of(slot)?;
        let (answer, receiver) = Answer::new();
        // A shard ends when its slot goes to another broker.
        let sent = commands.send(command(answer)).await;
        sent.map_err(|_| CoordinatorError::NotCoordinator)?;
        queued();
        let answer = receiver.await;
        let answer = answer.map_err(|_| CoordinatorError::NotCoordinator)?;
        // A broker that was stopped for longer than its lease must not speak for the slot any more.
        match lease.is_valid() && lease.session() == session {
            true => Ok(answer),
            false => Err(CoordinatorError::NotCoordinator),
        }
    }

    /// Asks all ids of a slot at once.
    pub async fn ask_slot_of<T>(
        &self,
        slot: Slot,
        ask: impl FnOnce(Answer<T>) -> M::AskAll,
    ) -> Result<T, CoordinatorError> {
        self.ask_slot(slot, |answer| Command::All(ask(answer)), || ())
            .await
    }

    /// As [`Self::ask`], for what is answered when other clients do something. At a shutdown the client is sent to look for its
    /// coordinator instead.
    pub async fn ask_unless_draining<T>(
        &self,
        id: &str,
        ask: impl FnOnce(Answer<T>) -> M::Ask,
    ) -> Result<T, CoordinatorError> {
        let mut draining = self.shared.draining.subscribe();
        tokio::select! {
            biased;
            answer = self.ask(id, ask, || ()) => answer,
            _ = draining.wait_for(|draining| *draining) => Err(CoordinatorError::NotCoordinator),
        }
    }

    /// Asks all slots that are here; those that go to another broker meanwhile do not answer.
    pub async fn ask_all<T>(&self, ask: impl Fn(Answer<T>) -> M::AskAll) -> Vec<T> {
        let mut answers = Vec::new();
        for commands in self.here() {
            let (answer, receiver) = Answer::new();
            if commands.send(Command::All(ask(answer))).await.is_ok() {
                answers.extend(receiver.await);
            }
        }
        answers
    }

    /// Queues something for all slots that are here.
    pub async fn queue_all(&self, ask: impl Fn() -> M::AskAll) {
        for commands in self.here() {
            let _ = commands.send(Command::All(ask())).await;
        }
    }

    /// The shard of a slot that is here, also while the lease has lapsed for a moment in a session that lives on: for what answers no
    /// client. What the shard writes is checked by the store.
    fn shard_in_session(&self, slot: Slot) -> Option<mpsc::Sender<Command<M>>> {
        let now = self.shared.meta.lease().session();
        match self.shared.states.load().get(slot.number()) {
            Some(State::Here {
                session, commands, ..
            }) if *session == now => Some(commands.clone()),
            _ => None,
        }
    }

    /// Queues something for an id, if its slot is here.
    pub async fn tell(&self, id: &str, ask: M::Ask) {
        if let Some(commands) = self.shard_in_session(Slot::of(id)) {
            let id = id.to_owned();
            let _ = commands.send(Command::One { id, ask }).await;
        }
    }

    /// Queues something for a slot, if it is here.
    pub async fn queue(&self, slot: Slot, ask: M::AskAll) {
        if let Some(commands) = self.shard_in_session(slot) {
            let _ = commands.send(Command::All(ask)).await;
        }
    }

    /// Whether slots of this broker are being read.
    pub fn is_loading(&self) -> bool {
        let is_loading = |state: &State<M>| matches!(state, State::Loading);
        self.shared.states.load().iter().any(is_loading)
    }

    fn here(&self) -> Vec<mpsc::Sender<Command<M>>> {
        let states = self.shared.states.load();
        let here = states.iter().filter_map(|state| match state {
            State::Here { commands, .. } => Some(commands.clone()),
            _ => None,
        });
        here.collect()
    }

    /// From now on no ask waits for other clients: the broker shuts down.
    pub fn drain(&self) {
        self.shared.draining.send_replace(true);
    }

    /// Ends all shards; asks that wait learn that the coordinator is another one.
    pub fn stop(&self) {
        self.change_states(|states| {
            for state in states {
                if let State::Here { task, .. } = state {
                    task.abort();
                }
                *state = State::Elsewhere;
            }
        });
    }
}

fn partition_of<M: Machine>(slot: Slot) -> SlotPartition {
    SlotPartition {
        topic: M::TOPIC,
        slot,
    }
}
