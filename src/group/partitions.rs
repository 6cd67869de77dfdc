//! Partitions by the id of their topic.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

/// What a member has, or is to have.
pub(super) type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// How many they are.
pub(super) fn count(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}
