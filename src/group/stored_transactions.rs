//! What transactions have for groups, as nodes of the coordination tree, and back.

use super::offsets::{Committed, Key, WriteNumber};
use super::pending::{Pending, PendingByProducer};
use super::persist::{offset_op, offset_record};
use super::producers::{LastMarker, ProducerChange};
use crate::coordinator::{PART_BYTES_MAX, Slot, Topics};
use crate::meta::records::{
    PendingOffsetRecord, PendingOffsetsRecord, RECORD_VERSION, SlotProducerRecord, decode, encode,
};
use crate::meta::{Node, Op, paths};

/// An offset of a transaction as it is stored, of a partition with that identity.
pub(super) fn pending_record(
    (topic, _): &Key,
    number: WriteNumber,
    committed: &Committed,
    identity: &str,
) -> PendingOffsetRecord {
    PendingOffsetRecord {
        topic: topic.clone(),
        partition: identity.to_owned(),
        offset: offset_record(Some(number), committed.offset()),
    }
}

/// The steps that store offsets of a producer's transaction, beside those that are stored already.
pub(super) fn pending_ops(
    group_id: &str,
    pending: &mut PendingByProducer,
    (producer_id, producer_epoch): (i64, i16),
    records: impl IntoIterator<Item = PendingOffsetRecord>,
) -> Vec<Op> {
    let mut parts: Vec<Vec<PendingOffsetRecord>> = Vec::new();
    let mut bytes = usize::MAX;
    for record in records {
        let more = encode(&record).len() + 1;
        bytes = bytes.saturating_add(more);
        if bytes > PART_BYTES_MAX {
            parts.push(Vec::new());
            bytes = more;
        }
        if let Some(part) = parts.last_mut() {
            part.push(record);
        }
    }
    let first = pending.take_parts(producer_id, parts.len() as u64);
    let op = |(offsets, n)| {
        let record = PendingOffsetsRecord {
            version: RECORD_VERSION,
            producer_epoch,
            offsets,
        };
        let path = paths::group_pending_part(group_id, producer_id, n);
        Op::put(path, encode(&record))
    };
    parts.into_iter().zip(first..).map(op).collect()
}

/// The steps that store a producer's pending offsets anew without some of them.
pub(super) fn pending_without_ops(
    group_id: &str,
    pending: &mut PendingByProducer,
    producer: (i64, i16),
    without: &[Key],
    topics: &dyn Topics,
) -> Vec<Op> {
    let mut left = Vec::new();
    for (key, offset) in pending.0.get(&producer.0).iter().flat_map(|of| &of.offsets) {
        let found = topics.partition(&key.0, key.1);
        if let Some(found) = found.filter(|_| !without.contains(key)) {
            let Pending { number, committed } = offset;
            left.push(pending_record(key, *number, committed, &found.identity));
        }
    }
    if left.is_empty() {
        return vec![Op::delete_tree(paths::group_pending(group_id, producer.0))];
    }
    // In this order: a write may be made in several steps.
    let before = pending.parts(producer.0);
    let mut ops = pending_ops(group_id, pending, producer, left);
    let part = |n| Op::delete_tree(paths::group_pending_part(group_id, producer.0, n));
    ops.extend((0..before).map(part));
    ops
}

/// The steps that make pending offsets a group's, and remove what was pending; and which those are: not those of topics that
/// are gone.
pub(super) fn decided_ops(
    group_id: &str,
    (producer_id, number): (i64, Option<WriteNumber>),
    mut offsets: Vec<(Key, Committed)>,
    topics: &dyn Topics,
) -> (Vec<Op>, Vec<(Key, Committed)>) {
    let mut ops = Vec::with_capacity(offsets.len() + 1);
    offsets.retain(|((topic, index), committed)| {
        let found = topics.partition(topic, *index);
        let offset = committed.offset();
        let found = found.filter(|found| offset.topic_id.is_none_or(|id| id == found.topic_id));
        ops.extend(
            found
                .as_ref()
                .map(|found| offset_op(group_id, topic, &found.identity, number, offset)),
        );
        found.is_some()
    });
    ops.push(Op::delete_tree(paths::group_pending(group_id, producer_id)));
    (ops, offsets)
}

/// The steps that store what a marker says of its producer.
pub(super) fn producer_ops(slot: Slot, change: &ProducerChange) -> Vec<Op> {
    let path = |producer_id| paths::slot_producer(slot.number(), producer_id);
    let put = |marker: LastMarker| {
        let record = SlotProducerRecord {
            version: RECORD_VERSION,
            epoch: marker.epoch,
            coordinator_epoch: marker.coordinator_epoch,
            at_ms: marker.at_ms,
        };
        Op::put(path(marker.producer_id), encode(&record))
    };
    let forget = |producer_id| Op::delete_tree(path(producer_id));
    let put = change.marker.map(put).into_iter();
    put.chain(change.forgotten.map(forget)).collect()
}

/// Reads the last markers of a slot's producers. A node that cannot be read is ignored: that producer is unknown.
pub(super) fn load_markers(nodes: &[(String, Node)]) -> impl Iterator<Item = LastMarker> {
    nodes.iter().filter_map(|(path, node)| {
        let producer_id = paths::producer_of(path)?;
        let record = decode::<SlotProducerRecord>(path, &node.data);
        let record = record
            .inspect_err(|error| tracing::error!(%error, "a producer's last marker is ignored"))
            .ok()?;
        Some(LastMarker {
            producer_id,
            epoch: record.epoch,
            coordinator_epoch: record.coordinator_epoch,
            at_ms: record.at_ms,
        })
    })
}
