//! A transactional id as a node of the coordination tree, and back.
//!
//! Tests: transaction/transactions/model.rs, transaction/transactions/tests.rs.

use super::messages::Decision;
use super::partitions::Partitions;
use super::state::{Outcome, Producer, State, TransactionVersion};
use super::transaction::{Seldom, Transaction};
use crate::coordinator::{FoundRecord, InternalTopic, Parts, StoredId, Topics};
use crate::meta::records::{
    DecisionRecord, RECORD_VERSION, TransactionRecord, TransactionTopicRecord, decode, encode,
};
use crate::meta::{MetaError, Op, paths};

/// The steps that store a transactional id, and the number of the write.
pub(super) fn ops(id: &str, transaction: &Transaction, parts: &mut Parts) -> (Vec<Op>, u64) {
    let path = paths::transaction(id);
    if transaction.state == State::Dead {
        return (vec![Op::delete_tree(path)], 0);
    }
    let topics = topic_records(&transaction.partitions);
    let node = |parts: Option<_>| {
        let topics = match parts {
            Some(_) => Vec::new(),
            None => topics.clone(),
        };
        encode(&TransactionRecord {
            topics,
            parts,
            ..record(transaction)
        })
    };
    parts.write(&path, node, || encode(&topics))
}

fn record(transaction: &Transaction) -> TransactionRecord {
    let seldom = transaction.seldom();
    let decision = seldom.decision.map(|decision| DecisionRecord {
        commit: decision.outcome == Outcome::Commit,
        producer_id: decision.producer.id,
        epoch: decision.producer.epoch,
        at_ms: decision.at_ms,
    });
    TransactionRecord {
        version: RECORD_VERSION,
        state: transaction.state.name().to_owned(),
        producer_id: transaction.producer.id,
        epoch: transaction.producer.epoch,
        last_epoch: transaction.last_epoch,
        previous_id: Some(seldom.previous_id).filter(|id| *id >= 0),
        next: Some((seldom.next.id, seldom.next.epoch)).filter(|(id, _)| *id >= 0),
        timeout_ms: transaction.timeout_ms,
        client_version: transaction.version as i8,
        start_ms: Some(transaction.start_ms).filter(|ms| *ms >= 0),
        updated_ms: transaction.updated_ms,
        topics: Vec::new(),
        parts: None,
        decision,
    }
}

fn topic_records(partitions: &Partitions) -> Vec<TransactionTopicRecord> {
    let topics = partitions.topics();
    let record = |(topic, found): (&std::sync::Arc<str>, &super::partitions::TopicPartitions)| {
        TransactionTopicRecord {
            topic: topic.to_string(),
            topic_id: Some(found.topic_id).filter(|id| !id.is_nil()),
            partitions: found.partitions.iter().copied().collect(),
        }
    };
    topics.map(record).collect()
}

/// A transactional id that was found in the tree.
pub(super) struct LoadedTransaction {
    pub(super) transaction: Transaction,
    pub(super) parts: Parts,
    /// Topics that are not known.
    pub(super) unresolved: usize,
}

/// Reads a transactional id from its nodes, without partitions of topics that are gone.
pub(super) fn load(
    stored: &StoredId,
    topics: &dyn Topics,
) -> Result<Option<LoadedTransaction>, MetaError> {
    let path = paths::transaction(&stored.id);
    let found = FoundRecord::among(&path, stored);
    let Some(node) = found.node else {
        return Ok(None);
    };
    let mut record: TransactionRecord = decode(&path, node)?;
    if let Some(parts) = record.parts.take() {
        record.topics = decode(&path, &found.bulk(&path, &parts)?)?;
    }
    let mut unresolved = 0;
    let mut partitions = Partitions::NONE;
    for stored in std::mem::take(&mut record.topics) {
        let is_there = match stored.topic_id {
            None => InternalTopic::named(&stored.topic).is_some(),
            Some(id) => {
                // One that was made again may be known here later; markers go by the name then.
                let current = topics.id_of(&stored.topic);
                unresolved += usize::from(current != Some(id));
                current.is_some()
            }
        };
        for index in stored.partitions.into_iter().filter(|_| is_there) {
            partitions.insert(&stored.topic, stored.topic_id.unwrap_or_default(), index);
        }
    }
    let transaction = transaction_from(record, partitions, &path)?;
    Ok(Some(LoadedTransaction {
        transaction,
        parts: found.parts(),
        unresolved,
    }))
}

fn version_of(number: i8) -> Option<TransactionVersion> {
    use TransactionVersion::{V0, V1, V2};
    [V0, V1, V2]
        .into_iter()
        .find(|version| *version as i8 == number)
}

fn transaction_from(
    record: TransactionRecord,
    partitions: Partitions,
    path: &str,
) -> Result<Transaction, MetaError> {
    let malformed = |what: String| MetaError::Malformed {
        path: path.to_owned(),
        what,
    };
    let state = State::named(&record.state);
    let state = state.ok_or_else(|| malformed(format!("unknown state {:?}", record.state)))?;
    let version = version_of(record.client_version);
    let version = version.ok_or_else(|| malformed("unknown client version".to_owned()))?;
    let decision = record.decision.map(|decision| Decision {
        outcome: match decision.commit {
            true => Outcome::Commit,
            false => Outcome::Abort,
        },
        producer: Producer {
            id: decision.producer_id,
            epoch: decision.epoch,
        },
        at_ms: decision.at_ms,
    });
    let next = record
        .next
        .map_or(Producer::NONE, |(id, epoch)| Producer { id, epoch });
    let seldom = Seldom {
        previous_id: record.previous_id.unwrap_or(-1),
        next,
        decision,
    };
    Ok(Transaction {
        producer: Producer {
            id: record.producer_id,
            epoch: record.epoch,
        },
        start_ms: record.start_ms.unwrap_or(-1),
        updated_ms: record.updated_ms,
        partitions,
        timeout_ms: record.timeout_ms,
        last_epoch: record.last_epoch,
        state,
        version,
        seldom: seldom.boxed(),
    })
}
