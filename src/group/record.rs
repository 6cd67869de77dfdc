//! A group's record in the tree: in the group's node, and where it is large its members in parts below that, because
//! ZooKeeper takes no node of a megabyte.
//!
//! ```text
//! /consumers/<group>                     the record; says which parts its members are in, where they are in parts
//! /consumers/<group>/parts/<number>/<n>  a part of them; a write has a number that no earlier one had
//! ```
//!
//! A write puts its parts first, then the group's node, then removes the parts of earlier writes. So the node always names
//! parts that are there, also where a write stops in the middle.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::coordinator::StoredId;
use crate::meta::paths::{self, GroupNode};
use crate::meta::records::{GroupRecord, MemberRecord, PartsRecord, decode, encode};
use crate::meta::{MetaError, Op};

/// A record up to this size stands in one node, bytes; of a larger one each part has as much.
pub const PART_BYTES_MAX: usize = 128 << 10;

/// The parts of a group's record that may be in the tree.
#[derive(Debug, Default)]
pub(super) struct Parts {
    last: u64,
    there: BTreeSet<u64>,
}

impl Parts {
    /// The steps that store a record, and the number of this write.
    pub(super) fn write(&mut self, group_id: &str, record: GroupRecord) -> (Vec<Op>, u64) {
        self.last += 1;
        let number = self.last;
        let mut ops = Vec::new();
        let whole = encode(&record);
        let is_large = whole.len() > PART_BYTES_MAX;
        let node = match is_large {
            false => whole,
            true => {
                let members = encode(&record.members);
                let cut = members.chunks(PART_BYTES_MAX);
                let count = cut.len();
                ops.extend(cut.zip(0..).map(|(part, n)| {
                    let path = paths::group_part(group_id, number, n);
                    Op::put(path, members.slice_ref(part))
                }));
                encode(&GroupRecord {
                    members: Vec::new(),
                    parts: Some(PartsRecord { number, count }),
                    ..record
                })
            }
        };
        ops.push(Op::put(paths::group(group_id), node));
        let earlier = self.there.iter();
        ops.extend(earlier.map(|number| Op::delete_tree(paths::group_parts(group_id, *number))));
        if is_large {
            self.there.insert(number);
        }
        (ops, number)
    }

    /// A write is stored: the parts of those before it are gone.
    pub(super) fn stored(&mut self, number: u64) {
        self.there = self.there.split_off(&number);
    }
}

/// Reads a group's record; `None` where it has none.
pub(super) fn read(stored: &StoredId) -> (Result<Option<GroupRecord>, MetaError>, Parts) {
    let mut found: BTreeMap<u64, BTreeMap<usize, &Bytes>> = BTreeMap::new();
    let mut node = None;
    for (path, stored) in &stored.nodes {
        match paths::group_node(path) {
            Some(GroupNode::Group) if !stored.data.is_empty() => node = Some((path, &stored.data)),
            Some(GroupNode::Part { number, n }) => {
                found.entry(number).or_default().insert(n, &stored.data);
            }
            _ => {}
        }
    }
    let record = node.map(|(path, data)| {
        let mut record: GroupRecord = decode(path, data)?;
        if let Some(parts) = record.parts.take() {
            record.members = members_in(path, &parts, found.get(&parts.number))?;
        }
        Ok(record)
    });
    let there: BTreeSet<u64> = found.into_keys().collect();
    let last = there.last().copied().unwrap_or_default();
    (record.transpose(), Parts { last, there })
}

fn members_in(
    path: &str,
    parts: &PartsRecord,
    found: Option<&BTreeMap<usize, &Bytes>>,
) -> Result<Vec<MemberRecord>, MetaError> {
    let found = found.filter(|found| found.keys().copied().eq(0..parts.count));
    let found = found.ok_or_else(|| MetaError::Malformed {
        path: path.to_owned(),
        what: format!("not all {} parts {} are there", parts.count, parts.number),
    })?;
    let whole: Vec<u8> = found
        .values()
        .flat_map(|part| part.iter().copied())
        .collect();
    decode(path, &whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Node;
    use crate::meta::records::RECORD_VERSION;

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
        let (ops, _) = Parts::default().write("g", record(2));
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
            let (first, number) = parts.write("g", before.clone());
            parts.stored(number);
            let (second, _) = parts.write("g", after.clone());
            for stop in 0..=second.len() {
                let mut tree = Tree::default();
                tree.apply(&first);
                tree.apply(&second[..stop]);
                let (found, mut of_next) = tree.read();
                let found = found.unwrap();
                assert!(found == before || found == after, "{stop}");
                assert!(found == after || stop < second.len());
                // Whoever writes next leaves nothing of both.
                tree.apply(&of_next.write("g", record(0)).0);
                assert_eq!(tree.0.len(), 1, "{stop}");
            }
        }
    }

    #[test]
    fn parts_of_a_refused_write_are_removed_by_a_later_one() {
        let mut parts = Parts::default();
        let mut tree = Tree::default();
        let (first, number) = parts.write("g", record(1));
        tree.apply(&first);
        parts.stored(number);
        let (refused, _) = parts.write("g", record(1));
        tree.apply(&refused[..3]);
        let (third, number) = parts.write("g", record(0));
        tree.apply(&third);
        parts.stored(number);
        assert_eq!(tree.0.len(), 1);
        assert_eq!(
            parts.write("g", record(0)).0.len(),
            1,
            "nothing is left to remove"
        );
    }

    #[test]
    fn a_record_whose_parts_are_not_all_there_is_malformed() {
        let (ops, _) = Parts::default().write("g", record(1));
        let mut tree = Tree::default();
        tree.apply(&ops);
        tree.0.remove(&paths::group_part("g", 1, 2));
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
