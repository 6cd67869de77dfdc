//! The memory that groups take, all of a broker together: their members (`group.members.max.bytes`), and their offsets
//! (`group.offsets.max.bytes`).
//!
//! A join reserves its share before it gets to its group; the member keeps it, and gives it back with its last copy. So does
//! a member that was only given an id, and an assignment that a leader brings. What a group gives to its members is its own share. What
//! was stored when a broker gets it counts as well, whatever there is of it. A commit reserves the share of each offset, which is
//! given back with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// All shares together.
#[derive(Debug)]
pub(super) struct GroupMemory {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// The share of a member or an offset.
#[derive(Debug, Clone)]
pub struct Reserved {
    share: Arc<Share>,
}

impl Reserved {
    /// Whether it may stay in the place of an earlier share: it is no larger, or there is room for it when that one is given back.
    pub(super) fn may_replace(&self, before: Option<&Self>) -> bool {
        let before = before.map_or(0, |before| before.share.bytes);
        let Share { of, bytes } = &*self.share;
        *bytes <= before || of.bytes.load(Ordering::Relaxed).saturating_sub(before) <= of.bytes_max
    }

    /// Another share of the same memory, in the place of one that is given back then.
    pub(super) fn another(&self, bytes: usize, before: Option<&Self>) -> Option<Self> {
        let share = self.share.of.reserve_anyway(bytes);
        share.may_replace(before).then_some(share)
    }
}

#[derive(Debug)]
struct Share {
    of: Arc<GroupMemory>,
    bytes: usize,
}

impl GroupMemory {
    /// For so many bytes in all.
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            bytes_max,
        })
    }

    /// So many bytes; `None` if all shares together would be more than there may be.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reserved> {
        let (reserved, all) = self.add(bytes);
        // Dropping it gives back what was too much.
        (all <= self.bytes_max).then_some(reserved)
    }

    /// So many bytes, for what is there already, or until [`Reserved::may_replace`] has told whether they may stay.
    pub(super) fn reserve_anyway(self: &Arc<Self>, bytes: usize) -> Reserved {
        self.add(bytes).0
    }

    /// What all shares take together, bytes.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add(self: &Arc<Self>, bytes: usize) -> (Reserved, usize) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let share = Share {
            of: self.clone(),
            bytes,
        };
        let reserved = Reserved {
            share: Arc::new(share),
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
        let memory = GroupMemory::new(100);
        let first = memory.reserve(50).unwrap();
        let copy = first.clone();
        let second = memory.reserve(50).unwrap();
        assert!(memory.reserve(1).is_none());
        drop(first);
        assert!(memory.reserve(1).is_none());
        let third = memory.reserve_anyway(10);
        drop((copy, second));
        assert!(memory.reserve(91).is_none());
        assert!(memory.reserve(90).is_some());
        drop(third);
        assert_eq!(memory.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_share_takes_the_place_of_one_that_is_no_smaller_or_where_there_is_room() {
        let memory = GroupMemory::new(100);
        let (own, _other) = (memory.reserve(40).unwrap(), memory.reserve(60).unwrap());
        // All is taken, and goes on with what there is.
        assert!(memory.reserve_anyway(40).may_replace(Some(&own)));
        assert!(!memory.reserve_anyway(41).may_replace(Some(&own)));
        assert!(!memory.reserve_anyway(1).may_replace(None));
        // What is there already may be too much.
        let _loaded = memory.reserve_anyway(500);
        assert!(own.another(40, Some(&own)).is_some());
        assert!(own.another(41, Some(&own)).is_none());
        assert_eq!(memory.bytes.load(Ordering::Relaxed), 600);
    }
}
