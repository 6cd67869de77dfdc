//! A partition that this broker has: its replica, and who writes it.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::ack_queue::AppendReply;
use super::acks::Acks;
use super::fetch_waiters::{FetchWaiter, Subscription};
use super::replica::Replica;
use super::writer::Writer;
use crate::log::{
    AppendRequest, Appended, LogError, ProducedBatch, ToVerify, TransactionMarker, Verification,
};

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
        self.append_verified(acks, batches, Verification::NotNeeded)
    }

    /// As [`Self::append`], of a transaction that was verified.
    pub fn append_verified(
        &self,
        acks: Acks,
        batches: Vec<ProducedBatch>,
        verification: Verification,
    ) -> oneshot::Receiver<Result<Appended, LogError>> {
        self.queue(acks, Ok(AppendRequest::verified(batches, verification)))
    }

    /// Queues the marker that ends a producer's transaction here, with the promise of acks=all.
    pub fn append_marker(
        &self,
        marker: &TransactionMarker,
    ) -> oneshot::Receiver<Result<Appended, LogError>> {
        let request = AppendRequest::of_marker(marker, self.writer.now_ms());
        self.queue(Acks::All, request)
    }

    fn queue(
        &self,
        acks: Acks,
        request: Result<AppendRequest, LogError>,
    ) -> oneshot::Receiver<Result<Appended, LogError>> {
        let (sender, answer) = oneshot::channel();
        let reply = AppendReply::new(acks, sender);
        let checked = match self.is_leader() {
            true => self.check_in_sync(acks),
            false => Err(LogError::NotLeader),
        };
        match checked.and(request) {
            Ok(request) => self.writer.append(self.replica.clone(), request, reply),
            Err(error) => reply.send(Err(error)),
        }
        answer
    }

    /// Queues what a follower fetched from its leader in an epoch; the answer comes when it is written, and synced where the
    /// topic syncs each message.
    pub fn append_fetched(
        &self,
        records: &Bytes,
        leader_epoch: i32,
    ) -> Result<oneshot::Receiver<Result<Appended, LogError>>, LogError> {
        let request = AppendRequest::of_fetched(records, leader_epoch)?;
        let (sender, answer) = oneshot::channel();
        let reply = AppendReply::new(Acks::Leader, sender);
        self.writer.append(self.replica.clone(), request, reply);
        Ok(answer)
    }

    /// The replica, for what is done by whoever writes.
    pub(super) fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Begins to verify a transactional batch, which the coordinator is then asked about; with what this gives it is
    /// appended. [`Verification::NotNeeded`] where its transaction goes on here already.
    pub fn begin_verification(&self, batch: &ToVerify) -> Result<Verification, LogError> {
        self.log().begin_verification(batch, self.writer.now_ms())
    }

    /// Asks for a sync soon.
    pub fn sync_soon(&self) {
        self.writer.sync_soon(&self.replica);
    }

    /// Tells a waiting fetch, by the number that it gives the partition, whenever what it may read moves: up to the readable
    /// end, or for a follower up to the log's end.
    pub fn subscribe(
        &self,
        waiter: &Arc<FetchWaiter>,
        number: usize,
        is_follower: bool,
    ) -> Subscription {
        let waiters = match is_follower {
            true => &self.replica.follower_waiters,
            false => &self.replica.waiters,
        };
        Subscription::new(waiters.clone(), waiter, number)
    }
}

impl Deref for Partition {
    type Target = Replica;

    fn deref(&self) -> &Replica {
        &self.replica
    }
}
