//! A group that is stored in one record, and what of it is on its way to the tree: a share group or a streams group.

use super::held_answers::{Held, HeldAnswers};
use super::offsets::WriteNumber;
use super::reserved::Reserved;
use super::share::{self, ShareGroup};
use super::streams::{self, StreamsGroup};
use crate::coordinator::Parts;
use crate::meta::Op;

/// What the host of such a group must know of it.
pub(super) trait RecordedGroup: Sized {
    /// Counts changes.
    fn change(&self) -> u64;
    /// Whether something is to be stored.
    fn is_unstored(&self) -> bool;
    /// What there is now is being stored, or is to be stored again.
    fn set_unstored(&mut self, is_unstored: bool);
    /// When something is due, ms.
    fn next_deadline(&self) -> Option<i64>;
    /// Who did something to the group since this was asked last, and what.
    fn take_told(&mut self) -> Vec<(String, String)>;
    /// Group epoch, and number of members.
    fn size(&self) -> (i32, usize);
    /// The steps that store it, and the number of the write.
    fn ops(&self, group_id: &str, parts: &mut Parts) -> (Vec<Op>, u64);
}

/// See the module's documentation.
pub(super) struct Hosted<G> {
    pub(super) group: G,
    /// Its place among those that a broker may coordinate, of a share group.
    pub(super) place: Option<Reserved>,
    /// What its record is stored in.
    pub(super) parts: Parts,
    pub(super) in_flight: Option<RecordInFlight>,
    pub(super) held: HeldAnswers,
    /// What could not be stored is stored again then, ms.
    pub(super) store_again_ms: Option<i64>,
}

/// A write of such a group.
pub(super) struct RecordInFlight {
    /// Tells it from others.
    pub(super) number: WriteNumber,
    /// Of the record's parts.
    pub(super) parts_number: u64,
    /// The change up to which it goes.
    pub(super) change: u64,
}

/// A share group.
pub(super) type HostedShareGroup = Hosted<ShareGroup>;
/// A streams group.
pub(super) type HostedStreamsGroup = Hosted<StreamsGroup>;

impl<G: RecordedGroup> Hosted<G> {
    pub(super) fn new(group: G, parts: Parts) -> Box<Self> {
        Box::new(Self {
            held: HeldAnswers::since(group.change()),
            group,
            place: None,
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

    /// What could not be stored may be stored again.
    pub(super) fn tick(&mut self, now_ms: i64) {
        if self.store_again_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.store_again_ms = None;
        }
    }
}

/// Both kinds have these methods themselves.
macro_rules! recorded {
    ($group:ty, $ops:path) => {
        impl RecordedGroup for $group {
            fn change(&self) -> u64 {
                self.change()
            }

            fn is_unstored(&self) -> bool {
                self.is_unstored()
            }

            fn set_unstored(&mut self, is_unstored: bool) {
                self.set_unstored(is_unstored);
            }

            fn next_deadline(&self) -> Option<i64> {
                self.next_deadline()
            }

            fn take_told(&mut self) -> Vec<(String, String)> {
                self.take_told()
            }

            fn size(&self) -> (i32, usize) {
                (self.epoch, self.members.len())
            }

            fn ops(&self, group_id: &str, parts: &mut Parts) -> (Vec<Op>, u64) {
                $ops(group_id, self, parts)
            }
        }
    };
}

recorded!(ShareGroup, share::ops);
recorded!(StreamsGroup, streams::ops);
