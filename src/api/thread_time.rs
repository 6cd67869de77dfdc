//! How long a request kept a thread of the runtime (Kafka's request handler and network threads, KIP-124): the time of its polls,
//! not that of its waiting.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No poll is under way.
const NOT_POLLED: u64 = u64::MAX;

/// See the module's documentation.
#[derive(Debug)]
pub struct ThreadTime {
    began: Instant,
    /// Of the polls that are over, ns.
    spent: AtomicU64,
    /// When the poll that is under way began, ns.
    polled_at: AtomicU64,
}

impl Default for ThreadTime {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            spent: AtomicU64::new(0),
            polled_at: AtomicU64::new(NOT_POLLED),
        }
    }
}

impl ThreadTime {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// So far, with the poll that is under way.
    pub fn spent(&self) -> Duration {
        let polled_at = self.polled_at.load(Ordering::Relaxed);
        let now = match polled_at {
            NOT_POLLED => 0,
            polled_at => self.now().saturating_sub(polled_at),
        };
        Duration::from_nanos(self.spent.load(Ordering::Relaxed) + now)
    }

    /// Does something whose polls count.
    pub async fn of<F: Future>(self: Arc<Self>, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|context| {
            let began = self.now();
            self.polled_at.store(began, Ordering::Relaxed);
            let polled = work.as_mut().poll(context);
            let took = self.now().saturating_sub(began);
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

    #[tokio::test]
    async fn what_a_request_does_counts_and_what_it_waits_does_not() {
        let time = Arc::new(ThreadTime::default());
        let seen = time.clone();
        let work = async move {
            let busy = Duration::from_millis(20);
            std::thread::sleep(busy);
            tokio::time::sleep(Duration::from_millis(200)).await;
            let before = seen.spent();
            std::thread::sleep(busy);
            (before, seen.spent())
        };
        let (before, after) = time.clone().of(work).await;
        let ms = Duration::from_millis;
        assert!((ms(20)..ms(150)).contains(&before), "{before:?}");
        assert!(after >= before + ms(20) && time.spent() >= after);
    }
}
