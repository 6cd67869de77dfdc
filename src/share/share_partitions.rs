//! The share partitions that this broker serves: those of partitions that it leads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::error::ShareStateError;
use super::leading::{Leading, LogBounds, ShareStore};
use super::limits::ShareLimits;
use super::share_key::ShareKey;

/// Those that nobody asks for are forgotten after this; what is stored of them stays.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// See the module's documentation.
pub struct SharePartitions {
    known: Mutex<HashMap<ShareKey, Arc<Leading>>>,
    /// Between the beginnings of two writes of one share partition.
    write_pause: Duration,
}

impl SharePartitions {
    /// Serves none. The pause is the shortest between two writes of one share partition.
    pub fn new(write_pause: Duration) -> Self {
        Self {
            known: Mutex::default(),
            write_pause,
        }
    }

    /// A share partition that is served.
    pub fn get(&self, key: &ShareKey) -> Option<Arc<Leading>> {
        let known = self.known.lock().get(key).cloned();
        known.filter(|leading| leading.ended().is_none())
    }

    /// A share partition of a partition that this broker leads in an epoch; what is stored of it is read first, where it was
    /// not. `begin` looks at the log.
    pub async fn open<E: From<ShareStateError>, F>(
        &self,
        (key, leader_epoch): (&ShareKey, i32),
        store: &Arc<dyn ShareStore>,
        limits: ShareLimits,
        begin: impl FnOnce() -> F,
    ) -> Result<Arc<Leading>, E>
    where
        F: Future<Output = Result<LogBounds, E>>,
    {
        let leading = self.find(key, leader_epoch);
        let loaded = leading.load(store, limits, self.write_pause, begin).await;
        match loaded {
            Ok(()) => Ok(leading),
            Err(error) => {
                self.forget(&leading);
                Err(error)
            }
        }
    }

    fn find(&self, key: &ShareKey, leader_epoch: i32) -> Arc<Leading> {
        let mut known = self.known.lock();
        if let Some(leading) = known.get(key) {
            if leading.leader_epoch() == leader_epoch && leading.ended().is_none() {
                return leading.clone();
            }
            leading.end(ShareStateError::NotLeaderOrFollower);
        }
        let leading = Arc::new(Leading::new(key.clone(), leader_epoch));
        known.insert(key.clone(), leading.clone());
        leading
    }

    fn forget(&self, leading: &Arc<Leading>) {
        let mut known = self.known.lock();
        let there = known.get(leading.key());
        if there.is_some_and(|there| Arc::ptr_eq(there, leading)) {
            known.remove(leading.key());
        }
    }

    /// All that are served.
    pub fn all(&self) -> Vec<(ShareKey, Arc<Leading>)> {
        let known = self.known.lock();
        let all = known.iter();
        all.map(|(key, leading)| (key.clone(), leading.clone()))
            .collect()
    }

    /// Forgets those of a group of which no member has anything: what is stored is read again.
    pub fn forget_group(&self, group_id: &str) {
        for (key, leading) in self.all() {
            if &*key.group_id == group_id && leading.is_idle(Duration::ZERO) {
                leading.end(ShareStateError::NotLeaderOrFollower);
                self.forget(&leading);
            }
        }
    }

    /// Ends those that this broker leads no more, and forgets those that nobody asks for.
    pub fn sweep(&self, leads: impl Fn(Uuid, i32) -> Option<i32>) {
        for (key, leading) in self.all() {
            let is_led = leads(key.topic_id, key.partition) == Some(leading.leader_epoch());
            if is_led && leading.ended().is_none() && !leading.is_idle(IDLE_MAX) {
                continue;
            }
            leading.end(ShareStateError::NotLeaderOrFollower);
            self.forget(&leading);
        }
    }

    /// Ends all: the broker shuts down.
    pub fn stop(&self) {
        for (_, leading) in self.known.lock().drain() {
            leading.end(ShareStateError::NotLeaderOrFollower);
        }
    }
}
