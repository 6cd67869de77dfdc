//! What one pass over a queue writes: each partition's batches together, with one call.
//!
//! Tests: partition/tests.rs.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;

use super::ack_queue::AppendReply;
use super::inline_write::Work;
use super::journal_writer::{JournaledAppend, Journaling};
use super::replica::Replica;
use super::sync_threads::SyncThreads;
use crate::clock::WallClock;
use crate::log::{AppendRequest, FAST_PATH_BATCHES_MAX, LogError};
use crate::meta::Lease;
use crate::supervisor::Supervisor;

/// Until when this broker may write, once that is known. Without a lease nothing is held back.
pub(super) type Gate = Arc<OnceLock<Arc<Lease>>>;

/// Something to be done in a data directory.
pub(super) enum Job {
    Append {
        partition: Arc<Replica>,
        request: AppendRequest,
        reply: AppendReply,
    },
    Run(Box<dyn FnOnce() + Send>),
}

/// What a group is written with.
pub(super) struct CommitContext {
    /// Of the thread, for the supervisor.
    pub(super) name: String,
    pub(super) supervisor: Supervisor,
    /// Whose threads connections hold up.
    pub(super) runtime: Option<Handle>,
    pub(super) syncs: SyncThreads,
    pub(super) journal: Option<Journaling>,
    pub(super) gate: Gate,
    pub(super) clock: WallClock,
}

impl Job {
    /// Whether it is a write to the page cache and nothing else, also when all that is queued is for its partition.
    fn is_on_fast_path(&self, queued_bytes: usize, now_ms: i64) -> bool {
        match self {
            Self::Append {
                partition, request, ..
            } => {
                let (log, epoch) = (partition.log(), partition.leader_epoch());
                request.is_records_alone()
                    && log.is_on_fast_path(epoch, &request.batches, queued_bytes as u64, now_ms)
            }
            Self::Run(_) => false,
        }
    }
}

impl Work for CommitContext {
    type Job = Job;

    fn bytes(job: &Job) -> usize {
        match job {
            Job::Append { request, .. } => {
                let batches = request.batches.iter();
                batches.map(|batch| batch.bytes.len()).sum()
            }
            Job::Run(_) => 0,
        }
    }

    fn is_on_fast_path(&self, jobs: &[Job], bytes: usize) -> bool {
        let now_ms = self.clock.now_ms();
        jobs.len() <= FAST_PATH_BATCHES_MAX
            && jobs.iter().all(|job| job.is_on_fast_path(bytes, now_ms))
    }

    fn write(&self, jobs: &mut Vec<Job>, on_panic: impl FnOnce()) {
        let write = || self.write_group(jobs);
        self.supervisor.run(&self.name, write, on_panic);
    }

    /// Who waits for a [`Job::Run`] sees that it is gone.
    fn refuse(job: Job, why: &str) {
        if let Job::Append { reply, .. } = job {
            reply.send(Err(LogError::Offline(why.to_owned())));
        }
    }

    fn set_runtime_going(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(std::future::ready(()));
        }
    }
}

impl CommitContext {
    /// Does what was queued, in its order but for batches, which are written together.
    fn write_group(&self, jobs: &mut Vec<Job>) {
        let mut group = CommitGroup::default();
        for job in jobs.drain(..) {
            match job {
                Job::Append {
                    partition,
                    request,
                    reply,
                } => group.add(partition, request, reply),
                Job::Run(work) => {
                    // What was queued before it is written before it.
                    std::mem::take(&mut group).write(self);
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
                        tracing::error!("a task of the writer thread panicked");
                    }
                }
            }
        }
        group.write(self);
    }
}

/// What one pass over the queue found, by partition in the order of their first batch.
#[derive(Default)]
struct CommitGroup {
    at: HashMap<*const Replica, usize>,
    groups: Vec<ReplicaAppends>,
}

struct ReplicaAppends {
    partition: Arc<Replica>,
    requests: Vec<AppendRequest>,
    replies: Vec<AppendReply>,
}

/// The pointers are only compared; the groups keep their partitions alive.
impl CommitGroup {
    fn add(&mut self, partition: Arc<Replica>, request: AppendRequest, reply: AppendReply) {
        let groups = &mut self.groups;
        let at = *self.at.entry(Arc::as_ptr(&partition)).or_insert_with(|| {
            groups.push(ReplicaAppends {
                partition,
                requests: Vec::new(),
                replies: Vec::new(),
            });
            groups.len() - 1
        });
        groups[at].requests.push(request);
        groups[at].replies.push(reply);
    }

    fn write(self, context: &CommitContext) {
        if context.gate.get().is_some_and(|lease| !lease.is_valid()) {
            // The process may have been stopped for longer than others wait.
            let replies = self.groups.into_iter().flat_map(|group| group.replies);
            for reply in replies {
                reply.send(Err(LogError::NotLeader));
            }
            return;
        }
        let journal = context
            .journal
            .as_ref()
            .filter(|journal| journal.is_usable());
        let mut parts = Vec::new();
        for ReplicaAppends {
            partition,
            requests,
            replies,
        } in self.groups
        {
            let now_ms = context.clock.now_ms();
            let work = || partition.append_group(requests, replies, now_ms, journal.is_some());
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
                Ok(wanted) => {
                    if wanted.sync {
                        context.syncs.push(partition.clone());
                    }
                    parts.extend(
                        wanted
                            .journal
                            .map(|what| JournaledAppend { partition, what }),
                    );
                }
                Err(_) => {
                    partition.log().fail("an append panicked; this is a bug");
                    tracing::error!(topic = %partition.topic(), partition = partition.index(), "append panicked")
                }
            }
        }
        if let Some(journal) = journal {
            journal.push(parts);
        }
    }
}
