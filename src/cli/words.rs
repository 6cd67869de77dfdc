//! What error codes mean to a person.

use metaq_protocol::ResponseError;

/// The commoner errors in sentences; of the others the name, as words.
pub(super) fn in_words(error: ResponseError) -> String {
    match sentence(error) {
        Some(sentence) => sentence.to_owned(),
        None => spelled(&error.to_string()),
    }
}

fn sentence(error: ResponseError) -> Option<&'static str> {
    use ResponseError as E;
    Some(match error {
        E::UnknownServerError => "the broker failed to do it; its log says why",
        E::OffsetOutOfRange => "the partition does not have that offset",
        E::CorruptMessage => "the records are damaged",
        E::UnknownTopicOrPartition | E::UnknownTopicId => "no such topic or partition",
        E::LeaderNotAvailable => "the partition has no leader at this moment",
        E::NotLeaderOrFollower | E::FencedLeaderEpoch | E::UnknownLeaderEpoch => {
            "the partition is led by another broker by now"
        }
        E::RequestTimedOut => "it took longer than the request allows",
        E::BrokerNotAvailable => "the broker is not there",
        E::ReplicaNotAvailable => "the broker has no replica of the partition",
        E::MessageTooLarge => "the record is larger than the topic takes (max.message.bytes)",
        E::RecordListTooLarge => "the batch is larger than a segment",
        E::CoordinatorLoadInProgress => "the coordinator is about to take over",
        E::CoordinatorNotAvailable => "the group has no coordinator at this moment",
        E::NotCoordinator => "another broker coordinates it by now",
        E::NotEnoughReplicas => {
            "fewer replicas are in sync than min.insync.replicas, so that acks=all is refused"
        }
        E::NotEnoughReplicasAfterAppend => {
            "written, but fewer replicas were in sync then than min.insync.replicas"
        }
        E::TopicAuthorizationFailed => {
            "you may not do this to the topic, or the broker does it for nobody (acceptPublish, acceptSubscribe)"
        }
        E::GroupAuthorizationFailed => "you may not use this group",
        E::ClusterAuthorizationFailed => "you may not do this to the cluster",
        E::TransactionalIdAuthorizationFailed => "you may not use this transactional id",
        E::DelegationTokenAuthDisabled => {
            "the brokers have no delegation tokens: delegation.token.secret.key is not set"
        }
        E::DelegationTokenNotFound => "there is no such delegation token",
        E::DelegationTokenExpired => "the delegation token has expired",
        E::DelegationTokenOwnerMismatch => "only its owner and its renewers may do that",
        E::DelegationTokenRequestNotAllowed => {
            "only who says who it is by something else than a delegation token may ask for them"
        }
        E::DelegationTokenAuthorizationFailed => "you may not do this to tokens of others",
        E::InvalidPrincipalType => "only users, such as User:alice, renew delegation tokens",
        E::UnsupportedVersion => "the broker is of a version that cannot do this",
        E::TopicAlreadyExists => "there is such a topic already",
        E::InvalidTopicException => "no topic can have that name",
        E::InvalidPartitions => "a topic cannot have so many partitions",
        E::InvalidReplicationFactor => "there are not as many brokers as replicas are asked for",
        E::InvalidReplicaAssignment => "the replicas cannot be on those brokers",
        E::InvalidConfig => "the setting cannot have that value",
        E::NotController => "the cluster has no controller at this moment",
        E::PolicyViolation => "a limit of the broker forbids it",
        E::ReassignmentInProgress => "replicas of it are being moved",
        E::NoReassignmentInProgress => "nothing is being moved",
        E::KafkaStorageError => "the partition's files cannot be used; the broker's log says why",
        E::LogDirNotFound => {
            "no such data directory: it must be one of the broker's dataPath (log.dirs)"
        }
        E::NonEmptyGroup => "the group has members",
        E::GroupIdNotFound => "no such group",
        E::GroupSubscribedToTopic => "members of the group read the topic",
        E::UnknownMemberId => "the group has no such member",
        E::OffsetNotAvailable => "the partition's new leader does not know yet what is committed",
        E::PreferredLeaderNotAvailable => "the first of its replicas is not in sync",
        E::EligibleLeadersNotAvailable => "none of its replicas that may lead is there",
        E::ElectionNotNeeded => "the broker that was asked for leads it already",
        E::ThrottlingQuotaExceeded => "more was asked for than a quota allows",
        E::ResourceNotFound => "there is none such",
        E::TransactionalIdNotFound => "no such transactional id",
        E::ProducerFenced | E::InvalidProducerEpoch => {
            "another producer with the same transactional id has taken its place"
        }
        _ => return None,
    })
}

/// `InvalidFetchSize` as `invalid fetch size`.
fn spelled(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 8);
    for (n, c) in name.chars().enumerate() {
        if n > 0 && c.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_is_told_by_the_name_that_programs_have_for_it() {
        for code in -1..=133 {
            let Some(error) = ResponseError::try_from_code(code) else {
                continue;
            };
            let (words, name) = (in_words(error), error.to_string());
            assert!(words != name && words.contains(' '), "{code}: {words}");
        }
        assert_eq!(
            in_words(ResponseError::InvalidFetchSize),
            "invalid fetch size"
        );
        assert_eq!(
            in_words(ResponseError::Unknown(999)),
            "unknown error code: 999"
        );
    }
}
