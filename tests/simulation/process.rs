//! Runs each seed in a process of its own: tokio counts its runtimes across a process and lets its choices follow from
//! that, so only the first run in a process can be repeated.

use std::path::Path;
use std::process::{Command, Stdio};

use super::world::{self, What};

/// Tells a child which seed to run.
const SEED: &str = "METAQ_SIMULATED_SEED";
/// Tells a child what to simulate.
const WHAT: &str = "METAQ_SIMULATED";
/// Tells a child, where it is set, to write what the brokers log beside the report.
const LOG: &str = "METAQ_SIMULATION_LOG";
/// Tells a child where to leave what it found.
const REPORT: &str = "METAQ_SIMULATION_REPORT";

/// Runs one seed in a child, with the arguments that make it call [`serve`]: what is wrong, and the trace behind it,
/// when something is.
pub fn run(what: What, seed: u64, arguments: &[&str]) -> Result<(), String> {
    let report = told(what, seed, arguments)?;
    match report.split_once('\n') {
        Some(("", _)) => Ok(()),
        _ => Err(format!("seed {seed}: {report}")),
    }
}

/// What is wrong on the first line, and then the trace.
pub fn told(what: What, seed: u64, arguments: &[&str]) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("seed {seed}: {error}");
    let report = tempfile::NamedTempFile::new().map_err(failed)?;
    let child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(arguments)
        .env(WHAT, what.name())
        .env(SEED, seed.to_string())
        .env(REPORT, report.path())
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    let told = std::fs::read_to_string(report.path()).map_err(failed)?;
    match told.is_empty() {
        false => Ok(told),
        true => Err(format!(
            "seed {seed}: the process ended with {}\n{}",
            child.status,
            String::from_utf8_lossy(&child.stderr)
        )),
    }
}

/// Does what [`run`] asks for, in a child; false where nobody asked.
pub fn serve() -> bool {
    let (Ok(seed), Ok(report)) = (std::env::var(SEED), std::env::var(REPORT)) else {
        return false;
    };
    if let Ok(log) = std::env::var(LOG) {
        let log = std::fs::File::create(log).expect("the log can be written");
        let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time();
        subscriber.with_writer(std::sync::Mutex::new(log)).init();
    }
    let seed = seed.parse().expect("the parent gives a number");
    let what = std::env::var(WHAT).ok();
    let what = what.and_then(|name| What::named(&name));
    let (failure, trace) = world::told(what.unwrap_or(What::Broker), seed);
    let text = format!(
        "{}\n  {}\n",
        failure.unwrap_or_default(),
        trace.join("\n  ")
    );
    std::fs::write(Path::new(&report), text).expect("the parent made the file");
    true
}
