//! What Kafka would keep of groups in `__consumer_offsets`, for tools that read it (`offsets.topic.mirror`): the records of a
//! slot's groups, and the queue in which they wait to be appended.
//!
//! The mirror follows what is stored, and never holds anything up. Where more would wait than [`QUEUED_BYTES_MAX`], what there is
//! of the slot is dropped, and the slot is lost until its whole state is queued again.
//!
//! Keys and values are those of Kafka's GroupCoordinatorRecordHelpers: OffsetCommitKey 1 and GroupMetadataKey 2, values in
//! version 3, which every reader of the topic knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::classic::ClassicGroup;
use super::group::Group;
use super::messages::CommittedOffset;
use super::offsets::Key;
use super::solo::Solo;
use crate::coordinator::Slot;

/// Bytes of changes that wait to be appended, of all slots together.
const QUEUED_BYTES_MAX: usize = 8 << 20;
/// The largest value, bytes: what Kafka's own topic takes in one message.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// What a record takes in the queue besides its bytes, roughly.
const RECORD_OVERHEAD_BYTES: usize = 100;
const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
const VALUE_VERSION: i16 = 3;

/// A record of the internal topic; without a value, what it names is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorRecord {
    /// What it is about.
    pub key: Bytes,
    /// `None` for a tombstone.
    pub value: Option<Bytes>,
}

impl MirrorRecord {
    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// What became known of the groups of a slot.
#[derive(Debug, PartialEq, Eq)]
pub struct MirrorUpdate {
    /// The slot.
    pub slot: Slot,
    /// Counts its owners.
    pub epoch: i32,
    /// Whether the records are all that is known of the slot, not changes.
    pub is_whole: bool,
    /// In the order in which they are appended.
    pub records: Vec<MirrorRecord>,
}

impl MirrorUpdate {
    fn bytes(&self) -> usize {
        let of = |record: &MirrorRecord| RECORD_OVERHEAD_BYTES + record.bytes();
        self.records.iter().map(of).sum()
    }
}

#[derive(Default)]
struct Queue {
    updates: VecDeque<MirrorUpdate>,
    bytes: usize,
    lost: BTreeSet<Slot>,
}

impl Queue {
    fn drop_all_of(&mut self, slot: Slot) {
        let bytes = &mut self.bytes;
        self.updates.retain(|update| {
            let is_other = update.slot != slot;
            *bytes -= if is_other { 0 } else { update.bytes() };
            is_other
        });
    }

    fn lose(&mut self, slot: Slot) {
        self.drop_all_of(slot);
        if self.lost.insert(slot) {
            tracing::debug!(%slot, "the mirror of a slot waits for its whole state");
        }
    }
}

/// The queue between the groups and the mirror.
#[derive(Default)]
pub struct MirrorFeed {
    queue: Mutex<Queue>,
    filled: Notify,
}

impl MirrorFeed {
    fn push(&self, update: MirrorUpdate) {
        let mut queue = self.queue.lock();
        let bytes = update.bytes();
        if !update.is_whole && queue.lost.contains(&update.slot) {
            return;
        }
        if update.is_whole {
            queue.drop_all_of(update.slot);
        }
        // A whole state may be larger, but then it waits alone.
        let is_alone = update.is_whole && queue.updates.is_empty();
        if queue.bytes + bytes > QUEUED_BYTES_MAX && !is_alone {
            return queue.lose(update.slot);
        }
        if update.is_whole {
            queue.lost.remove(&update.slot);
        }
        queue.bytes += bytes;
        queue.updates.push_back(update);
        drop(queue);
        self.filled.notify_one();
    }

    /// The next update; waits for one. One caller.
    pub async fn next(&self) -> MirrorUpdate {
        loop {
            {
                let mut queue = self.queue.lock();
                if let Some(update) = queue.updates.pop_front() {
                    queue.bytes -= update.bytes();
                    return update;
                }
            }
            self.filled.notified().await;
        }
    }

    /// What was queued of a slot could not be appended: its changes are dropped until its whole state comes.
    pub fn lose(&self, slot: Slot) {
        self.queue.lock().lose(slot);
    }

    /// Slots whose whole state is needed; none while others wait.
    pub fn lost(&self) -> Vec<Slot> {
        let queue = self.queue.lock();
        match queue.updates.is_empty() {
            true => queue.lost.iter().copied().collect(),
            false => Vec::new(),
        }
    }

    /// The slot is another broker's.
    pub fn forget(&self, slot: Slot) {
        self.queue.lock().lost.remove(&slot);
    }
}

/// A slot's side of the feed; without a mirror it does nothing.
pub(super) struct SlotMirror {
    pub(super) feed: Option<Arc<MirrorFeed>>,
    pub(super) slot: Slot,
    pub(super) epoch: i32,
}

impl SlotMirror {
    /// Keys of which [`Self::offsets`] is to tell after a change.
    pub(super) fn keys<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<Key> {
        match self.feed {
            Some(_) => keys.cloned().collect(),
            None => Vec::new(),
        }
    }

    /// Offsets of a group changed: tells what is known of them now.
    pub(super) fn offsets(&self, group_id: &str, group: Option<&Group>, keys: &[Key]) {
        let record = |key: &Key| {
            let known = group.and_then(|group| group.offsets.get(&key.0, key.1));
            offset_record(group_id, key, known)
        };
        if is_mirrored(group_id) {
            self.tell(false, || keys.iter().map(record).collect());
        }
    }

    /// A classic group changed; the members of other groups are not mirrored.
    pub(super) fn group(&self, group_id: &str, group: &Group) {
        self.tell(false, || {
            let classic = group.classic().filter(|_| is_mirrored(group_id));
            classic
                .map(|classic| group_record(group_id, Some(classic)))
                .into_iter()
                .collect()
        });
    }

    /// A group is removed with all that it had.
    pub(super) fn removed(&self, group_id: &str, group: &Group) {
        if !is_mirrored(group_id) {
            return;
        }
        self.tell(false, || {
            let gone = group.offsets.iter();
            let gone = gone.map(|(key, _)| offset_record(group_id, key, None));
            gone.chain([group_record(group_id, None)]).collect()
        });
    }

    /// All groups of the slot.
    pub(super) fn whole(&self, groups: &BTreeMap<String, Group>) {
        self.tell(true, || {
            let mut records = Vec::new();
            let all = groups.iter();
            for (group_id, group) in all.filter(|(id, _)| is_mirrored(id)) {
                let classic = group.classic();
                if let Some(classic) = classic.filter(|classic| classic.protocol_type.is_some()) {
                    records.push(group_record(group_id, Some(classic)));
                }
                let offsets = group.offsets.iter();
                records
                    .extend(offsets.map(|(key, known)| offset_record(group_id, key, Some(known))));
            }
            records
        });
    }

    /// The offsets that a group has in a topic, of which [`Self::offsets`] is to tell when they are gone.
    pub(super) fn offsets_in(&self, group: &Group, topic: &str, id: Uuid) -> Vec<Key> {
        if self.feed.is_none() {
            return Vec::new();
        }
        let is_of_it = |(name, offset): (&str, &CommittedOffset)| {
            name == topic && offset.topic_id.is_none_or(|known| known == id)
        };
        let offsets = group.offsets.iter();
        let offsets = offsets.filter(|((name, _), offset)| is_of_it((name, offset)));
        offsets.map(|(key, _)| key.clone()).collect()
    }

    fn tell(&self, is_whole: bool, records: impl FnOnce() -> Vec<MirrorRecord>) {
        let Some(feed) = &self.feed else {
            return;
        };
        let records = records();
        if is_whole || !records.is_empty() {
            feed.push(MirrorUpdate {
                slot: self.slot,
                epoch: self.epoch,
                is_whole,
                records,
            });
        }
    }
}

/// Kafka has no words for members of broadcast groups.
fn is_mirrored(group_id: &str) -> bool {
    Solo::of(group_id).is_none()
}

/// OffsetCommitKey and OffsetCommitValue.
fn offset_record(group_id: &str, key: &Key, offset: Option<&CommittedOffset>) -> MirrorRecord {
    let mut out = BytesMut::new();
    out.put_i16(OFFSET_KEY_VERSION);
    put_string(&mut out, group_id);
    put_string(&mut out, &key.0);
    out.put_i32(key.1);
    let value = |offset: &CommittedOffset| {
        let mut out = BytesMut::new();
        out.put_i16(VALUE_VERSION);
        out.put_i64(offset.offset);
        out.put_i32(offset.leader_epoch);
        put_string(&mut out, &offset.metadata);
        out.put_i64(offset.commit_ms);
        out.freeze()
    };
    MirrorRecord {
        key: out.freeze(),
        value: offset.map(value),
    }
}

/// GroupMetadataKey and GroupMetadataValue.
fn group_record(group_id: &str, group: Option<&ClassicGroup>) -> MirrorRecord {
    let mut out = BytesMut::new();
    out.put_i16(GROUP_KEY_VERSION);
    put_string(&mut out, group_id);
    MirrorRecord {
        key: out.freeze(),
        value: group.map(|group| {
            let whole = group_value(group, true);
            match whole.len() > VALUE_BYTES_MAX {
                true => group_value(group, false),
                false => whole,
            }
        }),
    }
}

/// Of a group that is too large, everything but its members.
fn group_value(group: &ClassicGroup, with_members: bool) -> Bytes {
    let members = group.members.values();
    let members: Vec<_> = members.filter(|_| with_members).collect();
    let mut out = BytesMut::new();
    out.put_i16(VALUE_VERSION);
    put_string(&mut out, group.protocol_type.as_deref().unwrap_or_default());
    out.put_i32(group.generation);
    put_nullable(&mut out, group.protocol.as_deref());
    put_nullable(&mut out, group.leader.as_deref());
    out.put_i64(group.changed_ms);
    out.put_i32(members.len() as i32);
    for member in members {
        put_string(&mut out, &member.id);
        put_nullable(&mut out, member.instance_id.as_deref());
        put_string(&mut out, &member.client_id);
        put_string(&mut out, &member.client_host);
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        let protocol = group.protocol.as_deref().unwrap_or_default();
        put_bytes(&mut out, &member.metadata(protocol));
        put_bytes(&mut out, &member.assignment);
    }
    out.freeze()
}

/// What is longer than this version can say is cut off: nothing reads a name of 32 KiB.
fn put_string(out: &mut BytesMut, text: &str) {
    let longest = text.len().min(i16::MAX as usize);
    let end = (0..=longest).rev().find(|at| text.is_char_boundary(*at));
    let text = &text[..end.unwrap_or(0)];
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

fn put_nullable(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_i16(-1),
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::member::Member;
    use crate::group::messages::JoinRequest;

    fn update(is_whole: bool, bytes: usize) -> MirrorUpdate {
        let record = MirrorRecord {
            key: Bytes::new(),
            value: Some(Bytes::from(vec![0; bytes])),
        };
        MirrorUpdate {
            slot: Slot::of("g"),
            epoch: 1,
            is_whole,
            records: vec![record],
        }
    }

    #[test]
    fn an_offset_is_written_as_kafka_writes_it() {
        let offset = CommittedOffset {
            offset: 42,
            leader_epoch: 3,
            metadata: "m".to_owned(),
            commit_ms: 9,
            expire_ms: None,
            topic_id: None,
        };
        let record = offset_record("g", &("t".to_owned(), 7), Some(&offset));
        assert_eq!(&record.key[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x07");
        let value = b"\0\x03\0\0\0\0\0\0\0\x2a\0\0\0\x03\0\x01m\0\0\0\0\0\0\0\x09";
        assert_eq!(record.value.as_deref(), Some(&value[..]));
        assert_eq!(offset_record("g", &("t".to_owned(), 7), None).value, None);
        let group = group_record("g", Some(&ClassicGroup::new(9)));
        assert_eq!(&group.key[..], b"\0\x02\0\x01g");
        let value = b"\0\x03\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\x09\0\0\0\0";
        assert_eq!(group.value.as_deref(), Some(&value[..]));
    }

    #[test]
    fn a_group_that_is_too_large_for_a_record_is_told_without_its_members() {
        let mut group = ClassicGroup::new(9);
        group.protocol = Some("range".to_owned());
        let value = |group: &ClassicGroup| group_record("g", Some(group)).value.unwrap();
        let empty = value(&group);
        let mut join = |id: &str, bytes: usize| {
            let request = JoinRequest {
                member_id: id.to_owned(),
                instance_id: None,
                client_id: "c".to_owned(),
                client_host: "/h".to_owned(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 60_000,
                protocol_type: "consumer".to_owned(),
                protocols: vec![("range".to_owned(), Bytes::from(vec![0; bytes]))],
                member_id_required: false,
                can_skip_assignment: false,
                reason: String::new(),
                connection: None,
                reserved: None,
            };
            group.restore(Member::new(id.to_owned(), 0, &request), 0);
            value(&group)
        };
        assert!(join("a", VALUE_BYTES_MAX / 2).len() > VALUE_BYTES_MAX / 2);
        assert_eq!(join("b", VALUE_BYTES_MAX / 2), empty);
    }

    #[test]
    fn a_name_that_is_too_long_is_cut_between_characters() {
        let mut out = BytesMut::new();
        put_string(&mut out, &"ü".repeat(20_000));
        assert_eq!((out[0], out[1]), (0x7f, 0xfe));
        assert_eq!(out.len(), 2 + 32_766);
    }

    #[tokio::test]
    async fn a_slot_whose_changes_were_dropped_waits_for_its_whole_state() {
        let feed = MirrorFeed::default();
        feed.push(update(false, QUEUED_BYTES_MAX / 2));
        feed.push(update(false, QUEUED_BYTES_MAX / 2));
        assert_eq!(feed.lost(), [Slot::of("g")]);
        feed.push(update(false, 1));
        feed.push(update(true, 2));
        feed.push(update(false, 3));
        assert!(feed.lost().is_empty());
        assert_eq!(feed.next().await, update(true, 2));
        assert_eq!(feed.next().await, update(false, 3));
    }

    #[tokio::test]
    async fn a_whole_state_takes_the_place_of_what_waits_and_may_be_large_where_nothing_else_does()
    {
        let feed = MirrorFeed::default();
        feed.push(update(true, 1));
        feed.push(update(false, 2));
        feed.push(update(true, QUEUED_BYTES_MAX));
        assert_eq!(feed.next().await, update(true, QUEUED_BYTES_MAX));
        let mut other = update(false, 1);
        other.slot = Slot::of("another");
        assert_ne!(other.slot, Slot::of("g"));
        feed.push(other);
        feed.push(update(true, QUEUED_BYTES_MAX));
        assert!(feed.lost().is_empty(), "others wait");
        assert_eq!(feed.next().await.records.len(), 1);
        assert_eq!(feed.lost(), [Slot::of("g")]);
        assert_eq!(feed.queue.lock().bytes, 0);
    }
}
