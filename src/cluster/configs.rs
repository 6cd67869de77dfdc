//! What is set at run time for brokers, groups and client metrics: kept in the tree below `/config`, followed by every
//! broker, and put in force through [`LiveConfig`](crate::config::LiveConfig). The controller makes the changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::changes::{ClusterError, ConfigChange, apply_change};
use super::cluster::Cluster;
use crate::config::{
    BrokerKey, CLIENT_METRICS_KEYS, ClientMetricsSubscription, Config, ConfigError, GROUP_KEYS,
    Kind, Overrides, Reload, broker_key, broker_keys, check_group, nearest,
};
use crate::meta::records::{ConfigRecord, RECORD_VERSION, decode, encode};
use crate::meta::{Op, paths};

/// Groups, and client metrics subscriptions, that have configurations of their own.
pub const CONFIGURED_RESOURCES_MAX: usize = 10_000;
/// The longest value that is kept, bytes.
pub const CONFIG_VALUE_BYTES_MAX: usize = 32 << 10;

/// Whose configuration is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Configured {
    /// A broker by its number, or all of them by the empty name.
    Broker,
    /// A group.
    Group,
    /// A client metrics subscription.
    ClientMetrics,
}

impl Configured {
    const ALL: [Self; 3] = [Self::Broker, Self::Group, Self::ClientMetrics];

    fn element(self) -> &'static str {
        match self {
            Self::Broker => "brokers",
            Self::Group => "groups",
            Self::ClientMetrics => "client-metrics",
        }
    }

    fn path(self, name: &str) -> String {
        match (self, name) {
            (Self::Broker, "") => paths::config(self.element(), paths::CONFIG_DEFAULT),
            _ => paths::config(self.element(), name),
        }
    }

    fn kind_of(self, key: &str) -> Option<Kind> {
        match self {
            Self::Broker => broker_key(key).map(|key| key.kind),
            Self::Group => {
                let found = GROUP_KEYS.iter().find(|known| known.name == key);
                found.map(|known| known.kind)
            }
            Self::ClientMetrics => {
                let found = CLIENT_METRICS_KEYS.iter().find(|known| known.name == key);
                found.map(|known| known.kind)
            }
        }
    }
}

/// What is set at run time, by name.
#[derive(Debug, Clone, Default)]
pub struct Configs {
    brokers: BTreeMap<String, Overrides>,
    groups: BTreeMap<String, Overrides>,
    client_metrics: BTreeMap<String, Overrides>,
    subscriptions: Arc<Vec<ClientMetricsSubscription>>,
}

impl Configs {
    fn of(&self, what: Configured) -> &BTreeMap<String, Overrides> {
        match what {
            Configured::Broker => &self.brokers,
            Configured::Group => &self.groups,
            Configured::ClientMetrics => &self.client_metrics,
        }
    }

    fn of_mut(&mut self, what: Configured) -> &mut BTreeMap<String, Overrides> {
        match what {
            Configured::Broker => &mut self.brokers,
            Configured::Group => &mut self.groups,
            Configured::ClientMetrics => &mut self.client_metrics,
        }
    }

    /// What is set for one of them.
    pub fn get(&self, what: Configured, name: &str) -> Option<&Overrides> {
        self.of(what).get(name)
    }

    /// Those that have settings.
    pub fn names(&self, what: Configured) -> impl Iterator<Item = &str> {
        self.of(what).keys().map(String::as_str)
    }

    /// Whether one more may have settings, where it has none.
    fn has_room_for(&self, what: Configured, name: &str) -> bool {
        let configured = self.of(what);
        configured.contains_key(name) || configured.len() < CONFIGURED_RESOURCES_MAX
    }

    fn put(&mut self, what: Configured, name: &str, overrides: Overrides) {
        match overrides.is_empty() {
            true => self.of_mut(what).remove(name),
            false => self.of_mut(what).insert(name.to_owned(), overrides),
        };
    }

    fn read_subscriptions(&mut self) {
        let parsed = self.client_metrics.iter().filter_map(|(name, overrides)| {
            let parsed = ClientMetricsSubscription::parse(name, overrides);
            parsed
                .inspect_err(|error| tracing::warn!(name, %error, "a client metrics subscription is left out"))
                .ok()
        });
        self.subscriptions = Arc::new(parsed.collect());
    }
}

impl Cluster {
    /// All client metrics subscriptions, by name.
    pub fn client_metrics(&self) -> Arc<Vec<ClientMetricsSubscription>> {
        self.image.load().configs.subscriptions.clone()
    }

    /// Reads what is set at run time and puts it in force.
    pub(super) async fn reload_configs(&self) -> Result<(), ClusterError> {
        let _change = self.changes.lock().await;
        let mut configs = Configs::default();
        for what in Configured::ALL {
            let root = format!("{}/{}", paths::CONFIG, what.element());
            for (path, node) in self.meta.subtree(&root).await? {
                let element = path.rsplit('/').next().unwrap_or_default();
                let Some(name) = paths::unescape(element).filter(|_| path != root) else {
                    continue;
                };
                let is_default = what == Configured::Broker && name == paths::CONFIG_DEFAULT;
                let name = if is_default { "" } else { &name };
                match decode::<ConfigRecord>(&path, &node.data) {
                    Ok(record) => configs.put(what, name, record.config),
                    Err(error) => tracing::error!(%error, "a configuration is left out"),
                }
            }
        }
        configs.read_subscriptions();
        self.put_in_force(configs);
        Ok(())
    }

    fn put_in_force(&self, configs: Configs) {
        let of = |name: &str| configs.brokers.get(name).cloned().unwrap_or_default();
        let changed = self
            .config
            .set_dynamic(&of(""), &of(&self.broker_id.to_string()));
        self.change_image(|image| image.configs = Arc::new(configs));
        if changed {
            self.reconfigure_topics();
        }
    }

    /// Gives all logs the settings that are in force now.
    fn reconfigure_topics(&self) {
        for topic in self.image().topics() {
            self.reconciler.reconfigure(topic);
        }
    }

    /// Reads the configuration file again; see [`LiveConfig::reload`](crate::config::LiveConfig::reload).
    pub async fn reload_config(&self) -> Result<Reload, ConfigError> {
        let report = self.config.reload()?;
        let change = self.changes.lock().await;
        self.reconfigure_topics();
        drop(change);
        if self.is_controller() {
            self.create_named_topics().await;
        }
        if let Err(error) = self.publish_topics().await {
            tracing::warn!(%error, "cannot tell which topics are taken messages for");
        }
        for change in &report.applied {
            tracing::info!(
                name = change.name,
                from = change.from,
                to = change.to,
                "configuration changed"
            );
        }
        for change in &report.needs_restart {
            tracing::warn!(
                name = change.name,
                from = change.from,
                to = change.to,
                "in force after a restart"
            );
        }
        for change in &report.overruled {
            tracing::warn!(
                name = change.name,
                to = change.to,
                "set at run time to something else, which stays in force"
            );
        }
        Ok(report)
    }

    /// Changes what is set for a broker, all brokers, a group or a client metrics subscription.
    pub async fn change_resource(
        &self,
        what: Configured,
        name: &str,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), ClusterError> {
        check_resource_name(what, name)?;
        let _change = self.changes.lock().await;
        if !self.is_controller() {
            return Err(ClusterError::NotController);
        }
        let image = self.image();
        let known = image.configs.get(what, name);
        let mut overrides = known.cloned().unwrap_or_default();
        let in_force = |key: &str| self.default_of(what, name, key);
        for change in changes {
            apply_change(&mut overrides, |key| what.kind_of(key), in_force, change)
                .map_err(|error| error.of_resource(what))?;
        }
        self.check(what, name, &overrides)?;
        if validate_only || known.cloned().unwrap_or_default() == overrides {
            return Ok(());
        }
        if !image.configs.has_room_for(what, name) {
            return Err(ClusterError::Request(format!(
                "{CONFIGURED_RESOURCES_MAX} have configurations of their own, which is the most."
            )));
        }
        let path = what.path(name);
        let op = match overrides.is_empty() {
            true => Op::delete_tree(path),
            false => Op::put(
                path,
                encode(&ConfigRecord {
                    version: RECORD_VERSION,
                    config: overrides.clone(),
                }),
            ),
        };
        self.change_as_controller(vec![op]).await?;
        let mut configs = Configs::clone(&image.configs);
        configs.put(what, name, overrides);
        if what == Configured::ClientMetrics {
            configs.read_subscriptions();
        }
        self.put_in_force(configs);
        Ok(())
    }

    /// What a list is appended to.
    fn default_of(&self, what: Configured, name: &str, key: &str) -> String {
        match what {
            Configured::Broker => self.config.text(key),
            Configured::Group => {
                let from_file = self.config.load().defaults_for_group(name);
                from_file.get(key).cloned().unwrap_or_default()
            }
            Configured::ClientMetrics => String::new(),
        }
    }

    fn check(
        &self,
        what: Configured,
        name: &str,
        overrides: &Overrides,
    ) -> Result<(), ClusterError> {
        if let Some((key, _)) = overrides
            .iter()
            .find(|(_, value)| value.len() > CONFIG_VALUE_BYTES_MAX)
        {
            let why = format!("{key} is longer than {CONFIG_VALUE_BYTES_MAX} bytes.");
            return Err(ClusterError::Request(why));
        }
        match what {
            Configured::Broker => check_broker(&self.config.load(), overrides),
            Configured::Group => check_group(overrides).map_err(ClusterError::ConfigChange),
            Configured::ClientMetrics => {
                ClientMetricsSubscription::parse(name, overrides).map_err(ClusterError::from)?;
                Ok(())
            }
        }
    }
}

fn check_resource_name(what: Configured, name: &str) -> Result<(), ClusterError> {
    let request = |why: &str| Err(ClusterError::Request(why.to_owned()));
    match what {
        Configured::Broker if name.is_empty() => Ok(()),
        Configured::Broker => match name.parse::<i32>() {
            Err(_) => request("Unable to parse broker name as a base 10 number."),
            Ok(..0) => request("Invalid negative broker ID."),
            Ok(_) => Ok(()),
        },
        Configured::Group if name.is_empty() => request("Default group resources are not allowed."),
        Configured::ClientMetrics if name.is_empty() => request("Subscription name can't be empty"),
        Configured::Group | Configured::ClientMetrics => Ok(()),
    }
}

/// As Kafka's brokers do, what is wrong with a broker's settings is a wrong request.
fn check_broker(config: &Config, overrides: &Overrides) -> Result<(), ClusterError> {
    let unknown = overrides.keys().find(|name| broker_key(name).is_none());
    if let Some(name) = unknown {
        let known: Vec<BrokerKey> = broker_keys().collect();
        let hint = nearest(name, known.iter().map(|key| key.name))
            .map_or(String::new(), |near| format!("; did you mean {near}?"));
        let why = format!("Unknown broker config name: {name}{hint}");
        return Err(ClusterError::Request(why));
    }
    let fixed: Vec<&str> = overrides
        .keys()
        .filter(|name| broker_key(name).is_some_and(|key| !key.is_dynamic()))
        .map(String::as_str)
        .collect();
    if !fixed.is_empty() {
        return Err(ClusterError::Request(format!(
            "Cannot update these configs dynamically: Set({})",
            fixed.join(", ")
        )));
    }
    for (name, value) in overrides {
        if let Some(key) = broker_key(name) {
            key.kind.check(value).map_err(|error| {
                let why = format!("Invalid value {value} for configuration {name}: {error}");
                ClusterError::Request(why)
            })?;
        }
    }
    let (_, told) = config.with_dynamic(&Overrides::new(), overrides);
    match told.is_empty() {
        true => Ok(()),
        false => Err(ClusterError::Request(told.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_for_so_many_and_those_may_change() {
        let mut configs = Configs::default();
        let set =
            || Overrides::from([("consumer.session.timeout.ms".to_owned(), "50000".to_owned())]);
        for n in 0..CONFIGURED_RESOURCES_MAX {
            assert!(configs.has_room_for(Configured::Group, &n.to_string()));
            configs.put(Configured::Group, &n.to_string(), set());
        }
        assert!(!configs.has_room_for(Configured::Group, "one more"));
        assert!(configs.has_room_for(Configured::Group, "7"));
        assert!(configs.has_room_for(Configured::ClientMetrics, "another kind"));
        configs.put(Configured::Group, "7", Overrides::new());
        assert!(configs.has_room_for(Configured::Group, "one more"));
    }

    #[test]
    fn a_default_broker_has_a_node_that_no_number_has() {
        assert_eq!(Configured::Broker.path(""), "/config/brokers/<default>");
        assert_eq!(Configured::Broker.path("0"), "/config/brokers/0");
        assert_eq!(Configured::Group.path("a/b"), "/config/groups/a%2fb");
    }
}
