//! A share group, and what of it is on its way to the tree.

use super::held_answers::{Held, HeldAnswers};
use super::offsets::WriteNumber;
use super::share::ShareGroup;
use crate::coordinator::Parts;

/// See the module's documentation.
pub(super) struct HostedShareGroup {
    pub(super) group: ShareGroup,
    /// What its record is stored in.
    pub(super) parts: Parts,
    pub(super) in_flight: Option<ShareInFlight>,
    pub(super) held: HeldAnswers,
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
            held: HeldAnswers::since(group.change()),
            group,
            parts,
            in_flight: None,
            store_again_ms: None,
        })
    }

    /// Answers when all that changed up to now is stored.
    pub(super) fn hold(&mut self, answer: Held) {
        self.held.hold(self.group.change(), answer);
    }

    pub(super) fn next_deadline(&self) -> Option<i64> {
        let both = [self.group.next_deadline(), self.store_again_ms];
        both.into_iter().flatten().min()
    }
}
