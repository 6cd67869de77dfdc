//! What is stored of the share partitions of one slot, as a machine of the coordinator (Kafka's ShareCoordinatorShard).
//!
//! The leader of a partition writes here what its share group has done with the records. Writes of one share partition are
//! stored one after the other; what is asked meanwhile waits.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use super::error::ShareStateError;
use super::partition::StoredState;
use super::share_key::ShareKey;
use super::stored_share::{NOT_SET, StoredShare, WriteOrder, WrittenState};
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

/// The leader of a partition begins to serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The leader's.
    pub leader_epoch: i32,
    /// Where its log ends; `i64::MAX` where that is not said.
    pub log_end: i64,
}

/// What is asked about one share partition.
pub(super) enum Ask {
    /// A group begins with it, or its offset is set: state epoch and start.
    Initialize(i32, i64, Answer<Outcome<()>>),
    /// The leader of an epoch begins to serve it.
    Read(Reading, Answer<Outcome<StoredState>>),
    /// Its leader has something to store.
    Write(WrittenState, Answer<Outcome<()>>),
    /// Its group has no more to do with it, as far as its state epoch is no later one.
    Delete(i32, Answer<Outcome<()>>),
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
    /// Of the latest write that was let through.
    latest: WriteOrder,
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
        let entry = self.entries.get(id);
        let latest = entry.map_or(WriteOrder::default(), |entry| entry.latest);
        let there = entry.and_then(|entry| entry.share.as_ref());
        match ask {
            Ask::Initialize(state_epoch, start, answer) => match there {
                Some(share) if share.state_epoch > state_epoch => {
                    answer.send(Err(ShareStateError::FencedStateEpoch));
                }
                // It came twice, or late. What was done since is kept, where Kafka begins anew.
                Some(share) if share.state_epoch == state_epoch => answer.send(Ok(())),
                _ => {
                    let share = StoredShare::initialized(state_epoch, start);
                    self.write(id, Some(share), Then::Done(answer));
                }
            },
            Ask::Read(reading, answer) => match there {
                None => answer.send(Err(ShareStateError::InvalidRequest)),
                Some(share) => match share.check_leader(reading.leader_epoch) {
                    Err(error) => answer.send(Err(error)),
                    Ok(()) if share.leader_epoch == reading.leader_epoch => {
                        answer.send(Ok(share.state(latest.reading + 1)));
                    }
                    // The leader before writes nothing from now on.
                    Ok(()) => {
                        let share = share.led(reading.leader_epoch, reading.log_end);
                        let state = share.state(latest.reading + 1);
                        self.write(id, Some(share), Then::Read(state, answer));
                    }
                },
            },
            Ask::Write(written, answer) => {
                let there = there.ok_or(ShareStateError::InvalidRequest);
                match there.and_then(|share| share.with(&written)) {
                    // Its leader has given it up.
                    Ok(_) if written.order < latest && written.order.reading > 0 => {
                        answer.send(Err(ShareStateError::FencedLeaderEpoch));
                    }
                    Ok(share) => {
                        if let Some(entry) = self.entries.get_mut(id) {
                            entry.latest = latest.max(written.order);
                        }
                        self.write(id, Some(share), Then::Done(answer));
                    }
                    Err(error) => answer.send(Err(error)),
                }
            }
            Ask::Delete(state_epoch, answer) => match there {
                Some(share) if share.state_epoch <= state_epoch => {
                    self.write(id, None, Then::Done(answer));
                }
                // It was initialized anew since, or never was.
                _ => answer.send(Ok(())),
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
            self.handle(0, id, Ask::Delete(i32::MAX, answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::record_state::{RecordState, StateBatch};

    fn states() -> ShareStates {
        ShareStates {
            entries: HashMap::new(),
            writes: Vec::new(),
        }
    }

    const ID: &str = "g:AAAAAAAAAAAAAAAAAAAAAQ:0";

    /// Asks, and stores what is to be written.
    fn ask<T>(states: &mut ShareStates, ask: impl FnOnce(Answer<Outcome<T>>) -> Ask) -> Outcome<T> {
        let (answer, mut answered) = Answer::new();
        states.handle(0, ID.to_owned(), ask(answer));
        for write in states.take_writes() {
            states.stored(0, write.then, Ok(()));
        }
        answered.try_recv().unwrap()
    }

    fn initialize(states: &mut ShareStates, state_epoch: i32, start: i64) -> Outcome<()> {
        ask(states, |answer| Ask::Initialize(state_epoch, start, answer))
    }

    fn read(states: &mut ShareStates, leader_epoch: i32, log_end: i64) -> StoredState {
        let reading = Reading {
            leader_epoch,
            log_end,
        };
        ask(states, |answer| Ask::Read(reading, answer)).unwrap()
    }

    fn done(first: i64, last: i64) -> StateBatch {
        StateBatch {
            first,
            last,
            state: RecordState::Acknowledged,
            delivery_count: 1,
        }
    }

    fn write(
        states: &mut ShareStates,
        (reading, number): (u64, u64),
        start: i64,
        batches: &[StateBatch],
    ) -> Outcome<()> {
        let written = WrittenState {
            order: WriteOrder { reading, number },
            state_epoch: 3,
            leader_epoch: 1,
            start,
            delivery_complete_count: 0,
            batches: batches.to_vec(),
        };
        ask(states, |answer| Ask::Write(written, answer))
    }

    #[test]
    fn an_initialize_that_comes_twice_keeps_what_was_done_since_and_a_later_one_begins_anew() {
        let mut states = states();
        assert_eq!(initialize(&mut states, 3, 0), Ok(()));
        let reading = read(&mut states, 1, 100).reading;
        assert_eq!(write(&mut states, (reading, 1), 40, &[]), Ok(()));
        assert_eq!(initialize(&mut states, 3, 0), Ok(()));
        assert_eq!(read(&mut states, 1, 100).start, 40);
        let fenced = Err(ShareStateError::FencedStateEpoch);
        assert_eq!(initialize(&mut states, 2, 0), fenced);
        assert_eq!(initialize(&mut states, 4, 7), Ok(()));
        assert_eq!(read(&mut states, 1, 100).start, 7);
    }

    #[test]
    fn what_was_initialized_since_is_not_deleted() {
        let mut states = states();
        let delete = |states: &mut ShareStates, state_epoch| {
            ask(states, |answer| Ask::Delete(state_epoch, answer)).unwrap();
            ask(states, Ask::Summary).unwrap().state_epoch
        };
        assert_eq!(initialize(&mut states, 4, 7), Ok(()));
        assert_eq!(delete(&mut states, 3), 4);
        assert_eq!(delete(&mut states, 4), 0);
        assert_eq!(initialize(&mut states, 1, 7), Ok(()));
        assert_eq!(delete(&mut states, i32::MAX), 0);
    }

    #[test]
    fn a_write_that_arrives_after_a_later_one_is_refused() {
        let mut states = states();
        initialize(&mut states, 3, 0).unwrap();
        let reading = read(&mut states, 1, 100).reading;
        assert_eq!(write(&mut states, (reading, 2), 0, &[done(5, 5)]), Ok(()));
        let fenced = Err(ShareStateError::FencedLeaderEpoch);
        assert_eq!(write(&mut states, (reading, 1), 9, &[]), fenced);
        // The same one again is not a later one.
        assert_eq!(write(&mut states, (reading, 2), 0, &[done(5, 5)]), Ok(()));
        let again = read(&mut states, 1, 100);
        assert_eq!((again.start, again.batches), (0, vec![done(5, 5)]));
        assert!(again.reading > reading);
        assert_eq!(write(&mut states, (again.reading, 0), 1, &[]), Ok(()));
        assert_eq!(write(&mut states, (reading, 3), 9, &[]), fenced);
        assert_eq!(read(&mut states, 1, 100).start, 1);
        // A broker of an earlier version does not say what its writes come after.
        assert_eq!(write(&mut states, (0, 0), 2, &[]), Ok(()));
    }

    #[test]
    fn a_new_leader_whose_log_ends_earlier_forgets_what_was_done_with_lost_records() {
        let mut states = states();
        initialize(&mut states, 3, 0).unwrap();
        let reading = read(&mut states, 0, 100).reading;
        let batches = [done(20, 29), done(40, 59)];
        assert_eq!(write(&mut states, (reading, 1), 10, &batches), Ok(()));
        let same = read(&mut states, 1, 60);
        assert_eq!((same.start, &same.batches[..]), (10, &batches[..]));
        let cut = read(&mut states, 2, 50);
        assert_eq!(
            (cut.start, cut.batches),
            (10, vec![done(20, 29), done(40, 49)])
        );
        let cut = read(&mut states, 3, 5);
        assert_eq!((cut.start, cut.batches), (5, vec![]));
        // It is the first leader of an epoch that knows it: later ones of the same may be late.
        assert_eq!(read(&mut states, 3, 2).start, 5);
        let summary = ask(&mut states, Ask::Summary).unwrap();
        assert_eq!((summary.start, summary.delivery_complete_count), (5, 0));
    }
}
