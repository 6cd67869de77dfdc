//! Configuration: `server.ini`, `--set` overrides, what is changed at run time, topic configurations. One table each
//! for brokers, topics, groups and client metrics.
//!
//! A [`Config`] is what is in force at one moment; [`LiveConfig`] is how the broker reads it, and what `reload` and
//! changes at run time replace.
//!
//! Tests: config/load.rs, config/live.rs.

mod broker;
mod client_metrics;
mod group;
mod ini;
mod kafka;
mod key;
mod keys;
mod listener;
mod live;
mod load;
mod offset_reset;
mod problem;
mod sections;
mod security;
mod topic;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::security::{Authorizer, SuperUserError};

pub use broker::{
    broker_key, broker_keys, canonical, nearest, topic_defaults, unknown as unknown_broker_key,
};
pub use client_metrics::{
    CLIENT_METRICS_KEYS, ClientMetricsError, ClientMetricsKey, ClientMetricsSubscription,
    MatchParameter,
};
pub use group::{CONSUME_MODE, GROUP_KEYS, GroupKey, GroupOverrides, check_group};
pub use key::BrokerKey;
pub use keys::{SUBJECTS, Subject};
pub use listener::ListenerSection;
pub use live::{Changed, LiveConfig, Reload};
pub use offset_reset::OffsetReset;
pub use sections::{GroupSection, TopicSection};
pub use security::LOCAL_USERS;
pub use topic::{TOPIC_KEYS, TopicConfig, TopicConfigError, TopicKey, TopicOverrides, topic_key};
pub use value::{Kind, Value, ValueError};

/// Names and values that were set at run time.
pub type Overrides = BTreeMap<String, String>;

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The configuration file, with its line.
    File(usize),
    /// `--set` on the command line.
    CommandLine,
    /// Set at run time for all brokers.
    DynamicDefault,
    /// Set at run time for this broker.
    Dynamic,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    /// The name that was written.
    written: String,
    value: String,
    source: Source,
}

/// What a broker does with a topic's messages (MetaQ's acceptPublish and acceptSubscribe).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepts {
    /// Takes them.
    pub publish: bool,
    /// Gives them out.
    pub subscribe: bool,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file's syntax or content is wrong; the text names file, line and key, a line for each mistake.
    #[error("{0}")]
    Invalid(String),
}

/// A setting, or a key of a section, that has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithoutEffect {
    /// The name as written.
    pub name: String,
    /// Where it is set.
    pub source: Source,
    /// What the broker does instead.
    pub instead: &'static str,
}

/// A broker's configuration: what was set, over the defaults of the tables.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Read again by `reload`.
    file: Option<PathBuf>,
    command_line: Vec<String>,
    settings: BTreeMap<&'static str, Setting>,
    dynamic_defaults: BTreeMap<&'static str, Setting>,
    dynamic: BTreeMap<&'static str, Setting>,
    topics: Vec<TopicSection>,
    groups: Vec<GroupSection>,
    listeners: Vec<ListenerSection>,
    listener_settings: listener::ListenerSettings,
    others_without_effect: Vec<WithoutEffect>,
    topic_defaults: TopicOverrides,
    /// No topic is withheld; spares the hot path the look-ups.
    accepts_all: bool,
    fetch_bytes_max: usize,
}

impl Config {
    fn setting(&self, name: &str) -> Option<&Setting> {
        let levels = [&self.dynamic, &self.dynamic_defaults, &self.settings];
        levels.into_iter().find_map(|level| level.get(name))
    }

    /// The text in force for a key of the broker's table (Kafka's name).
    pub fn text(&self, name: &str) -> &str {
        match self.setting(name) {
            Some(setting) => &setting.value,
            None => broker_key(name).map_or("", |key| key.default),
        }
    }

    /// The number in force.
    pub fn number(&self, name: &str) -> i64 {
        // Values were checked when they were added.
        Value::integer(self.text(name)).unwrap_or(0)
    }

    /// `queued.max.request.bytes`; where it is not set, it lets the largest request through.
    pub fn request_memory_bytes(&self) -> i64 {
        let queued = self.number("queued.max.request.bytes");
        match self.source("queued.max.request.bytes") {
            Some(_) => queued,
            None => queued.max(self.number("socket.request.max.bytes")),
        }
    }

    /// The number in force of a key that may have a fraction.
    pub fn fraction(&self, name: &str) -> f64 {
        self.text(name).trim().parse().unwrap_or(0.0)
    }

    /// The switch in force.
    pub fn flag(&self, name: &str) -> bool {
        Value::boolean(self.text(name)).unwrap_or(false)
    }

    /// Who decides what clients may do, where anybody does.
    pub fn authorizer(&self) -> Option<Authorizer> {
        // A configuration whose super users cannot be read is refused when it is loaded.
        self.read_authorizer()
            .unwrap_or_else(|_| Some(Authorizer::default()))
    }

    fn read_authorizer(&self) -> Result<Option<Authorizer>, SuperUserError> {
        let allow_without_acls = self.flag("allow.everyone.if.no.acl.found");
        let mut authorizer = Authorizer::new(self.text("super.users"), allow_without_acls)?;
        for (user, _) in LOCAL_USERS {
            match self.text(user) {
                "" => {}
                user => authorizer = authorizer.with_super_user(user),
            }
        }
        let is_on = !self.text("authorizer.class.name").is_empty();
        Ok(is_on.then_some(authorizer))
    }

    /// Where a setting came from; `None` for a default.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.setting(name).map(|setting| &setting.source)
    }

    /// Every level that sets a key, the one in force first: its value and where it came from.
    pub fn levels(&self, name: &str) -> impl Iterator<Item = (&str, &Source)> {
        let levels = [&self.dynamic, &self.dynamic_defaults, &self.settings];
        let found = levels.into_iter().filter_map(|level| level.get(name));
        found
            .map(|setting| (setting.value.as_str(), &setting.source))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// The file that it was read from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The data directories.
    pub fn data_paths(&self) -> Vec<PathBuf> {
        self.text("log.dirs")
            .split(',')
            .map(str::trim)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .collect()
    }

    /// The broker's settings for all topics.
    pub fn topic_defaults(&self) -> &TopicOverrides {
        &self.topic_defaults
    }

    /// What the file's sections say of a topic, a full name over a pattern.
    pub fn section_settings(&self, topic: &str) -> TopicOverrides {
        let mut merged = TopicOverrides::default();
        let matching = |exact: bool| {
            self.topics.iter().filter(move |section| {
                matches(&section.pattern, topic) && (section.pattern == topic) == exact
            })
        };
        for section in matching(false).chain(matching(true)) {
            merged.0.extend(section.overrides.0.clone());
        }
        merged
    }

    /// What a topic gets from the broker: the file's sections over the broker's settings.
    pub fn defaults_for_topic(&self, topic: &str) -> TopicOverrides {
        let mut merged = self.topic_defaults.clone();
        if !self.topics.is_empty() {
            merged.0.extend(self.section_settings(topic).0);
        }
        merged
    }

    /// What the file's sections say of a group, a full name over a pattern.
    pub fn defaults_for_group(&self, group: &str) -> Overrides {
        let mut merged = Overrides::new();
        for exact in [false, true] {
            let matching = self.groups.iter().filter(|section| {
                matches(&section.pattern, group) && (section.pattern == group) == exact
            });
            matching.for_each(|section| merged.extend(section.overrides.clone()));
        }
        merged
    }

    /// The sections that are about a topic, a full name before patterns.
    fn sections_of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a TopicSection> {
        let exact = move |section: &&TopicSection| section.pattern == topic;
        let pattern = move |section: &&TopicSection| matches(&section.pattern, topic);
        let sections = self.topics.iter();
        sections
            .clone()
            .filter(exact)
            .chain(sections.filter(pattern))
    }

    /// Partitions per broker for a topic that is created without a number.
    pub fn partitions_for_topic(&self, topic: &str) -> i32 {
        self.sections_of(topic)
            .find_map(|section| section.partitions)
            .unwrap_or_else(|| self.number("num.partitions") as i32)
    }

    /// What this broker does with a topic's messages.
    pub fn accepts(&self, topic: &str) -> Accepts {
        if self.accepts_all {
            return Accepts {
                publish: true,
                subscribe: true,
            };
        }
        let publish = self
            .sections_of(topic)
            .find_map(|section| section.accept_publish);
        let subscribe = self
            .sections_of(topic)
            .find_map(|section| section.accept_subscribe);
        Accepts {
            publish: publish.unwrap_or_else(|| self.flag("accept.publish")),
            subscribe: subscribe.unwrap_or_else(|| self.flag("accept.subscribe")),
        }
    }

    /// The directory that segments are archived to; `None` where archiving is not set up.
    pub fn archive_dir(&self) -> Option<PathBuf> {
        Some(PathBuf::from(self.text("log.archive.dir"))).filter(|dir| !dir.as_os_str().is_empty())
    }

    /// Settings that are accepted without effect.
    pub fn without_effect(&self) -> Vec<WithoutEffect> {
        let of_settings = self.settings.iter().filter_map(|(name, setting)| {
            let key = broker_key(name).filter(BrokerKey::is_without_effect)?;
            Some(WithoutEffect {
                name: setting.written.clone(),
                source: setting.source.clone(),
                instead: key.doc,
            })
        });
        of_settings
            .chain(self.others_without_effect.iter().cloned())
            .collect()
    }

    /// Topics that the file names in full; they are created at start.
    pub fn named_topics(&self) -> impl Iterator<Item = &str> {
        self.topics
            .iter()
            .map(|section| section.pattern.as_str())
            .filter(|pattern| !pattern.contains('*'))
    }
}

/// Whether `*` wildcards of a pattern can be filled to give the name.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            after.is_empty()
                || (0..=rest.len())
                    .filter(|at| rest.is_char_boundary(*at))
                    .any(|at| matches(after, &rest[at..]))
        }),
    }
}
