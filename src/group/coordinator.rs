//! The coordinator: groups spread over slots, one task a slot that this broker has, fed by a bounded channel. A
//! slot's task owns its groups, their timers and whoever waits for an answer; what must be durable is answered
//! after the tree has it. Slots come and go with the brokers; the groups in the tree stay as they are.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::messages::{
    CommitOffsets, CommittedOffset, GroupDescription, GroupError, GroupListing, GroupSurvey,
    JoinReply, JoinRequest, LeaveMember, SyncReply, SyncRequest,
};
use super::offsets::Key;
use super::persist;
use super::reserved::MemberMemory;
use super::slot::{Clock, Group, Slot};
use crate::clock::WallClock;
use crate::memory::{Memory, Share};
use crate::meta::{MetaError, MetaStore, Node, Op, paths};
use crate::observe::Events;

/// Groups that are read at the same time when slots come to this broker.
const GROUPS_READ_AT_ONCE: usize = 32;
/// Requests that may wait for a slot's task.
const QUEUE: usize = 1024;

/// What one join may bring, and a member's assignment may be: what Kafka's coordinator can store in one message.
const MEMBER_BYTES_MAX: usize = 1 << 20;

/// Longest group id: what the versions before tagged fields can say.
const GROUP_ID_BYTES_MAX: usize = i16::MAX as usize;

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
    /// `group.members.max.bytes`: of all groups together.
    pub members_bytes_max: usize,
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
    /// The id of a topic.
    fn topic_id(&self, topic: &str) -> Option<Uuid>;
    /// The partition of an identity.
    fn partition(&self, topic: &str, identity: &str) -> Option<i32>;
    /// Learns of topics that were created meanwhile.
    fn refresh(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

pub(super) type Answer<T> = oneshot::Sender<T>;
pub(super) type Outcomes = Vec<Result<(), GroupError>>;
/// Topics and partitions asked for, or all.
pub(super) type Wanted = Option<Vec<Key>>;

/// Offsets on their way to a client.
pub struct Found {
    /// As they were asked for.
    pub offsets: Vec<((String, i32), Option<CommittedOffset>)>,
    /// What they take of the memory that clients may make the broker hold.
    pub share: Share,
}

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
    Survey(Answer<Vec<GroupSurvey>>),
    Delete(String, Answer<Result<(), GroupError>>),
    DeleteOffsets(String, Vec<Key>, Answer<Result<Outcomes, GroupError>>),
    TopicDeleted(String, Uuid),
}

/// A slot as requests find it.
#[derive(Clone)]
enum Place {
    /// Another broker coordinates its groups, or nobody.
    Elsewhere,
    /// Its groups are being read.
    Loading,
    /// A task has it, under this version of its node.
    Here {
        version: i32,
        /// The store's session in which its groups were read; in another one somebody else may have had them.
        session: u64,
        commands: mpsc::Sender<Command>,
        task: AbortHandle,
    },
}

/// A handle to all slots; clones share them.
#[derive(Clone)]
pub struct Coordinator {
    limits: GroupLimits,
    shared: Arc<Shared>,
}

struct Shared {
    meta: MetaStore,
    /// What members hold in memory.
    reserved: Arc<MemberMemory>,
    resolve: Arc<dyn Resolve>,
    clock: Clock,
    events: Events,
    memory: Memory,
    places: ArcSwap<Vec<Place>>,
    /// Reserved while slots come and go.
    assigning: Mutex<()>,
    /// Nobody is kept waiting for other members any more.
    draining: watch::Sender<bool>,
}

impl Coordinator {
    /// Coordinates nothing until slots are assigned.
    pub fn new(
        meta: MetaStore,
        resolve: Arc<dyn Resolve>,
        limits: GroupLimits,
        wall: &WallClock,
        (events, memory): (Events, Memory),
    ) -> Self {
        Self {
            limits,
            shared: Arc::new(Shared {
                meta,
                resolve,
                clock: Clock::new(wall),
                events,
                memory,
                places: ArcSwap::from_pointee(vec![Place::Elsewhere; paths::SLOTS]),
                assigning: Mutex::new(()),
                reserved: Arc::default(),
                draining: watch::Sender::new(false),
            }),
        }
    }

    /// Coordinates these slots and no others: reads the groups of those that are new, and lets go of the rest.
    /// Each comes with the version of its node, which all its writes check; so where a slot went to somebody else
    /// and came back, its groups are read anew.
    pub async fn assign(&self, owned: &BTreeMap<usize, i32>) -> Result<(), MetaError> {
        let _assigning = self.shared.assigning.lock().await;
        let now = self.shared.meta.lease().session();
        let mut fresh = BTreeMap::new();
        self.change_places(|places| {
            for (slot, place) in places.iter_mut().enumerate() {
                let wanted = owned.get(&slot).copied();
                if let Place::Here {
                    version,
                    session,
                    task,
                    commands,
                } = place
                {
                    let same = wanted == Some(*version) && *session == now;
                    if same && !commands.is_closed() {
                        continue;
                    }
                    task.abort();
                }
                *place = match wanted {
                    Some(version) => {
                        fresh.insert(slot, version);
                        Place::Loading
                    }
                    None => Place::Elsewhere,
                };
            }
        });
        if fresh.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let mut by_slot = self.load(&fresh).await?;
        let groups: usize = by_slot.values().map(HashMap::len).sum();
        self.change_places(|places| {
            for (slot, version) in fresh.iter() {
                let groups = by_slot.remove(slot).unwrap_or_default();
                places[*slot] = self.start(*slot, *version, now, groups);
            }
        });
        tracing::info!(
            slots = fresh.len(),
            groups,
            ms = started.elapsed().as_millis() as u64,
            "coordinating groups"
        );
        Ok(())
    }

    fn change_places(&self, change: impl FnOnce(&mut Vec<Place>)) {
        let mut places = Vec::clone(&self.shared.places.load());
        change(&mut places);
        self.shared.places.store(Arc::new(places));
    }

    fn start(
        &self,
        slot: usize,
        version: i32,
        session: u64,
        groups: HashMap<String, Group>,
    ) -> Place {
        let Shared {
            meta,
            resolve,
            clock,
            events,
            memory,
            ..
        } = &*self.shared;
        let (commands, receiver) = mpsc::channel(QUEUE);
        let guard = Op::Check {
            path: paths::coordinator_slot(slot),
            version,
        };
        let slot = Slot::new(
            meta.clone(),
            guard,
            resolve.clone(),
            self.limits,
            (*clock, events.clone(), memory.clone()),
            groups,
        );
        let task = tokio::spawn(slot.run(receiver)).abort_handle();
        Place::Here {
            version,
            session,
            commands,
            task,
        }
    }

    /// Reads the groups of some slots from the tree.
    async fn load(
        &self,
        slots: &BTreeMap<usize, i32>,
    ) -> Result<BTreeMap<usize, HashMap<String, Group>>, MetaError> {
        let Shared {
            meta,
            resolve,
            clock,
            ..
        } = &*self.shared;
        let nodes = self.read(slots).await?;
        let mut loaded = persist::load(&nodes, &**resolve, clock.now_ms())?;
        if loaded.unresolved > 0 {
            meta.sync().await?;
            resolve.refresh().await;
            loaded = persist::load(&nodes, &**resolve, clock.now_ms())?;
        }
        if loaded.unresolved > 0 {
            tracing::warn!(
                offsets = loaded.unresolved,
                "left alone: offsets of partitions that do not exist"
            );
        }
        let mut by_slot: BTreeMap<usize, HashMap<String, Group>> = BTreeMap::new();
        for loaded in loaded.groups {
            let group = Group {
                classic: loaded.group,
                offsets: loaded.offsets,
                deadline_ms: None,
            };
            let slot = by_slot.entry(paths::slot_of(&loaded.group_id)).or_default();
            slot.insert(loaded.group_id, group);
        }
        Ok(by_slot)
    }

    /// The nodes of the groups of some slots.
    async fn read(&self, slots: &BTreeMap<usize, i32>) -> Result<Vec<(String, Node)>, MetaError> {
        let meta = &self.shared.meta;
        if slots.len() == paths::SLOTS {
            return meta.subtree(paths::GROUPS).await;
        }
        meta.sync().await?;
        let names = meta.children(paths::GROUPS).await?;
        let wanted = names.into_iter().filter_map(|name| {
            let group_id = paths::unescape(&name)?;
            slots
                .contains_key(&paths::slot_of(&group_id))
                .then_some(group_id)
        });
        let wanted: Vec<String> = wanted.collect();
        let parts: Vec<Vec<(String, Node)>> = stream::iter(wanted)
            .map(|group_id| async move {
                let path = paths::group(&group_id);
                let mut nodes = meta.subtree(&path).await?;
                nodes.extend(meta.get(&path).await?.map(|node| (path, node)));
                Ok::<_, MetaError>(nodes)
            })
            .buffer_unordered(GROUPS_READ_AT_ONCE)
            .try_collect()
            .await?;
        Ok(parts.into_iter().flatten().collect())
    }

    fn place(&self, slot: usize) -> Result<mpsc::Sender<Command>, GroupError> {
        if !self.shared.meta.lease().is_valid() {
            return Err(GroupError::NotCoordinator);
        }
        match self.shared.places.load().get(slot) {
            Some(Place::Here {
                session, commands, ..
            }) if *session == self.shared.meta.lease().session() => Ok(commands.clone()),
            Some(Place::Loading) => Err(GroupError::CoordinatorLoadInProgress),
            _ => Err(GroupError::NotCoordinator),
        }
    }

    async fn ask<T>(
        &self,
        group_id: &str,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<T, GroupError> {
        self.ask_telling(group_id, command, || ()).await
    }

    async fn ask_telling<T>(
        &self,
        group_id: &str,
        command: impl FnOnce(Answer<T>) -> Command,
        queued: impl FnOnce(),
    ) -> Result<T, GroupError> {
        if group_id.len() > GROUP_ID_BYTES_MAX {
            return Err(GroupError::InvalidGroupId);
        }
        let (reply, answer) = oneshot::channel();
        let session = self.shared.meta.lease().session();
        let commands = self.place(paths::slot_of(group_id))?;
        // A slot's task ends when the slot goes to another broker.
        commands
            .send(command(reply))
            .await
            .map_err(|_| GroupError::NotCoordinator)?;
        queued();
        let answer = answer.await.map_err(|_| GroupError::NotCoordinator)?;
        // Whoever was stopped for longer than its lease must not speak for the group any more.
        let lease = self.shared.meta.lease();
        match lease.is_valid() && lease.session() == session {
            true => Ok(answer),
            false => Err(GroupError::NotCoordinator),
        }
    }

    /// Waits for other members, but not into a shutdown: then the member is sent to look for its coordinator.
    async fn unless_draining<T>(
        &self,
        answer: impl Future<Output = Result<T, GroupError>>,
    ) -> Result<T, GroupError> {
        let mut draining = self.shared.draining.subscribe();
        tokio::select! {
            biased;
            answer = answer => answer,
            _ = draining.wait_for(|draining| *draining) => Err(GroupError::NotCoordinator),
        }
    }

    /// Answers members that wait for others, and lets none wait from now on: the broker shuts down.
    pub fn drain(&self) {
        self.shared.draining.send_replace(true);
    }

    fn here(&self) -> Vec<mpsc::Sender<Command>> {
        let places = self.shared.places.load();
        let here = places.iter().filter_map(|place| match place {
            Place::Here { commands, .. } => Some(commands.clone()),
            _ => None,
        });
        here.collect()
    }

    /// Joins a group; answers when the generation is formed. A reply with generation -1 gives a member the id
    /// that it must come back with.
    pub async fn join(
        &self,
        group_id: &str,
        mut request: JoinRequest,
    ) -> Result<JoinReply, GroupError> {
        if group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let range = self.limits.session_timeout_min_ms..=self.limits.session_timeout_max_ms;
        if !range.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let protocols = request.protocols.iter();
        let protocols = protocols.map(|(name, data)| name.len() + data.len());
        let instance_id = request.instance_id.as_ref().map_or(0, String::len);
        let bytes = protocols.sum::<usize>() + request.protocol_type.len() + instance_id;
        if bytes > MEMBER_BYTES_MAX {
            return Err(GroupError::InvalidRequest);
        }
        let names = group_id.len() + request.client_id.len() + request.member_id.len();
        let reserved = self
            .shared
            .reserved
            .reserve(bytes + names, self.limits.members_bytes_max);
        request.reserved = Some(reserved.ok_or(GroupError::GroupMaxSizeReached)?);
        self.unless_draining(self.ask(group_id, |reply| {
            Command::Join(group_id.to_owned(), Box::new(request), reply)
        }))
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
        let mut assignments = request.assignments.values();
        if assignments.any(|assignment| assignment.len() > MEMBER_BYTES_MAX) {
            return Err(GroupError::InvalidRequest);
        }
        self.unless_draining(self.ask(group_id, |reply| {
            Command::Sync(group_id.to_owned(), Box::new(request), reply)
        }))
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

    /// Stores offsets durably; an answer for each. `queued` is called once commits that come later are stored later.
    pub async fn commit(
        &self,
        group_id: &str,
        commit: CommitOffsets,
        queued: impl FnOnce(),
    ) -> Result<Outcomes, GroupError> {
        let command = |reply| Command::Commit(group_id.to_owned(), Box::new(commit), reply);
        self.ask_telling(group_id, command, queued).await
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

    /// All groups that this broker coordinates.
    pub async fn list(&self) -> Result<Vec<GroupListing>, GroupError> {
        let loading = |place: &Place| matches!(place, Place::Loading);
        if self.shared.places.load().iter().any(loading) {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        let mut all = Vec::new();
        for slot in self.here() {
            let (reply, answer) = oneshot::channel();
            // A slot that goes to another broker meanwhile is listed there.
            if slot.send(Command::List(reply)).await.is_ok() {
                all.extend(answer.await.unwrap_or_default());
            }
        }
        all.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        Ok(all)
    }

    /// All groups that this broker coordinates, with their offsets.
    pub async fn survey(&self) -> Vec<GroupSurvey> {
        let mut all = Vec::new();
        for slot in self.here() {
            let (reply, answer) = oneshot::channel();
            if slot.send(Command::Survey(reply)).await.is_ok() {
                all.extend(answer.await.unwrap_or_default());
            }
        }
        all.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        all
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
    pub async fn topic_deleted(&self, topic: &str, id: Uuid) {
        for slot in self.here() {
            let _ = slot.send(Command::TopicDeleted(topic.to_owned(), id)).await;
        }
    }

    /// Ends the slots; waiting members are told that the coordinator went away.
    pub fn stop(&self) {
        self.change_places(|places| {
            for place in places {
                if let Place::Here { task, .. } = place {
                    task.abort();
                }
                *place = Place::Elsewhere;
            }
        });
    }
}
