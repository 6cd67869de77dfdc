//! The command line: starting the broker, and operator commands against a running one or its files.

mod client;
mod group;
mod log;
mod output;
mod start;
mod topic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// List, describe and delete consumer groups, and reset their offsets.
    Group(group::Group),
    /// Look into a data directory while no broker uses it.
    Log(log::Log),
}

/// Why a command failed; printed after `metaq: `.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a command; a failure is printed and makes the exit code 1.
pub fn run(command: Command) -> ExitCode {
    let result = match command.command {
        Subcommands::Start(start) => start.run(),
        Subcommands::Topic(topic) => topic.run(),
        Subcommands::Group(group) => group.run(),
        Subcommands::Log(log) => log.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metaq: {error}");
            ExitCode::FAILURE
        }
    }
}
