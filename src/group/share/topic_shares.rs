//! What a share group knows of the share partitions of one topic.
//!
//! ```text
//!   to be initialized -> initializing -> initialized -> being deleted -> nothing is known
//!                                            |  ^
//!                                            v  |
//!                                   its offset is being set
//! ```

use std::collections::{BTreeMap, BTreeSet};

/// What takes longer is done again, or is given up, ms (group.share.initialize.retry.interval.ms).
const TRY_AGAIN_MS: i64 = 30_000;
/// Where a group begins with the partitions that a topic has when the group meets it, as its configuration says; and with those
/// that a topic gets later, so that no record is left out.
const AS_CONFIGURED: i64 = -1;
const FROM_THE_BEGINNING: i64 = 0;

/// A share partition that is being initialized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Initializing {
    since_ms: i64,
    /// Also when it is tried again: what comes twice or late begins nothing anew.
    state_epoch: i32,
}

/// What is to be initialized: with which state epoch, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) partition: i32,
    pub(super) state_epoch: i32,
    pub(super) start: i64,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TopicShares {
    pub(super) initialized: BTreeSet<i32>,
    initializing: BTreeMap<i32, Initializing>,
    /// Since when an operator sets their offsets, ms. Nobody is assigned them meanwhile.
    altering: BTreeMap<i32, i64>,
    /// Something may still be stored of these, which is to be deleted.
    pub(super) deleting: BTreeSet<i32>,
    /// How many partitions the topic had when the group met it.
    pub(super) met_with: Option<i32>,
}

impl TopicShares {
    /// Those that may be assigned.
    pub(super) fn assignable(&self) -> BTreeSet<i32> {
        let all = self.initialized.iter().copied();
        all.filter(|partition| !self.altering.contains_key(partition))
            .collect()
    }

    /// What is to be initialized of a topic that has so many partitions.
    pub(super) fn begin(&mut self, now_ms: i64, count: i32, state_epoch: i32) -> Vec<Beginning> {
        let met_with = *self
            .met_with
            .get_or_insert(match self.initialized.is_empty() {
                true => count,
                false => 0,
            });
        self.altering
            .retain(|_, since_ms| now_ms < *since_ms + TRY_AGAIN_MS);
        let mut all = Vec::new();
        for partition in 0..count {
            let before = self.initializing.get(&partition);
            let is_under_way = before.is_some_and(|one| now_ms < one.since_ms + TRY_AGAIN_MS)
                || self.altering.contains_key(&partition);
            if self.initialized.contains(&partition) || is_under_way {
                continue;
            }
            let state_epoch = before.map_or(state_epoch, |one| one.state_epoch);
            let initializing = Initializing {
                since_ms: now_ms,
                state_epoch,
            };
            self.initializing.insert(partition, initializing);
            // What was to be deleted of it has an earlier state epoch.
            self.deleting.remove(&partition);
            all.push(Beginning {
                partition,
                state_epoch,
                start: match partition < met_with {
                    true => AS_CONFIGURED,
                    false => FROM_THE_BEGINNING,
                },
            });
        }
        all
    }

    /// When [`Self::begin`] is to be asked again for what takes too long, ms.
    pub(super) fn due_ms(&self) -> Option<i64> {
        let initializing = self.initializing.values().map(|one| one.since_ms);
        let first = initializing.chain(self.altering.values().copied()).min();
        first.map(|since_ms| since_ms + TRY_AGAIN_MS)
    }

    /// It is initialized, or its offset is set; whether it may be assigned only from now on.
    pub(super) fn initialized(&mut self, partition: i32) -> bool {
        self.initializing.remove(&partition);
        self.deleting.remove(&partition);
        let was_altered = self.altering.remove(&partition).is_some();
        self.initialized.insert(partition) || was_altered
    }

    /// It could not be initialized, or its offset could not be set; whether it may be assigned again.
    pub(super) fn not_initialized(&mut self, partition: i32) -> bool {
        self.initializing.remove(&partition);
        self.altering.remove(&partition).is_some() && self.initialized.contains(&partition)
    }

    /// An operator sets its offset.
    pub(super) fn alter(&mut self, now_ms: i64, partition: i32) {
        self.initializing.remove(&partition);
        self.altering.insert(partition, now_ms);
    }

    /// The group has no more to do with the topic: what may be stored of it.
    pub(super) fn delete(&mut self) -> Vec<i32> {
        let all = [
            std::mem::take(&mut self.initialized),
            std::mem::take(&mut self.initializing).into_keys().collect(),
            std::mem::take(&mut self.altering).into_keys().collect(),
        ];
        self.deleting.extend(all.into_iter().flatten());
        self.met_with = None;
        self.deleting.iter().copied().collect()
    }

    /// Nothing is stored any more of what was to be deleted; whether nothing else is known.
    pub(super) fn deleted(&mut self) -> bool {
        self.deleting.clear();
        self.initialized.is_empty() && self.initializing.is_empty() && self.altering.is_empty()
    }
}
