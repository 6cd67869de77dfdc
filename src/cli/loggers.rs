//! `metaq loggers list|set|unset|requests`.
//!
//! Tests: tests/config.rs.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::client::{Address, Client};
use super::config::{BROKER_LOGGER_RESOURCE, alter, asked_broker, describe};
use super::control;
use super::output::{print, say};
use super::{ConfigArguments, Failure};
use crate::control::Order;

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct Loggers {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the broker's loggers with their levels.
    #[command(after_help = "Example: metaq loggers list --json")]
    List {
        #[command(flatten)]
        broker: OneBroker,
    },
    /// Set a logger's level, until the broker ends.
    #[command(
        after_help = "Examples:\n  metaq loggers set metaq::net DEBUG\n  metaq loggers set root WARN"
    )]
    Set {
        /// One of metaq loggers list.
        logger: String,
        /// FATAL, ERROR, WARN, INFO, DEBUG, TRACE or OFF.
        level: String,
        #[command(flatten)]
        broker: OneBroker,
    },
    /// Take a logger's own level away: it has its parent's again.
    #[command(after_help = "Example: metaq loggers unset metaq::net")]
    Unset {
        /// One of metaq loggers list.
        logger: String,
        #[command(flatten)]
        broker: OneBroker,
    },
    /// Log the requests of a client or about a topic for a while, on the broker of this machine.
    #[command(
        after_help = "Example: metaq loggers requests --client billing --for 30 -c conf/server.ini"
    )]
    Requests {
        /// Requests of this client id.
        #[arg(long)]
        client: Option<String>,
        /// Requests that name this topic.
        #[arg(long)]
        topic: Option<String>,
        /// For so many seconds; 60 by default, 3600 at most.
        #[arg(long = "for", value_name = "SECONDS")]
        seconds: Option<u64>,
        /// End it.
        #[arg(long, conflicts_with_all = ["client", "topic", "seconds"])]
        off: bool,
        #[command(flatten)]
        config: ConfigArguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct OneBroker {
    /// Number of the broker; the one that is reached by default.
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
    #[command(flatten)]
    address: Address,
}

impl OneBroker {
    fn connect(&self) -> Result<(Client, i32), Failure> {
        let mut client = Client::connect(&self.address)?;
        let id = match self.broker {
            Some(id) => id,
            None => asked_broker(&mut client)?,
        };
        Ok((client, id))
    }

    fn set(&self, logger: &str, level: Option<String>) -> Result<(), Failure> {
        let (mut client, id) = self.connect()?;
        let operation = i8::from(level.is_none());
        let at = self.broker;
        let said = level
            .clone()
            .map_or("its parent's level".to_owned(), |level| level);
        let changes = vec![(logger.to_owned(), operation, level)];
        let kind = BROKER_LOGGER_RESOURCE;
        alter(&mut client, at, kind, &id.to_string(), changes)?;
        match self.address.json {
            true => println!("{}", serde_json::json!({ "logger": logger, "level": said })),
            false => println!("{logger} has {said}"),
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Listed {
    logger: String,
    level: String,
}

impl Loggers {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::List { broker } => {
                let (mut client, id) = broker.connect()?;
                let kind = BROKER_LOGGER_RESOURCE;
                let loggers = describe(&mut client, broker.broker, kind, &id.to_string())?;
                let listed = loggers.into_iter().map(|logger| Listed {
                    logger: logger.name.to_string(),
                    level: logger
                        .value
                        .map_or(String::new(), |level| level.to_string()),
                });
                let listed: Vec<Listed> = listed.collect();
                print(broker.address.json, &["LOGGER", "LEVEL"], &listed, |row| {
                    vec![row.logger.clone(), row.level.clone()]
                })
            }
            Action::Set {
                logger,
                level,
                broker,
            } => broker.set(&logger, Some(level.to_ascii_uppercase())),
            Action::Unset { logger, broker } => broker.set(&logger, None),
            Action::Requests {
                client,
                topic,
                seconds,
                off,
                config,
                json,
            } => {
                let config = config.load_leniently()?;
                if off {
                    control::order(&config, &Order::LogNoRequests)?;
                    let none = serde_json::json!({ "seconds": 0 });
                    say(json, &none, "no requests are logged");
                    return Ok(());
                }
                let order = Order::LogRequests {
                    client_id: client,
                    topic,
                    seconds,
                };
                let answer = control::order(&config, &order)?;
                let seconds = &answer["seconds"];
                let sentence = format!("requests are logged for {seconds} s under metaq::requests");
                say(json, &answer, &sentence);
                Ok(())
            }
        }
    }
}
