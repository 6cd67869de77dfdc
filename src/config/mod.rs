//! Configuration: `server.ini`, `--set` overrides, what is changed at run time, topic configurations. One table each
//! for brokers, topics, groups and client metrics.
//!
//! A [`Config`] is what is in force at one moment; [`LiveConfig`] is how the broker reads it, and what `reload` and
//! changes at run time replace.

mod broker;
mod client_metrics;
mod group;
mod ini;
mod kafka;
mod live;
mod sections;
mod topic;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use broker::{BrokerKey, broker_key, broker_keys, canonical, nearest};
pub use client_metrics::{
    CLIENT_METRICS_KEYS, ClientMetricsError, ClientMetricsKey, ClientMetricsSubscription,
    MatchParameter,
};
pub use group::{GROUP_KEYS, GroupKey, check_group};
pub use live::{Changed, LiveConfig, Reload};
pub use sections::{GroupSection, TopicSection};
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

/// A mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    /// Of the file, where it is in one line.
    line: Option<usize>,
    what: String,
}

impl Problem {
    fn at(line: usize, what: String) -> Self {
        let line = Some(line);
        Self { line, what }
    }

    fn general(what: String) -> Self {
        Self { line: None, what }
    }

    /// For people, after the name of the file.
    fn told_of(&self, file: Option<&Path>) -> String {
        let file = file.map_or(String::new(), |path| format!("{}: ", path.display()));
        match self.line {
            Some(line) => format!("{file}line {line}: {}", self.what),
            None => format!("{file}{}", self.what),
        }
    }
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
    others_without_effect: Vec<WithoutEffect>,
    topic_defaults: TopicOverrides,
    /// No topic is withheld; spares the hot path the look-ups.
    accepts_all: bool,
    fetch_bytes_max: usize,
}

impl Config {
    /// Reads a file (if any) and applies `KEY=VALUE` overrides.
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Self, ConfigError> {
        let (config, problems) = Self::examine(file, overrides)?;
        match problems.is_empty() {
            true => Ok(config),
            false => Err(ConfigError::Invalid(problems.join("\n"))),
        }
    }

    /// As [`Config::load`], with everything that is wrong: lines for people. The configuration is what is left without it.
    pub fn examine(
        file: Option<&Path>,
        overrides: &[String],
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let mut config = Self {
            file: file.map(Path::to_owned),
            command_line: overrides.to_vec(),
            ..Self::default()
        };
        let mut told = Vec::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.to_path_buf(),
                source,
            })?;
            let problems = config.read(&text);
            told.extend(problems.iter().map(|problem| problem.told_of(file)));
        }
        let mut from_command_line = BTreeMap::new();
        for entry in overrides {
            let mut tell = |what: String| told.push(format!("--set {entry}: {what}"));
            let Some((key, value)) = entry.split_once('=') else {
                tell("expected KEY=VALUE".to_owned());
                continue;
            };
            let source = Source::CommandLine;
            match add(
                &mut from_command_line,
                key.trim(),
                value.trim(),
                source.clone(),
            ) {
                Ok(()) => config
                    .others_without_effect
                    .extend(foreign(key.trim(), source)),
                Err(what) => tell(what),
            }
        }
        config.settings.extend(from_command_line);
        let problems = config.finish();
        told.extend(problems.iter().map(|problem| problem.told_of(file)));
        Ok((config, told))
    }

    fn read(&mut self, text: &str) -> Vec<Problem> {
        let (sections, wrong) = ini::parse(text);
        let wrong = wrong
            .into_iter()
            .map(|error| Problem::at(error.line, error.what));
        let mut problems: Vec<Problem> = wrong.collect();
        for section in sections {
            match section.name.split_once('=') {
                None if section.name == "system" || section.name == "zookeeper" => {
                    self.read_settings(&section, &mut problems);
                }
                Some(("topic", pattern)) => {
                    let read = sections::read_topic(pattern.trim(), &section, &mut problems);
                    self.others_without_effect.extend(read.1);
                    self.topics.push(read.0);
                }
                Some(("group", pattern)) => {
                    let read = sections::read_group(pattern.trim(), &section, &mut problems);
                    self.groups.push(read);
                }
                _ => problems.push(Problem::at(
                    section.line,
                    sections::unknown_section(&section.name),
                )),
            }
        }
        problems.sort_by_key(|problem| problem.line);
        problems
    }

    fn read_settings(&mut self, section: &ini::Section, problems: &mut Vec<Problem>) {
        for entry in &section.entries {
            if section.name == "zookeeper" && !is_zookeeper_key(&entry.key) {
                let what = format!("{} does not belong to [zookeeper]", entry.key);
                problems.push(Problem::at(entry.line, what));
                continue;
            }
            let source = Source::File(entry.line);
            match add(&mut self.settings, &entry.key, &entry.value, source.clone()) {
                Ok(()) => self
                    .others_without_effect
                    .extend(foreign(&entry.key, source)),
                Err(what) => problems.push(Problem::at(entry.line, what)),
            }
        }
    }

    /// Gathers what is read often, and checks what spans several keys.
    fn finish(&mut self) -> Vec<Problem> {
        self.topic_defaults.0.clear();
        for key in TOPIC_KEYS {
            if let Some(setting) = key.broker_name.and_then(|name| self.setting(name)) {
                let value = setting.value.clone();
                self.topic_defaults.0.insert(key.name.to_owned(), value);
            }
        }
        let withheld = |section: &TopicSection| {
            section.accept_publish == Some(false) || section.accept_subscribe == Some(false)
        };
        self.accepts_all = self.flag("accept.publish")
            && self.flag("accept.subscribe")
            && !self.topics.iter().any(withheld);
        self.fetch_bytes_max = self.number("fetch.max.bytes") as usize;
        let mut problems = Vec::new();
        let (frame, queued) = (
            self.number("socket.request.max.bytes"),
            self.number("queued.max.request.bytes"),
        );
        if queued >= 0 && queued < frame {
            problems.push(Problem::general(format!(
                "queued.max.request.bytes={queued} is below socket.request.max.bytes={frame}"
            )));
        }
        let (low, high) = (
            self.number("group.min.session.timeout.ms"),
            self.number("group.max.session.timeout.ms"),
        );
        if low > high {
            problems.push(Problem::general(format!(
                "group.min.session.timeout.ms={low} is above group.max.session.timeout.ms={high}"
            )));
        }
        problems
    }

    /// The same with other settings made at run time. What is no key, or not changed at run time, or no valid value any
    /// more, is left out and told.
    pub fn with_dynamic(&self, defaults: &Overrides, own: &Overrides) -> (Self, Vec<String>) {
        let mut told = Vec::new();
        let mut read = |overrides: &Overrides, source: Source| {
            let mut settings = BTreeMap::new();
            for (name, value) in overrides {
                match broker_key(name).filter(BrokerKey::is_dynamic) {
                    None => told.push(format!("{name} cannot be set at run time")),
                    Some(_) => {
                        if let Err(what) = add(&mut settings, name, value, source.clone()) {
                            told.push(what);
                        }
                    }
                }
            }
            settings
        };
        let mut changed = Self {
            dynamic_defaults: read(defaults, Source::DynamicDefault),
            dynamic: read(own, Source::Dynamic),
            ..self.clone()
        };
        let problems = changed.finish();
        told.extend(problems.iter().map(|problem| problem.told_of(None)));
        (changed, told)
    }

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

    /// The switch in force.
    pub fn flag(&self, name: &str) -> bool {
        Value::boolean(self.text(name)).unwrap_or(false)
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

fn is_zookeeper_key(key: &str) -> bool {
    key.starts_with("zk.") || key.starts_with("zookeeper.")
}

/// Adds one setting under its table name; one that MetaQ has for two things adds both.
fn add(
    settings: &mut BTreeMap<&'static str, Setting>,
    written: &str,
    value: &str,
    source: Source,
) -> Result<(), String> {
    let mut canonical = broker::canonical(written, value)?;
    for (name, canonical) in &mut canonical {
        if let Some(key) = broker_key(name) {
            key.kind
                .check(canonical)
                .map_err(|error| format!("{written}={value}: {error}"))?;
            *canonical = key.kind.plain(std::mem::take(canonical));
        }
        if let Some(other) = settings.get(name).filter(|other| other.value != *canonical) {
            return Err(format!(
                "{written}={value} and {}={} set the same thing to different values",
                other.written, other.value
            ));
        }
    }
    for (name, canonical) in canonical {
        let setting = Setting {
            written: written.to_owned(),
            value: canonical,
            source: source.clone(),
        };
        settings.insert(name, setting);
    }
    Ok(())
}

/// A name of Kafka's that means nothing here.
fn foreign(written: &str, source: Source) -> Option<WithoutEffect> {
    let instead = broker::foreign_without_effect(written)?;
    let name = written.to_owned();
    Some(WithoutEffect {
        name,
        source,
        instead,
    })
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
