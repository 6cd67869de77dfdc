//! What is set at run time: put in force on this broker, and changed as the controller.
//!
//! Tests: tests/config.rs.

use std::sync::Arc;

use super::changes::{ClusterError, ConfigChange, apply_change};
use super::configs::{
    CONFIG_NAME_BYTES_MAX, CONFIG_VALUE_BYTES_MAX, CONFIGURED_RESOURCES_MAX, Configs, Configured,
    UNKNOWN_CONFIGS_MAX,
};
use super::controller::Controller;
use super::entities::Entity;
use super::view::View;
use crate::config::{ClientMetricsSubscription, Config, Overrides, broker_key, check_group};
use crate::meta::records::{ConfigRecord, RECORD_VERSION, decode, encode};
use crate::meta::{Op, paths};

impl View {
    /// Reads what is set at run time and puts it in force.
    pub(super) async fn reload_configs(&self) -> Result<(), ClusterError> {
        let _change = self.lock_changes().await;
        let mut configs = Configs::default();
        for what in Configured::ALL {
            let root = what.root();
            for (path, node) in self.meta.subtree(&root).await? {
                let below = path.strip_prefix(&root).unwrap_or_default();
                let Some(name) = name_of(what, below.trim_start_matches('/')) else {
                    continue;
                };
                // One that is there for those below it only.
                if node.data.is_empty() {
                    continue;
                }
                match decode::<ConfigRecord>(&path, &node.data) {
                    Ok(record) => configs.put(what, &name, record.config),
                    Err(error) => tracing::error!(%error, "a configuration is left out"),
                }
            }
        }
        configs.read_subscriptions();
        self.put_in_force(configs);
        Ok(())
    }

    pub(super) fn put_in_force(&self, mut configs: Configs) {
        configs.revision = self.image().configs.revision + 1;
        let of = |name: &str| {
            configs
                .get(Configured::Broker, name)
                .cloned()
                .unwrap_or_default()
        };
        let changed = self
            .config
            .set_dynamic(&of(""), &of(&self.broker_id.to_string()));
        self.change_image(|image| image.configs = Arc::new(configs));
        if changed {
            self.reconfigure_topics();
        }
    }

    /// Gives all logs the settings that are in force now.
    pub(super) fn reconfigure_topics(&self) {
        for topic in self.image().topics() {
            self.reconciler().reconfigure(topic);
        }
    }
}

impl Controller {
    /// Changes what is set for a broker, all brokers, a group or a client metrics subscription.
    pub async fn change_resource(
        &self,
        what: Configured,
        name: &str,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), ClusterError> {
        let change = self.view.lock_changes().await;
        if !self.is_controller() {
            return Err(ClusterError::NotController);
        }
        let image = self.view.image();
        let known = image.configs.get(what, name);
        let mut overrides = known.cloned().unwrap_or_default();
        let in_force = |key: &str| self.default_of(what, name, key);
        for change in changes {
            apply_change(&mut overrides, |key| what.kind_of(key), in_force, change)
                .map_err(|error| error.of_resource(what))?;
        }
        check_resource_name(what, name)?;
        self.check(what, name, &overrides)?;
        if validate_only || known.cloned().unwrap_or_default() == overrides {
            return Ok(());
        }
        if !image.configs.has_room_for(what, name) {
            return Err(ClusterError::Request(format!(
                "{CONFIGURED_RESOURCES_MAX} have configurations of their own, which is the most."
            )));
        }
        let unknown = |key: &&String| what.kind_of(key).is_none();
        for key in overrides.keys().filter(unknown) {
            tracing::warn!(
                key,
                "a configuration that is not known is kept; it has no effect"
            );
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
        self.view.put_in_force(configs);
        drop(change);
        self.follow_settings().await
    }

    /// Where this broker is the controller, settles the partitions and the slots by the settings that are in force: topics take
    /// min.insync.replicas and unclean.leader.election.enable from the broker, and a broker that is drained leads no more.
    pub(super) async fn follow_settings(&self) -> Result<(), ClusterError> {
        let change = self.view.lock_changes().await;
        self.settle().await?;
        drop(change);
        self.deal_slots().await
    }

    /// What a list is appended to.
    fn default_of(&self, what: Configured, name: &str, key: &str) -> String {
        match what {
            Configured::Broker => self.view.config.text(key),
            Configured::Group => {
                let from_file = self.view.config.load().defaults_for_group(name);
                from_file.get(key).cloned().unwrap_or_default()
            }
            _ => String::new(),
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
            Configured::Broker => check_broker(&self.view.config.load(), overrides),
            Configured::Group => {
                let checked = check_group(&self.view.config.load(), name, overrides);
                checked.map_err(ClusterError::ConfigChange)
            }
            Configured::ClientMetrics => {
                ClientMetricsSubscription::parse(name, overrides).map_err(ClusterError::from)?;
                Ok(())
            }
            Configured::User | Configured::Client | Configured::Ip => Ok(()),
        }
    }
}

/// The name in [`Configs`] of the node that has a path below its kind's.
fn name_of(what: Configured, below: &str) -> Option<String> {
    if Configured::ENTITIES.contains(&what) {
        return Some(Entity::parse(what, below)?.key());
    }
    let name = paths::unescape(below).filter(|_| !below.is_empty())?;
    let is_default = what == Configured::Broker && name == paths::CONFIG_DEFAULT;
    Some(if is_default { String::new() } else { name })
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
        Configured::User | Configured::Client | Configured::Ip => {
            request("Quotas and credentials are changed by requests of their own.")
        }
    }
}

/// As Kafka's brokers do, what is wrong with a broker's settings is a wrong request.
fn check_broker(config: &Config, overrides: &Overrides) -> Result<(), ClusterError> {
    // Kept as they are, as by Kafka: plugins have settings of their own.
    let unknown = overrides.keys().filter(|name| broker_key(name).is_none());
    if unknown.clone().count() > UNKNOWN_CONFIGS_MAX {
        return Err(ClusterError::Request(format!(
            "A broker may have at most {UNKNOWN_CONFIGS_MAX} configurations that are not known."
        )));
    }
    if let Some(name) = unknown
        .clone()
        .find(|name| name.len() > CONFIG_NAME_BYTES_MAX)
    {
        return Err(ClusterError::Request(format!(
            "A configuration's name of {} bytes is longer than {CONFIG_NAME_BYTES_MAX}.",
            name.len()
        )));
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
            key.kind
                .check(value)
                .map_err(|error| ClusterError::Request(key.kind.refusal(name, value, &error)))?;
        }
    }
    let (_, told) = config.with_dynamic(&Overrides::new(), overrides);
    match told.is_empty() {
        true => Ok(()),
        false => Err(ClusterError::Request(told.join("; "))),
    }
}
