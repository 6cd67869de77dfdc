//! `metaq quota list|set|remove`.
//!
//! Tests: tests/advice.rs, tests/metrics.rs.

use clap::{Args, Subcommand};
use metaq_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use metaq_protocol::messages::{AlterClientQuotasRequest, DescribeClientQuotasRequest};
use metaq_protocol::messages::{describe_client_quotas_request, describe_client_quotas_response};
use metaq_protocol::protocol::StrBytes;
use serde::Serialize;

use super::Failure;
use super::client::{Address, Client};
use super::output::{plain, print, say};
use super::refused::check_right;
use crate::security::Operation;

/// Whose quotas they are has a name.
const EXACT: i8 = 0;
/// They are those of all without their own.
const DEFAULT: i8 = 1;

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct QuotaCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List quotas: all, or those that name a user, client id or address.
    #[command(after_help = "Examples:\n  metaq quota list\n  metaq quota list --user alice --json")]
    List {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        address: Address,
    },
    /// Set quotas of a user, a client id, a user's client id, or an address; others that it has stay.
    #[command(
        after_help = "Examples:\n  metaq quota set --user alice producer_byte_rate=1048576\n  metaq quota set --user alice --default-client-id request_percentage=50\n  metaq quota set --default-ip connection_creation_rate=20"
    )]
    Set {
        #[command(flatten)]
        of: Of,
        /// producer_byte_rate and consumer_byte_rate (bytes a second), request_percentage (percent of one thread),
        /// controller_mutation_rate (partitions a second); of addresses connection_creation_rate (connections a second).
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[command(flatten)]
        address: Address,
    },
    /// Remove quotas; all of the entity where no key is given.
    #[command(
        after_help = "Examples:\n  metaq quota remove --user alice producer_byte_rate\n  metaq quota remove --client-id billing"
    )]
    Remove {
        #[command(flatten)]
        of: Of,
        /// What to remove.
        #[arg(value_name = "KEY")]
        keys: Vec<String>,
        #[command(flatten)]
        address: Address,
    },
}

/// Whose quotas.
#[derive(Debug, Args)]
struct Of {
    /// Of this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Of all users that have none of their own.
    #[arg(long, conflicts_with = "user")]
    default_user: bool,
    /// Of this client id.
    #[arg(long, value_name = "NAME")]
    client_id: Option<String>,
    /// Of all client ids that have none of their own.
    #[arg(long, conflicts_with = "client_id")]
    default_client_id: bool,
    /// Of this address or host.
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Of all addresses that have none of their own.
    #[arg(long, conflicts_with = "ip")]
    default_ip: bool,
}

impl Of {
    /// Types and names, `None` for the default.
    fn parts(&self) -> Vec<(&'static str, Option<&str>)> {
        let all = [
            ("user", &self.user, self.default_user),
            ("client-id", &self.client_id, self.default_client_id),
            ("ip", &self.ip, self.default_ip),
        ];
        all.into_iter()
            .filter(|(_, name, is_default)| name.is_some() || *is_default)
            .map(|(kind, name, _)| (kind, name.as_deref()))
            .collect()
    }

    /// The same, where somebody has to be named.
    fn named(&self) -> Result<Vec<(&'static str, Option<&str>)>, Failure> {
        match self.parts() {
            parts if parts.is_empty() => {
                Err("say whose: --user, --client-id or --ip, or one of --default-…".into())
            }
            parts => Ok(parts),
        }
    }
}

/// The quotas of addresses.
const OF_ADDRESSES: &str = "connection_creation_rate";
/// The quotas of users and client ids.
const OF_CLIENTS: [&str; 4] = [
    "producer_byte_rate",
    "consumer_byte_rate",
    "request_percentage",
    "controller_mutation_rate",
];

/// Whether somebody can have a quota; one that nobody has is for the broker to refuse.
fn check_fits(of: &[(&str, Option<&str>)], key: &str) -> Result<(), Failure> {
    let is_address = of.iter().any(|(kind, _)| *kind == "ip");
    let wanted = match () {
        () if key == OF_ADDRESSES && !is_address => "addresses: --ip or --default-ip",
        () if OF_CLIENTS.contains(&key) && is_address => {
            "users and client ids: --user, --client-id, --default-user, --default-client-id"
        }
        () => return Ok(()),
    };
    Err(format!("{key} is a quota of {wanted}").into())
}

/// The quotas of an entity.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    entity: std::collections::BTreeMap<String, Option<String>>,
    quotas: std::collections::BTreeMap<String, f64>,
}

impl Listed {
    fn name(&self, kind: &str) -> String {
        match self.entity.get(kind) {
            None => String::new(),
            Some(None) => "(default)".to_owned(),
            Some(Some(name)) => plain(name),
        }
    }
}

impl QuotaCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::List { of, address } => {
                let listed = list(&mut Client::connect(&address)?, &of.parts(), false)?;
                let headings = ["USER", "CLIENT ID", "IP", "QUOTAS"];
                print(address.json, &headings, &listed, |one| {
                    let quotas = one.quotas.iter();
                    let quotas: Vec<String> = quotas
                        .map(|(key, value)| format!("{key}={value}"))
                        .collect();
                    let [user, client, ip] = ["user", "client-id", "ip"].map(|kind| one.name(kind));
                    vec![user, client, ip, quotas.join(" ")]
                })
            }
            Action::Set {
                of,
                settings,
                address,
            } => {
                let setting = |entry: &String| {
                    let wrong = || format!("{entry}: expected KEY=VALUE, the value a number");
                    let (key, value) = entry.split_once('=').ok_or_else(wrong)?;
                    let value = value.trim().parse::<f64>().map_err(|_| wrong())?;
                    Ok((key.trim().to_owned(), Some(value)))
                };
                let changes: Result<Vec<_>, String> = settings.iter().map(setting).collect();
                let (named, changes) = (of.named()?, changes?);
                for (key, _) in &changes {
                    check_fits(&named, key)?;
                }
                alter(&mut Client::connect(&address)?, &named, changes)?;
                say(address.json, &serde_json::json!({ "set": settings }), "set");
                Ok(())
            }
            Action::Remove { of, keys, address } => {
                let named = of.named()?;
                for key in &keys {
                    check_fits(&named, key)?;
                }
                remove(&mut Client::connect(&address)?, &named, keys, address.json)
            }
        }
    }
}

/// Removes quotas of somebody, all where none is named.
fn remove(
    client: &mut Client,
    of: &[(&str, Option<&str>)],
    mut keys: Vec<String>,
    json: bool,
) -> Result<(), Failure> {
    let own = list(client, of, true)?;
    let set: Vec<String> = own
        .into_iter()
        .flat_map(|one| one.quotas.into_keys())
        .collect();
    if keys.is_empty() {
        keys.clone_from(&set);
    }
    if !keys.is_empty() {
        let changes = keys.iter().map(|key| (key.clone(), None)).collect();
        alter(client, of, changes)?;
    }
    let (removed, others): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| set.contains(key));
    let sentence = match (removed.is_empty(), others.is_empty()) {
        (false, true) => "removed".to_owned(),
        (false, false) => format!("removed; not set was {}", others.join(", ")),
        (true, _) => "nothing was set".to_owned(),
    };
    say(json, &serde_json::json!({ "removed": removed }), &sentence);
    Ok(())
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn list(
    client: &mut Client,
    of: &[(&str, Option<&str>)],
    strict: bool,
) -> Result<Vec<Listed>, Failure> {
    let component = |(kind, name): &(&str, Option<&str>)| {
        describe_client_quotas_request::ComponentData::default()
            .with_entity_type(text(kind))
            .with_match_type(if name.is_some() { EXACT } else { DEFAULT })
            .with_match(name.map(text))
    };
    let request = DescribeClientQuotasRequest::default()
        .with_components(of.iter().map(component).collect())
        .with_strict(strict);
    let answer = client.ask(1, &request)?;
    let refused = (answer.error_code, answer.error_message.as_deref());
    check_right(
        "quotas",
        refused,
        (Operation::DescribeConfigs, "the cluster"),
    )?;
    let listed = |entry: describe_client_quotas_response::EntryData| {
        let entity = entry.entity.into_iter().map(|part| {
            let name = part.entity_name.map(|name| name.to_string());
            (part.entity_type.to_string(), name)
        });
        let quotas = entry.values.into_iter();
        Listed {
            entity: entity.collect(),
            quotas: quotas
                .map(|quota| (quota.key.to_string(), quota.value))
                .collect(),
        }
    };
    let entries = answer.entries.unwrap_or_default();
    let mut all: Vec<Listed> = entries.into_iter().map(listed).collect();
    all.sort_by(|a, b| a.entity.cmp(&b.entity));
    Ok(all)
}

fn alter(
    client: &mut Client,
    of: &[(&str, Option<&str>)],
    changes: Vec<(String, Option<f64>)>,
) -> Result<(), Failure> {
    let part = |(kind, name): &(&str, Option<&str>)| {
        EntityData::default()
            .with_entity_type(text(kind))
            .with_entity_name(name.map(text))
    };
    let op = |(key, value): (String, Option<f64>)| {
        OpData::default()
            .with_key(text(&key))
            .with_value(value.unwrap_or_default())
            .with_remove(value.is_none())
    };
    let entry = EntryData::default()
        .with_entity(of.iter().map(part).collect())
        .with_ops(changes.into_iter().map(op).collect());
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    let answer = client.ask(1, &request)?;
    for entry in answer.entries {
        let refused = (entry.error_code, entry.error_message.as_deref());
        check_right("quotas", refused, (Operation::AlterConfigs, "the cluster"))?;
    }
    Ok(())
}
