//! A client that creates the topics, and then others that come and go, through any broker: whoever is asked sends it on to
//! the controller. What it was told must be so at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use metaq_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use parking_lot::Mutex;

use super::client::{NoAnswer, name, text};
use super::history::{CACHED, History, SYNCED};
use super::random::Random;
use super::router::{Brokers, Router};
use super::world::Phase;

/// A change is answered when all brokers made it, or after this.
const TIMEOUT_MS: i32 = 500;
const ANSWER_MAX: Duration = Duration::from_millis(1500);
/// Kafka's codes.
const UNKNOWN_TOPIC: i16 = 3;
const EXISTS: i16 = 36;

/// What was asked for last of a topic, and whether it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    There,
    Gone,
    /// One or the other: a change was not answered, and may be made at any later time, also after others were answered.
    Open,
}

/// What became of the topics that come and go; clones share it.
#[derive(Clone, Default)]
pub struct Topics {
    state: Arc<Mutex<(BTreeMap<String, Fate>, bool)>>,
}

impl Topics {
    fn is(&self, topic: &str, fate: Fate) {
        let mut state = self.state.lock();
        let known = state.0.entry(topic.to_owned()).or_insert(fate);
        if *known != Fate::Open {
            *known = fate;
        }
    }

    /// Whether nothing is asked for any more.
    pub fn are_done(&self) -> bool {
        self.state.lock().1
    }

    /// What is not as it was answered, given what is there: names and ids.
    pub fn contradiction(&self, there: &BTreeMap<String, String>) -> Option<String> {
        let state = self.state.lock();
        let wrong = state.0.iter().find(|(topic, fate)| match fate {
            Fate::There => !there.contains_key(*topic),
            Fate::Gone => there.contains_key(*topic),
            Fate::Open => false,
        });
        wrong.map(|(topic, fate)| format!("{topic} should be {fate:?}; {there:?}"))
    }
}

pub struct Admin {
    /// What is created in the place of the usual topics, and with how many partitions.
    only: Option<(&'static str, i32)>,
    /// Of each topic.
    pub replicas: i16,
    router: Router,
    topics: Topics,
    history: History,
    phase: Phase,
    random: Random,
}

impl Admin {
    pub fn new(
        (brokers, only): (Brokers, Option<(&'static str, i32)>),
        topics: Topics,
        history: History,
        phase: Phase,
        random: Random,
    ) -> Self {
        Self {
            only,
            replicas: 1,
            router: Router::new("admin", brokers),
            topics,
            history,
            phase,
            random,
        }
    }

    pub async fn run(mut self) {
        let flushed = [
            None,
            None,
            Some(("flush.messages", "4")),
            Some(("flush.ms", "150")),
        ];
        let flushed = flushed[self.random.below(4) as usize];
        let synced = Some(("flush.messages", "1"));
        let topics = match self.only {
            Some((topic, partitions)) => vec![(topic, partitions, synced)],
            None => vec![(SYNCED, 2, synced), (CACHED, 2, flushed)],
        };
        for (topic, partitions, config) in topics {
            while self.create((topic, partitions), config).await != Fate::There {
                self.pause(100).await;
            }
            self.topics.is(topic, Fate::There);
        }
        let mut n = 0;
        while !self.phase.is_healing() {
            self.pause(500).await;
            // A name may be used again.
            let topic = format!("t{}", self.random.below(n + 1));
            n += 1;
            let fate = match self.random.one_in(3) {
                true => self.delete(&topic).await,
                false => self.create((&topic, 2), None).await,
            };
            self.topics.is(&topic, fate);
        }
        self.topics.state.lock().1 = true;
    }

    async fn pause(&mut self, ms_max: u64) {
        let pause = self.random.below(ms_max);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// What is known of a topic after it was asked for.
    async fn create(
        &mut self,
        (topic, partitions): (&str, i32),
        config: Option<(&str, &str)>,
    ) -> Fate {
        let config = config.map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(text(name))
                .with_value(Some(text(value)))
        });
        let min_insync = CreatableTopicConfig::default()
            .with_name(text("min.insync.replicas"))
            .with_value(Some(text("2")));
        let min_insync = (self.replicas > 1).then_some(min_insync);
        let wanted = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(self.replicas)
            .with_configs(config.into_iter().chain(min_insync).collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(TIMEOUT_MS);
        let any = self.router.any();
        let answered = self.router.client(any).ask(5, &request, ANSWER_MAX).await;
        let code = answered.map(|response| response.topics[0].error_code);
        self.told("create", topic, any, code, (EXISTS, Fate::There))
    }

    async fn delete(&mut self, topic: &str) -> Fate {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name(topic)])
            .with_timeout_ms(TIMEOUT_MS);
        let any = self.router.any();
        let answered = self.router.client(any).ask(5, &request, ANSWER_MAX).await;
        let code = answered.map(|response| response.responses[0].error_code);
        self.told("delete", topic, any, code, (UNKNOWN_TOPIC, Fate::Gone))
    }

    /// `already` is the code by which the change turns out to have been made.
    fn told(
        &mut self,
        change: &str,
        topic: &str,
        broker: usize,
        code: Result<i16, NoAnswer>,
        (already, fate): (i16, Fate),
    ) -> Fate {
        let told = code.as_ref().map_or(-1, |code| *code);
        self.history
            .note(|| format!("{change} {topic} through {broker}: {told}"));
        match code {
            Ok(code) if code == 0 || code == already => fate,
            Ok(_) => Fate::Open,
            Err(NoAnswer) => {
                self.router.disconnect();
                Fate::Open
            }
        }
    }
}
