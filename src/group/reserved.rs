//! The memory that groups take, all of a broker together: their members (`group.members.max.bytes`), and their offsets
//! (`group.offsets.max.bytes`).
//!
//! A join reserves its share before it gets to its group; the member keeps it, and gives it back with its last copy. So does
//! a member that was only given an id, and an assignment that a leader brings. What was stored when a broker gets it counts as well,
//! whatever there is of it. A commit reserves the share of each offset, which is given back with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// All shares together.
#[derive(Debug, Default)]
pub(super) struct GroupMemory {
    bytes: AtomicUsize,
}

/// The share of a member or an offset.
#[derive(Debug, Clone)]
pub struct Reserved {
    _share: Arc<Share>,
}

#[derive(Debug)]
struct Share {
    of: Arc<GroupMemory>,
    bytes: usize,
}

impl GroupMemory {
    /// So many bytes; `None` if all shares together would be more than `bytes_max`.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize, bytes_max: usize) -> Option<Reserved> {
        let (reserved, all) = self.add(bytes);
        // Dropping it gives back what was too much.
        (all <= bytes_max).then_some(reserved)
    }

    /// So many bytes, for what is there already.
    pub(super) fn reserve_anyway(self: &Arc<Self>, bytes: usize) -> Reserved {
        self.add(bytes).0
    }

    fn add(self: &Arc<Self>, bytes: usize) -> (Reserved, usize) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let share = Share {
            of: self.clone(),
            bytes,
        };
        let reserved = Reserved {
            _share: Arc::new(share),
        };
        (reserved, before + bytes)
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
        let memory = Arc::new(GroupMemory::default());
        let first = memory.reserve(50, 100).unwrap();
        let copy = first.clone();
        let second = memory.reserve(50, 100).unwrap();
        assert!(memory.reserve(1, 100).is_none());
        drop(first);
        assert!(memory.reserve(1, 100).is_none());
        let third = memory.reserve_anyway(10);
        drop((copy, second));
        assert!(memory.reserve(91, 100).is_none());
        assert!(memory.reserve(90, 100).is_some());
        drop(third);
        assert_eq!(memory.bytes.load(Ordering::Relaxed), 0);
    }
}
