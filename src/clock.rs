//! The wall clock: the machine's, or one that somebody else moves.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time of day; it may jump. Clones tell the same.
#[derive(Clone, Default)]
pub struct WallClock {
    other: Option<Arc<dyn Fn() -> i64 + Send + Sync>>,
}

impl WallClock {
    /// Tells what `now_ms` says.
    pub fn told_by(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self {
            other: Some(Arc::new(now_ms)),
        }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        match &self.other {
            None => machine_ms(),
            Some(now_ms) => now_ms(),
        }
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WallClock").finish_non_exhaustive()
    }
}

fn machine_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as i64)
}
