//! What members hold in memory, all groups of a broker together.
//!
//! A join takes its share before it gets to its group; the member keeps it, and gives it back with its last copy. So does
//! a member that was only handed an id.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a member and its group take besides what the join brings, bytes, roughly.
const MEMBER_OVERHEAD_BYTES: usize = 4 << 10;

/// All shares together.
#[derive(Debug, Default)]
pub(super) struct HeldMemory {
    bytes: AtomicUsize,
}

/// A member's share.
#[derive(Debug, Clone)]
pub struct Held {
    _share: Arc<Share>,
}

#[derive(Debug)]
struct Share {
    of: Arc<HeldMemory>,
    bytes: usize,
}

impl HeldMemory {
    /// A share for a join that brings so many bytes; none where all would be more than `bytes_max`.
    pub(super) fn take(self: &Arc<Self>, brought: usize, bytes_max: usize) -> Option<Held> {
        let bytes = brought + MEMBER_OVERHEAD_BYTES;
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Gives it back where it is too much.
        let share = Share {
            of: self.clone(),
            bytes,
        };
        (before + bytes <= bytes_max).then(|| Held {
            _share: Arc::new(share),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_can_be_taken_again() {
        let memory = Arc::new(HeldMemory::default());
        let most = 2 * MEMBER_OVERHEAD_BYTES + 100;
        let first = memory.take(50, most).unwrap();
        let copy = first.clone();
        let second = memory.take(50, most).unwrap();
        assert!(memory.take(0, most).is_none());
        drop(first);
        assert!(memory.take(0, most).is_none());
        drop((copy, second));
        assert!(memory.take(100 + MEMBER_OVERHEAD_BYTES, most).is_some());
        assert_eq!(memory.bytes.load(Ordering::Relaxed), 0);
    }
}
