//! What a MetaQ left of its consumers' offsets, read and never written.
//!
//! MetaQ keeps `/consumers/<group>/offsets/<topic>/<brokerId>-<n>` below its own root. The text is
//! `<msgId>-<offset>`, where the id of the last message may be negative, or in older versions the bare offset.
//! Offsets are byte positions in MetaQ's own files, so they mean nothing here until somebody maps them.

use serde::Serialize;

use super::{MetaError, MetaStore, paths};

/// One offset of a MetaQ consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LegacyOffset {
    /// Consumer group.
    pub group: String,
    /// Topic.
    pub topic: String,
    /// `<brokerId>-<n>`.
    pub partition: String,
    /// Id of the last message that was consumed, where the version wrote it.
    pub message_id: Option<i64>,
    /// Byte position in the partition; none where the text is neither of the two formats.
    pub offset: Option<i64>,
    /// What the node holds.
    pub text: String,
}

/// Reads the text of an offset node: message id, where there is one, and byte position.
fn parse(text: &str) -> Option<(Option<i64>, i64)> {
    let text = text.trim();
    // The id may begin with a minus of its own.
    match text.get(1..).and_then(|rest| rest.find('-')) {
        Some(at) => {
            let (id, offset) = (&text[..at + 1], &text[at + 2..]);
            Some((Some(id.parse().ok()?), offset.parse().ok()?))
        }
        None => Some((None, text.parse().ok()?)),
    }
}

/// All offsets of a MetaQ's consumers below the store's root. Nodes that metaq wrote are left out.
pub async fn read_legacy_offsets(store: &MetaStore) -> Result<Vec<LegacyOffset>, MetaError> {
    let mut found = Vec::new();
    for (path, node) in store.subtree(paths::GROUPS).await? {
        let below = path.strip_prefix(paths::GROUPS).unwrap_or_default();
        let elements: Vec<&str> = below.split('/').skip(1).collect();
        let [group, "offsets", topic, partition] = elements[..] else {
            continue;
        };
        if node.data.starts_with(b"{") {
            continue;
        }
        let text = String::from_utf8_lossy(&node.data).into_owned();
        let parsed = parse(&text);
        found.push(LegacyOffset {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partition: partition.to_owned(),
            message_id: parsed.and_then(|(id, _)| id),
            offset: parsed.map(|(_, offset)| offset),
            text,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read_and_ids_may_be_negative() {
        assert_eq!(parse("1234-5678"), Some((Some(1234), 5678)));
        assert_eq!(parse("-7204-99"), Some((Some(-7204), 99)));
        assert_eq!(parse("5678"), Some((None, 5678)));
        assert_eq!(parse("0\n"), Some((None, 0)));
        assert_eq!(parse("-1-0"), Some((Some(-1), 0)));
        for wrong in ["", "-", "x-1", "1-", "1-2-3", "offset"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_metaq_itself_wrote_is_no_legacy() {
        let dir = tempfile::tempdir().unwrap();
        let store = MetaStore::open_embedded(&dir.path().join("meta")).unwrap();
        let put = |path: &str, data: &str| super::super::Op::put(path, data.to_owned().into());
        let ops = vec![
            put("/consumers/old/offsets/t/0-1", "-5-77"),
            put("/consumers/old/offsets/t/0-2", "?"),
            put("/consumers/new/offsets/t/0-1", "{\"offset\":1}"),
            put("/consumers/old/owners/t/0-1", "member"),
        ];
        store.multi(ops).await.unwrap();
        let found = read_legacy_offsets(&store).await.unwrap();
        let short: Vec<_> = found
            .iter()
            .map(|one| (one.partition.as_str(), one.message_id, one.offset))
            .collect();
        assert_eq!(short, [("0-1", Some(-5), Some(77)), ("0-2", None, None)]);
    }
}
