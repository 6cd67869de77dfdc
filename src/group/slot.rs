//! One slot of the coordinator: a task that owns its groups, their timers and whoever waits for an answer.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::classic::{ClassicGroup, Effect, Limits, Rebalanced, State};
use super::coordinator::{Answer, Command, Found, GroupLimits, Outcomes, Resolve, Wanted};
use super::member::Waiter;
use super::messages::{
    CommitOffsets, CommittedOffset, GroupError, GroupListing, GroupSurvey, JoinReply, JoinRequest,
    SyncReply, SyncRequest,
};
use super::offsets::{Key, Offsets, Turn};
use super::persist;
use crate::clock::WallClock;
use crate::memory::Memory;
use crate::meta::{self, MetaError, MetaStore, Op, paths};
use crate::observe::{EventKind, Events, Happened};

/// Wall-clock milliseconds that never jump: the time at start plus what a monotonic clock adds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    base_ms: i64,
    start: Instant,
}

impl Clock {
    pub(super) fn new(wall: &WallClock) -> Self {
        Self {
            base_ms: wall.now_ms(),
            start: Instant::now(),
        }
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.base_ms + self.start.elapsed().as_millis() as i64
    }

    fn until(&self, at_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(at_ms - self.now_ms()).unwrap_or(0))
    }
}

/// A group with its offsets.
pub(super) struct Group {
    pub(super) classic: ClassicGroup,
    pub(super) offsets: Offsets,
    /// As it stands in the slot's timer list.
    pub(super) deadline_ms: Option<i64>,
}

/// Something was stored, or could not be.
enum Done {
    Group {
        group_id: String,
        generation: i32,
        then: Option<(Waiter, JoinReply)>,
        stored: Stored,
    },
    Offsets {
        group_id: String,
        turn: Turn,
        offsets: Vec<(Key, CommittedOffset)>,
        outcomes: Outcomes,
        reply: Answer<Outcomes>,
        stored: Stored,
    },
    Nothing(Stored),
}

/// Whether the tree has it.
type Stored = Result<(), GroupError>;
type Storing = Pin<Box<dyn Future<Output = Done> + Send>>;

enum Waiting {
    Join(Answer<Result<JoinReply, GroupError>>),
    Sync(Answer<Result<SyncReply, GroupError>>),
}

/// See the module's documentation.
pub(super) struct Slot {
    meta: MetaStore,
    /// Part of every write: fails when the slot is another broker's.
    guard: Op,
    fenced: bool,
    resolve: Arc<dyn Resolve>,
    limits: GroupLimits,
    clock: Clock,
    events: Events,
    memory: Memory,
    groups: HashMap<String, Group>,
    deadlines: BTreeSet<(i64, String)>,
    waiting: HashMap<Waiter, Waiting>,
    next_waiter: Waiter,
    storing: FuturesUnordered<Storing>,
    next_turn: Turn,
}

impl Slot {
    pub(super) fn new(
        meta: MetaStore,
        guard: Op,
        resolve: Arc<dyn Resolve>,
        limits: GroupLimits,
        (clock, events, memory): (Clock, Events, Memory),
        groups: HashMap<String, Group>,
    ) -> Self {
        let mut slot = Self {
            meta,
            guard,
            fenced: false,
            resolve,
            limits,
            clock,
            events,
            memory,
            groups,
            deadlines: BTreeSet::new(),
            waiting: HashMap::new(),
            next_waiter: 0,
            storing: FuturesUnordered::new(),
            next_turn: 1,
        };
        let ids: Vec<String> = slot.groups.keys().cloned().collect();
        for id in &ids {
            slot.reschedule(id);
            slot.show_members(id);
        }
        slot
    }

    /// The nodes that show a group's members went with the session of who wrote them.
    fn show_members(&mut self, group_id: &str) {
        let ops = match self.groups.get(group_id) {
            Some(group) => persist::member_ops(group_id, &group.classic),
            None => return,
        };
        self.store_quietly(ops);
    }

    /// Queues a write that fails when the slot is another broker's.
    fn write(&self, ops: Vec<Op>) -> meta::Answer<()> {
        guarded(&self.meta, &self.guard, ops)
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut expiry = tokio::time::interval(self.limits.offsets_check_interval);
        // What is queued goes on to its end; the task does not.
        while !self.fenced {
            let next = self.deadlines.first().map(|(at, _)| self.clock.until(*at));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.handle(command),
                    None => return,
                },
                Some(done) = self.storing.next(), if !self.storing.is_empty() => self.stored(done),
                () = tokio::time::sleep(next.unwrap_or(Duration::from_secs(3600))), if next.is_some() => self.tick(),
                _ = expiry.tick() => self.expire(),
            }
        }
    }

    fn classic_limits(&self) -> Limits {
        let GroupLimits {
            initial_rebalance_delay_ms,
            members_max,
            ..
        } = self.limits;
        Limits {
            initial_rebalance_delay_ms,
            members_max,
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Join(group_id, request, reply) => self.join(&group_id, &request, reply),
            Command::Sync(group_id, request, reply) => self.sync(&group_id, *request, reply),
            Command::Heartbeat(group_id, member, instance, generation, reply) => {
                let now = self.clock.now_ms();
                let beat = |group: &mut Group| {
                    group
                        .classic
                        .heartbeat(now, &member, instance.as_deref(), generation)
                };
                let result = self
                    .groups
                    .get_mut(&group_id)
                    .map_or(Err(GroupError::UnknownMemberId), beat);
                let _ = reply.send(result);
                self.settle(&group_id);
            }
            Command::Leave(group_id, members, reply) => {
                let (now, limits) = (self.clock.now_ms(), self.classic_limits());
                let outcomes = members
                    .iter()
                    .map(|leaving| match self.groups.get_mut(&group_id) {
                        Some(group) => group.classic.leave(now, leaving, &limits),
                        None => Err(GroupError::UnknownMemberId),
                    });
                let outcomes = outcomes.collect();
                self.settle(&group_id);
                let _ = reply.send(outcomes);
            }
            Command::Commit(group_id, commit, reply) => self.commit(group_id, *commit, reply),
            Command::Fetch(group_id, wanted, member, reply) => {
                let _ = reply.send(self.fetch(&group_id, wanted, member));
            }
            Command::Describe(group_id, reply) => {
                let _ = reply.send(
                    self.groups
                        .get(&group_id)
                        .map(|group| group.classic.describe()),
                );
            }
            Command::List(reply) => {
                let list = |(id, group): (&String, &Group)| GroupListing {
                    group_id: id.clone(),
                    protocol_type: group.classic.protocol_type.clone().unwrap_or_default(),
                    state: group.classic.state.name(),
                };
                let _ = reply.send(self.groups.iter().map(list).collect());
            }
            Command::Survey(reply) => {
                let _ = reply.send(self.groups.iter().map(survey).collect());
            }
            Command::Delete(group_id, reply) => self.delete(group_id, reply),
            Command::DeleteOffsets(group_id, keys, reply) => {
                self.delete_offsets(&group_id, keys, reply)
            }
            Command::TopicDeleted(topic, id) => self.topic_deleted(&topic, id),
        }
    }

    fn turn(&mut self) -> Turn {
        self.next_turn += 1;
        self.next_turn
    }

    fn wait(&mut self, waiting: Waiting) -> Waiter {
        self.next_waiter += 1;
        self.waiting.insert(self.next_waiter, waiting);
        self.next_waiter
    }

    fn join(
        &mut self,
        group_id: &str,
        request: &JoinRequest,
        reply: Answer<Result<JoinReply, GroupError>>,
    ) {
        let (now, limits) = (self.clock.now_ms(), self.classic_limits());
        if !self.groups.contains_key(group_id) {
            if !request.member_id.is_empty() {
                let _ = reply.send(Err(GroupError::UnknownMemberId));
                return;
            }
            let fresh = Group {
                classic: ClassicGroup::new(now),
                offsets: Offsets::since(self.turn()),
                deadline_ms: None,
            };
            self.groups.insert(group_id.to_owned(), fresh);
        }
        let waiter = self.wait(Waiting::Join(reply));
        let prefix = request.instance_id.as_deref().unwrap_or(&request.client_id);
        let new_id = format!("{prefix}-{}", Uuid::new_v4());
        if let Some(group) = self.groups.get_mut(group_id) {
            group.classic.join(now, waiter, new_id, request, &limits);
        }
        self.settle(group_id);
    }

    fn sync(
        &mut self,
        group_id: &str,
        request: SyncRequest,
        reply: Answer<Result<SyncReply, GroupError>>,
    ) {
        let now = self.clock.now_ms();
        if !self.groups.contains_key(group_id) {
            let _ = reply.send(Err(GroupError::UnknownMemberId));
            return;
        }
        let waiter = self.wait(Waiting::Sync(reply));
        if let Some(group) = self.groups.get_mut(group_id) {
            group.classic.sync(now, waiter, request);
        }
        self.settle(group_id);
    }

    /// Carries out what the group wants done, and puts its timer right.
    fn settle(&mut self, group_id: &str) {
        let Some(group) = self.groups.get_mut(group_id) else {
            return;
        };
        for over in group.classic.take_rebalanced() {
            tell(&self.events, group_id, &over);
        }
        for effect in group.classic.take_effects() {
            match effect {
                Effect::Join(waiter, reply) => {
                    if let Some(Waiting::Join(to)) = self.waiting.remove(&waiter) {
                        let _ = to.send(reply);
                    }
                }
                Effect::Sync(waiter, reply) => {
                    if let Some(Waiting::Sync(to)) = self.waiting.remove(&waiter) {
                        let _ = to.send(reply);
                    }
                }
                Effect::Persist { generation, then } => {
                    let ops = persist::group_ops(group_id, &group.classic, &*self.resolve);
                    let writing = guarded(&self.meta, &self.guard, ops);
                    let group_id = group_id.to_owned();
                    self.storing.push(Box::pin(async move {
                        let stored = report(&group_id, writing.await);
                        Done::Group {
                            group_id,
                            generation,
                            then,
                            stored,
                        }
                    }));
                }
            }
        }
        self.reschedule(group_id);
        self.drop_if_nothing(group_id);
    }

    fn reschedule(&mut self, group_id: &str) {
        let Some(group) = self.groups.get_mut(group_id) else {
            return;
        };
        let next = group.classic.next_deadline();
        if next == group.deadline_ms {
            return;
        }
        if let Some(before) = group.deadline_ms {
            self.deadlines.remove(&(before, group_id.to_owned()));
        }
        if let Some(next) = next {
            self.deadlines.insert((next, group_id.to_owned()));
        }
        group.deadline_ms = next;
    }

    /// A group that never had a member nor an offset leaves no trace.
    fn drop_if_nothing(&mut self, group_id: &str) {
        let nothing = |group: &Group| {
            group.classic.is_empty()
                && !group.classic.has_pending()
                && group.classic.generation == 0
                && group.offsets.is_empty()
                && group.classic.protocol_type.is_none()
        };
        if self.groups.get(group_id).is_some_and(nothing) {
            self.forget(group_id);
        }
    }

    fn forget(&mut self, group_id: &str) {
        if let Some(deadline) = self
            .groups
            .remove(group_id)
            .and_then(|group| group.deadline_ms)
        {
            self.deadlines.remove(&(deadline, group_id.to_owned()));
        }
    }

    /// Lets the groups do what is due, each once: what they want done by now already is done at the next turn of the loop,
    /// after others had theirs.
    fn tick(&mut self) {
        let (now, limits) = (self.clock.now_ms(), self.classic_limits());
        let later = self.deadlines.split_off(&(now + 1, String::new()));
        for (_, group_id) in std::mem::replace(&mut self.deadlines, later) {
            if let Some(group) = self.groups.get_mut(&group_id) {
                group.deadline_ms = None;
                group.classic.tick(now, &limits);
            }
            self.settle(&group_id);
        }
    }

    fn stored(&mut self, done: Done) {
        let (Done::Group { stored, .. } | Done::Offsets { stored, .. } | Done::Nothing(stored)) =
            &done;
        if *stored == Err(GroupError::NotCoordinator) && !self.fenced {
            tracing::info!(
                slot = self.guard.path(),
                "another broker coordinates these groups now"
            );
            self.fenced = true;
        }
        let (now, limits) = (self.clock.now_ms(), self.classic_limits());
        match done {
            Done::Group {
                group_id,
                generation,
                then,
                stored,
            } => {
                if let Some((waiter, reply)) = then
                    && let Some(Waiting::Join(to)) = self.waiting.remove(&waiter)
                {
                    let _ = to.send(stored.map(|()| reply));
                }
                if let Some(group) = self.groups.get_mut(&group_id) {
                    group
                        .classic
                        .persisted(now, generation, stored.is_ok(), &limits);
                }
                self.settle(&group_id);
            }
            Done::Offsets {
                group_id,
                turn,
                mut offsets,
                mut outcomes,
                reply,
                stored,
            } => {
                if stored.is_err() {
                    offsets.clear();
                    for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                        *outcome = stored;
                    }
                }
                if let Some(group) = self.groups.get_mut(&group_id) {
                    group.offsets.arrive(turn, offsets);
                }
                let _ = reply.send(outcomes);
                self.drop_if_nothing(&group_id);
            }
            Done::Nothing(_) => {}
        }
    }

    fn commit(&mut self, group_id: String, commit: CommitOffsets, reply: Answer<Outcomes>) {
        let (now, turn) = (self.clock.now_ms(), self.turn());
        let refuse = |error| vec![Err(error); commit.offsets.len()];
        let fresh = || Group {
            classic: ClassicGroup::new(now),
            offsets: Offsets::since(turn),
            deadline_ms: None,
        };
        let group = match self.groups.get_mut(&group_id) {
            Some(group) => group,
            None if commit.generation < 0 => {
                self.groups.entry(group_id.clone()).or_insert_with(fresh)
            }
            None => {
                let _ = reply.send(refuse(GroupError::IllegalGeneration));
                return;
            }
        };
        let instance = commit.instance_id.as_deref();
        if let Err(error) =
            group
                .classic
                .check_commit(now, &commit.member_id, instance, commit.generation)
        {
            let _ = reply.send(refuse(error));
            return;
        }
        let expire_ms = commit
            .retention_ms
            .map(|retention| now.saturating_add(retention));
        let (mut outcomes, mut offsets, mut ops) = (Vec::new(), Vec::new(), Vec::new());
        for asked in commit.offsets {
            if asked.metadata.len() > self.limits.metadata_bytes_max {
                outcomes.push(Err(GroupError::OffsetMetadataTooLarge));
                continue;
            }
            let topic_id = self.resolve.topic_id(&asked.topic);
            let key = (asked.topic, asked.partition);
            let (leader_epoch, metadata) = (asked.leader_epoch, asked.metadata);
            let offset = CommittedOffset {
                offset: asked.offset,
                leader_epoch,
                metadata,
                commit_ms: now,
                expire_ms,
                topic_id,
            };
            outcomes.push(Ok(()));
            ops.extend(persist::offset_op(&group_id, &key, &offset, &*self.resolve));
            offsets.push((key, offset));
        }
        group.offsets.send();
        let writing = guarded(&self.meta, &self.guard, ops);
        let id = group_id.clone();
        self.storing.push(Box::pin(async move {
            let stored = report(&group_id, writing.await);
            Done::Offsets {
                group_id,
                turn,
                offsets,
                outcomes,
                reply,
                stored,
            }
        }));
        self.reschedule(&id);
    }

    fn fetch(
        &mut self,
        group_id: &str,
        wanted: Wanted,
        member: Option<(String, i32)>,
    ) -> Result<Found, GroupError> {
        let group = self.groups.get(group_id);
        if let (Some((member_id, generation)), Some(group)) = (member, group)
            && !member_id.is_empty()
            && generation >= 0
        {
            if !group.classic.members.contains_key(&member_id) {
                return Err(GroupError::UnknownMemberId);
            }
            if group.classic.generation != generation {
                return Err(GroupError::IllegalGeneration);
            }
        }
        let found = self.memory.try_take(fetched_bytes(group, wanted.as_ref()));
        let share = found.ok_or(GroupError::CoordinatorNotAvailable)?;
        let offsets = match (group, wanted) {
            (Some(group), Some(keys)) => keys
                .into_iter()
                .map(|key| (group.offsets.get(&key.0, key.1).cloned(), key))
                .map(|(o, k)| (k, o))
                .collect(),
            (Some(group), None) => group
                .offsets
                .iter()
                .map(|(key, offset)| (key.clone(), Some(offset.clone())))
                .collect(),
            (None, wanted) => wanted
                .unwrap_or_default()
                .into_iter()
                .map(|key| (key, None))
                .collect(),
        };
        Ok(Found { offsets, share })
    }

    fn delete(&mut self, group_id: String, reply: Answer<Result<(), GroupError>>) {
        match self.groups.get(&group_id) {
            None => {
                let _ = reply.send(Err(GroupError::GroupIdNotFound));
            }
            Some(group) if group.classic.state != State::Empty => {
                let _ = reply.send(Err(GroupError::NonEmptyGroup));
            }
            Some(_) => {
                self.forget(&group_id);
                let writing = self.write(vec![persist::remove_group_op(&group_id)]);
                self.storing.push(Box::pin(async move {
                    let stored = report(&group_id, writing.await);
                    let _ = reply.send(stored);
                    Done::Nothing(stored)
                }));
            }
        }
    }

    fn delete_offsets(
        &mut self,
        group_id: &str,
        keys: Vec<Key>,
        reply: Answer<Result<Outcomes, GroupError>>,
    ) {
        let turn = self.turn();
        let Some(group) = self.groups.get_mut(group_id) else {
            let _ = reply.send(Err(GroupError::GroupIdNotFound));
            return;
        };
        let active = group.classic.state != State::Empty;
        if active && group.classic.protocol_type.as_deref() != Some("consumer") {
            let _ = reply.send(Err(GroupError::NonEmptyGroup));
            return;
        }
        let mut outcomes = Vec::with_capacity(keys.len());
        let mut removed = Vec::new();
        for key in keys {
            if active && group.classic.subscribes(&key.0) {
                outcomes.push(Err(GroupError::GroupSubscribedToTopic));
            } else {
                outcomes.push(Ok(()));
                group.offsets.remove(turn, &key);
                removed.push(key);
            }
        }
        let ops = removed
            .iter()
            .filter_map(|key| persist::remove_offset_op(group_id, key, &*self.resolve))
            .collect();
        let writing = self.write(ops);
        let group_id = group_id.to_owned();
        self.storing.push(Box::pin(async move {
            let stored = report(&group_id, writing.await);
            let _ = reply.send(stored.map(|()| outcomes));
            Done::Nothing(stored)
        }));
    }

    fn topic_deleted(&mut self, topic: &str, id: Uuid) {
        let mut ops = Vec::new();
        for (group_id, group) in &mut self.groups {
            if group.offsets.remove_topic(topic, id) {
                ops.push(Op::DeleteTree {
                    path: paths::group_topic_offsets(group_id, topic),
                });
            }
        }
        self.store_quietly(ops);
    }

    /// Removes offsets whose retention is over, and groups that have nothing left.
    fn expire(&mut self) {
        let (now, turn) = (self.clock.now_ms(), self.turn());
        let mut ops = Vec::new();
        let mut gone = Vec::new();
        // Usually a topic's end is told.
        let orphans = self.groups.values().flat_map(|group| {
            let offsets = &group.offsets;
            offsets.orphans(|topic| self.resolve.topic_id(topic))
        });
        let orphans: BTreeSet<(String, Uuid)> = orphans.collect();
        for (topic, id) in orphans {
            self.topic_deleted(&topic, id);
        }
        for (group_id, group) in &mut self.groups {
            let classic = &group.classic;
            let retention = self.limits.offsets_retention_ms;
            let expired = group.offsets.expired(now, retention, |topic, offset| {
                match (classic.state, classic.protocol_type.is_some()) {
                    // From when the group became empty, or from the commit where nobody ever joined (KIP-211).
                    (State::Empty, true) => Some(classic.changed_ms.max(offset.commit_ms)),
                    (State::Empty, false) => Some(offset.commit_ms),
                    (State::Stable, _) if !classic.subscribes(topic) => Some(offset.commit_ms),
                    _ => None,
                }
            });
            for key in expired {
                ops.extend(persist::remove_offset_op(group_id, &key, &*self.resolve));
                group.offsets.remove(turn, &key);
            }
            // As Kafka's GroupMetadataManager: an empty group without offsets goes at once.
            if group.classic.is_empty() && !group.classic.has_pending() && group.offsets.is_empty()
            {
                gone.push(group_id.clone());
            }
        }
        for group_id in gone {
            tracing::info!(group = group_id, "the empty group expired");
            self.forget(&group_id);
            ops.push(persist::remove_group_op(&group_id));
        }
        self.store_quietly(ops);
    }

    fn store_quietly(&mut self, ops: Vec<Op>) {
        if ops.is_empty() {
            return;
        }
        let writing = self.write(ops);
        self.storing.push(Box::pin(
            async move { Done::Nothing(report("", writing.await)) },
        ));
    }
}

/// What an offset takes on its way to a client besides its texts, roughly.
const FETCHED_OFFSET_BYTES: usize = 300;

/// What the offsets of a group take until they are answered.
fn fetched_bytes(group: Option<&Group>, wanted: Option<&Vec<Key>>) -> usize {
    let key = |(topic, _): &Key| FETCHED_OFFSET_BYTES + topic.len();
    match (group, wanted) {
        (None, None) => 0,
        (None, Some(keys)) => keys.iter().map(key).sum(),
        (Some(group), Some(keys)) => {
            let text = |key: &Key| {
                let offset = group.offsets.get(&key.0, key.1);
                offset.map_or(0, |offset| offset.metadata.len())
            };
            keys.iter().map(|asked| key(asked) + text(asked)).sum()
        }
        (Some(group), None) => {
            let all = group.offsets.iter();
            all.map(|(of, offset)| key(of) + offset.metadata.len())
                .sum()
        }
    }
}

fn survey((group_id, group): (&String, &Group)) -> GroupSurvey {
    let offset = |((topic, partition), committed): (&Key, &CommittedOffset)| {
        (topic.clone(), *partition, committed.offset)
    };
    GroupSurvey {
        group_id: group_id.clone(),
        state: group.classic.state.name(),
        members: group.classic.members.len(),
        offsets: group.offsets.iter().map(offset).collect(),
    }
}

/// Tells of a rebalance.
fn tell(events: &Events, group_id: &str, over: &Rebalanced) {
    let (before, behind) = over.members;
    let mut detail = format!(
        "generation {}, {before} → {behind} members",
        over.generation
    );
    if let Some((who, ms)) = &over.waited_for
        && *ms > 0
    {
        detail.push_str(&format!("; last to join: {who} after {ms} ms"));
    }
    if over.missing > 0 {
        detail.push_str(&format!("; {} did not rejoin in time", over.missing));
    }
    let rebalance = Happened::new(EventKind::Rebalance, group_id)
        .who(&over.who)
        .why(&over.why)
        .detail(detail)
        .took_ms(over.took_ms);
    events.tell(rebalance);
}

fn guarded(meta: &MetaStore, guard: &Op, mut ops: Vec<Op>) -> meta::Answer<()> {
    if !ops.is_empty() {
        ops.push(guard.clone());
    }
    meta.multi(ops)
}

fn report(group_id: &str, result: Result<(), MetaError>) -> Stored {
    result.map_err(|error| match error {
        // Only the slot's version is checked.
        MetaError::BadVersion(_) => GroupError::NotCoordinator,
        error => {
            tracing::error!(group = group_id, %error, "cannot store what belongs to groups");
            GroupError::CoordinatorNotAvailable
        }
    })
}
