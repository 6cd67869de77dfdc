//! Listeners: their addresses and protocols, and what is set for one alone: `listener.name.NAME.KEY`, or `[listener=NAME]` in
//! server.ini.
//!
//! Tests: tests/dashboard_tokens.rs, tests/delegation_tokens.rs.

use std::collections::BTreeMap;

use super::broker::{broker_key, nearest};
use super::key::BrokerKey;
use super::problem::Problem;
use super::security::{is_of_listeners, is_protocol};
use super::value::Value;
use super::{Config, Setting, Source, ini};

/// What a section has beside configurations.
const OWN_KEYS: &[&str] = &["host", "port", "protocol", "advertised"];

/// A `[listener=NAME]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSection {
    /// Its name.
    pub name: String,
    /// Address to bind; empty for every one.
    pub host: String,
    /// Port; a section without one only adds to a listener of `listeners`.
    pub port: Option<u16>,
    /// What protects its connections, where the section says so.
    pub protocol: Option<String>,
    /// What clients are told, as host:port.
    pub advertised: Option<String>,
}

/// What is set for one listener alone, by its name in small letters and the configuration's.
pub(super) type ListenerSettings = BTreeMap<(String, &'static str), Setting>;

/// The listener and the key of a name that is for one listener; `None` where it is not.
pub(super) fn parse_name(written: &str) -> Option<Result<(String, BrokerKey), String>> {
    let rest = written.strip_prefix("listener.name.")?;
    let Some((listener, key)) = rest.split_once('.') else {
        return Some(Err(format!("{written} names no configuration")));
    };
    if key.ends_with("sasl.jaas.config") {
        return Some(Err(format!(
            "{written}: users are kept in the coordination tree (metaq user add), the first one is admin.user, and the brokers' own inter.broker.user"
        )));
    }
    // Kafka has what is of one mechanism below the mechanism's name.
    let key = match key.strip_prefix("oauthbearer.") {
        Some(own) if own.starts_with("sasl.oauthbearer.") => own,
        _ => key,
    };
    let known = broker_key(key).filter(|known| is_of_listeners(known.name));
    let none = || format!("{written}: {key} cannot be set for one listener");
    Some(
        known
            .ok_or_else(none)
            .map(|known| (listener.to_lowercase(), known)),
    )
}

/// Adds one setting of one listener.
pub(super) fn add(
    settings: &mut ListenerSettings,
    (listener, key): (String, BrokerKey),
    (written, value): (&str, &str),
    source: Source,
) -> Result<(), String> {
    let checked = key.kind.check(value);
    checked.map_err(|error| key.wrong((written, value), &error))?;
    let setting = Setting {
        written: written.to_owned(),
        value: key.kind.plain(value.to_owned()),
        source,
    };
    settings.insert((listener, key.name), setting);
    Ok(())
}

/// Reads a section.
pub(super) fn read_section(
    name: &str,
    section: &ini::Section,
    settings: &mut ListenerSettings,
    problems: &mut Vec<Problem>,
) -> ListenerSection {
    let mut read = ListenerSection {
        name: name.to_owned(),
        host: String::new(),
        port: None,
        protocol: None,
        advertised: None,
    };
    if name.is_empty() {
        let what = "[listener=] needs a name".to_owned();
        problems.push(Problem::at(section.line, what));
    }
    for entry in &section.entries {
        if let Err(what) = read_entry(&mut read, settings, entry) {
            problems.push(Problem::at(entry.line, what));
        }
    }
    read
}

fn read_entry(
    section: &mut ListenerSection,
    settings: &mut ListenerSettings,
    entry: &ini::Entry,
) -> Result<(), String> {
    let (key, value) = (entry.key.as_str(), entry.value.as_str());
    match key {
        "host" => section.host = value.to_owned(),
        "port" => {
            let port = Value::integer(value).ok();
            let port = port.and_then(|port| u16::try_from(port).ok());
            let wrong = || format!("port={value} is not a number within 0..=65535");
            section.port = Some(port.ok_or_else(wrong)?);
        }
        "protocol" if is_protocol(value) => section.protocol = Some(value.to_owned()),
        "protocol" => {
            return Err(format!(
                "protocol={value} is none of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"
            ));
        }
        "advertised" => section.advertised = Some(value.to_owned()),
        _ => {
            let known = broker_key(key).filter(|known| is_of_listeners(known.name));
            let Some(known) = known else {
                let names = OWN_KEYS.iter().copied();
                let hint = nearest(key, names)
                    .map_or(String::new(), |near| format!("; did you mean {near}?"));
                let name = &section.name;
                return Err(format!("unknown key {key} in [listener={name}]{hint}"));
            };
            let listener = section.name.to_lowercase();
            add(
                settings,
                (listener, known),
                (key, value),
                Source::File(entry.line),
            )?;
        }
    }
    Ok(())
}

impl Config {
    /// The text in force for a listener: its own, or that of all.
    pub fn listener_text(&self, listener: &str, key: &'static str) -> &str {
        match self.listener_settings.get(&(listener.to_lowercase(), key)) {
            Some(own) => &own.value,
            None => self.text(key),
        }
    }

    /// The sections of listeners.
    pub fn listener_sections(&self) -> &[ListenerSection] {
        &self.listeners
    }

    /// The words of a list in force for a listener.
    pub fn listener_words(&self, listener: &str, key: &'static str) -> Vec<String> {
        let words = self.listener_text(listener, key).split(',').map(str::trim);
        let words = words.filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    }

    /// What protects the connections of a listener; `None` where nothing says it.
    pub fn listener_protocol(&self, listener: &str) -> Option<&str> {
        let section = self
            .listeners
            .iter()
            .find(|section| section.name == listener);
        if let Some(protocol) = section.and_then(|section| section.protocol.as_deref()) {
            return Some(protocol);
        }
        let pairs = self.text("listener.security.protocol.map").split(',');
        let pairs = pairs.filter_map(|pair| pair.trim().split_once(':'));
        let mut of_listener = pairs.filter(|(name, _)| name.trim() == listener);
        let (_, protocol) = of_listener.next()?;
        Some(protocol.trim())
    }

    /// Whether clients have to say who they are, or rights are looked at: then nothing is given to just anybody.
    pub fn is_secured(&self) -> bool {
        let listed = self.text("listeners").split(',');
        let listed = listed.filter_map(|listener| listener.trim().split_once("://"));
        let names = listed.map(|(name, _)| name);
        let sections = self.listeners.iter().map(|section| section.name.as_str());
        // The listener that is there where none is named.
        let unnamed = self.text("listeners").is_empty() && self.listeners.is_empty();
        let sections = sections.chain(unnamed.then_some("PLAINTEXT"));
        let is_secured = |name: &str| {
            let protocol = self.listener_protocol(name).unwrap_or_default();
            protocol != "PLAINTEXT"
        };
        !self.text("authorizer.class.name").is_empty() || names.chain(sections).any(is_secured)
    }

    /// A password: from the configuration, or from the environment.
    pub fn password(&self, key: &'static str) -> Option<String> {
        let variable = format!("METAQ_{}", key.to_uppercase().replace('.', "_"));
        let written = Some(self.text(key).to_owned()).filter(|text| !text.is_empty());
        written.or_else(|| std::env::var(variable).ok().filter(|text| !text.is_empty()))
    }
}
