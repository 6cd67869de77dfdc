//! metaq: a broker that speaks the Kafka protocol and keeps MetaQ's model on sequential segment files.
//!
//! The modules in dependency order, lowest first:
//!
//! - [`clock`]: the time of day
//! - [`schedule`]: times of day as MetaQ gives them
//! - [`vital`]: threads and tasks that a broker cannot do without
//! - [`observe`]: what happened, who is connected, the last hours, the log's tail
//! - [`log`]: sequential segment files, byte for byte as Kafka's
//! - [`meta`]: the coordination tree
//! - [`config`]: `server.ini`, broker and topic configurations
//! - [`telemetry`]: metrics that clients push
//! - [`partition`]: partitions of this broker, their writer and sync threads
//! - [`peer`]: connections to other brokers

pub mod admin;
pub mod api;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod control;
pub mod group;
pub mod log;
pub mod logging;
pub mod memory;
pub mod meta;
pub mod metrics;
pub mod net;
pub mod notify;
pub mod observe;
pub mod partition;
pub mod peer;
pub mod schedule;
pub mod telemetry;
pub mod vital;
