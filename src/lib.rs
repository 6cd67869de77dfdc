//! metaq: a broker that speaks the Kafka protocol and keeps MetaQ's model on sequential segment files.
//!
//! The modules in dependency order, lowest first:
//!
//! - [`clock`]: the time of day
//! - [`schedule`]: times of day as MetaQ gives them
//! - [`supervisor`]: threads and tasks that a broker cannot do without: which of them panicked
//! - [`notify`]: messages to systemd
//! - [`memory`]: the one budget of all memory that clients can make the broker use
//! - [`per_second`]: so many a second and no more, of what anybody can cause
//! - [`rotation`]: a file of lines that is set aside when it is full
//! - [`observe`]: events, connected clients, the last hours, the log's tail
//! - [`decisions`]: what a connection was allowed lately
//! - [`principal`]: who a client is
//! - [`security`]: access control lists, and what they decide
//! - [`session`]: a client's connection: its listener, who it is, where it is
//! - [`certificates`]: until when the certificates are good that a broker shows
//! - [`provider`]: identity providers, and how they are asked
//! - [`jwks`]: keeps the keys of identity providers up to date
//! - [`bearer_source`]: where bearer tokens of one's own come from
//! - [`login`]: what brokers and commands log in with
//! - [`logging`]: where the log goes, and its levels
//! - [`metrics`]: what is counted
//! - [`throttle`]: how fast throttled replicas are copied
//! - [`log`]: sequential segment files, byte for byte as Kafka's
//! - [`meta`]: the coordination tree
//! - [`config`]: `server.ini`, broker and topic configurations
//! - [`audit`]: the audit log: who asked for what that changes something
//! - [`telemetry`]: metrics that clients push
//! - [`partition`]: partitions of this broker, and who writes and syncs them
//! - [`peer`]: connections to other brokers
//! - [`coordinator`]: slots of ids, and the tasks that run their state machines
//! - [`cluster`]: the cluster's image, membership, the controller
//! - [`tokens`]: delegation tokens that are in force
//! - [`users`]: the users that may authenticate
//! - [`quota`]: how much each client may do, and how long it is to wait
//! - [`group`]: consumer groups and their offsets
//! - [`group_settings`]: what is in force for each group
//! - [`share`]: what share groups do with the records of partitions
//! - [`transaction`]: transactional ids and their transactions
//! - [`mirror`]: `__consumer_offsets` as a log, for tools that read it
//! - [`api`]: one file a Kafka API
//! - [`replication`]: copies what this broker follows, and proposes who is in sync
//! - [`markers`]: writes the markers that end transactions
//! - [`slots`]: lets the coordinators follow the cluster
//! - [`net`]: listeners, connections, sending
//! - [`control`]: the control socket of an operator
//! - [`admin`]: the dashboard, its API, metrics and health
//! - [`broker_options`]: what parts of a broker are told of its configuration
//! - [`store`]: opens the coordination store that the configuration names
//! - [`broker_security`]: the way to other brokers, and certificates that follow their files
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
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod throttle;
pub mod tokens;
pub mod transaction;
pub mod users;
