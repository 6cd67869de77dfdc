//! What the coordinator of a group does with the states of its share partitions, wherever their coordinators are.

use metaq_protocol::messages::delete_share_group_state_request as delete_request;
use metaq_protocol::messages::initialize_share_group_state_request as initialize_request;
use metaq_protocol::messages::read_share_group_state_summary_request as summary_request;
use metaq_protocol::messages::read_share_group_state_summary_response as summary_response;
use metaq_protocol::messages::{
    DeleteShareGroupStateRequest, InitializeShareGroupStateRequest,
    ReadShareGroupStateSummaryRequest,
};

use super::context::Context;
use super::errors::WireError;
use super::share_acknowledgements::{Refusal, refusal};
use super::share_state_tags::set_numbers;
use super::share_states::{NO_ANSWER, Outcome, VERSION, ask, coordinator_of, outcome_of};
use super::shared::text;
use crate::group::GroupError;
use crate::share::{ShareKey, ShareSummary};

/// Why a share group's offsets are neither set nor deleted, in Kafka's words.
pub(super) async fn group_refusal(cx: &Context, group_id: &str, error: GroupError) -> Refusal {
    if error != GroupError::GroupIdNotFound {
        return refusal(error.wire());
    }
    let why = match cx.coordinator.describe(group_id).await {
        Ok(Some(_)) => format!("Group {group_id} is not a share group."),
        _ => format!("Group {group_id} not found."),
    };
    (error.wire(), why)
}

/// The version in which summaries are asked for.
pub(super) const SUMMARY_VERSION: i16 = 1;

/// A group begins with a partition, at an offset or where its configuration says (-1).
pub(super) async fn initialize(
    cx: &Context,
    key: &ShareKey,
    state_epoch: i32,
    start: i64,
) -> Outcome<()> {
    let Some(broker) = coordinator_of(cx, key)? else {
        return cx.shares.states.initialize(key, state_epoch, start).await;
    };
    let partition = initialize_request::PartitionData::default()
        .with_partition(key.partition)
        .with_state_epoch(state_epoch)
        .with_start_offset(start);
    let topic = initialize_request::InitializeStateData::default()
        .with_topic_id(key.topic_id)
        .with_partitions(vec![partition]);
    let request = InitializeShareGroupStateRequest::default()
        .with_group_id(text(&*key.group_id))
        .with_topics(vec![topic]);
    let answer = ask(cx, &broker, VERSION, &request).await?;
    let mut found = answer.results.iter().flat_map(|topic| &topic.partitions);
    outcome_of(found.next().ok_or(NO_ANSWER)?.error_code)
}

/// A group has no more to do with a partition, unless it has a later state epoch.
pub(super) async fn delete(cx: &Context, key: &ShareKey, state_epoch: i32) -> Outcome<()> {
    let Some(broker) = coordinator_of(cx, key)? else {
        return cx.shares.states.delete(key, state_epoch).await;
    };
    let mut partition = delete_request::PartitionData::default().with_partition(key.partition);
    set_numbers(
        &mut partition.unknown_tagged_fields,
        &[u64::from(state_epoch.unsigned_abs())],
    );
    let topic = delete_request::DeleteStateData::default()
        .with_topic_id(key.topic_id)
        .with_partitions(vec![partition]);
    let request = DeleteShareGroupStateRequest::default()
        .with_group_id(text(&*key.group_id))
        .with_topics(vec![topic]);
    let answer = ask(cx, &broker, VERSION, &request).await?;
    let mut found = answer.results.iter().flat_map(|topic| &topic.partitions);
    outcome_of(found.next().ok_or(NO_ANSWER)?.error_code)
}

/// What is stored of a share partition, in short.
pub(super) async fn summary(cx: &Context, key: &ShareKey) -> Outcome<ShareSummary> {
    let Some(broker) = coordinator_of(cx, key)? else {
        return cx.shares.states.summary(key).await;
    };
    let topic = summary_request::ReadStateSummaryData::default()
        .with_topic_id(key.topic_id)
        .with_partitions(vec![asked_summary(key)]);
    let request = ReadShareGroupStateSummaryRequest::default()
        .with_group_id(text(&*key.group_id))
        .with_topics(vec![topic]);
    let answer = ask(cx, &broker, SUMMARY_VERSION, &request).await?;
    let mut found = answer.results.iter().flat_map(|topic| &topic.partitions);
    summary_in(found.next().ok_or(NO_ANSWER)?)
}

/// A partition whose summary is asked for.
pub(super) fn asked_summary(key: &ShareKey) -> summary_request::PartitionData {
    summary_request::PartitionData::default()
        .with_partition(key.partition)
        .with_leader_epoch(0)
}

/// What is answered to that.
pub(super) fn summary_in(found: &summary_response::PartitionResult) -> Outcome<ShareSummary> {
    outcome_of(found.error_code)?;
    Ok(ShareSummary {
        start: found.start_offset,
        state_epoch: found.state_epoch,
        leader_epoch: found.leader_epoch,
        delivery_complete_count: found.delivery_complete_count,
    })
}
