//! What the configuration says of a streams group.

use std::collections::BTreeMap;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsSettings {
    /// `streams.session.timeout.ms`.
    pub session_timeout_ms: i32,
    /// `streams.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// `group.streams.unsettled.heartbeat.interval.ms`: the interval of members that are not where they are to be.
    pub unsettled_heartbeat_interval_ms: i32,
    /// `streams.assignment.interval.ms`: between two targets.
    pub assignment_interval_ms: i32,
    /// `streams.initial.rebalance.delay.ms`: from the first member to the first target.
    pub initial_rebalance_delay_ms: i32,
    /// `group.streams.max.size`.
    pub members_max: usize,
    /// `streams.num.standby.replicas`.
    pub standby_replicas: usize,
    /// `streams.rack.aware.assignment.tags`: what members are to say of where they are.
    pub rack_aware_tags: Vec<String>,
    /// `group.streams.task.offset.interval.ms`: how often members say how far their copies of state are.
    pub task_offset_interval_ms: i32,
    /// `group.streams.acceptable.recovery.lag`: records that a copy may be behind to count as up to date.
    pub acceptable_recovery_lag: i64,
}

impl StreamsSettings {
    /// What targets depend on, as Kafka keeps it.
    pub(super) fn of_assignment(&self) -> BTreeMap<String, String> {
        let standbys = self.standby_replicas.to_string();
        let mut configs = BTreeMap::from([("num.standby.replicas".to_owned(), standbys)]);
        if !self.rack_aware_tags.is_empty() {
            let tags = self.rack_aware_tags.join(",");
            configs.insert("rack.aware.assignment.tags".to_owned(), tags);
        }
        configs
    }
}
