//! Reads what a fetch wants, and waits until it is enough. What waits costs by what moves: each time only the partitions that did
//! are read again. A consumer's fetch waits for its partitions by itself, a follower's through its session.
//!
//! Tests: tests/fetch.rs, tests/order.rs.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::fetch_line::PartitionFetch;
use super::fetch_read::{FetchLimits, Fetched, find, read_one};
use super::fetch_sessions::SessionWatch;
use super::{Context, Stage};
use crate::partition::{FetchWaiter, Partition, Subscription};

/// When a fetch waits no longer.
struct End {
    deadline: Instant,
    draining: watch::Receiver<bool>,
}

impl End {
    /// What comes; `None` when it does not come in time.
    async fn or<T>(&mut self, comes: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            came = comes => Some(came),
            () = tokio::time::sleep_until(self.deadline) => None,
            _ = self.draining.wait_for(|draining| *draining) => None,
        }
    }
}

/// What a fetch has read.
pub(super) struct Reading<'a> {
    cx: &'a Arc<Context>,
    limits: &'a FetchLimits<'a>,
    watch: Option<SessionWatch>,
    wanted: Vec<PartitionFetch>,
    /// What each of them gives.
    fetched: Vec<Fetched>,
    /// Bytes of records.
    bytes: usize,
    /// Sum over the partitions.
    withheld: usize,
    /// There is enough, or something that is answered at once.
    is_enough: bool,
}

impl<'a> Reading<'a> {
    /// Of partitions; in a session that waits for them, of those that are to be looked at.
    pub(super) fn new(
        cx: &'a Arc<Context>,
        limits: &'a FetchLimits<'a>,
        wanted: Vec<PartitionFetch>,
        watch: Option<SessionWatch>,
    ) -> Self {
        Self {
            cx,
            limits,
            watch,
            wanted,
            fetched: Vec::new(),
            bytes: 0,
            withheld: 0,
            is_enough: false,
        }
    }

    /// Reads until there is enough, an error, or no more time; not into a shutdown.
    pub(super) async fn wait(&mut self, deadline: Instant, stage: &mut Stage) {
        self.read_all().await;
        if self.is_enough || Instant::now() >= deadline {
            return;
        }
        let end = End {
            deadline,
            draining: self.cx.draining.clone(),
        };
        match self.watch.is_some() {
            true => self.wait_in_session(end, stage).await,
            false => self.wait_alone(end, stage).await,
        }
    }

    /// What is wanted, what each of it gives, and the session that it is of.
    pub(super) fn end(self) -> (Vec<PartitionFetch>, Vec<Fetched>, Option<SessionWatch>) {
        (self.wanted, self.fetched, self.watch)
    }

    /// Reads all that is wanted.
    pub(super) async fn read_all(&mut self) {
        (self.bytes, self.withheld) = (0, 0);
        let is_all = self.wanted.is_empty() && self.watch.is_none();
        self.is_enough = is_all || self.limits.bytes_min == 0;
        self.fetched.clear();
        for number in 0..self.wanted.len() {
            // Other tasks run too during a request that names very many.
            tokio::task::coop::consume_budget().await;
            let fetched = self.read(number).await;
            self.fetched.push(fetched);
        }
    }

    async fn read(&mut self, number: usize) -> Fetched {
        let wanted = &self.wanted[number];
        if let Some(watch) = &self.watch
            && let Ok(partition) = find(self.cx, wanted, self.limits)
        {
            // Before it is read: what moves in between is heard.
            watch.watch(wanted.slot, &partition);
        }
        let fetched = read_one(self.cx, wanted, self.limits, self.bytes).await;
        self.bytes += fetched.answer.records_bytes;
        self.withheld += fetched.withheld;
        self.is_enough |=
            fetched.is_answered_at_once() || self.bytes + self.withheld >= self.limits.bytes_min;
        fetched
    }

    async fn read_again(&mut self, number: usize) {
        tokio::task::coop::consume_budget().await;
        self.bytes -= self.fetched[number].answer.records_bytes;
        self.withheld -= self.fetched[number].withheld;
        let fetched = self.read(number).await;
        self.fetched[number] = fetched;
    }

    async fn wait_in_session(&mut self, mut end: End, stage: &mut Stage) {
        stage.ordered();
        let slots = self.wanted.iter().enumerate();
        let mut numbers: HashMap<usize, usize> = slots
            .map(|(number, wanted)| (wanted.slot, number))
            .collect();
        while !self.is_enough {
            let Some(watch) = &mut self.watch else { return };
            let Some(moved) = end.or(watch.moved()).await else {
                return;
            };
            for wanted in moved {
                if let Some(number) = numbers.get(&wanted.slot) {
                    self.read_again(*number).await;
                    continue;
                }
                let number = self.wanted.len();
                numbers.insert(wanted.slot, number);
                self.wanted.push(wanted);
                let fetched = self.read(number).await;
                self.fetched.push(fetched);
            }
        }
    }

    async fn wait_alone(&mut self, mut end: End, stage: &mut Stage) {
        let waiter = Arc::new(FetchWaiter::default());
        let fetched = self.fetched.iter().enumerate();
        let mut subscriptions: Vec<_> = fetched
            .map(|(number, fetched)| {
                let partition = fetched.partition.as_ref();
                partition.map(|partition| self.subscribe(&waiter, number, partition))
            })
            .collect();
        stage.ordered();
        while !self.is_enough {
            let Some(moved) = end.or(waiter.moved()).await else {
                return;
            };
            for number in moved {
                let before = self.fetched[number].partition.clone();
                self.read_again(number).await;
                let now = &self.fetched[number].partition;
                if let (Some(before), Some(now)) = (before, now)
                    && !Arc::ptr_eq(&before, now)
                {
                    // It goes on in another directory.
                    subscriptions[number] = Some(self.subscribe(&waiter, number, now));
                }
            }
        }
    }

    fn subscribe(
        &self,
        waiter: &Arc<FetchWaiter>,
        number: usize,
        partition: &Arc<Partition>,
    ) -> Subscription {
        let is_follower = self.limits.follower.is_some();
        let subscription = partition.subscribe(waiter, number, is_follower);
        if self.fetched[number].has_moved(is_follower) {
            // It moved before the subscription.
            waiter.note_moved(number);
        }
        subscription
    }
}
