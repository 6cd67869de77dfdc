//! The command line: starting the broker, and operator commands against a running one or its files.

mod client;
mod cluster;
mod consume;
mod doctor;
mod group;
mod http;
mod log;
mod meta;
mod output;
mod partitioner;
mod produce;
mod start;
mod topic;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError};

/// metaq: a Kafka-compatible broker with MetaQ's model.
#[derive(Debug, Parser)]
#[command(name = "metaq", version, about, max_term_width = 100)]
pub struct Command {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Start a broker in the foreground.
    Start(start::Start),
    /// Create, list, describe, alter and delete topics.
    Topic(topic::Topic),
    /// Write records, a line each.
    Produce(produce::Produce),
    /// Read a topic's records.
    Consume(consume::Consume),
    /// List, describe and delete consumer groups, and reset their offsets.
    Group(group::Group),
    /// Show the cluster.
    Cluster(cluster::Cluster),
    /// Read the coordination tree, or take it to another store.
    Meta(meta::Meta),
    /// Check this machine for a broker: limits, disk, clock, ports, ZooKeeper.
    Doctor(doctor::Doctor),
    /// Look into a data directory while no broker uses it.
    Log(log::Log),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigArguments {
    /// Configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a configuration, over the file; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArguments {
    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref(), &self.set)
    }
}

/// Why a command failed; printed after `metaq: `.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a command; a failure is printed and makes the exit code 1.
pub fn run(command: Command) -> ExitCode {
    let result = match command.command {
        Subcommands::Start(start) => start.run(),
        Subcommands::Topic(topic) => topic.run(),
        Subcommands::Produce(produce) => produce.run(),
        Subcommands::Consume(consume) => consume.run(),
        Subcommands::Group(group) => group.run(),
        Subcommands::Cluster(cluster) => cluster.run(),
        Subcommands::Meta(meta) => meta.run(),
        Subcommands::Doctor(doctor) => doctor.run(),
        Subcommands::Log(log) => log.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "metaq: {error}");
            ExitCode::FAILURE
        }
    }
}
