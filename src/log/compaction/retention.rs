//! Which batches stay whatever the keys of their records say, and which go (Kafka's Cleaner.checkBatchRetention and
//! CleanedTransactionMetadata).
//!
//! - Records of an aborted transaction go.
//! - A marker goes when no batch of its transaction is left, and `delete.retention.ms` after that was first seen: readers
//!   that had seen records of the transaction have seen how it ended by then.
//! - The last batch of a producer that is remembered stays, without records if need be: from it the producer's sequence is
//!   known after a crash. Where that is a marker, it stays whole: it fences older epochs.
//! - The last batch of a segment stays too, so that the segment ends where it ended.

use std::collections::{HashMap, HashSet};

use metaq_protocol::batch::{BatchHeader, EndMarker};

use super::super::producers::Producers;

/// What is remembered of a producer's last batch.
#[derive(Clone, Copy)]
enum LastBatch {
    /// It holds the record at this offset.
    Data(i64),
    /// It is a marker of this epoch.
    Marker(i16),
}

/// What is to become of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays as it is.
    Stays,
    /// Its records stay as their keys say.
    ByKey {
        /// It stays without any, too.
        without_records: bool,
    },
    /// None of its records stays.
    Emptied {
        /// It stays without them.
        without_records: bool,
    },
    /// A marker of which a time is noted when it may go.
    Stamped,
}

/// Goes through the batches of a log in order.
#[derive(Clone)]
pub(super) struct Retention {
    last_batches: HashMap<i64, LastBatch>,
    /// Producers with batches of a transaction whose marker is still to come.
    with_batches: HashSet<i64>,
    now_ms: i64,
}

impl Retention {
    pub(super) fn new(producers: &Producers, now_ms: i64) -> Self {
        let last = producers.iter().map(|(id, producer)| {
            let last = match producer.batches.back() {
                Some(batch) => LastBatch::Data(batch.last_offset),
                None => LastBatch::Marker(producer.epoch),
            };
            (id, last)
        });
        Self {
            last_batches: last.collect(),
            with_batches: HashSet::new(),
            now_ms,
        }
    }

    /// What is to become of the next batch with records of clients.
    pub(super) fn of_data(
        &mut self,
        header: &BatchHeader,
        is_aborted: bool,
        is_last: bool,
    ) -> Fate {
        if header.is_transactional() {
            self.with_batches.insert(header.producer_id);
        }
        let without_records = is_last || self.is_last_of_producer(header);
        match (is_aborted, header.record_count) {
            (_, 0) if without_records => Fate::Stays,
            (false, 1..) => Fate::ByKey { without_records },
            _ => Fate::Emptied { without_records },
        }
    }

    /// What is to become of the next control batch, and whether batches of the transaction that it ends are left.
    pub(super) fn of_control(
        &mut self,
        header: &BatchHeader,
        marker: Option<EndMarker>,
        is_last: bool,
    ) -> (Fate, bool) {
        let without_records = is_last;
        if header.record_count == 0 {
            let fate = match without_records {
                true => Fate::Stays,
                false => Fate::Emptied { without_records },
            };
            return (fate, false);
        }
        if marker.is_none() {
            return (Fate::Stays, false);
        }
        let has_batches = self.with_batches.remove(&header.producer_id);
        let fate = match header.has_delete_horizon() {
            _ if has_batches => Fate::Stays,
            // Without its record, which Kafka takes, nothing is known of its producer's epoch.
            _ if self.is_last_of_producer(header) => Fate::Stays,
            false => Fate::Stamped,
            true if header.base_timestamp <= self.now_ms => Fate::Emptied { without_records },
            true => Fate::Stays,
        };
        (fate, has_batches)
    }

    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        match self.last_batches.get(&header.producer_id) {
            Some(LastBatch::Data(offset)) => header.last_offset() == *offset,
            Some(LastBatch::Marker(epoch)) => {
                header.is_control() && header.producer_epoch == *epoch
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use metaq_protocol::batch::{BatchBuilder, Outcome};

    use super::*;

    const NOW: i64 = 1000;

    fn data(producer_id: i64) -> BatchHeader {
        let batch = BatchBuilder::new()
            .producer(producer_id, 0, 0)
            .transactional();
        let batch = batch.push(Some(b"k"), Some(b"v"), &[], 1).finish();
        BatchHeader::parse(&batch.unwrap()).unwrap()
    }

    const MARKER: EndMarker = EndMarker {
        outcome: Outcome::Commit,
        coordinator_epoch: 1,
    };

    fn marker(producer_id: i64) -> BatchHeader {
        BatchHeader::parse(&MARKER.batch(producer_id, 0, 1)).unwrap()
    }

    fn fresh() -> Retention {
        Retention::new(&Producers::default(), NOW)
    }

    #[test]
    fn a_marker_stays_while_a_batch_of_its_transaction_does() {
        let mut retention = fresh();
        let by_key = Fate::ByKey {
            without_records: false,
        };
        assert_eq!(retention.of_data(&data(1), false, false), by_key);
        let of_marker =
            |retention: &mut Retention, id| retention.of_control(&marker(id), Some(MARKER), false);
        assert_eq!(of_marker(&mut retention, 1), (Fate::Stays, true));
        // The next one's transaction has none.
        assert_eq!(of_marker(&mut retention, 1), (Fate::Stamped, false));
        assert_eq!(of_marker(&mut retention, 2), (Fate::Stamped, false));
    }

    #[test]
    fn a_marker_without_batches_goes_when_its_time_has_come() {
        let stamped = |at| {
            let mut out = Vec::new();
            let batch = MARKER.batch(1, 0, 1);
            let header = BatchHeader::parse(&batch).unwrap();
            let records = &batch[metaq_protocol::batch::BATCH_HEADER_BYTES..];
            let keep = |_: &metaq_protocol::records::Record<'_>| true;
            metaq_protocol::batch::write_some_records(&header, records, Some(at), keep, &mut out)
                .unwrap();
            (BatchHeader::parse(&out).unwrap(), EndMarker::of_batch(&out))
        };
        for (at, fate) in [
            (NOW + 1, Fate::Stays),
            (
                NOW,
                Fate::Emptied {
                    without_records: false,
                },
            ),
        ] {
            let (header, found) = stamped(at);
            assert_eq!(found, Some(MARKER));
            assert_eq!(fresh().of_control(&header, found, false), (fate, false));
        }
    }

    #[test]
    fn records_of_an_aborted_transaction_go_and_the_last_batch_stays_without_them() {
        let emptied = |without_records| Fate::Emptied { without_records };
        assert_eq!(fresh().of_data(&data(1), true, false), emptied(false));
        assert_eq!(fresh().of_data(&data(1), true, true), emptied(true));
        let mut producers = Producers::default();
        let at = || unreachable!("it is no transaction's first");
        let plain = BatchBuilder::new().producer(1, 0, 0);
        let plain = plain.push(Some(b"k"), Some(b"v"), &[], 1).finish().unwrap();
        let plain = BatchHeader::parse(&plain).unwrap();
        producers.stored(&plain, None, at);
        let mut retention = Retention::new(&producers, NOW);
        assert_eq!(retention.of_data(&data(1), true, false), emptied(true));
        let later = BatchHeader {
            base_offset: 7,
            ..data(1)
        };
        assert_eq!(retention.of_data(&later, true, false), emptied(false));
        // Emptied before, it stays as it is.
        let empty = BatchHeader {
            record_count: 0,
            ..plain
        };
        assert_eq!(retention.of_data(&empty, false, false), Fate::Stays);
        let mut forgotten = fresh();
        assert_eq!(forgotten.of_data(&empty, false, false), emptied(false));
    }
}
