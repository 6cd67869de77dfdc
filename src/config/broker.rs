//! Broker configurations: what is said of the table's rows, and how names and values find them.

use strsim::levenshtein;

use super::kafka::{self, Foreign};
use super::key::BrokerKey;
use super::keys::SUBJECTS;
use super::security::is_secret;
use super::topic::TOPIC_KEYS;
use super::value::Value;

impl BrokerKey {
    /// Accepted, but nothing follows from it.
    pub fn is_without_effect(&self) -> bool {
        self.doc.contains("without effect")
    }

    /// Whether its value is never shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.name, "zookeeper.auth" | "dashboard.token") || is_secret(self.name)
    }

    /// Whether it is a URL, of which user and query are shown to nobody but Kafka's tools.
    pub fn is_url(&self) -> bool {
        self.name.ends_with(".endpoint.url")
    }

    /// Whether Kafka's brokers leave it to a plugin: they do not know whether it is a secret, and do not tell it.
    pub fn is_of_plugin(&self) -> bool {
        matches!(self.name, "super.users" | "allow.everyone.if.no.acl.found")
    }

    /// Whether it changes while the broker runs: by IncrementalAlterConfigs, for one broker or all, and by `reload`.
    pub fn is_dynamic(&self) -> bool {
        let is_of_topics = || {
            TOPIC_KEYS
                .iter()
                .any(|key| key.broker_name == Some(self.name))
        };
        DYNAMIC.contains(&self.name) || is_of_topics()
    }
}

/// What changes at run time beside the defaults of topics. Kafka's DynamicBrokerConfig has some of these; the others are
/// looked at whenever they are needed here.
const DYNAMIC: &[&str] = &[
    "accept.publish",
    "accept.subscribe",
    "auto.create.topics.enable",
    "broker.drained",
    "connections.max.idle.ms",
    "default.replication.factor",
    "delete.topic.enable",
    "fetch.max.bytes",
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "log.archive.dir",
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.io.max.bytes.per.second",
    "log.cleaner.threads",
    "log.flush.offset.checkpoint.interval.ms",
    "log.level",
    "log.retention.check.interval.ms",
    "max.connection.creation.rate",
    "max.connections",
    "max.connections.per.ip",
    "max.inflight.requests.per.connection",
    "max.unauthenticated.connections.per.ip",
    "num.partitions",
    "producer.id.expiration.ms",
    "socket.request.stall.ms",
];

/// MetaQ's names for defaults of topics.
const TOPIC_SYNONYMS: &[(&str, &str)] = &[
    ("unflushThreshold", "flush.messages"),
    ("unflushInterval", "flush.ms"),
    ("maxSegmentSize", "segment.bytes"),
    ("deletePolicy", "retention.ms"),
    ("deleteWhen", "delete.when"),
];

/// Every broker configuration in the order of the table.
pub fn broker_keys() -> impl Iterator<Item = BrokerKey> {
    let own = SUBJECTS.iter().flat_map(|subject| subject.keys).copied();
    own.chain(topic_defaults())
}

/// Defaults for topics that set nothing themselves.
pub fn topic_defaults() -> impl Iterator<Item = BrokerKey> {
    TOPIC_KEYS.iter().filter_map(|key| {
        let name = key.broker_name?;
        let metaq_name = TOPIC_SYNONYMS
            .iter()
            .find(|(_, topic)| *topic == key.name)
            .map(|(metaq, _)| *metaq);
        Some(BrokerKey {
            name,
            metaq_name,
            kind: key.kind,
            default: key.default,
            doc: key.doc,
        })
    })
}

/// The entry of a name, Kafka's or MetaQ's.
pub fn broker_key(name: &str) -> Option<BrokerKey> {
    broker_keys().find(|key| key.name == name || key.metaq_name == Some(name))
}

/// Settings under the table's names and units.
pub type Canonical = Vec<(&'static str, String)>;

/// Brings other spellings of a setting to the table's name and unit: MetaQ's `deletePolicy`, Kafka's `node.id`
/// and the coarser units of retention and roll times. The text says why it is none.
pub fn canonical(name: &str, value: &str) -> Result<Canonical, String> {
    let scaled = |to: &'static str, factor: i64| {
        let wrong = |why: &str| format!("{name}={value}: {why}");
        let given = Value::integer(value).map_err(|error| wrong(&error.to_string()))?;
        let scaled = match given {
            ..0 => Some(given),
            _ => given.checked_mul(factor),
        };
        let scaled = scaled.ok_or_else(|| wrong("too large"))?;
        Ok(vec![(to, scaled.to_string())])
    };
    match name {
        "node.id" => Ok(vec![("broker.id", value.to_owned())]),
        "log.dir" => Ok(vec![("log.dirs", value.to_owned())]),
        "maxTxTimeoutInSeconds" => scaled("transaction.max.timeout.ms", 1000),
        "log.retention.hours" => scaled("log.retention.ms", 3_600_000),
        "log.retention.minutes" => scaled("log.retention.ms", 60_000),
        "log.roll.hours" => scaled("log.roll.ms", 3_600_000),
        "log.roll.jitter.hours" => scaled("log.roll.jitter.ms", 3_600_000),
        "deletePolicy" => {
            let policy = DeletePolicy::parse(value)?;
            let mut settings = vec![
                ("log.retention.ms", policy.age_ms.to_string()),
                ("log.archive.enable", policy.archive.to_string()),
            ];
            settings.extend(policy.dir.map(|dir| ("log.archive.dir", dir)));
            Ok(settings)
        }
        _ => match (broker_key(name), kafka::foreign(name)) {
            (Some(key), _) => Ok(vec![(key.name, value.to_owned())]),
            (None, Some(Foreign::WithoutEffect(_))) => Ok(Vec::new()),
            (None, Some(Foreign::NotServed(missing))) => {
                Err(format!("{name} is not served: {missing}"))
            }
            (None, None) => Err(unknown(name)),
        },
    }
}

/// What is said of a name that is no key.
pub fn unknown(name: &str) -> String {
    let known: Vec<BrokerKey> = broker_keys().collect();
    let names = known
        .iter()
        .flat_map(|key| [Some(key.name), key.metaq_name])
        .flatten();
    let hint = nearest(name, names).map_or(String::new(), |near| format!("; did you mean {near}?"));
    format!("unknown key {name}{hint}")
}

/// What the broker does instead of a setting of Kafka's that is not in the table and has no effect.
pub(super) fn foreign_without_effect(name: &str) -> Option<&'static str> {
    match (broker_key(name), kafka::foreign(name)) {
        (None, Some(Foreign::WithoutEffect(instead))) => Some(instead),
        _ => None,
    }
}

/// The topic-level names and values of an entry of a `[topic=NAME]` section; `None` for an unknown name.
pub(super) fn canonical_for_topic(name: &str, value: &str) -> Result<Option<Canonical>, String> {
    if name == "deletePolicy" {
        let policy = DeletePolicy::parse(value)?;
        if policy.dir.is_some() {
            return Err(format!(
                "{name}={value}: the directory of the archive is the broker's; set log.archive.dir in [system]"
            ));
        }
        return Ok(Some(vec![
            ("retention.ms", policy.age_ms.to_string()),
            ("archive.enable", policy.archive.to_string()),
        ]));
    }
    let topic_name = TOPIC_SYNONYMS
        .iter()
        .find(|(metaq, _)| *metaq == name)
        .map_or(name, |(_, topic)| topic);
    Ok(super::topic::topic_key(topic_name).map(|key| vec![(key.name, value.to_owned())]))
}

/// MetaQ's deletePolicy: what happens to a segment at which age.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DeletePolicy {
    age_ms: i64,
    archive: bool,
    dir: Option<String>,
}

impl DeletePolicy {
    /// `delete,168` or `archive,168[,DIRECTORY]`: hours, or with a suffix s, m or h.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "deletePolicy={text} is not delete,AGE or archive,AGE[,DIRECTORY], with AGE in hours or with a suffix s, m or h"
            )
        };
        let mut parts = text.splitn(3, ',').map(str::trim);
        let archive = match parts.next() {
            Some("delete") => false,
            Some("archive") => true,
            _ => return Err(wrong()),
        };
        let age_ms = parts.next().and_then(age_ms).ok_or_else(wrong)?;
        let dir = parts.next().map(str::to_owned);
        if dir.as_ref().is_some_and(|dir| !archive || dir.is_empty()) {
            return Err(wrong());
        }
        Ok(Self {
            age_ms,
            archive,
            dir,
        })
    }
}

fn age_ms(age: &str) -> Option<i64> {
    let (digits, unit_ms) = match age.as_bytes().last()? {
        b's' => (&age[..age.len() - 1], 1000),
        b'm' => (&age[..age.len() - 1], 60_000),
        b'h' => (&age[..age.len() - 1], 3_600_000),
        _ => (age, 3_600_000),
    };
    let age = digits.trim().parse::<i64>().ok()?;
    if age < 0 {
        return None;
    }
    age.checked_mul(unit_ms)
}

/// The name that a misspelt one may have meant, upper and lower case being the same.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_ascii_lowercase();
    known
        .map(|known| (levenshtein(&lower, &known.to_ascii_lowercase()), known))
        .min()
        .filter(|(distance, _)| *distance <= 1 + name.len() / 3)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_passes_its_own_validator_and_no_name_appears_twice() {
        let mut seen = std::collections::HashSet::new();
        for key in broker_keys() {
            assert_eq!(key.kind.check(key.default), Ok(()), "{}", key.name);
            assert!(seen.insert(key.name), "{}", key.name);
        }
    }

    #[test]
    fn a_misspelt_name_is_near_to_one_that_differs_by_a_third_of_its_letters() {
        let near = |name: &str| nearest(name, ["serverPort", "hostName"].into_iter());
        for misspelt in ["severPort", "SERVERPORT", "serverProt", "serverport1"] {
            assert_eq!(near(misspelt), Some("serverPort"), "{misspelt}");
        }
        assert_eq!(near("hostname"), Some("hostName"));
        for unlike in ["", "x", "zookeeper.connect"] {
            assert_eq!(near(unlike), None, "{unlike}");
        }
        assert_eq!(nearest("ac", ["ab", "aa"].into_iter()), Some("aa"));
    }

    #[test]
    fn a_delete_policy_counts_hours_unless_it_says_otherwise() {
        let of = |text: &str| {
            let policy = DeletePolicy::parse(text).ok()?;
            Some((policy.age_ms, policy.archive, policy.dir))
        };
        assert_eq!(of("delete,168"), Some((604_800_000, false, None)));
        assert_eq!(of("delete, 30s"), Some((30_000, false, None)));
        assert_eq!(of("delete,5m"), Some((300_000, false, None)));
        assert_eq!(of("archive,1"), Some((3_600_000, true, None)));
        let with_dir = Some((3_600_000, true, Some("/old".to_owned())));
        assert_eq!(of("archive,1,/old"), with_dir);
        for wrong in [
            "burn,1",
            "delete",
            "delete,x",
            "delete,-1",
            "delete,1,/old",
            "archive,1,",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_server_properties_of_kafka_is_understood_and_its_security_is_refused() {
        assert!(canonical("num.io.threads", "8").is_ok());
        assert!(foreign_without_effect("num.io.threads").is_some());
        assert!(canonical("remote.log.storage.system.enable", "false").is_ok());
        let refused = canonical("sasl.kerberos.service.name", "x").unwrap_err();
        assert!(refused.contains("not served"), "{refused}");
        assert!(
            canonical("num.oi.threads", "8")
                .unwrap_err()
                .contains("unknown key")
        );
    }
}
