//! The table of broker configurations (Kafka's names, with MetaQ's beside them), by subject.

mod coordination;
mod groups;
mod network;
mod operation;
mod quotas;
mod replication;
mod storage;
mod transactions;
mod unused;

use super::key::BrokerKey;
use super::security::SECURITY_KEYS;

const INT_MAX: i64 = i32::MAX as i64;

/// Configurations that are read together.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// For people.
    pub name: &'static str,
    /// In the order in which they are told.
    pub keys: &'static [BrokerKey],
}

/// The broker's own configurations. Defaults for topics come beside them from [`crate::config::TOPIC_KEYS`].
pub const SUBJECTS: &[Subject] = &[
    Subject {
        name: "Broker and network",
        keys: network::KEYS,
    },
    Subject {
        name: "Storage",
        keys: storage::KEYS,
    },
    Subject {
        name: "Coordination",
        keys: coordination::KEYS,
    },
    Subject {
        name: "Replication",
        keys: replication::KEYS,
    },
    Subject {
        name: "Groups",
        keys: groups::KEYS,
    },
    Subject {
        name: "Transactions",
        keys: transactions::KEYS,
    },
    Subject {
        name: "Security",
        keys: SECURITY_KEYS,
    },
    Subject {
        name: "Quotas",
        keys: quotas::KEYS,
    },
    Subject {
        name: "Operation",
        keys: operation::KEYS,
    },
    Subject {
        name: "Accepted without effect",
        keys: unused::KEYS,
    },
];
