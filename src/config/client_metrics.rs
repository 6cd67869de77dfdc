//! Client metrics subscriptions (KIP-714; Kafka's ClientMetricsConfigs): which clients send which metrics how often.

use regex::Regex;

use super::Overrides;
use super::value::{Kind, Value};

/// A regular expression of a subscription may take this much memory when it is compiled, bytes.
const REGEX_BYTES_MAX: usize = 256 << 10;

/// One configuration of subscriptions.
#[derive(Debug)]
pub struct ClientMetricsKey {
    /// Kafka's name.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// Default, as text.
    pub default: &'static str,
    /// What it does, with unit.
    pub doc: &'static str,
}

/// Every configuration of subscriptions.
pub const CLIENT_METRICS_KEYS: &[ClientMetricsKey] = &[
    ClientMetricsKey {
        name: "interval.ms",
        kind: Kind::Int(100, 3_600_000),
        default: "300000",
        doc: "How often a client sends its metrics, ms.",
    },
    ClientMetricsKey {
        name: "match",
        kind: Kind::Words,
        default: "",
        doc: "Which clients: client_id=REGEX and the like, separated by commas; all must match. Empty for every client.",
    },
    ClientMetricsKey {
        name: "metrics",
        kind: Kind::Words,
        default: "",
        doc: "Prefixes of metric names, separated by commas; * for all.",
    },
];

/// What a subscription looks at in a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchParameter {
    /// client_instance_id.
    InstanceId,
    /// client_id.
    ClientId,
    /// client_software_name.
    SoftwareName,
    /// client_software_version.
    SoftwareVersion,
    /// client_source_address.
    SourceAddress,
    /// client_source_port.
    SourcePort,
}

impl MatchParameter {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "client_instance_id" => Self::InstanceId,
            "client_id" => Self::ClientId,
            "client_software_name" => Self::SoftwareName,
            "client_software_version" => Self::SoftwareVersion,
            "client_source_address" => Self::SourceAddress,
            "client_source_port" => Self::SourcePort,
            _ => return None,
        })
    }
}

/// A subscription.
#[derive(Debug, Clone)]
pub struct ClientMetricsSubscription {
    /// Its name.
    pub name: String,
    /// How often clients send, ms.
    pub interval_ms: i32,
    /// Prefixes of metric names; `*` for all.
    pub metrics: Vec<String>,
    /// All must match the client's whole text.
    pub matches: Vec<(MatchParameter, Regex)>,
}

/// Why a subscription is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientMetricsError {
    /// Not a request that makes sense.
    #[error("{0}")]
    Request(String),
    /// Not a pattern.
    #[error("Illegal client matching pattern: {0}")]
    Pattern(String),
}

impl ClientMetricsSubscription {
    /// Checks and reads a subscription's configurations.
    pub fn parse(name: &str, overrides: &Overrides) -> Result<Self, ClientMetricsError> {
        if name.is_empty() {
            let why = "Subscription name can't be empty".to_owned();
            return Err(ClientMetricsError::Request(why));
        }
        for (key, value) in overrides {
            let known = CLIENT_METRICS_KEYS.iter().find(|known| known.name == key);
            let Some(known) = known else {
                let why = format!("Unknown client metrics configuration: {key}");
                return Err(ClientMetricsError::Request(why));
            };
            known.kind.check(value).map_err(|error| {
                let why = match key.as_str() {
                    "interval.ms" => "interval must be between 100 and 3600000 (1 hour)".to_owned(),
                    _ => error.to_string(),
                };
                ClientMetricsError::Request(format!("Invalid value {value} for {key}, {why}"))
            })?;
        }
        let text = |key: &str| overrides.get(key).map_or("", String::as_str);
        let interval_ms = match overrides.get("interval.ms") {
            Some(interval) => Value::integer(interval).unwrap_or(300_000) as i32,
            None => 300_000,
        };
        Ok(Self {
            name: name.to_owned(),
            interval_ms,
            metrics: words(text("metrics")).map(str::to_owned).collect(),
            matches: words(text("match"))
                .map(pattern)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether a client is meant; `of` gives its texts.
    pub fn is_for<'a>(&self, of: impl Fn(MatchParameter) -> &'a str) -> bool {
        self.matches
            .iter()
            .all(|(parameter, pattern)| pattern.is_match(of(*parameter)))
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn pattern(word: &str) -> Result<(MatchParameter, Regex), ClientMetricsError> {
    let illegal = || ClientMetricsError::Pattern(word.to_owned());
    let (name, pattern) = word.split_once('=').ok_or_else(illegal)?;
    let parameter = MatchParameter::from_name(name.trim()).ok_or_else(illegal)?;
    let pattern = pattern.trim();
    if pattern.is_empty() || pattern.contains('=') {
        return Err(illegal());
    }
    // Kafka matches the whole text.
    let regex = regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|_| illegal())?;
    Ok((parameter, regex))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &[(&str, &str)]) -> Result<ClientMetricsSubscription, ClientMetricsError> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        ClientMetricsSubscription::parse("s", &entries.iter().map(own).collect())
    }

    #[test]
    fn a_subscription_is_for_clients_that_match_all_its_patterns() {
        let subscription = parse(&[
            (
                "match",
                "client_software_name = apache-kafka-java, client_software_version=4\\.1.*",
            ),
            (
                "metrics",
                "org.apache.kafka.producer., org.apache.kafka.consumer.",
            ),
        ])
        .unwrap();
        assert_eq!(
            (subscription.interval_ms, subscription.metrics.len()),
            (300_000, 2)
        );
        let client = |version: &'static str| {
            move |parameter| match parameter {
                MatchParameter::SoftwareName => "apache-kafka-java",
                MatchParameter::SoftwareVersion => version,
                _ => "",
            }
        };
        assert!(subscription.is_for(client("4.1.0")));
        assert!(!subscription.is_for(client("14.1.0")));
        assert!(parse(&[]).unwrap().is_for(|_| ""));
    }

    #[test]
    fn what_kafka_refuses_is_refused() {
        for wrong in [
            ("interval.ms", "99"),
            ("interval.ms", "often"),
            ("intervall.ms", "100"),
            ("match", "client_id"),
            ("match", "client_name=a"),
            ("match", "client_id=(["),
            ("match", "client_id=a{1000}{1000}{1000}"),
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong:?}");
        }
        let empty = ClientMetricsSubscription::parse("", &Overrides::new());
        assert!(matches!(empty, Err(ClientMetricsError::Request(_))));
    }
}
