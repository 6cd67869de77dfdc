//! What can be asked of the cluster, why it is refused, and what a change does to a topic's configuration.

use std::collections::{BTreeMap, BTreeSet};

use super::configs::Configured;
use super::names::NameError;
#[cfg(test)]
use crate::config::topic_key;
use crate::config::{ClientMetricsError, Kind, Overrides, TopicConfigError, Value};
use crate::log::DataDirError;
use crate::meta::MetaError;

/// Why a change is refused.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A topic of that name exists.
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// Not a legal name.
    #[error("Topic name is invalid: {0}")]
    Name(#[from] NameError),
    /// The name collides with another one.
    #[error("Topic '{0}' collides with existing topic: {1}")]
    Collision(String, String),
    /// No such topic.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// The same, of a topic whose configuration is to be changed.
    #[error("The topic '{0}' does not exist.")]
    NoSuchTopic(String),
    /// No topic with that id.
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    /// Not a possible number of partitions.
    #[error("{0}")]
    Partitions(String),
    /// Not a possible number of replicas.
    #[error("{0}")]
    ReplicationFactor(String),
    /// Not a possible assignment.
    #[error("{0}")]
    Assignment(String),
    /// A configuration is wrong.
    #[error(transparent)]
    Config(#[from] TopicConfigError),
    /// A change that makes no sense, such as appending to what is no list.
    #[error("{0}")]
    ConfigChange(String),
    /// Numbers given both explicitly and by assignment.
    #[error("{0}")]
    Request(String),
    /// The client created or deleted as many partitions as it may.
    #[error("The throttling quota has been exceeded.")]
    QuotaExceeded,
    /// Topics may not be deleted here.
    #[error("Topic deletion is disabled.")]
    DeletionDisabled,
    /// This broker is not the controller.
    #[error("This broker is not the controller of the cluster.")]
    NotController,
    /// A broker speaks of a registration that is not the one in force.
    #[error("The broker's registration is another one.")]
    StaleBroker,
    /// Another process has this broker's number.
    #[error(
        "broker id {id} is taken: {place} is registered with it, with another data directory (directory.id {directory_id} in its meta.properties); give this broker another brokerId, or stop that one"
    )]
    DuplicateBroker {
        /// The number.
        id: i32,
        /// Host and port of the other one.
        place: String,
        /// Its data directory.
        directory_id: String,
    },
    /// The tree under a running broker is of another cluster, or empty.
    #[error(
        "the coordination tree has {0} as cluster.id, and this broker is of cluster {1}: nothing here follows it. Bring the tree back, or start this broker anew to begin with the one that is there"
    )]
    OtherTree(String, String),
    /// The root belongs to a MetaQ.
    #[error(
        "{0} was written by a MetaQ broker; its tree is not ours to write to: choose another zk.zkRoot"
    )]
    ForeignRoot(String),
    /// The coordination store failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// A data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Files of a new partition could not be made.
    #[error("{0} partitions could not be opened; the log says why")]
    Storage(usize),
}

impl From<ClientMetricsError> for ClusterError {
    fn from(error: ClientMetricsError) -> Self {
        match error {
            ClientMetricsError::Request(why) => Self::Request(why),
            ClientMetricsError::Pattern(_) => Self::ConfigChange(error.to_string()),
        }
    }
}

impl ClusterError {
    /// The failure of a write, for another change that was part of it.
    pub(super) fn repeated(&self) -> Self {
        match self {
            Self::Meta(error) => Self::Meta(error.clone()),
            _ => Self::NotController,
        }
    }

    /// The same, said of something else than a topic.
    pub(super) fn of_resource(self, what: Configured) -> Self {
        let whose = match what {
            Configured::Broker => "broker",
            Configured::Group => "group",
            Configured::ClientMetrics => "client metrics",
            Configured::User | Configured::Client | Configured::Ip => "quota",
        };
        match self {
            Self::Config(TopicConfigError::Unknown(name)) => {
                Self::Request(format!("Unknown {whose} config name: {name}"))
            }
            other => other,
        }
    }
}

/// A topic to create.
#[derive(Debug, Clone)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Number of partitions, or -1 for the broker's default.
    pub partitions: i32,
    /// Number of replicas, or -1 for the broker's default.
    pub replication_factor: i16,
    /// Replicas by partition index, instead of the two numbers.
    pub assignments: BTreeMap<i32, Vec<i32>>,
    /// Its configurations; `None` as value is refused, as by Kafka.
    pub config: Vec<(String, Option<String>)>,
}

impl NewTopic {
    /// A topic with the broker's defaults.
    pub fn with_defaults(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            partitions: -1,
            replication_factor: -1,
            assignments: BTreeMap::new(),
            config: Vec::new(),
        }
    }
}

/// A topic to extend.
#[derive(Debug, Clone)]
pub struct MorePartitions {
    /// Name.
    pub name: String,
    /// How many it shall have.
    pub count: i32,
    /// Replicas of those that are added, where they are not to be dealt.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// One step of changing a topic's configuration (KIP-339).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// Sets a value.
    Set(String, String),
    /// Back to the default.
    Delete(String),
    /// Adds words to a list.
    Append(String, String),
    /// Takes words from a list.
    Subtract(String, String),
    /// Forgets all that was set; what follows is set anew (AlterConfigs).
    Clear,
}

impl ConfigChange {
    /// Which configuration; none for all of them.
    pub fn key(&self) -> &str {
        match self {
            Self::Set(key, _) | Self::Append(key, _) | Self::Subtract(key, _) => key,
            Self::Delete(key) => key,
            Self::Clear => "",
        }
    }
}

/// Applies one step to settings. `kind_of` knows the keys; `default_of` tells what a list is appended to where it is not
/// set itself.
pub(super) fn apply_change(
    overrides: &mut Overrides,
    kind_of: impl Fn(&str) -> Option<Kind>,
    default_of: impl Fn(&str) -> String,
    change: &ConfigChange,
) -> Result<(), ClusterError> {
    match change {
        ConfigChange::Clear => overrides.clear(),
        ConfigChange::Set(name, value) => {
            overrides.insert(name.clone(), value.clone());
        }
        // Also a key that is not known, which has no effect (Kafka's ConfigurationControlManager): MirrorMaker 2 takes back
        // whatever its source does not set.
        ConfigChange::Delete(name) => {
            overrides.remove(name);
        }
        ConfigChange::Append(name, words) | ConfigChange::Subtract(name, words) => {
            let adds = matches!(change, ConfigChange::Append(..));
            let current = overrides
                .get(name)
                .cloned()
                .unwrap_or_else(|| default_of(name));
            let changed = match kind_of(name) {
                Some(Kind::List(_) | Kind::Words | Kind::Replicas) => {
                    change_words(&current, words, adds)
                }
                Some(Kind::Partitions) => change_partitions(name, &current, words, adds)?,
                _ => {
                    // As Kafka's ConfigurationControlManager words it, also of a key that is not known.
                    let what = if adds { "APPEND" } else { "SUBTRACT" };
                    return Err(ClusterError::ConfigChange(format!(
                        "Can't {what} to key {name} because its type is not LIST."
                    )));
                }
            };
            overrides.insert(name.clone(), changed);
        }
    }
    Ok(())
}

fn change_words(current: &str, words: &str, adds: bool) -> String {
    let split = |list: &str| -> Vec<String> {
        let words = list.split(',').map(str::trim);
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let mut list = split(current);
    for word in split(words) {
        match adds {
            true if list.contains(&word) => {}
            true => list.push(word),
            false => list.retain(|known| *known != word),
        }
    }
    list.join(",")
}

fn change_partitions(
    name: &str,
    current: &str,
    words: &str,
    adds: bool,
) -> Result<String, ClusterError> {
    let read = |list: &str| {
        Value::partitions(list).map_err(|reason| TopicConfigError::Invalid {
            name: name.to_owned(),
            value: list.to_owned(),
            reason,
        })
    };
    let mut all: BTreeSet<i32> = read(current).unwrap_or_default().into_iter().collect();
    for partition in read(words)? {
        match adds {
            true => all.insert(partition),
            false => all.remove(&partition),
        };
    }
    Ok(Value::ranges(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(overrides: &mut Overrides, change: ConfigChange) -> Result<(), ClusterError> {
        let kind_of = |name: &str| topic_key(name).map(|key| key.kind);
        let default_of = |name: &str| topic_key(name).map_or("", |key| key.default).to_owned();
        apply_change(overrides, kind_of, default_of, &change)
    }

    #[test]
    fn a_list_is_extended_from_what_is_in_force() {
        let mut overrides = Overrides::new();
        let append = ConfigChange::Append("cleanup.policy".into(), "compact".into());
        apply(&mut overrides, append).unwrap();
        assert_eq!(overrides["cleanup.policy"], "delete,compact");
        let subtract = ConfigChange::Subtract("cleanup.policy".into(), "delete".into());
        apply(&mut overrides, subtract).unwrap();
        assert_eq!(overrides["cleanup.policy"], "compact");
        let wrong = ConfigChange::Append("retention.ms".into(), "1".into());
        assert!(apply(&mut overrides, wrong).is_err());
    }

    #[test]
    fn taking_back_a_key_that_is_not_known_has_no_effect() {
        let mut overrides = Overrides::from([("retention.ms".to_owned(), "1".to_owned())]);
        apply(&mut overrides, ConfigChange::Delete("no.such.key".into())).unwrap();
        assert_eq!(overrides.len(), 1);
        let append = ConfigChange::Append("no.such.key".into(), "1".into());
        assert!(apply(&mut overrides, append).is_err());
    }

    #[test]
    fn partitions_are_added_and_taken_by_range() {
        let mut overrides = Overrides::new();
        let name = || "closed.partitions".to_owned();
        apply(&mut overrides, ConfigChange::Append(name(), "1-5".into())).unwrap();
        apply(&mut overrides, ConfigChange::Subtract(name(), "3,9".into())).unwrap();
        assert_eq!(overrides["closed.partitions"], "1-2,4-5");
        assert!(apply(&mut overrides, ConfigChange::Append(name(), "x".into())).is_err());
    }
}
