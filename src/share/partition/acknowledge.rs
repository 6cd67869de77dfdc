//! Members are done with records, or give them back; locks expire.
//!
//! Tests: share/partition/tests.rs, share/partition/model.rs.

use super::{Death, Outcome, SharePartition, State, WriteNumber};
use crate::share::limits::ShareLimits;

/// What a member says of a range of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// First offset.
    pub first: i64,
    /// Last offset.
    pub last: i64,
    /// One for all of them, or one for each: 0 for what is not in the log, 1 accept, 2 release, 3 reject, 4 renew.
    pub types: Vec<i8>,
}

/// Why nothing of what a member says counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgeError {
    /// It does not have these records, or they are being stored.
    #[error("the records are not acquired by this member")]
    InvalidRecordState,
    /// Nobody was given them.
    #[error("the records were not given to any member")]
    InvalidRequest,
}

/// What becomes of records.
#[derive(Clone, Copy)]
enum Said {
    Done(Outcome),
    Reject,
    Release,
    Renew,
}

impl Said {
    fn of(kind: i8) -> Option<Self> {
        match kind {
            0 => Some(Self::Done(Outcome::Archived)),
            3 => Some(Self::Reject),
            1 => Some(Self::Done(Outcome::Acknowledged)),
            2 => Some(Self::Release),
            4 => Some(Self::Renew),
            _ => None,
        }
    }
}

/// The same type for some records.
struct Run {
    first: i64,
    last: i64,
    said: Said,
}

impl SharePartition {
    /// A member says what it did with records it has: all of it counts, or nothing. The write that it counts with, if it is
    /// to be stored.
    pub fn acknowledge(
        &mut self,
        now_ms: i64,
        limits: &ShareLimits,
        member: &str,
        said: &[Acknowledgement],
    ) -> Result<Option<WriteNumber>, AcknowledgeError> {
        let runs = self.runs(said)?;
        let mut before = i64::MIN;
        for run in &runs {
            let renews_in_vain = matches!(run.said, Said::Renew) && !limits.may_renew;
            let mut all = self.records.within(run.first, run.last);
            let is_held = all.all(|range| range.value.is_held_by(member));
            if run.first <= before || renews_in_vain || !is_held {
                return Err(AcknowledgeError::InvalidRecordState);
            }
            before = run.last;
        }
        let mut is_stored = false;
        for run in runs {
            match run.said {
                Said::Renew => self.renew((run.first, run.last), now_ms + limits.lock_ms),
                Said::Done(outcome) => self.becomes((run.first, run.last), 0, |_| outcome),
                Said::Reject => {
                    let outcome = Outcome::dead(limits, Death::Rejected);
                    self.becomes((run.first, run.last), 0, |_| outcome);
                }
                Said::Release => {
                    let again_ms = again_ms(now_ms, limits);
                    let outcome = |count| released(count, limits);
                    self.becomes((run.first, run.last), again_ms, outcome);
                }
            }
            is_stored |= !matches!(run.said, Said::Renew);
        }
        Ok(is_stored.then_some(self.next_write))
    }

    /// Runs of one type each, in order, without what is done already.
    fn runs(&self, said: &[Acknowledgement]) -> Result<Vec<Run>, AcknowledgeError> {
        let mut runs = Vec::new();
        for batch in said {
            let (start, end) = (self.records.start(), self.records.end());
            if batch.last < start {
                continue;
            }
            if start == end {
                return Err(AcknowledgeError::InvalidRecordState);
            }
            if batch.last >= end {
                return Err(AcknowledgeError::InvalidRequest);
            }
            let kinds = batch.types.chunk_by(|a, b| a == b);
            let mut first = batch.first;
            for kinds in kinds {
                let said = Said::of(kinds[0]).ok_or(AcknowledgeError::InvalidRequest)?;
                let last = match batch.types.len() {
                    1 => batch.last,
                    _ => first + kinds.len() as i64 - 1,
                };
                if last >= start {
                    let first = first.max(start);
                    runs.push(Run { first, last, said });
                }
                first = last + 1;
            }
        }
        Ok(runs)
    }

    fn renew(&mut self, (first, last): (i64, i64), until: i64) {
        self.records.change(first, last, |delivery| {
            if let State::Acquired { until_ms, .. } = &mut delivery.state {
                *until_ms = until;
            }
        });
    }

    /// Records become something when the next write is stored; which, by their delivery count.
    fn becomes(
        &mut self,
        (first, last): (i64, i64),
        again_ms: i64,
        outcome: impl Fn(i16) -> Outcome,
    ) {
        let number = self.next_write;
        self.records.change(first, last, |delivery| {
            delivery.again_ms = again_ms;
            delivery.change = Some((outcome(delivery.count), number));
        });
        self.has_changes = true;
    }

    /// A member goes: what it has is given back. The write with which it is, if it had something.
    pub fn release(
        &mut self,
        now_ms: i64,
        limits: &ShareLimits,
        member: &str,
    ) -> Option<WriteNumber> {
        self.release_where(now_ms, limits, |who, _| who == member)
    }

    /// Locks that are over end; whether records that were given back can be given out again now.
    pub fn tick(&mut self, now_ms: i64, limits: &ShareLimits) -> bool {
        self.release_where(now_ms, limits, |_, until_ms| until_ms <= now_ms);
        let mut is_any = false;
        self.records.change_all(|delivery| {
            let is_over = (1..=now_ms).contains(&delivery.again_ms);
            if delivery.state == State::Available && is_over {
                delivery.again_ms = 0;
                is_any = true;
            }
        });
        is_any
    }

    fn release_where(
        &mut self,
        now_ms: i64,
        limits: &ShareLimits,
        is_over: impl Fn(&str, i64) -> bool,
    ) -> Option<WriteNumber> {
        let number = self.next_write;
        let again_ms = again_ms(now_ms, limits);
        let mut is_any = false;
        self.records.change_all(|delivery| {
            if let State::Acquired {
                member, until_ms, ..
            } = &delivery.state
                && delivery.change.is_none()
                && is_over(member, *until_ms)
            {
                delivery.change = Some((released(delivery.count, limits), number));
                delivery.again_ms = again_ms;
                is_any = true;
            }
        });
        self.has_changes |= is_any;
        is_any.then_some(number)
    }

    /// When the next lock is over, or the next record can be given out again, ms.
    pub fn next_deadline(&self) -> Option<i64> {
        let all = self.records.iter();
        let untils = all.filter_map(|range| match &range.value.state {
            State::Acquired { until_ms, .. } if range.value.change.is_none() => Some(*until_ms),
            State::Available if range.value.again_ms > 0 => Some(range.value.again_ms),
            _ => None,
        });
        untils.min()
    }
}

/// When records that are given back now can be given out again, ms; 0 for at once.
fn again_ms(now_ms: i64, limits: &ShareLimits) -> i64 {
    match limits.retry_backoff_ms {
        0 => 0,
        backoff_ms => now_ms.saturating_add(backoff_ms).max(1),
    }
}

/// What becomes of records that are given back.
fn released(count: i16, limits: &ShareLimits) -> Outcome {
    match count >= limits.delivery_count_max {
        true => Outcome::dead(limits, Death::TooOften),
        false => Outcome::Available,
    }
}
