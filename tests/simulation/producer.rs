//! A producer: idempotent with batches in flight, or plain with one after the other. What is not answered, or refused
//! for a while, is sent again, as real clients do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metaq_protocol::batch::{BatchBuilder, next_sequence};
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use metaq_protocol::messages::{InitProducerIdRequest, ProduceRequest};

use super::client::{NoAnswer, name};
use super::history::{History, Number, PLACES, Place};
use super::random::Random;
use super::router::{Brokers, Router, now_ms};
use super::world::Phase;

const VERSION: i16 = 9;
const ANSWER_MAX: Duration = Duration::from_millis(700);
/// Kafka's codes that an idempotent producer ends with.
const OUT_OF_ORDER: i16 = 45;
const DUPLICATE: i16 = 46;
const INVALID_EPOCH: i16 = 47;
const UNKNOWN_PRODUCER: i16 = 59;

pub struct Producer {
    index: usize,
    idempotent: bool,
    router: Router,
    history: History,
    phase: Phase,
    random: Random,
    /// Id and epoch, while there is one.
    id: Option<(i64, i16)>,
    sequences: BTreeMap<Place, i32>,
    /// Where something of this id was acknowledged. Until then one batch is in flight there: a partition that knows
    /// nothing of a producer takes any of its batches as the first, here as in Kafka.
    known: BTreeSet<Place>,
    next_number: u64,
}

struct Batch {
    sequence: i32,
    numbers: Vec<Number>,
}

/// What became of a batch.
enum Answer {
    Done,
    Again,
    /// The producer must begin anew.
    Over,
}

impl Producer {
    pub fn new(
        index: usize,
        idempotent: bool,
        brokers: Brokers,
        history: History,
        phase: Phase,
        random: Random,
    ) -> Self {
        Self {
            index,
            idempotent,
            router: Router::new(&format!("p{index}"), brokers),
            history,
            phase,
            random,
            id: None,
            sequences: BTreeMap::new(),
            known: BTreeSet::new(),
            next_number: 0,
        }
    }

    /// Produces until the faults are over.
    pub async fn run(mut self) {
        while !self.phase.is_healing() {
            let place = PLACES[self.random.below(PLACES.len() as u64) as usize];
            self.produce(place).await;
            self.pause(60).await;
        }
        self.phase.producer_ended();
    }

    async fn pause(&mut self, ms_max: u64) {
        let pause = self.random.below(ms_max);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn produce(&mut self, place: Place) {
        if self.idempotent && self.id.is_none() {
            self.begin().await;
        }
        let batches = match self.known.contains(&place) {
            true => self.random.between(1, 4),
            false => 1,
        };
        let mut pending: Vec<Batch> = (0..batches).map(|_| self.batch(place)).collect();
        while !pending.is_empty() {
            match self.attempt(place, &mut pending).await {
                Ok(true) => {}
                // What is pending may be there or not: it is never sent again.
                Ok(false) => {
                    self.router.disconnect();
                    self.id = None;
                    self.sequences.clear();
                    self.known.clear();
                    return;
                }
                Err(NoAnswer) => self.router.disconnect(),
            }
            if !pending.is_empty() {
                self.pause(150).await;
            }
        }
    }

    async fn begin(&mut self) {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(1000);
        loop {
            let any = self.router.any();
            match self.router.client(any).ask(4, &request, ANSWER_MAX).await {
                Ok(response) if response.error_code == 0 => {
                    self.id = Some((response.producer_id.0, response.producer_epoch));
                    return;
                }
                Ok(response) => {
                    let (index, code) = (self.index, response.error_code);
                    self.history
                        .note(|| format!("producer {index} gets no id: {code}"));
                }
                Err(NoAnswer) => self.router.disconnect(),
            }
            self.pause(150).await;
        }
    }

    fn batch(&mut self, place: Place) -> Batch {
        let count = self.random.between(1, 3);
        let first = self.next_number;
        self.next_number += count as u64;
        let sequence = self.sequences.entry(place).or_default();
        let batch = Batch {
            sequence: *sequence,
            numbers: (first..self.next_number).map(|n| (self.index, n)).collect(),
        };
        *sequence = next_sequence(*sequence, count as i32);
        batch
    }

    fn request(&self, place: Place, batch: &Batch) -> ProduceRequest {
        let mut builder = BatchBuilder::new();
        if let Some((id, epoch)) = self.id {
            builder = builder.producer(id, epoch, batch.sequence);
        }
        for (producer, n) in &batch.numbers {
            let value = format!("{producer} {n} {}", "x".repeat((n % 50) as usize));
            builder = builder.push(None, Some(value.as_bytes()), &[], super::world::EPOCH_MS);
        }
        let records = builder.finish().expect("plain batches always encode");
        let data = PartitionProduceData::default()
            .with_index(place.1)
            .with_records(Some(records));
        let topic = TopicProduceData::default()
            .with_name(name(place.0))
            .with_partition_data(vec![data]);
        ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(5000)
            .with_topic_data(vec![topic])
    }

    /// Sends everything that is pending and takes out what is done. Whether this producer may go on.
    async fn attempt(&mut self, place: Place, pending: &mut Vec<Batch>) -> Result<bool, NoAnswer> {
        let (leader, asked_ms) = (self.router.leader(place).await?, now_ms());
        let power_losses = self.history.power_losses();
        let mut asked = Vec::new();
        for batch in pending.iter() {
            self.history.sending(place, &batch.numbers, self.idempotent);
            let request = self.request(place, batch);
            let client = self.router.client(leader);
            asked.push(client.send(VERSION, &request, ANSWER_MAX).await?);
        }
        let mut left = 0;
        for correlation_id in asked {
            let response = self
                .router
                .client(leader)
                .receive::<ProduceRequest>(VERSION, correlation_id, ANSWER_MAX)
                .await?;
            let answer = &response.responses[0].partition_responses[0];
            let batch = &pending[left];
            let told = (answer.error_code, answer.base_offset, power_losses);
            self.router.told_of_leader(place, answer.error_code);
            if answer.error_code == 0 {
                let by = (leader, asked_ms);
                self.router.check_leader(&self.history, place, by);
            }
            match self.judge(place, batch, told, left == 0) {
                Answer::Done => {
                    pending.remove(left);
                    if self.idempotent {
                        self.known.insert(place);
                    }
                }
                Answer::Again => left += 1,
                Answer::Over => return Ok(false),
            }
        }
        Ok(true)
    }

    fn judge(
        &self,
        place: Place,
        batch: &Batch,
        (code, base, power_losses): (i16, i64, u32),
        is_first: bool,
    ) -> Answer {
        match code {
            0 => {
                self.history
                    .acknowledged(place, power_losses, base, &batch.numbers);
                Answer::Done
            }
            DUPLICATE if self.idempotent => Answer::Done,
            // Behind one that was refused.
            OUT_OF_ORDER if !is_first => Answer::Again,
            OUT_OF_ORDER | INVALID_EPOCH | UNKNOWN_PRODUCER => {
                self.history.out_of_order(place, batch.numbers[0], code);
                Answer::Over
            }
            _ => {
                let number = batch.numbers[0];
                self.history
                    .note(|| format!("{place:?}: {number:?} refused with {code}"));
                Answer::Again
            }
        }
    }
}
