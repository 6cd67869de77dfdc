//! The store's session as the broker sees it, and the lease that follows from it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Whether the store can be reached, and whether what this process holds in it is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Reads and changes are answered.
    Connected,
    /// The store cannot be reached; ephemerals are still there until the session's timeout is over.
    Suspended,
    /// Ephemerals are gone, or will be; a new session is being made.
    Lost,
    /// The store was closed by this process.
    Closed,
}

impl SessionState {
    /// One word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Suspended => "suspended",
            Self::Lost => "lost",
            Self::Closed => "closed",
        }
    }
}

/// A session; those that follow a lost one have higher numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// From 1.
    pub number: u64,
    /// How it is.
    pub state: SessionState,
}

/// Until when this process may act on what it holds in the store. After that somebody else may.
///
/// It counts on the machine's boot clock, which goes on while the process is stopped and while the machine sleeps.
#[derive(Debug)]
pub struct Lease {
    until_ms: AtomicI64,
}

/// Never ends.
const FOREVER: i64 = i64::MAX;

impl Lease {
    /// Of a store that no other process can write to.
    pub(super) fn forever() -> Self {
        Self {
            until_ms: AtomicI64::new(FOREVER),
        }
    }

    /// Not held yet.
    pub(super) fn ended() -> Self {
        Self {
            until_ms: AtomicI64::new(0),
        }
    }

    /// Whether it is held at this moment.
    pub fn is_valid(&self) -> bool {
        let until = self.until_ms.load(Ordering::Acquire);
        until == FOREVER || boot_ms() < until
    }

    /// How long it is still held; `None` where it does not end.
    pub fn left(&self) -> Option<Duration> {
        let until = self.until_ms.load(Ordering::Acquire);
        (until != FOREVER)
            .then(|| Duration::from_millis(u64::try_from(until - boot_ms()).unwrap_or(0)))
    }

    pub(super) fn extend_to(&self, until_ms: i64) {
        self.until_ms.fetch_max(until_ms, Ordering::AcqRel);
    }

    pub(super) fn end(&self) {
        self.until_ms.store(0, Ordering::Release);
    }
}

/// Milliseconds since the machine started, those that it slept included.
pub(super) fn boot_ms() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}
