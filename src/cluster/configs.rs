//! What is set at run time for brokers, groups, client metrics, users, client ids and addresses: kept in the tree below
//! `/config`, followed by every broker; `config_changes` puts it in force, and makes changes as the controller, as
//! `entity_changes` does of quotas and credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::config::{
    CLIENT_METRICS_KEYS, ClientMetricsSubscription, GROUP_KEYS, Kind, Overrides, Value, broker_key,
};
use crate::meta::paths;

/// Set for a broker that is to lead only what no other one can.
pub const DRAINED: &str = "broker.drained";
/// Of one kind, such as groups or users, those that have configurations of their own.
pub const CONFIGURED_RESOURCES_MAX: usize = 10_000;
/// The longest value that is kept, bytes.
pub const CONFIG_VALUE_BYTES_MAX: usize = 32 << 10;
/// Configurations that a broker keeps and does not know, of one broker or of all.
pub const UNKNOWN_CONFIGS_MAX: usize = 20;
/// The longest name of such a configuration, bytes.
pub const CONFIG_NAME_BYTES_MAX: usize = 256;

/// Whose configuration is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Configured {
    /// A broker by its number, or all of them by the empty name.
    Broker,
    /// A group.
    Group,
    /// A client metrics subscription.
    ClientMetrics,
    /// A user, or a user's client id: quotas and, of users, credentials.
    User,
    /// A client id of whichever user: quotas.
    Client,
    /// An address: quotas.
    Ip,
}

impl Configured {
    pub(super) const ALL: [Self; 6] = [
        Self::Broker,
        Self::Group,
        Self::ClientMetrics,
        Self::User,
        Self::Client,
        Self::Ip,
    ];
    /// Those of quotas and credentials, whose names are paths (`Entity::key`).
    pub(super) const ENTITIES: [Self; 3] = [Self::User, Self::Client, Self::Ip];

    fn element(self) -> &'static str {
        match self {
            Self::Broker => "brokers",
            Self::Group => "groups",
            Self::ClientMetrics => "client-metrics",
            Self::User => "users",
            Self::Client => "clients",
            Self::Ip => "ips",
        }
    }

    /// The node that all of them are below.
    pub(super) fn root(self) -> String {
        format!("{}/{}", paths::CONFIG, self.element())
    }

    /// Of what is no entity.
    pub(super) fn path(self, name: &str) -> String {
        match (self, name) {
            (Self::Broker, "") => paths::config(self.element(), paths::CONFIG_DEFAULT),
            _ => paths::config(self.element(), name),
        }
    }

    pub(super) fn kind_of(self, key: &str) -> Option<Kind> {
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
            Self::User | Self::Client | Self::Ip => None,
        }
    }
}

/// What is set at run time, by kind and name.
#[derive(Clone, Default)]
pub struct Configs {
    by_kind: BTreeMap<Configured, Arc<BTreeMap<String, Overrides>>>,
    pub(super) subscriptions: Arc<Vec<ClientMetricsSubscription>>,
    /// Counts changes.
    pub(super) revision: u64,
}

/// How many of each kind there are: the values may be credentials.
impl fmt::Debug for Configs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.by_kind.iter().map(|(what, of)| (what, of.len()));
        f.debug_map().entries(counts).finish()
    }
}

impl Configs {
    /// Those of a kind that have settings, with them, in the order of their names.
    pub(super) fn all(&self, what: Configured) -> impl Iterator<Item = (&String, &Overrides)> {
        self.by_kind.get(&what).into_iter().flat_map(|of| of.iter())
    }

    /// Whether one whose name begins so has settings.
    pub(super) fn has_below(&self, what: Configured, beginning: &str) -> bool {
        let of = self.by_kind.get(&what);
        let next = of.and_then(|of| of.range(beginning.to_owned()..).next());
        next.is_some_and(|(name, _)| name.starts_with(beginning))
    }

    /// What is set for one of them.
    pub fn get(&self, what: Configured, name: &str) -> Option<&Overrides> {
        self.by_kind.get(&what)?.get(name)
    }

    /// Another number after each change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Those that have settings.
    pub fn names(&self, what: Configured) -> impl Iterator<Item = &str> {
        self.all(what).map(|(name, _)| name.as_str())
    }

    /// Whether one more may have settings, where it has none.
    pub(super) fn has_room_for(&self, what: Configured, name: &str) -> bool {
        let of = self.by_kind.get(&what);
        of.is_none_or(|of| of.contains_key(name) || of.len() < CONFIGURED_RESOURCES_MAX)
    }

    pub(super) fn put(&mut self, what: Configured, name: &str, overrides: Overrides) {
        let of = Arc::make_mut(self.by_kind.entry(what).or_default());
        match overrides.is_empty() {
            true => of.remove(name),
            false => of.insert(name.to_owned(), overrides),
        };
    }

    /// Brokers that are drained.
    pub(super) fn drained(&self) -> BTreeSet<i32> {
        let is_drained = |overrides: &Overrides| {
            let set = overrides.get(DRAINED);
            set.is_some_and(|value| Value::boolean(value).unwrap_or(false))
        };
        let set = self.all(Configured::Broker);
        let set = set.filter(|(_, overrides)| is_drained(overrides));
        set.filter_map(|(name, _)| name.parse().ok()).collect()
    }

    /// Whether there is a client metrics subscription.
    pub fn has_subscriptions(&self) -> bool {
        self.all(Configured::ClientMetrics).next().is_some()
    }

    pub(super) fn read_subscriptions(&mut self) {
        let all = self.all(Configured::ClientMetrics);
        let parsed = all.filter_map(|(name, overrides)| {
            let parsed = ClientMetricsSubscription::parse(name, overrides);
            parsed
                .inspect_err(|error| tracing::warn!(name, %error, "a client metrics subscription is left out"))
                .ok()
        });
        self.subscriptions = Arc::new(parsed.collect());
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
