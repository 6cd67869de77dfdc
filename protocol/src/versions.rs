//! The one table of APIs and versions served: it drives ApiVersions, dispatch, the codec tests and
//! `docs/protocol.md`.
//!
//! Every version that the wire types know is served. Some minimums are advertised lower than they are decoded:
//! librdkafka turns compression off and old builds give up when Produce, JoinGroup or FindCoordinator do not
//! begin at 0; Kafka advertises Produce from 0 too (KAFKA-18659) and refuses what is below 3.

use crate::messages::ApiKey;

/// What part of the broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandlerGroup {
    /// Connection and cluster description.
    Cluster,
    /// Records.
    Log,
    /// Topics, configurations, directories.
    Admin,
    /// Consumer groups and offsets.
    Group,
    /// Producers.
    Producer,
    /// Transactions.
    Transaction,
}

impl HandlerGroup {
    /// Its name in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Log => "log",
            Self::Admin => "admin",
            Self::Group => "group",
            Self::Producer => "producer",
            Self::Transaction => "transaction",
        }
    }
}

/// One API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiRow {
    /// Its number.
    pub key: i16,
    /// Kafka's name.
    pub name: &'static str,
    /// Lowest version announced to clients.
    pub advertised_min: i16,
    /// Lowest version answered.
    pub min: i16,
    /// Highest version answered.
    pub max: i16,
    /// Who answers.
    pub group: HandlerGroup,
    /// How many entries all arrays of a request may have together, tagged fields among them. Far above what clients ask
    /// for; a request that has more closes its connection.
    pub entries_max: usize,
    /// Whether ApiVersions names it. The others brokers ask each other, and nobody else.
    pub is_offered: bool,
}

/// What a request may name that is about topics and partitions, or of an API that is not served yet.
pub const ENTRIES_MAX: usize = 100_000;
/// What a request may have that is about one thing.
const FEW_ENTRIES_MAX: usize = 1000;

const fn row(key: ApiKey, name: &'static str, min: i16, max: i16, group: HandlerGroup) -> ApiRow {
    ApiRow {
        key: key as i16,
        name,
        advertised_min: min,
        min,
        max,
        group,
        entries_max: ENTRIES_MAX,
        is_offered: true,
    }
}

const fn between_brokers(row: ApiRow) -> ApiRow {
    ApiRow {
        is_offered: false,
        ..row
    }
}

const fn with_entries(entries_max: usize, row: ApiRow) -> ApiRow {
    ApiRow { entries_max, ..row }
}

/// Every API served, by key.
pub const TABLE: &[ApiRow] = &[
    ApiRow {
        advertised_min: 0,
        ..row(ApiKey::Produce, "Produce", 3, 13, HandlerGroup::Log)
    },
    with_entries(
        250_000,
        row(ApiKey::Fetch, "Fetch", 4, 18, HandlerGroup::Log),
    ),
    row(ApiKey::ListOffsets, "ListOffsets", 1, 11, HandlerGroup::Log),
    row(ApiKey::Metadata, "Metadata", 0, 13, HandlerGroup::Cluster),
    row(
        ApiKey::OffsetCommit,
        "OffsetCommit",
        2,
        10,
        HandlerGroup::Group,
    ),
    row(
        ApiKey::OffsetFetch,
        "OffsetFetch",
        1,
        10,
        HandlerGroup::Group,
    ),
    with_entries(
        10_000,
        row(
            ApiKey::FindCoordinator,
            "FindCoordinator",
            0,
            6,
            HandlerGroup::Group,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(ApiKey::JoinGroup, "JoinGroup", 0, 9, HandlerGroup::Group),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(ApiKey::Heartbeat, "Heartbeat", 0, 4, HandlerGroup::Group),
    ),
    with_entries(
        10_000,
        row(ApiKey::LeaveGroup, "LeaveGroup", 0, 5, HandlerGroup::Group),
    ),
    with_entries(
        10_000,
        row(ApiKey::SyncGroup, "SyncGroup", 0, 5, HandlerGroup::Group),
    ),
    with_entries(
        10_000,
        row(
            ApiKey::DescribeGroups,
            "DescribeGroups",
            0,
            6,
            HandlerGroup::Group,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(ApiKey::ListGroups, "ListGroups", 0, 5, HandlerGroup::Group),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::SaslHandshake,
            "SaslHandshake",
            0,
            1,
            HandlerGroup::Cluster,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::ApiVersions,
            "ApiVersions",
            0,
            5,
            HandlerGroup::Cluster,
        ),
    ),
    row(
        ApiKey::CreateTopics,
        "CreateTopics",
        2,
        7,
        HandlerGroup::Admin,
    ),
    row(
        ApiKey::DeleteTopics,
        "DeleteTopics",
        1,
        6,
        HandlerGroup::Admin,
    ),
    row(
        ApiKey::DeleteRecords,
        "DeleteRecords",
        0,
        2,
        HandlerGroup::Log,
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::InitProducerId,
            "InitProducerId",
            0,
            6,
            HandlerGroup::Producer,
        ),
    ),
    row(
        ApiKey::OffsetForLeaderEpoch,
        "OffsetForLeaderEpoch",
        2,
        4,
        HandlerGroup::Log,
    ),
    row(
        ApiKey::AddPartitionsToTxn,
        "AddPartitionsToTxn",
        0,
        5,
        HandlerGroup::Transaction,
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::AddOffsetsToTxn,
            "AddOffsetsToTxn",
            0,
            4,
            HandlerGroup::Transaction,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(ApiKey::EndTxn, "EndTxn", 0, 5, HandlerGroup::Transaction),
    ),
    row(
        ApiKey::WriteTxnMarkers,
        "WriteTxnMarkers",
        1,
        2,
        HandlerGroup::Transaction,
    ),
    row(
        ApiKey::TxnOffsetCommit,
        "TxnOffsetCommit",
        0,
        6,
        HandlerGroup::Transaction,
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::DescribeAcls,
            "DescribeAcls",
            1,
            3,
            HandlerGroup::Admin,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(ApiKey::CreateAcls, "CreateAcls", 1, 3, HandlerGroup::Admin),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(ApiKey::DeleteAcls, "DeleteAcls", 1, 3, HandlerGroup::Admin),
    ),
    with_entries(
        10_000,
        row(
            ApiKey::DescribeConfigs,
            "DescribeConfigs",
            1,
            4,
            HandlerGroup::Admin,
        ),
    ),
    row(
        ApiKey::AlterConfigs,
        "AlterConfigs",
        0,
        2,
        HandlerGroup::Admin,
    ),
    row(
        ApiKey::AlterReplicaLogDirs,
        "AlterReplicaLogDirs",
        1,
        2,
        HandlerGroup::Admin,
    ),
    row(
        ApiKey::DescribeLogDirs,
        "DescribeLogDirs",
        1,
        5,
        HandlerGroup::Admin,
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::SaslAuthenticate,
            "SaslAuthenticate",
            0,
            2,
            HandlerGroup::Cluster,
        ),
    ),
    row(
        ApiKey::CreatePartitions,
        "CreatePartitions",
        0,
        3,
        HandlerGroup::Admin,
    ),
    with_entries(
        10_000,
        row(
            ApiKey::CreateDelegationToken,
            "CreateDelegationToken",
            1,
            3,
            HandlerGroup::Admin,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::RenewDelegationToken,
            "RenewDelegationToken",
            1,
            2,
            HandlerGroup::Admin,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::ExpireDelegationToken,
            "ExpireDelegationToken",
            1,
            2,
            HandlerGroup::Admin,
        ),
    ),
    with_entries(
        10_000,
        row(
            ApiKey::DescribeDelegationToken,
            "DescribeDelegationToken",
            1,
            3,
            HandlerGroup::Admin,
        ),
    ),
    with_entries(
        10_000,
        row(
            ApiKey::DeleteGroups,
            "DeleteGroups",
            0,
            3,
            HandlerGroup::Group,
        ),
    ),
    row(
        ApiKey::ElectLeaders,
        "ElectLeaders",
        0,
        2,
        HandlerGroup::Admin,
    ),
    row(
        ApiKey::IncrementalAlterConfigs,
        "IncrementalAlterConfigs",
        0,
        1,
        HandlerGroup::Admin,
    ),
    row(
        ApiKey::AlterPartitionReassignments,
        "AlterPartitionReassignments",
        0,
        1,
        HandlerGroup::Admin,
    ),
    row(
        ApiKey::ListPartitionReassignments,
        "ListPartitionReassignments",
        0,
        0,
        HandlerGroup::Admin,
    ),
    row(
        ApiKey::OffsetDelete,
        "OffsetDelete",
        0,
        0,
        HandlerGroup::Group,
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::DescribeClientQuotas,
            "DescribeClientQuotas",
            0,
            1,
            HandlerGroup::Admin,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::AlterClientQuotas,
            "AlterClientQuotas",
            0,
            1,
            HandlerGroup::Admin,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::DescribeUserScramCredentials,
            "DescribeUserScramCredentials",
            0,
            0,
            HandlerGroup::Admin,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::AlterUserScramCredentials,
            "AlterUserScramCredentials",
            0,
            0,
            HandlerGroup::Admin,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::DescribeQuorum,
            "DescribeQuorum",
            0,
            2,
            HandlerGroup::Admin,
        ),
    ),
    between_brokers(row(
        ApiKey::AlterPartition,
        "AlterPartition",
        2,
        3,
        HandlerGroup::Cluster,
    )),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::UpdateFeatures,
            "UpdateFeatures",
            0,
            2,
            HandlerGroup::Admin,
        ),
    ),
    between_brokers(with_entries(
        FEW_ENTRIES_MAX,
        row(ApiKey::Envelope, "Envelope", 0, 0, HandlerGroup::Cluster),
    )),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::DescribeCluster,
            "DescribeCluster",
            0,
            2,
            HandlerGroup::Cluster,
        ),
    ),
    with_entries(
        10_000,
        row(
            ApiKey::DescribeProducers,
            "DescribeProducers",
            0,
            0,
            HandlerGroup::Producer,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::UnregisterBroker,
            "UnregisterBroker",
            0,
            0,
            HandlerGroup::Admin,
        ),
    ),
    with_entries(
        10_000,
        row(
            ApiKey::DescribeTransactions,
            "DescribeTransactions",
            0,
            0,
            HandlerGroup::Transaction,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::ListTransactions,
            "ListTransactions",
            0,
            2,
            HandlerGroup::Transaction,
        ),
    ),
    row(
        ApiKey::ConsumerGroupHeartbeat,
        "ConsumerGroupHeartbeat",
        0,
        1,
        HandlerGroup::Group,
    ),
    with_entries(
        10_000,
        row(
            ApiKey::ConsumerGroupDescribe,
            "ConsumerGroupDescribe",
            0,
            1,
            HandlerGroup::Group,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::GetTelemetrySubscriptions,
            "GetTelemetrySubscriptions",
            0,
            0,
            HandlerGroup::Cluster,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::PushTelemetry,
            "PushTelemetry",
            0,
            0,
            HandlerGroup::Cluster,
        ),
    ),
    with_entries(
        FEW_ENTRIES_MAX,
        row(
            ApiKey::ListConfigResources,
            "ListConfigResources",
            0,
            1,
            HandlerGroup::Admin,
        ),
    ),
    row(
        ApiKey::DescribeTopicPartitions,
        "DescribeTopicPartitions",
        0,
        0,
        HandlerGroup::Cluster,
    ),
    row(
        ApiKey::ShareGroupHeartbeat,
        "ShareGroupHeartbeat",
        1,
        1,
        HandlerGroup::Group,
    ),
    with_entries(
        10_000,
        row(
            ApiKey::ShareGroupDescribe,
            "ShareGroupDescribe",
            1,
            1,
            HandlerGroup::Group,
        ),
    ),
    row(ApiKey::ShareFetch, "ShareFetch", 1, 2, HandlerGroup::Group),
    row(
        ApiKey::ShareAcknowledge,
        "ShareAcknowledge",
        1,
        2,
        HandlerGroup::Group,
    ),
    between_brokers(row(
        ApiKey::InitializeShareGroupState,
        "InitializeShareGroupState",
        0,
        0,
        HandlerGroup::Group,
    )),
    between_brokers(row(
        ApiKey::ReadShareGroupState,
        "ReadShareGroupState",
        0,
        0,
        HandlerGroup::Group,
    )),
    between_brokers(row(
        ApiKey::WriteShareGroupState,
        "WriteShareGroupState",
        0,
        1,
        HandlerGroup::Group,
    )),
    between_brokers(row(
        ApiKey::DeleteShareGroupState,
        "DeleteShareGroupState",
        0,
        0,
        HandlerGroup::Group,
    )),
    between_brokers(row(
        ApiKey::ReadShareGroupStateSummary,
        "ReadShareGroupStateSummary",
        0,
        1,
        HandlerGroup::Group,
    )),
    row(
        ApiKey::StreamsGroupHeartbeat,
        "StreamsGroupHeartbeat",
        0,
        1,
        HandlerGroup::Group,
    ),
    with_entries(
        10_000,
        row(
            ApiKey::StreamsGroupDescribe,
            "StreamsGroupDescribe",
            0,
            1,
            HandlerGroup::Group,
        ),
    ),
    with_entries(
        10_000,
        row(
            ApiKey::DescribeShareGroupOffsets,
            "DescribeShareGroupOffsets",
            0,
            1,
            HandlerGroup::Group,
        ),
    ),
    row(
        ApiKey::AlterShareGroupOffsets,
        "AlterShareGroupOffsets",
        0,
        0,
        HandlerGroup::Group,
    ),
    row(
        ApiKey::DeleteShareGroupOffsets,
        "DeleteShareGroupOffsets",
        0,
        0,
        HandlerGroup::Group,
    ),
];

/// The row of an API, when it is served.
pub fn lookup(key: i16) -> Option<&'static ApiRow> {
    TABLE
        .binary_search_by_key(&key, |row| row.key)
        .ok()
        .map(|at| &TABLE[at])
}

/// Whether clients may ask for it.
pub fn is_offered(key: i16) -> bool {
    lookup(key).is_some_and(|row| row.is_offered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_key_order() {
        assert!(TABLE.windows(2).all(|pair| pair[0].key < pair[1].key));
        assert!(TABLE.iter().all(|row| lookup(row.key) == Some(row)));
    }
}
