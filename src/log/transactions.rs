//! The transactions of one partition that readers are held back by, and what ends them (KIP-98, 890; Kafka's
//! ProducerStateManager).
//!
//! A transaction is *open* from its first record to its marker. Then it is *ended*, but goes on holding back readers of
//! committed records until its marker is below the high watermark: only then is it known to stay.

use std::collections::BTreeMap;

use metaq_protocol::batch::{EndMarker, Outcome};

use super::offset_position::OffsetPosition;

/// By which rules a transaction is ended (the feature `transaction.version`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionVersion {
    /// As KIP-98 had it.
    V0,
    /// As [`Self::V0`], with flexible records in the coordinator's log.
    V1,
    /// Each end has a producer epoch of its own, so that nothing late is taken for a part of the next one (KIP-890).
    V2,
}

/// What ends a producer's transaction on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionMarker {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch; by [`TransactionVersion::V2`] the one after that of the records.
    pub producer_epoch: i16,
    /// Of the coordinator that decided.
    pub coordinator_epoch: i32,
    /// What it decided.
    pub outcome: Outcome,
    /// By which rules.
    pub version: TransactionVersion,
}

impl TransactionMarker {
    /// What its record says.
    pub fn record(&self) -> EndMarker {
        EndMarker {
            outcome: self.outcome,
            coordinator_epoch: self.coordinator_epoch,
        }
    }
}

/// A transaction that was aborted, as readers of committed records are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// The producer.
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
    /// Its marker.
    pub last_offset: i64,
    /// Every transaction before this offset was decided when the marker was written.
    pub last_stable_offset: i64,
}

/// Transactions by the offsets of their first records. See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Undecided {
    open: BTreeMap<i64, Open>,
    ended: BTreeMap<i64, Ended>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    at: OffsetPosition,
    marker_offset: i64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    producer_id: i64,
    /// `None` for one that is known from a snapshot, until it was looked up.
    at: Option<OffsetPosition>,
}

impl Undecided {
    /// A producer's transaction begins there.
    pub(super) fn begin(&mut self, producer_id: i64, at: OffsetPosition) {
        let first_offset = at.offset;
        let at = Some(at);
        self.open.insert(first_offset, Open { producer_id, at });
    }

    /// A snapshot says that one began at an offset.
    pub(super) fn begun(&mut self, producer_id: i64, first_offset: i64) {
        let at = None;
        self.open.insert(first_offset, Open { producer_id, at });
    }

    /// The snapshot's earlier entry said otherwise.
    pub(super) fn forget(&mut self, first_offset: i64) {
        self.open.remove(&first_offset);
    }

    /// A producer's transaction is ended by the marker at an offset; returns before which offset all are decided then.
    pub(super) fn end(&mut self, producer_id: i64, first_offset: i64, marker_offset: i64) -> i64 {
        // As ProducerStateManager.lastStableOffset: those of others.
        let others = self.open.iter();
        let mut others = others.filter(|(_, open)| open.producer_id != producer_id);
        let last_stable = others
            .next()
            .map_or(marker_offset + 1, |(offset, _)| *offset);
        if let Some(Open { at: Some(at), .. }) = self.open.remove(&first_offset) {
            self.ended.insert(first_offset, Ended { at, marker_offset });
        }
        last_stable
    }

    /// Where the first transaction begins that holds back readers, once what lies before the high watermark will stay.
    pub(super) fn first_unstable(&mut self, high_watermark: i64) -> Option<OffsetPosition> {
        // Those after one that still counts are forgotten with it.
        while let Some(first) = self.ended.first_entry()
            && first.get().marker_offset < high_watermark
        {
            first.remove();
        }
        let ended = self.ended.values().next().map(|ended| ended.at);
        let open = self.open.values().next().and_then(|open| open.at);
        match (ended, open) {
            (Some(ended), Some(open)) if ended.offset < open.offset => Some(ended),
            (ended, open) => open.or(ended),
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.ended.is_empty()
    }

    /// Looks up where those begin that are known from a snapshot.
    pub(super) fn locate(&mut self, position_of: impl Fn(i64) -> OffsetPosition) {
        for (offset, open) in &mut self.open {
            open.at.get_or_insert_with(|| position_of(*offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> OffsetPosition {
        OffsetPosition {
            offset,
            segment_base: 0,
            position: offset as u64 * 10,
        }
    }

    fn first_unstable(undecided: &mut Undecided, high_watermark: i64) -> Option<i64> {
        undecided.first_unstable(high_watermark).map(|at| at.offset)
    }

    #[test]
    fn a_transaction_holds_back_readers_until_its_marker_is_below_the_high_watermark() {
        let mut undecided = Undecided::default();
        undecided.begin(1, at(3));
        undecided.begin(2, at(5));
        assert_eq!(first_unstable(&mut undecided, 6), Some(3));
        // All before the other's first record is decided once this one is.
        assert_eq!(undecided.end(1, 3, 8), 5);
        assert_eq!(first_unstable(&mut undecided, 8), Some(3));
        assert_eq!(first_unstable(&mut undecided, 9), Some(5));
        assert_eq!(undecided.end(2, 5, 9), 10);
        assert_eq!(first_unstable(&mut undecided, 9), Some(5));
        assert_eq!(first_unstable(&mut undecided, 10), None);
        assert!(undecided.is_empty());
    }

    #[test]
    fn the_first_record_counts_and_not_the_first_marker() {
        let mut undecided = Undecided::default();
        undecided.begin(1, at(0));
        undecided.begin(2, at(1));
        undecided.end(2, 1, 2);
        undecided.end(1, 0, 3);
        assert_eq!(first_unstable(&mut undecided, 2), Some(0));
        // The later marker's transaction began first.
        assert_eq!(first_unstable(&mut undecided, 3), Some(0));
        assert_eq!(first_unstable(&mut undecided, 4), None);
    }

    #[test]
    fn one_that_a_snapshot_tells_of_is_looked_up_once() {
        let mut undecided = Undecided::default();
        undecided.begun(1, 7);
        undecided.locate(at);
        assert_eq!(undecided.first_unstable(20), Some(at(7)));
        undecided.forget(7);
        assert!(undecided.is_empty());
    }
}
