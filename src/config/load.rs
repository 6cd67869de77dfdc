//! Reads a configuration: the file, `KEY=VALUE` overrides over it, and over both what was set at run time.

use std::collections::BTreeMap;
use std::path::Path;

use super::broker::{self, broker_key};
use super::problem::Problem;
use super::topic::TOPIC_KEYS;
use super::{
    Config, ConfigError, GroupOverrides, Overrides, Setting, Source, TopicSection, WithoutEffect,
    group, ini, listener, sections,
};

/// Sections of the broker's settings.
const SETTINGS_SECTIONS: &[&str] = &["system", "security", "zookeeper"];
/// What each cleaner needs for its keys at least, bytes.
const CLEANER_MEMORY_MIN: i64 = 1 << 20;

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
        let (mut problems, mut groups) = (Vec::new(), Vec::new());
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.to_path_buf(),
                source,
            })?;
            (problems, groups) = config.read(&text);
        }
        let mut refused = Vec::new();
        let mut from_command_line = BTreeMap::new();
        for entry in overrides {
            let mut refuse = |what: String| refused.push(format!("--set {entry}: {what}"));
            let Some((key, value)) = entry.split_once('=') else {
                refuse("expected KEY=VALUE".to_owned());
                continue;
            };
            let source = Source::CommandLine;
            if let Some(named) = listener::parse_name(key.trim()) {
                let settings = &mut config.listener_settings;
                let added = named.and_then(|named| {
                    listener::add(settings, named, (key.trim(), value.trim()), source)
                });
                added.unwrap_or_else(refuse);
                continue;
            }
            match add(
                &mut from_command_line,
                key.trim(),
                value.trim(),
                source.clone(),
            ) {
                Ok(()) => config
                    .others_without_effect
                    .extend(foreign(key.trim(), source)),
                Err(what) => refuse(what),
            }
        }
        config.settings.extend(from_command_line);
        // The broker's settings, wherever they are, say which values groups may have.
        for (pattern, section) in &groups {
            let read = sections::read_group(&config, pattern, section, &mut problems);
            config.groups.push(read);
        }
        for ((_, section), read) in groups.iter().zip(&config.groups) {
            let in_force = GroupOverrides::of(&config, &read.pattern, None);
            if let Err(what) = group::check_sessions(&in_force, &read.overrides) {
                problems.push(Problem::at(section.line, what));
            }
        }
        problems.sort_by_key(|problem| problem.line);
        let describe = |problem: &Problem| problem.describe(file);
        let mut mistakes: Vec<String> = problems.iter().map(describe).collect();
        mistakes.extend(refused);
        mistakes.extend(config.finish().iter().map(describe));
        Ok((config, mistakes))
    }

    /// Reads a file but for its sections of groups, which are given back with their names.
    fn read(&mut self, text: &str) -> (Vec<Problem>, Vec<(String, ini::Section)>) {
        let (sections, wrong) = ini::parse(text);
        let wrong = wrong
            .into_iter()
            .map(|error| Problem::at(error.line, error.what));
        let mut problems: Vec<Problem> = wrong.collect();
        let mut groups = Vec::new();
        for section in sections {
            match section.name.split_once('=') {
                None if SETTINGS_SECTIONS.contains(&section.name.as_str()) => {
                    self.read_settings(&section, &mut problems);
                }
                Some(("topic", pattern)) => {
                    let read = sections::read_topic(pattern.trim(), &section, &mut problems);
                    self.others_without_effect.extend(read.1);
                    self.topics.push(read.0);
                }
                Some(("listener", name)) => {
                    let settings = &mut self.listener_settings;
                    let read =
                        listener::read_section(name.trim(), &section, settings, &mut problems);
                    self.listeners.push(read);
                }
                Some(("group", pattern)) => {
                    groups.push((pattern.trim().to_owned(), section));
                }
                _ => problems.push(Problem::at(
                    section.line,
                    sections::unknown_section(&section.name),
                )),
            }
        }
        (problems, groups)
    }

    fn read_settings(&mut self, section: &ini::Section, problems: &mut Vec<Problem>) {
        for entry in &section.entries {
            if section.name == "zookeeper" && !is_zookeeper_key(&entry.key) {
                let what = format!("{} does not belong to [zookeeper]", entry.key);
                problems.push(Problem::at(entry.line, what));
                continue;
            }
            let source = Source::File(entry.line);
            if let Some(named) = listener::parse_name(&entry.key) {
                let settings = &mut self.listener_settings;
                let pair = (entry.key.as_str(), entry.value.as_str());
                if let Err(what) =
                    named.and_then(|named| listener::add(settings, named, pair, source))
                {
                    problems.push(Problem::at(entry.line, what));
                }
                continue;
            }
            match add(&mut self.settings, &entry.key, &entry.value, source.clone()) {
                Ok(()) => self
                    .others_without_effect
                    .extend(foreign(&entry.key, source)),
                Err(what) => problems.push(Problem::at(entry.line, what)),
            }
        }
    }

    /// Gathers what is read often, and checks what spans several keys.
    pub(super) fn finish(&mut self) -> Vec<Problem> {
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
            self.request_memory_bytes(),
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
        if let Err(error) = self.read_authorizer() {
            problems.push(Problem::general(format!("super.users: {error}")));
        }
        // As Kafka's KafkaConfig: what the keys of a pass fit into.
        let threads = self.number("log.cleaner.threads");
        let memory = self.number("log.cleaner.dedupe.buffer.size");
        if threads > 0 && memory / threads < CLEANER_MEMORY_MIN {
            problems.push(Problem::general(format!(
                "log.cleaner.dedupe.buffer.size={memory} is less than {CLEANER_MEMORY_MIN} for each of log.cleaner.threads={threads}"
            )));
        }
        problems
    }

    /// The same with other settings made at run time. What is no key, or not changed at run time, or no valid value any
    /// more, is left out and reported.
    pub fn with_dynamic(&self, defaults: &Overrides, own: &Overrides) -> (Self, Vec<String>) {
        let mut mistakes = Vec::new();
        let mut read = |overrides: &Overrides, source: Source| {
            let mut settings = BTreeMap::new();
            for (name, value) in overrides {
                match broker_key(name) {
                    // Kept for whoever reads it; nothing here does.
                    None => {}
                    Some(key) if !key.is_dynamic() => {
                        mistakes.push(format!("{name} cannot be set at run time"));
                    }
                    Some(_) => {
                        if let Err(what) = add(&mut settings, name, value, source.clone()) {
                            mistakes.push(what);
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
        mistakes.extend(problems.iter().map(|problem| problem.describe(None)));
        (changed, mistakes)
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
                .map_err(|error| key.wrong((written, value), &error))?;
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
    fn every_cleaner_has_a_mebibyte_for_its_keys() {
        let of = |memory: &str| {
            let memory = format!("log.cleaner.dedupe.buffer.size={memory}");
            load("[system]\nlog.cleaner.threads=2\n", &[&memory])
        };
        assert!(of("2097152").is_ok());
        let refused = of("2097151").unwrap_err();
        assert!(refused.contains("log.cleaner.threads=2"), "{refused}");
        let none = ["log.cleaner.threads=0", "log.cleaner.dedupe.buffer.size=0"];
        assert!(load("", &none).is_ok());
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
    fn requests_may_hold_as_much_as_the_largest_one_where_nothing_else_is_set() {
        let large = "socket.request.max.bytes=209715200";
        let held = |set: &[&str]| load("", set).unwrap().request_memory_bytes();
        assert_eq!(held(&[]), 104_857_600);
        assert_eq!(held(&[large]), 209_715_200);
        assert_eq!(held(&["queued.max.request.bytes=-1", large]), -1);
        let too_little = load("", &["queued.max.request.bytes=104857600", large]);
        assert!(too_little.unwrap_err().contains("is below"));
    }

    #[test]
    fn the_shipped_file_is_valid() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/server.ini");
        Config::load(Some(&path), &[]).unwrap();
    }
}
