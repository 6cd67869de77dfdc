//! The log over a disk that forgets, by the seed. `cargo run --release --example simulate` runs as many as one likes.

#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/random.rs"]
mod random;

/// Seeds of a usual run; each of so many steps.
const SEEDS: u64 = 300;
const STEPS: usize = 120;

#[test]
fn one() {
    if let Ok(seed) = std::env::var("SEED") { if let Err(e) = log::run(seed.parse().unwrap(), STEPS) { eprintln!("{e}"); } }
}

#[test]
fn a_log_keeps_what_it_acknowledged_over_a_disk_that_forgets() {
    let failures: Vec<String> = (0..SEEDS)
        .filter_map(|seed| log::run(seed, STEPS).err())
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {SEEDS} seeds; the first: {}",
        failures.len(),
        failures.iter().map(|f| f.lines().next().unwrap_or_default().to_owned() + "\n").collect::<String>()
    );
}
