//! Runs the log's simulation by the seed, on all processors: `simulate [--from N] [--seeds N] [--steps N]`. Prints the
//! failing seeds with their traces, and ends with exit code 1 when there are any.

#[path = "../tests/simulation/disk.rs"]
mod disk;
#[path = "../tests/simulation/log.rs"]
mod log;
#[path = "../tests/simulation/random.rs"]
mod random;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = words.iter().position(|word| word == name);
        let given = at.and_then(|at| words.get(at + 1)?.parse().ok());
        given.unwrap_or(default)
    };
    let (from, seeds) = (number("--from", 0), number("--seeds", 10_000));
    let steps = number("--steps", 120) as usize;
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    if let Err(what) = log::run(seed, steps) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        eprintln!("{what}");
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{seeds} seeds from {from}, {steps} steps each: {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
