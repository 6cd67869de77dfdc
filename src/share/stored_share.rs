//! What is stored of a share partition: its rules, and its node in the coordination tree.
//!
//! Tests: share/share_states.rs.

use super::error::ShareStateError;
use super::partition::StoredState;
use super::record_state::{RecordState, StateBatch};
use super::stored_batches::merge;
use crate::coordinator::{FoundRecord, Parts, StoredId};
use crate::meta::records::{RECORD_VERSION, decode, encode};
use crate::meta::share_records::ShareRecord;
use crate::meta::{MetaError, Op, paths};

/// Where the first leader begins as the group's configuration says.
pub const NOT_SET: i64 = -1;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredShare {
    /// [`NOT_SET`], or everything before it is done.
    pub(super) start: i64,
    /// Counts how often its offsets were set from outside.
    pub(super) state_epoch: i32,
    /// Of the latest leader that read it, -1 for none.
    pub(super) leader_epoch: i32,
    /// How many records from the start on are done; -1 before anything is known.
    pub(super) delivery_complete_count: i32,
    /// In order.
    pub(super) batches: Vec<StateBatch>,
}

/// The place of a write among all of one share partition, in order: a write that took long may arrive after a later one, or
/// after the leader has read the state again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct WriteOrder {
    /// The read from which the leader goes on, as the coordinator numbered it; 0 where that is not known.
    pub reading: u64,
    /// Counts the leader's writes since.
    pub number: u64,
}

/// What a leader writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenState {
    /// Its place among others.
    pub order: WriteOrder,
    /// As the leader read it.
    pub state_epoch: i32,
    /// The leader's.
    pub leader_epoch: i32,
    /// Everything before it is done; [`NOT_SET`] where it is not said.
    pub start: i64,
    /// How many records from the start on are done.
    pub delivery_complete_count: i32,
    /// What changed, in order.
    pub batches: Vec<StateBatch>,
}

impl StoredShare {
    /// Of a group that has just begun with a partition, or whose offset there was set.
    pub(super) fn initialized(state_epoch: i32, start: i64) -> Self {
        Self {
            start,
            state_epoch,
            leader_epoch: -1,
            // As in ShareGroupOffset: from a start that is set, nothing is done.
            delivery_complete_count: if start == NOT_SET { -1 } else { 0 },
            batches: Vec::new(),
        }
    }

    /// What the leader of an epoch reads.
    pub(super) fn state(&self, reading: u64) -> StoredState {
        StoredState {
            reading,
            start: self.start,
            state_epoch: self.state_epoch,
            batches: self.batches.clone(),
        }
    }

    /// Whether a leader of an epoch may do anything here.
    pub(super) fn check_leader(&self, leader_epoch: i32) -> Result<(), ShareStateError> {
        match self.leader_epoch > leader_epoch {
            true => Err(ShareStateError::FencedLeaderEpoch),
            false => Ok(()),
        }
    }

    /// As the first leader of an epoch finds it whose log ends at an offset: what is stored of records beyond that is about
    /// records that are lost, and other ones come in their place.
    pub(super) fn led(&self, leader_epoch: i32, log_end: i64) -> Self {
        let mut led = self.clone();
        led.leader_epoch = leader_epoch;
        let last = self.batches.last().map_or(i64::MIN, |batch| batch.last);
        if self.start <= log_end && last < log_end {
            return led;
        }
        led.start = self.start.min(log_end);
        led.batches.retain(|batch| batch.first < log_end);
        for batch in &mut led.batches {
            batch.last = batch.last.min(log_end - 1);
        }
        let done = led.batches.iter().filter(|batch| batch.state.is_terminal());
        let complete: i64 = done.map(|batch| batch.last - batch.first + 1).sum();
        led.delivery_complete_count = i32::try_from(complete).unwrap_or(i32::MAX);
        led
    }

    /// What is to be stored for what a leader writes (ShareCoordinatorShard.generateShareStateRecord).
    pub(super) fn with(&self, written: &WrittenState) -> Result<Self, ShareStateError> {
        self.check_leader(written.leader_epoch)?;
        if self.state_epoch > written.state_epoch {
            return Err(ShareStateError::FencedStateEpoch);
        }
        let start = self.start.max(written.start);
        let (here, there) = (
            self.delivery_complete_count,
            written.delivery_complete_count,
        );
        let delivery_complete_count = match written.start.cmp(&self.start) {
            std::cmp::Ordering::Less => here,
            std::cmp::Ordering::Equal => here.max(there),
            std::cmp::Ordering::Greater => there,
        };
        Ok(Self {
            start,
            state_epoch: self.state_epoch,
            leader_epoch: self.leader_epoch.max(written.leader_epoch),
            delivery_complete_count,
            batches: merge(start, &self.batches, &written.batches),
        })
    }

    /// The steps that store it, and the number of the write.
    pub(super) fn ops(&self, id: &str, parts: &mut Parts) -> (Vec<Op>, u64) {
        let batches: Vec<_> = self.batches.iter().map(as_stored).collect();
        let node = |parts: Option<_>| {
            encode(&ShareRecord {
                version: RECORD_VERSION,
                start: self.start,
                state_epoch: self.state_epoch,
                leader_epoch: self.leader_epoch,
                complete: self.delivery_complete_count,
                batches: match parts {
                    Some(_) => Vec::new(),
                    None => batches.clone(),
                },
                parts,
            })
        };
        parts.write(&paths::share(id), node, || encode(&batches))
    }

    /// Reads it from its nodes.
    pub(super) fn load(stored: &StoredId) -> Result<Option<(Self, Parts)>, MetaError> {
        let path = paths::share(&stored.id);
        let found = FoundRecord::among(&path, stored);
        let Some(node) = found.node else {
            return Ok(None);
        };
        let mut record: ShareRecord = decode(&path, node)?;
        if let Some(parts) = record.parts.take() {
            record.batches = decode(&path, &found.bulk(&path, &parts)?)?;
        }
        let batches = record.batches.iter().map(|batch| from_stored(*batch));
        let batches: Option<Vec<_>> = batches.collect();
        let share = Self {
            start: record.start,
            state_epoch: record.state_epoch,
            leader_epoch: record.leader_epoch,
            delivery_complete_count: record.complete,
            batches: batches.ok_or_else(|| MetaError::Malformed {
                path,
                what: "an unknown state of records".to_owned(),
            })?,
        };
        Ok(Some((share, found.parts())))
    }
}

fn as_stored(batch: &StateBatch) -> (i64, i64, i8, i16) {
    let StateBatch {
        first,
        last,
        state,
        delivery_count,
    } = batch;
    (*first, *last, state.id(), *delivery_count)
}

fn from_stored((first, last, state, delivery_count): (i64, i64, i8, i16)) -> Option<StateBatch> {
    Some(StateBatch {
        first,
        last,
        state: RecordState::of_id(state)?,
        delivery_count,
    })
}
