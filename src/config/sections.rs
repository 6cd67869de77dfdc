//! The sections of server.ini that are about topics and groups.
//!
//! Tests: config/load.rs, tests/config.rs.

use std::collections::BTreeMap;
use std::fmt;

use super::problem::Problem;
use super::value::Value;
use super::{
    Config, Overrides, Source, TOPIC_KEYS, TopicOverrides, WithoutEffect, broker, group, ini,
    nearest, topic_key,
};

/// What MetaQ had for topics and nothing follows from here, with what the broker does instead.
const TOPIC_KEYS_WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("stat", "figures are always gathered"),
    (
        "dataPath",
        "a new partition goes to the data directory that has the fewest; metaq partition move moves it",
    ),
];
/// MetaQ's names that a topic's section may have.
const METAQ_TOPIC_KEYS: &[&str] = &[
    "numPartitions",
    "acceptPublish",
    "acceptSubscribe",
    "unflushThreshold",
    "unflushInterval",
    "maxSegmentSize",
    "deletePolicy",
    "deleteWhen",
    "stat",
    "dataPath",
];

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

/// A `[group=NAME]` section; `*` in the name matches anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSection {
    /// Name or pattern.
    pub pattern: String,
    /// Configurations of groups.
    pub overrides: Overrides,
}

impl fmt::Display for TopicSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<String> = Vec::new();
        all.extend(self.partitions.map(|n| format!("numPartitions={n}")));
        all.extend(self.accept_publish.map(|on| format!("acceptPublish={on}")));
        all.extend(
            self.accept_subscribe
                .map(|on| format!("acceptSubscribe={on}")),
        );
        all.extend(entries(&self.overrides.0));
        f.write_str(&all.join(", "))
    }
}

impl fmt::Display for GroupSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&entries(&self.overrides).collect::<Vec<_>>().join(", "))
    }
}

fn entries(overrides: &Overrides) -> impl Iterator<Item = String> {
    overrides
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
}

/// What is wrong with a section's name.
pub(super) fn unknown_section(name: &str) -> String {
    format!(
        "unknown section [{name}]; there are [system], [security], [zookeeper], [listener=NAME], [topic=NAME] and [group=NAME]"
    )
}

/// Reads a topic's section, with what has no effect in it.
pub(super) fn read_topic(
    pattern: &str,
    section: &ini::Section,
    problems: &mut Vec<Problem>,
) -> (TopicSection, Vec<WithoutEffect>) {
    if pattern.is_empty() {
        let what = "[topic=] needs a name".to_owned();
        problems.push(Problem::at(section.line, what));
    }
    let mut topic = TopicSection {
        pattern: pattern.to_owned(),
        partitions: None,
        accept_publish: None,
        accept_subscribe: None,
        overrides: TopicOverrides::default(),
    };
    let mut written: BTreeMap<&'static str, &str> = BTreeMap::new();
    let mut without_effect = Vec::new();
    for entry in &section.entries {
        let known = TOPIC_KEYS_WITHOUT_EFFECT
            .iter()
            .find(|(name, _)| *name == entry.key);
        if let Some((name, instead)) = known {
            without_effect.push(WithoutEffect {
                name: format!("{name} in [topic={pattern}]"),
                source: Source::File(entry.line),
                instead,
            });
            continue;
        }
        if let Err(what) = read_topic_entry(&mut topic, &mut written, entry) {
            problems.push(Problem::at(entry.line, what));
        }
    }
    (topic, without_effect)
}

fn read_topic_entry<'a>(
    topic: &mut TopicSection,
    written: &mut BTreeMap<&'static str, &'a str>,
    entry: &'a ini::Entry,
) -> Result<(), String> {
    let (key, value) = (entry.key.as_str(), entry.value.as_str());
    let accepts =
        || Value::boolean(value).map_err(|_| format!("{key}={value} is not true or false"));
    match key {
        "numPartitions" => {
            let partitions = Value::integer(value).ok();
            let partitions = partitions.and_then(|n| i32::try_from(n).ok());
            let partitions = partitions.filter(|n| *n > 0);
            let wrong = || format!("numPartitions={value} is not a positive integer");
            topic.partitions = Some(partitions.ok_or_else(wrong)?);
        }
        "acceptPublish" => topic.accept_publish = Some(accepts()?),
        "acceptSubscribe" => topic.accept_subscribe = Some(accepts()?),
        _ => {
            let Some(found) = broker::canonical_for_topic(key, value)? else {
                let names = TOPIC_KEYS.iter().map(|key| key.name);
                let names = names.chain(METAQ_TOPIC_KEYS.iter().copied());
                let hint = nearest(key, names)
                    .map_or(String::new(), |near| format!("; did you mean {near}?"));
                return Err(format!(
                    "unknown key {key} in [topic={}]{hint}",
                    topic.pattern
                ));
            };
            for (name, mut canonical) in found {
                if let Some(known) = topic_key(name) {
                    let checked = known.kind.check(&canonical);
                    checked.map_err(|error| format!("{key}={value}: {error}"))?;
                    canonical = known.kind.plain(canonical);
                }
                let own = &mut topic.overrides.0;
                if let Some(other) = own.get(name).filter(|other| **other != canonical) {
                    let earlier = written.get(name).copied().unwrap_or(name);
                    return Err(format!(
                        "{key}={value} and {earlier}={other} set the same thing to different values"
                    ));
                }
                written.insert(name, key);
                own.insert(name.to_owned(), canonical);
            }
        }
    }
    Ok(())
}

/// Reads a group's section.
pub(super) fn read_group(
    config: &Config,
    pattern: &str,
    section: &ini::Section,
    problems: &mut Vec<Problem>,
) -> GroupSection {
    if pattern.is_empty() {
        let what = "[group=] needs a name".to_owned();
        problems.push(Problem::at(section.line, what));
    }
    let mut overrides = Overrides::new();
    for entry in &section.entries {
        match group::check_in_file(config, &entry.key, &entry.value) {
            Ok(()) => {
                overrides.insert(entry.key.clone(), entry.value.clone());
            }
            Err(what) if group::group_key(&entry.key).is_none() => {
                let hint = group::nearest_group_key(&entry.key)
                    .map_or(String::new(), |near| format!("; did you mean {near}?"));
                let what = format!("{what} in [group={pattern}]{hint}");
                problems.push(Problem::at(entry.line, what));
            }
            Err(what) => problems.push(Problem::at(entry.line, what)),
        }
    }
    GroupSection {
        pattern: pattern.to_owned(),
        overrides,
    }
}
