//! A member of a share group.

use std::collections::BTreeSet;

use super::simple_assignor::Partitions;
use crate::group::reserved::Reserved;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(in crate::group) struct ShareMember {
    /// The client's name for itself.
    pub(in crate::group) client_id: String,
    /// Where it connects from.
    pub(in crate::group) client_host: String,
    /// Where it is, if it says so.
    pub(in crate::group) rack: Option<String>,
    /// Topics that it reads.
    pub(in crate::group) topics: BTreeSet<String>,
    /// Of the target that it has.
    pub(in crate::group) epoch: i32,
    /// The one before, which it may still say: the answer with the next one may be lost.
    pub(super) previous_epoch: i32,
    /// Whether the epochs are those that it was told; they are not stored.
    pub(super) is_epoch_known: bool,
    /// What it was told to read.
    pub(in crate::group) assigned: Partitions,
    /// What it is to read.
    pub(super) target: Partitions,
    /// It is gone unless it is heard of before, ms.
    pub(super) session_until_ms: i64,
    /// Its share of what members may take.
    pub(super) reserved: Option<Reserved>,
}

impl ShareMember {
    pub(super) fn new() -> Self {
        Self {
            client_id: String::new(),
            client_host: String::new(),
            rack: None,
            topics: BTreeSet::new(),
            epoch: 0,
            previous_epoch: -1,
            is_epoch_known: true,
            assigned: Partitions::new(),
            target: Partitions::new(),
            session_until_ms: i64::MAX,
            reserved: None,
        }
    }
}
