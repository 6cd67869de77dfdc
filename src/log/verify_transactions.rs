//! Offline inspection of `.txnindex` files: they say what the records say.

use std::collections::{HashMap, HashSet};

use metaq_protocol::batch::{BatchHeader, EndMarker, Outcome};

use super::segment::Segment;
use super::transactions::AbortedTransaction;

/// The transactions of a partition, as its batches are gone through.
#[derive(Default)]
pub(super) struct TransactionsSeen {
    /// The first record of each open one that is there, by producer.
    open: HashMap<i64, i64>,
    /// The abort markers of the segment: producer, offset, and the first record where that is there.
    aborts: Vec<(i64, i64, Option<i64>)>,
    /// The offset after the last batch.
    end: i64,
    /// Compaction may have taken records before this offset.
    cleaned_end: i64,
}

impl TransactionsSeen {
    /// The next batch, whole.
    pub(super) fn batch(&mut self, header: &BatchHeader, bytes: &[u8]) {
        self.end = header.last_offset() + 1;
        let producer_id = header.producer_id;
        if !header.is_transactional() {
            return;
        }
        if !header.is_control() {
            self.open.entry(producer_id).or_insert(header.base_offset);
        } else if let Some(marker) = EndMarker::of_batch(bytes) {
            let first_offset = self.open.remove(&producer_id);
            if marker.outcome == Outcome::Abort {
                let abort = (producer_id, header.base_offset, first_offset);
                self.aborts.push(abort);
            }
        }
    }

    /// Whether a transaction may begin at an offset of which the first record that is there is another one.
    fn may_begin_at(&self, first_offset: i64, found: i64) -> bool {
        first_offset == found || first_offset < found.min(self.cleaned_end)
    }

    /// What is wrong with the index of the segment that was gone through. Where compaction took records, an index may know more
    /// than can be seen.
    pub(super) fn wrong_in(&mut self, segment: &Segment, is_cleaned: bool) -> Vec<String> {
        let aborts = std::mem::take(&mut self.aborts);
        let all = match segment.aborted.all() {
            Ok(Some(all)) => all,
            Ok(None) => return vec!["not a valid index of aborted transactions".to_owned()],
            Err(error) => return vec![error.to_string()],
        };
        if is_cleaned {
            self.cleaned_end = self.end;
            return Vec::new();
        }
        let mut wrong = Vec::new();
        let by_marker: HashMap<i64, &AbortedTransaction> =
            all.iter().map(|entry| (entry.last_offset, entry)).collect();
        let ended: HashSet<(i64, i64)> = aborts.iter().map(|(id, at, _)| (*id, *at)).collect();
        for (producer_id, offset, first_offset) in &aborts {
            let entry = by_marker.get(offset);
            let is_there = entry.is_some_and(|entry| {
                let begins =
                    first_offset.is_some_and(|at| self.may_begin_at(entry.first_offset, at));
                entry.producer_id == *producer_id && begins
            });
            if first_offset.is_some() && !is_there {
                let what = format!(
                    "the abort of producer {producer_id} at offset {offset} is missing, or wrong"
                );
                wrong.push(what);
            }
        }
        for entry in &all {
            if !ended.contains(&(entry.producer_id, entry.last_offset)) {
                let (producer_id, offset) = (entry.producer_id, entry.last_offset);
                let what =
                    format!("there is no abort of producer {producer_id} at offset {offset}");
                wrong.push(what);
            }
        }
        wrong
    }
}
