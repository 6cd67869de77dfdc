//! What the nodes of the coordination tree hold: JSON with a `version` field, readable with any tool.
//!
//! Tests: group/record.rs, cluster/membership.rs.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::MetaError;

/// Version of every record below but a topic's.
pub const RECORD_VERSION: u32 = 1;
/// Version of [`TopicRecord`]; earlier ones are rewritten at start.
pub const TOPIC_RECORD_VERSION: u32 = 2;
/// Version of a [`TopicRecord`] whose partitions are in nodes of their own ([`AssignmentsRecord`]): one that would not fit into a
/// node otherwise.
pub const LARGE_TOPIC_RECORD_VERSION: u32 = 3;

/// `/cluster/id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Record version.
    pub version: u32,
    /// 22 characters, as Kafka prints a UUID.
    pub cluster_id: String,
}

/// `/cluster/unknown-users`: the same on all brokers, so that a user who is not known gets the same salt from each, as one
/// who is does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownUsersRecord {
    /// Record version.
    pub version: u32,
    /// 32 random bytes in base64.
    pub secret: String,
}

/// `/brokers/topics/<topic>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRecord {
    /// [`TOPIC_RECORD_VERSION`], or [`LARGE_TOPIC_RECORD_VERSION`].
    pub version: u32,
    /// Topic id.
    pub topic_id: Uuid,
    /// The topic's own configurations.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// How many partitions a large topic has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_count: Option<i32>,
    /// By dense index; none of a large topic.
    #[serde(default)]
    pub partitions: Vec<AssignmentRecord>,
}

/// `/brokers/topics/<topic>/assignments/<first index>`: what a thousand partitions of a large topic are, as short as it can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentsRecord {
    /// Record version.
    pub version: u32,
    /// The topic's id; where it is another one, they are of an earlier topic of that name.
    pub topic_id: Uuid,
    /// Broker ids that keep each partition; of one that has a state of its own the first alone, because the state says the others. The
    /// first is the broker of the identity.
    pub replicas: Vec<Vec<i32>>,
    /// By broker the number that its first identity here has; the next ones count on.
    pub numbers: BTreeMap<i32, i32>,
    /// By index the identities that are others than that; the next ones count on from there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub identities: BTreeMap<i32, String>,
    /// The leader epochs that partitions begin with, by index, where that is not 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub first_epochs: BTreeMap<i32, i32>,
}

/// One partition in a [`TopicRecord`]. While it has no state of its own its first replica leads it, and all are in sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentRecord {
    /// `<brokerId>-<n>`, never changed.
    pub identity: String,
    /// Broker ids that keep it.
    pub replicas: Vec<i32>,
    /// The leader epoch that it begins with: above 0 where it was found in a data directory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_epoch: i32,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// `/brokers/topics/<topic>/partitions/<first index>`: the state of those of a hundred partitions that are not as they began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatesRecord {
    /// Record version.
    pub version: u32,
    /// The topic's id; where it is another one, the states are of an earlier topic of that name.
    pub topic_id: Uuid,
    /// By index.
    pub partitions: BTreeMap<i32, PartitionStateRecord>,
}

/// One partition in a [`PartitionStatesRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStateRecord {
    /// The leader, -1 for none.
    pub leader: i32,
    /// Counts leaders.
    pub leader_epoch: i32,
    /// Broker ids that keep it, instead of those that the topic's node says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<i32>,
    /// Replicas that are in sync.
    pub isr: Vec<i32>,
    /// Replicas that have all that is committed and may lead where none that is in sync can (KIP-966).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elr: Vec<i32>,
    /// While none leads, who led last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_leader: Option<i32>,
    /// Replicas that a reassignment adds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adding: Vec<i32>,
    /// Replicas that go when it is complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removing: Vec<i32>,
    /// Brokers that were away when they were taken off the replicas: they may still have files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_on: Vec<i32>,
    /// Counts changes of all this, and of the replicas.
    pub partition_epoch: i32,
}

/// `/config/<kind>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRecord {
    /// Record version.
    pub version: u32,
    /// Names and values.
    pub config: BTreeMap<String, String>,
}

/// `/acl/<kind of pattern>/<kind of resource>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRecord {
    /// Record version.
    pub version: u32,
    /// Who may or may not do what to the resources of the pattern.
    pub acls: Vec<AclEntryRecord>,
}

/// One entry of an [`AclRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclEntryRecord {
    /// As `User:name`.
    pub principal: String,
    /// From where; `*` for everywhere.
    pub host: String,
    /// What, in Kafka's words, such as `DescribeConfigs`.
    pub operation: String,
    /// `Allow` or `Deny`.
    pub permission: String,
}

/// `/tokens/<id>`: all there is to know of a delegation token but what it is made with, which is not in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Record version.
    pub version: u32,
    /// Who logs in with it.
    pub owner: PrincipalRecord,
    /// Who asked for it.
    pub requester: PrincipalRecord,
    /// Who may renew it beside the owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renewers: Vec<PrincipalRecord>,
    /// When it was made, ms since 1970.
    pub issued_ms: i64,
    /// Until when it is good, ms since 1970.
    pub expires_ms: i64,
    /// Until when it can be renewed, ms since 1970.
    pub max_ms: i64,
}

/// A principal in a [`TokenRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrincipalRecord {
    /// Mostly `User`.
    pub kind: String,
    /// Its name among those of its kind.
    pub name: String,
}

/// `/brokers/deleted/<topic id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedTopicRecord {
    /// Record version.
    pub version: u32,
    /// The name that it had.
    pub topic: String,
    /// Brokers that have not removed its files yet.
    #[serde(default)]
    pub brokers: Vec<i32>,
}

/// `/brokers/ids/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRecord {
    /// Record version.
    pub version: u32,
    /// Counts registrations.
    pub epoch: i64,
    /// The first data directory of the latest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory_id: Option<String>,
    /// All data directories of the latest one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<String>,
    /// When it had less than it had had before.
    #[serde(default, skip_serializing_if = "LossRecord::is_none")]
    pub lost: LossRecord,
}

/// The latest registrations of a broker that came back with less than it had; 0 for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossRecord {
    /// After the system had ended without the broker having closed its logs: what was not synced may be gone.
    #[serde(default, skip_serializing_if = "is_no_registration")]
    pub unsynced: i64,
    /// Without a data directory that it had: all in it is gone.
    #[serde(default, skip_serializing_if = "is_no_registration")]
    pub directory: i64,
}

impl LossRecord {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

fn is_no_registration(number: &i64) -> bool {
    *number == 0
}

/// `/brokers/ids/<id>/master`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerMasterRecord {
    /// Record version.
    pub version: u32,
    /// The registration's number.
    pub epoch: i64,
    /// Where clients find it, one for each listener; other brokers take the first.
    pub endpoints: Vec<EndpointRecord>,
    /// Where it stands.
    pub rack: Option<String>,
    /// Its first data directory, by which a restarted broker knows its own registration.
    pub directory_id: String,
    /// Whether it takes partitions of new topics.
    pub accept_publish: bool,
    /// Whether it never leads. An earlier version says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follows_only: bool,
    /// Whether it is about to stop: it leads no more, where another one can.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shutting_down: bool,
    /// The latest of its registrations with less than it had had before. An earlier version says nothing.
    #[serde(default, skip_serializing_if = "LossRecord::is_none")]
    pub lost: LossRecord,
    /// The program's version.
    pub metaq: String,
}

/// `/brokers/settled`: the registrations that the controller has chosen leaders and in-sync replicas for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledRecord {
    /// Record version.
    pub version: u32,
    /// The number of each live broker's registration.
    pub brokers: BTreeMap<i32, i64>,
    /// What brokers had lost that was dealt with; of brokers that are away too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<i32, LossRecord>,
}

/// A listener in a [`BrokerMasterRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// The listener's name; where it is missing, it is that of its security protocol.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener: String,
    /// Security protocol, such as PLAINTEXT.
    pub security: String,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// `/controller`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerRecord {
    /// Record version.
    pub version: u32,
    /// The broker.
    pub broker_id: i32,
    /// Its registration.
    pub broker_epoch: i64,
    /// Its term.
    pub epoch: i32,
}

/// `/controller_epoch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerEpochRecord {
    /// Record version.
    pub version: u32,
    /// Counts controllers.
    pub epoch: i32,
}

/// `/coordinators/<slot>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// Record version.
    pub version: u32,
    /// The broker that coordinates its groups and transactional ids, -1 for none.
    pub owner: i32,
    /// Counts owners.
    pub epoch: i32,
}

/// `/brokers/topics-pub/<topic>/<id>-m`: a bare number, as MetaQ writes it.
pub fn encode_count(count: usize) -> Bytes {
    Bytes::from(count.to_string())
}

/// `/consumers/<group>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Record version.
    pub version: u32,
    /// `classic`, or `simple` for a group that only commits.
    #[serde(rename = "type")]
    pub group_type: String,
    /// Counts completed rebalances.
    pub generation: i32,
    /// Such as `consumer`.
    pub protocol_type: Option<String>,
    /// The chosen assignor.
    pub protocol: Option<String>,
    /// Member id of the leader.
    pub leader: Option<String>,
    /// When the state last changed, ms.
    pub changed_ms: i64,
    /// All members; none where they are in parts.
    pub members: Vec<MemberRecord>,
    /// Which parts the members are in, where they are too large for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PartsRecord>,
}

/// Where the bulk of a large record is: the parts, one after the other, are the array that stands there (members of a group,
/// topics of a transaction).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartsRecord {
    /// The number of the write that put them.
    pub number: u64,
    /// How many parts there are, from 0.
    pub count: usize,
}

/// One member in a [`GroupRecord`]; byte strings are in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Member id.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Client id.
    pub client_id: String,
    /// Address of the client.
    pub client_host: String,
    /// ms.
    pub session_timeout_ms: i32,
    /// ms.
    pub rebalance_timeout_ms: i32,
    /// Assignors in the member's order, with its subscription.
    pub protocols: Vec<(String, String)>,
    /// What it was assigned.
    pub assignment: String,
}

/// `/consumers/<group>/ids/<member>`, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberIdRecord {
    /// Record version.
    pub version: u32,
    /// Client id.
    pub client_id: String,
    /// Address of the client.
    pub client_host: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Topics that it reads, where its subscription is a consumer's.
    pub subscription: Vec<String>,
}

/// `/consumers/<group>/offsets/<topic>/<brokerId>-<n>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRecord {
    /// Record version.
    pub version: u32,
    /// The next offset to read.
    pub offset: i64,
    /// -1 when unknown.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: String,
    /// When it was committed, ms.
    pub commit_ms: i64,
    /// When it expires, ms, where the client said so (OffsetCommit v2 to v4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_ms: Option<i64>,
    /// The topic's id; where it is another one, the offset is of an earlier topic of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<Uuid>,
    /// The number of the write, where transactions have offsets for the group: a later one of the slot has a higher number,
    /// whoever owns the slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}

/// `/consumers/<group>/pending/<producer id>/<n>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingOffsetsRecord {
    /// Record version.
    pub version: u32,
    /// Of the producer whose transaction it is.
    pub producer_epoch: i16,
    /// What becomes the group's offsets when the transaction is committed.
    pub offsets: Vec<PendingOffsetRecord>,
}

/// An offset of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingOffsetRecord {
    /// The topic.
    pub topic: String,
    /// `brokerId-n`.
    pub partition: String,
    /// The offset.
    #[serde(flatten)]
    pub offset: OffsetRecord,
}

/// `/producers/<slot>/<producer id>`: what the last marker of a transaction said that may have offsets for groups of the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotProducerRecord {
    /// Record version.
    pub version: u32,
    /// The producer's epoch.
    pub epoch: i16,
    /// That of the coordinator of its transaction.
    pub coordinator_epoch: i32,
    /// When it was stored, ms.
    pub at_ms: i64,
}

/// `/transactions/<transactional id>`. What has its usual value is left out: there may be very many idle ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionRecord {
    /// Record version.
    pub version: u32,
    /// As Kafka names it: Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort.
    pub state: String,
    /// The producer's id; that of the ongoing transaction, where a later producer keeps it.
    pub producer_id: i64,
    /// Its epoch. While a transaction ends it is the epoch of its markers.
    pub epoch: i16,
    /// The epoch before, as the client knows it; it may ask again under it.
    #[serde(default = "none_i16", skip_serializing_if = "is_none_i16")]
    pub last_epoch: i16,
    /// The producer's id before it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_id: Option<i64>,
    /// Id and epoch that the client has, or will have when the transaction is complete, where they are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<(i64, i16)>,
    /// A transaction that takes longer is aborted, ms; 2147483647 for one of two phases, which is not.
    pub timeout_ms: i32,
    /// The version of the protocol that the client used last (KIP-890), where it is not 2.
    #[serde(default = "version_2", skip_serializing_if = "is_version_2")]
    pub client_version: i8,
    /// When the transaction began, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<i64>,
    /// When this changed last, ms.
    pub updated_ms: i64,
    /// The partitions of the transaction; none where they are in parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<TransactionTopicRecord>,
    /// Which parts the partitions are in, where they are too large for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PartsRecord>,
    /// What an operator decided of a transaction of two phases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRecord>,
}

/// Partitions of one topic in a [`TransactionRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionTopicRecord {
    /// Its name.
    pub topic: String,
    /// Its id; where it is another one, the partitions are gone. None of an internal topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<Uuid>,
    /// Indices of partitions.
    pub partitions: Vec<i32>,
}

/// An operator's decision in a [`TransactionRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Whether the transaction was committed, not aborted.
    pub commit: bool,
    /// The producer id of the transaction.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// When, ms.
    pub at_ms: i64,
}

fn none_i16() -> i16 {
    -1
}

fn is_none_i16(number: &i16) -> bool {
    *number == -1
}

fn version_2() -> i8 {
    2
}

fn is_version_2(number: &i8) -> bool {
    *number == 2
}

/// `/producer-ids`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerIdsRecord {
    /// Record version.
    pub version: u32,
    /// First id that no broker was given yet.
    pub next: i64,
}

/// The bytes of a record.
pub fn encode<T: Serialize>(record: &T) -> Bytes {
    // Serialising these plain structs to memory cannot fail. Boxed: the tree keeps it, and shall not keep spare room.
    let json = serde_json::to_vec(record).unwrap_or_default();
    Bytes::from(json.into_boxed_slice())
}

/// The record in a node.
pub fn decode<T: DeserializeOwned>(path: &str, data: &[u8]) -> Result<T, MetaError> {
    serde_json::from_slice(data).map_err(|error| MetaError::Malformed {
        path: path.to_owned(),
        what: error.to_string(),
    })
}
