//! What is stored of share partitions, wherever their coordinator is: this broker, or another one, which is asked as Kafka's
//! brokers ask each other (keys 83–87).
//!
//! Tests: tests/shares_cluster.rs.

use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::read_share_group_state_request as read_request;
use metaq_protocol::messages::write_share_group_state_request as write_request;
use metaq_protocol::messages::{ReadShareGroupStateRequest, WriteShareGroupStateRequest};
use metaq_protocol::protocol::Request;

use super::context::Context;
use super::dead_letters::bury;
use super::forward::FORWARDED;
use super::share_state_tags::{numbers, set_numbers};
use super::shared::text;
use crate::cluster::Broker;
use crate::peer::Lane;
use crate::share::{
    DeadLetters, Reading, RecordState, ShareCoordinator, ShareKey, ShareStateError, ShareStore,
    StateBatch, StoredState, Storing, WriteOrder, WrittenState,
};

/// How long another broker may take to answer. Its store may be slow.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The versions that are asked in.
pub(super) const VERSION: i16 = 0;
const WRITE_VERSION: i16 = 1;

pub(super) type Outcome<T> = Result<T, ShareStateError>;

/// The coordinators, for leaders of this broker.
pub(super) struct ShareStates(pub(super) Arc<Context>);

impl ShareStore for ShareStates {
    fn read(&self, key: ShareKey, reading: Reading) -> Storing<StoredState> {
        let cx = self.0.clone();
        Box::pin(async move { read(&cx, &key, reading).await })
    }

    fn bury(&self, key: ShareKey, letters: DeadLetters) -> Storing<i64> {
        let cx = self.0.clone();
        Box::pin(async move { bury(&cx, &key, letters).await })
    }

    fn write(&self, key: ShareKey, written: WrittenState) -> Storing<()> {
        let cx = self.0.clone();
        Box::pin(async move { write(&cx, &key, written).await })
    }
}

/// The broker that coordinates a share partition; `None` for this one.
pub(super) fn coordinator_of(cx: &Context, key: &ShareKey) -> Outcome<Option<Broker>> {
    let image = cx.cluster.image();
    let broker = image.coordinator_of(ShareCoordinator::slot_of(key));
    let broker = broker.ok_or(ShareStateError::CoordinatorNotAvailable)?;
    Ok((broker.id != cx.cluster.broker_id()).then(|| broker.clone()))
}

pub(super) async fn ask<R: Request>(
    cx: &Context,
    broker: &Broker,
    version: i16,
    request: &R,
) -> Outcome<R::Response> {
    let to = (Lane::Shares, broker);
    let answer = cx.call(to, (FORWARDED, version), request, ANSWER_MAX).await;
    answer.map_err(|error| {
        tracing::debug!(broker = broker.id, %error, "a coordinator of share partitions does not answer");
        ShareStateError::CoordinatorNotAvailable
    })
}

/// What another broker answers, as its code says it.
pub(super) fn outcome_of(code: i16) -> Outcome<()> {
    use ResponseError as E;
    use ShareStateError as S;
    let Some(error) = ResponseError::try_from_code(code) else {
        return match code {
            0 => Ok(()),
            _ => Err(S::UnknownServerError),
        };
    };
    Err(match error {
        E::InvalidRequest => S::InvalidRequest,
        E::FencedLeaderEpoch => S::FencedLeaderEpoch,
        E::FencedStateEpoch => S::FencedStateEpoch,
        E::GroupIdNotFound => S::GroupIdNotFound,
        E::UnknownTopicOrPartition => S::UnknownTopicOrPartition,
        E::NotLeaderOrFollower => S::NotLeaderOrFollower,
        E::NotCoordinator => S::NotCoordinator,
        E::CoordinatorLoadInProgress => S::CoordinatorLoadInProgress,
        E::CoordinatorNotAvailable => S::CoordinatorNotAvailable,
        _ => S::UnknownServerError,
    })
}

/// What a broker answers that does not say anything about the share partition.
pub(super) const NO_ANSWER: ShareStateError = ShareStateError::UnknownServerError;

async fn read(cx: &Context, key: &ShareKey, reading: Reading) -> Outcome<StoredState> {
    let Some(broker) = coordinator_of(cx, key)? else {
        return cx.shares.states.read(key, reading).await;
    };
    let mut partition = read_request::PartitionData::default()
        .with_partition(key.partition)
        .with_leader_epoch(reading.leader_epoch);
    set_numbers(
        &mut partition.unknown_tagged_fields,
        &[reading.log_end as u64],
    );
    let topic = read_request::ReadStateData::default()
        .with_topic_id(key.topic_id)
        .with_partitions(vec![partition]);
    let request = ReadShareGroupStateRequest::default()
        .with_group_id(text(&*key.group_id))
        .with_topics(vec![topic]);
    let answer = ask(cx, &broker, VERSION, &request).await?;
    let mut found = answer.results.iter().flat_map(|topic| &topic.partitions);
    let found = found.next().ok_or(NO_ANSWER)?;
    outcome_of(found.error_code)?;
    let batches = found.state_batches.iter();
    let batches = batches.map(|batch| {
        Some(StateBatch {
            first: batch.first_offset,
            last: batch.last_offset,
            state: RecordState::of_id(batch.delivery_state)?,
            delivery_count: batch.delivery_count,
        })
    });
    let [number] = numbers(&found.unknown_tagged_fields).unwrap_or_default();
    Ok(StoredState {
        reading: number,
        start: found.start_offset,
        state_epoch: found.state_epoch,
        batches: batches.collect::<Option<_>>().ok_or(NO_ANSWER)?,
    })
}

async fn write(cx: &Context, key: &ShareKey, written: WrittenState) -> Outcome<()> {
    let Some(broker) = coordinator_of(cx, key)? else {
        return cx.shares.states.write(key, written).await;
    };
    let batches = written.batches.iter().map(|batch| {
        write_request::StateBatch::default()
            .with_first_offset(batch.first)
            .with_last_offset(batch.last)
            .with_delivery_state(batch.state.id())
            .with_delivery_count(batch.delivery_count)
    });
    let mut partition = write_request::PartitionData::default()
        .with_partition(key.partition)
        .with_state_epoch(written.state_epoch)
        .with_leader_epoch(written.leader_epoch)
        .with_start_offset(written.start)
        .with_delivery_complete_count(written.delivery_complete_count)
        .with_state_batches(batches.collect());
    let WriteOrder { reading, number } = written.order;
    set_numbers(&mut partition.unknown_tagged_fields, &[reading, number]);
    let topic = write_request::WriteStateData::default()
        .with_topic_id(key.topic_id)
        .with_partitions(vec![partition]);
    let request = WriteShareGroupStateRequest::default()
        .with_group_id(text(&*key.group_id))
        .with_topics(vec![topic]);
    let answer = ask(cx, &broker, WRITE_VERSION, &request).await?;
    let mut found = answer.results.iter().flat_map(|topic| &topic.partitions);
    outcome_of(found.next().ok_or(NO_ANSWER)?.error_code)
}
