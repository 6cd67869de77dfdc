//! Fetches that wait for a partition to grow. Nothing polls: what moves a partition's readable end tells each waiting fetch
//! which of its partitions moved. A follower's session waits through all of its fetches, so that what did not move costs none of
//! them anything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One waiting fetch; it may wait for many partitions, which it numbers.
#[derive(Default)]
pub struct FetchWaiter {
    moved: Mutex<BTreeSet<usize>>,
    notify: Notify,
}

impl FetchWaiter {
    /// Waits until a partition moves; the numbers of those that moved since this was asked last.
    pub async fn moved(&self) -> BTreeSet<usize> {
        loop {
            let moved = self.take_moved();
            if !moved.is_empty() {
                return moved;
            }
            self.notify.notified().await;
        }
    }

    /// The numbers of those that moved since this was asked last.
    pub fn take_moved(&self) -> BTreeSet<usize> {
        std::mem::take(&mut *self.moved.lock())
    }

    /// Notes that a partition moved, or is to be looked at again.
    pub fn note_moved(&self, number: usize) {
        self.note(number);
        self.notify.notify_one();
    }

    /// Notes that a partition is to be looked at again, for which a fetch need not be answered.
    pub fn note(&self, number: usize) {
        self.moved.lock().insert(number);
    }
}

/// The fetches that wait for one partition, each with the number that it gave the partition.
#[derive(Default)]
pub(super) struct Waiters {
    /// Looked at on every append, so that a partition that no fetch waits for costs no lock.
    count: AtomicUsize,
    waiting: Mutex<Vec<(Arc<FetchWaiter>, usize)>>,
}

impl Waiters {
    /// The partition moved.
    pub(super) fn wake_all(&self) {
        self.tell_all(FetchWaiter::note_moved);
    }

    /// What is said of the partition changed, for which nobody is woken.
    pub(super) fn note_all(&self) {
        self.tell_all(FetchWaiter::note);
    }

    fn tell_all(&self, tell: impl Fn(&FetchWaiter, usize)) {
        if self.count.load(Ordering::SeqCst) > 0 {
            let waiting = self.waiting.lock();
            waiting
                .iter()
                .for_each(|(waiter, number)| tell(waiter, *number));
        }
    }

    fn add(&self, waiter: &Arc<FetchWaiter>, number: usize) {
        let mut waiting = self.waiting.lock();
        waiting.push((waiter.clone(), number));
        self.count.store(waiting.len(), Ordering::SeqCst);
    }

    fn remove(&self, waiter: &Arc<FetchWaiter>, number: usize) {
        let mut waiting = self.waiting.lock();
        let is_it =
            |(known, n): &(Arc<FetchWaiter>, usize)| *n == number && Arc::ptr_eq(known, waiter);
        if let Some(at) = waiting.iter().position(is_it) {
            waiting.swap_remove(at);
        }
        self.count.store(waiting.len(), Ordering::SeqCst);
    }
}

/// Keeps a fetch waiting for a partition until dropped.
pub struct Subscription {
    waiters: Arc<Waiters>,
    waiter: Arc<FetchWaiter>,
    number: usize,
}

impl Subscription {
    /// Tells `waiter` whenever the readable end of its partition of that number moves.
    pub(super) fn new(waiters: Arc<Waiters>, waiter: &Arc<FetchWaiter>, number: usize) -> Self {
        waiters.add(waiter, number);
        Self {
            waiters,
            waiter: waiter.clone(),
            number,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.waiters.remove(&self.waiter, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiting_fetch_hears_which_of_its_partitions_moved_and_each_once() {
        let (waiter, other) = (Arc::new(FetchWaiter::default()), Arc::default());
        let partitions = [Waiters::default(), Waiters::default(), Waiters::default()];
        for (number, partition) in partitions.iter().enumerate() {
            partition.add(&waiter, number);
            partition.add(&other, 9);
        }
        partitions[2].wake_all();
        partitions[0].wake_all();
        partitions[2].wake_all();
        assert_eq!(waiter.moved().await, [0, 2].into());
        partitions[1].remove(&waiter, 1);
        partitions[1].wake_all();
        partitions[0].wake_all();
        assert_eq!(waiter.moved().await, [0].into());
        assert_eq!(other.moved().await, [9].into());
        partitions[2].note_all();
        assert_eq!(waiter.take_moved(), [2].into());
        assert_eq!(waiter.take_moved(), [].into());
    }
}
