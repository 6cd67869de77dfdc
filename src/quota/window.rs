//! How much went in the last seconds, which is what quotas are held against (Kafka's Rate of a WindowedSum): whoever begins, or
//! was silent, may at once have what is allowed in that time.
//!
//! Kafka averages over ten to twelve seconds, as its samples fall, and one who does a little too much again and again does too
//! much altogether. Here it is always the same time, all whole samples, in parts of a tenth of a sample; and what is more than a
//! [`tolerated`](TOLERATED) part beyond what is allowed in it waits until enough of it is over.

use std::collections::VecDeque;

/// How many samples there are, and how long one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Samples {
    /// `quota.window.num`.
    pub count: u64,
    /// `quota.window.size.seconds`, in ms.
    pub ms: u64,
}

impl Samples {
    /// The whole samples, beside the one that is under way, ms.
    pub fn whole_ms(self) -> u64 {
        let whole = self.count.saturating_sub(1).max(1);
        whole.saturating_mul(self.ms).max(1)
    }

    /// All of them, ms.
    pub fn all_ms(self) -> u64 {
        self.count.saturating_mul(self.ms)
    }

    /// What is allowed in the whole ones.
    fn allowed(self, limit: f64) -> f64 {
        limit * self.whole_ms() as f64 / 1000.0
    }
}

/// The part of what is allowed by which it may be exceeded before who exceeds it waits until it is over.
pub const TOLERATED: f64 = 0.025;
/// As long as an answer can say, ms: about 25 days.
pub(super) const THROTTLE_MS_MAX: u64 = i32::MAX as u64;
/// Parts of a sample that are told apart.
const PARTS: u64 = 10;

#[derive(Debug, Clone, Copy)]
struct Part {
    began_ms: u64,
    sum: f64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Window {
    /// The oldest first.
    parts: VecDeque<Part>,
}

impl Window {
    /// So much went.
    pub fn record(&mut self, amount: f64, now_ms: u64, samples: Samples) {
        self.forget(now_ms, samples);
        let current = self.parts.back_mut();
        let is_current =
            |part: &&mut Part| now_ms.saturating_sub(part.began_ms) < samples.ms / PARTS;
        match current.filter(is_current) {
            Some(part) => part.sum += amount,
            None => self.parts.push_back(Part {
                began_ms: now_ms,
                sum: amount,
            }),
        }
    }

    /// What went, a second.
    pub fn rate(&mut self, now_ms: u64, samples: Samples) -> f64 {
        self.sum(now_ms, samples) * 1000.0 / samples.whole_ms() as f64
    }

    /// What may still go.
    pub fn left(&mut self, limit: f64, now_ms: u64, samples: Samples) -> f64 {
        samples.allowed(limit) - self.sum(now_ms, samples)
    }

    /// How long it takes at the limit to do what was too much, ms (Kafka's QuotaUtils.throttleTime); 0 where it was not.
    pub fn excess_ms(&mut self, limit: f64, now_ms: u64, samples: Samples) -> u64 {
        let excess = -self.left(limit, now_ms, samples);
        // As large as an answer can say.
        ((excess.max(0.0) / limit * 1000.0).round() as u64).min(THROTTLE_MS_MAX)
    }

    /// How long nothing may go, ms: as long as that, and where it was much too much until it is over.
    pub fn throttle_ms(&mut self, limit: f64, now_ms: u64, samples: Samples) -> u64 {
        let excess_ms = self.excess_ms(limit, now_ms, samples);
        let tolerated_ms = TOLERATED * samples.whole_ms() as f64;
        match excess_ms as f64 > tolerated_ms {
            true => excess_ms.max(self.over_ms(limit, now_ms, samples)),
            false => excess_ms,
        }
    }

    /// Whether it is as a new one.
    pub fn is_forgotten(&mut self, now_ms: u64, samples: Samples) -> bool {
        self.forget(now_ms, samples);
        self.parts.is_empty()
    }

    /// When enough is forgotten, ms from now.
    fn over_ms(&self, limit: f64, now_ms: u64, samples: Samples) -> u64 {
        let mut sum: f64 = self.parts.iter().map(|part| part.sum).sum();
        let mut over_ms = now_ms;
        for part in &self.parts {
            if sum <= samples.allowed(limit) {
                break;
            }
            sum -= part.sum;
            over_ms = forgotten_ms(part, samples);
        }
        over_ms.saturating_sub(now_ms)
    }

    fn sum(&mut self, now_ms: u64, samples: Samples) -> f64 {
        self.forget(now_ms, samples);
        self.parts.iter().map(|part| part.sum).sum()
    }

    fn forget(&mut self, now_ms: u64, samples: Samples) {
        let is_old = |part: &Part| forgotten_ms(part, samples) <= now_ms;
        while self.parts.front().is_some_and(is_old) {
            self.parts.pop_front();
        }
    }
}

/// When all of a part is longer ago than the window.
fn forgotten_ms(part: &Part, samples: Samples) -> u64 {
    let part_ms = samples.ms / PARTS;
    part.began_ms
        .saturating_add(part_ms)
        .saturating_add(samples.whole_ms())
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
    fn a_client_that_begins_has_ten_seconds_at_once_and_waits_for_what_is_more() {
        let mut window = Window::default();
        window.record(1000.0, 0, SAMPLES);
        assert_eq!(window.rate(0, SAMPLES), 100.0);
        assert_eq!(window.throttle_ms(100.0, 0, SAMPLES), 0);
        window.record(20.0, 0, SAMPLES);
        // A little too much, as Kafka.
        assert_eq!(window.throttle_ms(100.0, 0, SAMPLES), 200);
        window.record(30.0, 0, SAMPLES);
        assert_eq!(window.excess_ms(100.0, 0, SAMPLES), 500);
        // More than a little: until it is over.
        assert_eq!(window.throttle_ms(100.0, 0, SAMPLES), 10_100);
        assert_eq!(window.rate(10_099, SAMPLES), 105.0);
        assert_eq!(window.throttle_ms(100.0, 10_100, SAMPLES), 0);
        assert!(window.is_forgotten(10_100, SAMPLES));
        window.record(10_000.0, 20_000, SAMPLES);
        assert_eq!(window.throttle_ms(100.0, 20_000, SAMPLES), 90_000);
    }

    #[test]
    fn who_did_too_much_waits_until_enough_of_it_is_over_and_not_longer() {
        let mut window = Window::default();
        for at_ms in [0, 1000, 2000, 3000] {
            window.record(400.0, at_ms, SAMPLES);
        }
        // Without the first two it is no more than is allowed.
        assert_eq!(window.throttle_ms(100.0, 3000, SAMPLES), 8100);
        assert_eq!(window.throttle_ms(100.0, 11_100, SAMPLES), 0);
    }

    #[test]
    fn what_is_left_is_what_may_go_without_a_wait() {
        let mut window = Window::default();
        assert_eq!(window.left(100.0, 0, SAMPLES), 1000.0);
        window.record(400.0, 0, SAMPLES);
        assert_eq!(window.left(100.0, 500, SAMPLES), 600.0);
        window.record(600.0, 500, SAMPLES);
        assert_eq!(window.throttle_ms(100.0, 500, SAMPLES), 0);
        window.record(1.0, 500, SAMPLES);
        assert_eq!(window.throttle_ms(100.0, 500, SAMPLES), 10);
    }

    #[test]
    fn what_is_taken_back_did_not_go() {
        let mut window = Window::default();
        window.record(70.0, 0, SAMPLES);
        window.record(900.0, 1500, SAMPLES);
        window.record(-900.0, 1500, SAMPLES);
        assert_eq!(window.rate(1500, SAMPLES), 7.0);
    }

    #[test]
    fn one_sample_is_a_window_of_its_own() {
        let one = Samples { count: 1, ms: 1000 };
        let mut window = Window::default();
        window.record(10.0, 0, one);
        assert_eq!(window.rate(500, one), 10.0);
        assert_eq!(window.rate(1100, one), 0.0);
    }

    proptest! {
        /// A client that keeps to its throttle times gets its limit, and in no ten seconds more than that, but for what is
        /// tolerated and one request.
        #[test]
        fn who_waits_as_told_gets_the_limit_and_never_more(
            limit in 50u64..100_000,
            parts in prop::collection::vec(1u64..40, 1..20),
            pauses in prop::collection::vec(0u64..30, 1..10),
        ) {
            let limit = limit as f64;
            let mut window = Window::default();
            let (mut now_ms, mut sent) = (0u64, Vec::new());
            let mut pauses = pauses.iter().cycle();
            for part in parts.iter().cycle() {
                let amount = limit * *part as f64 / 100.0;
                window.record(amount, now_ms, SAMPLES);
                sent.push((now_ms, amount));
                let pause = pauses.next().copied().unwrap_or(0).max(1);
                now_ms += window.throttle_ms(limit, now_ms, SAMPLES).max(pause);
                if now_ms > 70_000 {
                    break;
                }
            }
            let within = |from: u64, to: u64| -> f64 {
                let of = sent.iter().filter(|(at, _)| (from..to).contains(at));
                of.map(|(_, amount)| amount).sum()
            };
            let request = limit * 0.4;
            let most = limit * 10.0 * (1.0 + TOLERATED) + request;
            for from in (0..60_000).step_by(250) {
                prop_assert!(within(from, from + 10_000) <= most, "from {from}");
            }
            // As fast as it may, where it is as fast as that.
            let first = within(0, 10_000);
            let is_fast = first >= limit * 10.0;
            let all = within(0, 60_000);
            prop_assert!(!is_fast || all >= limit * 60.0 * 0.95, "{all} of {}", limit * 60.0);
        }
    }
}
