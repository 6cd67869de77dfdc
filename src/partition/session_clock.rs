//! When a follower fetched last in its session: one for all partitions of the session, so that a fetch need not touch those that
//! did not move.

use parking_lot::Mutex;
use tokio::time::Instant;

/// See the module's documentation.
#[derive(Debug)]
pub struct SessionClock(Mutex<Instant>);

impl SessionClock {
    /// Of a session that begins.
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(now))
    }

    /// The follower fetches.
    pub fn fetched(&self, now: Instant) {
        *self.0.lock() = now;
    }

    /// When it fetched last.
    pub(super) fn latest(&self) -> Instant {
        *self.0.lock()
    }
}
