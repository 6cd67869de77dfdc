//! Dashboard, metrics, logs, shutdown.

use super::INT_MAX;
use crate::config::key::{BrokerKey, key};
use crate::config::value::Kind;

pub(super) const KEYS: &[BrokerKey] = &[
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
