//! The records of a produced batch, one after the other: as many as the header says, offsets in order from 0, timestamps in
//! range, keys where the topic is compacted (Kafka's LogValidator, KIP-467).

use metaq_protocol::batch::BatchHeader;

use super::invalid_batch::{
    InvalidBatch, RECORD_ERRORS_MAX, RecordError, RecordErrors, RecordFault,
};
use crate::log::LogConfig;

/// What a check needs of a record.
pub(super) struct RecordFacts {
    pub offset: i64,
    pub timestamp: i64,
    pub has_key: bool,
}

/// What record timestamps a topic takes, milliseconds; `None` where the broker's clock replaces them.
#[derive(Clone, Copy)]
struct TimestampRange {
    earliest: i64,
    latest: i64,
}

impl TimestampRange {
    fn of(config: &LogConfig, now_ms: i64) -> Option<Self> {
        (!config.log_append_time).then(|| Self {
            earliest: now_ms.saturating_sub(config.timestamp_before_max_ms),
            latest: now_ms.saturating_add(config.timestamp_after_max_ms),
        })
    }

    /// -1 stands for no timestamp.
    fn holds(self, timestamp: i64) -> bool {
        timestamp == -1 || (self.earliest..=self.latest).contains(&timestamp)
    }
}

/// What has been seen of a batch's records.
struct Seen {
    next_offset: i64,
    oldest: i64,
    newest: i64,
    all_have_keys: bool,
}

impl Seen {
    #[inline]
    fn record(&mut self, record: &RecordFacts) -> Result<(), InvalidBatch> {
        if record.offset != self.next_offset {
            return Err(InvalidBatch::Record(
                "the batch's records are not in offset order",
            ));
        }
        self.all_have_keys &= record.has_key;
        self.next_offset += 1;
        // -1 stands for none.
        if record.timestamp != -1 {
            self.oldest = self.oldest.min(record.timestamp);
            self.newest = self.newest.max(record.timestamp);
        }
        Ok(())
    }
}

/// Checks the records of a batch, which `walk` begins to read from the first; returns their largest timestamp, -1 where they
/// have none. Where a record is wrong they are read once more, to name each that is.
pub(super) fn check<I>(
    header: &BatchHeader,
    config: &LogConfig,
    now_ms: i64,
    walk: impl Fn() -> Result<I, InvalidBatch>,
) -> Result<i64, InvalidBatch>
where
    I: Iterator<Item = Result<RecordFacts, InvalidBatch>>,
{
    let mut seen = Seen {
        next_offset: 0,
        oldest: i64::MAX,
        newest: -1,
        all_have_keys: true,
    };
    for record in walk()? {
        seen.record(&record?)?;
    }
    if seen.next_offset != i64::from(header.record_count) {
        return Err(InvalidBatch::Record(
            "the batch does not hold as many records as it says",
        ));
    }
    let range = TimestampRange::of(config, now_ms);
    let in_range = seen.oldest == i64::MAX
        || range.is_none_or(|range| range.holds(seen.oldest) && range.holds(seen.newest));
    let is_stamped = config.log_append_time && header.is_log_append_time();
    match in_range && !is_stamped && (seen.all_have_keys || !config.compact) {
        true => Ok(seen.newest),
        false => {
            let wrong = wrong_ones(config, range, is_stamped, walk()?)?;
            Err(InvalidBatch::Refused(wrong))
        }
    }
}

#[cold]
fn wrong_ones(
    config: &LogConfig,
    range: Option<TimestampRange>,
    is_stamped: bool,
    records: impl Iterator<Item = Result<RecordFacts, InvalidBatch>>,
) -> Result<RecordErrors, InvalidBatch> {
    let mut errors = RecordErrors {
        named: Vec::new(),
        count: 0,
    };
    for (record, batch_index) in records.zip(0..) {
        let RecordFacts {
            timestamp, has_key, ..
        } = record?;
        let fault = match range {
            _ if config.compact && !has_key => RecordFault::NoKey,
            Some(range) if !range.holds(timestamp) => RecordFault::Timestamp {
                timestamp,
                earliest: range.earliest,
                latest: range.latest,
            },
            _ if is_stamped => RecordFault::TimestampType,
            _ => continue,
        };
        errors.count += 1;
        if errors.named.len() < RECORD_ERRORS_MAX {
            errors.named.push(RecordError { batch_index, fault });
        }
    }
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaq_protocol::batch::BatchBuilder;

    const NOW: i64 = 1_700_000_000_000;

    fn refused(
        config: &LogConfig,
        records: impl IntoIterator<Item = (bool, i64)>,
    ) -> Option<RecordErrors> {
        let facts: Vec<_> = records.into_iter().collect();
        let mut builder = BatchBuilder::new();
        for (has_key, timestamp) in &facts {
            builder = builder.push(has_key.then_some(b"k".as_slice()), None, &[], *timestamp);
        }
        let header = BatchHeader::parse(&builder.finish().unwrap()).unwrap();
        let walk = || {
            Ok(facts.iter().zip(0..).map(|((has_key, timestamp), offset)| {
                Ok(RecordFacts {
                    offset,
                    timestamp: *timestamp,
                    has_key: *has_key,
                })
            }))
        };
        match check(&header, config, NOW, walk) {
            Ok(_) => None,
            Err(InvalidBatch::Refused(errors)) => Some(errors),
            Err(error) => panic!("{error}"),
        }
    }

    fn compacted() -> LogConfig {
        LogConfig {
            compact: true,
            ..LogConfig::default()
        }
    }

    fn indexes(errors: &RecordErrors) -> Vec<i32> {
        errors.named.iter().map(|error| error.batch_index).collect()
    }

    #[test]
    fn each_keyless_record_is_named_on_a_compacted_topic_only() {
        let records = (0..8).map(|at| (at % 3 != 0, NOW));
        assert_eq!(refused(&LogConfig::default(), records.clone()), None);
        let errors = refused(&compacted(), records).unwrap();
        assert_eq!((indexes(&errors), errors.count), (vec![0, 3, 6], 3));
        let first = "Compacted topic cannot accept message without key in topic partition t-2";
        assert_eq!(errors.named[0].text("t", 2), first);
        let whole = "One or more records have been rejected due to 3 record errors in total, and only showing the first three errors at most: [";
        let whole = format!(
            "{whole}RecordError(batchIndex=0, message='{first}'), RecordError(batchIndex=3, message='{first}'), RecordError(batchIndex=6, message='{first}')]"
        );
        assert_eq!(errors.text("t", 2), whole);
    }

    #[test]
    fn each_timestamp_out_of_range_is_named_and_decides_the_error() {
        let late = NOW + 2 * 3_600_000;
        let errors = refused(
            &LogConfig::default(),
            [(true, NOW), (true, late), (true, -1), (false, NOW)],
        )
        .unwrap();
        assert_eq!(indexes(&errors), [1]);
        assert!(errors.is_of_timestamps());
        let latest = NOW + LogConfig::default().timestamp_after_max_ms;
        assert!(errors.named[0].text("t", 0).starts_with(&format!(
            "Timestamp {late} of message with offset 1 is out of range. The timestamp should be within ["
        )));
        assert!(
            errors.named[0]
                .text("t", 0)
                .ends_with(&format!(", {latest}]"))
        );
        // A record is named once, for its key first.
        let both = refused(&compacted(), [(false, late), (true, late)]).unwrap();
        assert_eq!(indexes(&both), [0, 1]);
        assert_eq!(both.named[0].fault, RecordFault::NoKey);
        assert!(both.is_of_timestamps());
    }

    #[test]
    fn timestamps_do_not_matter_where_the_broker_gives_them() {
        let config = LogConfig {
            log_append_time: true,
            ..LogConfig::default()
        };
        assert_eq!(refused(&config, [(true, 0), (true, NOW * 2)]), None);
    }

    #[test]
    fn only_the_broker_says_that_it_has_set_the_timestamps() {
        let config = LogConfig {
            log_append_time: true,
            ..LogConfig::default()
        };
        let mut bytes = BatchBuilder::new()
            .push(None, Some(b"v"), &[], NOW)
            .finish()
            .unwrap()
            .to_vec();
        let record = || {
            Ok([Ok(RecordFacts {
                offset: 0,
                timestamp: NOW,
                has_key: false,
            })])
        };
        for (attributes, is_refused) in [(0, false), (8, true)] {
            bytes[22] = attributes;
            let header = BatchHeader::parse(&bytes).unwrap();
            let checked = check(&header, &config, NOW, || {
                record().map(IntoIterator::into_iter)
            });
            assert_eq!(checked.is_err(), is_refused);
        }
    }

    #[test]
    fn no_more_records_are_named_than_the_limit() {
        let errors = refused(
            &compacted(),
            (0..RECORD_ERRORS_MAX + 5).map(|_| (false, NOW)),
        )
        .unwrap();
        assert_eq!(errors.named.len(), RECORD_ERRORS_MAX);
        assert_eq!(errors.count, RECORD_ERRORS_MAX + 5);
    }
}
