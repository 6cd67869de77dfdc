//! When what was refused, or had no answer, is asked again: sooner the first time, ever later after that. No clock.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The first pause (Kafka's DefaultAlterPartitionManager, after a request that failed), doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// What was not refused for so long begins with the first pause again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

struct Retry {
    at: Instant,
    pause: Duration,
}

/// See the module's documentation.
pub(super) struct Retries<K> {
    refused: BTreeMap<K, Retry>,
    /// When what is forgotten was looked for.
    tidied: Option<Instant>,
}

impl<K> Default for Retries<K> {
    fn default() -> Self {
        Self {
            refused: BTreeMap::new(),
            tidied: None,
        }
    }
}

impl<K: Ord> Retries<K> {
    /// It was refused, or had no answer.
    pub(super) fn refused(&mut self, key: K, now: Instant) {
        let is_remembered = |retry: &Retry| now < retry.at + FORGOTTEN_AFTER;
        // All of them but now and then: many are refused at once.
        if self
            .tidied
            .is_none_or(|tidied| now >= tidied + FORGOTTEN_AFTER)
        {
            self.refused.retain(|_, retry| is_remembered(retry));
            self.tidied = Some(now);
        }
        let before = self.refused.get(&key).filter(|retry| is_remembered(retry));
        let pause = before.map_or(PAUSE_MIN, |retry| (retry.pause * 2).min(PAUSE_MAX));
        let at = now + pause;
        self.refused.insert(key, Retry { at, pause });
    }

    /// It was taken.
    pub(super) fn taken(&mut self, key: &K) {
        self.refused.remove(key);
    }

    /// Everything may be asked at once: who refused is another one by now.
    pub(super) fn begin_anew(&mut self) {
        self.refused.clear();
    }

    /// From when on it may be asked; `None` where it may be at once.
    pub(super) fn rests_until(&self, key: &K, now: Instant) -> Option<Instant> {
        let retry = self.refused.get(key).filter(|retry| now < retry.at);
        retry.map(|retry| retry.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_again_and_again_is_asked_ever_later_and_no_later_than_that() {
        let mut retries = Retries::default();
        let (started, mut now) = (Instant::now(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert_eq!(retries.rests_until(&1, now), None);
            retries.refused(1, now);
            let at = retries.rests_until(&1, now).unwrap();
            pauses.push((at - now).as_millis());
            // Another one is not held back by it.
            assert_eq!(retries.rests_until(&2, now), None);
            now = at;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        assert!(now - started < Duration::from_secs(5));
        retries.refused(1, now);
        retries.taken(&1);
        assert_eq!(retries.rests_until(&1, now), None);
        retries.refused(1, now);
        let first = retries.rests_until(&1, now);
        assert_eq!(first, Some(now + PAUSE_MIN));
        retries.refused(1, now + PAUSE_MIN + FORGOTTEN_AFTER);
        let again = retries.rests_until(&1, now + PAUSE_MIN + FORGOTTEN_AFTER);
        assert_eq!(again, Some(now + PAUSE_MIN * 2 + FORGOTTEN_AFTER));
        retries.begin_anew();
        assert_eq!(retries.rests_until(&1, now), None);
    }
}
