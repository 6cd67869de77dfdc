//! The consumer's own formats inside JoinGroup and SyncGroup (Kafka's ConsumerProtocol), as far as a
//! coordinator looks into them: which topics a member reads, which partitions it was given.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::coordinator::Topics;

/// What a member says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    /// Topics that it reads.
    pub(super) topics: Vec<String>,
    /// Partitions that it has, from version 1 on.
    pub(super) owned: Vec<(String, Vec<i32>)>,
    /// Where it is, from version 3 on.
    pub(super) rack: Option<String>,
}

/// What a member was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) topics: Vec<(String, Vec<i32>)>,
    /// Whether its assignor says more, which nobody else understands.
    pub(super) has_user_data: bool,
}

/// Topics in a subscription; `None` when the bytes are no consumer's.
pub(super) fn subscribed_topics(mut metadata: &[u8]) -> Option<Vec<String>> {
    version(&mut metadata)?;
    topic_names(&mut metadata)
}

/// A whole subscription; `None` when the bytes are no consumer's.
pub(super) fn subscription(mut metadata: &[u8]) -> Option<Subscription> {
    let version = version(&mut metadata)?;
    let topics = topic_names(&mut metadata)?;
    nullable_bytes(&mut metadata)?;
    let mut read = Subscription {
        topics,
        ..Subscription::default()
    };
    if version >= 1 {
        read.owned = topic_partitions(&mut metadata)?;
    }
    if version >= 2 {
        metadata.try_get_i32().ok()?;
    }
    if version >= 3 {
        read.rack = nullable_string(&mut metadata)?;
    }
    Some(read)
}

/// A whole assignment; `None` when the bytes are no consumer's.
pub(super) fn assignment(mut bytes: &[u8]) -> Option<Assignment> {
    version(&mut bytes)?;
    let topics = topic_partitions(&mut bytes)?;
    let has_user_data = nullable_bytes(&mut bytes)?.is_some_and(|data| !data.is_empty());
    Some(Assignment {
        topics,
        has_user_data,
    })
}

/// An assignment of these partitions.
pub(super) fn assignment_bytes(
    version: i16,
    partitions: &BTreeMap<Uuid, BTreeSet<i32>>,
    topics: &dyn Topics,
) -> Bytes {
    let named = partitions
        .iter()
        .filter_map(|(id, partitions)| Some((topics.name_of(*id)?, partitions)));
    let named: Vec<(String, &BTreeSet<i32>)> = named.collect();
    let mut out = BytesMut::new();
    out.put_i16(version);
    out.put_i32(named.len() as i32);
    for (name, partitions) in named {
        out.put_i16(name.len() as i16);
        out.put_slice(name.as_bytes());
        out.put_i32(partitions.len() as i32);
        partitions.iter().for_each(|n| out.put_i32(*n));
    }
    // No user data.
    out.put_i32(-1);
    out.freeze()
}

/// Topics and partitions in an assignment; `None` when the bytes are no consumer's.
pub fn assigned_partitions(mut assignment: &[u8]) -> Option<Vec<(String, Vec<i32>)>> {
    version(&mut assignment)?;
    topic_partitions(&mut assignment)
}

fn topic_names(bytes: &mut &[u8]) -> Option<Vec<String>> {
    let count = length(bytes)?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(string(bytes)?);
    }
    Some(topics)
}

fn topic_partitions(bytes: &mut &[u8]) -> Option<Vec<(String, Vec<i32>)>> {
    let count = length(bytes)?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let topic = string(bytes)?;
        let mut partitions = Vec::new();
        for _ in 0..length(bytes)? {
            partitions.push(bytes.try_get_i32().ok()?);
        }
        topics.push((topic, partitions));
    }
    Some(topics)
}

/// Bytes with a length, -1 for none.
fn nullable_bytes<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = bytes.try_get_i32().ok()?;
    let Ok(length) = usize::try_from(length) else {
        return Some(None);
    };
    let (found, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(Some(found))
}

/// A string with a length, -1 for none.
fn nullable_string(bytes: &mut &[u8]) -> Option<Option<String>> {
    let mut ahead = *bytes;
    if ahead.try_get_i16().ok()? < 0 {
        *bytes = ahead;
        return Some(None);
    }
    string(bytes).map(Some)
}

fn version(bytes: &mut &[u8]) -> Option<i16> {
    bytes.try_get_i16().ok().filter(|version| *version >= 0)
}

/// A count that the remaining bytes can hold.
fn length(bytes: &mut &[u8]) -> Option<usize> {
    let length = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
    (length <= bytes.len()).then_some(length)
}

fn string(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumers_formats_are_read_and_others_are_not() {
        let subscription = [
            0, 1, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 255, 255, 255, 255,
        ];
        assert_eq!(
            subscribed_topics(&subscription),
            Some(vec!["a".to_owned(), "bc".to_owned()])
        );
        let assignment = [
            0, 1, 0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5,
        ];
        assert_eq!(
            assigned_partitions(&assignment),
            Some(vec![("a".to_owned(), vec![0, 5])])
        );
        assert_eq!(assigned_partitions(b""), None);
        assert_eq!(subscribed_topics(&[0, 1, 127, 255, 255, 255]), None);
    }
}
