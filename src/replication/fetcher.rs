//! Copies partitions from one leader, over one connection: one fetch at a time, what came is appended, and the next one asks from
//! where the logs end then.
//!
//! Tests: tests/replication.rs, tests/simulation.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::fetch_request::ReplicaState;
use metaq_protocol::messages::fetch_response::PartitionData;
use metaq_protocol::messages::{BrokerId, FetchResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::connections::{Order, Start};
use super::followed::{self, Key};
use super::out_of_range;
use super::session::Session;
use super::{REPLICATION, answer::cut_to};
use crate::api::Context;
use crate::log::LogError;
use crate::partition::{Cut, CutTo, Partition};
use crate::peer::Lane;

/// Fetch in this version is understood by every broker of a cluster.
const FETCH_VERSION: i16 = 17;
/// How long a leader may take beyond what the fetch may wait (Kafka's replica.socket.timeout.ms).
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Partitions of which it is asked at the same time where the leader's log starts and ends.
const ASKED_AT_ONCE: usize = 64;
/// Pause after a failure, doubled up to replica.fetch.backoff.ms.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// One connection to a leader.
pub(super) struct Fetcher {
    cx: Arc<Context>,
    leader: i32,
    number: usize,
    orders: mpsc::UnboundedReceiver<Vec<Order>>,
    is_waiting: Arc<AtomicBool>,
}

/// A partition that is copied.
struct Copied {
    leader_epoch: i32,
    /// After how long it is tried again after the next failure.
    pause: Duration,
    /// Until when it is left out.
    rests_until: Option<Instant>,
}

/// What a fetcher knows.
#[derive(Default)]
struct State {
    copied: BTreeMap<Key, Copied>,
    /// Those that are tried again later.
    resting: BTreeSet<(Instant, Key)>,
    session: Session,
}

/// What an answer wants done with one partition's log.
struct Received {
    key: Key,
    leader_epoch: i32,
    partition: Arc<Partition>,
    answer: Answer,
}

impl State {
    /// Takes the rest of what was copied before from the queue.
    fn rests_no_more(&mut self, key: Key, before: Option<Copied>) {
        if let Some(until) = before.and_then(|before| before.rests_until) {
            self.resting.remove(&(until, key));
        }
    }
}

impl Fetcher {
    pub(super) fn new(cx: Arc<Context>, start: Start) -> Self {
        Self {
            cx,
            leader: start.leader,
            number: start.number,
            orders: start.orders,
            is_waiting: start.is_waiting,
        }
    }

    /// Copies until there are no orders any more.
    pub(super) async fn run(mut self) {
        let mut state = State::default();
        let mut pause = PAUSE_MIN;
        loop {
            if !self.take_orders(&mut state).await {
                return;
            }
            self.wake(&mut state);
            if state.session.is_empty() {
                self.rest(&mut state).await;
                continue;
            }
            let goes_on = match self.fetch(&mut state).await {
                Ok(response) => self.take_answer(&mut state, response).await,
                Err(error) => {
                    tracing::debug!(leader = self.leader, %error, "cannot fetch");
                    state.session.begin_anew();
                    false
                }
            };
            if goes_on {
                pause = PAUSE_MIN;
                continue;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.pause_max());
        }
    }

    fn pause_max(&self) -> Duration {
        let ms = self.cx.config.number("replica.fetch.backoff.ms");
        Duration::from_millis(ms as u64).max(PAUSE_MIN)
    }

    /// Takes what was ordered; waits for orders while there is nothing to copy. `false` once there will be none.
    async fn take_orders(&mut self, state: &mut State) -> bool {
        loop {
            let orders = match state.copied.is_empty() {
                true => self.orders.recv().await,
                false => match self.orders.try_recv() {
                    Ok(orders) => Some(orders),
                    Err(mpsc::error::TryRecvError::Empty) => return true,
                    Err(mpsc::error::TryRecvError::Disconnected) => None,
                },
            };
            let Some(orders) = orders else {
                return false;
            };
            for order in orders {
                self.take_order(state, order);
            }
        }
    }

    fn take_order(&self, state: &mut State, order: Order) {
        match order {
            Order::Follow(key, leader_epoch) => {
                let copied = Copied {
                    leader_epoch,
                    pause: PAUSE_MIN,
                    rests_until: None,
                };
                let before = state.copied.insert(key, copied);
                state.rests_no_more(key, before);
                self.go_on(state, key);
            }
            Order::Forget(key) => {
                let before = state.copied.remove(&key);
                state.rests_no_more(key, before);
                state.session.forget(key);
            }
        }
    }

    /// The next fetch asks from where the log ends.
    fn go_on(&self, state: &mut State, key: Key) {
        let Some(copied) = state.copied.get(&key) else {
            return;
        };
        match followed::partition(&self.cx, key) {
            // What it asks for would say more than it has.
            Some(partition) if !partition.has_all_as_promised() => {
                partition.sync_soon();
                self.try_later(state, key);
            }
            Some(partition) if self.is_held_back(&partition) => self.try_later(state, key),
            Some(partition) => {
                let position = followed::position(&partition, copied.leader_epoch);
                state.session.want(key, position);
            }
            None => self.try_later(state, key),
        }
    }

    fn is_throttled(&self, partition: &Partition) -> bool {
        let throttled = &partition.log().config().follower_throttled;
        throttled.has(partition.index(), self.cx.cluster.broker_id())
    }

    /// Whether it waits because it is throttled: one that is in sync does not, so that it stays so (Kafka's
    /// RemoteLeaderEndPoint.shouldFollowerThrottle).
    fn is_held_back(&self, partition: &Partition) -> bool {
        let rate_max = || self.cx.config.number("follower.replication.throttled.rate");
        let taken = &self.cx.throttles.follower;
        self.is_throttled(partition)
            && taken.is_exceeded(rate_max(), Instant::now())
            && !partition.state().isr.contains(&self.cx.cluster.broker_id())
    }

    /// Leaves a partition out for a while.
    fn try_later(&self, state: &mut State, key: Key) {
        state.session.forget(key);
        if let Some(copied) = state.copied.get_mut(&key) {
            if let Some(until) = copied.rests_until {
                state.resting.remove(&(until, key));
            }
            let until = Instant::now() + copied.pause;
            copied.rests_until = Some(until);
            state.resting.insert((until, key));
            copied.pause = (copied.pause * 2).min(self.pause_max());
        }
    }

    /// Takes up again what has rested.
    fn wake(&self, state: &mut State) {
        let now = Instant::now();
        while let Some(first) = state.resting.first().copied()
            && first.0 <= now
        {
            state.resting.remove(&first);
            if let Some(copied) = state.copied.get_mut(&first.1) {
                copied.rests_until = None;
            }
            self.go_on(state, first.1);
        }
    }

    /// Waits for orders, or for what rests.
    async fn rest(&mut self, state: &mut State) {
        let Some((until, _)) = state.resting.first().copied() else {
            return;
        };
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            orders = self.orders.recv() => {
                for order in orders.into_iter().flatten() {
                    self.take_order(state, order);
                }
            }
        }
    }

    async fn fetch(&self, state: &mut State) -> io::Result<FetchResponse> {
        let image = self.cx.cluster.image();
        let away = || io::Error::from(io::ErrorKind::NotConnected);
        let leader = image.brokers.get(&self.leader).ok_or_else(away)?;
        let own = image.brokers.get(&self.cx.cluster.broker_id());
        let own = own.filter(|_| self.cx.cluster.may_act()).ok_or_else(away)?;
        let number = |key: &str| self.cx.config.number(key) as i32;
        let request = state.session.next(number("replica.fetch.max.bytes"));
        let mut wait_ms = number("replica.fetch.wait.max.ms");
        if let Some((until, _)) = state.resting.first() {
            // What rests is not to wait for long.
            let rests = until.saturating_duration_since(Instant::now()).as_millis();
            wait_ms = wait_ms.min(rests as i32);
        }
        let who = ReplicaState::default()
            .with_replica_id(BrokerId(own.id))
            .with_replica_epoch(own.epoch);
        let request = request
            .with_replica_id(BrokerId(-1))
            .with_replica_state(who)
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(number("replica.fetch.min.bytes"))
            .with_max_bytes(number("replica.fetch.response.max.bytes"));
        let wait = ANSWER_MAX + Duration::from_millis(wait_ms as u64);
        let (to, by) = (
            (Lane::Fetches(self.number), leader),
            (REPLICATION, FETCH_VERSION),
        );
        self.is_waiting.store(true, Ordering::Release);
        let answer = self.cx.call(to, by, &request, wait).await;
        self.is_waiting.store(false, Ordering::Release);
        answer
    }

    /// Whether the next fetch may follow at once.
    async fn take_answer(&self, state: &mut State, response: FetchResponse) -> bool {
        if response.error_code != 0 {
            let error = ResponseError::try_from_code(response.error_code);
            tracing::debug!(leader = self.leader, ?error, "a fetch is refused");
            state.session.begin_anew();
            return matches!(
                error,
                Some(
                    ResponseError::FetchSessionIdNotFound
                        | ResponseError::InvalidFetchSessionEpoch
                        | ResponseError::FetchSessionTopicIdError
                )
            );
        }
        let mut received = Vec::new();
        for topic in response.responses {
            for data in &topic.partitions {
                let key = (topic.topic_id, data.partition_index);
                received.extend(self.receive(state, key, data));
            }
        }
        // After what it answers was looked up: where there is no session, nothing counts as asked any more.
        state.session.answered(response.session_id);
        self.begin_with_first_batches(state, &received).await;
        self.append(state, &received).await;
        self.cut(state, &received).await;
        for one in &received {
            self.finish(state, one).await;
        }
        true
    }

    /// What came of one partition, where it is still what was asked for.
    fn receive(&self, state: &mut State, key: Key, data: &PartitionData) -> Option<Received> {
        let asked = state.session.asked(&key)?;
        let copied = state.copied.get(&key)?;
        if asked.leader_epoch != copied.leader_epoch {
            return None;
        }
        let Some(partition) = followed::partition(&self.cx, key) else {
            self.try_later(state, key);
            return None;
        };
        Some(Received {
            key,
            leader_epoch: asked.leader_epoch,
            partition,
            answer: answer::read(data),
        })
    }

    /// Where the leader's log starts within a batch, which comes whole, an empty log begins where the batch does (Kafka's
    /// Partition.appendRecordsToFollowerOrFutureReplica).
    async fn begin_with_first_batches(&self, state: &mut State, received: &[Received]) {
        let mut cuts = Vec::new();
        for one in received {
            if let Answer::GoesOn {
                records: Some(records),
                ..
            } = &one.answer
            {
                let ends = one.partition.log().ends();
                let at = answer::begins_before(records, ends.log_start, ends.log_end.offset);
                cuts.extend(at.map(|at| (one, CutTo::AnewAt(at))));
            }
        }
        self.carry_out(state, cuts).await;
    }

    /// Has all records appended, and waits until they are, synced where the topic syncs each message.
    async fn append(&self, state: &mut State, received: &[Received]) {
        let mut under_way = Vec::new();
        for (n, one) in received.iter().enumerate() {
            let Answer::GoesOn {
                records: Some(records),
                ..
            } = &one.answer
            else {
                continue;
            };
            let received = &self.cx.metrics.replication_received_bytes;
            received.fetch_add(records.len() as u64, Ordering::Relaxed);
            if self.is_throttled(&one.partition) {
                self.cx
                    .throttles
                    .follower
                    .record(records.len(), Instant::now());
            }
            match one.partition.append_fetched(records, one.leader_epoch) {
                Ok(appending) => under_way.push(async move { (n, appending.await) }),
                Err(error) => self.not_appended(state, one, &error),
            }
        }
        for (n, appended) in join_all(under_way).await {
            match appended {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => self.not_appended(state, &received[n], &error),
                Err(_) => self.try_later(state, received[n].key),
            }
        }
    }

    fn not_appended(&self, state: &mut State, one: &Received, error: &LogError) {
        let (topic, partition) = (one.partition.topic(), one.partition.index());
        if answer::is_final(error) {
            tracing::error!(%topic, partition, %error, "what was fetched cannot be written: the replica waits until its files can be used");
        } else {
            tracing::warn!(%topic, partition, %error, "what was fetched is not appended");
        }
        self.try_later(state, one.key);
    }

    /// Cuts the logs that diverge from their leader's.
    async fn cut(&self, state: &mut State, received: &[Received]) {
        let mut cuts = Vec::new();
        for one in received {
            let to = match &one.answer {
                Answer::Diverges { epoch, end_offset } => {
                    let log = one.partition.log();
                    let ends = log.ends();
                    let end = ends.log_end.offset;
                    let to = cut_to(&log.epochs(), end, *epoch, *end_offset);
                    if to < end {
                        tracing::info!(topic = %one.partition.topic(), partition = one.partition.index(),
                            to, log_end = end, epoch, "cut off where the leader has something else");
                    } else {
                        self.try_later(state, one.key);
                    }
                    CutTo::back_to(to, ends.log_start)
                }
                Answer::OutOfRange | Answer::GoesOn { .. } | Answer::Later(_) => continue,
            };
            cuts.push((one, to));
        }
        cuts.extend(self.cuts_of_out_of_range(state, received).await);
        self.carry_out(state, cuts).await;
    }

    /// What is to become of the logs from whose ends their leader's does not reach on.
    async fn cuts_of_out_of_range<'a>(
        &self,
        state: &mut State,
        received: &'a [Received],
    ) -> Vec<(&'a Received, CutTo)> {
        let of = received
            .iter()
            .filter(|one| matches!(one.answer, Answer::OutOfRange));
        let asked: Vec<_> = of
            .map(|one| async move {
                let (epoch, partition) = (one.leader_epoch, &one.partition);
                let to = out_of_range::resolve(&self.cx, self.leader, epoch, partition).await;
                (one, to)
            })
            .collect();
        let answers: Vec<_> = stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await;
        let mut cuts = Vec::new();
        for (one, to) in answers {
            match to {
                Ok(Some(to)) => cuts.push((one, to)),
                Ok(None) => self.try_later(state, one.key),
                Err(error) => {
                    tracing::warn!(topic = %one.partition.topic(), partition = one.partition.index(),
                        %error, "cannot learn where the leader's log starts and ends");
                    self.try_later(state, one.key);
                }
            }
        }
        cuts
    }

    async fn carry_out(&self, state: &mut State, cuts: Vec<(&Received, CutTo)>) {
        if cuts.is_empty() {
            return;
        }
        let cut = |(one, to): (&Received, CutTo)| Cut {
            partition: one.partition.clone(),
            leader_epoch: one.leader_epoch,
            to,
        };
        let of: Vec<&Received> = cuts.iter().map(|(one, _)| *one).collect();
        let cuts = cuts.into_iter().map(cut).collect();
        for (one, result) in of.into_iter().zip(self.cx.partitions.cut_off(cuts).await) {
            if let Err(error) = result {
                self.not_appended(state, one, &error);
            }
        }
    }

    /// Notes what the leader said of itself, and goes on from where the log ends now.
    async fn finish(&self, state: &mut State, one: &Received) {
        match &one.answer {
            Answer::GoesOn {
                high_watermark,
                log_start,
                ..
            } => {
                let partition = &one.partition;
                partition.leader_said(one.leader_epoch, *high_watermark);
                self.follow_log_start(partition, *log_start).await;
                // Unless it could not be appended: that may fail for long, and each time longer is waited.
                if let Some(copied) = state.copied.get_mut(&one.key)
                    && copied.rests_until.is_none()
                {
                    copied.pause = PAUSE_MIN;
                }
            }
            Answer::Diverges { .. } | Answer::OutOfRange => {}
            Answer::Later(error) => {
                tracing::debug!(topic = %one.partition.topic(), partition = one.partition.index(),
                    leader = self.leader, ?error, "is fetched later");
                self.try_later(state, one.key);
            }
        }
        let copied = state.copied.get(&one.key);
        if copied.is_some_and(|copied| copied.rests_until.is_none()) {
            self.go_on(state, one.key);
        }
    }

    async fn follow_log_start(&self, partition: &Arc<Partition>, log_start: i64) {
        if log_start <= partition.log().ends().log_start {
            return;
        }
        if let Err(error) = self
            .cx
            .partitions
            .follow_log_start(partition, log_start)
            .await
        {
            tracing::warn!(topic = %partition.topic(), partition = partition.index(), %error,
                "cannot move the log's start to its leader's");
        }
    }
}
