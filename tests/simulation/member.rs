//! What members of groups of all kinds have in common: their way to the coordinator and to leaders, reading, committing, and that
//! they are away for a while now and then, or end without a word.

use std::collections::BTreeMap;
use std::time::Duration;

use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{FetchRequest, GroupId, MetadataRequest};
use metaq_protocol::protocol::Request;
use uuid::Uuid;

use super::client::{NoAnswer, name, text};
use super::consumer::records_of;
use super::history::{History, WORK, WORK_PLACES};
use super::random::Random;
use super::router::{Brokers, Router, now_ms};
use super::work::{SESSION_MS, Work};
use super::world::Phase;

const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Kafka's codes.
const LOADING: i16 = 14;
const NOT_COORDINATOR: i16 = 16;
const UNKNOWN_MEMBER: i16 = 25;
const FENCED_MEMBER_EPOCH: i16 = 110;

/// What a member does next of what only some do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whim {
    GoOn,
    /// It says nothing for longer than a session.
    BeAway,
    /// It ends without a word, and another one begins.
    Crash,
    Leave,
}

/// What an answer's code says of the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Done,
    /// The coordinator is another one, or not there yet.
    Elsewhere,
    /// It is no member any more.
    NoMember,
    Other(i16),
}

/// See the module's documentation.
pub struct Member {
    name: String,
    pub group: &'static str,
    pub router: Router,
    pub history: History,
    pub phase: Phase,
    pub random: Random,
    pub work: Work,
    lives: u32,
}

impl Member {
    pub fn new(
        name: &str,
        group: &'static str,
        brokers: Brokers,
        (history, work): (History, Work),
        (phase, random): (Phase, Random),
    ) -> Self {
        Self {
            name: name.to_owned(),
            group,
            router: Router::of(name, brokers, &WORK_PLACES),
            history,
            phase,
            random,
            work,
            lives: 0,
        }
    }

    pub fn group_id(&self) -> GroupId {
        GroupId(text(self.group))
    }

    /// The id of a member that begins.
    pub fn next_id(&mut self) -> String {
        self.lives += 1;
        format!("{}-{}", self.name, self.lives)
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        self.history.note(|| format!("{}: {}", self.name, what()));
    }

    pub async fn pause(&mut self, ms_max: u64) {
        let pause = self.random.below(ms_max);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// What it is up to; nothing once all is healed.
    pub async fn whim(&mut self) -> Whim {
        let drawn = self.random.below(120);
        if self.phase.is_healing() {
            return Whim::GoOn;
        }
        match drawn {
            0 => {
                self.note(|| "is away".to_owned());
                self.pause(2 * SESSION_MS).await;
                Whim::BeAway
            }
            1 => {
                self.note(|| "ends without a word".to_owned());
                self.router.disconnect();
                Whim::Crash
            }
            2 => {
                self.note(|| "leaves".to_owned());
                Whim::Leave
            }
            _ => Whim::GoOn,
        }
    }

    /// Asks the coordinator; also when it was asked, ms.
    pub async fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<(u64, R::Response), NoAnswer> {
        let coordinator = self.router.coordinator_of(self.group, 0).await?;
        let sent_ms = now_ms();
        let client = self.router.client(coordinator);
        let answered = client.ask(version, request, ANSWER_MAX).await;
        let response = answered.inspect_err(|NoAnswer| self.router.disconnect())?;
        Ok((sent_ms, response))
    }

    pub fn said(&mut self, code: i16) -> Said {
        match code {
            0 => Said::Done,
            LOADING..=NOT_COORDINATOR => {
                self.router.told_of_coordinator(code);
                Said::Elsewhere
            }
            UNKNOWN_MEMBER | FENCED_MEMBER_EPOCH => Said::NoMember,
            other => Said::Other(other),
        }
    }

    /// How many records there are from each of the positions on, as far as one fetch goes.
    pub async fn read(&mut self, positions: &mut BTreeMap<i32, i64>) {
        for partition in positions.clone().into_keys() {
            if let Ok(more) = self.read_one(partition, positions[&partition]).await {
                *positions.entry(partition).or_default() += more;
            }
        }
    }

    async fn read_one(&mut self, index: i32, from: i64) -> Result<i64, NoAnswer> {
        let place = (WORK, index);
        let partition = FetchPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(from)
            .with_partition_max_bytes(2000);
        let topic = FetchTopic::default()
            .with_topic(name(WORK))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(0)
            .with_max_bytes(4000)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let leader = self.router.leader(place).await?;
        let asked = self.router.client(leader).ask(11, &request, ANSWER_MAX);
        let answered = asked.await;
        let response = answered.inspect_err(|NoAnswer| self.router.lose(leader))?;
        let told = &response.responses[0].partitions[0];
        if told.error_code != 0 {
            self.router.told_of_leader(place, told.error_code);
            return Ok(0);
        }
        let records = told.records.clone().unwrap_or_default();
        let all = records_of(&records).unwrap_or_else(|what| {
            self.history.fail(format!("{place:?} from {from}: {what}"));
            Vec::new()
        });
        let offsets = all.iter().map(|(offset, _)| *offset);
        let shown: Vec<i64> = offsets.filter(|offset| *offset >= from).collect();
        if shown
            .iter()
            .zip(from..)
            .any(|(at, expected)| *at != expected)
        {
            self.history
                .fail(format!("{place:?}: {shown:?} is shown from {from} on"));
        }
        Ok(shown.len() as i64)
    }

    /// The topic's id.
    pub async fn topic_id(&mut self) -> Result<Uuid, NoAnswer> {
        let topic = MetadataRequestTopic::default().with_name(Some(name(WORK)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(false);
        let any = self.router.any();
        let asked = self.router.client(any).ask(12, &request, ANSWER_MAX);
        let answered = asked.await;
        let response = answered.inspect_err(|NoAnswer| self.router.lose(any))?;
        let id = response.topics[0].topic_id;
        match id.is_nil() {
            true => Err(NoAnswer),
            false => Ok(id),
        }
    }
}
