//! The log over a disk that forgets, by the seed. `cargo run --release --example simulate` runs as many as one likes.
//!
//! Found this way, and kept as named seeds below: what each of them was is in its name.

#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/random.rs"]
mod random;

/// Seeds of a usual run; each of so many steps.
const SEEDS: u64 = 200;
const STEPS: usize = 120;

#[test]
fn a_log_keeps_what_it_acknowledged_over_a_disk_that_forgets() {
    let failed: Vec<String> = (0..SEEDS)
        .filter_map(|seed| log::run(seed, STEPS).err())
        .collect();
    let first = failed.first().map_or("", String::as_str);
    assert!(
        failed.is_empty(),
        "{} of {SEEDS} seeds; {first}",
        failed.len()
    );
}

#[test]
fn an_index_that_a_power_failure_left_behind_is_not_the_next_segments() {
    for seed in [56, 180, 203] {
        log::run(seed, STEPS).unwrap();
    }
}

#[test]
fn a_segment_whose_name_was_not_synced_before_a_crash_is_synced_after_it() {
    for seed in [52, 219, 1091, 3958] {
        log::run(seed, STEPS).unwrap();
    }
}

#[test]
fn a_hole_that_was_deleted_before_it_was_lost_does_not_keep_a_log_closed() {
    for seed in [82, 166] {
        log::run(seed, STEPS).unwrap();
    }
}

#[test]
fn retention_leaves_nothing_that_a_power_failure_could_take_whole() {
    for seed in [4189, 5549, 5562] {
        log::run(seed, STEPS).unwrap();
    }
}

#[test]
fn a_deleted_segment_that_a_power_failure_brings_back_takes_nothing_with_it() {
    for seed in [8322, 9852] {
        log::run(seed, STEPS).unwrap();
    }
}
