//! How many producers all partitions together remember (`producer.ids.max.bytes`). Any client can name a new producer with each
//! batch, which is remembered for `producer.id.expiration.ms`: where there are too many, the partitions that remember most forget
//! those that wrote longest ago. A forgotten producer goes on as one that is new, as after its expiration; only what it sends
//! again from before is not known any more.

use std::sync::Arc;

use super::handle::Partition;
use super::registry::Partitions;

/// What one takes in memory, about, bytes.
pub const PRODUCER_BYTES: usize = 300;

/// Forgets the oldest where there are more than fit, down to seven eighths of that. Those of open transactions stay.
pub(super) fn keep_within(partitions: &Partitions, bytes_max: usize) {
    let count_max = bytes_max / PRODUCER_BYTES;
    let count = |partition: Arc<Partition>| (partition.log().producers_remembered(), partition);
    let counted = partitions.topics().into_iter().flat_map(|topic| {
        let online: Vec<_> = topic.online().cloned().collect();
        online.into_iter().map(count)
    });
    let counted: Vec<_> = counted.filter(|(count, _)| *count > 0).collect();
    let all: usize = counted.iter().map(|(count, _)| count).sum();
    if all <= count_max {
        return;
    }
    let counts = counted.iter().map(|(count, _)| *count).collect();
    let kept = each_keeps(counts, count_max / 8 * 7);
    tracing::warn!(
        producers = all,
        kept,
        "partitions remember too many producers (producer.ids.max.bytes): the oldest are forgotten"
    );
    for (_, partition) in counted.into_iter().filter(|(count, _)| *count > kept) {
        let subject = partition.clone();
        // As the writer: it owns the producers.
        let _ = partition
            .writer()
            .run_blocking(move || subject.log().forget_producers(kept));
    }
}

/// How many each partition may keep, so that all together keep no more than that; those with fewer keep all.
fn each_keeps(mut counts: Vec<usize>, all: usize) -> usize {
    counts.sort_unstable();
    let mut left = all;
    let mut partitions = counts.len();
    for count in counts {
        let share = left / partitions;
        if count > share {
            return share;
        }
        left -= count;
        partitions -= 1;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_most_give_and_nobody_else() {
        assert_eq!(each_keeps(vec![10, 1000, 20, 5000], 1030), 500);
        assert_eq!(each_keeps(vec![100; 4], 200), 50);
        assert_eq!(each_keeps(vec![1, 2, 3], 6), usize::MAX);
        assert_eq!(each_keeps(vec![5], 0), 0);
    }
}
