//! The share partitions that this broker serves: those of partitions that it leads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::error::ShareStateError;
use super::leading::{Leading, LogBounds, ShareStore};
use super::limits::ShareLimits;
use super::share_key::ShareKey;
use super::share_states::Reading;

/// Those that nobody asks for are forgotten after this; what is stored of them stays.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// See the module's documentation.
pub struct SharePartitions {
    known: Mutex<HashMap<ShareKey, Arc<Leading>>>,
    /// Those that a task is reading.
    opening: Mutex<HashSet<ShareKey>>,
    /// Between the beginnings of two writes of one share partition.
    write_pause: Duration,
}

impl SharePartitions {
    /// Serves none. The pause is the shortest between two writes of one share partition.
    pub fn new(write_pause: Duration) -> Self {
        Self {
            known: Mutex::default(),
            opening: Mutex::default(),
            write_pause,
        }
    }

    /// A share partition that is served.
    pub fn get(&self, key: &ShareKey) -> Option<Arc<Leading>> {
        let known = self.known.lock().get(key).cloned();
        known.filter(|leading| leading.ended().is_none())
    }

    /// A share partition of a partition that this broker leads in an epoch; what is stored of it is read first, where it was
    /// not. `begin` looks at the log.
    pub async fn open<E: From<ShareStateError>, F>(
        &self,
        (key, reading): (&ShareKey, Reading),
        store: &Arc<dyn ShareStore>,
        limits: ShareLimits,
        begin: impl FnOnce() -> F,
    ) -> Result<Arc<Leading>, E>
    where
        F: Future<Output = Result<LogBounds, E>>,
    {
        let leading = self.find(key, reading)?;
        let loaded = leading.load(store, limits, self.write_pause, begin).await;
        match loaded {
            Ok(()) => Ok(leading),
            Err(error) => {
                // Others wait for it too: it must not be served while another one is begun in its place.
                leading.end(ShareStateError::CoordinatorLoadInProgress);
                self.forget(&leading);
                Err(error)
            }
        }
    }

    /// The same, where that needs no reading.
    pub fn opened(&self, key: &ShareKey, reading: Reading) -> Option<Arc<Leading>> {
        let leading = self.get(key)?;
        let is_it = leading.leader_epoch() == reading.leader_epoch && leading.is_loaded();
        is_it.then_some(leading)
    }

    /// Notes that somebody begins to open a share partition; whether nobody has begun before. The one ends with
    /// [`Self::opening_ended`].
    pub fn begin_opening(&self, key: &ShareKey) -> bool {
        self.opening.lock().insert(key.clone())
    }

    /// It is open, or is not.
    pub fn opening_ended(&self, key: &ShareKey) {
        self.opening.lock().remove(key);
    }

    fn find(&self, key: &ShareKey, reading: Reading) -> Result<Arc<Leading>, ShareStateError> {
        let mut known = self.known.lock();
        if let Some(leading) = known.get(key) {
            if leading.leader_epoch() == reading.leader_epoch && leading.ended().is_none() {
                return Ok(leading.clone());
            }
            // Who asks has looked at the partition before it was led anew.
            if leading.leader_epoch() > reading.leader_epoch {
                return Err(ShareStateError::NotLeaderOrFollower);
            }
            leading.end(ShareStateError::NotLeaderOrFollower);
        }
        let leading = Arc::new(Leading::new(key.clone(), reading));
        known.insert(key.clone(), leading.clone());
        Ok(leading)
    }

    fn forget(&self, leading: &Arc<Leading>) {
        let mut known = self.known.lock();
        let there = known.get(leading.key());
        if there.is_some_and(|there| Arc::ptr_eq(there, leading)) {
            known.remove(leading.key());
        }
    }

    /// All that are served.
    pub fn all(&self) -> Vec<(ShareKey, Arc<Leading>)> {
        let known = self.known.lock();
        let all = known.iter();
        all.map(|(key, leading)| (key.clone(), leading.clone()))
            .collect()
    }

    /// Forgets those of a group of which no member has anything: what is stored is read again.
    pub fn forget_group(&self, group_id: &str) {
        for (key, leading) in self.all() {
            if &*key.group_id == group_id && leading.is_idle(Duration::ZERO) {
                leading.end(ShareStateError::NotLeaderOrFollower);
                self.forget(&leading);
            }
        }
    }

    /// Ends those that this broker leads no more, and forgets those that nobody asks for.
    pub fn sweep(&self, leads: impl Fn(Uuid, i32) -> Option<i32>) {
        for (key, leading) in self.all() {
            let is_led = leads(key.topic_id, key.partition) == Some(leading.leader_epoch());
            if is_led && leading.ended().is_none() && !leading.is_idle(IDLE_MAX) {
                continue;
            }
            leading.end(ShareStateError::NotLeaderOrFollower);
            self.forget(&leading);
        }
    }

    /// Ends all: the broker shuts down.
    pub fn stop(&self) {
        for (_, leading) in self.known.lock().drain() {
            leading.end(ShareStateError::NotLeaderOrFollower);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::share::partition::{DeadLetters, StoredState};
    use crate::share::stored_share::WrittenState;
    use crate::share::{NOT_SET, Storing};

    /// A coordinator of which each read waits for leave, and that counts what is written.
    struct Slow {
        leave: Arc<Semaphore>,
        fails: Arc<AtomicBool>,
        written: Arc<Mutex<Vec<WrittenState>>>,
    }

    impl ShareStore for Slow {
        fn read(&self, _: ShareKey, _: Reading) -> Storing<StoredState> {
            let (leave, written) = (self.leave.clone(), self.written.clone());
            let fails = self.fails.clone();
            Box::pin(async move {
                leave.acquire().await.unwrap().forget();
                if fails.load(Ordering::SeqCst) {
                    return Err(ShareStateError::NotCoordinator);
                }
                let start = written.lock().last().map_or(NOT_SET, |last| last.start);
                Ok(StoredState {
                    reading: 1,
                    start,
                    state_epoch: 0,
                    batches: Vec::new(),
                })
            })
        }

        fn bury(&self, _: ShareKey, letters: DeadLetters) -> Storing<i64> {
            Box::pin(async move { Ok(letters.last) })
        }

        fn write(&self, _: ShareKey, written: WrittenState) -> Storing<()> {
            self.written.lock().push(written);
            Box::pin(async { Ok(()) })
        }
    }

    const LIMITS: ShareLimits = ShareLimits {
        lock_ms: 30_000,
        delivery_count_max: 5,
        retry_backoff_ms: 0,
        locks_max: 2000,
        has_dead_letters: false,
        may_renew: true,
    };

    fn key() -> ShareKey {
        ShareKey {
            group_id: "g".into(),
            topic_id: Uuid::from_u128(1),
            partition: 0,
        }
    }

    fn led(leader_epoch: i32) -> Reading {
        Reading {
            leader_epoch,
            log_end: 10,
        }
    }

    struct Bench {
        partitions: Arc<SharePartitions>,
        leave: Arc<Semaphore>,
        fails: Arc<AtomicBool>,
        written: Arc<Mutex<Vec<WrittenState>>>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                partitions: Arc::new(SharePartitions::new(Duration::ZERO)),
                leave: Arc::new(Semaphore::new(0)),
                fails: Arc::default(),
                written: Arc::default(),
            }
        }

        /// Opens a share partition in a task, as far as it gets.
        async fn open(
            &self,
            leader_epoch: i32,
        ) -> tokio::task::JoinHandle<Result<Arc<Leading>, ShareStateError>> {
            let store: Arc<dyn ShareStore> = Arc::new(Slow {
                leave: self.leave.clone(),
                fails: self.fails.clone(),
                written: self.written.clone(),
            });
            let partitions = self.partitions.clone();
            let opening = tokio::spawn(async move {
                let bounds = LogBounds {
                    start: 0,
                    end: 10,
                    begin: 10,
                };
                let at = (&key(), led(leader_epoch));
                let begin = || async { Ok::<_, ShareStateError>(bounds) };
                partitions.open(at, &store, LIMITS, begin).await
            });
            tokio::task::yield_now().await;
            opening
        }
    }

    #[tokio::test]
    async fn who_knows_an_earlier_leader_epoch_does_not_end_what_is_led_in_a_later_one() {
        let bench = Bench::new();
        bench.leave.add_permits(2);
        let newer = bench.open(2).await.await.unwrap().unwrap();
        let older = bench.open(1).await.await.unwrap();
        assert_eq!(older.err(), Some(ShareStateError::NotLeaderOrFollower));
        assert_eq!(newer.ended(), None);
        assert!(bench.partitions.get(&key()).is_some());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_given_up_by_all_who_wait_for_it() {
        let bench = Bench::new();
        let (first, second) = (bench.open(1).await, bench.open(1).await);
        bench.fails.store(true, Ordering::SeqCst);
        bench.leave.add_permits(1);
        assert!(first.await.unwrap().is_err());
        bench.fails.store(false, Ordering::SeqCst);
        let third = bench.open(1).await;
        bench.leave.add_permits(10);
        let third = third.await.unwrap().unwrap();
        assert!(second.await.unwrap().is_err());
        let served = bench.partitions.get(&key()).unwrap();
        assert!(Arc::ptr_eq(&served, &third));
    }

    #[tokio::test]
    async fn what_ends_while_it_is_loaded_begins_nothing_and_is_not_served() {
        let bench = Bench::new();
        let opening = bench.open(1).await;
        // Another member of the group begins with it too.
        bench.partitions.forget_group("g");
        assert!(bench.partitions.get(&key()).is_some());
        bench.partitions.sweep(|_, _| Some(2));
        bench.leave.add_permits(2);
        let opened = opening.await.unwrap();
        assert_eq!(opened.err(), Some(ShareStateError::NotLeaderOrFollower));
        assert_eq!(*bench.written.lock(), []);
        assert!(bench.partitions.get(&key()).is_none());
    }

    #[tokio::test]
    async fn where_a_group_begins_is_stored_before_it_is_served() {
        let bench = Bench::new();
        bench.leave.add_permits(2);
        let leading = bench.open(1).await.await.unwrap().unwrap();
        let starts: Vec<i64> = bench.written.lock().iter().map(|one| one.start).collect();
        assert_eq!(starts, [10]);
        assert_eq!(leading.next_offset(LIMITS, 0), Ok(Some((10, 0))));
    }
}
