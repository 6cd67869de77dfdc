//! Draws records for a member of a share group, and waits until there are some: for the logs to grow, and for records that
//! others give back.
//!
//! Tests: tests/shares.rs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::Stage;
use super::share_acknowledgements::{Member, Refusal};
use super::share_read::{Given, ShareRoom, Shared, open, opened};
use super::share_settings::ShareSettings;
use crate::partition::{FetchWaiter, Subscription};
use crate::share::{AcquiredRecords, SharedPartition, Watching};

/// Partitions that are opened at the same time.
const OPENED_AT_ONCE: usize = 64;
/// How long what is open waits for others to be opened.
const OPENING_BESIDE_MAX: Duration = Duration::from_millis(50);
/// How long a fetch waits where nothing is open, however short it is to wait for records.
const OPENING_MIN: Duration = Duration::from_secs(1);

/// What a member wants.
pub(super) struct ShareWanted {
    /// In the order in which they are looked at.
    pub(super) partitions: Vec<SharedPartition>,
    pub(super) records_max: i64,
    pub(super) is_strict: bool,
    pub(super) batch_size: i64,
    pub(super) bytes_max: usize,
    pub(super) bytes_min: usize,
    pub(super) deadline: Instant,
}

/// What a partition gives: nothing, records, or an error.
pub(super) struct Drawn {
    pub(super) partition: SharedPartition,
    pub(super) outcome: Result<Option<Given>, Refusal>,
}

/// One of the partitions.
struct Line {
    drawn: Drawn,
    shared: Option<Shared>,
    /// Bytes that it has to give, where that is known.
    ahead: Option<usize>,
}

/// See the module's documentation.
pub(super) struct Drawing<'a> {
    member: &'a Member<'a>,
    settings: &'a ShareSettings,
    wanted: ShareWanted,
    /// The member's name, as those that give it records keep it.
    name: Arc<str>,
    lines: Vec<Line>,
    /// What was given, of what may be.
    records: i64,
    bytes: usize,
}

impl<'a> Drawing<'a> {
    pub(super) fn new(
        member: &'a Member<'a>,
        settings: &'a ShareSettings,
        wanted: ShareWanted,
    ) -> Self {
        let line = |partition: &SharedPartition| Line {
            drawn: Drawn {
                partition: *partition,
                outcome: Ok(None),
            },
            shared: None,
            ahead: None,
        };
        Self {
            member,
            settings,
            name: member.member_id.into(),
            lines: wanted.partitions.iter().map(line).collect(),
            wanted,
            records: 0,
            bytes: 0,
        }
    }

    /// Draws until something is given, every partition refuses, or there is no more time.
    pub(super) async fn wait(mut self, stage: &mut Stage) -> Vec<Drawn> {
        let wanted = &self.wanted;
        if wanted.records_max > 0 && wanted.bytes_max > 0 && !self.lines.is_empty() {
            self.draw_in_time(stage).await;
        }
        self.lines.into_iter().map(|line| line.drawn).collect()
    }

    async fn draw_in_time(&mut self, stage: &mut Stage) {
        let all: BTreeSet<usize> = (0..self.lines.len()).collect();
        self.look_at(&all).await;
        let deadline = self.wanted.deadline;
        if self.is_done() || Instant::now() >= deadline {
            return self.draw_rest(&all).await;
        }
        let waiter = Arc::new(FetchWaiter::default());
        let _watched = self.watch(&waiter);
        // What moved before it was watched.
        self.look_at(&all).await;
        stage.ordered();
        let mut draining = self.member.cx.draining.clone();
        while !self.is_done() {
            let moved = tokio::select! {
                moved = waiter.moved() => Some(moved),
                () = tokio::time::sleep_until(deadline) => None,
                _ = draining.wait_for(|draining| *draining) => return,
            };
            match moved {
                Some(moved) => self.look_at(&moved).await,
                None => return self.draw_rest(&all).await,
            }
        }
    }

    fn watch(&self, waiter: &Arc<FetchWaiter>) -> Vec<(Subscription, Watching)> {
        let lines = self.lines.iter().enumerate();
        let watched = lines.filter_map(|(number, line)| {
            let shared = line.shared.as_ref()?;
            let log = shared.partition.subscribe(waiter, number, false);
            Some((log, shared.leading.subscribe(waiter, number)))
        });
        watched.collect()
    }

    fn is_done(&self) -> bool {
        let mut lines = self.lines.iter();
        self.records > 0 || lines.all(|line| line.drawn.outcome.is_err())
    }

    /// Draws what there is, where it was not enough before.
    async fn draw_rest(&mut self, all: &BTreeSet<usize>) {
        if !self.is_done() && self.wanted.bytes_min > 1 {
            self.draw(all).await;
        }
    }

    /// Looks at some of the partitions; draws from them, or from all where they must have enough together.
    async fn look_at(&mut self, numbers: &BTreeSet<usize>) {
        let closed = self.open(numbers);
        if !closed.is_empty() {
            self.open_closed(closed).await;
        }
        if self.wanted.bytes_min <= 1 {
            return self.draw(numbers).await;
        }
        let mut ahead = 0;
        let room = self.room();
        for line in &mut self.lines {
            // Only those that moved are looked at, each time one does.
            if let (Some(shared), None) = (&line.shared, line.ahead) {
                let found = shared.ahead(self.member.cx, self.settings, &room).await;
                line.ahead = Some(found.unwrap_or(0));
            }
            ahead += line.ahead.unwrap_or(0);
        }
        if ahead >= self.wanted.bytes_min.min(self.wanted.bytes_max) {
            let all = (0..self.lines.len()).collect();
            self.draw(&all).await;
            // Others may have been given some of it.
            self.lines.iter_mut().for_each(|line| line.ahead = None);
        }
    }

    /// Takes those that are open already; the others.
    fn open(&mut self, numbers: &BTreeSet<usize>) -> Vec<usize> {
        let mut closed = Vec::new();
        for number in numbers {
            let line = &mut self.lines[*number];
            line.ahead = None;
            if line.shared.is_some() {
                continue;
            }
            match opened(self.member, line.drawn.partition) {
                Some(Ok(shared)) => line.shared = Some(shared),
                Some(Err(refused)) => line.drawn.outcome = Err(refused),
                None => closed.push(*number),
            }
        }
        closed
    }

    /// Opens others, not for long where some are open: a coordinator that does not answer keeps back what is its own.
    async fn open_closed(&mut self, closed: Vec<usize>) {
        let is_open = |line: &Line| line.shared.is_some();
        let mut until = match self.lines.iter().any(is_open) {
            true => Instant::now() + OPENING_BESIDE_MAX,
            false => self.wanted.deadline.max(Instant::now() + OPENING_MIN),
        };
        let (member, settings) = (self.member, self.settings);
        let opening = closed.into_iter().map(|number| {
            let partition = self.lines[number].drawn.partition;
            async move { (number, open(member, settings, partition).await) }
        });
        let opening: Vec<_> = opening.collect();
        let mut opening = stream::iter(opening).buffer_unordered(OPENED_AT_ONCE);
        while let Ok(Some((number, opened))) = timeout_at(until, opening.next()).await {
            let line = &mut self.lines[number];
            match opened {
                Ok(Some(shared)) => {
                    line.shared = Some(shared);
                    until = until.min(Instant::now() + OPENING_BESIDE_MAX);
                }
                Ok(None) => {}
                Err(refused) => line.drawn.outcome = Err(refused),
            }
        }
    }

    fn room(&self) -> ShareRoom {
        let wanted = &self.wanted;
        // Each has its part (Kafka's UniformPartitionMaxBytesStrategy).
        let part = wanted.bytes_max / self.lines.len().max(1);
        ShareRoom {
            records: wanted.records_max - self.records,
            bytes: part.min(wanted.bytes_max.saturating_sub(self.bytes)),
            first_batch_whole: self.bytes == 0,
            is_strict: wanted.is_strict,
            batch_size: wanted.batch_size,
        }
    }

    async fn draw(&mut self, numbers: &BTreeSet<usize>) {
        for number in numbers {
            // Other tasks run too during a request that names very many.
            tokio::task::coop::consume_budget().await;
            let room = self.room();
            if room.records <= 0 {
                return;
            }
            let line = &mut self.lines[*number];
            let Some(shared) = &line.shared else {
                continue;
            };
            let given = shared.give(self.member.cx, self.settings, &self.name, &room);
            let given = given.await;
            if let Ok(Some(given)) = &given {
                self.records += given
                    .acquired
                    .iter()
                    .map(AcquiredRecords::count)
                    .sum::<i64>();
                self.bytes += given.slice.bytes;
            }
            line.drawn.outcome = given;
        }
    }
}
