//! The record of an id in the tree: in the id's node, and where it is large its bulk in parts below that, because ZooKeeper
//! takes no node of a megabyte.
//!
//! ```text
//! <root>/<id>                     the record; says which parts its bulk is in, where it is in parts
//! <root>/<id>/parts/<number>/<n>  a part of it; a write has a number that no earlier one had
//! ```
//!
//! A write puts its parts first, then the id's node, then removes the parts of earlier writes. So the node always names
//! parts that are there, also where a write stops in the middle.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::machine::StoredId;
use crate::meta::records::PartsRecord;
use crate::meta::{MetaError, Op, paths};

/// A record up to this size stands in one node, bytes; of the bulk of a larger one each part has as much.
pub const PART_BYTES_MAX: usize = 128 << 10;

/// The parts of an id's record that may be in the tree.
#[derive(Debug, Default)]
pub struct Parts {
    last: u64,
    there: BTreeSet<u64>,
}

impl Parts {
    /// The steps that store a record, and the number of this write. `record` makes the node: of the whole record, or of one
    /// whose bulk is in these parts.
    pub fn write(
        &mut self,
        path: &str,
        record: impl Fn(Option<PartsRecord>) -> Bytes,
        bulk: impl FnOnce() -> Bytes,
    ) -> (Vec<Op>, u64) {
        self.last += 1;
        let number = self.last;
        let mut ops = Vec::new();
        let whole = record(None);
        let is_large = whole.len() > PART_BYTES_MAX;
        let node = match is_large {
            false => whole,
            true => {
                let bulk = bulk();
                let cut = bulk.chunks(PART_BYTES_MAX);
                let count = cut.len();
                ops.extend(cut.zip(0..).map(|(part, n)| {
                    let path = paths::part(path, number, n);
                    Op::put(path, bulk.slice_ref(part))
                }));
                record(Some(PartsRecord { number, count }))
            }
        };
        ops.push(Op::put(path, node));
        let earlier = self.there.iter();
        ops.extend(earlier.map(|number| Op::delete_tree(paths::parts(path, *number))));
        if is_large {
            self.there.insert(number);
        }
        (ops, number)
    }

    /// A write is stored: the parts of those before it are gone.
    pub fn stored(&mut self, number: u64) {
        self.there = self.there.split_off(&number);
    }

    /// Whether the record stands in its node, and no part is there.
    pub fn is_empty(&self) -> bool {
        self.there.is_empty()
    }
}

/// What is stored of an id's record.
pub struct FoundRecord<'a> {
    /// The id's node.
    pub node: Option<&'a Bytes>,
    parts: BTreeMap<u64, BTreeMap<usize, &'a Bytes>>,
}

impl<'a> FoundRecord<'a> {
    /// Among the nodes at and below the id's.
    pub fn among(path: &str, stored: &'a StoredId) -> Self {
        let mut found = Self {
            node: None,
            parts: BTreeMap::new(),
        };
        for (at, node) in &stored.nodes {
            if at == path {
                found.node = Some(&node.data).filter(|data| !data.is_empty());
            } else if let Some((number, n)) = paths::part_of(path, at) {
                found.parts.entry(number).or_default().insert(n, &node.data);
            }
        }
        found
    }

    /// The bulk that stands in these parts.
    pub fn bulk(&self, path: &str, parts: &PartsRecord) -> Result<Vec<u8>, MetaError> {
        let found = self.parts.get(&parts.number);
        let found = found.filter(|found| found.keys().copied().eq(0..parts.count));
        let found = found.ok_or_else(|| MetaError::Malformed {
            path: path.to_owned(),
            what: format!("not all {} parts {} are there", parts.count, parts.number),
        })?;
        let parts = found.values();
        Ok(parts.flat_map(|part| part.iter().copied()).collect())
    }

    /// The parts that the next write is to count with.
    pub fn parts(&self) -> Parts {
        let there: BTreeSet<u64> = self.parts.keys().copied().collect();
        let last = there.last().copied().unwrap_or_default();
        Parts { last, there }
    }
}
