//! `metaq client list|describe|refused`: who is connected to a broker, with which software, and who was sent away and why.
//!
//! Tests: tests/shell.rs.

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::http::{Dashboard, escape};
use super::output::{bytes, or_dash, plain, print};
use crate::observe::cut;

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  metaq client list
  metaq client list --filter shipper
  metaq client describe 17
  metaq client refused --json | jq '.[0]'")]
pub(super) struct ClientCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List open connections.
    #[command(
        after_help = "Examples:\n  metaq client list --filter shipper\n  metaq client list --filter User:billing"
    )]
    List {
        /// Only those whose client id, user, address or software contains this.
        #[arg(long)]
        filter: Option<String>,
        #[command(flatten)]
        dashboard: Dashboard,
    },
    /// Show a connection: what it uses, in which versions, and how it was refused.
    #[command(after_help = "Example: metaq client describe 17")]
    Describe {
        /// Its number in the list.
        number: u64,
        #[command(flatten)]
        dashboard: Dashboard,
    },
    /// List the latest refused requests and connections, with the reasons.
    #[command(after_help = "Example: metaq client refused --json | jq \".[0]\"")]
    Refused {
        #[command(flatten)]
        dashboard: Dashboard,
    },
}

#[derive(Debug, Deserialize)]
struct Clients {
    connected: Page,
    rejections: Vec<Rejection>,
}

#[derive(Debug, Deserialize)]
struct Page {
    total: u64,
    items: Vec<Connection>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Connection {
    number: u64,
    peer: String,
    client_id: String,
    user: String,
    software: String,
    software_version: String,
    connected_ms: i64,
    requests: u64,
    request_bytes: u64,
    response_bytes: u64,
    errors: u64,
    throttled_ms: u64,
    last_error: Option<String>,
    apis: Vec<Used>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Used {
    name: String,
    version: i16,
}

/// An event of the broker's ring.
#[derive(Debug, Serialize, Deserialize)]
struct Rejection {
    at_ms: i64,
    count: u64,
    subject: String,
    who: String,
    why: String,
}

/// Longer names are cut in a table, letters.
const NAME_LETTERS_MAX: usize = 64;
/// Connections that are asked for at a time.
const PAGE: usize = 1000;

impl ClientCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::List { filter, dashboard } => list(&dashboard, filter.as_deref()),
            Action::Describe { number, dashboard } => describe(&dashboard, number),
            Action::Refused { dashboard } => refused(&dashboard),
        }
    }
}

fn list(dashboard: &Dashboard, filter: Option<&str>) -> Result<(), Failure> {
    let filter = filter.map_or(String::new(), |text| format!("&filter={}", escape(text)));
    let mut all = Vec::new();
    loop {
        let path = format!("/api/clients?limit={PAGE}&offset={}{filter}", all.len());
        let page = dashboard.get::<Clients>(&path)?.connected;
        let last = page.items.is_empty();
        all.extend(page.items);
        if last || all.len() as u64 >= page.total {
            break;
        }
    }
    let headings = [
        "NUMBER", "PEER", "USER", "CLIENT", "SOFTWARE", "REQUESTS", "SENT", "GOT", "REFUSED",
    ];
    print(dashboard.json, &headings, &all, |client| {
        vec![
            client.number.to_string(),
            client.peer.clone(),
            client.user.clone(),
            client.client_id.clone(),
            format!("{} {}", client.software, client.software_version),
            client.requests.to_string(),
            bytes(client.request_bytes as f64),
            bytes(client.response_bytes as f64),
            client.errors.to_string(),
        ]
    })
}

fn describe(dashboard: &Dashboard, number: u64) -> Result<(), Failure> {
    let whole: serde_json::Value = dashboard.get(&format!("/api/clients/{number}"))?;
    if dashboard.json {
        println!("{}", serde_json::to_string_pretty(&whole)?);
        return Ok(());
    }
    let client: Connection = serde_json::from_value(whole["client"].clone())?;
    println!(
        "Connection {} from {}: {} ({} {})",
        client.number,
        client.peer,
        plain(&client.client_id),
        plain(&client.software),
        plain(&client.software_version)
    );
    if !client.user.is_empty() {
        println!("User: {}", plain(&client.user));
    }
    println!(
        "{} requests, {} sent, {} got, {} refused, {} ms throttled",
        client.requests,
        bytes(client.request_bytes as f64),
        bytes(client.response_bytes as f64),
        client.errors,
        client.throttled_ms
    );
    println!("Refused last: {}", plain(&or_dash(&client.last_error)));
    print(false, &["API", "VERSION"], &client.apis, |api| {
        vec![api.name.clone(), api.version.to_string()]
    })
}

fn refused(dashboard: &Dashboard) -> Result<(), Failure> {
    let rejections = dashboard.get::<Clients>("/api/clients?limit=1")?.rejections;
    print(
        dashboard.json,
        &["WHEN", "TIMES", "WHAT", "WHO", "WHY"],
        &rejections,
        |one| {
            let when = jiff::Timestamp::from_millisecond(one.at_ms);
            vec![
                when.map_or(one.at_ms.to_string(), |when| format!("{when:.0}")),
                one.count.to_string(),
                cut(&one.subject, NAME_LETTERS_MAX),
                cut(&one.who, NAME_LETTERS_MAX),
                one.why.clone(),
            ]
        },
    )
}
