//! When connections write what they queued themselves, at the end of a poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// When connections write what they queued themselves; clones share the count.
#[derive(Clone, Debug)]
pub struct InlineWrites {
    /// At most so many at a time, over all data directories; 0 for never. Fewer than the runtime has threads: a disk that
    /// stands still leaves the others.
    pub at_a_time_max: usize,
    /// A commit group on the fast path that takes longer, whoever writes it, leaves those after it to the thread; so does any
    /// other that takes fifty times as long …
    pub time_max: Duration,
    /// … for this long.
    pub pause: Duration,
    under_way: Arc<AtomicUsize>,
    written: Arc<AtomicU64>,
}

impl InlineWrites {
    /// With the times that production has.
    pub fn new(at_a_time_max: usize) -> Self {
        Self {
            at_a_time_max,
            time_max: Duration::from_millis(2),
            pause: Duration::from_secs(1),
            under_way: Arc::default(),
            written: Arc::default(),
        }
    }

    /// How many commit groups connections have written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn count_written(&self) {
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins one; `None` when there are too many.
    pub(super) fn begin(&self) -> Option<InlineWrite<'_>> {
        let under_way = self.under_way.fetch_add(1, Ordering::AcqRel);
        let inline_write = InlineWrite(&self.under_way);
        (under_way < self.at_a_time_max).then_some(inline_write)
    }
}

/// Ends when dropped.
pub(super) struct InlineWrite<'a>(&'a AtomicUsize);

impl Drop for InlineWrite<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
