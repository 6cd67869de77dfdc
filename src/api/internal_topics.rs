//! Making topics that a group needs, by this broker or by the controller in its stead.

use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::CreateTopicsRequest;
use metaq_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

use super::applied::{Expected, wait_until_applied};
use super::context::Context;
use super::create_topics::{are_too_many, new_topic};
use super::forward::{FORWARDED, controller};
use super::own_task::make_in_own_task;
use super::shared::{text, topic_name};
use crate::cluster::{ClusterError, NewTopic};
use crate::group::TopicToCreate;
use crate::peer::Lane;

/// CreateTopics in this version is understood by every broker of a cluster.
const CREATE_TOPICS_VERSION: i16 = 5;
/// How long the controller may take.
const CREATE_TIMEOUT_MS: i32 = 10_000;
/// How long a member waits for its topics, ms; it asks again.
const WAIT_MS: i32 = 3_000;

/// Makes topics; those that could not be made, and why. One that somebody else made meanwhile is made.
pub(super) async fn create_internal(
    cx: &Arc<Context>,
    topics: &[TopicToCreate],
) -> Vec<(String, String)> {
    let topics: Vec<CreatableTopic> = topics.iter().map(creatable).collect();
    let new: Vec<NewTopic> = topics.iter().map(new_topic).collect();
    let names: Vec<String> = new.iter().map(|topic| topic.name.clone()).collect();
    let made = match are_too_many(cx, &new) {
        true => Err("Excessively large number of partitions per request.".to_owned()),
        false => {
            let (of_task, wanted) = (cx.clone(), new.clone());
            let making = async move { create(&of_task, &wanted, topics).await };
            let made = make_in_own_task(&cx.memory, &new, making).await;
            made.unwrap_or_else(|| Err("The broker has no memory for it now.".to_owned()))
        }
    };
    made.unwrap_or_else(|why| names.into_iter().map(|name| (name, why.clone())).collect())
}

/// Those that could not be made, or why none could.
async fn create(
    cx: &Context,
    new: &[NewTopic],
    topics: Vec<CreatableTopic>,
) -> Result<Vec<(String, String)>, String> {
    if cx.cluster.is_controller() {
        return Ok(create_here(cx, new).await);
    }
    let controller = controller(cx).ok_or("the controller is not known")?;
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(CREATE_TIMEOUT_MS);
    let asked = (FORWARDED, CREATE_TOPICS_VERSION);
    let wait = Duration::from_millis(WAIT_MS as u64);
    let answer = cx.call((Lane::Forwards, &controller), asked, &request, wait);
    let answer = answer.await.map_err(|error| error.to_string())?;
    let there = [0, ResponseError::TopicAlreadyExists.code()];
    let topics = answer.topics.into_iter();
    let (made, failed): (Vec<_>, Vec<_>) =
        topics.partition(|topic| there.contains(&topic.error_code));
    let made: Vec<String> = made.iter().map(|topic| topic.name.to_string()).collect();
    cx.cluster.wait_for_topics(&made).await;
    let failed = failed.into_iter().map(|topic| {
        let code = topic.error_code;
        let why = topic.error_message.map(|why| why.to_string());
        let why = why.unwrap_or_else(|| format!("error {code}"));
        (topic.name.to_string(), why)
    });
    Ok(failed.collect())
}

async fn create_here(cx: &Context, topics: &[NewTopic]) -> Vec<(String, String)> {
    let results = cx.cluster.controller().create_topics(topics, false).await;
    let (mut created, mut failed) = (Vec::new(), Vec::new());
    for (topic, result) in topics.iter().zip(results) {
        match result {
            Ok(known) => {
                tracing::info!(topic = topic.name, "made for a streams group");
                let partitions = known.partitions.len();
                created.push(Expected::There(topic.name.clone(), known.id, partitions));
            }
            Err(ClusterError::TopicExists(_)) => {}
            Err(error) => failed.push((topic.name.clone(), error.to_string())),
        }
    }
    wait_until_applied(cx, &created, WAIT_MS).await;
    failed
}

fn creatable(topic: &TopicToCreate) -> CreatableTopic {
    let config = |(key, value): (&String, &String)| {
        CreatableTopicConfig::default()
            .with_name(text(key.clone()))
            .with_value(Some(text(value.clone())))
    };
    CreatableTopic::default()
        .with_name(topic_name(&topic.name))
        .with_num_partitions(topic.partitions)
        .with_replication_factor(topic.replication_factor.unwrap_or(-1))
        .with_configs(topic.configs.iter().map(config).collect())
}
