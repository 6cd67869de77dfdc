//! Threads that sync partitions side by side. One sync covers all that was appended to a partition before it
//! began; while it runs, appends go on, and the partition is queued again when somebody waits for them.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::leader::Partition;
use super::now_ms;
use crate::vital::Vital;

#[derive(Default)]
struct State {
    dirty: VecDeque<Arc<Partition>>,
    stopping: bool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

/// A handle to the threads; clones share them.
#[derive(Clone)]
pub(super) struct SyncThreads {
    queue: Arc<Queue>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl SyncThreads {
    pub(super) fn start(name: &str, threads: usize, vital: &Vital) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let mut started = Vec::new();
        for n in 0..threads.max(1) {
            let (queue, vital) = (queue.clone(), vital.clone());
            let name = format!("sync {name} {n}");
            let thread = std::thread::Builder::new()
                .name(name.clone())
                .spawn(move || vital.run(&name, || run(&queue), || ()))?;
            started.push(thread);
        }
        Ok(Self {
            queue,
            threads: Arc::new(Mutex::new(started)),
        })
    }

    /// Queues a partition unless it is queued already.
    pub(super) fn push(&self, partition: Arc<Partition>) {
        if partition.sync_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        self.queue.state.lock().dirty.push_back(partition);
        self.queue.filled.notify_one();
    }

    pub(super) fn stop(&self) {
        self.queue.state.lock().stopping = true;
        self.queue.filled.notify_all();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
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
                queue.filled.wait(&mut state);
            }
        };
        // Cleared first: what is appended from now on may need another round.
        partition.sync_queued.store(false, Ordering::Release);
        let sync = || partition.sync(now_ms());
        let wants_more = std::panic::catch_unwind(AssertUnwindSafe(sync)).unwrap_or_else(|_| {
            partition.fail_sync("a sync panicked; this is a bug");
            false
        });
        if wants_more && !partition.sync_queued.swap(true, Ordering::AcqRel) {
            queue.state.lock().dirty.push_back(partition);
            queue.filled.notify_one();
        }
    }
}
