//! What other brokers ask about the states of share partitions (keys 83 to 87), as far as these requests are alike: brokers alone
//! may ask, and each share partition is answered by itself.

use metaq_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::authorize::{Operation, Resource, authorize};
use super::errors::WireError;
use super::share_states::Outcome;
use super::shared::message;
use super::{Caller, Context};
use crate::share::{ShareKey, ShareStateError};

/// What is found of a share partition, or the code and the text of a refusal.
pub(super) type StateAnswer<T> = Result<T, (i16, Option<StrBytes>)>;

/// A request about states of one group.
pub(super) struct StateRequest<'a> {
    cx: &'a Context,
    group_id: &'a str,
    may: StateAnswer<()>,
}

impl<'a> StateRequest<'a> {
    pub(super) fn of(cx: &'a Context, caller: &Caller, group_id: &'a str) -> Self {
        let may = authorize(cx, caller, Operation::ClusterAction, Resource::Cluster);
        Self {
            cx,
            group_id,
            may: may.map_err(|denied| (denied.code(), message(&denied))),
        }
    }

    /// Does what is asked of a share partition, if the caller may and there is one.
    pub(super) async fn answer<T, F>(
        &self,
        topic_id: Uuid,
        partition: i32,
        work: impl FnOnce(ShareKey) -> F,
    ) -> StateAnswer<T>
    where
        F: Future<Output = Outcome<T>>,
    {
        self.may.clone()?;
        let done = match self.key_of(topic_id, partition) {
            Ok(key) => work(key).await,
            Err(error) => Err(error),
        };
        done.map_err(|error| (error.code(), message(&error)))
    }

    fn key_of(&self, topic_id: Uuid, partition: i32) -> Outcome<ShareKey> {
        if self.group_id.is_empty() || topic_id.is_nil() || partition < 0 {
            return Err(ShareStateError::InvalidRequest);
        }
        let image = self.cx.cluster.image();
        let topic = image.topic_by_id(topic_id);
        match topic.is_some_and(|topic| topic.partition(partition).is_some()) {
            true => Ok(ShareKey {
                group_id: self.group_id.into(),
                topic_id,
                partition,
            }),
            false => Err(ShareStateError::UnknownTopicOrPartition),
        }
    }
}
