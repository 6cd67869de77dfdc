//! The newest offset of each key, by a 128-bit hash of it, in bounded memory (Kafka's SkimpyOffsetMap).
//!
//! Two keys of one hash would be taken for one, and a record lost. The hash is keyed with a secret of the log's
//! (`key_index`), so that no client can look for such keys; by chance it does not happen.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// A key's hash.
pub(in crate::log) type KeyHash = [u64; 2];

/// The secret that a log's keys are hashed with.
pub(in crate::log) type KeySeed = [u8; 16];

/// A map is never smaller: bytes.
pub const KEY_MAP_BYTES_MIN: usize = 1 << 20;

const SLOT_BYTES: usize = size_of::<Slot>();
/// Slots of a map that nothing was put into yet.
const SLOTS_FIRST: usize = 1 << 10;
/// Of ten slots, so many are used at the most where the map cannot grow (Kafka's `log.cleaner.io.buffer.load.factor`) …
const LOAD_OF_TEN: usize = 9;
/// … and where it can: fuller ones are slow.
const LOAD_OF_TEN_GROWING: usize = 6;

/// Hashes keys with a log's secret.
#[derive(Clone, Copy)]
pub(in crate::log) struct KeyHasher(SipHasher13);

impl KeyHasher {
    pub(in crate::log) fn new(seed: &KeySeed) -> Self {
        Self(SipHasher13::new_with_key(seed))
    }

    pub(in crate::log) fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = self.0;
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }
}

/// A key's newest record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) struct KeyedOffset {
    pub(in crate::log) hash: KeyHash,
    pub(in crate::log) offset: i64,
    pub(in crate::log) is_tombstone: bool,
}

/// Hash, and the offset with the lowest bit for a tombstone; negative where nothing is in it.
#[derive(Clone, Copy)]
struct Slot {
    hash: KeyHash,
    at: i64,
}

const EMPTY: Slot = Slot {
    hash: [0; 2],
    at: -1,
};

impl Slot {
    fn of(key: &KeyedOffset) -> Self {
        Self {
            hash: key.hash,
            at: key.offset << 1 | i64::from(key.is_tombstone),
        }
    }

    fn is_empty(&self) -> bool {
        self.at < 0
    }

    fn key(&self) -> KeyedOffset {
        KeyedOffset {
            hash: self.hash,
            offset: self.at >> 1,
            is_tombstone: self.at & 1 == 1,
        }
    }
}

/// See the module's documentation. One is used for one log after the other.
pub struct KeyMap {
    slots: Vec<Slot>,
    used: usize,
    slots_max: usize,
    /// The slots hold keys in the order of their offsets, and are no map any more.
    is_sorted: bool,
}

impl KeyMap {
    /// A map of at most so many bytes, and at least [`KEY_MAP_BYTES_MIN`]; it takes them when it needs them, and half as much
    /// again while it grows.
    pub fn with_memory(bytes: usize) -> Self {
        Self {
            slots: Vec::new(),
            used: 0,
            slots_max: bytes.max(KEY_MAP_BYTES_MIN) / SLOT_BYTES,
            is_sorted: false,
        }
    }

    /// A map of at most so many slots, for tests of what a full one does.
    #[cfg(test)]
    pub(in crate::log) fn with_slots(slots_max: usize) -> Self {
        let mut map = Self::with_memory(0);
        map.slots_max = slots_max;
        map
    }

    /// How many keys fit.
    pub fn capacity(&self) -> usize {
        self.slots_max * LOAD_OF_TEN / 10
    }

    /// How many keys are in it.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Forgets all keys, and gives back the memory.
    pub fn clear(&mut self) {
        self.slots = Vec::new();
        self.used = 0;
        self.is_sorted = false;
    }

    /// Puts in a key's record where it is newer than the one known; `false` where the map is full.
    pub(in crate::log) fn insert(&mut self, key: &KeyedOffset) -> bool {
        debug_assert!(!self.is_sorted && key.offset >= 0);
        if !self.has_room() {
            // What is known already may be replaced.
            return match self.get(&key.hash) {
                Some(known) if known >= key.offset => true,
                Some(_) => {
                    let at = self.slot_of(&key.hash);
                    self.slots[at] = Slot::of(key);
                    true
                }
                None => false,
            };
        }
        let at = self.slot_of(&key.hash);
        let new = Slot::of(key);
        let slot = &mut self.slots[at];
        if slot.is_empty() {
            self.used += 1;
            *slot = new;
        } else if slot.at < new.at {
            *slot = new;
        }
        true
    }

    /// As [`Self::insert`], of many at a time; `false` where one of them did not fit.
    pub(in crate::log) fn insert_all(&mut self, keys: &[KeyedOffset]) -> bool {
        // The slots are far from each other: looked at first, they come into the cache side by side.
        if !self.slots.is_empty() {
            let seen = |seen, key: &KeyedOffset| seen ^ self.slots[self.home_of(&key.hash)].at;
            std::hint::black_box(keys.iter().fold(0, seen));
        }
        keys.iter().all(|key| self.insert(key))
    }

    /// Whether one more key fits; the map may grow for it.
    fn has_room(&mut self) -> bool {
        let slots = self.slots.len();
        self.used < slots * LOAD_OF_TEN_GROWING / 10
            || self.grow()
            || self.used < slots * LOAD_OF_TEN / 10
    }

    /// The offset of a key's newest record.
    pub(in crate::log) fn get(&self, hash: &KeyHash) -> Option<i64> {
        debug_assert!(!self.is_sorted);
        if self.used == 0 {
            return None;
        }
        let slot = &self.slots[self.slot_of(hash)];
        (!slot.is_empty()).then_some(slot.at >> 1)
    }

    /// Orders all keys by their offsets; [`Self::sorted`] gives them then. It is no map any more until it is cleared.
    pub(in crate::log) fn sort(&mut self) {
        self.slots.retain(|slot| !slot.is_empty());
        self.slots.sort_unstable_by_key(|slot| slot.at);
        self.is_sorted = true;
    }

    /// The keys from an offset on, in the order of their offsets, after [`Self::sort`].
    pub(in crate::log) fn sorted(&self, from: i64) -> impl Iterator<Item = KeyedOffset> {
        debug_assert!(self.is_sorted);
        let first = self.slots.partition_point(|slot| slot.at >> 1 < from);
        self.slots[first..].iter().map(Slot::key)
    }

    /// Where a hash is looked for first.
    fn home_of(&self, hash: &KeyHash) -> usize {
        ((u128::from(hash[0]) * self.slots.len() as u128) >> 64) as usize
    }

    /// Where a hash is, or belongs. There is always an empty slot.
    fn slot_of(&self, hash: &KeyHash) -> usize {
        let slots = self.slots.len();
        let mut at = self.home_of(hash);
        loop {
            let slot = &self.slots[at];
            if slot.is_empty() || slot.hash == *hash {
                return at;
            }
            at += 1;
            if at == slots {
                at = 0;
            }
        }
    }

    fn grow(&mut self) -> bool {
        let slots = (self.slots.len() * 2).max(SLOTS_FIRST).min(self.slots_max);
        if slots <= self.slots.len() {
            return false;
        }
        let before = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        for slot in before.into_iter().filter(|slot| !slot.is_empty()) {
            let at = self.slot_of(&slot.hash);
            self.slots[at] = slot;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn keyed(hasher: &KeyHasher, key: u32, offset: i64, is_tombstone: bool) -> KeyedOffset {
        KeyedOffset {
            hash: hasher.hash(&key.to_be_bytes()),
            offset,
            is_tombstone,
        }
    }

    #[test]
    fn the_newest_offset_of_each_key_is_kept_whatever_the_order() {
        let hasher = KeyHasher::new(&[3; 16]);
        let mut map = KeyMap::with_memory(0);
        let mut expected = HashMap::new();
        let mut state = 1u64;
        for _ in 0..50_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            let (key, offset) = ((state >> 40) as u32 % 9000, (state >> 20 & 0xfffff) as i64);
            assert!(map.insert(&keyed(&hasher, key, offset, offset % 3 == 0)));
            let known: &mut i64 = expected.entry(key).or_insert(offset);
            *known = offset.max(*known);
        }
        assert_eq!(map.len(), expected.len());
        for (key, offset) in &expected {
            assert_eq!(map.get(&hasher.hash(&key.to_be_bytes())), Some(*offset));
        }
        assert_eq!(map.get(&hasher.hash(b"another")), None);
        map.sort();
        let all: Vec<_> = map.sorted(0).collect();
        assert!(all.is_sorted_by_key(|key| key.offset));
        assert_eq!(all.len(), expected.len());
        assert!(
            all.iter()
                .all(|key| key.is_tombstone == (key.offset % 3 == 0))
        );
        let later = map.sorted(500_000).count();
        assert_eq!(
            later,
            expected.values().filter(|at| **at >= 500_000).count()
        );
        map.clear();
        assert!(map.is_empty() && map.get(&hasher.hash(b"another")).is_none());
    }

    #[test]
    fn a_full_map_takes_newer_records_of_its_keys_and_no_others() {
        let hasher = KeyHasher::new(&[3; 16]);
        let mut map = KeyMap::with_slots(20);
        let fits = (0..100).take_while(|key| map.insert(&keyed(&hasher, *key, 5, false)));
        assert_eq!(fits.count(), map.capacity());
        assert_eq!(map.capacity(), 18);
        assert!(map.insert(&keyed(&hasher, 3, 9, false)));
        assert!(map.insert(&keyed(&hasher, 3, 2, false)));
        assert_eq!(map.get(&hasher.hash(&3u32.to_be_bytes())), Some(9));
        assert!(!map.insert(&keyed(&hasher, 1000, 9, false)));
    }

    #[test]
    fn hashes_depend_on_the_logs_secret() {
        let (one, other) = (KeyHasher::new(&[1; 16]), KeyHasher::new(&[2; 16]));
        assert_eq!(one.hash(b"key"), one.hash(b"key"));
        assert_ne!(one.hash(b"key"), one.hash(b"kez"));
        assert_ne!(one.hash(b"key"), other.hash(b"key"));
    }
}
