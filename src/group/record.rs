//! A group's record in the tree, its members in parts where they are many.

use crate::coordinator::{FoundRecord, Parts, StoredId};
use crate::meta::records::{GroupRecord, decode, encode};
use crate::meta::{MetaError, Op, paths};

/// The steps that store a record, and the number of this write.
pub(super) fn write(parts: &mut Parts, group_id: &str, record: &GroupRecord) -> (Vec<Op>, u64) {
    let node = |parts| match parts {
        None => encode(record),
        parts => encode(&GroupRecord {
            version: record.version,
            group_type: record.group_type.clone(),
            protocol_type: record.protocol_type.clone(),
            protocol: record.protocol.clone(),
            leader: record.leader.clone(),
            generation: record.generation,
            changed_ms: record.changed_ms,
            members: Vec::new(),
            parts,
        }),
    };
    parts.write(&paths::group(group_id), node, || encode(&record.members))
}

/// What kind of group the record is of; `None` where there is none that can be read.
pub(super) fn type_of(stored: &StoredId) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        group_type: String,
    }
    let path = paths::group(&stored.id);
    let found = FoundRecord::among(&path, stored).node?;
    let typed: Typed = serde_json::from_slice(found).ok()?;
    Some(typed.group_type)
}

/// Reads a group's record; `None` where it has none.
pub(super) fn read(stored: &StoredId) -> (Result<Option<GroupRecord>, MetaError>, Parts) {
    let path = paths::group(&stored.id);
    let found = FoundRecord::among(&path, stored);
    let record = found.node.map(|data| {
        let mut record: GroupRecord = decode(&path, data)?;
        if let Some(parts) = record.parts.take() {
            record.members = decode(&path, &found.bulk(&path, &parts)?)?;
        }
        Ok(record)
    });
    (record.transpose(), found.parts())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::*;
    use crate::coordinator::PART_BYTES_MAX;
    use crate::meta::Node;
    use crate::meta::records::{MemberRecord, RECORD_VERSION};

    fn record(members: usize) -> GroupRecord {
        let member = |n: usize| MemberRecord {
            member_id: format!("m{n}"),
            instance_id: None,
            client_id: "c".to_owned(),
            client_host: "/h".to_owned(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocols: Vec::new(),
            assignment: "00".repeat(900_000),
        };
        GroupRecord {
            version: RECORD_VERSION,
            group_type: "classic".to_owned(),
            generation: 1,
            protocol_type: None,
            protocol: None,
            leader: None,
            changed_ms: 0,
            members: (0..members).map(member).collect(),
            parts: None,
        }
    }

    /// What a store has after the first of these steps.
    #[derive(Default)]
    struct Tree(BTreeMap<String, Bytes>);

    impl Tree {
        fn apply(&mut self, ops: &[Op]) {
            for op in ops {
                match op {
                    Op::Put { path, data, .. } => drop(self.0.insert(path.clone(), data.clone())),
                    Op::DeleteTree { path } => {
                        self.0
                            .retain(|there, _| !paths::is_at_or_below(there, path));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }

        fn read(&self) -> (Option<GroupRecord>, Parts) {
            let nodes = self.0.iter().map(|(path, data)| {
                let node = Node {
                    data: data.clone(),
                    version: 0,
                    ephemeral: false,
                };
                (path.clone(), node)
            });
            let stored = StoredId {
                id: "g".to_owned(),
                nodes: nodes.collect(),
            };
            let (record, parts) = read(&stored);
            (record.unwrap(), parts)
        }
    }

    #[test]
    fn a_large_record_is_in_parts_that_are_each_small_and_reads_as_it_was() {
        let (ops, _) = write(&mut Parts::default(), "g", &record(2));
        let largest = ops.iter().map(Op::bytes).max().unwrap();
        assert!(largest < PART_BYTES_MAX + 100, "{largest}");
        let mut tree = Tree::default();
        tree.apply(&ops);
        assert_eq!(tree.read().0, Some(record(2)));
    }

    #[test]
    fn a_write_that_stops_anywhere_leaves_the_record_before_or_its_own() {
        let before = record(1);
        for after in [record(2), record(0)] {
            let mut parts = Parts::default();
            let (first, number) = write(&mut parts, "g", &before);
            parts.stored(number);
            let (second, _) = write(&mut parts, "g", &after);
            for stop in 0..=second.len() {
                let mut tree = Tree::default();
                tree.apply(&first);
                tree.apply(&second[..stop]);
                let (found, mut of_next) = tree.read();
                let found = found.unwrap();
                assert!(found == before || found == after, "{stop}");
                assert!(found == after || stop < second.len());
                // Whoever writes next leaves nothing of both.
                tree.apply(&write(&mut of_next, "g", &record(0)).0);
                assert_eq!(tree.0.len(), 1, "{stop}");
            }
        }
    }

    #[test]
    fn parts_of_a_refused_write_are_removed_by_a_later_one() {
        let mut parts = Parts::default();
        let mut tree = Tree::default();
        let (first, number) = write(&mut parts, "g", &record(1));
        tree.apply(&first);
        parts.stored(number);
        let (refused, _) = write(&mut parts, "g", &record(1));
        tree.apply(&refused[..3]);
        let (third, number) = write(&mut parts, "g", &record(0));
        tree.apply(&third);
        parts.stored(number);
        assert_eq!(tree.0.len(), 1);
        assert_eq!(
            write(&mut parts, "g", &record(0)).0.len(),
            1,
            "nothing is left to remove"
        );
    }

    #[test]
    fn a_record_whose_parts_are_not_all_there_is_malformed() {
        let (ops, _) = write(&mut Parts::default(), "g", &record(1));
        let mut tree = Tree::default();
        tree.apply(&ops);
        tree.0.remove(&paths::part(&paths::group("g"), 1, 2));
        let nodes = tree.0.into_iter().map(|(path, data)| {
            let node = Node {
                data,
                version: 0,
                ephemeral: false,
            };
            (path, node)
        });
        let stored = StoredId {
            id: "g".to_owned(),
            nodes: nodes.collect(),
        };
        assert!(matches!(read(&stored).0, Err(MetaError::Malformed { .. })));
    }
}
