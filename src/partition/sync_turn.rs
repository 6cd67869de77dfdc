//! Whether a partition waits for a sync, or has one.

use std::sync::atomic::{AtomicU8, Ordering};

/// Never two syncs of a partition at a time, and no request for one is lost.
#[derive(Default)]
pub(super) struct SyncTurn(AtomicU8);

/// Nobody asks.
const IDLE: u8 = 0;
/// In the queue.
const QUEUED: u8 = 1;
/// Being synced.
const RUNNING: u8 = 2;
/// Being synced, and asked for again meanwhile.
const ASKED_AGAIN: u8 = 3;

impl SyncTurn {
    /// Asks for a sync; whether the partition is to be put into the queue.
    pub(super) fn ask(&self) -> bool {
        let ask = |state| match state {
            IDLE => Some(QUEUED),
            RUNNING => Some(ASKED_AGAIN),
            _ => None,
        };
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, ask);
        before == Ok(IDLE)
    }

    /// What is appended from now on may need another one.
    pub(super) fn begin(&self) {
        self.0.store(RUNNING, Ordering::Release);
    }

    /// The sync is over; whether the partition is to be put into the queue again.
    pub(super) fn end(&self, wants_more: bool) -> bool {
        let next = |state| match wants_more || state == ASKED_AGAIN {
            true => Some(QUEUED),
            false => Some(IDLE),
        };
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        wants_more || before == Ok(ASKED_AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_queued_once_and_what_is_asked_during_a_sync_follows_it() {
        let turn = SyncTurn::default();
        assert!(turn.ask() && !turn.ask());
        turn.begin();
        assert!(!turn.ask() && !turn.ask());
        assert!(turn.end(false) && !turn.ask());
        turn.begin();
        assert!(turn.end(true) && !turn.ask());
        turn.begin();
        assert!(!turn.end(false) && turn.ask());
    }
}
