//! Configurations of groups (Kafka's GroupConfig): in `[group=NAME]` of server.ini, or set at run time.
//!
//! They are about consumer groups of KIP-848, share groups and streams groups, but for the mode. Members of classic groups bring their session timeout and heartbeat interval themselves.

use super::offset_reset::OffsetReset;
use super::value::{Kind, Value};
use super::{Config, Overrides, broker_key, nearest};

/// MetaQ's own: whether the members of a group share its messages, or each gets all of them.
pub const CONSUME_MODE: &str = "metaq.consume.mode";

/// One configuration of groups.
#[derive(Debug)]
pub struct GroupKey {
    /// Kafka's name.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// Default, as text.
    pub default: &'static str,
    /// What it does, with unit.
    pub doc: &'static str,
}

/// Every configuration of groups, with the ranges that brokers allow by default.
pub const GROUP_KEYS: &[GroupKey] = &[
    GroupKey {
        name: "consumer.assignment.interval.ms",
        kind: Kind::Int(0, 15_000),
        default: "1000",
        doc: "At least so long between two assignments of a KIP-848 group, ms; without effect on classic groups.",
    },
    GroupKey {
        name: "consumer.heartbeat.interval.ms",
        kind: Kind::Int(5000, 15_000),
        default: "5000",
        doc: "How often members of a KIP-848 group report, ms; without effect on classic groups.",
    },
    GroupKey {
        name: "consumer.session.timeout.ms",
        kind: Kind::Int(45_000, 60_000),
        default: "45000",
        doc: "A silent member of a KIP-848 group is thrown out after this, ms; without effect on classic groups.",
    },
    GroupKey {
        name: "errors.deadletterqueue.copy.record.enable",
        kind: Kind::Bool,
        default: "false",
        doc: "Whether dead letters of a share group have key, value and headers of the record, not only where it was and why.",
    },
    GroupKey {
        name: "errors.deadletterqueue.topic.name",
        kind: Kind::Text,
        default: "",
        doc: "The topic that records of a share group go to that are rejected, or were given out too often. Empty: none.",
    },
    GroupKey {
        name: CONSUME_MODE,
        kind: Kind::Choice(&["broadcast", "cluster"]),
        default: "cluster",
        doc: "cluster: the members of a group share its messages. broadcast: each member gets all of them, with either protocol. Takes effect when the group has no members.",
    },
    GroupKey {
        name: "share.assignment.interval.ms",
        kind: Kind::Int(0, 15_000),
        default: "1000",
        doc: "At least so long between two assignments of a share group, ms.",
    },
    GroupKey {
        name: "share.auto.offset.reset",
        kind: Kind::Text,
        default: "latest",
        doc: "Where a share group begins with a partition: earliest, latest or by_duration:PnDTnHnMn.nS.",
    },
    GroupKey {
        name: "share.delivery.count.limit",
        kind: Kind::Int(2, 10),
        default: "5",
        doc: "How often a record is given to members of a share group at most.",
    },
    GroupKey {
        name: "share.heartbeat.interval.ms",
        kind: Kind::Int(5000, 15_000),
        default: "5000",
        doc: "How often members of a share group report, ms.",
    },
    GroupKey {
        name: "share.isolation.level",
        kind: Kind::Choice(&["read_committed", "read_uncommitted"]),
        default: "read_uncommitted",
        doc: "Which records a share group gets.",
    },
    GroupKey {
        name: "share.partition.max.record.locks",
        kind: Kind::Int(100, 4000),
        default: "2000",
        doc: "How many records of a partition may be under way in a share group: from the first that is not done to the last one given out.",
    },
    GroupKey {
        name: "share.record.lock.duration.ms",
        kind: Kind::Int(15_000, 60_000),
        default: "30000",
        doc: "How long a record is one member's before it is given to another, ms.",
    },
    GroupKey {
        name: "share.renew.acknowledge.enable",
        kind: Kind::Bool,
        default: "true",
        doc: "Whether members of a share group may renew the locks of records that they have.",
    },
    GroupKey {
        name: "share.retry.backoff.ms",
        kind: Kind::Int(0, 3_600_000),
        default: "0",
        doc: "How long a record that was released, or whose lock was over, is given to nobody, ms. MetaQ's own.",
    },
    GroupKey {
        name: "share.session.timeout.ms",
        kind: Kind::Int(45_000, 60_000),
        default: "45000",
        doc: "A silent member of a share group is thrown out after this, ms.",
    },
    GroupKey {
        name: "streams.assignment.interval.ms",
        kind: Kind::Int(0, 15_000),
        default: "1000",
        doc: "At least so long between two assignments of a streams group, ms.",
    },
    GroupKey {
        name: "streams.assignor.name",
        kind: Kind::Choice(&["sticky"]),
        default: "sticky",
        doc: "The assignor of a streams group.",
    },
    GroupKey {
        name: "streams.heartbeat.interval.ms",
        kind: Kind::Int(5000, 15_000),
        default: "5000",
        doc: "How often members of a streams group report, ms.",
    },
    GroupKey {
        name: "streams.initial.rebalance.delay.ms",
        kind: Kind::Int(0, 2_147_483_647),
        default: "3000",
        doc: "How long a streams group waits for more members after the first one before it gives out tasks, ms.",
    },
    GroupKey {
        name: "streams.num.standby.replicas",
        kind: Kind::Int(0, 2),
        default: "0",
        doc: "Copies of each task's state that a streams group keeps besides the one in use.",
    },
    GroupKey {
        name: "streams.rack.aware.assignment.tags",
        kind: Kind::Words,
        default: "",
        doc: "Client tags that members of a streams group are to have; those without are told so.",
    },
    GroupKey {
        name: "streams.session.timeout.ms",
        kind: Kind::Int(45_000, 60_000),
        default: "45000",
        doc: "A silent member of a streams group is thrown out after this, ms.",
    },
];

/// What is set for one group, over the broker's keys.
pub struct GroupOverrides<'a> {
    config: &'a Config,
    at_run_time: Option<&'a Overrides>,
    in_file: Overrides,
}

impl<'a> GroupOverrides<'a> {
    /// Of a group for which this is set at run time.
    pub fn of(config: &'a Config, group_id: &str, at_run_time: Option<&'a Overrides>) -> Self {
        Self {
            config,
            at_run_time,
            in_file: config.defaults_for_group(group_id),
        }
    }

    /// What is set for the group: at run time, else in the file.
    pub fn own(&self, name: &str) -> Option<&str> {
        let set = self.at_run_time.and_then(|set| set.get(name));
        set.or_else(|| self.in_file.get(name)).map(String::as_str)
    }

    /// The number in force; the broker's key has the same name after `group.`.
    pub fn number(&self, name: &str) -> i64 {
        let own = self.own(name).and_then(|value| Value::integer(value).ok());
        own.unwrap_or_else(|| self.config.number(&format!("group.{name}")))
    }

    /// The same, within the broker's limits for groups of a kind, such as `group.consumer.min.session.timeout.ms`.
    pub fn limited(&self, kind: &str, name: &str) -> i64 {
        let limit = |which| self.config.number(&format!("group.{kind}.{which}.{name}"));
        let value = self.number(&format!("{kind}.{name}"));
        value.min(limit("max")).max(limit("min"))
    }
}

/// The entry of a name.
pub(super) fn group_key(name: &str) -> Option<&'static GroupKey> {
    GROUP_KEYS.iter().find(|key| key.name == name)
}

impl GroupKey {
    /// Its values at a broker, whose keys for groups of a kind limit some of them.
    fn kind_at(&self, config: &Config) -> Kind {
        let (Kind::Int(low, high), Some((kind, name))) = (self.kind, self.name.split_once('.'))
        else {
            return self.kind;
        };
        let name = name.strip_prefix("num.").unwrap_or(name);
        let limit = |which| {
            let key = broker_key(&format!("group.{kind}.{which}.{name}"))?;
            Some(config.number(key.name))
        };
        Kind::Int(limit("min").unwrap_or(low), limit("max").unwrap_or(high))
    }
}

/// Checks what is set for a group at run time against a broker's configuration; the text says what is wrong.
pub fn check_group(config: &Config, group_id: &str, overrides: &Overrides) -> Result<(), String> {
    for (name, value) in overrides {
        let key = group_key(name).ok_or_else(|| format!("Unknown group config name: {name}"))?;
        check_value(key, key.kind_at(config), value)?;
    }
    let in_force = GroupOverrides::of(config, group_id, Some(overrides));
    check_sessions(&in_force, overrides)
}

/// Checks one that a file sets. What the broker's limits do not allow, and Kafka's defaults do, is brought within the limits
/// where it is used: they may have been narrowed since.
pub(super) fn check_in_file(config: &Config, name: &str, value: &str) -> Result<(), String> {
    let key = group_key(name).ok_or_else(|| format!("Unknown group config name: {name}"))?;
    let kind = match (key.kind, key.kind_at(config)) {
        (Kind::Int(low, high), Kind::Int(least, most)) => Kind::Int(low.min(least), high.max(most)),
        (kind, _) => kind,
    };
    check_value(key, kind, value)
}

fn check_value(key: &GroupKey, kind: Kind, value: &str) -> Result<(), String> {
    let name = key.name;
    kind.check(value)
        .map_err(|error| format!("Invalid value {value} for configuration {name}: {error}"))?;
    if name == "errors.deadletterqueue.topic.name" && value.starts_with("__") {
        return Err(format!("{name}: DLQ topic name must not start with '__'"));
    }
    if name == "share.auto.offset.reset" && !is_offset_reset(value) {
        return Err(format!(
            "Invalid value {value} for configuration {name}: must be earliest, latest or by_duration:PnDTnHnMn.nS"
        ));
    }
    Ok(())
}

/// Checks that members' sessions last longer than they are silent, for the kinds of groups of which this sets something
/// (GroupConfig.validateSessionExceedsHeartbeat).
pub(super) fn check_sessions(in_force: &GroupOverrides<'_>, set: &Overrides) -> Result<(), String> {
    for kind in ["consumer", "share", "streams"] {
        let names = ["session.timeout.ms", "heartbeat.interval.ms"];
        let sets = |name: &&str| set.contains_key(&format!("{kind}.{name}"));
        let [session, heartbeat] = names.map(|name| in_force.limited(kind, name));
        if names.iter().any(sets) && session <= heartbeat {
            return Err(format!(
                "{kind}.session.timeout.ms ({session}) must be greater than {kind}.heartbeat.interval.ms ({heartbeat})"
            ));
        }
    }
    Ok(())
}

fn is_offset_reset(value: &str) -> bool {
    value.parse::<OffsetReset>().is_ok()
}

/// The name that a misspelt one may have meant.
pub(super) fn nearest_group_key(name: &str) -> Option<&'static str> {
    nearest(name, GROUP_KEYS.iter().map(|key| key.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid_and_unknown_names_are_refused() {
        let config = Config::default();
        let of = |name: &str, value: &str| {
            let one = Overrides::from([(name.to_owned(), value.to_owned())]);
            check_group(&config, "g", &one)
        };
        for key in GROUP_KEYS {
            assert_eq!(of(key.name, key.default), Ok(()), "{}", key.name);
        }
        assert!(
            of("consumer.session", "1")
                .unwrap_err()
                .contains("Unknown group config name")
        );
        assert!(of("consumer.session.timeout.ms", "1").is_err());
        assert!(of("share.auto.offset.reset", "sometimes").is_err());
        assert!(of("errors.deadletterqueue.topic.name", "__x").is_err());
    }

    #[test]
    fn the_brokers_limits_are_those_of_its_groups() {
        let set = [
            "group.consumer.min.session.timeout.ms=6000",
            "group.share.max.session.timeout.ms=90000",
            "group.streams.max.standby.replicas=4",
        ];
        let config = Config::load(None, &set.map(str::to_owned)).unwrap();
        let of = |config: &Config, pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            check_group(config, "g", &pairs.collect())
        };
        for one in [
            ("consumer.session.timeout.ms", "6000"),
            ("share.session.timeout.ms", "90000"),
            ("streams.num.standby.replicas", "4"),
        ] {
            assert_eq!(of(&config, &[one]), Ok(()));
            assert!(of(&Config::default(), &[one]).is_err(), "{one:?}");
        }
        let both = [
            ("consumer.session.timeout.ms", "6000"),
            ("consumer.heartbeat.interval.ms", "6000"),
        ];
        let refused = of(&config, &both).unwrap_err();
        assert!(refused.contains("must be greater than"), "{refused}");
    }

    #[test]
    fn a_session_is_longer_than_the_heartbeat_interval_that_is_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            let file = dir.path().join("server.ini");
            let limits = "[system]\ngroup.consumer.min.session.timeout.ms=4000\ngroup.consumer.min.heartbeat.interval.ms=1000\n";
            std::fs::write(&file, format!("{limits}{text}")).unwrap();
            Config::load(Some(&file), &[])
        };
        let session = "[group=g]\nconsumer.session.timeout.ms=4000\n";
        assert!(load(session).is_err(), "the broker's interval is longer");
        let all = "[group=*]\nconsumer.heartbeat.interval.ms=1000\n";
        assert!(load(&format!("{all}{session}")).is_ok());
        let rare = load("[group=jobs*]\nconsumer.heartbeat.interval.ms=15000\n").unwrap();
        let set = |id: &str| {
            let name = "consumer.session.timeout.ms".to_owned();
            check_group(&rare, id, &Overrides::from([(name, "10000".to_owned())]))
        };
        assert!(set("jobs-a").is_err());
        assert_eq!(set("other"), Ok(()));
    }

    #[test]
    fn limits_that_are_narrowed_keep_no_file_from_being_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.ini");
        let text = "[system]\ngroup.consumer.max.heartbeat.interval.ms=10000\n[group=g]\nconsumer.heartbeat.interval.ms=15000\n";
        std::fs::write(&file, text).unwrap();
        let config = Config::load(Some(&file), &[]).unwrap();
        let group = GroupOverrides::of(&config, "g", None);
        assert_eq!(group.limited("consumer", "heartbeat.interval.ms"), 10_000);
    }

    #[test]
    fn a_file_may_set_for_a_group_what_the_command_line_allows() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.ini");
        let text = "[group=g]\nconsumer.session.timeout.ms=4000\nconsumer.heartbeat.interval.ms=1000\n[system]\nserverPort=1\n";
        std::fs::write(&file, text).unwrap();
        let refused = Config::load(Some(&file), &[]).unwrap_err().to_string();
        assert!(refused.contains("line 2"), "{refused}");
        let set = [
            "group.consumer.min.session.timeout.ms=1000",
            "group.consumer.min.heartbeat.interval.ms=1000",
        ]
        .map(str::to_owned);
        // Not longer than the broker's own heartbeat interval, but than the group's.
        let config = Config::load(Some(&file), &set).unwrap();
        let group = GroupOverrides::of(&config, "g", None);
        assert_eq!(group.limited("consumer", "session.timeout.ms"), 4000);
        let text = text.replace("=4000", "=1000");
        std::fs::write(&file, text).unwrap();
        let refused = Config::load(Some(&file), &set).unwrap_err().to_string();
        assert!(refused.contains("must be greater than"), "{refused}");
    }
}
