//! The topics that a member may know of: a regular expression matches no others (Kafka's TopicRegexResolver).

use std::fmt;
use std::sync::Arc;

type Ask = dyn Fn(&str) -> bool + Send + Sync;

/// See the module's documentation; all topics where nothing else is said.
#[derive(Clone, Default)]
pub struct VisibleTopics(Option<Arc<Ask>>);

impl VisibleTopics {
    /// Those of which it is true.
    pub fn of(ask: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(ask)))
    }

    pub(super) fn has(&self, topic: &str) -> bool {
        self.0.as_ref().is_none_or(|ask| ask(topic))
    }
}

impl fmt::Debug for VisibleTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Some(_) => "VisibleTopics(some)",
            None => "VisibleTopics(all)",
        })
    }
}
