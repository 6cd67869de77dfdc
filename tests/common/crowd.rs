//! Crowds of connections to a broker in a process of its own, and a witness who expects to be served beside them.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use metaq_protocol::frame;
use metaq_protocol::messages::ApiVersionsRequest;
use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::common::{Client, batch, wait_for};
use crate::process::Process;

/// Connections that come at once.
pub const QUEUE: usize = 1000;
/// Descriptors that a process needs beside those of its connections.
pub const DESCRIPTORS_BESIDE: u64 = 500;
/// Longer than this a witness never waits for an answer.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// One crowd at a time: descriptors are limited, and memory and answers are measured.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
}

/// Lets this process, and the broker that it starts, have a descriptor for each of so many connections.
pub fn raise_descriptor_limit(connections: usize) {
    let wanted = connections as u64 + DESCRIPTORS_BESIDE;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    limit.current = Some(wanted);
    limit.maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, limit).unwrap_or_else(|error| {
        panic!("{wanted} open files are needed, and this system allows {maximum}: {error}")
    });
}

/// A broker with two topics, and memory that has seen some use.
pub fn warm(data: &std::path::Path, settings: &[&str]) -> Process {
    let broker = Process::start(data, settings);
    let mut visitors = connect(&broker, 100);
    for visitor in &mut visitors {
        ask_versions(visitor);
    }
    let mut client = broker.client();
    client.create("t");
    client.create("witness");
    for _ in 0..50 {
        assert_eq!(client.produce("t", batch(100)).0, 0);
        witness(&mut client);
    }
    drop((visitors, client));
    wait_for("the visitors to be gone", || connections(&broker) == 0);
    broker
}

pub fn connect(broker: &Process, count: usize) -> Vec<TcpStream> {
    connect_to(broker, broker.address(), count)
}

/// The same to another of its listeners.
pub fn connect_to(broker: &Process, address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let before = connections(broker);
    let mut connected = Vec::with_capacity(count);
    while connected.len() < count {
        // No more at a time than may wait to be accepted.
        let some = QUEUE.min(count - connected.len());
        connected.extend((0..some).map(|_| TcpStream::connect(address).unwrap()));
        wait_for("them to be accepted", || {
            connections(broker) >= before + connected.len() as i64
        });
    }
    connected
}

pub fn connections(broker: &Process) -> i64 {
    broker.metric("metaq_connections")
}

/// Waits for what a timeout of 30 s brings about.
pub fn wait_for_long(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 60 s for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn ask_versions(stream: &mut TcpStream) {
    let asked = frame::encode_request(3, 1, "crowd", &ApiVersionsRequest::default()).unwrap();
    stream.write_all(&asked).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
}

/// Uses the broker as anybody does, and expects to be answered soon.
pub fn witness(client: &mut Client) {
    let asked = Instant::now();
    let (code, offset) = client.produce("witness", batch(10));
    assert_eq!(code, 0);
    assert_eq!(client.fetch("witness", offset), [(offset, 10)]);
    assert!(asked.elapsed() < ANSWER_MAX, "{:?}", asked.elapsed());
}
