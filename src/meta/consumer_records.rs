//! What the nodes of consumer groups of KIP-848 hold, as [`records`](super::records) say of the others.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::records::PartsRecord;

/// `/consumers/<group>` of a consumer group of KIP-848, whose members have nodes of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerGroupRecord {
    /// Record version.
    pub version: u32,
    /// `consumer`.
    #[serde(rename = "type")]
    pub group_type: String,
    /// The group epoch.
    pub epoch: i32,
    /// The group epoch that the members' targets were made for.
    pub assignment_epoch: i32,
    /// What the topics looked like, in hexadecimal.
    pub topics_hash: String,
    /// When it last became empty, ms.
    pub changed_ms: i64,
    /// How many members it has: where there are others, a write stopped in the middle.
    pub members: usize,
}

/// `/consumers/<group>/members/<member>`: a member of a consumer group of KIP-848.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerMemberRecord {
    /// Record version.
    pub version: u32,
    /// Member id.
    pub member_id: String,
    /// Its epoch; -2 for a static member that left for a while.
    pub epoch: i32,
    /// The one before.
    pub previous_epoch: i32,
    /// `STABLE`, `UNREVOKED_PARTITIONS` or `UNRELEASED_PARTITIONS`.
    pub state: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Where it is.
    pub rack_id: Option<String>,
    /// Client id.
    pub client_id: String,
    /// Address of the client.
    pub client_host: String,
    /// ms.
    pub rebalance_timeout_ms: i32,
    /// Topics that it reads.
    pub topics: Vec<String>,
    /// A regular expression of topics that it reads.
    pub regex: Option<String>,
    /// The assignor that it prefers.
    pub assignor: Option<String>,
    /// What a member of the classic protocol brought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classic: Option<ClassicProtocolRecord>,
    /// The group epoch that its target was made for.
    pub target_epoch: i32,
    /// Its partitions; nothing where they are in parts.
    pub partitions: MemberPartitionsRecord,
    /// Which parts they are in, where they are too large for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PartsRecord>,
}

/// What a member of the classic protocol brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassicProtocolRecord {
    /// ms.
    pub session_timeout_ms: i32,
    /// Assignors in the member's order, with its subscription in hexadecimal.
    pub protocols: Vec<(String, String)>,
}

/// What a member has and is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberPartitionsRecord {
    /// What it has.
    pub assigned: Vec<TopicPartitionsRecord>,
    /// What it is asked to give up.
    pub revoking: Vec<TopicPartitionsRecord>,
    /// What it is to have.
    pub target: Vec<TopicPartitionsRecord>,
}

/// Partitions of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPartitionsRecord {
    /// The topic's name, for people.
    pub topic: String,
    /// The topic's id.
    pub topic_id: Uuid,
    /// Such as `0-3 7`; of what the member has, each with the member epoch in which it got it, such as `0-3@5 7@6`.
    pub partitions: String,
}
