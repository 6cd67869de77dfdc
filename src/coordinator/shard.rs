//! One slot of a coordinator: a task that runs the slot's machine, its timers and its writes.
//!
//! Writes are queued in the order in which the machine asks for them, and many are in flight at once. Each checks the
//! version of the slot's node; if that is another one, another broker owns the slot and the task ends. Earlier writes count;
//! asks that wait get NOT_COORDINATOR.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use super::clock::Clock;
use super::error::CoordinatorError;
use super::machine::{Machine, Write};
use super::slot::SlotPartition;
use super::stored::GuardedStore;

/// An ask on its way to a shard.
pub(super) enum Command<M: Machine> {
    /// About one id.
    One { id: String, ask: M::Ask },
    /// About all ids of the slot.
    All(M::AskAll),
}

type Outcome<M> = (<M as Machine>::Then, Result<(), CoordinatorError>);
type InFlight<M> = Pin<Box<dyn Future<Output = Outcome<M>> + Send>>;

/// See the module's documentation.
pub(super) struct Shard<M: Machine> {
    partition: SlotPartition,
    store: GuardedStore,
    clock: Clock,
    machine: M,
    writes: FuturesUnordered<InFlight<M>>,
    /// Another broker owns the slot.
    fenced: bool,
}

impl<M: Machine> Shard<M> {
    pub(super) fn new(
        partition: SlotPartition,
        store: GuardedStore,
        clock: Clock,
        machine: M,
    ) -> Self {
        Self {
            partition,
            store,
            clock,
            machine,
            writes: FuturesUnordered::new(),
            fenced: false,
        }
    }

    /// Ends when the slot is another broker's, or when no command can come any more. Writes that are queued go on.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command<M>>) {
        self.write();
        while !self.fenced {
            let next = self.machine.next_deadline();
            let next = next.map(|at_ms| self.clock.until(at_ms));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.handle(command),
                    None => return,
                },
                Some((then, outcome)) = self.writes.next(), if !self.writes.is_empty() => {
                    self.stored(then, outcome);
                }
                () = tokio::time::sleep(next.unwrap_or(Duration::MAX)), if next.is_some() => {
                    self.machine.tick(self.clock.now_ms());
                }
            }
            self.write();
        }
    }

    fn handle(&mut self, command: Command<M>) {
        let now_ms = self.clock.now_ms();
        match command {
            Command::One { id, ask } => self.machine.handle(now_ms, id, ask),
            Command::All(ask) => self.machine.handle_all(now_ms, ask),
        }
    }

    fn stored(&mut self, then: M::Then, outcome: Result<(), CoordinatorError>) {
        debug_assert!(!self.fenced, "nothing is stored after the fence");
        if outcome == Err(CoordinatorError::NotCoordinator) {
            tracing::info!(partition = %self.partition, "another broker owns this slot now");
            self.fenced = true;
        }
        self.machine.stored(self.clock.now_ms(), then, outcome);
    }

    /// Queues the writes that the machine asks for.
    fn write(&mut self) {
        for Write { id, ops, then } in self.machine.take_writes() {
            debug_assert!(!ops.is_empty(), "a write of nothing");
            let writing = self.store.write(id, ops);
            self.writes
                .push(Box::pin(async move { (then, writing.await) }));
        }
    }
}
