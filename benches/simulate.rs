//! Runs the simulations by the seed, on all processors:
//! `simulate [--what log|syncs|rewrites|moves|compaction|broker|cluster|transactions|replicas|replicated-transactions|groups] [--from N] [--seeds N] [--steps N]`. Prints failing seeds with their traces, and ends
//! with exit code 1 when there are any. `benches/simulate` builds it and runs it.

#[path = "../tests/simulation/admin.rs"]
mod admin;
#[path = "../tests/simulation/chance.rs"]
mod chance;
#[path = "../tests/simulation/client.rs"]
mod client;
#[path = "../tests/simulation/compacted.rs"]
mod compacted;
#[path = "../tests/simulation/consumer.rs"]
mod consumer;
#[path = "../tests/simulation/disk.rs"]
mod disk;
#[path = "../tests/simulation/ensemble.rs"]
mod ensemble;
#[path = "../tests/simulation/history.rs"]
mod history;
#[path = "../tests/simulation/house.rs"]
mod house;
#[path = "../tests/simulation/log.rs"]
mod log;
#[path = "../tests/simulation/member.rs"]
mod member;
#[path = "../tests/simulation/moves.rs"]
mod moves;
#[path = "../tests/simulation/names.rs"]
mod names;
#[path = "../tests/simulation/network.rs"]
mod network;
#[path = "../tests/simulation/operator.rs"]
mod operator;
#[path = "../tests/simulation/owner.rs"]
mod owner;
#[path = "../tests/simulation/process.rs"]
mod process;
#[path = "../tests/simulation/producer.rs"]
mod producer;
#[path = "../tests/simulation/random.rs"]
mod random;
#[path = "../tests/simulation/receiver.rs"]
mod receiver;
#[path = "../tests/simulation/router.rs"]
mod router;
#[path = "../tests/simulation/seeds.rs"]
mod seeds;
#[path = "../tests/simulation/sharer.rs"]
mod sharer;
#[path = "../tests/simulation/store.rs"]
mod store;
#[path = "../tests/simulation/transactions.rs"]
mod transactions;
#[path = "../tests/simulation/transactor.rs"]
mod transactor;
#[path = "../tests/simulation/work.rs"]
mod work;
#[path = "../tests/simulation/world.rs"]
mod world;

use std::process::ExitCode;
use std::time::Instant;

use world::What;

/// More failures than this tell nothing new.
const FAILURES_SHOWN: usize = 5;

/// A step of the simulation of moves is as long as some of the log's.
const MOVE_STEPS_DIVISOR: usize = 4;

/// What is to be run.
struct Asked {
    what: Option<String>,
    from: u64,
    seeds: u64,
    steps: usize,
}

impl Asked {
    fn read() -> Option<Self> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let mut asked = Self {
            what: None,
            from: 0,
            seeds: 10_000,
            steps: 120,
        };
        for pair in words.chunks(2) {
            let [name, value] = pair else { return None };
            match name.as_str() {
                "--what"
                    if [
                        "log",
                        "syncs",
                        "rewrites",
                        "moves",
                        "compaction",
                        "broker",
                        "cluster",
                        "transactions",
                        "replicas",
                        "replicated-transactions",
                        "groups",
                    ]
                    .contains(&value.as_str()) =>
                {
                    asked.what = Some(value.clone())
                }
                "--from" => asked.from = value.parse().ok()?,
                "--seeds" => asked.seeds = value.parse().ok()?,
                "--steps" => asked.steps = value.parse().ok()?,
                _ => return None,
            }
        }
        Some(asked)
    }

    fn wants(&self, what: &str) -> bool {
        self.what.as_ref().is_none_or(|wanted| wanted == what)
    }
}

fn main() -> ExitCode {
    if process::serve() {
        return ExitCode::SUCCESS;
    }
    let Some(asked) = Asked::read() else {
        eprintln!(
            "simulate [--what log|syncs|rewrites|moves|compaction|broker|cluster|transactions|replicas|replicated-transactions|groups] [--from N] [--seeds N] [--steps N]"
        );
        return ExitCode::from(2);
    };
    let mut failed = 0;
    if asked.wants("log") {
        let one = |seed| log::run(seed, asked.steps, log::Faults::Calls);
        failed += run("log", &asked, one);
    }
    if asked.wants("syncs") {
        let one = |seed| log::run(seed, asked.steps, log::Faults::Syncs);
        failed += run("syncs", &asked, one);
    }
    if asked.wants("rewrites") {
        let one = |seed| log::run(seed, asked.steps, log::Faults::Rewrites);
        failed += run("rewrites", &asked, one);
    }
    if asked.wants("moves") {
        let one = |seed| moves::run(seed, asked.steps / MOVE_STEPS_DIVISOR);
        failed += run("moves", &asked, one);
    }
    if asked.wants("compaction") {
        let one = |seed| compacted::run(seed, asked.steps / 2);
        failed += run("compaction", &asked, one);
        let passes = compacted::PASSES.load(std::sync::atomic::Ordering::Relaxed);
        println!("compaction: {passes} passes");
    }
    if asked.wants("broker") {
        failed += run("broker", &asked, |seed| {
            process::run(What::Broker, seed, &[])
        });
    }
    if asked.wants("cluster") {
        let one = |seed| process::run(What::Cluster, seed, &[]);
        failed += run("cluster", &asked, one);
    }
    if asked.wants("transactions") {
        let one = |seed| process::run(What::Transactions, seed, &[]);
        failed += run("transactions", &asked, one);
    }
    if asked.wants("groups") {
        let one = |seed| process::run(What::Groups, seed, &[]);
        failed += run("groups", &asked, one);
    }
    if asked.wants("replicas") {
        let one = |seed| process::run(What::Replicas, seed, &[]);
        failed += run("replicas", &asked, one);
    }
    if asked.wants("replicated-transactions") {
        let one = |seed| process::run(What::ReplicatedTransactions, seed, &[]);
        failed += run("replicated-transactions", &asked, one);
    }
    ExitCode::from(u8::from(failed > 0))
}

/// Runs all seeds of one simulation; returns how many failed.
fn run(what: &str, asked: &Asked, one: impl Fn(u64) -> Result<(), String> + Sync) -> u64 {
    let started = Instant::now();
    let all = asked.from..asked.from + asked.seeds;
    let (failed, shown) = seeds::run(all, FAILURES_SHOWN, one);
    for why in shown {
        eprintln!("{what}, {why}");
    }
    let seconds = started.elapsed().as_secs();
    println!(
        "{what}: {} seeds from {} in {seconds} s: {failed} failed",
        asked.seeds, asked.from
    );
    failed
}
