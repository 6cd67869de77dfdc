//! Who the broker is, where it listens, and what a client may take of it.

use super::INT_MAX;
use crate::config::key::{BrokerKey, key};
use crate::config::value::Kind;

pub(super) const KEYS: &[BrokerKey] = &[
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
        "num.network.threads",
        None,
        Kind::Int(0, 1024),
        "0",
        "Threads that serve connections; 0 for one a core."
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
];
