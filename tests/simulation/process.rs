//! Runs each seed in a process of its own: tokio counts its runtimes across a process and lets its choices follow from
//! that, so only the first run in a process can be repeated.

use std::path::Path;
use std::process::{Command, Stdio};

use super::world;

/// Tells a child which seed to run.
const SEED: &str = "METAQ_SIMULATED_SEED";
/// Tells a child where to leave what it found.
const REPORT: &str = "METAQ_SIMULATION_REPORT";

/// Runs one seed in a child, with the arguments that make it call [`serve`]: what is wrong, and the trace behind it,
/// when something is.
pub fn run(seed: u64, arguments: &[&str]) -> Result<(), String> {
    let report = told(seed, arguments)?;
    match report.split_once('\n') {
        Some(("", _)) => Ok(()),
        _ => Err(format!("seed {seed}: {report}")),
    }
}

/// What is wrong on the first line, and then the trace.
pub fn told(seed: u64, arguments: &[&str]) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("seed {seed}: {error}");
    let report = tempfile::NamedTempFile::new().map_err(failed)?;
    let child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(arguments)
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
    let seed = seed.parse().expect("the parent gives a number");
    let (failure, trace) = world::told(seed);
    let text = format!(
        "{}\n  {}\n",
        failure.unwrap_or_default(),
        trace.join("\n  ")
    );
    std::fs::write(Path::new(&report), text).expect("the parent made the file");
    true
}
