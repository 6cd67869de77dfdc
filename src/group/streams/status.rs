//! What members of a streams group are told besides what they have (Kafka's StreamsGroupHeartbeatResponse.Status).

/// What it is about; the numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each says what it is
pub enum StatusCode {
    StaleTopology = 0,
    MissingSourceTopics = 1,
    IncorrectlyPartitionedTopics = 2,
    MissingInternalTopics = 3,
    ShutdownApplication = 4,
    AssignmentDelayed = 5,
    /// From version 1 of the heartbeat on.
    MissingClientTags = 6,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What it is about.
    pub code: StatusCode,
    /// For people.
    pub detail: String,
}

impl Status {
    pub(super) fn new(code: StatusCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { code, detail }
    }
}
