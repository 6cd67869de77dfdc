//! What can be asked of the cluster, why it is refused, and what a change does to a topic's configuration.

use std::collections::BTreeMap;

use super::names::NameError;
use crate::config::{Kind, TopicConfig, TopicConfigError, TopicOverrides, topic_key};
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
    /// Topics may not be deleted here.
    #[error("Topic deletion is disabled.")]
    DeletionDisabled,
    /// This broker is not the controller.
    #[error("This broker is not the controller of the cluster.")]
    NotController,
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

/// Applies one step to a topic's own settings.
pub(super) fn apply_change(
    overrides: &mut TopicOverrides,
    defaults: &TopicOverrides,
    change: &ConfigChange,
) -> Result<(), ClusterError> {
    let unknown = |name: &String| TopicConfigError::Unknown(name.clone());
    match change {
        ConfigChange::Clear => overrides.0.clear(),
        ConfigChange::Set(name, value) => {
            overrides.0.insert(name.clone(), value.clone());
        }
        ConfigChange::Delete(name) => {
            topic_key(name).ok_or_else(|| unknown(name))?;
            overrides.0.remove(name);
        }
        ConfigChange::Append(name, words) | ConfigChange::Subtract(name, words) => {
            let key = topic_key(name).ok_or_else(|| unknown(name))?;
            if !matches!(key.kind, Kind::List(_)) {
                return Err(ClusterError::ConfigChange(format!(
                    "Can't append or subtract: {name} is not a list."
                )));
            }
            let current = TopicConfig {
                overrides,
                broker: defaults,
            }
            .get(name)
            .to_owned();
            let mut list: Vec<&str> = current
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect();
            let words = words.split(',').map(str::trim);
            match change {
                ConfigChange::Append(..) => words.for_each(|word| {
                    if !list.contains(&word) {
                        list.push(word);
                    }
                }),
                _ => words.for_each(|word| list.retain(|known| *known != word)),
            }
            overrides.0.insert(name.clone(), list.join(","));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_extended_from_what_is_in_force() {
        let mut overrides = TopicOverrides::default();
        let defaults = TopicOverrides::default();
        let append = ConfigChange::Append("cleanup.policy".into(), "compact".into());
        apply_change(&mut overrides, &defaults, &append).unwrap();
        assert_eq!(overrides.0["cleanup.policy"], "delete,compact");
        let subtract = ConfigChange::Subtract("cleanup.policy".into(), "delete".into());
        apply_change(&mut overrides, &defaults, &subtract).unwrap();
        assert_eq!(overrides.0["cleanup.policy"], "compact");
        let wrong = ConfigChange::Append("retention.ms".into(), "1".into());
        assert!(apply_change(&mut overrides, &defaults, &wrong).is_err());
    }
}
