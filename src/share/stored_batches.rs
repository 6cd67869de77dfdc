//! What is stored of a share partition, with a write laid over it.

use super::ranges::Ranges;
use super::record_state::StateBatch;

/// The batches from `start` on, in order, where the later ones win (Kafka's PersisterStateBatchCombiner).
pub(super) fn merge(start: i64, stored: &[StateBatch], written: &[StateBatch]) -> Vec<StateBatch> {
    let mut all = Ranges::new(start);
    for batch in stored.iter().chain(written) {
        let value = Some((batch.state, batch.delivery_count));
        all.extend(batch.last, None);
        all.change(batch.first, batch.last, |there| *there = value);
    }
    let known = all.iter().filter_map(|range| {
        let (state, delivery_count) = (*range.value)?;
        Some(StateBatch {
            first: range.first,
            last: range.last,
            state,
            delivery_count,
        })
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::record_state::RecordState;

    fn batch(first: i64, last: i64, state: RecordState, delivery_count: i16) -> StateBatch {
        StateBatch {
            first,
            last,
            state,
            delivery_count,
        }
    }

    #[test]
    fn what_is_written_wins_and_what_lies_before_the_start_goes() {
        use RecordState::{Acknowledged, Archived, Available};
        let stored = [batch(0, 9, Available, 1), batch(20, 29, Available, 2)];
        let written = [batch(5, 6, Acknowledged, 1), batch(25, 34, Archived, 3)];
        let merged = merge(3, &stored, &written);
        let expected = [
            batch(3, 4, Available, 1),
            batch(5, 6, Acknowledged, 1),
            batch(7, 9, Available, 1),
            batch(20, 24, Available, 2),
            batch(25, 34, Archived, 3),
        ];
        assert_eq!(merged, expected);
        assert_eq!(merge(35, &merged, &[]), []);
    }

    #[test]
    fn neighbours_that_are_alike_are_one_batch() {
        let of = |first, last| batch(first, last, RecordState::Acknowledged, 1);
        assert_eq!(merge(0, &[of(0, 4)], &[of(5, 7), of(2, 5)]), [of(0, 7)]);
    }
}
