//! An operator who moves replicas of the watched partitions, takes moves back, and has preferred leaders elected, through any
//! broker; in the end every partition is on all brokers again.

use std::time::Duration;

use metaq_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use metaq_protocol::messages::elect_leaders_request::TopicPartitions;
use metaq_protocol::messages::{AlterPartitionReassignmentsRequest, BrokerId, ElectLeadersRequest};

use super::client::name;
use super::history::{History, Place};
use super::random::Random;
use super::router::{Brokers, Router};
use super::world::Phase;

const TIMEOUT_MS: i32 = 500;
const ANSWER_MAX: Duration = Duration::from_millis(1500);
/// As many as are in sync at least where anything is acknowledged.
const REPLICAS_MIN: u64 = 2;
/// Kafka's code of what is not moving.
const NO_REASSIGNMENT: i16 = 85;
const PREFERRED: i8 = 0;

pub struct Operator {
    router: Router,
    brokers: i32,
    places: &'static [Place],
    history: History,
    phase: Phase,
    random: Random,
}

impl Operator {
    pub fn new(
        (brokers, places): (Brokers, &'static [Place]),
        history: History,
        phase: Phase,
        random: Random,
    ) -> Self {
        Self {
            brokers: brokers.hosts.len() as i32,
            router: Router::of("operator", brokers, places),
            places,
            history,
            phase,
            random,
        }
    }

    pub async fn run(mut self) {
        while !self.phase.is_healing() {
            self.pause(400).await;
            let at = self.random.below(self.places.len() as u64) as usize;
            let place = self.places[at];
            match self.random.below(5) {
                0 => drop(self.reassign(place, None).await),
                1 => self.elect(place).await,
                _ => {
                    let target = self.target();
                    self.reassign(place, Some(&target)).await;
                }
            }
        }
        let all: Vec<i32> = (0..self.brokers).collect();
        for place in self.places.iter().copied() {
            while self.reassign(place, Some(&all)).await != Some(0) {
                self.pause(200).await;
            }
        }
        self.phase.moves_ended();
    }

    async fn pause(&mut self, ms_max: u64) {
        let pause = self.random.below(ms_max);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// Some brokers in some order.
    fn target(&mut self) -> Vec<i32> {
        let mut left: Vec<i32> = (0..self.brokers).collect();
        let most = left.len() as u64;
        let count = REPLICAS_MIN + self.random.below(most - REPLICAS_MIN + 1);
        let mut target = Vec::new();
        while (target.len() as u64) < count {
            let at = self.random.below(left.len() as u64) as usize;
            target.push(left.remove(at));
        }
        target
    }

    /// The partition's error; none where there is no answer, or another error.
    async fn reassign(&mut self, (topic, index): Place, target: Option<&[i32]>) -> Option<i16> {
        let ids = target.map(|ids| ids.iter().map(|id| BrokerId(*id)).collect());
        let partition = ReassignablePartition::default()
            .with_partition_index(index)
            .with_replicas(ids);
        let topics = ReassignableTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(TIMEOUT_MS)
            .with_topics(vec![topics]);
        let any = self.router.any();
        let answered = self.router.client(any).ask(0, &request, ANSWER_MAX).await;
        let code = answered.ok().and_then(|answer| {
            let partition = answer.responses.first()?.partitions.first()?;
            (answer.error_code == 0).then_some(partition.error_code)
        });
        self.history
            .note(|| format!("{topic}-{index} to {target:?} through {any}: {code:?}"));
        if code.is_none() {
            self.router.disconnect();
        }
        code.filter(|code| *code != NO_REASSIGNMENT)
    }

    async fn elect(&mut self, (topic, index): Place) {
        let partitions = TopicPartitions::default()
            .with_topic(name(topic))
            .with_partitions(vec![index]);
        let request = ElectLeadersRequest::default()
            .with_election_type(PREFERRED)
            .with_topic_partitions(Some(vec![partitions]))
            .with_timeout_ms(TIMEOUT_MS);
        let any = self.router.any();
        let answered = self.router.client(any).ask(2, &request, ANSWER_MAX).await;
        self.history.note(|| {
            let code = answered.map(|answer| answer.error_code);
            format!("the preferred leader of {topic}-{index} through {any}: {code:?}")
        });
    }
}
