//! What members say of records that they have, in ShareFetch and ShareAcknowledge alike.

use std::sync::Arc;

use futures_util::future::join_all;
use metaq_protocol::ResponseError;
use uuid::Uuid;

use super::authorize::{Operation, Resource, authorize};
use super::errors::WireError;
use super::share_settings::ShareSettings;
use super::{Caller, Context};
use crate::share::{Acknowledgement, PARTITIONS_MAX, ShareKey, ShareStateError, SharedPartition};

/// The type that renews a lock (KIP-1222).
const RENEW: i8 = 4;
/// Longest member id (Kafka's KafkaApis.isMemberIdValid).
const MEMBER_ID_CHARS_MAX: usize = 36;
/// Requests may renew locks from this version on.
const RENEW_FROM: i16 = 2;

/// Why something is refused, and with which text.
pub(super) type Refusal = (ResponseError, String);

/// The error in Kafka's words, where they are not the name of the code.
pub(super) fn refusal(error: ResponseError) -> Refusal {
    use ResponseError as E;
    let why = match error {
        E::CoordinatorLoadInProgress => {
            "The coordinator is loading and hence can't process requests."
        }
        E::CoordinatorNotAvailable => "The coordinator is not available.",
        E::InvalidGroupId => "The group id is invalid.",
        E::NonEmptyGroup => "The group is not empty.",
        E::NotCoordinator => "This is not the correct coordinator.",
        E::UnknownServerError => {
            "The server experienced an unexpected error when processing the request."
        }
        E::UnknownTopicOrPartition => "This server does not host this topic-partition.",
        _ => return (error, error.to_string()),
    };
    (error, why.to_owned())
}

/// Whether a text can be the id of a member.
pub(super) fn is_member_id(id: &str) -> bool {
    (1..=MEMBER_ID_CHARS_MAX).contains(&id.encode_utf16().count())
}

/// What a request says of the records of a partition.
pub(super) struct SaidOf {
    pub(super) partition: SharedPartition,
    pub(super) said: Vec<Acknowledgement>,
}

/// What became of it, by partition.
pub(super) type Outcomes = Vec<(SharedPartition, Result<(), Refusal>)>;

/// A share group's member that asks.
pub(super) struct Member<'a> {
    pub(super) cx: &'a Arc<Context>,
    pub(super) caller: &'a Caller,
    pub(super) group_id: &'a str,
    pub(super) member_id: &'a str,
}

/// Whether a request names no more partitions than a session may have, one that is named twice counted twice.
pub(super) fn check_named(partitions: usize) -> Result<(), Refusal> {
    if partitions <= PARTITIONS_MAX {
        return Ok(());
    }
    let why = format!("The request names {partitions} partitions; {PARTITIONS_MAX} are the most.");
    Err((ResponseError::InvalidRequest, why))
}

impl<'a> Member<'a> {
    /// The member of a request, if it may ask.
    pub(super) fn of(
        cx: &'a Arc<Context>,
        caller: &'a Caller,
        group_id: Option<&'a str>,
        member_id: Option<&'a str>,
    ) -> Result<Self, Refusal> {
        // The texts are for the operator: Kafka gives clients the code alone.
        let invalid = |why: &str| (ResponseError::InvalidRequest, why.to_owned());
        let group_id = group_id.ok_or_else(|| invalid("Invalid group id in the request."))?;
        authorize(cx, caller, Operation::Read, Resource::Group(group_id))
            .map_err(|denied| (denied.wire(), denied.to_string()))?;
        let member_id = member_id.filter(|id| is_member_id(id));
        Ok(Self {
            cx,
            caller,
            group_id,
            member_id: member_id.ok_or_else(|| invalid("Invalid member id in the request."))?,
        })
    }

    pub(super) fn key(&self, (topic_id, partition): SharedPartition) -> ShareKey {
        ShareKey {
            group_id: self.group_id.into(),
            topic_id,
            partition,
        }
    }

    /// Whether it may read a partition, and there is one.
    pub(super) fn check(&self, (topic_id, partition): SharedPartition) -> Result<(), Refusal> {
        let image = self.cx.cluster.image();
        let topic = image.topic_by_id(topic_id);
        let topic = topic.ok_or_else(|| refusal(ResponseError::UnknownTopicId))?;
        let resource = Resource::Topic(&topic.name);
        authorize(self.cx, self.caller, Operation::Read, resource)
            .map_err(|denied| (denied.wire(), denied.to_string()))?;
        match topic.partition(partition) {
            Some(_) => Ok(()),
            None => Err(refusal(ResponseError::UnknownTopicOrPartition)),
        }
    }

    /// Lets what it says of records count; answered when that is stored.
    pub(super) async fn acknowledge(
        &self,
        settings: &ShareSettings,
        all: &[SaidOf],
        is_renew: bool,
    ) -> Outcomes {
        let types_max = match self.caller.version >= RENEW_FROM {
            true => RENEW,
            false => RENEW - 1,
        };
        let waiting: Vec<_> = all
            .iter()
            .map(|of| {
                let begun = self
                    .check_known(of.partition.0)
                    .and_then(|()| check_said(&of.said, types_max, is_renew))
                    .and_then(|()| self.check(of.partition))
                    .and_then(|()| self.begin(settings, of));
                (of.partition, begun)
            })
            .collect();
        let outcomes = waiting.into_iter().map(|(partition, begun)| async move {
            let outcome = match begun {
                Err(refused) => Err(refused),
                Ok(None) => Ok(()),
                Ok(Some(counts)) => match counts.await {
                    Ok(outcome) => outcome.map_err(refusal_of),
                    Err(_) => Err(refusal(ResponseError::NotLeaderOrFollower)),
                },
            };
            (partition, outcome)
        });
        join_all(outcomes).await
    }

    fn check_known(&self, topic_id: Uuid) -> Result<(), Refusal> {
        match self.cx.cluster.image().topic_by_id(topic_id) {
            Some(_) => Ok(()),
            None => Err(refusal(ResponseError::UnknownTopicId)),
        }
    }

    fn begin(
        &self,
        settings: &ShareSettings,
        of: &SaidOf,
    ) -> Result<Option<crate::share::Acknowledged>, Refusal> {
        if of.said.is_empty() {
            return Ok(None);
        }
        let leading = self.cx.shares.partitions.get(&self.key(of.partition));
        let leading = leading.ok_or_else(|| refusal(ResponseError::UnknownTopicOrPartition))?;
        let said = leading.acknowledge(settings.limits, self.member_id, &of.said);
        let said = said.map_err(refusal_of)?;
        said.map_err(|error| (error.wire(), error.to_string()))
    }

    /// Ends its session, and gives back what it has.
    pub(super) fn leave(&self) {
        let sessions = &self.cx.shares.sessions;
        let partitions = sessions.end(self.group_id, self.member_id);
        release(self.cx, self.group_id, self.member_id, &partitions);
    }
}

/// Gives back what a member has of some partitions.
pub(super) fn release(cx: &Context, group_id: &str, member: &str, partitions: &[SharedPartition]) {
    for (topic_id, partition) in partitions {
        let key = ShareKey {
            group_id: group_id.into(),
            topic_id: *topic_id,
            partition: *partition,
        };
        if let Some(leading) = cx.shares.partitions.get(&key) {
            // Nobody waits for it.
            drop(leading.release(member));
        }
    }
}

/// As the clients of leaders learn it (SharePartition.fetchPersisterError).
pub(super) fn refusal_of(error: ShareStateError) -> Refusal {
    use ResponseError as E;
    use ShareStateError as S;
    let code = match error {
        S::NotCoordinator | S::CoordinatorLoadInProgress | S::CoordinatorNotAvailable => {
            E::CoordinatorNotAvailable
        }
        S::GroupIdNotFound => E::GroupIdNotFound,
        S::UnknownTopicOrPartition => E::UnknownTopicOrPartition,
        S::FencedLeaderEpoch | S::FencedStateEpoch | S::NotLeaderOrFollower => {
            E::NotLeaderOrFollower
        }
        S::InvalidRequest | S::UnknownServerError => E::UnknownServerError,
    };
    (code, error.to_string())
}

/// Whether what is said of a partition makes sense by itself (KafkaApis.validateAcknowledgementBatches).
fn check_said(said: &[Acknowledgement], types_max: i8, is_renew: bool) -> Result<(), Refusal> {
    let mut before = -1;
    for batch in said {
        let types = &batch.types;
        let records = batch.last.checked_sub(batch.first);
        let is_valid = batch.first <= batch.last
            && batch.first >= before
            && !types.is_empty()
            && (types.len() == 1 || records == Some(types.len() as i64 - 1))
            && types.iter().all(|kind| (0..=types_max).contains(kind))
            && (is_renew || !types.contains(&RENEW));
        if !is_valid {
            return Err(refusal(ResponseError::InvalidRequest));
        }
        before = batch.last;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(first: i64, last: i64, types: &[i8]) -> Acknowledgement {
        Acknowledgement {
            first,
            last,
            types: types.to_vec(),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_counts() {
        let check = |said: &[Acknowledgement]| check_said(said, RENEW, false).is_ok();
        assert!(check(&[]));
        assert!(check(&[say(0, 9, &[1]), say(10, 11, &[1, 2])]));
        for wrong in [
            vec![say(5, 4, &[1])],
            vec![say(-2, 4, &[1])],
            vec![say(5, 9, &[1]), say(4, 4, &[1])],
            vec![say(0, 9, &[])],
            vec![say(0, 9, &[1, 1])],
            vec![say(0, 0, &[5])],
            vec![say(0, 0, &[-1])],
            vec![say(0, 0, &[RENEW])],
        ] {
            assert!(!check(&wrong), "{wrong:?}");
        }
        let renews = [say(0, 0, &[RENEW])];
        assert!(check_said(&renews, RENEW, true).is_ok());
        assert!(check_said(&renews, RENEW - 1, true).is_err());
    }
}
