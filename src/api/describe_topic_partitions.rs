//! DescribeTopicPartitions (key 75, v0; KIP-966): topics in name order, a bounded number of partitions at a time.
//!
//! - `__consumer_offsets` and `__transaction_state`, when they are named, have slots as their partitions, as for Metadata.
//! - EligibleLeaderReplicas and LastKnownElr are never null, as by Kafka's KRaftMetadataCache. LastKnownElr is the last known
//!   leader, while none leads (Kafka's PartitionChangeBuilder with useLastKnownLeaderInBalancedRecovery). Unlike Kafka's the in-sync
//!   replicas are not empty then: they are those that may come back and lead.
//! - An empty list means all topics. The cursor of an answer is where the next request goes on.
//!
//! Tests: tests/refusals.rs, tests/listeners.rs.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use metaq_protocol::messages::{
    ApiKey, BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};

use super::authorize::{
    Operation, Resource, ResourceKind, authorize, authorized_operations, is_permitted,
};
use super::errors::WireError;
use super::shared::{broker_ids, leadership, mirrored_topic, topic_name};
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::{Image, PartitionInfo, Topic, check_topic_name, is_internal_name};
use crate::session::Session;

/// `max.request.partition.size.limit` of Kafka.
const PARTITIONS_MAX: usize = 2000;

pub(super) const API: Api = Api {
    key: ApiKey::DescribeTopicPartitions,
    order: Order::Alone,
    needs: &[(Operation::Describe, ResourceKind::Topic)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = cx.cluster.image();
    let (from, mut first) = match &request.cursor {
        Some(cursor) => (
            cursor.topic_name.to_string(),
            usize::try_from(cursor.partition_index).unwrap_or(0),
        ),
        None => (String::new(), 0),
    };
    let names: BTreeSet<String> = match request.topics.is_empty() {
        true => {
            let mirrored = mirrored_topic(&cx, &image).map(|topic| topic.name.to_string());
            let known = image.topics_from(&from).map(|topic| topic.name.to_string());
            known.chain(mirrored.filter(|name| *name >= from)).collect()
        }
        false => request
            .topics
            .iter()
            .map(|topic| topic.name.to_string())
            .filter(|name| *name >= from)
            .collect(),
    };
    if let Some(cursor) = &request.cursor {
        let is_asked = request.topics.is_empty() || names.contains(cursor.topic_name.as_str());
        if !is_asked || cursor.partition_index < 0 {
            return of_no_cursor(request);
        }
    }
    let mut left = usize::try_from(request.response_partition_limit)
        .unwrap_or(0)
        .clamp(1, PARTITIONS_MAX);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        let start = if name == from {
            std::mem::take(&mut first)
        } else {
            0
        };
        if left == 0 {
            response.next_cursor = Some(cursor(&name, start));
            break;
        }
        let resource = Resource::Topic(&name);
        let right = Operation::Describe;
        // Of all topics, those that it may not describe are not there.
        if request.topics.is_empty() && !is_permitted(&cx, &caller, right, resource) {
            continue;
        }
        let found = match authorize(&cx, &caller, right, resource) {
            Err(denied) => Err(denied.wire()),
            Ok(()) if check_topic_name(&name).is_err() => Err(ResponseError::InvalidTopicException),
            Ok(()) => image
                .topic_or_internal(&name)
                .ok_or(ResponseError::UnknownTopicOrPartition),
        };
        let topic = match found {
            Ok(topic) => topic,
            Err(error) => {
                let refusal = refused(topic_name(&name), error);
                // Of what is not there too, as by Kafka.
                let refusal = match error {
                    ResponseError::UnknownTopicOrPartition
                    | ResponseError::InvalidTopicException => refusal
                        .with_topic_authorized_operations(authorized_operations(
                            &cx,
                            &caller.session,
                            resource,
                        )),
                    _ => refusal,
                };
                response.topics.push(refusal);
                continue;
            }
        };
        let end = topic.partitions.len().min(start.saturating_add(left));
        response
            .topics
            .push(described(&cx, &image, &caller.session, &topic, start..end));
        left -= end.saturating_sub(start);
        if end < topic.partitions.len() {
            response.next_cursor = Some(cursor(&name, end));
            break;
        }
    }
    response
}

fn refused(name: TopicName, error: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(name))
}

/// A cursor must be at a partition of a topic that is asked for (Kafka's DescribeTopicPartitionsRequestHandler).
fn of_no_cursor(request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.into_iter();
    let topics = topics.map(|topic| refused(topic.name, ResponseError::InvalidRequest));
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}

fn cursor(name: &str, partition: usize) -> Cursor {
    Cursor::default()
        .with_topic_name(topic_name(name))
        .with_partition_index(partition as i32)
}

fn last_known_leader(info: &PartitionInfo) -> &[i32] {
    match info.last_known_leader {
        -1 => &[],
        _ => std::slice::from_ref(&info.last_known_leader),
    }
}

fn described(
    cx: &Context,
    image: &Image,
    session: &Session,
    topic: &Topic,
    range: Range<usize>,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic.partitions.iter().enumerate();
    let partitions = partitions.take(range.end).skip(range.start);
    let partitions = partitions.map(|(index, info)| {
        let (leader, offline) = leadership(&image.brokers, &session.listener().name, info);
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(leader.err().map_or(0, |error| error.code()))
            .with_partition_index(index as i32)
            .with_leader_id(BrokerId(leader.unwrap_or(-1)))
            .with_leader_epoch(info.leader_epoch)
            .with_replica_nodes(broker_ids(&info.replicas))
            .with_isr_nodes(broker_ids(&info.isr))
            .with_eligible_leader_replicas(Some(broker_ids(&info.elr)))
            .with_last_known_elr(Some(broker_ids(last_known_leader(info))))
            .with_offline_replicas(broker_ids(&offline))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_is_internal(is_internal_name(&topic.name))
        .with_topic_authorized_operations(authorized_operations(
            cx,
            session,
            Resource::Topic(&topic.name),
        ))
        .with_partitions(partitions.collect())
}
