//! `metaq cluster status`, and `drain` (`drain.rs`) and `balance` (`balance.rs`).
//!
//! Tests: tests/replicas.rs, tests/cluster.rs.

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::balance::Balance;
use super::drain::Drain;
use super::http::Dashboard;
use super::output::{counted, or_dash, print};

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct Cluster {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the brokers, the controller, the session with the coordination store, and how many partitions lack
    /// something. The exit code is 1 when the broker that is asked may not lead, or when partitions have no leader or
    /// fewer replicas in sync than min.insync.replicas.
    #[command(after_help = "Example: metaq cluster status -d broker-1:8120")]
    Status {
        #[command(flatten)]
        dashboard: Dashboard,
    },
    /// Have others lead and coordinate what a broker does, until --undo: before it is looked after, say.
    Drain(Drain),
    /// Propose moves after which all brokers keep and lead as much, spread over racks, with little to copy.
    Balance(Balance),
}

#[derive(Debug, Serialize, Deserialize)]
struct Broker {
    id: i32,
    /// `live`, `stopping` or `away`.
    state: String,
    host: String,
    port: u16,
    rack: Option<String>,
    epoch: i64,
    controller: bool,
    #[serde(default)]
    drained: bool,
    leads: usize,
    replicas: usize,
    in_sync: usize,
    slots: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Coordination {
    kind: String,
    session: String,
    session_number: u64,
    lease_ms_left: Option<u64>,
    may_act: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Status {
    cluster_id: String,
    broker_id: i32,
    version: String,
    controller_id: i32,
    coordination: Coordination,
    brokers: Vec<Broker>,
    topics: usize,
    partitions: usize,
    partitions_without_leader: usize,
    partitions_under_replicated: usize,
    partitions_under_min_isr: usize,
}

impl Cluster {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Status { dashboard } => status(&dashboard),
            Action::Drain(drain) => drain.run(),
            Action::Balance(balance) => balance.run(),
        }
    }
}

fn status(dashboard: &Dashboard) -> Result<(), Failure> {
    let status: Status = dashboard.get("/api/cluster")?;
    if dashboard.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        show(&status)?;
    }
    if !status.coordination.may_act {
        return Err(format!("broker {} may not lead at this moment", status.broker_id).into());
    }
    let lacking = [
        (status.partitions_without_leader, "without a leader"),
        (
            status.partitions_under_min_isr,
            "with fewer replicas in sync than min.insync.replicas",
        ),
    ];
    match lacking.iter().find(|(n, _)| *n > 0) {
        None => Ok(()),
        Some((n, how)) => Err(format!("{} {how}", counted(*n as u64, "partition")).into()),
    }
}

fn role(broker: &Broker) -> String {
    let roles = [
        (broker.controller, "controller"),
        (broker.drained, "drained"),
    ];
    let has = roles.iter().filter(|(has, _)| *has);
    has.map(|(_, role)| *role).collect::<Vec<_>>().join(", ")
}

fn show(status: &Status) -> Result<(), Failure> {
    let Coordination {
        kind,
        session,
        session_number,
        lease_ms_left,
        may_act,
    } = &status.coordination;
    let controller = match status.controller_id {
        -1 => "none".to_owned(),
        id => id.to_string(),
    };
    let left = match (lease_ms_left, may_act) {
        (_, false) => ", may neither lead nor coordinate".to_owned(),
        (Some(ms), true) => format!(", may lead and coordinate for {ms} ms without an answer"),
        (None, true) => String::new(),
    };
    println!(
        "Cluster {}, asked broker {} (metaq {}), controller {controller}",
        status.cluster_id, status.broker_id, status.version
    );
    println!("Coordination: {kind}, session {session_number} {session}{left}");
    println!(
        "{}, {}: {} without a leader, {} with replicas that are not in sync, {} below min.insync.replicas",
        counted(status.topics as u64, "topic"),
        counted(status.partitions as u64, "partition"),
        status.partitions_without_leader,
        status.partitions_under_replicated,
        status.partitions_under_min_isr,
    );
    let headings = [
        "BROKER",
        "STATE",
        "ADDRESS",
        "RACK",
        "EPOCH",
        "LEADS",
        "REPLICAS",
        "IN SYNC",
        "GROUP SLOTS",
        "ROLE",
    ];
    print(false, &headings, &status.brokers, |broker| {
        let is_away = broker.state == "away";
        let host = match broker.host.as_str() {
            "" => "*",
            host => host,
        };
        vec![
            broker.id.to_string(),
            broker.state.clone(),
            match is_away {
                true => "-".to_owned(),
                false => format!("{host}:{}", broker.port),
            },
            or_dash(&broker.rack),
            match is_away {
                true => "-".to_owned(),
                false => broker.epoch.to_string(),
            },
            broker.leads.to_string(),
            broker.replicas.to_string(),
            broker.in_sync.to_string(),
            broker.slots.to_string(),
            role(broker),
        ]
    })
}
