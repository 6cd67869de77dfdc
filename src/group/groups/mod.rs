//! The groups of one slot as a machine of the coordinator: their timers, the requests that wait for them, and their writes.
//!
//! - here: the machine, and timers
//! - `broadcast`: groups whose members get everything each: what is asked of them goes to the members' own groups; `shown`: what
//!   people see of groups
//! - `classic`: members of classic groups
//! - `consumer`: consumer groups of KIP-848
//! - `share`: share groups; `streams`: streams groups; `recorded`: how changes of both get to the tree
//! - `commits`: offsets that are committed
//! - `transactions`: offsets of transactions, and their markers
//! - `removals`: what is deleted, by request or because its retention is over
//! - `tests`: of all files here, with writes that are stored or refused

mod broadcast;
mod classic;
mod commits;
mod consumer;
mod recorded;
mod removals;
mod share;
mod shown;
mod streams;
#[cfg(test)]
mod tests;
mod transactions;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::asks::{Ask, AskAll, Outcomes};
use super::classic::{Change, ClassicGroup, Limits};
use super::consumer::GroupSettings;
use super::group::{Group, Members, fetch_offsets};
use super::held_answers::Held;
use super::limits::GroupLimits;
use super::member::Waiter;
use super::messages::{Described, GroupError, JoinReply, SyncReply, TransactionEnd};
use super::mirror::{MirrorFeed, SlotMirror};
use super::offsets::{Committed, Key, WriteNumber};
use super::persist;
use super::producers::{LastMarker, SlotProducers};
use super::reserved::GroupMemory;
use super::solo::{self, Solo};
use super::stored_transactions;
use crate::coordinator::{
    Answer, CoordinatorError, InternalTopic, Loaded, Machine, Slot, Stored, StoredId, Topics, Write,
};
use crate::memory::Memory;
use crate::meta::{Op, paths};
use crate::observe::Events;
use transactions::EndedGroup;

/// Guards differ between all machines of this process.
static FIRST_GUARD: AtomicU64 = AtomicU64::new(0);
/// More than one machine gives.
const GUARDS_A_SLOT: u64 = 1 << 40;

/// What the groups of all slots share.
pub(super) struct GroupContext {
    pub(super) limits: GroupLimits,
    /// What is in force for each consumer group.
    pub(super) settings: Arc<dyn GroupSettings>,
    /// Reports rebalances.
    pub(super) events: Events,
    /// The memory that clients make the broker hold.
    pub(super) memory: Memory,
    /// The memory that members take.
    pub(super) members: Arc<GroupMemory>,
    /// The memory that offsets take.
    pub(super) offsets: Arc<GroupMemory>,
    /// How many share groups there are.
    pub(super) share_groups: Arc<GroupMemory>,
    /// Where what becomes known is queued for `__consumer_offsets`.
    pub(super) mirror: Option<Arc<MirrorFeed>>,
}

/// A request that waits for its group.
enum Waiting {
    Join(Answer<Result<JoinReply, GroupError>>),
    Sync(Answer<Result<SyncReply, GroupError>>),
}

/// What is committed for one of several groups.
pub(super) type CommitOfOne = (String, WriteNumber, Vec<(Key, Committed)>);

/// What goes on when a write is stored.
pub(super) enum Then {
    /// A group with its members and assignment.
    Group {
        group_id: String,
        change: Change,
        /// Which write of the group's it is.
        number: u64,
    },
    /// Offsets of a commit.
    Commit {
        group_id: String,
        number: WriteNumber,
        offsets: Vec<(Key, Committed)>,
        outcomes: Outcomes,
        answer: Answer<Outcomes>,
    },
    /// The same offsets of several groups.
    CommitOfEach {
        commits: Vec<CommitOfOne>,
        outcomes: Outcomes,
        answer: Answer<Outcomes>,
    },
    /// Offsets of a transaction.
    Pending {
        group_id: String,
        producer_id: i64,
        number: WriteNumber,
        offsets: Vec<(Key, Committed)>,
        outcomes: Outcomes,
        answer: Answer<Outcomes>,
    },
    /// A marker.
    TransactionEnded {
        end: TransactionEnd,
        number: WriteNumber,
        ended: Vec<EndedGroup>,
        /// What is stored of it, if anything is.
        marker: Option<LastMarker>,
        answer: Answer<Result<(), GroupError>>,
    },
    /// A group is removed.
    GroupRemoved {
        group_id: String,
        /// `None` if it was not asked for.
        answer: Option<Answer<Result<(), GroupError>>>,
    },
    /// Offsets are removed.
    OffsetsRemoved {
        group_id: String,
        number: WriteNumber,
        keys: Vec<Key>,
        /// Those whose pending offsets are among them.
        producers: Vec<i64>,
        /// `None` if it was not asked for.
        answer: Option<(Outcomes, Answer<Result<Outcomes, GroupError>>)>,
    },
    /// A part of what changed in a consumer group.
    ConsumerGroup {
        group_id: String,
        number: WriteNumber,
    },
    /// What changed in a group that is stored in one record.
    RecordedGroup {
        group_id: String,
        number: WriteNumber,
    },
    /// Answers of a group that is of another protocol now.
    Released { held: Vec<Held> },
    /// Nothing depends on it.
    Nothing,
}

fn check_interval_ms(context: &GroupContext) -> i64 {
    let interval = context.limits.offsets_check_interval;
    interval.as_millis().max(1) as i64
}

/// See the module's documentation.
pub(super) struct Groups {
    context: Arc<GroupContext>,
    topics: Arc<dyn Topics>,
    slot: Slot,
    /// Those that a broadcast group is made of follow it.
    groups: BTreeMap<String, Group>,
    /// Timers of groups, ms.
    deadlines: BTreeSet<(i64, String)>,
    /// When it is checked what is over, ms.
    check_at_ms: i64,
    /// Before this no group or offset expires, ms: as with Kafka, whoever comes to a new coordinator finds an empty group still.
    /// A member of KIP-848 does not outlive the loss of its group, as it does that of its membership.
    expires_from_ms: i64,
    waiting: HashMap<Waiter, Waiting>,
    last_waiter: Waiter,
    last_number: WriteNumber,
    writes: Vec<Write<Then>>,
    producers: SlotProducers,
    mirror: SlotMirror,
}

impl Machine for Groups {
    const TOPIC: InternalTopic = InternalTopic::ConsumerOffsets;
    const ROOT: &'static str = paths::GROUPS;
    const SLOT_ROOT: Option<&'static str> = Some(paths::PRODUCERS);
    type Context = GroupContext;
    type Ask = Ask;
    type AskAll = AskAll;
    type Then = Then;

    fn load(from: Stored<'_, Self>) -> Loaded<Self> {
        let mut machine = Self {
            context: from.context.clone(),
            topics: from.topics.clone(),
            slot: from.partition.slot,
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            check_at_ms: from.now_ms,
            expires_from_ms: from.now_ms.saturating_add(check_interval_ms(from.context)),
            waiting: HashMap::new(),
            last_waiter: 0,
            last_number: 1,
            writes: Vec::new(),
            producers: SlotProducers::new(
                FIRST_GUARD.fetch_add(GUARDS_A_SLOT, Ordering::Relaxed),
                from.context.limits.producer_expiration_ms,
            ),
            mirror: SlotMirror {
                feed: from.context.mirror.clone(),
                slot: from.partition.slot,
                epoch: from.epoch,
            },
        };
        for marker in stored_transactions::load_markers(&from.slot.nodes) {
            machine.producers.restore_marker(marker);
        }
        let mut unresolved = 0;
        for stored in &from.slot.ids {
            unresolved += match solo::stored_apart(stored) {
                None => machine.restore(from.now_ms, stored),
                Some(apart) => {
                    let restored = apart.iter().map(|one| machine.restore(from.now_ms, one));
                    let unresolved = restored.sum();
                    machine.drop_if_nothing(&stored.id);
                    unresolved
                }
            };
        }
        machine.mirror.whole(&machine.groups);
        Loaded {
            machine,
            unresolved,
        }
    }

    fn handle(&mut self, now_ms: i64, group_id: String, ask: Ask) {
        let Some(ask) = self.wait_for_removal(&group_id, ask) else {
            return;
        };
        let Some(ask) = self.refuse_of_share(&group_id, ask) else {
            return;
        };
        let Some(ask) = self.refuse_of_streams(&group_id, ask) else {
            return;
        };
        let Some((group_id, ask)) = self.of_broadcast(now_ms, group_id, ask) else {
            return;
        };
        let Some(ask) = self.wait_for_removal(&group_id, ask) else {
            return;
        };
        match ask {
            Ask::Share(ask) => self.share_ask(now_ms, &group_id, ask),
            Ask::StreamsHeartbeat(beat, answer) => {
                self.streams_heartbeat(now_ms, &group_id, *beat, answer);
            }
            Ask::Join(request, answer) => self.join(now_ms, &group_id, &request, answer),
            Ask::Sync(request, answer) => self.sync(now_ms, &group_id, request, answer),
            Ask::Heartbeat(beat, answer) => {
                answer.send(self.heartbeat(now_ms, &group_id, &beat));
                self.settle(&group_id);
            }
            Ask::ConsumerHeartbeat(beat, answer) => {
                self.consumer_heartbeat(now_ms, &group_id, *beat, answer);
            }
            Ask::Leave(members, answer) => self.leave(now_ms, &group_id, &members, answer),
            Ask::Commit(commit, answer) => self.commit(now_ms, group_id, commit, answer),
            Ask::FetchOffsets(ask, answer) => {
                let group = self.groups.get(&group_id);
                answer.send(fetch_offsets(group, ask, &self.context.memory));
            }
            Ask::VerifyTransaction {
                producer_id,
                producer_epoch,
                answer,
            } => answer.send(self.producers.verify((producer_id, producer_epoch), now_ms)),
            Ask::CommitTransactional(commit, answer) => {
                self.commit_transactional(now_ms, group_id, commit, answer);
            }
            Ask::EndTransaction(end, answer) => self.end_transaction(now_ms, end, answer),
            Ask::Describe(answer) => {
                answer.send(self.describe(&group_id));
            }
            Ask::Delete(answer) => self.delete(now_ms, group_id, answer),
            Ask::DeleteOffsets(keys, answer) => self.delete_offsets(now_ms, group_id, keys, answer),
        }
    }

    fn handle_all(&mut self, now_ms: i64, ask: AskAll) {
        match ask {
            AskAll::List(answer) => {
                let all = self.shown();
                answer.send(all.into_iter().map(|shown| self.list(shown)).collect());
            }
            AskAll::Survey(answer) => {
                let all = self.shown();
                answer.send(all.into_iter().map(|shown| self.survey(shown)).collect());
            }
            AskAll::TopicDeleted(topic, id) => {
                self.topic_deleted(now_ms, &topic, id);
                self.topic_deleted_for_shares(id);
            }
            AskAll::EndTransaction(end, answer) => self.end_transaction(now_ms, end, answer),
            AskAll::Mirror => self.mirror.whole(&self.groups),
        }
    }

    fn next_deadline(&self) -> Option<i64> {
        let first = self.deadlines.first().map(|(at_ms, _)| *at_ms);
        Some(first.unwrap_or(i64::MAX).min(self.check_at_ms))
    }

    /// Each group does what is due, once: what is due again by then waits for the next call, after other events.
    fn tick(&mut self, now_ms: i64) {
        let limits = self.classic_limits();
        let later = self.deadlines.split_off(&(now_ms + 1, String::new()));
        for (_, group_id) in std::mem::replace(&mut self.deadlines, later) {
            let Some(group) = self.groups.get_mut(&group_id) else {
                continue;
            };
            group.deadline_ms = None;
            match &mut group.members {
                Members::Classic(classic) => {
                    // What is alone has no delay that could be under way.
                    classic.tick(now_ms, &limits);
                    self.settle(&group_id);
                }
                Members::Consumer(_) => self.tick_consumer(now_ms, &group_id),
                Members::Share(_) => self.tick_share(now_ms, &group_id),
                Members::Streams(_) => self.tick_streams(now_ms, &group_id),
            }
        }
        if self.check_at_ms <= now_ms {
            self.check_at_ms = now_ms.saturating_add(check_interval_ms(&self.context));
            self.expire_producers(now_ms);
            self.remove_orphans(now_ms);
            if self.expires_from_ms <= now_ms {
                self.expire(now_ms);
            }
        }
    }

    fn stored(&mut self, now_ms: i64, then: Then, outcome: Result<(), CoordinatorError>) {
        let stored = outcome.map_err(GroupError::from);
        match then {
            Then::Group {
                group_id,
                change,
                number,
            } => {
                if let (Some(group), Ok(())) = (self.groups.get_mut(&group_id), stored) {
                    group.parts.stored(number);
                }
                self.group_stored(now_ms, &group_id, change, stored);
            }
            Then::Commit {
                group_id,
                number,
                offsets,
                outcomes,
                answer,
            } => {
                let outcomes = self.committed(&group_id, number, offsets, outcomes, stored);
                answer.send(outcomes);
            }
            Then::CommitOfEach {
                commits,
                mut outcomes,
                answer,
            } => {
                for (group_id, number, offsets) in commits {
                    outcomes = self.committed(&group_id, number, offsets, outcomes, stored);
                }
                answer.send(outcomes);
            }
            Then::Pending {
                group_id,
                producer_id,
                number,
                offsets,
                mut outcomes,
                answer,
            } => {
                let of = (producer_id, number);
                self.pending_stored(&group_id, of, offsets, &mut outcomes, stored);
                answer.send(outcomes);
                self.producer_is_free(now_ms, producer_id);
            }
            Then::TransactionEnded {
                end,
                number,
                ended,
                marker,
                answer,
            } => {
                self.transaction_ended(now_ms, (end, marker), number, ended, stored);
                answer.send(stored);
                self.producer_is_free(now_ms, end.producer_id);
            }
            Then::GroupRemoved { group_id, answer } => {
                self.group_removed(now_ms, &group_id, answer, stored);
            }
            Then::OffsetsRemoved {
                group_id,
                number,
                keys,
                producers,
                answer,
            } => {
                self.offsets_removed(&group_id, number, keys, stored);
                if let Some((outcomes, answer)) = answer {
                    answer.send(stored.map(|()| outcomes));
                }
                for producer_id in producers {
                    self.producer_is_free(now_ms, producer_id);
                }
            }
            Then::ConsumerGroup { group_id, number } => {
                self.consumer_stored(now_ms, &group_id, number, stored);
            }
            Then::RecordedGroup { group_id, number } => {
                self.recorded_stored(now_ms, &group_id, number, stored);
            }
            Then::Released { held } => held.into_iter().for_each(|answer| answer(stored)),
            Then::Nothing => {}
        }
    }

    fn take_writes(&mut self) -> Vec<Write<Then>> {
        std::mem::take(&mut self.writes)
    }
}

impl Groups {
    fn classic_limits(&self) -> Limits {
        let GroupLimits {
            initial_rebalance_delay_ms,
            members_max,
            ..
        } = self.context.limits;
        Limits {
            initial_rebalance_delay_ms,
            members_max,
            alone: false,
        }
    }

    /// The same for a group, which may be of one member.
    fn limits_of(&self, group_id: &str) -> Limits {
        let limits = self.classic_limits();
        match Solo::of(group_id) {
            None => limits,
            Some(_) => Limits {
                initial_rebalance_delay_ms: 0,
                alone: true,
                ..limits
            },
        }
    }

    /// Takes what is stored of a group; says how many nodes name partitions that are not known.
    fn restore(&mut self, now_ms: i64, stored: &StoredId) -> usize {
        let context = self.context.clone();
        let with = (&*context.settings, &*self.topics);
        let memory = (&context.members, &context.offsets);
        let loaded = persist::load(stored, with, memory, now_ms);
        // Nodes that show a classic group's members went with the session that wrote them.
        if let Members::Classic(classic) = &loaded.members {
            let members = persist::member_ops(&stored.id, classic);
            self.store(now_ms, stored.id.clone(), members, Then::Nothing);
        }
        let mut group = Group::of(loaded.members, loaded.offsets);
        if let Some(hosted) = group.share_mut() {
            hosted.place = Some(context.share_groups.reserve_anyway(1));
        }
        group.parts = loaded.parts;
        for (producer_id, epoch) in loaded.producers {
            let id = &stored.id;
            self.producers.restore(producer_id, epoch, id, now_ms);
        }
        group.has_transactions = !loaded.pending.is_empty();
        group.pending = loaded.pending;
        self.last_number = self.last_number.max(loaded.last_number);
        if let (Some(Solo::Client(_)), Some(classic)) = (Solo::of(&stored.id), group.classic_mut())
        {
            // Perhaps it was until now.
            classic.was_in_use(now_ms);
        }
        self.groups.insert(stored.id.clone(), group);
        self.reschedule(&stored.id);
        loaded.unresolved
    }

    /// An ask that would change a group waits while the group is being removed.
    fn wait_for_removal(&mut self, group_id: &str, ask: Ask) -> Option<Ask> {
        let group = self.groups.get_mut(group_id);
        match group.and_then(|group| group.removal.as_mut()) {
            Some(waiting) if !ask.only_reads() => {
                waiting.push(ask);
                None
            }
            _ => Some(ask),
        }
    }

    /// Numbers a write, or the beginning of a group: a later one has a higher number.
    fn number(&mut self) -> WriteNumber {
        self.last_number += 1;
        self.last_number
    }

    /// Asks for a write; an empty one is stored at once.
    fn store(&mut self, now_ms: i64, id: String, ops: Vec<Op>, then: Then) {
        match ops.is_empty() {
            true => self.stored(now_ms, then, Ok(())),
            false => self.writes.push(Write { id, ops, then }),
        }
    }

    fn wait(&mut self, waiting: Waiting) -> Waiter {
        self.last_waiter += 1;
        self.waiting.insert(self.last_waiter, waiting);
        self.last_waiter
    }

    fn classic_mut(&mut self, group_id: &str) -> Option<&mut ClassicGroup> {
        self.groups.get_mut(group_id)?.classic_mut()
    }

    fn describe(&self, group_id: &str) -> Option<Described> {
        let group = self.groups.get(group_id)?;
        Some(match &group.members {
            Members::Classic(classic) => Described::Classic(classic.describe()),
            Members::Share(hosted) => Described::Share(hosted.group.describe(&*self.topics)),
            Members::Streams(hosted) => Described::Streams(hosted.group.describe()),
            Members::Consumer(hosted) => {
                let settings = self.consumer_settings(group_id);
                Described::Consumer(hosted.group.describe(&settings, &*self.topics))
            }
        })
    }

    fn reschedule(&mut self, group_id: &str) {
        let Some(group) = self.groups.get_mut(group_id) else {
            return;
        };
        let next = group.next_deadline();
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
        if self.groups.get(group_id).is_some_and(Group::is_nothing) {
            self.forget(group_id);
        }
    }

    fn forget(&mut self, group_id: &str) {
        let forgotten = self.groups.remove(group_id);
        if forgotten
            .as_ref()
            .is_some_and(|group| !group.pending.is_empty())
        {
            self.producers.group_removed(group_id);
        }
        if let Some(deadline_ms) = forgotten.and_then(|group| group.deadline_ms) {
            self.deadlines.remove(&(deadline_ms, group_id.to_owned()));
        }
    }
}
