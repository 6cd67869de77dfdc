//! `metaq txn list|describe|commit|abort|forget`: transactions of a broker, and decisions about those of two phases whose
//! producer does not come back.
//!
//! Tests: tests/transactions.rs.

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Failure;
use super::http::{Dashboard, escape, escape_element};
use super::output::{duration, plain, print, say};

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  metaq txn list --open
  metaq txn describe orders-1
  METAQ_TOKEN=… metaq txn commit orders-1
  METAQ_TOKEN=… metaq txn forget orders-1")]
pub(super) struct TxnCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List transactional ids: hanging transactions, open ones by age, the others.
    #[command(after_help = "Example: metaq txn list --filter orders --open")]
    List {
        /// Only those whose name contains this.
        #[arg(long)]
        filter: Option<String>,
        /// Only those with a transaction that is open or being ended, or with a recorded decision.
        #[arg(long)]
        open: bool,
        #[command(flatten)]
        dashboard: Dashboard,
    },
    /// Show a transactional id with the partitions of its transaction, and what they hold back.
    #[command(after_help = "Example: metaq txn describe orders-1")]
    Describe {
        /// The transactional id.
        id: String,
        #[command(flatten)]
        dashboard: Dashboard,
    },
    /// Commit an open transaction of two phases without its producer; the decision is recorded.
    #[command(after_help = "Example: METAQ_TOKEN=… metaq txn commit orders-1")]
    Commit(One),
    /// Abort an open transaction without its producer; of one of two phases the decision is recorded.
    #[command(after_help = "Example: METAQ_TOKEN=… metaq txn abort orders-1")]
    Abort(One),
    /// Forget a recorded decision, once the other system is known to agree.
    #[command(after_help = "Example: METAQ_TOKEN=… metaq txn forget orders-1")]
    Forget(One),
}

/// A transactional id, and the dashboard of the broker that coordinates it.
#[derive(Debug, Args)]
struct One {
    /// The transactional id.
    id: String,
    #[command(flatten)]
    dashboard: Dashboard,
}

#[derive(Debug, Deserialize)]
struct Page {
    total: u64,
    items: Vec<Transaction>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Transaction {
    transactional_id: String,
    state: String,
    producer_id: i64,
    epoch: i16,
    two_phase: bool,
    timeout_ms: Option<i32>,
    start_ms: Option<i64>,
    age_ms: Option<u64>,
    updated_ms: i64,
    partitions: u64,
    hanging: bool,
    decision: Option<Decision>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Decision {
    outcome: String,
    producer_id: i64,
    epoch: i16,
    at_ms: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Partition {
    topic: String,
    partition: i32,
    leader: i32,
    held_back: Option<i64>,
}

/// Transactional ids that are asked for at a time.
const PAGE: usize = 1000;

impl TxnCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::List {
                filter,
                open,
                dashboard,
            } => list(&dashboard, filter.as_deref(), open),
            Action::Describe { id, dashboard } => describe(&dashboard, &id),
            Action::Commit(one) => act(&one, "commit"),
            Action::Abort(one) => act(&one, "abort"),
            Action::Forget(one) => act(&one, "forget"),
        }
    }
}

fn list(dashboard: &Dashboard, filter: Option<&str>, open: bool) -> Result<(), Failure> {
    let filter = filter.map_or(String::new(), |text| format!("&filter={}", escape(text)));
    let mut all = Vec::new();
    loop {
        let path = format!(
            "/api/transactions?limit={PAGE}&offset={}{filter}",
            all.len()
        );
        let page = dashboard.get::<Page>(&path)?;
        let last = page.items.is_empty();
        all.extend(page.items);
        if last || all.len() as u64 >= page.total {
            break;
        }
    }
    if open {
        all.retain(|one| one.age_ms.is_some() || one.decision.is_some());
    }
    let headings = [
        "ID",
        "STATE",
        "OPEN FOR",
        "PARTITIONS",
        "TIMEOUT",
        "PRODUCER",
        "EPOCH",
        "NOTES",
    ];
    print(dashboard.json, &headings, &all, |one| {
        vec![
            one.transactional_id.clone(),
            one.state.clone(),
            one.age_ms.map_or("-".to_owned(), duration),
            one.partitions.to_string(),
            timeout(one),
            one.producer_id.to_string(),
            one.epoch.to_string(),
            notes(one),
        ]
    })
}

fn timeout(one: &Transaction) -> String {
    let ms = one.timeout_ms.and_then(|ms| u64::try_from(ms).ok());
    ms.map_or("none".to_owned(), duration)
}

fn notes(one: &Transaction) -> String {
    let mut notes = Vec::new();
    if one.hanging {
        notes.push("hanging".to_owned());
    }
    if one.two_phase {
        notes.push("two phases".to_owned());
    }
    if let Some(decision) = &one.decision {
        notes.push(format!("decided: {}", decision.outcome));
    }
    notes.join(", ")
}

fn describe(dashboard: &Dashboard, id: &str) -> Result<(), Failure> {
    let path = format!("/api/transactions/{}", escape_element(id));
    let whole: Value = dashboard.get(&path)?;
    if dashboard.json {
        println!("{}", serde_json::to_string_pretty(&whole)?);
        return Ok(());
    }
    let one: Transaction = serde_json::from_value(whole["transaction"].clone())?;
    let partitions: Vec<Partition> = serde_json::from_value(whole["partitions"].clone())?;
    println!(
        "{}: {}, producer {}, epoch {}, timeout {}",
        plain(&one.transactional_id),
        one.state,
        one.producer_id,
        one.epoch,
        timeout(&one)
    );
    if let Some(ms) = one.age_ms {
        println!("Its transaction is open for {}", duration(ms));
    }
    if let Some(decision) = &one.decision {
        println!(
            "An operator decided {} for producer {}, epoch {}; the other system may have decided otherwise",
            decision.outcome, decision.producer_id, decision.epoch
        );
    }
    let headings = ["TOPIC", "PARTITION", "LEADER", "HELD BACK"];
    print(false, &headings, &partitions, |row| {
        vec![
            row.topic.clone(),
            row.partition.to_string(),
            row.leader.to_string(),
            row.held_back.map_or("-".to_owned(), |n| n.to_string()),
        ]
    })
}

fn act(one: &One, what: &str) -> Result<(), Failure> {
    let path = format!("/api/transactions/{}/{what}", escape_element(&one.id));
    let done: Value = one.dashboard.post(&path)?;
    let sentence = done["message"].as_str().unwrap_or_default();
    say(one.dashboard.json, &done, &plain(sentence));
    Ok(())
}
