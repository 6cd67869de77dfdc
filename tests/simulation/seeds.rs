//! Runs many seeds on all processors.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What is wrong with those that fail, by seed; no more than `failures_max` of them are kept, but all are counted.
pub fn run(
    seeds: Range<u64>,
    failures_max: usize,
    one: impl Fn(u64) -> Result<(), String> + Sync,
) -> (u64, Vec<String>) {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let kept = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let Err(what) = one(seed) else { continue };
            failed.fetch_add(1, Ordering::Relaxed);
            let mut kept = kept.lock();
            if kept.len() < failures_max {
                kept.push((seed, what));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut kept = kept.into_inner();
    kept.sort();
    let kept = kept.into_iter().map(|(_, what)| what).collect();
    (failed.into_inner(), kept)
}
