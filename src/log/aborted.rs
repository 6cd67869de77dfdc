//! Which aborted transactions a reader of committed records is told of (KIP-98; Kafka's
//! LocalLog.collectAbortedTransactions).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LogError;
use super::partition_log::Log;
use super::reach::Reach;
use super::segment::{Segment, segment_of};
use super::transactions::AbortedTransaction;

impl Log {
    /// The aborted transactions of which a record or the marker may lie at or after `from`, and the first record before `to`,
    /// in the order of their markers. Their markers may lie anywhere after that.
    pub fn aborted_between(
        &self,
        from: i64,
        to: i64,
        reach: Reach,
    ) -> Result<Vec<AbortedTransaction>, LogError> {
        let segments = self.segments.load();
        let first = segment_of(&segments, from);
        self.aborted_in(&segments[first..], (from, to), reach)
    }

    /// As [`Self::aborted_between`], of the segments from the one that holds the first offset on.
    pub(super) fn aborted_in(
        &self,
        segments: &[Arc<Segment>],
        range: (i64, i64),
        reach: Reach,
    ) -> Result<Vec<AbortedTransaction>, LogError> {
        let mut aborted = Vec::new();
        // Most logs have none, and many segments.
        if !self.has_aborted.load(Ordering::Acquire) {
            return Ok(aborted);
        }
        for segment in segments {
            if segment.aborted.collect(reach, range, &mut aborted)? {
                break;
            }
        }
        Ok(aborted)
    }
}
