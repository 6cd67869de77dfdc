//! The order of effects on one connection: a request sees what every earlier request of its connection did.
//!
//! Kafka finishes a request before it reads the connection's next one. Here the next one may begin earlier where no
//! client can tell: a Produce after a Produce and an OffsetCommit after an OffsetCommit, once the earlier one has its place in
//! the queue; and anything after a Fetch that only waits.
//!
//! Each request has a [`Stage`]: it is *ordered* once its effects come before those of whatever begins later, and *done*
//! when its effects can be seen, at the latest when it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicI16, AtomicUsize, Ordering};

/// What may begin on a connection before a request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing.
    Alone,
    /// More requests of the same API, once it is ordered.
    WithKin,
    /// Anything, once it is ordered: it changes nothing.
    OnlyWaits,
}

/// The requests of one connection that are not done; clones share it.
#[derive(Clone, Default)]
pub struct Gate(Arc<UnderWay>);

#[derive(Default)]
struct UnderWay {
    /// Requests that are not ordered yet.
    unordered: AtomicUsize,
    /// Requests that are not done, all of one API.
    undone: AtomicUsize,
    /// Which API.
    key: AtomicI16,
}

/// How far a request is. Dropped, it is done.
pub struct Stage {
    under_way: Option<Arc<UnderWay>>,
    order: Order,
    is_ordered: bool,
}

impl Gate {
    /// Whether a request may begin now.
    pub fn admits(&self, key: i16) -> bool {
        let under_way = &self.0;
        let undone = under_way.undone.load(Ordering::Relaxed);
        undone == 0
            || under_way.unordered.load(Ordering::Relaxed) == 0
                && under_way.key.load(Ordering::Relaxed) == key
                && super::order_of(key) == Order::WithKin
    }

    /// Begins a request that is admitted.
    pub fn begin(&self, key: i16) -> Stage {
        debug_assert!(self.admits(key));
        self.0.key.store(key, Ordering::Relaxed);
        self.0.unordered.fetch_add(1, Ordering::Relaxed);
        self.0.undone.fetch_add(1, Ordering::Relaxed);
        Stage {
            under_way: Some(self.0.clone()),
            order: super::order_of(key),
            is_ordered: false,
        }
    }
}

impl Stage {
    /// Of a request that no others are ordered by.
    pub fn free() -> Self {
        Self {
            under_way: None,
            order: Order::OnlyWaits,
            is_ordered: true,
        }
    }

    /// Its effects come before those of whatever begins from now on.
    pub(super) fn ordered(&mut self) {
        if let Some(under_way) = self.under_way.as_ref().filter(|_| !self.is_ordered) {
            self.is_ordered = true;
            under_way.unordered.fetch_sub(1, Ordering::Relaxed);
            if self.order == Order::OnlyWaits {
                under_way.undone.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.ordered();
        if let Some(under_way) = self.under_way.as_ref()
            && self.order != Order::OnlyWaits
        {
            under_way.undone.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use metaq_protocol::messages::ApiKey;

    use super::*;

    const PRODUCE: i16 = ApiKey::Produce as i16;
    const FETCH: i16 = ApiKey::Fetch as i16;
    const COMMIT: i16 = ApiKey::OffsetCommit as i16;
    const LIST_OFFSETS: i16 = ApiKey::ListOffsets as i16;

    #[test]
    fn kin_follow_once_the_earlier_is_ordered_and_others_once_all_are_done() {
        let gate = Gate::default();
        let mut first = gate.begin(PRODUCE);
        assert!(!gate.admits(PRODUCE) && !gate.admits(LIST_OFFSETS));
        first.ordered();
        assert!(gate.admits(PRODUCE));
        for other in [COMMIT, FETCH, LIST_OFFSETS] {
            assert!(!gate.admits(other));
        }
        let second = gate.begin(PRODUCE);
        assert!(!gate.admits(PRODUCE));
        drop(first);
        assert!(!gate.admits(PRODUCE) && !gate.admits(FETCH));
        drop(second);
        assert!(gate.admits(PRODUCE) && gate.admits(FETCH));
    }

    #[test]
    fn anything_follows_a_fetch_that_only_waits() {
        let gate = Gate::default();
        let mut fetch = gate.begin(FETCH);
        assert!(!gate.admits(FETCH) && !gate.admits(PRODUCE));
        fetch.ordered();
        let produce = gate.begin(PRODUCE);
        assert!(!gate.admits(FETCH));
        drop(fetch);
        assert!(!gate.admits(LIST_OFFSETS));
        drop(produce);
        assert!(gate.admits(LIST_OFFSETS));
    }

    #[test]
    fn nothing_follows_what_stands_alone_before_it_is_done() {
        let gate = Gate::default();
        let mut join = gate.begin(LIST_OFFSETS);
        join.ordered();
        assert!(!gate.admits(LIST_OFFSETS) && !gate.admits(PRODUCE));
        drop(join);
        assert!(gate.admits(LIST_OFFSETS));
    }
}
