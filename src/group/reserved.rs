//! The memory that members take, of all groups of a broker together (`group.members.max.bytes`).
//!
//! A join reserves its share before it gets to its group; the member keeps it, and gives it back with its last copy. So does
//! a member that was only given an id.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a member and its group take besides what the join brings, bytes, roughly.
const MEMBER_OVERHEAD_BYTES: usize = 4 << 10;

/// All shares together.
#[derive(Debug, Default)]
pub(super) struct MemberMemory {
    bytes: AtomicUsize,
}

/// A member's share.
#[derive(Debug, Clone)]
pub struct Reserved {
    _share: Arc<Share>,
}

#[derive(Debug)]
struct Share {
    of: Arc<MemberMemory>,
    bytes: usize,
}

impl MemberMemory {
    /// A share for a join that brings so many bytes; `None` if all shares together would be more than `bytes_max`.
    pub(super) fn reserve(self: &Arc<Self>, brought: usize, bytes_max: usize) -> Option<Reserved> {
        let bytes = brought + MEMBER_OVERHEAD_BYTES;
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Dropping it gives back what was too much.
        let share = Share {
            of: self.clone(),
            bytes,
        };
        (before + bytes <= bytes_max).then(|| Reserved {
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
    fn what_is_dropped_can_be_reserved_again() {
        let memory = Arc::new(MemberMemory::default());
        let most = 2 * MEMBER_OVERHEAD_BYTES + 100;
        let first = memory.reserve(50, most).unwrap();
        let copy = first.clone();
        let second = memory.reserve(50, most).unwrap();
        assert!(memory.reserve(0, most).is_none());
        drop(first);
        assert!(memory.reserve(0, most).is_none());
        drop((copy, second));
        assert!(memory.reserve(100 + MEMBER_OVERHEAD_BYTES, most).is_some());
        assert_eq!(memory.bytes.load(Ordering::Relaxed), 0);
    }
}
