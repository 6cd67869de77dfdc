//! The coordinator of what is stored of share partitions, as the rest of the broker sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::error::ShareStateError;
use super::partition::StoredState;
use super::share_key::ShareKey;
use super::share_states::{Ask, AskAll, Reading, ShareStates, ShareSummary};
use super::stored_share::WrittenState;
use crate::clock::WallClock;
use crate::coordinator::{Answer, Coordinator, Ownership, Slot, Topics};
use crate::meta::{MetaError, MetaStore};

type Outcome<T> = Result<T, ShareStateError>;

/// See the module's documentation; clones share it.
#[derive(Clone)]
pub struct ShareCoordinator {
    slots: Coordinator<ShareStates>,
}

impl ShareCoordinator {
    /// Coordinates nothing until slots are assigned.
    pub fn new(meta: MetaStore, topics: Arc<dyn Topics>, wall: &WallClock) -> Self {
        Self {
            slots: Coordinator::new(meta, topics, wall, ()),
        }
    }

    /// The slot of a share partition.
    pub fn slot_of(key: &ShareKey) -> Slot {
        Slot::of(&key.to_string())
    }

    /// Coordinates the share partitions of these slots and no others.
    pub async fn assign(&self, owned: &BTreeMap<Slot, Ownership>) -> Result<(), MetaError> {
        self.slots.assign(owned).await
    }

    /// Ends all slots.
    pub fn stop(&self) {
        self.slots.stop();
    }

    async fn ask<T>(
        &self,
        key: &ShareKey,
        ask: impl FnOnce(Answer<Outcome<T>>) -> Ask,
    ) -> Outcome<T> {
        self.slots.ask(&key.to_string(), ask, || ()).await?
    }

    /// A group begins with a partition, at an offset or where its configuration says (-1).
    pub async fn initialize(&self, key: &ShareKey, state_epoch: i32, start: i64) -> Outcome<()> {
        self.ask(key, |answer| Ask::Initialize(state_epoch, start, answer))
            .await
    }

    /// The leader of an epoch begins to serve a share partition; those of earlier epochs write no more.
    pub async fn read(&self, key: &ShareKey, reading: Reading) -> Outcome<StoredState> {
        self.ask(key, |answer| Ask::Read(reading, answer)).await
    }

    /// Stores what a leader has done; durable when it is answered.
    pub async fn write(&self, key: &ShareKey, written: WrittenState) -> Outcome<()> {
        self.ask(key, |answer| Ask::Write(written, answer)).await
    }

    /// Forgets a share partition, unless its state epoch is a later one.
    pub async fn delete(&self, key: &ShareKey, state_epoch: i32) -> Outcome<()> {
        self.ask(key, |answer| Ask::Delete(state_epoch, answer))
            .await
    }

    /// What is stored, in short.
    pub async fn summary(&self, key: &ShareKey) -> Outcome<ShareSummary> {
        self.ask(key, Ask::Summary).await
    }

    /// Forgets all share partitions of a topic that was deleted.
    pub async fn topic_deleted(&self, id: Uuid) {
        let deleted = || AskAll::TopicDeleted(id);
        self.slots.queue_all(deleted).await;
    }
}
