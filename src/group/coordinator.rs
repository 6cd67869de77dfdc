//! The coordinator: groups spread over slots, one task a slot, fed by a bounded channel. A slot's task owns its
//! groups, their timers and whoever waits for an answer; what must be durable is answered after the tree has it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::messages::{
    CommitOffsets, CommittedOffset, GroupDescription, GroupError, GroupListing, JoinReply,
    JoinRequest, LeaveMember, SyncReply, SyncRequest,
};
use super::offsets::Key;
use super::persist;
use super::slot::{Clock, Group, Slot};
use crate::meta::{MetaError, MetaStore, paths};

/// Groups are spread over this many slots by their id.
const SLOTS: usize = 64;
/// Requests that may wait for a slot's task.
const QUEUE: usize = 1024;

/// Limits of groups, from the broker's configuration.
#[derive(Debug, Clone, Copy)]
pub struct GroupLimits {
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i64,
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: i32,
    /// `group.max.size`.
    pub members_max: usize,
    /// `offset.metadata.max.bytes`.
    pub metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in ms.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_check_interval: Duration,
}

/// Knows which identity a partition has.
pub trait Resolve: Send + Sync {
    /// `brokerId-n` of a partition.
    fn identity(&self, topic: &str, partition: i32) -> Option<String>;
    /// The partition of an identity.
    fn partition(&self, topic: &str, identity: &str) -> Option<i32>;
}

pub(super) type Answer<T> = oneshot::Sender<T>;
pub(super) type Outcomes = Vec<Result<(), GroupError>>;
/// Topics and partitions asked for, or all.
pub(super) type Wanted = Option<Vec<Key>>;
pub(super) type Found = Vec<(Key, Option<CommittedOffset>)>;

/// What is asked of a slot.
pub(super) enum Command {
    Join(
        String,
        Box<JoinRequest>,
        Answer<Result<JoinReply, GroupError>>,
    ),
    Sync(
        String,
        Box<SyncRequest>,
        Answer<Result<SyncReply, GroupError>>,
    ),
    Heartbeat(
        String,
        String,
        Option<String>,
        i32,
        Answer<Result<(), GroupError>>,
    ),
    Leave(String, Vec<LeaveMember>, Answer<Outcomes>),
    Commit(String, Box<CommitOffsets>, Answer<Outcomes>),
    Fetch(
        String,
        Wanted,
        Option<(String, i32)>,
        Answer<Result<Found, GroupError>>,
    ),
    Describe(String, Answer<Option<GroupDescription>>),
    List(Answer<Vec<GroupListing>>),
    Delete(String, Answer<Result<(), GroupError>>),
    DeleteOffsets(String, Vec<Key>, Answer<Result<Outcomes, GroupError>>),
    TopicDeleted(String),
}

/// A handle to all slots; clones share them.
#[derive(Clone)]
pub struct Coordinator {
    limits: GroupLimits,
    slots: Arc<[mpsc::Sender<Command>]>,
    tasks: Arc<parking_lot::Mutex<Vec<JoinHandle<()>>>>,
}

impl Coordinator {
    /// Loads all groups from the tree and starts the slots.
    pub async fn start(
        meta: MetaStore,
        resolve: Arc<dyn Resolve>,
        limits: GroupLimits,
    ) -> Result<Self, MetaError> {
        let clock = Clock::new();
        let nodes = meta.subtree(paths::GROUPS).await?;
        let mut by_slot: Vec<HashMap<String, Group>> = (0..SLOTS).map(|_| HashMap::new()).collect();
        for loaded in persist::load(&nodes, &*resolve, clock.now_ms())? {
            let group = Group {
                classic: loaded.group,
                offsets: loaded.offsets,
                deadline_ms: None,
            };
            by_slot[slot_of(&loaded.group_id)].insert(loaded.group_id, group);
        }
        let mut slots = Vec::with_capacity(SLOTS);
        let mut tasks = Vec::with_capacity(SLOTS);
        for groups in by_slot {
            let (sender, commands) = mpsc::channel(QUEUE);
            let slot = Slot::new(meta.clone(), resolve.clone(), limits, clock, groups);
            tasks.push(tokio::spawn(slot.run(commands)));
            slots.push(sender);
        }
        Ok(Self {
            limits,
            slots: slots.into(),
            tasks: Arc::new(parking_lot::Mutex::new(tasks)),
        })
    }

    async fn ask<T>(
        &self,
        group_id: &str,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<T, GroupError> {
        let (reply, answer) = oneshot::channel();
        let slot = &self.slots[slot_of(group_id)];
        slot.send(command(reply))
            .await
            .map_err(|_| GroupError::CoordinatorNotAvailable)?;
        answer
            .await
            .map_err(|_| GroupError::CoordinatorNotAvailable)
    }

    /// Joins a group; answers when the generation is formed. A reply with generation -1 gives a member the id
    /// that it must come back with.
    pub async fn join(
        &self,
        group_id: &str,
        request: JoinRequest,
    ) -> Result<JoinReply, GroupError> {
        if group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let range = self.limits.session_timeout_min_ms..=self.limits.session_timeout_max_ms;
        if !range.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        self.ask(group_id, |reply| {
            Command::Join(group_id.to_owned(), Box::new(request), reply)
        })
        .await?
    }

    /// Fetches an assignment, or brings everybody's; answers when it is stored.
    pub async fn sync(
        &self,
        group_id: &str,
        request: SyncRequest,
    ) -> Result<SyncReply, GroupError> {
        if group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.ask(group_id, |reply| {
            Command::Sync(group_id.to_owned(), Box::new(request), reply)
        })
        .await?
    }

    /// Says that a member lives.
    pub async fn heartbeat(
        &self,
        group_id: &str,
        member_id: String,
        instance_id: Option<String>,
        generation: i32,
    ) -> Result<(), GroupError> {
        let command = |reply| {
            Command::Heartbeat(
                group_id.to_owned(),
                member_id,
                instance_id,
                generation,
                reply,
            )
        };
        self.ask(group_id, command).await?
    }

    /// Takes members out; an answer for each.
    pub async fn leave(
        &self,
        group_id: &str,
        members: Vec<LeaveMember>,
    ) -> Result<Outcomes, GroupError> {
        self.ask(group_id, |reply| {
            Command::Leave(group_id.to_owned(), members, reply)
        })
        .await
    }

    /// Stores offsets durably; an answer for each.
    pub async fn commit(
        &self,
        group_id: &str,
        commit: CommitOffsets,
    ) -> Result<Outcomes, GroupError> {
        self.ask(group_id, |reply| {
            Command::Commit(group_id.to_owned(), Box::new(commit), reply)
        })
        .await
    }

    /// Stored offsets: of the named partitions, or all there are. `member` is checked when it is given.
    pub async fn fetch_offsets(
        &self,
        group_id: &str,
        wanted: Option<Vec<(String, i32)>>,
        member: Option<(String, i32)>,
    ) -> Result<Found, GroupError> {
        self.ask(group_id, |reply| {
            Command::Fetch(group_id.to_owned(), wanted, member, reply)
        })
        .await?
    }

    /// A group, when there is one.
    pub async fn describe(&self, group_id: &str) -> Result<Option<GroupDescription>, GroupError> {
        self.ask(group_id, |reply| {
            Command::Describe(group_id.to_owned(), reply)
        })
        .await
    }

    /// All groups.
    pub async fn list(&self) -> Result<Vec<GroupListing>, GroupError> {
        let mut all = Vec::new();
        for slot in self.slots.iter() {
            let (reply, answer) = oneshot::channel();
            slot.send(Command::List(reply))
                .await
                .map_err(|_| GroupError::CoordinatorNotAvailable)?;
            all.extend(
                answer
                    .await
                    .map_err(|_| GroupError::CoordinatorNotAvailable)?,
            );
        }
        all.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        Ok(all)
    }

    /// Deletes an empty group with its offsets.
    pub async fn delete(&self, group_id: &str) -> Result<(), GroupError> {
        self.ask(group_id, |reply| {
            Command::Delete(group_id.to_owned(), reply)
        })
        .await?
    }

    /// Deletes offsets of topics that no member reads; an answer for each.
    pub async fn delete_offsets(
        &self,
        group_id: &str,
        keys: Vec<(String, i32)>,
    ) -> Result<Outcomes, GroupError> {
        self.ask(group_id, |reply| {
            Command::DeleteOffsets(group_id.to_owned(), keys, reply)
        })
        .await?
    }

    /// Forgets all offsets in a topic that was deleted.
    pub async fn topic_deleted(&self, topic: &str) {
        for slot in self.slots.iter() {
            let _ = slot.send(Command::TopicDeleted(topic.to_owned())).await;
        }
    }

    /// Ends the slots; waiting members are told that the coordinator went away.
    pub fn stop(&self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }
}

fn slot_of(group_id: &str) -> usize {
    crc32c::crc32c(group_id.as_bytes()) as usize % SLOTS
}
