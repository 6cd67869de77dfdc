//! What changes records that are there already: one at a time, and known to those that copy the log meanwhile.
//!
//! Retention and DeleteRecords take segments from the front, truncation cuts off the end. Whoever does that holds
//! [`Rewriting`] (as Redpanda's segment rewrite lock), then the tail. Compaction holds it for long: what can be done later tries
//! to get it, and for truncation, closing and deletion, which wait for it, compaction gives up.
//!
//! Appending is no rewriting, nor is taking from the front: a copy of the log that is brought up to date step by step only
//! has to begin anew where the count of rewrites has grown.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// One at a time rewrites a log.
#[derive(Default)]
pub(super) struct RewriteLock {
    lock: Mutex<()>,
    /// How often records were cut off or replaced.
    rewrites: AtomicU64,
    /// How many wait for it.
    waiting: AtomicU32,
}

/// The right to change records that are there.
pub(super) struct Rewriting<'a> {
    of: &'a RewriteLock,
    _held: MutexGuard<'a, ()>,
}

impl RewriteLock {
    /// How often records were cut off or replaced.
    pub(super) fn rewrites(&self) -> u64 {
        self.rewrites.load(Ordering::Acquire)
    }

    /// Whether somebody waits for it: what takes long gives it up.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Waits until it is free.
    pub(super) fn lock(&self) -> Rewriting<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let held = self.lock.lock();
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        Rewriting {
            of: self,
            _held: held,
        }
    }

    /// Where it is free.
    pub(super) fn try_lock(&self) -> Option<Rewriting<'_>> {
        Some(Rewriting {
            of: self,
            _held: self.lock.try_lock()?,
        })
    }
}

impl Rewriting<'_> {
    /// As [`RewriteLock::is_wanted`].
    pub(super) fn is_wanted(&self) -> bool {
        self.of.is_wanted()
    }

    /// Records are going to be cut off or replaced. Where that is not done under the lock of the log's tail, it is said again
    /// when it is done.
    pub(super) fn begin(&self) {
        self.of.rewrites.fetch_add(1, Ordering::AcqRel);
    }
}
