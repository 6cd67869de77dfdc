//! What a share group has done with the records of one partition (Kafka's SharePartition), without I/O and without a clock.
//!
//! ```text
//!   done      ◀── start                     under way                     end ──▶  never given to a member
//! ────────────┬──────────────────────────────────────────────────────────┬──────────────────────────────────
//!             │ available · acquired · acknowledged · archived, in ranges │
//! ```
//!
//! - `acquire`: records are given to a member, which has them until its lock expires
//! - `acknowledge`: a member is done with records, or gives them back; locks expire, members go
//! - `dead_letters`: what is rejected, or was given out too often, is copied to a dead-letter topic before it is done
//! - `writes`: what is to be stored, and what follows when it is
//!
//! A change of what is done with a record counts when it is stored, and not before: until then the record is its member's,
//! which cannot change its mind. So what a client was told as accepted is never given out again, and a record that was given
//! back is given to somebody else with a delivery count that is stored. What waits to be stored goes in one write, and there is
//! one at a time.

mod acknowledge;
mod acquire;
mod dead_letters;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
mod writes;

use std::sync::Arc;

pub use acknowledge::{AcknowledgeError, Acknowledgement};
pub use acquire::{Acquire, AcquiredRecords, BatchSpan};
pub use dead_letters::{DeadLetters, Death};
pub use writes::{StateWrite, WriteNumber};

use super::ranges::Ranges;
use super::record_state::{RecordState, StateBatch};

/// What is done with records.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Available,
    Acquired {
        member: Arc<str>,
        /// Since when, ms.
        since_ms: i64,
        /// When its lock expires, ms.
        until_ms: i64,
    },
    Acknowledged,
    /// It is to be copied to the dead-letter topic.
    Archiving {
        /// Where that is known: it is not stored.
        death: Option<Death>,
        /// What is left is to store that it is archived.
        is_copied: bool,
    },
    Archived,
}

impl State {
    fn is_terminal(&self) -> bool {
        matches!(self, Self::Acknowledged | Self::Archived)
    }

    fn record_state(&self) -> RecordState {
        match self {
            Self::Available => RecordState::Available,
            Self::Acquired { .. } => RecordState::Acquired,
            Self::Acknowledged => RecordState::Acknowledged,
            Self::Archiving { .. } => RecordState::Archiving,
            Self::Archived => RecordState::Archived,
        }
    }
}

/// What is to become of acquired records when it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Available,
    Acknowledged,
    Archiving(Death),
    Archived,
}

impl Outcome {
    fn state(self) -> State {
        match self {
            Self::Available => State::Available,
            Self::Acknowledged => State::Acknowledged,
            Self::Archiving(death) => State::Archiving {
                death: Some(death),
                is_copied: false,
            },
            Self::Archived => State::Archived,
        }
    }
}

/// What is known of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Delivery {
    state: State,
    /// How often it was given to a member.
    count: i16,
    /// The count that is stored.
    stored_count: i16,
    /// The write that stores the count, 0 for none.
    counting: WriteNumber,
    /// What becomes of it, and the write that stores that.
    change: Option<(Outcome, WriteNumber)>,
    /// Given back, it is given to nobody before then, ms; 0 for at once.
    again_ms: i64,
}

impl Delivery {
    fn new(state: State, count: i16) -> Self {
        Self {
            state,
            count,
            stored_count: count,
            counting: 0,
            change: None,
            again_ms: 0,
        }
    }

    fn is_available(&self) -> bool {
        self.state == State::Available && self.again_ms == 0
    }

    /// Whether a member has it, and nothing waits to be stored of it.
    fn is_held_by(&self, who: &str) -> bool {
        let is_held = matches!(&self.state, State::Acquired { member, .. } if &**member == who);
        is_held && self.change.is_none()
    }
}

/// What is read of a share partition when its leader begins to serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredState {
    /// The coordinator's number of this read, which the leader's writes go on from; 0 where it is not known.
    pub reading: u64,
    /// Everything before it is done.
    pub start: i64,
    /// Counts how often its offsets were set from outside.
    pub state_epoch: i32,
    /// In order.
    pub batches: Vec<StateBatch>,
}

/// Who has records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The member.
    pub member: Arc<str>,
    /// Since when, ms.
    pub since_ms: i64,
    /// When its lock expires, ms.
    pub until_ms: i64,
}

/// What is under way, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// First offset.
    pub first: i64,
    /// Last offset.
    pub last: i64,
    /// Of all of them.
    pub state: RecordState,
    /// Who has them.
    pub held: Option<Held>,
    /// How often they were given to a member.
    pub delivery_count: i16,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct SharePartition {
    records: Ranges<Delivery>,
    state_epoch: i32,
    /// The write that what changes now becomes part of.
    next_write: WriteNumber,
    /// The write that is being stored.
    writing: Option<WriteNumber>,
    /// Something waits for the next write.
    has_changes: bool,
    /// Some dead letters are being copied.
    is_copying: bool,
}

impl SharePartition {
    /// Goes on where the leader before ended. What members had is available: those locks ended with it. So what somebody had
    /// for the last time when a leader was lost is given out once more.
    pub fn new(stored: &StoredState) -> Self {
        let mut records = Ranges::new(stored.start);
        for batch in &stored.batches {
            // What was not stored was not given back: as it was never given to anybody.
            let first = batch.first.max(records.end());
            records.extend(first - 1, Delivery::new(State::Available, 0));
            let state = match batch.state {
                RecordState::Acknowledged => State::Acknowledged,
                RecordState::Archived => State::Archived,
                // A leader before may have copied it: once more does no harm.
                RecordState::Archiving => State::Archiving {
                    death: None,
                    is_copied: false,
                },
                RecordState::Available | RecordState::Acquired => State::Available,
            };
            records.extend(batch.last, Delivery::new(state, batch.delivery_count));
        }
        let mut partition = Self {
            records,
            state_epoch: stored.state_epoch,
            next_write: 1,
            writing: None,
            has_changes: false,
            is_copying: false,
        };
        partition.move_start();
        partition
    }

    /// Everything before it is done.
    pub fn start(&self) -> i64 {
        self.records.start()
    }

    /// Nothing at or after it was given to a member.
    pub fn end(&self) -> i64 {
        self.records.end()
    }

    /// Counts how often its offsets were set from outside.
    pub fn state_epoch(&self) -> i32 {
        self.state_epoch
    }

    /// From where records are to be read for the next member.
    pub fn next_offset(&self) -> i64 {
        let mut all = self.records.iter();
        let available = all.find(|range| range.value.is_available());
        available.map_or(self.records.end(), |range| range.first)
    }

    /// Whether there may be records for a member.
    pub fn can_acquire(&self, locks_max: i64) -> bool {
        self.records.len() < locks_max || self.next_offset() < self.records.end()
    }

    /// The log begins later now: what lies before is done. Members may be told to what they had of it, and what they say of it
    /// is passed over.
    pub fn log_begins_at(&mut self, offset: i64) {
        self.records.drop_before(offset);
        self.move_start();
    }

    /// The log ends earlier than what was given to members: what they had of it is lost.
    pub fn log_ends_at(&mut self, offset: i64) {
        self.records.drop_from(offset);
    }

    /// What is under way, in order.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let all = self.records.iter();
        all.map(|range| InFlight {
            first: range.first,
            last: range.last,
            state: range.value.state.record_state(),
            held: match &range.value.state {
                State::Acquired {
                    member,
                    since_ms,
                    until_ms,
                } => Some(Held {
                    member: member.clone(),
                    since_ms: *since_ms,
                    until_ms: *until_ms,
                }),
                _ => None,
            },
            delivery_count: range.value.count,
        })
        .collect()
    }

    /// What is done from the start on is passed for ever.
    fn move_start(&mut self) {
        let is_done = |delivery: &Delivery| delivery.state.is_terminal();
        let first = self.records.iter().find(|range| !is_done(range.value));
        let start = first.map_or(self.records.end(), |range| range.first);
        self.records.drop_before(start);
    }
}
