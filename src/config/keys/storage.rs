//! Data directories, topics and partitions, syncs, retention, compaction.

use super::INT_MAX;
use crate::config::key::{BrokerKey, key};
use crate::config::value::Kind;

/// More cleaners than any machine has disks.
const CLEANER_THREADS_MAX: i64 = 256;

pub(super) const KEYS: &[BrokerKey] = &[
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
        "log.dirs",
        Some("dataPath"),
        Kind::Text,
        "data",
        "Data directories, separated by commas; a relative one is below the directory that the broker is started in."
    ),
    key!(
        "num.partitions",
        Some("numPartitions"),
        Kind::Int(1, INT_MAX),
        "1",
        "Partitions per broker of a topic that is created without a number."
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
        "log.archive.dir",
        Some("archivePath"),
        Kind::Text,
        "archive",
        "Where segments of topics with archive.enable (deletePolicy archive,…) go before they are deleted; a directory for each partition. Linked where it is on the same file system, copied and synced otherwise."
    ),
];
