//! How long syncs of files take: counters that the threads that sync write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::events::{EventKind, Events, Happened};

/// Upper bounds of the buckets, microseconds.
pub const SYNC_BUCKETS_US: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 10_000_000,
];
/// A sync that takes longer than this is slow: who waits for it notices.
pub const SYNC_SLOW: Duration = Duration::from_millis(500);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Syncs {
    count: AtomicU64,
    time_us: AtomicU64,
    slow: AtomicU64,
    /// Longest since it was asked for last.
    longest_us: AtomicU64,
    buckets: [AtomicU64; SYNC_BUCKETS_US.len()],
    events: Option<Events>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncSnapshot {
    /// Syncs since the start.
    pub count: u64,
    /// Their time together, microseconds.
    pub time_us: u64,
    /// Those above [`SYNC_SLOW`].
    pub slow: u64,
    /// Those at or below each of [`SYNC_BUCKETS_US`].
    pub buckets: [u64; SYNC_BUCKETS_US.len()],
}

impl Syncs {
    /// Tells of those that are slow.
    pub fn telling(events: Events) -> Self {
        Self {
            events: Some(events),
            ..Self::default()
        }
    }

    /// Notes a sync of what `subject` names; whether it was slow.
    pub fn took(&self, time: Duration, subject: impl FnOnce() -> String) -> bool {
        let us = time.as_micros() as u64;
        self.count.fetch_add(1, Ordering::Relaxed);
        self.time_us.fetch_add(us, Ordering::Relaxed);
        self.longest_us.fetch_max(us, Ordering::Relaxed);
        if let Some(at) = SYNC_BUCKETS_US.iter().position(|bound| us <= *bound) {
            self.buckets[at].fetch_add(1, Ordering::Relaxed);
        }
        let slow = time >= SYNC_SLOW;
        if slow {
            self.slow.fetch_add(1, Ordering::Relaxed);
            if let Some(events) = &self.events {
                let slow = Happened::new(EventKind::SlowSync, subject());
                let slow = slow.why("a sync took long: the disk is slow or busy");
                events.tell(slow.took_ms(time.as_millis() as i64));
            }
        }
        slow
    }

    /// The longest since this was asked last, microseconds.
    pub fn take_longest_us(&self) -> u64 {
        self.longest_us.swap(0, Ordering::Relaxed)
    }

    /// The counters.
    pub fn snapshot(&self) -> SyncSnapshot {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let mut buckets = [0; SYNC_BUCKETS_US.len()];
        let mut below = 0;
        for (bucket, count) in buckets.iter_mut().zip(&self.buckets) {
            below += load(count);
            *bucket = below;
        }
        SyncSnapshot {
            count: load(&self.count),
            time_us: load(&self.time_us),
            slow: load(&self.slow),
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_by_how_long_they_take() {
        let events = Events::new(crate::clock::WallClock::default());
        let syncs = Syncs::telling(events.clone());
        let name = || "t-0".to_owned();
        assert!(!syncs.took(Duration::from_micros(100), name));
        assert!(!syncs.took(Duration::from_micros(300), name));
        assert!(syncs.took(Duration::from_secs(60), name));
        let recorded = events.latest(&[], 2);
        assert_eq!((recorded.len(), recorded[0].took_ms), (1, Some(60_000)));
        let seen = syncs.snapshot();
        assert_eq!((seen.count, seen.slow), (3, 1));
        assert_eq!(seen.buckets[..3], [1, 1, 2]);
        assert_eq!(seen.buckets[11], 2);
        assert_eq!(syncs.take_longest_us(), 60_000_000);
        assert_eq!(syncs.take_longest_us(), 0);
    }
}
