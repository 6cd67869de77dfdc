//! The command line: starting the broker, and operator commands against a running one or its files.

mod aborted;
mod acl;
mod acl_words;
mod authority;
mod balance;
mod certificate;
mod client;
mod client_security;
mod clients;
mod cluster;
mod config;
mod consume;
mod control;
mod doctor;
mod drain;
mod group;
mod group_members;
mod group_offsets;
mod http;
mod in_flight;
mod lines;
mod log;
mod loggers;
mod manual;
mod meta;
mod mode;
mod moves;
mod output;
mod partition;
mod partitioner;
mod produce;
mod quota;
mod reassign;
mod refused;
mod secure;
mod server;
mod spread;
mod start;
mod stats;
mod status;
mod support;
mod token;
mod top;
mod topic;
mod txn;
mod user;
mod words;
mod wrong_listener;

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
    /// Show a broker in one screen.
    Status(status::Status),
    /// Watch what moves: topics, groups, clients.
    Top(top::Top),
    /// Create, list, describe, alter, move and delete topics.
    Topic(topic::Topic),
    /// Write records, a line each.
    Produce(produce::Produce),
    /// Read a topic's records.
    Consume(consume::Consume),
    /// List, describe and delete consumer groups, and reset their offsets.
    Group(group::Group),
    /// List and describe clients, and those that were refused.
    Client(clients::ClientCommand),
    /// Add, list and remove the users that authenticate with SASL.
    User(user::UserCommand),
    /// Make, renew, end and list delegation tokens, with which programs log in for a user.
    Token(token::TokenCommand),
    /// Make certificates, an admin and a configuration with which nobody gets in who is not known.
    Secure(secure::Secure),
    /// Sign certificates for more brokers and for clients, and the next ones.
    Certificate(certificate::Certificate),
    /// List, set and remove how much users, client ids and addresses may do.
    Quota(quota::QuotaCommand),
    /// List transactions, and decide those whose producer does not come back.
    Txn(txn::TxnCommand),
    /// Show the cluster, spread what it keeps, and take the lead from a broker.
    Cluster(cluster::Cluster),
    /// Read the coordination tree, or take it to another store.
    Meta(meta::Meta),
    /// Check this machine for a broker: limits, disk, clock, ports, ZooKeeper.
    Doctor(doctor::Doctor),
    /// Look into a data directory while no broker uses it.
    Log(log::Log),
    /// Check, show and change configurations.
    Config(config::ConfigCommand),
    /// List, add and remove access control lists: who may do what.
    Acl(acl::Acl),
    /// Show and change what a running broker logs.
    Loggers(loggers::Loggers),
    /// List, open, close, empty and move partitions.
    Partition(partition::Partition),
    Stats(stats::Stats),
    Query(stats::Query),
    /// Start and stop a broker in the background (bin/metaServer.sh).
    Server(server::Server),
    /// Collect what somebody needs who is to help: configuration, status, metrics, log.
    SupportBundle(support::SupportBundle),
    Completions(manual::Completions),
    Man(manual::Man),
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

    /// What can be read of it: to find a running broker, whose file may be wrong by now.
    fn load_leniently(&self) -> Result<Config, ConfigError> {
        Ok(Config::examine(self.config.as_deref(), &self.set)?.0)
    }
}

/// A failure with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct ExitWith {
    code: u8,
    what: String,
}

impl ExitWith {
    fn failure(code: u8, what: &str) -> Failure {
        let what = what.to_owned();
        Box::new(Self { code, what })
    }
}

/// Why a command failed; printed after `metaq: `.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Who reads the output may have seen enough, as `head` has: then the command is over, and that is no bug. The library's
/// printing panics where it cannot write.
fn end_with_the_reader() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>();
        let said = said.map_or("", String::as_str);
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(0);
        }
        report(panic);
    }));
}

/// Runs a command; a failure is printed and makes the exit code 1.
pub fn run(command: Command) -> ExitCode {
    end_with_the_reader();
    let result = match command.command {
        Subcommands::Start(start) => start.run(),
        Subcommands::Status(status) => status.run(),
        Subcommands::Top(top) => top.run(),
        Subcommands::Topic(topic) => topic.run(),
        Subcommands::Produce(produce) => produce.run(),
        Subcommands::Consume(consume) => consume.run(),
        Subcommands::Group(group) => group.run(),
        Subcommands::Client(client) => client.run(),
        Subcommands::User(user) => user.run(),
        Subcommands::Token(token) => token.run(),
        Subcommands::Secure(secure) => secure.run(),
        Subcommands::Certificate(certificate) => certificate.run(),
        Subcommands::Quota(quota) => quota.run(),
        Subcommands::Txn(txn) => txn.run(),
        Subcommands::Cluster(cluster) => cluster.run(),
        Subcommands::Meta(meta) => meta.run(),
        Subcommands::Doctor(doctor) => doctor.run(),
        Subcommands::Log(log) => log.run(),
        Subcommands::Config(config) => config.run(),
        Subcommands::Acl(acl) => acl.run(),
        Subcommands::Loggers(loggers) => loggers.run(),
        Subcommands::Partition(partition) => partition.run(),
        Subcommands::Stats(stats) => stats.run(),
        Subcommands::Query(query) => query.run(),
        Subcommands::Server(server) => server.run(),
        Subcommands::SupportBundle(bundle) => bundle.run(),
        Subcommands::Completions(completions) => completions.run(),
        Subcommands::Man(man) => man.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "metaq: {error}");
            let own = error.downcast_ref::<ExitWith>();
            own.map_or(ExitCode::FAILURE, |exit| ExitCode::from(exit.code))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Command;

    /// Visits every command that does something.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        let own = command
            .get_subcommands()
            .filter(|one| one.get_name() != "help");
        let own: Vec<_> = own.collect();
        if own.is_empty() {
            found.push((path.to_owned(), command.clone()));
        }
        for one in own {
            leaves(one, &format!("{path} {}", one.get_name()), found);
        }
    }

    #[test]
    fn every_command_has_an_example_of_itself() {
        let mut found = Vec::new();
        leaves(&Command::command(), "metaq", &mut found);
        let without = found.iter().filter(|(path, command)| {
            let help = command.get_after_help().map(ToString::to_string);
            !help.unwrap_or_default().contains(path.as_str())
        });
        let without: Vec<&String> = without.map(|(path, _)| path).collect();
        assert!(without.is_empty(), "{without:#?}");
    }

    #[test]
    fn every_command_that_tells_something_tells_it_as_json_too() {
        let mut found = Vec::new();
        leaves(&Command::command(), "metaq", &mut found);
        // A broker that runs, what is not there, and texts for shells and for man.
        let other = ["metaq start", "metaq completions", "metaq man"];
        let without = found.iter().filter(|(path, command)| {
            let has = command
                .get_arguments()
                .any(|one| one.get_long() == Some("json"));
            !has && !other.contains(&path.as_str())
        });
        let without: Vec<&String> = without.map(|(path, _)| path).collect();
        assert!(without.is_empty(), "{without:#?}");
    }
}
