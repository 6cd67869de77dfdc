//! Keys that tokens name and the provider was not known to have: its keys are asked for again, once a minute for each (Kafka's
//! RefreshingHttpsJwks).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A longer name is no reason to ask.
pub(super) const KEY_ID_BYTES_MAX: usize = 1000;
/// So many names are remembered.
pub(super) const KEY_IDS_MAX: usize = 16;
/// The provider is not asked for the same key again before.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct WantedKeys {
    /// The latest last.
    asked: Mutex<VecDeque<(String, Instant)>>,
    wanted: Notify,
}

impl WantedKeys {
    /// A token named a key that is not there.
    pub(super) fn note(&self, id: &str) {
        if self.is_news(id, Instant::now()) {
            self.wanted.notify_one();
        }
    }

    fn is_news(&self, id: &str, now: Instant) -> bool {
        if id.len() > KEY_ID_BYTES_MAX {
            return false;
        }
        let mut asked = self.asked.lock();
        let known = asked.iter().position(|(known, _)| known == id);
        if let Some(at) = known {
            if now.duration_since(asked[at].1) < AGAIN_AFTER {
                return false;
            }
            asked.remove(at);
        }
        if asked.len() >= KEY_IDS_MAX {
            asked.pop_front();
        }
        asked.push_back((id.to_owned(), now));
        true
    }

    /// These are there now.
    pub(super) fn found<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        let mut asked = self.asked.lock();
        for id in ids {
            asked.retain(|(known, _)| known != id);
        }
    }

    /// Comes when a key is wanted.
    pub(super) async fn wait(&self) {
        self.wanted.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_asked_for_once_a_minute_and_few_are_remembered() {
        let keys = WantedKeys::default();
        let begun = Instant::now();
        assert!(keys.is_news("a", begun));
        assert!(!keys.is_news("a", begun + AGAIN_AFTER / 2));
        assert!(keys.is_news("a", begun + AGAIN_AFTER));
        assert!(!keys.is_news(&"x".repeat(KEY_ID_BYTES_MAX + 1), begun));
        for id in 0..KEY_IDS_MAX {
            assert!(keys.is_news(&id.to_string(), begun + AGAIN_AFTER));
        }
        assert_eq!(keys.asked.lock().len(), KEY_IDS_MAX);
        keys.found(["3"].into_iter());
        assert!(keys.is_news("3", begun + AGAIN_AFTER));
    }
}
