//! What is in force for each group: set at run time, else by the file's sections, else by the broker's keys, and within the
//! broker's limits (Kafka's GroupConfig and GroupCoordinatorConfig).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::cluster::{Cluster, Configs, Configured};
use crate::config::{CONSUME_MODE, Config, GroupOverrides, LiveConfig};
use crate::group::{
    Assignor, ConsumerSettings, GroupLimits, GroupSettings, MigrationPolicy, ShareGroupSettings,
    StreamsSettings,
};

/// So many groups' settings are kept.
const KEPT_MAX: usize = 10_000;
/// So many of them make room where there are more, whichever they are.
const FORGOTTEN: usize = KEPT_MAX / 10;
/// Settings of groups with longer ids are not kept, bytes: clients choose the ids, and nobody needs such.
const KEPT_ID_BYTES_MAX: usize = 255;

/// The settings of groups, as they are now.
pub struct LiveGroupSettings {
    /// What is set at run time.
    cluster: Arc<Cluster>,
    /// The broker's own.
    config: Arc<LiveConfig>,
    /// Each heartbeat asks, and each commit of a group without members.
    kept: Mutex<Kept>,
}

/// What follows for groups from what is set.
struct Kept {
    at_run_time: Arc<Configs>,
    config: Arc<Config>,
    groups: KeptGroups,
}

/// By group id.
#[derive(Default)]
struct KeptGroups(HashMap<String, Arc<OfGroup>>);

impl KeptGroups {
    fn keep(&mut self, group_id: &str, made: Arc<OfGroup>) {
        if group_id.len() > KEPT_ID_BYTES_MAX {
            return;
        }
        if self.0.len() >= KEPT_MAX {
            let mut left = FORGOTTEN;
            self.0.retain(|_, _| {
                let is_forgotten = left > 0;
                left = left.saturating_sub(1);
                !is_forgotten
            });
        }
        self.0.insert(group_id.to_owned(), made);
    }
}

/// What is in force for one group, of whatever kind it is.
struct OfGroup {
    is_broadcast: bool,
    share: ShareGroupSettings,
    streams: StreamsSettings,
    consumer: Arc<ConsumerSettings>,
}

impl OfGroup {
    fn new(config: &Config, own: &GroupOverrides<'_>) -> Self {
        Self {
            is_broadcast: own.own(CONSUME_MODE) == Some("broadcast"),
            share: share_settings(config, own),
            streams: streams_settings(config, own),
            consumer: Arc::new(consumer_settings(config, own)),
        }
    }
}

impl LiveGroupSettings {
    /// Of a broker.
    pub fn new(cluster: Arc<Cluster>, config: Arc<LiveConfig>) -> Self {
        let kept = Kept {
            at_run_time: cluster.image().configs.clone(),
            config: config.load_full(),
            groups: KeptGroups::default(),
        };
        Self {
            cluster,
            config,
            kept: Mutex::new(kept),
        }
    }

    fn of(&self, group_id: &str) -> Arc<OfGroup> {
        let (image, config) = (self.cluster.image(), self.config.load_full());
        let mut kept = self.kept.lock();
        let is_same =
            Arc::ptr_eq(&kept.at_run_time, &image.configs) && Arc::ptr_eq(&kept.config, &config);
        if !is_same {
            *kept = Kept {
                at_run_time: image.configs.clone(),
                config: config.clone(),
                groups: KeptGroups::default(),
            };
        }
        if let Some(known) = kept.groups.0.get(group_id) {
            return known.clone();
        }
        let at_run_time = image.configs.get(Configured::Group, group_id);
        let own = GroupOverrides::of(&config, group_id, at_run_time);
        let made = Arc::new(OfGroup::new(&config, &own));
        kept.groups.keep(group_id, made.clone());
        made
    }
}

impl GroupSettings for LiveGroupSettings {
    fn is_broadcast(&self, group_id: &str) -> bool {
        self.of(group_id).is_broadcast
    }

    fn share(&self, group_id: &str) -> ShareGroupSettings {
        self.of(group_id).share
    }

    fn streams(&self, group_id: &str) -> StreamsSettings {
        self.of(group_id).streams.clone()
    }

    fn consumer(&self, group_id: &str) -> Arc<ConsumerSettings> {
        self.of(group_id).consumer.clone()
    }
}

fn share_settings(config: &Config, own: &GroupOverrides<'_>) -> ShareGroupSettings {
    let number = |key| own.limited("share", key) as i32;
    ShareGroupSettings {
        session_timeout_ms: number("session.timeout.ms"),
        heartbeat_interval_ms: number("heartbeat.interval.ms"),
        assignment_interval_ms: number("assignment.interval.ms"),
        members_max: config.number("group.share.max.size") as usize,
    }
}

fn streams_settings(config: &Config, own: &GroupOverrides<'_>) -> StreamsSettings {
    let number = |key| own.limited("streams", key) as i32;
    let standbys = own.number("streams.num.standby.replicas");
    let tags = own.own("streams.rack.aware.assignment.tags");
    let tags = tags.unwrap_or_else(|| config.text("group.streams.rack.aware.assignment.tags"));
    let tags = tags.split(',').map(str::trim);
    StreamsSettings {
        session_timeout_ms: number("session.timeout.ms"),
        heartbeat_interval_ms: number("heartbeat.interval.ms"),
        unsettled_heartbeat_interval_ms: config
            .number("group.streams.unsettled.heartbeat.interval.ms")
            as i32,
        assignment_interval_ms: number("assignment.interval.ms"),
        initial_rebalance_delay_ms: own.number("streams.initial.rebalance.delay.ms") as i32,
        members_max: config.number("group.streams.max.size") as usize,
        standby_replicas: standbys.min(config.number("group.streams.max.standby.replicas"))
            as usize,
        rack_aware_tags: tags
            .filter(|tag| !tag.is_empty())
            .map(str::to_owned)
            .collect(),
        task_offset_interval_ms: config.number("group.streams.task.offset.interval.ms") as i32,
        acceptable_recovery_lag: config.number("group.streams.acceptable.recovery.lag"),
    }
}

fn consumer_settings(config: &Config, own: &GroupOverrides<'_>) -> ConsumerSettings {
    let number = |key| own.limited("consumer", key) as i32;
    ConsumerSettings {
        session_timeout_ms: number("session.timeout.ms"),
        heartbeat_interval_ms: number("heartbeat.interval.ms"),
        assignment_interval_ms: number("assignment.interval.ms"),
        unsettled_heartbeat_interval_ms: config
            .number("group.consumer.unsettled.heartbeat.interval.ms")
            as i32,
        members_max: config.number("group.consumer.max.size") as usize,
        classic_members_max: config.number("group.max.size") as usize,
        assignors: assignors(config),
        migration: MigrationPolicy::named(config.text("group.consumer.migration.policy"))
            .unwrap_or(MigrationPolicy::Bidirectional),
    }
}

fn assignors(config: &Config) -> Vec<Assignor> {
    let names = config.text("group.consumer.assignors").split(',');
    let mut known = Vec::new();
    for assignor in names.filter_map(|name| Assignor::named(name.trim())) {
        if !known.contains(&assignor) {
            known.push(assignor);
        }
    }
    known
}

/// The limits of all groups.
pub fn group_limits(config: &Config) -> GroupLimits {
    GroupLimits {
        initial_rebalance_delay_ms: config.number("group.initial.rebalance.delay.ms"),
        session_timeout_min_ms: config.number("group.min.session.timeout.ms") as i32,
        session_timeout_max_ms: config.number("group.max.session.timeout.ms") as i32,
        members_max: config.number("group.max.size") as usize,
        members_bytes_max: config.number("group.members.max.bytes") as usize,
        offsets_bytes_max: config.number("group.offsets.max.bytes") as usize,
        share_groups_max: config.number("group.share.max.groups") as usize,
        metadata_bytes_max: config.number("offset.metadata.max.bytes") as usize,
        offsets_retention_ms: config.number("offsets.retention.minutes") * 60_000,
        producer_expiration_ms: config.number("producer.id.expiration.ms"),
        offsets_check_interval: Duration::from_millis(
            config.number("offsets.retention.check.interval.ms") as u64,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_so_many_groups_are_kept_and_none_of_those_with_long_ids() {
        let config = Config::load(None, &[]).unwrap();
        let made = GroupOverrides::of(&config, "g", None);
        let made = Arc::new(OfGroup::new(&config, &made));
        let mut kept = KeptGroups::default();
        kept.keep(&"g".repeat(KEPT_ID_BYTES_MAX + 1), made.clone());
        assert!(kept.0.is_empty());
        for n in 0..=KEPT_MAX {
            kept.keep(&n.to_string(), made.clone());
        }
        assert_eq!(kept.0.len(), KEPT_MAX - FORGOTTEN + 1);
        assert!(kept.0.contains_key(&KEPT_MAX.to_string()));
        kept.keep(&"g".repeat(KEPT_ID_BYTES_MAX), made);
        assert_eq!(kept.0.len(), KEPT_MAX - FORGOTTEN + 2);
    }

    #[test]
    fn assignors_are_known_by_their_names_and_by_kafkas_classes() {
        let of = |text: &str| {
            let setting = format!("group.consumer.assignors={text}");
            Config::load(None, &[setting]).map(|config| assignors(&config))
        };
        let class = "org.apache.kafka.coordinator.group.assignor.RangeAssignor";
        let both = vec![Assignor::Range, Assignor::Uniform];
        assert_eq!(of(&format!("{class}, uniform,range")).unwrap(), both);
        assert!(of("com.example.MyAssignor").is_err());
    }
}
