//! Which led partitions have something to propose to the controller about who is in sync. Partitions say so when they find it out;
//! who sends proposals takes them from here.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

/// See the module's documentation.
pub struct IsrWatch {
    /// How long a replica may not have reached the leader's end and stay in sync (replica.lag.time.max.ms).
    pub lag_max: Duration,
    wanted: Mutex<BTreeSet<(Uuid, i32)>>,
    filled: Notify,
}

impl IsrWatch {
    /// With replica.lag.time.max.ms.
    pub fn new(lag_max: Duration) -> Self {
        Self {
            lag_max,
            wanted: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// A partition has something to propose.
    pub fn want(&self, topic_id: Uuid, index: i32) {
        if self.wanted.lock().insert((topic_id, index)) {
            self.filled.notify_one();
        }
    }

    /// Waits until there are some; takes them all.
    pub async fn wanted(&self) -> BTreeSet<(Uuid, i32)> {
        loop {
            let wanted = std::mem::take(&mut *self.wanted.lock());
            if !wanted.is_empty() {
                return wanted;
            }
            self.filled.notified().await;
        }
    }
}
