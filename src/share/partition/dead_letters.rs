//! Records that nobody is given any more are copied to the group's dead-letter topic (KIP-1191) before they are done.
//!
//! ```text
//!   acquired ── rejected, or given out too often ──▶ archiving, stored ── copied ──▶ archived, stored
//! ```
//!
//! A leader that goes on with what is stored copies what is archiving: so a crash gives a copy twice at most, and never none.

use super::{Outcome, SharePartition, State};
use crate::share::limits::ShareLimits;

/// Why a record is given to nobody any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// A member rejected it.
    Rejected,
    /// It was given out as often as may be.
    TooOften,
}

/// Records that are to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetters {
    /// First offset.
    pub first: i64,
    /// Last offset.
    pub last: i64,
    /// How often each of them was given to a member.
    pub delivery_count: i16,
    /// Why, where that is known: it is not stored.
    pub death: Option<Death>,
}

impl Outcome {
    /// What becomes of records that nobody is given any more.
    pub(super) fn dead(limits: &ShareLimits, death: Death) -> Self {
        match limits.has_dead_letters {
            true => Self::Archiving(death),
            false => Self::Archived,
        }
    }
}

impl SharePartition {
    /// The next records that are to be copied; none while others are.
    pub fn take_dead_letters(&mut self) -> Option<DeadLetters> {
        if self.is_copying {
            return None;
        }
        let mut all = self.records.iter();
        let letters = all.find_map(|range| match range.value.state {
            State::Archiving {
                death,
                is_copied: false,
            } => Some(DeadLetters {
                first: range.first,
                last: range.last,
                delivery_count: range.value.count,
                death,
            }),
            _ => None,
        })?;
        self.is_copying = true;
        Some(letters)
    }

    /// Those from the first one of what was taken up to `last` are copied: they are done with the next write.
    pub fn copied(&mut self, letters: &DeadLetters, last: i64) {
        self.is_copying = false;
        let number = self.next_write;
        let last = last.min(letters.last);
        self.records.change(letters.first, last, |delivery| {
            if let State::Archiving { is_copied, .. } = &mut delivery.state {
                *is_copied = true;
                delivery.change = Some((Outcome::Archived, number));
            }
        });
        self.has_changes = true;
    }

    /// Whether records are being copied, or are to be.
    pub fn has_dead_letters(&self) -> bool {
        let is_dead = |state: &State| matches!(state, State::Archiving { .. });
        self.records.iter().any(|range| is_dead(&range.value.state))
    }
}
