//! A share partition at the broker that leads its partition: one reads for it at a time, and a task writes what it has done.
//!
//! Tests: share/share_partitions.rs, tests/shares.rs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, Notify, OnceCell, oneshot};
use tokio::time::Instant;

use super::error::ShareStateError;
use super::limits::ShareLimits;
use super::partition::{
    AcknowledgeError, Acknowledgement, Acquire, AcquiredRecords, DeadLetters, InFlight,
    SharePartition, StateWrite, StoredState, WriteNumber,
};
use super::share_key::ShareKey;
use super::share_states::Reading;
use super::stored_share::{NOT_SET, WriteOrder, WrittenState};
use crate::partition::FetchWaiter;

/// What cannot be stored for this long is refused.
const STORE_MAX: Duration = Duration::from_secs(10);
/// Pause before a write is tried again, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The longest before dead letters are copied again that could not be.
const COPY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Something that is being read or stored.
pub type Storing<T> = Pin<Box<dyn Future<Output = Result<T, ShareStateError>> + Send>>;

/// The coordinators of share partitions, wherever they are.
pub trait ShareStore: Send + Sync + 'static {
    /// See [`super::ShareCoordinator::read`].
    fn read(&self, key: ShareKey, reading: Reading) -> Storing<StoredState>;
    /// See [`super::ShareCoordinator::write`].
    fn write(&self, key: ShareKey, written: WrittenState) -> Storing<()>;
    /// Copies records to the group's dead-letter topic; the last one that is copied, or of which there is nothing to copy.
    fn bury(&self, key: ShareKey, letters: DeadLetters) -> Storing<i64>;
}

/// When what a member said counts, or that it does not.
pub type Acknowledged = oneshot::Receiver<Result<(), ShareStateError>>;

struct State {
    partition: SharePartition,
    /// The coordinator's number of the read that it goes on from.
    reading: u64,
    /// As they were when they were asked for last.
    limits: ShareLimits,
    /// Who waits for which write.
    waiting: Vec<(WriteNumber, oneshot::Sender<Result<(), ShareStateError>>)>,
}

/// See the module's documentation.
pub struct Leading {
    key: ShareKey,
    /// As the partition's leader, when it began to lead it for the group.
    reading: Reading,
    /// Times of locks count from here.
    epoch: Instant,
    loaded: OnceCell<()>,
    state: Mutex<Option<State>>,
    /// Why it is not served any more.
    ended: Mutex<Option<ShareStateError>>,
    /// Held by who reads records for a member, until they are the member's.
    turn: AsyncMutex<()>,
    /// The task has something to do.
    wake: Notify,
    waiters: Mutex<Vec<(Arc<FetchWaiter>, usize)>>,
    used: Mutex<Instant>,
}

/// What a log has for a share group that begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Its first offset.
    pub start: i64,
    /// The offset after its last one.
    pub end: i64,
    /// Where a group begins of which nothing is stored.
    pub begin: i64,
}

/// What the task does next.
enum Next {
    Write(StateWrite),
    Copy(DeadLetters),
    Wait(Option<Instant>),
    End,
}

impl Leading {
    pub(super) fn new(key: ShareKey, reading: Reading) -> Self {
        Self {
            key,
            reading,
            epoch: Instant::now(),
            loaded: OnceCell::new(),
            state: Mutex::new(None),
            ended: Mutex::new(None),
            turn: AsyncMutex::new(()),
            wake: Notify::new(),
            waiters: Mutex::default(),
            used: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn leader_epoch(&self) -> i32 {
        self.reading.leader_epoch
    }

    /// Whether what is stored of it was read.
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.initialized()
    }

    pub(super) fn key(&self) -> &ShareKey {
        &self.key
    }

    /// Reads what is stored, once, and begins to serve it. `begin` says where the log begins and ends, and where the group
    /// begins, where nothing is stored.
    pub(super) async fn load<E: From<ShareStateError>, F>(
        self: &Arc<Self>,
        store: &Arc<dyn ShareStore>,
        limits: ShareLimits,
        pause: Duration,
        begin: impl FnOnce() -> F,
    ) -> Result<(), E>
    where
        F: Future<Output = Result<LogBounds, E>>,
    {
        let load = || async {
            if let Some(error) = self.ended() {
                return Err(error.into());
            }
            let mut stored = store.read(self.key.clone(), self.reading).await?;
            let log = begin().await?;
            if stored.start == NOT_SET {
                self.begin_at(&**store, &stored, log.begin).await?;
                // As it is stored now: one that led it before and was late may have begun it meanwhile.
                stored = store.read(self.key.clone(), self.reading).await?;
            }
            let mut partition = SharePartition::new(&stored);
            partition.log_begins_at(log.start);
            partition.log_ends_at(log.end);
            let mut state = self.state.lock();
            if let Some(error) = self.ended() {
                return Err(error.into());
            }
            *state = Some(State {
                partition,
                reading: stored.reading,
                limits,
                waiting: Vec::new(),
            });
            drop(state);
            tokio::spawn(self.clone().run(store.clone(), pause));
            Ok::<(), E>(())
        };
        self.loaded.get_or_try_init(load).await.map(|_| ())
    }

    /// Stores where the group begins, before anything is given out: another leader is to begin there too, not at a later end.
    async fn begin_at(
        &self,
        store: &dyn ShareStore,
        stored: &StoredState,
        start: i64,
    ) -> Result<(), ShareStateError> {
        if let Some(error) = self.ended() {
            return Err(error);
        }
        let begun = WrittenState {
            order: WriteOrder {
                reading: stored.reading,
                number: 0,
            },
            state_epoch: stored.state_epoch,
            leader_epoch: self.reading.leader_epoch,
            start,
            delivery_complete_count: 0,
            batches: Vec::new(),
        };
        store.write(self.key.clone(), begun).await
    }

    fn now_ms(&self) -> i64 {
        self.epoch.elapsed().as_millis() as i64
    }

    fn with<T>(&self, work: impl FnOnce(&mut State, i64) -> T) -> Result<T, ShareStateError> {
        let now_ms = self.now_ms();
        let mut state = self.state.lock();
        // It may have ended meanwhile: whoever waits from now on would be told nothing.
        if let Some(error) = *self.ended.lock() {
            return Err(error);
        }
        match state.as_mut() {
            Some(state) => Ok(work(state, now_ms)),
            None => Err(ShareStateError::CoordinatorLoadInProgress),
        }
    }

    /// Waits until nobody else reads for it.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// From where to read for a member, of a log that begins there; `None` while nothing more may be given out. And how many
    /// offsets are under way from there on.
    pub fn next_offset(
        &self,
        limits: ShareLimits,
        log_start: i64,
    ) -> Result<Option<(i64, i64)>, ShareStateError> {
        *self.used.lock() = Instant::now();
        self.with(|state, _| {
            state.limits = limits;
            let partition = &mut state.partition;
            partition.log_begins_at(log_start);
            let next = partition.next_offset();
            let may = partition.can_acquire(limits.locks_max);
            may.then(|| (next, (partition.end() - next).max(0)))
        })
    }

    /// Gives records that were read to a member.
    pub fn acquire(
        &self,
        limits: &ShareLimits,
        wanted: &Acquire<'_>,
    ) -> Result<Vec<AcquiredRecords>, ShareStateError> {
        let acquired =
            self.with(|state, now_ms| state.partition.acquire(now_ms, limits, wanted))?;
        if !acquired.is_empty() {
            self.wake.notify_one();
        }
        Ok(acquired)
    }

    /// What a member says of records it has; it counts when that is stored. `None` where nothing is to be stored.
    pub fn acknowledge(
        &self,
        limits: ShareLimits,
        member: &str,
        said: &[Acknowledgement],
    ) -> Result<Result<Option<Acknowledged>, AcknowledgeError>, ShareStateError> {
        *self.used.lock() = Instant::now();
        let counts = self.with(|state, now_ms| {
            state.limits = limits;
            let number = state.partition.acknowledge(now_ms, &limits, member, said)?;
            Ok(number.map(|number| wait_for(state, number)))
        });
        self.wake.notify_one();
        counts
    }

    /// A member is gone: what it has is others' again, when that is stored.
    pub fn release(&self, member: &str) -> Option<Acknowledged> {
        let waits = self.with(|state, now_ms| {
            let number = state.partition.release(now_ms, &state.limits, member)?;
            Some(wait_for(state, number))
        });
        self.wake.notify_one();
        waits.ok().flatten()
    }

    /// What is under way; times as ms before now and from now on.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let found = self.with(|state, now_ms| {
            let mut all = state.partition.in_flight();
            for part in &mut all {
                if let Some(held) = &mut part.held {
                    held.since_ms = now_ms - held.since_ms;
                    held.until_ms -= now_ms;
                }
            }
            all
        });
        found.unwrap_or_default()
    }

    /// Tells a fetch, by the number it gives this, whenever there may be more for it.
    pub fn subscribe(self: &Arc<Self>, waiter: &Arc<FetchWaiter>, number: usize) -> Watching {
        self.waiters.lock().push((waiter.clone(), number));
        Watching {
            leading: self.clone(),
            waiter: waiter.clone(),
        }
    }

    fn wake_fetches(&self) {
        for (waiter, number) in &*self.waiters.lock() {
            waiter.note_moved(*number);
        }
    }

    /// Why it is not served any more.
    pub(super) fn ended(&self) -> Option<ShareStateError> {
        *self.ended.lock()
    }

    /// It is served no more: who waits learns why.
    pub(super) fn end(&self, error: ShareStateError) {
        self.ended.lock().get_or_insert(error);
        if let Some(state) = self.state.lock().as_mut() {
            for (_, waits) in state.waiting.drain(..) {
                let _ = waits.send(Err(error));
            }
        }
        self.wake.notify_one();
        self.wake_fetches();
    }

    /// Whether it was not used for so long, and nobody has anything of it.
    pub(super) fn is_idle(&self, for_at_least: Duration) -> bool {
        let rests = self.with(|state, _| {
            let all = state.partition.in_flight();
            let is_held = all.iter().any(|part| part.held.is_some());
            let is_busy = state.partition.wants_write() || state.partition.has_dead_letters();
            !is_held && state.waiting.is_empty() && !is_busy
        });
        // What is being loaded is about to be used.
        let rests =
            rests.unwrap_or_else(|error| error != ShareStateError::CoordinatorLoadInProgress);
        self.used.lock().elapsed() >= for_at_least && rests
    }

    /// Writes what there is to write, a write at a time, and lets locks expire.
    async fn run(self: Arc<Self>, store: Arc<dyn ShareStore>, pause: Duration) {
        let mut next_write = Instant::now();
        loop {
            match self.next(next_write) {
                Next::End => return,
                Next::Write(write) => {
                    next_write = Instant::now() + pause;
                    let number = write.number;
                    let outcome = self.store(&*store, write).await;
                    self.stored(number, outcome);
                }
                Next::Copy(letters) => {
                    tokio::spawn(self.clone().copy(store.clone(), letters));
                }
                Next::Wait(until) => {
                    let timer = async {
                        match until {
                            Some(until) => tokio::time::sleep_until(until).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = timer => {}
                    }
                }
            }
        }
    }

    fn next(&self, next_write: Instant) -> Next {
        let now = Instant::now();
        let next = self.with(|state, now_ms| {
            let is_again = state.partition.tick(now_ms, &state.limits);
            let wants_write = state.partition.wants_write();
            if wants_write && next_write <= now {
                return (is_again, state.partition.take_write().map(Next::Write));
            }
            if let Some(letters) = state.partition.take_dead_letters() {
                return (is_again, Some(Next::Copy(letters)));
            }
            let deadline = state.partition.next_deadline();
            let deadline = deadline.map(|at_ms| {
                self.epoch + Duration::from_millis(at_ms.unsigned_abs()) + Duration::from_millis(1)
            });
            let write = wants_write.then_some(next_write);
            let until = deadline.into_iter().chain(write).min();
            (is_again, Some(Next::Wait(until)))
        });
        let (is_again, next) = next.unwrap_or_default();
        if is_again {
            self.wake_fetches();
        }
        next.unwrap_or(Next::End)
    }

    /// Copies dead letters, again and again until they are. What is said of other records goes on meanwhile.
    async fn copy(self: Arc<Self>, store: Arc<dyn ShareStore>, letters: DeadLetters) {
        let mut pause = PAUSE_MIN;
        while self.ended().is_none() {
            match store.bury(self.key.clone(), letters).await {
                Ok(last) => {
                    // It may have ended meanwhile.
                    let _ = self.with(|state, _| state.partition.copied(&letters, last));
                    return self.wake.notify_one();
                }
                Err(error) => {
                    tracing::debug!(share = %self.key, %error, "cannot copy dead letters")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(COPY_PAUSE_MAX);
        }
    }

    async fn store(
        &self,
        store: &dyn ShareStore,
        write: StateWrite,
    ) -> Result<(), ShareStateError> {
        let known = |state: &mut State, _| (state.partition.state_epoch(), state.reading);
        let (state_epoch, reading) = self.with(known)?;
        let written = WrittenState {
            order: WriteOrder {
                reading,
                number: write.number,
            },
            state_epoch,
            leader_epoch: self.reading.leader_epoch,
            start: write.start,
            delivery_complete_count: write.delivery_complete_count,
            batches: write.batches,
        };
        let (began, mut pause) = (Instant::now(), PAUSE_MIN);
        loop {
            let outcome = store.write(self.key.clone(), written.clone()).await;
            match outcome {
                Err(error)
                    if error.may_heal()
                        && began.elapsed() < STORE_MAX
                        && self.ended().is_none() =>
                {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                outcome => return outcome,
            }
        }
    }

    fn stored(&self, number: WriteNumber, outcome: Result<(), ShareStateError>) {
        if let Err(error) = outcome {
            tracing::warn!(share = %self.key, %error, "cannot store what a share group has done");
            if !error.may_heal() {
                return self.end(error);
            }
        }
        let told = self.with(|state, _| {
            let partition = &mut state.partition;
            let could = partition.can_acquire(state.limits.locks_max);
            partition.stored(number, outcome.is_ok());
            let is_again = partition.next_offset() < partition.end();
            let is_more = is_again || (!could && partition.can_acquire(state.limits.locks_max));
            let waits = state.waiting.extract_if(.., |(of, _)| *of <= number);
            (is_more, waits.collect::<Vec<_>>())
        });
        let Ok((is_more, waits)) = told else { return };
        for (_, waits) in waits {
            let _ = waits.send(outcome);
        }
        if is_more {
            self.wake_fetches();
        }
    }
}

fn wait_for(state: &mut State, number: WriteNumber) -> Acknowledged {
    let (sender, receiver) = oneshot::channel();
    state.waiting.push((number, sender));
    receiver
}

/// Keeps a fetch waiting for a share partition until dropped.
pub struct Watching {
    leading: Arc<Leading>,
    waiter: Arc<FetchWaiter>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut waiters = self.leading.waiters.lock();
        waiters.retain(|(waiter, _)| !Arc::ptr_eq(waiter, &self.waiter));
    }
}
