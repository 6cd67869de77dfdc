//! Why a produced batch is refused, by record where records are the reason (KIP-467). Tests: in `admission` and `record_check`.

use std::fmt;

use metaq_protocol::batch::BatchError;
use metaq_protocol::compression::CompressionError;
use metaq_protocol::record_stream::RecordStreamError;

/// Records of a batch that are named in its refusal, at most: packed well, a small batch holds millions. What is not named
/// is refused with the batch all the same.
pub const RECORD_ERRORS_MAX: usize = 10_000;
/// The message of a refused batch shows so many of them, as Kafka's.
const RECORD_ERRORS_SHOWN: usize = 3;

/// Why record data is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBatch {
    /// The bytes are no valid batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The records do not unpack.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// The records do not unpack, or not to records.
    #[error(transparent)]
    Records(#[from] RecordStreamError),
    /// Not exactly one batch.
    #[error("a produce request holds exactly one batch for a partition, not {0}")]
    NotOneBatch(usize),
    /// Larger than `max.message.bytes`.
    #[error("a batch of {bytes} bytes is larger than max.message.bytes={bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Records of it are not taken.
    #[error("{0}")]
    Refused(RecordErrors),
    /// A transactional batch, or an idempotent one without a sequence.
    #[error("{0}")]
    Record(&'static str),
}

/// A record that is the reason why its batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordError {
    /// Its position in the batch, from 0.
    pub batch_index: i32,
    /// What is wrong with it.
    pub fault: RecordFault,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFault {
    /// It has no key, and the topic is compacted.
    NoKey,
    /// Its timestamp is further from the broker's clock than `message.timestamp.before.max.ms` and
    /// `message.timestamp.after.max.ms` allow, milliseconds.
    Timestamp {
        /// The record's.
        timestamp: i64,
        /// The earliest that is taken.
        earliest: i64,
        /// The latest that is taken.
        latest: i64,
    },
    /// Its batch says that the broker has set its timestamp, which only the broker may say.
    TimestampType,
}

impl RecordError {
    /// Kafka's text for it, of a partition by its topic's name and its index.
    pub fn text(&self, topic: &str, partition: i32) -> String {
        match self.fault {
            RecordFault::NoKey => format!(
                "Compacted topic cannot accept message without key in topic partition {topic}-{partition}"
            ),
            RecordFault::Timestamp {
                timestamp,
                earliest,
                latest,
            } => format!(
                "Timestamp {timestamp} of message with offset {} is out of range. The timestamp should be within [{earliest}, {latest}]",
                self.batch_index
            ),
            RecordFault::TimestampType => {
                "Invalid timestamp type in message. Producer should not set timestamp type to LogAppendTime.".to_owned()
            }
        }
    }
}

/// All records that are the reason why a batch is refused, in order; never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordErrors {
    /// The first of them, [`RECORD_ERRORS_MAX`] at most.
    pub named: Vec<RecordError>,
    /// How many there are.
    pub count: usize,
}

impl RecordErrors {
    /// Whether one of them is about a timestamp: then the batch's error is INVALID_TIMESTAMP, otherwise INVALID_RECORD.
    pub fn is_of_timestamps(&self) -> bool {
        let mut faults = self.named.iter().map(|error| error.fault);
        faults.any(|fault| !matches!(fault, RecordFault::NoKey))
    }

    /// Kafka's text for the whole batch.
    pub fn text(&self, topic: &str, partition: i32) -> String {
        if self.is_of_timestamps() {
            return "One or more records have been rejected due to invalid timestamp".to_owned();
        }
        let shown = self.named.iter().take(RECORD_ERRORS_SHOWN);
        let shown: Vec<_> = shown
            .map(|error| {
                let (at, text) = (error.batch_index, error.text(topic, partition));
                format!("RecordError(batchIndex={at}, message='{text}')")
            })
            .collect();
        format!(
            "One or more records have been rejected due to {} record errors in total, and only showing the first three errors at most: [{}]",
            self.count,
            shown.join(", ")
        )
    }
}

impl fmt::Display for RecordErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.is_of_timestamps() {
            true => "timestamps out of range",
            false => "no key, which a compacted topic needs",
        };
        write!(f, "{} records with {what}", self.count)
    }
}
