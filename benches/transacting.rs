//! Transactions of version 2 (KIP-890): each connection is a producer that writes ten records to a partition of its own and
//! commits or aborts, one transaction after the other.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use metaq_protocol::batch::BatchBuilder;
use metaq_protocol::frame;
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use metaq_protocol::messages::{
    EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest, ProducerId,
    TransactionalId,
};
use metaq_protocol::protocol::{Request, StrBytes};

use super::{Failure, Measured, Options, read_frame, topic_name};

pub(super) const FIND_VERSION: i16 = 3;
pub(super) const INIT_VERSION: i16 = 5;
const PRODUCE_VERSION: i16 = 12;
const END_VERSION: i16 = 5;
const RECORDS: usize = 10;
const TIMEOUT_MS: i32 = 60_000;
/// Kafka's codes for "ask again": leaders, coordinators, and transactions that are not complete.
const AGAIN: [i16; 8] = [3, 5, 6, 14, 15, 16, 19, 51];
const PAUSE: Duration = Duration::from_millis(1);
const TRIES_MAX: usize = 30_000;

/// A transactional producer.
pub(super) struct Producer {
    /// To its coordinator.
    pub(super) stream: TcpStream,
    id: TransactionalId,
    producer: (ProducerId, i16),
    tries_max: usize,
}

/// What begins a transactional id, or fences its producer.
pub(super) fn init_request(id: &str) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(StrBytes::from_string(id.to_owned()))))
        .with_transaction_timeout_ms(TIMEOUT_MS)
}

fn ask<R: Request>(
    stream: &mut TcpStream,
    version: i16,
    request: &R,
) -> Result<R::Response, Failure> {
    let frame = frame::encode_request(version, 1, "load", request)?;
    stream.write_all(&frame)?;
    let answer = read_frame(stream)?;
    Ok(frame::decode_response::<R>(version, answer)?.1)
}

/// Asks until the answer's code is final, or so often.
fn insist<R: Request>(
    stream: &mut TcpStream,
    (version, tries_max): (i16, usize),
    request: &R,
    code: impl Fn(&R::Response) -> i16,
) -> Result<R::Response, Failure> {
    for _ in 0..tries_max {
        let response = ask(stream, version, request)?;
        match code(&response) {
            0 => return Ok(response),
            again if AGAIN.contains(&again) => std::thread::sleep(PAUSE),
            code => return Err(format!("{}: error {code}", R::KEY).into()),
        }
    }
    Err("asked for too long".into())
}

impl Producer {
    /// One that its coordinator knows, each of whose requests is asked so often at most.
    pub(super) fn begun(stream: TcpStream, id: &str, tries_max: usize) -> Result<Self, Failure> {
        let mut producer = Self {
            stream,
            id: TransactionalId(StrBytes::from_string(id.to_owned())),
            producer: (ProducerId(-1), -1),
            tries_max: tries_max.min(TRIES_MAX),
        };
        producer.begin()?;
        Ok(producer)
    }

    fn insist<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response, Failure> {
        insist(&mut self.stream, (version, self.tries_max), request, code)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        // Kafka makes the coordinator's topic when it is asked for.
        let request = FindCoordinatorRequest::default()
            .with_key(self.id.0.clone())
            .with_key_type(1);
        self.insist(FIND_VERSION, &request, |answer| answer.error_code)?;
        let request = init_request(&self.id.0);
        let begun = self.insist(INIT_VERSION, &request, |answer| answer.error_code)?;
        self.producer = (begun.producer_id, begun.producer_epoch);
        Ok(())
    }

    fn write(&mut self, options: &Options, partition: i32) -> Result<u64, Failure> {
        let mut leader = self.stream.try_clone()?;
        self.write_to(&mut leader, options, partition)
    }

    /// Ten records to the leader of a partition; their bytes.
    pub(super) fn write_to(
        &mut self,
        leader: &mut TcpStream,
        options: &Options,
        partition: i32,
    ) -> Result<u64, Failure> {
        let (id, epoch) = self.producer;
        let mut builder = BatchBuilder::new().producer(id.0, epoch, 0).transactional();
        let value = vec![b'x'; options.record_bytes];
        for _ in 0..RECORDS {
            builder = builder.push(None, Some(&value), &[], 0);
        }
        let batch = builder.finish()?;
        let bytes = batch.len() as u64;
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch));
        let topic = TopicProduceData::default()
            .with_name(topic_name(options))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(Some(self.id.clone()))
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        insist(
            leader,
            (PRODUCE_VERSION, self.tries_max),
            &request,
            |answer| answer.responses[0].partition_responses[0].error_code,
        )?;
        Ok(bytes)
    }

    /// Commits or aborts.
    pub(super) fn end(&mut self, commits: bool) -> Result<(), Failure> {
        let request = EndTxnRequest::default()
            .with_transactional_id(self.id.clone())
            .with_producer_id(self.producer.0)
            .with_producer_epoch(self.producer.1)
            .with_committed(commits);
        let ended = self.insist(END_VERSION, &request, |answer| answer.error_code)?;
        self.producer = (ended.producer_id, ended.producer_epoch);
        Ok(())
    }
}

/// One producer's transactions; what is counted as a record is a transaction, and its latency is that of its end.
pub(super) fn transact(options: &Options, n: usize) -> Result<Measured, Failure> {
    let stream = TcpStream::connect(&options.address)?;
    stream.set_nodelay(true)?;
    let id = format!("load-{}-{n}", options.topic);
    let mut producer = Producer::begun(stream, &id, TRIES_MAX)?;
    let partition = n as i32 % options.partitions;
    let (mut bytes, mut latencies) = (0, Vec::new());
    let started = Instant::now();
    while started.elapsed() < options.run {
        bytes += producer.write(options, partition)?;
        let asked = Instant::now();
        let aborts = options.abort_every > 0 && latencies.len() % options.abort_every == 0;
        producer.end(!aborts)?;
        latencies.push(asked.elapsed());
    }
    Ok((latencies.len() as u64, bytes, latencies))
}
