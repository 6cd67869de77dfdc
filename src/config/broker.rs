//! Broker configurations: one table of names (Kafka's, with MetaQ's beside them), types, defaults and texts.

use super::topic::TOPIC_KEYS;
use super::value::Kind;

/// One broker configuration.
#[derive(Debug, Clone, Copy)]
pub struct BrokerKey {
    /// Kafka's name, or ours where Kafka has none.
    pub name: &'static str,
    /// MetaQ's name for the same thing.
    pub metaq_name: Option<&'static str>,
    /// Type and range.
    pub kind: Kind,
    /// Default, as text.
    pub default: &'static str,
    /// What it does, with unit.
    pub doc: &'static str,
}

const INT_MAX: i64 = i32::MAX as i64;

macro_rules! key {
    ($name:literal, $metaq:expr, $kind:expr, $default:expr, $doc:literal) => {
        BrokerKey {
            name: $name,
            metaq_name: $metaq,
            kind: $kind,
            default: $default,
            doc: $doc,
        }
    };
}

impl BrokerKey {
    /// Accepted, but nothing follows from it.
    pub fn is_without_effect(&self) -> bool {
        self.doc.contains("without effect")
    }
}

/// The broker's own configurations. Defaults for topics come beside them from [`TOPIC_KEYS`].
const OWN_KEYS: &[BrokerKey] = &[
    key!(
        "broker.id",
        Some("brokerId"),
        Kind::Int(0, INT_MAX),
        "0",
        "This broker's number, unique in the cluster."
    ),
    key!(
        "broker.rack",
        None,
        Kind::Text,
        "",
        "Where the broker stands; told to clients."
    ),
    key!(
        "host.name",
        Some("hostName"),
        Kind::Text,
        "",
        "Address to bind and to tell clients. Empty binds every address and tells each client the address that it connected to; in a cluster it tells the machine's name, so set it, or advertised.listeners, where clients cannot resolve that."
    ),
    key!(
        "port",
        Some("serverPort"),
        Kind::Int(0, 65_535),
        "9092",
        "Port for Kafka clients; 0 lets the system choose."
    ),
    key!(
        "listeners",
        None,
        Kind::Text,
        "",
        "Address to bind as PLAINTEXT://host:port, several separated by commas; instead of hostName and serverPort."
    ),
    key!(
        "advertised.listeners",
        None,
        Kind::Text,
        "",
        "Address told to clients as PLAINTEXT://host:port."
    ),
    key!(
        "dashboard.http.port",
        Some("dashboardHttpPort"),
        Kind::Int(0, 65_535),
        "8120",
        "Port of /healthz, /readyz, /metrics and /api; 0 lets the system choose."
    ),
    key!(
        "dashboard.http.host",
        Some("dashboardHttpHost"),
        Kind::Text,
        "",
        "Address that the dashboard binds; empty for the same as the clients' listener."
    ),
    key!(
        "dashboard.http.max.connections",
        None,
        Kind::Int(1, INT_MAX),
        "100",
        "Connections to the dashboard's port at a time; more are closed at once, and so are those that are silent for a minute."
    ),
    key!(
        "accept.publish",
        Some("acceptPublish"),
        Kind::Bool,
        "true",
        "Whether this broker takes messages, and partitions of new topics. Without, Produce is refused with TOPIC_AUTHORIZATION_FAILED."
    ),
    key!(
        "accept.subscribe",
        Some("acceptSubscribe"),
        Kind::Bool,
        "true",
        "Whether this broker gives messages out. Without, Fetch is refused with TOPIC_AUTHORIZATION_FAILED."
    ),
    key!(
        "zookeeper.enable",
        Some("zk.zkEnable"),
        Kind::Bool,
        "false",
        "Whether the coordination tree is in ZooKeeper, where several brokers form a cluster; otherwise it is in an embedded store in the first data directory."
    ),
    key!(
        "zookeeper.connect",
        Some("zk.zkConnect"),
        Kind::Text,
        "localhost:2181",
        "ZooKeeper's servers as host:port, separated by commas, with an optional chroot behind the last one."
    ),
    key!(
        "zookeeper.root",
        Some("zk.zkRoot"),
        Kind::Text,
        "/meta",
        "Root of the tree, below the chroot. One that a MetaQ uses is refused."
    ),
    key!(
        "zookeeper.session.timeout.ms",
        Some("zk.zkSessionTimeoutMs"),
        Kind::Int(1000, INT_MAX),
        "30000",
        "After this long without contact others take over from this broker, ms; ZooKeeper may allow less or more. The broker stops leading and coordinating after three quarters of it."
    ),
    key!(
        "zookeeper.connection.timeout.ms",
        Some("zk.zkConnectionTimeoutMs"),
        Kind::Int(1, INT_MAX),
        "30000",
        "How long the start waits for ZooKeeper, ms."
    ),
    key!(
        "zookeeper.sync.time.ms",
        Some("zk.zkSyncTimeMs"),
        Kind::Int(1, INT_MAX),
        "5000",
        "Accepted for MetaQ's sake, without effect: reads that must be new are preceded by a sync."
    ),
    key!(
        "zookeeper.auth",
        Some("zk.zkAuth"),
        Kind::Text,
        "",
        "Scheme and credentials as digest:user:password. What the broker creates then belongs to that user alone."
    ),
    key!(
        "zookeeper.tls",
        Some("zk.zkTls"),
        Kind::Bool,
        "false",
        "Whether the connection to ZooKeeper is encrypted."
    ),
    key!(
        "zookeeper.tls.ca",
        Some("zk.zkTlsCa"),
        Kind::Text,
        "",
        "PEM file of authorities that may have signed ZooKeeper's certificate."
    ),
    key!(
        "zookeeper.tls.certificate",
        Some("zk.zkTlsCertificate"),
        Kind::Text,
        "",
        "PEM file with this broker's certificate for ZooKeeper, where it asks for one."
    ),
    key!(
        "zookeeper.tls.key",
        Some("zk.zkTlsKey"),
        Kind::Text,
        "",
        "PEM file with the certificate's key."
    ),
    key!(
        "zookeeper.tls.verify.host",
        Some("zk.zkTlsVerifyHost"),
        Kind::Bool,
        "true",
        "Whether ZooKeeper's certificate must be for the host that is connected to."
    ),
    key!(
        "delete.when",
        Some("deleteWhen"),
        Kind::Text,
        "0 0 6,18 * * ?",
        "Accepted for MetaQ's sake, without effect: retention is applied every log.retention.check.interval.ms."
    ),
    key!(
        "data.log.path",
        Some("dataLogPath"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: there is no log of transactions beside the partitions."
    ),
    key!(
        "get.process.threads",
        Some("getProcessThreadCount"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: num.network.threads serve everything."
    ),
    key!(
        "put.process.threads",
        Some("putProcessThreadCount"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: num.network.threads serve everything, one thread a data directory writes."
    ),
    key!(
        "max.checkpoints",
        Some("maxCheckpoints"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: one checkpoint is kept."
    ),
    key!(
        "max.tx.timeout.timer.capacity",
        Some("maxTxTimeoutTimerCapacity"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: transactions are not served yet."
    ),
    key!(
        "max.tx.timeout.seconds",
        Some("maxTxTimeoutInSeconds"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: transactions are not served yet."
    ),
    key!(
        "flush.tx.log.at.commit",
        Some("flushTxLogAtCommit"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: transactions are not served yet."
    ),
    key!(
        "stat",
        Some("stat"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: figures are always gathered."
    ),
    key!(
        "update.consumer.offsets",
        Some("updateConsumerOffsets"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: offsets are the groups' own."
    ),
    key!(
        "load.stores.in.parallel",
        Some("loadMessageStoresInParallel"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: partitions are always opened in parallel (num.recovery.threads.per.data.dir)."
    ),
    key!(
        "app.class.path",
        Some("appClassPath"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: there are no plug-ins."
    ),
    key!(
        "log.dirs",
        Some("dataPath"),
        Kind::Text,
        "data",
        "Data directories, separated by commas."
    ),
    key!(
        "num.partitions",
        Some("numPartitions"),
        Kind::Int(1, INT_MAX),
        "1",
        "Partitions per broker of a topic that is created without a number."
    ),
    key!(
        "default.replication.factor",
        None,
        Kind::Int(1, 32_767),
        "1",
        "Replicas of a topic that is created without a number."
    ),
    key!(
        "auto.create.topics.enable",
        None,
        Kind::Bool,
        "true",
        "Whether asking for a missing topic creates it."
    ),
    key!(
        "delete.topic.enable",
        None,
        Kind::Bool,
        "true",
        "Whether topics can be deleted."
    ),
    key!(
        "num.network.threads",
        None,
        Kind::Int(0, 1024),
        "0",
        "Threads that serve connections; 0 for one a core."
    ),
    key!(
        "sync.journal.file.bytes",
        None,
        Kind::Int(0, 1 << 30),
        "33554432",
        "Size of each of the two files of a data directory's journal, which makes appends of topics that sync every message durable with one sync for all of them; 0: each log is synced by itself."
    ),
    key!(
        "num.sync.threads",
        None,
        Kind::Int(1, 1024),
        "8",
        "Threads a data directory that sync partitions side by side."
    ),
    key!(
        "num.recovery.threads.per.data.dir",
        None,
        Kind::Int(0, 1024),
        "0",
        "Threads that open partitions at start; 0 for two a core."
    ),
    key!(
        "socket.request.max.bytes",
        None,
        Kind::Int(1, INT_MAX),
        "104857600",
        "Largest request frame, bytes."
    ),
    key!(
        "socket.request.stall.ms",
        None,
        Kind::Int(1, INT_MAX),
        "30000",
        "A connection that has begun a request and sends nothing more of it for longer is closed, ms."
    ),
    key!(
        "queued.max.request.bytes",
        None,
        Kind::Long(-1, i64::MAX),
        "536870912",
        "Memory that unanswered requests of all connections may hold, bytes; connections wait above it. At least socket.request.max.bytes. Requests above 64 KiB leave an eighth to smaller ones."
    ),
    key!(
        "max.connections",
        None,
        Kind::Int(0, INT_MAX),
        "20000",
        "Connections at a time; more are closed at once."
    ),
    key!(
        "max.connections.per.ip",
        None,
        Kind::Int(0, INT_MAX),
        "2147483647",
        "Connections at a time from one address."
    ),
    key!(
        "connections.max.idle.ms",
        None,
        Kind::Long(-1, i64::MAX),
        "600000",
        "A connection silent for longer is closed, ms; -1 for never."
    ),
    key!(
        "max.inflight.requests.per.connection",
        None,
        Kind::Int(1, 100_000),
        "64",
        "Requests of one connection that are worked on at a time; the next one is read when one is answered."
    ),
    key!(
        "fetch.max.bytes",
        Some("maxTransferSize"),
        Kind::Int(1024, INT_MAX),
        "57671680",
        "Largest fetch answer, bytes."
    ),
    key!(
        "max.incremental.fetch.session.cache.slots",
        None,
        Kind::Int(0, INT_MAX),
        "1000",
        "Fetch sessions kept."
    ),
    key!(
        "group.initial.rebalance.delay.ms",
        None,
        Kind::Int(0, INT_MAX),
        "3000",
        "How long an empty group waits for more members, ms."
    ),
    key!(
        "group.min.session.timeout.ms",
        None,
        Kind::Int(0, INT_MAX),
        "6000",
        "Shortest session timeout a member may ask for, ms."
    ),
    key!(
        "group.max.session.timeout.ms",
        None,
        Kind::Int(0, INT_MAX),
        "1800000",
        "Longest session timeout a member may ask for, ms."
    ),
    key!(
        "group.max.size",
        None,
        Kind::Int(1, INT_MAX),
        "2147483647",
        "Members a group may have."
    ),
    key!(
        "offset.metadata.max.bytes",
        None,
        Kind::Int(0, INT_MAX),
        "4096",
        "Largest text committed with an offset, bytes."
    ),
    key!(
        "offsets.retention.minutes",
        None,
        Kind::Int(1, INT_MAX),
        "10080",
        "Offsets of an empty group are kept this long, minutes."
    ),
    key!(
        "offsets.retention.check.interval.ms",
        None,
        Kind::Long(1, i64::MAX),
        "600000",
        "How often expired offsets are looked for, ms."
    ),
    key!(
        "producer.id.expiration.ms",
        None,
        Kind::Int(1, INT_MAX),
        "86400000",
        "A silent producer is forgotten after this, ms."
    ),
    key!(
        "log.retention.check.interval.ms",
        None,
        Kind::Long(1, i64::MAX),
        "300000",
        "How often retention is applied, ms."
    ),
    key!(
        "log.flush.offset.checkpoint.interval.ms",
        Some("checkpointInterval"),
        Kind::Int(1, INT_MAX),
        "60000",
        "How often recovery points are written, ms."
    ),
    key!(
        "controlled.shutdown.drain.ms",
        None,
        Kind::Int(0, INT_MAX),
        "10000",
        "How long requests in flight may take to be answered at shutdown, ms."
    ),
];

/// MetaQ's names for defaults of topics.
const TOPIC_SYNONYMS: &[(&str, &str)] = &[
    ("unflushThreshold", "flush.messages"),
    ("unflushInterval", "flush.ms"),
    ("maxSegmentSize", "segment.bytes"),
    ("deletePolicy", "retention.ms"),
];

/// Every broker configuration in the order of the table.
pub fn broker_keys() -> impl Iterator<Item = BrokerKey> {
    let of_topics = TOPIC_KEYS.iter().filter_map(|key| {
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
    });
    OWN_KEYS.iter().copied().chain(of_topics)
}

/// The entry of a name, Kafka's or MetaQ's.
pub fn broker_key(name: &str) -> Option<BrokerKey> {
    broker_keys().find(|key| key.name == name || key.metaq_name == Some(name))
}

/// Brings other spellings of a setting to the table's name and unit: MetaQ's `deletePolicy`, Kafka's `node.id`
/// and the coarser units of retention and roll times. `None` when the value does not parse.
pub fn canonical(name: &str, value: &str) -> Option<(&'static str, String)> {
    let scaled = |to: &'static str, factor: i64| {
        let value = super::value::Value::integer(value).ok()?;
        Some((
            to,
            if value < 0 {
                value
            } else {
                value.checked_mul(factor)?
            }
            .to_string(),
        ))
    };
    match name {
        "node.id" => Some(("broker.id", value.to_owned())),
        "log.dir" => Some(("log.dirs", value.to_owned())),
        "log.retention.hours" => scaled("log.retention.ms", 3_600_000),
        "log.retention.minutes" => scaled("log.retention.ms", 60_000),
        "log.roll.hours" => scaled("log.roll.ms", 3_600_000),
        "deletePolicy" => Some(("log.retention.ms", delete_policy_ms(value)?.to_string())),
        _ => broker_key(name).map(|key| (key.name, value.to_owned())),
    }
}

/// The topic-level name and value of an entry of a `[topic=NAME]` section.
pub fn canonical_for_topic(name: &str, value: &str) -> Option<(&'static str, String)> {
    if name == "deletePolicy" {
        return Some(("retention.ms", delete_policy_ms(value)?.to_string()));
    }
    let topic_name = TOPIC_SYNONYMS
        .iter()
        .find(|(metaq, _)| *metaq == name)
        .map_or(name, |(_, topic)| topic);
    super::topic::topic_key(topic_name).map(|key| (key.name, value.to_owned()))
}

/// `delete,168`: hours, or with a suffix s, m or h.
fn delete_policy_ms(policy: &str) -> Option<i64> {
    let (word, age) = policy.split_once(',')?;
    let age = age.trim();
    if word.trim() != "delete" {
        return None;
    }
    let (digits, unit_ms) = match age.as_bytes().last()? {
        b's' => (&age[..age.len() - 1], 1000),
        b'm' => (&age[..age.len() - 1], 60_000),
        b'h' => (&age[..age.len() - 1], 3_600_000),
        _ => (age, 3_600_000),
    };
    digits
        .trim()
        .parse::<i64>()
        .ok()
        .filter(|age| *age >= 0)?
        .checked_mul(unit_ms)
}

/// Names that a misspelt one may have meant.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (distance(name, known), known))
        .min()
        .filter(|(distance, _)| *distance <= 1 + name.len() / 3)
        .map(|(_, known)| known)
}

/// Levenshtein's distance, without regard to case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (
        a.to_ascii_lowercase().into_bytes(),
        b.to_ascii_lowercase().into_bytes(),
    );
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let cost = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
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
    fn a_delete_policy_counts_hours_unless_it_says_otherwise() {
        assert_eq!(delete_policy_ms("delete,168"), Some(604_800_000));
        assert_eq!(delete_policy_ms("delete, 30s"), Some(30_000));
        assert_eq!(delete_policy_ms("delete,5m"), Some(300_000));
        assert_eq!(delete_policy_ms("archive,1"), None);
    }

    #[test]
    fn a_misspelt_name_finds_its_neighbour() {
        assert_eq!(
            nearest("severPort", broker_keys().filter_map(|key| key.metaq_name)),
            Some("serverPort")
        );
        assert_eq!(
            nearest("zzzzzzzz", broker_keys().filter_map(|key| key.metaq_name)),
            None
        );
    }
}
