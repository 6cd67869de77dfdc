//! Which partitions have something to propose to the controller about who is in sync: those that are led here, and those whose files
//! cannot be used. Partitions say so when they find it out;
//! who sends proposals takes them from here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

/// See the module's documentation.
pub struct IsrWatch {
    /// How long a replica may not have reached the leader's end and stay in sync (replica.lag.time.max.ms).
    pub lag_max: Duration,
    /// Brokers that may be in sync, each with its registration: those that are there and do not stop.
    eligible: ArcSwap<BTreeMap<i32, i64>>,
    wanted: Mutex<BTreeSet<(Uuid, i32)>>,
    filled: Notify,
}

impl IsrWatch {
    /// With replica.lag.time.max.ms.
    pub fn new(lag_max: Duration) -> Self {
        Self {
            lag_max,
            eligible: ArcSwap::default(),
            wanted: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Those brokers may be in sync from now on, in those registrations.
    pub fn eligible_are(&self, brokers: BTreeMap<i32, i64>) {
        if **self.eligible.load() != brokers {
            self.eligible.store(Arc::new(brokers));
        }
    }

    /// Whether a broker that fetched in a registration (-1 where it did not say) may be in sync (Kafka's
    /// Partition.isReplicaIsrEligible).
    pub fn is_eligible(&self, broker: i32, registration: i64) -> bool {
        let eligible = self.eligible.load();
        let known = eligible.get(&broker);
        known.is_some_and(|known| registration == -1 || *known == registration)
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
