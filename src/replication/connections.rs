//! Connections to leaders, each with a task that copies: which one a partition goes to, and a new task where one panicked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::followed::Key;

/// Connections to a leader beyond num.replica.fetchers: what is to be copied at once does not wait for a fetch that waits.
const EXTRA_CONNECTIONS: usize = 2;
/// Pause before a task that panicked is started again, doubled up to a limit while it panics again and again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// One that ran so long is not one that panics again and again.
const RAN_WELL: Duration = Duration::from_secs(60);

/// What a task is to do with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Copy it from this connection's leader, which leads in an epoch.
    Follow(Key, i32),
    /// Copy it no more.
    Forget(Key),
}

/// A connection's name: the leader, and which of the connections to it.
pub(super) type At = (i32, usize);

/// What a task that copies is given.
pub(super) struct Start {
    /// Whom it fetches from.
    pub(super) leader: i32,
    /// Which of the connections to it.
    pub(super) number: usize,
    /// What it is to do; it ends with the sender.
    pub(super) orders: mpsc::UnboundedReceiver<Vec<Order>>,
    /// Whether a fetch waits at the leader: what is ordered now waits for its answer.
    pub(super) is_waiting: Arc<AtomicBool>,
}

struct Connection {
    orders: mpsc::UnboundedSender<Vec<Order>>,
    is_waiting: Arc<AtomicBool>,
    partitions: usize,
    task: Id,
    started: Instant,
    pause: Duration,
}

/// See the module's documentation. `copy` makes a task's work.
pub(super) struct Connections<F> {
    copy: F,
    all: BTreeMap<At, Connection>,
    tasks: JoinSet<()>,
}

impl<F, Work> Connections<F>
where
    F: Fn(Start) -> Work,
    Work: Future<Output = ()> + Send + 'static,
{
    pub(super) fn new(copy: F) -> Self {
        Self {
            copy,
            all: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// A connection to a leader that waits for nothing, or another one; where there are as many as may be, the one with the
    /// fewest partitions.
    pub(super) fn free(&mut self, leader: i32, usual: usize) -> At {
        let known = || self.all.range((leader, 0)..=(leader, usize::MAX));
        let by_load = |(_, connection): &(&At, &Connection)| connection.partitions;
        let free = known().filter(|(_, one)| !one.is_waiting.load(Ordering::Acquire));
        let count = known().count();
        if count >= usual
            && let Some((at, _)) = free.min_by_key(by_load)
        {
            return *at;
        }
        if count >= usual + EXTRA_CONNECTIONS
            && let Some((at, _)) = known().min_by_key(by_load)
        {
            return *at;
        }
        let is_taken = |number: &usize| self.all.contains_key(&(leader, *number));
        let number = (0..).find(|number| !is_taken(number)).unwrap_or_default();
        let at = (leader, number);
        self.connect(at, 0, Duration::ZERO);
        at
    }

    /// A partition more is copied there.
    pub(super) fn count_one_more(&mut self, at: At) {
        if let Some(connection) = self.all.get_mut(&at) {
            connection.partitions += 1;
        }
    }

    /// Gives orders.
    pub(super) fn order(&self, at: At, orders: Vec<Order>) {
        if let Some(connection) = self.all.get(&at) {
            // Of one whose task has panicked all that is copied is ordered again.
            let _ = connection.orders.send(orders);
        }
    }

    /// Partitions are not copied there any more; a connection without any ends.
    pub(super) fn forget(&mut self, at: At, orders: Vec<Order>) {
        let Some(connection) = self.all.get_mut(&at) else {
            return;
        };
        connection.partitions = connection.partitions.saturating_sub(orders.len());
        match connection.partitions {
            // The task ends with it.
            0 => drop(self.all.remove(&at)),
            _ => drop(connection.orders.send(orders)),
        }
    }

    /// Waits until a task panics whose connection is needed still; `None` where there is none that could.
    pub(super) async fn panicked(&mut self) -> Option<At> {
        loop {
            if let Err(error) = self.tasks.join_next_with_id().await?
                && let Some(at) = self.of_task(error.id())
            {
                let pause = self.pause_of(at);
                tracing::error!(
                    leader = at.0,
                    connection = at.1,
                    what = said(error),
                    ?pause,
                    "copying from a leader ended by a panic, which is a bug; it begins anew"
                );
                return Some(at);
            }
        }
    }

    /// Starts a task that panicked again, after a pause, with all that it is to copy.
    pub(super) fn restart(&mut self, at: At, orders: Vec<Order>) {
        let pause = self.pause_of(at);
        self.connect(at, orders.len(), pause);
        self.order(at, orders);
    }

    fn of_task(&self, task: Id) -> Option<At> {
        let mut all = self.all.iter();
        all.find(|(_, one)| one.task == task).map(|(at, _)| *at)
    }

    fn pause_of(&self, at: At) -> Duration {
        let before = self.all.get(&at);
        let before = before.filter(|one| one.started.elapsed() < RAN_WELL + one.pause);
        before.map_or(PAUSE_MIN, |one| (one.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX))
    }

    fn connect(&mut self, at: At, partitions: usize, pause: Duration) {
        let (orders, receiver) = mpsc::unbounded_channel();
        let is_waiting = Arc::new(AtomicBool::new(false));
        let work = (self.copy)(Start {
            leader: at.0,
            number: at.1,
            orders: receiver,
            is_waiting: is_waiting.clone(),
        });
        let task = self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            work.await;
        });
        let connection = Connection {
            orders,
            is_waiting,
            partitions,
            task: task.id(),
            started: Instant::now(),
            pause,
        };
        self.all.insert(at, connection);
    }
}

/// What was said at a panic.
fn said(error: JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else {
        return "it was aborted".to_owned();
    };
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use uuid::Uuid;

    use super::*;

    const WAIT_MAX: Duration = Duration::from_secs(20);

    fn follow(index: i32) -> Order {
        Order::Follow((Uuid::from_u128(7), index), 3)
    }

    #[tokio::test]
    async fn a_task_that_panics_is_started_again_with_all_that_it_is_to_copy() {
        let runs = Arc::new(AtomicUsize::new(0));
        let (told, mut heard) = mpsc::unbounded_channel();
        let mut connections = Connections::new(|mut start: Start| {
            let (run, told) = (runs.fetch_add(1, Ordering::SeqCst), told.clone());
            async move {
                while let Some(orders) = start.orders.recv().await {
                    assert!(run >= 2, "run {run} ends on purpose");
                    let _ = told.send(orders);
                }
            }
        });
        let at = connections.free(5, 1);
        for index in [0, 1] {
            connections.count_one_more(at);
            connections.order(at, vec![follow(index)]);
        }
        for _ in 0..2 {
            let panicked = tokio::time::timeout(WAIT_MAX, connections.panicked()).await;
            assert_eq!(panicked.unwrap(), Some(at));
            // What is ordered meanwhile is lost with the task.
            connections.order(at, vec![follow(1)]);
            connections.restart(at, vec![follow(0), follow(1)]);
        }
        let again = tokio::time::timeout(WAIT_MAX, heard.recv()).await.unwrap();
        assert_eq!(again, Some(vec![follow(0), follow(1)]));
        assert_eq!(connections.pause_of(at), 4 * PAUSE_MIN);
        // It ends with its last partition, and nobody misses it.
        connections.forget(at, vec![follow(0), follow(1)]);
        let ended = tokio::time::timeout(WAIT_MAX, connections.panicked()).await;
        assert_eq!(ended.unwrap(), None);
    }
}
