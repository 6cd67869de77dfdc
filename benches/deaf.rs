//! Connections that ask for much and never read: beside a measured load they show what they cost others.

use std::io::{Read, Write};
use std::net::TcpStream;

use metaq_protocol::frame;
use metaq_protocol::messages::FetchRequest;
use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic};

use super::{FETCH_VERSION, Failure, Options, topic_name};

/// Requests that each of them sends.
const REQUESTS: usize = 16;
/// What each request asks for, bytes.
const BYTES: i32 = 50 << 20;

/// Opens the connections, says so, and keeps them until standard input ends.
pub(super) fn stay(options: &Options) -> Result<(), Failure> {
    let connected = (0..options.connections).map(|n| ask(options, n));
    let connected: Vec<TcpStream> = connected.collect::<Result<_, _>>()?;
    println!("{} connections", connected.len());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn ask(options: &Options, n: usize) -> Result<TcpStream, Failure> {
    let partition = FetchPartition::default()
        .with_partition(n as i32 % options.partitions)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(BYTES);
    let topic = FetchTopic::default()
        .with_topic(topic_name(options))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(BYTES)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let request = frame::encode_request(FETCH_VERSION, 1, "deaf", &request)?;
    let mut stream = TcpStream::connect(&options.address)?;
    for _ in 0..REQUESTS {
        stream.write_all(&request)?;
    }
    Ok(stream)
}
