//! Topic configurations: one table with Kafka's names, defaults, validators and MetaQ's synonyms.

use std::collections::BTreeMap;
use std::sync::Arc;

use metaq_protocol::batch::Compression;

use super::value::{Kind, Value, ValueError};
use crate::log::LogConfig;
use crate::schedule::Schedule;
use crate::throttle::ThrottledReplicas;

/// One topic configuration.
pub struct TopicKey {
    /// Kafka's topic-level name.
    pub name: &'static str,
    /// Kafka's broker-level name, which sets the default for all topics.
    pub broker_name: Option<&'static str>,
    /// Type and range.
    pub kind: Kind,
    /// Default, as text.
    pub default: &'static str,
    /// What it does, with unit.
    pub doc: &'static str,
}

const LONG_MAX: &str = "9223372036854775807";

macro_rules! key {
    ($name:literal, $broker:expr, $kind:expr, $default:expr, $doc:literal) => {
        TopicKey {
            name: $name,
            broker_name: $broker,
            kind: $kind,
            default: $default,
            doc: $doc,
        }
    };
}

/// Every topic configuration in alphabetical order: Kafka's, and MetaQ's that Kafka has no word for.
pub const TOPIC_KEYS: &[TopicKey] = &[
    key!(
        "archive.enable",
        Some("log.archive.enable"),
        Kind::Bool,
        "false",
        "Whether retention puts a segment into log.archive.dir before it deletes it (deletePolicy archive,…)."
    ),
    key!(
        "cleanup.policy",
        Some("log.cleanup.policy"),
        Kind::List(&["compact", "delete"]),
        "delete",
        "What happens to old segments: delete, compact, or both; nothing where it is empty."
    ),
    key!(
        "closed.partitions",
        None,
        Kind::Partitions,
        "",
        "Partitions that take no messages, such as 0,4-7; they can be read (metaq partition close, open)."
    ),
    key!(
        "compression.gzip.level",
        Some("compression.gzip.level"),
        Kind::GzipLevel,
        "-1",
        "Level of gzip where the broker compresses."
    ),
    key!(
        "compression.lz4.level",
        Some("compression.lz4.level"),
        Kind::Int(1, 17),
        "9",
        "Level of lz4 where the broker compresses; accepted, one level is used."
    ),
    key!(
        "compression.type",
        Some("compression.type"),
        Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        "Codec that batches are stored under; producer keeps what was sent."
    ),
    key!(
        "compression.zstd.level",
        Some("compression.zstd.level"),
        Kind::Int(-131_072, 22),
        "3",
        "Level of zstd where the broker compresses."
    ),
    key!(
        "delete.retention.ms",
        Some("log.cleaner.delete.retention.ms"),
        Kind::Long(0, i64::MAX),
        "86400000",
        "How long a compacted topic keeps tombstones, ms."
    ),
    key!(
        "delete.when",
        Some("delete.when"),
        Kind::Schedule,
        "",
        "When retention is applied: second minute hour day month weekday in the machine's time zone, such as 0 0 6,18 * * ? (deleteWhen). Empty for every log.retention.check.interval.ms."
    ),
    key!(
        "errors.deadletterqueue.group.enable",
        None,
        Kind::Bool,
        "false",
        "Whether share groups may name it as their dead-letter topic."
    ),
    key!(
        "file.delete.delay.ms",
        Some("log.segment.delete.delay.ms"),
        Kind::Long(0, i64::MAX),
        "60000",
        "How long a deleted file stays on disk for readers that hold it, ms."
    ),
    key!(
        "flush.messages",
        Some("log.flush.interval.messages"),
        Kind::Long(0, i64::MAX),
        LONG_MAX,
        "Sync after this many messages; 0 and 1 sync before every acknowledgement (unflushThreshold)."
    ),
    key!(
        "flush.ms",
        Some("log.flush.interval.ms"),
        Kind::Long(0, i64::MAX),
        LONG_MAX,
        "Sync at the latest after this time, ms (unflushInterval)."
    ),
    key!(
        "follower.replication.throttled.replicas",
        None,
        Kind::Replicas,
        "",
        "Replicas that are copied no faster than follower.replication.throttled.rate by the broker that has them, while they are not in sync: partition:broker with commas between, or * for all."
    ),
    key!(
        "index.interval.bytes",
        Some("log.index.interval.bytes"),
        Kind::Int(0, i32::MAX as i64),
        "4096",
        "Bytes of records between two index entries."
    ),
    key!(
        "leader.replication.throttled.replicas",
        None,
        Kind::Replicas,
        "",
        "Replicas that lead, and give followers that are not in sync no more than leader.replication.throttled.rate: partition:broker with commas between, or * for all."
    ),
    key!(
        "local.retention.bytes",
        Some("log.local.retention.bytes"),
        Kind::Long(-2, i64::MAX),
        "-2",
        "Without tiers: the same as retention.bytes."
    ),
    key!(
        "local.retention.ms",
        Some("log.local.retention.ms"),
        Kind::Long(-2, i64::MAX),
        "-2",
        "Without tiers: the same as retention.ms."
    ),
    key!(
        "max.compaction.lag.ms",
        Some("log.cleaner.max.compaction.lag.ms"),
        Kind::Long(1, i64::MAX),
        LONG_MAX,
        "A record is compacted at the latest after this time, ms."
    ),
    key!(
        "max.message.bytes",
        Some("message.max.bytes"),
        Kind::Int(0, i32::MAX as i64),
        "1048588",
        "Largest record batch taken, bytes."
    ),
    key!(
        "message.timestamp.after.max.ms",
        Some("log.message.timestamp.after.max.ms"),
        Kind::Long(0, i64::MAX),
        "3600000",
        "How far ahead of the broker's clock a record's timestamp may be, ms."
    ),
    key!(
        "message.timestamp.before.max.ms",
        Some("log.message.timestamp.before.max.ms"),
        Kind::Long(0, i64::MAX),
        LONG_MAX,
        "How far behind the broker's clock a record's timestamp may be, ms."
    ),
    key!(
        "message.timestamp.type",
        Some("log.message.timestamp.type"),
        Kind::Choice(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "Whose clock a record's timestamp is: the producer's or the broker's."
    ),
    key!(
        "min.cleanable.dirty.ratio",
        Some("log.cleaner.min.cleanable.ratio"),
        Kind::Double(0.0, 1.0),
        "0.5",
        "Share of uncompacted bytes from which a log is compacted."
    ),
    key!(
        "min.compaction.lag.ms",
        Some("log.cleaner.min.compaction.lag.ms"),
        Kind::Long(0, i64::MAX),
        "0",
        "A record stays uncompacted at least this long, ms."
    ),
    key!(
        "min.insync.replicas",
        Some("min.insync.replicas"),
        Kind::Int(1, i32::MAX as i64),
        "1",
        "Replicas that must have a record before acks=all is answered."
    ),
    key!(
        "ordering",
        None,
        Kind::Choice(&["ordinary", "strict"]),
        "ordinary",
        "What happens to a partition whose leader is gone: ordinary has another replica that is in sync lead it; with strict it waits for its home broker, the first replica, or for metaq partition fail-over (docs/groups.md)."
    ),
    key!(
        "preallocate",
        Some("log.preallocate"),
        Kind::Bool,
        "false",
        "Accepted; segment files are not preallocated."
    ),
    key!(
        "remote.log.copy.disable",
        None,
        Kind::Bool,
        "false",
        "Tiers are not kept; accepted."
    ),
    key!(
        "remote.log.delete.on.disable",
        None,
        Kind::Bool,
        "false",
        "Tiers are not kept; accepted."
    ),
    key!(
        "remote.storage.enable",
        None,
        Kind::Bool,
        "false",
        "Tiers are not kept; only false is valid."
    ),
    key!(
        "retention.bytes",
        Some("log.retention.bytes"),
        Kind::Long(i64::MIN, i64::MAX),
        "-1",
        "Size of a partition above which its oldest segments are deleted, bytes; -1 for no limit."
    ),
    key!(
        "retention.ms",
        Some("log.retention.ms"),
        Kind::Long(-1, i64::MAX),
        "604800000",
        "Age at which a segment is deleted, ms; -1 for never (deletePolicy)."
    ),
    key!(
        "segment.bytes",
        Some("log.segment.bytes"),
        Kind::Int(1_048_576, i32::MAX as i64),
        "1073741824",
        "Size at which a new segment begins, bytes (maxSegmentSize)."
    ),
    key!(
        "segment.index.bytes",
        Some("log.index.size.max.bytes"),
        Kind::Int(4, i32::MAX as i64),
        "10485760",
        "Size limit of a segment's index, bytes."
    ),
    key!(
        "segment.jitter.ms",
        Some("log.roll.jitter.ms"),
        Kind::Long(0, i64::MAX),
        "0",
        "Up to this much is taken off segment.ms, differently for each partition, ms."
    ),
    key!(
        "segment.ms",
        Some("log.roll.ms"),
        Kind::Long(1, i64::MAX),
        "604800000",
        "Age at which a new segment begins, ms."
    ),
    key!(
        "unclean.leader.election.enable",
        Some("unclean.leader.election.enable"),
        Kind::Bool,
        "false",
        "Whether a replica outside the ISR may become leader, losing records."
    ),
];

/// The entry of a name.
pub fn topic_key(name: &str) -> Option<&'static TopicKey> {
    TOPIC_KEYS.iter().find(|key| key.name == name)
}

/// Why a set of topic configurations is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TopicConfigError {
    /// No such configuration.
    #[error("Unknown topic config name: {0}")]
    Unknown(String),
    /// Values that do not go together, or with this broker.
    #[error("{0}")]
    Conflict(String),
    /// The value does not fit.
    #[error("{}", refusal(name, value, reason))]
    Invalid {
        /// The configuration.
        name: String,
        /// What was given.
        value: String,
        /// Why not.
        reason: ValueError,
    },
}

fn refusal(name: &str, value: &str, reason: &ValueError) -> String {
    let kind = topic_key(name).map_or(Kind::Text, |key| key.kind);
    kind.refusal(name, value, reason)
}

/// A topic's own settings, by name; the rest comes from the broker's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicOverrides(pub BTreeMap<String, String>);

impl TopicOverrides {
    /// Checks every entry, and how they go together with each other and the broker's (Kafka's LogConfig.validate).
    pub fn validate(&self, broker: &TopicOverrides) -> Result<(), TopicConfigError> {
        for (name, value) in &self.0 {
            let key = topic_key(name).ok_or_else(|| TopicConfigError::Unknown(name.clone()))?;
            key.kind
                .check(value)
                .map_err(|reason| TopicConfigError::Invalid {
                    name: name.clone(),
                    value: value.clone(),
                    reason,
                })?;
        }
        let together = TopicConfig {
            overrides: self,
            broker,
        };
        let (min, max) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
        let (lag_min, lag_max) = (together.number(min), together.number(max));
        if lag_min > lag_max {
            let why =
                format!("conflict topic config setting {min} ({lag_min}) > {max} ({lag_max})");
            return Err(TopicConfigError::Conflict(why));
        }
        if Value::boolean(together.get("remote.storage.enable")) == Ok(true) {
            let why = "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.";
            return Err(TopicConfigError::Conflict(why.to_owned()));
        }
        Ok(())
    }
}

/// The settings in force for a topic: its own over the broker's over the defaults.
pub struct TopicConfig<'a> {
    /// The topic's own.
    pub overrides: &'a TopicOverrides,
    /// The broker's, by topic-level name.
    pub broker: &'a TopicOverrides,
}

impl TopicConfig<'_> {
    /// The text in force.
    pub fn get(&self, name: &str) -> &str {
        let own = self
            .overrides
            .0
            .get(name)
            .or_else(|| self.broker.0.get(name));
        own.map_or_else(
            || topic_key(name).map_or("", |key| key.default),
            String::as_str,
        )
    }

    /// The value in force; the default where a stored text does not parse any more.
    fn number(&self, name: &str) -> i64 {
        let default = topic_key(name).map_or("0", |key| key.default);
        Value::integer(self.get(name))
            .or_else(|_| Value::integer(default))
            .unwrap_or(0)
    }

    /// As [`Self::number`], of a share from 0 to 1.
    fn millionths(&self, name: &str) -> u32 {
        let parsed = |text: &str| text.trim().parse::<f64>().ok();
        let default = topic_key(name).and_then(|key| parsed(key.default));
        let share = parsed(self.get(name)).or(default).unwrap_or(0.0);
        (share.clamp(0.0, 1.0) * 1e6).round() as u32
    }

    fn throttled(&self, name: &str) -> ThrottledReplicas {
        ThrottledReplicas::parse(self.get(name))
    }

    /// Whether the home broker of a partition alone leads it.
    pub fn is_strictly_ordered(&self) -> bool {
        self.get("ordering") == "strict"
    }

    /// Whether segments are archived before they are deleted.
    pub fn archives(&self) -> bool {
        Value::boolean(self.get("archive.enable")).unwrap_or(false)
    }

    /// What the log needs; where the archive is, is the broker's to say.
    pub fn log(&self) -> LogConfig {
        let policy = self.get("cleanup.policy");
        let names =
            |policy: &str, wanted: &str| policy.split(',').any(|name| name.trim() == wanted);
        let compact = names(policy, "compact");
        let max_compaction_lag_ms = self.number("max.compaction.lag.ms");
        let segment_ms = match compact {
            // What is appended to is not compacted (Kafka's LogConfig.maxSegmentMs).
            true => self.number("segment.ms").min(max_compaction_lag_ms),
            false => self.number("segment.ms"),
        };
        LogConfig {
            segment_bytes: self.number("segment.bytes") as u64,
            segment_ms,
            segment_jitter_ms: self.number("segment.jitter.ms"),
            index_bytes_max: self.number("segment.index.bytes") as usize,
            index_interval_bytes: self.number("index.interval.bytes") as u64,
            flush_messages: self.number("flush.messages"),
            flush_ms: self.number("flush.ms"),
            retention_ms: self.number("retention.ms"),
            retention_bytes: self.number("retention.bytes"),
            max_message_bytes: self.number("max.message.bytes") as usize,
            log_append_time: self.get("message.timestamp.type") == "LogAppendTime",
            timestamp_before_max_ms: self.number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: self.number("message.timestamp.after.max.ms"),
            file_delete_delay_ms: self.number("file.delete.delay.ms"),
            compact,
            delete: names(policy, "delete"),
            delete_retention_ms: self.number("delete.retention.ms"),
            min_compaction_lag_ms: self.number("min.compaction.lag.ms"),
            max_compaction_lag_ms,
            min_cleanable_millionths: self.millionths("min.cleanable.dirty.ratio"),
            recompress: match self.get("compression.type") {
                "uncompressed" => Some(Compression::None),
                name => Compression::from_name(name),
            },
            min_insync_replicas: self.number("min.insync.replicas") as usize,
            closed: Value::partitions(self.get("closed.partitions"))
                .unwrap_or_default()
                .into(),
            leader_throttled: self.throttled("leader.replication.throttled.replicas"),
            follower_throttled: self.throttled("follower.replication.throttled.replicas"),
            delete_when: Schedule::parse(self.get("delete.when")).ok().map(Arc::new),
            archive_dir: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_passes_its_own_validator() {
        for key in TOPIC_KEYS {
            assert_eq!(key.kind.check(key.default), Ok(()), "{}", key.name);
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_log() {
        let none = TopicOverrides::default();
        assert_eq!(
            TopicConfig {
                overrides: &none,
                broker: &none
            }
            .log(),
            LogConfig::default()
        );
    }

    #[test]
    fn a_topics_own_setting_wins_over_the_brokers() {
        let own = TopicOverrides(BTreeMap::from([("retention.ms".into(), "5".into())]));
        let broker = TopicOverrides(BTreeMap::from([
            ("retention.ms".into(), "7".into()),
            ("flush.messages".into(), "1".into()),
        ]));
        let log = TopicConfig {
            overrides: &own,
            broker: &broker,
        }
        .log();
        assert_eq!((log.retention_ms, log.flush_messages), (5, 1));
    }

    #[test]
    fn an_unknown_name_and_a_value_out_of_range_are_named() {
        let of = |name: &str, value: &str| {
            TopicOverrides(BTreeMap::from([(name.into(), value.into())]))
                .validate(&TopicOverrides::default())
        };
        assert!(matches!(
            of("retention.mss", "1"),
            Err(TopicConfigError::Unknown(_))
        ));
        assert!(matches!(
            of("retention.ms", "-2"),
            Err(TopicConfigError::Invalid { .. })
        ));
        assert!(matches!(
            of("cleanup.policy", "delete,shrink"),
            Err(TopicConfigError::Invalid { .. })
        ));
        assert_eq!(of("cleanup.policy", "compact,delete"), Ok(()));
    }
}
