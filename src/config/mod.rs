//! Configuration: `server.ini`, `--set` overrides, topic configurations. One table each for brokers and topics.

mod broker;
mod ini;
mod topic;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use broker::{BrokerKey, broker_key, broker_keys};
pub use topic::{TOPIC_KEYS, TopicConfig, TopicConfigError, TopicKey, TopicOverrides, topic_key};
pub use value::{Kind, Value, ValueError};

/// What MetaQ had for topics and nothing follows from here: see the broker's keys of the same names. A topic's
/// partitions go to the data directory that has the fewest.
const TOPIC_KEYS_WITHOUT_EFFECT: &[&str] = &["stat", "deleteWhen", "dataPath"];

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The configuration file, with its line.
    File(usize),
    /// `--set` on the command line.
    CommandLine,
}

#[derive(Debug, Clone)]
struct Setting {
    /// The name that was written.
    written: String,
    value: String,
    source: Source,
}

/// A `[topic=NAME]` section; `*` in the name matches anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSection {
    /// Name or pattern.
    pub pattern: String,
    /// Partitions per broker, when given.
    pub partitions: Option<i32>,
    /// Whether messages are taken, when given.
    pub accept_publish: Option<bool>,
    /// Whether messages are given out, when given.
    pub accept_subscribe: Option<bool>,
    /// Topic configurations.
    pub overrides: TopicOverrides,
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
    /// The file's syntax or content is wrong; the text names file, line and key.
    #[error("{0}")]
    Invalid(String),
}

/// A broker's configuration: what was set, over the defaults of the tables.
#[derive(Debug, Clone, Default)]
pub struct Config {
    settings: BTreeMap<&'static str, Setting>,
    topics: Vec<TopicSection>,
    topic_defaults: TopicOverrides,
    /// No topic is withheld; spares the hot path the look-ups.
    accepts_all: bool,
}

impl Config {
    /// Reads a file (if any) and applies `KEY=VALUE` overrides.
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.to_path_buf(),
                source,
            })?;
            config
                .read(&text)
                .map_err(|what| ConfigError::Invalid(format!("{}: {what}", path.display())))?;
        }
        let mut from_command_line = BTreeMap::new();
        for entry in overrides {
            let invalid = |what: String| ConfigError::Invalid(format!("--set {entry}: {what}"));
            let (key, value) = entry
                .split_once('=')
                .ok_or_else(|| invalid("expected KEY=VALUE".to_owned()))?;
            add(
                &mut from_command_line,
                key.trim(),
                value.trim(),
                Source::CommandLine,
            )
            .map_err(invalid)?;
        }
        config.settings.extend(from_command_line);
        config.finish().map_err(ConfigError::Invalid)?;
        Ok(config)
    }

    fn read(&mut self, text: &str) -> Result<(), String> {
        for section in ini::parse(text).map_err(|error| error.to_string())? {
            if section.name == "system" || section.name == "zookeeper" {
                for entry in section.entries {
                    if section.name == "zookeeper" && !is_zookeeper_key(&entry.key) {
                        return Err(format!(
                            "line {}: {} does not belong to [zookeeper]",
                            entry.line, entry.key
                        ));
                    }
                    add(
                        &mut self.settings,
                        &entry.key,
                        &entry.value,
                        Source::File(entry.line),
                    )
                    .map_err(|what| format!("line {}: {what}", entry.line))?;
                }
            } else if let Some(pattern) = section.name.strip_prefix("topic=") {
                self.topics.push(read_topic(pattern.trim(), &section)?);
            } else {
                return Err(format!(
                    "line {}: unknown section [{}]; there are [system], [zookeeper] and [topic=NAME]",
                    section.line, section.name
                ));
            }
        }
        Ok(())
    }

    /// Gathers the defaults for topics and checks what spans several keys.
    fn finish(&mut self) -> Result<(), String> {
        for key in TOPIC_KEYS {
            if let Some(setting) = key.broker_name.and_then(|name| self.settings.get(name)) {
                self.topic_defaults
                    .0
                    .insert(key.name.to_owned(), setting.value.clone());
            }
        }
        let withheld = |section: &TopicSection| {
            section.accept_publish == Some(false) || section.accept_subscribe == Some(false)
        };
        self.accepts_all = self.flag("accept.publish")
            && self.flag("accept.subscribe")
            && !self.topics.iter().any(withheld);
        let (frame, queued) = (
            self.number("socket.request.max.bytes"),
            self.number("queued.max.request.bytes"),
        );
        if queued >= 0 && queued < frame {
            return Err(format!(
                "queued.max.request.bytes={queued} is below socket.request.max.bytes={frame}"
            ));
        }
        let (low, high) = (
            self.number("group.min.session.timeout.ms"),
            self.number("group.max.session.timeout.ms"),
        );
        if low > high {
            return Err(format!(
                "group.min.session.timeout.ms={low} is above group.max.session.timeout.ms={high}"
            ));
        }
        Ok(())
    }

    /// The text in force for a key of the broker's table (Kafka's name).
    pub fn text(&self, name: &str) -> &str {
        match self.settings.get(name) {
            Some(setting) => &setting.value,
            None => broker_key(name).map_or("", |key| key.default),
        }
    }

    /// The number in force.
    pub fn number(&self, name: &str) -> i64 {
        // Values were checked when they were added.
        Value::integer(self.text(name)).unwrap_or(0)
    }

    /// The switch in force.
    pub fn flag(&self, name: &str) -> bool {
        Value::boolean(self.text(name)).unwrap_or(false)
    }

    /// Where a setting came from; `None` for a default.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.settings.get(name).map(|setting| &setting.source)
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

    /// What a topic gets from the file: its sections over the broker's settings, a full name over a pattern.
    pub fn defaults_for_topic(&self, topic: &str) -> TopicOverrides {
        let mut merged = self.topic_defaults.clone();
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

    /// Names, as written, of settings that are accepted without effect, with the reason.
    pub fn without_effect(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.settings.iter().filter_map(|(name, setting)| {
            let key = broker_key(name).filter(|key| key.is_without_effect())?;
            Some((setting.written.as_str(), key.doc))
        })
    }

    /// Topics that the file names in full; they are created at start.
    pub fn named_topics(&self) -> impl Iterator<Item = &str> {
        self.topics
            .iter()
            .map(|section| section.pattern.as_str())
            .filter(|pattern| !pattern.contains('*'))
    }
}

fn is_zookeeper_key(key: &str) -> bool {
    key.starts_with("zk.") || key.starts_with("zookeeper.")
}

/// Adds one setting under its table name.
fn add(
    settings: &mut BTreeMap<&'static str, Setting>,
    written: &str,
    value: &str,
    source: Source,
) -> Result<(), String> {
    let Some((name, canonical)) = broker::canonical(written, value) else {
        if broker_key(written).is_some()
            || matches!(
                written,
                "deletePolicy" | "log.retention.hours" | "log.retention.minutes" | "log.roll.hours"
            )
        {
            return Err(format!("{written}={value} is not valid"));
        }
        let known: Vec<BrokerKey> = broker_keys().collect();
        let names = known
            .iter()
            .flat_map(|key| [Some(key.name), key.metaq_name])
            .flatten();
        let hint = broker::nearest(written, names)
            .map_or(String::new(), |near| format!("; did you mean {near}?"));
        return Err(format!("unknown key {written}{hint}"));
    };
    if let Some(key) = broker_key(name) {
        key.kind
            .check(&canonical)
            .map_err(|error| format!("{written}={value}: {error}"))?;
    }
    if let Some(other) = settings.get(name).filter(|other| other.value != canonical) {
        return Err(format!(
            "{written}={value} and {}={} set the same thing to different values",
            other.written, other.value
        ));
    }
    settings.insert(
        name,
        Setting {
            written: written.to_owned(),
            value: canonical,
            source,
        },
    );
    Ok(())
}

fn read_topic(pattern: &str, section: &ini::Section) -> Result<TopicSection, String> {
    if pattern.is_empty() {
        return Err(format!("line {}: [topic=] needs a name", section.line));
    }
    let mut topic = TopicSection {
        pattern: pattern.to_owned(),
        partitions: None,
        accept_publish: None,
        accept_subscribe: None,
        overrides: TopicOverrides::default(),
    };
    let mut written: BTreeMap<&str, &str> = BTreeMap::new();
    for entry in &section.entries {
        let fail = |what: String| Err(format!("line {}: {what}", entry.line));
        if entry.key == "numPartitions" {
            match Value::integer(&entry.value)
                .ok()
                .and_then(|n| i32::try_from(n).ok())
                .filter(|n| *n > 0)
            {
                Some(partitions) => topic.partitions = Some(partitions),
                None => {
                    return fail(format!(
                        "numPartitions={} is not a positive integer",
                        entry.value
                    ));
                }
            }
            continue;
        }
        if let "acceptPublish" | "acceptSubscribe" = entry.key.as_str() {
            let Ok(accepts) = Value::boolean(&entry.value) else {
                return fail(format!(
                    "{}={} is not true or false",
                    entry.key, entry.value
                ));
            };
            match entry.key.as_str() {
                "acceptPublish" => topic.accept_publish = Some(accepts),
                _ => topic.accept_subscribe = Some(accepts),
            }
            continue;
        }
        if TOPIC_KEYS_WITHOUT_EFFECT.contains(&entry.key.as_str()) {
            continue;
        }
        let Some((name, value)) = broker::canonical_for_topic(&entry.key, &entry.value) else {
            let metaq = [
                "numPartitions",
                "acceptPublish",
                "acceptSubscribe",
                "unflushThreshold",
                "unflushInterval",
                "maxSegmentSize",
                "deletePolicy",
            ];
            let names = TOPIC_KEYS.iter().map(|key| key.name).chain(metaq);
            let hint = broker::nearest(&entry.key, names)
                .map_or(String::new(), |n| format!("; did you mean {n}?"));
            return fail(format!(
                "unknown or invalid key {} in [topic={pattern}]{hint}",
                entry.key
            ));
        };
        if let Some(other) = topic.overrides.0.get(name).filter(|other| **other != value) {
            let earlier = written.get(name).copied().unwrap_or(name);
            return fail(format!(
                "{}={} and {earlier}={other} set the same thing to different values",
                entry.key, entry.value
            ));
        }
        written.insert(name, &entry.key);
        topic.overrides.0.insert(name.to_owned(), value);
    }
    topic
        .overrides
        .validate()
        .map_err(|error| format!("[topic={pattern}]: {error}"))?;
    Ok(topic)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, overrides: &[&str]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.ini");
        std::fs::write(&path, text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|entry| (*entry).to_owned()).collect();
        Config::load(Some(&path), &overrides).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_defaults() {
        let config = load(
            "[system]\nserverPort=9999\nbrokerId=3\n",
            &["serverPort=1234"],
        )
        .unwrap();
        assert_eq!(
            (config.number("port"), config.number("broker.id")),
            (1234, 3)
        );
        assert_eq!(config.number("num.partitions"), 1);
        assert_eq!(config.source("port"), Some(&Source::CommandLine));
        assert_eq!(config.source("broker.id"), Some(&Source::File(3)));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_its_neighbour() {
        let error = load("[system]\n\nseverPort=1\n", &[]).unwrap_err();
        assert!(
            error.contains("line 3")
                && error.contains("severPort")
                && error.contains("serverPort?"),
            "{error}"
        );
        let error = load("[topic=a]\nretention.mss=1\n", &[]).unwrap_err();
        assert!(
            error.contains("line 2") && error.contains("retention.ms?"),
            "{error}"
        );
        assert!(
            load("[sistem]\n", &[])
                .unwrap_err()
                .contains("unknown section")
        );
    }

    #[test]
    fn two_names_for_one_thing_may_not_disagree() {
        let error = load("[system]\nserverPort=1\nport=2\n", &[]).unwrap_err();
        assert!(
            error.contains("serverPort=1") && error.contains("port=2"),
            "{error}"
        );
        assert!(load("[system]\nserverPort=1\nport=1\n", &[]).is_ok());
        let error = load("[system]\ndeletePolicy=delete,1\nlog.retention.ms=5\n", &[]).unwrap_err();
        assert!(
            error.contains("deletePolicy") || error.contains("3600000"),
            "{error}"
        );
    }

    #[test]
    fn topic_sections_apply_from_pattern_to_name() {
        let text = "[system]\nunflushThreshold=7\n[topic=log*]\nretention.ms=1\nnumPartitions=4\n[topic=logs]\nretention.ms=2\n";
        let config = load(text, &[]).unwrap();
        let of = |topic: &str| config.defaults_for_topic(topic).0;
        assert_eq!(
            of("other").get("flush.messages").map(String::as_str),
            Some("7")
        );
        assert_eq!(
            of("log9").get("retention.ms").map(String::as_str),
            Some("1")
        );
        assert_eq!(
            of("logs").get("retention.ms").map(String::as_str),
            Some("2")
        );
        assert_eq!(
            (
                config.partitions_for_topic("logs"),
                config.partitions_for_topic("x")
            ),
            (4, 1)
        );
        assert_eq!(config.named_topics().collect::<Vec<_>>(), ["logs"]);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert!(
            load("[system]\nserverPort=70000\n", &[])
                .unwrap_err()
                .contains("between 0 and 65535")
        );
        assert!(load("", &["serverPort"]).unwrap_err().contains("KEY=VALUE"));
        assert!(
            load("", &["queued.max.request.bytes=5"])
                .unwrap_err()
                .contains("socket.request.max.bytes")
        );
    }

    #[test]
    fn the_shipped_file_is_valid() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/server.ini");
        Config::load(Some(&path), &[]).unwrap();
    }
}
