//! What is stored of share groups. Its form is that of [`records`](super::records).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::records::PartsRecord;

/// `/consumers/<group>` of a share group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareGroupRecord {
    /// Record version.
    pub version: u32,
    /// `share`.
    #[serde(rename = "type")]
    pub group_type: String,
    /// The group epoch.
    pub epoch: i32,
    /// Of the targets of the members.
    pub assignment_epoch: i32,
    /// Topic ids, each with its partitions whose share partitions are initialized.
    pub initialized: Vec<(Uuid, Vec<i32>)>,
    /// Topic ids, each with the partitions of which something may be stored that is to be deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleting: Vec<(Uuid, Vec<i32>)>,
    /// Topic ids, each with the one number of partitions that it had when the group met it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub met: Vec<(Uuid, Vec<i32>)>,
    /// Its members; none where they are in parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<ShareMemberRecord>,
    /// Which parts the members are in, where they are too large for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PartsRecord>,
}

/// A member in a [`ShareGroupRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareMemberRecord {
    /// Made by the client.
    pub member_id: String,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Where it is, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// Topics that it reads.
    pub topics: Vec<String>,
    /// Topic ids, each with the partitions that it is to read.
    pub target: Vec<(Uuid, Vec<i32>)>,
}

/// `/shares/<group>:<topic id>:<partition>`: what a share group has done with the records of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareRecord {
    /// Record version.
    pub version: u32,
    /// Everything before it is done; -1 where the first leader begins as the group's configuration says.
    pub start: i64,
    /// Counts how often the start was set from outside.
    pub state_epoch: i32,
    /// Of the latest leader that read it, -1 for none.
    pub leader_epoch: i32,
    /// How many records from the start on are done; -1 before anything is known.
    pub complete: i32,
    /// First offset, last offset, state (0 available, 2 acknowledged, 4 archived) and delivery count of ranges from the start on;
    /// none where they are in parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<(i64, i64, i8, i16)>,
    /// Which parts the ranges are in, where they are too large for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PartsRecord>,
}
