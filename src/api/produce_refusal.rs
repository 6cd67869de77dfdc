//! Why records of a partition are not appended, as the producer hears it.

use std::fmt::Display;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse,
};

use super::errors::WireError;
use super::shared::{message, text};
use crate::partition::{Partition, RecordErrors};

/// See the module's documentation.
pub(super) struct Refusal {
    pub(super) error: ResponseError,
    pub(super) text: String,
    /// The log that refuses, where it is one.
    pub(super) partition: Option<Arc<Partition>>,
    pub(super) records: Option<RecordErrors>,
}

impl Refusal {
    pub(super) fn new(error: ResponseError, text: String) -> Self {
        Self {
            error,
            text,
            partition: None,
            records: None,
        }
    }

    pub(super) fn of(partition: &Arc<Partition>, error: &(impl WireError + Display)) -> Self {
        Self {
            partition: Some(partition.clone()),
            ..Self::new(error.wire(), error.to_string())
        }
    }

    /// Whether the client reads why: as Kafka's LogAppendResult, where the reason is in the records; and what Kafka does not
    /// know.
    fn says_why(&self) -> bool {
        let is_own = matches!(
            self.error,
            ResponseError::PolicyViolation | ResponseError::RequestTimedOut
        );
        let is_before_append = self.partition.is_none()
            && matches!(
                self.error,
                ResponseError::CorruptMessage
                    | ResponseError::InvalidProducerIdMapping
                    | ResponseError::InvalidTxnState
                    | ResponseError::NotEnoughReplicas
            );
        !self.text.is_empty() && (self.records.is_some() || is_own || is_before_append)
    }

    /// As Kafka's ReplicaManager.appendToLocalLog: the log's start, unless the reason is not the log's.
    fn log_start(&self) -> i64 {
        match (&self.partition, self.error) {
            (
                _,
                ResponseError::NotLeaderOrFollower
                | ResponseError::MessageTooLarge
                | ResponseError::RecordListTooLarge
                | ResponseError::CorruptMessage
                | ResponseError::KafkaStorageError,
            )
            | (None, _) => -1,
            (Some(partition), _) => partition.log().ends().log_start,
        }
    }
}

/// The answer.
pub(super) fn refused(index: i32, refusal: &Refusal) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(refusal.error.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(refusal.log_start())
        .with_record_errors(record_errors(refusal))
        .with_error_message(refusal.says_why().then(|| text(&*refusal.text)))
}

fn record_errors(refusal: &Refusal) -> Vec<BatchIndexAndErrorMessage> {
    let (Some(partition), Some(records)) = (&refusal.partition, &refusal.records) else {
        return Vec::new();
    };
    let named = records.named.iter().map(|record| {
        let text = record.text(partition.topic(), partition.index());
        BatchIndexAndErrorMessage::default()
            .with_batch_index(record.batch_index)
            .with_batch_index_error_message(message(&text))
    });
    named.collect()
}
