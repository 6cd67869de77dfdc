//! What is stored of the share partitions of one slot, as a machine of the coordinator (Kafka's ShareCoordinatorShard).
//!
//! The leader of a partition writes here what its share group has done with the records. Writes of one share partition are
//! stored one after the other; what is asked meanwhile waits.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use super::error::ShareStateError;
use super::partition::StoredState;
use super::share_key::ShareKey;
use super::stored_share::{NOT_SET, StoredShare, WrittenState};
use crate::coordinator::{
    Answer, CoordinatorError, InternalTopic, Loaded, Machine, Parts, Stored, Write,
};
use crate::meta::{Op, paths};

/// Asks of one share partition that may wait for a write.
const WAITING_MAX: usize = 64;

type Outcome<T> = Result<T, ShareStateError>;

/// What is stored, in short (ReadShareGroupStateSummary).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareSummary {
    /// Everything before it is done; -1 where nothing is known.
    pub start: i64,
    /// Counts how often its offsets were set from outside.
    pub state_epoch: i32,
    /// Of the latest leader that read it.
    pub leader_epoch: i32,
    /// How many records from the start on are done; -1 where nothing is known.
    pub delivery_complete_count: i32,
}

impl ShareSummary {
    /// Of a share partition that was not initialized.
    const NONE: Self = Self {
        start: NOT_SET,
        state_epoch: 0,
        leader_epoch: 0,
        delivery_complete_count: -1,
    };
}

/// What is asked about one share partition.
pub(super) enum Ask {
    /// A group begins with it, or its offset is set: state epoch and start.
    Initialize(i32, i64, Answer<Outcome<()>>),
    /// The leader of an epoch begins to serve it.
    Read(i32, Answer<Outcome<StoredState>>),
    /// Its leader has something to store.
    Write(WrittenState, Answer<Outcome<()>>),
    /// Its group has no more to do with it.
    Delete(Answer<Outcome<()>>),
    Summary(Answer<Outcome<ShareSummary>>),
}

/// What is asked about all share partitions of the slot.
pub(super) enum AskAll {
    /// A topic is gone.
    TopicDeleted(Uuid),
}

/// What follows a write that is stored.
enum Then {
    Done(Answer<Outcome<()>>),
    Read(StoredState, Answer<Outcome<StoredState>>),
    Nothing,
}

/// How to go on with the outcome of a write.
pub(super) struct Written {
    id: String,
    /// What is there once it is stored; `None` where nothing is.
    share: Option<StoredShare>,
    number: u64,
    then: Then,
}

/// One share partition.
#[derive(Default)]
struct Entry {
    share: Option<StoredShare>,
    parts: Parts,
    /// A write is being stored.
    is_writing: bool,
    waiting: VecDeque<Ask>,
}

/// See the module's documentation.
pub(super) struct ShareStates {
    entries: HashMap<String, Entry>,
    writes: Vec<Write<Written>>,
}

impl Machine for ShareStates {
    const TOPIC: InternalTopic = InternalTopic::ShareGroupState;
    const ROOT: &'static str = paths::SHARES;
    type Context = ();
    type Ask = Ask;
    type AskAll = AskAll;
    type Then = Written;

    fn load(from: Stored<'_, Self>) -> Loaded<Self> {
        let mut entries = HashMap::with_capacity(from.slot.ids.len());
        let (mut unresolved, mut gone) = (0, Vec::new());
        for stored in &from.slot.ids {
            let Some(key) = ShareKey::parse(&stored.id) else {
                continue;
            };
            match StoredShare::load(stored) {
                Ok(Some((share, parts))) => {
                    if from.topics.name_of(key.topic_id).is_none() {
                        unresolved += 1;
                        gone.push(stored.id.clone());
                    }
                    let entry = Entry {
                        share: Some(share),
                        parts,
                        ..Entry::default()
                    };
                    entries.insert(stored.id.clone(), entry);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "what is stored of a share partition is lost")
                }
            }
        }
        let mut machine = Self {
            entries,
            writes: Vec::new(),
        };
        // Their topics went while nobody coordinated them.
        for id in gone {
            machine.write(&id, None, Then::Nothing);
        }
        Loaded {
            machine,
            unresolved,
        }
    }

    fn handle(&mut self, _: i64, id: String, ask: Ask) {
        let entry = self.entries.entry(id.clone()).or_default();
        match entry.is_writing {
            // The client asks again.
            true if entry.waiting.len() >= WAITING_MAX => {}
            true => entry.waiting.push_back(ask),
            false => self.answer(&id, ask),
        }
        self.forget_empty(&id);
    }

    fn handle_all(&mut self, _: i64, ask: AskAll) {
        match ask {
            AskAll::TopicDeleted(topic_id) => self.topic_deleted(topic_id),
        }
    }

    fn next_deadline(&self) -> Option<i64> {
        None
    }

    fn tick(&mut self, _: i64) {}

    fn stored(&mut self, _: i64, written: Written, outcome: Result<(), CoordinatorError>) {
        let Written {
            id,
            share,
            number,
            then,
        } = written;
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.is_writing = false;
        if outcome.is_ok() {
            match share.is_some() {
                true => entry.parts.stored(number),
                false => entry.parts = Parts::default(),
            }
            entry.share = share;
        }
        let outcome = outcome.map_err(ShareStateError::from);
        match then {
            Then::Done(answer) => answer.send(outcome),
            Then::Read(state, answer) => answer.send(outcome.map(|()| state)),
            Then::Nothing => {}
        }
        self.go_on(&id);
        self.forget_empty(&id);
    }

    fn take_writes(&mut self) -> Vec<Write<Written>> {
        std::mem::take(&mut self.writes)
    }
}

impl ShareStates {
    /// What waited for a write is answered, up to the next write.
    fn go_on(&mut self, id: &str) {
        while let Some(entry) = self.entries.get_mut(id)
            && !entry.is_writing
            && let Some(ask) = entry.waiting.pop_front()
        {
            self.answer(id, ask);
        }
    }

    fn forget_empty(&mut self, id: &str) {
        let is_empty = |entry: &Entry| entry.share.is_none() && !entry.is_writing;
        if self.entries.get(id).is_some_and(is_empty) {
            self.entries.remove(id);
        }
    }

    fn answer(&mut self, id: &str, ask: Ask) {
        let there = self.entries.get(id).and_then(|entry| entry.share.as_ref());
        match ask {
            Ask::Initialize(state_epoch, start, answer) => {
                match there.is_some_and(|share| share.state_epoch > state_epoch) {
                    true => answer.send(Err(ShareStateError::FencedStateEpoch)),
                    false => {
                        let share = StoredShare::initialized(state_epoch, start);
                        self.write(id, Some(share), Then::Done(answer));
                    }
                }
            }
            Ask::Read(leader_epoch, answer) => match there {
                None => answer.send(Err(ShareStateError::InvalidRequest)),
                Some(share) => match share.check_leader(leader_epoch) {
                    Err(error) => answer.send(Err(error)),
                    Ok(()) if share.leader_epoch == leader_epoch => answer.send(Ok(share.state())),
                    // The leader before writes nothing from now on.
                    Ok(()) => {
                        let (state, mut share) = (share.state(), share.clone());
                        share.leader_epoch = leader_epoch;
                        self.write(id, Some(share), Then::Read(state, answer));
                    }
                },
            },
            Ask::Write(written, answer) => {
                let there = there.ok_or(ShareStateError::InvalidRequest);
                match there.and_then(|share| share.with(&written)) {
                    Ok(share) => self.write(id, Some(share), Then::Done(answer)),
                    Err(error) => answer.send(Err(error)),
                }
            }
            Ask::Delete(answer) => match there {
                None => answer.send(Ok(())),
                Some(_) => self.write(id, None, Then::Done(answer)),
            },
            Ask::Summary(answer) => {
                let summary = there.map_or(ShareSummary::NONE, |share| ShareSummary {
                    start: share.start,
                    state_epoch: share.state_epoch,
                    leader_epoch: share.leader_epoch,
                    delivery_complete_count: share.delivery_complete_count,
                });
                answer.send(Ok(summary));
            }
        }
    }

    fn write(&mut self, id: &str, share: Option<StoredShare>, then: Then) {
        let entry = self.entries.entry(id.to_owned()).or_default();
        entry.is_writing = true;
        let (ops, number) = match &share {
            Some(share) => share.ops(id, &mut entry.parts),
            None => (vec![Op::delete_tree(paths::share(id))], 0),
        };
        self.writes.push(Write {
            id: id.to_owned(),
            ops,
            then: Written {
                id: id.to_owned(),
                share,
                number,
                then,
            },
        });
    }

    fn topic_deleted(&mut self, topic_id: Uuid) {
        let is_of = |id: &&String| ShareKey::parse(id).is_some_and(|key| key.topic_id == topic_id);
        let gone: Vec<String> = self.entries.keys().filter(is_of).cloned().collect();
        for id in gone {
            let (answer, _) = Answer::new();
            self.handle(0, id, Ask::Delete(answer));
        }
    }
}
