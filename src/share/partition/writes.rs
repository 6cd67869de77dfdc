//! What is to be stored of a share partition, and what follows when it is.

use super::{Delivery, Outcome, SharePartition, State};
use crate::share::record_state::{RecordState, StateBatch};

/// Counts the writes of a share partition since it was read.
pub type WriteNumber = u64;

/// What changed, to be stored over what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// Comes back with the outcome.
    pub number: WriteNumber,
    /// Everything before it is done, once this is stored.
    pub start: i64,
    /// How many records at and after the start are done.
    pub delivery_complete_count: i32,
    /// Ranges at and after the start that changed, in order.
    pub batches: Vec<StateBatch>,
}

impl Delivery {
    /// What it is once a write is stored, where that stores something of it.
    fn stored_by(&self, number: WriteNumber) -> Option<RecordState> {
        match self.change {
            Some((Outcome::Available, by)) if by == number => Some(RecordState::Available),
            Some((Outcome::Acknowledged, by)) if by == number => Some(RecordState::Acknowledged),
            Some((Outcome::Archiving(_), by)) if by == number => Some(RecordState::Archiving),
            Some((Outcome::Archived, by)) if by == number => Some(RecordState::Archived),
            // Its lock ends with this leader; the count goes on.
            _ if self.counting == number => Some(RecordState::Available),
            _ => None,
        }
    }

    fn is_terminal_with(&self, number: WriteNumber) -> bool {
        let stored = self.stored_by(number);
        self.state.is_terminal() || stored.is_some_and(RecordState::is_terminal)
    }
}

impl SharePartition {
    /// Whether something waits to be written.
    pub fn wants_write(&self) -> bool {
        self.has_changes && self.writing.is_none()
    }

    /// The write that stores all that changed; none while one is being stored.
    pub fn take_write(&mut self) -> Option<StateWrite> {
        if !self.wants_write() {
            return None;
        }
        let number = self.next_write;
        self.next_write += 1;
        self.writing = Some(number);
        self.has_changes = false;
        // It costs no write of its own that delivery counts of what members have survive this leader.
        self.records.change_all(|delivery| {
            let is_held = matches!(delivery.state, State::Acquired { .. });
            if is_held && delivery.stored_count < delivery.count && delivery.counting == 0 {
                delivery.counting = number;
            }
        });
        let mut all = self.records.iter();
        let first = all.find(|range| !range.value.is_terminal_with(number));
        let start = first.map_or(self.records.end(), |range| range.first);
        let (mut batches, mut complete) = (Vec::new(), 0);
        for range in self.records.within(start, i64::MAX - 1) {
            if range.value.is_terminal_with(number) {
                complete += range.last - range.first + 1;
            }
            if let Some(state) = range.value.stored_by(number) {
                push(
                    &mut batches,
                    StateBatch {
                        first: range.first,
                        last: range.last,
                        state,
                        delivery_count: range.value.count,
                    },
                );
            }
        }
        Some(StateWrite {
            number,
            start,
            delivery_complete_count: i32::try_from(complete).unwrap_or(i32::MAX),
            batches,
        })
    }

    /// A write is stored, or is not.
    pub fn stored(&mut self, number: WriteNumber, is_stored: bool) {
        debug_assert_eq!(self.writing, Some(number));
        self.writing = None;
        let (next, mut is_again) = (self.next_write, false);
        self.records.change_all(|delivery| {
            if delivery.counting == number {
                delivery.counting = 0;
                if is_stored {
                    delivery.stored_count = delivery.count;
                }
            }
            if let Some((outcome, by)) = delivery.change
                && by == number
            {
                delivery.change = None;
                if !is_stored {
                    delivery.again_ms = 0;
                }
                if is_stored {
                    delivery.stored_count = delivery.count;
                    delivery.state = outcome.state();
                } else if let State::Archiving {
                    is_copied: true, ..
                } = delivery.state
                {
                    // It is not copied again.
                    delivery.change = Some((outcome, next));
                    is_again = true;
                }
            }
        });
        self.has_changes |= is_again;
        self.move_start();
    }
}

/// Adds a batch, to the last one where it goes on.
fn push(batches: &mut Vec<StateBatch>, batch: StateBatch) {
    if let Some(last) = batches.last_mut()
        && last.last + 1 == batch.first
        && (last.state, last.delivery_count) == (batch.state, batch.delivery_count)
    {
        last.last = batch.last;
        return;
    }
    batches.push(batch);
}
