//! A client's way to whom it needs: any broker, the leader of a partition, the coordinator of the group. Real clients find
//! them by Metadata and FindCoordinator, and ask anew when they are told that somebody else has it, or are told nothing.
//!
//! Where there is one broker nothing is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use metaq::coordinator::Slot;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{FindCoordinatorRequest, MetadataRequest};

use super::client::{Client, NoAnswer, name, text};
use super::consumer::GROUP;
use super::ensemble::{Ensemble, SESSION_TIMEOUT};
use super::history::{History, PLACES, Place};

/// How long a broker may take to hear of another leader: no longer than its session, after which it does nothing, and what is on
/// its way by then.
const HEARING_MS_MAX: u64 = SESSION_TIMEOUT.as_millis() as u64 + 500;
const ANSWER_MAX: Duration = Duration::from_millis(400);
/// Kafka's codes for "somebody else, or nobody at the moment".
const UNKNOWN_TOPIC: i16 = 3;
const LEADER_NOT_AVAILABLE: i16 = 5;
const NOT_LEADER: i16 = 6;
const FENCED_LEADER_EPOCH: i16 = 74;
const UNKNOWN_LEADER_EPOCH: i16 = 75;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const NOT_COORDINATOR: i16 = 16;

/// The brokers that there are, as a client is configured with them; clones share what they know of the store.
#[derive(Clone)]
pub struct Brokers {
    pub hosts: Vec<String>,
    /// Where there are several: what they share.
    pub ensemble: Option<Ensemble>,
}

pub struct Router {
    brokers: Brokers,
    places: &'static [Place],
    clients: Vec<Client>,
    leaders: BTreeMap<Place, usize>,
    /// The latest leader epochs that it was told: what an older one says is not believed (Kafka's Metadata).
    epochs: BTreeMap<Place, i32>,
    coordinator: Option<usize>,
    /// Those of other ids, by kind.
    coordinators: BTreeMap<(String, i8), usize>,
    /// Who was asked last.
    last: usize,
}

/// Now, ms.
pub fn now_ms() -> u64 {
    turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64
}

impl Router {
    pub fn new(name: &str, brokers: Brokers) -> Self {
        Self::of(name, brokers, &PLACES)
    }

    /// To these partitions.
    pub fn of(name: &str, brokers: Brokers, places: &'static [Place]) -> Self {
        let clients = brokers.hosts.iter().map(|host| Client::new(name, host));
        Self {
            clients: clients.collect(),
            brokers,
            places,
            leaders: BTreeMap::new(),
            epochs: BTreeMap::new(),
            coordinator: None,
            coordinators: BTreeMap::new(),
            last: 0,
        }
    }

    pub fn is_alone(&self) -> bool {
        self.brokers.ensemble.is_none()
    }

    pub fn client(&mut self, broker: usize) -> &mut Client {
        &mut self.clients[broker]
    }

    /// Drops all connections, and what is known.
    pub fn disconnect(&mut self) {
        self.clients.iter_mut().for_each(Client::disconnect);
        self.leaders.clear();
        self.coordinator = None;
        self.coordinators.clear();
    }

    /// A broker did not answer.
    pub fn lose(&mut self, broker: usize) {
        self.clients[broker].disconnect();
        self.leaders.retain(|_, leader| *leader != broker);
        self.coordinator.take_if(|known| *known == broker);
    }

    /// The next broker.
    pub fn any(&mut self) -> usize {
        self.last = (self.last + 1) % self.clients.len();
        self.last
    }

    /// What the answer about a partition says about its leader.
    pub fn told_of_leader(&mut self, place: Place, code: i16) {
        let others = [
            UNKNOWN_TOPIC,
            LEADER_NOT_AVAILABLE,
            NOT_LEADER,
            FENCED_LEADER_EPOCH,
            UNKNOWN_LEADER_EPOCH,
        ];
        if others.contains(&code) {
            self.leaders.remove(&place);
        }
    }

    /// What an answer about the group says about its coordinator.
    pub fn told_of_coordinator(&mut self, code: i16) {
        if [COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR].contains(&code) {
            self.coordinator = None;
            self.coordinators.clear();
        }
    }

    /// The latest leader epoch of a partition that it knows, -1 for none.
    pub fn epoch(&self, place: Place) -> i32 {
        self.epochs.get(&place).copied().unwrap_or(-1)
    }

    /// Who leads a partition.
    pub async fn leader(&mut self, place: Place) -> Result<usize, NoAnswer> {
        if self.is_alone() {
            return Ok(0);
        }
        if !self.leaders.contains_key(&place) {
            self.find_leaders().await?;
        }
        self.leaders.get(&place).copied().ok_or(NoAnswer)
    }

    /// Partitions by their leaders; those without one are left out.
    pub async fn by_leader(
        &mut self,
        places: impl Iterator<Item = Place>,
    ) -> Result<BTreeMap<usize, Vec<Place>>, NoAnswer> {
        let mut found: BTreeMap<usize, Vec<Place>> = BTreeMap::new();
        for place in places {
            match self.leader(place).await {
                Ok(leader) => found.entry(leader).or_default().push(place),
                Err(NoAnswer) => continue,
            }
        }
        match found.is_empty() {
            true => Err(NoAnswer),
            false => Ok(found),
        }
    }

    async fn find_leaders(&mut self) -> Result<(), NoAnswer> {
        let mut topics: Vec<&str> = self.places.iter().map(|(topic, _)| *topic).collect();
        topics.dedup();
        let topic = |topic| MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(topics.into_iter().map(topic).collect()))
            .with_allow_auto_topic_creation(false);
        let asked = self.any();
        let answered = self.client(asked).ask(9, &request, ANSWER_MAX).await;
        let response = answered.inspect_err(|NoAnswer| self.lose(asked))?;
        let hosts: BTreeMap<i32, usize> = response
            .brokers
            .iter()
            .filter_map(|broker| Some((broker.node_id.0, self.host(&broker.host)?)))
            .collect();
        self.leaders.clear();
        for topic in &response.topics {
            for partition in &topic.partitions {
                let is_it = |(name, index): &&Place| {
                    topic.name.as_deref().is_some_and(|known| **known == **name)
                        && partition.partition_index == *index
                };
                let leader = hosts.get(&partition.leader_id.0);
                let (Some(place), Some(leader)) = (self.places.iter().find(is_it), leader) else {
                    continue;
                };
                let known = self.epochs.entry(*place).or_insert(-1);
                if partition.leader_epoch >= *known {
                    *known = partition.leader_epoch;
                    self.leaders.insert(*place, *leader);
                }
            }
        }
        Ok(())
    }

    fn host(&self, host: &str) -> Option<usize> {
        self.brokers.hosts.iter().position(|known| known == host)
    }

    /// Who coordinates a group (0) or a transactional id (1).
    pub async fn coordinator_of(&mut self, id: &str, kind: i8) -> Result<usize, NoAnswer> {
        if self.is_alone() {
            return Ok(0);
        }
        let key = (id.to_owned(), kind);
        if let Some(known) = self.coordinators.get(&key) {
            return Ok(*known);
        }
        let request = FindCoordinatorRequest::default()
            .with_key(text(id))
            .with_key_type(kind);
        let asked = self.any();
        let answered = self.client(asked).ask(3, &request, ANSWER_MAX).await;
        let response = answered.inspect_err(|NoAnswer| self.lose(asked))?;
        if response.error_code != 0 {
            return Err(NoAnswer);
        }
        let found = self.host(&response.host).ok_or(NoAnswer)?;
        self.coordinators.insert(key, found);
        Ok(found)
    }

    /// Who coordinates the group.
    pub async fn coordinator(&mut self) -> Result<usize, NoAnswer> {
        if self.is_alone() {
            return Ok(0);
        }
        if let Some(known) = self.coordinator {
            return Ok(known);
        }
        let request = FindCoordinatorRequest::default()
            .with_key(text(GROUP))
            .with_key_type(0);
        let asked = self.any();
        let answered = self.client(asked).ask(3, &request, ANSWER_MAX).await;
        let response = answered.inspect_err(|NoAnswer| self.lose(asked))?;
        if response.error_code != 0 {
            return Err(NoAnswer);
        }
        self.coordinator = self.host(&response.host);
        self.coordinator.ok_or(NoAnswer)
    }

    /// A broker acknowledged records in answer to what it was asked at `asked_ms`: it was registered then, and the leader.
    pub fn check_leader(&self, history: &History, place: Place, (broker, asked_ms): (usize, u64)) {
        let since_ms = match history.has_replicas() {
            // What it acknowledges before it hears of another leader is on all in-sync replicas, of which that one is one.
            true => asked_ms.saturating_sub(HEARING_MS_MAX),
            false => asked_ms,
        };
        let span = (since_ms, now_ms());
        if let Some(ensemble) = &self.brokers.ensemble
            && !(ensemble.was_registered(broker, span) && ensemble.led(broker, place, span))
        {
            history.fail(format!(
                "{place:?}: broker {broker} acknowledged records between {span:?}, and was not registered, or not the leader"
            ));
        }
    }

    /// A broker acknowledged a commit in answer to what it was asked at `asked_ms`: it had the group's slot then.
    pub fn check_coordinator(&self, history: &History, broker: usize, asked_ms: u64) {
        let span = (asked_ms, now_ms());
        if let Some(ensemble) = &self.brokers.ensemble
            && !(ensemble.had_slot(broker, Slot::of(GROUP), span)
                && ensemble.was_registered(broker, span))
        {
            history.fail(format!(
                "broker {broker} acknowledged a commit between {span:?}, and was not the coordinator"
            ));
        }
    }
}
