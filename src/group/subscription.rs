//! The consumer's own formats inside JoinGroup and SyncGroup (Kafka's ConsumerProtocol), as far as a
//! coordinator looks into them: which topics a member reads, which partitions it was given.

use bytes::Buf;

/// Topics in a subscription; `None` when the bytes are no consumer's.
pub(super) fn subscribed_topics(mut metadata: &[u8]) -> Option<Vec<String>> {
    version(&mut metadata)?;
    let count = length(&mut metadata)?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(string(&mut metadata)?);
    }
    Some(topics)
}

/// Topics and partitions in an assignment; `None` when the bytes are no consumer's.
pub fn assigned_partitions(mut assignment: &[u8]) -> Option<Vec<(String, Vec<i32>)>> {
    version(&mut assignment)?;
    let count = length(&mut assignment)?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let topic = string(&mut assignment)?;
        let mut partitions = Vec::new();
        for _ in 0..length(&mut assignment)? {
            partitions.push(assignment.try_get_i32().ok()?);
        }
        topics.push((topic, partitions));
    }
    Some(topics)
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
