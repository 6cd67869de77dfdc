//! Readers that wait for a partition to grow. Nothing polls: an append wakes who subscribed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One waiting request; it may subscribe to many partitions.
pub type Waiter = Arc<Notify>;

/// The waiters of one partition.
#[derive(Default)]
pub(super) struct Waiters {
    /// Looked at on every append, so that a partition nobody waits for costs no lock.
    count: AtomicUsize,
    waiting: Mutex<Vec<Waiter>>,
}

impl Waiters {
    pub(super) fn wake_all(&self) {
        if self.count.load(Ordering::SeqCst) > 0 {
            self.waiting
                .lock()
                .iter()
                .for_each(|waiter| waiter.notify_one());
        }
    }

    fn add(&self, waiter: &Waiter) {
        let mut waiting = self.waiting.lock();
        waiting.push(waiter.clone());
        self.count.store(waiting.len(), Ordering::SeqCst);
    }

    fn remove(&self, waiter: &Waiter) {
        let mut waiting = self.waiting.lock();
        if let Some(at) = waiting.iter().position(|known| Arc::ptr_eq(known, waiter)) {
            waiting.swap_remove(at);
        }
        self.count.store(waiting.len(), Ordering::SeqCst);
    }
}

/// Keeps a waiter subscribed to a partition until dropped.
pub struct Subscription {
    partition: Arc<super::Partition>,
    waiter: Waiter,
}

impl Subscription {
    /// Wakes `waiter` whenever the partition's readable end moves.
    pub fn new(partition: Arc<super::Partition>, waiter: &Waiter) -> Self {
        partition.waiters.add(waiter);
        Self {
            partition,
            waiter: waiter.clone(),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.partition.waiters.remove(&self.waiter);
    }
}
