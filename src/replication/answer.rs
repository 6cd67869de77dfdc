//! What a leader's answer to a fetch means for one partition. No I/O.

use bytes::Bytes;
use metaq_protocol::ResponseError;
use metaq_protocol::batch::BatchHeader;
use metaq_protocol::messages::fetch_response::PartitionData;

use crate::log::{LeaderEpochs, LogError};

/// See the module's documentation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The log goes on.
    GoesOn {
        /// Whole batches, or nothing.
        records: Option<Bytes>,
        /// The leader's high watermark.
        high_watermark: i64,
        /// Where the leader's log starts.
        log_start: i64,
    },
    /// The leader has something else from somewhere before the end on.
    Diverges {
        /// The largest epoch at or before the follower's last one that the leader knows.
        epoch: i32,
        /// Where the leader's records of it end.
        end_offset: i64,
    },
    /// The leader's log does not reach from there.
    OutOfRange,
    /// To be tried again; who leads may be another broker by now.
    Later(ResponseError),
}

/// Reads an answer.
pub(super) fn read(data: &PartitionData) -> Answer {
    match ResponseError::try_from_code(data.error_code) {
        None if data.error_code == 0 => {}
        Some(ResponseError::OffsetOutOfRange) => return Answer::OutOfRange,
        Some(error) => return Answer::Later(error),
        None => {}
    }
    let diverging = &data.diverging_epoch;
    if diverging.end_offset >= 0 {
        return Answer::Diverges {
            epoch: diverging.epoch,
            end_offset: diverging.end_offset,
        };
    }
    Answer::GoesOn {
        records: data.records.clone().filter(|records| !records.is_empty()),
        high_watermark: data.high_watermark,
        log_start: data.log_start_offset,
    }
}

/// To where a follower cuts its log that diverges from its leader's (Kafka's AbstractFetcherThread.getOffsetTruncationState): where
/// both know the epoch, to the earlier of its ends; otherwise to the end of the largest epoch before it that the follower
/// knows, and the leader is asked again.
pub(super) fn cut_to(epochs: &LeaderEpochs, log_end: i64, epoch: i32, end_offset: i64) -> i64 {
    match epochs.end_offset_for(epoch, log_end) {
        Some((known, own_end)) if known == epoch => own_end.min(end_offset).min(log_end),
        Some((_, own_end)) => own_end.min(log_end),
        None => end_offset.min(log_end),
    }
}

/// Where the first batch begins that an empty log is given, where that is before the log's end: the leader's log starts within it.
pub(super) fn begins_before(records: &[u8], log_start: i64, log_end: i64) -> Option<i64> {
    let first = BatchHeader::parse(records).ok()?;
    let is_before = (0..log_end).contains(&first.base_offset) && log_end <= first.last_offset();
    (log_start == log_end && is_before).then_some(first.base_offset)
}

/// Whether a failure of an append leaves a partition that another fetch cannot help.
pub(super) fn is_final(error: &LogError) -> bool {
    matches!(error, LogError::Offline(_) | LogError::Io(_))
}

#[cfg(test)]
mod tests {
    use metaq_protocol::batch::{BatchBuilder, header_for_append};

    use super::*;

    fn epochs(starts: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (epoch, start) in starts {
            epochs.assign(*epoch, *start);
        }
        epochs
    }

    #[test]
    fn an_answer_goes_on_or_diverges_or_is_an_error() {
        let data = PartitionData::default().with_high_watermark(7);
        let nothing = Answer::GoesOn {
            records: None,
            high_watermark: 7,
            log_start: -1,
        };
        assert_eq!(read(&data), nothing);
        let mut diverging = data.clone();
        diverging.diverging_epoch.epoch = 3;
        diverging.diverging_epoch.end_offset = 0;
        let diverges = Answer::Diverges {
            epoch: 3,
            end_offset: 0,
        };
        assert_eq!(read(&diverging), diverges);
        let error = ResponseError::OffsetOutOfRange.code();
        assert_eq!(
            read(&data.clone().with_error_code(error)),
            Answer::OutOfRange
        );
        let error = ResponseError::NotLeaderOrFollower;
        let later = read(&data.clone().with_error_code(error.code()));
        assert_eq!(later, Answer::Later(error));
        let unknown = read(&data.with_error_code(9999));
        assert_eq!(unknown, Answer::Later(ResponseError::Unknown(9999)));
    }

    #[test]
    fn an_empty_log_begins_where_the_batch_does_within_which_the_leaders_starts() {
        let of = |base_offset: i64, records: usize| {
            let mut builder = BatchBuilder::new();
            for _ in 0..records {
                builder = builder.push(None, Some(b"v"), &[], 1);
            }
            let mut bytes = builder.finish().unwrap().to_vec();
            let head = header_for_append(&bytes, base_offset, 3, None);
            bytes[..head.len()].copy_from_slice(&head);
            bytes
        };
        assert_eq!(begins_before(&of(100, 10), 105, 105), Some(100));
        assert_eq!(begins_before(&of(100, 10), 109, 109), Some(100));
        // It goes on, or is something else.
        assert_eq!(begins_before(&of(100, 10), 100, 100), None);
        assert_eq!(begins_before(&of(100, 10), 110, 110), None);
        assert_eq!(begins_before(&of(100, 10), 90, 105), None);
        assert_eq!(begins_before(&of(-3, 10), 2, 2), None);
        assert_eq!(begins_before(b"short", 2, 2), None);
    }

    #[test]
    fn a_follower_cuts_by_epochs_and_never_more_than_both_do_not_share() {
        // Both wrote in epoch 2; the leader has less of it.
        let own = epochs(&[(0, 0), (2, 10)]);
        assert_eq!(cut_to(&own, 30, 2, 25), 25);
        // The leader has more of it than was copied.
        assert_eq!(cut_to(&epochs(&[(0, 0), (2, 10), (3, 20)]), 30, 2, 28), 20);
        // The leader knows an epoch that was never seen here: back to where the one before it ended.
        assert_eq!(cut_to(&epochs(&[(0, 0), (3, 20)]), 30, 2, 28), 20);
        // Nothing in common.
        assert_eq!(cut_to(&epochs(&[(5, 10)]), 30, 2, 4), 4);
        assert_eq!(cut_to(&epochs(&[]), 30, 2, 4), 4);
        // Two failovers between (KIP-279).
        let own = epochs(&[(1, 0), (4, 20)]);
        assert_eq!(cut_to(&own, 25, 3, 18), 20);
        assert_eq!(cut_to(&epochs(&[(1, 0)]), 20, 1, 15), 15);
    }
}
