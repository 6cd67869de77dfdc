//! Who writes what is queued (`src/partition/inline_write.rs`), with threads that take turns as shuttle chooses: at each lock,
//! counter and wake-up any other may go on. The file is the broker's; its locks and its clock are this test's (`primitives.rs`),
//! and what is written goes nowhere (`directory.rs`). Shuttle knows no weak memory: what it explores is sequentially consistent.
//!
//! Held in every order: one writes at a time; a connection's jobs are written in its order, once, and before they are answered;
//! nobody waits for something that nobody will write (shuttle reports a deadlock); after a stop or a panic all that was queued is
//! answered, and nothing more is written.
//!
//! A failure prints its schedule; `shuttle::replay` runs it again.

mod directory;
#[path = "../../src/partition/executor.rs"]
#[allow(dead_code)]
mod executor;
#[path = "../../src/partition/inline_write.rs"]
#[allow(dead_code)]
mod inline_write;
mod polls;
mod primitives;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;
use shuttle::{Config, Runner};

use directory::{Answer, Directory, House, Kind, Refused, unless_escaped};
use inline_write::{InlineWrites, with_inline_writes};

/// Orders that each scheduler tries of each test, unless INLINE_WRITE_ORDERS says how many.
const ORDERS: usize = 1000;
/// Preemptions that the second scheduler puts where they hurt most.
const PREEMPTIONS: usize = 3;
const SEED: u64 = 14;
/// Of a thread: what panics needs room.
const STACK_BYTES: usize = 256 << 10;

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let scenario = Arc::new(scenario);
    let more = std::env::var("INLINE_WRITE_ORDERS").ok();
    let orders = more.and_then(|more| more.parse().ok()).unwrap_or(ORDERS);
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    // That orderings are taken for SeqCst is said above.
    config.silence_warnings = true;
    let random = RandomScheduler::new_from_seed(SEED, orders);
    let run = scenario.clone();
    Runner::new(random, config.clone()).run(move || run());
    let preempting = PctScheduler::new_from_seed(SEED, PREEMPTIONS, orders);
    Runner::new(preempting, config).run(move || scenario());
}

/// Times at which connections write, or do not after a commit group that was slow.
fn inline_writes(at_a_time_max: usize) -> InlineWrites {
    let mut inline_writes = InlineWrites::new(at_a_time_max);
    inline_writes.time_max = Duration::from_millis(thread_rng().gen_range(2..10));
    inline_writes.pause = Duration::from_millis(thread_rng().gen_range(1..20));
    inline_writes
}

/// What a connection brings: mostly what it may write itself.
fn kinds(count: usize) -> Vec<Kind> {
    let kind = |n| match n {
        0 => Kind::Slow,
        1 => Kind::Much,
        _ => Kind::Little,
    };
    (0..count)
        .map(|_| kind(thread_rng().gen_range(0..8)))
        .collect()
}

/// Brings batches, each in one poll, as a connection does: the next one when the one before is answered.
fn connect(house: &House, name: usize, batches: Vec<Vec<Kind>>) -> thread::JoinHandle<Vec<Answer>> {
    let house = house.clone();
    thread::spawn(move || {
        let work = async {
            let mut answers = Vec::new();
            let mut numbers = 0..;
            for batch in batches {
                let jobs = numbers.by_ref().zip(batch);
                let waiting: Vec<_> = jobs.map(|(n, kind)| house.push((name, n), kind)).collect();
                for answer in waiting {
                    answers.push(answer.await);
                }
            }
            answers
        };
        let connection = || block_on(with_inline_writes(pin!(work)));
        unless_escaped(connection).unwrap_or_default()
    })
}

fn all_written(answers: &[Answer]) -> bool {
    answers.iter().all(Result::is_ok)
}

/// Whether what was refused came after what was written.
fn is_refused_from_some_point_on(answers: &[Answer], why: Refused) -> bool {
    let written = answers.iter().take_while(|answer| answer.is_ok()).count();
    answers[written..].iter().all(|answer| *answer == Err(why))
}

#[test]
fn all_that_connections_queue_is_written_once_and_in_their_order() {
    explore(|| {
        let house = House::open(Directory::new(), inline_writes(2));
        let batches = || (0..3).map(|n| kinds(1 + n % 2)).collect();
        let connections: Vec<_> = (0..2).map(|n| connect(&house, n, batches())).collect();
        for connection in connections {
            assert!(all_written(&connection.join().unwrap()));
        }
        house.close();
    });
}

#[test]
fn who_queues_outside_a_poll_is_written_for_beside_connections() {
    explore(|| {
        let house = House::open(Directory::new(), inline_writes(1));
        let connection = connect(&house, 0, vec![kinds(2), kinds(1)]);
        for n in 0..3 {
            assert!(block_on(house.push((1, n), Kind::Little)).is_ok());
        }
        assert!(all_written(&connection.join().unwrap()));
        house.close();
    });
}

#[test]
fn whoever_queued_before_a_stop_is_answered_and_nothing_is_written_after_it() {
    explore(|| {
        let house = House::open(Directory::new(), inline_writes(2));
        let batches = || vec![kinds(1), kinds(2), kinds(1)];
        let connections: Vec<_> = (0..2).map(|n| connect(&house, n, batches())).collect();
        for _ in 0..thread_rng().gen_range(0..20) {
            thread::yield_now();
        }
        house.close();
        for connection in connections {
            let answers = connection.join().unwrap();
            assert!(is_refused_from_some_point_on(&answers, Refused::Unwritten));
        }
    });
}

#[test]
fn what_comes_after_a_partition_moved_is_refused_and_what_came_before_is_written() {
    explore(|| {
        let house = House::open(Directory::new(), inline_writes(2));
        let connections = [0, 1].map(|n| connect(&house, n, vec![kinds(1), kinds(2)]));
        // As a relocation does: outside a poll, and never on the fast path.
        assert!(block_on(house.push((2, 0), Kind::Moves)).is_ok());
        let written = house.directory().written();
        for connection in connections {
            let answers = connection.join().unwrap();
            assert!(is_refused_from_some_point_on(&answers, Refused::Moved));
        }
        assert_eq!(house.directory().written(), written);
        house.close();
    });
}

/// A commit group that panics, in a connection or in the thread: caught by the supervisor, or not even by that.
fn panic_in_a_group(kind: Kind) {
    explore(move || {
        let house = House::open(Directory::new(), inline_writes(2));
        let other = connect(&house, 0, vec![kinds(1), kinds(2), kinds(1)]);
        let culprit = {
            let house = house.clone();
            thread::spawn(move || {
                let answers = vec![house.push((1, 0), Kind::Little), house.push((1, 1), kind)];
                let work = async {
                    // In its own poll, unless the thread was faster.
                    let answer = house.push((1, 2), Kind::Little);
                    answer.await
                };
                let last = unless_escaped(|| block_on(with_inline_writes(pin!(work))));
                let answers: Vec<_> = answers.into_iter().map(block_on).collect();
                assert!(answers[1].is_err());
                last
            })
        };
        assert!(culprit.join().unwrap().is_none_or(|last| last.is_err()));
        let answers = other.join().unwrap();
        assert!(is_refused_from_some_point_on(&answers, Refused::Unwritten));
        let late = house.push((1, 3), Kind::Little);
        assert_eq!(block_on(late), Err(Refused::Unwritten));
        house.close();
    });
}

#[test]
fn a_panic_while_one_writes_leaves_nobody_waiting() {
    panic_in_a_group(Kind::Panics);
}

#[test]
fn a_panic_that_not_even_the_supervisor_holds_leaves_nobody_waiting() {
    panic_in_a_group(Kind::Escapes);
}

#[test]
fn what_a_poll_queued_before_it_panicked_is_written() {
    explore(|| {
        let house = House::open(Directory::new(), inline_writes(1));
        let connection = connect(&house, 0, vec![kinds(1), kinds(1)]);
        let mut answer = None;
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let work = async {
                answer = Some(house.push((1, 0), Kind::Little));
                resume_unwind(Box::new(()))
            };
            block_on(with_inline_writes::<()>(pin!(work)))
        }));
        assert!(polled.is_err());
        assert!(block_on(answer.unwrap()).is_ok());
        assert!(all_written(&connection.join().unwrap()));
        house.close();
    });
}

#[test]
fn a_poll_that_takes_long_does_not_keep_what_it_queued() {
    explore(|| {
        let house = House::open(Directory::new(), inline_writes(1));
        let connection = connect(&house, 0, vec![kinds(1)]);
        let work = async {
            let before = house.push((1, 0), Kind::Little);
            inline_write::wake_now();
            // The poll goes on until that is answered.
            assert!(block_on(before).is_ok());
            house.push((1, 1), Kind::Little).await
        };
        assert!(block_on(with_inline_writes(pin!(work))).is_ok());
        assert!(all_written(&connection.join().unwrap()));
        house.close();
    });
}

#[test]
fn no_more_connections_write_at_a_time_than_may_over_all_directories() {
    explore(|| {
        let directories = [Directory::new(), Directory::new()];
        let inline_writes = inline_writes(1);
        let houses = directories.map(|directory| House::open(directory, inline_writes.clone()));
        directory::expect_at_most(&houses, 1);
        let mut connections: Vec<_> = houses
            .iter()
            .map(|house| connect(house, 0, vec![kinds(1), kinds(1)]))
            .collect();
        // One that brings something for both in one poll.
        let pair = houses.clone();
        connections.push(thread::spawn(move || {
            let work = async {
                let answers = pair
                    .each_ref()
                    .map(|house| house.push((1, 0), Kind::Little));
                let [one, two] = answers;
                vec![one.await, two.await]
            };
            block_on(with_inline_writes(pin!(work)))
        }));
        for connection in connections {
            assert!(all_written(&connection.join().unwrap()));
        }
        houses.iter().for_each(House::close);
    });
}

#[test]
fn a_connection_whose_write_stands_still_is_noticed() {
    explore(|| {
        primitives::let_time_pass(true);
        let mut inline_writes = InlineWrites::new(2);
        inline_writes.time_max = Duration::MAX;
        let house = House::open(Directory::standing_still(), inline_writes);
        let connections = [0, 1].map(|n| connect(&house, n, vec![vec![Kind::Little]; 2]));
        for connection in connections {
            assert!(all_written(&connection.join().unwrap()));
        }
        house.close();
    });
}
