//! Kafka's broker configurations that mean nothing here: a server.properties can be taken over, and each says what the
//! broker does instead. Those of security are refused, because a broker that leaves them out would stand open.

/// What becomes of a configuration of Kafka that is not in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// Accepted without effect; the broker does this instead.
    WithoutEffect(&'static str),
    /// Refused; this is missing.
    NotServed(&'static str),
}

const NO_KRAFT: &str =
    "there is no KRaft quorum: the coordination tree is embedded, or in ZooKeeper";
const NO_REPLICAS: &str = "replication has no such setting here";
const ALL_LEADERS_BACK: &str =
    "all preferred leaders that are in sync are elected, as by Kafka's KRaft controller";
const ELECTED_AT_ONCE: &str = "a leader is elected as soon as it can be";
const EXACT_TIMEOUTS: &str =
    "a transaction is aborted when its timeout is over, not at the next look";
const ALWAYS_VERIFIED: &str = "partitions are always verified to be part of a transaction";
const TREE_TRANSACTIONS: &str = "transactions are in the coordination tree, not in a topic";
const NO_QUOTAS: &str =
    "quotas are those of docs/quotas.md; max.connections.per.ip is for all addresses";
const NO_TIERS: &str = "there are no tiers of storage";
const CLEANER_READS_BATCHES: &str =
    "a cleaner holds one batch at a time, as large as max.message.bytes lets it be";
const CLEANER_FILLS_TABLE: &str = "a cleaner's table of keys is filled as far as it stays fast; log.cleaner.dedupe.buffer.size is its memory";
const ONE_STREAMS_ASSIGNOR: &str =
    "streams groups have one assignor, no warm-up tasks and no plugin for descriptions";
const ONE_SHARE_ASSIGNOR: &str = "share groups have one assignor, and assign at once";
const TREE_SHARES: &str = "what share groups do is stored in the coordination tree, not in a topic";
const TREE_OFFSETS: &str = "offsets are in the coordination tree, not in a topic";
const OWN_THREADS: &str =
    "num.network.threads serve everything, and write beside one thread a data directory";
const NO_REPORTERS: &str = "metrics are on /metrics of the dashboard's port";
const KERNEL_BUFFERS: &str = "the system sizes the buffers of sockets";
const ONE_VERSION: &str = "brokers speak one version to each other";

const OWN_TLS: &str = "TLS is the program's own, not Java's";

/// Names, with what the broker does instead.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[
    (
        NO_KRAFT,
        &[
            "process.roles",
            "controller.listener.names",
            "controller.quorum.append.linger.ms",
            "controller.quorum.auto.join.enable",
            "controller.quorum.bootstrap.servers",
            "controller.quorum.election.backoff.max.ms",
            "controller.quorum.election.timeout.ms",
            "controller.quorum.fetch.timeout.ms",
            "controller.quorum.request.timeout.ms",
            "controller.quorum.retry.backoff.ms",
            "controller.quorum.voters",
            "broker.heartbeat.interval.ms",
            "broker.session.timeout.ms",
            "broker.id.generation.enable",
            "reserved.broker.max.id",
            "initial.broker.registration.timeout.ms",
            "metadata.log.dir",
            "metadata.log.max.record.bytes.between.snapshots",
            "metadata.log.max.snapshot.interval.ms",
            "metadata.log.segment.bytes",
            "metadata.log.segment.ms",
            "metadata.max.idle.interval.ms",
            "metadata.max.retention.bytes",
            "metadata.max.retention.ms",
            "server.max.startup.time.ms",
            "controller.performance.always.log.threshold.ms",
            "controller.performance.sample.period.ms",
        ],
    ),
    (
        NO_REPLICAS,
        &[
            "num.replica.alter.log.dirs.threads",
            "replica.high.watermark.checkpoint.interval.ms",
            "replica.socket.receive.buffer.bytes",
            "replica.socket.timeout.ms",
            "replication.quota.window.num",
            "replication.quota.window.size.seconds",
            "alter.log.dirs.replication.quota.window.num",
            "alter.log.dirs.replication.quota.window.size.seconds",
            "follower.fetch.last.tiered.offset.enable",
            "fetch.purgatory.purge.interval.requests",
            "producer.purgatory.purge.interval.requests",
            "delete.records.purgatory.purge.interval.requests",
        ],
    ),
    (
        ALL_LEADERS_BACK,
        &["leader.imbalance.per.broker.percentage"],
    ),
    (ELECTED_AT_ONCE, &["unclean.leader.election.interval.ms"]),
    (
        EXACT_TIMEOUTS,
        &["transaction.abort.timed.out.transaction.cleanup.interval.ms"],
    ),
    (
        ALWAYS_VERIFIED,
        &["transaction.partition.verification.enable"],
    ),
    (
        TREE_TRANSACTIONS,
        &[
            "transaction.state.log.load.buffer.size",
            "transaction.state.log.min.isr",
            "transaction.state.log.num.partitions",
            "transaction.state.log.replication.factor",
            "transaction.state.log.segment.bytes",
        ],
    ),
    (
        NO_QUOTAS,
        &[
            "client.quota.callback.class",
            "max.connections.per.ip.overrides",
        ],
    ),
    (CLEANER_READS_BATCHES, &["log.cleaner.io.buffer.size"]),
    (CLEANER_FILLS_TABLE, &["log.cleaner.io.buffer.load.factor"]),
    (
        TREE_OFFSETS,
        &[
            "offsets.commit.timeout.ms",
            "offsets.load.buffer.size",
            "offsets.topic.compression.codec",
            "offsets.topic.num.partitions",
            "offsets.topic.replication.factor",
            "offsets.topic.segment.bytes",
            "group.coordinator.append.linger.ms",
            "group.coordinator.rebalance.protocols",
            "group.coordinator.threads",
        ],
    ),
    (
        OWN_THREADS,
        &[
            "background.threads",
            "num.io.threads",
            "queued.max.requests",
        ],
    ),
    (
        NO_REPORTERS,
        &[
            "auto.include.jmx.reporter",
            "kafka.metrics.polling.interval.secs",
            "kafka.metrics.reporters",
            "metric.reporters",
            "metrics.num.samples",
            "metrics.recording.level",
            "metrics.sample.window.ms",
            "message.downconversion.enable",
            "log.message.downconversion.enable",
        ],
    ),
    (
        KERNEL_BUFFERS,
        &[
            "socket.listen.backlog.size",
            "socket.receive.buffer.bytes",
            "socket.send.buffer.bytes",
            "socket.connection.setup.timeout.max.ms",
            "socket.connection.setup.timeout.ms",
            "request.timeout.ms",
        ],
    ),
    (
        ONE_VERSION,
        &[
            "inter.broker.protocol.version",
            "log.message.format.version",
            "control.plane.listener.name",
        ],
    ),
    (
        "shutdown is always controlled (controlled.shutdown.drain.ms)",
        &[
            "controlled.shutdown.enable",
            "controlled.shutdown.max.retries",
            "controlled.shutdown.retry.backoff.ms",
        ],
    ),
    (
        "a record's timestamp is checked by log.message.timestamp.before.max.ms and .after.max.ms",
        &["log.message.timestamp.difference.max.ms"],
    ),
    (
        "recovery points are written at log.flush.offset.checkpoint.interval.ms, and the log's start with them",
        &[
            "log.flush.scheduler.interval.ms",
            "log.flush.start.offset.checkpoint.interval.ms",
            "log.dir.failure.timeout.ms",
            "log.initial.task.delay.ms",
            "producer.id.expiration.check.interval.ms",
        ],
    ),
    (
        "there are no plug-ins",
        &[
            "alter.config.policy.class.name",
            "create.topic.policy.class.name",
            "early.start.listeners",
            "unstable.api.versions.enable",
            "unstable.feature.versions.enable",
        ],
    ),
];

/// Beginnings of names, with what the broker does instead.
const PREFIXES_WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("remote.log.", NO_TIERS),
    ("rlmm.", NO_TIERS),
    ("rsm.", NO_TIERS),
    (
        "group.consumer.regex.",
        "regular expressions are resolved when topics come or go, at most every ten seconds",
    ),
    (
        "group.consumer.assignor.",
        "assignors run where the group is coordinated",
    ),
    ("group.share.", ONE_SHARE_ASSIGNOR),
    ("group.streams.", ONE_STREAMS_ASSIGNOR),
    ("share.coordinator.", TREE_SHARES),
    (
        "password.encoder.",
        "no password is kept in the coordination tree",
    ),
    ("ssl.protocol", OWN_TLS),
    ("ssl.provider", OWN_TLS),
    ("ssl.keymanager.algorithm", OWN_TLS),
    ("ssl.trustmanager.algorithm", OWN_TLS),
    ("ssl.secure.random.implementation", OWN_TLS),
    (
        "ssl.allow.",
        "certificates are read again whatever they name",
    ),
    (
        "zookeeper.ssl.",
        "zookeeper.tls and its kin set up encryption towards ZooKeeper",
    ),
];

/// Beginnings of names that are refused, because a broker that leaves them out would stand open, with what is missing.
const PREFIXES_NOT_SERVED: &[(&str, &str)] = &[
    ("sasl.kerberos.", "Kerberos is not offered"),
    ("sasl.jaas.config", JAAS),
    (
        "sasl.oauthbearer.",
        "brokers have their own tokens of sasl.oauthbearer.token.endpoint.url alone, for a client id and its secret or in a file",
    ),
    ("sasl.server.callback.handler.class", NO_PLUGINS),
    ("sasl.login.", NO_PLUGINS),
    ("sasl.client.callback.handler.class", NO_PLUGINS),
    (
        "principal.builder.class",
        "ssl.principal.mapping.rules make names of certificates",
    ),
    ("ssl.keystore.password", PEM_ALONE),
    ("ssl.truststore.password", PEM_ALONE),
    ("ssl.key.password", PEM_ALONE),
    ("ssl.engine.factory.class", NO_PLUGINS),
    ("security.providers", NO_PLUGINS),
];

const JAAS: &str = "users are kept in the coordination tree (metaq user add), the first one is admin.user, and the brokers' own inter.broker.user";
const NO_PLUGINS: &str = "there are no plug-ins";
const PEM_ALONE: &str = "keys and certificates are PEM files that need no password: openssl pkcs8 -in KEY -out KEY.pem decrypts a key";

/// What becomes of a name that is Kafka's.
pub(super) fn foreign(name: &str) -> Option<Foreign> {
    let exact = WITHOUT_EFFECT
        .iter()
        .find(|(_, names)| names.contains(&name));
    if let Some((instead, _)) = exact {
        return Some(Foreign::WithoutEffect(instead));
    }
    let begins = |(prefix, _): &&(&str, &str)| name.starts_with(prefix);
    if let Some((_, instead)) = PREFIXES_WITHOUT_EFFECT.iter().find(begins) {
        return Some(Foreign::WithoutEffect(instead));
    }
    let refused = PREFIXES_NOT_SERVED.iter().find(begins)?;
    Some(Foreign::NotServed(refused.1))
}

#[cfg(test)]
mod tests {
    use super::super::broker_key;
    use super::*;

    #[test]
    fn no_name_stands_twice_and_none_is_in_the_brokers_table() {
        let mut seen = std::collections::HashSet::new();
        for name in WITHOUT_EFFECT.iter().flat_map(|(_, names)| *names) {
            assert!(seen.insert(name), "{name}");
            assert!(broker_key(name).is_none(), "{name}");
            assert!(
                !PREFIXES_NOT_SERVED
                    .iter()
                    .any(|(prefix, _)| name.starts_with(prefix)),
                "{name}"
            );
        }
    }
}
