//! Tokens that come at a rate and are taken by what is done (Kafka's TokenBucket, KIP-599): what is done while there is a token
//! may take more than there are, so that one large request is possible, and the next one waits until they are back.

use super::window::{Samples, THROTTLE_MS_MAX};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Bucket {
    tokens: f64,
    /// When that was; `None` where it never was used.
    at_ms: Option<u64>,
}

impl Bucket {
    /// So many tokens are there; less than none while more was taken.
    pub fn tokens(&mut self, limit: f64, now_ms: u64, samples: Samples) -> f64 {
        let most = samples.all_ms() as f64 / 1000.0 * limit;
        self.tokens = match self.at_ms {
            None => most,
            Some(at_ms) => {
                let came = now_ms.saturating_sub(at_ms) as f64 / 1000.0 * limit;
                (self.tokens + came).min(most)
            }
        };
        self.at_ms = Some(now_ms);
        self.tokens
    }

    /// Takes tokens, whether they are there or not.
    pub fn take(&mut self, count: f64, limit: f64, now_ms: u64, samples: Samples) {
        self.tokens(limit, now_ms, samples);
        self.tokens -= count;
    }

    /// How long until it has none less than none, ms.
    pub fn throttle_ms(&mut self, limit: f64, now_ms: u64, samples: Samples) -> u64 {
        let tokens = self.tokens(limit, now_ms, samples);
        if tokens >= 0.0 {
            return 0;
        }
        // As large as an answer can say.
        ((-tokens / limit * 1000.0).round() as u64).min(THROTTLE_MS_MAX)
    }

    /// Whether it is as a new one.
    pub fn is_forgotten(&mut self, limit: f64, now_ms: u64, samples: Samples) -> bool {
        let most = samples.all_ms() as f64 / 1000.0 * limit;
        self.tokens(limit, now_ms, samples) >= most
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLES: Samples = Samples {
        count: 11,
        ms: 1000,
    };

    #[test]
    fn a_limit_of_almost_nothing_throttles_for_as_long_as_can_be_said() {
        let mut bucket = Bucket::default();
        bucket.take(1.0, 1e-300, 0, SAMPLES);
        assert_eq!(bucket.throttle_ms(1e-300, 0, SAMPLES), THROTTLE_MS_MAX);
    }

    #[test]
    fn a_large_request_is_let_through_and_the_next_one_waits() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.tokens(2.0, 5, SAMPLES), 22.0);
        bucket.take(30.0, 2.0, 5, SAMPLES);
        assert_eq!(bucket.throttle_ms(2.0, 5, SAMPLES), 4000);
        assert_eq!(bucket.throttle_ms(2.0, 3005, SAMPLES), 1000);
        assert_eq!(bucket.throttle_ms(2.0, 4005, SAMPLES), 0);
        assert!(!bucket.is_forgotten(2.0, 15_004, SAMPLES));
        assert!(bucket.is_forgotten(2.0, 15_005, SAMPLES));
    }

    proptest! {
        #[test]
        fn what_is_taken_while_there_are_tokens_comes_to_the_rate(
            limit in 1u64..50,
            counts in prop::collection::vec(1u64..20, 1..30),
        ) {
            let mut bucket = Bucket::default();
            let (mut taken, limit) = (0.0, limit as f64);
            let seconds = 200;
            let mut counts = counts.iter().cycle();
            for now_ms in (0..seconds * 1000).step_by(10) {
                if bucket.throttle_ms(limit, now_ms, SAMPLES) == 0 {
                    let count = counts.next().copied().unwrap_or(1) as f64;
                    bucket.take(count, limit, now_ms, SAMPLES);
                    taken += count;
                }
            }
            // What was there at first, what came, and the last one.
            let most = limit * (seconds as f64 + 11.0) + 20.0;
            let least = limit * seconds as f64 * 0.95;
            prop_assert!((least..=most).contains(&taken), "{taken}, not {least} to {most}");
        }
    }
}
