//! DeleteTopics (key 20, v1–v6; KIP-4, 516): deletes topics by name, or by id from v6 on.
//!
//! - What is named twice, or both by name and by id, is refused and stays (Kafka's ControllerApis).
//! - A broker that is not the controller, and does not reach it either, knows nothing of what it does not find: topics may
//!   be there that it has not heard of. It answers NOT_CONTROLLER.
//! - When it is answered, the name is free and the files are out of the way; offsets that groups committed in
//!   the topic are forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::messages::delete_topics_response::DeletableTopicResult;
use metaq_protocol::messages::{ApiKey, DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use uuid::Uuid;

use super::applied::{Expected, wait_until_applied};
use super::authorize::{Denied, Operation, Resource, ResourceKind, authorize, is_permitted};
use super::charge::Mutations;
use super::errors::WireError;
use super::reply::Reply;
use super::shared::{DUPLICATE_NAME, message, topic_name};
use super::{Api, Caller, Context, Order, serve_by_controller};
use crate::cluster::{ClusterError, Image, Topic};

/// From this version on a quota of partitions is strict (KIP-599).
const STRICT_FROM: i16 = 5;

pub(super) const API: Api = Api {
    key: ApiKey::DeleteTopics,
    order: Order::Alone,
    needs: &[
        (Operation::Delete, ResourceKind::Cluster),
        (Operation::Delete, ResourceKind::Topic),
        (Operation::Describe, ResourceKind::Topic),
    ],
    start: |cx, caller, frame, stage| serve_by_controller(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DeleteTopicsRequest,
) -> Reply<DeleteTopicsResponse> {
    let asked: Vec<(Option<TopicName>, Uuid)> = match caller.version {
        6.. => request
            .topics
            .into_iter()
            .map(|topic| (topic.name, topic.topic_id))
            .collect(),
        _ => request
            .topic_names
            .into_iter()
            .map(|name| (Some(name), Uuid::nil()))
            .collect(),
    };
    let is_controller = cx.cluster.is_controller();
    let may_delete_all = is_permitted(&cx, &caller, Operation::Delete, Resource::Cluster);
    let may = |operation: Operation, name: &str| match may_delete_all {
        true => Ok(()),
        false => authorize(&cx, &caller, operation, Resource::Topic(name)),
    };
    let (topics, mut responses) = find(&cx.cluster.image(), is_controller, asked, may);
    let mut mutations = Mutations::of(&cx, &caller, STRICT_FROM);
    let (topics, exceeded): (Vec<_>, Vec<_>) = topics.into_iter().partition(|topic| {
        let mutations = mutations.as_mut();
        mutations.is_none_or(|mutations| mutations.record(topic.partitions.len()).is_ok())
    });
    let throttle = mutations.map_or(Duration::ZERO, |mutations| mutations.throttle());
    responses.extend(exceeded.into_iter().map(|topic| {
        let name = Some(topic_name(&topic.name));
        refused(name, topic.id, &ClusterError::QuotaExceeded)
    }));
    let outcomes = cx.cluster.controller().delete_topics(&topics).await;
    for (topic, outcome) in topics.iter().zip(outcomes) {
        let name = Some(topic_name(&topic.name));
        responses.push(match outcome {
            Ok(()) => {
                cx.coordinator.topic_deleted(&topic.name, topic.id).await;
                DeletableTopicResult::default()
                    .with_name(name)
                    .with_topic_id(topic.id)
            }
            Err(error) => refused(name, topic.id, &error),
        });
    }
    let outcomes = responses.iter().map(|response| {
        let name = response.name.as_deref().map_or("", |name| name);
        let why = response.error_message.as_deref().unwrap_or_default();
        (name, response.error_code, why)
    });
    cx.note_all(&caller, outcomes);
    let deleted = responses.iter().filter(|result| result.error_code == 0);
    let deleted = deleted.filter_map(|result| {
        let name = result.name.as_ref()?.to_string();
        Some(Expected::Gone(name, result.topic_id))
    });
    let deleted: Vec<Expected> = deleted.collect();
    wait_until_applied(&cx, &deleted, request.timeout_ms).await;
    let response = DeleteTopicsResponse::default().with_responses(responses);
    Reply::with_throttle(response, throttle)
}

/// The topics that are meant, each once, and the answers for those that are not to be deleted (Kafka's ControllerApis).
fn find(
    image: &Image,
    is_controller: bool,
    asked: Vec<(Option<TopicName>, Uuid)>,
    may: impl Fn(Operation, &str) -> Result<(), Denied>,
) -> (Vec<Arc<Topic>>, Vec<DeletableTopicResult>) {
    let request = |why: &str| ClusterError::Request(why.to_owned());
    let unknown = |error: ClusterError| match is_controller {
        true => error,
        false => ClusterError::NotController,
    };
    let mut refusals = Vec::new();
    let (mut names, mut ids) = (BTreeMap::new(), BTreeMap::new());
    for (name, id) in asked {
        match name {
            Some(name) if id.is_nil() => *names.entry(name).or_insert(0) += 1,
            None if !id.is_nil() => *ids.entry(id).or_insert(0) += 1,
            None => refusals.push(refused(None, id, &request(NEITHER_NAME_NOR_ID))),
            name => refusals.push(refused(name, id, &request(BOTH_NAME_AND_ID))),
        }
    }
    let mut found: BTreeMap<Uuid, Arc<Topic>> = BTreeMap::new();
    for (id, count) in ids {
        match image.topic_by_id(id) {
            _ if count > 1 => refusals.push(refused(None, id, &request(DUPLICATE_ID))),
            Some(topic) => match may(Operation::Delete, &topic.name) {
                Ok(()) => {
                    found.insert(id, topic.clone());
                }
                // The name of a topic that one may not describe is not told.
                Err(denied) => {
                    let shown = may(Operation::Describe, &topic.name).is_ok();
                    let name = shown.then(|| topic_name(&topic.name));
                    refusals.push(refused(name, id, &denied));
                }
            },
            None => refusals.push(refused(None, id, &unknown(ClusterError::UnknownTopicId))),
        }
    }
    for (name, count) in names {
        let deny = |denied: &Denied| refused(Some(name.clone()), Uuid::nil(), denied);
        let refuse = |error: &ClusterError| refused(Some(name.clone()), Uuid::nil(), error);
        refusals.push(match image.topic(&name) {
            _ if count > 1 => refuse(&request(DUPLICATE_NAME)),
            known => match (may(Operation::Describe, &name), known) {
                (Err(denied), _) => deny(&denied),
                (Ok(()), None) => refuse(&unknown(ClusterError::UnknownTopic)),
                (Ok(()), Some(topic)) => match may(Operation::Delete, &name) {
                    Err(denied) => deny(&denied),
                    Ok(()) if found.contains_key(&topic.id) => refuse(&request(ID_WAS_SUPPLIED)),
                    Ok(()) => {
                        found.insert(topic.id, topic.clone());
                        continue;
                    }
                },
            },
        });
    }
    (found.into_values().collect(), refusals)
}

const NEITHER_NAME_NOR_ID: &str = "Neither topic name nor id were specified.";
const BOTH_NAME_AND_ID: &str = "You may not specify both topic name and topic id.";
const DUPLICATE_ID: &str = "Duplicate topic id.";
const ID_WAS_SUPPLIED: &str = "The provided topic name maps to an ID that was already supplied.";

fn refused<E: WireError + std::fmt::Display>(
    name: Option<TopicName>,
    id: Uuid,
    error: &E,
) -> DeletableTopicResult {
    DeletableTopicResult::default()
        .with_name(name)
        .with_topic_id(id)
        .with_error_code(error.code())
        .with_error_message(message(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused_once_and_deletes_nothing() {
        let image = Image::default();
        let id = Uuid::from_u128(7);
        let named = |name: &str| (Some(topic_name(name)), Uuid::nil());
        let asked = vec![
            (None, Uuid::nil()),
            (Some(topic_name("both")), id),
            named("twice"),
            named("twice"),
            (None, id),
            (None, id),
            named("nowhere"),
        ];
        let (topics, refusals) = find(&image, true, asked, |_, _| Ok(()));
        assert!(topics.is_empty());
        let why: Vec<&str> = refusals
            .iter()
            .map(|refusal| refusal.error_message.as_deref().unwrap_or_default())
            .collect();
        let unknown = ClusterError::UnknownTopic.to_string();
        let expected = [
            NEITHER_NAME_NOR_ID,
            BOTH_NAME_AND_ID,
            DUPLICATE_ID,
            &unknown,
            DUPLICATE_NAME,
        ];
        assert_eq!(why, expected);
    }

    #[test]
    fn only_the_controller_says_that_there_is_no_such_topic() {
        let codes = |is_controller| {
            let asked = vec![
                (Some(topic_name("t")), Uuid::nil()),
                (None, Uuid::from_u128(7)),
            ];
            let (_, refusals) = find(&Image::default(), is_controller, asked, |_, _| Ok(()));
            let mut codes: Vec<i16> = refusals.iter().map(|refusal| refusal.error_code).collect();
            codes.sort_unstable();
            codes
        };
        let unknown = [ClusterError::UnknownTopic, ClusterError::UnknownTopicId];
        assert_eq!(codes(true), unknown.map(|error| error.code()));
        assert_eq!(codes(false), [ClusterError::NotController.code(); 2]);
    }
}
