//! How long a request kept a thread of the runtime (Kafka's request handler and network threads, KIP-124): the processor's time
//! in its polls, not that of its waiting, nor that in which the system let others go first.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// No poll is under way.
const NOT_POLLED: u64 = u64::MAX;

/// See the module's documentation.
#[derive(Debug)]
pub struct ThreadTime {
    /// Of the polls that are over, ns.
    spent: AtomicU64,
    /// What its thread had done when the poll that is under way began, ns.
    polled_at: AtomicU64,
}

impl Default for ThreadTime {
    fn default() -> Self {
        Self {
            spent: AtomicU64::new(0),
            polled_at: AtomicU64::new(NOT_POLLED),
        }
    }
}

/// What this thread has done, ns.
fn done() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + nanos
}

impl ThreadTime {
    /// So far, with the poll that is under way.
    pub fn spent(&self) -> Duration {
        let polled_at = self.polled_at.load(Ordering::Relaxed);
        let now = match polled_at {
            NOT_POLLED => 0,
            polled_at => done().saturating_sub(polled_at),
        };
        Duration::from_nanos(self.spent.load(Ordering::Relaxed) + now)
    }

    /// Does something whose polls count.
    pub async fn of<F: Future>(self: Arc<Self>, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|context| {
            let began = done();
            self.polled_at.store(began, Ordering::Relaxed);
            let polled = work.as_mut().poll(context);
            let took = done().saturating_sub(began);
            self.spent.fetch_add(took, Ordering::Relaxed);
            self.polled_at.store(NOT_POLLED, Ordering::Relaxed);
            polled
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works for so long.
    fn work(ms: u64) {
        let began = done();
        while done() - began < ms * 1_000_000 {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn what_a_request_does_counts_and_what_it_waits_does_not() {
        let time = Arc::new(ThreadTime::default());
        let seen = time.clone();
        let request = async move {
            work(20);
            tokio::time::sleep(Duration::from_millis(200)).await;
            std::thread::sleep(Duration::from_millis(100));
            let before = seen.spent();
            work(20);
            (before, seen.spent())
        };
        let (before, after) = time.clone().of(request).await;
        let ms = Duration::from_millis;
        assert!((ms(20)..ms(90)).contains(&before), "{before:?}");
        assert!(after >= before + ms(20) && time.spent() >= after);
    }
}
