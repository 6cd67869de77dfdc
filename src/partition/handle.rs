//! A partition that this broker has: its replica, and who writes it.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::acks::Acks;
use super::fetch_waiters::{FetchWaiter, Subscription};
use super::replica::Replica;
use super::writer::Writer;
use crate::log::{AppendRequest, Appended, LogError, ProducedBatch};

/// See the module's documentation. Whatever is not about writing is the replica's.
pub struct Partition {
    replica: Arc<Replica>,
    writer: Writer,
}

impl Partition {
    pub(super) fn new(replica: Replica, writer: Writer) -> Self {
        Self {
            replica: Arc::new(replica),
            writer,
        }
    }

    /// Where its data directory's work is done.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Queues a producer's batches for appending; the answer comes when what the topic promises is true. Queueing is done
    /// when this returns, so calls keep their order. Refused at once where too few replicas are in sync for `acks`.
    pub fn append(
        &self,
        acks: Acks,
        batches: Vec<ProducedBatch>,
    ) -> oneshot::Receiver<Result<Appended, LogError>> {
        let (reply, answer) = oneshot::channel();
        match self.check_in_sync(acks) {
            Ok(()) => {
                let request = AppendRequest::of_client(batches);
                self.writer.append(self.replica.clone(), request, reply);
            }
            Err(error) => drop(reply.send(Err(error))),
        }
        answer
    }

    /// Asks for a sync soon.
    pub fn sync_soon(&self) {
        self.writer.sync_soon(&self.replica);
    }

    /// Tells a waiting fetch, by the number that it gives the partition, whenever the readable end moves.
    pub fn subscribe(&self, waiter: &Arc<FetchWaiter>, number: usize) -> Subscription {
        Subscription::new(self.replica.waiters.clone(), waiter, number)
    }
}

impl Deref for Partition {
    type Target = Replica;

    fn deref(&self) -> &Replica {
        &self.replica
    }
}
