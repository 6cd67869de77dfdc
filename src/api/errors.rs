//! The wire error code of every error below: chosen here and nowhere else.
//!
//! Tests: tests/answers.rs, tests/refusals.rs.

use metaq_protocol::ResponseError;
use metaq_protocol::batch::BatchError;

use super::authorize::{Denied, ResourceKind};
use crate::cluster::{AclRefusal, ClusterError, ElectionRefusal, IsrRefusal, ReassignmentRefusal};
use crate::config::TopicConfigError;
use crate::group::GroupError;
use crate::log::{LogError, ProducerError};
use crate::meta::MetaError;
use crate::partition::{InvalidBatch, PartitionError, ReadError, RecordErrors};
use crate::share::{AcknowledgeError, ShareSessionError, ShareStateError};
use crate::transaction::TransactionError;

/// Has a Kafka error code.
pub(super) trait WireError {
    fn wire(&self) -> ResponseError;

    fn code(&self) -> i16 {
        self.wire().code()
    }
}

/// 0, or the error's code.
pub(super) fn code_of<T, E: WireError>(result: &Result<T, E>) -> i16 {
    result.as_ref().err().map_or(0, WireError::code)
}

impl WireError for Denied {
    fn wire(&self) -> ResponseError {
        match self.kind {
            ResourceKind::Topic => ResponseError::TopicAuthorizationFailed,
            ResourceKind::Group => ResponseError::GroupAuthorizationFailed,
            ResourceKind::Cluster => ResponseError::ClusterAuthorizationFailed,
            ResourceKind::TransactionalId => ResponseError::TransactionalIdAuthorizationFailed,
            // As Kafka, which has no code for users.
            ResourceKind::DelegationToken | ResourceKind::User => {
                ResponseError::DelegationTokenAuthorizationFailed
            }
        }
    }
}

impl WireError for PartitionError {
    fn wire(&self) -> ResponseError {
        match self {
            Self::Unknown => ResponseError::UnknownTopicOrPartition,
            Self::NotLeader => ResponseError::NotLeaderOrFollower,
            Self::Offline(_) => ResponseError::KafkaStorageError,
        }
    }
}

impl WireError for LogError {
    fn wire(&self) -> ResponseError {
        match self {
            Self::NotLeader => ResponseError::NotLeaderOrFollower,
            Self::NotEnoughReplicas { .. } => ResponseError::NotEnoughReplicas,
            Self::NotEnoughReplicasAfterAppend => ResponseError::NotEnoughReplicasAfterAppend,
            Self::Offline(_)
            | Self::NotCached
            | Self::NotJournaled
            | Self::Io(_)
            | Self::Hole { .. } => ResponseError::KafkaStorageError,
            Self::OffsetOutOfRange { .. } | Self::UnexpectedOffset { .. } => {
                ResponseError::OffsetOutOfRange
            }
            Self::LaterEpoch { .. } => ResponseError::UnknownLeaderEpoch,
            Self::BatchLargerThanSegment(_) => ResponseError::RecordListTooLarge,
            Self::Producer(error) => error.wire(),
            Self::Damaged { .. } | Self::FetchedDamaged(_) => ResponseError::CorruptMessage,
            // No request compacts.
            Self::Stopped | Self::TooManyKeys { .. } => ResponseError::UnknownServerError,
        }
    }
}

impl WireError for ProducerError {
    fn wire(&self) -> ResponseError {
        match self {
            Self::FencedEpoch { .. } | Self::StaleMarker { .. } => {
                ResponseError::InvalidProducerEpoch
            }
            Self::OutOfOrder { .. } | Self::BeforeLower { .. } => {
                ResponseError::OutOfOrderSequenceNumber
            }
            Self::NotInTransaction | Self::OutsideTransaction => ResponseError::InvalidTxnState,
            Self::FencedCoordinator { .. } => ResponseError::TransactionCoordinatorFenced,
        }
    }
}

impl WireError for ReadError {
    fn wire(&self) -> ResponseError {
        match self {
            Self::FencedEpoch { .. } => ResponseError::FencedLeaderEpoch,
            Self::UnknownEpoch { .. } => ResponseError::UnknownLeaderEpoch,
            Self::Log(error) => error.wire(),
        }
    }
}

impl WireError for ShareStateError {
    fn wire(&self) -> ResponseError {
        use ResponseError as E;
        match self {
            Self::InvalidRequest => E::InvalidRequest,
            Self::FencedLeaderEpoch => E::FencedLeaderEpoch,
            Self::FencedStateEpoch => E::FencedStateEpoch,
            Self::GroupIdNotFound => E::GroupIdNotFound,
            Self::UnknownTopicOrPartition => E::UnknownTopicOrPartition,
            Self::NotLeaderOrFollower => E::NotLeaderOrFollower,
            Self::NotCoordinator => E::NotCoordinator,
            Self::CoordinatorLoadInProgress => E::CoordinatorLoadInProgress,
            Self::CoordinatorNotAvailable => E::CoordinatorNotAvailable,
            Self::UnknownServerError => E::UnknownServerError,
        }
    }
}

impl WireError for AcknowledgeError {
    fn wire(&self) -> ResponseError {
        match self {
            Self::InvalidRecordState => ResponseError::InvalidRecordState,
            Self::InvalidRequest => ResponseError::InvalidRequest,
        }
    }
}

impl WireError for ShareSessionError {
    fn wire(&self) -> ResponseError {
        match self {
            Self::NotFound => ResponseError::ShareSessionNotFound,
            Self::InvalidEpoch => ResponseError::InvalidShareSessionEpoch,
            Self::LimitReached => ResponseError::ShareSessionLimitReached,
            Self::InvalidRequest => ResponseError::InvalidRequest,
        }
    }
}

impl WireError for InvalidBatch {
    fn wire(&self) -> ResponseError {
        match self {
            Self::Batch(BatchError::Codec(_)) => ResponseError::UnsupportedCompressionType,
            Self::Batch(BatchError::Timestamp(_)) => ResponseError::InvalidTimestamp,
            Self::Refused(records) => records.wire(),
            Self::Batch(
                BatchError::Magic(0 | 1) | BatchError::Count { .. } | BatchError::Control,
            ) => ResponseError::InvalidRecord,
            Self::Batch(_) => ResponseError::CorruptMessage,
            // Sent so: trying again would not help.
            Self::Compression(_) | Self::Records(_) => ResponseError::InvalidRecord,
            Self::TooLarge { .. } => ResponseError::MessageTooLarge,
            Self::NotOneBatch(_) | Self::Record(_) => ResponseError::InvalidRecord,
        }
    }
}

impl WireError for RecordErrors {
    fn wire(&self) -> ResponseError {
        match self.is_of_timestamps() {
            true => ResponseError::InvalidTimestamp,
            false => ResponseError::InvalidRecord,
        }
    }
}

impl WireError for MetaError {
    fn wire(&self) -> ResponseError {
        match self {
            Self::Unavailable(_) => ResponseError::CoordinatorNotAvailable,
            _ => ResponseError::UnknownServerError,
        }
    }
}

impl WireError for TopicConfigError {
    fn wire(&self) -> ResponseError {
        ResponseError::InvalidConfig
    }
}

impl WireError for ClusterError {
    fn wire(&self) -> ResponseError {
        match self {
            Self::TopicExists(_) => ResponseError::TopicAlreadyExists,
            Self::Name(_) | Self::Collision(..) => ResponseError::InvalidTopicException,
            Self::UnknownTopic | Self::NoSuchTopic(_) => ResponseError::UnknownTopicOrPartition,
            Self::UnknownTopicId => ResponseError::UnknownTopicId,
            Self::Partitions(_) => ResponseError::InvalidPartitions,
            Self::ReplicationFactor(_) => ResponseError::InvalidReplicationFactor,
            Self::Assignment(_) => ResponseError::InvalidReplicaAssignment,
            Self::Config(_) | Self::ConfigChange(_) => ResponseError::InvalidConfig,
            Self::Request(_) => ResponseError::InvalidRequest,
            Self::QuotaExceeded => ResponseError::ThrottlingQuotaExceeded,
            Self::NotController => ResponseError::NotController,
            Self::StaleBroker => ResponseError::StaleBrokerEpoch,
            // Met at start only, before anything is served.
            Self::DuplicateBroker { .. } | Self::ForeignRoot(_) | Self::OtherTree(..) => {
                ResponseError::UnknownServerError
            }
            Self::DeletionDisabled => ResponseError::TopicDeletionDisabled,
            Self::Meta(MetaError::Unavailable(_)) => ResponseError::RequestTimedOut,
            // A topic's node holds all its partitions.
            Self::Meta(MetaError::TooLarge(_)) => ResponseError::InvalidPartitions,
            Self::Meta(_) => ResponseError::UnknownServerError,
            Self::Storage(_) | Self::DataDir(_) => ResponseError::KafkaStorageError,
        }
    }
}

impl WireError for AclRefusal {
    fn wire(&self) -> ResponseError {
        match self {
            Self::Bindings | Self::Pattern | Self::Creations => ResponseError::PolicyViolation,
            Self::Deletions => ResponseError::InvalidRequest,
        }
    }
}

impl WireError for IsrRefusal {
    fn wire(&self) -> ResponseError {
        match self {
            Self::UnknownTopic => ResponseError::UnknownTopicId,
            Self::UnknownPartition => ResponseError::UnknownTopicOrPartition,
            Self::NotController => ResponseError::NotController,
            Self::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
            Self::InvalidRequest => ResponseError::InvalidRequest,
            Self::InvalidUpdateVersion => ResponseError::InvalidUpdateVersion,
            Self::IneligibleReplica => ResponseError::IneligibleReplica,
            Self::NewLeaderElected => ResponseError::NewLeaderElected,
        }
    }
}

impl WireError for ElectionRefusal {
    fn wire(&self) -> ResponseError {
        match self {
            Self::UnknownTopic(_) | Self::UnknownPartition(..) => {
                ResponseError::UnknownTopicOrPartition
            }
            Self::NotNeeded => ResponseError::ElectionNotNeeded,
            Self::PreferredNotAvailable => ResponseError::PreferredLeaderNotAvailable,
            Self::NoneEligible | Self::StrictOrder { .. } | Self::NoneInSync(..) => {
                ResponseError::EligibleLeadersNotAvailable
            }
            Self::OrdinaryOrder(_) => ResponseError::InvalidRequest,
        }
    }
}

impl WireError for ReassignmentRefusal {
    fn wire(&self) -> ResponseError {
        match self {
            Self::Unknown(_) => ResponseError::UnknownTopicOrPartition,
            Self::NoneInProgress => ResponseError::NoReassignmentInProgress,
            Self::Assignment(_) => ResponseError::InvalidReplicaAssignment,
            Self::ReplicationFactor { .. } => ResponseError::InvalidReplicationFactor,
        }
    }
}

impl WireError for TransactionError {
    fn wire(&self) -> ResponseError {
        match self {
            Self::InvalidRequest => ResponseError::InvalidRequest,
            Self::InvalidProducerIdMapping => ResponseError::InvalidProducerIdMapping,
            Self::ProducerFenced => ResponseError::ProducerFenced,
            Self::ConcurrentTransactions => ResponseError::ConcurrentTransactions,
            Self::InvalidTxnState => ResponseError::InvalidTxnState,
            Self::TransactionAbortable => ResponseError::TransactionAbortable,
            Self::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            Self::InvalidTransactionTimeout => ResponseError::InvalidTransactionTimeout,
            Self::TransactionalIdAuthorizationFailed => {
                ResponseError::TransactionalIdAuthorizationFailed
            }
            Self::PolicyViolation => ResponseError::PolicyViolation,
            Self::TransactionalIdNotFound => ResponseError::TransactionalIdNotFound,
            Self::NotCoordinator => ResponseError::NotCoordinator,
            Self::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
            Self::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
            Self::UnknownServerError => ResponseError::UnknownServerError,
        }
    }
}

impl WireError for GroupError {
    fn wire(&self) -> ResponseError {
        match self {
            Self::InvalidGroupId => ResponseError::InvalidGroupId,
            Self::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
            Self::UnknownMemberId => ResponseError::UnknownMemberId,
            Self::MemberIdRequired => ResponseError::MemberIdRequired,
            Self::FencedInstanceId => ResponseError::FencedInstanceId,
            Self::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
            Self::InconsistentGroupProtocol => ResponseError::InconsistentGroupProtocol,
            Self::IllegalGeneration => ResponseError::IllegalGeneration,
            Self::RebalanceInProgress => ResponseError::RebalanceInProgress,
            Self::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
            Self::NotCoordinator => ResponseError::NotCoordinator,
            Self::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
            Self::GroupIdNotFound => ResponseError::GroupIdNotFound,
            Self::NonEmptyGroup => ResponseError::NonEmptyGroup,
            Self::GroupSubscribedToTopic => ResponseError::GroupSubscribedToTopic,
            Self::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
            Self::OffsetsTooLarge => ResponseError::InvalidCommitOffsetSize,
            Self::FencedMemberEpoch => ResponseError::FencedMemberEpoch,
            Self::StaleMemberEpoch => ResponseError::StaleMemberEpoch,
            Self::UnreleasedInstanceId => ResponseError::UnreleasedInstanceId,
            Self::UnsupportedAssignor => ResponseError::UnsupportedAssignor,
            Self::InvalidRegularExpression => ResponseError::InvalidRegularExpression,
            Self::StreamsInvalidTopology => ResponseError::StreamsInvalidTopology,
            Self::UnsupportedVersion => ResponseError::UnsupportedVersion,
            Self::UnstableOffsetCommit => ResponseError::UnstableOffsetCommit,
            Self::InvalidProducerEpoch => ResponseError::InvalidProducerEpoch,
            Self::InvalidTxnState => ResponseError::InvalidTxnState,
            Self::TransactionCoordinatorFenced => ResponseError::TransactionCoordinatorFenced,
            Self::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            Self::InvalidRequest => ResponseError::InvalidRequest,
            Self::UnknownServerError => ResponseError::UnknownServerError,
        }
    }
}
