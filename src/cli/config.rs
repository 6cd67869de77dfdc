//! `metaq config check|show|set|unset|reload`.
//!
//! Tests: tests/config.rs, tests/advice.rs.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use metaq_protocol::messages::describe_configs_request::DescribeConfigsResource;
use metaq_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use metaq_protocol::protocol::StrBytes;
use serde::Serialize;

use super::client::{Address, Client};
use super::control;
use super::output::print;
use super::refused::{check_right, is_lacking};
use super::{ConfigArguments, Failure};
use crate::broker_security::mistakes;
use crate::config::{Config, Reload, Source, broker_key, broker_keys, unknown_broker_key};
use crate::control::Order;
use crate::security::Operation;

/// Kafka's number of the operation that puts a configuration back.
const DELETE: i8 = 1;
pub(super) const BROKER_LOGGER_RESOURCE: i8 = 8;
/// Kafka's number of a default.
const DEFAULT_SOURCE: i8 = 5;

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Tell everything that is wrong in a configuration file; the exit code is 1 when anything is.
    #[command(after_help = "Example: metaq config check conf/server.ini")]
    Check {
        /// Configuration file.
        file: PathBuf,
        /// As for metaq start.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what is in force, where it is from, and whether it changes at run time: of a running broker, a topic, a group
    /// or a client metrics subscription; or of a file (--config).
    #[command(
        after_help = "Examples:\n  metaq config show\n  metaq config show topic orders --own\n  metaq config show broker default\n  metaq config show -c conf/server.ini"
    )]
    Show {
        /// Of what.
        #[arg(default_value = "broker")]
        kind: Resource,
        /// Its name; for brokers a number or `default`, by default the broker that is asked.
        name: Option<String>,
        /// Only what is set, without defaults.
        #[arg(long)]
        own: bool,
        #[command(flatten)]
        config: ConfigArguments,
        #[command(flatten)]
        address: Address,
    },
    /// Set configurations at run time; they outlive restarts.
    #[command(
        after_help = "Examples:\n  metaq config set broker default log.retention.ms=3600000\n  metaq config set broker 0 max.connections=5000\n  metaq config set topic orders retention.ms=1000\n  metaq config set client-metrics all metrics=* interval.ms=10000"
    )]
    Set {
        /// Of what.
        kind: Resource,
        /// Its name; for brokers a number or `default`.
        name: String,
        /// What to set.
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[command(flatten)]
        address: Address,
    },
    /// Put configurations back to what is in force without them.
    #[command(after_help = "Example: metaq config unset broker default log.retention.ms")]
    Unset {
        /// Of what.
        kind: Resource,
        /// Its name; for brokers a number or `default`.
        name: String,
        /// What to put back.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        #[command(flatten)]
        address: Address,
    },
    /// Let the broker of this machine read its configuration file again; says what changed and what needs a restart. A
    /// file that is wrong changes nothing.
    #[command(after_help = "Example: metaq config reload -c conf/server.ini")]
    Reload {
        #[command(flatten)]
        config: ConfigArguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What has configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Resource {
    Broker,
    Topic,
    Group,
    ClientMetrics,
}

impl Resource {
    /// Kafka's ConfigResource.Type.
    fn code(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::ClientMetrics => 16,
            Self::Group => 32,
        }
    }
}

#[derive(Serialize)]
struct Checked {
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// One configuration in force.
#[derive(Serialize)]
struct Shown {
    name: String,
    value: Option<String>,
    source: String,
    dynamic: bool,
}

impl ConfigCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Check { file, set, json } => check_file(&file, &set, json),
            Action::Show {
                kind,
                name,
                own,
                config,
                address,
            } => {
                let mut shown = match config.config.is_some() {
                    true if kind == Resource::Broker => of_file(&config.load()?),
                    true => return Err("a file tells of the broker alone".into()),
                    false => of_resource(&mut Client::connect(&address)?, kind, name.as_deref())?,
                };
                shown.retain(|shown| !own || shown.source != "default");
                let headings = ["KEY", "VALUE", "FROM", "AT RUN TIME"];
                print(address.json, &headings, &shown, |shown| {
                    let dynamic = if shown.dynamic { "yes" } else { "" };
                    vec![
                        shown.name.clone(),
                        shown
                            .value
                            .clone()
                            .unwrap_or_else(|| not_shown(&shown.name).to_owned()),
                        shown.source.clone(),
                        dynamic.to_owned(),
                    ]
                })
            }
            Action::Set {
                kind,
                name,
                settings,
                address,
            } => {
                let setting = |entry: &String| {
                    let wrong = || format!("{entry}: expected KEY=VALUE");
                    let (key, value) = entry.split_once('=').ok_or_else(wrong)?;
                    Ok((key.trim().to_owned(), Some(value.trim().to_owned())))
                };
                let changes: Result<Vec<_>, String> = settings.iter().map(setting).collect();
                // Brokers keep what they do not know, as Kafka's do; here it is a mistake.
                let is_unknown = |key: &str| kind == Resource::Broker && broker_key(key).is_none();
                if let Ok(changes) = &changes
                    && let Some((key, _)) = changes.iter().find(|(key, _)| is_unknown(key))
                {
                    return Err(unknown_broker_key(key).into());
                }
                change(&address, kind.code(), &resource_name(kind, &name), changes?)?;
                done(&address, &format!("{name} configured"))
            }
            Action::Unset {
                kind,
                name,
                keys,
                address,
            } => {
                let changes = keys.into_iter().map(|key| (key, None)).collect();
                change(&address, kind.code(), &resource_name(kind, &name), changes)?;
                done(&address, &format!("{name} configured"))
            }
            Action::Reload { config, json } => {
                let answer = control::order(&config.load_leniently()?, &Order::Reload)?;
                show_reload(&serde_json::from_value(answer)?, json)
            }
        }
    }
}

fn done(address: &Address, what: &str) -> Result<(), Failure> {
    match address.json {
        true => println!("{}", serde_json::json!({ "done": what })),
        false => println!("{what}"),
    }
    Ok(())
}

fn check_file(file: &std::path::Path, set: &[String], json: bool) -> Result<(), Failure> {
    let (config, mut errors) = Config::examine(Some(file), set)?;
    errors.extend(mistakes(&config));
    let warn = |setting: crate::config::WithoutEffect| {
        let at = match setting.source {
            Source::File(line) => format!("{}: line {line}", file.display()),
            _ => "--set".to_owned(),
        };
        format!("{at}: {} has no effect: {}", setting.name, setting.instead)
    };
    let warnings: Vec<String> = config.without_effect().into_iter().map(warn).collect();
    let checked = Checked { errors, warnings };
    if json {
        println!("{}", serde_json::to_string_pretty(&checked)?);
    } else {
        for error in &checked.errors {
            println!("error: {error}");
        }
        for warning in &checked.warnings {
            println!("warning: {warning}");
        }
    }
    match checked.errors.len() {
        0 => {
            if !json {
                println!("{} is valid", file.display());
            }
            Ok(())
        }
        1 => Err(format!("{}: a mistake", file.display()).into()),
        n => Err(format!("{}: {n} mistakes", file.display()).into()),
    }
}

/// What stands for a value that is not told: of a secret, or as in Kafka of what an authorizer reads.
fn not_shown(name: &str) -> &'static str {
    match broker_key(name).is_some_and(|key| key.is_of_plugin()) {
        true => "(not told: see the file, metaq config show -c)",
        false => "(secret)",
    }
}

fn of_file(config: &Config) -> Vec<Shown> {
    let shown = |key: crate::config::BrokerKey| Shown {
        name: key.name.to_owned(),
        value: match config.text(key.name) {
            value if !value.is_empty() && key.is_secret() => None,
            value => Some(value.to_owned()),
        },
        source: match config.source(key.name) {
            None => "default".to_owned(),
            Some(Source::File(line)) => format!("line {line}"),
            Some(_) => "command line".to_owned(),
        },
        dynamic: key.is_dynamic(),
    };
    broker_keys().map(shown).collect()
}

fn resource_name(kind: Resource, name: &str) -> String {
    match (kind, name) {
        (Resource::Broker, "default") => String::new(),
        _ => name.to_owned(),
    }
}

fn of_resource(
    client: &mut Client,
    kind: Resource,
    name: Option<&str>,
) -> Result<Vec<Shown>, Failure> {
    let configs = match (kind, name) {
        (Resource::Broker, None) => {
            let id = asked_broker(client)?;
            describe(client, None, kind.code(), &id.to_string())?
        }
        (Resource::Broker, Some(name)) => {
            let at = name.parse().ok();
            describe(client, at, kind.code(), &resource_name(kind, name))?
        }
        (_, Some(name)) => describe(client, None, kind.code(), name)?,
        (_, None) => return Err("of which? name it".into()),
    };
    let shown = |config: DescribeConfigsResourceResult| Shown {
        name: config.name.to_string(),
        source: match config.config_source {
            1 => "topic",
            2 => "this broker, at run time",
            3 => "all brokers, at run time",
            4 => "server.ini or command line",
            6 => "logger",
            7 => "client metrics",
            8 => "group",
            _ => "default",
        }
        .to_owned(),
        dynamic: !config.read_only,
        value: match config.is_sensitive {
            // Nothing is set that nobody may see.
            true if config.config_source == DEFAULT_SOURCE => {
                broker_key(&config.name).map(|key| key.default.to_owned())
            }
            true => None,
            false => Some(
                config
                    .value
                    .map_or(String::new(), |value| value.to_string()),
            ),
        },
    };
    Ok(configs.into_iter().map(shown).collect())
}

/// The number of the broker that is asked: the one whose configuration it tells.
pub(super) fn asked_broker(client: &mut Client) -> Result<i32, Failure> {
    let brokers = client.metadata(Some(&[]))?.brokers;
    for broker in &brokers {
        let id = broker.node_id.0;
        match describe(client, None, Resource::Broker.code(), &id.to_string()) {
            Ok(_) => return Ok(id),
            Err(error) if is_lacking(&error) => return Err(error),
            Err(_) => {}
        }
    }
    Err("which broker is asked? name its number".into())
}

/// The configurations of a resource, as a broker tells them, or as the first that is reached does.
pub(super) fn describe(
    client: &mut Client,
    broker: Option<i32>,
    kind: i8,
    name: &str,
) -> Result<Vec<DescribeConfigsResourceResult>, Failure> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(StrBytes::from_string(name.to_owned()))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let response = match broker {
        Some(id) => client.ask_broker(id, 4, &request)?,
        None => client.ask(4, &request)?,
    };
    let result = response.results.into_iter().next();
    let result = result.ok_or("the broker did not answer")?;
    let refused = (result.error_code, result.error_message.as_deref());
    let right = (Operation::DescribeConfigs, &*resource_in_words(kind, name));
    check_right(name, refused, right)?;
    Ok(result.configs)
}

/// Sets configurations of a resource, or puts those without a value back.
pub(super) fn change(
    address: &Address,
    kind: i8,
    name: &str,
    changes: Vec<(String, Option<String>)>,
) -> Result<(), Failure> {
    let changes = changes.into_iter().map(|(key, value)| {
        let operation = if value.is_some() { 0 } else { DELETE };
        (key, operation, value)
    });
    alter(
        &mut Client::connect(address)?,
        None,
        kind,
        name,
        changes.collect(),
    )
}

/// Changes configurations of a resource by key, KIP-339's operation and value.
pub(super) fn alter(
    client: &mut Client,
    broker: Option<i32>,
    kind: i8,
    name: &str,
    changes: Vec<(String, i8, Option<String>)>,
) -> Result<(), Failure> {
    let config = |(key, operation, value): (String, i8, Option<String>)| {
        AlterableConfig::default()
            .with_name(StrBytes::from_string(key))
            .with_config_operation(operation)
            .with_value(value.map(StrBytes::from_string))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(StrBytes::from_string(name.to_owned()))
        .with_configs(changes.into_iter().map(config).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = match broker {
        Some(id) => client.ask_broker(id, 1, &request)?,
        None => client.ask(1, &request)?,
    };
    let result = response.responses.first();
    let result = result.ok_or("the broker did not answer")?;
    let what = if name.is_empty() { "default" } else { name };
    let refused = (result.error_code, result.error_message.as_deref());
    let right = (Operation::AlterConfigs, &*resource_in_words(kind, name));
    check_right(what, refused, right)
}

/// What somebody needs a right to, for the configurations of a resource.
fn resource_in_words(kind: i8, name: &str) -> String {
    match kind {
        _ if kind == Resource::Topic.code() => format!("topic {name}"),
        _ if kind == Resource::Group.code() => format!("group {name}"),
        _ => "the cluster".to_owned(),
    }
}

pub(super) fn show_reload(report: &Reload, json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let all = [
        ("in force now", &report.applied),
        ("in force after a restart", &report.needs_restart),
        (
            "not in force: set at run time or on the command line to something else",
            &report.overruled,
        ),
    ];
    for (what, changes) in all {
        for change in changes {
            println!("{}: {} -> {}, {what}", change.name, change.from, change.to);
        }
    }
    if all.iter().all(|(_, changes)| changes.is_empty()) {
        println!("nothing has changed");
    }
    Ok(())
}
