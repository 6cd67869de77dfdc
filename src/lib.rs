//! metaq: a broker that speaks the Kafka protocol and keeps MetaQ's model on sequential segment files.
//!
//! The modules in dependency order, lowest first:
//!
//! - [`clock`]: the time of day
//! - [`schedule`]: times of day as MetaQ gives them
//! - [`supervisor`]: threads and tasks that a broker cannot do without: which of them panicked
//! - [`notify`]: messages to systemd
//! - [`memory`]: the one budget of all memory that clients can make the broker use
//! - [`observe`]: events, connected clients, the last hours, the log's tail
//! - [`decisions`]: what a connection was allowed lately
//! - [`session`]: a client's connection: its listener, who it is, where it is
//! - [`security`]: access control lists, and what they decide
//! - [`logging`]: where the log goes, and its levels
//! - [`metrics`]: what is counted
//! - [`log`]: sequential segment files, byte for byte as Kafka's
//! - [`meta`]: the coordination tree
//! - [`config`]: `server.ini`, broker and topic configurations
//! - [`telemetry`]: metrics that clients push
//! - [`throttle`]: how fast throttled replicas are copied
//! - [`partition`]: partitions of this broker, and who writes and syncs them
//! - [`peer`]: connections to other brokers
//! - [`coordinator`]: slots of ids, and the tasks that run their state machines
//! - [`cluster`]: the cluster's image, membership, the controller
//! - [`quota`]: how much each client may do, and how long it is to wait
//! - [`group`]: consumer groups and their offsets
//! - [`share`]: what share groups do with the records of partitions
//! - [`transaction`]: transactional ids and their transactions
//! - [`mirror`]: `__consumer_offsets` as a log, for tools that read it
//! - [`api`]: one file a Kafka API
//! - [`markers`]: writes the markers that end transactions
//! - [`slots`]: lets the coordinators follow the cluster
//! - [`net`]: listeners, connections, sending
//! - [`control`]: the control socket of an operator
//! - [`admin`]: the dashboard, its API, metrics and health
//! - [`broker`]: everything put together
//! - [`cli`]: `metaq start` and the operator commands

pub mod admin;
pub mod api;
pub mod audit;
pub mod bearer_source;
pub mod broker;
pub mod broker_options;
pub mod broker_security;
pub mod certificates;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod decisions;
pub mod group;
pub mod group_settings;
pub mod jwks;
pub mod log;
pub mod logging;
pub mod login;
pub mod markers;
pub mod memory;
pub mod meta;
pub mod metrics;
pub mod mirror;
pub mod net;
pub mod notify;
pub mod observe;
pub mod partition;
pub mod peer;
pub mod per_second;
pub mod principal;
pub mod provider;
pub mod quota;
pub mod replication;
pub mod rotation;
pub mod schedule;
pub mod security;
pub mod session;
pub mod share;
pub mod slots;
pub mod supervisor;
pub mod telemetry;
pub mod throttle;
pub mod tokens;
pub mod transaction;
pub mod users;
