//! The coordination tree, in ZooKeeper or embedded.

use super::INT_MAX;
use crate::config::key::{BrokerKey, key};
use crate::config::value::Kind;

pub(super) const KEYS: &[BrokerKey] = &[
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
];
