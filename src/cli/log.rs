//! `metaq log dump|verify|repair`: a data directory's files, while no broker writes to them.
//!
//! Tests: tests/cli.rs, tests/shell.rs.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Failure;
use super::output::Progress;
use crate::clock::WallClock;
use crate::log::{Dump, DumpedBatch, Repair, dump_segment, plan_repairs, verify_dir_reporting};

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct Log {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the batches of a segment, and with --records what is in them.
    #[command(
        after_help = "Example: metaq log dump data/orders-0/00000000000000000000.log --records"
    )]
    Dump {
        /// A `.log` file.
        file: PathBuf,
        /// Unpack the batches.
        #[arg(long)]
        records: bool,
        /// Print one JSON object a batch.
        #[arg(long)]
        json: bool,
    },
    /// Check CRCs, offsets, indexes and producer snapshots; exit code 1 when something is wrong.
    #[command(after_help = "Example: metaq log verify data/")]
    Verify {
        /// A data directory, or one partition's directory.
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Cut logs off before what is damaged, and set aside indexes and producer snapshots that do not fit; shows what would
    /// happen unless --execute is given. No broker may use the directory.
    #[command(after_help = "Example: metaq log repair data/orders-0 --execute")]
    Repair {
        /// A data directory, or one partition's directory.
        dir: PathBuf,
        /// Do it.
        #[arg(long)]
        execute: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Log {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Dump {
                file,
                records,
                json,
            } => dump(&file, records, json),
            Action::Verify { dir, json } => verify(&dir, json),
            Action::Repair { dir, execute, json } => repair(&dir, execute, json),
        }
    }
}

fn dump(file: &std::path::Path, records: bool, json: bool) -> Result<(), Failure> {
    let show = |batch: DumpedBatch| {
        if json {
            println!("{}", serde_json::to_string(&batch)?);
            return Ok(());
        }
        println!(
            "offsets {}..={} position {} bytes {} records {} epoch {} {} timestamp {} producer {}/{} sequence {}{}{}{}{}",
            batch.base_offset,
            batch.last_offset,
            batch.position,
            batch.bytes,
            batch.count,
            batch.leader_epoch,
            batch.compression,
            batch.max_timestamp,
            batch.producer_id,
            batch.producer_epoch,
            batch.base_sequence,
            if batch.transactional {
                " transactional"
            } else {
                ""
            },
            if batch.control { " control" } else { "" },
            batch.marker.as_ref().map_or(String::new(), |marker| {
                let (outcome, epoch) = (marker.outcome, marker.coordinator_epoch);
                format!(" {outcome} by coordinator epoch {epoch}")
            }),
            if batch.valid { "" } else { " CRC IS WRONG" },
        );
        for record in &batch.records {
            let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "null".to_owned());
            let headers: Vec<String> = record
                .headers
                .iter()
                .map(|(key, value)| format!("{key}={}", part(value)))
                .collect();
            println!(
                "  {} {} key {} value {} [{}]",
                record.offset,
                record.timestamp,
                part(&record.key),
                part(&record.value),
                headers.join(", ")
            );
        }
        Ok(())
    };
    dump_segment(file, Dump { records }, show)?;
    Ok(())
}

/// The locks of a data directory, or of the one of a partition, which keep brokers away until they are dropped; `None` where a broker
/// has one.
fn locked(dir: &std::path::Path) -> Option<Vec<std::fs::File>> {
    let mut locks = Vec::new();
    for dir in [dir.to_path_buf(), dir.join("..")] {
        let Ok(lock) = std::fs::File::open(dir.join(".lock")) else {
            continue;
        };
        match lock.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => return None,
            _ => locks.push(lock),
        }
    }
    Some(locks)
}

fn repair(dir: &std::path::Path, execute: bool, json: bool) -> Result<(), Failure> {
    let in_use = || format!("a broker uses {}; stop it first", dir.display());
    // Until the end where it repairs: a broker that starts meanwhile would write to that.
    let _locks = Some(locked(dir).ok_or_else(in_use)?).filter(|_| execute);
    let named = |error: std::io::Error| format!("{}: {error}", dir.display());
    let progress = Progress::new("partitions");
    let repairs = plan_repairs(dir, |done, of| progress.at(done, of)).map_err(named)?;
    drop(progress);
    if json {
        println!("{}", serde_json::to_string_pretty(&repairs)?);
    } else {
        repairs.iter().for_each(show_repair);
    }
    if execute {
        for repair in repairs.iter().filter(|repair| repair.left_alone.is_none()) {
            let now_ms = WallClock::default().now_ms();
            let aside = repair.execute(now_ms).map_err(named)?;
            eprintln!(
                "{}: repaired; the rest is in {}",
                repair.dir.display(),
                aside.display()
            );
        }
    }
    let to_repair = repairs.iter().filter(|repair| repair.left_alone.is_none());
    match (to_repair.count(), execute) {
        (0, _) => eprintln!("Nothing to repair."),
        (_, true) => {}
        (n, false) => {
            eprintln!("{n} partitions to repair; nothing was changed. Give --execute to do it.")
        }
    }
    Ok(())
}

fn show_repair(repair: &Repair) {
    let dir = repair.dir.display();
    if let Some(cut) = &repair.cut {
        let (segment, why, bytes) = (&cut.segment, &cut.why, cut.bytes);
        match cut.position {
            Some(at) => println!(
                "{dir}: {segment} is cut off at byte {at}: {why}; {bytes} bytes of records are set aside"
            ),
            None => println!(
                "{dir}: ends before {segment}: {why}; {bytes} bytes of records are set aside"
            ),
        }
    }
    if let Some(why) = repair.left_alone {
        println!("{dir}: left alone: {why}");
    }
    for name in &repair.set_aside {
        println!("{dir}: {name} is set aside");
    }
}

fn verify(dir: &std::path::Path, json: bool) -> Result<(), Failure> {
    if locked(dir).is_none() {
        eprintln!(
            "A broker uses {}: what it writes at this moment may look damaged.",
            dir.display()
        );
    }
    let progress = Progress::new("partitions");
    let seen = verify_dir_reporting(dir, |done, of| progress.at(done, of))
        .map_err(|error| format!("{}: {error}", dir.display()))?;
    drop(progress);
    if json {
        println!("{}", serde_json::to_string_pretty(&seen)?);
    } else {
        for finding in &seen.findings {
            let position = finding
                .position
                .map_or(String::new(), |at| format!(" at byte {at}"));
            println!("{}{position}: {}", finding.file.display(), finding.what);
        }
        println!(
            "{} partitions, {} segments, {} batches, {} records, {} bytes: {} findings",
            seen.partitions,
            seen.segments,
            seen.batches,
            seen.records,
            seen.bytes,
            seen.findings.len()
        );
    }
    if seen.findings.is_empty() {
        Ok(())
    } else {
        Err(format!("{} findings", seen.findings.len()).into())
    }
}
