//! How fast replicas that an operator throttles are copied (Kafka's ReplicationQuotaManager): what is sent, or taken, of them is
//! counted, and those that are not in sync wait while it is more than allowed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Samples that are remembered (Kafka's default of replication.quota.window.num).
const SAMPLES: u32 = 11;
/// Of how long one is (Kafka's default of replication.quota.window.size.seconds).
const SAMPLE: Duration = Duration::from_secs(1);

/// Both sides of a broker.
#[derive(Debug, Default)]
pub struct Throttles {
    /// Of what it sends as a leader.
    pub leader: Throttle,
    /// Of what it takes as a follower.
    pub follower: Throttle,
}

/// Bytes of throttled replicas in the last seconds.
#[derive(Debug, Default)]
pub struct Throttle {
    /// When each sample began, and its bytes; the oldest first.
    samples: Mutex<VecDeque<(Instant, u64)>>,
}

impl Throttle {
    /// So many bytes went; they count whether or not that is more than allowed.
    pub fn record(&self, bytes: usize, now: Instant) {
        let mut samples = self.samples.lock();
        forget_old(&mut samples, now);
        match samples.back_mut() {
            Some((began, sum)) if now.saturating_duration_since(*began) < SAMPLE => {
                *sum += bytes as u64;
            }
            _ => samples.push_back((now, bytes as u64)),
        }
    }

    /// Bytes a second (Kafka's SimpleRate).
    pub fn rate(&self, now: Instant) -> f64 {
        let mut samples = self.samples.lock();
        forget_old(&mut samples, now);
        let Some((began, _)) = samples.front() else {
            return 0.0;
        };
        let elapsed = now.saturating_duration_since(*began).max(SAMPLE);
        let bytes: u64 = samples.iter().map(|(_, bytes)| bytes).sum();
        bytes as f64 / elapsed.as_secs_f64()
    }

    /// Whether more goes than so many bytes a second.
    pub fn is_exceeded(&self, rate_max: i64, now: Instant) -> bool {
        self.rate(now) > rate_max as f64
    }
}

fn forget_old(samples: &mut VecDeque<(Instant, u64)>, now: Instant) {
    let is_old = |began: &Instant| now.saturating_duration_since(*began) >= SAMPLE * SAMPLES;
    while samples.front().is_some_and(|(began, _)| is_old(began)) {
        samples.pop_front();
    }
}

/// Which replicas of a topic are throttled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// These, by partition and broker, in order.
    These(Arc<[(i32, i32)]>),
}

impl ThrottledReplicas {
    /// As a topic's setting says it: `*`, or `partition:broker` with commas between.
    pub fn parse(text: &str) -> Self {
        let replica = |word: &str| {
            let (partition, broker) = word.split_once(':')?;
            Some((partition.trim().parse().ok()?, broker.trim().parse().ok()?))
        };
        match text.trim() {
            "" => Self::None,
            "*" => Self::All,
            list => {
                let mut these: Vec<(i32, i32)> = list.split(',').filter_map(replica).collect();
                these.sort_unstable();
                Self::These(these.into())
            }
        }
    }

    /// Whether a broker's replica is one of them.
    pub fn has(&self, partition: i32, broker: i32) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::These(these) => these.binary_search(&(partition, broker)).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_what_went_in_the_last_seconds_and_at_least_over_one() {
        let throttle = Throttle::default();
        let began = Instant::now();
        let after = |ms| began + Duration::from_millis(ms);
        assert!(!throttle.is_exceeded(0, began));
        throttle.record(1000, began);
        throttle.record(1000, after(999));
        assert_eq!(throttle.rate(after(999)), 2000.0);
        assert_eq!(throttle.rate(after(4000)), 500.0);
        assert!(throttle.is_exceeded(499, after(4000)) && !throttle.is_exceeded(500, after(4000)));
        throttle.record(3000, after(4000));
        assert_eq!(throttle.rate(after(5000)), 1000.0);
        // The first is forgotten.
        assert_eq!(throttle.rate(after(11_000)), 3000.0 / 7.0);
        assert_eq!(throttle.rate(after(15_000)), 0.0);
    }

    #[test]
    fn replicas_are_named_by_partition_and_broker() {
        let these = ThrottledReplicas::parse(" 1:101, 0:102 ,0:7");
        assert!(these.has(0, 7) && these.has(0, 102) && these.has(1, 101));
        assert!(!these.has(1, 7) && !these.has(7, 0));
        let none = ThrottledReplicas::parse("");
        assert!(!none.has(0, 0) && ThrottledReplicas::parse("*").has(3, 9));
    }
}
