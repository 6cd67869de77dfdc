//! Threads that sync partitions side by side. One sync covers all that was appended to a partition before it
//! began; while it runs, appends go on, and the partition is queued again when somebody waits for them. A partition has one
//! sync at a time.
//!
//! Tests: tests/power.rs.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use super::executor::{Filled, Step, Workers};
use super::options::PartitionsOptions;
use super::replica::Replica;
use crate::clock::WallClock;
use crate::log::SyncTarget;
use crate::observe::Syncs;
use crate::supervisor::Supervisor;

#[derive(Default)]
struct State {
    dirty: VecDeque<Arc<Replica>>,
    stopping: bool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    filled: Filled,
    clock: WallClock,
    syncs: Arc<Syncs>,
}

/// A handle to the threads; clones share them.
#[derive(Clone)]
pub(super) struct SyncThreads {
    queue: Arc<Queue>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl SyncThreads {
    pub(super) fn start(
        name: &str,
        options: &PartitionsOptions,
        supervisor: &Supervisor,
    ) -> std::io::Result<Self> {
        let is_stepwise = matches!(options.workers, Workers::Steps(_));
        let queue = Arc::new(Queue {
            filled: Filled::new(&options.workers),
            clock: options.clock.clone(),
            syncs: options.syncs.clone(),
            ..Queue::default()
        });
        let mut started = Vec::new();
        for n in 0..options.sync_threads.max(1) {
            if is_stepwise {
                tokio::spawn(run_steps(queue.clone(), options.workers.clone()));
                continue;
            }
            let (queue, supervisor) = (queue.clone(), supervisor.clone());
            let name = format!("sync {name} {n}");
            let thread = std::thread::Builder::new()
                .name(name.clone())
                .spawn(move || supervisor.run(&name, || run(&queue), || ()))?;
            started.push(thread);
        }
        Ok(Self {
            queue,
            threads: Arc::new(Mutex::new(started)),
        })
    }

    /// Queues a partition unless it is queued already.
    pub(super) fn push(&self, partition: Arc<Replica>) {
        if partition.sync_turn.ask() {
            self.queue.push(partition);
        }
    }

    pub(super) fn stop(&self) {
        self.queue.state.lock().stopping = true;
        self.queue.filled.threads.notify_all();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
        // Where there are no threads.
        while let Some(partition) = self.queue.next() {
            self.queue.sync(partition);
        }
    }
}

impl Queue {
    fn push(&self, partition: Arc<Replica>) {
        self.state.lock().dirty.push_back(partition);
        self.filled.wake();
    }

    fn next(&self) -> Option<Arc<Replica>> {
        self.state.lock().dirty.pop_front()
    }

    fn sync(&self, partition: Arc<Replica>) {
        let target = Self::begin(&partition);
        self.finish(partition, target);
    }

    fn begin(partition: &Replica) -> SyncTarget {
        partition.sync_turn.begin();
        partition.log().sync_target()
    }

    fn finish(&self, partition: Arc<Replica>, target: SyncTarget) {
        let began = Instant::now();
        let sync = || partition.sync_to(target, self.clock.now_ms());
        let wants_more = std::panic::catch_unwind(AssertUnwindSafe(sync)).unwrap_or_else(|_| {
            partition.fail_sync("a sync panicked; this is a bug");
            false
        });
        self.syncs.took(began.elapsed(), || {
            format!("{}-{}", partition.topic(), partition.index())
        });
        if partition.sync_turn.end(wants_more) {
            self.push(partition);
        }
    }
}

/// A thread's work as a task.
async fn run_steps(queue: Arc<Queue>, workers: Workers) {
    let (Some(filled), Workers::Steps(pause)) = (&queue.filled.tasks, &workers) else {
        return;
    };
    loop {
        let Some(partition) = queue.next() else {
            filled.notified().await;
            continue;
        };
        tokio::time::sleep(pause(Step::Sync)).await;
        let target = Queue::begin(&partition);
        let lasts = pause(Step::DuringSync);
        if !lasts.is_zero() {
            tokio::time::sleep(lasts).await;
        }
        queue.finish(partition, target);
    }
}

fn run(queue: &Queue) {
    loop {
        let partition = {
            let mut state = queue.state.lock();
            loop {
                if let Some(partition) = state.dirty.pop_front() {
                    break partition;
                }
                if state.stopping {
                    return;
                }
                queue.filled.threads.wait(&mut state);
            }
        };
        queue.sync(partition);
    }
}
