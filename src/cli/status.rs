//! `metaq status`: a broker in one screen, what is wrong first.
//!
//! Tests: tests/shell.rs, tests/advice.rs.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::http::{Dashboard, is_refusal};
use super::output::{bytes, count, counted, duration, plain};
use super::{ExitWith, Failure};

/// LSB: the status is not known.
const NOT_KNOWN: u8 = 4;
/// The broker is there, and does not tell who asks.
const NOT_TOLD: u8 = 5;

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all is well; 1 something is wrong; 4 not known, because the broker does not answer or the
identity provider gives no token to ask it with; 5 it answers, but does not tell who asks: a user, a password or a right is missing or wrong, or too many logins failed.

Examples:
  metaq status
  metaq status -d broker-1:8120
  metaq status --json | jq .problems"
)]
pub(super) struct Status {
    #[command(flatten)]
    dashboard: Dashboard,
}

/// What `/api/broker` answers, as far as it is shown.
#[derive(Debug, Serialize, Deserialize)]
struct Broker {
    version: String,
    broker_id: i32,
    cluster_id: String,
    controller_id: i32,
    listener: String,
    uptime_ms: u64,
    coordination: Coordination,
    brokers: u64,
    topics: u64,
    partitions: u64,
    partitions_offline: u64,
    groups: u64,
    lag: f64,
    connections: u64,
    connections_rejected: u64,
    requests_rejected: u64,
    data: Vec<Directory>,
    rates: Rates,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Coordination {
    kind: String,
    session: String,
    lease_ms_left: Option<u64>,
    may_act: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Directory {
    path: String,
    disk_bytes: u64,
    free_bytes: u64,
    log_bytes: u64,
    partitions: u64,
}

/// What happens a second, as the dashboard tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Rates {
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    pub(super) messages_in: f64,
    pub(super) requests: f64,
    pub(super) cpu: f64,
    pub(super) produce_p99_ms: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Problem {
    severity: String,
    kind: String,
    what: String,
    remedy: String,
}

impl Status {
    pub(super) fn run(self) -> Result<(), Failure> {
        let broker: Broker = self.dashboard.get("/api/broker").map_err(|error| {
            let code = if is_refusal(&error) {
                NOT_TOLD
            } else {
                NOT_KNOWN
            };
            ExitWith::failure(code, &error.to_string())
        })?;
        match self.dashboard.json {
            true => println!("{}", serde_json::to_string_pretty(&broker)?),
            false => show(&broker),
        }
        match broker.problems.len() {
            0 => Ok(()),
            1 => Err("a problem".into()),
            n => Err(format!("{n} problems").into()),
        }
    }
}

fn show(broker: &Broker) {
    for problem in &broker.problems {
        println!(
            "{}: {}",
            problem.severity.to_uppercase(),
            plain(&problem.what)
        );
        println!("  {}\n", plain(&problem.remedy));
    }
    let line = |name: &str, text: String| println!("{name:<13} {text}");
    line(
        "Broker",
        format!(
            "{} of cluster {}, metaq {}, up {}, {}",
            broker.broker_id,
            broker.cluster_id,
            broker.version,
            duration(broker.uptime_ms),
            broker.listener
        ),
    );
    line("Coordination", coordination(broker));
    line(
        "Topics",
        format!(
            "{} with {} here, {} offline",
            counted(broker.topics, "topic"),
            counted(broker.partitions, "partition"),
            broker.partitions_offline
        ),
    );
    let lag = count(broker.lag);
    line(
        "Groups",
        format!("{} coordinated here, {lag} messages behind", broker.groups),
    );
    line(
        "Clients",
        format!(
            "{} connections; rejected since the start: {} connections, {} requests",
            broker.connections, broker.connections_rejected, broker.requests_rejected
        ),
    );
    let rates = &broker.rates;
    line(
        "A second",
        format!(
            "{} in ({} messages), {} out, {} requests",
            bytes(rates.bytes_in),
            count(rates.messages_in),
            bytes(rates.bytes_out),
            count(rates.requests)
        ),
    );
    line(
        "Produce p99",
        format!("{:.2} ms; CPU {:.2} cores", rates.produce_p99_ms, rates.cpu),
    );
    for dir in &broker.data {
        let percent = (dir.free_bytes * 100)
            .checked_div(dir.disk_bytes)
            .unwrap_or(0);
        let text = format!(
            "{}: {} in {}, {} free ({percent} %)",
            dir.path,
            bytes(dir.log_bytes as f64),
            counted(dir.partitions, "partition"),
            bytes(dir.free_bytes as f64)
        );
        line("Data", text);
    }
}

fn coordination(broker: &Broker) -> String {
    let Coordination {
        kind,
        session,
        lease_ms_left,
        may_act,
    } = &broker.coordination;
    let controller = match broker.controller_id {
        -1 => "no controller".to_owned(),
        id => format!("controller {id}"),
    };
    let lease = lease_ms_left.map_or(String::new(), |ms| format!(", {ms} ms without an answer"));
    let acts = if *may_act {
        ""
    } else {
        ", MAY NEITHER LEAD NOR COORDINATE"
    };
    format!(
        "{kind}, {session}{lease}{acts}; {}, {controller}",
        counted(broker.brokers, "broker")
    )
}
