//! Dead letters of share groups (KIP-1191): what is rejected, or was given out too often, is copied to the topic that the group
//! names, with headers that say where from and why (Kafka's ShareGroupDLQStateManager).
//!
//! - The topic must have errors.deadletterqueue.group.enable, and a name that begins as errors.deadletterqueue.topic.name.prefix
//!   says. Where it does not, or is not there and may not be created, nothing is copied, as by Kafka, which is told as an event.
//! - What the topic can never take, such as letters without keys where it is compacted, is not copied either, and told.
//! - What goes wrong otherwise is tried again, where Kafka gives up after five times.
//! - Where records are copied as a whole, they keep their own headers after the new ones; Kafka leaves those out.
//!
//! Tests: tests/shares_dead_letters.rs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use metaq_protocol::messages::{CreateTopicsRequest, ProduceRequest};

use super::Context;
use super::ask_here::ask_here;
use super::dead_letter_batch::{Letter, ReadRecords, UNPACKED_BYTES_MAX, batch_of, read_records};
use super::forward::FORWARDED;
use super::shared::{text, topic_name};
use crate::cluster::{Configured, PartitionInfo, Topic};
use crate::config::{GroupOverrides, TopicConfig};
use crate::log::LogError;
use crate::observe::{EventKind, Happened};
use crate::peer::Lane;
use crate::share::{DeadLetters, Death, ShareKey, ShareStateError};

type Outcome<T> = Result<T, ShareStateError>;

/// Letters that are copied at a time.
const LETTERS_MAX: i64 = 500;
/// Bytes of records that are copied at a time, as far as the topic takes them.
const BYTES_MAX: usize = 1 << 20;
/// How long the topic's leader may take.
const PRODUCE_MAX: Duration = Duration::from_secs(10);
/// Versions that every broker of a cluster understands.
const PRODUCE_VERSION: i16 = 9;
const CREATE_VERSION: i16 = 5;
const ALL_REPLICAS: i16 = -1;

/// Texts as Kafka's (ShareGroupDLQManager).
fn text_of(death: Death) -> &'static str {
    match death {
        Death::Rejected => "Offset rejected by client.",
        Death::TooOften => "Offset delivery count exceeded the threshold.",
    }
}

/// Where the letters of a group go.
struct Graveyard {
    topic: String,
    copies: bool,
}

impl Graveyard {
    fn of(cx: &Context, group_id: &str) -> Option<Self> {
        let (image, config) = (cx.cluster.image(), cx.config.load());
        let at_run_time = image.configs.get(Configured::Group, group_id);
        let set = GroupOverrides::of(&config, group_id, at_run_time);
        let topic = set.own("errors.deadletterqueue.topic.name")?;
        (!topic.is_empty()).then(|| Self {
            topic: topic.to_owned(),
            copies: set.own("errors.deadletterqueue.copy.record.enable") == Some("true"),
        })
    }

    /// The topic, if it may be used; a text says why not.
    async fn topic(&self, cx: &Arc<Context>) -> Result<Option<Arc<Topic>>, String> {
        let (name, config) = (&self.topic, cx.config.load());
        let prefix = config.text("errors.deadletterqueue.topic.name.prefix");
        if !name.starts_with(prefix) || name.starts_with("__") {
            return Err(format!(
                "the dead-letter topic {name} does not begin with {prefix}"
            ));
        }
        let topic = cx.cluster.image().topic(name).cloned();
        if let Some(topic) = topic {
            let broker = &config.defaults_for_topic(name);
            let overrides = &topic.overrides;
            let of_topic = TopicConfig { overrides, broker };
            return match of_topic.get("errors.deadletterqueue.group.enable") {
                "true" => Ok(Some(topic)),
                _ => Err(format!(
                    "the topic {name} does not take dead letters: errors.deadletterqueue.group.enable is not true"
                )),
            };
        }
        match config.flag("errors.deadletterqueue.auto.create.topics.enable") {
            true => {
                create(cx, name).await;
                Ok(cx.cluster.image().topic(name).cloned())
            }
            false => Err(format!(
                "there is no dead-letter topic {name}, and errors.deadletterqueue.auto.create.topics.enable is false"
            )),
        }
    }
}

async fn create(cx: &Arc<Context>, name: &str) {
    let set = |name: &str, value: &str| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(vec![
            set("errors.deadletterqueue.group.enable", "true"),
            // The letters say when they were written.
            set("message.timestamp.type", "CreateTime"),
        ]);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(PRODUCE_MAX.as_millis() as i32);
    ask_here(cx, CREATE_VERSION, &request).await;
    cx.cluster.wait_for_topics(&[name.to_owned()]).await;
}

/// Copies some letters from the first one on; the last one that is copied.
pub(super) async fn bury(cx: &Arc<Context>, key: &ShareKey, letters: DeadLetters) -> Outcome<i64> {
    let Some(graveyard) = Graveyard::of(cx, &key.group_id) else {
        return Ok(letters.last);
    };
    let topic = match graveyard.topic(cx).await {
        Ok(Some(topic)) => topic,
        Ok(None) => return Err(ShareStateError::UnknownTopicOrPartition),
        Err(why) => {
            not_copied(cx, key, why);
            return Ok(letters.last);
        }
    };
    let last = letters.last.min(letters.first + LETTERS_MAX - 1);
    let mut all = letters_of(cx, key, &letters, last, &graveyard).await?;
    let partitions = topic.partitions.len().max(1) as i32;
    let index = key.partition % partitions;
    let leader = topic.partition(index).cloned();
    let leader = leader.ok_or(ShareStateError::UnknownTopicOrPartition)?;
    let bytes_max = bytes_max(cx, &topic);
    loop {
        let (batch, count) = batch_of(&all, cx.partitions.clock().now_ms(), bytes_max);
        let batch = batch.ok_or(ShareStateError::UnknownServerError)?;
        match produce(cx, (&topic.name, index), &leader, batch).await? {
            None => return Ok(all[count - 1].offset),
            // One that the topic does not take goes without its content.
            Some(ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge)
                if count == 1 && all[0].record.is_some() =>
            {
                all[0].record = None;
                all.truncate(1);
            }
            // Others may be what it takes.
            Some(error) if is_final(error) && count > 1 => all.truncate(count / 2),
            // No try would come to anything else.
            Some(error) if is_final(error) => {
                let why = format!("the topic {} does not take it: {error}", topic.name);
                not_copied(cx, key, why);
                return Ok(all[count - 1].offset);
            }
            Some(error) => {
                tracing::warn!(share = %key, topic = &*topic.name, %error, "cannot write dead letters");
                return Err(ShareStateError::UnknownServerError);
            }
        }
    }
}

/// Whether a topic's leader says the same of a letter whenever it is asked.
fn is_final(error: ResponseError) -> bool {
    matches!(
        error,
        ResponseError::InvalidRecord
            | ResponseError::InvalidTimestamp
            | ResponseError::MessageTooLarge
            | ResponseError::RecordListTooLarge
            | ResponseError::UnsupportedCompressionType
    )
}

fn not_copied(cx: &Context, key: &ShareKey, why: String) {
    tracing::debug!(share = %key, %why, "dead letters are not copied");
    let refused = Happened::new(EventKind::RequestRejected, &key.group_id)
        .who("dead letters")
        .why(why);
    cx.observe.events.tell(refused);
}

fn bytes_max(cx: &Context, topic: &Topic) -> usize {
    let broker = &cx.config.load().defaults_for_topic(&topic.name);
    let overrides = &topic.overrides;
    let of_topic = TopicConfig { overrides, broker }.log().max_message_bytes;
    of_topic.min(BYTES_MAX)
}

async fn letters_of(
    cx: &Arc<Context>,
    key: &ShareKey,
    letters: &DeadLetters,
    last: i64,
    graveyard: &Graveyard,
) -> Outcome<Vec<Letter>> {
    let image = cx.cluster.image();
    let name = image.topic_by_id(key.topic_id).map(|topic| &topic.name);
    let name = name.map_or_else(|| key.topic_id.to_string(), |name| name.to_string());
    let mut read = ReadRecords {
        found: HashMap::new(),
        last,
    };
    if graveyard.copies {
        let topic = cx.partitions.topic_by_id(key.topic_id);
        let partition = topic.and_then(|topic| topic.get(key.partition).cloned().ok());
        let partition = partition.ok_or(ShareStateError::NotLeaderOrFollower)?;
        let share = cx.unpacking.try_take(UNPACKED_BYTES_MAX);
        let _share = share.ok_or(ShareStateError::UnknownServerError)?;
        let first = letters.first;
        let reading = move || read_records(&partition, first, last);
        let outcome = cx.partitions.workers().unblock(reading).await;
        match outcome.ok_or(ShareStateError::UnknownServerError)? {
            Ok(found) => read = found,
            // What cannot be read by now is not read later: the letters go without it.
            Err(error @ LogError::Damaged { .. }) => {
                tracing::warn!(share = %key, %error, "dead letters are copied without their records");
            }
            Err(error) => {
                tracing::debug!(share = %key, %error, "cannot read dead letters");
                return Err(ShareStateError::UnknownServerError);
            }
        }
    }
    let mut headers = vec![
        ("__dlq.errors.topic", name),
        ("__dlq.errors.partition", key.partition.to_string()),
        ("__dlq.errors.group", key.group_id.to_string()),
        (
            "__dlq.errors.delivery.count",
            letters.delivery_count.to_string(),
        ),
    ];
    let message = letters.death.map(|death| text_of(death).to_owned());
    headers.extend(message.map(|message| ("__dlq.errors.message", message)));
    let headers = Arc::new(headers);
    let all = (letters.first..=read.last).map(|offset| Letter {
        offset,
        headers: headers.clone(),
        record: read.found.remove(&offset),
    });
    Ok(all.collect())
}

/// Writes a batch to a partition, as its leader takes it from clients; why it is refused.
async fn produce(
    cx: &Arc<Context>,
    (topic, index): (&str, i32),
    info: &PartitionInfo,
    batch: bytes::Bytes,
) -> Outcome<Option<ResponseError>> {
    let partition = PartitionProduceData::default()
        .with_index(index)
        .with_records(Some(batch));
    let of_topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![partition]);
    let request = ProduceRequest::default()
        .with_acks(ALL_REPLICAS)
        .with_timeout_ms(PRODUCE_MAX.as_millis() as i32)
        .with_topic_data(vec![of_topic]);
    let answer = match info.leader == cx.cluster.broker_id() {
        true => ask_here(cx, PRODUCE_VERSION, &request).await,
        false => {
            let image = cx.cluster.image();
            let broker = image.brokers.get(&info.leader);
            let broker = broker.ok_or(ShareStateError::NotLeaderOrFollower)?;
            let (to, asked) = ((Lane::Forwards, broker), (FORWARDED, PRODUCE_VERSION));
            cx.call(to, asked, &request, PRODUCE_MAX).await.ok()
        }
    };
    let answer = answer.ok_or(ShareStateError::CoordinatorNotAvailable)?;
    let mut found = answer
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    let found = found.next().ok_or(ShareStateError::UnknownServerError)?;
    Ok(ResponseError::try_from_code(found.error_code))
}
