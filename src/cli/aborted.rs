//! Which batches that were fetched are of transactions that were aborted, as Kafka's consumer finds out (CompletedFetch): the
//! broker names producers and where their aborted transactions begin, and a marker ends each.

use std::collections::{HashSet, VecDeque};

use metaq_protocol::batch::{BatchHeader, EndMarker, Outcome};
use metaq_protocol::messages::fetch_response::PartitionData;

/// Those of one partition's part of an answer.
#[derive(Debug, Default)]
pub(super) struct Aborted {
    /// First offset and producer of those that are to come.
    begins: VecDeque<(i64, i64)>,
    /// Producers whose transaction at hand is aborted.
    producers: HashSet<i64>,
}

impl Aborted {
    /// What the answer says; nothing of it where all records are read.
    pub(super) fn of(data: &PartitionData) -> Self {
        let told = data.aborted_transactions.iter().flatten();
        let told = told.map(|one| (one.first_offset, one.producer_id.0));
        Self::new(told.collect())
    }

    fn new(mut begins: Vec<(i64, i64)>) -> Self {
        begins.sort_unstable();
        Self {
            begins: begins.into(),
            producers: HashSet::new(),
        }
    }

    /// Whether the next batch is not to be read.
    pub(super) fn takes(&mut self, header: &BatchHeader, batch: &[u8]) -> bool {
        let last = header.last_offset();
        while let Some((first, producer)) = self.begins.front().copied()
            && first <= last
        {
            self.begins.pop_front();
            self.producers.insert(producer);
        }
        if header.is_control() {
            let marker = EndMarker::of_batch(batch);
            if marker.is_some_and(|marker| marker.outcome == Outcome::Abort) {
                self.producers.remove(&header.producer_id);
            }
            return true;
        }
        header.is_transactional() && self.producers.contains(&header.producer_id)
    }
}

#[cfg(test)]
mod tests {
    use metaq_protocol::batch::BatchBuilder;

    use super::*;

    const ABORT: EndMarker = EndMarker {
        outcome: Outcome::Abort,
        coordinator_epoch: 0,
    };

    #[test]
    fn batches_of_a_producer_are_left_out_from_where_its_aborted_transaction_begins_to_its_marker()
    {
        let mut aborted = Aborted::new(vec![(4, 7), (1, 7), (2, 8)]);
        let mut takes = |offset: i64, bytes: &[u8]| {
            let mut header = BatchHeader::parse(bytes).unwrap();
            header.base_offset = offset;
            aborted.takes(&header, bytes)
        };
        let sent = |producer| {
            let builder = BatchBuilder::new().producer(producer, 0, 0).transactional();
            builder.push(None, Some(b"v"), &[], 1).finish().unwrap()
        };
        let plain = BatchBuilder::new().producer(7, 0, 0);
        let plain = plain.push(None, Some(b"v"), &[], 1).finish().unwrap();
        assert!(!takes(0, &sent(7)));
        assert!(takes(1, &sent(7)));
        assert!(!takes(1, &plain));
        assert!(takes(2, &ABORT.batch(7, 0, 1)));
        assert!(!takes(3, &sent(7)) && takes(3, &sent(8)));
        let commit = EndMarker {
            outcome: Outcome::Commit,
            ..ABORT
        };
        assert!(takes(4, &commit.batch(8, 0, 1)));
        // A commit ends no aborted transaction.
        assert!(takes(5, &sent(7)) && takes(5, &sent(8)));
    }
}
