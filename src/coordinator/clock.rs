//! The time of a coordinator.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::WallClock;

/// Wall-clock milliseconds that never jump: the time at start plus what a monotonic clock adds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    base_ms: i64,
    start: Instant,
}

impl Clock {
    pub(super) fn new(wall: &WallClock) -> Self {
        Self {
            base_ms: wall.now_ms(),
            start: Instant::now(),
        }
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.base_ms + self.start.elapsed().as_millis() as i64
    }

    pub(super) fn until(&self, at_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(at_ms - self.now_ms()).unwrap_or(0))
    }
}
