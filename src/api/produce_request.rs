//! What is looked at in a Produce request as a whole, before its partitions.

use std::collections::{HashMap, HashSet};

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ProduceRequest, TransactionalId};

use super::authorize::{Operation, Resource, authorize};
use super::{Caller, Context};
use crate::transaction::Producer;

/// Why no batch of the request is taken, whatever its partition.
pub(super) fn refused_whole(
    cx: &Context,
    caller: &Caller,
    request: &ProduceRequest,
) -> Option<(ResponseError, String)> {
    if let Some(why) = unreadable(request) {
        return Some((ResponseError::CorruptMessage, why));
    }
    let may_write = |id: &TransactionalId| {
        let of_transaction = Resource::TransactionalId(id);
        authorize(cx, caller, Operation::Write, of_transaction).is_ok()
    };
    let is_refused =
        has_transactional(request) && !request.transactional_id.as_ref().is_some_and(may_write);
    is_refused.then(|| {
        let error = ResponseError::TransactionalIdAuthorizationFailed;
        (error, String::new())
    })
}

/// Whether a batch of the request is part of a transaction.
pub(super) fn has_transactional(request: &ProduceRequest) -> bool {
    let topics = request.topic_data.iter();
    let records = topics.flat_map(|topic| &topic.partition_data);
    let mut records = records.filter_map(|data| data.records.as_ref());
    records.any(|records| transaction_of(records).is_some())
}

/// Whose transaction a batch is part of, if it is of one.
pub(super) fn transaction_of(records: &[u8]) -> Option<Producer> {
    const MAGIC_AT: usize = 16;
    const ATTRIBUTES_AT: usize = 21;
    const PRODUCER_AT: usize = 43;
    const TRANSACTIONAL: i16 = 1 << 4;
    let attributes = i16::from_be_bytes(*records.get(ATTRIBUTES_AT..)?.first_chunk()?);
    if records.get(MAGIC_AT) != Some(&2) || attributes & TRANSACTIONAL == 0 {
        return None;
    }
    let producer = records.get(PRODUCER_AT..)?;
    let id = i64::from_be_bytes(*producer.first_chunk()?);
    let epoch = i16::from_be_bytes(*producer.get(8..)?.first_chunk()?);
    Some(Producer { id, epoch })
}

/// Why no batch of the request is taken: Kafka looks at the first one of each partition before it looks for the partitions
/// (RequestUtils.hasTransactionalRecords, ByteBufferLogInputStream.nextBatchSize).
fn unreadable(request: &ProduceRequest) -> Option<String> {
    let partitions = request
        .topic_data
        .iter()
        .flat_map(|topic| &topic.partition_data);
    let records = partitions.filter_map(|data| data.records.as_ref());
    records.filter_map(|records| reason(records)).next()
}

fn reason(records: &[u8]) -> Option<String> {
    let length = i32::from_be_bytes(*records.get(8..)?.first_chunk()?);
    if length < RECORD_OVERHEAD_BYTES {
        return Some(format!(
            "Record size {length} is less than the minimum record overhead ({RECORD_OVERHEAD_BYTES})"
        ));
    }
    let magic = *records.get(16)? as i8;
    let is_known = (0..=2).contains(&magic);
    (!is_known).then(|| format!("Invalid magic found in record: {magic}"))
}

/// The least that follows a batch's length (Kafka's LegacyRecord.RECORD_OVERHEAD_V0).
const RECORD_OVERHEAD_BYTES: i32 = 14;

/// The positions of topics and partitions that do not count: of a partition that is named several times the last one does, as by
/// Kafka.
pub(super) fn overridden(request: &ProduceRequest) -> HashSet<(usize, usize)> {
    let mut overridden = HashSet::new();
    let topics = &request.topic_data;
    if topics.len() == 1 && topics[0].partition_data.len() == 1 {
        return overridden;
    }
    let mut last = HashMap::new();
    for (place, topic) in topics.iter().enumerate() {
        for (at, data) in topic.partition_data.iter().enumerate() {
            let key = (&topic.name, topic.topic_id, data.index);
            overridden.extend(last.insert(key, (place, at)));
        }
    }
    overridden
}
