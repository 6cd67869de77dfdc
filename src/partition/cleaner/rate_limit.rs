//! What all cleaners together may read and write (Kafka's Throttler): whoever moved more than is due by now waits until it is.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Shorter pauses are not worth a sleep: they add up to one.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// A pause is computed for at most so long; it is asked for again then.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// See the module's documentation.
pub(super) struct RateLimit {
    /// When all that was moved so far is due. What was not used before counts for nothing.
    due: Mutex<Instant>,
}

impl RateLimit {
    pub(super) fn new() -> Self {
        Self {
            due: Mutex::new(Instant::now()),
        }
    }

    /// Counts bytes that were moved; how long whoever moved them pauses.
    pub(super) fn moved(&self, bytes: u64, bytes_per_second: f64) -> Duration {
        let now = Instant::now();
        let mut due = self.due.lock();
        let takes = Duration::try_from_secs_f64(bytes as f64 / bytes_per_second);
        *due = now.max(*due) + takes.unwrap_or(PAUSE_MAX).min(PAUSE_MAX);
        let pause = due.duration_since(now);
        match pause < PAUSE_MIN {
            true => Duration::ZERO,
            false => pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_all_move_together_stays_within_the_rate() {
        let limit = RateLimit::new();
        let began = Instant::now();
        // Two that take turns, each pausing for what it is told.
        for _ in 0..50 {
            let (one, other) = (limit.moved(10_000, 1e6), limit.moved(10_000, 1e6));
            tokio::time::sleep(one.max(other)).await;
        }
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(960) && took <= Duration::from_millis(1040),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_pauses_and_no_rate_overflows() {
        let limit = RateLimit::new();
        assert_eq!(limit.moved(u64::MAX, f64::MAX), Duration::ZERO);
        assert_eq!(limit.moved(u64::MAX, 1.0), PAUSE_MAX);
        let idle = RateLimit::new();
        tokio::time::sleep(Duration::from_secs(60)).await;
        // What was not used is not saved up.
        assert_eq!(idle.moved(1000, 1000.0), Duration::from_secs(1));
    }
}
