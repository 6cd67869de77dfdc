//! What is in force for each group: set at run time, else by the file's sections, else by the broker's keys, and within the
//! broker's limits (Kafka's GroupConfig and GroupCoordinatorConfig).

use std::sync::Arc;

use crate::cluster::{Cluster, Configured};
use crate::config::{Config, LiveConfig, Value};
use crate::group::{Assignor, ConsumerSettings, GroupSettings, MigrationPolicy};

/// The settings of groups, as they are now.
pub struct LiveGroupSettings {
    /// What is set at run time.
    pub cluster: Arc<Cluster>,
    /// The broker's own.
    pub config: Arc<LiveConfig>,
}

impl GroupSettings for LiveGroupSettings {
    fn consumer(&self, group_id: &str) -> ConsumerSettings {
        let image = self.cluster.image();
        let config = self.config.load();
        let set = image.configs.get(Configured::Group, group_id);
        let from_file = match config.has_group_sections() {
            true => config.defaults_for_group(group_id),
            false => Default::default(),
        };
        // A key of groups, such as `session.timeout.ms`, which brokers have with a default and limits.
        let number = |key: &str| {
            let own = format!("consumer.{key}");
            let own = set
                .and_then(|set| set.get(&own))
                .or_else(|| from_file.get(&own));
            let own = own.and_then(|value| Value::integer(value).ok());
            let value = own.unwrap_or_else(|| config.number(&format!("group.consumer.{key}")));
            let least = config.number(&format!("group.consumer.min.{key}"));
            let most = config.number(&format!("group.consumer.max.{key}"));
            value.min(most).max(least) as i32
        };
        ConsumerSettings {
            session_timeout_ms: number("session.timeout.ms"),
            heartbeat_interval_ms: number("heartbeat.interval.ms"),
            assignment_interval_ms: number("assignment.interval.ms"),
            unsettled_heartbeat_interval_ms: config
                .number("group.consumer.unsettled.heartbeat.interval.ms")
                as i32,
            members_max: config.number("group.consumer.max.size") as usize,
            classic_members_max: config.number("group.max.size") as usize,
            assignors: assignors(&config),
            migration: MigrationPolicy::named(config.text("group.consumer.migration.policy"))
                .unwrap_or(MigrationPolicy::Bidirectional),
        }
    }
}

fn assignors(config: &Config) -> Vec<Assignor> {
    let names = config.text("group.consumer.assignors").split(',');
    names
        .filter_map(|name| Assignor::named(name.trim()))
        .collect()
}
