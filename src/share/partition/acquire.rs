//! Records are given to a member.
//!
//! Tests: share/partition/tests.rs, share/partition/model.rs.

use std::sync::Arc;

use super::{Delivery, SharePartition, State};
use crate::share::limits::ShareLimits;

/// Offsets of a batch of records in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSpan {
    /// Its first offset.
    pub first: i64,
    /// Its last offset.
    pub last: i64,
}

/// Who is to be given what.
#[derive(Debug)]
pub struct Acquire<'a> {
    /// The member.
    pub member: &'a Arc<str>,
    /// So many records. More only to end with a batch of the log, unless that is not wanted.
    pub records_max: i64,
    /// Never more than that (KIP-1206).
    pub is_strict: bool,
    /// Of how many records the parts are best that the member acknowledges.
    pub batch_size: i64,
    /// The offset from which records were read.
    pub from: i64,
    /// What was read, in order.
    pub batches: &'a [BatchSpan],
    /// Those of it that nobody is to be given: their transactions were aborted.
    pub aborted: &'a [BatchSpan],
}

/// Records that were given to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcquiredRecords {
    /// First offset.
    pub first: i64,
    /// Last offset.
    pub last: i64,
    /// How often they were given to a member, this time included.
    pub delivery_count: i16,
}

impl AcquiredRecords {
    /// How many.
    pub fn count(&self) -> i64 {
        self.last - self.first + 1
    }
}

/// What is still to be given.
struct Left {
    records: i64,
    /// The last offset that may be given.
    until: i64,
}

impl SharePartition {
    /// Gives available records of those that were read to a member, from the first on.
    pub fn acquire(
        &mut self,
        now_ms: i64,
        limits: &ShareLimits,
        wanted: &Acquire<'_>,
    ) -> Vec<AcquiredRecords> {
        let (Some(first), Some(last)) = (wanted.batches.first(), wanted.batches.last()) else {
            return Vec::new();
        };
        if last.last < self.records.start() {
            return Vec::new();
        }
        // Compaction, or who deleted records, took them.
        self.archive(wanted.from, first.first - 1);
        let Some(mut left) = self.left(limits, wanted, last.last) else {
            return Vec::new();
        };
        let mut acquired = Vec::new();
        let mut at = wanted.from.max(first.first).max(self.records.start());
        while at <= left.until && left.records > 0 {
            let Some(range) = self.records.holding(at) else {
                let end = end_of(wanted, at, left.until, left.records);
                self.take(now_ms, limits, wanted, (at, end), &mut acquired);
                break;
            };
            let (last, delivery) = (range.last, range.value);
            if !delivery.is_available() {
                at = last + 1;
                continue;
            }
            let end = match alone(limits, delivery.count) {
                // It may be what makes its members fail: it is tried with fewer others each time, and last alone.
                Some(_) if !acquired.is_empty() => break,
                Some(part) => {
                    let some = (last - range.first + 1) >> part;
                    last.min(left.until)
                        .min(at + some.clamp(1, left.records) - 1)
                }
                None => end_of(wanted, at, last.min(left.until), left.records),
            };
            let is_alone = alone(limits, delivery.count).is_some();
            self.take(now_ms, limits, wanted, (at, end), &mut acquired);
            left.records -= end - at + 1;
            at = end + 1;
            if is_alone {
                break;
            }
        }
        let acquired = self.without_aborted(wanted.aborted, acquired);
        self.move_start();
        acquired
    }

    /// How much may be given at all.
    fn left(&self, limits: &ShareLimits, wanted: &Acquire<'_>, last: i64) -> Option<Left> {
        let room = limits.locks_max - self.records.len();
        let left = match room > 0 {
            true => Left {
                records: wanted.records_max.min(room),
                until: last,
            },
            // What was given out before may be given out again.
            false => Left {
                records: wanted.records_max.min(self.records.end() - wanted.from),
                until: last.min(self.records.end() - 1),
            },
        };
        (left.records > 0).then_some(left)
    }

    /// Gives records to the member, all with one delivery count.
    fn take(
        &mut self,
        now_ms: i64,
        limits: &ShareLimits,
        wanted: &Acquire<'_>,
        (first, last): (i64, i64),
        acquired: &mut Vec<AcquiredRecords>,
    ) {
        // Offsets that no batch has.
        let gap = Delivery::new(State::Archived, 0);
        self.records.extend(first - 1, gap);
        let fresh = Delivery::new(State::Available, 0);
        self.records.extend(last, fresh);
        let mut count = 0;
        self.records.change(first, last, |delivery| {
            delivery.count = delivery.count.saturating_add(1);
            count = delivery.count;
            delivery.state = State::Acquired {
                member: wanted.member.clone(),
                since_ms: now_ms,
                until_ms: now_ms.saturating_add(limits.lock_ms),
            };
        });
        let mut part = first;
        if !wanted.is_strict {
            let from = wanted.batches.partition_point(|batch| batch.first <= first);
            let inside = wanted.batches[from..].iter();
            for batch in inside.take_while(|batch| batch.first <= last) {
                if batch.first - part >= wanted.batch_size.max(1) {
                    acquired.push(AcquiredRecords {
                        first: part,
                        last: batch.first - 1,
                        delivery_count: count,
                    });
                    part = batch.first;
                }
            }
        }
        acquired.push(AcquiredRecords {
            first: part,
            last,
            delivery_count: count,
        });
    }

    /// Nobody is given these, as far as nobody has them.
    fn archive(&mut self, first: i64, last: i64) {
        if first > last {
            return;
        }
        self.records.change(first, last, |delivery| {
            if delivery.state == State::Available {
                delivery.state = State::Archived;
            }
        });
    }

    /// Takes back what belongs to aborted transactions.
    fn without_aborted(
        &mut self,
        aborted: &[BatchSpan],
        acquired: Vec<AcquiredRecords>,
    ) -> Vec<AcquiredRecords> {
        if aborted.is_empty() {
            return acquired;
        }
        let mut left = Vec::new();
        for part in acquired {
            let mut first = part.first;
            let from = aborted.partition_point(|span| span.last < part.first);
            let inside = aborted[from..].iter();
            for span in inside.take_while(|span| span.first <= part.last) {
                let (from, to) = (span.first.max(first), span.last.min(part.last));
                self.records
                    .change(from, to, |delivery| delivery.state = State::Archived);
                if from > first {
                    left.push(AcquiredRecords {
                        first,
                        last: from - 1,
                        ..part
                    });
                }
                first = to + 1;
            }
            if first <= part.last {
                left.push(AcquiredRecords { first, ..part });
            }
        }
        left
    }
}

/// The last offset up to `last` where so many records from `at` on end, with the batch that they end in.
fn end_of(wanted: &Acquire<'_>, at: i64, last: i64, records: i64) -> i64 {
    let end = at.saturating_add(records - 1);
    if end >= last || wanted.is_strict {
        return end.min(last);
    }
    let at = wanted.batches.partition_point(|batch| batch.last < end);
    let holding = wanted.batches.get(at);
    holding
        .filter(|batch| batch.first <= end)
        .map_or(end, |batch| batch.last)
        .min(last)
}

/// Whether records that were given out so often are given out apart from others, and then which part of them at once, as a
/// shift to the right (SharePartition.acquireSubsetBatchRecords).
fn alone(limits: &ShareLimits, count: i16) -> Option<u32> {
    let max = limits.delivery_count_max;
    let throttled_from = (max.saturating_add(1) / 2).max(2);
    if count < throttled_from {
        return None;
    }
    match max > 2 && count >= max - 1 {
        true => Some(62),
        false => Some((count - throttled_from) as u32 + 1),
    }
}
