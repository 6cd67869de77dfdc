//! A share group, and what of it is on its way to the tree.

use std::collections::VecDeque;

use super::messages::GroupError;
use super::offsets::WriteNumber;
use super::share::ShareGroup;
use crate::coordinator::Parts;

/// An answer that holds once a change is stored.
type Held = Box<dyn FnOnce(Result<(), GroupError>) + Send>;

/// See the module's documentation.
pub(super) struct HostedShareGroup {
    pub(super) group: ShareGroup,
    /// What its record is stored in.
    pub(super) parts: Parts,
    /// The change up to which all is stored.
    pub(super) stored: u64,
    pub(super) in_flight: Option<ShareInFlight>,
    /// Answers, each with the change that it waits for.
    pub(super) held: VecDeque<(u64, Held)>,
    /// What could not be stored is stored again then, ms.
    pub(super) store_again_ms: Option<i64>,
}

/// A write of a share group.
pub(super) struct ShareInFlight {
    /// Tells it from others.
    pub(super) number: WriteNumber,
    /// Of the record's parts.
    pub(super) parts_number: u64,
    /// The change up to which it goes.
    pub(super) change: u64,
}

impl HostedShareGroup {
    pub(super) fn new(group: ShareGroup, parts: Parts) -> Box<Self> {
        Box::new(Self {
            stored: group.change(),
            group,
            parts,
            in_flight: None,
            held: VecDeque::new(),
            store_again_ms: None,
        })
    }

    /// Answers when all that changed up to now is stored.
    pub(super) fn hold(&mut self, answer: Held) {
        let change = self.group.change();
        match change <= self.stored {
            true => answer(Ok(())),
            false => self.held.push_back((change, answer)),
        }
    }

    /// The answers that wait for a change up to this one.
    pub(super) fn held_up_to(&mut self, change: u64) -> Vec<Held> {
        let over = self.held.iter().take_while(|(of, _)| *of <= change).count();
        self.held.drain(..over).map(|(_, answer)| answer).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<i64> {
        let both = [self.group.next_deadline(), self.store_again_ms];
        both.into_iter().flatten().min()
    }
}
