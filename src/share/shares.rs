//! All that a broker has of share groups beside the groups themselves.

use std::sync::Arc;
use std::time::Duration;

use super::sessions::ShareSessions;
use super::share_coordinator::ShareCoordinator;
use super::share_partitions::SharePartitions;
use crate::clock::WallClock;
use crate::coordinator::Topics;
use crate::meta::MetaStore;

/// Shortest time between two writes of one share partition, where the store is ZooKeeper: what many members acknowledge goes
/// in a few writes a second. The embedded store is written as fast as it can be.
const ZOOKEEPER_WRITE_PAUSE: Duration = Duration::from_millis(200);

/// See the module's documentation.
pub struct Shares {
    /// What is stored of the share partitions that this broker coordinates.
    pub states: ShareCoordinator,
    /// Those of partitions that it leads.
    pub partitions: SharePartitions,
    /// Sessions of members.
    pub sessions: ShareSessions,
}

impl Shares {
    /// Coordinates and serves nothing yet.
    pub fn new(meta: &MetaStore, topics: Arc<dyn Topics>, wall: &WallClock) -> Self {
        let pause = match meta.kind() {
            "embedded" => Duration::ZERO,
            _ => ZOOKEEPER_WRITE_PAUSE,
        };
        Self {
            states: ShareCoordinator::new(meta.clone(), topics, wall),
            partitions: SharePartitions::new(pause),
            sessions: ShareSessions::default(),
        }
    }

    /// Ends all of it; members that wait learn that this broker is not the one to ask.
    pub fn stop(&self) {
        self.partitions.stop();
        self.states.stop();
    }
}
