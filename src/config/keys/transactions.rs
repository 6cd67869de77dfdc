//! Transactions and idempotent producers.

use super::INT_MAX;
use crate::config::key::{BrokerKey, key};
use crate::config::value::Kind;

pub(super) const KEYS: &[BrokerKey] = &[
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
        Kind::Int(0, 2),
        "1",
        "When the embedded store syncs changes of transactions: 1 before they are answered, 2 within a second, 0 when the system likes. A kill loses none of them; a power failure what was not synced, so that a transaction that was committed may be aborted, or open. ZooKeeper syncs each."
    ),
    key!(
        "producer.id.expiration.ms",
        None,
        Kind::Int(1, INT_MAX),
        "86400000",
        "A silent producer is forgotten after this, ms."
    ),
    key!(
        "producer.ids.max.bytes",
        None,
        Kind::Int(1, INT_MAX),
        "33554432",
        "What the producers that all partitions together remember may take, bytes: about 300 each and partition. Beyond that those that wrote longest ago are forgotten, as after their expiration."
    ),
];
