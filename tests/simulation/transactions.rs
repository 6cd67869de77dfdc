//! Producers of transactions in a log's simulation, and what a reader of committed records is to make of the log.

use std::collections::{BTreeMap, HashSet};

use metaq::log::{
    AppendRequest, CommittedSlice, Log, Outcome, Reach, ReadWanted, ToVerify, TransactionMarker,
    TransactionVersion, Verification,
};
use metaq_protocol::batch::{Batches, EndMarker, next_sequence};

use super::log::{Kept, NOW};
use super::random::Random;

/// What a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Outside of transactions.
    Plain,
    /// Of its producer's transaction.
    Transaction,
    /// What ends it.
    Marker(Outcome),
}

/// A producer of transactions, by the rules of version 2: each has an epoch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    id: i64,
    epoch: i16,
    sequence: i32,
    is_open: bool,
    /// What the log knows of it is not known, until a marker says it.
    ends_first: bool,
}

impl Sender {
    pub fn new(id: i64) -> Self {
        Self {
            id,
            epoch: 0,
            sequence: 0,
            is_open: false,
            ends_first: false,
        }
    }

    /// What it sends next.
    pub fn next(&mut self, base: i64, number: u64, random: &mut Random) -> Kept {
        let ends = self.ends_first || self.is_open && random.one_in(3);
        let (count, part) = match ends {
            true => {
                let outcome = match random.one_in(2) {
                    true => Outcome::Abort,
                    false => Outcome::Commit,
                };
                (1, Part::Marker(outcome))
            }
            false => (random.between(1, 4), Part::Transaction),
        };
        if ends {
            *self = Self {
                epoch: self.epoch + 1,
                ..Self::new(self.id)
            };
        }
        let kept = Kept {
            base,
            count,
            number,
            producer: self.id,
            epoch: self.epoch,
            sequence: if ends { -1 } else { self.sequence },
            part,
        };
        if !ends {
            self.sequence = next_sequence(self.sequence, count as i32);
            self.is_open = true;
        }
        kept
    }

    /// Goes on after what is left; `anew` where of what was lost the log knows nothing.
    pub fn go_on(&mut self, kept: &[Kept], anew: bool) {
        let before = *self;
        let last = kept.iter().rev().find(|kept| kept.producer == self.id);
        *self = Self::new(self.id);
        if let Some(last) = last {
            self.epoch = last.epoch;
            if last.part == Part::Transaction {
                self.sequence = next_sequence(last.sequence, last.count as i32);
                self.is_open = true;
            }
        }
        if anew || before.ends_first {
            self.epoch = self.epoch.max(before.epoch);
            self.ends_first = true;
        }
    }
}

/// What is sent of transactions, for a trace.
pub fn noted(batches: &[Kept]) -> String {
    let of = |kept: &Kept| {
        let (producer, epoch, base) = (kept.producer, kept.epoch, kept.base);
        match kept.part {
            Part::Plain => String::new(),
            part => format!(", {producer}/{epoch} {part:?} at {base}"),
        }
    };
    batches.iter().map(of).collect()
}

/// The marker that a kept batch is.
pub fn marker(kept: &Kept, outcome: Outcome) -> AppendRequest {
    let marker = TransactionMarker {
        producer_id: kept.producer,
        producer_epoch: kept.epoch,
        coordinator_epoch: 0,
        outcome,
        version: TransactionVersion::V2,
    };
    AppendRequest::of_marker(&marker, NOW).expect("markers always encode")
}

/// What the log wants to be shown with a transactional batch.
pub fn verification(log: &Log, kept: &Kept, now: i64) -> Verification {
    let to_verify = ToVerify {
        producer_id: kept.producer,
        producer_epoch: kept.epoch,
        base_sequence: kept.sequence,
        is_v2: false,
    };
    let begun = log.begin_verification(&to_verify, now);
    begun.expect("no later epoch was sent")
}

/// What became of the transactions of what was kept.
struct Decided {
    /// Of each batch of a transaction, by its base: how it ended.
    outcomes: BTreeMap<i64, Option<Outcome>>,
    /// Of each open transaction: its first batch, and the first that is not deleted whole.
    open: Vec<(i64, Option<i64>)>,
}

impl Decided {
    fn of(kept: &[Kept], log_start: i64) -> Self {
        let mut outcomes = BTreeMap::new();
        let mut running: BTreeMap<i64, Vec<&Kept>> = BTreeMap::new();
        for batch in kept {
            match batch.part {
                Part::Plain => {}
                Part::Transaction => running.entry(batch.producer).or_default().push(batch),
                Part::Marker(outcome) => {
                    let ended = running.remove(&batch.producer).unwrap_or_default();
                    outcomes.extend(ended.iter().map(|part| (part.base, Some(outcome))));
                }
            }
        }
        let mut open = Vec::new();
        for parts in running.values() {
            outcomes.extend(parts.iter().map(|part| (part.base, None)));
            let is_left = |part: &&&Kept| part.base + part.count > log_start;
            let left = parts.iter().find(is_left).map(|part| part.base);
            open.push((parts[0].base, left));
        }
        Self { outcomes, open }
    }
}

/// Holds what a reader of committed records is given at an offset against what became of the transactions.
pub fn check(log: &Log, kept: &[Kept], offset: i64, bytes_max: usize) -> Result<(), String> {
    let ends = log.ends();
    let (log_start, end) = (ends.log_start, ends.log_end.offset);
    let decided = Decided::of(kept, log_start);
    let unstable = log.first_unstable(end);
    let stable = unstable.map_or(end, |at| at.offset);
    // Where a transaction's first records are deleted, a crash may leave nothing that tells of them.
    let earliest = decided.open.iter().map(|(first, _)| *first).min();
    let latest = decided.open.iter().filter_map(|(_, left)| *left).min();
    let earliest = earliest.map_or(end, |first| first.max(log_start));
    let latest = latest.map_or(end, |first| first.max(log_start));
    if stable < earliest || stable > latest || stable > end {
        return Err(format!(
            "the last stable offset is {stable}, not {earliest}..={latest} of {end}: {:?}",
            decided.open
        ));
    }
    if offset < log_start || offset >= stable {
        return Ok(());
    }
    let limit = unstable.unwrap_or(ends.log_end);
    let wanted = ReadWanted {
        offset,
        bytes_max,
        first_batch_whole: true,
    };
    let read = log.read_committed_within(&wanted, limit, Reach::Disk);
    let read = read.map_err(|error| format!("reading {offset} committed: {error}"))?;
    let read = read.ok_or_else(|| format!("nothing committed at {offset} below {stable}"))?;
    check_read(&read, &decided, offset, stable)
}

fn check_read(
    read: &CommittedSlice,
    decided: &Decided,
    offset: i64,
    stable: i64,
) -> Result<(), String> {
    let mut bytes = vec![0; read.slice.bytes];
    let slice = &read.slice;
    let given = slice.file.read_at(&mut bytes, slice.position);
    given.map_err(|error| error.to_string())?;
    let mut aborted = read.aborted.clone();
    aborted.sort_by_key(|one| one.first_offset);
    let mut aborted = aborted.iter().peekable();
    // As Java's CompletedFetch.
    let mut left_out = HashSet::new();
    for (header, batch) in Batches::new(&bytes).map_while(Result::ok) {
        if header.last_offset() >= stable {
            let base = header.base_offset;
            return Err(format!("{base} is given at {offset}, not below {stable}"));
        }
        while let Some(one) = aborted.next_if(|one| one.first_offset <= header.last_offset()) {
            left_out.insert(one.producer_id);
        }
        if header.is_control() {
            let marker = EndMarker::of_batch(batch).ok_or("a marker that says nothing")?;
            if marker.outcome == Outcome::Abort {
                left_out.remove(&header.producer_id);
            }
            continue;
        }
        let is_seen = !header.is_transactional() || !left_out.contains(&header.producer_id);
        let expected = match decided.outcomes.get(&header.base_offset) {
            Some(outcome) => *outcome == Some(Outcome::Commit),
            None => true,
        };
        if is_seen != expected {
            let (base, told) = (header.base_offset, &read.aborted);
            return Err(format!(
                "{base}, read from {offset}: seen {is_seen}, expected {expected}; told {told:?}"
            ));
        }
    }
    Ok(())
}
