//! Who writes, syncs, and does what would block: threads, or one step after the other on the runtime that there is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::primitives::Condvar;

/// See the module's documentation; clones are the same.
#[derive(Clone, Default)]
pub enum Workers {
    /// Threads of their own.
    #[default]
    Threads,
    /// Tasks of the runtime on which partitions are opened, each step after the pause given for it. Nothing
    /// runs at the same time, so a simulation that is repeated does the same again.
    Steps(Arc<dyn Fn(Step) -> Duration + Send + Sync>),
}

/// What wakes those who wait for a queue to fill: threads, or tasks where there are none.
#[derive(Default)]
pub(super) struct Filled {
    pub(super) threads: Condvar,
    pub(super) tasks: Option<Notify>,
}

impl Filled {
    pub(super) fn new(workers: &Workers) -> Self {
        Self {
            threads: Condvar::new(),
            tasks: matches!(workers, Workers::Steps(_)).then(Notify::new),
        }
    }

    /// Wakes one of them.
    pub(super) fn wake(&self) {
        match &self.tasks {
            None => {
                self.threads.notify_one();
            }
            Some(tasks) => tasks.notify_one(),
        }
    }
}

/// What is paused before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A commit group of the writer.
    Write,
    /// A sync of one partition, or of a record of the journal.
    Sync,
    /// The end of a sync of one partition: it covers what was appended before the pause.
    DuringSync,
    /// A look for a log to compact, and a pass over it.
    Compact,
}

impl Workers {
    /// Runs what would block; `None` when it panicked.
    pub async fn unblock<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.ok(),
            Self::Steps(_) => Some(work()),
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Steps(_) => "Steps",
        })
    }
}
