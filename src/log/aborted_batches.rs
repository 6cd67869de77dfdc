//! Which batches are of aborted transactions.

use std::collections::HashMap;

use metaq_protocol::batch::BatchHeader;

use super::transactions::AbortedTransaction;

/// Aborted transactions of a part of a log. Those of one producer follow each other.
pub struct Aborted {
    by_producer: HashMap<i64, Vec<AbortedTransaction>>,
}

impl Aborted {
    /// Of these transactions, in any order.
    pub fn new(all: Vec<AbortedTransaction>) -> Self {
        let mut by_producer: HashMap<i64, Vec<AbortedTransaction>> = HashMap::new();
        for aborted in all {
            let of_producer = by_producer.entry(aborted.producer_id);
            of_producer.or_default().push(aborted);
        }
        for of_producer in by_producer.values_mut() {
            of_producer.sort_unstable_by_key(|aborted| aborted.last_offset);
        }
        Self { by_producer }
    }

    /// The first transaction of the batch's producer that ends at or after it.
    fn next_of(&self, batch: &BatchHeader) -> Option<&AbortedTransaction> {
        let all = self.by_producer.get(&batch.producer_id)?;
        all.get(all.partition_point(|aborted| aborted.last_offset < batch.base_offset))
    }

    /// Whether a batch's records are not to be read.
    pub fn has(&self, batch: &BatchHeader) -> bool {
        let begins = |aborted: &AbortedTransaction| aborted.first_offset <= batch.base_offset;
        batch.is_transactional() && self.next_of(batch).is_some_and(begins)
    }

    /// The transaction that a marker ends by aborting it.
    pub(super) fn ended_by(&self, marker: &BatchHeader) -> Option<&AbortedTransaction> {
        let ends = |aborted: &&AbortedTransaction| aborted.last_offset == marker.base_offset;
        self.next_of(marker).filter(ends)
    }
}
