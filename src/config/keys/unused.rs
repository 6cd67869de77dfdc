//! What MetaQ had and this broker has no use for.

use crate::config::key::{BrokerKey, key};
use crate::config::value::Kind;

pub(super) const KEYS: &[BrokerKey] = &[
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
];
