//! A broker in this process and a small client, for the tests of a running broker.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metaq::broker::Broker;
use metaq::config::Config;
use metaq::log::{Disk, RealDisk};
use metaq_protocol::batch::{BatchBuilder, Batches};
use metaq_protocol::frame;
use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use metaq_protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest, TopicName};
use metaq_protocol::protocol::{Request, StrBytes};

/// A broker and the runtime that it runs on.
pub struct Running {
    runtime: tokio::runtime::Runtime,
    broker: Option<Broker>,
}

impl Running {
    /// Starts a broker on free ports over a data directory.
    pub fn start(data: &Path, settings: &[&str]) -> Self {
        Self::start_over(data, settings, Arc::new(RealDisk))
    }

    /// The same, over a disk of the test's.
    pub fn start_over(data: &Path, settings: &[&str], disk: Arc<dyn Disk>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut all: Vec<String> = ["serverPort=0", "dashboardHttpPort=0", "hostName=127.0.0.1"]
            .into_iter()
            .chain(settings.iter().copied())
            .map(str::to_owned)
            .collect();
        all.push(format!("dataPath={}", data.display()));
        let config = Config::load(None, &all).unwrap();
        let broker = runtime.block_on(Broker::start_over(config, disk)).unwrap();
        Self {
            runtime,
            broker: Some(broker),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.broker.as_ref().unwrap().addresses()[0]
    }

    pub fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    /// What is done while the guard lives is done in the broker's runtime.
    pub fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.enter()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// One that comes from another address of this machine.
    pub fn client_from(&self, host: [u8; 4]) -> Client {
        let stream = self.runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((host, 0).into()).unwrap();
            let stream = socket.connect(self.address()).await.unwrap();
            stream.into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Client::over(stream)
    }

    /// The body and status of a page of the dashboard.
    pub fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.broker().dashboard_address().unwrap()).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            self.broker().dashboard_token().unwrap().0
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn stop(mut self) {
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.shutdown());
        }
    }
}

/// A blocking client that speaks whole requests.
pub struct Client {
    pub stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    fn over(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            correlation_id: 0,
        }
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.send_as("test", version, request);
    }

    /// The same, under another name.
    pub fn send_as<R: Request>(&mut self, client_id: &str, version: i16, request: &R) {
        self.correlation_id += 1;
        let frame = frame::encode_request(version, self.correlation_id, client_id, request);
        self.stream.write_all(&frame.unwrap()).unwrap();
    }

    pub fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        frame::decode_response::<R>(version, Bytes::from(frame)).unwrap()
    }

    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        let (correlation_id, response) = self.receive::<R>(version);
        assert_eq!(correlation_id, self.correlation_id);
        response
    }

    /// Makes a topic by asking for it.
    pub fn create(&mut self, topic: &str) {
        let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![asked]))
            .with_allow_auto_topic_creation(true);
        assert_eq!(self.ask(9, &request).topics[0].error_code, 0);
    }

    /// Appends a batch; returns the error code and the base offset.
    pub fn produce(&mut self, topic: &str, batch: Bytes) -> (i16, i64) {
        let response = self.ask(9, &produce_request(topic, batch, -1));
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    /// All batches behind an offset: base offset and number of records.
    pub fn fetch(&mut self, topic: &str, offset: i64) -> Vec<(i64, i32)> {
        let response = self.ask(11, &fetch_request(topic, offset, 0));
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        let records = partition.records.clone().unwrap();
        Batches::new(&records)
            .map_while(Result::ok)
            .map(|(header, _)| (header.base_offset, header.record_count))
            .collect()
    }

    /// Whether the broker has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

pub fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

pub fn batch(records: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    for n in 0..records {
        builder = builder.push(None, Some(format!("value {n}").as_bytes()), &[], now_ms());
    }
    builder.finish().unwrap()
}

pub fn now_ms() -> i64 {
    metaq::clock::WallClock::default().now_ms()
}

pub fn produce_request(topic: &str, batch: Bytes, acks: i16) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(batch));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic])
}

pub fn fetch_request(topic: &str, offset: i64, wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(64 << 20);
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(64 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Waits until something is true.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 20 s for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
