//! The store's session as the broker sees it, and the lease that follows from it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
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
/// A session that can be used is not enough: a new one holds nothing of what the one before held, so it counts only
/// when it is claimed, after the registration in it.
///
/// It counts on the machine's boot clock, which goes on while the process is stopped and while the machine sleeps.
#[derive(Debug)]
pub struct Lease {
    clock: Clock,
    until_ms: AtomicI64,
    session: AtomicU64,
    claimed: AtomicU64,
    revoked: AtomicBool,
}

/// What a lease counts on, ms.
#[derive(Clone)]
enum Clock {
    Boot,
    Other(Arc<dyn Fn() -> i64 + Send + Sync>),
}

impl Clock {
    fn now_ms(&self) -> i64 {
        match self {
            Self::Boot => boot_ms(),
            Self::Other(now_ms) => now_ms(),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "Boot",
            Self::Other(_) => "Other",
        })
    }
}

/// Never ends.
const FOREVER: i64 = i64::MAX;

impl Lease {
    /// Of a store that no other process can write to.
    pub fn forever() -> Self {
        Self::until(FOREVER, Clock::Boot)
    }

    /// Not held yet, on a clock of the caller's: a simulated one. The clock gives milliseconds and never goes back.
    pub fn on_clock(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self::until(0, Clock::Other(Arc::new(now_ms)))
    }

    fn until(until_ms: i64, clock: Clock) -> Self {
        Self {
            clock,
            until_ms: AtomicI64::new(until_ms),
            session: AtomicU64::new(1),
            claimed: AtomicU64::new(0),
            revoked: AtomicBool::new(false),
        }
    }

    /// Not held yet.
    pub(super) fn ended() -> Self {
        Self::until(0, Clock::Boot)
    }

    /// Whether this process may act at this moment.
    pub fn is_valid(&self) -> bool {
        let claimed = self.claimed.load(Ordering::Acquire) == self.session();
        claimed && self.is_held() && !self.is_revoked()
    }

    /// Whether the session is there for others too, claimed or not.
    pub fn is_held(&self) -> bool {
        let until = self.until_ms.load(Ordering::Acquire);
        until == FOREVER || self.clock.now_ms() < until
    }

    /// The number of the session that it is about.
    pub fn session(&self) -> u64 {
        self.session.load(Ordering::Acquire)
    }

    /// What this process acts on is held in this session.
    pub fn claim(&self, session: u64) {
        self.claimed.store(session, Ordering::Release);
    }

    /// Another process has this one's place, for good. Whether that is news.
    pub fn revoke(&self) -> bool {
        !self.revoked.swap(true, Ordering::AcqRel)
    }

    /// Whether another process has this one's place.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// A new session: what was claimed in the one before is held no more.
    pub fn begin(&self, session: u64) {
        self.session.store(session, Ordering::Release);
    }

    /// How long it is still held; `None` where it does not end.
    pub fn left(&self) -> Option<Duration> {
        let until = self.until_ms.load(Ordering::Acquire);
        let left_ms = || u64::try_from(until - self.clock.now_ms()).unwrap_or(0);
        (until != FOREVER).then(|| Duration::from_millis(left_ms()))
    }

    /// The store said that it keeps the session at least until then, ms on the lease's clock.
    pub fn extend_to(&self, until_ms: i64) {
        self.until_ms.fetch_max(until_ms, Ordering::AcqRel);
    }

    /// The session is gone.
    pub fn end(&self) {
        self.until_ms.store(0, Ordering::Release);
    }
}

/// Milliseconds since the machine started, those that it slept included.
pub(super) fn boot_ms() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_on_the_clock_that_it_is_given_and_only_when_it_is_claimed() {
        let now_ms = Arc::new(AtomicI64::new(1000));
        let clock = now_ms.clone();
        let lease = Lease::on_clock(move || clock.load(Ordering::Relaxed));
        lease.begin(2);
        lease.extend_to(1500);
        assert!(lease.is_held() && !lease.is_valid());
        lease.claim(2);
        assert!(lease.is_valid());
        assert_eq!(lease.left(), Some(Duration::from_millis(500)));
        now_ms.store(1500, Ordering::Relaxed);
        assert!(!lease.is_held() && !lease.is_valid());
        assert_eq!(lease.left(), Some(Duration::ZERO));
        lease.extend_to(1600);
        assert!(lease.is_valid());
        lease.end();
        assert!(!lease.is_valid());
    }
}
