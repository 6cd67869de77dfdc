//! OffsetFetch (key 9, v1–v10; KIP-88, 447, 709, 848): a group's offsets.
//!
//! - Topics are named by their ids alone from v10 on. What was committed in a deleted topic of the same name is not told.
//! - A null list of topics (v2+) means all. Several groups at a time from v8 on.
//! - A member's id and epoch (v9) do not matter to a classic group, as by Kafka. In a broadcast group a member gets its own
//!   offsets: told by its id, else by the connection that it speaks by, else by its client id; others get the slowest member's.
//!   There a member that is named without an epoch is one that somebody else looks at.
//! - Offset -1 where nothing was committed.
//! - With `require_stable` (v7+) UNSTABLE_OFFSET_COMMIT for partitions that an open transaction has an offset of.
//!
//! Tests: tests/refusals.rs, tests/versions.rs.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use metaq_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use metaq_protocol::messages::{ApiKey, OffsetFetchRequest, OffsetFetchResponse};

use super::authorize::{Denied, Operation, Resource, ResourceKind, authorize};
use super::errors::{WireError, code_of};
use super::room::ANSWER_BYTES_MAX;
use super::shared::{OFFSETS_BY_ID_VERSION_MIN, optional, text, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::group::{AskingMember, CommittedOffset, FoundOffset, OffsetsQuery};
use crate::memory::Share;

pub(super) const API: Api = Api {
    key: ApiKey::OffsetFetch,
    order: Order::Alone,
    needs: &[
        (Operation::Describe, ResourceKind::Group),
        (Operation::Describe, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// By topic; `None` for all.
type NamedPartitions = Option<Vec<(String, Vec<i32>)>>;

/// How offsets are asked for.
struct How {
    stable: bool,
    member: AskingMember,
}

impl How {
    fn of(caller: &Caller, group: &OffsetFetchRequestGroup, stable: bool) -> Self {
        let member = AskingMember {
            id: optional(&group.member_id),
            epoch: group.member_epoch,
            by: by(caller),
        };
        Self { stable, member }
    }
}

/// What tells a member where the request names none.
fn by(caller: &Caller) -> Option<(u64, String)> {
    let client_id = optional(&caller.client_id).unwrap_or_default();
    Some((caller.session.id(), client_id))
}

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if caller.version >= 8 {
        let mut groups = Vec::with_capacity(request.groups.len());
        // Reserved until the answer is put together.
        let mut reserved = Reserved::default();
        for group in request.groups {
            let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
            let how = How::of(&caller, &group, request.require_stable);
            let found = match caller.version >= OFFSETS_BY_ID_VERSION_MIN {
                true => fetch_by_id(&cx, &caller, (group, how), &mut reserved).await,
                false => fetch_by_name(&cx, &caller, (group, how), &mut reserved).await,
            };
            groups.push(match found {
                Ok(topics) => answer.with_topics(topics),
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let wanted: NamedPartitions = request.topics.map(|topics| {
        let named = topics.into_iter();
        let named = named.map(|topic| (topic.name.to_string(), topic.partition_indexes));
        named.collect()
    });
    let named = wanted.clone().filter(|_| caller.version < 2);
    let mut reserved = Reserved::default();
    let how = How {
        stable: request.require_stable,
        member: AskingMember {
            by: by(&caller),
            ..AskingMember::NOBODY
        },
    };
    let wanted = (wanted, how);
    match fetch(&cx, &caller, &request.group_id, wanted, &mut reserved).await {
        Ok(topics) => {
            OffsetFetchResponse::default().with_topics(topics.into_iter().map(single).collect())
        }
        // There is no error of the group in version 1.
        Err(error) => match named {
            Some(named) => OffsetFetchResponse::default().with_topics(refused(named, error)),
            None => OffsetFetchResponse::default().with_error_code(error.code()),
        },
    }
}

async fn fetch_by_name(
    cx: &Context,
    caller: &Caller,
    (group, how): (OffsetFetchRequestGroup, How),
    reserved: &mut Reserved,
) -> Result<Vec<OffsetFetchResponseTopics>, ResponseError> {
    let wanted: NamedPartitions = group.topics.map(|topics| {
        let named = topics.into_iter();
        let named = named.map(|topic| (topic.name.to_string(), topic.partition_indexes));
        named.collect()
    });
    let found = fetch(cx, caller, &group.group_id, (wanted, how), reserved).await?;
    Ok(found.into_iter().map(grouped).collect())
}

/// Ids that are not known come last, as by Kafka; of all topics, those that have no id are not there.
async fn fetch_by_id(
    cx: &Context,
    caller: &Caller,
    (group, how): (OffsetFetchRequestGroup, How),
    reserved: &mut Reserved,
) -> Result<Vec<OffsetFetchResponseTopics>, ResponseError> {
    let image = cx.cluster.image();
    let mut unknown = Vec::new();
    let are_named = group.topics.is_some();
    let wanted: NamedPartitions = group.topics.map(|topics| {
        let mut wanted = Vec::new();
        for topic in topics {
            match image.topic_by_id(topic.topic_id) {
                Some(known) => wanted.push((known.name.to_string(), topic.partition_indexes)),
                None => unknown.push(unknown_id(&topic)),
            }
        }
        wanted
    });
    let found = fetch(cx, caller, &group.group_id, (wanted, how), reserved).await?;
    let with_id = |mut topic: TopicOffsets| {
        let id = image.topic(&topic.name)?.id;
        for (_, offset) in topic.partitions.iter_mut().filter(|_| are_named) {
            // Kafka's OffsetMetadataManager.isMismatchedTopicId.
            if let Ok(offset) = offset {
                offset.take_if(|offset| offset.topic_id.is_some_and(|of| of != id));
            }
        }
        Some(grouped(topic).with_topic_id(id))
    };
    let known = found.into_iter().filter_map(with_id);
    Ok(known.chain(unknown).collect())
}

fn unknown_id(topic: &OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
    let partition = |index: &i32| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(*index)
            .with_committed_offset(-1)
            .with_error_code(ResponseError::UnknownTopicId.code())
    };
    OffsetFetchResponseTopics::default()
        .with_topic_id(topic.topic_id)
        .with_partitions(topic.partition_indexes.iter().map(partition).collect())
}

/// The same error for each partition, in the order asked.
fn refused(named: Vec<(String, Vec<i32>)>, error: ResponseError) -> Vec<OffsetFetchResponseTopic> {
    let partition = |index| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(-1)
            .with_metadata(Some(text("")))
            .with_error_code(error.code())
    };
    let topic = |(name, indexes): (String, Vec<i32>)| {
        OffsetFetchResponseTopic::default()
            .with_name(topic_name(&name))
            .with_partitions(indexes.into_iter().map(partition).collect())
    };
    named.into_iter().map(topic).collect()
}

/// What of the memory goes into an answer.
#[derive(Default)]
struct Reserved {
    shares: Vec<Share>,
    bytes: usize,
}

/// A topic with its partitions' offsets, in the order asked.
struct TopicOffsets {
    name: String,
    partitions: Vec<(i32, FoundOffset)>,
    denied: Option<Denied>,
}

impl TopicOffsets {
    /// What the client may know of them, with their error codes.
    fn visible(self) -> impl Iterator<Item = (i32, i16, Option<CommittedOffset>)> {
        let denied = self.denied.as_ref().map(WireError::code);
        let partitions = self.partitions.into_iter();
        partitions.map(move |(index, offset)| {
            let code = denied.unwrap_or_else(|| code_of(&offset));
            (index, code, offset.ok().flatten().filter(|_| code == 0))
        })
    }
}

async fn fetch(
    cx: &Context,
    caller: &Caller,
    group_id: &str,
    (wanted, how): (NamedPartitions, How),
    reserved: &mut Reserved,
) -> Result<Vec<TopicOffsets>, ResponseError> {
    if reserved.bytes > ANSWER_BYTES_MAX {
        return Err(ResponseError::InvalidRequest);
    }
    authorize(cx, caller, Operation::Describe, Resource::Group(group_id))
        .map_err(|denied| denied.wire())?;
    let keys = wanted.as_ref().map(|topics| {
        let of_topic = |(name, indexes): &(String, Vec<i32>)| {
            let name = name.clone();
            let each = indexes.clone().into_iter();
            each.map(move |index| (name.clone(), index))
        };
        topics.iter().flat_map(of_topic).collect()
    });
    let query = OffsetsQuery {
        keys,
        stable: how.stable,
        member: how.member,
    };
    let found = cx
        .coordinator
        .fetch_offsets(group_id, query)
        .await
        .map_err(|error| error.wire())?;
    reserved.bytes += found.share.bytes();
    reserved.shares.push(found.share);
    let topic = |name: String, partitions| TopicOffsets {
        denied: authorize(cx, caller, Operation::Describe, Resource::Topic(&name)).err(),
        name,
        partitions,
    };
    let mut offsets = found.offsets.into_iter();
    let Some(wanted) = wanted else {
        let mut topics: Vec<TopicOffsets> = Vec::new();
        for ((name, index), offset) in offsets {
            match topics.last_mut() {
                Some(topic) if topic.name == name => topic.partitions.push((index, offset)),
                _ => topics.push(topic(name, vec![(index, offset)])),
            }
        }
        // Those that the client may not describe are not there.
        topics.retain(|topic| topic.denied.is_none());
        return Ok(topics);
    };
    let of_topic = |(name, indexes): (String, Vec<i32>)| {
        let offsets = offsets.by_ref().take(indexes.len());
        let offsets = offsets.map(|((_, index), offset)| (index, offset));
        topic(name, offsets.collect())
    };
    Ok(wanted.into_iter().map(of_topic).collect())
}

fn parts(offset: Option<CommittedOffset>) -> (i64, i32, String) {
    offset.map_or((-1, -1, String::new()), |offset| {
        (offset.offset, offset.leader_epoch, offset.metadata)
    })
}

fn grouped(topic: TopicOffsets) -> OffsetFetchResponseTopics {
    let name = topic_name(&topic.name);
    let partition = |(index, error_code, offset): (i32, i16, Option<CommittedOffset>)| {
        let (offset, leader_epoch, metadata) = parts(offset);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(Some(text(metadata)))
            .with_error_code(error_code)
    };
    OffsetFetchResponseTopics::default()
        .with_name(name)
        .with_partitions(topic.visible().map(partition).collect())
}

fn single(topic: TopicOffsets) -> OffsetFetchResponseTopic {
    let name = topic_name(&topic.name);
    let partition = |(index, error_code, offset): (i32, i16, Option<CommittedOffset>)| {
        let (offset, leader_epoch, metadata) = parts(offset);
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(Some(text(metadata)))
            .with_error_code(error_code)
    };
    OffsetFetchResponseTopic::default()
        .with_name(name)
        .with_partitions(topic.visible().map(partition).collect())
}
