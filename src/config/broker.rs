//! Broker configurations: one table of names (Kafka's, with MetaQ's beside them), types, defaults and texts.

use strsim::levenshtein;

use super::kafka::{self, Foreign};
use super::key::{BrokerKey, key};
use super::security::{SECURITY_KEYS, is_secret};
use super::topic::TOPIC_KEYS;
use super::value::{Kind, Value};

const INT_MAX: i64 = i32::MAX as i64;
/// More cleaners than any machine has disks.
const CLEANER_THREADS_MAX: i64 = 256;

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

/// None, and what Kafka calls the one that there is.
const AUTHORIZERS: &[&str] = &[
    "",
    "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "kafka.security.authorizer.AclAuthorizer",
];

/// The most samples that quotas are held by.
const QUOTA_SAMPLES_MAX: i64 = 3600;
/// The longest of them, s.
const QUOTA_SAMPLE_SECONDS_MAX: i64 = 3600;

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
        "authorizer.class.name",
        None,
        Kind::Choice(AUTHORIZERS),
        "",
        "Who decides what clients may do: Kafka's StandardAuthorizer by access control lists (its older AclAuthorizer is the same here), or nobody, and everything is allowed."
    ),
    key!(
        "super.users",
        None,
        Kind::Text,
        "",
        "Principals that may do everything whatever the access control lists say, as User:a;User:b."
    ),
    key!(
        "allow.everyone.if.no.acl.found",
        None,
        Kind::Bool,
        "false",
        "Whether everybody may do everything to a resource that no access control list is of."
    ),
    key!(
        "dashboard.http.port",
        Some("dashboardHttpPort"),
        Kind::Int(0, 65_535),
        "8120",
        "Port of the dashboard, /api, /metrics, /healthz and /readyz; 0 lets the system choose."
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
        "Connections to the dashboard's port at a time, half of them from one address; more are answered with 503, or closed where many come at once, and those that are silent for a minute are closed."
    ),
    key!(
        "telemetry.max.bytes",
        None,
        Kind::Int(1, INT_MAX),
        "1048576",
        "Largest payload that a client pushes as telemetry (KIP-714), packed and unpacked, bytes."
    ),
    key!(
        "metrics.partitions.max",
        None,
        Kind::Int(0, INT_MAX),
        "4000",
        "Partitions that have series of their own in /metrics; of those beyond, only sums are given."
    ),
    key!(
        "metrics.topics.max",
        None,
        Kind::Int(0, INT_MAX),
        "1000",
        "Topics that have series of their own in /metrics."
    ),
    key!(
        "dashboard.token",
        None,
        Kind::Text,
        "",
        "The token that actions on the dashboard need, where no user has the right to them; empty: `metaq start` makes one, keeps it in the file dashboard.token of the first data directory, and prints it."
    ),
    key!(
        "dashboard.read.token",
        None,
        Kind::Bool,
        "false",
        "Whether reading the dashboard and its API needs the token too; /healthz, /readyz and /metrics never do. Where clients have to say who they are, reading needs the token or a user in any case."
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
        "ZooKeeper's servers as host:port, separated by commas, with an optional chroot after the last one."
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
        "zookeeper.set.acl",
        Some("zk.zkSetAcl"),
        Kind::Bool,
        "true",
        "Whether nodes belong to the user of zk.zkAuth; false while brokers get it one after the other."
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
        "Accepted for MetaQ's sake, without effect: num.network.threads serve everything, and write beside one thread a data directory."
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
        Kind::Int(1, INT_MAX),
        "1000000",
        "Open transactions that have a timeout; partitions that would begin one more are answered with CONCURRENT_TRANSACTIONS, and the client tries again."
    ),
    key!(
        "transaction.max.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "900000",
        "Largest transaction.timeout.ms of a producer, ms; above it is INVALID_TRANSACTION_TIMEOUT. maxTxTimeoutInSeconds sets it in seconds."
    ),
    key!(
        "transactional.id.expiration.ms",
        None,
        Kind::Int(1, INT_MAX),
        "604800000",
        "A transactional id that is not used for this long is forgotten, ms; never while its transaction is open."
    ),
    key!(
        "transactional.ids.max.bytes",
        None,
        Kind::Long(1, i64::MAX),
        "67108864",
        "What all transactional ids and the partitions of their transactions may take, bytes: about 450 an id, and three times its length. A new id, or more partitions, beyond that are refused with POLICY_VIOLATION."
    ),
    key!(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "3600000",
        "How often transactional ids are looked through for those that expired, ms."
    ),
    key!(
        "transaction.two.phase.commit.enable",
        None,
        Kind::Bool,
        "false",
        "Whether producers may begin transactions of two phases (KIP-939), which have no timeout: they stay open until their producer, or metaq txn, ends them."
    ),
    key!(
        "flush.tx.log.at.commit",
        Some("flushTxLogAtCommit"),
        Kind::Text,
        "",
        "Accepted for MetaQ's sake, without effect: every change of a transaction is durable before it is answered."
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
        "104857600",
        "Memory that requests of all connections may hold until they are answered, decoded too, and answers until they are taken, bytes; connections wait above it, and those that do not take their answers are closed then. At least socket.request.max.bytes, which is what it becomes where that is larger and this is not set. Requests above 64 KiB leave an eighth to smaller ones."
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
        "max.unauthenticated.connections.per.ip",
        None,
        Kind::Int(1, INT_MAX),
        "1000",
        "Connections at a time from one address that have not finished their handshakes of TLS and SASL; more are closed, and their clients try again."
    ),
    key!(
        "max.connection.creation.rate",
        None,
        Kind::Int(1, INT_MAX),
        "2147483647",
        "Connections that are accepted a second; more wait to be accepted."
    ),
    key!(
        "quota.window.num",
        None,
        Kind::Int(1, QUOTA_SAMPLES_MAX),
        "11",
        "Samples by which quotas of bytes, request time and connections are held: all but the one under way are counted."
    ),
    key!(
        "quota.window.size.seconds",
        None,
        Kind::Int(1, QUOTA_SAMPLE_SECONDS_MAX),
        "1",
        "How long such a sample is, s; a request's client waits for as long at most for the time that it took."
    ),
    key!(
        "controller.quota.window.num",
        None,
        Kind::Int(1, QUOTA_SAMPLES_MAX),
        "11",
        "Samples by which quotas of partitions are held: as many as come in all of them may be created or deleted at once."
    ),
    key!(
        "controller.quota.window.size.seconds",
        None,
        Kind::Int(1, QUOTA_SAMPLE_SECONDS_MAX),
        "1",
        "How long such a sample is, s."
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
        "errors.deadletterqueue.auto.create.topics.enable",
        None,
        Kind::Bool,
        "false",
        "Whether a dead-letter topic that a share group names and that is not there is created."
    ),
    key!(
        "errors.deadletterqueue.topic.name.prefix",
        None,
        Kind::Text,
        "dlq.",
        "What names of dead-letter topics begin with; records go to no other one. Empty: any name will do."
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
        "group.consumer.assignors",
        None,
        Kind::List(&[
            "uniform",
            "range",
            "org.apache.kafka.coordinator.group.assignor.UniformAssignor",
            "org.apache.kafka.coordinator.group.assignor.RangeAssignor"
        ]),
        "uniform,range",
        "Assignors that members of KIP-848 groups may prefer, by their names or Kafka's classes; the first is the default."
    ),
    key!(
        "group.consumer.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "1000",
        "At least so long between two assignments of a KIP-848 group, ms; the default of consumer.assignment.interval.ms."
    ),
    key!(
        "group.consumer.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "How often members of KIP-848 groups report, ms; the default of consumer.heartbeat.interval.ms."
    ),
    key!(
        "group.consumer.max.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "15000",
        "The longest interval between assignments that a group may have, ms."
    ),
    key!(
        "group.consumer.max.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "15000",
        "The longest heartbeat interval that a KIP-848 group may have, ms."
    ),
    key!(
        "group.consumer.max.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "60000",
        "The longest session timeout that a KIP-848 group may have, ms."
    ),
    key!(
        "group.consumer.max.size",
        None,
        Kind::Int(1, INT_MAX),
        "2147483647",
        "Members that a KIP-848 group may have."
    ),
    key!(
        "group.consumer.migration.policy",
        None,
        Kind::Choice(&["bidirectional", "upgrade", "downgrade", "disabled"]),
        "bidirectional",
        "Whether a group with members may go from the classic protocol to that of KIP-848 (upgrade) and back (downgrade)."
    ),
    key!(
        "group.consumer.min.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "0",
        "The shortest interval between assignments that a group may have, ms."
    ),
    key!(
        "group.consumer.min.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "The shortest heartbeat interval that a KIP-848 group may have, ms."
    ),
    key!(
        "group.consumer.min.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "The shortest session timeout that a KIP-848 group may have, ms."
    ),
    key!(
        "group.consumer.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "A silent member of a KIP-848 group is thrown out after this, ms; the default of consumer.session.timeout.ms."
    ),
    key!(
        "group.consumer.unsettled.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "500",
        "How often members of a KIP-848 group report that have not got their partitions yet, ms: they are told this instead of the usual interval, or 1 ms a member where that is more. As large as the usual interval: Kafka's way."
    ),
    key!(
        "group.share.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "1000",
        "At least so long between two assignments of a share group, ms; the default of share.assignment.interval.ms."
    ),
    key!(
        "group.share.assignors",
        None,
        Kind::List(&[
            "simple",
            "org.apache.kafka.coordinator.group.assignor.SimpleAssignor"
        ]),
        "simple",
        "The assignor of share groups, by its name or Kafka's class: there is one."
    ),
    key!(
        "group.share.delivery.count.limit",
        None,
        Kind::Int(2, 10),
        "5",
        "How often a record is given to members of a share group at most; then it is given to nobody any more. share.delivery.count.limit of a group wins."
    ),
    key!(
        "group.share.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "How often members of share groups report, ms; the default of share.heartbeat.interval.ms."
    ),
    key!(
        "group.share.max.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "15000",
        "The longest assignment interval that a share group may have, ms."
    ),
    key!(
        "group.share.max.groups",
        None,
        Kind::Int(1, INT_MAX),
        "10000",
        "Share groups that a broker coordinates at most: a member that would begin another one is refused."
    ),
    key!(
        "group.share.max.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "15000",
        "The longest heartbeat interval that a share group may have, ms."
    ),
    key!(
        "group.share.max.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "60000",
        "The longest session timeout that a share group may have, ms."
    ),
    key!(
        "group.share.max.share.sessions",
        None,
        Kind::Int(1, INT_MAX),
        "2000",
        "Share sessions that a broker keeps, one a member of a share group that fetches from it."
    ),
    key!(
        "group.share.max.size",
        None,
        Kind::Int(1, 1000),
        "200",
        "Members that a share group may have."
    ),
    key!(
        "group.share.min.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "0",
        "The shortest assignment interval that a share group may have, ms."
    ),
    key!(
        "group.share.min.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "The shortest heartbeat interval that a share group may have, ms."
    ),
    key!(
        "group.share.min.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "The shortest session timeout that a share group may have, ms."
    ),
    key!(
        "group.share.partition.max.record.locks",
        None,
        Kind::Int(100, 10_000),
        "2000",
        "How many records of a partition may be under way in a share group: from the first that is not done to the last one given out. share.partition.max.record.locks of a group wins."
    ),
    key!(
        "group.share.record.lock.duration.ms",
        None,
        Kind::Int(1000, 3_600_000),
        "30000",
        "How long a record is one member's of a share group before it is given to another, ms. share.record.lock.duration.ms of a group wins."
    ),
    key!(
        "group.share.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "A silent member of a share group is thrown out after this, ms; the default of share.session.timeout.ms."
    ),
    key!(
        "group.streams.acceptable.recovery.lag",
        None,
        Kind::Long(0, i64::MAX),
        "10000",
        "Records that a copy of state in a streams group may be behind to count as up to date."
    ),
    key!(
        "group.streams.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "1000",
        "At least so long between two assignments of a streams group, ms; the default of streams.assignment.interval.ms."
    ),
    key!(
        "group.streams.assignors",
        None,
        Kind::List(&[
            "sticky",
            "org.apache.kafka.coordinator.group.streams.assignor.StickyTaskAssignor"
        ]),
        "sticky",
        "The assignors of streams groups, by their names or Kafka's classes; the first is the default of streams.assignor.name."
    ),
    key!(
        "group.streams.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "How often members of streams groups report, ms; the default of streams.heartbeat.interval.ms."
    ),
    key!(
        "group.streams.initial.rebalance.delay.ms",
        None,
        Kind::Int(0, INT_MAX),
        "3000",
        "How long a streams group waits for more members after the first one before it gives out tasks, ms; the default of streams.initial.rebalance.delay.ms."
    ),
    key!(
        "group.streams.max.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "15000",
        "The longest interval between assignments that a streams group may have, ms."
    ),
    key!(
        "group.streams.max.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "15000",
        "The longest heartbeat interval that a streams group may have, ms."
    ),
    key!(
        "group.streams.max.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "60000",
        "The longest session timeout that a streams group may have, ms."
    ),
    key!(
        "group.streams.max.size",
        None,
        Kind::Int(1, INT_MAX),
        "2147483647",
        "Members (threads) that a streams group may have."
    ),
    key!(
        "group.streams.max.standby.replicas",
        None,
        Kind::Int(0, INT_MAX),
        "2",
        "The most standby replicas that a streams group may have."
    ),
    key!(
        "group.streams.min.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "0",
        "The shortest interval between assignments that a streams group may have, ms."
    ),
    key!(
        "group.streams.min.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "The shortest heartbeat interval that a streams group may have, ms."
    ),
    key!(
        "group.streams.min.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "The shortest session timeout that a streams group may have, ms."
    ),
    key!(
        "group.streams.num.standby.replicas",
        None,
        Kind::Int(0, INT_MAX),
        "0",
        "Copies of each task's state that a streams group keeps besides the one in use; the default of streams.num.standby.replicas."
    ),
    key!(
        "group.streams.rack.aware.assignment.tags",
        None,
        Kind::Words,
        "",
        "Client tags that members of streams groups are to have; the default of streams.rack.aware.assignment.tags."
    ),
    key!(
        "group.streams.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "A silent member of a streams group is thrown out after this, ms; the default of streams.session.timeout.ms."
    ),
    key!(
        "group.streams.task.offset.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "60000",
        "How often members of streams groups say how far their copies of state are, ms."
    ),
    key!(
        "group.streams.unsettled.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "500",
        "How often members of a streams group report that have not got their tasks yet, ms: they are told this instead of the usual interval. As large as the usual interval: Kafka's way."
    ),
    key!(
        "group.members.max.bytes",
        None,
        Kind::Long(1 << 20, i64::MAX),
        "50331648",
        "What the members of all groups may hold in memory together, bytes; about 4096 each, and three times what they bring; a join beyond is GROUP_MAX_SIZE_REACHED."
    ),
    key!(
        "group.offsets.max.bytes",
        None,
        Kind::Long(1 << 20, i64::MAX),
        "67108864",
        "What the committed offsets of all groups may take in memory together, bytes; about 1000 each, and three times their metadata. A commit of a new one above it is INVALID_COMMIT_OFFSET_SIZE; those that are known can be committed on."
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
        "offsets.topic.mirror",
        None,
        Kind::Bool,
        "false",
        "Also append what groups commit to __consumer_offsets, in Kafka's record format, for tools that read it (Burrow, kafka-console-consumer). The same at all brokers of a cluster. On disk each of its 64 partitions takes up to five times what its groups have, or 8 MiB, and what they commit while it is kept (offsets.topic.mirror.keep.ms)."
    ),
    key!(
        "offsets.topic.mirror.keep.ms",
        None,
        Kind::Long(0, i64::MAX),
        "60000",
        "How long what a newer copy of all offsets supersedes stays in __consumer_offsets, for readers that are not there yet, ms."
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
        "log.cleaner.enable",
        None,
        Kind::Bool,
        "true",
        "Whether topics with cleanup.policy compact are compacted; without it they only grow."
    ),
    key!(
        "log.cleaner.threads",
        None,
        Kind::Int(0, CLEANER_THREADS_MAX),
        "1",
        "Threads that compact, each one log at a time; 0 for none."
    ),
    key!(
        "log.cleaner.dedupe.buffer.size",
        None,
        Kind::Long(0, i64::MAX),
        "134217728",
        "Memory for the keys of the logs that are being compacted, of all threads together, bytes; at least 1 MiB a thread. It is taken while there is something to compact. How many keys go into it: docs/compaction.md."
    ),
    key!(
        "log.cleaner.io.max.bytes.per.second",
        None,
        Kind::Double(1.0, f64::MAX),
        "1.7976931348623157E308",
        "What compaction may read and write, of all threads together, bytes per second."
    ),
    key!(
        "log.cleaner.backoff.ms",
        None,
        Kind::Long(0, i64::MAX),
        "15000",
        "How long a cleaner that finds nothing to compact waits before it looks again, ms."
    ),
    key!(
        "auto.leader.rebalance.enable",
        None,
        Kind::Bool,
        "true",
        "Whether the preferred leaders, the first of their lists of replicas, get the lead back once they are in sync."
    ),
    key!(
        "broker.follows.only",
        None,
        Kind::Bool,
        "false",
        "Whether this broker copies what others lead and never leads what they keep too (metaq start slave)."
    ),
    key!(
        "broker.drained",
        None,
        Kind::Bool,
        "false",
        "Whether this broker leads and coordinates only what no other one can. Set for a broker at run time by metaq cluster drain; in a file it means nothing."
    ),
    key!(
        "leader.imbalance.check.interval.seconds",
        None,
        Kind::Long(1, 86_400),
        "300",
        "How often that is looked for, seconds."
    ),
    key!(
        "num.replica.fetchers",
        None,
        Kind::Int(1, 64),
        "1",
        "Connections that this broker copies from each other broker by; partitions are spread over them."
    ),
    key!(
        "leader.replication.throttled.rate",
        None,
        Kind::Long(0, i64::MAX),
        "9223372036854775807",
        "What this broker gives followers of throttled replicas as their leader (leader.replication.throttled.replicas of topics), bytes a second; those that are in sync count, and do not wait."
    ),
    key!(
        "follower.replication.throttled.rate",
        None,
        Kind::Long(0, i64::MAX),
        "9223372036854775807",
        "What this broker takes of throttled replicas as a follower (follower.replication.throttled.replicas of topics), bytes a second; those that are in sync count, and do not wait."
    ),
    key!(
        "replica.lag.time.max.ms",
        None,
        Kind::Long(1, i64::MAX),
        "30000",
        "A replica that has not had all that its leader has for longer falls out of sync, ms."
    ),
    key!(
        "replica.fetch.max.bytes",
        None,
        Kind::Int(0, INT_MAX),
        "1048576",
        "What a follower fetches of a partition at a time, bytes; a batch that is larger comes whole."
    ),
    key!(
        "replica.fetch.response.max.bytes",
        None,
        Kind::Int(0, INT_MAX),
        "10485760",
        "What a follower fetches at a time of all partitions of a connection, bytes."
    ),
    key!(
        "replica.fetch.min.bytes",
        None,
        Kind::Int(0, INT_MAX),
        "1",
        "A follower's fetch waits at its leader until there are so many bytes, or for replica.fetch.wait.max.ms."
    ),
    key!(
        "replica.fetch.wait.max.ms",
        None,
        Kind::Int(0, INT_MAX),
        "500",
        "How long a follower's fetch waits at its leader for records, ms; less than replica.lag.time.max.ms."
    ),
    key!(
        "replica.fetch.backoff.ms",
        None,
        Kind::Int(0, INT_MAX),
        "1000",
        "Pause of a partition that could not be fetched, ms."
    ),
    key!(
        "replica.selector.class",
        None,
        Kind::Choice(&[
            "",
            "org.apache.kafka.common.replica.LeaderSelector",
            "org.apache.kafka.common.replica.RackAwareReplicaSelector"
        ]),
        "",
        "Whom a consumer that says its client.rack is sent to (KIP-392): with RackAwareReplicaSelector to a replica in sync whose broker.rack it is, else to the leader."
    ),
    key!(
        "log.archive.dir",
        Some("archivePath"),
        Kind::Text,
        "archive",
        "Where segments of topics with archive.enable (deletePolicy archive,…) go before they are deleted; a directory for each partition. Linked where it is on the same file system, copied and synced otherwise."
    ),
    key!(
        "log.level",
        None,
        Kind::Levels,
        "info",
        "What is logged: a level (ERROR, WARN, INFO, DEBUG, TRACE, OFF), and module=level for modules (metaq::net=debug), separated by commas. metaq loggers set changes it until the next start. RUST_LOG is over it."
    ),
    key!(
        "log.format",
        None,
        Kind::Choice(&["text", "json"]),
        "text",
        "How a line of the log is written."
    ),
    key!(
        "log.file",
        None,
        Kind::Text,
        "",
        "File that the log is written to; empty for standard error. bin/metaServer.sh sets it to logs/metaq.log."
    ),
    key!(
        "log.file.max.bytes",
        None,
        Kind::Long(1024, i64::MAX),
        "67108864",
        "Size at which the log's file is set aside as .1, and a new one begins, bytes."
    ),
    key!(
        "log.file.max.count",
        None,
        Kind::Int(1, 1000),
        "10",
        "Files of the log that are kept, the current one included."
    ),
    key!(
        "control.socket",
        None,
        Kind::Text,
        "",
        "Unix socket by which metaq config reload and metaq loggers requests of the same machine and user reach the broker. Empty for an abstract one that goes with the first data directory; none for none."
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
    ("deleteWhen", "delete.when"),
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
    let own = OWN_KEYS.iter().chain(SECURITY_KEYS).copied();
    own.chain(of_topics)
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
