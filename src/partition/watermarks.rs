//! How far a partition is: what is written, what is durable, what readers may see. One struct, changed under one lock, so
//! that what it says together is true together.
//!
//! ```text
//! synced ≤ durable ≤ log end        last stable ≤ high watermark ≤ log end
//! ```
//!
//! The high watermark is the log's end, or the durable end where the topic acknowledges only what is synced; where other brokers
//! keep the partition too, no more than what is committed. The last stable offset is where the first transaction begins that is
//! not decided below the high watermark, or else the high watermark. Neither goes back, but where records are cut off.

use crate::log::OffsetPosition;

/// What readers may see, published together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// Readers may see what lies before it.
    pub(super) high_watermark: OffsetPosition,
    /// Every transaction before it is decided. Without transactions, the high watermark.
    pub(super) last_stable: OffsetPosition,
}

impl ReadLimits {
    /// Readers may see what lies before this offset.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.offset
    }

    /// Every transaction before this offset is decided. Without transactions, the high watermark.
    pub fn last_stable_offset(&self) -> i64 {
        self.last_stable.offset
    }

    /// All that lies before a position, as followers see it.
    pub fn all_before(end: OffsetPosition) -> Self {
        Self {
            high_watermark: end,
            last_stable: end,
        }
    }

    /// The end that readers of an isolation level see.
    pub fn readable_end(&self, isolation: Isolation) -> i64 {
        self.of(isolation).offset
    }

    pub(super) fn of(&self, isolation: Isolation) -> OffsetPosition {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable,
        }
    }

    /// Below this high watermark, of a log in which this transaction is the first that is not decided there.
    fn below(high_watermark: OffsetPosition, first_unstable: Option<OffsetPosition>) -> Self {
        let is_below = |first: &OffsetPosition| first.offset < high_watermark.offset;
        Self {
            high_watermark,
            last_stable: first_unstable.filter(is_below).unwrap_or(high_watermark),
        }
    }
}

/// What a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

/// What an acknowledgement promises of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// It is in the log.
    Written,
    /// It survives a power failure.
    Durable,
}

/// What bounds the high watermark beside this broker's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Nothing: no other broker keeps the partition, or all that count have all of it.
    None,
    /// What is committed ends here.
    At(OffsetPosition),
    /// Nothing more is committed now.
    Held,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Watermarks {
    log_end: OffsetPosition,
    /// What lies before it is synced in the log's files.
    synced: OffsetPosition,
    journal: JournalRun,
    limits: ReadLimits,
}

/// What of a log the journal of its data directory holds without a gap.
#[derive(Debug)]
struct JournalRun {
    /// The first offset that it holds, or will hold; `i64::MAX` where it holds nothing.
    from: i64,
    /// The end of what was given to it.
    queued: i64,
    /// The end of what is synced in it.
    journaled: OffsetPosition,
    /// Whether anything was given to it since the log was opened.
    was_used: bool,
}

impl Watermarks {
    /// Of a log that was opened, of which what lies before `high_watermark` may be read.
    pub(super) fn opened(
        log_end: OffsetPosition,
        synced: OffsetPosition,
        high_watermark: OffsetPosition,
        first_unstable: Option<OffsetPosition>,
    ) -> Self {
        Self {
            log_end,
            synced,
            journal: JournalRun {
                from: i64::MAX,
                queued: i64::MAX,
                journaled: synced,
                was_used: false,
            },
            limits: ReadLimits::below(high_watermark, first_unstable),
        }
    }

    /// What lies before it survives a power failure, in the log's files or in the journal.
    pub(super) fn durable(&self) -> OffsetPosition {
        let run = &self.journal;
        // What lies before a run must be synced before the run counts.
        match self.synced.offset >= run.from && run.journaled.offset > self.synced.offset {
            true => run.journaled,
            false => self.synced,
        }
    }

    /// What readers may see.
    pub(super) fn limits(&self) -> ReadLimits {
        self.limits
    }

    /// Readers may see what lies before this offset.
    pub(super) fn high_watermark(&self) -> i64 {
        self.limits.high_watermark()
    }

    /// Whether what is promised of the record at an offset is true.
    pub(super) fn holds(&self, promise: Promise, offset: i64) -> bool {
        match promise {
            Promise::Written => offset < self.log_end.offset,
            Promise::Durable => offset < self.durable().offset,
        }
    }

    /// The log ends here now.
    pub(super) fn appended(&mut self, log_end: OffsetPosition) {
        debug_assert!(log_end.offset >= self.log_end.offset, "{self:?}");
        self.log_end = log_end;
    }

    /// What was appended from `from` to `end` goes into the journal; returns where its run begins there.
    pub(super) fn queue_in_journal(&mut self, from: i64, end: i64) -> i64 {
        debug_assert!(from < end && end <= self.log_end.offset, "{self:?}");
        let run = &mut self.journal;
        if run.queued != from {
            run.from = from;
        }
        run.queued = end;
        run.was_used = true;
        run.from
    }

    /// Whether the journal may hold anything of the log.
    pub(super) fn was_journaled(&self) -> bool {
        self.journal.was_used
    }

    /// The journal holds, durably, what was given to it up to here.
    pub(super) fn journaled(&mut self, end: OffsetPosition) {
        let run = &mut self.journal;
        if run.from < end.offset && run.journaled.offset < end.offset {
            run.journaled = end;
        }
    }

    /// What was given to the journal is not in it.
    pub(super) fn forget_journal(&mut self) {
        (self.journal.from, self.journal.queued) = (i64::MAX, i64::MAX);
    }

    /// Whether the journal has what was given to it from there on without a gap.
    pub(super) fn is_run_of_journal(&self, run_from: i64) -> bool {
        self.journal.from == run_from
    }

    /// Whether the journal will make it durable that an offset was appended.
    pub(super) fn waits_for_journal(&self, offset: i64) -> bool {
        self.synced.offset >= self.journal.from && offset < self.journal.queued
    }

    /// The log's files are synced up to here.
    pub(super) fn synced(&mut self, end: OffsetPosition) {
        // An append may be in the log and not be known here yet.
        if end.offset > self.log_end.offset {
            self.log_end = end;
        }
        if end.offset >= self.synced.offset {
            self.synced = end;
        }
    }

    /// The log was cut off here, or begun anew: nothing after it was ever there.
    pub(super) fn cut_to(
        &mut self,
        log_end: OffsetPosition,
        synced: OffsetPosition,
        first_unstable: impl FnOnce(i64) -> Option<OffsetPosition>,
    ) {
        let high_watermark = match self.limits.high_watermark.offset < log_end.offset {
            true => self.limits.high_watermark,
            false => log_end,
        };
        let was_used = self.journal.was_used;
        let unstable = first_unstable(high_watermark.offset);
        *self = Self::opened(log_end, synced, high_watermark, unstable);
        self.journal.was_used = was_used;
    }

    /// The end of the log.
    pub(super) fn log_end(&self) -> OffsetPosition {
        self.log_end
    }

    /// What may be read now, where only what is durable is shown or all that is written, within a bound; and whether more may
    /// than before. `first_unstable` says for a high watermark where the first transaction begins that is not decided below it.
    pub(super) fn advance(
        &mut self,
        shows: Promise,
        bound: Bound,
        first_unstable: impl FnOnce(i64) -> Option<OffsetPosition>,
    ) -> (ReadLimits, bool) {
        let own = self.own_end(shows);
        let before = self.limits;
        let reached = match bound {
            Bound::At(committed) if committed.offset < own.offset => committed,
            Bound::Held => before.high_watermark,
            Bound::None | Bound::At(_) => own,
        };
        // Also at the same offset: a roll moves the position into the new segment.
        let high_watermark = match reached.offset >= before.high_watermark.offset {
            true => reached,
            false => before.high_watermark,
        };
        let first_unstable = first_unstable(high_watermark.offset);
        self.limits = ReadLimits::below(high_watermark, first_unstable);
        self.assert_ordered(before);
        (self.limits, self.limits != before)
    }

    /// As far as this replica has what is promised.
    pub(super) fn own_end(&self, shows: Promise) -> OffsetPosition {
        match shows {
            Promise::Written => self.log_end,
            Promise::Durable => self.durable(),
        }
    }

    fn assert_ordered(&self, before: ReadLimits) {
        let (limits, durable) = (self.limits, self.durable().offset);
        let (watermark, end) = (limits.high_watermark.offset, self.log_end.offset);
        debug_assert!(self.synced.offset <= durable && durable <= end, "{self:?}");
        debug_assert!(limits.last_stable.offset <= watermark, "{self:?}");
        debug_assert!(watermark <= end, "{self:?}");
        debug_assert!(watermark >= before.high_watermark.offset, "{self:?}");
        debug_assert!(
            limits.last_stable.offset >= before.last_stable.offset,
            "{self:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> OffsetPosition {
        OffsetPosition {
            offset,
            segment_base: 0,
            position: offset as u64 * 100,
        }
    }

    fn watermark(watermarks: &mut Watermarks, shows: Promise) -> i64 {
        watermarks
            .advance(shows, Bound::None, |_| None)
            .0
            .high_watermark
            .offset
    }

    #[test]
    fn what_is_written_is_shown_at_once_where_nothing_else_is_promised() {
        let mut watermarks = Watermarks::opened(at(5), at(3), at(5), None);
        assert!(watermarks.holds(Promise::Written, 4) && !watermarks.holds(Promise::Durable, 3));
        watermarks.appended(at(8));
        assert_eq!(watermark(&mut watermarks, Promise::Written), 8);
        assert!(
            !watermarks
                .advance(Promise::Written, Bound::None, |_| None)
                .1
        );
    }

    #[test]
    fn the_high_watermark_never_goes_back_also_when_only_what_is_durable_is_shown_from_now_on() {
        let mut watermarks = Watermarks::opened(at(5), at(5), at(5), None);
        watermarks.appended(at(8));
        assert_eq!(watermark(&mut watermarks, Promise::Written), 8);
        watermarks.appended(at(9));
        assert_eq!(watermark(&mut watermarks, Promise::Durable), 8);
        watermarks.synced(at(9));
        assert_eq!(watermark(&mut watermarks, Promise::Durable), 9);
    }

    #[test]
    fn the_last_stable_offset_stays_before_what_is_not_decided_and_never_passes_the_high_watermark()
    {
        let mut watermarks = Watermarks::opened(at(5), at(5), at(5), Some(at(2)));
        let mut stable = |end, first_unstable| {
            watermarks.appended(at(end));
            let (limits, has_moved) =
                watermarks.advance(Promise::Durable, Bound::None, |high_watermark| {
                    assert_eq!(high_watermark, 5);
                    first_unstable
                });
            (limits.last_stable.offset, has_moved)
        };
        assert_eq!(stable(6, Some(at(2))), (2, false));
        // Decided, but what decides it is not shown yet.
        assert_eq!(stable(7, Some(at(2))), (2, false));
        assert_eq!(stable(7, Some(at(4))), (4, true));
        // Another one began after what may be read.
        assert_eq!(stable(8, Some(at(7))), (5, true));
        assert_eq!(stable(8, None), (5, false));
    }

    #[test]
    fn a_run_of_the_journal_counts_once_what_lies_before_it_is_synced() {
        let mut watermarks = Watermarks::opened(at(0), at(0), at(0), None);
        // Too large for the journal.
        watermarks.appended(at(3));
        watermarks.appended(at(4));
        assert_eq!(watermarks.queue_in_journal(3, 4), 3);
        watermarks.journaled(at(4));
        assert!(!watermarks.holds(Promise::Durable, 3) && !watermarks.waits_for_journal(3));
        watermarks.synced(at(3));
        assert!(watermarks.holds(Promise::Durable, 3));
        assert_eq!(watermark(&mut watermarks, Promise::Durable), 4);
        // It goes on without a gap.
        watermarks.appended(at(6));
        assert_eq!(watermarks.queue_in_journal(4, 6), 3);
        assert!(watermarks.waits_for_journal(5) && !watermarks.holds(Promise::Durable, 5));
        assert!(watermarks.is_run_of_journal(3));
        // What waits for its turn is of a run that ended, once something before it was not journaled, or after it.
        watermarks.forget_journal();
        assert!(!watermarks.is_run_of_journal(3));
        watermarks.appended(at(8));
        assert_eq!(watermarks.queue_in_journal(6, 8), 6);
        assert!(watermarks.is_run_of_journal(6) && !watermarks.is_run_of_journal(3));
    }

    #[test]
    fn what_a_journal_failed_to_take_waits_for_the_logs_own_sync() {
        let mut watermarks = Watermarks::opened(at(0), at(0), at(0), None);
        watermarks.appended(at(2));
        watermarks.queue_in_journal(0, 2);
        watermarks.forget_journal();
        watermarks.journaled(at(2));
        assert!(!watermarks.holds(Promise::Durable, 1) && !watermarks.waits_for_journal(1));
        watermarks.synced(at(2));
        assert!(watermarks.holds(Promise::Durable, 1));
    }

    #[test]
    fn where_others_keep_the_partition_too_no_more_is_shown_than_is_committed() {
        let mut watermarks = Watermarks::opened(at(5), at(0), at(3), None);
        let mut shown = |end, bound| {
            watermarks.appended(at(end));
            let (limits, _) = watermarks.advance(Promise::Written, bound, |_| None);
            limits.high_watermark.offset
        };
        assert_eq!(shown(5, Bound::At(at(4))), 4);
        // A follower that joined has less.
        assert_eq!(shown(6, Bound::At(at(2))), 4);
        assert_eq!(shown(6, Bound::Held), 4);
        assert_eq!(shown(7, Bound::At(at(9))), 7);
        assert_eq!(shown(8, Bound::None), 8);
    }

    #[test]
    fn what_is_cut_off_is_not_shown_and_not_in_the_journal() {
        let mut watermarks = Watermarks::opened(at(0), at(0), at(0), None);
        watermarks.appended(at(9));
        watermarks.queue_in_journal(0, 9);
        watermarks.journaled(at(9));
        assert_eq!(watermark(&mut watermarks, Promise::Durable), 9);
        watermarks.cut_to(at(4), at(2), |_| None);
        assert_eq!(watermarks.limits.high_watermark.offset, 4);
        assert!(!watermarks.holds(Promise::Durable, 2) && watermarks.was_journaled());
        watermarks.appended(at(5));
        assert!(!watermarks.waits_for_journal(4));
    }
}
