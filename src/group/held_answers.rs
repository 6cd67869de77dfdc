//! Answers of a group whose changes are known at once and stored later: each waits until everything that it says is stored.

use std::collections::VecDeque;

use super::messages::GroupError;

/// Answers with the outcome.
pub(super) type Held = Box<dyn FnOnce(Result<(), GroupError>) + Send>;

/// See the module's documentation.
pub(super) struct HeldAnswers {
    /// The change up to which all is stored.
    stored: u64,
    /// Each with the change that it waits for.
    waiting: VecDeque<(u64, Held)>,
}

impl HeldAnswers {
    /// Of a group that is stored up to a change.
    pub(super) fn since(stored: u64) -> Self {
        Self {
            stored,
            waiting: VecDeque::new(),
        }
    }

    /// Answers when a change is stored.
    pub(super) fn hold(&mut self, change: u64, answer: Held) {
        match change <= self.stored {
            true => answer(Ok(())),
            false => self.waiting.push_back((change, answer)),
        }
    }

    /// All changes up to this one are stored, or could not be.
    pub(super) fn settle(&mut self, change: u64, outcome: Result<(), GroupError>) {
        if outcome.is_ok() {
            self.stored = change;
        }
        let (over, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(of, _)| *of <= change);
        self.waiting = waiting;
        for (_, answer) in over {
            answer(outcome);
        }
    }

    /// All that wait, for whoever knows the outcome.
    pub(super) fn take(&mut self) -> Vec<Held> {
        let all = std::mem::take(&mut self.waiting).into_iter();
        all.map(|(_, answer)| answer).collect()
    }

    pub(super) fn are_none(&self) -> bool {
        self.waiting.is_empty()
    }
}
