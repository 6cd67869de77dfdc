//! How far readers of committed records may read a log: up to the first transaction that is not known to stay decided
//! (Kafka's UnifiedLog.maybeIncrementFirstUnstableOffset).

use std::sync::atomic::Ordering;

use metaq_protocol::batch::{BatchHeader, EndMarker};

use super::LogError;
use super::offset_position::OffsetPosition;
use super::partition_log::Log;
use super::producers::Producers;
use super::transactions::AbortedTransaction;
use super::verifications::{ToVerify, Verification};

impl Log {
    /// Where the first transaction begins that is open, or whose marker is not below the high watermark; never before the
    /// log's start. What is appended already counts, so that a high watermark of a moment ago is never too late.
    pub fn first_unstable(&self, high_watermark: i64) -> Option<OffsetPosition> {
        // A log without transactions costs its appends no lock.
        if !self.has_undecided.load(Ordering::Acquire) {
            return None;
        }
        let first = {
            let mut producers = self.producers.lock();
            let first = producers.undecided.first_unstable(high_watermark);
            self.note_undecided(&producers);
            first?
        };
        let log_start = self.ends().log_start;
        Some(match first.offset < log_start {
            // Its records were deleted. Nothing lies before the log's start that its position could be asked for.
            true => OffsetPosition {
                offset: log_start,
                segment_base: log_start,
                position: 0,
            },
            false => first,
        })
    }

    /// Begins to verify that a batch is part of a transaction that the coordinator knows of.
    pub fn begin_verification(
        &self,
        batch: &ToVerify,
        now_ms: i64,
    ) -> Result<Verification, LogError> {
        let mut producers = self.producers.lock();
        Ok(producers.begin_verification(batch, now_ms)?)
    }

    /// Remembers a batch that is about to be written there, by the appender; returns the transaction that it aborts.
    pub(super) fn note_stored(
        &self,
        batch: &BatchHeader,
        marker: Option<EndMarker>,
        at: impl FnOnce() -> OffsetPosition,
    ) -> Option<AbortedTransaction> {
        let mut producers = self.producers.lock();
        let aborted = producers.stored(batch, marker, at);
        if batch.is_transactional() {
            self.note_undecided(&producers);
        }
        aborted
    }

    /// Takes producers that were read from the log, by the appender.
    pub(super) fn replace_producers(&self, replacement: Producers) {
        let mut producers = self.producers.lock();
        *producers = replacement;
        self.note_undecided(&producers);
    }

    /// With the producers' lock.
    fn note_undecided(&self, producers: &Producers) {
        let has_undecided = !producers.undecided.is_empty();
        self.has_undecided.store(has_undecided, Ordering::Release);
    }
}
