//! A client's connection: requests go out, answers come in their order, and what takes too long is given up.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use metaq_protocol::frame;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use metaq_protocol::protocol::{Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::TcpStream;

use super::history::Place;

/// At each of their hosts.
pub const PORT: u16 = 9092;

/// No answer: the request may have been served or not.
#[derive(Debug)]
pub struct NoAnswer;

pub struct Client {
    name: String,
    host: String,
    stream: Option<TcpStream>,
    correlation_id: i32,
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = std::io::Result<T>>,
) -> Result<T, NoAnswer> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) | Err(_) => Err(NoAnswer),
    }
}

impl Client {
    /// Of a broker, under a name of its own.
    pub fn new(name: &str, host: &str) -> Self {
        Self {
            name: name.to_owned(),
            host: host.to_owned(),
            stream: None,
            correlation_id: 0,
        }
    }

    /// Drops the connection; the next request makes another.
    pub fn disconnect(&mut self) {
        self.stream = None;
    }

    /// Sends a request; returns what its answer will carry.
    pub async fn send<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        limit: Duration,
    ) -> Result<i32, NoAnswer> {
        self.correlation_id += 1;
        let frame = frame::encode_request(version, self.correlation_id, &self.name, request)
            .expect("requests of the simulation can be encoded");
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => within(limit, TcpStream::connect((&*self.host, PORT))).await?,
        };
        within(limit, stream.write_all(&frame)).await?;
        // Only now: whatever fails leaves no half of a request behind.
        self.stream = Some(stream);
        Ok(self.correlation_id)
    }

    /// The answer to the oldest request that is not answered yet.
    pub async fn receive<R: Request>(
        &mut self,
        version: i16,
        correlation_id: i32,
        limit: Duration,
    ) -> Result<R::Response, NoAnswer> {
        let mut stream = self.stream.take().ok_or(NoAnswer)?;
        let read = async {
            let mut length = [0; 4];
            stream.read_exact(&mut length).await?;
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut frame).await?;
            Ok(frame)
        };
        let frame = within(limit, read).await?;
        self.stream = Some(stream);
        let (answered, response) = frame::decode_response::<R>(version, Bytes::from(frame))
            .expect("the broker's answers can be read");
        assert_eq!(answered, correlation_id, "answers come in order");
        Ok(response)
    }

    pub async fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, NoAnswer> {
        let correlation_id = self.send(version, request, limit).await?;
        self.receive::<R>(version, correlation_id, limit).await
    }
}

impl Client {
    /// Where a partition of this broker begins.
    pub async fn earliest(
        &mut self,
        (topic, partition): Place,
        limit: Duration,
    ) -> Result<i64, NoAnswer> {
        let asked = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(-2);
        let topic = ListOffsetsTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let response = self.ask(5, &request, limit).await?;
        match &response.topics[0].partitions[0] {
            told if told.error_code == 0 => Ok(told.offset),
            _ => Err(NoAnswer),
        }
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}
